/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The apply half of a tree change: writes what tree_plan.c has planned, into pinned blocks, without a wait. Only bytes
 * that differ are reported to the log.
 */
#include "fs/tree.h"

enum { COUNTS_AT = offsetof(struct tree_node, count), PAYLOAD_AT = offsetof(struct tree_node, payload) };

static struct tree_node *node_of(struct buf *buf)
{
	return (struct tree_node *)buf->data;
}

static void node_dirty_payload(struct tx_part *part, struct buf *buf, unsigned start, unsigned end)
{
	if (start < end)
		tx_dirty(part, buf, PAYLOAD_AT + start, end - start);
}

static void node_set_counts(struct tx_part *part, struct buf *buf, unsigned count, unsigned bytes)
{
	struct tree_node *node = node_of(buf);

	if (le16_get(node->count) == count && le16_get(node->bytes) == bytes)
		return;
	node->count = le16_set((uint16_t)count);
	node->bytes = le16_set((uint16_t)bytes);
	tx_dirty(part, buf, COUNTS_AT, 2 * sizeof(le16_t));
}

/* The first byte pair of words that differ, in steps of 8. */
static unsigned words_same(const uint8_t *a, const uint8_t *b, unsigned bytes)
{
	unsigned at = 0;

	while (at < bytes && !memcmp(a + at, b + at, 8))
		at += 8;
	return at;
}

/* The node's records become these; what is equal already stays untouched. */
static void node_set_records(struct tx_part *part, struct buf *buf, const uint8_t *records, unsigned bytes,
	unsigned count)
{
	uint8_t *payload = node_of(buf)->payload;
	const unsigned start = words_same(payload, records, bytes);
	unsigned end = bytes;

	while (end > start && !memcmp(payload + end - 8, records + end - 8, 8))
		end -= 8;
	memcpy(payload + start, records + start, end - start);
	node_dirty_payload(part, buf, start, end);
	node_set_counts(part, buf, count, bytes);
}

/* A new node; its payload is filled by the caller. All of it goes to the log. */
static void node_init(struct tx_part *part, struct buf *buf, unsigned level, unsigned count, unsigned bytes)
{
	struct tree_node *node = node_of(buf);

	node->level = le16_set((uint16_t)level);
	node->count = le16_set((uint16_t)count);
	node->bytes = le16_set((uint16_t)bytes);
	tx_dirty(part, buf, 0, FS_BLOCK_SIZE);
}

static void root_set(struct inode *inode, uint64_t block, unsigned level)
{
	((struct fork_tree *)inode->disk.fork)->root = le64_set(block);
	inode->disk.fork_level = (uint8_t)level;
}

/* ---- inner nodes ---- */

static void inner_set_count(struct tx_part *part, struct buf *buf, unsigned count)
{
	node_set_counts(part, buf, count, count * sizeof(struct tree_pointer));
}

static void inner_set_key(struct tx_part *part, struct buf *buf, unsigned slot, uint64_t key)
{
	tree_pointers(buf)[slot].key = le64_set(key);
	node_dirty_payload(part, buf, slot * sizeof(struct tree_pointer),
		slot * sizeof(struct tree_pointer) + sizeof(le64_t));
}

static void inner_insert(struct tx_part *part, struct buf *buf, unsigned position, struct tree_pointer pointer)
{
	struct tree_pointer *pointers = tree_pointers(buf);
	const unsigned count = le16_get(tree_node_of(buf)->count);

	memmove(pointers + position + 1, pointers + position, (count - position) * sizeof(pointer));
	pointers[position] = pointer;
	node_dirty_payload(part, buf, position * sizeof(pointer), (count + 1) * sizeof(pointer));
	inner_set_count(part, buf, count + 1);
}

/* The node with one pointer more at @position, in two halves; returns the pointer to the right one. */
static struct tree_pointer inner_split(struct tx_part *part, struct tree_change *change, unsigned level,
	unsigned position, struct tree_pointer pointer)
{
	struct buf *left = change->path[level], *right = change->fresh_buf[level];
	struct tree_pointer *from = tree_pointers(left), *to = tree_pointers(right);
	const unsigned count = le16_get(tree_node_of(left)->count);
	const unsigned keep = change->append && position == count ? count : (count + 1) / 2; /* of count + 1 */
	const unsigned moved = count + 1 - keep;

	if (position < keep) {
		memcpy(to, from + keep - 1, moved * sizeof(*to));
		inner_set_count(part, left, keep - 1);
		inner_insert(part, left, position, pointer);
	} else {
		const unsigned front = position - keep;
		memcpy(to, from + keep, front * sizeof(*to));
		to[front] = pointer;
		memcpy(to + front + 1, from + position, (count - position) * sizeof(*to));
		inner_set_count(part, left, keep);
	}
	node_init(part, right, level, moved, moved * sizeof(*to));
	return (struct tree_pointer){.key = to[0].key, .child = le64_set(right->block)};
}

/* ---- the kinds of change ---- */

