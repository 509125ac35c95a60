/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * File-range locks: who waits for whom, the order among those that overlap, and a random crowd that is watched for two
 * conflicting holders at once and for anyone left behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/range.h"
#include "tests/unit/fake_fiber.h"

struct visitor {
	struct range_lock *lock;
	struct range range;
	uint64_t start, end;
	bool exclusive, hold, in, done;
	unsigned *order, place;
};

static void visit(void *arg)
{
	struct visitor *visitor = arg;

	range_acquire(visitor->lock, &visitor->range, visitor->start, visitor->end, visitor->exclusive);
	visitor->in = true;
	visitor->place = ++*visitor->order;
	while (visitor->hold)
		fiber_park("held by the test");
	range_release(visitor->lock, &visitor->range);
	visitor->in = false;
	visitor->done = true;
}

static void visitor_leave(struct visitor *visitor)
{
	visitor->hold = false;
	fiber_wake(visitor->range.fiber);
	fake_fiber_run();
	assert_true(visitor->done);
}

static void visitors_start(struct visitor *visitors, unsigned count, struct range_lock *lock, unsigned *order)
{
	range_lock_init(lock);
	for (unsigned i = 0; i < count; i++) {
		visitors[i].lock = lock;
		visitors[i].order = order;
		visitors[i].hold = true;
		fake_fiber_start(visit, &visitors[i]);
		fake_fiber_run();
	}
}

static void test_shared_ranges_do_not_wait(void **state)
{
	struct range_lock lock;
	unsigned order = 0;
	struct visitor visitors[] = {
		{.start = 0, .end = 100},
		{.start = 50, .end = UINT64_MAX},
		{.start = 0, .end = 10},
	};

	visitors_start(visitors, 3, &lock, &order);
	for (unsigned i = 0; i < 3; i++)
		assert_true(visitors[i].in);
	assert_false(range_lock_idle(&lock));
	for (unsigned i = 0; i < 3; i++)
		visitor_leave(&visitors[i]);
	assert_true(range_lock_idle(&lock));
}

static void test_exclusive_waits_for_overlap_only(void **state)
{
	struct range_lock lock;
	unsigned order = 0;
	struct visitor visitors[] = {
		{.start = 0, .end = 100, .exclusive = true},
		{.start = 100, .end = 200, .exclusive = true},
		{.start = 99, .end = 101, .exclusive = true},
		{.start = 300, .end = UINT64_MAX, .exclusive = true},
	};

	visitors_start(visitors, 4, &lock, &order);
	assert_true(visitors[0].in && visitors[1].in && !visitors[2].in && visitors[3].in);
	visitor_leave(&visitors[0]);
	assert_false(visitors[2].in);
	visitor_leave(&visitors[1]);
	assert_true(visitors[2].in);
	visitor_leave(&visitors[2]);
	visitor_leave(&visitors[3]);
}

static void test_later_reader_does_not_overtake_waiting_writer(void **state)
{
	struct range_lock lock;
	unsigned order = 0;
	struct visitor visitors[] = {
		{.start = 0, .end = 100},
		{.start = 50, .end = 60, .exclusive = true},
		{.start = 0, .end = 55},
		{.start = 60, .end = 100},
	};

	visitors_start(visitors, 4, &lock, &order);
	assert_true(visitors[0].in && !visitors[1].in && !visitors[2].in && visitors[3].in);
	visitor_leave(&visitors[0]);
	assert_true(visitors[1].in && !visitors[2].in);
	visitor_leave(&visitors[1]);
	assert_true(visitors[2].in);
	assert_true(visitors[1].place < visitors[2].place);
	visitor_leave(&visitors[2]);
	visitor_leave(&visitors[3]);
}

/* ---- a crowd ---- */

struct crowd {
	struct range_lock lock;
	struct range *held[FAKE_FIBERS_MAX];
	unsigned id, random, rounds;
};

static unsigned crowd_random(struct crowd *crowd, unsigned below)
{
	crowd->random = crowd->random * 1103515245 + 12345;
	return (crowd->random >> 8) % below;
}

static void crowd_member(void *arg)
{
	struct crowd *crowd = arg;
	const unsigned id = crowd->id++;
	struct range range;

	for (unsigned i = 0; i < 2000; i++) {
		const uint64_t start = crowd_random(crowd, 64);
		const bool exclusive = crowd_random(crowd, 3) == 0;
		range_acquire(&crowd->lock, &range, start, start + crowd_random(crowd, 16), exclusive);
		for (unsigned other = 0; other < FAKE_FIBERS_MAX; other++) {
			const struct range *held = crowd->held[other];
			if (held && (held->exclusive || exclusive))
				assert_false(held->start < range.end && range.start < held->end);
		}
		crowd->held[id] = &range;
		for (unsigned turns = crowd_random(crowd, 4); turns; turns--)
			fake_fiber_yield();
		crowd->held[id] = NULL;
		range_release(&crowd->lock, &range);
		crowd->rounds++;
	}
}

static void test_random_crowd_excludes_and_finishes(void **state)
{
	struct crowd crowd = {.random = 7};

	range_lock_init(&crowd.lock);
	for (unsigned i = 0; i < FAKE_FIBERS_MAX; i++)
		fake_fiber_start(crowd_member, &crowd);
	assert_int_equal(fake_fiber_run(), 0);
	assert_int_equal(crowd.rounds, 2000 * FAKE_FIBERS_MAX);
	assert_true(range_lock_idle(&crowd.lock));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shared_ranges_do_not_wait),
		cmocka_unit_test(test_exclusive_waits_for_overlap_only),
		cmocka_unit_test(test_later_reader_does_not_overtake_waiting_writer),
		cmocka_unit_test(test_random_crowd_excludes_and_finishes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
