/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: ram is a device, error does each of its actions, record logs what the base gets in order. Method: simulated
 * groups; record over error over ram, synchronous and asynchronous.
 */
#include <errno.h>

#include "bdev_bench.h"

static _Alignas(4096) uint8_t buffer[1 << 20], copy[1 << 20];
static uint8_t medium[1 << 20];
static struct bdev_ram_options ram_options;
static void (*stacked_body)(struct bdev_channel *channel);
static struct bdev *error_bdev, *record_bdev;
static struct bench bench;

static int setup(void **state)
{
	memset(medium, 0, sizeof(medium));
	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (uint8_t)(i * 13 + i / 4096 + 1);
	ram_options = (struct bdev_ram_options){.size_bytes = sizeof(medium), .memory = medium, .volatile_cache = true};
	return 0;
}

MAY_WAIT static int stacked_fiber(void *arg)
{
	assert_int_equal(bdev_ram_create(bench.registry, "ram", &ram_options), 0);
	assert_int_equal(bdev_ram_create(bench.registry, "ram", &ram_options), -EEXIST);
	assert_int_equal(bdev_error_create(bench.registry, "error", "ram"), 0);
	assert_int_equal(bdev_record_create(bench.registry, "record", "error"), 0);
	assert_int_equal(bdev_record_create(bench.registry, "nothing", "no such base"), -ENODEV);
	error_bdev = bdev_find(bench.registry, "error");
	record_bdev = bdev_find(bench.registry, "record");
	bench_with(&bench, "record", stacked_body);
	return bdev_remove(bench.registry, "ram", NS_PER_SEC);
}

static void stacked(void (*body)(struct bdev_channel *channel))
{
	bench_init(&bench, 2, true, 3);
	stacked_body = body;
	bench_run(&bench, 1, stacked_fiber);
	bench_fini(&bench);
}

/* ---- ram ---- */

static void ram_round_trip(struct bdev_channel *channel)
{
	struct io io;
	assert_int_equal(bdev_write(channel, buffer, 0, 300 << 10, IO_FUA), 0);
	assert_int_equal(bdev_read(channel, copy, 0, 300 << 10), 0);
	assert_memory_equal(copy, buffer, 300 << 10);
	io_prepare(&io, channel, IO_UNMAP, NULL, 4096, 65536);
	assert_int_equal(io_run(&io), 0);
	io_prepare(&io, channel, IO_WRITE_ZEROES, NULL, 131072, 8192);
	assert_int_equal(io_run(&io), 0);
	memset(buffer + 4096, 0, 65536);
	memset(buffer + 131072, 0, 8192);
	assert_int_equal(bdev_read(channel, copy, 0, 400 << 10), 0);
	assert_memory_equal(copy, buffer, 300 << 10);
	for (size_t i = 300 << 10; i < 400 << 10; i++)
		assert_int_equal(copy[i], 0);
	assert_int_equal(bdev_flush(channel), 0);
}

static void test_ram_with_given_memory(void **state)
{
	stacked(ram_round_trip);
	assert_memory_equal(medium, buffer, 300 << 10);
}

static void test_ram_with_sparse_memory(void **state)
{
	ram_options.memory = NULL;
	stacked(ram_round_trip);
}

static void test_asynchronous_ram(void **state)
{
	ram_options.asynchronous = true;
	ram_options.delay_us_max = 500;
	stacked(ram_round_trip);
}

enum { SHUFFLED = 32 };
static unsigned shuffled_order[SHUFFLED], shuffled_count;
static struct io shuffled_ios[SHUFFLED];

static void shuffled_done(struct io *io)
{
	shuffled_order[shuffled_count++] = (unsigned)(io - shuffled_ios);
}

