/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Calls that block, from a fiber: they run in a thread of their own while the fiber is parked. For rare things of the
 * control path (opening a device, binding a driver). In a simulated group the call is made at once.
 */
#ifndef LANEFS_REACTOR_BLOCKING_H
#define LANEFS_REACTOR_BLOCKING_H

#include "reactor/fiber.h"

/* Returns what fn(arg) returned, or -ENOMEM when there is no thread. */
MAY_WAIT int reactor_blocking(int (*fn)(void *arg), void *arg);
/* The same, but gives up waiting after @deadline_ns: -ETIMEDOUT; fn goes on and @arg must stay valid until it is over. */
MAY_WAIT int reactor_blocking_for(int (*fn)(void *arg), void *arg, uint64_t deadline_ns);

#endif
