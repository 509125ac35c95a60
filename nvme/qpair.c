/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A queue pair on its reactor: submit, poll, complete.
 *
 * A command identifier is the index of its tracker and a number that grows with each use, so that an answer to an
 * earlier command of the tracker, given twice or late, is not taken for the answer to this one.
 *
 * There are depth - 1 trackers, one less than ring entries, so neither ring can overflow: an entry of the submission
 * ring is free at the latest when its command has completed. Requests beyond wait in line.
 *
 * A turn of the poller: one doorbell write for whatever was submitted since the last, completions in order up to
 * COMPLETION_BATCH, one doorbell write for these, then what waits takes the trackers that became free.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "nvme/nvme_internal.h"
#include "reactor/log.h"
#include "reactor/memory.h"

/* The largest index is depth - 2, so CID_NONE cannot come up. */
enum { CID_INDEX_MASK = 0x3ff, CID_GENERATION = CID_INDEX_MASK + 1 };
_Static_assert(NVME_QUEUE_DEPTH_MAX <= CID_INDEX_MASK + 1, "an index fits");

#define STAT_ADD(field) __atomic_store_n(&(field), (field) + 1, __ATOMIC_RELAXED)

/* ---- memory ---- */

static int trackers_create(struct nvme_qpair *qpair)
{
	const unsigned count = qpair->depth - 1u;
	qpair->trackers = calloc(count, sizeof(*qpair->trackers));
	qpair->lists = dma_zalloc((size_t)count * PAGE_BYTES, PAGE_BYTES);
	if (!qpair->trackers || !qpair->lists)
		return -ENOMEM;
	for (unsigned i = 0; i < count; i++) {
		struct tracker *tracker = &qpair->trackers[i];
		tracker->cid = (uint16_t)i;
		tracker->list = (le64_t *)((char *)qpair->lists + (size_t)i * PAGE_BYTES);
		tracker->list_iova = dma_iova(tracker->list);
		cds_list_add_tail(&tracker->node, &qpair->free);
	}
	return 0;
}

int qpair_create(struct nvme_ctrlr *ctrlr, uint16_t qid, uint16_t depth, struct reactor *reactor, struct nvme_qpair **out)
{
	struct nvme_qpair *qpair = calloc(1, sizeof(*qpair));
	if (!qpair)
		return -ENOMEM;
	qpair->ctrlr = ctrlr;
	qpair->qid = qid;
	qpair->depth = depth;
	qpair->reactor = reactor;
	qpair->timeout_ns = qid == 0 ? ctrlr->options.admin_timeout_ns : ctrlr->options.io_timeout_ns;
	qpair->interrupt_fd = ctrlr->options.no_interrupts ? -1 : ctrlr->transport->ops->interrupt_fd(ctrlr->transport, qid);
	CDS_INIT_LIST_HEAD(&qpair->free);
	CDS_INIT_LIST_HEAD(&qpair->sent);
	CDS_INIT_LIST_HEAD(&qpair->waiting);
	CDS_INIT_LIST_HEAD(&qpair->delayed);
	CDS_INIT_LIST_HEAD(&qpair->finished);
	qpair->sq = dma_zalloc((size_t)depth * sizeof(struct nvme_command), PAGE_BYTES);
	qpair->cq = dma_zalloc((size_t)depth * sizeof(struct nvme_completion), PAGE_BYTES);
	if (!qpair->sq || !qpair->cq || trackers_create(qpair) != 0) {
		qpair_destroy(qpair);
		return -ENOMEM;
	}
	qpair->sq_iova = dma_iova(qpair->sq);
	qpair->cq_iova = dma_iova((const void *)qpair->cq);
	qpair->sq_doorbell.reg = nvme_sq_doorbell(qid, ctrlr->dstrd);
	qpair->cq_doorbell.reg = nvme_cq_doorbell(qid, ctrlr->dstrd);
	*out = qpair;
	return 0;
}

