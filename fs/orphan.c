/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The orphan chain of an AG, as changes of a transaction: what must be finished after a crash stands in it. Entries
 * enter the head block of the chain; when it is full, a new block becomes the head. A block that becomes empty leaves
 * the chain, unless it is the only one (unlinking files one after the other would otherwise allocate and free it every
 * time).
 *
 * Several transactions may be preparing changes of one chain. Places for new entries are promised by a count
 * (chain_reserved), counted against the head block whichever block they are for. The chain itself is changed by one
 * transaction at a time (chain_busy, from prepare to apply or cancel); it waits for I/O only, so waiting for it with
 * inode locks held is no danger. A block that is about to leave (chain_removing) takes no entries.
 *
 * An inode in memory knows where its entry is. An owner has a table for those that left memory, and one for the way back
 * from a block to the one in front of it; so freeing any number of files takes a few steps each.
 */
#include "fs/inode_internal.h"

static struct orphan_change *orphan_of(struct change *change)
{
	return CONTAINER_OF(change, struct orphan_change, change);
}
static struct orphan_block *block_of(const struct buf *buf) { return (struct orphan_block *)buf->data; }
static struct ag_header *header_of(const struct buf *buf) { return (struct ag_header *)buf->data; }

static struct ag_inodes *state_of(const struct orphan_change *orphan)
{
	const struct owner *owner = orphan->inode->owner;
	return inode_ag_state(owner->inodes, inode_ag(owner->fs, orphan->inode->ino));
}

static MAY_WAIT void chain_lock(struct ag_inodes *state)
{
	while (state->chain_busy)
		fiber_cond_wait(&state->idle, "the orphan chain");
	state->chain_busy = true;
}

static void chain_unlock(struct ag_inodes *state)
{
	state->chain_busy = false;
	state->chain_removing = 0;
	fiber_cond_broadcast(&state->idle);
}

/* ---- prepare ---- */

static MAY_WAIT int pin_head(struct tx_part *part, struct orphan_change *orphan, uint64_t head, bool *out_room)
{
	const struct ag_inodes *state = state_of(orphan);
	const struct ag_header *header = header_of(orphan->header);
	const int error = tx_pin(part, head, BLOCK_ORPHANS, le32_get(header->ag), &orphan->block);
	/* Reading it may have taken a while: only the head counts. */
	*out_room = false;
	if (head != le64_get(header->orphan_head) || head == state->chain_removing)
		return 0;
	if (!error)
		*out_room = le32_get(block_of(orphan->block)->count) + state->chain_reserved < FS_ORPHANS_PER_BLOCK;
	return error;
}

static MAY_WAIT int new_head(struct tx_part *part, struct orphan_change *orphan)
{
	const uint32_t ag = le32_get(header_of(orphan->header)->ag);
	struct run run;
	int error = tx_alloc_own(part, orphan->header->block, 1, 1, &run);
	if (!error)
		error = tx_pin_new(part, run.block, BLOCK_ORPHANS, ag, &orphan->block);
	return error;
}

static MAY_WAIT int add_prepare(struct tx_part *part, struct orphan_change *orphan)
{
	struct ag_inodes *state = state_of(orphan);
	for (;;) {
		const uint64_t head = le64_get(header_of(orphan->header)->orphan_head);
		if (head && head != state->chain_removing) {
			bool room;
			const int error = pin_head(part, orphan, head, &room);
			if (error)
				return error;
			if (room) {
				state->chain_reserved++;
				return 0;
			}
			if (head != le64_get(header_of(orphan->header)->orphan_head) || head == state->chain_removing)
				continue;
		}
		if (state->chain_busy) {
			fiber_cond_wait(&state->idle, "the orphan chain");
			continue;
		}
		state->chain_busy = true;
		orphan->restructures = true;
		const int error = new_head(part, orphan);
		if (error)
			chain_unlock(state);
		return error;
	}
}

/* ---- where entries and blocks are ---- */

static uint64_t first_block_of(const struct owner *owner, uint64_t ino)
{
	return ag_first_block(&owner->fs->super, inode_ag(owner->fs, ino));
}

void orphan_evicted(const struct inode *inode)
{
	const struct owner *owner = inode->owner;
	_Static_assert(FS_ORPHANS_PER_BLOCK <= UINT16_MAX, "16 bits for an index");
	if (!inode->orphan || !inode->orphan_block)
		return;
	const uint64_t block = inode->orphan_block - first_block_of(owner, inode->ino);
	if (lookup_table_set(&owner->inodes->orphan_places, inode->ino, block << 16 | inode->orphan_index))
		return; /* it will be searched for */
}

