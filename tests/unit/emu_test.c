/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: registers and admin commands of the emulated controller do what the specification says, errors included.
 * Method: registers and queue entries written by hand; see emu_bench.h.
 */
#include "emu_bench.h"

#include <unistd.h>

enum { SETTLE_NS = 100000 };

static const struct emu_options none;

/* ---- registers ---- */

MAY_WAIT static void power_on(struct bench *bench)
{
	const uint64_t cap = nvme_read64(bench->transport, NVME_REG_CAP);
	assert_int_equal(FIELD_GET(CAP_MQES, cap), 31);
	assert_int_equal(FIELD_GET(CAP_CQR, cap), 1);
	assert_int_equal(FIELD_GET(CAP_DSTRD, cap), 0);
	assert_int_equal(FIELD_GET(CAP_CSS_NVM, cap), 1);
	assert_true(FIELD_GET(CAP_TO, cap) > 0);
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_VS), 0x00010400);
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), 0);
	assert_string_equal(bench->transport->name, "emu:test");
	assert_int_equal(bench->transport->interrupts_max, 65);
}

static void test_registers_at_power_on(void **state)
{
	bench_test(&(struct emu_options){.depth_max = 32}, power_on);
}

MAY_WAIT static void enable_and_disable(struct bench *bench)
{
	for (unsigned i = 0; i < 3; i++) {
		bench_start_enabling(bench, 16);
		assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), 0);
		assert_true(bench_wait_status(bench, 3, 1, NS_PER_SEC));
		bench_create_queue(bench, 1, 64);
		assert_int_equal(bench_write(bench, i, 1, 1, 0), 0);
		bench_disable(bench);
		assert_int_equal(nvme_read32(bench->transport, nvme_sq_doorbell(1, 0)), 0);
	}
}

static void test_enabling_and_disabling_again_and_again(void **state) { bench_test(&none, enable_and_disable); }

MAY_WAIT static void expect_fatal(struct bench *bench, uint32_t aqa, uint64_t asq, uint64_t acq, uint32_t cc)
{
	nvme_write32(bench->transport, NVME_REG_AQA, aqa);
	nvme_write64(bench->transport, NVME_REG_ASQ, asq);
	nvme_write64(bench->transport, NVME_REG_ACQ, acq);
	bench_write32(bench, NVME_REG_CC, cc | (uint32_t)FIELD_SET(CC_EN, 1));
	assert_true(bench_wait_status(bench, 3, 2, NS_PER_SEC));
	bench_write32(bench, NVME_REG_CC, 0);
	assert_true(bench_wait_status(bench, 3, 0, NS_PER_SEC));
}

MAY_WAIT static void bad_enabling(struct bench *bench)
{
	const uint64_t asq = bench_address(bench->queue[0].sq), acq = bench_address(bench->queue[0].cq);
	const uint32_t aqa = 15u << 16 | 15;
	expect_fatal(bench, 15u << 16, asq, acq, 0);
	expect_fatal(bench, 15, asq, acq, 0);
	expect_fatal(bench, aqa, asq + 64, acq, 0);
	expect_fatal(bench, aqa, asq, acq + 16, 0);
	expect_fatal(bench, aqa, 0, acq, 0);
	expect_fatal(bench, aqa, asq, 1ull << 60, 0);
	expect_fatal(bench, aqa, asq, acq, (uint32_t)FIELD_SET(CC_MPS, 1));
	expect_fatal(bench, aqa, asq, acq, (uint32_t)FIELD_SET(CC_CSS, 6));
	expect_fatal(bench, aqa, asq, acq, (uint32_t)FIELD_SET(CC_AMS, 1));
	bench_enable(bench, 16);
}

static void test_enabling_with_bad_values_is_fatal_until_reset(void **state) { bench_test(&none, bad_enabling); }

MAY_WAIT static void shutdown(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 5, 1, 0x55, 0), 0);
	assert_int_equal(bench->durable[5 * 4096], 0);
	const uint32_t cc = nvme_read32(bench->transport, NVME_REG_CC);
	bench_write32(bench, NVME_REG_CC, cc | (uint32_t)FIELD_SET(CC_SHN, CC_SHN_NORMAL));
	assert_true(bench_wait_status(bench, 3 << 2, CSTS_SHST_COMPLETE << 2, NS_PER_SEC));
	assert_int_equal(bench->durable[5 * 4096], 0x55);
	bench_disable(bench);
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), 0);
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 5), 0x55);
}

