/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * B+trees in 4 KiB nodes, for extents and directories: 64-bit keys, leaves hold records that start with their key.
 * The root is named by the inode's fork (FORK_TREE). A change replaces the contents of one leaf: it is planned exactly
 * in the prepare step (which nodes split, which become empty and are freed, all pinned and allocated) and done in
 * apply. Call under inode->lock: shared to search, exclusive to plan and apply.
 *
 * In every inner node the first key is the lower end of the node's own key range (0 on the leftmost path), so a child's
 * range is [its key, the next key). A leaf that shrinks to a sixth joins a neighbour under the same parent when the two fill
 * half of one at most. Inner nodes are not merged; they are freed when they are empty, and an inner root with one
 * child gives way to the child.
 */
#ifndef LANEFS_FS_TREE_H
#define LANEFS_FS_TREE_H

#include "fs/inode.h"

struct tree {
	struct inode *inode;
	enum block_type type;           /* BLOCK_EXTENT_NODE or BLOCK_DIR_NODE */
};
/* Bytes of the record at @record (at least FS_DIRENT_FIXED bytes of a directory entry may be read). */
unsigned tree_record_bytes(enum block_type type, const void *record);
static inline uint64_t tree_record_key(const void *record) { return le64_get(*(const le64_t *)record); }
static inline const struct tree_node *tree_node_of(const struct buf *buf)
{
	return (const struct tree_node *)buf->data;
}
/* Payload bytes that a node may fill: FS_NODE_BYTES. Weak, so that unit tests get small nodes and tall trees. */
unsigned tree_node_bytes(void);

/* The leaf that holds @key, pinned (buf_put by the caller): low and high are its key range [low, high), low <= key <
 * high. */
struct tree_leaf {
	struct buf *buf;
	uint64_t low, high;             /* high: UINT64_MAX for the last leaf */
};
MAY_WAIT int tree_find_leaf(const struct tree *tree, uint64_t key, struct tree_leaf *out) MUST_CHECK;

/* A planned change of the leaf that holds @key. Fill the fields above the line, zero the rest. */
struct tree_change {
	struct tree tree;
	uint64_t key;
	/* The leaf's new records: sorted, within its key range; @bytes <= 2 * tree_node_bytes() - FS_DIRENT_MAX. Valid
	 * until apply (tx_scratch). None: the leaf is freed, and empty parents with it. */
	const uint8_t *records;
	unsigned bytes, count;
	/* Not 0: the leaf's range is to reach up to this key, because its last record does. No key in between is in
	 * use. */
	uint64_t high;
	/* Two changes of one tree in one transaction: the first may remove a leaf (keep_root set), the second, of
	 * another leaf, may split one; planned and applied in this order. */
	bool keep_root;
	const struct tree_change *after;
	/* ---- planned; the caller looks at the first two ---- */
	bool emptied;                   /* the whole tree goes; apply leaves an empty fork, the caller sets its format */
	int blocks_delta;               /* nodes allocated less nodes freed */
	struct buf *path[FS_TREE_LEVEL_MAX + 1];    /* path[0]: leaf */
	unsigned levels;                            /* nodes on the path */
	unsigned split_levels;                      /* levels 0.. that split; 0: none */
	unsigned split_bytes, split_count;          /* of the leaf's records that stay left */
	bool append;                                /* behind the last record: leave full nodes behind */
	bool grow;                                  /* a new root over the old one */
	unsigned removed_levels;                    /* levels 0.. of the path that are freed; 0: none */
	bool collapse;                              /* the root gives way to new_root */
	uint64_t new_root;
	unsigned new_root_level;
	struct buf *merge_keep, *merge_gone;        /* the leaf and a neighbour: the first gets the records of both */
	unsigned widen_level;                       /* level of the separator that moves to @high; 0: none */
	struct buf *chain[FS_TREE_LEVEL_MAX];       /* leftmost path below the right neighbour: first keys change */
	unsigned chain_count, chain_freed;          /* the first chain_freed are freed by collapse */
	uint64_t fresh[FS_TREE_LEVEL_MAX + 2];      /* new nodes: right half of level i; last: new root */
	struct buf *fresh_buf[FS_TREE_LEVEL_MAX + 2];
	unsigned fresh_count;
};
/* Adds the node blocks to inode.disk.blocks in apply and sets root and level in the fork; inode_pin and inode_log are
 * the caller's. -EFBIG: the tree would be too high. */
MAY_WAIT int tree_plan(struct tx_part *part, struct tree_change *change) MUST_CHECK;
void tree_apply(struct tx_part *part, struct tree_change *change);
/* From inline to a tree of one leaf with these records (bytes <= tree_node_bytes()); apply replaces the fork. */
MAY_WAIT int tree_plan_root(struct tx_part *part, struct tree_change *change) MUST_CHECK;
void tree_apply_root(struct tx_part *part, struct tree_change *change);
/* Blocks touched and allocated by one change, for tx_begin: a path of 8 nodes and a sibling for each. */
enum { TREE_CHANGE_BLOCKS = 2 * (FS_TREE_LEVEL_MAX + 1) };

/* For the files of trees: child of an inner node that holds @key. */
unsigned tree_slot(const struct tree_node *node, uint64_t key);
static inline struct tree_pointer *tree_pointers(struct buf *buf)
{
	return (struct tree_pointer *)((struct tree_node *)buf->data)->payload;
}
static inline uint64_t tree_root(const struct inode *inode)
{
	return le64_get(((const struct fork_tree *)inode->disk.fork)->root);
}

#endif
