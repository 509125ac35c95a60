/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Between the command line (options.c) and the configuration file (options_config.c).
 */
#ifndef LANEFS_FS_DAEMON_OPTIONS_INTERNAL_H
#define LANEFS_FS_DAEMON_OPTIONS_INTERNAL_H

#include "fs/daemon/options.h"

/* One option; @value NULL: it has none. -ENOENT: there is no such option; -EINVAL: a wrong value. One line in @message. */
int options_apply(struct mount_config *config, const char *name, const char *value, char *message, size_t message_size)
	MUST_CHECK;
/* Says no to a yes-or-no option. -ENOENT, -EINVAL: it is no such option. */
int options_apply_off(struct mount_config *config, const char *name) MUST_CHECK;
/* Applies what the file says. -errno with one line in @message. */
int options_config_load(struct mount_config *config, const char *path, char *message, size_t message_size) MUST_CHECK;

#endif
