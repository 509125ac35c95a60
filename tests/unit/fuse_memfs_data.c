/* SPDX-License-Identifier: BSD-3-Clause */
/* A filesystem in memory for the tests of the FUSE front end: attributes, data, xattrs. See fuse_memfs.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/unit/fuse_memfs_internal.h"

static void kill_bits(struct fs *fs, struct memnode *node)
{
	if (node->attr.mode & (S_ISUID | S_ISGID))
		fs->calls.killed++;
	node->attr.mode &= ~(uint32_t)(S_ISUID | (node->attr.mode & S_IXGRP ? S_ISGID : 0));
	memfs_touch(node);
}

int fs_getattr(struct fs *fs, uint64_t ino, struct fs_attr *out)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	*out = node->attr;
	return memfs_leave(fs, 0);
}

static void set_size(struct memnode *node, uint64_t size)
{
	if (size < node->attr.size)
		memset(memfs_content(node) + size, 0, node->attr.size - size);
	node->attr.size = size;
	memfs_modify(node);
}

int fs_setattr(struct fs *fs, uint64_t ino, const struct fs_attr *attr, uint32_t mask, const struct fs_cred *cred,
	struct fs_attr *out)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if ((mask & FS_SET_SIZE) && !memfs_is(fs, ino, S_IFREG))
		return memfs_leave(fs, -EINVAL);
	if ((mask & FS_SET_SIZE) && attr->size > MEMFS_FILE_BYTES)
		return memfs_leave(fs, -EFBIG);
	if (mask & FS_SET_KILL_SUIDGID)
		kill_bits(fs, node);
	if (mask & FS_SET_MODE)
		node->attr.mode = (node->attr.mode & S_IFMT) | attr->mode;
	if (mask & FS_SET_UID)
		node->attr.uid = attr->uid;
	if (mask & FS_SET_GID)
		node->attr.gid = attr->gid;
	if (mask & FS_SET_FLAGS)
		node->attr.flags = attr->flags;
	if (mask & FS_SET_SIZE)
		set_size(node, attr->size);
	memfs_touch(node);
	if (mask & FS_SET_ATIME)
		node->attr.atime = attr->atime;
	if (mask & FS_SET_MTIME)
		node->attr.mtime = attr->mtime;
	if (mask & FS_SET_ATIME_NOW)
		node->attr.atime = node->attr.ctime;
	if (mask & FS_SET_MTIME_NOW)
		node->attr.mtime = node->attr.ctime;
	*out = node->attr;
	return memfs_leave(fs, 0);
}

int fs_readlink(struct fs *fs, uint64_t ino, char *buffer, unsigned *out_length)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if (!memfs_is(fs, ino, S_IFLNK))
		return memfs_leave(fs, -EINVAL);
	*out_length = (unsigned)node->attr.size;
	memcpy(buffer, node->target, node->attr.size);
	return memfs_leave(fs, 0);
}

int fs_open(struct fs *fs, uint64_t ino, int flags, const struct fs_cred *cred)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if ((flags & O_TRUNC) && memfs_is(fs, ino, S_IFREG))
		set_size(node, 0);
	return memfs_leave(fs, 0);
}

static bool take_delay(struct fs *fs, uint64_t *delay_ns)
{
	pthread_mutex_lock(&fs->lock);
	bool delayed = fs->delayed_reads > 0;
	fs->delayed_reads -= delayed;
	*delay_ns = fs->delay_ns;
	pthread_mutex_unlock(&fs->lock);
	return delayed;
}

int fs_read(struct fs *fs, uint64_t ino, void *buffer, uint64_t offset, uint32_t length, uint32_t *out_length)
{
	struct memnode *node;
	uint64_t delay_ns;
	if (take_delay(fs, &delay_ns))
		fiber_sleep(delay_ns);
	memfs_look(fs);
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if (!memfs_is(fs, ino, S_IFREG))
		return memfs_leave(fs, -EISDIR);
	fs->calls.unaligned_buffers += (uintptr_t)buffer % 4096 != 0;
	uint64_t size = node->attr.size;
	*out_length = offset >= size ? 0 : (uint32_t)MIN(length, size - offset);
	memcpy(buffer, memfs_content(node) + MIN(offset, size), *out_length);
	return memfs_leave(fs, 0);
}

int fs_read_quietly(struct fs *fs, uint64_t ino, void *buffer, uint64_t offset, uint32_t length, uint32_t *out_length)
{
	return fs_read(fs, ino, buffer, offset, length, out_length);
}

int fs_write(struct fs *fs, uint64_t ino, const void *buffer, uint64_t offset, uint32_t length, uint32_t flags,
	const struct fs_cred *cred, uint32_t *out_length)
{
	struct memnode *node;
	int error = memfs_change(fs);
	if (!error)
		error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if (!memfs_is(fs, ino, S_IFREG))
		return memfs_leave(fs, -EISDIR);
	if (offset + length > MEMFS_FILE_BYTES)
		return memfs_leave(fs, -ENOSPC);
	fs->calls.unaligned_buffers += (uintptr_t)buffer % 4096 != 0;
	fs->calls.dsync_writes += (flags & FS_WRITE_DSYNC) != 0;
	fs->calls.sync_writes += (flags & FS_WRITE_SYNC) != 0;
	if (flags & FS_WRITE_KILL_SUIDGID)
		kill_bits(fs, node);
	memcpy(memfs_content(node) + offset, buffer, length);
	node->attr.size = MAX(node->attr.size, offset + length);
	memfs_modify(node);
	*out_length = length;
	return memfs_leave(fs, 0);
}

int fs_fallocate(struct fs *fs, uint64_t ino, int mode, uint64_t offset, uint64_t length, const struct fs_cred *cred)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if (!memfs_is(fs, ino, S_IFREG))
		return memfs_leave(fs, -EISDIR);
	if (offset + length > MEMFS_FILE_BYTES)
		return memfs_leave(fs, -ENOSPC);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(memfs_content(node) + offset, 0, length);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		node->attr.size = MAX(node->attr.size, offset + length);
	memfs_modify(node);
	return memfs_leave(fs, 0);
}

int fs_seek(struct fs *fs, uint64_t ino, int whence, uint64_t offset, uint64_t *out)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	*out = whence == SEEK_DATA ? offset : node->attr.size;
	return memfs_leave(fs, offset < node->attr.size ? 0 : -ENXIO);
}

int fs_fsync(struct fs *fs, uint64_t ino, bool datasync)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	fs->calls.fsyncs += !datasync;
	fs->calls.fdatasyncs += datasync;
	return memfs_leave(fs, 0);
}

int fs_sync(struct fs *fs)
{
	return 0;
}

int fs_copy_range(struct fs *fs, uint64_t in, uint64_t in_offset, uint64_t out, uint64_t out_offset, uint64_t length,
	const struct fs_cred *cred, uint64_t *out_copied)
{
	struct memnode *node;
	int error = memfs_enter(fs, in, &node);
	if (error)
		return error;
	if (!memfs_is(fs, in, S_IFREG) || !memfs_is(fs, out, S_IFREG))
		return memfs_leave(fs, -EINVAL);
	struct memnode *target = &fs->nodes[out];
	length = in_offset >= node->attr.size ? 0 : MIN(length, node->attr.size - in_offset);
	if (out_offset + length > MEMFS_FILE_BYTES)
		return memfs_leave(fs, -ENOSPC);
	memmove(memfs_content(target) + out_offset, memfs_content(node) + in_offset, length);
	target->attr.size = MAX(target->attr.size, out_offset + length);
	if (!cred->privileged)
		kill_bits(fs, target);
	memfs_modify(target);
	*out_copied = length;
	return memfs_leave(fs, 0);
}

/* ---- extended attributes: one per inode ---- */

