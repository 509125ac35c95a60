/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Large numbers, without a mount: links, entries, extents, sizes; filesystems full of empty files. Each with 1, 2 and 4
 * owners; fsck looks at what is left at every unmount.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/inode_internal.h"
#include "tests/sim/calls.h"

static unsigned owners;
#define ROOT FS_ROOT_INODE

static uint64_t make(struct machine *machine, uint64_t parent, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, parent, name, mode, &entry), 0);
	return entry.ino;
}

static const char *numbered(const char *prefix, unsigned number)
{
	static char name[32];
	snprintf(name, sizeof(name), "%s%u", prefix, number);
	return name;
}

static uint32_t links(struct machine *machine, uint64_t ino)
{
	struct fs_attr attr;
	assert_int_equal(call_getattr(machine, ino, &attr), 0);
	return attr.nlink;
}

static void test_65000_links_to_one_file(void **state)
{
	enum { LINKS = 65000, DIRECTORIES = 8 };
	struct machine m;
	struct fs_entry entry;
	uint64_t directories[DIRECTORIES];
	machine_start(&m, owners, MIB(64));
	const uint64_t ino = make(&m, ROOT, "file", S_IFREG | 0600);
	for (unsigned i = 0; i < DIRECTORIES; i++)
		directories[i] = make(&m, ROOT, numbered("d", i), S_IFDIR | 0700);
	for (unsigned i = 1; i < LINKS; i++) {
		assert_int_equal(call_link(&m, directories[i % DIRECTORIES], numbered("l", i), ino, &entry), 0);
		call_forget(&m, ino, 1);
	}
	machine_remount(&m);
	assert_int_equal(links(&m, ino), LINKS);
	for (unsigned i = 1; i < LINKS; i++)
		assert_int_equal(call_unlink(&m, directories[i % DIRECTORIES], numbered("l", i)), 0);
	assert_int_equal(links(&m, ino), 1);
	machine_stop(&m);
}

static void test_no_more_links_than_the_limit(void **state)
{
	struct machine m;
	struct fs_entry entry;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, ROOT, "file", S_IFREG | 0600);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	struct inode *inode = inode_find(owner_of_ino(m.sim.fs, ino)->inodes, ino);
	struct inode *parent = inode_find(owner_of_ino(m.sim.fs, dir)->inodes, dir);
	inode->disk.nlink = le32_set(FS_LINK_MAX - 1);
	assert_int_equal(call_link(&m, dir, "last", ino, &entry), 0);
	assert_int_equal(entry.attr.nlink, FS_LINK_MAX);
	assert_int_equal(call_link(&m, dir, "too many", ino, &entry), -EMLINK);
	assert_int_equal(call_lookup(&m, dir, "too many", &entry), -ENOENT);
	inode->disk.nlink = le32_set(2);
	/* A directory has a link of each directory in it. */
	parent->disk.nlink = le32_set(FS_LINK_MAX);
	assert_int_equal(call_create(&m, dir, "directory", S_IFDIR | 0700, &entry), -EMLINK);
	assert_int_equal(call_create(&m, dir, "no directory", S_IFREG | 0600, &entry), 0);
	parent->disk.nlink = le32_set(2);
	assert_int_equal(call_unlink(&m, dir, "last"), 0); /* and the true counts are logged */
	machine_stop(&m);
}

/* ---- full of empty files ---- */

static unsigned fill(struct machine *machine, const uint64_t *directories, unsigned count)
{
	struct fs_entry entry;
	int error = 0;
	unsigned made = 0;
	while (!error) {
		error = call_create(machine, directories[made % count], numbered("f", made), S_IFREG | 0600, &entry);
		if (!error) {
			call_forget(machine, entry.ino, 1);
			made++;
		}
	}
	assert_int_equal(error, -ENOSPC);
	return made;
}

