/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The helper process: makes the system calls that the kernel can block on our own mount.
 *
 * Forked from the daemon before it has threads, it lives as long as the daemon's end of the socketpair and owns
 * nothing. Each request runs in a child of its own with a deadline; a child that the kernel does not let go is left
 * behind and the request answered with -ETIMEDOUT. Requests are served in order, one at a time.
 *
 * What it can be made to do is what enum helper_op says, with the target and the directory that it was started with: a daemon
 * that somebody has taken over gains no more by it. It keeps the capabilities for that, and the daemon none (confine.h).
 *
 * mounted by libfuse: as root it calls mount(2), otherwise fusermount3. The /dev/fuse descriptor of the mount comes
 * back over the socket; the helper keeps no copy, so the kernel notices when the daemon dies.
 *
 * | call                     | from                                                     |
 * | helper_start             | the daemon's first thread, before there are others       |
 * | send, receive, call      | the control thread                                       |
 */
#ifndef LANEFS_FS_DAEMON_HELPER_H
#define LANEFS_FS_DAEMON_HELPER_H

#include <sys/types.h>

#include "fs/daemon/options.h"

enum helper_op {
	HELPER_MOUNT,      /* of the config that helper_start got; the descriptor comes back */
	HELPER_UNMOUNT,    /* flags: enum unmount_how */
	HELPER_UTAB,       /* notes the mount for umount(8) */
	HELPER_UTAB_DROP,  /* the mount is gone: so is the note */
	HELPER_READAHEAD,  /* read_ahead_kb of the mount := flags; proves that the mount answers */
	HELPER_SYNCFS,
	HELPER_BIND,       /* text: "ADDRESS DRIVER"; see pci_bind. With the option auto_bind only */
};
enum { HELPER_TEXT_BYTES = 64 };

struct helper_reply {
	uint32_t id;
	int result;        /* 0 or -errno */
	int fd;            /* HELPER_MOUNT: the /dev/fuse descriptor, the caller's now; otherwise -1 */
	char message[256]; /* why, when libfuse, fusermount3 or pci_bind said so; else empty */
};

struct helper {
	int socket;        /* -1: gone */
	pid_t pid;
	uint32_t next_id;
};

/* The config must not change afterwards: the helper works with its copy. */
int helper_start(struct helper *helper, const struct mount_config *config) MUST_CHECK;
/* Closes the socket; the helper ends by itself. Waits for it, briefly. */
void helper_stop(struct helper *helper);
/* Sends without waiting for the answer; returns its id, or -errno. The answer makes helper->socket readable. */
int64_t helper_send(struct helper *helper, enum helper_op op, unsigned flags, unsigned deadline_ms) MUST_CHECK;
int64_t helper_send_text(struct helper *helper, enum helper_op op, const char *text, unsigned deadline_ms) MUST_CHECK;
/* Waits up to @timeout_ms. -ETIMEDOUT, -EPIPE (the helper is gone). */
int helper_receive(struct helper *helper, struct helper_reply *reply, int timeout_ms) MUST_CHECK;
/* Both; returns reply->result. */
int helper_call(struct helper *helper, enum helper_op op, unsigned flags, unsigned deadline_ms,
	struct helper_reply *reply) MUST_CHECK;

#endif
