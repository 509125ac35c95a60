/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The ram module: a device in memory, for tests.
 *
 * Its own memory is one sparse mapping: what was never written reads as zeroes and costs nothing, and unmap gives whole
 * pages back. The synchronous form completes inside submit. The asynchronous form gives every I/O a timer with a seeded
 * random delay, and moves the data only when the timer fires: I/Os finish late and out of order, and a caller that
 * touches a buffer too early, or reads before its write is done, sees it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "blockdev/bdev_module.h"

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

struct ram {
	uint8_t *memory;
	uint64_t size_bytes;
	bool own_memory, asynchronous;
	uint64_t seed, delay_ns_max;
};

struct ram_channel {
	uint64_t random;
	struct cds_list_head delayed; /* bdev_io by node */
};

struct ram_context {
	struct timer timer;
};

/* xorshift64*, see Vigna, "An experimental exploration of Marsaglia's xorshift generators". */
static uint64_t random_next(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1dull;
}

static int ram_channel_init(struct bdev *bdev, void *channel_state)
{
	const struct ram *ram = bdev_private(bdev);
	struct ram_channel *channel = channel_state;
	channel->random = (ram->seed + 1) * 0x9e3779b97f4a7c15ull + reactor_index(reactor_self());
	channel->random |= channel->random == 0;
	CDS_INIT_LIST_HEAD(&channel->delayed);
	return 0;
}

/* ---- the data ---- */

static void ram_copy(const struct ram *ram, const struct bdev_io *io)
{
	uint8_t *at = ram->memory + io->offset;
	for (unsigned i = 0; i < io->iov_count; i++) {
		if (io->op == IO_READ)
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
		else
			memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
}

/* Whole pages are given back (unless the memory is not ours or the kernel refuses), the edges are written. */
static void ram_zero(const struct ram *ram, uint64_t offset, uint64_t length)
{
	const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	const uint64_t first = align_up(offset, page), end = align_down(offset + length, page);
	if (!ram->own_memory || first >= end) {
		memset(ram->memory + offset, 0, length);
		return;
	}
	memset(ram->memory + offset, 0, first - offset);
	memset(ram->memory + end, 0, offset + length - end);
	if (madvise(ram->memory + first, end - first, MADV_DONTNEED) != 0 &&
		madvise(ram->memory + first, end - first, MADV_DONTNEED_LOCKED) != 0)
		memset(ram->memory + first, 0, end - first);
}

static int ram_do(const struct ram *ram, const struct bdev_io *io)
{
	switch (io->op) {
	case IO_READ:
	case IO_WRITE:
		ram_copy(ram, io);
		return 0;
	case IO_UNMAP:
	case IO_WRITE_ZEROES:
		ram_zero(ram, io->offset, io->length);
		return 0;
	case IO_FLUSH:
	case IO_RESET:
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* ---- the module ---- */

static void ram_timer_fired(struct timer *timer)
{
	struct ram_context *context = CONTAINER_OF(timer, struct ram_context, timer);
	struct bdev_io *io = CONTAINER_OF(context, struct bdev_io, context);
	cds_list_del(&io->node);
	bdev_io_complete(io, ram_do(bdev_private(io->bdev), io));
}

static int ram_submit(struct bdev *bdev, void *channel_state, struct bdev_io *io)
{
	const struct ram *ram = bdev_private(bdev);
	struct ram_channel *channel = channel_state;
	if (!ram->asynchronous) {
		bdev_io_complete(io, ram_do(ram, io));
		return 0;
	}
	struct ram_context *context = (struct ram_context *)io->context;
	context->timer = (struct timer){0};
	cds_list_add_tail(&io->node, &channel->delayed);
	timer_start(&context->timer, 1 + random_next(&channel->random) % ram->delay_ns_max, ram_timer_fired);
	return 0;
}

static void ram_fail_delayed(struct bdev *bdev, void *channel_state)
{
	struct ram_channel *channel = channel_state;
	struct bdev_io *io, *next;
	cds_list_for_each_entry_safe(io, next, &channel->delayed, node) {
		timer_stop(&((struct ram_context *)io->context)->timer);
		cds_list_del(&io->node);
		bdev_io_complete(io, -ENODEV);
	}
}

static void ram_quiesce(struct bdev *bdev)
{
	bdev_drain(bdev, ram_fail_delayed);
}

static void ram_destroy(struct bdev *bdev)
{
	struct ram *ram = bdev_private(bdev);
	if (ram->own_memory)
		munmap(ram->memory, ram->size_bytes);
	free(ram);
}

static const struct bdev_module ram_module = {
	.name = "ram",
	.context_bytes = sizeof(struct ram_context),
	.channel_bytes = sizeof(struct ram_channel),
	.channel_init = ram_channel_init,
	.submit = ram_submit,
	.quiesce = ram_quiesce,
	.destroy = ram_destroy,
};

static struct ram *ram_alloc(const struct bdev_ram_options *options)
{
	struct ram *ram = calloc(1, sizeof(*ram));
	if (ram == NULL)
		return NULL;
	ram->size_bytes = options->size_bytes;
	ram->asynchronous = options->asynchronous;
	ram->seed = options->seed;
	ram->delay_ns_max = MAX(options->delay_us_max * NS_PER_US, NS_PER_US);
	ram->memory = options->memory;
	ram->own_memory = options->memory == NULL;
	if (!ram->own_memory)
		return ram;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	ram->memory = mmap(NULL, ram->size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (ram->memory != MAP_FAILED)
		return ram;
	free(ram);
	return NULL;
}

int bdev_ram_create(struct bdev_registry *registry, const char *name, const struct bdev_ram_options *options)
{
	const uint32_t block_size = options->block_size != 0 ? options->block_size : 4096;
	struct bdev_limits limits = {
		.block_size = block_size,
		.block_count = options->size_bytes / block_size,
		.atomic_write_blocks = 1,
		.io_bytes_max = MIB(1),
		.volatile_cache = options->volatile_cache,
		.native_fua = options->native_fua,
		.unmap_reads_zero = true,
		.ops = 1u << IO_READ | 1u << IO_WRITE | 1u << IO_FLUSH | 1u << IO_UNMAP | 1u << IO_WRITE_ZEROES |
			1u << IO_RESET,
	};
	if (options->size_bytes % block_size != 0 || strlen(name) >= sizeof(limits.name))
		return -EINVAL;
	snprintf(limits.name, sizeof(limits.name), "%s", name);
	struct ram *ram = ram_alloc(options);
	if (ram == NULL)
		return -ENOMEM;
	struct bdev *bdev;
	const int err = bdev_register(registry, &ram_module, &limits, ram, &bdev);
	if (err == 0)
		return 0;
	if (ram->own_memory)
		munmap(ram->memory, ram->size_bytes);
	free(ram);
	return err;
}
