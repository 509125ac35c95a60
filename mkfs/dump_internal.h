/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of the dumper share. It shows blocks as the next mount will find them, with what the journal holds
 * applied in memory (or, raw, as they stand on the target), and asks the verifiers of fs/verify.h about each. Contents
 * that a verifier refuses are shown as far as they can be trusted: when only the crc is wrong all of it, otherwise the
 * header. Nothing recurses, and walks are bounded by the device's size.
 */
#ifndef LANEFS_MKFS_DUMP_INTERNAL_H
#define LANEFS_MKFS_DUMP_INTERNAL_H

#include "fs/verify.h"
#include "mkfs/fsck_device.h"

/* Images of blocks that the journal changes; open addressing. */
struct dump_overlay {
	struct {
		uint64_t block;
		uint8_t *image;             /* NULL: free place */
	} *slot;
	size_t slots, count;
};

struct dump {
	const char *target;
	struct fsck_device *device;
	uint64_t device_blocks;
	struct fs_super super;          /* the one that is trusted */
	struct dump_overlay overlay;
	unsigned bad;                   /* what was refused by a verifier, or could not be read or found */
	_Alignas(8) uint8_t block[FS_BLOCK_SIZE];   /* of the structure at hand */
	_Alignas(8) uint8_t inodes[FS_BLOCK_SIZE];  /* the inode block at hand */
	_Alignas(8) uint8_t xattr[FS_BLOCK_SIZE];
	_Alignas(8) uint8_t value[FS_BLOCK_SIZE];
	_Alignas(8) uint8_t each_map[FS_BLOCK_SIZE], each_inodes[FS_BLOCK_SIZE]; /* of a walk over all inodes */
	_Alignas(8) uint8_t node[FS_TREE_LEVEL_MAX + 1][FS_BLOCK_SIZE]; /* path from a tree's root to its leaf */
};

/* ---- dump_print.c ---- */
/* "  name              value" */
void dump_field(const char *name, const char *format, ...) PRINTF_LIKE(2, 3);
/* Quoted, without anything that could disturb a terminal. No line end. */
void dump_quoted(const void *text, size_t length);
void dump_text(const char *name, const void *text, size_t length);
void dump_time(const char *name, le64_t sec, uint32_t nsec);
void dump_uuid(const char *name, const uint8_t *uuid);
/* Bits [0, count) that are set, as runs of @base + bit. */
void dump_bits(const char *name, const uint8_t *bits, uint32_t count, uint64_t base);
void dump_bytes(const void *data, size_t length);
/* One line on stderr; counts as bad. */
void dump_fail(struct dump *dump, const char *format, ...) PRINTF_LIKE(2, 3);

/* ---- dump_block.c ---- */
/* Reads a block; false after dump_fail. */
bool dump_read(struct dump *dump, uint64_t block, void *buffer);
/* Reads a block that ought to have this type and owner, prints its heading when @heading or when it is bad. True when
 * its contents are safe to walk through. */
bool dump_open(struct dump *dump, uint64_t block, enum block_type type, uint64_t owner, void *buffer, bool heading);
void dump_super(struct dump *dump);
void dump_state(struct dump *dump);
void dump_ag(struct dump *dump, uint64_t ag);
void dump_block(struct dump *dump, uint64_t block);
/* The state block that counts, in dump->block; NULL: neither is good. */
const struct fs_state *dump_state_current(struct dump *dump);

/* ---- dump_inode.c ---- */
/* The inode of a number, in dump->inodes; NULL after dump_fail when there is none. It may be bad. */
const struct disk_inode *dump_inode_find(struct dump *dump, uint64_t ino);
void dump_inode(struct dump *dump, uint64_t ino);
void dump_inode_block(struct dump *dump, const struct inode_block *inodes, uint64_t block);
void dump_xattr_records(struct dump *dump, const uint8_t *records, unsigned bytes, uint64_t ino);

/* ---- dump_tree.c ---- */
void dump_node(const struct tree_node *node, enum block_type type);
void dump_extents(const uint8_t *records, unsigned count);
void dump_extent_tree(struct dump *dump, const struct disk_inode *inode, uint64_t ino);
void dump_dirents(const uint8_t *records, unsigned bytes);
void dump_dir(struct dump *dump, uint64_t ino);
void dump_path(struct dump *dump, const char *path);
/* The leaves of a good inode's fork, wherever it has them; true: enough seen. Nothing is printed of good nodes. */
typedef bool (*dump_leaf_fn)(const uint8_t *records, unsigned count, unsigned bytes, void *arg);
void dump_leaves(struct dump *dump, const struct disk_inode *inode, uint64_t ino, dump_leaf_fn leaf, void *arg);

/* ---- dump_journal.c ---- */
void dump_journal(struct dump *dump, bool records);
/* Calls fn with each record of the groups that replay would accept; returns how many groups those are. */
typedef void (*dump_record_fn)(struct dump *dump, uint64_t sequence, const struct journal_record *record);
uint64_t dump_journal_each(struct dump *dump, dump_record_fn fn, uint64_t *out_records);

/* ---- dump_replay.c ---- */
/* Applies the journal in memory, also to dump->super, and says so. */
void dump_replay(struct dump *dump);
const uint8_t *dump_overlay_find(const struct dump *dump, uint64_t block);
void dump_overlay_fini(struct dump *dump);

/* ---- dump_find.c ---- */
/* What a block is for, by its place, in a line. */
void dump_place(struct dump *dump, uint64_t block);
/* Which inode has it. */
void dump_owner(struct dump *dump, uint64_t block);
/* All paths of an inode. */
void dump_names(struct dump *dump, uint64_t ino);
/* Every inode in use that can be read, until fn returns true. @inode stays while fn runs. */
typedef bool (*dump_inode_fn)(struct dump *dump, const struct disk_inode *inode, uint64_t ino, void *arg);
void dump_inodes_each(struct dump *dump, dump_inode_fn fn, void *arg);

#endif
