/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a new inode takes from its directory: the group and setgid of a setgid directory, file flags, and its default
 * ACL.
 *
 *   default ACL | permissions wanted, cut down by | access ACL                        | default ACL
 *   none        | the umask                       | none                              | none
 *   one         | what the ACL allows             | the ACL, cut down by what is      | a directory: the same
 *               |                                 | wanted, unless the mode says all  |
 *
 * A symlink takes no ACL and has all permissions. A new file that wants setgid and group execution does not get setgid
 * in a setgid directory of a group that its creator is not in.
 */
#include "fs/inode_internal.h"
#include "fs/namei.h"
#include "fs/xattr.h"

/* As on ext4: what says how to treat files goes down the tree, what forbids something does not. */
static uint32_t inherit_flags(const struct inode *directory, uint32_t mode)
{
	uint32_t handed_down = INODE_NODUMP | INODE_NOATIME;
	if (S_ISREG(mode) || S_ISDIR(mode))
		handed_down |= INODE_SYNC;
	if (S_ISDIR(mode))
		handed_down |= INODE_DIRSYNC;
	return le32_get(directory->disk.flags) & handed_down;
}

static uint32_t inherit_ids(struct inode *directory, uint32_t mode, const struct fs_cred *cred, struct disk_inode *disk)
{
	const bool setgid = inode_mode(directory) & S_ISGID;
	const uint32_t gid = setgid ? le32_get(directory->disk.gid) : cred->gid;
	const uint32_t setgid_group = S_ISGID | S_IXGRP;

	disk->uid = le32_set(cred->uid);
	disk->gid = le32_set(gid);
	disk->flags = le32_set(inherit_flags(directory, mode));
	if (S_ISLNK(mode))
		return (uint32_t)S_IFLNK | XATTR_ACL_MODE_BITS;
	mode &= S_IFMT | 07777;
	if (setgid && S_ISDIR(mode))
		return mode | S_ISGID;
	if (setgid && (mode & setgid_group) == setgid_group && !fs_cred_keeps_sgid(cred, gid))
		mode &= ~(uint32_t)S_ISGID;
	return mode;
}

static int damaged(struct inode *directory)
{
	struct fs *fs = directory->owner->fs;

	return fs_corrupt(fs, inode_block_of(fs, directory->ino), "xattr: default ACL");
}

/* *out: the default ACL in a bounce block; NULL: there is none. */
MAY_WAIT static int default_acl(struct op *op, struct inode *directory, uint8_t **out, uint32_t *out_length)
{
	const struct xattr_name name = XATTR_ACL_NAME(XATTR_ACL_DEFAULT);

	*out = NULL;
	if (!xattr_any(directory))
		return 0;
	int error = xattr_get(directory, name, NULL, 0, out_length);
	if (error)
		return error == -ENODATA ? 0 : error;
	uint8_t *value = op_bounce(op, 0);
	if (!value)
		return -ENOMEM;
	error = xattr_get(directory, name, value, XATTR_ACL_BYTES_MAX, out_length);
	*out = value;
	return error == -ERANGE ? damaged(directory) : error;
}

MAY_WAIT int namei_inherit(struct op *op, struct inode *directory, uint32_t wanted_mode, const struct fs_cred *cred,
	struct disk_inode *disk, struct xattr_seed *seed)
{
	uint32_t mode = inherit_ids(directory, wanted_mode, cred, disk), length = 0;
	uint8_t *handed_down = NULL;
	bool only_mode;

	int error = S_ISLNK(mode) ? 0 : default_acl(op, directory, &handed_down, &length);
	if (error)
		return error;
	if (!handed_down) {
		mode = S_ISLNK(mode) ? mode : mode & ~(cred->umask & XATTR_ACL_MODE_BITS);
		disk->mode = le16_set((uint16_t)mode);
		return 0;
	}
	uint8_t *access = op_bounce(op, 1);
	if (!access)
		return -ENOMEM;
	memcpy(access, handed_down, length);
	error = xattr_acl_inherit(access, length, &mode, &only_mode);
	if (error)
		return damaged(directory);
	disk->mode = le16_set((uint16_t)mode);
	if (!only_mode)
		xattr_seed_add(seed, XATTR_ACL_NAME(XATTR_ACL_ACCESS), access, length);
	if (S_ISDIR(mode))
		xattr_seed_add(seed, XATTR_ACL_NAME(XATTR_ACL_DEFAULT), handed_down, length);
	return 0;
}
