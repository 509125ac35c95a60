/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Directories. All entries that can be read are gathered and judged one by one; a directory with nothing wrong is
 * left as it is. A subdirectory belongs where it says itself that it belongs; an entry elsewhere is left undecided
 * until all directories were read, and then accepted only if no entry was.
 */
#include <stdlib.h>
#include <xxhash.h>

#include "mkfs/repair_internal.h"

struct gathering {
	uint64_t ino;
	struct repair_directory directory;
	bool damaged;
};

/* ---- judging ---- */

static bool is_name(const char *name, unsigned length)
{
	return length && !memchr(name, 0, length) && !memchr(name, '/', length) && !(name[0] == '.' && length == 1) &&
		!(name[0] == '.' && name[1] == '.' && length == 2);
}

static uint64_t name_hash(const struct repair *repair, const char *name, unsigned length)
{
	const uint64_t hash = XXH3_64bits_withSeed(name, length, repair->fsck.hash_seed) >> 17;
	return hash ? hash : 1;
}

/* Counts the entry at what it names. False: it cannot stay. */
static bool entry_judge(struct repair *repair, struct gathering *gathering, struct repair_entry *entry)
{
	struct fsck_inode *target;
	if (entry->ino == FS_ROOT_INODE || entry->ino == repair->fsck.root_place || entry->ino == gathering->ino ||
		fsck_inode_find(&repair->fsck, entry->ino, &target) != FSCK_LOOKUP_USED)
		return false;
	const uint8_t type = (uint8_t)((target->mode & S_IFMT) >> 12);
	gathering->damaged |= entry->type != type;
	entry->type = type;
	if (!S_ISDIR(target->mode)) {
		target->references++;
		return true;
	}
	if (target->parent != gathering->ino) {
		entry->undecided = gathering->damaged = true;
		return true;
	}
	if (target->flags & REPAIR_PLACED)
		return false;
	target->flags |= REPAIR_PLACED;
	target->references = 1;
	return true;
}

static void entry_keep(struct repair *repair, struct repair_directory *directory, const struct repair_entry *entry,
	const char *name)
{
	directory->entry = repair_grow(repair, directory->entry, &directory->capacity, directory->count + 1,
		sizeof(*directory->entry));
	directory->names = repair_grow(repair, directory->names, &directory->names_size,
		directory->names_used + entry->length, 1);
	if (repair->fsck.error)
		return;
	directory->entry[directory->count] = *entry;
	directory->entry[directory->count++].name = directory->names_used;
	memcpy(directory->names + directory->names_used, name, entry->length);
	directory->names_used += entry->length;
}

/* The names of one hash stand together, in directories that are in order. Others are looked at again when they are rebuilt. */
static bool name_repeats(const struct repair_directory *directory, const struct repair_entry *entry, const char *name)
{
	for (size_t i = directory->count; i-- > 0 && directory->entry[i].key >> FS_COLLISION_BITS == entry->key >> FS_COLLISION_BITS;)
		if (directory->entry[i].length == entry->length &&
			!memcmp(directory->names + directory->entry[i].name, name, entry->length))
			return true;
	return false;
}

static void gather_entry(struct repair *repair, struct gathering *gathering, const struct disk_dirent *disk,
	const struct repair_leaf *leaf)
{
	struct repair_directory *directory = &gathering->directory;
	struct repair_entry entry = {
		.key = le64_get(disk->key), .ino = le64_get(disk->ino), .length = disk->name_length, .type = disk->type};
	const uint64_t last = directory->count ? directory->entry[directory->count - 1].key : 0;
	const char *why = !is_name(disk->name, entry.length) ? "is no name" : NULL;
	if (!why && name_hash(repair, disk->name, entry.length) != entry.key >> FS_COLLISION_BITS)
		entry.new_key = true;
	if (!why && name_repeats(directory, &entry, disk->name))
		why = "stands there twice";
	gathering->damaged |= entry.new_key || entry.key <= last || entry.key < leaf->low || entry.key >= leaf->high ||
		!fsck_is_zero(disk->name + entry.length, dirent_bytes(entry.length) - FS_DIRENT_FIXED - entry.length);
	if (!why && !entry_judge(repair, gathering, &entry))
		why = "names nothing that it could";
	if (why) {
		repair_loss(repair, "directory %" PRIu64 ": an entry for inode %" PRIu64 " dropped: it %s", gathering->ino,
			entry.ino, why);
		gathering->damaged = true;
		return;
	}
	entry_keep(repair, directory, &entry, disk->name);
}

