/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pass 2: directories. Each entry by itself, and against the inode that it names: what pass 1 has seen of that is looked at
 * first, and only where it says something else, and for directories, the inode itself. The directory's lock keeps the entry, and so
 * the inode, and the parent that it has. And each entry is counted as a name of its inode.
 */
#include "fs/scrub.h"

#include <ctype.h>

#include "fs/cache.h"

/* Whether entries that name this inode are looked at in this round. */
static bool is_judged(const struct scrub *scrub, uint64_t ino)
{
	const uint64_t ag = ino_place(scrub->fs, ino) >> (FS_INODE_BLOCK_BITS + FS_INODE_SLOT_BITS);
	return ag < scrub->ag_count ? scrub_in_range(scrub, (uint32_t)ag) : !scrub->round;
}

struct question {
	struct owner *owner;
	uint64_t ino;
	unsigned type;                  /* answers */
	uint64_t parent;
};

static MAY_WAIT int question_run(void *arg)
{
	struct question *question = arg;
	const uint64_t block = inode_block_of(question->owner->fs, question->ino);
	struct inode *inode;
	bool ahead;
	const bool cached = cache_peek(question->owner, block, &ahead);
	const int error = inode_get(question->owner, question->ino, &inode);
	if (error)
		return error;
	question->type = inode_mode(inode) >> 12;
	question->parent = le64_get(inode->disk.parent);
	inode_put(inode);
	/* What others use stays in the cache. */
	if (!cached)
		cache_drop(question->owner, block);
	return 0;
}

static MAY_WAIT int ask(struct scrub *scrub, struct question *question)
{
	question->owner = owner_of_ino(scrub->fs, question->ino);
	return reactor_call(question->owner->reactor, question_run, question);
}

int scrub_inode_is(struct scrub *scrub, uint64_t ino, unsigned type)
{
	struct question question = {.ino = ino};
	if (scrub_type_seen(scrub, ino) == type)
		return 0;
	const int error = ask(scrub, &question);
	return error ? error : question.type == type ? 0 : -EUCLEAN;
}

static void entry_find(
	struct scrub *scrub, const struct inode *directory, const struct disk_dirent *entry, const char *what)
{
	char name[64];
	const unsigned length = MIN((unsigned)entry->name_length, (unsigned)sizeof(name) - 1);
	for (unsigned i = 0; i < length; i++)
		name[i] = (char)(isprint((unsigned char)entry->name[i]) ? entry->name[i] : '?');
	name[length] = '\0';
	scrub_find(scrub, directory->ino, 0, "directory entry '%s' (inode %llu): %s", name,
		(unsigned long long)le64_get(entry->ino), what);
}

static MAY_WAIT void target_look(struct scrub *scrub, const struct inode *directory, const struct disk_dirent *entry)
{
	const bool is_directory = entry->type == S_IFDIR >> 12;
	struct question question = {.ino = le64_get(entry->ino)};
	if (!is_directory && scrub_type_seen(scrub, question.ino) == entry->type)
		return;
	const int error = ask(scrub, &question);
	/* What such a directory held is held by nobody now. */
	scrub->incomplete |= error && is_directory;
	if (error == -ESTALE)
		entry_find(scrub, directory, entry, "names no inode in use");
	else if (error == -EUCLEAN || (!error && question.type != entry->type))
		entry_find(scrub, directory, entry, "its type is not that of the inode, or that cannot be read");
	else if (!error && is_directory && question.parent != directory->ino)
		entry_find(scrub, directory, entry, "names a directory whose parent is another one");
}

static MAY_WAIT void entry_look(struct scrub *scrub, const struct inode *directory, const struct disk_dirent *entry,
	const struct scrub_entries *entries)
{
	const uint64_t key = le64_get(entry->key), seed = le64_get(scrub->fs->super.hash_seed);
	if (!scrub->round && (key < entries->low || key >= entries->high))
		entry_find(scrub, directory, entry, "its key is outside of its parent's range");
	if (!scrub->round && key >> FS_COLLISION_BITS != fs_name_hash(seed, entry->name, entry->name_length))
		entry_find(scrub, directory, entry, "its key has not the hash of its name");
	if (!is_judged(scrub, le64_get(entry->ino)))
		return;
	scrub_name_seen(scrub, le64_get(entry->ino));
	target_look(scrub, directory, entry);
}

void scrub_entries(struct scrub *scrub, const struct inode *directory, struct scrub_entries *entries)
{
	for (unsigned at = 0; at < entries->bytes;) {
		const struct disk_dirent *entry = (const struct disk_dirent *)(entries->records + at);
		at += dirent_bytes(entry->name_length);
		if (le64_get(entry->key) < entries->from)
			continue;
		entry_look(scrub, directory, entry, entries);
		entries->count++;
		entries->directories += entry->type == S_IFDIR >> 12;
	}
}

/* What the slots of an inode block hold: as it is known, or from the block. -ESTALE: it is none any more. */
static MAY_WAIT int types_get(struct scrub *scrub, uint32_t number, uint32_t ag_block, uint64_t *out)
{
	const struct scrub_inodes *inodes = scrub_inodes_find(scrub, ino_make(number, ag_block, 0));
	const struct inode_block *block = (const struct inode_block *)scrub_memory(scrub, SCRUB_INODES);
	if (inodes) {
		*out = inodes->types;
		return 0;
	}
	const int error = scrub_inode_block(scrub, number, ag_block);
	*out = 0;
	for (unsigned slot = 0; !error && slot < FS_INODES_PER_BLOCK; slot++)
		*out |= (uint64_t)(le16_get(block->inode[slot].mode) >> 12) << (slot * SCRUB_TYPE_BITS);
	return error;
}

static MAY_WAIT int block_directories(struct scrub *scrub, uint32_t number, uint32_t ag_block)
{
	uint64_t types = 0;
	int error = types_get(scrub, number, ag_block, &types);
	scrub->incomplete |= error && error != -ESTALE;
	if (error)
		return error == -ESTALE || scrub_goes_on(error) ? 0 : error;
	for (unsigned slot = 0; types && slot < FS_INODES_PER_BLOCK && !error; slot++, types >>= SCRUB_TYPE_BITS) {
		const uint64_t place = ino_make(number, ag_block, slot);
		if ((types & ((1u << SCRUB_TYPE_BITS) - 1)) != S_IFDIR >> 12)
			continue;
		scrub_count(&scrub->stats.done, 1);
		if (!scrub->round)
			scrub_count(&scrub->stats.directories, 1);
		error = scrub_inode(scrub, place == le64_get(scrub->fs->super.root_place) ? FS_ROOT_INODE : place);
	}
	return error;
}

int scrub_directories(struct scrub *scrub, uint32_t number)
{
	return scrub_inode_blocks(scrub, number, block_directories);
}
