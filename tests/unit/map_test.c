/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extent maps against an array with one entry per block: random mapping of holes, conversion, replacement, punching and
 * truncation, with nodes so small that extents spread over many leaves and holes cross them. What map.h says is never
 * shortened is held against it; blocks that are in use and blocks that the map owns must be the same after every step.
 */
#include "tests/unit/fake_internal.h"

#include "fs/map.h"

enum { BLOCKS = 1200, NODE_BYTES = 7 * sizeof(struct disk_extent) };

struct model {
	struct inode *inode;
	uint64_t physical[BLOCKS];      /* 0: hole */
	bool unwritten[BLOCKS];
	uint64_t mapped;
};

/* A map change between inode_pin and inode_log, as operations use it. */
struct wrapped {
	struct change pin, log;
	struct map_change map;
};

static int wrapped_pin(struct tx_part *part, struct change *base)
{
	return inode_pin(part, CONTAINER_OF(base, struct wrapped, pin)->map.inode);
}

static void wrapped_nothing(struct tx_part *part, struct change *base)
{
}

static void wrapped_log(struct tx_part *part, struct change *base)
{
	inode_log(part, CONTAINER_OF(base, struct wrapped, log)->map.inode);
}

static int run_wrapped(struct wrapped *wrapped)
{
	struct tx *tx;
	int error = tx_begin(&fake.owner, MAP_CHANGE_BLOCKS, &tx);

	if (error)
		return error;
	wrapped->pin = (struct change){.prepare = wrapped_pin, .apply = wrapped_nothing};
	wrapped->log = (struct change){.apply = wrapped_log};
	tx_change(tx_home(tx), &wrapped->pin);
	tx_change(tx_home(tx), &wrapped->map.change);
	tx_change(tx_home(tx), &wrapped->log);
	error = tx_prepare(tx);
	if (!error)
		tx_apply(tx);
	tx_end(tx);
	return error;
}

/* ---- comparing ---- */

struct walk {
	const struct model *model;
	uint64_t next, blocks;
};

static bool could_join(const struct disk_extent *a, const struct disk_extent *b)
{
	return disk_extent_end(a) == le64_get(b->logical) && le32_get(a->flags) == le32_get(b->flags) &&
		le64_get(a->physical) + le32_get(a->length) == le64_get(b->physical);
}

static void walk_extents(const struct disk_extent *extents, unsigned count, uint64_t low, uint64_t high,
	struct walk *walk)
{
	for (unsigned i = 0; i < count; i++) {
		const struct disk_extent *extent = &extents[i];
		const uint64_t logical = le64_get(extent->logical);
		assert_true(logical >= low && disk_extent_end(extent) <= high && logical >= walk->next);
		for (uint64_t k = 0; k < le32_get(extent->length); k++) {
			assert_int_equal(walk->model->physical[logical + k], le64_get(extent->physical) + k);
			assert_int_equal(walk->model->unwritten[logical + k],
				le32_get(extent->flags) & EXTENT_UNWRITTEN);
			assert_true(fake_in_use(le64_get(extent->physical) + k));
		}
		walk->next = disk_extent_end(extent);
		walk->blocks += le32_get(extent->length);
		if (i)
			assert_false(could_join(extent - 1, extent));
	}
}

static void walk_leaf(const struct tree_node *leaf, uint64_t low, uint64_t high, void *arg)
{
	walk_extents((const struct disk_extent *)leaf->payload, le16_get(leaf->count), low, high, arg);
}

static void model_compare(const struct model *model)
{
	const struct disk_inode *disk = &model->inode->disk;
	struct walk walk = {.model = model};
	unsigned nodes = 0;

	if (disk->format == FORK_TREE)
		nodes = fake_tree_check(model->inode, BLOCK_EXTENT_NODE, walk_leaf, &walk);
	else
		walk_extents((const struct disk_extent *)disk->fork, le16_get(disk->fork_count), 0, UINT64_MAX, &walk);
	assert_int_equal(walk.blocks, model->mapped);
	assert_int_equal(le64_get(disk->blocks), model->mapped + nodes);
	assert_int_equal(fake.used_blocks, model->mapped + nodes);
}

/* What one would answer for @logical by looking at the array. */
static struct extent model_lookup(const struct model *model, uint64_t logical, uint64_t limit)
{
	struct extent extent = {.logical = logical, .physical = model->physical[logical]};

	extent.unwritten = model->unwritten[logical];

	while (extent.length < limit && logical + extent.length < BLOCKS) {
		const uint64_t at = logical + extent.length;
		if (model->physical[at] != (extent.physical ? extent.physical + extent.length : 0) ||
			model->unwritten[at] != extent.unwritten)
			break;
		extent.length++;
	}
	return extent;
}

/* Neighbouring extents that could be one may stand in two leaves; holes are never cut. */
static struct extent lookup_check(const struct model *model, uint64_t logical, uint64_t limit)
{
	const struct extent expected = model_lookup(model, logical, limit);
	struct extent found;

