/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the daemon tells on its control socket. Figures are read relaxed from the control thread: they are approximate
 * while operations run, and reading them costs the reactors nothing. Methods: doc/operating.md.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "fs/daemon/daemon_internal.h"
#include "reactor/log.h"

static const char *const state_names[] = {
	[DAEMON_STARTING] = "starting",
	[DAEMON_MOUNTED] = "mounted",
	[DAEMON_DETACHED] = "detached",
	[DAEMON_CLOSING] = "closing",
};
static const char *const device_state_names[] = {
	[NVME_DEVICE_ATTACHED] = "attached",
	[NVME_DEVICE_RESETTING] = "resetting",
	[NVME_DEVICE_HELD] = "held",
	[NVME_DEVICE_REMOVED] = "removed",
};
static const char *const level_names[] = {
	[LOG_LEVEL_ERROR] = "error",
	[LOG_LEVEL_WARN] = "warn",
	[LOG_LEVEL_INFO] = "info",
	[LOG_LEVEL_DEBUG] = "debug",
};
static const char *const io_names[IO_OP_COUNT] = {
	[IO_READ] = "read",
	[IO_WRITE] = "write",
	[IO_FLUSH] = "flush",
	[IO_UNMAP] = "unmap",
	[IO_WRITE_ZEROES] = "write_zeroes",
	[IO_RESET] = "reset",
	[IO_ABORT] = "abort",
};

static void add_text(struct json_object *object, const char *key, const char *value)
{
	json_object_object_add(object, key, json_object_new_string(value));
}

