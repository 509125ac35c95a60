/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Directories against a table of names: random adds, removals, replacements and renames inside one directory, with
 * small nodes and with a hash of few values, so that splits, freed leaves and collisions over several leaves are
 * common. Every now and then each place that can fail does, and then nothing may have changed. Readers walk the
 * directory by cookies while it changes: what was there all the time is seen exactly once.
 */
#include <dirent.h>
#include <stdio.h>

#include "tests/unit/fake_internal.h"

#include "fs/dir.h"

enum { NAMES = 300, NODE_BYTES = 304 };

struct entry {
	char text[48];
	unsigned length;
	bool present;
	uint64_t ino;
	unsigned type;
	unsigned since;                 /* step at which it came */
};
struct model {
	struct inode *directory;
	struct entry names[NAMES];
	unsigned count, step;
};

/* Few hashes: the real one folded. Set by tests. */
static uint64_t hash_count;
uint64_t __real_fs_name_hash(uint64_t seed, const char *name, unsigned length);
uint64_t __wrap_fs_name_hash(uint64_t seed, const char *name, unsigned length);
uint64_t __wrap_fs_name_hash(uint64_t seed, const char *name, unsigned length)
{
	const uint64_t hash = __real_fs_name_hash(seed, name, length);
	return hash_count ? 1 + hash % hash_count : hash;
}

static struct fs_name name_of(const struct entry *entry)
{
	return (struct fs_name){.bytes = entry->text, .length = entry->length};
}

static uint64_t some_ino(void)
{
	return ino_make(0, ag_fixed_blocks(&fake.fs.super) + 1 + fake_random(500), fake_random(FS_INODES_PER_BLOCK));
}

static unsigned some_type(void)
{
	return fake_random(2) ? DT_REG : DT_DIR;
}

static void model_init(struct model *model, uint64_t hashes)
{
	fake_init(NODE_BYTES);
	hash_count = hashes;
	memset(model, 0, sizeof(*model));
	model->directory = fake_inode(S_IFDIR | 0755);
	for (unsigned i = 0; i < NAMES; i++)
		model->names[i].length = (unsigned)snprintf(model->names[i].text, sizeof(model->names[i].text),
			"%u-%.*s", i, (int)fake_random(36), "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz");
}

/* ---- comparing ---- */

struct walk {
	struct model *model;
	uint64_t next;
	unsigned seen;
};

static void entry_check(struct walk *walk, const struct disk_dirent *dirent)
{
	char text[FS_NAME_MAX + 1] = {0};

	assert_true(le64_get(dirent->key) >= walk->next);
	walk->next = le64_get(dirent->key) + 1;
	memcpy(text, dirent->name, dirent->name_length);
	const struct entry *entry = &walk->model->names[atoi(text)];
	assert_string_equal(entry->text, text);
	assert_true(entry->present);
	assert_int_equal(le64_get(dirent->ino), entry->ino);
	assert_int_equal(dirent->type, entry->type);
	walk->seen++;
}

static void walk_leaf(const struct tree_node *leaf, uint64_t low, uint64_t high, void *arg)
{
	for (unsigned at = 0; at < le16_get(leaf->bytes);) {
		const struct disk_dirent *dirent = (const struct disk_dirent *)(leaf->payload + at);
		assert_true(le64_get(dirent->key) >= low && le64_get(dirent->key) < high);
		entry_check(arg, dirent);
		at += dirent_bytes(dirent->name_length);
	}
}

static void model_compare(struct model *model)
{
	const struct disk_inode *disk = &model->directory->disk;
	struct walk walk = {.model = model};
	unsigned nodes = 0;

	if (disk->format == FORK_TREE) {
		nodes = fake_tree_check(model->directory, BLOCK_DIR_NODE, walk_leaf, &walk);
	} else {
		for (unsigned at = 0; at < disk->fork_bytes;) {
			const struct disk_dirent *dirent = (const struct disk_dirent *)(disk->fork + at);
			entry_check(&walk, dirent);
			at += dirent_bytes(dirent->name_length);
		}
	}
	assert_int_equal(walk.seen, model->count);
	assert_int_equal(dir_entries(model->directory), model->count);
	assert_int_equal(fake.used_blocks, nodes);
	assert_int_equal(le64_get(disk->blocks), nodes);
	assert_int_equal(le64_get(disk->size), disk->format == FORK_TREE ? nodes * FS_BLOCK_SIZE : disk->fork_bytes);
}

static void model_lookup(struct model *model, unsigned i)
{
	const struct entry *entry = &model->names[i];
	struct dir_found found;
	const int error = dir_lookup(model->directory, name_of(entry), &found);

	assert_int_equal(error, entry->present ? 0 : -ENOENT);
	if (error)
		return;
	assert_int_equal(found.ino, entry->ino);
	assert_int_equal(found.type, entry->type);
}

