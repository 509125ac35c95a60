/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's parts: daemon.c (start, take down), daemon_loop.c (waiting), daemon_status.c (what it tells).
 * All of struct daemon belongs to the control thread, except where said.
 */
#ifndef LANEFS_FS_DAEMON_DAEMON_INTERNAL_H
#define LANEFS_FS_DAEMON_DAEMON_INTERNAL_H

#include <json-c/json.h>
#include <stdatomic.h>

#include "fs/daemon/daemon.h"
#include "fs/daemon/helper.h"
#include "fs/daemon/rpc_server.h"
#include "fs/fuse/fuse_front.h"

enum daemon_state {
	DAEMON_STARTING,
	DAEMON_MOUNTED,
	DAEMON_DETACHED, /* out of the tree; files are still open */
	DAEMON_CLOSING,  /* the kernel has let go, or is not waited for any more */
};

struct daemon {
	const struct mount_config *config;
	enum daemon_state state;
	struct helper helper;
	struct reactor_group *group;
	struct bdev_registry *registry;
	char bdev_name[128];          /* "": no device */
	int fuse_fd;                  /* -1: not mounted */
	struct fs *fs;
	struct fuse_front *front;
	struct rpc_server *rpc;
	int signal_fd, event_fd;
	int64_t started_ms, unmount_id; /* id of the helper's request under way; 0: none */
	unsigned unmount_how;
	unsigned stop_requests;       /* signals and RPCs that asked for the end */
	char *message;
	size_t message_size;
	/* Written on reactor 0, then event_fd. */
	atomic_bool ended;
	atomic_int stopped_error;
};

struct reactor *daemon_reactor(const struct daemon *daemon);
int64_t daemon_now_ms(void);
/* Records the reason of a failed start, unless one is there already; returns err. */
int daemon_fail(struct daemon *daemon, int err, const char *format, ...) PRINTF_LIKE(3, 4);

/* ---- daemon_loop.c ---- */
/* Returns when the mount is gone or not waited for any more; an enum mount_exit. */
int daemon_wait(struct daemon *daemon);

/* ---- daemon_status.c ---- */
int daemon_rpc(void *arg, const char *method, struct json_object *params, struct json_object **result, char *message,
	size_t message_size);
/* Asks for the unmount, as a signal does (daemon_loop.c). */
void daemon_ask_stop(struct daemon *daemon);

#endif
