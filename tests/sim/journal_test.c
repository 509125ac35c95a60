/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replay, by rings that are written by hand into an image in memory: which groups belong to the chain, which journals
 * are refused, and what is changed on the device. What a group did is seen in next_generation of AG headers.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/journal_internal.h"
#include "fs/verify.h"
#include "reactor/log.h"
#include "tests/sim/bump.h"

enum { SIZE = MIB(10), GROUP_MAX = 16 * FS_BLOCK_SIZE, GENERATION = 7 };

/* ---- a journal by hand ---- */

struct image {
	uint8_t *memory;
	struct fs_super super;
	uint64_t place, sequence, journal_id, mount_generation; /* of the next group */
	uint32_t crc;                   /* of the last one */
	_Alignas(16) uint8_t group[GROUP_MAX];
	uint32_t length, records;
	uint64_t last_place;            /* where the last group was written */
	uint32_t last_length;
};

static uint8_t *block_at(const struct image *image, uint64_t block) { return image->memory + block * FS_BLOCK_SIZE; }

static struct fs_state *state_at(const struct image *image, uint64_t block)
{
	return (struct fs_state *)block_at(image, block);
}

/* The state block that counts. */
static struct fs_state *state_of(const struct image *image)
{
	struct fs_state *a = state_at(image, FS_STATE_BLOCK_A), *b = state_at(image, FS_STATE_BLOCK_B);
	return le64_get(a->generation) > le64_get(b->generation) ? a : b;
}

static void seal(void *block) { block_seal(block, le64_get(((struct block_header *)block)->sequence)); }

/* A filesystem that was not unmounted, its journal empty and with the tail at @place. */
static void image_create_at(struct image *image, uint64_t place)
{
	memset(image, 0, sizeof(*image));
	image->memory = calloc(1, SIZE);
	const struct sim_format format = {.size = SIZE, .journal_bytes = FS_JOURNAL_BLOCKS_MIN * FS_BLOCK_SIZE,
		.ag_bytes = MIB(1), .seed = 3};
	sim_mkfs(image->memory, &format);
	image->super = *bump_super(image->memory);
	struct fs_state *state = state_of(image);
	state->clean = le32_set(0);
	state->mount_generation = le64_set(GENERATION);
	state->tail_block = le64_set(place);
	seal(state);
	image->place = place;
	image->sequence = le64_get(state->tail_sequence);
	image->crc = le32_get(state->tail_crc);
	image->journal_id = le64_get(image->super.journal_id);
	image->mount_generation = GENERATION;
}

static void image_create(struct image *image) { image_create_at(image, 0); }

static void image_destroy(struct image *image) { free(image->memory); }

static void group_begin(struct image *image)
{
	memset(image->group, 0, sizeof(image->group));
	image->length = sizeof(struct journal_group);
	image->records = 0;
}

static void group_record(struct image *image, uint64_t block, unsigned offset, unsigned length, const void *data)
{
	struct journal_record *record = (struct journal_record *)(image->group + image->length);
	*record = (struct journal_record){.block = le64_set(block), .offset = le16_set((uint16_t)offset),
		.length = le16_set((uint16_t)length)};
	if (data)
		memcpy(record + 1, data, length);
	image->length += (uint32_t)(sizeof(*record) + align_up(length, 8));
	image->records++;
}