void qpair_destroy(struct nvme_qpair *qpair)
{
	if (!qpair)
		return;
	if (qpair->sq)
		dma_free(qpair->sq);
	if (qpair->cq)
		dma_free((void *)qpair->cq);
	if (qpair->lists)
		dma_free(qpair->lists);
	free(qpair->trackers);
	free(qpair);
}

/* ---- doorbells ---- */

/* Virtio's and NVMe's rule alike: the value that the controller asked to be told of lies in (from, to]. */
static bool doorbell_passes(uint16_t event, uint16_t to, uint16_t from)
{
	return (uint16_t)(to - event - 1) < (uint16_t)(to - from);
}

static void doorbell_ring(struct nvme_qpair *qpair, struct doorbell *doorbell, uint16_t value)
{
	const uint16_t from = doorbell->rung;
	doorbell->rung = value;
	if (nvme_transport_gone(qpair->ctrlr->transport))
		return;
	if (doorbell->shadow) {
		__atomic_store_n(doorbell->shadow, htole32(value), __ATOMIC_RELEASE);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		const uint16_t event = (uint16_t)le32toh(__atomic_load_n(doorbell->event, __ATOMIC_RELAXED));
		if (!doorbell_passes(event, value, from))
			return;
	}
	/* The ring's content before the doorbell, also when the device is a thread. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	nvme_write32(qpair->ctrlr->transport, doorbell->reg, value);
	ctrlr_wrote(qpair->ctrlr);
}

/* ---- sending ---- */

static void request_finish(struct nvme_qpair *qpair, struct nvme_request *request, int result)
{
	request->result = result;
	request->cid = CID_NONE;
	cds_list_add_tail(&request->node, &qpair->finished);
}

/* False: no tracker is free. */
static bool request_send(struct nvme_qpair *qpair, struct nvme_request *request)
{
	if (cds_list_empty(&qpair->free))
		return false;
	struct tracker *tracker = cds_list_first_entry(&qpair->free, struct tracker, node);
	struct nvme_command *command = &qpair->sq[qpair->sq_tail];
	*command = request->command;
	tracker->cid = (uint16_t)(tracker->cid + CID_GENERATION);
	command->cid = le16_set(tracker->cid);
	const int err = prp_build(tracker, request, command);
	if (UNLIKELY(err != 0)) {
		request_finish(qpair, request, err);
		return true;
	}
	if (cds_list_empty(&qpair->sent) || !timer_running(&qpair->timer))
		qpair_timer_start(qpair);
	cds_list_del(&tracker->node);
	cds_list_add_tail(&tracker->node, &qpair->sent);
	tracker->request = request;
	qpair->active_ns = reactor_now_ns();
	tracker->sent_ns = reactor_running_ns();
	tracker->timed_out = tracker->abort_asked = false;
	request->cid = tracker->cid;
	qpair->outstanding++;
	qpair->sq_tail = (uint16_t)(qpair->sq_tail + 1 == qpair->depth ? 0 : qpair->sq_tail + 1);
	return true;
}

static unsigned send_waiting(struct nvme_qpair *qpair)
{
	unsigned sent = 0;
	while (qpair->state == QPAIR_RUNNING && !cds_list_empty(&qpair->waiting)) {
		struct nvme_request *request = cds_list_first_entry(&qpair->waiting, struct nvme_request, node);
		if (cds_list_empty(&qpair->free))
			break;
		cds_list_del(&request->node);
		qpair->waiting_count--;
		request_send(qpair, request);
		sent++;
	}
	return sent;
}

void nvme_submit(struct nvme_qpair *qpair, struct nvme_request *request)
{
	request->status = STATUS_NONE;
	request->retries = 0;
	request->cid = CID_NONE;
	if (UNLIKELY(qpair->state == QPAIR_DEAD)) {
		request_finish(qpair, request, -ENODEV);
		return;
	}
	/* Whoever waits goes first. */
	if (qpair->state == QPAIR_RUNNING && cds_list_empty(&qpair->waiting) && request_send(qpair, request))
		return;
	cds_list_add_tail(&request->node, &qpair->waiting);
	qpair->waiting_count++;
}

static bool list_holds(const struct cds_list_head *list, const struct nvme_request *request)
{
	const struct nvme_request *other;
	cds_list_for_each_entry(other, list, node)
		if (other == request)
			return true;
	return false;
}

void nvme_abort(struct nvme_qpair *qpair, struct nvme_request *request)
{
	if (request->cid != CID_NONE) {
		request->retries = RETRIES_FORBIDDEN;
		qpair->trackers[request->cid & CID_INDEX_MASK].timed_out = true;
		qpair_poke_minder(qpair);
		return;
	}
	const bool waits = list_holds(&qpair->waiting, request);
	if (!waits && !list_holds(&qpair->delayed, request))
		return; /* answered, or about to be */
	cds_list_del(&request->node);
	qpair->waiting_count -= waits;
	request_finish(qpair, request, -ECANCELED);
}

unsigned nvme_qpair_outstanding(const struct nvme_qpair *qpair) { return qpair->outstanding + qpair->waiting_count; }

/* ---- completing ---- */

static void tracker_free(struct nvme_qpair *qpair, struct tracker *tracker)
{
	cds_list_del(&tracker->node);
	cds_list_add(&tracker->node, &qpair->free);
	tracker->request->cid = CID_NONE;
	tracker->request = NULL;
	qpair->outstanding--;
}

static void log_status(struct nvme_qpair *qpair, const struct nvme_request *request, bool again)
{
	const char *name = qpair->ctrlr->transport->name;
	const uint64_t lba = le32_get(request->command.cdw10) | (uint64_t)le32_get(request->command.cdw11) << 32;
	const unsigned code = request->status & 0x7ff;
	if (again)
		log_info("%s: command %02x at LBA %llu: %s (status %03x): sent again", name, request->command.opcode,
			(unsigned long long)lba, nvme_status_text(request->status), code);
	else
		log_warn("%s: command %02x at LBA %llu failed: %s (status %03x)", name, request->command.opcode,
			(unsigned long long)lba, nvme_status_text(request->status), code);
}

static uint64_t retry_delay_ns(const struct nvme_qpair *qpair, uint16_t status)
{
	const unsigned crd = FIELD_GET(STATUS_CRD, status);
	if (crd == 0)
		return RETRY_DELAY_MS * NS_PER_MS;
	/* Up to two hours by the specification; nobody waits that long for an answer. */
	return MIN(le16_get(qpair->ctrlr->identify->crdt[crd - 1]) * 100 * NS_PER_MS, RETRY_DELAY_S_MAX * NS_PER_SEC);
}

/* Aborted because it was late, every time: to its caller that is a time-out. */
static int final_errno(const struct nvme_request *request, bool late)
{
	const int err = nvme_status_errno(request->status);
	return err == -ECANCELED && late && request->retries != RETRIES_FORBIDDEN ? -ETIMEDOUT : err;
}

static void complete_error(struct nvme_qpair *qpair, struct nvme_request *request, bool late)
{
	const bool io = qpair->qid != 0;
	if (io && nvme_status_retry(request->status) && request->retries < NVME_RETRIES_MAX) {
		request->retries++;
		STAT_ADD(qpair->retries);
		log_status(qpair, request, true);
		qpair_requeue(qpair, request, retry_delay_ns(qpair, request->status));
		return;
	}
	if (io) {
		STAT_ADD(qpair->errors);
		log_status(qpair, request, false);
	}
	request_finish(qpair, request, final_errno(request, late));
}

static void complete_one(struct nvme_qpair *qpair, const volatile struct nvme_completion *completion, uint16_t status)
{
	const uint16_t cid = le16_get(completion->cid), index = cid & CID_INDEX_MASK;
	struct tracker *tracker = index < qpair->depth - 1 ? &qpair->trackers[index] : NULL;
	if (UNLIKELY(!tracker || !tracker->request || tracker->cid != cid)) {
		log_warn("%s: queue %u: a completion for command %u, which is not under way: ignored",
			qpair->ctrlr->transport->name, qpair->qid, cid);
		return;
	}
	struct nvme_request *request = tracker->request;
	const bool late = tracker->timed_out;
	tracker_free(qpair, tracker);
	request->status = status;
	if (qpair->qid == 0)
		request->command.cdw2 = completion->dw0; /* where the admin commands look for it */
	if (LIKELY(status == NVME_SC_SUCCESS))
		request_finish(qpair, request, 0);
	else
		complete_error(qpair, request, late);
}

bool qpair_completion_ready(const struct nvme_qpair *qpair)
{
	const uint16_t status = le16toh(__atomic_load_n(&qpair->cq[qpair->cq_head].status.raw, __ATOMIC_ACQUIRE));
	return (status & 1) == qpair->phase;
}

static unsigned take_completions(struct nvme_qpair *qpair)
{
	unsigned count = 0;
	while (count < COMPLETION_BATCH && qpair_completion_ready(qpair)) {
		const volatile struct nvme_completion *completion = &qpair->cq[qpair->cq_head];
		complete_one(qpair, completion, (uint16_t)(le16_get(completion->status) >> 1));
		if (++qpair->cq_head == qpair->depth) {
			qpair->cq_head = 0;
			qpair->phase = !qpair->phase;
		}
		count++;
	}
	if (count > 0) {
		qpair->active_ns = reactor_now_ns();
		doorbell_ring(qpair, &qpair->cq_doorbell, qpair->cq_head);
	}
	return count;
}

/* Callers may submit again from done(): what they submit and what fails at once is for the next turn. */
static unsigned call_finished(struct nvme_qpair *qpair)
{
	struct cds_list_head list;
	unsigned count = 0;
	if (LIKELY(cds_list_empty(&qpair->finished)))
		return 0;
	CDS_INIT_LIST_HEAD(&list);
	cds_list_splice(&qpair->finished, &list);
	CDS_INIT_LIST_HEAD(&qpair->finished);
	while (!cds_list_empty(&list)) {
		struct nvme_request *request = cds_list_first_entry(&list, struct nvme_request, node);
		cds_list_del(&request->node);
		request->done(request);
		count++;
	}
	return count;
}

static unsigned qpair_poll(struct poller *poller)
{
	struct nvme_qpair *qpair = CONTAINER_OF(poller, struct nvme_qpair, poller);
	unsigned work = 0;
	if (qpair->state == QPAIR_RUNNING) {
		work += take_completions(qpair);
		work += qpair_send_delayed(qpair);
		work += send_waiting(qpair);
		if (qpair->sq_tail != qpair->sq_doorbell.rung) {
			doorbell_ring(qpair, &qpair->sq_doorbell, qpair->sq_tail);
			work++;
		}
		if (UNLIKELY(nvme_transport_gone(qpair->ctrlr->transport)) && !qpair->gone_told) {
			qpair->gone_told = true;
			qpair_poke_minder(qpair);
		}
	}
	return work + call_finished(qpair);
}

/* ---- states, on the reactor by reactor_call_nowait ---- */

int qpair_open(void *arg)
{
	struct nvme_qpair *qpair = arg;
	poller_register(qpair->reactor, &qpair->poller, "nvme", qpair_poll, 0);
	qpair->poller.before_sleep = qpair_before_sleep;
	return qpair->interrupt_fd >= 0 ? reactor_watch_fd(qpair->reactor, qpair->interrupt_fd, EPOLLIN) : 0;
}

int qpair_close(void *arg)
{
	struct nvme_qpair *qpair = arg;
	assert(!qpair_unanswered(qpair));
	timer_stop(&qpair->timer);
	if (qpair->interrupt_fd >= 0)
		reactor_unwatch_fd(qpair->reactor, qpair->interrupt_fd);
	poller_unregister(&qpair->poller);
	return 0;
}

int qpair_stop(void *arg)
{
	struct nvme_qpair *qpair = arg;
	if (qpair->state == QPAIR_RUNNING)
		qpair->state = QPAIR_STOPPED;
	return 0;
}

int qpair_reclaim(void *arg)
{
	struct nvme_qpair *qpair = arg;
	assert(qpair->state != QPAIR_RUNNING);
	/* Newest first to the head of the line: the order of sending stays. */
	while (!cds_list_empty(&qpair->sent)) {
		struct tracker *tracker = cds_list_entry(qpair->sent.prev, struct tracker, node);
		struct nvme_request *request = tracker->request;
		const bool late = tracker->timed_out;
		tracker_free(qpair, tracker);
		if (qpair->qid == 0 || request->retries == RETRIES_FORBIDDEN) {
			request_finish(qpair, request, qpair->qid == 0 ? -EIO : -ECANCELED);
		} else if (request->retries++ >= NVME_RETRIES_MAX) { /* late or not: it may be what brings the controller down */
			STAT_ADD(qpair->errors);
			log_warn("%s: command %02x is not done after %u attempts and a reset: given up", qpair->ctrlr->transport->name,
				request->command.opcode, request->retries);
			request_finish(qpair, request, late ? -ETIMEDOUT : -EIO);
		} else {
			cds_list_add(&request->node, &qpair->waiting);
			qpair->waiting_count++;
		}
	}
	return 0;
}

int qpair_clear(void *arg)
{
	struct nvme_qpair *qpair = arg;
	assert(qpair->state == QPAIR_STOPPED && qpair->outstanding == 0);
	memset(qpair->sq, 0, qpair->depth * sizeof(struct nvme_command));
	memset((void *)qpair->cq, 0, qpair->depth * sizeof(struct nvme_completion));
	qpair->sq_tail = qpair->cq_head = qpair->sq_doorbell.rung = qpair->cq_doorbell.rung = 0;
	qpair->phase = true;
	return 0;
}

int qpair_restart(void *arg)
{
	struct nvme_qpair *qpair = arg;
	qpair->gone_told = false;
	qpair->state = QPAIR_RUNNING;
	return 0;
}

int qpair_late(void *arg)
{
	struct late_commands *late = arg;
	struct nvme_qpair *qpair = late->qpair;
	struct tracker *tracker;
	late->count = 0;
	late->overdue = false;
	cds_list_for_each_entry(tracker, &qpair->sent, node) {
		if (!tracker->timed_out)
			continue;
		if (tracker->abort_asked)
			late->overdue |= reactor_running_ns() - tracker->sent_ns >= 2 * qpair->timeout_ns;
		else if (late->count < ABORT_SLOTS)
			late->cids[late->count++] = tracker->cid;
		tracker->abort_asked |= late->count > 0 && late->cids[late->count - 1] == tracker->cid;
	}
	return 0;
}

/* What an earlier attempt was answered is not the answer. */
static void request_kill(struct nvme_qpair *qpair, struct nvme_request *request)
{
	request->status = STATUS_NONE;
	request_finish(qpair, request, -ENODEV);
}

int qpair_kill(void *arg)
{
	struct nvme_qpair *qpair = arg;
	qpair->state = QPAIR_DEAD;
	while (!cds_list_empty(&qpair->sent)) {
		struct tracker *tracker = cds_list_first_entry(&qpair->sent, struct tracker, node);
		struct nvme_request *request = tracker->request;
		tracker_free(qpair, tracker);
		request_kill(qpair, request);
	}
	struct cds_list_head *const lists[] = {&qpair->waiting, &qpair->delayed};
	for (unsigned i = 0; i < ARRAY_SIZE(lists); i++)
		while (!cds_list_empty(lists[i])) {
			struct nvme_request *request = cds_list_first_entry(lists[i], struct nvme_request, node);
			cds_list_del(&request->node);
			request_kill(qpair, request);
		}
	qpair->waiting_count = 0;
	timer_stop(&qpair->timer);
	return 0;
}

int qpair_unanswered(void *arg)
{
	struct nvme_qpair *qpair = arg;
	return qpair->outstanding > 0 || !cds_list_empty(&qpair->finished);
}
