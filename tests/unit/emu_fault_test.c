/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a drive that is pulled, vanishes, fails or is reset touches no host memory afterwards, and comes back whole.
 * Method: a medium that holds I/O back while things happen.
 */
#include "emu_bench.h"

#include <errno.h>

enum { BLOCK = 4096, SETTLE_NS = 100000 };

static const struct emu_options none;

/* ---- pull ---- */

MAY_WAIT static void pull(struct bench *bench)
{
	struct nvme_transport *other;
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 3, 1, 0x33, 0), 0);
	assert_int_equal(emu_plug(bench->emu, &other), -EBUSY);
	assert_false(nvme_transport_gone(bench->transport));
	assert_true(bench->transport->ops->alive(bench->transport));
	bench_pull(bench);
	assert_false(emu_plugged(bench->emu));
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), NVME_CSTS_GONE);
	assert_true(nvme_transport_gone(bench->transport));
	assert_false(bench->transport->ops->alive(bench->transport));
	bench_write32(bench, NVME_REG_CC, 0);
	bench_write32(bench, nvme_sq_doorbell(1, 0), 3);
	bench_pull(bench);
	struct nvme_transport *old = bench->transport;
	bench_plug(bench);
	bench_bring_up(bench);
	old->ops->release(old);
	assert_int_equal(bench_read(bench, 3), 0x33);
}

static void test_a_pulled_drive_reads_all_ones_and_keeps_its_content(void **state) { bench_test(&none, pull); }

MAY_WAIT static void first_access_writes(struct bench *bench)
{
	bench_bring_up(bench);
	bench_pull(bench);
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	assert_true(nvme_transport_gone(bench->transport));
}

static void test_a_doorbell_write_finds_the_drive_gone(void **state) { bench_test(&none, first_access_writes); }

struct pulling {
	struct fiber_start_remote start;
	struct bench *bench;
	bool over;
};

MAY_WAIT static void pull_fiber(void *arg)
{
	struct pulling *pulling = arg;
	emu_pull(pulling->bench->emu);
	pulling->over = true;
}

MAY_WAIT static void start_pull(struct bench *bench, struct pulling *pulling)
{
	*pulling = (struct pulling){.bench = bench, .start.start = {.fn = pull_fiber, .arg = pulling, .name = "pull"}};
	fiber_start_on(bench->model, &pulling->start);
	fiber_sleep(SETTLE_NS);
}

MAY_WAIT static void busy_pull(struct bench *bench)
{
	struct pulling pulling;
	struct nvme_completion completion;
	struct nvme_transport *other;
	bench_bring_up(bench);
	bench->hold = true;
	bench_submit(bench, 1, bench_rw(NVME_CMD_WRITE, 1, 1, bench_page(bench, 0)));
	bench_submit(bench, 1, bench_rw(NVME_CMD_READ, 2, 1, bench_page(bench, 1)));
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	fiber_sleep(SETTLE_NS);
	start_pull(bench, &pulling);
	assert_false(pulling.over);
	assert_true(emu_plugged(bench->emu));
	assert_false(emu_idle(bench->emu));
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), 1);
	assert_int_equal(emu_plug(bench->emu, &other), -EBUSY);
	memset(bench_page(bench, 0), 0x44, BLOCK);
	bench_unhold(bench);
	fiber_sleep(SETTLE_NS);
	assert_true(pulling.over);
	assert_true(emu_idle(bench->emu));
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), NVME_CSTS_GONE);
	assert_false(bench_poll(bench, 1, &completion));
	assert_int_equal(bench->reads + bench->writes + bench->flushes, 3);
}

static void test_pulling_waits_for_io_on_host_memory(void **state) { bench_test(&none, busy_pull); }

MAY_WAIT static void busy_pull_of_flush(struct bench *bench)
{
	struct pulling pulling;
	bench_bring_up(bench);
	bench->hold = true;
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	fiber_sleep(SETTLE_NS);
	start_pull(bench, &pulling);
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), NVME_CSTS_GONE);
	assert_false(pulling.over);
	bench_release(bench);
	bench_unhold(bench);
	fiber_sleep(SETTLE_NS);
	assert_true(pulling.over);
}

static void test_the_registers_go_before_a_long_flush_is_over(void **state) { bench_test(&none, busy_pull_of_flush); }

MAY_WAIT static void release_without_pull(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 3, 1, 0x33, 0), 0);
	bench_disable(bench);
	bench_release(bench);
	assert_false(emu_plugged(bench->emu));
	bench_plug(bench);
	assert_true(emu_plugged(bench->emu));
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 3), 0x33);
	bench_release(bench);
	fiber_sleep(SETTLE_NS);
	assert_false(emu_plugged(bench->emu));
	bench_pull(bench);
}

