/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A full filesystem, a failing device, many inodes: what comes back, what still works, and that nothing leaks. The
 * measure is the number of free blocks and inodes before and after.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/sim/calls.h"

static unsigned owners;
#define ROOT FS_ROOT_INODE

static uint64_t make(struct machine *machine, uint64_t parent, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, parent, name, mode, &entry), 0);
	return entry.ino;
}

static uint64_t used_inodes(struct machine *machine)
{
	struct fs_status status;
	fs_get_status(machine->sim.fs, &status);
	return status.used_inodes;
}

/* Writes until there is no room; returns the bytes that were written. */
static uint64_t fill(struct machine *machine, uint64_t ino, uint64_t offset)
{
	enum { STEP = 256 * 1024 };
	uint8_t *buffer = calloc(1, STEP);
	uint64_t total = 0;
	for (uint32_t step = STEP; step >= 4096;) {
		uint32_t written = 0;
		const int error = call_write_flags(machine, ino, buffer, offset + total, step, 0, &written);
		total += written;
		if (error) {
			assert_int_equal(error, -ENOSPC);
			step /= 2;
		}
	}
	free(buffer);
	return total;
}

static void test_full_filesystem_answers_enospc_and_recovers(void **state)
{
	struct machine m;
	struct fs_entry entry;
	machine_start(&m, owners, 0);
	const uint64_t before = call_statfs(&m).free_blocks;
	const uint64_t big = make(&m, ROOT, "big", S_IFREG | 0600), small = make(&m, ROOT, "small", S_IFREG | 0600);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700), full = make(&m, ROOT, "full", S_IFDIR | 0700);
	make(&m, dir, "moves", S_IFREG | 0600);
	assert_int_equal(call_write(&m, small, "inline", 0, 6), 0);
	const uint64_t bytes = fill(&m, big, 0);
	/* Nearly all of it could be used: what is held back is at most 1/128 and 8 blocks for each owner. */
	assert_true(bytes / FS_BLOCK_SIZE + before / 128 + 8 * owners + 64 > before);
	/* Inodes until their blocks run out, too. */
	unsigned made = 0;
	int error;
	for (char name[16]; made < 2000; made++) {
		snprintf(name, sizeof(name), "f%u", made);
		error = call_create(&m, full, name, S_IFREG | 0600, &entry);
		if (error)
			break;
	}
	assert_int_equal(error, -ENOSPC);
	/* What needs no space, or may use the held-back space, works. */
	assert_int_equal(call_write(&m, small, "INLINE", 0, 6), 0);
	assert_int_equal(call_write(&m, big, "in place", 8192, 8), 0);
	assert_int_equal(call_rename(&m, dir, "moves", ROOT, "moved", 0), 0);
	assert_int_equal(call_unlink(&m, ROOT, "moved"), 0);
	assert_int_equal(call_truncate(&m, big, bytes / 2 + 1), 0);
	/* Freed blocks are usable at once, although not durably freed yet: the write waits for that. */
	assert_true(fill(&m, big, bytes / 2 + 1) > bytes / 3);
	assert_int_equal(call_unlink(&m, ROOT, "big"), 0);
	call_forget(&m, big, 1);
	assert_int_equal(call_write(&m, small, "INLINE", 100000, 6), 0);
	machine_settle(&m);
	assert_int_equal(call_truncate(&m, small, 0), 0);
	machine_remount(&m);
	const uint64_t after = call_statfs(&m).free_blocks;
	assert_true(after + 16 * owners + made / 10 >= before);
	machine_stop(&m);
}

static void test_emptied_filesystem_is_as_free_as_before(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	make(&m, ROOT, "first", S_IFREG | 0600);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	make(&m, dir, "first", S_IFREG | 0600);
	machine_remount(&m);
	const uint64_t before = call_statfs(&m).free_blocks, inodes = used_inodes(&m);
	for (unsigned round = 0; round < 2; round++) {
		char name[16];
		for (unsigned i = 0; i < 400; i++) {
			snprintf(name, sizeof(name), "f%u", i);
			const uint64_t ino = make(&m, dir, name, S_IFREG | 0600);
			assert_int_equal(call_write(&m, ino, name, i * 100, sizeof(name)), 0);
			call_forget(&m, ino, 1);
		}
		for (unsigned i = 0; i < 400; i++) {
			snprintf(name, sizeof(name), "f%u", i);
			assert_int_equal(call_unlink(&m, dir, name), 0);
		}
		machine_settle(&m);
	}
	assert_int_equal(used_inodes(&m), inodes);
	machine_remount(&m);
	/* An orphan block and a spare inode block may stay. */
	assert_true(call_statfs(&m).free_blocks + 4 >= before);
	machine_stop(&m);
}

