/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the daemon tells on its control socket. Figures are read relaxed from the control thread: they are approximate
 * while operations run, and reading them costs the reactors nothing. Methods: lanefs-rpc(7).
 */
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "fs/daemon/confine.h"
#include "fs/daemon/daemon_status.h"
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
	task->task.brief = true;
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
	put_foreign_text(device, "model", info->model);
	put_foreign_text(device, "serial", info->serial);
	put_foreign_text(device, "firmware", info->firmware);
	put_text(device, "state", device_state_names[facts->state]);
	put_number(device, "nsid", facts->nsid);
	json_object_object_add(device, "emulated", json_object_new_boolean(facts->emulated));
	put_number(device, "resets", info->resets);
	put_number(device, "timeouts", info->timeouts);
	put_number(device, "aborts", info->aborts);
	put_number(device, "retries", info->retries);
	put_number(device, "errors", info->errors);
	put_text(device, "on_removal", daemon->config->hold_on_removal ? "wait" : "unmount");
	json_object_object_add(device, "held", json_object_new_boolean(removal->held));
	put_number(device, "holds", removal->holds);
	if (!removal->held)
		return;
	put_number(device, "held_seconds", (uint64_t)(daemon_now_ms() - removal->held_since_ms) / 1000);
	const int64_t left_ms = removal->held_deadline_ms - daemon_now_ms();
	put_number(device, "seconds_left", (uint64_t)MAX(left_ms, (int64_t)0) / 1000);
}

static void add_device(struct json_object *status, struct daemon *daemon)
{
	const struct kernel_device *kernel = kernel_device_look(daemon);
	struct json_object *device = status_object(status, "device");
	const struct bdev_limits *limits = bdev_get_limits(fs_get_bdev(daemon->fs));

	put_text(device, "name", limits->name);
	put_text(device, "kind", daemon->facts.nvme ? daemon->facts.emulated ? "emulated NVMe" : "NVMe" :
		kernel->kind[0] ? kernel->kind : "memory");
	put_number(device, "bytes", bdev_size_bytes(limits));
	put_number(device, "block_size", limits->block_size);
	json_object_object_add(device, "volatile_cache", json_object_new_boolean(limits->volatile_cache));
	json_object_object_add(device, "unmap", json_object_new_boolean(limits->ops & 1u << IO_UNMAP));
	if (kernel->model[0])
		put_foreign_text(device, "model", kernel->model);
	if (kernel->serial[0])
		put_foreign_text(device, "serial", kernel->serial);
	add_controller(device, daemon);
}

static void add_filesystem(struct json_object *status, const struct daemon *daemon)
{
	struct json_object *object = status_object(status, "filesystem");
	const struct fs_super *super = fs_get_super(daemon->fs);
	struct fs_status figures;
	char uuid[37], label[FS_LABEL_BYTES + 1] = "";

	fs_get_status(daemon->fs, &figures);
	uuid_unparse_lower(super->uuid, uuid);
	memcpy(label, super->label, FS_LABEL_BYTES);
	put_text(object, "uuid", uuid);
	put_foreign_text(object, "label", label);
	put_number(object, "version", le32_get(super->version));
	put_number(object, "block_size", FS_BLOCK_SIZE);
	put_number(object, "blocks", figures.block_count);
	put_number(object, "free_blocks", figures.free_blocks);
	put_number(object, "reserved_blocks", figures.held_back_blocks);
	put_number(object, "used_inodes", figures.used_inodes);
	put_number(object, "free_inodes", figures.free_inodes);
	put_number(object, "groups", le32_get(super->ag_count));
	put_number(object, "inodes_cached", figures.inodes_cached);
	put_number(object, "inodes_referenced", figures.inodes_referenced);
	put_number(object, "orphans", figures.orphans);
	put_number(object, "transactions", figures.transactions);
	put_number(object, "multi_owner_transactions", figures.multi_owner_transactions);
	put_number(object, "loans", figures.loans);
	put_number(object, "mount_generation", figures.mount_generation);
	json_object_object_add(object, "read_only", json_object_new_boolean(fs_read_only(daemon->fs)));

	object = status_object(status, "discard");
	put_number(object, "commands", figures.discards);
	put_number(object, "bytes", figures.discarded_bytes);
	put_number(object, "failed", figures.discards_failed);
	put_number(object, "skipped_bytes", figures.discard_skipped_bytes);
	put_number(object, "waiting_bytes", figures.discard_waiting_bytes);
	json_object_object_add(status, "scrub", scrub_status_new(daemon));
	status_journal(status, &figures);
	status_cache(status, &figures);
}

static void add_errors(struct json_object *status, const struct daemon *daemon)
{
	struct json_object *object = status_object(status, "errors");
	struct fs_errors errors;

	fs_get_errors(daemon->fs, &errors);
	json_object_object_add(object, "stopped", json_object_new_int(fs_stopped(daemon->fs)));
	json_object_object_add(object, "error", json_object_new_int(errors.error));
	put_foreign_text(object, "text", errors.text);
	put_number(object, "block", errors.block);
	put_number(object, "time", errors.time_s);
	json_object_object_add(object, "earlier", json_object_new_boolean(errors.earlier));
	put_number(object, "count", errors.count);
	put_number(object, "corrupt_blocks", errors.corrupt_blocks);
	put_number(object, "corrupt_last", errors.corrupt_last);
	put_number(object, "corrupt_time", errors.corrupt_last_s);
}

