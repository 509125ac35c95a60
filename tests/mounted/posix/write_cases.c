/* SPDX-License-Identifier: BSD-3-Clause */
/* read(2), write(2), and their relatives with offsets and vectors; appending; direct I/O. */
#include <sys/uio.h>

#include "tests/mounted/posix/posix_check.h"

CASE(write_then_read_at_every_alignment, ANYONE)
{
	const int fd = create_open("f");
	char *data = page_buffer(10000), *got = page_buffer(10000);
	static const off_t offsets[] = {0, 1, 511, 512, 4000, 4095, 4096, 4097, 8191, 100000, 1048575};
	static const size_t lengths[] = {1, 2, 511, 512, 4095, 4096, 4097, 8192, 9999};
	for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		for (size_t j = 0; j < sizeof(lengths) / sizeof(lengths[0]); j++) {
			fill(data, lengths[j], (unsigned)(i * 10 + j));
			EQ(pwrite(fd, data, lengths[j], offsets[i]), lengths[j]);
			EQ(pread(fd, got, lengths[j], offsets[i]), lengths[j]);
			CHECK(filled(got, lengths[j], (unsigned)(i * 10 + j)));
		}
	}
	EQ(size_of("f"), 1048575 + 9999);
}

CASE(write_moves_the_offset_pwrite_does_not, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	EQ(lseek(fd, 0, SEEK_CUR), 3);
	EQ(pwrite(fd, "xyz", 3, 10), 3);
	EQ(lseek(fd, 0, SEEK_CUR), 3);
	EQ(size_of("f"), 13);
	char text[4];
	EQ(pread(fd, text, 3, 0), 3);
	EQ(lseek(fd, 0, SEEK_CUR), 3);
	EQ(read(fd, text, 4), 4);
	EQ(lseek(fd, 0, SEEK_CUR), 7);
}

CASE(write_beyond_the_end_leaves_a_hole_of_zeros, ANYONE)
{
	const int fd = create_open("f");
	char *got = page_buffer(100001);
	EQ(write(fd, "a", 1), 1);
	EQ(pwrite(fd, "z", 1, 100000), 1);
	EQ(pread(fd, got, 100001, 0), 100001);
	CHECK(zeroed(got + 1, 99999));
	EQ(got[100000], 'z');
}

CASE(read_at_the_end_gives_nothing, ANYONE)
{
	const int fd = create_open("f");
	char text[8];
	EQ(read(fd, text, 8), 0);
	EQ(write(fd, "abc", 3), 3);
	EQ(read(fd, text, 8), 0);
	EQ(pread(fd, text, 8, 2), 1);
	EQ(pread(fd, text, 8, 3), 0);
	EQ(pread(fd, text, 8, 1000000), 0);
	EQ(pread(fd, text, 0, 0), 0);
}

CASE(write_of_nothing_changes_nothing, ANYONE)
{
	const int fd = create_open("f");
	EQ(pwrite(fd, "", 0, 100), 0);
	EQ(size_of("f"), 0);
	EQ(write(fd, "", 0), 0);
}

CASE(read_and_write_need_the_right_mode, ANYONE)
{
	OK(put("f", "abc"));
	char byte;
	const int in = (int)OK(open("f", O_RDONLY)), out = (int)OK(open("f", O_WRONLY));
	FAILS(EBADF, write(in, "x", 1));
	FAILS(EBADF, pwrite(in, "x", 1, 0));
	FAILS(EBADF, read(out, &byte, 1));
	FAILS(EBADF, pread(out, &byte, 1, 0));
	FAILS(EBADF, read(-1, &byte, 1));
	FAILS(EBADF, write(-1, &byte, 1));
}

CASE(read_and_write_bad_pointers_are_EFAULT, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	FAILS(EFAULT, write(fd, bad_pointer(), 10));
	FAILS(EFAULT, pread(fd, bad_pointer(), 3, 0));
	EQ(size_of("f"), 3);
}

CASE(read_and_write_negative_offsets_are_EINVAL, ANYONE)
{
	const int fd = create_open("f");
	char byte;
	FAILS(EINVAL, pread(fd, &byte, 1, -1));
	FAILS(EINVAL, pwrite(fd, "x", 1, -1));
}

CASE(write_past_the_largest_size_is_EFBIG, ANYONE)
{
	const int fd = create_open("f");
	FAILS(EFBIG, pwrite(fd, "x", 1, INT64_MAX - 1));
	EQ(size_of("f"), 0);
}

