/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Growing while mounted.
 *
 *   1. Headers of the new AGs are written to their places, and flushed. Nothing refers to them.
 *   2. One transaction: the superblock and all its copies, the header and the map of the last AG if that becomes longer,
 *      and the one new header that would lie where the old superblock copy stands. So before its group is durable the
 *      old filesystem is whole, and after it the new one is: replay takes the geometry from the superblock in the journal.
 *   3. A checkpoint: all of that is at home.
 *   4. The owners get their new AGs and blocks to allocate from.
 *
 * The superblock in memory changes in the apply step of the last AG's owner, together with that AG's header, which its
 * verifier compares. Other reactors may be reading it: fields change in an order in which every mixture is a geometry that
 * contains the old one, and nobody looks at what is new before step 4. Copies of the superblock are cached by owner 0, and
 * only while they are being changed.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/alloc.h"
#include "fs/op.h"
#include "fs/mkfs.h"

enum { COPIES_MAX = 2 + 32, HEADER_BATCH = 64 };

struct grow {
	struct fs *fs;
	struct fs_super next;           /* the superblock to be */
	uint32_t old_ags, last, old_last_blocks; /* last: number of the AG that was the last */
	uint64_t old_blocks, old_copy;  /* old_copy: block of the copy at the old end */
	unsigned copies;
	struct buf *copy[COPIES_MAX];   /* the superblock and its copies */
	struct buf *first_header;       /* of the first new AG, where it takes old_copy's place; or NULL */
	struct change change_copies, change_last, change_header;
	struct io io[HEADER_BATCH];
	uint8_t *buffer;                /* DMA, HEADER_BATCH blocks */
	char *message;
	size_t message_size;
};

/* ---- 1: headers that nothing refers to ---- */

static bool header_is_journaled(const struct grow *grow, uint32_t ag)
{
	return ag_first_block(&grow->next, ag) == grow->old_copy;
}

static MAY_WAIT int headers_batch(struct grow *grow, uint32_t first, uint32_t count)
{
	struct owner *owner = grow->fs->owners[0];
	struct io_group group;
	io_group_init(&group);
	for (uint32_t i = 0; i < count; i++) {
		uint8_t *block = grow->buffer + (uint64_t)i * FS_BLOCK_SIZE;
		if (header_is_journaled(grow, first + i))
			continue;
		mkfs_ag_header(&grow->next, first + i, block);
		block_seal(block, 0);
		io_prepare(&grow->io[i], owner->channel, IO_WRITE, block, ag_first_block(&grow->next, first + i) << FS_BLOCK_SHIFT,
			FS_BLOCK_SIZE);
		io_group_submit(&group, &grow->io[i]);
	}
	return io_group_wait(&group);
}

static MAY_WAIT int write_headers(struct grow *grow)
{
	const uint32_t end = le32_get(grow->next.ag_count);
	int error = 0;
	for (uint32_t ag = grow->old_ags; ag < end && !error; ag += MIN(end - ag, (uint32_t)HEADER_BATCH))
		error = headers_batch(grow, ag, MIN(end - ag, (uint32_t)HEADER_BATCH));
	return error ? error : bdev_flush(grow->fs->owners[0]->channel);
}

/* ---- 2: the transaction ---- */

static MAY_WAIT int copy_pin(struct grow *grow, struct tx_part *part, uint64_t block)
{
	return tx_pin_new(part, block, BLOCK_SUPER, 0, &grow->copy[grow->copies++]);
}

static MAY_WAIT int copies_prepare(struct tx_part *part, struct change *change)
{
	struct grow *grow = CONTAINER_OF(change, struct grow, change_copies);
	const struct fs_super *next = &grow->next;
	int error = copy_pin(grow, part, FS_SUPER_BLOCK);
	for (uint64_t ag = 1; ag < le32_get(next->ag_count) && !error; ag <<= 1)
		error = copy_pin(grow, part, ag_first_block(next, (uint32_t)ag) + FS_AG_SUPER_COPY);
	return error ? error : copy_pin(grow, part, le64_get(next->block_count) - 1);
}

static void copies_apply(struct tx_part *part, struct change *change)
{
	struct grow *grow = CONTAINER_OF(change, struct grow, change_copies);
	for (unsigned i = 0; i < grow->copies; i++) {
		struct fs_super *copy = (struct fs_super *)grow->copy[i]->data;
		*copy = grow->next;
		copy->header.block = le64_set(grow->copy[i]->block);
		tx_dirty(part, grow->copy[i], 0, FS_BLOCK_SIZE);
	}
}

