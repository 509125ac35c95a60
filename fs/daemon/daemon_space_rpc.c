/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Methods of the control socket that take their time over the whole filesystem: trim, grow. They run as tasks; the client
 * waits, the control thread does not. Parameters and answers: lanefs-rpc(7).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/daemon/rpc_call.h"
#include "fs/daemon/rpc_client.h"

struct space_call {
	struct rpc_call base;
	const struct space_method *method;
	uint64_t offset, length, min_length; /* trim */
	uint64_t trimmed;
	uint64_t bytes;                      /* grow */
	struct fs_grown grown;
};

struct space_method {
	const char *name;
	int (*parse)(struct space_call *call, struct json_object *params); /* 0, or -EINVAL with call->base.message */
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
	snprintf(call->base.message, sizeof(call->base.message), "parameter \"%s\": wanted a number of bytes from 0 on", key);
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
	struct daemon *daemon = call->base.task.daemon;
	int err = fs_trim(daemon->fs, call->offset, call->length, call->min_length, &call->trimmed);

	if (err == -EOPNOTSUPP)
		snprintf(call->base.message, sizeof(call->base.message), "%.100s: the device cannot discard", daemon->bdev_name);
	else if (err == -EROFS)
		snprintf(call->base.message, sizeof(call->base.message), "%.100s: mounted read-only, or stopped", daemon->bdev_name);
	else if (err == -EINVAL)
		snprintf(call->base.message, sizeof(call->base.message), "%.100s: trim: offset, length or min_length out of range",
			daemon->bdev_name);
	else if (err == -EINTR)
		snprintf(call->base.message, sizeof(call->base.message), "%.100s: trim was called off by the unmount", daemon->bdev_name);
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
	return fs_grow(call->base.task.daemon->fs, call->bytes, &call->grown, call->base.message, sizeof(call->base.message));
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
	struct space_call *call = CONTAINER_OF(task, struct space_call, base.task);

	return call->method->run(call);
}

static struct json_object *call_report(const struct rpc_call *base)
{
	const struct space_call *call = CONTAINER_OF(base, struct space_call, base);
	struct json_object *object = json_object_new_object();

	call->method->report(call, object);
	return object;
}

static int call_start(struct daemon *daemon, const struct space_method *method, struct json_object *params, char *message,
	size_t message_size)
{
	struct space_call *call = calloc(1, sizeof(*call));

	if (!call)
		return rpc_call_refuse(NULL, message, message_size);
	call->method = method;
	if (method->parse(call, params))
		return rpc_call_refuse(&call->base, message, message_size);
	call->base.method = method->name;
	call->base.report = call_report;
	call->base.task.run = call_run;
	return rpc_call_start(daemon, &call->base);
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