static bool xattr_is(const struct memnode *node, struct fs_name name)
{
	return node->xattr && strlen(node->xattr_name) == name.length &&
		memcmp(node->xattr_name, name.bytes, name.length) == 0;
}

int fs_xattr_get(struct fs *fs, uint64_t ino, struct fs_name name, void *value, uint32_t size, uint32_t *out_length)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if (!xattr_is(node, name))
		return memfs_leave(fs, -ENODATA);
	*out_length = node->xattr_length;
	if (size && size < node->xattr_length)
		return memfs_leave(fs, -ERANGE);
	if (size)
		memcpy(value, node->xattr, node->xattr_length);
	return memfs_leave(fs, 0);
}

int fs_xattr_set(struct fs *fs, uint64_t ino, struct fs_name name, const void *value, uint32_t length, int flags,
	const struct fs_cred *cred)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if (name.length >= sizeof(node->xattr_name))
		return memfs_leave(fs, -ERANGE);
	if ((flags & XATTR_REPLACE) && !xattr_is(node, name))
		return memfs_leave(fs, -ENODATA);
	if ((flags & XATTR_CREATE) && xattr_is(node, name))
		return memfs_leave(fs, -EEXIST);
	free(node->xattr);
	node->xattr = malloc(length + 1);
	assert(node->xattr);
	memcpy(node->xattr, value, length);
	node->xattr_length = length;
	memcpy(node->xattr_name, name.bytes, name.length);
	node->xattr_name[name.length] = 0;
	memfs_touch(node);
	return memfs_leave(fs, 0);
}

int fs_xattr_remove(struct fs *fs, uint64_t ino, struct fs_name name)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	if (!xattr_is(node, name))
		return memfs_leave(fs, -ENODATA);
	free(node->xattr);
	node->xattr = NULL;
	memfs_touch(node);
	return memfs_leave(fs, 0);
}

int fs_xattr_list(
	struct fs *fs, uint64_t ino, const struct fs_cred *cred, char *buffer, uint32_t size, uint32_t *out_length)
{
	struct memnode *node;
	int error = memfs_enter(fs, ino, &node);
	if (error)
		return error;
	*out_length = node->xattr ? (uint32_t)strlen(node->xattr_name) + 1 : 0;
	if (size && size < *out_length)
		return memfs_leave(fs, -ERANGE);
	if (size && *out_length)
		memcpy(buffer, node->xattr_name, *out_length);
	return memfs_leave(fs, 0);
}

/* ---- the whole ---- */

int fs_statfs(struct fs *fs, struct fs_statfs *out)
{
	*out = (struct fs_statfs){1000, 500, 400, MEMFS_INODES, 4000};
	return 0;
}

int fs_trim(struct fs *fs, uint64_t offset, uint64_t length, uint64_t min_length, uint64_t *out_trimmed)
{
	*out_trimmed = 4096;
	return 0;
}

int fs_shutdown(struct fs *fs)
{
	pthread_mutex_lock(&fs->lock);
	fs->calls.shutdowns++;
	pthread_mutex_unlock(&fs->lock);
	return 0;
}
