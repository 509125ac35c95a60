/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's part of a remount. mount.lanefs does the kernel's, and decides which goes first: to read-only the kernel (it
 * knows who has files open for writing), to writable the daemon.
 *
 * {"options": "ro,noatime,...", "check": true}: what is not named stays as it is. With check nothing changes; the answer, or
 * the error, says whether it would be possible.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/daemon/rpc_call.h"
#include "reactor/log.h"

struct remount {
	struct daemon_task task;
	struct rpc_ticket ticket;
	struct mount_config wanted;
	char message[256];
};

static struct json_object *answer_new(const struct daemon *daemon)
{
	struct json_object *object = json_object_new_object();

	put_bool(object, "read_only", daemon->config->read_only);
	put_bool(object, "stopped", fs_stopped(daemon->fs));
	return object;
}

static MAY_WAIT int remount_run(struct daemon_task *task)
{
	struct remount *remount = CONTAINER_OF(task, struct remount, task);
	const struct mount_config *wanted = &remount->wanted;
	const struct fs_remount options = {
		.read_only = wanted->read_only,
		.discard = wanted->discard,
		.noatime = wanted->noatime,
		.strictatime = wanted->strictatime,
		.sync = wanted->sync,
		.commit_ms = (unsigned)wanted->commit_ms,
	};

	return fs_remount(task->daemon->fs, &options, remount->message, sizeof(remount->message));
}

static void remount_done(struct daemon_task *task)
{
	struct remount *remount = CONTAINER_OF(task, struct remount, task);
	struct daemon *daemon = task->daemon;
	bool was_read_only = daemon->config->read_only;

	daemon->remounting = false;
	if (!task->result) {
		*daemon->settings = remount->wanted;
		daemon->settings->remount = false;
		log_info("%s: %s", daemon->config->directory, was_read_only == daemon->config->read_only ? "options changed" :
			was_read_only ? "is writable now" : "is read-only now, clean");
	}
	rpc_server_answer(daemon->rpc, remount->ticket, task->result ? RPC_INTERNAL_ERROR : 0,
		task->result ? NULL : answer_new(daemon), remount->message);
	free(remount);
}

/* Why there can be none now, or NULL. */
static const char *refusal(const struct daemon *daemon)
{
	if (daemon->state != DAEMON_MOUNTED || daemon->stuck || daemon->removal.leaving || daemon->unmount_id)
		return "it is being unmounted";
	if (daemon->removal.held || daemon->removal.step != REMOVAL_NONE)
		return "its device is away, or about to leave";
	return daemon->remounting ? "another remount is under way" : NULL;
}

static int check(const struct daemon *daemon, struct mount_config *wanted, const char *list, char *message, size_t message_size)
{
	const char *fixed;
	char why[256] = "";

	if (options_change(wanted, list, why, sizeof(why))) {
		snprintf(message, message_size, "%s", why[0] ? why : "no memory");
		return RPC_INVALID_PARAMS;
	}
	if (fs_stopped(daemon->fs) && !wanted->read_only) {
		snprintf(message, message_size, "it has stopped on an error: unmount it and run fsck.lanefs");
		return RPC_INTERNAL_ERROR;
	}
	fixed = options_fixed_difference(wanted, daemon->config);
	if (!fixed)
		return 0;
	snprintf(message, message_size, "option %s cannot be changed while mounted: unmount and mount again", fixed);
	return RPC_INVALID_PARAMS;
}

static int start(struct daemon *daemon, struct remount *remount, bool only_check, struct json_object **result)
{
	/* A filesystem that has stopped changes nothing any more, whatever it is called. */
	if (fs_stopped(daemon->fs) && !only_check)
		daemon->settings->read_only = true;
	if (only_check || fs_stopped(daemon->fs)) {
		*result = answer_new(daemon);
		free(remount);
		return 0;
	}
	daemon->remounting = true;
	remount->ticket = rpc_server_defer(daemon->rpc);
	remount->task.run = remount_run;
	remount->task.done = remount_done;
	task_start(daemon, &remount->task);
	return RPC_LATER;
}

int remount_rpc(struct daemon *daemon, struct json_object *params, struct json_object **result, char *message, size_t message_size)
{
	const char *why = refusal(daemon);
	struct json_object *list, *only_check = NULL;
	struct remount *remount;
	int code;

	if (!params || !json_object_is_type(params, json_type_object) || !json_object_object_get_ex(params, "options", &list) ||
	    !json_object_is_type(list, json_type_string)) {
		snprintf(message, message_size, "remount wants \"options\", a string");
		return RPC_INVALID_PARAMS;
	}
	if (why) {
		snprintf(message, message_size, "%s", why);
		return RPC_INTERNAL_ERROR;
	}
	remount = calloc(1, sizeof(*remount));
	if (!remount) {
		snprintf(message, message_size, "no memory");
		return RPC_INTERNAL_ERROR;
	}
	remount->wanted = *daemon->config;
	remount->wanted.utab_options[0] = '\0';
	code = check(daemon, &remount->wanted, json_object_get_string(list), message, message_size);
	if (code) {
		free(remount);
		return code;
	}
	json_object_object_get_ex(params, "check", &only_check);
	return start(daemon, remount, only_check && json_object_get_boolean(only_check), result);
}
