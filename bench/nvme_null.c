/* SPDX-License-Identifier: BSD-3-Clause */
/* The controller that does nothing, see nvme_null.h. */
#include "bench/nvme_null.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "reactor/memory.h"

enum { BAR_BYTES = 0x2000, PAGE = 4096, QUEUES = 2 };

struct null_queue {
	const struct nvme_command *sq;
	struct nvme_completion *cq;
	uint16_t sq_entries, cq_entries, head, tail;
	uint16_t phase;
};
struct null {
	struct nvme_transport transport;
	uint32_t cc;
	struct null_queue queues[QUEUES]; /* admin, I/O */
};

static uint32_t reg_get(const struct null *null, uint32_t reg)
{
	return le32toh(*(volatile uint32_t *)(null->transport.bar + reg));
}
static void reg_set(struct null *null, uint32_t reg, uint32_t value)
{
	*(volatile uint32_t *)(null->transport.bar + reg) = htole32(value);
}

/* ---- admin ---- */

static void identify(const struct nvme_command *command, void *page)
{
	struct nvme_id_ctrlr *ctrlr = page;
	struct nvme_id_ns *ns = page;
	memset(page, 0, PAGE);
	switch (le32_get(command->cdw10) & 0xff) {
	case NVME_CNS_CTRLR:
		memcpy(ctrlr->mn, "null", 4);
		ctrlr->sqes = 0x66;
		ctrlr->cqes = 0x44;
		ctrlr->nn = le32_set(1);
		break;
	case NVME_CNS_NS:
		ns->nsze = ns->ncap = le64_set(NULL_BLOCKS);
		ns->lbaf[0].ds = 12;
		break;
	case NVME_CNS_ACTIVE_NS:
		*(le32_t *)page = le32_set(1);
		break;
	default:
		break;
	}
}

static void create_queue(struct null *null, const struct nvme_command *command)
{
	struct null_queue *queue = &null->queues[1];
	const uint16_t entries = (uint16_t)((le32_get(command->cdw10) >> 16) + 1);
	void *const ring = (void *)(uintptr_t)le64_get(command->prp1);
	if (command->opcode == NVME_ADMIN_CREATE_CQ) {
		*queue = (struct null_queue){.cq = ring, .cq_entries = entries, .phase = 1};
		return;
	}
	queue->sq = ring;
	queue->sq_entries = entries;
}

/* False: it is not answered. */
static bool admin_do(struct null *null, const struct nvme_command *command)
{
	if (command->opcode == NVME_ADMIN_IDENTIFY)
		identify(command, (void *)(uintptr_t)le64_get(command->prp1));
	else if (command->opcode == NVME_ADMIN_CREATE_CQ || command->opcode == NVME_ADMIN_CREATE_SQ)
		create_queue(null, command);
	return command->opcode != NVME_ADMIN_ASYNC_EVENT;
}

/* ---- queues ---- */

static inline void answer(struct null_queue *queue, uint16_t qid, le16_t cid)
{
	struct nvme_completion *completion = &queue->cq[queue->tail];
	completion->dw0 = le32_set(0); /* one queue is granted */
	completion->sq_head = le16_set(queue->head);
	completion->sq_id = le16_set(qid);
	completion->cid = cid;
	__atomic_store_n(&completion->status.raw, htole16(queue->phase), __ATOMIC_RELEASE);
	if (++queue->tail == queue->cq_entries) {
		queue->tail = 0;
		queue->phase ^= 1;
	}
}

static inline void queue_run(struct null *null, uint16_t qid)
{
	struct null_queue *queue = &null->queues[qid];
	const uint16_t tail = (uint16_t)reg_get(null, nvme_sq_doorbell(qid, 0));
	while (queue->head != tail) {
		const struct nvme_command *command = &queue->sq[queue->head];
		if (++queue->head == queue->sq_entries)
			queue->head = 0;
		if (qid != 0 || admin_do(null, command))
			answer(queue, qid, command->cid);
	}
}

