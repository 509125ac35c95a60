/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Directories: names to inode numbers; inline in the fork while they fit, then a tree keyed by the readdir cookie. The
 * size of an inline directory is the bytes of its entries, of a tree the blocks of its nodes. One that becomes empty is
 * inline again. Call under the directory's inode->lock, on its owner.
 */
#ifndef LANEFS_FS_DIR_H
#define LANEFS_FS_DIR_H

#include "fs/tree.h"

struct dir_found {
	uint64_t ino, key;
	unsigned type;                  /* DT_* */
};
/* -ENOENT: no such name. */
MAY_WAIT int dir_lookup(const struct inode *directory, struct fs_name name, struct dir_found *out) MUST_CHECK;

/* One entry of a directory changes. As a change of the part of the directory's owner. prepare: inode_pin, tree plan;
 * checks -EEXIST (add), -ENOENT (others), -ENOSPC (65536 names of one hash), -EMLINK. apply: the entry, number of
 * entries, size, nlink, mtime and ctime, inode_log. */
enum dir_action { DIR_ADD, DIR_REMOVE, DIR_REPLACE };
struct dir_change {
	struct change change;
	enum dir_action action;
	struct inode *directory;
	struct fs_name name;            /* must stay valid until apply */
	uint64_t ino;                   /* DIR_ADD, DIR_REPLACE: what the entry names from then on; 0: take *ino_from */
	const uint64_t *ino_from;       /* filled in by another change's prepare, read in apply */
	unsigned type;                  /* DT_* of it */
	int nlink_delta;                /* of the directory itself */
	struct timespec now;
	/* ---- private ---- */
	uint64_t key;
	enum dir_plan { DIR_PLAN_NONE, DIR_PLAN_INLINE, DIR_PLAN_ROOT, DIR_PLAN_TREE } plan;
	uint8_t *records;               /* new content of the fork or leaf */
	unsigned bytes, count;
	struct tree_change tree_change;
};
void dir_change_init(struct dir_change *change, enum dir_action action, struct inode *directory, struct fs_name name,
	uint64_t ino, unsigned type, struct timespec now);
/* Two entries of one directory in one transaction (rename inside it): remove @from, add or replace @to. Other names
 * than each other (else -EINVAL); errors as above. */
struct dir_rename_change {
	struct change change;
	struct inode *directory;
	struct fs_name from, to;
	uint64_t ino;
	unsigned type;
	bool replace;                   /* @to exists */
	bool exchange;                  /* both stay: @from names to_ino then */
	uint64_t to_ino;
	unsigned to_type;
	int nlink_delta;
	struct timespec now;
	/* ---- private ---- */
	struct dir_change first, second;
};
/* Sets the functions and zeroes the rest. */
void dir_rename_change_init(struct dir_rename_change *change);
/* Worst case for tx_begin of one such change. */
enum { DIR_CHANGE_BLOCKS = TREE_CHANGE_BLOCKS + 4, DIR_RENAME_BLOCKS = 2 * TREE_CHANGE_BLOCKS + 4 };

/* Entries with a key above @cookie, in order, copied into @buffer (aligned to 8, @size bytes, at least FS_DIRENT_MAX):
 * whole struct disk_dirent records, one leaf's worth at the most. *out_bytes 0: the end. */
MAY_WAIT int dir_read(const struct inode *directory, uint64_t cookie, uint8_t *buffer, unsigned size,
	unsigned *out_bytes) MUST_CHECK;
static inline uint64_t dir_entries(const struct inode *directory) { return le64_get(directory->disk.rdev_or_entries); }

/* For the files of directories: looks for a name, and for the least free key of its hash on the way. */
struct dir_scan {
	struct fs_name name;
	uint64_t next, last;            /* least free key so far; greatest key of the hash. next > last: none free */
	bool exists;
	struct dir_found found;         /* valid when it exists */
};
MAY_WAIT int dir_scan(const struct inode *directory, struct fs_name name, struct dir_scan *scan) MUST_CHECK;

#endif
