/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Background discard, one fiber per owner. A freed run whose freeing group is durable (metadata: whose tail has passed)
 * goes from quarantine into its AG's undiscarded tree, where it grows together with its neighbours. A while later the
 * fiber takes runs from there, a few at a time, and has the device unmap them; only then do they enter the free tree.
 * Between two batches it rests as long as the last one took, so it has half of the device's attention at most.
 *
 * Nobody waits for it: an allocation that finds nothing takes what is not unmapped yet, unmapped or not (discard_yield),
 * and waits only for what the device has in hand. A list that grows too long is not kept. What the device refuses is
 * counted, said once, and the blocks are free all the same.
 */
#include "fs/discard.h"

#include <stdlib.h>

#include "fs/alloc_internal.h"

enum {
	DISCARD_IN_FLIGHT = 4,
	DISCARD_RUN_BLOCKS = 16384,     /* 64 MiB in one command */
	DISCARD_RUNS_MAX = 65536,       /* of an owner's undiscarded trees; beyond, freed runs are reused without */
};
#define DISCARD_REST_NS (2 * NS_PER_MS)
#define DISCARD_DRAIN_NS (5 * NS_PER_SEC)

struct discard {
	struct alloc *alloc;
	struct fiber_start start;
	struct fiber_cond work, idle;
	bool running, ending;
	bool hurry;                     /* no rests: somebody waits for the end */
	bool refused;                   /* the device cannot */
	bool said;                      /* that one failed */
	unsigned runs;                  /* in the undiscarded trees */
	unsigned cursor_ag;             /* where the walk goes on */
	uint32_t cursor;
	unsigned batch;
	struct run run[DISCARD_IN_FLIGHT];
	struct io io[DISCARD_IN_FLIGHT];
	struct discard_stats stats;
};

/* ---- the undiscarded trees ---- */

bool discard_take(struct alloc *alloc, struct run run)
{
	struct discard *discard = alloc->discard;
	if (!discard || discard->ending || discard->refused)
		return false;
	struct ag *ag = alloc_ag(alloc, ag_of_block(alloc->owner->fs, run.block));
	assert(ag->loaded);
	const uint32_t runs = ag->undiscarded.runs;
	if (discard->runs >= DISCARD_RUNS_MAX || freespace_add(&ag->undiscarded, ag_relative(alloc->owner->fs, run.block), run.count)) {
		discard->stats.skipped_blocks += run.count;
		return false;
	}
	discard->runs += ag->undiscarded.runs - runs;
	alloc->undiscarded_blocks += run.count;
	fiber_cond_signal(&discard->work);
	return true;
}

static void take_out(struct discard *discard, struct ag *ag, uint32_t start, uint32_t count)
{
	const uint32_t runs = ag->undiscarded.runs;
	/* From the start of a run: takes no node, so it cannot fail. */
	const int error = freespace_remove(&ag->undiscarded, start, count);
	assert(!error);
	discard->runs -= runs - ag->undiscarded.runs;
	discard->alloc->undiscarded_blocks -= count;
}

void discard_let_go(struct alloc *alloc, struct ag *ag)
{
	uint32_t start, count;
	while (freespace_next(&ag->undiscarded, 0, &start, &count)) {
		take_out(alloc->discard, ag, start, count);
		alloc_give_back(alloc, (struct run){.block = ag_first_block(&alloc->owner->fs->super, ag->number) + start,
			.count = count});
	}
}

bool discard_yield(struct alloc *alloc)
{
	if (alloc->undiscarded_blocks) {
		alloc->discard->stats.skipped_blocks += alloc->undiscarded_blocks;
		for (unsigned i = 0; i < alloc->ag_count; i++)
			discard_let_go(alloc, alloc->ags[i]);
		return true;
	}
	if (!alloc->unmapping_blocks)
		return false;
	fiber_cond_wait(&alloc->unmapped, "blocks that the device unmaps");
	return true;
}

/* ---- the fiber ---- */

