/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a queue pair takes any number of requests, sends them in order, rings once per batch, and answers each exactly
 * once, in whatever order, and with whatever nonsense in between, the controller answers. Method: the scripted
 * controller, which watches rings, identifiers and doorbells; the rig's requests watch their own answers.
 */
#include <errno.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "nvme/nvme_internal.h"
#include "nvme_rig.h"

enum { MANY = 100 };

static struct rig rig;
static struct rig_io ios[MANY];
static unsigned done_order[MANY], done_count;

static int setup(void **state)
{
	rig_init(&rig, 1, 31);
	for (unsigned i = 0; i < MANY; i++)
		rig_io_init(&ios[i], &rig, FAKE_PAGE);
	done_count = 0;
	return 0;
}

static int teardown(void **state)
{
	for (unsigned i = 0; i < MANY; i++)
		rig_io_fini(&ios[i]);
	rig_fini(&rig);
	return 0;
}

static void attach_with(unsigned depth)
{
	rig.options.queue_depth = depth;
	rig.fake.cap |= FIELD_SET(CAP_MQES, 0xffff);
	assert_int_equal(rig_attach(&rig), 0);
}

static void note_order(struct rig_io *io) { done_order[done_count++] = (unsigned)(io - ios); }

/* Request i writes i to block i. */
static void submit_numbered(unsigned i)
{
	memset(ios[i].buffer, (int)i + 1, 512);
	ios[i].then = note_order;
	rig_io_submit(&ios[i], NVME_CMD_WRITE, i, 1);
}

MAY_WAIT static int submit_many(void *arg)
{
	const unsigned *count = arg;
	for (unsigned i = 0; i < *count; i++)
		submit_numbered(i);
	return 0;
}

static void expect_written(unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(ios[i].answers, 1);
		assert_int_equal(ios[i].request.result, 0);
		assert_int_equal(ios[i].request.cid, CID_NONE);
		assert_int_equal(fake_ns_data(fake_ns(&rig.fake, 1))[512 * i], i + 1);
	}
	assert_int_equal(rig.fake.io_seen[NVME_CMD_WRITE], count);
	assert_int_equal(done_count, count);
}

static struct nvme_qpair *qpair(void) { return rig.ctrlr->qpairs[0]; }

/* ---- more requests than trackers ---- */

static void test_requests_beyond_the_trackers_wait_in_line(void **state)
{
	unsigned count = MANY;
	attach_with(8);
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_many, &count);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(fake_under_way(&rig.fake, false), 7);
	assert_int_equal(nvme_qpair_outstanding(qpair()), MANY);
	for (unsigned left = MANY; left > 0; left--) {
		assert_int_equal(fake_release(&rig.fake, 1, false), 1);
		rig_sleep(&rig, NS_PER_MS);
		assert_int_equal(fake_under_way(&rig.fake, false), MIN(left - 1, 7u));
		assert_int_equal(nvme_qpair_outstanding(qpair()), left - 1);
	}
	expect_written(MANY);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(done_order[i], i); /* the line is kept */
}

static void submit_another(struct rig_io *io)
{
	note_order(io);
	if (io == &ios[0])
		submit_numbered(20);
}

static void test_who_submits_from_done_goes_to_the_end_of_the_line(void **state)
{
	unsigned count = 20;
	attach_with(4);
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_many, &count);
	ios[0].then = submit_another;
	for (unsigned i = 0; i < 21; i++) {
		rig_sleep(&rig, NS_PER_MS);
		assert_int_equal(fake_release(&rig.fake, 1, false), 1);
	}
	rig_sleep(&rig, NS_PER_MS);
	expect_written(21);
	for (unsigned i = 0; i < 21; i++)
		assert_int_equal(done_order[i], i);
}

MAY_WAIT static int submit_around_a_stop(void *arg)
{
	qpair_stop(qpair());
	submit_numbered(0);
	submit_numbered(1);
	fiber_sleep(NS_PER_MS);
	assert_int_equal(fake_under_way(&rig.fake, false), 0);
	qpair_restart(qpair());
	submit_numbered(2);
	return 0;
}

static void test_who_comes_after_a_stop_does_not_overtake_who_waited(void **state)
{
	attach_with(8);
	rig_run(&rig, 0, submit_around_a_stop, NULL);
	rig_sleep(&rig, NS_PER_MS);
	expect_written(3);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(done_order[i], i);
}

