/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trees. The walk visits every node that can be read, is its inode's, and fits the place where it stands; what it had
 * to leave out makes the tree damaged, and so do keys out of their range. Building packs records into full leaves,
 * and these into as few inner nodes as hold them.
 */
#include <stdlib.h>

#include "mkfs/repair_internal.h"

enum { POINTERS_PER_NODE = FS_NODE_BYTES / sizeof(struct tree_pointer) };

/* ---- walking ---- */

struct step {
	const struct tree_node *node;
	uint64_t low, high;
	unsigned next;
};

static const struct tree_pointer *pointer_at(const struct tree_node *node, unsigned i)
{
	return (const struct tree_pointer *)node->payload + i;
}

static bool node_fits(const struct repair_walk *walk, const struct tree_node *node, unsigned level)
{
	const unsigned count = le16_get(node->count), bytes = le16_get(node->bytes);
	const size_t size = level ? sizeof(struct tree_pointer) :
		walk->type == BLOCK_EXTENT_NODE ? sizeof(struct disk_extent) : 0;
	return le16_get(node->level) == level && bytes <= FS_NODE_BYTES && (!size || bytes == count * size);
}

/* Keys in order and within what the parent leaves. */
static bool keys_fit(const struct step *step)
{
	const unsigned count = le16_get(step->node->count);
	for (unsigned i = 0; i < count; i++) {
		const uint64_t key = le64_get(pointer_at(step->node, i)->key);
		if (key < step->low || key >= step->high || (i && key <= le64_get(pointer_at(step->node, i - 1)->key)))
			return false;
	}
	return count > 0 && (step->low || !le64_get(pointer_at(step->node, 0)->key));
}

/* Reads the node; false when there is nothing to go down into. */
static bool step_enter(struct repair *repair, struct repair_walk *walk, struct step *step, uint64_t block, unsigned level,
	bool root)
{
	struct fsck *fsck = &repair->fsck;
	bool is_free = true;
	step->next = 0;
	step->node = NULL;
	if (repair_placeable(repair, block, 1) && (walk->again || (repair_run(repair, block, 1, &is_free), is_free)))
		step->node = repair_read(repair, block, fsck->node[level], walk->type, walk->ino);
	if (fsck->error)
		return false;
	if (!step->node || !node_fits(walk, step->node, level)) {
		walk->damaged = true;
		return false;
	}
	if (!walk->again)
		repair_claim(repair, block);
	repair_blocks_add(repair, &walk->nodes, block);
	walk->damaged |= le16_get(step->node->reserved0) || le64_get(step->node->reserved1);
	walk->damaged |= level ? !keys_fit(step) : !root && !le16_get(step->node->count);
	if (level)
		return true;
	const struct repair_leaf leaf = {.payload = step->node->payload, .count = le16_get(step->node->count),
		.bytes = le16_get(step->node->bytes), .low = step->low, .high = step->high};
	walk->leaf(repair, &leaf, walk->arg);
	return false;
}

void repair_tree_walk(struct repair *repair, struct repair_walk *walk, uint64_t root, unsigned level)
{
	struct step path[FS_TREE_LEVEL_MAX + 1];
	const unsigned top = level;
	path[top] = (struct step){.high = UINT64_MAX};
	if (!step_enter(repair, walk, &path[top], root, level, true))
		return;
	while (!repair->fsck.error) {
		struct step *step = &path[level];
		const unsigned count = le16_get(step->node->count), i = step->next++;
		if (i == count) {
			if (level++ == top)
				return;
			continue;
		}
		struct step *child = &path[level - 1];
		*child = (struct step){.low = le64_get(pointer_at(step->node, i)->key)};
		child->high = i + 1 < count ? le64_get(pointer_at(step->node, i + 1)->key) : step->high;
		if (step_enter(repair, walk, child, le64_get(pointer_at(step->node, i)->child), level - 1, false))
			level--;
	}
}

/* ---- building ---- */

size_t repair_build_nodes(size_t leaves)
{
	size_t all = leaves;
	for (size_t level = leaves; level > 1; all += level)
		level = div_round_up(level, POINTERS_PER_NODE);
	return all;
}

static bool blocks_take(struct repair *repair, struct repair_builder *builder, size_t nodes)
{
	while (builder->free.count < nodes && !repair->fsck.error) {
		const uint64_t block = repair_allocate(repair);
		if (!block) {
			repair_release(repair, &builder->free);
			builder->free.count = 0;
			return false;
		}
		repair_blocks_add(repair, &builder->free, block);
	}
	return !repair->fsck.error;
}

void repair_build_begin(struct repair *repair, struct repair_builder *builder, size_t nodes, struct repair_rebuild *rebuild)
{
	if (blocks_take(repair, builder, nodes) || repair->fsck.error)
		return;
	/* A full disk: the nodes that it had must do. */
	repair_release(repair, &rebuild->nodes);
	rebuild->nodes.count = 0;
	if (!blocks_take(repair, builder, nodes) && !repair->fsck.error)
		repair->fsck.error = -ENOSPC;
}

static struct tree_node *node_new(struct repair *repair, struct repair_builder *builder, unsigned level, uint64_t *out_block)
{
	*out_block = builder->free.block[builder->used++];
	struct tree_node *node = repair_new(repair, *out_block, builder->type, builder->ino);
	if (node)
		node->level = le16_set((uint16_t)level);
	return node;
}

static void record_append(struct tree_node *node, const void *record, size_t bytes)
{
	const unsigned used = le16_get(node->bytes);
	memcpy(node->payload + used, record, bytes);
	node->bytes = le16_set((uint16_t)(used + bytes));
	node->count = le16_set((uint16_t)(le16_get(node->count) + 1));
}

void repair_build_record(struct repair *repair, struct repair_builder *builder, uint64_t key, const void *record, size_t bytes)
{
	if (!builder->leaf || le16_get(builder->leaf->bytes) + bytes > FS_NODE_BYTES) {
		uint64_t block = 0;
		builder->pointer = repair_grow(repair, builder->pointer, &builder->capacity, builder->count + 1,
			sizeof(*builder->pointer));
		builder->leaf = repair->fsck.error ? NULL : node_new(repair, builder, 0, &block);
		if (!builder->leaf)
			return;
		builder->pointer[builder->count].key = le64_set(builder->count ? key : 0);
		builder->pointer[builder->count++].child = le64_set(block);
	}
	record_append(builder->leaf, record, bytes);
}

uint64_t repair_build_end(struct repair *repair, struct repair_builder *builder, unsigned *out_level)
{
	*out_level = 0;
	while (builder->count > 1 && !repair->fsck.error) {
		const size_t nodes = div_round_up(builder->count, (size_t)POINTERS_PER_NODE);
		++*out_level;
		for (size_t i = 0; i < nodes && !repair->fsck.error; i++) {
			const size_t first = i * POINTERS_PER_NODE;
			uint64_t block;
			struct tree_node *node = node_new(repair, builder, *out_level, &block);
			const le64_t key = builder->pointer[first].key;
			for (size_t at = first; node && at < MIN(first + POINTERS_PER_NODE, builder->count); at++)
				record_append(node, &builder->pointer[at], sizeof(*builder->pointer));
			builder->pointer[i] = (struct tree_pointer){.key = key, .child = le64_set(block)};
		}
		builder->count = nodes;
	}
	const uint64_t root = builder->count ? le64_get(builder->pointer[0].child) : 0;
	free(builder->pointer);
	free(builder->free.block);
	return root;
}
