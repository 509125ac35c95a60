/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Talking to daemons: JSON-RPC 2.0, one message per line, over the Unix socket of each. Blocking, with time-outs.
 * Used by the lanefs command, by umount.lanefs, and by mount.lanefs to see who holds a target.
 */
#ifndef LANEFS_FS_DAEMON_RPC_CLIENT_H
#define LANEFS_FS_DAEMON_RPC_CLIENT_H

#include <json-c/json.h>
#include <sys/types.h>

#include "reactor/base.h"

enum { RPC_TIMEOUT_MS = 5000, RPC_REPLY_BYTES_MAX = 1 << 20 };

/* A connection to the daemon @pid, or -errno (-ECONNREFUSED: dead; -ENOENT: no socket of the caller's; -ETIMEDOUT: it
 * stands still). */
int rpc_connect(pid_t pid) MUST_CHECK;
/* The two halves of a call: a request may be sent long before its answer is wanted. */
int rpc_send(int connection, const char *method, struct json_object *params) MUST_CHECK;
int rpc_receive(int connection, int timeout_ms, struct json_object **result, char *message, size_t message_size) MUST_CHECK;
/* Calls @method; @params may be NULL and is taken over. *result is the caller's (json_object_put). timeout_ms < 0: no
 * limit. -ETIMEDOUT, -EPIPE (daemon ended), -EPROTO, or -EREMOTEIO when the daemon answered with an error, which is
 * then in @message. */
int rpc_call(int connection, const char *method, struct json_object *params, int timeout_ms,
	struct json_object **result, char *message, size_t message_size) MUST_CHECK;
/* Connect, call, close. */
int rpc_ask(pid_t pid, const char *method, struct json_object *params, struct json_object **result, char *message,
	size_t message_size) MUST_CHECK;

/* What came of one of several calls: err and message as of rpc_call; @result (NULL after an error) is the callee's. True:
 * that is enough. */
typedef bool (*rpc_take_fn)(unsigned index, int err, const char *message, struct json_object *result, void *arg);
/* Asks several at once, so that one that does not answer holds nobody up. Each is handed over as it answers, those that do
 * not in time at the end. */
void rpc_ask_all(const pid_t *pids, unsigned count, const char *method, int timeout_ms, rpc_take_fn take, void *arg);

/* Fields of results; a missing one is "" or 0. Strings live as long as @object. */
const char *json_text(struct json_object *object, const char *key);
int64_t json_number(struct json_object *object, const char *key);
struct json_object *json_child(struct json_object *object, const char *key); /* NULL when missing */
/* Elements of what should be an array, and one as text; 0 and "" when it is none. */
size_t json_count(struct json_object *array);
const char *json_text_at(struct json_object *array, size_t index);

/* The daemon whose mount is @directory (resolved), or whose target is @target; the other may be NULL. 0: none found;
 * -ENOMEM: there may be one.
 * *status (may be NULL) is then its answer to "status", the caller's. */
pid_t rpc_find(const char *directory, const char *target, struct json_object **status);

#endif
