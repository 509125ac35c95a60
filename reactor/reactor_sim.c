/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Simulated groups: every reactor on the caller's thread, under virtual time, in an order that a seed decides.
 *
 * A step picks a random reactor among those that have something to do, and of what it could do one piece, of a random
 * bounded size. That interleaves reactors far more finely than real threads would, while a piece, as there, is never
 * interrupted.
 *
 * Active pollers can always be polled, so they alone are not "something to do" for ever: `progress` counts everything
 * that did something, and a reactor whose pollers all found nothing since the last progress is not asked again. Each
 * step takes a little virtual time. When nobody has anything to do, time jumps to the next timer or periodic poller;
 * when there is none, nothing can ever run again.
 */
#include <urcu-qsbr.h>

#include "reactor/reactor_internal.h"

enum {
	STEP_TIME_MAX_NS = 1000,  /* virtual time of a step */
	STEP_MESSAGES_MAX = 4,
	STEP_FIBERS_MAX = 4,
};

enum piece { PIECE_FLUSH, PIECE_MESSAGES, PIECE_TIMERS, PIECE_PERIODIC, PIECE_POLL, PIECE_FIBERS, PIECE_COUNT };

void reactor_sim_init(struct reactor_group *group)
{
	group->sim = (struct reactor_sim){.random = group->options.seed, .now_ns = NS_PER_SEC, .progress = 1};
	if (group->options.simulate)
		for (unsigned i = 0; i < group->count; i++)
			group->reactors[i].now_ns = group->sim.now_ns;
}

/* splitmix64: any seed will do, 0 included. Returns 0..bound-1. */
uint64_t reactor_sim_random(struct reactor_group *group, uint64_t bound)
{
	uint64_t z = group->sim.random += 0x9e3779b97f4a7c15;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return (z ^ (z >> 31)) % bound;
}

/* Bits of enum piece: what @reactor could do now. */
static unsigned pieces_of(struct reactor *reactor)
{
	const struct reactor_sim *sim = &reactor->group->sim;
	unsigned pieces = 0;
	if (message_can_flush(reactor))
		pieces |= 1u << PIECE_FLUSH;
	if (message_pending(reactor))
		pieces |= 1u << PIECE_MESSAGES;
	const struct timer *timer = timer_first(reactor);
	if (timer && timer->due_ns <= sim->now_ns)
		pieces |= 1u << PIECE_TIMERS;
	const struct poller *poller;
	cds_list_for_each_entry(poller, &reactor->periodic, node)
		if (poller->due_ns <= sim->now_ns)
			pieces |= 1u << PIECE_PERIODIC;
	if (!cds_list_empty(&reactor->active) && reactor->polled_at != sim->progress)
		pieces |= 1u << PIECE_POLL;
	if (reactor->runnable > 0)
		pieces |= 1u << PIECE_FIBERS;
	return pieces;
}

/* Where the @number-th set bit of @bits is. */
static unsigned nth_bit(unsigned bits, unsigned number)
{
	for (; number > 0; number--)
		bits &= bits - 1;
	return (unsigned)__builtin_ctz(bits);
}

static unsigned run_piece(struct reactor *reactor, enum piece piece)
{
	struct reactor_group *group = reactor->group;
	switch (piece) {
	case PIECE_FLUSH: return message_flush(reactor);
	case PIECE_MESSAGES: return message_run(reactor, 1 + (unsigned)reactor_sim_random(group, STEP_MESSAGES_MAX));
	case PIECE_TIMERS: return timer_run(reactor, 1);
	case PIECE_PERIODIC: poller_run_periodic(reactor); return 1;
	case PIECE_POLL: return poller_run_active(reactor);
	default: return fiber_run(reactor, 1 + (unsigned)reactor_sim_random(group, STEP_FIBERS_MAX));
	}
}

