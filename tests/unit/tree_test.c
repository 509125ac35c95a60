/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trees by themselves, with nodes so small that every few changes split or free one: records of one block each are
 * added and removed at random, one by one or a removal and an addition in one transaction, and the tree is compared
 * with a sorted list and walked for its rules after every step. Failures are injected at every point where one can
 * happen.
 */
#include "tests/unit/fake_internal.h"

#include "fs/tree.h"

enum { KEYS = 600, NODE_BYTES = 7 * sizeof(struct disk_extent) };

struct model {
	struct inode *inode;
	bool present[KEYS];
	unsigned count;
};

/* One leaf's new content, as a change. */
struct leaf_change {
	struct tree_change tree;
	uint8_t records[2 * FS_NODE_BYTES];
};
struct test_change {
	struct change change;
	struct inode *inode;
	bool root;
	unsigned used;
	struct leaf_change leaf[2];
};

static struct tree tree_of(struct inode *inode)
{
	return (struct tree){.inode = inode, .type = BLOCK_EXTENT_NODE};
}

static struct disk_extent record_of(uint64_t key)
{
	const uint64_t physical = ag_first_block(&fake.fs.super, 0) + ag_fixed_blocks(&fake.fs.super) + 10;
	return (struct disk_extent){.logical = le64_set(key), .physical = le64_set(physical), .length = le32_set(1)};
}

static int test_prepare(struct tx_part *part, struct change *base)
{
	struct test_change *change = CONTAINER_OF(base, struct test_change, change);
	int error = inode_pin(part, change->inode);

	if (!error && change->root)
		return tree_plan_root(part, &change->leaf[0].tree);
	for (unsigned i = 0; !error && i < change->used; i++)
		error = tree_plan(part, &change->leaf[i].tree);
	return error;
}

static void test_apply(struct tx_part *part, struct change *base)
{
	struct test_change *change = CONTAINER_OF(base, struct test_change, change);

	for (unsigned i = 0; i < change->used; i++) {
		if (change->root)
			tree_apply_root(part, &change->leaf[i].tree);
		else
			tree_apply(part, &change->leaf[i].tree);
		if (change->leaf[i].tree.emptied)
			change->inode->disk.format = FORK_EXTENTS;
	}
	inode_log(part, change->inode);
}

/* Puts the leaf of @key, with @key added or removed, into the change; joins a leaf that is in it already. */
static void edit(struct model *model, struct test_change *change, uint64_t key, bool add, uint64_t *low, uint64_t *high)
{
	const struct tree tree = tree_of(model->inode);
	struct tree_leaf leaf;
	struct leaf_change *to = &change->leaf[change->used];

	if (change->used && *low <= key && key < *high) {
		to--;
	} else {
		*to = (struct leaf_change){0};
		to->tree.tree = tree;
		to->tree.key = key;
		to->tree.records = to->records;
		const unsigned fail_after = fake.fail_after;
		fake.fail_after = 0;
		assert_int_equal(tree_find_leaf(&tree, key, &leaf), 0);
		fake.fail_after = fail_after;
		to->tree.bytes = le16_get(tree_node_of(leaf.buf)->bytes);
		to->tree.count = le16_get(tree_node_of(leaf.buf)->count);
		memcpy(to->records, tree_node_of(leaf.buf)->payload, to->tree.bytes);
		*low = leaf.low;
		*high = leaf.high;
		buf_put(&fake.owner, leaf.buf);
		if (change->used++)
			to->tree.after = &change->leaf[0].tree;
	}
	struct disk_extent *records = (struct disk_extent *)to->records;
	unsigned at = 0;
	while (at < to->tree.count && tree_record_key(&records[at]) < key)
		at++;
	if (add) {
		memmove(records + at + 1, records + at, (to->tree.count - at) * sizeof(*records));
		records[at] = record_of(key);
		to->tree.count++;
	} else {
		assert_int_equal(tree_record_key(&records[at]), key);
		memmove(records + at, records + at + 1, (--to->tree.count - at) * sizeof(*records));
	}
	to->tree.bytes = to->tree.count * sizeof(*records);
}

struct walk {
	const struct model *model;
	unsigned seen;
	uint64_t next;
};

static void walk_leaf(const struct tree_node *leaf, uint64_t low, uint64_t high, void *arg)
{
	struct walk *walk = arg;
	const struct disk_extent *records = (const struct disk_extent *)leaf->payload;

	for (unsigned i = 0; i < le16_get(leaf->count); i++) {
		const uint64_t key = tree_record_key(&records[i]);
		assert_true(key >= walk->next && key >= low && key < high && walk->model->present[key]);
		walk->next = key + 1;
		walk->seen++;
	}
}

