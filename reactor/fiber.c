/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A fiber's life.
 *
 *   fiber_start -> (waits in line for a stack) -> runnable -> running -> parked -> runnable -> ... -> ended -> pool
 *
 * The reactor's own stack calls fiber_resume, which switches to the fiber; parking and ending switch back there. There
 * is no switch from fiber to fiber. A wake is a permit: it makes a parked fiber runnable, and is kept for the next park
 * of one that is not parked. Whoever waits therefore looks again at what it waits for, in a loop.
 *
 * Calls to another reactor (reactor_call) are served before other starts and never wait for a stack as long as there is
 * memory: the caller may hold locks which the fibers that have all the stacks are waiting for.
 */
#include "reactor/reactor_internal.h"

/* fiber_switch.S */
void fiber_switch(void **save, void *load);
void fiber_entry(void);
__attribute__((noreturn)) void fiber_main(struct fiber *fiber);

struct fiber *fiber_self(void)
{
	struct reactor *reactor = reactor_self();
	return reactor ? reactor->current : NULL;
}

void fiber_set_context(void *context)
{
	struct fiber *fiber = fiber_self();
	assert(fiber);
	fiber->context = context;
}

void *fiber_get_context(void)
{
	struct fiber *fiber = fiber_self();
	return fiber ? fiber->context : NULL;
}

/* ---- running ---- */

static void run_queue_push(struct reactor *reactor, struct fiber *fiber)
{
	fiber->state = FIBER_RUNNABLE;
	fiber->next = NULL;
	if (reactor->run_head)
		reactor->run_tail->next = fiber;
	else
		reactor->run_head = fiber;
	reactor->run_tail = fiber;
	__atomic_store_n(&reactor->runnable, reactor->runnable + 1, __ATOMIC_RELAXED);
}

static struct fiber *run_queue_take_after(struct reactor *reactor, struct fiber *before)
{
	struct fiber *fiber = before ? before->next : reactor->run_head;
	if (before)
		before->next = fiber->next;
	else
		reactor->run_head = fiber->next;
	if (reactor->run_tail == fiber)
		reactor->run_tail = before;
	__atomic_store_n(&reactor->runnable, reactor->runnable - 1, __ATOMIC_RELAXED);
	return fiber;
}

/* The first in line; when simulated, any of the first few. */
static struct fiber *run_queue_pop(struct reactor *reactor)
{
	enum { SIM_CHOICE = 16 };
	struct fiber *before = NULL;
	if (reactor->group->options.simulate) {
		uint64_t skip = reactor_sim_random(reactor->group, MIN(reactor->runnable, (unsigned)SIM_CHOICE));
		for (; skip > 0; skip--)
			before = before ? before->next : reactor->run_head;
	}
	return run_queue_take_after(reactor, before);
}

static void start_next_waiting(struct reactor *reactor);

static void fiber_resume(struct reactor *reactor, struct fiber *fiber)
{
	void *fake_stack = NULL;
	fiber->state = FIBER_RUNNING;
	reactor->current = fiber;
	fiber->shadow_home = sanitizer_fiber_current();
	sanitizer_switch_start(&fake_stack, fiber->stack, fiber->stack_bytes);
	sanitizer_fiber_switch(fiber->shadow);
	fiber_switch(&reactor->stack_pointer, fiber->stack_pointer);
	sanitizer_switch_finish(fake_stack, NULL, NULL);
	reactor->current = NULL;
	if (fiber->state != FIBER_ENDED)
		return;
	fiber->state = FIBER_IDLE;
	sanitizer_fiber_destroy(fiber->shadow);
	cds_list_del(&fiber->node);
	fiber_pool_put(reactor, fiber);
	reactor->fibers_running--;
	stat_add(&reactor->stats.fibers_running, -1ull);
	start_next_waiting(reactor);
}

/* Runs each fiber that is runnable now at most once, @count_max of them. */
unsigned fiber_run(struct reactor *reactor, unsigned count_max)
{
	const unsigned count = MIN(reactor->runnable, count_max);
	for (unsigned i = 0; i < count; i++)
		fiber_resume(reactor, run_queue_pop(reactor));
	return count;
}

/* Back to the reactor's stack; returns when the fiber is resumed. */
static void fiber_leave(struct fiber *fiber)
{
	struct reactor *reactor = fiber->reactor;
	/* An ended fiber tells AddressSanitizer to free its fake stack. */
	sanitizer_switch_start(fiber->state == FIBER_ENDED ? NULL : &fiber->fake_stack, reactor->stack_bottom,
		reactor->stack_bytes);
	sanitizer_fiber_switch(fiber->shadow_home);
	fiber_switch(&fiber->stack_pointer, reactor->stack_pointer);
	sanitizer_switch_finish(fiber->fake_stack, &reactor->stack_bottom, &reactor->stack_bytes);
}

