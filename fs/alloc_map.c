/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The maps of an AG: block map, inode map, inode free map, and the header that counts them. A map block that was never
 * written is made in memory on first use (its rule is in format.h) and logged whole by the transaction that uses it.
 * Prepare steps check what apply steps rely on, so a damaged map is an error of the operation, never of the apply step.
 */
#include "fs/alloc_internal.h"
#include "fs/scrub.h"

static unsigned map_kind(enum block_type map) { return (unsigned)map - BLOCK_BLOCK_MAP; }

static uint64_t map_place(const struct fs *fs, uint32_t ag, enum block_type map, uint32_t index)
{
	return ag_first_block(&fs->super, ag) + FS_AG_MAPS_FIRST + map_kind(map) * le32_get(fs->super.map_blocks) + index;
}

static uint64_t header_place(const struct fs *fs, uint32_t ag) { return ag_first_block(&fs->super, ag); }

static le64_t *ready_mask(struct ag_header *header, enum block_type map)
{
	le64_t *const masks[] = {&header->block_map_ready, &header->inode_map_ready, &header->inode_free_map_ready};
	return masks[map_kind(map)];
}

static bool map_is_ready(const struct ag_header *header, enum block_type map, uint32_t index)
{
	return le64_get(*ready_mask((struct ag_header *)header, map)) >> index & 1;
}

static bool bit_get(const uint8_t *bits, uint32_t bit) { return bits[bit / 8] >> (bit % 8) & 1; }

static void bits_fill(uint8_t *bits, uint32_t start, uint32_t end)
{
	for (uint32_t bit = start; bit < end; bit++)
		bits[bit / 8] |= (uint8_t)(1u << (bit % 8));
}

/* What mkfs would have written. */
static void map_make(const struct fs *fs, uint32_t ag, enum block_type map, uint32_t index, struct map_block *block)
{
	block->index = le32_set(index);
	if (map != BLOCK_BLOCK_MAP)
		return;
	const uint32_t first = index * FS_MAP_BITS, blocks = ag_block_count(&fs->super, ag);
	const uint32_t fixed = ag_fixed_blocks(&fs->super);
	if (first < fixed)
		bits_fill(block->bits, 0, MIN(fixed - first, (uint32_t)FS_MAP_BITS));
	if (first + FS_MAP_BITS > blocks)
		bits_fill(block->bits, blocks > first ? blocks - first : 0, FS_MAP_BITS);
}

int alloc_map_get(struct owner *owner, uint32_t ag, enum block_type map, uint32_t index, struct buf **out)
{
	const struct fs *fs = owner->fs;
	const uint64_t place = map_place(fs, ag, map, index);
	if ((*out = buf_find(owner, place)))
		return 0;
	struct buf *header;
	int error = buf_get(owner, header_place(fs, ag), BLOCK_AG_HEADER, ag, &header);
	if (error)
		return error;
	const struct ag_header *ag_header = (struct ag_header *)header->data;
	if (!map_is_ready(ag_header, map, index)) {
		error = buf_new(owner, place, map, ag, out);
		if (!error && (*out)->fresh && map_is_ready(ag_header, map, index)) {
			/* Made, logged, written home and evicted while we waited for memory. */
			buf_put(owner, *out);
			error = buf_get(owner, place, map, ag, out);
		} else if (!error && (*out)->fresh) {
			map_make(fs, ag, map, index, (struct map_block *)(*out)->data);
		}
	} else {
		error = buf_get(owner, place, map, ag, out);
	}
	buf_put(owner, header);
	return error;
}

static MAY_WAIT int part_pin_map(struct tx_part *part, uint32_t ag, enum block_type map, uint32_t index, struct buf **out)
{
	struct buf *buf;
	int error = alloc_map_get(part->owner, ag, map, index, &buf);
	if (error)
		return error;
	error = tx_pin(part, buf->block, map, ag, out); /* a hit: it is pinned */
	buf_put(part->owner, buf);
	return error;
}

