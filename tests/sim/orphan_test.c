/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Unlinked files in use, many more than inodes are kept in memory: freeing one takes a few steps, however many there are
 * and in whatever order they go. Counted are the blocks of orphan chains that are searched for an entry or for the block in
 * front; a search through the chain for each file would be hundreds of times more.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "fs/inode.h"
#include "tests/sim/calls.h"

#define ROOT FS_ROOT_INODE
enum { FILES = 5500, INODES_MAX = 1024, CHAIN_BLOCKS = FILES / FS_ORPHANS_PER_BLOCK + 1 };
static const struct fs_mount_options small = {.inodes_max = INODES_MAX};
static uint64_t inos[FILES];

static void start(struct machine *machine, unsigned owners)
{
	struct fs_entry entry;
	machine_start_with(machine, owners, 0, &small);
	for (unsigned i = 0; i < FILES; i++) {
		assert_int_equal(call_create(machine, ROOT, "gone", S_IFREG | 0600, &entry), 0);
		assert_int_equal(call_unlink(machine, ROOT, "gone"), 0);
		inos[i] = entry.ino;
	}
}

static uint64_t steps(const struct machine *machine)
{
	uint64_t sum = 0;
	for (unsigned i = 0; i < machine->owners; i++) {
		struct inode_stats stats;
		inode_stats_read(machine->sim.fs->owners[i], &stats);
		assert_true(stats.cached <= INODES_MAX);
		sum += stats.chain_steps;
	}
	return sum;
}

static void assert_used(const struct machine *machine, uint64_t wanted)
{
	struct fs_status status;
	fs_get_status(machine->sim.fs, &status);
	assert_int_equal(status.used_inodes, wanted);
}

/* Oldest first, newest first, and all over the place. */
static void order(unsigned how)
{
	for (unsigned i = 0; i < FILES && how; i++) {
		const unsigned other = how == 1 ? MAX(FILES - 1 - i, i) : (unsigned)(i * 2654435761u % FILES);
		const uint64_t ino = inos[i];
		inos[i] = inos[other];
		inos[other] = ino;
	}
}

static void test_freeing_takes_few_steps_in_any_order(void **state)
{
	for (unsigned how = 0; how < 3; how++) {
		struct machine m;
		start(&m, 1 + how % 2);
		assert_used(&m, 1 + FILES);
		order(how);
		for (unsigned i = 0; i < FILES; i++) {
			call_forget(&m, inos[i], 1);
			if (i % 256 == 0)
				machine_settle(&m);
		}
		machine_settle(&m);
		assert_used(&m, 1);
		assert_in_range(steps(&m), 0, 2 * CHAIN_BLOCKS);
		machine_stop(&m);
	}
}

/* Some are looked at again, and leave memory again. */
static void test_places_stay_known_when_inodes_come_and_go(void **state)
{
	struct machine m;
	struct fs_attr attr;
	start(&m, 2);
	for (unsigned round = 0; round < 3; round++)
		for (unsigned i = round; i < FILES; i += 2) {
			assert_int_equal(call_getattr(&m, inos[i], &attr), 0);
			assert_int_equal(attr.nlink, 0);
		}
	for (unsigned i = 0; i < FILES; i++)
		call_forget(&m, inos[i], 1);
	machine_settle(&m);
	assert_used(&m, 1);
	assert_in_range(steps(&m), 0, 2 * CHAIN_BLOCKS);
	machine_stop(&m);
}

/* The next mount finds them in the chains. */
static void test_mount_after_a_crash_takes_few_steps(void **state)
{
	struct machine m;
	start(&m, 1);
	assert_int_equal(call_sync(&m), 0);
	for (unsigned owners = 1; owners <= 2; owners++) {
		struct machine after = {.size = m.size, .owners = owners};
		after.memory = mmap(NULL, m.size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		assert_true(after.memory != MAP_FAILED);
		memcpy(after.memory, m.memory, m.size);
		const struct sim_options options = {
			.owners = owners, .seed = owners, .memory = after.memory, .size = m.size, .asynchronous = true, .error = true};
		sim_create(&after.sim, &options);
		assert_int_equal(sim_mount(&after.sim, &small), 0);
		machine_settle(&after);
		assert_used(&after, 1);
		assert_in_range(steps(&after), 0, 2 * CHAIN_BLOCKS);
		machine_stop(&after);
	}
	machine_stop(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_freeing_takes_few_steps_in_any_order),
		cmocka_unit_test(test_places_stay_known_when_inodes_come_and_go),
		cmocka_unit_test(test_mount_after_a_crash_takes_few_steps),
	};
	return cmocka_run_group_tests_name("orphans", tests, NULL, NULL);
}
