/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: what fibers wait with. Wakes are not lost, locks are fair, time-outs and signals do not both happen, groups
 * count, and the pool's limits hold without a deadlock.
 * Method: simulated groups with many seeds, so that every order of runnable fibers comes up.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/reactor_internal.h"

enum { SEEDS = 50 };

/* Runs @fn as a fiber on reactor 0 of @count reactors, for many seeds. */
static void run_seeds(unsigned count, unsigned fiber_count, int (*fn)(void *arg))
{
	for (uint64_t seed = 0; seed < SEEDS; seed++) {
		const struct reactor_options options = {
			.count = count, .simulate = true, .seed = seed, .fiber_count = fiber_count};
		struct reactor_group *group;
		assert_int_equal(reactor_group_create(&options, &group), 0);
		assert_int_equal(reactor_group_run(reactor_group_get(group, 0), fn, group), 0);
		while (reactor_group_sim_step(group))
			;
		reactor_group_destroy(group);
	}
}

/* ---- park and wake ---- */

static int wake_myself_then_park(void *arg)
{
	fiber_wake(fiber_self());
	fiber_park("kept permit");
	return 0;
}
static void test_a_wake_before_the_park_is_kept(void **state) { run_seeds(1, 8, wake_myself_then_park); }

/* ---- mutex ---- */

enum { LINE = 10 };

struct line {
	struct fiber_mutex mutex;
	struct fiber_group group;
	unsigned arrived[LINE], arrived_count, served[LINE], served_count, inside;
	struct line_member {
		struct fiber_start start;
		struct line *line;
		unsigned number;
	} members[LINE];
};

static void stand_in_line(void *arg)
{
	struct line_member *member = arg;
	struct line *line = member->line;
	line->arrived[line->arrived_count++] = member->number;
	fiber_mutex_lock(&line->mutex);
	assert_int_equal(line->inside++, 0);
	line->served[line->served_count++] = member->number;
	fiber_sleep(NS_PER_US);
	line->inside--;
	fiber_mutex_unlock(&line->mutex);
	fiber_group_done(&line->group);
}

static int mutex_line(void *arg)
{
	struct line line = {0};
	fiber_mutex_init(&line.mutex);
	fiber_group_init(&line.group);
	fiber_group_add(&line.group, LINE);
	for (unsigned i = 0; i < LINE; i++) {
		line.members[i] = (struct line_member){.line = &line, .number = i};
		line.members[i].start = (struct fiber_start){.fn = stand_in_line, .arg = &line.members[i], .name = "line"};
		fiber_start(&line.members[i].start);
	}
	fiber_group_wait(&line.group);
	return memcmp(line.arrived, line.served, sizeof(line.served));
}
static void test_mutex_serves_in_order_of_arrival(void **state) { run_seeds(1, 32, mutex_line); }

static int mutex_trylock(void *arg)
{
	struct fiber_mutex mutex;
	fiber_mutex_init(&mutex);
	if (!fiber_mutex_trylock(&mutex) || fiber_mutex_trylock(&mutex))
		return -1;
	fiber_mutex_unlock(&mutex);
	return fiber_mutex_trylock(&mutex) ? 0 : -2;
}
static void test_mutex_trylock_takes_only_a_free_one(void **state) { run_seeds(1, 8, mutex_trylock); }

/* ---- reader-writer lock ---- */

struct rw {
	struct fiber_rwlock lock;
	struct fiber_group group;
	unsigned readers, writers, readers_peak, order[8], order_count;
	struct rw_member {
		struct fiber_start start;
		struct rw *rw;
		unsigned number;
		bool writes;
	} members[8];
};

