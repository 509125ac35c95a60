/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the simulation is deterministic, explores different orders, keeps the order between two reactors, jumps
 * through idle time, and says who waits when nothing can run.
 * Method: a workload of fibers that call, sleep and send on several reactors writes a trace; traces are compared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/reactor_internal.h"

static struct reactor_group *group_create(unsigned count, uint64_t seed)
{
	const struct reactor_options options = {.count = count, .simulate = true, .seed = seed, .fiber_count = 64};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	return group;
}

/* ---- the workload ---- */

enum { REACTORS = 3, WORKERS = 12, ROUNDS = 10, TRACE_MAX = 4096 };

struct trace {
	unsigned events[TRACE_MAX], count;
	unsigned ended;
	struct reactor_group *group;
};
struct worker {
	struct fiber_start_remote start;
	struct trace *trace;
	unsigned number;
};

static void trace_add(struct trace *trace, unsigned event)
{
	if (trace->count < TRACE_MAX)
		trace->events[trace->count++] = event;
}

static int work_there(void *arg)
{
	struct worker *worker = arg;
	trace_add(worker->trace, 1000 + worker->number);
	fiber_yield();
	return (int)worker->number;
}

static void work(void *arg)
{
	struct worker *worker = arg;
	for (unsigned i = 0; i < ROUNDS; i++) {
		trace_add(worker->trace, worker->number);
		struct reactor *to = reactor_group_get(worker->trace->group, (worker->number + i) % REACTORS);
		assert_int_equal(reactor_call(to, work_there, worker), worker->number);
		fiber_sleep((worker->number * 7 + i) % 5 * NS_PER_US);
	}
	worker->trace->ended++;
}

static bool all_ended(void *arg) { return ((struct trace *)arg)->ended == WORKERS; }

static void workers_start_in(struct reactor_group *group, struct trace *trace)
{
	static struct worker workers[WORKERS];
	memset(trace, 0, sizeof(*trace));
	trace->group = group;
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){.trace = trace, .number = i};
		workers[i].start.start = (struct fiber_start){.fn = work, .arg = &workers[i], .name = "worker"};
		fiber_start_on(reactor_group_get(trace->group, i % REACTORS), &workers[i].start);
	}
}

static void workers_start(uint64_t seed, struct trace *trace) { workers_start_in(group_create(REACTORS, seed), trace); }

static void trace_run(uint64_t seed, struct trace *trace)
{
	workers_start(seed, trace);
	assert_true(reactor_group_sim_run(trace->group, all_ended, trace));
	reactor_group_destroy(trace->group);
	trace->group = NULL;
}

static void test_the_same_seed_gives_the_same_trace(void **state)
{
	struct trace *first = malloc(sizeof(*first)), *second = malloc(sizeof(*second));
	for (uint64_t seed = 0; seed < 20; seed++) {
		trace_run(seed, first);
		trace_run(seed, second);
		assert_int_equal(first->count, 2 * WORKERS * ROUNDS);
		assert_memory_equal(first, second, sizeof(*first));
	}
	free(first);
	free(second);
}

static bool is_idle(void *arg)
{
	struct reactor_group *group = arg;
	for (unsigned i = 0; i < REACTORS; i++)
		if (group->reactors[i].fibers_running)
			return false;
	return true;
}

static void test_a_group_that_begins_anew_gives_the_trace_of_a_fresh_one(void **state)
{
	struct trace *fresh = malloc(sizeof(*fresh)), *again = malloc(sizeof(*again));
	struct reactor_group *group = group_create(REACTORS, 1000);
	for (uint64_t seed = 0; seed < 20; seed++) {
		trace_run(seed, fresh);
		reactor_group_sim_restart(group, seed);
		workers_start_in(group, again);
		assert_true(reactor_group_sim_run(group, all_ended, again));
		assert_true(reactor_group_sim_run(group, is_idle, group));
		again->group = NULL;
		assert_memory_equal(fresh, again, sizeof(*fresh));
	}
	reactor_group_destroy(group);
	free(fresh);
	free(again);
}

static void test_different_seeds_give_different_traces(void **state)
{
	struct trace *first = malloc(sizeof(*first)), *second = malloc(sizeof(*second));
	trace_run(1, first);
	for (uint64_t seed = 2; seed < 20; seed++) {
		trace_run(seed, second);
		assert_memory_not_equal(first->events, second->events, sizeof(first->events));
	}
	free(first);
	free(second);
}

/* ---- order ---- */

enum { ORDER_SENDERS = 3, ORDER_COUNT = 200 };

struct order {
	struct reactor *receiver;
	unsigned next[ORDER_SENDERS], wrong, total, mixed, last_sender;
};
struct numbered {
	struct message message;
	struct order *order;
	unsigned sender, number;
};
struct sending {
	struct fiber_start_remote start;
	struct numbered messages[ORDER_COUNT];
	struct order *order;
	unsigned sender;
};

