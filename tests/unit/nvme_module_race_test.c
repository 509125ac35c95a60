/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever two of those who change a device do at the same time, one of them at least has its way, everything
 * is answered, and nobody looks at what is gone. Method: pairs of calls in simulated groups, the second at every
 * moment of the first, on one reactor (where little waits) and on three.
 */
#include "nvme_module_bench.h"

static unsigned reactors;

static int setup(void **state)
{
	reactors = 3;
	module_init(reactors);
	return 0;
}

static int setup_one(void **state)
{
	reactors = 1;
	module_init(reactors);
	return 0;
}

static int teardown(void **state)
{
	module_fini();
	return 0;
}

/* ---- during a reattach ---- */

static struct nvme_device *device;
static struct user user;
static unsigned accepted;

MAY_WAIT static int accept_slowly(void *arg, nvme_read_fn read, void *context, char *why, size_t why_size)
{
	accepted++;
	fiber_sleep(20 * NS_PER_MS);
	return 0;
}

MAY_WAIT static int reattach_slowly(void *arg)
{
	static char why[256];
	return nvme_device_reattach(device, arg, accept_slowly, &accepted, why, sizeof(why));
}

/* The hold is over because the device is back: nobody sees an error, and the next time it is held again. */
MAY_WAIT static int give_up_in_reattach(void *arg)
{
	static struct shot before, during, after;
	static struct background coming, giving_up;
	device = held_drive("emu:ram:8M", &user);
	shot_write(&before, user.channel, 0, BLOCK, 0x31);
	background_start(&coming, 0, reattach_slowly, NULL);
	fiber_sleep(10 * NS_PER_MS);
	background_start(&giving_up, 0, give_up_run, made);
	fiber_sleep(NS_PER_MS);
	shot_write(&during, user.channel, BLOCK, BLOCK, 0x32);
	assert_int_equal(background_wait(&coming), 0);
	assert_int_equal(background_wait(&giving_up), 0);
	assert_int_equal(shot_wait(&before), 0);
	assert_int_equal(shot_wait(&during), 0);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_ATTACHED);
	assert_int_equal(nvme_device_emu_pull(device), 0);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
	shot_write(&after, user.channel, 2 * BLOCK, BLOCK, 0x33);
	background_start(&giving_up, 0, give_up_run, made);
	assert_int_equal(shot_wait(&after), -ENODEV);
	user_close(&user);
	background_wait(&giving_up);
	assert_null(bdev_find(bench.registry, made));
	shot_free(&before);
	shot_free(&during);
	shot_free(&after);
	return 0;
}

static void test_giving_up_a_device_that_is_coming_back(void **state) { module_on(0, give_up_in_reattach, NULL); }

/* One of two bdevs goes while the controller is looked at for the other. */
MAY_WAIT static int remove_in_reattach(void *arg)
{
	static struct background coming, going;
	ram_make("m", MIB(8), 0);
	drive_make("emu:m,namespaces=2,ns=2", NVME_HOLD);
	device = held_drive("emu:m,ns=1", &user);
	const unsigned before = accepted;
	background_start(&coming, 0, reattach_slowly, NULL);
	fiber_sleep(10 * NS_PER_MS);
	background_start(&going, reactors - 1, remove_run, arg);
	if (!strcmp(arg, "emu:m/1"))
		user_close(&user);
	assert_int_equal(background_wait(&coming), 0);
	assert_int_equal(background_wait(&going), 0);
	assert_in_range(accepted - before, 1, 2);
	if (!strcmp(arg, "emu:m/2"))
		user_close(&user);
	gone(strcmp(arg, "emu:m/1") ? "emu:m/1" : "emu:m/2");
	gone("m");
	return 0;
}

static void test_a_bdev_that_goes_while_another_comes_back(void **state)
{
	module_on(0, remove_in_reattach, "emu:m/1");
	module_on(0, remove_in_reattach, "emu:m/2");
}

/* With the last bdev, all of it goes: what has just come back, too. */
MAY_WAIT static int remove_last_in_reattach(void *arg)
{
	static struct background coming, going;
	ram_make("m", MIB(8), 0);
	device = held_drive("emu:m", &user);
	background_start(&coming, 0, reattach_slowly, NULL);
	fiber_sleep(10 * NS_PER_MS);
	background_start(&going, reactors - 1, remove_run, made);
	user_close(&user);
	assert_int_equal(background_wait(&coming), -ENODEV);
	assert_int_equal(background_wait(&going), 0);
	assert_int_equal(told[NVME_DEVICE_RESUMED], 0);
	gone("m");
	return 0;
}

static void test_the_last_bdev_goes_while_its_device_comes_back(void **state)
{
	module_on(0, remove_last_in_reattach, NULL);
}

static bool moved;

MAY_WAIT static int accept_move(void *arg, nvme_read_fn read, void *context, char *why, size_t why_size)
{
	fiber_sleep(NS_PER_MS);
	moved = true;
	return 0;
}

MAY_WAIT static int move(void *arg)
{
	static char why[256];
	return nvme_device_reattach(device, arg, accept_move, NULL, why, sizeof(why));
}

/* In every turn of the reactors, as long as that may matter. */
MAY_WAIT static void look_at_drive(unsigned turns)
{
	struct emu_stats stats;
	for (unsigned i = 0; i < turns; i++) {
		emu_stats_read(nvme_device_emu(device), &stats);
		fiber_yield();
	}
}

