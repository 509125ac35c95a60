/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: every rule that fsck judges by is broken once, and fsck names it. Method: a table. Each line changes one field
 * of the sample image (by exclusive or), seals the block again, and says what the finding must contain; findings that
 * follow by necessity (a count that no longer fits) are allowed by number. Damage that takes more than one field is a
 * function in the second table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fsck_image.h"

/* Where the field stands: at a block with a fixed number, in a block or an inode whose number the sample holds. */
enum where { AT, BLOCK, INODE };
struct damage {
	const char *expected;
	enum where where;
	size_t place;               /* block number, or offset in struct sample */
	size_t offset;
	unsigned bytes;
	uint64_t change;
	unsigned follow;            /* other findings that may come with it */
};

#define FIELD(type, field) offsetof(type, field), sizeof(((type *)NULL)->field)
#define OF(member) offsetof(struct sample, member)
#define SUPER AT, FS_SUPER_BLOCK
#define STATE AT, FS_STATE_BLOCK_A
#define AG(n) AT, SAMPLE_AG_FIRST + (n) * FS_AG_BLOCKS_MIN
#define MAP(n, map) AT, SAMPLE_AG_FIRST + (n) * FS_AG_BLOCKS_MIN + FS_AG_MAPS_FIRST + (map)
#define HEADER(field) FIELD(struct block_header, field)
#define BIT(n) offsetof(struct map_block, bits) + (n) / 8, 1, 1u << (n) % 8
#define NODE(field) FIELD(struct tree_node, field)
#define FORK_EXTENT(i, field) \
	offsetof(struct disk_inode, fork) + (i) * sizeof(struct disk_extent) + FIELD(struct disk_extent, field)
#define LEAF_EXTENT(i, field) \
	offsetof(struct tree_node, payload) + (i) * sizeof(struct disk_extent) + FIELD(struct disk_extent, field)
#define POINTER(i, field) \
	offsetof(struct tree_node, payload) + (i) * sizeof(struct tree_pointer) + FIELD(struct tree_pointer, field)
#define DIRENT(field) offsetof(struct tree_node, payload) + FIELD(struct disk_dirent, field)
#define XATTR(field) offsetof(struct xattr_block, records) + FIELD(struct disk_xattr, field)

