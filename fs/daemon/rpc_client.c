/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The client's side of the control socket.
 */
#include "fs/daemon/rpc_client.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fs/daemon/run_dir.h"

static const struct timeval connect_timeout = {.tv_usec = 100 * 1000};

int rpc_connect(pid_t pid)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	char path[PATH_MAX];
	int fd, err = run_dir_socket(pid, path);

	if (err)
		return err;
	if (strlen(path) >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	strcpy(address.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* A stopped daemon accepts nobody; when its queue is full, connect would wait for ever. */
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &connect_timeout, sizeof(connect_timeout));
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	err = errno == EAGAIN ? -ETIMEDOUT : -errno;
	close(fd);
	return err;
}

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads one line into @text, without its end. */
static int read_line(int fd, char *text, size_t size, int timeout_ms)
{
	int64_t end = now_ms() + timeout_ms;
	size_t used = 0;

	for (;;) {
		struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
		int64_t left = end - now_ms();
		ssize_t got;
		char *line_end;

		if (poll(&poll_fd, 1, timeout_ms < 0 ? -1 : left > 0 ? (int)left : 0) == 0)
			return -ETIMEDOUT;
		got = recv(fd, text + used, size - 1 - used, 0);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return got < 0 && errno != ECONNRESET ? -errno : -EPIPE;
		text[used + got] = '\0';
		line_end = strchr(text + used, '\n');
		used += (size_t)got;
		if (line_end) {
			*line_end = '\0';
			return 0;
		}
		if (used == size - 1)
			return -EPROTO;
	}
}

/* False: there is no memory for @value, or for its place. */
static bool field_add(struct json_object *object, const char *key, struct json_object *value)
{
	if (value && !json_object_object_add(object, key, value))
		return true;
	json_object_put(value);
	return false;
}

/* @params are taken over. NULL: no memory. */
static struct json_object *request_make(const char *method, struct json_object *params)
{
	struct json_object *request = json_object_new_object();

	if (request && (!params || field_add(request, "params", json_object_get(params))) &&
		field_add(request, "jsonrpc", json_object_new_string("2.0")) && field_add(request, "id", json_object_new_int(1)) &&
		field_add(request, "method", json_object_new_string(method))) {
		json_object_put(params);
		return request;
	}
	json_object_put(params);
	json_object_put(request);
	return NULL;
}

int rpc_send(int fd, const char *method, struct json_object *params)
{
	struct json_object *request = request_make(method, params);
	size_t length;
	const char *text = request ? json_object_to_json_string_length(request, JSON_C_TO_STRING_PLAIN, &length) : NULL;
	int err = text ? 0 : -ENOMEM;

	if (text && (send(fd, text, length, MSG_NOSIGNAL) != (ssize_t)length || send(fd, "\n", 1, MSG_NOSIGNAL) != 1))
		err = -EPIPE;
	json_object_put(request);
	return err;
}

/* The tokener does not say that it had no memory: it stops in the middle of what is whole. */
static int parse_text(const char *text, struct json_object **out)
{
	struct json_tokener *tokener = json_tokener_new();

	if (!tokener)
		return -ENOMEM;
	*out = json_tokener_parse_ex(tokener, text, -1);
	const enum json_tokener_error error = json_tokener_get_error(tokener);
	json_tokener_free(tokener);
	return *out ? 0 : error == json_tokener_success || error == json_tokener_continue ? -ENOMEM : -EPROTO;
}

static int parse_reply(const char *text, struct json_object **result, char *message, size_t message_size)
{
	struct json_object *reply, *error, *value;
	int err = parse_text(text, &reply);

	if (err)
		return err;
	error = json_child(reply, "error");
	if (error) {
		snprintf(message, message_size, "%s", json_text(error, "message"));
		json_object_put(reply);
		return -EREMOTEIO;
	}
	value = json_child(reply, "result");
	if (!value) {
		json_object_put(reply);
		return -EPROTO;
	}
	*result = json_object_get(value);
	json_object_put(reply);
	return 0;
}

int rpc_receive(int connection, int timeout_ms, struct json_object **result, char *message, size_t message_size)
{
	char *text = malloc(RPC_REPLY_BYTES_MAX);
	int err = text ? read_line(connection, text, RPC_REPLY_BYTES_MAX, timeout_ms) : -ENOMEM;

	message[0] = '\0';
	if (!err)
		err = parse_reply(text, result, message, message_size);
	free(text);
	return err;
}

int rpc_call(int connection, const char *method, struct json_object *params, int timeout_ms,
	struct json_object **result, char *message, size_t message_size)
{
	int err = rpc_send(connection, method, params);

	message[0] = '\0';
	return err ? err : rpc_receive(connection, timeout_ms, result, message, message_size);
}

int rpc_ask(pid_t pid, const char *method, struct json_object *params, struct json_object **result, char *message,
	size_t message_size)
{
	int connection = rpc_connect(pid), err;

	message[0] = '\0';
	if (connection < 0) {
		json_object_put(params);
		return connection;
	}
	err = rpc_call(connection, method, params, RPC_TIMEOUT_MS, result, message, message_size);
	close(connection);
	return err;
}

