/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Links: what the inodes say of them against the entries that were counted, inodes that no entry names, and directories
 * whose parents never lead to the root.
 */
#include "mkfs/fsck_internal.h"

static void root_links(struct fsck *fsck, const struct fsck_inode *root)
{
	if (root->parent != FS_ROOT_INODE)
		fsck_find(fsck, "inode 1: the root directory has parent %" PRIu64, root->parent);
	if (root->nlink != 2 + root->subdirectories)
		fsck_find(fsck, "inode 1: nlink is %" PRIu32 ", it has %" PRIu32 " subdirectories", root->nlink,
			root->subdirectories);
}

static void directory_links(struct fsck *fsck, const struct fsck_inode *inode, uint64_t ino)
{
	if (inode->references > 1)
		fsck_find(fsck, "inode %" PRIu64 ": directory with %" PRIu32 " entries naming it", ino,
			inode->references);
	if (inode->nlink && inode->nlink != 2 + inode->subdirectories)
		fsck_find(fsck, "inode %" PRIu64 ": nlink is %" PRIu32 ", it has %" PRIu32 " subdirectories", ino,
			inode->nlink, inode->subdirectories);
}

static void inode_links(struct fsck *fsck, const struct fsck_inode *inode, uint64_t ino)
{
	if (!inode->mode) /* reported where it was read */
		return;
	if (!inode->nlink && !(inode->flags & FSCK_INODE_ORPHAN))
		fsck_find(fsck, "inode %" PRIu64 ": nlink is 0, but it stands in no orphan chain", ino);
	else if (!inode->nlink && inode->references)
		fsck_find(
			fsck, "inode %" PRIu64 ": nlink is 0, but %" PRIu32 " entries name it", ino, inode->references);
	else if (inode->nlink && !inode->references)
		fsck_find(fsck, "inode %" PRIu64 ": in use, but no entry names it", ino);
	else if (!S_ISDIR(inode->mode) && inode->nlink != inode->references)
		fsck_find(fsck, "inode %" PRIu64 ": nlink is %" PRIu32 ", but %" PRIu32 " entries name it", ino,
			inode->nlink, inode->references);
	if (S_ISDIR(inode->mode))
		directory_links(fsck, inode, ino);
}

static bool is_known_directory(struct fsck *fsck, uint64_t ino, struct fsck_inode **out)
{
	return fsck_inode_find(fsck, ino, out) == FSCK_LOOKUP_USED && S_ISDIR((*out)->mode);
}

/* Follows parents up to the root or to a path that was followed before. Coming back to the own path is a cycle. */
static void parents_follow(struct fsck *fsck, uint64_t ino)
{
	struct fsck_inode *inode;
	const unsigned seen = FSCK_INODE_VISITING | FSCK_INODE_VISITED;
	uint64_t at = ino;
	for (; at != FS_ROOT_INODE && is_known_directory(fsck, at, &inode) && !(inode->flags & seen);
		at = inode->parent)
		inode->flags |= FSCK_INODE_VISITING;
	if (at != FS_ROOT_INODE && is_known_directory(fsck, at, &inode) && inode->flags & FSCK_INODE_VISITING)
		fsck_find(fsck, "inode %" PRIu64 ": directory in a cycle, the root is not above it", at);
	for (at = ino;
		at != FS_ROOT_INODE && is_known_directory(fsck, at, &inode) && inode->flags & FSCK_INODE_VISITING;
		at = inode->parent) {
		inode->flags &= (uint8_t)~FSCK_INODE_VISITING;
		inode->flags |= FSCK_INODE_VISITED;
	}
}

void fsck_links(struct fsck *fsck, struct fsck_ag *ag)
{
	for (uint32_t i = 0; i < ag->table_count; i++) {
		const struct fsck_inode_block *entry = &ag->table[i];
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++) {
			if (!(entry->used_mask >> slot & 1))
				continue;
			uint64_t ino = fsck_inode_number(fsck, ino_make(ag->number, entry->ag_block, slot));
			const struct fsck_inode *inode = &entry->inode[slot];
			if (ino == FS_ROOT_INODE)
				root_links(fsck, inode);
			else
				inode_links(fsck, inode, ino);
			if (ino != FS_ROOT_INODE && S_ISDIR(inode->mode) && inode->nlink)
				parents_follow(fsck, ino);
		}
	}
}
