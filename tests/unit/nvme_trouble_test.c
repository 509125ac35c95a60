/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a command that fails, or is late, or takes the controller down with it, is answered exactly once, with what
 * came of it in the end, in a time that can be told in advance; everything else goes on. Method: the scripted
 * controller, in simulated time.
 */
#include <errno.h>
#include <stdio.h>

#include "nvme_rig.h"

enum { OTHERS = 12 };

static struct rig rig;
static struct rig_io io, others[OTHERS];

static int setup(void **state)
{
	rig_init(&rig, 2, 47);
	rig.options.io_timeout_ns = NS_PER_SEC;
	rig.options.admin_timeout_ns = NS_PER_SEC;
	rig_io_init(&io, &rig, FAKE_PAGE);
	for (unsigned i = 0; i < OTHERS; i++)
		rig_io_init(&others[i], &rig, FAKE_PAGE);
	return 0;
}

static int teardown(void **state)
{
	rig_detach(&rig);
	rig_io_fini(&io);
	for (unsigned i = 0; i < OTHERS; i++)
		rig_io_fini(&others[i]);
	rig_fini(&rig);
	return 0;
}

static void attach(void) { assert_int_equal(rig_attach(&rig), 0); }

static const struct nvme_ctrlr_info *info(void) { return nvme_ctrlr_get_info(rig.ctrlr); }

static struct fake_rule *on_read(struct fake_rule rule)
{
	rule.opcode = NVME_CMD_READ;
	rule.selector = FAKE_ANY;
	return fake_rule(&rig.fake, rule);
}

struct one {
	int result;
	uint64_t took_ns;
};
MAY_WAIT static int read_one(void *arg)
{
	struct one *one = arg;
	const uint64_t start_ns = reactor_now_ns();
	one->result = rig_io_run(&io, NVME_CMD_READ, 3, 1);
	one->took_ns = reactor_now_ns() - start_ns;
	return 0;
}

/* A read on reactor 1, which is not the controller's home. */
static void expect_read(int result, uint64_t at_least_ns, uint64_t at_most_ns)
{
	struct one one;
	rig_run(&rig, 1, read_one, &one);
	assert_int_equal(one.result, result);
	if (one.took_ns < at_least_ns || one.took_ns > at_most_ns)
		fail_msg("took %llu us", (unsigned long long)(one.took_ns / NS_PER_US));
}

/* ---- sent again ---- */

static void test_a_passing_trouble_is_sent_again_after_a_moment(void **state)
{
	attach();
	on_read((struct fake_rule){.count = 3, .status = NVME_SC_NS_NOT_READY});
	expect_read(0, 30 * NS_PER_MS, 70 * NS_PER_MS);
	assert_int_equal(info()->retries, 3);
	assert_int_equal(info()->errors, 0);
	assert_int_equal(rig.fake.io_seen[NVME_CMD_READ], 4);
}

static void test_trouble_that_does_not_pass_is_answered_after_the_last_retry(void **state)
{
	attach();
	on_read((struct fake_rule){.status = NVME_SC_INTERNAL_ERROR});
	expect_read(-EIO, 0, 200 * NS_PER_MS);
	assert_int_equal(io.request.status, NVME_SC_INTERNAL_ERROR);
	assert_int_equal(rig.fake.io_seen[NVME_CMD_READ], 1 + NVME_RETRIES_MAX);
	assert_int_equal(info()->errors, 1);
	expect_read(-EIO, 0, 200 * NS_PER_MS); /* the count begins again */
	assert_int_equal(rig.fake.io_seen[NVME_CMD_READ], 2 * (1 + NVME_RETRIES_MAX));
}

static void test_do_not_retry_is_obeyed(void **state)
{
	attach();
	on_read((struct fake_rule){.status = (uint16_t)(NVME_SC_INTERNAL_ERROR | FIELD_SET(STATUS_DNR, 1) | FIELD_SET(STATUS_MORE, 1))});
	expect_read(-EIO, 0, NS_PER_MS);
	assert_int_equal(rig.fake.io_seen[NVME_CMD_READ], 1);
}

