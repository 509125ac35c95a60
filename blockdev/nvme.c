/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The data path of the nvme module: a bdev_io becomes one NVMe command on this reactor's queue pair. The framework has
 * cut it so that it fits. The request lies in the bdev_io's context.
 *
 * Held I/O: under NVME_HOLD a request that comes back without a completion of the controller has not happened, or
 * nobody was told that it has; it waits in the lane, with its buffers, until a queue pair is there again.
 */
#include "blockdev/nvme.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme_internal.h"
#include "reactor/memory.h"

enum { STATUS_NONE = 0xffff, CID_NONE = 0xffff, NVME_BLOCKS_MAX = 1 << 16 /* NLB has 16 bits */ };

struct nvme_context {
	struct nvme_request request;
	struct message message;           /* of a reset, there and back */
	struct fiber_start reset;
};

struct nvme_channel {
	struct nvme_lane *lane;
};

static struct nvme_context *context_of(struct bdev_io *io) { return (struct nvme_context *)io->context; }

static struct bdev_io *io_of(struct nvme_request *request)
{
	struct nvme_context *context = CONTAINER_OF(request, struct nvme_context, request);
	return CONTAINER_OF((unsigned char(*)[])context, struct bdev_io, context);
}

static int nvme_channel_init(struct bdev *bdev, void *channel_state)
{
	struct nvme_ns *ns = bdev_private(bdev);
	struct nvme_channel *channel = channel_state;
	channel->lane = &ns->device->lanes[reactor_index(reactor_self())];
	return 0;
}

/* ---- sending ---- */

static void command_fill(const struct nvme_ns *ns, const struct bdev_io *io, struct nvme_request *request)
{
	static const uint8_t opcodes[IO_OP_COUNT] = {
		[IO_READ] = NVME_CMD_READ,
		[IO_WRITE] = NVME_CMD_WRITE,
		[IO_FLUSH] = NVME_CMD_FLUSH,
		[IO_UNMAP] = NVME_CMD_DSM,
		[IO_WRITE_ZEROES] = NVME_CMD_WRITE_ZEROES,
	};
	struct nvme_command *command = &request->command;
	const uint64_t lba = io->offset >> ns->block_shift, blocks = io->length >> ns->block_shift;
	const bool writes = io->op == IO_WRITE || io->op == IO_WRITE_ZEROES;
	*command = (struct nvme_command){.opcode = opcodes[io->op], .nsid = le32_set(ns->nsid)};
	request->dsm_blocks = 0;
	request->iov = NULL;
	request->iov_count = request->length = 0;
	if (io->op == IO_FLUSH)
		return;
	if (io->op == IO_UNMAP) {
		command->cdw11 = le32_set(NVME_DSM_DEALLOCATE);
		request->dsm_blocks = (uint32_t)blocks;
		request->dsm_lba = lba;
		return;
	}
	command->cdw10 = le32_set((uint32_t)lba);
	command->cdw11 = le32_set((uint32_t)(lba >> 32));
	command->cdw12 = le32_set((uint32_t)(blocks - 1) |
		(writes && (ns->device->write_fua || (io->flags & IO_FUA)) ? NVME_RW_FUA : 0));
	if (io->op == IO_WRITE_ZEROES)
		return;
	request->iov = io->iov;
	request->iov_count = io->iov_count;
	request->length = (uint32_t)io->length;
}

/* What is held when a removal begins is failed by its sweep; what comes back afterwards must not join it. */
static bool is_held(const struct nvme_ns *ns)
{
	return atomic_load_explicit(&ns->device->holds, memory_order_acquire) &&
		!atomic_load_explicit(&ns->leaving, memory_order_acquire);
}

static void nvme_done(struct nvme_request *request)
{
	struct bdev_io *io = io_of(request);
	const struct nvme_ns *ns = bdev_private(io->bdev);
	if (LIKELY(request->result == 0) || request->status != STATUS_NONE || request->result != -ENODEV || !is_held(ns)) {
		bdev_io_complete(io, request->result);
		return;
	}
	cds_list_add_tail(&io->node, &ns->device->lanes[reactor_index(reactor_self())].held);
}

