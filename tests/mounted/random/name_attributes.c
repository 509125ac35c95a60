/* SPDX-License-Identifier: BSD-3-Clause */
/* name_exerciser: operations on what an inode has besides its names: owners, modes, times, attributes, a little data. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/mounted/random/name.h"

enum { SECONDS_MIN = -(1 << 30), SMALL = 300, NAME_CHOICES = 40 };
/* ext4's inodes end in the year 2446. */
static const uint64_t seconds_span = 15000000000u;

static bool begin(struct name_run *run, struct name_place *place, mode_t kind, const char *what)
{
	if (!place_pick_kind(run, place, kind))
		return false;
	op_begin(run->exerciser, place->node->id, 0, 0, 0, "%s %s", what, path_end(place->path));
	clock_gettime(CLOCK_REALTIME_COARSE, &run->before);
	return true;
}

/* Without privileges a change by write or chown takes suid, and sgid of what the group may execute. */
static void drop_privileges(struct name_node *node)
{
	if (S_ISDIR(node->mode))
		return;
	node->mode &= ~(mode_t)S_ISUID;
	if (node->mode & S_IXGRP)
		node->mode &= ~(mode_t)S_ISGID;
}

void op_chmod(struct name_run *run)
{
	struct name_place place;
	if (!begin(run, &place, 0, "chmod") || S_ISLNK(place.node->mode))
		return;
	mode_t mode = (mode_t)pick(run->exerciser, 010000);
	if (!run->privileged)
		mode |= 0700;
	op_note(run->exerciser, " %o", mode);
	expect(run, place.node, chmod(place.path, mode), 0);
	place.node->mode = (place.node->mode & S_IFMT) | mode;
	check_node(run, place.node, place.path, CTIME_MUST);
}

void op_chown(struct name_run *run)
{
	struct name_place place;
	if (!run->privileged || !begin(run, &place, 0, "chown"))
		return;
	const uid_t uid = chance(run->exerciser, 3) ? (uid_t)-1 : (uid_t)pick(run->exerciser, 100000);
	const gid_t gid = chance(run->exerciser, 3) ? (gid_t)-1 : (gid_t)pick(run->exerciser, 100000);
	op_note(run->exerciser, " %d:%d", (int)uid, (int)gid);
	expect(run, place.node, lchown(place.path, uid, gid), 0);
	drop_privileges(place.node);
	place.node->uid = uid == (uid_t)-1 ? place.node->uid : uid;
	place.node->gid = gid == (gid_t)-1 ? place.node->gid : gid;
	const bool nothing = uid == (uid_t)-1 && gid == (gid_t)-1;
	check_node(run, place.node, place.path, nothing ? CTIME_MAY : CTIME_MUST);
}

static struct timespec time_pick(struct name_run *run)
{
	switch (pick(run->exerciser, 4)) {
	case 0: return (struct timespec){.tv_nsec = UTIME_NOW};
	case 1: return (struct timespec){.tv_nsec = UTIME_OMIT};
	default: return (struct timespec){.tv_sec = (time_t)pick(run->exerciser, seconds_span) + SECONDS_MIN,
		.tv_nsec = (long)pick(run->exerciser, 1000000000)};
	}
}

void op_times(struct name_run *run)
{
	struct name_place place;
	if (!begin(run, &place, 0, "utimensat"))
		return;
	const struct timespec times[] = {time_pick(run), time_pick(run)};
	op_note(run->exerciser, " %ld.%09ld %ld.%09ld", times[0].tv_sec, times[0].tv_nsec, times[1].tv_sec, times[1].tv_nsec);
	expect(run, place.node, utimensat(AT_FDCWD, place.path, times, AT_SYMLINK_NOFOLLOW), 0);
	const bool now = times[1].tv_nsec == UTIME_NOW, omit = times[1].tv_nsec == UTIME_OMIT;
	const bool nothing = omit && times[0].tv_nsec == UTIME_OMIT;
	if (!now && !omit)
		place.node->mtime = (struct statx_timestamp){.tv_sec = times[1].tv_sec, .tv_nsec = (uint32_t)times[1].tv_nsec};
	check_node(run, place.node, place.path, (now ? MTIME_MUST : 0) | (nothing ? 0 : CTIME_MUST));
	struct stat status;
	if (times[0].tv_nsec == UTIME_NOW || times[0].tv_nsec == UTIME_OMIT)
		return;
	if (lstat(place.path, &status) || status.st_atim.tv_sec != times[0].tv_sec || status.st_atim.tv_nsec != times[0].tv_nsec)
		differ(run->exerciser, place.node->id, 0, 0, "%s: atime %ld.%09ld", place.path, status.st_atim.tv_sec,
			status.st_atim.tv_nsec);
}

