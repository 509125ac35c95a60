/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling the device what is unused: FITRIM's rules and its company with allocations, background discard, devices that
 * refuse or cannot. The error device between filesystem and memory counts what arrives, and makes it slow.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/sim/calls.h"

static unsigned owners;
#define ROOT FS_ROOT_INODE

struct trim_call {
	struct fs *fs;
	uint64_t offset, length, min_length, trimmed;
	struct fs_ticket *ticket;
};

static MAY_WAIT int trim_run(void *arg)
{
	struct trim_call *call = arg;
	fs_ticket_use(call->ticket);
	const int error = fs_trim(call->fs, call->offset, call->length, call->min_length, &call->trimmed);
	fs_ticket_use(NULL);
	return error;
}

static int trim(struct machine *machine, uint64_t offset, uint64_t length, uint64_t min_length, uint64_t *trimmed)
{
	struct trim_call call = {.fs = machine->sim.fs, .offset = offset, .length = length, .min_length = min_length};
	const int error = sim_on(&machine->sim, ROOT, trim_run, &call);
	*trimmed = call.trimmed;
	return error;
}

static int trim_all(struct machine *machine, uint64_t *trimmed) { return trim(machine, 0, UINT64_MAX, 0, trimmed); }

static uint64_t make_file(struct machine *machine, const char *name, uint64_t bytes)
{
	struct fs_entry entry;
	uint8_t *data = malloc(bytes);
	memset(data, 0x5a, bytes);
	assert_int_equal(call_create(machine, ROOT, name, S_IFREG | 0600, &entry), 0);
	if (bytes)
		assert_int_equal(call_write(machine, entry.ino, data, 0, (uint32_t)bytes), 0);
	free(data);
	return entry.ino;
}

static void remove_file(struct machine *machine, const char *name, uint64_t ino)
{
	assert_int_equal(call_unlink(machine, ROOT, name), 0);
	call_forget(machine, ino, 1);
}

static struct fs_status status_of(struct machine *machine)
{
	struct fs_status status;
	fs_get_status(machine->sim.fs, &status);
	return status;
}

static uint64_t unmaps(struct machine *machine) { return bdev_error_io_count(sim_bdev(&machine->sim, "error"), IO_UNMAP); }

static void slow_unmaps(struct machine *machine, uint64_t delay_ns)
{
	const struct error_rule rule = {.ops = 1u << IO_UNMAP, .action = ERROR_DELAY, .delay_ns = delay_ns};
	bdev_error_add_rule(sim_bdev(&machine->sim, "error"), &rule);
}

/* ---- FITRIM ---- */

static void test_trim_covers_what_is_free_and_only_once(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	uint64_t trimmed;
	const uint64_t ino = make_file(&m, "file", MIB(1));
	assert_int_equal(call_sync(&m), 0);
	assert_int_equal(trim_all(&m, &trimmed), 0);
	assert_int_equal(trimmed, call_statfs(&m).free_blocks * FS_BLOCK_SIZE);
	/* Nothing was freed since: the device is not bothered. */
	const uint64_t before = unmaps(&m);
	assert_int_equal(trim_all(&m, &trimmed), 0);
	assert_int_equal(trimmed, 0);
	assert_int_equal(unmaps(&m), before);
	/* What is removed counts as free at once, and its group is looked at again. */
	remove_file(&m, "file", ino);
	assert_int_equal(trim_all(&m, &trimmed), 0);
	assert_true(trimmed >= MIB(1) && trimmed <= MIB(8));
	machine_stop(&m);
}

static void test_trim_keeps_to_its_range(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	uint64_t trimmed;
	assert_int_equal(trim(&m, MIB(8), MIB(4) + 100, 0, &trimmed), 0);
	assert_in_range(trimmed, MIB(4) - 64 * FS_BLOCK_SIZE, MIB(4)); /* without the maps of two groups */
	assert_int_equal(trim(&m, MIB(8) + 1, 2 * FS_BLOCK_SIZE, 0, &trimmed), 0);
	assert_int_equal(trimmed, FS_BLOCK_SIZE); /* whole blocks inside */
	assert_int_equal(trim(&m, MIB(32), MIB(1), 0, &trimmed), -EINVAL);
	assert_int_equal(trim(&m, 0, FS_BLOCK_SIZE - 1, 0, &trimmed), -EINVAL);
	assert_int_equal(trim(&m, 0, UINT64_MAX, MIB(2) + 1, &trimmed), -EINVAL);
	/* No run is as long as a whole group; a trim that asked for long ones does not stand for one that asks for all. */
	assert_int_equal(trim(&m, 0, UINT64_MAX, MIB(2), &trimmed), 0);
	assert_int_equal(trimmed, 0);
	assert_int_equal(trim_all(&m, &trimmed), 0);
	const uint64_t free_bytes = call_statfs(&m).free_blocks * FS_BLOCK_SIZE;
	assert_in_range(trimmed, free_bytes - MIB(2), free_bytes); /* one group was trimmed wholly at first */
	machine_stop(&m);
}

