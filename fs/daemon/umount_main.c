/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * umount.lanefs: the helper that umount(8) calls (also as umount.fuse.lanefs). The kernel lets go of a FUSE mount before
 * the daemon has written its last blocks; this waits for the daemon, so that a script may touch the image afterwards.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/daemon/mounts.h"
#include "fs/daemon/options.h"
#include "fs/daemon/remount.h"
#include "fs/daemon/rpc_client.h"

static const char help[] =
	"Usage: umount.lanefs DIR [-flnrv]\n"
	"Unmounts the lanefs at DIR and returns when its daemon has ended, the image clean.\n"
	"\n"
	"  -l  lazy: out of the tree now, ends when the last open file is closed; does not wait\n"
	"  -f  force: requests in flight fail (root)\n"
	"  -r  when it is busy, make it read-only instead\n"
	"  -v  say what is waited for        -h, -V  this text, version\n"
	"  -n, -t TYPE, -N NAMESPACE come from umount(8): -N is refused, the others change nothing\n";

struct flags {
	unsigned how; /* enum unmount_how */
	bool read_only;  /* if it cannot be unmounted */
	bool verbose, show_help, show_version;
};

static const char no_memory[] = "not unmounted: no memory to ask its daemon; free some and try again";

static int fail(int status, const char *object, const char *text)
{
	fprintf(stderr, "umount.lanefs: %s%s%s\n", object, *object ? ": " : "", text);
	return status;
}

static int parse(int argc, char **argv, struct flags *flags)
{
	static const struct option long_options[] = {{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {}};
	char text[64];
	int flag;

	opterr = 0;
	while ((flag = getopt_long(argc, argv, "flnrvhVt:N:", long_options, NULL)) != -1) {
		switch (flag) {
		case 'f': flags->how |= UNMOUNT_FORCE; break;
		case 'l': flags->how |= UNMOUNT_LAZY; break;
		case 'v': flags->verbose = true; break;
		case 'h': flags->show_help = true; break;
		case 'V': flags->show_version = true; break;
		case 'r': flags->read_only = true; break;
		case 'n': case 't': break;
		case 'N': return fail(MOUNT_EXIT_USAGE, "-N", "other namespaces are not built: use nsenter(1)");
		default:
			snprintf(text, sizeof(text), "unknown flag -%c (try -h)", optopt ? optopt : '-');
			return fail(MOUNT_EXIT_USAGE, "", text);
		}
	}
	if (!flags->show_help && !flags->show_version && argc - optind != 1)
		return fail(MOUNT_EXIT_USAGE, "", "usage: umount.lanefs DIR [-flnrv] (try -h)");
	return MOUNT_EXIT_OK;
}

static int make_read_only(const char *directory)
{
	char message[512];
	int status;

	status = remount_mount(directory, "ro", NULL, message, sizeof(message));
	if (message[0])
		fprintf(stderr, "umount.lanefs: %s\n", message);
	else
		fprintf(stderr, "umount.lanefs: %s: busy: read-only now\n", directory);
	return status;
}

static int unmount_failed(const char *directory, const struct flags *flags, int err)
{
	if (err == -EBUSY && flags->read_only)
		return make_read_only(directory);
	switch (err) {
	case -EBUSY: return fail(MOUNT_EXIT_FAILED, directory, "target is busy: see who with fuser -vm, or use -l");
	case -EINVAL: return fail(MOUNT_EXIT_FAILED, directory, "not mounted");
	case -EPERM: return fail(MOUNT_EXIT_FAILED, directory, "no permission to unmount it");
	default: return fail(MOUNT_EXIT_FAILED, directory, strerror(-err));
	}
}

/* Waits until the process is gone: then the lock on its image is, too. */
static void wait_for_exit(int pidfd)
{
	struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};

	while (poll(&poll_fd, 1, -1) < 0 && errno == EINTR)
		;
}

static int wait_for_daemon(const char *directory, pid_t pid, int pidfd, int connection);

/* The mount has changed hands since we asked: the same again, of its successor. */
static int wait_for_successor(const char *directory, pid_t pid)
{
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0), connection = rpc_connect(pid);

	/* Unmounted meanwhile, it may have ended already. */
	if (connection == -ENOENT || connection == -ECONNREFUSED || (connection >= 0 && rpc_send(connection, "wait", NULL))) {
		wait_for_exit(pidfd);
		return MOUNT_EXIT_OK;
	}
	return wait_for_daemon(directory, pid, pidfd, connection);
}

