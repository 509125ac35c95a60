/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: DMA memory with EAL: it starts (with or without hugepages, with or without root), starts once, memory from it
 * is mapped and other memory is not, and reactors run beside it.
 * Method: a process of its own, because EAL can be started once per process.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "reactor/fiber.h"
#include "reactor/log.h"
#include "reactor/memory.h"

static const struct memory_options with_eal = {.use_eal = true, .limit_mib = 64};
static void *plain;

static void drop_line(enum log_level level, const char *line, void *arg) {}

static void test_hugepages_are_demanded_in_vain(void **state)
{
	struct memory_options options = with_eal;
	options.need_hugepages = true;
	log_set_sink(drop_line, NULL);
	const int error = memory_init(&options);
	log_set_sink(NULL, NULL);
	if (error == 0)
		skip(); /* this machine has some */
	assert_int_equal(error, -ENODEV);
	assert_false(memory_has_eal());
}

static void test_eal_starts_once(void **state)
{
	plain = dma_alloc(4096, 4096);
	if (!memory_has_eal())
		assert_int_equal(memory_init(&with_eal), 0);
	assert_true(memory_has_eal());
	log_set_sink(drop_line, NULL);
	assert_int_equal(memory_init(&with_eal), -EALREADY);
	log_set_sink(NULL, NULL);
}

static void test_dma_memory_is_mapped_and_other_memory_is_not(void **state)
{
	char *buffer = dma_zalloc(100000, 4096);
	char local;
	assert_non_null(buffer);
	assert_int_equal((uintptr_t)buffer % 4096, 0);
	assert_int_equal(buffer[99999], 0);
	assert_true(dma_is_mapped(buffer, 100000));
	assert_true(dma_iova(buffer) != UINT64_MAX);
	assert_int_equal(dma_iova(buffer + 5000), dma_iova(buffer) + 5000);
	assert_false(dma_is_mapped(&local, 1));
	assert_int_equal(dma_iova(&local), UINT64_MAX);
	dma_free(buffer);
}

static void test_memory_from_before_eal_can_be_freed(void **state)
{
	assert_false(dma_is_mapped(plain, 4096));
	dma_free(plain);
}

static void test_the_heap_has_an_end(void **state)
{
	assert_null(dma_alloc((size_t)1 << 50, 64));
}

static void test_pools_take_eal_memory(void **state)
{
	struct dma_pool *pool;
	assert_int_equal(dma_pool_create(4096, 4096, 1000, &pool), 0);
	char *buffer = dma_pool_get(pool);
	assert_true(dma_is_mapped(buffer, 4096));
	dma_pool_put(pool, buffer);
	dma_pool_destroy(pool);
}

static int allocate(void *arg)
{
	for (unsigned i = 0; i < 100; i++) {
		void *buffer = dma_alloc(8192, 4096);
		if (!buffer || !dma_is_mapped(buffer, 8192))
			return -1;
		fiber_yield();
		dma_free(buffer);
	}
	return 0;
}

static void test_reactors_allocate_beside_each_other(void **state)
{
	const struct reactor_options options = {.count = 3, .fiber_count = 8};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	assert_int_equal(reactor_group_start(group), 0);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(reactor_group_run(reactor_group_get(group, i), allocate, NULL), 0);
	reactor_group_destroy(group);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hugepages_are_demanded_in_vain),
		cmocka_unit_test(test_eal_starts_once),
		cmocka_unit_test(test_dma_memory_is_mapped_and_other_memory_is_not),
		cmocka_unit_test(test_memory_from_before_eal_can_be_freed),
		cmocka_unit_test(test_the_heap_has_an_end),
		cmocka_unit_test(test_pools_take_eal_memory),
		cmocka_unit_test(test_reactors_allocate_beside_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
