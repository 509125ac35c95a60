/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inode blocks: the fields of every slot, and what hangs from files (directories come later, when all inodes are
 * known). What links and directories need is kept in the table of the AG.
 */
#include "mkfs/fsck_internal.h"

enum fsck_lookup fsck_inode_find(struct fsck *fsck, uint64_t ino, struct fsck_inode **out)
{
	uint64_t place = ino == FS_ROOT_INODE ? fsck->root_place : ino;
	*out = &fsck->unknown;
	uint64_t number = place >> (FS_INODE_BLOCK_BITS + FS_INODE_SLOT_BITS);
	unsigned slot = ino_slot(place);
	if (number >= fsck->ag_count || slot >= FS_INODES_PER_BLOCK)
		return FSCK_LOOKUP_NONE;
	struct fsck_ag *ag = &fsck->ag[number];
	uint32_t low = 0, high = ag->table_count, wanted = ino_ag_block(place);
	while (low < high) {
		uint32_t middle = low + (high - low) / 2;
		if (ag->table[middle].ag_block < wanted)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == ag->table_count || ag->table[low].ag_block != wanted)
		return ag->readable && !ag->partial ? FSCK_LOOKUP_NONE : FSCK_LOOKUP_UNKNOWN;
	struct fsck_inode_block *entry = &ag->table[low];
	if (!entry->readable)
		return FSCK_LOOKUP_UNKNOWN;
	*out = &entry->inode[slot];
	return entry->used_mask >> slot & 1 ? FSCK_LOOKUP_USED : FSCK_LOOKUP_FREE;
}

bool fsck_fork_fits(const struct disk_inode *inode)
{
	unsigned bytes = 0;
	if (inode->format == FORK_INLINE)
		bytes = inode->fork_bytes;
	else if (inode->format == FORK_EXTENTS)
		bytes = le16_get(inode->fork_count) * (unsigned)sizeof(struct disk_extent);
	else if (inode->format == FORK_TREE)
		bytes = sizeof(struct fork_tree);
	return inode->xattr_bytes % 8 == 0 && bytes + inode->xattr_bytes <= FS_FORK_BYTES;
}

/* A condition that must not hold, the field it speaks of, and the value found. */
struct rule {
	bool broken;
	const char *field;
	uint64_t value;
};

static void rules_check(struct fsck *fsck, uint64_t ino, const struct rule *rules, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (rules[i].broken)
			fsck_find(fsck, "inode %" PRIu64 ": wrong %s: %" PRIu64, ino, rules[i].field, rules[i].value);
}

static bool is_device(unsigned mode) { return S_ISCHR(mode) || S_ISBLK(mode); }
static bool is_special(unsigned mode) { return is_device(mode) || S_ISFIFO(mode) || S_ISSOCK(mode); }

bool fsck_mode_known(unsigned mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || is_special(mode);
}

bool fsck_format_fits(unsigned mode, unsigned format)
{
	if (S_ISREG(mode))
		return format == FORK_INLINE || format == FORK_EXTENTS || format == FORK_TREE;
	if (S_ISDIR(mode))
		return format == FORK_INLINE || format == FORK_TREE;
	if (S_ISLNK(mode))
		return format == FORK_INLINE || format == FORK_EXTENTS;
	return format == FORK_NONE;
}

static bool size_fits(const struct disk_inode *inode)
{
	uint64_t size = le64_get(inode->size);
	unsigned mode = le16_get(inode->mode);
	if (inode->format == FORK_INLINE && size != inode->fork_bytes)
		return false;
	if (S_ISLNK(mode)) /* one that is being freed has lost its target */
		return size <= FS_SYMLINK_MAX && (size || !le32_get(inode->nlink));
	return is_special(mode) ? size == 0 : size <= FS_FILE_SIZE_MAX;
}

static void inode_fields(struct fsck *fsck, const struct fsck_ag *ag, const struct disk_inode *inode, uint64_t ino)
{
	unsigned mode = le16_get(inode->mode);
	uint32_t flags = le32_get(inode->flags), nlink = le32_get(inode->nlink),
		 generation = le32_get(inode->generation);
	uint32_t atime = le32_get(inode->atime_nsec), mtime = le32_get(inode->mtime_nsec);
	uint32_t ctime = le32_get(inode->ctime_nsec), btime = le32_get(inode->btime_nsec);
	uint64_t parent = le64_get(inode->parent), rdev = le64_get(inode->rdev_or_entries);
	const struct rule rules[] = {
		{!fsck_mode_known(mode), "mode", mode},
		{(flags & ~(uint32_t)INODE_FLAGS_KNOWN) != 0, "flags", flags},
		{nlink > FS_LINK_MAX, "nlink", nlink},
		{!generation || generation >= ag->next_generation, "generation", generation},
		{atime >= NS_PER_SEC, "atime_nsec", atime},
		{mtime >= NS_PER_SEC, "mtime_nsec", mtime},
		{ctime >= NS_PER_SEC, "ctime_nsec", ctime},
		{btime >= NS_PER_SEC, "btime_nsec", btime},
		{S_ISDIR(mode) ? !parent : parent != 0, "parent", parent},
		{!S_ISDIR(mode) && !is_device(mode) && rdev, "rdev_or_entries", rdev},
		{!fsck_format_fits(mode, inode->format), "format", inode->format},
		{!size_fits(inode), "size", le64_get(inode->size)},
		{!fsck_fork_fits(inode), "fork contents: xattr_bytes", inode->xattr_bytes},
		{inode->format != FORK_EXTENTS && le16_get(inode->fork_count), "fork_count",
			le16_get(inode->fork_count)},
		{inode->format != FORK_INLINE && inode->fork_bytes, "fork_bytes", inode->fork_bytes},
		{inode->fork_level > (inode->format == FORK_TREE ? FS_TREE_LEVEL_MAX : 0), "fork_level",
			inode->fork_level},
		{le32_get(inode->reserved0) != 0, "reserved0", le32_get(inode->reserved0)},
		{le64_get(inode->reserved1) != 0, "reserved1", le64_get(inode->reserved1)},
	};
	rules_check(fsck, ino, rules, ARRAY_SIZE(rules));
}

