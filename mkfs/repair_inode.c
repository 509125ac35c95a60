/* SPDX-License-Identifier: BSD-3-Clause */
/* Inodes: finding and changing their records, the fields of each by itself, and the extents of files. */
#include <stdlib.h>

#include "mkfs/repair_internal.h"

/* ---- records ---- */

static uint64_t place_of(struct repair *repair, uint64_t ino, unsigned *out_slot)
{
	const uint64_t place = ino == FS_ROOT_INODE ? repair->fsck.root_place : ino;
	*out_slot = ino_slot(place);
	return repair->fsck.ag[ino_ag(place)].first + ino_ag_block(place);
}

const struct disk_inode *repair_inode_read(struct repair *repair, uint64_t ino)
{
	unsigned slot;
	bool image;
	const uint64_t place = place_of(repair, ino, &slot);
	const struct inode_block *block =
		repair->fsck.error ? NULL : fsck_read(&repair->fsck, place, repair->fsck.inodes, &image);
	return block ? &block->inode[slot] : NULL;
}

struct disk_inode *repair_inode_edit(struct repair *repair, uint64_t ino)
{
	unsigned slot;
	struct inode_block *block = repair_edit(repair, place_of(repair, ino, &slot));
	return block ? &block->inode[slot] : NULL;
}

static struct fsck_ag *ag_of(struct repair *repair, uint64_t ino)
{
	return &repair->fsck.ag[ino_ag(ino == FS_ROOT_INODE ? repair->fsck.root_place : ino)];
}

static struct fsck_inode_block *entry_of(struct repair *repair, uint64_t ino)
{
	const uint64_t place = ino == FS_ROOT_INODE ? repair->fsck.root_place : ino;
	struct fsck_ag *ag = ag_of(repair, ino);
	uint32_t low = 0, high = ag->table_count;
	while (low + 1 < high) {
		const uint32_t middle = low + (high - low) / 2;
		*(ag->table[middle].ag_block <= ino_ag_block(place) ? &low : &high) = middle;
	}
	return &ag->table[low];
}

/* Nothing but the generation of its last use, and that only if it can be. */
static struct disk_inode slot_free(const struct fsck_ag *ag, const struct disk_inode *inode)
{
	return (struct disk_inode){.generation = le32_set(MIN(le32_get(inode->generation), ag->next_generation - 1))};
}

void repair_inode_free(struct repair *repair, uint64_t ino)
{
	unsigned slot;
	struct inode_block *block = repair_edit(repair, place_of(repair, ino, &slot));
	struct fsck_inode_block *entry = entry_of(repair, ino);
	if (!block)
		return;
	entry->used_mask &= (uint16_t)~(1u << slot);
	entry->inode[slot] = (struct fsck_inode){0};
	block->used_mask = le32_set(entry->used_mask);
	block->inode[slot] = slot_free(ag_of(repair, ino), &block->inode[slot]);
}

void repair_each_inode(struct repair *repair, struct fsck_ag *ag, repair_inode_fn fn)
{
	for (uint32_t i = 0; i < ag->table_count; i++)
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK && !repair->fsck.error; slot++)
			if (ag->table[i].used_mask >> slot & 1)
				fn(repair, fsck_inode_number(&repair->fsck, ino_make(ag->number, ag->table[i].ag_block, slot)),
					&ag->table[i].inode[slot]);
}

void repair_inode_blocks(struct repair *repair, uint64_t ino, uint64_t blocks)
{
	const struct disk_inode *inode = repair_inode_read(repair, ino);
	if (!inode || le64_get(inode->blocks) == blocks)
		return;
	struct disk_inode *changed = repair_inode_edit(repair, ino);
	if (changed)
		changed->blocks = le64_set(blocks);
}

/* ---- fields ---- */

static bool is_device(unsigned mode) { return S_ISCHR(mode) || S_ISBLK(mode); }

