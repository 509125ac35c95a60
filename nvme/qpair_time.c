/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A queue pair and time: commands that take too long, commands that are sent again later, and sleep.
 *
 * The trackers in `sent` are in order of sending, so only the first few need a look. A command that is too late is
 * marked and the minder is told; it asks the controller to abort it, and resets the controller when that does not help
 * either (ctrlr.c). The timer runs only while something is outstanding or delayed: an idle queue pair wakes nobody.
 */
#include <errno.h>
#include <unistd.h>

#include "nvme/nvme_internal.h"
#include "reactor/log.h"

static void poke_arrived(struct message *message)
{
	struct nvme_qpair *qpair = CONTAINER_OF(message, struct nvme_qpair, poke);
	__atomic_store_n(&qpair->poke_sent, false, __ATOMIC_RELEASE);
	ctrlr_poke(qpair->ctrlr);
}

void qpair_poke_minder(struct nvme_qpair *qpair)
{
	if (__atomic_exchange_n(&qpair->poke_sent, true, __ATOMIC_ACQ_REL))
		return;
	qpair->poke.fn = poke_arrived;
	reactor_send(qpair->ctrlr->home, &qpair->poke);
}

/* ---- late commands ---- */

static void look_for_late(struct nvme_qpair *qpair)
{
	struct tracker *tracker;
	bool late = false;
	if (qpair->qid == 0)
		return; /* event requests stay for ever; the others' callers look at the clock themselves */
	cds_list_for_each_entry(tracker, &qpair->sent, node) {
		if (reactor_running_ns() - tracker->sent_ns < qpair->timeout_ns)
			break;
		if (!tracker->timed_out) {
			__atomic_store_n(&qpair->timeouts, qpair->timeouts + 1, __ATOMIC_RELAXED);
			log_warn("%s: queue %u: command %02x (id %u) is not answered after %llu ms", qpair->ctrlr->transport->name,
				qpair->qid, tracker->request->command.opcode, tracker->cid,
				(unsigned long long)(qpair->timeout_ns / NS_PER_MS));
		}
		tracker->timed_out = late = true;
	}
	if (late)
		qpair_poke_minder(qpair);
}

/* ---- sent again later ---- */

void qpair_requeue(struct nvme_qpair *qpair, struct nvme_request *request, uint64_t delay_ns)
{
	request->due_ns = reactor_now_ns() + delay_ns;
	cds_list_add_tail(&request->node, &qpair->delayed);
	qpair_timer_start(qpair);
}

unsigned qpair_send_delayed(struct nvme_qpair *qpair)
{
	struct nvme_request *request, *next;
	unsigned count = 0;
	cds_list_for_each_entry_safe(request, next, &qpair->delayed, node)
		if (request->due_ns <= reactor_now_ns()) {
			cds_list_del(&request->node);
			cds_list_add(&request->node, &qpair->waiting);
			qpair->waiting_count++;
			count++;
		}
	return count;
}

/* ---- the timer ---- */

static void timer_fired(struct timer *timer)
{
	struct nvme_qpair *qpair = CONTAINER_OF(timer, struct nvme_qpair, timer);
	look_for_late(qpair);
	if (!cds_list_empty(&qpair->sent) || !cds_list_empty(&qpair->delayed))
		qpair_timer_start(qpair);
}

void qpair_timer_start(struct nvme_qpair *qpair)
{
	uint64_t delay_ns = MIN(MAX(qpair->timeout_ns / 8, NS_PER_MS), NS_PER_SEC);
	if (!cds_list_empty(&qpair->delayed))
		delay_ns = MIN(delay_ns, RETRY_DELAY_MS * NS_PER_MS);
	if (qpair->qid != 0 || !cds_list_empty(&qpair->delayed))
		timer_start(&qpair->timer, delay_ns, timer_fired);
}

/* ---- sleep ---- */

/* The reactor sleeps after this. True: something will wake it when there is work. */
bool qpair_before_sleep(struct poller *poller)
{
	struct nvme_qpair *qpair = CONTAINER_OF(poller, struct nvme_qpair, poller);
	if (!cds_list_empty(&qpair->finished))
		return false;
	if (qpair->state != QPAIR_RUNNING)
		return true;
	if (qpair->sq_tail != qpair->sq_doorbell.rung || (qpair->waiting_count > 0 && !cds_list_empty(&qpair->free)))
		return false;
	if (qpair->interrupt_fd >= 0) {
		uint64_t count;
		const ssize_t taken = read(qpair->interrupt_fd, &count, sizeof(count));
		(void)taken; /* empty or not: what arrives from here on makes it readable */
		if (qpair->ctrlr->transport->ops->arm)
			qpair->ctrlr->transport->ops->arm(qpair->ctrlr->transport, qpair->qid);
		return !qpair_completion_ready(qpair);
	}
	/* Event requests are always outstanding; the minder looks for their answers on its period. */
	if (qpair->qid == 0 ? qpair->ctrlr->admin_busy == 0 : qpair->outstanding == 0)
		return true;
	if (reactor_now_ns() - qpair->active_ns < SPIN_WITHOUT_INTERRUPTS_US * NS_PER_US)
		return false;
	timer_start(&qpair->timer, NAP_WITHOUT_INTERRUPTS_US * NS_PER_US, timer_fired);
	return true;
}