static void test_full_of_empty_files(void **state)
{
	enum { DIRECTORIES = 5, ROOM = 600 };
	struct machine m;
	uint64_t directories[DIRECTORIES];
	machine_start(&m, owners, 0);
	for (unsigned i = 0; i < DIRECTORIES; i++)
		directories[i] = make(&m, ROOT, numbered("d", i), S_IFDIR | 0700);
	const uint64_t ballast = make(&m, ROOT, "ballast", S_IFREG | 0600);
	const uint64_t room = call_statfs(&m).available_blocks;
	assert_int_equal(call_fallocate(&m, ballast, 0, 0, (room - ROOM) * FS_BLOCK_SIZE), 0);
	const unsigned made = fill(&m, directories, DIRECTORIES);
	/* Whoever owns the last free blocks, and whoever had borrowed them. */
	assert_true(call_statfs(&m).available_blocks < 4);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = round; i < made; i += 2)
			assert_int_equal(call_unlink(&m, directories[i % DIRECTORIES], numbered("f", i)), 0);
		for (unsigned i = round; i < made; i += 2) {
			struct fs_entry entry;
			const uint64_t dir = directories[i % DIRECTORIES];
			assert_int_equal(call_create(&m, dir, numbered("f", i), S_IFREG | 0600, &entry), 0);
			call_forget(&m, entry.ino, 1);
		}
	}
	machine_remount(&m);
	for (unsigned i = 0; i < made; i++)
		assert_int_equal(call_unlink(&m, directories[i % DIRECTORIES], numbered("f", i)), 0);
	/* The inode blocks can be used for something else: all but a spare one, and one for orphans, in each AG. */
	machine_settle(&m);
	assert_true(call_statfs(&m).available_blocks > ROOM - 2 * 16);
	assert_true(fill(&m, directories, DIRECTORIES) > made - made / 50);
	machine_stop(&m);
}

/* ---- listing with attributes ---- */

struct listing {
	struct machine *machine;
	uint64_t cookie, inos[512];
	unsigned count, without_attributes;
};

static bool listing_add(const struct fs_dirent *dirent, void *arg)
{
	struct listing *listing = arg;
	listing->cookie = dirent->cookie;
	if (dirent->name.bytes[0] == '.')
		return true;
	listing->count++;
	if (!dirent->entry) {
		listing->without_attributes++;
	} else {
		char name[32];
		snprintf(name, sizeof(name), "%.*s", (int)dirent->name.length, dirent->name.bytes);
		assert_int_equal(dirent->entry->attr.mode & 0777, atoi(name + 1)); /* its own attributes, not another's */
	}
	return true;
}

static void list(struct machine *machine, uint64_t dir, struct listing *listing)
{
	*listing = (struct listing){.machine = machine};
	assert_int_equal(call_readdir(machine, dir, 0, true, listing_add, listing), 0);
}

/* Inode blocks are read ahead then. A block that could not be is read again, and only what cannot be read at all has no
 * attributes. */
static void test_listing_with_attributes_of_a_cold_directory(void **state)
{
	enum { FILES = 400 };
	struct machine m;
	struct listing listing;
	machine_start(&m, owners, 0);
	const uint64_t dir = make(&m, ROOT, "dir", S_IFDIR | 0700);
	m.cred.umask = 0;
	for (unsigned i = 0; i < FILES; i++)
		make(&m, dir, numbered("f", i), S_IFREG | i);
	for (unsigned skip = 0; skip < 60; skip += 3) {
		machine_remount(&m);
		const struct error_rule once = {
			.ops = 1u << IO_READ, .skip = 10 + skip, .count = 1, .action = ERROR_FAIL, .error = -EIO};
		bdev_error_add_rule(sim_bdev(&m.sim, "error"), &once);
		list(&m, dir, &listing);
		bdev_error_clear_rules(sim_bdev(&m.sim, "error"));
		assert_int_equal(listing.count, FILES);
		assert_true(listing.without_attributes <= FS_INODES_PER_BLOCK);
		list(&m, dir, &listing);
		assert_int_equal(listing.count, FILES);
		assert_int_equal(listing.without_attributes, 0);
	}
	machine_stop(&m);
}

/* ---- files ---- */

static uint64_t blocks_of(struct machine *machine, uint64_t ino)
{
	struct fs_attr attr;
	assert_int_equal(call_getattr(machine, ino, &attr), 0);
	return attr.blocks_512 / 8;
}

