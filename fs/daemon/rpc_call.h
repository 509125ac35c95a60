/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A call of the control socket that runs as a task: parameters are checked (control thread), the work is done (a fiber of
 * reactor 0), the answer is made (control thread). The client waits meanwhile, the control thread does not.
 */
#ifndef LANEFS_FS_DAEMON_RPC_CALL_H
#define LANEFS_FS_DAEMON_RPC_CALL_H

#include "fs/daemon/daemon_internal.h"

/* The first member of an allocated struct with the parameters and the results. */
struct rpc_call {
	struct daemon_task task;         /* run and device_only are the starter's */
	const char *method;
	char message[256];               /* why it failed; "": what the errno says */
	struct json_object *(*report)(const struct rpc_call *call); /* NULL: an empty object */
	struct rpc_ticket ticket;        /* by rpc_call_start */
};

/* The call belongs to the task now, and is freed when it is answered. RPC_LATER. */
int rpc_call_start(struct daemon *daemon, struct rpc_call *call);
/* It is not started: its message is copied, and it is freed. @call NULL: there was no memory. RPC_INVALID_PARAMS or
 * RPC_INTERNAL_ERROR. */
int rpc_call_refuse(struct rpc_call *call, char *message, size_t message_size);

/* Fields of parameters; -EINVAL with a message when there is none, or of another type or value. */
int param_text(struct rpc_call *call, struct json_object *params, const char *key, const char **out) MUST_CHECK;
int param_number(struct rpc_call *call, struct json_object *params, const char *key, uint64_t *out) MUST_CHECK;
bool param_bool(struct json_object *params, const char *key, bool otherwise);
bool param_given(struct json_object *params, const char *key);
void put_text(struct json_object *object, const char *key, const char *value);
/* Of an image or a device: control characters become '?'. */
void put_foreign_text(struct json_object *object, const char *key, const char *value);
void put_number(struct json_object *object, const char *key, uint64_t value);
void put_bool(struct json_object *object, const char *key, bool value);

#endif
