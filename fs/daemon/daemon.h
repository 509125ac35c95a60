/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The mount daemon: one device, one mount.
 *
 * The thread that calls daemon_run becomes the control thread. It starts everything below it, in order (helper process,
 * memory, reactors, device, FUSE mount, filesystem, front end, control socket), says `ready`, and then waits for one of
 *   - a signal or an RPC that asks for the unmount: the helper unmounts; a mount in use is detached and ends later;
 *   - the kernel letting go of the mount, however that came about;
 *   - the filesystem stopping itself, or its device going away: in the latter case the mount is detached.
 * Then everything is taken down in reverse: the image is clean when daemon_run returns. The data path never passes here.
 *
 * The device is opened (and locked) first and written to last: an image in use, a missing /dev/fuse or a refused mount
 * leaves it as it was.
 */
#ifndef LANEFS_FS_DAEMON_DAEMON_H
#define LANEFS_FS_DAEMON_DAEMON_H

#include "fs/daemon/options.h"

/* Returns an enum mount_exit. Before `ready` was called, @message says in one line what was wrong if it is not
 * MOUNT_EXIT_OK. The config stays the caller's and must not change. */
int daemon_run(const struct mount_config *config, void (*ready)(void *arg), void *arg, char *message,
	size_t message_size) MUST_CHECK;

#endif
