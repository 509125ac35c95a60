/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Admin commands: queues, features, abort, doorbell buffers (Base 2.0, chapter 5). What is not here is an invalid
 * opcode.
 */
#include <errno.h>

#include "nvme/emu_internal.h"

static uint32_t cdw10_of(const struct emu_command *command) { return le32_get(command->entry.cdw10); }
static uint32_t cdw11_of(const struct emu_command *command) { return le32_get(command->entry.cdw11); }

struct emu_ns *emu_ns_get(struct emu *emu, uint32_t nsid)
{
	return nsid >= 1 && nsid <= emu->options.namespaces ? &emu->ns[nsid - 1] : NULL;
}

/* ---- queues ---- */

/* What both kinds of queue are checked for. */
static uint16_t queue_setup(const struct emu_command *command, size_t entry_bytes, struct emu_queue_setup *out)
{
	const struct emu *emu = command->emu;
	const uint32_t cdw11 = cdw11_of(command);
	*out = (struct emu_queue_setup){
		.id = (uint16_t)cdw10_of(command),
		.entries = (cdw10_of(command) >> 16) + 1,
		.cq_id = (uint16_t)(cdw11 >> 16),
		.vector = (uint16_t)(cdw11 >> 16),
		.interrupts = cdw11 & NVME_CQ_INTERRUPTS,
	};
	if (out->id == 0 || out->id > emu->queues_granted)
		return NVME_SC_INVALID_QID | EMU_DNR;
	if (out->entries < 2 || out->entries > emu->options.depth_max)
		return NVME_SC_INVALID_QUEUE_SIZE | EMU_DNR;
	if (!(cdw11 & NVME_QUEUE_CONTIGUOUS))
		return NVME_SC_INVALID_FIELD | EMU_DNR;
	return emu_dma_page(emu, le64_get(command->entry.prp1), out->entries * entry_bytes, &out->ring);
}

static void create_cq(struct emu_command *command)
{
	struct emu *emu = command->emu;
	struct emu_queue_setup setup;
	uint16_t status = queue_setup(command, sizeof(struct nvme_completion), &setup);
	if (!status && emu->cqs[setup.id].ring)
		status = NVME_SC_INVALID_QID | EMU_DNR;
	if (!status && FIELD_GET(CC_IOCQES, emu->cc) != 4)
		status = NVME_SC_INVALID_QUEUE_SIZE | EMU_DNR;
	if (!status && setup.interrupts && setup.vector >= emu->port->vectors)
		status = NVME_SC_INVALID_INTERRUPT_VECTOR | EMU_DNR;
	if (!status)
		emu_cq_create(emu, &setup);
	emu_command_complete(command, status);
}

static void create_sq(struct emu_command *command)
{
	struct emu *emu = command->emu;
	struct emu_queue_setup setup;
	uint16_t status = queue_setup(command, sizeof(struct nvme_command), &setup);
	if (!status && emu->sqs[setup.id].ring)
		status = NVME_SC_INVALID_QID | EMU_DNR;
	if (!status && FIELD_GET(CC_IOSQES, emu->cc) != 6)
		status = NVME_SC_INVALID_QUEUE_SIZE | EMU_DNR;
	if (!status && (setup.cq_id == 0 || setup.cq_id > emu->queues_granted || !emu->cqs[setup.cq_id].ring))
		status = NVME_SC_INVALID_CQ | EMU_DNR;
	if (!status && emu_sq_create(emu, &setup))
		status = NVME_SC_INTERNAL_ERROR;
	emu_command_complete(command, status);
}

static void delete_cq(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const uint16_t id = (uint16_t)cdw10_of(command);
	uint16_t status = 0;
	if (id == 0 || id > emu->options.queues_max || !emu->cqs[id].ring)
		status = NVME_SC_INVALID_QID | EMU_DNR;
	else if (emu->cqs[id].sq_count > 0)
		status = NVME_SC_INVALID_QUEUE_DELETION | EMU_DNR;
	else
		emu_cq_delete(&emu->cqs[id]);
	emu_command_complete(command, status);
}

