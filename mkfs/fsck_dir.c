/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Directories: each entry by itself, against its neighbours and its parent's range of keys, and against the inode that
 * it names, where it is counted. All inodes are known by now; the inode blocks that hold directories are read again.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "mkfs/fsck_internal.h"

/* The names of one hash, which stand next to each other: among them a duplicate would be. Almost always one. */
struct same_hash {
	uint64_t hash;
	struct { uint64_t full; uint32_t place; uint8_t length; } *entry;
	size_t count, capacity;
	char *names;
	size_t names_used, names_size;
};

struct directory {
	uint64_t ino;
	struct fsck_inode *known;
	uint64_t entries;
	uint64_t next_key;              /* least key that the next entry may have */
	struct same_hash same;
};

/* A name for people: what could disturb a terminal or a log is replaced. */
static const char *name_print(const struct disk_dirent *entry, char *text)
{
	for (unsigned i = 0; i < entry->name_length; i++)
		text[i] = (char)(isprint((unsigned char)entry->name[i]) ? entry->name[i] : '?');
	text[entry->name_length] = 0;
	return text;
}

static void entry_wrong(struct fsck *fsck, const struct directory *directory, const struct disk_dirent *entry,
	const char *what)
{
	char text[FS_NAME_MAX + 1];
	fsck_find(fsck, "directory %" PRIu64 ": entry '%s' (inode %" PRIu64 "): %s", directory->ino,
		name_print(entry, text), le64_get(entry->ino), what);
}

static bool same_reserve(struct fsck *fsck, struct same_hash *same, size_t length)
{
	if (same->count == same->capacity) {
		size_t capacity = same->capacity ? 2 * same->capacity : 4;
		void *entry = realloc(same->entry, capacity * sizeof(*same->entry));
		same->entry = entry ? entry : same->entry;
		same->capacity = entry ? capacity : same->capacity;
		fsck->error = entry ? 0 : -ENOMEM;
	}
	if (!fsck->error && same->names_used + length > same->names_size) {
		size_t size = 2 * same->names_size + 4 * FS_NAME_MAX;
		char *names = realloc(same->names, size);
		same->names = names ? names : same->names;
		same->names_size = names ? size : same->names_size;
		fsck->error = names ? 0 : -ENOMEM;
	}
	return !fsck->error;
}

/* Whether the name stood before among those of the same hash; remembers it. At most 2^16 of one hash have a key. */
static bool name_repeats(struct fsck *fsck, struct same_hash *same, const struct disk_dirent *entry, uint64_t full,
	uint64_t hash)
{
	if (hash != same->hash)
		same->count = same->names_used = 0;
	same->hash = hash;
	for (size_t i = 0; i < same->count; i++)
		if (same->entry[i].full == full && same->entry[i].length == entry->name_length &&
		    !memcmp(same->names + same->entry[i].place, entry->name, entry->name_length))
			return true;
	if (!same_reserve(fsck, same, entry->name_length))
		return false;
	same->entry[same->count].full = full;
	same->entry[same->count].place = (uint32_t)same->names_used;
	same->entry[same->count++].length = entry->name_length;
	memcpy(same->names + same->names_used, entry->name, entry->name_length);
	same->names_used += entry->name_length;
	return false;
}

static void entry_name(struct fsck *fsck, struct directory *directory, const struct disk_dirent *entry)
{
	const char *name = entry->name;
	unsigned length = entry->name_length;
	if (memchr(name, 0, length) || memchr(name, '/', length) || (name[0] == '.' && length == 1) ||
	    (name[0] == '.' && length == 2 && name[1] == '.'))
		entry_wrong(fsck, directory, entry, "this is no name");
	uint64_t full = XXH3_64bits_withSeed(name, length, fsck->hash_seed);
	uint64_t hash = full >> 17 ? full >> 17 : 1;
	if (hash != le64_get(entry->key) >> FS_COLLISION_BITS)
		entry_wrong(fsck, directory, entry, "its key has not the hash of its name");
	else if (name_repeats(fsck, &directory->same, entry, full, hash))
		entry_wrong(fsck, directory, entry, "the name occurs twice");
}

static void entry_target(struct fsck *fsck, struct directory *directory, const struct disk_dirent *entry)
{
	uint64_t ino = le64_get(entry->ino);
	struct fsck_inode *target;
	if (ino == FS_ROOT_INODE || ino == fsck->root_place) {
		entry_wrong(fsck, directory, entry, "names the root directory");
		return;
	}
	enum fsck_lookup found = fsck_inode_find(fsck, ino, &target);
	if (found == FSCK_LOOKUP_UNKNOWN)
		return;
	if (found != FSCK_LOOKUP_USED) {
		entry_wrong(fsck, directory, entry,
			found == FSCK_LOOKUP_FREE ? "names a free inode" : "names no place of an inode");
		return;
	}
	__atomic_fetch_add(&target->references, 1, __ATOMIC_RELAXED);
	if (entry->type != (target->mode & S_IFMT) >> 12)
		entry_wrong(fsck, directory, entry, "its type is not that of the inode");
	if (!S_ISDIR(target->mode))
		return;
	directory->known->subdirectories++;
	if (target->parent != directory->ino)
		entry_wrong(fsck, directory, entry, "the directory names another parent");
}

