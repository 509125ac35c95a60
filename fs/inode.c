/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inodes in memory: one array of structs, sized at mount and touched lazily; a hash by number; an LRU of those that
 * nobody references. A struct that is being loaded is in the hash already, so that there is one loader and others wait
 * for it.
 *
 * An inode that leaves memory takes its last_part along. The table remembers the highest such number, and an inode that
 * is loaded starts with it: an fsync then waits for a little more than it must, never for less.
 */
#include <stdlib.h>

#include "fs/inode_internal.h"
#include "fs/op.h"

enum { INODE_COUNT_MIN = 1024, OPERATIONS_DEFAULT = 256 };

static int slab_create(struct inode_table *table, unsigned count_max)
{
	table->count_max = MAX(count_max, (unsigned)INODE_COUNT_MIN);
	table->slab = calloc(table->count_max, sizeof(*table->slab));
	unsigned buckets = INODE_COUNT_MIN;
	while (buckets < table->count_max)
		buckets *= 2;
	table->bucket_mask = buckets - 1;
	table->buckets = calloc(buckets, sizeof(*table->buckets));
	return table->slab && table->buckets ? 0 : -ENOMEM;
}

int inode_table_create(struct owner *owner, unsigned count_max)
{
	const struct fs *fs = owner->fs;
	struct inode_table *table = calloc(1, sizeof(*table));
	if (!table)
		return -ENOMEM;
	owner->inodes = table;
	table->owner = owner;
	CDS_INIT_LIST_HEAD(&table->unused);
	CDS_INIT_LIST_HEAD(&table->lru);
	CDS_INIT_LIST_HEAD(&table->times);
	fiber_cond_init(&table->forget_idle);
	fiber_mutex_init(&table->flushing);
	fiber_mutex_init(&table->rename);
	fiber_mutex_init(&table->copying);
	int error = inode_grow_reserve(owner, le32_get(fs->super.ag_count));
	if (!error) {
		inode_grow_open(owner);
		error = slab_create(table, count_max);
	}
	if (!error)
		error = reap_queue_create(table);
	if (!error)
		error = op_pool_create(owner, fs->options.requests_max ? fs->options.requests_max : OPERATIONS_DEFAULT);
	if (error)
		inode_table_destroy(owner);
	return error;
}

int inode_grow_reserve(struct owner *owner, uint32_t total)
{
	struct inode_table *table = owner->inodes;
	const unsigned owners = owner->fs->owner_count;
	const unsigned count = owner->index < total ? (total - owner->index - 1) / owners + 1 : 0;
	if (count <= table->ag_room)
		return 0;
	struct ag_inodes **ags = realloc(table->ags, count * sizeof(*ags));
	if (!ags)
		return -ENOMEM;
	table->ags = ags;
	for (; table->ag_room < count; table->ag_room++) {
		if (!(ags[table->ag_room] = calloc(1, sizeof(**ags))))
			return -ENOMEM;
		fiber_cond_init(&ags[table->ag_room]->idle);
	}
	return 0;
}

void inode_grow_open(struct owner *owner) { owner->inodes->ag_count = owner->inodes->ag_room; }

void inode_table_destroy(struct owner *owner)
{
	struct inode_table *table = owner->inodes;
	if (!table)
		return;
	op_pool_destroy(owner);
	for (unsigned i = 0; i < table->ag_room; i++) {
		free(table->ags[i]->blocks);
		free(table->ags[i]);
	}
	for (unsigned i = 0; i < REACTOR_COUNT_MAX; i++) {
		free(table->forget[i].spare);
		while (table->forget[i].first) {
			struct forget_batch *batch = table->forget[i].first;
			table->forget[i].first = batch->next;
			free(batch);
		}
	}
	free(table->ags);
	free(table->lookups.entries);
	free(table->orphan_places.entries);
	free(table->chain_before.entries);
	free(table->reap.inos);
	dma_free(table->copy_buffer);
	free(table->buckets);
	free(table->slab);
	free(table);
	owner->inodes = NULL;
}

/* ---- structs ---- */

static struct cds_hlist_head *bucket(struct inode_table *table, uint64_t ino)
{
	return &table->buckets[(ino * 0x9e3779b97f4a7c15ull >> 32) & table->bucket_mask];
}

struct inode *inode_find(struct inode_table *table, uint64_t ino)
{
	struct inode *inode;
	cds_hlist_for_each_entry_2(inode, bucket(table, ino), hash)
		if (inode->ino == ino)
			return inode;
	return NULL;
}

