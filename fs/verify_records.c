/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Record lists - extents, directory entries, xattrs, tree pointers - and the blocks that are made of them. A list is
 * walked once, from its start; each record is believed only after its length has been found to lie within the list. A
 * good list ends exactly where its owner says, with as many records as its owner says, in strictly ascending order.
 */
#include "fs/verify_internal.h"

#include <dirent.h>

/* No file has a block at or above this. */
static uint64_t logical_end(void)
{
	return div_round_up(FS_FILE_SIZE_MAX, FS_BLOCK_SIZE);
}

const char *extents_check(const struct fs_super *super, const uint8_t *records, unsigned count)
{
	const struct disk_extent *extents = (const struct disk_extent *)records;
	uint64_t free_from = 0;

	for (unsigned i = 0; i < count; i++) {
		const uint64_t logical = le64_get(extents[i].logical);
		const uint32_t length = le32_get(extents[i].length);
		if (logical < free_from || logical >= logical_end())
			return "extent.logical";
		if (!length || length > logical_end() - logical)
			return "extent.length";
		if (!area_holds(super, le64_get(extents[i].physical), length))
			return "extent.physical";
		if (le32_get(extents[i].flags) & ~EXTENT_UNWRITTEN)
			return "extent.flags";
		free_from = logical + length;
	}
	return NULL;
}

static bool dirent_type_allowed(unsigned type)
{
	return type == DT_REG || type == DT_DIR || type == DT_LNK || type == DT_FIFO || type == DT_SOCK || type == DT_CHR ||
		type == DT_BLK;
}

static bool name_allowed(const char *name, unsigned length)
{
	if (memchr(name, '/', length) || memchr(name, 0, length))
		return false;
	return name[0] != '.' || length > 2 || (length == 2 && name[1] != '.');
}

static const char *dirent_check(const struct fs_super *super, const struct disk_dirent *dirent, unsigned room)
{
	if (room < FS_DIRENT_FIXED || !dirent->name_length || dirent_bytes(dirent->name_length) > room)
		return "dirent.name_length";
	const uint64_t key = le64_get(dirent->key);
	if (!(key >> FS_COLLISION_BITS) || key >> 63)
		return "dirent.key";
	const uint64_t ino = le64_get(dirent->ino);
	if (ino == FS_ROOT_INODE || !ino_allowed(super, ino))
		return "dirent.ino";
	if (!dirent_type_allowed(dirent->type))
		return "dirent.type";
	if (!name_allowed(dirent->name, dirent->name_length))
		return "dirent.name";
	const unsigned used = FS_DIRENT_FIXED + dirent->name_length;
	if (!bytes_zero(dirent->name + dirent->name_length, dirent_bytes(dirent->name_length) - used))
		return "dirent.padding";
	return NULL;
}

const char *dirents_check(const struct fs_super *super, const uint8_t *records, unsigned bytes, uint64_t count)
{
	uint64_t seen = 0, last_key = 0;

	for (unsigned at = 0; at < bytes; seen++) {
		const struct disk_dirent *dirent = (const struct disk_dirent *)(records + at);
		const char *failed = dirent_check(super, dirent, bytes - at);
		if (failed)
			return failed;
		if (le64_get(dirent->key) <= last_key)
			return "dirent.key";
		last_key = le64_get(dirent->key);
		at += dirent_bytes(dirent->name_length);
	}
	return seen == count ? NULL : "count";
}

/* @payload: what follows the padded name, @room bytes of it at least. */
static const char *xattr_value_record_check(const struct fs_super *super, const struct disk_xattr *xattr,
	const uint8_t *payload)
{
	const uint32_t length = le32_get(xattr->value_length);

	if (!(xattr->flags & XATTR_EXTERNAL))
		return bytes_zero(payload + length, align_up(length, 8) - length) ? NULL : "xattr.padding";
	const unsigned count = (unsigned)div_round_up(length, FS_XATTR_VALUE_BLOCK_BYTES);
	const le64_t *blocks = (const le64_t *)payload;
	for (unsigned i = 0; i < count; i++)
		if (!area_holds(super, le64_get(blocks[i]), 1))
			return "xattr.block";
	return NULL;
}