void fiber_main(struct fiber *fiber)
{
	sanitizer_switch_finish(NULL, &fiber->reactor->stack_bottom, &fiber->reactor->stack_bytes);
	fiber->fn(fiber->arg);
	assert(fiber->no_wait_depth == 0);
	fiber->state = FIBER_ENDED;
	fiber_leave(fiber);
	__builtin_unreachable();
}

/* ---- starting ---- */

/* Lays out what fiber_switch pops: six registers, the entry point, and two words that end the stack 16-aligned. */
static void fiber_prepare(struct fiber *fiber)
{
	enum { SLOT_RBX = 4, SLOT_RIP = 6, SLOT_COUNT = 9 };
	void **slots = (void **)(fiber->stack + fiber->stack_bytes) - SLOT_COUNT;
	memset(slots, 0, SLOT_COUNT * sizeof(*slots));
	slots[SLOT_RBX] = fiber;
	slots[SLOT_RIP] = (void *)fiber_entry;
	fiber->stack_pointer = slots;
}

static bool class_may_start(const struct reactor *reactor, enum fiber_class class)
{
	const unsigned limit = reactor->fiber_count;
	switch (class) {
	case FIBER_CLASS_CALL: return true;
	case FIBER_CLASS_INSIDE: return reactor->fibers_running < limit;
	default: return reactor->fibers_running < limit - limit / 2;
	}
}

static bool try_start(struct reactor *reactor, struct fiber_start *start, enum fiber_class class)
{
	if (!class_may_start(reactor, class))
		return false;
	if (UNLIKELY(reactor->fibers_running >= reactor->fiber_count) && !reactor->pool_grown) {
		reactor->pool_grown = true;
		log_debug("reactor %u: more than %u fibers: calls from other reactors get extra ones", reactor->index,
			reactor->fiber_count);
	}
	struct fiber *fiber = fiber_pool_get(reactor);
	if (!fiber)
		return false;
	fiber->fn = start->fn;
	fiber->arg = start->arg;
	fiber->name = start->name ? start->name : "fiber";
	fiber->why = NULL;
	fiber->context = NULL;
	fiber->permit = false;
	fiber->no_wait_depth = 0;
	fiber->fake_stack = NULL;
	fiber->shadow = sanitizer_fiber_create();
	fiber_prepare(fiber);
	cds_list_add_tail(&fiber->node, &reactor->fibers);
	run_queue_push(reactor, fiber);
	reactor->fibers_running++;
	stat_add(&reactor->stats.fibers_started, 1);
	stat_add(&reactor->stats.fibers_running, 1);
	if (reactor->fibers_running > reactor->stats.fibers_peak)
		__atomic_store_n(&reactor->stats.fibers_peak, reactor->fibers_running, __ATOMIC_RELAXED);
	return true;
}

static void start_next_waiting(struct reactor *reactor)
{
	for (enum fiber_class class = 0; class < FIBER_CLASS_COUNT; class++) {
		struct start_queue *queue = &reactor->waiting[class];
		while (queue->head && try_start(reactor, queue->head, class)) {
			queue->head = queue->head->next;
			stat_add(&reactor->stats.fibers_waiting, -1ull);
		}
	}
}

void fiber_start_class(struct reactor *reactor, struct fiber_start *start, enum fiber_class class)
{
	struct start_queue *queue = &reactor->waiting[class];
	if (!queue->head && try_start(reactor, start, class))
		return;
	start->next = NULL;
	if (queue->head)
		queue->tail->next = start;
	else
		queue->head = start;
	queue->tail = start;
	stat_add(&reactor->stats.fibers_waiting, 1);
}

void fiber_start(struct fiber_start *start)
{
	struct reactor *reactor = reactor_self();
	assert(reactor);
	fiber_start_class(reactor, start, reactor->current ? FIBER_CLASS_INSIDE : FIBER_CLASS_FRONT);
}

static void fiber_start_on_arrived(struct message *message)
{
	struct fiber_start_remote *remote = CONTAINER_OF(message, struct fiber_start_remote, message);
	fiber_start_class(reactor_self(), &remote->start, FIBER_CLASS_INSIDE);
}

void fiber_start_on(struct reactor *to, struct fiber_start_remote *start)
{
	start->message.fn = fiber_start_on_arrived;
	if (reactor_self())
		reactor_send(to, &start->message);
	else
		reactor_send_foreign(to, &start->message);
}

unsigned fiber_available(void)
{
	const struct reactor *reactor = reactor_self();
	assert(reactor);
	const unsigned limit = reactor->fiber_count - (reactor->current ? 0 : reactor->fiber_count / 2);
	return limit > reactor->fibers_running ? limit - reactor->fibers_running : 0;
}