static void test_trim_is_refused_when_it_cannot_be(void **state)
{
	struct machine m;
	machine_start_with(&m, owners, 0, &(struct fs_mount_options){.read_only = true});
	uint64_t trimmed;
	assert_int_equal(trim_all(&m, &trimmed), -EROFS);
	machine_stop(&m);
	machine_start(&m, owners, 0);
	const struct error_rule rule = {.ops = 1u << IO_UNMAP, .skip = 1, .action = ERROR_FAIL, .error = -EIO};
	bdev_error_add_rule(sim_bdev(&m.sim, "error"), &rule);
	assert_int_equal(trim_all(&m, &trimmed), -EIO);
	assert_true(trimmed);
	/* What the device refused to unmap is free as before. */
	make_file(&m, "file", MIB(4));
	machine_stop(&m);
}

static void test_trim_can_be_called_off(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	struct fs_ticket ticket;
	fs_ticket_init(&ticket);
	assert_true(fs_ticket_cancel(&ticket));
	struct trim_call call = {.fs = m.sim.fs, .length = UINT64_MAX, .ticket = &ticket};
	assert_int_equal(sim_on(&m.sim, ROOT, trim_run, &call), -EINTR);
	assert_int_equal(call.trimmed, 0);
	fs_call_off(m.sim.fs);
	assert_int_equal(trim_all(&m, &call.trimmed), -EINTR);
	machine_stop(&m);
}

/* ---- a trim in company ---- */

struct company {
	struct machine *machine;
	uint64_t rounds;
	bool end, ended;
	int error;
};

static void trim_for_ever(void *arg)
{
	struct company *company = arg;
	struct fs *fs = company->machine->sim.fs;
	while (!company->end && !company->error) {
		/* In slices that contain no whole group, so that none is passed over. */
		uint64_t trimmed;
		for (unsigned i = 0; i < 32 && !company->error; i++)
			company->error = fs_trim(fs, MIB(1) * i, MIB(1), 0, &trimmed);
		company->rounds++;
	}
	company->ended = true;
}

static bool has_ended(void *arg) { return ((struct company *)arg)->ended; }

static uint64_t fill(struct machine *machine, uint64_t ino)
{
	enum { STEP = 128 * 1024 };
	uint8_t *buffer = calloc(1, STEP);
	uint64_t total = 0;
	for (uint32_t step = STEP; step >= FS_BLOCK_SIZE;) {
		uint32_t written = 0;
		const int error = call_write_flags(machine, ino, buffer, total, step, 0, &written);
		total += written;
		step = error || !written ? step / 2 : step;
	}
	free(buffer);
	return total;
}

static void test_allocations_find_space_during_a_trim(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t ino = make_file(&m, "file", 0);
	const uint64_t bytes = fill(&m, ino);
	slow_unmaps(&m, 20 * NS_PER_MS);
	struct company company = {.machine = &m};
	struct fiber_start_remote start = {.start = {.fn = trim_for_ever, .arg = &company, .name = "trim"}};
	fiber_start_on(reactor_group_get(m.sim.group, 0), &start);
	uint8_t *data = calloc(1, KIB(256));
	for (unsigned i = 0; i < 30; i++) {
		assert_int_equal(call_truncate(&m, ino, bytes - KIB(256)), 0);
		if (i % 2)
			call_sleep(&m, 50 * NS_PER_MS);
		/* The space that was just made is all there is, and the trim is after it. */
		uint32_t written;
		assert_int_equal(call_write_flags(&m, ino, data, bytes - KIB(256), KIB(256), 0, &written), 0);
		assert_int_equal(written, KIB(256));
	}
	company.end = true;
	assert_true(reactor_group_sim_run(m.sim.group, has_ended, &company));
	assert_int_equal(company.error, 0);
	assert_true(company.rounds > 1);
	free(data);
	machine_stop(&m);
}

/* ---- in the background ---- */

static const struct fs_mount_options discarding = {.discard = true, .commit_ms = 100};

