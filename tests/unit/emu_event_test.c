/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: log pages, asynchronous events and Abort of the emulated controller.
 * Method: commands written by hand; see emu_bench.h.
 */
#include "emu_bench.h"

#include <errno.h>
#include <unistd.h>

enum { SETTLE_NS = 100000, LOG = 8, RETAIN = 1 << 15 };

static const struct emu_options none;
static const struct emu_options three = {.namespaces = 3};

MAY_WAIT static uint16_t log_read_at(struct bench *bench, uint32_t page, uint32_t nsid, uint32_t length, uint64_t offset)
{
	struct nvme_command command = bench_command(NVME_ADMIN_GET_LOG_PAGE, nsid);
	const uint32_t dwords = length / 4 - 1;
	memset(bench_page(bench, LOG), 0xee, 4 * EMU_PAGE);
	command.cdw10 = le32_set(dwords << 16 | page);
	command.cdw11 = le32_set(dwords >> 16);
	command.cdw12 = le32_set((uint32_t)offset);
	command.cdw13 = le32_set((uint32_t)(offset >> 32));
	command.prp1 = le64_set(bench_address(bench_page(bench, LOG)));
	command.prp2 = le64_set(bench_address(bench_page(bench, LOG + 1)));
	return bench_do(bench, 0, command, NULL);
}

MAY_WAIT static uint16_t log_read(struct bench *bench, uint32_t page, uint32_t length)
{
	return log_read_at(bench, page, EMU_NSID_ALL, length, 0);
}

static uint64_t counter(const uint8_t field[16])
{
	le64_t value;
	memcpy(&value, field, sizeof(value));
	return le64_get(value);
}

/* ---- logs ---- */

MAY_WAIT static void smart(struct bench *bench)
{
	const struct nvme_log_smart *log = (const struct nvme_log_smart *)bench_page(bench, LOG);
	bench_bring_up(bench);
	for (unsigned i = 0; i < 130; i++)
		assert_int_equal(bench_write(bench, i, 2, 1, 0), 0);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(bench_read(bench, i), 1);
	bench->error_op = EMU_READ;
	bench->error = -EILSEQ;
	bench_do(bench, 1, bench_rw(NVME_CMD_READ, 0, 1, bench_page(bench, 0)), NULL);
	assert_int_equal(log_read(bench, NVME_LOG_SMART, 512), 0);
	assert_int_equal(log->critical_warning, 0);
	assert_int_equal(log->temperature[0] | log->temperature[1] << 8, 313);
	assert_int_equal(counter(log->host_writes), 130);
	assert_int_equal(counter(log->host_reads), 6);
	assert_int_equal(counter(log->data_units_written), 3);
	assert_int_equal(counter(log->data_units_read), 1);
	assert_int_equal(counter(log->power_cycles), 1);
	assert_int_equal(counter(log->unsafe_shutdowns), 0);
	assert_int_equal(counter(log->media_errors), 1);
	assert_int_equal(counter(log->error_entries), 1);
	bench_pull(bench);
	bench_release(bench);
	bench_plug(bench);
	bench_enable(bench, 16);
	assert_int_equal(log_read(bench, NVME_LOG_SMART, 512), 0);
	assert_int_equal(counter(log->power_cycles), 2);
	assert_int_equal(counter(log->unsafe_shutdowns), 1);
}

static void test_smart_counts(void **state) { bench_test(&none, smart); }

MAY_WAIT static void errors(struct bench *bench)
{
	const struct nvme_log_error *log = (const struct nvme_log_error *)bench_page(bench, LOG);
	bench_bring_up(bench);
	for (unsigned i = 0; i < 20; i++)
		bench_do(bench, 1, bench_rw(NVME_CMD_READ, 1000000 + i, 1, bench_page(bench, 0)), NULL);
	assert_int_equal(log_read(bench, NVME_LOG_ERROR, 17 * 64), 0);
	assert_int_equal(le64_get(log[0].count), 20);
	assert_int_equal(le64_get(log[15].count), 5);
	assert_int_equal(le64_get(log[16].count), 0);
	assert_int_equal(le16_get(log[0].sqid), 1);
	assert_int_equal(le64_get(log[0].lba), 1000019);
	assert_int_equal(le32_get(log[0].nsid), 1);
	assert_int_equal(le16_get(log[0].status) >> 1 & 0x7ff, NVME_SC_LBA_OUT_OF_RANGE);
}

static void test_the_error_log_has_the_newest_first(void **state) { bench_test(&none, errors); }

