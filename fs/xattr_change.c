/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Setting and removing an attribute. prepare walks fork and chain once: where the old record is, what stands in front
 * of its block, and which block has room. A new record goes into the fork if it fits, else into the old one's block,
 * else into the first block with room, else into a new block at the head of the chain. A block that loses its last
 * record leaves the chain.
 */
#include "fs/xattr.h"

#include <sys/xattr.h>

enum { RECORDS_AT = offsetof(struct xattr_block, records), RECORDS_BYTES = sizeof(((struct xattr_block *)0)->records) };

/* What a walk over fork and chain found. Numbers of blocks, 0: the fork or the inode. */
struct search {
	bool exists;
	uint64_t old_block, before_block, room_block;
	unsigned chain_blocks;
	bool alone;                     /* the old record is the only one of its block */
	le64_t values[XATTR_VALUE_BLOCKS_MAX];
	unsigned value_count;
};

/* ---- prepare: looking ---- */

static void search_found(struct xattr_change *change, struct search *search, const struct xattr_area *area, unsigned at,
	uint64_t before)
{
	const struct disk_xattr *record = xattr_record(area, at);

	search->exists = true;
	search->old_block = area->buf ? area->buf->block : 0;
	search->before_block = before;
	change->old_at = at;
	change->old_bytes = xattr_record_bytes(record);
	search->alone = area->buf && area->bytes == change->old_bytes;
	search->value_count = xattr_value_blocks(le32_get(record->value_length));
	memcpy(search->values, xattr_payload(record), search->value_count * sizeof(*search->values));
}

/* Whether the block that the walk is at could take the new record; the old record's block is preferred. */
static void search_room(const struct xattr_change *change, struct search *search, const struct xattr_area *area)
{
	const bool old_here = search->exists && search->old_block == area->buf->block;
	const unsigned used = area->bytes - (old_here ? change->old_bytes : 0);

	if (used + change->new_bytes <= RECORDS_BYTES && (old_here || !search->room_block))
		search->room_block = area->buf->block;
}

MAY_WAIT static int search_walk(struct xattr_change *change, struct search *search)
{
	struct xattr_area area;
	uint64_t before = 0;
	int error = 0;

	xattr_area_first(change->inode, &area);
	while (!error && area.records) {
		const unsigned at = search->exists ? area.bytes : xattr_area_find(&area, change->name);
		if (at < area.bytes)
			search_found(change, search, &area, at, before);
		if (search->exists && change->remove) {
			xattr_area_put(change->inode, &area);
			return 0;
		}
		if (area.buf) {
			search_room(change, search, &area);
			search->chain_blocks++;
			before = area.buf->block;
		}
		error = xattr_area_next(change->inode, &area);
	}
	return error;
}

static unsigned fork_content_bytes(const struct disk_inode *disk)
{
	switch (disk->format) {
	case FORK_INLINE:
		return disk->fork_bytes;
	case FORK_EXTENTS:
		return le16_get(disk->fork_count) * (unsigned)sizeof(struct disk_extent);
	case FORK_TREE:
		return sizeof(struct fork_tree);
	default:
		return 0;
	}
}

static bool fork_has_room(const struct xattr_change *change, const struct search *search)
{
	const struct disk_inode *disk = &change->inode->disk;
	const unsigned stays = disk->xattr_bytes - (search->exists && !search->old_block ? change->old_bytes : 0);
	const unsigned sum = stays + change->new_bytes;

	return sum <= XATTR_FORK_BYTES_MAX && sum + fork_content_bytes(disk) <= FS_FORK_BYTES;
}

/* ---- prepare: pinning ---- */

MAY_WAIT static int chain_pin(struct tx_part *part, const struct xattr_change *change, uint64_t block, struct buf **out)
{
	*out = NULL;
	return block ? tx_pin(part, block, BLOCK_XATTR, change->inode->ino, out) : 0;
}

MAY_WAIT int xattr_free_block(struct tx_part *part, struct inode *inode, uint64_t block, enum block_type type,
	struct buf **out)
{
	const struct run run = {.block = block, .count = 1};
	struct buf *buf = buf_find(part->owner, block);

	*out = NULL;
	if (buf) {
		buf_put(part->owner, buf);
		const int error = tx_pin(part, block, type, inode->ino, out);
		if (error)
			return error;
	}
	return tx_free(part, run, RUN_METADATA);
}

