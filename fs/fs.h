/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The filesystem as its callers see it: mount, operations on inodes by number, unmount. The FUSE front end, the tests
 * and the tools stand on this header; nothing here knows of FUSE.
 *
 * A mounted filesystem spreads over all reactors of its group: each allocation group (AG) has an owner, an inode belongs
 * to the owner of its AG. Every operation is called from a fiber **on the owner of its first inode** (fs_owner) and may
 * wait; it visits other owners by itself. Errors are negative errno values. When an operation returns, what it did is
 * applied: later operations see it; it is durable only after fs_fsync, fs_sync or a group commit (about a second).
 * Permission checks against mode bits are the kernel's (default_permissions); what depends on the caller's ids beyond
 * that (ownership of new inodes, setgid rules, killpriv) is done here.
 *
 * Lookup counts: an entry answered by fs_lookup, fs_create and friends (struct fs_entry) holds one count on its inode,
 * given back by fs_forget. An inode without links stays usable until its count is zero.
 */
#ifndef LANEFS_FS_FS_H
#define LANEFS_FS_FS_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "blockdev/blockdev.h"
#include "fs/format.h"

struct fs;

/* ---- going on elsewhere ---- */
/* What a filesystem leaves to its successor, in another process or in this one, which serves the same callers: the lookup
 * counts that they hold, and by what the device is recognised. */
struct fs_count {
	uint64_t ino, count;
};
struct fs_legacy {
	uint8_t uuid[16];
	uint64_t durable_sequence;  /* place in the journal, which every change moves */
	uint64_t count;             /* of counts */
	struct fs_count *counts;    /* malloc'ed, the holder's; in no order, each number once */
};

/* ---- life cycle ---- */
struct fs_mount_options {
	bool read_only;             /* replays in memory only; writes nothing at all */
	uint64_t cache_bytes;       /* metadata cache over all reactors; 0: 32 MiB */
	unsigned commit_ms;         /* unsynced changes become durable after; 0: 1000 */
	bool discard;               /* unmap freed space */
	bool noatime;               /* never change access times; else relatime */
	bool strictatime;
	bool sync;                  /* every change is durable before its answer */
	unsigned requests_max;      /* operations that may run at once on a reactor; 0: 256 */
	unsigned inodes_max;        /* inodes kept in memory over all reactors, but those in use; 0: 32768 */
	const struct fs_legacy *legacy; /* goes on where fs_leave has ended; NULL: from nothing. Only needed during the call */
	/* Called once on reactor 0 when the filesystem stops itself (error < 0) or its device goes away (-ENODEV). Must not wait. */
	void (*stopped)(struct fs *fs, int error, void *arg);
	void *arg;
};
/* Mounts the bdev of that name, on every reactor of the caller's group. From a fiber of reactor 0. On failure @message
 * has one line naming object, cause and next step, and nothing was changed on the device (unless replay had begun).
 * -EINVAL (no lanefs), -EUCLEAN (damage: fsck), -EOPNOTSUPP (version, features), -EROFS, -ENODEV, -EIO, -ENOMEM, -EBUSY,
 * -ESTALE (not as fs_leave has left it). */
MAY_WAIT int fs_mount(struct bdev_registry *registry, const char *bdev_name, const struct fs_mount_options *options,
	struct fs **out, char *message, size_t message_size) MUST_CHECK;
/* Ends operation: drops all lookup counts, reaps orphans, checkpoints, marks clean, closes the device, frees. No
 * operation may be running. From a fiber of reactor 0. Returns the sticky error, if any; always frees. */
MAY_WAIT int fs_unmount(struct fs *fs);
/* The counts, for a successor. Nothing is changed; no operation may be running, and none begin before fs_leave if that is to
 * follow. From a fiber of reactor 0. -ENOMEM. */
