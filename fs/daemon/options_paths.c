/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Paths of the command line: absolute, looked at, and no more.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/daemon/options.h"

int path_resolve(const char *path, char *out)
{
	char copy[PATH_MAX], parent[PATH_MAX];
	char *slash;

	if (realpath(path, out))
		return 0;
	if (!path[0])
		return -ENOENT;
	if (!mount_is_dead(errno) && errno != ENOENT && errno != EACCES)
		return -errno;
	if (snprintf(copy, sizeof(copy), "%s", path) >= (int)sizeof(copy))
		return -ENAMETOOLONG;
	while (strlen(copy) > 1 && copy[strlen(copy) - 1] == '/')
		copy[strlen(copy) - 1] = '\0';
	slash = strrchr(copy, '/');
	if (slash)
		*slash = '\0';
	if (!realpath(!slash ? "." : *copy ? copy : "/", parent))
		return -errno;
	if (snprintf(out, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", slash ? slash + 1 : copy) >= PATH_MAX)
		return -ENAMETOOLONG;
	return 0;
}

/* A TARGET that names no file: "ram:1G", "pci:...", "0000:5e:00.0". */
static bool target_is_path(const char *target)
{
	return target[0] == '/' || target[0] == '.' || !strchr(target, ':');
}

/* Makes the path in a TARGET absolute: all of it, or in "emu:MEDIUM,options" what stands between. */
int target_resolve(char target[PATH_MAX])
{
	bool emulated = !strncmp(target, "emu:", 4);
	char *medium = target + (emulated ? 4 : 0), *comma = emulated ? strchr(medium, ',') : NULL;
	char options[PATH_MAX] = "", path[PATH_MAX];
	int err;

	if (comma) {
		strcpy(options, comma);
		*comma = '\0';
	}
	err = target_is_path(medium) ? path_resolve(medium, path) : 0;
	if (!err && target_is_path(medium) && snprintf(target, PATH_MAX, "%s%s%s", emulated ? "emu:" : "", path, options) >=
	    PATH_MAX)
		err = -ENAMETOOLONG;
	else if (comma && (err || !target_is_path(medium)))
		*comma = ',';
	return err;
}

int options_resolve(struct mount_config *config, char *message, size_t message_size)
{
	char path[PATH_MAX];
	struct stat st;
	int err;

	err = target_resolve(config->target);
	if (err) {
		snprintf(message, message_size, "%s: %s", config->target[0] ? config->target : "empty TARGET",
			strerror(-err));
		return err;
	}
	err = path_resolve(config->directory, path);
	if (err == 0)
		err = stat(path, &st) == 0 ? 0 : -errno;
	if (err == 0 && !S_ISDIR(st.st_mode))
		err = -ENOTDIR;
	if (err == -ENOENT)
		snprintf(message, message_size, "mount point '%s' does not exist: create the directory first", config->directory);
	else if (err && !mount_is_dead(-err))
		snprintf(message, message_size, "mount point %s: %s", config->directory, strerror(-err));
	if (err && !mount_is_dead(-err))
		return err;
	strcpy(config->directory, path);
	return 0;
}
