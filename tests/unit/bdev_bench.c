/* SPDX-License-Identifier: BSD-3-Clause */
/* The bench and the probe, see bdev_bench.h. */
#include "bdev_bench.h"

#include <errno.h>
#include <stdio.h>

void bench_init(struct bench *bench, unsigned reactors, bool simulate, uint64_t seed)
{
	const struct reactor_options options = {.count = reactors, .simulate = simulate, .seed = seed, .fiber_count = 64};
	assert_int_equal(reactor_group_create(&options, &bench->group), 0);
	assert_int_equal(reactor_group_start(bench->group), 0);
	assert_int_equal(bdev_registry_create(bench->group, &bench->registry), 0);
}

void bench_fini(struct bench *bench)
{
	reactor_group_stop(bench->group);
	bdev_registry_destroy(bench->registry);
	reactor_group_destroy(bench->group);
}

void bench_run(struct bench *bench, unsigned reactor, int (*fn)(void *bench))
{
	assert_int_equal(reactor_group_run(reactor_group_get(bench->group, reactor), fn, bench), 0);
}

MAY_WAIT struct bdev_desc *bench_open(struct bench *bench, const char *name, struct bdev_channel **channel)
{
	struct bdev_desc *desc;
	assert_int_equal(bdev_open(bench->registry, name, true, NULL, NULL, &desc), 0);
	assert_int_equal(bdev_channel_get(desc, channel), 0);
	return desc;
}

MAY_WAIT void bench_close(struct bdev_desc *desc, struct bdev_channel *channel)
{
	bdev_channel_put(channel);
	bdev_close(desc);
}

MAY_WAIT void bench_with(struct bench *bench, const char *name, void (*fn)(struct bdev_channel *channel))
{
	struct bdev_channel *channel;
	struct bdev_desc *desc = bench_open(bench, name, &channel);
	fn(channel);
	bench_close(desc, channel);
}

/* ---- the probe ---- */

enum { PROBE_CONTEXT_BYTES = 1024 }; /* more than the pools begin with */

static void probe_do(struct probe *probe, struct bdev_io *io)
{
	uint8_t *at = probe->memory + io->offset;
	if (io->op == IO_WRITE_ZEROES || io->op == IO_UNMAP)
		memset(at, 0, io->length);
	for (unsigned i = 0; i < io->iov_count; i++) {
		if (io->op == IO_READ)
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
		if (io->op == IO_WRITE)
			memcpy(at, io->iov[i].iov_base, io->iov[i].iov_len);
		at += io->iov[i].iov_len;
	}
}

static void probe_complete(struct probe *probe, struct bdev_io *io, int result)
{
	if (result == 0)
		probe_do(probe, io);
	bdev_io_complete(io, result);
}

static int probe_submit(struct bdev *bdev, void *channel_state, struct bdev_io *io)
{
	struct probe *probe = bdev_private(bdev);
	if (probe->refuse != 0) {
		probe->refuse--;
		return -ENOMEM;
	}
	if (probe->depth_max != 0 && probe->held_count == probe->depth_max)
		return -ENOMEM;
	assert_in_range(probe->log_count, 0, PROBE_LOG_MAX - 1);
	probe->log[probe->log_count++] = (struct probe_entry){
		.op = io->op,
		.flags = io->flags,
		.offset = io->offset,
		.length = io->length,
		.iov_count = io->iov_count,
		.first_base = io->iov_count != 0 ? io->iov[0].iov_base : NULL,
	};
	memset(io->context, 0xee, PROBE_CONTEXT_BYTES); /* ours to scribble on */
	if (probe->hold) {
		cds_list_add_tail(&io->node, &probe->held);
		probe->held_count++;
		probe->held_peak = MAX(probe->held_peak, probe->held_count);
		return 0;
	}
	const int result = probe->script_next < probe->script_count ? probe->script[probe->script_next++] : 0;
	probe_complete(probe, io, result);
	return 0;
}

void probe_release(struct probe *probe, unsigned count, int result)
{
	for (; count != 0 && probe->held_count != 0; count--) {
		struct bdev_io *io = cds_list_first_entry(&probe->held, struct bdev_io, node);
		cds_list_del(&io->node);
		probe->held_count--;
		probe_complete(probe, io, result);
	}
}

static void probe_fail_held(struct bdev *bdev, void *channel_state)
{
	probe_release(bdev_private(bdev), UINT32_MAX, -ENODEV);
}

static void probe_quiesce(struct bdev *bdev)
{
	struct probe *probe = bdev_private(bdev);
	probe->quiesced++;
	if (!probe->never_quiesce)
		bdev_drain(bdev, probe_fail_held);
}

static void probe_released(struct bdev *bdev)
{
	struct probe *probe = bdev_private(bdev);
	probe->released++;
}

static void probe_destroy(struct bdev *bdev)
{
	struct probe *probe = bdev_private(bdev);
	probe->destroyed++;
}

static const struct bdev_module probe_module = {
	.name = "probe",
	.context_bytes = PROBE_CONTEXT_BYTES,
	.submit = probe_submit,
	.quiesce = probe_quiesce,
	.release = probe_released,
	.destroy = probe_destroy,
};

struct bdev_limits probe_limits(const char *name)
{
	struct bdev_limits limits = {
		.block_size = 4096,
		.block_count = 256,
		.volatile_cache = true,
		.ops = (1u << IO_OP_COUNT) - 1,
	};
	snprintf(limits.name, sizeof(limits.name), "%s", name);
	return limits;
}

struct probe *probe_create(struct bench *bench, const struct bdev_limits *limits)
{
	struct probe *probe = calloc(1, sizeof(*probe));
	assert_non_null(probe);
	probe->memory = calloc(limits->block_count, limits->block_size);
	assert_non_null(probe->memory);
	CDS_INIT_LIST_HEAD(&probe->held);
	assert_int_equal(bdev_register(bench->registry, &probe_module, limits, probe, &probe->bdev), 0);
	return probe;
}

void probe_free(struct probe *probe)
{
	assert_int_equal(probe->destroyed, 1);
	free(probe->memory);
	free(probe);
}