static void numbered_arrived(struct message *message)
{
	struct numbered *numbered = CONTAINER_OF(message, struct numbered, message);
	struct order *order = numbered->order;
	if (numbered->number != order->next[numbered->sender]++)
		order->wrong++;
	if (numbered->sender != order->last_sender)
		order->mixed++;
	order->last_sender = numbered->sender;
	order->total++;
}

static void send_all(void *arg)
{
	struct sending *sending = arg;
	for (unsigned i = 0; i < ORDER_COUNT; i++) {
		sending->messages[i] = (struct numbered){.message.fn = numbered_arrived, .order = sending->order,
			.sender = sending->sender, .number = i};
		reactor_send(sending->order->receiver, &sending->messages[i].message);
		if (i % 10 == 0)
			fiber_yield();
	}
}

static bool all_arrived(void *arg) { return ((struct order *)arg)->total == ORDER_SENDERS * ORDER_COUNT; }

static void test_order_between_two_reactors_is_kept(void **state)
{
	struct sending *sendings = calloc(ORDER_SENDERS, sizeof(*sendings));
	for (uint64_t seed = 0; seed < 30; seed++) {
		struct reactor_group *group = group_create(ORDER_SENDERS, seed);
		struct order order = {.receiver = reactor_group_get(group, 0)};
		for (unsigned i = 0; i < ORDER_SENDERS; i++) {
			sendings[i] = (struct sending){.order = &order, .sender = i};
			sendings[i].start.start = (struct fiber_start){.fn = send_all, .arg = &sendings[i], .name = "sender"};
			fiber_start_on(reactor_group_get(group, i), &sendings[i].start);
		}
		assert_true(reactor_group_sim_run(group, all_arrived, &order));
		assert_int_equal(order.wrong, 0);
		assert_true(order.mixed > ORDER_SENDERS);
		while (reactor_group_sim_step(group))
			;
		reactor_group_destroy(group);
	}
	free(sendings);
}

/* ---- time ---- */

static int sleep_a_day(void *arg)
{
	const uint64_t before_ns = reactor_now_ns(), wall_ns = reactor_wall_ns(), day_ns = 86400 * NS_PER_SEC;
	fiber_sleep(day_ns);
	const uint64_t slept_ns = reactor_now_ns() - before_ns;
	return slept_ns >= day_ns && slept_ns < day_ns + NS_PER_SEC && reactor_wall_ns() - wall_ns == slept_ns ? 0 : -1;
}

static void test_idle_time_is_jumped_over(void **state)
{
	struct reactor_group *group = group_create(2, 3);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 1), sleep_a_day, NULL), 0);
	reactor_group_destroy(group);
}

struct counting_poller {
	struct poller poller;
	unsigned calls, work_left;
};

static unsigned counting_poll(struct poller *poller)
{
	struct counting_poller *self = CONTAINER_OF(poller, struct counting_poller, poller);
	self->calls++;
	return self->work_left > 0 ? self->work_left-- : 0;
}

static void test_pollers_that_find_nothing_let_time_jump(void **state)
{
	struct reactor_group *group = group_create(2, 3);
	struct counting_poller busy = {.work_left = 5}, idle = {0};
	poller_register(reactor_group_get(group, 0), &busy.poller, "busy", counting_poll, 0);
	poller_register(reactor_group_get(group, 1), &idle.poller, "idle", counting_poll, 0);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 1), sleep_a_day, NULL), 0);
	assert_int_equal(busy.work_left, 0);
	assert_true(busy.calls > 5 && busy.calls < 100);
	assert_true(idle.calls > 0 && idle.calls < 100);
	while (reactor_group_sim_step(group))
		;
	poller_unregister(&busy.poller);
	poller_unregister(&idle.poller);
	reactor_group_destroy(group);
}

static int yield_until_late(void *arg)
{
	const uint64_t until_ns = reactor_now_ns() + 20 * NS_PER_US;
	while (reactor_now_ns() < until_ns)
		fiber_yield();
	return 0;
}

static void test_time_passes_for_a_fiber_that_only_yields(void **state)
{
	struct reactor_group *group = group_create(1, 3);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), yield_until_late, NULL), 0);
	reactor_group_destroy(group);
}

static void test_periodic_pollers_run_once_a_period(void **state)
{
	struct reactor_group *group = group_create(1, 3);
	struct counting_poller hourly = {0};
	poller_register(reactor_group_get(group, 0), &hourly.poller, "hourly", counting_poll, 3600 * 1000000u);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), sleep_a_day, NULL), 0);
	assert_in_range(hourly.calls, 23, 25);
	poller_unregister(&hourly.poller);
	reactor_group_destroy(group);
}

