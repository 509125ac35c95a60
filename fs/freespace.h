/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The free runs of one allocation group in memory: a balanced tree by start, each node knowing the longest run below
 * it. Blocks are AG-relative. Neighbouring runs are always merged, runs never overlap. One owner; nothing waits.
 *
 * Nodes come from a pool that all groups of an owner share; it grows by slabs and keeps them. A call that would need a
 * node when there is none answers -ENOMEM and changes nothing; freespace_pool_reserve beforehand excludes that.
 */
#ifndef LANEFS_FS_FREESPACE_H
#define LANEFS_FS_FREESPACE_H

#include "reactor/base.h"

struct freespace_node {
	struct freespace_node *child[2]; /* in the pool's free list: child[0] is the next */
	uint32_t start, count;
	uint32_t largest;               /* count of the longest run in this subtree */
	uint32_t height;                /* of this subtree, a leaf has 1 */
};
struct freespace_slab;
struct freespace_pool {
	struct freespace_slab *slabs;
	struct freespace_node *free;
	size_t free_count;
};
void freespace_pool_init(struct freespace_pool *pool);
/* Every tree that took nodes from it is cleared or forgotten. */
void freespace_pool_fini(struct freespace_pool *pool);
/* At least @nodes nodes are free afterwards. -ENOMEM. */
int freespace_pool_reserve(struct freespace_pool *pool, size_t nodes) MUST_CHECK;

struct freespace {
	struct freespace_node *root;
	struct freespace_pool *pool;
	uint32_t total;                 /* free blocks */
	uint32_t runs;
};
void freespace_init(struct freespace *space, struct freespace_pool *pool);
/* Empties it; the nodes go back to the pool. */
void freespace_clear(struct freespace *space);
/* [start, start + count) becomes free; nothing of it was. -ENOMEM (takes one node at the most). */
int freespace_add(struct freespace *space, uint32_t start, uint32_t count) MUST_CHECK;
/* [start, start + count) is free no more; all of it lies in one run. -ENOMEM (takes one node at the most). */
int freespace_remove(struct freespace *space, uint32_t start, uint32_t count) MUST_CHECK;
/* All of [start, start + count) is free. */
bool freespace_contains(const struct freespace *space, uint32_t start, uint32_t count);

/* Takes a run of @min to @want blocks: at @goal itself when at least @min blocks are free there; else from the start of
 * the first run behind @goal that has @want, or of the first in the group; else from the longest, when it has @min.
 * False: no run is long enough. Never fails for memory. */
struct freespace_wish {
	uint32_t goal, want, min;       /* min >= 1 */
};
bool freespace_take(struct freespace *space, const struct freespace_wish *wish, uint32_t *out_start,
	uint32_t *out_count);

static inline uint32_t freespace_total(const struct freespace *space) { return space->total; }
static inline uint32_t freespace_largest(const struct freespace *space)
{
	return space->root ? space->root->largest : 0;
}
/* The first run that ends behind @from, whole. False: none. Walk: from = start + count. */
bool freespace_next(const struct freespace *space, uint32_t from, uint32_t *out_start, uint32_t *out_count);
/* NULL, or what is wrong with the tree. For tests. */
const char *freespace_check(const struct freespace *space);

#endif
