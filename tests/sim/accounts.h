/* SPDX-License-Identifier: BSD-3-Clause */
/* What a mounted, idle filesystem may not have kept: reservations, pins, credit, blocks in quarantine, operations, counts. */
#ifndef LANEFS_TESTS_SIM_ACCOUNTS_H
#define LANEFS_TESTS_SIM_ACCOUNTS_H

#include "tests/sim/sim.h"

/* Does a checkpoint first. NULL, or what is wrong; not for one that has stopped or is read-only. @short_of_memory: there was a
 * time without; freed blocks may then stay unused, and lookup counts stay, until the next mount. */
const char *accounts_check(struct sim *sim, bool short_of_memory);

#endif
