/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a completion's status means: to the caller (an errno), to a person (words), to the driver (send it again?).
 */
#include <errno.h>

#include "nvme/nvme.h"

struct status_row {
	uint16_t code;
	int error;
	bool transient;   /* the same command may well succeed a moment later */
	const char *text;
};
static const struct status_row rows[] = {
	{NVME_SC_SUCCESS, 0, false, "success"},
	{NVME_SC_INVALID_OPCODE, -EOPNOTSUPP, false, "invalid opcode"},
	{NVME_SC_INVALID_FIELD, -EINVAL, false, "invalid field"},
	{NVME_SC_CID_CONFLICT, -EIO, true, "command id conflict"},
	{NVME_SC_DATA_TRANSFER_ERROR, -EIO, true, "data transfer error"},
	{NVME_SC_POWER_LOSS_ABORT, -ENODEV, false, "aborted by power loss"},
	{NVME_SC_INTERNAL_ERROR, -EIO, true, "internal error"},
	{NVME_SC_ABORTED_BY_REQUEST, -ECANCELED, true, "aborted by request"},
	{NVME_SC_ABORTED_SQ_DELETION, -ECANCELED, true, "aborted by deletion of its queue"},
	{NVME_SC_INVALID_NAMESPACE, -ENODEV, false, "invalid namespace"},
	{NVME_SC_SEQUENCE_ERROR, -EIO, false, "command sequence error"},
	{NVME_SC_PRP_OFFSET_INVALID, -EINVAL, false, "invalid PRP offset"},
	{NVME_SC_SANITIZE_IN_PROGRESS, -EBUSY, false, "sanitize in progress"},
	{NVME_SC_NS_WRITE_PROTECTED, -EROFS, false, "namespace is write protected"},
	{NVME_SC_COMMAND_INTERRUPTED, -EIO, true, "command interrupted"},
	{NVME_SC_TRANSIENT_TRANSPORT, -EIO, true, "transient transport error"},
	{NVME_SC_LBA_OUT_OF_RANGE, -EINVAL, false, "LBA out of range"},
	{NVME_SC_CAPACITY_EXCEEDED, -ENOSPC, false, "capacity exceeded"},
	{NVME_SC_NS_NOT_READY, -EIO, true, "namespace not ready"},
	{NVME_SC_FORMAT_IN_PROGRESS, -EBUSY, false, "format in progress"},
	{NVME_SC_INVALID_CQ, -EINVAL, false, "invalid completion queue"},
	{NVME_SC_INVALID_QID, -EINVAL, false, "invalid queue identifier"},
	{NVME_SC_INVALID_QUEUE_SIZE, -EINVAL, false, "invalid queue size"},
	{NVME_SC_ABORT_LIMIT_EXCEEDED, -EBUSY, false, "abort limit exceeded"},
	{NVME_SC_AER_LIMIT_EXCEEDED, -EBUSY, false, "too many event requests"},
	{NVME_SC_INVALID_INTERRUPT_VECTOR, -EINVAL, false, "invalid interrupt vector"},
	{NVME_SC_INVALID_LOG_PAGE, -EOPNOTSUPP, false, "invalid log page"},
	{NVME_SC_INVALID_QUEUE_DELETION, -EINVAL, false, "invalid queue deletion"},
	{NVME_SC_FEATURE_NOT_SAVEABLE, -EOPNOTSUPP, false, "feature cannot be saved"},
	{NVME_SC_FEATURE_NOT_CHANGEABLE, -EOPNOTSUPP, false, "feature cannot be changed"},
	{NVME_SC_ATTEMPTED_WRITE_TO_RO, -EROFS, false, "write to a read-only range"},
	{NVME_SC_WRITE_FAULT, -EILSEQ, false, "write fault"},
	{NVME_SC_UNRECOVERED_READ, -EILSEQ, false, "unrecovered read error"},
	{NVME_SC_GUARD_CHECK, -EILSEQ, false, "guard check error"},
	{NVME_SC_ACCESS_DENIED, -EACCES, false, "access denied"},
	{NVME_SC_DEALLOCATED, -EILSEQ, false, "deallocated or unwritten block"},
};

static const struct status_row *status_row(uint16_t status)
{
	const uint16_t code = NVME_STATUS(FIELD_GET(STATUS_SCT, status), FIELD_GET(STATUS_SC, status));
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (rows[i].code == code)
			return &rows[i];
	return NULL;
}

int nvme_status_errno(uint16_t status)
{
	const struct status_row *row = status_row(status);
	if (row)
		return row->error;
	return FIELD_GET(STATUS_SCT, status) == NVME_SCT_MEDIA ? -EILSEQ : -EIO;
}

const char *nvme_status_text(uint16_t status)
{
	static const char *const types[8] = {"unknown generic status", "unknown command specific status",
		"unknown media error", "path error", "reserved status", "reserved status", "reserved status", "vendor specific status"};
	const struct status_row *row = status_row(status);
	return row ? row->text : types[FIELD_GET(STATUS_SCT, status)];
}

bool nvme_status_retry(uint16_t status)
{
	const struct status_row *row = status_row(status);
	if (FIELD_GET(STATUS_DNR, status) || (row && row->error == 0))
		return false;
	/* What we do not know gets the benefit of the doubt, except that media errors are verdicts. */
	return row ? row->transient : FIELD_GET(STATUS_SCT, status) != NVME_SCT_MEDIA;
}
