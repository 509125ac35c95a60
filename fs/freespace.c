/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Free runs as an AVL tree. A change walks down remembering the links it followed (struct path) and then walks the same
 * links up, rebalancing and recomputing `largest`; a rotation below a link changes only what that link holds, so the
 * links above stay good. Runs cannot number more than half the blocks of a group, which bounds the height.
 */
#include "fs/freespace.h"

#include <errno.h>
#include <stdlib.h>

enum {
	HEIGHT_MAX = 32,                /* an AVL tree of 2^19 nodes is at most 28 high */
	SLAB_NODES = 1023,
};

struct freespace_slab {
	struct freespace_slab *next;
	struct freespace_node nodes[SLAB_NODES];
};

struct path {
	unsigned depth;
	struct freespace_node **link[HEIGHT_MAX];
};

/* ---- the pool ---- */

void freespace_pool_init(struct freespace_pool *pool)
{
	*pool = (struct freespace_pool){0};
}

void freespace_pool_fini(struct freespace_pool *pool)
{
	while (pool->slabs) {
		struct freespace_slab *slab = pool->slabs;
		pool->slabs = slab->next;
		free(slab);
	}
	*pool = (struct freespace_pool){0};
}

static void node_put(struct freespace_pool *pool, struct freespace_node *node)
{
	node->child[0] = pool->free;
	pool->free = node;
	pool->free_count++;
}

int freespace_pool_reserve(struct freespace_pool *pool, size_t nodes)
{
	while (pool->free_count < nodes) {
		struct freespace_slab *slab = malloc(sizeof(*slab));
		if (!slab)
			return -ENOMEM;
		slab->next = pool->slabs;
		pool->slabs = slab;
		for (unsigned i = 0; i < SLAB_NODES; i++)
			node_put(pool, &slab->nodes[i]);
	}
	return 0;
}

static struct freespace_node *node_get(struct freespace_pool *pool)
{
	if (freespace_pool_reserve(pool, 1))
		return NULL;
	struct freespace_node *node = pool->free;
	pool->free = node->child[0];
	pool->free_count--;
	return node;
}

/* ---- balance ---- */

static uint32_t height_of(const struct freespace_node *node)
{
	return node ? node->height : 0;
}

static uint32_t largest_of(const struct freespace_node *node)
{
	return node ? node->largest : 0;
}

static uint32_t end_of(const struct freespace_node *node)
{
	return node->start + node->count;
}

static void node_update(struct freespace_node *node)
{
	node->height = 1 + MAX(height_of(node->child[0]), height_of(node->child[1]));
	node->largest = MAX(node->count, MAX(largest_of(node->child[0]), largest_of(node->child[1])));
}

/* Lifts the child on @side into the link. */
static void rotate(struct freespace_node **link, unsigned side)
{
	struct freespace_node *node = *link;
	struct freespace_node *child = node->child[side];

	node->child[side] = child->child[!side];
	child->child[!side] = node;
	*link = child;
	node_update(node);
	node_update(child);
}

static void balance(struct freespace_node **link)
{
	struct freespace_node *node = *link;
	const uint32_t left = height_of(node->child[0]);
	const uint32_t right = height_of(node->child[1]);

	if (left <= right + 1 && right <= left + 1) {
		node_update(node);
		return;
	}
	const unsigned side = right > left;
	struct freespace_node *child = node->child[side];
	if (height_of(child->child[!side]) > height_of(child->child[side]))
		rotate(&node->child[side], !side);
	rotate(link, side);
}

static void path_push(struct path *path, struct freespace_node **link)
{
	assert(path->depth < HEIGHT_MAX);
	path->link[path->depth++] = link;
}

static void path_balance(const struct path *path)
{
	for (unsigned i = path->depth; i-- > 0;)
		if (*path->link[i])
			balance(path->link[i]);
}

/* Path to the node with this start, or to the empty link where it would hang. */
static struct freespace_node *path_find(struct freespace *space, uint32_t start, struct path *path)
{
	struct freespace_node **link = &space->root;

