/* SPDX-License-Identifier: BSD-3-Clause */
/* The types and helpers of the memory filesystem, shared by its two halves: names, and everything else. */
#ifndef LANEFS_TESTS_UNIT_FUSE_MEMFS_INTERNAL_H
#define LANEFS_TESTS_UNIT_FUSE_MEMFS_INTERNAL_H

#include <pthread.h>

#include "tests/unit/fuse_memfs.h"

struct memnode {
	bool used;
	struct fs_attr attr;
	uint64_t lookups;
	uint64_t parent;         /* directories */
	char *bytes;             /* files: MEMFS_FILE_BYTES of address space, on first use */
	char *target;            /* symlinks */
	char xattr_name[256];    /* one is enough */
	char *xattr;
	uint32_t xattr_length;
};
struct memname {
	uint64_t directory, ino; /* ino 0: free */
	unsigned length;
	char bytes[FS_NAME_MAX];
};
struct fs {
	struct reactor_group *group;
	pthread_mutex_t lock;
	struct memnode *nodes;   /* by number */
	struct memname *names;   /* the index is the cookie, less 3 */
	struct memfs_calls calls;
	int error;
	unsigned delayed_reads;
	uint64_t delay_ns;
	atomic_uint park, parked; /* enum memfs_parking */
};

/* Parks while memfs_park says so. */
MAY_WAIT void memfs_look(struct fs *fs);
/* The same, and claims the ticket: -EINTR when it was called off. */
MAY_WAIT int memfs_change(struct fs *fs);
/* Locks and finds the node; on failure it is unlocked again. */
int memfs_enter(struct fs *fs, uint64_t ino, struct memnode **out);
/* Unlocks and returns @error. */
int memfs_leave(struct fs *fs, int error);
/* With the lock held, as all that follows: @ino exists and is of that type (S_IF*). */
bool memfs_is(const struct fs *fs, uint64_t ino, uint32_t type);
/* ctime; ctime, mtime and blocks. */
void memfs_touch(struct memnode *node);
void memfs_modify(struct memnode *node);
char *memfs_content(struct memnode *node);

#endif
