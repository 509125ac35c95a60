/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of a controller, led by its minder: a fiber of the home reactor that starts it, watches it, resets it, and
 * takes it down. Everybody else sets a flag and pokes it.
 *
 *              start                fatal, late, asked              reset works
 *   STARTING --------> READY -------------------------> RESETTING -------------> READY
 *       |                |  vanished                       |  it does not
 *       +----------------+---------------------------------+-----> DEAD ---- stop ----> STOPPED
 *
 * Requests are answered by software only when the controller cannot reach memory any more: CC.EN = 0 confirmed, or bus
 * mastering off, or the device gone. Every wait has an end: CAP.TO for CC.EN, time-outs for commands, the caller's
 * deadline for a stop.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "nvme/nvme_internal.h"
#include "reactor/log.h"
#include "reactor/memory.h"

enum { RESET_ATTEMPTS = 2, IO_TIMEOUT_S = 30, ADMIN_TIMEOUT_S = 10, DEPTH_MIN = 2 };

/* ---- small things ---- */

void ctrlr_poke(struct nvme_ctrlr *ctrlr)
{
	ctrlr->poked = true;
	fiber_cond_signal(&ctrlr->poke);
}

int ctrlr_complain(struct nvme_ctrlr *ctrlr, int err, const char *format, ...)
{
	va_list arguments;
	if (ctrlr->message[0])
		return err;
	va_start(arguments, format);
	vsnprintf(ctrlr->message, sizeof(ctrlr->message), format, arguments);
	va_end(arguments);
	return err;
}

bool ctrlr_gone(const struct nvme_ctrlr *ctrlr)
{
	return nvme_transport_gone(ctrlr->transport) || ctrlr->state == CTRLR_DEAD;
}

static void mark_gone(struct nvme_ctrlr *ctrlr)
{
	atomic_store_explicit(&ctrlr->transport->gone, true, memory_order_release);
}

/* All zeroes is what an emulated bus answers for a device that was pulled. */
static bool registers_are_dead(struct nvme_transport *transport)
{
	const uint64_t cap = nvme_read64(transport, NVME_REG_CAP);
	if (cap == 0 || cap == UINT64_MAX)
		return true;
	return transport->ops->alive && !transport->ops->alive(transport);
}

bool ctrlr_check_gone(struct nvme_ctrlr *ctrlr)
{
	if (nvme_transport_gone(ctrlr->transport))
		return true;
	/* Not ready, though nobody reset it: it was pulled on a bus that answers zeroes, or it lost power, and with it whatever was
	 * in its volatile cache. To go on as if nothing had happened would lose writes that were acknowledged. */
	const uint32_t csts = nvme_read32(ctrlr->transport, NVME_REG_CSTS);
	if (csts == NVME_CSTS_GONE || (!FIELD_GET(CSTS_RDY, csts) && !FIELD_GET(CSTS_CFS, csts)))
		mark_gone(ctrlr);
	return nvme_transport_gone(ctrlr->transport);
}

bool ctrlr_vanished(struct nvme_ctrlr *ctrlr)
{
	if (!nvme_transport_gone(ctrlr->transport) && nvme_read32(ctrlr->transport, NVME_REG_CSTS) == NVME_CSTS_GONE)
		mark_gone(ctrlr);
	return nvme_transport_gone(ctrlr->transport);
}

MAY_WAIT bool ctrlr_pause(struct nvme_ctrlr *ctrlr, uint64_t ns)
{
	fiber_sleep(ns);
	if (ctrlr->stop_wanted && reactor_running_ns() >= ctrlr->stop_deadline_ns)
		return false;
	return !nvme_transport_gone(ctrlr->transport);
}

MAY_WAIT int for_each_qpair(struct nvme_ctrlr *ctrlr, int (*fn)(void *qpair))
{
	int first = 0;
	for (unsigned i = 0; i < ctrlr->qpair_count; i++) {
		struct nvme_qpair *qpair = ctrlr->qpairs[i];
		const int err = qpair ? reactor_call_nowait(qpair->reactor, fn, qpair) : 0;
		first = first ? first : err;
	}
	return first;
}

