/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Link counts and inode maps. For each inode of the range two bytes say how many names it should have, and each entry that is
 * seen takes one of them: at the end nothing is left. What operations change meanwhile comes in by scrub_note_inode; scrub.h says
 * why nothing is told wrongly. A group's number of used inodes is kept in the same way: the walk over its inode blocks adds those
 * it comes to, and notes add or take away in the blocks that it has passed.
 */
#include "fs/scrub.h"

#include <stdlib.h>

#include "fs/alloc_internal.h"
#include "fs/cache.h"

enum { TYPE_MASK = (1 << SCRUB_TYPE_BITS) - 1, TURN_BLOCKS = 512, MAP_BLOCKS_MAX = FS_AG_BLOCKS_MAX / FS_MAP_BITS + 1 };

/* ---- what is known of inodes ---- */

struct scrub_inodes *scrub_inodes_find(const struct scrub *scrub, uint64_t ino)
{
	const uint64_t place = ino_place(scrub->fs, ino);
	if (place >> (32 + FS_INODE_BLOCK_BITS + FS_INODE_SLOT_BITS) || ino_slot(place) >= FS_INODES_PER_BLOCK ||
		!scrub_in_range(scrub, ino_ag(place)))
		return NULL;
	const struct scrub_ag *ag = &scrub->ag[ino_ag(place)];
	const uint32_t ag_block = ino_ag_block(place);
	uint32_t low = 0, high = ag->inode_blocks;
	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;
		if (ag->inodes[middle].ag_block < ag_block)
			low = middle + 1;
		else
			high = middle;
	}
	return low < ag->inode_blocks && ag->inodes[low].ag_block == ag_block ? &ag->inodes[low] : NULL;
}

static unsigned type_of(const struct scrub_inodes *inodes, unsigned slot)
{
	return inodes->types >> (slot * SCRUB_TYPE_BITS) & TYPE_MASK;
}

unsigned scrub_type_seen(const struct scrub *scrub, uint64_t ino)
{
	const struct scrub_inodes *inodes = scrub_inodes_find(scrub, ino);
	return inodes ? type_of(inodes, ino_slot(ino_place(scrub->fs, ino))) : 0;
}

/* A directory has one name, whatever its links. */
static uint16_t names_wanted(uint64_t ino, const struct disk_inode *inode)
{
	const uint32_t links = le32_get(inode->nlink);
	return (uint16_t)(S_ISDIR(le16_get(inode->mode)) ? ino != FS_ROOT_INODE && links : links);
}

static void slot_set(struct scrub_inodes *inodes, unsigned slot, uint64_t ino, const struct disk_inode *inode)
{
	const uint64_t type = inode ? le16_get(inode->mode) >> 12 : 0;
	inodes->types &= ~((uint64_t)TYPE_MASK << (slot * SCRUB_TYPE_BITS));
	inodes->types |= type << (slot * SCRUB_TYPE_BITS);
	inodes->left[slot] = inode ? names_wanted(ino, inode) : 0;
	inodes->unlinked &= (uint16_t)~(1u << slot);
	inodes->unlinked |= (uint16_t)((inode && !le32_get(inode->nlink)) << slot);
}

static uint64_t ino_at(const struct scrub *scrub, uint32_t ag, uint32_t ag_block, unsigned slot)
{
	const uint64_t place = ino_make(ag, ag_block, slot);
	return place == le64_get(scrub->fs->super.root_place) ? FS_ROOT_INODE : place;
}

int scrub_inodes_add(struct scrub *scrub, uint32_t number, uint32_t ag_block, const struct inode_block *block)
{
	struct scrub_ag *ag = &scrub->ag[number];
	if (ag->inode_blocks == ag->capacity || !ag->inodes) {
		const uint32_t capacity = ag->inodes ? ag->capacity + ag->capacity / 2 : MAX(ag->capacity, 16u);
		struct scrub_inodes *inodes = realloc(ag->inodes, capacity * sizeof(*inodes));
		if (!inodes)
			return -ENOMEM;
		ag->inodes = inodes;
		ag->capacity = capacity;
	}
	struct scrub_inodes *inodes = &ag->inodes[ag->inode_blocks++];
	*inodes = (struct scrub_inodes){.ag_block = ag_block};
	for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++)
		if (le32_get(block->used_mask) >> slot & 1)
			slot_set(inodes, slot, ino_at(scrub, number, ag_block, slot), &block->inode[slot]);
	ag->used_inodes += (uint32_t)__builtin_popcount(le32_get(block->used_mask));
	ag->inode_next = ag_block + 1;
	return 0;
}

