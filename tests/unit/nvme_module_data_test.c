/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: what goes through a bdev of the nvme module arrives, however its vectors lie in memory, and reset and abort
 * do what they say in every state of an I/O. Method: emulated drives in simulated groups; random I/O with odd vectors
 * against a copy in memory, in DMA memory and elsewhere.
 */
#include "nvme_module_bench.h"
#include "reactor/memory.h"

enum { REGION = 1 << 20, ARENA = 2 << 20, VECTORS_MAX = 40, LENGTH_MAX = 300 << 10, ROUNDS = 250 };

static int setup(void **state)
{
	module_init(2);
	return 0;
}

static int teardown(void **state)
{
	module_fini();
	return 0;
}

/* ---- random vectors ---- */

struct scribe {
	struct bdev_channel *channel;
	const struct bdev_limits *limits;
	uint8_t *model;                /* REGION: what must be there */
	uint8_t *arenas[2];            /* DMA memory, and memory that is not */
	struct iovec iov[VECTORS_MAX];
	unsigned iov_count;
	uint64_t random;
};

static uint64_t pick(struct scribe *scribe, uint64_t below) { return (random_next(&scribe->random) >> 16) % below; }

/* Cuts @length into vectors that lie at odd places, at blocks, or at pages, with gaps or without. */
static void vectors_make(struct scribe *scribe, size_t length)
{
	static const unsigned grains[] = {1, 4, 512, 4096};
	const unsigned grain = grains[pick(scribe, ARRAY_SIZE(grains))];
	const unsigned memory = (unsigned)pick(scribe, 3); /* 2: mixed */
	const bool gaps = pick(scribe, 2);
	size_t at = pick(scribe, 3) * grain, left = length;
	scribe->iov_count = 0;
	while (left > 0) {
		const bool last = scribe->iov_count == VECTORS_MAX - 1;
		const size_t wanted = pick(scribe, 24) * MAX(grain, 511u) / grain * grain;
		const size_t part = last || wanted > left ? left : wanted;
		uint8_t *arena = scribe->arenas[memory == 2 ? pick(scribe, 2) : memory];
		scribe->iov[scribe->iov_count++] = (struct iovec){.iov_base = arena + at, .iov_len = part};
		left -= part;
		at += part + (gaps ? pick(scribe, 3) * grain : 0);
		assert_true(at <= ARENA);
	}
}

static void vectors_fill(struct scribe *scribe, uint8_t *model)
{
	uint64_t random = random_next(&scribe->random);
	for (unsigned i = 0; i < scribe->iov_count; i++)
		for (size_t j = 0; j < scribe->iov[i].iov_len; j++, random = random * 5 + 0x9e3779b97f4a7c15)
			((uint8_t *)scribe->iov[i].iov_base)[j] = *model++ = (uint8_t)(random >> 40);
}

static void vectors_check(const struct scribe *scribe, const uint8_t *model)
{
	for (unsigned i = 0; i < scribe->iov_count; i++) {
		assert_memory_equal(scribe->iov[i].iov_base, model, scribe->iov[i].iov_len);
		model += scribe->iov[i].iov_len;
	}
}

MAY_WAIT static void scribe_round(struct scribe *scribe)
{
	static const enum io_op ops[] = {IO_READ, IO_READ, IO_WRITE, IO_WRITE, IO_WRITE, IO_WRITE_ZEROES, IO_UNMAP, IO_FLUSH};
	const enum io_op op = ops[pick(scribe, ARRAY_SIZE(ops))];
	const uint32_t block = scribe->limits->block_size;
	const uint64_t offset = pick(scribe, REGION / block) * block;
	const uint64_t length = (1 + pick(scribe, MIN(REGION - offset, (uint64_t)LENGTH_MAX) / block)) * block;
	struct io io = {.channel = scribe->channel, .op = op, .flags = pick(scribe, 4) ? 0 : IO_FUA};
	if (op == IO_UNMAP && (!(scribe->limits->ops & 1u << IO_UNMAP) || !scribe->limits->unmap_reads_zero))
		return;
	if (op != IO_FLUSH) {
		io.offset = offset;
		io.length = MIN(length, REGION - offset);
	}
	if (op == IO_READ || op == IO_WRITE) {
		vectors_make(scribe, io.length);
		io.iov = scribe->iov;
		io.iov_count = scribe->iov_count;
	}
	if (op == IO_WRITE)
		vectors_fill(scribe, scribe->model + offset);
	if (op == IO_WRITE_ZEROES || op == IO_UNMAP)
		memset(scribe->model + offset, 0, io.length);
	assert_int_equal(io_run(&io), 0);
	if (op == IO_READ)
		vectors_check(scribe, scribe->model + offset);
}