/* ---- extended attributes ---- */

static int xattr_find(const struct name_node *node, const char *name)
{
	for (unsigned i = 0; i < node->xattr_count; i++)
		if (strcmp(node->xattrs[i].name, name) == 0)
			return (int)i;
	return -1;
}

/* user. belongs to files and directories, trusted. to everything but needs root. */
static void xattr_name_pick(struct name_run *run, const struct name_node *node, char name[48], bool existing)
{
	if (existing && node->xattr_count) {
		strcpy(name, node->xattrs[pick(run->exerciser, node->xattr_count)].name);
		return;
	}
	const bool trusted = run->privileged && chance(run->exerciser, 3);
	snprintf(name, 48, "%s.%lx%s", trusted ? "trusted" : "user", pick(run->exerciser, NAME_CHOICES),
		chance(run->exerciser, 4) ? "-with-a-longer-name" : "");
}

static bool user_refused(const struct name_node *node, const char *name)
{
	return strncmp(name, "user.", 5) == 0 && !S_ISREG(node->mode) && !S_ISDIR(node->mode);
}

void op_xattr_set(struct name_run *run)
{
	static const int flags[] = {0, 0, XATTR_CREATE, XATTR_REPLACE};
	struct name_place place;
	struct name_xattr xattr = {.seed = run->exerciser->op};
	if (!begin(run, &place, 0, "setxattr"))
		return;
	struct name_node *node = place.node;
	const int flag = flags[pick(run->exerciser, 4)];
	xattr_name_pick(run, node, xattr.name, chance(run->exerciser, 3));
	const unsigned limit = run->exerciser->options->xattr_max;
	const int found = xattr_find(node, xattr.name);
	const unsigned others = node->xattr_bytes - (found < 0 ? 0 : node->xattrs[found].length + 64);
	const uint64_t wish = chance(run->exerciser, 5) ? pick(run->exerciser, XATTR_SIZE_MAX + 1) : pick(run->exerciser, SMALL);
	const bool room = others + 64 < limit && (found >= 0 || node->xattr_count < XATTRS_MAX);
	if (!room)
		return;
	xattr.length = (uint32_t)(wish > limit - others - 64 ? limit - others - 64 : wish);
	fill_bytes(run->buffer, xattr.length, xattr.seed);
	op_note(run->exerciser, " %s, %u bytes%s", xattr.name, xattr.length,
		flag == XATTR_CREATE ? ", create" : flag ? ", replace" : "");
	const int wanted = user_refused(node, xattr.name) ? EPERM : flag == XATTR_CREATE && found >= 0 ? EEXIST :
		flag == XATTR_REPLACE && found < 0 ? ENODATA : 0;
	if (!expect(run, node, lsetxattr(place.path, xattr.name, run->buffer, xattr.length, flag), wanted))
		return;
	if (found >= 0) {
		node->xattrs[found] = xattr;
	} else {
		node->xattrs = realloc(node->xattrs, (node->xattr_count + 1) * sizeof(xattr));
		node->xattrs[node->xattr_count++] = xattr;
	}
	node->xattr_bytes = others + xattr.length + 64;
	check_node(run, node, place.path, CTIME_MUST);
	check_xattrs(run, node, place.path);
}

void op_xattr_remove(struct name_run *run)
{
	struct name_place place;
	char name[48];
	if (!begin(run, &place, 0, "removexattr"))
		return;
	for (unsigned i = 0; !place.node->xattr_count && i < 10; i++)
		if (!begin(run, &place, 0, "removexattr"))
			return;
	struct name_node *node = place.node;
	xattr_name_pick(run, node, name, !chance(run->exerciser, 10));
	const int found = xattr_find(node, name);
	op_note(run->exerciser, " %s", name);
	const int wanted = user_refused(node, name) ? EPERM : found < 0 ? ENODATA : 0;
	if (!expect(run, node, lremovexattr(place.path, name), wanted))
		return;
	node->xattr_bytes -= node->xattrs[found].length + 64;
	node->xattrs[found] = node->xattrs[--node->xattr_count];
	check_node(run, node, place.path, CTIME_MUST);
	check_xattrs(run, node, place.path);
}

/* ---- a little data ---- */

static uint8_t *node_data(struct name_node *node)
{
	if (!node->data)
		node->data = calloc(1, DATA_MAX);
	return node->data;
}

