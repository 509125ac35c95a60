/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pass 1: superblocks and state blocks; then each AG's header, maps, orphan blocks and inode blocks, with what hangs from the
 * files in them. What the inode blocks hold is kept for the directories.
 */
#include "fs/scrub.h"

#include <stdlib.h>

#include "fs/alloc_internal.h"
#include "fs/cache.h"
#include "fs/journal_internal.h"
#include "fs/op.h"

enum { RETRIES = 8 };

/* ---- superblocks and state, on owner 0 ---- */

/* While it grows, the copies and what is in memory change one after the other. */
static MAY_WAIT int super_at(struct scrub *scrub, uint64_t block)
{
	const uint64_t size = le64_get(scrub->fs->super.block_count);
	const char *why = NULL;
	if (scrub->fs->growing)
		return 0;
	const int error = scrub_block(scrub, block, BLOCK_SUPER, 0, scrub_memory(scrub, SCRUB_OTHER), &why);
	if (!scrub_goes_on(error))
		return error;
	if (why && !scrub->fs->growing && le64_get(scrub->fs->super.block_count) == size)
		scrub_find(scrub, 0, block, "superblock in block %llu: %s%s", (unsigned long long)block,
			error == -EIO ? "cannot be read: " : "bad ", why);
	return 0;
}

