/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Between the helper's loop and its work.
 */
#ifndef LANEFS_FS_DAEMON_HELPER_INTERNAL_H
#define LANEFS_FS_DAEMON_HELPER_INTERNAL_H

#include "fs/daemon/helper.h"

struct helper_request {
	uint32_t id;
	enum helper_op op;
	uint32_t flags, deadline_ms;
	char text[HELPER_TEXT_BYTES];
};

/* Does what the request says; 0 or -errno, and fills reply->fd and reply->message. In a process of its own. */
int helper_work(const struct mount_config *config, const struct helper_request *request, struct helper_reply *reply);

#endif
