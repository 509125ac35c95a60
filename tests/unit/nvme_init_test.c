/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a controller that starts is described rightly and works, however old, small or odd it is; namespaces that
 * lanefs cannot use are refused with a reason. Method: the scripted controller.
 */
#include <errno.h>
#include <stdio.h>

#include "nvme_rig.h"

enum { EVENTS_AT_ONCE = 4 };

static struct rig rig;

static int setup(void **state)
{
	rig_init(&rig, 1, 11);
	return 0;
}

static int teardown(void **state)
{
	rig_fini(&rig);
	return 0;
}

MAY_WAIT static int write_and_read(void *arg)
{
	struct rig_io io;
	rig_io_init(&io, &rig, FAKE_PAGE);
	for (unsigned i = 0; i < 20; i++) {
		memset(io.buffer, 'a' + (int)i, FAKE_PAGE);
		assert_int_equal(rig_io_run(&io, NVME_CMD_WRITE, 8 * i, 8), 0);
		memset(io.buffer, 0, FAKE_PAGE);
		assert_int_equal(rig_io_run(&io, NVME_CMD_READ, 8 * i + 7, 1), 0);
		assert_int_equal(io.buffer[511], 'a' + (int)i);
	}
	assert_int_equal(rig_io_run(&io, NVME_CMD_FLUSH, 0, 0), 0);
	assert_int_equal(rig_io_run(&io, NVME_CMD_DSM, 0, 8), 0);
	assert_int_equal(rig_io_run(&io, NVME_CMD_WRITE_ZEROES, 8, 8), 0);
	assert_int_equal(rig_io_run(&io, NVME_CMD_READ, 7, 2), 0);
	assert_int_equal(io.buffer[0] + io.buffer[600], 0);
	rig_io_fini(&io);
	return 0;
}

static const struct nvme_ctrlr_info *attach_and_use(void)
{
	assert_int_equal(rig_attach(&rig), 0);
	rig_run(&rig, 0, write_and_read, NULL);
	return nvme_ctrlr_get_info(rig.ctrlr);
}

/* ---- the controller ---- */

static void test_controller_is_described_and_works(void **state)
{
	const struct nvme_ctrlr_info *info = attach_and_use();
	assert_string_equal(info->model, "Fake controller");
	assert_string_equal(info->serial, "0042");
	assert_string_equal(info->firmware, "1.0");
	assert_int_equal(info->vendor, 0x1234);
	assert_int_equal(info->version, 0x00010400);
	assert_int_equal(info->transfer_bytes_max, 128 << 10);
	assert_int_equal(info->queue_depth, 8);
	assert_true(info->cache_present && info->cache_on && info->dsm && info->write_zeroes);
	assert_false(info->interrupts || info->shadow_doorbells);
	assert_string_equal(nvme_ctrlr_name(rig.ctrlr), "fake:0");
	assert_false(nvme_ctrlr_gone(rig.ctrlr));
	assert_int_equal(info->resets + info->timeouts + info->aborts + info->retries + info->errors, 0);
}

static void test_names_are_made_printable(void **state)
{
	memset(rig.fake.identify.mn, 'M', sizeof(rig.fake.identify.mn));
	memcpy(rig.fake.identify.sn, "a\nb\x1b\xff", 5);
	memset(rig.fake.identify.fr, 0, sizeof(rig.fake.identify.fr));
	assert_int_equal(rig_attach(&rig), 0);
	const struct nvme_ctrlr_info *info = nvme_ctrlr_get_info(rig.ctrlr);
	assert_int_equal(strlen(info->model), 40);
	assert_string_equal(info->serial, "a?b??");
	assert_string_equal(info->firmware, "");
}

MAY_WAIT static int read_health(void *arg)
{
	struct nvme_log_smart smart;
	const uint64_t start_ns = reactor_now_ns();
	assert_int_equal(nvme_log_page_read(rig.ctrlr, NVME_LOG_SMART, UINT32_MAX, &smart, sizeof(smart)), 0);
	assert_true(reactor_now_ns() - start_ns < NS_PER_SEC);
	return 0;
}

static void test_the_smallest_queues_are_enough(void **state)
{
	rig.fake.cap = (rig.fake.cap & ~FIELD_SET(CAP_MQES, 0xffff)) | FIELD_SET(CAP_MQES, 1);
	assert_int_equal(attach_and_use()->queue_depth, 2);
	rig_run(&rig, 0, read_health, NULL); /* beside the event requests that stay */
}

