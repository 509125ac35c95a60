/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: timers run once, in order of time, not before it, can be stopped and moved, also from timer functions.
 * Method: virtual time, so that "when" is exact to the length of a simulated step; a random workload against a model.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "reactor/reactor_internal.h"

enum { TIMERS = 300 };

struct probe {
	struct timer timer;
	uint64_t expected_ns; /* 0: must not run */
	unsigned runs;
};
static struct probe probes[TIMERS];
static uint64_t last_due_ns;

/* From so many pointers on there is no memory for the heap. */
static size_t room_max = SIZE_MAX;
void *__real_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size);
void *__wrap_realloc(void *memory, size_t size) { return size / sizeof(void *) > room_max ? NULL : __real_realloc(memory, size); }

static void probe_due(struct timer *timer)
{
	struct probe *probe = CONTAINER_OF(timer, struct probe, timer);
	assert_int_equal(timer->due_ns, probe->expected_ns);
	assert_true(reactor_now_ns() >= timer->due_ns);
	assert_true(timer->due_ns >= last_due_ns);
	assert_false(timer_running(timer));
	last_due_ns = timer->due_ns;
	probe->expected_ns = 0;
	probe->runs++;
}

static void run_on_reactor(int (*fn)(void *arg))
{
	const struct reactor_options options = {.count = 1, .simulate = true, .seed = 5};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	memset(probes, 0, sizeof(probes));
	last_due_ns = 0;
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), fn, NULL), 0);
	assert_false(reactor_group_sim_step(group));
	reactor_group_destroy(group);
}

static void probe_start(struct probe *probe, uint64_t delay_ns)
{
	timer_start(&probe->timer, delay_ns, probe_due);
	probe->expected_ns = reactor_now_ns() + delay_ns;
}

static int start_stop_and_move(void *arg)
{
	srand(42);
	for (unsigned i = 0; i < 20 * TIMERS; i++) {
		struct probe *probe = &probes[rand() % TIMERS];
		if (rand() % 4 == 0) {
			timer_stop(&probe->timer);
			probe->expected_ns = 0;
		} else {
			probe_start(probe, NS_PER_SEC + (uint64_t)rand() % 1000 * NS_PER_MS);
		}
	}
	unsigned expected = 0;
	for (unsigned i = 0; i < TIMERS; i++) {
		assert_int_equal(timer_running(&probes[i].timer), probes[i].expected_ns != 0);
		expected += probes[i].expected_ns != 0;
	}
	assert_true(expected > TIMERS / 4);
	fiber_sleep(10 * NS_PER_SEC);
	unsigned runs = 0;
	for (unsigned i = 0; i < TIMERS; i++) {
		assert_int_equal(probes[i].expected_ns, 0);
		runs += probes[i].runs;
	}
	return (int)(runs - expected);
}
static void test_timers_run_once_in_order_of_time(void **state) { run_on_reactor(start_stop_and_move); }

static void restart(struct timer *timer)
{
	struct probe *probe = CONTAINER_OF(timer, struct probe, timer);
	if (++probe->runs < 10)
		timer_start(timer, NS_PER_MS, restart);
}

static int restarting(void *arg)
{
	timer_start(&probes[0].timer, 0, restart);
	fiber_sleep(20 * NS_PER_MS);
	return probes[0].runs == 10 ? 0 : -1;
}
static void test_a_timer_may_start_itself_again(void **state) { run_on_reactor(restarting); }

static void stop_the_other(struct timer *timer)
{
	probes[0].runs++;
	timer_stop(&probes[0].timer == timer ? &probes[1].timer : &probes[0].timer);
}

static int stopping_each_other(void *arg)
{
	timer_start(&probes[0].timer, NS_PER_MS, stop_the_other);
	timer_start(&probes[1].timer, NS_PER_MS, stop_the_other);
	fiber_sleep(NS_PER_SEC);
	return probes[0].runs == 1 ? 0 : -1;
}
static void test_a_timer_that_is_due_can_still_be_stopped(void **state) { run_on_reactor(stopping_each_other); }

static int far_away(void *arg)
{
	timer_start(&probes[0].timer, UINT64_MAX, probe_due);
	const bool running = timer_running(&probes[0].timer) && probes[0].timer.due_ns == UINT64_MAX;
	timer_stop(&probes[0].timer);
	timer_stop(&probes[0].timer);
	return running && !timer_running(&probes[0].timer) ? 0 : -1;
}
static void test_a_delay_beyond_all_time_is_never(void **state) { run_on_reactor(far_away); }

/* None at all, and for some: both lists hold timers, and the order is that of time all the same. */
static void test_timers_run_without_memory_for_them(void **state)
{
	static const size_t rooms[] = {0, 16, 64};
	for (unsigned i = 0; i < ARRAY_SIZE(rooms); i++) {
		room_max = rooms[i];
		run_on_reactor(start_stop_and_move);
		run_on_reactor(stopping_each_other);
		run_on_reactor(far_away);
	}
	room_max = SIZE_MAX;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_timers_run_once_in_order_of_time),
		cmocka_unit_test(test_a_timer_may_start_itself_again),
		cmocka_unit_test(test_a_timer_that_is_due_can_still_be_stopped),
		cmocka_unit_test(test_a_delay_beyond_all_time_is_never),
		cmocka_unit_test(test_timers_run_without_memory_for_them),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
