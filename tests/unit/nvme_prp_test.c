/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: PRPs describe exactly the pages of a request, whatever its shape, and a shape that they cannot describe is
 * refused instead of sent. Method: every kind of shape is built and read back by the rules of the specification, with
 * IOVAs that are nowhere contiguous and a list full of stale entries.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "nvme/nvme_internal.h"
#include "reactor/memory.h"

enum { PAGES = PRP_LIST_ENTRIES + 2 };
#define LIST_IOVA 0x123456000ull
#define STALE 0xdddddddddddddddull

static uint8_t *memory;
static struct tracker tracker;
static struct nvme_command command;
static uintptr_t unmapped; /* this page has no IOVA */

/* Neighbours are far apart, and the other way round. */
static uint64_t scattered(const void *at)
{
	const uintptr_t page = ((uintptr_t)at - (uintptr_t)memory) / PAGE_BYTES;
	return (0x40000 - page * 3) * PAGE_BYTES + (uintptr_t)at % PAGE_BYTES;
}

uint64_t __wrap_dma_iova(const void *at);
uint64_t __wrap_dma_iova(const void *at)
{
	return (uintptr_t)at / PAGE_BYTES == unmapped / PAGE_BYTES ? UINT64_MAX : scattered(at);
}

static int setup(void **state)
{
	memory = dma_alloc((size_t)PAGES * PAGE_BYTES, PAGE_BYTES);
	tracker.list = dma_alloc(PAGE_BYTES, PAGE_BYTES); /* a page of its own: what is written behind it is seen */
	tracker.list_iova = LIST_IOVA;
	unmapped = 0;
	return memory && tracker.list ? 0 : -1;
}

static int teardown(void **state)
{
	dma_free(memory);
	dma_free(tracker.list);
	return 0;
}

static int build(const struct iovec *iov, unsigned count, size_t length)
{
	const struct nvme_request request = {.iov = iov, .iov_count = count, .length = (uint32_t)length};
	for (unsigned i = 0; i < PRP_LIST_ENTRIES; i++)
		tracker.list[i] = le64_set(STALE);
	command = (struct nvme_command){.prp1 = le64_set(STALE), .prp2 = le64_set(STALE)};
	return prp_build(&tracker, &request, &command);
}

/* The IOVA of the @number-th page of @length bytes, as a controller finds it. */
static uint64_t controller_page(unsigned number, size_t length)
{
	const size_t first = PAGE_BYTES - le64_get(command.prp1) % PAGE_BYTES;
	if (number == 0)
		return le64_get(command.prp1);
	if (length <= first + PAGE_BYTES)
		return le64_get(command.prp2);
	assert_int_equal(le64_get(command.prp2), LIST_IOVA);
	assert_in_range(number, 1, PRP_LIST_ENTRIES);
	return le64_get(tracker.list[number - 1]);
}

static void expect(const struct iovec *iov, unsigned count, size_t length)
{
	unsigned number = 0;
	assert_int_equal(build(iov, count, length), 0);
	for (unsigned i = 0; i < count; i++)
		for (size_t done = 0; done < iov[i].iov_len; number++) {
			const uint8_t *at = (uint8_t *)iov[i].iov_base + done;
			if (controller_page(number, length) != scattered(at))
				fail_msg("page %u of %zu bytes at offset %zu", number, length, (size_t)iov[0].iov_base % PAGE_BYTES);
			done += PAGE_BYTES - (uintptr_t)at % PAGE_BYTES;
		}
	/* Nothing beyond is named. */
	if (number == 1)
		assert_int_equal(le64_get(command.prp2), 0);
	for (unsigned i = number > 2 ? number - 1 : PRP_LIST_ENTRIES; i < PRP_LIST_ENTRIES; i++)
		assert_int_equal(le64_get(tracker.list[i]), STALE);
}

static void expect_one(size_t offset, size_t length)
{
	const struct iovec iov = {.iov_base = memory + offset, .iov_len = length};
	expect(&iov, 1, length);
}

/* ---- what can be described ---- */

static void test_every_offset_and_length_of_up_to_three_pages(void **state)
{
	for (size_t offset = 0; offset < PAGE_BYTES; offset += 4)
		for (size_t end = offset + 512; end <= 3 * PAGE_BYTES; end += 508)
			expect_one(offset, end - offset);
}

static void test_every_count_of_pages(void **state)
{
	const size_t offsets[] = {0, 4, 512, 2048, 4092};
	for (size_t pages = 1; pages <= PRP_LIST_ENTRIES + 1; pages++)
		for (unsigned i = 0; i < ARRAY_SIZE(offsets); i++) {
			expect_one(offsets[i], pages * PAGE_BYTES - offsets[i]);
			if (pages > 1)
				expect_one(offsets[i], pages * PAGE_BYTES - offsets[i] - 2048);
		}
}

static void test_the_largest_transfer_fits_at_every_offset(void **state)
{
	for (size_t offset = 0; offset < PAGE_BYTES; offset += 4)
		expect_one(offset, TRANSFER_BYTES_MAX);
}

