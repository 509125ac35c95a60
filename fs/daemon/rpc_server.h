/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's end of the control socket: JSON-RPC 2.0, one message per line, served by the control thread's poll loop.
 *
 * Nothing that a client sends or does not read can harm the daemon: the number of clients, the length of a line, its
 * nesting and the time without progress are bounded below, and a client that goes past a bound is dropped (the longest
 * silent one when a new one finds no place). Only the owner may connect (mode 0600 in a folder of mode 0700, and the
 * peer's uid is checked). Batches are refused with an error.
 */
#ifndef LANEFS_FS_DAEMON_RPC_SERVER_H
#define LANEFS_FS_DAEMON_RPC_SERVER_H

#include <json-c/json.h>
#include <poll.h>

#include "reactor/base.h"

enum {
	RPC_CLIENTS_MAX = 16,
	RPC_LINE_BYTES_MAX = 64 * 1024,
	RPC_DEPTH_MAX = 16,
	RPC_IDLE_MS_MAX = 30 * 1000, /* without a complete request, or without reading the answer */
	RPC_POLL_FDS = RPC_CLIENTS_MAX + 1,
};
enum rpc_error {
	RPC_PARSE_ERROR = -32700,
	RPC_INVALID_REQUEST = -32600,
	RPC_METHOD_NOT_FOUND = -32601,
	RPC_INVALID_PARAMS = -32602,
	RPC_INTERNAL_ERROR = -32603,
	RPC_LATER = 1, /* of a handler: rpc_server_answer or rpc_server_finish answers */
};
/* A request that is answered by rpc_server_answer. */
struct rpc_ticket {
	unsigned client;
	uint64_t serial;
};

struct rpc_server;

/* Answers @method: 0 and *result (taken over), an enum rpc_error with @message, or RPC_LATER. */
typedef int (*rpc_handler_fn)(void *arg, const char *method, struct json_object *params, struct json_object **result,
	char *message, size_t message_size);

/* Listens at <pid>.sock of the caller's folder. -errno. */
int rpc_server_create(rpc_handler_fn handler, void *arg, struct rpc_server **out) MUST_CHECK;
/* Removes the socket and drops all clients. */
void rpc_server_destroy(struct rpc_server *server);
/* Fills @fds (room for RPC_POLL_FDS) for poll(2); returns how many. */
unsigned rpc_server_poll_fds(struct rpc_server *server, struct pollfd *fds);
/* Handles what poll(2) reported in the same array. */
void rpc_server_handle(struct rpc_server *server, const struct pollfd *fds, unsigned count);
/* In a handler, which then returns RPC_LATER: names the request, for an answer by rpc_server_answer. */
struct rpc_ticket rpc_server_defer(struct rpc_server *server);
/* @code 0: with @result (taken over in any case), else an enum rpc_error with @message. The client may be gone. */
void rpc_server_answer(struct rpc_server *server, struct rpc_ticket ticket, int code, struct json_object *result,
	const char *message);
/* Answers with @result (taken over) and gives the connection away: the caller's, -errno. */
int rpc_server_take(struct rpc_server *server, struct rpc_ticket ticket, struct json_object *result) MUST_CHECK;
/* Answers everything that was put off with @result (taken over), and sends it, waiting a moment at most. A deferred request
 * gets an error: the daemon ends. */
void rpc_server_finish(struct rpc_server *server, struct json_object *result);

#endif