static void gather_leaf(struct repair *repair, const struct repair_leaf *leaf, void *arg)
{
	struct gathering *gathering = arg;
	unsigned count = 0;
	for (unsigned at = 0, size; at < leaf->bytes && !repair->fsck.error; at += size, count++) {
		const struct disk_dirent *disk = (const struct disk_dirent *)(leaf->payload + at);
		const unsigned left = leaf->bytes - at;
		size = left < FS_DIRENT_FIXED || !disk->name_length ? UINT32_MAX : dirent_bytes(disk->name_length);
		if (size > left) {
			repair_loss(repair, "directory %" PRIu64 ": the rest of a block of entries is lost", gathering->ino);
			gathering->damaged = true;
			return;
		}
		gather_entry(repair, gathering, disk, leaf);
	}
	gathering->damaged |= leaf->count != UINT32_MAX && leaf->count != count;
}

/* All entries of an inode; returns false when there is no record to read. */
static bool gather(struct repair *repair, struct gathering *gathering, struct repair_walk *walk)
{
	const struct disk_inode *there = repair_inode_read(repair, gathering->ino);
	if (!there)
		return false;
	const struct disk_inode inode = *there;
	walk->ino = gathering->ino;
	walk->type = BLOCK_DIR_NODE;
	walk->arg = gathering;
	if (inode.format == FORK_INLINE) {
		const struct repair_leaf leaf = {
			.payload = inode.fork, .bytes = inode.fork_bytes, .count = UINT32_MAX, .high = UINT64_MAX};
		walk->leaf(repair, &leaf, gathering);
	} else if (inode.format == FORK_TREE) {
		repair_tree_walk(repair, walk, le64_get(((const struct fork_tree *)inode.fork)->root), inode.fork_level);
	}
	return !repair->fsck.error;
}

/* The figures of a directory with nothing wrong in it. */
static void counts_mend(struct repair *repair, uint64_t ino, uint64_t entries, uint64_t nodes, uint64_t blocks)
{
	const struct disk_inode *there = repair_inode_read(repair, ino);
	if (!there)
		return;
	const uint64_t size = there->format == FORK_TREE ? nodes * FS_BLOCK_SIZE : there->fork_bytes;
	if (le64_get(there->rdev_or_entries) == entries && le64_get(there->blocks) == blocks && le64_get(there->size) == size)
		return;
	struct disk_inode *inode = repair_inode_edit(repair, ino);
	if (!inode)
		return;
	inode->rdev_or_entries = le64_set(entries);
	inode->blocks = le64_set(blocks);
	inode->size = le64_set(size);
}

void repair_directory(struct repair *repair, uint64_t ino, struct fsck_inode *known)
{
	if (!S_ISDIR(known->mode))
		return;
	if (!known->nlink && ino != FS_ROOT_INODE) /* removed while it was open: empty */
		return;
	const uint64_t other_blocks = repair_xattrs(repair, ino);
	struct gathering gathering = {.ino = ino};
	struct repair_walk walk = {.leaf = gather_leaf};
	if (!gather(repair, &gathering, &walk))
		return;
	if (walk.damaged)
		repair_loss(repair, "directory %" PRIu64 ": part of its tree is lost", ino);
	if (!gathering.damaged && !walk.damaged) {
		counts_mend(repair, ino, gathering.directory.count, walk.nodes.count, walk.nodes.count + other_blocks);
		free(gathering.directory.entry);
		free(gathering.directory.names);
		free(walk.nodes.block);
		return;
	}
	struct repair_rebuild *rebuild = repair_rebuild_add(repair, ino);
	if (!rebuild)
		return;
	rebuild->other_blocks = other_blocks;
	rebuild->nodes = walk.nodes;
	rebuild->directory = gathering.directory;
}

/* ---- changing ---- */

/* The entries were judged before. */
static void load_leaf(struct repair *repair, const struct repair_leaf *leaf, void *arg)
{
	struct gathering *gathering = arg;
	for (unsigned at = 0, size; at < leaf->bytes && !repair->fsck.error; at += size) {
		const struct disk_dirent *disk = (const struct disk_dirent *)(leaf->payload + at);
		size = dirent_bytes(disk->name_length);
		entry_keep(repair, &gathering->directory, &(struct repair_entry){.key = le64_get(disk->key),
			.ino = le64_get(disk->ino), .length = disk->name_length, .type = disk->type}, disk->name);
	}
}

