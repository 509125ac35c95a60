/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Attributes, opening, and the targets of symlinks. Reading attributes takes no lock: between two waits a record is
 * whole.
 */
#include <fcntl.h>

#include "fs/file.h"
#include "fs/inode_internal.h"
#include "fs/xattr.h"

int fs_getattr(struct fs *fs, uint64_t ino, struct fs_attr *out)
{
	struct inode *inode;
	const int error = inode_get(owner_here(fs), ino, &inode);
	if (error)
		return error;
	inode_attr(inode, out);
	inode_put(inode);
	return 0;
}

/* ---- privileges that a change of content takes away ---- */

static MAY_WAIT int has_capability(struct inode *inode, bool *out)
{
	uint32_t length;
	fiber_rwlock_read(&inode->lock);
	const int error = xattr_get(inode, XATTR_CAPABILITY, NULL, 0, &length);
	fiber_rwlock_unread(&inode->lock);
	*out = !error;
	return error == -ENODATA ? 0 : error;
}

static MAY_WAIT int drop_capability(struct inode *inode)
{
	struct tx *tx;
	int error = tx_begin(inode->owner, XATTR_SMALL_BLOCKS, &tx);
	if (error)
		return error;
	tx->use_held_back = true;
	struct xattr_change change;
	xattr_change_init(&change, inode, XATTR_CAPABILITY, fs_now());
	change.remove = true;
	change.missing_ok = true;
	change.blocks = XATTR_SMALL_BLOCKS;
	fiber_rwlock_write(&inode->lock);
	error = inode->dead ? -ESTALE : 0;
	if (!error) {
		tx_change(tx_home(tx), &change.change);
		error = tx_prepare(tx);
	}
	if (!error)
		tx_apply(tx);
	fiber_rwlock_unwrite(&inode->lock);
	tx_end(tx);
	return error;
}

int file_drop_capability(struct inode *inode)
{
	if (!xattr_any(inode))
		return 0;
	bool has;
	const int error = has_capability(inode, &has);
	return error || !has ? error : drop_capability(inode);
}

/* ---- setattr ---- */

static bool time_valid(struct timespec time) { return time.tv_nsec >= 0 && time.tv_nsec < (long)NS_PER_SEC; }

static int attr_check(const struct inode *inode, const struct fs_attr *attr, uint32_t mask, const struct fs_cred *cred)
{
	const uint32_t flags = le32_get(inode->disk.flags), guarded = INODE_IMMUTABLE | INODE_APPEND;
	if ((mask & FS_SET_ATIME && !time_valid(attr->atime)) || (mask & FS_SET_MTIME && !time_valid(attr->mtime)) ||
		(mask & FS_SET_CTIME && !time_valid(attr->ctime)))
		return -EINVAL;
	if (mask & FS_SET_FLAGS) {
		if (attr->flags & ~(uint32_t)INODE_FLAGS_KNOWN)
			return -EOPNOTSUPP;
		if ((attr->flags ^ flags) & guarded && !cred->privileged)
			return -EPERM;
	}
	uint32_t now_only = FS_SET_ATIME_NOW | FS_SET_MTIME_NOW | FS_SET_CTIME | FS_SET_FLAGS;
	const uint32_t written = FS_SET_WRITTEN | FS_SET_MTIME | FS_SET_CTIME;
	if (mask & FS_SET_WRITTEN && !(mask & ~written))
		return 0;
	if (mask & FS_SET_WRITTEN)
		now_only |= written;
	if (flags & INODE_IMMUTABLE && mask & ~(uint32_t)FS_SET_FLAGS)
		return -EPERM;
	return flags & INODE_APPEND && mask & ~now_only ? -EPERM : 0;
}

static MAY_WAIT int setattr(struct op *op, struct inode *inode, const struct fs_attr *attr, uint32_t mask,
	const struct fs_cred *cred)
{
	if (S_ISDIR(inode_mode(inode)))
		mask &= ~(uint32_t)FS_SET_KILL_SUIDGID; /* a directory's setgid is no privilege */
	int error = attr_check(inode, attr, mask, cred);
	if (!error && mask & FS_SET_SIZE)
		error = file_check(inode, true);
	if (!error && mask & (FS_SET_UID | FS_SET_GID | FS_SET_SIZE | FS_SET_KILL_SUIDGID))
		error = file_drop_capability(inode);
	if (!error && mask & FS_SET_SIZE)
		error = file_set_size(op, inode, attr->size, mask);
	mask &= ~(uint32_t)(FS_SET_SIZE | FS_SET_KEEP_TIMES);
	return error || !mask ? error : file_set_attributes(op, inode, attr, mask);
}