	assert_int_equal(map_lookup(model->inode, logical, limit, &found), 0);
	assert_int_equal(found.logical, logical);
	assert_int_equal(found.physical, expected.physical);
	assert_int_equal(found.unwritten, expected.unwritten);
	if (expected.physical || expected.length == limit || logical + expected.length < BLOCKS)
		assert_true(found.length == expected.length || (found.physical && found.length < expected.length));
	assert_true(found.length);
	return found;
}

/* ---- changing ---- */

static void model_set(struct model *model, const struct map_change *map)
{
	for (uint64_t i = 0; i < map->length && map->logical + i < BLOCKS; i++) {
		const uint64_t at = map->logical + i;
		model->mapped += (map->physical != 0) - (model->physical[at] != 0);
		model->physical[at] = map->physical ? map->physical + i : 0;
		model->unwritten[at] = map->physical && map->unwritten;
	}
}

/* Runs it, failing at the first, second, ... place at first if @failing. Returns the planned length. */
static uint64_t run_map(struct model *model, const struct map_change *wanted, bool failing)
{
	for (unsigned after = failing;; after++) {
		struct wrapped wrapped = {.map = *wanted};
		fake.fail_after = after;
		const int error = run_wrapped(&wrapped);
		const bool reached = after && !fake.fail_after;
		fake.fail_after = 0;
		assert_int_equal(error, reached ? -EIO : 0);
		if (error)
			continue;
		model_set(model, &wrapped.map);
		model_compare(model);
		assert_true(wrapped.map.length && wrapped.map.length <= wanted->length);
		return wrapped.map.length;
	}
}

static void step_map_hole(struct model *model, bool failing)
{
	struct map_change map;
	const uint64_t logical = fake_random(BLOCKS);
	const struct extent hole = lookup_check(model, logical, 1 + fake_random(fake_random(3) ? 8 : 100));
	const uint64_t length = MIN(hole.length, BLOCKS - logical);

	if (hole.physical)
		return;
	/* Now and then right behind the block in front, as a growing file would be. */
	uint64_t block = logical && model->physical[logical - 1] ? model->physical[logical - 1] + 1 : 0;
	bool grows = block && fake_random(2);
	for (uint64_t i = 0; i < length && grows; i++)
		grows = !fake_in_use(block + i) && ag_relative(&fake.fs, block + i) > ag_fixed_blocks(&fake.fs.super);
	block = grows ? fake_take_at(block, (uint32_t)length) : fake_take((uint32_t)length);
	map_change_init(&map, model->inode, logical, block, length, fake_random(3) == 0);
	assert_int_equal(run_map(model, &map, failing), length);
}

static void step_convert(struct model *model, bool failing)
{
	struct map_change map;
	const struct extent extent = lookup_check(model, fake_random(BLOCKS), 1 + fake_random(20));

	if (!extent.physical)
		return;
	map_change_init(&map, model->inode, extent.logical, extent.physical, extent.length, !extent.unwritten);
	assert_int_equal(run_map(model, &map, failing), extent.length);
}

static void step_replace(struct model *model)
{
	struct map_change map;
	const uint64_t logical = fake_random(BLOCKS);
	const uint64_t wanted = 1 + fake_random(30), length = MIN(wanted, BLOCKS - logical);
	const uint64_t block = fake_take((uint32_t)length);

	map_change_init(&map, model->inode, logical, block, length, fake_random(2));
	struct wrapped wrapped = {.map = map};
	assert_int_equal(run_wrapped(&wrapped), 0);
	/* Blocks past what was planned stay the caller's. */
	fake_give(block + wrapped.map.length, (uint32_t)(length - wrapped.map.length));
	model_set(model, &wrapped.map);
	model_compare(model);
}

static void step_punch(struct model *model, bool failing)
{
	uint64_t logical = fake_random(BLOCKS);
	const uint64_t wanted = logical + 1 + fake_random(80), end = MIN(wanted, BLOCKS);

	while (logical < end) {
		struct map_change map;
		map_change_init(&map, model->inode, logical, 0, end - logical, false);
		logical += run_map(model, &map, failing);
	}
}

static void step_truncate(struct model *model, bool failing)
{
	const uint64_t size = fake_random(4) ? BLOCKS - fake_random(100) : fake_random(BLOCKS);
	uint64_t logical, length;
	struct extent last;

	for (;;) {
		struct map_change map;
		const int error = map_tail(model->inode, size, &logical, &length);
		assert_true(!error || error == -ENOENT);
		if (error)
			break;
		map_change_init(&map, model->inode, logical, 0, length, false);
		assert_int_equal(run_map(model, &map, failing), length);
	}
	for (uint64_t i = size; i < BLOCKS; i++)
		assert_int_equal(model->physical[i], 0);
	if (!map_last(model->inode, &last))
		assert_true(last.logical + last.length <= size && model->physical[last.logical + last.length - 1]);
	else
		assert_int_equal(model->mapped, 0);
}

