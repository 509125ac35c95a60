/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: how an I/O gets to the module: splitting, lines for lack of memory, bounce buffers. Method: simulated reactors
 * and the probe module, whose log of pieces is compared with what the limits ask for.
 */
#include <errno.h>

#include "bdev_bench.h"
#include "reactor/memory.h"

static struct probe *probe;
static struct bdev_limits limits;
static _Alignas(4096) uint8_t buffer[1 << 20];

/* Every test: one reactor, a probe made from limits, the body in a fiber with a channel, removal. */
static void (*probed_body)(struct bdev_channel *channel);

MAY_WAIT static int probed_fiber(void *arg)
{
	struct bench *bench = arg;
	bench_with(bench, limits.name, probed_body);
	return bdev_remove(bench->registry, limits.name, NS_PER_SEC);
}

static void probed(void (*body)(struct bdev_channel *channel))
{
	struct bench bench;
	bench_init(&bench, 1, true, 1);
	probe = probe_create(&bench, &limits);
	probed_body = body;
	bench_run(&bench, 0, probed_fiber);
	bench_fini(&bench);
	probe_free(probe);
}

static int setup(void **state)
{
	limits = probe_limits("probe");
	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (uint8_t)(i * 7 + i / 4096);
	return 0;
}

/* Too large for a fiber's stack. */
static const struct bdev_stats *stats_now(void)
{
	static struct bdev_stats stats;
	bdev_stats_read(probe->bdev, &stats);
	return &stats;
}

/* ---- splitting ---- */

static void split_by_size(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer, 4096, 40960, 0), 0);
	assert_int_equal(probe->log_count, 3);
	const uint64_t lengths[] = {16384, 16384, 8192};
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(probe->log[i].offset, 4096 + i * 16384);
		assert_int_equal(probe->log[i].length, lengths[i]);
	}
	assert_memory_equal(probe->memory + 4096, buffer, 40960);
	assert_int_equal(stats_now()->splits, 1);
	assert_int_equal(stats_now()->op[IO_WRITE].count, 1);
	assert_int_equal(stats_now()->op[IO_WRITE].bytes, 40960);
}

static void test_large_write_is_split_at_io_bytes_max(void **state)
{
	limits.io_bytes_max = 16384 + 100;
	probed(split_by_size);
}

static void split_by_boundary(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer, 8192, 24576, 0), 0);
	assert_int_equal(probe->log_count, 3);
	assert_int_equal(probe->log[0].length, 4096);
	assert_int_equal(probe->log[1].offset, 12288);
	assert_int_equal(probe->log[1].length, 12288);
	assert_int_equal(probe->log[2].length, 8192);
	assert_memory_equal(probe->memory + 8192, buffer, 24576);
}

static void test_write_is_split_at_the_optimal_boundary(void **state)
{
	limits.optimal_boundary_blocks = 3;
	probed(split_by_boundary);
}

static void split_by_vectors(struct bdev_channel *channel)
{
	struct iovec iov[8];
	for (unsigned i = 0; i < 8; i++)
		iov[i] = (struct iovec){.iov_base = buffer + (7 - i) * 8192, .iov_len = 4096};
	struct io io = {.channel = channel, .op = IO_WRITE, .offset = 0, .length = 32768, .iov = iov, .iov_count = 8};
	assert_int_equal(io_run(&io), 0);
	assert_int_equal(probe->log_count, 3);
	assert_int_equal(probe->log[0].iov_count, 3);
	assert_int_equal(probe->log[2].length, 8192);
	for (unsigned i = 0; i < 8; i++)
		assert_memory_equal(probe->memory + i * 4096, buffer + (7 - i) * 8192, 4096);
}

static void test_write_is_split_at_iov_count_max(void **state)
{
	limits.iov_count_max = 3;
	probed(split_by_vectors);
}

static void bounded_children(struct bdev_channel *channel)
{
	struct io io;
	struct io_group group;
	probe->hold = true;
	io_group_init(&group);
	io_prepare(&io, channel, IO_READ, buffer, 0, sizeof(buffer));
	io_group_submit(&group, &io);
	assert_int_equal(probe->held_count, 16);
	while (group.pending.pending != 0) {
		probe_release(probe, 1, 0);
		fiber_sleep(NS_PER_US);
	}
	assert_int_equal(io_group_wait(&group), 0);
	assert_int_equal(probe->held_peak, 16);
	assert_int_equal(probe->log_count, 256);
}

static void test_pieces_under_way_are_bounded(void **state)
{
	limits.io_bytes_max = 4096;
	probed(bounded_children);
}