static void test_queue_depths_are_limited(void **state)
{
	rig.options.queue_depth = 1;
	assert_int_equal(attach_and_use()->queue_depth, 2);
	rig_detach(&rig);
	rig_renew(&rig);
	rig.options.queue_depth = 0;
	rig.fake.cap |= FIELD_SET(CAP_MQES, 0xffff);
	assert_int_equal(attach_and_use()->queue_depth, NVME_QUEUE_DEPTH_DEFAULT);
	rig_detach(&rig);
	rig_renew(&rig);
	rig.options.queue_depth = 100000;
	rig.fake.cap |= FIELD_SET(CAP_MQES, 0xffff);
	assert_int_equal(attach_and_use()->queue_depth, NVME_QUEUE_DEPTH_MAX);
}

static void test_transfer_size_follows_mdts(void **state)
{
	static const struct {
		uint8_t mdts;
		uint32_t bytes;
	} rows[] = {{0, 2 << 20}, {1, 8 << 10}, {9, 2 << 20}, {10, 2 << 20}, {31, 2 << 20}, {32, 2 << 20}, {255, 2 << 20}};
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++) {
		rig.fake.identify.mdts = rows[i].mdts;
		assert_int_equal(rig_attach(&rig), 0);
		assert_int_equal(nvme_ctrlr_get_info(rig.ctrlr)->transfer_bytes_max, rows[i].bytes);
		rig_detach(&rig);
		rig_renew(&rig);
	}
}

static void test_doorbells_may_be_far_apart(void **state)
{
	rig.fake.cap |= FIELD_SET(CAP_DSTRD, 4);
	rig.fake.identify.oacs = le16_set(NVME_OACS_DOORBELL_BUFFER);
	assert_false(attach_and_use()->shadow_doorbells); /* they lie as densely as with a stride of 0 */
}

static void test_one_event_request_and_one_abort_at_once_are_enough(void **state)
{
	rig.fake.identify.acl = rig.fake.identify.aerl = 0;
	attach_and_use();
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(rig.fake.admin_seen[NVME_ADMIN_ASYNC_EVENT], 1);
}

static void test_events_are_asked_for(void **state)
{
	attach_and_use();
	assert_int_equal(rig.fake.features[NVME_FEATURE_ASYNC_EVENTS], NVME_EVENTS_SMART | NVME_EVENTS_NS_ATTRIBUTE);
	rig_sleep(&rig, NS_PER_SEC);
	assert_int_equal(rig.fake.admin_seen[NVME_ADMIN_ASYNC_EVENT], EVENTS_AT_ONCE);
}

static void test_events_that_it_does_not_have_are_not_asked_for(void **state)
{
	rig.fake.identify.oaes = le32_set(0);
	attach_and_use();
	assert_int_equal(rig.fake.features[NVME_FEATURE_ASYNC_EVENTS], NVME_EVENTS_SMART);
}

/* What firmware, or a process that died, leaves behind. */
static void enable_by_hand(bool ready)
{
	fake_set(&rig.fake, NVME_REG_AQA, 31 | 31 << 16);
	fake_set(&rig.fake, NVME_REG_CC, (uint32_t)(FIELD_SET(CC_EN, 1) | FIELD_SET(CC_IOSQES, 6) | FIELD_SET(CC_IOCQES, 4)));
	rig.fake.enabled = true;
	rig.fake.ready = ready;
	rig.fake.change_due_ns = ready ? 0 : 3 * NS_PER_SEC;
	fake_set(&rig.fake, NVME_REG_CSTS, ready);
}

static void test_a_controller_that_runs_is_stopped_first(void **state)
{
	enable_by_hand(true);
	attach_and_use();
	assert_int_equal(rig.fake.disables, 1);
}

static void test_a_controller_that_is_starting_is_waited_for(void **state)
{
	rig.fake.cap |= FIELD_SET(CAP_TO, 20);
	enable_by_hand(false);
	attach_and_use();
	assert_int_equal(rig.fake.disables, 1);
}

