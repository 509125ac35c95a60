/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inodes in memory. struct inode holds the disk record as it is; it is the truth, and apply steps copy it into the
 * inode block (inode_log). An inode stays in memory while it is referenced (inode_get .. inode_put), locked or has
 * unlogged times; others are kept on an LRU up to a limit. Lookup counts are kept apart (inode_lookup_*), so that a
 * million inodes that only the kernel remembers cost little.
 *
 * Locks: `lock` guards the record, the trees and xattrs: shared to read, exclusive to change. Taken in ascending inode
 * number over all owners (inode_lock_many). Since only apply steps change the record, and they do not wait, a stretch
 * without a wait on the owner may read the record without the lock.
 *
 * The order in which an operation takes what it may have to wait for: operation memory (op.h), file range (range.h),
 * transaction (tx_begin), the lock of directory renames, inode locks. So whoever holds log space waits for nothing but
 * inode locks, I/O and other owners' steps; and whoever holds inode locks, for the last two only.
 *
 * | inode.c       inodes in memory               | inode_slot.c    free slots of an AG's inode blocks     |
 * | inode_lock.c  locks over all owners          | inode_create.c  changes that make and free inodes      |
 * | inode_count.c lookup counts, forgetting      | orphan.c        changes that enter and leave the chain |
 * | inode_times.c times that are logged later    | reap.c          finishing what stands in the chain     |
 */
#ifndef LANEFS_FS_INODE_H
#define LANEFS_FS_INODE_H

#include "fs/alloc.h"
#include "fs/range.h"

struct inode {
	struct cds_hlist_node hash;
	struct cds_list_head lru;       /* unreferenced */
	struct cds_list_head times_node; /* in the list of those with times_dirty */
	struct owner *owner;
	uint64_t ino;                   /* FS_ROOT_INODE for the root */
	struct disk_inode disk;
	unsigned refs;
	bool loading, dead;             /* dead: slot freed, or loading failed: out of the hash */
	bool times_dirty; /* times in disk are newer than the log's; logged within commit_ms or by fsync */
	bool orphan;                    /* stands in an orphan block. With links: a truncate is not finished */
	bool orphan_ref;                /* an orphan with links: its entry holds a reference */
	bool truncating;                /* there may be blocks past the size: they go before the file may grow */
	bool reaping;                   /* its blocks are being freed: it gets no links any more */
	int load_error;                 /* why it is dead */
	uint32_t orphan_index;
	uint64_t orphan_block;          /* 0: not known, to be searched */
	uint64_t last_part;             /* stream number of the last part that changed this inode (or a later one) */
	uint64_t last_data_part;        /* the same for size and extents: what fdatasync needs */
	struct fiber_cond loaded;
	struct fiber_rwlock lock;
	struct range_lock ranges;
	uint64_t write_goal;            /* block after the last one allocated for this file */
};

int inode_table_create(struct owner *owner, unsigned count_max) MUST_CHECK;
void inode_table_destroy(struct owner *owner);

/* The inode of a number of this owner, referenced. The number is checked against the inode map and the slot: -ESTALE
 * when nothing is there. -EUCLEAN, -EIO, -ENOMEM. */
MAY_WAIT int inode_get(struct owner *owner, uint64_t ino, struct inode **out) MUST_CHECK;
void inode_put(struct inode *inode);

/* Reads what inode_get of these numbers of this owner will need, at once. Only of inodes that cannot go meanwhile. Best
 * effort. */
MAY_WAIT void inode_prefetch(struct owner *owner, const uint64_t *inos, unsigned count);

/* One more reference to an inode that is referenced, or found without a wait. */
void inode_ref(struct inode *inode);

/* Reference and lock over owners, ascending in inode number. Each entry: number and mode; after success .inode is
 * set, for inodes of *all* owners, but may be looked into only there. Entries keep their places; two of the same
 * number (an exclusive one wins) share one lock. -ESTALE and others as inode_get; on failure nothing is held. */
struct inode_lock {
	uint64_t ino;
	bool exclusive;
	struct inode *inode;
};
enum { INODE_LOCKS_MAX = 6 };
MAY_WAIT int inode_lock_many(struct fs *fs, struct inode_lock *locks, unsigned count) MUST_CHECK;
MAY_WAIT void inode_unlock_many(struct fs *fs, struct inode_lock *locks, unsigned count);

/* Prepare and apply, on the owner, exclusive lock held: */
MAY_WAIT int inode_pin(struct tx_part *part, struct inode *inode) MUST_CHECK; /* pins its block */
void inode_log(struct tx_part *part, struct inode *inode);                    /* copies the record; sets last_part */
static inline uint32_t inode_mode(const struct inode *inode) { return le16_get(inode->disk.mode); }
static inline bool inode_is_dir(const struct inode *inode) { return S_ISDIR(inode_mode(inode)); }
static inline uint64_t inode_size(const struct inode *inode) { return le64_get(inode->disk.size); }
void inode_attr(const struct inode *inode, struct fs_attr *out);
void inode_disk_attr(const struct disk_inode *disk, uint64_t ino, struct fs_attr *out);
/* Changes disk times; in an apply step before inode_log, or with times_dirty set. */
enum inode_time { INODE_ATIME = 1, INODE_MTIME = 2, INODE_CTIME = 4, INODE_BTIME = 8 };
void inode_touch(struct inode *inode, unsigned times, struct timespec now);
/* Changes disk times now and has them logged later. False (and nothing changed) when too many inodes wait for that. */
bool inode_touch_lazy(struct inode *inode, unsigned times, struct timespec now);
/* The content was read: the access time as the mount options want it. No wait. */
void inode_accessed(struct inode *inode);
void inode_blocks_add(struct inode *inode, int64_t blocks);
/* Unused bytes at the end of the fork (in front of the xattrs), and the fork's capacity for data. */
static inline unsigned inode_fork_capacity(const struct inode *inode)
{
	return FS_FORK_BYTES - inode->disk.xattr_bytes;
}

