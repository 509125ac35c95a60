/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Clients, lines and answers of the control socket. A client has at most one answer in its buffer; it is not read from
 * until that is gone.
 */
#include "fs/daemon/rpc_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fs/daemon/run_dir.h"
#include "reactor/log.h"

struct client {
	int fd;                        /* -1: free place */
	char *line;                    /* RPC_LINE_BYTES_MAX + 1 */
	size_t line_used;
	char *answer;                  /* what is not sent yet; NULL: nothing */
	size_t answer_used, answer_length;
	struct json_object *later_id;  /* of a request that is answered later */
	bool later, deferred;          /* by whom: see rpc_server_defer */
	uint64_t serial;               /* of that request */
	int64_t since_ms;              /* last progress */
};

struct rpc_server {
	int listen_fd;
	char path[PATH_MAX];
	rpc_handler_fn handler;
	void *arg;
	struct rpc_ticket current;     /* the last request that the handler was called for */
	bool deferred;                 /* it asked to answer that one itself */
	struct client clients[RPC_CLIENTS_MAX];
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* ---- life cycle ---- */
static int listen_at(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd, err;

	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	unlink(path); /* of a dead process with our pid */
	/* Nobody can connect between bind and chmod: the folder is 0700, and listen comes last. */
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && chmod(path, 0600) == 0 &&
	    listen(fd, RPC_CLIENTS_MAX) == 0)
		return fd;
	err = -errno;
	close(fd);
	return err;
}

int rpc_server_create(rpc_handler_fn handler, void *arg, struct rpc_server **out)
{
	struct rpc_server *server = calloc(1, sizeof(*server));
	char folder[PATH_MAX];
	int err;

	if (!server)
		return -ENOMEM;
	server->handler = handler;
	server->arg = arg;
	for (unsigned i = 0; i < RPC_CLIENTS_MAX; i++)
		server->clients[i].fd = -1;
	err = run_dir_get(true, folder);
	if (!err)
		err = run_dir_socket(getpid(), server->path);
	if (!err)
		err = server->listen_fd = listen_at(server->path);
	if (err < 0) {
		free(server);
		return err;
	}
	*out = server;
	return 0;
}

static void client_drop(struct client *client)
{
	close(client->fd);
	free(client->line);
	free(client->answer);
	json_object_put(client->later_id);
	*client = (struct client){.fd = -1};
}

void rpc_server_destroy(struct rpc_server *server)
{
	if (!server)
		return;
	unlink(server->path);
	close(server->listen_fd);
	for (unsigned i = 0; i < RPC_CLIENTS_MAX; i++)
		if (server->clients[i].fd >= 0)
			client_drop(&server->clients[i]);
	free(server);
}

