/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The attributes that an inode is made with: the ACLs that it inherits. They belong to the transaction that makes the
 * inode, so after a crash there is both or neither. Nothing has to be searched: the inode is new, the fork is empty, and
 * what does not fit it goes into the first block of the chain, which two records with ACLs never fill.
 */
#include "fs/xattr.h"

enum { SEED_BLOCKS_MAX = 1 + XATTR_SEEDS_MAX * XATTR_ACL_VALUE_BLOCKS_MAX };
_Static_assert(XATTR_SEEDS_MAX * (FS_XATTR_FIXED + 256 + (int)FS_XATTR_INTERNAL_MAX) <=
		(int)sizeof(((struct xattr_block *)0)->records), "one block takes all records");

static unsigned record_bytes(const struct xattr_seed_value *value)
{
	return xattr_bytes(value->name.length, value->length);
}

void xattr_seed_add(struct xattr_seed *seed, struct xattr_name name, const void *value, uint32_t length)
{
	unsigned in_fork = 0;

	assert(seed->count < XATTR_SEEDS_MAX && length <= XATTR_ACL_BYTES_MAX);
	for (unsigned i = 0; i < seed->count; i++)
		if (seed->values[i].in_fork)
			in_fork += record_bytes(&seed->values[i]);
	struct xattr_seed_value *added = &seed->values[seed->count++];
	*added = (struct xattr_seed_value){.name = name, .value = value, .length = length};
	/* One with blocks of its own leaves the fork to the other one, and to content. */
	added->in_fork = !xattr_value_blocks(length) && in_fork + record_bytes(added) <= XATTR_FORK_BYTES_MAX;
}

bool xattr_seed_in_fork(const struct xattr_seed *seed)
{
	for (unsigned i = 0; i < seed->count; i++)
		if (!seed->values[i].in_fork)
			return false;
	return true;
}

/* ---- prepare ---- */

/* Takes the blocks one by one in order, as many at once as there are together. */
struct source {
	struct tx_part *part;
	uint64_t ino, goal;
	struct run run;                 /* what is left of the last allocation */
	unsigned wanted;                /* still to be allocated */
};

MAY_WAIT static int source_take(struct source *source, enum block_type type, struct buf **out)
{
	if (!source->run.count) {
		const int error = tx_alloc(source->part, source->goal, source->wanted, 1, &source->run);
		if (error)
			return error;
		source->wanted -= source->run.count;
		source->goal = source->run.block + source->run.count;
	}
	source->run.count--;
	return tx_pin_new(source->part, source->run.block++, type, source->ino, out);
}

MAY_WAIT int xattr_seed_prepare(struct tx_part *part, struct xattr_seed *seed, uint64_t ino)
{
	struct source source = {.part = part, .ino = ino, .goal = xattr_goal(part->owner->fs, ino), .wanted = 1};

	if (xattr_seed_in_fork(seed))
		return 0;
	for (unsigned i = 0; i < seed->count; i++)
		source.wanted += xattr_value_blocks(seed->values[i].length);
	assert(source.wanted <= SEED_BLOCKS_MAX);
	int error = source_take(&source, BLOCK_XATTR, &seed->chain);
	for (unsigned i = 0; i < seed->count; i++) {
		struct xattr_seed_value *value = &seed->values[i];
		for (unsigned j = 0; j < xattr_value_blocks(value->length) && !error; j++)
			error = source_take(&source, BLOCK_XATTR_VALUE, &value->blocks[j]);
	}
	return error;
}

/* ---- apply ---- */

static void chain_add(struct buf *chain, const struct xattr_content *content)
{
	struct xattr_block *block = (struct xattr_block *)chain->data;
	const unsigned at = le16_get(block->bytes);

	xattr_record_write(content, block->records + at);
	block->bytes = le16_set((uint16_t)(at + xattr_bytes(content->name.length, content->length)));
	block->count = le16_set((uint16_t)(le16_get(block->count) + 1));
}

void xattr_seed_apply(struct tx_part *part, struct xattr_seed *seed, struct disk_inode *disk)
{
	uint64_t blocks = seed->chain ? 1 : 0;

	for (unsigned i = 0; i < seed->count; i++) {
		const struct xattr_seed_value *value = &seed->values[i];
		const struct xattr_content content = {
			.name = value->name, .value = value->value, .length = value->length, .blocks = value->blocks};
		if (value->in_fork) {
			disk->xattr_bytes = (uint8_t)(disk->xattr_bytes + record_bytes(value));
			xattr_record_write(&content, disk->fork + FS_FORK_BYTES - disk->xattr_bytes);
			continue;
		}
		xattr_value_write(part, &content);
		chain_add(seed->chain, &content);
		blocks += xattr_value_blocks(value->length);
	}
	if (seed->chain) {
		disk->xattr_block = le64_set(seed->chain->block);
		tx_dirty(part, seed->chain, 0, FS_BLOCK_SIZE);
	}
	disk->blocks = le64_set(le64_get(disk->blocks) + blocks);
}
