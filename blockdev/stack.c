/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A stacking module opens its base like anybody else. When the base is removed, a fiber removes the bdev on top, with
 * less time than the base has left, so that the upper one lets go before the lower one gives up.
 */
#include "blockdev/stack.h"

#include <errno.h>
#include <stdio.h>

#include "blockdev/bdev_internal.h"
#include "reactor/log.h"

/* The bdev may go as soon as removal_starting is false, hence the copies. */
MAY_WAIT static void stack_remove_self(void *arg)
{
	struct stack *stack = arg;
	struct bdev_registry *registry = stack->registry;
	const uint64_t now = reactor_now_ns();
	const uint64_t base_deadline = bdev_desc_bdev(stack->desc)->removal.deadline_ns;
	const uint64_t left = base_deadline > now ? base_deadline - now : 0;
	char name[sizeof(((struct bdev_limits *)NULL)->name)];
	memcpy(name, stack->self->limits.name, sizeof(name));
	stack->removal_starting = false;
	const int err = bdev_remove(registry, name, left - left / 4);
	if (err != 0)
		log_warn("%s: its base was removed, but it is still open", name);
}

static void stack_event(enum bdev_event event, struct bdev_desc *desc, void *arg)
{
	struct stack *stack = arg;
	if (stack->self == NULL)
		return;
	if (event == BDEV_EVENT_RESIZED)
		bdev_resized(stack->self, bdev_get_limits(bdev_desc_bdev(desc))->block_count);
	if (event == BDEV_EVENT_MEDIA_ERROR)
		bdev_post_event(stack->self, event);
	if (event != BDEV_EVENT_REMOVED)
		return;
	stack->removal_starting = true;
	stack->removal = (struct fiber_start){.fn = stack_remove_self, .arg = stack, .name = "removal with the base"};
	fiber_start(&stack->removal);
}

MAY_WAIT int stack_open(struct stack *stack, struct bdev_registry *registry, const char *name, const char *base,
	struct bdev_limits *limits)
{
	*stack = (struct stack){.registry = registry};
	int err = bdev_open(registry, base, true, stack_event, stack, &stack->desc);
	if (err == -EROFS)
		err = bdev_open(registry, base, false, stack_event, stack, &stack->desc);
	if (err != 0)
		return err;
	stack->reactor = stack->desc->reactor;
	bdev_desc_set_label(stack->desc, name);
	*limits = *bdev_get_limits(bdev_desc_bdev(stack->desc));
	snprintf(limits->name, sizeof(limits->name), "%s", name);
	limits->needs_dma = false;
	limits->buffer_align = 0;
	limits->ops &= ~(1u << IO_ABORT);
	limits->stack_level++;
	if (limits->stack_level <= STACK_LEVEL_MAX)
		return 0;
	bdev_close(stack->desc);
	return -ELOOP;
}

int stack_rescan(const struct stack *stack)
{
	struct bdev *base = bdev_desc_bdev(stack->desc);
	const int err = bdev_rescan(base);
	if (err == 0 && base->limits.block_count != stack->self->limits.block_count)
		bdev_resized(stack->self, base->limits.block_count);
	return err;
}

MAY_WAIT static int stack_close_there(void *arg)
{
	struct stack *stack = arg;
	while (stack->removal_starting)
		fiber_yield();
	bdev_close(stack->desc);
	stack->desc = NULL;
	return 0;
}

MAY_WAIT void stack_close(struct stack *stack)
{
	const int err = reactor_call(stack->reactor, stack_close_there, stack);
	assert(err == 0);
}

void stack_prepare(struct io *io, struct bdev_channel *base, const struct bdev_io *public, void (*done)(struct io *))
{
	*io = (struct io){
		.channel = base,
		.op = public->op,
		.flags = public->flags,
		.offset = public->offset,
		.length = public->length,
		.iov = public->iov,
		.iov_count = public->iov_count,
		.done = done,
	};
}