/* ---- a failing device ---- */

static void fail_io(struct machine *machine, enum io_op op, uint64_t skip, uint64_t count, int error)
{
	const struct error_rule rule = {
		.ops = 1u << op, .skip = skip, .count = count, .action = ERROR_FAIL, .error = error};
	bdev_error_add_rule(sim_bdev(&machine->sim, "error"), &rule);
}

static void test_failed_data_io_is_an_error_of_the_call_alone(void **state)
{
	struct machine m;
	uint8_t buffer[16384] = {1};
	uint32_t length;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, ROOT, "f", S_IFREG | 0600);
	assert_int_equal(call_write(&m, ino, buffer, 0, sizeof(buffer)), 0);
	assert_int_equal(call_sync(&m), 0);
	const uint64_t before = call_statfs(&m).free_blocks;
	fail_io(&m, IO_READ, 0, 1, -EIO);
	assert_int_equal(call_read(&m, ino, buffer, 0, sizeof(buffer), &length), -EIO);
	assert_int_equal(length, 0);
	assert_int_equal(call_read(&m, ino, buffer, 0, sizeof(buffer), &length), 0);
	bdev_error_clear_rules(sim_bdev(&m.sim, "error"));
	fail_io(&m, IO_WRITE, 0, 1, -EIO);
	assert_int_equal(call_write(&m, ino, buffer, 16384, 8192), -EIO);
	bdev_error_clear_rules(sim_bdev(&m.sim, "error"));
	assert_int_equal(m.sim.stopped, 0);
	assert_int_equal(call_statfs(&m).free_blocks, before);
	assert_int_equal(call_write(&m, ino, buffer, 16384, 8192), 0);
	assert_int_equal(call_fsync(&m, ino, false), 0);
	machine_stop(&m);
}

static void test_failed_journal_write_stops_changes(void **state)
{
	struct machine m;
	struct fs_entry entry;
	struct fs_attr attr;
	uint8_t buffer[100] = {1};
	uint32_t length;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, ROOT, "f", S_IFREG | 0600);
	assert_int_equal(call_write(&m, ino, buffer, 0, 100), 0);
	fail_io(&m, IO_WRITE, 0, 0, -EIO);
	fail_io(&m, IO_FLUSH, 0, 0, -EIO);
	assert_int_equal(call_fsync(&m, ino, false), -EIO);
	assert_int_not_equal(m.sim.stopped, 0);
	const int refused = call_create(&m, ROOT, "g", S_IFREG | 0600, &entry);
	assert_true(refused == -EIO || refused == -EROFS);
	assert_int_equal(call_unlink(&m, ROOT, "f"), refused);
	assert_int_equal(call_write(&m, ino, buffer, 0, 100), refused);
	assert_int_equal(call_truncate(&m, ino, 0), refused);
	assert_int_equal(call_fsync(&m, ino, false), -EIO);
	/* What can be read, is. */
	assert_int_equal(call_getattr(&m, ino, &attr), 0);
	assert_int_equal(call_read(&m, ino, buffer, 0, 100, &length), 0);
	assert_int_equal(call_lookup(&m, ROOT, "f", &entry), 0);
	m.damaged = true;
	machine_stop(&m);
}

/* The state block that counts, as it stands in the image. */
static const struct fs_state *newest_state(const struct machine *m)
{
	const struct fs_state *a = (const void *)(m->memory + FS_STATE_BLOCK_A * FS_BLOCK_SIZE);
	const struct fs_state *b = (const void *)(m->memory + FS_STATE_BLOCK_B * FS_BLOCK_SIZE);
	return le64_get(a->generation) > le64_get(b->generation) ? a : b;
}

static void test_error_that_stopped_it_is_recorded(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t first = FS_JOURNAL_FIRST_BLOCK * FS_BLOCK_SIZE;
	const uint64_t ino = make(&m, ROOT, "f", S_IFREG | 0600);
	assert_int_equal(call_fsync(&m, ino, false), 0);
	assert_int_equal(le32_get(newest_state(&m)->error_code), 0);
	const uint64_t tail = le64_get(newest_state(&m)->tail_sequence);
	const uint64_t other = make(&m, ROOT, "g", S_IFREG | 0600);
	const struct error_rule rule = {.ops = 1u << IO_WRITE, .offset = first, .length = MIB(1), .action = ERROR_FAIL, .error = -EIO};
	bdev_error_add_rule(sim_bdev(&m.sim, "error"), &rule);
	assert_int_equal(call_fsync(&m, other, false), -EIO);
	assert_int_equal(sim_unmount(&m.sim), -EIO);
	assert_int_equal(le32_get(newest_state(&m)->error_code), EIO);
	assert_int_equal(le32_get(newest_state(&m)->error_count), 1);
	assert_non_null(strstr((const char *)newest_state(&m)->error_text, "journal write failed"));
	assert_int_equal(le32_get(newest_state(&m)->clean), 0);
	assert_int_equal(le64_get(newest_state(&m)->tail_sequence), tail);
	bdev_error_clear_rules(sim_bdev(&m.sim, "error"));
	assert_int_equal(sim_mount(&m.sim, &m.mount), 0);
	machine_stop(&m);
}

