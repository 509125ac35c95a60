/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fibers without a reactor, for unit tests of code that only parks and wakes: a handful of coroutines on one thread,
 * run in turn until all have ended. Implements fiber_self, fiber_park and fiber_wake.
 */
#ifndef LANEFS_TESTS_FAKE_FIBER_H
#define LANEFS_TESTS_FAKE_FIBER_H

#include "reactor/fiber.h"

enum { FAKE_FIBERS_MAX = 16 };

void fake_fiber_start(void (*fn)(void *arg), void *arg);
/* Runs until no fiber can go on; returns how many are still parked. */
unsigned fake_fiber_run(void);
/* Lets the others run, then goes on. */
MAY_WAIT void fake_fiber_yield(void);

#endif
