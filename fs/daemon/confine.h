/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the daemon and its helper may still do once everything is set up.
 *
 *   before there are threads   nothing that is ever executed can gain privileges, files are made for their owner alone
 *   when the mount is ready    every thread drops its capabilities; which are left, and why, says confine.c
 *   helper                     keeps what unmounting needs, from its first request on
 *
 * An ordinary user's processes have nothing to drop; their helper must be able to run fusermount3, which is set-user-ID.
 * The option noconfine leaves all of it out, for debuggers and for kernels or libraries that nobody has tried.
 *
 * | call              | from                                                |
 * | confine_begin     | the daemon's first thread, before there are others  |
 * | confine_finish    | the control thread                                  |
 * | confine_helper    | the helper, first of all                            |
 * | confine_status    | any thread                                          |
 */
#ifndef LANEFS_FS_DAEMON_CONFINE_H
#define LANEFS_FS_DAEMON_CONFINE_H

#include <stdint.h>

#include "fs/daemon/options.h"

struct confinement {
	bool on;                /* all that this kernel offers is in force */
	bool paths, calls;      /* files: Landlock; system calls: seccomp */
	uint64_t refused;       /* system calls */
	uint64_t capabilities;  /* what the daemon's threads have left: bit per capability */
};

void confine_begin(const struct mount_config *config);
/* -errno with one line in @message: privileges are left that should not be. */
int confine_finish(const struct mount_config *config, char *message, size_t message_size) MUST_CHECK;
void confine_helper(const struct mount_config *config);
struct confinement confine_status(void);
/* "none", or names with commas between them. */
void confine_capabilities_show(uint64_t capabilities, char *out, size_t out_size);

#endif
