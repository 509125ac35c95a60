/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling the device which blocks are unused: in the background as they become free (mount option discard), and all free
 * space at once (fs_trim).
 */
#ifndef LANEFS_FS_DISCARD_H
#define LANEFS_FS_DISCARD_H

#include "fs/alloc.h"

struct alloc;
struct ag;

/* What discarding did since the mount; the owner writes, anybody reads. */
struct discard_stats {
	uint64_t runs, blocks;          /* unmapped in the background */
	uint64_t failed;                /* unmaps that the device refused */
	uint64_t skipped_blocks;        /* reused without, since space was short or the list long */
	uint64_t waiting_blocks;
};

/* Starts discarding of what is freed from now on, if the mount option says so; a device that cannot is said and no error.
 * -ENOMEM. These three: fiber of reactor 0. */
MAY_WAIT int discards_start(struct fs *fs) MUST_CHECK;
/* Waits until what is free is unmapped, for a few seconds at most. Nobody frees anything meanwhile. */
MAY_WAIT void discards_drain(struct fs *fs);
/* Ends discarding; returns when the device unmaps nothing any more. What is left is free as it is. */
MAY_WAIT void discards_stop(struct fs *fs);
void discard_stats_read(const struct owner *owner, struct discard_stats *out);
/* With the allocator, when it is stopped, or after a power cut of the simulation. */
void discard_destroy(struct owner *owner);

/* ---- for the allocator ---- */
/* A run that is free and durably so; it comes back by itself when it is unmapped. False: discarding is off. No wait. */
bool discard_take(struct alloc *alloc, struct run run);
/* An allocation found nothing. True: blocks have come back since (perhaps without having been unmapped). */
MAY_WAIT bool discard_yield(struct alloc *alloc);
/* What is not unmapped yet becomes free as it is. No wait. */
void discard_let_go(struct alloc *alloc, struct ag *ag);
/* Something was freed that may not be reused yet. */
void discard_freed(struct alloc *alloc);

#endif
