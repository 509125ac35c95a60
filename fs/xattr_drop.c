/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An inode that is being freed loses its attributes: the fork's first, then block by block from the head of the chain.
 * One transaction takes the records at the front of a stretch, as many as have no more value blocks than it can free;
 * when that is all of them, the stretch goes too. A crash in between leaves an inode with fewer attributes in its
 * orphan chain.
 */
#include "fs/xattr.h"

enum {
	/* A record has up to XATTR_VALUE_BLOCKS_MAX of them, so one always goes. */
	DROP_VALUE_BLOCKS = 18,
	/* Inode, chain block, values, and header and map of every freed block. */
	DROP_BLOCKS = 4 + 3 * DROP_VALUE_BLOCKS,
};
_Static_assert((int)DROP_VALUE_BLOCKS >= (int)XATTR_VALUE_BLOCKS_MAX, "a record goes in one transaction");
_Static_assert((int)DROP_BLOCKS <= (int)JOURNAL_TX_BLOCKS_MAX, "one transaction");

struct drop {
	struct change change;
	struct inode *inode;
	struct buf *block;              /* that the records stand in, NULL: the fork */
	unsigned bytes, count;          /* of the records that go */
	bool all;
	le64_t values[DROP_VALUE_BLOCKS];
	struct buf *cached[DROP_VALUE_BLOCKS];
	unsigned value_count;
};

/* Chooses the records that go, and notes their value blocks. */
static void drop_choose(struct drop *drop, const struct xattr_area *area)
{
	while (drop->bytes < area->bytes) {
		const struct disk_xattr *record = xattr_record(area, drop->bytes);
		const unsigned values = xattr_value_blocks(le32_get(record->value_length));
		if (drop->value_count + values > DROP_VALUE_BLOCKS)
			return;
		memcpy(drop->values + drop->value_count, xattr_payload(record), values * sizeof(*drop->values));
		drop->value_count += values;
		drop->bytes += xattr_record_bytes(record);
		drop->count++;
	}
	drop->all = true;
}

MAY_WAIT static int drop_area(struct tx_part *part, struct drop *drop)
{
	struct xattr_area area;

	xattr_area_first(drop->inode, &area);
	if (drop->inode->disk.xattr_bytes) {
		drop_choose(drop, &area);
		return 0;
	}
	int error = xattr_area_next(drop->inode, &area);
	if (error)
		return error;
	const uint64_t block = area.buf->block;
	drop_choose(drop, &area);
	xattr_area_put(drop->inode, &area);
	error = tx_pin(part, block, BLOCK_XATTR, drop->inode->ino, &drop->block);
	return error || !drop->all ? error : tx_free(part, (struct run){.block = block, .count = 1}, RUN_METADATA);
}

MAY_WAIT static int drop_prepare(struct tx_part *part, struct change *base)
{
	struct drop *drop = CONTAINER_OF(base, struct drop, change);
	int error = inode_pin(part, drop->inode);

	if (!error)
		error = drop_area(part, drop);
	for (unsigned i = 0; i < drop->value_count && !error; i++)
		error = xattr_free_block(part, drop->inode, le64_get(drop->values[i]), BLOCK_XATTR_VALUE,
			&drop->cached[i]);
	return error;
}

static void drop_from_block(struct tx_part *part, struct drop *drop)
{
	struct xattr_block *block = (struct xattr_block *)drop->block->data;
	const unsigned stay = le16_get(block->bytes) - drop->bytes;

	if (drop->all) {
		drop->inode->disk.xattr_block = block->next;
		tx_kill(part, drop->block);
		return;
	}
	memmove(block->records, block->records + drop->bytes, stay);
	block->bytes = le16_set((uint16_t)stay);
	block->count = le16_set((uint16_t)(le16_get(block->count) - drop->count));
	tx_dirty(part, drop->block, offsetof(struct xattr_block, bytes), 2 * sizeof(le16_t));
	tx_dirty(part, drop->block, offsetof(struct xattr_block, records), stay);
}

static void drop_apply(struct tx_part *part, struct change *base)
{
	struct drop *drop = CONTAINER_OF(base, struct drop, change);
	struct disk_inode *disk = &drop->inode->disk;

	for (unsigned i = 0; i < drop->value_count; i++)
		if (drop->cached[i])
			tx_kill(part, drop->cached[i]);
	inode_blocks_add(drop->inode, -(int64_t)drop->value_count - (drop->block && drop->all));
	if (drop->block) {
		drop_from_block(part, drop);
	} else {
		memset(xattr_fork_records(drop->inode), 0, drop->bytes);
		disk->xattr_bytes = (uint8_t)(disk->xattr_bytes - drop->bytes);
	}
	inode_log(part, drop->inode);
}

MAY_WAIT int xattr_drop_all(struct inode *inode)
{
	int error = 0;

	while (!error && xattr_any(inode)) {
		struct drop drop = {.change = {.prepare = drop_prepare, .apply = drop_apply}, .inode = inode};
		struct tx *tx;
		error = tx_begin(inode->owner, DROP_BLOCKS, &tx);
		if (error)
			return error;
		tx->use_held_back = true;
		fiber_rwlock_write(&inode->lock);
		tx_change(tx_home(tx), &drop.change);
		error = tx_prepare(tx);
		if (!error)
			tx_apply(tx);
		fiber_rwlock_unwrite(&inode->lock);
		tx_end(tx);
	}
	return error;
}
