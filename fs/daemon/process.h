/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a process does that the kernel's write-back may depend on: it must not wait for memory that can only be had by
 * writing to itself. Each step is done where it is permitted and left out, silently, where it is not.
 */
#ifndef LANEFS_FS_DAEMON_PROCESS_H
#define LANEFS_FS_DAEMON_PROCESS_H

#include "reactor/base.h"

/* Before other threads exist (they inherit it): PR_SET_IO_FLUSHER, and out of the out-of-memory killer's way. */
void process_protect(void);
/* When all stacks and pools are mapped (guard pages cannot be made in locked memory): what is touched stays resident. */
void process_lock_memory(void);

#endif
