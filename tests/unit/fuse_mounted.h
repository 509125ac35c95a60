/* SPDX-License-Identifier: BSD-3-Clause */
/* The FUSE front end over a filesystem in memory, really mounted, for tests. Control thread only. */
#ifndef LANEFS_TESTS_UNIT_FUSE_MOUNTED_H
#define LANEFS_TESTS_UNIT_FUSE_MOUNTED_H

#include "fs/fuse/fuse_front.h"
#include "reactor/log.h"
#include "tests/unit/fuse_memfs.h"

struct fuse_mounted {
	struct fuse_front_options options;
	struct reactor_group *group;
	struct fs *fs;
	struct fuse_front *front;
	int fuse_fd, directory_fd; /* directory_fd: the root of the mount */
	char path[64];
	unsigned ended;            /* calls of the ended callback */
};

/* -1 on failure. */
int fuse_mounted_start(struct fuse_mounted *mounted, unsigned reactors, const struct fuse_front_options *options);
/* Unmounts if it still is mounted, waits for the end, frees everything. */
void fuse_mounted_stop(struct fuse_mounted *mounted);
/* Starts a front end on an fd that nobody mounted, cleans up and returns what start returned. */
int fuse_mounted_start_unmounted(struct fuse_mounted *mounted);

/* ---- for the test programs: one mount per configuration ---- */
extern struct fuse_mounted mounted;
enum { MOUNTED_SKIPPED = 77 };
struct CMUnitTest;
/* Runs the tests once for each configuration (reactors, options; @rings: io_uring too), each on a mount of its own.
 * Returns how many failed, or MOUNTED_SKIPPED: no root or no /dev/fuse. */
int mounted_run(const struct CMUnitTest *tests, size_t count, bool rings);
/* Until the program ends. False: the kernel has no FUSE over io_uring. */
bool mounted_enable_io_uring(void);
/* The last one of each: nothing malformed, no answer refused, no operation on the wrong reactor. */
void test_nothing_went_wrong_on_the_way(void **state);
int at(void);
/* Fails the test unless it is made; open for reading and writing. */
int make_file(const char *name, const void *bytes, size_t size);
struct stat stat_of(const char *name);
uint64_t count_of(unsigned opcode);
void fill_pattern(char *bytes, size_t size, unsigned seed);

#endif