MAY_WAIT static void log_errors(struct bench *bench)
{
	bench_enable(bench, 16);
	assert_int_equal(log_read(bench, 0x70, 512), NVME_SC_INVALID_LOG_PAGE);
	assert_int_equal(log_read_at(bench, NVME_LOG_SMART, 1, 512, 0), NVME_SC_INVALID_FIELD);
	assert_int_equal(log_read_at(bench, NVME_LOG_SMART, 0, 512, 2), NVME_SC_INVALID_FIELD);
	assert_int_equal(log_read_at(bench, NVME_LOG_SMART, 0, 512, 516), NVME_SC_INVALID_FIELD);
	assert_int_equal(log_read_at(bench, NVME_LOG_SMART, 0, 512, UINT64_MAX - 3), NVME_SC_INVALID_FIELD);
	assert_int_equal(log_read_at(bench, NVME_LOG_SMART, 0, 2 << 20, 0), NVME_SC_INVALID_FIELD);
	assert_int_equal(log_read_at(bench, NVME_LOG_SMART, 0, 8192, 4), 0);
	assert_int_equal(bench_page(bench, LOG)[508], 0);
	assert_int_equal(bench_page(bench, LOG)[8191], 0);
	assert_int_equal(bench_page(bench, LOG)[8192], 0xee);
	assert_int_equal(log_read(bench, NVME_LOG_SMART, 4), 0);
	assert_int_equal(bench_page(bench, LOG)[4], 0xee);
}

static void test_log_pages_are_checked_and_zero_filled(void **state) { bench_test(&none, log_errors); }

/* ---- events ---- */

static uint16_t event_request(struct bench *bench)
{
	return bench_submit(bench, 0, bench_command(NVME_ADMIN_ASYNC_EVENT, 0));
}

MAY_WAIT static bool event_wait(struct bench *bench, uint32_t *dw0)
{
	struct nvme_completion completion;
	if (!bench_wait(bench, 0, &completion, SETTLE_NS))
		return false;
	assert_int_equal(bench_status(&completion), 0);
	*dw0 = le32_get(completion.dw0);
	return true;
}

MAY_WAIT static void events_on(struct bench *bench, uint32_t config)
{
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_ASYNC_EVENTS, config, NULL), 0);
}

MAY_WAIT static int detach_2(void *arg) { return emu_ns_attach(((struct bench *)arg)->emu, 2, false); }
MAY_WAIT static int resize_3(void *arg) { return emu_ns_resize(((struct bench *)arg)->emu, 3, 100); }
MAY_WAIT static int bad_changes(void *arg)
{
	struct emu *emu = ((struct bench *)arg)->emu;
	return emu_ns_resize(emu, 3, 0) == -EINVAL && emu_ns_resize(emu, 3, 1000000) == -EINVAL &&
		emu_ns_attach(emu, 4, true) == -EINVAL && emu_ns_attach(emu, 1, true) == 0;
}

MAY_WAIT static void ns_events(struct bench *bench)
{
	const le32_t *list = (const le32_t *)bench_page(bench, LOG);
	const uint32_t notice = NVME_LOG_CHANGED_NS << 16 | NVME_NOTICE_NS_CHANGED << 8 | NVME_EVENT_NOTICE;
	uint32_t dw0;
	bench_enable(bench, 16);
	events_on(bench, NVME_EVENTS_NS_ATTRIBUTE);
	assert_true(bench_on_model(bench, bad_changes));
	event_request(bench);
	event_request(bench);
	assert_false(event_wait(bench, &dw0));
	bench_on_model(bench, detach_2);
	assert_true(event_wait(bench, &dw0));
	assert_int_equal(dw0, notice);
	bench_on_model(bench, resize_3);
	assert_false(event_wait(bench, &dw0)); /* masked */
	assert_int_equal(log_read(bench, NVME_LOG_CHANGED_NS | RETAIN, 4096), 0);
	assert_int_equal(le32_get(list[0]), 2);
	assert_int_equal(le32_get(list[1]), 3);
	assert_false(event_wait(bench, &dw0));
	assert_int_equal(log_read(bench, NVME_LOG_CHANGED_NS, 4096), 0);
	assert_int_equal(le32_get(list[1]), 3);
	assert_int_equal(le32_get(list[2]), 0);
	assert_false(event_wait(bench, &dw0)); /* the log has told it */
	assert_int_equal(log_read(bench, NVME_LOG_CHANGED_NS, 4096), 0);
	assert_int_equal(le32_get(list[0]), 0);
}

