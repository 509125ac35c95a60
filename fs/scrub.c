/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The frame of a scrub: rounds of three passes over all AGs, each on its owner; the pace; and what was found. See scrub.h.
 *
 * It goes through the filesystem with one read at a time and lets everything else that is runnable go first after each piece
 * of work; with a rate it sleeps as well. So it costs a busy device one place in its queue.
 */
#include "fs/scrub.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/journal.h"
#include "fs/tx.h"

enum { UNREADABLE_MAX = 1000, SLEEP_MAX_MS = 20, LOGGED_MAX = 100 };

int fs_scrub_create(struct fs *fs)
{
	fs->scrub = calloc(1, sizeof(*fs->scrub));
	if (!fs->scrub)
		return -ENOMEM;
	fs->scrub->fs = fs;
	return 0;
}

void fs_scrub_destroy(struct fs *fs)
{
	if (!fs->scrub)
		return;
	scrub_space_destroy(fs->scrub);
	dma_free(fs->scrub->memory);
	free(fs->scrub);
	fs->scrub = NULL;
}

/* ---- findings ---- */

/* The first one is remembered on the device, so that the next fsck looks. */
static MAY_WAIT int record_run(void *arg)
{
	struct scrub *scrub = arg;
	journal_note_error(scrub->fs, -EUCLEAN, "scrub found damage while mounted: run fsck.lanefs");
	return 0;
}

static void PRINTF_LIKE(4, 0) find(struct scrub *scrub, uint64_t ino, uint64_t block, const char *format, va_list arguments)
{
	struct fs *fs = scrub->fs;
	const unsigned index = atomic_load(&scrub->finding_count);
	char object[40] = "";
	char text[sizeof(scrub->finding[0].text) - sizeof(object)];
	vsnprintf(text, sizeof(text), format, arguments);
	scrub_count(&scrub->stats.findings, 1);
	atomic_store(&fs->corrupt_last_s, reactor_wall_ns() / NS_PER_SEC);
	atomic_fetch_add(&fs->corrupt_blocks, 1);
	if (block)
		atomic_store(&fs->corrupt_last, block);
	if (ino)
		snprintf(object, sizeof(object), "inode %llu: ", (unsigned long long)ino);
	if (atomic_load(&scrub->stats.findings) <= LOGGED_MAX)
		log_error("%s: scrub: %s%s: unmount it and run fsck.lanefs -y", fs->bdev_name, object, text);
	if (index == SCRUB_FINDINGS_MAX)
		return;
	struct scrub_finding *finding = &scrub->finding[index];
	finding->ino = ino;
	snprintf(finding->text, sizeof(finding->text), "%s%s", object, text);
	atomic_store(&finding->ready, true);
	atomic_store(&scrub->finding_count, index + 1);
}

void scrub_find(struct scrub *scrub, uint64_t ino, uint64_t block, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	find(scrub, ino, block, format, arguments);
	va_end(arguments);
}

void scrub_find_first(struct scrub *scrub, uint64_t ino, uint64_t block, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (!scrub->round)
		find(scrub, ino, block, format, arguments);
	va_end(arguments);
}

bool fs_scrub_finding(const struct fs *fs, unsigned index, uint64_t *out_ino, char *text, size_t text_size)
{
	if (!fs->scrub || index >= atomic_load(&fs->scrub->finding_count))
		return false;
	*out_ino = fs->scrub->finding[index].ino;
	snprintf(text, text_size, "%s", fs->scrub->finding[index].text);
	return true;
}

/* ---- the pace ---- */

int scrub_may_go_on(const struct scrub *scrub)
{
	const struct fs *fs = scrub->fs;
	if (atomic_load_explicit(&scrub->cancelled, memory_order_relaxed) ||
		atomic_load_explicit(&fs->called_off, memory_order_relaxed))
		return -EINTR;
	if (fs_stopped(fs))
		return -ESHUTDOWN;
	return scrub->unreadable > UNREADABLE_MAX ? -ENXIO : 0;
}

int scrub_pause(struct scrub *scrub)
{
	const uint64_t rate = scrub->options.rate_bytes;
	int error = scrub_may_go_on(scrub);
	fiber_yield();
	while (!error && rate) {
		const uint64_t due_ns = (uint64_t)((double)scrub->bytes * NS_PER_SEC / (double)rate);
		const uint64_t passed_ns = reactor_now_ns() - scrub->begin_ns;
		if (passed_ns >= due_ns)
			break;
		fiber_sleep(MIN(due_ns - passed_ns, SLEEP_MAX_MS * NS_PER_MS));
		error = scrub_may_go_on(scrub);
	}
	return error;
}