void scrub_note_inode(struct fs *fs, uint64_t ino, const struct disk_inode *inode, int used_delta)
{
	struct scrub *scrub = fs->scrub;
	if (LIKELY(!atomic_load_explicit(&scrub->noting, memory_order_relaxed)))
		return;
	const uint64_t place = ino_place(fs, ino);
	if (!scrub_in_range(scrub, ino_ag(place)))
		return;
	struct scrub_ag *ag = &scrub->ag[ino_ag(place)];
	if (ino_ag_block(place) < ag->inode_next)
		ag->used_inodes += (uint32_t)used_delta;
	struct scrub_inodes *inodes = scrub_inodes_find(scrub, ino);
	if (!inodes)
		return;
	if (atomic_load_explicit(&scrub->counting, memory_order_relaxed))
		inodes->touched |= (uint16_t)(1u << ino_slot(place));
	else
		slot_set(inodes, ino_slot(place), ino, inode);
}

/* ---- counting ---- */

static int nothing(void *arg) { return 0; }

/* Returns when every owner knows it. No gate need be closed: whoever applies a part at this moment holds the locks of the
 * directories that it changes, and they are read afterwards. */
void scrub_names_begin(struct scrub *scrub)
{
	struct fs *fs = scrub->fs;
	atomic_store(&scrub->counting, true);
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call_nowait(fs->owners[i]->reactor, nothing, NULL);
}

void scrub_name_seen(struct scrub *scrub, uint64_t ino)
{
	struct scrub_inodes *inodes = scrub_inodes_find(scrub, ino);
	if (inodes)
		inodes->left[ino_slot(ino_place(scrub->fs, ino))]--;
}

void scrub_orphans_seen(struct scrub *scrub, uint32_t number, const struct orphan_block *block)
{
	for (unsigned i = 0; i < FS_ORPHANS_PER_BLOCK; i++) {
		const uint64_t ino = le64_get(block->inode[i]);
		const unsigned slot = ino_slot(ino_place(scrub->fs, ino));
		struct scrub_inodes *inodes = ino ? scrub_inodes_find(scrub, ino) : NULL;
		if (!inodes)
			continue;
		inodes->unlinked &= (uint16_t)~(1u << slot);
		if (!type_of(inodes, slot) && !(inodes->touched >> slot & 1))
			scrub_find(scrub, 0, le64_get(block->header.block), "AG %u: orphan block %llu names inode %llu, which is not in use", number,
				(unsigned long long)le64_get(block->header.block), (unsigned long long)ino);
	}
}

/* ---- judging ---- */

struct map_counts {
	uint32_t inode_blocks;
	uint32_t stray;                 /* the first block that has free slots and is no inode block; 0: none */
};

static void maps_count(struct map_counts *counts, const struct map_block *inode_map, const struct map_block *free_map)
{
	const le64_t *inodes = (const le64_t *)inode_map->bits, *free = (const le64_t *)free_map->bits;
	for (uint32_t i = 0; i < FS_MAP_BITS / 64; i++) {
		const uint64_t stray = le64_get(free[i]) & ~le64_get(inodes[i]);
		counts->inode_blocks += (uint32_t)__builtin_popcountll(le64_get(inodes[i]));
		if (stray && !counts->stray)
			counts->stray = le32_get(inode_map->index) * FS_MAP_BITS + i * 64 + (unsigned)__builtin_ctzll(stray);
	}
}

static MAY_WAIT int maps_get(struct scrub *scrub, uint32_t number, enum block_type map, struct buf **maps, uint32_t count)
{
	uint32_t got = 0;
	int error = 0;
	while (got < count && !error) {
		error = alloc_map_get(scrub->owner, number, map, got, &maps[got]);
		got += !error;
	}
	for (; error && got; got--)
		buf_put(scrub->owner, maps[got - 1]);
	return error;
}

static void maps_find(struct scrub *scrub, uint32_t number, const struct ag_header *seen, const struct map_counts *counts,
	uint32_t used_inodes)
{
	const uint64_t first = ag_first_block(&scrub->fs->super, number);
	if (counts->stray)
		scrub_find(scrub, 0, first + counts->stray, "AG %u: block %llu is marked as one with free inodes, but is no inode block",
			number, (unsigned long long)(first + counts->stray));
	if (le32_get(seen->inode_blocks) != counts->inode_blocks)
		scrub_find(scrub, 0, first, "AG %u: inode_blocks is %u, the inode map has %u", number, le32_get(seen->inode_blocks),
			counts->inode_blocks);
	if (le32_get(seen->used_inodes) != used_inodes)
		scrub_find(scrub, 0, first, "AG %u: used_inodes is %u, it has %u", number, le32_get(seen->used_inodes), used_inodes);
}