CASE(pread_on_a_fifo_is_ESPIPE, ANYONE)
{
	char byte;
	OK(mkfifo("p", 0644));
	const int fd = (int)OK(open("p", O_RDWR));
	FAILS(ESPIPE, pread(fd, &byte, 1, 0));
	FAILS(ESPIPE, pwrite(fd, &byte, 1, 0));
	FAILS(ESPIPE, lseek(fd, 0, SEEK_SET));
}

CASE(write_vectors, ANYONE)
{
	const int fd = create_open("f");
	struct iovec out[3] = {{"abc", 3}, {"", 0}, {"defgh", 5}};
	EQ(writev(fd, out, 3), 8);
	EQ(pwritev(fd, out, 3, 100), 8);
	char one[2], two[4], three[10];
	struct iovec in[3] = {{one, 2}, {two, 4}, {three, 10}};
	EQ(preadv(fd, in, 2, 0), 6);
	EQ(memcmp(one, "ab", 2), 0);
	EQ(memcmp(two, "cdef", 4), 0);
	EQ(lseek(fd, 100, SEEK_SET), 100);
	EQ(readv(fd, in, 3), 8);
	EQ(memcmp(three, "gh", 2), 0);
}

CASE(write_vectors_errors, ANYONE)
{
	const int fd = create_open("f");
	struct iovec bad[2] = {{"abc", 3}, {bad_pointer(), 3}}, many[1025];
	for (int i = 0; i < 1025; i++)
		many[i] = (struct iovec){"x", 1};
	FAILS(EINVAL, writev(fd, many, 1025));
	EQ(writev(fd, many, 1024), 1024);
	EQ(writev(fd, many, 0), 0);
	OK(ftruncate(fd, 0));
	OK(lseek(fd, 0, SEEK_SET));
	const ssize_t partly = writev(fd, bad, 2);
	CHECK(partly == 3 || (partly == -1 && errno == EFAULT));
	EQ(size_of("f"), partly == 3 ? 3 : 0);
	FAILS(EINVAL, preadv(fd, many, 1, -1));
}

CASE(pwritev2_append_ignores_the_offset, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_RDWR));
	EQ(pwritev2(fd, &(struct iovec){"de", 2}, 1, 0, RWF_APPEND), 2);
	CHECK(holds("f", "abcde"));
	EQ(pwritev2(fd, &(struct iovec){"X", 1}, 1, 1, RWF_DSYNC), 1);
	EQ(pwritev2(fd, &(struct iovec){"Y", 1}, 1, 2, RWF_SYNC), 1);
	CHECK(holds("f", "aXYde"));
	FAILS(EOPNOTSUPP, pwritev2(fd, &(struct iovec){"X", 1}, 1, 0, 1 << 20));
}

CASE(write_append_ignores_pwrite_offset_on_linux, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_WRONLY | O_APPEND));
	EQ(pwrite(fd, "X", 1, 0), 1);
	CHECK(holds("f", "abcX"));
}

enum { APPENDERS = 4, APPENDS = 100 };

static void append_lines(void *arg)
{
	const char letter = *(const char *)arg;
	const int fd = (int)OK(open("f", O_WRONLY | O_APPEND));
	char *line = repeat(letter, 99);
	line[98] = '\n';
	for (int i = 0; i < APPENDS; i++)
		EQ(write(fd, line, 99), 99);
}

CASE(write_append_of_several_processes_loses_nothing, ANYONE)
{
	OK(put("f", ""));
	pid_t pids[APPENDERS];
	for (int i = 0; i < APPENDERS; i++)
		pids[i] = spawn(append_lines, &(char){(char)('a' + i)});
	for (int i = 0; i < APPENDERS; i++)
		EQ(reap(pids[i]), 0);
	EQ(size_of("f"), 99 * APPENDS * APPENDERS);
	const int fd = (int)OK(open("f", O_RDONLY));
	char line[99];
	int count[APPENDERS] = {0};
	for (int i = 0; i < APPENDS * APPENDERS; i++) {
		EQ(read(fd, line, 99), 99);
		for (int j = 0; j < 98; j++)
			EQ(line[j], line[0]);
		count[line[0] - 'a']++;
	}
	for (int i = 0; i < APPENDERS; i++)
		EQ(count[i], APPENDS);
}

CASE(write_drops_suid_and_sgid_for_a_user, ROOT)
{
	OK(make("f", 0777));
	OK(chmod("f", 06777));
	AS(ALICE) EQ(write((int)OK(open("f", O_WRONLY)), "x", 1), 1);
	EQ(mode_of("f"), 0777);
	OK(chmod("f", 04777));
	AS(ALICE) EQ(pwritev((int)OK(open("f", O_WRONLY)), &(struct iovec){"x", 1}, 1, 0), 1);
	EQ(mode_of("f"), 0777);
}

