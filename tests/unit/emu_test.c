/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the emulated controller does what a controller does.
 * Method: registers and queue entries written by hand; see emu_bench.h.
 */
#include "emu_bench.h"

static struct bench bench;

static void run(const struct emu_options *options, MAY_WAIT void (*fn)(struct bench *bench))
{
	bench_init(&bench, options, 1);
	bench_run(&bench, fn);
	bench_fini(&bench);
}

MAY_WAIT static void write_and_read(struct bench *b)
{
	bench_bring_up(b);
	assert_int_equal(bench_write(b, 3, 1, 0x77, 0), 0);
	assert_int_equal(bench_read(b, 3), 0x77);
	assert_int_equal(bench_read(b, 4), 0);
	assert_int_equal(bench_flush(b), 0);
	assert_int_equal(b->durable[3 * 4096], 0x77);
}

static void test_what_is_written_is_read(void **state) { run(NULL, write_and_read); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_written_is_read),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