/* Takes the answer that has come, or the error. */
static bool answer_take(struct pollfd *fd, unsigned index, int timeout_ms, rpc_take_fn take, void *arg)
{
	struct json_object *result = NULL;
	char message[256] = "";
	int err = fd->fd < 0 ? fd->fd : rpc_receive(fd->fd, timeout_ms, &result, message, sizeof(message));

	if (fd->fd >= 0)
		close(fd->fd);
	fd->fd = -1;
	return take(index, err, message, err ? NULL : result, arg);
}

static int connect_and_send(pid_t pid, const char *method)
{
	int fd = rpc_connect(pid), err = fd < 0 ? fd : rpc_send(fd, method, NULL);

	if (fd < 0 || !err)
		return fd;
	close(fd);
	return err;
}

void rpc_ask_all(const pid_t *pids, unsigned count, const char *method, int timeout_ms, rpc_take_fn take, void *arg)
{
	const int64_t deadline_ms = now_ms() + timeout_ms;
	struct pollfd fds[RUN_DAEMONS_MAX];
	unsigned left = 0;
	bool enough = false;

	for (unsigned i = 0; i < count; i++) {
		fds[i] = (struct pollfd){.fd = connect_and_send(pids[i], method), .events = POLLIN};
		if (fds[i].fd >= 0)
			left++;
		else
			enough = enough || answer_take(&fds[i], i, 0, take, arg);
	}
	for (int64_t wait_ms; !enough && left > 0 && (wait_ms = deadline_ms - now_ms()) > 0;) {
		if (poll(fds, count, (int)wait_ms) <= 0)
			continue;
		for (unsigned i = 0; i < count && !enough; i++) {
			if (fds[i].fd < 0 || !fds[i].revents)
				continue;
			const int64_t left_ms = deadline_ms - now_ms();
			enough = answer_take(&fds[i], i, (int)MAX(left_ms, (int64_t)1), take, arg);
			left--;
		}
	}
	for (unsigned i = 0; i < count; i++) {
		if (fds[i].fd < 0)
			continue;
		close(fds[i].fd);
		enough = enough || take(i, -ETIMEDOUT, "", NULL, arg);
	}
}

struct json_object *json_child(struct json_object *object, const char *key)
{
	struct json_object *value;

	if (!object || json_object_get_type(object) != json_type_object || !json_object_object_get_ex(object, key, &value))
		return NULL;
	return value;
}

const char *json_text(struct json_object *object, const char *key)
{
	struct json_object *value = json_child(object, key);

	return (value ? json_object_get_string(value) : NULL) ?: "";
}

int64_t json_number(struct json_object *object, const char *key)
{
	struct json_object *value = json_child(object, key);

	return value ? json_object_get_int64(value) : 0;
}

size_t json_count(struct json_object *array)
{
	return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

const char *json_text_at(struct json_object *array, size_t index)
{
	struct json_object *value = index < json_count(array) ? json_object_array_get_idx(array, index) : NULL;

	return (value ? json_object_get_string(value) : NULL) ?: "";
}

/* What a target names: the path of an emulated drive's medium, an address without its prefix, or all of it. */
static void target_object(const char *target, char out[PATH_MAX])
{
	bool emulated = !strncmp(target, "emu:", 4);

	snprintf(out, PATH_MAX, "%s", target + (emulated || !strncmp(target, "pci:", 4) ? 4 : 0));
	if (emulated)
		out[strcspn(out, ",")] = '\0';
}

/* Two names of one file (a link, a device node made twice), and a file as the medium of a drive, are the same target. */
static bool same_target(const char *a, const char *b)
{
	char first_object[PATH_MAX], second_object[PATH_MAX];
	struct stat first, second;

	target_object(a, first_object);
	target_object(b, second_object);
	if (!strcmp(first_object, second_object))
		return true;
	if (stat(first_object, &first) || stat(second_object, &second))
		return false;
	if (S_ISBLK(first.st_mode) && S_ISBLK(second.st_mode))
		return first.st_rdev == second.st_rdev;
	return first.st_dev == second.st_dev && first.st_ino == second.st_ino;
}

struct finding {
	const pid_t *pids;
	const char *directory, *target;
	struct json_object **status;
	pid_t found;
};

static bool find_take(unsigned index, int err, const char *message, struct json_object *answer, void *arg)
{
	struct finding *finding = arg;
	bool same = !err &&
		((finding->directory && !strcmp(json_text(answer, "directory"), finding->directory)) ||
		(finding->target && same_target(json_text(answer, "target"), finding->target)));

	if (same)
		finding->found = finding->pids[index];
	else if (err == -ENOMEM && !finding->found)
		finding->found = -ENOMEM;
	if (same && finding->status)
		*finding->status = answer;
	else
		json_object_put(answer);
	return same;
}

pid_t rpc_find(const char *directory, const char *target, struct json_object **status)
{
	pid_t pids[RUN_DAEMONS_MAX];
	const int count = run_dir_list(pids);
	struct finding finding = {.pids = pids, .directory = directory, .target = target, .status = status};

	if (count < 0)
		return count;
	rpc_ask_all(pids, (unsigned)count, "status", RPC_TIMEOUT_MS, find_take, &finding);
	return finding.found;
}
