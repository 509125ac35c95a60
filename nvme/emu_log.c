/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Log pages and asynchronous events (Base 2.0, 5.2 and 5.16).
 *
 * The host leaves event requests with the controller; an event answers one. After that events of the same kind are
 * masked until the host has read the log page that goes with it (unless it reads with "retain asynchronous event").
 * An event that finds no request, or is masked, is kept: the latest of each kind.
 */
#include <errno.h>

#include "nvme/emu_internal.h"

enum { RETAIN_EVENT = 1 << 15, TEMPERATURE_KELVIN = 313, SPARE_PERCENT = 100, SPARE_THRESHOLD_PERCENT = 10 };
enum { SECTORS_PER_UNIT = 1000 };

void emu_log_init(struct emu *emu) { CDS_INIT_LIST_HEAD(&emu->event_requests); }

/* ---- events ---- */

static bool event_wanted(const struct emu *emu, enum emu_event_kind kind)
{
	switch (kind) {
	case EMU_EVENT_SMART: return emu->event_config & NVME_EVENTS_SMART;
	case EMU_EVENT_NOTICE: return emu->event_config & NVME_EVENTS_NS_ATTRIBUTE;
	default: return true;
	}
}

static uint32_t event_dw0(enum emu_event_kind kind, uint8_t information)
{
	static const struct {
		uint8_t type, page;
	} kinds[EMU_EVENT_KINDS] = {
		[EMU_EVENT_ERROR] = {NVME_EVENT_ERROR, NVME_LOG_ERROR},
		[EMU_EVENT_SMART] = {NVME_EVENT_SMART, NVME_LOG_SMART},
		[EMU_EVENT_NOTICE] = {NVME_EVENT_NOTICE, NVME_LOG_CHANGED_NS},
	};
	return (uint32_t)kinds[kind].page << 16 | (uint32_t)information << 8 | kinds[kind].type;
}

static void events_deliver(struct emu *emu)
{
	for (unsigned kind = 0; kind < EMU_EVENT_KINDS; kind++) {
		if (!emu->event[kind] || emu->event_masked[kind] || cds_list_empty(&emu->event_requests))
			continue;
		struct emu_command *request = cds_list_first_entry(&emu->event_requests, struct emu_command, wait);
		cds_list_del_init(&request->wait);
		request->place = EMU_AT_WORK;
		request->dw0 = emu->event[kind];
		emu->event[kind] = 0;
		emu->event_masked[kind] = true;
		emu_command_complete(request, 0);
	}
}

void emu_event_raise(struct emu *emu, enum emu_event_kind kind, uint8_t information)
{
	if (emu->state != EMU_READY || !event_wanted(emu, kind))
		return;
	emu->event[kind] = event_dw0(kind, information);
	events_deliver(emu);
}

void emu_event_request(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const struct cds_list_head *node;
	unsigned count = 0;
	cds_list_for_each(node, &emu->event_requests)
		count++;
	if (count == EMU_EVENTS_MAX) {
		emu_command_complete(command, NVME_SC_AER_LIMIT_EXCEEDED | EMU_DNR);
		return;
	}
	command->place = EMU_AT_EVENTS;
	cds_list_add_tail(&command->wait, &emu->event_requests);
	events_deliver(emu);
}

void emu_events_forget(struct emu *emu)
{
	memset(emu->event, 0, sizeof(emu->event));
	memset(emu->event_masked, 0, sizeof(emu->event_masked));
}

static void event_unmask(struct emu *emu, enum emu_event_kind kind)
{
	emu->event_masked[kind] = false;
	events_deliver(emu);
}

/* ---- what is logged ---- */