/* ---- changing ---- */

static int run_change(struct model *model, enum dir_action action, struct entry *entry, uint64_t ino, unsigned type)
{
	struct dir_change change;
	const uint64_t later = ino;

	dir_change_init(&change, action, model->directory, name_of(entry), fake_random(2) ? ino : 0, type,
		(struct timespec){.tv_sec = 5});
	change.ino_from = &later;
	const int error = fake_run(&change.change);
	if (error)
		return error;
	if (action == DIR_ADD)
		entry->since = model->step;
	model->count += (action == DIR_ADD) - (action == DIR_REMOVE);
	entry->present = action != DIR_REMOVE;
	entry->ino = ino;
	entry->type = type;
	return 0;
}

static int run_rename(struct model *model, struct entry *from, struct entry *to, bool exchange)
{
	struct dir_rename_change change;

	dir_rename_change_init(&change);
	change.directory = model->directory;
	change.from = name_of(from);
	change.to = name_of(to);
	change.ino = from->ino;
	change.type = from->type;
	change.replace = to->present;
	change.exchange = exchange;
	change.to_ino = to->ino;
	change.to_type = to->type;
	const int error = fake_run(&change.change);
	if (error)
		return error;
	const struct entry old = *to;
	to->ino = from->ino;
	to->type = from->type;
	if (exchange) {
		from->ino = old.ino;
		from->type = old.type;
		return 0;
	}
	model->count -= to->present;
	to->since = to->present ? to->since : model->step;
	to->present = true;
	from->present = false;
	return 0;
}

static struct entry *pick(struct model *model, bool present)
{
	unsigned i = fake_random(NAMES);
	while (model->names[i].present != present)
		i = (i + 1) % NAMES;
	return &model->names[i];
}

static int random_step(struct model *model, unsigned wanted)
{
	const unsigned kind = fake_random(8);

	if (model->count >= 2 && model->count < NAMES && kind < 3) {
		struct entry *from = pick(model, true);
		struct entry *to = pick(model, kind == 0);
		return from == to ? 0 : run_rename(model, from, to, kind == 0 && fake_random(2));
	}
	if (model->count && kind == 3)
		return run_change(model, DIR_REPLACE, pick(model, true), some_ino(), some_type());
	if (model->count < wanted || !model->count)
		return run_change(model, DIR_ADD, pick(model, false), some_ino(), some_type());
	return run_change(model, DIR_REMOVE, pick(model, true), 0, 0);
}

/* The same step again and again, failing at the first, second, ... place, until it goes through. */
static void failing_step(struct model *model, unsigned wanted)
{
	const uint64_t random = fake.random;

	for (unsigned after = 1;; after++) {
		fake.random = random;
		fake.fail_after = after;
		const int error = random_step(model, wanted);
		const bool reached = !fake.fail_after;
		fake.fail_after = 0;
		model_compare(model);
		assert_int_equal(error, reached ? -EIO : 0);
		if (!error)
			return;
	}
}

static void random_run(uint64_t hashes, unsigned steps)
{
	struct model *model = calloc(1, sizeof(*model));

	model_init(model, hashes);
	for (model->step = 0; model->step < steps; model->step++) {
		const unsigned wanted = model->step / 1500 % 3 == 0 ? 200 : model->step / 1500 % 3 == 1 ? 40 : 1;
		if (model->step % 32 == 0)
			failing_step(model, wanted);
		else
			assert_int_equal(random_step(model, wanted), 0);
		model_compare(model);
		model_lookup(model, fake_random(NAMES));
	}
	while (model->count)
		assert_int_equal(run_change(model, DIR_REMOVE, pick(model, true), 0, 0), 0);
	model_compare(model);
	assert_int_equal(model->directory->disk.format, FORK_INLINE);
	assert_int_equal(model->directory->disk.fork_bytes, 0);
	fake_fini();
	free(model);
}

static void test_random_changes_match_a_table(void **state) { random_run(0, 7000); }
static void test_collisions_over_many_leaves_match_a_table(void **state) { random_run(3, 7000); }

