/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * From the other end: what a block is for, which inode has it, and where an inode is in the tree. There is nothing on disk that
 * leads there, so all inodes are looked at.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "mkfs/dump_internal.h"

enum { PATH_BYTES = 1 << 16, NAMES_MAX = 65536 };

/* ---- all inodes ---- */

/* A bit of AG @ag's map of @type for block @relative; -1: the map is bad, or not written. */
static int map_bit(struct dump *dump, uint32_t ag, enum block_type type, uint32_t relative, uint64_t ready)
{
	const uint32_t index = relative / FS_MAP_BITS, bit = relative % FS_MAP_BITS;
	const uint64_t place = ag_first_block(&dump->super, ag) + FS_AG_MAPS_FIRST +
		(uint64_t)(type - BLOCK_BLOCK_MAP) * le32_get(dump->super.map_blocks) + index;
	const struct map_block *map = (const struct map_block *)dump->each_map;

	if (!(ready >> index & 1) || !dump_read(dump, place, dump->each_map) ||
	    block_verify(&dump->super, map, place, type, ag, false))
		return -1;
	return map->bits[bit / 8] >> bit % 8 & 1;
}

/* True: enough seen. */
static bool inode_block_each(struct dump *dump, uint32_t ag, uint32_t relative, dump_inode_fn fn, void *arg)
{
	const uint64_t block = ag_first_block(&dump->super, ag) + relative;
	const struct inode_block *inodes = (const struct inode_block *)dump->each_inodes;

	if (!dump_read(dump, block, dump->each_inodes))
		return false;
	const char *failed = block_verify(&dump->super, inodes, block, BLOCK_INODES, ag, false);
	if (failed)
		dump_fail(dump, "block %" PRIu64 " (inodes): bad %s: its inodes are left out", block, failed);
	for (unsigned slot = 0; !failed && slot < FS_INODES_PER_BLOCK; slot++) {
		const uint64_t place = ino_make(ag, relative, slot);
		const uint64_t ino = place == le64_get(dump->super.root_place) ? FS_ROOT_INODE : place;
		if ((le32_get(inodes->used_mask) >> slot & 1) && !inode_verify(&dump->super, &inodes->inode[slot], ino) &&
		    fn(dump, &inodes->inode[slot], ino, arg))
			return true;
	}
	return false;
}

static bool ag_each(struct dump *dump, uint32_t ag, dump_inode_fn fn, void *arg)
{
	const struct ag_header *header = (const struct ag_header *)dump->each_map;
	const uint64_t first = ag_first_block(&dump->super, ag);

	if (!dump_read(dump, first, dump->each_map))
		return false;
	const char *failed = block_verify(&dump->super, header, first, BLOCK_AG_HEADER, ag, false);
	if (failed)
		dump_fail(dump, "block %" PRIu64 " (AG header): bad %s: AG %" PRIu32 " is left out", first, failed, ag);
	const uint64_t ready = failed ? 0 : le64_get(header->inode_map_ready);
	const uint32_t blocks = ag_block_count(&dump->super, ag);
	const struct map_block *map = (const struct map_block *)dump->each_map;
	for (uint32_t index = 0; index < le32_get(dump->super.map_blocks); index++) {
		if (map_bit(dump, ag, BLOCK_INODE_MAP, index * FS_MAP_BITS, ready) < 0)
			continue;
		for (uint32_t bit = 0; bit < FS_MAP_BITS && index * FS_MAP_BITS + bit < blocks; bit++)
			if ((map->bits[bit / 8] >> bit % 8 & 1) && inode_block_each(dump, ag, index * FS_MAP_BITS + bit, fn, arg))
				return true;
	}
	return false;
}

void dump_inodes_each(struct dump *dump, dump_inode_fn fn, void *arg)
{
	for (uint32_t ag = 0; ag < le32_get(dump->super.ag_count); ag++)
		if (ag_each(dump, ag, fn, arg))
			return;
}

/* ---- places ---- */

