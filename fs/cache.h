/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The metadata cache of one owner: 4 KiB blocks by number, verified when read, pinned while used, dirty from the first
 * change until a snapshot of them is home.
 *
 * Epochs: the checkpoint draws a line through all owners' streams (cache_begin_epoch, on all owners with no transaction in
 * its apply step). The first change of a block behind the line logs its full image again, and everything that is dirty in
 * front of it goes home; then the journal's tail moves to the line. So the replayed range never has a byte range of a block
 * without an earlier full image.
 *
 * A block is in the cache of the owner whose structure it belongs to (maps, AG headers, inode and orphan blocks: owner of
 * the AG; tree and xattr blocks: owner of the inode). Only tx_dirty changes contents.
 */
#ifndef LANEFS_FS_CACHE_H
#define LANEFS_FS_CACHE_H

#include "fs/fs_internal.h"

struct buf {
	struct cds_hlist_node hash;
	struct cds_list_head lru;       /* clean and unpinned */
	struct cds_list_head dirty;     /* dirty list, while logged */
	struct cds_list_head home;      /* homing list, while to_home */
	uint64_t block;
	uint64_t owner_id;              /* block_header.owner */
	uint8_t *data;                  /* FS_BLOCK_SIZE bytes, DMA memory */
	struct fiber_cond wait;         /* for reading to end */
	uint64_t last_part;             /* stream number of the last record */
	unsigned pins;
	uint16_t type;                  /* enum block_type */
	bool reading, valid;
	bool fresh;                     /* made by buf_new, nothing logged yet: dropped when unpinned */
	bool logged;                    /* full image logged in this epoch: on the dirty list */
	bool to_home;                   /* has records of the last epoch: on the homing list */
	bool homing;                    /* a snapshot is on its way home */
	bool dead;                      /* freed: out of the hash, memory goes when unpinned and not homing */
};

int cache_create(struct owner *owner, uint64_t bytes) MUST_CHECK;
void cache_destroy(struct owner *owner);

/* The block, read and verified if need be, pinned. -EUCLEAN (logged), -EIO, -ENODEV, -ENOMEM. */
MAY_WAIT int buf_get(struct owner *owner, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out) MUST_CHECK;
/* A block with new content: zeroed, header filled, pinned, not read. The caller has reserved the block and fills it in
 * its apply step. Dropped if unpinned before a transaction logged it. A map that another operation has made meanwhile is
 * shared. */
MAY_WAIT int buf_new(struct owner *owner, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out) MUST_CHECK;
/* Cached and valid: pinned; otherwise NULL. Does not wait. */
struct buf *buf_find(struct owner *owner, uint64_t block);
void buf_pin(struct buf *buf);
void buf_put(struct owner *owner, struct buf *buf);
/* The block was freed by the transaction being applied: not written home any more. The pin stays the caller's. */
void buf_kill(struct owner *owner, struct buf *buf);
/* A clean block that nobody uses is cached no more; nothing if it is not cached. */
void cache_drop(struct owner *owner, uint64_t block);
/* For one who reads the device: the cached block, or NULL, and whether it is newer than what the device has. Not pinned, good
 * until the caller waits. Writes home that were begun so far: where the number stays, none was begun meanwhile. */
const struct buf *cache_peek(const struct owner *owner, uint64_t block, bool *out_ahead);
uint64_t cache_home_writes(const struct owner *owner);
/* A record of the part being applied (stream number @part) covers a change of this pinned block. */
void buf_logged(struct owner *owner, struct buf *buf, uint64_t part);

/* Reads the blocks of these that are not cached, at once; they are then found by buf_get, if there was room for them and
 * they are good. Only blocks that the caller knows to stay what they are. Best effort. */
enum { CACHE_PREFETCH_MAX = 16 };
struct buf_wish {
	uint64_t block, owner_id;
	enum block_type type;
};
MAY_WAIT void cache_prefetch(struct owner *owner, const struct buf_wish *wishes, unsigned count);

/* Room for @count pinned blocks of one operation; waits, with no lock held. */
MAY_WAIT void cache_reserve(struct owner *owner, unsigned count);
void cache_unreserve(struct owner *owner, unsigned count);
/* Draws the line: what is dirty now is to go home, the next change of any block logs a full image. No wait. The last line's
 * blocks must be home. */
void cache_begin_epoch(struct owner *owner);
/* Sends home what the last line left to do; waits for its own writes, not for a FLUSH. 0, or the error that stopped the
 * filesystem. */
MAY_WAIT int cache_home(struct owner *owner) MUST_CHECK;
/* Share of the cache that is dirty is at half or more. */
bool cache_dirty_high(const struct owner *owner);

struct cache_stats {
	uint64_t blocks, limit, dirty, hits, misses;
};
void cache_stats_read(const struct owner *owner, struct cache_stats *out);

#endif
