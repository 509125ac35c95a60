/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inodes in memory. struct inode holds the disk record as it is; it is the truth, and apply steps copy it into the inode
 * block (inode_log). An inode stays in memory while it is referenced (inode_get .. inode_put), locked or has unlogged
 * times; others are kept on an LRU up to a limit. Lookup counts are kept apart (inode_lookup_*), so that a million inodes
 * that only the kernel remembers cost little.
 *
 * Locks: `lock` guards the record, the trees and xattrs: shared to read, exclusive to change. Taken in ascending inode
 * number over all owners (inode_lock_many). File ranges (range.h) come before `lock`.
 */
#ifndef LANEFS_FS_INODE_H
#define LANEFS_FS_INODE_H

#include "fs/alloc.h"
#include "fs/range.h"

struct inode {
	struct cds_hlist_node hash;
	struct cds_list_head lru;       /* unreferenced */
	struct owner *owner;
	uint64_t ino;                   /* FS_ROOT_INODE for the root */
	struct disk_inode disk;
	unsigned refs;
	bool loading, dead;             /* dead: slot freed */
	bool times_dirty;               /* times in disk are newer than the log's; logged within commit_ms or by fsync */
	bool orphan;                    /* stands in an orphan block */
	bool reaping;
	uint32_t orphan_index;
	uint64_t orphan_block;
	uint64_t last_part;             /* stream number of the last part that changed this inode */
	uint64_t last_data_part;        /* the same for size and extents: what fdatasync needs */
	struct fiber_rwlock lock;
	struct range_lock ranges;
	uint64_t write_goal;            /* block after the last one allocated for this file */
};

int inode_table_create(struct owner *owner, unsigned count_max) MUST_CHECK;
void inode_table_destroy(struct owner *owner);

/* The inode of a number of this owner, referenced. The number is checked against the inode map and the slot: -ESTALE when
 * nothing is there. -EUCLEAN, -EIO, -ENOMEM. */
MAY_WAIT int inode_get(struct owner *owner, uint64_t ino, struct inode **out) MUST_CHECK;
void inode_put(struct inode *inode);

/* Reference and lock over owners. Each entry: number and mode; after success .inode is set for inodes of *all* owners, but
 * may be looked into only there. Sorts, locks ascending, no duplicates left (.inode of a duplicate is the same).
 * On failure nothing is held. */
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
/* Changes disk times; in an apply step before inode_log, or with times_dirty set. */
enum inode_time { INODE_ATIME = 1, INODE_MTIME = 2, INODE_CTIME = 4, INODE_BTIME = 8 };
void inode_touch(struct inode *inode, unsigned times, struct timespec now);
void inode_blocks_add(struct inode *inode, int64_t blocks);
/* Unused bytes at the end of the fork (in front of the xattrs), and the fork's capacity for data. */
static inline unsigned inode_fork_capacity(const struct inode *inode) { return FS_FORK_BYTES - inode->disk.xattr_bytes; }

/* A new inode as a change of the owner of @ag (see struct change). Fill the fields above the line, add it to the part;
 * after tx_prepare .ino and .generation are known; the disk record is completed by the change itself. */
struct inode_create_change {
	struct change change;
	uint32_t ag;                    /* AG wanted; another of the same owner when it is full */
	struct disk_inode disk;         /* wanted content: mode, ids, times, fork, ... (generation is set by prepare) */
	bool orphan;                    /* O_TMPFILE: nlink 0, enters the orphan chain */
	/* ---- results of prepare ---- */
	uint64_t ino;
	uint32_t generation;
	struct inode *inode;            /* referenced until tx_end's caller puts it (owner of ag) */
	/* ---- private ---- */
	uint64_t private_data[12];
};
void inode_create_change_init(struct inode_create_change *create);
/* Frees the slot of an inode without blocks, in the part of its owner. Leaves the orphan chain too. */
struct inode_free_change {
	struct change change;
	struct inode *inode;
	uint64_t private_data[12];
};
void inode_free_change_init(struct inode_free_change *free_change, struct inode *inode);
/* Enters or leaves the orphan chain of its AG. */
struct orphan_change {
	struct change change;
	struct inode *inode;
	bool add;
	uint64_t private_data[8];
};
void orphan_change_init(struct orphan_change *orphan, struct inode *inode, bool add);

/* Lookup counts of this owner's inodes. */
void inode_lookup_add(struct owner *owner, uint64_t ino, uint64_t count);
/* True when the count fell to zero. */
bool inode_lookup_drop(struct owner *owner, uint64_t ino, uint64_t count);
uint64_t inode_lookup_count(const struct owner *owner, uint64_t ino);
/* Starts a background fiber that finishes an orphan (frees blocks past size, or all and the slot). Idempotent. */
void inode_reap(struct inode *inode);
/* After a replay: finds the orphans of this owner's AGs and starts reaping. Unmount: waits for all reaping. */
MAY_WAIT int inode_reap_start(struct owner *owner) MUST_CHECK;
MAY_WAIT void inode_reap_wait(struct owner *owner);
/* Logs times_dirty of all inodes of this owner (periodic and at sync). */
MAY_WAIT int inode_flush_times(struct owner *owner);
/* Unmount: counts drop, everything is put. */
void inode_table_forget_all(struct owner *owner);

#endif
