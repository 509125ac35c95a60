/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A few steps of one program, one after the other, the world after each, and the oracle that says whether a world found
 * after a power cut is one that the promises allow. It knows nothing of journals: the worlds were taken while nothing was cut.
 *
 * What is promised:
 * - names and inodes are those after the first k steps, all of them, for some k that is no smaller than what an fsync, an
 *   fdatasync, a sync or an O_SYNC write acknowledged, and no larger than what had begun;
 * - a file's bytes are those after these k steps. Only where a step wrote in place, onto blocks that were mapped and written
 *   before, the bytes may be older (if nothing was flushed since) or newer (if the step had begun), zeroes behind an end
 *   that a truncate had moved and that is not durable among them, and what was written after zeroing a range, which keeps
 *   the blocks;
 * - so with times, which overwriting in place logs later;
 * - what changes a file's content or allocation may be found half done, if it was not acknowledged as durable: size and blocks
 *   between before and after, every byte and every time as before or after. Nothing else of the world is half done.
 */
#ifndef LANEFS_TESTS_SIM_HISTORY_H
#define LANEFS_TESTS_SIM_HISTORY_H

#include "tests/sim/world.h"

enum { HISTORY_STEPS_MAX = 8 };

enum history_sync { HISTORY_SYNC_NONE, HISTORY_SYNC_FILE, HISTORY_SYNC_DATA, HISTORY_SYNC_ALL };

struct history_step {
	uint64_t begun, acknowledged;   /* places in the device log; UINT64_MAX: never */
	/* What it made durable when it was acknowledged: of one inode, or all. */
	enum history_sync sync;
	uint64_t sync_ino;
	bool sync_itself;               /* the step is a change, too: a synchronous write */
	bool frees;                     /* the blocks that it covers are others afterwards: a hole was punched */
	bool perhaps;                   /* what it covers may have been written in place, or not: holes are copied as holes */
	/* Bytes that it wrote onto blocks that were mapped and written: of these blocks (a bit each) what lies in [from, end), and
	 * what lay behind the end of the file, which is zeroed when the file grows. */
	uint64_t stepwise_ino;          /* the inode whose content or allocation it changes piece by piece; 0: none */
	uint64_t in_place_ino, in_place_from, in_place_end, in_place_blocks, old_size;
};
struct history {
	unsigned step_count;
	struct history_step steps[HISTORY_STEPS_MAX];
	struct world *worlds[HISTORY_STEPS_MAX + 1]; /* [k]: after k steps */
};
/* NULL: possible for a cut at place @at of the device log. Else what was broken. */
const char *history_judge(const struct history *history, const struct world *found, uint64_t at);
/* For people: in which worlds the pieces of a file stand as they were found. */
void history_explain(const struct history *history, const struct world *found);
/* A number that differs when what is promised at @at differs. */
uint64_t history_promised(const struct history *history, uint64_t at);

#endif
