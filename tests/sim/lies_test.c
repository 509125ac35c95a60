/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: each check of metadata against other metadata, which no verifier of one block can make, is made where it has to be:
 * EUCLEAN for what needs it, everything else goes on. (hostile_test draws such lies by chance; here each has its place.)
 * Method: an image with one of each shape; one field is changed under a good checksum; a mount; the operation that comes across
 * it.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/inode_internal.h"
#include "fs/verify.h"
#include "fs/xattr.h"
#include "reactor/log.h"
#include "tests/sim/calls.h"

#define ROOT FS_ROOT_INODE
enum { NAMES = 400, FRAGMENTS = 400, XATTRS = 60, VALUE_BYTES = 60000 };

struct bench {
	struct machine machine;
	uint64_t directory, file, link, xattrs, value, deep, deeper, orphan, tree_orphan;
	uint8_t *buffer;
};
static struct bench bench;
#define M (&bench.machine)

static const char *long_name(unsigned number)
{
	static char name[200];
	memset(name, 'L', sizeof(name) - 1);
	name[snprintf(name, sizeof(name), "n%u", number)] = 'L';
	return name;
}

static uint64_t make(uint64_t parent, const char *name, uint32_t mode)
{
	struct fs_entry entry;
	assert_int_equal(call_create(M, parent, name, mode, &entry), 0);
	call_forget(M, entry.ino, 1);
	return entry.ino;
}

static void populate(void)
{
	struct fs_entry entry;
	char target[3001];
	bench.buffer = calloc(1, VALUE_BYTES);
	bench.directory = make(ROOT, "directory", S_IFDIR | 0755);
	for (unsigned i = 0; i < NAMES; i++)
		make(bench.directory, long_name(i), S_IFREG | 0600);
	bench.file = make(ROOT, "file", S_IFREG | 0600);
	for (unsigned i = 0; i < FRAGMENTS; i++)
		assert_int_equal(call_write(M, bench.file, bench.buffer, (uint64_t)i * 2 * FS_BLOCK_SIZE, FS_BLOCK_SIZE), 0);
	memset(target, 'T', sizeof(target) - 1);
	target[sizeof(target) - 1] = '\0';
	assert_int_equal(call_symlink(M, ROOT, "link", target, &entry), 0);
	bench.link = entry.ino;
	call_forget(M, entry.ino, 1);
	bench.xattrs = make(ROOT, "xattrs", S_IFREG | 0600);
	for (unsigned i = 0; i < XATTRS; i++) {
		char name[32];
		snprintf(name, sizeof(name), "user.number%u", i);
		assert_int_equal(call_setxattr(M, bench.xattrs, name, bench.buffer, 400), 0);
	}
	bench.value = make(ROOT, "value", S_IFREG | 0600);
	assert_int_equal(call_setxattr(M, bench.value, "user.large", bench.buffer, VALUE_BYTES), 0);
	bench.deep = make(ROOT, "deep", S_IFDIR | 0755);
	bench.deeper = make(bench.deep, "deeper", S_IFDIR | 0755);
}

static void begin(void)
{
	machine_start(M, 1, MIB(24));
	M->damaged = true;
	populate();
	assert_int_equal(sim_unmount(&M->sim), 0);
}

static void mount_again(void) { assert_int_equal(sim_mount(&M->sim, &M->mount), 0); }

static void end(void)
{
	machine_stop(M);
	free(bench.buffer);
}

static void *block_at(uint64_t block) { return M->memory + block * FS_BLOCK_SIZE; }
static void seal(uint64_t block) { block_seal(block_at(block), le64_get(((struct block_header *)block_at(block))->sequence)); }

static uint64_t block_of(uint64_t ino)
{
	const struct fs_super *super = block_at(FS_SUPER_BLOCK);
	const uint64_t place = ino == ROOT ? le64_get(super->root_place) : ino;
	return ag_first_block(super, ino_ag(place)) + ino_ag_block(place);
}

static struct disk_inode *inode_on_disk(uint64_t ino)
{
	return &((struct inode_block *)block_at(block_of(ino)))->inode[ino_slot(ino)];
}

/* The blocks of a type of an owner, in the order of the device. */
static unsigned blocks_of(enum block_type type, uint64_t owner, uint64_t *out, unsigned max)
{
	unsigned count = 0;
	for (uint64_t block = FS_SUPER_BLOCK; block < M->size / FS_BLOCK_SIZE && count < max; block++) {
		const struct block_header *header = block_at(block);
		if (le32_get(header->magic) == FS_BLOCK_MAGIC && le16_get(header->type) == type && le64_get(header->owner) == owner &&
			le64_get(header->block) == block)
			out[count++] = block;
	}
	return count;
}