/* ---- the passes ---- */

/* One pass over an AG, or over what belongs to none, on its owner. */
struct visit {
	struct scrub *scrub;
	struct owner *owner;
	uint32_t ag;
	MAY_WAIT int (*look)(struct scrub *scrub, uint32_t ag);
};

static MAY_WAIT int visit_run(void *arg)
{
	const struct visit *visit = arg;
	visit->scrub->owner = visit->owner;
	return visit->look(visit->scrub, visit->ag);
}

static MAY_WAIT int visit_ags(struct scrub *scrub, enum fs_scrub_phase phase, uint64_t total, uint32_t ag_count,
	MAY_WAIT int (*look)(struct scrub *scrub, uint32_t ag))
{
	int error = 0;
	atomic_store(&scrub->stats.done, 0);
	atomic_store(&scrub->stats.total, total);
	atomic_store(&scrub->stats.phase, (int)phase);
	for (uint32_t ag = 0; ag < ag_count && !error; ag++) {
		struct visit visit = {scrub, owner_of_ag(scrub->fs, ag), ag, look};
		error = reactor_call(visit.owner->reactor, visit_run, &visit);
		if (phase == FS_SCRUB_SPACE)
			scrub_count(&scrub->stats.done, 1);
		if (!error)
			error = scrub_pause(scrub);
		/* What is found is remembered even if it is cancelled. */
		if (!scrub->recorded && atomic_load(&scrub->stats.findings)) {
			scrub->recorded = true;
			reactor_call(scrub->fs->owners[0]->reactor, record_run, scrub);
		}
	}
	return error;
}

static MAY_WAIT int supers_look(struct scrub *scrub, uint32_t ag)
{
	return ag ? 0 : scrub_supers(scrub);
}

static MAY_WAIT int space_look(struct scrub *scrub, uint32_t ag)
{
	if (!scrub_in_range(scrub, ag))
		return 0;
	const int error = scrub_ag_space(scrub, ag);
	return error ? error : scrub_ag_inodes(scrub, ag);
}

static MAY_WAIT int passes(struct scrub *scrub)
{
	uint64_t free_blocks, used_inodes;
	fs_totals(scrub->fs, &free_blocks, &used_inodes);
	struct visit supers = {scrub, scrub->fs->owners[0], 0, supers_look};
	int error = scrub->round ? 0 : reactor_call(supers.owner->reactor, visit_run, &supers);
	if (!error)
		error = visit_ags(scrub, FS_SCRUB_METADATA, used_inodes, scrub->ag_count, scrub_ag_pass);
	scrub_names_begin(scrub);
	/* With those of groups that came meanwhile: names may have moved there before they were counted. */
	if (!error)
		error = visit_ags(scrub, FS_SCRUB_DIRECTORIES, scrub->directories, atomic_load(&scrub->fs->open_ag_count),
			scrub_directories);
	if (!error)
		error = visit_ags(scrub, FS_SCRUB_SPACE, scrub->ag_count, scrub->ag_count, space_look);
	return error;
}

static MAY_WAIT int gate_close(void *arg)
{
	tx_gate_close(arg);
	return 0;
}

static int gate_open(void *arg)
{
	tx_gate_open(arg);
	return 0;
}

/* At a moment at which no transaction has applied one part and not yet another: what one allocates is noted with all that
 * comes to own it, or not at all. */
static MAY_WAIT void noting_begin(struct scrub *scrub)
{
	struct fs *fs = scrub->fs;
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call(fs->owners[i]->reactor, gate_close, fs->owners[i]);
	atomic_store(&scrub->noting, true);
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call_nowait(fs->owners[i]->reactor, gate_open, fs->owners[i]);
}

static int nothing(void *arg) { return 0; }

/* Returns when nobody notes anything any more. */
static MAY_WAIT void noting_end(struct scrub *scrub)
{
	struct fs *fs = scrub->fs;
	atomic_store(&scrub->noting, false);
	atomic_store(&scrub->counting, false);
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call_nowait(fs->owners[i]->reactor, nothing, NULL);
}

