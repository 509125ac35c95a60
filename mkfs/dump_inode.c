/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inodes: their fields, what their fork holds, and their extended attributes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#include "mkfs/dump_internal.h"

static uint64_t place_of(const struct dump *dump, uint64_t ino)
{
	return ino == FS_ROOT_INODE ? le64_get(dump->super.root_place) : ino;
}

const struct disk_inode *dump_inode_find(struct dump *dump, uint64_t ino)
{
	const struct fs_super *super = &dump->super;
	const uint64_t place = place_of(dump, ino);
	const uint32_t ag_block = ino_ag_block(place);
	const struct inode_block *inodes = (const struct inode_block *)dump->inodes;

	if (place >> (FS_INODE_BLOCK_BITS + FS_INODE_SLOT_BITS) >= le32_get(super->ag_count) ||
		ag_block < ag_fixed_blocks(super) || ag_block >= ag_block_count(super, ino_ag(place)) ||
		ino_slot(place) >= FS_INODES_PER_BLOCK) {
		dump_fail(dump, "inode %" PRIu64 ": is no place where an inode can be; names and numbers are in \"dir\"", ino);
		return NULL;
	}
	if (!dump_read(dump, ag_first_block(super, ino_ag(place)) + ag_block, dump->inodes))
		return NULL;
	if (le32_get(inodes->header.magic) == FS_BLOCK_MAGIC && le16_get(inodes->header.type) == BLOCK_INODES &&
		le64_get(inodes->header.fsid) == le64_get(super->fsid))
		return &inodes->inode[ino_slot(place)];
	dump_fail(dump, "inode %" PRIu64 ": there is no inode block at its place", ino);
	return NULL;
}

/* ---- fields ---- */

static const char *type_name(unsigned mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "file";
	case S_IFDIR:
		return "directory";
	case S_IFLNK:
		return "symbolic link";
	case S_IFCHR:
		return "character device";
	case S_IFBLK:
		return "block device";
	case S_IFIFO:
		return "FIFO";
	case S_IFSOCK:
		return "socket";
	default:
		return mode ? "of unknown type" : "free";
	}
}

static const char *format_name(unsigned format)
{
	static const char *const names[] = {"none", "inline", "extents", "tree"};

	return format < ARRAY_SIZE(names) ? names[format] : "unknown";
}

static void fields_print(const struct disk_inode *inode)
{
	const unsigned mode = le16_get(inode->mode);
	const uint64_t number = le64_get(inode->rdev_or_entries);

	dump_field("mode", "%06o (%s)", mode, type_name(mode));
	dump_field("owner", "uid %" PRIu32 ", gid %" PRIu32, le32_get(inode->uid), le32_get(inode->gid));
	dump_field("links", "%" PRIu32, le32_get(inode->nlink));
	dump_field("generation", "%" PRIu32, le32_get(inode->generation));
	dump_field("flags", "%#" PRIx32, le32_get(inode->flags));
	dump_field("size", "%" PRIu64, le64_get(inode->size));
	dump_field("blocks", "%" PRIu64, le64_get(inode->blocks));
	dump_time("accessed", inode->atime_sec, le32_get(inode->atime_nsec));
	dump_time("modified", inode->mtime_sec, le32_get(inode->mtime_nsec));
	dump_time("changed", inode->ctime_sec, le32_get(inode->ctime_nsec));
	dump_time("born", inode->btime_sec, le32_get(inode->btime_nsec));
	if (S_ISDIR(mode)) {
		dump_field("parent", "%" PRIu64, le64_get(inode->parent));
		dump_field("entries", "%" PRIu64, number);
	}
	if (S_ISCHR(mode) || S_ISBLK(mode))
		dump_field("device", "%" PRIu64 ":%" PRIu32, number >> 32, (uint32_t)number);
	dump_field("fork", "%s, count %u, bytes %u, level %u", format_name(inode->format), le16_get(inode->fork_count),
		inode->fork_bytes, inode->fork_level);
	dump_field("xattrs", "%u bytes in the fork, first block %" PRIu64, inode->xattr_bytes,
		le64_get(inode->xattr_block));
}

/* The inode has passed its verifier. */
static void fork_print(struct dump *dump, const struct disk_inode *inode, uint64_t ino)
{
	const unsigned mode = le16_get(inode->mode);

	if (inode->format == FORK_EXTENTS)
		dump_extents(inode->fork, le16_get(inode->fork_count));
	if (inode->format == FORK_INLINE && S_ISDIR(mode))
		dump_dirents(inode->fork, inode->fork_bytes);
	else if (inode->format == FORK_INLINE && S_ISLNK(mode))
		dump_text("target", inode->fork, inode->fork_bytes);
	else if (inode->format == FORK_INLINE)
		dump_bytes(inode->fork, inode->fork_bytes);
	if (inode->format != FORK_TREE)
		return;
	dump_field("tree", "root block %" PRIu64 ", level %u", le64_get(((const struct fork_tree *)inode->fork)->root),
		inode->fork_level);
	if (!S_ISDIR(mode)) /* those can be huge; "dir" lists them */
		dump_extent_tree(dump, inode, ino);
}

