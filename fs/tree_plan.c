/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The prepare half of a tree change: which nodes will be written, made and freed. What is found here holds until apply,
 * since the inode is locked exclusively. Slots are not remembered: apply finds them again by key, so that a change that
 * was planned before it (after) may shift them.
 *
 *   splitting   levels 0 .. split_levels-1 of the path get a right half each; level split_levels takes one pointer more
 *               in place, or is a new root.
 *   removing    levels 0 .. removed_levels-1 of the path are freed; level removed_levels loses one pointer. If that was
 * its
 *               first, the next child inherits the key range, and the first keys down that child's left edge follow.
 *   collapsing  a root that is left with one child is freed, and so on down.
 *   emptied     the path was all there was: every node of it is freed.
 *   merging     the leaf and its neighbour become one: the right one of the two is freed, and the parent loses its pointer.
 *   widening    the separator at the leaf's upper end moves up, and the first keys down the left edge behind it follow.
 */
#include "fs/tree.h"

/* Pins a node and checks its level. */
MAY_WAIT static int node_pin(struct tx_part *part, const struct tree_change *change, uint64_t block, unsigned level,
	struct buf **out)
{
	const int error = tx_pin(part, block, change->tree.type, change->tree.inode->ino, out);

	if (error)
		return error;
	if (UNLIKELY(le16_get(tree_node_of(*out)->level) != level))
		return fs_corrupt(part->owner->fs, block, "level");
	return 0;
}

MAY_WAIT static int path_pin(struct tx_part *part, struct tree_change *change)
{
	uint64_t block = tree_root(change->tree.inode);
	unsigned level = change->tree.inode->disk.fork_level;

	assert(level <= FS_TREE_LEVEL_MAX);
	change->levels = level + 1;
	for (;; level--) {
		const int error = node_pin(part, change, block, level, &change->path[level]);
		if (error || !level)
			return error;
		const unsigned slot = tree_slot(tree_node_of(change->path[level]), change->key);
		block = le64_get(tree_pointers(change->path[level])[slot].child);
	}
}

static int node_free(struct tx_part *part, struct tree_change *change, const struct buf *buf)
{
	change->blocks_delta--;
	return tx_free(part, (struct run){.block = buf->block, .count = 1}, RUN_METADATA);
}

/* Allocates and pins change->fresh_count nodes near @goal. */
MAY_WAIT static int fresh_pin(struct tx_part *part, struct tree_change *change, uint64_t goal)
{
	unsigned got = 0;

	while (got < change->fresh_count) {
		struct run run;
		const int error = tx_alloc(part, goal, change->fresh_count - got, 1, &run);
		if (error)
			return error;
		assert(run.count && run.count <= change->fresh_count - got);
		for (unsigned i = 0; i < run.count; i++)
			change->fresh[got++] = run.block + i;
		goal = run.block + run.count;
	}
	for (unsigned i = 0; i < change->fresh_count; i++) {
		const int error = tx_pin_new(part, change->fresh[i], change->tree.type, change->tree.inode->ino,
			&change->fresh_buf[i]);
		if (error)
			return error;
	}
	change->blocks_delta += (int)change->fresh_count;
	return 0;
}

/* ---- splitting ---- */

/* True when the leaf's old records all stay and new ones come behind them, as when a file is written from front to end.
 * */
static bool leaf_appends(const struct tree_change *change)
{
	const struct tree_node *leaf = tree_node_of(change->path[0]);
	const unsigned old_bytes = le16_get(leaf->bytes);

	return change->tree.type == BLOCK_EXTENT_NODE && old_bytes < change->bytes &&
		!memcmp(leaf->payload, change->records, old_bytes);
}

/* Where the leaf's records part: as many as fit stay when appending, else half the bytes; both halves fit. */
static void leaf_choose_split(struct tree_change *change)
{
	const unsigned limit = tree_node_bytes();
	const unsigned wanted = change->append ? limit : change->bytes / 2;
	unsigned at = 0, count = 0;

	for (;;) {
		const unsigned next = at + tree_record_bytes(change->tree.type, change->records + at);
		const bool rest_fits = at && change->bytes - at <= limit;
		if (next > limit || (rest_fits && next > wanted))
			break;
		at = next;
		count++;
	}
	assert(at && at < change->bytes && change->bytes - at <= limit);
	change->split_bytes = at;
	change->split_count = count;
}

/* Pointers that an inner node of the path has when this change is applied. */
static unsigned inner_count(const struct tree_change *change, unsigned level)
{
	const struct tree_change *after = change->after;
	const struct buf *buf = change->path[level];
	const bool loses_one = after && after->removed_levels == level && after->path[level] == buf;

	return le16_get(tree_node_of(buf)->count) - loses_one;
}

