/* SPDX-License-Identifier: BSD-3-Clause */
/* Inside the allocator: an owner's AGs, its loans, its quarantine. */
#ifndef LANEFS_FS_ALLOC_INTERNAL_H
#define LANEFS_FS_ALLOC_INTERNAL_H

#include "fs/alloc.h"
#include "fs/discard.h"
#include "fs/freespace.h"

enum { LOANS_MAX = 64, LOAN_BLOCKS_MAX = 4096 /* 16 MiB */ };

struct ag {
	uint32_t number;
	bool loaded, loading;
	struct fiber_cond loaded_cond;
	struct freespace space;
	struct freespace undiscarded;   /* free and durable, not yet unmapped; in no other tree */
	/* A trim that walked the whole AG left nothing of at least trimmed_min blocks, unless something was freed since. */
	bool freed_since_trim;
	uint32_t trimmed_min;           /* 0: none did */
};

/* A freed run that may not be reused yet. */
struct quarantined {
	struct quarantined *next;
	struct run run;
	uint64_t part;                  /* number of the freeing part in this owner's stream */
	bool discarded_early;           /* sabotage */
};
struct quarantine {
	struct quarantined *head, **tail;
	uint64_t blocks;
};

struct alloc {
	struct owner *owner;
	unsigned ag_count;              /* AGs of this owner */
	unsigned ag_room;               /* of those, with the ones that are made for a filesystem that grows */
	unsigned loaded_count;
	struct ag **ags;                /* ags[i]->number = owner index + i * owners; what it points to never moves */
	unsigned rotor, spread_rotor;
	uint64_t free_blocks;           /* in the free trees of loaded AGs */
	uint64_t unmapping_blocks;      /* out of them while the device unmaps */
	uint64_t undiscarded_blocks;    /* in the undiscarded trees */
	struct fiber_cond unmapped;     /* some came back */
	struct discard *discard;        /* NULL: off */
	uint64_t held_back;
	struct freespace_pool pool;
	struct quarantine data, metadata;
	struct quarantined *quarantined_free;
	struct run loans[LOANS_MAX];    /* blocks of other owners' AGs, ours to use until a crash forgets it */
	unsigned loan_count;
	unsigned returning;             /* loans on their way back to their lenders */
	struct fiber_cond returned;
	uint64_t lent_blocks;
};

struct ag *alloc_ag(struct alloc *alloc, uint32_t number);
/* Builds the free tree of an AG on first use. */
MAY_WAIT int alloc_load(struct owner *owner, struct ag *ag) MUST_CHECK;
/* Puts blocks of a loaded AG of this owner into its free tree; without memory they stay unused until the next mount. */
void alloc_give_back(struct alloc *alloc, struct run run);
/* Takes a run out of the free tree of its AG while the device unmaps it, and puts it back. -ENOMEM. */
int alloc_lift(struct alloc *alloc, struct ag *ag, struct run run) MUST_CHECK;
void alloc_put_down(struct alloc *alloc, struct run run);
/* Block @index of a map of this owner's AG, pinned; one that was never written is made as mkfs would have made it. */
MAY_WAIT int alloc_map_get(struct owner *owner, uint32_t ag, enum block_type map, uint32_t index, struct buf **out) MUST_CHECK;
void alloc_quarantine(struct alloc *alloc, struct run run, enum run_kind kind, uint64_t part);
MAY_WAIT int alloc_borrow(struct owner *owner, uint32_t want, uint32_t min, unsigned flags) MUST_CHECK;
bool alloc_take_loan(struct alloc *alloc, uint32_t want, uint32_t min, struct run *out);
void alloc_add_loan(struct alloc *alloc, struct run run);
/* From a loaded or loadable AG of this owner, the held-back space respected. -ENOSPC. */
MAY_WAIT int alloc_take_own(struct owner *owner, uint64_t goal, uint32_t want, uint32_t min, unsigned flags,
	struct run *out) MUST_CHECK;

#endif
