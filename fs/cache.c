/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The metadata cache of one owner. See cache.h for what a block's life looks like.
 *
 * Lists: a clean block that nobody pins stands on the LRU and may be evicted; a block with records of this epoch stands on the
 * dirty list; when the checkpoint draws its line the dirty list becomes the homing list. A home write sends a copy. The copy
 * may contain changes of the new epoch: it is sent once they are durable, and the block stays dirty for the next line.
 *
 * A block that is freed before it is home is not written home any more. Until the part that frees it is durable, a crash
 * brings it back to life, and then it needs its records: cache_home waits for that part, so the tail does not pass the
 * block's records before.
 *
 * Memory: `limit` blocks, and half as many again for every owner for peaks: every owner admits pins by cache_reserve up to
 * half the limit, and all of them may be pins of one owner's blocks. So a block that waits for room always gets it once the
 * checkpoint has cleaned others.
 */
#include "fs/cache.h"

#include <stdlib.h>

#include "fs/journal.h"
#include "fs/replay.h"

enum { CACHE_BLOCKS_MIN = 128, CACHE_BLOCKS_SPARE = 64, HOME_BATCH = 32 };

struct prefetch {
	struct io io;
	struct buf *buf;
};

struct home_write {
	struct io io;
	struct buf *buf;
	uint8_t *copy;
};

struct cache {
	struct cds_hlist_head *hash;
	unsigned hash_mask;
	struct cds_list_head lru, dirty, to_home;
	struct cds_hlist_head free_bufs;
	struct dma_pool *blocks;
	uint8_t *snapshots;             /* DMA, of the home writes: a checkpoint does without memory that it could fail to get */
	struct home_write home[HOME_BATCH];
	struct fiber_cond room;         /* blocks became evictable, or pins came back */
	unsigned count, limit, dirty_count, reserved;
	uint64_t line_end, line_first;  /* tickets of those who wait in cache_reserve */
	uint64_t killed_part;           /* last part that freed a block of the homing list */
	uint64_t hits, misses, home_writes;
	bool prefetching;
	struct prefetch prefetch[CACHE_PREFETCH_MAX];
};

static struct cds_hlist_head *bucket(struct cache *cache, uint64_t block)
{
	return &cache->hash[(block * 0x9e3779b97f4a7c15ull >> 32) & cache->hash_mask];
}

int cache_create(struct owner *owner, uint64_t bytes)
{
	struct cache *cache = calloc(1, sizeof(*cache));
	if (!cache)
		return -ENOMEM;
	cache->limit = MAX((unsigned)(bytes / FS_BLOCK_SIZE), CACHE_BLOCKS_MIN);
	unsigned buckets = 64;
	while (buckets < cache->limit && buckets < 1u << 20)
		buckets *= 2;
	cache->hash_mask = buckets - 1;
	cache->hash = calloc(buckets, sizeof(*cache->hash));
	CDS_INIT_LIST_HEAD(&cache->lru);
	CDS_INIT_LIST_HEAD(&cache->dirty);
	CDS_INIT_LIST_HEAD(&cache->to_home);
	CDS_INIT_HLIST_HEAD(&cache->free_bufs);
	fiber_cond_init(&cache->room);
	owner->cache = cache;
	int error = cache->hash ? 0 : -ENOMEM;
	if (!error)
		error = dma_pool_create(FS_BLOCK_SIZE, FS_BLOCK_SIZE, cache->limit + owner->fs->owner_count * div_round_up(cache->limit, 2) +
			CACHE_BLOCKS_SPARE, &cache->blocks);
	if (!error && !(cache->snapshots = dma_alloc(HOME_BATCH * FS_BLOCK_SIZE, FS_BLOCK_SIZE)))
		error = -ENOMEM;
	if (error)
		cache_destroy(owner);
	return error;
}

static void buf_free(struct cache *cache, struct buf *buf)
{
	dma_pool_put(cache->blocks, buf->data);
	cache->count--;
	cds_hlist_add_head(&buf->hash, &cache->free_bufs);
}

