/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who owns which block. The bits of an AG belong to its owner; they are made when the first of them is set, and cost three
 * bits for each block of an AG that is in use. An AG of the range for which there is no memory is not judged, and counted.
 */
#include "fs/scrub.h"

#include <stdlib.h>

#include "fs/alloc_internal.h"
#include "fs/cache.h"

enum { MAP_BLOCKS_MAX = FS_AG_BLOCKS_MAX / FS_MAP_BITS + 1 };

int scrub_space_create(struct scrub *scrub)
{
	scrub->ag_count = atomic_load(&scrub->fs->open_ag_count);
	scrub->ag_blocks = le32_get(scrub->fs->super.ag_blocks);
	scrub->ag = calloc(scrub->ag_count, sizeof(*scrub->ag));
	return scrub->ag ? 0 : -ENOMEM;
}

void scrub_space_destroy(struct scrub *scrub)
{
	scrub_range_end(scrub); /* of a round that was abandoned */
	free(scrub->ag);
	scrub->ag = NULL;
}

static size_t bit_words(const struct scrub *scrub) { return div_round_up(scrub->ag_blocks, 64); }

uint64_t scrub_bits_bytes(const struct scrub *scrub) { return 3 * bit_words(scrub) * sizeof(uint64_t); }

/* The AG with its bits; NULL when it is not judged, or not in this round. On its owner, no wait. */
static struct scrub_ag *bits_get(struct scrub *scrub, uint32_t number)
{
	struct scrub_ag *ag = scrub_in_range(scrub, number) ? &scrub->ag[number] : NULL;
	if (!ag || ag->unknown)
		return NULL;
	if (ag->data)
		return ag;
	const size_t words = bit_words(scrub), bytes = scrub_bits_bytes(scrub);
	if (__atomic_load_n(&scrub->bits_left, __ATOMIC_RELAXED) >= bytes)
		ag->data = calloc(3 * words, sizeof(uint64_t));
	if (!ag->data) {
		ag->unknown = true;
		scrub_count(&scrub->stats.unjudged, 1);
		return NULL;
	}
	__atomic_fetch_sub(&scrub->bits_left, bytes, __ATOMIC_RELAXED);
	ag->structure = ag->data + words;
	ag->fresh = ag->structure + words;
	return ag;
}

/* Bits of [from, end) that lie in the word of @from. */
static uint64_t word_mask(uint32_t from, uint32_t end)
{
	const uint32_t next = MIN(end, (uint32_t)align_down(from, 64) + 64);
	return ~0ull >> (64 - (next - from)) << (from % 64);
}

void scrub_note(struct fs *fs, uint64_t block, uint32_t count, bool allocated)
{
	struct scrub *scrub = fs->scrub;
	if (LIKELY(!atomic_load_explicit(&scrub->noting, memory_order_relaxed)))
		return;
	struct scrub_ag *ag = bits_get(scrub, ag_of_block(fs, block));
	if (!ag)
		return;
	const uint32_t start = ag_relative(fs, block), end = start + count;
	for (uint32_t at = start; at < end; at = (uint32_t)align_down(at, 64) + 64) {
		const uint64_t mask = word_mask(at, end);
		ag->data[at / 64] &= ~mask;
		ag->structure[at / 64] &= ~mask;
		if (allocated)
			ag->fresh[at / 64] |= mask;
		else
			ag->fresh[at / 64] &= ~mask;
	}
}

/* ---- claims ---- */

struct claim {
	struct scrub *scrub;
	struct owner *owner;            /* of the AG */
	uint32_t ag, start, count;      /* blocks, within the AG */
	bool data;
	uint64_t unmarked, twice;       /* the first such block, on the device; 0: none */
};

/* The map block is pinned: no wait. */
static void claim_bits(struct claim *claim, const struct map_block *map, uint32_t from, uint32_t end)
{
	struct scrub_ag *ag = bits_get(claim->scrub, claim->ag);
	const le64_t *words = (const le64_t *)map->bits;
	const uint64_t base = ag_first_block(&claim->scrub->fs->super, claim->ag);
	const uint32_t first = le32_get(map->index) * FS_MAP_BITS;
	for (uint32_t at = from; at < end; at = (uint32_t)align_down(at, 64) + 64) {
		const uint64_t mask = word_mask(at, end);
		const uint64_t unmarked = mask & ~le64_get(words[(at - first) / 64]);
		if (unmarked && !claim->unmarked)
			claim->unmarked = base + align_down(at, 64) + (unsigned)__builtin_ctzll(unmarked);
		if (!ag)
			continue;
		const uint64_t others = mask & (claim->data ? ag->data[at / 64] | ag->structure[at / 64] : ag->data[at / 64]);
		if (others && !claim->twice)
			claim->twice = base + align_down(at, 64) + (unsigned)__builtin_ctzll(others);
		*(claim->data ? &ag->data[at / 64] : &ag->structure[at / 64]) |= mask;
	}
}