static void rw_member_run(void *arg)
{
	struct rw_member *member = arg;
	struct rw *rw = member->rw;
	if (member->writes)
		fiber_rwlock_write(&rw->lock);
	else
		fiber_rwlock_read(&rw->lock);
	rw->order[rw->order_count++] = member->number;
	*(member->writes ? &rw->writers : &rw->readers) += 1;
	rw->readers_peak = MAX(rw->readers_peak, rw->readers);
	assert_true(rw->writers == 0 || (rw->writers == 1 && rw->readers == 0));
	fiber_sleep(10 * NS_PER_US);
	*(member->writes ? &rw->writers : &rw->readers) -= 1;
	if (member->writes)
		fiber_rwlock_unwrite(&rw->lock);
	else
		fiber_rwlock_unread(&rw->lock);
	fiber_group_done(&rw->group);
}

static MAY_WAIT void rw_start(struct rw *rw, const char *kinds)
{
	fiber_rwlock_init(&rw->lock);
	fiber_group_init(&rw->group);
	for (unsigned i = 0; kinds[i]; i++) {
		rw->members[i] = (struct rw_member){.rw = rw, .number = i, .writes = kinds[i] == 'w'};
		rw->members[i].start = (struct fiber_start){.fn = rw_member_run, .arg = &rw->members[i], .name = "rw"};
		fiber_group_add(&rw->group, 1);
		fiber_start(&rw->members[i].start);
		fiber_sleep(NS_PER_US); /* in line before the next one starts */
	}
	fiber_group_wait(&rw->group);
}

static int rw_readers_share(void *arg)
{
	struct rw rw = {0};
	rw_start(&rw, "rrrr");
	return rw.readers_peak == 4 ? 0 : -1;
}
static void test_readers_share(void **state) { run_seeds(1, 32, rw_readers_share); }

static int rw_writer_blocks_later_readers(void *arg)
{
	static const unsigned expected[] = {0, 1, 2, 3, 4};
	struct rw rw = {0};
	rw_start(&rw, "rwrwr");
	return memcmp(rw.order, expected, sizeof(expected));
}
static void test_a_waiting_writer_blocks_later_readers(void **state) { run_seeds(1, 32, rw_writer_blocks_later_readers); }

static int rw_try(void *arg)
{
	struct fiber_rwlock lock;
	fiber_rwlock_init(&lock);
	if (fiber_rwlock_busy(&lock) || !fiber_rwlock_tryread(&lock) || !fiber_rwlock_tryread(&lock))
		return -1;
	if (fiber_rwlock_trywrite(&lock) || !fiber_rwlock_busy(&lock))
		return -2;
	fiber_rwlock_unread(&lock);
	fiber_rwlock_unread(&lock);
	if (!fiber_rwlock_trywrite(&lock) || fiber_rwlock_tryread(&lock))
		return -3;
	fiber_rwlock_unwrite(&lock);
	return fiber_rwlock_busy(&lock) ? -4 : 0;
}
static void test_rwlock_try_never_waits(void **state) { run_seeds(1, 8, rw_try); }

/* ---- condition ---- */

struct bell {
	struct fiber_cond cond;
	struct fiber_start starts[4];
	unsigned woken, timed_out;
};

static void wait_for_bell(void *arg)
{
	struct bell *bell = arg;
	if (fiber_cond_wait_for(&bell->cond, 50 * NS_PER_MS, "bell"))
		bell->woken++;
	else
		bell->timed_out++;
}

static MAY_WAIT void bell_start(struct bell *bell)
{
	fiber_cond_init(&bell->cond);
	for (unsigned i = 0; i < 4; i++) {
		bell->starts[i] = (struct fiber_start){.fn = wait_for_bell, .arg = bell, .name = "bell"};
		fiber_start(&bell->starts[i]);
	}
	fiber_sleep(NS_PER_MS);
}

static int signal_wakes_one(void *arg)
{
	struct bell bell = {0};
	bell_start(&bell);
	fiber_cond_signal(&bell.cond);
	fiber_sleep(NS_PER_MS);
	if (bell.woken != 1 || !fiber_cond_waited_for(&bell.cond))
		return -1;
	fiber_sleep(100 * NS_PER_MS);
	return bell.woken == 1 && bell.timed_out == 3 && !fiber_cond_waited_for(&bell.cond) ? 0 : -2;
}
static void test_signal_wakes_one_and_the_rest_time_out(void **state) { run_seeds(1, 32, signal_wakes_one); }