static uint64_t tree_root_of(uint64_t ino) { return le64_get(((struct fork_tree *)inode_on_disk(ino)->fork)->root); }

static MAY_WAIT int scrub_run(void *arg)
{
	const struct fs_scrub_options options = {.data = false};
	return fs_scrub(arg, &options);
}

/* What an operation comes across, scrub finds, too. */
static void assert_scrub_finds(void)
{
	struct fs_scrub_status status;
	assert_int_equal(reactor_group_run(reactor_group_get(M->sim.group, 0), scrub_run, M->sim.fs), 0);
	fs_scrub_get_status(M->sim.fs, &status);
	assert_true(status.findings > 0);
}

/* ---- the lies ---- */

static void test_a_symlink_whose_block_stands_elsewhere(void **state)
{
	char target[FS_SYMLINK_MAX + 1];
	unsigned length;
	begin();
	((struct disk_extent *)inode_on_disk(bench.link)->fork)->logical = le64_set(1);
	seal(block_of(bench.link));
	mount_again();
	assert_int_equal(call_readlink(M, bench.link, target, &length), -EUCLEAN);
	end();
}

static void test_a_symlink_without_a_target(void **state)
{
	char target[FS_SYMLINK_MAX + 1];
	unsigned length;
	begin();
	/* One that is being freed may look like this; this one has a name. */
	inode_on_disk(bench.link)->fork_count = le16_set(0);
	inode_on_disk(bench.link)->nlink = le32_set(0);
	seal(block_of(bench.link));
	mount_again();
	assert_int_equal(call_readlink(M, bench.link, target, &length), -EUCLEAN);
	end();
}

static void test_one_block_as_two(void **state)
{
	uint8_t byte;
	uint32_t length;
	struct fs_entry entry;
	begin();
	/* The file's tree begins with the directory's. */
	const uint64_t root = tree_root_of(bench.directory);
	((struct fork_tree *)inode_on_disk(bench.file)->fork)->root = le64_set(root);
	seal(block_of(bench.file));
	mount_again();
	assert_int_equal(call_lookup(M, bench.directory, long_name(3), &entry), 0);
	call_forget(M, entry.ino, 1);
	assert_int_equal(call_read(M, bench.file, &byte, 0, 1, &length), -EUCLEAN);
	end();
}

static void test_a_level_that_is_none(void **state)
{
	uint64_t nodes[200];
	struct fs_entry entry;
	begin();
	/* All leaves but one hang from the root; the root's level is one more than the fork says. */
	inode_on_disk(bench.directory)->fork_level = 2;
	seal(block_of(bench.directory));
	assert_true(blocks_of(BLOCK_DIR_NODE, bench.directory, nodes, ARRAY_SIZE(nodes)) > 3);
	mount_again();
	assert_int_equal(call_lookup(M, bench.directory, long_name(3), &entry), -EUCLEAN);
	assert_int_equal(call_create(M, bench.directory, "new", S_IFREG | 0600, &entry), -EUCLEAN);
	assert_scrub_finds();
	end();
}

static void test_an_entry_in_the_wrong_leaf(void **state)
{
	begin();
	/* The separators say that every name is in the first leaf. */
	struct tree_node *root = block_at(tree_root_of(bench.directory));
	struct tree_pointer *pointers = (struct tree_pointer *)root->payload;
	const uint64_t first = le64_get(pointers[0].child), second = le64_get(pointers[1].child);
	pointers[0].child = le64_set(second);
	pointers[1].child = le64_set(first);
	seal(tree_root_of(bench.directory));
	mount_again();
	unsigned bad = 0;
	for (unsigned i = 0; i < NAMES; i++) {
		const int error = call_unlink(M, bench.directory, long_name(i));
		assert_true(!error || error == -ENOENT || error == -EUCLEAN);
		bad += error != 0;
	}
	assert_true(bad > 0 && bad < NAMES);
	end();
}

static void test_extents_of_two_leaves_that_overlap(void **state)
{
	begin();
	/* The second leaf begins within the last extent of the first one, when that grows. */
	struct tree_node *root = block_at(tree_root_of(bench.file));
	struct tree_pointer *pointers = (struct tree_pointer *)root->payload;
	assert_true(le16_get(root->count) >= 3);
	const uint64_t key = le64_get(pointers[1].key);
	pointers[1].key = le64_set(key + 1);
	seal(tree_root_of(bench.file));
	mount_again();
	uint8_t *many = calloc(1, 16 * FS_BLOCK_SIZE);
	const int error = call_write(M, bench.file, many, (key - 3) * FS_BLOCK_SIZE, 16 * FS_BLOCK_SIZE);
	assert_true(!error || error == -EUCLEAN);
	free(many);
	end();
}

