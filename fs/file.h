/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the data of files. An operation takes: operation memory, its file range, then a transaction and inode->lock
 * only around the change of the map. Data I/O runs with the range held and nothing else.
 *
 *   file.c           what all of them need           file_change.c   the record's part of a change, transactions
 *   file_read.c      reading                         file_truncate.c sizes, freeing blocks
 *   file_write.c     the ways to write               file_allocate.c fallocate
 *   file_alloc.c     writes that allocate            file_misc.c     seek, copy, fsync
 */
#ifndef LANEFS_FS_FILE_H
#define LANEFS_FS_FILE_H

#include "fs/map.h"
#include "fs/op.h"

/* ---- the record's part of a change of data; on the home part, behind the map change ---- */
enum file_size_rule { FILE_SIZE_KEEP, FILE_SIZE_GROW, FILE_SIZE_SET };
struct file_change {
	struct change change;
	struct inode *inode;
	enum file_size_rule size_rule;
	uint64_t size;                  /* bytes; GROW: at least this */
	unsigned times;                 /* enum inode_time */
	struct timespec now;
	bool data;                      /* the size or the map changes: fdatasync needs it */
	bool kill_suidgid;
	bool maps; /* set by file_commit: a map change in the same transaction ends inline content */
	bool to_extents;                /* an empty inline file becomes one without extents */
	/* Inline content to be written, length 0: none. bytes NULL: zeroes. Within the fork's capacity. */
	const uint8_t *bytes;
	uint32_t offset, length;
};
void file_change_init(struct file_change *change, struct inode *inode, unsigned times, struct timespec now);
/* Clears suid, and sgid where the group may execute. True when there was something to clear. */
bool file_kill_suidgid(struct disk_inode *disk, bool apply);

/* ---- transactions of one file: from begin to end, nothing but the range held ---- */
struct file_tx {
	struct map_change map;
	struct file_change file;
	struct orphan_change orphan;
};
enum file_commit_flags {
	FILE_COMMIT_MAP = 1 << 0,       /* with ->map, initialised; its .length says afterwards what was planned */
	FILE_COMMIT_DATA = 1 << 1,      /* makes data visible that was written just before */
	FILE_COMMIT_HELD_BACK = 1 << 2, /* may use held-back space */
	FILE_COMMIT_ORPHAN = 1 << 3,    /* enters the orphan chain: an unfinished truncate */
	FILE_COMMIT_ORPHAN_DONE = 1 << 4, /* leaves it */
};
enum {
	FILE_RUN_MAX = 16384,
	FILE_FREE_BLOCKS = 3 * MAP_FREE_RUNS_MAX,
	FILE_COMMIT_BLOCKS = MAP_CHANGE_BLOCKS + 3 + 3 + 1,
	FILE_FREEING_BLOCKS = MAP_CHANGE_BLOCKS + FILE_FREE_BLOCKS + 1
};

/* @tx->file is initialised. -EAGAIN: inline content does not fit any more (xattrs have grown); decide again. @run,
 * if any, goes over to the transaction: its count is 0 from then on, also after an error; else it stays the
 * caller's. Freed blocks of map changes must fit FILE_FREE_BLOCKS: at most FILE_RUN_MAX blocks. */
MAY_WAIT int file_commit(struct inode *inode, struct file_tx *tx, unsigned flags, struct run *run) MUST_CHECK;

/* Frees everything that the map has from block @from on, in bounded transactions. Exclusive range [from, end) held. */
MAY_WAIT int file_free_from(struct inode *inode, uint64_t from, struct file_tx *memory) MUST_CHECK;
/* Finishes a truncate that was cut short, if there is one: frees what lies past the size and leaves the orphan
 * chain. What grows a file calls it first. Exclusive range [size, end) held. */
MAY_WAIT int file_truncate_finish(struct inode *inode, struct file_tx *memory) MUST_CHECK;
/* truncate and ftruncate: size and times, the latter and suid as FS_SET_* in @mask say. No range held. -EFBIG, -ENOSPC. */
MAY_WAIT int file_set_size(struct op *op, struct inode *inode, uint64_t size, uint32_t mask) MUST_CHECK;

