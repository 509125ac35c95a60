/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Both ends of the helper's socket, and its loop. What a request does is in helper_work.c.
 */
#include "fs/daemon/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fs/daemon/confine.h"
#include "fs/daemon/helper_internal.h"
#include "reactor/log.h"

enum {
	REPLY_MARGIN_MS = 2000,   /* the helper answers at its deadline; this much later it counts as dead */
	DEADLINE_MAX_MS = 600000, /* whatever a request says */
	RESULT_MIN = -4095,       /* of what the kernel calls an error */
};

/* ---- the helper's side ---- */
static int send_reply(int socket_fd, const struct helper_reply *reply)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = {};
	struct iovec iov = {(void *)reply, sizeof(*reply)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};

	if (reply->fd >= 0) {
		message.msg_control = control.space;
		message.msg_controllen = sizeof(control.space);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(&control.header), &reply->fd, sizeof(int));
	}
	return sendmsg(socket_fd, &message, MSG_NOSIGNAL) == sizeof(*reply) ? 0 : -errno;
}

/* True when the child ended by itself with status 0, and so has answered. */
static bool child_answered(pid_t pid, int deadline_ms)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), status;
	struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
	bool ended = pidfd >= 0 && poll(&poll_fd, 1, deadline_ms) == 1;

	if (pidfd >= 0)
		close(pidfd);
	if (!ended) {
		kill(pid, SIGKILL);
		return false; /* reaped by a later request, or by init */
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

int helper_answer(int socket_fd, const struct mount_config *config, const struct helper_request *request)
{
	struct helper_reply reply = {.id = request->id, .fd = -1};

	reply.result = helper_work(config, request, &reply);
	const int err = send_reply(socket_fd, &reply);
	if (reply.fd >= 0)
		close(reply.fd);
	return err;
}

static void serve_in_child(int socket_fd, const struct mount_config *config, const struct helper_request *request)
{
	struct helper_reply reply = {.id = request->id, .fd = -1};
	pid_t pid = fork();

	if (pid == 0)
		_exit(helper_answer(socket_fd, config, request) ? 1 : 0);
	if (pid > 0 && child_answered(pid, (int)request->deadline_ms))
		return;
	reply.result = pid < 0 ? -EAGAIN : -ETIMEDOUT;
	send_reply(socket_fd, &reply);
}

static void refuse(int socket_fd, const struct helper_request *request)
{
	const struct helper_reply reply = {.id = request->id, .fd = -1, .result = -EPERM};

	send_reply(socket_fd, &reply);
}

void helper_loop(int socket_fd, const struct mount_config *config, helper_serve_fn serve)
{
	struct helper_request request;
	bool mounted = false;

	while (recv(socket_fd, &request, sizeof(request), MSG_TRUNC) == sizeof(request)) {
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
		request.text[sizeof(request.text) - 1] = '\0';
		request.deadline_ms = MIN(request.deadline_ms, (uint32_t)DEADLINE_MAX_MS);
		if (request.op != HELPER_MOUNT || !mounted) /* once */
			serve(socket_fd, config, &request);
		else
			refuse(socket_fd, &request);
		mounted |= request.op == HELPER_MOUNT;
	}
}

static _Noreturn void helper_main(int socket_fd, const struct mount_config *config)
{
	int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_NAME, "lanefs-helper");
	confine_helper(config);
	setpgid(0, 0); /* a Ctrl-C is for the daemon, which then needs us */
	signal(SIGTERM, SIG_IGN);
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	/* No descriptor of the caller stays open here, or a shell waiting for its end would wait for the unmount. */
	for (int fd = 0; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (socket_fd > 3)
		syscall(SYS_close_range, 3, socket_fd - 1, 0);
	syscall(SYS_close_range, socket_fd + 1, ~0u, 0);
	helper_loop(socket_fd, config, serve_in_child);
	_exit(0);
}

/* ---- the daemon's side ---- */
int helper_start(struct helper *helper, const struct mount_config *config)
{
	int sockets[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets))
		return -errno;
	helper->pid = fork();
	if (helper->pid < 0) {
		close(sockets[0]);
		close(sockets[1]);
		return -EAGAIN;
	}
	if (helper->pid == 0)
		helper_main(sockets[1], config);
	close(sockets[1]);
	helper->socket = sockets[0];
	helper->next_id = 1;
	return 0;
}

