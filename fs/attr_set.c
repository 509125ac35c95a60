/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing the attributes in the inode's record, but for the size. With the mode an access ACL changes, in the same
 * transaction: its entries for the owner, for others, and for the class of the group say what the mode says.
 *
 * An inode without ACL touches its own block alone. One with an ACL reserves what most ACLs need; only one that stands
 * in blocks of its own has a second try, with more. chmod may use held-back space: it takes rights away, too.
 */
#include "fs/file.h"
#include "fs/inode_internal.h"
#include "fs/xattr.h"

struct attr_change {
	struct change change;
	struct inode *inode;
	const struct fs_attr *attr;
	uint32_t mask;
	struct timespec now;
};

static MAY_WAIT int attr_prepare(struct tx_part *part, struct change *change)
{
	return inode_pin(part, CONTAINER_OF(change, struct attr_change, change)->inode);
}

static void apply_times(const struct attr_change *set)
{
	struct inode *inode = set->inode;
	const uint32_t mask = set->mask;
	if (mask & (FS_SET_ATIME | FS_SET_ATIME_NOW))
		inode_touch(inode, INODE_ATIME, mask & FS_SET_ATIME_NOW ? set->now : set->attr->atime);
	if (mask & (FS_SET_MTIME | FS_SET_MTIME_NOW))
		inode_touch(inode, INODE_MTIME, mask & FS_SET_MTIME_NOW ? set->now : set->attr->mtime);
	inode_touch(inode, INODE_CTIME, mask & FS_SET_CTIME ? set->attr->ctime : set->now);
}

static void attr_apply(struct tx_part *part, struct change *change)
{
	const struct attr_change *set = CONTAINER_OF(change, struct attr_change, change);
	struct disk_inode *disk = &set->inode->disk;
	if (set->mask & FS_SET_MODE)
		disk->mode = le16_set((uint16_t)((le16_get(disk->mode) & S_IFMT) | (set->attr->mode & 07777)));
	if (set->mask & FS_SET_UID)
		disk->uid = le32_set(set->attr->uid);
	if (set->mask & FS_SET_GID)
		disk->gid = le32_set(set->attr->gid);
	if (set->mask & FS_SET_FLAGS)
		disk->flags = le32_set(set->attr->flags);
	if (set->mask & FS_SET_KILL_SUIDGID)
		file_kill_suidgid(disk, true);
	apply_times(set);
	inode_log(part, set->inode);
}

/* ---- the access ACL ---- */

struct set_op {
	struct attr_change attributes;
	struct xattr_change acl;
};
_Static_assert(sizeof(struct set_op) <= OP_BYTES, "operation memory");
enum { SET_BLOCKS = 1 };

/* Hangs the change of the ACL, if there is one, on the transaction. */
MAY_WAIT static int acl_follow(struct tx *tx, struct op *op, struct set_op *set, unsigned blocks)
{
	struct inode *inode = set->attributes.inode;
	const struct xattr_name name = XATTR_ACL_NAME(XATTR_ACL_ACCESS);
	uint32_t length;

	if (!(set->attributes.mask & FS_SET_MODE) || !xattr_any(inode))
		return 0;
	int error = xattr_get(inode, name, NULL, 0, &length);
	if (error)
		return error == -ENODATA ? 0 : error;
	if (blocks < XATTR_SMALL_BLOCKS)
		return -E2BIG;
	uint8_t *value = op_bounce(op, 0);
	if (!value)
		return -ENOMEM;
	error = xattr_get(inode, name, value, XATTR_ACL_BYTES_MAX, &length);
	if (!error)
		error = xattr_acl_chmod(value, length, set->attributes.attr->mode);
	if (error == -EINVAL || error == -ERANGE)
		return fs_corrupt(tx->fs, inode_block_of(tx->fs, inode->ino), "xattr: access ACL");
	if (error)
		return error;
	xattr_change_init(&set->acl, inode, name, set->attributes.now);
	set->acl.value = value;
	set->acl.length = length;
	set->acl.blocks = blocks;
	tx_change(tx_home(tx), &set->acl.change);
	tx->use_held_back = true;
	return 0;
}

/* ---- the transaction ---- */

MAY_WAIT static int set_once(struct op *op, struct set_op *set, unsigned blocks)
{
	struct inode *inode = set->attributes.inode;
	struct tx *tx;
	int error = tx_begin(inode->owner, blocks, &tx);
	if (error)
		return error;
	fiber_rwlock_write(&inode->lock);
	error = inode->dead ? -ESTALE : acl_follow(tx, op, set, blocks);
	if (!error) {
		/* Behind the ACL's, which sets ctime as well. */
		tx_change(tx_home(tx), &set->attributes.change);
		error = tx_prepare(tx);
	}
	if (!error)
		tx_apply(tx);
	fiber_rwlock_unwrite(&inode->lock);
	tx_end(tx);
	return error;
}

int file_set_attributes(struct op *op, struct inode *inode, const struct fs_attr *attr, uint32_t mask)
{
	struct set_op *set = OP_MEMORY(op, struct set_op);

	set->attributes = (struct attr_change){.change = {.prepare = attr_prepare, .apply = attr_apply},
		.inode = inode,
		.attr = attr,
		.mask = mask,
		.now = fs_now()};
	int error = set_once(op, set, mask & FS_SET_MODE && xattr_any(inode) ? XATTR_SMALL_BLOCKS : SET_BLOCKS);
	if (error == -E2BIG)
		error = set_once(op, set, XATTR_LARGE_BLOCKS);
	return error;
}