static const struct damage damages[] = {
	/* superblock; a changed primary differs from its copies, an unusable one is replaced by the last of them */
	{"superblock: reserved", SUPER, FIELD(struct fs_super, reserved0), 1, 4},
	{"superblock copy (block 421): wrong block", AG(1) + 1, HEADER(block), 1, 0},
	{"superblock: owner", SUPER, HEADER(owner), 1, 4},
	{"superblock: label", SUPER, offsetof(struct fs_super, label) + 20, 1, 'x', 4},
	{"superblock (block 1): wrong magic", SUPER, FIELD(struct fs_super, magic), 1, 0},
	{"superblock (block 1): wrong type", SUPER, HEADER(type), 2, 0},
	{"superblock (block 1): wrong block number", SUPER, HEADER(block), 2, 0},
	{"superblock (block 1): wrong fsid", SUPER, HEADER(fsid), 2, 0},
	{"wrong version", SUPER, FIELD(struct fs_super, version), 2, 0},
	{"wrong incompat", SUPER, FIELD(struct fs_super, incompat), FS_INCOMPAT_REFCOUNT, 0},
	{"wrong ro_compat", SUPER, FIELD(struct fs_super, ro_compat), 1, 0},
	{"wrong block_size", SUPER, FIELD(struct fs_super, block_size), 1, 0},
	{"wrong inode_size", SUPER, FIELD(struct fs_super, inode_size), 1, 0},
	{"wrong block_count", SUPER, FIELD(struct fs_super, block_count), 1ull << 40, 0},
	{"wrong journal_first", SUPER, FIELD(struct fs_super, journal_first), 1, 0},
	{"wrong journal_blocks", SUPER, FIELD(struct fs_super, journal_blocks), 1ull << 30, 0},
	{"wrong first_ag_block", SUPER, FIELD(struct fs_super, first_ag_block), 1, 0},
	{"wrong ag_blocks", SUPER, FIELD(struct fs_super, ag_blocks), 1u << 30, 0},
	{"wrong ag_count", SUPER, FIELD(struct fs_super, ag_count), 1u << 31, 0},
	{"wrong last_ag_blocks", SUPER, FIELD(struct fs_super, last_ag_blocks), 1u << 12, 0},
	{"wrong map_blocks", SUPER, FIELD(struct fs_super, map_blocks), 2, 0},
	{"wrong root_place", SUPER, FIELD(struct fs_super, root_place), 1ull << 60, 0},
	{"differs from the superblock", AG(2) + 1, FIELD(struct fs_super, label), 1, 0},
	{"differs from the superblock", AT, SAMPLE_BLOCKS - 1, FIELD(struct fs_super, hash_seed), 1, 0},

	/* state */
	{"belongs into the other block", STATE, FIELD(struct fs_state, generation), 1, 3},
	{"do not follow each other", STATE, FIELD(struct fs_state, generation), 4, 0},
	{"state (block 2): owner", STATE, HEADER(owner), 1, 2},
	{"state (block 2): reserved", STATE, FIELD(struct fs_state, reserved1), 1, 2},
	{"state (block 2): wrong type", STATE, HEADER(type), 1, 2},
	{"state: clean is 3", STATE, FIELD(struct fs_state, clean), 2, 2},
	{"tail_sequence is 0", STATE, FIELD(struct fs_state, tail_sequence), 1000, 2},
	{"tail_sequence is 1152921504606847976", STATE, FIELD(struct fs_state, tail_sequence), 1ull << 60, 3},
	{"mount_generation is 1152921504606846976", STATE, FIELD(struct fs_state, mount_generation), 1ull << 60, 2},
	{"belongs into the other block", STATE, FIELD(struct fs_state, generation), 1ull << 56, 3},
	{"is before the tail", STATE, FIELD(struct fs_state, durable_sequence), 1, 2},
	{"is past the tail", STATE, FIELD(struct fs_state, durable_sequence), 999 ^ 1001, 2},
	{"outside of the journal", STATE, FIELD(struct fs_state, tail_block), 160, 2},
	{"state: free_blocks", STATE, FIELD(struct fs_state, free_blocks), 1, 0},
	{"state: used_inodes", STATE, FIELD(struct fs_state, used_inodes), 1, 0},

	/* AG headers and maps */
	{"AG 2: ag is", AG(2), FIELD(struct ag_header, ag), 1, 0},
	{"AG 2: blocks is", AG(2), FIELD(struct ag_header, blocks), 1, 0},
	{"AG 2: free_blocks is", AG(2), FIELD(struct ag_header, free_blocks), 1, 1},
	{"AG 0: inode_blocks is", AG(0), FIELD(struct ag_header, inode_blocks), 2, 0},
	{"AG 0: used_inodes is", AG(0), FIELD(struct ag_header, used_inodes), 1, 1},
	{"AG 4: next_generation is 0", AG(4), FIELD(struct ag_header, next_generation), 1, 0},
	{"AG 1: orphan_count is", AG(1), FIELD(struct ag_header, orphan_count), 1, 0},
	{"AG 2: ready bits", AG(2), FIELD(struct ag_header, inode_map_ready), 2, 0},
	{"AG 2: reserved", AG(2), FIELD(struct ag_header, refcount_root), 1, 0},
	{"(AG header): wrong fsid", AG(4), HEADER(fsid), 1, 0},
	{"in use, but marked free", AG(3), FIELD(struct ag_header, block_map_ready), 1, 1},
	{"(map): index is", MAP(1, 0), FIELD(struct map_block, index), 1, 0},
	{"(map): reserved", MAP(1, 1), FIELD(struct map_block, reserved), 1, 0},
	{"(block map): owner is", MAP(1, 0), HEADER(owner), 1, 0},
	{"(block map): wrong type", MAP(2, 0), HEADER(type), 1, 0},
	{"(inode map): wrong block number", MAP(2, 1), HEADER(block), 1, 0},
	{"(inode free map): reserved header", MAP(1, 2), HEADER(reserved1), 1, 0},
	{"marked used, but nothing refers", MAP(0, 0), BIT(250), 1},
	{"in use, but marked free", MAP(0, 0), BIT(6), 1},
	{"header and maps are not marked used", MAP(0, 0), BIT(0), 1},
	{"past the end of the AG are not set", MAP(0, 0), BIT(256), 0},
	{"past the end of the AG are not set", MAP(0, 0), BIT(32255), 0},
	{"is no block that can hold inodes", MAP(0, 1), BIT(2), 0},
	{"is no block that can hold inodes", MAP(0, 1), BIT(256), 0},
	{"(inode block): wrong magic", MAP(0, 1), BIT(250), 2},
	{"inode free map: bit 5 is", MAP(0, 2), BIT(5), 0},
	{"not in the inode map", MAP(0, 2), BIT(77), 0},

	/* inode blocks and inodes */
	{"has bits past the last slot", BLOCK, OF(inode_block[1]), FIELD(struct inode_block, used_mask), 1u << 15, 0},
	{"(inode block): reserved", BLOCK, OF(inode_block[1]), FIELD(struct inode_block, reserved), 1, 0},
	{"(inode block): sequence", BLOCK, OF(inode_block[1]), HEADER(sequence), 1ull << 40, 0},
	{"marked free, but has mode", BLOCK, OF(inode_block[0]), FIELD(struct inode_block, used_mask), 1u << 7, 2},
	{"marked used, but its mode is 0", BLOCK, OF(inode_block[0]), FIELD(struct inode_block, used_mask), 1u << 14,
		2},
	{"wrong generation", BLOCK, OF(inode_block[0]), offsetof(struct inode_block, inode[14].generation), 4, 99, 0},
	{"wrong generation", INODE, OF(fifo), FIELD(struct disk_inode, generation), 1u << 20, 0},
	{"wrong mode", INODE, OF(device), FIELD(struct disk_inode, mode), S_IFCHR ^ 0170000, 3},
	{"wrong flags", INODE, OF(fifo), FIELD(struct disk_inode, flags), 1, 0},
	{"wrong nlink", INODE, OF(fifo), FIELD(struct disk_inode, nlink), 1u << 31, 1},
	{"wrong atime_nsec", INODE, OF(fifo), FIELD(struct disk_inode, atime_nsec), 1000000000, 0},
	{"wrong mtime_nsec", INODE, OF(fifo), FIELD(struct disk_inode, mtime_nsec), 1000000000, 0},
	{"wrong ctime_nsec", INODE, OF(fifo), FIELD(struct disk_inode, ctime_nsec), 1000000000, 0},
	{"wrong btime_nsec", INODE, OF(fifo), FIELD(struct disk_inode, btime_nsec), 1000000000, 0},
	{"wrong parent", INODE, OF(fifo), FIELD(struct disk_inode, parent), 1, 0},
	{"wrong parent", INODE, OF(sub), FIELD(struct disk_inode, parent), 1, 1},
	{"wrong rdev_or_entries", INODE, OF(fifo), FIELD(struct disk_inode, rdev_or_entries), 1, 0},
	{"wrong format", INODE, OF(fifo), FIELD(struct disk_inode, format), FORK_INLINE, 0},
	{"wrong format", INODE, OF(sub_child), FIELD(struct disk_inode, format), 8, 0},
	{"wrong size", INODE, OF(file_inline), FIELD(struct disk_inode, size), 1, 0},
	{"wrong size", INODE, OF(symlink_long), FIELD(struct disk_inode, size), 1u << 12, 0},
	{"wrong size", INODE, OF(file_tree), FIELD(struct disk_inode, size), 1ull << 63, 0},
	{"wrong size", INODE, OF(device), FIELD(struct disk_inode, size), 1, 0},
	{"wrong fork contents", INODE, OF(fifo), FIELD(struct disk_inode, xattr_bytes), 4, 0},
	{"wrong fork_count", INODE, OF(fifo), FIELD(struct disk_inode, fork_count), 1, 0},
	{"wrong fork_bytes", INODE, OF(fifo), FIELD(struct disk_inode, fork_bytes), 1, 0},
	{"wrong fork_level", INODE, OF(fifo), FIELD(struct disk_inode, fork_level), 1, 0},
	{"wrong fork_level", INODE, OF(file_tree), FIELD(struct disk_inode, fork_level), 9, 3},
	{"wrong reserved0", INODE, OF(fifo), FIELD(struct disk_inode, reserved0), 1, 0},
	{"wrong reserved1", INODE, OF(fifo), FIELD(struct disk_inode, reserved1), 1, 0},
	{"blocks is", INODE, OF(file_extents), FIELD(struct disk_inode, blocks), 1, 0},
	{"blocks is", INODE, OF(wide), FIELD(struct disk_inode, blocks), 1, 0},
	{"target is not in one written block", INODE, OF(symlink_long), FORK_EXTENT(0, flags), EXTENT_UNWRITTEN, 0},

	/* extents */
	{"overlap, or wrong order", INODE, OF(file_extents), FORK_EXTENT(1, logical), 11, 1},
	{"unknown flags", INODE, OF(file_extents), FORK_EXTENT(1, flags), 2, 0},
	{"no length", INODE, OF(file_extents), FORK_EXTENT(1, length), 1, 1 + 1},
	{"past the largest file", INODE, OF(file_extents), FORK_EXTENT(2, logical), 1ull << 60, 0},
	{"outside of the blocks of an AG", INODE, OF(file_extents), FORK_EXTENT(1, physical), 1ull << 40, 1},
	{"outside of the blocks of an AG", INODE, OF(file_extents), FORK_EXTENT(2, length), 1u << 20, 1},
	{"in use twice", INODE, OF(file_extents), FORK_EXTENT(1, length), 3, 0},

	/* trees */
	{"wrong level", BLOCK, OF(extent_leaf[1]), NODE(level), 1, 1},
	{"wrong count", BLOCK, OF(extent_leaf[1]), NODE(count), 4, 1},
	{"wrong bytes", BLOCK, OF(extent_leaf[1]), NODE(bytes), 8, 1},
	{"wrong bytes", BLOCK, OF(extent_root), NODE(count), 1, 9},
	{"reserved fields", BLOCK, OF(extent_leaf[1]), NODE(reserved1), 1, 0},
	{"owner is", BLOCK, OF(extent_leaf[1]), HEADER(owner), 1, 0},
	{"sequence", BLOCK, OF(extent_leaf[1]), HEADER(sequence), 1u << 20, 0},
	{"wrong type", BLOCK, OF(extent_leaf[1]), HEADER(type), 1, 1},
	{"wrong magic", BLOCK, OF(extent_leaf[1]), HEADER(magic), 1, 1},
	{"outside of its parent's range", BLOCK, OF(extent_leaf[1]), LEAF_EXTENT(0, logical), 40 ^ 39, 0},
	{"out of order or outside", BLOCK, OF(extent_root), POINTER(0, key), 1, 1},
	{"out of order or outside", BLOCK, OF(extent_root), POINTER(1, key), 40, 4},
	{"outside of the blocks of an AG", BLOCK, OF(extent_root), POINTER(1, child), 1ull << 50, 2},

	/* directories */
	{"wrong bytes", BLOCK, OF(root_leaf), NODE(bytes), 1u << 15, 16},
	{"malformed entry", BLOCK, OF(root_leaf), NODE(bytes), 4, 16},
	{"a node says", BLOCK, OF(root_leaf), NODE(count), 1, 0},
	{"its type is not that of the inode", BLOCK, OF(root_leaf), DIRENT(type), 1, 0},
	{"has not the hash of its name", BLOCK, OF(root_leaf), DIRENT(key), 1u << 16, 0},
	{"names no place of an inode", BLOCK, OF(root_leaf), DIRENT(ino), 1ull << 60, 2},
	{"padding is not zero", INODE, OF(sub), offsetof(struct disk_inode, fork) + 23, 1, 1, 0},
	{"its key is outside of its parent's range", BLOCK, OF(wide_root), POINTER(1, key), 1ull << 62, 16},
	{"entries is", INODE, OF(sub), FIELD(struct disk_inode, rdev_or_entries), 2, 0},
	{"directory 1: size is", INODE, OF(root), FIELD(struct disk_inode, size), 8192, 0},
	{"inode 1: nlink is", INODE, OF(root), FIELD(struct disk_inode, nlink), 1, 0},
	{"the root directory has parent", INODE, OF(root), FIELD(struct disk_inode, parent), 2, 0},
	{"is no directory", INODE, OF(root), FIELD(struct disk_inode, mode), S_IFDIR ^ S_IFREG, 24},
	{"subdirectories", INODE, OF(far), FIELD(struct disk_inode, nlink), 1, 0},
	{"entries name it", INODE, OF(file_extents), FIELD(struct disk_inode, nlink), 3, 0},
	{"stands in no orphan chain", INODE, OF(file_extents), FIELD(struct disk_inode, nlink), 1, 0},
	{"another parent", INODE, OF(far_child), FIELD(struct disk_inode, parent), 1, 1},

	/* orphans */
	{"(orphan block): count is", BLOCK, OF(orphan_block), FIELD(struct orphan_block, count), 1, 0},
	{"(orphan block): reserved", BLOCK, OF(orphan_block), FIELD(struct orphan_block, reserved0), 1, 0},
	{"(orphan block): owner", BLOCK, OF(orphan_block), HEADER(owner), 2, 0},
	{"does not belong here", BLOCK, OF(orphan_block), offsetof(struct orphan_block, inode[7]), 8, 1u << 25, 0},
	{"is not in use", BLOCK, OF(orphan_block), offsetof(struct orphan_block, inode[7]), 8, 8, 0},
	{"in use, but no entry names it", INODE, OF(orphan), FIELD(struct disk_inode, nlink), 1, 0},

	/* xattrs */
	{"malformed xattr record", BLOCK, OF(xattr_block[0]), XATTR(namespace), 8, 8},
	{"malformed xattr record", BLOCK, OF(xattr_block[1]), XATTR(name_length), 3, 1},
	{"malformed xattr record", BLOCK, OF(xattr_block[1]), XATTR(value_length), 1u << 20, 1},
	{"malformed xattr record", BLOCK, OF(xattr_block[1]), XATTR(flags), 1, 1},
	{"malformed xattr record", BLOCK, OF(xattr_block[1]), XATTR(reserved0), 1, 1},
	{"(xattr block): wrong bytes", BLOCK, OF(xattr_block[1]), FIELD(struct xattr_block, bytes), 1u << 15, 2},
	{"(xattr block): wrong reserved0", BLOCK, OF(xattr_block[1]), FIELD(struct xattr_block, reserved0), 1, 0},
	{"(xattr block): count is", BLOCK, OF(xattr_block[1]), FIELD(struct xattr_block, count), 2, 0},
	{"(xattr block): owner is", BLOCK, OF(xattr_block[1]), HEADER(owner), 2, 0},
	{"(xattr value block): index is", BLOCK, OF(value_block[1]), FIELD(struct xattr_value_block, index), 2, 0},
	{"(xattr value block): bytes is", BLOCK, OF(value_block[1]), FIELD(struct xattr_value_block, bytes), 2, 0},
	{"(xattr value block): reserved", BLOCK, OF(value_block[1]), FIELD(struct xattr_value_block, reserved0), 2, 0},
};

