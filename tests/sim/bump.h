/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions that are as small as can be and say afterwards whether they happened: one raises next_generation in the
 * headers of some AGs by one. Whoever raises those of two AGs together always leaves them equal.
 */
#ifndef LANEFS_TESTS_SIM_BUMP_H
#define LANEFS_TESTS_SIM_BUMP_H

#include "fs/alloc.h"
#include "tests/sim/sim.h"

enum bump_how {
	BUMP_APPLY,
	BUMP_GIVE_UP,                   /* tx_end after tx_prepare */
	BUMP_FAIL,                      /* the last change's prepare fails with -EDOM */
};
struct bump {
	unsigned ags;                   /* bit per AG, up to TX_OWNERS_MAX of them */
	unsigned blocks;                /* to reserve; 0: as many as are needed */
	enum bump_how how;
};
/* From a fiber of @home. */
MAY_WAIT int bump_run(struct owner *home, const struct bump *bump);
/* Formats @memory with the smallest journal and AGs, and with one value, BUMP_FIRST, in all headers. */
enum { BUMP_FIRST = 1000 };
void bump_mkfs(void *memory, uint64_t size, uint64_t seed);
/* What stands at home on a device in memory. */
uint32_t bump_value(const void *memory, uint32_t ag);
/* What the mounted filesystem says. From a fiber of the AG's owner. */
MAY_WAIT int bump_read(struct owner *owner, uint32_t ag, uint32_t *out);
const struct fs_super *bump_super(const void *memory);

/* Fibers that run bumps, and a wait for all of them; aborts when they do not end within @limit_ns of virtual time. */
struct bump_fiber {
	struct fiber_start_remote start;
	struct owner *home;
	struct bump bump;
	unsigned rounds;                /* bumps one after the other */
	unsigned done;                  /* rounds that went well */
	int error;                      /* of the round that did not, which was the last */
	bool ended;
	unsigned place, *places;        /* 1: ended first */
};
void bump_fibers_start(struct sim *sim, struct bump_fiber *fibers, unsigned count);
void bump_fibers_wait(struct sim *sim, struct bump_fiber *fibers, unsigned count, uint64_t limit_ns);

/* On the mounted, idle filesystem: all reserved log bytes and cache pins have come back. NULL, or what is wrong. */
const char *bump_check_accounts(struct sim *sim);

#endif