/* ---- extended attributes ---- */

static void value_blocks_print(struct dump *dump, const le64_t *blocks, uint32_t length, uint64_t ino)
{
	const unsigned count = (unsigned)div_round_up(length, FS_XATTR_VALUE_BLOCK_BYTES);

	for (unsigned i = 0; i < count; i++) {
		const uint64_t block = le64_get(blocks[i]);
		const struct xattr_value_block *value = (const struct xattr_value_block *)dump->value;
		dump_field("", "value block %" PRIu64, block);
		if (dump_open(dump, block, BLOCK_XATTR_VALUE, ino, dump->value, false) && le32_get(value->index) != i)
			dump_fail(dump, "block %" PRIu64 ": piece %" PRIu32 " of a value where %u is wanted", block,
				le32_get(value->index), i);
	}
}

void dump_xattr_records(struct dump *dump, const uint8_t *records, unsigned bytes, uint64_t ino)
{
	static const char *const namespaces[] = {"?", "user", "trusted", "security", "system"};

	for (unsigned at = 0; at < bytes;) {
		const struct disk_xattr *xattr = (const struct disk_xattr *)(records + at);
		const uint32_t length = le32_get(xattr->value_length);
		const bool external = xattr->flags & XATTR_EXTERNAL;
		const unsigned name_bytes = (unsigned)align_up(xattr->name_length, 8);
		const uint8_t *payload = (const uint8_t *)xattr->name + name_bytes;
		printf("  %-20s %s.", "xattr", namespaces[xattr->namespace]);
		dump_quoted(xattr->name, xattr->name_length);
		printf(", %" PRIu32 " bytes%s\n", length, external ? " in value blocks" : "");
		if (external)
			value_blocks_print(dump, (const le64_t *)payload, length, ino);
		else
			dump_bytes(payload, length);
		at += FS_XATTR_FIXED + name_bytes + (external ?
			(unsigned)div_round_up(length, FS_XATTR_VALUE_BLOCK_BYTES) * 8 : (unsigned)align_up(length, 8));
	}
}

static void xattrs_print(struct dump *dump, const struct disk_inode *inode, uint64_t ino)
{
	const struct xattr_block *xattrs = (const struct xattr_block *)dump->xattr;
	uint64_t next = le64_get(inode->xattr_block);

	dump_xattr_records(dump, inode->fork + FS_FORK_BYTES - inode->xattr_bytes, inode->xattr_bytes, ino);
	for (uint64_t left = dump->device_blocks; next && left; left--) {
		if (!dump_open(dump, next, BLOCK_XATTR, ino, dump->xattr, true))
			return;
		dump_xattr_records(dump, xattrs->records, le16_get(xattrs->bytes), ino);
		next = le64_get(xattrs->next);
	}
}

/* ---- whole ones ---- */

void dump_inode(struct dump *dump, uint64_t ino)
{
	const struct disk_inode *inode = dump_inode_find(dump, ino);

	if (!inode)
		return;
	const uint64_t place = place_of(dump, ino);
	const uint64_t block = ag_first_block(&dump->super, ino_ag(place)) + ino_ag_block(place);
	const bool free = !le16_get(inode->mode);
	const char *failed = free ? NULL : inode_verify(&dump->super, inode, ino);
	printf("inode %" PRIu64 " (AG %" PRIu32 ", block %" PRIu64 ", slot %u): %s%s\n", ino, ino_ag(place), block,
		ino_slot(place), failed ? "BAD: " : free ? "free" : "good", failed ? failed : "");
	dump->bad += failed != NULL;
	failed = block_verify(&dump->super, dump->inodes, block, BLOCK_INODES, ino_ag(place), !dump_overlay_find(dump, block));
	if (failed) {
		dump_field("inode block", "BAD: %s", failed);
		dump->bad++;
	}
	fields_print(inode);
	if (free || inode_verify(&dump->super, inode, ino))
		return;
	fork_print(dump, inode, ino);
	xattrs_print(dump, inode, ino);
}

/* One line each; "inode" shows more. */
void dump_inode_block(struct dump *dump, const struct inode_block *inodes, uint64_t block)
{
	const uint32_t ag = (uint32_t)le64_get(inodes->header.owner);
	const uint32_t mask = le32_get(inodes->used_mask);

	dump_field("used slots", "%#" PRIx32, mask);
	for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++) {
		const struct disk_inode *inode = &inodes->inode[slot];
		uint64_t ino = ino_make(ag, (uint32_t)(block - ag_first_block(&dump->super, ag)), slot);
		if (!(mask >> slot & 1))
			continue;
		if (ino == le64_get(dump->super.root_place))
			ino = FS_ROOT_INODE;
		dump_field("inode", "%" PRIu64 ": %06o, links %" PRIu32 ", generation %" PRIu32 ", size %" PRIu64
			", blocks %" PRIu64, ino, (unsigned)le16_get(inode->mode), le32_get(inode->nlink),
			le32_get(inode->generation), le64_get(inode->size), le64_get(inode->blocks));
	}
}