static void model_compare(const struct model *model)
{
	struct walk walk = {.model = model};
	const bool tree = model->inode->disk.format == FORK_TREE;
	const unsigned nodes = tree ? fake_tree_check(model->inode, BLOCK_EXTENT_NODE, walk_leaf, &walk) : 0;

	assert_int_equal(walk.seen, model->count);
	assert_int_equal(fake.used_blocks, nodes);
	assert_int_equal(le64_get(model->inode->disk.blocks), nodes);
}

static void model_init(struct model *model)
{
	fake_init(NODE_BYTES);
	*model = (struct model){.inode = fake_inode(S_IFREG | 0644)};
}

/* A tree of one leaf without records. */
static void model_root(struct model *model)
{
	struct test_change *change = calloc(1, sizeof(*change));
	change->change = (struct change){.prepare = test_prepare, .apply = test_apply};
	change->inode = model->inode;
	change->root = true;
	change->used = 1;
	change->leaf[0].tree = (struct tree_change){.tree = tree_of(model->inode), .records = change->leaf[0].records};
	assert_int_equal(fake_run(&change->change), 0);
	free(change);
	model_compare(model);
}

static uint64_t model_pick(const struct model *model, bool present)
{
	uint64_t key = fake_random(KEYS);
	while (model->present[key] != present)
		key = (key + 1) % KEYS;
	return key;
}

static void model_set(struct model *model, uint64_t key, bool present)
{
	model->present[key] = present;
	model->count += present ? 1 : -1;
}

/* Adds and removes keys (UINT64_MAX: none) in one transaction. */
static int model_change(struct model *model, uint64_t remove, uint64_t add)
{
	if (model->inode->disk.format != FORK_TREE) {
		const unsigned fail_after = fake.fail_after;
		fake.fail_after = 0;
		model_root(model);
		fake.fail_after = fail_after;
	}
	struct test_change *change = calloc(1, sizeof(*change));
	uint64_t low = 0, high = 0;

	change->change = (struct change){.prepare = test_prepare, .apply = test_apply};
	change->inode = model->inode;
	if (remove != UINT64_MAX)
		edit(model, change, remove, false, &low, &high);
	if (add != UINT64_MAX)
		edit(model, change, add, true, &low, &high);
	change->leaf[0].tree.keep_root = change->used == 2;
	const int error = fake_run(&change->change);
	if (!error && remove != UINT64_MAX)
		model_set(model, remove, false);
	if (!error && add != UINT64_MAX)
		model_set(model, add, true);
	free(change);
	return error;
}

/* Repeats the change with a failure at the first, second, ... place, until it goes through. */
static void model_change_failing(struct model *model, uint64_t remove, uint64_t add)
{
	for (unsigned after = 1;; after++) {
		fake.fail_after = after;
		const int error = model_change(model, remove, add);
		const bool reached = !fake.fail_after;
		fake.fail_after = 0;
		model_compare(model);
		assert_int_equal(error, reached ? -EIO : 0);
		if (!error)
			return;
	}
}

static void test_random_changes_match_a_list(void **state)
{
	struct model model;
	unsigned tallest = 0;

	model_init(&model);
	for (unsigned i = 0; i < 14000; i++) {
		const bool grow = i / 3000 % 2 == 0;
		const unsigned kind = fake_random(10);
		const bool add = (kind < 7) == grow;
		const bool can_add = model.count < KEYS, can_remove = model.count > 0;
		const uint64_t added = can_add && (add || kind == 0) ? model_pick(&model, false) : UINT64_MAX;
		const uint64_t removed = can_remove && (!add || kind == 0) ? model_pick(&model, true) : UINT64_MAX;
		if (added == UINT64_MAX && removed == UINT64_MAX)
			continue;
		if (i % 16 == 0)
			model_change_failing(&model, removed, added);
		else
			assert_int_equal(model_change(&model, removed, added), 0);
		model_compare(&model);
		tallest = MAX(tallest, model.inode->disk.fork_level);
	}
	assert_true(tallest >= 2);
	while (model.count)
		assert_int_equal(model_change(&model, model_pick(&model, true), UINT64_MAX), 0);
	model_compare(&model);
	assert_int_equal(model.inode->disk.format, FORK_EXTENTS);
	fake_fini();
}

static void test_removal_and_addition_pairs_match_a_list(void **state)
{
	struct model model;

	model_init(&model);
	for (unsigned i = 0; i < 14000; i++) {
		/* Sparse and dense by turns, so that leaves with one record and full ones both are common. */
		const unsigned wanted = i / 2000 % 2 ? KEYS / 12 : KEYS / 2;
		if (model.count != wanted) {
			const bool add = model.count < wanted;
			const uint64_t key = model_pick(&model, !add);
			assert_int_equal(model_change(&model, add ? UINT64_MAX : key, add ? key : UINT64_MAX), 0);
		} else if (i % 32 == 0) {
			model_change_failing(&model, model_pick(&model, true), model_pick(&model, false));
		} else {
			assert_int_equal(model_change(&model, model_pick(&model, true), model_pick(&model, false)), 0);
		}
		model_compare(&model);
	}
	fake_fini();
}

