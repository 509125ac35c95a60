/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * I/O commands (NVM Command Set 1.0, chapter 3).
 *
 *                 without a cache of its own              with one
 *   read          backing -> host                         what the cache has is laid over it
 *   write         host -> backing                         host -> cache
 *     durable     then the backing's flush                then write-back of the range, then the backing's flush
 *   flush         the backing's                           write-back of everything before, then the backing's
 *   zeroes        the backing's                           short: a write of zeroes; long: as deallocate
 *   deallocate    the backing's                           the range leaves the cache first
 *
 * Durable is a write with FUA, and every write while the volatile cache is off. Data between host memory and the
 * backing is not copied; it goes in pieces of as many vectors as a command has room for.
 */
#include <errno.h>

#include "nvme/emu_internal.h"

static void io_finish(struct emu_command *command, int error)
{
	const bool write = command->entry.opcode != NVME_CMD_READ;
	if (error == -EILSEQ)
		command->emu->counters.media_errors++;
	emu_command_complete(command, emu_status_of(error, write));
}

/* ---- flush ---- */

static void backing_flushed(struct emu_command *command) { command->flushed(command, command->io.result); }

static void flush_backing(struct emu_command *command, int error)
{
	if (error) {
		command->flushed(command, error);
		return;
	}
	command->resume = backing_flushed;
	emu_command_backing(command, EMU_FLUSH, 0, 0, false);
}

void emu_flush_run(struct emu_command *command, void (*flushed)(struct emu_command *, int))
{
	command->flushed = flushed;
	if (command->emu->cache)
		emu_cache_write_back(command, flush_backing);
	else
		flush_backing(command, 0);
}

static void flush_execute(struct emu_command *command)
{
	command->emu->stats.flushes++;
	if (command->lie)
		io_finish(command, 0);
	else
		emu_flush_run(command, io_finish);
}

/* What changes the medium ends here. The cache may have been turned off on the way. */
static void written(struct emu_command *command, int error)
{
	const struct emu *emu = command->emu;
	if (error || command->lie || !(command->durable || !emu->cache_on)) {
		io_finish(command, error);
		return;
	}
	command->flushed = io_finish;
	if (emu->cache && command->entry.opcode != NVME_CMD_DSM)
		emu_cache_range_clean(command, flush_backing);
	else
		flush_backing(command, 0);
}

/* ---- read and write ---- */

static void transfer_done(struct emu_command *command);

static void transfer_piece(struct emu_command *command)
{
	const bool write = command->entry.opcode == NVME_CMD_WRITE;
	const uint16_t status = emu_prp_fill(command, command->emu->options.lba_bytes);
	if (status) {
		emu_command_complete(command, status);
		return;
	}
	command->resume = transfer_done;
	emu_command_backing(command, write ? EMU_WRITE : EMU_READ, command->offset + command->position, command->piece,
		true);
}

static void transfer_done(struct emu_command *command)
{
	if (command->io.result) {
		io_finish(command, command->io.result);
		return;
	}
	command->position += command->piece;
	if (command->position < command->length)
		transfer_piece(command);
	else if (command->entry.opcode == NVME_CMD_WRITE)
		written(command, 0);
	else
		io_finish(command, 0);
}

static void count_transfer(struct emu_command *command)
{
	struct emu_counters *counters = &command->emu->counters;
	const uint64_t sectors = command->length / 512;
	if (command->entry.opcode == NVME_CMD_READ) {
		counters->read_commands++;
		counters->read_sectors += sectors;
	} else {
		counters->write_commands++;
		counters->written_sectors += sectors;
	}
}

static void transfer_execute(struct emu_command *command)
{
	const struct emu_options *options = &command->emu->options;
	const uint64_t bytes_max = options->mdts == 15 ? UINT64_MAX : (uint64_t)EMU_PAGE << options->mdts;
	if (command->length > bytes_max || options->metadata_bytes) {
		emu_command_complete(command, NVME_SC_INVALID_FIELD | EMU_DNR);
		return;
	}
	const uint16_t status = emu_prp_begin(command, command->length);
	if (status) {
		emu_command_complete(command, status);
		return;
	}
	count_transfer(command);
	if (!command->emu->cache)
		transfer_piece(command);
	else if (command->entry.opcode == NVME_CMD_WRITE)
		emu_cache_write(command, written);
	else
		emu_cache_read(command, io_finish);
}

/* ---- write zeroes ---- */

static void zeroes_done(struct emu_command *command) { written(command, command->io.result); }

static void zeroes_backing(struct emu_command *command, int error)
{
	const bool deallocate = le32_get(command->entry.cdw12) & NVME_WRITE_ZEROES_DEAC;
	const bool discard = deallocate && command->emu->backing.zeroes_by_discard;
	if (error) {
		io_finish(command, error);
		return;
	}
	command->resume = zeroes_done;
	emu_command_backing(command, discard ? EMU_DISCARD : EMU_ZERO, command->offset, command->length, false);
}

static void zeroes_execute(struct emu_command *command)
{
	if (!command->emu->cache)
		zeroes_backing(command, 0);
	else if (command->length <= emu_cache_absorbs_max(command->emu))
		emu_cache_write(command, written);
	else
		emu_cache_range_empty(command, zeroes_backing);
}

/* ---- deallocate ---- */