static void field_change(struct sample *sample, const struct damage *damage)
{
	const uint64_t number =
		damage->where == AT ? damage->place : *(const uint64_t *)((char *)sample + damage->place);
	uint8_t *base = damage->where == INODE ? (uint8_t *)sample_inode(sample, number) : sample_block(sample, number);
	uint64_t change = htole64(damage->change);
	for (unsigned i = 0; i < damage->bytes && i < sizeof(change); i++)
		base[damage->offset + i] ^= ((const uint8_t *)&change)[i];
	sample_seal(sample, base);
}

/* Whether fsck named the damage, and named little else. */
static bool damage_named(const struct sample *sample, const char *expected, unsigned follow)
{
	struct sample_check *check = calloc(1, sizeof(*check));
	sample_fsck(sample, check);
	bool named = false;
	for (unsigned i = 0; i < check->lines; i++)
		named |= strstr(check->line[i], expected) != NULL;
	bool good = !check->error && named && check->result.findings <= 1 + follow;
	if (!good) {
		printf("expected '%s' and at most %u more, got %u:\n", expected, follow, check->lines);
		for (unsigned i = 0; i < check->lines; i++)
			printf("    %s\n", check->line[i]);
	}
	free(check);
	return good;
}

static void test_each_field_damage_is_named(void **state)
{
	unsigned missed = 0;
	for (size_t i = 0; i < ARRAY_SIZE(damages); i++) {
		struct sample damaged;
		sample_copy(*state, &damaged);
		field_change(&damaged, &damages[i]);
		missed += !damage_named(&damaged, damages[i].expected, damages[i].follow);
		sample_destroy(&damaged);
	}
	assert_int_equal(missed, 0);
}