/* The old drive of a device that comes back elsewhere is taken apart, and takes its time. */
MAY_WAIT static int pull_in_move(void *arg)
{
	static struct background coming;
	ram_make("b", MIB(8), 0);
	for (unsigned i = 0; i < 60; i++) {
		device = held_drive("emu:ram:8M", &user);
		moved = false;
		background_start(&coming, 0, move, "emu:b");
		while (!moved)
			fiber_sleep(10 * NS_PER_US);
		look_at_drive(i);
		assert_int_equal(nvme_device_emu_pull(device), 0);
		background_wait(&coming);
		fiber_sleep(NS_PER_SEC);
		user_close(&user);
		gone("emu:ram:8M");
	}
	gone("b");
	return 0;
}

static void test_a_device_that_is_pulled_while_it_moves(void **state) { module_on(0, pull_in_move, NULL); }

/* ---- what the controller said before it left ---- */

MAY_WAIT static int detach_after_event(void *arg)
{
	ram_make("m", MIB(8), 0);
	for (unsigned i = 0; i < 80; i++) {
		drive_make("emu:m,namespaces=2,ns=1,latency=10us", NVME_HOLD);
		device = device_of(made);
		assert_int_equal(emu_ns_attach(nvme_device_emu(device), 2, false), 0);
		fiber_sleep(i * 5 * NS_PER_US);
		assert_int_equal(nvme_device_detach(device, NS_PER_SEC), 0);
		fiber_sleep(NS_PER_SEC);
		assert_ptr_equal(nvme_device_of(bench.registry, made), device);
		assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_HELD);
		gone(made);
	}
	gone("m");
	return 0;
}

static void test_what_a_controller_said_before_it_left_does_not_end_a_hold(void **state)
{
	module_on(0, detach_after_event, NULL);
}

/* ---- two at the same time ---- */

typedef MAY_WAIT int (*run_fn)(void *name_text);
static const struct {
	run_fn first, second;
} pairs[] = {
	{pull_run, lost_run}, {pull_run, pull_run}, {pull_run, detach_run}, {pull_run, remove_run}, {pull_run, give_up_run},
	{lost_run, lost_run}, {lost_run, detach_run}, {lost_run, remove_run}, {lost_run, give_up_run},
	{detach_run, pull_run}, {detach_run, detach_run}, {detach_run, remove_run}, {detach_run, give_up_run},
	{remove_run, pull_run}, {remove_run, lost_run}, {remove_run, detach_run}, {remove_run, remove_run},
};

struct meeting {
	run_fn first, second;
	enum nvme_policy policy;
	uint64_t delay_ns;
	const char *target;
};

MAY_WAIT static int meet(void *arg)
{
	static struct shot write, next, reset;
	static struct background first, second, end;
	const struct meeting *meeting = arg;
	drive_make(meeting->target, meeting->policy);
	user_open(&user, made);
	shot_write(&write, user.channel, 0, BLOCK, 0x41);
	background_start(&first, 0, meeting->first, made);
	fiber_sleep(meeting->delay_ns);
	shot_start(&reset, user.channel, IO_RESET, 0, 0);
	background_start(&second, meeting->second == remove_run ? reactors - 1 : 0, meeting->second, made);
	shot_write(&next, user.channel, BLOCK, BLOCK, 0x42);
	fiber_sleep(10 * NS_PER_MS);
	background_start(&end, 0, give_up_run, made);
	const int written = shot_wait(&write), then = shot_wait(&next);
	assert_true((written == 0 || written == -ENODEV) && (then == 0 || then == -ENODEV));
	shot_wait(&reset);
	user_close(&user);
	background_wait(&first);
	background_wait(&second);
	background_wait(&end);
	if (bdev_find(bench.registry, made)) {
		assert_int_equal(meeting->policy, NVME_HOLD);
		gone(made);
	}
	assert_null(bdev_find(bench.registry, "ram:8M"));
	shot_free(&write);
	shot_free(&next);
	shot_free(&reset);
	return 0;
}

static void meet_all(const char *target)
{
	for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++)
		for (enum nvme_policy policy = NVME_REMOVE; policy <= NVME_HOLD; policy++)
			for (uint64_t delay_us = 0; delay_us < 3000; delay_us = delay_us * 3 / 2 + 11) {
				struct meeting meeting = {.first = pairs[i].first, .second = pairs[i].second, .policy = policy,
					.delay_ns = delay_us * NS_PER_US, .target = target};
				module_on(0, meet, &meeting);
			}
}

static void test_two_ends_at_the_same_time(void **state) { meet_all("emu:ram:8M"); }

static void test_two_ends_of_a_drive_with_something_stuck(void **state)
{
	meet_all("emu:ram:8M,cache=64K,cut=random,rule=write:stuck:count=1");
}

/* The kernel says that a device is gone, and means the one before. */
MAY_WAIT static int late_news(void *arg)
{
	static struct background coming, news;
	device = held_drive("emu:ram:8M", &user);
	background_start(&coming, 0, reattach_slowly, NULL);
	fiber_sleep(10 * NS_PER_MS);
	background_start(&news, 0, lost_run, made);
	assert_int_equal(background_wait(&coming), 0);
	background_wait(&news);
	fiber_sleep(NS_PER_SEC);
	assert_int_equal(nvme_device_get_state(device), NVME_DEVICE_ATTACHED);
	user_close(&user);
	gone(made);
	return 0;
}

static void test_news_of_a_loss_is_of_the_controller_of_its_time(void **state) { module_on(0, late_news, NULL); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_giving_up_a_device_that_is_coming_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_bdev_that_goes_while_another_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_the_last_bdev_goes_while_its_device_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_device_that_is_pulled_while_it_moves, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_what_a_controller_said_before_it_left_does_not_end_a_hold, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_two_ends_at_the_same_time, setup_one, teardown),
		cmocka_unit_test_setup_teardown(test_two_ends_of_a_drive_with_something_stuck, setup, teardown),
		cmocka_unit_test_setup_teardown(test_news_of_a_loss_is_of_the_controller_of_its_time, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
