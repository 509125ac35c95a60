/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/crash_image.h"

#include <stdlib.h>
#include <xxhash.h>

/* ---- hashes of images ---- */

static uint64_t sector_hash(const uint8_t *image, uint64_t sector)
{
	return XXH3_64bits_withSeed(image + sector * CRASH_SECTOR, CRASH_SECTOR, sector + 1);
}

uint64_t crash_hash(const uint8_t *image, const struct record_entry *entry)
{
	uint64_t sum = 0;
	for (uint64_t sector = entry->offset / CRASH_SECTOR; sector < (entry->offset + entry->length) / CRASH_SECTOR; sector++)
		sum += sector_hash(image, sector);
	return sum;
}

static uint64_t touched_words(const struct crash *crash) { return div_round_up(crash->options.size / FS_BLOCK_SIZE, 64); }

uint64_t crash_memory_hash(const struct crash *crash, unsigned depth)
{
	const uint8_t *base = crash->levels[depth].base;
	uint64_t hash = crash->levels[depth].base_hash;
	for (uint64_t i = 0; i < touched_words(crash); i++)
		for (uint64_t word = crash->touched[i]; word; word &= word - 1) {
			const struct record_entry block = {.offset = (i * 64 + (uint64_t)__builtin_ctzll(word)) << FS_BLOCK_SHIFT,
				.length = FS_BLOCK_SIZE};
			if (memcmp(crash->memory + block.offset, base + block.offset, FS_BLOCK_SIZE))
				hash += crash_hash(crash->memory, &block) - crash_hash(base, &block);
		}
	return hash;
}

bool hash_set_add(struct hash_set *set, uint64_t hash)
{
	hash += !hash; /* 0 is an empty slot */
	if (set->count * 2 >= set->capacity) {
		const struct hash_set old = *set;
		*set = (struct hash_set){.capacity = MAX(old.capacity * 2, (uint64_t)1024)};
		set->slots = calloc(set->capacity, sizeof(set->slots[0]));
		if (!set->slots)
			sim_fail("crash: no memory to count states");
		for (uint64_t i = 0; i < old.capacity; i++)
			if (old.slots[i])
				hash_set_add(set, old.slots[i]);
		free(old.slots);
	}
	uint64_t at = hash * 0x9e3779b97f4a7c15ull & (set->capacity - 1);
	while (set->slots[at] && set->slots[at] != hash)
		at = (at + 1) & (set->capacity - 1);
	if (set->slots[at])
		return false;
	set->slots[at] = hash;
	set->count++;
	return true;
}

void hash_set_clear(struct hash_set *set)
{
	if (set->count)
		memset(set->slots, 0, set->capacity * sizeof(set->slots[0]));
	set->count = 0;
}

/* ---- writes ---- */

uint64_t crash_durable_at(const struct record_entry *entries, size_t count, size_t index)
{
	const struct record_entry *write = &entries[index];
	if (write->fua)
		return write->completed;
	uint64_t at = UINT64_MAX;
	for (size_t i = index + 1; i < count; i++)
		if (entries[i].kind == RECORD_FLUSH && entries[i].submitted > write->completed)
			at = MIN(at, entries[i].completed);
		else if (entries[i].submitted > at)
			break;
	return at;
}

bool crash_is_change(const struct record_entry *entry) { return entry->kind == RECORD_WRITE || entry->kind == RECORD_UNMAP; }

void crash_apply(uint8_t *image, const struct record_entry *entry, enum crash_tear tear, uint64_t *random)
{
	/* What is unmapped holds anything afterwards: what nobody ever wrote, so that it shows when somebody still needs it. */
	if (entry->kind == RECORD_UNMAP) {
		memset(image + entry->offset, 0xdd, entry->length);
		return;
	}
	const uint64_t piece = tear == CRASH_UNTORN ? entry->length : tear == CRASH_TEAR_512 ? CRASH_SECTOR : FS_BLOCK_SIZE;
	for (uint64_t at = 0; at < entry->length; at += piece)
		if (tear == CRASH_UNTORN || sim_rand(random) & 1)
			memcpy(image + entry->offset + at, entry->data + at, MIN(piece, entry->length - at));
}

void crash_touch(struct crash *crash, const struct record_entry *entry)
{
	if (!crash_is_change(entry) || !entry->length)
		return;
	const uint64_t end = (entry->offset + entry->length - 1) >> FS_BLOCK_SHIFT;
	for (uint64_t block = entry->offset >> FS_BLOCK_SHIFT; block <= end; block++)
		crash->touched[block / 64] |= 1ull << block % 64;
}

void crash_restore(struct crash *crash, unsigned depth)
{
	const uint8_t *base = crash->levels[depth].base;
	for (uint64_t i = 0; i < touched_words(crash); i++) {
		for (uint64_t word = crash->touched[i]; word; word &= word - 1) {
			const uint64_t at = (i * 64 + (uint64_t)__builtin_ctzll(word)) << FS_BLOCK_SHIFT;
			memcpy(crash->memory + at, base + at, FS_BLOCK_SIZE);
		}
		crash->touched[i] = 0;
	}
}

void crash_descend(struct crash *crash, unsigned depth, uint64_t hash)
{
	struct crash_level *next = &crash->levels[depth + 1];
	memcpy(next->base, crash->memory, crash->options.size);
	next->base_hash = hash;
}
