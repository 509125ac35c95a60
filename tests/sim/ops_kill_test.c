/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What takes several transactions, killed in the middle: truncating and deleting a file of many extents. The device is
 * copied after every journal group, as it is when the daemon is killed (completed writes are there); each copy is
 * mounted, used at once, left alone until nothing is to be freed any more, and checked.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "reactor/log.h"
#include "tests/sim/calls.h"

enum { EXTENTS = 400, STRIDE = 2 * FS_BLOCK_SIZE, KEPT = 5 * STRIDE + 100 };
#define FULL_SIZE ((uint64_t)(EXTENTS - 1) * STRIDE + FS_BLOCK_SIZE)

static unsigned owners;

struct victim {
	struct machine machine;
	uint64_t ino, blocks_free_without; /* free blocks before there was the file */
	bool deletes;
	uint64_t delay_ns;              /* before it begins, so that groups close at other places */
	struct fiber_start_remote start, sync_start;
	bool done, synced;
	unsigned halfway;               /* copies in which there was something to finish */
	int error;
};

static void victim_create(struct victim *victim)
{
	struct fs_entry entry;
	struct machine *machine = &victim->machine;
	uint8_t *block = malloc(FS_BLOCK_SIZE);
	memset(block, 'x', FS_BLOCK_SIZE);
	machine_start(machine, owners, MIB(12));
	assert_int_equal(call_create(machine, FS_ROOT_INODE, "other", S_IFREG | 0600, &entry), 0);
	assert_int_equal(call_create(machine, FS_ROOT_INODE, "file", S_IFREG | 0600, &entry), 0);
	victim->ino = entry.ino;
	victim->blocks_free_without = call_statfs(machine).free_blocks;
	for (unsigned i = 0; i < EXTENTS; i++)
		assert_int_equal(call_write(machine, entry.ino, block, (uint64_t)i * STRIDE, FS_BLOCK_SIZE), 0);
	assert_int_equal(call_sync(machine), 0);
	free(block);
}

static MAY_WAIT int truncate_here(void *arg)
{
	struct victim *victim = arg;
	struct fs_attr attr = {.size = KEPT};
	return fs_setattr(victim->machine.sim.fs, victim->ino, &attr, FS_SET_SIZE, &victim->machine.cred, &attr);
}

static MAY_WAIT int delete_here(void *arg)
{
	struct victim *victim = arg;
	struct fs *fs = victim->machine.sim.fs;
	const int error = fs_unlink(fs, FS_ROOT_INODE, (struct fs_name){.bytes = "file", .length = 4});
	fiber_sleep(victim->delay_ns);
	fs_forget(fs, victim->ino, 1);
	return error;
}

/* Closes groups all the time, so that the kill finds the work at many stages. */
static MAY_WAIT void sync_main(void *arg)
{
	struct victim *victim = arg;
	while (!victim->done && !victim->error)
		victim->error = fs_sync(victim->machine.sim.fs);
	victim->synced = true;
}

static MAY_WAIT void victim_main(void *arg)
{
	struct victim *victim = arg;
	struct fs *fs = victim->machine.sim.fs;
	fiber_sleep(victim->delay_ns);
	const int error = reactor_call(fs_owner(fs, victim->deletes ? FS_ROOT_INODE : victim->ino),
		victim->deletes ? delete_here : truncate_here, victim);
	victim->error = victim->error ? victim->error : error;
	fiber_sleep(20 * NS_PER_MS);
	victim->done = true;
}

/* ---- after the kill ---- */

static void check_bytes(struct machine *machine, uint64_t ino, uint64_t from, uint64_t to, uint8_t byte)
{
	uint8_t *buffer = malloc(to - from);
	uint32_t length;
	assert_int_equal(call_read(machine, ino, buffer, from, (uint32_t)(to - from), &length), 0);
	assert_int_equal(length, to - from);
	for (uint32_t i = 0; i < length; i++)
		if (buffer[i] != byte)
			fail_msg("byte %llu is %02x", (unsigned long long)from + i, buffer[i]);
	free(buffer);
}

