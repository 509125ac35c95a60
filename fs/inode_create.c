/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making and freeing inodes, as changes of a transaction on the AG's owner: the slot, the inode block's mask, the inode
 * map and the inode free map, the counts in the AG header, and, where there is no name, the orphan chain.
 *
 * The new inode's struct is made in prepare but becomes findable in apply only; a number that comes from outside finds
 * an unused slot until then. Its generation is taken from the AG header in apply.
 */
#include "fs/inode_internal.h"
#include "fs/scrub.h"
#include "fs/xattr.h"

static struct ag_header *header_of(const struct buf *buf) { return (struct ag_header *)buf->data; }
static struct inode_block *block_of(const struct buf *buf) { return (struct inode_block *)buf->data; }

static void count_add(le32_t *field, int delta) { *field = le32_set(le32_get(*field) + (uint32_t)delta); }

/* inode_blocks, used_inodes and next_generation stand side by side. */
static void header_dirty(struct tx_part *part, struct buf *header)
{
	const unsigned first = offsetof(struct ag_header, inode_blocks);
	tx_dirty(part, header, first, offsetof(struct ag_header, orphan_count) - first);
}

/* ---- create ---- */

static struct inode_create_change *create_of(struct change *change)
{
	return CONTAINER_OF(change, struct inode_create_change, change);
}

/* Gives back what the memory of this owner was asked for; pins and blocks are the transaction's. */
static void create_undo(struct inode_create_change *create, struct inode_table *table)
{
	if (create->inode) {
		create->inode->dead = true;
		inode_put(create->inode);
		create->inode = NULL;
	}
	slot_cancel(table, &create->slot);
	if (create->lookup)
		inode_lookup_unreserve(table->owner);
}

static MAY_WAIT int create_pin(struct tx_part *part, struct inode_create_change *create)
{
	const struct inode_slot *slot = &create->slot;
	const uint64_t block = ag_first_block(&part->tx->fs->super, slot->ag) + slot->ag_block;
	int error = alloc_pin_header(part, slot->ag, &create->header);
	if (!error)
		error = alloc_pin_map(part, slot->ag, BLOCK_INODE_FREE_MAP, slot->ag_block, &create->free_map);
	if (!error && slot->new_block)
		error = alloc_pin_map(part, slot->ag, BLOCK_INODE_MAP, slot->ag_block, &create->inode_map);
	if (!error)
		error = slot->new_block ? tx_pin_new(part, block, BLOCK_INODES, slot->ag, &create->block) :
			tx_pin(part, block, BLOCK_INODES, slot->ag, &create->block);
	return error;
}

static MAY_WAIT int create_prepare(struct tx_part *part, struct change *change)
{
	struct inode_create_change *create = create_of(change);
	struct inode_table *table = part->owner->inodes;
	int error = create->lookup ? inode_lookup_reserve(part->owner) : 0;
	if (error)
		return error;
	error = slot_reserve(part, create->ag, &create->slot);
	if (error) {
		if (create->lookup)
			inode_lookup_unreserve(part->owner);
		return error;
	}
	create->ino = ino_make(create->slot.ag, create->slot.ag_block, create->slot.index);
	create->inode = inode_take(table, create->ino);
	error = create->inode ? create_pin(part, create) : -ENOMEM;
	if (!error && create->seed)
		error = xattr_seed_prepare(part, create->seed, create->ino);
	if (!error && create->orphan) {
		orphan_change_init(&create->orphan_change, create->inode, true);
		error = create->orphan_change.change.prepare(part, &create->orphan_change.change);
	}
	if (error)
		create_undo(create, table);
	return error;
}

static void create_cancel(struct tx_part *part, struct change *change)
{
	struct inode_create_change *create = create_of(change);
	if (create->orphan)
		create->orphan_change.change.cancel(part, &create->orphan_change.change);
	create_undo(create, part->owner->inodes);
}

