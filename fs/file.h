/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the data of files. An operation takes: operation memory, its file range, then a transaction and inode->lock only
 * around the change of the map. Data I/O runs with the range held and nothing else.
 *
 *   file_read.c      reading                         file_change.c   the record's part of a change; inline content
 *   file_write.c     the ways to write               file_truncate.c sizes, freeing blocks
 *   file_alloc.c     writes that allocate            file_allocate.c fallocate
 *   file_io.c        device I/O for pieces of files  file_misc.c     seek, copy, fsync
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
	bool to_extents;                /* an empty inline file becomes one without extents */
	/* Inline content to be written, length 0: none. bytes NULL: zeroes. Within the fork's capacity. */
	const uint8_t *bytes;
	uint32_t offset, length;
};
void file_change_init(struct file_change *change, struct inode *inode, unsigned times, struct timespec now);
/* Clears suid, and sgid where the group may execute. True when there was something to clear. */
bool file_kill_suidgid(struct disk_inode *disk, bool apply);

/* ---- transactions of one file ---- */
/* One map change and the record's change, from begin to end; no lock, no transaction held. @map may be NULL; its .length says
 * what was planned. */
struct file_tx {
	struct map_change map;
	struct file_change file;
	struct orphan_change orphan;
};
enum { FILE_FREE_BLOCKS = 3 * MAP_FREE_RUNS_MAX, FILE_RUN_MAX = 16384 };

/* Frees everything that the map has from block @from on, in bounded transactions. Exclusive range [from, end) held. */
MAY_WAIT int file_free_from(struct inode *inode, uint64_t from, struct file_tx *memory) MUST_CHECK;
/* Frees what lies past the size and leaves the orphan chain. Exclusive range held. */
MAY_WAIT int file_truncate_finish(struct inode *inode, struct file_tx *memory) MUST_CHECK;

#endif
