/* SPDX-License-Identifier: BSD-3-Clause */
/* name_exerciser: comparing the tree in memory with the real one. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/mounted/random/name.h"

enum { LIST_SIZE = 8192 };

bool expect(struct name_run *run, const struct name_node *node, long result, int wanted)
{
	const int error = result < 0 ? errno : 0;
	if (error)
		op_note(run->exerciser, " -> %s", strerrorname_np(error));
	if (error != wanted)
		differ(run->exerciser, node ? node->id : 0, 0, 0, "the call answered %s, wanted %s", error_text(error),
			error_text(wanted));
	return !error;
}

/* ---- attributes ---- */

static int64_t stamp_compare(struct statx_timestamp a, struct statx_timestamp b)
{
	return a.tv_sec != b.tv_sec ? a.tv_sec - b.tv_sec : (int64_t)a.tv_nsec - (int64_t)b.tv_nsec;
}

static void check_time(struct name_run *run, const struct name_node *node, const char *what, struct statx_timestamp now,
	struct statx_timestamp model, bool must, bool may)
{
	const struct statx_timestamp before = {.tv_sec = run->before.tv_sec, .tv_nsec = (uint32_t)run->before.tv_nsec};
	if (stamp_compare(now, model) == 0 && (!must || stamp_compare(now, before) >= 0))
		return;
	if ((must || may) && stamp_compare(now, before) >= 0)
		return;
	differ(run->exerciser, node->id, 0, 0, "%s %lld.%09u, %s %lld.%09u (the operation began at %ld.%09ld)", what, now.tv_sec,
		now.tv_nsec, must ? "should be new, was" : "should be", model.tv_sec, model.tv_nsec, run->before.tv_sec,
		run->before.tv_nsec);
}

#define CHECK_FIELD(is, wanted, name, format) \
	do { \
		if ((is) != (wanted)) \
			differ(run->exerciser, node->id, 0, 0, "%s: " name " " format ", wanted " format, path, (is), (wanted)); \
	} while (0)

static void check_status(struct name_run *run, struct name_node *node, const char *path, const struct statx *status,
	unsigned times)
{
	if (!node->ino) { /* new: what it was born with */
		node->ino = status->stx_ino;
		node->btime = status->stx_btime;
		check_time(run, node, "birth time", status->stx_btime, node->btime, true, true);
		times = BOTH_MUST;
	}
	CHECK_FIELD((uint64_t)status->stx_ino, node->ino, "inode number", "%lu");
	CHECK_FIELD((unsigned)status->stx_mode, (unsigned)node->mode, "mode", "%o");
	CHECK_FIELD(status->stx_uid, node->uid, "uid", "%u");
	CHECK_FIELD(status->stx_gid, node->gid, "gid", "%u");
	CHECK_FIELD((uint64_t)status->stx_nlink, node->links, "links", "%lu");
	if (S_ISREG(node->mode) || S_ISLNK(node->mode))
		CHECK_FIELD((uint64_t)status->stx_size, node->size, "size", "%lu");
	if (S_ISCHR(node->mode) || S_ISBLK(node->mode)) {
		CHECK_FIELD(status->stx_rdev_major, major(node->device), "device's major", "%u");
		CHECK_FIELD(status->stx_rdev_minor, minor(node->device), "device's minor", "%u");
	}
	check_time(run, node, "birth time", status->stx_btime, node->btime, false, false);
	check_time(run, node, "mtime", status->stx_mtime, node->mtime, times & MTIME_MUST, times & MTIME_MAY);
	check_time(run, node, "ctime", status->stx_ctime, node->ctime, times & CTIME_MUST, times & CTIME_MAY);
	node->mtime = status->stx_mtime;
	node->ctime = status->stx_ctime;
}

void check_node(struct name_run *run, struct name_node *node, const char *path, unsigned times)
{
	struct statx status;
	const int flags = node->fd >= 0 ? AT_EMPTY_PATH : AT_SYMLINK_NOFOLLOW;
	if (statx(node->fd >= 0 ? node->fd : AT_FDCWD, node->fd >= 0 ? "" : path, flags, STATX_BASIC_STATS | STATX_BTIME, &status))
		differ(run->exerciser, node->id, 0, 0, "%s: statx: %s", path, error_text(errno));
	check_status(run, node, path, &status, times);
}