static void test_shutdown_notification_flushes(void **state)
{
	bench_test(&none, shutdown);
	bench_test(&(struct emu_options){.cache_bytes = MIB(1)}, shutdown);
}

MAY_WAIT static void interrupted_shutdown(struct bench *bench)
{
	for (unsigned i = 0; i < 3; i++) {
		bench_bring_up(bench);
		assert_int_equal(bench_write(bench, 5, 1, (uint8_t)(i + 1), 0), 0);
		const uint32_t cc = nvme_read32(bench->transport, NVME_REG_CC);
		bench->hold = true;
		bench_write32(bench, NVME_REG_CC, cc | (uint32_t)FIELD_SET(CC_SHN, CC_SHN_NORMAL));
		assert_true(bench_wait_status(bench, 3 << 2, CSTS_SHST_OCCURRING << 2, NS_PER_MS));
		bench_write32(bench, NVME_REG_CC, 0);
		if (i == 1)
			bench_unhold(bench);
		assert_true(bench_wait_status(bench, 1, 0, NS_PER_MS));
		if (i != 1)
			bench_unhold(bench);
	}
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 5), 3);
}

static void test_a_reset_ends_a_shutdown(void **state)
{
	bench_test(&(struct emu_options){.cache_bytes = MIB(1)}, interrupted_shutdown);
}

/* ---- identify ---- */

MAY_WAIT static uint16_t identify(struct bench *bench, uint8_t cns, uint32_t nsid)
{
	struct nvme_command command = bench_command(NVME_ADMIN_IDENTIFY, nsid);
	memset(bench_page(bench, 8), 0xee, EMU_PAGE);
	command.cdw10 = le32_set(cns);
	command.prp1 = le64_set(bench_address(bench_page(bench, 8)));
	return bench_do(bench, 0, command, NULL);
}

MAY_WAIT static void identify_ctrlr(struct bench *bench)
{
	const struct nvme_id_ctrlr *id = (const struct nvme_id_ctrlr *)bench_page(bench, 8);
	bench_enable(bench, 16);
	assert_int_equal(identify(bench, NVME_CNS_CTRLR, 0), 0);
	assert_memory_equal(id->mn, "lanefs emulated NVMe                    ", 40);
	assert_memory_equal(id->sn, "SERIAL 1            ", 20);
	assert_int_equal(id->mdts, 5);
	assert_int_equal(id->sqes, 0x66);
	assert_int_equal(id->cqes, 0x44);
	assert_int_equal(le32_get(id->nn), 1);
	assert_int_equal(id->vwc & NVME_VWC_PRESENT, 1);
	assert_int_equal(le16_get(id->oacs), NVME_OACS_DOORBELL_BUFFER);
	assert_int_equal(le16_get(id->oncs), NVME_ONCS_DSM | NVME_ONCS_WRITE_ZEROES);
	assert_int_equal(id->aerl, EMU_EVENTS_MAX - 1);
	assert_memory_equal(id->subnqn, "nqn.", 4);
}

static void test_identify_controller(void **state)
{
	bench_test(&(struct emu_options){.serial = "SERIAL 1"}, identify_ctrlr);
}

MAY_WAIT static void identify_ctrlr_without(struct bench *bench)
{
	const struct nvme_id_ctrlr *id = (const struct nvme_id_ctrlr *)bench_page(bench, 8);
	bench_enable(bench, 16);
	assert_int_equal(identify(bench, NVME_CNS_CTRLR, 0), 0);
	assert_int_equal(id->mdts, 0);
	assert_int_equal(le32_get(id->nn), 3);
	assert_int_equal(id->vwc & NVME_VWC_PRESENT, 0);
	assert_int_equal(le16_get(id->oacs), 0);
	assert_int_equal(le16_get(id->oncs), 0);
	assert_int_equal(bench->transport->interrupts_max, 0);
}

static void test_identify_controller_without_its_features(void **state)
{
	bench_test(&(struct emu_options){.mdts = 15, .namespaces = 3, .no_volatile_cache = true, .no_shadow_doorbells = true,
		.no_dsm = true, .no_write_zeroes = true, .no_interrupts = true}, identify_ctrlr_without);
}