static void test_a_chain_of_xattrs_without_end(void **state)
{
	uint64_t blocks[64];
	uint32_t length;
	begin();
	const unsigned count = blocks_of(BLOCK_XATTR, bench.xattrs, blocks, ARRAY_SIZE(blocks));
	assert_true(count >= 3);
	for (unsigned i = 0; i < count; i++) {
		((struct xattr_block *)block_at(blocks[i]))->next = inode_on_disk(bench.xattrs)->xattr_block;
		seal(blocks[i]);
	}
	mount_again();
	assert_int_equal(call_getxattr(M, bench.xattrs, "user.no-such", bench.buffer, 4096, &length), -EUCLEAN);
	assert_int_equal(call_setxattr(M, bench.xattrs, "user.no-such", bench.buffer, 40), -EUCLEAN);
	assert_scrub_finds();
	end();
}

static void test_blocks_of_a_value_in_the_wrong_order(void **state)
{
	uint64_t blocks[64];
	uint32_t length;
	begin();
	assert_true(blocks_of(BLOCK_XATTR_VALUE, bench.value, blocks, ARRAY_SIZE(blocks)) > 3);
	struct xattr_value_block *block = block_at(blocks[1]);
	block->index = le32_set(le32_get(block->index) + 1);
	seal(blocks[1]);
	mount_again();
	assert_int_equal(call_getxattr(M, bench.value, "user.large", bench.buffer, VALUE_BYTES, &length), -EUCLEAN);
	end();
}

static void test_a_name_of_a_file_without_links(void **state)
{
	begin();
	inode_on_disk(bench.file)->nlink = le32_set(0);
	seal(block_of(bench.file));
	mount_again();
	assert_int_equal(call_unlink(M, ROOT, "file"), -EUCLEAN);
	end();
}

static void test_a_directory_that_does_not_lead_to_the_root(void **state)
{
	begin();
	inode_on_disk(bench.deep)->parent = le64_set(bench.deeper);
	seal(block_of(bench.deep));
	mount_again();
	const uint64_t other = make(ROOT, "other", S_IFDIR | 0755);
	make(other, "moves", S_IFDIR | 0755);
	assert_int_equal(call_rename(M, other, "moves", bench.deeper, "moves", 0), -EUCLEAN);
	end();
}

static void test_a_parent_that_does_not_exist(void **state)
{
	begin();
	inode_on_disk(bench.deep)->parent = le64_set(bench.xattrs + (1ull << 9));
	seal(block_of(bench.deep));
	mount_again();
	const uint64_t other = make(ROOT, "other", S_IFDIR | 0755);
	make(other, "moves", S_IFDIR | 0755);
	const int error = call_rename(M, other, "moves", bench.deeper, "moves", 0);
	assert_true(error == -ENOENT || error == -EUCLEAN);
	assert_scrub_finds();
	end();
}

static void test_blocks_of_a_file_outside_of_the_device(void **state)
{
	begin();
	const uint64_t small = bench.value;
	struct disk_inode *inode = inode_on_disk(small);
	inode->format = FORK_EXTENTS;
	inode->fork_count = le16_set(1);
	inode->size = le64_set(FS_BLOCK_SIZE);
	/* Into the fixed blocks at the front of an allocation group. */
	*(struct disk_extent *)inode->fork = (struct disk_extent){.physical =
		le64_set(ag_first_block(block_at(FS_SUPER_BLOCK), 1)), .length = le32_set(1)};
	seal(block_of(small));
	mount_again();
	(void)call_truncate(M, small, 0);
	(void)call_unlink(M, ROOT, "value");
	call_sleep(M, NS_PER_SEC);
	end();
}

/* A neighbour with which a leaf that has become small is to be joined is none: the leaf stays small. */
static void test_a_neighbour_that_is_no_leaf(void **state)
{
	unsigned removed = 0;
	begin();
	const uint64_t root = tree_root_of(bench.directory);
	struct tree_pointer *pointers = (struct tree_pointer *)((struct tree_node *)block_at(root))->payload;
	pointers[1].child = le64_set(tree_root_of(bench.file));
	seal(root);
	mount_again();
	for (unsigned i = 0; i < NAMES; i++) {
		const int error = call_unlink(M, bench.directory, long_name(i));
		assert_true(!error || error == -EUCLEAN);
		removed += !error;
	}
	if (removed <= NAMES / 2 || removed == NAMES)
		fail_msg("%u of %d names could be removed", removed, NAMES);
	end();
}

static void test_immutable_and_append_only(void **state)
{
	begin();
	inode_on_disk(bench.file)->flags = le32_set(INODE_IMMUTABLE);
	inode_on_disk(bench.value)->flags = le32_set(INODE_APPEND);
	seal(block_of(bench.file));
	seal(block_of(bench.value));
	mount_again();
	assert_int_equal(call_open(M, bench.file, O_WRONLY), -EPERM);
	assert_int_equal(call_open(M, bench.file, O_RDONLY), 0);
	assert_int_equal(call_open(M, bench.value, O_WRONLY), -EPERM);
	assert_int_equal(call_open(M, bench.value, O_WRONLY | O_APPEND | O_TRUNC), -EPERM);
	assert_int_equal(call_open(M, bench.value, O_WRONLY | O_APPEND), 0);
	end();
}