static void test_a_verdict_is_not_sent_again(void **state)
{
	attach();
	on_read((struct fake_rule){.status = NVME_SC_UNRECOVERED_READ});
	expect_read(-EILSEQ, 0, NS_PER_MS);
	assert_int_equal(rig.fake.io_seen[NVME_CMD_READ], 1);
	assert_true(rig_logged(&rig, "fake:0: command 02 at LBA 3 failed: unrecovered read error (status 281)"));
}

static void test_the_delay_that_the_controller_asks_for_is_kept(void **state)
{
	for (unsigned i = 0; i < 3; i++)
		rig.fake.identify.crdt[i] = le16_set((uint16_t)(3 + 10 * i));
	attach();
	for (unsigned i = 0; i < 3; i++) {
		const uint64_t delay_ns = (3 + 10 * i) * 100 * NS_PER_MS;
		fake_rules_clear(&rig.fake);
		on_read((struct fake_rule){.count = 1, .status = (uint16_t)(NVME_SC_NS_NOT_READY | FIELD_SET(STATUS_CRD, i + 1))});
		expect_read(0, delay_ns, delay_ns + 25 * NS_PER_MS);
	}
}

static void test_a_delay_of_hours_is_not_kept(void **state)
{
	rig.fake.identify.crdt[0] = le16_set(UINT16_MAX);
	attach();
	on_read((struct fake_rule){.count = 1, .status = (uint16_t)(NVME_SC_NS_NOT_READY | FIELD_SET(STATUS_CRD, 1))});
	expect_read(0, 30 * NS_PER_SEC, 31 * NS_PER_SEC);
}

/* ---- late ---- */

static void test_a_late_command_is_aborted_and_sent_again(void **state)
{
	attach();
	on_read((struct fake_rule){.count = 1, .action = FAKE_SILENT});
	expect_read(0, NS_PER_SEC, 1300 * NS_PER_MS);
	assert_int_equal(rig.fake.admin_seen[NVME_ADMIN_ABORT], 1);
	assert_int_equal(info()->timeouts, 1);
	assert_int_equal(info()->aborts, 1);
	assert_int_equal(info()->retries, 1);
	assert_int_equal(info()->resets, 0);
	assert_true(rig_logged(&rig, "queue 2: command 02"));
}

struct stall {
	struct fiber_start start;
	uint64_t after_ns, stall_ns;
	bool over;
};
static void stall_main(void *arg)
{
	struct stall *stall = arg;
	fiber_sleep(stall->after_ns);
	reactor_group_sim_stall(reactor_group_of(reactor_self()), stall->stall_ns);
	stall->over = true;
}

/* The process is stopped for a minute, and the answer was there long ago. */
static MAY_WAIT int read_over_a_stall(void *arg)
{
	struct one *one = arg;
	struct stall stall = {.after_ns = 100 * NS_PER_MS, .stall_ns = 60 * NS_PER_SEC};
	stall.start = (struct fiber_start){.fn = stall_main, .arg = &stall, .name = "stall"};
	fiber_start(&stall.start);
	one->result = rig_io_run(&io, NVME_CMD_READ, 3, 1);
	assert_true(stall.over);
	return 0;
}

static void test_time_in_which_the_process_was_stopped_does_not_count(void **state)
{
	struct one one;
	attach();
	on_read((struct fake_rule){.count = 1, .delay_ns = 900 * NS_PER_MS});
	rig_run(&rig, 1, read_over_a_stall, &one);
	assert_int_equal(one.result, 0);
	assert_int_equal(info()->timeouts, 0);
	assert_int_equal(info()->resets, 0);
	/* One that really stays away is missed after it as before. */
	on_read((struct fake_rule){.count = 1, .action = FAKE_SILENT});
	rig_run(&rig, 1, read_over_a_stall, &one);
	assert_int_equal(one.result, 0);
	assert_int_equal(info()->timeouts, 1);
}

/* The controller is asked as soon as the command is late, not when the minder happens to look. */
static void test_a_short_timeout_is_kept(void **state)
{
	rig.options.io_timeout_ns = 20 * NS_PER_MS;
	attach();
	for (unsigned i = 0; i < 10; i++) {
		fake_rules_clear(&rig.fake);
		on_read((struct fake_rule){.count = 1, .action = FAKE_SILENT});
		expect_read(0, 20 * NS_PER_MS, 45 * NS_PER_MS);
	}
}