/* What a driver should not have sent. */
static bool status_is_reproach(uint16_t status)
{
	switch (NVME_STATUS(FIELD_GET(STATUS_SCT, status), FIELD_GET(STATUS_SC, status))) {
	case NVME_SC_INVALID_OPCODE:
	case NVME_SC_INVALID_FIELD:
	case NVME_SC_CID_CONFLICT:
	case NVME_SC_DATA_TRANSFER_ERROR:
	case NVME_SC_INVALID_NAMESPACE:
	case NVME_SC_SEQUENCE_ERROR:
	case NVME_SC_PRP_OFFSET_INVALID:
	case NVME_SC_LBA_OUT_OF_RANGE:
		return true;
	default:
		return FIELD_GET(STATUS_SCT, status) == NVME_SCT_SPECIFIC;
	}
}

void emu_error_record(const struct emu_command *command, uint16_t status)
{
	struct emu *emu = command->emu;
	emu->stats.bad_commands += status_is_reproach(status);
	struct nvme_log_error *entry = &emu->errors[emu->error_count % EMU_ERRORS_MAX];
	*entry = (struct nvme_log_error){
		.count = le64_set(++emu->error_count),
		.sqid = le16_set(command->sq->id),
		.cid = command->entry.cid,
		.status = le16_set((uint16_t)(status << 1)),
		.location = le16_set(0xffff),
		.nsid = command->entry.nsid,
	};
	if (!command->admin)
		entry->lba = le64_set(le32_get(command->entry.cdw10) | (uint64_t)le32_get(command->entry.cdw11) << 32);
}

/* Newest first. */
static size_t error_page(struct emu *emu)
{
	struct nvme_log_error *out = (struct nvme_log_error *)emu->page;
	for (uint64_t i = 0; i < MIN(emu->error_count, (uint64_t)EMU_ERRORS_MAX); i++)
		out[i] = emu->errors[(emu->error_count - 1 - i) % EMU_ERRORS_MAX];
	return sizeof(emu->errors);
}

static void counter_set(uint8_t out[16], uint64_t value)
{
	const le64_t low = le64_set(value);
	memcpy(out, &low, sizeof(low));
}

static size_t smart_page(struct emu *emu)
{
	struct nvme_log_smart *out = (struct nvme_log_smart *)emu->page;
	const struct emu_counters *counters = &emu->counters;
	const le16_t temperature = le16_set(TEMPERATURE_KELVIN);
	const uint64_t seconds = (reactor_now_ns() - emu->created_ns) / NS_PER_SEC;
	out->critical_warning = emu->critical_warning;
	memcpy(out->temperature, &temperature, sizeof(temperature));
	out->available_spare = SPARE_PERCENT;
	out->spare_threshold = SPARE_THRESHOLD_PERCENT;
	counter_set(out->data_units_read, div_round_up(counters->read_sectors, SECTORS_PER_UNIT));
	counter_set(out->data_units_written, div_round_up(counters->written_sectors, SECTORS_PER_UNIT));
	counter_set(out->host_reads, counters->read_commands);
	counter_set(out->host_writes, counters->write_commands);
	counter_set(out->power_cycles, counters->power_cycles);
	counter_set(out->power_on_hours, seconds / 3600);
	counter_set(out->unsafe_shutdowns, counters->unsafe_shutdowns);
	counter_set(out->media_errors, counters->media_errors);
	counter_set(out->error_entries, emu->error_count);
	return sizeof(*out);
}

static size_t changed_page(struct emu *emu)
{
	le32_t *list = (le32_t *)emu->page;
	unsigned count = 0;
	for (unsigned i = 0; i < emu->options.namespaces; i++)
		if (emu->changed_ns >> i & 1)
			list[count++] = le32_set(i + 1);
	return sizeof(emu->page);
}

/* ---- Get Log Page ---- */

struct log_request {
	uint8_t page;
	bool retain;
	uint64_t length, offset;
};

