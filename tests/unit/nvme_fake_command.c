/* SPDX-License-Identifier: BSD-3-Clause */
/* What the fake controller's commands do, see nvme_fake.h. */
#include <stdlib.h>

#include "nvme_fake_internal.h"

/* ---- data ---- */

struct fake_ns *fake_ns(struct nvme_fake *fake, uint32_t nsid)
{
	for (unsigned i = 0; i < FAKE_NS_MAX; i++)
		if (nsid != 0 && fake->namespaces[i].nsid == nsid)
			return &fake->namespaces[i];
	return NULL;
}

uint8_t *fake_ns_data(struct fake_ns *ns)
{
	if (!ns->data) {
		ns->data = aligned_alloc(FAKE_PAGE, ns->blocks << ns->shift);
		assert(ns->data);
		memset(ns->data, 0, ns->blocks << ns->shift);
	}
	return ns->data;
}

static uint32_t io_length(struct nvme_fake *fake, const struct nvme_command *command)
{
	const struct fake_ns *ns = fake_ns(fake, le32_get(command->nsid));
	switch (command->opcode) {
	case NVME_CMD_READ:
	case NVME_CMD_WRITE:
		return ns ? ((le32_get(command->cdw12) & 0xffff) + 1) << ns->shift : 0;
	case NVME_CMD_DSM:
		return ((le32_get(command->cdw10) & 0xff) + 1) * (uint32_t)sizeof(struct nvme_dsm_range);
	default:
		return 0;
	}
}

uint32_t fake_command_length(struct nvme_fake *fake, const struct fake_command *held)
{
	const struct nvme_command *command = &held->command;
	if (held->qid != 0)
		return io_length(fake, command);
	if (command->opcode == NVME_ADMIN_IDENTIFY)
		return FAKE_PAGE;
	if (command->opcode == FAKE_VENDOR_WRITE)
		return sizeof(fake->vendor_data);
	if (command->opcode == NVME_ADMIN_GET_LOG_PAGE)
		return ((le32_get(command->cdw10) >> 16 | (le32_get(command->cdw11) & 0xffff) << 16) + 1) * 4;
	return 0;
}

bool fake_command_pages(struct nvme_fake *fake, const struct fake_command *held, fake_page_fn fn, void *arg)
{
	const uint64_t first = le64_get(held->command.prp1), second = le64_get(held->command.prp2);
	uint32_t left = fake_command_length(fake, held);
	if (left == 0)
		return true;
	uint32_t here = MIN(left, (uint32_t)(FAKE_PAGE - first % FAKE_PAGE));
	if (first == 0 || first % 4 != 0 || !fn((void *)(uintptr_t)first, here, arg))
		return false;
	left -= here;
	const bool direct = left <= FAKE_PAGE;
	for (unsigned i = 0; left > 0; i++) {
		if (!direct && (i == FAKE_PAGE / 8 || second % 8 != 0))
			return false;
		const uint64_t at = direct ? second : le64_get(((const le64_t *)(uintptr_t)second)[i]);
		here = MIN(left, (uint32_t)FAKE_PAGE);
		if (at == 0 || at % FAKE_PAGE != 0 || !fn((void *)(uintptr_t)at, here, arg))
			return false;
		left -= here;
	}
	return true;
}

struct move {
	struct nvme_fake *fake;
	const struct nvme_command *command;
	uint8_t *at;
	bool to_host;
};
static bool page_move(void *memory, uint32_t length, void *arg)
{
	struct move *move = arg;
	memcpy(move->to_host ? memory : move->at, move->to_host ? move->at : memory, length);
	if (move->to_host && move->fake->garble)
		move->fake->garble(move->fake, move->command, memory, length);
	move->at += length;
	return true;
}

static void transfer(struct nvme_fake *fake, struct fake_command *held, void *at, bool to_host)
{
	struct move move = {.fake = fake, .command = &held->command, .at = at, .to_host = to_host};
	if (fake_command_pages(fake, held, page_move, &move))
		return;
	fake_complain(fake, "queue %u: opcode %02x: PRPs that do not describe its data", held->qid, held->command.opcode);
	held->status = NVME_SC_PRP_OFFSET_INVALID;
}

/* ---- I/O ---- */