/* ---- damage of more than one field ---- */

static struct disk_dirent *dirent_find(struct sample *sample, uint64_t leaf, const char *name)
{
	struct tree_node *node = sample_block(sample, leaf);
	for (unsigned at = 0; at < le16_get(node->bytes);) {
		struct disk_dirent *dirent = (struct disk_dirent *)(node->payload + at);
		if (dirent->name_length == strlen(name) && !memcmp(dirent->name, name, strlen(name)))
			return dirent;
		at += dirent_bytes(dirent->name_length);
	}
	abort();
}

/* Takes an entry of the root away, with the counts that go with it. */
static void dirent_remove(struct sample *sample, const char *name)
{
	struct tree_node *node = sample_block(sample, sample->root_leaf);
	uint8_t *at = (uint8_t *)dirent_find(sample, sample->root_leaf, name);
	unsigned size = dirent_bytes((unsigned)strlen(name)), bytes = le16_get(node->bytes);
	memmove(at, at + size, (size_t)(node->payload + bytes - at) - size);
	node->bytes = le16_set((uint16_t)(bytes - size));
	node->count = le16_set((uint16_t)(le16_get(node->count) - 1));
	struct disk_inode *root = sample_inode(sample, FS_ROOT_INODE);
	root->rdev_or_entries = le64_set(le64_get(root->rdev_or_entries) - 1);
	sample_seal(sample, root);
	sample_seal(sample, node);
}