void cache_destroy(struct owner *owner)
{
	struct cache *cache = owner->cache;
	if (!cache)
		return;
	for (unsigned i = 0; cache->hash && i <= cache->hash_mask; i++) {
		struct buf *buf, *next;
		cds_hlist_for_each_entry_safe_2(buf, next, &cache->hash[i], hash) {
			cds_hlist_del(&buf->hash);
			dma_pool_put(cache->blocks, buf->data);
			free(buf);
		}
	}
	struct buf *buf, *next;
	cds_hlist_for_each_entry_safe_2(buf, next, &cache->free_bufs, hash)
		free(buf);
	if (cache->blocks)
		dma_pool_destroy(cache->blocks);
	if (cache->snapshots)
		dma_free(cache->snapshots);
	free(cache->hash);
	free(cache);
	owner->cache = NULL;
}

static struct buf *lookup(struct cache *cache, uint64_t block)
{
	struct buf *buf;
	cds_hlist_for_each_entry_2(buf, bucket(cache, block), hash)
		if (buf->block == block)
			return buf;
	return NULL;
}

static void unhash(struct buf *buf)
{
	cds_hlist_del(&buf->hash);
}

static void evict_oldest(struct cache *cache)
{
	struct buf *victim = cds_list_first_entry(&cache->lru, struct buf, lru);
	cds_list_del(&victim->lru);
	unhash(victim);
	buf_free(cache, victim);
}

/* A buf with memory, not in the hash, if there is room. *out NULL: there is none. */
static int buf_take_now(struct cache *cache, struct buf **out)
{
	*out = NULL;
	/* Two for one: after a peak it shrinks to the limit again. */
	for (unsigned i = 0; i < 2 && cache->count >= cache->limit && !cds_list_empty(&cache->lru); i++)
		evict_oldest(cache);
	uint8_t *data = dma_pool_get(cache->blocks);
	if (!data && !cds_list_empty(&cache->lru)) { /* no memory for more blocks than there are */
		evict_oldest(cache);
		data = dma_pool_get(cache->blocks);
	}
	if (!data)
		return dma_pool_free_count(cache->blocks) ? -ENOMEM : 0;
	struct buf *buf;
	if (!cache->free_bufs.next) {
		buf = calloc(1, sizeof(*buf));
	} else {
		buf = cds_hlist_entry(cache->free_bufs.next, struct buf, hash);
		cds_hlist_del(&buf->hash);
		memset(buf, 0, sizeof(*buf));
	}
	if (!buf) {
		dma_pool_put(cache->blocks, data);
		return -ENOMEM;
	}
	buf->data = data;
	fiber_cond_init(&buf->wait);
	cache->count++;
	*out = buf;
	return 0;
}

/* Waits for an evictable block when the cache is full. NULL: no memory, or the filesystem has stopped. */
static MAY_WAIT struct buf *buf_take(struct owner *owner)
{
	struct cache *cache = owner->cache;
	for (;;) {
		struct buf *buf;
		if (buf_take_now(cache, &buf) || buf)
			return buf;
		if (fs_stopped(owner->fs))
			return NULL;
		journal_want_checkpoint(owner);
		fiber_cond_wait_for(&cache->room, 100 * NS_PER_MS, "room in the metadata cache");
	}
}

void buf_pin(struct buf *buf)
{
	if (buf->pins++ == 0 && buf->lru.next) {
		cds_list_del(&buf->lru);
		buf->lru.next = NULL;
	}
}

/* Puts an unpinned block where it belongs: memory back, or the LRU, or it stays on the dirty list. */
static void settle(struct owner *owner, struct buf *buf)
{
	struct cache *cache = owner->cache;
	if (buf->pins || buf->homing || buf->to_home)
		return;
	if (buf->dead) {
		buf_free(cache, buf);
	} else if (buf->fresh) {
		unhash(buf);
		buf_free(cache, buf);
	} else if (!buf->logged && !buf->lru.next) {
		cds_list_add_tail(&buf->lru, &cache->lru);
	} else {
		return;
	}
	fiber_cond_signal(&cache->room);
}

void buf_put(struct owner *owner, struct buf *buf)
{
	assert(buf->pins);
	buf->pins--;
	settle(owner, buf);
}

