/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a planned geometry lies within the device whatever the options, options that make none are refused with the
 * next step, and what is written is complete, true in every count, and in an order that a crash may cut anywhere.
 * Method: plans of many sizes; images in memory, seen through the verifiers, with a write error at every place.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <sys/stat.h>

#include "fs/verify.h"
#include "tests/unit/image.h"

static char message[256];

static int plan(const struct mkfs_options *options, struct fs_super *super)
{
	message[0] = '\0';
	return mkfs_plan(options, super, message, sizeof(message));
}

static void assert_refused(const struct mkfs_options *options, int error, const char *part)
{
	struct fs_super *super = calloc(1, sizeof(*super));

	assert_int_equal(plan(options, super), error);
	if (!strstr(message, part) || !strstr(message, ";") || strchr(message, '\n'))
		fail_msg("message \"%s\": expected \"%s\" and a next step, in one line", message, part);
	free(super);
}

/* ---- geometry ---- */

static void test_smallest_target(void **state)
{
	const uint64_t smallest = MIB(68) + 5 * FS_BLOCK_SIZE; /* 8 AGs of 8 MiB, 4 MiB journal, head and last block */
	struct fs_super *super = calloc(1, sizeof(*super));
	struct mkfs_options options = {.size_bytes = smallest - FS_BLOCK_SIZE, .first_sequence = 1};

	assert_refused(&options, -ENOSPC, "the smallest is 69652 KiB");
	options.size_bytes = smallest + 4095; /* what does not fill a block does not count */
	assert_int_equal(plan(&options, super), 0);
	assert_int_equal(le64_get(super->block_count), smallest / FS_BLOCK_SIZE);
	assert_int_equal(le32_get(super->ag_count), 8);
	free(super);
}

static void test_sizes_out_of_bounds_are_refused(void **state)
{
	const struct mkfs_options good = {.size_bytes = GIB(1), .first_sequence = 1};
	struct mkfs_options options = good;

	options.journal_bytes = MIB(4) - 1;
	assert_refused(&options, -EINVAL, "choose 4096 KiB to 1024 MiB");
	options.journal_bytes = GIB(1) + FS_BLOCK_SIZE;
	assert_refused(&options, -EINVAL, "journal");
	options.journal_bytes = MIB(990);
	assert_refused(&options, -ENOSPC, "the smallest is");
	options = good;
	options.ag_bytes = MIB(8) - 1;
	assert_refused(&options, -EINVAL, "choose 8192 KiB to 4096 MiB");
	options.ag_bytes = GIB(4) + 1;
	assert_refused(&options, -EINVAL, "allocation groups");
	options.ag_bytes = GIB(1);
	assert_refused(&options, -ENOSPC, "the smallest is");
	options = good;
	options.size_bytes = UINT64_MAX;
	assert_refused(&options, -EINVAL, "8 EiB");
	options.size_bytes = 1ull << 63;
	options.ag_bytes = MIB(8);
	assert_refused(&options, -EINVAL, "choose larger ones");
}

static void test_other_options_are_refused(void **state)
{
	const struct mkfs_options good = {.size_bytes = GIB(1), .first_sequence = 1};
	struct mkfs_options options = good;

	memset(options.label, 'x', sizeof(options.label));
	assert_refused(&options, -EINVAL, "label");
	options = good;
	options.first_sequence = 0;
	assert_refused(&options, -EINVAL, "sequence");
	options.first_sequence = 1ull << 40;
	assert_refused(&options, -EINVAL, "sequence");
	options = good;
	options.root_mode = S_IFDIR | 0755;
	assert_refused(&options, -EINVAL, "root mode");
}

static void test_defaults(void **state)
{
	static const struct {
		uint64_t size_bytes, journal_bytes, ag_bytes;
		uint32_t ag_count;
	} cases[] = {
		{MIB(128), MIB(4), 0, 8},
		{GIB(1), MIB(16), 0, 8},
		{GIB(4), MIB(64), 0, 8},
		{GIB(16), MIB(64), GIB(1), 16},
		{1ull << 40, MIB(64), GIB(1), 1024},
	};
	struct fs_super *super = calloc(1, sizeof(*super));

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const struct mkfs_options options = {.size_bytes = cases[i].size_bytes, .first_sequence = 1};
		assert_int_equal(plan(&options, super), 0);
		assert_int_equal(le64_get(super->journal_blocks) * FS_BLOCK_SIZE, cases[i].journal_bytes);
		assert_int_equal(le32_get(super->ag_count), cases[i].ag_count);
		if (cases[i].ag_bytes)
			assert_int_equal((uint64_t)le32_get(super->ag_blocks) * FS_BLOCK_SIZE, cases[i].ag_bytes);
	}
	free(super);
}

