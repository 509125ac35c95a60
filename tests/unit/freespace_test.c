/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The free-run tree against a bitmap: random adds, removals and takes, the same on both, compared run by run; and the
 * choice that freespace_take makes, against a plain search of the bitmap.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/freespace.h"

enum { BLOCKS = 3000, ROUNDS = 60000 };

struct model {
	bool free[BLOCKS + 1];          /* the last one stays false */
	uint64_t random;
};

static uint32_t model_random(struct model *model, uint32_t below)
{
	model->random ^= model->random << 13;
	model->random ^= model->random >> 7;
	model->random ^= model->random << 17;
	return (uint32_t)(model->random >> 11) % below;
}

static uint32_t model_run(const struct model *model, uint32_t start)
{
	uint32_t count = 0;
	while (model->free[start + count])
		count++;
	return count;
}

static bool model_starts(const struct model *model, uint32_t block)
{
	return model->free[block] && (!block || !model->free[block - 1]);
}

static bool model_choose(const struct model *model, const struct freespace_wish *wish, uint32_t *out)
{
	uint32_t largest = 0, at = 0;

	if (wish->goal < BLOCKS && model_run(model, wish->goal) >= wish->min) {
		*out = wish->goal;
		return true;
	}
	for (uint32_t i = 0; i < 2 * BLOCKS; i++) {
		const uint32_t block = i < BLOCKS ? i : i - BLOCKS;
		const bool wrapped_or_behind = i >= BLOCKS || block >= wish->goal;
		if (wrapped_or_behind && model_starts(model, block) && model_run(model, block) >= wish->want) {
			*out = block;
			return true;
		}
	}
	for (uint32_t block = 0; block < BLOCKS; block++) {
		if (model_starts(model, block) && model_run(model, block) > largest) {
			largest = model_run(model, block);
			at = block;
		}
	}
	*out = at;
	return largest >= wish->min;
}

static void model_compare(const struct model *model, const struct freespace *space)
{
	uint32_t start, count, from = 0, total = 0, largest = 0;

	assert_null(freespace_check(space));
	for (uint32_t block = 0; block < BLOCKS; block++) {
		if (!model_starts(model, block))
			continue;
		assert_true(freespace_next(space, from, &start, &count));
		assert_int_equal(start, block);
		assert_int_equal(count, model_run(model, block));
		total += count;
		largest = MAX(largest, count);
		from = start + count;
	}
	assert_false(freespace_next(space, from, &start, &count));
	assert_int_equal(freespace_total(space), total);
	assert_int_equal(freespace_largest(space), largest);
}

static void random_step(struct model *model, struct freespace *space)
{
	const uint32_t at = model_random(model, BLOCKS);
	const uint32_t length = 1 + model_random(model, model_random(model, 4) ? 6 : 60);

	switch (model_random(model, 3)) {
	case 0: {
		uint32_t count = 0;
		while (count < length && at + count < BLOCKS && !model->free[at + count])
			count++;
		if (count)
			assert_int_equal(freespace_add(space, at, count), 0);
		memset(model->free + at, true, count);
		break;
	}
	case 1: {
		const uint32_t count = MIN(length, model_run(model, at));
		assert_int_equal(freespace_contains(space, at, length), count == length);
		if (count)
			assert_int_equal(freespace_remove(space, at, count), 0);
		memset(model->free + at, false, count);
		break;
	}
	default: {
		const struct freespace_wish wish = {.goal = at, .want = length, .min = 1 + model_random(model, length)};
		uint32_t expected, start, count;
		const bool found = model_choose(model, &wish, &expected);
		assert_int_equal(freespace_take(space, &wish, &start, &count), found);
		if (!found)
			break;
		assert_int_equal(start, expected);
		assert_int_equal(count, MIN(wish.want, model_run(model, start)));
		memset(model->free + start, false, count);
	}
	}
}

static void test_random_changes_match_a_bitmap(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	struct freespace_pool pool;
	struct freespace space;

	model->random = 88172645463325252ull;
	freespace_pool_init(&pool);
	freespace_init(&space, &pool);
	for (unsigned i = 0; i < ROUNDS; i++) {
		random_step(model, &space);
		if (i % 64 == 0)
			model_compare(model, &space);
	}
	model_compare(model, &space);
	const size_t nodes = pool.free_count + space.runs;
	freespace_clear(&space);
	assert_int_equal(pool.free_count, nodes);
	assert_int_equal(freespace_total(&space), 0);
	freespace_pool_fini(&pool);
	free(model);
}

static bool take(struct freespace *space, struct freespace_wish wish, uint32_t *start, uint32_t *count)
{
	return freespace_take(space, &wish, start, count);
}

static void test_goal_is_continued_before_anything_else(void **state)
{
	struct freespace_pool pool;
	struct freespace space;
	uint32_t start, count;

	freespace_pool_init(&pool);
	freespace_init(&space, &pool);
	assert_int_equal(freespace_add(&space, 100, 50), 0);
	assert_int_equal(freespace_add(&space, 200, 500), 0);
	assert_true(take(&space, (struct freespace_wish){140, 64, 8}, &start, &count));
	assert_int_equal(start, 140);
	assert_int_equal(count, 10);
	assert_true(take(&space, (struct freespace_wish){150, 64, 8}, &start, &count));
	assert_int_equal(start, 200);
	assert_int_equal(count, 64);
	assert_true(take(&space, (struct freespace_wish){900, 1000, 8}, &start, &count));
	assert_int_equal(start, 264);
	assert_int_equal(count, 436);
	assert_false(take(&space, (struct freespace_wish){0, 1000, 41}, &start, &count));
	freespace_pool_fini(&pool);
}

static void test_many_runs_stay_balanced(void **state)
{
	struct freespace_pool pool;
	struct freespace space;

	freespace_pool_init(&pool);
	freespace_init(&space, &pool);
	for (uint32_t i = 0; i < 1u << 19; i++)
		assert_int_equal(freespace_add(&space, 2 * i, 1), 0);
	assert_null(freespace_check(&space));
	assert_true(space.root->height <= 20);
	for (uint32_t i = 0; i + 1 < 1u << 19; i++)
		assert_int_equal(freespace_add(&space, 2 * i + 1, 1), 0);
	assert_int_equal(space.runs, 1);
	assert_null(freespace_check(&space));
	freespace_pool_fini(&pool);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_changes_match_a_bitmap),
		cmocka_unit_test(test_goal_is_continued_before_anything_else),
		cmocka_unit_test(test_many_runs_stay_balanced),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
