/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the command mkfs.lanefs makes what fsck.lanefs calls good, leaves no trace of what was there before, and
 * refuses with one line, the right exit status and an untouched target. Method: both tools, named by the arguments, run
 * as processes on small images in a folder of their own.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/mkfs.h"
#include "fs/verify.h"

static const char *mkfs_tool, *fsck_tool;
static char folder[] = "/tmp/lanefs-mkfs-test-XXXXXX", image[64];
static char output[4096];
static rlim_t file_limit = RLIM_INFINITY; /* bytes, of the next process */

/* Runs a tool with at most six arguments; what it says is in output. Returns its exit status. */
static int run_tool(const char *tool, const char *const arguments[6])
{
	int pipe_fds[2], status;

	assert_int_equal(pipe(pipe_fds), 0);
	const pid_t pid = fork();
	if (!pid) {
		const struct rlimit limit = {file_limit, file_limit};
		setrlimit(RLIMIT_FSIZE, &limit);
		dup2(pipe_fds[1], STDOUT_FILENO);
		dup2(pipe_fds[1], STDERR_FILENO);
		close(pipe_fds[0]);
		execl(tool, tool, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5], (char *)NULL);
		_exit(127);
	}
	close(pipe_fds[1]);
	size_t length = 0;
	for (ssize_t got; (got = read(pipe_fds[0], output + length, sizeof(output) - 1 - length)) > 0;)
		length += (size_t)got;
	output[length] = '\0';
	close(pipe_fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}
#define MKFS(...) run_tool(mkfs_tool, (const char *const[6]){__VA_ARGS__})
#define FSCK(...) run_tool(fsck_tool, (const char *const[6]){__VA_ARGS__})

static void assert_said(const char *part)
{
	if (!strstr(output, part))
		fail_msg("expected \"%s\" in:\n%s", part, output);
}

/* One line that names the tool, with a next step. */
static void assert_one_line(void)
{
	const char *end = strchr(output, '\n');

	if (!end || end[1] || strncmp(output, "mkfs.lanefs: ", 13) || !strchr(output, ';'))
		fail_msg("not one line with object, cause and next step:\n%s", output);
}

/* ---- images ---- */

static void image_make(uint64_t size_bytes)
{
	const int fd = open(image, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size_bytes), 0);
	close(fd);
}

static void image_put(const void *data, size_t length, uint64_t offset)
{
	const int fd = open(image, O_WRONLY);

	assert_int_equal(pwrite(fd, data, length, (off_t)offset), length);
	close(fd);
}

static void image_get(void *data, size_t length, uint64_t offset)
{
	const int fd = open(image, O_RDONLY);

	assert_int_equal(pread(fd, data, length, (off_t)offset), length);
	close(fd);
}

static uint32_t image_crc(void)
{
	const int fd = open(image, O_RDONLY);
	char *data = malloc(MIB(1));
	uint32_t crc = 0;

	assert_true(fd >= 0 && data);
	for (ssize_t got; (got = read(fd, data, MIB(1))) > 0;)
		crc = fs_crc32c(crc, data, (size_t)got);
	free(data);
	close(fd);
	return crc;
}

static bool image_exists(void)
{
	return !access(image, F_OK);
}

static int image_remove(void **state)
{
	return unlink(image) && errno != ENOENT;
}

/* ---- what is made ---- */

static void test_new_image_is_made_and_good(void **state)
{
	static struct fs_super super;
	struct stat stat_buffer;

	assert_int_equal(MKFS("-L", "l\xc3\xa4nes", "-U", "01234567-89ab-4cde-8123-456789abcdef", image, "1G"), 0);
	assert_said("uuid               01234567-89ab-4cde-8123-456789abcdef");
	assert_said("label              l\xc3\xa4nes");
	assert_said("size               1 GiB, 262144 blocks");
	assert_said("journal            16 MiB");
	assert_said("allocation groups  8 of");
	assert_int_equal(stat(image, &stat_buffer), 0);
	assert_int_equal(stat_buffer.st_size, GIB(1));
	assert_true((uint64_t)stat_buffer.st_blocks * 512 < MIB(16)); /* sparse */
	assert_int_equal(stat_buffer.st_mode & 0777, 0600);
	image_get(&super, sizeof(super), FS_BLOCK_SIZE);
	assert_null(super_verify(&super, FS_SUPER_BLOCK, GIB(1) / FS_BLOCK_SIZE));
	assert_string_equal((const char *)super.label, "l\xc3\xa4nes");
	assert_int_equal(FSCK("-n", "-f", image), 0);
	assert_said("0 findings");
}