static void add_number(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

static struct json_object *add_object(struct json_object *object, const char *key)
{
	struct json_object *child = json_object_new_object();

	json_object_object_add(object, key, child);
	return child;
}

/* ---- what is known of the device ---- */
struct facts_task {
	struct daemon_task task;
	struct device_facts facts;
};

static MAY_WAIT int facts_run(struct daemon_task *task)
{
	struct device_facts *facts = &CONTAINER_OF(task, struct facts_task, task)->facts;
	struct daemon *daemon = task->daemon;
	struct nvme_device *device = daemon_device(daemon);
	struct nvme_ctrlr *ctrlr;

	if (!device)
		return -ENODEV;
	ctrlr = nvme_device_ctrlr(device);
	*facts = (struct device_facts){.nvme = true, .emulated = nvme_device_emu(device), .attached = ctrlr,
		.state = nvme_device_get_state(device), .nsid = nvme_device_nsid(daemon->registry, daemon->bdev_name)};
	snprintf(facts->target, sizeof(facts->target), "%s", nvme_device_target(device));
	if (ctrlr)
		facts->info = *nvme_ctrlr_get_info(ctrlr);
	return 0;
}

static void facts_done(struct daemon_task *task)
{
	struct facts_task *done = CONTAINER_OF(task, struct facts_task, task);
	struct daemon *daemon = task->daemon;
	struct device_facts *facts = &daemon->facts;

	if (task->result) {
		facts->attached = false;
		facts->state = NVME_DEVICE_REMOVED;
	} else {
		if (!done->facts.attached)
			done->facts.info = facts->info;
		*facts = done->facts;
	}
	if (facts->attached)
		snprintf(daemon->hotplug.serial, sizeof(daemon->hotplug.serial), "%s", facts->info.serial);
	free(done);
}

void facts_refresh(struct daemon *daemon)
{
	struct facts_task *task = daemon->stuck ? NULL : calloc(1, sizeof(*task));

	if (!task)
		return;
	task->task.run = facts_run;
	task->task.done = facts_done;
	if (!task_start_quick(daemon, &task->task))
		log_debug("daemon: reactor 0 is busy: what is known of the device is a little old");
}

/* ---- status ---- */
static void add_controller(struct json_object *device, const struct daemon *daemon)
{
	const struct device_facts *facts = &daemon->facts;
	const struct nvme_ctrlr_info *info = &facts->info;
	const struct removal *removal = &daemon->removal;

	if (!facts->nvme)
		return;
	add_text(device, "model", info->model);
	add_text(device, "serial", info->serial);
	add_text(device, "firmware", info->firmware);
	add_text(device, "state", device_state_names[facts->state]);
	add_number(device, "nsid", facts->nsid);
	json_object_object_add(device, "emulated", json_object_new_boolean(facts->emulated));
	add_number(device, "resets", info->resets);
	add_number(device, "timeouts", info->timeouts);
	add_number(device, "aborts", info->aborts);
	add_number(device, "retries", info->retries);
	add_number(device, "errors", info->errors);
	add_text(device, "on_removal", daemon->config->hold_on_removal ? "wait" : "unmount");
	json_object_object_add(device, "held", json_object_new_boolean(removal->held));
	add_number(device, "holds", removal->holds);
	if (!removal->held)
		return;
	add_number(device, "held_seconds", (uint64_t)(daemon_now_ms() - removal->held_since_ms) / 1000);
	add_number(device, "seconds_left", (uint64_t)MAX(removal->held_deadline_ms - daemon_now_ms(), 0) / 1000);
}

static void add_device(struct json_object *status, const struct daemon *daemon)
{
	struct json_object *device = add_object(status, "device");
	const struct bdev_limits *limits = bdev_get_limits(fs_get_bdev(daemon->fs));

	add_text(device, "name", limits->name);
	add_number(device, "bytes", bdev_size_bytes(limits));
	add_number(device, "block_size", limits->block_size);
	json_object_object_add(device, "volatile_cache", json_object_new_boolean(limits->volatile_cache));
	json_object_object_add(device, "unmap", json_object_new_boolean(limits->ops & 1u << IO_UNMAP));
	add_controller(device, daemon);
}

static void add_filesystem(struct json_object *status, const struct daemon *daemon)
{
	struct json_object *object = add_object(status, "filesystem");
	const struct fs_super *super = fs_get_super(daemon->fs);
	struct fs_status figures;
	char uuid[37], label[FS_LABEL_BYTES + 1] = "";

	fs_get_status(daemon->fs, &figures);
	uuid_unparse_lower(super->uuid, uuid);
	memcpy(label, super->label, FS_LABEL_BYTES);
	add_text(object, "uuid", uuid);
	add_text(object, "label", label);
	add_number(object, "version", le32_get(super->version));
	add_number(object, "block_size", FS_BLOCK_SIZE);
	add_number(object, "blocks", figures.block_count);
	add_number(object, "free_blocks", figures.free_blocks);
	add_number(object, "used_inodes", figures.used_inodes);
	add_number(object, "groups", le32_get(super->ag_count));
	add_number(object, "inodes_cached", figures.inodes_cached);
	add_number(object, "inodes_referenced", figures.inodes_referenced);
	add_number(object, "orphans", figures.orphans);
	add_number(object, "transactions", figures.transactions);
	add_number(object, "multi_owner_transactions", figures.multi_owner_transactions);
	add_number(object, "loans", figures.loans);
	add_number(object, "mount_generation", figures.mount_generation);
	json_object_object_add(object, "read_only", json_object_new_boolean(fs_read_only(daemon->fs)));

	object = add_object(status, "journal");
	add_number(object, "bytes", figures.journal_bytes);
	add_number(object, "used_bytes", figures.journal_used_bytes);
	add_number(object, "groups", figures.journal_groups);
	add_number(object, "group_bytes", figures.journal_group_bytes);
	add_number(object, "flushes", figures.journal_flushes);
	add_number(object, "checkpoints", figures.checkpoints);
	add_number(object, "durable_sequence", figures.durable_sequence);
	add_number(object, "replayed_groups", figures.replayed_groups);
	add_number(object, "replayed_records", figures.replayed_records);

	object = add_object(status, "cache");
	add_number(object, "bytes", figures.cache_bytes);
	add_number(object, "limit_bytes", figures.cache_limit_bytes);
	add_number(object, "dirty_bytes", figures.cache_dirty_bytes);
	add_number(object, "hits", figures.cache_hits);
	add_number(object, "misses", figures.cache_misses);

	object = add_object(status, "errors");
	json_object_object_add(object, "stopped", json_object_new_int(fs_stopped(daemon->fs)));
	json_object_object_add(object, "error", json_object_new_int(figures.error));
	add_text(object, "text", figures.error_text);
	add_number(object, "corrupt_blocks", figures.corrupt_blocks);
}

static void add_fuse(struct json_object *status, const struct daemon *daemon)
{
	struct json_object *object = add_object(status, "fuse"), *features = json_object_new_array();
	const char *names[FUSE_FRONT_FEATURES_MAX];
	unsigned count = fuse_front_features(daemon->front, names);
	struct fuse_front_status figures;
	char text[24];

	fuse_front_get_status(daemon->front, &figures);
	snprintf(text, sizeof(text), "7.%u", figures.kernel_minor);
	add_text(object, "kernel_protocol", text);
	snprintf(text, sizeof(text), "7.%u", figures.minor);
	add_text(object, "protocol", text);
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)figures.offered);
	add_text(object, "offered", text);
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)figures.negotiated);
	add_text(object, "negotiated", text);
	for (unsigned i = 0; i < count; i++)
		json_object_array_add(features, json_object_new_string(names[i]));
	json_object_object_add(object, "features", features);
	add_number(object, "max_write", figures.max_write);
	add_number(object, "max_pages", figures.max_pages);
	add_number(object, "max_readahead", figures.max_readahead);
	add_number(object, "max_background", figures.max_background);
	add_number(object, "running", figures.running);
	add_number(object, "pauses", figures.pauses);
	add_number(object, "forgets", figures.forgets);
	add_number(object, "interrupts", figures.interrupts);
	add_number(object, "interrupted", figures.interrupted);
	add_number(object, "waiting", figures.waiting);
	add_number(object, "malformed", figures.malformed);
	add_number(object, "refused_answers", figures.refused_answers);
}