static const char *xattr_record_check(const struct fs_super *super, const struct disk_xattr *xattr, unsigned room,
	unsigned *out_bytes)
{
	if (room < FS_XATTR_FIXED)
		return "xattr.name_length";
	const unsigned name_bytes = (unsigned)align_up(xattr->name_length, 8);
	const uint32_t length = le32_get(xattr->value_length);
	if (xattr->namespace < XATTR_USER || xattr->namespace > XATTR_SYSTEM)
		return "xattr.namespace";
	if (!xattr->name_length || name_bytes > room - FS_XATTR_FIXED)
		return "xattr.name_length";
	if (xattr->flags & ~XATTR_EXTERNAL)
		return "xattr.flags";
	if (xattr->reserved0)
		return "xattr.reserved";
	if (length > FS_XATTR_VALUE_MAX)
		return "xattr.value_length";
	const bool external = xattr->flags & XATTR_EXTERNAL;
	if (external != (length > FS_XATTR_INTERNAL_MAX))
		return "xattr.flags";
	const uint64_t value_bytes = external ? div_round_up(length, FS_XATTR_VALUE_BLOCK_BYTES) * 8 : align_up(length, 8);
	if (value_bytes > room - FS_XATTR_FIXED - name_bytes)
		return "xattr.value_length";
	if (memchr(xattr->name, 0, xattr->name_length))
		return "xattr.name";
	if (!bytes_zero(xattr->name + xattr->name_length, name_bytes - xattr->name_length))
		return "xattr.padding";
	*out_bytes = FS_XATTR_FIXED + name_bytes + (unsigned)value_bytes;
	return xattr_value_record_check(super, xattr, (const uint8_t *)xattr->name + name_bytes);
}

const char *xattrs_check(const struct fs_super *super, const uint8_t *records, unsigned bytes, unsigned *out_count)
{
	*out_count = 0;
	for (unsigned at = 0; at < bytes; ++*out_count) {
		unsigned record_bytes = 0;
		const char *failed =
			xattr_record_check(super, (const struct disk_xattr *)(records + at), bytes - at, &record_bytes);
		if (failed)
			return failed;
		at += record_bytes;
	}
	return NULL;
}

/* ---- tree nodes ---- */

static const char *pointers_check(const struct fs_super *super, const struct tree_node *node, uint64_t block_number,
	uint64_t key_end)
{
	const struct tree_pointer *pointers = (const struct tree_pointer *)node->payload;

	for (unsigned i = 0; i < le16_get(node->count); i++) {
		const uint64_t key = le64_get(pointers[i].key);
		const uint64_t child = le64_get(pointers[i].child);
		if (key >= key_end || (i && key <= le64_get(pointers[i - 1].key)))
			return "pointer.key";
		if (child == block_number || !area_holds(super, child, 1))
			return "pointer.child";
	}
	return NULL;
}

/* Level, count and bytes of a node. @record_bytes: size of its records, 0 when they differ. */
static const char *node_check(const struct tree_node *node, unsigned record_bytes)
{
	const unsigned count = le16_get(node->count);
	const unsigned bytes = le16_get(node->bytes);

	if (le16_get(node->level) > FS_TREE_LEVEL_MAX)
		return "level";
	if (bytes > FS_NODE_BYTES)
		return "bytes";
	if (!count && (le16_get(node->level) || bytes))
		return "count";
	if (record_bytes && bytes != count * record_bytes)
		return "count";
	return le16_get(node->reserved0) || le64_get(node->reserved1) ? "reserved" : NULL;
}

const char *extent_node_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const struct tree_node *node = block;
	const bool leaf = !le16_get(node->level);
	const char *failed = node_check(node, leaf ? sizeof(struct disk_extent) : sizeof(struct tree_pointer));

	if (failed)
		return failed;
	return leaf ? extents_check(super, node->payload, le16_get(node->count)) :
		      pointers_check(super, node, block_number, logical_end());
}

const char *dir_node_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const struct tree_node *node = block;
	const bool leaf = !le16_get(node->level);
	const char *failed = node_check(node, leaf ? 0 : sizeof(struct tree_pointer));

	if (failed)
		return failed;
	return leaf ? dirents_check(super, node->payload, le16_get(node->bytes), le16_get(node->count)) :
		      pointers_check(super, node, block_number, 1ull << 63);
}

/* ---- xattr blocks ---- */

const char *xattr_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const struct xattr_block *xattrs = block;
	const uint64_t next = le64_get(xattrs->next);
	unsigned count;

	if (next && (next == block_number || !area_holds(super, next, 1)))
		return "next";
	if (le16_get(xattrs->bytes) > sizeof(xattrs->records))
		return "bytes";
	if (le32_get(xattrs->reserved0))
		return "reserved";
	const char *failed = xattrs_check(super, xattrs->records, le16_get(xattrs->bytes), &count);
	if (failed)
		return failed;
	return count == le16_get(xattrs->count) ? NULL : "count";
}

const char *xattr_value_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const struct xattr_value_block *value = block;
	const uint32_t bytes = le32_get(value->bytes);

	if (!bytes || bytes > FS_XATTR_VALUE_BLOCK_BYTES)
		return "bytes";
	if (le32_get(value->index) >= div_round_up(FS_XATTR_VALUE_MAX, FS_XATTR_VALUE_BLOCK_BYTES))
		return "index";
	return le64_get(value->reserved0) ? "reserved" : NULL;
}
