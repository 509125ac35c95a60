/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: what becomes of an I/O's result: checks, retries, FUA and flush, callbacks, abort, statistics, claims. Method:
 * simulated reactors and the probe module with scripted results.
 */
#include <errno.h>

#include "bdev_bench.h"

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

/* ---- results ---- */

static void retried(struct bdev_channel *channel)
{
	probe->script[0] = -EAGAIN;
	probe->script[1] = -EINTR;
	probe->script_count = 2;
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), 0);
	assert_int_equal(probe->log_count, 3);
	assert_int_equal(stats_now()->retries, 2);
	probe->script_next = 0;
	probe->script_count = 10;
	for (unsigned i = 0; i < 10; i++)
		probe->script[i] = -EAGAIN;
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), -EIO);
	assert_int_equal(probe->log_count, 3 + 4);
}

static void test_transient_results_are_retried_three_times(void **state)
{
	probed(retried);
}

static void refused(struct bdev_channel *channel)
{
	struct io io;
	assert_int_equal(bdev_read(channel, buffer, 1, 4096), -EINVAL);
	assert_int_equal(bdev_read(channel, buffer, 0, 100), -EINVAL);
	assert_int_equal(bdev_read(channel, buffer, 1 << 20, 4096), -EINVAL);
	assert_int_equal(bdev_read(channel, buffer, UINT64_MAX - 4095, 8192), -EINVAL);
	assert_int_equal(bdev_read(channel, buffer, 0, 0), 0);
	io_prepare(&io, channel, IO_WRITE, buffer, 0, 8192);
	io.single.iov_len = 4096;
	assert_int_equal(io_run(&io), -EINVAL);
	io_prepare(&io, channel, IO_UNMAP, NULL, 0, 4096);
	assert_int_equal(io_run(&io), -EOPNOTSUPP);
	assert_int_equal(probe->log_count, 0);
}

static void test_impossible_ios_are_refused(void **state)
{
	limits.ops &= ~(1u << IO_UNMAP);
	probed(refused);
}

/* ---- FUA and flush ---- */

static void fua_emulated(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer, 0, 8192, IO_FUA), 0);
	assert_int_equal(probe->log_count, 3);
	assert_int_equal(probe->log[0].op, IO_WRITE);
	assert_int_equal(probe->log[0].flags & IO_FUA, 0);
	assert_int_equal(probe->log[2].op, IO_FLUSH);
	probe->script[0] = -EIO;
	probe->script[1] = 0;
	probe->script_count = 2;
	assert_int_equal(bdev_write(channel, buffer, 0, 8192, IO_FUA), -EIO);
	assert_int_equal(probe->log_count, 5); /* no flush after a failed write */
	probe->script[0] = 0;
	probe->script[1] = -ENODEV;
	probe->script_next = 0;
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, IO_FUA), -ENODEV);
	assert_int_equal(stats_now()->fua_writes, 3);
	assert_int_equal(stats_now()->op[IO_WRITE].count, 3);
	assert_int_equal(stats_now()->op[IO_FLUSH].count, 0);
}

static void test_fua_is_emulated_with_a_flush(void **state)
{
	limits.io_bytes_max = 4096;
	probed(fua_emulated);
}

static void fua_flush_comes_last(struct bdev_channel *channel)
{
	struct io io;
	struct io_group group;
	probe->hold = true;
	io_group_init(&group);
	io_prepare(&io, channel, IO_WRITE, buffer, 0, 16384);
	io.flags = IO_FUA;
	io_group_submit(&group, &io);
	for (unsigned i = 0; i < 4; i++) {
		assert_int_equal(probe->log_count, 4);
		probe_release(probe, 1, 0);
		fiber_sleep(NS_PER_MS);
	}
	assert_int_equal(probe->log_count, 5);
	assert_int_equal(probe->log[4].op, IO_FLUSH);
	assert_int_equal(group.pending.pending, 1);
	probe_release(probe, 1, 0);
	assert_int_equal(io_group_wait(&group), 0);
}

