/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What stacking modules share: a descriptor on the base, limits taken from it, and following it when it is removed.
 */
#ifndef LANEFS_BLOCKDEV_STACK_H
#define LANEFS_BLOCKDEV_STACK_H

#include "blockdev/bdev_module.h"

struct stack {
	struct bdev_registry *registry;
	struct bdev_desc *desc;      /* on the base */
	struct reactor *reactor;     /* of the descriptor */
	struct bdev *self;           /* set by bdev_register */
	struct fiber_start removal;  /* starts the removal of self when the base goes */
	bool removal_starting;
};

/* Opens @base (for reading only if it is read-only) and fills @limits for a bdev called @name on it. -ENODEV, -ENOMEM,
 * -ELOOP (too many levels). */
MAY_WAIT int stack_open(struct stack *stack, struct bdev_registry *registry, const char *name, const char *base,
	struct bdev_limits *limits) MUST_CHECK;
/* The base is as large as it says now: so are we. For a module's rescan. */
MAY_WAIT int stack_rescan(const struct stack *stack) MUST_CHECK;
/* Any reactor's fiber. */
MAY_WAIT void stack_close(struct stack *stack);
/* Makes @io, in the context of @public, what @public is, for the base's channel. */
void stack_prepare(struct io *io, struct bdev_channel *base, const struct bdev_io *public, void (*done)(struct io *));

#endif