MAY_WAIT static int detach_2(void *arg) { return emu_ns_attach(((struct bench *)arg)->emu, 2, false); }

MAY_WAIT static void identify_ns(struct bench *bench)
{
	const struct nvme_id_ns *id = (const struct nvme_id_ns *)bench_page(bench, 8);
	static const struct nvme_id_ns zero;
	bench_enable(bench, 16);
	assert_int_equal(identify(bench, NVME_CNS_NS, 1), 0);
	assert_int_equal(le64_get(id->nsze), BENCH_MEDIUM_BYTES / 2 / 512);
	assert_int_equal(id->flbas & 0xf, 0);
	assert_int_equal(id->lbaf[0].ds, 9);
	assert_int_equal(le16_get(id->lbaf[0].ms), 8);
	assert_int_equal(le16_get(id->noiob), 128);
	assert_int_equal(id->nsattr, 0);
	assert_int_equal(id->dlfeat & 7, 1);
	bench_on_model(bench, detach_2);
	assert_int_equal(identify(bench, NVME_CNS_NS, 2), 0);
	assert_memory_equal(id, &zero, sizeof(zero));
	assert_int_equal(identify(bench, NVME_CNS_NS, 0), NVME_SC_INVALID_NAMESPACE);
	assert_int_equal(identify(bench, NVME_CNS_NS, 3), NVME_SC_INVALID_NAMESPACE);
	assert_int_equal(identify(bench, NVME_CNS_NS, EMU_NSID_ALL), NVME_SC_INVALID_NAMESPACE);
	assert_int_equal(identify(bench, 0x77, 1), NVME_SC_INVALID_FIELD);
}

static void test_identify_namespace(void **state)
{
	bench_test(&(struct emu_options){.namespaces = 2, .lba_bytes = 512, .metadata_bytes = 8, .boundary_blocks = 128},
		identify_ns);
}

MAY_WAIT static void identify_list(struct bench *bench)
{
	const le32_t *list = (const le32_t *)bench_page(bench, 8);
	bench_enable(bench, 16);
	bench_on_model(bench, detach_2);
	assert_int_equal(identify(bench, NVME_CNS_ACTIVE_NS, 0), 0);
	assert_int_equal(le32_get(list[0]), 1);
	assert_int_equal(le32_get(list[1]), 3);
	assert_int_equal(le32_get(list[2]), 0);
	assert_int_equal(identify(bench, NVME_CNS_ACTIVE_NS, 1), 0);
	assert_int_equal(le32_get(list[0]), 3);
	assert_int_equal(identify(bench, NVME_CNS_ACTIVE_NS, EMU_NSID_ALL), NVME_SC_INVALID_NAMESPACE);
	assert_int_equal(identify(bench, NVME_CNS_NS_DESCRIPTORS, 2), NVME_SC_INVALID_NAMESPACE);
}

static void test_identify_active_namespaces(void **state)
{
	bench_test(&(struct emu_options){.namespaces = 3}, identify_list);
}

MAY_WAIT static void identify_descriptors(struct bench *bench)
{
	static const uint8_t types[] = {NVME_NS_ID_EUI64, NVME_NS_ID_NGUID, NVME_NS_ID_UUID, NVME_NS_ID_CSI, 0};
	static uint8_t before[EMU_PAGE];
	bench_enable(bench, 16);
	assert_int_equal(identify(bench, NVME_CNS_NS_DESCRIPTORS, 1), 0);
	memcpy(before, bench_page(bench, 8), sizeof(before));
	const uint8_t *at = before;
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
		const struct nvme_ns_descriptor *descriptor = (const struct nvme_ns_descriptor *)at;
		assert_int_equal(descriptor->type, types[i]);
		if (descriptor->type == NVME_NS_ID_CSI)
			assert_int_equal(at[sizeof(*descriptor)], NVME_CSI_ZONED);
		at += sizeof(*descriptor) + descriptor->length;
	}
	bench_pull(bench);
	bench_release(bench);
	bench_plug(bench);
	bench_enable(bench, 16);
	assert_int_equal(identify(bench, NVME_CNS_NS_DESCRIPTORS, 1), 0);
	assert_memory_equal(bench_page(bench, 8), before, sizeof(before));
}

static void test_identifiers_stay_when_it_is_plugged_in_again(void **state)
{
	bench_test(&(struct emu_options){.zoned = true}, identify_descriptors);
}

