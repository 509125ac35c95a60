/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Allocation groups. At the beginning: which blocks hold inodes. The inode map says so; where a block of it is lost, or
 * the header that says whether it was written at all, every block that it stands for is looked at. At the end: maps and
 * header as they follow from what was reached; they are changed only where they differ.
 */
#include <stdlib.h>

#include "mkfs/repair_internal.h"

enum { MAP_WORDS = FS_MAP_BYTES / 8 };

/* ---- which blocks hold inodes ---- */

/* A block that says of itself that it holds inodes of this AG, some of them in use. */
static bool holds_inodes(struct repair *repair, const struct fsck_ag *ag, uint32_t at, bool scanned)
{
	const struct inode_block *block =
		repair_read(repair, ag->first + at, repair->fsck.inodes, BLOCK_INODES, ag->number);
	return block && (!scanned || le32_get(block->used_mask) & ((1u << FS_INODES_PER_BLOCK) - 1));
}

static void table_add(struct repair *repair, struct fsck_ag *ag, uint32_t at, bool scanned)
{
	struct fsck *fsck = &repair->fsck;
	if (at < fsck->fixed_blocks || at >= ag->blocks)
		return;
	if (!holds_inodes(repair, ag, at, scanned)) {
		if (!scanned && !fsck->error)
			repair_loss(repair, "AG %" PRIu32 ": block %" PRIu64 " was to hold inodes and is lost, with up to %d of them",
				ag->number, ag->first + at, FS_INODES_PER_BLOCK);
		return;
	}
	struct fsck_inode_block *entry = fsck_table_append(fsck, ag);
	if (!entry)
		return;
	*entry = (struct fsck_inode_block){.ag_block = at, .readable = true};
	repair_claim(repair, ag->first + at);
	struct inode_block *block = (struct inode_block *)repair_read(repair, ag->first + at, fsck->inodes, BLOCK_INODES,
		ag->number);
	const uint32_t mask = block ? le32_get(block->used_mask) : 0;
	entry->used_mask = mask & ((1u << FS_INODES_PER_BLOCK) - 1);
	if (block && (mask != entry->used_mask || !fsck_is_zero(block->reserved, sizeof(block->reserved)))) {
		block = repair_edit(repair, ag->first + at);
		if (!block)
			return;
		block->used_mask = le32_set(entry->used_mask);
		memset(block->reserved, 0, sizeof(block->reserved));
	}
}

/* A block of one of the maps, or NULL: not written (*out_lost false), or lost. */
static const struct map_block *map_read(struct repair *repair, const struct fsck_ag *ag, enum fsck_map map, uint32_t index,
	void *buffer, bool *out_lost)
{
	const uint64_t ready[] = {ag->block_map_ready, ag->inode_map_ready, ag->inode_free_map_ready};
	const enum block_type types[] = {BLOCK_BLOCK_MAP, BLOCK_INODE_MAP, BLOCK_INODE_FREE_MAP};
	const struct fsck *fsck = &repair->fsck;
	*out_lost = ag->readable && ready[map] >> index & 1;
	if (ag->readable && !*out_lost)
		return NULL;
	const uint64_t place = ag->first + FS_AG_MAPS_FIRST + map * fsck->map_blocks + index;
	const struct map_block *block = repair_read(repair, place, buffer, types[map], ag->number);
	*out_lost = !block || le32_get(block->index) != index;
	return *out_lost ? NULL : block;
}

static void map_inodes(struct repair *repair, struct fsck_ag *ag, uint32_t index)
{
	struct fsck *fsck = &repair->fsck;
	bool lost;
	const struct map_block *map = map_read(repair, ag, FSCK_MAP_INODES, index, fsck->block, &lost);
	const uint32_t first = index * FS_MAP_BITS;
	if (lost) {
		for (uint32_t i = 0; i < FS_MAP_BITS && first + i < ag->blocks && !fsck->error; i++)
			table_add(repair, ag, first + i, true);
		return;
	}
	for (uint32_t i = 0; map && i < MAP_WORDS && !fsck->error; i++)
		for (uint64_t bits = le64toh(((const uint64_t *)map->bits)[i]); bits && !fsck->error; bits &= bits - 1)
			table_add(repair, ag, first + i * 64 + (uint32_t)__builtin_ctzll(bits), false);
}