static uint64_t op_count(const struct daemon *daemon, unsigned opcode, bool all)
{
	struct fuse_front_op_stats op;

	return fuse_front_stats_read(daemon->front, opcode, &op) ? op.count - (all ? 0 : op.errors) : 0;
}

static uint64_t open_files(const struct daemon *daemon)
{
	uint64_t closed = op_count(daemon, FUSE_RELEASE, true);
	uint64_t opened = op_count(daemon, FUSE_OPEN, false) + op_count(daemon, FUSE_CREATE, false) +
		op_count(daemon, FUSE_TMPFILE, false);

	return opened > closed ? opened - closed : 0;
}

static void add_fuse(struct json_object *status, const struct daemon *daemon)
{
	struct json_object *object = status_object(status, "fuse"), *features = json_object_new_array();
	const char *names[FUSE_FRONT_FEATURES_MAX];
	unsigned count = fuse_front_features(daemon->front, names);
	struct fuse_front_status figures;
	char text[24];

	fuse_front_get_status(daemon->front, &figures);
	snprintf(text, sizeof(text), "7.%u", figures.kernel_minor);
	put_text(object, "kernel_protocol", text);
	snprintf(text, sizeof(text), "7.%u", figures.minor);
	put_text(object, "protocol", text);
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)figures.offered);
	put_text(object, "offered", text);
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)figures.negotiated);
	put_text(object, "negotiated", text);
	for (unsigned i = 0; i < count; i++)
		json_object_array_add(features, json_object_new_string(names[i]));
	json_object_object_add(object, "features", features);
	put_text(object, "transport", figures.ring_entries ? "io_uring" : "/dev/fuse");
	put_number(object, "ring_entries", figures.ring_entries);
	put_number(object, "max_write", figures.max_write);
	put_number(object, "max_pages", figures.max_pages);
	put_number(object, "max_readahead", figures.max_readahead);
	put_number(object, "max_background", figures.max_background);
	put_number(object, "running", figures.running);
	if (!daemon->config->noopen) /* otherwise the kernel does not say */
		put_number(object, "open_files", open_files(daemon));
	put_number(object, "pauses", figures.pauses);
	put_number(object, "forgets", figures.forgets);
	put_number(object, "interrupts", figures.interrupts);
	put_number(object, "interrupted", figures.interrupted);
	put_number(object, "waiting", figures.waiting);
	put_number(object, "malformed", figures.malformed);
	put_number(object, "refused_answers", figures.refused_answers);
}

static void add_confinement(struct json_object *status)
{
	struct json_object *object = status_object(status, "confinement");
	const struct confinement confinement = confine_status();
	char capabilities[256];

	confine_capabilities_show(confinement.capabilities, capabilities, sizeof(capabilities));
	put_bool(object, "on", confinement.on);
	put_text(object, "capabilities", capabilities);
	put_bool(object, "landlock", confinement.paths);
	put_bool(object, "seccomp", confinement.calls);
	put_number(object, "refused_calls", confinement.refused);
}

const char *daemon_state_name(const struct daemon *daemon)
{
	return daemon->state == DAEMON_MOUNTED && daemon->removal.held ? "waiting" : state_names[daemon->state];
}

static struct json_object *status_new(struct daemon *daemon)
{
	struct json_object *status = json_object_new_object();
	char options[1024];

	put_text(status, "version", LANEFS_VERSION);
	put_number(status, "pid", (uint64_t)getpid());
	put_text(status, "state", daemon_state_name(daemon));
	put_text(status, "target", daemon->config->target);
	put_text(status, "directory", daemon->config->directory);
	put_number(status, "uptime_seconds", (uint64_t)(daemon_now_ms() - daemon->started_ms) / 1000);
	if (daemon->state == DAEMON_CLOSING) /* what the rest speaks of is being taken down */
		return status;
	facts_refresh(daemon);
	options_show(daemon->config, options, sizeof(options));
	put_text(status, "options", options);
	add_device(status, daemon);
	add_filesystem(status, daemon);
	add_errors(status, daemon);
	add_fuse(status, daemon);
	status_reactors(status, daemon);
	add_confinement(status);
	return status;
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
	put_text(*result, "level", level_names[log_get_level()]);
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
		put_text(*result, "version", LANEFS_VERSION);
		put_number(*result, "format", FS_FORMAT_VERSION);
		put_number(*result, "pid", (uint64_t)getpid());
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
	if (!strcmp(method, "handover"))
		return handover_rpc(daemon, params, message, message_size);
	if (!strcmp(method, "remount"))
		return remount_rpc(daemon, params, result, message, message_size);
	if (!strcmp(method, "stats")) {
		if (daemon->state == DAEMON_CLOSING) {
			snprintf(message, message_size, "the filesystem is being closed");
			return RPC_INTERNAL_ERROR;
		}
		*result = daemon_stats(daemon);
		return 0;
	}
	int code = space_rpc(daemon, method, params, message, message_size);

	if (code == RPC_METHOD_NOT_FOUND)
		code = scrub_rpc(daemon, method, params, result, message, message_size);
	return code == RPC_METHOD_NOT_FOUND ? device_rpc(daemon, method, params, result, message, message_size) : code;
}