static void delete_sq_finish(struct emu_command *command)
{
	emu_queues_signal(command->emu); /* the last time that this queue is asked */
	emu_sq_delete(&command->emu->sqs[command->index]);
	emu_command_complete(command, 0);
}

static struct emu_command *command_of_queue(struct emu_sq *sq)
{
	struct cds_list_head *node;
	cds_list_for_each(node, &sq->emu->used) {
		struct emu_command *command = CONTAINER_OF(node, struct emu_command, node);
		if (command->sq == sq && !command->dropped && command->place >= EMU_AT_TIMER &&
			command->place <= EMU_AT_STUCK_HARD)
			return command;
	}
	return NULL;
}

/* Commands that have not begun are aborted, those under way are waited for. */
static void delete_sq(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const uint16_t id = (uint16_t)cdw10_of(command);
	if (id == 0 || id > emu->options.queues_max || !emu->sqs[id].ring || emu->sqs[id].deleter) {
		emu_command_complete(command, NVME_SC_INVALID_QID | EMU_DNR);
		return;
	}
	struct emu_sq *sq = &emu->sqs[id];
	struct emu_command *victim;
	while ((victim = command_of_queue(sq)) != NULL)
		emu_command_abort(victim, true, NVME_SC_ABORTED_SQ_DELETION);
	command->index = id;
	if (sq->running == 0) {
		delete_sq_finish(command);
		return;
	}
	command->place = EMU_AT_DELETE;
	command->resume = delete_sq_finish;
	sq->deleter = command;
}

/* ---- features ---- */

/* cdw10 of Get Features: which value is asked for. */
enum { SELECT_CURRENT, SELECT_DEFAULT, SELECT_SAVED, SELECT_CAPABILITIES };
enum { FEATURE_CHANGEABLE = 1 << 2 };

static uint16_t queues_set(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const uint32_t wanted = cdw11_of(command), sqs = wanted & 0xffff, cqs = wanted >> 16;
	if (sqs == 0xffff || cqs == 0xffff)
		return NVME_SC_INVALID_FIELD | EMU_DNR;
	for (unsigned id = 1; id <= emu->options.queues_max; id++)
		if (emu->sqs[id].ring || emu->cqs[id].ring)
			return NVME_SC_SEQUENCE_ERROR | EMU_DNR;
	emu->queues_granted = MIN(MAX(sqs, cqs) + 1, emu->options.queues_max);
	command->dw0 = (emu->queues_granted - 1) << 16 | (emu->queues_granted - 1);
	return 0;
}

static void cache_off_flushed(struct emu_command *command, int error)
{
	command->emu->cache_on = error != 0;
	emu_command_complete(command, emu_status_of(error, true));
}

/* What is in the cache when it is turned off becomes durable first; what is written meanwhile, too. */
static void cache_set(struct emu_command *command)
{
	struct emu *emu = command->emu;
	if (emu->options.no_volatile_cache) {
		emu_command_complete(command, NVME_SC_INVALID_FIELD | EMU_DNR);
	} else if (emu->options.cache_fixed) {
		emu_command_complete(command, NVME_SC_FEATURE_NOT_CHANGEABLE | EMU_DNR);
	} else if (cdw11_of(command) & 1 || !emu->cache_on) {
		emu->cache_on = cdw11_of(command) & 1;
		emu_command_complete(command, 0);
	} else {
		emu->cache_on = false;
		emu_flush_run(command, cache_off_flushed);
	}
}

static void set_features(struct emu_command *command)
{
	uint16_t status = 0;
	if (cdw10_of(command) >> 31) {
		emu_command_complete(command, NVME_SC_FEATURE_NOT_SAVEABLE | EMU_DNR);
		return;
	}
	switch (cdw10_of(command) & 0xff) {
	case NVME_FEATURE_NUMBER_OF_QUEUES:
		status = queues_set(command);
		break;
	case NVME_FEATURE_VOLATILE_CACHE:
		cache_set(command);
		return;
	case NVME_FEATURE_ASYNC_EVENTS:
		command->emu->event_config = cdw11_of(command);
		break;
	default:
		status = NVME_SC_INVALID_FIELD | EMU_DNR;
	}
	emu_command_complete(command, status);
}

