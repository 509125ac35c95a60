/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A filesystem in memory behind fs/fs.h, for the tests of the FUSE front end: it stands in for the core at link time.
 * Small on purpose: a table of inodes, names in the table of their directory, contiguous contents. One lock makes it
 * safe from any reactor; it checks that every operation arrives on the owner of its first inode.
 */
#ifndef LANEFS_TESTS_UNIT_FUSE_MEMFS_H
#define LANEFS_TESTS_UNIT_FUSE_MEMFS_H

#include "fs/fs.h"

enum { MEMFS_INODES = 2048, MEMFS_NAMES = 2048, MEMFS_FILE_BYTES = 16 << 20 };

struct memfs_calls {
	unsigned dsync_writes, sync_writes, fsyncs, fdatasyncs, shutdowns, forgotten, killed;
	uint64_t unaligned_buffers; /* reads and writes whose buffer is not page-aligned */
	uint64_t on_wrong_reactor;
};

struct fs *memfs_create(struct reactor_group *group);
void memfs_destroy(struct fs *fs);
struct memfs_calls memfs_get_calls(struct fs *fs);
/* Lookup counts held on an inode. */
uint64_t memfs_lookups(struct fs *fs, uint64_t ino);
/* Fails every operation from now on; 0: works again. */
void memfs_fail(struct fs *fs, int error);
/* Operations of that kind park from now on, until this is called without it; looks: lookup and read. A change parks before
 * it claims its ticket, or after it. */
enum memfs_parking { MEMFS_PARK_LOOKS = 1 << 0, MEMFS_PARK_CHANGES = 1 << 1, MEMFS_PARK_CLAIMED = 1 << 2 };
void memfs_park(struct fs *fs, unsigned kinds);
unsigned memfs_parked(struct fs *fs); /* operations that are parked now */
/* The next so many reads park for this long first. */
void memfs_delay_reads(struct fs *fs, unsigned count, uint64_t delay_ns);

#endif
