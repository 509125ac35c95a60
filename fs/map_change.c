/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing extent maps: prepare reads the list of extents that the range belongs to, decides how far the change
 * reaches, names the runs that become free, and builds the new list; apply puts it into the fork or the leaf.
 */
#include "fs/map.h"

/* ---- how far a change reaches ---- */

/* True when none of the list's extents overlaps [start, end). */
static bool list_is_hole(const struct map_list *list, uint64_t start, uint64_t end)
{
	for (unsigned i = 0; i < list->count; i++)
		if (le64_get(list->extents[i].logical) < end && disk_extent_end(&list->extents[i]) > start)
			return false;
	return true;
}

/* Cuts the change at the end of its leaf; but blocks for a hole may reach into the next leaf's range, up to its first
 * extent: then this leaf's range is widened. */
MAY_WAIT static int change_clip(struct map_change *change, const struct map_list *list, uint64_t *end)
{
	const uint64_t high = list->leaf.high;

	if (*end <= high)
		return 0;
	if (!change->physical || !list_is_hole(list, change->logical, high)) {
		*end = high;
		return 0;
	}
	struct map_list next;
	const int error = map_list_get(change->inode, high, &next);
	if (error)
		return error;
	const uint64_t first = next.count ? le64_get(next.extents[0].logical) : 0;
	const uint64_t block = next.leaf.buf->block;
	map_list_put(change->inode, &next);
	if (first < high)
		return fs_corrupt(change->inode->owner->fs, block, "extent.logical");
	*end = MIN(*end, first);
	change->tree_change.high = *end > high ? *end : 0;
	return 0;
}

/* ---- what becomes free ---- */

struct freed {
	struct run run[MAP_FREE_RUNS_MAX];
	unsigned count;
};

/* False: no room for one more run. */
static bool freed_add(struct freed *freed, uint64_t block, uint32_t count)
{
	struct run *last = freed->count ? &freed->run[freed->count - 1] : NULL;

	if (last && last->block + last->count == block && count <= UINT32_MAX - last->count) {
		last->count += count;
		return true;
	}
	if (freed->count == MAP_FREE_RUNS_MAX)
		return false;
	freed->run[freed->count++] = (struct run){.block = block, .count = count};
	return true;
}

/* Collects the old blocks of [change->logical, *end), stopping early when they are too many runs, and counts blocks. */
static void change_collect(struct map_change *change, const struct map_list *list, uint64_t *end, struct freed *freed)
{
	uint64_t old_blocks = 0;

	for (unsigned i = 0; i < list->count; i++) {
		const struct disk_extent *extent = &list->extents[i];
		const uint64_t logical = le64_get(extent->logical);
		const uint64_t from = MAX(logical, change->logical), to = MIN(disk_extent_end(extent), *end);
		if (from >= to)
			continue;
		const uint64_t block = le64_get(extent->physical) + (from - logical);
		const bool same = change->physical && change->physical + (from - change->logical) == block;
		if (!same && !change->keep_old && !freed_add(freed, block, (uint32_t)(to - from))) {
			*end = from;
			break;
		}
		old_blocks += to - from;
	}
	change->length = *end - change->logical;
	change->blocks_delta = (int64_t)(change->physical ? change->length : 0) - (int64_t)old_blocks;
}

/* ---- the new list ---- */

static void list_append(struct map_change *change, struct disk_extent extent)
{
	struct disk_extent *last = change->count ? &change->records[change->count - 1] : NULL;

	if (last && disk_extent_end(last) == le64_get(extent.logical) &&
		le32_get(last->flags) == le32_get(extent.flags) &&
		le64_get(last->physical) + le32_get(last->length) == le64_get(extent.physical) &&
		le32_get(extent.length) <= UINT32_MAX - le32_get(last->length))
		last->length = le32_set(le32_get(last->length) + le32_get(extent.length));
	else
		change->records[change->count++] = extent;
}

/* The part of @extent that lies in [from, to), if any. */
static void list_append_part(struct map_change *change, const struct disk_extent *extent, uint64_t from, uint64_t to)
{
	const uint64_t logical = le64_get(extent->logical);
	const uint64_t start = MAX(from, logical), end = MIN(to, disk_extent_end(extent));

	if (start >= end)
		return;
	list_append(change, (struct disk_extent){
		.logical = le64_set(start),
		.physical = le64_set(le64_get(extent->physical) + (start - logical)),
		.length = le32_set((uint32_t)(end - start)),
		.flags = extent->flags,
	});
}

