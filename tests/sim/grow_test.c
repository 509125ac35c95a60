/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing while mounted: sizes that end everywhere around an allocation group, one step after the other, work going on; and
 * power cuts at every write of a growth. The device is as large as the largest size from the start.
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
#include "tests/sim/cut.h"

static unsigned owners;
#define ROOT FS_ROOT_INODE
enum { AG_BLOCKS = 256, JOURNAL_BLOCKS = 256, HEAD_BLOCKS = 4 + JOURNAL_BLOCKS };

/* A machine whose filesystem has @blocks of the device's @device_blocks. */
static void start(struct machine *machine, uint64_t blocks, uint64_t device_blocks, bool record)
{
	*machine = (struct machine){.size = device_blocks * FS_BLOCK_SIZE, .owners = owners,
		.cred = {.uid = 1000, .gid = 1000, .umask = 022}};
	machine->memory = mmap(NULL, machine->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(machine->memory, MAP_FAILED);
	memset(machine->memory, 0xa5, machine->size);
	const struct sim_format format = {.size = blocks * FS_BLOCK_SIZE, .journal_bytes = JOURNAL_BLOCKS * FS_BLOCK_SIZE,
		.ag_bytes = AG_BLOCKS * FS_BLOCK_SIZE, .seed = 11};
	sim_mkfs(machine->memory, &format);
	const struct sim_options options = {.owners = owners, .seed = owners + blocks, .memory = machine->memory,
		.size = machine->size, .asynchronous = true, .error = !record, .record = record};
	sim_create(&machine->sim, &options);
	machine->mount.commit_ms = 20;
	assert_int_equal(sim_mount(&machine->sim, &machine->mount), 0);
}

struct grow_call {
	struct fs *fs;
	uint64_t bytes;
	struct fs_grown grown;
	char message[256];
};

static MAY_WAIT int grow_run(void *arg)
{
	struct grow_call *call = arg;
	return fs_grow(call->fs, call->bytes, &call->grown, call->message, sizeof(call->message));
}

static int grow(struct machine *machine, uint64_t blocks)
{
	struct grow_call call = {.fs = machine->sim.fs, .bytes = blocks * FS_BLOCK_SIZE};
	const int error = reactor_group_run(reactor_group_get(machine->sim.group, 0), grow_run, &call);
	assert_int_equal(!error, !call.message[0]);
	assert_int_equal(call.grown.new_bytes / FS_BLOCK_SIZE, le64_get(fs_get_super(machine->sim.fs)->block_count));
	return error;
}

static uint64_t fill(struct machine *machine, uint64_t ino, uint64_t offset)
{
	enum { STEP = 256 * 1024 };
	uint8_t *buffer = malloc(STEP);
	memset(buffer, 0x77, STEP);
	uint64_t total = 0;
	for (uint32_t step = STEP; step >= FS_BLOCK_SIZE;) {
		uint32_t written = 0;
		const int error = call_write_flags(machine, ino, buffer, offset + total, step, 0, &written);
		total += written;
		step = error || !written ? step / 2 : step;
	}
	free(buffer);
	return total;
}

static uint64_t make_file(struct machine *machine, const char *name)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, ROOT, name, S_IFREG | 0600, &entry), 0);
	return entry.ino;
}

/* Full before, full after: every block that was added can be written, and is what was written. */
static void grow_and_fill(struct machine *machine, uint64_t blocks)
{
	const struct fs_statfs before = call_statfs(machine);
	assert_int_equal(grow(machine, blocks), 0);
	const struct fs_statfs after = call_statfs(machine);
	assert_true(after.blocks > before.blocks);
	assert_int_equal(after.blocks - before.blocks, after.free_blocks - before.free_blocks);
}

static void check_content(struct machine *machine, uint64_t ino, uint64_t bytes)
{
	enum { STEP = 64 * 1024 };
	uint8_t *buffer = malloc(STEP);
	for (uint64_t at = 0; at < bytes; at += STEP) {
		uint32_t length;
		assert_int_equal(call_read(machine, ino, buffer, at, STEP, &length), 0);
		assert_int_equal(length, MIN(bytes - at, (uint64_t)STEP));
		assert_int_equal(buffer[0], 0x77);
		assert_memory_equal(buffer, buffer + 1, length - 1);
	}
	free(buffer);
}

