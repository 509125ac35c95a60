/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The extent map of a file: logical blocks to device blocks. Inline extents in the fork, then a tree. Holes are absent.
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
/* What covers @logical: an extent clipped to start there, or a hole up to the next extent (length up to @limit). FORK_INLINE
 * files have no map: -EINVAL. */
MAY_WAIT int map_lookup(struct inode *inode, uint64_t logical, uint64_t limit, struct extent *out) MUST_CHECK;

/* Replaces what the map says of blocks [logical, logical + length), within one leaf. As a change on the part of the inode's
 * owner; the caller pins and logs the inode (inode_pin before, inode_log after: the change itself does not log it).
 * physical 0: a hole. Freed blocks of the old mapping are named with tx_free (RUN_DATA) unless they are the same blocks
 * (conversion of unwritten). Merges with neighbours. inode.disk.blocks is adjusted in apply.
 * A FORK_INLINE inode counts as one with an empty map: apply makes it FORK_EXTENTS first (the caller has written the inline
 * bytes into the new blocks).
 * prepare may shorten the change to what fits one leaf and one transaction: length says what was planned. */
struct map_change {
	struct change change;
	struct inode *inode;
	uint64_t logical, physical, length;
	bool unwritten;
	bool keep_old;                  /* do not free the old blocks (they are the new ones, or the caller does) */
	/* ---- private ---- */
	unsigned plan;
	uint8_t *records;
	unsigned bytes, count;
	int64_t blocks_delta;
	struct tree_change tree_change;
};
void map_change_init(struct map_change *change, struct inode *inode, uint64_t logical, uint64_t physical, uint64_t length,
	bool unwritten);
/* Removes the mapping of blocks from the end of the file down to @logical, as much as fits one transaction:
 * *out_logical is where it stopped (== logical: done). */
MAY_WAIT int map_last(struct inode *inode, struct extent *out) MUST_CHECK; /* -ENOENT when the map is empty */
enum { MAP_CHANGE_BLOCKS = TREE_CHANGE_BLOCKS + 2, MAP_FREE_RUNS_MAX = 8 };

#endif