void orphan_loaded(struct inode *inode)
{
	const struct owner *owner = inode->owner;
	struct lookup_table *places = &owner->inodes->orphan_places;
	struct lookup_entry *place = places->used ? lookup_table_find(places, inode->ino) : NULL;
	if (!place)
		return;
	if (inode->orphan) {
		inode->orphan_block = first_block_of(owner, inode->ino) + (place->count >> 16);
		inode->orphan_index = place->count & UINT16_MAX;
	}
	lookup_table_remove(places, place);
}

void orphan_chain_before(struct inode_table *table, uint64_t block, uint64_t before)
{
	if (before && !lookup_table_set(&table->chain_before, block, before))
		return;
	struct lookup_entry *entry = lookup_table_find(&table->chain_before, block);
	if (entry)
		lookup_table_remove(&table->chain_before, entry);
}

/* Where the inode's entry is: searched in the whole chain, which is held still meanwhile. */
static MAY_WAIT int locate(struct owner *owner, struct orphan_change *orphan)
{
	struct ag_inodes *state = state_of(orphan);
	struct inode *inode = orphan->inode;
	const uint32_t ag = le32_get(header_of(orphan->header)->ag);
	chain_lock(state);
	int error = 0;
	uint64_t block = le64_get(header_of(orphan->header)->orphan_head);
	for (uint32_t steps = ag_block_count(&owner->fs->super, ag); block && steps && !inode->orphan_block; steps--) {
		struct buf *buf;
		owner->inodes->chain_steps++;
		error = buf_get(owner, block, BLOCK_ORPHANS, ag, &buf);
		if (error)
			break;
		for (uint32_t i = 0; i < FS_ORPHANS_PER_BLOCK && !inode->orphan_block; i++)
			if (le64_get(block_of(buf)->inode[i]) == inode->ino) {
				inode->orphan_block = block;
				inode->orphan_index = i;
			}
		block = le64_get(block_of(buf)->next);
		buf_put(owner, buf);
	}
	chain_unlock(state);
	if (!error && !inode->orphan_block)
		error = fs_corrupt(
			owner->fs, orphan->header->block, "orphan chain: an inode without links is not in it");
	return error;
}

static bool leaves_empty(const struct orphan_change *orphan)
{
	const struct orphan_block *block = block_of(orphan->block);
	const bool only_one =
		le64_get(header_of(orphan->header)->orphan_head) == orphan->block->block && !le64_get(block->next);
	return le32_get(block->count) == 1 && !only_one && !state_of(orphan)->chain_reserved;
}

/* Pins the block whose next is ours; none when ours is the head. */
static MAY_WAIT int pin_before(struct tx_part *part, struct orphan_change *orphan)
{
	const uint32_t ag = le32_get(header_of(orphan->header)->ag);
	uint64_t block = le64_get(header_of(orphan->header)->orphan_head);
	orphan->before = NULL;
	if (block == orphan->block->block)
		return 0;
	const struct lookup_entry *known = lookup_table_find(&part->owner->inodes->chain_before, orphan->block->block);
	if (known)
		block = known->count;
	for (uint32_t steps = ag_block_count(&part->tx->fs->super, ag); block && steps; steps--) {
		struct buf *buf;
		part->owner->inodes->chain_steps++;
		const int error = buf_get(part->owner, block, BLOCK_ORPHANS, ag, &buf);
		if (error)
			return error;
		const uint64_t next = le64_get(block_of(buf)->next);
		buf_put(part->owner, buf);
		if (next == orphan->block->block)
			return tx_pin(part, block, BLOCK_ORPHANS, ag, &orphan->before);
		block = next;
	}
	return fs_corrupt(part->tx->fs, orphan->block->block, "orphan chain: a block is not in it");
}

static MAY_WAIT int remove_block_prepare(struct tx_part *part, struct orphan_change *orphan)
{
	struct ag_inodes *state = state_of(orphan);
	chain_lock(state);
	if (!leaves_empty(orphan)) {
		chain_unlock(state);
		return 0;
	}
	state->chain_removing = orphan->block->block;
	int error = pin_before(part, orphan);
	if (!error)
		error = tx_free(part, (struct run){.block = orphan->block->block, .count = 1}, RUN_METADATA);
	if (error)
		chain_unlock(state);
	else
		orphan->restructures = true;
	return error;
}

static MAY_WAIT int remove_prepare(struct tx_part *part, struct orphan_change *orphan)
{
	struct inode *inode = orphan->inode;
	int error = inode->orphan_block ? 0 : locate(part->owner, orphan);
	if (!error)
		error = tx_pin(part, inode->orphan_block, BLOCK_ORPHANS, le32_get(header_of(orphan->header)->ag),
			&orphan->block);
	if (error)
		return error;
	if (le64_get(block_of(orphan->block)->inode[inode->orphan_index]) != inode->ino)
		return fs_corrupt(part->tx->fs, inode->orphan_block, "orphan entry");
	return leaves_empty(orphan) ? remove_block_prepare(part, orphan) : 0;
}