/* The truncate is as if it had not begun, or as if it were over, also to one who grows the file at once. */
static bool check_truncated(struct machine *machine, uint64_t ino)
{
	struct fs_attr attr;
	assert_int_equal(call_getattr(machine, ino, &attr), 0);
	assert_true(attr.size == FULL_SIZE || attr.size == KEPT);
	check_bytes(machine, ino, 5 * STRIDE, KEPT, 'x');
	if (attr.size == FULL_SIZE) {
		assert_int_equal(attr.blocks_512 / 8 >= EXTENTS, true);
		return false;
	}
	assert_int_equal(call_write(machine, ino, "y", FULL_SIZE, 1), 0);
	check_bytes(machine, ino, KEPT, FULL_SIZE, 0);
	machine_settle(machine);
	assert_int_equal(call_getattr(machine, ino, &attr), 0);
	assert_true(attr.blocks_512 / 8 <= 6 + 1 + 1);
	check_bytes(machine, ino, KEPT, FULL_SIZE, 0);
	return true;
}

static bool check_deleted(struct machine *machine, const struct victim *victim)
{
	struct fs_entry entry;
	const int error = call_lookup(machine, FS_ROOT_INODE, "file", &entry);
	machine_settle(machine);
	if (!error)
		return false;
	assert_int_equal(error, -ENOENT);
	/* The orphan block may stay. */
	assert_true(call_statfs(machine).free_blocks + 1 >= victim->blocks_free_without);
	return true;
}

/* True when the change was there. */
static bool check_copy(struct victim *victim)
{
	struct machine copy = {.size = victim->machine.size, .owners = owners, .cred = victim->machine.cred};
	copy.memory = mmap(NULL, copy.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(copy.memory != MAP_FAILED);
	memcpy(copy.memory, victim->machine.memory, copy.size);
	const struct sim_options options = {.owners = owners, .seed = owners, .memory = copy.memory, .size = copy.size,
		.asynchronous = true, .error = true};
	sim_create(&copy.sim, &options);
	if (sim_mount(&copy.sim, &copy.mount))
		sim_fail("mount of a copy: %s", copy.sim.message);
	struct fs_status status;
	fs_get_status(copy.sim.fs, &status);
	victim->halfway += status.orphans > 0;
	const bool changed = victim->deletes ? check_deleted(&copy, victim) : check_truncated(&copy, victim->ino);
	machine_stop(&copy);
	return changed;
}

/* Copies after every group. */
static void run_and_copy(struct victim *victim)
{
	struct reactor_group *group = victim->machine.sim.group;
	victim->start.start = (struct fiber_start){.fn = victim_main, .arg = victim, .name = "victim"};
	victim->sync_start.start = (struct fiber_start){.fn = sync_main, .arg = victim, .name = "sync"};
	fiber_start_on(reactor_group_get(group, 0), &victim->sync_start);
	fiber_start_on(reactor_group_get(group, 0), &victim->start);
	bool changed = false;
	for (uint64_t sequence = 0; !victim->done || !victim->synced;) {
		struct fs_status status;
		assert_true(reactor_group_sim_step(group));
		fs_get_status(victim->machine.sim.fs, &status);
		if (status.durable_sequence != sequence)
			changed = check_copy(victim);
		sequence = status.durable_sequence;
	}
	assert_true(changed);
	assert_int_equal(victim->error, 0);
}

static void kill_after_any_group(bool deletes)
{
	unsigned halfway = 0;
	for (unsigned run = 0; run < 12; run++) {
		struct victim *victim = calloc(1, sizeof(*victim));
		victim->deletes = deletes;
		victim->delay_ns = run * 77 * NS_PER_US;
		victim_create(victim);
		run_and_copy(victim);
		halfway += victim->halfway;
		machine_stop(&victim->machine);
		free(victim);
	}
	assert_true(halfway >= 3);
}

static void test_truncate_killed_after_any_group(void **state) { kill_after_any_group(false); }
static void test_delete_killed_after_any_group(void **state) { kill_after_any_group(true); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_truncate_killed_after_any_group),
		cmocka_unit_test(test_delete_killed_after_any_group),
	};
	int failed = 0;
	log_set_level(LOG_LEVEL_WARN);
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("kill", tests, NULL, NULL);
	return failed;
}
