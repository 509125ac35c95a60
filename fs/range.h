/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File-range locks: every data command holds its range from extent lookup to completion. Shared for reads and aligned
 * overwrites, exclusive for what allocates, merges blocks or frees. First come, first served among overlapping ranges.
 * Bytes [start, end); end UINT64_MAX: to the end. One owner.
 */
#ifndef LANEFS_FS_RANGE_H
#define LANEFS_FS_RANGE_H

#include "reactor/fiber.h"

struct range {                          /* on the holder's stack */
	struct cds_list_head node;
	uint64_t start, end;
	bool exclusive, granted;
	struct fiber *fiber;
};
struct range_lock {
	struct cds_list_head ranges;    /* granted and waiting, in order of arrival */
};
void range_lock_init(struct range_lock *lock);
MAY_WAIT void range_acquire(struct range_lock *lock, struct range *range, uint64_t start, uint64_t end, bool exclusive);
void range_release(struct range_lock *lock, struct range *range);
bool range_lock_idle(const struct range_lock *lock);

#endif