static void test_wrong_changes_are_refused(void **state)
{
	struct model *model = calloc(1, sizeof(*model));

	model_init(model, 0);
	for (unsigned round = 0; round < 2; round++) {
		struct entry *here = &model->names[0], *missing = &model->names[1];
		if (!round)
			assert_int_equal(run_change(model, DIR_ADD, here, some_ino(), DT_REG), 0);
		assert_int_equal(run_change(model, DIR_ADD, here, some_ino(), DT_REG), -EEXIST);
		assert_int_equal(run_change(model, DIR_REMOVE, missing, 0, 0), -ENOENT);
		assert_int_equal(run_change(model, DIR_REPLACE, missing, some_ino(), DT_REG), -ENOENT);
		assert_int_equal(run_rename(model, here, here, false), -EINVAL);
		assert_int_equal(run_rename(model, missing, here, false), -ENOENT);
		for (unsigned i = 2; i < 100 && !round; i++)
			assert_int_equal(run_change(model, DIR_ADD, &model->names[i], some_ino(), DT_REG), 0);
		model_compare(model);
	}
	fake_fini();
	free(model);
}

static void test_links_of_a_directory_are_counted_and_bounded(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	struct dir_change change;

	model_init(model, 0);
	dir_change_init(&change, DIR_ADD, model->directory, name_of(&model->names[0]), some_ino(), DT_DIR,
		(struct timespec){0});
	change.nlink_delta = 1;
	assert_int_equal(fake_run(&change.change), 0);
	assert_int_equal(le32_get(model->directory->disk.nlink), 3);
	model->directory->disk.nlink = le32_set(FS_LINK_MAX);
	fake.logged[0] = model->directory->disk;
	dir_change_init(&change, DIR_ADD, model->directory, name_of(&model->names[1]), some_ino(), DT_DIR,
		(struct timespec){0});
	change.nlink_delta = 1;
	assert_int_equal(fake_run(&change.change), -EMLINK);
	fake_fini();
	free(model);
}

/* ---- readers ---- */

struct reader {
	uint64_t cookie;
	unsigned started;               /* step */
	bool seen[NAMES];
};

static void reader_step(struct model *model, struct reader *reader)
{
	_Alignas(8) uint8_t buffer[FS_DIRENT_MAX + 100];
	unsigned bytes;

	assert_int_equal(dir_read(model->directory, reader->cookie, buffer, sizeof(buffer), &bytes), 0);
	for (unsigned at = 0; at < bytes;) {
		const struct disk_dirent *dirent = (const struct disk_dirent *)(buffer + at);
		char text[FS_NAME_MAX + 1] = {0};
		memcpy(text, dirent->name, dirent->name_length);
		assert_true(le64_get(dirent->key) > reader->cookie);
		reader->cookie = le64_get(dirent->key);
		/* A name may come twice only if it went and came meanwhile. */
		const unsigned i = (unsigned)atoi(text);
		assert_true(model->names[i].present);
		assert_false(reader->seen[i] && model->names[i].since < reader->started);
		reader->seen[i] = true;
		at += dirent_bytes(dirent->name_length);
	}
	if (bytes)
		return;
	for (unsigned i = 0; i < NAMES; i++)
		if (model->names[i].present && model->names[i].since < reader->started)
			assert_true(reader->seen[i]);
	*reader = (struct reader){.started = model->step};
}

static void test_readers_see_what_stays_exactly_once(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	struct reader readers[3] = {0};

	model_init(model, 40);
	for (model->step = 1; model->step < 12000; model->step++) {
		assert_int_equal(random_step(model, model->step / 3000 % 2 ? 30 : 150), 0);
		reader_step(model, &readers[fake_random(ARRAY_SIZE(readers))]);
	}
	fake_fini();
	free(model);
}

static void test_full_names_in_full_nodes(void **state)
{
	struct model *model = calloc(1, sizeof(*model));
	char name[FS_NAME_MAX];

	model_init(model, 0);
	fake.node_bytes = FS_NODE_BYTES;
	memset(name, 'x', sizeof(name));
	for (unsigned i = 0; i < 3000; i++) {
		struct dir_change change;
		for (unsigned k = 0; k < 3; k++)
			name[k] = (char)('a' + (i >> 4 * k) % 16);
		const struct fs_name full = {.bytes = name, .length = FS_NAME_MAX - i % 3};
		dir_change_init(&change, DIR_ADD, model->directory, full, some_ino(), DT_REG, (struct timespec){0});
		assert_int_equal(fake_run(&change.change), 0);
	}
	struct dir_found found;
	const struct fs_name last = {.bytes = name, .length = FS_NAME_MAX - 2999 % 3};
	assert_int_equal(dir_lookup(model->directory, last, &found), 0);
	assert_true(fake.used_blocks < 420);
	fake_fini();
	free(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_changes_match_a_table),
		cmocka_unit_test(test_collisions_over_many_leaves_match_a_table),
		cmocka_unit_test(test_wrong_changes_are_refused),
		cmocka_unit_test(test_links_of_a_directory_are_counted_and_bounded),
		cmocka_unit_test(test_readers_see_what_stays_exactly_once),
		cmocka_unit_test(test_full_names_in_full_nodes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
