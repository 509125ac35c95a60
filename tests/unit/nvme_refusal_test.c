/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a controller that does not start is refused with the right errno and one line that names it and the cause,
 * whatever it fails at; nothing is left behind (no fiber, no timer, no memory, no transport), and the next attach
 * works. Method: the scripted controller, one fault per attach; then every fault at every admin command, and every
 * allocation.
 */
#include <errno.h>
#include <stdio.h>

#include "nvme_rig.h"

static struct rig rig;

static int setup(void **state)
{
	rig_init(&rig, 2, 23);
	return 0;
}

static int teardown(void **state)
{
	rig_fini(&rig);
	return 0;
}

/* ---- memory that runs out ---- */

static struct {
	bool armed;
	unsigned left; /* allocations that still work */
	bool failed;
} scarce;

static bool allocation_fails(void)
{
	if (!scarce.armed)
		return false;
	if (scarce.left > 0) {
		scarce.left--;
		return false;
	}
	scarce.failed = true;
	scarce.armed = false; /* one at a time */
	return true;
}

void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size) { return allocation_fails() ? NULL : __real_calloc(count, size); }
void *__real_dma_alloc(size_t size, size_t align);
void *__wrap_dma_alloc(size_t size, size_t align);
void *__wrap_dma_alloc(size_t size, size_t align) { return allocation_fails() ? NULL : __real_dma_alloc(size, align); }
void *__real_dma_zalloc(size_t size, size_t align);
void *__wrap_dma_zalloc(size_t size, size_t align);
void *__wrap_dma_zalloc(size_t size, size_t align) { return allocation_fails() ? NULL : __real_dma_zalloc(size, align); }

/* ---- one fault ---- */

static void expect_line(void)
{
	assert_int_equal(strncmp(rig.message, "fake:0: ", 8), 0);
	assert_true(strlen(rig.message) > 12);
	assert_null(strchr(rig.message, '\n'));
	assert_null(strstr(rig.message, "Success"));
}

static void expect_refusal(int err, const char *part)
{
	assert_int_equal(rig_attach(&rig), err);
	expect_line();
	if (!strstr(rig.message, part))
		fail_msg("\"%s\" does not say \"%s\"", rig.message, part);
	assert_int_equal(rig.fake.releases, 1);
	/* It does not go on by itself. */
	assert_false(FIELD_GET(CC_EN, fake_get(&rig.fake, NVME_REG_CC)) && !rig.fake.dma_off && !rig.fake.gone);
	rig_renew(&rig);
	assert_int_equal(rig_attach(&rig), 0);
	rig_detach(&rig);
	rig_renew(&rig);
}

static void set_cap(uint64_t clear, uint64_t set) { rig.fake.cap = (rig.fake.cap & ~clear) | set; }

static void test_dead_registers(void **state)
{
	rig.fake.cap = UINT64_MAX;
	expect_refusal(-ENODEV, "does not answer");
	rig.fake.cap = 0;
	expect_refusal(-ENODEV, "does not answer");
}

static void test_capabilities_that_lanefs_cannot_use(void **state)
{
	set_cap(FIELD_SET(CAP_CSS, 0xff), FIELD_SET(CAP_CSS, 0x80));
	expect_refusal(-EOPNOTSUPP, "no NVM command set");
	set_cap(0, FIELD_SET(CAP_MPSMIN, 1));
	expect_refusal(-EOPNOTSUPP, "larger than 4 KiB");
	set_cap(FIELD_SET(CAP_MQES, 0xffff), 0);
	expect_refusal(-EOPNOTSUPP, "one entry");
	set_cap(0, FIELD_SET(CAP_DSTRD, 12));
	rig.fake.doorbells_out_of_sight = true;
	expect_refusal(-EMFILE, "fewer reactors");
	rig.fake.identify.sqes = 0x77;
	expect_refusal(-EOPNOTSUPP, "larger than 64");
	rig.fake.identify.cqes = 0x55;
	expect_refusal(-EOPNOTSUPP, "larger than 64");
}

/* What firmware left running must not go on writing to memory, whatever lanefs thinks of it. */
static void test_a_refused_controller_that_runs_is_stopped(void **state)
{
	set_cap(0, FIELD_SET(CAP_MPSMIN, 1));
	fake_set(&rig.fake, NVME_REG_CC, (uint32_t)FIELD_SET(CC_EN, 1));
	fake_set(&rig.fake, NVME_REG_CSTS, (uint32_t)FIELD_SET(CSTS_RDY, 1));
	rig.fake.enabled = rig.fake.ready = true;
	assert_int_equal(rig_attach(&rig), -EOPNOTSUPP);
	assert_int_equal(rig.fake.disables, 1);
	assert_int_equal(rig.fake.stop_dmas, 0);
	rig_renew(&rig);
}

