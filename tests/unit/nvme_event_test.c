/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: what a controller reports by itself is read, told, and reported again the next time; and a controller that lost
 * power is not mistaken for one that was reset. Method: the scripted controller.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "nvme_rig.h"

static struct rig rig;

static int setup(void **state)
{
	rig_init(&rig, 2, 5);
	return 0;
}

static int teardown(void **state)
{
	rig_fini(&rig);
	return 0;
}

static void attach(void)
{
	assert_int_equal(rig_attach(&rig), 0);
	rig_sleep(&rig, NS_PER_MS);
}

enum { NOTICE_NS = NVME_EVENT_NOTICE | NVME_NOTICE_NS_CHANGED << 8 | NVME_LOG_CHANGED_NS << 16 };

static void report(uint32_t dw0)
{
	assert_true(fake_event(&rig.fake, dw0));
	rig_sleep(&rig, 100 * NS_PER_MS); /* less than the minder's period: the answer itself wakes it */
}

static unsigned events_armed(void) { return fake_under_way(&rig.fake, true); }

/* ---- namespaces ---- */

static void test_a_namespace_comes_changes_and_goes(void **state)
{
	attach();
	rig.fake.namespaces[1] = (struct fake_ns){.nsid = 5, .blocks = 64, .shift = 12};
	report(NOTICE_NS);
	assert_int_equal(rig.events[NVME_EVENT_NS_ADDED], 1);
	assert_int_equal(rig.event_nsid[NVME_EVENT_NS_ADDED], 5);
	assert_int_equal(nvme_ctrlr_ns_count(rig.ctrlr), 2);
	assert_int_equal(rig.fake.log_pages[NVME_LOG_CHANGED_NS], 1); /* which allows the next event */

	rig.fake.namespaces[1].blocks = 128;
	report(NOTICE_NS);
	assert_int_equal(rig.events[NVME_EVENT_NS_RESIZED], 1);
	assert_int_equal(rig.event_nsid[NVME_EVENT_NS_RESIZED], 5);
	assert_int_equal(nvme_ctrlr_ns(rig.ctrlr, 5)->block_count, 128);

	rig.fake.namespaces[1].inactive = true;
	report(NOTICE_NS);
	assert_int_equal(rig.events[NVME_EVENT_NS_REMOVED], 1);
	assert_int_equal(rig.event_nsid[NVME_EVENT_NS_REMOVED], 5);
	assert_int_equal(nvme_ctrlr_ns_count(rig.ctrlr), 1);
	assert_int_equal(rig.events[NVME_EVENT_NS_ADDED] + rig.events[NVME_EVENT_NS_RESIZED], 2);
	assert_int_equal(events_armed(), 4);
}

static void test_a_notice_without_a_change_tells_nothing(void **state)
{
	attach();
	report(NOTICE_NS);
	for (unsigned i = 0; i < RIG_EVENTS; i++)
		assert_int_equal(rig.events[i], 0);
}

static void test_changes_during_a_reset_are_told_after_it(void **state)
{
	attach();
	fake_fatal(&rig.fake);
	rig.fake.namespaces[0].blocks = 2048;
	rig.fake.namespaces[1] = (struct fake_ns){.nsid = 2, .blocks = 64, .shift = 9};
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(rig.events[NVME_EVENT_NS_ADDED], 1);
	assert_int_equal(rig.events[NVME_EVENT_NS_RESIZED], 1);
	assert_int_equal(rig.event_nsid[NVME_EVENT_NS_RESIZED], 1);
	assert_int_equal(events_armed(), 4);
}

static void test_a_list_that_cannot_be_read_changes_nothing(void **state)
{
	attach();
	rig.fake.namespaces[0].inactive = true;
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_IDENTIFY, .selector = NVME_CNS_ACTIVE_NS,
		.status = NVME_SC_INTERNAL_ERROR});
	report(NOTICE_NS);
	assert_int_equal(nvme_ctrlr_ns_count(rig.ctrlr), 1);
	assert_int_equal(rig.events[NVME_EVENT_NS_REMOVED], 0);
	fake_rules_clear(&rig.fake);
	report(NOTICE_NS);
	assert_int_equal(rig.events[NVME_EVENT_NS_REMOVED], 1);
}

