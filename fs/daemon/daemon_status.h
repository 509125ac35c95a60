/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What "status" and "stats" have in common.
 */
#ifndef LANEFS_FS_DAEMON_DAEMON_STATUS_H
#define LANEFS_FS_DAEMON_DAEMON_STATUS_H

#include "fs/daemon/daemon_device_rpc.h"

/* ---- daemon_stats.c ---- */
/* A new object in @object under @key; @object's. */
struct json_object *status_object(struct json_object *object, const char *key);
void status_journal(struct json_object *result, const struct fs_status *figures);
void status_cache(struct json_object *result, const struct fs_status *figures);
void status_reactors(struct json_object *result, const struct daemon *daemon);
/* The answer to "stats". Not while the filesystem is being closed. */
struct json_object *daemon_stats(const struct daemon *daemon);

/* ---- kernel_device.c ---- */
/* What the target is to the kernel; looked up once. */
const struct kernel_device *kernel_device_look(struct daemon *daemon);

#endif