CASE(write_drops_an_idle_sgid_outside_of_the_group, ROOT)
{
	OK(make("f", 02767));
	AS(ALICE) EQ(write((int)OK(open("f", O_WRONLY)), "x", 1), 1);
	EQ(mode_of("f"), 0767);
}

CASE(write_by_the_owner_drops_suid_too, USER)
{
	OK(make("f", 06755));
	const int fd = (int)OK(open("f", O_WRONLY));
	EQ(mode_of("f"), 06755);
	EQ(write(fd, "x", 1), 1);
	EQ(mode_of("f"), 0755);
}

CASE(write_by_root_keeps_suid_and_sgid, ROOT)
{
	OK(make("f", 06777));
	EQ(write((int)OK(open("f", O_WRONLY)), "x", 1), 1);
	EQ(mode_of("f"), 06777);
}

/* ---- direct I/O ---- */

static int open_direct(void)
{
	const int fd = open("f", O_RDWR | O_CREAT | O_DIRECT, 0644);
	if (fd == -1 && errno == EINVAL)
		skip("no O_DIRECT here");
	return (int)OK(fd);
}

CASE(direct_aligned_io, ANYONE)
{
	const int fd = open_direct();
	char *data = page_buffer(65536), *got = page_buffer(65536);
	fill(data, 65536, 1);
	EQ(write(fd, data, 65536), 65536);
	EQ(pread(fd, got, 65536, 0), 65536);
	CHECK(filled(got, 65536, 1));
	EQ(pread(fd, got, 4096, 61440), 4096);
	EQ(pread(fd, got, 8192, 61440), 4096);
	EQ(pread(fd, got, 4096, 65536), 0);
	EQ(size_of("f"), 65536);
}

CASE(direct_misaligned_io_is_EINVAL, ANYONE)
{
	const int fd = open_direct();
	char *data = page_buffer(8192);
	FAILS(EINVAL, pwrite(fd, data, 100, 0));
	FAILS(EINVAL, pwrite(fd, data, 4096, 100));
	FAILS(EINVAL, pwrite(fd, data + 1, 4096, 0));
	EQ(size_of("f"), 0);
	EQ(pwrite(fd, data, 4096, 0), 4096);
	FAILS(EINVAL, pread(fd, data, 100, 0));
	FAILS(EINVAL, pread(fd, data + 1, 4096, 0));
}

CASE(direct_reads_the_unaligned_end, ANYONE)
{
	OK(put("f", "hello"));
	const int fd = open_direct();
	char *data = page_buffer(4096);
	EQ(pread(fd, data, 4096, 0), 5);
	EQ(memcmp(data, "hello", 5), 0);
}

CASE(direct_and_buffered_see_each_other, ANYONE)
{
	const int direct = open_direct(), buffered = (int)OK(open("f", O_RDWR));
	char *data = page_buffer(8192), *got = page_buffer(8192);
	for (unsigned round = 0; round < 8; round++) {
		fill(data, 8192, round);
		EQ(pwrite(buffered, data, 8192, 0), 8192);
		EQ(pread(direct, got, 8192, 0), 8192);
		CHECK(filled(got, 8192, round));
		fill(data, 8192, round + 50);
		EQ(pwrite(direct, data, 8192, 0), 8192);
		EQ(pread(buffered, got, 8192, 0), 8192);
		CHECK(filled(got, 8192, round + 50));
	}
}

CASE(direct_can_be_switched_by_fcntl, ANYONE)
{
	const int fd = create_open("f");
	char *data = page_buffer(4096), *got = page_buffer(4096);
	fill(data, 4096, 1);
	EQ(write(fd, data, 4096), 4096);
	if (fcntl(fd, F_SETFL, O_DIRECT))
		skip("no O_DIRECT here");
	EQ(pread(fd, got, 4096, 0), 4096);
	CHECK(filled(got, 4096, 1));
	OK(fcntl(fd, F_SETFL, 0));
	EQ(pread(fd, got, 100, 1), 100);
}

CASE(direct_append, ANYONE)
{
	char *data = page_buffer(4096);
	OK(close(open_direct()));
	const int fd = (int)OK(open("f", O_WRONLY | O_APPEND | O_DIRECT));
	for (int i = 0; i < 4; i++)
		EQ(write(fd, data, 4096), 4096);
	EQ(size_of("f"), 16384);
}