void op_write(struct name_run *run)
{
	struct name_place place;
	if (!begin(run, &place, S_IFREG, "write"))
		return;
	const uint64_t offset = pick(run->exerciser, chance(run->exerciser, 2) ? SMALL : DATA_MAX);
	const uint64_t most = DATA_MAX - offset;
	const uint64_t length = 1 + pick(run->exerciser, chance(run->exerciser, 2) && most > SMALL ? SMALL : most);
	op_note(run->exerciser, " %lu bytes at %lu", length, offset);
	const int fd = open(place.path, O_WRONLY);
	fill_bytes(node_data(place.node) + offset, length, run->exerciser->op);
	const ssize_t count = fd < 0 ? -1 : pwrite(fd, place.node->data + offset, length, (off_t)offset);
	expect(run, place.node, count, 0);
	if (count != (ssize_t)length)
		differ(run->exerciser, place.node->id, 0, 0, "%s: wrote %ld", place.path, count);
	close(fd);
	if (offset + length > place.node->size)
		place.node->size = offset + length;
	if (!run->privileged)
		drop_privileges(place.node);
	check_node(run, place.node, place.path, BOTH_MUST);
}

void op_truncate(struct name_run *run)
{
	struct name_place place;
	if (!begin(run, &place, S_IFREG, "truncate"))
		return;
	struct name_node *node = place.node;
	const uint64_t size = chance(run->exerciser, 4) ? 0 : pick(run->exerciser, DATA_MAX);
	const bool by_open = size == 0 && chance(run->exerciser, 2);
	op_note(run->exerciser, " to %lu%s", size, by_open ? " by open" : "");
	const int fd = by_open ? open(place.path, O_WRONLY | O_TRUNC) : -1;
	expect(run, node, by_open ? fd : truncate(place.path, (off_t)size), 0);
	if (fd >= 0)
		close(fd);
	if (size < node->size)
		memset(node->data + size, 0, node->size - size);
	const bool same = size == node->size;
	node_data(node);
	node->size = size;
	if (!run->privileged)
		drop_privileges(node);
	check_node(run, node, place.path, same ? MTIME_MAY | CTIME_MAY : BOTH_MUST);
}

/* ---- files without names ---- */

void op_hold(struct name_run *run)
{
	struct name_place place;
	if (run->held_count == HELD_MAX || !begin(run, &place, S_IFREG, "open, unlink") || place.node->links != 1)
		return;
	struct name_node *node = place.node;
	node->fd = open(place.path, O_RDWR);
	expect(run, node, node->fd, 0);
	expect(run, node, unlink(place.path), 0);
	entry_remove(place.parent, place.entry);
	node->links = 0;
	run->held[run->held_count++] = node;
	check_node(run, node, "(held open)", CTIME_MUST);
	check_directory_node(run, place.parent, BOTH_MUST);
}

void op_release(struct name_run *run)
{
	if (!run->held_count)
		return;
	const unsigned which = (unsigned)pick(run->exerciser, run->held_count);
	struct name_node *node = run->held[which];
	op_begin(run->exerciser, node->id, 0, 0, 0, "check and close nameless #%lu", node->id);
	check_node(run, node, "(held open)", 0);
	check_content(run, node, "(held open)");
	check_xattrs(run, node, "(held open)");
	if (chance(run->exerciser, 2))
		return;
	run->held[which] = run->held[--run->held_count];
	node_free(run, node);
}

/* ---- looking ---- */

void op_check(struct name_run *run)
{
	struct name_place place;
	if (!begin(run, &place, 0, "check"))
		return;
	check_node(run, place.node, place.path, 0);
	check_content(run, place.node, place.path);
	check_xattrs(run, place.node, place.path);
}

void op_list(struct name_run *run)
{
	struct name_node *directory = run->directories[pick(run->exerciser, run->directory_count)];
	char path[PATH_MAX];
	node_path(directory, path);
	op_begin(run->exerciser, directory->id, 0, 0, 0, "readdir %s, %u names", path_end(path), directory->entry_count);
	check_entries(run, directory);
}

void op_sync(struct name_run *run)
{
	struct name_place place;
	if (!begin(run, &place, chance(run->exerciser, 2) ? S_IFREG : S_IFDIR, "fsync"))
		return;
	const int fd = open(place.path, O_RDONLY);
	expect(run, place.node, fd < 0 ? fd : fsync(fd), 0);
	close(fd);
	if (!run->exerciser->options->drop_caches || !chance(run->exerciser, 4))
		return;
	const int caches = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (caches >= 0 && write(caches, "3", 1) == 1)
		op_note(run->exerciser, ", drop_caches");
	close(caches);
}
