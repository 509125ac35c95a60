/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the tests of `lanefs hugepages` need beside the command.
 */
#ifndef LANEFS_CONTROL_HUGEPAGES_H
#define LANEFS_CONTROL_HUGEPAGES_H

#include "reactor/base.h"

/* "512" pages, or a size ("1G", "512 MiB" without the space), rounded up to whole pages. -EINVAL, -ERANGE. */
int hugepages_parse(const char *text, uint64_t *pages) MUST_CHECK;
/* The kernel's folder of 2 MiB pages; NULL: the real one. */
void hugepages_set_folder(const char *folder);

#endif