static void test_read_only_mount_changes_nothing(void **state)
{
	struct machine m;
	struct fs_entry entry;
	uint8_t buffer[5000] = {1}, *copy;
	uint32_t length;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, ROOT, "f", S_IFREG | 0600);
	assert_int_equal(call_write(&m, ino, buffer, 0, sizeof(buffer)), 0);
	m.mount.read_only = true;
	machine_remount(&m);
	copy = malloc(m.size);
	memcpy(copy, m.memory, m.size);
	assert_int_equal(call_read(&m, ino, buffer, 0, sizeof(buffer), &length), 0);
	assert_int_equal(length, sizeof(buffer));
	assert_int_equal(call_create(&m, ROOT, "g", S_IFREG | 0600, &entry), -EROFS);
	assert_int_equal(call_unlink(&m, ROOT, "f"), -EROFS);
	assert_int_equal(call_rename(&m, ROOT, "f", ROOT, "g", 0), -EROFS);
	assert_int_equal(call_write(&m, ino, buffer, 0, 1), -EROFS);
	assert_int_equal(call_truncate(&m, ino, 0), -EROFS);
	assert_int_equal(call_open(&m, ino, O_RDWR), -EROFS);
	assert_int_equal(call_fsync(&m, ino, false), 0);
	assert_int_equal(call_sync(&m), 0);
	assert_memory_equal(copy, m.memory, m.size);
	free(copy);
	machine_stop(&m);
}

/* ---- many ---- */

static void test_many_inodes_survive_a_small_cache(void **state)
{
	enum { FILES = 1500 };
	struct machine m;
	char name[16], text[16];
	uint32_t length;
	const struct fs_mount_options mount = {.cache_bytes = MIB(1)};
	machine_start_with(&m, owners, MIB(64), &mount);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "file%u", i);
		const uint64_t ino = make(&m, dir, name, S_IFREG | 0600);
		assert_int_equal(call_write(&m, ino, name, 0, sizeof(name)), 0);
		if (i % 3)
			call_forget(&m, ino, 1);
	}
	for (unsigned i = 0; i < FILES; i++) {
		struct fs_entry entry;
		snprintf(name, sizeof(name), "file%u", i);
		assert_int_equal(call_lookup(&m, dir, name, &entry), 0);
		assert_int_equal(call_read(&m, entry.ino, text, 0, sizeof(text), &length), 0);
		assert_string_equal(text, name);
		if (i % 2)
			assert_int_equal(call_unlink(&m, dir, name), 0);
	}
	machine_remount(&m);
	assert_int_equal(used_inodes(&m), 2 + FILES / 2);
	machine_stop(&m);
}

enum { FILES_MAX = 4000 };

/* Until there is no room for one more, in a folder; their number. */
static unsigned fill_with_files(struct machine *machine, uint64_t *inos, uint64_t *out_dir)
{
	struct fs_entry entry;
	char name[16];
	const uint64_t dir = make(machine, ROOT, "dir", S_IFDIR | 0700), big = make(machine, ROOT, "big", S_IFREG | 0600);
	const uint64_t room = call_statfs(machine).available_blocks * FS_BLOCK_SIZE;
	assert_int_equal(call_fallocate(machine, big, 0, 0, room - MIB(1)), 0);
	unsigned files = 0;
	for (; files < FILES_MAX; files++) {
		snprintf(name, sizeof(name), "f%u", files);
		if (call_create(machine, dir, name, S_IFREG | 0600, &entry))
			break;
		inos[files] = entry.ino;
	}
	assert_true(files > 500 && files < FILES_MAX);
	*out_dir = dir;
	return files;
}

