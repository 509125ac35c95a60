/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * B+trees in 4 KiB nodes, for extents and directories: 64-bit keys, leaves hold records that start with their key.
 * The root is named by the inode's fork (FORK_TREE). A change replaces the contents of one leaf: it is planned exactly in the
 * prepare step (which nodes split, which become empty and are freed, all pinned and allocated) and done in apply.
 * Call under inode->lock: shared to search, exclusive to plan and apply.
 */
#ifndef LANEFS_FS_TREE_H
#define LANEFS_FS_TREE_H

#include "fs/inode.h"

struct tree {
	struct inode *inode;
	enum block_type type;           /* BLOCK_EXTENT_NODE or BLOCK_DIR_NODE */
};
/* Bytes of the record at @record (at least 8 may be read). */
unsigned tree_record_bytes(enum block_type type, const void *record);
static inline uint64_t tree_record_key(const void *record) { return le64_get(*(const le64_t *)record); }

/* The leaf that holds @key, pinned (buf_put by the caller): low and high are its key range [low, high). */
struct tree_leaf {
	struct buf *buf;
	uint64_t low, high;             /* high: UINT64_MAX for the last leaf */
};
MAY_WAIT int tree_find_leaf(struct tree *tree, uint64_t key, struct tree_leaf *out) MUST_CHECK;

/* A planned change of the leaf that holds @key: its records become @records (sorted, within the leaf's key range;
 * @bytes <= 2 * FS_NODE_BYTES - FS_DIRENT_MAX). No record: the leaf is freed, and empty parents with it; the tree's last leaf
 * stays, empty (the caller converts to inline or none first if it wants to). @records must stay valid until apply
 * (tx_scratch). Adds the node blocks to inode.disk.blocks in apply; inode_pin and inode_log are the caller's. */
struct tree_change {
	struct tree tree;
	const uint8_t *records;
	unsigned bytes, count;
	struct buf *path[FS_TREE_LEVEL_MAX + 1];    /* path[0]: leaf */
	unsigned slot[FS_TREE_LEVEL_MAX + 1];       /* of the child in path[i] */
	unsigned levels;                            /* nodes on the path */
	struct run fresh[FS_TREE_LEVEL_MAX + 2];    /* allocated for splits, in order of use */
	struct buf *fresh_buf[FS_TREE_LEVEL_MAX + 2];
	unsigned fresh_count, freed_levels;
};
MAY_WAIT int tree_plan(struct tx_part *part, struct tree *tree, uint64_t key, const uint8_t *records, unsigned bytes,
	unsigned count, struct tree_change *change) MUST_CHECK;
void tree_apply(struct tx_part *part, struct tree_change *change);
/* From inline to a tree of one leaf (or two, when it does not fit) with these records; and its end: the last leaf is freed. */
MAY_WAIT int tree_plan_root(struct tx_part *part, struct tree *tree, const uint8_t *records, unsigned bytes, unsigned count,
	struct tree_change *change) MUST_CHECK;
void tree_apply_root(struct tx_part *part, struct tree_change *change);
MAY_WAIT int tree_plan_drop(struct tx_part *part, struct tree *tree, struct tree_change *change) MUST_CHECK; /* level 0 root only */
void tree_apply_drop(struct tx_part *part, struct tree_change *change);
/* Worst case of touched and allocated blocks of one change, for tx_begin. */
enum { TREE_CHANGE_BLOCKS = 2 * (FS_TREE_LEVEL_MAX + 1) };

#endif
