/* SPDX-License-Identifier: BSD-3-Clause */
#include "mkfs/tool_device.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme.h"

enum { TOOL_MEMORY_MIB = 32, REACTOR_MEMORY_MIB = 8, SETTLE_MS = 30000 };
#define CLOSE_DEADLINE_NS (60 * NS_PER_SEC)

/* What a fiber gets to know from the control thread. */
struct open_request {
	struct tool_device *device;
	const char *target;
	bool read_only;
	char *message;
	size_t message_size;
};
struct transfer_request {
	struct tool_device *device;
	uint64_t offset;
	uint32_t length;
};

int tool_device_run(struct tool_device *device, int (*fn)(void *arg), void *arg)
{
	return reactor_group_run(reactor_group_get(device->group, 0), fn, arg);
}

MAY_WAIT static int open_fiber(void *arg)
{
	const struct open_request *request = arg;
	struct tool_device *device = request->device;
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

/* One for each further reactor, as many as the device has. */
static int channel_fiber(void *arg)
{
	struct tool_device *device = arg;

	return bdev_channel_get(device->desc, &device->channels[reactor_index(reactor_self())]);
}

static int channel_put_fiber(void *arg)
{
	struct tool_device *device = arg;
	struct bdev_channel **channel = &device->channels[reactor_index(reactor_self())];

	if (*channel)
		bdev_channel_put(*channel);
	*channel = NULL;
	return 0;
}

static void each_further_reactor(struct tool_device *device, int (*fn)(void *arg))
{
	const unsigned count = device->group ? reactor_group_count(device->group) : 0;

	for (unsigned i = 1; i < count && !reactor_group_run(reactor_group_get(device->group, i), fn, device); i++)
		;
}

MAY_WAIT static int close_fiber(void *arg)
{
	struct tool_device *device = arg;

	if (device->channel)
		bdev_channel_put(device->channel);
	if (device->desc)
		bdev_close(device->desc);
	return bdev_remove(device->registry, device->name, CLOSE_DEADLINE_NS);
}

static int runtime_init(struct tool_device *device, const char *target, unsigned reactors, char *message, size_t message_size)
{
	char reason[256] = "";
	const struct reactor_options options = {.count = reactors, .fiber_count = 16};
	struct memory_options memory = {.need_mib = TOOL_MEMORY_MIB + (reactors - 1) * REACTOR_MEMORY_MIB,
		.message = reason, .message_size = sizeof(reason)};
	int err = nvme_target_memory(target, &memory) ? memory_init(&memory) : 0;

	if (err) {
		snprintf(message, message_size, "%s: no DMA memory: %s", target, reason);
		return err;
	}
	if (!err)
		err = reactor_group_create(&options, &device->group);
	if (!err)
		err = reactor_group_start(device->group);
	if (!err)
		err = bdev_registry_create(device->group, &device->registry);
	if (!err)
		err = bdev_registry_prepare(device->registry);
	if (err)
		return err;
	device->buffer = dma_alloc(TOOL_BUFFER_BYTES, 4096);
	return device->buffer ? 0 : -ENOMEM;
}

int tool_device_open(const char *target, bool read_only, unsigned reactors, struct tool_device **out, char *message,
	size_t message_size)
{
	struct tool_device *device = calloc(1, sizeof(*device));
	message[0] = '\0';
	int err = device ? runtime_init(device, target, reactors, message, message_size) : -ENOMEM;

	if (err && !message[0]) {
		snprintf(message, message_size, "%s: this program cannot start: %s; free some memory and try again", target,
			strerror(-err));
	} else if (!err) {
		struct open_request request = {device, target, read_only, message, message_size};
		err = tool_device_run(device, open_fiber, &request);
	}
	if (err) {
		tool_device_close(device);
		return err;
	}
	device->channels[0] = device->channel;
	each_further_reactor(device, channel_fiber);
	*out = device;
	return 0;
}

void tool_device_close(struct tool_device *device)
{
	if (!device)
		return;
	if (device->desc)
		each_further_reactor(device, channel_put_fiber);
	/* One that is not released in time is given back by the end of the process. */
	bool stuck = device->name[0] && tool_device_run(device, close_fiber, device);
	/* A device that vanished is seen off by a fiber of its own. */
	if (device->registry)
		stuck |= !reactor_group_settle(device->group, SETTLE_MS);
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

MAY_WAIT static int read_fiber(void *arg)
{
	const struct transfer_request *request = arg;

	return bdev_read(request->device->channel, request->device->buffer, request->offset, request->length);
}

int tool_device_read(struct tool_device *device, uint64_t offset, uint32_t length, void *data)
{
	struct transfer_request request = {device, offset, length};
	const int err = tool_device_run(device, read_fiber, &request);

	if (!err)
		memcpy(data, device->buffer, length);
	return err;
}

MAY_WAIT static int write_fiber(void *arg)
{
	const struct transfer_request *request = arg;

	return bdev_write(request->device->channel, request->device->buffer, request->offset, request->length, 0);
}

int tool_device_write(struct tool_device *device, uint64_t offset, uint32_t length, const void *data)
{
	struct transfer_request request = {device, offset, length};

	memcpy(device->buffer, data, length);
	return tool_device_run(device, write_fiber, &request);
}

MAY_WAIT static int flush_fiber(void *arg)
{
	const struct tool_device *device = arg;

	return bdev_flush(device->channel);
}

int tool_device_flush(struct tool_device *device) { return tool_device_run(device, flush_fiber, device); }
