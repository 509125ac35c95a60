/* SPDX-License-Identifier: BSD-3-Clause */
/* The filesystem as a whole: stopping, damage, sync, space and status. Mounting and unmounting: mount.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/alloc_internal.h"
#include "fs/inode_internal.h"
#include "fs/journal_internal.h"

const struct fs_super *fs_get_super(const struct fs *fs) { return &fs->super; }
bool fs_read_only(const struct fs *fs) { return fs_access(fs) == FS_READ_ONLY; }
int fs_stopped(const struct fs *fs) { return atomic_load_explicit(&fs->stopped, memory_order_relaxed); }
struct reactor *fs_owner(const struct fs *fs, uint64_t ino) { return owner_of_ino(fs, ino)->reactor; }
const struct bdev *fs_get_bdev(const struct fs *fs) { return bdev_desc_bdev(fs->owners[0]->desc); }

static void stopped_arrived(struct message *message)
{
	struct fs *fs = CONTAINER_OF(message, struct fs, stopped_message);
	if (fs->options.stopped && fs->mounted)
		fs->options.stopped(fs, fs_stopped(fs), fs->options.arg);
	atomic_fetch_sub(&fs->stop_messages, 1);
}

static void send_stopped(struct fs *fs)
{
	fs->stopped_message.fn = stopped_arrived;
	atomic_fetch_add(&fs->stop_messages, 1);
	if (reactor_self())
		reactor_send(fs->owners[0]->reactor, &fs->stopped_message);
	else
		reactor_send_foreign(fs->owners[0]->reactor, &fs->stopped_message);
}

int fs_stop(struct fs *fs, int error, uint64_t block, const char *what)
{
	if (atomic_exchange(&fs->stop_claimed, true))
		return error;
	atomic_fetch_add(&fs->stop_messages, 1);
	fs->error_block = block;
	fs->error_time_s = reactor_wall_ns() / NS_PER_SEC;
	snprintf(fs->error_text, sizeof(fs->error_text), "%s: %s", what, strerror(-error));
	char place[40] = "";
	if (block)
		snprintf(place, sizeof(place), "block %" PRIu64 ": ", block);
	log_error("%s: %s%s; the filesystem stops: %s", fs->bdev_name, place, fs->error_text, error == -ENODEV ?
		"mount it again when its device is back" : "unmount it and run fsck.lanefs");
	/* Whoever sees this finds text and block filled in. */
	int expected = 0;
	if (atomic_compare_exchange_strong(&fs->stopped, &expected, error)) {
		journal_stop(fs);
		send_stopped(fs);
	}
	atomic_fetch_sub(&fs->stop_messages, 1);
	return error;
}

int fs_corrupt(struct fs *fs, uint64_t block, const char *field)
{
	const uint64_t before = atomic_fetch_add(&fs->corrupt_blocks, 1);
	atomic_store(&fs->corrupt_last, block);
	atomic_store(&fs->corrupt_last_s, reactor_wall_ns() / NS_PER_SEC);
	if (before < 100)
		log_error("%s: block %" PRIu64 ": bad %s: run fsck.lanefs%s", fs->bdev_name, block, field,
			before == 99 ? " (further bad blocks are counted, not logged)" : "");
	return -EUCLEAN;
}

int fs_shutdown(struct fs *fs)
{
	fs->shut_down = true;
	fs_stop(fs, -EIO, 0, "shut down on request");
	return 0;
}

void fs_call_off(struct fs *fs) { atomic_store(&fs->called_off, true); }

/* ---- sync ---- */

static MAY_WAIT int sync_owner(void *arg)
{
	struct owner *owner = arg;
	const int error = inode_flush_times(owner);
	return error ? error : journal_sync(owner);
}

int fs_sync(struct fs *fs)
{
	if (fs_read_only(fs))
		return fs_stopped(fs) ? -EIO : 0; /* on its way to read-only it may have left changes that are not durable */
	int error = 0;
	for (unsigned i = 0; i < fs->owner_count && !error; i++)
		error = reactor_call(fs->owners[i]->reactor, sync_owner, fs->owners[i]);
	return error;
}

int fs_checkpoint(struct fs *fs)
{
	const int error = fs_sync(fs);
	return error || fs_read_only(fs) ? error : journal_checkpoint(fs);
}

/* ---- space ---- */

void fs_totals(const struct fs *fs, uint64_t *free_blocks, uint64_t *used_inodes)
{
	int64_t free_delta = 0, inode_delta = 0;
	for (unsigned i = 0; i < fs->owner_count; i++) {
		free_delta += atomic_load_explicit(&fs->owners[i]->stats.free_blocks_delta, memory_order_relaxed);
		inode_delta += atomic_load_explicit(&fs->owners[i]->stats.used_inodes_delta, memory_order_relaxed);
	}
	*free_blocks = fs->free_blocks_at_mount + (uint64_t)free_delta;
	*used_inodes = fs->used_inodes_at_mount + (uint64_t)inode_delta;
}