/* The daemon's own word about its end; a broken connection means that it died. */
static int wait_for_daemon(const char *directory, pid_t pid, int pidfd, int connection)
{
	struct json_object *report = NULL;
	char message[128];
	bool clean;
	int err = -EPIPE, status;

	if (connection >= 0)
		err = rpc_receive(connection, -1, &report, message, sizeof(message));
	if (pidfd >= 0)
		wait_for_exit(pidfd);
	if (err == -ENOMEM)
		return fail(MOUNT_EXIT_SYSTEM, directory,
			"unmounted, but there was no memory to hear whether the image is clean: run fsck.lanefs");
	if (err) {
		snprintf(message, sizeof(message), "unmounted, but its daemon (process %d) died before the image was clean; "
			"the next mount replays the journal", (int)pid);
		return fail(MOUNT_EXIT_SYSTEM, directory, message);
	}
	pid = (pid_t)json_number(report, "successor");
	if (pid) {
		json_object_put(report);
		return wait_for_successor(directory, pid);
	}
	status = (int)json_number(report, "status");
	clean = json_number(report, "clean");
	json_object_put(report);
	if (status == MOUNT_EXIT_OK || status == MOUNT_EXIT_FORCED)
		return MOUNT_EXIT_OK;
	if (status == MOUNT_EXIT_REMOVED && clean)
		return MOUNT_EXIT_OK;
	return fail(MOUNT_EXIT_SYSTEM, directory, status == MOUNT_EXIT_REMOVED ?
		"unmounted; its device had gone away, the next mount replays the journal" :
		"unmounted, but the filesystem had stopped on an error: run fsck.lanefs");
}

/* While its device is away, the kernel's umount could wait for it: then the daemon is asked, which stops waiting. */
static int unmount_waiting(const char *directory, pid_t pid, int pidfd)
{
	int connection = rpc_connect(pid), status;

	if (connection < 0 || rpc_send(connection, "unmount", NULL)) {
		status = fail(MOUNT_EXIT_FAILED, directory, "waits for its device, and its daemon does not answer");
		if (connection >= 0)
			close(connection);
		return status;
	}
	return wait_for_daemon(directory, pid, pidfd, connection);
}

struct server {
	pid_t pid;              /* 0: none of the caller's; -ENOMEM: not known */
	int pidfd, connection;  /* -1: none */
	bool waiting;           /* for its device */
};

/* Asks the daemon to tell its end. Before the unmount: afterwards it may be gone before it is asked. */
static struct server ask_once(const char *directory)
{
	struct server server = {.pidfd = -1, .connection = -1};
	struct json_object *status = NULL;

	server.pid = rpc_find(directory, NULL, &status);
	server.waiting = server.pid > 0 && !strcmp(json_text(status, "state"), "waiting");
	json_object_put(status);
	if (server.pid <= 0)
		return server;
	server.pidfd = (int)syscall(SYS_pidfd_open, server.pid, 0);
	server.connection = rpc_connect(server.pid);
	const int err = server.connection < 0 ? 0 : rpc_send(server.connection, "wait", NULL);
	if (err) {
		close(server.connection);
		server.connection = -1;
	}
	if (err == -ENOMEM)
		server.pid = err;
	return server;
}

/* A mount that changes hands has another daemon a moment later. */
static struct server ask_server(const char *directory)
{
	enum { TRIES = 5 };
	struct server server = ask_once(directory);

	for (unsigned i = 1; i < TRIES && server.pid > 0 && server.connection < 0; i++) {
		if (server.pidfd >= 0)
			close(server.pidfd);
		server = ask_once(directory);
	}
	return server;
}

static int unmount_and_wait(const char *directory, const struct flags *flags)
{
	struct mount_found found;
	struct server server;
	int err;

	if (!mount_at(directory, &found))
		return found.unknown ? fail(MOUNT_EXIT_FAILED, directory, no_memory) :
			fail(MOUNT_EXIT_FAILED, directory, "no lanefs is mounted there");
	server = ask_server(directory);
	/* Without its daemon's word this would return before the image is clean. */
	if (server.pid == -ENOMEM && !(flags->how & UNMOUNT_LAZY))
		return fail(MOUNT_EXIT_FAILED, directory, no_memory);
	if (server.waiting && !(flags->how & UNMOUNT_LAZY))
		return unmount_waiting(directory, server.pid, server.pidfd);
	err = unmount_at(directory, flags->how);
	if (err)
		return unmount_failed(directory, flags, err);
	if (flags->how & UNMOUNT_LAZY)
		return MOUNT_EXIT_OK;
	if (!server.pid) {
		if (flags->verbose)
			fprintf(stderr, "umount.lanefs: %s: unmounted; its daemon was dead, or is another user's\n", directory);
		return MOUNT_EXIT_OK;
	}
	if (flags->verbose)
		fprintf(stderr, "umount.lanefs: %s: waiting for process %d to close %s\n", directory, (int)server.pid, found.source);
	return wait_for_daemon(directory, server.pid, server.pidfd, server.connection);
}

int main(int argc, char **argv)
{
	char directory[PATH_MAX];
	struct flags flags = {};
	int status = parse(argc, argv, &flags), err;

	if (status)
		return status;
	if (flags.show_help || flags.show_version) {
		fputs(flags.show_help ? help : "umount.lanefs " LANEFS_VERSION "\n", stdout);
		return MOUNT_EXIT_OK;
	}
	err = path_resolve(argv[optind], directory);
	if (err)
		return fail(MOUNT_EXIT_FAILED, argv[optind], strerror(-err));
	return unmount_and_wait(directory, &flags);
}