/* ---- device I/O for pieces of a file ---- */
enum { FILE_IOS_MAX = 12 };
struct file_io {
	struct owner *owner;
	struct io_group group;
	unsigned count;
	struct io ios[FILE_IOS_MAX];
};
void file_io_init(struct file_io *io, struct owner *owner);
/* @count blocks at device block @block. Waits when too many are under way. */
MAY_WAIT void file_io_submit(struct file_io *io, enum io_op op, void *buffer, uint64_t block, uint64_t count);
/* Waits for all. -EIO also for a device that is gone. */
MAY_WAIT int file_io_wait(struct file_io *io) MUST_CHECK;

/* ---- writing ---- */
struct file_write {
	const uint8_t *buffer;          /* what stands at @start */
	uint64_t start, offset, end; /* bytes of the file: where the write began, how far it has come, where it ends */
	unsigned times;                 /* that a write changes */
	bool append;                    /* starts at the end of the file */
	bool kill_suidgid;
	bool logged_times;              /* a transaction of this write has logged them */
};
enum segment_kind {
	SEGMENT_MAPPED,                 /* blocks with data: written in place */
	SEGMENT_UNWRITTEN,              /* blocks that read as zero: become written */
	SEGMENT_NEW,                    /* reserved for this write */
};
struct segment {
	enum segment_kind kind;
	uint64_t logical, physical;     /* blocks */
	uint32_t count;
};
enum { FILE_SEGMENTS_MAX = 8 };

/* What an operation on data keeps in its operation memory. */
struct file_op {
	struct op *op;
	struct inode *inode;
	struct range range;
	struct timespec now;
	struct file_tx tx;
	struct file_write write;
	struct segment segments[FILE_SEGMENTS_MAX];
	unsigned segment_count;
	struct file_io io;
};
/* Writes [write.offset, end) or a first piece of it, allocating as needed; moves write.offset. Exclusive range held. */
MAY_WAIT int file_write_allocating(struct file_op *file) MUST_CHECK;
/* Inline, when the content still fits. Exclusive range [0, end) held. */
MAY_WAIT int file_write_inline(struct file_op *file) MUST_CHECK;
/* All but the size; an access ACL follows the mode. Takes the operation's memory and bounce blocks. */
MAY_WAIT int file_set_attributes(struct op *op, struct inode *inode, const struct fs_attr *attr, uint32_t mask) MUST_CHECK;
/* security.capability goes, as it does whenever content or owner change. */
MAY_WAIT int file_drop_capability(struct inode *inode) MUST_CHECK;

/* ---- shared steps; exclusive range held, no lock ---- */
/* Zeroes the bytes [from, to) of one block of the file on the device, if it is mapped and written. */
MAY_WAIT int file_zero_in_block(struct file_op *file, uint64_t from, uint64_t to) MUST_CHECK;
/* The file is about to grow past its end: what lies behind the end in its last block becomes zero. */
MAY_WAIT int file_zero_tail(struct file_op *file) MUST_CHECK;
/* Inline content moves to a block (or goes to a file without extents when it is empty). Range [0, end) held. */
MAY_WAIT int file_leave_inline(struct file_op *file) MUST_CHECK;
/* map_lookup under the lock; an inline file is one hole. */
MAY_WAIT int file_lookup(struct inode *inode, uint64_t logical, uint64_t limit, struct extent *out) MUST_CHECK;
/* Where new blocks of the file should be. */
uint64_t file_goal(const struct inode *inode);
/* -EISDIR, -EINVAL for what has no data; -EPERM by flags, when it is to be changed. */
int file_check(const struct inode *inode, bool change) MUST_CHECK;
/* The range from @start (bytes, rounded down) to @end (rounded up; UINT64_MAX: all). -ESTALE (nothing held): the
 * inode is gone. */
MAY_WAIT int file_range(struct file_op *file, uint64_t start, uint64_t end, bool exclusive) MUST_CHECK;
void file_unrange(struct file_op *file);
/* An inode and operation memory for it. */
MAY_WAIT int file_begin(struct fs *fs, uint64_t ino, bool change, struct file_op **out) MUST_CHECK;
void file_end(struct file_op *file);
/* [offset, offset + length) reads as zero and takes no blocks, as far as they are whole; a file that ends before grows to there.
 * Within FS_FILE_SIZE_MAX. On the owner of the inode; nothing held. Errors as fs_fallocate. */
MAY_WAIT int file_make_hole(struct fs *fs, uint64_t ino, uint64_t offset, uint64_t length, const struct fs_cred *cred) MUST_CHECK;
/* fsync and fdatasync. */
MAY_WAIT int file_sync(struct inode *inode, bool datasync) MUST_CHECK;

#endif
