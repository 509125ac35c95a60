/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Telling a service manager, as sd_notify(3) does: "READY=1", "MAINPID=4711". Without one nothing happens.
 */
#ifndef LANEFS_FS_DAEMON_NOTIFY_H
#define LANEFS_FS_DAEMON_NOTIFY_H

#include "reactor/base.h"

/* Before privileges are dropped: later no socket can be made. */
void notify_open(void);
void notify_manager(const char *format, ...) PRINTF_LIKE(1, 2);

#endif
