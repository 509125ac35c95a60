/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pass 1: superblocks and state blocks; then each AG's header, maps, orphan blocks and inode blocks, with what hangs from the
 * files in them. What the inode blocks hold is kept for the directories and the names.
 */
#include "fs/scrub.h"

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
		scrub_find_first(scrub, 0, block, "superblock in block %llu: %s%s", (unsigned long long)block,
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
		scrub_find_first(scrub, 0, block, "state block %llu: bad %s", (unsigned long long)block, why);
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

/* Of a chain of one block, as they mostly are. Both stand at one moment: the header is pinned, the block was just read. */
static void chain_count(struct scrub *scrub, uint32_t ag, const struct ag_header *header, const struct orphan_block *orphans)
{
	if (!le64_get(orphans->next) && le32_get(header->orphan_count) != le32_get(orphans->count))
		scrub_find(scrub, 0, le64_get(header->header.block), "AG %u: orphan_count is %u, its orphan block has %u", ag,
			le32_get(header->orphan_count), le32_get(orphans->count));
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
	const bool counting = atomic_load(&scrub->counting);
	for (uint32_t i = 0; block && !error && i < limit; i++) {
		const struct orphan_block *orphans = (const struct orphan_block *)scrub_memory(scrub, SCRUB_OTHER);
		error = scrub_block(scrub, block, BLOCK_ORPHANS, ag, scrub_memory(scrub, SCRUB_OTHER), &why);
		if (!chain_quiet(scrub, ag) || le64_get(*head) != first)
			error = -EAGAIN;
		bool ahead;
		const bool current = cache_peek(owner, block, &ahead) || cache_home_writes(owner) == writes;
		if (!error && counting && !i && current)
			chain_count(scrub, ag, (const struct ag_header *)header->data, orphans);
		if (!error && counting)
			scrub_orphans_seen(scrub, ag, orphans);
		else if (!error)
			error = scrub_claim(scrub, block, 1, false, 0);
		if (!error)
			block = le64_get(orphans->next);
	}
	/* A block that left the chain, and was something else by then. */
	if ((error == -EUCLEAN || error == -EIO) && cache_home_writes(owner) != writes)
		error = -EAGAIN;
	if ((error == -EUCLEAN || error == -EIO) && !counting)
		scrub_find_first(scrub, 0, block, "AG %u: orphan block %llu: bad %s", ag, (unsigned long long)block, why);
	buf_put(owner, header);
	return error;
}

int scrub_chain(struct scrub *scrub, uint32_t ag, bool *out_whole)
{
	*out_whole = false;
	int error = -EAGAIN;
	for (unsigned i = 0; i < RETRIES && error == -EAGAIN; i++) {
		const int ended = i ? scrub_pause(scrub) : 0;
		error = ended ? ended : !chain_quiet(scrub, ag) ? -EAGAIN : chain_walk(scrub, ag);
		if (ended)
			return ended;
	}
	*out_whole = !error;
	return error == -EAGAIN || scrub_goes_on(error) ? 0 : error;
}

static MAY_WAIT int chain_pass(struct scrub *scrub, uint32_t ag)
{
	bool whole;
	const int error = scrub_chain(scrub, ag, &whole);
	scrub->incomplete |= !whole;
	return error;
}

/* ---- inode blocks ---- */

static void inode_block_find(struct scrub *scrub, uint32_t ag, uint64_t block, int error, const char *why)
{
	if (!atomic_load(&scrub->counting)) /* else that was said when it was read before */
		scrub_find_first(scrub, 0, block, "AG %u: inode block %llu: %s%s", ag, (unsigned long long)block,
			error == -EIO ? "cannot be read: " : "bad ", why);
}

/* Through the cache: there it is what it is. */
static MAY_WAIT int inode_block_cached(struct scrub *scrub, uint32_t ag, uint64_t block)
{
	struct buf *buf;
	const int error = buf_get(scrub->owner, block, BLOCK_INODES, ag, &buf);
	if (error)
		return error;
	memcpy(scrub_memory(scrub, SCRUB_INODES), buf->data, FS_BLOCK_SIZE);
	buf_put(scrub->owner, buf);
	return 0;
}

int scrub_inode_block(struct scrub *scrub, uint32_t ag, uint32_t ag_block)
{
	const uint64_t block = ag_first_block(&scrub->fs->super, ag) + ag_block;
	int error = -EBUSY;
	for (unsigned i = 0; i < RETRIES; i++) {
		const uint64_t writes = cache_home_writes(scrub->owner);
		const char *why = NULL;
		bool is = false, ahead;
		error = scrub_block(scrub, block, BLOCK_INODES, ag, scrub_memory(scrub, SCRUB_INODES), &why);
		const int asked = alloc_map_test(scrub->owner, ag, BLOCK_INODE_MAP, ag_block, &is);
		if (asked || !is)
			return asked ? asked : -ESTALE;
		const struct buf *buf = cache_peek(scrub->owner, block, &ahead);
		/* Else it may have been changed, written home and forgotten by the cache, behind what was read. */
		if (!error && (buf || cache_home_writes(scrub->owner) == writes))
			return 0;
		if (!error)
			continue;
		if (error != -EUCLEAN && error != -EIO)
			return error;
		if (ahead || cache_home_writes(scrub->owner) != writes)
			continue; /* it was freed and made again */
		inode_block_find(scrub, ag, block, error, why);
		return error;
	}
	return error ? -EBUSY : inode_block_cached(scrub, ag, block);
}

static bool owns_blocks(const struct disk_inode *inode)
{
	return inode->format == FORK_TREE || (inode->format == FORK_EXTENTS && le16_get(inode->fork_count)) ||
		inode->xattr_bytes || le64_get(inode->xattr_block);
}

/* Whether its bit in the inode free map says what its slots do; that map block is pinned. */
static void free_bit_look(struct scrub *scrub, uint32_t ag, uint32_t ag_block, const struct buf *free_map)
{
	const struct inode_block *block = (const struct inode_block *)scrub_memory(scrub, SCRUB_INODES);
	const uint32_t bit = ag_block % FS_MAP_BITS;
	const bool marked = ((const struct map_block *)free_map->data)->bits[bit / 8] >> bit % 8 & 1;
	const bool full = le32_get(block->used_mask) == (1u << FS_INODES_PER_BLOCK) - 1;
	const uint64_t place = ag_first_block(&scrub->fs->super, ag) + ag_block;
	if (marked == full)
		scrub_find_first(scrub, 0, place, "AG %u: inode block %llu has %s free inode, but the inode free map says otherwise", ag,
			(unsigned long long)place, full ? "no" : "a");
}

/* Reads the block, and takes into account what it holds at this moment. */
static MAY_WAIT int inode_block_take(struct scrub *scrub, uint32_t ag, uint32_t ag_block)
{
	const struct inode_block *block = (const struct inode_block *)scrub_memory(scrub, SCRUB_INODES);
	struct owner *owner = scrub->owner;
	struct buf *free_map;
	/* One that cannot be read was found before. */
	const bool pinned = !alloc_map_get(owner, ag, BLOCK_INODE_FREE_MAP, ag_block / FS_MAP_BITS, &free_map);
	int error = scrub_inode_block(scrub, ag, ag_block);
	if (!error && pinned)
		free_bit_look(scrub, ag, ag_block, free_map);
	if (scrub_in_range(scrub, ag)) {
		scrub->ag[ag].inode_next = ag_block + 1;
		scrub->ag[ag].inodes_unknown |= error && error != -ESTALE;
		if (!error)
			error = scrub_inodes_add(scrub, ag, ag_block, block);
	}
	if (pinned)
		buf_put(owner, free_map);
	return error;
}

static MAY_WAIT int inode_block_pass(struct scrub *scrub, uint32_t ag, uint32_t ag_block)
{
	const struct inode_block *block = (const struct inode_block *)scrub_memory(scrub, SCRUB_INODES);
	const unsigned turn = op_enter(scrub->owner);
	int error = inode_block_take(scrub, ag, ag_block);
	scrub->incomplete |= error && error != -ESTALE;
	if (!error)
		error = scrub_claim(scrub, ag_first_block(&scrub->fs->super, ag) + ag_block, 1, false, 0);
	op_leave(scrub->owner, turn);
	if (error)
		return error == -ESTALE || scrub_goes_on(error) ? 0 : error;
	for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK && !error; slot++) {
		const struct disk_inode *inode = &block->inode[slot];
		if (!(le32_get(block->used_mask) >> slot & 1))
			continue;
		scrub_count(&scrub->stats.inodes, !scrub->round);
		scrub_count(&scrub->stats.done, 1);
		const uint64_t place = ino_make(ag, ag_block, slot);
		const bool root = place == le64_get(scrub->fs->super.root_place);
		scrub->directories += !scrub->round && S_ISDIR(le16_get(inode->mode));
		if (!S_ISDIR(le16_get(inode->mode)) && owns_blocks(inode))
			error = scrub_inode(scrub, root ? FS_ROOT_INODE : place);
	}
	return error;
}