/* ---- answers ---- */
static void client_send(struct client *client)
{
	ssize_t sent = send(client->fd, client->answer + client->answer_used, client->answer_length - client->answer_used,
		MSG_NOSIGNAL | MSG_DONTWAIT);

	if (sent < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (sent <= 0) {
		client_drop(client);
		return;
	}
	client->since_ms = now_ms();
	client->answer_used += (size_t)sent;
	if (client->answer_used == client->answer_length) {
		free(client->answer);
		client->answer = NULL;
	}
}

/* Takes @reply over. */
static void client_answer(struct client *client, struct json_object *reply)
{
	size_t length;
	const char *text = json_object_to_json_string_length(reply, JSON_C_TO_STRING_PLAIN, &length);

	client->answer = malloc(length + 1);
	if (client->answer) {
		memcpy(client->answer, text, length);
		client->answer[length] = '\n';
		client->answer_used = 0;
		client->answer_length = length + 1;
	}
	json_object_put(reply);
	if (client->answer)
		client_send(client);
	else
		client_drop(client);
}

/* Takes @id over (NULL becomes null). */
static struct json_object *reply_new(struct json_object *id)
{
	struct json_object *reply = json_object_new_object();

	json_object_object_add(reply, "jsonrpc", json_object_new_string("2.0"));
	json_object_object_add(reply, "id", id);
	return reply;
}

static struct json_object *reply_error(struct json_object *id, int code, const char *message)
{
	struct json_object *reply = reply_new(id), *error = json_object_new_object();

	json_object_object_add(error, "code", json_object_new_int(code));
	json_object_object_add(error, "message", json_object_new_string(message));
	json_object_object_add(reply, "error", error);
	return reply;
}

/* ---- requests ---- */
/* NULL when @line is not one JSON value and nothing else. */
static struct json_object *parse_line(const char *line, size_t length)
{
	struct json_tokener *tokener = json_tokener_new_ex(RPC_DEPTH_MAX);
	struct json_object *value = tokener ? json_tokener_parse_ex(tokener, line, (int)length + 1) : NULL;

	if (value && json_tokener_get_parse_end(tokener) < length) {
		json_object_put(value);
		value = NULL;
	}
	if (tokener)
		json_tokener_free(tokener);
	return value;
}

static bool request_valid(struct json_object *request, struct json_object **method)
{
	struct json_object *version;

	return json_object_get_type(request) == json_type_object &&
		json_object_object_get_ex(request, "jsonrpc", &version) &&
		json_object_get_type(version) == json_type_string && !strcmp(json_object_get_string(version), "2.0") &&
		json_object_object_get_ex(request, "method", method) && json_object_get_type(*method) == json_type_string;
}

static void handle_request(struct rpc_server *server, struct client *client, struct json_object *request)
{
	struct json_object *method, *id = NULL, *params = NULL, *result = NULL, *reply;
	char message[256] = "";
	bool wants_reply;
	int code;

	if (!request_valid(request, &method)) {
		client_answer(client, reply_error(NULL, RPC_INVALID_REQUEST, "not a JSON-RPC 2.0 request object"));
		return;
	}
	wants_reply = json_object_object_get_ex(request, "id", &id);
	json_object_object_get_ex(request, "params", &params);
	server->current = (struct rpc_ticket){.client = (unsigned)(client - server->clients), .serial = server->current.serial + 1};
	server->deferred = false;
	code = server->handler(server->arg, json_object_get_string(method), params, &result, message, sizeof(message));
	if (!wants_reply) { /* a notification */
		json_object_put(result);
		return;
	}
	if (code == RPC_LATER) {
		client->later = true;
		client->deferred = server->deferred;
		client->serial = server->current.serial;
		client->later_id = json_object_get(id);
		return;
	}
	if (code == 0) {
		reply = reply_new(json_object_get(id));
		json_object_object_add(reply, "result", result);
	} else {
		reply = reply_error(json_object_get(id), code, message);
	}
	client_answer(client, reply);
}

static void handle_line(struct rpc_server *server, struct client *client, size_t length)
{
	struct json_object *request;

	client->line[length] = '\0';
	while (length && strchr(" \t\r", client->line[length - 1]))
		client->line[--length] = '\0';
	if (length == 0)
		return;
	request = parse_line(client->line, length);
	if (!request) {
		client_answer(client, reply_error(NULL, RPC_PARSE_ERROR, "not JSON, or nested too deeply"));
		return;
	}
	handle_request(server, client, request);
	json_object_put(request);
}

/* Handles complete lines until an answer is pending. */
static void client_lines(struct rpc_server *server, struct client *client)
{
	while (client->fd >= 0 && !client->answer && !client->later) {
		char *end = memchr(client->line, '\n', client->line_used);
		size_t length = end ? (size_t)(end - client->line) : 0;

		if (!end)
			break;
		client->since_ms = now_ms();
		handle_line(server, client, length);
		if (client->fd < 0)
			return;
		client->line_used -= length + 1;
		memmove(client->line, client->line + length + 1, client->line_used);
	}
	if (client->fd >= 0 && client->line_used == RPC_LINE_BYTES_MAX && !client->answer && !client->later)
		client_drop(client);
}

static void client_read(struct rpc_server *server, struct client *client)
{
	ssize_t got;

	if (client->later) { /* polled only for its end */
		client_drop(client);
		return;
	}
	got = recv(client->fd, client->line + client->line_used, RPC_LINE_BYTES_MAX - client->line_used, MSG_DONTWAIT);
	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (got <= 0) {
		client_drop(client);
		return;
	}
	client->line_used += (size_t)got;
	client_lines(server, client);
}

struct rpc_ticket rpc_server_defer(struct rpc_server *server)
{
	server->deferred = true;
	return server->current;
}

static void answer_later(struct client *client, struct json_object *reply)
{
	client->later_id = NULL;
	client->later = false;
	client_answer(client, reply);
}

void rpc_server_answer(struct rpc_server *server, struct rpc_ticket ticket, int code, struct json_object *result,
	const char *message)
{
	struct client *client = server ? &server->clients[ticket.client] : NULL;
	struct json_object *reply;

	if (!client || client->fd < 0 || !client->later || client->serial != ticket.serial) {
		json_object_put(result);
		return;
	}
	if (code == 0) {
		reply = reply_new(client->later_id);
		json_object_object_add(reply, "result", result);
	} else {
		reply = reply_error(client->later_id, code, message);
		json_object_put(result);
	}
	answer_later(client, reply);
	if (client->fd >= 0)
		client_lines(server, client);
}

int rpc_server_take(struct rpc_server *server, struct rpc_ticket ticket, struct json_object *result)
{
	struct client *client = server ? &server->clients[ticket.client] : NULL;
	struct json_object *reply;
	int fd;

	if (!client || client->fd < 0 || !client->later || client->serial != ticket.serial) {
		json_object_put(result);
		return -EPIPE;
	}
	reply = reply_new(client->later_id);
	json_object_object_add(reply, "result", result);
	answer_later(client, reply);
	if (client->fd < 0)
		return -EPIPE;
	fd = client->answer ? -EAGAIN : fcntl(client->fd, F_DUPFD_CLOEXEC, 0);
	client_drop(client);
	return fd < 0 && fd != -EAGAIN ? -EMFILE : fd;
}

/* ---- the poll loop's side ---- */
static struct client *client_place(struct rpc_server *server)
{
	struct client *oldest = NULL;

	for (unsigned i = 0; i < RPC_CLIENTS_MAX; i++) {
		struct client *client = &server->clients[i];

		if (client->fd < 0)
			return client;
		if (!client->later && (!oldest || client->since_ms < oldest->since_ms))
			oldest = client;
	}
	if (oldest)
		client_drop(oldest);
	return oldest;
}

static void accept_client(struct rpc_server *server)
{
	int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct ucred peer;
	socklen_t size = sizeof(peer);
	struct client *client;

	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) || (peer.uid != 0 && peer.uid != geteuid())) {
		close(fd);
		return;
	}
	client = client_place(server);
	if (!client || !(client->line = malloc(RPC_LINE_BYTES_MAX + 1))) {
		close(fd);
		return;
	}
	client->fd = fd;
	client->since_ms = now_ms();
}

