/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever was done to an image, after a repair fsck finds nothing, what the damage did not touch is as it was,
 * a second repair changes nothing, and a repair that was killed at any write is as good as one that was not. Method:
 * the sample image, seeded damage of many kinds (bits, zeroes, garbage, blocks swapped, fields changed under a good
 * checksum), and single cases where the outcome is known. repair_test [SEEDS [FIRST]]: a failure names its seed.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "fsck_image.h"

static unsigned seeds = 1500, first_seed = 1;
static struct sample intact;

/* ---- an image in memory as a device ---- */

struct bench {
	struct sample sample;
	uint64_t writes_left;           /* then the program is killed */
	uint64_t writes;
	uint64_t bad, bad_count;        /* blocks that cannot be read; the first one can when it was written */
	char note[64][256];
	unsigned notes;
	struct fsck_repair_result result;
};

static int bench_read(void *arg, uint64_t block, void *data)
{
	struct bench *bench = arg;
	if (block >= SAMPLE_BLOCKS || (block >= bench->bad && block < bench->bad + bench->bad_count))
		return -EIO;
	memcpy(data, sample_block(&bench->sample, block), FS_BLOCK_SIZE);
	return 0;
}

static int bench_write(void *arg, uint64_t block, const void *data)
{
	struct bench *bench = arg;
	assert(block < SAMPLE_BLOCKS && block >= FS_SUPER_BLOCK);
	if (!bench->writes_left)
		return -ECANCELED;
	if (block == bench->bad)
		bench->bad_count = 0;
	bench->writes_left--;
	bench->writes++;
	memcpy(sample_block(&bench->sample, block), data, FS_BLOCK_SIZE);
	return 0;
}

static int bench_flush(void *arg) { return 0; }

static void bench_note(void *arg, const char *line)
{
	struct bench *bench = arg;
	if (bench->notes < ARRAY_SIZE(bench->note))
		snprintf(bench->note[bench->notes++], sizeof(bench->note[0]), "%s", line);
}

static int repair_some(struct bench *bench, uint64_t writes)
{
	const struct fsck_repair_options options = {.device_blocks = SAMPLE_BLOCKS, .now_sec = 1000};
	const struct fsck_repair_io io = {bench_read, bench_write, bench_flush, bench_note, NULL, bench};
	bench->writes_left = writes;
	bench->writes = bench->notes = 0;
	return fsck_repair(&options, &io, &bench->result);
}

static int repair(struct bench *bench) { return repair_some(bench, UINT64_MAX); }

static struct bench *bench_create(void)
{
	struct bench *bench = calloc(1, sizeof(*bench));
	sample_copy(&intact, &bench->sample);
	return bench;
}

static void bench_destroy(struct bench *bench)
{
	sample_destroy(&bench->sample);
	free(bench);
}

/* Number of findings; printed. */
static uint64_t findings(const struct bench *bench)
{
	static struct sample_check check;
	sample_fsck(&bench->sample, &check);
	for (unsigned i = 0; i < MIN(check.lines, 8u); i++)
		print_message("  %s\n", check.line[i]);
	return check.error ? 1000 : check.result.findings;
}

static bool noted(const struct bench *bench, const char *text)
{
	for (unsigned i = 0; i < bench->notes; i++)
		if (strstr(bench->note[i], text))
			return true;
	return false;
}

/* ---- files whose blocks were not touched ---- */

struct touched {
	bool block[SAMPLE_BLOCKS];
};

/* Every metadata block of the inode's own. */
static bool inode_touched(const struct touched *touched, uint64_t ino)
{
	if (touched->block[sample_inode_block(&intact, ino)])
		return true;
	if (ino == intact.file_tree)
		return touched->block[intact.extent_root] || touched->block[intact.extent_leaf[0]] ||
			touched->block[intact.extent_leaf[1]];
	if (ino == intact.file_xattr)
		return touched->block[intact.xattr_block[0]] || touched->block[intact.xattr_block[1]] ||
			touched->block[intact.value_block[0]] || touched->block[intact.value_block[1]];
	return false;
}

