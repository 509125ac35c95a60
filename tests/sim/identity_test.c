/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which device may take the place of the one that left: the same image goes on, at any moment; another filesystem, one
 * that was mounted meanwhile, an old copy and one whose journal lost its end are refused, each with its reason.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/journal_internal.h"
#include "reactor/log.h"
#include "tests/sim/calls.h"

#define ROOT FS_ROOT_INODE

struct look {
	struct fs *fs;
	const uint8_t *image;
	uint64_t size;
	int read_error;
	char message[256];
};

static MAY_WAIT int look_read(void *context, void *buffer, uint64_t offset, uint32_t length)
{
	const struct look *look = context;
	if (look->read_error)
		return look->read_error;
	assert_true(offset + length <= look->size);
	memcpy(buffer, look->image + offset, length);
	return 0;
}

static MAY_WAIT int look_run(void *arg)
{
	struct look *look = arg;
	look->message[0] = 0;
	return fs_identity_check(look->fs, look_read, look, look->message, sizeof(look->message));
}

static int check(struct machine *machine, struct look *look, const void *image)
{
	look->fs = machine->sim.fs;
	look->image = image;
	look->size = machine->size;
	return sim_on(&machine->sim, ROOT, look_run, look);
}

static void make_files(struct machine *machine, const char *prefix, unsigned count)
{
	struct fs_entry entry;
	char name[32];
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "%s%u", prefix, i);
		assert_int_equal(call_create(machine, ROOT, name, S_IFREG | 0600, &entry), 0);
		call_forget(machine, entry.ino, 1);
	}
}

static void *copy_of(const struct machine *machine)
{
	void *copy = malloc(machine->size);
	memcpy(copy, machine->memory, machine->size);
	return copy;
}

static void assert_refused(struct machine *machine, struct look *look, const void *image, const char *why)
{
	assert_int_equal(check(machine, look, image), -ESTALE);
	if (!strstr(look->message, why))
		fail_msg("refused for another reason: %s", look->message);
}

static MAY_WAIT int checkpoint_run(void *arg) { return fs_checkpoint(arg); }

static void test_the_same_device_goes_on_at_any_moment(void **state)
{
	for (unsigned owners = 1; owners <= 4; owners += 3)
		for (unsigned read_only = 0; read_only < 2; read_only++) {
			struct machine machine;
			struct look look = {.read_error = 0};
			machine_start_with(&machine, owners, 0, &(struct fs_mount_options){.read_only = read_only});
			assert_int_equal(check(&machine, &look, machine.memory), 0);
			for (unsigned round = 0; round < 20 && !read_only; round++) {
				char name[16];
				snprintf(name, sizeof(name), "r%u.", round);
				make_files(&machine, name, 40);
				if (round % 3 == 0)
					assert_int_equal(call_sync(&machine), 0);
				if (round % 4 == 1)
					assert_int_equal(sim_on(&machine.sim, ROOT, checkpoint_run, machine.sim.fs), 0);
				assert_int_equal(check(&machine, &look, machine.memory), 0);
			}
			machine_stop(&machine);
		}
}

static void test_another_filesystem_is_refused_by_its_uuid(void **state)
{
	struct machine machine;
	struct look look = {.read_error = 0};
	machine_start(&machine, 2, 0);
	void *other = calloc(1, machine.size);
	assert_refused(&machine, &look, other, "no lanefs");
	const struct sim_format format = {.size = machine.size, .journal_bytes = MIB(1), .ag_bytes = MIB(2), .seed = 8};
	sim_mkfs(other, &format);
	assert_refused(&machine, &look, other, "another filesystem (uuid");
	look.read_error = -EIO;
	assert_int_equal(check(&machine, &look, other), -EIO);
	assert_non_null(strstr(look.message, "cannot be read"));
	free(other);
	machine_stop(&machine);
}

static void test_one_that_was_mounted_meanwhile_is_refused(void **state)
{
	struct machine machine, elsewhere;
	struct look look = {.read_error = 0};
	machine_start(&machine, 1, 0);
	make_files(&machine, "a", 10);
	assert_int_equal(call_sync(&machine), 0);
	machine_start(&elsewhere, 1, 0);
	assert_int_equal(sim_unmount(&elsewhere.sim), 0);
	memcpy(elsewhere.memory, machine.memory, machine.size);
	assert_int_equal(sim_mount(&elsewhere.sim, &elsewhere.mount), 0);
	assert_refused(&machine, &look, elsewhere.memory, "mounted elsewhere");
	machine_stop(&elsewhere);
	machine_stop(&machine);
}

static void test_an_old_copy_is_refused(void **state)
{
	struct machine machine;
	struct look look = {.read_error = 0};
	machine_start(&machine, 1, 0);
	make_files(&machine, "a", 10);
	assert_int_equal(call_sync(&machine), 0);
	void *copy = copy_of(&machine);
	assert_int_equal(check(&machine, &look, copy), 0);
	make_files(&machine, "b", 1);
	assert_int_equal(call_sync(&machine), 0);
	assert_refused(&machine, &look, copy, "journal ends before");
	assert_int_equal(sim_on(&machine.sim, ROOT, checkpoint_run, machine.sim.fs), 0);
	assert_refused(&machine, &look, copy, "older");
	free(copy);
	/* From before this mount. */
	copy = copy_of(&machine);
	machine_remount(&machine);
	assert_refused(&machine, &look, copy, "older");
	free(copy);
	machine_stop(&machine);
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_same_device_goes_on_at_any_moment),
		cmocka_unit_test(test_another_filesystem_is_refused_by_its_uuid),
		cmocka_unit_test(test_one_that_was_mounted_meanwhile_is_refused),
		cmocka_unit_test(test_an_old_copy_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
