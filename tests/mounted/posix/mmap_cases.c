/* SPDX-License-Identifier: BSD-3-Clause */
/* mmap(2), msync(2): what mapped pages and the file see of each other. */
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#include "tests/mounted/posix/posix_check.h"

static char *map(int fd, size_t size, int protection, int flags)
{
	char *at = mmap(NULL, size, protection, flags, fd, 0);
	if (at == MAP_FAILED)
		OK(-1);
	return at;
}

static sigjmp_buf landing;

static void land(int number)
{
	(void)number;
	siglongjmp(landing, 1);
}

/* Does reading there raise SIGBUS? */
static bool bus_error(const volatile char *at)
{
	signal(SIGBUS, land);
	if (sigsetjmp(landing, 1))
		return true;
	(void)*at;
	return false;
}

CASE(mmap_shared_reads_the_file, ANYONE)
{
	OK(put("f", "content"));
	const char *at = map((int)OK(open("f", O_RDONLY)), PAGE, PROT_READ, MAP_SHARED);
	EQ(memcmp(at, "content", 7), 0);
	CHECK(zeroed(at + 7, PAGE - 7));
}

CASE(mmap_shared_writes_the_file, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, 3 * PAGE));
	char *at = map(fd, 3 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED), byte;
	at[0] = 'a';
	at[PAGE + 5] = 'b';
	at[3 * PAGE - 1] = 'c';
	EQ(pread(fd, &byte, 1, PAGE + 5), 1);
	EQ(byte, 'b');
	OK(msync(at, 3 * PAGE, MS_SYNC));
	OK(munmap(at, 3 * PAGE));
	OK(close(fd));
	const int again = (int)OK(open("f", O_RDONLY));
	EQ(pread(again, &byte, 1, 3 * PAGE - 1), 1);
	EQ(byte, 'c');
}

CASE(mmap_private_leaves_the_file_alone, ANYONE)
{
	OK(put("f", "content"));
	char *at = map((int)OK(open("f", O_RDONLY)), PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	memcpy(at, "private", 7);
	CHECK(holds("f", "content"));
	EQ(memcmp(at, "private", 7), 0);
}

CASE(mmap_sees_what_write_does, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, PAGE));
	const char *at = map(fd, PAGE, PROT_READ, MAP_SHARED);
	EQ(at[10], 0);
	EQ(pwrite(fd, "x", 1, 10), 1);
	EQ(at[10], 'x');
}

CASE(mmap_sees_direct_writes, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, PAGE));
	const char *at = map(fd, PAGE, PROT_READ, MAP_SHARED);
	EQ(at[10], 0);
	const int direct = open("f", O_RDWR | O_DIRECT);
	if (direct == -1 && errno == EINVAL)
		skip("no O_DIRECT here");
	char *data = page_buffer(PAGE);
	fill(data, PAGE, 1);
	EQ(write(direct, data, PAGE), PAGE);
	CHECK(filled(at, PAGE, 1));
}

CASE(mmap_writes_are_seen_by_direct_reads, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, PAGE));
	char *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED), *got = page_buffer(PAGE);
	const int direct = open("f", O_RDWR | O_DIRECT);
	if (direct == -1 && errno == EINVAL)
		skip("no O_DIRECT here");
	fill(at, PAGE, 2);
	EQ(read(direct, got, PAGE), PAGE);
	CHECK(filled(got, PAGE, 2));
}

CASE(mmap_of_a_direct_descriptor, ANYONE)
{
	OK(put("f", "content"));
	const int fd = open("f", O_RDWR | O_DIRECT);
	if (fd == -1 && errno == EINVAL)
		skip("no O_DIRECT here");
	char *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	EQ(memcmp(at, "content", 7), 0);
	at[0] = 'X';
	OK(msync(at, PAGE, MS_SYNC));
	CHECK(holds("f", "Xontent"));
}

CASE(mmap_beyond_the_last_page_is_SIGBUS, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, PAGE + 1));
	const char *at = map(fd, 4 * PAGE, PROT_READ, MAP_SHARED);
	CHECK(!bus_error(at + PAGE + 100));
	CHECK(bus_error(at + 2 * PAGE));
	CHECK(bus_error(at + 3 * PAGE));
	OK(ftruncate(fd, 3 * PAGE));
	CHECK(!bus_error(at + 2 * PAGE));
}

CASE(mmap_of_an_empty_file_is_SIGBUS, ANYONE)
{
	CHECK(bus_error(map(create_open("f"), PAGE, PROT_READ, MAP_SHARED)));
}

CASE(mmap_after_truncate_is_SIGBUS, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, 4 * PAGE));
	char *at = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	memset(at, 'x', 4 * PAGE);
	OK(ftruncate(fd, PAGE + 10));
	CHECK(!bus_error(at + PAGE));
	CHECK(bus_error(at + 2 * PAGE));
	EQ(at[PAGE + 9], 'x');
	EQ(at[PAGE + 10], 0);
	OK(ftruncate(fd, 4 * PAGE));
	CHECK(!bus_error(at + 2 * PAGE));
	CHECK(zeroed(at + PAGE + 10, 3 * PAGE - 10));
}