static void nodes_list(struct repair *repair, struct repair_rebuild *rebuild, const struct disk_inode *inode)
{
	/* What it takes now is what it will give back: its blocks without the others'. */
	rebuild->other_blocks = le64_get(inode->blocks);
	if (inode->format == FORK_TREE)
		rebuild->other_blocks -= le64_get(inode->size) / FS_BLOCK_SIZE;
}

struct repair_rebuild *repair_directory_load(struct repair *repair, uint64_t ino)
{
	for (struct repair_rebuild *rebuild = repair->rebuilds; rebuild; rebuild = rebuild->next)
		if (rebuild->ino == ino)
			return rebuild;
	struct gathering gathering = {.ino = ino};
	struct repair_walk walk = {.leaf = load_leaf, .again = true};
	if (!gather(repair, &gathering, &walk))
		return NULL;
	struct repair_rebuild *rebuild = repair_rebuild_add(repair, ino);
	const struct disk_inode *inode = rebuild ? repair_inode_read(repair, ino) : NULL;
	if (!inode)
		return NULL;
	nodes_list(repair, rebuild, inode);
	rebuild->nodes = walk.nodes;
	rebuild->directory = gathering.directory;
	return rebuild;
}

struct repair_entry *repair_entry_find(struct repair_rebuild *rebuild, const char *name, size_t length)
{
	struct repair_directory *directory = &rebuild->directory;
	for (size_t i = 0; i < directory->count; i++)
		if (!directory->entry[i].dropped && directory->entry[i].length == length &&
			!memcmp(directory->names + directory->entry[i].name, name, length))
			return &directory->entry[i];
	return NULL;
}

void repair_entry_add(struct repair *repair, struct repair_rebuild *rebuild, const char *name, uint64_t ino, unsigned type)
{
	const struct repair_entry entry = {.ino = ino, .length = (uint8_t)strlen(name), .type = (uint8_t)type, .new_key = true,
		.key = name_hash(repair, name, (unsigned)strlen(name)) << FS_COLLISION_BITS};
	entry_keep(repair, &rebuild->directory, &entry, name);
}

/* ---- writing anew ---- */

static int entry_compare(const void *left, const void *right)
{
	const struct repair_entry *a = left, *b = right;
	if (a->key >> FS_COLLISION_BITS != b->key >> FS_COLLISION_BITS)
		return a->key < b->key ? -1 : 1;
	if (a->new_key != b->new_key) /* those that keep their key come first */
		return a->new_key ? 1 : -1;
	return a->key < b->key ? -1 : a->key > b->key;
}

static int key_compare(const void *left, const void *right)
{
	const struct repair_entry *a = left, *b = right;
	return a->key < b->key ? -1 : a->key > b->key;
}

/* Takes out what was dropped and what repeats, and gives every entry a key of its own. */
static void entries_settle(struct repair *repair, struct repair_rebuild *rebuild)
{
	struct repair_directory *directory = &rebuild->directory;
	size_t kept = 0, group = 0;
	for (size_t i = 0; i < directory->count; i++) {
		struct repair_entry *entry = &directory->entry[i];
		if (entry->new_key)
			entry->key = name_hash(repair, directory->names + entry->name, entry->length) << FS_COLLISION_BITS;
	}
	if (directory->count)
		qsort(directory->entry, directory->count, sizeof(*directory->entry), entry_compare);
	for (size_t i = 0; i < directory->count; i++) {
		struct repair_entry entry = directory->entry[i];
		const uint64_t hash = entry.key >> FS_COLLISION_BITS;
		bool repeats = false;
		if (entry.dropped)
			continue;
		if (kept == group || directory->entry[group].key >> FS_COLLISION_BITS != hash)
			group = kept;
		for (size_t at = group; at < kept; at++) {
			const struct repair_entry *other = &directory->entry[at];
			repeats |= other->length == entry.length &&
				!memcmp(directory->names + other->name, directory->names + entry.name, entry.length);
			/* Sorted: the lowest number that is free comes after those that are taken. */
			if ((entry.new_key || at + 1 == kept) && other->key == entry.key)
				entry.key++;
		}
		if (repeats) {
			struct fsck_inode *target;
			repair_loss(repair, "directory %" PRIu64 ": an entry for inode %" PRIu64 " dropped: it stands there twice",
				rebuild->ino, entry.ino);
			if (fsck_inode_find(&repair->fsck, entry.ino, &target) == FSCK_LOOKUP_USED && target->references)
				target->references--;
			if (S_ISDIR(target->mode))
				target->flags &= (uint8_t)~REPAIR_PLACED;
			continue;
		}
		directory->entry[kept++] = entry;
	}
	directory->count = kept;
	if (kept)
		qsort(directory->entry, kept, sizeof(*directory->entry), key_compare);
}

