/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mounting and unmounting: damaged and foreign superblocks, what a failed mount leaves behind, and stops at any moment,
 * which must never keep an unmount from its end. Use after free is found by running this under AddressSanitizer.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/journal_internal.h"
#include "reactor/log.h"
#include "tests/sim/bump.h"

enum { SIZE = MIB(10) };

static uint8_t *image_create(void)
{
	uint8_t *memory = calloc(1, SIZE);
	bump_mkfs(memory, SIZE, 5);
	return memory;
}

static struct fs_super *super_at(uint8_t *memory, uint64_t block)
{
	return (struct fs_super *)(memory + block * FS_BLOCK_SIZE);
}

static struct fs_super *super_of(uint8_t *memory) { return super_at(memory, FS_SUPER_BLOCK); }
static struct fs_super *copy_of(uint8_t *memory) { return super_at(memory, SIZE / FS_BLOCK_SIZE - 1); }

/* Mounts and unmounts. Returns the mount's error, with its line in @message. */
static int try_mount(uint8_t *memory, uint64_t size, const struct fs_mount_options *mount, char message[256])
{
	struct sim sim;
	const struct sim_options options = {.owners = 2, .seed = 1, .memory = memory, .size = size, .asynchronous = true};
	sim_create(&sim, &options);
	const int error = sim_mount(&sim, mount);
	snprintf(message, 256, "%s", sim.message);
	if (!error)
		assert_int_equal(sim_unmount(&sim), 0);
	sim_destroy(&sim);
	return error;
}

/* The mount fails with @error and a line that says @words, and no byte changes. */
static void expect_refused(uint8_t *memory, uint64_t size, int error, const char *words)
{
	char message[256];
	uint8_t *before = malloc(SIZE);
	memcpy(before, memory, SIZE);
	assert_int_equal(try_mount(memory, size, NULL, message), error);
	if (!strstr(message, words))
		fail_msg("\"%s\" does not say \"%s\"", message, words);
	assert_memory_equal(before, memory, SIZE);
	free(before);
}

static void expect_mount(uint8_t *memory, const struct fs_mount_options *mount)
{
	char message[256];
	if (try_mount(memory, SIZE, mount, message))
		fail_msg("mount: %s", message);
}

/* ---- superblock ---- */

static void test_damaged_superblock_with_a_good_copy_mounts(void **state)
{
	uint8_t *memory = image_create();
	super_of(memory)->label[0] ^= 1;
	expect_mount(memory, NULL);
	memset(super_of(memory), 0, FS_BLOCK_SIZE);
	expect_mount(memory, NULL);
	free(memory);
}

static void test_damaged_superblock_and_copy_are_refused(void **state)
{
	uint8_t *memory = image_create();
	super_of(memory)->label[0] ^= 1;
	copy_of(memory)->label[0] ^= 1;
	expect_refused(memory, SIZE, -EUCLEAN, "superblock is damaged (header.crc)");
	free(memory);
}

static void test_device_without_a_filesystem_is_refused(void **state)
{
	uint8_t *memory = calloc(1, SIZE);
	expect_refused(memory, SIZE, -EINVAL, "no lanefs filesystem found");
	expect_refused(memory, 63 * FS_BLOCK_SIZE, -EINVAL, "too small");
	free(memory);
}

static void test_device_that_is_too_short_is_refused(void **state)
{
	uint8_t *memory = image_create();
	expect_refused(memory, SIZE - FS_BLOCK_SIZE, -EINVAL, "the image was cut off");
	expect_refused(memory, SIZE / 2, -EINVAL, "the image was cut off");
	free(memory);
}

static void test_other_version_is_refused(void **state)
{
	uint8_t *memory = image_create();
	super_of(memory)->version = le32_set(FS_FORMAT_VERSION + 1);
	block_seal(super_of(memory), 0);
	expect_refused(memory, SIZE, -EOPNOTSUPP, "format version 2");
	/* Damaged, and the copy is of the other version. */
	copy_of(memory)->version = le32_set(FS_FORMAT_VERSION + 1);
	block_seal(copy_of(memory), 0);
	super_of(memory)->label[0] ^= 1;
	expect_refused(memory, SIZE, -EOPNOTSUPP, "format version 2");
	free(memory);
}

