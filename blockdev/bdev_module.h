/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a block-device module implements. A module fills a struct bdev_module once and calls bdev_register per device.
 */
#ifndef LANEFS_BLOCKDEV_BDEV_MODULE_H
#define LANEFS_BLOCKDEV_BDEV_MODULE_H

#include "blockdev/blockdev.h"

/* One piece of an I/O on its way through a module. From a pool; the module's context follows it in memory. */
struct bdev_io {
	struct cds_list_head node;     /* the module's while it owns the object */
	struct bdev *bdev;
	struct bdev_channel *channel;
	enum io_op op;
	uint32_t flags;
	uint64_t offset, length;       /* bytes, within the device's limits */
	const struct iovec *iov;
	unsigned iov_count;
	struct bdev_io *abort_target;  /* to be compared with what the module has: it may be over; or NULL */
	uint64_t submitted_ns;
	_Alignas(8) unsigned char context[];  /* module's, context_bytes; for structs of 8-byte alignment */
};

struct bdev_module {
	const char *name;
	size_t context_bytes;          /* per bdev_io */
	size_t channel_bytes;          /* module state per channel */
	int (*channel_init)(struct bdev *bdev, void *channel_state);
	void (*channel_fini)(struct bdev *bdev, void *channel_state);
	/* Takes the I/O and completes it later (or now) with bdev_io_complete; or returns -ENOMEM and leaves it alone.
	 * Any other return value is not allowed. */
	int (*submit)(struct bdev *bdev, void *channel_state, struct bdev_io *io);
	/* See bdev_set_read_only; the limits are set by the caller. NULL: nothing but them is to change. */
	MAY_WAIT int (*set_read_only)(struct bdev *bdev, bool read_only);
	/* Removal, called once, in the fiber of bdev_remove, when no further I/O can reach the module: make the device
	 * unable to reach memory, then complete every outstanding I/O of every channel with -ENODEV on its own reactor,
	 * then bdev_quiesced. bdev_drain does the last two. */
	void (*quiesce)(struct bdev *bdev);
	/* The last reference is gone, or the deadline has passed: release the hardware. Called once, in the fiber of
	 * bdev_remove; may wait. After a deadline channels may still be open: their channel_fini comes later.
	 * NULL: nothing. */
	MAY_WAIT void (*release)(struct bdev *bdev);
	/* The size may have changed: looks, and calls bdev_resized if it did. -EINVAL: smaller. May wait. NULL: it cannot. */
	MAY_WAIT int (*rescan)(struct bdev *bdev);
	/* After release, when no descriptor and no channel is left: free private_data. Must not wait, may run on any
	 * reactor (or on the control thread, without release, when a simulation was abandoned). NULL: nothing. */
	void (*destroy)(struct bdev *bdev);
};

/* @private_data: the module's struct for the device, see bdev_private; stays the caller's when this fails. Limits are
 * copied; zeroes in them get their defaults. -EEXIST, -EINVAL (limits that make no sense), -ENOMEM. Does not wait. */
int bdev_register(struct bdev_registry *registry, const struct bdev_module *module, const struct bdev_limits *limits,
	void *private_data, struct bdev **out) MUST_CHECK;
void *bdev_private(const struct bdev *bdev);
const struct bdev_module *bdev_module_of(const struct bdev *bdev);
/* In a simulated group a module must not depend on the kernel's timing. */
bool bdev_registry_is_simulated(const struct bdev_registry *registry);
void bdev_io_complete(struct bdev_io *io, int result);
/* Any reactor. */
void bdev_quiesced(struct bdev *bdev);
/* For quiesce: runs fail(bdev, channel_state) on every open channel's reactor (it completes what it can; NULL:
 * nothing), waits until no channel has an I/O outstanding, then calls bdev_quiesced. Returns at once. */
void bdev_drain(struct bdev *bdev, void (*fail)(struct bdev *bdev, void *channel_state));
/* New size or a media error: openers are told on their reactors. Any reactor. */
void bdev_resized(struct bdev *bdev, uint64_t block_count);
void bdev_media_error(struct bdev *bdev, uint64_t offset);
void *bdev_channel_state(struct bdev_channel *channel);
struct reactor *bdev_channel_reactor(const struct bdev_channel *channel);

#endif