void repair_decide(struct repair *repair)
{
	for (struct repair_rebuild *rebuild = repair->rebuilds; rebuild; rebuild = rebuild->next) {
		for (size_t i = 0; i < rebuild->directory.count; i++) {
			struct repair_entry *entry = &rebuild->directory.entry[i];
			struct fsck_inode *target;
			if (!entry->undecided || fsck_inode_find(&repair->fsck, entry->ino, &target) != FSCK_LOOKUP_USED)
				continue;
			entry->undecided = false;
			entry->dropped = target->flags & REPAIR_PLACED;
			if (entry->dropped) {
				repair_loss(repair, "directory %" PRIu64 ": an entry for directory %" PRIu64
					" dropped: it belongs elsewhere", rebuild->ino, entry->ino);
				continue;
			}
			target->flags |= REPAIR_PLACED;
			target->references = 1;
			target->parent = rebuild->ino;
		}
		/* What loses its only name here is lost, and found out next. */
		entries_settle(repair, rebuild);
	}
}

static size_t entry_pack(const struct repair_directory *directory, const struct repair_entry *entry, void *out)
{
	struct disk_dirent *disk = out;
	const size_t bytes = dirent_bytes(entry->length);
	memset(disk, 0, bytes);
	disk->key = le64_set(entry->key);
	disk->ino = le64_set(entry->ino);
	disk->name_length = entry->length;
	disk->type = entry->type;
	memcpy(disk->name, directory->names + entry->name, entry->length);
	return bytes;
}

/* Leaves that the entries take, and all bytes. */
static size_t leaves_count(const struct repair_directory *directory, size_t *out_bytes)
{
	size_t leaves = 0, in_leaf = FS_NODE_BYTES;
	*out_bytes = 0;
	for (size_t i = 0; i < directory->count; i++) {
		const size_t bytes = dirent_bytes(directory->entry[i].length);
		if (in_leaf + bytes > FS_NODE_BYTES) {
			leaves++;
			in_leaf = 0;
		}
		in_leaf += bytes;
		*out_bytes += bytes;
	}
	return leaves;
}

void repair_directory_rebuild(struct repair *repair, struct repair_rebuild *rebuild)
{
	const struct repair_directory *directory = &rebuild->directory;
	struct repair_builder builder = {.ino = rebuild->ino, .type = BLOCK_DIR_NODE};
	_Alignas(8) uint8_t record[FS_DIRENT_MAX];
	uint64_t root = 0;
	unsigned level = 0;
	size_t bytes, nodes = 0;
	entries_settle(repair, rebuild);
	const size_t leaves = leaves_count(directory, &bytes);
	const struct disk_inode *there = repair_inode_read(repair, rebuild->ino);
	if (!there)
		return;
	const bool in_fork = bytes <= FS_FORK_BYTES - (size_t)there->xattr_bytes;
	if (!in_fork) {
		nodes = repair_build_nodes(leaves);
		repair_build_begin(repair, &builder, nodes, rebuild);
		for (size_t i = 0; i < directory->count && !repair->fsck.error; i++) {
			const size_t size = entry_pack(directory, &directory->entry[i], record);
			repair_build_record(repair, &builder, directory->entry[i].key, record, size);
		}
		root = repair_build_end(repair, &builder, &level);
	}
	struct disk_inode *inode = repair_inode_edit(repair, rebuild->ino);
	if (!inode)
		return;
	inode->format = in_fork ? FORK_INLINE : FORK_TREE;
	inode->fork_level = (uint8_t)level;
	inode->fork_bytes = (uint8_t)(in_fork ? bytes : 0);
	inode->fork_count = le16_set(0);
	inode->size = le64_set(in_fork ? bytes : nodes * FS_BLOCK_SIZE);
	inode->blocks = le64_set(rebuild->other_blocks + nodes);
	inode->rdev_or_entries = le64_set(directory->count);
	if (!in_fork)
		((struct fork_tree *)inode->fork)->root = le64_set(root);
	for (size_t i = 0, at = 0; in_fork && i < directory->count; i++)
		at += entry_pack(directory, &directory->entry[i], inode->fork + at);
}
