/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever the limits, the vectors and the alignment, an I/O moves exactly the bytes it should. Method: random
 * limits per round; random reads, writes, zeroes and unmaps with randomly cut vectors, several at once on different
 * ranges, are compared with a plain copy of the device. The seed of a failing round is in the message.
 */
#include <errno.h>
#include <stdio.h>

#include "bdev_bench.h"

enum { ROUNDS = 60, STEPS = 60, PARALLEL = 4, BLOCKS = 256, BLOCK = 512, SIZE = BLOCKS * BLOCK, VECTORS_MAX = 64 };

static uint64_t seed, random_state;
static struct probe *probe;
static uint8_t model[SIZE];
static _Alignas(4096) uint8_t memory[PARALLEL][SIZE + 4096];
static struct iovec vectors[PARALLEL][VECTORS_MAX];
static struct io ios[PARALLEL];

static unsigned random_below(unsigned bound)
{
	random_state = random_state * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)((random_state >> 33) % bound);
}

/* Cuts @length bytes of memory[slot] into vectors at random. */
static unsigned cut_vectors(unsigned slot, size_t length)
{
	static const unsigned grains[] = {1, 13, 512, 4096};
	const unsigned grain = grains[random_below(4)];
	size_t at = random_below(2) ? random_below(4096) / grain * grain : 0;
	const size_t end = at + length;
	unsigned count = 0;
	while (at < end) {
		size_t part = (size_t)(random_below(6000) / grain) * grain;
		if (part > end - at || count == VECTORS_MAX - 1)
			part = end - at;
		vectors[slot][count++] = (struct iovec){.iov_base = memory[slot] + at, .iov_len = part};
		at += part;
	}
	return count;
}

/* Slots use their own quarter of the device, so that parallel I/Os do not meet. */
static void prepare(unsigned slot, struct bdev_channel *channel)
{
	static const enum io_op ops[] = {IO_READ, IO_WRITE, IO_READ, IO_WRITE, IO_WRITE_ZEROES, IO_UNMAP};
	const unsigned first = random_below(BLOCKS / PARALLEL), blocks = 1 + random_below(BLOCKS / PARALLEL - first);
	struct io *io = &ios[slot];
	*io = (struct io){
		.channel = channel,
		.op = ops[random_below(6)],
		.offset = (uint64_t)(slot * (BLOCKS / PARALLEL) + first) * BLOCK,
		.length = (uint64_t)blocks * BLOCK,
	};
	if (io->op == IO_UNMAP || io->op == IO_WRITE_ZEROES)
		return;
	io->iov_count = cut_vectors(slot, io->length);
	io->iov = vectors[slot];
	for (size_t i = 0; i < sizeof(memory[slot]); i++)
		memory[slot][i] = (uint8_t)random_below(256);
}

static void compare(unsigned slot)
{
	struct io *io = &ios[slot];
	uint8_t *at = model + io->offset;
	if (io->op == IO_UNMAP || io->op == IO_WRITE_ZEROES)
		memset(at, 0, io->length);
	for (unsigned i = 0; i < io->iov_count; i++) {
		const struct iovec *vector = &io->iov[i];
		if (io->op == IO_WRITE)
			memcpy(at, vector->iov_base, vector->iov_len);
		else if (memcmp(at, vector->iov_base, vector->iov_len) != 0)
			fail_msg("seed %llu: read of %llu bytes at %llu differs", (unsigned long long)seed,
				(unsigned long long)io->length, (unsigned long long)io->offset);
		at += vector->iov_len;
	}
}

static void body(struct bdev_channel *channel)
{
	for (unsigned step = 0; step < STEPS; step++) {
		struct io_group group;
		io_group_init(&group);
		probe->refuse = random_below(4) == 0 ? random_below(10) : 0;
		probe->log_count = 0;
		for (unsigned slot = 0; slot < PARALLEL; slot++) {
			prepare(slot, channel);
			io_group_submit(&group, &ios[slot]);
		}
		assert_int_equal(io_group_wait(&group), 0);
		for (unsigned slot = 0; slot < PARALLEL; slot++)
			compare(slot);
		if (memcmp(model, probe->memory, SIZE) != 0)
			fail_msg("seed %llu: the device differs after step %u", (unsigned long long)seed, step);
	}
}

MAY_WAIT static int round_fiber(void *arg)
{
	struct bench *bench = arg;
	bench_with(bench, "probe", body);
	return bdev_remove(bench->registry, "probe", NS_PER_SEC);
}

static void test_random_ios_under_random_limits(void **state)
{
	for (seed = 1; seed <= ROUNDS; seed++) {
		random_state = seed * 0x9e3779b97f4a7c15ull;
		struct bdev_limits limits = probe_limits("probe");
		limits.block_size = BLOCK;
		limits.block_count = BLOCKS;
		limits.io_bytes_max = random_below(3) ? (1 + random_below(64)) * BLOCK : 0;
		limits.optimal_boundary_blocks = random_below(2) ? 1 + random_below(40) : 0;
		limits.iov_count_max = random_below(2) ? 1 + random_below(20) : 0;
		limits.buffer_align = random_below(2) ? BLOCK : 0;
		limits.needs_dma = random_below(4) == 0;
		if (random_below(2))
			limits.ops &= ~(1u << IO_WRITE_ZEROES);
		struct bench bench;
		bench_init(&bench, 1, true, seed);
		probe = probe_create(&bench, &limits);
		memset(model, 0, sizeof(model));
		bench_run(&bench, 0, round_fiber);
		bench_fini(&bench);
		probe_free(probe);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_ios_under_random_limits)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
