/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Methods of the control socket that take their time over the whole filesystem: trim, grow. They run as tasks; the client
 * waits, the control thread does not. Parameters and answers: lanefs-rpc(7).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/daemon/daemon_device_rpc.h"
#include "fs/daemon/rpc_client.h"

struct space_call {
	struct daemon_task task;
	struct rpc_ticket ticket;
	const struct space_method *method;
	char message[256];               /* why it failed; "": what the errno says */
	uint64_t offset, length, min_length; /* trim */
	uint64_t trimmed;
	uint64_t bytes;                      /* grow */
	struct fs_grown grown;
};

struct space_method {
	const char *name;
	int (*parse)(struct space_call *call, struct json_object *params); /* 0, or -EINVAL with call->message */
	MAY_WAIT int (*run)(struct space_call *call);
	void (*report)(const struct space_call *call, struct json_object *object);
};

/* A number of bytes that may be left out. */
static int optional_bytes(struct space_call *call, struct json_object *params, const char *key, uint64_t otherwise, uint64_t *out)
{
	struct json_object *value = json_child(params, key);

	*out = value ? json_object_get_uint64(value) : otherwise;
	if (!value || (json_object_is_type(value, json_type_int) && (json_object_get_int64(value) >= 0 || *out > INT64_MAX)))
		return 0;
	snprintf(call->message, sizeof(call->message), "parameter \"%s\": wanted a number of bytes from 0 on", key);
	return -EINVAL;
}

/* ---- trim ---- */
static int trim_parse(struct space_call *call, struct json_object *params)
{
	int err = optional_bytes(call, params, "offset", 0, &call->offset);

	if (!err)
		err = optional_bytes(call, params, "length", UINT64_MAX, &call->length);
	if (!err)
		err = optional_bytes(call, params, "min_length", 0, &call->min_length);
	return err;
}

static MAY_WAIT int trim_run(struct space_call *call)
{
	struct daemon *daemon = call->task.daemon;
	int err = fs_trim(daemon->fs, call->offset, call->length, call->min_length, &call->trimmed);

	if (err == -EOPNOTSUPP)
		snprintf(call->message, sizeof(call->message), "%.100s: the device cannot discard", daemon->bdev_name);
	else if (err == -EROFS)
		snprintf(call->message, sizeof(call->message), "%.100s: mounted read-only, or stopped", daemon->bdev_name);
	else if (err == -EINVAL)
		snprintf(call->message, sizeof(call->message), "%.100s: trim: offset, length or min_length out of range",
			daemon->bdev_name);
	else if (err == -EINTR)
		snprintf(call->message, sizeof(call->message), "%.100s: trim was called off by the unmount", daemon->bdev_name);
	return err;
}

static void trim_report(const struct space_call *call, struct json_object *object)
{
	put_number(object, "trimmed", call->trimmed);
}

/* ---- grow ---- */
static int grow_parse(struct space_call *call, struct json_object *params)
{
	return optional_bytes(call, params, "bytes", 0, &call->bytes);
}

static MAY_WAIT int grow_run(struct space_call *call)
{
	return fs_grow(call->task.daemon->fs, call->bytes, &call->grown, call->message, sizeof(call->message));
}

static void grow_report(const struct space_call *call, struct json_object *object)
{
	put_number(object, "old", call->grown.old_bytes);
	put_number(object, "new", call->grown.new_bytes);
}

static const struct space_method space_methods[] = {
	{"trim", trim_parse, trim_run, trim_report},
	{"grow", grow_parse, grow_run, grow_report},
};

/* ---- calls ---- */
static MAY_WAIT int call_run(struct daemon_task *task)
{
	struct space_call *call = CONTAINER_OF(task, struct space_call, task);

	return call->method->run(call);
}

static void call_done(struct daemon_task *task)
{
	struct space_call *call = CONTAINER_OF(task, struct space_call, task);
	struct daemon *daemon = task->daemon;
	struct json_object *object = NULL;

	if (!task->result) {
		object = json_object_new_object();
		call->method->report(call, object);
	} else if (!call->message[0]) {
		snprintf(call->message, sizeof(call->message), "%.100s: %s: %s", daemon->bdev_name, call->method->name,
			strerror(-task->result));
	}
	rpc_server_answer(daemon->rpc, call->ticket, task->result ? RPC_INTERNAL_ERROR : 0, object, call->message);
	free(call);
}

static int call_start(struct daemon *daemon, const struct space_method *method, struct json_object *params, char *message,
	size_t message_size)
{
	struct space_call *call = calloc(1, sizeof(*call));

	if (!call) {
		snprintf(message, message_size, "no memory");
		return RPC_INTERNAL_ERROR;
	}
	call->method = method;
	if (method->parse(call, params)) {
		snprintf(message, message_size, "%s", call->message);
		free(call);
		return RPC_INVALID_PARAMS;
	}
	call->ticket = rpc_server_defer(daemon->rpc);
	call->task.run = call_run;
	call->task.done = call_done;
	task_start(daemon, &call->task);
	return RPC_LATER;
}

int space_rpc(struct daemon *daemon, const char *method, struct json_object *params, char *message, size_t message_size)
{
	for (size_t i = 0; i < ARRAY_SIZE(space_methods); i++) {
		if (strcmp(space_methods[i].name, method))
			continue;
		if (daemon->state != DAEMON_CLOSING && !daemon->stuck && daemon->fs)
			return call_start(daemon, &space_methods[i], params, message, message_size);
		snprintf(message, message_size, "the filesystem is being closed");
		return RPC_INTERNAL_ERROR;
	}
	return RPC_METHOD_NOT_FOUND;
}
