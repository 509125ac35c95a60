/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File-range locks as one list in order of arrival, granted and waiting together. A range is granted when nothing that
 * arrived before it conflicts with it, whether that is granted itself or still waits: so an exclusive waiter is not
 * overtaken for ever. The list is as long as there are operations on the file, which requests_max bounds.
 */
#include "fs/range.h"

void range_lock_init(struct range_lock *lock)
{
	CDS_INIT_LIST_HEAD(&lock->ranges);
}

bool range_lock_idle(const struct range_lock *lock)
{
	return lock->ranges.next == &lock->ranges;
}

static bool range_conflicts(const struct range *a, const struct range *b)
{
	return (a->exclusive || b->exclusive) && a->start < b->end && b->start < a->end;
}

/* Whether a range that arrived before @range stands in its way. */
static bool range_blocked(const struct range_lock *lock, const struct range *range)
{
	const struct range *other;

	cds_list_for_each_entry(other, &lock->ranges, node) {
		if (other == range)
			return false;
		if (range_conflicts(other, range))
			return true;
	}
	assert(!"a range that is not in its list");
	return true;
}

MAY_WAIT void range_acquire(struct range_lock *lock, struct range *range, uint64_t start, uint64_t end, bool exclusive)
{
	assert(start <= end);
	*range = (struct range){.start = start, .end = end, .exclusive = exclusive, .fiber = fiber_self()};
	cds_list_add_tail(&range->node, &lock->ranges);
	range->granted = !range_blocked(lock, range);
	while (!range->granted)
		fiber_park("file range");
}

void range_release(struct range_lock *lock, struct range *range)
{
	struct range *other;

	assert(range->granted);
	cds_list_del(&range->node);
	range->granted = false;
	cds_list_for_each_entry(other, &lock->ranges, node) {
		if (other->granted || !range_conflicts(other, range) || range_blocked(lock, other))
			continue;
		other->granted = true;
		fiber_wake(other->fiber);
	}
}
