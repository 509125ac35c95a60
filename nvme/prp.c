/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Physical Region Page entries (NVMe Base 2.0, 4.1.1): PRP1 is where the data begins, anywhere in a page; everything
 * after begins on a page. Two pages fit into the command; more go into the tracker's list, of which one page is enough,
 * since TRANSFER_BYTES_MAX is what it describes.
 */
#include <errno.h>

#include "nvme/nvme_internal.h"
#include "reactor/memory.h"

/* The controller goes by the length: beyond the vectors it would take what an earlier command left in the list. */
static bool vectors_join(const struct nvme_request *request)
{
	size_t length = 0;
	for (unsigned i = 0; i < request->iov_count; i++) {
		const uintptr_t base = (uintptr_t)request->iov[i].iov_base, end = base + request->iov[i].iov_len;
		if (i > 0 && base % PAGE_BYTES != 0)
			return false;
		if (i + 1 < request->iov_count && end % PAGE_BYTES != 0)
			return false;
		length += request->iov[i].iov_len;
	}
	return request->iov_count > 0 && length == request->length && ((uintptr_t)request->iov[0].iov_base & 3) == 0;
}

/* The range of a Dataset Management command is the tracker's page itself. */
static void prp_build_dsm(struct tracker *tracker, const struct nvme_request *request, struct nvme_command *command)
{
	*(struct nvme_dsm_range *)tracker->list = (struct nvme_dsm_range){
		.blocks = le32_set(request->dsm_blocks),
		.first_lba = le64_set(request->dsm_lba),
	};
	command->prp1 = le64_set(tracker->list_iova);
}

int prp_build(struct tracker *tracker, const struct nvme_request *request, struct nvme_command *command)
{
	if (request->dsm_blocks != 0)
		prp_build_dsm(tracker, request, command);
	if (request->length == 0)
		return 0; /* what a command without data has there is its caller's */
	if (!vectors_join(request))
		return -EINVAL;
	unsigned pages = 0;
	command->prp2 = le64_set(0);
	for (unsigned i = 0; i < request->iov_count; i++) {
		const char *at = request->iov[i].iov_base, *end = at + request->iov[i].iov_len;
		while (at < end) {
			const uint64_t iova = dma_iova(at);
			if (UNLIKELY(iova == UINT64_MAX))
				return -EFAULT;
			if (pages == 0)
				command->prp1 = le64_set(iova);
			else if (UNLIKELY(pages > PRP_LIST_ENTRIES))
				return -EINVAL;
			else
				tracker->list[pages - 1] = le64_set(iova);
			pages++;
			at = (const char *)(((uintptr_t)at | (PAGE_BYTES - 1)) + 1);
		}
	}
	if (pages == 2)
		command->prp2 = tracker->list[0];
	else if (pages > 2)
		command->prp2 = le64_set(tracker->list_iova);
	return 0;
}