/* Ends of the filesystem before and after: with a last group that is short, whole, or followed by too little for one. */
static const struct { uint64_t from, to; } steps[] = {
	{HEAD_BLOCKS + 3 * AG_BLOCKS + 100 + 1, HEAD_BLOCKS + 3 * AG_BLOCKS + 200 + 1},  /* the last one becomes longer */
	{HEAD_BLOCKS + 3 * AG_BLOCKS + 100 + 1, HEAD_BLOCKS + 4 * AG_BLOCKS + 1},        /* and whole */
	{HEAD_BLOCKS + 3 * AG_BLOCKS + 100 + 1, HEAD_BLOCKS + 6 * AG_BLOCKS + 70 + 1},   /* and others follow */
	{HEAD_BLOCKS + 4 * AG_BLOCKS + 1, HEAD_BLOCKS + 5 * AG_BLOCKS + 1},              /* header in the old copy's place */
	{HEAD_BLOCKS + 4 * AG_BLOCKS + 2, HEAD_BLOCKS + 9 * AG_BLOCKS + 10 + 1},         /* copy of the superblock there */
	{HEAD_BLOCKS + 3 * AG_BLOCKS + 2, HEAD_BLOCKS + 4 * AG_BLOCKS + 40 + 1},         /* unused block there */
	{HEAD_BLOCKS + 4 * AG_BLOCKS + 4, HEAD_BLOCKS + 6 * AG_BLOCKS + 1},             /* place of a map there */
	{HEAD_BLOCKS + 4 * AG_BLOCKS + 60, HEAD_BLOCKS + 5 * AG_BLOCKS + 1},             /* data block there */
	{HEAD_BLOCKS + 1 * AG_BLOCKS + 1, HEAD_BLOCKS + 9 * AG_BLOCKS + 1},             /* owners that had no group get one */
};

static void test_every_end_grows(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
		struct machine m;
		start(&m, steps[i].from, steps[i].to, false);
		const uint64_t ino = make_file(&m, "full");
		uint64_t bytes = fill(&m, ino, 0);
		grow_and_fill(&m, steps[i].to);
		const uint64_t more = fill(&m, ino, bytes);
		assert_true(more > 0);
		bytes += more;
		check_content(&m, ino, bytes);
		make_file(&m, "another");
		machine_remount(&m);
		check_content(&m, ino, bytes);
		/* Emptied, it is as free as one that was made with that size. */
		assert_int_equal(call_unlink(&m, ROOT, "full"), 0);
		machine_settle(&m);
		const struct fs_statfs after = call_statfs(&m);
		assert_true(after.free_blocks + 4 >= after.blocks);
		machine_stop(&m);
	}
}

static void test_growing_again_and_again(void **state)
{
	const uint64_t last = HEAD_BLOCKS + 12 * AG_BLOCKS + 1;
	struct machine m;
	start(&m, HEAD_BLOCKS + AG_BLOCKS + 1, last, false);
	const uint64_t ino = make_file(&m, "full");
	uint64_t bytes = fill(&m, ino, 0);
	for (uint64_t blocks = HEAD_BLOCKS + AG_BLOCKS + 1; blocks < last; blocks += 97) {
		struct fs_statfs before = call_statfs(&m);
		const int error = grow(&m, blocks);
		assert_true(!error || error == -EINVAL || error == -EALREADY);
		if (!error)
			assert_true(call_statfs(&m).free_blocks > before.free_blocks);
		bytes += fill(&m, ino, bytes);
		if (blocks % 5 == 0)
			machine_remount(&m);
	}
	assert_int_equal(grow(&m, 0), 0);
	bytes += fill(&m, ino, bytes);
	check_content(&m, ino, bytes);
	assert_int_equal(grow(&m, 0), -EALREADY);
	machine_stop(&m);
}

