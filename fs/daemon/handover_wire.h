/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Messages between the daemon that hands its mount over and the one that takes it: JSON objects, one per line, in turn; with
 * one of them descriptors travel. Blocking, with a time-out; both ends are control threads.
 */
#ifndef LANEFS_FS_DAEMON_HANDOVER_WIRE_H
#define LANEFS_FS_DAEMON_HANDOVER_WIRE_H

#include <json-c/json.h>

#include "reactor/base.h"

enum { HANDOVER_LINE_BYTES_MAX = 32 * 1024, HANDOVER_FDS = 2, HANDOVER_SEND_MS = 5000 };

/* @message is taken over; @fds may be NULL (else HANDOVER_FDS of them). -EPIPE, -ETIMEDOUT, ... */
int handover_send(int socket, struct json_object *message, const int *fds) MUST_CHECK;
/* *out is the caller's, and so are @fds (NULL: none are expected), -1 where none came. -ETIMEDOUT; -EPIPE: the other end is
 * closed; -EPROTO: no message. */
int handover_receive(int socket, int timeout_ms, struct json_object **out, int *fds) MUST_CHECK;

#endif