static void test_quiet_says_nothing(void **state)
{
	assert_int_equal(MKFS("-q", image, "128M"), 0);
	assert_string_equal(output, "");
}

static void test_few_groups_are_noted(void **state)
{
	assert_int_equal(MKFS("-g", "64M", image, "300M"), 0);
	assert_said("allocation groups  5 of 64 MiB");
	assert_said("note: fewer than 8");
	assert_int_equal(FSCK("-n", "-f", image), 0);
}

static void test_part_of_a_target_is_used(void **state)
{
	image_make(MIB(200));
	assert_int_equal(MKFS(image, "100M"), 0);
	assert_said("25600 blocks");
	assert_int_equal(FSCK("-n", "-f", image), 0);
}

static void test_drawn_values_differ_every_time(void **state)
{
	static struct fs_super first, second;

	assert_int_equal(MKFS("-q", image, "128M"), 0);
	image_get(&first, sizeof(first), FS_BLOCK_SIZE);
	assert_int_equal(MKFS("-q", "-f", image), 0);
	image_get(&second, sizeof(second), FS_BLOCK_SIZE);
	assert_memory_not_equal(first.uuid, second.uuid, FS_UUID_BYTES);
	assert_int_not_equal(first.fsid.raw, second.fsid.raw);
	assert_int_not_equal(first.journal_id.raw, second.journal_id.raw);
	assert_int_not_equal(first.hash_seed.raw, second.hash_seed.raw);
}

/* ---- what was there before ---- */

static const struct signature {
	const char *name, *bytes;
	unsigned length;
	int64_t offset; /* negative: from the end */
} signatures[] = {
	{"btrfs", "_BHRfS_M", 8, 65600},
	{"swap", "SWAPSPACE2", 10, 4086},
	{"nilfs2", "\x34\x34", 2, 1030}, /* with its checksum wrong it is still no empty target */
	{"gfs2", "\x01\x16\x19\x70\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\x64\0\0\0\0\0\0\x07\x09\0\0\x07\x6c", 32, 65536},
	{"reiser4", "ReIsEr4", 7, 65536},
	{"zfs_member", "\x0c\xb1\xba\0\0\0\0\0", 8, 262144 + 128 * 1024},
	{"linux_raid_member", "\xfc\x4e\x2b\xa9\0\0\0\0\0\0\0\0", 12, -65536},
};

static void test_known_signatures_are_refused_or_gone(void **state)
{
	unsigned known = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(signatures); i++) {
		const struct signature *signature = &signatures[i];
		const uint64_t offset = (uint64_t)(signature->offset + (signature->offset < 0 ? (int64_t)MIB(128) : 0));
		char left[32];
		image_make(MIB(128));
		image_put(signature->bytes, signature->length, offset);
		const uint32_t crc = image_crc();
		if (MKFS("-n", image)) { /* libblkid may want more of a format than its magic number */
			known++;
			assert_said(signature->name);
			assert_said("to overwrite it use -f");
			assert_one_line();
			assert_int_equal(MKFS(image), 1);
		}
		assert_int_equal(image_crc(), crc);
		assert_int_equal(MKFS("-f", "--no-discard", image), 0);
		image_get(left, signature->length, offset);
		assert_memory_not_equal(left, signature->bytes, signature->length);
	}
	assert_true(known >= 3);
}

static void test_partition_table_is_refused(void **state)
{
	uint8_t sector[512] = {[446] = 0, [446 + 4] = 0x83, [446 + 8] = 64, [446 + 13] = 1, [510] = 0x55, [511] = 0xaa};

	image_make(MIB(128));
	image_put(sector, sizeof(sector), 0);
	assert_int_equal(MKFS(image), 1);
	assert_said("a partition table of type dos");
	assert_int_equal(MKFS("-f", image), 0);
	assert_said("overwriting a partition table of type dos");
}

static void test_lanefs_is_refused_even_if_damaged(void **state)
{
	static const uint8_t zeroes[FS_BLOCK_SIZE];

	assert_int_equal(MKFS("-L", "precious", image, "128M"), 0);
	assert_int_equal(MKFS(image), 1);
	assert_said("holds a lanefs filesystem, uuid");
	assert_said("label \"precious\"");
	image_put(zeroes, sizeof(zeroes), FS_BLOCK_SIZE);
	const uint32_t crc = image_crc();
	assert_int_equal(MKFS(image), 1);
	assert_said("holds a damaged lanefs filesystem");
	assert_one_line();
	assert_int_equal(image_crc(), crc);
}

/* ---- refusals ---- */

