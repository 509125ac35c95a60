/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Allocation groups: header fields, the maps that lead to inode blocks, the counts over these, and the chain of orphan
 * blocks.
 */
#include <stdlib.h>

#include "mkfs/fsck_internal.h"

void fsck_ag_header(struct fsck *fsck, struct fsck_ag *ag, const struct ag_header *header)
{
	ag->free_blocks = le32_get(header->free_blocks);
	ag->inode_blocks = le32_get(header->inode_blocks);
	ag->used_inodes = le32_get(header->used_inodes);
	ag->next_generation = le32_get(header->next_generation);
	ag->orphan_count = le32_get(header->orphan_count);
	ag->orphan_head = le64_get(header->orphan_head);
	ag->block_map_ready = le64_get(header->block_map_ready);
	ag->inode_map_ready = le64_get(header->inode_map_ready);
	ag->inode_free_map_ready = le64_get(header->inode_free_map_ready);
	ag->readable = true;
	uint64_t ready = ag->block_map_ready | ag->inode_map_ready | ag->inode_free_map_ready;
	if (le32_get(header->ag) != ag->number)
		fsck_find(fsck, "AG %" PRIu32 ": ag is %" PRIu32, ag->number, le32_get(header->ag));
	if (le32_get(header->blocks) != ag->blocks)
		fsck_find(fsck, "AG %" PRIu32 ": blocks is %" PRIu32 ", not %" PRIu32, ag->number,
			le32_get(header->blocks), ag->blocks);
	if (!ag->next_generation)
		fsck_find(fsck, "AG %" PRIu32 ": next_generation is 0", ag->number);
	if (ready >> fsck->map_blocks) /* map_blocks is at most 33 */
		fsck_find(fsck, "AG %" PRIu32 ": ready bits past the end of the maps are set", ag->number);
	if (le32_get(header->reserved0) || le64_get(header->refcount_root) ||
	    !fsck_is_zero(header->reserved, sizeof(header->reserved)))
		fsck_find(fsck, "AG %" PRIu32 ": reserved fields are not zero", ag->number);
}

struct fsck_inode_block *fsck_table_append(struct fsck *fsck, struct fsck_ag *ag)
{
	if (ag->table_count == ag->table_capacity) {
		uint32_t capacity = ag->table_capacity ? 2 * ag->table_capacity : 8;
		struct fsck_inode_block *table = realloc(ag->table, capacity * sizeof(*table));
		if (!table) {
			fsck->error = -ENOMEM;
			return NULL;
		}
		ag->table = table;
		ag->table_capacity = capacity;
	}
	return &ag->table[ag->table_count++];
}

/* Visits the inode block that a bit of the inode map stands for. */
static void inode_map_bit(struct fsck *fsck, struct fsck_ag *ag, uint32_t ag_block, bool has_free, bool free_known)
{
	if (ag_block < fsck->fixed_blocks || ag_block >= ag->blocks) {
		fsck_find(fsck, "AG %" PRIu32 ": inode map: bit %" PRIu32 " is no block that can hold inodes",
			ag->number, ag_block);
		return;
	}
	struct fsck_inode_block *entry = fsck_table_append(fsck, ag);
	if (!entry)
		return;
	*entry = (struct fsck_inode_block){.ag_block = ag_block};
	fsck_claim(fsck, ag->first + ag_block, 1, BLOCK_INODES, ag->number);
	fsck_inode_block(fsck, ag, entry);
	if (!entry->readable || !free_known)
		return;
	unsigned used = (unsigned)__builtin_popcount(entry->used_mask);
	if (has_free != (used < FS_INODES_PER_BLOCK))
		fsck_find(fsck, "AG %" PRIu32 ": inode free map: bit %" PRIu32 " is %d, but %u of %d slots are used",
			ag->number, ag_block, has_free, used, FS_INODES_PER_BLOCK);
}

static void inode_map_block(struct fsck *fsck, struct fsck_ag *ag, uint32_t index)
{
	bool map_known, free_known;
	const uint64_t *map = fsck_map_read(fsck, ag, FSCK_MAP_INODES, index, fsck->block, &map_known);
	const uint64_t *spare = fsck->error ? NULL :
		fsck_map_read(fsck, ag, FSCK_MAP_INODES_FREE, index, fsck->other, &free_known);
	ag->partial = ag->partial || !map_known;
	if (fsck->error || !map_known || (!map && !spare))
		return;
	for (uint32_t i = 0; i < FS_MAP_BITS / 64 && !fsck->error; i++) {
		uint64_t bits = map ? le64toh(map[i]) : 0, has_free = spare ? le64toh(spare[i]) : 0;
		uint32_t from = index * FS_MAP_BITS + i * 64;
		if (has_free & ~bits)
			fsck_find(fsck,
				"AG %" PRIu32 ": inode free map: bit %" PRIu32 " is set, but not in the inode map",
				ag->number, from + (uint32_t)__builtin_ctzll(has_free & ~bits));
		for (; bits && !fsck->error; bits &= bits - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(bits);
			inode_map_bit(fsck, ag, from + bit, has_free >> bit & 1, free_known);
		}
	}
}