static void test_what_is_refused(void **state)
{
	const uint64_t blocks = HEAD_BLOCKS + 4 * AG_BLOCKS + 1;
	struct machine m;
	start(&m, blocks, blocks + 2 * AG_BLOCKS, false);
	assert_int_equal(grow(&m, blocks - 1), -EINVAL);
	assert_int_equal(grow(&m, blocks), -EALREADY);
	assert_int_equal(grow(&m, blocks + 63), -EINVAL);
	assert_int_equal(grow(&m, blocks + 2 * AG_BLOCKS + 1), -ENOSPC);
	/* A write that fails before the change is an error, and the size is as before. */
	const struct error_rule rule = {.ops = 1u << IO_WRITE, .offset = blocks * FS_BLOCK_SIZE, .length = MIB(64),
		.action = ERROR_FAIL, .error = -EIO};
	bdev_error_add_rule(sim_bdev(&m.sim, "error"), &rule);
	assert_int_equal(grow(&m, 0), -EIO);
	bdev_error_clear_rules(sim_bdev(&m.sim, "error"));
	assert_int_equal(le64_get(fs_get_super(m.sim.fs)->block_count), blocks);
	machine_remount(&m);
	assert_int_equal(grow(&m, 0), 0);
	m.mount.read_only = true;
	machine_remount(&m);
	assert_int_equal(grow(&m, 0), -EROFS);
	machine_stop(&m);
}

/* ---- power cuts ---- */

static uint64_t blocks_on(const uint8_t *image)
{
	return le64_get(((const struct fs_super *)(image + (uint64_t)FS_SUPER_BLOCK * FS_BLOCK_SIZE))->block_count);
}

static void recover(uint8_t *image, uint64_t size, uint64_t from, uint64_t to, uint64_t seed, bool done)
{
	assert_int_equal(sim_fsck(image, size, true, "after the cut"), 0);
	struct machine m = {.size = size, .owners = owners, .memory = image};
	sim_create(&m.sim, &(struct sim_options){.owners = owners, .seed = seed, .memory = image, .size = size});
	assert_int_equal(sim_mount(&m.sim, NULL), 0);
	const uint64_t found = le64_get(fs_get_super(m.sim.fs)->block_count);
	assert_true(found == to || (found == from && !done));
	struct fs_entry entry;
	assert_int_equal(call_lookup(&m, ROOT, "full", &entry), 0);
	check_content(&m, entry.ino, entry.attr.size);
	/* It can be grown the rest of the way, whatever the cut left behind. */
	assert_int_equal(grow(&m, to), found == to ? -EALREADY : 0);
	const bool full = !call_lookup(&m, ROOT, "behind", &entry);
	assert_true(fill(&m, make_file(&m, "more"), 0) > 0 || full);
	assert_int_equal(sim_unmount(&m.sim), 0);
	sim_destroy(&m.sim);
	assert_int_equal(sim_fsck(image, size, false, "after recovery"), 0);
	assert_int_equal(blocks_on(image), to);
}

static void cut_everywhere(uint64_t from, uint64_t to)
{
	struct machine m;
	start(&m, from, to, true);
	const uint64_t ino = make_file(&m, "full");
	fill(&m, ino, 0);
	assert_int_equal(call_sync(&m), 0);
	uint8_t *before = malloc(m.size), *image = malloc(m.size);
	memcpy(before, m.memory, m.size);
	bdev_record_clear(sim_bdev(&m.sim, "record"));
	assert_int_equal(grow(&m, to), 0);
	size_t done, count;
	bdev_record_entries(sim_bdev(&m.sim, "record"), &done);
	fill(&m, make_file(&m, "behind"), 0);
	assert_int_equal(call_sync(&m), 0);
	const struct record_entry *entries = bdev_record_entries(sim_bdev(&m.sim, "record"), &count);
	static const unsigned keep[] = {0, 100, 50};
	/* At every write of the growth, and here and there behind it. */
	for (size_t position = 1; position <= count; position += position < done + 3 ? 1 : 23)
		for (unsigned i = 0; i < ARRAY_SIZE(keep); i++) {
			memcpy(image, before, m.size);
			const struct cut_plan plan = {.entries = entries, .count = count, .position = position,
				.keep_percent = keep[i], .random = position * 4 + i};
			cut_make(&plan, image);
			recover(image, m.size, from, to, position * 4 + i, position >= done);
		}
	free(before);
	free(image);
	machine_stop(&m);
}

static void test_power_cuts_during_a_growth(void **state)
{
	for (unsigned i = 0; i < ARRAY_SIZE(steps); i++)
		cut_everywhere(steps[i].from, steps[i].to);
}