/* The next run in the order of the device, from where the last one ended. */
static bool next_run(struct discard *discard, struct run *out)
{
	struct alloc *alloc = discard->alloc;
	const struct fs *fs = alloc->owner->fs;
	for (unsigned i = 0; i <= alloc->ag_count; i++) {
		struct ag *ag = alloc->ags[discard->cursor_ag % alloc->ag_count];
		uint32_t start, count;
		if (freespace_next(&ag->undiscarded, discard->cursor, &start, &count)) {
			count = MIN(count, (uint32_t)DISCARD_RUN_BLOCKS);
			take_out(discard, ag, start, count);
			alloc->unmapping_blocks += count;
			discard->cursor = start + count;
			*out = (struct run){.block = ag_first_block(&fs->super, ag->number) + start, .count = count};
			return true;
		}
		discard->cursor_ag = (discard->cursor_ag + 1) % alloc->ag_count;
		discard->cursor = 0;
	}
	return false;
}

static void failed(struct discard *discard, int error)
{
	const struct fs *fs = discard->alloc->owner->fs;
	discard->stats.failed++;
	discard->refused |= error == -EOPNOTSUPP;
	if (!discard->said && error != -ENODEV)
		log_warn("%s: the device refuses to discard: %s: the space is reused all the same%s", fs->bdev_name, strerror(-error),
			discard->refused ? "; it is not asked again" : " (further failures are counted only)");
	discard->said = true;
}

static MAY_WAIT void unmap_batch(struct discard *discard)
{
	struct owner *owner = discard->alloc->owner;
	struct io_group group;
	io_group_init(&group);
	discard->batch = 0;
	while (discard->batch < DISCARD_IN_FLIGHT && next_run(discard, &discard->run[discard->batch])) {
		const struct run run = discard->run[discard->batch];
		struct io *io = &discard->io[discard->batch++];
		io_prepare(io, owner->channel, IO_UNMAP, NULL, run.block << FS_BLOCK_SHIFT, (uint64_t)run.count << FS_BLOCK_SHIFT);
		io_group_submit(&group, io);
	}
	const int error = io_group_wait(&group);
	for (unsigned i = 0; i < discard->batch; i++) {
		if (discard->io[i].result) {
			failed(discard, discard->io[i].result);
		} else {
			discard->stats.runs++;
			discard->stats.blocks += discard->run[i].count;
		}
		alloc_put_down(discard->alloc, discard->run[i]);
	}
	if (error && discard->refused)
		for (unsigned i = 0; i < discard->alloc->ag_count; i++)
			discard_let_go(discard->alloc, discard->alloc->ags[i]);
}

/* Sabotage: unmaps what was freed but could still be needed after a power cut. */
static MAY_WAIT void unmap_early(struct discard *discard)
{
	struct alloc *alloc = discard->alloc;
	struct quarantined *entry = alloc->data.head;
	while (entry) {
		if (entry->discarded_early) {
			entry = entry->next;
			continue;
		}
		entry->discarded_early = true;
		const struct run run = entry->run;
		io_prepare(&discard->io[0], alloc->owner->channel, IO_UNMAP, NULL, run.block << FS_BLOCK_SHIFT,
			(uint64_t)run.count << FS_BLOCK_SHIFT);
		if (io_run(&discard->io[0]))
			return;
		entry = alloc->data.head;
	}
}

void discard_freed(struct alloc *alloc)
{
	if (sabotage(SABOTAGE_EARLY_DISCARD) && alloc->discard)
		fiber_cond_signal(&alloc->discard->work);
}

static bool may_run(const struct discard *discard)
{
	return !discard->ending && !fs_stopped(discard->alloc->owner->fs);
}

/* Neighbours may follow; a drain does not wait for them. */
static MAY_WAIT void gather(const struct discard *discard)
{
	const uint64_t end = reactor_now_ns() + FS_OPTION(discard->alloc->owner->fs, commit_ms) * NS_PER_MS;
	while (may_run(discard) && !discard->hurry && reactor_now_ns() < end)
		fiber_cond_wait_for((struct fiber_cond *)&discard->work, end - reactor_now_ns(), "more to discard");
}

static void discard_main(void *arg)
{
	struct discard *discard = arg;
	struct alloc *alloc = discard->alloc;
	while (may_run(discard)) {
		if (sabotage(SABOTAGE_EARLY_DISCARD))
			unmap_early(discard);
		if (!alloc->undiscarded_blocks) {
			fiber_cond_broadcast(&discard->idle);
			fiber_cond_wait(&discard->work, "something to discard");
			continue;
		}
		gather(discard);
		while (may_run(discard) && alloc->undiscarded_blocks) {
			const uint64_t begun = reactor_now_ns();
			unmap_batch(discard);
			if (!discard->hurry)
				fiber_sleep(MAX(reactor_now_ns() - begun, (uint64_t)DISCARD_REST_NS));
		}
	}
	for (unsigned i = 0; i < alloc->ag_count; i++)
		discard_let_go(alloc, alloc->ags[i]);
	discard->running = false;
	fiber_cond_broadcast(&discard->idle);
}