static void list_build(struct map_change *change, const struct map_list *list)
{
	const uint64_t end = change->logical + change->length;
	unsigned i = 0;

	for (; i < list->count && le64_get(list->extents[i].logical) < change->logical; i++)
		list_append_part(change, &list->extents[i], 0, change->logical);
	if (change->physical)
		list_append(change, (struct disk_extent){
			.logical = le64_set(change->logical),
			.physical = le64_set(change->physical),
			.length = le32_set((uint32_t)change->length),
			.flags = le32_set(change->unwritten ? EXTENT_UNWRITTEN : 0),
		});
	/* The last one in front may also reach over the end of the change. */
	for (i -= i > 0; i < list->count; i++)
		list_append_part(change, &list->extents[i], end, UINT64_MAX);
}

/* ---- prepare and apply ---- */

MAY_WAIT static int plan_put(struct tx_part *part, struct map_change *change)
{
	const struct inode *inode = change->inode;
	struct tree_change *tree = &change->tree_change;

	tree->key = change->logical;
	tree->records = (const uint8_t *)change->records;
	tree->count = change->count;
	tree->bytes = change->count * (unsigned)sizeof(struct disk_extent);
	if (inode->disk.format == FORK_TREE) {
		change->plan = MAP_PLAN_TREE;
		return tree_plan(part, tree);
	}
	change->plan = tree->bytes <= inode_fork_capacity(inode) ? MAP_PLAN_INLINE : MAP_PLAN_ROOT;
	return change->plan == MAP_PLAN_INLINE ? 0 : tree_plan_root(part, tree);
}

/* What depends on the old list; it is not looked at afterwards. */
MAY_WAIT static int plan_list(struct tx_part *part, struct map_change *change, const struct map_list *list,
	struct freed *freed)
{
	uint64_t end = change->length > UINT64_MAX - change->logical ? UINT64_MAX : change->logical + change->length;
	const int error = change_clip(change, list, &end);

	if (error)
		return error;
	change_collect(change, list, &end, freed);
	change->records = tx_scratch(part, (list->count + 2) * sizeof(struct disk_extent));
	if (!change->records)
		return -ENOMEM;
	list_build(change, list);
	return 0;
}

MAY_WAIT static int change_prepare(struct tx_part *part, struct change *base)
{
	struct map_change *change = CONTAINER_OF(base, struct map_change, change);
	struct freed freed = {0};
	struct map_list list;

	assert(change->length && (!change->physical || change->length <= UINT32_MAX));
	int error = map_list_get(change->inode, change->logical, &list);
	if (error)
		return error;
	error = plan_list(part, change, &list, &freed);
	map_list_put(change->inode, &list);
	for (unsigned i = 0; i < freed.count && !error; i++)
		error = tx_free(part, freed.run[i], RUN_DATA);
	return error ? error : plan_put(part, change);
}

static void fork_put(struct map_change *change)
{
	struct disk_inode *disk = &change->inode->disk;

	memset(disk->fork, 0, inode_fork_capacity(change->inode));
	memcpy(disk->fork, change->records, change->count * sizeof(struct disk_extent));
	disk->format = FORK_EXTENTS;
	disk->fork_bytes = 0;
	disk->fork_count = le16_set((uint16_t)change->count);
}

static void change_apply(struct tx_part *part, struct change *base)
{
	struct map_change *change = CONTAINER_OF(base, struct map_change, change);

	inode_blocks_add(change->inode, change->blocks_delta);
	switch (change->plan) {
	case MAP_PLAN_INLINE:
		fork_put(change);
		return;
	case MAP_PLAN_ROOT:
		tree_apply_root(part, &change->tree_change);
		return;
	case MAP_PLAN_TREE:
		tree_apply(part, &change->tree_change);
		if (change->tree_change.emptied)
			change->inode->disk.format = FORK_EXTENTS;
		return;
	}
}

void map_change_init(struct map_change *change, struct inode *inode, uint64_t logical, uint64_t physical,
	uint64_t length, bool unwritten)
{
	*change = (struct map_change){
		.change = {.prepare = change_prepare, .apply = change_apply},
		.inode = inode,
		.logical = logical,
		.physical = physical,
		.length = length,
		.unwritten = unwritten,
		.tree_change = {.tree = {.inode = inode, .type = BLOCK_EXTENT_NODE}},
	};
}