static void test_ten_thousand_extents(void **state)
{
	enum { EXTENTS = 10000, MODE = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE };
	struct machine m;
	uint8_t buffer[FS_BLOCK_SIZE];
	uint32_t length;
	machine_start(&m, owners, MIB(128));
	const uint64_t ino = make(&m, ROOT, "file", S_IFREG | 0600);
	machine_remount(&m);
	const uint64_t before = call_statfs(&m).free_blocks;
	assert_int_equal(call_fallocate(&m, ino, 0, 0, 2ull * EXTENTS * FS_BLOCK_SIZE), 0);
	for (uint64_t i = 0; i < EXTENTS; i++)
		assert_int_equal(call_fallocate(&m, ino, MODE, (2 * i + 1) * FS_BLOCK_SIZE, FS_BLOCK_SIZE), 0);
	for (uint64_t i = 0; i < EXTENTS; i += 7) {
		memset(buffer, (int)(i % 251), sizeof(buffer));
		assert_int_equal(call_write(&m, ino, buffer, 2 * i * FS_BLOCK_SIZE, FS_BLOCK_SIZE), 0);
	}
	machine_remount(&m);
	assert_in_range(blocks_of(&m, ino), EXTENTS, EXTENTS + EXTENTS / 50);
	for (uint64_t i = 0; i < 2 * EXTENTS; i++) {
		assert_int_equal(call_read(&m, ino, buffer, i * FS_BLOCK_SIZE, FS_BLOCK_SIZE, &length), 0);
		assert_int_equal(buffer[i % FS_BLOCK_SIZE], i % 14 ? 0 : i / 2 % 251);
	}
	assert_int_equal(call_fallocate(&m, ino, MODE, EXTENTS / 2 * FS_BLOCK_SIZE, EXTENTS * FS_BLOCK_SIZE), 0);
	assert_in_range(blocks_of(&m, ino), EXTENTS / 2, EXTENTS / 2 + EXTENTS / 50);
	assert_int_equal(call_truncate(&m, ino, EXTENTS / 4 * FS_BLOCK_SIZE), 0);
	assert_in_range(blocks_of(&m, ino), EXTENTS / 8, EXTENTS / 8 + EXTENTS / 50);
	assert_int_equal(call_truncate(&m, ino, 0), 0);
	assert_int_equal(blocks_of(&m, ino), 0);
	machine_remount(&m);
	assert_true(call_statfs(&m).free_blocks + 2 >= before);
	machine_stop(&m);
}

static void test_no_file_is_larger_than_the_limit(void **state)
{
	struct machine m;
	struct fs_attr attr;
	uint32_t length;
	const uint64_t limit = FS_FILE_SIZE_MAX;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, ROOT, "file", S_IFREG | 0600);
	assert_int_equal(call_truncate(&m, ino, limit + 1), -EFBIG);
	assert_int_equal(call_write(&m, ino, "ab", limit, 2), -EFBIG);
	assert_int_equal(call_fallocate(&m, ino, 0, limit - 1, 2), -EFBIG);
	assert_int_equal(call_write_flags(&m, ino, "ab", limit - 1, 2, 0, &length), 0);
	assert_int_equal(length, 1);
	assert_int_equal(call_getattr(&m, ino, &attr), 0);
	assert_int_equal(attr.size, limit);
	machine_remount(&m);
	char buffer[4] = "";
	assert_int_equal(call_read(&m, ino, buffer, limit - 2, 4, &length), 0);
	assert_int_equal(length, 2);
	assert_memory_equal(buffer, "\0a", 2);
	assert_int_equal(call_truncate(&m, ino, limit - 1), 0);
	assert_int_equal(call_truncate(&m, ino, 0), 0);
	machine_stop(&m);
}

/* What remains of a directory that was large takes little, and is all there. */
static void test_a_directory_shrinks_with_its_entries(void **state)
{
	enum { ENTRIES = 4000, KEPT = 40 };
	struct machine m;
	struct fs_entry entry;
	struct fs_attr full, small;
	machine_start(&m, owners, MIB(64));
	const uint64_t directory = make(&m, ROOT, "d", S_IFDIR | 0700), file = make(&m, ROOT, "file", S_IFREG | 0600);
	for (unsigned i = 0; i < ENTRIES; i++) {
		assert_int_equal(call_link(&m, directory, numbered("entry-with-a-name-", i), file, &entry), 0);
		call_forget(&m, file, 1);
	}
	assert_int_equal(call_getattr(&m, directory, &full), 0);
	for (unsigned i = 0; i < ENTRIES; i++)
		if (i % (ENTRIES / KEPT))
			assert_int_equal(call_unlink(&m, directory, numbered("entry-with-a-name-", i)), 0);
	assert_int_equal(call_getattr(&m, directory, &small), 0);
	assert_true(full.blocks_512 / 8 > 50);
	assert_true(small.blocks_512 / 8 <= 6);
	assert_int_equal(small.size, small.blocks_512 * 512);
	machine_remount(&m);
	for (unsigned i = 0; i < ENTRIES; i++) {
		const int error = call_lookup(&m, directory, numbered("entry-with-a-name-", i), &entry);
		assert_int_equal(error, i % (ENTRIES / KEPT) ? -ENOENT : 0);
		if (!error)
			call_forget(&m, file, 1);
	}
	machine_stop(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_directory_shrinks_with_its_entries),
		cmocka_unit_test(test_65000_links_to_one_file),
		cmocka_unit_test(test_no_more_links_than_the_limit),
		cmocka_unit_test(test_full_of_empty_files),
		cmocka_unit_test(test_listing_with_attributes_of_a_cold_directory),
		cmocka_unit_test(test_ten_thousand_extents),
		cmocka_unit_test(test_no_file_is_larger_than_the_limit),
	};
	int failed = 0;
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("sizes", tests, NULL, NULL);
	return failed;
}