static void test_never_ready(void **state)
{
	rig.fake.never_ready = true;
	expect_refusal(-ETIMEDOUT, "not ready within the 2000 ms");
}

static void test_fatal_when_it_starts(void **state)
{
	rig.fake.fatal_when_enabled = true;
	expect_refusal(-EIO, "fatal status");
}

static void test_never_stops(void **state)
{
	fake_set(&rig.fake, NVME_REG_CC, (uint32_t)FIELD_SET(CC_EN, 1));
	fake_set(&rig.fake, NVME_REG_CSTS, (uint32_t)FIELD_SET(CSTS_RDY, 1));
	rig.fake.enabled = rig.fake.ready = rig.fake.never_stops = true;
	rig.fake.sqs[0].on = false;
	expect_refusal(-ETIMEDOUT, "not stopped within the 2000 ms");
}

/* As it was found, and after it began to start. */
static void test_dma_is_cut_off_when_it_cannot_be_stopped(void **state)
{
	fake_set(&rig.fake, NVME_REG_CC, (uint32_t)FIELD_SET(CC_EN, 1));
	fake_set(&rig.fake, NVME_REG_CSTS, (uint32_t)FIELD_SET(CSTS_RDY, 1));
	rig.fake.enabled = rig.fake.ready = rig.fake.never_stops = true;
	assert_int_equal(rig_attach(&rig), -ETIMEDOUT);
	assert_int_equal(rig.fake.stop_dmas, 1);
	rig_renew(&rig);
	rig.fake.never_stops = true;
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_CREATE_SQ, .selector = FAKE_ANY,
		.status = NVME_SC_INVALID_QUEUE_SIZE});
	assert_int_equal(rig_attach(&rig), -EINVAL);
	assert_int_equal(rig.fake.stop_dmas, 1);
	rig_renew(&rig);
}

static void fail_command(enum nvme_admin_opcode opcode, int selector, uint16_t status)
{
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = opcode, .selector = selector,
		.status = (uint16_t)(status | FIELD_SET(STATUS_DNR, 1))});
}

static void test_commands_that_fail(void **state)
{
	fail_command(NVME_ADMIN_IDENTIFY, NVME_CNS_CTRLR, NVME_SC_INTERNAL_ERROR);
	expect_refusal(-EIO, "Identify Controller failed");
	fail_command(NVME_ADMIN_SET_FEATURES, NVME_FEATURE_NUMBER_OF_QUEUES, NVME_SC_INVALID_FIELD);
	expect_refusal(-EINVAL, "how many queues");
	fail_command(NVME_ADMIN_CREATE_CQ, FAKE_ANY, NVME_SC_INVALID_QID);
	expect_refusal(-EINVAL, "I/O queue 1 is refused");
	fail_command(NVME_ADMIN_CREATE_SQ, 2, NVME_SC_INVALID_QUEUE_SIZE);
	expect_refusal(-EINVAL, "I/O queue 2 is refused");
	fail_command(NVME_ADMIN_IDENTIFY, NVME_CNS_ACTIVE_NS, NVME_SC_INTERNAL_ERROR);
	expect_refusal(-EIO, "does not start");
}

static void test_too_few_queues(void **state)
{
	rig.fake.io_queues = 1;
	expect_refusal(-EMFILE, "has 1 I/O queue pairs for 2 reactors: use -o reactors=1");
}

static void test_a_command_that_is_not_answered(void **state)
{
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_IDENTIFY, .selector = NVME_CNS_CTRLR,
		.action = FAKE_SILENT});
	rig.options.admin_timeout_ns = 300 * NS_PER_MS;
	expect_refusal(-ETIMEDOUT, "Identify Controller failed");
}

/* ---- every fault at every command ---- */