MAY_WAIT static int plan_split(struct tx_part *part, struct tree_change *change)
{
	const unsigned pointers_max = tree_node_bytes() / sizeof(struct tree_pointer);
	unsigned level = 1;

	change->append = leaf_appends(change);
	leaf_choose_split(change);
	while (level < change->levels && inner_count(change, level) + 1 > pointers_max)
		level++;
	change->split_levels = level;
	change->grow = level == change->levels;
	if (change->grow && level > FS_TREE_LEVEL_MAX)
		return -EFBIG;
	change->fresh_count = level + change->grow;
	return fresh_pin(part, change, change->path[0]->block + 1);
}

/* ---- removing ---- */

/* The nodes under @block, at @level and down its left edge, whose first keys change or that are freed by the collapse.
 * */
MAY_WAIT static int chain_pin(struct tx_part *part, struct tree_change *change, uint64_t block, unsigned level,
	bool fix)
{
	bool collapsing = change->collapse;

	change->new_root = block;
	change->new_root_level = level;
	for (; level >= 1 && (fix || collapsing); level--) {
		struct buf *buf;
		int error = node_pin(part, change, block, level, &buf);
		if (error)
			return error;
		block = le64_get(tree_pointers(buf)[0].child);
		collapsing = collapsing && le16_get(tree_node_of(buf)->count) == 1;
		if (!fix && !collapsing)
			break;
		change->chain[change->chain_count++] = buf;
		if (!collapsing)
			continue;
		error = node_free(part, change, buf);
		if (error)
			return error;
		change->chain_freed++;
		change->new_root = block;
		change->new_root_level = level - 1;
	}
	return 0;
}

/* No node of the path has another child: the tree goes. */
static int plan_emptied(struct tx_part *part, struct tree_change *change)
{
	change->emptied = true;
	for (unsigned level = 0; level < change->levels; level++) {
		const int error = node_free(part, change, change->path[level]);
		if (error)
			return error;
	}
	return 0;
}

MAY_WAIT static int plan_removal(struct tx_part *part, struct tree_change *change)
{
	unsigned level = 1;

	while (level < change->levels && le16_get(tree_node_of(change->path[level])->count) == 1)
		level++;
	if (level == change->levels)
		return plan_emptied(part, change);
	change->removed_levels = level;
	const bool root = level == change->levels - 1;
	change->collapse = root && !change->keep_root && le16_get(tree_node_of(change->path[level])->count) == 2;
	for (unsigned i = 0; i < level + change->collapse; i++) {
		const int error = node_free(part, change, change->path[i]);
		if (error)
			return error;
	}
	const unsigned slot = tree_slot(tree_node_of(change->path[level]), change->key);
	const struct tree_pointer *pointers = tree_pointers(change->path[level]);
	return chain_pin(part, change, le64_get(pointers[slot ? 0 : 1].child), level - 1, !slot);
}

/* ---- widening ---- */

/* The lowest level above @from where the path has a right neighbour; levels: there is none. */
static unsigned neighbour_level(const struct tree_change *change, unsigned from)
{
	for (unsigned level = from; level < change->levels; level++) {
		const struct tree_node *node = tree_node_of(change->path[level]);
		if (tree_slot(node, change->key) + 1 < le16_get(node->count))
			return level;
	}
	return change->levels;
}

/* The key at the upper end of the path's child, in the node at a level that neighbour_level found. */
static uint64_t separator_key(const struct tree_change *change, unsigned level)
{
	struct buf *buf = change->path[level];

	return le64_get(tree_pointers(buf)[tree_slot(tree_node_of(buf), change->key) + 1].key);
}

MAY_WAIT static int plan_widen(struct tx_part *part, struct tree_change *change)
{
	const unsigned level = neighbour_level(change, 1);

	if (level == change->levels)
		return 0;
	const struct tree_pointer *pointers = tree_pointers(change->path[level]);
	const unsigned next = tree_slot(tree_node_of(change->path[level]), change->key) + 1;
	if (change->high <= le64_get(pointers[next].key))
		return 0;
	change->widen_level = level;
	/* The neighbour keeps at least one record behind @high, or the tree is damaged. */
	uint64_t end = UINT64_MAX;
	const unsigned above = neighbour_level(change, level + 1);
	if (next + 1 < le16_get(tree_node_of(change->path[level])->count))
		end = le64_get(pointers[next + 1].key);
	else if (above < change->levels)
		end = separator_key(change, above);
	if (change->high >= end)
		return fs_corrupt(part->owner->fs, change->path[level]->block, "pointer.key");
	int error = chain_pin(part, change, le64_get(pointers[next].child), level - 1, true);
	for (unsigned i = 0; !error && i < change->chain_count; i++)
		if (le16_get(tree_node_of(change->chain[i])->count) > 1 &&
		    le64_get(tree_pointers(change->chain[i])[1].key) <= change->high)
			error = fs_corrupt(part->owner->fs, change->chain[i]->block, "pointer.key");
	return error;
}

