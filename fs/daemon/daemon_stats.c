/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The answer to "stats": counters and histograms, from which clients make rates by asking twice, and what "status" shows
 * of the same. Fields: lanefs-rpc(7).
 */
#include <linux/fuse.h>
#include <unistd.h>

#include "fs/daemon/daemon_status.h"

static const char *const io_names[IO_OP_COUNT] = {
	[IO_READ] = "read",
	[IO_WRITE] = "write",
	[IO_FLUSH] = "flush",
	[IO_UNMAP] = "unmap",
	[IO_WRITE_ZEROES] = "write_zeroes",
	[IO_RESET] = "reset",
	[IO_ABORT] = "abort",
};

struct json_object *status_object(struct json_object *object, const char *key)
{
	struct json_object *child = json_object_new_object();

	json_object_object_add(object, key, child);
	return child;
}

/* Buckets that counted something, as [latency below which, count]. */
static void add_latency(struct json_object *object, const uint64_t latency[LATENCY_BUCKETS])
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		struct json_object *pair;

		if (latency[i] == 0)
			continue;
		pair = json_object_new_array_ext(2);
		json_object_array_add(pair, json_object_new_uint64(latency_bucket_floor(i + 1)));
		json_object_array_add(pair, json_object_new_uint64(latency[i]));
		json_object_array_add(array, pair);
	}
	json_object_object_add(object, "latency_ns", array);
}

static void add_device(struct json_object *stats, const struct daemon *daemon)
{
	struct json_object *object = status_object(stats, "device");
	struct bdev_stats figures;

	bdev_stats_read((struct bdev *)fs_get_bdev(daemon->fs), &figures);
	put_text(object, "name", bdev_get_limits(fs_get_bdev(daemon->fs))->name);
	for (unsigned i = 0; i < IO_OP_COUNT; i++) {
		const struct bdev_op_stats *op = &figures.op[i];
		struct json_object *child = status_object(object, io_names[i]);

		put_number(child, "count", op->count);
		put_number(child, "bytes", op->bytes);
		put_number(child, "errors", op->errors);
		put_number(child, "total_ns", op->latency_total_ns);
		add_latency(child, op->latency);
	}
	put_number(object, "outstanding", figures.outstanding);
	put_number(object, "fua_writes", figures.fua_writes);
	put_number(object, "splits", figures.splits);
	put_number(object, "bounces", figures.bounces);
	put_number(object, "no_memory", figures.no_memory);
	put_number(object, "pool_waits", figures.pool_waits);
	put_number(object, "retries", figures.retries);
}

static void add_fuse(struct json_object *stats, const struct daemon *daemon)
{
	struct json_object *object = status_object(stats, "fuse");
	struct fuse_front_status figures;

	for (unsigned i = 0; i < FUSE_FRONT_OPCODE_COUNT; i++) {
		struct fuse_front_op_stats op;
		struct json_object *child;

		if (!fuse_front_stats_read(daemon->front, i, &op) || op.count == 0)
			continue;
		child = status_object(object, fuse_front_opcode_name(i));
		put_number(child, "count", op.count);
		put_number(child, "errors", op.errors);
		if (i == FUSE_READ || i == FUSE_WRITE)
			put_number(child, "bytes", op.bytes);
		put_number(child, "total_ns", op.total_ns);
		add_latency(child, op.latency);
	}
	fuse_front_get_status(daemon->front, &figures);
	put_number(stats, "requests_running", figures.running);
}

void status_reactors(struct json_object *result, const struct daemon *daemon)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < reactor_group_count(daemon->group); i++) {
		struct json_object *object = json_object_new_object();
		struct reactor_stats stats;

		reactor_stats_read(reactor_group_get(daemon->group, i), &stats);
		put_number(object, "reactor", i);
		if (stats.core != REACTOR_ANY_CORE)
			put_number(object, "core", (uint64_t)stats.core);
		put_number(object, "turns", stats.turns);
		put_number(object, "busy_turns", stats.busy_turns);
		put_number(object, "sleeps", stats.sleeps);
		put_number(object, "messages", stats.messages);
		put_number(object, "messages_waiting", stats.messages_waiting);
		put_number(object, "fibers_started", stats.fibers_started);
		put_number(object, "fibers_running", stats.fibers_running);
		put_number(object, "fibers_runnable", stats.fibers_runnable);
		put_number(object, "fibers_waiting", stats.fibers_waiting);
		put_number(object, "fibers_peak", stats.fibers_peak);
		put_number(object, "busy_ns", stats.busy_ns);
		json_object_array_add(array, object);
	}
	json_object_object_add(result, "reactors", array);
}

void status_journal(struct json_object *result, const struct fs_status *figures)
{
	struct json_object *object = status_object(result, "journal");

	put_number(object, "bytes", figures->journal_bytes);
	put_number(object, "used_bytes", figures->journal_used_bytes);
	put_number(object, "groups", figures->journal_groups);
	put_number(object, "group_bytes", figures->journal_group_bytes);
	put_number(object, "flushes", figures->journal_flushes);
	put_number(object, "checkpoints", figures->checkpoints);
	put_number(object, "durable_sequence", figures->durable_sequence);
	put_number(object, "replayed_groups", figures->replayed_groups);
	put_number(object, "replayed_records", figures->replayed_records);
}

void status_cache(struct json_object *result, const struct fs_status *figures)
{
	struct json_object *object = status_object(result, "cache");

	put_number(object, "bytes", figures->cache_bytes);
	put_number(object, "limit_bytes", figures->cache_limit_bytes);
	put_number(object, "dirty_bytes", figures->cache_dirty_bytes);
	put_number(object, "hits", figures->cache_hits);
	put_number(object, "misses", figures->cache_misses);
}

struct json_object *daemon_stats(const struct daemon *daemon)
{
	struct json_object *stats = json_object_new_object(), *filesystem;
	struct fs_status figures;

	fs_get_status(daemon->fs, &figures);
	put_number(stats, "pid", (uint64_t)getpid());
	put_text(stats, "state", daemon_state_name(daemon));
	put_text(stats, "target", daemon->config->target);
	put_text(stats, "directory", daemon->config->directory);
	put_number(stats, "time_ns", reactor_now_ns());
	put_number(stats, "uptime_seconds", (uint64_t)(daemon_now_ms() - daemon->started_ms) / 1000);
	filesystem = status_object(stats, "filesystem");
	put_number(filesystem, "block_size", FS_BLOCK_SIZE);
	put_number(filesystem, "blocks", figures.block_count);
	put_number(filesystem, "free_blocks", figures.free_blocks);
	put_number(filesystem, "used_inodes", figures.used_inodes);
	put_number(filesystem, "free_inodes", figures.free_inodes);
	put_number(filesystem, "corrupt_blocks", figures.corrupt_blocks);
	json_object_object_add(filesystem, "stopped", json_object_new_int(figures.error));
	put_number(stats, "transactions", figures.transactions);
	status_journal(stats, &figures);
	status_cache(stats, &figures);
	add_device(stats, daemon);
	add_fuse(stats, daemon);
	status_reactors(stats, daemon);
	return stats;
}
