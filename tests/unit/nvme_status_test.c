/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: every status that a controller can answer has an errno that its callers understand, words, and a verdict on
 * sending again; what the driver does not know is an error, never a success. Method: all 2^15 of them.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "nvme/nvme.h"

#define DNR ((uint16_t)FIELD_SET(STATUS_DNR, 1))
#define MORE ((uint16_t)FIELD_SET(STATUS_MORE, 1))
#define CRD(n) ((uint16_t)FIELD_SET(STATUS_CRD, n))

static void test_only_success_is_success(void **state)
{
	for (unsigned status = 0; status < 1u << 15; status++) {
		const bool success = (status & 0x7ff) == 0;
		assert_int_equal(nvme_status_errno((uint16_t)status) == 0, success);
		assert_true(nvme_status_errno((uint16_t)status) <= 0);
		if (success)
			assert_false(nvme_status_retry((uint16_t)status));
	}
}

static void test_every_status_has_words(void **state)
{
	for (unsigned status = 0; status < 1u << 15; status++) {
		const char *text = nvme_status_text((uint16_t)status);
		assert_non_null(text);
		assert_true(text[0] != '\0');
	}
	assert_string_equal(nvme_status_text(NVME_SC_UNRECOVERED_READ), "unrecovered read error");
	assert_string_equal(nvme_status_text(NVME_STATUS(NVME_SCT_VENDOR, 0x81)), "vendor specific status");
	assert_string_equal(nvme_status_text(NVME_STATUS(NVME_SCT_PATH, 0x70)), "path error");
}

static void test_flags_change_neither_errno_nor_words(void **state)
{
	for (unsigned code = 0; code < 1u << 11; code++)
		for (unsigned flags = 0; flags < 16; flags++) {
			const uint16_t plain = (uint16_t)code, flagged = (uint16_t)(code | flags << 11);
			assert_int_equal(nvme_status_errno(flagged), nvme_status_errno(plain));
			assert_ptr_equal(nvme_status_text(flagged), nvme_status_text(plain));
		}
}

static void test_do_not_retry_is_obeyed_always(void **state)
{
	for (unsigned status = 0; status < 1u << 15; status++)
		if (status & DNR)
			assert_false(nvme_status_retry((uint16_t)status));
}

/* What blockdev and the filesystem go by. */
static void test_errnos_by_kind(void **state)
{
	static const struct {
		uint16_t status;
		int error;
	} rows[] = {
		{NVME_SC_INVALID_OPCODE, -EOPNOTSUPP}, {NVME_SC_INVALID_FIELD, -EINVAL}, {NVME_SC_LBA_OUT_OF_RANGE, -EINVAL},
		{NVME_SC_CAPACITY_EXCEEDED, -ENOSPC}, {NVME_SC_NS_WRITE_PROTECTED, -EROFS}, {NVME_SC_ATTEMPTED_WRITE_TO_RO, -EROFS},
		{NVME_SC_INVALID_NAMESPACE, -ENODEV}, {NVME_SC_POWER_LOSS_ABORT, -ENODEV}, {NVME_SC_ABORTED_BY_REQUEST, -ECANCELED},
		{NVME_SC_UNRECOVERED_READ, -EILSEQ}, {NVME_SC_WRITE_FAULT, -EILSEQ}, {NVME_SC_GUARD_CHECK, -EILSEQ},
		{NVME_SC_ACCESS_DENIED, -EACCES}, {NVME_STATUS(NVME_SCT_MEDIA, 0x7f), -EILSEQ}, {NVME_STATUS(NVME_SCT_PATH, 3), -EIO},
		{NVME_STATUS(NVME_SCT_VENDOR, 0xff), -EIO}, {NVME_STATUS(NVME_SCT_GENERIC, 0x7f), -EIO},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(nvme_status_errno(rows[i].status), rows[i].error);
}

static void test_what_is_sent_again(void **state)
{
	static const uint16_t transient[] = {NVME_SC_DATA_TRANSFER_ERROR, NVME_SC_INTERNAL_ERROR, NVME_SC_ABORTED_BY_REQUEST,
		NVME_SC_NS_NOT_READY, NVME_SC_COMMAND_INTERRUPTED, NVME_SC_TRANSIENT_TRANSPORT, NVME_STATUS(NVME_SCT_PATH, 0),
		NVME_STATUS(NVME_SCT_VENDOR, 1), NVME_STATUS(NVME_SCT_GENERIC, 0x7f)};
	static const uint16_t verdicts[] = {NVME_SC_INVALID_OPCODE, NVME_SC_INVALID_FIELD, NVME_SC_LBA_OUT_OF_RANGE,
		NVME_SC_CAPACITY_EXCEEDED, NVME_SC_NS_WRITE_PROTECTED, NVME_SC_INVALID_NAMESPACE, NVME_SC_UNRECOVERED_READ,
		NVME_SC_WRITE_FAULT, NVME_SC_ACCESS_DENIED, NVME_STATUS(NVME_SCT_MEDIA, 0x7f)};
	for (unsigned i = 0; i < ARRAY_SIZE(transient); i++) {
		assert_true(nvme_status_retry(transient[i]));
		assert_true(nvme_status_retry(transient[i] | MORE | CRD(2)));
		assert_false(nvme_status_retry(transient[i] | DNR));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(verdicts); i++)
		assert_false(nvme_status_retry(verdicts[i]));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_only_success_is_success),
		cmocka_unit_test(test_every_status_has_words),
		cmocka_unit_test(test_flags_change_neither_errno_nor_words),
		cmocka_unit_test(test_do_not_retry_is_obeyed_always),
		cmocka_unit_test(test_errnos_by_kind),
		cmocka_unit_test(test_what_is_sent_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
