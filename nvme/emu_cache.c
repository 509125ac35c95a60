/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The write cache: its lines, write-back, and what a power cut leaves. The states are drawn in emu_cache.h; what
 * commands do with it is in emu_cached_io.c.
 */
#include "nvme/emu_cache.h"

#include <errno.h>
#include <stdlib.h>

#include "reactor/memory.h"

enum { EVICT_PART = EMU_LINES_MIN }; /* of the cache */

/* ---- lines ---- */

static struct emu_line **bucket_of(const struct emu_cache *cache, uint64_t number)
{
	return &cache->buckets[(number * 0x9e3779b97f4a7c15 >> 32) & (cache->bucket_count - 1)];
}

uint8_t *emu_line_data(const struct emu_cache *cache, const struct emu_line *line)
{
	return cache->data + (size_t)(line - cache->lines) * EMU_LINE;
}

uint8_t emu_line_sectors(uint64_t number, const struct emu_range *range)
{
	const uint64_t start = number * EMU_LINE;
	const uint64_t first = MAX(start, range->offset), end = MIN(start + EMU_LINE, range->offset + range->length);
	if (first >= end)
		return 0;
	const unsigned skip = (unsigned)(first - start) / EMU_SECTOR, count = (unsigned)(end - first) / EMU_SECTOR;
	return (uint8_t)(((1u << count) - 1) << skip);
}

struct emu_line *emu_line_find(const struct emu_cache *cache, uint64_t number)
{
	struct emu_line *line = *bucket_of(cache, number);
	while (line && line->number != number)
		line = line->next;
	return line;
}

static void line_free(struct emu_cache *cache, struct emu_line *line)
{
	struct emu_line **at = bucket_of(cache, line->number);
	while (*at != line)
		at = &(*at)->next;
	*at = line->next;
	line->valid = 0;
	cds_list_del(&line->node);
	cds_list_add(&line->node, &cache->free);
}

static bool read_older_than(const struct emu_cache *cache, uint64_t read_sequence)
{
	if (cds_list_empty((struct cds_list_head *)&cache->reads))
		return false;
	return CONTAINER_OF(cache->reads.next, struct emu_command, wait)->ticket <= read_sequence;
}

/* True: something was freed. */
static bool retired_reclaim(struct emu_cache *cache)
{
	bool freed = false;
	while (!cds_list_empty(&cache->retired)) {
		struct emu_line *line = cds_list_first_entry(&cache->retired, struct emu_line, node);
		if (read_older_than(cache, line->retired_at))
			break;
		line_free(cache, line);
		freed = true;
	}
	return freed;
}

/* Some lines at a time: what need not go stays volatile. */
static void evict(struct emu *emu)
{
	struct emu_cache *cache = emu->cache;
	const unsigned at_once = cache->line_count / EVICT_PART;
	while (cache->writing_lines < at_once && !cds_list_empty(&cache->dirty)) {
		struct emu_line *oldest = cds_list_first_entry(&cache->dirty, struct emu_line, node);
		if (!emu_writeback_start(emu, oldest, &EMU_RANGE_ALL))
			break;
	}
}

struct emu_line *emu_line_get(struct emu *emu, uint64_t number)
{
	struct emu_cache *cache = emu->cache;
	struct emu_line *line = emu_line_find(cache, number);
	if (line)
		return line;
	if (cds_list_empty(&cache->free)) {
		evict(emu);
		return NULL;
	}
	line = cds_list_first_entry(&cache->free, struct emu_line, node);
	struct emu_line **bucket = bucket_of(cache, number);
	line->number = number;
	line->next = *bucket;
	*bucket = line;
	cds_list_del(&line->node);
	CDS_INIT_LIST_HEAD(&line->node);
	return line;
}

void emu_line_dirty(struct emu_cache *cache, struct emu_line *line, uint8_t sectors)
{
	assert(!line->writing);
	if (!line->dirty) {
		line->sequence = ++cache->sequence;
		cds_list_del(&line->node);
		cds_list_add_tail(&line->node, &cache->dirty);
	}
	cache->dirty_sectors += (unsigned)__builtin_popcount(sectors & ~line->dirty);
	line->dirty |= sectors;
	line->valid |= sectors;
}

struct emu_line *emu_line_next(const struct emu_cache *cache, const struct emu_range *range, uint64_t *at)
{
	const uint64_t first = range->offset / EMU_LINE, last = (range->offset + range->length - 1) / EMU_LINE;
	while (last - first < cache->line_count && *at <= last - first) {
		struct emu_line *line = emu_line_find(cache, first + (*at)++);
		if (line)
			return line;
	}
	/* A long range: whichever lines there are. */
	while (last - first >= cache->line_count && *at < cache->line_count) {
		struct emu_line *line = &cache->lines[(*at)++];
		if (line->valid && line->number >= first && line->number <= last)
			return line;
	}
	return NULL;
}