static void ring_put(const struct image *image, uint64_t place, const uint8_t *data, uint32_t length)
{
	const uint64_t ring = le64_get(image->super.journal_blocks);
	for (uint32_t i = 0; i < div_round_up(length, FS_BLOCK_SIZE); i++)
		memcpy(block_at(image, FS_JOURNAL_FIRST_BLOCK + (place + i) % ring), data + i * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
}

/* Closes the group as the next of the chain. */
static void group_end(struct image *image)
{
	struct journal_group *group = (struct journal_group *)image->group;
	*group = (struct journal_group){.magic = le32_set(FS_JOURNAL_MAGIC), .journal_id = le64_set(image->journal_id),
		.mount_generation = le64_set(image->mount_generation), .sequence = le64_set(image->sequence++),
		.previous_crc = le32_set(image->crc), .length = le32_set(image->length), .records = le32_set(image->records)};
	image->crc = fs_crc32c(0, group, image->length);
	group->crc = le32_set(image->crc);
	ring_put(image, image->place, image->group, image->length);
	image->last_place = image->place;
	image->last_length = image->length;
	image->place = (image->place + div_round_up(image->length, FS_BLOCK_SIZE)) % le64_get(image->super.journal_blocks);
}

static uint64_t header_block(const struct image *image, uint32_t ag) { return ag_first_block(&image->super, ag); }

/* A group with a full image of an AG header, or with the four bytes that matter. */
static void group_full(struct image *image, uint32_t ag, uint32_t value)
{
	struct ag_header header;
	memcpy(&header, block_at(image, header_block(image, ag)), sizeof(header));
	header.next_generation = le32_set(value);
	group_begin(image);
	group_record(image, header_block(image, ag), 0, FS_BLOCK_SIZE, &header);
	group_end(image);
}

static void group_range(struct image *image, uint32_t ag, uint32_t value)
{
	const le32_t bytes = le32_set(value);
	group_begin(image);
	group_record(image, header_block(image, ag), offsetof(struct ag_header, next_generation), sizeof(bytes), &bytes);
	group_end(image);
}

/* ---- mounting it ---- */

struct mounted {
	struct sim sim;
	int error;
	struct fs_status status;
};

static void mount_image(struct mounted *mounted, const struct image *image, const struct fs_mount_options *mount,
	bool record)
{
	const struct sim_options options = {.owners = 2, .seed = 11, .memory = image->memory, .size = SIZE,
		.asynchronous = true, .record = record};
	sim_create(&mounted->sim, &options);
	mounted->error = sim_mount(&mounted->sim, mount);
	if (!mounted->error)
		fs_get_status(mounted->sim.fs, &mounted->status);
}

static void unmount_image(struct mounted *mounted)
{
	if (!mounted->error)
		assert_int_equal(sim_unmount(&mounted->sim), 0);
	sim_destroy(&mounted->sim);
}

/* Mounts, unmounts, and expects that so many groups were replayed and the header of AG 1 says @value. */
static void expect_replay(const struct image *image, uint64_t groups, uint32_t value)
{
	struct mounted mounted;
	mount_image(&mounted, image, NULL, false);
	if (mounted.error)
		fail_msg("mount: %s", mounted.sim.message);
	unmount_image(&mounted);
	assert_int_equal(mounted.status.replayed_groups, groups);
	assert_int_equal(bump_value(image->memory, 1), value);
	assert_int_equal(sim_fsck(image->memory, SIZE, false, "after replay"), 0);
}

/* Expects that the mount fails with @error and a line that has @words, and that no byte changes. */
static void expect_refused(const struct image *image, int error, const char *words)
{
	struct mounted mounted;
	uint8_t *before = malloc(SIZE);
	memcpy(before, image->memory, SIZE);
	mount_image(&mounted, image, NULL, false);
	unmount_image(&mounted);
	assert_int_equal(mounted.error, error);
	if (!strstr(mounted.sim.message, words))
		fail_msg("\"%s\" does not say \"%s\"", mounted.sim.message, words);
	assert_memory_equal(before, image->memory, SIZE);
	free(before);
}

/* ---- which groups belong to the chain ---- */

static void test_chain_is_replayed_in_order(void **state)
{
	struct image image;
	image_create(&image);
	group_full(&image, 1, 100);
	group_range(&image, 1, 101);
	group_full(&image, 2, 50);
	group_range(&image, 1, 102);
	expect_replay(&image, 4, 102);
	assert_int_equal(bump_value(image.memory, 2), 50);
	image_destroy(&image);
}

static void test_chain_goes_over_the_end_of_the_ring(void **state)
{
	struct image image;
	/* The first group takes two blocks: the second of them is at the start of the ring. */
	image_create_at(&image, FS_JOURNAL_BLOCKS_MIN - 1);
	group_full(&image, 1, 100);
	assert_int_equal(image.place, 1);
	group_range(&image, 1, 101);
	expect_replay(&image, 2, 101);
	image_destroy(&image);
}

enum wrong {
	WRONG_MAGIC, WRONG_ID, WRONG_GENERATION, WRONG_SEQUENCE, WRONG_PREVIOUS, WRONG_CRC, WRONG_LENGTH, WRONG_END,
	WRONG_COUNT,
};

/* Makes one thing wrong in the group that was written last; where the crc is not the point, it is right again. */
static void spoil(struct image *image, enum wrong wrong)
{
	struct journal_group *group = (struct journal_group *)image->group;
	switch (wrong) {
	case WRONG_MAGIC: group->magic = le32_set(FS_JOURNAL_MAGIC + 1); break;
	case WRONG_ID: group->journal_id = le64_set(image->journal_id + 1); break;
	case WRONG_GENERATION: group->mount_generation = le64_set(GENERATION - 1); break;
	case WRONG_SEQUENCE: group->sequence = le64_set(le64_get(group->sequence) + 1); break;
	case WRONG_PREVIOUS: group->previous_crc = le32_set(le32_get(group->previous_crc) ^ 1); break;
	case WRONG_LENGTH: group->length = le32_set(UINT32_MAX); break;
	case WRONG_CRC: image->group[image->length - 1] ^= 1; break;
	case WRONG_END: memset(image->group + FS_BLOCK_SIZE, 0xa5, FS_BLOCK_SIZE); break; /* cut off: old content follows */
	case WRONG_COUNT: assert(false);
	}
	if (wrong != WRONG_CRC && wrong != WRONG_END && wrong != WRONG_LENGTH) {
		group->crc = le32_set(0);
		group->crc = le32_set(fs_crc32c(0, group, image->length));
	}
	ring_put(image, image->last_place, image->group, image->last_length);
}

static void test_chain_ends_at_the_first_group_that_does_not_continue_it(void **state)
{
	for (enum wrong wrong = 0; wrong < WRONG_COUNT; wrong++) {
		struct image image;
		image_create(&image);
		group_full(&image, 1, 100);
		group_full(&image, 1, 101);
		spoil(&image, wrong);
		group_full(&image, 1, 102);
		expect_replay(&image, 1, 100);
		image_destroy(&image);
	}
}

/* Two timelines from one image: the groups have the same places, numbers and mount generation, only the crc of the
 * group before tells that the ones behind the first belong to the other timeline. */
static void test_groups_of_an_abandoned_timeline_stay_dead(void **state)
{
	struct image image;
	image_create(&image);
	group_full(&image, 1, 100);
	group_full(&image, 1, 200);
	group_full(&image, 1, 300);
	image.place = 0;
	image.sequence = le64_get(state_of(&image)->tail_sequence);
	image.crc = le32_get(state_of(&image)->tail_crc);
	group_full(&image, 1, 111);
	expect_replay(&image, 1, 111);
	image_destroy(&image);
}

/* ---- journals that are refused ---- */

static void test_end_below_the_durable_sequence_is_a_lost_journal(void **state)
{
	struct image image;
	char words[64];
	image_create(&image);
	const uint64_t durable = image.sequence + 2;
	state_of(&image)->durable_sequence = le64_set(durable);
	seal(state_of(&image));
	group_full(&image, 1, 100);
	group_full(&image, 1, 101);
	snprintf(words, sizeof(words), "%llu was durable: lost journal", (unsigned long long)durable);
	expect_refused(&image, -EUCLEAN, words);
	group_full(&image, 1, 102);
	expect_replay(&image, 3, 102);
	image_destroy(&image);
}

static void test_byte_range_without_a_full_image_is_refused(void **state)
{
	struct image image;
	image_create(&image);
	group_full(&image, 2, 100);
	group_range(&image, 1, 101);
	expect_refused(&image, -EUCLEAN, "without an earlier full image");
	image_destroy(&image);
}

static void test_records_outside_the_groups_are_refused(void **state)
{
	struct image image;
	image_create(&image);
	const uint64_t end = le64_get(image.super.block_count);
	const uint64_t blocks[] = {0, FS_STATE_BLOCK_A, FS_JOURNAL_FIRST_BLOCK, header_block(&image, 0) - 1,
		end, UINT64_MAX};
	image_destroy(&image);
	for (unsigned i = 0; i < ARRAY_SIZE(blocks); i++) {
		image_create(&image);
		group_begin(&image);
		group_record(&image, blocks[i], 0, FS_BLOCK_SIZE, block_at(&image, header_block(&image, 1)));
		group_end(&image);
		expect_refused(&image, -EUCLEAN, "outside the allocation groups");
		image_destroy(&image);
	}
}

/* The journal of a filesystem that grew has its superblock, which must be one, and of this filesystem. */
static void test_superblocks_in_the_journal_are_checked(void **state)
{
	static const struct { const char *says; int error; } expected[] = {
		{"header.type", -EUCLEAN}, {"fsid", -EUCLEAN}, {"root_place", -EUCLEAN}, {"has grown to", -EINVAL}, {"header.block", -EUCLEAN}};
	for (unsigned i = 0; i < ARRAY_SIZE(expected); i++) {
		struct image image;
		image_create(&image);
		struct fs_super super = *(const struct fs_super *)block_at(&image, FS_SUPER_BLOCK);
		uint64_t block = FS_SUPER_BLOCK;
		if (i == 0)
			memcpy(&super, block_at(&image, header_block(&image, 1)), FS_BLOCK_SIZE);
		else if (i == 1)
			super.fsid = super.header.fsid = le64_set(le64_get(super.fsid) + 1);
		else if (i == 2)
			super.root_place = le64_set(1);
		else if (i == 3)
			super.block_count = le64_set(le64_get(super.block_count) + 1);
		else
			block = le64_get(super.block_count) - 1; /* it does not say that it stands there */
		group_begin(&image);
		group_record(&image, block, 0, FS_BLOCK_SIZE, &super);
		group_end(&image);
		expect_refused(&image, expected[i].error, expected[i].says);
		image_destroy(&image);
	}
}

static void test_records_with_bad_lengths_are_refused(void **state)
{
	static const struct { unsigned offset, length; } bad[] = {
		{0, 0}, {8, 0}, {8, 4096}, {4095, 2}, {0, 4097}, {65535, 1},
	};
	struct image image;
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		image_create(&image);
		group_begin(&image);
		group_record(&image, header_block(&image, 1), bad[i].offset, bad[i].length, NULL);
		group_end(&image);
		expect_refused(&image, -EUCLEAN, "bad length");
		image_destroy(&image);
	}
}

