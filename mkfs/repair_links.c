/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Links, once all entries are known: what was unlinked while it was open is freed, what no entry names goes to
 * lost+found, directories that only lead to each other are cut off from one another and follow; at the end the
 * counts.
 */
#include <stdio.h>
#include <stdlib.h>

#include "mkfs/repair_internal.h"

static const char lost_name[] = "lost+found";

static bool is_directory(struct repair *repair, uint64_t ino, struct fsck_inode **out)
{
	return fsck_inode_find(&repair->fsck, ino, out) == FSCK_LOOKUP_USED && S_ISDIR((*out)->mode);
}

/* A removed directory that an entry names after all: it is empty, whatever stood in it. */
static void directory_empty(struct repair *repair, uint64_t ino)
{
	struct disk_inode *inode = repair_inode_edit(repair, ino);
	if (!inode)
		return;
	inode->format = FORK_INLINE;
	inode->fork_bytes = inode->fork_level = inode->xattr_bytes = 0;
	inode->fork_count = le16_set(0);
	inode->size = inode->blocks = inode->rdev_or_entries = inode->xattr_block = le64_set(0);
}

static void inode_sort(struct repair *repair, uint64_t ino, struct fsck_inode *known)
{
	const bool named = S_ISDIR(known->mode) ? known->flags & REPAIR_PLACED : known->references > 0;
	if (ino == FS_ROOT_INODE)
		return;
	if (!named && !known->nlink)
		repair_inode_free(repair, ino);
	else if (!named)
		repair_blocks_add(repair, &repair->lost, ino);
	else if (S_ISDIR(known->mode) && !known->nlink)
		directory_empty(repair, ino);
}

static void group_sort(struct repair *repair, struct fsck_ag *ag) { repair_each_inode(repair, ag, inode_sort); }

/* ---- cycles ---- */

/* Takes the entry for a directory out of its parent. */
static void directory_detach(struct repair *repair, uint64_t ino, struct fsck_inode *known)
{
	struct repair_rebuild *parent = repair_directory_load(repair, known->parent);
	repair_loss(repair, "directory %" PRIu64 ": the root is not above it", ino);
	for (size_t i = 0; parent && i < parent->directory.count; i++)
		if (parent->directory.entry[i].ino == ino)
			parent->directory.entry[i].dropped = true;
	known->flags &= (uint8_t)~REPAIR_PLACED;
	known->references = 0;
	repair_blocks_add(repair, &repair->lost, ino);
}

/* Follows parents up to the root, to what is lost anyway, or to a path that was followed before. */
static void cycle_cut(struct repair *repair, uint64_t ino, struct fsck_inode *known)
{
	struct fsck_inode *inode;
	const unsigned seen = FSCK_INODE_VISITING | FSCK_INODE_VISITED;
	uint64_t at = ino;
	if (!S_ISDIR(known->mode))
		return;
	for (; at != FS_ROOT_INODE && is_directory(repair, at, &inode) && inode->flags & REPAIR_PLACED && !(inode->flags & seen);
		at = inode->parent)
		inode->flags |= FSCK_INODE_VISITING;
	if (at != FS_ROOT_INODE && is_directory(repair, at, &inode) && inode->flags & FSCK_INODE_VISITING)
		directory_detach(repair, at, inode);
	for (at = ino; at != FS_ROOT_INODE && is_directory(repair, at, &inode) && inode->flags & FSCK_INODE_VISITING;
		at = inode->parent) {
		inode->flags &= (uint8_t)~FSCK_INODE_VISITING;
		inode->flags |= FSCK_INODE_VISITED;
	}
}

static void group_cycles(struct repair *repair, struct fsck_ag *ag) { repair_each_inode(repair, ag, cycle_cut); }

/* ---- lost+found ---- */