struct buf *buf_find(struct owner *owner, uint64_t block)
{
	struct buf *buf = lookup(owner->cache, block);
	if (!buf || !buf->valid || buf->reading)
		return NULL;
	buf_pin(buf);
	return buf;
}

static MAY_WAIT int read_block(struct owner *owner, struct buf *buf)
{
	struct fs *fs = owner->fs;
	bool check_crc = true;
	const struct replay_image_table *overlay = __atomic_load_n(&fs->overlay, __ATOMIC_ACQUIRE);
	const void *image = overlay ? replay_image(overlay, buf->block) : NULL;
	if (image) {
		memcpy(buf->data, image, FS_BLOCK_SIZE);
		check_crc = false;
	} else {
		const int error = bdev_read(owner->channel, buf->data, buf->block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
		if (error)
			return error == -ENODEV ? -EIO : error;
	}
	const char *field = block_verify(&fs->super, buf->data, buf->block, buf->type, buf->owner_id, check_crc);
	return field ? fs_corrupt(fs, buf->block, field) : 0;
}

/* Waits for another fiber's read of this block; the block may be gone afterwards. */
static MAY_WAIT void wait_for_read(struct owner *owner, struct buf *buf)
{
	buf_pin(buf);
	while (buf->reading)
		fiber_cond_wait(&buf->wait, "a metadata block being read");
	buf_put(owner, buf);
}

int buf_get(struct owner *owner, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out)
{
	struct cache *cache = owner->cache;
	struct buf *buf;
	while ((buf = lookup(cache, block)) && buf->reading)
		wait_for_read(owner, buf);
	if (buf) {
		cache->hits++;
		if (buf->type != type || (owner_id != BLOCK_OWNER_ANY && buf->owner_id != owner_id))
			return fs_corrupt(owner->fs, block, "type or owner (block used twice)");
		buf_pin(buf);
		*out = buf;
		return 0;
	}
	struct buf *taken = buf_take(owner);
	if (!taken)
		return fs_stopped(owner->fs) ? -EIO : -ENOMEM;
	if (lookup(cache, block)) {     /* somebody was faster while we waited for memory */
		buf_free(cache, taken);
		return buf_get(owner, block, type, owner_id, out);
	}
	buf = taken;
	cache->misses++;
	buf->block = block;
	buf->type = type;
	buf->owner_id = owner_id;
	buf->pins = 1;
	buf->reading = true;
	cds_hlist_add_head(&buf->hash, bucket(cache, block));
	const int error = read_block(owner, buf);
	buf->reading = false;
	fiber_cond_broadcast(&buf->wait);
	if (error) {
		unhash(buf);
		buf->dead = true;
		buf_put(owner, buf);
		return error;
	}
	buf->owner_id = le64_get(((struct block_header *)buf->data)->owner);
	buf->valid = true;
	*out = buf;
	return 0;
}

/* ---- reading ahead ---- */

/* Puts a block that is being read into the cache. False: it is there, or there is no room. */
static bool prefetch_begin(struct owner *owner, const struct buf_wish *wish, struct prefetch *prefetch)
{
	struct cache *cache = owner->cache;
	struct buf *buf;
	if (lookup(cache, wish->block) || buf_take_now(cache, &buf) || !buf)
		return false;
	cache->misses++;
	buf->block = wish->block;
	buf->type = (uint16_t)wish->type;
	buf->owner_id = wish->owner_id;
	buf->pins = 1;
	buf->reading = true;
	cds_hlist_add_head(&buf->hash, bucket(cache, wish->block));
	prefetch->buf = buf;
	io_prepare(&prefetch->io, owner->channel, IO_READ, buf->data, wish->block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
	return true;
}

/* What could not be read, or is not what it should be, is dropped: whoever needs it reads it again and says so. */
static void prefetch_end(struct owner *owner, struct buf *buf, bool failed)
{
	failed = failed || block_verify(&owner->fs->super, buf->data, buf->block, buf->type, buf->owner_id, true);
	buf->reading = false;
	fiber_cond_broadcast(&buf->wait);
	if (failed) {
		unhash(buf);
		buf->dead = true;
	} else {
		buf->owner_id = le64_get(((struct block_header *)buf->data)->owner);
		buf->valid = true;
	}
	buf_put(owner, buf);
}

void cache_prefetch(struct owner *owner, const struct buf_wish *wishes, unsigned count)
{
	struct cache *cache = owner->cache;
	if (cache->prefetching || owner->fs->overlay || count < 2)
		return; /* one at a time; the others read what they need themselves */
	cache->prefetching = true;
	struct io_group group;
	io_group_init(&group);
	unsigned begun = 0;
	for (unsigned i = 0; i < count && begun < CACHE_PREFETCH_MAX; i++)
		if (prefetch_begin(owner, &wishes[i], &cache->prefetch[begun]))
			io_group_submit(&group, &cache->prefetch[begun++].io);
	const int error = io_group_wait(&group); /* that of one of them */
	for (unsigned i = 0; i < begun; i++)
		prefetch_end(owner, cache->prefetch[i].buf, error && cache->prefetch[i].io.result);
	cache->prefetching = false;
}

/* A map may have been made by somebody else while we waited; other blocks are new because somebody reserved them. */
static bool is_map(enum block_type type)
{
	return type == BLOCK_BLOCK_MAP || type == BLOCK_INODE_MAP || type == BLOCK_INODE_FREE_MAP;
}

int buf_new(struct owner *owner, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out)
{
	struct cache *cache = owner->cache;
	struct buf *buf = buf_take(owner);
	if (!buf)
		return fs_stopped(owner->fs) ? -EIO : -ENOMEM;
	struct buf *old = lookup(cache, block);
	if (old) {                      /* a block of another operation (a map's first use) is shared */
		buf_free(cache, buf);
		if (old->type != type || (!old->fresh && !is_map(type)))
			return fs_corrupt(owner->fs, block, "block map (block used twice)");
		buf_pin(old);
		*out = old;
		return 0;
	}
	memset(buf->data, 0, FS_BLOCK_SIZE);
	block_header_init(buf->data, type, block, le64_get(owner->fs->super.fsid), owner_id);
	buf->block = block;
	buf->type = type;
	buf->owner_id = owner_id;
	buf->pins = 1;
	buf->valid = true;
	buf->fresh = true;
	cds_hlist_add_head(&buf->hash, bucket(cache, block));
	*out = buf;
	return 0;
}

void buf_kill(struct owner *owner, struct buf *buf)
{
	struct cache *cache = owner->cache;
	if (buf->logged) {
		cds_list_del(&buf->dirty);
		cache->dirty_count--;
	}
	if (buf->to_home) {
		cds_list_del(&buf->home);
		cache->killed_part = stream_next_number(owner);
	}
	buf->logged = buf->to_home = false;
	unhash(buf);
	buf->dead = true;
}

const struct buf *cache_peek(const struct owner *owner, uint64_t block, bool *out_ahead)
{
	const struct buf *buf = lookup(owner->cache, block);
	/* Being read, or made for a transaction that may still not come: what the device has is what counts. */
	if (buf && (buf->reading || !buf->valid || buf->fresh))
		buf = NULL;
	*out_ahead = buf && (buf->logged || buf->to_home || buf->homing);
	return buf;
}

uint64_t cache_home_writes(const struct owner *owner) { return owner->cache->home_writes; }

void cache_drop(struct owner *owner, uint64_t block)
{
	struct buf *buf = lookup(owner->cache, block);
	if (!buf || !buf->lru.next)
		return;
	cds_list_del(&buf->lru);
	unhash(buf);
	buf_free(owner->cache, buf);
}

void buf_logged(struct owner *owner, struct buf *buf, uint64_t part)
{
	struct cache *cache = owner->cache;
	if (buf->dead)
		return;
	if (!buf->logged) {
		buf->logged = true;
		buf->fresh = false;
		cds_list_add_tail(&buf->dirty, &cache->dirty);
		cache->dirty_count++;
	}
	buf->last_part = part;
}

void cache_reserve(struct owner *owner, unsigned count)
{
	struct cache *cache = owner->cache;
	/* In line, or those who want little would overtake for ever one who wants much. */
	const uint64_t ticket = cache->line_end++;
	while (ticket != cache->line_first || (cache->reserved && cache->reserved + count > cache->limit / 2))
		fiber_cond_wait(&cache->room, "pins of the metadata cache");
	cache->reserved += count;
	if (++cache->line_first != cache->line_end)
		fiber_cond_broadcast(&cache->room);
}

void cache_unreserve(struct owner *owner, unsigned count)
{
	owner->cache->reserved -= count;
	fiber_cond_broadcast(&owner->cache->room);
}

bool cache_dirty_high(const struct owner *owner)
{
	return owner->cache->dirty_count >= owner->cache->limit / 2;
}

void cache_stats_read(const struct owner *owner, struct cache_stats *out)
{
	const struct cache *cache = owner->cache;
	*out = (struct cache_stats){.blocks = cache->count, .limit = cache->limit, .dirty = cache->dirty_count,
		.hits = cache->hits, .misses = cache->misses};
}

/* ---- home writes ---- */

void cache_begin_epoch(struct owner *owner)
{
	struct cache *cache = owner->cache;
	assert(cds_list_empty(&cache->to_home));
	struct buf *buf, *next;
	cds_list_for_each_entry_safe(buf, next, &cache->dirty, dirty) {
		cds_list_del(&buf->dirty);
		buf->logged = false;
		buf->to_home = true;
		cds_list_add_tail(&buf->home, &cache->to_home);
	}
	cache->dirty_count = 0;
}

static int home_snapshot(struct owner *owner, struct buf *buf, struct home_write *write)
{
	write->buf = buf;
	write->copy = owner->cache->snapshots + (size_t)(write - owner->cache->home) * FS_BLOCK_SIZE;
	assert(!buf->homing);
	memcpy(write->copy, buf->data, FS_BLOCK_SIZE);
	cds_list_del(&buf->home);
	buf->to_home = false;
	buf->homing = true;
	const char *field = block_verify(&owner->fs->super, write->copy, buf->block, buf->type, buf->owner_id, false);
	return field ? fs_stop(owner->fs, fs_corrupt(owner->fs, buf->block, field), buf->block, "a block to be written is bad") : 0;
}

/* Sends the batch once its records are durable, and waits for the writes. With an error nothing is sent. */
static MAY_WAIT int home_batch(struct owner *owner, struct home_write *writes, unsigned count, uint64_t last_part, int error)
{
	if (!error && !sabotage(SABOTAGE_EARLY_HOME))
		error = journal_wait_part(owner, last_part);
	struct io_group group;
	io_group_init(&group);
	for (unsigned i = 0; i < count && !error; i++) {
		owner->cache->home_writes++;
		block_seal(writes[i].copy, stream_durable_sequence(owner));
		io_prepare(&writes[i].io, owner->channel, IO_WRITE, writes[i].copy, writes[i].buf->block << FS_BLOCK_SHIFT,
			FS_BLOCK_SIZE);
		io_group_submit(&group, &writes[i].io);
	}
	const int written = io_group_wait(&group);
	if (written && !sabotage(SABOTAGE_IGNORES_HOME_ERROR))
		error = fs_stop(owner->fs, written, writes[0].buf->block, "metadata write failed");
	for (unsigned i = 0; i < count; i++) {
		writes[i].buf->homing = false;
		settle(owner, writes[i].buf);
	}
	return error;
}

int cache_home(struct owner *owner)
{
	struct cache *cache = owner->cache;
	struct home_write *writes = cache->home;
	int error = 0;
	while (!error && !cds_list_empty(&cache->to_home)) {
		unsigned count = 0;
		uint64_t last_part = 0;
		while (count < HOME_BATCH && !cds_list_empty(&cache->to_home) && !error) {
			struct buf *buf = cds_list_first_entry(&cache->to_home, struct buf, home);
			last_part = MAX(last_part, buf->last_part);
			error = home_snapshot(owner, buf, &writes[count++]);
		}
		error = home_batch(owner, writes, count, last_part, error);
	}
	if (!error)
		error = journal_wait_part(owner, cache->killed_part);
	return error;
}
