/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Methods of the control socket around a scrub: scrub_start begins one and is answered at once, scrub_status tells how far it is
 * and what it has found, scrub_cancel ends it. It belongs to the daemon: a client may go. Parameters and answers: lanefs-rpc(7).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/daemon/rpc_call.h"
#include "fs/daemon/rpc_client.h"

struct scrub_task {
	struct daemon_task task;
	struct fs_scrub_options options;
};

static MAY_WAIT int scrub_run(struct daemon_task *task)
{
	const struct scrub_task *scrub = CONTAINER_OF(task, struct scrub_task, task);

	return fs_scrub(task->daemon->fs, &scrub->options);
}

static void scrub_done(struct daemon_task *task)
{
	task->daemon->scrubbing = false;
	free(CONTAINER_OF(task, struct scrub_task, task));
}

static int scrub_start(struct daemon *daemon, struct json_object *params, struct json_object **result, char *message,
	size_t message_size)
{
	struct json_object *rate = json_child(params, "rate");
	struct scrub_task *scrub;

	if (rate && (!json_object_is_type(rate, json_type_int) || json_object_get_int64(rate) < 0)) {
		snprintf(message, message_size, "parameter \"rate\": wanted a number of bytes from 0 on");
		return RPC_INVALID_PARAMS;
	}
	if (daemon->scrubbing) {
		snprintf(message, message_size, "%.100s: a scrub runs already; wait for it, or cancel it", daemon->bdev_name);
		return RPC_INTERNAL_ERROR;
	}
	if (fs_stopped(daemon->fs)) {
		snprintf(message, message_size, "%.100s: the filesystem has stopped; unmount it and run fsck.lanefs",
			daemon->bdev_name);
		return RPC_INTERNAL_ERROR;
	}
	scrub = calloc(1, sizeof(*scrub));
	if (!scrub) {
		snprintf(message, message_size, "no memory");
		return RPC_INTERNAL_ERROR;
	}
	scrub->options = (struct fs_scrub_options){
		.data = json_object_get_boolean(json_child(params, "data")), .rate_bytes = json_object_get_uint64(rate)};
	scrub->task.run = scrub_run;
	scrub->task.done = scrub_done;
	daemon->scrubbing = true;
	task_start(daemon, &scrub->task);
	*result = json_object_new_object();
	json_object_object_add(*result, "started", json_object_new_boolean(true));
	return 0;
}

static const char *phase_name(enum fs_scrub_phase phase)
{
	static const char *const names[] = {"none", "metadata", "directories", "space"};

	return names[phase];
}

/* How the last one ended. */
static const char *outcome(const struct daemon *daemon, const struct fs_scrub_status *status)
{
	if (daemon->scrubbing)
		return "running";
	if (!status->begin_s)
		return "never";
	return status->result == -EINTR ? "cancelled" : status->result ? "failed" : "finished";
}

struct json_object *scrub_status_new(const struct daemon *daemon)
{
	struct json_object *object = json_object_new_object();
	struct fs_scrub_status status;

	fs_scrub_get_status(daemon->fs, &status);
	put_text(object, "state", outcome(daemon, &status));
	put_text(object, "phase", phase_name(status.phase));
	put_text(object, "error", status.result ? strerror(-status.result) : "");
	put_number(object, "done", status.done);
	put_number(object, "total", status.total);
	put_number(object, "inodes", status.inodes);
	put_number(object, "directories", status.directories);
	put_number(object, "blocks", status.blocks);
	put_number(object, "blocks_ahead", status.blocks_ahead);
	put_number(object, "data_bytes", status.data_bytes);
	put_number(object, "findings", status.findings);
	put_number(object, "groups_unjudged", status.groups_unjudged);
	put_number(object, "inodes_unjudged", status.inodes_unjudged);
	put_number(object, "rounds", status.rounds);
	json_object_object_add(object, "incomplete", json_object_new_boolean(status.incomplete));
	put_number(object, "begin", status.begin_s);
	put_number(object, "end", status.end_s);
	return object;
}

static int scrub_status(struct daemon *daemon, struct json_object *params, struct json_object **result)
{
	enum { LINES_MAX = 64 };
	const uint64_t first = json_object_get_uint64(json_child(params, "from"));
	struct json_object *lines = json_object_new_array();
	char text[256];
	uint64_t ino;

	*result = scrub_status_new(daemon);
	for (unsigned i = 0; i < LINES_MAX && first + i < UINT32_MAX; i++) {
		struct json_object *line;

		if (!fs_scrub_finding(daemon->fs, (unsigned)first + i, &ino, text, sizeof(text)))
			break;
		line = json_object_new_object();
		put_number(line, "inode", ino);
		put_foreign_text(line, "text", text);
		json_object_array_add(lines, line);
	}
	json_object_object_add(*result, "lines", lines);
	return 0;
}

int scrub_rpc(struct daemon *daemon, const char *method, struct json_object *params, struct json_object **result, char *message,
	size_t message_size)
{
	if (strcmp(method, "scrub_start") && strcmp(method, "scrub_status") && strcmp(method, "scrub_cancel"))
		return RPC_METHOD_NOT_FOUND;
	if (daemon->state == DAEMON_CLOSING || daemon->stuck || !daemon->fs) {
		snprintf(message, message_size, "the filesystem is being closed");
		return RPC_INTERNAL_ERROR;
	}
	if (!strcmp(method, "scrub_start"))
		return scrub_start(daemon, params, result, message, message_size);
	if (!strcmp(method, "scrub_status"))
		return scrub_status(daemon, params, result);
	if (!daemon->scrubbing) {
		snprintf(message, message_size, "%.100s: no scrub runs", daemon->bdev_name);
		return RPC_INTERNAL_ERROR;
	}
	fs_scrub_cancel(daemon->fs);
	*result = json_object_new_object();
	json_object_object_add(*result, "cancelled", json_object_new_boolean(true));
	return 0;
}
