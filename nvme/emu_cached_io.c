/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What commands do with the write cache. Each function that may wait is its own resume: it looks at everything again.
 */
#include "nvme/emu_cache.h"

/* A failed write-back ends what waits for one: nothing promises that the next try fares better. */
static bool cache_failed(const struct emu_command *command)
{
	return command->emu->cache->errors != command->errors_before;
}

static void cache_wait(struct emu_command *command, void (*resume)(struct emu_command *))
{
	command->place = EMU_AT_CACHE;
	command->resume = resume;
	cds_list_add_tail(&command->wait, &command->emu->cache->waiters);
}

static void cache_fail(struct emu_command *command) { command->finish(command, command->emu->cache->last_error); }

/* ---- write ---- */

/* Copies up to the end of the line, the piece or the command. False: has to wait. */
static bool write_line(struct emu_command *command)
{
	struct emu_cache *cache = command->emu->cache;
	const bool zero = command->entry.opcode == NVME_CMD_WRITE_ZEROES;
	const uint64_t offset = command->offset + command->position;
	uint64_t size = MIN(EMU_LINE - offset % EMU_LINE, command->length - command->position);
	if (!zero)
		size = MIN(size, command->piece);
	struct emu_line *line = emu_line_get(command->emu, offset / EMU_LINE);
	if (!line || line->writing)
		return false;
	uint8_t *data = emu_line_data(cache, line) + offset % EMU_LINE;
	if (zero)
		memset(data, 0, size);
	else
		emu_iov_copy(command, &command->cursor, data, size, false);
	emu_line_dirty(cache, line, emu_line_sectors(line->number, &(struct emu_range){offset, size}));
	command->position += size;
	command->piece -= zero ? 0 : size;
	return true;
}

static void write_step(struct emu_command *command)
{
	const bool zero = command->entry.opcode == NVME_CMD_WRITE_ZEROES;
	if (cache_failed(command)) {
		cache_fail(command);
		return;
	}
	while (command->position < command->length) {
		if (!zero && command->piece == 0) {
			const uint16_t status = emu_prp_fill(command, command->emu->options.lba_bytes);
			command->cursor = (struct emu_cursor){0};
			if (status) {
				emu_command_complete(command, status);
				return;
			}
		}
		if (!write_line(command)) {
			cache_wait(command, write_step);
			return;
		}
	}
	command->finish(command, 0);
}

void emu_cache_write(struct emu_command *command, void (*finish)(struct emu_command *, int))
{
	command->finish = finish;
	command->piece = 0;
	command->errors_before = command->emu->cache->errors;
	write_step(command);
}

/* ---- read ---- */

/* Goes through the sectors of the piece; with @copy, those that the cache has go to the host. True: it has all. */
static bool read_overlay(struct emu_command *command, bool copy)
{
	const struct emu_cache *cache = command->emu->cache;
	struct emu_cursor cursor = {0};
	uint64_t at = command->offset + command->position;
	const uint64_t end = at + command->piece;
	bool all = true;
	while (at < end) {
		const uint64_t size = MIN(EMU_LINE - at % EMU_LINE, end - at);
		const struct emu_line *line = emu_line_find(cache, at / EMU_LINE);
		const uint8_t wanted = emu_line_sectors(at / EMU_LINE, &(struct emu_range){at, size});
		const uint8_t have = line ? line->valid & wanted : 0;
		all = all && have == wanted;
		const uint64_t step = have == wanted ? size : EMU_SECTOR;
		for (uint64_t done = 0; copy && done < size; done += step) {
			const uint64_t in_line = (at + done) % EMU_LINE;
			uint8_t *data = have & 1u << in_line / EMU_SECTOR ? emu_line_data(cache, line) + in_line : NULL;
			emu_iov_copy(command, &cursor, data, step, true);
		}
		at += size;
	}
	return all;
}

static void read_step(struct emu_command *command);

static void read_done(struct emu_command *command)
{
	const int error = command->io.result;
	if (!error)
		read_overlay(command, true);
	command->position += command->piece;
	emu_cache_reclaim(command->emu);
	if (error)
		command->finish(command, error);
	else
		read_step(command);
}

static void read_step(struct emu_command *command)
{
	struct emu_cache *cache = command->emu->cache;
	while (command->position < command->length) {
		const uint16_t status = emu_prp_fill(command, command->emu->options.lba_bytes);
		if (status) {
			emu_command_complete(command, status);
			return;
		}
		if (!read_overlay(command, false)) {
			command->ticket = ++cache->read_sequence;
			command->resume = read_done;
			cds_list_add_tail(&command->wait, &cache->reads);
			emu_command_backing(command, EMU_READ, command->offset + command->position, command->piece,
				true);
			return;
		}
		read_overlay(command, true);
		command->position += command->piece;
	}
	command->finish(command, 0);
}

void emu_cache_read(struct emu_command *command, void (*finish)(struct emu_command *, int))
{
	command->finish = finish;
	read_step(command);
}

/* ---- everything to the medium ---- */

static void flush_step(struct emu_command *command)
{
	if (cache_failed(command))
		cache_fail(command);
	else if (!emu_cache_clean(command->emu, command->ticket))
		cache_wait(command, flush_step);
	else
		command->finish(command, 0);
}

void emu_cache_write_back(struct emu_command *command, void (*finish)(struct emu_command *, int))
{
	command->finish = finish;
	command->ticket = command->emu->cache->sequence;
	command->errors_before = command->emu->cache->errors;
	flush_step(command);
}

/* ---- one range to the medium ---- */

static struct emu_range range_of(const struct emu_command *command)
{
	return (struct emu_range){command->offset, command->length};
}

static void range_clean_step(struct emu_command *command)
{
	struct emu_cache *cache = command->emu->cache;
	const struct emu_range range = range_of(command);
	struct emu_line *line;
	uint64_t at = 0;
	bool busy = false;
	if (cache_failed(command)) {
		cache_fail(command);
		return;
	}
	while ((line = emu_line_next(cache, &range, &at)) != NULL) {
		const uint8_t sectors = emu_line_sectors(line->number, &range);
		if (line->dirty & sectors && !line->writing)
			(void)emu_writeback_start(command->emu, line, &range);
		busy = busy || (line->dirty | line->writing) & sectors;
	}
	if (busy)
		cache_wait(command, range_clean_step);
	else
		command->finish(command, 0);
}

void emu_cache_range_clean(struct emu_command *command, void (*finish)(struct emu_command *, int))
{
	command->finish = finish;
	command->errors_before = command->emu->cache->errors;
	range_clean_step(command);
}

/* Also waits for older reads: after it no line is left whose content what comes next makes obsolete. */
static void range_empty_step(struct emu_command *command)
{
	struct emu_cache *cache = command->emu->cache;
	const struct emu_range range = range_of(command);
	struct emu_line *line;
	uint64_t at = 0;
	bool busy = false;
	if (cache_failed(command)) {
		cache_fail(command);
		return;
	}
	while ((line = emu_line_next(cache, &range, &at)) != NULL) {
		if (line->dirty && !line->writing)
			(void)emu_writeback_start(command->emu, line, &EMU_RANGE_ALL);
		busy = true;
	}
	if (busy)
		cache_wait(command, range_empty_step);
	else
		command->finish(command, 0);
}

void emu_cache_range_empty(struct emu_command *command, void (*finish)(struct emu_command *, int))
{
	command->finish = finish;
	command->errors_before = command->emu->cache->errors;
	range_empty_step(command);
}
