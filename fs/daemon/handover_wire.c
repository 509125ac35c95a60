/* SPDX-License-Identifier: BSD-3-Clause */
/* Sending and receiving: see handover_wire.h. */
#include "fs/daemon/handover_wire.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

union control {
	struct cmsghdr header;
	char space[CMSG_SPACE(HANDOVER_FDS * sizeof(int))];
};

static int64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* True: it is time to try again. */
static bool await(int socket, short events, int64_t end_ms)
{
	struct pollfd poll_fd = {.fd = socket, .events = events};
	const int64_t left = end_ms - now_ms();
	const int ready = poll(&poll_fd, 1, left > 0 ? (int)left : 0);

	return ready > 0 || (ready < 0 && errno == EINTR && left > 0);
}

static int send_all(int socket, const char *text, size_t length, const int *fds)
{
	const int64_t end_ms = now_ms() + HANDOVER_SEND_MS;
	union control control = {};

	while (length) {
		struct iovec iov = {(void *)text, length};
		struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
		ssize_t sent;

		if (fds) {
			message.msg_control = control.space;
			message.msg_controllen = sizeof(control.space);
			control.header.cmsg_level = SOL_SOCKET;
			control.header.cmsg_type = SCM_RIGHTS;
			control.header.cmsg_len = CMSG_LEN(HANDOVER_FDS * sizeof(int));
			memcpy(CMSG_DATA(&control.header), fds, HANDOVER_FDS * sizeof(int));
		}
		sent = sendmsg(socket, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent < 0 && errno == EAGAIN && !await(socket, POLLOUT, end_ms))
			return -ETIMEDOUT;
		if (sent < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		if (sent > 0) {
			text += sent;
			length -= (size_t)sent;
			fds = NULL; /* they went with the first byte */
		}
	}
	return 0;
}

int handover_send(int socket, struct json_object *message, const int *fds)
{
	size_t length;
	const char *text = message ? json_object_to_json_string_length(message, JSON_C_TO_STRING_PLAIN, &length) : NULL;
	char *line = text && length < HANDOVER_LINE_BYTES_MAX ? malloc(length + 1) : NULL;
	int error = line ? 0 : -ENOMEM;

	if (line) {
		memcpy(line, text, length);
		line[length] = '\n';
		error = send_all(socket, line, length + 1, fds);
	}
	free(line);
	json_object_put(message);
	return error;
}

/* Keeps the first descriptors, where they are wanted, and closes all others. */
static void keep_fds(struct msghdr *message, int *fds)
{
	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		const size_t count = header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS ?
			(header->cmsg_len - CMSG_LEN(0)) / sizeof(int) : 0;

		for (size_t i = 0; i < count; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
			if (fds && i < HANDOVER_FDS && fds[i] < 0)
				fds[i] = fd;
			else
				close(fd);
		}
	}
}

static ssize_t receive_some(int socket, char *into, size_t size, int *fds)
{
	union control control = {};
	struct iovec iov = {into, size};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.space,
		.msg_controllen = sizeof(control.space)};
	const ssize_t got = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (got >= 0)
		keep_fds(&message, fds);
	return got;
}

static int receive_line(int socket, int timeout_ms, char *line, int *fds)
{
	const int64_t end_ms = now_ms() + timeout_ms;
	size_t used = 0;

	for (;;) {
		const ssize_t got = receive_some(socket, line + used, HANDOVER_LINE_BYTES_MAX - used, fds);

		if (got < 0 && errno == EAGAIN && !await(socket, POLLIN, end_ms))
			return -ETIMEDOUT;
		if (got == 0 || (got < 0 && errno == ECONNRESET))
			return -EPIPE;
		if (got < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		used += got > 0 ? (size_t)got : 0;
		if (used && line[used - 1] == '\n') {
			line[used - 1] = '\0';
			return memchr(line, '\n', used - 1) || memchr(line, '\0', used - 1) ? -EPROTO : 0; /* one at a time */
		}
		if (used == HANDOVER_LINE_BYTES_MAX)
			return -EPROTO;
	}
}

int handover_receive(int socket, int timeout_ms, struct json_object **out, int *fds)
{
	char *line = malloc(HANDOVER_LINE_BYTES_MAX);
	struct json_object *message = NULL;
	int error = line ? 0 : -ENOMEM;

	for (unsigned i = 0; fds && i < HANDOVER_FDS; i++)
		fds[i] = -1;
	if (!error)
		error = receive_line(socket, timeout_ms, line, fds);
	if (!error && (!(message = json_tokener_parse(line)) || !json_object_is_type(message, json_type_object)))
		error = -EPROTO;
	free(line);
	if (!error) {
		*out = message;
		return 0;
	}
	json_object_put(message);
	for (unsigned i = 0; fds && i < HANDOVER_FDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = -1;
	}
	return error;
}
