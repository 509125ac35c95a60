/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A mount consists of what the kernel believes and of what the daemon does; the kernel tells nobody of a remount. So mount(8)
 * calls mount.lanefs, which changes both:
 *
 *   to read-only   kernel, then daemon: the kernel refuses while a file is open for writing, and afterwards nobody can write
 *                  while the daemon makes the image clean
 *   to writable    daemon, then kernel: nobody may write before the daemon can
 *
 * If the second half fails the first is undone.
 */
#include "fs/daemon/remount.h"

#include <stdio.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "fs/daemon/mounts.h"
#include "fs/daemon/rpc_client.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256 /* Linux 5.10 */
#endif
#ifndef ST_NOSYMFOLLOW
#define ST_NOSYMFOLLOW 0x2000
#endif

struct remount {
	const char *directory;
	const char *list;
	pid_t pid;
	struct mount_config before, after; /* of the kernel: flags alone */
	bool daemon_stopped;
	char *message;
	size_t message_size;
};

static int fail(struct remount *remount, int status, const char *why)
{
	snprintf(remount->message, remount->message_size, "%s: %s", remount->directory, why);
	return status;
}

/* ---- the kernel's half ---- */
static int kernel_flags(struct mount_config *flags, const char *directory)
{
	struct statvfs at;

	if (statvfs(directory, &at))
		return -errno;
	memset(flags, 0, sizeof(*flags));
	flags->read_only = at.f_flag & ST_RDONLY;
	flags->nosuid = at.f_flag & ST_NOSUID;
	flags->nodev = at.f_flag & ST_NODEV;
	flags->noexec = at.f_flag & ST_NOEXEC;
	flags->sync = at.f_flag & ST_SYNCHRONOUS;
	flags->noatime = at.f_flag & ST_NOATIME;
	flags->nodiratime = at.f_flag & ST_NODIRATIME;
	flags->nosymfollow = at.f_flag & ST_NOSYMFOLLOW;
	flags->strictatime = !(at.f_flag & (ST_NOATIME | ST_RELATIME));
	return 0;
}

static int kernel_change(const struct remount *remount, const struct mount_config *to)
{
	unsigned long flags = MS_REMOUNT | (to->read_only ? MS_RDONLY : 0) | (to->nosuid ? MS_NOSUID : 0) |
		(to->nodev ? MS_NODEV : 0) | (to->noexec ? MS_NOEXEC : 0) | (to->sync ? MS_SYNCHRONOUS : 0) |
		(to->nodiratime ? MS_NODIRATIME : 0) | (to->nosymfollow ? MS_NOSYMFOLLOW : 0) |
		(to->noatime ? MS_NOATIME : to->strictatime ? MS_STRICTATIME : MS_RELATIME);

	return mount(NULL, remount->directory, NULL, flags, NULL) ? -errno : 0;
}

static int kernel_failed(struct remount *remount, int err)
{
	char text[PATH_MAX + 64];

	switch (err) {
	case -EBUSY:
		snprintf(text, sizeof(text), "busy: files are open for writing, or removed ones still open; see who with: fuser -vm %s",
			remount->directory);
		return fail(remount, MOUNT_EXIT_FAILED, text);
	case -EPERM: return fail(remount, MOUNT_EXIT_FAILED, "the kernel does not permit this remount here");
	default: return fail(remount, MOUNT_EXIT_FAILED, strerror(-err));
	}
}

/* ---- the daemon's half ---- */
static int daemon_change(struct remount *remount, const char *list, bool check)
{
	struct json_object *params = json_object_new_object(), *result = NULL;
	char why[256] = "";
	int connection = rpc_connect(remount->pid), err = connection;

	json_object_object_add(params, "options", json_object_new_string(list));
	json_object_object_add(params, "check", json_object_new_boolean(check));
	if (connection < 0) {
		json_object_put(params);
	} else {
		/* A checkpoint, or a replay, takes as long as it takes. */
		err = rpc_call(connection, "remount", params, check ? RPC_TIMEOUT_MS : -1, &result, why, sizeof(why));
		close(connection);
	}
	if (err) {
		fail(remount, 0, why[0] ? why : err == -EPIPE ? "its daemon has ended" : "its daemon does not answer");
		return err;
	}
	remount->daemon_stopped = json_number(result, "stopped");
	json_object_put(result);
	return 0;
}

/* ---- both ---- */
static int to_read_only(struct remount *remount)
{
	int err = kernel_change(remount, &remount->after);

	if (err)
		return kernel_failed(remount, err);
	if (daemon_change(remount, remount->list, false) == 0)
		return MOUNT_EXIT_OK;
	err = kernel_change(remount, &remount->before); /* the daemon's reason is what counts */
	return MOUNT_EXIT_FAILED;
}

static int to_writable(struct remount *remount, bool was_read_only)
{
	int err = daemon_change(remount, remount->list, false);

	if (err)
		return MOUNT_EXIT_FAILED;
	err = kernel_change(remount, &remount->after);
	if (!err)
		return MOUNT_EXIT_OK;
	kernel_failed(remount, err);
	if (was_read_only) {
		char why[512];

		snprintf(why, sizeof(why), "%s", remount->message);
		err = daemon_change(remount, "ro", false);
		snprintf(remount->message, remount->message_size, "%s", why);
	}
	return MOUNT_EXIT_FAILED;
}

static int look(struct remount *remount)
{
	struct mount_found found;
	char why[256] = "";
	int err;

	if (!mount_at(remount->directory, &found))
		return found.unknown ? fail(remount, MOUNT_EXIT_SYSTEM, "no memory to look for the mount: free some and try again") :
			fail(remount, MOUNT_EXIT_FAILED, "no lanefs is mounted there");
	if (geteuid() != 0)
		return fail(remount, MOUNT_EXIT_FAILED, "only root can remount (fusermount3 cannot): unmount and mount again");
	remount->pid = rpc_find(remount->directory, NULL, NULL);
	if (remount->pid == -ENOMEM)
		return fail(remount, MOUNT_EXIT_SYSTEM, "no memory to ask its daemon: free some and try again");
	if (!remount->pid)
		return fail(remount, MOUNT_EXIT_FAILED, "its daemon is dead, or is another user's: unmount and mount again");
	if (daemon_change(remount, remount->list, true))
		return MOUNT_EXIT_FAILED;
	err = kernel_flags(&remount->before, remount->directory);
	if (err)
		return fail(remount, MOUNT_EXIT_FAILED, strerror(-err));
	remount->after = remount->before;
	if (options_change(&remount->after, remount->list, why, sizeof(why)))
		return fail(remount, MOUNT_EXIT_USAGE, why);
	return MOUNT_EXIT_OK;
}

int remount_mount(const char *directory, const char *list, const char *utab_options, char *message, size_t message_size)
{
	struct remount remount = {.directory = directory, .list = list, .message = message, .message_size = message_size};
	struct mount_found found;
	int status;

	message[0] = '\0';
	status = look(&remount);
	if (status)
		return status;
	status = remount.after.read_only ? to_read_only(&remount) : to_writable(&remount, remount.before.read_only);
	if (status)
		return status;
	if (utab_options && mount_at(directory, &found) && utab_change(found.source, directory, utab_options))
		fail(&remount, 0, "no note in /run/mount/utab: plain umount will return early, umount.lanefs will not");
	if (remount.daemon_stopped)
		fail(&remount, 0, "read-only now, but it had stopped on an error before: unmount it and run fsck.lanefs");
	return MOUNT_EXIT_OK;
}