static void add_reactors(struct json_object *result, const struct daemon *daemon)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < reactor_group_count(daemon->group); i++) {
		struct json_object *object = json_object_new_object();
		struct reactor_stats stats;

		reactor_stats_read(reactor_group_get(daemon->group, i), &stats);
		add_number(object, "reactor", i);
		if (daemon->config->core_count)
			json_object_object_add(object, "core", json_object_new_int(daemon->config->cores[i]));
		add_number(object, "turns", stats.turns);
		add_number(object, "busy_turns", stats.busy_turns);
		add_number(object, "sleeps", stats.sleeps);
		add_number(object, "messages", stats.messages);
		add_number(object, "fibers_started", stats.fibers_started);
		add_number(object, "fibers_running", stats.fibers_running);
		add_number(object, "fibers_peak", stats.fibers_peak);
		add_number(object, "busy_ns", stats.busy_ns);
		json_object_array_add(array, object);
	}
	json_object_object_add(result, "reactors", array);
}

const char *daemon_state_name(const struct daemon *daemon)
{
	return daemon->state == DAEMON_MOUNTED && daemon->removal.held ? "waiting" : state_names[daemon->state];
}

static struct json_object *status_new(struct daemon *daemon)
{
	struct json_object *status = json_object_new_object();

	add_text(status, "version", LANEFS_VERSION);
	add_number(status, "pid", (uint64_t)getpid());
	add_text(status, "state", daemon_state_name(daemon));
	add_text(status, "target", daemon->config->target);
	add_text(status, "directory", daemon->config->directory);
	add_number(status, "uptime_seconds", (uint64_t)(daemon_now_ms() - daemon->started_ms) / 1000);
	if (daemon->state == DAEMON_CLOSING) /* what the rest speaks of is being taken down */
		return status;
	facts_refresh(daemon);
	add_device(status, daemon);
	add_filesystem(status, daemon);
	add_fuse(status, daemon);
	add_reactors(status, daemon);
	return status;
}

/* ---- stats ---- */
/* The histogram without its empty end: bucket i counts [2^i, 2^(i+1)) ns. */
static void add_latency(struct json_object *object, const uint64_t latency[LATENCY_BUCKETS])
{
	struct json_object *array = json_object_new_array();
	unsigned count = LATENCY_BUCKETS;

	while (count > 0 && latency[count - 1] == 0)
		count--;
	for (unsigned i = 0; i < count; i++)
		json_object_array_add(array, json_object_new_uint64(latency[i]));
	json_object_object_add(object, "latency_log2_ns", array);
}

