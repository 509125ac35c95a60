/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: DMA memory without EAL: aligned, zeroed when asked, everything counts as mapped; pools hand out each buffer
 * once, up to their limit, and do not touch what they have not handed out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/memory.h"

static void test_alignment_is_kept(void **state)
{
	for (size_t align = 64; align <= 64 << 10; align *= 2) {
		void *buffer = dma_alloc(align / 2 + 1, align);
		assert_non_null(buffer);
		assert_int_equal((uintptr_t)buffer % align, 0);
		dma_free(buffer);
	}
	dma_free(NULL);
}

static void test_zalloc_zeroes(void **state)
{
	enum { SIZE = 9000 };
	static const char zeroes[SIZE];
	void *used = dma_alloc(SIZE, 4096);
	memset(used, 0xab, SIZE);
	dma_free(used);
	void *buffer = dma_zalloc(SIZE, 4096);
	assert_memory_equal(buffer, zeroes, SIZE);
	dma_free(buffer);
}

static void test_without_eal_everything_is_mapped(void **state)
{
	const struct memory_options none = {0};
	char local;
	assert_int_equal(memory_init(&none), 0);
	assert_false(memory_has_eal());
	assert_false(memory_has_hugepages());
	assert_true(dma_is_mapped(&local, 1));
	assert_int_equal(dma_iova(&local), (uintptr_t)&local);
}

static void test_a_pool_gives_each_buffer_once(void **state)
{
	enum { COUNT = 700 };
	struct dma_pool *pool;
	static char *buffers[COUNT];
	assert_int_equal(dma_pool_create(4000, 4096, COUNT, &pool), 0);
	assert_int_equal(dma_pool_free_count(pool), COUNT);
	for (unsigned i = 0; i < COUNT; i++) {
		buffers[i] = dma_pool_get(pool);
		assert_non_null(buffers[i]);
		assert_int_equal((uintptr_t)buffers[i] % 4096, 0);
		memset(buffers[i], (int)i, 4000);
	}
	assert_null(dma_pool_get(pool));
	assert_int_equal(dma_pool_free_count(pool), 0);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal((unsigned char)buffers[i][0], i & 255);
		assert_int_equal((unsigned char)buffers[i][3999], i & 255);
		dma_pool_put(pool, buffers[i]);
	}
	assert_int_equal(dma_pool_free_count(pool), COUNT);
	assert_non_null(dma_pool_get(pool)); /* destroyed while it is out */
	dma_pool_destroy(pool);
}

static long resident_pages(void)
{
	long total, resident = 0;
	FILE *file = fopen("/proc/self/statm", "r");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%ld %ld", &total, &resident), 2);
	fclose(file);
	return resident;
}

static void test_a_big_pool_costs_nothing_before_it_is_used(void **state)
{
	struct dma_pool *pool;
	const long before = resident_pages();
	assert_int_equal(dma_pool_create(1 << 20, 4096, 4096, &pool), 0); /* 4 GiB */
	void *buffer = dma_pool_get(pool);
	assert_non_null(buffer);
	assert_true(resident_pages() - before < 2048); /* 8 MiB */
	dma_pool_put(pool, buffer);
	dma_pool_destroy(pool);
}

static void test_a_buffer_bigger_than_a_slab_is_fine(void **state)
{
	struct dma_pool *pool;
	assert_int_equal(dma_pool_create(3 << 20, 4096, 2, &pool), 0);
	char *first = dma_pool_get(pool), *second = dma_pool_get(pool);
	assert_true(first && second && !dma_pool_get(pool));
	first[0] = first[(3 << 20) - 1] = 1;
	second[0] = second[(3 << 20) - 1] = 2;
	assert_int_equal(first[0], 1);
	dma_pool_put(pool, first);
	dma_pool_put(pool, second);
	dma_pool_destroy(pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_alignment_is_kept),
		cmocka_unit_test(test_zalloc_zeroes),
		cmocka_unit_test(test_without_eal_everything_is_mapped),
		cmocka_unit_test(test_a_pool_gives_each_buffer_once),
		cmocka_unit_test(test_a_big_pool_costs_nothing_before_it_is_used),
		cmocka_unit_test(test_a_buffer_bigger_than_a_slab_is_fine),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
