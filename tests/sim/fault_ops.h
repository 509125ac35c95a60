/* SPDX-License-Identifier: BSD-3-Clause */
/* Shorthands of the files that list operations for the fault sweep. */
#ifndef LANEFS_TESTS_SIM_FAULT_OPS_H
#define LANEFS_TESTS_SIM_FAULT_OPS_H

#include "tests/sim/fault_sweep.h"

#define ROOT FS_ROOT_INODE
#define M (&run->machine)
#define AT(place) (run->image->ino[place])
/* Something was answered that is not so. */
#define CHECK(condition)                                                                                                        \
	do {                                                                                                                    \
		if (!(condition))                                                                                               \
			run->wrong = true;                                                                                      \
	} while (0)

extern const struct fault_op fault_ops_names[], fault_ops_data[];
extern const unsigned fault_ops_names_count, fault_ops_data_count;

#endif