static void inode_counts(struct fsck *fsck, const struct fsck_ag *ag)
{
	uint32_t used = 0;
	bool complete = true;
	for (uint32_t i = 0; i < ag->table_count; i++) {
		complete = complete && ag->table[i].readable;
		used += (unsigned)__builtin_popcount(ag->table[i].used_mask);
	}
	complete = complete && !ag->partial;
	if (!ag->partial && ag->inode_blocks != ag->table_count)
		fsck_find(fsck, "AG %" PRIu32 ": inode_blocks is %" PRIu32 ", the inode map has %" PRIu32, ag->number,
			ag->inode_blocks, ag->table_count);
	if (complete && ag->used_inodes != used)
		fsck_find(fsck, "AG %" PRIu32 ": used_inodes is %" PRIu32 ", the inode blocks have %" PRIu32,
			ag->number, ag->used_inodes, used);
}

void fsck_ag_inodes(struct fsck *fsck, struct fsck_ag *ag)
{
	const struct ag_header *header = fsck_read_block(fsck, ag->first, fsck->block, BLOCK_AG_HEADER, ag->number);
	if (!header)
		return;
	fsck_ag_header(fsck, ag, header);
	if (ag->inode_map_ready | ag->inode_free_map_ready)
		for (uint32_t i = 0; i < fsck->map_blocks && !fsck->error; i++)
			inode_map_block(fsck, ag, i);
	if (!fsck->error)
		inode_counts(fsck, ag);
}

/* One entry of an orphan block. */
static void orphan_entry(struct fsck *fsck, const struct fsck_ag *ag, uint64_t ino)
{
	struct fsck_inode *inode;
	fsck->out->orphans++;
	if (ino_ag(ino) != ag->number || ino == FS_ROOT_INODE || ino == fsck->root_place) {
		fsck_find(
			fsck, "AG %" PRIu32 ": orphan chain: inode %" PRIu64 " does not belong here", ag->number, ino);
		return;
	}
	enum fsck_lookup found = fsck_inode_find(fsck, ino, &inode);
	if (found == FSCK_LOOKUP_UNKNOWN)
		return;
	if (found != FSCK_LOOKUP_USED) {
		fsck_find(fsck, "AG %" PRIu32 ": orphan chain: inode %" PRIu64 " is not in use", ag->number, ino);
		return;
	}
	if (inode->flags & FSCK_INODE_ORPHAN)
		fsck_find(fsck, "AG %" PRIu32 ": orphan chain: inode %" PRIu64 " stands in it twice", ag->number, ino);
	if (inode->nlink && !S_ISREG(inode->mode))
		fsck_find(fsck, "AG %" PRIu32 ": orphan chain: inode %" PRIu64 " has links and is no regular file",
			ag->number, ino);
	inode->flags |= FSCK_INODE_ORPHAN;
}

void fsck_ag_orphans(struct fsck *fsck, struct fsck_ag *ag)
{
	uint64_t total = 0, block = ag->orphan_head;
	bool complete = ag->readable;
	while (block && !fsck->error) {
		complete = complete && fsck_claim(fsck, block, 1, BLOCK_ORPHANS, ag->number);
		const struct orphan_block *orphans = !complete || fsck->error ? NULL :
			fsck_read_block(fsck, block, fsck->block, BLOCK_ORPHANS, ag->number);
		complete = orphans;
		if (!orphans)
			break;
		uint32_t count = 0;
		for (unsigned i = 0; i < FS_ORPHANS_PER_BLOCK; i++) {
			if (!le64_get(orphans->inode[i]))
				continue;
			orphan_entry(fsck, ag, le64_get(orphans->inode[i]));
			count++;
		}
		if (le32_get(orphans->count) != count)
			fsck_find(fsck, "block %" PRIu64 " (orphan block): count is %" PRIu32 ", it has %" PRIu32,
				block, le32_get(orphans->count), count);
		if (le32_get(orphans->reserved0))
			fsck_find(fsck, "block %" PRIu64 " (orphan block): reserved fields are not zero", block);
		total += count;
		block = le64_get(orphans->next);
	}
	if (complete && !fsck->error && total != ag->orphan_count)
		fsck_find(fsck, "AG %" PRIu32 ": orphan_count is %" PRIu32 ", the chain has %" PRIu64, ag->number,
			ag->orphan_count, total);
}
