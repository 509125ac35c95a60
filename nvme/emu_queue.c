/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Submission and completion queues.
 *
 * Each turn takes a bounded batch from every submission queue, starting at another one each time. A tail is loaded
 * with acquire, so the entries before it are there; a completion's status word, with the phase bit, is stored last
 * with release. When a completion queue is full, completed commands wait in it and its submission queues are not
 * read.
 *
 * Shadow doorbells (Base 2.0, 5.8) replace those of the I/O queues: pages in host memory that the model looks at
 * each turn. The event index says beyond which value the driver must also ring the real doorbell: it is set before
 * the model sleeps, to the values that it knows, and left alone while it is awake.
 */
#include <errno.h>
#include <stdlib.h>

#include "nvme/emu_internal.h"

static uint32_t *shadow_of(uint32_t *page, uint32_t doorbell)
{
	return &page[(doorbell - NVME_REG_DOORBELLS) / sizeof(uint32_t)];
}

static uint32_t doorbell_load(const struct emu *emu, uint16_t id, uint32_t doorbell)
{
	if (!emu->shadow || id == 0) {
		const uint32_t value = emu_bar_load(emu, doorbell);
		happens_before_take(&emu->port->transport);
		return value;
	}
	return le32toh(__atomic_load_n(shadow_of(emu->shadow, doorbell), __ATOMIC_ACQUIRE));
}

static uint32_t sq_doorbell_load(const struct emu_sq *sq)
{
	return doorbell_load(sq->emu, sq->id, nvme_sq_doorbell(sq->id, 0));
}

static uint32_t cq_doorbell_load(const struct emu_cq *cq)
{
	return doorbell_load(cq->emu, cq->id, nvme_cq_doorbell(cq->id, 0));
}

static void doorbell_reset(struct emu *emu, uint32_t doorbell)
{
	emu_bar_store(emu, doorbell, 0);
}

/* ---- life ---- */

int emu_queues_init(struct emu *emu)
{
	const unsigned count = emu->options.queues_max + 1;
	emu->sqs = calloc(count, sizeof(*emu->sqs));
	emu->cqs = calloc(count, sizeof(*emu->cqs));
	if (!emu->sqs || !emu->cqs)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		emu->sqs[i] = (struct emu_sq){.emu = emu, .id = (uint16_t)i};
		emu->cqs[i] = (struct emu_cq){.emu = emu, .id = (uint16_t)i};
		CDS_INIT_LIST_HEAD(&emu->cqs[i].waiting);
	}
	return 0;
}

void emu_queues_fini(struct emu *emu)
{
	if (emu->sqs && emu->cqs)
		emu_queues_clear(emu);
	free(emu->sqs);
	free(emu->cqs);
}

int emu_sq_create(struct emu *emu, const struct emu_queue_setup *setup)
{
	struct emu_sq *sq = &emu->sqs[setup->id];
	uint64_t *cids = calloc(EMU_CIDS / 64, sizeof(*cids));
	if (!cids)
		return -ENOMEM;
	*sq = (struct emu_sq){
		.emu = emu,
		.id = setup->id,
		.ring = setup->ring,
		.entries = setup->entries,
		.cq = &emu->cqs[setup->cq_id],
		.cids = cids,
	};
	sq->cq->sq_count++;
	doorbell_reset(emu, nvme_sq_doorbell(sq->id, 0));
	if (sq->id)
		emu->io_sqs[emu->io_sq_count++] = sq->id;
	return 0;
}

static void io_sqs_remove(struct emu *emu, uint16_t id)
{
	unsigned i = 0;
	while (emu->io_sqs[i] != id)
		i++;
	emu->io_sq_count--;
	memmove(&emu->io_sqs[i], &emu->io_sqs[i + 1], (emu->io_sq_count - i) * sizeof(emu->io_sqs[0]));
}

void emu_sq_delete(struct emu_sq *sq)
{
	if (sq->id)
		io_sqs_remove(sq->emu, sq->id);
	sq->cq->sq_count--;
	free(sq->cids);
	*sq = (struct emu_sq){.emu = sq->emu, .id = sq->id};
}