static void apply_split(struct tx_part *part, struct tree_change *change)
{
	struct buf *right = change->fresh_buf[0];
	const uint8_t *rest = change->records + change->split_bytes;
	const unsigned rest_bytes = change->bytes - change->split_bytes;

	memcpy(node_of(right)->payload, rest, rest_bytes);
	node_init(part, right, 0, change->count - change->split_count, rest_bytes);
	node_set_records(part, change->path[0], change->records, change->split_bytes, change->split_count);

	struct tree_pointer pointer = {.key = le64_set(tree_record_key(rest)), .child = le64_set(right->block)};
	for (unsigned level = 1; level < change->split_levels; level++) {
		const unsigned slot = tree_slot(tree_node_of(change->path[level]), change->key);
		pointer = inner_split(part, change, level, slot + 1, pointer);
	}
	if (!change->grow) {
		struct buf *parent = change->path[change->split_levels];
		inner_insert(part, parent, tree_slot(tree_node_of(parent), change->key) + 1, pointer);
		return;
	}
	struct buf *root = change->fresh_buf[change->split_levels];
	tree_pointers(root)[0] = (struct tree_pointer){.child = le64_set(change->path[change->levels - 1]->block)};
	tree_pointers(root)[1] = pointer;
	node_init(part, root, change->levels, 2, 2 * sizeof(struct tree_pointer));
	root_set(change->tree.inode, root->block, change->levels);
}

static void apply_removal(struct tx_part *part, struct tree_change *change)
{
	struct buf *parent = change->path[change->removed_levels];
	struct tree_pointer *pointers = tree_pointers(parent);
	const unsigned count = le16_get(tree_node_of(parent)->count);
	const unsigned slot = tree_slot(tree_node_of(parent), change->key);
	const le64_t first_key = pointers[0].key;

	for (unsigned level = 0; level < change->removed_levels; level++)
		tx_kill(part, change->path[level]);
	if (!slot)
		for (unsigned i = change->chain_freed; i < change->chain_count; i++)
			inner_set_key(part, change->chain[i], 0, le64_get(first_key));
	if (change->collapse) {
		tx_kill(part, parent);
		for (unsigned i = 0; i < change->chain_freed; i++)
			tx_kill(part, change->chain[i]);
		root_set(change->tree.inode, change->new_root, change->new_root_level);
		return;
	}
	memmove(pointers + slot, pointers + slot + 1, (count - slot - 1) * sizeof(*pointers));
	pointers[0].key = first_key;
	node_dirty_payload(part, parent, slot * sizeof(*pointers), (count - 1) * sizeof(*pointers));
	inner_set_count(part, parent, count - 1);
}

static void apply_merge(struct tx_part *part, struct tree_change *change)
{
	struct buf *parent = change->path[1];
	struct tree_pointer *pointers = tree_pointers(parent);
	const unsigned count = le16_get(tree_node_of(parent)->count);
	const unsigned slot = tree_slot(tree_node_of(parent), change->key) + (change->merge_keep == change->path[0]);

	tx_kill(part, change->merge_gone);
	node_set_records(part, change->merge_keep, change->records, change->bytes, change->count);
	if (change->collapse) {
		tx_kill(part, parent);
		root_set(change->tree.inode, change->merge_keep->block, 0);
		return;
	}
	memmove(pointers + slot, pointers + slot + 1, (count - slot - 1) * sizeof(*pointers));
	node_dirty_payload(part, parent, slot * sizeof(*pointers), (count - 1) * sizeof(*pointers));
	inner_set_count(part, parent, count - 1);
}

static void fork_clear(struct inode *inode)
{
	memset(inode->disk.fork, 0, inode_fork_capacity(inode));
	inode->disk.fork_count = le16_set(0);
	inode->disk.fork_bytes = 0;
	inode->disk.fork_level = 0;
}

static void apply_emptied(struct tx_part *part, struct tree_change *change)
{
	for (unsigned level = 0; level < change->levels; level++)
		tx_kill(part, change->path[level]);
	fork_clear(change->tree.inode);
}

static void apply_widen(struct tx_part *part, struct tree_change *change)
{
	struct buf *parent = change->path[change->widen_level];

	inner_set_key(part, parent, tree_slot(tree_node_of(parent), change->key) + 1, change->high);
	for (unsigned i = 0; i < change->chain_count; i++)
		inner_set_key(part, change->chain[i], 0, change->high);
}

void tree_apply(struct tx_part *part, struct tree_change *change)
{
	inode_blocks_add(change->tree.inode, change->blocks_delta);
	if (change->widen_level)
		apply_widen(part, change);
	if (change->removed_levels)
		apply_removal(part, change);
	else if (change->emptied)
		apply_emptied(part, change);
	else if (change->split_levels)
		apply_split(part, change);
	else if (change->merge_gone)
		apply_merge(part, change);
	else
		node_set_records(part, change->path[0], change->records, change->bytes, change->count);
}

/* ---- the first leaf ---- */

void tree_apply_root(struct tx_part *part, struct tree_change *change)
{
	struct buf *leaf = change->fresh_buf[0];

	memcpy(node_of(leaf)->payload, change->records, change->bytes);
	node_init(part, leaf, 0, change->count, change->bytes);
	fork_clear(change->tree.inode);
	change->tree.inode->disk.format = FORK_TREE;
	root_set(change->tree.inode, leaf->block, 0);
	inode_blocks_add(change->tree.inode, change->blocks_delta);
}