/* Header and maps at one moment. */
static MAY_WAIT int maps_judge(struct scrub *scrub, uint32_t number)
{
	struct owner *owner = scrub->owner;
	const struct scrub_ag *ag = &scrub->ag[number];
	const uint32_t count = (uint32_t)div_round_up(ag_block_count(&scrub->fs->super, number), FS_MAP_BITS);
	struct buf *inode_maps[MAP_BLOCKS_MAX], *free_maps[MAP_BLOCKS_MAX], *header;
	int error = buf_get(owner, ag_first_block(&scrub->fs->super, number), BLOCK_AG_HEADER, number, &header);
	if (error)
		return error;
	error = maps_get(scrub, number, BLOCK_INODE_MAP, inode_maps, count);
	if (!error) {
		error = maps_get(scrub, number, BLOCK_INODE_FREE_MAP, free_maps, count);
		/* It may have grown while we waited. */
		if (!error && count == div_round_up(ag_block_count(&scrub->fs->super, number), FS_MAP_BITS)) {
			const struct ag_header *seen = (const struct ag_header *)header->data;
			struct map_counts counts = {0};
			for (uint32_t i = 0; i < count; i++)
				maps_count(&counts, (const struct map_block *)inode_maps[i]->data,
					(const struct map_block *)free_maps[i]->data);
			maps_find(scrub, number, seen, &counts, ag->inodes_unknown ? le32_get(seen->used_inodes) : ag->used_inodes);
		}
		for (uint32_t i = 0; i < count; i++) {
			buf_put(owner, inode_maps[i]);
			if (!error)
				buf_put(owner, free_maps[i]);
		}
	}
	buf_put(owner, header);
	return error;
}

/* What is left of an inode that nobody touched: looked at once more, for what there is to say. */
static MAY_WAIT int name_find(struct scrub *scrub, const struct scrub_inodes *inodes, unsigned slot, uint64_t ino)
{
	struct inode *inode;
	const int error = inode_get(scrub->owner, ino, &inode);
	if (error)
		return error == -ESTALE || scrub_goes_on(error) ? 0 : error;
	const uint16_t wanted = names_wanted(ino, &inode->disk), seen = (uint16_t)(wanted - inodes->left[slot]);
	const bool touched = inodes->touched >> slot & 1;
	const uint32_t links = le32_get(inode->disk.nlink);
	const bool directory = inode_is_dir(inode);
	inode_put(inode);
	const bool many = links > INT16_MAX; /* how many are missing, or too many, does not fit */
	if (touched || ((many || seen < wanted) && scrub->incomplete))
		return 0;
	if (many)
		scrub_find(scrub, ino, 0, "nlink is %u, but it has another number of names", links);
	else if (!seen)
		scrub_find(scrub, ino, 0, "nlink is %u, but no name leads to it", links);
	else if (directory)
		scrub_find(scrub, ino, 0, "a directory with %u names", seen);
	else
		scrub_find(scrub, ino, 0, "nlink is %u, but it has %u names", links, seen);
	return 0;
}

/* @orphans: the orphan chain was seen whole. */
static MAY_WAIT int names_judge(struct scrub *scrub, const struct scrub_ag *ag, uint32_t number, bool orphans)
{
	int error = 0;
	for (uint32_t i = 0; i < ag->inode_blocks && !error; i++) {
		const struct scrub_inodes *inodes = &ag->inodes[i];
		scrub_count(&scrub->stats.changed, (unsigned)__builtin_popcount(inodes->touched));
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK && !error; slot++) {
			const uint64_t ino = ino_at(scrub, number, inodes->ag_block, slot);
			if (!type_of(inodes, slot) || inodes->touched >> slot & 1)
				continue;
			if (orphans && inodes->unlinked >> slot & 1)
				scrub_find(scrub, ino, 0, "nlink is 0, but it stands in no orphan block");
			if (inodes->left[slot])
				error = name_find(scrub, inodes, slot, ino);
		}
		if (!error && i % TURN_BLOCKS == TURN_BLOCKS - 1)
			error = scrub_pause(scrub);
	}
	return error;
}

int scrub_ag_inodes(struct scrub *scrub, uint32_t number)
{
	bool orphans = false;
	int error = maps_judge(scrub, number);
	if (!error || scrub_goes_on(error))
		error = scrub_chain(scrub, number, &orphans);
	return error ? error : names_judge(scrub, &scrub->ag[number], number, orphans);
}