static void set_state(struct nvme_ctrlr *ctrlr, enum ctrlr_state state)
{
	ctrlr->state = state;
	fiber_cond_broadcast(&ctrlr->changed);
}

/* ---- start ---- */

static int check_capabilities(struct nvme_ctrlr *ctrlr)
{
	ctrlr->cap = nvme_read64(ctrlr->transport, NVME_REG_CAP);
	if (ctrlr->cap == UINT64_MAX || ctrlr->cap == 0) {
		mark_gone(ctrlr);
		return ctrlr_complain(ctrlr, -ENODEV, "the device does not answer: is it plugged in and powered?");
	}
	/* 0 is not allowed, but seen: taken for the smallest. */
	ctrlr->ready_timeout_ns = MAX(FIELD_GET(CAP_TO, ctrlr->cap), 1ull) * 500 * NS_PER_MS;
	if (!FIELD_GET(CAP_CSS_NVM, ctrlr->cap))
		return ctrlr_complain(ctrlr, -EOPNOTSUPP, "has no NVM command set: not supported");
	if (FIELD_GET(CAP_MPSMIN, ctrlr->cap) != 0)
		return ctrlr_complain(ctrlr, -EOPNOTSUPP, "wants memory pages larger than 4 KiB: not supported");
	if (FIELD_GET(CAP_MQES, ctrlr->cap) + 1 < DEPTH_MIN)
		return ctrlr_complain(ctrlr, -EOPNOTSUPP, "has queues of one entry: not supported");
	ctrlr->dstrd = (unsigned)FIELD_GET(CAP_DSTRD, ctrlr->cap);
	if (nvme_cq_doorbell((uint16_t)ctrlr->qpair_count, ctrlr->dstrd) + 4 > ctrlr->transport->bar_bytes)
		return ctrlr_complain(ctrlr, -EMFILE, "its registers have no room for %u queue pairs: use fewer reactors",
			ctrlr->qpair_count);
	return 0;
}

static MAY_WAIT int start(struct nvme_ctrlr *ctrlr)
{
	int err = check_capabilities(ctrlr);
	if (!err)
		err = admin_create(ctrlr);
	if (err)
		return ctrlr_complain(ctrlr, err, "no DMA memory for its admin queue: give it more hugepages");
	err = qpair_open(ctrlr->admin);
	if (!err)
		err = ctrlr_disable(ctrlr);
	if (!err)
		err = ctrlr_bring_up(ctrlr, true);
	if (!err)
		for_each_qpair(ctrlr, qpair_restart);
	return err;
}

/* ---- the end ---- */

/* After this the controller cannot reach memory. */
static MAY_WAIT void silence(struct nvme_ctrlr *ctrlr)
{
	if (!nvme_transport_gone(ctrlr->transport) && ctrlr_disable(ctrlr) == 0)
		return;
	if (ctrlr->transport->ops->stop_dma)
		ctrlr->transport->ops->stop_dma(ctrlr->transport);
	mark_gone(ctrlr);
}

static MAY_WAIT void stop_queues(struct nvme_ctrlr *ctrlr)
{
	for_each_qpair(ctrlr, qpair_stop);
	if (ctrlr->admin)
		qpair_stop(ctrlr->admin);
}

static MAY_WAIT void wait_for_answers(struct nvme_ctrlr *ctrlr)
{
	while (for_each_qpair(ctrlr, qpair_unanswered) || (ctrlr->admin && qpair_unanswered(ctrlr->admin)))
		fiber_yield();
}

static MAY_WAIT void kill_queues(struct nvme_ctrlr *ctrlr)
{
	for_each_qpair(ctrlr, qpair_kill);
	if (ctrlr->admin)
		qpair_kill(ctrlr->admin);
	wait_for_answers(ctrlr);
}

static MAY_WAIT void die(struct nvme_ctrlr *ctrlr, const char *why)
{
	log_error("%s: %s", ctrlr->transport->name, why);
	stop_queues(ctrlr);
	silence(ctrlr);
	kill_queues(ctrlr);
	set_state(ctrlr, CTRLR_DEAD);
	if (ctrlr->options.event)
		ctrlr->options.event(ctrlr, NVME_EVENT_GONE, 0, ctrlr->options.arg);
}

/* ---- reset ---- */