static void test_unknown_features(void **state)
{
	const struct fs_mount_options read_only = {.read_only = true};
	uint8_t *memory = image_create();
	super_of(memory)->compat = le64_set(1ull << 40);
	block_seal(super_of(memory), 0);
	expect_mount(memory, NULL);
	super_of(memory)->ro_compat = le64_set(1ull << 41);
	block_seal(super_of(memory), 0);
	expect_refused(memory, SIZE, -EOPNOTSUPP, "mount read-only");
	expect_mount(memory, &read_only);
	super_of(memory)->ro_compat = le64_set(0);
	super_of(memory)->incompat = le64_set(FS_INCOMPAT_REFCOUNT);
	block_seal(super_of(memory), 0);
	expect_refused(memory, SIZE, -EOPNOTSUPP, "unknown feature bits 0x1");
	char message[256];
	assert_int_equal(try_mount(memory, SIZE, &read_only, message), -EOPNOTSUPP);
	free(memory);
}

static void test_unreadable_superblock_with_a_good_copy_mounts(void **state)
{
	for (unsigned copy_too = 0; copy_too < 2; copy_too++) {
		uint8_t *memory = image_create();
		struct sim sim;
		const struct sim_options options = {.owners = 1, .seed = 1, .memory = memory, .size = SIZE, .error = true};
		sim_create(&sim, &options);
		const struct error_rule rule = {.ops = 1u << IO_READ, .offset = FS_SUPER_BLOCK * FS_BLOCK_SIZE,
			.length = FS_BLOCK_SIZE, .action = ERROR_FAIL, .error = -EILSEQ};
		bdev_error_add_rule(sim_bdev(&sim, "error"), &rule);
		if (copy_too)
			copy_of(memory)->label[0] ^= 1;
		assert_int_equal(sim_mount(&sim, NULL), copy_too ? -EILSEQ : 0);
		if (copy_too)
			assert_non_null(strstr(sim.message, "cannot read the superblock"));
		else
			assert_int_equal(sim_unmount(&sim), 0);
		sim_destroy(&sim);
		free(memory);
	}
}

static void test_missing_device_is_refused(void **state)
{
	uint8_t *memory = image_create();
	struct sim sim;
	const struct sim_options options = {.owners = 2, .seed = 1, .memory = memory, .size = SIZE};
	sim_create(&sim, &options);
	sim.device = "nowhere";
	assert_int_equal(sim_mount(&sim, NULL), -ENODEV);
	assert_non_null(strstr(sim.message, "cannot open the device"));
	sim_destroy(&sim);
	free(memory);
}

/* ---- unmounting ---- */

static void test_unmount_marks_clean_with_true_totals(void **state)
{
	uint8_t *memory = image_create();
	expect_mount(memory, NULL);
	const struct fs_state *a = (struct fs_state *)super_at(memory, FS_STATE_BLOCK_A);
	const struct fs_state *b = (struct fs_state *)super_at(memory, FS_STATE_BLOCK_B);
	const struct fs_state *newest = le64_get(a->generation) > le64_get(b->generation) ? a : b;
	assert_int_equal(le32_get(newest->clean), 1);
	assert_int_equal(le64_get(newest->used_inodes), 1);
	assert_int_equal(le64_get(newest->durable_sequence) + 1, le64_get(newest->tail_sequence));
	assert_int_equal(sim_fsck(memory, SIZE, false, "after unmount"), 0); /* compares the totals too */
	free(memory);
}

enum { FIBERS = 24 };