static void test_changed_namespaces_are_told_and_listed(void **state) { bench_test(&three, ns_events); }

MAY_WAIT static int unhealthy(void *arg)
{
	emu_set_health(((struct bench *)arg)->emu, 1 << 2);
	return 0;
}

MAY_WAIT static void health_events(struct bench *bench)
{
	uint32_t dw0;
	bench_enable(bench, 16);
	bench_on_model(bench, unhealthy); /* not wanted yet */
	event_request(bench);
	assert_false(event_wait(bench, &dw0));
	events_on(bench, NVME_EVENTS_SMART);
	bench_on_model(bench, unhealthy);
	assert_true(event_wait(bench, &dw0));
	assert_int_equal(dw0, NVME_LOG_SMART << 16 | NVME_EVENT_SMART);
	bench_on_model(bench, unhealthy);
	event_request(bench);
	assert_false(event_wait(bench, &dw0));
	/* Kept until the log is read. */
	const uint16_t reading = bench->next_cid;
	assert_int_equal(log_read(bench, NVME_LOG_SMART, 512), 0);
	assert_int_equal(bench->next_cid, reading + 1);
	assert_int_equal(bench_page(bench, LOG)[0], 1 << 2);
	assert_true(event_wait(bench, &dw0));
}

static void test_health_events(void **state) { bench_test(&none, health_events); }

MAY_WAIT static void event_limit(struct bench *bench)
{
	struct nvme_completion completion;
	uint32_t dw0;
	bench_bring_up(bench);
	for (unsigned i = 0; i < EMU_EVENTS_MAX; i++)
		event_request(bench);
	assert_false(event_wait(bench, &dw0));
	event_request(bench);
	assert_true(bench_wait(bench, 0, &completion, SETTLE_NS));
	assert_int_equal(bench_status(&completion), NVME_SC_AER_LIMIT_EXCEEDED);
	bench_write32(bench, nvme_sq_doorbell(1, 0), 64);
	assert_true(event_wait(bench, &dw0));
	assert_int_equal(dw0, NVME_LOG_ERROR << 16 | 1 << 8 | NVME_EVENT_ERROR);
	bench_write32(bench, nvme_sq_doorbell(1, 0), 0);
	assert_int_equal(bench_write(bench, 0, 1, 1, 0), 0);
	/* A reset ends them silently. */
	bench_disable(bench);
	bench_bring_up(bench);
	assert_false(event_wait(bench, &dw0));
	event_request(bench);
	assert_false(event_wait(bench, &dw0));
}

static void test_event_requests_are_limited_and_bad_doorbells_are_told(void **state) { bench_test(&none, event_limit); }

/* ---- abort ---- */

MAY_WAIT static uint32_t abort_command(struct bench *bench, uint16_t queue, uint16_t cid)
{
	uint32_t dw0;
	assert_int_equal(bench_admin(bench, NVME_ADMIN_ABORT, (uint32_t)cid << 16 | queue, 0, &dw0), 0);
	return dw0;
}

MAY_WAIT static void aborts(struct bench *bench)
{
	struct nvme_completion completion;
	bench_bring_up(bench);
	const uint16_t stuck = bench_submit(bench, 1, bench_rw(NVME_CMD_READ, 0, 1, bench_page(bench, 0)));
	const uint16_t delayed = bench_submit(bench, 1, bench_rw(NVME_CMD_WRITE, 0, 1, bench_page(bench, 0)));
	const uint16_t hard = bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	assert_false(bench_wait(bench, 1, &completion, SETTLE_NS));
	assert_int_equal(abort_command(bench, 1, stuck), 0);
	assert_true(bench_poll(bench, 1, &completion));
	assert_int_equal(le16_get(completion.cid), stuck);
	assert_int_equal(bench_status(&completion), NVME_SC_ABORTED_BY_REQUEST);
	assert_int_equal(abort_command(bench, 1, stuck), 1);
	assert_int_equal(abort_command(bench, 1, delayed), 0);
	assert_true(bench_poll(bench, 1, &completion));
	assert_int_equal(le16_get(completion.cid), delayed);
	assert_int_equal(abort_command(bench, 1, hard), 1);
	assert_int_equal(abort_command(bench, 1, 999), 1);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_ABORT, 7, 0, NULL), NVME_SC_INVALID_FIELD);
	assert_false(bench_wait(bench, 1, &completion, 40 * NS_PER_MS));
	assert_int_equal(bench->writes, 0);
	bench_disable(bench);
	bench_bring_up(bench);
	assert_int_equal(bench_flush(bench), 0);
}