static void lane_send(struct nvme_lane *lane, struct bdev_io *io)
{
	struct nvme_request *request = &context_of(io)->request;
	command_fill(bdev_private(io->bdev), io, request);
	request->done = nvme_done;
	nvme_submit(lane->qpair, request);
}

/* ---- reset and abort ---- */

static void reset_answered(struct message *message)
{
	struct nvme_context *context = CONTAINER_OF(message, struct nvme_context, message);
	bdev_io_complete(io_of(&context->request), context->request.result);
}

static MAY_WAIT void reset_fiber(void *arg)
{
	struct bdev_io *io = arg;
	struct nvme_context *context = context_of(io);
	const struct nvme_ns *ns = bdev_private(io->bdev);
	context->request.result = ns->device->ctrlr ? nvme_ctrlr_reset(ns->device->ctrlr) : -ENODEV;
	context->message.fn = reset_answered;
	reactor_send(bdev_channel_reactor(io->channel), &context->message);
}

static void reset_arrived(struct message *message)
{
	struct nvme_context *context = CONTAINER_OF(message, struct nvme_context, message);
	context->reset = (struct fiber_start){.fn = reset_fiber, .arg = io_of(&context->request), .name = "nvme reset"};
	fiber_start(&context->reset);
}

static void abort_target(struct nvme_lane *lane, struct bdev_io *target)
{
	struct bdev_io *io, *next;
	if (!target)
		return;
	cds_list_for_each_entry_safe(io, next, &lane->held, node)
		if (io == target) {
			cds_list_del(&io->node);
			bdev_io_complete(io, -ECANCELED);
			return;
		}
	if (lane->qpair)
		nvme_abort(lane->qpair, &context_of(target)->request);
}

static int nvme_bdev_submit(struct bdev *bdev, void *channel_state, struct bdev_io *io)
{
	struct nvme_lane *lane = ((struct nvme_channel *)channel_state)->lane;
	context_of(io)->request.cid = CID_NONE; /* not sent, for whoever aborts it */
	if (UNLIKELY(io->op == IO_RESET)) {
		context_of(io)->message.fn = reset_arrived;
		reactor_send(lane->device->home, &context_of(io)->message);
	} else if (UNLIKELY(io->op == IO_ABORT)) {
		abort_target(lane, io->abort_target);
		bdev_io_complete(io, 0);
	} else if (LIKELY(lane->qpair != NULL)) {
		lane_send(lane, io);
	} else if (is_held(bdev_private(bdev))) {
		cds_list_add_tail(&io->node, &lane->held);
	} else {
		bdev_io_complete(io, -ENODEV);
	}
	return 0;
}

/* ---- lanes ---- */

struct lane_change {
	struct nvme_lane *lane;
	struct nvme_ctrlr *ctrlr;
};

static int lane_set(void *arg)
{
	const struct lane_change *change = arg;
	struct nvme_lane *lane = change->lane;
	lane->qpair = change->ctrlr ? nvme_ctrlr_qpair(change->ctrlr) : NULL;
	while (lane->qpair && !cds_list_empty(&lane->held)) {
		struct bdev_io *io = cds_list_first_entry(&lane->held, struct bdev_io, node);
		cds_list_del(&io->node);
		lane_send(lane, io);
	}
	return 0;
}

MAY_WAIT void nvme_lanes_set(struct nvme_device *device, struct nvme_ctrlr *ctrlr)
{
	struct reactor_group *group = reactor_group_of(device->home);
	for (unsigned i = 0; i < reactor_group_count(group); i++) {
		struct lane_change change = {.lane = &device->lanes[i], .ctrlr = ctrlr};
		reactor_call_nowait(reactor_group_get(group, i), lane_set, &change);
	}
}

/* ---- removal ---- */

static void nvme_fail_held(struct bdev *bdev, void *channel_state)
{
	struct nvme_lane *lane = ((struct nvme_channel *)channel_state)->lane;
	struct bdev_io *io, *next;
	cds_list_for_each_entry_safe(io, next, &lane->held, node)
		if (io->bdev == bdev) {
			cds_list_del(&io->node);
			bdev_io_complete(io, -ENODEV);
		}
}