static void test_emulated_fua_flushes_after_every_piece_is_back(void **state)
{
	limits.io_bytes_max = 4096;
	probed(fua_flush_comes_last);
}

static void fua_native(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, IO_FUA), 0);
	assert_int_equal(probe->log_count, 1);
	assert_int_equal(probe->log[0].flags, IO_FUA);
}

static void test_native_fua_reaches_the_module(void **state)
{
	limits.native_fua = true;
	probed(fua_native);
}

static void flush_without_cache(struct bdev_channel *channel)
{
	assert_int_equal(bdev_flush(channel), 0);
	assert_int_equal(probe->log_count, 0);
	assert_int_equal(stats_now()->op[IO_FLUSH].count, 1);
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, IO_FUA), 0);
	assert_int_equal(probe->log_count, 1);
}

static void test_without_volatile_cache_flush_does_not_reach_the_module(void **state)
{
	limits.volatile_cache = false;
	probed(flush_without_cache);
}

static void zeroes_emulated(struct bdev_channel *channel)
{
	struct io io;
	memset(probe->memory, 0xff, 1 << 20);
	io_prepare(&io, channel, IO_WRITE_ZEROES, NULL, 4096, 300 << 10);
	assert_int_equal(io_run(&io), 0);
	assert_int_equal(probe->log[0].op, IO_WRITE);
	assert_int_equal(probe->memory[4095], 0xff);
	for (unsigned i = 0; i < 300 << 10; i++)
		assert_int_equal(probe->memory[4096 + i], 0);
	assert_int_equal(probe->memory[4096 + (300 << 10)], 0xff);
}

static void test_write_zeroes_is_emulated_with_writes(void **state)
{
	limits.ops &= ~(1u << IO_WRITE_ZEROES);
	probed(zeroes_emulated);
}

/* ---- callbacks ---- */

struct chain {
	struct io io;
	unsigned left;
	bool in_submit, called_in_submit, finished;
};

static void chain_done(struct io *io)
{
	struct chain *chain = io->arg;
	assert_null(fiber_self());
	chain->called_in_submit |= chain->in_submit;
	if (chain->left-- == 0) {
		chain->finished = true;
		return;
	}
	chain->in_submit = true;
	io_submit(io);
	chain->in_submit = false;
}

static void chained(struct bdev_channel *channel)
{
	struct chain chain = {.left = 5000};
	io_prepare(&chain.io, channel, IO_READ, buffer, 0, 4096);
	chain.io.done = chain_done;
	chain.io.arg = &chain;
	chain.in_submit = true;
	io_submit(&chain.io);
	chain.in_submit = false;
	while (!chain.finished)
		fiber_yield();
	assert_false(chain.called_in_submit);
}

static void test_done_is_never_called_in_submit_and_never_nests(void **state)
{
	probed(chained);
}

static void aborted(struct bdev_channel *channel)
{
	struct io first, second, abort;
	struct io_group group;
	io_group_init(&group);
	probe->hold = true;
	probe->depth_max = 1;
	io_prepare(&first, channel, IO_READ, buffer, 0, 4096);
	io_prepare(&second, channel, IO_READ, buffer, 0, 4096);
	io_group_submit(&group, &first);
	io_group_submit(&group, &second);
	io_prepare(&abort, channel, IO_ABORT, NULL, 0, 0);
	abort.abort_target = &second; /* waits in the line */
	assert_int_equal(io_run(&abort), 0);
	fiber_sleep(NS_PER_MS);
	assert_int_equal(second.result, -ECANCELED);
	assert_int_equal(group.pending.pending, 1);
	abort.abort_target = &first; /* the module has it, and cannot abort */
	assert_int_equal(io_run(&abort), -EOPNOTSUPP);
	probe_release(probe, 1, 0);
	assert_int_equal(io_group_wait(&group), -ECANCELED);
	assert_int_equal(first.result, 0);
}

static void test_abort_takes_back_what_waits_in_line(void **state)
{
	limits.ops &= ~(1u << IO_ABORT);
	probed(aborted);
}