static void shuffled(struct bdev_channel *channel)
{
	shuffled_count = 0;
	for (unsigned i = 0; i < SHUFFLED; i++) {
		io_prepare(&shuffled_ios[i], channel, IO_WRITE, buffer + i * 4096, i * 4096, 4096);
		shuffled_ios[i].done = shuffled_done;
		io_submit(&shuffled_ios[i]);
	}
	assert_int_equal(shuffled_count, 0);
	assert_int_equal(medium[0], 0); /* the data moves late too */
	while (shuffled_count != SHUFFLED)
		fiber_sleep(NS_PER_US);
}

static void test_asynchronous_ram_completes_out_of_order_and_the_same_way_again(void **state)
{
	unsigned first[SHUFFLED], inversions = 0;
	ram_options.asynchronous = true;
	ram_options.delay_us_max = 100;
	ram_options.seed = 42;
	stacked(shuffled);
	memcpy(first, shuffled_order, sizeof(first));
	for (unsigned i = 1; i < SHUFFLED; i++)
		inversions += first[i] < first[i - 1];
	assert_true(inversions > 4);
	setup(NULL);
	ram_options.asynchronous = true;
	ram_options.delay_us_max = 100;
	ram_options.seed = 42;
	stacked(shuffled);
	assert_memory_equal(first, shuffled_order, sizeof(first));
}

MAY_WAIT static int huge_fiber(void *arg)
{
	const struct bdev_ram_options options = {.size_bytes = GIB(1024)};
	struct bdev_channel *channel;
	struct io io;
	assert_int_equal(bdev_ram_create(bench.registry, "huge", &options), 0);
	struct bdev_desc *desc = bench_open(&bench, "huge", &channel);
	assert_int_equal(bdev_write(channel, buffer, GIB(1024) - 4096, 4096, 0), 0);
	assert_int_equal(bdev_read(channel, copy, GIB(1024) - 8192, 8192), 0);
	assert_int_equal(copy[0], 0);
	assert_memory_equal(copy + 4096, buffer, 4096);
	io_prepare(&io, channel, IO_UNMAP, NULL, 0, GIB(1024));
	assert_int_equal(io_run(&io), 0);
	bench_close(desc, channel);
	return bdev_remove(bench.registry, "huge", NS_PER_SEC);
}

static void test_a_terabyte_of_ram_costs_what_is_written(void **state)
{
	bench_init(&bench, 1, true, 1);
	bench_run(&bench, 0, huge_fiber);
	bench_fini(&bench);
}

/* ---- error ---- */

static void add_rule(enum error_action action, uint32_t ops, int error)
{
	const struct error_rule rule = {
		.ops = ops,
		.action = action,
		.error = error,
		.count = 1,
		.delay_ns = 10 * NS_PER_MS,
	};
	bdev_error_clear_rules(error_bdev);
	assert_int_equal(bdev_error_add_rule(error_bdev, &rule), 0);
}

static void error_fail(struct bdev_channel *channel)
{
	add_rule(ERROR_FAIL, 1u << IO_WRITE, -ENOSPC);
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), -ENOSPC);
	assert_int_equal(medium[0], 0);
	assert_int_equal(bdev_error_rule(error_bdev, 0)->hits, 1);
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), 0);
	add_rule(ERROR_FAIL_AFTER, 1u << IO_WRITE, 0);
	assert_int_equal(bdev_write(channel, buffer, 4096, 4096, 0), -EIO);
	assert_memory_equal(medium + 4096, buffer, 4096);
	add_rule(ERROR_FAIL, 1u << IO_FLUSH, -EIO);
	assert_int_equal(bdev_flush(channel), -EIO);
	assert_int_equal(bdev_error_io_count(error_bdev, IO_WRITE), 3);
	assert_int_equal(bdev_error_io_count(error_bdev, IO_FLUSH), 1);
}

static void test_error_fail_and_fail_after(void **state)
{
	stacked(error_fail);
}

static void error_delay(struct bdev_channel *channel)
{
	add_rule(ERROR_DELAY, 1u << IO_READ, 0);
	const uint64_t before = reactor_now_ns();
	assert_int_equal(bdev_read(channel, copy, 0, 4096), 0);
	assert_true(reactor_now_ns() - before >= 10 * NS_PER_MS);
	assert_int_equal(bdev_read(channel, copy, 0, 4096), 0);
	assert_true(reactor_now_ns() - before < 20 * NS_PER_MS);
}

