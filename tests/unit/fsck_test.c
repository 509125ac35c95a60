/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: fsck is right about what is whole, replays a journal as the format says and no further, and survives anything
 * that may stand on a device. Method: the sample image of fsck_image.h; journals written group by group; seeded random
 * damage, with and without a fitting crc, of which only is asked that the check ends and that memory stays in bounds
 * (the sanitizers watch). fsck_damage_test.c asks of each rule whether its breach is named.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fsck_image.h"
#include "fs/mkfs.h"

enum { FIRST_SEQUENCE = 1000, FIRST_CRC = 0x12345678 };

struct test {
	struct sample sample;       /* a copy of the whole one for each test */
	struct sample_check check;
};

static struct sample whole;

static int setup(void **state)
{
	struct test *test = calloc(1, sizeof(*test));
	sample_copy(&whole, &test->sample);
	*state = test;
	return 0;
}

static int teardown(void **state)
{
	struct test *test = *state;
	sample_destroy(&test->sample);
	free(test);
	return 0;
}

static bool has_line(const struct sample_check *check, const char *part)
{
	for (unsigned i = 0; i < check->lines; i++)
		if (strstr(check->line[i], part))
			return true;
	return false;
}

static void assert_clean(struct test *test)
{
	sample_fsck(&test->sample, &test->check);
	for (unsigned i = 0; i < test->check.lines; i++)
		print_message("%s\n", test->check.line[i]);
	assert_int_equal(test->check.error, 0);
	assert_int_equal(test->check.result.findings, 0);
}

static void assert_only(struct test *test, const char *part)
{
	sample_fsck(&test->sample, &test->check);
	if (test->check.lines != 1 || !has_line(&test->check, part))
		for (unsigned i = 0; i < test->check.lines; i++)
			print_message("%s\n", test->check.line[i]);
	assert_int_equal(test->check.result.findings, 1);
	assert_true(has_line(&test->check, part));
}

/* ---- whole images ---- */

static void test_sample_has_no_findings(void **state)
{
	struct test *test = *state;
	assert_clean(test);
	const struct fsck_result *result = &test->check.result;
	assert_int_equal(result->files, 11);
	assert_int_equal(result->directories, 5);
	assert_int_equal(result->orphans, 2);
	assert_int_equal(result->blocks_total, SAMPLE_BLOCKS);
	assert_false(result->needs_replay);
	assert_string_equal(result->label, "sample");
	uint64_t used = 0;
	for (unsigned ag = 0; ag < SAMPLE_AGS; ag++)
		used += FS_AG_BLOCKS_MIN - le32_get(sample_ag(&test->sample, ag)->free_blocks);
	assert_int_equal(result->blocks_used, used);
}

static void test_only_allocated_metadata_is_read(void **state)
{
	struct test *test = *state;
	assert_clean(test);
	/* Every block once, two state blocks, five superblocks, the tail, three inode blocks for directories. */
	assert_true(test->check.reads <= test->sample.metadata_count + 2 + 5 + 1 + 3);
}

static int format_write(void *arg, uint64_t block, const void *data)
{
	memcpy((uint8_t *)arg + block * FS_BLOCK_SIZE, data, FS_BLOCK_SIZE);
	return 0;
}