static void latency(struct bdev_channel *channel)
{
	struct io io;
	struct io_group group;
	io_group_init(&group);
	probe->hold = true;
	io_prepare(&io, channel, IO_READ, buffer, 0, 4096);
	io_group_submit(&group, &io);
	fiber_sleep(5000);
	probe_release(probe, 1, 0);
	assert_int_equal(io_group_wait(&group), 0);
	const struct bdev_op_stats *stats = &stats_now()->op[IO_READ];
	assert_true(stats->latency_total_ns >= 5000);
	uint64_t sum = 0;
	for (unsigned i = latency_bucket(5000); i < LATENCY_BUCKETS; i++)
		sum += stats->latency[i];
	assert_int_equal(sum, 1);
}

static void test_latency_lands_in_its_bucket(void **state)
{
	probed(latency);
}

MAY_WAIT static int stats_survive(void *arg)
{
	struct bench *bench = arg;
	struct bdev_channel *channel;
	for (unsigned i = 0; i < 3; i++) {
		struct bdev_desc *desc = bench_open(bench, "probe", &channel);
		assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), 0);
		bench_close(desc, channel);
		assert_int_equal(stats_now()->op[IO_WRITE].count, i + 1);
	}
	return bdev_remove(bench->registry, "probe", NS_PER_SEC);
}

static void test_statistics_of_closed_channels_are_kept(void **state)
{
	struct bench bench;
	bench_init(&bench, 1, true, 1);
	probe = probe_create(&bench, &limits);
	bench_run(&bench, 0, stats_survive);
	bench_fini(&bench);
	probe_free(probe);
}

/* ---- claims ---- */

MAY_WAIT static int claimed(void *arg)
{
	struct bench *bench = arg;
	struct bdev_desc *first, *second;
	assert_int_equal(bdev_open(bench->registry, "probe", true, NULL, NULL, &first), 0);
	assert_int_equal(bdev_open(bench->registry, "probe", true, NULL, NULL, &second), 0);
	assert_int_equal(bdev_claim(first), -EBUSY);
	bdev_close(second);
	assert_int_equal(bdev_claim(first), 0);
	assert_int_equal(bdev_open(bench->registry, "probe", true, NULL, NULL, &second), -EBUSY);
	assert_int_equal(bdev_open(bench->registry, "probe", false, NULL, NULL, &second), 0);
	bdev_close(second);
	bdev_close(first);
	assert_int_equal(bdev_open(bench->registry, "probe", true, NULL, NULL, &second), 0);
	bdev_close(second);
	return bdev_remove(bench->registry, "probe", NS_PER_SEC);
}

static void test_a_claimed_bdev_has_one_writer(void **state)
{
	struct bench bench;
	bench_init(&bench, 1, true, 1);
	probe = probe_create(&bench, &limits);
	bench_run(&bench, 0, claimed);
	bench_fini(&bench);
	probe_free(probe);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_transient_results_are_retried_three_times, setup),
		cmocka_unit_test_setup(test_impossible_ios_are_refused, setup),
		cmocka_unit_test_setup(test_fua_is_emulated_with_a_flush, setup),
		cmocka_unit_test_setup(test_emulated_fua_flushes_after_every_piece_is_back, setup),
		cmocka_unit_test_setup(test_native_fua_reaches_the_module, setup),
		cmocka_unit_test_setup(test_without_volatile_cache_flush_does_not_reach_the_module, setup),
		cmocka_unit_test_setup(test_write_zeroes_is_emulated_with_writes, setup),
		cmocka_unit_test_setup(test_done_is_never_called_in_submit_and_never_nests, setup),
		cmocka_unit_test_setup(test_abort_takes_back_what_waits_in_line, setup),
		cmocka_unit_test_setup(test_latency_lands_in_its_bucket, setup),
		cmocka_unit_test_setup(test_statistics_of_closed_channels_are_kept, setup),
		cmocka_unit_test_setup(test_a_claimed_bdev_has_one_writer, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