MAY_WAIT static int old_plan(struct tx_part *part, struct xattr_change *change, const struct search *search)
{
	if (!search->exists)
		return 0;
	change->old_exists = true;
	int error = chain_pin(part, change, search->old_block, &change->old);
	change->old_block_freed = search->alone && (change->remove || change->to != change->old);
	if (!error && change->old_block_freed) {
		error = chain_pin(part, change, search->before_block, &change->before);
		if (!error)
			error = tx_free(part, (struct run){.block = search->old_block, .count = 1}, RUN_METADATA);
		change->blocks_delta--;
	}
	for (unsigned i = 0; i < search->value_count && !error; i++) {
		struct buf *buf;
		error = xattr_free_block(part, change->inode, le64_get(search->values[i]), BLOCK_XATTR_VALUE, &buf);
		if (!error && buf)
			change->old_value[change->old_value_count++] = buf;
		change->blocks_delta--;
	}
	return error;
}

uint64_t xattr_goal(const struct fs *fs, uint64_t ino)
{
	const uint64_t place = ino_place(fs, ino);

	return ag_first_block(&fs->super, ino_ag(place)) + ino_ag_block(place);
}

/* Blocks for the new value and, when @chain_block, one for the chain. */
MAY_WAIT static int fresh_plan(struct tx_part *part, struct xattr_change *change, bool chain_block)
{
	uint64_t goal = xattr_goal(part->owner->fs, change->inode->ino);
	const unsigned wanted = change->new_value_count + chain_block;

	for (unsigned got = 0; got < wanted;) {
		struct run run;
		int error = tx_alloc(part, goal, wanted - got, 1, &run);
		for (uint32_t i = 0; i < run.count && !error; i++, got++) {
			const bool value = got < change->new_value_count;
			error = tx_pin_new(part, run.block + i, value ? BLOCK_XATTR_VALUE : BLOCK_XATTR,
				change->inode->ino, value ? &change->new_value[got] : &change->to);
		}
		if (error)
			return error;
		goal = run.block + run.count;
	}
	change->to_fresh = chain_block;
	change->blocks_delta += (int)wanted;
	return 0;
}

MAY_WAIT static int new_plan(struct tx_part *part, struct xattr_change *change, const struct search *search)
{
	if (change->remove)
		return 0;
	const bool in_fork = fork_has_room(change, search);
	const bool chain_block = !in_fork && !search->room_block;
	if (chain_block && search->chain_blocks >= XATTR_CHAIN_MAX)
		return -ENOSPC;
	if (!in_fork && !chain_block) {
		const int error = chain_pin(part, change, search->room_block, &change->to);
		if (error)
			return error;
	}
	return fresh_plan(part, change, chain_block);
}

MAY_WAIT static int change_prepare(struct tx_part *part, struct change *base)
{
	struct xattr_change *change = CONTAINER_OF(base, struct xattr_change, change);
	struct search search = {0};
	int error = inode_pin(part, change->inode);

	change->new_value_count = change->remove ? 0 : xattr_value_blocks(change->length);
	change->new_bytes = change->remove ? 0 : xattr_bytes(change->name.length, change->length);
	if (!error)
		error = search_walk(change, &search);
	if (error)
		return error;
	if (search.exists && change->flags & XATTR_CREATE)
		return -EEXIST;
	change->nothing = !search.exists && change->remove && change->missing_ok;
	if (change->nothing)
		return 0;
	if (!search.exists && (change->remove || change->flags & XATTR_REPLACE))
		return -ENODATA;
	if (change->blocks < XATTR_LARGE_BLOCKS && search.value_count + change->new_value_count)
		return -E2BIG;
	error = new_plan(part, change, &search);
	return error ? error : old_plan(part, change, &search);
}

/* ---- apply ---- */

static struct xattr_block *block_of(struct buf *buf)
{
	return (struct xattr_block *)buf->data;
}

static void block_set_counts(struct tx_part *part, struct buf *buf, int count_delta, int bytes_delta)
{
	struct xattr_block *block = block_of(buf);

	block->count = le16_set((uint16_t)(le16_get(block->count) + count_delta));
	block->bytes = le16_set((uint16_t)(le16_get(block->bytes) + bytes_delta));
	tx_dirty(part, buf, offsetof(struct xattr_block, bytes), 2 * sizeof(le16_t));
}

static void apply_unlink_block(struct tx_part *part, struct xattr_change *change)
{
	const le64_t next = block_of(change->old)->next;

	if (change->before) {
		block_of(change->before)->next = next;
		tx_dirty(part, change->before, offsetof(struct xattr_block, next), sizeof(next));
	} else {
		change->inode->disk.xattr_block = next;
	}
	tx_kill(part, change->old);
}

