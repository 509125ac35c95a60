/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Free slots of inode blocks. Each AG has a short list of blocks with free slots, filled from the inode free map as
 * needed. A slot is reserved in memory while its transaction is prepared and taken in apply. A new inode block is made
 * by one transaction at a time (ag_inodes.busy); those that come meanwhile wait for it and use its other slots. Whoever
 * is busy waits for I/O only, so waiting for it with inode locks held is no danger.
 *
 * Slots of one block are given back by one transaction at a time (slot_block.freeing), so that the one that frees the
 * last slot knows it and takes the block along.
 *
 * The list is a cache: a block that does not fit is found again by a scan of the free map (scan_next is set back).
 */
#include <stdlib.h>

#include "fs/inode_internal.h"

enum { ALL_SLOTS = (1 << FS_INODES_PER_BLOCK) - 1 };

static struct slot_block *find(struct ag_inodes *state, uint32_t ag_block)
{
	for (unsigned i = 0; i < state->block_count; i++)
		if (state->blocks[i].ag_block == ag_block)
			return &state->blocks[i];
	return NULL;
}

/* The list is made when it is first needed. */
static bool list_exists(struct ag_inodes *state)
{
	return state->blocks || (state->blocks = calloc(SLOT_BLOCKS_MAX, sizeof(*state->blocks)));
}

/* NULL when the list is full. */
static struct slot_block *insert(struct ag_inodes *state, uint32_t ag_block, uint32_t used_mask)
{
	if (!list_exists(state) || state->block_count == SLOT_BLOCKS_MAX)
		return NULL;
	struct slot_block *block = &state->blocks[state->block_count++];
	*block = (struct slot_block){.ag_block = ag_block, .free_mask = (uint16_t)(~used_mask & ALL_SLOTS)};
	return block;
}

static void drop(struct ag_inodes *state, struct slot_block *block)
{
	assert(!block->reserved_mask && !block->freeing);
	*block = state->blocks[--state->block_count];
}

static unsigned open_mask(const struct slot_block *block)
{
	return block->claimed ? 0 : block->free_mask & ~block->reserved_mask;
}

static bool pick(struct ag_inodes *state, uint32_t ag, struct inode_slot *out)
{
	for (unsigned i = 0; i < state->block_count; i++) {
		const unsigned open = open_mask(&state->blocks[i]);
		if (!open)
			continue;
		const unsigned index = (unsigned)__builtin_ctz(open);
		state->blocks[i].reserved_mask |= (uint16_t)(1u << index);
		*out = (struct inode_slot){
			.ag = ag,
			.ag_block = state->blocks[i].ag_block,
			.index = index,
			.busy_ag = ag,
		};
		return true;
	}
	return false;
}

static void busy_end(struct ag_inodes *state)
{
	state->busy = false;
	fiber_cond_broadcast(&state->idle);
}

/* Puts blocks of the free map into the list until one with an open slot is found or the map ends. */
static MAY_WAIT int scan(struct owner *owner, struct ag_inodes *state, uint32_t ag)
{
	while (state->block_count < SLOT_BLOCKS_MAX) {
		const uint32_t from = state->scan_next;
		uint32_t found;
		int error = alloc_map_next(owner, ag, BLOCK_INODE_FREE_MAP, from, &found);
		if (error)
			return error;
		if (found == ALLOC_MAP_NONE) {
			state->scanned = state->scan_next == from; /* else a slot became free further down */
			return 0;
		}
		if (state->scan_next == from) /* else a slot became free further down meanwhile */
			state->scan_next = found + 1;
		if (find(state, found))
			continue;
		struct buf *buf;
		error = buf_get(owner, ag_first_block(&owner->fs->super, ag) + found, BLOCK_INODES, ag, &buf);
		if (error == -EUCLEAN)
			continue; /* logged; no new inodes in there */
		if (error)
			return error;
		const uint32_t used_mask = le32_get(((const struct inode_block *)buf->data)->used_mask);
		buf_put(owner, buf);
		if (used_mask != ALL_SLOTS && !find(state, found) && insert(state, found, used_mask))
			return 0;
	}
	return 0;
}

/* A slot of a block that exists. *out_found false: the AG has none, and the caller is its busy one. */
static MAY_WAIT int reserve_existing(struct owner *owner, uint32_t ag, struct inode_slot *out, bool *out_found)
{
	struct ag_inodes *state = inode_ag_state(owner->inodes, ag);
	if (!list_exists(state))
		return -ENOMEM;
	while (!(*out_found = pick(state, ag, out))) {
		if (state->busy) {
			fiber_cond_wait(&state->idle, "a new inode block");
			continue;
		}
		state->busy = true;
		if (state->scanned || state->block_count == SLOT_BLOCKS_MAX)
			return 0;
		const int error = scan(owner, state, ag);
		busy_end(state);
		if (error)
			return error;
	}
	return 0;
}

/* The AG is full: whatever free slot the owner's other AGs have. */
static MAY_WAIT int reserve_elsewhere(struct owner *owner, uint32_t not_ag, struct inode_slot *out)
{
	const struct fs *fs = owner->fs;
	for (uint32_t ag = owner->index; ag / fs->owner_count < owner->inodes->ag_count; ag += fs->owner_count) {
		if (ag == not_ag)
			continue;
		bool found;
		const int error = reserve_existing(owner, ag, out, &found);
		if (error || found)
			return error;
		busy_end(inode_ag_state(owner->inodes, ag));
	}
	return -ENOSPC;
}

