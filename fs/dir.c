/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading directories. All names of one hash stand next to each other, told apart by the collision number in the low
 * bits of their keys; they may run over the end of a leaf into the next.
 */
#include "fs/dir.h"

static unsigned record_bytes(const struct disk_dirent *dirent)
{
	return dirent_bytes(dirent->name_length);
}

static bool name_equals(const struct disk_dirent *dirent, struct fs_name name)
{
	return dirent->name_length == name.length && !memcmp(dirent->name, name.bytes, name.length);
}

static void scan_records(struct dir_scan *scan, const uint8_t *records, unsigned bytes)
{
	for (unsigned at = 0; at < bytes && !scan->exists;) {
		const struct disk_dirent *dirent = (const struct disk_dirent *)(records + at);
		const uint64_t key = le64_get(dirent->key);
		at += record_bytes(dirent);
		if (key > scan->last)
			return;
		scan->next += key == scan->next;
		if (key >> FS_COLLISION_BITS != scan->last >> FS_COLLISION_BITS || !name_equals(dirent, scan->name))
			continue;
		scan->exists = true;
		scan->found = (struct dir_found){.ino = le64_get(dirent->ino), .key = key, .type = dirent->type};
	}
}

MAY_WAIT int dir_scan(const struct inode *directory, struct fs_name name, struct dir_scan *scan)
{
	struct owner *owner = directory->owner;
	const struct tree tree = {.inode = (struct inode *)directory, .type = BLOCK_DIR_NODE};
	const uint64_t hash = fs_name_hash(le64_get(owner->fs->super.hash_seed), name.bytes, name.length);

	*scan = (struct dir_scan){.name = name, .next = hash << FS_COLLISION_BITS};
	scan->last = scan->next | ((1u << FS_COLLISION_BITS) - 1);
	if (directory->disk.format != FORK_TREE) {
		scan_records(scan, directory->disk.fork, directory->disk.fork_bytes);
		return 0;
	}
	for (uint64_t key = scan->next; key <= scan->last && !scan->exists;) {
		struct tree_leaf leaf;
		const int error = tree_find_leaf(&tree, key, &leaf);
		if (error)
			return error;
		scan_records(scan, tree_node_of(leaf.buf)->payload, le16_get(tree_node_of(leaf.buf)->bytes));
		buf_put(owner, leaf.buf);
		key = leaf.high;
	}
	return 0;
}

MAY_WAIT int dir_lookup(const struct inode *directory, struct fs_name name, struct dir_found *out)
{
	struct dir_scan scan;
	const int error = dir_scan(directory, name, &scan);

	if (error)
		return error;
	if (!scan.exists)
		return -ENOENT;
	*out = scan.found;
	return 0;
}

/* Copies the whole records behind @cookie that fit. */
static unsigned read_records(const uint8_t *records, unsigned bytes, uint64_t cookie, uint8_t *buffer, unsigned size)
{
	unsigned start = 0;

	while (start < bytes && tree_record_key(records + start) <= cookie)
		start += record_bytes((const struct disk_dirent *)(records + start));
	unsigned end = start;
	while (end < bytes) {
		const unsigned next = end + record_bytes((const struct disk_dirent *)(records + end));
		if (next - start > size)
			break;
		end = next;
	}
	memcpy(buffer, records + start, end - start);
	return end - start;
}

MAY_WAIT int dir_read(const struct inode *directory, uint64_t cookie, uint8_t *buffer, unsigned size,
	unsigned *out_bytes)
{
	const struct tree tree = {.inode = (struct inode *)directory, .type = BLOCK_DIR_NODE};
	struct tree_leaf leaf;

	assert(size >= FS_DIRENT_MAX);
	*out_bytes = 0;
	if (directory->disk.format != FORK_TREE) {
		*out_bytes = read_records(directory->disk.fork, directory->disk.fork_bytes, cookie, buffer, size);
		return 0;
	}
	for (uint64_t key = cookie; key != UINT64_MAX && !*out_bytes; key = leaf.high) {
		const int error = tree_find_leaf(&tree, key, &leaf);
		if (error)
			return error;
		const struct tree_node *node = tree_node_of(leaf.buf);
		*out_bytes = read_records(node->payload, le16_get(node->bytes), cookie, buffer, size);
		buf_put(directory->owner, leaf.buf);
	}
	return 0;
}
