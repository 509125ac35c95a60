/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocator under a whole filesystem: loans between owners, quarantine of freed blocks, held-back space, and that a
 * disk that was full can be filled again to the same block. Maps and counts are checked by fsck after every unmount.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/alloc_internal.h"
#include "reactor/log.h"
#include "tests/sim/calls.h"

#define ROOT FS_ROOT_INODE
enum { CHUNK = 64 << 10 };

/* ---- in memory: reservations of one owner ---- */

struct memory_call {
	struct owner *owner;
	int (*fn)(struct memory_call *call);
	unsigned flags;
	uint32_t want, min;
	struct run runs[1024];
	unsigned count;
	uint64_t blocks;
};

static MAY_WAIT int memory_run(void *arg)
{
	struct memory_call *call = arg;
	return call->fn(call);
}

static int on_owner(struct memory_call *call, int (*fn)(struct memory_call *call))
{
	call->fn = fn;
	return reactor_group_run(call->owner->reactor, memory_run, call);
}

/* Takes runs until there are no more. */
static MAY_WAIT int take_all(struct memory_call *call)
{
	call->count = 0;
	call->blocks = 0;
	for (;;) {
		struct run *run = &call->runs[call->count];
		const int error = call->count == ARRAY_SIZE(call->runs) ? -E2BIG
			: alloc_run(call->owner, 0, call->want, call->min, call->flags, run);
		if (error)
			return error;
		call->blocks += run->count;
		call->count++;
	}
}

static MAY_WAIT int give_all(struct memory_call *call)
{
	while (call->count)
		alloc_release(call->owner, call->runs[--call->count]);
	return 0;
}

static uint64_t free_in_memory(const struct fs *fs)
{
	uint64_t blocks = 0;
	for (unsigned i = 0; i < fs->owner_count; i++) {
		const struct alloc *alloc = fs->owners[i]->alloc;
		blocks += alloc->free_blocks;
		for (unsigned j = 0; j < alloc->loan_count; j++)
			blocks += alloc->loans[j].count;
	}
	return blocks;
}

static uint64_t held_back(const struct fs *fs)
{
	uint64_t blocks = 0;
	for (unsigned i = 0; i < fs->owner_count; i++)
		blocks += fs->owners[i]->alloc->held_back;
	return blocks;
}

static void assert_no_overlap(const struct memory_call *call)
{
	for (unsigned i = 0; i < call->count; i++)
		for (unsigned j = 0; j < i; j++)
			assert_true(call->runs[i].block + call->runs[i].count <= call->runs[j].block ||
				call->runs[j].block + call->runs[j].count <= call->runs[i].block);
}

/* One owner can have all that is not held back, of its own AGs and of the others'; it all comes back. */
static void test_one_owner_gets_all_free_space(void **state)
{
	static struct memory_call call;
	for (unsigned owners = 1; owners <= 4; owners++)
		for (unsigned want = 1; want <= 4096; want *= 64) {
			struct machine machine;
			machine_start(&machine, owners, 0);
			struct fs *fs = machine.sim.fs;
			const uint64_t free_before = call_statfs(&machine).free_blocks;
			call = (struct memory_call){.owner = fs->owners[owners - 1], .want = MAX(want, 16u), .min = MIN(want, 16u)};
			assert_int_equal(on_owner(&call, take_all), -ENOSPC);
			assert_no_overlap(&call);
			assert_true(free_in_memory(fs) >= held_back(fs));
			assert_int_equal(call.blocks + free_in_memory(fs), free_before);
			if (want == 1)
				assert_int_equal(free_in_memory(fs), held_back(fs));
			static struct memory_call rest;
			rest = (struct memory_call){.owner = fs->owners[0], .want = 16, .min = 1, .flags = ALLOC_HELD_BACK};
			assert_int_equal(on_owner(&rest, take_all), -ENOSPC);
			assert_int_equal(free_in_memory(fs), 0);
			assert_int_equal(on_owner(&rest, give_all), 0);
			assert_int_equal(on_owner(&call, give_all), 0);
			assert_int_equal(free_in_memory(fs), free_before);
			machine_stop(&machine);
		}
}

/* What one owner borrowed and gave back is to be had by the lender again, to the last block. */
static void test_lender_gets_its_space_back(void **state)
{
	static struct memory_call first, second;
	struct machine machine;
	machine_start(&machine, 2, 0);
	struct fs *fs = machine.sim.fs;
	first = (struct memory_call){.owner = fs->owners[0], .want = 16, .min = 1};
	second = (struct memory_call){.owner = fs->owners[1], .want = 16, .min = 1};
	assert_int_equal(on_owner(&first, take_all), -ENOSPC);
	assert_int_equal(on_owner(&first, give_all), 0);
	assert_int_equal(on_owner(&second, take_all), -ENOSPC);
	assert_int_equal(second.blocks, first.blocks);
	assert_int_equal(on_owner(&second, give_all), 0);
	machine_stop(&machine);
}