static void test_random_changes_match_an_array(void **state)
{
	struct model *model = calloc(1, sizeof(*model));

	fake_init(NODE_BYTES);
	model->inode = fake_inode(S_IFREG | 0644);
	for (unsigned i = 0; i < 16000; i++) {
		const bool failing = i % 20 == 0;
		const unsigned kind = fake_random(i / 2000 % 2 ? 12 : 40);
		if (kind == 0)
			step_truncate(model, failing);
		else if (kind <= 3)
			step_punch(model, failing);
		else if (kind <= 5)
			step_replace(model);
		else if (kind <= 8)
			step_convert(model, failing);
		else
			step_map_hole(model, failing);
		lookup_check(model, fake_random(BLOCKS), 1 + fake_random(2000));
	}
	fake_fini();
	free(model);
}

static void test_map_of_an_inline_file_replaces_its_bytes(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	struct map_change map;
	struct extent extent;

	fake_init(NODE_BYTES);
	model->inode = fake_inode(S_IFREG | 0644);
	model->inode->disk.format = FORK_INLINE;
	model->inode->disk.fork_bytes = 100;
	model->inode->disk.size = le64_set(100);
	memset(model->inode->disk.fork, 'x', 100);
	fake.logged[0] = model->inode->disk;
	assert_int_equal(map_lookup(model->inode, 0, 1, &extent), -EINVAL);
	map_change_init(&map, model->inode, 0, fake_take(1), 1, false);
	assert_int_equal(run_map(model, &map, false), 1);
	assert_int_equal(model->inode->disk.format, FORK_EXTENTS);
	assert_int_equal(model->inode->disk.fork_bytes, 0);
	lookup_check(model, 0, 1);
	fake_fini();
	free(model);
}

static void test_xattrs_in_the_fork_are_left_alone(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	uint8_t *xattrs;

	fake_init(FS_NODE_BYTES);
	model->inode = fake_inode(S_IFREG | 0644);
	model->inode->disk.xattr_bytes = 120;
	xattrs = model->inode->disk.fork + 8;
	xattrs[0] = XATTR_USER;
	xattrs[1] = 1;
	xattrs[4] = 104;
	xattrs[8] = 'n';
	memset(xattrs + 16, 'v', 104);
	fake.logged[0] = model->inode->disk;
	for (unsigned i = 0; i < 5; i++) {
		struct map_change map;
		map_change_init(&map, model->inode, 2 * i, fake_take(1), 1, false);
		run_map(model, &map, false);
		assert_int_equal(model->inode->disk.format, FORK_TREE);
		assert_int_equal(xattrs[119], 'v');
	}
	step_punch(model, false);
	fake_fini();
	free(model);
}

static void test_sequential_blocks_are_one_extent(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	const uint64_t blocks = 500;

	fake_init(NODE_BYTES);
	model->inode = fake_inode(S_IFREG | 0644);
	const uint64_t first = fake_take((uint32_t)blocks);
	fake_give(first, (uint32_t)blocks);
	for (uint64_t i = 0; i < blocks; i++) {
		struct map_change map;
		map_change_init(&map, model->inode, i, fake_take_at(first + i, 1), 1, false);
		run_map(model, &map, false);
	}
	assert_int_equal(model->inode->disk.format, FORK_EXTENTS);
	assert_int_equal(le16_get(model->inode->disk.fork_count), 1);
	fake_fini();
	free(model);
}

static void test_one_change_frees_a_bounded_number_of_runs(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	struct map_change map;
	uint64_t logical, length;

	fake_init(FS_NODE_BYTES);
	model->inode = fake_inode(S_IFREG | 0644);
	for (unsigned i = 0; i < 40; i++) {
		map_change_init(&map, model->inode, 2 * i, fake_take(1), 1, false);
		run_map(model, &map, false);
	}
	map_change_init(&map, model->inode, 1, 0, 1000, false);
	assert_int_equal(run_map(model, &map, true), 2 * MAP_FREE_RUNS_MAX + 1);
	assert_int_equal(map_tail(model->inode, 30, &logical, &length), 0);
	assert_int_equal(logical, 2 * (40 - MAP_FREE_RUNS_MAX));
	map_change_init(&map, model->inode, logical, 0, length, false);
	assert_int_equal(run_map(model, &map, false), length);
	fake_fini();
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_changes_match_an_array),
		cmocka_unit_test(test_map_of_an_inline_file_replaces_its_bytes),
		cmocka_unit_test(test_xattrs_in_the_fork_are_left_alone),
		cmocka_unit_test(test_sequential_blocks_are_one_extent),
		cmocka_unit_test(test_one_change_frees_a_bounded_number_of_runs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