static void get_features(struct emu_command *command)
{
	const struct emu *emu = command->emu;
	const unsigned select = cdw10_of(command) >> 8 & 7;
	const unsigned queues = select == SELECT_CURRENT ? emu->queues_granted : emu->options.queues_max;
	bool changeable = true;
	uint16_t status = select > SELECT_CAPABILITIES ? NVME_SC_INVALID_FIELD | EMU_DNR : 0;
	switch (cdw10_of(command) & 0xff) {
	case NVME_FEATURE_NUMBER_OF_QUEUES:
		command->dw0 = (queues - 1) << 16 | (queues - 1);
		break;
	case NVME_FEATURE_VOLATILE_CACHE:
		command->dw0 = select == SELECT_CURRENT ? emu->cache_on : 1;
		changeable = !emu->options.cache_fixed;
		if (emu->options.no_volatile_cache)
			status = NVME_SC_INVALID_FIELD | EMU_DNR;
		break;
	case NVME_FEATURE_ASYNC_EVENTS:
		command->dw0 = select == SELECT_CURRENT ? emu->event_config : 0;
		break;
	default:
		status = NVME_SC_INVALID_FIELD | EMU_DNR;
	}
	if (select == SELECT_CAPABILITIES)
		command->dw0 = changeable ? FEATURE_CHANGEABLE : 0;
	if (status)
		command->dw0 = 0;
	emu_command_complete(command, status);
}

/* ---- others ---- */

static void abort_command(struct emu_command *command)
{
	struct emu *emu = command->emu;
	const uint16_t sq_id = (uint16_t)cdw10_of(command), cid = (uint16_t)(cdw10_of(command) >> 16);
	if (sq_id > emu->options.queues_max || !emu->sqs[sq_id].ring) {
		emu_command_complete(command, NVME_SC_INVALID_FIELD | EMU_DNR);
		return;
	}
	struct emu_command *victim = emu_command_find(emu, sq_id, cid);
	const bool aborted = victim && emu_command_abort(victim, false, NVME_SC_ABORTED_BY_REQUEST);
	emu->stats.aborts += aborted;
	command->dw0 = !aborted;
	emu_command_complete(command, 0);
}

static void doorbell_buffer(struct emu_command *command)
{
	struct emu *emu = command->emu;
	void *shadow, *event_index;
	uint16_t status = emu->options.no_shadow_doorbells ? NVME_SC_INVALID_OPCODE | EMU_DNR : 0;
	if (!status)
		status = emu_dma_page(emu, le64_get(command->entry.prp1), EMU_PAGE, &shadow);
	if (!status)
		status = emu_dma_page(emu, le64_get(command->entry.prp2), EMU_PAGE, &event_index);
	if (!status)
		emu_shadow_config(emu, shadow, event_index);
	emu_command_complete(command, status);
}

void emu_admin_execute(struct emu_command *command)
{
	switch (command->entry.opcode) {
	case NVME_ADMIN_DELETE_SQ: delete_sq(command); break;
	case NVME_ADMIN_CREATE_SQ: create_sq(command); break;
	case NVME_ADMIN_GET_LOG_PAGE: emu_log_read(command); break;
	case NVME_ADMIN_DELETE_CQ: delete_cq(command); break;
	case NVME_ADMIN_CREATE_CQ: create_cq(command); break;
	case NVME_ADMIN_IDENTIFY: emu_identify(command); break;
	case NVME_ADMIN_ABORT: abort_command(command); break;
	case NVME_ADMIN_SET_FEATURES: set_features(command); break;
	case NVME_ADMIN_GET_FEATURES: get_features(command); break;
	case NVME_ADMIN_ASYNC_EVENT: emu_event_request(command); break;
	case NVME_ADMIN_DOORBELL_BUFFER: doorbell_buffer(command); break;
	default: emu_command_complete(command, NVME_SC_INVALID_OPCODE | EMU_DNR);
	}
}