/* A controller that lives answers what it has; one that is gone has been stopped before (nvme_device.c), or is on the
 * way. */
static void nvme_quiesce(struct bdev *bdev)
{
	struct nvme_ns *ns = bdev_private(bdev);
	atomic_store_explicit(&ns->leaving, true, memory_order_release);
	bdev_drain(bdev, nvme_fail_held);
}

static void nvme_destroy(struct bdev *bdev)
{
	struct nvme_ns *ns = bdev_private(bdev);
	struct nvme_device *device = ns->device;
	free(ns);
	nvme_device_put(device);
}

/* Whether the namespace itself may be written: its medium may have become writable since it was identified. */
static MAY_WAIT int identify_protected(const struct nvme_ns *ns)
{
	struct nvme_id_ns *id = dma_alloc(NVME_IDENTIFY_BYTES, NVME_IDENTIFY_BYTES);
	int err = id == NULL ? -ENOMEM : ns->device->ctrlr == NULL ? -ENODEV : nvme_identify(ns->device->ctrlr, NVME_CNS_NS,
		ns->nsid, id);
	if (!err && id->nsattr & 1)
		err = -EROFS;
	if (id != NULL)
		dma_free(id);
	return err;
}

static MAY_WAIT int nvme_set_read_only(struct bdev *bdev, bool read_only)
{
	const struct nvme_ns *ns = bdev_private(bdev);
	struct nvme_device *device = ns->device;
	nvme_device_lock(device);
	int err = device->drive ? emu_drive_set_read_only(device->drive, read_only) : 0;
	if (!err && !read_only)
		err = identify_protected(ns);
	if (!err)
		device->options.read_only = read_only;
	nvme_device_unlock(device);
	return err;
}

/* A controller says by itself that a namespace has grown; that of an emulated one only when its medium was looked at. */
static MAY_WAIT int nvme_rescan(struct bdev *bdev)
{
	enum { ROUNDS = 400, PAUSE_MS = 5 };
	const struct nvme_ns *ns = bdev_private(bdev);
	struct nvme_device *device = ns->device;
	const uint64_t before = bdev_get_limits(bdev)->block_count;
	bool grew = false;
	nvme_device_lock(device);
	int err = device->drive ? emu_drive_rescan(device->drive, &grew) : 0;
	nvme_device_unlock(device);
	for (unsigned i = 0; grew && i < ROUNDS && bdev_get_limits(bdev)->block_count == before; i++)
		fiber_sleep(PAUSE_MS * NS_PER_MS);
	return err;
}

const struct bdev_module nvme_module = {
	.name = "nvme",
	.context_bytes = sizeof(struct nvme_context),
	.channel_bytes = sizeof(struct nvme_channel),
	.channel_init = nvme_channel_init,
	.submit = nvme_bdev_submit,
	.set_read_only = nvme_set_read_only,
	.rescan = nvme_rescan,
	.quiesce = nvme_quiesce,
	.release = nvme_device_release_bdev,
	.destroy = nvme_destroy,
};

/* ---- the bdev ---- */

struct bdev_limits nvme_ns_limits(const struct nvme_device *device, const struct nvme_ctrlr *of, const struct nvme_ns_info *ns)
{
	const struct nvme_ctrlr_info *ctrlr = nvme_ctrlr_get_info(of);
	const uint64_t blocks_bytes = (uint64_t)NVME_BLOCKS_MAX * ns->block_size;
	return (struct bdev_limits){
		.block_size = ns->block_size,
		.block_count = ns->block_count,
		.optimal_boundary_blocks = ns->optimal_boundary_blocks,
		.atomic_write_blocks = ns->atomic_write_blocks,
		.io_bytes_max = (uint32_t)MIN((uint64_t)ctrlr->transfer_bytes_max, blocks_bytes),
		.vector_boundary = 4096,
		.volatile_cache = ctrlr->cache_on && !device->write_fua,
		.unmap_reads_zero = ns->deallocate_zeroes,
		.read_only = ns->read_only || device->options.read_only,
		.needs_dma = true,
		.native_fua = true,
		.ops = 1u << IO_READ | 1u << IO_WRITE | 1u << IO_FLUSH | 1u << IO_RESET | 1u << IO_ABORT |
			(ctrlr->dsm ? 1u << IO_UNMAP : 0) | (ctrlr->write_zeroes ? 1u << IO_WRITE_ZEROES : 0),
		.unmap_bytes_max = GIB(1),
		.write_zeroes_bytes_max = (uint32_t)MIN(blocks_bytes, MIB(32)),
		.stack_level = device->drive ? emu_drive_level(device->drive) : 0,
	};
}