static void test_a_released_drive_can_be_plugged_in_again(void **state) { bench_test(&none, release_without_pull); }

/* ---- reset ---- */

MAY_WAIT static void busy_reset(struct bench *bench)
{
	struct nvme_completion completion;
	bench_bring_up(bench);
	bench->hold = true;
	bench_submit(bench, 1, bench_rw(NVME_CMD_READ, 2, 1, bench_page(bench, 1)));
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	fiber_sleep(SETTLE_NS);
	bench_write32(bench, NVME_REG_CC, 0);
	assert_false(bench_wait_status(bench, 1, 0, NS_PER_MS));
	bench_unhold(bench);
	assert_true(bench_wait_status(bench, 1, 0, NS_PER_MS));
	assert_false(bench_poll(bench, 1, &completion));
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 2), 0);
}

static void test_reset_waits_for_io_on_host_memory(void **state)
{
	bench_test(&none, busy_reset);
	bench_test(&(struct emu_options){.cache_bytes = KIB(64)}, busy_reset);
}

MAY_WAIT static void reset_keeps_cache(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 7, 1, 0x77, 0), 0);
	bench_disable(bench);
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 7), 0x77);
	assert_int_equal(bench->medium[7 * BLOCK], 0);
}

static void test_a_reset_keeps_the_cache(void **state)
{
	bench_test(&(struct emu_options){.cache_bytes = KIB(64)}, reset_keeps_cache);
}

/* Resets, pulls and power cuts at any moment, among many commands. */
MAY_WAIT static void interrupted(struct bench *bench)
{
	uint64_t random = bench->random;
	for (unsigned round = 0; round < 60; round++) {
		bench_bring_up(bench);
		bench->mixed = true;
		for (unsigned i = 0; i < 40; i++) {
			const uint8_t opcode = (uint8_t)(emu_random(&random) >> 32) % 4;
			struct nvme_command command = bench_rw(opcode == 3 ? NVME_CMD_WRITE_ZEROES : opcode,
				(emu_random(&random) >> 32) % 64, 1 + (emu_random(&random) >> 32) % 2, bench_page(bench, i));
			command.prp2 = le64_set(bench_address(bench_page(bench, i + 1)));
			bench_submit(bench, 1, command);
		}
		bench->hold = (emu_random(&random) >> 32) % 4 == 0;
		fiber_sleep((emu_random(&random) >> 32) % 30000);
		if (bench->hold)
			bench_unhold(bench);
		switch ((emu_random(&random) >> 32) % 3) {
		case 0:
			bench_disable(bench);
			break;
		case 1:
			bench_power_cut(bench);
			break;
		default:
			bench_pull(bench);
			bench_release(bench);
			bench_plug(bench);
		}
	}
}

static void test_interruptions_at_any_moment(void **state)
{
	static struct bench bench;
	const struct emu_options variants[] = {
		{0},
		{.cache_bytes = KIB(32), .cut = EMU_CUT_RANDOM},
		{.cache_bytes = KIB(64), .cut = EMU_CUT_NONE, .latency_ns = 5000},
		{.cache_bytes = KIB(128), .lba_bytes = 512},
	};
	for (uint64_t seed = 1; seed <= 8; seed++) {
		bench_init(&bench, &variants[seed % ARRAY_SIZE(variants)], seed);
		bench_run(&bench, interrupted);
		bench_fini(&bench);
	}
}

/* ---- rules ---- */

MAY_WAIT static void statuses(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 0), 0);
	assert_int_equal(bench_write(bench, 9, 1, 1, 0), 0);
	assert_int_equal(bench_write(bench, 10, 1, 1, 0), 0);
	assert_int_equal(bench_write(bench, 10, 1, 1, 0), 0x280);
	assert_int_equal(bench_write(bench, 14, 2, 1, 0), 0x280);
	assert_int_equal(bench_write(bench, 15, 1, 1, 0), 0);
	assert_int_equal(bench_write(bench, 10, 1, 1, 0), 0);
	assert_int_equal(emu_get_rule(bench->emu, 0)->hits, 2);
}

static void test_a_rule_hits_after_skip_for_count_in_its_range(void **state)
{
	bench_test(&(struct emu_options){.rule_count = 1, .rules = {{.opcode = NVME_CMD_WRITE, .action = EMU_RULE_STATUS,
		.status = 0x280, .first_lba = 10, .blocks = 5, .skip = 1, .count = 2}}}, statuses);
}

MAY_WAIT static int add_rules(void *arg)
{
	struct emu *emu = ((struct bench *)arg)->emu;
	const struct emu_rule rule = {.opcode = -1, .action = EMU_RULE_STATUS, .status = 6, .ppm = 300000};
	assert_int_equal(emu_add_rule(emu, &rule), 0);
	for (int i = 1; i < EMU_RULES_MAX; i++)
		assert_int_equal(emu_add_rule(emu, &(struct emu_rule){.opcode = 0xff, .action = EMU_RULE_STUCK}), i);
	assert_int_equal(emu_add_rule(emu, &rule), -ENOSPC);
	return 0;
}

