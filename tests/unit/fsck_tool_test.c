/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the command fsck.lanefs ends with the exit status of fsck(8) in each case, says why in one line, and leaves its
 * target as it was. Method: the sample image in a file; the tool, named by the first argument, runs as a process.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fsck_image.h"

static const char *tool;
static char image[] = "/tmp/lanefs-fsck-test-XXXXXX";
static struct sample sample;
static char output[4096];

static void image_write(void)
{
	int fd = open(image, O_WRONLY | O_TRUNC);
	assert_true(fd >= 0);
	const size_t size = (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE;
	assert_int_equal(write(fd, sample.data, size), size);
	close(fd);
}

/* Runs the tool with at most four arguments; what it says is in output. Returns its exit status. */
static int run(const char *a, const char *b, const char *c, const char *d)
{
	int pipe_fds[2], status;
	assert_int_equal(pipe(pipe_fds), 0);
	pid_t pid = fork();
	if (!pid) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		dup2(pipe_fds[1], STDERR_FILENO);
		close(pipe_fds[0]);
		execl(tool, "fsck.lanefs", a, b, c, d, (char *)NULL);
		_exit(127);
	}
	close(pipe_fds[1]);
	size_t length = 0;
	for (ssize_t got; (got = read(pipe_fds[0], output + length, sizeof(output) - 1 - length)) > 0;)
		length += (size_t)got;
	output[length] = 0;
	close(pipe_fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void assert_said(const char *part)
{
	if (!strstr(output, part))
		print_message("%s", output);
	assert_non_null(strstr(output, part));
}

static unsigned lines(void)
{
	unsigned count = 0;
	for (const char *at = output; (at = strchr(at, '\n')); at++)
		count++;
	return count;
}

static void test_clean_image_exits_0(void **state)
{
	image_write();
	assert_int_equal(run("-n", image, NULL, NULL), 0);
	assert_said("11 files, 5 directories");
	assert_said("0 findings");
	assert_int_equal(lines(), 1);
	assert_int_equal(run("-p", image, NULL, NULL), 0);
	assert_said("clean, not checked further");
	assert_int_equal(run("-a", "-f", "-C0", image), 0);
	assert_said("0 findings");
}

static void test_unclean_journal_is_no_error(void **state)
{
	sample_state(&sample)->clean = le32_set(0);
	sample_seal(&sample, sample_state(&sample));
	image_write();
	assert_int_equal(run(image, NULL, NULL, NULL), 0);
	assert_said("the journal will be replayed at mount");
	sample_state(&sample)->clean = le32_set(1);
	sample_seal(&sample, sample_state(&sample));
}

static void test_damage_is_repaired_with_y(void **state)
{
	struct inode_block *block = sample_block(&sample, sample.inode_block[1]);
	block->inode[0].mtime_nsec = le32_set(UINT32_MAX);
	sample_seal(&sample, block);
	image_write();
	assert_int_equal(run("-y", image, NULL, NULL), 1);
	assert_said("wrong mtime_nsec");
	assert_said("repaired:");
	assert_int_equal(run("-n", image, NULL, NULL), 0);
	image_write();
	assert_int_equal(run("-p", image, NULL, NULL), 0); /* marked clean: not looked at */
	assert_int_equal(run("-p", "-f", image, NULL), 1);
	block->inode[0].mtime_nsec = le32_set(0);
	sample_seal(&sample, block);
	memset(sample_block(&sample, sample.root_leaf), 1, FS_BLOCK_SIZE);
	image_write();
	assert_int_equal(run("-p", "-f", image, NULL), 4);
	assert_said("fsck.lanefs -y does that");
	assert_int_equal(run("-y", image, NULL, NULL), 1);
	assert_said("lost+found/#");
	assert_int_equal(run("-y", image, NULL, NULL), 0);
	sample_destroy(&sample);
	sample_create(&sample);
}

static void test_damage_exits_4_and_changes_nothing(void **state)
{
	struct inode_block *block = sample_block(&sample, sample.inode_block[1]);
	block->inode[0].mtime_nsec = le32_set(UINT32_MAX);
	sample_seal(&sample, block);
	image_write();
	assert_int_equal(run("-n", image, NULL, NULL), 4);
	assert_said("wrong mtime_nsec");
	assert_said("1 finding,");
	assert_said("nothing was changed");
	uint8_t *after = malloc((size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
	int fd = open(image, O_RDONLY);
	assert_int_equal(read(fd, after, (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE), (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
	assert_memory_equal(after, sample.data, (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
	close(fd);
	free(after);
	block->inode[0].mtime_nsec = le32_set(0);
	sample_seal(&sample, block);
}

static void test_targets_that_cannot_be_checked_exit_8(void **state)
{
	static const char *const targets[] = {"/nonexistent/image", "/tmp", "/dev/zero", "/dev/null",
		"pci:0000", "0000:5e:00.0", "emu:/nonexistent/x", "ram:1G", "virtio:0000:00:05.0", "mirror:a,b",
		"/proc/self/exe"};
	for (unsigned i = 0; i < ARRAY_SIZE(targets); i++) {
		assert_int_equal(run(targets[i], NULL, NULL, NULL), 8);
		assert_said(targets[i]);
		assert_int_equal(lines(), 1);
	}
	image_write();
	assert_int_equal(truncate(image, 5000), 0);
	assert_int_equal(run(image, NULL, NULL, NULL), 8);
	assert_int_equal(lines(), 1);
}

static void test_unknown_version_exits_8(void **state)
{
	sample_super(&sample)->version = le32_set(7);
	sample_seal(&sample, sample_super(&sample));
	image_write();
	assert_int_equal(run(image, NULL, NULL, NULL), 8);
	assert_said("version");
	assert_int_equal(lines(), 1);
	sample_super(&sample)->version = le32_set(FS_FORMAT_VERSION);
	sample_seal(&sample, sample_super(&sample));
}

static void test_target_in_use_exits_8(void **state)
{
	image_write();
	int fd = open(image, O_RDWR);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	assert_int_equal(run(image, NULL, NULL, NULL), 8);
	assert_said("is in use");
	close(fd);
	assert_int_equal(run(image, NULL, NULL, NULL), 0);
}

/* As the lock of a daemon that was just killed. */
static void test_lock_that_goes_away_is_waited_for(void **state)
{
	image_write();
	int fd = open(image, O_RDWR);
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	assert_int_equal(fcntl(fd, F_OFD_SETLK, &lock), 0);
	pid_t holder = fork();
	if (!holder) {
		usleep(300000);
		_exit(0);
	}
	close(fd);
	assert_int_equal(run("-n", image, NULL, NULL), 0);
	assert_int_equal(waitpid(holder, NULL, 0), holder);
}

static void test_wrong_usage_exits_16(void **state)
{
	assert_int_equal(run(NULL, NULL, NULL, NULL), 16);
	assert_int_equal(run("-x", image, NULL, NULL), 16);
	assert_int_equal(run("-n", "-y", image, NULL), 16);
	assert_int_equal(run("-b", "first", image, NULL), 16);
	assert_int_equal(run("-o", "reactors=0", image, NULL), 16);
	assert_int_equal(run("-oreactors=65", image, NULL, NULL), 16);
	assert_int_equal(run("-o", "threads=2", image, NULL), 16);
	assert_int_equal(run(image, image, NULL, NULL), 16);
	assert_int_equal(run("--help", NULL, NULL, NULL), 0);
	assert_said("usage:");
}

static void test_superblock_copy_can_be_named(void **state)
{
	memset(sample_super(&sample)->uuid, 7, 16); /* crc wrong: the copy at the end is used */
	image_write();
	assert_int_equal(run(image, NULL, NULL, NULL), 4);
	char copy[16];
	snprintf(copy, sizeof(copy), "%d", SAMPLE_AG_FIRST + FS_AG_BLOCKS_MIN + FS_AG_SUPER_COPY);
	assert_int_equal(run("-b", copy, image, NULL), 4);
	assert_said("superblock copy (block 1): wrong crc");
	memset(sample_super(&sample)->uuid, 0, 16);
	assert_int_equal(run("-b", "4", image, NULL), 8);
}

/* Nobody is sent to a repair that is not possible. */
static void test_image_that_was_cut_off_is_called_so(void **state)
{
	image_write();
	assert_int_equal(truncate(image, (off_t)(SAMPLE_BLOCKS - 8) * FS_BLOCK_SIZE), 0);
	assert_int_equal(run("-n", image, NULL, NULL), 4);
	assert_said("was the image cut off?");
	assert_said("no superblock can be trusted, so nothing else was looked at");
	assert_null(strstr(output, "-y repairs"));
	assert_int_equal(run("-y", image, NULL, NULL), 4);
	assert_said("not repaired: no superblock can be trusted");
}

/* One reactor, several, and through the block-device layer: the same lines in the same order, and nothing is written. */
static void test_reactors_say_the_same(void **state)
{
	static const char *const counts[] = {"-oreactors=1", "-oreactors=2", "-oreactors=5", "-oreactors=64"};
	char first[sizeof(output)], drive[64];
	snprintf(drive, sizeof(drive), "emu:%s", image);
	for (unsigned i = 1; i < SAMPLE_AGS; i++) { /* a finding in each group but the first */
		sample_ag(&sample, i)->orphan_count = le32_set(9);
		sample_seal(&sample, sample_ag(&sample, i));
	}
	image_write();
	for (unsigned i = 0; i < ARRAY_SIZE(counts); i++) {
		assert_int_equal(run("-n", "-C", counts[i], image), 4);
		assert_said("links"); /* the progress */
		assert_int_equal(run("-n", counts[i], image, NULL), 4);
		assert_said("AG 1: orphan_count");
		assert_int_equal(lines(), SAMPLE_AGS - 1 + 2);
		*strstr(output, "findings,") = 0;
		if (!i)
			memcpy(first, output, sizeof(first));
		assert_string_equal(output, first);
	}
	/* A drive of whole MiB; it brings its own target name to the summary. */
	assert_int_equal(truncate(image, 16 << 20), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(run("-n", counts[i], drive, NULL), 4);
		assert_said("AG 4: orphan_count");
	}
	sample_destroy(&sample);
	sample_create(&sample);
}

/* -b with each copy there is, when the superblock is gone, and without -b by the last one; the repair brings it back. */
static void test_every_superblock_copy_is_enough(void **state)
{
	uint8_t saved[FS_BLOCK_SIZE];
	memcpy(saved, sample_super(&sample), FS_BLOCK_SIZE);
	unsigned tried = 0;
	for (uint64_t block = FS_SUPER_BLOCK + 1; block < SAMPLE_BLOCKS; block++) {
		const struct block_header *header = sample_block(&sample, block);
		if (le32_get(header->magic) != FS_BLOCK_MAGIC || le16_get(header->type) != BLOCK_SUPER)
			continue;
		char number[24];
		snprintf(number, sizeof(number), "%llu", (unsigned long long)block);
		memset(sample_super(&sample), 0, FS_BLOCK_SIZE);
		image_write();
		memcpy(sample_super(&sample), saved, FS_BLOCK_SIZE);
		assert_int_equal(run("-n", "-b", number, image), 4);
		assert_int_equal(run("-y", "-b", number, image), 1);
		assert_int_equal(run("-n", image, NULL, NULL), 0);
		tried++;
	}
	assert_int_equal(tried, 4); /* of groups 1, 2, 4, and at the end */
	memset(sample_super(&sample), 0, FS_BLOCK_SIZE);
	image_write();
	memcpy(sample_super(&sample), saved, FS_BLOCK_SIZE);
	assert_int_equal(run("-y", image, NULL, NULL), 1);
	assert_int_equal(run("-n", image, NULL, NULL), 0);
}

/* kill -9 after each of the first milliseconds of a repair; what is left is repaired by the next one. */
static void test_a_killed_repair_is_taken_up(void **state)
{
	for (unsigned delay_us = 0; delay_us < 12000; delay_us += 400) {
		memset(sample_block(&sample, sample.wide_leaf[1]), 1, FS_BLOCK_SIZE);
		memset(sample_block(&sample, sample.inode_block[2]), 0, FS_BLOCK_SIZE);
		image_write();
		const pid_t pid = fork();
		if (!pid) {
			const int null = open("/dev/null", O_WRONLY);
			dup2(null, STDOUT_FILENO);
			dup2(null, STDERR_FILENO);
			execl(tool, "fsck.lanefs", "-y", image, (char *)NULL);
			_exit(127);
		}
		usleep(delay_us);
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		const int status = run("-y", image, NULL, NULL);
		assert_true(status == 0 || status == 1);
		assert_int_equal(run("-n", image, NULL, NULL), 0);
	}
	sample_destroy(&sample);
	sample_create(&sample);
}

/* The tool waits in the middle of its progress for a reader of its output; then it is interrupted. */
static void test_interrupt_exits_32(void **state)
{
	image_write();
	char target[512];
	memset(target, '/', sizeof(target));
	snprintf(target + 256, sizeof(target) - 256, "%s", image);
	int pipe_fds[2], status, waiting = 0;
	assert_int_equal(pipe(pipe_fds), 0);
	int size = fcntl(pipe_fds[1], F_SETPIPE_SZ, 4096);
	assert_true(size > 0);
	pid_t pid = fork();
	if (!pid) {
		dup2(pipe_fds[1], STDOUT_FILENO);
		close(pipe_fds[0]);
		execl(tool, "fsck.lanefs", "-C", target, (char *)NULL);
		_exit(127);
	}
	close(pipe_fds[1]);
	for (unsigned i = 0; i < 5000 && waiting < size - 600; i++) {
		assert_int_equal(ioctl(pipe_fds[0], FIONREAD, &waiting), 0);
		usleep(1000);
	}
	assert_int_equal(kill(pid, SIGINT), 0);
	while (read(pipe_fds[0], output, sizeof(output)) > 0)
		;
	close(pipe_fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 32);
}

int main(int argc, char **argv)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_clean_image_exits_0),
		cmocka_unit_test(test_unclean_journal_is_no_error),
		cmocka_unit_test(test_damage_exits_4_and_changes_nothing),
		cmocka_unit_test(test_damage_is_repaired_with_y),
		cmocka_unit_test(test_targets_that_cannot_be_checked_exit_8),
		cmocka_unit_test(test_unknown_version_exits_8),
		cmocka_unit_test(test_target_in_use_exits_8),
		cmocka_unit_test(test_lock_that_goes_away_is_waited_for),
		cmocka_unit_test(test_wrong_usage_exits_16),
		cmocka_unit_test(test_superblock_copy_can_be_named),
		cmocka_unit_test(test_image_that_was_cut_off_is_called_so),
		cmocka_unit_test(test_reactors_say_the_same),
		cmocka_unit_test(test_every_superblock_copy_is_enough),
		cmocka_unit_test(test_a_killed_repair_is_taken_up),
		cmocka_unit_test(test_interrupt_exits_32),
	};
	if (argc != 2) {
		fprintf(stderr, "usage: %s FSCK.LANEFS\n", argv[0]);
		return 2;
	}
	tool = argv[1];
	int fd = mkstemp(image);
	if (fd < 0)
		return 2;
	close(fd);
	sample_create(&sample);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	sample_destroy(&sample);
	unlink(image);
	return failed;
}