static void first_error(struct bdev_channel *channel)
{
	struct io io;
	struct io_group group;
	probe->hold = true;
	io_group_init(&group);
	io_prepare(&io, channel, IO_WRITE, buffer, 0, 16384);
	io_group_submit(&group, &io);
	probe_release(probe, 1, 0);
	probe_release(probe, 1, -ENOSPC);
	probe_release(probe, 1, -EIO);
	fiber_sleep(NS_PER_MS);
	assert_int_equal(group.pending.pending, 1); /* one piece is still out */
	probe_release(probe, 1, 0);
	assert_int_equal(io_group_wait(&group), -ENOSPC);
	assert_int_equal(stats_now()->op[IO_WRITE].errors, 1);
}

static void test_first_error_wins_once_all_pieces_are_back(void **state)
{
	limits.io_bytes_max = 4096;
	probed(first_error);
}

static void no_piece_after_error(struct bdev_channel *channel)
{
	probe->script_count = 16;
	for (unsigned i = 0; i < 16; i++)
		probe->script[i] = -EILSEQ;
	assert_int_equal(bdev_read(channel, buffer, 0, sizeof(buffer)), -EILSEQ);
	assert_int_equal(probe->log_count, 16);
}

static void test_no_further_piece_after_an_error(void **state)
{
	limits.io_bytes_max = 4096;
	probed(no_piece_after_error);
}

static void unmap_is_large(struct bdev_channel *channel)
{
	struct io io;
	io_prepare(&io, channel, IO_UNMAP, NULL, 0, sizeof(buffer));
	assert_int_equal(io_run(&io), 0);
	assert_int_equal(probe->log_count, 1);
	io_prepare(&io, channel, IO_WRITE_ZEROES, NULL, 0, sizeof(buffer));
	assert_int_equal(io_run(&io), 0);
	assert_int_equal(probe->log_count, 3);
}

static void test_unmap_and_write_zeroes_have_their_own_limits(void **state)
{
	limits.io_bytes_max = 4096;
	limits.write_zeroes_bytes_max = 512 << 10;
	probed(unmap_is_large);
}

/* ---- no memory ---- */

enum { LINE_COUNT = 40 };

static void no_memory_order(struct bdev_channel *channel)
{
	static struct io ios[LINE_COUNT];
	struct io_group group;
	io_group_init(&group);
	probe->hold = true;
	probe->depth_max = 4;
	for (unsigned i = 0; i < LINE_COUNT; i++) {
		io_prepare(&ios[i], channel, IO_WRITE, buffer, i * 4096, 4096);
		io_group_submit(&group, &ios[i]);
	}
	assert_int_equal(probe->held_count, 4);
	while (group.pending.pending != 0) {
		probe_release(probe, 3, 0);
		fiber_sleep(NS_PER_US);
	}
	assert_int_equal(io_group_wait(&group), 0);
	assert_int_equal(probe->held_peak, 4);
	assert_int_equal(probe->log_count, LINE_COUNT);
	for (unsigned i = 0; i < LINE_COUNT; i++)
		assert_int_equal(probe->log[i].offset, i * 4096);
	assert_int_equal(stats_now()->no_memory, LINE_COUNT - 4);
}

static void test_no_memory_resubmits_in_order(void **state)
{
	probed(no_memory_order);
}

static void no_memory_timer(struct bdev_channel *channel)
{
	const uint64_t before = reactor_now_ns();
	probe->refuse = 3;
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), 0);
	assert_true(reactor_now_ns() > before);
	assert_int_equal(probe->log_count, 1);
	assert_int_equal(stats_now()->no_memory, 1);
}

static void test_no_memory_with_nothing_outstanding_is_tried_again(void **state)
{
	probed(no_memory_timer);
}

enum { MANY = 6000 };

static void more_than_the_pool(struct bdev_channel *channel)
{
	struct io *ios = calloc(MANY, sizeof(ios[0]));
	struct io_group group;
	io_group_init(&group);
	probe->hold = true;
	for (unsigned i = 0; i < MANY; i++) {
		io_prepare(&ios[i], channel, IO_READ, buffer, 0, 4096);
		io_group_submit(&group, &ios[i]);
	}
	assert_int_equal(probe->held_count, 4096);
	assert_true(stats_now()->pool_waits > 0);
	while (group.pending.pending != 0) {
		probe_release(probe, 1000, 0);
		fiber_sleep(NS_PER_US);
	}
	assert_int_equal(io_group_wait(&group), 0);
	assert_int_equal(stats_now()->op[IO_READ].count, MANY);
	free(ios);
}

static void test_more_ios_than_pieces_wait_in_line(void **state)
{
	probed(more_than_the_pool);
}