static void test_freed_space_is_discarded_in_long_runs(void **state)
{
	struct machine m;
	machine_start_with(&m, owners, 0, &discarding);
	uint64_t inos[40];
	char name[8];
	for (unsigned i = 0; i < ARRAY_SIZE(inos); i++) {
		snprintf(name, sizeof(name), "f%u", i);
		inos[i] = make_file(&m, name, KIB(64));
	}
	assert_int_equal(call_sync(&m), 0);
	const uint64_t before = unmaps(&m);
	for (unsigned i = 0; i < ARRAY_SIZE(inos); i++) {
		snprintf(name, sizeof(name), "f%u", i);
		remove_file(&m, name, inos[i]);
	}
	machine_settle(&m);
	call_sleep(&m, 5 * NS_PER_SEC);
	const struct fs_status status = status_of(&m);
	assert_true(status.discarded_bytes >= 40 * KIB(64));
	assert_int_equal(status.discard_waiting_bytes, 0);
	assert_int_equal(status.discards, unmaps(&m) - before);
	assert_true(status.discards <= 16);
	machine_stop(&m);
}

static int now_run(void *arg)
{
	*(uint64_t *)arg = reactor_now_ns();
	return 0;
}

static void test_unmounting_discards_the_rest_but_not_for_ever(void **state)
{
	struct machine m;
	machine_start_with(&m, owners, 0, &discarding);
	uint64_t ino = make_file(&m, "file", MIB(2));
	assert_int_equal(call_sync(&m), 0);
	remove_file(&m, "file", ino);
	machine_remount(&m);
	assert_true(unmaps(&m) > 0);
	remove_file(&m, "file", make_file(&m, "file", MIB(2)));
	slow_unmaps(&m, 2 * NS_PER_SEC);
	uint64_t taken[2];
	sim_on(&m.sim, ROOT, now_run, &taken[0]);
	machine_remount(&m);
	sim_on(&m.sim, ROOT, now_run, &taken[1]);
	assert_in_range(taken[1] - taken[0], 2 * NS_PER_SEC, 10 * NS_PER_SEC);
	machine_stop(&m);
}

static void test_short_space_is_reused_without(void **state)
{
	struct machine m;
	machine_start_with(&m, owners, 0, &(struct fs_mount_options){.discard = true, .commit_ms = 60000});
	const uint64_t ino = make_file(&m, "file", 0);
	const uint64_t bytes = fill(&m, ino);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(call_truncate(&m, ino, 0), 0);
		assert_true(fill(&m, ino) + KIB(512) >= bytes);
	}
	assert_true(status_of(&m).discard_skipped_bytes > 0);
	machine_stop(&m);
}

static void test_a_device_that_refuses_does_no_harm(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		struct machine m;
		machine_start_with(&m, owners, 0, &discarding);
		const int errors[] = {-EIO, -EOPNOTSUPP};
		const struct error_rule rule = {.ops = 1u << IO_UNMAP, .action = ERROR_FAIL, .error = errors[i]};
		bdev_error_add_rule(sim_bdev(&m.sim, "error"), &rule);
		const uint64_t free_blocks = call_statfs(&m).free_blocks;
		for (unsigned j = 0; j < 3; j++) {
			remove_file(&m, "file", make_file(&m, "file", MIB(8)));
			machine_settle(&m);
		}
		assert_true(status_of(&m).discards_failed > 0);
		assert_int_equal(status_of(&m).discards, 0);
		assert_true(call_statfs(&m).free_blocks + 8 >= free_blocks);
		make_file(&m, "file", MIB(16));
		machine_stop(&m);
	}
}

static void test_a_device_that_cannot_is_not_asked(void **state)
{
	const uint64_t size = MIB(32);
	uint8_t *memory = calloc(1, size);
	sim_mkfs(memory, &(struct sim_format){.size = size, .journal_bytes = MIB(1), .ag_bytes = MIB(2), .seed = 7});
	struct sim sim;
	sim_create(&sim, &(struct sim_options){.owners = owners, .seed = 1, .memory = memory, .size = size, .nvme = "dsm=off"});
	assert_int_equal(sim_mount(&sim, &discarding), 0);
	struct trim_call call = {.fs = sim.fs, .length = UINT64_MAX};
	assert_int_equal(sim_on(&sim, ROOT, trim_run, &call), -EOPNOTSUPP);
	assert_int_equal(sim_unmount(&sim), 0);
	sim_destroy(&sim);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_trim_covers_what_is_free_and_only_once),
		cmocka_unit_test(test_trim_keeps_to_its_range),
		cmocka_unit_test(test_trim_is_refused_when_it_cannot_be),
		cmocka_unit_test(test_trim_can_be_called_off),
		cmocka_unit_test(test_allocations_find_space_during_a_trim),
		cmocka_unit_test(test_freed_space_is_discarded_in_long_runs),
		cmocka_unit_test(test_unmounting_discards_the_rest_but_not_for_ever),
		cmocka_unit_test(test_short_space_is_reused_without),
		cmocka_unit_test(test_a_device_that_refuses_does_no_harm),
		cmocka_unit_test(test_a_device_that_cannot_is_not_asked),
	};
	int failed = 0;
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("trim", tests, NULL, NULL);
	return failed;
}