static void test_error_delay(void **state)
{
	stacked(error_delay);
}

static unsigned differences(const uint8_t *a, const uint8_t *b, size_t size)
{
	unsigned count = 0;
	for (size_t i = 0; i < size; i++)
		count += a[i] != b[i];
	return count;
}

static void error_corrupt(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer, 0, 16384, 0), 0);
	add_rule(ERROR_CORRUPT, 1u << IO_READ, 0);
	assert_int_equal(bdev_read(channel, copy, 0, 16384), 0);
	assert_int_equal(differences(copy, buffer, 16384), 32);
	assert_memory_equal(medium, buffer, 16384);
	add_rule(ERROR_CORRUPT, 1u << IO_WRITE, 0);
	memcpy(copy, buffer, 16384);
	assert_int_equal(bdev_write(channel, buffer, 0, 16384, 0), 0);
	assert_memory_equal(copy, buffer, 16384); /* the caller's memory is untouched */
	assert_int_equal(differences(medium, buffer, 16384), 32);

	const struct error_rule rule = {.ops = 1u << IO_READ, .action = ERROR_CORRUPT, .offset = 5000, .length = 1};
	bdev_error_clear_rules(error_bdev);
	assert_int_equal(bdev_write(channel, buffer, 0, 16384, 0), 0);
	assert_int_equal(bdev_error_add_rule(error_bdev, &rule), 0);
	assert_int_equal(bdev_read(channel, copy, 0, 16384), 0);
	assert_int_equal(differences(copy, buffer, 16384), 1);
	assert_int_not_equal(copy[5000], buffer[5000]);
	assert_int_equal(bdev_read(channel, copy, 8192, 4096), 0);
	assert_memory_equal(copy, buffer + 8192, 4096);
}

static void test_error_corrupt_flips_bits_on_either_way(void **state)
{
	stacked(error_corrupt);
}

static void error_lose(struct bdev_channel *channel)
{
	add_rule(ERROR_LOSE, 1u << IO_WRITE, 0);
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), 0);
	assert_int_equal(medium[1], 0);
	add_rule(ERROR_LOSE, 1u << IO_FLUSH, 0);
	assert_int_equal(bdev_flush(channel), 0);
	static struct bdev_stats stats;
	bdev_stats_read(bdev_find(bench.registry, "ram"), &stats);
	assert_int_equal(stats.op[IO_FLUSH].count, 0);
	assert_int_equal(stats.op[IO_WRITE].count, 0);
}

static void test_error_lose(void **state)
{
	stacked(error_lose);
}

