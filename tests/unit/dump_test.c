/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: "lanefs dump" shows every structure of the format, calls good what is good and names what is not, and survives
 * any bytes. Method: the image of fsck's tests, which holds one of everything, in a file; dump_main is called with its
 * output going to another file; then the same with random damage. Should it crash, what the sanitizer had to say is at
 * the end of the output file, whose name is printed first.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/verify.h"
#include "fsck_image.h"
#include "mkfs/dump.h"

static char image_path[] = "/tmp/lanefs-dump-image-XXXXXX", output_path[] = "/tmp/lanefs-dump-output-XXXXXX";
static int image_fd, output_fd;
static struct sample sample;
static char output[1 << 16];

static void image_write(const struct sample *from)
{
	const size_t size = (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE;

	assert_int_equal(pwrite(image_fd, from->data, size, 0), size);
}

/* Returns the exit status; what was said, as far as it fits, is in output. */
static int dump(char *target, char *structure, char *operand)
{
	char *argv[] = {(char *)"dump", target, structure, operand, NULL};
	const int stdout_fd = dup(STDOUT_FILENO), stderr_fd = dup(STDERR_FILENO);

	assert_int_equal(ftruncate(output_fd, 0), 0);
	fflush(stdout);
	dup2(output_fd, STDOUT_FILENO);
	dup2(output_fd, STDERR_FILENO);
	const int status = dump_main(operand ? 4 : structure ? 3 : target ? 2 : 1, argv);
	fflush(stdout);
	dup2(stdout_fd, STDOUT_FILENO);
	dup2(stderr_fd, STDERR_FILENO);
	close(stdout_fd);
	close(stderr_fd);
	const ssize_t length = pread(output_fd, output, sizeof(output) - 1, 0);
	assert_true(length >= 0);
	output[length] = '\0';
	return status;
}

static int dump_number(const char *structure, uint64_t number)
{
	char operand[24];

	snprintf(operand, sizeof(operand), "%" PRIu64, number);
	return dump(image_path, (char *)structure, operand);
}

static void assert_said(const char *part)
{
	if (!strstr(output, part))
		fail_msg("expected \"%s\" in:\n%s", part, output);
}

static int setup(void **state)
{
	sample_create(&sample);
	image_fd = mkstemp(image_path);
	output_fd = mkostemp(output_path, O_APPEND);
	if (image_fd < 0 || output_fd < 0)
		return -1;
	print_message("output of the dumper: %s\n", output_path);
	image_write(&sample);
	return 0;
}

static int teardown(void **state)
{
	sample_destroy(&sample);
	close(image_fd);
	close(output_fd);
	return unlink(image_path) | unlink(output_path);
}

/* ---- what is good ---- */

static void test_superblock_is_what_is_shown_by_default(void **state)
{
	assert_int_equal(dump(image_path, NULL, NULL), 0);
	assert_said("block 1 (superblock): good");
	assert_said("root place");
	assert_said(": good");
	assert_null(strstr(output, "BAD"));
}

static void test_every_structure_is_good(void **state)
{
	static char *const structures[] = {"super", "state", "journal", "all"};

	for (unsigned i = 0; i < ARRAY_SIZE(structures); i++)
		assert_int_equal(dump(image_path, structures[i], NULL), 0);
	for (uint64_t ag = 0; ag < SAMPLE_AGS; ag++)
		assert_int_equal(dump_number("ag", ag), 0);
	for (uint64_t block = 0; block < SAMPLE_BLOCKS; block += 100)
		assert_int_equal(dump_number("block", block), 0);
	for (unsigned i = 0; i < sample.metadata_count; i++) {
		assert_int_equal(dump_number("block", sample.metadata[i]), 0);
		assert_said("good");
	}
}

static void test_inodes_of_every_kind(void **state)
{
	const struct {
		uint64_t ino;
		const char *part;
	} inodes[] = {
		{FS_ROOT_INODE, "(directory)"}, {sample.file_inline, "inline"}, {sample.file_extents, "file blocks"},
		{sample.file_tree, "extent node"}, {sample.symlink, "symbolic link"}, {sample.symlink_long, "symbolic link"},
		{sample.fifo, "FIFO"}, {sample.device, "device"}, {sample.file_xattr, "xattr"}, {sample.wide, "tree"},
		{sample.orphan, "links                0"}, {sample.truncating, "file"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(inodes); i++) {
		assert_int_equal(dump_number("inode", inodes[i].ino), 0);
		assert_said(inodes[i].part);
	}
}

static void test_directories_and_paths(void **state)
{
	char line[64];

	assert_int_equal(dump_number("dir", sample.wide), 0);
	snprintf(line, sizeof(line), "%d entries", SAMPLE_WIDE_ENTRIES);
	assert_said(line);
	assert_int_equal(dump(image_path, (char *)"path", (char *)"/"), 0);
	assert_said("inode 1 ");
	assert_int_equal(dump(image_path, (char *)"path", (char *)"/no/such/file"), 1);
	assert_said("no: no such name in directory 1");
	assert_int_equal(dump_number("dir", sample.fifo), 1);
	assert_said("is no directory");
}

/* ---- from the other end ---- */

static void test_names_lead_to_an_inode_and_back(void **state)
{
	char words[64];

	assert_int_equal(dump_number("names", FS_ROOT_INODE), 0);
	assert_said("\"/\"");
	assert_int_equal(dump_number("names", sample.fifo), 0);
	assert_non_null(strstr(output, "\"/"));
	char path[256] = "";
	assert_int_equal(sscanf(strstr(output, "\"/"), "\"%255[^\"]", path), 1);
	assert_int_equal(dump(image_path, (char *)"path", path), 0);
	snprintf(words, sizeof(words), "inode %" PRIu64 " (", sample.fifo);
	assert_said(words);
	assert_int_equal(dump_number("names", sample.orphan), 0);
	assert_said("no name leads to it (removed while it was open)");
}

static void test_blocks_lead_to_their_file(void **state)
{
	char words[64];
	unsigned long long block = 0;

	assert_int_equal(dump_number("inode", sample.file_extents), 0);
	const char *extent = strstr(output, " at ");
	assert_non_null(extent);
	assert_int_equal(sscanf(extent, " at %llu", &block), 1);
	assert_int_equal(dump_number("owner", block), 0);
	snprintf(words, sizeof(words), "data of inode %" PRIu64 ", its block ", sample.file_extents);
	assert_said(words);
	assert_said("\"/");
	assert_int_equal(dump_number("owner", sample.extent_leaf[0]), 0);
	snprintf(words, sizeof(words), "of inode %" PRIu64, sample.file_tree);
	assert_said(words);
	assert_int_equal(dump_number("owner", FS_SUPER_BLOCK), 0);
	assert_said("is the superblock");
	assert_int_equal(dump_number("block", FS_JOURNAL_FIRST_BLOCK), 0);
	assert_said("of the journal's ring");
	assert_int_equal(dump(image_path, (char *)"inodes", NULL), 0);
	snprintf(words, sizeof(words), "%" PRIu64 ": 010", sample.fifo);
	assert_said(words);
}

/* ---- what is not ---- */

static void test_bad_blocks_are_named(void **state)
{
	struct sample copy;

	sample_copy(&sample, &copy);
	copy.data[sample_inode_block(&copy, copy.fifo) * FS_BLOCK_SIZE + 4000] ^= 1;
	image_write(&copy);
	assert_int_equal(dump_number("block", sample_inode_block(&copy, copy.fifo)), 1);
	assert_said("BAD: header.crc");
	((struct tree_node *)sample_block(&copy, copy.extent_leaf[0]))->count = le16_set(999);
	sample_seal(&copy, sample_block(&copy, copy.extent_leaf[0]));
	image_write(&copy);
	assert_int_equal(dump_number("inode", copy.file_tree), 1);
	assert_said("BAD: count");
	sample_destroy(&copy);
	image_write(&sample);
}

static void test_bad_superblock_is_replaced_by_the_copy(void **state)
{
	struct sample copy;

	sample_copy(&sample, &copy);
	memset(sample_super(&copy), 0, FS_BLOCK_SIZE);
	image_write(&copy);
	assert_int_equal(dump(image_path, (char *)"all", NULL), 1);
	assert_said("its copy in block");
	memset(sample_block(&copy, SAMPLE_BLOCKS - 1), 0, FS_BLOCK_SIZE);
	image_write(&copy);
	assert_int_equal(dump(image_path, NULL, NULL), 1);
	assert_said("no good superblock");
	sample_destroy(&copy);
	image_write(&sample);
}

static void test_what_is_not_there(void **state)
{
	assert_int_equal(dump_number("ag", SAMPLE_AGS), 1);
	assert_int_equal(dump_number("block", SAMPLE_BLOCKS), 1);
	assert_int_equal(dump_number("block", UINT64_MAX), 1);
	assert_int_equal(dump_number("inode", 0), 1);
	assert_int_equal(dump_number("inode", 15 | sample.fifo), 1);
	assert_int_equal(dump_number("inode", UINT64_MAX), 1);
	assert_int_equal(dump((char *)"/nonexistent/image", NULL, NULL), 1);
	assert_int_equal(dump((char *)"/dev/null", NULL, NULL), 1);
}

static void test_wrong_usage_exits_2(void **state)
{
	assert_int_equal(dump(NULL, NULL, NULL), 2);
	assert_int_equal(dump(image_path, (char *)"everything", NULL), 2);
	assert_int_equal(dump(image_path, (char *)"inode", NULL), 2);
	assert_int_equal(dump(image_path, (char *)"inode", (char *)"one"), 2);
	assert_int_equal(dump(image_path, (char *)"super", (char *)"1"), 2);
	assert_int_equal(dump((char *)"--help", NULL, NULL), 0);
	assert_said("Usage: lanefs dump");
	assert_int_equal(dump((char *)"--cooked", image_path, NULL), 2);
}

/* ---- random damage ---- */

static void damage(struct sample *copy)
{
	for (unsigned i = 1 + (unsigned)random() % 20; i; i--) {
		const uint64_t block = random() % 8 ? copy->metadata[(unsigned)random() % copy->metadata_count] :
						      (uint64_t)random() % SAMPLE_BLOCKS;
		uint8_t *bytes = sample_block(copy, block);
		const unsigned at = (unsigned)random() % (random() % 2 ? FS_BLOCK_SIZE : 512);
		bytes[at] = random() % 2 ? (uint8_t)random() : bytes[at] ^ (uint8_t)(1 << random() % 8);
		if (random() % 4) /* else the crc is wrong too */
			block_seal(bytes, 0);
	}
}

static void test_random_damage_is_survived(void **state)
{
	const uint64_t inos[] = {sample.file_tree, sample.wide, sample.file_xattr, sample.symlink_long, FS_ROOT_INODE};
	struct sample copy;

	srandom(1);
	for (unsigned round = 0; round < 60; round++) {
		sample_copy(&sample, &copy);
		damage(&copy);
		image_write(&copy);
		assert_in_range(dump(image_path, (char *)"all", NULL), 0, 1);
		for (unsigned i = 0; i < ARRAY_SIZE(inos); i++) {
			assert_in_range(dump_number("inode", inos[i]), 0, 1);
			assert_in_range(dump_number("dir", inos[i]), 0, 1);
			assert_in_range(dump_number("names", inos[i]), 0, 1);
		}
		assert_in_range(dump_number("owner", (uint64_t)random() % SAMPLE_BLOCKS), 0, 1);
		for (unsigned i = round % 8; i < copy.metadata_count; i += 8)
			assert_in_range(dump_number("block", copy.metadata[i]), 0, 1);
		sample_destroy(&copy);
	}
	image_write(&sample);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_superblock_is_what_is_shown_by_default),
		cmocka_unit_test(test_every_structure_is_good),
		cmocka_unit_test(test_inodes_of_every_kind),
		cmocka_unit_test(test_directories_and_paths),
		cmocka_unit_test(test_names_lead_to_an_inode_and_back),
		cmocka_unit_test(test_blocks_lead_to_their_file),
		cmocka_unit_test(test_bad_blocks_are_named),
		cmocka_unit_test(test_bad_superblock_is_replaced_by_the_copy),
		cmocka_unit_test(test_what_is_not_there),
		cmocka_unit_test(test_wrong_usage_exits_2),
		cmocka_unit_test(test_random_damage_is_survived),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