MAY_WAIT static int clear_rules(void *arg)
{
	emu_clear_rules(((struct bench *)arg)->emu);
	return 0;
}

MAY_WAIT static void chances(struct bench *bench)
{
	unsigned failed = 0;
	bench_bring_up(bench);
	bench_on_model(bench, add_rules);
	for (unsigned i = 0; i < 200; i++)
		failed += bench_flush(bench) != 0;
	assert_true(failed > 30 && failed < 90);
	assert_int_equal(emu_get_rule(bench->emu, 0)->hits, failed);
	bench_on_model(bench, clear_rules);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(bench_flush(bench), 0);
}

static void test_rules_by_chance_come_and_go_at_run_time(void **state) { bench_test(&none, chances); }

MAY_WAIT static void delay(struct bench *bench)
{
	struct nvme_completion completion;
	bench_bring_up(bench);
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	assert_false(bench_wait(bench, 1, &completion, 4900000));
	assert_true(bench_wait(bench, 1, &completion, 200000));
}

static void test_latency_and_delays_add_up(void **state)
{
	bench_test(&(struct emu_options){.latency_ns = 2 * NS_PER_MS, .rule_count = 1,
		.rules = {{.opcode = NVME_CMD_FLUSH, .action = EMU_RULE_DELAY, .delay_ns = 3 * NS_PER_MS}}}, delay);
}

MAY_WAIT static void fatal(struct bench *bench)
{
	struct nvme_completion completion;
	bench_bring_up(bench);
	bench->hold = true;
	bench_submit(bench, 1, bench_rw(NVME_CMD_READ, 0, 1, bench_page(bench, 0)));
	fiber_sleep(SETTLE_NS);
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	assert_true(bench_wait_status(bench, 2, 2, NS_PER_MS));
	bench_unhold(bench);
	assert_false(bench_wait(bench, 1, &completion, NS_PER_MS));
	bench_disable(bench);
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), 0);
	bench_bring_up(bench);
	assert_int_equal(bench_flush(bench), 0);
}

static void test_a_fatal_controller_recovers_by_reset(void **state)
{
	bench_test(&(struct emu_options){.rule_count = 1,
		.rules = {{.opcode = NVME_CMD_FLUSH, .action = EMU_RULE_FATAL, .count = 1}}}, fatal);
}

MAY_WAIT static void not_ready(struct bench *bench)
{
	bench_enable(bench, 16);
	bench_disable(bench);
	for (unsigned i = 0; i < 2; i++) {
		bench_start_enabling(bench, 16);
		assert_false(bench_wait_status(bench, 1, 1, 50 * NS_PER_MS));
		bench_write32(bench, NVME_REG_CC, 0);
		fiber_sleep(SETTLE_NS);
	}
	bench_bring_up(bench);
	assert_int_equal(bench_flush(bench), 0);
}

static void test_a_controller_that_does_not_become_ready(void **state)
{
	bench_test(&(struct emu_options){.rule_count = 1,
		.rules = {{.opcode = -1, .action = EMU_RULE_NOT_READY, .skip = 1, .count = 2}}}, not_ready);
}

MAY_WAIT static void vanish(struct bench *bench)
{
	struct nvme_completion completion;
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 1, 1, 0x11, 0), 0);
	bench_submit(bench, 1, bench_rw(NVME_CMD_READ, 1, 1, bench_page(bench, 0)));
	const uint16_t flush = bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	fiber_sleep(SETTLE_NS);
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), NVME_CSTS_GONE);
	while (bench_poll(bench, 1, &completion))
		assert_int_not_equal(le16_get(completion.cid), flush);
	assert_false(emu_plugged(bench->emu));
	bench_release(bench);
	bench_plug(bench);
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 1), 0x11);
}

static void test_a_drive_that_vanishes_at_a_command(void **state)
{
	const struct emu_rule flush = {.opcode = NVME_CMD_FLUSH, .action = EMU_RULE_VANISH, .count = 1};
	bench_test(&(struct emu_options){.rule_count = 1, .rules = {flush}}, vanish);
	bench_test(&(struct emu_options){.rule_count = 1, .rules = {flush}, .cache_bytes = KIB(64), .cut = EMU_CUT_NONE}, vanish);
}

MAY_WAIT static void vanish_admin(struct bench *bench)
{
	bench_enable(bench, 16);
	bench_submit(bench, 0, bench_command(NVME_ADMIN_IDENTIFY, 1));
	fiber_sleep(SETTLE_NS);
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), NVME_CSTS_GONE);
}