/* On a full filesystem a file is deleted and another one made at once, while the first is on its way out. */
static void test_what_was_deleted_can_be_made_again_at_once(void **state)
{
	enum { ROUNDS = 2000 };
	static uint64_t inos[FILES_MAX];
	struct machine m;
	struct fs_entry entry;
	char name[16];
	machine_start(&m, owners, 0);
	uint64_t random = owners, dir;
	const unsigned files = fill_with_files(&m, inos, &dir);
	for (unsigned round = 0; round < ROUNDS; round++) {
		const unsigned i = (unsigned)(sim_rand(&random) % files);
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(call_unlink(&m, dir, name), 0);
		call_forget(&m, inos[i], 1);
		call_sleep(&m, sim_rand(&random) % (NS_PER_MS / 2));
		if (call_create(&m, dir, name, S_IFREG | 0600, &entry))
			fail_msg("round %u: no room for a file where one has been deleted", round);
		inos[i] = entry.ino;
	}
	machine_stop(&m);
}

struct late_forget {
	struct fiber_start_remote start;
	struct fs *fs;
	uint64_t ino, delay_ns;
	bool done;
};

static MAY_WAIT void forget_late(void *arg)
{
	struct late_forget *late = arg;
	fiber_sleep(late->delay_ns);
	fs_forget(late->fs, late->ino, 1);
	late->done = true;
}

/* The kernel tells of an unlinked file that nobody uses any more a little after it has answered whoever closed it. */
static void test_what_is_forgotten_a_moment_later_makes_room(void **state)
{
	static uint64_t inos[FILES_MAX];
	struct machine m;
	struct fs_entry entry;
	char name[16];
	machine_start(&m, owners, 0);
	uint64_t dir;
	const unsigned files = fill_with_files(&m, inos, &dir);
	for (unsigned i = 0; i < MIN(files, 200u); i++) {
		snprintf(name, sizeof(name), "f%u", i);
		assert_int_equal(call_unlink(&m, dir, name), 0);
		struct late_forget late = {.fs = m.sim.fs, .ino = inos[i], .delay_ns = i * 10000};
		late.start.start = (struct fiber_start){.fn = forget_late, .arg = &late, .name = "forget"};
		fiber_start_on(reactor_group_get(m.sim.group, i % owners), &late.start);
		if (call_create(&m, dir, name, S_IFREG | 0600, &entry))
			fail_msg("no room for a file where one is forgotten %u us later", i * 10);
		while (!late.done)
			call_sleep(&m, NS_PER_MS);
	}
	machine_stop(&m);
}

enum { REPLACERS = 6 };

/* Deletes a file of its own and makes one in its place, again and again. */
struct replacer {
	struct fiber_start_remote start;
	struct fs *fs;
	uint64_t dir, *inos, random;
	unsigned first, count, rounds, now;
	int error;
	bool done;
};

static MAY_WAIT int replace_one(void *arg)
{
	struct replacer *replacer = arg;
	char text[16];
	const struct fs_name name = {.bytes = text,
		.length = (uint8_t)snprintf(text, sizeof(text), "f%u", replacer->first + replacer->now)};
	const struct fs_create create = {.name = name, .mode = S_IFREG | 0600};
	struct fs_entry entry;
	int error = fs_unlink(replacer->fs, replacer->dir, name);
	fs_forget(replacer->fs, replacer->inos[replacer->first + replacer->now], 1);
	if (!error)
		error = fs_create(replacer->fs, replacer->dir, &create, &(struct fs_cred){.uid = 0}, &entry);
	if (!error)
		replacer->inos[replacer->first + replacer->now] = entry.ino;
	return error;
}

static MAY_WAIT void replacer_main(void *arg)
{
	struct replacer *replacer = arg;
	for (unsigned i = 0; i < replacer->rounds && !replacer->error; i++) {
		replacer->now = (unsigned)(sim_rand(&replacer->random) % replacer->count);
		replacer->error = reactor_call(fs_owner(replacer->fs, replacer->dir), replace_one, replacer);
		if (i % 4 == 0)
			fiber_sleep(sim_rand(&replacer->random) % NS_PER_MS);
	}
	replacer->done = true;
}

static void test_many_replace_files_of_their_own_at_once(void **state)
{
	static uint64_t inos[FILES_MAX];
	struct replacer replacer[REPLACERS] = {{.rounds = 0}};
	struct machine m;
	uint64_t dir;
	const struct fs_mount_options mount = {.cache_bytes = 1};
	machine_start_with(&m, owners, 0, &mount);
	const unsigned files = fill_with_files(&m, inos, &dir);
	for (unsigned i = 0; i < REPLACERS; i++) {
		replacer[i] = (struct replacer){.fs = m.sim.fs, .dir = dir, .inos = inos, .random = owners * 100 + i,
			.first = files / REPLACERS * i, .count = files / REPLACERS, .rounds = 400};
		replacer[i].start.start = (struct fiber_start){.fn = replacer_main, .arg = &replacer[i], .name = "replacer"};
		fiber_start_on(reactor_group_get(m.sim.group, i % owners), &replacer[i].start);
	}
	for (unsigned i = 0; i < REPLACERS; i++) {
		while (!replacer[i].done)
			call_sleep(&m, NS_PER_MS);
		assert_int_equal(replacer[i].error, 0);
	}
	machine_stop(&m);
}

