/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: reactors as real threads: order of messages even when rings are full, no lost wake-up, timers, pollers, fds,
 * calls from one reactor to another, the control thread's run, starting and stopping.
 * Method: groups of two to four reactors on whatever cores there are; waits have no deadline of their own, so a lost
 * wake-up shows as the test's time-out.
 */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/reactor_internal.h"

static struct reactor_group *group_start(unsigned count, unsigned fiber_count)
{
	const struct reactor_options options = {.count = count, .fiber_count = fiber_count};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	assert_int_equal(reactor_group_start(group), 0);
	return group;
}

static void group_end(struct reactor_group *group)
{
	reactor_group_stop(group);
	reactor_group_destroy(group);
}

/* ---- order ---- */

enum { ORDER_SENDERS = 3, ORDER_COUNT = 5000 }; /* many times what a ring holds */

struct order {
	struct reactor *receiver;
	unsigned next[ORDER_SENDERS], wrong, total;
	struct fiber *waiter;
};
struct numbered {
	struct message message;
	struct order *order;
	unsigned sender, number;
};

static void numbered_arrived(struct message *message)
{
	struct numbered *numbered = CONTAINER_OF(message, struct numbered, message);
	struct order *order = numbered->order;
	if (numbered->number != order->next[numbered->sender]++)
		order->wrong++;
	if (++order->total == ORDER_SENDERS * ORDER_COUNT && order->waiter)
		fiber_wake(order->waiter);
}

struct sending {
	struct fiber_start_remote start;
	struct numbered messages[ORDER_COUNT];
	struct order *order;
	unsigned sender;
};

/* All at once: the ring must overflow. */
static void send_all(void *arg)
{
	struct sending *sending = arg;
	for (unsigned i = 0; i < ORDER_COUNT; i++) {
		struct numbered *numbered = &sending->messages[i];
		*numbered = (struct numbered){.message.fn = numbered_arrived, .order = sending->order,
			.sender = sending->sender, .number = i};
		reactor_send(sending->order->receiver, &numbered->message);
	}
}

static int wait_for_order(void *arg)
{
	struct order *order = arg;
	order->waiter = fiber_self();
	while (order->total < ORDER_SENDERS * ORDER_COUNT)
		fiber_park("messages");
	return (int)order->wrong;
}

static void test_order_is_kept_through_full_rings(void **state)
{
	struct reactor_group *group = group_start(ORDER_SENDERS, 16);
	struct order order = {.receiver = reactor_group_get(group, 0)};
	struct sending *sendings = calloc(ORDER_SENDERS, sizeof(*sendings));
	for (unsigned i = 0; i < ORDER_SENDERS; i++) {
		sendings[i].order = &order;
		sendings[i].sender = i;
		sendings[i].start.start = (struct fiber_start){.fn = send_all, .arg = &sendings[i], .name = "sender"};
		fiber_start_on(reactor_group_get(group, i), &sendings[i].start); /* one sends to itself */
	}
	assert_int_equal(reactor_group_run(order.receiver, wait_for_order, &order), 0);
	assert_int_equal(order.total, ORDER_SENDERS * ORDER_COUNT);
	group_end(group);
	free(sendings);
}

struct foreign {
	struct message message;
	unsigned number, *next, *wrong;
};

static void foreign_arrived(struct message *message)
{
	struct foreign *foreign = CONTAINER_OF(message, struct foreign, message);
	if (foreign->number != (*foreign->next)++)
		++*foreign->wrong;
}

static int nothing(void *arg) { return 0; }

static void test_order_is_kept_from_a_foreign_thread(void **state)
{
	enum { COUNT = 3000 };
	struct reactor_group *group = group_start(1, 16);
	struct foreign *messages = calloc(COUNT, sizeof(*messages));
	unsigned next = 0, wrong = 0;
	for (unsigned i = 0; i < COUNT; i++) {
		messages[i] = (struct foreign){.message.fn = foreign_arrived, .number = i, .next = &next, .wrong = &wrong};
		reactor_send_foreign(reactor_group_get(group, 0), &messages[i].message);
	}
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), nothing, NULL), 0);
	assert_int_equal(next, COUNT);
	assert_int_equal(wrong, 0);
	group_end(group);
	free(messages);
}

/* ---- sleeping ---- */

static int index_of_caller(void *arg) { return (int)reactor_index(reactor_self()); }

