/* SPDX-License-Identifier: BSD-3-Clause */
/* A walk through whatever is mounted, as far as names lead. */
#ifndef LANEFS_TESTS_FUZZ_FUZZ_TOUR_H
#define LANEFS_TESTS_FUZZ_FUZZ_TOUR_H

#include "tests/fuzz/fuzz_image.h"

enum { FUZZ_VISITS_MAX = 40, FUZZ_TOUR_BYTES = 64 << 10 };
struct fuzz_visit {
	uint64_t ino, directory;
	unsigned type;
	char name[FS_NAME_MAX + 1];
};
struct fuzz_tour {
	struct fuzz_visit visit[FUZZ_VISITS_MAX]; /* what was found */
	unsigned visits;
	uint64_t directory;             /* at hand */
	uint8_t *buffer;                /* FUZZ_TOUR_BYTES, DMA; the caller's */
};
/* Lists directories, breadth first, each once; then looks at each entry: attributes, data, target, xattrs, holes. Whatever they
 * answer is right; what they answer with must fit its bounds. */
void fuzz_tour(struct machine *machine, struct fuzz_tour *tour);

#endif