/* The header that knew it is lost. */
static void generation_find(struct repair *repair, struct fsck_ag *ag)
{
	for (uint32_t i = 0; i < ag->table_count; i++) {
		const struct inode_block *block =
			repair_read(repair, ag->first + ag->table[i].ag_block, repair->fsck.inodes, BLOCK_INODES, ag->number);
		for (unsigned slot = 0; block && slot < FS_INODES_PER_BLOCK; slot++)
			if (le32_get(block->inode[slot].generation) < INT32_MAX)
				ag->next_generation = MAX(ag->next_generation, le32_get(block->inode[slot].generation) + 1);
	}
}

static void fields_check(struct repair *repair, struct fsck_ag *ag)
{
	for (uint32_t i = 0; i < ag->table_count; i++)
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK && !repair->fsck.error; slot++)
			repair_inode_fields(repair, ag, ino_make(ag->number, ag->table[i].ag_block, slot));
}

void repair_ag_inodes(struct repair *repair, struct fsck_ag *ag)
{
	struct fsck *fsck = &repair->fsck;
	const struct ag_header *header = repair_read(repair, ag->first, fsck->block, BLOCK_AG_HEADER, ag->number);
	if (fsck->error)
		return;
	if (header)
		fsck_ag_header(fsck, ag, header);
	ag->next_generation = MAX(ag->next_generation, 1u);
	for (uint32_t i = 0; i < fsck->map_blocks && !fsck->error; i++)
		map_inodes(repair, ag, i);
	if (!ag->readable)
		generation_find(repair, ag);
	fields_check(repair, ag);
	ag->readable = true;
}

/* ---- orphans ---- */

/* Marks what the chain names; the chain itself ends here: what it speaks of is finished by this repair. */
void repair_ag_orphans(struct repair *repair, struct fsck_ag *ag)
{
	struct fsck *fsck = &repair->fsck;
	uint64_t block = ag->orphan_head;
	for (uint64_t left = fsck->block_count; block && left && !fsck->error; left--) {
		const struct orphan_block *orphans = repair_placeable(repair, block, 1) ?
			repair_read(repair, block, fsck->block, BLOCK_ORPHANS, ag->number) : NULL;
		struct fsck_inode *inode;
		for (unsigned i = 0; orphans && i < FS_ORPHANS_PER_BLOCK; i++)
			if (fsck_inode_find(fsck, le64_get(orphans->inode[i]), &inode) == FSCK_LOOKUP_USED)
				inode->flags |= FSCK_INODE_ORPHAN;
		block = orphans ? le64_get(orphans->next) : 0;
	}
}

/* ---- the root, and new inodes ---- */

static struct fsck_inode_block *table_insert(struct repair *repair, struct fsck_ag *ag, uint32_t ag_block)
{
	uint32_t at = ag->table_count;
	if (!fsck_table_append(&repair->fsck, ag))
		return NULL;
	for (; at > 0 && ag->table[at - 1].ag_block > ag_block; at--)
		ag->table[at] = ag->table[at - 1];
	ag->table[at] = (struct fsck_inode_block){.ag_block = ag_block, .readable = true};
	return &ag->table[at];
}

static struct disk_inode *slot_use(struct repair *repair, struct fsck_ag *ag, struct fsck_inode_block *entry, unsigned slot,
	unsigned mode)
{
	struct inode_block *block = repair_edit(repair, ag->first + entry->ag_block);
	if (!block)
		return NULL;
	entry->used_mask |= (uint16_t)(1u << slot);
	entry->inode[slot] = (struct fsck_inode){.mode = (uint16_t)mode};
	block->used_mask = le32_set(entry->used_mask);
	const le64_t now = le64_set((uint64_t)repair->options->now_sec);
	block->inode[slot] = (struct disk_inode){.mode = le16_set((uint16_t)mode), .generation = le32_set(ag->next_generation++),
		.format = FORK_INLINE, .atime_sec = now, .mtime_sec = now, .ctime_sec = now, .btime_sec = now};
	return &block->inode[slot];
}