int alloc_pin_header(struct tx_part *part, uint32_t ag, struct buf **out)
{
	return tx_pin(part, header_place(part->tx->fs, ag), BLOCK_AG_HEADER, ag, out);
}

int alloc_pin_map(struct tx_part *part, uint32_t ag, enum block_type map, uint32_t ag_block, struct buf **out)
{
	return part_pin_map(part, ag, map, ag_block / FS_MAP_BITS, out);
}

int alloc_map_test(struct owner *owner, uint32_t ag, enum block_type map, uint32_t ag_block, bool *out)
{
	struct buf *buf;
	const int error = alloc_map_get(owner, ag, map, ag_block / FS_MAP_BITS, &buf);
	if (error)
		return error;
	*out = bit_get(((struct map_block *)buf->data)->bits, ag_block % FS_MAP_BITS);
	buf_put(owner, buf);
	return 0;
}

void alloc_map_bit(struct tx_part *part, struct buf *map, uint32_t ag_block, bool set)
{
	struct map_block *block = (struct map_block *)map->data;
	const uint32_t bit = ag_block % FS_MAP_BITS;
	const uint8_t mask = (uint8_t)(1u << (bit % 8));
	if (set)
		block->bits[bit / 8] |= mask;
	else
		block->bits[bit / 8] &= (uint8_t)~mask;
	tx_dirty(part, map, (unsigned)offsetof(struct map_block, bits) + bit / 8, 1);
}

/* The first set bit of [from, end) in one map block, or end. */
static uint32_t next_bit(const struct map_block *map, uint32_t from, uint32_t end)
{
	uint32_t bit = from;
	while (bit < end && !bit_get(map->bits, bit))
		bit += bit % 64 == 0 && !((const le64_t *)map->bits)[bit / 64].raw ? 64 : 1;
	return MIN(bit, end);
}

int alloc_map_next(struct owner *owner, uint32_t ag, enum block_type map, uint32_t from, uint32_t *out)
{
	const uint32_t blocks = ag_block_count(&owner->fs->super, ag);
	*out = ALLOC_MAP_NONE;
	for (uint32_t index = from / FS_MAP_BITS; index * FS_MAP_BITS < blocks; index++) {
		const uint32_t first = index * FS_MAP_BITS, end = MIN(blocks - first, (uint32_t)FS_MAP_BITS);
		struct buf *buf;
		const int error = alloc_map_get(owner, ag, map, index, &buf);
		if (error)
			return error;
		const uint32_t bit = next_bit((const struct map_block *)buf->data, MAX(from, first) - first, end);
		buf_put(owner, buf);
		if (bit < end) {
			*out = first + bit;
			return 0;
		}
	}
	return 0;
}

static struct buf *pinned(struct tx_part *part, uint64_t block)
{
	for (unsigned i = 0; i < part->pin_count; i++)
		if (part->pins[i].buf->block == block)
			return part->pins[i].buf;
	assert(!"a map or header must be pinned by the prepare step");
	return NULL;
}

void alloc_map_ready(struct tx_part *part, uint32_t ag, enum block_type map, uint32_t ag_block)
{
	struct buf *header = pinned(part, header_place(part->tx->fs, ag));
	le64_t *mask = ready_mask((struct ag_header *)header->data, map);
	const uint64_t bit = 1ull << (ag_block / FS_MAP_BITS);
	if (le64_get(*mask) & bit)
		return;
	*mask = le64_set(le64_get(*mask) | bit);
	tx_dirty(part, header, (unsigned)((uint8_t *)mask - header->data), sizeof(*mask));
}

/* ---- first use ---- */