static void test_a_command_that_is_late_every_time_is_given_up(void **state)
{
	attach();
	on_read((struct fake_rule){.action = FAKE_SILENT});
	expect_read(-ETIMEDOUT, (1 + NVME_RETRIES_MAX) * NS_PER_SEC, (1 + NVME_RETRIES_MAX) * 1300 * NS_PER_MS);
	assert_int_equal(rig.fake.io_seen[NVME_CMD_READ], 1 + NVME_RETRIES_MAX);
	assert_int_equal(info()->resets, 0);
}

static void test_an_answer_after_the_abort_is_as_good(void **state)
{
	attach();
	on_read((struct fake_rule){.count = 1, .delay_ns = 1500 * NS_PER_MS, .resists_abort = true});
	expect_read(0, 1500 * NS_PER_MS, 1501 * NS_PER_MS);
	assert_int_equal(rig.fake.admin_seen[NVME_ADMIN_ABORT], 1);
	assert_int_equal(info()->resets, 0);
	rig_sleep(&rig, 10 * NS_PER_SEC);
	assert_int_equal(info()->resets, 0);
}

static void test_a_command_that_cannot_be_aborted_costs_a_reset_and_is_sent_again(void **state)
{
	attach();
	on_read((struct fake_rule){.count = 1, .action = FAKE_SILENT, .resists_abort = true});
	expect_read(0, 2 * NS_PER_SEC, 2500 * NS_PER_MS);
	assert_int_equal(info()->resets, 1);
	assert_int_equal(rig.fake.enables, 2);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 0);
}

static void test_a_dead_admin_queue_costs_a_reset(void **state)
{
	attach();
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_ABORT, .selector = FAKE_ANY, .action = FAKE_SILENT,
		.count = 1});
	on_read((struct fake_rule){.count = 1, .action = FAKE_SILENT});
	expect_read(0, 2 * NS_PER_SEC, 2500 * NS_PER_MS);
	assert_int_equal(info()->resets, 1);
}

static void test_a_command_that_resists_every_reset_is_given_up(void **state)
{
	attach();
	on_read((struct fake_rule){.action = FAKE_SILENT, .resists_abort = true});
	expect_read(-ETIMEDOUT, 2 * NS_PER_SEC * (1 + NVME_RETRIES_MAX), 2500 * NS_PER_MS * (1 + NVME_RETRIES_MAX));
	assert_int_equal(rig.fake.io_seen[NVME_CMD_READ], 1 + NVME_RETRIES_MAX);
	assert_int_equal(info()->resets, 1 + NVME_RETRIES_MAX);
}

/* ---- others beside it ---- */

static unsigned others_done;

static void expect_in_order(struct rig_io *other) { assert_int_equal(other - others, others_done++); }

MAY_WAIT static int submit_others(void *arg)
{
	others_done = 0;
	for (unsigned i = 0; i < OTHERS; i++) {
		memset(others[i].buffer, (int)i + 1, 512);
		rig_io_submit(&others[i], NVME_CMD_WRITE, 100 + i, 1);
	}
	return 0;
}

static void expect_others_written(void)
{
	for (unsigned i = 0; i < OTHERS; i++) {
		assert_int_equal(others[i].answers, 1);
		assert_int_equal(others[i].request.result, 0);
		assert_int_equal(fake_ns_data(fake_ns(&rig.fake, 1))[512 * (100 + i)], i + 1);
	}
}

/* More than trackers, on both reactors; those with the controller and those in line are all done after the reset. */
static void test_what_a_reset_interrupts_is_done_after_it(void **state)
{
	attach();
	rig.fake.hold = true;
	for (unsigned i = 0; i < OTHERS; i++)
		others[i].then = expect_in_order; /* as they were submitted */
	rig_run(&rig, 0, submit_others, NULL);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(fake_under_way(&rig.fake, false), 7);
	rig.fake.hold = false;
	fake_fatal(&rig.fake);
	expect_read(0, 0, NS_PER_SEC);
	rig_sleep(&rig, NS_PER_SEC);
	expect_others_written();
	assert_int_equal(info()->resets, 1);
	assert_true(rig_logged(&rig, "controller fatal status"));
	assert_true(rig_logged(&rig, "the controller is back"));
}

