/* SPDX-License-Identifier: BSD-3-Clause */
/* Power cuts from a recording: what a device with a volatile cache may hold at some moment. */
#ifndef LANEFS_TESTS_SIM_CUT_H
#define LANEFS_TESTS_SIM_CUT_H

#include "tests/sim/sim.h"

struct cut_plan {
	const struct record_entry *entries;
	size_t count;
	size_t position;                /* entries before it had been submitted */
	bool ended;                     /* and had completed, those that ever did */
	unsigned keep_percent;          /* of the writes that no FLUSH covers yet: 0 none, 100 all, otherwise drawn */
	uint64_t random;
};
/* Brings @image, which holds what was there before the recording, to the moment of the cut. */
void cut_make(const struct cut_plan *plan, uint8_t *image);

#endif