/* A fork that cannot be: contents or xattrs that reach over its end. */
static void fork_mend(struct repair *repair, uint64_t ino, struct disk_inode *inode)
{
	const unsigned mode = le16_get(inode->mode);
	if (!fsck_format_fits(mode, inode->format)) {
		repair_loss(repair, "inode %" PRIu64 ": its contents had no known form", ino);
		inode->format = S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) ? FORK_INLINE : FORK_NONE;
		inode->fork_bytes = 0;
		inode->size = le64_set(0);
	}
	if (!fsck_fork_fits(inode) && inode->xattr_bytes) {
		repair_loss(repair, "inode %" PRIu64 ": its xattrs reached into its contents", ino);
		inode->xattr_bytes = 0;
	}
	if (!fsck_fork_fits(inode)) {
		inode->fork_bytes = MIN(inode->fork_bytes, (uint8_t)FS_FORK_BYTES);
		inode->fork_count = le16_set(MIN(le16_get(inode->fork_count),
			(uint16_t)(FS_FORK_BYTES / sizeof(struct disk_extent))));
	}
	if (inode->format != FORK_EXTENTS)
		inode->fork_count = le16_set(0);
	if (inode->format != FORK_INLINE)
		inode->fork_bytes = 0;
	if (inode->format != FORK_TREE)
		inode->fork_level = 0;
	inode->fork_level = MIN(inode->fork_level, (uint8_t)FS_TREE_LEVEL_MAX);
}

static void size_mend(struct disk_inode *inode)
{
	const unsigned mode = le16_get(inode->mode);
	if (inode->format == FORK_INLINE)
		inode->size = le64_set(inode->fork_bytes);
	else if (inode->format == FORK_NONE)
		inode->size = le64_set(0);
	else if (S_ISREG(mode))
		inode->size = le64_set(MIN(le64_get(inode->size), (uint64_t)FS_FILE_SIZE_MAX));
}

static void fields_mend(struct repair *repair, struct fsck_ag *ag, struct disk_inode *inode, uint64_t ino)
{
	const unsigned mode = le16_get(inode->mode);
	le32_t *const nanoseconds[] = {&inode->atime_nsec, &inode->mtime_nsec, &inode->ctime_nsec, &inode->btime_nsec};
	const uint32_t generation = le32_get(inode->generation);
	inode->flags = le32_set(le32_get(inode->flags) & INODE_FLAGS_KNOWN);
	if (!generation || generation >= ag->next_generation)
		inode->generation = le32_set(ag->next_generation++);
	for (size_t i = 0; i < ARRAY_SIZE(nanoseconds); i++)
		if (le32_get(*nanoseconds[i]) >= NS_PER_SEC)
			*nanoseconds[i] = le32_set(0);
	if (!S_ISDIR(mode))
		inode->parent = le64_set(0);
	if (!S_ISDIR(mode) && !is_device(mode))
		inode->rdev_or_entries = le64_set(0);
	inode->reserved0 = le32_set(0);
	inode->reserved1 = le64_set(0);
	fork_mend(repair, ino, inode);
	size_mend(inode);
}

static void free_slot_mend(struct repair *repair, struct fsck_ag *ag, const struct disk_inode *inode, uint64_t ino)
{
	if (!le16_get(inode->mode) && inode->format == FORK_NONE && le32_get(inode->generation) < ag->next_generation)
		return;
	struct disk_inode *changed = repair_inode_edit(repair, ino);
	if (changed)
		*changed = slot_free(ag, changed);
}

void repair_inode_fields(struct repair *repair, struct fsck_ag *ag, uint64_t place)
{
	const uint64_t ino = fsck_inode_number(&repair->fsck, place);
	struct fsck_inode *known;
	const struct disk_inode *inode = repair_inode_read(repair, ino);
	if (!inode)
		return;
	if (fsck_inode_find(&repair->fsck, ino, &known) != FSCK_LOOKUP_USED) {
		free_slot_mend(repair, ag, inode, ino);
		return;
	}
	const unsigned mode = le16_get(inode->mode);
	if (!fsck_mode_known(mode) || (ino == FS_ROOT_INODE && !S_ISDIR(mode))) {
		repair_loss(repair, "inode %" PRIu64 ": mode %o is none: freed", ino, mode);
		repair_inode_free(repair, ino);
		return;
	}
	struct disk_inode mended = *inode;
	fields_mend(repair, ag, &mended, ino);
	if (memcmp(&mended, inode, sizeof(mended))) {
		struct disk_inode *changed = repair_inode_edit(repair, ino);
		if (changed)
			*changed = mended;
	}
	known->mode = (uint16_t)mode;
	known->nlink = le32_get(mended.nlink);
	known->parent = le64_get(mended.parent);
}

/* ---- extents ---- */