static MAY_WAIT int reset_once(struct nvme_ctrlr *ctrlr)
{
	ctrlr->message[0] = '\0';
	ctrlr->reset_wanted = false;
	if (registers_are_dead(ctrlr->transport)) {
		mark_gone(ctrlr);
		return -ENODEV;
	}
	int err = ctrlr_disable(ctrlr);
	if (err)
		return err;
	qpair_stop(ctrlr->admin);
	for_each_qpair(ctrlr, qpair_reclaim);
	qpair_reclaim(ctrlr->admin);
	err = ctrlr_bring_up(ctrlr, false);
	if (err)
		return err;
	for_each_qpair(ctrlr, qpair_restart);
	return 0;
}

static MAY_WAIT void reset(struct nvme_ctrlr *ctrlr)
{
	char why[sizeof(ctrlr->message) + 64];
	int err = -ENODEV;
	set_state(ctrlr, CTRLR_RESETTING);
	ctrlr->info.resets++;
	log_warn("%s: resetting the controller", ctrlr->transport->name);
	stop_queues(ctrlr);
	for (unsigned i = 0; i < RESET_ATTEMPTS && err && !ctrlr->stop_wanted && !ctrlr->power_lost &&
		!nvme_transport_gone(ctrlr->transport); i++)
		err = reset_once(ctrlr);
	if (!err) {
		log_info("%s: the controller is back", ctrlr->transport->name);
		set_state(ctrlr, CTRLR_READY);
		return;
	}
	if (ctrlr->stop_wanted)
		return; /* take_down does the rest */
	snprintf(why, sizeof(why), "%s%s", nvme_transport_gone(ctrlr->transport) ? "the device is gone" :
		"the controller is dead: ", nvme_transport_gone(ctrlr->transport) ? "" : ctrlr->message);
	die(ctrlr, why);
}

/* ---- the minder ---- */

static MAY_WAIT void handle_late(struct nvme_ctrlr *ctrlr)
{
	for (unsigned i = 0; i < ctrlr->qpair_count; i++) {
		struct late_commands late = {.qpair = ctrlr->qpairs[i]};
		reactor_call_nowait(late.qpair->reactor, qpair_late, &late);
		for (unsigned j = 0; j < late.count; j++)
			admin_abort(ctrlr, late.qpair->qid, late.cids[j]);
		ctrlr->reset_wanted |= late.overdue;
	}
}

static void look_at_status(struct nvme_ctrlr *ctrlr)
{
	const uint32_t csts = nvme_read32(ctrlr->transport, NVME_REG_CSTS);
	if (csts == NVME_CSTS_GONE || !FIELD_GET(CSTS_CFS, csts) || ctrlr->reset_wanted)
		return;
	log_error("%s: controller fatal status", ctrlr->transport->name);
	ctrlr->reset_wanted = true;
}

static void look_at_request(struct nvme_ctrlr *ctrlr)
{
	const int fd = ctrlr->transport->ops->request_fd(ctrlr->transport);
	uint64_t count;
	if (fd < 0 || read(fd, &count, sizeof(count)) != sizeof(count) || ctrlr->requested_told)
		return;
	ctrlr->requested_told = true;
	log_info("%s: the device is asked for", ctrlr->transport->name);
	if (ctrlr->options.event)
		ctrlr->options.event(ctrlr, NVME_EVENT_REQUESTED, 0, ctrlr->options.arg);
}

static MAY_WAIT void minder_turn(struct nvme_ctrlr *ctrlr)
{
	/* A dead one cannot be reset: it waits for its stop. */
	if (!ctrlr->poked && (!ctrlr->reset_wanted || ctrlr->state != CTRLR_READY))
		fiber_cond_wait_for(&ctrlr->poke, MINDER_PERIOD_MS * NS_PER_MS, "nothing: the controller is fine");
	ctrlr->poked = false;
	if (ctrlr->stop_wanted || ctrlr->state != CTRLR_READY)
		return;
	if (ctrlr_check_gone(ctrlr)) {
		die(ctrlr, "the device is gone");
		return;
	}
	look_at_status(ctrlr);
	look_at_request(ctrlr);
	if (!ctrlr->reset_wanted)
		handle_late(ctrlr);
	if (ctrlr->reset_wanted)
		reset(ctrlr);
	if (ctrlr->state == CTRLR_READY)
		events_handle(ctrlr);
}