/* The slot in the block, and what leads to it. */
static void create_in_block(struct tx_part *part, struct inode_create_change *create)
{
	const struct inode_slot *slot = &create->slot;
	struct inode_block *block = block_of(create->block);
	const uint32_t used_mask = le32_get(block->used_mask) | 1u << slot->index;
	block->used_mask = le32_set(used_mask);
	block->inode[slot->index] = create->inode->disk;
	if (slot->new_block) {
		tx_dirty(part, create->block, 0, FS_BLOCK_SIZE);
		alloc_map_bit(part, create->inode_map, slot->ag_block, true);
		alloc_map_ready(part, slot->ag, BLOCK_INODE_MAP, slot->ag_block);
	} else {
		tx_dirty(part, create->block, offsetof(struct inode_block, used_mask), sizeof(block->used_mask));
		tx_dirty(part, create->block, offsetof(struct inode_block, inode) + slot->index * FS_INODE_SIZE,
			FS_INODE_SIZE);
	}
	const bool full = used_mask == (1u << FS_INODES_PER_BLOCK) - 1;
	if (full || slot->new_block) {
		alloc_map_bit(part, create->free_map, slot->ag_block, !full);
		alloc_map_ready(part, slot->ag, BLOCK_INODE_FREE_MAP, slot->ag_block);
	}
	slot_used(part->owner->inodes, slot, used_mask);
}

static void create_apply(struct tx_part *part, struct change *change)
{
	struct inode_create_change *create = create_of(change);
	struct owner *owner = part->owner;
	struct inode *inode = create->inode;
	struct ag_header *header = header_of(create->header);

	create->generation = le32_get(header->next_generation);
	header->next_generation = le32_set(create->generation == UINT32_MAX ? 1 : create->generation + 1);
	count_add(&header->used_inodes, 1);
	count_add(&header->inode_blocks, create->slot.new_block);
	header_dirty(part, create->header);
	atomic_fetch_add_explicit(&owner->stats.used_inodes_delta, 1, memory_order_relaxed);

	if (create->seed)
		xattr_seed_apply(part, create->seed, &create->disk);
	inode->disk = create->disk;
	inode->disk.generation = le32_set(create->generation);
	create_in_block(part, create);
	scrub_note_inode(part->tx->fs, inode->ino, &inode->disk, 1);
	inode->last_part = inode->last_data_part = stream_next_number(owner);
	inode_publish(inode);
	if (create->lookup) {
		inode_lookup_unreserve(owner);
		const int error = inode_lookup_add(owner, inode->ino, 1);
		assert(!error && "reserved");
		(void)error;
	}
	if (create->orphan) {
		create->orphan_change.change.apply(part, &create->orphan_change.change);
		inode_unlinked(inode);
	}
	create->inode = NULL;
	inode_put(inode);
}

void inode_create_change_init(struct inode_create_change *create)
{
	*create = (struct inode_create_change){
		.change = {.prepare = create_prepare, .apply = create_apply, .cancel = create_cancel},
	};
}

/* ---- free ---- */

static struct inode_free_change *free_of(struct change *change)
{
	return CONTAINER_OF(change, struct inode_free_change, change);
}

static MAY_WAIT int free_pin(struct tx_part *part, struct inode_free_change *freeing)
{
	const struct fs *fs = part->tx->fs;
	const uint32_t ag = ino_ag(freeing->inode->ino), ag_block = ino_ag_block(freeing->inode->ino);
	int error = alloc_pin_header(part, ag, &freeing->header);
	if (!error)
		error = tx_pin(part, inode_block_of(fs, freeing->inode->ino), BLOCK_INODES, ag, &freeing->block);
	if (!error)
		error = alloc_pin_map(part, ag, BLOCK_INODE_FREE_MAP, ag_block, &freeing->free_map);
	if (!error)
		error = alloc_pin_map(part, ag, BLOCK_INODE_MAP, ag_block, &freeing->inode_map);
	return error;
}

static void free_slot_end(struct tx_part *part, const struct inode_free_change *freeing, bool block_gone)
{
	const uint64_t ino = freeing->inode->ino;
	slot_free_end(part->owner->inodes, ino_ag(ino), ino_ag_block(ino), freeing->freeing, block_gone);
}

