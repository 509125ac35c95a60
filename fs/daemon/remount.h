/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount.lanefs -o remount: both halves of a remount in the right order, and the note in utab. See remount.c.
 */
#ifndef LANEFS_FS_DAEMON_REMOUNT_H
#define LANEFS_FS_DAEMON_REMOUNT_H

#include "fs/daemon/options.h"

/* Changes the mount at @directory (resolved) by the list of options. An enum mount_exit; one line in @message unless all is
 * well, and also when there is a warning. @utab_options: x-... and friends; NULL: leave utab alone. */
int remount_mount(const char *directory, const char *list, const char *utab_options, char *message, size_t message_size)
	MUST_CHECK;

#endif