MAY_WAIT static int scribble(void *arg)
{
	struct scribe *scribe = calloc(1, sizeof(*scribe));
	scribe->random = 0x1234567;
	scribe->model = calloc(1, REGION);
	scribe->arenas[0] = dma_alloc(ARENA, BLOCK);
	scribe->arenas[1] = aligned_alloc(BLOCK, ARENA);
	drive_make(arg, NVME_REMOVE);
	struct bdev_desc *desc = bench_open(&bench, made, &scribe->channel);
	scribe->limits = bdev_get_limits(bdev_desc_bdev(desc));
	for (unsigned i = 0; i < ROUNDS; i++)
		scribe_round(scribe);
	struct bdev_stats *stats = malloc(sizeof(*stats));
	bdev_stats_read(bdev_desc_bdev(desc), stats);
	assert_true(stats->bounces > 0 && stats->splits > 0);
	free(stats);
	bench_close(desc, scribe->channel);
	struct emu_stats emu_stats;
	emu_stats_read(emu_of(made), &emu_stats);
	assert_int_equal(emu_stats.bad_commands, 0);
	gone(made);
	dma_free(scribe->arenas[0]);
	free(scribe->arenas[1]);
	free(scribe->model);
	free(scribe);
	return 0;
}

static void test_random_vectors_over_a_drive_with_4096_byte_blocks(void **state)
{
	module_on(0, scribble, "emu:ram:8M");
}

static void test_random_vectors_over_a_drive_with_512_byte_blocks(void **state)
{
	module_on(1, scribble, "emu:ram:8M,lba=512");
}

static void test_random_vectors_with_small_transfers_and_a_boundary(void **state)
{
	module_on(0, scribble, "emu:ram:8M,mdts=1,boundary=3,cache=512K,zeroes=off");
}

static void test_random_vectors_with_transfers_of_any_size(void **state)
{
	module_on(1, scribble, "emu:ram:8M,mdts=15,lba=512,dsm=off,depth=4,cache=64K");
}

/* ---- what is durable ---- */

struct pair {
	struct bdev_desc *desc, *medium_desc;
	struct bdev_channel *channel, *medium;
};

MAY_WAIT static void pair_open(struct pair *pair, const char *target)
{
	ram_make("m", MIB(8), 0);
	drive_make(target, NVME_REMOVE);
	pair->desc = bench_open(&bench, made, &pair->channel);
	pair->medium_desc = bench_open(&bench, "m", &pair->medium);
}

MAY_WAIT static void pair_close(struct pair *pair)
{
	bench_close(pair->desc, pair->channel);
	bench_close(pair->medium_desc, pair->medium);
	gone(made);
	gone("m");
}

MAY_WAIT static int durable(void *arg)
{
	static struct shot shot;
	struct pair pair;
	pair_open(&pair, "emu:m,cache=1M");
	shot_write(&shot, pair.channel, 0, BLOCK, 0x11);
	assert_int_equal(shot_wait(&shot), 0);
	assert_true(filled(pair.channel, 0, 0x11));
	assert_true(filled(pair.medium, 0, 0)); /* in the drive's cache */
	assert_int_equal(bdev_write(pair.channel, shot.buffer, BLOCK, BLOCK, IO_FUA), 0);
	assert_true(filled(pair.medium, BLOCK, 0x11));
	assert_true(filled(pair.medium, 0, 0));
	assert_int_equal(bdev_flush(pair.channel), 0);
	assert_true(filled(pair.medium, 0, 0x11));
	shot_start(&shot, pair.channel, IO_UNMAP, 0, BLOCK);
	assert_int_equal(shot_wait(&shot), 0);
	assert_true(filled(pair.channel, 0, 0));
	shot_start(&shot, pair.channel, IO_WRITE_ZEROES, BLOCK, BLOCK);
	assert_int_equal(shot_wait(&shot), 0);
	assert_true(filled(pair.channel, BLOCK, 0));
	assert_int_equal(bdev_flush(pair.channel), 0);
	assert_true(filled(pair.medium, 0, 0) && filled(pair.medium, BLOCK, 0));
	pair_close(&pair);
	shot_free(&shot);
	return 0;
}