static int broadcast_wakes_all(void *arg)
{
	struct bell bell = {0};
	bell_start(&bell);
	fiber_cond_broadcast(&bell.cond);
	fiber_sleep(100 * NS_PER_MS);
	return bell.woken == 4 && bell.timed_out == 0 ? 0 : -1;
}
static void test_broadcast_wakes_all_and_stops_their_timers(void **state) { run_seeds(1, 32, broadcast_wakes_all); }

/* The signal comes at about the time of the time-out: each waiter sees exactly one of the two. */
static int signal_races_timeout(void *arg)
{
	struct bell bell = {0};
	bell_start(&bell);
	fiber_sleep(49 * NS_PER_MS - NS_PER_US);
	for (unsigned i = 0; i < 40; i++) {
		fiber_cond_signal(&bell.cond);
		fiber_sleep(NS_PER_US / 2);
	}
	fiber_sleep(100 * NS_PER_MS);
	return bell.woken + bell.timed_out == 4 ? 0 : -1;
}
static void test_a_waiter_sees_either_the_signal_or_the_timeout(void **state) { run_seeds(1, 32, signal_races_timeout); }

/* ---- group ---- */

static int group_of_none(void *arg)
{
	struct fiber_group group;
	fiber_group_init(&group);
	fiber_group_wait(&group);
	fiber_group_add(&group, 2);
	fiber_group_done(&group);
	fiber_group_done(&group);
	fiber_group_wait(&group);
	return 0;
}
static void test_a_group_with_nothing_left_does_not_wait(void **state) { run_seeds(1, 8, group_of_none); }

/* ---- the pool ---- */

struct crowd {
	struct fiber_start starts[100];
	struct fiber_group group;
	struct reactor_group *reactors;
	unsigned inside, peak, next, wrong;
	struct fiber_mutex mutex;
};

static void crowd_member(void *arg)
{
	struct crowd *crowd = arg;
	crowd->inside++;
	crowd->peak = MAX(crowd->peak, crowd->inside);
	fiber_sleep(NS_PER_US);
	crowd->inside--;
	fiber_group_done(&crowd->group);
}

static void crowd_start(struct crowd *crowd, void (*fn)(void *arg), unsigned count)
{
	fiber_group_init(&crowd->group);
	fiber_group_add(&crowd->group, count);
	for (unsigned i = 0; i < count; i++) {
		crowd->starts[i] = (struct fiber_start){.fn = fn, .arg = crowd, .name = "crowd"};
		fiber_start(&crowd->starts[i]);
	}
}

static int crowd_from_fiber(void *arg)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));
	crowd_start(crowd, crowd_member, 100);
	fiber_group_wait(&crowd->group);
	const unsigned peak = crowd->peak;
	free(crowd);
	return peak <= 9 ? 0 : -1; /* ten less this one */
}
static void test_starts_beyond_the_pool_wait_in_line(void **state) { run_seeds(1, 10, crowd_from_fiber); }

struct front {
	struct message message;
	struct crowd *crowd;
	unsigned available;
};

static void front_arrived(struct message *message)
{
	struct front *front = CONTAINER_OF(message, struct front, message);
	front->available = fiber_available();
	crowd_start(front->crowd, crowd_member, 100);
}

static int crowd_from_front(void *arg)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));
	struct front front = {.message.fn = front_arrived, .crowd = crowd};
	reactor_send(reactor_self(), &front.message);
	while (front.available == 0)
		fiber_yield();
	fiber_group_wait(&crowd->group);
	const unsigned peak = crowd->peak;
	free(crowd);
	return front.available == 4 && peak <= 4 ? 0 : -1; /* half of ten, less this one */
}
static void test_starts_outside_fibers_use_half_the_pool(void **state) { run_seeds(1, 10, crowd_from_front); }

static int lock_there(void *arg)
{
	struct crowd *crowd = arg;
	fiber_mutex_lock(&crowd->mutex);
	return 0;
}