static void test_appending_leaves_full_nodes(void **state)
{
	struct model model;

	model_init(&model);
	for (uint64_t key = 0; key < KEYS; key++)
		assert_int_equal(model_change(&model, UINT64_MAX, key), 0);
	model_compare(&model);
	const unsigned leaves = (KEYS + 6) / 7, parents = (leaves + 9) / 10;
	assert_true(fake.used_blocks <= leaves + parents + 3);
	fake_fini();
}

static void test_small_change_logs_few_bytes(void **state)
{
	struct model model;

	model_init(&model);
	fake.node_bytes = FS_NODE_BYTES;
	for (uint64_t key = 0; key < 160; key++)
		assert_int_equal(model_change(&model, UINT64_MAX, key), 0);
	assert_int_equal(model_change(&model, UINT64_MAX, 170), 0);
	assert_true(fake.dirty_bytes <= sizeof(struct disk_extent) + 8);
	assert_int_equal(model_change(&model, 170, UINT64_MAX), 0);
	assert_true(fake.dirty_bytes <= 8);
	fake_fini();
}

static void test_damaged_level_is_corruption(void **state)
{
	struct model model;
	struct tree_leaf leaf;

	model_init(&model);
	for (uint64_t key = 0; key < 50; key++)
		assert_int_equal(model_change(&model, UINT64_MAX, key), 0);
	const struct tree tree = tree_of(model.inode);
	model.inode->disk.fork_level++;
	assert_int_equal(tree_find_leaf(&tree, 3, &leaf), -EUCLEAN);
	model.inode->disk.fork_level--;
	fake_fini();
}

/* Removes all but every tenth key, in any order: leaves of one record each would be sixty. */
static void test_small_leaves_are_merged(void **state)
{
	struct model model;

	model_init(&model);
	for (uint64_t key = 0; key < KEYS; key++)
		assert_int_equal(model_change(&model, UINT64_MAX, key), 0);
	for (uint64_t i = 0; i < KEYS; i++) {
		const uint64_t key = i * 7 % KEYS; /* every one once */
		if (key % 10 && model.present[key])
			assert_int_equal(model_change(&model, key, UINT64_MAX), 0);
	}
	for (uint64_t key = 0; key < KEYS; key++)
		if (key % 10 && model.present[key])
			assert_int_equal(model_change(&model, key, UINT64_MAX), 0);
	model_compare(&model);
	assert_int_equal(model.count, KEYS / 10);
	assert_true(fake.used_blocks <= 45);
	fake_fini();
}

static void test_a_damaged_neighbour_does_not_keep_records(void **state)
{
	struct model model;
	struct tree_leaf leaf, neighbour;

	model_init(&model);
	for (uint64_t key = 0; key < 30; key++)
		assert_int_equal(model_change(&model, UINT64_MAX, key), 0);
	const struct tree tree = tree_of(model.inode);
	assert_int_equal(tree_find_leaf(&tree, 3, &leaf), 0);
	assert_int_equal(tree_find_leaf(&tree, leaf.high, &neighbour), 0);
	struct tree_node *node = (struct tree_node *)neighbour.buf->data;
	buf_put(&fake.owner, leaf.buf);
	buf_put(&fake.owner, neighbour.buf);
	/* Damaged, but so that its verifier is content; and as if it had been logged like that. */
	struct fake_block *block = &fake_blocks[neighbour.buf->block];
	const struct tree_node sound = *node;
	node->level = le16_set(1);
	node->count = le16_set(1);
	node->bytes = le16_set(sizeof(struct tree_pointer));
	memcpy(node->payload, &(struct tree_pointer){.key = le64_set(leaf.high), .child = le64_set(leaf.buf->block)},
		sizeof(struct tree_pointer));
	memcpy(block->snapshot, node, sizeof(*node));
	for (uint64_t key = leaf.low; key + 1 < leaf.high; key++)
		assert_int_equal(model_change(&model, key, UINT64_MAX), 0);
	memcpy(node, &sound, sizeof(sound));
	memcpy(block->snapshot, &sound, sizeof(sound));
	model_compare(&model);
	fake_fini();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_changes_match_a_list),
		cmocka_unit_test(test_removal_and_addition_pairs_match_a_list),
		cmocka_unit_test(test_appending_leaves_full_nodes),
		cmocka_unit_test(test_small_change_logs_few_bytes),
		cmocka_unit_test(test_damaged_level_is_corruption),
		cmocka_unit_test(test_small_leaves_are_merged),
		cmocka_unit_test(test_a_damaged_neighbour_does_not_keep_records),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