/* The directory of that name in the root, made when there is none; a file of that name gives it up to a number. */
static uint64_t lost_directory(struct repair *repair)
{
	struct repair_rebuild *root = repair_directory_load(repair, FS_ROOT_INODE);
	char name[32] = "lost+found";
	struct fsck_inode *known;
	uint64_t ino = 0;
	if (!root)
		return 0;
	for (unsigned number = 1;; number++) {
		const struct repair_entry *entry = repair_entry_find(root, name, strlen(name));
		if (!entry)
			break;
		if (is_directory(repair, entry->ino, &known))
			return entry->ino;
		snprintf(name, sizeof(name), "%s.%u", lost_name, number);
	}
	struct disk_inode *inode = repair_inode_new(repair, S_IFDIR | 0700, &ino);
	if (!inode || fsck_inode_find(&repair->fsck, ino, &known) != FSCK_LOOKUP_USED)
		return 0;
	inode->parent = le64_set(FS_ROOT_INODE);
	known->parent = FS_ROOT_INODE;
	known->references = 1;
	known->flags |= REPAIR_PLACED;
	repair_entry_add(repair, root, name, ino, S_IFDIR >> 12);
	return ino;
}

void repair_reconnect(struct repair *repair)
{
	const uint64_t into = repair->lost.count ? lost_directory(repair) : 0;
	struct repair_rebuild *directory = into ? repair_directory_load(repair, into) : NULL;
	for (size_t i = 0; directory && i < repair->lost.count && !repair->fsck.error; i++) {
		const uint64_t ino = repair->lost.block[i];
		struct fsck_inode *known;
		char name[32];
		if (fsck_inode_find(&repair->fsck, ino, &known) != FSCK_LOOKUP_USED)
			continue;
		snprintf(name, sizeof(name), "#%" PRIu64, ino);
		for (unsigned number = 1; repair_entry_find(directory, name, strlen(name)); number++)
			snprintf(name, sizeof(name), "#%" PRIu64 ".%u", ino, number);
		repair_entry_add(repair, directory, name, ino, (known->mode & S_IFMT) >> 12);
		known->references = 1;
		known->flags |= REPAIR_PLACED;
		if (S_ISDIR(known->mode))
			known->parent = into;
		repair->out->reconnected++;
		repair_loss(repair, "inode %" PRIu64 ": no entry named it: it is %s/%s now", ino, lost_name, name);
	}
}

static void each_ag(struct repair *repair, void (*step)(struct repair *, struct fsck_ag *))
{
	for (uint32_t i = 0; i < repair->fsck.ag_count && !repair->fsck.error; i++)
		step(repair, &repair->fsck.ag[i]);
}

void repair_links(struct repair *repair)
{
	each_ag(repair, group_sort);
	each_ag(repair, group_cycles);
}

/* ---- counts ---- */

static void count_subdirectory(struct repair *repair, uint64_t ino, struct fsck_inode *known)
{
	struct fsck_inode *parent;
	if (ino != FS_ROOT_INODE && S_ISDIR(known->mode) && is_directory(repair, known->parent, &parent))
		parent->subdirectories++;
}

static void count_mend(struct repair *repair, uint64_t ino, struct fsck_inode *known)
{
	const bool directory = S_ISDIR(known->mode);
	const uint32_t nlink = directory ? 2 + known->subdirectories : known->references;
	const uint64_t parent = ino == FS_ROOT_INODE ? FS_ROOT_INODE : directory ? known->parent : 0;
	const struct disk_inode *there = repair_inode_read(repair, ino);
	if (!there || (le32_get(there->nlink) == nlink && le64_get(there->parent) == parent))
		return;
	struct disk_inode *inode = repair_inode_edit(repair, ino);
	if (!inode)
		return;
	inode->nlink = le32_set(nlink);
	inode->parent = le64_set(parent);
}

static void group_subdirectories(struct repair *repair, struct fsck_ag *ag)
{
	repair_each_inode(repair, ag, count_subdirectory);
}

static void group_counts(struct repair *repair, struct fsck_ag *ag) { repair_each_inode(repair, ag, count_mend); }

void repair_link_counts(struct repair *repair)
{
	each_ag(repair, group_subdirectories);
	each_ag(repair, group_counts);
}
