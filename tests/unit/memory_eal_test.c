/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: DMA memory with EAL: it starts (with or without hugepages, with or without root), starts once, memory from it
 * is mapped and other memory is not, a mapper is told of all of it, and reactors run beside it.
 * Method: a process of its own, because EAL can be started once per process. With the argument "physical" it starts
 * with physical addresses (as root, with hugepages).
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "reactor/dma_map.h"
#include "reactor/fiber.h"
#include "reactor/log.h"
#include "reactor/memory.h"

static struct memory_options with_eal = {.use_eal = true, .need_mib = 64};
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

static void test_physical_addresses_are_demanded_in_vain(void **state)
{
	const struct memory_options options = {.use_eal = true, .physical = true};
	if (memory_has_eal())
		skip(); /* this machine has hugepages */
	log_set_sink(drop_line, NULL);
	const int error = memory_init(&options);
	log_set_sink(NULL, NULL);
	assert_true(error == -ENODEV || error == -EPERM);
	assert_false(memory_has_eal() || memory_is_physical());
}

static void test_a_mapper_needs_eal(void **state)
{
	struct dma_mapper mapper = {0};
	if (!memory_has_eal())
		assert_int_equal(dma_mapper_add(&mapper), -ENOTSUP);
}

static void test_eal_starts_once(void **state)
{
	if (!memory_has_eal())
		assert_int_equal(memory_init(&with_eal), 0);
	assert_true(memory_has_eal());
	assert_int_equal(memory_is_physical(), with_eal.physical);
	log_set_sink(drop_line, NULL);
	assert_int_equal(memory_init(&with_eal), -EALREADY);
	log_set_sink(NULL, NULL);
}

/* VFIO pins all of it when a device is opened; whoever takes a mount over opens it while everybody waits. */
static void test_memory_that_devices_will_pin_is_there_from_the_start(void **state)
{
	enum { SIZE = 16 << 20, PAGE = 4096 };
	static unsigned char pages[SIZE / PAGE];
	if (memory_has_hugepages())
		skip(); /* those come as they are asked for */
	char *buffer = dma_alloc(SIZE, PAGE);
	assert_non_null(buffer);
	assert_int_equal(mincore(buffer, SIZE, pages), 0);
	for (unsigned i = 0; i < SIZE / PAGE; i++)
		assert_true(pages[i] & 1);
	dma_free(buffer);
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
	assert_false(dma_is_mapped(buffer, SIZE_MAX / 2));
	assert_int_equal(dma_iova(&local), UINT64_MAX);
	assert_int_equal(dma_iova(NULL), UINT64_MAX);
	if (!with_eal.physical)
		assert_int_equal(dma_iova(buffer), (uintptr_t)buffer);
	dma_free(buffer);
}

static void test_a_ring_is_contiguous_for_a_device(void **state)
{
	enum { COUNT = 200, STEP = 4096 };
	static char *rings[COUNT];
	for (unsigned i = 0; i < COUNT; i++) {
		const size_t size = i % 2 ? DMA_CONTIGUOUS_BYTES_MAX : 20000;
		rings[i] = dma_alloc(size, 4096);
		assert_non_null(rings[i]);
		for (size_t at = 0; at < size; at += STEP)
			assert_int_equal(dma_iova(rings[i] + at), dma_iova(rings[i]) + at);
	}
	for (unsigned i = 0; i < COUNT; i++)
		dma_free(rings[i]);
}

/* ---- a mapper that remembers where it has mapped ---- */
struct recorder {
	struct dma_mapper mapper;
	uint64_t bytes;
	int answer;
	const char *watched;
	unsigned watched_count;
};

static int record_map(struct dma_mapper *mapper, void *address, uint64_t iova, size_t size)
{
	struct recorder *recorder = CONTAINER_OF(mapper, struct recorder, mapper);
	if (recorder->answer)
		return recorder->answer;
	assert_int_equal((uintptr_t)address % 4096, 0);
	assert_int_equal(iova, dma_iova(address));
	recorder->bytes += size;
	const char *start = address;
	recorder->watched_count += recorder->watched >= start && recorder->watched < start + size;
	return 0;
}