/* ---- standing still ---- */

struct deadlock {
	struct reactor_group *group;
	struct fiber_mutex first, second;
	bool swapped;
};
static struct {
	char text[2048];
	unsigned lines;
} report;

static void report_line(enum log_level level, const char *line, void *arg)
{
	strncat(report.text, line, sizeof(report.text) - strlen(report.text) - 1);
	report.lines++;
}

static void lock_both(void *arg)
{
	struct deadlock *deadlock = arg;
	const bool swapped = deadlock->swapped;
	deadlock->swapped = true;
	fiber_mutex_lock(swapped ? &deadlock->second : &deadlock->first);
	fiber_sleep(NS_PER_MS);
	fiber_mutex_lock(swapped ? &deadlock->first : &deadlock->second);
}

static bool never(void *arg) { return false; }

static void test_a_wait_cycle_is_reported_with_every_fiber(void **state)
{
	struct deadlock deadlock = {.group = group_create(2, 9)};
	fiber_mutex_init(&deadlock.first);
	fiber_mutex_init(&deadlock.second);
	struct fiber_start_remote starts[2] = {0};
	static const char *const names[] = {"romeo", "juliet"};
	for (unsigned i = 0; i < 2; i++) {
		starts[i].start = (struct fiber_start){.fn = lock_both, .arg = &deadlock, .name = names[i]};
		fiber_start_on(reactor_group_get(deadlock.group, 0), &starts[i]);
	}
	memset(&report, 0, sizeof(report));
	log_set_sink(report_line, NULL);
	assert_false(reactor_group_sim_run(deadlock.group, never, NULL));
	log_set_sink(NULL, NULL);
	assert_int_equal(report.lines, 3);
	assert_non_null(strstr(report.text, "fiber romeo: parked on mutex"));
	assert_non_null(strstr(report.text, "fiber juliet: parked on mutex"));
	assert_false(reactor_group_sim_step(deadlock.group));
	reactor_group_sim_abandon(deadlock.group);
	reactor_group_destroy(deadlock.group);
}

/* ---- power cut ---- */

static void test_abandon_leaves_an_empty_group_that_works(void **state)
{
	struct trace *trace = calloc(1, sizeof(*trace));
	for (uint64_t seed = 0; seed < 50; seed++) {
		struct counting_poller poller = {.work_left = 3};
		workers_start(seed, trace);
		poller_register(reactor_group_get(trace->group, 1), &poller.poller, "poller", counting_poll, 0);
		for (unsigned i = 0; i < 10 + seed * 5; i++)
			assert_true(reactor_group_sim_step(trace->group));
		reactor_group_sim_abandon(trace->group);
		assert_false(reactor_group_sim_step(trace->group));
		assert_null(poller.poller.reactor);
		assert_int_equal(reactor_group_run(reactor_group_get(trace->group, 2), sleep_a_day, NULL), 0);
		reactor_group_destroy(trace->group);
	}
	free(trace);
}

static int nothing(void *arg) { return 0; }

static void test_thousands_of_groups_come_and_go(void **state)
{
	for (uint64_t seed = 0; seed < 5000; seed++) {
		struct reactor_group *group = group_create(4, seed);
		assert_int_equal(reactor_group_run(reactor_group_get(group, seed % 4), nothing, NULL), 0);
		reactor_group_destroy(group);
	}
}

static void test_two_groups_live_side_by_side(void **state)
{
	struct reactor_group *first = group_create(2, 1), *second = group_create(2, 1);
	assert_int_equal(reactor_group_run(reactor_group_get(first, 1), sleep_a_day, NULL), 0);
	assert_int_equal(reactor_group_run(reactor_group_get(second, 1), yield_until_late, NULL), 0);
	assert_true(reactor_group_simulated(first));
	reactor_group_destroy(first);
	reactor_group_destroy(second);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_the_same_seed_gives_the_same_trace),
		cmocka_unit_test(test_a_group_that_begins_anew_gives_the_trace_of_a_fresh_one),
		cmocka_unit_test(test_different_seeds_give_different_traces),
		cmocka_unit_test(test_order_between_two_reactors_is_kept),
		cmocka_unit_test(test_idle_time_is_jumped_over),
		cmocka_unit_test(test_pollers_that_find_nothing_let_time_jump),
		cmocka_unit_test(test_time_passes_for_a_fiber_that_only_yields),
		cmocka_unit_test(test_periodic_pollers_run_once_a_period),
		cmocka_unit_test(test_a_wait_cycle_is_reported_with_every_fiber),
		cmocka_unit_test(test_abandon_leaves_an_empty_group_that_works),
		cmocka_unit_test(test_thousands_of_groups_come_and_go),
		cmocka_unit_test(test_two_groups_live_side_by_side),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
