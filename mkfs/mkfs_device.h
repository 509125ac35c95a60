/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The target of mkfs.lanefs, driven through the block-device layer: one reactor, started by open and stopped by close,
 * on which a fiber does the work while the caller waits. All functions are for the control thread.
 */
#ifndef LANEFS_MKFS_MKFS_DEVICE_H
#define LANEFS_MKFS_MKFS_DEVICE_H

#include "fs/mkfs.h"

struct mkfs_device;

/* Opens @target (blockdev's forms) and keeps everybody else from writing until it is closed. Errors as those of
 * bdev_target_create; @message then has one line, "object: cause; next step". */
int mkfs_device_open(const char *target, bool read_only, struct mkfs_device **out, char *message, size_t message_size)
	MUST_CHECK;
/* NULL is allowed. */
void mkfs_device_close(struct mkfs_device *device);
uint64_t mkfs_device_size(const struct mkfs_device *device);
int mkfs_device_read(struct mkfs_device *device, uint64_t block, void *data) MUST_CHECK;

struct mkfs_job {
	const struct mkfs_options *options; /* size_bytes at most mkfs_device_size */
	bool discard;                       /* the whole of it first; a target that cannot is no error */
	/* May be NULL. Called on the reactor; what is done is a static string. */
	void (*progress)(void *arg, const char *what, uint64_t done, uint64_t total);
	void *arg;
};
/* Discards; zeroes the first and the last 64 KiB of the target, where signatures of other formats stand; writes the
 * filesystem, its superblock last and between two flushes. On failure @message has cause and next step, without the
 * object, and the target holds no filesystem any more. */
int mkfs_device_format(struct mkfs_device *device, const struct mkfs_job *job, struct fs_super *out_super,
	char *message, size_t message_size) MUST_CHECK;

#endif