static MAY_WAIT int claim_run(void *arg)
{
	struct claim *claim = arg;
	const uint32_t end = claim->start + claim->count;
	_Static_assert(FS_MAP_BITS % 64 == 0, "words do not reach over map blocks");
	int error = 0;
	for (uint32_t at = claim->start; at < end && !error;) {
		struct buf *buf;
		const uint32_t next = MIN(end, (at / FS_MAP_BITS + 1) * FS_MAP_BITS);
		error = alloc_map_get(claim->owner, claim->ag, BLOCK_BLOCK_MAP, at / FS_MAP_BITS, &buf);
		if (error)
			break;
		claim_bits(claim, (const struct map_block *)buf->data, at, next);
		buf_put(claim->owner, buf);
		at = next;
	}
	return error;
}

int scrub_claim(struct scrub *scrub, uint64_t block, uint32_t count, bool data, uint64_t ino)
{
	struct fs *fs = scrub->fs;
	const uint32_t ag = ag_of_block(fs, block);
	/* Of groups that came while it ran, nothing is known. The verifiers have seen that the blocks lie in one group. */
	if (!scrub_in_range(scrub, ag))
		return 0;
	struct claim claim = {.scrub = scrub, .owner = owner_of_ag(fs, ag), .ag = ag, .start = ag_relative(fs, block),
		.count = count, .data = data};
	const int error = reactor_call(claim.owner->reactor, claim_run, &claim);
	if (claim.unmarked)
		scrub_find(scrub, ino, claim.unmarked, "block %llu is in use, but the block map says free",
			(unsigned long long)claim.unmarked);
	if (claim.twice)
		scrub_find(scrub, ino, claim.twice, "block %llu belongs to something else, too", (unsigned long long)claim.twice);
	scrub->incomplete |= error != 0;
	return scrub_goes_on(error) ? 0 : error;
}

/* ---- the block map ---- */

struct leak {
	uint64_t first, count, runs;
	bool open;
};

static void word_compare(struct leak *leak, uint64_t base, uint32_t at, uint64_t leaked)
{
	for (unsigned bit = 0; bit < 64; bit++) {
		const bool is = leaked >> bit & 1;
		if (is && !leak->count)
			leak->first = base + at + bit;
		leak->runs += is && !leak->open;
		leak->count += is;
		leak->open = is;
	}
}

static uint64_t bits_below(uint32_t from, uint32_t limit)
{
	return limit <= from ? 0 : limit - from >= 64 ? ~0ull : (1ull << (limit - from)) - 1;
}

/* All of the AG's map is pinned: no wait. Returns the number of free blocks. */
static uint32_t maps_compare(const struct scrub *scrub, uint32_t number, struct buf **maps, struct leak *leak)
{
	const struct fs_super *super = &scrub->fs->super;
	const struct scrub_ag *ag = &scrub->ag[number];
	const uint32_t blocks = ag_block_count(super, number), fixed = ag_fixed_blocks(super);
	uint32_t used = 0;
	for (uint32_t at = 0; at < blocks; at += 64) {
		const le64_t *words = (const le64_t *)((const struct map_block *)maps[at / FS_MAP_BITS]->data)->bits;
		const uint64_t marked = le64_get(words[at % FS_MAP_BITS / 64]) & bits_below(at, blocks);
		const uint64_t known = bits_below(at, fixed) |
			(ag->data ? ag->data[at / 64] | ag->structure[at / 64] | ag->fresh[at / 64] : 0);
		used += (uint32_t)__builtin_popcountll(marked);
		if (marked & ~known)
			word_compare(leak, ag_first_block(super, number), at, marked & ~known);
		else
			leak->open = false;
	}
	return blocks - used;
}

int scrub_ag_space(struct scrub *scrub, uint32_t number)
{
	struct fs *fs = scrub->fs;
	struct owner *owner = scrub->owner;
	struct buf *maps[MAP_BLOCKS_MAX], *header = NULL;
	const uint32_t count = (uint32_t)div_round_up(ag_block_count(&fs->super, number), FS_MAP_BITS);
	uint32_t got = 0, free_blocks = 0, counted = 0;
	struct leak leak = {0};
	int error = buf_get(owner, ag_first_block(&fs->super, number), BLOCK_AG_HEADER, number, &header);
	while (!error && got < count) {
		error = alloc_map_get(owner, number, BLOCK_BLOCK_MAP, got, &maps[got]);
		got += !error;
	}
	if (!error && got == div_round_up(ag_block_count(&fs->super, number), FS_MAP_BITS)) {
		free_blocks = le32_get(((const struct ag_header *)header->data)->free_blocks);
		counted = maps_compare(scrub, number, maps, &leak);
	}
	for (uint32_t i = 0; i < got; i++)
		buf_put(owner, maps[i]);
	if (header)
		buf_put(owner, header);
	if (!error && free_blocks != counted)
		scrub_find(scrub, 0, ag_first_block(&fs->super, number), "AG %u: free_blocks is %u, the block map has %u", number,
			free_blocks, counted);
	if (!error && leak.count && !scrub->incomplete && !scrub->ag[number].unknown)
		scrub_find(scrub, 0, leak.first, "AG %u: %llu blocks in %llu runs, the first is %llu, are marked used, but nothing refers "
			"to them", number, (unsigned long long)leak.count, (unsigned long long)leak.runs,
			(unsigned long long)leak.first);
	return scrub_goes_on(error) ? 0 : error;
}
