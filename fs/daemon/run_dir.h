/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where daemons' sockets are: /run/lanefs for root, $XDG_RUNTIME_DIR/lanefs (or /run/user/UID/lanefs, or
 * /tmp/lanefs-UID) for others. A daemon's socket is <pid>.sock there. Folders are 0700 and must belong to the caller.
 */
#ifndef LANEFS_FS_DAEMON_RUN_DIR_H
#define LANEFS_FS_DAEMON_RUN_DIR_H

#include <limits.h>
#include <sys/types.h>

#include "reactor/base.h"

enum { RUN_DAEMONS_MAX = 256 };

/* The caller's folder; created when @create. @out has PATH_MAX bytes. -errno; -EPERM when it belongs to somebody else. */
int run_dir_get(bool create, char *out) MUST_CHECK;
/* Path of the socket of @pid in the caller's folder. */
int run_dir_socket(pid_t pid, char *out) MUST_CHECK;
/* Fills @pids with the daemons that have a socket in the caller's folder and a living process; removes sockets that
 * dead daemons left behind. Returns how many, or -ENOMEM. */
int run_dir_list(pid_t pids[RUN_DAEMONS_MAX]);

#endif