/* It takes the controller down whenever it is fetched, with whoever is there: this must end. */
static void test_a_command_that_kills_the_controller_is_given_up(void **state)
{
	attach();
	on_read((struct fake_rule){.action = FAKE_FATAL});
	rig_run(&rig, 0, submit_others, NULL);
	expect_read(-EIO, 0, 10 * NS_PER_SEC);
	rig_sleep(&rig, NS_PER_SEC);
	for (unsigned i = 0; i < OTHERS; i++) {
		assert_int_equal(others[i].answers, 1);
		assert_true(others[i].request.result == 0 || others[i].request.result == -EIO);
	}
	assert_int_equal(info()->resets, 1 + NVME_RETRIES_MAX);
	fake_rules_clear(&rig.fake);
	expect_read(0, 0, NS_PER_MS);
}

MAY_WAIT static int abort_others(void *arg)
{
	for (unsigned i = 0; i < OTHERS; i++)
		nvme_abort(others[i].qpair, &others[i].request);
	return 0;
}

static void test_what_was_called_off_is_not_sent_after_a_reset(void **state)
{
	attach();
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_others, NULL);
	rig_sleep(&rig, NS_PER_MS);
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_ABORT, .selector = FAKE_ANY, .action = FAKE_SILENT});
	rig_run(&rig, 0, abort_others, NULL);
	rig.fake.hold = false;
	const unsigned seen = rig.fake.io_seen[NVME_CMD_WRITE];
	fake_fatal(&rig.fake);
	rig_sleep(&rig, NS_PER_SEC);
	for (unsigned i = 0; i < OTHERS; i++) {
		assert_int_equal(others[i].answers, 1);
		assert_int_equal(others[i].request.result, -ECANCELED);
	}
	assert_int_equal(rig.fake.io_seen[NVME_CMD_WRITE], seen);
}

/* The controller comes up as it was saved. */
static void test_what_was_set_is_set_again_after_a_reset(void **state)
{
	rig.options.write_cache_off = true;
	attach();
	assert_false(rig.fake.cache_on);
	fake_fatal(&rig.fake);
	rig.fake.cache_on = true;
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(info()->resets, 1);
	assert_false(rig.fake.cache_on || info()->cache_on);
	assert_true(rig.fake.feature_set[NVME_FEATURE_ASYNC_EVENTS]);
	assert_true(rig.fake.feature_set[NVME_FEATURE_NUMBER_OF_QUEUES]);
}

/* ---- resets that fail ---- */

static void expect_dead(int (*reset)(void *))
{
	attach();
	rig.fake.hold = true;
	rig_run(&rig, 1, submit_others, NULL);
	rig_sleep(&rig, NS_PER_MS);
	reset(NULL);
	rig_sleep(&rig, 20 * NS_PER_SEC);
	for (unsigned i = 0; i < OTHERS; i++) {
		assert_int_equal(others[i].answers, 1);
		assert_int_equal(others[i].request.result, -ENODEV);
		assert_int_equal(others[i].request.status, 0xffff);
	}
	assert_int_equal(rig.events[NVME_EVENT_GONE], 1);
	assert_true(nvme_ctrlr_gone(rig.ctrlr));
	expect_read(-ENODEV, 0, NS_PER_MS);
}

static int fatal_and_never_ready(void *arg)
{
	rig.fake.never_ready = true;
	fake_fatal(&rig.fake);
	return 0;
}

static void test_a_controller_that_does_not_come_back_is_dead(void **state)
{
	expect_dead(fatal_and_never_ready);
	assert_int_equal(rig.fake.enables, 3);
	assert_true(rig_logged(&rig, "the controller is dead: not ready within the 2000 ms"));
}

