/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Admin commands. Data goes through a page of the slot, never through the caller's memory: a command that is given up
 * keeps its slot until the controller is reset, and the caller's buffer is free at once.
 */
#include <errno.h>
#include <stdlib.h>

#include "nvme/nvme_internal.h"
#include "reactor/log.h"
#include "reactor/memory.h"

int admin_create(struct nvme_ctrlr *ctrlr)
{
	ctrlr->slot_pages = dma_zalloc((size_t)ADMIN_SLOTS * PAGE_BYTES, PAGE_BYTES);
	ctrlr->identify = calloc(1, sizeof(*ctrlr->identify));
	if (!ctrlr->slot_pages || !ctrlr->identify)
		return -ENOMEM;
	for (unsigned i = 0; i < ADMIN_SLOTS; i++)
		ctrlr->slots[i].page = (char *)ctrlr->slot_pages + (size_t)i * PAGE_BYTES;
	/* CAP.MQES does not speak of the admin queue: AQA has up to 4096 entries for every controller (Base 2.0, 3.1.3.1 and 3.1.3.8). */
	return qpair_create(ctrlr, 0, ADMIN_DEPTH, ctrlr->home, &ctrlr->admin);
}

void admin_destroy(struct nvme_ctrlr *ctrlr)
{
	qpair_destroy(ctrlr->admin);
	if (ctrlr->slot_pages)
		dma_free(ctrlr->slot_pages);
	free(ctrlr->identify);
}

static struct admin_slot *slot_find(struct nvme_ctrlr *ctrlr)
{
	for (unsigned i = 0; i < ADMIN_SLOTS; i++)
		if (!ctrlr->slots[i].busy)
			return &ctrlr->slots[i];
	return NULL;
}

static void slot_done(struct nvme_request *request)
{
	struct admin_slot *slot = CONTAINER_OF(request, struct admin_slot, request);
	slot->dw0 = le32_get(request->command.cdw2);
	slot->done = true;
	slot->ctrlr->admin_busy--;
	if (slot->abandoned)
		slot->busy = slot->abandoned = false;
	fiber_cond_broadcast(&slot->ctrlr->changed);
}

static void slot_submit(struct nvme_ctrlr *ctrlr, struct admin_slot *slot, const struct nvme_admin *admin)
{
	slot->busy = true;
	slot->done = slot->abandoned = false;
	slot->ctrlr = ctrlr;
	slot->iov = (struct iovec){.iov_base = slot->page, .iov_len = admin->length};
	slot->request = (struct nvme_request){
		.command = admin->command,
		.iov = admin->length ? &slot->iov : NULL,
		.iov_count = admin->length ? 1 : 0,
		.length = admin->length,
		.done = slot_done,
	};
	if (admin->length && admin->to_controller)
		memcpy(slot->page, admin->data, admin->length);
	else
		memset(slot->page, 0, PAGE_BYTES);
	ctrlr->admin_busy++;
	nvme_submit(ctrlr->admin, &slot->request);
}

static int slot_result(struct nvme_ctrlr *ctrlr, struct admin_slot *slot, const struct nvme_admin *admin, uint32_t *dw0)
{
	const int err = slot->request.result;
	if (err == 0 && admin->length && !admin->to_controller)
		memcpy(admin->data, slot->page, admin->length);
	if (err == 0 && dw0)
		*dw0 = slot->dw0;
	if (err != 0 && !admin->quiet && slot->request.status != STATUS_NONE)
		log_warn("%s: admin command %02x failed: %s (status %03x)", ctrlr->transport->name, admin->command.opcode,
			nvme_status_text(slot->request.status), slot->request.status & 0x7ff);
	slot->busy = false;
	fiber_cond_broadcast(&ctrlr->changed);
	return err;
}

/* Waits for a change. False: no longer; the device is gone, or time is up, the caller's or that of a stop. The minder
 * may be the one that waits, so nobody else looks at the registers. */
static MAY_WAIT bool admin_wait(struct nvme_ctrlr *ctrlr, uint64_t deadline_ns, const char *why)
{
	const uint64_t now_ns = reactor_running_ns();
	const uint64_t end_ns = ctrlr->stop_wanted ? MIN(deadline_ns, ctrlr->stop_deadline_ns) : deadline_ns;
	if (now_ns >= end_ns || ctrlr_vanished(ctrlr))
		return false;
	fiber_cond_wait_for(&ctrlr->changed, MIN(end_ns - now_ns, MINDER_PERIOD_MS * NS_PER_MS), why);
	return true;
}