MAY_WAIT int fs_save_counts(struct fs *fs, struct fs_legacy *out) MUST_CHECK;
/* As fs_unmount, but inodes without links stay when they are in use, and with them the device is not marked clean (a mount
 * without @legacy frees them). Fills in the rest of @legacy. */
MAY_WAIT int fs_leave(struct fs *fs, struct fs_legacy *legacy);
/* What may change while mounted. */
struct fs_remount {
	bool read_only, discard, noatime, strictatime, sync;
	unsigned commit_ms;         /* 0: 1000 */
};
/* To read-only: returns when nothing is changed any more and the device is as after an unmount; -EBUSY while unlinked files
 * are in use. To writable: the device is opened for writing, and what a mount had replayed in memory only is written; -EROFS,
 * -EACCES, -EPERM (the device is not to be written), -EBUSY (another process reads it). On failure @message has one line, and the
 * filesystem is what it was, unless it has stopped. From a fiber of reactor 0, one call at a time. */
MAY_WAIT int fs_remount(struct fs *fs, const struct fs_remount *wanted, char *message, size_t message_size) MUST_CHECK;
/* Frees the memory of a filesystem whose simulated group was abandoned (power cut). No I/O. */
void fs_abandon(struct fs *fs);

/* Everything applied before the call is durable and, as far as it is metadata, at home: the next mount has nothing to
 * replay but what came later. From a fiber of reactor 0. */
MAY_WAIT int fs_checkpoint(struct fs *fs);
/* Is what @read reads (bytes, whole blocks) the mounted filesystem, as its missing device had it at the end? -ESTALE: no, and
 * @message says why in half a line ("it holds another filesystem ..."); errors of @read. From a fiber of reactor 0. */
typedef MAY_WAIT int (*fs_read_fn)(void *context, void *buffer, uint64_t offset, uint32_t length);
MAY_WAIT int fs_identity_check(struct fs *fs, fs_read_fn read, void *context, char *message, size_t message_size) MUST_CHECK;

const struct fs_super *fs_get_super(const struct fs *fs);
bool fs_read_only(const struct fs *fs);
int fs_stopped(const struct fs *fs); /* 0, or the sticky error */

/* The reactor that owns an inode number. Any number is allowed (what does not exist is answered by the operation). */
struct reactor *fs_owner(const struct fs *fs, uint64_t ino);

/* ---- calling an operation off ---- */
/* Who runs an operation may keep a ticket for it, to give the caller an answer while the operation is still parked (in
 * I/O that a missing device holds). Just before its first change that anybody could see, the operation claims the
 * ticket: from then on it cannot be called off. One that was called off before applies nothing and returns -EINTR; its
 * buffers and names stay in use until it returns. */
enum fs_ticket_state { FS_TICKET_OPEN, FS_TICKET_CLAIMED, FS_TICKET_CANCELLED };
struct fs_ticket {
	atomic_int state;
};
static inline void fs_ticket_init(struct fs_ticket *ticket) { atomic_init(&ticket->state, FS_TICKET_OPEN); }
/* The calling fiber's operations go by this ticket from now on; NULL: by none. */
static inline void fs_ticket_use(struct fs_ticket *ticket) { fiber_set_context(ticket); }
static inline bool fs_ticket_change(struct fs_ticket *ticket, enum fs_ticket_state to)
{
	int before = FS_TICKET_OPEN;
	return atomic_compare_exchange_strong(&ticket->state, &before, (int)to) || before == (int)to;
}
/* False: it was called off. Any thread. */
static inline bool fs_ticket_claim(struct fs_ticket *ticket) { return fs_ticket_change(ticket, FS_TICKET_CLAIMED); }
/* True: it will apply nothing. Any thread. */
static inline bool fs_ticket_cancel(struct fs_ticket *ticket) { return fs_ticket_change(ticket, FS_TICKET_CANCELLED); }

/* ---- what operations speak of ---- */
/* May the caller have setgid on a file of this group, being in the group or privileged? The kernel often says so; else it
 * is judged by gid and privileged, which knows no supplementary groups. */