static void test_a_controller_in_fatal_status_is_reset(void **state)
{
	enable_by_hand(false);
	rig.fake.change_due_ns = 0;
	fake_fatal(&rig.fake);
	attach_and_use();
}

static void test_no_timeout_is_the_shortest_one(void **state)
{
	rig.fake.cap &= ~FIELD_SET(CAP_TO, 0xff);
	rig.fake.ready_delay_ns = 400 * NS_PER_MS;
	attach_and_use();
}

/* ---- cache ---- */

static void test_cache_is_turned_off_when_asked(void **state)
{
	rig.options.write_cache_off = true;
	const struct nvme_ctrlr_info *info = attach_and_use();
	assert_true(info->cache_present);
	assert_false(info->cache_on || rig.fake.cache_on);
}

static void test_cache_that_is_off_is_seen(void **state)
{
	rig.fake.cache_on = false;
	assert_false(attach_and_use()->cache_on);
}

static void test_cache_that_stays_on_is_told(void **state)
{
	rig.options.write_cache_off = true;
	rig.fake.cache_refused = true;
	assert_true(attach_and_use()->cache_on);
	assert_true(rig_logged(&rig, "cannot be turned off"));
}

static void test_cache_of_unknown_state_is_taken_to_be_on(void **state)
{
	rig.fake.cache_unknown = true;
	rig.fake.cache_on = false;
	assert_true(attach_and_use()->cache_on);
}

static void test_no_cache_is_no_cache(void **state)
{
	rig.options.write_cache_off = true;
	rig.fake.identify.vwc = 0;
	const struct nvme_ctrlr_info *info = attach_and_use();
	assert_false(info->cache_present || info->cache_on);
	assert_false(rig.fake.feature_set[NVME_FEATURE_VOLATILE_CACHE]);
}

/* ---- namespaces ---- */

static const char *refusal(uint32_t nsid)
{
	const struct nvme_ns_info *info = nvme_ctrlr_ns(rig.ctrlr, nsid);
	assert_non_null(info);
	return info->refused ? info->refused : "";
}

static void test_namespaces_that_lanefs_cannot_use_say_why(void **state)
{
	struct fake_ns *ns = rig.fake.namespaces;
	ns[1] = (struct fake_ns){.nsid = 2, .blocks = 8, .shift = 9, .metadata = 8};
	ns[2] = (struct fake_ns){.nsid = 3, .blocks = 8, .shift = 13};
	ns[3] = (struct fake_ns){.nsid = 4, .blocks = 8, .shift = 8};
	ns[4] = (struct fake_ns){.nsid = 5, .blocks = 8, .shift = 12, .csi = NVME_CSI_ZONED};
	ns[5] = (struct fake_ns){.nsid = 6, .blocks = 8, .shift = 12, .csi = 1};
	ns[6] = (struct fake_ns){.nsid = 9, .blocks = 0, .shift = 12};
	ns[7] = (struct fake_ns){.nsid = 70, .blocks = 8, .shift = 12, .flbas_index = 0x25};
	assert_int_equal(rig_attach(&rig), 0);
	assert_int_equal(nvme_ctrlr_ns_count(rig.ctrlr), 8);
	assert_string_equal(refusal(1), "");
	assert_non_null(strstr(refusal(2), "metadata"));
	assert_non_null(strstr(refusal(3), "LBA size"));
	assert_non_null(strstr(refusal(4), "LBA size"));
	assert_non_null(strstr(refusal(5), "zoned"));
	assert_non_null(strstr(refusal(6), "command set"));
	assert_non_null(strstr(refusal(9), "capacity"));
	assert_string_equal(refusal(70), "");
	assert_int_equal(nvme_ctrlr_ns(rig.ctrlr, 70)->block_size, 4096);
	assert_int_equal(nvme_ctrlr_ns_at(rig.ctrlr, 7)->nsid, 70);
}

static void test_namespaces_are_described(void **state)
{
	rig.fake.namespaces[0].boundary = 256;
	memset(rig.fake.namespaces[0].uuid, 0x5a, 16);
	assert_int_equal(rig_attach(&rig), 0);
	const struct nvme_ns_info *info = nvme_ctrlr_ns(rig.ctrlr, 1);
	assert_int_equal(info->optimal_boundary_blocks, 256);
	assert_int_equal(info->atomic_write_blocks, 8); /* the controller's AWUPF */
	assert_true(info->deallocate_zeroes);
	assert_false(info->read_only);
	assert_int_equal(info->uuid[15], 0x5a);
}