/* ---- life ---- */

static int discard_start(void *arg)
{
	struct owner *owner = arg;
	struct alloc *alloc = owner->alloc;
	struct discard *discard = alloc->discard;
	if (discard && discard->running)
		return 0;
	if (!discard && !(discard = calloc(1, sizeof(*discard))))
		return -ENOMEM;
	discard->alloc = alloc;
	discard->running = true;
	discard->ending = false;
	fiber_cond_init(&discard->work);
	fiber_cond_init(&discard->idle);
	discard->start = (struct fiber_start){.fn = discard_main, .arg = discard, .name = "discard"};
	alloc->discard = discard;
	fiber_start(&discard->start);
	return 0;
}

struct drain {
	struct owner *owner;
	uint64_t deadline_ns;
};

static MAY_WAIT int discard_drain(void *arg)
{
	struct owner *owner = ((struct drain *)arg)->owner;
	const uint64_t deadline_ns = ((struct drain *)arg)->deadline_ns;
	struct alloc *alloc = owner->alloc;
	struct discard *discard = alloc ? alloc->discard : NULL;
	if (!discard)
		return 0;
	discard->hurry = true;
	while (discard->running && may_run(discard) && reactor_now_ns() < deadline_ns &&
		(alloc->undiscarded_blocks || alloc->unmapping_blocks || alloc_quarantine_waiting(owner))) {
		fiber_cond_signal(&discard->work);
		fiber_cond_wait_for(&discard->idle, MIN(deadline_ns - reactor_now_ns(), 10 * NS_PER_MS), "the last discards");
	}
	discard->hurry = false;
	if (alloc->undiscarded_blocks)
		log_info("%s: %llu free blocks were not discarded in time: fstrim finds them", owner->fs->bdev_name,
			(unsigned long long)alloc->undiscarded_blocks);
	return 0;
}

static MAY_WAIT int discard_stop(void *arg)
{
	const struct owner *owner = arg;
	struct alloc *alloc = owner->alloc;
	struct discard *discard = alloc ? alloc->discard : NULL;
	if (discard)
		discard->ending = true;
	while (discard && discard->running) {
		fiber_cond_signal(&discard->work);
		fiber_cond_wait_for(&discard->idle, 100 * NS_PER_MS, "the end of discarding");
	}
	while (alloc && alloc->unmapping_blocks) /* the piece of a trim that was called off */
		fiber_cond_wait(&alloc->unmapped, "blocks that the device unmaps");
	return 0;
}

int discards_start(struct fs *fs)
{
	if (!FS_OPTION(fs, discard) || fs_read_only(fs))
		return 0;
	if (!(bdev_get_limits(fs_get_bdev(fs))->ops & 1u << IO_UNMAP)) {
		log_warn("%s: the device cannot discard: the option is ignored", fs->bdev_name);
		return 0;
	}
	int error = 0;
	for (unsigned i = 0; i < fs->owner_count && !error; i++)
		error = reactor_call(fs->owners[i]->reactor, discard_start, fs->owners[i]);
	return error;
}

void discards_drain(struct fs *fs)
{
	struct drain drain = {.deadline_ns = reactor_now_ns() + DISCARD_DRAIN_NS};
	for (unsigned i = 0; i < fs->owner_count; i++) {
		drain.owner = fs->owners[i];
		reactor_call(drain.owner->reactor, discard_drain, &drain);
	}
}

void discards_stop(struct fs *fs)
{
	for (unsigned i = 0; i < fs->owner_count; i++)
		if (fs->owners[i])
			reactor_call(fs->owners[i]->reactor, discard_stop, fs->owners[i]);
}

void discard_destroy(struct owner *owner)
{
	if (!owner->alloc)
		return;
	free(owner->alloc->discard);
	owner->alloc->discard = NULL;
}

void discard_stats_read(const struct owner *owner, struct discard_stats *out)
{
	const struct discard *discard = owner->alloc->discard;
	*out = discard ? discard->stats : (struct discard_stats){0};
	out->waiting_blocks = owner->alloc->undiscarded_blocks + owner->alloc->unmapping_blocks;
}
