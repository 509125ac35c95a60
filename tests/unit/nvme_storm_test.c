/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever happens to the controller, whenever, under load: every request is answered exactly once, never while
 * the controller can reach its buffer, and what was acknowledged is what the namespace holds. A controller that
 * vanishes ends everything with -ENODEV soon, and tells it once; a stop keeps its deadline. Method: seeded storms on
 * the scripted controller, on one to three reactors. A failure names its round; RIG_SEED=n runs that one alone,
 * RIG_ROUNDS=n as many, RIG_LOG=1 shows the driver's log.
 */
#include <errno.h>
#include <stdio.h>

#include "nvme/nvme_internal.h"
#include "nvme_load.h"

static struct rig rig;
static struct load load;

/* ---- a round ---- */

static void round_begin(unsigned reactors, uint64_t seed)
{
	rig_init(&rig, reactors, seed);
	load_init(&load, &rig, 6 + (unsigned)(seed % 3) * 6, seed);
	rig.options.queue_depth = 2 + (unsigned)load_random(&load, 14);
	rig.options.io_timeout_ns = 100 * NS_PER_MS;
	rig.options.admin_timeout_ns = 200 * NS_PER_MS;
	rig.fake.cap = (rig.fake.cap & ~FIELD_SET(CAP_TO, 0xff)) | FIELD_SET(CAP_TO, 1);
	rig.fake.latency_max_ns = (500ull << load_random(&load, 4)) * NS_PER_US;
	if (load_random(&load, 2))
		rig.fake.identify.oacs = le16_set(NVME_OACS_DOORBELL_BUFFER);
	if (load_random(&load, 3) == 0)
		rig.fake.identify.acl = rig.fake.identify.aerl = 0;
	assert_int_equal(rig_attach(&rig), 0);
	load_start(&load);
}

static void round_end(void)
{
	rig_detach(&rig);
	assert_int_equal(load.running, 0);
	rig_fini(&rig);
	load_fini(&load);
}

static void rounds(unsigned count, void (*run)(uint64_t seed))
{
	const char *only = getenv("RIG_SEED"), *more = getenv("RIG_ROUNDS");
	const uint64_t first = only ? strtoull(only, NULL, 0) : 0;
	const uint64_t end = only ? first + 1 : more ? strtoull(more, NULL, 0) : count;
	for (uint64_t seed = first; seed < end; seed++) {
		printf("round %llu\r", (unsigned long long)seed);
		fflush(stdout);
		run(seed);
	}
}

/* ---- storms ---- */

static uint16_t random_status(void)
{
	static const uint16_t statuses[] = {NVME_SC_INTERNAL_ERROR, NVME_SC_NS_NOT_READY, NVME_SC_ABORTED_BY_REQUEST,
		NVME_SC_COMMAND_INTERRUPTED, NVME_SC_DATA_TRANSFER_ERROR};
	const uint16_t status = statuses[load_random(&load, ARRAY_SIZE(statuses))];
	return (uint16_t)(status | FIELD_SET(STATUS_CRD, load_random(&load, 4)) | FIELD_SET(STATUS_DNR, load_random(&load, 8) == 0));
}

static void rule_on_io(enum fake_action action)
{
	fake_rule(&rig.fake, (struct fake_rule){
		.opcode = FAKE_ANY,
		.selector = FAKE_ANY,
		.skip = (unsigned)load_random(&load, 20),
		.count = 1 + (unsigned)load_random(&load, 4),
		.action = action,
		.status = action == FAKE_ANSWER && load_random(&load, 2) ? random_status() : 0,
		.delay_ns = load_random(&load, 300) * NS_PER_MS,
		.resists_abort = load_random(&load, 2),
	});
}

/* At most one waits to strike, so that the second attempt of a reset works. */
static void rule_on_admin(void)
{
	for (unsigned i = 0; i < rig.fake.rule_count; i++)
		if (rig.fake.rules[i].admin && rig.fake.rules[i].hits == 0)
			return;
	const bool silent = load_random(&load, 2);
	fake_rule(&rig.fake, (struct fake_rule){
		.admin = true,
		.opcode = FAKE_ANY,
		.selector = FAKE_ANY,
		.skip = (unsigned)load_random(&load, 12),
		.count = 1,
		.action = silent ? FAKE_SILENT : FAKE_ANSWER,
		.status = silent ? 0 : NVME_SC_INTERNAL_ERROR,
	});
}

