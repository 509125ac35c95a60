/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Formatting a block device. mkfs_format hands over one block after another; they are collected in DMA memory and kept
 * in flight together, BLOCKS_IN_FLIGHT at a time, since a large target is a thousand small writes far apart.
 *
 * Order: old signatures are gone and flushed before the first new block is written, and all new blocks are flushed
 * before the superblock. So a target whose formatting was interrupted is recognised as nothing, never as its old self
 * or as half a lanefs.
 */
#include "mkfs/mkfs_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/blockdev.h"
#include "reactor/memory.h"

enum { BLOCKS_IN_FLIGHT = 64, BUFFER_BYTES = BLOCKS_IN_FLIGHT * FS_BLOCK_SIZE };
/* Where other formats have their signatures: up to 2 MiB from the start (btrfs 64 KiB, VMFS 2 MiB), and at the end (ZFS
 * 512 KiB). Every target is larger than both together. */
#define SIGNATURE_BYTES_FIRST MIB(4)
#define SIGNATURE_BYTES_LAST MIB(1)
#define DISCARD_BYTES_MIN GIB(1)      /* between two reports of progress */
#define CLOSE_DEADLINE_NS (60 * NS_PER_SEC)

struct mkfs_device {
	struct reactor_group *group;
	struct bdev_registry *registry;
	char name[128];               /* in the registry; empty: not there yet */
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	uint64_t size_bytes;
	uint8_t *buffer;              /* DMA, BLOCKS_IN_FLIGHT blocks */
	struct io io[BLOCKS_IN_FLIGHT];
	struct io_group in_flight;
	unsigned in_flight_count;
};

/* What a fiber gets to know from the control thread. */
struct open_request {
	struct mkfs_device *device;
	const char *target;
	bool read_only;
	char *message;
	size_t message_size;
};
struct read_request {
	struct mkfs_device *device;
	uint64_t block;
};
struct format_request {
	struct mkfs_device *device;
	const struct mkfs_job *job;
	struct fs_super *out_super;
	char *message;
	size_t message_size;
};

static int device_run(struct mkfs_device *device, int (*fn)(void *arg), void *arg)
{
	return reactor_group_run(reactor_group_get(device->group, 0), fn, arg);
}

/* ---- opening and closing ---- */

MAY_WAIT static int open_fiber(void *arg)
{
	const struct open_request *request = arg;
	struct mkfs_device *device = request->device;
	const struct target_options options = {.read_only = request->read_only, .exclusive_lock = true};

	int err = bdev_target_create(device->registry, request->target, &options, device->name, sizeof(device->name),
		request->message, request->message_size);
	if (err) {
		device->name[0] = '\0';
		return err;
	}
	err = bdev_open(device->registry, device->name, !request->read_only, NULL, NULL, &device->desc);
	if (!err)
		err = bdev_channel_get(device->desc, &device->channel);
	if (err) {
		snprintf(request->message, request->message_size, "%s: cannot be used: %s; try again", request->target,
			strerror(-err));
		return err;
	}
	device->size_bytes = bdev_size_bytes(bdev_get_limits(bdev_desc_bdev(device->desc)));
	return 0;
}

MAY_WAIT static int close_fiber(void *arg)
{
	struct mkfs_device *device = arg;

	if (device->channel)
		bdev_channel_put(device->channel);
	if (device->desc)
		bdev_close(device->desc);
	return bdev_remove(device->registry, device->name, CLOSE_DEADLINE_NS);
}

static int runtime_init(struct mkfs_device *device)
{
	const struct reactor_options options = {.count = 1, .fiber_count = 16};

	int err = reactor_group_create(&options, &device->group);
	if (!err)
		err = reactor_group_start(device->group);
	if (!err)
		err = bdev_registry_create(device->group, &device->registry);
	if (err)
		return err;
	device->buffer = dma_alloc(BUFFER_BYTES, FS_BLOCK_SIZE);
	return device->buffer ? 0 : -ENOMEM;
}

int mkfs_device_open(const char *target, bool read_only, struct mkfs_device **out, char *message, size_t message_size)
{
	struct mkfs_device *device = calloc(1, sizeof(*device));
	int err = device ? runtime_init(device) : -ENOMEM;

	if (err) {
		snprintf(message, message_size, "%s: this program cannot start: %s; free some memory and try again", target,
			strerror(-err));
	} else {
		struct open_request request = {device, target, read_only, message, message_size};
		err = device_run(device, open_fiber, &request);
	}
	if (err)
		mkfs_device_close(device);
	else
		*out = device;
	return err;
}

void mkfs_device_close(struct mkfs_device *device)
{
	if (!device)
		return;
	/* One that is not released in time is given back by the end of the process. */
	const bool stuck = device->name[0] && device_run(device, close_fiber, device);
	if (device->group)
		reactor_group_stop(device->group);
	if (stuck)
		return;
	if (device->registry)
		bdev_registry_destroy(device->registry);
	if (device->group)
		reactor_group_destroy(device->group);
	dma_free(device->buffer);
	free(device);
}

