/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A filesystem that ends for a successor: lookup counts and unlinked files in use go on, with any number of owners, several
 * times in a row; a mount that knows nothing of them frees them; a device that somebody else has changed is refused; and a
 * power cut at any write of the change leaves what was promised.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fs/format.h"
#include "reactor/log.h"
#include "tests/sim/calls.h"
#include "tests/sim/cut.h"

#define ROOT FS_ROOT_INODE
enum { SIZE = MIB(32), FILES = 40, UNLINKED = 30, BYTES = 9000 };

struct left {
	struct fs *fs;
	struct fs_legacy legacy;
};

static MAY_WAIT int leave_run(void *arg)
{
	struct left *left = arg;
	const int error = fs_save_counts(left->fs, &left->legacy);
	return error ? error : fs_leave(left->fs, &left->legacy);
}

static void leave(struct machine *machine, struct fs_legacy *legacy)
{
	struct left left = {.fs = machine->sim.fs};
	machine->sim.fs = NULL;
	assert_int_equal(reactor_group_run(reactor_group_get(machine->sim.group, 0), leave_run, &left), 0);
	*legacy = left.legacy;
	sim_destroy(&machine->sim);
}

static int go_on(struct machine *machine, unsigned owners, const struct fs_legacy *legacy, bool record)
{
	const struct sim_options options = {.owners = owners, .seed = owners, .memory = machine->memory, .size = SIZE,
		.asynchronous = true, .record = record, .error = !record};
	const struct fs_mount_options mount = {.legacy = legacy};
	machine->owners = owners;
	sim_create(&machine->sim, &options);
	return sim_mount(&machine->sim, &mount);
}

static const struct fs_state *state_of(const uint8_t *memory)
{
	const struct fs_state *best = NULL;
	for (unsigned i = 0; i < 2; i++) {
		const struct fs_state *state = (const struct fs_state *)(memory + (FS_STATE_BLOCK_A + i) * FS_BLOCK_SIZE);
		if (!best || le64_get(state->generation) > le64_get(best->generation))
			best = state;
	}
	return best;
}

static uint8_t *content(unsigned number)
{
	static uint8_t bytes[BYTES];
	for (unsigned i = 0; i < BYTES; i++)
		bytes[i] = (uint8_t)(number * 37 + i / 11);
	return bytes;
}

/* @inos: of the unlinked ones, which are in use; the others are known to the kernel @counts times. */
static void fill(struct machine *machine, uint64_t *inos, unsigned unlinked)
{
	struct fs_entry entry;
	char name[32];
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(call_create(machine, ROOT, name, S_IFREG | 0600, &entry), 0);
		assert_int_equal(call_write(machine, entry.ino, content(i), 0, BYTES), 0);
		for (unsigned j = 0; j < i % 4; j++)
			assert_int_equal(call_lookup(machine, ROOT, name, &entry), 0);
		inos[i] = entry.ino;
	}
	for (unsigned i = 0; i < unlinked; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(call_unlink(machine, ROOT, name), 0);
	}
}

static void check(struct machine *machine, const uint64_t *inos, unsigned first)
{
	static uint8_t found[BYTES];
	for (unsigned i = first; i < FILES; i++) {
		uint32_t length;
		assert_int_equal(call_read(machine, inos[i], found, 0, BYTES, &length), 0);
		assert_int_equal(length, BYTES);
		assert_memory_equal(found, content(i), BYTES);
	}
}

static uint64_t used_inodes(struct machine *machine)
{
	struct fs_status status;
	machine_settle(machine);
	fs_get_status(machine->sim.fs, &status);
	return status.used_inodes;
}

static uint64_t known(struct machine *machine)
{
	struct fs_status status;
	fs_get_status(machine->sim.fs, &status);
	return status.inodes_referenced;
}