void helper_stop(struct helper *helper)
{
	if (helper->socket < 0)
		return;
	close(helper->socket);
	helper->socket = -1;
	for (int tries = 0; tries < 100 && waitpid(helper->pid, NULL, WNOHANG) == 0; tries++)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static int64_t send_request(struct helper *helper, struct helper_request *request)
{
	request->id = helper->next_id;
	if (helper->socket < 0)
		return -EPIPE;
	if (send(helper->socket, request, sizeof(*request), MSG_NOSIGNAL | MSG_DONTWAIT) != sizeof(*request))
		return -errno;
	return helper->next_id++;
}

int64_t helper_send(struct helper *helper, enum helper_op op, unsigned flags, unsigned deadline_ms)
{
	struct helper_request request = {.op = op, .flags = flags, .deadline_ms = deadline_ms};

	return send_request(helper, &request);
}

int64_t helper_send_text(struct helper *helper, enum helper_op op, const char *text, unsigned deadline_ms)
{
	struct helper_request request = {.op = op, .deadline_ms = deadline_ms};

	if (strlen(text) >= sizeof(request.text))
		return -ENAMETOOLONG;
	strcpy(request.text, text);
	return send_request(helper, &request);
}

/* The first descriptor that came; there is never more than one. -1: none. */
static int take_fd(struct msghdr *message, unsigned *out_count)
{
	const struct cmsghdr *header = CMSG_FIRSTHDR(message);
	int first = -1, fd;

	*out_count = 0;
	if (!header || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS)
		return -1;
	for (size_t at = CMSG_LEN(0); at + sizeof(fd) <= header->cmsg_len; at += sizeof(fd)) {
		memcpy(&fd, (const char *)header + at, sizeof(fd));
		if ((*out_count)++ == 0)
			first = fd;
		else
			close(fd);
	}
	return first;
}

static bool reply_is_sound(const struct helper_reply *reply)
{
	return reply->result <= 0 && reply->result >= RESULT_MIN && memchr(reply->message, 0, sizeof(reply->message));
}

int helper_receive(struct helper *helper, struct helper_reply *reply, int timeout_ms)
{
	_Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = {reply, sizeof(*reply)};
	struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)};
	struct pollfd poll_fd = {.fd = helper->socket, .events = POLLIN};
	unsigned fds = 0;
	ssize_t got;

	if (helper->socket < 0)
		return -EPIPE;
	if (poll(&poll_fd, 1, timeout_ms) != 1)
		return -ETIMEDOUT;
	got = recvmsg(helper->socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT | MSG_TRUNC);
	reply->fd = got >= 0 ? take_fd(&message, &fds) : -1;
	/* Cut off before the first one: this process may not open another file. The answer stands, and the helper is needed. */
	const bool one_at_most = !fds || (fds == 1 && !(message.msg_flags & MSG_CTRUNC));
	if (got == sizeof(*reply) && one_at_most && reply_is_sound(reply))
		return 0;
	if (reply->fd >= 0)
		close(reply->fd);
	reply->fd = -1;
	log_warn("helper process is gone; unmounting from outside still works");
	close(helper->socket);
	helper->socket = -1;
	return -EPIPE;
}

int helper_call(struct helper *helper, enum helper_op op, unsigned flags, unsigned deadline_ms,
	struct helper_reply *reply)
{
	int64_t id = helper_send(helper, op, flags, deadline_ms);
	int err;

	if (id < 0)
		return (int)id;
	do {
		err = helper_receive(helper, reply, (int)deadline_ms + REPLY_MARGIN_MS);
		if (err)
			return err;
		if (reply->id != id && reply->fd >= 0)
			close(reply->fd);
	} while (reply->id != id); /* a late answer to something given up */
	return reply->result;
}
