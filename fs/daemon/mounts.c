/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mountinfo; utab through libmount; unmounting through umount2(2) or fusermount3.
 */
#include "fs/daemon/mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <libmount/libmount.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Ends a field of a line of mountinfo, and undoes the kernel's "\\040" in it. Returns what follows it. */
static char *field_end(char *field)
{
	char *to = field, *from = field;

	for (; *from && *from != ' ' && *from != '\n'; to++) {
		const bool octal = from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' && from[2] <= '7' &&
			from[3] >= '0' && from[3] <= '7';

		*to = octal ? (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + from[3] - '0') : *from;
		from += octal ? 4 : 1;
	}
	from += *from != '\0';
	*to = '\0';
	return from;
}

struct mount_line {
	const char *directory, *type, *source;
};

/* "36 35 98:0 /root DIRECTORY options [tags] - TYPE SOURCE options"; see proc(5). */
static bool line_parse(char *line, struct mount_line *out)
{
	char *dash = strstr(line, " - "), *at = line;

	for (unsigned i = 0; i < 4 && at; i++)
		at = strchr(at, ' ') ? strchr(at, ' ') + 1 : NULL;
	if (!at || !dash || dash < at)
		return false;
	out->type = dash + 3;
	out->source = field_end(dash + 3);
	field_end((char *)out->source);
	out->directory = at;
	field_end(at);
	return true;
}

/* The last one that fits is the topmost. libmount is not asked: it leaves out lines for which it has no memory. */
static bool mount_find(const char *directory, const char *source, struct mount_found *out)
{
	FILE *file = fopen("/proc/self/mountinfo", "re");
	bool found = false;
	char *line = NULL;
	size_t size = 0;

	errno = 0;
	while (file && getline(&line, &size, file) >= 0) {
		struct mount_line mount;

		if (!line_parse(line, &mount) || (directory && strcmp(mount.directory, directory)))
			continue;
		const bool ours = !strcmp(mount.type, MOUNT_TYPE);
		if (!directory && (!ours || (source && strcmp(mount.source, source))))
			continue;
		/* With a directory: something else may cover what is below. */
		found = ours && (!source || !strcmp(mount.source, source));
		snprintf(out->source, sizeof(out->source), "%s", mount.source);
		snprintf(out->directory, sizeof(out->directory), "%s", mount.directory);
	}
	out->unknown = !file || errno == ENOMEM;
	free(line);
	if (file)
		fclose(file);
	return found && !out->unknown;
}

bool mount_at(const char *directory, struct mount_found *out) { return mount_find(directory, NULL, out); }
bool mount_of(const char *target, struct mount_found *out) { return mount_find(NULL, target, out); }

int fusermount_run(char *const argv[], char *text, size_t text_size)
{
	posix_spawn_file_actions_t actions;
	int pipe_fds[2], err, status = 0;
	size_t used = 0;
	ssize_t got;
	pid_t pid;

	if (pipe2(pipe_fds, O_CLOEXEC))
		return -errno;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, pipe_fds[1], STDERR_FILENO);
	err = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(pipe_fds[1]);
	if (err) {
		close(pipe_fds[0]);
		snprintf(text, text_size, "%s cannot be run: %s (Debian package fuse3)", argv[0], strerror(err));
		return -err;
	}
	while (used + 1 < text_size && ((got = read(pipe_fds[0], text + used, text_size - 1 - used)) > 0 ||
		(got < 0 && errno == EINTR)))
		used += got > 0 ? (size_t)got : 0;
	text[used] = '\0';
	text[strcspn(text, "\n")] = '\0';
	close(pipe_fds[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int unmount_as_user(const char *directory, unsigned how)
{
	char text[256] = "";
	char *normal[] = {"fusermount3", "-u", "--", (char *)directory, NULL};
	char *lazy[] = {"fusermount3", "-u", "-z", "--", (char *)directory, NULL};
	int status;

	if (how & UNMOUNT_FORCE)
		return -EPERM;
	status = fusermount_run(how & UNMOUNT_LAZY ? lazy : normal, text, sizeof(text));
	if (status <= 0)
		return status;
	if (strstr(text, "busy"))
		return -EBUSY;
	if (strstr(text, "not found in"))
		return -EINVAL;
	return -EPERM;
}

int unmount_at(const char *directory, unsigned how)
{
	int flags = UMOUNT_NOFOLLOW | (how & UNMOUNT_LAZY ? MNT_DETACH : 0) | (how & UNMOUNT_FORCE ? MNT_FORCE : 0);

	if (geteuid() != 0)
		return unmount_as_user(directory, how);
	if (umount2(directory, flags))
		return -errno;
	utab_remove(directory);
	return 0;
}

static int utab_update(struct libmnt_fs *fs, const char *directory, unsigned long flags)
{
	struct libmnt_update *update = mnt_new_update();
	int rc = update ? mnt_update_set_fs(update, flags, directory, fs) : -ENOMEM;

	if (rc == 0)
		rc = mnt_update_table(update, NULL);
	mnt_free_update(update);
	return rc < 0 ? rc : 0; /* 1: nothing to note */
}

static int utab_note(const char *source, const char *directory, const char *options, unsigned long flags)
{
	struct libmnt_fs *fs;
	char text[1200];
	int rc;

	if (geteuid() != 0)
		return 0;
	fs = mnt_new_fs();
	if (!fs)
		return -ENOMEM;
	snprintf(text, sizeof(text), "uhelper=lanefs%s%s", options[0] ? "," : "", options);
	rc = mnt_fs_set_source(fs, source);
	if (rc == 0)
		rc = mnt_fs_set_target(fs, directory);
	if (rc == 0)
		rc = mnt_fs_set_fstype(fs, MOUNT_TYPE);
	if (rc == 0)
		rc = mnt_fs_set_options(fs, text);
	if (rc == 0)
		rc = utab_update(fs, NULL, flags);
	mnt_unref_fs(fs);
	return rc;
}

int utab_add(const char *source, const char *directory, const char *options)
{
	return utab_note(source, directory, options, 0);
}

int utab_change(const char *source, const char *directory, const char *options)
{
	return utab_note(source, directory, options, MS_REMOUNT);
}

void utab_remove(const char *directory)
{
	if (geteuid() == 0 && utab_update(NULL, directory, 0) != 0)
		return; /* no utab, or read-only /run: nothing depends on it */
}