static MAY_WAIT void take_down(struct nvme_ctrlr *ctrlr)
{
	if (ctrlr->state == CTRLR_DEAD)
		return;
	stop_queues(ctrlr);
	if (!ctrlr_check_gone(ctrlr))
		ctrlr_shutdown_notify(ctrlr);
	silence(ctrlr);
	kill_queues(ctrlr);
}

static MAY_WAIT void minder_main(void *arg)
{
	struct nvme_ctrlr *ctrlr = arg;
	ctrlr->start_error = start(ctrlr);
	if (ctrlr->start_error) {
		stop_queues(ctrlr);
		silence(ctrlr);
		kill_queues(ctrlr);
	}
	set_state(ctrlr, ctrlr->start_error ? CTRLR_DEAD : CTRLR_READY);
	while (!ctrlr->stop_wanted)
		minder_turn(ctrlr);
	take_down(ctrlr);
	ctrlr->minder_running = false;
	set_state(ctrlr, CTRLR_STOPPED);
}

/* ---- for the owner ---- */

MAY_WAIT int nvme_ctrlr_attach(struct nvme_transport *transport, const struct nvme_ctrlr_options *options,
	struct nvme_ctrlr **out, char *message, size_t message_size)
{
	struct nvme_ctrlr *ctrlr = calloc(1, sizeof(*ctrlr));
	if (!ctrlr) {
		snprintf(message, message_size, "%s: no memory", transport->name);
		const int released = transport_release(transport, NS_PER_SEC);
		return released ? released : -ENOMEM;
	}
	ctrlr->transport = transport;
	ctrlr->options = *options;
	const unsigned depth = options->queue_depth ? options->queue_depth : (unsigned)NVME_QUEUE_DEPTH_DEFAULT;
	ctrlr->options.queue_depth = MAX(MIN(depth, (unsigned)NVME_QUEUE_DEPTH_MAX), (unsigned)DEPTH_MIN);
	ctrlr->options.io_timeout_ns = options->io_timeout_ns ? options->io_timeout_ns : IO_TIMEOUT_S * NS_PER_SEC;
	ctrlr->options.admin_timeout_ns = options->admin_timeout_ns ? options->admin_timeout_ns : ADMIN_TIMEOUT_S * NS_PER_SEC;
	ctrlr->home = reactor_self();
	ctrlr->qpair_count = reactor_group_count(options->group);
	fiber_cond_init(&ctrlr->poke);
	fiber_cond_init(&ctrlr->changed);
	ctrlr->minder = (struct fiber_start){.fn = minder_main, .arg = ctrlr, .name = "nvme minder"};
	ctrlr->minder_running = true;
	fiber_start(&ctrlr->minder);
	while (ctrlr->state == CTRLR_STARTING)
		fiber_cond_wait(&ctrlr->changed, "a controller to start");
	const int err = ctrlr->start_error;
	if (!err) {
		*out = ctrlr;
		return 0;
	}
	snprintf(message, message_size, "%s: %s", transport->name, ctrlr->message[0] ? ctrlr->message : strerror(-err));
	nvme_ctrlr_stop(ctrlr, NS_PER_SEC);
	if (nvme_ctrlr_destroy(ctrlr, NS_PER_SEC) != 0)
		log_debug("%s", message);
	return err;
}

MAY_WAIT void nvme_ctrlr_stop(struct nvme_ctrlr *ctrlr, uint64_t deadline_ns)
{
	if (!ctrlr->stop_wanted)
		ctrlr->stop_deadline_ns = reactor_running_ns() + MIN(deadline_ns, 3600 * NS_PER_SEC);
	ctrlr->stop_wanted = true;
	fiber_cond_broadcast(&ctrlr->changed);
	ctrlr_poke(ctrlr);
	while (ctrlr->minder_running)
		fiber_cond_wait(&ctrlr->changed, "a controller to stop");
}