static struct log_request request_parse(const struct nvme_command *entry)
{
	const uint32_t cdw10 = le32_get(entry->cdw10);
	const uint64_t dwords = (cdw10 >> 16 | (uint64_t)(le32_get(entry->cdw11) & 0xffff) << 16) + 1;
	return (struct log_request){
		.page = (uint8_t)cdw10,
		.retain = cdw10 & RETAIN_EVENT,
		.length = dwords * sizeof(uint32_t),
		.offset = le32_get(entry->cdw12) | (uint64_t)le32_get(entry->cdw13) << 32,
	};
}

/* Builds the page; the size of it, 0: there is no such page. */
static size_t page_build(struct emu *emu, uint8_t page, enum emu_event_kind *kind)
{
	memset(emu->page, 0, sizeof(emu->page));
	switch (page) {
	case NVME_LOG_ERROR:
		*kind = EMU_EVENT_ERROR;
		return error_page(emu);
	case NVME_LOG_SMART:
		*kind = EMU_EVENT_SMART;
		return smart_page(emu);
	case NVME_LOG_CHANGED_NS:
		*kind = EMU_EVENT_NOTICE;
		return changed_page(emu);
	default:
		return 0;
	}
}

void emu_log_read(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const struct log_request request = request_parse(&command->entry);
	const uint32_t nsid = le32_get(command->entry.nsid);
	enum emu_event_kind kind = 0;
	const size_t size = page_build(emu, request.page, &kind);
	uint16_t status = 0;
	if (!size)
		status = NVME_SC_INVALID_LOG_PAGE | EMU_DNR;
	else if (request.length > EMU_ADMIN_DATA_MAX || request.offset % sizeof(uint32_t) || request.offset > size ||
		(nsid != 0 && nsid != EMU_NSID_ALL))
		status = NVME_SC_INVALID_FIELD | EMU_DNR;
	else
		status = emu_dma_send(command, emu->page + request.offset, size - request.offset, request.length);
	emu_command_complete(command, status);
	if (status || request.retain)
		return;
	if (kind == EMU_EVENT_NOTICE)
		emu->changed_ns = emu->event[kind] = 0; /* the list has told all of it */
	event_unmask(emu, kind);
}

/* ---- changes that the host is told of ---- */

static void ns_changed(struct emu *emu, const struct emu_ns *ns)
{
	emu->changed_ns |= 1ull << (ns->nsid - 1);
	emu_event_raise(emu, EMU_EVENT_NOTICE, NVME_NOTICE_NS_CHANGED);
}

int emu_ns_attach(struct emu *emu, uint32_t nsid, bool attached)
{
	struct emu_ns *ns = emu_ns_get(emu, nsid);
	if (!ns)
		return -EINVAL;
	if (ns->attached == attached)
		return 0;
	ns->attached = attached;
	ns_changed(emu, ns);
	return 0;
}

int emu_ns_resize(struct emu *emu, uint32_t nsid, uint64_t blocks)
{
	struct emu_ns *ns = emu_ns_get(emu, nsid);
	if (!ns || blocks == 0 || blocks > ns->blocks_max)
		return -EINVAL;
	if (ns->blocks == blocks)
		return 0;
	ns->blocks = blocks;
	ns_changed(emu, ns);
	return 0;
}

bool emu_medium_grew(struct emu *emu, uint64_t size_bytes)
{
	struct emu_ns *ns = &emu->ns[0];
	const uint64_t before = ns->blocks_max, after = align_down(size_bytes, EMU_PAGE) / emu->options.lba_bytes;
	if (emu->options.namespaces != 1 || after <= before)
		return false;
	emu->backing.size_bytes = size_bytes;
	ns->blocks_max = after;
	return ns->blocks == before && !emu_ns_resize(emu, ns->nsid, after);
}

void emu_set_health(struct emu *emu, uint8_t critical_warning)
{
	/* The event's information: 0 reliability, 1 temperature, 2 spare below threshold. */
	const uint8_t information = critical_warning & 1 ? 2 : critical_warning & 2 ? 1 : 0;
	emu->critical_warning = critical_warning;
	if (critical_warning)
		emu_event_raise(emu, EMU_EVENT_SMART, information);
}