/* With CSTS.RDY = 0 before and after, only time lets it see CC.EN fall; alone on its reactor nothing else takes time. */
static void test_a_controller_that_is_never_ready_sees_every_attempt(void **state)
{
	rig_fini(&rig);
	rig_init(&rig, 1, 3);
	attach();
	rig.fake.never_ready = true;
	fake_fatal(&rig.fake);
	rig_sleep(&rig, 20 * NS_PER_SEC);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 1);
	assert_int_equal(rig.fake.enables, 3);
}

static int fatal_and_mute(void *arg)
{
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_IDENTIFY, .selector = FAKE_ANY,
		.action = FAKE_SILENT});
	fake_fatal(&rig.fake);
	return 0;
}

static void test_a_controller_that_answers_nothing_after_a_reset_is_dead(void **state)
{
	expect_dead(fatal_and_mute);
	assert_int_equal(rig.fake.enables, 3);
	assert_true(rig_logged(&rig, "the controller is dead: Identify Controller failed"));
}

static int fatal_and_never_stops(void *arg)
{
	rig.fake.never_stops = true;
	fake_fatal(&rig.fake);
	return 0;
}

static void test_a_controller_that_does_not_stop_loses_its_dma_first(void **state)
{
	expect_dead(fatal_and_never_stops);
	assert_int_equal(rig.fake.stop_dmas, 1);
}

static void test_the_second_attempt_of_a_reset_may_work(void **state)
{
	attach();
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_IDENTIFY, .selector = NVME_CNS_CTRLR, .count = 1,
		.status = NVME_SC_INTERNAL_ERROR});
	fake_fatal(&rig.fake);
	rig_sleep(&rig, 2 * NS_PER_SEC);
	expect_read(0, 0, NS_PER_MS);
	assert_int_equal(rig.fake.enables, 3);
	assert_int_equal(info()->resets, 1);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 0);
}

static void test_what_waits_to_be_sent_again_is_answered_when_it_stops(void **state)
{
	rig.fake.identify.crdt[0] = le16_set(600);
	attach();
	fake_rule(&rig.fake, (struct fake_rule){.opcode = FAKE_ANY, .selector = FAKE_ANY,
		.status = (uint16_t)(NVME_SC_NS_NOT_READY | FIELD_SET(STATUS_CRD, 1))});
	rig_run(&rig, 1, submit_others, NULL);
	rig_sleep(&rig, NS_PER_SEC);
	rig_stop(&rig, 10 * NS_PER_SEC);
	for (unsigned i = 0; i < OTHERS; i++) {
		assert_int_equal(others[i].answers, 1);
		assert_int_equal(others[i].request.result, -ENODEV);
	}
}

/* ---- asked for ---- */

MAY_WAIT static int reset_three_times(void *arg)
{
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(nvme_ctrlr_reset(rig.ctrlr), 0);
	return 0;
}

static void test_a_reset_can_be_asked_for(void **state)
{
	attach();
	rig_run(&rig, 0, submit_others, NULL);
	rig_run(&rig, 0, reset_three_times, NULL);
	rig_sleep(&rig, NS_PER_MS);
	expect_others_written();
	assert_int_equal(info()->resets, 3);
}

MAY_WAIT static int reset_dead(void *arg)
{
	assert_int_equal(nvme_ctrlr_reset(rig.ctrlr), -ENODEV);
	assert_int_equal(nvme_ctrlr_reset(rig.ctrlr), -ENODEV);
	return 0;
}

static void test_a_reset_that_fails_says_so(void **state)
{
	attach();
	rig.fake.never_ready = true;
	rig_run(&rig, 0, reset_dead, NULL);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 1);
}

/* ---- admin commands ---- */

struct health {
	int result;
	uint64_t took_ns;
};
MAY_WAIT static int read_health(void *arg)
{
	struct health *health = arg;
	struct nvme_log_smart smart;
	const uint64_t start_ns = reactor_now_ns();
	health->result = nvme_log_page_read(rig.ctrlr, NVME_LOG_SMART, UINT32_MAX, &smart, sizeof(smart));
	health->took_ns = reactor_now_ns() - start_ns;
	return 0;
}