unsigned rpc_server_poll_fds(struct rpc_server *server, struct pollfd *fds)
{
	int64_t now = now_ms();
	unsigned count = 0;

	if (!server)
		return 0;
	fds[count++] = (struct pollfd){.fd = server->listen_fd, .events = POLLIN};
	for (unsigned i = 0; i < RPC_CLIENTS_MAX; i++) {
		struct client *client = &server->clients[i];

		if (client->fd >= 0 && !client->later && now - client->since_ms > RPC_IDLE_MS_MAX)
			client_drop(client);
		if (client->fd >= 0)
			fds[count++] = (struct pollfd){.fd = client->fd,
				.events = client->answer ? POLLOUT : client->later ? POLLRDHUP : POLLIN};
	}
	return count;
}

void rpc_server_handle(struct rpc_server *server, const struct pollfd *fds, unsigned count)
{
	for (unsigned i = 1; server && i < count; i++) {
		if (!fds[i].revents)
			continue;
		for (unsigned j = 0; j < RPC_CLIENTS_MAX; j++) {
			struct client *client = &server->clients[j];

			if (client->fd != fds[i].fd)
				continue;
			if (!client->answer) {
				client_read(server, client);
			} else {
				client_send(client);
				if (client->fd >= 0)
					client_lines(server, client);
			}
			break;
		}
	}
	if (server && count && fds[0].revents)
		accept_client(server);
}

/* Reads what clients have sent already: somebody may have asked to wait just before the end. */
static void drain(struct rpc_server *server)
{
	struct pollfd fds[RPC_POLL_FDS];

	for (unsigned round = 0; round < RPC_CLIENTS_MAX * 4; round++) {
		unsigned count = rpc_server_poll_fds(server, fds);

		if (poll(fds, count, 0) <= 0)
			return;
		rpc_server_handle(server, fds, count);
	}
}

void rpc_server_finish(struct rpc_server *server, struct json_object *result)
{
	if (server)
		drain(server);
	for (unsigned i = 0; server && i < RPC_CLIENTS_MAX; i++) {
		struct client *client = &server->clients[i];
		struct json_object *reply;

		if (client->fd < 0 || !client->later)
			continue;
		if (client->deferred) {
			reply = reply_error(client->later_id, RPC_INTERNAL_ERROR, "the daemon has ended");
		} else {
			reply = reply_new(client->later_id);
			json_object_object_add(reply, "result", json_object_get(result));
		}
		answer_later(client, reply);
	}
	json_object_put(result);
}