struct disk_inode *repair_inode_new(struct repair *repair, unsigned mode, uint64_t *out_ino)
{
	struct fsck *fsck = &repair->fsck;
	for (uint32_t number = 0; number < fsck->ag_count; number++) {
		struct fsck_ag *ag = &fsck->ag[number];
		for (uint32_t i = 0; i < ag->table_count; i++) {
			const unsigned slot = (unsigned)__builtin_ctz(~(unsigned)ag->table[i].used_mask);
			if (slot >= FS_INODES_PER_BLOCK)
				continue;
			*out_ino = ino_make(number, ag->table[i].ag_block, slot);
			return slot_use(repair, ag, &ag->table[i], slot, mode);
		}
	}
	const uint64_t block = repair_allocate(repair);
	struct fsck_ag *ag = block ? fsck_ag_of(fsck, block) : NULL;
	if (!ag || !repair_new(repair, block, BLOCK_INODES, ag->number)) {
		fsck->error = fsck->error ? fsck->error : -ENOSPC;
		return NULL;
	}
	struct fsck_inode_block *entry = table_insert(repair, ag, (uint32_t)(block - ag->first));
	*out_ino = ino_make(ag->number, (uint32_t)(block - ag->first), 0);
	return entry ? slot_use(repair, ag, entry, 0, mode) : NULL;
}

void repair_root(struct repair *repair)
{
	struct fsck *fsck = &repair->fsck;
	struct fsck_inode *root;
	enum fsck_lookup found = fsck_inode_find(fsck, FS_ROOT_INODE, &root);
	if (found == FSCK_LOOKUP_USED && S_ISDIR(root->mode))
		return;
	repair_loss(repair, "the root directory is lost: made anew; what stood in it is in lost+found");
	struct fsck_ag *ag = &fsck->ag[ino_ag(fsck->root_place)];
	const uint32_t at = ino_ag_block(fsck->root_place);
	const unsigned slot = ino_slot(fsck->root_place);
	struct fsck_inode_block *entry = NULL;
	for (uint32_t i = 0; i < ag->table_count; i++)
		if (ag->table[i].ag_block == at)
			entry = &ag->table[i];
	if (!entry && repair_new(repair, ag->first + at, BLOCK_INODES, ag->number)) {
		repair_claim(repair, ag->first + at);
		entry = table_insert(repair, ag, at);
	}
	struct disk_inode *inode = entry ? slot_use(repair, ag, entry, slot, S_IFDIR | 0755) : NULL;
	if (!inode)
		return;
	inode->nlink = le32_set(2);
	inode->parent = le64_set(FS_ROOT_INODE);
	entry->inode[slot].nlink = 2;
	entry->inode[slot].parent = FS_ROOT_INODE;
}

/* ---- maps and headers ---- */

struct map_content {
	uint64_t word[3][MAP_WORDS];    /* by enum fsck_map, in the order of the disk */
	bool any[3];                    /* there is more than what an unwritten block stands for */
};

static void content_set(struct map_content *content, enum fsck_map map, uint32_t bit)
{
	((uint8_t *)content->word[map])[bit / 8] |= (uint8_t)(1u << bit % 8);
	content->any[map] = true;
}

/* What the blocks with this index must hold. Returns the number of blocks in use. */
static uint32_t content_make(struct repair *repair, const struct fsck_ag *ag, uint32_t index, struct map_content *content)
{
	const uint32_t first = index * FS_MAP_BITS;
	uint32_t used = 0;
	memset(content, 0, sizeof(*content));
	for (uint32_t i = 0; i < FS_MAP_BITS; i++) {
		const uint32_t at = first + i;
		const bool fixed = at < repair->fsck.fixed_blocks, past = at >= ag->blocks;
		if (past && !i % 8) {
			memset((uint8_t *)content->word[FSCK_MAP_BLOCKS] + i / 8, 0xff, (FS_MAP_BITS - i) / 8);
			break;
		}
		if (!fixed && !past && !(ag->reached && ag->reached[at / 64] >> at % 64 & 1))
			continue;
		((uint8_t *)content->word[FSCK_MAP_BLOCKS])[i / 8] |= (uint8_t)(1u << i % 8);
		content->any[FSCK_MAP_BLOCKS] |= !fixed && !past;
		used += !past;
	}
	for (uint32_t i = 0; i < ag->table_count; i++) {
		const struct fsck_inode_block *entry = &ag->table[i];
		if (entry->ag_block / FS_MAP_BITS != index)
			continue;
		content_set(content, FSCK_MAP_INODES, entry->ag_block % FS_MAP_BITS);
		if (entry->used_mask != (1u << FS_INODES_PER_BLOCK) - 1)
			content_set(content, FSCK_MAP_INODES_FREE, entry->ag_block % FS_MAP_BITS);
	}
	return used;
}