static void start_bumps(struct sim *sim, struct bump_fiber *fibers, unsigned owners, unsigned rounds)
{
	for (unsigned i = 0; i < FIBERS; i++)
		fibers[i] = (struct bump_fiber){.home = sim->fs->owners[i % owners], .rounds = rounds,
			.bump = {.ags = i % 2 ? 0x3 : 0xf, .blocks = i % 4 ? 4 : JOURNAL_TX_BLOCKS_MAX}};
	bump_fibers_start(sim, fibers, FIBERS);
}

/* Unmounting right behind the last transaction: notes, credit and parts are still on their way. */
static void test_unmount_at_once_after_transactions(void **state)
{
	uint8_t *memory = image_create();
	for (uint64_t seed = 0; seed < 60; seed++) {
		const unsigned owners = 1 + seed % 4;
		struct bump_fiber fibers[FIBERS];
		struct sim sim;
		const struct sim_options options = {.owners = owners, .seed = seed, .memory = memory, .size = SIZE,
			.asynchronous = seed % 2};
		sim_create(&sim, &options);
		assert_int_equal(sim_mount(&sim, NULL), 0);
		start_bumps(&sim, fibers, owners, 3);
		bump_fibers_wait(&sim, fibers, FIBERS, 10 * NS_PER_SEC);
		assert_int_equal(sim_unmount(&sim), 0);
		sim_destroy(&sim);
	}
	assert_int_equal(bump_value(memory, 0), bump_value(memory, 1));
	assert_int_equal(sim_fsck(memory, SIZE, false, "after unmount"), 0);
	free(memory);
}

static MAY_WAIT int shut_down(void *arg) { return fs_shutdown(arg); }

static void sync_main(void *arg)
{
	struct bump_fiber *fiber = arg;
	int error;
	do
		error = journal_sync(fiber->home);
	while (!error);
	fiber->error = error;
	fiber->ended = true;
}

/* Stops after any number of steps, from any reactor, with transactions, syncs and checkpoints under way. */
static void test_stop_at_any_moment_ends_everything(void **state)
{
	for (uint64_t seed = 0; seed < 150; seed++) {
		const unsigned owners = 1 + seed % 4;
		struct bump_fiber fibers[FIBERS], syncs[4];
		uint8_t *memory = image_create();
		struct sim sim;
		const struct sim_options options = {.owners = owners, .seed = seed, .memory = memory, .size = SIZE,
			.asynchronous = true};
		sim_create(&sim, &options);
		assert_int_equal(sim_mount(&sim, NULL), 0);
		start_bumps(&sim, fibers, owners, UINT32_MAX);
		for (unsigned i = 0; i < ARRAY_SIZE(syncs); i++) {
			syncs[i] = (struct bump_fiber){.home = sim.fs->owners[i % owners]};
			syncs[i].start.start = (struct fiber_start){.fn = sync_main, .arg = &syncs[i], .name = "sync"};
			fiber_start_on(syncs[i].home->reactor, &syncs[i].start);
		}
		for (uint64_t step = 0; step < seed * seed; step++)
			assert_true(reactor_group_sim_step(sim.group));
		reactor_group_run(reactor_group_get(sim.group, (unsigned)seed / 4 % owners), shut_down, sim.fs);
		bump_fibers_wait(&sim, fibers, FIBERS, 10 * NS_PER_SEC);
		bump_fibers_wait(&sim, syncs, ARRAY_SIZE(syncs), 10 * NS_PER_SEC);
		for (unsigned i = 0; i < FIBERS; i++)
			assert_true(fibers[i].error == -EIO || fibers[i].error == -EROFS);
		assert_int_equal(sim.stopped, -EIO);
		assert_int_equal(sim_unmount(&sim), -EIO);
		assert_int_equal(sim_mount(&sim, NULL), 0);
		assert_int_equal(sim_unmount(&sim), 0);
		sim_destroy(&sim);
		assert_int_equal(bump_value(memory, 0), bump_value(memory, 1));
		assert_int_equal(bump_value(memory, 2), bump_value(memory, 3));
		assert_int_equal(sim_fsck(memory, SIZE, false, "after a stop"), 0);
		free(memory);
	}
}