/* ---- merging ---- */

/* A leaf that has become small, and may be joined with a neighbour: it is one change by itself. Small enough that a tree
 * of which half was removed keeps its leaves, and has room for as much again on a full filesystem. */
static bool merge_wanted(const struct tree_change *change)
{
	const unsigned before = le16_get(tree_node_of(change->path[0])->bytes);

	return !change->keep_root && !change->after && !change->high && change->levels > 1 && change->bytes < before &&
		change->bytes <= tree_node_bytes() / 6 && le16_get(tree_node_of(change->path[1])->count) > 1;
}

/* The records of both, in order; NULL without room, with some left for the other changes of the part. */
static uint8_t *merge_records(struct tx_part *part, const struct tree_change *change, const struct tree_node *other,
	bool other_first)
{
	const unsigned other_bytes = le16_get(other->bytes);
	const unsigned room = TX_SCRATCH_BYTES - FS_NODE_BYTES - FS_DIRENT_MAX;
	uint8_t *records = part->scratch_used + change->bytes + other_bytes <= room ?
		tx_scratch(part, change->bytes + other_bytes) : NULL;

	if (records) {
		memcpy(records + (other_first ? other_bytes : 0), change->records, change->bytes);
		memcpy(records + (other_first ? 0 : change->bytes), other->payload, other_bytes);
	}
	return records;
}

/* No reason to fail the change: there is no room in the transaction, or the neighbour is damaged. The leaf stays small. */
static int merge_excuse(int error)
{
	return error == -E2BIG || error == -EUCLEAN ? 0 : error;
}

MAY_WAIT static int plan_merge(struct tx_part *part, struct tree_change *change)
{
	const struct tree_node *parent = tree_node_of(change->path[1]);
	const unsigned slot = tree_slot(parent, change->key), count = le16_get(parent->count);
	const bool left = slot + 1 == count;
	struct buf *other;
	int error = node_pin(part, change, le64_get(tree_pointers(change->path[1])[left ? slot - 1 : slot + 1].child), 0, &other);

	if (error)
		return merge_excuse(error);
	const struct tree_node *node = tree_node_of(other);
	if (change->bytes + le16_get(node->bytes) > tree_node_bytes() / 2)
		return 0;
	uint8_t *records = merge_records(part, change, node, left);
	struct buf *keep = left ? other : change->path[0], *gone = left ? change->path[0] : other;
	if (!records)
		return 0;
	error = tx_free(part, (struct run){.block = gone->block, .count = 1}, RUN_METADATA);
	if (error)
		return merge_excuse(error);
	change->blocks_delta--;
	change->merge_keep = keep;
	change->merge_gone = gone;
	change->records = records;
	change->bytes += le16_get(node->bytes);
	change->count += le16_get(node->count);
	if (count > 2 || change->levels > 2)
		return 0;
	error = tx_free(part, (struct run){.block = change->path[1]->block, .count = 1}, RUN_METADATA);
	if (error)
		return merge_excuse(error);
	change->blocks_delta--;
	change->collapse = true;
	return 0;
}

MAY_WAIT int tree_plan(struct tx_part *part, struct tree_change *change)
{
	int error = path_pin(part, change);

	if (error)
		return error;
	if (!change->count) {
		assert(!change->high && !change->after);
		return plan_removal(part, change);
	}
	if (change->high)
		error = plan_widen(part, change);
	if (!error && change->bytes > tree_node_bytes())
		error = plan_split(part, change);
	else if (!error && merge_wanted(change))
		error = plan_merge(part, change);
	return error;
}

/* ---- the first leaf ---- */

MAY_WAIT int tree_plan_root(struct tx_part *part, struct tree_change *change)
{
	const struct inode *inode = change->tree.inode;
	const struct fs *fs = part->owner->fs;
	const uint64_t place = ino_place(fs, inode->ino);

	assert(change->bytes <= tree_node_bytes());
	if (inode_fork_capacity(inode) < sizeof(struct fork_tree))
		return -ENOSPC;
	change->fresh_count = 1;
	return fresh_pin(part, change, ag_first_block(&fs->super, ino_ag(place)) + ino_ag_block(place));
}