static void test_answers_in_any_order(void **state)
{
	unsigned count = MANY;
	attach_with(16);
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_many, &count);
	for (unsigned round = 0; done_count < MANY; round++) {
		rig_sleep(&rig, NS_PER_MS);
		fake_release(&rig.fake, 1 + round % 5, round % 3 != 0);
	}
	expect_written(MANY);
}

/* ---- rings ---- */

struct wrap_run {
	unsigned width, rounds;
	unsigned left;
};

static void run_on(struct rig_io *io)
{
	struct wrap_run *run = io->arg;
	assert_int_equal(io->request.result, 0);
	if (run->rounds == 0) {
		run->left--;
		return;
	}
	run->rounds--;
	memset(io->buffer, (int)run->rounds, 512);
	rig_io_submit(io, run->rounds % 4 == 0 ? NVME_CMD_READ : NVME_CMD_WRITE, (uint64_t)(io - ios), 1);
}

MAY_WAIT static int run_wraps(void *arg)
{
	struct wrap_run *run = arg;
	run->left = run->width;
	for (unsigned i = 0; i < run->width; i++) {
		ios[i].arg = run;
		ios[i].then = run_on;
		rig_io_submit(&ios[i], NVME_CMD_FLUSH, 0, 0);
	}
	while (run->left > 0)
		fiber_sleep(NS_PER_MS);
	return 0;
}

static void test_rings_wrap_thousands_of_times(void **state)
{
	static const unsigned depths[] = {2, 3, 8}, widths[] = {1, 2, 5, 12};
	for (unsigned i = 0; i < ARRAY_SIZE(depths); i++)
		for (unsigned j = 0; j < ARRAY_SIZE(widths); j++) {
			struct wrap_run run = {.width = widths[j], .rounds = 4000 * depths[i]};
			attach_with(depths[i]);
			rig.fake.latency_max_ns = j % 2 ? 20 * NS_PER_US : 0;
			rig_run(&rig, 0, run_wraps, &run);
			assert_int_equal(rig.fake.io_seen[NVME_CMD_READ] + rig.fake.io_seen[NVME_CMD_WRITE], 4000 * depths[i]);
			rig_detach(&rig);
			rig_renew(&rig);
		}
}

/* ---- doorbells ---- */

static void test_a_batch_of_submissions_rings_once(void **state)
{
	unsigned count = 32;
	attach_with(64);
	rig_sleep(&rig, NS_PER_MS);
	const unsigned sq = rig.fake.sqs[1].rings, cq = rig.fake.cqs[1].rings, wrote = rig.fake.wrote;
	rig_run(&rig, 0, submit_many, &count);
	rig_sleep(&rig, NS_PER_MS);
	expect_written(32);
	assert_int_equal(rig.fake.sqs[1].rings - sq, 1);
	assert_int_equal(rig.fake.cqs[1].rings - cq, 1); /* they were answered together */
	assert_int_equal(rig.fake.wrote - wrote, 2);
}

static void test_what_leaves_the_line_together_rings_once(void **state)
{
	unsigned count = 14;
	attach_with(8);
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_many, &count);
	rig_sleep(&rig, NS_PER_MS);
	const unsigned sq = rig.fake.sqs[1].rings;
	assert_int_equal(fake_release(&rig.fake, 7, false), 7);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(fake_under_way(&rig.fake, false), 7);
	assert_int_equal(rig.fake.sqs[1].rings - sq, 1);
	fake_release(&rig.fake, 7, false);
	rig_sleep(&rig, NS_PER_MS);
	expect_written(14);
}

static void test_completions_are_taken_in_bounded_batches(void **state)
{
	unsigned count = MANY;
	attach_with(256);
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_many, &count);
	rig_sleep(&rig, NS_PER_MS);
	const unsigned cq = rig.fake.cqs[1].rings;
	assert_int_equal(fake_release(&rig.fake, MANY, false), MANY);
	rig_sleep(&rig, NS_PER_MS);
	expect_written(MANY);
	assert_int_equal(rig.fake.cqs[1].rings - cq, (MANY + COMPLETION_BATCH - 1) / COMPLETION_BATCH);
}

static void test_a_quiet_queue_pair_writes_and_runs_nothing(void **state)
{
	struct reactor_stats before, after;
	attach_with(8);
	rig_sleep(&rig, NS_PER_SEC);
	const unsigned wrote = rig.fake.wrote;
	reactor_stats_read(reactor_group_get(rig.group, 0), &before);
	rig_sleep(&rig, 100 * NS_PER_SEC);
	reactor_stats_read(reactor_group_get(rig.group, 0), &after);
	assert_int_equal(rig.fake.wrote, wrote);
	assert_true(after.turns - before.turns < 100 * (1000 / MINDER_PERIOD_MS) * 8); /* the minder's look at the status */
}