static void error_no_memory(struct bdev_channel *channel)
{
	const struct error_rule rule = {.ops = 1u << IO_WRITE, .action = ERROR_NO_MEMORY, .skip = 1, .count = 3};
	assert_int_equal(bdev_error_add_rule(error_bdev, &rule), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(bdev_write(channel, buffer, i * 4096, 4096, 0), 0);
	assert_int_equal(bdev_error_rule(error_bdev, 0)->hits, 3);
	assert_memory_equal(medium, buffer, 4096);
	assert_memory_equal(medium + 8192, buffer, 4096);
	assert_int_equal(bdev_error_io_count(error_bdev, IO_WRITE), 3);
}

static void test_error_no_memory_is_overcome(void **state)
{
	stacked(error_no_memory);
}

static void error_rules(struct bdev_channel *channel)
{
	struct error_rule rule = {.ops = 1u << IO_READ, .action = ERROR_FAIL, .error = -EIO, .skip = 2, .count = 1};
	assert_int_equal(bdev_error_add_rule(error_bdev, &rule), 0);
	rule = (struct error_rule){.ops = 1u << IO_READ, .action = ERROR_FAIL, .error = -EILSEQ};
	rule.offset = 8192;
	rule.length = 4096;
	assert_int_equal(bdev_error_add_rule(error_bdev, &rule), 1);
	assert_int_equal(bdev_read(channel, copy, 0, 4096), 0);
	assert_int_equal(bdev_read(channel, copy, 8192, 4096), -EILSEQ);
	assert_int_equal(bdev_read(channel, copy, 0, 4096), -EIO);
	assert_int_equal(bdev_read(channel, copy, 0, 8192), 0);
	assert_int_equal(bdev_read(channel, copy, 4096, 8192), -EILSEQ);
	for (unsigned i = 2; i < ERROR_RULES_MAX; i++)
		assert_int_equal(bdev_error_add_rule(error_bdev, &rule), i);
	assert_int_equal(bdev_error_add_rule(error_bdev, &rule), -ENOSPC);
	assert_null(bdev_error_rule(error_bdev, ERROR_RULES_MAX));
}

static void test_error_rules_skip_count_and_range(void **state)
{
	stacked(error_rules);
}

static struct io hung_io;
static bool hung_done;

static void hung_io_done(struct io *io)
{
	hung_done = true;
}

static void hung_remover(void *arg)
{
	const int err = bdev_remove(bench.registry, "ram", NS_PER_SEC);
	assert_int_equal(err, 0);
}

static void error_hang(struct bdev_channel *channel)
{
	static struct fiber_start start;
	add_rule(ERROR_HANG, 1u << IO_WRITE, 0);
	hung_done = false;
	io_prepare(&hung_io, channel, IO_WRITE, buffer, 0, 4096);
	hung_io.done = hung_io_done;
	io_submit(&hung_io);
	fiber_sleep(NS_PER_SEC);
	assert_false(hung_done);
	start = (struct fiber_start){.fn = hung_remover, .name = "remover"};
	fiber_start(&start);
	while (!hung_done)
		fiber_yield();
	assert_int_equal(hung_io.result, -ENODEV);
}

static void test_error_hang_ends_with_removal(void **state)
{
	stacked(error_hang);
}

/* ---- record ---- */

static void record_order(struct bdev_channel *channel)
{
	size_t count;
	struct io io;
	assert_int_equal(bdev_write(channel, buffer, 0, 8192, 0), 0);
	assert_int_equal(bdev_flush(channel), 0);
	bdev_record_mark(record_bdev, 77);
	io_prepare(&io, channel, IO_UNMAP, NULL, 4096, 4096);
	assert_int_equal(io_run(&io), 0);
	io_prepare(&io, channel, IO_WRITE_ZEROES, NULL, 8192, 4096);
	assert_int_equal(io_run(&io), 0);
	assert_int_equal(bdev_read(channel, copy, 0, 4096), 0);
	const struct record_entry *entries = bdev_record_entries(record_bdev, &count);
	static const enum record_kind kinds[] = {RECORD_WRITE, RECORD_FLUSH, RECORD_MARK, RECORD_UNMAP, RECORD_WRITE};
	assert_int_equal(count, 5);
	for (unsigned i = 0; i < 5; i++) {
		assert_int_equal(entries[i].kind, kinds[i]);
		assert_true(entries[i].completed >= entries[i].submitted);
		if (i != 0)
			assert_true(entries[i].submitted > entries[i - 1].completed);
	}
	assert_memory_equal(entries[0].data, buffer, 8192);
	assert_int_equal(entries[2].mark, 77);
	assert_int_equal(entries[3].offset, 4096);
	assert_int_equal(entries[4].data[4095], 0);
	bdev_record_clear(record_bdev);
	bdev_record_entries(record_bdev, &count);
	assert_int_equal(count, 0);
}

static void test_record_logs_in_order_with_content(void **state)
{
	stacked(record_order);
}

static void record_fua(struct bdev_channel *channel)
{
	size_t count;
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, IO_FUA), 0);
	const struct record_entry *entries = bdev_record_entries(record_bdev, &count);
	assert_int_equal(count, ram_options.native_fua ? 1 : 2);
	assert_int_equal(entries[0].fua, ram_options.native_fua);
	if (!ram_options.native_fua)
		assert_int_equal(entries[1].kind, RECORD_FLUSH);
}