static void test_records_over_the_end_of_their_group_are_refused(void **state)
{
	struct image image;
	for (unsigned cut = 0; cut < 2; cut++) {
		image_create(&image);
		group_begin(&image);
		group_record(&image, header_block(&image, 1), 0, FS_BLOCK_SIZE, block_at(&image, header_block(&image, 1)));
		image.length -= cut ? FS_BLOCK_SIZE + 8 : 8; /* in the record's header; in its data */
		group_end(&image);
		expect_refused(&image, -EUCLEAN, cut ? "over the end" : "bad length");
		image_destroy(&image);
	}
}

static void test_wrong_number_of_records_is_refused(void **state)
{
	struct image image;
	for (unsigned i = 0; i < 2; i++) {
		image_create(&image);
		group_begin(&image);
		group_record(&image, header_block(&image, 1), 0, FS_BLOCK_SIZE, block_at(&image, header_block(&image, 1)));
		image.records = i ? 2 : 0;
		group_end(&image);
		expect_refused(&image, -EUCLEAN, "number of records");
		image_destroy(&image);
	}
}

static void test_image_that_is_no_metadata_is_refused(void **state)
{
	struct image image;
	image_create(&image);
	group_begin(&image);
	group_record(&image, header_block(&image, 1), 0, FS_BLOCK_SIZE, block_at(&image, header_block(&image, 2)));
	group_end(&image);
	expect_refused(&image, -EUCLEAN, "block");
	image_destroy(&image);
}

