/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages between reactors.
 *
 * Each reactor has one ring with many producers. A message that does not fit waits in the sender's FIFO for that
 * destination, and so does everything that this sender sends there until the FIFO is empty again: that keeps the order
 * between the two, without failing or waiting. The FIFOs are flushed at the start of every turn, and a reactor with a
 * message in them does not sleep.
 *
 * The ring is of the "relaxed tail" kind: a producer that is preempted halfway delays the others' messages but does
 * not make them spin, which matters where several reactors share a core.
 *
 * Foreign threads have no FIFO; they push onto a lock-free stack that the receiver takes as a whole and turns around.
 */
#include <errno.h>
#include <stdlib.h>

/* DPDK's header tests a macro that clang does not have. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wundef"
#include <rte_ring.h>
#pragma GCC diagnostic pop

#include "reactor/happens_before.h"
#include "reactor/reactor_internal.h"

/* One message in so many takes the way of the full ring when simulated. */
enum { SIM_OVERFLOW_ONE_IN = 4 };

static void queue_push(struct message_queue *queue, struct message *message)
{
	message->next = NULL;
	if (queue->head)
		queue->tail->next = message;
	else
		queue->head = message;
	queue->tail = message;
}

static struct message *queue_pop(struct message_queue *queue)
{
	struct message *message = queue->head;
	if (message)
		queue->head = message->next;
	return message;
}

int message_init(struct reactor *reactor)
{
	const struct reactor_options *options = &reactor->group->options;
	const unsigned count = options->simulate ? MESSAGE_RING_COUNT_SIM : MESSAGE_RING_COUNT;
	const size_t size = align_up((uint64_t)rte_ring_get_memsize(count), RTE_CACHE_LINE_SIZE);
	reactor->ring = aligned_alloc(RTE_CACHE_LINE_SIZE, size);
	reactor->overflow = calloc(reactor->group->count, sizeof(*reactor->overflow));
	if (!reactor->ring || !reactor->overflow)
		return -ENOMEM;
	return rte_ring_init(reactor->ring, "lanefs", count, RING_F_MP_RTS_ENQ | RING_F_SC_DEQ);
}

void message_fini(struct reactor *reactor)
{
	free(reactor->ring);
	free(reactor->overflow);
	reactor->ring = NULL;
	reactor->overflow = NULL;
}

static bool must_wait_in_line(struct reactor *from, const struct message_queue *queue)
{
	struct reactor_group *group = from->group;
	return queue->head || (group->options.simulate && reactor_sim_random(group, SIM_OVERFLOW_ONE_IN) == 0);
}

static bool ring_put(struct reactor *to, struct message *message)
{
	happens_before_give(message);
	return rte_ring_enqueue(to->ring, message) == 0;
}

void reactor_send(struct reactor *to, struct message *message)
{
	struct reactor *from = reactor_self();
	assert(from && from->group == to->group);
	struct message_queue *queue = &from->overflow[to->index];
	if (must_wait_in_line(from, queue) || !ring_put(to, message)) {
		queue_push(queue, message);
		from->overflow_count++;
		return;
	}
	if (to != from)
		reactor_wake(to);
}

void reactor_send_foreign(struct reactor *to, struct message *message)
{
	struct message *head = __atomic_load_n(&to->foreign, __ATOMIC_RELAXED);
	do
		message->next = head;
	while (!__atomic_compare_exchange_n(&to->foreign, &head, message, true, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	reactor_wake(to);
}

static unsigned flush_to(struct reactor *from, struct reactor *to)
{
	struct message_queue *queue = &from->overflow[to->index];
	unsigned count = 0;
	while (queue->head) {
		/* Once it is in the ring the message is the receiver's: look at its successor before. */
		struct message *message = queue->head, *rest = message->next;
		if (!ring_put(to, message))
			break;
		queue->head = rest;
		count++;
	}
	from->overflow_count -= count;
	if (count > 0 && to != from)
		reactor_wake(to);
	return count;
}

unsigned message_flush(struct reactor *reactor)
{
	unsigned count = 0;
	if (LIKELY(reactor->overflow_count == 0))
		return 0;
	for (unsigned i = 0; i < reactor->group->count; i++)
		count += flush_to(reactor, &reactor->group->reactors[i]);
	return count;
}

bool message_can_flush(const struct reactor *reactor)
{
	if (reactor->overflow_count == 0)
		return false;
	for (unsigned i = 0; i < reactor->group->count; i++)
		if (reactor->overflow[i].head && !rte_ring_full(reactor->group->reactors[i].ring))
			return true;
	return false;
}

static void take_foreign(struct reactor *reactor)
{
	if (LIKELY(!__atomic_load_n(&reactor->foreign, __ATOMIC_RELAXED)))
		return;
	struct message *newest = __atomic_exchange_n(&reactor->foreign, NULL, __ATOMIC_ACQUIRE), *oldest = NULL;
	while (newest) {
		struct message *older = newest->next;
		newest->next = oldest;
		oldest = newest;
		newest = older;
	}
	while (oldest) {
		struct message *newer = oldest->next;
		queue_push(&reactor->foreign_queue, oldest);
		oldest = newer;
	}
}

unsigned message_run(struct reactor *reactor, unsigned count_max)
{
	void *batch[MESSAGE_BATCH];
	assert(count_max <= MESSAGE_BATCH);
	unsigned count = rte_ring_dequeue_burst(reactor->ring, batch, count_max, NULL);
	for (unsigned i = 0; i < count; i++) {
		struct message *message = batch[i];
		happens_before_take(message);
		message->fn(message);
	}
	take_foreign(reactor);
	for (; count < count_max && reactor->foreign_queue.head; count++) {
		struct message *message = queue_pop(&reactor->foreign_queue);
		message->fn(message);
	}
	if (count > 0)
		stat_add(&reactor->stats.messages, count);
	return count;
}

unsigned message_waiting(const struct reactor *reactor)
{
	return (reactor->ring ? rte_ring_count(reactor->ring) : 0) +
		__atomic_load_n(&reactor->overflow_count, __ATOMIC_RELAXED);
}

bool message_pending(struct reactor *reactor)
{
	return !rte_ring_empty(reactor->ring) || reactor->foreign_queue.head ||
	       __atomic_load_n(&reactor->foreign, __ATOMIC_RELAXED);
}

void message_forget(struct reactor *reactor)
{
	void *message;
	while (rte_ring_dequeue(reactor->ring, &message) == 0)
		;
	memset(reactor->overflow, 0, reactor->group->count * sizeof(*reactor->overflow));
	reactor->overflow_count = 0;
	reactor->foreign_queue.head = NULL;
	__atomic_store_n(&reactor->foreign, NULL, __ATOMIC_RELAXED);
}