static void remove_entry(struct sample *sample) { dirent_remove(sample, "fifo"); }

static void entry_to(struct sample *sample, const char *name, uint64_t ino)
{
	struct disk_dirent *dirent = dirent_find(sample, sample->root_leaf, name);
	dirent->ino = le64_set(ino);
	sample_seal(sample, dirent);
}

static void entry_to_root(struct sample *sample) { entry_to(sample, "fifo", FS_ROOT_INODE); }
static void entry_to_root_place(struct sample *sample)
{
	entry_to(sample, "fifo", le64_get(sample_super(sample)->root_place));
}
static void entry_to_free(struct sample *sample) { entry_to(sample, "fifo", (sample->fifo & ~15ull) | 14); }
static void entry_to_second_directory(struct sample *sample) { entry_to(sample, "sub", sample->far); }

static void name_with_slash(struct sample *sample)
{
	struct disk_dirent *dirent = dirent_find(sample, sample->root_leaf, "fifo");
	dirent->name[1] = '/';
	sample_seal(sample, dirent);
}

/* far and its child far_child become parents of each other. */
static void cycle(struct sample *sample)
{
	dirent_remove(sample, "far");
	struct disk_inode *root = sample_inode(sample, FS_ROOT_INODE), *child = sample_inode(sample, sample->far_child);
	root->nlink = le32_set(4);
	sample_seal(sample, root);
	struct disk_dirent *dirent = (struct disk_dirent *)child->fork;
	dirent->key = le64_set(sample_name_key(sample, "far"));
	dirent->ino = le64_set(sample->far);
	dirent->type = S_IFDIR >> 12;
	dirent->name_length = 3;
	memcpy(dirent->name, "far", 3);
	child->fork_bytes = 24;
	child->size = le64_set(24);
	child->rdev_or_entries = le64_set(1);
	child->nlink = le32_set(3);
	sample_inode(sample, sample->far)->parent = le64_set(sample->far_child);
	sample_seal(sample, child);
}

