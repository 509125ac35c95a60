/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a person said on the command line of mount.lanefs and in the configuration file that it names, checked. Nothing
 * here touches the device or the mount point beyond looking at them.
 *
 * mount.lanefs TARGET DIR [-fnsvhV] [-o options] [-t type]. mount(8) calls it the same way, except that its -f means
 * "do everything but the mount"; ours means "stay in the foreground". Who called decides: see options_parse.
 */
#ifndef LANEFS_FS_DAEMON_OPTIONS_H
#define LANEFS_FS_DAEMON_OPTIONS_H

#include <errno.h>
#include <limits.h>

#include "reactor/reactor.h"

enum mount_exit { /* statuses of mount(8) */
	MOUNT_EXIT_OK = 0,
	MOUNT_EXIT_USAGE = 1,
	MOUNT_EXIT_SYSTEM = 2,
	MOUNT_EXIT_FAILED = 32,
	/* After the mount was there: only a daemon in the foreground shows them. */
	MOUNT_EXIT_STOPPED = 65, /* the filesystem had stopped on an error */
	MOUNT_EXIT_REMOVED = 66, /* the device went away */
	MOUNT_EXIT_FORCED = 67,  /* a second signal: requests were cut off; the image is consistent */
};

enum { HOLD_SECONDS_DEFAULT = 60, HOLD_SECONDS_MAX = 3600 }; /* by default below the kernel's hung-task warning */

struct mount_config {
	char target[PATH_MAX];    /* absolute when it is a path */
	char directory[PATH_MAX]; /* absolute, resolved */
	char utab_options[1024];  /* x-* and friends: kept where umount(8) and findmnt(8) look */
	bool show_help, show_version;
	bool foreground, fake, sloppy, verbose;
	bool no_utab;
	bool called_by_mount;     /* mount(8) is our parent */
	bool remount;             /* change the mount that is there */
	bool take_over;           /* serve the mount that is there, in place of its daemon; only the directory is known at first */
	char said[4096];          /* all of -o */
	/* kernel's side of the mount */
	bool read_only, allow_other, default_permissions, nosuid, nodev, noexec, sync;
	bool noatime, nodiratime, strictatime, nosymfollow;
	/* the filesystem's */
	bool discard;
	uint64_t cache_bytes;     /* 0: default */
	uint64_t commit_ms;       /* 0: default */
	/* the front end's */
	bool writeback, noopen;
	bool io_uring;            /* requests come by io_uring, not /dev/fuse */
	uint64_t max_background;  /* 0: default */
	/* the device's; only devices that our own driver runs can be waited for */
	bool hold_on_removal;     /* on_removal=wait: I/O waits up to hold_ms for the device to come back */
	uint64_t hold_ms;
	bool no_hotplug;          /* kernel uevents are not listened to */
	bool auto_bind;           /* a device that comes back is taken from the kernel's driver */
	/* the process's */
	bool no_confine;          /* keeps its privileges: see confine.h */
	/* the reactors' */
	bool poll, hugepages;
	uint64_t reactors;        /* 0: default */
	int cores[REACTOR_COUNT_MAX];
	unsigned core_count;      /* of lcores=; 0: not said */
};

/* 0, or -EINVAL with one line in @message. Fills paths as they were given; options_resolve makes them absolute. */
int options_parse(int argc, char **argv, struct mount_config *out, char *message, size_t message_size) MUST_CHECK;
/* Makes the paths absolute and checks the mount point. -errno with one line in @message. */
int options_resolve(struct mount_config *config, char *message, size_t message_size) MUST_CHECK;
/* Reactors to start and their cores (NULL when the default placement is wanted). */
unsigned options_reactor_count(const struct mount_config *config);

/* What is in force, as one could say it after -o. Cut off where it does not fit. */
void options_show(const struct mount_config *config, char *out, size_t out_size);

/* Applies a list of options to what holds now. As options_parse. */
int options_change(struct mount_config *config, const char *list, char *message, size_t message_size) MUST_CHECK;
/* The first option that differs and that a remount cannot change; NULL: none does. */
const char *options_fixed_difference(const struct mount_config *a, const struct mount_config *b);

/* Makes the path in a TARGET absolute; one without a path stays as it is. -errno. */
int target_resolve(char target[PATH_MAX]) MUST_CHECK;

/* True for the errors of a mount whose daemon is dead, or dying this very moment. */
static inline bool mount_is_dead(int error) { return error == ENOTCONN || error == ECONNABORTED; }
/* realpath(3) that leaves the last component alone when it cannot be looked at (a dead mount answers ENOTCONN).
 * @out has PATH_MAX bytes. -errno. */
int path_resolve(const char *path, char *out) MUST_CHECK;

#endif