static bool range_inside(const struct emu_ns *ns, uint64_t first, uint64_t blocks)
{
	return first <= ns->blocks && blocks <= ns->blocks - first;
}

static unsigned range_count(const struct emu_command *command) { return (le32_get(command->entry.cdw10) & 0xff) + 1; }

/* Read again each time: the list stays in host memory. False: it leaves the namespace. */
static bool range_load(struct emu_command *command, unsigned index, const struct emu_ns *ns)
{
	struct nvme_dsm_range range;
	struct emu_cursor cursor = {0};
	for (unsigned i = 0; i <= index; i++)
		emu_iov_copy(command, &cursor, &range, sizeof(range), false);
	const uint64_t first = le64_get(range.first_lba), blocks = le32_get(range.blocks);
	command->offset = ns->first_byte + first * command->emu->options.lba_bytes;
	command->length = blocks * command->emu->options.lba_bytes;
	return range_inside(ns, first, blocks);
}

static void deallocate_next(struct emu_command *command);

static void deallocate_done(struct emu_command *command)
{
	if (command->io.result)
		io_finish(command, command->io.result);
	else
		deallocate_next(command);
}

static void deallocate_backing(struct emu_command *command, int error)
{
	if (error) {
		io_finish(command, error);
		return;
	}
	command->resume = deallocate_done;
	emu_command_backing(command, EMU_DISCARD, command->offset, command->length, false);
}

static void deallocate_next(struct emu_command *command)
{
	const struct emu_ns *ns = emu_ns_get(command->emu, le32_get(command->entry.nsid));
	while (command->index < range_count(command)) {
		if (!range_load(command, command->index++, ns)) {
			emu_command_complete(command, NVME_SC_LBA_OUT_OF_RANGE | EMU_DNR);
			return;
		}
		if (command->length == 0)
			continue;
		if (command->emu->cache)
			emu_cache_range_empty(command, deallocate_backing);
		else
			deallocate_backing(command, 0);
		return;
	}
	written(command, 0);
}

static void dsm_execute(struct emu_command *command)
{
	const struct emu_ns *ns = emu_ns_get(command->emu, le32_get(command->entry.nsid));
	uint16_t status = emu_prp_begin(command, range_count(command) * sizeof(struct nvme_dsm_range));
	if (!status)
		status = emu_prp_fill(command, sizeof(uint32_t));
	for (unsigned i = 0; !status && i < range_count(command); i++)
		if (!range_load(command, i, ns))
			status = NVME_SC_LBA_OUT_OF_RANGE | EMU_DNR;
	/* Hints other than deallocation are not taken. */
	if (status || !(le32_get(command->entry.cdw11) & NVME_DSM_DEALLOCATE))
		emu_command_complete(command, status);
	else
		deallocate_next(command);
}

/* ---- all of them ---- */

/* Commands with a start and a length in cdw10 to cdw12. */
static uint16_t blocks_parse(struct emu_command *command, const struct emu_ns *ns)
{
	const struct nvme_command *entry = &command->entry;
	const uint64_t first = le32_get(entry->cdw10) | (uint64_t)le32_get(entry->cdw11) << 32;
	const uint64_t blocks = (le32_get(entry->cdw12) & 0xffff) + 1;
	const uint32_t lba_bytes = command->emu->options.lba_bytes;
	if (!range_inside(ns, first, blocks))
		return NVME_SC_LBA_OUT_OF_RANGE | EMU_DNR;
	command->offset = ns->first_byte + first * lba_bytes;
	command->length = blocks * lba_bytes;
	command->durable = le32_get(entry->cdw12) & NVME_RW_FUA;
	return 0;
}

struct io_kind {
	void (*execute)(struct emu_command *command);
	bool known, blocks, changes;
};

static struct io_kind io_kind(const struct emu *emu, uint8_t opcode)
{
	switch (opcode) {
	case NVME_CMD_FLUSH: return (struct io_kind){flush_execute, true, false, false};
	case NVME_CMD_READ: return (struct io_kind){transfer_execute, true, true, false};
	case NVME_CMD_WRITE: return (struct io_kind){transfer_execute, true, true, true};
	case NVME_CMD_WRITE_ZEROES: return (struct io_kind){zeroes_execute, !emu->options.no_write_zeroes, true, true};
	case NVME_CMD_DSM: return (struct io_kind){dsm_execute, !emu->options.no_dsm, false, true};
	default: return (struct io_kind){0};
	}
}

void emu_io_execute(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const struct io_kind kind = io_kind(emu, command->entry.opcode);
	const uint32_t nsid = le32_get(command->entry.nsid);
	const struct emu_ns *ns = emu_ns_get(emu, nsid);
	const bool all = command->entry.opcode == NVME_CMD_FLUSH && nsid == EMU_NSID_ALL;
	uint16_t status = 0;
	if (!kind.known)
		status = NVME_SC_INVALID_OPCODE | EMU_DNR;
	else if (!all && (!ns || !ns->attached))
		status = NVME_SC_INVALID_NAMESPACE | EMU_DNR;
	else if (kind.blocks)
		status = blocks_parse(command, ns);
	if (!status && kind.changes && emu->backing.read_only)
		status = NVME_SC_NS_WRITE_PROTECTED | EMU_DNR;
	if (status)
		emu_command_complete(command, status);
	else
		kind.execute(command);
}