static void test_counts_and_unlinked_files_go_on(void **state)
{
	static const unsigned owners[] = {2, 1, 4, 4, 1};
	struct machine machine;
	uint64_t inos[FILES];
	machine_start(&machine, 2, SIZE);
	const uint64_t empty = used_inodes(&machine);
	fill(&machine, inos, UNLINKED);
	for (size_t i = 0; i < ARRAY_SIZE(owners); i++) {
		struct fs_legacy legacy;
		leave(&machine, &legacy);
		assert_int_equal(legacy.count, FILES);
		assert_int_equal(le32_get(state_of(machine.memory)->clean), 0);
		assert_int_equal(sim_fsck(machine.memory, SIZE, true, "left"), 0);
		assert_int_equal(go_on(&machine, owners[i], &legacy, false), 0);
		free(legacy.counts);
		assert_int_equal(used_inodes(&machine), empty + FILES);
		assert_int_equal(known(&machine), FILES);
		check(&machine, inos, 0);
		/* They can still be changed. */
		assert_int_equal(call_write(&machine, inos[i], content((unsigned)i), 0, BYTES), 0);
	}
	/* The last count, and no other, frees. */
	for (unsigned i = 0; i < UNLINKED; i++)
		if (i % 4)
			call_forget(&machine, inos[i], i % 4);
	assert_int_equal(used_inodes(&machine), empty + FILES);
	for (unsigned i = 0; i < UNLINKED; i++)
		call_forget(&machine, inos[i], 1);
	assert_int_equal(used_inodes(&machine), empty + FILES - UNLINKED);
	assert_int_equal(known(&machine), FILES - UNLINKED);
	machine_stop(&machine);
}

/* The table of counts is made larger behind them, and smaller again. */
static void test_unlinked_files_among_many_go_on(void **state)
{
	enum { MANY = 700 };
	static uint64_t many[MANY];
	struct machine machine;
	struct fs_entry entry;
	struct fs_legacy legacy;
	uint64_t inos[FILES];
	char name[32];
	machine_start(&machine, 2, SIZE);
	const uint64_t empty = used_inodes(&machine);
	fill(&machine, inos, UNLINKED);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < MANY; i++) {
			snprintf(name, sizeof(name), "round%u-%u", round, i);
			assert_int_equal(call_create(&machine, ROOT, name, S_IFREG | 0600, &entry), 0);
			many[i] = entry.ino;
		}
		for (unsigned i = 0; i < MANY && round; i++)
			call_forget(&machine, many[i], 1);
		leave(&machine, &legacy);
		assert_int_equal(le32_get(state_of(machine.memory)->clean), 0);
		assert_int_equal(go_on(&machine, 2, &legacy, false), 0);
		free(legacy.counts);
		assert_int_equal(used_inodes(&machine), empty + FILES + (round + 1) * MANY);
	}
	for (unsigned i = 0; i < UNLINKED; i++)
		call_forget(&machine, inos[i], 1 + i % 4);
	assert_int_equal(used_inodes(&machine), empty + FILES - UNLINKED + 2 * MANY);
	leave(&machine, &legacy);
	assert_int_equal(le32_get(state_of(machine.memory)->clean), 1);
	assert_int_equal(go_on(&machine, 2, &legacy, false), 0);
	free(legacy.counts);
	machine_stop(&machine);
}

static void test_without_unlinked_files_it_is_clean(void **state)
{
	struct machine machine;
	struct fs_legacy legacy;
	uint64_t inos[FILES];
	machine_start(&machine, 2, SIZE);
	fill(&machine, inos, 0);
	leave(&machine, &legacy);
	assert_int_equal(le32_get(state_of(machine.memory)->clean), 1);
	assert_int_equal(sim_fsck(machine.memory, SIZE, false, "left clean"), 0);
	assert_int_equal(go_on(&machine, 3, &legacy, false), 0);
	check(&machine, inos, 0);
	/* What loses its last name now is in use, too. */
	assert_int_equal(call_unlink(&machine, ROOT, "file0"), 0);
	machine_settle(&machine);
	check(&machine, inos, 0);
	free(legacy.counts);
	machine_stop(&machine);
}

static void test_a_mount_without_them_frees_them(void **state)
{
	struct machine machine;
	struct fs_legacy legacy;
	uint64_t inos[FILES];
	machine_start(&machine, 2, SIZE);
	const uint64_t empty = used_inodes(&machine);
	fill(&machine, inos, UNLINKED);
	leave(&machine, &legacy);
	free(legacy.counts);
	assert_int_equal(go_on(&machine, 1, NULL, false), 0);
	assert_int_equal(used_inodes(&machine), empty + FILES - UNLINKED);
	check(&machine, inos, UNLINKED);
	machine_stop(&machine);
}