/* ---- what replay does to the device ---- */

/* What the recording device saw, up to and without the write of a state block, onto the memory of before. */
static void apply_up_to_state(struct mounted *mounted, uint8_t *memory)
{
	size_t count;
	const struct record_entry *entries = bdev_record_entries(sim_bdev(&mounted->sim, "record"), &count);
	for (size_t i = 0; i < count; i++) {
		if (entries[i].kind != RECORD_WRITE)
			continue;
		if (entries[i].offset < FS_JOURNAL_FIRST_BLOCK * FS_BLOCK_SIZE)
			return;
		memcpy(memory + entries[i].offset, entries[i].data, entries[i].length);
	}
}

static void test_replay_twice_equals_replay_once(void **state)
{
	struct image image;
	struct mounted mounted;
	image_create(&image);
	group_full(&image, 1, 100);
	group_full(&image, 2, 60);
	group_range(&image, 1, 101);
	uint8_t *cut = malloc(SIZE);
	memcpy(cut, image.memory, SIZE);
	mount_image(&mounted, &image, NULL, true);
	assert_int_equal(mounted.error, 0);
	apply_up_to_state(&mounted, cut);
	unmount_image(&mounted);
	assert_int_equal(bump_value(cut, 1), 101); /* home, and the tail has not moved */
	struct image again = image;
	again.memory = cut;
	expect_replay(&again, 3, 101);
	const uint64_t from = header_block(&image, 0) * FS_BLOCK_SIZE;
	assert_memory_equal(image.memory + from, cut + from, SIZE - from);
	image_destroy(&again);
	image_destroy(&image);
}