enum fs_sgid { FS_SGID_BY_IDS, FS_SGID_KEEP, FS_SGID_DROP };
struct fs_cred {
	uint32_t uid, gid, pid;
	uint32_t umask;             /* applied to mode by the callee unless a default ACL says otherwise */
	bool privileged;            /* CAP_FSETID and CAP_SYS_RESOURCE: keeps setgid, may use held-back space */
	enum fs_sgid sgid;
};
static inline bool fs_cred_keeps_sgid(const struct fs_cred *cred, uint32_t gid)
{
	return cred->sgid == FS_SGID_BY_IDS ? cred->privileged || cred->gid == gid : cred->sgid == FS_SGID_KEEP;
}

struct fs_attr {
	uint64_t ino, size, blocks_512;
	struct timespec atime, mtime, ctime, btime;
	uint32_t mode, nlink, uid, gid, rdev_major, rdev_minor, flags, generation;
};
struct fs_entry {
	uint64_t ino;
	uint32_t generation;
	struct fs_attr attr;
};
struct fs_name {                /* not terminated; 1..255 bytes, else -ENAMETOOLONG / -EINVAL; no '/' */
	const char *bytes;
	unsigned length;
};

/* ---- names (owner of the parent directory) ---- */
MAY_WAIT int fs_lookup(struct fs *fs, uint64_t parent, struct fs_name name, struct fs_entry *out);
/* "." and ".." for export: the parent of a directory. */
MAY_WAIT int fs_parent(struct fs *fs, uint64_t directory, struct fs_entry *out);
/* nlookup counts come back. Never waits, any reactor. */
void fs_forget(struct fs *fs, uint64_t ino, uint64_t nlookup);

struct fs_create {
	struct fs_name name;        /* length 0: O_TMPFILE, no name (-> orphan until linked) */
	uint32_t mode;              /* S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK with the permissions
	                             * wanted; umask or default ACL cut them down */
	uint32_t rdev_major, rdev_minor;
	const char *target;         /* symlinks: target_length bytes, 1..FS_SYMLINK_MAX */
	unsigned target_length;
};
MAY_WAIT int fs_create(struct fs *fs, uint64_t parent, const struct fs_create *create, const struct fs_cred *cred,
	struct fs_entry *out);
MAY_WAIT int fs_link(struct fs *fs, uint64_t parent, struct fs_name name, uint64_t ino, struct fs_entry *out);
MAY_WAIT int fs_unlink(struct fs *fs, uint64_t parent, struct fs_name name);
MAY_WAIT int fs_rmdir(struct fs *fs, uint64_t parent, struct fs_name name);
/* flags: RENAME_NOREPLACE, RENAME_EXCHANGE. On the owner of @from_parent. @out_moved, unless NULL: which directories have
 * another parent now, and so another "..". */
struct fs_moved {
	uint64_t directory[2];      /* 0: none */
};
MAY_WAIT int fs_rename(struct fs *fs, uint64_t from_parent, struct fs_name from, uint64_t to_parent, struct fs_name to,
	unsigned flags, struct fs_moved *out_moved);

/* Calls emit for entries with a cookie above @cookie until it returns false or the directory ends. "." and ".." come
 * first (cookies 1 and 2). @plus: out entries carry attributes, and one lookup count each except for "." and "..";
 * emit must not wait and returns false *before* consuming an entry that does not fit. */
struct fs_dirent {
	uint64_t cookie, ino;
	struct fs_name name;
	unsigned type;              /* DT_* */
	const struct fs_entry *entry; /* NULL unless plus (and for "." and "..") */
};
typedef bool (*fs_emit_fn)(const struct fs_dirent *dirent, void *arg);
MAY_WAIT int fs_readdir(struct fs *fs, uint64_t directory, uint64_t cookie, bool plus, fs_emit_fn emit, void *arg);