static void step_reactor(struct reactor *reactor, unsigned pieces)
{
	struct reactor_group *group = reactor->group;
	const unsigned count = (unsigned)__builtin_popcount(pieces);
	const enum piece piece = nth_bit(pieces, (unsigned)reactor_sim_random(group, count));
	const uint64_t polled_at = group->sim.progress;
	reactor->now_ns = group->sim.now_ns;
	stat_add(&reactor->stats.turns, 1);
	struct reactor *before = reactor_enter(reactor);
	const unsigned work = run_piece(reactor, piece);
	reactor_enter(before);
	if (work > 0) {
		group->sim.progress++;
		stat_add(&reactor->stats.busy_turns, 1);
	} else if (piece == PIECE_POLL) {
		reactor->polled_at = polled_at;
	}
}

static bool jump_to_next_due(struct reactor_group *group)
{
	uint64_t due_ns = UINT64_MAX;
	for (unsigned i = 0; i < group->count; i++)
		due_ns = MIN(due_ns, reactor_next_due_ns(&group->reactors[i]));
	if (due_ns == UINT64_MAX)
		return false;
	group->sim.now_ns = MAX(group->sim.now_ns, due_ns);
	group->sim.progress++;
	return true;
}

void reactor_group_sim_restart(struct reactor_group *group, uint64_t seed)
{
	assert(group->options.simulate && !reactor_self());
	for (unsigned i = 0; i < group->count; i++) {
		struct reactor *reactor = &group->reactors[i];
		assert(!reactor->timer_count && !reactor->fibers_running && !message_pending(reactor) && !message_can_flush(reactor));
		assert(cds_list_empty(&reactor->active) && cds_list_empty(&reactor->periodic));
		reactor->stalled_ns = reactor->polled_at = 0;
	}
	group->options.seed = seed;
	reactor_sim_init(group);
}

void reactor_group_sim_stall(struct reactor_group *group, uint64_t stall_ns)
{
	group->sim.now_ns += stall_ns;
	for (unsigned i = 0; i < group->count; i++)
		group->reactors[i].stalled_ns += stall_ns;
}

static bool step(struct reactor_group *group)
{
	unsigned pieces[REACTOR_COUNT_MAX], ready[REACTOR_COUNT_MAX], ready_count = 0;
	group->sim.now_ns += 1 + reactor_sim_random(group, STEP_TIME_MAX_NS);
	do {
		for (unsigned i = 0; i < group->count; i++) {
			pieces[i] = pieces_of(&group->reactors[i]);
			if (pieces[i])
				ready[ready_count++] = i;
		}
	} while (ready_count == 0 && jump_to_next_due(group));
	if (ready_count == 0)
		return false;
	const unsigned index = ready[reactor_sim_random(group, ready_count)];
	step_reactor(&group->reactors[index], pieces[index]);
	return true;
}

bool reactor_group_sim_step(struct reactor_group *group)
{
	assert(group->options.simulate && !reactor_self());
	reactor_rcu_register_thread();
	rcu_thread_online();
	const bool ran = step(group);
	rcu_thread_offline();
	return ran;
}

bool reactor_group_sim_run(struct reactor_group *group, bool (*done)(void *arg), void *arg)
{
	assert(group->options.simulate && !reactor_self());
	reactor_rcu_register_thread();
	rcu_thread_online();
	bool ran = true;
	while (ran && !done(arg)) {
		ran = step(group);
		rcu_quiescent_state();
	}
	rcu_thread_offline();
	if (!ran) {
		log_error("reactor: nothing can run any more; the fibers that wait:");
		reactor_report_parked(group);
	}
	return ran;
}

void reactor_group_sim_abandon(struct reactor_group *group)
{
	assert(group->options.simulate && !reactor_self());
	for (unsigned i = 0; i < group->count; i++) {
		struct reactor *reactor = &group->reactors[i];
		struct poller *poller, *next;
		cds_list_for_each_entry_safe(poller, next, &reactor->active, node)
			poller_unregister(poller);
		cds_list_for_each_entry_safe(poller, next, &reactor->periodic, node)
			poller_unregister(poller);
		message_forget(reactor);
		timer_forget(reactor);
		fiber_forget(reactor);
	}
}
