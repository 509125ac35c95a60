/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Asynchronous events (NVMe Base 2.0, 5.2): a few requests are kept with the controller; each that comes back is read,
 * acted on, and sent again. Reading the log page that an event names is what allows the next event of that kind. A
 * controller that refuses a request is not asked again before its next reset.
 */
#include <errno.h>
#include <stdlib.h>

#include "nvme/nvme_internal.h"
#include "reactor/log.h"

static void event_done(struct nvme_request *request)
{
	struct event_slot *slot = CONTAINER_OF(request, struct event_slot, request);
	slot->armed = false;
	slot->arrived = request->result == 0;
	slot->refused = request->result != 0 && request->status != STATUS_NONE;
	slot->dw0 = le32_get(request->command.cdw2);
	if (slot->arrived)
		ctrlr_poke(slot->ctrlr);
}

void events_arm(struct nvme_ctrlr *ctrlr)
{
	ctrlr->event_count = MIN(ctrlr->identify->aerl + 1u, (unsigned)EVENT_REQUESTS_MAX);
	for (unsigned i = 0; i < ctrlr->event_count; i++) {
		struct event_slot *slot = &ctrlr->events[i];
		if (slot->armed || slot->arrived || slot->refused)
			continue;
		slot->ctrlr = ctrlr;
		slot->armed = true;
		slot->request = (struct nvme_request){.command = {.opcode = NVME_ADMIN_ASYNC_EVENT}, .done = event_done};
		nvme_submit(ctrlr->admin, &slot->request);
	}
}

static void tell_health(struct nvme_ctrlr *ctrlr, const struct nvme_log_smart *smart)
{
	static const char *const warnings[] = {"spare space is low", "temperature out of range", "reliability degraded",
		"read only", "backup of the volatile memory failed", "persistent memory region unreliable"};
	for (unsigned i = 0; i < ARRAY_SIZE(warnings); i++)
		if (smart->critical_warning & 1u << i)
			log_error("%s: health: %s: back up its data, see lanefs health", ctrlr->transport->name, warnings[i]);
	if (smart->critical_warning && ctrlr->options.event)
		ctrlr->options.event(ctrlr, NVME_EVENT_HEALTH, 0, ctrlr->options.arg);
}

static MAY_WAIT void log_page(struct nvme_ctrlr *ctrlr, uint8_t page, uint32_t nsid, void *out, uint32_t length)
{
	const int err = nvme_log_page_read(ctrlr, page, nsid, out, length);
	if (err) {
		memset(out, 0, length);
		log_warn("%s: log page %u cannot be read: %s", ctrlr->transport->name, page, strerror(-err));
	}
}

static MAY_WAIT void event_handle(struct nvme_ctrlr *ctrlr, uint32_t dw0, void *page)
{
	const unsigned type = dw0 & 7, information = dw0 >> 8 & 0xff, log = dw0 >> 16 & 0xff;
	switch (type) {
	case NVME_EVENT_SMART:
		log_page(ctrlr, NVME_LOG_SMART, UINT32_MAX, page, sizeof(struct nvme_log_smart));
		tell_health(ctrlr, page);
		return;
	case NVME_EVENT_NOTICE:
		if (information != NVME_NOTICE_NS_CHANGED)
			break;
		log_page(ctrlr, NVME_LOG_CHANGED_NS, UINT32_MAX, page, PAGE_BYTES);
		if (namespaces_read(ctrlr, true) != 0)
			log_warn("%s: namespaces changed, but cannot be read", ctrlr->transport->name);
		return;
	case NVME_EVENT_ERROR: {
		const struct nvme_log_error *entry = page;
		log_page(ctrlr, NVME_LOG_ERROR, UINT32_MAX, page, sizeof(*entry));
		log_warn("%s: reports an error (information %u): count %llu, queue %u, status %03x", ctrlr->transport->name,
			information, (unsigned long long)le64_get(entry->count), le16_get(entry->sqid),
			le16_get(entry->status) >> 1 & 0x7ff);
		return;
	}
	default:
		break;
	}
	log_info("%s: event of type %u, information %u, log page %u", ctrlr->transport->name, type, information, log);
	if (log != 0)
		log_page(ctrlr, (uint8_t)log, UINT32_MAX, page, 512);
}

MAY_WAIT void events_handle(struct nvme_ctrlr *ctrlr)
{
	void *page = NULL;
	for (unsigned i = 0; i < ctrlr->event_count; i++) {
		struct event_slot *slot = &ctrlr->events[i];
		if (!slot->arrived)
			continue;
		if (!page && !(page = malloc(PAGE_BYTES)))
			break; /* it stays until the next round */
		slot->arrived = false;
		event_handle(ctrlr, slot->dw0, page);
	}
	free(page);
	if (ctrlr->state == CTRLR_READY)
		events_arm(ctrlr);
}