MAY_WAIT int admin_run(struct nvme_ctrlr *ctrlr, const struct nvme_admin *admin, uint32_t *dw0)
{
	assert(admin->length <= PAGE_BYTES);
	const uint64_t deadline_ns = reactor_running_ns() + ctrlr->options.admin_timeout_ns;
	struct admin_slot *slot;
	while (!(slot = slot_find(ctrlr)))
		if (!admin_wait(ctrlr, deadline_ns, "a slot for an admin command"))
			return ctrlr_gone(ctrlr) ? -ENODEV : -ETIMEDOUT;
	slot_submit(ctrlr, slot, admin);
	while (!slot->done && admin_wait(ctrlr, deadline_ns, "an admin command"))
		;
	if (slot->done)
		return slot_result(ctrlr, slot, admin, dw0);
	slot->abandoned = true;
	if (ctrlr_gone(ctrlr) || reactor_running_ns() < deadline_ns)
		return -ENODEV;
	log_warn("%s: admin command %02x is not answered", ctrlr->transport->name, admin->command.opcode);
	ctrlr->reset_wanted = true;
	ctrlr_poke(ctrlr);
	return -ETIMEDOUT;
}

MAY_WAIT int nvme_admin_run(struct nvme_ctrlr *ctrlr, const struct nvme_admin *admin, uint32_t *dw0)
{
	const uint64_t deadline_ns = reactor_running_ns() + ctrlr->options.admin_timeout_ns + ctrlr->ready_timeout_ns;
	int err = 0;
	ctrlr_enter(ctrlr);
	while (!err && (ctrlr->state == CTRLR_STARTING || ctrlr->state == CTRLR_RESETTING)) {
		const uint64_t now_ns = reactor_running_ns();
		if (now_ns >= deadline_ns)
			err = -ETIMEDOUT;
		else
			fiber_cond_wait_for(&ctrlr->changed, deadline_ns - now_ns, "the end of a controller reset");
	}
	if (!err)
		err = ctrlr->state == CTRLR_READY ? admin_run(ctrlr, admin, dw0) : -ENODEV;
	ctrlr_leave(ctrlr);
	return err;
}

/* ---- commands that everybody needs ---- */

static struct nvme_admin identify_command(enum nvme_cns cns, uint32_t nsid, void *out)
{
	return (struct nvme_admin){
		.command = {.opcode = NVME_ADMIN_IDENTIFY, .nsid = le32_set(nsid), .cdw10 = le32_set(cns)},
		.data = out,
		.length = NVME_IDENTIFY_BYTES,
		.quiet = cns == NVME_CNS_NS_DESCRIPTORS, /* old controllers do not know it */
	};
}

MAY_WAIT int admin_identify(struct nvme_ctrlr *ctrlr, enum nvme_cns cns, uint32_t nsid, void *out)
{
	const struct nvme_admin admin = identify_command(cns, nsid, out);
	return admin_run(ctrlr, &admin, NULL);
}

MAY_WAIT int nvme_identify(struct nvme_ctrlr *ctrlr, enum nvme_cns cns, uint32_t nsid, void *out)
{
	const struct nvme_admin admin = identify_command(cns, nsid, out);
	return nvme_admin_run(ctrlr, &admin, NULL);
}

MAY_WAIT int nvme_log_page_read(struct nvme_ctrlr *ctrlr, uint8_t page, uint32_t nsid, void *out, uint32_t length)
{
	const uint32_t dwords = length / 4 - 1; /* NUMD, zero-based */
	const struct nvme_admin admin = {
		.command = {.opcode = NVME_ADMIN_GET_LOG_PAGE, .nsid = le32_set(nsid),
			.cdw10 = le32_set(page | (dwords & 0xffff) << 16), .cdw11 = le32_set(dwords >> 16)},
		.data = out,
		.length = length,
	};
	assert(length >= 4 && length % 4 == 0);
	return nvme_admin_run(ctrlr, &admin, NULL);
}

/* ---- abort ---- */

static void abort_done(struct nvme_request *request) { CONTAINER_OF(request, struct abort_slot, request)->busy = false; }

void admin_abort(struct nvme_ctrlr *ctrlr, uint16_t qid, uint16_t cid)
{
	const unsigned allowed = MIN(ctrlr->identify->acl + 1u, (unsigned)ABORT_SLOTS);
	for (unsigned i = 0; i < allowed; i++) {
		struct abort_slot *slot = &ctrlr->aborts[i];
		if (slot->busy)
			continue;
		slot->busy = true;
		slot->request = (struct nvme_request){
			.command = {.opcode = NVME_ADMIN_ABORT, .cdw10 = le32_set(qid | (uint32_t)cid << 16)},
			.done = abort_done,
		};
		ctrlr->info.aborts++;
		log_info("%s: queue %u: command id %u: asking the controller to abort it", ctrlr->transport->name, qid, cid);
		nvme_submit(ctrlr->admin, &slot->request);
		return;
	}
}