int fs_setattr(struct fs *fs, uint64_t ino, const struct fs_attr *attr, uint32_t mask, const struct fs_cred *cred,
	struct fs_attr *out)
{
	int error = fs_may_begin(fs);
	if (error)
		return error;
	struct op *op = op_begin(owner_here(fs));
	if (!op)
		return -ENOMEM;
	struct inode *inode;
	error = inode_get(op->owner, ino, &inode);
	if (!error) {
		error = setattr(op, inode, attr, mask, cred);
		if (!error)
			error = op_finish(op->owner, le32_get(inode->disk.flags));
		if (!error)
			inode_attr(inode, out);
		inode_put(inode);
	}
	op_end(op);
	return error;
}

/* ---- symlinks ---- */

static MAY_WAIT int read_target(struct op *op, struct inode *inode, char *buffer)
{
	struct extent extent;
	fiber_rwlock_read(&inode->lock);
	int error = map_lookup(inode, 0, 1, &extent);
	fiber_rwlock_unread(&inode->lock);
	if (error)
		return error;
	if (!extent.physical)
		return fs_corrupt(inode->owner->fs, inode_block_of(inode->owner->fs, inode->ino), "symlink: no target");
	uint8_t *block = op_bounce(op, 0);
	if (!block)
		return -ENOMEM;
	error = bdev_read(inode->owner->channel, block, extent.physical << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
	memcpy(buffer, block, inode_size(inode));
	return error == -ENODEV ? -EIO : error;
}

static MAY_WAIT int readlink_ranged(struct op *op, struct inode *inode, char *buffer, unsigned *out_length)
{
	const unsigned length = (unsigned)inode_size(inode);
	if (!S_ISLNK(inode_mode(inode)))
		return -EINVAL;
	if (inode->disk.format == FORK_INLINE)
		memcpy(buffer, inode->disk.fork, length);
	const int error = inode->disk.format == FORK_INLINE ? 0 : read_target(op, inode, buffer);
	if (error)
		return error;
	buffer[length] = '\0';
	*out_length = length;
	inode_accessed(inode);
	return 0;
}

int fs_readlink(struct fs *fs, uint64_t ino, char *buffer, unsigned *out_length)
{
	struct op *op = op_begin(owner_here(fs));
	if (!op)
		return -ENOMEM;
	struct inode *inode;
	int error = inode_get(op->owner, ino, &inode);
	if (!error) {
		/* Against reaping, as for data. */
		struct range range;
		range_acquire(&inode->ranges, &range, 0, UINT64_MAX, false);
		error = inode->dead ? -ESTALE : readlink_ranged(op, inode, buffer, out_length);
		range_release(&inode->ranges, &range);
		inode_put(inode);
	}
	op_end(op);
	return error;
}

/* ---- open ---- */

int fs_open(struct fs *fs, uint64_t ino, int flags, const struct fs_cred *cred)
{
	struct inode *inode;
	int error = inode_get(owner_here(fs), ino, &inode);
	if (error)
		return error;
	const uint32_t inode_flags = le32_get(inode->disk.flags), mode = inode_mode(inode);
	const bool writes = (flags & O_ACCMODE) != O_RDONLY;
	if (writes && S_ISDIR(mode))
		error = -EISDIR;
	else if (writes && fs_access(fs) != FS_WRITABLE)
		error = -EROFS;
	else if (writes && inode_flags & INODE_IMMUTABLE)
		error = -EPERM;
	else if (inode_flags & INODE_APPEND && ((writes && !(flags & O_APPEND)) || flags & O_TRUNC))
		error = -EPERM;
	inode_put(inode);
	if (error || !(flags & O_TRUNC) || !S_ISREG(mode))
		return error;
	struct fs_attr attr = {.size = 0};
	return fs_setattr(fs, ino, &attr, FS_SET_SIZE, cred, &attr);
}