static void own_parent(struct sample *sample)
{
	struct disk_inode *child = sample_inode(sample, sample->far_child);
	child->parent = le64_set(sample->far_child);
	sample_seal(sample, child);
}

/* The first entry once more behind itself, with the next collision number. */
static void duplicate_name(struct sample *sample)
{
	struct tree_node *node = sample_block(sample, sample->root_leaf);
	struct disk_dirent *dirent = dirent_find(sample, sample->root_leaf, "inline");
	unsigned size = dirent_bytes(dirent->name_length), bytes = le16_get(node->bytes);
	uint8_t *at = (uint8_t *)dirent;
	memmove(at + size, at, (size_t)(node->payload + bytes - at));
	dirent = (struct disk_dirent *)(at + size);
	dirent->key = le64_set(le64_get(dirent->key) + 1);
	node->bytes = le16_set((uint16_t)(bytes + size));
	node->count = le16_set((uint16_t)(le16_get(node->count) + 1));
	struct disk_inode *file = sample_inode(sample, sample->file_inline);
	file->nlink = le32_set(le32_get(file->nlink) + 1);
	sample_seal(sample, node);
	sample_seal(sample, file);
}

/* A duplicate whose two entries stand in neighbouring leaves is found as well. */
static void duplicate_over_leaves(struct sample *sample)
{
	struct tree_node *left = sample_block(sample, sample->wide_leaf[0]),
			 *right = sample_block(sample, sample->wide_leaf[1]);
	const unsigned size = le16_get(left->bytes) / le16_get(left->count);
	struct disk_dirent *last = (struct disk_dirent *)(left->payload + le16_get(left->bytes) - size);
	struct disk_dirent *first = (struct disk_dirent *)right->payload;
	memcpy(first, last, size);
	first->key = le64_set(le64_get(last->key) + 1);
	struct tree_node *root = sample_block(sample, sample->wide_root);
	((struct tree_pointer *)root->payload)[1].key = first->key;
	sample_seal(sample, right);
	sample_seal(sample, root);
}