/* The first bit of a map block from @from on that is set, or @end. */
static uint32_t next_bit(const struct map_block *map, uint32_t from, uint32_t end)
{
	uint32_t bit = from;
	while (bit < end && !(map->bits[bit / 8] >> bit % 8 & 1))
		bit += bit % 64 == 0 && !((const le64_t *)map->bits)[bit / 64].raw ? 64 : 1;
	return MIN(bit, end);
}

/* All before is passed: what comes there now is not seen by the walk. No wait since the bits were looked at. */
static void walk_at(struct scrub *scrub, uint32_t ag, uint32_t ag_block)
{
	if (scrub_in_range(scrub, ag) && !atomic_load(&scrub->counting))
		scrub->ag[ag].inode_next = ag_block;
}

/* The block of the map that it is in stays pinned, so that the bits are those of the moment. */
int scrub_inode_blocks(struct scrub *scrub, uint32_t ag, MAY_WAIT int (*look)(struct scrub *scrub, uint32_t ag, uint32_t ag_block))
{
	int error = 0;
	for (uint32_t first = 0; !error && first < ag_block_count(&scrub->fs->super, ag); first += FS_MAP_BITS) {
		struct buf *buf;
		error = alloc_map_get(scrub->owner, ag, BLOCK_INODE_MAP, first / FS_MAP_BITS, &buf);
		for (uint32_t from = 0, bit; !error; from = bit + 1) {
			bit = next_bit((const struct map_block *)buf->data, from, FS_MAP_BITS);
			walk_at(scrub, ag, first + bit);
			if (bit == FS_MAP_BITS)
				break;
			error = look(scrub, ag, first + bit);
			if (!error)
				error = scrub_pause(scrub);
			if (error)
				buf_put(scrub->owner, buf);
		}
		if (!error)
			buf_put(scrub->owner, buf);
	}
	/* The AG may get further map blocks by growing. */
	if (!error)
		walk_at(scrub, ag, UINT32_MAX);
	/* A map that cannot be read was found before. */
	scrub->incomplete |= error != 0;
	if (error && scrub_in_range(scrub, ag))
		scrub->ag[ag].inodes_unknown = true;
	return scrub_goes_on(error) ? 0 : error;
}

int scrub_ag_pass(struct scrub *scrub, uint32_t ag)
{
	const uint64_t header = ag_first_block(&scrub->fs->super, ag);
	int error = scrub_block_locked(scrub, 0, header, BLOCK_AG_HEADER, ag, scrub_memory(scrub, SCRUB_HEADER));
	if (error) {
		scrub->ag[ag].inodes_unknown = true;
		return scrub_goes_on(error) ? 0 : error;
	}
	if (!scrub->round)
		error = maps_pass(scrub, ag);
	/* Orphan blocks may lie in another AG than theirs. */
	if (!error)
		error = chain_pass(scrub, ag);
	return error ? error : scrub_inode_blocks(scrub, ag, inode_block_pass);
}