/* ---- bounce buffers ---- */

static void bounce_unaligned(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer + 3, 0, 8192, 0), 0);
	assert_memory_equal(probe->memory, buffer + 3, 8192);
	assert_int_equal((uintptr_t)probe->log[0].first_base % 4096, 0);
	uint8_t *copy = malloc(8192 + 1);
	assert_int_equal(bdev_read(channel, copy + 1, 0, 8192), 0);
	assert_memory_equal(copy + 1, buffer + 3, 8192);
	free(copy);
	assert_int_equal(stats_now()->bounces, 2);
	assert_int_equal(bdev_write(channel, buffer, 0, 8192, 0), 0);
	assert_int_equal(stats_now()->bounces, 2);
	assert_ptr_equal(probe->log[2].first_base, buffer);
}

static void test_unaligned_memory_is_bounced_and_aligned_is_not(void **state)
{
	limits.buffer_align = 4096;
	probed(bounce_unaligned);
}

static void bounce_large(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer + 1, 0, sizeof(buffer) - 4096, 0), 0);
	assert_memory_equal(probe->memory, buffer + 1, sizeof(buffer) - 4096);
	memset(buffer, 0, sizeof(buffer));
	assert_int_equal(bdev_read(channel, buffer + 1, 0, sizeof(buffer) - 4096), 0);
	assert_memory_equal(probe->memory, buffer + 1, sizeof(buffer) - 4096);
}

static void test_bounced_io_larger_than_a_bounce_buffer(void **state)
{
	limits.buffer_align = 512;
	probed(bounce_large);
}

static void bounce_exhausted(struct bdev_channel *channel)
{
	enum { COUNT = 100 };
	struct io *ios = calloc(COUNT, sizeof(ios[0]));
	struct io_group group;
	io_group_init(&group);
	probe->hold = true;
	for (unsigned i = 0; i < COUNT; i++) {
		io_prepare(&ios[i], channel, IO_WRITE, buffer + 1, i * 4096, 4096);
		io_group_submit(&group, &ios[i]);
	}
	assert_int_equal(probe->held_count, 64);
	while (group.pending.pending != 0) {
		probe_release(probe, 10, 0);
		fiber_sleep(NS_PER_US);
	}
	assert_int_equal(io_group_wait(&group), 0);
	assert_int_equal(stats_now()->bounces, COUNT);
	free(ios);
}

static void test_bounces_beyond_the_pool_wait_in_line(void **state)
{
	limits.buffer_align = 4096;
	probed(bounce_exhausted);
}

static void bounce_dma(struct bdev_channel *channel)
{
	void *dma = dma_alloc(8192, 4096);
	assert_non_null(dma);
	memset(dma, 0x31, 8192);
	assert_int_equal(bdev_write(channel, dma, 0, 8192, 0), 0);
	assert_ptr_equal(probe->log[0].first_base, dma);
	assert_int_equal(bdev_write(channel, (char *)dma + 512, 0, 4096, 0), 0);
	assert_ptr_not_equal(probe->log[1].first_base, (char *)dma + 512);
	dma_free(dma);
}

static void test_dma_memory_is_used_as_it_is_when_block_aligned(void **state)
{
	limits.needs_dma = true;
	probed(bounce_dma);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_large_write_is_split_at_io_bytes_max, setup),
		cmocka_unit_test_setup(test_write_is_split_at_the_optimal_boundary, setup),
		cmocka_unit_test_setup(test_write_is_split_at_iov_count_max, setup),
		cmocka_unit_test_setup(test_pieces_under_way_are_bounded, setup),
		cmocka_unit_test_setup(test_first_error_wins_once_all_pieces_are_back, setup),
		cmocka_unit_test_setup(test_no_further_piece_after_an_error, setup),
		cmocka_unit_test_setup(test_unmap_and_write_zeroes_have_their_own_limits, setup),
		cmocka_unit_test_setup(test_no_memory_resubmits_in_order, setup),
		cmocka_unit_test_setup(test_no_memory_with_nothing_outstanding_is_tried_again, setup),
		cmocka_unit_test_setup(test_more_ios_than_pieces_wait_in_line, setup),
		cmocka_unit_test_setup(test_unaligned_memory_is_bounced_and_aligned_is_not, setup),
		cmocka_unit_test_setup(test_bounced_io_larger_than_a_bounce_buffer, setup),
		cmocka_unit_test_setup(test_bounces_beyond_the_pool_wait_in_line, setup),
		cmocka_unit_test_setup(test_dma_memory_is_used_as_it_is_when_block_aligned, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
