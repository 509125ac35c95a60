/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel's table of mounts, libmount's notes about them (utab), and undoing a mount. Everything here may block on
 * the kernel: the helper process, umount.lanefs and mount.lanefs before it starts call it, never a reactor.
 *
 * utab: umount(8) looks for a helper named after the type of the mount only when libmount has a note about the mount
 * point; without one, `umount DIR` would return before the image is clean. The note says uhelper=lanefs.
 */
#ifndef LANEFS_FS_DAEMON_MOUNTS_H
#define LANEFS_FS_DAEMON_MOUNTS_H

#include <limits.h>

#include "reactor/base.h"

#define MOUNT_TYPE "fuse.lanefs"

struct mount_found {
	char source[PATH_MAX], directory[PATH_MAX];
	bool unknown;   /* none was found, for want of memory */
};
/* The topmost mount at exactly @directory, if it is one of ours. */
bool mount_at(const char *directory, struct mount_found *out);
/* Some mount of ours whose source is @target. */
bool mount_of(const char *target, struct mount_found *out);

enum unmount_how {
	UNMOUNT_NORMAL = 0,
	UNMOUNT_LAZY = 1 << 0,  /* out of the tree now, gone when nobody uses it any more */
	UNMOUNT_FORCE = 1 << 1, /* requests in flight fail; root only */
};
/* As root umount2(2), otherwise fusermount3. Keeps utab right. -EBUSY, -EINVAL (not mounted), -EPERM, ... */
int unmount_at(const char *directory, unsigned how) MUST_CHECK;

/* @options: what a person said and others may look for (x-..., _netdev); may be empty. Root only; others: no effect. */
int utab_add(const char *source, const char *directory, const char *options) MUST_CHECK;
/* The same after a remount: @options replace those that were noted. */
int utab_change(const char *source, const char *directory, const char *options) MUST_CHECK;
void utab_remove(const char *directory);

/* Runs fusermount3 with these arguments; what it said on stderr comes back in @text. Its exit status, or -errno. */
int fusermount_run(char *const argv[], char *text, size_t text_size) MUST_CHECK;

#endif