void emu_cq_create(struct emu *emu, const struct emu_queue_setup *setup)
{
	struct emu_cq *cq = &emu->cqs[setup->id];
	*cq = (struct emu_cq){
		.emu = emu,
		.id = setup->id,
		.ring = setup->ring,
		.entries = setup->entries,
		.vector = setup->vector,
		.interrupts = setup->interrupts,
		.phase = true,
	};
	CDS_INIT_LIST_HEAD(&cq->waiting);
	doorbell_reset(emu, nvme_cq_doorbell(cq->id, 0));
}

void emu_cq_delete(struct emu_cq *cq)
{
	assert(cds_list_empty(&cq->waiting));
	cq->ring = NULL;
}

void emu_queues_clear(struct emu *emu)
{
	for (unsigned i = 0; i <= emu->options.queues_max; i++) {
		if (emu->sqs[i].ring)
			emu_sq_delete(&emu->sqs[i]);
		if (emu->cqs[i].ring)
			emu_cq_delete(&emu->cqs[i]);
	}
	emu->shadow = emu->event_index = NULL;
	emu->io_sq_next = 0;
	emu->cqs_waiting = 0;
}

/* ---- completions ---- */

/* One entry stays empty. A head that is no entry is not believed. */
static bool cq_full(struct emu_cq *cq)
{
	const uint32_t next = cq->tail + 1 == cq->entries ? 0 : cq->tail + 1;
	if (next != cq->head)
		return false;
	const uint32_t head = cq_doorbell_load(cq);
	if (head < cq->entries)
		cq->head = head;
	return next == cq->head;
}

static void cq_signal(struct emu_cq *cq)
{
	cq->unsignalled = false;
	if (cq->interrupts && emu_port_signal(cq->emu->port, cq->vector))
		cq->emu->stats.interrupts++;
}

/* Frees the command. */
static void cq_post(struct emu_cq *cq, struct emu_command *command, uint16_t status)
{
	struct nvme_completion *entry = &cq->ring[cq->tail];
	entry->dw0 = le32_set(command->dw0);
	entry->dw1 = le32_set(0);
	entry->sq_head = le16_set((uint16_t)command->sq->head);
	entry->sq_id = le16_set(command->sq->id);
	entry->cid = command->entry.cid;
	__atomic_store_n(&entry->status.raw, htole16((uint16_t)(status << 1 | cq->phase)), __ATOMIC_RELEASE);
	if (++cq->tail == cq->entries) {
		cq->tail = 0;
		cq->phase = !cq->phase;
	}
	cq->unsignalled = true;
	emu_command_free(command);
	if (!cq->emu->polling)
		cq_signal(cq);
}

void emu_cq_push(struct emu_command *command, uint16_t status)
{
	struct emu_cq *cq = command->sq->cq;
	if (cds_list_empty(&cq->waiting) && !cq_full(cq)) {
		cq_post(cq, command, status);
		return;
	}
	cq->emu->cqs_waiting += cds_list_empty(&cq->waiting);
	cds_list_add_tail(&command->wait, &cq->waiting);
	command->place = EMU_AT_CQ;
	command->index = status;
}

static unsigned cq_post_waiting(struct emu_cq *cq)
{
	unsigned count = 0;
	while (!cds_list_empty(&cq->waiting) && !cq_full(cq)) {
		struct emu_command *command = cds_list_first_entry(&cq->waiting, struct emu_command, wait);
		cds_list_del_init(&command->wait);
		cq->emu->cqs_waiting -= cds_list_empty(&cq->waiting);
		cq_post(cq, command, (uint16_t)command->index);
		count++;
	}
	return count;
}

void emu_queues_signal(struct emu *emu)
{
	if (emu->cqs[0].unsignalled)
		cq_signal(&emu->cqs[0]);
	for (unsigned i = 0; i < emu->io_sq_count; i++)
		if (emu->sqs[emu->io_sqs[i]].cq->unsignalled)
			cq_signal(emu->sqs[emu->io_sqs[i]].cq);
}

/* ---- submissions ---- */

