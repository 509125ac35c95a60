/* SPDX-License-Identifier: BSD-3-Clause */
#include "fs/daemon/rpc_call.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/daemon/rpc_client.h"
#include "reactor/printable.h"

/* ---- calls ---- */
static void call_done(struct daemon_task *task)
{
	struct rpc_call *call = CONTAINER_OF(task, struct rpc_call, task);
	struct daemon *daemon = task->daemon;
	struct json_object *object = NULL;

	if (!task->result)
		object = call->report ? call->report(call) : json_object_new_object();
	else if (!call->message[0])
		snprintf(call->message, sizeof(call->message), "%.100s: %s: %s", daemon->bdev_name, call->method,
			strerror(-task->result));
	rpc_server_answer(daemon->rpc, call->ticket, task->result ? RPC_INTERNAL_ERROR : 0, object, call->message);
	free(call);
}

int rpc_call_start(struct daemon *daemon, struct rpc_call *call)
{
	call->ticket = rpc_server_defer(daemon->rpc);
	call->task.done = call_done;
	task_start(daemon, &call->task);
	return RPC_LATER;
}

int rpc_call_refuse(struct rpc_call *call, char *message, size_t message_size)
{
	snprintf(message, message_size, "%s", call ? call->message : "no memory");
	if (!call)
		return RPC_INTERNAL_ERROR;
	free(call);
	return RPC_INVALID_PARAMS;
}

/* ---- parameters and answers ---- */
bool param_given(struct json_object *params, const char *key) { return json_child(params, key); }

int param_text(struct rpc_call *call, struct json_object *params, const char *key, const char **out)
{
	struct json_object *value = json_child(params, key);

	if (value && json_object_is_type(value, json_type_string)) {
		*out = json_object_get_string(value);
		return 0;
	}
	snprintf(call->message, sizeof(call->message), "parameter \"%s\": wanted a string", key);
	return -EINVAL;
}

int param_number(struct rpc_call *call, struct json_object *params, const char *key, uint64_t *out)
{
	struct json_object *value = json_child(params, key);

	if (value && json_object_is_type(value, json_type_int) && json_object_get_int64(value) >= 0) {
		*out = json_object_get_uint64(value);
		return 0;
	}
	snprintf(call->message, sizeof(call->message), "parameter \"%s\": wanted a number from 0 on", key);
	return -EINVAL;
}

bool param_bool(struct json_object *params, const char *key, bool otherwise)
{
	struct json_object *value = json_child(params, key);

	return value ? json_object_get_boolean(value) : otherwise;
}

void put_text(struct json_object *object, const char *key, const char *value)
{
	json_object_object_add(object, key, json_object_new_string(value));
}

void put_foreign_text(struct json_object *object, const char *key, const char *value)
{
	char text[512];

	snprintf(text, sizeof(text), "%s", value);
	text_make_printable(text, strlen(text));
	put_text(object, key, text);
}

void put_number(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

void put_bool(struct json_object *object, const char *key, bool value)
{
	json_object_object_add(object, key, json_object_new_boolean(value));
}