/* ---- features ---- */

MAY_WAIT static void features_queues(struct bench *bench)
{
	uint32_t dw0;
	bench_enable(bench, 16);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, NVME_FEATURE_NUMBER_OF_QUEUES, 0, &dw0), 0);
	assert_int_equal(dw0, 7 << 16 | 7);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_NUMBER_OF_QUEUES, 99 << 16 | 99, &dw0), 0);
	assert_int_equal(dw0, 7 << 16 | 7);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_NUMBER_OF_QUEUES, 1 << 16 | 1, &dw0), 0);
	assert_int_equal(dw0, 1 << 16 | 1);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, NVME_FEATURE_NUMBER_OF_QUEUES, 0, &dw0), 0);
	assert_int_equal(dw0, 1 << 16 | 1);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_NUMBER_OF_QUEUES, 0xffff, NULL),
		NVME_SC_INVALID_FIELD);
	bench_create_queue(bench, 2, 16);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_NUMBER_OF_QUEUES, 1 << 16 | 1, NULL),
		NVME_SC_SEQUENCE_ERROR);
}

static void test_number_of_queues(void **state) { bench_test(&(struct emu_options){.queues_max = 8}, features_queues); }

MAY_WAIT static uint32_t cache_feature(struct bench *bench, unsigned select)
{
	uint32_t dw0;
	assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, select << 8 | NVME_FEATURE_VOLATILE_CACHE, 0, &dw0), 0);
	return dw0;
}

MAY_WAIT static uint16_t cache_set(struct bench *bench, uint32_t value)
{
	return bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_VOLATILE_CACHE, value, NULL);
}

MAY_WAIT static void features_cache(struct bench *bench)
{
	bench_enable(bench, 16);
	assert_int_equal(cache_feature(bench, 0), 1);
	assert_int_equal(cache_set(bench, 0), 0);
	assert_int_equal(cache_feature(bench, 0), 0);
	assert_int_equal(cache_feature(bench, 1), 1);
	assert_int_equal(cache_feature(bench, 3), 4);
	bench_disable(bench);
	bench_enable(bench, 16);
	assert_int_equal(cache_feature(bench, 0), 1);
}

static void test_the_cache_can_be_turned_off_until_the_next_reset(void **state) { bench_test(&none, features_cache); }

MAY_WAIT static void features_cache_fixed(struct bench *bench)
{
	bench_enable(bench, 16);
	assert_int_equal(cache_set(bench, 0), NVME_SC_FEATURE_NOT_CHANGEABLE);
	assert_int_equal(cache_feature(bench, 0), 1);
	assert_int_equal(cache_feature(bench, 3), 0);
}

static void test_a_fixed_cache_stays_on(void **state)
{
	bench_test(&(struct emu_options){.cache_fixed = true}, features_cache_fixed);
}

MAY_WAIT static void features_others(struct bench *bench)
{
	uint32_t dw0;
	bench_enable(bench, 16);
	assert_int_equal(cache_set(bench, 0), NVME_SC_INVALID_FIELD);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, NVME_FEATURE_VOLATILE_CACHE, 0, &dw0),
		NVME_SC_INVALID_FIELD);
	assert_int_equal(dw0, 0);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_ASYNC_EVENTS, 0x11f, NULL), 0);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, NVME_FEATURE_ASYNC_EVENTS, 0, &dw0), 0);
	assert_int_equal(dw0, 0x11f);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, 0x7f, 0, NULL), NVME_SC_INVALID_FIELD);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, 0x7f, 0, NULL), NVME_SC_INVALID_FIELD);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, 7 << 8 | 7, 0, NULL), NVME_SC_INVALID_FIELD);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, 1u << 31 | NVME_FEATURE_ASYNC_EVENTS, 0, NULL),
		NVME_SC_FEATURE_NOT_SAVEABLE);
}

static void test_other_features(void **state)
{
	bench_test(&(struct emu_options){.no_volatile_cache = true}, features_others);
}

/* ---- queues ---- */

MAY_WAIT static uint16_t create(struct bench *bench, uint8_t opcode, uint32_t cdw10, uint32_t cdw11, uint64_t prp1)
{
	struct nvme_command command = bench_command(opcode, 0);
	command.cdw10 = le32_set(cdw10);
	command.cdw11 = le32_set(cdw11);
	command.prp1 = le64_set(prp1);
	return bench_do(bench, 0, command, NULL);
}

