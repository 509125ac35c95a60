/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: pollers may come and go while pollers run, and those that refuse keep their reactor awake.
 * Method: a simulated group for the lists, a real one for sleeping.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/fiber.h"

enum { POLLERS = 6 };

struct probe {
	struct poller poller;
	struct probe *victim; /* unregistered by the next call */
	unsigned calls;
	bool refuse;
};
static struct probe probes[POLLERS];

static unsigned probe_poll(struct poller *poller)
{
	struct probe *probe = CONTAINER_OF(poller, struct probe, poller);
	probe->calls++;
	if (probe->victim)
		poller_unregister(&probe->victim->poller);
	probe->victim = NULL;
	return 0;
}

static void probes_register(struct reactor *reactor, unsigned period_us)
{
	memset(probes, 0, sizeof(probes));
	for (unsigned i = 0; i < POLLERS; i++)
		poller_register(reactor, &probes[i].poller, "probe", probe_poll, period_us);
}

static MAY_WAIT int expect_left(const char *expected)
{
	unsigned before[POLLERS];
	fiber_sleep(NS_PER_SEC);
	for (unsigned i = 0; i < POLLERS; i++)
		before[i] = probes[i].calls;
	fiber_sleep(NS_PER_SEC);
	for (unsigned i = 0; i < POLLERS; i++)
		if ((probes[i].calls > before[i]) != (expected[i] == 'x') || (expected[i] == 'x') != !!probes[i].poller.reactor)
			return -1 - (int)i;
	for (unsigned i = 0; i < POLLERS; i++)
		poller_unregister(&probes[i].poller);
	return 0;
}

static MAY_WAIT int expect_left_after(unsigned by, unsigned victim, unsigned period_us, const char *expected)
{
	probes_register(reactor_self(), period_us);
	probes[by].victim = &probes[victim];
	return expect_left(expected);
}

static MAY_WAIT int unregister_in_poller(unsigned period_us)
{
	int error = expect_left_after(2, 2, period_us, "xx.xxx");
	if (!error)
		error = expect_left_after(2, 3, period_us, "xxx.xx");
	if (!error)
		error = expect_left_after(2, 0, period_us, ".xxxxx");
	return error ? error : expect_left_after(5, 5, period_us, "xxxxx.");
}

static int unregister_active(void *arg) { return unregister_in_poller(0); }
static int unregister_periodic(void *arg) { return unregister_in_poller(1000); }

static void run_simulated(int (*fn)(void *arg))
{
	const struct reactor_options options = {.count = 1, .simulate = true, .seed = 3};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), fn, NULL), 0);
	reactor_group_destroy(group);
}

static void test_active_pollers_unregister_each_other(void **state) { run_simulated(unregister_active); }
static void test_periodic_pollers_unregister_each_other(void **state) { run_simulated(unregister_periodic); }

static bool probe_before_sleep(struct poller *poller)
{
	const struct probe *probe = CONTAINER_OF(poller, struct probe, poller);
	return !__atomic_load_n(&probe->refuse, __ATOMIC_RELAXED);
}

static uint64_t sleeps_of(struct reactor_group *group)
{
	struct reactor_stats stats;
	reactor_stats_read(reactor_group_get(group, 0), &stats);
	return stats.sleeps;
}

static void test_a_poller_that_refuses_keeps_its_reactor_awake(void **state)
{
	const struct reactor_options options = {.count = 1};
	struct reactor_group *group;
	struct probe stubborn = {.refuse = true, .poller.before_sleep = probe_before_sleep};
	assert_int_equal(reactor_group_create(&options, &group), 0);
	poller_register(reactor_group_get(group, 0), &stubborn.poller, "stubborn", probe_poll, 0);
	assert_int_equal(reactor_group_start(group), 0);
	usleep(5000);
	assert_int_equal(sleeps_of(group), 0);
	__atomic_store_n(&stubborn.refuse, false, __ATOMIC_RELAXED);
	while (sleeps_of(group) == 0)
		usleep(100);
	reactor_group_stop(group);
	poller_unregister(&stubborn.poller);
	reactor_group_destroy(group);
}

static void test_the_poll_option_never_sleeps(void **state)
{
	const struct reactor_options options = {.count = 1, .poll = true};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	assert_int_equal(reactor_group_start(group), 0);
	usleep(5000);
	assert_int_equal(sleeps_of(group), 0);
	reactor_group_destroy(group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_active_pollers_unregister_each_other),
		cmocka_unit_test(test_periodic_pollers_unregister_each_other),
		cmocka_unit_test(test_a_poller_that_refuses_keeps_its_reactor_awake),
		cmocka_unit_test(test_the_poll_option_never_sleeps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
