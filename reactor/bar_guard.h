/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Survives the disappearance of a mapped device. When a PCI device's memory decode goes off, or the file behind a
 * mapping is cut, the next access raises SIGBUS. The handler looks the address up in a fixed table of guarded mappings;
 * if it is there, it maps a prepared page of 0xFF bytes over the whole mapping, stores true to the guard's `gone` and
 * returns: the access reads all ones, as it does on a bus, and the driver's normal failure path runs. Any other SIGBUS
 * goes to the handler that was there before.
 *
 * The table is process-wide on purpose (a signal handler is). Lookup takes no lock, allocates nothing, logs nothing.
 *
 * | call                  | from                                                  |
 * | bar_guard_add, remove | any thread, at attach and detach; never in a handler  |
 */
#ifndef LANEFS_REACTOR_BAR_GUARD_H
#define LANEFS_REACTOR_BAR_GUARD_H

#include <stdatomic.h>

#include "reactor/base.h"

enum { BAR_GUARDS_MAX = 64, BAR_GUARD_BYTES_MAX = 1 << 20 };

/* Guards [base, base + size): page-aligned, at most BAR_GUARD_BYTES_MAX. @gone is set to true (release) by the handler;
 * it and the mapping must stay until bar_guard_remove has returned. The first call installs the handler. -ENOSPC (table
 * full), -EINVAL, -errno of preparing the page. */
int bar_guard_add(void *base, size_t size, atomic_bool *gone) MUST_CHECK;
/* Before the munmap; nothing happens when it is not guarded. */
void bar_guard_remove(void *base);

#endif
