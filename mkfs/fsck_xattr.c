/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extended attributes: the records at the end of the fork, then those of the chain of xattr blocks, with the value
 * blocks of long ones. Names are collected to find duplicates.
 */
#include <stdlib.h>

#include "mkfs/fsck_internal.h"

/* Namespace and name, length first: what makes an attribute unique. Entries stand one after another in a buffer. */
struct xattrs {
	uint64_t ino;
	uint64_t blocks;
	uint8_t *names;
	size_t names_size, names_used;
	uint32_t *place;                /* of each entry in names */
	size_t place_capacity, count;
};

static void *array_grow(struct fsck *fsck, void *array, size_t *capacity, size_t wanted, size_t size)
{
	if (wanted <= *capacity)
		return array;
	size_t more = MAX(2 * *capacity, MAX(wanted, 16));
	void *grown = realloc(array, more * size);
	if (!grown) {
		fsck->error = -ENOMEM;
		return array;
	}
	*capacity = more;
	return grown;
}

static void name_collect(struct fsck *fsck, struct xattrs *xattrs, const struct disk_xattr *record)
{
	size_t bytes = 2 + (size_t)record->name_length;
	xattrs->names = array_grow(fsck, xattrs->names, &xattrs->names_size, xattrs->names_used + bytes, 1);
	xattrs->place =
		array_grow(fsck, xattrs->place, &xattrs->place_capacity, xattrs->count + 1, sizeof(*xattrs->place));
	if (fsck->error || xattrs->names_used > UINT32_MAX - bytes)
		return;
	uint8_t *entry = xattrs->names + xattrs->names_used;
	entry[0] = record->name_length;
	entry[1] = record->namespace;
	memcpy(entry + 2, record->name, record->name_length);
	xattrs->place[xattrs->count++] = (uint32_t)xattrs->names_used;
	xattrs->names_used += bytes;
}

static int name_compare(const void *left, const void *right, void *arg)
{
	const uint8_t *names = arg;
	const uint8_t *a = names + *(const uint32_t *)left, *b = names + *(const uint32_t *)right;
	return a[0] != b[0] ? a[0] - b[0] : memcmp(a, b, 2 + (size_t)a[0]);
}

static void duplicates_find(struct fsck *fsck, struct xattrs *xattrs)
{
	if (xattrs->count > 1)
		qsort_r(xattrs->place, xattrs->count, sizeof(*xattrs->place), name_compare, xattrs->names);
	for (size_t i = 1; i < xattrs->count; i++)
		if (!name_compare(&xattrs->place[i - 1], &xattrs->place[i], xattrs->names)) {
			fsck_find(fsck, "inode %" PRIu64 ": two xattrs of the same name", xattrs->ino);
			return;
		}
}

static void value_block(struct fsck *fsck, struct xattrs *xattrs, uint64_t place, uint32_t index, uint32_t bytes)
{
	if (!fsck_claim(fsck, place, 1, BLOCK_XATTR_VALUE, xattrs->ino))
		return;
	xattrs->blocks++;
	const struct xattr_value_block *value =
		fsck_read_block(fsck, place, fsck->node[0], BLOCK_XATTR_VALUE, xattrs->ino);
	if (!value)
		return;
	if (le32_get(value->index) != index)
		fsck_find(fsck, "block %" PRIu64 " (xattr value block): index is %" PRIu32 ", not %" PRIu32, place,
			le32_get(value->index), index);
	if (le32_get(value->bytes) != bytes)
		fsck_find(fsck, "block %" PRIu64 " (xattr value block): bytes is %" PRIu32 ", not %" PRIu32, place,
			le32_get(value->bytes), bytes);
	if (le64_get(value->reserved0))
		fsck_find(fsck, "block %" PRIu64 " (xattr value block): reserved fields are not zero", place);
}