/* Enters or leaves the orphan chain of its AG. */
struct orphan_change {
	struct change change;
	struct inode *inode;
	bool add;
	/* ---- private ---- */
	struct buf *header, *block, *before;
	bool restructures;              /* a block enters or leaves the chain */
};
void orphan_change_init(struct orphan_change *orphan, struct inode *inode, bool add);
struct xattr_seed;
/* A new inode as a change of the owner of @ag (see struct change). Fill the fields above the line, add it to the
 * part; after tx_prepare_changes .ino is known, after tx_apply the rest. The disk record is completed by the change
 * itself. */
struct inode_create_change {
	struct change change;
	uint32_t ag;                    /* AG wanted; another of the same owner when it is full */
	struct disk_inode disk;         /* wanted content: mode, ids, times, fork, ...; generation is set in apply */
	bool orphan;                    /* O_TMPFILE: nlink 0, enters the orphan chain */
	bool lookup;                    /* one lookup count for the caller */
	struct xattr_seed *seed;        /* ACLs that it is made with; NULL: none */
	/* ---- results ---- */
	uint64_t ino;
	uint32_t generation;
	/* ---- private ---- */
	struct inode *inode;
	struct inode_slot {
		uint32_t ag, ag_block;
		unsigned index;
		bool new_block;         /* to be made; busy_ag waits for it */
		uint32_t busy_ag;
	} slot;
	struct buf *header, *block, *inode_map, *free_map;
	struct orphan_change orphan_change;
};
void inode_create_change_init(struct inode_create_change *create);
/* Frees the slot of an inode without blocks, in the part of its owner. Leaves the orphan chain too. */
struct inode_free_change {
	struct change change;
	struct inode *inode;
	/* ---- private ---- */
	struct buf *header, *block, *inode_map, *free_map;
	enum slot_freeing {
		SLOT_FREEING_UNSEEN,    /* no room to keep it in mind */
		SLOT_FREEING,
		SLOT_FREEING_BLOCK      /* the last slot in use: its block goes, too */
	} freeing;
	struct orphan_change orphan_change;
};
void inode_free_change_init(struct inode_free_change *free_change, struct inode *inode);
/* Worst case for tx_begin of one such change. */
enum {
	ORPHAN_CHANGE_BLOCKS = 5,
	INODE_CREATE_BLOCKS = 6 + ORPHAN_CHANGE_BLOCKS,
	INODE_FREE_BLOCKS = 5 + ORPHAN_CHANGE_BLOCKS
};

/* Lookup counts of this owner's inodes. -ENOMEM. */
int inode_lookup_add(struct owner *owner, uint64_t ino, uint64_t count) MUST_CHECK;
/* Makes sure that one inode_lookup_add of a new number will succeed; given back by _unreserve (also before that
 * add). */
int inode_lookup_reserve(struct owner *owner) MUST_CHECK;
void inode_lookup_unreserve(struct owner *owner);
/* True when the count fell to zero and the inode has no links: it is to be reaped. */
bool inode_lookup_drop(struct owner *owner, uint64_t ino, uint64_t count);
uint64_t inode_lookup_count(const struct owner *owner, uint64_t ino);
/* In apply steps: the last link went (the inode is reaped now or when its count falls to zero), or the first one
 * came. */
void inode_unlinked(struct inode *inode);
void inode_linked(struct inode *inode);
/* Has a background fiber finish an orphan (frees blocks past size, or all and the slot). Idempotent, no wait. */
void inode_reap(struct owner *owner, uint64_t ino);
/* After a replay: finds the orphans of this owner's AGs and starts reaping. Unmount: waits for all reaping. */
MAY_WAIT int inode_reap_start(struct owner *owner) MUST_CHECK;
/* How many it has finished since the mount. */
MAY_WAIT uint64_t inode_reap_wait(struct owner *owner);
/* Growing: memory for this owner's AGs of a filesystem of @ag_count (-ENOMEM); then they are there. No wait. */
int inode_grow_reserve(struct owner *owner, uint32_t ag_count) MUST_CHECK;
void inode_grow_open(struct owner *owner);
/* Logs the times of this one, if need be; no lock, no transaction held. */
MAY_WAIT int inode_log_times(struct inode *inode) MUST_CHECK;
/* Logs times_dirty of all inodes of this owner (periodic and at sync). 0, or the first error. */
MAY_WAIT int inode_flush_times(struct owner *owner);
/* Unmount, on every owner in turn: waits for forgets on their way from here to other owners; all counts become zero,
 * and what has no links is reaped (inode_reap_wait). */
MAY_WAIT void inode_table_forget_all(struct owner *owner);
/* The first and the second step of that; after the second alone, counts and what they hold stay. */
MAY_WAIT void inode_table_await_forgets(struct owner *owner);
MAY_WAIT void inode_table_quiet(struct owner *owner);
/* Numbers with a count: how many, and all of them. No wait; no forget may be on its way. */
uint64_t inode_lookup_total(const struct owner *owner);
void inode_lookup_copy(const struct owner *owner, struct fs_count *out);
/* Inodes without links that have a count. */
uint64_t inode_lookup_unlinked(const struct owner *owner);

struct inode_stats {
	uint64_t cached, referenced;    /* inodes */
	uint64_t lookups, orphans;      /* numbers with a count; numbers to be reaped */
	uint64_t chain_steps;           /* blocks of orphan chains that were searched */
	uint64_t chained;               /* orphans that are still in use included */
};
/* Any thread; approximate. */
void inode_stats_read(const struct owner *owner, struct inode_stats *out);

#endif