	path->depth = 0;
	for (;;) {
		path_push(path, link);
		struct freespace_node *node = *link;
		if (!node || node->start == start)
			return node;
		link = &node->child[start > node->start];
	}
}

/* ---- single runs; neighbours are the caller's business ---- */

static int run_insert(struct freespace *space, uint32_t start, uint32_t count)
{
	struct freespace_node *node = node_get(space->pool);
	struct path path;

	if (!node)
		return -ENOMEM;
	*node = (struct freespace_node){.start = start, .count = count};
	struct freespace_node *found = path_find(space, start, &path);
	assert(!found);
	*path.link[path.depth - 1] = node;
	path_balance(&path);
	space->runs++;
	return 0;
}

static void run_delete(struct freespace *space, uint32_t start)
{
	struct path path;
	struct freespace_node *node = path_find(space, start, &path);

	assert(node);
	if (node->child[0] && node->child[1]) {
		/* The next run moves here, and its old node goes instead. */
		path_push(&path, &node->child[1]);
		while ((*path.link[path.depth - 1])->child[0])
			path_push(&path, &(*path.link[path.depth - 1])->child[0]);
		struct freespace_node *next = *path.link[path.depth - 1];
		node->start = next->start;
		node->count = next->count;
		node = next;
	}
	*path.link[path.depth - 1] = node->child[!node->child[0]];
	path_balance(&path);
	node_put(space->pool, node);
	space->runs--;
}

/* The run at @start becomes another one that keeps its place in the order. */
static void run_change(struct freespace *space, uint32_t start, uint32_t new_start, uint32_t new_count)
{
	struct path path;
	struct freespace_node *node = path_find(space, start, &path);

	assert(node && new_count);
	node->start = new_start;
	node->count = new_count;
	for (unsigned i = path.depth; i-- > 0;)
		node_update(*path.link[i]);
}

/* The last run that starts at or before @block, and the first that starts behind it. */
static void run_around(const struct freespace *space, uint32_t block, struct freespace_node **before,
	struct freespace_node **after)
{
	struct freespace_node *node = space->root;

	*before = *after = NULL;
	while (node) {
		if (node->start <= block) {
			*before = node;
			node = node->child[1];
		} else {
			*after = node;
			node = node->child[0];
		}
	}
}

/* ---- the set ---- */

void freespace_init(struct freespace *space, struct freespace_pool *pool)
{
	*space = (struct freespace){.pool = pool};
}

void freespace_clear(struct freespace *space)
{
	struct freespace_node *node = space->root;

	/* Right rotations unroll the tree into a list that is given back from its head. */
	while (node) {
		struct freespace_node *left = node->child[0];
		if (left) {
			node->child[0] = left->child[1];
			left->child[1] = node;
			node = left;
			continue;
		}
		struct freespace_node *next = node->child[1];
		node_put(space->pool, node);
		node = next;
	}
	freespace_init(space, space->pool);
}

int freespace_add(struct freespace *space, uint32_t start, uint32_t count)
{
	struct freespace_node *before, *after;

	assert(count && start + count > start);
	run_around(space, start, &before, &after);
	assert(!before || end_of(before) <= start);
	assert(!after || start + count <= after->start);
	const bool join_before = before && end_of(before) == start;
	const bool join_after = after && after->start == start + count;
	if (join_before) {
		const uint32_t first = before->start;
		const uint32_t sum = before->count + count + (join_after ? after->count : 0);
		if (join_after)
			run_delete(space, after->start);
		run_change(space, first, first, sum);
	} else if (join_after) {
		run_change(space, after->start, start, count + after->count);
	} else if (run_insert(space, start, count)) {
		return -ENOMEM;
	}
	space->total += count;
	return 0;
}

bool freespace_contains(const struct freespace *space, uint32_t start, uint32_t count)
{
	struct freespace_node *before, *after;

	run_around(space, start, &before, &after);
	return before && start + count >= start && start + count <= end_of(before);
}