/* ---- attributes (owner of the inode) ---- */
MAY_WAIT int fs_getattr(struct fs *fs, uint64_t ino, struct fs_attr *out);
enum fs_setattr_mask {
	FS_SET_MODE = 1 << 0,
	FS_SET_UID = 1 << 1,
	FS_SET_GID = 1 << 2,
	FS_SET_SIZE = 1 << 3,
	FS_SET_ATIME = 1 << 4,
	FS_SET_MTIME = 1 << 5,
	FS_SET_ATIME_NOW = 1 << 6,
	FS_SET_MTIME_NOW = 1 << 7,
	FS_SET_CTIME = 1 << 8,
	FS_SET_KILL_SUIDGID = 1 << 9, /* clear suid, and sgid where group-executable; security.capability goes too;
	                               * nothing on a directory */
	FS_SET_FLAGS = 1 << 10,       /* FS_IOC_SETFLAGS bits */
	FS_SET_KEEP_TIMES = 1 << 11,  /* a new size alone changes no times: the kernel's writeback cache owns them */
	FS_SET_WRITTEN = 1 << 12,     /* with MTIME: it tells of writes that were allowed, file flags notwithstanding */
};
MAY_WAIT int fs_setattr(struct fs *fs, uint64_t ino, const struct fs_attr *attr, uint32_t mask, const struct fs_cred *cred,
	struct fs_attr *out);
/* @out_length: bytes of the target. @buffer has FS_SYMLINK_MAX + 1 bytes. */
MAY_WAIT int fs_readlink(struct fs *fs, uint64_t ino, char *buffer, unsigned *out_length);
/* Opening checks the inode and counts; close drops the count. Kind of truncation: O_TRUNC in flags. */
MAY_WAIT int fs_open(struct fs *fs, uint64_t ino, int flags, const struct fs_cred *cred);

/* ---- data (owner of the inode) ---- */
/* Buffers are DMA memory for the path without copies (others are bounced below). @length: bytes wanted, @out_length:
 * bytes read (short only at end of file). Holes read as zero. */
MAY_WAIT int fs_read(struct fs *fs, uint64_t ino, void *buffer, uint64_t offset, uint32_t length, uint32_t *out_length);
/* The same, and the access time stays what it is (O_NOATIME). */
MAY_WAIT int fs_read_quietly(
	struct fs *fs, uint64_t ino, void *buffer, uint64_t offset, uint32_t length, uint32_t *out_length);
enum fs_write_flags {
	FS_WRITE_DSYNC = 1 << 0,    /* durable before the answer, like O_DSYNC */
	FS_WRITE_SYNC = 1 << 1,
	FS_WRITE_KILL_SUIDGID = 1 << 2,
	FS_WRITE_APPEND = 1 << 3,   /* offset is ignored: end of file, atomically */
	FS_WRITE_CACHE = 1 << 4,    /* out of the kernel's page cache: whether file flags forbid it was judged before */
	FS_WRITE_NO_TIMES = 1 << 5, /* mtime and ctime are the kernel's */
};
MAY_WAIT int fs_write(struct fs *fs, uint64_t ino, const void *buffer, uint64_t offset, uint32_t length, uint32_t flags,
	const struct fs_cred *cred, uint32_t *out_length);
/* mode: FALLOC_FL_* (0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE]). */
MAY_WAIT int fs_fallocate(struct fs *fs, uint64_t ino, int mode, uint64_t offset, uint64_t length, const struct fs_cred *cred);
/* whence: SEEK_DATA, SEEK_HOLE. -ENXIO. */
MAY_WAIT int fs_seek(struct fs *fs, uint64_t ino, int whence, uint64_t offset, uint64_t *out);
MAY_WAIT int fs_fsync(struct fs *fs, uint64_t ino, bool datasync);
/* Everything applied before the call is durable. Any owner. */
MAY_WAIT int fs_sync(struct fs *fs);
/* Copies within the filesystem; both files may have different owners. On the owner of @in. */
MAY_WAIT int fs_copy_range(struct fs *fs, uint64_t in, uint64_t in_offset, uint64_t out, uint64_t out_offset,
	uint64_t length, const struct fs_cred *cred, uint64_t *out_copied);

