/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inode blocks and inodes. The rules by file type:
 *
 *   type       fork formats            size                                        rdev_or_entries
 *   regular    inline, extents, tree   inline: fork_bytes; else to the maximum     0
 *   directory  inline, tree            inline: fork_bytes; tree: nodes * 4096      entries
 *   symlink    inline, extents         1..4095; extents: one, of one block         0
 *   others     none                    0                                           devices: their number
 *
 * An inode without links (an orphan) is taken apart in steps, so the symlink rule on the size is not asked of it.
 */
#include "fs/verify_internal.h"

#include <sys/stat.h>

enum { NSEC_LIMIT = 1000000000 };

static bool format_allowed(unsigned mode, unsigned format)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return format == FORK_INLINE || format == FORK_EXTENTS || format == FORK_TREE;
	case S_IFDIR:
		return format == FORK_INLINE || format == FORK_TREE;
	case S_IFLNK:
		return format == FORK_INLINE || format == FORK_EXTENTS;
	default:
		return format == FORK_NONE;
	}
}

static bool mode_allowed(unsigned mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode) || S_ISCHR(mode) ||
		S_ISBLK(mode);
}

static bool size_allowed(const struct disk_inode *inode)
{
	const unsigned mode = le16_get(inode->mode);
	const uint64_t size = le64_get(inode->size);

	if (inode->format == FORK_NONE)
		return !size;
	if (inode->format == FORK_INLINE && size != inode->fork_bytes)
		return false;
	if (S_ISDIR(mode) && inode->format == FORK_TREE)
		return size % FS_BLOCK_SIZE == 0 && size <= FS_FILE_SIZE_MAX;
	if (S_ISLNK(mode))
		return size <= FS_SYMLINK_MAX && (size || !le32_get(inode->nlink));
	return size <= FS_FILE_SIZE_MAX;
}

static const char *times_check(const struct disk_inode *inode)
{
	if (le32_get(inode->atime_nsec) >= NSEC_LIMIT)
		return "atime_nsec";
	if (le32_get(inode->mtime_nsec) >= NSEC_LIMIT)
		return "mtime_nsec";
	if (le32_get(inode->ctime_nsec) >= NSEC_LIMIT)
		return "ctime_nsec";
	return le32_get(inode->btime_nsec) >= NSEC_LIMIT ? "btime_nsec" : NULL;
}

static const char *fork_extents_check(const struct fs_super *super, const struct disk_inode *inode)
{
	const unsigned count = le16_get(inode->fork_count);
	const char *failed = extents_check(super, inode->fork, count);

	if (failed || !S_ISLNK(le16_get(inode->mode)))
		return failed;
	if (count > 1 || (!count && le32_get(inode->nlink)))
		return "fork_count";
	const struct disk_extent *extent = (const struct disk_extent *)inode->fork;
	if (count && (le64_get(extent->logical) || le32_get(extent->length) != 1 || le32_get(extent->flags)))
		return "extent.length";
	return NULL;
}

/* The fork between its start and the xattr records; first the lengths, then what they bound. */
static const char *fork_check(const struct fs_super *super, const struct disk_inode *inode)
{
	const unsigned mode = le16_get(inode->mode);
	const unsigned room = FS_FORK_BYTES - inode->xattr_bytes;
	const unsigned count = le16_get(inode->fork_count);
	const unsigned bytes = inode->fork_bytes;

	if (inode->format == FORK_EXTENTS ? count > room / sizeof(struct disk_extent) : count)
		return "fork_count";
	if (inode->format == FORK_INLINE ? bytes > room : bytes)
		return "fork_bytes";
	if (inode->format == FORK_TREE ? inode->fork_level > FS_TREE_LEVEL_MAX : inode->fork_level)
		return "fork_level";
	switch (inode->format) {
	case FORK_INLINE:
		return S_ISDIR(mode) ? dirents_check(super, inode->fork, bytes, le64_get(inode->rdev_or_entries)) : NULL;
	case FORK_EXTENTS:
		return fork_extents_check(super, inode);
	case FORK_TREE:
		if (room < sizeof(struct fork_tree))
			return "xattr_bytes";
		if (!area_holds(super, le64_get(((const struct fork_tree *)inode->fork)->root), 1))
			return "fork_tree.root";
		return NULL;
	default:
		return NULL;
	}
}

/* What only some types have. */
static const char *type_check(const struct fs_super *super, const struct disk_inode *inode, bool root)
{
	const unsigned mode = le16_get(inode->mode);
	const uint64_t parent = le64_get(inode->parent);
	const uint64_t number = le64_get(inode->rdev_or_entries);

	if (root && (!S_ISDIR(mode) || parent != FS_ROOT_INODE))
		return S_ISDIR(mode) ? "parent" : "mode";
	if (S_ISDIR(mode) ? !ino_allowed(super, parent) : parent)
		return "parent";
	if (!S_ISDIR(mode) && !S_ISCHR(mode) && !S_ISBLK(mode) && number)
		return "rdev_or_entries";
	return NULL;
}

const char *inode_verify(const struct fs_super *super, const struct disk_inode *inode, uint64_t ino)
{
	const unsigned mode = le16_get(inode->mode);
	const bool root = ino == FS_ROOT_INODE || ino == le64_get(super->root_place);

	if (!mode_allowed(mode))
		return "mode";
	if (!format_allowed(mode, inode->format))
		return "format";
	if (le32_get(inode->flags) & ~INODE_FLAGS_KNOWN)
		return "flags";
	if (le32_get(inode->nlink) > FS_LINK_MAX || (root && !le32_get(inode->nlink)))
		return "nlink";
	if (!le32_get(inode->generation))
		return "generation";
	if (!size_allowed(inode))
		return "size";
	if (le64_get(inode->blocks) > le64_get(super->block_count))
		return "blocks";
	const char *failed = times_check(inode);
	if (failed)
		return failed;
	failed = type_check(super, inode, root);
	if (failed)
		return failed;
	if (le64_get(inode->xattr_block) && !area_holds(super, le64_get(inode->xattr_block), 1))
		return "xattr_block";
	if (le32_get(inode->reserved0) || le64_get(inode->reserved1))
		return "reserved";
	if (inode->xattr_bytes > FS_FORK_BYTES || inode->xattr_bytes % 8)
		return "xattr_bytes";
	failed = fork_check(super, inode);
	if (failed)
		return failed;
	unsigned count;
	return xattrs_check(super, inode->fork + FS_FORK_BYTES - inode->xattr_bytes, inode->xattr_bytes, &count);
}

const char *inodes_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const struct inode_block *inodes = block;
	const uint32_t mask = le32_get(inodes->used_mask);
	const uint32_t ag = area_ag(super, block_number);
	const uint32_t ag_block = (uint32_t)(block_number - ag_first_block(super, ag));

	if (mask >> FS_INODES_PER_BLOCK)
		return "used_mask";
	if (!bytes_zero(inodes->reserved, sizeof(inodes->reserved)))
		return "reserved";
	for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++) {
		const struct disk_inode *inode = &inodes->inode[slot];
		const bool used = mask >> slot & 1;
		if (used != !!le16_get(inode->mode))
			return "used_mask";
		if (!used && inode->format != FORK_NONE)
			return "format";
		const char *failed = used ? inode_verify(super, inode, ino_make(ag, ag_block, slot)) : NULL;
		if (failed)
			return failed;
	}
	return NULL;
}
