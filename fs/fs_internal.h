/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The filesystem inside: struct fs is what all reactors share (constant after mount, but for a few atomics), struct owner
 * is what one reactor owns. Code reaches an owner's state only from fibers and messages of that owner.
 *
 *   mount.c      mount, unmount; remount.c: read-only and back; identity.c: is a device that came back the same
 *   fs.c         stopping, sync, space, status       journal*.c   the log (reactor 0), streams, checkpoint, replay
 *   cache.c      metadata blocks of one owner        tx.c         reserve, prepare, apply over several owners
 *   alloc.c      free space of the owner's AGs       inode*.c     inodes in memory, creation, orphans
 *   tree.c       B+trees (plan, apply)               dir.c, map.c directories and extent maps on trees
 *   discard.c, trim.c   telling the device what is free     grow.c   more AGs while mounted
 *   scrub*.c     reading and checking everything while mounted
 *   range.c      file-range locks                    namei*.c, file*.c, attr.c, xattr.c   the operations of fs.h
 */
#ifndef LANEFS_FS_FS_INTERNAL_H
#define LANEFS_FS_FS_INTERNAL_H

#include <errno.h>
#include <stdatomic.h>

#include <urcu/hlist.h>

#include "fs/fs.h"
#include "fs/verify.h"
#include "reactor/log.h"
#include "reactor/memory.h"

struct journal;      /* the log, owned by reactor 0 */
struct cache;        /* metadata blocks of an owner */
struct alloc;        /* free space of an owner */
struct inode_table;
struct stream;       /* an owner's end of the log */
struct scrub;        /* of the whole filesystem, one at a time */
struct tx_pool;

struct owner {
	struct fs *fs;
	unsigned index;              /* = index of its reactor */
	struct reactor *reactor;
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	struct cache *cache;
	struct alloc *alloc;
	struct inode_table *inodes;
	struct stream *stream;
	struct tx_pool *txs;
	unsigned turn, operations[2]; /* running: those that began in this turn, and in the one before (op_drain) */
	struct fiber_cond drained;
	unsigned applying;           /* transactions of this owner in their apply step */
	unsigned gates_closed;       /* by so many; none begins one meanwhile */
	struct fiber_cond gate;
	struct {
		uint64_t transactions, multi_owner, loans;
		atomic_llong free_blocks_delta, used_inodes_delta; /* since mount; summed by statfs */
	} stats;
};

enum { FS_COMMIT_MS_DEFAULT = 1000 };
/* Who may change anything. The middle one is the end of the first: see remount.c. */
enum fs_access {
	FS_WRITABLE,
	FS_ENDING,                   /* no operation begins to; those that run, and the background, go on */
	FS_READ_ONLY,                /* nobody; the log does not run */
};

struct fs {
	struct fs_super super;       /* changes when the filesystem grows: see grow.c */
	atomic_uint open_ag_count;   /* AGs that owners allocate from: super.ag_count, but for a moment of growing */
	atomic_ullong usable_blocks; /* of those AGs, without the fixed ones */
	bool growing;                /* reactor 0's */
	struct fs_mount_options options;
	struct reactor_group *group;
	struct bdev_registry *registry;
	char bdev_name[128];
	unsigned owner_count;
	struct owner *owners[REACTOR_COUNT_MAX];
	struct journal *journal;
	struct scrub *scrub;
	struct replay_image_table *overlay; /* read-only mounts: replayed images; NULL otherwise */
	bool unreaped;               /* replayed in memory: unlinked files wait to be freed until the filesystem is writable */
	atomic_int access;           /* enum fs_access */
	bool volatile_cache;         /* of the device */
	atomic_bool stop_claimed;    /* somebody fills in why */
	atomic_int stopped;          /* 0, or the sticky error */
	char error_text[128];        /* written once, by whoever set stopped */
	uint64_t error_block, error_time_s;
	bool shut_down;              /* on request: nothing more is written */
	bool leaving;                /* for a successor, with lookup counts and all: fs_leave */
	bool leaves_unlinked;        /* and inodes without links among them: the device is not clean */
	struct message stopped_message;
	atomic_uint stop_messages;   /* of a stop, on their way; and stops being sent */
	atomic_bool called_off;      /* nothing long goes on: the filesystem is about to be unmounted */
	bool mounted;                /* fs_mount has succeeded: whoever mounted wants to be told of a stop */
	uint64_t free_blocks_at_mount, used_inodes_at_mount;
	uint64_t replayed_groups, replayed_records;
	atomic_ullong corrupt_blocks, corrupt_last, corrupt_last_s, tx_ids;
};