static void swapped_leaves(struct sample *sample)
{
	struct tree_pointer *pointers =
		(struct tree_pointer *)((struct tree_node *)sample_block(sample, sample->wide_root))->payload;
	le64_t child = pointers[0].child;
	pointers[0].child = pointers[1].child;
	pointers[1].child = child;
	sample_seal(sample, pointers);
}

static void pointer_loop(struct sample *sample)
{
	struct tree_node *root = sample_block(sample, sample->wide_root);
	((struct tree_pointer *)root->payload)[1].child = le64_set(sample->wide_root);
	sample_seal(sample, root);
}

static void child_twice(struct sample *sample)
{
	struct tree_node *root = sample_block(sample, sample->extent_root);
	((struct tree_pointer *)root->payload)[1].child = le64_set(sample->extent_leaf[0]);
	sample_seal(sample, root);
}

static void data_twice(struct sample *sample)
{
	struct disk_extent *extents = (struct disk_extent *)sample_inode(sample, sample->file_extents)->fork;
	extents[1].physical = extents[0].physical;
	sample_seal(sample, extents);
}

static void data_of_another(struct sample *sample)
{
	struct disk_extent *mine = (struct disk_extent *)sample_inode(sample, sample->symlink_long)->fork;
	mine->physical = ((struct disk_extent *)sample_inode(sample, sample->file_extents)->fork)->physical;
	sample_seal(sample, mine);
}

static void empty_inner_node(struct sample *sample)
{
	struct tree_node *node = sample_block(sample, sample->extent_leaf[1]);
	node->count = node->bytes = le16_set(0);
	sample_seal(sample, node);
}

static void orphan_twice(struct sample *sample)
{
	struct orphan_block *block = sample_block(sample, sample->orphan_block);
	block->inode[9] = block->inode[3];
	block->count = le32_set(3);
	sample_ag(sample, 1)->orphan_count = le32_set(3);
	sample_seal(sample, block);
	sample_seal(sample, sample_ag(sample, 1));
}

static void orphan_forgotten(struct sample *sample)
{
	struct orphan_block *block = sample_block(sample, sample->orphan_block);
	block->inode[3] = le64_set(0);
	block->count = le32_set(1);
	sample_ag(sample, 1)->orphan_count = le32_set(1);
	sample_seal(sample, block);
	sample_seal(sample, sample_ag(sample, 1));
}

static void orphan_directory(struct sample *sample)
{
	struct orphan_block *block = sample_block(sample, sample->orphan_block);
	block->inode[7] = le64_set(sample->wide);
	sample_seal(sample, block);
}

static void orphan_chain_loop(struct sample *sample)
{
	struct orphan_block *block = sample_block(sample, sample->orphan_block);
	block->next = le64_set(sample->orphan_block);
	sample_seal(sample, block);
}