size_t fsck_xattr_bytes(const struct disk_xattr *record, size_t left)
{
	if (left < FS_XATTR_FIXED)
		return 0;
	uint32_t length = le32_get(record->value_length);
	bool external = record->flags & XATTR_EXTERNAL;
	if (record->namespace < XATTR_USER || record->namespace > XATTR_SYSTEM || !record->name_length ||
		record->reserved0 || record->flags & ~XATTR_EXTERNAL || length > FS_XATTR_VALUE_MAX ||
		external != (length > FS_XATTR_INTERNAL_MAX))
		return 0;
	size_t value = external ? 8 * div_round_up(length, FS_XATTR_VALUE_BLOCK_BYTES) : align_up(length, 8);
	size_t name = align_up(record->name_length, 8), bytes = FS_XATTR_FIXED + name + value;
	if (bytes > left || memchr(record->name, 0, record->name_length) ||
	    !fsck_is_zero(record->name + record->name_length, name - record->name_length) ||
	    (!external && !fsck_is_zero(record->name + name + length, value - length)))
		return 0;
	return bytes;
}

/* Checks the records in a stretch of bytes, which they must fill; returns how many there are. */
static unsigned records_check(struct fsck *fsck, struct xattrs *xattrs, const uint8_t *bytes, size_t length)
{
	unsigned count = 0;
	for (size_t at = 0, size; at < length && !fsck->error; at += size, count++) {
		const struct disk_xattr *record = (const struct disk_xattr *)(bytes + at);
		size = fsck_xattr_bytes(record, length - at);
		if (!size) {
			fsck_find(fsck, "inode %" PRIu64 ": malformed xattr record at byte %zu", xattrs->ino, at);
			return count;
		}
		name_collect(fsck, xattrs, record);
		if (!(record->flags & XATTR_EXTERNAL))
			continue;
		const le64_t *block = (const le64_t *)(record->name + align_up(record->name_length, 8));
		uint32_t left = le32_get(record->value_length);
		for (uint32_t i = 0; left && !fsck->error; i++) {
			uint32_t part = MIN(left, (uint32_t)FS_XATTR_VALUE_BLOCK_BYTES);
			value_block(fsck, xattrs, le64_get(block[i]), i, part);
			left -= part;
		}
	}
	return count;
}

static void chain_check(struct fsck *fsck, struct xattrs *xattrs, uint64_t place)
{
	while (place && !fsck->error) {
		if (!fsck_claim(fsck, place, 1, BLOCK_XATTR, xattrs->ino))
			return;
		xattrs->blocks++;
		const struct xattr_block *block = fsck_read_block(fsck, place, fsck->xattr, BLOCK_XATTR, xattrs->ino);
		if (!block)
			return;
		unsigned bytes = le16_get(block->bytes);
		if (bytes > sizeof(block->records) || le32_get(block->reserved0))
			fsck_find(fsck, "block %" PRIu64 " (xattr block): wrong %s", place,
				le32_get(block->reserved0) ? "reserved0" : "bytes");
		unsigned count = records_check(fsck, xattrs, block->records, MIN(bytes, sizeof(block->records)));
		if (count != le16_get(block->count))
			fsck_find(fsck, "block %" PRIu64 " (xattr block): count is %u, it has %u", place,
				le16_get(block->count), count);
		place = le64_get(block->next);
	}
}

uint64_t fsck_xattrs(struct fsck *fsck, const struct disk_inode *inode, uint64_t ino)
{
	struct xattrs xattrs = {.ino = ino};
	if (!inode->xattr_bytes && !le64_get(inode->xattr_block))
		return 0;
	if (fsck_fork_fits(inode))
		records_check(fsck, &xattrs, inode->fork + FS_FORK_BYTES - inode->xattr_bytes, inode->xattr_bytes);
	chain_check(fsck, &xattrs, le64_get(inode->xattr_block));
	if (!fsck->error)
		duplicates_find(fsck, &xattrs);
	free(xattrs.names);
	free(xattrs.place);
	return xattrs.blocks;
}