CASE(mmap_bytes_behind_the_end_do_not_get_into_the_file, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	char *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	at[100] = 'x';
	at[0] = 'A';
	OK(msync(at, PAGE, MS_SYNC));
	EQ(size_of("f"), 3);
	OK(munmap(at, PAGE));
	OK(ftruncate(fd, PAGE));
	char *got = page_buffer(PAGE);
	EQ(pread(fd, got, PAGE, 0), PAGE);
	EQ(got[0], 'A');
	CHECK(zeroed(got + 3, PAGE - 3));
}

CASE(mmap_of_a_hole_can_be_filled, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, 1 << 20));
	char *at = map(fd, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED);
	fill(at, 1 << 20, 3);
	OK(msync(at, 1 << 20, MS_SYNC));
	OK(munmap(at, 1 << 20));
	char *got = page_buffer(1 << 20);
	EQ(pread(fd, got, 1 << 20, 0), 1 << 20);
	CHECK(filled(got, 1 << 20, 3));
	CHECK(fstat_of(fd).st_blocks >= (1 << 20) / 512);
}

CASE(mmap_after_punching_reads_zeros, ANYONE)
{
	const int fd = create_open("f");
	char *at;
	OK(ftruncate(fd, 4 * PAGE));
	at = map(fd, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	memset(at, 'x', 4 * PAGE);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, PAGE, 2 * PAGE));
	EQ(at[PAGE - 1], 'x');
	CHECK(zeroed(at + PAGE, 2 * PAGE));
	EQ(at[3 * PAGE], 'x');
}

CASE(mmap_outlives_close_and_unlink, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, PAGE));
	char *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	OK(close(fd));
	OK(unlink("f"));
	at[7] = 'x';
	OK(msync(at, PAGE, MS_SYNC));
	EQ(at[7], 'x');
	OK(munmap(at, PAGE));
}

CASE(mmap_two_processes_share_pages, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, PAGE));
	char *at = map(fd, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	IN_CHILD {
		char *mine = map((int)OK(open("f", O_RDWR)), PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
		mine[3] = 'x';
	}
	EQ(at[3], 'x');
}

CASE(mmap_permissions, ANYONE)
{
	OK(put("f", "content"));
	const int in = (int)OK(open("f", O_RDONLY)), out = (int)OK(open("f", O_WRONLY));
	CHECK(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, in, 0) == MAP_FAILED && errno == EACCES);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, out, 0) == MAP_FAILED && errno == EACCES);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, out, 0) == MAP_FAILED && errno == EACCES);
	char *at = map(in, PAGE, PROT_READ, MAP_SHARED);
	FAILS(EACCES, mprotect(at, PAGE, PROT_READ | PROT_WRITE));
}

CASE(mmap_invalid, ANYONE)
{
	OK(put("f", "content"));
	const int fd = (int)OK(open("f", O_RDWR)), dir = (int)OK(open(".", O_RDONLY));
	CHECK(mmap(NULL, 0, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 100) == MAP_FAILED && errno == EINVAL);
	CHECK(mmap(NULL, PAGE, PROT_READ, 0, fd, 0) == MAP_FAILED && errno == EINVAL);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, -1, 0) == MAP_FAILED && errno == EBADF);
	CHECK(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, dir, 0) == MAP_FAILED && errno == ENODEV);
	char *at = map(fd, PAGE, PROT_READ, MAP_SHARED);
	FAILS(EINVAL, msync(at, PAGE, MS_SYNC | MS_ASYNC));
	FAILS(EINVAL, msync(at + 1, PAGE, MS_SYNC));
	OK(munmap(at, PAGE));
	FAILS(ENOMEM, msync(at, PAGE, MS_SYNC));
}

CASE(mmap_write_from_a_mapping_of_the_same_file, ANYONE)
{
	const int fd = create_open("f");
	char *got = page_buffer(PAGE);
	fill(got, PAGE, 5);
	EQ(write(fd, got, PAGE), PAGE);
	OK(ftruncate(fd, 2 * PAGE));
	const char *at = map(fd, 2 * PAGE, PROT_READ, MAP_SHARED);
	EQ(pwrite(fd, at, PAGE, PAGE), PAGE);
	CHECK(filled(at + PAGE, PAGE, 5));
	EQ(pwrite(fd, at + 1, PAGE - 1, 0), PAGE - 1); /* onto itself, moved by one */
}

CASE(mmap_truncated_under_a_program_that_writes, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, 1 << 20));
	char *at = map(fd, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED);
	for (int round = 0; round < 20; round++) {
		memset(at, 'a' + round, 1 << 20);
		OK(ftruncate(fd, (round * 7919) % (1 << 20)));
		OK(ftruncate(fd, 1 << 20));
		CHECK(zeroed(at + (round * 7919) % (1 << 20), (1 << 20) - (size_t)(round * 7919) % (1 << 20)));
	}
}
