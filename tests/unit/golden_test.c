/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the disk format does not change unnoticed. Method: an image with fixed options is compared block by block with
 * golden/image.txt (number, type and crc32c of all 4096 bytes), and a few fields with their offsets written out as
 * numbers, so that neither format.h nor mkfs can move them. A wanted change of the format writes the file anew:
 *
 *     build/tests/unit/golden_test tests/unit/golden/image.txt --write
 */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/verify.h"
#include "tests/unit/image.h"

static const char *golden_path;
static struct image image;

static int by_number(const void *left, const void *right)
{
	const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;

	return a < b ? -1 : a > b;
}

static void line_make(char line[64], uint64_t block)
{
	const struct block_header *header = image_block(&image, block);
	const char *name = le32_get(header->magic) == FS_BLOCK_MAGIC ? block_type_name(le16_get(header->type)) : "zeroes";

	snprintf(line, 64, "%" PRIu64 " %08" PRIx32 " %s\n", block, fs_crc32c(0, header, FS_BLOCK_SIZE), name);
}

static void test_blocks_are_as_ever(void **state)
{
	FILE *golden = fopen(golden_path, "r");
	char expected[64], line[64];

	assert_non_null(golden);
	for (unsigned i = 0; i < image.written; i++) {
		line_make(line, image.order[i]);
		if (!fgets(expected, sizeof(expected), golden) || strcmp(line, expected))
			fail_msg("the disk format has changed: %s should be %s", line, expected);
	}
	assert_null(fgets(expected, sizeof(expected), golden));
	fclose(golden);
}

static uint64_t field(uint64_t block, unsigned offset, unsigned bytes)
{
	const uint8_t *data = image_block(&image, block);
	uint64_t value = 0;

	for (unsigned i = 0; i < bytes; i++)
		value |= (uint64_t)data[offset + i] << 8 * i;
	return value;
}

static void test_fields_stand_where_they_stood(void **state)
{
	static const struct {
		uint64_t block;
		unsigned offset, bytes;
		uint64_t value;
	} fields[] = {
		{1, 0, 4, 0x4b424e4c},        /* header.magic */
		{1, 8, 2, 1},                 /* header.type */
		{1, 48, 8, 0x5346454e414c},   /* magic: "LANEFS" */
		{1, 56, 4, 1},                /* version */
		{1, 64, 8, 0x0706050403020100}, /* uuid */
		{1, 80, 8, 0x6e65646c6f67},   /* label: "golden" */
		{1, 112, 8, 0x1234567},       /* fsid */
		{1, 136, 8, 3072},            /* block_count */
		{1, 152, 8, 256},             /* journal_blocks */
		{1, 160, 8, 260},             /* first_ag_block */
		{1, 168, 4, 256},             /* ag_blocks */
		{1, 172, 4, 11},              /* ag_count */
		{1, 176, 4, 251},             /* last_ag_blocks */
		{1, 184, 8, 5 << 4},          /* root_place */
		{2, 48, 8, 2},                /* generation of state block A */
		{2, 64, 4, 1},                /* clean */
		{2, 80, 8, 1000},             /* tail_sequence */
		{2, 88, 4, 0xfeedface},       /* tail_crc */
		{2, 96, 8, 999},              /* durable_sequence */
		{260, 56, 4, 250},            /* free_blocks of AG 0 */
		{260, 88, 8, 1},              /* block_map_ready */
		{262, 64, 1, 0x3f},           /* block map: header, spare block, three maps, inode block */
		{262, 96, 1, 0xff},           /* the first bits past the end */
		{263, 64, 1, 0x20},           /* inode map */
		{264, 64, 1, 0x20},           /* inode free map */
		{265, 48, 4, 1},              /* used_mask */
		{265, 256, 2, 040750},        /* mode of the root */
		{265, 258, 1, 1},             /* format: inline */
		{265, 272, 4, 2},             /* nlink */
		{265, 296, 8, 1700000000},    /* atime_sec */
		{265, 344, 8, 1},             /* parent */
	};

	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++) {
		const uint64_t value = field(fields[i].block, fields[i].offset, fields[i].bytes);
		if (value != fields[i].value)
			fail_msg("block %" PRIu64 ", offset %u: %#" PRIx64 " should be %#" PRIx64, fields[i].block,
				fields[i].offset, value, fields[i].value);
	}
}

static int golden_write(void)
{
	FILE *golden = fopen(golden_path, "w");
	char line[64];

	if (!golden)
		return 1;
	for (unsigned i = 0; i < image.written; i++) {
		line_make(line, image.order[i]);
		fputs(line, golden);
	}
	return fclose(golden) ? 1 : 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_blocks_are_as_ever),
		cmocka_unit_test(test_fields_stand_where_they_stood),
	};
	const struct mkfs_options options = image_options();

	if (argc < 2 || image_init(&image, &options, 0))
		return 2;
	golden_path = argv[1];
	qsort(image.order, image.written, sizeof(*image.order), by_number);
	const bool write = argc > 2 && !strcmp(argv[2], "--write");
	const int failed = write ? golden_write() : cmocka_run_group_tests(tests, NULL, NULL);
	image_fini(&image);
	return failed;
}
