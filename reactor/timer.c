/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Timers: a binary heap of pointers, one per reactor. Each timer knows its place in it, so stopping and moving cost
 * log(n) and no search. The array doubles when it is full and never shrinks, so in steady state there is no malloc. Timers for
 * which there is no memory then are kept in a list, and searched: a timer that never runs would be a request that never ends.
 */
#include <limits.h>
#include <stdlib.h>

#include "reactor/reactor_internal.h"

enum { TIMER_ROOM_FIRST = 16 };
#define UNSORTED UINT_MAX /* instead of a place in the heap: in the list */

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

/* False: there is none. */
static bool make_room(struct reactor *reactor)
{
	if (LIKELY(reactor->timer_count < reactor->timer_room))
		return true;
	const unsigned room = MAX(2 * reactor->timer_room, (unsigned)TIMER_ROOM_FIRST);
	struct timer **timers = realloc(reactor->timers, room * sizeof(struct timer *));
	if (!timers)
		return false;
	reactor->timers = timers;
	reactor->timer_room = room;
	return true;
}

static void unsorted_remove(struct reactor *reactor, const struct timer *timer)
{
	struct timer **link = &reactor->unsorted;
	while (*link != timer)
		link = &(*link)->next;
	*link = timer->next;
}

void timer_start(struct timer *timer, uint64_t delay_ns, void (*fn)(struct timer *))
{
	struct reactor *reactor = reactor_self();
	assert(reactor);
	timer_stop(timer);
	timer->reactor = reactor;
	timer->fn = fn;
	timer->due_ns = delay_ns > UINT64_MAX - reactor->now_ns ? UINT64_MAX : reactor->now_ns + delay_ns;
	if (UNLIKELY(!make_room(reactor))) {
		timer->heap_index = UNSORTED;
		timer->next = reactor->unsorted;
		reactor->unsorted = timer;
		return;
	}
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
	if (UNLIKELY(timer->heap_index == UNSORTED)) {
		unsorted_remove(reactor, timer);
		return;
	}
	struct timer *last = reactor->timers[--reactor->timer_count];
	if (last == timer)
		return;
	place(reactor, timer->heap_index, last);
	sift_up(reactor, last);
	sift_down(reactor, last);
}

struct timer *timer_first(const struct reactor *reactor)
{
	struct timer *first = reactor->timer_count > 0 ? reactor->timers[0] : NULL;
	for (struct timer *timer = reactor->unsorted; UNLIKELY(timer != NULL); timer = timer->next)
		if (!first || timer->due_ns < first->due_ns)
			first = timer;
	return first;
}

unsigned timer_run(struct reactor *reactor, unsigned count_max)
{
	unsigned count = 0;
	for (struct timer *timer; count < count_max && (timer = timer_first(reactor)) && timer->due_ns <= reactor->now_ns; count++) {
		timer_stop(timer);
		timer->fn(timer);
	}
	return count;
}

void timer_forget(struct reactor *reactor)
{
	for (unsigned i = 0; i < reactor->timer_count; i++)
		reactor->timers[i]->reactor = NULL;
	reactor->timer_count = 0;
	for (struct timer *timer = reactor->unsorted; timer; timer = timer->next)
		timer->reactor = NULL;
	reactor->unsorted = NULL;
}
