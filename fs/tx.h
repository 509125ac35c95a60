/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions: reserve, lock, prepare, apply (DESIGN section 2).
 *
 *   tx_begin      (1) log bytes and cache pins for the worst case; waits with no lock held
 *   lock          (2) the caller locks its inodes, in ascending order, over all owners
 *   prepare       (3) the caller reads (tx_pin), allocates (tx_alloc), names what is freed (tx_free) and hangs changes on
 *                     parts (tx_change); tx_prepare then runs every change's prepare on its owner and pins the maps
 *   tx_apply      (4) every part's changes are applied on its owner, without a wait and without a failure path; records go
 *                     to the log. Returns when all owners have applied. The caller unlocks then.
 *   tx_end        gives everything back; when tx_apply was not reached: allocations are released, nothing has happened.
 *
 * A part is one owner's share. A change is one step of it: prepare may wait and fail, apply may not. Changes of one part are
 * prepared and applied in the order in which they were added, the home part (where tx_begin was called) is applied first.
 */
#ifndef LANEFS_FS_TX_H
#define LANEFS_FS_TX_H

#include "fs/cache.h"
#include "fs/journal.h"

enum { TX_PINS_MAX = 64, TX_RUNS_MAX = 48, TX_RANGES_MAX = 4, TX_OWNERS_MAX = JOURNAL_TX_OWNERS_MAX, TX_SCRATCH_BYTES = 16384 };

struct tx;
struct tx_part;

struct change {
	struct change *next;
	/* On the part's owner. Pins and reads what apply needs, allocates, checks. */
	int (*prepare)(struct tx_part *part, struct change *change); /* MAY_WAIT; may be NULL */
	void (*apply)(struct tx_part *part, struct change *change);
	/* On the part's owner, no wait: the transaction ends without apply after a successful prepare; gives back what prepare
	 * reserved in memory (blocks and pins are given back by tx_end). May be NULL. */
	void (*cancel)(struct tx_part *part, struct change *change);
};

enum run_kind {
	RUN_DATA,                       /* reused once the freeing group is durable */
	RUN_METADATA,                   /* reused once the tail has passed the freeing group */
};
struct tx_run {
	struct run run;
	struct owner *allocator;        /* who reserved it; NULL: it is freed */
	enum run_kind kind;
};

struct touched {
	struct buf *buf;
	unsigned range_count;           /* 0: pinned only */
	struct { uint16_t start, end; } range[TX_RANGES_MAX];
};

struct tx_part {
	struct tx *tx;
	struct owner *owner;
	struct change *changes, **changes_tail;
	struct change *unprepared;      /* first change whose prepare has not run */
	unsigned pin_count, run_count;
	uint32_t log_bytes;             /* given to this part by tx_prepare */
	bool applied;
	struct message message;
	struct journal_part *journal_part;
	/* Room for what changes build in prepare and copy in apply (new leaf contents). NULL until tx_scratch; stays with the part
	 * when that is used again, so there is one for each part, whichever owner's thread was the first to need it. */
	uint8_t *scratch;
	size_t scratch_used;
	struct touched pins[TX_PINS_MAX];
	struct tx_run runs[TX_RUNS_MAX]; /* in this owner's AGs */
};

struct tx {
	struct fs *fs;
	struct owner *home;
	unsigned part_count;
	struct tx_part *parts[TX_OWNERS_MAX]; /* parts[0]: home */
	uint32_t log_bytes;             /* reserved, not yet given to a part */
	unsigned cache_pins;            /* reserved at home */
	bool maps_data;                 /* set by data paths: new blocks were written */
	bool use_held_back;             /* unlink, truncate: may allocate from the held-back space */
	bool applied;
	uint64_t id;
	uint32_t sent_parts;
	struct fiber_group remote;      /* parts on their way */
};

int tx_pool_create(struct owner *owner) MUST_CHECK;
void tx_pool_destroy(struct owner *owner);

/* @blocks: how many metadata blocks may be touched over all owners, the maps and headers of allocations and frees included
 * (<= JOURNAL_TX_BLOCKS_MAX). On the caller's owner; no lock may be held. -EROFS, -EIO, -ENOMEM. */
MAY_WAIT int tx_begin(struct owner *owner, unsigned blocks, struct tx **out) MUST_CHECK;
MAY_WAIT void tx_end(struct tx *tx);

/* The part of @owner, made if need be. */
struct tx_part *tx_part(struct tx *tx, struct owner *owner);
static inline struct tx_part *tx_home(struct tx *tx) { return tx->parts[0]; }
/* Prepare steps, on the part's owner: */
void tx_change(struct tx_part *part, struct change *change);
/* Reads the block and keeps it pinned until tx_end; pinning twice is one pin. */
MAY_WAIT int tx_pin(struct tx_part *part, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out) MUST_CHECK;
/* The same for a block without old content (just allocated). */
MAY_WAIT int tx_pin_new(struct tx_part *part, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out) MUST_CHECK;
/* Reserves up to @want, at least @min blocks in one run, near @goal (0: anywhere of this owner), for use by this
 * transaction: its map bits are set in apply. From this owner's AGs, else from a loan. -ENOSPC. */
MAY_WAIT int tx_alloc(struct tx_part *part, uint64_t goal, uint32_t want, uint32_t min, struct run *out) MUST_CHECK;
/* The same from this owner's AGs only, no loan: inode blocks. */
MAY_WAIT int tx_alloc_own(struct tx_part *part, uint64_t goal, uint32_t want, uint32_t min, struct run *out) MUST_CHECK;
/* Hands a reservation made with alloc_run on this part's owner to the transaction; on failure (-E2BIG) it stays the caller's. */
int tx_adopt(struct tx_part *part, struct run run) MUST_CHECK;
/* These blocks become free in apply. Metadata blocks that are cached must be pinned in the part that owns their content,
 * and are killed by it (tx_kill in apply). -EUCLEAN when the run is not inside one AG, -E2BIG when there are too many. */
int tx_free(struct tx_part *part, struct run run, enum run_kind kind) MUST_CHECK;
/* Zeroed memory until tx_end; NULL when the part's TX_SCRATCH_BYTES are used up. */
void *tx_scratch(struct tx_part *part, size_t bytes);
/* Runs outstanding prepares on all owners: the first half of tx_prepare, for a caller whose further changes depend on what
 * these found. On the home owner. After an error: tx_end. */
MAY_WAIT int tx_prepare_changes(struct tx *tx) MUST_CHECK;
/* Runs outstanding prepares on all owners and pins maps and AG headers; then the operation cannot be called off any more
 * (-EINTR: it was; see op_claim). On the home owner. After an error: tx_end. */
MAY_WAIT int tx_prepare(struct tx *tx) MUST_CHECK;

/* Apply steps, on the part's owner, no wait: */
/* The bytes [offset, offset + length) of a pinned block were or will be changed in this apply step. */
void tx_dirty(struct tx_part *part, struct buf *buf, unsigned offset, unsigned length);
/* The block was freed by this transaction: no home write any more. */
void tx_kill(struct tx_part *part, struct buf *buf);

/* Cannot fail. Waits for other owners' parts, and at a closed gate before it begins. */
MAY_WAIT void tx_apply(struct tx *tx);

/* The line of a checkpoint, and the beginning of a scrub: closing waits for the apply steps that this owner initiated; none begins
 * until whoever has closed the gate has opened it. */
MAY_WAIT void tx_gate_close(struct owner *owner);
void tx_gate_open(struct owner *owner);

#endif
