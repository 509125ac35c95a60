/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking a mount over from the daemon that serves it; the conversation is drawn in daemon_handover.c. Whatever goes wrong
 * before {"go"} ends this process, and leaves mount and device to the other one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/daemon/daemon_internal.h"
#include "fs/daemon/handover_wire.h"
#include "fs/daemon/rpc_client.h"
#include "reactor/log.h"

enum {
	LEFT_MS = 120000, /* checkpoint, requests under way, closing; the other one has deadlines of its own */
	GO_MS = 10000,
	DEAD_MS = 1000,
};

struct takeover {
	int socket;
	pid_t predecessor;
	int pidfd;                     /* of it; -1: none to be had */
	struct handover_facts facts;
	struct handover_state state;
	bool stop;                     /* it was asked to unmount meanwhile */
};

/* ---- asking: before anything else of the daemon exists ---- */

/* The same control group, so that a service manager sees one service, and the mount does not end with somebody's login. */
static void join_group(pid_t predecessor)
{
	char path[64], line[PATH_MAX] = "", procs[PATH_MAX + 64], text[16];
	FILE *file;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/cgroup", (int)predecessor);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file) && strncmp(line, "0::/", 4))
		line[0] = '\0';
	if (file)
		fclose(file);
	line[strcspn(line, "\n")] = '\0';
	if (!line[0])
		return;
	snprintf(procs, sizeof(procs), "/sys/fs/cgroup%s/cgroup.procs", line + 3);
	fd = open(procs, O_WRONLY | O_CLOEXEC);
	snprintf(text, sizeof(text), "%d", (int)getpid());
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		log_debug("daemon: stays in its own control group: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

static int ask(struct daemon *daemon, struct takeover *takeover)
{
	struct json_object *params = json_object_new_object(), *facts = NULL;
	const char *directory = daemon->config->directory;
	char message[256] = "";
	int error;

	takeover->predecessor = rpc_find(directory, NULL, NULL);
	takeover->socket = takeover->predecessor > 0 ? rpc_connect(takeover->predecessor) : (int)takeover->predecessor ?: -ESRCH;
	if (takeover->predecessor > 0)
		takeover->pidfd = (int)syscall(SYS_pidfd_open, takeover->predecessor, 0);
	if (takeover->socket < 0) {
		json_object_put(params);
		return daemon_fail(daemon, takeover->socket, "%s: no daemon of yours serves it: mount it, as the user who did before",
			directory);
	}
	json_object_object_add(params, "version", json_object_new_int(HANDOVER_VERSION));
	error = rpc_call(takeover->socket, "handover", params, RPC_TIMEOUT_MS, &facts, message, sizeof(message));
	if (!error)
		error = handover_facts_parse(facts, &takeover->facts, message, sizeof(message));
	json_object_put(facts);
	if (!error)
		return 0;
	return daemon_fail(daemon, error, "%s: cannot be taken over from process %d: %s", directory, (int)takeover->predecessor,
		message[0] ? message : strerror(-error));
}

/* What the other one said, as if it stood on our command line. */
static int settings_take(struct daemon *daemon, const struct takeover *takeover)
{
	const struct handover_facts *facts = &takeover->facts;
	struct mount_config *settings = daemon->settings;
	char message[256] = "";

	strcpy(settings->target, facts->target);
	settings->no_utab = facts->no_utab;
	settings->default_permissions = true;
	settings->allow_other = settings->nosuid = settings->nodev = false; /* told when they are in force */
	if (options_change(settings, facts->options, message, sizeof(message)))
		return daemon_fail(daemon, -EOPNOTSUPP, "%s: has options that this version (" LANEFS_VERSION ") does not take: %s",
			facts->directory, message);
	const struct fuse_front_options options = {.noopen = settings->noopen, .writeback = settings->writeback};
	if (!fuse_front_knows(&facts->agreement, &options))
		return daemon_fail(daemon, -EOPNOTSUPP, "%s: was mounted with features of FUSE that this version (" LANEFS_VERSION
			") does not know: unmount, and mount with it", facts->directory);
	return 0;
}

int takeover_begin(struct daemon *daemon)
{
	struct takeover *takeover = calloc(1, sizeof(*takeover));
	int error;

	if (!takeover)
		return daemon_fail(daemon, -ENOMEM, "no memory");
	takeover->socket = takeover->pidfd = -1;
	daemon->takeover = takeover;
	daemon->keep_mount = true;
	error = ask(daemon, takeover);
	if (!error)
		error = settings_take(daemon, takeover);
	if (error)
		return error;
	join_group(takeover->predecessor);
	/* Whoever manages the other one has to be told by us next time. */
	if (takeover->facts.notify_socket[0])
		setenv("NOTIFY_SOCKET", takeover->facts.notify_socket, 1);
	else
		unsetenv("NOTIFY_SOCKET");
	return 0;
}

/* ---- steps of the start ---- */

static int said_no(struct daemon *daemon, int error, struct json_object *answer, const char *otherwise)
{
	const char *text = json_text(answer, "error");

	daemon_fail(daemon, error, "%s: not taken over: %s", daemon->config->directory, text[0] ? text :
		error == -EPIPE ? otherwise : error ? strerror(-error) : "an answer that is none");
	json_object_put(answer);
	return error ? error : -ECANCELED;
}

/* When this returns the device is ours to open. */
int takeover_receive(struct daemon *daemon)
{
	struct takeover *takeover = daemon->takeover;
	struct json_object *begin = json_object_new_object(), *answer = NULL;
	char message[256] = "";
	int fds[HANDOVER_FDS] = {-1, -1}, error;

	json_object_object_add(begin, "begin", json_object_new_boolean(true));
	error = handover_send(takeover->socket, begin, NULL);
	if (!error)
		error = handover_receive(takeover->socket, LEFT_MS, &answer, fds);
	if (error || !json_object_object_get_ex(answer, "left", NULL) || fds[0] < 0 || fds[1] < 0) {
		for (unsigned i = 0; i < HANDOVER_FDS; i++)
			if (fds[i] >= 0)
				close(fds[i]);
		return said_no(daemon, error, answer, "the daemon has died: mount it again");
	}
	json_object_put(answer);
	daemon->fuse_fd = fds[0];
	error = handover_state_read(fds[1], &takeover->state, message, sizeof(message));
	close(fds[1]);
	if (error)
		return daemon_fail(daemon, error, "%s: not taken over: %s", daemon->config->directory, message);
	takeover->facts.agreement.suid_seen = takeover->state.suid_seen;
	daemon->agreement = &takeover->facts.agreement;
	daemon->legacy = &takeover->state.legacy;
	return 0;
}

static MAY_WAIT int go(void *arg) { return fuse_front_go(((struct daemon *)arg)->front); }

/* Holding the device, and the other one being dead, comes to the same as its word. */
static bool is_dead(const struct takeover *takeover)
{
	struct pollfd poll_fd = {.fd = takeover->pidfd, .events = POLLIN};

	return takeover->pidfd >= 0 && poll(&poll_fd, 1, DEAD_MS) > 0;
}

/* The other one is told, and tells. */
static int agree(struct daemon *daemon)
{
	struct takeover *takeover = daemon->takeover;
	struct json_object *ready = json_object_new_object(), *answer = NULL;
	int error;

	json_object_object_add(ready, "ready", json_object_new_boolean(true));
	error = handover_send(takeover->socket, ready, NULL);
	if (!error)
		error = handover_receive(takeover->socket, GO_MS, &answer, NULL);
	if ((error == -EPIPE || error == -ECONNRESET) && is_dead(takeover))
		return 0;
	if (error || !json_object_object_get_ex(answer, "go", NULL))
		return said_no(daemon, error, answer, "the daemon has died: mount it again");
	takeover->stop = json_number(answer, "stop");
	json_object_put(answer);
	return 0;
}

int takeover_finish(struct daemon *daemon)
{
	struct takeover *takeover = daemon->takeover;
	int error = agree(daemon);

	if (error)
		return error;
	/* From here on the mount stands and falls with this process. */
	daemon->keep_mount = false;
	daemon->legacy = NULL;
	daemon->agreement = NULL;
	error = task_run(daemon, go, -1);
	if (error)
		return daemon_fail(daemon, error, "%s: taken over, but its requests cannot be read: mount it again",
			daemon->config->directory);
	log_info("%s: taken over from process %d", daemon->config->directory, (int)takeover->predecessor);
	if (takeover->stop)
		daemon_ask_stop(daemon);
	takeover_close(daemon);
	return 0;
}

/* A start that failed: the other one hears why, once the device is closed. */
void takeover_close(struct daemon *daemon)
{
	struct takeover *takeover = daemon->takeover;
	struct json_object *object;

	if (!takeover)
		return;
	if (daemon->keep_mount && takeover->socket >= 0) {
		object = json_object_new_object();
		json_object_object_add(object, "error", json_object_new_string(daemon->message[0] ? daemon->message : "it has failed"));
		if (handover_send(takeover->socket, object, NULL))
			log_debug("takeover: the other daemon is not told");
	}
	if (takeover->socket >= 0)
		close(takeover->socket);
	if (takeover->pidfd >= 0)
		close(takeover->pidfd);
	free(takeover->state.legacy.counts);
	free(takeover);
	daemon->takeover = NULL;
}