static void test_abort_takes_back_what_is_stuck_or_delayed(void **state)
{
	bench_test(&(struct emu_options){.rule_count = 3, .rules = {
		{.opcode = NVME_CMD_READ, .action = EMU_RULE_STUCK, .count = 1},
		{.opcode = NVME_CMD_WRITE, .action = EMU_RULE_DELAY, .delay_ns = 20 * NS_PER_MS, .count = 1},
		{.opcode = NVME_CMD_FLUSH, .action = EMU_RULE_STUCK_HARD, .count = 1},
	}}, aborts);
}

MAY_WAIT static void abort_others(struct bench *bench)
{
	struct nvme_completion completion;
	bench_bring_up(bench);
	const uint16_t event = event_request(bench);
	uint32_t dw0;
	assert_false(event_wait(bench, &dw0));
	struct nvme_command command = bench_command(NVME_ADMIN_ABORT, 0);
	command.cdw10 = le32_set((uint32_t)event << 16);
	const uint16_t abort = bench_submit(bench, 0, command);
	assert_true(bench_wait(bench, 0, &completion, SETTLE_NS));
	assert_int_equal(le16_get(completion.cid), event);
	assert_int_equal(bench_status(&completion), NVME_SC_ABORTED_BY_REQUEST);
	assert_true(bench_wait(bench, 0, &completion, SETTLE_NS));
	assert_int_equal(le16_get(completion.cid), abort);
	assert_int_equal(le32_get(completion.dw0), 0);
	bench->hold = true;
	const uint16_t running = bench_submit(bench, 1, bench_rw(NVME_CMD_READ, 0, 1, bench_page(bench, 0)));
	fiber_sleep(SETTLE_NS);
	assert_int_equal(abort_command(bench, 1, running), 1);
	bench_unhold(bench);
	assert_true(bench_wait(bench, 1, &completion, NS_PER_SEC));
	assert_int_equal(bench_status(&completion), 0);
}

static void test_abort_of_events_and_of_running_commands(void **state) { bench_test(&none, abort_others); }

/* ---- interrupts, the button ---- */

static bool readable(int fd)
{
	uint64_t count;
	return read(fd, &count, sizeof(count)) == sizeof(count);
}

MAY_WAIT static void interrupts(struct bench *bench)
{
	const struct nvme_transport_ops *ops = bench->transport->ops;
	bench_bring_up(bench);
	const int fd = ops->interrupt_fd(bench->transport, 1);
	assert_true(fd >= 0);
	assert_int_equal(ops->interrupt_fd(bench->transport, 1), fd);
	assert_true(ops->interrupt_fd(bench->transport, 0) != fd);
	assert_int_equal(ops->interrupt_fd(bench->transport, 65), -1);
	assert_int_equal(bench_flush(bench), 0);
	assert_false(readable(fd));
	ops->arm(bench->transport, 1);
	assert_false(readable(fd));
	assert_int_equal(bench_flush(bench), 0);
	assert_true(readable(fd));
	assert_int_equal(bench_flush(bench), 0);
	assert_false(readable(fd));
	ops->arm(bench->transport, 999);
}

static void test_an_interrupt_comes_once_after_arming(void **state) { bench_test(&none, interrupts); }

MAY_WAIT static int press(void *arg)
{
	emu_request(((struct bench *)arg)->emu);
	return 0;
}

MAY_WAIT static void button(struct bench *bench)
{
	const int fd = bench->transport->ops->request_fd(bench->transport);
	assert_false(readable(fd));
	bench_on_model(bench, press);
	assert_true(readable(fd));
	bench_pull(bench);
	bench_on_model(bench, press);
}

static void test_the_request_button(void **state) { bench_test(&none, button); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_smart_counts),
		cmocka_unit_test(test_the_error_log_has_the_newest_first),
		cmocka_unit_test(test_log_pages_are_checked_and_zero_filled),
		cmocka_unit_test(test_changed_namespaces_are_told_and_listed),
		cmocka_unit_test(test_health_events),
		cmocka_unit_test(test_event_requests_are_limited_and_bad_doorbells_are_told),
		cmocka_unit_test(test_abort_takes_back_what_is_stuck_or_delayed),
		cmocka_unit_test(test_abort_of_events_and_of_running_commands),
		cmocka_unit_test(test_an_interrupt_comes_once_after_arming),
		cmocka_unit_test(test_the_request_button),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
