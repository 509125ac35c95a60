/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Xattrs: records that break a rule, repeat a name or have lost a value block are taken out where they stand; a chain
 * ends before the first block of it that cannot be read.
 */
#include <stdlib.h>

#include "mkfs/repair_internal.h"

enum { CHAIN_MAX = 64 };

struct xattrs {
	uint64_t ino, blocks;
	struct { uint8_t namespace, length; char name[FS_NAME_MAX]; } *seen;
	size_t count, capacity;
};

static bool name_repeats(struct repair *repair, struct xattrs *xattrs, const struct disk_xattr *record)
{
	for (size_t i = 0; i < xattrs->count; i++)
		if (xattrs->seen[i].namespace == record->namespace && xattrs->seen[i].length == record->name_length &&
			!memcmp(xattrs->seen[i].name, record->name, record->name_length))
			return true;
	xattrs->seen = repair_grow(repair, xattrs->seen, &xattrs->capacity, xattrs->count + 1, sizeof(*xattrs->seen));
	if (repair->fsck.error)
		return false;
	xattrs->seen[xattrs->count].namespace = record->namespace;
	xattrs->seen[xattrs->count].length = record->name_length;
	memcpy(xattrs->seen[xattrs->count++].name, record->name, record->name_length);
	return false;
}

static bool value_block_good(struct repair *repair, const struct xattrs *xattrs, uint64_t place, uint32_t index, uint32_t bytes)
{
	bool is_free = false;
	if (!repair_placeable(repair, place, 1) || !repair_run(repair, place, 1, &is_free) || !is_free)
		return false;
	const struct xattr_value_block *value =
		repair_read(repair, place, repair->fsck.node[0], BLOCK_XATTR_VALUE, xattrs->ino);
	return value && le32_get(value->index) == index && le32_get(value->bytes) == bytes && !le64_get(value->reserved0);
}

/* The value blocks of a record, all good and then taken; or none. */
static bool value_claim(struct repair *repair, struct xattrs *xattrs, const struct disk_xattr *record)
{
	const le64_t *block = (const le64_t *)(record->name + align_up(record->name_length, 8));
	const uint32_t length = le32_get(record->value_length);
	const uint32_t count = (uint32_t)div_round_up(length, FS_XATTR_VALUE_BLOCK_BYTES);
	for (uint32_t i = 0; i < count; i++)
		if (!value_block_good(repair, xattrs, le64_get(block[i]), i,
			MIN(length - i * FS_XATTR_VALUE_BLOCK_BYTES, (uint32_t)FS_XATTR_VALUE_BLOCK_BYTES)))
			return false;
	for (uint32_t i = 0; i < count; i++) {
		if (!repair_claim(repair, le64_get(block[i]))) { /* it names one block twice */
			repair_release(repair, &(struct repair_blocks){.block = (uint64_t *)block, .count = i});
			return false;
		}
	}
	xattrs->blocks += count;
	return true;
}

/* Copies the records that may stay to @to; returns their bytes and number. */
static size_t records_keep(struct repair *repair, struct xattrs *xattrs, const uint8_t *from, size_t length, uint8_t *to,
	unsigned *out_count)
{
	size_t kept = 0;
	*out_count = 0;
	for (size_t at = 0, size; at < length && !repair->fsck.error; at += size) {
		const struct disk_xattr *record = (const struct disk_xattr *)(from + at);
		size = fsck_xattr_bytes(record, length - at);
		if (!size) {
			repair_loss(repair, "inode %" PRIu64 ": malformed xattrs dropped", xattrs->ino);
			break;
		}
		if (name_repeats(repair, xattrs, record) ||
			(record->flags & XATTR_EXTERNAL && !value_claim(repair, xattrs, record))) {
			if (!repair->fsck.error)
				repair_loss(repair, "inode %" PRIu64 ": an xattr dropped: its name repeats, or its value is lost",
					xattrs->ino);
			continue;
		}
		memcpy(to + kept, record, size);
		kept += size;
		++*out_count;
	}
	return kept;
}

static void fork_mend(struct repair *repair, struct xattrs *xattrs)
{
	uint8_t kept[FS_FORK_BYTES];
	unsigned count;
	const struct disk_inode *inode = repair_inode_read(repair, xattrs->ino);
	if (!inode || !inode->xattr_bytes)
		return;
	const size_t before = inode->xattr_bytes;
	const size_t after =
		records_keep(repair, xattrs, inode->fork + FS_FORK_BYTES - before, before, kept, &count);
	struct disk_inode *changed = after == before || repair->fsck.error ? NULL : repair_inode_edit(repair, xattrs->ino);
	if (!changed)
		return;
	changed->xattr_bytes = (uint8_t)after;
	memcpy(changed->fork + FS_FORK_BYTES - after, kept, after);
}

/* False: it is no xattr block of the inode, or somebody else's. */
static bool chain_block(struct repair *repair, struct xattrs *xattrs, uint64_t place, uint64_t *out_next)
{
	bool is_free = false;
	uint8_t *const kept = repair->fsck.node[1]; /* no tree is walked meanwhile */
	unsigned count;
	if (!repair_placeable(repair, place, 1) || !repair_run(repair, place, 1, &is_free) || !is_free)
		return false;
	const struct xattr_block *block = repair_read(repair, place, repair->fsck.xattr, BLOCK_XATTR, xattrs->ino);
	if (!block)
		return false;
	repair_claim(repair, place);
	xattrs->blocks++;
	*out_next = le64_get(block->next);
	const size_t before = MIN(le16_get(block->bytes), (uint16_t)sizeof(block->records));
	const size_t after = records_keep(repair, xattrs, block->records, before, kept, &count);
	if (repair->fsck.error || (after == le16_get(block->bytes) && count == le16_get(block->count) && !le32_get(block->reserved0)))
		return true;
	struct xattr_block *changed = repair_edit(repair, place);
	if (!changed)
		return true;
	changed->bytes = le16_set((uint16_t)after);
	changed->count = le16_set((uint16_t)count);
	changed->reserved0 = le32_set(0);
	memcpy(changed->records, kept, after);
	return true;
}

/* The chain ends behind @last (0: with the inode). */
static void chain_cut(struct repair *repair, const struct xattrs *xattrs, uint64_t last)
{
	repair_loss(repair, "inode %" PRIu64 ": the rest of its xattrs is lost", xattrs->ino);
	struct xattr_block *block = last ? repair_edit(repair, last) : NULL;
	struct disk_inode *inode = last ? NULL : repair_inode_edit(repair, xattrs->ino);
	if (block)
		block->next = le64_set(0);
	if (inode)
		inode->xattr_block = le64_set(0);
}

uint64_t repair_xattrs(struct repair *repair, uint64_t ino)
{
	struct xattrs xattrs = {.ino = ino};
	fork_mend(repair, &xattrs);
	const struct disk_inode *inode = repair_inode_read(repair, ino);
	uint64_t place = inode ? le64_get(inode->xattr_block) : 0, last = 0, next = 0;
	for (unsigned i = 0; place && !repair->fsck.error; i++, last = place, place = next) {
		if (i < CHAIN_MAX && chain_block(repair, &xattrs, place, &next))
			continue;
		if (!repair->fsck.error)
			chain_cut(repair, &xattrs, last);
		break;
	}
	free(xattrs.seen);
	return xattrs.blocks;
}