/* Every call finds the reactor falling asleep, asleep, or just awake: the pauses sweep the spinning time. */
static void test_no_wakeup_from_a_foreign_thread_is_lost(void **state)
{
	struct reactor_group *group = group_start(2, 16);
	for (unsigned i = 0; i < 2000; i++) {
		assert_int_equal(reactor_group_run(reactor_group_get(group, i % 2), index_of_caller, NULL), i % 2);
		usleep(i % 64);
	}
	struct reactor_stats stats;
	reactor_stats_read(reactor_group_get(group, 0), &stats);
	assert_true(stats.sleeps > 0);
	group_end(group);
}

static int call_round_trips(void *arg)
{
	struct reactor_group *group = arg;
	for (unsigned i = 0; i < 3000; i++) {
		const unsigned to = 1 + i % 3;
		if (reactor_call(reactor_group_get(group, to), index_of_caller, NULL) != (int)to)
			return -1;
		if (reactor_call_nowait(reactor_group_get(group, to), index_of_caller, NULL) != (int)to)
			return -2;
		if (i % 16 == 0)
			fiber_sleep(i % 50 * NS_PER_US);
	}
	return 0;
}

static void test_calls_between_threads_return_what_was_computed_there(void **state)
{
	struct reactor_group *group = group_start(4, 16);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), call_round_trips, group), 0);
	group_end(group);
}

static int watch_fd_arm(void *arg) { return reactor_watch_fd(reactor_self(), *(int *)arg, EPOLLIN); }
static int watch_fd_disarm(void *arg)
{
	reactor_unwatch_fd(reactor_self(), *(int *)arg);
	return 0;
}

struct fd_poller {
	struct poller poller;
	int fd;
	bool refuse_sleep;
	unsigned seen, asked;
};

static unsigned fd_poll(struct poller *poller)
{
	struct fd_poller *self = CONTAINER_OF(poller, struct fd_poller, poller);
	uint64_t value;
	if (read(self->fd, &value, sizeof(value)) != sizeof(value))
		return 0;
	__atomic_fetch_add(&self->seen, (unsigned)value, __ATOMIC_RELAXED);
	return 1;
}

static bool fd_before_sleep(struct poller *poller)
{
	struct fd_poller *self = CONTAINER_OF(poller, struct fd_poller, poller);
	__atomic_fetch_add(&self->asked, 1, __ATOMIC_RELAXED);
	return true;
}

static void test_a_watched_fd_ends_the_sleep(void **state)
{
	struct fd_poller self = {.fd = eventfd(0, EFD_NONBLOCK), .poller.before_sleep = fd_before_sleep};
	const struct reactor_options options = {.count = 1};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	poller_register(reactor_group_get(group, 0), &self.poller, "fd", fd_poll, 0);
	assert_int_equal(reactor_group_start(group), 0);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), watch_fd_arm, &self.fd), 0);
	for (unsigned i = 1; i <= 200; i++) {
		const uint64_t one = 1;
		assert_int_equal(write(self.fd, &one, sizeof(one)), sizeof(one));
		while (__atomic_load_n(&self.seen, __ATOMIC_RELAXED) < i)
			usleep(10);
		usleep(i % 64);
	}
	assert_true(__atomic_load_n(&self.asked, __ATOMIC_RELAXED) > 0);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), watch_fd_disarm, &self.fd), 0);
	reactor_group_stop(group);
	poller_unregister(&self.poller);
	reactor_group_destroy(group);
	close(self.fd);
}

/* ---- timers and periods ---- */

static int sleep_two_ms(void *arg)
{
	const uint64_t before_ns = reactor_now_ns();
	fiber_sleep(2 * NS_PER_MS);
	return reactor_now_ns() - before_ns >= 2 * NS_PER_MS ? 0 : -1;
}

static void test_a_sleeping_reactor_wakes_for_its_timer(void **state)
{
	struct reactor_group *group = group_start(1, 8);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(reactor_group_run(reactor_group_get(group, 0), sleep_two_ms, NULL), 0);
	group_end(group);
}

static unsigned count_up(struct poller *poller)
{
	struct fd_poller *self = CONTAINER_OF(poller, struct fd_poller, poller);
	self->seen++;
	return 0;
}

