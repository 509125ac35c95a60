/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reaping: background fibers finish what stands in the orphan chains. An inode without links and without lookup counts
 * loses its blocks and its slot; a truncate that was cut short is done. Both in bounded transactions, so that a crash
 * in between finds the rest in the chain again. What fails (an unreadable block, a stopped filesystem) stays in the
 * chain for the next mount, or for fsck.
 *
 * The queue holds numbers, not inodes: an inode may stand in it twice, or be gone when its turn comes.
 */
#include <inttypes.h>
#include <stdlib.h>

#include "fs/file.h"
#include "fs/inode_internal.h"
#include "fs/xattr.h"

enum { QUEUE_CAPACITY_MIN = 64 };

static MAY_WAIT void reaper_main(void *arg);

int reap_queue_create(struct inode_table *table)
{
	struct reap_queue *queue = &table->reap;
	queue->inos = malloc(QUEUE_CAPACITY_MIN * sizeof(*queue->inos));
	queue->capacity = QUEUE_CAPACITY_MIN;
	fiber_cond_init(&queue->progress);
	for (unsigned i = 0; i < REAPERS_MAX; i++)
		queue->reapers[i].table = table;
	return queue->inos ? 0 : -ENOMEM;
}

static int queue_grow(struct reap_queue *queue)
{
	uint64_t *inos = malloc(2 * queue->capacity * sizeof(*inos));
	if (!inos)
		return -ENOMEM;
	for (unsigned i = 0; i < queue->count; i++)
		inos[i] = queue->inos[(queue->first + i) % queue->capacity];
	free(queue->inos);
	queue->inos = inos;
	queue->capacity *= 2;
	queue->first = 0;
	return 0;
}

static void start_reapers(struct reap_queue *queue)
{
	for (unsigned i = 0; i < REAPERS_MAX && queue->running < queue->count && !queue->paused; i++) {
		struct reaper *reaper = &queue->reapers[i];
		if (reaper->running)
			continue;
		reaper->running = true;
		queue->running++;
		reaper->start = (struct fiber_start){.fn = reaper_main, .arg = reaper, .name = "reaper"};
		fiber_start(&reaper->start);
	}
}

void inode_reap(struct owner *owner, uint64_t ino)
{
	struct reap_queue *queue = &owner->inodes->reap;
	if (fs_may_change(owner->fs))
		return;
	if (queue->count == queue->capacity && queue_grow(queue)) {
		log_warn("%s: no memory to free inode %" PRIu64 " now: the next mount does", owner->fs->bdev_name, ino);
		return;
	}
	queue->inos[(queue->first + queue->count++) % queue->capacity] = ino;
	queue->queued++;
	start_reapers(queue);
}

uint64_t inode_reap_wait(struct owner *owner)
{
	struct reap_queue *queue = &owner->inodes->reap;
	const uint64_t target = queue->queued;
	while (queue->done < target)
		fiber_cond_wait(&queue->progress, "unlinked files being freed");
	return queue->done;
}

/* ---- one inode ---- */

/* The fork's extents, if they are few and short enough to go together with the inode. */
static bool extents_fit(const struct inode *inode)
{
	const struct disk_extent *extents = (const struct disk_extent *)inode->disk.fork;
	for (unsigned i = 0; i < le16_get(inode->disk.fork_count); i++)
		if (le32_get(extents[i].length) > FILE_RUN_MAX)
			return false;
	return true;
}

static int free_extents(struct tx_part *part, const struct inode *inode)
{
	const struct disk_extent *extents = (const struct disk_extent *)inode->disk.fork;
	if (inode->disk.format != FORK_EXTENTS)
		return 0;
	for (unsigned i = 0; i < le16_get(inode->disk.fork_count); i++) {
		const struct run run = {.block = le64_get(extents[i].physical), .count = le32_get(extents[i].length)};
		const int error = tx_free(part, run, RUN_DATA);
		if (error)
			return error;
	}
	return 0;
}

static bool still_unlinked(const struct inode *inode)
{
	return !inode->dead && !le32_get(inode->disk.nlink) && !inode_lookup_count(inode->owner, inode->ino);
}

/* The last transaction: what little is left, the chain's entry, and the slot. -EAGAIN: there is more. */
static MAY_WAIT int free_slot(struct inode *inode, struct inode_free_change *freeing)
{
	const unsigned extents_max = FS_FORK_BYTES / sizeof(struct disk_extent);
	struct tx *tx;
	int error = tx_begin(inode->owner, INODE_FREE_BLOCKS + 3 * extents_max, &tx);
	if (error)
		return error;
	tx->use_held_back = true;
	fiber_rwlock_write(&inode->lock);
	if (still_unlinked(inode)) {
		error = xattr_any(inode) ? -EAGAIN : free_extents(tx_home(tx), inode);
		inode_free_change_init(freeing, inode);
		tx_change(tx_home(tx), &freeing->change);
		if (!error)
			error = tx_prepare(tx);
		if (!error)
			tx_apply(tx);
	}
	fiber_rwlock_unwrite(&inode->lock);
	tx_end(tx);
	return error;
}

static MAY_WAIT int reap_unlinked(struct inode *inode, uint8_t *memory)
{
	int error = 0;
	if (!still_unlinked(inode))
		return 0;
	if (inode_is_dir(inode) && inode->disk.format != FORK_INLINE)
		return fs_corrupt(inode->owner->fs, inode_block_of(inode->owner->fs, inode->ino),
			"directory without links: not empty");
	if (inode->disk.format == FORK_TREE || (inode->disk.format == FORK_EXTENTS && !extents_fit(inode)))
		error = file_free_from(inode, 0, (struct file_tx *)memory);
	/* The range keeps data operations away, but xattrs may come until the slot is free. */
	while (!error) {
		error = xattr_drop_all(inode);
		if (!error)
			error = free_slot(inode, (struct inode_free_change *)memory);
		if (error != -EAGAIN)
			return error;
		error = 0;
	}
	return error;
}