static MAY_WAIT int read_ag_1(void *arg)
{
	struct fs *fs = arg;
	uint32_t value;
	const int error = bump_read(owner_of_ag(fs, 1), 1, &value);
	return error ? error : (int)value;
}

static void test_read_only_mount_replays_in_memory(void **state)
{
	struct image image;
	struct mounted mounted;
	const struct fs_mount_options options = {.read_only = true};
	image_create(&image);
	group_full(&image, 1, 100);
	group_range(&image, 1, 101);
	uint8_t *before = malloc(SIZE);
	memcpy(before, image.memory, SIZE);
	mount_image(&mounted, &image, &options, false);
	assert_int_equal(mounted.error, 0);
	assert_int_equal(mounted.status.replayed_groups, 2);
	struct fs *fs = mounted.sim.fs;
	assert_int_equal(reactor_group_run(owner_of_ag(fs, 1)->reactor, read_ag_1, fs), 101);
	const struct bump bump = {.ags = 1};
	assert_int_equal(bump_run(fs->owners[0], &bump), -EROFS);
	unmount_image(&mounted);
	assert_memory_equal(before, image.memory, SIZE);
	free(before);
	image_destroy(&image);
}

/* ---- state blocks ---- */

static void test_state_block_with_the_higher_generation_counts(void **state)
{
	for (uint64_t newer = FS_STATE_BLOCK_A; newer <= FS_STATE_BLOCK_B; newer++) {
		struct image image;
		image_create(&image);
		const struct fs_state good = *state_of(&image);
		const uint64_t older = FS_STATE_BLOCK_A + FS_STATE_BLOCK_B - newer;
		const uint64_t generation = newer == FS_STATE_BLOCK_A ? 10 : 11;
		for (unsigned i = 0; i < 2; i++) {
			struct fs_state *at = state_at(&image, i ? newer : older);
			*at = good;
			at->header.block = le64_set(i ? newer : older);
			at->generation = le64_set(i ? generation : generation - 1);
			at->mount_generation = le64_set(i ? GENERATION : GENERATION - 1);
			seal(at);
		}
		group_full(&image, 1, 100);
		expect_replay(&image, 1, 100);
		image_destroy(&image);
	}
}

static void test_one_damaged_state_block_is_no_harm(void **state)
{
	struct image image;
	image_create(&image);
	const bool a_counts = state_of(&image) == state_at(&image, FS_STATE_BLOCK_A);
	struct fs_state *other = state_at(&image, a_counts ? FS_STATE_BLOCK_B : FS_STATE_BLOCK_A);
	group_full(&image, 1, 100);
	((uint8_t *)other)[100] ^= 1;
	expect_replay(&image, 1, 100);
	/* It was written again by that mount. The newest can be damaged as well: the one before says the same or less. */
	((uint8_t *)state_of(&image))[100] ^= 1;
	expect_replay(&image, 0, 100);
	image_destroy(&image);
}

