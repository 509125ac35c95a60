/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading extent maps: binary search in the fork's extents or in a leaf. A hole may go on in leaves to the right.
 */
#include "fs/map.h"

MAY_WAIT int map_list_get(const struct inode *inode, uint64_t logical, struct map_list *out)
{
	const struct tree tree = {.inode = (struct inode *)inode, .type = BLOCK_EXTENT_NODE};

	if (inode->disk.format != FORK_TREE) {
		*out = (struct map_list){.leaf = {.high = UINT64_MAX}};
		if (inode->disk.format == FORK_EXTENTS) {
			out->extents = (const struct disk_extent *)inode->disk.fork;
			out->count = le16_get(inode->disk.fork_count);
		}
		return 0;
	}
	const int error = tree_find_leaf(&tree, logical, &out->leaf);
	if (error)
		return error;
	out->extents = (const struct disk_extent *)tree_node_of(out->leaf.buf)->payload;
	out->count = le16_get(tree_node_of(out->leaf.buf)->count);
	return 0;
}

void map_list_put(const struct inode *inode, struct map_list *list)
{
	if (list->leaf.buf)
		buf_put(inode->owner, list->leaf.buf);
	list->leaf.buf = NULL;
}

static struct extent extent_of(const struct disk_extent *extent)
{
	return (struct extent){
		.logical = le64_get(extent->logical),
		.physical = le64_get(extent->physical),
		.length = le32_get(extent->length),
		.unwritten = le32_get(extent->flags) & EXTENT_UNWRITTEN,
	};
}

/* The first extent that ends behind @logical; count: none. */
static unsigned list_find(const struct map_list *list, uint64_t logical)
{
	unsigned low = 0, high = list->count;

	while (low < high) {
		const unsigned middle = low + (high - low) / 2;
		if (disk_extent_end(&list->extents[middle]) <= logical)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

MAY_WAIT int map_lookup(const struct inode *inode, uint64_t logical, uint64_t limit, struct extent *out)
{
	const uint64_t end = limit > UINT64_MAX - logical ? UINT64_MAX : logical + limit;
	uint64_t hole_end = logical;

	if (inode->disk.format == FORK_INLINE)
		return -EINVAL;
	assert(limit);
	*out = (struct extent){.logical = logical};
	while (hole_end < end) {
		struct map_list list;
		const int error = map_list_get(inode, hole_end, &list);
		if (error)
			return error;
		const unsigned i = list_find(&list, logical);
		const bool found = i < list.count;
		const struct extent extent = found ? extent_of(&list.extents[i]) : (struct extent){0};
		hole_end = found ? extent.logical : list.leaf.high;
		map_list_put(inode, &list);
		if (found && extent.logical <= logical) {
			const uint64_t skipped = logical - extent.logical;
			out->physical = extent.physical + skipped;
			out->length = MIN(extent.length - skipped, limit);
			out->unwritten = extent.unwritten;
			return 0;
		}
		if (found)
			break;
	}
	out->length = MIN(hole_end, end) - logical;
	return 0;
}

MAY_WAIT int map_last(const struct inode *inode, struct extent *out)
{
	struct map_list list;
	const int error = map_list_get(inode, UINT64_MAX, &list);

	if (error)
		return error;
	const bool empty = !list.count;
	if (!empty)
		*out = extent_of(&list.extents[list.count - 1]);
	map_list_put(inode, &list);
	return empty ? -ENOENT : 0;
}

MAY_WAIT int map_tail(const struct inode *inode, uint64_t from, uint64_t *out_logical, uint64_t *out_length)
{
	struct map_list list;
	const int error = map_list_get(inode, UINT64_MAX, &list);

	if (error)
		return error;
	const uint64_t end = list.count ? disk_extent_end(&list.extents[list.count - 1]) : 0;
	uint64_t start = end;
	for (unsigned i = list.count; i-- > 0 && list.count - i <= MAP_FREE_RUNS_MAX && start > from;)
		start = MAX(from, le64_get(list.extents[i].logical));
	map_list_put(inode, &list);
	if (end <= from)
		return -ENOENT;
	*out_logical = start;
	*out_length = end - start;
	return 0;
}
