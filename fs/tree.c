/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Searching a tree. Going down, the level falls by one from node to node, so that a walk over damaged pointers ends;
 * the key range of a child is cut to its parent's, so that walking from leaf to leaf by `high` always makes progress.
 */
#include "fs/tree.h"

__attribute__((weak)) unsigned tree_node_bytes(void)
{
	return FS_NODE_BYTES;
}

unsigned tree_record_bytes(enum block_type type, const void *record)
{
	if (type == BLOCK_EXTENT_NODE)
		return sizeof(struct disk_extent);
	return dirent_bytes(((const struct disk_dirent *)record)->name_length);
}

unsigned tree_slot(const struct tree_node *node, uint64_t key)
{
	const struct tree_pointer *pointers = (const struct tree_pointer *)node->payload;
	unsigned low = 0, high = le16_get(node->count);

	/* The last one whose key is not above; the first one covers everything in front of it. */
	while (high - low > 1) {
		const unsigned middle = low + (high - low) / 2;
		if (le64_get(pointers[middle].key) <= key)
			low = middle;
		else
			high = middle;
	}
	return low;
}

MAY_WAIT int tree_find_leaf(const struct tree *tree, uint64_t key, struct tree_leaf *out)
{
	struct owner *owner = tree->inode->owner;
	uint64_t block = tree_root(tree->inode);

	out->low = 0;
	out->high = UINT64_MAX;
	for (unsigned level = tree->inode->disk.fork_level;; level--) {
		const int error = buf_get(owner, block, tree->type, tree->inode->ino, &out->buf);
		if (error)
			return error;
		const struct tree_node *node = tree_node_of(out->buf);
		if (UNLIKELY(le16_get(node->level) != level)) {
			buf_put(owner, out->buf);
			return fs_corrupt(owner->fs, block, "level");
		}
		if (!level)
			return 0;
		const struct tree_pointer *pointers = tree_pointers(out->buf);
		const unsigned slot = tree_slot(node, key);
		if (slot)
			out->low = MAX(out->low, le64_get(pointers[slot].key));
		if (slot + 1 < le16_get(node->count))
			out->high = MIN(out->high, le64_get(pointers[slot + 1].key));
		block = le64_get(pointers[slot].child);
		buf_put(owner, out->buf);
	}
}
