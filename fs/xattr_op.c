/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations that set and remove attributes. Most values are small, so a small reservation is tried first; prepare
 * finds out when one of the two values has blocks of its own.
 *
 * Setting an access ACL sets the permission bits that it implies, and one that says no more than they do is not kept.
 * Inheritance is namei_inherit.c, chmod attr_set.c.
 */
#include <sys/xattr.h>

#include "fs/op.h"
#include "fs/xattr.h"

/* What is wanted, as the caller said it. */
struct request {
	uint64_t ino;
	struct xattr_name name;
	const void *value;
	uint32_t length;
	int flags;
	bool remove;
	const struct fs_cred *cred;
};
struct xattr_op {
	struct inode_lock lock;
	struct xattr_change change;
	uint32_t inode_flags;
};
_Static_assert(sizeof(struct xattr_op) <= OP_BYTES, "operation memory");

static bool is_acl(const struct xattr_name *name) { return name->namespace == XATTR_SYSTEM; } /* there are no others */

static bool is_access_acl(const struct xattr_name *name)
{
	return is_acl(name) && name->length == strlen(XATTR_ACL_ACCESS); /* the other's is longer */
}

/* The mode that an access ACL makes; the ACL itself goes when the mode says all of it. */
static int access_acl(const struct request *request, struct xattr_change *change)
{
	const uint32_t mode = inode_mode(change->inode);
	const struct fs_cred *cred = request->cred;
	uint32_t bits;
	bool only_mode;

	if (request->remove)
		return 0;
	const int error = xattr_acl_mode(request->value, request->length, &bits, &only_mode);
	if (error)
		return error;
	change->mode = (mode & ~(uint32_t)(S_IRWXU | S_IRWXG | S_IRWXO)) | bits;
	if (cred && !fs_cred_keeps_sgid(cred, le32_get(change->inode->disk.gid)))
		change->mode &= ~(uint32_t)S_ISGID;
	change->remove = only_mode;
	return 0;
}

static int default_acl(const struct request *request, const struct xattr_change *change)
{
	uint32_t bits;
	bool only_mode;

	if (request->remove)
		return 0;
	if (!inode_is_dir(change->inode))
		return -EACCES;
	return xattr_acl_mode(request->value, request->length, &bits, &only_mode);
}

/* ACLs know no flags, and removing one that is not there is no error: so do other filesystems. */
static int acl_fill(const struct request *request, struct xattr_change *change)
{
	if (S_ISLNK(inode_mode(change->inode)))
		return -EOPNOTSUPP;
	if (request->length > XATTR_ACL_BYTES_MAX)
		return -E2BIG;
	change->flags = 0;
	change->missing_ok = true;
	return is_access_acl(&request->name) ? access_acl(request, change) : default_acl(request, change);
}

static int change_fill(const struct request *request, struct xattr_change *change)
{
	if (le32_get(change->inode->disk.flags) & (INODE_IMMUTABLE | INODE_APPEND))
		return -EPERM;
	change->value = request->value;
	change->length = request->length;
	change->flags = request->flags;
	change->remove = request->remove;
	return is_acl(&request->name) ? acl_fill(request, change) : 0;
}

MAY_WAIT static int change_once(struct fs *fs, struct xattr_op *op, const struct request *request, unsigned blocks)
{
	struct tx *tx;
	int error = tx_begin(owner_here(fs), blocks, &tx);

	if (error)
		return error;
	tx->use_held_back = request->remove;
	op->lock = (struct inode_lock){.ino = request->ino, .exclusive = true};
	error = inode_lock_many(fs, &op->lock, 1);
	if (error) {
		tx_end(tx);
		return error;
	}
	xattr_change_init(&op->change, op->lock.inode, request->name, fs_now());
	op->change.blocks = blocks;
	op->inode_flags = le32_get(op->lock.inode->disk.flags);
	error = change_fill(request, &op->change);
	tx_change(tx_home(tx), &op->change.change);
	if (!error)
		error = tx_prepare(tx);
	if (!error)
		tx_apply(tx);
	inode_unlock_many(fs, &op->lock, 1);
	tx_end(tx);
	return error;
}

MAY_WAIT static int change_run(struct fs *fs, const struct request *request)
{
	int error = fs_may_begin(fs);

	if (error)
		return error;
	struct op *memory = op_begin(owner_here(fs));
	if (!memory)
		return -ENOMEM;
	struct xattr_op *op = OP_MEMORY(memory, struct xattr_op);
	do {
		error = change_once(fs, op, request, XATTR_SMALL_BLOCKS);
		if (error == -E2BIG)
			error = change_once(fs, op, request, XATTR_LARGE_BLOCKS);
	} while (error == -ENOSPC && op_retry_enospc(memory));
	if (!error)
		error = op_finish(owner_here(fs), op->inode_flags);
	op_end(memory);
	return error;
}

MAY_WAIT int fs_xattr_set(struct fs *fs, uint64_t ino, struct fs_name name, const void *value, uint32_t length,
	int flags, const struct fs_cred *cred)
{
	struct request request = {.ino = ino, .value = value, .length = length, .flags = flags, .cred = cred};
	const int error = xattr_name_parse(name, &request.name);

	if (error)
		return error;
	if (flags & ~(XATTR_CREATE | XATTR_REPLACE) || flags == (XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (length > FS_XATTR_VALUE_MAX)
		return -E2BIG;
	return change_run(fs, &request);
}

MAY_WAIT int fs_xattr_remove(struct fs *fs, uint64_t ino, struct fs_name name)
{
	struct request request = {.ino = ino, .remove = true};
	const int error = xattr_name_parse(name, &request.name);

	return error ? error : change_run(fs, &request);
}
