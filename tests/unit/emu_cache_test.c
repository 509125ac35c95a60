/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: what was not flushed is volatile, in the way that the options say; what was flushed is not.
 * Method: a medium in memory that counts what reaches it; power cuts and pulls with fixed seeds.
 */
#include "emu_bench.h"

#include <errno.h>

enum { BLOCK = 4096, WRITTEN = 48 };

static const struct emu_options cached = {.cache_bytes = MIB(1)};

/* ---- absorbing ---- */

MAY_WAIT static void absorb(struct bench *bench)
{
	struct emu_stats stats;
	bench_bring_up(bench);
	for (unsigned i = 0; i < WRITTEN; i++)
		assert_int_equal(bench_write(bench, i, 1, (uint8_t)(i + 1), 0), 0);
	for (unsigned i = 0; i < WRITTEN; i++)
		assert_int_equal(bench_read(bench, i), i + 1);
	assert_int_equal(bench->writes + bench->reads, 0);
	emu_stats_read(bench->emu, &stats);
	assert_int_equal(stats.cache_bytes, WRITTEN * BLOCK);
	assert_int_equal(bench_flush(bench), 0);
	emu_stats_read(bench->emu, &stats);
	assert_int_equal(stats.cache_bytes, 0);
	assert_int_equal(bench->flushes, 1);
	assert_true(bench->writes < WRITTEN);
	for (unsigned i = 0; i < WRITTEN; i++)
		assert_int_equal(bench->durable[i * BLOCK], i + 1);
	assert_int_equal(bench_flush(bench), 0);
	assert_int_equal(bench->flushes, 2);
}

static void test_writes_stay_in_the_cache_until_a_flush(void **state) { bench_test(&cached, absorb); }

MAY_WAIT static void evict(struct bench *bench)
{
	struct emu_stats stats;
	bench_bring_up(bench);
	for (unsigned i = 0; i < 10 * WRITTEN; i++)
		assert_int_equal(bench_write(bench, i, 1, (uint8_t)(i + 1), 0), 0);
	emu_stats_read(bench->emu, &stats);
	assert_true(stats.cache_bytes <= KIB(64) && stats.cache_bytes > KIB(32));
	assert_true(bench->writes > 0);
	assert_int_equal(bench->flushes, 0);
	for (unsigned i = 0; i < 10 * WRITTEN; i++)
		assert_int_equal(bench_read(bench, i), (uint8_t)(i + 1));
}

static void test_a_full_cache_evicts_without_a_flush(void **state)
{
	bench_test(&(struct emu_options){.cache_bytes = KIB(64)}, evict);
}

MAY_WAIT static void partial(struct bench *bench)
{
	bench_bring_up(bench);
	memset(bench->medium, 0x33, BENCH_MEDIUM_BYTES);
	assert_int_equal(bench_write(bench, 9, 1, 0x99, 0), 0);
	assert_int_equal(bench_write(bench, 11, 1, 0xbb, 0), 0);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, 8, 8, bench_page(bench, 4)), NULL), 0);
	static const uint8_t expected[] = {0x33, 0x99, 0x33, 0xbb, 0x33, 0x33, 0x33, 0x33};
	for (unsigned i = 0; i < EMU_PAGE; i++)
		assert_int_equal(bench_page(bench, 4)[i], expected[i / 512]);
	assert_int_equal(bench_flush(bench), 0);
	assert_int_equal(bench->writes, 2);
	for (unsigned i = 0; i < EMU_PAGE; i++)
		assert_int_equal(bench->durable[EMU_PAGE + i], expected[i / 512]);
}

static void test_small_blocks_are_kept_one_by_one(void **state)
{
	bench_test(&(struct emu_options){.cache_bytes = MIB(1), .lba_bytes = 512}, partial);
}

/* ---- durable writes ---- */

MAY_WAIT static void fua(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 8, 1, 1, 0), 0);
	assert_int_equal(bench_write(bench, 9, 1, 2, 0), 0);
	assert_int_equal(bench_write(bench, 9, 1, 3, NVME_RW_FUA), 0);
	assert_int_equal(bench_write(bench, 10, 1, 4, 0), 0);
	assert_int_equal(bench->durable[9 * 512], 3);
	assert_int_equal(bench->durable[8 * 512], 0);
	struct nvme_command zeroes = bench_rw(NVME_CMD_WRITE_ZEROES, 9, 1, NULL);
	zeroes.cdw12 = le32_set(NVME_RW_FUA);
	assert_int_equal(bench_do(bench, 1, zeroes, NULL), 0);
	assert_int_equal(bench->durable[9 * 512], 0);
	bench_power_cut(bench);
	assert_int_equal(bench->medium[8 * 512], 0);
	assert_int_equal(bench->medium[10 * 512], 0);
}