static MAY_WAIT int header_prepare(struct tx_part *part, struct change *change)
{
	struct grow *grow = CONTAINER_OF(change, struct grow, change_header);
	return tx_pin_new(part, grow->old_copy, BLOCK_AG_HEADER, grow->old_ags, &grow->first_header);
}

static void header_apply(struct tx_part *part, struct change *change)
{
	struct grow *grow = CONTAINER_OF(change, struct grow, change_header);
	mkfs_ag_header(&grow->next, grow->old_ags, grow->first_header->data);
	tx_dirty(part, grow->first_header, 0, FS_BLOCK_SIZE);
}

static MAY_WAIT int last_prepare(struct tx_part *part, struct change *change)
{
	return alloc_grow_prepare(part, CONTAINER_OF(change, struct grow, change_last)->last);
}

static void last_apply(struct tx_part *part, struct change *change)
{
	struct grow *grow = CONTAINER_OF(change, struct grow, change_last);
	struct fs_super *super = &grow->fs->super;
	const uint32_t blocks = ag_block_count(&grow->next, grow->last);
	if (blocks > grow->old_last_blocks)
		alloc_grow_apply(part, grow->last, grow->old_last_blocks, blocks);
	__atomic_store_n(&super->block_count.raw, grow->next.block_count.raw, __ATOMIC_RELEASE);
	__atomic_store_n(&super->ag_count.raw, grow->next.ag_count.raw, __ATOMIC_RELEASE);
	__atomic_store_n(&super->last_ag_blocks.raw, grow->next.last_ag_blocks.raw, __ATOMIC_RELEASE);
}

static MAY_WAIT int change_geometry(struct grow *grow)
{
	enum { BLOCKS = COPIES_MAX + 3 };
	_Static_assert((int)BLOCKS <= (int)JOURNAL_TX_BLOCKS_MAX, "one transaction");
	struct fs *fs = grow->fs;
	const bool header = le32_get(grow->next.ag_count) > grow->old_ags && header_is_journaled(grow, grow->old_ags);
	struct tx *tx;
	int error = tx_begin(fs->owners[0], BLOCKS, &tx);
	if (error)
		return error;
	grow->change_copies = (struct change){.prepare = copies_prepare, .apply = copies_apply};
	grow->change_last = (struct change){.prepare = last_prepare, .apply = last_apply};
	grow->change_header = (struct change){.prepare = header_prepare, .apply = header_apply};
	tx_change(tx_home(tx), &grow->change_copies);
	struct tx_part *last = tx_part(tx, owner_of_ag(fs, grow->last));
	struct tx_part *next = last && header ? tx_part(tx, owner_of_ag(fs, grow->old_ags)) : last;
	error = next ? 0 : -ENOMEM;
	if (!error)
		tx_change(last, &grow->change_last);
	if (!error && header)
		tx_change(next, &grow->change_header);
	if (!error)
		error = tx_prepare(tx);
	if (!error)
		tx_apply(tx);
	tx_end(tx);
	return error;
}

/* ---- 4: what is new is there ---- */

struct open_call {
	struct owner *owner;
	const struct grow *grow;
};

static MAY_WAIT int reserve_run(void *arg)
{
	const struct open_call *call = arg;
	const uint32_t total = le32_get(call->grow->next.ag_count);
	const int error = alloc_grow_reserve(call->owner, total);
	return error ? error : inode_grow_reserve(call->owner, total);
}

static int open_run(void *arg)
{
	const struct open_call *call = arg;
	const struct grow *grow = call->grow;
	const uint32_t blocks = ag_block_count(&grow->next, grow->last);
	alloc_grow_open(call->owner);
	inode_grow_open(call->owner);
	if (owner_of_ag(grow->fs, grow->last) == call->owner && blocks > grow->old_last_blocks)
		alloc_grow_add(call->owner, grow->last, grow->old_last_blocks, blocks);
	return 0;
}

static MAY_WAIT int on_owners(struct grow *grow, int (*fn)(void *call))
{
	int error = 0;
	for (unsigned i = 0; i < grow->fs->owner_count && !error; i++) {
		struct open_call call = {.owner = grow->fs->owners[i], .grow = grow};
		error = reactor_call(call.owner->reactor, fn, &call);
	}
	return error;
}

