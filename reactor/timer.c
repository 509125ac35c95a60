/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timers: a binary heap of pointers, one per reactor. Each timer knows its place in it, so stopping and moving cost
 * log(n) and no search. The array doubles when it is full and never shrinks, so in steady state there is no malloc.
 */
#include <stdlib.h>

#include "reactor/reactor_internal.h"

enum { TIMER_ROOM_FIRST = 16 };

static void place(struct reactor *reactor, unsigned index, struct timer *timer)
{
	reactor->timers[index] = timer;
	timer->heap_index = index;
}

static void sift_up(struct reactor *reactor, struct timer *timer)
{
	unsigned index = timer->heap_index;
	while (index > 0) {
		struct timer *parent = reactor->timers[(index - 1) / 2];
		if (parent->due_ns <= timer->due_ns)
			break;
		place(reactor, index, parent);
		index = (index - 1) / 2;
	}
	place(reactor, index, timer);
}

static void sift_down(struct reactor *reactor, struct timer *timer)
{
	unsigned index = timer->heap_index;
	for (;;) {
		unsigned child = 2 * index + 1;
		if (child >= reactor->timer_count)
			break;
		if (child + 1 < reactor->timer_count &&
		    reactor->timers[child + 1]->due_ns < reactor->timers[child]->due_ns)
			child++;
		if (timer->due_ns <= reactor->timers[child]->due_ns)
			break;
		place(reactor, index, reactor->timers[child]);
		index = child;
	}
	place(reactor, index, timer);
}

static void make_room(struct reactor *reactor)
{
	if (LIKELY(reactor->timer_count < reactor->timer_room))
		return;
	const unsigned room = MAX(2 * reactor->timer_room, (unsigned)TIMER_ROOM_FIRST);
	struct timer **timers = realloc(reactor->timers, room * sizeof(struct timer *));
	if (!timers) {
		/* A timer that never fires would be a request that never ends. */
		log_error("reactor %u: no memory for %u timers; giving up", reactor->index, room);
		abort();
	}
	reactor->timers = timers;
	reactor->timer_room = room;
}

void timer_start(struct timer *timer, uint64_t delay_ns, void (*fn)(struct timer *))
{
	struct reactor *reactor = reactor_self();
	assert(reactor);
	timer_stop(timer);
	make_room(reactor);
	timer->reactor = reactor;
	timer->fn = fn;
	timer->due_ns = delay_ns > UINT64_MAX - reactor->now_ns ? UINT64_MAX : reactor->now_ns + delay_ns;
	timer->heap_index = reactor->timer_count++;
	sift_up(reactor, timer);
}

void timer_stop(struct timer *timer)
{
	struct reactor *reactor = timer->reactor;
	if (!reactor)
		return;
	assert(reactor == reactor_self());
	timer->reactor = NULL;
	struct timer *last = reactor->timers[--reactor->timer_count];
	if (last == timer)
		return;
	place(reactor, timer->heap_index, last);
	sift_up(reactor, last);
	sift_down(reactor, last);
}

unsigned timer_run(struct reactor *reactor, unsigned count_max)
{
	unsigned count = 0;
	while (count < count_max && reactor->timer_count > 0 && reactor->timers[0]->due_ns <= reactor->now_ns) {
		struct timer *timer = reactor->timers[0];
		timer_stop(timer);
		timer->fn(timer);
		count++;
	}
	return count;
}

void timer_forget(struct reactor *reactor)
{
	for (unsigned i = 0; i < reactor->timer_count; i++)
		reactor->timers[i]->reactor = NULL;
	reactor->timer_count = 0;
}