/* Messages to the minder lie in the qpairs. */
static MAY_WAIT void wait_for_pokes(struct nvme_ctrlr *ctrlr)
{
	for (unsigned i = 0; i < ctrlr->qpair_count; i++)
		while (ctrlr->qpairs[i] && __atomic_load_n(&ctrlr->qpairs[i]->poke_sent, __ATOMIC_ACQUIRE))
			fiber_sleep(10 * NS_PER_US);
	while (ctrlr->admin && __atomic_load_n(&ctrlr->admin->poke_sent, __ATOMIC_ACQUIRE))
		fiber_sleep(10 * NS_PER_US);
}

MAY_WAIT int nvme_ctrlr_destroy(struct nvme_ctrlr *ctrlr, uint64_t deadline_ns)
{
	assert(ctrlr->state == CTRLR_STOPPED);
	while (ctrlr->callers > 0) /* they have been told, but had no turn yet */
		fiber_cond_wait(&ctrlr->changed, "the last callers of a controller");
	wait_for_answers(ctrlr); /* to what was submitted after the stop */
	for (unsigned i = 0; i < ctrlr->qpair_count; i++)
		if (ctrlr->qpairs[i] && ctrlr->qpairs[i]->poller.reactor)
			reactor_call_nowait(ctrlr->qpairs[i]->reactor, qpair_close, ctrlr->qpairs[i]);
	if (ctrlr->admin && ctrlr->admin->poller.reactor)
		qpair_close(ctrlr->admin);
	wait_for_pokes(ctrlr);
	for (unsigned i = 0; i < ctrlr->qpair_count; i++)
		qpair_destroy(ctrlr->qpairs[i]);
	admin_destroy(ctrlr);
	if (ctrlr->shadow)
		dma_free(ctrlr->shadow);
	struct nvme_transport *transport = ctrlr->transport;
	free(ctrlr);
	return transport_release(transport, deadline_ns);
}

void nvme_ctrlr_lost(struct nvme_ctrlr *ctrlr)
{
	mark_gone(ctrlr);
	ctrlr_poke(ctrlr);
}

MAY_WAIT int nvme_ctrlr_reset(struct nvme_ctrlr *ctrlr)
{
	if (ctrlr->state != CTRLR_READY)
		return -ENODEV;
	const uint64_t resets = ctrlr->info.resets;
	ctrlr->reset_wanted = true;
	ctrlr_enter(ctrlr);
	ctrlr_poke(ctrlr);
	while ((ctrlr->info.resets == resets || ctrlr->state == CTRLR_RESETTING) && ctrlr->state != CTRLR_DEAD &&
		ctrlr->state != CTRLR_STOPPED)
		fiber_cond_wait(&ctrlr->changed, "a controller reset");
	const int err = ctrlr->state == CTRLR_READY ? 0 : -ENODEV;
	ctrlr_leave(ctrlr);
	return err;
}

const struct nvme_ctrlr_info *nvme_ctrlr_get_info(const struct nvme_ctrlr *ctrlr)
{
	struct nvme_ctrlr_info *info = (struct nvme_ctrlr_info *)&ctrlr->info;
	info->timeouts = info->retries = info->errors = 0;
	for (unsigned i = 0; i < ctrlr->qpair_count; i++) {
		if (!ctrlr->qpairs[i])
			continue;
		info->timeouts += __atomic_load_n(&ctrlr->qpairs[i]->timeouts, __ATOMIC_RELAXED);
		info->retries += __atomic_load_n(&ctrlr->qpairs[i]->retries, __ATOMIC_RELAXED);
		info->errors += __atomic_load_n(&ctrlr->qpairs[i]->errors, __ATOMIC_RELAXED);
	}
	return info;
}

const char *nvme_ctrlr_name(const struct nvme_ctrlr *ctrlr) { return ctrlr->transport->name; }

bool nvme_ctrlr_gone(const struct nvme_ctrlr *ctrlr) { return ctrlr_gone(ctrlr); }

bool nvme_ctrlr_resetting(const struct nvme_ctrlr *ctrlr) { return ctrlr->state == CTRLR_RESETTING; }

struct nvme_qpair *nvme_ctrlr_qpair(struct nvme_ctrlr *ctrlr)
{
	const unsigned index = reactor_index(reactor_self());
	assert(index < ctrlr->qpair_count);
	return ctrlr->qpairs[index];
}