static void test_two_damaged_state_blocks_are_refused(void **state)
{
	struct image image;
	image_create(&image);
	((uint8_t *)state_at(&image, FS_STATE_BLOCK_A))[100] ^= 1;
	((uint8_t *)state_at(&image, FS_STATE_BLOCK_B))[100] ^= 1;
	expect_refused(&image, -EUCLEAN, "both state blocks are damaged");
	image_destroy(&image);
}

static MAY_WAIT int bump_and_sync(void *arg)
{
	struct fs *fs = arg;
	const struct bump bump = {.ags = 1};
	const int error = bump_run(fs->owners[0], &bump);
	return error ? error : journal_sync(fs->owners[0]);
}

/* The state block with the new mount generation is durable before the first group with it is sent. */
static void test_mount_generation_rises_before_the_first_group(void **state)
{
	struct image image;
	struct mounted mounted;
	image_create(&image);
	mount_image(&mounted, &image, NULL, true);
	assert_int_equal(mounted.error, 0);
	assert_int_equal(reactor_group_run(reactor_group_get(mounted.sim.group, 0), bump_and_sync, mounted.sim.fs), 0);
	size_t count;
	const struct record_entry *entries = bdev_record_entries(sim_bdev(&mounted.sim, "record"), &count);
	uint64_t written = UINT64_MAX, durable = UINT64_MAX, group = UINT64_MAX;
	for (size_t i = 0; i < count && group == UINT64_MAX; i++) {
		const uint64_t block = entries[i].offset / FS_BLOCK_SIZE;
		if (entries[i].kind == RECORD_FLUSH && entries[i].submitted > written)
			durable = MIN(durable, entries[i].completed);
		if (entries[i].kind != RECORD_WRITE)
			continue;
		if (block == FS_STATE_BLOCK_A || block == FS_STATE_BLOCK_B) {
			const struct fs_state *risen = (const struct fs_state *)entries[i].data;
			assert_int_equal(le64_get(risen->mount_generation), GENERATION + 1);
			written = entries[i].completed;
		} else if (block >= FS_JOURNAL_FIRST_BLOCK && block < header_block(&image, 0)) {
			const struct journal_group *first = (const struct journal_group *)entries[i].data;
			assert_int_equal(le64_get(first->mount_generation), GENERATION + 1);
			group = entries[i].submitted;
		}
	}
	assert_true(written < durable && durable < group && group != UINT64_MAX);
	unmount_image(&mounted);
	image_destroy(&image);
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_chain_is_replayed_in_order),
		cmocka_unit_test(test_chain_goes_over_the_end_of_the_ring),
		cmocka_unit_test(test_chain_ends_at_the_first_group_that_does_not_continue_it),
		cmocka_unit_test(test_groups_of_an_abandoned_timeline_stay_dead),
		cmocka_unit_test(test_end_below_the_durable_sequence_is_a_lost_journal),
		cmocka_unit_test(test_byte_range_without_a_full_image_is_refused),
		cmocka_unit_test(test_records_outside_the_groups_are_refused),
		cmocka_unit_test(test_superblocks_in_the_journal_are_checked),
		cmocka_unit_test(test_records_with_bad_lengths_are_refused),
		cmocka_unit_test(test_records_over_the_end_of_their_group_are_refused),
		cmocka_unit_test(test_wrong_number_of_records_is_refused),
		cmocka_unit_test(test_image_that_is_no_metadata_is_refused),
		cmocka_unit_test(test_replay_twice_equals_replay_once),
		cmocka_unit_test(test_read_only_mount_replays_in_memory),
		cmocka_unit_test(test_state_block_with_the_higher_generation_counts),
		cmocka_unit_test(test_one_damaged_state_block_is_no_harm),
		cmocka_unit_test(test_two_damaged_state_blocks_are_refused),
		cmocka_unit_test(test_mount_generation_rises_before_the_first_group),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
