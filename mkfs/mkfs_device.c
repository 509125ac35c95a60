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

#include "mkfs/tool_device.h"

_Static_assert(TOOL_BUFFER_BYTES == 64 * FS_BLOCK_SIZE, "");
enum { BLOCKS_IN_FLIGHT = 64, BUFFER_BYTES = TOOL_BUFFER_BYTES };
/* Where other formats have their signatures: up to 2 MiB from the start (btrfs 64 KiB, VMFS 2 MiB), and at the end (ZFS
 * 512 KiB). Every target is larger than both together. */
#define SIGNATURE_BYTES_FIRST MIB(4)
#define SIGNATURE_BYTES_LAST MIB(1)
#define DISCARD_BYTES_MIN GIB(1)      /* between two reports of progress */

struct mkfs_device {
	struct tool_device *tool;
	struct io io[BLOCKS_IN_FLIGHT];
	struct io_group in_flight;
	unsigned in_flight_count;
};

/* What a fiber gets to know from the control thread. */
struct format_request {
	struct mkfs_device *device;
	const struct mkfs_job *job;
	struct fs_super *out_super;
	char *message;
	size_t message_size;
};

int mkfs_device_open(const char *target, bool read_only, struct mkfs_device **out, char *message, size_t message_size)
{
	struct mkfs_device *device = calloc(1, sizeof(*device));

	if (!device) {
		snprintf(message, message_size, "%s: no memory", target);
		return -ENOMEM;
	}
	const int err = tool_device_open(target, read_only, 1, &device->tool, message, message_size);
	if (err)
		free(device);
	else
		*out = device;
	return err;
}

void mkfs_device_close(struct mkfs_device *device)
{
	if (!device)
		return;
	tool_device_close(device->tool);
	free(device);
}

uint64_t mkfs_device_size(const struct mkfs_device *device)
{
	return device->tool->size_bytes;
}

int mkfs_device_read(struct mkfs_device *device, uint64_t block, void *data)
{
	return tool_device_read(device->tool, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE, data);
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

	return err ? err : bdev_flush(device->tool->channel);
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
	uint8_t *buffer = device->tool->buffer + (size_t)device->in_flight_count * FS_BLOCK_SIZE;
	struct io *io = &device->io[device->in_flight_count++];
	memcpy(buffer, data, FS_BLOCK_SIZE);
	io_prepare(io, device->tool->channel, IO_WRITE, buffer, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
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
		io_prepare(&io, device->tool->channel, IO_UNMAP, NULL, done, MIN(step, total - done));
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
		err = bdev_write(device->tool->channel, device->tool->buffer, offset + done, MIN(length - done, (uint64_t)BUFFER_BYTES), 0);
	return err;
}

MAY_WAIT static int signatures_wipe(struct mkfs_device *device)
{
	memset(device->tool->buffer, 0, BUFFER_BYTES);
	int err = range_zero(device, 0, SIGNATURE_BYTES_FIRST);
	if (!err)
		err = range_zero(device, device->tool->size_bytes - SIGNATURE_BYTES_LAST, SIGNATURE_BYTES_LAST);
	return err ? err : bdev_flush(device->tool->channel);
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

	return tool_device_run(device->tool, format_fiber, &request);
}