static void test_fua_makes_its_own_blocks_durable_and_no_others(void **state)
{
	bench_test(&(struct emu_options){.cache_bytes = MIB(1), .lba_bytes = 512}, fua);
}

MAY_WAIT static void fua_direct(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 1, 1, 1, 0), 0);
	assert_int_equal(bench->flushes, 0);
	assert_int_equal(bench_write(bench, 2, 1, 2, NVME_RW_FUA), 0);
	assert_int_equal(bench->flushes, 1);
	assert_int_equal(bench->durable[2 * BLOCK], 2);
}

static void test_fua_without_a_cache_flushes_the_medium(void **state)
{
	bench_test(&(struct emu_options){0}, fua_direct);
}

MAY_WAIT static void cache_off(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 1, 1, 1, 0), 0);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_VOLATILE_CACHE, 0, NULL), 0);
	assert_int_equal(bench->durable[1 * BLOCK], 1);
	assert_int_equal(bench_write(bench, 2, 1, 2, 0), 0);
	assert_int_equal(bench->durable[2 * BLOCK], 2);
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_VOLATILE_CACHE, 1, NULL), 0);
	assert_int_equal(bench_write(bench, 3, 1, 3, 0), 0);
	assert_int_equal(bench->durable[3 * BLOCK], 0);
	bench->error_op = EMU_FLUSH;
	bench->error = -EIO;
	assert_int_equal(bench_admin(bench, NVME_ADMIN_SET_FEATURES, NVME_FEATURE_VOLATILE_CACHE, 0, NULL),
		NVME_SC_INTERNAL_ERROR);
	bench->error = 0;
	uint32_t dw0;
	assert_int_equal(bench_admin(bench, NVME_ADMIN_GET_FEATURES, NVME_FEATURE_VOLATILE_CACHE, 0, &dw0), 0);
	assert_int_equal(dw0, 1);
}

static void test_turning_the_cache_off_makes_everything_durable(void **state)
{
	bench_test(&cached, cache_off);
	bench_test(&(struct emu_options){0}, cache_off);
}

MAY_WAIT static void never_volatile(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 2, 1, 2, 0), 0);
	assert_int_equal(bench->durable[2 * BLOCK], 2);
	bench_pull(bench);
	assert_int_equal(bench->medium[2 * BLOCK], 2);
}

static void test_without_a_volatile_cache_every_write_is_durable(void **state)
{
	bench_test(&(struct emu_options){.no_volatile_cache = true}, never_volatile);
	bench_test(&(struct emu_options){.no_volatile_cache = true, .cache_bytes = KIB(64)}, never_volatile);
}

/* ---- cuts ---- */

MAY_WAIT static void write_all(struct bench *bench)
{
	const unsigned per_page = EMU_PAGE / (bench->options.lba_bytes ? bench->options.lba_bytes : BLOCK);
	bench_bring_up(bench);
	for (unsigned i = 0; i < WRITTEN / 2; i++)
		assert_int_equal(bench_write(bench, i * per_page, per_page, 1, 0), 0);
	assert_int_equal(bench_flush(bench), 0);
	for (unsigned i = 0; i < WRITTEN; i++)
		assert_int_equal(bench_write(bench, i * per_page, per_page, 2, 0), 0);
}

/* Sectors of the medium that have the second content. */
static unsigned sectors_new(const struct bench *bench, bool whole_blocks)
{
	unsigned count = 0;
	for (unsigned i = 0; i < WRITTEN * 8; i++) {
		const uint8_t *at = bench->medium + i * 512, old = i < WRITTEN / 2 * 8;
		for (unsigned j = 1; j < 512; j++)
			assert_int_equal(at[j], at[0]);
		assert_true(at[0] == 2 || at[0] == old);
		if (whole_blocks)
			assert_int_equal(at[0], bench->medium[align_down(i * 512, BLOCK)]);
		count += at[0] == 2;
	}
	return count;
}

MAY_WAIT static void cut_all(struct bench *bench)
{
	struct emu_stats stats;
	write_all(bench);
	bench_pull(bench);
	assert_int_equal(sectors_new(bench, true), 0);
	emu_stats_read(bench->emu, &stats);
	assert_int_equal(stats.lost_bytes, WRITTEN * BLOCK);
	assert_int_equal(stats.cache_bytes, 0);
	bench_release(bench);
	bench_plug(bench);
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 0), 1);
	assert_int_equal(bench_read(bench, WRITTEN - 1), 0);
}

static void test_a_cut_that_takes_everything(void **state) { bench_test(&cached, cut_all); }

MAY_WAIT static void cut_none(struct bench *bench)
{
	write_all(bench);
	bench_pull(bench);
	assert_int_equal(sectors_new(bench, true), WRITTEN * 8);
	assert_memory_equal(bench->medium, bench->durable, BENCH_MEDIUM_BYTES);
}