/* Brings one block of a map to what it must hold; returns its ready bit. */
static uint64_t map_mend(struct repair *repair, struct fsck_ag *ag, enum fsck_map map, uint32_t index,
	const struct map_content *content)
{
	struct fsck *fsck = &repair->fsck;
	bool lost;
	const struct map_block *there = map_read(repair, ag, map, index, fsck->block, &lost);
	if (!there && !lost && !content->any[map])
		return 0;
	const uint64_t place = ag->first + FS_AG_MAPS_FIRST + map * fsck->map_blocks + index;
	if (there && !memcmp(there->bits, content->word[map], FS_MAP_BYTES) &&
		fsck_is_zero(there->reserved, sizeof(there->reserved)))
		return 1ull << index;
	struct map_block *block = fsck->error ? NULL : repair_new(repair, place, BLOCK_BLOCK_MAP + (unsigned)map, ag->number);
	if (block) {
		block->index = le32_set(index);
		memcpy(block->bits, content->word[map], FS_MAP_BYTES);
	}
	return 1ull << index;
}

static void header_mend(struct repair *repair, struct fsck_ag *ag, uint32_t used_blocks, const uint64_t ready[3])
{
	struct fsck *fsck = &repair->fsck;
	const struct ag_header *there = repair_read(repair, ag->first, fsck->block, BLOCK_AG_HEADER, ag->number);
	struct ag_header *wanted = (struct ag_header *)fsck->other;
	uint32_t used_inodes = 0;
	if (fsck->error)
		return;
	for (uint32_t i = 0; i < ag->table_count; i++)
		used_inodes += (uint32_t)__builtin_popcount(ag->table[i].used_mask);
	fsck->free_blocks += ag->blocks - used_blocks;
	fsck->used_inodes += used_inodes;
	memset(wanted, 0, sizeof(*wanted));
	if (there)
		wanted->header = there->header;
	wanted->ag = le32_set(ag->number);
	wanted->blocks = le32_set(ag->blocks);
	wanted->free_blocks = le32_set(ag->blocks - used_blocks);
	wanted->inode_blocks = le32_set(ag->table_count);
	wanted->used_inodes = le32_set(used_inodes);
	wanted->next_generation = le32_set(ag->next_generation);
	wanted->block_map_ready = le64_set(ready[FSCK_MAP_BLOCKS]);
	wanted->inode_map_ready = le64_set(ready[FSCK_MAP_INODES]);
	wanted->inode_free_map_ready = le64_set(ready[FSCK_MAP_INODES_FREE]);
	if (there && !memcmp(wanted, there, sizeof(*wanted)))
		return;
	struct ag_header *header = repair_new(repair, ag->first, BLOCK_AG_HEADER, ag->number);
	if (header)
		memcpy(&header->ag, &wanted->ag, sizeof(*wanted) - offsetof(struct ag_header, ag));
}

void repair_ag_maps(struct repair *repair, struct fsck_ag *ag)
{
	struct fsck *fsck = &repair->fsck;
	struct map_content *content = fsck_allocate(fsck, 1, sizeof(*content));
	uint64_t ready[3] = {0};
	uint32_t used = 0;
	for (uint32_t i = 0; content && i < fsck->map_blocks && !fsck->error; i++) {
		used += content_make(repair, ag, i, content);
		for (unsigned map = 0; map < 3; map++)
			ready[map] |= map_mend(repair, ag, map, i, content);
	}
	free(content);
	header_mend(repair, ag, used, ready);
}