/* ---- write-back ---- */

static void dirty_insert(struct emu_cache *cache, struct emu_line *line)
{
	struct cds_list_head *at = cache->dirty.next;
	while (at != &cache->dirty && CONTAINER_OF(at, struct emu_line, node)->sequence < line->sequence)
		at = at->next;
	cds_list_add_tail(&line->node, at);
}

static void line_written(struct emu_cache *cache, struct emu_line *line)
{
	if (line->dirty) {
		dirty_insert(cache, line);
		return;
	}
	line->retired_at = cache->read_sequence;
	cds_list_add_tail(&line->node, &cache->retired);
}

/* It stays dirty, as the youngest: others get their turn. */
static void line_not_written(struct emu_cache *cache, struct emu_line *line, uint8_t sectors)
{
	line->dirty |= sectors;
	line->sequence = ++cache->sequence;
	cache->dirty_sectors += (unsigned)__builtin_popcount(sectors);
	cds_list_add_tail(&line->node, &cache->dirty);
}

/* Each of those that wait now is asked once. */
static void waiters_resume(struct emu_cache *cache)
{
	const struct cds_list_head *node;
	unsigned count = 0;
	cds_list_for_each(node, &cache->waiters)
		count++;
	for (; count > 0 && !cds_list_empty(&cache->waiters); count--) {
		struct emu_command *command = CONTAINER_OF(cache->waiters.next, struct emu_command, wait);
		cds_list_del_init(&command->wait);
		command->place = EMU_AT_WORK;
		command->resume(command);
	}
}

static void writeback_done(struct emu_io *io)
{
	struct emu_writeback *writeback = CONTAINER_OF(io, struct emu_writeback, io);
	struct emu *emu = writeback->emu;
	struct emu_cache *cache = emu->cache;
	/* What survives a power cut and cannot be written is lost like the rest. */
	const bool lost = io->result && (emu->state == EMU_LEAVING || emu->state == EMU_CUTTING);
	for (unsigned i = 0; i < writeback->count; i++) {
		struct emu_line *line = writeback->line[i];
		line->writing = 0;
		if (io->result && !lost)
			line_not_written(cache, line, writeback->sectors[i]);
		else
			line_written(cache, line);
	}
	if (io->result) {
		cache->errors++;
		cache->last_error = io->result;
	}
	cache->writing_lines -= writeback->count;
	writeback->busy = false;
	emu->backing_ios--;
	retired_reclaim(cache);
	waiters_resume(cache);
	emu_settle(emu);
}

static struct emu_writeback *writeback_get(struct emu_cache *cache)
{
	for (unsigned i = 0; i < EMU_WRITEBACKS; i++)
		if (!cache->writeback[i].busy)
			return &cache->writeback[i];
	return NULL;
}

/* The lowest run of set bits. */
static uint8_t first_run(uint8_t bits)
{
	const unsigned above = bits + (bits & -bits);
	return (uint8_t)(bits & ~above);
}

static void writeback_add(struct emu_writeback *writeback, struct emu_line *line, uint8_t sectors)
{
	struct emu_cache *cache = writeback->emu->cache;
	const unsigned first = (unsigned)__builtin_ctz(sectors), count = (unsigned)__builtin_popcount(sectors);
	writeback->line[writeback->count] = line;
	writeback->sectors[writeback->count] = sectors;
	writeback->iov[writeback->count] = (struct iovec){
		.iov_base = emu_line_data(cache, line) + first * EMU_SECTOR,
		.iov_len = count * EMU_SECTOR,
	};
	if (writeback->count++ == 0)
		writeback->io.offset = line->number * EMU_LINE + first * EMU_SECTOR;
	writeback->io.length += count * EMU_SECTOR;
	writeback->sequence = MIN(writeback->sequence, line->sequence);
	line->dirty &= (uint8_t)~sectors;
	line->writing = sectors;
	cache->dirty_sectors -= count;
	cds_list_del(&line->node);
	CDS_INIT_LIST_HEAD(&line->node);
}

bool emu_writeback_start(struct emu *emu, struct emu_line *line, const struct emu_range *range)
{
	struct emu_cache *cache = emu->cache;
	struct emu_writeback *writeback = writeback_get(cache);
	if (!writeback)
		return false;
	writeback->emu = emu;
	writeback->busy = true;
	writeback->count = 0;
	writeback->sequence = UINT64_MAX;
	writeback->io = (struct emu_io){.op = EMU_WRITE, .iov = writeback->iov, .done = writeback_done};
	uint8_t run = first_run(line->dirty & emu_line_sectors(line->number, range));
	do {
		const uint64_t neighbour = line->number + 1;
		writeback_add(writeback, line, run);
		line = run & 1u << (EMU_LINE_SECTORS - 1) ? emu_line_find(cache, neighbour) : NULL;
		if (line && !line->writing)
			run = first_run(line->dirty & emu_line_sectors(line->number, range));
	} while (writeback->count < EMU_WRITEBACK_LINES && line && !line->writing && run & 1);
	writeback->io.iov_count = writeback->count;
	cache->writing_lines += writeback->count;
	emu->backing_ios++;
	emu->backing.submit(emu->backing.arg, &writeback->io);
	return true;
}

