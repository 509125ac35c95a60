/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The extent map of a file: logical blocks to device blocks. Inline extents in the fork, then a tree. Holes are absent.
 * An extent never reaches over the key range of its leaf, so what covers a block is always in the leaf of that block.
 * Call under inode->lock, on the owner.
 */
#ifndef LANEFS_FS_MAP_H
#define LANEFS_FS_MAP_H

#include "fs/tree.h"

struct extent {
	uint64_t logical;               /* file block */
	uint64_t physical;              /* device block; 0: a hole */
	uint64_t length;                /* blocks */
	bool unwritten;
};
/* What covers @logical, clipped to start there and to at most @limit (>= 1) blocks: an extent, or a hole up to the next
 * one. FORK_INLINE files have no map: -EINVAL. */
MAY_WAIT int map_lookup(const struct inode *inode, uint64_t logical, uint64_t limit, struct extent *out) MUST_CHECK;

/* Replaces what the map says of blocks [logical, logical + length). As a change on the part of the inode's owner, one
 * of an inode in a transaction; the caller pins and logs the inode (inode_pin before, inode_log after: the change
 * itself does not log it). physical 0: a hole. Freed blocks of the old mapping are named with tx_free (RUN_DATA) unless
 * they are the same blocks (conversion of unwritten). Merges with neighbours. inode.disk.blocks is adjusted in apply.
 * A FORK_INLINE inode counts as one with an empty map: apply makes it FORK_EXTENTS first (the caller has written the
 * inline bytes into the new blocks).
 * prepare may shorten the change to what fits one leaf and MAP_FREE_RUNS_MAX freed runs: length says what was planned,
 * at least 1. It is never shortened when the range lies within one hole, or within one extent as map_lookup answers
 * them. */
struct map_change {
	struct change change;
	struct inode *inode;
	uint64_t logical, physical, length;
	bool unwritten;
	bool keep_old;                  /* do not free the old blocks (they are the new ones, or the caller does) */
	/* ---- private ---- */
	enum map_plan { MAP_PLAN_INLINE, MAP_PLAN_ROOT, MAP_PLAN_TREE } plan;
	struct disk_extent *records;
	unsigned count;
	int64_t blocks_delta;           /* of data */
	struct tree_change tree_change;
};
void map_change_init(struct map_change *change, struct inode *inode, uint64_t logical, uint64_t physical,
	uint64_t length, bool unwritten);
/* The last extent. -ENOENT: the map is empty. */
MAY_WAIT int map_last(const struct inode *inode, struct extent *out) MUST_CHECK;
/* For truncation: the range [*out_logical, end of the map) at or behind @from that one map_change can make a hole.
 * -ENOENT: nothing is mapped there, done. */
MAY_WAIT int map_tail(const struct inode *inode, uint64_t from, uint64_t *out_logical, uint64_t *out_length) MUST_CHECK;
enum { MAP_CHANGE_BLOCKS = TREE_CHANGE_BLOCKS + 2, MAP_FREE_RUNS_MAX = 8 };

/* For the files of maps: the extents that hold @logical's place, in the fork or in a leaf. */
struct map_list {
	const struct disk_extent *extents;
	unsigned count;
	struct tree_leaf leaf;          /* buf NULL: in the fork; high UINT64_MAX */
};
MAY_WAIT int map_list_get(const struct inode *inode, uint64_t logical, struct map_list *out) MUST_CHECK;
void map_list_put(const struct inode *inode, struct map_list *list);
static inline uint64_t disk_extent_end(const struct disk_extent *extent)
{
	return le64_get(extent->logical) + le32_get(extent->length);
}

#endif