static int scan_map(struct ag *ag, const struct map_block *map, uint32_t first, uint32_t blocks)
{
	const uint32_t end = MIN(blocks - first, (uint32_t)FS_MAP_BITS);
	uint32_t bit = 0;
	while (bit < end) {
		if (bit % 64 == 0 && bit + 64 <= end && ((const le64_t *)map->bits)[bit / 64].raw == UINT64_MAX) {
			bit += 64;
			continue;
		}
		if (bit_get(map->bits, bit)) {
			bit++;
			continue;
		}
		const uint32_t start = bit;
		while (bit < end && !bit_get(map->bits, bit))
			bit += bit % 64 == 0 && bit + 64 <= end && !((const le64_t *)map->bits)[bit / 64].raw ? 64 : 1;
		const int error = freespace_add(&ag->space, first + start, bit - start);
		if (error)
			return error;
	}
	return 0;
}

static MAY_WAIT int load(struct owner *owner, struct ag *ag)
{
	const uint32_t blocks = ag_block_count(&owner->fs->super, ag->number);
	const uint32_t map_blocks = (uint32_t)div_round_up(blocks, FS_MAP_BITS);
	struct buf *maps[FS_AG_BLOCKS_MAX / FS_MAP_BITS + 1];
	uint32_t got = 0;
	int error = 0;
	while (got < map_blocks && !error) {
		error = alloc_map_get(owner, ag->number, BLOCK_BLOCK_MAP, got, &maps[got]);
		got += !error;
	}
	/* All are pinned: the scan is one stretch without a wait, so no transaction changes a bit halfway. */
	for (uint32_t i = 0; i < got && !error; i++)
		error = scan_map(ag, (struct map_block *)maps[i]->data, i * FS_MAP_BITS, blocks);
	for (uint32_t i = 0; i < got; i++)
		buf_put(owner, maps[i]);
	if (error)
		freespace_clear(&ag->space);
	return error;
}

int alloc_load(struct owner *owner, struct ag *ag)
{
	while (ag->loading)
		fiber_cond_wait(&ag->loaded_cond, "an AG being loaded");
	if (ag->loaded)
		return 0;
	ag->loading = true;
	const int error = load(owner, ag);
	ag->loading = false;
	if (!error) {
		ag->loaded = true;
		owner->alloc->loaded_count++;
		owner->alloc->free_blocks += freespace_total(&ag->space);
	}
	fiber_cond_broadcast(&ag->loaded_cond);
	return error;
}

/* ---- prepare and apply of allocations and frees ---- */

int alloc_prepare(struct tx_part *part, const struct tx_run *tx_run)
{
	const struct fs *fs = part->tx->fs;
	const struct run run = tx_run->run;
	const uint32_t ag = ag_of_block(fs, run.block), start = ag_relative(fs, run.block);
	int error = alloc_load(part->owner, alloc_ag(part->owner->alloc, ag));
	struct buf *buf;
	if (!error)
		error = alloc_pin_header(part, ag, &buf);
	for (uint32_t index = start / FS_MAP_BITS; !error && index <= (start + run.count - 1) / FS_MAP_BITS; index++) {
		error = part_pin_map(part, ag, BLOCK_BLOCK_MAP, index, &buf);
		const uint32_t first = MAX(start, index * FS_MAP_BITS);
		const uint32_t end = MIN(start + run.count, (index + 1) * FS_MAP_BITS);
		for (uint32_t block = first; !error && block < end; block++)
			if (bit_get(((struct map_block *)buf->data)->bits, block % FS_MAP_BITS) == !!tx_run->allocator)
				error = fs_corrupt(part->tx->fs, buf->block, tx_run->allocator ? "a free block is marked used" :
					"a block in use is marked free");
	}
	return error;
}

static uint32_t change_bits(struct tx_part *part, struct buf *map, uint32_t first, uint32_t count, bool set)
{
	uint8_t *bits = ((struct map_block *)map->data)->bits;
	uint32_t flipped = 0;
	for (uint32_t bit = first; bit < first + count; bit++) {
		flipped += bit_get(bits, bit) != set;
		if (set)
			bits[bit / 8] |= (uint8_t)(1u << (bit % 8));
		else
			bits[bit / 8] &= (uint8_t)~(1u << (bit % 8));
	}
	tx_dirty(part, map, (unsigned)offsetof(struct map_block, bits) + first / 8, (first + count - 1) / 8 - first / 8 + 1);
	return flipped;
}