static void test_record_shows_native_fua_and_emulated_fua_as_a_flush(void **state)
{
	stacked(record_fua);
	ram_options.native_fua = true;
	stacked(record_fua);
}

static void record_copy(struct bdev_channel *channel)
{
	struct io io;
	struct io_group group;
	size_t count;
	io_group_init(&group);
	io_prepare(&io, channel, IO_WRITE, copy, 0, 4096);
	memcpy(copy, buffer, 4096);
	io_group_submit(&group, &io);
	memset(copy, 0x99, 4096); /* a caller that does not wait */
	const struct record_entry *entries = bdev_record_entries(record_bdev, &count);
	assert_int_equal(count, 1);
	assert_int_equal(entries[0].completed, UINT64_MAX);
	bdev_record_clear(record_bdev); /* with the write in flight */
	assert_int_equal(io_group_wait(&group), 0);
	bdev_record_entries(record_bdev, &count);
	assert_int_equal(count, 0);
	assert_memory_equal(medium, buffer, 4096);
}

static void test_the_base_gets_what_the_record_holds(void **state)
{
	ram_options.asynchronous = true;
	ram_options.delay_us_max = 50;
	stacked(record_copy);
}

static void record_failed(struct bdev_channel *channel)
{
	size_t count;
	add_rule(ERROR_FAIL, 1u << IO_FLUSH, -EIO);
	assert_int_equal(bdev_flush(channel), -EIO);
	const struct record_entry *entries = bdev_record_entries(record_bdev, &count);
	assert_int_equal(count, 1);
	assert_int_equal(entries[0].completed, UINT64_MAX);
}

static void test_a_failed_flush_does_not_count_as_completed(void **state)
{
	stacked(record_failed);
}

static void full_stack(struct bdev_channel *channel)
{
	enum { COUNT = 5000 };
	struct io *ios = calloc(COUNT, sizeof(ios[0]));
	struct io_group group;
	io_group_init(&group);
	for (unsigned i = 0; i < COUNT; i++) {
		io_prepare(&ios[i], channel, IO_READ, copy, (i % 256) * 4096, 4096);
		io_group_submit(&group, &ios[i]);
	}
	assert_int_equal(io_group_wait(&group), 0);
	free(ios);
}

static void test_upper_levels_cannot_starve_their_base(void **state)
{
	ram_options.asynchronous = true;
	ram_options.delay_us_max = 1000;
	stacked(full_stack);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_ram_with_given_memory, setup),
		cmocka_unit_test_setup(test_ram_with_sparse_memory, setup),
		cmocka_unit_test_setup(test_asynchronous_ram, setup),
		cmocka_unit_test_setup(test_asynchronous_ram_completes_out_of_order_and_the_same_way_again, setup),
		cmocka_unit_test_setup(test_a_terabyte_of_ram_costs_what_is_written, setup),
		cmocka_unit_test_setup(test_error_fail_and_fail_after, setup),
		cmocka_unit_test_setup(test_error_delay, setup),
		cmocka_unit_test_setup(test_error_corrupt_flips_bits_on_either_way, setup),
		cmocka_unit_test_setup(test_error_lose, setup),
		cmocka_unit_test_setup(test_error_no_memory_is_overcome, setup),
		cmocka_unit_test_setup(test_error_rules_skip_count_and_range, setup),
		cmocka_unit_test_setup(test_error_hang_ends_with_removal, setup),
		cmocka_unit_test_setup(test_record_logs_in_order_with_content, setup),
		cmocka_unit_test_setup(test_record_shows_native_fua_and_emulated_fua_as_a_flush, setup),
		cmocka_unit_test_setup(test_the_base_gets_what_the_record_holds, setup),
		cmocka_unit_test_setup(test_a_failed_flush_does_not_count_as_completed, setup),
		cmocka_unit_test_setup(test_upper_levels_cannot_starve_their_base, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
