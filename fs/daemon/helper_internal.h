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

/* Takes requests until the other end closes or says something that is none, and has those that may be done served; the others
 * are refused. Their text ends, their deadline is bounded. */
typedef void (*helper_serve_fn)(int socket_fd, const struct mount_config *config, const struct helper_request *request);
void helper_loop(int socket_fd, const struct mount_config *config, helper_serve_fn serve);
/* Serves a request, here and now, however long it takes. 0, or -errno: there is nobody to be answered. */
int helper_answer(int socket_fd, const struct mount_config *config, const struct helper_request *request) MUST_CHECK;

/* Does what the request says; 0 or -errno, and fills reply->fd and reply->message. In a process of its own. */
int helper_work(const struct mount_config *config, const struct helper_request *request, struct helper_reply *reply);

#endif