static void test_a_device_that_was_changed_is_refused(void **state)
{
	struct machine machine;
	struct fs_legacy legacy, second;
	struct fs_entry entry;
	uint64_t inos[FILES];
	machine_start(&machine, 2, SIZE);
	fill(&machine, inos, UNLINKED);
	leave(&machine, &legacy);
	/* A successor that mounts and fails changes nothing that counts. */
	assert_int_equal(go_on(&machine, 1, &legacy, false), 0);
	leave(&machine, &second);
	free(second.counts);
	assert_int_equal(go_on(&machine, 1, &legacy, false), 0);
	check(&machine, inos, 0);
	leave(&machine, &second);
	free(second.counts);
	/* Somebody else does. */
	assert_int_equal(go_on(&machine, 1, NULL, false), 0);
	assert_int_equal(call_create(&machine, ROOT, "stranger", S_IFREG | 0600, &entry), 0);
	assert_int_equal(sim_unmount(&machine.sim), 0);
	sim_destroy(&machine.sim);
	assert_int_equal(go_on(&machine, 2, &legacy, false), -ESTALE);
	assert_non_null(strstr(machine.sim.message, "somebody else"));
	sim_destroy(&machine.sim);
	legacy.uuid[3] ^= 1;
	assert_int_equal(go_on(&machine, 2, &legacy, false), -ESTALE);
	free(legacy.counts);
	sim_destroy(&machine.sim);
	assert_int_equal(go_on(&machine, 2, NULL, false), 0);
	machine_stop(&machine);
}

/* Whatever the cut has left can be mounted, and has the files that still have names. */
static void cut_and_check(const struct cut_plan *plan, const uint8_t *before, uint8_t *image, const uint64_t *inos, uint64_t used)
{
	struct machine after = {.memory = image, .size = SIZE, .cred = {.uid = 1000, .gid = 1000}};
	memcpy(image, before, SIZE);
	cut_make(plan, image);
	assert_int_equal(sim_fsck(image, SIZE, true, "after the cut"), 0);
	assert_int_equal(go_on(&after, 1 + plan->random % 3, NULL, false), 0);
	assert_int_equal(used_inodes(&after), used);
	check(&after, inos, UNLINKED);
	assert_int_equal(sim_unmount(&after.sim), 0);
	sim_destroy(&after.sim);
	assert_int_equal(sim_fsck(image, SIZE, false, "after the cut and a mount"), 0);
}

static void cut_everywhere(struct record_log *log, size_t first, const uint8_t *before, const uint64_t *inos, uint64_t used)
{
	static const unsigned keep[] = {0, 100, 50, 30, 70};
	uint8_t *image = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct cut_plan plan = {};
	plan.entries = record_log_entries(log, &plan.count);
	assert_true(plan.count > first + 5);
	for (plan.position = first; plan.position <= plan.count; plan.position++)
		for (unsigned i = 0; i < ARRAY_SIZE(keep); i++) {
			plan.keep_percent = keep[i];
			plan.random++;
			cut_and_check(&plan, before, image, inos, used);
		}
	record_log_put(log);
	munmap(image, SIZE);
}

/* The one that leaves and the one that goes on are recorded; the power fails at each of their writes. */
static void test_power_cuts(void **state)
{
	struct machine machine;
	struct fs_legacy legacy;
	uint64_t inos[FILES];
	size_t first;
	uint8_t *before = malloc(SIZE);
	machine_start(&machine, 2, SIZE);
	const uint64_t empty = used_inodes(&machine);
	leave(&machine, &legacy);
	memcpy(before, machine.memory, SIZE);
	assert_int_equal(go_on(&machine, 2, &legacy, true), 0);
	free(legacy.counts);
	fill(&machine, inos, UNLINKED);
	assert_int_equal(call_sync(&machine), 0);
	struct record_log *log = bdev_record_log(sim_bdev(&machine.sim, "record"));
	record_log_get(log);
	record_log_entries(log, &first);
	leave(&machine, &legacy);
	cut_everywhere(log, first, before, inos, empty + FILES - UNLINKED);

	memcpy(before, machine.memory, SIZE);
	assert_int_equal(go_on(&machine, 3, &legacy, true), 0);
	free(legacy.counts);
	for (unsigned i = 0; i < UNLINKED; i++)
		call_forget(&machine, inos[i], 1 + i % 4);
	assert_int_equal(used_inodes(&machine), empty + FILES - UNLINKED);
	log = bdev_record_log(sim_bdev(&machine.sim, "record"));
	record_log_get(log);
	leave(&machine, &legacy);
	free(legacy.counts);
	cut_everywhere(log, 0, before, inos, empty + FILES - UNLINKED);
	free(before);
	munmap(machine.memory, SIZE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_counts_and_unlinked_files_go_on),
		cmocka_unit_test(test_unlinked_files_among_many_go_on),
		cmocka_unit_test(test_without_unlinked_files_it_is_clean),
		cmocka_unit_test(test_a_mount_without_them_frees_them),
		cmocka_unit_test(test_a_device_that_was_changed_is_refused),
		cmocka_unit_test(test_power_cuts),
	};
	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