static void test_a_drive_with_capacitors_loses_nothing(void **state)
{
	bench_test(&(struct emu_options){.cache_bytes = MIB(1), .cut = EMU_CUT_NONE}, cut_none);
	bench_test(&(struct emu_options){.cut = EMU_CUT_NONE}, cut_none);
}

/* What is on the medium after the same writes and a random cut. */
static unsigned random_cut(uint64_t seed, unsigned tear_bytes, uint64_t schedule, uint8_t *content)
{
	static struct bench bench;
	const struct emu_options options = {.cache_bytes = MIB(1), .cut = EMU_CUT_RANDOM, .seed = seed, .tear_bytes = tear_bytes};
	bench_init(&bench, &options, schedule);
	bench_run(&bench, write_all);
	bench_run(&bench, bench_pull);
	const unsigned survived = sectors_new(&bench, tear_bytes == BLOCK);
	memcpy(content, bench.medium, WRITTEN * BLOCK);
	bench_fini(&bench);
	return survived;
}

static uint8_t first[WRITTEN * BLOCK], second[WRITTEN * BLOCK];

static void test_a_random_cut_takes_a_part_that_the_seed_decides(void **state)
{
	unsigned some = 0, torn = 0;
	for (uint64_t seed = 1; seed <= 8; seed++) {
		const unsigned survived = random_cut(seed, 512, 1, first);
		some += survived > 0 && survived < WRITTEN * 8;
		assert_int_equal(random_cut(seed, 512, 99, second), survived);
		assert_memory_equal(first, second, sizeof(first));
		for (unsigned block = 0; block < WRITTEN; block++)
			torn += first[block * BLOCK] != first[block * BLOCK + 512];
		random_cut(seed + 1, 512, 1, second);
		assert_memory_not_equal(first, second, sizeof(first));
	}
	assert_true(some >= 6);
	assert_true(torn > 20);
}

static void test_a_random_cut_in_whole_blocks(void **state)
{
	unsigned some = 0;
	for (uint64_t seed = 1; seed <= 8; seed++) {
		const unsigned survived = random_cut(seed, BLOCK, 1, first);
		assert_int_equal(survived % 8, 0);
		some += survived > 0 && survived < WRITTEN * 8;
	}
	assert_true(some >= 6);
}

MAY_WAIT static int cut_other_seed(void *arg)
{
	struct bench *bench = arg;
	emu_set_cut(bench->emu, EMU_CUT_NONE, 0);
	return 0;
}

MAY_WAIT static void power_cut(struct bench *bench)
{
	struct nvme_completion completion;
	write_all(bench);
	bench->hold = true;
	bench_submit(bench, 1, bench_command(NVME_CMD_FLUSH, 1));
	fiber_sleep(1000);
	bench->hold = false;
	bench_unhold(bench);
	bench_power_cut(bench);
	assert_true(emu_plugged(bench->emu));
	assert_false(nvme_transport_gone(bench->transport));
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CC), 0);
	assert_int_equal(nvme_read32(bench->transport, NVME_REG_CSTS), 0);
	assert_true(nvme_read32(bench->transport, NVME_REG_CAP) != 0);
	assert_false(bench_wait(bench, 1, &completion, NS_PER_MS));
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 0, 1, 7, 0), 0);
	bench_on_model(bench, cut_other_seed);
	bench_power_cut(bench);
	assert_int_equal(bench->durable[0], 7);
}

static void test_a_power_cut_while_plugged_in(void **state) { bench_test(&cached, power_cut); }

/* ---- lies, zeroes, errors ---- */

MAY_WAIT static void lies(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 1, 1, 1, NVME_RW_FUA), 0);
	assert_int_equal(bench_write(bench, 2, 1, 2, 0), 0);
	assert_int_equal(bench_flush(bench), 0);
	assert_int_equal(bench_read(bench, 2), 2);
	assert_int_equal(bench->writes, 0);
	assert_int_equal(bench->flushes, 0);
	assert_int_equal(bench_flush(bench), 0);
	assert_int_equal(bench->durable[2 * BLOCK], 2);
	assert_int_equal(emu_get_rule(bench->emu, 0)->hits, 1);
	assert_int_equal(emu_get_rule(bench->emu, 1)->hits, 1);
	assert_null(emu_get_rule(bench->emu, 2));
}

static void test_a_drive_that_lies_about_flush_and_fua(void **state)
{
	const struct emu_rule flush = {.opcode = NVME_CMD_FLUSH, .action = EMU_RULE_LIE, .count = 1};
	const struct emu_rule write = {.opcode = NVME_CMD_WRITE, .action = EMU_RULE_LIE, .count = 1};
	bench_test(&(struct emu_options){.cache_bytes = MIB(1), .rules = {flush, write}, .rule_count = 2}, lies);
}