static void ag_place(struct dump *dump, uint64_t block, uint32_t ag)
{
	const struct ag_header *header = (const struct ag_header *)dump->value;
	const uint64_t first = ag_first_block(&dump->super, ag);
	const uint32_t relative = (uint32_t)(block - first);

	printf("block %" PRIu64 " is block %" PRIu32 " of AG %" PRIu32, block, relative, ag);
	if (relative < ag_fixed_blocks(&dump->super)) {
		printf(relative == 0 ? ": its header\n" : relative == FS_AG_SUPER_COPY ? ": room for a copy of the superblock\n" :
			": one of its maps\n");
		return;
	}
	if (!dump_read(dump, first, dump->value) || block_verify(&dump->super, header, first, BLOCK_AG_HEADER, ag, false)) {
		puts(", whose header is bad");
		return;
	}
	const int used = map_bit(dump, ag, BLOCK_BLOCK_MAP, relative, le64_get(header->block_map_ready));
	const bool untouched = !(le64_get(header->block_map_ready) >> relative / FS_MAP_BITS & 1);
	puts(used > 0 ? ", in use" : used == 0 || untouched ? ", free" : "; its map is bad");
}

void dump_place(struct dump *dump, uint64_t block)
{
	const struct fs_super *super = &dump->super;
	const uint64_t journal = le64_get(super->journal_first), first = le64_get(super->first_ag_block);

	for (uint32_t ag = 0; ag < le32_get(super->ag_count); ag++) {
		if (block < ag_first_block(super, ag) || block - ag_first_block(super, ag) >= ag_block_count(super, ag))
			continue;
		ag_place(dump, block, ag);
		return;
	}
	if (block == le64_get(super->block_count) - 1)
		printf("block %" PRIu64 " is the last: a copy of the superblock\n", block);
	else if (block >= le64_get(super->block_count))
		printf("block %" PRIu64 " lies behind the filesystem\n", block);
	else if (block >= journal && block < journal + le64_get(super->journal_blocks))
		printf("block %" PRIu64 " is block %" PRIu64 " of the journal's ring\n", block, block - journal);
	else if (block < first)
		printf("block %" PRIu64 " is %s\n", block, block == 0 ? "never used" : block == FS_SUPER_BLOCK ? "the superblock" :
			block <= FS_STATE_BLOCK_B ? "a state block" : "before the first AG, unused");
}

/* ---- owners ---- */

struct owner_search {
	uint64_t block, ino, logical;
	bool found, unwritten;
};

static bool extents_search(const uint8_t *records, unsigned count, unsigned bytes, void *arg)
{
	const struct disk_extent *extents = (const struct disk_extent *)records;
	struct owner_search *search = arg;

	for (unsigned i = 0; i < count && !search->found; i++) {
		const uint64_t physical = le64_get(extents[i].physical);
		if (search->block < physical || search->block - physical >= le32_get(extents[i].length))
			continue;
		search->found = true;
		search->logical = le64_get(extents[i].logical) + search->block - physical;
		search->unwritten = le32_get(extents[i].flags) & EXTENT_UNWRITTEN;
	}
	return search->found;
}

static bool owner_test(struct dump *dump, const struct disk_inode *inode, uint64_t ino, void *arg)
{
	struct owner_search *search = arg;

	if (S_ISREG(le16_get(inode->mode)) || S_ISLNK(le16_get(inode->mode)))
		dump_leaves(dump, inode, ino, extents_search, search);
	search->ino = ino;
	return search->found;
}

void dump_owner(struct dump *dump, uint64_t block)
{
	const struct block_header *header = (const struct block_header *)dump->block;
	struct owner_search search = {.block = block};

	if (!dump_read(dump, block, dump->block))
		return;
	dump_place(dump, block);
	/* Data can look like metadata: whoever has the block as data comes first. */
	dump_inodes_each(dump, owner_test, &search);
	const unsigned type = le16_get(header->type);
	if (search.found) {
		printf("data of inode %" PRIu64 ", its block %" PRIu64 "%s\n", search.ino, search.logical,
			search.unwritten ? ", unwritten" : "");
		dump_names(dump, search.ino);
	} else if (le32_get(header->magic) == FS_BLOCK_MAGIC && type && type < BLOCK_TYPE_COUNT &&
		!block_verify(&dump->super, header, block, type, BLOCK_OWNER_ANY, false)) {
		printf("%s; \"block %" PRIu64 "\" shows it\n", block_type_name(type), block);
		if (type == BLOCK_DIR_NODE || type == BLOCK_EXTENT_NODE || type == BLOCK_XATTR || type == BLOCK_XATTR_VALUE) {
			printf("of inode %" PRIu64 "\n", le64_get(header->owner));
			dump_names(dump, le64_get(header->owner));
		}
	} else {
		puts("of no inode");
	}
}