static struct inode *evict(struct inode_table *table)
{
	if (cds_list_empty(&table->lru))
		return NULL;
	struct inode *inode = cds_list_first_entry(&table->lru, struct inode, lru);
	cds_list_del(&inode->lru);
	cds_hlist_del(&inode->hash);
	table->evicted_part = MAX(table->evicted_part, inode->last_part);
	table->cached--;
	orphan_evicted(inode);
	return inode;
}

struct inode *inode_take(struct inode_table *table, uint64_t ino)
{
	struct inode *inode;
	if (!cds_list_empty(&table->unused)) {
		inode = cds_list_first_entry(&table->unused, struct inode, lru);
		cds_list_del(&inode->lru);
	} else if (table->slab_used < table->count_max) {
		inode = &table->slab[table->slab_used++];
	} else if (!(inode = evict(table))) {
		return NULL;
	}
	memset(inode, 0, sizeof(*inode));
	inode->owner = table->owner;
	inode->ino = ino;
	inode->refs = 1;
	inode->last_part = inode->last_data_part = table->evicted_part;
	fiber_cond_init(&inode->loaded);
	fiber_rwlock_init(&inode->lock);
	range_lock_init(&inode->ranges);
	table->cached++;
	table->referenced++;
	return inode;
}

void inode_publish(struct inode *inode)
{
	struct inode_table *table = inode->owner->inodes;
	struct inode *older = inode_find(table, inode->ino);
	if (older)
		inode_bury(older, -ESTALE);
	cds_hlist_add_head(&inode->hash, bucket(table, inode->ino));
}

void inode_bury(struct inode *inode, int error)
{
	assert(!inode->dead && inode->refs);
	cds_hlist_del(&inode->hash);
	inode_times_clean(inode);
	inode->dead = true;
	inode->load_error = error;
}

void inode_ref(struct inode *inode)
{
	if (inode->refs++)
		return;
	inode->owner->inodes->referenced++;
	if (!inode->times_dirty)
		cds_list_del(&inode->lru);
}

void inode_put(struct inode *inode)
{
	struct inode_table *table = inode->owner->inodes;
	assert(inode->refs);
	if (--inode->refs)
		return;
	table->referenced--;
	if (inode->dead) {
		table->cached--;
		table->evicted_part = MAX(table->evicted_part, inode->last_part);
		cds_list_add(&inode->lru, &table->unused);
	} else if (!inode->times_dirty) {
		cds_list_add_tail(&inode->lru, &table->lru);
	}
}

/* ---- loading ---- */

/* Whether the number can be that of an inode at all. The root has one number only. */
static bool number_valid(const struct fs *fs, uint64_t ino)
{
	if (ino == FS_ROOT_INODE)
		return true;
	const uint32_t ag = ino_ag(ino);
	return ino < 1ull << (32 + FS_INODE_BLOCK_BITS + FS_INODE_SLOT_BITS) && ino != le64_get(fs->super.root_place) &&
		ag < le32_get(fs->super.ag_count) && ino_slot(ino) < FS_INODES_PER_BLOCK &&
		ino_ag_block(ino) >= ag_fixed_blocks(&fs->super) && ino_ag_block(ino) < ag_block_count(&fs->super, ag);
}

static MAY_WAIT int read_record(struct inode *inode)
{
	struct owner *owner = inode->owner;
	const struct fs *fs = owner->fs;
	const uint64_t place = ino_place(fs, inode->ino);
	bool is_inode_block;
	int error = alloc_map_test(owner, ino_ag(place), BLOCK_INODE_MAP, ino_ag_block(place), &is_inode_block);
	if (!error && !is_inode_block)
		error = -ESTALE;
	struct buf *buf;
	if (!error)
		error = buf_get(owner, inode_block_of(fs, inode->ino), BLOCK_INODES, ino_ag(place), &buf);
	if (error)
		return error;
	inode->disk = ((const struct inode_block *)buf->data)->inode[ino_slot(place)];
	buf_put(owner, buf);
	if (!inode_mode(inode))
		return -ESTALE;
	inode->orphan = !le32_get(inode->disk.nlink);
	orphan_loaded(inode);
	return 0;
}

static MAY_WAIT int load(struct inode_table *table, uint64_t ino, struct inode **out)
{
	if (!number_valid(table->owner->fs, ino))
		return -ESTALE;
	assert(owner_of_ino(table->owner->fs, ino) == table->owner);
	struct inode *inode = inode_take(table, ino);
	if (!inode)
		return -ENOMEM;
	inode->loading = true;
	inode_publish(inode);
	const int error = read_record(inode);
	inode->loading = false;
	fiber_cond_broadcast(&inode->loaded);
	if (error && !inode->dead)
		inode_bury(inode, error);
	if (inode->dead) {
		const int why = inode->load_error;
		inode_put(inode);
		return why;
	}
	*out = inode;
	return 0;
}

