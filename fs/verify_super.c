/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The superblock's verifier, and the arithmetic of places that all verifiers use. The superblock is the one block that
 * nothing vouches for, so its geometry is checked in an order in which no product or sum can overflow: first the bound
 * of every factor, then the sums. After that, every block number derived from it lies on the device.
 */
#include "fs/mkfs.h"
#include "fs/verify_internal.h"

/* Byte offsets of the device must fit into an int64_t. */
#define FS_BLOCK_COUNT_MAX (1ull << (63 - FS_BLOCK_SHIFT))

bool bytes_zero(const void *data, size_t length)
{
	const uint8_t *bytes = data;

	for (size_t i = 0; i < length; i++)
		if (bytes[i])
			return false;
	return true;
}

uint64_t area_end(const struct fs_super *super)
{
	const uint32_t last = le32_get(super->ag_count) - 1;

	return ag_first_block(super, last) + ag_block_count(super, last);
}

uint32_t area_ag(const struct fs_super *super, uint64_t block)
{
	const uint64_t first = le64_get(super->first_ag_block);

	if (block < first || block >= area_end(super))
		return UINT32_MAX;
	return (uint32_t)((block - first) / le32_get(super->ag_blocks));
}

bool area_holds(const struct fs_super *super, uint64_t block, uint64_t count)
{
	const uint32_t ag = area_ag(super, block);

	if (ag == UINT32_MAX)
		return false;
	const uint64_t ag_block = block - ag_first_block(super, ag);
	return ag_block >= ag_fixed_blocks(super) && count <= ag_block_count(super, ag) - ag_block;
}

static bool place_allowed(const struct fs_super *super, uint64_t place)
{
	if (place >> (FS_INODE_BLOCK_BITS + FS_INODE_SLOT_BITS) >= le32_get(super->ag_count))
		return false;
	return ino_slot(place) < FS_INODES_PER_BLOCK && ino_ag_block(place) >= ag_fixed_blocks(super) &&
		ino_ag_block(place) < ag_block_count(super, ino_ag(place));
}

bool ino_allowed(const struct fs_super *super, uint64_t ino)
{
	return ino == FS_ROOT_INODE || (place_allowed(super, ino) && ino != le64_get(super->root_place));
}

static const char *geometry_check(const struct fs_super *super, uint64_t device_blocks)
{
	const uint64_t block_count = le64_get(super->block_count);
	const uint64_t journal_blocks = le64_get(super->journal_blocks);
	const uint32_t ag_blocks = le32_get(super->ag_blocks);
	const uint32_t last_ag_blocks = le32_get(super->last_ag_blocks);

	if (!block_count || block_count > FS_BLOCK_COUNT_MAX || block_count > device_blocks)
		return "block_count";
	if (le64_get(super->journal_first) != FS_JOURNAL_FIRST_BLOCK)
		return "journal_first";
	if (journal_blocks < FS_JOURNAL_BLOCKS_MIN || journal_blocks > FS_JOURNAL_BLOCKS_MAX)
		return "journal_blocks";
	if (le64_get(super->first_ag_block) != FS_JOURNAL_FIRST_BLOCK + journal_blocks)
		return "first_ag_block";
	if (ag_blocks < FS_AG_BLOCKS_MIN || ag_blocks > FS_AG_BLOCKS_MAX)
		return "ag_blocks";
	if (!le32_get(super->ag_count))
		return "ag_count";
	if (le32_get(super->map_blocks) != div_round_up(ag_blocks, FS_MAP_BITS))
		return "map_blocks";
	if (last_ag_blocks < FS_AG_BLOCKS_LAST_MIN || last_ag_blocks > ag_blocks ||
		last_ag_blocks <= ag_fixed_blocks(super))
		return "last_ag_blocks";
	/* At most 2^32 * 2^20 blocks and the head: no overflow. The last block is the superblock's copy. */
	if (area_end(super) >= block_count)
		return "ag_count";
	return place_allowed(super, le64_get(super->root_place)) ? NULL : "root_place";
}

static bool super_place_allowed(const struct fs_super *super, uint64_t block_number)
{
	if (block_number == FS_SUPER_BLOCK || block_number == le64_get(super->block_count) - 1)
		return true;
	const uint32_t ag = area_ag(super, block_number);
	return ag != UINT32_MAX && ag_has_super_copy(ag) && block_number == ag_first_block(super, ag) + FS_AG_SUPER_COPY;
}

static bool label_padded(const struct fs_super *super)
{
	const size_t length = strnlen((const char *)super->label, FS_LABEL_BYTES);

	return bytes_zero(super->label + length, FS_LABEL_BYTES - length);
}

const char *super_check(const struct fs_super *super, uint64_t block_number, uint64_t device_blocks)
{
	if (le64_get(super->magic) != FS_SUPER_MAGIC)
		return "magic";
	if (le32_get(super->version) != FS_FORMAT_VERSION)
		return "version";
	if (le32_get(super->block_size) != FS_BLOCK_SIZE)
		return "block_size";
	if (le32_get(super->inode_size) != FS_INODE_SIZE)
		return "inode_size";
	const char *failed = geometry_check(super, device_blocks);
	if (failed)
		return failed;
	if (!super_place_allowed(super, block_number))
		return "header.block";
	if (!label_padded(super))
		return "label";
	if (le32_get(super->reserved0) || !bytes_zero(super->reserved, sizeof(super->reserved)))
		return "reserved";
	return NULL;
}
