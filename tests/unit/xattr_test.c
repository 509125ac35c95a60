/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extended attributes against a table: random sets, replacements and removals of small, large and huge values through
 * the operations of fs.h, on a file whose fork also holds content; lists and values compared, blocks counted, failures
 * injected at every place. And dropping them all, flags, limits, names, and what ACLs do to the mode.
 */
#include <stdio.h>
#include <sys/xattr.h>

#include "tests/unit/fake_internal.h"

#include "fs/xattr.h"

#define ACCESS "system." XATTR_ACL_ACCESS

enum { NAMES = 60 };

struct attribute {
	char name[300];
	bool present;
	uint32_t length;
	uint8_t seed;
};
struct model {
	struct inode *inode;
	struct attribute attributes[NAMES];
	uint8_t value[FS_XATTR_VALUE_MAX + 1], got[FS_XATTR_VALUE_MAX + 1];
};

static struct fs_name name_of(const char *text)
{
	return (struct fs_name){.bytes = text, .length = (unsigned)strlen(text)};
}

static int set(const struct model *model, const char *name, const void *value, uint32_t length, int flags)
{
	return fs_xattr_set(&fake.fs, model->inode->ino, name_of(name), value, length, flags, NULL);
}

static int get(const struct model *model, const char *name, void *value, uint32_t size, uint32_t *out_length)
{
	return fs_xattr_get(&fake.fs, model->inode->ino, name_of(name), value, size, out_length);
}

static struct model *model_create(void)
{
	static const char *const prefixes[] = {"user.", "trusted.", "security."};
	struct model *model = calloc(1, sizeof(*model));

	fake_init(FS_NODE_BYTES);
	model->inode = fake_inode(S_IFREG | 0644);
	for (unsigned i = 0; i < NAMES; i++) {
		char *name = model->attributes[i].name;
		const char *prefix = prefixes[i % 3];
		const int length = snprintf(name, sizeof(model->attributes[i].name), "%s%u", prefix, i / 3);
		memset(name + length, 'x', i % 7 == 0 ? 200 : i % 5);
	}
	return model;
}

static void model_destroy(struct model *model)
{
	fake_fini();
	free(model);
}

static const uint8_t *value_fill(struct model *model, uint32_t length, uint8_t seed)
{
	for (uint32_t i = 0; i < length; i++)
		model->value[i] = (uint8_t)(seed + i * 7 + i / 256);
	return model->value;
}

/* ---- comparing ---- */

static uint64_t blocks_counted(const struct model *model)
{
	const struct disk_inode *disk = &model->inode->disk;
	uint64_t blocks = 0, block = le64_get(disk->xattr_block);

	while (block) {
		const struct xattr_block *xattrs = fake_block(block);
		assert_non_null(xattrs);
		assert_true(le16_get(xattrs->count) > 0);
		block = le64_get(xattrs->next);
		blocks++;
	}
	for (unsigned i = 0; i < NAMES; i++)
		if (model->attributes[i].present)
			blocks += xattr_value_blocks(model->attributes[i].length);
	return blocks;
}

static const struct fs_cred root = {.privileged = true};

static void model_compare(struct model *model)
{
	uint32_t length, expected = 0;
	static char list[65536];

	assert_int_equal(fs_xattr_list(&fake.fs, model->inode->ino, &root, list, sizeof(list), &length), 0);
	for (unsigned i = 0; i < NAMES; i++) {
		const struct attribute *attribute = &model->attributes[i];
		bool listed = false;
		for (uint32_t at = 0; at < length; at += (uint32_t)strlen(list + at) + 1)
			listed |= !strcmp(list + at, attribute->name);
		assert_int_equal(listed, attribute->present);
		expected += attribute->present ? (uint32_t)strlen(attribute->name) + 1 : 0;
	}
	assert_int_equal(length, expected);
	assert_int_equal(fs_xattr_list(&fake.fs, model->inode->ino, &root, NULL, 0, &length), 0);
	assert_int_equal(length, expected);
	const uint64_t blocks = blocks_counted(model);
	assert_int_equal(fake.used_blocks, blocks);
	assert_int_equal(le64_get(model->inode->disk.blocks), blocks);
	assert_true(model->inode->disk.xattr_bytes <= XATTR_FORK_BYTES_MAX);
}

static void value_compare(struct model *model, const struct attribute *attribute)
{
	uint32_t length;
	int error = get(model, attribute->name, model->got, sizeof(model->got), &length);

	assert_int_equal(error, attribute->present ? 0 : -ENODATA);
	if (error)
		return;
	assert_int_equal(length, attribute->length);
	assert_memory_equal(model->got, value_fill(model, length, attribute->seed), length);
	assert_int_equal(get(model, attribute->name, NULL, 0, &length), 0);
	assert_int_equal(length, attribute->length);
	if (length > 1)
		assert_int_equal(get(model, attribute->name, model->got, length - 1, &length), -ERANGE);
}

/* ---- changing ---- */