static void do_dsm(struct nvme_fake *fake, struct fake_command *held, struct fake_ns *ns)
{
	struct nvme_dsm_range range;
	if ((le32_get(held->command.cdw10) & 0xff) != 0 || !(le32_get(held->command.cdw11) & NVME_DSM_DEALLOCATE)) {
		held->status = NVME_SC_INVALID_FIELD;
		return;
	}
	transfer(fake, held, &range, false);
	const uint64_t lba = le64_get(range.first_lba), blocks = le32_get(range.blocks);
	if (lba + blocks > ns->blocks)
		held->status = NVME_SC_LBA_OUT_OF_RANGE;
	else
		memset(fake_ns_data(ns) + (lba << ns->shift), 0, blocks << ns->shift);
}

static void do_io(struct nvme_fake *fake, struct fake_command *held)
{
	const struct nvme_command *command = &held->command;
	struct fake_ns *ns = fake_ns(fake, le32_get(command->nsid));
	const uint64_t lba = le32_get(command->cdw10) | (uint64_t)le32_get(command->cdw11) << 32;
	const uint64_t blocks = (le32_get(command->cdw12) & 0xffff) + 1;
	if (!ns || ns->inactive) {
		held->status = NVME_SC_INVALID_NAMESPACE;
		return;
	}
	const bool ranged = command->opcode == NVME_CMD_READ || command->opcode == NVME_CMD_WRITE ||
		command->opcode == NVME_CMD_WRITE_ZEROES;
	if (ranged && lba + blocks > ns->blocks) {
		held->status = NVME_SC_LBA_OUT_OF_RANGE;
		return;
	}
	uint8_t *at = fake_ns_data(ns) + (ranged ? lba << ns->shift : 0);
	switch (command->opcode) {
	case NVME_CMD_FLUSH: return;
	case NVME_CMD_READ: transfer(fake, held, at, true); return;
	case NVME_CMD_WRITE: transfer(fake, held, at, false); return;
	case NVME_CMD_WRITE_ZEROES: memset(at, 0, blocks << ns->shift); return;
	case NVME_CMD_DSM: do_dsm(fake, held, ns); return;
	default: held->status = NVME_SC_INVALID_OPCODE;
	}
}

/* ---- identify, log pages ---- */

static void identify_ns(struct nvme_id_ns *id, const struct fake_ns *ns)
{
	if (!ns || ns->inactive)
		return;
	id->nsze = id->ncap = id->nuse = le64_set(ns->blocks);
	id->nlbaf = 63;
	id->flbas = (uint8_t)((ns->flbas_index & 15) | (ns->flbas_index >> 4) << 5);
	for (unsigned i = 0; i < 64; i++) /* the wrong ones can be told */
		id->lbaf[i] = (struct nvme_lba_format){.ds = 16};
	id->lbaf[ns->flbas_index] = (struct nvme_lba_format){.ms = le16_set(ns->metadata), .ds = ns->shift};
	id->noiob = le16_set(ns->boundary);
	id->dlfeat = 1;
}

static void identify_descriptors(struct nvme_fake *fake, uint8_t *page, const struct fake_ns *ns)
{
	if (!ns || ns->inactive)
		return;
	if (fake->garbled_descriptors) { /* unknown ones, and at the end a UUID that the page has no room for */
		for (unsigned at = 0; at + 8 < FAKE_PAGE; at += 4 + page[at + 1])
			*(struct nvme_ns_descriptor *)(page + at) = (struct nvme_ns_descriptor){.type = 0x60,
				.length = (uint8_t)MIN(200u, FAKE_PAGE - 8 - 4 - at)};
		*(struct nvme_ns_descriptor *)(page + FAKE_PAGE - 8) = (struct nvme_ns_descriptor){.type = NVME_NS_ID_UUID, .length = 16};
		memset(page + FAKE_PAGE - 4, 0xff, 4);
		return;
	}
	*(struct nvme_ns_descriptor *)page = (struct nvme_ns_descriptor){.type = NVME_NS_ID_UUID, .length = 16};
	memcpy(page + 4, ns->uuid, 16);
	*(struct nvme_ns_descriptor *)(page + 20) = (struct nvme_ns_descriptor){.type = NVME_NS_ID_CSI, .length = 1};
	page[24] = ns->csi;
}

static void identify_active(struct nvme_fake *fake, le32_t *list)
{
	unsigned count = 0;
	for (unsigned i = 0; i < FAKE_NS_MAX; i++)
		if (fake->namespaces[i].nsid != 0 && !fake->namespaces[i].inactive)
			list[count++] = le32_set(fake->namespaces[i].nsid);
}