int nvme_ns_register(struct nvme_device *device, const struct nvme_ns_info *info, const char *name)
{
	struct nvme_ns *ns = calloc(1, sizeof(*ns));
	if (!ns)
		return -ENOMEM;
	struct bdev_limits limits = nvme_ns_limits(device, device->ctrlr, info);
	ns->device = device;
	ns->nsid = info->nsid;
	ns->block_size = info->block_size;
	ns->block_shift = (uint32_t)__builtin_ctz(info->block_size);
	ns->block_count = info->block_count;
	snprintf(ns->name, sizeof(ns->name), "%s", name);
	snprintf(limits.name, sizeof(limits.name), "%s", name);
	const int err = bdev_register(device->registry, &nvme_module, &limits, ns, &ns->bdev);
	if (err) {
		free(ns);
		return err;
	}
	cds_list_add_tail(&ns->node, &device->namespaces);
	device->bdev_count++;
	atomic_fetch_add(&device->users, 1);
	return 0;
}

/* ---- reading past the lanes ---- */

struct direct_wait {
	struct nvme_request request;
	struct fiber *fiber;
	bool done;
};

static void direct_done(struct nvme_request *request)
{
	struct direct_wait *wait = CONTAINER_OF(request, struct direct_wait, request);
	wait->done = true;
	fiber_wake(wait->fiber);
}

/* One command; @page is DMA memory. */
static MAY_WAIT int direct_run(const struct nvme_direct_read *direct, void *page, uint64_t offset, uint32_t length)
{
	const uint32_t block = direct->ns.block_size;
	const struct iovec iov = {.iov_base = page, .iov_len = length};
	const uint64_t lba = offset / block;
	struct direct_wait wait = {
		.fiber = fiber_self(),
		.request = {
			.command = {.opcode = NVME_CMD_READ, .nsid = le32_set(direct->ns.nsid), .cdw10 = le32_set((uint32_t)lba),
				.cdw11 = le32_set((uint32_t)(lba >> 32)), .cdw12 = le32_set(length / block - 1)},
			.iov = &iov,
			.iov_count = 1,
			.length = length,
			.done = direct_done,
		},
	};
	nvme_submit(nvme_ctrlr_qpair(direct->ctrlr), &wait.request);
	while (!wait.done)
		fiber_park("a read from a controller that came back");
	return wait.request.result;
}

MAY_WAIT int nvme_read_direct(void *arg, void *buffer, uint64_t offset, uint32_t length)
{
	const struct nvme_direct_read *direct = arg;
	const uint32_t block = direct->ns.block_size;
	const uint64_t size = block * direct->ns.block_count;
	if (offset % block != 0 || length % block != 0 || length == 0 || offset > size || length > size - offset)
		return -EINVAL;
	const uint32_t most = MIN(nvme_ctrlr_get_info(direct->ctrlr)->transfer_bytes_max, (uint32_t)KIB(64));
	void *page = dma_alloc(MIN(length, most), 4096);
	if (!page)
		return -ENOMEM;
	int err = 0;
	for (uint32_t done = 0; done < length && !err;) {
		const uint32_t part = MIN(length - done, most);
		err = direct_run(direct, page, offset + done, part);
		if (!err)
			memcpy((char *)buffer + done, page, part);
		done += part;
	}
	dma_free(page);
	return err;
}
