/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The volatile write cache of an emulated drive (options.cache_bytes).
 *
 * A *line* is 4 KiB of the medium with a bit per 512-byte sector: valid (its newest content is here), dirty (the
 * medium has not been told), writing (a write-back is under way).
 *
 *                 write                 write-back begins
 *     free  -----------------> dirty ----------------------> writing
 *       ^                       ^  ^                          |   |
 *       |      no old read      |  |  some sectors are left   |   | all sectors are written
 *     retired ------------------+  +--------------------------+   |
 *       ^            write                                        |
 *       +---------------------------------------------------------+
 *
 * A write waits while its line is being written, so what goes to the medium never changes under the backing. Reads
 * that miss go to the medium, and what the cache has is laid over the result. A line that has been written stays
 * valid (retired) until all reads have come back that were sent before: they may have seen the medium as it was.
 *
 * Dirty lines are listed in the order in which they became dirty (sequence). A flush writes all up to the newest of its
 * arrival, FUA the sectors of its range only: what else is volatile stays so. Eviction takes the oldest.
 */
#ifndef LANEFS_NVME_EMU_CACHE_H
#define LANEFS_NVME_EMU_CACHE_H

#include "nvme/emu_internal.h"

enum {
	EMU_SECTOR = 512,
	EMU_LINE = 4096,
	EMU_LINE_SECTORS = EMU_LINE / EMU_SECTOR,
	EMU_LINES_MIN = 8,
	EMU_WRITEBACKS = 16,         /* under way at once */
	EMU_WRITEBACK_LINES = 32,    /* neighbours that are written together */
};

struct emu_line {
	struct cds_list_head node;   /* free, dirty or retired; itself while writing */
	struct emu_line *next;       /* in its hash bucket */
	uint64_t number;             /* medium offset / EMU_LINE */
	uint64_t sequence;           /* of its becoming dirty */
	uint64_t retired_at;         /* newest read that was under way then */
	uint8_t valid, dirty, writing;
};

struct emu_writeback {
	struct emu *emu;
	bool busy;
	uint64_t sequence;           /* of the oldest line in it */
	unsigned count;
	struct emu_line *line[EMU_WRITEBACK_LINES];
	uint8_t sectors[EMU_WRITEBACK_LINES];
	struct iovec iov[EMU_WRITEBACK_LINES];
	struct emu_io io;
};

struct emu_cache {
	unsigned line_count, bucket_count; /* bucket_count: power of two */
	struct emu_line *lines, **buckets;
	uint8_t *data;
	struct cds_list_head free, dirty, retired;
	struct cds_list_head reads;   /* emu_command.wait: at the backing, oldest first */
	struct cds_list_head waiters; /* emu_command.wait: for room or write-back */
	uint64_t sequence, read_sequence;
	uint64_t dirty_sectors, writing_lines;
	uint64_t errors;              /* failed write-backs */
	int last_error;
	struct emu_writeback writeback[EMU_WRITEBACKS];
};

/* Bytes of the medium. */
struct emu_range {
	uint64_t offset, length;
};
#define EMU_RANGE_ALL ((struct emu_range){0, UINT64_MAX})

/* The sectors of line @number that lie in the range. */
uint8_t emu_line_sectors(uint64_t number, const struct emu_range *range);
uint8_t *emu_line_data(const struct emu_cache *cache, const struct emu_line *line);
struct emu_line *emu_line_find(const struct emu_cache *cache, uint64_t number);
/* Finds or makes it. NULL: there is no room; eviction is under way. */
struct emu_line *emu_line_get(struct emu *emu, uint64_t number);
void emu_line_dirty(struct emu_cache *cache, struct emu_line *line, uint8_t sectors);
/* The lines of a range one after the other; @at begins as 0. NULL: no more. */
struct emu_line *emu_line_next(const struct emu_cache *cache, const struct emu_range *range, uint64_t *at);
/* Writes the line's dirty sectors that lie in the range, and those of neighbours. False: too many are under way. */
bool emu_writeback_start(struct emu *emu, struct emu_line *line, const struct emu_range *range);
/* The oldest dirty lines up to @sequence. True: all of them have been written. */
bool emu_cache_clean(struct emu *emu, uint64_t sequence);

#endif