MAY_WAIT static int reset(void *arg) { return nvme_ctrlr_reset(rig.ctrlr); }

static void strike(void)
{
	if (rig.fake.rule_count > FAKE_RULES_MAX - 2)
		fake_rules_clear(&rig.fake);
	switch (load_random(&load, 8)) {
	case 0: fake_fatal(&rig.fake); break;
	case 1: rig_run(&rig, 0, reset, NULL); break;
	case 2: rule_on_io(FAKE_SILENT); break;
	case 3: rule_on_io(FAKE_ANSWER); break;
	case 4: rule_on_io(FAKE_FATAL); break;
	case 5: rule_on_io(load_random(&load, 2) ? FAKE_TWICE : FAKE_STRANGER); break;
	case 6: rule_on_admin(); break;
	default: load_abort_one(&load); break;
	}
}

static bool is_ready(struct rig *r, void *arg)
{
	return r->ctrlr->state == CTRLR_READY && !r->ctrlr->reset_wanted && !r->fake.fatal;
}

static void storm(unsigned reactors, uint64_t seed)
{
	enum { STRIKES = 50 };
	round_begin(reactors, seed);
	for (unsigned i = 0; i < STRIKES; i++) {
		rig_sleep(&rig, load_random(&load, 20) * 100 * NS_PER_US);
		strike();
		rig_until(&rig, is_ready, NULL, 10 * NS_PER_SEC);
	}
	fake_rules_clear(&rig.fake);
	const uint64_t done = load.done;
	rig_sleep(&rig, NS_PER_SEC);
	assert_true(load.done > done + 300); /* it is as lively as before */
	load.quit = true;
	load_expect_end(&load, NS_PER_SEC);
	load_verify(&load);
	assert_int_equal(rig.events[NVME_EVENT_GONE], 0);
	assert_true(load.failed * 20 < load.done);
	assert_true(load.longest_ns < 10 * NS_PER_SEC);
	round_end();
}

static void storm_on_one(uint64_t seed) { storm(1, seed); }
static void storm_on_three(uint64_t seed) { storm(3, seed); }

static void test_storms_on_one_reactor(void **state) { rounds(4, storm_on_one); }
static void test_storms_on_three_reactors(void **state) { rounds(4, storm_on_three); }

/* ---- vanishing ---- */

MAY_WAIT static int lose(void *arg)
{
	nvme_ctrlr_lost(rig.ctrlr);
	return 0;
}

/* Perhaps in the middle of a reset, or of what is tried before one. */
static void prepare_trouble(void)
{
	switch (load_random(&load, 4)) {
	case 0: fake_fatal(&rig.fake); break;
	case 1: rule_on_io(FAKE_SILENT); break;
	case 2: rule_on_admin(); fake_fatal(&rig.fake); break;
	default: break;
	}
	rig_sleep(&rig, load_random(&load, 2) ? load_random(&load, 10 * NS_PER_MS) : load_random(&load, 300 * NS_PER_MS));
}

static void vanish_somehow(void)
{
	rig.fake.vanish_as = (enum fake_vanish)load_random(&load, 3);
	switch (load_random(&load, 3)) {
	case 0:
		fake_vanish(&rig.fake);
		break;
	case 1: { /* with its hands full: at a command */
		const bool admin = load_random(&load, 2);
		fake_rule(&rig.fake, (struct fake_rule){.admin = admin, .opcode = FAKE_ANY, .selector = FAKE_ANY,
			.skip = (unsigned)load_random(&load, 15), .action = FAKE_VANISH});
		if (admin)
			fake_fatal(&rig.fake);
		break;
	}
	default:
		rig_run(&rig, 0, lose, NULL);
		fake_vanish(&rig.fake);
		break;
	}
}

static bool is_gone(struct rig *r, void *arg) { return r->events[NVME_EVENT_GONE] > 0; }