static void enable(struct null *null, uint32_t cc)
{
	null->cc = cc;
	memset(null->queues, 0, sizeof(null->queues));
	reg_set(null, NVME_REG_CSTS, (uint32_t)(FIELD_SET(CSTS_RDY, FIELD_GET(CC_EN, cc)) |
		FIELD_SET(CSTS_SHST, FIELD_GET(CC_SHN, cc) ? CSTS_SHST_COMPLETE : CSTS_SHST_NORMAL)));
	for (uint16_t qid = 0; qid < QUEUES; qid++) {
		reg_set(null, nvme_sq_doorbell(qid, 0), 0);
		reg_set(null, nvme_cq_doorbell(qid, 0), 0);
	}
	const uint16_t entries = (uint16_t)(FIELD_GET(AQA_ASQS, reg_get(null, NVME_REG_AQA)) + 1);
	null->queues[0] = (struct null_queue){
		.sq = (const struct nvme_command *)(uintptr_t)nvme_read64(&null->transport, NVME_REG_ASQ),
		.cq = (struct nvme_completion *)(uintptr_t)nvme_read64(&null->transport, NVME_REG_ACQ),
		.sq_entries = entries,
		.cq_entries = entries,
		.phase = 1,
	};
}

static void null_wrote(struct nvme_transport *transport)
{
	struct null *null = CONTAINER_OF(transport, struct null, transport);
	queue_run(null, 1);
	queue_run(null, 0);
	const uint32_t cc = reg_get(null, NVME_REG_CC);
	if (__builtin_expect(cc != null->cc, 0))
		enable(null, cc);
}

/* ---- the transport ---- */

static int no_fd(struct nvme_transport *transport, uint16_t qid) { return -1; }
static int no_request(struct nvme_transport *transport) { return -1; }

static void null_release(struct nvme_transport *transport)
{
	struct null *null = CONTAINER_OF(transport, struct null, transport);
	dma_free((void *)null->transport.bar);
	free(null);
}

static const struct nvme_transport_ops null_ops = {
	.name = "null",
	.interrupt_fd = no_fd,
	.wrote = null_wrote,
	.request_fd = no_request,
	.release = null_release,
};

struct nvme_transport *nvme_null_create(void)
{
	struct null *null = calloc(1, sizeof(*null));
	uint8_t *bar = dma_zalloc(BAR_BYTES, PAGE);
	if (!null || !bar) {
		free(null);
		return NULL;
	}
	null->transport.ops = &null_ops;
	null->transport.bar = bar;
	null->transport.bar_bytes = BAR_BYTES;
	snprintf(null->transport.name, sizeof(null->transport.name), "null");
	const uint64_t cap = FIELD_SET(CAP_MQES, 1023) | FIELD_SET(CAP_TO, 1) | FIELD_SET(CAP_CSS_NVM, 1);
	reg_set(null, NVME_REG_CAP, (uint32_t)cap);
	reg_set(null, NVME_REG_CAP + 4, (uint32_t)(cap >> 32));
	reg_set(null, NVME_REG_VS, 0x00010400);
	return &null->transport;
}

/* ---- its own cost ---- */

static double now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

double nvme_null_cost(unsigned batch, unsigned rounds)
{
	enum { ENTRIES = 256 };
	struct nvme_transport *transport = nvme_null_create();
	struct nvme_command *sq = dma_zalloc(ENTRIES * sizeof(*sq), PAGE);
	struct nvme_completion *cq = dma_zalloc(ENTRIES * sizeof(*cq), PAGE);
	if (!transport || !sq || !cq)
		abort();
	struct null *null = CONTAINER_OF(transport, struct null, transport);
	null->queues[1] = (struct null_queue){.sq = sq, .cq = cq, .sq_entries = ENTRIES, .cq_entries = ENTRIES, .phase = 1};
	const double start = now_ns();
	for (unsigned i = 0, tail = 0; i < rounds; i++) {
		tail = (tail + batch) % ENTRIES;
		nvme_write32(transport, nvme_sq_doorbell(1, 0), tail);
		transport->ops->wrote(transport);
		nvme_write32(transport, nvme_cq_doorbell(1, 0), tail);
		transport->ops->wrote(transport);
	}
	const double ns = (now_ns() - start) / rounds / batch;
	dma_free(sq);
	dma_free(cq);
	transport->ops->release(transport);
	return ns;
}
