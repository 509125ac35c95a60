/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Cache, transactions and inodes without a log or a device, for unit tests of what stands on them: blocks are memory,
 * one owner has them all, nothing waits. What it checks after every transaction:
 *   - prepare changed no block; apply changed only bytes that tx_dirty named, of blocks that were pinned
 *   - every touched block passes its verifier, every freed metadata block was killed, every changed inode was logged
 *   - no pin is left, an allocated block was free, a freed one in use, none is freed twice
 * Failures can be injected into everything that may fail, and then nothing may have happened.
 */
#ifndef LANEFS_TESTS_FAKE_TX_H
#define LANEFS_TESTS_FAKE_TX_H

#include "fs/inode.h"

enum { FAKE_INODES_MAX = 8 };

/* Made and used by one test at a time. */
struct fake {
	struct fs fs;
	struct owner owner;
	unsigned node_bytes;            /* of tree nodes */
	unsigned fail_after;            /* calls that may fail until one does; 0: never */
	int fail_error;
	unsigned run_max;               /* longest run that tx_alloc gives */
	uint64_t used_blocks;
	uint64_t dirty_bytes;           /* named by the last transaction */
	unsigned dirty_blocks, pinned_blocks;
	bool in_prepare, in_apply;
	struct inode inodes[FAKE_INODES_MAX];
	struct disk_inode logged[FAKE_INODES_MAX];
	unsigned inode_count;
	uint64_t random;
};
extern struct fake fake;

void fake_init(unsigned node_bytes);
/* Checks that nothing is pinned. */
void fake_fini(void);
/* An empty file or directory. */
struct inode *fake_inode(uint32_t mode);
/* One change of the home part, in a transaction of its own. */
int fake_run(struct change *change);
/* 0 .. below - 1 */
uint32_t fake_random(uint32_t below);
/* Content of a block, NULL when it is free; for walkers. */
const void *fake_block(uint64_t block);
/* Takes data blocks out of the free space, as if a transaction had. */
uint64_t fake_take(uint32_t count);
uint64_t fake_take_at(uint64_t block, uint32_t count); /* these, which are free */
void fake_give(uint64_t block, uint32_t count);
bool fake_in_use(uint64_t block);
/* Every node of the inode's tree: levels, key ranges, counts; returns the number of nodes. Records go to @leaf in
 * order. */
typedef void (*fake_leaf_fn)(const struct tree_node *leaf, uint64_t low, uint64_t high, void *arg);
unsigned fake_tree_check(const struct inode *inode, enum block_type type, fake_leaf_fn leaf, void *arg);

#endif
