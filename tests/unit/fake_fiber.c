/* SPDX-License-Identifier: BSD-3-Clause */
/* See fake_fiber.h. A fiber is a ucontext; the scheduler goes round robin over those that are not parked. */
#include "tests/unit/fake_fiber.h"

#include <ucontext.h>

enum { STACK_BYTES = 1 << 17 };

struct fiber {
	ucontext_t context;
	void (*fn)(void *arg);
	void *arg;
	bool used, parked, woken;
};

static struct fiber fibers[FAKE_FIBERS_MAX];
static char stacks[FAKE_FIBERS_MAX][STACK_BYTES] __attribute__((aligned(64)));
static struct fiber *running;
static ucontext_t scheduler;

static void fiber_main(void)
{
	running->fn(running->arg);
	running->used = false;
	swapcontext(&running->context, &scheduler);
}

void fake_fiber_start(void (*fn)(void *arg), void *arg)
{
	unsigned i = 0;

	while (fibers[i].used)
		i++;
	assert(i < FAKE_FIBERS_MAX);
	fibers[i] = (struct fiber){.fn = fn, .arg = arg, .used = true};
	getcontext(&fibers[i].context);
	fibers[i].context.uc_stack.ss_sp = stacks[i];
	fibers[i].context.uc_stack.ss_size = STACK_BYTES;
	makecontext(&fibers[i].context, fiber_main, 0);
}

unsigned fake_fiber_run(void)
{
	for (bool any = true; any;) {
		any = false;
		for (unsigned i = 0; i < FAKE_FIBERS_MAX; i++) {
			if (!fibers[i].used || fibers[i].parked)
				continue;
			any = true;
			running = &fibers[i];
			swapcontext(&scheduler, &running->context);
			running = NULL;
		}
	}
	unsigned parked = 0;
	for (unsigned i = 0; i < FAKE_FIBERS_MAX; i++)
		parked += fibers[i].used;
	return parked;
}

MAY_WAIT void fake_fiber_yield(void)
{
	swapcontext(&running->context, &scheduler);
}

struct fiber *fiber_self(void)
{
	return running;
}

MAY_WAIT void fiber_park(const char *why)
{
	if (!running->woken) {
		running->parked = true;
		swapcontext(&running->context, &scheduler);
	}
	running->woken = false;
}

void fiber_wake(struct fiber *fiber)
{
	if (!fiber->parked)
		fiber->woken = true;
	fiber->parked = false;
}