/* ---- extended attributes (owner of the inode); names with prefix, as in xattr(7) ---- */
MAY_WAIT int fs_xattr_get(struct fs *fs, uint64_t ino, struct fs_name name, void *value, uint32_t size, uint32_t *out_length);
/* flags: XATTR_CREATE, XATTR_REPLACE; ACLs have none. Sizes up to 65536, of ACLs 4092 (511 entries): -E2BIG. An access ACL
 * sets the permission bits, and is not kept when they say all of it. Removing an ACL that is not there is no error. */
MAY_WAIT int fs_xattr_set(struct fs *fs, uint64_t ino, struct fs_name name, const void *value, uint32_t length, int flags,
	const struct fs_cred *cred);
MAY_WAIT int fs_xattr_remove(struct fs *fs, uint64_t ino, struct fs_name name);
/* Zero-terminated names one after another; size 0 asks for the length. "trusted." is for the privileged to know. */
MAY_WAIT int fs_xattr_list(struct fs *fs, uint64_t ino, const struct fs_cred *cred, char *buffer, uint32_t size,
	uint32_t *out_length);

/* ---- the whole ---- */
struct fs_statfs {
	uint64_t blocks, free_blocks, available_blocks; /* 4 KiB; available: without what is held back */
	uint64_t files, free_files;
};
MAY_WAIT int fs_statfs(struct fs *fs, struct fs_statfs *out);
/* Unmaps free space of [offset, offset + length) in runs of at least min_length bytes; places are those of the device. What
 * was removed before the call counts as free. Other operations go on meanwhile. *out_trimmed: bytes, also after an error.
 * -EINVAL (offset past the end, length below a block, min_length above a group), -EROFS, -EOPNOTSUPP (the device cannot),
 * -EINTR (fs_call_off, or the fiber's ticket was cancelled), errors of the device. Any owner. */
MAY_WAIT int fs_trim(struct fs *fs, uint64_t offset, uint64_t length, uint64_t min_length, uint64_t *out_trimmed);
/* Reads all metadata from the device and checks it while other operations go on (scrub.h); with @data all file data, too. -EBUSY:
 * one runs; -EINTR: cancelled, or fs_call_off; -ESHUTDOWN: the filesystem has stopped; -ENXIO: the device fails everywhere;
 * -ENODEV, -ENOMEM. Findings are no errors. The first one is recorded on the device, unless the mount is read-only. Any owner. */
struct fs_scrub_options {
	bool data;
	uint64_t rate_bytes;        /* a second; 0: as fast as it goes */
	/* Memory for what is known of blocks (96 MiB for a TiB in use) and inodes (3.2 bytes each); 0: 512 MiB. With less than that takes
	 * it goes over the filesystem several times. */
	uint64_t memory_bytes;
};
MAY_WAIT int fs_scrub(struct fs *fs, const struct fs_scrub_options *options) MUST_CHECK;
/* One that runs ends soon. Any thread; the following, too. */
void fs_scrub_cancel(struct fs *fs);
enum fs_scrub_phase { FS_SCRUB_NONE, FS_SCRUB_METADATA, FS_SCRUB_DIRECTORIES, FS_SCRUB_SPACE };
struct fs_scrub_status {        /* of the one that runs, or the last one of this mount; begin_s 0: there was none */
	bool running;
	enum fs_scrub_phase phase;
	int result;                 /* of fs_scrub */
	uint64_t done, total;       /* of the phase */
	uint64_t inodes, directories;
	uint64_t blocks;            /* of metadata, read from the device */
	uint64_t blocks_ahead;      /* in memory newer than on the device: those were looked at */
	uint64_t data_bytes, findings;
	uint64_t groups_unjudged;   /* AGs that came into use meanwhile, and for which there was no memory */
	uint64_t inodes_unjudged;   /* whose names changed while names were counted: their links were not judged */
	uint64_t rounds;            /* begun: how often it goes over the filesystem */
	bool incomplete;            /* what could not be read leaves open which blocks belong to nobody */
	uint64_t begin_s, end_s;    /* seconds since 1970 */
};
void fs_scrub_get_status(const struct fs *fs, struct fs_scrub_status *out);
/* The findings of that one, from 0 on; false: there are no more, or no more were kept. @out_ino 0: no inode's. */
bool fs_scrub_finding(const struct fs *fs, unsigned index, uint64_t *out_ino, char *text, size_t text_size);
/* A trim, growth or scrub that runs, or begins later, ends soon with -EINTR: the filesystem is about to be unmounted. Any
 * thread. */