static void test_fua_and_flush_make_durable(void **state) { module_on(1, durable, NULL); }

/* ---- reset ---- */

MAY_WAIT static int reset_takes_back(void *arg)
{
	static struct shot stuck, reset;
	struct pair pair;
	pair_open(&pair, "emu:m,rule=write:stuck-hard:count=1");
	shot_write(&stuck, pair.channel, 0, BLOCK, 0x22);
	fiber_sleep(NS_PER_MS);
	assert_int_equal(stuck.result, SHOT_PENDING);
	assert_int_equal(nvme_device_get_state(device_of(made)), NVME_DEVICE_ATTACHED);
	shot_start(&reset, pair.channel, IO_RESET, 0, 0);
	fiber_sleep(100 * NS_PER_US);
	assert_int_equal(nvme_device_get_state(device_of(made)), NVME_DEVICE_RESETTING);
	assert_int_equal(shot_wait(&reset), 0);
	assert_int_equal(shot_wait(&stuck), 0);
	assert_int_equal(nvme_device_get_state(device_of(made)), NVME_DEVICE_ATTACHED);
	assert_true(filled(pair.channel, 0, 0x22));
	pair_close(&pair);
	shot_free(&stuck);
	shot_free(&reset);
	return 0;
}

static void test_a_reset_brings_back_what_was_stuck(void **state)
{
	module_on(1, reset_takes_back, NULL);
}

static struct shot late_reset;

MAY_WAIT static int reset_soon(void *arg)
{
	fiber_sleep(*(uint64_t *)arg);
	shot_start(&late_reset, late_reset.io.channel, IO_RESET, 0, 0);
	shot_wait(&late_reset);
	return 0;
}

/* At any moment of an orderly end. */
MAY_WAIT static int reset_in_detach(void *arg)
{
	static struct background background;
	uint64_t delay_ns = *(unsigned *)arg * 50 * NS_PER_US;
	struct bdev_channel *channel;
	drive_make("emu:ram:8M", NVME_HOLD);
	struct bdev_desc *desc = bench_open(&bench, made, &channel);
	late_reset.io.channel = channel;
	background_start(&background, 0, reset_soon, &delay_ns);
	assert_int_equal(nvme_device_detach(device_of(made), NS_PER_SEC), 0);
	background_wait(&background);
	assert_true(late_reset.result == -ENODEV || late_reset.result == 0);
	bench_close(desc, channel);
	gone(made);
	return 0;
}

static void test_a_reset_that_meets_the_end_of_its_controller(void **state)
{
	module_fini();
	module_init(1);
	for (unsigned i = 0; i < 40; i++)
		module_on(0, reset_in_detach, &i);
	shot_free(&late_reset);
}

/* ---- abort ---- */

MAY_WAIT static int abort_stuck(void *arg)
{
	static struct shot stuck, abort, other;
	struct pair pair;
	pair_open(&pair, arg);
	shot_write(&stuck, pair.channel, 0, BLOCK, 0x33);
	fiber_sleep(NS_PER_MS);
	shot_abort(&abort, &stuck);
	shot_write(&other, pair.channel, BLOCK, BLOCK, 0x44);
	assert_int_equal(shot_wait(&abort), 0);
	assert_int_equal(shot_wait(&other), 0);
	assert_int_equal(shot_wait(&stuck), -ECANCELED);
	assert_true(filled(pair.channel, 0, 0) && filled(pair.channel, BLOCK, 0x44));
	pair_close(&pair);
	shot_free(&stuck);
	shot_free(&other);
	return 0;
}

static void test_an_abort_takes_a_stuck_command_back(void **state)
{
	module_on(1, abort_stuck, "emu:m,rule=write:stuck:count=1");
}

static void test_an_abort_that_does_not_help_ends_in_a_reset(void **state)
{
	module_on(0, abort_stuck, "emu:m,rule=write:stuck-hard:count=1");
}