void check_directory_node(struct name_run *run, struct name_node *directory, unsigned times)
{
	char path[PATH_MAX];
	node_path(directory, path);
	check_node(run, directory, path, times);
}

/* ---- contents and attributes with names ---- */

void check_content(struct name_run *run, struct name_node *node, const char *path)
{
	static char target[PATH_MAX + 1];
	if (S_ISLNK(node->mode)) {
		const ssize_t length = readlink(path, target, sizeof(target));
		if (length != (ssize_t)node->size || memcmp(target, node->target, node->size))
			differ(run->exerciser, node->id, 0, 0, "%s: readlink: %ld bytes, wanted %lu, or others", path, length, node->size);
		return;
	}
	if (!S_ISREG(node->mode))
		return;
	const int fd = node->fd >= 0 ? node->fd : open(path, O_RDONLY | O_NOFOLLOW);
	const ssize_t length = fd < 0 ? -1 : pread(fd, run->buffer, DATA_MAX + 1, 0);
	if (length != (ssize_t)node->size || (length && memcmp(run->buffer, node->data, node->size)))
		differ(run->exerciser, node->id, 0, 0, "%s: read of %ld bytes, wanted %lu, or others", path, length, node->size);
	if (fd != node->fd)
		close(fd);
}

static void check_xattr(struct name_run *run, struct name_node *node, const char *path, const struct name_xattr *xattr)
{
	static uint8_t wanted[XATTR_SIZE_MAX];
	fill_bytes(wanted, xattr->length, xattr->seed);
	const ssize_t length = node->fd >= 0 ? fgetxattr(node->fd, xattr->name, run->buffer, XATTR_SIZE_MAX) :
		lgetxattr(path, xattr->name, run->buffer, XATTR_SIZE_MAX);
	if (length != (ssize_t)xattr->length || memcmp(run->buffer, wanted, xattr->length))
		differ(run->exerciser, node->id, 0, 0, "%s: attribute %s: %ld bytes, wanted %u, or others", path, xattr->name, length,
			xattr->length);
}

void check_xattrs(struct name_run *run, struct name_node *node, const char *path)
{
	static char list[LIST_SIZE];
	const ssize_t length = node->fd >= 0 ? flistxattr(node->fd, list, sizeof(list)) : llistxattr(path, list, sizeof(list));
	if (length < 0)
		differ(run->exerciser, node->id, 0, 0, "%s: listxattr: %s", path, error_text(errno));
	unsigned found = 0;
	for (const char *name = list; name < list + length; name += strlen(name) + 1) {
		bool known = false;
		for (unsigned i = 0; i < node->xattr_count; i++)
			known |= strcmp(node->xattrs[i].name, name) == 0;
		if (!known && strncmp(name, "security.", 9)) /* a policy of the machine may add some */
			differ(run->exerciser, node->id, 0, 0, "%s: attribute %s should not be there", path, name);
		found += known;
	}
	if (found != node->xattr_count)
		differ(run->exerciser, node->id, 0, 0, "%s: %u attributes listed, wanted %u", path, found, node->xattr_count);
	for (unsigned i = 0; i < node->xattr_count; i++)
		check_xattr(run, node, path, &node->xattrs[i]);
}

/* ---- directories ---- */

static unsigned char type_of(mode_t mode) { return (unsigned char)((mode & S_IFMT) >> 12); }

static int entry_compare(const void *a, const void *b)
{
	return strcmp(((const struct name_entry *)a)->name, ((const struct name_entry *)b)->name);
}

static void check_entry(struct name_run *run, struct name_node *directory, const struct dirent *found, uint8_t *seen)
{
	const struct name_entry key = {.name = (char *)found->d_name};
	const struct name_entry *entry =
		bsearch(&key, directory->entries, directory->entry_count, sizeof(*directory->entries), entry_compare);
	if (!entry)
		differ(run->exerciser, directory->id, 0, 0, "readdir: %s should not be there", found->d_name);
	if (seen[entry - directory->entries]++)
		differ(run->exerciser, directory->id, 0, 0, "readdir: %s twice", found->d_name);
	if (found->d_ino != entry->node->ino || (found->d_type != DT_UNKNOWN && found->d_type != type_of(entry->node->mode)))
		differ(run->exerciser, entry->node->id, 0, 0, "readdir: %s: inode %lu type %u, wanted %lu type %u", found->d_name,
			found->d_ino, found->d_type, entry->node->ino, type_of(entry->node->mode));
}