MAY_WAIT static void create_errors(struct bench *bench)
{
	const uint64_t page = bench_address(bench_page(bench, 16));
	const uint8_t cq = NVME_ADMIN_CREATE_CQ, sq = NVME_ADMIN_CREATE_SQ;
	bench_enable(bench, 16);
	bench_create_queue(bench, 1, 16);
	assert_int_equal(create(bench, cq, 15 << 16 | 0, 1, page), NVME_SC_INVALID_QID);
	assert_int_equal(create(bench, cq, 15 << 16 | 1, 1, page), NVME_SC_INVALID_QID);
	assert_int_equal(create(bench, cq, 15 << 16 | 5, 1, page), NVME_SC_INVALID_QID);
	assert_int_equal(create(bench, cq, 0 << 16 | 2, 1, page), NVME_SC_INVALID_QUEUE_SIZE);
	assert_int_equal(create(bench, cq, 32 << 16 | 2, 1, page), NVME_SC_INVALID_QUEUE_SIZE);
	assert_int_equal(create(bench, cq, 15 << 16 | 2, 0, page), NVME_SC_INVALID_FIELD);
	assert_int_equal(create(bench, cq, 15 << 16 | 2, 1, page + 8), NVME_SC_PRP_OFFSET_INVALID);
	assert_int_equal(create(bench, cq, 15 << 16 | 2, 1, 0), NVME_SC_INVALID_FIELD);
	assert_int_equal(create(bench, cq, 15 << 16 | 2, 1, 1ull << 62), NVME_SC_DATA_TRANSFER_ERROR);
	assert_int_equal(create(bench, cq, 15 << 16 | 2, 5 << 16 | 3, page), NVME_SC_INVALID_INTERRUPT_VECTOR);
	assert_int_equal(create(bench, sq, 15 << 16 | 1, 1 << 16 | 1, page), NVME_SC_INVALID_QID);
	assert_int_equal(create(bench, sq, 15 << 16 | 2, 0 << 16 | 1, page), NVME_SC_INVALID_CQ);
	assert_int_equal(create(bench, sq, 15 << 16 | 2, 2 << 16 | 1, page), NVME_SC_INVALID_CQ);
	assert_int_equal(create(bench, sq, 15 << 16 | 2, 99 << 16 | 1, page), NVME_SC_INVALID_CQ);
	assert_int_equal(create(bench, sq, 15 << 16 | 2, 1 << 16 | 0, page), NVME_SC_INVALID_FIELD);
	assert_int_equal(create(bench, sq, 15 << 16 | 2, 1 << 16 | 1, page), 0);
}

static void test_queues_that_cannot_be_created(void **state)
{
	bench_test(&(struct emu_options){.queues_max = 4, .depth_max = 32}, create_errors);
}

MAY_WAIT static void deletion(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_CQ, 1, 0, NULL), NVME_SC_INVALID_QUEUE_DELETION);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_CQ, 0, 0, NULL), NVME_SC_INVALID_QID);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_CQ, 2, 0, NULL), NVME_SC_INVALID_QID);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_SQ, 0, 0, NULL), NVME_SC_INVALID_QID);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_SQ, 9999, 0, NULL), NVME_SC_INVALID_QID);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_SQ, 1, 0, NULL), 0);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_SQ, 1, 0, NULL), NVME_SC_INVALID_QID);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_CQ, 1, 0, NULL), 0);
	bench_create_queue(bench, 1, 32);
	assert_int_equal(bench_write(bench, 1, 1, 9, 0), 0);
}

static void test_queues_are_deleted_and_created_again(void **state) { bench_test(&none, deletion); }

MAY_WAIT static void deletion_of_a_busy_queue(struct bench *bench)
{
	struct nvme_completion completion;
	bench_bring_up(bench);
	bench->hold = true;
	const uint16_t read = bench_submit(bench, 1, bench_rw(NVME_CMD_READ, 0, 1, bench_page(bench, 0)));
	fiber_sleep(SETTLE_NS);
	struct nvme_command command = bench_command(NVME_ADMIN_DELETE_SQ, 0);
	command.cdw10 = le32_set(1);
	bench_submit(bench, 0, command);
	assert_false(bench_wait(bench, 0, &completion, SETTLE_NS));
	bench_unhold(bench);
	assert_true(bench_wait(bench, 0, &completion, NS_PER_SEC));
	assert_int_equal(bench_status(&completion), 0);
	assert_true(bench_poll(bench, 1, &completion));
	assert_int_equal(le16_get(completion.cid), read);
	assert_int_equal(bench_status(&completion), 0);
}