static MAY_WAIT int reap_one(struct reaper *reaper, uint64_t ino)
{
	_Static_assert(sizeof(struct file_tx) <= REAPER_BYTES && sizeof(struct inode_free_change) <= REAPER_BYTES,
		"reaper's memory");
	struct inode *inode;
	int error = inode_get(reaper->table->owner, ino, &inode);
	if (error)
		return error == -ESTALE ? 0 : error;
	if (!inode->orphan || inode->reaping) {
		inode_put(inode);
		return 0;
	}
	inode->reaping = true;
	struct range range;
	range_acquire(&inode->ranges, &range, 0, UINT64_MAX, true);
	if (!le32_get(inode->disk.nlink))
		error = reap_unlinked(inode, reaper->memory);
	else if (inode->orphan)
		error = file_truncate_finish(inode, (struct file_tx *)reaper->memory);
	range_release(&inode->ranges, &range);
	inode->reaping = false;
	inode_put(inode);
	return error;
}

static MAY_WAIT void reaper_main(void *arg)
{
	struct reaper *reaper = arg;
	struct reap_queue *queue = &reaper->table->reap;
	struct fs *fs = reaper->table->owner->fs;
	while (queue->count) {
		const uint64_t ino = queue->inos[queue->first];
		queue->first = (queue->first + 1) % queue->capacity;
		queue->count--;
		const int error = fs_may_change(fs) ? 0 : reap_one(reaper, ino);
		if (error && !fs_stopped(fs))
			log_warn("%s: inode %" PRIu64 " cannot be freed (%s): the next mount tries again",
				fs->bdev_name, ino, strerror(-error));
		queue->done++;
		fiber_cond_broadcast(&queue->progress);
	}
	reaper->running = false;
	queue->running--;
	fiber_cond_broadcast(&queue->progress);
}

/* ---- after a crash ---- */

static MAY_WAIT int found(struct owner *owner, uint64_t ino, uint64_t block, uint32_t index)
{
	struct inode *inode;
	const int error = inode_get(owner, ino, &inode);
	if (error == -ENOMEM)
		return error;
	if (error) {
		log_warn(
			"%s: orphan inode %" PRIu64 " cannot be read: %s", owner->fs->bdev_name, ino, strerror(-error));
		return 0;
	}
	inode->orphan = true;
	owner->inodes->chained++;
	inode->orphan_block = block;
	inode->orphan_index = index;
	inode->truncating = le32_get(inode->disk.nlink);
	orphan_hold(inode);
	if (inode->truncating)
		inode_reap(owner, ino);
	else
		inode_unlinked(inode); /* with a count, of a legacy, it is still in use */
	inode_put(inode);
	return 0;
}

static MAY_WAIT int found_block(struct owner *owner, uint32_t ag, uint64_t block, uint64_t *inos, uint64_t *out_next)
{
	struct buf *buf;
	int error = buf_get(owner, block, BLOCK_ORPHANS, ag, &buf);
	if (error)
		return error;
	const struct orphan_block *orphans = (const struct orphan_block *)buf->data;
	*out_next = le64_get(orphans->next);
	for (uint32_t i = 0; i < FS_ORPHANS_PER_BLOCK; i++)
		inos[i] = le64_get(orphans->inode[i]);
	buf_put(owner, buf);
	if (*out_next)
		orphan_chain_before(owner->inodes, *out_next, block);
	for (uint32_t i = 0; i < FS_ORPHANS_PER_BLOCK && !error; i++)
		if (inos[i])
			error = found(owner, inos[i], block, i);
	return error;
}

static MAY_WAIT int found_ag(struct owner *owner, uint32_t ag, uint64_t *inos)
{
	struct buf *buf;
	int error = buf_get(owner, ag_first_block(&owner->fs->super, ag), BLOCK_AG_HEADER, ag, &buf);
	if (error)
		return error;
	const struct ag_header *header = (const struct ag_header *)buf->data;
	uint64_t block = le32_get(header->orphan_count) ? le64_get(header->orphan_head) : 0;
	buf_put(owner, buf);
	for (uint32_t steps = ag_block_count(&owner->fs->super, ag); block && steps && !error; steps--)
		error = found_block(owner, ag, block, inos, &block);
	return error;
}

/* The chains stand still until all are read: reaping starts then. */
int inode_reap_start(struct owner *owner)
{
	const struct fs *fs = owner->fs;
	struct reap_queue *queue = &owner->inodes->reap;
	queue->paused = true;
	uint64_t *inos = malloc(FS_ORPHANS_PER_BLOCK * sizeof(*inos));
	int error = inos ? 0 : -ENOMEM;
	for (uint32_t ag = owner->index; ag < le32_get(fs->super.ag_count) && !error; ag += fs->owner_count) {
		error = found_ag(owner, ag, inos);
		if (error && error != -ENOMEM) {
			log_warn("%s: AG %u: its unlinked files cannot be freed: %s", fs->bdev_name, ag,
				strerror(-error));
			error = 0;
		}
	}
	free(inos);
	/* After an error, too: whoever gives the mount up waits for what is in the queue. */
	queue->paused = false;
	start_reapers(queue);
	return error;
}