static void check_parent(struct name_run *run, const struct name_node *directory, const char *path)
{
	char above[PATH_MAX];
	struct stat status;
	snprintf(above, sizeof(above), "%.4000s/..", path);
	if (lstat(above, &status) || (directory->parent && status.st_ino != directory->parent->ino))
		differ(run->exerciser, directory->id, 0, 0, "%s has inode %lu", above, status.st_ino);
}

/* The place that telldir(3) gave leads to the same name again. */
static void check_place(struct name_run *run, const struct name_node *directory, DIR *stream, long place, const char *name)
{
	seekdir(stream, place);
	const struct dirent *entry = readdir(stream);
	if (!entry || strcmp(entry->d_name, name))
		differ(run->exerciser, directory->id, 0, 0, "readdir after seekdir: %s, wanted %s", entry ? entry->d_name : "the end", name);
}

void check_entries(struct name_run *run, struct name_node *directory)
{
	char path[PATH_MAX];
	node_path(directory, path);
	DIR *stream = opendir(path);
	if (!stream)
		differ(run->exerciser, directory->id, 0, 0, "opendir: %s", error_text(errno));
	check_parent(run, directory, path);
	if (directory->entry_count)
		qsort(directory->entries, directory->entry_count, sizeof(*directory->entries), entry_compare);
	uint8_t *seen = calloc(directory->entry_count + 1, 1);
	unsigned found = 0, dots = 0;
	const unsigned chosen = (unsigned)pick(run->exerciser, directory->entry_count + 2);
	long place = 0, chosen_place = 0;
	char chosen_name[NAME_SIZE_MAX] = "";
	errno = 0;
	for (const struct dirent *entry; place = telldir(stream), (entry = readdir(stream));) {
		if (found + dots == chosen) {
			chosen_place = place;
			strcpy(chosen_name, entry->d_name);
		}
		const bool dot = strcmp(entry->d_name, ".") == 0, dot_dot = strcmp(entry->d_name, "..") == 0;
		if ((dot && entry->d_ino != directory->ino) ||
				(dot_dot && directory->parent && entry->d_ino != directory->parent->ino))
			differ(run->exerciser, directory->id, 0, 0, "readdir: %s has inode %lu", entry->d_name, entry->d_ino);
		dots += dot || dot_dot;
		found += !dot && !dot_dot;
		if (!dot && !dot_dot)
			check_entry(run, directory, entry, seen);
	}
	if (errno || dots != 2 || found != directory->entry_count) {
		unsigned missing = 0;
		while (missing < directory->entry_count && seen[missing])
			missing++;
		differ(run->exerciser, directory->id, 0, 0, "readdir of %s: %u names and %u dots, wanted %u (%s); missing: %s", path, found,
			dots, directory->entry_count, error_text(errno),
			missing < directory->entry_count ? directory->entries[missing].name : "none");
	}
	check_place(run, directory, stream, chosen_place, chosen_name);
	free(seen);
	closedir(stream);
}

void check_tree(struct name_run *run)
{
	char path[PATH_MAX], entry_path[PATH_MAX];
	for (unsigned i = 0; i < run->directory_count; i++) {
		struct name_node *directory = run->directories[i];
		node_path(directory, path);
		check_node(run, directory, path, 0);
		check_xattrs(run, directory, path);
		check_entries(run, directory);
		for (unsigned k = 0; k < directory->entry_count; k++) {
			struct name_node *node = directory->entries[k].node;
			if (S_ISDIR(node->mode))
				continue; /* has its own turn */
			if (snprintf(entry_path, PATH_MAX, "%s/%s", path, directory->entries[k].name) >= PATH_MAX)
				abort();
			check_node(run, node, entry_path, 0);
			check_content(run, node, entry_path);
			check_xattrs(run, node, entry_path);
		}
	}
	for (unsigned i = 0; i < run->held_count; i++) {
		check_node(run, run->held[i], "(held open)", 0);
		check_content(run, run->held[i], "(held open)");
		check_xattrs(run, run->held[i], "(held open)");
	}
}