MAY_WAIT static void deletion_of_a_stuck_queue(struct bench *bench)
{
	struct nvme_completion completion;
	uint64_t interrupts;
	bench_bring_up(bench);
	for (unsigned i = 0; i < 3; i++)
		bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	assert_false(bench_wait(bench, 1, &completion, SETTLE_NS));
	const int fd = bench->transport->ops->interrupt_fd(bench->transport, 1);
	bench->transport->ops->arm(bench->transport, 1);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_DELETE_SQ, 1, 0, NULL), 0);
	assert_int_equal(read(fd, &interrupts, sizeof(interrupts)), sizeof(interrupts));
	for (unsigned i = 0; i < 3; i++) {
		assert_true(bench_poll(bench, 1, &completion));
		assert_int_equal(bench_status(&completion), NVME_SC_ABORTED_SQ_DELETION);
	}
}

static void test_deleting_a_queue_ends_what_is_stuck(void **state)
{
	bench_test(&(struct emu_options){.rule_count = 1, .rules = {{.action = EMU_RULE_STUCK_HARD}}}, deletion_of_a_stuck_queue);
}

static void test_deleting_a_queue_waits_for_its_commands(void **state) { bench_test(&none, deletion_of_a_busy_queue); }

MAY_WAIT static void wrap(struct bench *bench)
{
	uint32_t dw0;
	bench_enable(bench, 2);
	for (unsigned i = 0; i < 7; i++)
		assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, NVME_FEATURE_NUMBER_OF_QUEUES, 0, &dw0), 0);
	bench_create_queue(bench, 1, 3);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(bench_write(bench, i, 1, (uint8_t)i, 0), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(bench_read(bench, i), i);
}

static void test_the_phase_flips_at_every_wrap(void **state) { bench_test(&none, wrap); }

MAY_WAIT static void full_completion_queue(struct bench *bench)
{
	struct nvme_completion completion;
	uint16_t first = 0;
	bench_enable(bench, 16);
	bench_create_queue(bench, 1, 4);
	for (unsigned i = 0; i < 6; i++) {
		const uint16_t cid = bench_submit(bench, 1, bench_rw(NVME_CMD_READ, i, 1, bench_page(bench, i)));
		first = i == 0 ? cid : first;
		if (i == 2)
			fiber_sleep(SETTLE_NS);
	}
	fiber_sleep(SETTLE_NS);
	bool seen[6] = {false};
	for (unsigned i = 0; i < 6; i++) {
		assert_true(bench_wait(bench, 1, &completion, NS_PER_SEC));
		const unsigned index = (uint16_t)(le16_get(completion.cid) - first);
		assert_true(index < 6 && !seen[index]);
		seen[index] = true;
	}
	assert_false(bench_wait(bench, 1, &completion, SETTLE_NS));
}

static void test_completions_wait_for_room(void **state) { bench_test(&none, full_completion_queue); }

/* ---- commands that are no good ---- */

MAY_WAIT static void bad_commands(struct bench *bench)
{
	struct nvme_completion completion;
	bench_bring_up(bench);
	assert_int_equal(bench_do(bench, 0, bench_command(0x55, 0), NULL), NVME_SC_INVALID_OPCODE);
	assert_int_equal(bench_do(bench, 1, bench_command(0x55, 1), NULL), NVME_SC_INVALID_OPCODE);
	struct nvme_command fused = bench_command(NVME_CMD_FLUSH, 1);
	fused.flags = 1;
	assert_int_equal(bench_do(bench, 1, fused, NULL), NVME_SC_INVALID_FIELD);
	bench->hold = true;
	const uint16_t cid = bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	bench->next_cid = cid;
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	assert_true(bench_wait(bench, 1, &completion, NS_PER_SEC));
	assert_int_equal(bench_status(&completion), NVME_SC_CID_CONFLICT);
	bench_unhold(bench);
	assert_true(bench_wait(bench, 1, &completion, NS_PER_SEC));
	assert_int_equal(bench_status(&completion), 0);
	bench->next_cid = cid;
	assert_int_equal(bench_flush(bench), 0);
	struct emu_stats stats;
	emu_stats_read(bench->emu, &stats);
	assert_int_equal(stats.bad_commands, 4);
}

