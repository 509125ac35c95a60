/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pass 2: directories. Each entry by itself, and against the inode that it names: what pass 1 has seen of that is looked at
 * first, and only where it says something else the inode itself. The directory's lock keeps the entry, and so the inode.
 */
#include "fs/scrub.h"

#include <ctype.h>

static const struct scrub_inodes *inodes_find(const struct scrub_ag *ag, uint32_t ag_block)
{
	uint32_t low = 0, high = ag->inode_blocks;
	while (low < high) {
		const uint32_t middle = low + (high - low) / 2;
		if (ag->inodes[middle].ag_block < ag_block)
			low = middle + 1;
		else
			high = middle;
	}
	return low < ag->inode_blocks && ag->inodes[low].ag_block == ag_block ? &ag->inodes[low] : NULL;
}

static unsigned type_seen(const struct scrub *scrub, uint64_t ino)
{
	const uint64_t place = ino_place(scrub->fs, ino);
	if (ino_ag(place) >= scrub->ag_count)
		return 0;
	const struct scrub_inodes *inodes = inodes_find(&scrub->ag[ino_ag(place)], ino_ag_block(place));
	return inodes ? inodes->types >> (ino_slot(place) * SCRUB_TYPE_BITS) & ((1u << SCRUB_TYPE_BITS) - 1) : 0;
}

struct question {
	struct owner *owner;
	uint64_t ino;
	unsigned type;
};

static MAY_WAIT int question_run(void *arg)
{
	const struct question *question = arg;
	struct inode *inode;
	const int error = inode_get(question->owner, question->ino, &inode);
	if (error)
		return error;
	const bool same = inode_mode(inode) >> 12 == question->type;
	inode_put(inode);
	return same ? 0 : -EUCLEAN;
}

int scrub_inode_is(struct scrub *scrub, uint64_t ino, unsigned type)
{
	struct fs *fs = scrub->fs;
	if (type_seen(scrub, ino) == type)
		return 0;
	struct question question = {.owner = owner_of_ino(fs, ino), .ino = ino, .type = type};
	return reactor_call(question.owner->reactor, question_run, &question);
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

static MAY_WAIT void entry_look(
	struct scrub *scrub, const struct inode *directory, const struct disk_dirent *entry, uint64_t low, uint64_t high)
{
	const uint64_t key = le64_get(entry->key), seed = le64_get(scrub->fs->super.hash_seed);
	if (key < low || key >= high)
		entry_find(scrub, directory, entry, "its key is outside of its parent's range");
	if (key >> FS_COLLISION_BITS != fs_name_hash(seed, entry->name, entry->name_length))
		entry_find(scrub, directory, entry, "its key has not the hash of its name");
	const int error = scrub_inode_is(scrub, le64_get(entry->ino), entry->type);
	if (error == -ESTALE)
		entry_find(scrub, directory, entry, "names no inode in use");
	else if (error == -EUCLEAN)
		entry_find(scrub, directory, entry, "its type is not that of the inode, or that cannot be read");
}

unsigned scrub_entries(struct scrub *scrub, struct inode *directory, const uint8_t *records, unsigned bytes, uint64_t from,
	uint64_t low, uint64_t high)
{
	unsigned count = 0;
	for (unsigned at = 0; at < bytes;) {
		const struct disk_dirent *entry = (const struct disk_dirent *)(records + at);
		at += dirent_bytes(entry->name_length);
		if (le64_get(entry->key) < from)
			continue;
		entry_look(scrub, directory, entry, low, high);
		count++;
	}
	return count;
}

int scrub_directories(struct scrub *scrub, uint32_t number)
{
	const struct scrub_ag *ag = &scrub->ag[number];
	int error = 0;
	for (uint32_t i = 0; i < ag->inode_blocks; i++)
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK && !error; slot++) {
			const uint64_t place = ino_make(number, ag->inodes[i].ag_block, slot);
			if ((ag->inodes[i].types >> (slot * SCRUB_TYPE_BITS) & ((1u << SCRUB_TYPE_BITS) - 1)) != S_IFDIR >> 12)
				continue;
			scrub_count(&scrub->stats.directories, 1);
			scrub_count(&scrub->stats.done, 1);
			error = scrub_inode(scrub, place == le64_get(scrub->fs->super.root_place) ? FS_ROOT_INODE : place);
		}
	return error;
}
