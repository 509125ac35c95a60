/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: under NVME_HOLD no I/O is lost, answered with an error, or done twice, however the controller leaves, until
 * it is back or nobody waits for it any more; then everything is answered. Method: emulated drives in simulated
 * groups; a medium in memory that can be looked at behind the drive's back.
 */
#include "nvme_module_bench.h"

enum { REACTORS = 3 };

static int setup(void **state)
{
	module_init(REACTORS);
	return 0;
}

static int teardown(void **state)
{
	module_fini();
	return 0;
}

/* One opener on every reactor. */
struct openers {
	struct bdev_desc *descs[REACTORS];
	struct bdev_channel *channels[REACTORS];
	char name[128];
};
static struct openers openers;

MAY_WAIT static int open_here(void *arg)
{
	const unsigned i = reactor_index(reactor_self());
	openers.descs[i] = bench_open(&bench, openers.name, &openers.channels[i]);
	return 0;
}

MAY_WAIT static int close_here(void *arg)
{
	const unsigned i = reactor_index(reactor_self());
	bench_close(openers.descs[i], openers.channels[i]);
	return 0;
}

MAY_WAIT static void everywhere(int (*fn)(void *arg), void *arg)
{
	for (unsigned i = 0; i < REACTORS; i++)
		assert_int_equal(reactor_call(reactor_group_get(bench.group, i), fn, arg), 0);
}

MAY_WAIT static void open_everywhere(const char *name)
{
	snprintf(openers.name, sizeof(openers.name), "%s", name);
	everywhere(open_here, NULL);
}

MAY_WAIT static void leave(const char *name)
{
	assert_int_equal(nvme_device_emu_pull(device_of(name)), 0);
	assert_int_equal(nvme_device_get_state(device_of(name)), NVME_DEVICE_HELD);
	assert_null(nvme_device_ctrlr(device_of(name)));
}

/* ---- the medium ---- */

static struct bdev_desc *medium_desc;
static struct bdev_channel *medium;

MAY_WAIT static void medium_open(const char *name) { medium_desc = bench_open(&bench, name, &medium); }
MAY_WAIT static void medium_close(void) { bench_close(medium_desc, medium); }

/* ---- I/O of every reactor while the device is away ---- */

enum { HELD_SHOTS = 8 };
static struct shot shots[REACTORS][HELD_SHOTS];

/* All of a reactor go to the same block: the last one is what stays. */
MAY_WAIT static int start_here(void *arg)
{
	const unsigned i = reactor_index(reactor_self());
	for (unsigned j = 0; j < HELD_SHOTS; j++)
		shot_write(&shots[i][j], openers.channels[i], i * BLOCK, BLOCK, (uint8_t)(16 * (i + 1) + j));
	return 0;
}

MAY_WAIT static int all_done_here(void *arg)
{
	const unsigned i = reactor_index(reactor_self());
	for (unsigned j = 0; j < HELD_SHOTS; j++) {
		assert_int_equal(shot_wait(&shots[i][j]), *(int *)arg);
		assert_true(j == 0 || shots[i][j].order > shots[i][j - 1].order);
		shot_free(&shots[i][j]);
	}
	return 0;
}

static void nobody_answered(void)
{
	for (unsigned i = 0; i < REACTORS; i++)
		for (unsigned j = 0; j < HELD_SHOTS; j++)
			assert_int_equal(shots[i][j].result, SHOT_PENDING);
}