/* ---- quarantine ---- */

struct quarantine_call {
	struct owner *owner;
	enum run_kind kind;
	struct run run;
};

typedef int (*fill_fn)(struct tx_part *part, struct quarantine_call *call);

static MAY_WAIT int one_transaction(struct owner *owner, fill_fn fill, struct quarantine_call *call)
{
	struct tx *tx;
	int error = tx_begin(owner, 8, &tx);
	if (error)
		return error;
	error = fill(tx_home(tx), call);
	if (!error)
		error = tx_prepare(tx);
	if (!error)
		tx_apply(tx);
	tx_end(tx);
	return error;
}

static MAY_WAIT int fill_allocation(struct tx_part *part, struct quarantine_call *call)
{
	return tx_alloc(part, 0, 32, 32, &call->run);
}

static int fill_freeing(struct tx_part *part, struct quarantine_call *call)
{
	return tx_free(part, call->run, call->kind);
}

static MAY_WAIT int allocate_and_free(void *arg)
{
	struct quarantine_call *call = arg;
	const int error = one_transaction(call->owner, fill_allocation, call);
	return error ? error : one_transaction(call->owner, fill_freeing, call);
}

static MAY_WAIT int sync_here(void *arg)
{
	const struct quarantine_call *call = arg;
	const int error = journal_sync(call->owner);
	fiber_sleep(NS_PER_MS);
	return error;
}

static MAY_WAIT int checkpoint_here(void *arg)
{
	const struct quarantine_call *call = arg;
	const int error = journal_checkpoint(call->owner->fs);
	fiber_sleep(NS_PER_MS);
	return error;
}

static void expect_all(struct owner *owner, uint64_t blocks)
{
	static struct memory_call call;
	call = (struct memory_call){.owner = owner, .want = 16, .min = 1, .flags = ALLOC_HELD_BACK};
	assert_int_equal(on_owner(&call, take_all), -ENOSPC);
	assert_int_equal(call.blocks, blocks);
	assert_int_equal(on_owner(&call, give_all), 0);
}

static void test_freed_blocks_wait_until_their_freeing_is_durable(void **state)
{
	const struct fs_mount_options mount = {.commit_ms = 1000000};
	for (enum run_kind kind = RUN_DATA; kind <= RUN_METADATA; kind++) {
		struct machine machine;
		machine_start_with(&machine, 1, 0, &mount);
		struct owner *owner = machine.sim.fs->owners[0];
		const uint64_t all = call_statfs(&machine).free_blocks;
		struct quarantine_call call = {.owner = owner, .kind = kind};
		expect_all(owner, all);
		assert_int_equal(reactor_group_run(owner->reactor, allocate_and_free, &call), 0);
		assert_int_equal(call_statfs(&machine).free_blocks, all);
		assert_true(alloc_quarantine_waiting(owner));
		expect_all(owner, all - call.run.count);
		assert_int_equal(reactor_group_run(owner->reactor, sync_here, &call), 0);
		expect_all(owner, kind == RUN_DATA ? all : all - call.run.count);
		assert_int_equal(alloc_quarantine_waiting(owner), kind == RUN_METADATA);
		assert_int_equal(reactor_group_run(owner->reactor, checkpoint_here, &call), 0);
		assert_false(alloc_quarantine_waiting(owner));
		expect_all(owner, all);
		machine_stop(&machine);
	}
}

/* ---- files ---- */

/* Appends to the file, @chunk bytes at a time and less in the end, until the disk is full. Returns how many went in. */
static uint64_t fill_file(struct machine *machine, uint64_t ino, uint64_t offset, uint32_t chunk)
{
	static uint8_t buffer[CHUNK];
	memset(buffer, 0x5a, sizeof(buffer));
	const uint64_t start = offset;
	while (chunk >= FS_BLOCK_SIZE) {
		uint32_t done = 0;
		const int error = call_write_flags(machine, ino, buffer, offset, chunk, 0, &done);
		if (error && error != -ENOSPC)
			fail_msg("write: %d", error);
		offset += error ? 0 : done;
		if (error)
			chunk /= 2;
	}
	return offset - start;
}

static uint64_t make_file(struct machine *machine, const char *name)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, ROOT, name, S_IFREG | 0600, &entry), 0);
	return entry.ino;
}

static void remove_file(struct machine *machine, const char *name, uint64_t ino)
{
	call_forget(machine, ino, 1);
	assert_int_equal(call_unlink(machine, ROOT, name), 0);
}