/* ---- reports ---- */

static void test_every_event_is_followed_by_the_next(void **state)
{
	attach();
	for (unsigned i = 1; i <= 50; i++) {
		rig.fake.namespaces[0].blocks = 1000 + i;
		report(NOTICE_NS);
		assert_int_equal(rig.events[NVME_EVENT_NS_RESIZED], i);
		assert_int_equal(events_armed(), 4);
	}
	assert_int_equal(rig.fake.admin_seen[NVME_ADMIN_ASYNC_EVENT], 4 + 50);
}

static void test_several_events_at_once(void **state)
{
	attach();
	rig.fake.smart.critical_warning = 1;
	for (unsigned i = 0; i < 4; i++)
		assert_true(fake_event(&rig.fake, i % 2 ? NOTICE_NS : NVME_EVENT_SMART | NVME_LOG_SMART << 16));
	assert_false(fake_event(&rig.fake, 0));
	rig_sleep(&rig, 100 * NS_PER_MS);
	assert_int_equal(rig.events[NVME_EVENT_HEALTH], 2);
	assert_int_equal(rig.fake.log_pages[NVME_LOG_CHANGED_NS], 2);
	assert_int_equal(events_armed(), 4);
}

static void test_health_warnings_are_told_and_logged(void **state)
{
	attach();
	report(NVME_EVENT_SMART | NVME_LOG_SMART << 16);
	assert_int_equal(rig.events[NVME_EVENT_HEALTH], 0);
	rig.fake.smart.critical_warning = 1 << 0 | 1 << 3;
	report(NVME_EVENT_SMART | NVME_LOG_SMART << 16);
	assert_int_equal(rig.events[NVME_EVENT_HEALTH], 1);
	assert_true(rig_logged(&rig, "fake:0: health: spare space is low"));
	assert_true(rig_logged(&rig, "fake:0: health: read only"));
	assert_int_equal(rig.lines_at[LOG_LEVEL_ERROR], 2);
}

static void test_errors_are_logged(void **state)
{
	attach();
	report(NVME_EVENT_ERROR | 3 << 8 | NVME_LOG_ERROR << 16);
	assert_true(rig_logged(&rig, "reports an error (information 3): count 1"));
	assert_int_equal(rig.fake.log_pages[NVME_LOG_ERROR], 1);
}

static void test_events_that_nobody_knows_are_cleared_by_reading_their_page(void **state)
{
	attach();
	report(NVME_EVENT_VENDOR | 0x42u << 8 | 0xc0u << 16);
	assert_true(rig_logged(&rig, "event of type 7, information 66, log page 192"));
	assert_int_equal(rig.fake.log_pages[0xc0], 1);
	report(NVME_EVENT_NOTICE | 0x10 << 8);
	assert_int_equal(events_armed(), 4);
}

/* Asking again and again would be answered the same. */
static void test_a_controller_that_refuses_event_requests_is_left_alone(void **state)
{
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_ASYNC_EVENT, .selector = FAKE_ANY,
		.status = NVME_SC_INVALID_OPCODE});
	attach();
	rig_sleep(&rig, 60 * NS_PER_SEC);
	assert_in_range(rig.fake.admin_seen[NVME_ADMIN_ASYNC_EVENT], 1, 4);
	fake_rules_clear(&rig.fake);
	fake_fatal(&rig.fake);
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(events_armed(), 4); /* a reset may have brought new firmware */
}

static void test_a_log_page_that_is_not_answered_costs_a_reset_not_the_events(void **state)
{
	rig.options.admin_timeout_ns = NS_PER_SEC;
	attach();
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_GET_LOG_PAGE, .selector = NVME_LOG_CHANGED_NS,
		.count = 1, .action = FAKE_SILENT});
	report(NOTICE_NS);
	rig_sleep(&rig, 5 * NS_PER_SEC);
	assert_int_equal(nvme_ctrlr_get_info(rig.ctrlr)->resets, 1);
	rig.fake.namespaces[0].blocks = 77;
	report(NOTICE_NS);
	assert_int_equal(rig.events[NVME_EVENT_NS_RESIZED], 1);
	assert_int_equal(events_armed(), 4);
}

