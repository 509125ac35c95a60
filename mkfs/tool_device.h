/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A target as the tools use it: driven through the block-device layer on reactors that open starts and close stops, while
 * the caller waits. All functions are for the control thread, except what runs by tool_device_run; they use reactor 0, and
 * the others have a channel for whoever starts fibers there.
 */
#ifndef LANEFS_MKFS_TOOL_DEVICE_H
#define LANEFS_MKFS_TOOL_DEVICE_H

#include "blockdev/blockdev.h"

enum { TOOL_BUFFER_BYTES = 256 << 10 };

struct tool_device {
	struct reactor_group *group;
	struct bdev_registry *registry;
	char name[128];               /* in the registry; empty: not there yet */
	struct bdev_desc *desc;
	struct bdev_channel *channel; /* of reactor 0 */
	struct bdev_channel *channels[REACTOR_COUNT_MAX]; /* of each reactor; NULL: the device had no more */
	uint64_t size_bytes;
	uint8_t *buffer;              /* DMA, TOOL_BUFFER_BYTES */
};

/* Opens @target (blockdev's forms) and keeps everybody else from writing until it is closed. Errors as those of
 * bdev_target_create; @message then has one line, "object: cause; next step". Starts EAL when the target needs it, so
 * once per process for such targets. */
int tool_device_open(const char *target, bool read_only, unsigned reactors, struct tool_device **out, char *message,
	size_t message_size) MUST_CHECK;
/* NULL is allowed. */
void tool_device_close(struct tool_device *device);
/* @length: up to TOOL_BUFFER_BYTES; offset and length multiples of 4096. */
int tool_device_read(struct tool_device *device, uint64_t offset, uint32_t length, void *data) MUST_CHECK;
int tool_device_write(struct tool_device *device, uint64_t offset, uint32_t length, const void *data) MUST_CHECK;
int tool_device_flush(struct tool_device *device) MUST_CHECK;
/* Runs fn(arg) as a fiber of the device's reactor. */
int tool_device_run(struct tool_device *device, int (*fn)(void *arg), void *arg);

#endif
