/* SPDX-License-Identifier: BSD-3-Clause */
/* truncate(2), ftruncate(2). */
#include <sys/resource.h>

#include "tests/mounted/posix/posix_check.h"

CASE(truncate_shortens, ANYONE)
{
	OK(put("f", "abcdef"));
	OK(truncate("f", 3));
	CHECK(holds("f", "abc"));
	OK(truncate("f", 0));
	EQ(size_of("f"), 0);
	EQ(stat_of("f").st_blocks, 0);
}

CASE(truncate_lengthens_with_zeros, ANYONE)
{
	static const off_t sizes[] = {7, 100, 4095, 4096, 4097, 10000, 1 << 20};
	char *data = page_buffer(1 << 20);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		OK(put("f", "abc"));
		OK(truncate("f", sizes[i]));
		EQ(size_of("f"), sizes[i]);
		const int fd = (int)OK(open("f", O_RDONLY));
		EQ(pread(fd, data, 1 << 20, 0), sizes[i]);
		EQ(memcmp(data, "abc", 3), 0);
		CHECK(zeroed(data + 3, (size_t)sizes[i] - 3));
		OK(close(fd));
	}
}

CASE(truncate_down_and_up_shows_no_old_bytes, ANYONE)
{
	const int fd = create_open("f");
	char *data = page_buffer(20000), *got = page_buffer(20000);
	static const off_t cuts[] = {0, 1, 100, 4095, 4096, 4097, 8192, 12345, 16384};
	fill(data, 20000, 1);
	for (size_t i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
		EQ(pwrite(fd, data, 20000, 0), 20000);
		OK(ftruncate(fd, cuts[i]));
		OK(ftruncate(fd, 20000));
		EQ(pread(fd, got, 20000, 0), 20000);
		CHECK(filled(got, (size_t)cuts[i], 1));
		CHECK(zeroed(got + cuts[i], 20000 - (size_t)cuts[i]));
	}
}

CASE(truncate_down_and_write_beyond_shows_no_old_bytes, ANYONE)
{
	const int fd = create_open("f");
	char *data = page_buffer(9000), *got = page_buffer(9000);
	fill(data, 9000, 1);
	EQ(pwrite(fd, data, 9000, 0), 9000);
	OK(ftruncate(fd, 5000));
	EQ(pwrite(fd, "x", 1, 8000), 1);
	EQ(pread(fd, got, 9000, 0), 8001);
	CHECK(filled(got, 5000, 1));
	CHECK(zeroed(got + 5000, 3000));
}

CASE(truncate_frees_blocks, ANYONE)
{
	const int fd = create_open("f");
	char *data = page_buffer(1 << 20);
	fill(data, 1 << 20, 1);
	EQ(write(fd, data, 1 << 20), 1 << 20);
	OK(fsync(fd));
	OK(ftruncate(fd, 65536));
	CHECK(fstat_of(fd).st_blocks <= 65536 / 512 + 16);
	OK(ftruncate(fd, 1 << 20));
	CHECK(fstat_of(fd).st_blocks <= 65536 / 512 + 16);
}

CASE(truncate_to_a_huge_size_takes_no_space, ANYONE)
{
	OK(put("f", "x"));
	OK(truncate("f", (off_t)1 << 43));
	EQ(size_of("f"), (off_t)1 << 43);
	CHECK(stat_of("f").st_blocks <= 16);
	char byte = 1;
	const int fd = (int)OK(open("f", O_RDWR));
	EQ(pread(fd, &byte, 1, ((off_t)1 << 43) - 1), 1);
	EQ(byte, 0);
	EQ(pwrite(fd, "y", 1, ((off_t)1 << 43) - 1), 1);
	EQ(pread(fd, &byte, 1, ((off_t)1 << 43) - 1), 1);
	EQ(byte, 'y');
}

CASE(truncate_too_large_is_EFBIG, ANYONE)
{
	OK(put("f", "x"));
	FAILS(EFBIG, truncate("f", INT64_MAX));
	EQ(size_of("f"), 1);
}

CASE(truncate_negative_is_EINVAL, ANYONE)
{
	OK(put("f", "x"));
	FAILS(EINVAL, truncate("f", -1));
	FAILS(EINVAL, ftruncate((int)OK(open("f", O_RDWR)), -1));
}