static void test_bad_commands_are_refused(void **state) { bench_test(&none, bad_commands); }

/* ---- shadow doorbells ---- */

MAY_WAIT static uint16_t configure_shadow(struct bench *bench, uint64_t shadow, uint64_t event_index)
{
	struct nvme_command command = bench_command(NVME_ADMIN_DOORBELL_BUFFER, 0);
	command.prp1 = le64_set(shadow);
	command.prp2 = le64_set(event_index);
	return bench_do(bench, 0, command, NULL);
}

MAY_WAIT static void shadow_doorbells(struct bench *bench)
{
	uint8_t *shadow = bench_page(bench, 20), *event_index = bench_page(bench, 21);
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 1, 1, 0x11, 0), 0);
	assert_int_equal(configure_shadow(bench, bench_address(shadow) + 4, bench_address(event_index)),
		NVME_SC_PRP_OFFSET_INVALID);
	assert_int_equal(configure_shadow(bench, bench_address(shadow), 0), NVME_SC_INVALID_FIELD);
	assert_int_equal(configure_shadow(bench, bench_address(shadow), bench_address(event_index)), 0);
	bench->shadow = (uint32_t *)shadow;
	bench->event_index = (uint32_t *)event_index;
	assert_int_equal(bench->shadow[2], 1);
	bench_create_queue(bench, 2, 8);
	const unsigned writes = atomic_load(&bench->emu->port->writes);
	for (unsigned i = 0; i < 100; i++)
		assert_int_equal(bench_write(bench, i, 1, (uint8_t)i, 0), 0);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(bench_do(bench, 2, bench_rw(NVME_CMD_READ, i, 1, bench_page(bench, 3)), NULL), 0);
	assert_true(atomic_load(&bench->emu->port->writes) - writes < 20); /* once a lap */
	bench->shadow = NULL;
	bench_disable(bench);
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 99), 99);
}

static void test_shadow_doorbells_replace_those_of_io_queues(void **state) { bench_test(&none, shadow_doorbells); }

MAY_WAIT static void no_shadow_doorbells(struct bench *bench)
{
	bench_enable(bench, 16);
	assert_int_equal(configure_shadow(bench, bench_address(bench_page(bench, 20)), bench_address(bench_page(bench, 21))),
		NVME_SC_INVALID_OPCODE);
}

static void test_shadow_doorbells_can_be_absent(void **state)
{
	bench_test(&(struct emu_options){.no_shadow_doorbells = true}, no_shadow_doorbells);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_registers_at_power_on),
		cmocka_unit_test(test_enabling_and_disabling_again_and_again),
		cmocka_unit_test(test_enabling_with_bad_values_is_fatal_until_reset),
		cmocka_unit_test(test_shutdown_notification_flushes),
		cmocka_unit_test(test_a_reset_ends_a_shutdown),
		cmocka_unit_test(test_identify_controller),
		cmocka_unit_test(test_identify_controller_without_its_features),
		cmocka_unit_test(test_identify_namespace),
		cmocka_unit_test(test_identify_active_namespaces),
		cmocka_unit_test(test_identifiers_stay_when_it_is_plugged_in_again),
		cmocka_unit_test(test_number_of_queues),
		cmocka_unit_test(test_the_cache_can_be_turned_off_until_the_next_reset),
		cmocka_unit_test(test_a_fixed_cache_stays_on),
		cmocka_unit_test(test_other_features),
		cmocka_unit_test(test_queues_that_cannot_be_created),
		cmocka_unit_test(test_queues_are_deleted_and_created_again),
		cmocka_unit_test(test_deleting_a_queue_waits_for_its_commands),
		cmocka_unit_test(test_deleting_a_queue_ends_what_is_stuck),
		cmocka_unit_test(test_the_phase_flips_at_every_wrap),
		cmocka_unit_test(test_completions_wait_for_room),
		cmocka_unit_test(test_bad_commands_are_refused),
		cmocka_unit_test(test_shadow_doorbells_replace_those_of_io_queues),
		cmocka_unit_test(test_shadow_doorbells_can_be_absent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