static void test_wrong_usage_exits_2(void **state)
{
	static const char *const lines[][5] = {
		{NULL},
		{"-x", image},
		{"--frobnicate", image},
		{image, "128M", "more"},
		{image, "12Q"},
		{image, "-L"},
		{image, "128M", "-j", "much"},
		{image, "128M", "-g", "-1"},
		{image, "128M", "-j", "99999999999999999999"},
		{image, "128M", "-U", "not-a-uuid"},
		{image, "128M", "-L", "a label of more than thirty-two bytes"},
		{image, "128M", "-L", "bell\a"},
		{image, "128M", "-L", "\xff\xfe"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
		assert_int_equal(run_tool(mkfs_tool, (const char *const[6]){lines[i][0], lines[i][1], lines[i][2], lines[i][3]}), 2);
		assert_one_line();
		assert_false(image_exists());
	}
	assert_int_equal(MKFS("--help"), 0);
	assert_said("usage: mkfs.lanefs");
	assert_int_equal(MKFS("-V"), 0);
	assert_said("mkfs.lanefs " LANEFS_VERSION);
}

static void test_bad_sizes_exit_1(void **state)
{
	static const char *const lines[][4] = {
		{image},
		{image, "1M"},
		{image, "69651K"},
		{image, "128M", "-j", "1M"},
		{image, "128M", "-j", "2G"},
		{image, "128M", "-g", "4M"},
		{image, "128M", "-g", "1G"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
		assert_int_equal(run_tool(mkfs_tool, (const char *const[6]){lines[i][0], lines[i][1], lines[i][2], lines[i][3]}), 1);
		assert_one_line();
		assert_false(image_exists());
	}
	image_make(MIB(100));
	assert_int_equal(MKFS(image, "101M"), 1);
	assert_said("has only 100 MiB");
	assert_one_line();
}

static void test_targets_that_cannot_be_formatted_exit_1(void **state)
{
	static const char *const targets[] = {"/nonexistent/image", "/tmp", "/dev/zero", "/dev/null", "pci:0000",
		"0000:5e:00.0", "emu:/nonexistent/x", "virtio:0000:00:05.0", "mirror:a,b", ""};

	for (unsigned i = 0; i < ARRAY_SIZE(targets); i++) {
		assert_int_equal(MKFS(targets[i], "128M"), 1);
		assert_said(targets[i]);
		assert_one_line();
	}
}

static void test_target_in_use_is_refused(void **state)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	image_make(MIB(128));
	const int fd = open(image, O_RDWR);
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(MKFS("-f", image), 1);
	assert_said("in use");
	assert_one_line();
	close(fd);
	assert_int_equal(MKFS(image), 0);
}

static void test_dry_run_writes_nothing(void **state)
{
	assert_int_equal(MKFS("-n", image, "1G"), 0);
	assert_said("would become a lanefs");
	assert_false(image_exists());
	image_make(MIB(128));
	const uint32_t crc = image_crc();
	assert_int_equal(MKFS("-n", image), 0);
	assert_int_equal(image_crc(), crc);
}

static void test_a_failed_new_image_is_removed(void **state)
{
	file_limit = MIB(32);
	assert_int_equal(MKFS(image, "128M"), 1);
	file_limit = RLIM_INFINITY;
	assert_one_line();
	assert_false(image_exists());
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_new_image_is_made_and_good, image_remove),
		cmocka_unit_test_teardown(test_quiet_says_nothing, image_remove),
		cmocka_unit_test_teardown(test_few_groups_are_noted, image_remove),
		cmocka_unit_test_teardown(test_part_of_a_target_is_used, image_remove),
		cmocka_unit_test_teardown(test_drawn_values_differ_every_time, image_remove),
		cmocka_unit_test_teardown(test_known_signatures_are_refused_or_gone, image_remove),
		cmocka_unit_test_teardown(test_partition_table_is_refused, image_remove),
		cmocka_unit_test_teardown(test_lanefs_is_refused_even_if_damaged, image_remove),
		cmocka_unit_test_teardown(test_wrong_usage_exits_2, image_remove),
		cmocka_unit_test_teardown(test_bad_sizes_exit_1, image_remove),
		cmocka_unit_test_teardown(test_targets_that_cannot_be_formatted_exit_1, image_remove),
		cmocka_unit_test_teardown(test_target_in_use_is_refused, image_remove),
		cmocka_unit_test_teardown(test_dry_run_writes_nothing, image_remove),
		cmocka_unit_test_teardown(test_a_failed_new_image_is_removed, image_remove),
	};

	if (argc < 3 || !mkdtemp(folder))
		return 2;
	mkfs_tool = argv[1];
	fsck_tool = argv[2];
	snprintf(image, sizeof(image), "%s/image", folder);
	const int failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(image);
	return rmdir(folder) ? 1 : failed;
}