static MAY_WAIT int open_space(struct grow *grow)
{
	struct fs *fs = grow->fs;
	const uint64_t added = mkfs_usable_blocks(&grow->next) - atomic_load(&fs->usable_blocks);
	for (unsigned i = 0; i < grow->copies; i++)
		cache_drop(fs->owners[0], grow->copy[i]->block);
	atomic_fetch_add(&fs->usable_blocks, added);
	atomic_fetch_add(&fs->owners[0]->stats.free_blocks_delta, (long long)added);
	const int error = on_owners(grow, open_run);
	atomic_store(&fs->open_ag_count, le32_get(grow->next.ag_count));
	return error;
}

/* ---- all of it ---- */

static int complain(struct grow *grow, int error, const char *what)
{
	snprintf(grow->message, grow->message_size, "%s: %s: %s", grow->fs->bdev_name, what, strerror(-error));
	return error;
}

static MAY_WAIT int run(struct grow *grow)
{
	struct fs *fs = grow->fs;
	int error = on_owners(grow, reserve_run);
	if (error)
		return complain(grow, error, "no memory for more groups");
	error = write_headers(grow);
	if (error)
		return complain(grow, error, "the new space cannot be written");
	if (atomic_load(&fs->called_off))
		return complain(grow, -EINTR, "called off by the unmount");
	error = change_geometry(grow);
	if (!error)
		error = journal_checkpoint(fs);
	if (error)
		return complain(grow, error, "the change could not be written");
	return open_space(grow);
}

static MAY_WAIT int plan(struct grow *grow, uint64_t bytes)
{
	struct fs *fs = grow->fs;
	struct bdev *bdev = bdev_desc_bdev(fs->owners[0]->desc);
	int error = fs_may_begin(fs);
	if (!error)
		error = bdev_rescan(bdev);
	if (error)
		return complain(grow, error, "cannot grow");
	const uint64_t device = bdev_size_bytes(bdev_get_limits(bdev)) >> FS_BLOCK_SHIFT;
	const uint64_t wanted = bytes ? bytes >> FS_BLOCK_SHIFT : device;
	char why[160];
	if (wanted == grow->old_blocks) {
		error = -EALREADY;
		snprintf(why, sizeof(why), "it has that size already: enlarge the image or device first");
	} else if (wanted > device) {
		error = -ENOSPC;
		snprintf(why, sizeof(why), "the device has %" PRIu64 " MiB only: enlarge it first", device >> (20 - FS_BLOCK_SHIFT));
	} else {
		error = mkfs_grow_plan(&fs->super, wanted, &grow->next, why, sizeof(why));
	}
	if (error)
		snprintf(grow->message, grow->message_size, "%s: %s", fs->bdev_name, why);
	return error;
}

int fs_grow(struct fs *fs, uint64_t bytes, struct fs_grown *out, char *message, size_t message_size)
{
	assert(reactor_self() == fs->owners[0]->reactor);
	const uint64_t old_blocks = le64_get(fs->super.block_count);
	*out = (struct fs_grown){.old_bytes = old_blocks << FS_BLOCK_SHIFT, .new_bytes = old_blocks << FS_BLOCK_SHIFT};
	struct grow *grow = calloc(1, sizeof(*grow));
	uint8_t *buffer = dma_alloc(HEADER_BATCH * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	int error = !grow || !buffer ? -ENOMEM : fs->growing ? -EBUSY : 0;
	if (error) {
		snprintf(message, message_size, "%s: %s", fs->bdev_name, error == -EBUSY ? "is growing already" : "no memory");
	} else {
		*grow = (struct grow){.fs = fs, .buffer = buffer, .message = message, .message_size = message_size,
			.old_ags = le32_get(fs->super.ag_count), .old_last_blocks = le32_get(fs->super.last_ag_blocks),
			.old_blocks = old_blocks, .old_copy = old_blocks - 1};
		grow->last = grow->old_ags - 1;
		const unsigned turn = op_enter(fs->owners[0]);
		fs->growing = true;
		error = plan(grow, bytes);
		if (!error)
			error = run(grow);
		fs->growing = false;
		op_leave(fs->owners[0], turn);
	}
	if (!error) {
		out->new_bytes = le64_get(fs->super.block_count) << FS_BLOCK_SHIFT;
		log_info("%s: grew from %" PRIu64 " to %" PRIu64 " MiB", fs->bdev_name, out->old_bytes >> 20, out->new_bytes >> 20);
	}
	if (buffer)
		dma_free(buffer);
	free(grow);
	return error;
}
