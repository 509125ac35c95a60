/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Naming, creating and listing the folder of sockets.
 */
#include "fs/daemon/run_dir.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static bool owned_directory(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid();
}

static int run_dir_name(char *out)
{
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	unsigned uid = geteuid();
	char user[64];

	if (uid == 0)
		return snprintf(out, PATH_MAX, "/run/lanefs");
	snprintf(user, sizeof(user), "/run/user/%u", uid);
	if (!runtime || runtime[0] != '/' || !owned_directory(runtime))
		runtime = owned_directory(user) ? user : NULL;
	if (runtime)
		return snprintf(out, PATH_MAX, "%s/lanefs", runtime);
	return snprintf(out, PATH_MAX, "/tmp/lanefs-%u", uid);
}

int run_dir_get(bool create, char *out)
{
	struct stat st;

	if (run_dir_name(out) >= PATH_MAX)
		return -ENAMETOOLONG;
	if (create && mkdir(out, 0700) && errno != EEXIST)
		return -errno;
	if (lstat(out, &st))
		return -errno;
	/* In /tmp anybody may have been first. */
	return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && !(st.st_mode & 022) ? 0 : -EPERM;
}

int run_dir_socket(pid_t pid, char *out)
{
	char folder[PATH_MAX];
	int err = run_dir_get(false, folder);

	if (err)
		return err;
	return snprintf(out, PATH_MAX, "%s/%d.sock", folder, (int)pid) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

/* Gone, or a zombie that nobody has waited for: either way its socket has no other end. */
static bool is_dead(pid_t pid)
{
	char path[64], line[256] = "";
	const char *state;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT;
	if (!fgets(line, sizeof(line), file))
		line[0] = '\0';
	fclose(file);
	state = strrchr(line, ')'); /* the name before it may hold anything */
	return state && (state[2] == 'Z' || state[2] == 'X');
}

int run_dir_list(pid_t pids[RUN_DAEMONS_MAX])
{
	char folder[PATH_MAX];
	struct dirent *entry;
	int count = 0;
	DIR *directory;

	if (run_dir_get(false, folder))
		return 0;
	directory = opendir(folder);
	if (!directory)
		return errno == ENOMEM ? -ENOMEM : 0;
	while (count < RUN_DAEMONS_MAX && (entry = readdir(directory))) {
		int pid, used = 0;

		if (sscanf(entry->d_name, "%d.sock%n", &pid, &used) != 1 || entry->d_name[used] || used == 0 || pid <= 0)
			continue;
		if (is_dead(pid))
			unlinkat(dirfd(directory), entry->d_name, 0);
		else
			pids[count++] = pid;
	}
	closedir(directory);
	return count;
}