/* The target of a symbolic link that does not fit into the fork: one written block. */
static void symlink_extents(struct fsck *fsck, const struct disk_inode *inode, uint64_t ino)
{
	const struct disk_extent *extent = (const struct disk_extent *)inode->fork;
	unsigned count = le16_get(inode->fork_count);
	if (!count && !le32_get(inode->nlink))
		return;
	if (count != 1 || le64_get(extent->logical) || le32_get(extent->length) != 1 || le32_get(extent->flags))
		fsck_find(fsck, "inode %" PRIu64 ": symbolic link whose target is not in one written block", ino);
}

/* Everything that a file owns. */
static void inode_contents(struct fsck *fsck, const struct disk_inode *inode, uint64_t ino)
{
	uint64_t findings = fsck->out->findings, blocks = le64_get(inode->blocks);
	if (!fsck_fork_fits(inode))
		return;
	uint64_t counted = fsck_extents(fsck, inode, ino);
	if (S_ISLNK(le16_get(inode->mode)) && inode->format == FORK_EXTENTS)
		symlink_extents(fsck, inode, ino);
	counted += fsck_xattrs(fsck, inode, ino);
	if (!fsck->error && findings == fsck->out->findings && blocks != counted)
		fsck_find(fsck, "inode %" PRIu64 ": blocks is %" PRIu64 ", it has %" PRIu64, ino, blocks, counted);
}

static void inode_used(struct fsck *fsck, const struct fsck_ag *ag, struct fsck_inode_block *entry, unsigned slot,
	const struct disk_inode *inode)
{
	uint64_t ino = fsck_inode_number(fsck, ino_make(ag->number, entry->ag_block, slot));
	unsigned mode = le16_get(inode->mode);
	if (!mode) {
		fsck_find(fsck, "inode %" PRIu64 ": marked used, but its mode is 0", ino);
		return;
	}
	struct fsck_inode *known = &entry->inode[slot];
	known->mode = (uint16_t)mode;
	known->nlink = le32_get(inode->nlink);
	known->parent = le64_get(inode->parent);
	inode_fields(fsck, ag, inode, ino);
	if (S_ISDIR(mode)) {
		entry->directories = true;
		fsck->out->directories++;
	} else {
		fsck->out->files++;
		inode_contents(fsck, inode, ino);
	}
}

static void inode_free(struct fsck *fsck, const struct fsck_ag *ag, const struct disk_inode *inode, uint64_t ino)
{
	if (le16_get(inode->mode) || inode->format != FORK_NONE)
		fsck_find(fsck, "inode %" PRIu64 ": marked free, but has mode %o, format %u", ino,
			le16_get(inode->mode), inode->format);
	if (le32_get(inode->generation) >= ag->next_generation)
		fsck_find(fsck, "inode %" PRIu64 ": wrong generation: %" PRIu32, ino, le32_get(inode->generation));
}

void fsck_inode_block(struct fsck *fsck, struct fsck_ag *ag, struct fsck_inode_block *entry)
{
	uint64_t place = ag->first + entry->ag_block;
	const struct inode_block *block = fsck->error ? NULL :
		fsck_read_block(fsck, place, fsck->inodes, BLOCK_INODES, ag->number);
	if (!block)
		return;
	uint32_t used_mask = le32_get(block->used_mask);
	if (used_mask >> FS_INODES_PER_BLOCK)
		fsck_find(fsck, "block %" PRIu64 " (inode block): used_mask %#" PRIx32 " has bits past the last slot",
			place, used_mask);
	if (!fsck_is_zero(block->reserved, sizeof(block->reserved)))
		fsck_find(fsck, "block %" PRIu64 " (inode block): reserved fields are not zero", place);
	entry->readable = true;
	entry->used_mask = used_mask & ((1u << FS_INODES_PER_BLOCK) - 1);
	for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK && !fsck->error; slot++) {
		if (entry->used_mask >> slot & 1)
			inode_used(fsck, ag, entry, slot, &block->inode[slot]);
		else
			inode_free(fsck, ag, &block->inode[slot], ino_make(ag->number, entry->ag_block, slot));
	}
}