/* The one of that generation, if it is still what was written last when it has been read. */
static MAY_WAIT int state_at(struct scrub *scrub, uint64_t generation)
{
	const struct journal *journal = scrub->fs->journal;
	const uint64_t newest = journal->state_generation, block = generation & 1 ? FS_STATE_BLOCK_B : FS_STATE_BLOCK_A;
	const uint8_t *into = scrub_memory(scrub, SCRUB_OTHER);
	if (le64_get(journal->state.generation) != newest) /* being written */
		return 0;
	const int error = bdev_read(scrub->owner->channel, (void *)into, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
	scrub->bytes += FS_BLOCK_SIZE;
	scrub_count(&scrub->stats.blocks, 1);
	if (error == -ENODEV)
		return error;
	const char *why = error ? strerror(-error) : state_verify(&scrub->fs->super, (const struct fs_state *)into, block);
	if (!why && le64_get(((const struct fs_state *)into)->generation) != generation)
		why = "generation";
	if (why && journal->state_generation == newest && le64_get(journal->state.generation) == newest)
		scrub_find(scrub, 0, block, "state block %llu: bad %s", (unsigned long long)block, why);
	return 0;
}

int scrub_supers(struct scrub *scrub)
{
	const struct fs *fs = scrub->fs;
	int error = super_at(scrub, FS_SUPER_BLOCK);
	for (uint64_t ag = 1; ag < scrub->ag_count && !error; ag <<= 1)
		error = super_at(scrub, ag_first_block(&fs->super, (uint32_t)ag) + FS_AG_SUPER_COPY);
	if (!error)
		error = super_at(scrub, le64_get(fs->super.block_count) - 1);
	const uint64_t generation = fs->journal->state_generation;
	if (!error)
		error = state_at(scrub, generation);
	/* The older one may have been torn by a power cut, until the first write of this mount. */
	if (!error && !fs_read_only(fs) && fs->journal->state_generation == generation && generation > 1)
		error = state_at(scrub, generation - 1);
	return error;
}

/* ---- header and maps ---- */

static MAY_WAIT int maps_pass(struct scrub *scrub, uint32_t ag)
{
	const struct fs_super *super = &scrub->fs->super;
	const struct ag_header *header = (const struct ag_header *)scrub_memory(scrub, SCRUB_HEADER);
	const uint64_t ready[] = {
		le64_get(header->block_map_ready), le64_get(header->inode_map_ready), le64_get(header->inode_free_map_ready)};
	const uint32_t map_blocks = le32_get(super->map_blocks);
	int error = 0;
	for (unsigned i = 0; i < ARRAY_SIZE(ready) * map_blocks && !error; i++) {
		if (!(ready[i / map_blocks] >> i % map_blocks & 1))
			continue;
		error = scrub_block_locked(scrub, 0, ag_first_block(super, ag) + FS_AG_MAPS_FIRST + i,
			(enum block_type)(BLOCK_BLOCK_MAP + i / map_blocks), ag, scrub_memory(scrub, SCRUB_OTHER));
		if (!error || scrub_goes_on(error))
			error = scrub_pause(scrub);
	}
	return error;
}

/* ---- orphan blocks ---- */

static bool chain_quiet(const struct scrub *scrub, uint32_t ag)
{
	return !inode_ag_state(scrub->owner->inodes, ag)->chain_busy;
}

/* One walk. -EAGAIN: the chain was changed meanwhile. */
static MAY_WAIT int chain_walk(struct scrub *scrub, uint32_t ag)
{
	const uint64_t head_place = ag_first_block(&scrub->fs->super, ag);
	struct owner *owner = scrub->owner;
	struct buf *header;
	int error = buf_get(owner, head_place, BLOCK_AG_HEADER, ag, &header);
	if (error)
		return error;
	const le64_t *head = &((const struct ag_header *)header->data)->orphan_head;
	const uint64_t first = le64_get(*head), writes = cache_home_writes(owner);
	const uint32_t limit = ag_block_count(&scrub->fs->super, ag);
	uint64_t block = first;
	const char *why = NULL;
	for (uint32_t i = 0; block && !error && i < limit; i++) {
		uint8_t *into = scrub_memory(scrub, SCRUB_OTHER);
		error = scrub_block(scrub, block, BLOCK_ORPHANS, ag, into, &why);
		if (!chain_quiet(scrub, ag) || le64_get(*head) != first)
			error = -EAGAIN;
		if (!error)
			error = scrub_claim(scrub, block, 1, false, 0);
		if (!error)
			block = le64_get(((const struct orphan_block *)into)->next);
	}
	/* A block that left the chain, and was something else by then. */
	if ((error == -EUCLEAN || error == -EIO) && cache_home_writes(owner) != writes)
		error = -EAGAIN;
	if (error == -EUCLEAN || error == -EIO)
		scrub_find(scrub, 0, block, "AG %u: orphan block %llu: bad %s", ag, (unsigned long long)block, why);
	buf_put(owner, header);
	return error;
}

static MAY_WAIT int chain_pass(struct scrub *scrub, uint32_t ag)
{
	int error = -EAGAIN;
	for (unsigned i = 0; i < RETRIES && error == -EAGAIN; i++) {
		const int ended = i ? scrub_pause(scrub) : 0;
		error = ended ? ended : !chain_quiet(scrub, ag) ? -EAGAIN : chain_walk(scrub, ag);
		if (ended)
			return ended;
	}
	scrub->incomplete |= error != 0;
	return error == -EAGAIN || scrub_goes_on(error) ? 0 : error;
}

/* ---- inode blocks ---- */

static int types_add(struct scrub_ag *ag, uint32_t ag_block, const struct inode_block *block)
{
	if (ag->inode_blocks == ag->capacity) {
		const uint32_t capacity = ag->capacity ? 2 * ag->capacity : 16;
		struct scrub_inodes *inodes = realloc(ag->inodes, capacity * sizeof(*inodes));
		if (!inodes)
			return -ENOMEM;
		ag->inodes = inodes;
		ag->capacity = capacity;
	}
	struct scrub_inodes *entry = &ag->inodes[ag->inode_blocks++];
	*entry = (struct scrub_inodes){.ag_block = ag_block};
	for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++)
		if (le32_get(block->used_mask) >> slot & 1)
			entry->types |= (uint64_t)(le16_get(block->inode[slot].mode) >> 12) << (slot * SCRUB_TYPE_BITS);
	return 0;
}