static int model_set(struct model *model, struct attribute *attribute, uint32_t length, int flags)
{
	const uint8_t seed = (uint8_t)fake_random(256);
	const uint8_t *value = value_fill(model, length, seed);
	const int error = set(model, attribute->name, value, length, flags);

	if (error)
		return error;
	attribute->present = true;
	attribute->length = length;
	attribute->seed = seed;
	return 0;
}

static int model_remove(struct model *model, struct attribute *attribute)
{
	const int error = fs_xattr_remove(&fake.fs, model->inode->ino, name_of(attribute->name));

	if (!error)
		attribute->present = false;
	return error;
}

static int random_step(struct model *model)
{
	struct attribute *attribute = &model->attributes[fake_random(NAMES)];
	const unsigned kind = fake_random(20);
	const bool was = attribute->present;

	if (kind < 8) {
		const int error = model_remove(model, attribute);
		return was || error != -ENODATA ? error : 0;
	}
	const uint32_t length = fake_random(kind < 14 ? 40 : kind < 18 ? 1100 : FS_XATTR_VALUE_MAX + 1);
	const int flags = fake_random(3) ? 0 : was ? XATTR_REPLACE : XATTR_CREATE;
	return model_set(model, attribute, length, flags);
}

static void failing_step(struct model *model)
{
	const uint64_t random = fake.random;

	for (unsigned after = 1;; after++) {
		fake.random = random;
		fake.fail_after = after;
		const int error = random_step(model);
		const bool reached = !fake.fail_after;
		fake.fail_after = 0;
		model_compare(model);
		assert_int_equal(error, reached ? -EIO : 0);
		if (!error)
			return;
	}
}

static void test_random_changes_match_a_table(void **state)
{
	struct model *model = model_create();

	for (unsigned i = 0; i < 6000; i++) {
		if (i % 500 == 0) { /* content comes and goes between */
			const unsigned wanted = fake_random(100);
			const unsigned bytes = MIN(wanted, inode_fork_capacity(model->inode));
			model->inode->disk.format = FORK_INLINE;
			model->inode->disk.fork_bytes = (uint8_t)bytes;
			model->inode->disk.size = le64_set(bytes);
			fake.logged[0] = model->inode->disk;
		}
		if (i % 16 == 0)
			failing_step(model);
		else
			assert_int_equal(random_step(model), 0);
		model_compare(model);
		value_compare(model, &model->attributes[fake_random(NAMES)]);
	}
	for (unsigned i = 0; i < NAMES; i++)
		value_compare(model, &model->attributes[i]);
	for (unsigned i = 0; i < NAMES; i++)
		if (model->attributes[i].present)
			assert_int_equal(model_remove(model, &model->attributes[i]), 0);
	model_compare(model);
	assert_false(xattr_any(model->inode));
	model_destroy(model);
}

static void test_dropping_all_is_cut_into_transactions_and_goes_on_after_a_failure(void **state)
{
	struct model *model = model_create();

	for (unsigned i = 0; i < NAMES; i++)
		assert_int_equal(model_set(model, &model->attributes[i], i % 4 ? i * 40 : FS_XATTR_VALUE_MAX, 0), 0);
	model_compare(model);
	int error = -EIO;
	for (unsigned i = 0; error; i++) {
		fake.fail_after = 1 + i % 97;
		error = xattr_drop_all(model->inode);
		assert_true(error ? !fake.fail_after && error == -EIO : true);
	}
	fake.fail_after = 0;
	assert_false(xattr_any(model->inode));
	assert_int_equal(fake.used_blocks, 0);
	assert_int_equal(le64_get(model->inode->disk.blocks), 0);
	model_destroy(model);
}

static void test_flags_names_and_limits(void **state)
{
	struct model *model = model_create();
	struct attribute *attribute = &model->attributes[0];
	char name[400];

	assert_int_equal(model_set(model, attribute, 5, XATTR_REPLACE), -ENODATA);
	assert_int_equal(model_set(model, attribute, 5, XATTR_CREATE), 0);
	assert_int_equal(model_set(model, attribute, 5, XATTR_CREATE), -EEXIST);
	assert_int_equal(model_set(model, attribute, 5, XATTR_CREATE | XATTR_REPLACE), -EINVAL);
	assert_int_equal(model_set(model, attribute, FS_XATTR_VALUE_MAX + 1, 0), -E2BIG);
	assert_int_equal(model_set(model, attribute, FS_XATTR_VALUE_MAX, 0), 0);
	value_compare(model, attribute);
	assert_int_equal(model_remove(model, &model->attributes[1]), -ENODATA);
	assert_int_equal(set(model, "other.name", "v", 1, 0), -EOPNOTSUPP);
	assert_int_equal(set(model, "system.name", "v", 1, 0), -EOPNOTSUPP);
	assert_int_equal(set(model, "user.", "v", 1, 0), -EINVAL);
	memset(name, 'n', sizeof(name));
	memcpy(name, "user.", 5);
	name[5 + FS_NAME_MAX + 1] = 0;
	assert_int_equal(set(model, name, "v", 1, 0), -ERANGE);
	name[5 + FS_NAME_MAX] = 0;
	assert_int_equal(set(model, name, "v", 1, 0), 0);
	model->inode->disk.flags = le32_set(INODE_IMMUTABLE);
	fake.logged[0] = model->inode->disk;
	assert_int_equal(set(model, "user.a", "v", 1, 0), -EPERM);
	model_destroy(model);
}