int freespace_remove(struct freespace *space, uint32_t start, uint32_t count)
{
	struct freespace_node *before, *after;

	assert(count && freespace_contains(space, start, count));
	run_around(space, start, &before, &after);
	const uint32_t first = before->start;
	const uint32_t front = start - first;
	const uint32_t back = end_of(before) - (start + count);
	if (front && back && run_insert(space, start + count, back))
		return -ENOMEM;
	if (front)
		run_change(space, first, first, front);
	else if (back)
		run_change(space, first, start + count, back);
	else
		run_delete(space, first);
	space->total -= count;
	return 0;
}

/* The first run that starts at or behind @goal and has @want blocks. */
static const struct freespace_node *run_first_fit(const struct freespace *space, uint32_t goal, uint32_t want)
{
	const struct freespace_node *node = space->root, *subtree = NULL;
	const struct freespace_node *fallback = NULL;

	/* Down the search path of goal; of the nodes right of it the deepest one that helps is the first in order. */
	while (node) {
		if (node->start < goal) {
			node = node->child[1];
			continue;
		}
		if (node->count >= want || largest_of(node->child[1]) >= want)
			fallback = node;
		node = node->child[0];
	}
	if (!fallback || fallback->count >= want)
		return fallback;
	subtree = fallback->child[1];
	for (;;) {
		if (largest_of(subtree->child[0]) >= want)
			subtree = subtree->child[0];
		else if (subtree->count >= want)
			return subtree;
		else
			subtree = subtree->child[1];
	}
}

static const struct freespace_node *run_choose(const struct freespace *space, const struct freespace_wish *wish)
{
	if (freespace_largest(space) >= wish->want) {
		const struct freespace_node *found = run_first_fit(space, wish->goal, wish->want);
		return found ? found : run_first_fit(space, 0, wish->want);
	}
	if (freespace_largest(space) < wish->min)
		return NULL;
	return run_first_fit(space, 0, freespace_largest(space));
}

bool freespace_take(struct freespace *space, const struct freespace_wish *wish, uint32_t *out_start,
	uint32_t *out_count)
{
	struct freespace_node *before, *after;

	assert(wish->min && wish->min <= wish->want);
	run_around(space, wish->goal, &before, &after);
	if (before && wish->goal < end_of(before) && end_of(before) - wish->goal >= wish->min) {
		*out_start = wish->goal;
		*out_count = MIN(wish->want, end_of(before) - wish->goal);
		if (!freespace_remove(space, *out_start, *out_count))
			return true;
	}
	const struct freespace_node *node = run_choose(space, wish);
	if (!node)
		return false;
	*out_start = node->start;
	*out_count = MIN(wish->want, node->count);
	/* From the start of a run: this takes no node, so it cannot fail. */
	const int error = freespace_remove(space, *out_start, *out_count);
	assert(!error);
	return true;
}

bool freespace_next(const struct freespace *space, uint32_t from, uint32_t *out_start, uint32_t *out_count)
{
	struct freespace_node *before, *after;

	run_around(space, from, &before, &after);
	const struct freespace_node *node = before && end_of(before) > from ? before : after;
	if (!node)
		return false;
	*out_start = node->start;
	*out_count = node->count;
	return true;
}

const char *freespace_check(const struct freespace *space)
{
	const struct freespace_node *stack[HEIGHT_MAX], *node = space->root;
	unsigned depth = 0;
	uint32_t last_end = 0, total = 0, runs = 0;

	while (node || depth) {
		if (node) {
			if (depth == HEIGHT_MAX)
				return "too high";
			stack[depth++] = node;
			node = node->child[0];
			continue;
		}
		node = stack[--depth];
		const uint32_t left = height_of(node->child[0]);
		const uint32_t right = height_of(node->child[1]);
		if (left > right + 1 || right > left + 1 || node->height != 1 + MAX(left, right))
			return "height";
		if (node->largest != MAX(node->count, MAX(largest_of(node->child[0]), largest_of(node->child[1]))))
			return "largest";
		if (!node->count || (runs && node->start <= last_end))
			return "order";
		last_end = end_of(node);
		total += node->count;
		runs++;
		node = node->child[1];
	}
	return total == space->total && runs == space->runs ? NULL : "totals";
}
