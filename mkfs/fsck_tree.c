/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trees: one walk for both kinds, from left to right along a path of at most FS_TREE_LEVEL_MAX + 1 nodes, and what the
 * leaves of an extent tree hold. A node is claimed before it is read, and its level is one below its parent's, so a
 * walk ends whatever the pointers say.
 */
#include "mkfs/fsck_internal.h"

/* A node on the path, and the keys that its parent leaves to it. */
struct step {
	const struct tree_node *node;
	uint64_t block, low, high;
	unsigned next;                  /* child to visit */
};

static const struct tree_pointer *pointer_at(const struct tree_node *node, unsigned i)
{
	return (const struct tree_pointer *)node->payload + i;
}

static void inner_keys(struct fsck *fsck, const struct step *step)
{
	unsigned count = le16_get(step->node->count);
	for (unsigned i = 0; i < count; i++) {
		uint64_t key = le64_get(pointer_at(step->node, i)->key);
		bool ordered = !i || key > le64_get(pointer_at(step->node, i - 1)->key);
		if (!ordered || key < step->low || key >= step->high || (!i && !step->low && key)) {
			fsck_find(fsck,
				"block %" PRIu64 " (tree node): key %u (%#" PRIx64
				") is out of order or outside of its parent's range",
				step->block, i, key);
			return;
		}
	}
}

/* Whether count and bytes describe records that fit into the node. Records of directories have no fixed size. */
static bool node_counts(
	struct fsck *fsck, const struct fsck_walk *walk, const struct step *step, unsigned level, bool root)
{
	const struct tree_node *node = step->node;
	unsigned count = le16_get(node->count), bytes = le16_get(node->bytes);
	size_t size = level                       ? sizeof(struct tree_pointer)
		: walk->type == BLOCK_EXTENT_NODE ? sizeof(struct disk_extent)
						  : 0;
	const char *field = NULL;
	if (le16_get(node->level) != level)
		field = "level";
	else if (!count && !(root && !level))
		field = "count";
	else if (bytes > FS_NODE_BYTES || (size && bytes != count * size))
		field = "bytes";
	if (field)
		fsck_find(fsck, "block %" PRIu64 " (tree node of inode %" PRIu64 "): wrong %s", step->block, walk->ino,
			field);
	if (le16_get(node->reserved0) || le64_get(node->reserved1))
		fsck_find(fsck, "block %" PRIu64 " (tree node of inode %" PRIu64 "): reserved fields are not zero",
			step->block, walk->ino);
	return !field;
}

/* Claims, reads and checks the node at step->block; false when there is nothing to go on with. */
static bool step_enter(struct fsck *fsck, struct fsck_walk *walk, struct step *step, unsigned level, bool root)
{
	step->next = 0;
	if (!fsck_claim(fsck, step->block, 1, walk->type, walk->ino))
		return false;
	walk->nodes++;
	step->node = fsck_read_block(fsck, step->block, fsck->node[level], walk->type, walk->ino);
	if (!step->node || !node_counts(fsck, walk, step, level, root))
		return false;
	if (level) {
		inner_keys(fsck, step);
		return true;
	}
	const struct fsck_leaf leaf = {
		.payload = step->node->payload,
		.count = le16_get(step->node->count),
		.bytes = le16_get(step->node->bytes),
		.low = step->low,
		.high = step->high,
	};
	walk->leaf(fsck, &leaf, walk->arg);
	return false;
}

void fsck_tree_walk(struct fsck *fsck, struct fsck_walk *walk, uint64_t root, unsigned level)
{
	struct step path[FS_TREE_LEVEL_MAX + 1];
	walk->nodes = 0;
	if (level > FS_TREE_LEVEL_MAX)
		return;
	path[level] = (struct step){.block = root, .low = 0, .high = UINT64_MAX};
	const unsigned top = level;
	if (!step_enter(fsck, walk, &path[top], level, true))
		return;
	while (!fsck->error) {
		struct step *step = &path[level];
		unsigned count = le16_get(step->node->count), i = step->next++;
		if (i == count) {
			if (level++ == top)
				return;
			continue;
		}
		struct step *child = &path[level - 1];
		*child = (struct step){.block = le64_get(pointer_at(step->node, i)->child)};
		child->low = le64_get(pointer_at(step->node, i)->key);
		child->high = i + 1 < count ? le64_get(pointer_at(step->node, i + 1)->key) : step->high;
		if (step_enter(fsck, walk, child, level - 1, false))
			level--;
	}
}

/* ---- extents ---- */
struct extents {
	uint64_t ino;
	uint64_t next;                  /* first logical block that the next extent may have */
	uint64_t blocks;                /* of data, so far */
};

static void extent_check(struct fsck *fsck, struct extents *extents, const struct disk_extent *extent, uint64_t low,
	uint64_t high)
{
	uint64_t logical = le64_get(extent->logical), physical = le64_get(extent->physical);
	uint32_t length = le32_get(extent->length), flags = le32_get(extent->flags);
	const uint64_t limit = div_round_up(FS_FILE_SIZE_MAX, FS_BLOCK_SIZE);
	const char *field = NULL;
	if (flags & ~(uint32_t)EXTENT_UNWRITTEN)
		field = "unknown flags";
	else if (!length)
		field = "no length";
	else if (logical >= limit || length > limit - logical)
		field = "a place past the largest file";
	else if (logical < extents->next)
		field = "overlap, or wrong order";
	else if (logical < low || logical >= high)
		field = "a key outside of its parent's range";
	if (field)
		fsck_find(fsck, "inode %" PRIu64 ": extent at block %" PRIu64 " (length %" PRIu32 "): %s", extents->ino,
			logical, length, field);
	if (!length)
		return;
	fsck_claim(fsck, physical, length, FSCK_DATA, extents->ino);
	extents->blocks += length;
	if (logical < limit)
		extents->next = MAX(extents->next, logical + length);
}

static void extents_leaf(struct fsck *fsck, const struct fsck_leaf *leaf, void *arg)
{
	const struct disk_extent *extent = (const struct disk_extent *)leaf->payload;
	for (unsigned i = 0; i < leaf->count && !fsck->error; i++)
		extent_check(fsck, arg, &extent[i], leaf->low, leaf->high);
}

uint64_t fsck_extents(struct fsck *fsck, const struct disk_inode *inode, uint64_t ino)
{
	struct extents extents = {.ino = ino};
	if (inode->format == FORK_EXTENTS) {
		const struct fsck_leaf leaf = {
			.payload = inode->fork, .count = le16_get(inode->fork_count), .high = UINT64_MAX};
		extents_leaf(fsck, &leaf, &extents);
	}
	if (inode->format != FORK_TREE)
		return extents.blocks;
	struct fsck_walk walk = {.ino = ino, .type = BLOCK_EXTENT_NODE, .leaf = extents_leaf, .arg = &extents};
	fsck_tree_walk(fsck, &walk, le64_get(((const struct fork_tree *)inode->fork)->root), inode->fork_level);
	return extents.blocks + walk.nodes;
}