static void test_every_size_gives_a_good_superblock(void **state)
{
	struct fs_super *super = calloc(1, sizeof(*super));

	srandom(1);
	for (unsigned i = 0; i < 20000; i++) {
		const uint64_t spread = (uint64_t)random() << 31 | (uint64_t)random();
		const struct mkfs_options options = {
			.size_bytes = spread >> (random() % 42),
			.ag_bytes = random() % 2 ? 0 : MIB(1) + (uint64_t)random() % GIB(4),
			.journal_bytes = random() % 2 ? 0 : MIB(1) + (uint64_t)random() % MIB(64),
			.small = random() % 2,
			.first_sequence = 1,
		};
		if (plan(&options, super))
			continue;
		const char *failed = super_verify(super, FS_SUPER_BLOCK, options.size_bytes / FS_BLOCK_SIZE);
		const uint64_t end = ag_first_block(super, le32_get(super->ag_count) - 1) + le32_get(super->last_ag_blocks);
		const uint64_t unused = le64_get(super->block_count) - 1 - end;
		if (failed || unused >= ag_fixed_blocks(super) + FS_AG_BLOCKS_LAST_MIN)
			fail_msg("%llu bytes, AGs of %llu: %s, %llu blocks unused", (unsigned long long)options.size_bytes,
				(unsigned long long)options.ag_bytes, failed ? failed : "good", (unsigned long long)unused);
	}
	free(super);
}

static void test_short_rest(void **state)
{
	struct fs_super *super = calloc(1, sizeof(*super));
	struct mkfs_options options = image_options();
	const uint64_t whole = (uint64_t)FS_JOURNAL_FIRST_BLOCK + 256 + 4 * 256 + 1; /* journal, four AGs */

	options.size_bytes = (whole + FS_AG_BLOCKS_LAST_MIN - 1) * FS_BLOCK_SIZE;
	assert_int_equal(plan(&options, super), 0);
	assert_int_equal(le32_get(super->ag_count), 4);
	assert_int_equal(le32_get(super->last_ag_blocks), 256);
	options.size_bytes += FS_BLOCK_SIZE;
	assert_int_equal(plan(&options, super), 0);
	assert_int_equal(le32_get(super->ag_count), 5);
	assert_int_equal(le32_get(super->last_ag_blocks), FS_AG_BLOCKS_LAST_MIN);
	free(super);
}

/* ---- what is written ---- */

static void image_make(struct image *image)
{
	const struct mkfs_options options = image_options();

	assert_int_equal(image_init(image, &options, 0), 0);
}

static void test_every_block_is_written_once_and_good(void **state)
{
	static struct image image;

	image_make(&image);
	bool *seen = calloc(image.block_count, sizeof(*seen));
	for (unsigned i = 0; i < image.written; i++) {
		const uint64_t block = image.order[i];
		const struct block_header *header = image_block(&image, block);
		assert_false(seen[block]);
		seen[block] = true;
		if (block)
			assert_null(block_verify(&image.super, header, block, le16_get(header->type), BLOCK_OWNER_ANY, true));
		else
			assert_int_equal(le32_get(header->magic), 0);
		assert_int_equal(le64_get(header->sequence), 0);
	}
	assert_int_equal(image.order[image.written - 1], FS_SUPER_BLOCK);
	assert_memory_equal(&image.super, image_block(&image, FS_SUPER_BLOCK), FS_BLOCK_SIZE);
	free(seen);
	image_fini(&image);
}