static int unlock_there(void *arg)
{
	struct crowd *crowd = arg;
	fiber_mutex_unlock(&crowd->mutex);
	return 0;
}

/* Takes the lock there, holds it while it calls there again, and releases it. */
static void call_with_lock(void *arg)
{
	struct crowd *crowd = arg;
	struct reactor *there = reactor_group_get(crowd->reactors, 1);
	assert_int_equal(reactor_call(there, lock_there, crowd), 0);
	fiber_sleep(NS_PER_US);
	assert_int_equal(reactor_call(there, unlock_there, crowd), 0);
	fiber_group_done(&crowd->group);
}

static int more_callers_than_the_pool_of_the_called(void *arg)
{
	struct crowd *crowd = calloc(1, sizeof(*crowd));
	crowd->reactors = arg;
	fiber_mutex_init(&crowd->mutex);
	/* The callers wait over there for a lock whose holder needs one more fiber there: the end, without extra stacks. */
	reactor_group_get(crowd->reactors, 1)->fiber_count = 4;
	crowd_start(crowd, call_with_lock, 100);
	fiber_group_wait(&crowd->group);
	free(crowd);
	return 0;
}
static void test_calls_do_not_deadlock_when_the_pool_is_used_up(void **state)
{
	run_seeds(2, 128, more_callers_than_the_pool_of_the_called);
}

/* ---- stretches that must not wait ---- */

static int wait_inside_no_wait(void *arg)
{
	NO_WAIT_BEGIN();
	NO_WAIT_BEGIN();
	NO_WAIT_END();
	fiber_yield();
	NO_WAIT_END();
	return 0;
}

static int wait_after_no_wait(void *arg)
{
	NO_WAIT_BEGIN();
	NO_WAIT_END();
	fiber_yield();
	return 0;
}

static void park_outside(struct message *message) { fiber_park("nothing to park"); }

static int park_in_message(void *arg)
{
	struct message message = {.fn = park_outside};
	reactor_send(reactor_self(), &message);
	fiber_sleep(NS_PER_MS);
	return 0;
}

static void expect_assertion(int (*fn)(void *arg))
{
	const pid_t child = fork();
	if (child == 0) {
		const struct rlimit no_core = {0, 0};
		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGABRT, SIG_DFL);
		if (!freopen("/dev/null", "w", stderr))
			_exit(1);
		run_seeds(1, 8, fn);
		_exit(0);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void test_a_wait_in_a_stretch_without_waits_is_an_assertion(void **state)
{
	run_seeds(1, 8, wait_after_no_wait);
	expect_assertion(wait_inside_no_wait);
}

static void test_a_wait_outside_fibers_is_an_assertion(void **state) { expect_assertion(park_in_message); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_wake_before_the_park_is_kept),
		cmocka_unit_test(test_mutex_serves_in_order_of_arrival),
		cmocka_unit_test(test_mutex_trylock_takes_only_a_free_one),
		cmocka_unit_test(test_readers_share),
		cmocka_unit_test(test_a_waiting_writer_blocks_later_readers),
		cmocka_unit_test(test_rwlock_try_never_waits),
		cmocka_unit_test(test_signal_wakes_one_and_the_rest_time_out),
		cmocka_unit_test(test_broadcast_wakes_all_and_stops_their_timers),
		cmocka_unit_test(test_a_waiter_sees_either_the_signal_or_the_timeout),
		cmocka_unit_test(test_a_group_with_nothing_left_does_not_wait),
		cmocka_unit_test(test_starts_beyond_the_pool_wait_in_line),
		cmocka_unit_test(test_starts_outside_fibers_use_half_the_pool),
		cmocka_unit_test(test_calls_do_not_deadlock_when_the_pool_is_used_up),
		cmocka_unit_test(test_a_wait_in_a_stretch_without_waits_is_an_assertion),
		cmocka_unit_test(test_a_wait_outside_fibers_is_an_assertion),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