static void test_an_event_just_before_a_reset_is_not_lost(void **state)
{
	attach();
	rig.fake.smart.critical_warning = 1;
	assert_true(fake_event(&rig.fake, NVME_EVENT_SMART | NVME_LOG_SMART << 16));
	fake_fatal(&rig.fake);
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(nvme_ctrlr_get_info(rig.ctrlr)->resets, 1);
	assert_int_equal(rig.events[NVME_EVENT_HEALTH], 1);
	assert_int_equal(events_armed(), 4);
}

/* ---- asked for by the bus ---- */

static void test_a_device_that_is_asked_for_is_told_once(void **state)
{
	const uint64_t one = 1;
	rig.fake.request_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(rig.fake.request_fd >= 0);
	attach();
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(rig.events[NVME_EVENT_REQUESTED], 0);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(write(rig.fake.request_fd, &one, sizeof(one)), sizeof(one));
		rig_sleep(&rig, NS_PER_SEC);
		assert_int_equal(rig.events[NVME_EVENT_REQUESTED], 1);
	}
	rig_detach(&rig);
	close(rig.fake.request_fd);
}

/* ---- lost power ---- */

static void count_power_cycle(void) { rig.fake.smart.power_cycles[0]++; }

static void test_a_reset_after_a_power_cycle_is_no_way_to_go_on(void **state)
{
	attach();
	count_power_cycle();
	fake_fatal(&rig.fake);
	rig_sleep(&rig, 2 * NS_PER_SEC);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 1);
	assert_true(rig_logged(&rig, "lost power while it was in use"));
}

static void test_without_a_cache_nothing_was_lost(void **state)
{
	rig.fake.cache_on = false;
	attach();
	count_power_cycle();
	fake_fatal(&rig.fake);
	rig_sleep(&rig, 2 * NS_PER_SEC);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 0);
	assert_int_equal(nvme_ctrlr_get_info(rig.ctrlr)->resets, 1);
}

/* The cache was on when it was lost; what the drive comes up with says nothing of that. */
static void test_a_cache_that_comes_back_turned_off_was_lost_all_the_same(void **state)
{
	attach();
	count_power_cycle();
	rig.fake.cache_on = false;
	fake_fatal(&rig.fake);
	rig_sleep(&rig, 2 * NS_PER_SEC);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 1);
}

static void test_a_controller_that_is_not_ready_any_more_is_gone(void **state)
{
	attach();
	rig.fake.ready = false;
	fake_set(&rig.fake, NVME_REG_CSTS, 0);
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 1);
	assert_int_equal(rig.fake.stop_dmas, 1);
}

static void test_a_device_that_the_bus_does_not_know_any_more_is_gone(void **state)
{
	attach();
	rig.fake.alive_answer = false;
	fake_fatal(&rig.fake);
	rig_sleep(&rig, 400 * NS_PER_MS);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 1);
	assert_int_equal(rig.fake.enables, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_a_namespace_comes_changes_and_goes),
		TEST(test_a_notice_without_a_change_tells_nothing),
		TEST(test_changes_during_a_reset_are_told_after_it),
		TEST(test_a_list_that_cannot_be_read_changes_nothing),
		TEST(test_every_event_is_followed_by_the_next),
		TEST(test_several_events_at_once),
		TEST(test_health_warnings_are_told_and_logged),
		TEST(test_errors_are_logged),
		TEST(test_events_that_nobody_knows_are_cleared_by_reading_their_page),
		TEST(test_a_controller_that_refuses_event_requests_is_left_alone),
		TEST(test_a_log_page_that_is_not_answered_costs_a_reset_not_the_events),
		TEST(test_an_event_just_before_a_reset_is_not_lost),
		TEST(test_a_device_that_is_asked_for_is_told_once),
		TEST(test_a_reset_after_a_power_cycle_is_no_way_to_go_on),
		TEST(test_without_a_cache_nothing_was_lost),
		TEST(test_a_cache_that_comes_back_turned_off_was_lost_all_the_same),
		TEST(test_a_controller_that_is_not_ready_any_more_is_gone),
		TEST(test_a_device_that_the_bus_does_not_know_any_more_is_gone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