static MAY_WAIT int free_prepare(struct tx_part *part, struct change *change)
{
	struct inode_free_change *freeing = free_of(change);
	struct inode *inode = freeing->inode;
	const uint32_t ag = ino_ag(inode->ino), ag_block = ino_ag_block(inode->ino);
	assert(inode->ino != FS_ROOT_INODE);
	int error = free_pin(part, freeing);
	if (error)
		return error;
	orphan_change_init(&freeing->orphan_change, inode, false);
	error = freeing->orphan_change.change.prepare(part, &freeing->orphan_change.change);
	if (error)
		return error;
	freeing->freeing = slot_free_begin(part->owner->inodes, ag, ag_block, block_of(freeing->block));
	if (freeing->freeing == SLOT_FREEING_BLOCK)
		error = tx_free(part, (struct run){.block = freeing->block->block, .count = 1}, RUN_METADATA);
	if (error) {
		free_slot_end(part, freeing, false);
		freeing->orphan_change.change.cancel(part, &freeing->orphan_change.change);
	}
	return error;
}

static void free_cancel(struct tx_part *part, struct change *change)
{
	struct inode_free_change *freeing = free_of(change);
	free_slot_end(part, freeing, false);
	freeing->orphan_change.change.cancel(part, &freeing->orphan_change.change);
}

static void free_in_block(struct tx_part *part, struct inode_free_change *freeing)
{
	const uint64_t ino = freeing->inode->ino;
	const unsigned slot = ino_slot(ino);
	struct inode_block *block = block_of(freeing->block);
	const uint32_t used_mask = le32_get(block->used_mask) & ~(1u << slot);
	block->used_mask = le32_set(used_mask);
	block->inode[slot] = (struct disk_inode){.generation = freeing->inode->disk.generation};
	tx_dirty(part, freeing->block, offsetof(struct inode_block, used_mask), sizeof(block->used_mask));
	tx_dirty(part, freeing->block, offsetof(struct inode_block, inode) + slot * FS_INODE_SIZE, FS_INODE_SIZE);
	alloc_map_bit(part, freeing->free_map, ino_ag_block(ino), true);
	alloc_map_ready(part, ino_ag(ino), BLOCK_INODE_FREE_MAP, ino_ag_block(ino));
	slot_freed(part->owner->inodes, ino_ag(ino), ino_ag_block(ino), used_mask);
	free_slot_end(part, freeing, false);
}

static void free_with_block(struct tx_part *part, struct inode_free_change *freeing)
{
	const uint64_t ino = freeing->inode->ino;
	alloc_map_bit(part, freeing->free_map, ino_ag_block(ino), false);
	alloc_map_bit(part, freeing->inode_map, ino_ag_block(ino), false);
	count_add(&header_of(freeing->header)->inode_blocks, -1);
	tx_kill(part, freeing->block);
	free_slot_end(part, freeing, true);
}

static void free_apply(struct tx_part *part, struct change *change)
{
	struct inode_free_change *freeing = free_of(change);
	struct inode *inode = freeing->inode;
	freeing->orphan_change.change.apply(part, &freeing->orphan_change.change);
	if (freeing->freeing == SLOT_FREEING_BLOCK)
		free_with_block(part, freeing);
	else
		free_in_block(part, freeing);
	count_add(&header_of(freeing->header)->used_inodes, -1);
	header_dirty(part, freeing->header);
	atomic_fetch_add_explicit(&part->owner->stats.used_inodes_delta, -1, memory_order_relaxed);
	scrub_note_inode(part->tx->fs, inode->ino, NULL, -1);
	inode->last_part = stream_next_number(part->owner);
	inode_bury(inode, -ESTALE);
}

void inode_free_change_init(struct inode_free_change *free_change, struct inode *inode)
{
	*free_change = (struct inode_free_change){
		.change = {.prepare = free_prepare, .apply = free_apply, .cancel = free_cancel},
		.inode = inode,
	};
}