uint64_t mkfs_device_size(const struct mkfs_device *device)
{
	return device->size_bytes;
}

/* ---- reading one block ---- */

MAY_WAIT static int read_fiber(void *arg)
{
	const struct read_request *request = arg;
	struct mkfs_device *device = request->device;

	return bdev_read(device->channel, device->buffer, request->block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
}

int mkfs_device_read(struct mkfs_device *device, uint64_t block, void *data)
{
	struct read_request request = {device, block};
	const int err = device_run(device, read_fiber, &request);

	if (!err)
		memcpy(data, device->buffer, FS_BLOCK_SIZE);
	return err;
}

/* ---- writing ---- */

MAY_WAIT static int blocks_wait(struct mkfs_device *device)
{
	const int err = io_group_wait(&device->in_flight);

	io_group_init(&device->in_flight);
	device->in_flight_count = 0;
	return err;
}

MAY_WAIT static int blocks_flush(struct mkfs_device *device)
{
	const int err = blocks_wait(device);

	return err ? err : bdev_flush(device->channel);
}

/* mkfs_io.write. The superblock, which comes last, waits for all that went before. */
MAY_WAIT static int block_write(void *arg, uint64_t block, const void *data)
{
	const struct format_request *request = arg;
	struct mkfs_device *device = request->device;
	int err = 0;

	if (block == FS_SUPER_BLOCK)
		err = blocks_flush(device);
	else if (device->in_flight_count == BLOCKS_IN_FLIGHT)
		err = blocks_wait(device);
	if (err)
		return err;
	uint8_t *buffer = device->buffer + (size_t)device->in_flight_count * FS_BLOCK_SIZE;
	struct io *io = &device->io[device->in_flight_count++];
	memcpy(buffer, data, FS_BLOCK_SIZE);
	io_prepare(io, device->channel, IO_WRITE, buffer, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
	io_group_submit(&device->in_flight, io);
	return 0;
}

/* mkfs_io.progress. */
static void blocks_progress(void *arg, uint64_t done, uint64_t total)
{
	const struct mkfs_job *job = ((const struct format_request *)arg)->job;

	if (job->progress)
		job->progress(job->arg, "writing allocation groups", done, total);
}

MAY_WAIT static int device_discard(struct mkfs_device *device, const struct mkfs_job *job)
{
	const uint64_t total = align_down(job->options->size_bytes, FS_BLOCK_SIZE);
	const uint64_t step = align_up(MAX(total / 100, DISCARD_BYTES_MIN), DISCARD_BYTES_MIN);

	for (uint64_t done = 0; done < total; done += step) {
		struct io io;
		io_prepare(&io, device->channel, IO_UNMAP, NULL, done, MIN(step, total - done));
		const int err = io_run(&io);
		if (err)
			return err == -EOPNOTSUPP ? 0 : err;
		if (job->progress)
			job->progress(job->arg, "discarding", MIN(done + step, total), total);
	}
	return 0;
}

/* The buffer holds zeroes. */
MAY_WAIT static int range_zero(struct mkfs_device *device, uint64_t offset, uint64_t length)
{
	int err = 0;

	for (uint64_t done = 0; !err && done < length; done += BUFFER_BYTES)
		err = bdev_write(device->channel, device->buffer, offset + done, MIN(length - done, (uint64_t)BUFFER_BYTES), 0);
	return err;
}

MAY_WAIT static int signatures_wipe(struct mkfs_device *device)
{
	memset(device->buffer, 0, BUFFER_BYTES);
	int err = range_zero(device, 0, SIGNATURE_BYTES_FIRST);
	if (!err)
		err = range_zero(device, device->size_bytes - SIGNATURE_BYTES_LAST, SIGNATURE_BYTES_LAST);
	return err ? err : bdev_flush(device->channel);
}

MAY_WAIT static int format_fiber(void *arg)
{
	struct format_request *request = arg;
	struct mkfs_device *device = request->device;
	const struct mkfs_io io = {.write = block_write, .progress = blocks_progress, .arg = request};
	const char *what = "discarding";

	io_group_init(&device->in_flight);
	device->in_flight_count = 0;
	int err = request->job->discard ? device_discard(device, request->job) : 0;
	if (!err) {
		what = "wiping old signatures";
		err = signatures_wipe(device);
	}
	if (!err) {
		what = "writing";
		err = mkfs_format(request->job->options, &io, request->out_super, request->message, request->message_size);
		const int last = blocks_flush(device); /* in any case: the buffers are in use until then */
		err = err ? err : last;
	}
	if (err == -ENOSPC)
		snprintf(request->message, request->message_size,
			"no space left where the image lies; make room there and format again");
	else if (err)
		snprintf(request->message, request->message_size, "%s failed: %s; check the device and format again", what,
			strerror(-err));
	return err;
}

int mkfs_device_format(struct mkfs_device *device, const struct mkfs_job *job, struct fs_super *out_super,
	char *message, size_t message_size)
{
	struct format_request request = {device, job, out_super, message, message_size};

	return device_run(device, format_fiber, &request);
}