MAY_WAIT static int held_everywhere(void *arg)
{
	const bool orderly = *(bool *)arg;
	int wanted = 0;
	drive_make("emu:m", NVME_HOLD);
	open_everywhere("emu:m");
	medium_open("m");
	if (orderly)
		assert_int_equal(nvme_device_detach(device_of("emu:m"), NS_PER_SEC), 0);
	else
		leave("emu:m");
	assert_int_equal(told[NVME_DEVICE_NOW_HELD], 1);
	assert_int_equal(nvme_device_detach(device_of("emu:m"), NS_PER_SEC), -ENODEV);
	everywhere(start_here, NULL);
	fiber_sleep(10 * NS_PER_SEC);
	nobody_answered();
	assert_int_equal(reattach(device_of("emu:m"), NULL, NULL, NULL), 0);
	assert_int_equal(nvme_device_get_state(device_of("emu:m")), NVME_DEVICE_ATTACHED);
	everywhere(all_done_here, &wanted);
	for (unsigned i = 0; i < REACTORS; i++)
		assert_true(filled(medium, i * BLOCK, (uint8_t)(16 * (i + 1) + HELD_SHOTS - 1)));
	assert_int_equal(reattach(device_of("emu:m"), NULL, NULL, NULL), -EBUSY);
	assert_non_null(strstr(message, "emu:m: is not waiting for a device"));
	assert_int_equal(told[NVME_DEVICE_RESUMED], 1);
	everywhere(close_here, NULL);
	medium_close();
	gone("emu:m");
	gone("m");
	return 0;
}

MAY_WAIT static int make_m(void *arg)
{
	ram_make("m", MIB(8), *(unsigned *)arg);
	return 0;
}

static void test_what_is_held_goes_on_in_order(void **state)
{
	unsigned delay_us = 0;
	bool orderly = false;
	module_on(1, make_m, &delay_us);
	module_on(1, held_everywhere, &orderly);
}

static void test_held_after_an_orderly_detach(void **state)
{
	unsigned delay_us = 0;
	bool orderly = true;
	module_on(0, make_m, &delay_us);
	module_on(0, held_everywhere, &orderly);
}

MAY_WAIT static int give_up(void *arg)
{
	struct bdev_limits limits;
	int wanted = -ENODEV;
	drive_make("emu:ram:8M", NVME_HOLD);
	limits = *bdev_get_limits(bdev_find(bench.registry, made));
	assert_int_equal(limits.block_size, BLOCK);
	open_everywhere(made);
	nvme_device_give_up(device_of(made)); /* nothing to give up */
	assert_int_equal(nvme_device_get_state(device_of(made)), NVME_DEVICE_ATTACHED);
	leave(made);
	everywhere(start_here, NULL);
	static struct background background;
	background_start(&background, 2, (int (*)(void *))arg, openers.name);
	everywhere(all_done_here, &wanted);
	everywhere(close_here, NULL);
	background_wait(&background);
	assert_null(bdev_find(bench.registry, made));
	assert_null(bdev_find(bench.registry, "ram:8M"));
	return 0;
}

MAY_WAIT static int give_up_at_home(void *arg)
{
	return reactor_call(reactor_group_get(bench.group, 1), give_up_run, openers.name);
}

static void test_giving_up_answers_everything(void **state)
{
	module_on(1, give_up, give_up_at_home);
	assert_int_equal(told[NVME_DEVICE_GONE], 1);
}

static void test_a_removal_by_name_ends_a_hold(void **state) { module_on(0, give_up, remove_run); }

/* ---- what is held and why not ---- */

/* Sent again after an error, but the drive left before that. */
MAY_WAIT static int leave_before_retry(void *arg)
{
	static struct shot shot;
	drive_make("emu:ram:8M,rule=write:status=0x82:count=1", NVME_HOLD); /* namespace not ready */
	open_everywhere(made);
	shot_write(&shot, openers.channels[0], 0, BLOCK, 0x12);
	fiber_sleep(NS_PER_MS);
	assert_int_equal(shot.result, SHOT_PENDING);
	leave(made);
	fiber_sleep(NS_PER_SEC);
	assert_int_equal(shot.result, SHOT_PENDING);
	assert_int_equal(reattach(device_of(made), NULL, NULL, NULL), 0);
	assert_int_equal(shot_wait(&shot), 0);
	assert_true(filled(openers.channels[0], 0, 0x12));
	everywhere(close_here, NULL);
	gone(made);
	shot_free(&shot);
	return 0;
}

static void test_a_command_that_is_to_be_sent_again_is_held(void **state) { module_on(0, leave_before_retry, NULL); }