int inode_get(struct owner *owner, uint64_t ino, struct inode **out)
{
	struct inode *inode = inode_find(owner->inodes, ino);
	if (!inode)
		return load(owner->inodes, ino, out);
	inode_ref(inode);
	while (inode->loading)
		fiber_cond_wait(&inode->loaded, "an inode being loaded");
	if (UNLIKELY(inode->dead)) {
		const int why = inode->load_error;
		inode_put(inode);
		return why;
	}
	*out = inode;
	return 0;
}

MAY_WAIT void inode_prefetch(struct owner *owner, const uint64_t *inos, unsigned count)
{
	const struct fs *fs = owner->fs;
	struct buf_wish wishes[CACHE_PREFETCH_MAX];
	unsigned wished = 0;
	for (unsigned i = 0; i < count && wished < CACHE_PREFETCH_MAX; i++) {
		const uint64_t ino = inos[i];
		bool is_inode_block = false;
		if (inode_find(owner->inodes, ino) || !number_valid(fs, ino))
			continue;
		const uint64_t place = ino_place(fs, ino);
		if (alloc_map_test(owner, ino_ag(place), BLOCK_INODE_MAP, ino_ag_block(place), &is_inode_block) ||
			!is_inode_block)
			continue;
		wishes[wished++] = (struct buf_wish){
			.block = inode_block_of(fs, ino), .owner_id = ino_ag(place), .type = BLOCK_INODES};
	}
	cache_prefetch(owner, wishes, wished);
}

/* ---- the record ---- */

int inode_pin(struct tx_part *part, struct inode *inode)
{
	const struct fs *fs = part->tx->fs;
	struct buf *buf;
	assert(part->owner == inode->owner);
	return tx_pin(part, inode_block_of(fs, inode->ino), BLOCK_INODES, inode_ag(fs, inode->ino), &buf);
}

void inode_log(struct tx_part *part, struct inode *inode)
{
	const struct fs *fs = part->tx->fs;
	struct buf *buf = buf_find(part->owner, inode_block_of(fs, inode->ino));
	assert(buf && "pinned by inode_pin");
	struct inode_block *block = (struct inode_block *)buf->data;
	const unsigned slot = ino_slot(ino_place(fs, inode->ino));
	block->inode[slot] = inode->disk;
	tx_dirty(part, buf, offsetof(struct inode_block, inode) + slot * FS_INODE_SIZE, FS_INODE_SIZE);
	buf_put(part->owner, buf);
	inode->last_part = stream_next_number(part->owner);
	inode_times_clean(inode);
}

void inode_blocks_add(struct inode *inode, int64_t blocks)
{
	inode->disk.blocks = le64_set(le64_get(inode->disk.blocks) + (uint64_t)blocks);
}

static struct timespec time_of(le64_t sec, le32_t nsec)
{
	return (struct timespec){.tv_sec = (time_t)le64_get(sec), .tv_nsec = le32_get(nsec)};
}

void inode_attr(const struct inode *inode, struct fs_attr *out) { inode_disk_attr(&inode->disk, inode->ino, out); }

void inode_disk_attr(const struct disk_inode *disk, uint64_t ino, struct fs_attr *out)
{
	const uint32_t mode = le16_get(disk->mode);
	const uint64_t number = le64_get(disk->rdev_or_entries);
	const bool device = S_ISCHR(mode) || S_ISBLK(mode);
	*out = (struct fs_attr){
		.ino = ino,
		.size = le64_get(disk->size),
		.blocks_512 = le64_get(disk->blocks) * (FS_BLOCK_SIZE / 512),
		.atime = time_of(disk->atime_sec, disk->atime_nsec),
		.mtime = time_of(disk->mtime_sec, disk->mtime_nsec),
		.ctime = time_of(disk->ctime_sec, disk->ctime_nsec),
		.btime = time_of(disk->btime_sec, disk->btime_nsec),
		.mode = mode,
		.nlink = le32_get(disk->nlink),
		.uid = le32_get(disk->uid),
		.gid = le32_get(disk->gid),
		.rdev_major = device ? (uint32_t)(number >> 32) : 0,
		.rdev_minor = device ? (uint32_t)number : 0,
		.flags = le32_get(disk->flags),
		.generation = le32_get(disk->generation),
	};
}

void inode_stats_read(const struct owner *owner, struct inode_stats *out)
{
	const struct inode_table *table = owner->inodes;
	*out = (struct inode_stats){
		.cached = table->cached,
		.referenced = table->referenced,
		.lookups = table->lookups.used,
		.orphans = table->reap.queued - table->reap.done,
		.chain_steps = table->chain_steps,
		.chained = table->chained,
	};
}
