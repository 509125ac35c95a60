/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * FITRIM: unmaps what is free now. A piece at a time is taken out of its free tree while the device unmaps it, so nobody
 * writes to it meanwhile; an allocation that finds nothing else waits for the piece (discard_yield), so that a trim never
 * makes a filesystem look full. An AG that was trimmed and in which nothing was freed since is passed over.
 */
#include "fs/alloc_internal.h"
#include "fs/op.h"

enum { TRIM_PIECE_BLOCKS = 16384 /* 64 MiB */, SETTLE_ROUNDS = 200, SETTLE_PAUSE_MS = 5 };

struct trim {
	struct owner *owner;
	struct fs_ticket *ticket;       /* of the caller; NULL: none */
	uint64_t first, end;            /* device blocks */
	uint64_t min_blocks;
	uint64_t trimmed;
};

static int trim_may_go_on(const struct trim *trim)
{
	const struct fs *fs = trim->owner->fs;
	const int error = fs_may_begin(fs);
	if (error)
		return error;
	const bool cancelled = trim->ticket && atomic_load(&trim->ticket->state) == FS_TICKET_CANCELLED;
	return cancelled || atomic_load_explicit(&fs->called_off, memory_order_relaxed) ? -EINTR : 0;
}

static MAY_WAIT int trim_piece(struct trim *trim, struct ag *ag, struct run run)
{
	struct owner *owner = trim->owner;
	int error = alloc_lift(owner->alloc, ag, run);
	if (error)
		return error;
	struct io io;
	io_prepare(&io, owner->channel, IO_UNMAP, NULL, run.block << FS_BLOCK_SHIFT, (uint64_t)run.count << FS_BLOCK_SHIFT);
	error = io_run(&io);
	alloc_put_down(owner->alloc, run);
	trim->trimmed += error ? 0 : run.count;
	return error;
}

/* The next piece of the AG at or behind @from; what may be unmapped of its run has at least min_blocks. */
static bool next_piece(const struct trim *trim, const struct ag *ag, uint64_t base, uint32_t from, struct run *out)
{
	uint32_t start, count;
	while (freespace_next(&ag->space, from, &start, &count)) {
		const uint64_t first = MAX(base + start, trim->first), end = MIN(base + start + count, trim->end);
		const uint64_t here = MAX(first, base + from);
		if (here < end && end - first >= trim->min_blocks) {
			*out = (struct run){.block = here, .count = (uint32_t)MIN(end - here, (uint64_t)TRIM_PIECE_BLOCKS)};
			return true;
		}
		from = start + count;
	}
	return false;
}

static MAY_WAIT int trim_ag(struct trim *trim, struct ag *ag)
{
	struct owner *owner = trim->owner;
	const uint64_t base = ag_first_block(&owner->fs->super, ag->number);
	const uint32_t blocks = ag_block_count(&owner->fs->super, ag->number);
	if (base >= trim->end || base + blocks <= trim->first)
		return 0;
	if (ag->trimmed_min && !ag->freed_since_trim && trim->min_blocks >= ag->trimmed_min)
		return 0;
	int error = alloc_load(owner, ag);
	if (error == -EUCLEAN)
		return 0; /* logged; fsck's business */
	discard_let_go(owner->alloc, ag);
	ag->freed_since_trim = false;
	uint32_t from = 0;
	struct run run;
	while (!error && !(error = trim_may_go_on(trim)) && next_piece(trim, ag, base, from, &run)) {
		from = ag_relative(owner->fs, run.block) + run.count;
		error = trim_piece(trim, ag, run);
	}
	if (!error && base >= trim->first && base + blocks <= trim->end)
		ag->trimmed_min = (uint32_t)MIN(trim->min_blocks, (uint64_t)UINT32_MAX);
	else
		ag->freed_since_trim = true;
	return error;
}

static MAY_WAIT int trim_owner(void *arg)
{
	struct trim *trim = arg;
	const struct alloc *alloc = trim->owner->alloc;
	int error = 0;
	for (unsigned i = 0; i < alloc->ag_count && !error; i++)
		error = trim_ag(trim, alloc->ags[i]);
	return error;
}

/* What was removed a moment ago counts as free: it is made so. A large removal that is still under way is not waited for. */
static MAY_WAIT int settle_owner(void *arg)
{
	const struct trim *trim = arg;
	struct inode_stats stats;
	for (unsigned i = 0; i < SETTLE_ROUNDS && !trim_may_go_on(trim); i++) {
		inode_stats_read(trim->owner, &stats);
		if (!stats.orphans)
			break;
		fiber_sleep(SETTLE_PAUSE_MS * NS_PER_MS);
	}
	return alloc_quarantine_waiting(trim->owner);
}

static MAY_WAIT int settle(struct fs *fs)
{
	struct trim trim = {.ticket = fiber_get_context()};
	bool waiting = false;
	for (unsigned i = 0; i < fs->owner_count; i++) {
		trim.owner = fs->owners[i];
		waiting |= reactor_call(trim.owner->reactor, settle_owner, &trim) > 0;
	}
	return waiting ? journal_checkpoint(fs) : 0;
}

static MAY_WAIT int trim_all(struct fs *fs, struct trim *range, uint64_t *out_trimmed)
{
	int error = settle(fs);
	for (unsigned i = 0; i < fs->owner_count && !error; i++) {
		struct trim trim = *range;
		trim.owner = fs->owners[i];
		error = reactor_call(fs->owners[i]->reactor, trim_owner, &trim);
		*out_trimmed += trim.trimmed << FS_BLOCK_SHIFT;
	}
	return error;
}

int fs_trim(struct fs *fs, uint64_t offset, uint64_t length, uint64_t min_length, uint64_t *out_trimmed)
{
	*out_trimmed = 0;
	int error = fs_may_begin(fs);
	if (error)
		return error;
	if (!(bdev_get_limits(fs_get_bdev(fs))->ops & 1u << IO_UNMAP))
		return -EOPNOTSUPP;
	const uint64_t size = le64_get(fs->super.block_count) << FS_BLOCK_SHIFT;
	if (offset >= size || length < FS_BLOCK_SIZE || min_length > (uint64_t)le32_get(fs->super.ag_blocks) << FS_BLOCK_SHIFT)
		return -EINVAL;
	length = MIN(length, size - offset);
	struct trim range = {.ticket = fiber_get_context(), .first = div_round_up(offset, FS_BLOCK_SIZE),
		.end = (offset + length) >> FS_BLOCK_SHIFT, .min_blocks = MAX(div_round_up(min_length, FS_BLOCK_SIZE), (uint64_t)1)};
	struct owner *owner = owner_here(fs);
	const unsigned turn = op_enter(owner);
	error = trim_all(fs, &range, out_trimmed);
	op_leave(owner, turn);
	return error;
}