/* A stop while the unmount is under way. */
static void test_stop_during_unmount(void **state)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		const unsigned owners = 1 + seed % 4;
		struct bump_fiber fibers[FIBERS];
		uint8_t *memory = image_create();
		struct sim sim;
		const struct sim_options options = {.owners = owners, .seed = seed, .memory = memory, .size = SIZE,
			.asynchronous = true, .error = true};
		sim_create(&sim, &options);
		assert_int_equal(sim_mount(&sim, NULL), 0);
		start_bumps(&sim, fibers, owners, 3);
		bump_fibers_wait(&sim, fibers, FIBERS, 10 * NS_PER_SEC);
		const struct error_rule rule = {.ops = 1u << IO_WRITE | 1u << IO_FLUSH, .skip = seed / 4,
			.action = ERROR_FAIL, .error = -EIO};
		bdev_error_add_rule(sim_bdev(&sim, "error"), &rule);
		const int error = sim_unmount(&sim);
		assert_true(error == -EIO || (!error && seed > 8));
		bdev_error_clear_rules(sim_bdev(&sim, "error"));
		assert_int_equal(sim_mount(&sim, NULL), 0);
		assert_int_equal(sim_unmount(&sim), 0);
		sim_destroy(&sim);
		assert_int_equal(sim_fsck(memory, SIZE, false, "after a stop"), 0);
		free(memory);
	}
}

static MAY_WAIT int remove_device(void *arg)
{
	struct sim *sim = arg;
	return bdev_remove(sim->registry, "error", 100 * NS_PER_MS);
}

/* The device goes away at any moment: everything ends, and the stopped callback says -ENODEV. */
static void test_removal_at_any_moment_ends_everything(void **state)
{
	for (uint64_t seed = 0; seed < 60; seed++) {
		const unsigned owners = 1 + seed % 4;
		struct bump_fiber fibers[FIBERS];
		uint8_t *memory = image_create();
		struct sim sim;
		const struct sim_options options = {.owners = owners, .seed = seed, .memory = memory, .size = SIZE,
			.asynchronous = true, .error = true};
		sim_create(&sim, &options);
		assert_int_equal(sim_mount(&sim, NULL), 0);
		start_bumps(&sim, fibers, owners, UINT32_MAX);
		for (uint64_t step = 0; step < 10 * seed * seed; step++)
			assert_true(reactor_group_sim_step(sim.group));
		assert_int_equal(reactor_group_run(reactor_group_get(sim.group, 0), remove_device, &sim), -ETIMEDOUT);
		bump_fibers_wait(&sim, fibers, FIBERS, 10 * NS_PER_SEC);
		assert_true(sim.stopped == -ENODEV);
		assert_int_equal(sim_unmount(&sim), -ENODEV);
		sim.error_device = false;
		sim_destroy(&sim);
		free(memory);
	}
}

static void no_log(enum log_level level, const char *line, void *arg) {}

int main(void)
{
	log_set_sink(no_log, NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_damaged_superblock_with_a_good_copy_mounts),
		cmocka_unit_test(test_damaged_superblock_and_copy_are_refused),
		cmocka_unit_test(test_device_without_a_filesystem_is_refused),
		cmocka_unit_test(test_device_that_is_too_short_is_refused),
		cmocka_unit_test(test_other_version_is_refused),
		cmocka_unit_test(test_unknown_features),
		cmocka_unit_test(test_unreadable_superblock_with_a_good_copy_mounts),
		cmocka_unit_test(test_missing_device_is_refused),
		cmocka_unit_test(test_unmount_marks_clean_with_true_totals),
		cmocka_unit_test(test_unmount_at_once_after_transactions),
		cmocka_unit_test(test_stop_at_any_moment_ends_everything),
		cmocka_unit_test(test_stop_during_unmount),
		cmocka_unit_test(test_removal_at_any_moment_ends_everything),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