struct gathering {
	struct repair_extents extents;
	uint64_t ino;
	uint64_t limit;                 /* logical blocks that it may have */
	uint64_t next;                  /* least logical block of the next one */
	bool damaged;
	uint64_t blocks;
};

static void extent_add(struct repair *repair, struct repair_extents *extents, struct repair_extent extent)
{
	extents->extent =
		repair_grow(repair, extents->extent, &extents->capacity, extents->count + 1, sizeof(*extents->extent));
	if (!repair->fsck.error)
		extents->extent[extents->count++] = extent;
}

/* What of the extent nobody else has. */
static void extent_claim(struct repair *repair, struct gathering *gathering, struct repair_extent extent)
{
	for (uint32_t at = 0, run; at < extent.length && !repair->fsck.error; at += run) {
		bool is_free;
		run = repair_run(repair, extent.physical + at, extent.length - at, &is_free);
		if (!is_free) {
			repair_loss(repair, "inode %" PRIu64 ": %" PRIu32 " blocks from %" PRIu64 " on belong to somebody else",
				gathering->ino, run, extent.physical + at);
			gathering->damaged = true;
			continue;
		}
		repair_claim_run(repair, extent.physical + at, run);
		extent_add(repair, &gathering->extents, (struct repair_extent){extent.logical + at, extent.physical + at, run,
			extent.flags});
		gathering->blocks += run;
	}
}

static void gather_leaf(struct repair *repair, const struct repair_leaf *leaf, void *arg)
{
	struct gathering *gathering = arg;
	const struct disk_extent *disk = (const struct disk_extent *)leaf->payload;
	const uint64_t limit = div_round_up(FS_FILE_SIZE_MAX, FS_BLOCK_SIZE);
	for (unsigned i = 0; i < leaf->count && !repair->fsck.error; i++) {
		struct repair_extent extent = {le64_get(disk[i].logical), le64_get(disk[i].physical), le32_get(disk[i].length),
			le32_get(disk[i].flags)};
		gathering->damaged |= extent.logical < leaf->low || extent.logical >= leaf->high ||
			extent.flags & ~(uint32_t)EXTENT_UNWRITTEN;
		extent.flags &= EXTENT_UNWRITTEN;
		if (!extent.length || extent.logical >= limit || extent.length > limit - extent.logical ||
			extent.logical < gathering->next || !repair_placeable(repair, extent.physical, extent.length)) {
			repair_loss(repair, "inode %" PRIu64 ": an extent of %" PRIu32 " blocks at %" PRIu64 " cannot be",
				gathering->ino, extent.length, extent.logical);
			gathering->damaged = true;
			continue;
		}
		gathering->next = extent.logical + extent.length;
		if (extent.logical >= gathering->limit) { /* a truncate that was under way: its end */
			gathering->damaged = true;
			continue;
		}
		extent_claim(repair, gathering, extent);
	}
}

static struct disk_extent extent_pack(const struct repair_extent *extent)
{
	return (struct disk_extent){.logical = le64_set(extent->logical), .physical = le64_set(extent->physical),
		.length = le32_set(extent->length), .flags = le32_set(extent->flags)};
}

static void symlink_check(struct repair *repair, uint64_t ino, const struct disk_inode *inode,
	const struct gathering *gathering)
{
	const struct repair_extent *extent = gathering->extents.extent;
	const uint64_t size = le64_get(inode->size);
	const bool good = inode->format == FORK_INLINE ? size > 0 : gathering->extents.count == 1 && !extent->logical &&
		extent->length == 1 && !extent->flags && size > 0 && size <= FS_SYMLINK_MAX;
	if (repair->fsck.error || (good && !gathering->damaged))
		return;
	if (good) { /* beside extents that cannot be */
		struct disk_inode *mended = repair_inode_edit(repair, ino);
		const struct disk_extent only = extent_pack(extent);
		if (mended)
			memcpy(mended->fork, &only, sizeof(only));
		if (mended)
			mended->fork_count = le16_set(1);
		return;
	}
	/* Its entry is found out when links are counted again. */
	repair_loss(repair, "inode %" PRIu64 ": a symbolic link without its target: it leads to ?", ino);
	struct disk_inode *changed = repair_inode_edit(repair, ino);
	if (!changed)
		return;
	changed->format = FORK_INLINE;
	changed->fork_count = le16_set(0);
	changed->fork_bytes = 1;
	changed->fork[0] = '?';
	changed->size = le64_set(1);
}

