/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Random I/O by many workers, each on blocks of its own, that knows what every block may hold: what was written last, and,
 * after a write that failed, either that or what was there before. Reads are checked against it, and narrow it down.
 */
#ifndef LANEFS_TESTS_NVME_LOAD_H
#define LANEFS_TESTS_NVME_LOAD_H

#include "nvme_rig.h"

enum { LOAD_WORKERS_MAX = 24, LOAD_BLOCKS = 8, LOAD_GUESSES_MAX = 6 };

struct load_block {
	uint64_t may_hold[LOAD_GUESSES_MAX]; /* 0: zeroes */
	unsigned count;                      /* 0: anything */
};

struct load_worker {
	struct load *load;
	struct rig_io io;
	uint8_t *pages;                      /* what io's buffer lies in */
	struct load_block blocks[LOAD_BLOCKS];
	enum nvme_opcode op;
	unsigned first, block_count;
	uint64_t stamp;                      /* of the write under way */
	uint64_t since_ns;
	bool running;
};

struct load {
	struct rig *rig;
	uint64_t random;
	unsigned reactors, worker_count, running;
	bool quit;
	struct load_worker workers[LOAD_WORKERS_MAX];
	uint64_t stamps, done, failed;       /* failed: otherwise than with -ENODEV */
	uint64_t longest_ns;
};

void load_init(struct load *load, struct rig *rig, unsigned workers, uint64_t seed);
/* Worker i runs on reactor i % reactors, until load_quit or -ENODEV. */
void load_start(struct load *load);
/* No worker runs any more; fails after @limit_ns. */
void load_expect_end(struct load *load, uint64_t limit_ns);
/* What the fake has in its namespace is what the workers know. */
void load_verify(const struct load *load);
/* Calls off what a random worker has under way. */
void load_abort_one(struct load *load);
void load_fini(struct load *load);
uint64_t load_random(struct load *load, uint64_t bound);

#endif
