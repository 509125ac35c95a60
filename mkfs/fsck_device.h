/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The target of fsck.lanefs: a file or kernel block device, or what lanefs drives itself, with a cache of large pieces so
 * that neighbouring metadata costs one read, and the lock that tells whether a daemon holds it. For the control thread,
 * and for the jobs that it runs on reactors: fibers, each with its own part of the cache.
 */
#ifndef LANEFS_MKFS_FSCK_DEVICE_H
#define LANEFS_MKFS_FSCK_DEVICE_H

#include "reactor/base.h"

struct fsck_device;

/* Opens @target. On failure a negative errno, and @message has one line naming target, cause and next step: -EOPNOTSUPP for
 * a form that is not built yet, -EBUSY when another process holds it (for writing; if @writable, at all). */
int fsck_device_open(const char *target, bool writable, unsigned reactors, struct fsck_device **out, char *message,
	size_t message_size) MUST_CHECK;
uint64_t fsck_device_blocks(const struct fsck_device *device);
/* Jobs that keep the device busy: 1 when there is one reactor and the device waits for each read. */
unsigned fsck_device_jobs(const struct fsck_device *device);
/* Runs job(arg) @count times (1..fsck_device_jobs), side by side, and waits for all. Jobs may read, and nothing else. */
void fsck_device_run(struct fsck_device *device, unsigned count, void (*job)(void *arg), void *arg);
/* Reads one block of 4 KiB. -EIO past the end; else the errno of the read. */
int fsck_device_read(struct fsck_device *device, uint64_t block, void *data) MUST_CHECK;
/* Writes one block; the next read sees it. */
int fsck_device_write(struct fsck_device *device, uint64_t block, const void *data) MUST_CHECK;
/* Everything written is durable. */
int fsck_device_flush(struct fsck_device *device) MUST_CHECK;
/* NULL is allowed. */
void fsck_device_close(struct fsck_device *device);

#endif