static void do_identify(struct nvme_fake *fake, struct fake_command *held)
{
	static uint8_t page[FAKE_PAGE];
	memset(page, 0, sizeof(page));
	const uint32_t cns = le32_get(held->command.cdw10) & 0xff;
	const struct fake_ns *ns = fake_ns(fake, le32_get(held->command.nsid));
	if (cns == NVME_CNS_CTRLR)
		memcpy(page, &fake->identify, sizeof(page));
	else if (cns == NVME_CNS_NS)
		identify_ns((struct nvme_id_ns *)page, ns);
	else if (cns == NVME_CNS_ACTIVE_NS && !fake->no_active_list)
		identify_active(fake, (le32_t *)page);
	else if (cns == NVME_CNS_NS_DESCRIPTORS && !fake->no_descriptors)
		identify_descriptors(fake, page, ns);
	else
		held->status = NVME_SC_INVALID_FIELD;
	if (held->status == 0)
		transfer(fake, held, page, true);
}

static void do_log_page(struct nvme_fake *fake, struct fake_command *held)
{
	static uint8_t page[FAKE_PAGE];
	memset(page, 0, sizeof(page));
	switch (le32_get(held->command.cdw10) & 0xff) {
	case NVME_LOG_ERROR: ((struct nvme_log_error *)page)->count = le64_set(1); break;
	case NVME_LOG_SMART: memcpy(page, &fake->smart, sizeof(fake->smart)); break;
	case NVME_LOG_CHANGED_NS: memcpy(page, fake->changed_ns, sizeof(fake->changed_ns)); break;
	default: held->status = NVME_SC_INVALID_LOG_PAGE; return;
	}
	if (fake_command_length(fake, held) > FAKE_PAGE)
		held->status = NVME_SC_INVALID_FIELD;
	else
		transfer(fake, held, page, true);
}

/* ---- features, queues ---- */

static void do_feature(struct nvme_fake *fake, struct fake_command *held, bool set)
{
	const uint8_t feature = (uint8_t)le32_get(held->command.cdw10);
	const uint32_t value = le32_get(held->command.cdw11);
	if (set) {
		fake->features[feature] = value;
		fake->feature_set[feature] = true;
	}
	switch (feature) {
	case NVME_FEATURE_NUMBER_OF_QUEUES:
		held->dw0 = (fake->io_queues - 1u) << 16 | (fake->io_queues - 1u);
		return;
	case NVME_FEATURE_VOLATILE_CACHE:
		if (set ? fake->cache_refused : fake->cache_unknown)
			held->status = set ? NVME_SC_FEATURE_NOT_CHANGEABLE : NVME_SC_INVALID_FIELD;
		else if (set)
			fake->cache_on = value & 1;
		held->dw0 = fake->cache_on;
		return;
	case NVME_FEATURE_ASYNC_EVENTS:
		return;
	default:
		held->status = NVME_SC_INVALID_FIELD;
	}
}

static void do_create(struct nvme_fake *fake, struct fake_command *held, bool submission)
{
	const uint32_t cdw10 = le32_get(held->command.cdw10), cdw11 = le32_get(held->command.cdw11);
	const uint16_t qid = (uint16_t)cdw10, entries = (uint16_t)((cdw10 >> 16) + 1), cqid = (uint16_t)(cdw11 >> 16);
	const uint64_t iova = le64_get(held->command.prp1);
	if (!fake->feature_set[NVME_FEATURE_NUMBER_OF_QUEUES])
		fake_complain(fake, "queue %u created before the number of queues is set", qid);
	if (!(cdw11 & NVME_QUEUE_CONTIGUOUS) || iova == 0 || iova % FAKE_PAGE)
		fake_complain(fake, "queue %u at %llx, flags %x", qid, (unsigned long long)iova, cdw11);
	held->status = NVME_SC_INVALID_QID;
	if (qid == 0 || qid > MIN(fake->io_queues, (uint16_t)FAKE_QUEUES_MAX) || (submission ? fake->sqs[qid].on : fake->cqs[qid].on))
		return;
	held->status = NVME_SC_INVALID_QUEUE_SIZE;
	if (entries < 2 || entries > FIELD_GET(CAP_MQES, fake->cap) + 1)
		return;
	held->status = NVME_SC_INVALID_CQ;
	if (submission && (cqid > FAKE_QUEUES_MAX || !fake->cqs[cqid].on))
		return;
	held->status = NVME_SC_SUCCESS;
	if (submission)
		fake->sqs[qid] = (struct fake_sq){.on = true, .iova = iova, .entries = entries, .cqid = cqid,
			.rings = fake->sqs[qid].rings};
	else
		fake->cqs[qid] = (struct fake_cq){.on = true, .phase = true, .interrupts = cdw11 & NVME_CQ_INTERRUPTS, .iova = iova,
			.entries = entries, .rings = fake->cqs[qid].rings};
}

