/* SPDX-License-Identifier: BSD-3-Clause */
/* The table of lookup counts against a plain array: random additions and removals, of numbers that crowd together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/inode_internal.h"

enum { NUMBERS = 5000, STEPS = 200000 };

static uint64_t next_random(uint64_t *state)
{
	uint64_t z = (*state += 0x9e3779b97f4a7c15ull);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	return z ^ (z >> 27);
}

/* As inode numbers are: slots of neighbouring blocks, in a few AGs. */
static uint64_t number(unsigned i) { return ((uint64_t)(i % 7) << 24) + (i / 7 % 15) + (uint64_t)(i / 105 + 1) * 16; }

static void check_all(const struct lookup_table *table, const uint64_t *counts)
{
	uint64_t used = 0;
	for (unsigned i = 0; i < NUMBERS; i++) {
		const struct lookup_entry *entry = lookup_table_find(table, number(i));
		assert_int_equal(entry ? entry->count : 0, counts[i]);
		used += counts[i] > 0;
	}
	assert_int_equal(table->used, used);
	assert_true(table->used < MAX(table->capacity, 1u));
}

static void test_random_changes_match_an_array(void **state)
{
	struct lookup_table table = {0};
	uint64_t *counts = calloc(NUMBERS, sizeof(*counts)), random = 1;
	for (unsigned step = 0; step < STEPS; step++) {
		const unsigned i = (unsigned)(next_random(&random) % NUMBERS);
		/* First more come than go, then the other way round, so that it grows and shrinks. */
		const bool adds = next_random(&random) % 4 < (step < STEPS / 2 ? 3u : 1u);
		if (adds) {
			assert_int_equal(lookup_table_add(&table, number(i), 1 + i % 3), 0);
			counts[i] += 1 + i % 3;
		} else if (counts[i]) {
			lookup_table_remove(&table, lookup_table_find(&table, number(i)));
			counts[i] = 0;
		}
		if (step % 5000 == 0)
			check_all(&table, counts);
	}
	check_all(&table, counts);
	for (unsigned i = 0; i < NUMBERS; i++)
		if (counts[i])
			lookup_table_remove(&table, lookup_table_find(&table, number(i)));
	assert_int_equal(table.used, 0);
	assert_true(table.capacity <= 256);
	free(table.entries);
	free(counts);
}

static void test_reserved_places_are_there(void **state)
{
	struct lookup_table table = {0};
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(lookup_table_reserve(&table), 0);
	const uint64_t capacity = table.capacity;
	for (unsigned i = 0; i < 1000; i++) {
		table.reserved--;
		assert_int_equal(lookup_table_add(&table, number(i), 1), 0);
	}
	assert_int_equal(table.capacity, capacity);
	free(table.entries);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_changes_match_an_array),
		cmocka_unit_test(test_reserved_places_are_there),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