static void apply_remove(struct tx_part *part, struct xattr_change *change)
{
	struct disk_inode *disk = &change->inode->disk;
	const unsigned at = change->old_at, bytes = change->old_bytes;

	for (unsigned i = 0; i < change->old_value_count; i++)
		tx_kill(part, change->old_value[i]);
	if (change->old_block_freed) {
		apply_unlink_block(part, change);
	} else if (change->old) {
		struct xattr_block *block = block_of(change->old);
		const unsigned behind = le16_get(block->bytes) - at - bytes;
		memmove(block->records + at, block->records + at + bytes, behind);
		if (behind)
			tx_dirty(part, change->old, RECORDS_AT + at, behind);
		block_set_counts(part, change->old, -1, -(int)bytes);
	} else {
		uint8_t *records = xattr_fork_records(change->inode);
		memmove(records + bytes, records, at);
		memset(records, 0, bytes);
		disk->xattr_bytes = (uint8_t)(disk->xattr_bytes - bytes);
	}
}

void xattr_record_write(const struct xattr_content *content, uint8_t *at)
{
	struct disk_xattr *record = (struct disk_xattr *)at;
	const struct xattr_name *name = &content->name;
	const unsigned block_count = xattr_value_blocks(content->length);

	memset(record, 0, xattr_bytes(name->length, content->length));
	record->namespace = (uint8_t)name->namespace;
	record->name_length = (uint8_t)name->length;
	record->flags = block_count ? XATTR_EXTERNAL : 0;
	record->value_length = le32_set(content->length);
	memcpy(record->name, name->bytes, name->length);
	uint8_t *payload = (uint8_t *)record->name + align_up(name->length, 8);
	for (unsigned i = 0; i < block_count; i++)
		((le64_t *)payload)[i] = le64_set(content->blocks[i]->block);
	if (!block_count && content->length)
		memcpy(payload, content->value, content->length);
}

void xattr_value_write(struct tx_part *part, const struct xattr_content *content)
{
	const uint8_t *from = content->value;
	uint32_t left = content->length;

	for (unsigned i = 0; i < xattr_value_blocks(content->length); i++) {
		struct buf *buf = content->blocks[i];
		struct xattr_value_block *block = (struct xattr_value_block *)buf->data;
		const uint32_t bytes = MIN(left, (uint32_t)FS_XATTR_VALUE_BLOCK_BYTES);
		block->bytes = le32_set(bytes);
		block->index = le32_set(i);
		memcpy(block->data, from, bytes);
		tx_dirty(part, buf, 0, FS_BLOCK_SIZE);
		from += bytes;
		left -= bytes;
	}
}

static void apply_add(struct tx_part *part, struct xattr_change *change)
{
	struct disk_inode *disk = &change->inode->disk;
	const struct xattr_content content = {
		.name = change->name, .value = change->value, .length = change->length, .blocks = change->new_value};

	xattr_value_write(part, &content);
	if (!change->to) {
		disk->xattr_bytes = (uint8_t)(disk->xattr_bytes + change->new_bytes);
		xattr_record_write(&content, xattr_fork_records(change->inode));
		return;
	}
	struct xattr_block *block = block_of(change->to);
	if (change->to_fresh) {
		block->next = disk->xattr_block;
		disk->xattr_block = le64_set(change->to->block);
		tx_dirty(part, change->to, 0, FS_BLOCK_SIZE);
	}
	const unsigned at = le16_get(block->bytes);
	xattr_record_write(&content, block->records + at);
	tx_dirty(part, change->to, RECORDS_AT + at, change->new_bytes);
	block_set_counts(part, change->to, 1, (int)change->new_bytes);
}

static void change_apply(struct tx_part *part, struct change *base)
{
	struct xattr_change *change = CONTAINER_OF(base, struct xattr_change, change);
	struct inode *inode = change->inode;

	if (change->nothing && !change->mode)
		return;
	if (change->old_exists)
		apply_remove(part, change);
	if (!change->remove)
		apply_add(part, change);
	inode_blocks_add(inode, change->blocks_delta);
	if (change->mode)
		inode->disk.mode = le16_set((uint16_t)change->mode);
	inode_touch(inode, INODE_CTIME, change->now);
	inode_log(part, inode);
}

void xattr_change_init(struct xattr_change *change, struct inode *inode, struct xattr_name name, struct timespec now)
{
	*change = (struct xattr_change){
		.change = {.prepare = change_prepare, .apply = change_apply},
		.inode = inode,
		.name = name,
		.blocks = XATTR_LARGE_BLOCKS,
		.now = now,
	};
}