/* ---- shadow doorbells ---- */

static void attach_with_shadow(unsigned depth)
{
	rig.fake.identify.oacs = le16_set(NVME_OACS_DOORBELL_BUFFER);
	attach_with(depth);
	assert_true(nvme_ctrlr_get_info(rig.ctrlr)->shadow_doorbells);
}

static void test_shadow_doorbells_tell_a_controller_that_sleeps(void **state)
{
	static const unsigned depths[] = {2, 5, 64};
	for (unsigned i = 0; i < ARRAY_SIZE(depths); i++) {
		struct wrap_run run = {.width = 12, .rounds = 20000};
		attach_with_shadow(depths[i]);
		rig.fake.latency_max_ns = 5 * NS_PER_US;
		rig_run(&rig, 0, run_wraps, &run);
		assert_int_equal(nvme_ctrlr_get_info(rig.ctrlr)->timeouts, 0);
		rig_detach(&rig);
		rig_renew(&rig);
	}
}

static void test_shadow_doorbells_spare_a_controller_that_is_awake(void **state)
{
	struct wrap_run run = {.width = 4, .rounds = 5000};
	attach_with_shadow(64);
	rig.fake.shadow_awake = true;
	const unsigned wrote = rig.fake.wrote;
	rig_run(&rig, 0, run_wraps, &run);
	assert_true(rig.fake.wrote - wrote < 1000);
}

/* ---- nonsense ---- */

static void submit_and_hold(unsigned count)
{
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_many, &count);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(fake_under_way(&rig.fake, false), count);
}

static void test_an_answer_to_nobody_is_ignored(void **state)
{
	attach_with(8);
	submit_and_hold(2);
	fake_post(&rig.fake, 1, 0xffff, 0);
	fake_post(&rig.fake, 1, 500, 0);
	fake_post(&rig.fake, 1, 6, 0);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(done_count, 0);
	assert_true(rig_logged(&rig, "queue 1: a completion for command 500, which is not under way: ignored"));
	fake_release(&rig.fake, 2, false);
	rig_sleep(&rig, NS_PER_MS);
	expect_written(2);
}

static void test_an_answer_that_comes_twice_counts_once(void **state)
{
	fake_rule(&rig.fake, (struct fake_rule){.opcode = NVME_CMD_WRITE, .selector = FAKE_ANY, .action = FAKE_TWICE});
	attach_with(8);
	for (unsigned i = 0; i < MANY; i++) {
		rig_run(&rig, 0, submit_many, &(unsigned){1});
		rig_sleep(&rig, NS_PER_MS);
		assert_int_equal(done_count, i + 1);
		assert_int_equal(nvme_qpair_outstanding(qpair()), 0);
	}
}

static void test_a_late_second_answer_does_not_complete_the_next_command(void **state)
{
	attach_with(2); /* one tracker: it is used again at once */
	for (unsigned i = 0; i < 50; i++) {
		done_count = 0;
		submit_and_hold(1);
		const uint16_t cid = ios[0].request.cid;
		fake_release(&rig.fake, 1, false);
		rig_sleep(&rig, NS_PER_MS);
		assert_int_equal(done_count, 1);
		submit_and_hold(1);
		fake_post(&rig.fake, 1, cid, 0);
		rig_sleep(&rig, NS_PER_MS);
		assert_int_equal(done_count, 1);
		fake_release(&rig.fake, 1, false);
		rig_sleep(&rig, NS_PER_MS);
		assert_int_equal(done_count, 2);
	}
}

static void test_strangers_among_many(void **state)
{
	struct wrap_run run = {.width = 9, .rounds = 3000};
	fake_rule(&rig.fake, (struct fake_rule){.opcode = FAKE_ANY, .selector = FAKE_ANY, .action = FAKE_STRANGER});
	attach_with(32);
	rig_run(&rig, 0, run_wraps, &run);
	assert_true(rig_logged(&rig, "which is not under way: ignored"));
}

/* ---- requests that cannot be sent ---- */