static MAY_WAIT int orphan_prepare(struct tx_part *part, struct change *change)
{
	struct orphan_change *orphan = orphan_of(change);
	orphan->restructures = false;
	if (!orphan->add && !orphan->inode->orphan)
		return 0;
	const int error = alloc_pin_header(part, inode_ag(part->tx->fs, orphan->inode->ino), &orphan->header);
	if (error)
		return error;
	return orphan->add ? add_prepare(part, orphan) : remove_prepare(part, orphan);
}

/* ---- apply ---- */

static void header_count(struct tx_part *part, struct orphan_change *orphan, int delta)
{
	struct ag_header *header = header_of(orphan->header);
	header->orphan_count = le32_set(le32_get(header->orphan_count) + (uint32_t)delta);
	const unsigned first = offsetof(struct ag_header, orphan_count);
	tx_dirty(part, orphan->header, first, offsetof(struct ag_header, block_map_ready) - first);
}

static void block_set(struct tx_part *part, struct orphan_change *orphan, uint32_t index, uint64_t ino)
{
	struct orphan_block *block = block_of(orphan->block);
	block->inode[index] = le64_set(ino);
	block->count = le32_set(le32_get(block->count) + (ino ? 1 : -1));
	tx_dirty(part, orphan->block, offsetof(struct orphan_block, inode) + index * sizeof(le64_t), sizeof(le64_t));
	tx_dirty(part, orphan->block, offsetof(struct orphan_block, count), sizeof(block->count));
}

/* An inode without links is recognised by that when it is loaded again; one with links must not leave memory. */
void orphan_hold(struct inode *inode)
{
	if (!le32_get(inode->disk.nlink) || inode->orphan_ref)
		return;
	inode->orphan_ref = true;
	inode_ref(inode);
}

static void add_apply(struct tx_part *part, struct orphan_change *orphan)
{
	struct inode *inode = orphan->inode;
	struct orphan_block *block = block_of(orphan->block);
	uint32_t index = 0;
	while (index < FS_ORPHANS_PER_BLOCK && le64_get(block->inode[index]))
		index++;
	assert(index < FS_ORPHANS_PER_BLOCK && "promised in prepare");
	block_set(part, orphan, index, inode->ino);
	if (orphan->restructures) {
		block->next = header_of(orphan->header)->orphan_head;
		if (le64_get(block->next))
			orphan_chain_before(part->owner->inodes, le64_get(block->next), orphan->block->block);
		header_of(orphan->header)->orphan_head = le64_set(orphan->block->block);
		tx_dirty(part, orphan->block, 0, FS_BLOCK_SIZE);
		chain_unlock(state_of(orphan));
	} else {
		state_of(orphan)->chain_reserved--;
	}
	header_count(part, orphan, 1);
	part->owner->inodes->chained++;
	inode->orphan = true;
	inode->orphan_block = orphan->block->block;
	inode->orphan_index = index;
	orphan_hold(inode);
}

static void remove_apply(struct tx_part *part, struct orphan_change *orphan)
{
	struct inode *inode = orphan->inode;
	if (!inode->orphan)
		return;
	if (orphan->restructures) {
		struct inode_table *table = part->owner->inodes;
		const le64_t next = block_of(orphan->block)->next;
		orphan_chain_before(table, orphan->block->block, 0);
		if (le64_get(next))
			orphan_chain_before(table, le64_get(next), orphan->before ? orphan->before->block : 0);
		if (orphan->before) {
			block_of(orphan->before)->next = next;
			tx_dirty(part, orphan->before, offsetof(struct orphan_block, next), sizeof(next));
		} else {
			header_of(orphan->header)->orphan_head = next;
		}
		tx_kill(part, orphan->block);
		chain_unlock(state_of(orphan));
	} else {
		block_set(part, orphan, inode->orphan_index, 0);
	}
	header_count(part, orphan, -1);
	part->owner->inodes->chained--;
	inode->orphan = false;
	inode->orphan_block = 0;
	if (inode->orphan_ref) {
		inode->orphan_ref = false;
		inode_put(inode);
	}
}

static void orphan_apply(struct tx_part *part, struct change *change)
{
	struct orphan_change *orphan = orphan_of(change);
	if (orphan->add)
		add_apply(part, orphan);
	else
		remove_apply(part, orphan);
}

static void orphan_cancel(struct tx_part *part, struct change *change)
{
	struct orphan_change *orphan = orphan_of(change);
	if (orphan->restructures)
		chain_unlock(state_of(orphan));
	else if (orphan->add)
		state_of(orphan)->chain_reserved--;
}

void orphan_change_init(struct orphan_change *orphan, struct inode *inode, bool add)
{
	*orphan = (struct orphan_change){
		.change = {.prepare = orphan_prepare, .apply = orphan_apply, .cancel = orphan_cancel},
		.inode = inode,
		.add = add,
	};
}
