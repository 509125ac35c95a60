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
	struct bdev_io *abort_target;
	uint64_t submitted_ns;
	void *framework[8];            /* blockdev's own */
	_Alignas(16) unsigned char context[]; /* module's, context_bytes */
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
	/* Removal, called once on the reactor of bdev_remove: make the device unable to reach memory, then complete every
	 * outstanding I/O of every channel with -ENODEV on its own reactor, then bdev_quiesced. */
	void (*quiesce)(struct bdev *bdev);
	/* The last reference is gone, or the deadline has passed: release the hardware. May run once only. */
	void (*release)(struct bdev *bdev);
};

/* @private_data: the module's struct for the device, see bdev_private. -EEXIST, -ENOMEM. */
int bdev_register(struct bdev_registry *registry, const struct bdev_module *module, const struct bdev_limits *limits,
	void *private_data, struct bdev **out) MUST_CHECK;
void *bdev_private(const struct bdev *bdev);
void bdev_io_complete(struct bdev_io *io, int result);
void bdev_quiesced(struct bdev *bdev);
/* New size or a media error: openers are told on their reactors. Any reactor. */
void bdev_resized(struct bdev *bdev, uint64_t block_count);
void bdev_media_error(struct bdev *bdev, uint64_t offset);
void *bdev_channel_state(struct bdev_channel *channel);
struct reactor *bdev_channel_reactor(const struct bdev_channel *channel);

#endif