/* The removal of a bdev meets the loss of its controller: what had been sent may not wait for a return. */
MAY_WAIT static int lost_in_removal(void *arg)
{
	static struct shot shot;
	static struct background background;
	drive_make("emu:ram:8M,rule=write:stuck:count=1", NVME_HOLD);
	open_everywhere(made);
	struct nvme_device *device = device_of(made);
	shot_write(&shot, openers.channels[0], 0, BLOCK, 0x13);
	background_start(&background, 2, remove_run, openers.name);
	fiber_sleep(10 * NS_PER_MS);
	assert_int_equal(shot.result, SHOT_PENDING);
	nvme_device_lost(device); /* still there: its bdev is open */
	assert_int_equal(shot_wait(&shot), -ENODEV);
	everywhere(close_here, NULL);
	assert_int_equal(background_wait(&background), 0);
	shot_free(&shot);
	return 0;
}

static void test_a_bdev_that_is_being_removed_is_not_held(void **state) { module_on(0, lost_in_removal, NULL); }

MAY_WAIT static int abort_held(void *arg)
{
	static struct shot held, other, abort;
	drive_make("emu:ram:8M", NVME_HOLD);
	open_everywhere(made);
	leave(made);
	shot_write(&held, openers.channels[0], 0, BLOCK, 0x14);
	shot_write(&other, openers.channels[0], BLOCK, BLOCK, 0x15);
	fiber_yield();
	shot_abort(&abort, &held);
	assert_int_equal(shot_wait(&abort), 0);
	assert_int_equal(shot_wait(&held), -ECANCELED);
	assert_int_equal(reattach(device_of(made), NULL, NULL, NULL), 0);
	assert_int_equal(shot_wait(&other), 0);
	assert_true(filled(openers.channels[0], 0, 0) && filled(openers.channels[0], BLOCK, 0x15));
	everywhere(close_here, NULL);
	gone(made);
	shot_free(&held);
	shot_free(&other);
	return 0;
}

static void test_what_is_held_can_be_aborted(void **state) { module_on(0, abort_held, NULL); }

/* A write cache that was turned off is on after a reset: the drive refuses to turn it off once, or in every attempt. */
MAY_WAIT static int cache_on_after_reset(void *arg)
{
	static struct shot shot, reset;
	const bool for_good = *(bool *)arg;
	ram_make("m", MIB(8), 0);
	drive_make("emu:m,cache=1M", NVME_HOLD);
	open_everywhere(made);
	medium_open("m");
	rule_add(made, "admin-set-features:status=0x6:skip=1:count=1"); /* the first is about queues */
	if (for_good)
		rule_add(made, "admin-set-features:status=0x6:skip=2:count=1");
	shot_start(&reset, openers.channels[0], IO_RESET, 0, 0);
	assert_int_equal(shot_wait(&reset), for_good ? -ENODEV : 0);
	fiber_sleep(NS_PER_SEC);
	assert_int_equal(nvme_device_get_state(device_of(made)), for_good ? NVME_DEVICE_HELD : NVME_DEVICE_ATTACHED);
	shot_write(&shot, openers.channels[0], 0, BLOCK, 0x16);
	if (for_good)
		assert_int_equal(reattach(device_of(made), NULL, NULL, NULL), 0);
	assert_int_equal(shot_wait(&shot), 0);
	leave(made);
	assert_true(filled(medium, 0, 0x16));
	everywhere(close_here, NULL);
	medium_close();
	gone(made);
	gone("m");
	shot_free(&shot);
	shot_free(&reset);
	return 0;
}

static void test_a_write_cache_that_is_on_after_a_reset(void **state)
{
	for (unsigned i = 0; i < 2; i++) {
		bool for_good = i;
		module_on(0, cache_on_after_reset, &for_good);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_held_goes_on_in_order, setup, teardown),
		cmocka_unit_test_setup_teardown(test_held_after_an_orderly_detach, setup, teardown),
		cmocka_unit_test_setup_teardown(test_giving_up_answers_everything, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_removal_by_name_ends_a_hold, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_command_that_is_to_be_sent_again_is_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_bdev_that_is_being_removed_is_not_held, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_held_can_be_aborted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_write_cache_that_is_on_after_a_reset, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
