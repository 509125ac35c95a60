/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The maps of an AG, block by block, with those that were never written standing for what mkfs would have made; and the
 * last step of a check: every bit of the block map against what was reached. Bits that differ are reported as runs.
 */
#include "mkfs/fsck_internal.h"

enum { MAP_WORDS = FS_MAP_BYTES / 8 };

const uint64_t *fsck_map_read(struct fsck *fsck, struct fsck_ag *ag, enum fsck_map map, uint32_t index, void *buffer,
	bool *out_known)
{
	const uint64_t ready[] = {ag->block_map_ready, ag->inode_map_ready, ag->inode_free_map_ready};
	const enum block_type types[] = {BLOCK_BLOCK_MAP, BLOCK_INODE_MAP, BLOCK_INODE_FREE_MAP};
	*out_known = true;
	if (!(ready[map] >> index & 1))
		return NULL;
	uint64_t place = ag->first + FS_AG_MAPS_FIRST + map * fsck->map_blocks + index;
	const struct map_block *block = fsck_read_block(fsck, place, buffer, types[map], ag->number);
	*out_known = block;
	if (!block)
		return NULL;
	if (le32_get(block->index) != index)
		fsck_find(fsck, "block %" PRIu64 " (map): index is %" PRIu32 ", not %" PRIu32, place,
			le32_get(block->index), index);
	if (!fsck_is_zero(block->reserved, sizeof(block->reserved)))
		fsck_find(fsck, "block %" PRIu64 " (map): reserved fields are not zero", place);
	return (const uint64_t *)block->bits;
}

/* Runs of bits in which the block map and reachability differ. */
struct map_compare {
	struct fsck *fsck;
	const struct fsck_ag *ag;
	bool used;                      /* kind of the open run: the map says used */
	uint32_t run_first, run_count;
	uint64_t reached, set;          /* bits within the AG: reached or fixed; set in the map */
};

static void run_close(struct map_compare *compare)
{
	uint64_t first = compare->ag->first + compare->run_first, last = first + compare->run_count - 1;
	if (compare->run_count && compare->run_first >= compare->ag->blocks)
		fsck_find(compare->fsck, "AG %" PRIu32 ": block map: bits past the end of the AG are not set",
			compare->ag->number);
	else if (compare->run_count && compare->run_first < compare->fsck->fixed_blocks)
		fsck_find(compare->fsck, "AG %" PRIu32 ": block map: header and maps are not marked used",
			compare->ag->number);
	else if (compare->run_count)
		fsck_find(compare->fsck, "AG %" PRIu32 ": block map: blocks %" PRIu64 "-%" PRIu64 " are %s",
			compare->ag->number, first, last,
			compare->used ? "marked used, but nothing refers to them" : "in use, but marked free");
	compare->run_count = 0;
}

/* Bits [from, from + 64) of the AG that are below a limit. */
static uint64_t bits_below(uint32_t from, uint32_t limit)
{
	return limit <= from ? 0 : limit - from >= 64 ? ~0ull : (1ull << (limit - from)) - 1;
}

static void word_differs(struct map_compare *compare, uint32_t from, uint64_t differs, uint64_t map)
{
	for (; differs; differs &= differs - 1) {
		unsigned bit = (unsigned)__builtin_ctzll(differs);
		bool used = map >> bit & 1;
		uint32_t at = from + bit;
		bool joins = compare->run_count && compare->run_first + compare->run_count == at &&
			compare->used == used && at != compare->ag->blocks && at != compare->fsck->fixed_blocks;
		if (!joins) {
			run_close(compare);
			compare->run_first = at;
			compare->used = used;
		}
		compare->run_count++;
	}
}

static void block_compare(struct map_compare *compare, uint32_t index, const uint64_t *bits)
{
	const struct fsck_ag *ag = compare->ag;
	for (uint32_t i = 0; i < MAP_WORDS; i++) {
		uint32_t from = (index * MAP_WORDS + i) * 64;
		uint64_t fixed = bits_below(from, compare->fsck->fixed_blocks), inside = bits_below(from, ag->blocks);
		uint64_t reached = fixed | (ag->reached && inside ? ag->reached[from / 64] & inside : 0);
		uint64_t map = bits ? le64toh(bits[i]) : fixed | ~inside;
		uint64_t expected = reached | ~inside;
		if (map != expected)
			word_differs(compare, from, map ^ expected, map);
		compare->reached += (unsigned)__builtin_popcountll(reached);
		compare->set += (unsigned)__builtin_popcountll(map & inside);
	}
}

void fsck_ag_block_map(struct fsck *fsck, struct fsck_ag *ag)
{
	struct map_compare compare = {.fsck = fsck, .ag = ag};
	bool complete = ag->readable;
	if (ag->readable && !ag->block_map_ready && !ag->reached)
		compare.reached = compare.set = fsck->fixed_blocks;
	else
		for (uint32_t i = 0; i < fsck->map_blocks && !fsck->error; i++) {
			bool known = false;
			const uint64_t *bits =
				ag->readable ? fsck_map_read(fsck, ag, FSCK_MAP_BLOCKS, i, fsck->block, &known) : NULL;
			complete = complete && known;
			if (known)
				block_compare(&compare, i, bits);
		}
	if (fsck->error)
		return;
	run_close(&compare);
	fsck->out->blocks_used += compare.reached;
	if (complete && ag->free_blocks != ag->blocks - compare.set)
		fsck_find(fsck, "AG %" PRIu32 ": free_blocks is %" PRIu32 ", the block map has %" PRIu64, ag->number,
			ag->free_blocks, ag->blocks - compare.set);
	fsck->totals_unknown |= !ag->readable;
	fsck->free_blocks += ag->free_blocks;
	fsck->used_inodes += ag->used_inodes;
}