int slot_reserve(struct tx_part *part, uint32_t ag, struct inode_slot *out)
{
	struct owner *owner = part->owner;
	const struct fs *fs = owner->fs;
	bool found;
	int error = reserve_existing(owner, ag, out, &found);
	if (error || found)
		return error;
	if (!alloc_has_room(owner, ag)) { /* rather a slot of another AG than a new block there for every inode */
		busy_end(inode_ag_state(owner->inodes, ag));
		error = reserve_elsewhere(owner, ag, out);
		if (error == -ENOSPC)
			error = reserve_existing(owner, ag, out, &found);
		else
			found = true;
		if (error || found)
			return error;
	}
	struct run run;
	error = tx_alloc_own(part, ag_first_block(&fs->super, ag) + ag_fixed_blocks(&fs->super), 1, 1, &run);
	if (error) {
		busy_end(inode_ag_state(owner->inodes, ag));
		return error == -ENOSPC ? reserve_elsewhere(owner, ag, out) : error;
	}
	*out = (struct inode_slot){
		.ag = ag_of_block(fs, run.block),
		.ag_block = ag_relative(fs, run.block),
		.new_block = true,
		.busy_ag = ag,
	};
	return 0;
}

void slot_cancel(struct inode_table *table, const struct inode_slot *slot)
{
	struct ag_inodes *state = inode_ag_state(table, slot->ag);
	if (slot->new_block)
		busy_end(inode_ag_state(table, slot->busy_ag));
	else
		find(state, slot->ag_block)->reserved_mask &= (uint16_t)~(1u << slot->index);
}

void slot_used(struct inode_table *table, const struct inode_slot *slot, uint32_t used_mask)
{
	struct ag_inodes *state = inode_ag_state(table, slot->ag);
	if (slot->new_block) {
		slot_freed(table, slot->ag, slot->ag_block, used_mask);
		busy_end(inode_ag_state(table, slot->busy_ag));
		return;
	}
	struct slot_block *block = find(state, slot->ag_block);
	block->reserved_mask &= (uint16_t)~(1u << slot->index);
	block->free_mask = (uint16_t)(~used_mask & ALL_SLOTS);
	if (!block->free_mask && !block->freeing)
		drop(state, block);
}

void slot_freed(struct inode_table *table, uint32_t ag, uint32_t ag_block, uint32_t used_mask)
{
	struct ag_inodes *state = inode_ag_state(table, ag);
	struct slot_block *block = find(state, ag_block);
	if (block) {
		block->free_mask = (uint16_t)(~used_mask & ALL_SLOTS);
	} else if (!insert(state, ag_block, used_mask)) {
		state->scanned = false;
		state->scan_next = MIN(state->scan_next, ag_block);
	}
}

/* A full list forgets a block that nobody needs in it; a scan finds it again. */
static void make_room(struct ag_inodes *state)
{
	for (unsigned i = 0; state->block_count == SLOT_BLOCKS_MAX && i < SLOT_BLOCKS_MAX; i++) {
		struct slot_block *block = &state->blocks[i];
		if (block->reserved_mask || block->freeing)
			continue;
		state->scanned = false;
		state->scan_next = MIN(state->scan_next, block->ag_block);
		drop(state, block);
	}
}

/* The block goes with its last slot, unless somebody is about to use another, or it is the only one with free slots. */
static bool claims(const struct ag_inodes *state, const struct slot_block *block, uint32_t used_mask)
{
	if (used_mask & (used_mask - 1) || block->reserved_mask)
		return false;
	for (unsigned i = 0; i < state->block_count; i++)
		if (&state->blocks[i] != block && open_mask(&state->blocks[i]))
			return true;
	return false;
}

enum slot_freeing slot_free_begin(struct inode_table *table, uint32_t ag, uint32_t ag_block, const struct inode_block *inodes)
{
	struct ag_inodes *state = inode_ag_state(table, ag);
	struct slot_block *block;
	while ((block = find(state, ag_block)) && block->freeing)
		fiber_cond_wait(&state->idle, "another inode of the block being freed");
	const uint32_t used_mask = le32_get(inodes->used_mask);
	if (!block) {
		make_room(state);
		block = insert(state, ag_block, used_mask);
	}
	if (!block)
		return SLOT_FREEING_UNSEEN;
	block->freeing = true;
	block->claimed = claims(state, block, used_mask);
	return block->claimed ? SLOT_FREEING_BLOCK : SLOT_FREEING;
}

void slot_free_end(struct inode_table *table, uint32_t ag, uint32_t ag_block, enum slot_freeing freeing, bool block_gone)
{
	struct ag_inodes *state = inode_ag_state(table, ag);
	if (freeing == SLOT_FREEING_UNSEEN)
		return;
	struct slot_block *block = find(state, ag_block);
	block->freeing = block->claimed = false;
	if (block_gone || (!block->free_mask && !block->reserved_mask))
		drop(state, block);
	fiber_cond_broadcast(&state->idle);
}