MAY_WAIT static void short_zeroes(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 1, 2, 1, 0), 0);
	assert_int_equal(bench_flush(bench), 0);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_WRITE_ZEROES, 1, 1, NULL), NULL), 0);
	assert_int_equal(bench_read(bench, 1), 0);
	assert_int_equal(bench->zeroes, 0);
	bench_power_cut(bench);
	bench_bring_up(bench);
	assert_int_equal(bench_read(bench, 1), 1);
	struct nvme_command all = bench_rw(NVME_CMD_WRITE_ZEROES, 0, 1024, NULL);
	assert_int_equal(bench_write(bench, 2, 1, 2, 0), 0);
	assert_int_equal(bench_do(bench, 1, all, NULL), 0);
	assert_int_equal(bench->zeroes, 1);
	assert_int_equal(bench_read(bench, 2), 0);
	all.cdw12 = le32_set(1023 | NVME_WRITE_ZEROES_DEAC);
	assert_int_equal(bench_do(bench, 1, all, NULL), 0);
	assert_int_equal(bench->discards, 1);
}

static void test_short_zeroes_are_volatile_long_ones_go_to_the_medium(void **state) { bench_test(&cached, short_zeroes); }

MAY_WAIT static void write_back_errors(struct bench *bench)
{
	bench_bring_up(bench);
	assert_int_equal(bench_write(bench, 1, 1, 1, 0), 0);
	bench->error_op = EMU_WRITE;
	bench->error = -EILSEQ;
	assert_int_equal(bench_flush(bench), NVME_SC_WRITE_FAULT);
	assert_int_equal(bench_write(bench, 2, 1, 2, NVME_RW_FUA), NVME_SC_WRITE_FAULT);
	assert_int_equal(bench_read(bench, 1), 1);
	struct nvme_command all = bench_rw(NVME_CMD_WRITE_ZEROES, 0, 1000, NULL);
	assert_int_equal(bench_do(bench, 1, all, NULL), NVME_SC_WRITE_FAULT);
	bench->error_op = EMU_READ;
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, 1, 2, bench_page(bench, 2)), NULL), NVME_SC_INVALID_FIELD);
	assert_int_equal(bench_do(bench, 1, bench_rw(NVME_CMD_READ, 9, 1, bench_page(bench, 2)), NULL),
		NVME_SC_UNRECOVERED_READ);
	bench->error_op = EMU_WRITE;
	bench->error = -ENOSPC;
	uint16_t status = 0;
	for (unsigned i = 0; i < 32 && !status; i++)
		status = bench_write(bench, i, 1, (uint8_t)(100 + i), 0);
	assert_int_equal(status, NVME_SC_CAPACITY_EXCEEDED);
	bench->error = 0;
	assert_int_equal(bench_flush(bench), 0);
	assert_int_equal(bench->durable[1 * BLOCK], 101);
	for (unsigned i = 0; i < 32; i++)
		assert_int_equal(bench_write(bench, i, 1, (uint8_t)(50 + i), 0), 0);
	bench->error = -EIO;
	bench_pull(bench);
	bench->error = 0;
}

static void test_a_write_back_that_fails_keeps_the_data_and_tells(void **state)
{
	bench_test(&(struct emu_options){.cache_bytes = KIB(64), .cut = EMU_CUT_NONE}, write_back_errors);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_writes_stay_in_the_cache_until_a_flush),
		cmocka_unit_test(test_a_full_cache_evicts_without_a_flush),
		cmocka_unit_test(test_small_blocks_are_kept_one_by_one),
		cmocka_unit_test(test_fua_makes_its_own_blocks_durable_and_no_others),
		cmocka_unit_test(test_fua_without_a_cache_flushes_the_medium),
		cmocka_unit_test(test_turning_the_cache_off_makes_everything_durable),
		cmocka_unit_test(test_without_a_volatile_cache_every_write_is_durable),
		cmocka_unit_test(test_a_cut_that_takes_everything),
		cmocka_unit_test(test_a_drive_with_capacitors_loses_nothing),
		cmocka_unit_test(test_a_random_cut_takes_a_part_that_the_seed_decides),
		cmocka_unit_test(test_a_random_cut_in_whole_blocks),
		cmocka_unit_test(test_a_power_cut_while_plugged_in),
		cmocka_unit_test(test_a_drive_that_lies_about_flush_and_fua),
		cmocka_unit_test(test_short_zeroes_are_volatile_long_ones_go_to_the_medium),
		cmocka_unit_test(test_a_write_back_that_fails_keeps_the_data_and_tells),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
