/* SPDX-License-Identifier: BSD-3-Clause */
/* Copying from file to file, with 1, 2 and 4 owners. That it may be mixed with everything else: ops_data. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/sim/calls.h"

static unsigned owners;
#define ROOT FS_ROOT_INODE

static uint64_t make(struct machine *machine, const char *name)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, ROOT, name, S_IFREG | 0666, &entry), 0);
	return entry.ino;
}

static uint8_t pattern(uint64_t at) { return (uint8_t)(1 + (at * 31 + at / 251) % 255); }

static void write_pattern(struct machine *machine, uint64_t ino, uint64_t offset, uint32_t length)
{
	uint8_t *buffer = malloc(length);
	for (uint32_t i = 0; i < length; i++)
		buffer[i] = pattern(offset + i);
	assert_int_equal(call_write(machine, ino, buffer, offset, length), 0);
	free(buffer);
}

/* Bytes [offset, offset + length) are the pattern. */
static void check(struct machine *machine, uint64_t ino, uint64_t offset, uint32_t length)
{
	uint8_t *buffer = malloc(length);
	uint32_t got;
	assert_int_equal(call_read(machine, ino, buffer, offset, length, &got), 0);
	assert_int_equal(got, length);
	for (uint32_t i = 0; i < length; i++)
		if (buffer[i] != pattern(offset + i))
			fail_msg("byte %llu is %u", (unsigned long long)(offset + i), buffer[i]);
	free(buffer);
}

static void test_copy_range(void **state)
{
	struct machine m;
	uint64_t copied;
	machine_start(&m, owners, 0);
	struct fs_entry dir, other;
	/* Several directories, so that some file has another owner. */
	for (unsigned i = 0; i < owners; i++) {
		char name[16];
		snprintf(name, sizeof(name), "d%u", i);
		assert_int_equal(call_create(&m, ROOT, name, S_IFDIR | 0700, &dir), 0);
	}
	assert_int_equal(call_create(&m, dir.ino, "copy", S_IFREG | 0600, &other), 0);
	const uint64_t ino = make(&m, "f");
	write_pattern(&m, ino, 0, 2500000);
	assert_int_equal(call_copy(&m, ino, 0, other.ino, 0, UINT32_MAX, &copied), 0);
	assert_int_equal(copied, 2500000);
	check(&m, other.ino, 0, 2500000);
	assert_int_equal(call_copy(&m, ino, 3000000, other.ino, 0, 10, &copied), 0);
	assert_int_equal(copied, 0);
	assert_int_equal(call_copy(&m, ino, 0, ino, 100, 1000, &copied), -EINVAL);
	assert_int_equal(call_copy(&m, ino, 0, ino, 2500000, 255 * 31 * 251, &copied), 0);
	assert_int_equal(call_copy(&m, ino, 0, ROOT, 0, 1000, &copied), -EISDIR);
	machine_stop(&m);
}

static void expect_same(struct machine *machine, uint64_t in, uint64_t from, uint64_t out, uint64_t to, uint32_t length)
{
	uint8_t *wanted = malloc(length), *found = malloc(length);
	uint32_t read;
	assert_int_equal(call_read(machine, in, wanted, from, length, &read), 0);
	assert_int_equal(read, length);
	assert_int_equal(call_read(machine, out, found, to, length, &read), 0);
	assert_int_equal(read, length);
	assert_memory_equal(wanted, found, length);
	free(wanted);
	free(found);
}

static void test_copying_keeps_holes(void **state)
{
	enum { BLOCK = FS_BLOCK_SIZE, SIZE = 700 * BLOCK + 123 };
	struct machine m;
	uint64_t copied;
	struct fs_attr attr;
	machine_start(&m, owners, 0);
	const uint64_t in = make(&m, "in"), fresh = make(&m, "fresh"), old = make(&m, "old");
	write_pattern(&m, in, 0, BLOCK);
	write_pattern(&m, in, 100 * BLOCK + 17, 3 * BLOCK);
	assert_int_equal(call_fallocate(&m, in, FALLOC_FL_KEEP_SIZE, 300 * BLOCK, 20 * BLOCK), 0);
	assert_int_equal(call_truncate(&m, in, SIZE), 0);
	/* Into an empty file, with its hole at the end; allocated ahead is a hole, too. */
	assert_int_equal(call_copy(&m, in, 0, fresh, 0, UINT64_MAX / 4, &copied), 0);
	assert_int_equal(copied, SIZE);
	assert_int_equal(call_getattr(&m, fresh, &attr), 0);
	assert_int_equal(attr.size, SIZE);
	assert_int_equal(attr.blocks_512, 5 * BLOCK / 512);
	expect_same(&m, in, 0, fresh, 0, SIZE);
	/* Over old data, at another place in the block: what was there is gone, and what lies around it stays. */
	write_pattern(&m, old, 0, 800 * BLOCK);
	assert_int_equal(call_copy(&m, in, 5, old, 1000, 600 * BLOCK, &copied), 0);
	assert_int_equal(copied, 600 * BLOCK);
	expect_same(&m, in, 5, old, 1000, 600 * BLOCK);
	check(&m, old, 0, 1000);
	check(&m, old, 1000 + 600 * BLOCK, 199 * BLOCK);
	assert_int_equal(call_getattr(&m, old, &attr), 0);
	assert_true(attr.blocks_512 <= 215 * BLOCK / 512);
	/* A file that is small enough to stand in its inode. */
	const uint64_t tiny = make(&m, "tiny");
	write_pattern(&m, tiny, 0, 10);
	assert_int_equal(call_copy(&m, in, 200 * BLOCK, tiny, 5, 20, &copied), 0);
	assert_int_equal(call_copy(&m, in, 200 * BLOCK, tiny, 100, 50 * BLOCK, &copied), 0);
	assert_int_equal(call_getattr(&m, tiny, &attr), 0);
	assert_int_equal(attr.size, 100 + 50 * BLOCK);
	assert_true(attr.blocks_512 <= BLOCK / 512);
	check(&m, tiny, 0, 5);
	expect_same(&m, in, 200 * BLOCK, tiny, 5, 90);
	machine_stop(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_copy_range),
		cmocka_unit_test(test_copying_keeps_holes),
	};
	int failed = 0;
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("copy", tests, NULL, NULL);
	return failed;
}