void fs_call_off(struct fs *fs);
/* Makes it @bytes large (0: all that the device has now), while other operations go on: see grow.c. A power cut leaves the old
 * size or the new one. On failure @message has one line, and the size is as before, unless the filesystem has stopped.
 * -EALREADY (has that size), -EINVAL (smaller, or too little more), -ENOSPC (larger than the device), -EBUSY (somebody grows
 * it), -EROFS, -EINTR (fs_call_off), -ENOMEM, errors of the device. Fiber of reactor 0. */
struct fs_grown {
	uint64_t old_bytes, new_bytes;
};
MAY_WAIT int fs_grow(struct fs *fs, uint64_t bytes, struct fs_grown *out, char *message, size_t message_size) MUST_CHECK;
/* As FS_IOC_SHUTDOWN with NOLOGFLUSH: the filesystem stops; nothing more is written. */
MAY_WAIT int fs_shutdown(struct fs *fs);

/* Figures for status; approximate while operations run. Any reactor or the control thread. */
struct fs_status {
	uint64_t block_count, free_blocks, used_inodes;
	uint64_t journal_bytes, journal_used_bytes, journal_groups, journal_group_bytes, journal_flushes, checkpoints;
	uint64_t durable_sequence, mount_generation;
	uint64_t cache_bytes, cache_limit_bytes, cache_dirty_bytes, cache_hits, cache_misses;
	uint64_t inodes_cached, inodes_referenced, transactions, multi_owner_transactions, loans;
	uint64_t orphans;               /* unlinked inodes that wait to be freed */
	uint64_t discards, discarded_bytes, discards_failed; /* in the background, since mount; failed: commands */
	uint64_t discard_skipped_bytes; /* freed and used again without: space was short, or the list long */
	uint64_t discard_waiting_bytes; /* free, not yet discarded */
	uint64_t replayed_groups, replayed_records;
	uint64_t held_back_blocks;      /* free, but only unlink, truncate and privileged callers get them */
	uint64_t free_inodes;           /* that the available space has room for */
	uint64_t corrupt_blocks;
	int error;
	char error_text[128];
	char bdev_name[128];
};
void fs_get_status(const struct fs *fs, struct fs_status *out);

/* What went wrong. Times are seconds since 1970. Any reactor or the control thread. */
struct fs_errors {
	uint64_t corrupt_blocks, corrupt_last, corrupt_last_s; /* met by this mount; the last one, and when */
	uint64_t count;                 /* how often this filesystem has stopped, by its state block */
	uint64_t block, time_s;         /* of the last time; block 0: none */
	int error;                      /* 0: never */
	bool earlier;                   /* the last time was before this mount */
	char text[128];
};
void fs_get_errors(const struct fs *fs, struct fs_errors *out);
const struct bdev *fs_get_bdev(const struct fs *fs);

#endif