static void test_superblock_copies(void **state)
{
	static struct image image;

	image_make(&image);
	const uint32_t ag_count = le32_get(image.super.ag_count);
	assert_int_equal(ag_count, 11);
	for (uint32_t ag = 0; ag < ag_count; ag++) {
		const uint64_t block = ag_first_block(&image.super, ag) + FS_AG_SUPER_COPY;
		const bool copy = ag == 1 || ag == 2 || ag == 4 || ag == 8;
		const char *failed = super_verify(image_block(&image, block), block, image.block_count);
		assert_int_equal(failed == NULL, copy);
	}
	assert_null(super_verify(image_block(&image, image.block_count - 1), image.block_count - 1, image.block_count));
	image_fini(&image);
}

static void test_counts_agree(void **state)
{
	static struct image image;
	uint64_t free_blocks = 0, used_inodes = 0;

	image_make(&image);
	for (uint32_t ag = 0; ag < le32_get(image.super.ag_count); ag++) {
		const struct ag_header *header = image_block(&image, ag_first_block(&image.super, ag));
		free_blocks += le32_get(header->free_blocks);
		used_inodes += le32_get(header->used_inodes);
		assert_int_equal(le32_get(header->next_generation), ag ? 1 : 2);
		assert_int_equal(le64_get(header->block_map_ready), !ag);
	}
	for (uint64_t block = FS_STATE_BLOCK_A; block <= FS_STATE_BLOCK_B; block++) {
		const struct fs_state *fs_state = image_block(&image, block);
		assert_int_equal(le64_get(fs_state->free_blocks), free_blocks);
		assert_int_equal(le64_get(fs_state->used_inodes), used_inodes);
		assert_int_equal(le32_get(fs_state->clean), 1);
		assert_int_equal(le64_get(fs_state->generation), block == FS_STATE_BLOCK_A ? 2 : 1);
		assert_int_equal(le64_get(fs_state->durable_sequence), le64_get(fs_state->tail_sequence) - 1);
	}
	const uint64_t first = ag_first_block(&image.super, 0);
	const struct map_block *map = image_block(&image, first + FS_AG_MAPS_FIRST);
	uint32_t zero_bits = 0;
	for (uint32_t bit = 0; bit < FS_MAP_BITS; bit++)
		zero_bits += !(map->bits[bit / 8] >> bit % 8 & 1);
	assert_int_equal(zero_bits, le32_get(((const struct ag_header *)image_block(&image, first))->free_blocks));
	image_fini(&image);
}

static void test_root_directory(void **state)
{
	static struct image image;

	image_make(&image);
	const uint64_t place = le64_get(image.super.root_place);
	const uint64_t block = ag_first_block(&image.super, ino_ag(place)) + ino_ag_block(place);
	const struct disk_inode *root = &((struct inode_block *)image_block(&image, block))->inode[ino_slot(place)];
	assert_int_equal(ino_ag_block(place), ag_fixed_blocks(&image.super));
	assert_int_equal(le16_get(root->mode), S_IFDIR | 0750);
	assert_int_equal(le32_get(root->nlink), 2);
	assert_int_equal(le64_get(root->parent), FS_ROOT_INODE);
	assert_int_equal(le32_get(root->uid), 1000);
	assert_int_equal(root->format, FORK_INLINE);
	assert_int_equal(le64_get(root->btime_sec), 1700000000);
	image_fini(&image);
}

static void test_a_write_error_at_every_place(void **state)
{
	const struct mkfs_options options = image_options();
	static struct image image;

	image_make(&image);
	const unsigned writes = image.written;
	image_fini(&image);
	for (unsigned i = 1; i <= writes; i++) {
		assert_int_equal(image_init(&image, &options, i), -EIO);
		assert_int_equal(image.written, i);
		assert_non_null(strstr(image.message, "write failed"));
		assert_non_null(super_verify(image_block(&image, FS_SUPER_BLOCK), FS_SUPER_BLOCK, image.block_count));
		image_fini(&image);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_smallest_target),
		cmocka_unit_test(test_sizes_out_of_bounds_are_refused),
		cmocka_unit_test(test_other_options_are_refused),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_every_size_gives_a_good_superblock),
		cmocka_unit_test(test_short_rest),
		cmocka_unit_test(test_every_block_is_written_once_and_good),
		cmocka_unit_test(test_superblock_copies),
		cmocka_unit_test(test_counts_agree),
		cmocka_unit_test(test_root_directory),
		cmocka_unit_test(test_a_write_error_at_every_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