bool emu_cache_clean(struct emu *emu, uint64_t sequence)
{
	struct emu_cache *cache = emu->cache;
	while (!cds_list_empty(&cache->dirty)) {
		struct emu_line *oldest = cds_list_first_entry(&cache->dirty, struct emu_line, node);
		if (oldest->sequence > sequence)
			break;
		if (!emu_writeback_start(emu, oldest, &EMU_RANGE_ALL))
			return false;
	}
	for (unsigned i = 0; i < EMU_WRITEBACKS; i++)
		if (cache->writeback[i].busy && cache->writeback[i].sequence <= sequence)
			return false;
	return true;
}

void emu_cache_reclaim(struct emu *emu)
{
	if (emu->cache && retired_reclaim(emu->cache))
		waiters_resume(emu->cache);
}

/* ---- power cuts ---- */

/* Which of the dirty sectors survive; @chance of 256. */
static uint8_t survivors(struct emu *emu, uint8_t dirty, unsigned chance)
{
	if (emu->options.cut != EMU_CUT_RANDOM)
		return emu->options.cut == EMU_CUT_NONE ? dirty : 0;
	const unsigned piece = emu->options.tear_bytes / EMU_SECTOR;
	uint8_t kept = 0;
	for (unsigned sector = 0; sector < EMU_LINE_SECTORS; sector += piece)
		if ((emu_random(&emu->cut_random) >> 32) % 256 < chance)
			kept |= (uint8_t)(((1u << piece) - 1) << sector);
	return kept & dirty;
}

void emu_cache_cut(struct emu *emu)
{
	struct emu_cache *cache = emu->cache;
	if (!cache)
		return;
	const unsigned chance = (emu_random(&emu->cut_random) >> 32) % 257;
	for (unsigned i = 0; i < cache->line_count; i++) {
		struct emu_line *line = &cache->lines[i];
		if (!line->dirty)
			continue;
		const uint8_t lost = line->dirty & (uint8_t)~survivors(emu, line->dirty, chance);
		line->dirty &= (uint8_t)~lost;
		line->valid &= (uint8_t)~lost;
		cache->dirty_sectors -= (unsigned)__builtin_popcount(lost);
		emu->stats.lost_bytes += (unsigned)__builtin_popcount(lost) * EMU_SECTOR;
		if (!line->dirty && !line->writing)
			line_free(cache, line);
	}
}

uint64_t emu_cache_bytes(const struct emu *emu) { return emu->cache ? emu->cache->dirty_sectors * EMU_SECTOR : 0; }

uint64_t emu_cache_absorbs_max(const struct emu *emu)
{
	return emu->cache ? (uint64_t)emu->cache->line_count * EMU_LINE / EVICT_PART : 0;
}

bool emu_cache_drained(struct emu *emu) { return !emu->cache || emu_cache_clean(emu, UINT64_MAX); }

/* ---- life ---- */

static int cache_alloc(struct emu_cache *cache, uint64_t bytes)
{
	cache->line_count = (unsigned)MAX(bytes / EMU_LINE, (uint64_t)EMU_LINES_MIN);
	cache->bucket_count = 1;
	while (cache->bucket_count < cache->line_count)
		cache->bucket_count *= 2;
	cache->lines = calloc(cache->line_count, sizeof(*cache->lines));
	cache->buckets = calloc(cache->bucket_count, sizeof(*cache->buckets));
	cache->data = dma_alloc((size_t)cache->line_count * EMU_LINE, EMU_LINE);
	return cache->lines && cache->buckets && cache->data ? 0 : -ENOMEM;
}

int emu_cache_init(struct emu *emu)
{
	if (emu->options.cache_bytes == 0)
		return 0;
	struct emu_cache *cache = emu->cache = calloc(1, sizeof(*cache));
	if (!cache || cache_alloc(cache, emu->options.cache_bytes))
		return -ENOMEM;
	CDS_INIT_LIST_HEAD(&cache->free);
	CDS_INIT_LIST_HEAD(&cache->dirty);
	CDS_INIT_LIST_HEAD(&cache->retired);
	CDS_INIT_LIST_HEAD(&cache->reads);
	CDS_INIT_LIST_HEAD(&cache->waiters);
	for (unsigned i = 0; i < cache->line_count; i++)
		cds_list_add_tail(&cache->lines[i].node, &cache->free);
	return 0;
}

void emu_cache_fini(struct emu *emu)
{
	struct emu_cache *cache = emu->cache;
	if (!cache)
		return;
	dma_free(cache->data);
	free(cache->lines);
	free(cache->buckets);
	free(cache);
}