static void survivors_check(struct bench *bench, const struct touched *touched)
{
	const uint64_t files[] = {intact.file_inline, intact.file_extents, intact.file_tree, intact.symlink,
		intact.symlink_long, intact.fifo, intact.device, intact.file_xattr, intact.sub_child};
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		const struct disk_inode *before = sample_inode(&intact, files[i]);
		struct disk_inode after = *sample_inode(&bench->sample, files[i]);
		if (inode_touched(touched, files[i]))
			continue;
		after.nlink = before->nlink;
		assert_memory_equal(&after, before, sizeof(after));
	}
}

/* ---- random damage ---- */

static uint64_t random_next(uint64_t *state)
{
	*state += 0x9e3779b97f4a7c15ull;
	uint64_t z = *state;
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

/* True: a checksum was made good again, so that a lie looks true. */
static bool damage_one(struct sample *sample, uint64_t *random, struct touched *touched)
{
	const unsigned kind = random_next(random) % 8;
	uint64_t block = sample->metadata[random_next(random) % sample->metadata_count];
	if (random_next(random) % 8 == 0)
		block = FS_SUPER_BLOCK + random_next(random) % 3; /* superblock, states */
	uint8_t *bytes = sample_block(sample, block);
	touched->block[block] = true;
	if (kind < 2) {
		bytes[random_next(random) % FS_BLOCK_SIZE] ^= (uint8_t)(1u << random_next(random) % 8);
	} else if (kind == 2) {
		memset(bytes, 0, FS_BLOCK_SIZE);
	} else if (kind == 3) {
		for (unsigned i = 0; i < FS_BLOCK_SIZE; i++)
			bytes[i] = (uint8_t)random_next(random);
	} else if (kind == 4) {
		const uint64_t other = sample->metadata[random_next(random) % sample->metadata_count];
		uint8_t copy[FS_BLOCK_SIZE];
		touched->block[other] = true;
		memcpy(copy, bytes, sizeof(copy));
		memcpy(bytes, sample_block(sample, other), FS_BLOCK_SIZE);
		memcpy(sample_block(sample, other), copy, FS_BLOCK_SIZE);
	} else {
		const size_t at = sizeof(struct block_header) + random_next(random) % 512;
		bytes[at] ^= (uint8_t)random_next(random);
		sample_seal(sample, bytes);
		return true;
	}
	return false;
}

static bool has_superblock(const struct bench *bench) { return !bench->result.no_superblock; }

static void seed_check(uint64_t seed)
{
	struct bench *bench = bench_create();
	struct touched touched = {{false}};
	uint64_t random = seed * 1000003;
	bool lies = false;
	for (uint64_t count = 1 + random_next(&random) % 4; count > 0; count--)
		lies |= damage_one(&bench->sample, &random, &touched);
	if (seeds == 1) { /* somebody looks */
		print_message("before:\n");
		findings(bench);
	}
	assert_int_equal(repair(bench), 0);
	for (unsigned i = 0; seeds == 1 && i < bench->notes; i++)
		print_message("  %s\n", bench->note[i]);
	if (has_superblock(bench)) {
		assert_int_equal(findings(bench), 0);
		if (!lies)
			survivors_check(bench, &touched);
		assert_int_equal(repair(bench), 0);
		assert_true(bench->writes <= 4); /* states only */
		assert_int_equal(bench->result.losses, 0);
	}
	bench_destroy(bench);
}

static uint64_t seed_at_work;

static void test_random_damage_is_repaired(void **state)
{
	for (seed_at_work = first_seed; seed_at_work < first_seed + seeds; seed_at_work++)
		seed_check(seed_at_work);
	seed_at_work = 0;
}

static void test_a_killed_repair_is_as_good(void **state)
{
	for (seed_at_work = first_seed; seed_at_work < first_seed + seeds / 10; seed_at_work++) {
		uint64_t random = seed_at_work * 7919;
		struct bench *bench = bench_create(), *whole = bench_create();
		struct touched touched = {{false}};
		for (unsigned i = 0; i < 2; i++)
			damage_one(&whole->sample, &random, &touched);
		memcpy(bench->sample.data, whole->sample.data, (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
		assert_int_equal(repair(whole), 0);
		const uint64_t writes = has_superblock(whole) ? whole->writes : 0;
		const uint64_t cut = writes ? random_next(&random) % writes : 0;
		if (writes) {
			assert_int_equal(repair_some(bench, cut), -ECANCELED);
			assert_int_equal(repair(bench), 0);
			assert_int_equal(findings(bench), 0);
		}
		bench_destroy(bench);
		bench_destroy(whole);
	}
	seed_at_work = 0;
}

static int seed_report(void **state)
{
	if (seed_at_work)
		print_message("repeat it: repair_test 1 %llu\n", (unsigned long long)seed_at_work);
	return 0;
}

/* ---- cases whose outcome is known ---- */

static void zero(struct bench *bench, uint64_t block) { memset(sample_block(&bench->sample, block), 0, FS_BLOCK_SIZE); }

static void repaired(struct bench *bench)
{
	assert_int_equal(repair(bench), 0);
	assert_int_equal(findings(bench), 0);
}

static void test_what_is_intact_stays(void **state)
{
	struct bench *bench = bench_create();
	struct touched nothing = {{false}};
	repaired(bench);
	assert_int_equal(bench->result.losses, 0);
	survivors_check(bench, &nothing);
	/* What was unlinked while open, and what lay past the end of a truncated file, is freed. */
	assert_int_equal(le16_get(sample_inode(&bench->sample, intact.orphan)->mode), 0);
	bench_destroy(bench);
}

static void test_lost_maps_and_headers_are_made_anew(void **state)
{
	struct bench *bench = bench_create();
	struct touched touched = {{false}};
	for (uint32_t ag = 0; ag < SAMPLE_AGS; ag++) {
		const uint64_t first = SAMPLE_AG_FIRST + (uint64_t)ag * FS_AG_BLOCKS_MIN;
		for (uint64_t block = first; block < first + 5; block++)
			zero(bench, block);
	}
	repaired(bench);
	assert_int_equal(bench->result.losses, 0);
	survivors_check(bench, &touched);
	bench_destroy(bench);
}

static void test_a_lost_superblock_and_lost_states_come_back(void **state)
{
	struct bench *bench = bench_create();
	zero(bench, FS_SUPER_BLOCK);
	zero(bench, FS_STATE_BLOCK_A);
	zero(bench, FS_STATE_BLOCK_B);
	repaired(bench);
	assert_true(noted(bench, "state: both blocks are lost"));
	assert_memory_equal(sample_super(&bench->sample), sample_super(&intact), FS_BLOCK_SIZE);
	bench_destroy(bench);
}

/* Numbers that a hostile image has made as high as can be: @lost says that both states are gone, and only the ring tells. */
static void numbers_check(uint64_t generation, uint64_t mount_generation, uint64_t sequence, bool lost)
{
	struct bench *bench = bench_create();
	struct fs_state *state = sample_state(&bench->sample);
	generation &= ~1ull; /* the place of the sample's */
	state->generation = le64_set(generation);
	state->mount_generation = le64_set(mount_generation);
	state->tail_sequence = le64_set(sequence);
	state->durable_sequence = le64_set(sequence - 1);
	struct sample_group group;
	sample_group_begin(&group);
	sample_group_end(&bench->sample, &group, 3, sequence, 1);
	sample_seal(&bench->sample, state);
	if (lost)
		zero(bench, FS_STATE_BLOCK_A);
	zero(bench, FS_STATE_BLOCK_B);
	const bool intact_before = !findings(bench);
	assert_int_equal(intact_before, !lost && generation < FS_COUNT_END && mount_generation < FS_COUNT_END &&
		sequence < FS_COUNT_END && generation);
	for (unsigned i = 0; i < 3; i++) {
		repaired(bench);
		if (i || intact_before)
			assert_int_equal(bench->result.losses, 0);
	}
	bench_destroy(bench);
}

static void test_numbers_at_the_end_do_not_wrap(void **state)
{
	static const uint64_t number[] = {1ull << 48, FS_COUNT_END - 6, FS_COUNT_END - 4, FS_COUNT_END - 3, FS_COUNT_END - 2,
		FS_COUNT_END - 1, FS_COUNT_END, FS_COUNT_END + 1, UINT64_MAX - 1, UINT64_MAX};
	for (unsigned i = 0; i < ARRAY_SIZE(number); i++)
		for (unsigned lost = 0; lost < 2; lost++) {
			numbers_check(number[i], 1, 1000, lost);
			numbers_check(4, number[i], 1000, lost);
			numbers_check(4, 1, number[i], lost);
			numbers_check(number[i], number[i], number[i], lost);
		}
}

static void test_without_any_superblock_nothing_is_written(void **state)
{
	struct bench *bench = bench_create();
	zero(bench, FS_SUPER_BLOCK);
	zero(bench, SAMPLE_BLOCKS - 1);
	assert_int_equal(repair(bench), 0);
	assert_true(bench->result.no_superblock);
	assert_int_equal(bench->writes, 0);
	bench_destroy(bench);
}

static void test_a_lost_root_leaves_everything_in_lost_and_found(void **state)
{
	struct bench *bench = bench_create();
	struct touched touched = {{false}};
	touched.block[intact.root_leaf] = true;
	zero(bench, intact.root_leaf);
	repaired(bench);
	assert_int_equal(bench->result.reconnected, 11); /* one has other names */
	survivors_check(bench, &touched);
	bench_destroy(bench);
}

static void test_a_lost_root_inode_is_made_anew(void **state)
{
	struct bench *bench = bench_create();
	zero(bench, intact.inode_block[0]);
	repaired(bench);
	assert_true(noted(bench, "root directory is lost"));
	assert_true(S_ISDIR(le16_get(sample_inode(&bench->sample, FS_ROOT_INODE)->mode)));
	bench_destroy(bench);
}

static void test_a_file_keeps_what_is_left_of_its_tree(void **state)
{
	struct bench *bench = bench_create();
	zero(bench, intact.extent_leaf[0]);
	repaired(bench);
	const struct disk_inode *file = sample_inode(&bench->sample, intact.file_tree);
	assert_int_equal(le64_get(file->size), le64_get(sample_inode(&intact, intact.file_tree)->size));
	assert_true(le64_get(file->blocks) > 0);
	assert_true(le64_get(file->blocks) < le64_get(sample_inode(&intact, intact.file_tree)->blocks));
	bench_destroy(bench);
}

static void test_a_block_of_two_files_stays_with_the_first(void **state)
{
	struct bench *bench = bench_create();
	struct disk_inode *thief = sample_inode(&bench->sample, intact.file_tree);
	struct tree_node *leaf = sample_block(&bench->sample, intact.extent_leaf[1]);
	const struct disk_extent *mine = (const struct disk_extent *)sample_inode(&intact, intact.file_extents)->fork;
	((struct disk_extent *)leaf->payload)[0].physical = mine[0].physical;
	sample_seal(&bench->sample, leaf);
	assert_true(intact.file_extents < intact.file_tree);
	repaired(bench);
	assert_true(noted(bench, "belong to somebody else"));
	assert_memory_equal(sample_inode(&bench->sample, intact.file_extents), sample_inode(&intact, intact.file_extents),
		sizeof(struct disk_inode));
	assert_true(le64_get(thief->blocks) < le64_get(sample_inode(&intact, intact.file_tree)->blocks));
	bench_destroy(bench);
}

static void test_directories_in_a_cycle_are_found(void **state)
{
	struct bench *bench = bench_create();
	/* far holds far_child; their entry in the root now names something else, and far stands in far_child. */
	struct disk_inode *far = sample_inode(&bench->sample, intact.far), *child = sample_inode(&bench->sample, intact.far_child);
	const unsigned bytes = far->fork_bytes;
	memcpy(child->fork, far->fork, bytes);
	struct disk_dirent *entry = (struct disk_dirent *)child->fork;
	entry->ino = le64_set(intact.far);
	child->fork_bytes = (uint8_t)bytes;
	child->size = le64_set(bytes);
	child->rdev_or_entries = le64_set(1);
	child->nlink = le32_set(3);
	far->parent = le64_set(intact.far_child);
	sample_seal(&bench->sample, far);
	sample_seal(&bench->sample, child);
	assert_true(findings(bench) > 0);
	repaired(bench);
	assert_true(noted(bench, "the root is not above it") || noted(bench, "belongs elsewhere"));
	bench_destroy(bench);
}

static void test_preening_refuses_what_would_lose_something(void **state)
{
	struct bench *bench = bench_create();
	zero(bench, intact.root_leaf);
	const struct fsck_repair_options options = {.device_blocks = SAMPLE_BLOCKS, .lossless = true};
	const struct fsck_repair_io io = {bench_read, bench_write, bench_flush, bench_note, NULL, bench};
	bench->writes_left = UINT64_MAX;
	assert_int_equal(fsck_repair(&options, &io, &bench->result), 0);
	assert_true(bench->result.refused);
	assert_int_equal(bench->writes, 0);
	assert_true(findings(bench) > 0);
	/* Maps and counts are another matter. */
	memcpy(bench->sample.data, intact.data, (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
	zero(bench, SAMPLE_AG_FIRST + FS_AG_MAPS_FIRST);
	assert_int_equal(fsck_repair(&options, &io, &bench->result), 0);
	assert_false(bench->result.refused);
	assert_int_equal(findings(bench), 0);
	bench_destroy(bench);
}

static void test_a_bad_place_is_written_and_a_failing_device_is_not(void **state)
{
	struct bench *bench = bench_create();
	bench->bad = SAMPLE_AG_FIRST + FS_AG_MAPS_FIRST; /* a block map */
	bench->bad_count = 1;
	repaired(bench);
	assert_int_equal(bench->bad_count, 0);
	assert_int_equal(bench->result.losses, 0);
	bench->bad = intact.root_leaf;
	bench->bad_count = 1;
	repaired(bench);
	assert_int_equal(bench->result.reconnected, 11);
	bench->bad = FS_JOURNAL_FIRST_BLOCK;
	bench->bad_count = SAMPLE_BLOCKS - 10;
	zero(bench, FS_STATE_BLOCK_A);
	zero(bench, FS_STATE_BLOCK_B);
	assert_int_equal(repair(bench), -EIO);
	assert_int_equal(bench->writes, 0);
	bench_destroy(bench);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_intact_stays),
		cmocka_unit_test(test_lost_maps_and_headers_are_made_anew),
		cmocka_unit_test(test_a_lost_superblock_and_lost_states_come_back),
		cmocka_unit_test(test_numbers_at_the_end_do_not_wrap),
		cmocka_unit_test(test_without_any_superblock_nothing_is_written),
		cmocka_unit_test(test_a_lost_root_leaves_everything_in_lost_and_found),
		cmocka_unit_test(test_a_lost_root_inode_is_made_anew),
		cmocka_unit_test(test_a_file_keeps_what_is_left_of_its_tree),
		cmocka_unit_test(test_a_block_of_two_files_stays_with_the_first),
		cmocka_unit_test(test_directories_in_a_cycle_are_found),
		cmocka_unit_test(test_preening_refuses_what_would_lose_something),
		cmocka_unit_test(test_a_bad_place_is_written_and_a_failing_device_is_not),
		cmocka_unit_test_teardown(test_random_damage_is_repaired, seed_report),
		cmocka_unit_test_teardown(test_a_killed_repair_is_as_good, seed_report),
	};
	if (argc > 1)
		seeds = (unsigned)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		first_seed = (unsigned)strtoul(argv[2], NULL, 10);
	sample_create(&intact);
	const int failed = cmocka_run_group_tests(tests, NULL, NULL);
	sample_destroy(&intact);
	return failed;
}
