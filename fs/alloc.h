/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Free space of one owner: its AGs with their headers, block maps and free-extent trees (built on first use), quarantine
 * of freed blocks, loans between owners, and the space held back for unlink and truncate.
 */
#ifndef LANEFS_FS_ALLOC_H
#define LANEFS_FS_ALLOC_H

#include "fs/tx.h"

int alloc_create(struct owner *owner) MUST_CHECK;
void alloc_destroy(struct owner *owner);

enum alloc_flags {
	ALLOC_HELD_BACK = 1 << 0,       /* may go below the held-back reserve */
	ALLOC_OWN = 1 << 1,             /* no loans: from this owner's AGs */
};
/* In-memory reservation, see tx_alloc. */
MAY_WAIT int alloc_run(struct owner *owner, uint64_t goal, uint32_t want, uint32_t min, unsigned flags, struct run *out) MUST_CHECK;
/* Gives an unused reservation back (any owner's blocks, to the owner that allocated them). */
void alloc_release(struct owner *owner, struct run run);

/* Pins header and map blocks of a run that lies in this owner's AGs. */
MAY_WAIT int alloc_prepare(struct tx_part *part, const struct tx_run *run) MUST_CHECK;
/* Sets or clears the bits, counts; frees go into quarantine under the part's number. */
void alloc_apply(struct tx_part *part, const struct tx_run *run);

/* Header of an AG of this owner, pinned in the part; apply steps change it under tx_dirty. */
MAY_WAIT int alloc_pin_header(struct tx_part *part, uint32_t ag, struct buf **out) MUST_CHECK;
/* A block of the inode map or inode free map of an AG of this owner that holds the bit of @ag_block; made new when it is not
 * ready (alloc_map_ready then marks it in apply, header pinned). */
MAY_WAIT int alloc_pin_map(struct tx_part *part, uint32_t ag, enum block_type map, uint32_t ag_block, struct buf **out) MUST_CHECK;
void alloc_map_bit(struct tx_part *part, struct buf *map, uint32_t ag_block, bool set);
void alloc_map_ready(struct tx_part *part, uint32_t ag, enum block_type map, uint32_t ag_block);
/* Whether the bit is set; a map that is not ready counts as zero. */
MAY_WAIT int alloc_map_test(struct owner *owner, uint32_t ag, enum block_type map, uint32_t ag_block, bool *out) MUST_CHECK;
/* The first set bit at or after @from; ALLOC_MAP_NONE when there is none. */
#define ALLOC_MAP_NONE UINT32_MAX
MAY_WAIT int alloc_map_next(struct owner *owner, uint32_t ag, enum block_type map, uint32_t from, uint32_t *out) MUST_CHECK;

/* Growing. Memory for this owner's AGs of a filesystem of @ag_count; they give nothing yet. -ENOMEM. */
int alloc_grow_reserve(struct owner *owner, uint32_t ag_count) MUST_CHECK;
/* What was reserved is there, and in the superblock. No wait. */
void alloc_grow_open(struct owner *owner);
/* The last AG becomes longer: prepare pins its header and its map; apply frees the bits of [from, to), counts, and leaves
 * the blocks out of the free tree until alloc_grow_add. */
MAY_WAIT int alloc_grow_prepare(struct tx_part *part, uint32_t ag) MUST_CHECK;
void alloc_grow_apply(struct tx_part *part, uint32_t ag, uint32_t from, uint32_t to);
void alloc_grow_add(struct owner *owner, uint32_t ag, uint32_t from, uint32_t to);

/* Durable number or tail rose: quarantined runs come back. No wait. */
void alloc_quarantine_release(struct owner *owner);
/* True when waiting (commit, checkpoint) would bring space back. */
bool alloc_quarantine_waiting(const struct owner *owner);
/* What this owner has borrowed and not used goes back to the lenders. True: there was some. */
MAY_WAIT bool alloc_return_loans(struct owner *owner);
/* Free blocks that this owner could hand out now, by memory. */
uint64_t alloc_free_count(const struct owner *owner);
/* Whether an AG of this owner has a free block, by memory. */
MAY_WAIT bool alloc_has_room(struct owner *owner, uint32_t ag);
/* AGs of this owner, for spreading: the next one in turn with room for inodes. */
MAY_WAIT uint32_t alloc_spread_ag(struct owner *owner);

#endif