MAY_WAIT static int submit_malformed(void *arg)
{
	for (unsigned i = 0; i < MANY; i++) {
		rig_io_submit(&ios[0], NVME_CMD_WRITE, 0, 1);
		assert_int_equal(rig_io_wait(&ios[0]), 0);
		ios[1].buffer += 2;
		rig_io_submit(&ios[1], NVME_CMD_WRITE, 0, 1);
		assert_int_equal(rig_io_wait(&ios[1]), -EINVAL);
		assert_int_equal(ios[1].request.status, STATUS_NONE);
		ios[1].buffer -= 2;
	}
	return 0;
}

static void test_a_request_that_prps_cannot_describe_is_answered_and_not_sent(void **state)
{
	attach_with(4);
	rig_run(&rig, 0, submit_malformed, NULL);
	assert_int_equal(rig.fake.io_seen[NVME_CMD_WRITE], MANY);
}

/* The same in the line behind others. */
MAY_WAIT static int submit_malformed_third(void *arg)
{
	ios[3].buffer += 2;
	for (unsigned i = 0; i < 5; i++)
		submit_numbered(i);
	ios[3].buffer -= 2;
	return 0;
}

static void test_a_malformed_request_in_the_line_holds_nobody_up(void **state)
{
	attach_with(2);
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_malformed_third, NULL);
	for (unsigned i = 0; i < 4; i++) {
		rig_sleep(&rig, NS_PER_MS);
		assert_int_equal(fake_release(&rig.fake, 1, false), 1);
	}
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(done_count, 5);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(ios[i].request.result, i == 3 ? -EINVAL : 0);
}

/* ---- calling off ---- */

MAY_WAIT static int abort_one(void *arg)
{
	struct rig_io *io = arg;
	nvme_abort(io->qpair, &io->request);
	return 0;
}

static void test_calling_off_what_waits_answers_it_without_the_controller(void **state)
{
	unsigned count = 5;
	attach_with(4);
	rig.fake.hold = true;
	rig_run(&rig, 0, submit_many, &count);
	rig_sleep(&rig, NS_PER_MS);
	rig_run(&rig, 0, abort_one, &ios[3]);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(ios[3].request.result, -ECANCELED);
	assert_int_equal(nvme_qpair_outstanding(qpair()), 4);
	assert_int_equal(rig.fake.admin_seen[NVME_ADMIN_ABORT], 0);
	rig.fake.hold = false;
	fake_release(&rig.fake, 3, false);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(done_count, 5);
	assert_int_equal(rig.fake.io_seen[NVME_CMD_WRITE], 4);
}

static void test_calling_off_what_the_controller_has_asks_it(void **state)
{
	attach_with(8);
	submit_and_hold(3);
	rig_run(&rig, 0, abort_one, &ios[1]);
	rig_sleep(&rig, 100 * NS_PER_MS);
	assert_int_equal(rig.fake.admin_seen[NVME_ADMIN_ABORT], 1);
	assert_int_equal(ios[1].request.result, -ECANCELED);
	assert_int_equal(done_count, 1); /* and it is not sent again */
	fake_release(&rig.fake, 2, false);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(done_count, 3);
}

static void test_calling_off_what_is_to_be_sent_again_answers_it(void **state)
{
	fake_rule(&rig.fake, (struct fake_rule){.opcode = NVME_CMD_WRITE, .selector = FAKE_ANY,
		.status = (uint16_t)(NVME_SC_NS_NOT_READY | FIELD_SET(STATUS_CRD, 1))});
	rig.fake.identify.crdt[0] = le16_set(100);
	attach_with(8);
	rig_run(&rig, 0, submit_many, &(unsigned){1});
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(done_count, 0);
	rig_run(&rig, 0, abort_one, &ios[0]);
	rig_sleep(&rig, NS_PER_MS);
	assert_int_equal(done_count, 1);
	assert_int_equal(ios[0].request.result, -ECANCELED);
	rig_sleep(&rig, 20 * NS_PER_SEC);
	assert_int_equal(done_count, 1);
	assert_int_equal(rig.fake.io_seen[NVME_CMD_WRITE], 1);
}

static void test_calling_off_what_was_answered_does_nothing(void **state)
{
	attach_with(8);
	rig_run(&rig, 0, submit_many, &(unsigned){1});
	rig_sleep(&rig, NS_PER_MS);
	rig_run(&rig, 0, abort_one, &ios[0]);
	rig_sleep(&rig, NS_PER_SEC);
	expect_written(1);
	assert_int_equal(rig.fake.admin_seen[NVME_ADMIN_ABORT], 0);
}

/* ---- sleep ---- */