static void xattr_chain_loop(struct sample *sample)
{
	struct xattr_block *block = sample_block(sample, sample->xattr_block[1]);
	block->next = le64_set(sample->xattr_block[0]);
	sample_seal(sample, block);
}

static void xattr_duplicate(struct sample *sample)
{
	struct xattr_block *block = sample_block(sample, sample->xattr_block[1]);
	struct disk_xattr *record = (struct disk_xattr *)block->records;
	record->name_length = 5;
	memset(record->name, 0, 16);
	memcpy(record->name, "first", 5);
	block->bytes = le16_set(16);
	sample_seal(sample, block);
}

static void error_text_open(struct sample *sample)
{
	memset(sample_state(sample)->error_text, 'x', sizeof(sample_state(sample)->error_text));
	sample_seal(sample, sample_state(sample));
}

static void states_both_gone(struct sample *sample)
{
	memset(sample_block(sample, FS_STATE_BLOCK_A), 0, 2 * FS_BLOCK_SIZE);
}

static void empty_name(struct sample *sample)
{
	dirent_find(sample, sample->root_leaf, "fifo")->name_length = 0;
	sample_seal(sample, sample_block(sample, sample->root_leaf));
}

static const struct {
	void (*damage)(struct sample *sample);
	const char *expected;
	unsigned follow;
} combined[] = {
	{remove_entry, "in use, but no entry names it", 0},
	{entry_to_root, "names the root directory", 1},
	{entry_to_root_place, "names the root directory", 1},
	{entry_to_free, "names a free inode", 1},
	{entry_to_second_directory, "directory with 2 entries naming it", 1},
	{name_with_slash, "this is no name", 1},
	{empty_name, "malformed entry", 20},
	{cycle, "directory in a cycle", 0},
	{own_parent, "directory in a cycle", 1},
	{duplicate_name, "the name occurs twice", 0},
	{duplicate_over_leaves, "the name occurs twice", 0},
	{swapped_leaves, "outside of its parent's range", 60},
	{pointer_loop, "in use twice", 2},
	{child_twice, "in use twice", 2},
	{data_twice, "in use twice", 2},
	{data_of_another, "in use twice", 1},
	{empty_inner_node, "wrong count", 1},
	{orphan_twice, "stands in it twice", 0},
	{orphan_forgotten, "stands in no orphan chain", 0},
	{orphan_directory, "is no regular file", 0},
	{orphan_chain_loop, "in use twice", 0},
	{xattr_chain_loop, "in use twice", 0},
	{xattr_duplicate, "two xattrs of the same name", 0},
	{error_text_open, "error_text has no end", 2},
	{states_both_gone, "neither block 2 nor block 3", 0},
};

static void test_each_combined_damage_is_named(void **state)
{
	unsigned missed = 0;
	for (size_t i = 0; i < ARRAY_SIZE(combined); i++) {
		struct sample damaged;
		sample_copy(*state, &damaged);
		combined[i].damage(&damaged);
		missed += !damage_named(&damaged, combined[i].expected, combined[i].follow);
		sample_destroy(&damaged);
	}
	assert_int_equal(missed, 0);
}

/* A block whose crc does not fit is named by its number, whichever it is. */
static void test_each_torn_block_is_named(void **state)
{
	const struct sample *sample = *state;
	unsigned missed = 0;
	for (unsigned i = 0; i < sample->metadata_count; i++) {
		struct sample damaged;
		sample_copy(sample, &damaged);
		((uint8_t *)sample_block(&damaged, sample->metadata[i]))[4000] ^= 1;
		char expected[32];
		snprintf(expected, sizeof(expected), "block %llu (", (unsigned long long)sample->metadata[i]);
		missed += !damage_named(&damaged, expected, SAMPLE_FINDINGS);
		sample_destroy(&damaged);
	}
	assert_int_equal(missed, 0);
}

static int setup(void **state)
{
	struct sample *sample = calloc(1, sizeof(*sample));
	sample_create(sample);
	*state = sample;
	return 0;
}

static int teardown(void **state)
{
	sample_destroy(*state);
	free(*state);
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_each_field_damage_is_named),
		cmocka_unit_test(test_each_combined_damage_is_named),
		cmocka_unit_test(test_each_torn_block_is_named),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