void repair_file(struct repair *repair, uint64_t ino, struct fsck_inode *known)
{
	if (S_ISDIR(known->mode))
		return;
	const uint64_t xattr_blocks = repair_xattrs(repair, ino);
	const struct disk_inode *there = repair_inode_read(repair, ino);
	if (!there)
		return;
	const struct disk_inode inode = *there;
	struct gathering gathering = {.ino = ino, .limit = UINT64_MAX};
	if (known->flags & FSCK_INODE_ORPHAN)
		gathering.limit = div_round_up(le64_get(inode.size), FS_BLOCK_SIZE);
	struct repair_walk walk = {.ino = ino, .type = BLOCK_EXTENT_NODE, .leaf = gather_leaf, .arg = &gathering};
	if (inode.format == FORK_EXTENTS) {
		const struct repair_leaf leaf = {
			.payload = inode.fork, .count = le16_get(inode.fork_count), .high = UINT64_MAX};
		gather_leaf(repair, &leaf, &gathering);
	} else if (inode.format == FORK_TREE) {
		repair_tree_walk(repair, &walk, le64_get(((const struct fork_tree *)inode.fork)->root), inode.fork_level);
	}
	const uint64_t blocks = gathering.blocks + walk.nodes.count + xattr_blocks;
	if (S_ISLNK(known->mode)) {
		symlink_check(repair, ino, &inode, &gathering);
		there = repair_inode_read(repair, ino);
		repair_inode_blocks(repair, ino, there && there->format == FORK_EXTENTS ? blocks : xattr_blocks);
		for (size_t i = 0; there && there->format != FORK_EXTENTS && i < gathering.extents.count; i++)
			for (uint32_t at = 0; at < gathering.extents.extent[i].length; at++)
				repair_release(repair, &(struct repair_blocks){
					.block = &(uint64_t){gathering.extents.extent[i].physical + at}, .count = 1});
	} else if ((gathering.damaged || walk.damaged) && !repair->fsck.error) {
		struct repair_rebuild *rebuild = repair_rebuild_add(repair, ino);
		if (walk.damaged)
			repair_loss(repair, "inode %" PRIu64 ": part of its extent tree is lost", ino);
		if (rebuild) {
			rebuild->extents = gathering.extents;
			rebuild->nodes = walk.nodes;
			rebuild->other_blocks = gathering.blocks + xattr_blocks;
			return;
		}
	} else {
		repair_inode_blocks(repair, ino, blocks);
	}
	free(gathering.extents.extent);
	free(walk.nodes.block);
}

void repair_file_rebuild(struct repair *repair, struct repair_rebuild *rebuild)
{
	const struct repair_extents *extents = &rebuild->extents;
	const struct disk_inode *there = repair_inode_read(repair, rebuild->ino);
	if (!there)
		return;
	const size_t in_fork = (FS_FORK_BYTES - (size_t)there->xattr_bytes) / sizeof(struct disk_extent);
	const size_t in_leaf = FS_NODE_BYTES / sizeof(struct disk_extent);
	const bool tree = extents->count > in_fork;
	struct repair_builder builder = {.ino = rebuild->ino, .type = BLOCK_EXTENT_NODE};
	uint64_t root = 0;
	unsigned level = 0;
	size_t nodes = 0;
	if (tree) {
		nodes = repair_build_nodes(div_round_up(extents->count, in_leaf));
		repair_build_begin(repair, &builder, nodes, rebuild);
		for (size_t i = 0; i < extents->count && !repair->fsck.error; i++) {
			const struct disk_extent extent = extent_pack(&extents->extent[i]);
			repair_build_record(repair, &builder, extents->extent[i].logical, &extent, sizeof(extent));
		}
		root = repair_build_end(repair, &builder, &level);
	}
	struct disk_inode *inode = repair_inode_edit(repair, rebuild->ino);
	if (!inode)
		return;
	inode->format = tree ? FORK_TREE : FORK_EXTENTS;
	inode->fork_level = (uint8_t)level;
	inode->fork_count = le16_set(tree ? 0 : (uint16_t)extents->count);
	inode->blocks = le64_set(rebuild->other_blocks + nodes);
	if (tree)
		((struct fork_tree *)inode->fork)->root = le64_set(root);
	for (size_t i = 0; !tree && i < extents->count; i++)
		((struct disk_extent *)inode->fork)[i] = extent_pack(&extents->extent[i]);
}