static void test_old_controllers_without_list_and_descriptors(void **state)
{
	rig.fake.no_active_list = rig.fake.no_descriptors = true;
	rig.fake.namespaces[1] = (struct fake_ns){.nsid = 2, .blocks = 8, .shift = 9};
	rig.fake.identify.nn = le32_set(3);
	attach_and_use();
	assert_int_equal(nvme_ctrlr_ns_count(rig.ctrlr), 3);
	assert_string_equal(refusal(2), "");
	assert_non_null(strstr(refusal(3), "capacity"));
}

static void test_a_namespace_that_cannot_be_identified_is_left_out(void **state)
{
	rig.fake.namespaces[1] = (struct fake_ns){.nsid = 2, .blocks = 8, .shift = 9};
	fake_rule(&rig.fake, (struct fake_rule){.admin = true, .opcode = NVME_ADMIN_IDENTIFY, .selector = NVME_CNS_NS, .count = 1,
		.status = NVME_SC_INTERNAL_ERROR});
	assert_int_equal(rig_attach(&rig), 0);
	assert_int_equal(nvme_ctrlr_ns_count(rig.ctrlr), 1);
	assert_int_equal(nvme_ctrlr_ns_at(rig.ctrlr, 0)->nsid, 2);
	assert_true(rig_logged(&rig, "namespace 1 cannot be identified"));
}

static void test_descriptors_that_run_out_of_their_page_are_not_followed(void **state)
{
	static const uint8_t none[16];
	rig.fake.garbled_descriptors = true;
	assert_int_equal(rig_attach(&rig), 0);
	assert_string_equal(refusal(1), "");
	assert_memory_equal(nvme_ctrlr_ns(rig.ctrlr, 1)->uuid, none, sizeof(none));
}

/* ---- the end ---- */

static void test_shutdown_is_notified_and_waited_for(void **state)
{
	rig.fake.shutdown_delay_ns = 1500 * NS_PER_MS;
	attach_and_use();
	rig_stop(&rig, 10 * NS_PER_SEC);
	assert_int_equal(rig.fake.shutdowns, 1);
	assert_true(rig.fake.shutdown_complete);
	assert_int_equal(rig.fake.disables, 1);
	assert_false(rig_logged(&rig, "does not say"));
}

static void test_shutdown_that_does_not_complete_is_not_waited_for_longer_than_said(void **state)
{
	rig.fake.never_shuts_down = true;
	attach_and_use();
	rig_stop(&rig, 10 * NS_PER_SEC);
	assert_true(rig_logged(&rig, "does not say that its shutdown is complete"));
	assert_int_equal(rig.fake.disables, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_controller_is_described_and_works),
		TEST(test_names_are_made_printable),
		TEST(test_the_smallest_queues_are_enough),
		TEST(test_queue_depths_are_limited),
		TEST(test_transfer_size_follows_mdts),
		TEST(test_doorbells_may_be_far_apart),
		TEST(test_one_event_request_and_one_abort_at_once_are_enough),
		TEST(test_events_are_asked_for),
		TEST(test_events_that_it_does_not_have_are_not_asked_for),
		TEST(test_a_controller_that_runs_is_stopped_first),
		TEST(test_a_controller_that_is_starting_is_waited_for),
		TEST(test_a_controller_in_fatal_status_is_reset),
		TEST(test_no_timeout_is_the_shortest_one),
		TEST(test_cache_is_turned_off_when_asked),
		TEST(test_cache_that_is_off_is_seen),
		TEST(test_cache_that_stays_on_is_told),
		TEST(test_cache_of_unknown_state_is_taken_to_be_on),
		TEST(test_no_cache_is_no_cache),
		TEST(test_namespaces_that_lanefs_cannot_use_say_why),
		TEST(test_namespaces_are_described),
		TEST(test_old_controllers_without_list_and_descriptors),
		TEST(test_a_namespace_that_cannot_be_identified_is_left_out),
		TEST(test_descriptors_that_run_out_of_their_page_are_not_followed),
		TEST(test_shutdown_is_notified_and_waited_for),
		TEST(test_shutdown_that_does_not_complete_is_not_waited_for_longer_than_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