/* Often enough to run out of slots if one stayed away. */
static void test_an_admin_command_that_is_not_answered_costs_a_reset(void **state)
{
	attach();
	for (unsigned i = 0; i < 20; i++) {
		struct health health;
		fake_rules_clear(&rig.fake);
		fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_GET_LOG_PAGE, .selector = FAKE_ANY, .count = 1,
			.action = FAKE_SILENT});
		rig_run(&rig, 0, read_health, &health);
		assert_int_equal(health.result, -ETIMEDOUT);
		assert_in_range(health.took_ns, NS_PER_SEC, 1001 * NS_PER_MS);
		rig_sleep(&rig, NS_PER_SEC);
		rig_run(&rig, 0, read_health, &health);
		assert_int_equal(health.result, 0);
		assert_int_equal(info()->resets, i + 1);
	}
}

MAY_WAIT static int write_vendor_data(void *arg)
{
	uint8_t data[512];
	uint32_t sum = 0;
	memset(data, 3, sizeof(data));
	const struct nvme_admin admin = {.command = {.opcode = FAKE_VENDOR_WRITE}, .data = data, .length = sizeof(data),
		.to_controller = true};
	assert_int_equal(nvme_admin_run(rig.ctrlr, &admin, &sum), 0);
	assert_int_equal(sum, 3 * sizeof(data));
	assert_memory_equal(rig.fake.vendor_data, data, sizeof(data));
	return 0;
}

static void test_admin_data_goes_to_the_controller_and_dw0_comes_back(void **state)
{
	attach();
	rig_run(&rig, 0, write_vendor_data, NULL);
}

static void test_an_admin_error_is_its_callers_and_is_logged(void **state)
{
	struct health health;
	attach();
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_GET_LOG_PAGE, .selector = FAKE_ANY,
		.status = NVME_SC_INVALID_LOG_PAGE});
	rig_run(&rig, 0, read_health, &health);
	assert_int_equal(health.result, -EOPNOTSUPP);
	assert_true(rig_logged(&rig, "admin command 02 failed: invalid log page (status 109)"));
	assert_int_equal(info()->resets, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_a_passing_trouble_is_sent_again_after_a_moment),
		TEST(test_trouble_that_does_not_pass_is_answered_after_the_last_retry),
		TEST(test_do_not_retry_is_obeyed),
		TEST(test_a_verdict_is_not_sent_again),
		TEST(test_the_delay_that_the_controller_asks_for_is_kept),
		TEST(test_a_delay_of_hours_is_not_kept),
		TEST(test_a_late_command_is_aborted_and_sent_again),
		TEST(test_time_in_which_the_process_was_stopped_does_not_count),
		TEST(test_a_short_timeout_is_kept),
		TEST(test_a_command_that_is_late_every_time_is_given_up),
		TEST(test_an_answer_after_the_abort_is_as_good),
		TEST(test_a_command_that_cannot_be_aborted_costs_a_reset_and_is_sent_again),
		TEST(test_a_dead_admin_queue_costs_a_reset),
		TEST(test_a_command_that_resists_every_reset_is_given_up),
		TEST(test_what_a_reset_interrupts_is_done_after_it),
		TEST(test_a_command_that_kills_the_controller_is_given_up),
		TEST(test_what_was_called_off_is_not_sent_after_a_reset),
		TEST(test_what_was_set_is_set_again_after_a_reset),
		TEST(test_a_controller_that_does_not_come_back_is_dead),
		TEST(test_a_controller_that_is_never_ready_sees_every_attempt),
		TEST(test_a_controller_that_answers_nothing_after_a_reset_is_dead),
		TEST(test_a_controller_that_does_not_stop_loses_its_dma_first),
		TEST(test_the_second_attempt_of_a_reset_may_work),
		TEST(test_what_waits_to_be_sent_again_is_answered_when_it_stops),
		TEST(test_a_reset_can_be_asked_for),
		TEST(test_a_reset_that_fails_says_so),
		TEST(test_an_admin_command_that_is_not_answered_costs_a_reset),
		TEST(test_admin_data_goes_to_the_controller_and_dw0_comes_back),
		TEST(test_an_admin_error_is_its_callers_and_is_logged),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