/* ---- waiting ---- */

static struct fiber *fiber_that_may_wait(void)
{
	struct fiber *fiber = fiber_self();
	assert(fiber && "only a fiber can wait");
	assert(fiber->no_wait_depth == 0 && "a wait between NO_WAIT_BEGIN and NO_WAIT_END");
	return fiber;
}

void fiber_park(const char *why)
{
	struct fiber *fiber = fiber_that_may_wait();
	if (fiber->permit) {
		fiber->permit = false;
		return;
	}
	fiber->state = FIBER_PARKED;
	fiber->why = why;
	fiber->since_ns = fiber->reactor->now_ns;
	fiber_leave(fiber);
	fiber->why = NULL;
}

void fiber_wake(struct fiber *fiber)
{
	assert(fiber->reactor == reactor_self());
	if (fiber->state == FIBER_PARKED)
		run_queue_push(fiber->reactor, fiber);
	else
		fiber->permit = true;
}

void fiber_yield(void)
{
	struct fiber *fiber = fiber_that_may_wait();
	run_queue_push(fiber->reactor, fiber);
	fiber_leave(fiber);
}

void no_wait_begin(void)
{
	struct fiber *fiber = fiber_self();
	if (fiber)
		fiber->no_wait_depth++;
}

void no_wait_end(void)
{
	struct fiber *fiber = fiber_self();
	if (!fiber)
		return;
	assert(fiber->no_wait_depth > 0);
	fiber->no_wait_depth--;
}

/* ---- calls to another reactor ---- */

struct call {
	struct message message; /* there and back */
	struct fiber_start start;
	int (*fn)(void *arg);
	void *arg, *context;
	struct reactor *home;
	struct fiber *caller;
	int result;
	bool returned;
};

static void call_returned(struct message *message)
{
	struct call *call = CONTAINER_OF(message, struct call, message);
	call->returned = true;
	fiber_wake(call->caller);
}

static void call_answer(struct call *call, int result)
{
	call->result = result;
	call->message.fn = call_returned;
	reactor_send(call->home, &call->message);
}

static void call_fiber(void *arg)
{
	struct call *call = arg;
	fiber_self()->context = call->context;
	call_answer(call, call->fn(call->arg));
}

static void call_arrived(struct message *message)
{
	struct call *call = CONTAINER_OF(message, struct call, message);
	fiber_start_class(reactor_self(), &call->start, FIBER_CLASS_CALL);
}

static void call_nowait_arrived(struct message *message)
{
	struct call *call = CONTAINER_OF(message, struct call, message);
	call_answer(call, call->fn(call->arg));
}

static MAY_WAIT int call_send(struct reactor *owner, struct call *call, const char *why)
{
	reactor_send(owner, &call->message);
	while (!call->returned)
		fiber_park(why);
	return call->result;
}

int reactor_call(struct reactor *owner, int (*fn)(void *arg), void *arg)
{
	struct fiber *fiber = fiber_that_may_wait();
	if (owner == fiber->reactor)
		return fn(arg);
	struct call call = {
		.message.fn = call_arrived,
		.start = {.fn = call_fiber, .arg = &call, .name = fiber->name},
		.fn = fn, .arg = arg, .context = fiber->context, .home = fiber->reactor, .caller = fiber,
	};
	return call_send(owner, &call, "reactor_call");
}

int reactor_call_nowait(struct reactor *owner, int (*fn)(void *arg), void *arg)
{
	struct fiber *fiber = fiber_that_may_wait();
	if (owner == fiber->reactor) {
		no_wait_begin();
		const int result = fn(arg);
		no_wait_end();
		return result;
	}
	struct call call = {
		.message.fn = call_nowait_arrived, .fn = fn, .arg = arg, .home = fiber->reactor, .caller = fiber,
	};
	return call_send(owner, &call, "reactor_call_nowait");
}

/* ---- power cut ---- */

void fiber_forget(struct reactor *reactor)
{
	struct fiber *fiber, *next;
	cds_list_for_each_entry_safe(fiber, next, &reactor->fibers, node) {
		sanitizer_unpoison(fiber->stack, fiber->stack_bytes);
		fiber->state = FIBER_IDLE;
		sanitizer_fiber_destroy(fiber->shadow);
		fiber_pool_put(reactor, fiber);
	}
	CDS_INIT_LIST_HEAD(&reactor->fibers);
	reactor->run_head = reactor->run_tail = NULL;
	reactor->runnable = 0;
	reactor->fibers_running = 0;
	__atomic_store_n(&reactor->stats.fibers_running, 0, __ATOMIC_RELAXED);
	memset(reactor->waiting, 0, sizeof(reactor->waiting));
}