static void add_bdev_stats(struct json_object *stats, const struct daemon *daemon)
{
	struct json_object *object = add_object(stats, "device");
	struct bdev_stats figures;

	bdev_stats_read((struct bdev *)fs_get_bdev(daemon->fs), &figures);
	add_text(object, "name", bdev_get_limits(fs_get_bdev(daemon->fs))->name);
	for (unsigned i = 0; i < IO_OP_COUNT; i++) {
		const struct bdev_op_stats *op = &figures.op[i];
		struct json_object *child = add_object(object, io_names[i]);

		add_number(child, "count", op->count);
		add_number(child, "bytes", op->bytes);
		add_number(child, "errors", op->errors);
		add_number(child, "total_ns", op->latency_total_ns);
		add_latency(child, op->latency);
	}
	add_number(object, "fua_writes", figures.fua_writes);
	add_number(object, "splits", figures.splits);
	add_number(object, "bounces", figures.bounces);
	add_number(object, "no_memory", figures.no_memory);
	add_number(object, "retries", figures.retries);
}

static void add_fuse_stats(struct json_object *stats, const struct daemon *daemon)
{
	struct json_object *object = add_object(stats, "fuse");

	for (unsigned i = 0; i < FUSE_FRONT_OPCODE_COUNT; i++) {
		struct fuse_front_op_stats op;
		struct json_object *child;

		if (!fuse_front_stats_read(daemon->front, i, &op) || op.count == 0)
			continue;
		child = add_object(object, fuse_front_opcode_name(i));
		add_number(child, "count", op.count);
		add_number(child, "errors", op.errors);
		add_number(child, "total_ns", op.total_ns);
		add_latency(child, op.latency);
	}
}

static struct json_object *stats_new(const struct daemon *daemon)
{
	struct json_object *stats = json_object_new_object(), *journal = add_object(stats, "journal");
	struct fs_status figures;

	fs_get_status(daemon->fs, &figures);
	add_number(journal, "groups", figures.journal_groups);
	add_number(journal, "flushes", figures.journal_flushes);
	add_number(journal, "checkpoints", figures.checkpoints);
	add_number(stats, "transactions", figures.transactions);
	add_bdev_stats(stats, daemon);
	add_fuse_stats(stats, daemon);
	add_reactors(stats, daemon);
	return stats;
}

/* ---- the rest ---- */
static int log_level(struct json_object *params, struct json_object **result, char *message, size_t message_size)
{
	struct json_object *level;

	*result = json_object_new_object();
	if (params && json_object_get_type(params) == json_type_object && json_object_object_get_ex(params, "level", &level)) {
		enum log_level i;

		for (i = 0; i < ARRAY_SIZE(level_names); i++)
			if (!strcmp(level_names[i], json_object_get_string(level) ?: ""))
				break;
		if (i == ARRAY_SIZE(level_names)) {
			json_object_put(*result);
			*result = NULL;
			snprintf(message, message_size, "level is one of error, warn, info, debug");
			return RPC_INVALID_PARAMS;
		}
		log_set_level(i);
	}
	add_text(*result, "level", level_names[log_get_level()]);
	return 0;
}

int daemon_rpc(void *arg, const char *method, struct json_object *params, struct json_object **result, char *message,
	size_t message_size)
{
	struct daemon *daemon = arg;

	if (!strcmp(method, "status")) {
		*result = status_new(daemon);
		return 0;
	}
	if (!strcmp(method, "version")) {
		*result = json_object_new_object();
		add_text(*result, "version", LANEFS_VERSION);
		add_number(*result, "format", FS_FORMAT_VERSION);
		add_number(*result, "pid", (uint64_t)getpid());
		return 0;
	}
	if (!strcmp(method, "log_level"))
		return log_level(params, result, message, message_size);
	if (!strcmp(method, "wait"))
		return RPC_LATER;
	if (!strcmp(method, "unmount")) {
		daemon_ask_stop(daemon);
		return RPC_LATER;
	}
	if (!strcmp(method, "stats")) {
		if (daemon->state == DAEMON_CLOSING) {
			snprintf(message, message_size, "the filesystem is being closed");
			return RPC_INTERNAL_ERROR;
		}
		*result = stats_new(daemon);
		return 0;
	}
	return device_rpc(daemon, method, params, result, message, message_size);
}