static void do_doorbell_buffer(struct nvme_fake *fake, struct fake_command *held)
{
	const uint64_t shadow = le64_get(held->command.prp1), events = le64_get(held->command.prp2);
	if (!(le16_get(fake->identify.oacs) & NVME_OACS_DOORBELL_BUFFER)) {
		held->status = NVME_SC_INVALID_OPCODE;
		return;
	}
	if (shadow % FAKE_PAGE || events % FAKE_PAGE || shadow == events)
		fake_complain(fake, "doorbell buffers that are no pages");
	fake->shadow = (uint32_t *)(uintptr_t)shadow;
	fake->events = (uint32_t *)(uintptr_t)events;
}

/* dw0 bit 0: it was not aborted. */
static void do_abort(struct nvme_fake *fake, struct fake_command *held)
{
	const uint32_t cdw10 = le32_get(held->command.cdw10);
	struct fake_command *other;
	held->dw0 = 1;
	cds_list_for_each_entry(other, &fake->commands, node) {
		if (other->qid != (uint16_t)cdw10 || le16_get(other->command.cid) != cdw10 >> 16 || other->event || other->resists_abort)
			continue;
		held->dw0 = 0;
		other->verdict = true;
		other->status = NVME_SC_ABORTED_BY_REQUEST;
		other->due_ns = reactor_now_ns();
		return;
	}
}

static void do_vendor_write(struct nvme_fake *fake, struct fake_command *held)
{
	transfer(fake, held, fake->vendor_data, false);
	for (unsigned i = 0; i < sizeof(fake->vendor_data); i++)
		held->dw0 += fake->vendor_data[i];
}

/* ---- all of them ---- */

static unsigned count_admin(const struct nvme_fake *fake, uint8_t opcode)
{
	struct fake_command *held;
	unsigned count = 0;
	cds_list_for_each_entry(held, &fake->commands, node)
		count += held->qid == 0 && held->command.opcode == opcode;
	return count;
}

void fake_command_begin(struct nvme_fake *fake, struct fake_command *held)
{
	const uint8_t opcode = held->command.opcode;
	if (held->qid != 0) {
		const uint32_t limit = fake->identify.mdts ? (uint32_t)FAKE_PAGE << fake->identify.mdts : UINT32_MAX;
		fake->io_seen[opcode]++;
		if (io_length(fake, &held->command) > limit)
			fake_complain(fake, "opcode %02x moves more than MDTS allows", opcode);
		return;
	}
	fake->admin_seen[opcode]++;
	if (opcode == NVME_ADMIN_GET_LOG_PAGE)
		fake->log_pages[(uint8_t)le32_get(held->command.cdw10)]++;
	if (opcode == NVME_ADMIN_ABORT && count_admin(fake, opcode) >= fake->identify.acl + 1u)
		fake_complain(fake, "more Aborts at once than ACL allows");
	if (opcode != NVME_ADMIN_ASYNC_EVENT)
		return;
	if (count_admin(fake, opcode) >= fake->identify.aerl + 1u)
		fake_complain(fake, "more event requests at once than AERL allows");
	held->event = true;
	held->due_ns = UINT64_MAX;
}

void fake_command_do(struct nvme_fake *fake, struct fake_command *held)
{
	if (held->qid != 0) {
		do_io(fake, held);
		return;
	}
	switch (held->command.opcode) {
	case NVME_ADMIN_IDENTIFY: do_identify(fake, held); return;
	case NVME_ADMIN_GET_LOG_PAGE: do_log_page(fake, held); return;
	case NVME_ADMIN_SET_FEATURES: do_feature(fake, held, true); return;
	case NVME_ADMIN_GET_FEATURES: do_feature(fake, held, false); return;
	case NVME_ADMIN_CREATE_CQ: do_create(fake, held, false); return;
	case NVME_ADMIN_CREATE_SQ: do_create(fake, held, true); return;
	case NVME_ADMIN_DOORBELL_BUFFER: do_doorbell_buffer(fake, held); return;
	case NVME_ADMIN_ABORT: do_abort(fake, held); return;
	case FAKE_VENDOR_WRITE: do_vendor_write(fake, held); return;
	default: held->status = NVME_SC_INVALID_OPCODE;
	}
}