/* The block, if the inode map still says that it is one. -ESTALE: it does not. */
static MAY_WAIT int inode_block_read(struct scrub *scrub, uint32_t ag, uint32_t ag_block)
{
	const uint64_t block = ag_first_block(&scrub->fs->super, ag) + ag_block;
	for (unsigned i = 0; i < RETRIES; i++) {
		const uint64_t writes = cache_home_writes(scrub->owner);
		const char *why = NULL;
		bool is = false;
		const int error = scrub_block(scrub, block, BLOCK_INODES, ag, scrub_memory(scrub, SCRUB_INODES), &why);
		const int asked = alloc_map_test(scrub->owner, ag, BLOCK_INODE_MAP, ag_block, &is);
		if (asked || !is)
			return asked ? asked : -ESTALE;
		if (!error || (error != -EUCLEAN && error != -EIO))
			return error;
		bool ahead;
		cache_peek(scrub->owner, block, &ahead);
		if (ahead || cache_home_writes(scrub->owner) != writes)
			continue; /* it was freed and made again */
		scrub_find(scrub, 0, block, "AG %u: inode block %llu: %s%s", ag, (unsigned long long)block,
			error == -EIO ? "cannot be read: " : "bad ", why);
		return error;
	}
	return -EBUSY;
}

static bool owns_blocks(const struct disk_inode *inode)
{
	return inode->format == FORK_TREE || (inode->format == FORK_EXTENTS && le16_get(inode->fork_count)) ||
		inode->xattr_bytes || le64_get(inode->xattr_block);
}

static MAY_WAIT int inode_block_pass(struct scrub *scrub, uint32_t ag, uint32_t ag_block)
{
	const struct inode_block *block = (const struct inode_block *)scrub_memory(scrub, SCRUB_INODES);
	const unsigned turn = op_enter(scrub->owner);
	int error = inode_block_read(scrub, ag, ag_block);
	scrub->incomplete |= error && error != -ESTALE;
	if (!error)
		error = scrub_claim(scrub, ag_first_block(&scrub->fs->super, ag) + ag_block, 1, false, 0);
	if (!error)
		error = types_add(&scrub->ag[ag], ag_block, block);
	op_leave(scrub->owner, turn);
	if (error)
		return error == -ESTALE || scrub_goes_on(error) ? 0 : error;
	for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK && !error; slot++) {
		const struct disk_inode *inode = &block->inode[slot];
		if (!(le32_get(block->used_mask) >> slot & 1))
			continue;
		scrub_count(&scrub->stats.inodes, 1);
		scrub_count(&scrub->stats.done, 1);
		const uint64_t place = ino_make(ag, ag_block, slot);
		const bool root = place == le64_get(scrub->fs->super.root_place);
		if (!S_ISDIR(le16_get(inode->mode)) && owns_blocks(inode))
			error = scrub_inode(scrub, root ? FS_ROOT_INODE : place);
	}
	return error;
}

/* The next bit of the inode map. */
static MAY_WAIT int inode_blocks_pass(struct scrub *scrub, uint32_t ag)
{
	int error = 0;
	for (uint32_t from = 0, at; !error; from = at + 1) {
		error = alloc_map_next(scrub->owner, ag, BLOCK_INODE_MAP, from, &at);
		if (error || at == ALLOC_MAP_NONE)
			break;
		error = inode_block_pass(scrub, ag, at);
		if (!error)
			error = scrub_pause(scrub);
	}
	/* A map that cannot be read was found before. */
	scrub->incomplete |= error != 0;
	return scrub_goes_on(error) ? 0 : error;
}

int scrub_ag_pass(struct scrub *scrub, uint32_t ag)
{
	const uint64_t header = ag_first_block(&scrub->fs->super, ag);
	int error = scrub_block_locked(scrub, 0, header, BLOCK_AG_HEADER, ag, scrub_memory(scrub, SCRUB_HEADER));
	if (error)
		return scrub_goes_on(error) ? 0 : error;
	error = maps_pass(scrub, ag);
	if (!error)
		error = chain_pass(scrub, ag);
	return error ? error : inode_blocks_pass(scrub, ag);
}