/* Faults at the @number-th admin command. False: there were not so many. A device that vanishes is noticed soon. */
static bool fault_at(unsigned number, struct fake_rule rule, uint64_t limit_ns)
{
	rule.admin = true;
	rule.opcode = rule.selector = FAKE_ANY;
	rule.skip = number;
	rule.count = 1;
	const struct fake_rule *kept = fake_rule(&rig.fake, rule);
	const uint64_t start_ns = rig_now(&rig);
	const int err = rig_attach(&rig);
	const bool hit = kept->hits > 0;
	if (rig_now(&rig) - start_ns > limit_ns)
		fail_msg("fault at command %u: %llu ms", number, (unsigned long long)((rig_now(&rig) - start_ns) / NS_PER_MS));
	if (err)
		expect_line();
	if (rule.action == FAKE_VANISH && hit && err == 0)
		assert_true(rig.fake.admin_seen[NVME_ADMIN_ASYNC_EVENT] > 0); /* the last commands of a start are not waited for */
	if (rule.action == FAKE_VANISH && err && rig.fake.vanish_as != FAKE_ALL_ZEROES)
		assert_int_equal(err, -ENODEV);
	rig_detach(&rig);
	rig_renew(&rig);
	return hit;
}

static void expect_faults(struct fake_rule rule, enum fake_vanish vanish_as, uint64_t limit_ns)
{
	unsigned number = 0;
	do {
		rig.fake.vanish_as = vanish_as;
		rig.options.admin_timeout_ns = 2 * NS_PER_SEC;
	} while (fault_at(number++, rule, limit_ns));
	assert_in_range(number, 12, 30);
}

static void test_vanishing_at_every_command(void **state)
{
	expect_faults((struct fake_rule){.action = FAKE_VANISH}, FAKE_ALL_ONES, NS_PER_SEC);
	expect_faults((struct fake_rule){.action = FAKE_VANISH}, FAKE_SIGBUS, NS_PER_SEC);
	expect_faults((struct fake_rule){.action = FAKE_VANISH}, FAKE_ALL_ZEROES, 10 * NS_PER_SEC);
}

static void test_an_error_at_every_command(void **state)
{
	expect_faults((struct fake_rule){.status = NVME_SC_INTERNAL_ERROR}, FAKE_ALL_ONES, NS_PER_SEC);
	expect_faults((struct fake_rule){.status = NVME_SC_INVALID_OPCODE}, FAKE_ALL_ONES, NS_PER_SEC);
}

static void test_silence_at_every_command(void **state)
{
	expect_faults((struct fake_rule){.action = FAKE_SILENT}, FAKE_ALL_ONES, 10 * NS_PER_SEC);
}

static void test_fatal_status_at_every_command(void **state)
{
	expect_faults((struct fake_rule){.action = FAKE_FATAL}, FAKE_ALL_ONES, 10 * NS_PER_SEC);
}

static void test_answers_that_come_twice_or_from_strangers_do_not_matter(void **state)
{
	static const enum fake_action actions[] = {FAKE_TWICE, FAKE_STRANGER};
	for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
		fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = FAKE_ANY, .selector = FAKE_ANY, .action = actions[i]});
		assert_int_equal(rig_attach(&rig), 0);
		assert_true(rig_logged(&rig, "which is not under way: ignored"));
		rig_detach(&rig);
		rig_renew(&rig);
	}
}

/* ---- every allocation ---- */

static void test_every_allocation_that_fails(void **state)
{
	int err;
	unsigned number = 0;
	do {
		rig.fake.identify.oacs = le16_set(NVME_OACS_DOORBELL_BUFFER);
		scarce.left = number++;
		scarce.failed = false;
		scarce.armed = true;
		err = rig_attach(&rig);
		scarce.armed = false;
		if (err) {
			assert_int_equal(err, -ENOMEM);
			expect_line();
		} else if (scarce.failed) { /* shadow doorbells are not needed */
			assert_false(nvme_ctrlr_get_info(rig.ctrlr)->shadow_doorbells);
		}
		rig_detach(&rig);
		rig_renew(&rig);
	} while (scarce.failed);
	assert_in_range(number, 10, 40);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_dead_registers),
		TEST(test_capabilities_that_lanefs_cannot_use),
		TEST(test_a_refused_controller_that_runs_is_stopped),
		TEST(test_never_ready),
		TEST(test_fatal_when_it_starts),
		TEST(test_never_stops),
		TEST(test_dma_is_cut_off_when_it_cannot_be_stopped),
		TEST(test_commands_that_fail),
		TEST(test_too_few_queues),
		TEST(test_a_command_that_is_not_answered),
		TEST(test_vanishing_at_every_command),
		TEST(test_an_error_at_every_command),
		TEST(test_silence_at_every_command),
		TEST(test_fatal_status_at_every_command),
		TEST(test_answers_that_come_twice_or_from_strangers_do_not_matter),
		TEST(test_every_allocation_that_fails),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