void alloc_apply(struct tx_part *part, const struct tx_run *tx_run)
{
	struct owner *owner = part->owner;
	const struct fs *fs = owner->fs;
	const bool set = tx_run->allocator != NULL;
	const struct run run = tx_run->run;
	scrub_note(part->tx->fs, run.block, run.count, set);
	const uint32_t ag = ag_of_block(fs, run.block), start = ag_relative(fs, run.block);
	uint32_t flipped = 0;
	for (uint32_t index = start / FS_MAP_BITS; index <= (start + run.count - 1) / FS_MAP_BITS; index++) {
		const uint32_t first = MAX(start, index * FS_MAP_BITS);
		const uint32_t end = MIN(start + run.count, (index + 1) * FS_MAP_BITS);
		struct buf *map = pinned(part, map_place(fs, ag, BLOCK_BLOCK_MAP, index));
		flipped += change_bits(part, map, first % FS_MAP_BITS, end - first, set);
		alloc_map_ready(part, ag, BLOCK_BLOCK_MAP, first);
	}
	struct buf *header_buf = pinned(part, header_place(fs, ag));
	struct ag_header *header = (struct ag_header *)header_buf->data;
	const uint32_t free_blocks = le32_get(header->free_blocks);
	header->free_blocks = le32_set(set ? free_blocks - flipped : free_blocks + flipped);
	tx_dirty(part, header_buf, offsetof(struct ag_header, free_blocks), sizeof(header->free_blocks));
	atomic_fetch_add_explicit(&owner->stats.free_blocks_delta, set ? -(long long)flipped : (long long)flipped, memory_order_relaxed);
	if (set)
		return;
	/* Two claims on one block, freed at the same time: each of them found it in use. It is left alone until fsck. */
	if (flipped != run.count)
		(void)fs_corrupt(part->tx->fs, run.block, "a block is freed twice");
	else
		alloc_quarantine(owner->alloc, run, tx_run->kind, stream_next_number(owner));
}

/* ---- growing ---- */

/* The map block in which the AG ends is the only one that may exist and speak of blocks behind that end. */
int alloc_grow_prepare(struct tx_part *part, uint32_t ag)
{
	const uint32_t end = ag_block_count(&part->tx->fs->super, ag);
	struct buf *buf;
	int error = alloc_load(part->owner, alloc_ag(part->owner->alloc, ag));
	if (!error)
		error = alloc_pin_header(part, ag, &buf);
	if (!error && end % FS_MAP_BITS)
		error = part_pin_map(part, ag, BLOCK_BLOCK_MAP, end / FS_MAP_BITS, &buf);
	return error;
}

void alloc_grow_apply(struct tx_part *part, uint32_t ag, uint32_t from, uint32_t to)
{
	const struct fs *fs = part->tx->fs;
	struct buf *buf = pinned(part, header_place(fs, ag));
	struct ag_header *header = (struct ag_header *)buf->data;
	header->blocks = le32_set(to);
	header->free_blocks = le32_set(le32_get(header->free_blocks) + (to - from));
	tx_dirty(part, buf, offsetof(struct ag_header, blocks), 2 * sizeof(header->blocks));
	if (!(from % FS_MAP_BITS))
		return;
	const uint32_t index = from / FS_MAP_BITS, count = MIN(to, (index + 1) * FS_MAP_BITS) - from;
	change_bits(part, pinned(part, map_place(fs, ag, BLOCK_BLOCK_MAP, index)), from % FS_MAP_BITS, count, false);
	alloc_map_ready(part, ag, BLOCK_BLOCK_MAP, from);
}

void alloc_grow_add(struct owner *owner, uint32_t ag, uint32_t from, uint32_t to)
{
	alloc_give_back(owner->alloc, (struct run){.block = ag_first_block(&owner->fs->super, ag) + from, .count = to - from});
}