static void vanish_round(uint64_t seed)
{
	round_begin(1 + (unsigned)(seed % 3), seed);
	rig_sleep(&rig, load_random(&load, 3 * NS_PER_MS));
	prepare_trouble();
	vanish_somehow();
	if (load_random(&load, 4) != 0) {
		rig_sleep(&rig, NS_PER_SEC);
		if (!rig.fake.gone)
			fake_vanish(&rig.fake); /* the command did not come up */
		rig_until(&rig, is_gone, NULL, 5 * NS_PER_SEC);
		assert_int_equal(load.running, 0); /* all were answered before it was told */
		assert_true(nvme_ctrlr_gone(rig.ctrlr));
		rig_sleep(&rig, NS_PER_SEC);
		assert_int_equal(rig.events[NVME_EVENT_GONE], 1);
	}
	round_end();
}

static void test_vanishing_at_any_moment(void **state) { rounds(200, vanish_round); }

/* All ones are noticed within the minder's period, on a ready controller. */
static void test_vanishing_is_noticed_soon(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		round_begin(2, i);
		rig_sleep(&rig, NS_PER_MS);
		rig.fake.vanish_as = (enum fake_vanish)i;
		fake_vanish(&rig.fake);
		const uint64_t start_ns = rig_now(&rig);
		load_expect_end(&load, NS_PER_SEC);
		assert_true(rig_now(&rig) - start_ns < (i == FAKE_SIGBUS ? 5 : MINDER_PERIOD_MS + 5) * NS_PER_MS);
		round_end();
	}
}

/* ---- stops ---- */

static void make_sick(void)
{
	switch (load_random(&load, 6)) {
	case 0: rig.fake.never_shuts_down = true; break;
	case 1: rig.fake.never_stops = true; break;
	case 2: rig.fake.never_ready = true; break;
	case 3:
		fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = FAKE_ANY, .selector = FAKE_ANY, .action = FAKE_SILENT});
		break;
	case 4: rig.fake.shutdown_delay_ns = load_random(&load, 3 * NS_PER_SEC); break;
	default: break;
	}
}

MAY_WAIT static int submit_late(void *arg)
{
	struct rig_io *io = arg;
	assert_int_equal(rig_io_run(io, NVME_CMD_READ, 900, 1), -ENODEV);
	return 0;
}

MAY_WAIT static int submit_and_leave(void *arg)
{
	rig_io_submit(arg, NVME_CMD_READ, 900, 1);
	return 0;
}

static void stop_round(uint64_t seed)
{
	struct rig_io late;
	round_begin(1 + (unsigned)(seed % 3), seed);
	rig.options.admin_timeout_ns = 10 * NS_PER_SEC;
	rig_io_init(&late, &rig, FAKE_PAGE);
	make_sick();
	prepare_trouble();
	const uint64_t start_ns = rig_now(&rig), deadline_ns = load_random(&load, 4) ? load_random(&load, 3 * NS_PER_SEC) : 0;
	rig_stop(&rig, deadline_ns);
	const uint64_t took_ns = rig_now(&rig) - start_ns;
	if (took_ns > deadline_ns + 5 * NS_PER_MS)
		fail_msg("a stop in %llu us took %llu us", (unsigned long long)(deadline_ns / NS_PER_US),
			(unsigned long long)(took_ns / NS_PER_US));
	assert_int_equal(load.running, 0);
	load_verify(&load);
	rig_run(&rig, load.reactors - 1, submit_late, &late);
	rig_stop(&rig, 0); /* once more does no harm */
	rig_run(&rig, load.reactors - 1, submit_and_leave, &late); /* nor does who comes even later */
	rig_detach(&rig);
	assert_int_equal(late.answers, 1);
	rig_io_fini(&late);
	round_end();
}

static void test_stops_at_any_moment_keep_their_deadline(void **state) { rounds(200, stop_round); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_storms_on_one_reactor),
		cmocka_unit_test(test_storms_on_three_reactors),
		cmocka_unit_test(test_vanishing_at_any_moment),
		cmocka_unit_test(test_vanishing_is_noticed_soon),
		cmocka_unit_test(test_stops_at_any_moment_keep_their_deadline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