static void test_vectors_that_join_on_pages(void **state)
{
	struct iovec iov[64];
	uint64_t random = 1;
	for (unsigned round = 0; round < 2000; round++) {
		const unsigned count = 1 + round % ARRAY_SIZE(iov);
		size_t length = 0;
		for (unsigned i = 0; i < count; i++) {
			random = random * 6364136223846793005ull + 1442695040888963407ull;
			const size_t offset = i == 0 ? (random >> 40) % 1024 * 4 : 0, cut = i + 1 == count ? (random >> 30) % 1000 * 4 : 0;
			const size_t page = (random >> 50) % (PAGES - 8), pages = 2 + (random >> 60) % 6;
			iov[i] = (struct iovec){.iov_base = memory + page * PAGE_BYTES + offset,
				.iov_len = pages * PAGE_BYTES - offset - cut};
			length += iov[i].iov_len;
		}
		expect(iov, count, length);
	}
}

static void test_range_of_a_deallocate_is_the_page_of_the_tracker(void **state)
{
	const struct nvme_request request = {.dsm_blocks = 77, .dsm_lba = 0x123456789a};
	command = (struct nvme_command){.prp1 = le64_set(STALE)};
	assert_int_equal(prp_build(&tracker, &request, &command), 0);
	assert_int_equal(le64_get(command.prp1), LIST_IOVA);
	const struct nvme_dsm_range *range = (const struct nvme_dsm_range *)tracker.list;
	assert_int_equal(le32_get(range->blocks), 77);
	assert_int_equal(le64_get(range->first_lba), 0x123456789a);
	assert_int_equal(le32_get(range->attributes), 0);
}

static void test_a_command_without_data_keeps_what_its_caller_set(void **state)
{
	const struct nvme_request request = {.length = 0};
	command = (struct nvme_command){.prp1 = le64_set(0x1000), .prp2 = le64_set(0x2000)};
	assert_int_equal(prp_build(&tracker, &request, &command), 0);
	assert_int_equal(le64_get(command.prp1), 0x1000);
	assert_int_equal(le64_get(command.prp2), 0x2000);
}

/* ---- what cannot ---- */

static void test_shapes_that_cannot_be_described_are_refused(void **state)
{
	const struct iovec odd = {memory + 2, 512};
	assert_int_equal(build(&odd, 1, 512), -EINVAL);
	const struct iovec late_start[] = {{memory, PAGE_BYTES}, {memory + PAGE_BYTES + 512, 512}};
	assert_int_equal(build(late_start, 2, PAGE_BYTES + 512), -EINVAL);
	const struct iovec early_end[] = {{memory, 512}, {memory + PAGE_BYTES, PAGE_BYTES}};
	assert_int_equal(build(early_end, 2, PAGE_BYTES + 512), -EINVAL);
	const struct iovec hole[] = {{memory, PAGE_BYTES}, {memory + PAGE_BYTES, 512}, {memory + 2 * PAGE_BYTES, 512}};
	assert_int_equal(build(hole, 3, PAGE_BYTES + 1024), -EINVAL);
	assert_int_equal(build(NULL, 0, 512), -EINVAL);
	const struct iovec large = {memory, (size_t)(PRP_LIST_ENTRIES + 2) * PAGE_BYTES};
	assert_int_equal(build(&large, 1, large.iov_len), -EINVAL);
	const struct iovec shifted = {memory + 4, (size_t)(PRP_LIST_ENTRIES + 1) * PAGE_BYTES};
	assert_int_equal(build(&shifted, 1, shifted.iov_len), -EINVAL);
}

/* The controller goes by the command's length: with fewer pages than that it would take stale entries of the list. */
static void test_vectors_that_do_not_add_up_to_the_length_are_refused(void **state)
{
	const struct iovec iov[] = {{memory, PAGE_BYTES}, {memory + PAGE_BYTES, PAGE_BYTES}};
	assert_int_equal(build(iov, 2, 3 * PAGE_BYTES), -EINVAL);
	assert_int_equal(build(iov, 2, PAGE_BYTES), -EINVAL);
	assert_int_equal(build(iov, 2, 2 * PAGE_BYTES), 0);
}

static void test_memory_without_an_address_is_refused_wherever_it_lies(void **state)
{
	const struct iovec iov = {memory, 5 * PAGE_BYTES};
	for (unsigned i = 0; i < 5; i++) {
		unmapped = (uintptr_t)memory + i * PAGE_BYTES;
		assert_int_equal(build(&iov, 1, iov.iov_len), -EFAULT);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_offset_and_length_of_up_to_three_pages),
		cmocka_unit_test(test_every_count_of_pages),
		cmocka_unit_test(test_the_largest_transfer_fits_at_every_offset),
		cmocka_unit_test(test_vectors_that_join_on_pages),
		cmocka_unit_test(test_range_of_a_deallocate_is_the_page_of_the_tracker),
		cmocka_unit_test(test_a_command_without_data_keeps_what_its_caller_set),
		cmocka_unit_test(test_shapes_that_cannot_be_described_are_refused),
		cmocka_unit_test(test_vectors_that_do_not_add_up_to_the_length_are_refused),
		cmocka_unit_test(test_memory_without_an_address_is_refused_wherever_it_lies),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