/* ---- beside a scrub ---- */

struct scrubber {
	struct machine *machine;
	bool end, ended;
	unsigned rounds;
	struct fiber_start_remote start;
};

static MAY_WAIT void scrub_main(void *arg)
{
	struct scrubber *scrubber = arg;
	struct fs *fs = scrubber->machine->sim.fs;
	while (!scrubber->end) {
		struct fs_scrub_status status;
		char text[256] = "";
		uint64_t ino;
		const int error = fs_scrub(fs, &(struct fs_scrub_options){.data = true});
		fs_scrub_get_status(fs, &status);
		fs_scrub_finding(fs, 0, &ino, text, sizeof(text));
		if (error || status.findings)
			sim_fail("scrub %u: %d, %llu findings: %s", scrubber->rounds, error, (unsigned long long)status.findings, text);
		scrubber->rounds++;
	}
	scrubber->ended = true;
}

static bool scrub_ended(void *arg) { return ((struct scrubber *)arg)->ended; }

static MAY_WAIT int to_read_only(void *arg)
{
	char message[256];
	struct machine *machine = arg;
	const struct fs_remount wanted = {.read_only = !fs_read_only(machine->sim.fs), .commit_ms = 20};
	return fs_remount(machine->sim.fs, &wanted, message, sizeof(message));
}

/* A file moves into a directory that is made in the newest group, and no name stays where a scrub would have looked. */
static uint64_t move_on(struct machine *machine, uint64_t from)
{
	struct fs_entry entry;
	for (unsigned i = 0; i < 40; i++) {
		char name[24];
		snprintf(name, sizeof(name), "directory%u", i);
		assert_int_equal(call_create(machine, from, name, S_IFDIR | 0700, &entry), 0);
		if (ino_ag(entry.ino) + 1 == le32_get(fs_get_super(machine->sim.fs)->ag_count))
			break;
	}
	assert_int_equal(call_rename(machine, from, "steady", entry.ino, "steady", 0), 0);
	return entry.ino;
}

/* It grows, is filled and emptied, becomes read-only and writable again: a scrub finds nothing wrong in any of that. */
static void test_a_scrub_beside_growing_and_remounting(void **state)
{
	struct machine m;
	const uint64_t end = HEAD_BLOCKS + 24 * AG_BLOCKS;
	struct scrubber scrubber = {.machine = &m, .start.start = {.fn = scrub_main, .arg = &scrubber, .name = "scrub"}};
	start(&m, HEAD_BLOCKS + 3 * AG_BLOCKS, end, false);
	uint64_t at = ROOT;
	make_file(&m, "steady");
	fiber_start_on(reactor_group_get(m.sim.group, owners - 1), &scrubber.start);
	for (uint64_t blocks = HEAD_BLOCKS + 3 * AG_BLOCKS + 100; blocks < end; blocks += 217) {
		const uint64_t ino = make_file(&m, "file");
		fill(&m, ino, 0);
		assert_int_equal(grow(&m, blocks), 0);
		at = move_on(&m, at);
		fill(&m, ino, MIB(64));
		if (blocks % 2) {
			assert_int_equal(reactor_group_run(reactor_group_get(m.sim.group, 0), to_read_only, &m), 0);
			call_sleep(&m, 20 * NS_PER_MS);
			assert_int_equal(reactor_group_run(reactor_group_get(m.sim.group, 0), to_read_only, &m), 0);
		}
		assert_int_equal(call_unlink(&m, ROOT, "file"), 0);
		call_forget(&m, ino, 1);
	}
	scrubber.end = true;
	assert_true(reactor_group_sim_run(m.sim.group, scrub_ended, &scrubber));
	assert_true(scrubber.rounds > 2);
	machine_stop(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_scrub_beside_growing_and_remounting),
		cmocka_unit_test(test_every_end_grows),
		cmocka_unit_test(test_growing_again_and_again),
		cmocka_unit_test(test_what_is_refused),
		cmocka_unit_test(test_power_cuts_during_a_growth),
	};
	int failed = 0;
	log_set_level(LOG_LEVEL_WARN);
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("grow", tests, NULL, NULL);
	return failed;
}