/* More than one command fits into the queue: the others wait in line. */
MAY_WAIT static int abort_in_line(void *arg)
{
	static struct shot shots[6], abort;
	struct pair pair;
	pair_open(&pair, "emu:m,depth=3,rule=write:stuck:count=2");
	for (unsigned i = 0; i < ARRAY_SIZE(shots); i++)
		shot_write(&shots[i], pair.channel, i * BLOCK, BLOCK, (uint8_t)(i + 1));
	fiber_sleep(NS_PER_MS);
	shot_abort(&abort, &shots[4]);
	assert_int_equal(shot_wait(&abort), 0);
	assert_int_equal(shot_wait(&shots[4]), -ECANCELED);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(shots[i].result, SHOT_PENDING);
		shot_abort(&abort, &shots[i]);
		assert_int_equal(shot_wait(&abort), 0);
		assert_int_equal(shot_wait(&shots[i]), -ECANCELED);
	}
	for (unsigned i = 2; i < ARRAY_SIZE(shots); i++) {
		assert_int_equal(shot_wait(&shots[i]), i == 4 ? -ECANCELED : 0);
		assert_true(filled(pair.channel, i * BLOCK, i == 4 ? 0 : (uint8_t)(i + 1)));
	}
	pair_close(&pair);
	for (unsigned i = 0; i < ARRAY_SIZE(shots); i++)
		shot_free(&shots[i]);
	return 0;
}

static void test_an_abort_of_what_waits_in_line(void **state) { module_on(0, abort_in_line, NULL); }

/* Of one that is over, of an abort, of a reset: nothing happens, to nobody. */
MAY_WAIT static int abort_what_is_over(void *arg)
{
	static struct shot bystander, stuck, over, reset, aborts[4];
	struct pair pair;
	pair_open(&pair, "emu:m,rule=write:stuck:count=2");
	const struct nvme_ctrlr_info *info = nvme_ctrlr_get_info(nvme_device_ctrlr(device_of(made)));
	shot_write(&bystander, pair.channel, 2 * BLOCK, BLOCK, 0x77);
	shot_write(&stuck, pair.channel, BLOCK, BLOCK, 0x66);
	fiber_sleep(NS_PER_MS); /* an Abort that overtakes its command finds nothing */
	shot_abort(&aborts[0], &stuck);
	shot_abort(&aborts[1], &aborts[0]); /* answered, but nobody has heard of it */
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(shot_wait(&aborts[i]), 0);
	assert_int_equal(shot_wait(&stuck), -ECANCELED);
	shot_write(&over, pair.channel, 0, BLOCK, 0x55);
	assert_int_equal(shot_wait(&over), 0);
	shot_abort(&aborts[2], &over);
	assert_int_equal(shot_wait(&aborts[2]), 0);
	assert_int_equal(info->aborts, 1);
	assert_int_equal(bystander.result, SHOT_PENDING);
	shot_start(&reset, pair.channel, IO_RESET, 0, 0);
	shot_abort(&aborts[3], &reset);
	assert_int_equal(shot_wait(&aborts[3]), 0);
	assert_int_equal(shot_wait(&reset), 0);
	assert_int_equal(shot_wait(&bystander), 0);
	assert_true(filled(pair.channel, 0, 0x55) && filled(pair.channel, BLOCK, 0) && filled(pair.channel, 2 * BLOCK, 0x77));
	pair_close(&pair);
	shot_free(&bystander);
	shot_free(&stuck);
	shot_free(&over);
	shot_free(&reset);
	return 0;
}

static void test_an_abort_of_what_is_over_and_of_what_is_no_command(void **state)
{
	module_on(0, abort_what_is_over, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_random_vectors_over_a_drive_with_4096_byte_blocks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_vectors_over_a_drive_with_512_byte_blocks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_vectors_with_small_transfers_and_a_boundary, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_vectors_with_transfers_of_any_size, setup, teardown),
		cmocka_unit_test_setup_teardown(test_fua_and_flush_make_durable, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_reset_brings_back_what_was_stuck, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_reset_that_meets_the_end_of_its_controller, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_abort_takes_a_stuck_command_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_abort_that_does_not_help_ends_in_a_reset, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_abort_of_what_waits_in_line, setup, teardown),
		cmocka_unit_test_setup_teardown(test_an_abort_of_what_is_over_and_of_what_is_no_command, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