/* Unlinked but remembered: more than one orphan block holds. */
static void test_many_orphans(void **state)
{
	enum { FILES = 1200 };
	struct machine m;
	char name[16];
	machine_start(&m, owners, 0);
	uint64_t *inos = malloc(FILES * sizeof(*inos));
	for (unsigned i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "o%u", i);
		inos[i] = make(&m, ROOT, name, S_IFREG | 0600);
		assert_int_equal(call_unlink(&m, ROOT, name), 0);
	}
	assert_int_equal(used_inodes(&m), 1 + FILES);
	for (unsigned i = 0; i < FILES; i += 2)
		call_forget(&m, inos[i], 1);
	machine_settle(&m);
	assert_int_equal(used_inodes(&m), 1 + FILES / 2);
	machine_remount(&m);
	assert_int_equal(used_inodes(&m), 1);
	free(inos);
	machine_stop(&m);
}

/* A file of which every owner has a part, an extent each: a change of its map may concern more owners than a transaction
 * may have parts. */
static void test_a_file_over_sixteen_owners(void **state)
{
	enum { MANY = 16, FILLER_BLOCKS = 470, BLOCKS = 320 };
	struct machine m;
	if (owners > 1)
		return; /* once is enough */
	machine_start(&m, MANY, MIB(33) + 64 * 1024); /* 16 AGs */
	uint8_t *buffer = calloc(BLOCKS, FS_BLOCK_SIZE);
	/* Every AG nearly full: each lends a little. */
	for (unsigned i = 0; i < MANY; i++) {
		char name[16];
		snprintf(name, sizeof(name), "d%u", i);
		const uint64_t dir = make(&m, ROOT, name, S_IFDIR | 0700), filler = make(&m, dir, "filler", S_IFREG | 0600);
		assert_int_equal(call_fallocate(&m, filler, 0, 0, FILLER_BLOCKS * FS_BLOCK_SIZE), 0);
	}
	const uint64_t ino = make(&m, ROOT, "file", S_IFREG | 0600);
	machine_remount(&m);
	const uint64_t before = call_statfs(&m).free_blocks;
	for (unsigned round = 0; round < 16; round++) {
		const int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		struct fs_status status;
		assert_int_equal(call_write(&m, ino, buffer, 0, BLOCKS * FS_BLOCK_SIZE), 0);
		fs_get_status(m.sim.fs, &status);
		assert_true(status.loans > 8);
		if (round % 2) /* behind its own AG's blocks */
			assert_int_equal(call_fallocate(&m, ino, mode, 40 * FS_BLOCK_SIZE, BLOCKS * FS_BLOCK_SIZE), 0);
		/* At some size there are just so many extents that one change could do it, but for the owners. */
		assert_int_equal(call_truncate(&m, ino, (220 + 5 * round) * FS_BLOCK_SIZE), 0);
		assert_int_equal(call_truncate(&m, ino, 36 * FS_BLOCK_SIZE), 0);
		assert_int_equal(call_truncate(&m, ino, 0), 0);
		machine_remount(&m);
		assert_true(call_statfs(&m).free_blocks + 1 >= before); /* an orphan block */
	}
	free(buffer);
	machine_stop(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_full_filesystem_answers_enospc_and_recovers),
		cmocka_unit_test(test_emptied_filesystem_is_as_free_as_before),
		cmocka_unit_test(test_failed_data_io_is_an_error_of_the_call_alone),
		cmocka_unit_test(test_failed_journal_write_stops_changes),
		cmocka_unit_test(test_error_that_stopped_it_is_recorded),
		cmocka_unit_test(test_read_only_mount_changes_nothing),
		cmocka_unit_test(test_many_inodes_survive_a_small_cache),
		cmocka_unit_test(test_what_was_deleted_can_be_made_again_at_once),
		cmocka_unit_test(test_what_is_forgotten_a_moment_later_makes_room),
		cmocka_unit_test(test_many_replace_files_of_their_own_at_once),
		cmocka_unit_test(test_many_orphans),
		cmocka_unit_test(test_a_file_over_sixteen_owners),
	};
	int failed = 0;
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("space", tests, NULL, NULL);
	return failed;
}