static MAY_WAIT int make_writable(void *arg)
{
	const struct fs_remount wanted = {.commit_ms = 20};
	return fs_remount(arg, &wanted, M->sim.message, sizeof(M->sim.message));
}

static void test_features_that_can_only_be_read(void **state)
{
	begin();
	((struct fs_super *)block_at(FS_SUPER_BLOCK))->ro_compat = le64_set(1ull << 40);
	seal(FS_SUPER_BLOCK);
	assert_int_equal(sim_mount(&M->sim, &M->mount), -EOPNOTSUPP);
	M->mount.read_only = true;
	mount_again();
	assert_int_equal(reactor_group_run(reactor_group_get(M->sim.group, 0), make_writable, M->sim.fs), -EROFS);
	assert_non_null(strstr(M->sim.message, "newer lanefs"));
	end();
}

/* ---- what is freed at mount ---- */

static MAY_WAIT int leave_run(void *arg)
{
	struct fs_legacy legacy = {0};
	const int error = fs_save_counts(arg, &legacy);
	free(legacy.counts);
	return error ? error : fs_leave(arg, &legacy);
}

/* Leaves two files without links on the device, with no journal to replay: the next mount frees them. */
static void begin_with_orphans(uint64_t ino[2])
{
	struct fs_entry entry;
	begin();
	mount_again();
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(call_create(M, ROOT, "gone", S_IFREG | 0600, &entry), 0);
		assert_int_equal(call_unlink(M, ROOT, "gone"), 0);
		ino[i] = entry.ino;
	}
	struct fs *fs = M->sim.fs;
	M->sim.fs = NULL;
	assert_int_equal(reactor_group_run(reactor_group_get(M->sim.group, 0), leave_run, fs), 0);
}

static void mount_and_settle(void)
{
	struct fs_entry entry;
	mount_again();
	call_sleep(M, 3 * NS_PER_SEC);
	assert_int_equal(call_lookup(M, bench.directory, long_name(3), &entry), 0);
	call_forget(M, entry.ino, 1);
}

static void test_a_directory_without_links_that_is_not_empty(void **state)
{
	uint64_t ino[2];
	struct fs_errors errors;
	begin_with_orphans(ino);
	const le32_t generation = inode_on_disk(ino[0])->generation;
	*inode_on_disk(ino[0]) = *inode_on_disk(bench.directory);
	inode_on_disk(ino[0])->nlink = le32_set(0);
	inode_on_disk(ino[0])->generation = generation;
	seal(block_of(ino[0]));
	mount_and_settle();
	fs_get_errors(M->sim.fs, &errors);
	assert_int_equal(errors.corrupt_blocks, 1);
	end();
}

static void test_an_entry_of_the_chain_that_names_no_inode(void **state)
{
	uint64_t ino[2];
	begin_with_orphans(ino);
	inode_on_disk(ino[0])->mode = le16_set(0);
	inode_on_disk(ino[0])->format = FORK_NONE;
	seal(block_of(ino[0]));
	mount_and_settle();
	end();
}

static void no_log(enum log_level level, const char *line, void *arg) {}

int main(void)
{
	log_set_sink(no_log, NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_symlink_whose_block_stands_elsewhere),
		cmocka_unit_test(test_a_symlink_without_a_target),
		cmocka_unit_test(test_one_block_as_two),
		cmocka_unit_test(test_a_level_that_is_none),
		cmocka_unit_test(test_an_entry_in_the_wrong_leaf),
		cmocka_unit_test(test_extents_of_two_leaves_that_overlap),
		cmocka_unit_test(test_a_chain_of_xattrs_without_end),
		cmocka_unit_test(test_blocks_of_a_value_in_the_wrong_order),
		cmocka_unit_test(test_a_name_of_a_file_without_links),
		cmocka_unit_test(test_a_directory_that_does_not_lead_to_the_root),
		cmocka_unit_test(test_a_parent_that_does_not_exist),
		cmocka_unit_test(test_blocks_of_a_file_outside_of_the_device),
		cmocka_unit_test(test_a_neighbour_that_is_no_leaf),
		cmocka_unit_test(test_immutable_and_append_only),
		cmocka_unit_test(test_features_that_can_only_be_read),
		cmocka_unit_test(test_a_directory_without_links_that_is_not_empty),
		cmocka_unit_test(test_an_entry_of_the_chain_that_names_no_inode),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