static void test_a_drive_that_vanishes_at_an_admin_command(void **state)
{
	bench_test(&(struct emu_options){.rule_count = 1,
		.rules = {{.admin = true, .opcode = NVME_ADMIN_IDENTIFY, .action = EMU_RULE_VANISH}}}, vanish_admin);
}

MAY_WAIT static void all_stuck(struct bench *bench)
{
	struct nvme_completion completion;
	uint32_t dw0;
	bench_bring_up(bench);
	bench_create_queue(bench, 2, 1024);
	for (unsigned i = 0; i < 1000; i++)
		bench_submit(bench, 2, bench_command(NVME_CMD_FLUSH, 1));
	fiber_sleep(SETTLE_NS);
	assert_false(bench_poll(bench, 2, &completion));
	/* More than the model has commands: the rest waits in the queue, and Abort still gets through. */
	const uint16_t first = (uint16_t)(bench->next_cid - 1000);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_ABORT, (uint32_t)first << 16 | 2, 0, &dw0), 0);
	assert_int_equal(dw0, 0);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_SQ, 2, 0, NULL), 0);
	unsigned count = 0;
	while (bench_poll(bench, 2, &completion))
		count++;
	assert_int_equal(count, EMU_COMMANDS + 1);
}

static void test_abort_and_deletion_work_when_everything_is_stuck(void **state)
{
	bench_test(&(struct emu_options){.rule_count = 1,
		.rules = {{.opcode = NVME_CMD_FLUSH, .action = EMU_RULE_STUCK}}}, all_stuck);
}

/* ---- ends ---- */

MAY_WAIT static void leave_work(struct bench *bench)
{
	bench_bring_up(bench);
	bench->hold = true;
	bench_write(bench, 1, 1, 1, 0);
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	bench_submit(bench, 1, bench_rw(NVME_CMD_READ, 5, 1, bench_page(bench, 0)));
	fiber_sleep(SETTLE_NS);
}

static void test_an_abandoned_drive_is_destroyed_as_it_is(void **state)
{
	static struct bench bench;
	const struct emu_options options = {.cache_bytes = KIB(64)};
	bench_init(&bench, &options, 1);
	bench_run(&bench, leave_work);
	reactor_group_sim_abandon(bench.group);
	emu_destroy(bench.emu);
	bench.transport->ops->release(bench.transport);
	bench_free(&bench);
}

static int create_bad(const struct emu_options *options, uint64_t size)
{
	struct emu *emu;
	const struct emu_backing backing = {.size_bytes = size};
	return emu_create("emu:bad", options, &backing, reactor_self(), &emu);
}

MAY_WAIT static void bad_options(struct bench *bench)
{
	static const struct emu_options bad[] = {{.lba_bytes = 1024}, {.tear_bytes = 100}, {.mdts = 16}, {.queues_max = 257},
		{.depth_max = 1}, {.namespaces = 65}};
	static const struct emu_options parts = {.namespaces = 3};
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(create_bad(&bad[i], MIB(1)), -EINVAL);
	assert_int_equal(create_bad(&parts, 8192), -EINVAL);
	assert_int_equal(create_bad(&none, 100), -EINVAL);
}

static void test_bad_options_are_refused(void **state) { bench_test(&none, bad_options); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_pulled_drive_reads_all_ones_and_keeps_its_content),
		cmocka_unit_test(test_a_doorbell_write_finds_the_drive_gone),
		cmocka_unit_test(test_pulling_waits_for_io_on_host_memory),
		cmocka_unit_test(test_the_registers_go_before_a_long_flush_is_over),
		cmocka_unit_test(test_a_released_drive_can_be_plugged_in_again),
		cmocka_unit_test(test_reset_waits_for_io_on_host_memory),
		cmocka_unit_test(test_a_reset_keeps_the_cache),
		cmocka_unit_test(test_interruptions_at_any_moment),
		cmocka_unit_test(test_a_rule_hits_after_skip_for_count_in_its_range),
		cmocka_unit_test(test_rules_by_chance_come_and_go_at_run_time),
		cmocka_unit_test(test_latency_and_delays_add_up),
		cmocka_unit_test(test_a_fatal_controller_recovers_by_reset),
		cmocka_unit_test(test_a_controller_that_does_not_become_ready),
		cmocka_unit_test(test_a_drive_that_vanishes_at_a_command),
		cmocka_unit_test(test_a_drive_that_vanishes_at_an_admin_command),
		cmocka_unit_test(test_abort_and_deletion_work_when_everything_is_stuck),
		cmocka_unit_test(test_an_abandoned_drive_is_destroyed_as_it_is),
		cmocka_unit_test(test_bad_options_are_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
