/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A mounted filesystem as seen from outside: every path with its attributes, extended attributes and a hash of every block
 * of its data. Two such pictures tell whether an operation happened, did not, or did so in part.
 */
#ifndef LANEFS_TESTS_SIM_PICTURE_H
#define LANEFS_TESTS_SIM_PICTURE_H

#include "tests/sim/calls.h"

struct picture_node {
	char *path;
	uint32_t mode, nlink, uid, gid, major, minor, flags;
	uint64_t size, blocks;
	uint64_t time;                  /* mtime where it was set to the distant past; else 0: any */
	uint64_t other;                 /* hash of extended attributes and a link's target */
	uint64_t *data;                 /* a hash per block; 0: all zeroes */
	uint32_t data_count;
};
struct picture {
	struct picture_node *nodes;        /* by path */
	unsigned count, room;
};

enum { PICTURE_OLD_TIME_MAX = 1000000 };   /* seconds: mtimes below are compared */

/* Everything below the root but names that begin with @skip there. Negative errno of the call that failed. */
int picture_read(struct machine *machine, const char *skip, struct picture *out) MUST_CHECK;
void picture_free(struct picture *tree);

enum picture_expectation {
	PICTURE_BEFORE,                    /* the operation has not happened */
	PICTURE_AFTER,                     /* it has */
	PICTURE_EITHER,
	PICTURE_PARTLY,                    /* either, or files that it changes have blocks and a size of before or after */
};
/* NULL, or what @found has that it may not (static text; valid until the next call). */
const char *picture_judge(const struct picture *before, const struct picture *after, const struct picture *found,
	enum picture_expectation expectation);

#endif