MAY_WAIT static int look_before_sleep(void *arg)
{
	struct poller *poller = &qpair()->poller;
	assert_true(poller->before_sleep(poller));
	submit_numbered(0);
	assert_false(poller->before_sleep(poller)); /* the doorbell is still to be rung */
	fiber_yield();
	while (ios[0].answers == 0) {
		/* Without interrupts it is on the way: awake at first, then naps. */
		if (nvme_qpair_outstanding(qpair()) && !cds_list_empty(&qpair()->sent) && qpair()->sq_tail == qpair()->sq_doorbell.rung)
			assert_false(poller->before_sleep(poller));
		fiber_sleep(10 * NS_PER_US);
	}
	assert_true(poller->before_sleep(poller));
	assert_false(timer_running(&qpair()->timer) && qpair()->timer.due_ns < reactor_now_ns() + NS_PER_MS);
	rig.fake.hold = true;
	submit_numbered(1);
	fiber_sleep(2 * NS_PER_MS);
	assert_true(poller->before_sleep(poller));
	assert_true(timer_running(&qpair()->timer));
	assert_true(qpair()->timer.due_ns <= reactor_now_ns() + NAP_WITHOUT_INTERRUPTS_US * NS_PER_US);
	fake_release(&rig.fake, 1, false);
	fiber_sleep(NS_PER_MS);
	return 0;
}

static void test_a_reactor_sleeps_only_when_something_will_wake_it(void **state)
{
	attach_with(8);
	rig.fake.latency_max_ns = 100 * NS_PER_US;
	rig_run(&rig, 0, look_before_sleep, NULL);
	expect_written(2);
}

/* A simulated reactor watches no fd, so the queue pair is given one only here. */
MAY_WAIT static int look_before_sleep_with_interrupt(void *arg)
{
	const uint64_t one = 1;
	uint64_t count;
	struct poller *poller = &qpair()->poller;
	const int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	assert_true(fd >= 0);
	qpair()->interrupt_fd = fd;
	assert_true(poller->before_sleep(poller));
	submit_numbered(0);
	assert_false(poller->before_sleep(poller)); /* the doorbell is still to be rung */
	fiber_sleep(NS_PER_MS);
	assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
	assert_true(poller->before_sleep(poller)); /* the interrupt will wake it; an old one is taken back */
	assert_int_equal(read(fd, &count, sizeof(count)), -1);
	fake_release(&rig.fake, 1, false);
	assert_false(poller->before_sleep(poller)); /* the answer came before the interrupt was armed */
	qpair()->interrupt_fd = -1;
	close(fd);
	fiber_sleep(NS_PER_MS);
	return 0;
}

static void test_with_interrupts_it_looks_once_more_before_it_sleeps(void **state)
{
	attach_with(8);
	rig.fake.hold = true;
	rig_run(&rig, 0, look_before_sleep_with_interrupt, NULL);
	expect_written(1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_requests_beyond_the_trackers_wait_in_line),
		TEST(test_who_submits_from_done_goes_to_the_end_of_the_line),
		TEST(test_who_comes_after_a_stop_does_not_overtake_who_waited),
		TEST(test_answers_in_any_order),
		TEST(test_rings_wrap_thousands_of_times),
		TEST(test_a_batch_of_submissions_rings_once),
		TEST(test_what_leaves_the_line_together_rings_once),
		TEST(test_completions_are_taken_in_bounded_batches),
		TEST(test_a_quiet_queue_pair_writes_and_runs_nothing),
		TEST(test_shadow_doorbells_tell_a_controller_that_sleeps),
		TEST(test_shadow_doorbells_spare_a_controller_that_is_awake),
		TEST(test_an_answer_to_nobody_is_ignored),
		TEST(test_an_answer_that_comes_twice_counts_once),
		TEST(test_a_late_second_answer_does_not_complete_the_next_command),
		TEST(test_strangers_among_many),
		TEST(test_a_request_that_prps_cannot_describe_is_answered_and_not_sent),
		TEST(test_a_malformed_request_in_the_line_holds_nobody_up),
		TEST(test_calling_off_what_waits_answers_it_without_the_controller),
		TEST(test_calling_off_what_the_controller_has_asks_it),
		TEST(test_calling_off_what_is_to_be_sent_again_answers_it),
		TEST(test_calling_off_what_was_answered_does_nothing),
		TEST(test_a_reactor_sleeps_only_when_something_will_wake_it),
		TEST(test_with_interrupts_it_looks_once_more_before_it_sleeps),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