static int memory_read(void *arg, uint64_t block, void *data)
{
	memcpy(data, (const uint8_t *)arg + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

/* Formats that many MiB of memory with AGs of that many MiB, and checks. */
static void format_and_check(uint64_t size_mib, uint64_t ag_mib)
{
	const struct mkfs_options options = {.size_bytes = MIB(size_mib),
		.journal_bytes = KIB(640),
		.ag_bytes = MIB(ag_mib),
		.fsid = 1,
		.journal_id = 2,
		.first_sequence = 7,
		.small = true};
	uint8_t *data = calloc(size_mib, MIB(1));
	const struct mkfs_io io = {.write = format_write, .arg = data};
	struct fs_super *super = malloc(sizeof(*super));
	char message[128];
	assert_int_equal(mkfs_format(&options, &io, super, message, sizeof(message)), 0);
	free(super);
	const struct fsck_options check = {.device_blocks = MIB(size_mib) / FS_BLOCK_SIZE};
	const struct fsck_io reader = {.read = memory_read, .arg = data};
	struct fsck_result result;
	assert_int_equal(fsck_check(&check, &reader, &result), 0);
	assert_int_equal(result.findings, 0);
	assert_int_equal(result.directories, 1);
	free(data);
}

static void test_fresh_filesystems_have_no_findings(void **state)
{
	format_and_check(3, 1);
	format_and_check(10, 1);
	format_and_check(31, 2);
	format_and_check(64, 8);
}

static void test_torn_state_block_is_no_finding(void **state)
{
	struct test *test = *state;
	memset(sample_block(&test->sample, FS_STATE_BLOCK_B), 0x55, 512);
	assert_clean(test);
}

static void test_superblock_copy_is_used_when_the_first_is_bad(void **state)
{
	struct test *test = *state;
	memset(sample_super(&test->sample), 0, FS_BLOCK_SIZE);
	/* The sample's own functions need the geometry: fsck has only the copy. */
	assert_only(test, "superblock (block 1): wrong magic");
	assert_false(test->check.result.fatal);
	assert_int_equal(test->check.result.files, 11);
}

static void test_something_else_is_no_filesystem(void **state)
{
	struct test *test = *state;
	memset(test->sample.data, 0x42, (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
	sample_fsck(&test->sample, &test->check);
	assert_true(test->check.result.no_filesystem);
	assert_true(test->check.result.fatal);
	assert_int_equal(test->check.error, 0);
}

static void test_tiny_devices_are_no_filesystem(void **state)
{
	struct test *test = *state;
	const struct fsck_io io = {.read = memory_read, .arg = test->sample.data};
	struct fsck_result result;
	for (uint64_t blocks = 0; blocks < 200; blocks++) {
		const struct fsck_options options = {.device_blocks = blocks};
		assert_int_equal(fsck_check(&options, &io, &result), 0);
		assert_true(result.fatal && result.findings);
	}
}

static void test_named_superblock_copy_is_trusted(void **state)
{
	struct test *test = *state;
	const struct fsck_options options = {
		.device_blocks = SAMPLE_BLOCKS, .super_block = SAMPLE_AG_FIRST + FS_AG_BLOCKS_MIN + 1};
	const struct fsck_io io = {.read = memory_read, .arg = test->sample.data};
	struct fsck_result result;
	assert_int_equal(fsck_check(&options, &io, &result), 0);
	assert_int_equal(result.findings, 0);
	sample_super(&test->sample)->label[0] ^= 1;
	sample_seal(&test->sample, sample_super(&test->sample));
	assert_int_equal(fsck_check(&options, &io, &result), 0);
	assert_int_equal(result.findings, 1);
}

static void test_clean_is_enough_when_asked(void **state)
{
	struct test *test = *state;
	const struct fsck_options options = {.device_blocks = SAMPLE_BLOCKS, .clean_is_enough = true};
	const struct fsck_io io = {.read = memory_read, .arg = test->sample.data};
	struct fsck_result result;
	assert_int_equal(fsck_check(&options, &io, &result), 0);
	assert_true(result.skipped);
	sample_state(&test->sample)->error_code = le32_set(EIO);
	sample_seal(&test->sample, sample_state(&test->sample));
	assert_int_equal(fsck_check(&options, &io, &result), 0);
	assert_false(result.skipped);
	assert_int_equal(result.recorded_error, EIO);
}

static void test_each_read_error_ends_the_check(void **state)
{
	struct test *test = *state;
	unsigned failed = 0;
	for (uint64_t block = 1; block < SAMPLE_BLOCKS; block++) {
		test->check.fail_block = block;
		sample_fsck(&test->sample, &test->check);
		assert_true(test->check.error == 0 || test->check.error == -EIO);
		failed += test->check.error != 0;
	}
	assert_true(failed >= test->sample.metadata_count);
}

static void count_line(void *arg, const char *line) { ++*(unsigned *)arg; }
static const uint8_t *limit_data;
static int limit_read(void *arg, uint64_t block, void *data)
{
	memcpy(data, limit_data + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

static void test_findings_beyond_the_limit_are_counted(void **state)
{
	struct test *test = *state;
	memset(sample_block(&test->sample, test->sample.inode_block[0]), 0, FS_BLOCK_SIZE);
	memset(sample_block(&test->sample, test->sample.inode_block[1]), 0, FS_BLOCK_SIZE);
	limit_data = test->sample.data;
	unsigned lines = 0;
	const struct fsck_options options = {.device_blocks = SAMPLE_BLOCKS, .findings_max = 2};
	const struct fsck_io io = {.read = limit_read, .finding = count_line, .arg = &lines};
	struct fsck_result result;
	assert_int_equal(fsck_check(&options, &io, &result), 0);
	assert_int_equal(lines, 2);
	assert_true(result.findings > 2);
}

/* ---- the journal ---- */

/* Makes the sample one that was not unmounted, with its tail at a place of the ring. */
static void journal_open(struct sample *sample, uint64_t place, uint64_t durable)
{
	struct fs_state *state = sample_state(sample);
	state->clean = le32_set(0);
	state->mount_generation = le64_set(5);
	state->tail_block = le64_set(place);
	state->durable_sequence = le64_set(durable);
	sample_seal(sample, state);
}

/* A full image of a block as it stands. */
static uint32_t group_of_block(
	struct sample *sample, uint64_t block, uint64_t place, uint64_t sequence, uint32_t previous)
{
	struct sample_group group;
	sample_group_begin(&group);
	sample_group_record(&group, block, 0, FS_BLOCK_SIZE, sample_block(sample, block));
	return sample_group_end(sample, &group, place, sequence, previous);
}

static void test_empty_journal_of_a_crash_is_no_finding(void **state)
{
	struct test *test = *state;
	journal_open(&test->sample, 17, FIRST_SEQUENCE - 1);
	assert_clean(test);
	assert_true(test->check.result.needs_replay);
	assert_int_equal(test->check.result.groups_replayed, 0);
}

/* Images heal what stands at home, over the end of the ring, and ranges change them in order. */
static void test_replay_heals_and_changes(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	journal_open(sample, SAMPLE_JOURNAL_BLOCKS - 1, FIRST_SEQUENCE);
	uint32_t crc =
		group_of_block(sample, sample->inode_block[0], SAMPLE_JOURNAL_BLOCKS - 1, FIRST_SEQUENCE, FIRST_CRC);
	memset(sample_block(sample, sample->inode_block[0]), 0xee, FS_BLOCK_SIZE);
	assert_clean(test);
	assert_int_equal(test->check.result.groups_replayed, 1);
	/* The second group makes the FIFO's mode wrong, the third right again. */
	const uint64_t place = 1;
	const unsigned at = offsetof(struct inode_block, inode[ino_slot(sample->fifo)].mode);
	const le16_t bad = le16_set(0xf000), good = le16_set(0010644);
	struct sample_group group;
	sample_group_begin(&group);
	sample_group_record(&group, sample->inode_block[0], at, sizeof(bad), &bad);
	crc = sample_group_end(sample, &group, place, FIRST_SEQUENCE + 1, crc);
	sample_fsck(sample, &test->check);
	assert_true(has_line(&test->check, "wrong mode"));
	sample_group_begin(&group);
	sample_group_record(&group, sample->inode_block[0], at, sizeof(good), &good);
	sample_group_end(sample, &group, place + 1, FIRST_SEQUENCE + 2, crc);
	assert_clean(test);
	assert_int_equal(test->check.result.groups_replayed, 3);
	assert_int_equal(test->check.result.records_replayed, 3);
	assert_int_equal(test->check.result.last_sequence, FIRST_SEQUENCE + 2);
}

static void test_sequences_at_home_may_reach_the_last_group(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	journal_open(sample, 0, FIRST_SEQUENCE - 1);
	group_of_block(sample, sample->root_leaf, 0, FIRST_SEQUENCE, FIRST_CRC);
	struct block_header *header = sample_block(sample, sample->wide_root);
	header->sequence = le64_set(FIRST_SEQUENCE);
	sample_seal(sample, header);
	assert_clean(test);
	header->sequence = le64_set(FIRST_SEQUENCE + 1);
	sample_seal(sample, header);
	assert_only(test, "is newer than the journal's last group");
}

/* Each way in which a group may not continue the chain ends the replay before it. */
static void test_replay_stops_at_what_does_not_continue(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	journal_open(sample, 0, FIRST_SEQUENCE - 1);
	const size_t fields[] = {offsetof(struct journal_group, magic), offsetof(struct journal_group, crc),
		offsetof(struct journal_group, journal_id), offsetof(struct journal_group, mount_generation),
		offsetof(struct journal_group, sequence), offsetof(struct journal_group, previous_crc),
		offsetof(struct journal_group, length), offsetof(struct journal_group, records), 500};
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
		uint32_t crc = group_of_block(sample, sample->root_leaf, 0, FIRST_SEQUENCE, FIRST_CRC);
		group_of_block(sample, sample->root_leaf, 2, FIRST_SEQUENCE + 1, crc);
		((uint8_t *)sample_block(sample, FS_JOURNAL_FIRST_BLOCK + 2))[fields[i]] ^= 1;
		assert_clean(test);
		assert_int_equal(test->check.result.groups_replayed, 1);
	}
	/* A group with a good crc of its own that names another predecessor. */
	group_of_block(sample, sample->root_leaf, 0, FIRST_SEQUENCE, FIRST_CRC + 1);
	assert_clean(test);
	assert_int_equal(test->check.result.groups_replayed, 0);
}

static void test_lost_journal_is_a_finding(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	journal_open(sample, 0, FIRST_SEQUENCE + 1);
	group_of_block(sample, sample->root_leaf, 0, FIRST_SEQUENCE, FIRST_CRC);
	assert_only(test, "the journal is lost");
}

static void test_group_after_a_clean_unmount_is_a_finding(void **state)
{
	struct test *test = *state;
	group_of_block(&test->sample, test->sample.root_leaf, 0, FIRST_SEQUENCE, FIRST_CRC);
	assert_only(test, "marked clean, but group 1000 follows the tail");
}

static void one_record(struct sample *sample, uint64_t block, unsigned offset, unsigned length)
{
	uint8_t *zero = calloc(1, FS_BLOCK_SIZE);
	struct sample_group group;
	sample_group_begin(&group);
	sample_group_record(&group, block, offset, length, zero);
	sample_group_end(sample, &group, 0, FIRST_SEQUENCE, FIRST_CRC);
	free(zero);
}

static void test_records_that_break_a_rule_are_findings(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	journal_open(sample, 0, FIRST_SEQUENCE - 1);
	one_record(sample, sample->root_leaf, 100, 8);
	assert_only(test, "without an earlier full image");
	one_record(sample, FS_SUPER_BLOCK, 0, FS_BLOCK_SIZE);
	assert_only(test, "a superblock with wrong magic");
	one_record(sample, FS_STATE_BLOCK_A, 0, FS_BLOCK_SIZE);
	assert_only(test, "which is in no AG");
	one_record(sample, UINT64_MAX, 0, FS_BLOCK_SIZE);
	assert_only(test, "which is in no AG");
	one_record(sample, sample->root_leaf, 4090, 8);
	assert_only(test, "malformed record");
	one_record(sample, sample->root_leaf, 0, 0);
	assert_only(test, "malformed record");
	struct sample_group group;
	sample_group_begin(&group);
	sample_group_record(&group, sample->root_leaf, 0, FS_BLOCK_SIZE, sample_block(sample, sample->root_leaf));
	group.records = 2;
	sample_group_end(sample, &group, 0, FIRST_SEQUENCE, FIRST_CRC);
	assert_only(test, "says 2 records, has 1");
}

/* A freed metadata block that became data before the tail had passed its records. */
static void test_replay_over_data_is_a_finding(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	journal_open(sample, 0, FIRST_SEQUENCE - 1);
	const struct disk_extent *extents =
		(const struct disk_extent *)sample_inode(sample, sample->file_extents)->fork;
	struct block_header *image = (struct block_header *)sample_block(sample, le64_get(extents[1].physical));
	*image = *(const struct block_header *)sample_block(sample, sample->metadata[0]);
	image->block = extents[1].physical;
	image->type = le16_set(BLOCK_DIR_NODE);
	group_of_block(sample, le64_get(extents[1].physical), 0, FIRST_SEQUENCE, FIRST_CRC);
	assert_only(test, "would be overwritten by replay");
}

static void test_journal_that_fills_the_ring_ends(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	journal_open(sample, 3, FIRST_SEQUENCE - 1);
	uint32_t crc = FIRST_CRC;
	for (unsigned i = 0; i < SAMPLE_JOURNAL_BLOCKS / 2; i++)
		crc = group_of_block(sample, sample->metadata[i % sample->metadata_count],
			(3 + 2 * i) % SAMPLE_JOURNAL_BLOCKS, FIRST_SEQUENCE + i, crc);
	assert_clean(test);
	/* One that leaves no block outside of the groups is none: a mount does not take it either. */
	assert_int_equal(test->check.result.groups_replayed, SAMPLE_JOURNAL_BLOCKS / 2 - 1);
}

/* ---- what nobody wrote ---- */

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* A value that is more likely to hurt than a random one. */
static uint64_t value_draw(const struct sample *sample, uint64_t *seed)
{
	switch (random_next(seed) % 6) {
	case 0:
		return 0;
	case 1:
		return UINT64_MAX;
	case 2:
		return sample->metadata[random_next(seed) % sample->metadata_count];
	case 3:
		return SAMPLE_AG_FIRST + random_next(seed) % (SAMPLE_AGS * FS_AG_BLOCKS_MIN);
	case 4:
		return 1ull << random_next(seed) % 64;
	default:
		return random_next(seed);
	}
}

/* LANEFS_TEST_ROUNDS makes the random tests longer. */
static uint64_t rounds(uint64_t normal)
{
	const char *text = getenv("LANEFS_TEST_ROUNDS");
	return text ? strtoull(text, NULL, 10) : normal;
}

static void damage_draw(struct sample *sample, uint64_t *seed)
{
	unsigned which = (unsigned)(random_next(seed) % (sample->metadata_count + 3));
	uint8_t *block = sample_block(sample, which < 3 ? FS_SUPER_BLOCK + which : sample->metadata[which - 3]);
	/* Half of the changes hit the first bytes, where the fields of most blocks stand. */
	size_t at = random_next(seed) % (random_next(seed) % 2 ? FS_BLOCK_SIZE : 256);
	uint64_t value = value_draw(sample, seed);
	if (random_next(seed) % 2)
		block[at] ^= (uint8_t)(1u << random_next(seed) % 8);
	else
		memcpy(block + align_down(MIN(at, FS_BLOCK_SIZE - 8), 4), &value, random_next(seed) % 2 ? 8 : 4);
	if (random_next(seed) % 8)
		sample_seal(sample, block);
}

static void test_random_damage_never_hurts(void **state)
{
	struct test *test = *state;
	for (uint64_t round = 1; round <= rounds(6000); round++) {
		uint64_t seed = round * 0x9e3779b97f4a7c15ull;
		for (unsigned i = random_next(&seed) % 4 + 1; i; i--)
			damage_draw(&test->sample, &seed);
		sample_fsck(&test->sample, &test->check);
		assert_int_equal(test->check.error, 0);
		if (round % 3 == 0) /* let some damage pile up */
			memcpy(test->sample.data, whole.data, (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
	}
}

static void test_random_records_never_hurt(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	journal_open(sample, 0, FIRST_SEQUENCE - 1);
	for (uint64_t round = 1; round <= rounds(1500); round++) {
		uint64_t seed = round * 0x9e3779b97f4a7c15ull;
		struct sample_group group;
		sample_group_begin(&group);
		for (unsigned i = 0; i < 4; i++) {
			uint64_t block = sample->metadata[random_next(&seed) % sample->metadata_count];
			sample_group_record(&group, block, 0, FS_BLOCK_SIZE, sample_block(sample, block));
			uint64_t value = value_draw(sample, &seed);
			sample_group_record(&group, block, random_next(&seed) % 256, 8, &value);
		}
		for (unsigned i = random_next(&seed) % 3; i; i--) {
			uint64_t value = value_draw(sample, &seed);
			memcpy(group.bytes + 64 + align_down(random_next(&seed) % (group.length - 72), 8), &value, 8);
		}
		group.length -= random_next(&seed) % 4 ? 0 : random_next(&seed) % 5000;
		sample_group_end(sample, &group, 0, FIRST_SEQUENCE, FIRST_CRC);
		sample_fsck(sample, &test->check);
		assert_int_equal(test->check.error, 0);
		assert_int_equal(test->check.result.groups_replayed, 1);
	}
}

/* A tree node whose pointers all lead to other nodes and back, and a file that claims everything. */
static void test_hostile_trees_end(void **state)
{
	struct test *test = *state;
	struct sample *sample = &test->sample;
	struct tree_node *node = sample_block(sample, sample->extent_root);
	const unsigned count = FS_NODE_BYTES / sizeof(struct tree_pointer);
	for (unsigned i = 0; i < count; i++)
		((struct tree_pointer *)node->payload)[i] = (struct tree_pointer){
			le64_set(i), le64_set(SAMPLE_AG_FIRST + i * 5 % (SAMPLE_AGS * FS_AG_BLOCKS_MIN))};
	node->count = le16_set((uint16_t)count);
	node->bytes = le16_set((uint16_t)(count * sizeof(struct tree_pointer)));
	sample_seal(sample, node);
	node = sample_block(sample, sample->extent_leaf[0]);
	for (unsigned i = 0; i < FS_NODE_BYTES / sizeof(struct disk_extent); i++)
		((struct disk_extent *)node->payload)[i] = (struct disk_extent){le64_set(i * 256),
			le64_set(SAMPLE_AG_FIRST + 5 + i % 5 * FS_AG_BLOCKS_MIN), le32_set(251), le32_set(0)};
	node->count = le16_set(FS_NODE_BYTES / sizeof(struct disk_extent));
	node->bytes = le16_set(FS_NODE_BYTES);
	sample_seal(sample, node);
	sample_fsck(sample, &test->check);
	assert_int_equal(test->check.error, 0);
	assert_true(test->check.result.findings > 10);
	assert_true(test->check.reads < 4 * SAMPLE_BLOCKS);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_sample_has_no_findings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_only_allocated_metadata_is_read, setup, teardown),
		cmocka_unit_test(test_fresh_filesystems_have_no_findings),
		cmocka_unit_test_setup_teardown(test_torn_state_block_is_no_finding, setup, teardown),
		cmocka_unit_test_setup_teardown(test_superblock_copy_is_used_when_the_first_is_bad, setup, teardown),
		cmocka_unit_test_setup_teardown(test_something_else_is_no_filesystem, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tiny_devices_are_no_filesystem, setup, teardown),
		cmocka_unit_test_setup_teardown(test_named_superblock_copy_is_trusted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_clean_is_enough_when_asked, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_read_error_ends_the_check, setup, teardown),
		cmocka_unit_test_setup_teardown(test_findings_beyond_the_limit_are_counted, setup, teardown),
		cmocka_unit_test_setup_teardown(test_empty_journal_of_a_crash_is_no_finding, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replay_heals_and_changes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sequences_at_home_may_reach_the_last_group, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replay_stops_at_what_does_not_continue, setup, teardown),
		cmocka_unit_test_setup_teardown(test_lost_journal_is_a_finding, setup, teardown),
		cmocka_unit_test_setup_teardown(test_group_after_a_clean_unmount_is_a_finding, setup, teardown),
		cmocka_unit_test_setup_teardown(test_records_that_break_a_rule_are_findings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_replay_over_data_is_a_finding, setup, teardown),
		cmocka_unit_test_setup_teardown(test_journal_that_fills_the_ring_ends, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_damage_never_hurts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_random_records_never_hurt, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_trees_end, setup, teardown),
	};
	sample_create(&whole);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	sample_destroy(&whole);
	return failed;
}
