/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: file data and what depends on it, through the FUSE front end and a real kernel: cached, direct, mapped, mixed;
 * sync flags, holes, copies; suid and sgid dropped by writers without the kernel's cache saying otherwise. Method: as
 * fuse_mount_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/fuse/fuse_wire.h"
#include "tests/unit/fuse_mounted.h"

/* Runs fn as an ordinary user; it answers 0 when content. */
static void as_user(int (*fn)(const char *name), const char *name)
{
	pid_t child = fork();
	if (child == 0) {
		if (setgid(1000) || setuid(1000))
			_exit(99);
		_exit(fn(name));
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

static int overwrite(const char *name)
{
	int fd = openat(at(), name, O_WRONLY);
	return fd < 0 || write(fd, "evil", 4) != 4 || close(fd);
}

static int overwrite_direct(const char *name)
{
	static char page[4096] __attribute__((aligned(4096)));
	int fd = openat(at(), name, O_WRONLY | O_DIRECT);
	return fd < 0 || write(fd, page, 4096) != 4096 || close(fd);
}

static int truncate_by_open(const char *name)
{
	int fd = openat(at(), name, O_WRONLY | O_TRUNC);
	return fd < 0 || close(fd);
}

static int copy_over(const char *name)
{
	int from = openat(at(), "suid.source", O_RDONLY), to = openat(at(), name, O_WRONLY);
	return from < 0 || to < 0 || copy_file_range(from, NULL, to, NULL, 4, 0) != 4;
}

/* The mode alone is asked for: the kernel then answers from its cache unless it was told that the mode is stale. */
static void test_suid_is_gone_at_once(void **state)
{
	static int (*const ways[])(const char *) = {overwrite, overwrite_direct, truncate_by_open, copy_over};
	int fd = openat(at(), "suid.source", O_RDWR | O_CREAT | O_TRUNC, 0644);
	assert_int_equal(write(fd, "data", 4), 4);
	close(fd);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		char name[32];
		snprintf(name, sizeof(name), "suid.%zu", i);
		close(make_file(name, "good", 4));
		assert_int_equal(fchmodat(at(), name, 06777, 0), 0);
		assert_int_equal(stat_of(name).st_mode & 07777, 06777);
		as_user(ways[i], name);
		struct statx stx;
		assert_int_equal(statx(at(), name, 0, STATX_MODE, &stx), 0);
		assert_int_equal(stx.stx_mode & 07777, 0777);
	}
}

/* ---- data ---- */

enum { BIG = 5 << 20 };

static void round_trip(const char *name, int flags, size_t step)
{
	char *bytes = aligned_alloc(4096, BIG), *back = aligned_alloc(4096, BIG);
	assert_true(bytes && back);
	fill_pattern(bytes, BIG, (unsigned)step);
	int fd = openat(at(), name, O_RDWR | O_CREAT | O_TRUNC | flags, 0644);
	assert_true(fd >= 0);
	for (size_t done = 0; done < BIG; done += MIN(step, BIG - done))
		assert_int_equal(pwrite(fd, bytes + done, MIN(step, BIG - done), (off_t)done), MIN(step, BIG - done));
	assert_int_equal(fsync(fd), 0);
	/* The page cache may not help. */
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	for (size_t done = 0; done < BIG; done += MIN(step, BIG - done))
		assert_int_equal(pread(fd, back + done, MIN(step, BIG - done), (off_t)done), MIN(step, BIG - done));
	assert_memory_equal(back, bytes, BIG);
	assert_int_equal(pread(fd, back, 4096, BIG), 0);
	close(fd);
	free(bytes);
	free(back);
}

static void test_data_survives_cached(void **state)
{
	round_trip("cached.small", 0, 3001);
	round_trip("cached.big", 0, BIG);
}

static void test_data_survives_direct(void **state)
{
	uint64_t unaligned = memfs_get_calls(mounted.fs).unaligned_buffers;
	round_trip("direct.small", O_DIRECT, 4096);
	round_trip("direct.middle", O_DIRECT, 128 << 10);
	round_trip("direct.big", O_DIRECT, BIG);
	/* Payloads arrive where the device can take them. */
	assert_int_equal(memfs_get_calls(mounted.fs).unaligned_buffers, unaligned);
}

static void test_shared_mappings_are_written(void **state)
{
	int fd = make_file("mapped", "", 0);
	assert_int_equal(ftruncate(fd, 8192), 0);
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	assert_true(map != MAP_FAILED);
	memcpy(map + 4000, "mapped", 6);
	assert_int_equal(msync(map, 8192, MS_SYNC), 0);
	munmap(map, 8192);
	int direct = openat(at(), "mapped", O_RDONLY | O_DIRECT);
	static char page[8192] __attribute__((aligned(4096)));
	assert_int_equal(read(direct, page, 8192), 8192);
	assert_memory_equal(page + 4000, "mapped", 6);
	close(direct);
	close(fd);
}

static void test_direct_and_cached_openers_agree(void **state)
{
	static char page[4096] __attribute__((aligned(4096)));
	memset(page, 'd', sizeof(page));
	int cached = make_file("mixed", "cached", 6);
	char back[16];
	assert_int_equal(pread(cached, back, 6, 0), 6);
	int direct = openat(at(), "mixed", O_RDWR | O_DIRECT);
	assert_int_equal(pwrite(direct, page, 4096, 0), 4096);
	assert_int_equal(pread(cached, back, 6, 0), 6);
	assert_memory_equal(back, "dddddd", 6);
	assert_int_equal(pwrite(cached, "cached", 6, 0), 6);
	assert_int_equal(pread(direct, page, 4096, 0), 4096);
	assert_memory_equal(page, "cachedd", 7);
	close(direct);
	close(cached);
}

static void test_truncation_by_open(void **state)
{
	close(make_file("truncated", "something", 9));
	int fd = openat(at(), "truncated", O_RDWR | O_TRUNC);
	assert_true(fd >= 0);
	assert_int_equal(stat_of("truncated").st_size, 0);
	char back[16];
	assert_int_equal(read(fd, back, sizeof(back)), 0);
	close(fd);
}

static void test_appending(void **state)
{
	int a = make_file("appended", "", 0), b = openat(at(), "appended", O_WRONLY | O_APPEND);
	assert_int_equal(write(a, "12345", 5), 5);
	assert_int_equal(write(b, "678", 3), 3);
	assert_int_equal(stat_of("appended").st_size, 8);
	close(a);
	close(b);
}

static void test_sync_flags_arrive(void **state)
{
	static char page[4096] __attribute__((aligned(4096)));
	struct memfs_calls before = memfs_get_calls(mounted.fs);
	int fd = make_file("synced", page, sizeof(page));
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(fdatasync(fd), 0);
	close(fd);
	struct memfs_calls after = memfs_get_calls(mounted.fs);
	assert_int_equal(after.fsyncs, before.fsyncs + 1);
	assert_int_equal(after.fdatasyncs, before.fdatasyncs + 1);
	struct fuse_front_status status;
	fuse_front_get_status(mounted.front, &status);
	if (status.offered & WIRE_DIRECT_IO_ALLOW_MMAP) {
		/* Through the cache: the kernel's FSYNC is enough. */
		before = after;
		fd = openat(at(), "synced", O_WRONLY | O_DSYNC);
		assert_int_equal(pwrite(fd, page, 4096, 0), 4096);
		close(fd);
		after = memfs_get_calls(mounted.fs);
		assert_int_equal(after.fdatasyncs, before.fdatasyncs + 1);
		assert_int_equal(after.dsync_writes + after.sync_writes, before.dsync_writes + before.sync_writes);
	}
	before = after;
	if (mounted.options.noopen)
		return; /* O_DIRECT then goes through the page cache's path, which sends FSYNC */
	fd = openat(at(), "synced", O_WRONLY | O_DIRECT | O_SYNC);
	assert_int_equal(pwrite(fd, page, 4096, 0), 4096);
	close(fd);
	fd = openat(at(), "synced", O_WRONLY | O_DIRECT | O_DSYNC);
	assert_int_equal(pwrite(fd, page, 4096, 0), 4096);
	close(fd);
	after = memfs_get_calls(mounted.fs);
	assert_int_equal(after.sync_writes, before.sync_writes + 1);
	assert_int_equal(after.dsync_writes, before.dsync_writes + 1);
}

static void test_holes_fallocate_and_copy(void **state)
{
	int fd = make_file("holes", "0123456789", 10);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(fallocate(fd, 0, 0, 10000), 0);
	assert_int_equal(stat_of("holes").st_size, 10000);
	assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2, 2), 0);
	char back[10];
	assert_int_equal(pread(fd, back, 10, 0), 10);
	assert_memory_equal(back, "01\0\0" "456789", 10);
	assert_int_equal(lseek(fd, 5, SEEK_DATA), 5);
	assert_int_equal(lseek(fd, 5, SEEK_HOLE), 10000);
	assert_int_equal(lseek(fd, 10000, SEEK_DATA), -1);
	assert_int_equal(errno, ENXIO);
	int copy = make_file("copied", "", 0);
	off_t from = 4, to = 1;
	assert_int_equal(copy_file_range(fd, &from, copy, &to, 6, 0), 6);
	assert_int_equal(pread(copy, back, 10, 0), 7);
	assert_memory_equal(back, "\0" "456789", 7);
	close(copy);
	close(fd);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_suid_is_gone_at_once),
		cmocka_unit_test(test_data_survives_cached),
		cmocka_unit_test(test_data_survives_direct),
		cmocka_unit_test(test_shared_mappings_are_written),
		cmocka_unit_test(test_direct_and_cached_openers_agree),
		cmocka_unit_test(test_truncation_by_open),
		cmocka_unit_test(test_appending),
		cmocka_unit_test(test_sync_flags_arrive),
		cmocka_unit_test(test_holes_fallocate_and_copy),
		cmocka_unit_test(test_nothing_went_wrong_on_the_way),
	};
	return mounted_run(tests, ARRAY_SIZE(tests), true);
}