/* ---- names ---- */

struct name_found {
	uint64_t directory;
	unsigned length;
	uint8_t name[255];
};

struct names_search {
	uint64_t wanted, directory;     /* inode that is looked for; the directory at hand */
	unsigned count, room, count_max;
	struct name_found *found;       /* grows */
};

static bool names_leaf(const uint8_t *records, unsigned count, unsigned bytes, void *arg)
{
	struct names_search *search = arg;

	for (unsigned at = 0; at < bytes && search->count < search->count_max;) {
		const struct disk_dirent *dirent = (const struct disk_dirent *)(records + at);
		at += dirent_bytes(dirent->name_length);
		if (le64_get(dirent->ino) != search->wanted)
			continue;
		if (search->count == search->room) {
			const unsigned room = search->room ? 2 * search->room : 4;
			struct name_found *found = realloc(search->found, room * sizeof(*found));
			if (!found)
				return true;
			search->found = found;
			search->room = room;
		}
		struct name_found *found = &search->found[search->count++];
		found->directory = search->directory;
		found->length = dirent->name_length;
		memcpy(found->name, dirent->name, dirent->name_length);
	}
	return search->count == search->count_max;
}

/* Prepends @name and a slash at *at of @path; false: it has no room. */
static bool path_prepend(char *path, size_t *at, const void *name, size_t length)
{
	if (*at < length + 1)
		return false;
	*at -= length;
	memcpy(path + *at, name, length);
	path[--*at] = '/';
	return true;
}

/* The directory's parent, and its name there in front of the path; 0: they cannot be found. */
static uint64_t step_up(struct dump *dump, uint64_t directory, char *path, size_t *at)
{
	const struct disk_inode *inode = dump_inode_find(dump, directory);
	const uint64_t parent = inode && !inode_verify(&dump->super, inode, directory) ? le64_get(inode->parent) : 0;
	struct names_search search = {.wanted = directory, .directory = parent, .count_max = 1};

	inode = parent ? dump_inode_find(dump, parent) : NULL;
	if (inode && S_ISDIR(le16_get(inode->mode)) && !inode_verify(&dump->super, inode, parent))
		dump_leaves(dump, inode, parent, names_leaf, &search);
	const bool done = search.count && path_prepend(path, at, search.found->name, search.found->length);
	free(search.found);
	return done ? parent : 0;
}

static void path_print(struct dump *dump, const struct name_found *name)
{
	static char path[PATH_BYTES];
	size_t at = sizeof(path);
	uint64_t directory = name->directory;

	path_prepend(path, &at, name->name, name->length);
	for (unsigned steps = 0; directory && directory != FS_ROOT_INODE; steps++) {
		const uint64_t parent = steps < PATH_BYTES ? step_up(dump, directory, path, &at) : 0;
		if (!parent)
			printf("in directory %" PRIu64 ", which has no place in the tree: ", directory);
		directory = parent;
	}
	dump_quoted(path + at, sizeof(path) - at);
	putchar('\n');
}

static bool directory_test(struct dump *dump, const struct disk_inode *inode, uint64_t ino, void *arg)
{
	struct names_search *search = arg;

	search->directory = ino;
	if (S_ISDIR(le16_get(inode->mode)))
		dump_leaves(dump, inode, ino, names_leaf, search);
	return search->count == search->count_max;
}

void dump_names(struct dump *dump, uint64_t ino)
{
	struct names_search search = {.wanted = ino, .count_max = NAMES_MAX};
	const struct disk_inode *inode = dump_inode_find(dump, ino);

	if (!inode)
		return;
	const uint32_t links = le32_get(inode->nlink);
	if (ino == FS_ROOT_INODE) {
		puts("\"/\"");
		return;
	}
	if (!le16_get(inode->mode)) {
		dump_fail(dump, "inode %" PRIu64 ": is free", ino);
		return;
	}
	dump_inodes_each(dump, directory_test, &search);
	for (unsigned i = 0; i < search.count; i++)
		path_print(dump, &search.found[i]);
	if (!search.count)
		printf("inode %" PRIu64 ": no name leads to it%s\n", ino, links ? "" : " (removed while it was open)");
	free(search.found);
}
