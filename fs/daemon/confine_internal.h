/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The two walls besides capabilities: files (Landlock) and system calls (seccomp).
 */
#ifndef LANEFS_FS_DAEMON_CONFINE_INTERNAL_H
#define LANEFS_FS_DAEMON_CONFINE_INTERNAL_H

#include <signal.h>

#include "fs/daemon/confine.h"

/* Sanitizers read about themselves, execute a symbolizer, and look for leaks from a process that traces ours. */
#ifdef LANEFS_SANITIZED
enum { BUILT_WITH_SANITIZER = 1 };
#else
enum { BUILT_WITH_SANITIZER = 0 };
#endif

/* This thread and those that it will start. True: in force. Needs no_new_privs. */
bool confine_paths(const struct mount_config *config);
/* All threads. True: in force. Whoever handles SIGSYS calls confine_refused. */
bool confine_calls(const struct mount_config *config);
/* What a refused call does: it answers EPERM, and is logged. False: the signal was something else. */
bool confine_refused(const siginfo_t *info, void *context);
uint64_t confine_refused_count(void);

#endif