int fs_statfs(struct fs *fs, struct fs_statfs *out)
{
	uint64_t free_blocks, used_inodes, held_back = 0;
	fs_totals(fs, &free_blocks, &used_inodes);
	for (unsigned i = 0; i < fs->owner_count; i++)
		held_back += fs->owners[i]->alloc->held_back;
	*out = (struct fs_statfs){.blocks = atomic_load(&fs->usable_blocks), .free_blocks = free_blocks,
		.available_blocks = free_blocks > held_back ? free_blocks - held_back : 0};
	/* Inodes come out of free blocks as needed. */
	out->free_files = out->available_blocks * FS_INODES_PER_BLOCK;
	out->files = used_inodes + out->free_files;
	return 0;
}

/* ---- status ---- */

void fs_get_errors(const struct fs *fs, struct fs_errors *out)
{
	const struct fs_state *state = &fs->journal->state;
	*out = (struct fs_errors){.corrupt_blocks = atomic_load(&fs->corrupt_blocks),
		.corrupt_last = atomic_load(&fs->corrupt_last), .corrupt_last_s = atomic_load(&fs->corrupt_last_s),
		.count = le32_get(state->error_count), .error = fs_stopped(fs)};
	if (out->error) {
		out->block = fs->error_block;
		out->time_s = fs->error_time_s;
		memcpy(out->text, fs->error_text, sizeof(out->text));
	} else if (le32_get(state->error_code)) {
		out->earlier = true;
		out->error = -(int)le32_get(state->error_code);
		out->block = le64_get(state->error_block);
		out->time_s = le64_get(state->error_sec);
		snprintf(out->text, sizeof(out->text), "%.*s", (int)sizeof(state->error_text) - 1, state->error_text);
	}
}

void fs_get_status(const struct fs *fs, struct fs_status *out)
{
	*out = (struct fs_status){.block_count = le64_get(fs->super.block_count), .replayed_groups = fs->replayed_groups,
		.replayed_records = fs->replayed_records, .corrupt_blocks = atomic_load(&fs->corrupt_blocks), .error = fs_stopped(fs)};
	fs_totals(fs, &out->free_blocks, &out->used_inodes);
	const struct journal *journal = fs->journal;
	out->journal_bytes = journal->capacity;
	out->journal_used_bytes = journal->used + journal->pending;
	out->journal_groups = journal->stats.groups;
	out->journal_group_bytes = journal->stats.group_bytes;
	out->journal_flushes = journal->stats.flushes;
	out->checkpoints = journal->stats.checkpoints;
	out->durable_sequence = journal->durable_sequence;
	out->mount_generation = le64_get(journal->state.mount_generation);
	for (unsigned i = 0; i < fs->owner_count; i++) {
		const struct owner *owner = fs->owners[i];
		struct cache_stats cache;
		cache_stats_read(owner, &cache);
		out->cache_bytes += cache.blocks << FS_BLOCK_SHIFT;
		out->cache_limit_bytes += cache.limit << FS_BLOCK_SHIFT;
		out->cache_dirty_bytes += cache.dirty << FS_BLOCK_SHIFT;
		out->cache_hits += cache.hits;
		out->cache_misses += cache.misses;
		out->inodes_cached += owner->inodes->cached;
		out->inodes_referenced += owner->inodes->lookups.used;
		out->orphans += owner->inodes->reap.queued - owner->inodes->reap.done;
		out->transactions += owner->stats.transactions;
		out->multi_owner_transactions += owner->stats.multi_owner;
		out->loans += owner->stats.loans;
		out->held_back_blocks += owner->alloc->held_back;
		struct discard_stats discards;
		discard_stats_read(owner, &discards);
		out->discards += discards.runs;
		out->discarded_bytes += discards.blocks << FS_BLOCK_SHIFT;
		out->discards_failed += discards.failed;
		out->discard_skipped_bytes += discards.skipped_blocks << FS_BLOCK_SHIFT;
		out->discard_waiting_bytes += discards.waiting_blocks << FS_BLOCK_SHIFT;
	}
	out->free_inodes = (out->free_blocks - MIN(out->free_blocks, out->held_back_blocks)) * FS_INODES_PER_BLOCK;
	memcpy(out->error_text, fs->error_text, sizeof(out->error_text));
	snprintf(out->bdev_name, sizeof(out->bdev_name), "%s", fs->bdev_name);
}

/* ---- deliberate breakages ---- */

#ifdef LANEFS_SABOTAGE
bool sabotage(enum sabotage what)
{
	static const char *const names[SABOTAGE_COUNT] = {"no-group-flush", "early-tail", "no-quarantine", "no-previous-crc",
		"no-fsync-flush", "early-home", "no-full-image", "split-tx", "early-discard", "punch-short", "exchange-loses",
		"ignores-flush-error", "ignores-group-error", "ignores-home-error", "ignores-data-error", "forgets-error",
		"keeps-reservation",
		"late-touch", "no-group-crc", "late-flush-counts", "early-apply", "no-overwrite-flush", "early-osync",
		"early-sync", "no-home-flush", "lazy-state", "early-metadata", "no-orphan", "replay-no-flush", "late-zero",
		"same-generation", "lost-journal"};
	const char *wanted = getenv("LANEFS_SABOTAGE");
	return wanted && strstr(wanted, names[what]);
}
#endif