static inline struct owner *owner_here(const struct fs *fs) { return fs->owners[reactor_index(reactor_self())]; }
static inline struct owner *owner_of_ag(const struct fs *fs, uint32_t ag) { return fs->owners[ag % fs->owner_count]; }
/* The place that an inode number stands for: itself, but for the root. */
static inline uint64_t ino_place(const struct fs *fs, uint64_t ino)
{
	return ino == FS_ROOT_INODE ? le64_get(fs->super.root_place) : ino;
}
static inline struct owner *owner_of_ino(const struct fs *fs, uint64_t ino)
{
	return owner_of_ag(fs, ino_ag(ino_place(fs, ino)));
}
static inline uint32_t ag_of_block(const struct fs *fs, uint64_t block)
{
	return (uint32_t)((block - le64_get(fs->super.first_ag_block)) / le32_get(fs->super.ag_blocks));
}
static inline uint32_t ag_relative(const struct fs *fs, uint64_t block)
{
	return (uint32_t)((block - le64_get(fs->super.first_ag_block)) % le32_get(fs->super.ag_blocks));
}
/* A run of blocks on the device. */
struct run {
	uint64_t block;
	uint32_t count;
};

/* Stops the filesystem for good (first error wins): logged once, mutations answer -EROFS from then on, waiters -EIO.
 * @block 0: none. Any reactor, no wait. Returns @error. */
int fs_stop(struct fs *fs, int error, uint64_t block, const char *what);
/* Free blocks and used inodes of the whole filesystem as the AG headers count them; exact while nothing runs. */
void fs_totals(const struct fs *fs, uint64_t *free_blocks, uint64_t *used_inodes);
/* A bad block: counted and logged with the failing field; returns -EUCLEAN. Does not stop the filesystem. */
int fs_corrupt(struct fs *fs, uint64_t block, const char *field);
static inline enum fs_access fs_access(const struct fs *fs)
{
	return (enum fs_access)atomic_load_explicit(&fs->access, memory_order_relaxed);
}
/* 0, or what a change answers now: -EROFS (read-only or stopped), -EIO (device gone). */
static inline int fs_may_change(const struct fs *fs)
{
	if (UNLIKELY(fs_access(fs) == FS_READ_ONLY))
		return -EROFS;
	const int error = atomic_load_explicit(&fs->stopped, memory_order_relaxed);
	return LIKELY(!error) ? 0 : error == -ENODEV || error == -EIO ? -EIO : -EROFS;
}
/* The same for an operation that has not begun. No wait between this and op_begin, or a remount could overlook it. */
static inline int fs_may_begin(const struct fs *fs)
{
	return UNLIKELY(fs_access(fs) != FS_WRITABLE) ? -EROFS : fs_may_change(fs);
}
/* A mount option that a remount may change; any reactor. */
#define FS_OPTION(fs, name) __atomic_load_n(&(fs)->options.name, __ATOMIC_RELAXED)
/* scrub.c: made with the filesystem, and freed with it. */
int fs_scrub_create(struct fs *fs) MUST_CHECK;
void fs_scrub_destroy(struct fs *fs);
/* Like reactor_wall_ns, as a timespec. */
static inline struct timespec fs_now(void)
{
	const uint64_t ns = reactor_wall_ns();
	return (struct timespec){.tv_sec = (time_t)(ns / NS_PER_SEC), .tv_nsec = (long)(ns % NS_PER_SEC)};
}