static void test_file_that_fills_the_disk_borrows_from_every_owner(void **state)
{
	for (unsigned owners = 1; owners <= 4; owners++) {
		struct machine machine;
		machine_start(&machine, owners, 0);
		const uint64_t available = call_statfs(&machine).available_blocks;
		const uint64_t ino = make_file(&machine, "big");
		const uint64_t blocks = fill_file(&machine, ino, 0, CHUNK) / FS_BLOCK_SIZE;
		assert_in_range(blocks, available - 64, available); /* some are its extent tree */
		struct fs_status status;
		fs_get_status(machine.sim.fs, &status);
		assert_int_equal(status.loans > 0, owners > 1);
		machine_stop(&machine);
	}
}

/* A full disk, all of it freed, and filled again at once: to the same block, without a false ENOSPC. */
static void test_full_disk_can_be_filled_again_at_once(void **state)
{
	for (unsigned owners = 1; owners <= 4; owners++) {
		struct machine machine;
		machine_start(&machine, owners, 0);
		uint64_t first = 0;
		for (unsigned round = 0; round < 3; round++) {
			const uint64_t ino = make_file(&machine, "big");
			const uint64_t bytes = fill_file(&machine, ino, 0, CHUNK);
			if (!round)
				first = bytes;
			/* Where the extents lie decides how many blocks their tree takes. */
			assert_in_range(bytes, first - 16 * FS_BLOCK_SIZE, first + 16 * FS_BLOCK_SIZE);
			remove_file(&machine, "big", ino);
		}
		machine_settle(&machine);
		machine_stop(&machine);
	}
}

/* Also when nothing is in memory yet: the space is held back before all AGs have been looked at. */
static void test_held_back_space_is_kept_after_a_remount(void **state)
{
	for (unsigned owners = 1; owners <= 2; owners++) {
		struct machine machine;
		struct fs_entry entry;
		machine_start(&machine, owners, 0);
		uint64_t ino = make_file(&machine, "big"), size = 0;
		for (unsigned round = 0; round < 4; round++) {
			size += fill_file(&machine, ino, size, round ? FS_BLOCK_SIZE : CHUNK);
			const struct fs_statfs statfs = call_statfs(&machine);
			assert_true(statfs.free_blocks >= held_back(machine.sim.fs));
			call_forget(&machine, ino, 1);
			machine_remount(&machine);
			assert_int_equal(call_lookup(&machine, ROOT, "big", &entry), 0);
		}
		/* What is held back is there for those who free. */
		remove_file(&machine, "big", ino);
		machine_settle(&machine);
		ino = make_file(&machine, "again");
		assert_true(fill_file(&machine, ino, 0, CHUNK) + 16 * FS_BLOCK_SIZE >= size);
		machine_stop(&machine);
	}
}

/* Many small files from every owner on a full disk: names, inode blocks and data all compete for the last blocks. */
static void test_full_disk_with_small_files_can_be_emptied(void **state)
{
	for (unsigned owners = 1; owners <= 4; owners *= 2) {
		struct machine machine;
		char name[32];
		unsigned count = 0;
		machine_start(&machine, owners, MIB(20));
		const uint64_t before = call_statfs(&machine).free_blocks;
		for (int error = 0; !error; count += !error) {
			static uint8_t buffer[FS_BLOCK_SIZE];
			struct fs_entry entry;
			snprintf(name, sizeof(name), "a-file-with-a-name-%u", count);
			error = call_create(&machine, ROOT, name, S_IFREG | 0600, &entry);
			if (!error) {
				error = call_write(&machine, entry.ino, buffer, 0, sizeof(buffer));
				call_forget(&machine, entry.ino, 1);
				if (error)
					assert_int_equal(call_unlink(&machine, ROOT, name), 0);
			}
			if (error && error != -ENOSPC)
				fail_msg("create or write: %d", error);
		}
		assert_true(count > 3000);
		for (unsigned i = 0; i < count; i++) {
			snprintf(name, sizeof(name), "a-file-with-a-name-%u", i * 7919u % count);
			assert_int_equal(call_unlink(&machine, ROOT, name), 0);
		}
		machine_settle(&machine);
		machine_remount(&machine);
		/* An AG keeps one inode block and one orphan block. */
		const uint64_t kept = 2 * le32_get(fs_get_super(machine.sim.fs)->ag_count);
		assert_in_range(call_statfs(&machine).free_blocks, before - kept, before);
		machine_stop(&machine);
	}
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_owner_gets_all_free_space),
		cmocka_unit_test(test_lender_gets_its_space_back),
		cmocka_unit_test(test_freed_blocks_wait_until_their_freeing_is_durable),
		cmocka_unit_test(test_file_that_fills_the_disk_borrows_from_every_owner),
		cmocka_unit_test(test_full_disk_can_be_filled_again_at_once),
		cmocka_unit_test(test_held_back_space_is_kept_after_a_remount),
		cmocka_unit_test(test_full_disk_with_small_files_can_be_emptied),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