static void record_unmap(struct dma_mapper *mapper, uint64_t iova, size_t size)
{
	CONTAINER_OF(mapper, struct recorder, mapper)->bytes -= size;
}

static void test_a_mapper_is_told_of_all_memory(void **state)
{
	enum { BIG = 24 << 20 };
	char *early = dma_alloc(4096, 4096);
	struct recorder recorder = {.mapper = {.map = record_map, .unmap = record_unmap}, .watched = early};
	assert_int_equal(dma_mapper_add(&recorder.mapper), 0);
	assert_int_equal(recorder.bytes, dma_mapped_bytes());
	assert_int_equal(recorder.watched_count, 1);
	char *late = dma_alloc(BIG, 4096);
	assert_non_null(late);
	assert_int_equal(recorder.bytes, dma_mapped_bytes());
	assert_true(recorder.bytes > BIG);
	dma_free(late);
	assert_int_equal(recorder.bytes, dma_mapped_bytes());
	dma_mapper_remove(&recorder.mapper);
	const uint64_t then = recorder.bytes;
	dma_free(dma_alloc(BIG, 4096));
	assert_int_equal(recorder.bytes, then);
	dma_free(early);
}

static void test_a_mapper_that_refuses_is_not_added(void **state)
{
	struct recorder recorder = {.mapper = {.map = record_map, .unmap = record_unmap}, .answer = -ENOMEM};
	assert_int_equal(dma_mapper_add(&recorder.mapper), -ENOMEM);
	void *buffer = dma_alloc(24 << 20, 4096);
	assert_non_null(buffer);
	dma_free(buffer);
}

static void test_a_refused_page_is_not_handed_out(void **state)
{
	enum { BIG = 160 << 20, SMALL = 2 << 20, ROUNDS = 100 };
	struct recorder recorder = {.mapper = {.map = record_map, .unmap = record_unmap}};
	struct recorder other = recorder;
	if (!memory_has_hugepages())
		skip(); /* nothing grows without them */
	assert_int_equal(dma_mapper_add(&recorder.mapper), 0);
	assert_int_equal(dma_mapper_add(&other.mapper), 0);
	log_set_sink(drop_line, NULL);
	recorder.answer = -ENOMEM;
	for (unsigned i = 0; i < ROUNDS; i++)
		assert_null(dma_alloc(i == 0 ? BIG : SMALL, 4096));
	log_set_sink(NULL, NULL);
	recorder.answer = 0;
	void *buffer = dma_alloc(SMALL, 4096);
	assert_non_null(buffer);
	dma_free(buffer);
	dma_mapper_remove(&other.mapper);
	dma_mapper_remove(&recorder.mapper);
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

int main(int argc, char **argv)
{
	plain = dma_alloc(4096, 4096);
	with_eal.physical = argc > 1 && !strcmp(argv[1], "physical");
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hugepages_are_demanded_in_vain),
		cmocka_unit_test(test_a_mapper_needs_eal),
		cmocka_unit_test(test_physical_addresses_are_demanded_in_vain),
		cmocka_unit_test(test_eal_starts_once),
		cmocka_unit_test(test_memory_that_devices_will_pin_is_there_from_the_start),
		cmocka_unit_test(test_dma_memory_is_mapped_and_other_memory_is_not),
		cmocka_unit_test(test_a_ring_is_contiguous_for_a_device),
		cmocka_unit_test(test_a_mapper_is_told_of_all_memory),
		cmocka_unit_test(test_a_mapper_that_refuses_is_not_added),
		cmocka_unit_test(test_a_refused_page_is_not_handed_out),
		cmocka_unit_test(test_memory_from_before_eal_can_be_freed),
		cmocka_unit_test(test_the_heap_has_an_end),
		cmocka_unit_test(test_pools_take_eal_memory),
		cmocka_unit_test(test_reactors_allocate_beside_each_other),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