CASE(truncate_over_the_file_size_limit_is_EFBIG, ANYONE)
{
	const int fd = create_open("f");
	OK(setrlimit(RLIMIT_FSIZE, &(struct rlimit){10000, 10000}));
	OK(ftruncate(fd, 10000));
	FAILS(EFBIG, ftruncate(fd, 10001));
	FAILS(EFBIG, truncate("f", 20000));
	FAILS(EFBIG, pwrite(fd, "x", 1, 10000));
	EQ(pwrite(fd, "xyz", 3, 9998), 2);
	FAILS(EFBIG, fallocate(fd, 0, 9000, 2000));
}

CASE(truncate_errors_of_the_path, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(mkfifo("p", 0644));
	OK(symlink("nowhere", "dangling"));
	FAILS(ENOENT, truncate("missing", 0));
	FAILS(ENOENT, truncate("", 0));
	FAILS(ENOENT, truncate("dangling", 0));
	FAILS(ENOTDIR, truncate("f/x", 0));
	FAILS(EISDIR, truncate("d", 0));
	FAILS(EINVAL, truncate("p", 0));
	FAILS(EFAULT, truncate(bad_pointer(), 0));
	FAILS(ENAMETOOLONG, truncate(repeat('a', 256), 0));
}

CASE(truncate_by_descriptor_needs_writing, ANYONE)
{
	OK(put("f", "abc"));
	FAILS(EINVAL, ftruncate((int)OK(open("f", O_RDONLY)), 0));
	FAILS(EBADF, ftruncate(-1, 0));
	FAILS(EINVAL, ftruncate((int)OK(open(".", O_RDONLY)), 0));
	OK(mkfifo("p", 0644));
	FAILS(EINVAL, ftruncate((int)OK(open("p", O_RDWR)), 0));
	CHECK(holds("f", "abc"));
}

CASE(truncate_without_permission_is_EACCES, USER)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_RDWR));
	OK(chmod("f", 0444));
	FAILS(EACCES, truncate("f", 0));
	OK(ftruncate(fd, 2));
	CHECK(holds("f", "ab"));
}

CASE(truncate_follows_symlinks, ANYONE)
{
	OK(put("f", "abc"));
	OK(symlink("f", "l"));
	OK(truncate("l", 1));
	CHECK(holds("f", "a"));
}

CASE(truncate_does_not_move_the_offset, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abcdef", 6), 6);
	OK(ftruncate(fd, 2));
	EQ(lseek(fd, 0, SEEK_CUR), 6);
	char byte;
	EQ(read(fd, &byte, 1), 0);
	EQ(write(fd, "g", 1), 1);
	EQ(size_of("f"), 7);
}

CASE(truncate_drops_suid_and_sgid_for_a_user, ROOT)
{
	OK(make("f", 0777));
	OK(chmod("f", 06777));
	AS(ALICE) OK(truncate("f", 10));
	EQ(mode_of("f"), 0777);
	OK(chmod("f", 06777));
	AS(ALICE) OK(ftruncate((int)OK(open("f", O_RDWR)), 20));
	EQ(mode_of("f"), 0777);
	OK(chmod("f", 06777));
	AS(ALICE) OK(open("f", O_RDWR | O_TRUNC));
	EQ(mode_of("f"), 0777);
}

/* Without execution by the group, where it once meant mandatory locking. */
CASE(truncate_drops_an_idle_sgid_outside_of_the_group, ROOT)
{
	OK(make("f", 02767));
	AS(ALICE) OK(truncate("f", 30));
	EQ(mode_of("f"), 0767);
}

CASE(truncate_keeps_an_idle_sgid_in_the_group, ROOT)
{
	OK(make("f", 0));
	OK(chown("f", 0, CAROL.group));
	OK(chmod("f", 06767));
	AS(CAROL) OK(truncate("f", 30));
	EQ(mode_of("f"), 02767);
}

CASE(truncate_by_root_keeps_suid_and_sgid, ROOT)
{
	OK(make("f", 06777));
	OK(truncate("f", 10));
	EQ(mode_of("f"), 06777);
	OK(open("f", O_RDWR | O_TRUNC));
	EQ(mode_of("f"), 06777);
}