static void entries_leaf(struct fsck *fsck, const struct fsck_leaf *leaf, void *arg)
{
	struct directory *directory = arg;
	unsigned count = 0;
	for (unsigned at = 0, size; at < leaf->bytes && !fsck->error; at += size, count++) {
		const struct disk_dirent *entry = (const struct disk_dirent *)(leaf->payload + at);
		unsigned left = leaf->bytes - at;
		size = left < FS_DIRENT_FIXED || !entry->name_length ? UINT32_MAX : dirent_bytes(entry->name_length);
		if (size > left) {
			fsck_find(fsck, "directory %" PRIu64 ": malformed entry", directory->ino);
			return;
		}
		uint64_t key = le64_get(entry->key);
		if (key < directory->next_key)
			entry_wrong(fsck, directory, entry, "its key is out of order");
		if (key < leaf->low || key >= leaf->high)
			entry_wrong(fsck, directory, entry, "its key is outside of its parent's range");
		if (!fsck_is_zero(entry->name + entry->name_length, size - FS_DIRENT_FIXED - entry->name_length))
			entry_wrong(fsck, directory, entry, "padding is not zero");
		directory->next_key = MAX(directory->next_key, key + 1);
		directory->entries++;
		entry_name(fsck, directory, entry);
		entry_target(fsck, directory, entry);
	}
	if (leaf->count != UINT32_MAX && leaf->count != count)
		fsck_find(fsck, "directory %" PRIu64 ": a node says %u entries, it has %u", directory->ino, leaf->count,
			count);
}

/* Walks the entries; returns the number of blocks of the tree. */
static uint64_t entries_walk(struct fsck *fsck, struct directory *directory, const struct disk_inode *inode)
{
	if (inode->format == FORK_INLINE) {
		const struct fsck_leaf leaf = {
			.payload = inode->fork, .bytes = inode->fork_bytes, .count = UINT32_MAX, .high = UINT64_MAX};
		entries_leaf(fsck, &leaf, directory);
	}
	if (inode->format != FORK_TREE)
		return 0;
	struct fsck_walk walk = {.ino = directory->ino, .type = BLOCK_DIR_NODE, .leaf = entries_leaf, .arg = directory};
	fsck_tree_walk(fsck, &walk, le64_get(((const struct fork_tree *)inode->fork)->root), inode->fork_level);
	return walk.nodes;
}

static void directory_check(struct fsck *fsck, struct fsck_inode *known, const struct disk_inode *inode, uint64_t ino)
{
	struct directory directory = {.ino = ino, .known = known};
	uint64_t findings = fsck->out->findings;
	if (!fsck_fork_fits(inode))
		return;
	uint64_t nodes = entries_walk(fsck, &directory, inode);
	uint64_t blocks = nodes + (fsck->error ? 0 : fsck_xattrs(fsck, inode, ino));
	free(directory.same.entry);
	free(directory.same.names);
	if (fsck->error || findings != fsck->out->findings) /* counts follow from what was reported */
		return;
	if (le64_get(inode->rdev_or_entries) != directory.entries)
		fsck_find(fsck, "directory %" PRIu64 ": entries is %" PRIu64 ", it has %" PRIu64, ino,
			le64_get(inode->rdev_or_entries), directory.entries);
	if (inode->format == FORK_TREE && le64_get(inode->size) != nodes * FS_BLOCK_SIZE)
		fsck_find(fsck, "directory %" PRIu64 ": size is %" PRIu64 ", its tree has %" PRIu64 " blocks", ino,
			le64_get(inode->size), nodes);
	if (le64_get(inode->blocks) != blocks)
		fsck_find(fsck, "inode %" PRIu64 ": blocks is %" PRIu64 ", it has %" PRIu64, ino,
			le64_get(inode->blocks), blocks);
}

static void block_directories(struct fsck *fsck, const struct fsck_ag *ag, struct fsck_inode_block *entry)
{
	bool replayed;
	const struct inode_block *block = fsck_read(fsck, ag->first + entry->ag_block, fsck->inodes, &replayed);
	for (unsigned slot = 0; block && slot < FS_INODES_PER_BLOCK && !fsck->error; slot++) {
		struct fsck_inode *known = &entry->inode[slot];
		if (!(entry->used_mask >> slot & 1) || !S_ISDIR(known->mode))
			continue;
		uint64_t ino = fsck_inode_number(fsck, ino_make(ag->number, entry->ag_block, slot));
		directory_check(fsck, known, &block->inode[slot], ino);
	}
}

void fsck_directories(struct fsck *fsck, struct fsck_ag *ag)
{
	for (uint32_t i = 0; i < ag->table_count && !fsck->error; i++)
		if (ag->table[i].directories)
			block_directories(fsck, ag, &ag->table[i]);
}