static int count_periods(void *arg)
{
	struct fd_poller self = {0};
	poller_register(reactor_self(), &self.poller, "period", count_up, 500);
	while (self.seen < 4)
		fiber_sleep(NS_PER_MS);
	poller_unregister(&self.poller);
	return 0;
}

static void test_periodic_pollers_run_on_a_sleeping_reactor(void **state)
{
	struct reactor_group *group = group_start(1, 8);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), count_periods, NULL), 0);
	group_end(group);
}

/* ---- life cycle ---- */

static void drop_line(enum log_level level, const char *line, void *arg) {}

static MAY_WAIT int sleep_and_stall(void *arg)
{
	uint64_t *running_ns = arg;
	fiber_yield();
	const uint64_t begin_ns = reactor_now_ns(), running_begin_ns = reactor_running_ns();
	/* Nobody else runs on this thread meanwhile, as if the process had been stopped. */
	nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 200000000}, NULL);
	fiber_yield();
	assert_true(reactor_now_ns() - begin_ns >= 1200 * NS_PER_MS);
	const uint64_t stalled_ns = reactor_now_ns() - begin_ns - (reactor_running_ns() - running_begin_ns);
	fiber_sleep(50 * NS_PER_MS);
	*running_ns = reactor_running_ns() - running_begin_ns;
	return stalled_ns >= 1200 * NS_PER_MS ? 0 : -EIO;
}

static void test_a_stall_is_no_running_time(void **state)
{
	struct reactor_group *group = group_start(1, 16);
	uint64_t running_ns = 0;
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), sleep_and_stall, &running_ns), 0);
	assert_true(running_ns >= 50 * NS_PER_MS && running_ns < 1200 * NS_PER_MS);
	group_end(group);
}

static void test_a_core_that_is_not_there_is_refused(void **state)
{
	const int core = 1000;
	const struct reactor_options options = {.count = 1, .cores = &core};
	struct reactor_group *group;
	log_set_sink(drop_line, NULL);
	assert_int_equal(reactor_group_create(&options, &group), -EINVAL);
	log_set_sink(NULL, NULL);
}

static int pinned_core(void *arg) { return sched_getcpu(); }

static void test_several_reactors_share_a_core(void **state)
{
	cpu_set_t allowed;
	sched_getaffinity(0, sizeof(allowed), &allowed);
	int core = 0;
	while (!CPU_ISSET(core, &allowed))
		core++;
	const int cores[] = {core, core, core};
	const struct reactor_options options = {.count = 3, .cores = cores};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	assert_int_equal(reactor_group_start(group), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(reactor_group_run(reactor_group_get(group, i), pinned_core, NULL), core);
	group_end(group);
}

static void test_a_group_starts_and_stops_again(void **state)
{
	struct reactor_group *group = group_start(2, 8);
	for (unsigned i = 0; i < 20; i++) {
		assert_int_equal(reactor_group_run(reactor_group_get(group, 1), index_of_caller, NULL), 1);
		reactor_group_stop(group);
		assert_int_equal(reactor_group_start(group), 0);
	}
	group_end(group);
}

static int self_is_set(void *arg) { return reactor_self() == arg && fiber_self() ? 0 : -1; }

static void test_self_is_known_on_reactors_only(void **state)
{
	struct reactor_group *group = group_start(2, 8);
	assert_null(reactor_self());
	assert_null(fiber_self());
	struct reactor *second = reactor_group_get(group, 1);
	assert_int_equal(reactor_group_run(second, self_is_set, second), 0);
	group_end(group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_is_kept_through_full_rings),
		cmocka_unit_test(test_order_is_kept_from_a_foreign_thread),
		cmocka_unit_test(test_no_wakeup_from_a_foreign_thread_is_lost),
		cmocka_unit_test(test_calls_between_threads_return_what_was_computed_there),
		cmocka_unit_test(test_a_watched_fd_ends_the_sleep),
		cmocka_unit_test(test_a_sleeping_reactor_wakes_for_its_timer),
		cmocka_unit_test(test_periodic_pollers_run_on_a_sleeping_reactor),
		cmocka_unit_test(test_a_stall_is_no_running_time),
		cmocka_unit_test(test_a_core_that_is_not_there_is_refused),
		cmocka_unit_test(test_several_reactors_share_a_core),
		cmocka_unit_test(test_a_group_starts_and_stops_again),
		cmocka_unit_test(test_self_is_known_on_reactors_only),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