static void sq_tail_load(struct emu_sq *sq)
{
	const uint32_t doorbell = sq_doorbell_load(sq);
	if (doorbell == sq->doorbell)
		return;
	sq->doorbell = doorbell;
	if (doorbell < sq->entries)
		sq->tail = doorbell;
	else
		emu_event_raise(sq->emu, EMU_EVENT_ERROR, EMU_ERROR_DOORBELL_VALUE);
}

static bool sq_may_fetch(const struct emu_sq *sq)
{
	return sq->emu->state == EMU_READY && !sq->emu->shutting_down && sq->ring && !sq->deleter &&
		sq->head != sq->tail && cds_list_empty(&sq->cq->waiting);
}

static unsigned sq_fetch(struct emu_sq *sq)
{
	unsigned count = 0;
	sq_tail_load(sq);
	while (count < EMU_FETCH_BATCH && sq_may_fetch(sq)) {
		struct emu_command *command = emu_command_get(sq->emu, sq->id == 0);
		if (!command)
			break;
		command->sq = sq;
		command->entry = sq->ring[sq->head];
		sq->head = sq->head + 1 == sq->entries ? 0 : sq->head + 1;
		sq->running++;
		count++;
		emu_command_start(command);
	}
	return count;
}

unsigned emu_queues_poll(struct emu *emu)
{
	unsigned work = 0;
	for (unsigned i = 0; i <= emu->options.queues_max && emu->cqs_waiting > 0; i++)
		if (emu->cqs[i].ring)
			work += cq_post_waiting(&emu->cqs[i]);
	work += sq_fetch(&emu->sqs[0]);
	/* A command may stop the controller; queues come and go with admin commands only. */
	const unsigned count = emu->io_sq_count, first = emu->io_sq_next++;
	for (unsigned i = 0; i < count && emu->state == EMU_READY && i < emu->io_sq_count; i++)
		work += sq_fetch(&emu->sqs[emu->io_sqs[(first + i) % emu->io_sq_count]]);
	return work;
}

/* ---- sleeping ---- */

static void event_index_store(struct emu *emu, uint32_t doorbell, uint32_t value)
{
	__atomic_store_n(shadow_of(emu->event_index, doorbell), htole32(value), __ATOMIC_SEQ_CST);
}

static void event_indexes_set(struct emu *emu)
{
	for (unsigned i = 0; i < emu->io_sq_count; i++) {
		const struct emu_sq *sq = &emu->sqs[emu->io_sqs[i]];
		event_index_store(emu, nvme_sq_doorbell(sq->id, 0), sq->doorbell);
		event_index_store(emu, nvme_cq_doorbell(sq->cq->id, 0), sq->cq->head);
	}
	/* The driver stores a shadow doorbell, then looks at the event index; we did the same the other way round. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static bool cq_news(struct emu_cq *cq)
{
	return !cds_list_empty(&cq->waiting) && cq_doorbell_load(cq) != cq->head;
}

bool emu_queues_news(struct emu *emu)
{
	if (emu->shadow)
		event_indexes_set(emu);
	if (emu->sqs[0].ring && (sq_doorbell_load(&emu->sqs[0]) != emu->sqs[0].doorbell || cq_news(&emu->cqs[0])))
		return true;
	for (unsigned i = 0; i < emu->io_sq_count; i++) {
		const struct emu_sq *sq = &emu->sqs[emu->io_sqs[i]];
		if (sq_doorbell_load(sq) != sq->doorbell || cq_news(sq->cq))
			return true;
	}
	return false;
}

/* The pages take over with the values that the doorbells have. */
void emu_shadow_config(struct emu *emu, void *shadow, void *event_index)
{
	for (unsigned i = 0; i < emu->io_sq_count; i++) {
		const struct emu_sq *sq = &emu->sqs[emu->io_sqs[i]];
		const uint32_t sq_at = nvme_sq_doorbell(sq->id, 0), cq_at = nvme_cq_doorbell(sq->cq->id, 0);
		*shadow_of(shadow, sq_at) = *shadow_of(event_index, sq_at) = htole32(emu_bar_load(emu, sq_at));
		*shadow_of(shadow, cq_at) = *shadow_of(event_index, cq_at) = htole32(emu_bar_load(emu, cq_at));
	}
	emu->shadow = shadow;
	emu->event_index = event_index;
}