static void test_chain_is_bounded(void **state)
{
	struct model *model = model_create();
	char name[64];
	unsigned count = 0;
	int error = 0;

	value_fill(model, FS_XATTR_INTERNAL_MAX, 1);
	for (; !error; count++) {
		snprintf(name, sizeof(name), "user.%u", count);
		error = set(model, name, model->value, FS_XATTR_INTERNAL_MAX, 0);
	}
	assert_int_equal(error, -ENOSPC);
	assert_int_equal(fake.used_blocks, XATTR_CHAIN_MAX);
	assert_int_equal(count - 1, 3 * XATTR_CHAIN_MAX);
	assert_int_equal(xattr_drop_all(model->inode), 0);
	assert_int_equal(fake.used_blocks, 0);
	model_destroy(model);
}

/* ---- ACLs ---- */

struct acl {
	uint8_t bytes[100];
	uint32_t length;
};

static struct acl acl_make(const uint16_t (*entries)[2], unsigned count)
{
	struct acl acl = {.bytes = {2}, .length = 4};

	for (unsigned i = 0; i < count; i++, acl.length += 8) {
		acl.bytes[acl.length] = (uint8_t)entries[i][0];
		acl.bytes[acl.length + 2] = (uint8_t)entries[i][1];
	}
	return acl;
}

static void test_access_acl_sets_the_mode(void **state)
{
	struct model *model = model_create();
	static const uint16_t plain[][2] = {{1, 6}, {4, 4}, {0x20, 0}};
	static const uint16_t named[][2] = {{1, 7}, {2, 5}, {4, 1}, {0x10, 4}, {0x20, 4}};
	const struct acl simple = acl_make(plain, 3), full = acl_make(named, 5);
	uint32_t length;

	assert_int_equal(set(model, ACCESS, full.bytes, full.length, 0), 0);
	assert_int_equal(inode_mode(model->inode), S_IFREG | 0744);
	assert_int_equal(get(model, ACCESS, NULL, 0, &length), 0);
	assert_int_equal(length, full.length);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(set(model, ACCESS, simple.bytes, simple.length, 0), 0);
		assert_int_equal(inode_mode(model->inode), S_IFREG | 0640);
		assert_int_equal(get(model, ACCESS, NULL, 0, &length), -ENODATA);
		model->inode->disk.mode = le16_set(S_IFREG | 0777);
		fake.logged[0] = model->inode->disk;
	}
	assert_int_equal(set(model, "system." XATTR_ACL_DEFAULT, full.bytes, full.length, 0), -EACCES);
	model_destroy(model);
}

static void test_malformed_acls_are_refused(void **state)
{
	static const uint16_t unordered[][2] = {{4, 4}, {1, 6}, {0x20, 0}};
	static const uint16_t twice[][2] = {{1, 6}, {1, 6}, {4, 4}, {0x20, 0}};
	static const uint16_t unmasked[][2] = {{1, 6}, {2, 4}, {4, 4}, {0x20, 0}};
	static const uint16_t strange[][2] = {{1, 6}, {4, 8}, {0x20, 0}};
	const struct acl acls[] = {acl_make(unordered, 3), acl_make(twice, 4), acl_make(unmasked, 4),
		acl_make(strange, 3), {.length = 0}, {.bytes = {2}, .length = 5}, {.bytes = {1}, .length = 4},
		{.bytes = {2}, .length = 4}};
	uint32_t bits;
	bool only_mode;

	for (unsigned i = 0; i < ARRAY_SIZE(acls); i++)
		assert_int_equal(xattr_acl_mode(acls[i].bytes, acls[i].length, &bits, &only_mode), -EINVAL);
}

static void test_removing_what_may_be_missing_changes_nothing(void **state)
{
	struct model *model = model_create();
	struct xattr_change change;

	for (unsigned i = 0; i < 2; i++) {
		const struct disk_inode before = model->inode->disk;
		xattr_change_init(&change, model->inode, XATTR_CAPABILITY, (struct timespec){.tv_sec = 9});
		change.remove = change.missing_ok = true;
		change.blocks = XATTR_SMALL_BLOCKS;
		assert_int_equal(fake_run(&change.change), 0);
		assert_int_equal(memcmp(&before, &model->inode->disk, sizeof(before)) != 0, i);
		assert_false(xattr_any(model->inode));
		model->inode->loading = false;
		assert_int_equal(set(model, "security.capability", "capability", 10, 0), 0);
	}
	model_destroy(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random_changes_match_a_table),
		cmocka_unit_test(test_dropping_all_is_cut_into_transactions_and_goes_on_after_a_failure),
		cmocka_unit_test(test_flags_names_and_limits),
		cmocka_unit_test(test_chain_is_bounded),
		cmocka_unit_test(test_access_acl_sets_the_mode),
		cmocka_unit_test(test_malformed_acls_are_refused),
		cmocka_unit_test(test_removing_what_may_be_missing_changes_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