/* Deliberate breakages for the sabotage build: LANEFS_SABOTAGE=name[,name]; always false otherwise. */
enum sabotage {
	SABOTAGE_NO_GROUP_FLUSH,      /* no FLUSH before a group that maps new data */
	SABOTAGE_EARLY_TAIL,          /* log space reused before the state block is durable */
	SABOTAGE_NO_QUARANTINE,       /* freed blocks reused at once */
	SABOTAGE_NO_PREVIOUS_CRC,     /* replay does not check the chain */
	SABOTAGE_NO_FSYNC_FLUSH,      /* fsync answers before the FLUSH after its group */
	SABOTAGE_EARLY_HOME,          /* home writes before their records are durable */
	SABOTAGE_NO_FULL_IMAGE,       /* first touch logs only the byte range */
	SABOTAGE_SPLIT_TX,            /* the cut does not keep transactions of several owners whole */
	SABOTAGE_EARLY_DISCARD,       /* freed blocks are unmapped before the group that freed them is durable */
	SABOTAGE_PUNCH_SHORT,         /* punching a hole leaves its last block */
	SABOTAGE_EXCHANGE_LOSES,      /* RENAME_EXCHANGE between directories loses a name */
	SABOTAGE_IGNORES_FLUSH_ERROR, /* a failed FLUSH of the log counts as done */
	SABOTAGE_IGNORES_GROUP_ERROR, /* a failed write of the journal does */
	SABOTAGE_IGNORES_HOME_ERROR,  /* a failed write of metadata does */
	SABOTAGE_IGNORES_DATA_ERROR,  /* a failed write of a file's data does */
	SABOTAGE_FORGETS_ERROR,       /* why the filesystem stopped is not recorded on the device */
	SABOTAGE_KEEPS_RESERVATION,   /* an operation that fails keeps the blocks that it has allocated */
	SABOTAGE_LATE_TOUCH,          /* a home write's snapshot opens no new first touch: later changes log their bytes only */
	SABOTAGE_NO_GROUP_CRC,        /* replay does not check the crc of a group itself */
	SABOTAGE_LATE_FLUSH_COUNTS,   /* a FLUSH counts for what completed while it was under way */
	SABOTAGE_EARLY_APPLY,         /* a write is applied before its data is written */
	SABOTAGE_NO_OVERWRITE_FLUSH,  /* fsync of what was only overwritten in place sends no FLUSH */
	SABOTAGE_EARLY_OSYNC,         /* an O_SYNC write is answered before it is durable */
	SABOTAGE_EARLY_SYNC,          /* fsync is answered with the next group that is durable, whatever is in it */
	SABOTAGE_NO_HOME_FLUSH,       /* no FLUSH between home writes and the state block that moves the tail */
	SABOTAGE_LAZY_STATE,          /* the state block is written without FUA */
	SABOTAGE_EARLY_METADATA,      /* freed metadata blocks are reused before the tail has passed them */
	SABOTAGE_NO_ORPHAN,           /* an unlink does not note the file that is still to be freed */
	SABOTAGE_REPLAY_NO_FLUSH,     /* no FLUSH between replay and the state block that moves the tail */
	SABOTAGE_LATE_ZERO,           /* a file may have grown over its old end before what lies behind that is zeroed */
	SABOTAGE_SAME_GENERATION,     /* the mount generation does not rise */
	SABOTAGE_LOST_JOURNAL,        /* a journal that ends before what was durable counts as whole */
	SABOTAGE_COUNT,
};
#ifdef LANEFS_SABOTAGE
bool sabotage(enum sabotage what);
#else
static inline bool sabotage(enum sabotage what) { return false; }
#endif

#endif