static void figures_reset(struct scrub *scrub)
{
	scrub->bytes = scrub->unreadable = scrub->directories = 0;
	scrub->incomplete = scrub->was_incomplete = scrub->recorded = false;
	scrub->round = 0;
	atomic_store(&scrub->finding_count, 0);
	atomic_store(&scrub->stats.result, 0);
	atomic_ullong *const counters[] = {&scrub->stats.done, &scrub->stats.total, &scrub->stats.inodes,
		&scrub->stats.directories, &scrub->stats.blocks, &scrub->stats.ahead, &scrub->stats.data_bytes,
		&scrub->stats.findings, &scrub->stats.unjudged, &scrub->stats.changed, &scrub->stats.rounds,
		&scrub->stats.end_s};
	for (unsigned i = 0; i < ARRAY_SIZE(counters); i++)
		atomic_store(counters[i], 0);
	scrub->begin_ns = reactor_now_ns();
	atomic_store(&scrub->stats.begin_s, reactor_wall_ns() / NS_PER_SEC);
}

/* One round: a range of AGs is judged. */
static MAY_WAIT int round_run(struct scrub *scrub, uint32_t from)
{
	int error = scrub_range_begin(scrub, from);
	if (error)
		return error;
	scrub->incomplete = false;
	scrub->unreadable = 0;
	scrub_count(&scrub->stats.rounds, 1);
	noting_begin(scrub);
	error = passes(scrub);
	noting_end(scrub);
	scrub->was_incomplete |= scrub->incomplete;
	return error;
}

static MAY_WAIT int rounds_run(struct scrub *scrub)
{
	int error = 0;
	for (uint32_t from = 0, end = 0; end < scrub->ag_count && !error; from = end) {
		error = round_run(scrub, from);
		end = scrub->range_end;
		scrub_range_end(scrub);
		scrub->round++;
	}
	return error;
}

static MAY_WAIT int scrub_run(struct scrub *scrub)
{
	const size_t bytes = (size_t)SCRUB_BUFFERS * FS_BLOCK_SIZE + (scrub->options.data ? SCRUB_DATA_BYTES : 0);
	scrub->memory = dma_alloc(bytes, FS_BLOCK_SIZE);
	int error = scrub->memory ? scrub_space_create(scrub) : -ENOMEM;
	if (!error)
		error = rounds_run(scrub);
	scrub_space_destroy(scrub);
	dma_free(scrub->memory);
	scrub->memory = NULL;
	return error;
}

int fs_scrub(struct fs *fs, const struct fs_scrub_options *options)
{
	struct scrub *scrub = fs->scrub;
	if (atomic_exchange(&scrub->running, true))
		return -EBUSY;
	atomic_store(&scrub->cancelled, false);
	scrub->options = *options;
	figures_reset(scrub);
	int error = scrub_may_go_on(scrub);
	if (!error)
		error = scrub_run(scrub);
	atomic_store(&scrub->stats.result, error);
	atomic_store(&scrub->stats.end_s, reactor_wall_ns() / NS_PER_SEC);
	atomic_store(&scrub->stats.phase, FS_SCRUB_NONE);
	atomic_store(&scrub->running, false);
	return error;
}

void fs_scrub_cancel(struct fs *fs) { atomic_store(&fs->scrub->cancelled, true); }

void fs_scrub_get_status(const struct fs *fs, struct fs_scrub_status *out)
{
	const struct scrub *scrub = fs->scrub;
	*out = (struct fs_scrub_status){
		.running = atomic_load(&scrub->running),
		.phase = (enum fs_scrub_phase)atomic_load(&scrub->stats.phase),
		.result = atomic_load(&scrub->stats.result),
		.done = atomic_load(&scrub->stats.done),
		.total = atomic_load(&scrub->stats.total),
		.inodes = atomic_load(&scrub->stats.inodes),
		.directories = atomic_load(&scrub->stats.directories),
		.blocks = atomic_load(&scrub->stats.blocks),
		.blocks_ahead = atomic_load(&scrub->stats.ahead),
		.data_bytes = atomic_load(&scrub->stats.data_bytes),
		.findings = atomic_load(&scrub->stats.findings),
		.groups_unjudged = atomic_load(&scrub->stats.unjudged),
		.inodes_unjudged = atomic_load(&scrub->stats.changed),
		.rounds = atomic_load(&scrub->stats.rounds),
		.incomplete = scrub->incomplete || scrub->was_incomplete,
		.begin_s = atomic_load(&scrub->stats.begin_s),
		.end_s = atomic_load(&scrub->stats.end_s),
	};
}
