/* SPDX-License-Identifier: BSD-3-Clause */
/* lseek(2) with SEEK_DATA and SEEK_HOLE; fallocate(2) and its modes. */
#include <linux/falloc.h>

#include "tests/mounted/posix/posix_check.h"

enum { MIB = 1 << 20 };

static char data[MIB], got[MIB];

/* A file of a MiB of data, in the place of the disk where it stays. */
static int mib_of_data(void)
{
	const int fd = create_open("f");
	fill(data, MIB, 1);
	EQ(write(fd, data, MIB), MIB);
	OK(fsync(fd));
	return fd;
}

CASE(seek_whence, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abcdef", 6), 6);
	EQ(lseek(fd, 2, SEEK_SET), 2);
	EQ(lseek(fd, 3, SEEK_CUR), 5);
	EQ(lseek(fd, -1, SEEK_END), 5);
	EQ(lseek(fd, 100, SEEK_END), 106);
	EQ(size_of("f"), 6);
	FAILS(EINVAL, lseek(fd, -1, SEEK_SET));
	FAILS(EINVAL, lseek(fd, -7, SEEK_END));
	FAILS(EINVAL, lseek(fd, 0, 17));
	FAILS(EBADF, lseek(-1, 0, SEEK_SET));
	EQ(lseek(fd, 0, SEEK_CUR), 106);
}

CASE(seek_overflow_is_EINVAL_or_EOVERFLOW, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abcdef", 6), 6);
	CHECK(lseek(fd, INT64_MAX, SEEK_CUR) == -1 && (errno == EINVAL || errno == EOVERFLOW));
	CHECK(lseek(fd, INT64_MAX, SEEK_END) == -1 && (errno == EINVAL || errno == EOVERFLOW));
}

CASE(seek_data_and_hole_in_a_full_file, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	EQ(lseek(fd, 0, SEEK_DATA), 0);
	EQ(lseek(fd, 2, SEEK_DATA), 2);
	EQ(lseek(fd, 0, SEEK_HOLE), 3);
	FAILS(ENXIO, lseek(fd, 3, SEEK_DATA));
	FAILS(ENXIO, lseek(fd, 3, SEEK_HOLE));
	FAILS(ENXIO, lseek(fd, 100, SEEK_HOLE));
	FAILS(ENXIO, lseek(fd, -1, SEEK_DATA));
}

CASE(seek_in_an_empty_file_is_ENXIO, ANYONE)
{
	const int fd = create_open("f");
	FAILS(ENXIO, lseek(fd, 0, SEEK_DATA));
	FAILS(ENXIO, lseek(fd, 0, SEEK_HOLE));
}

CASE(seek_finds_data_between_holes, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, 4 * MIB));
	EQ(pwrite(fd, "x", 1, MIB), 1);
	EQ(pwrite(fd, "y", 1, 2 * MIB), 1);
	OK(fsync(fd));
	EQ(lseek(fd, 0, SEEK_HOLE), 0);
	EQ(lseek(fd, 0, SEEK_DATA), MIB);
	EQ(lseek(fd, MIB, SEEK_HOLE), MIB + PAGE);
	EQ(lseek(fd, MIB + PAGE, SEEK_DATA), 2 * MIB);
	EQ(lseek(fd, 2 * MIB + 5, SEEK_DATA), 2 * MIB + 5);
	EQ(lseek(fd, 2 * MIB + 5, SEEK_HOLE), 2 * MIB + PAGE);
	FAILS(ENXIO, lseek(fd, 2 * MIB + PAGE, SEEK_DATA));
	EQ(lseek(fd, 3 * MIB, SEEK_HOLE), 3 * MIB);
	EQ(lseek(fd, 0, SEEK_CUR), 3 * MIB);
}

CASE(seek_sees_data_not_yet_on_disk, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, MIB));
	EQ(pwrite(fd, "x", 1, 65536), 1);
	const off_t found = lseek(fd, 0, SEEK_DATA);
	CHECK(found >= 0 && found <= 65536); /* that there is no hole is no lie, that there is no data is */
	CHECK(lseek(fd, 65536, SEEK_HOLE) >= 65536 + PAGE);
}

/* ---- fallocate ---- */

CASE(fallocate_extends_and_reserves, ANYONE)
{
	const int fd = create_open("f");
	OK(fallocate(fd, 0, 0, MIB));
	EQ(fstat_of(fd).st_size, MIB);
	CHECK(fstat_of(fd).st_blocks >= MIB / 512);
	EQ(pread(fd, got, MIB, 0), MIB);
	CHECK(zeroed(got, MIB));
	OK(fallocate(fd, 0, 3 * MIB, 5));
	EQ(fstat_of(fd).st_size, 3 * MIB + 5);
}

CASE(fallocate_keeps_data, ANYONE)
{
	const int fd = mib_of_data();
	OK(fallocate(fd, 0, 0, 2 * MIB));
	EQ(pread(fd, got, MIB, 0), MIB);
	CHECK(filled(got, MIB, 1));
	EQ(fstat_of(fd).st_size, 2 * MIB);
	OK(fallocate(fd, 0, 0, 100));
	EQ(fstat_of(fd).st_size, 2 * MIB);
}

CASE(fallocate_keep_size, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, MIB));
	EQ(fstat_of(fd).st_size, 3);
	CHECK(fstat_of(fd).st_blocks >= MIB / 512);
	EQ(pread(fd, got, 10, 0), 3);
	OK(ftruncate(fd, MIB));
	EQ(pread(fd, got, MIB, 0), MIB);
	CHECK(zeroed(got + 3, MIB - 3));
}

CASE(fallocate_punch_hole, ANYONE)
{
	const int fd = mib_of_data();
	const blkcnt_t before = fstat_of(fd).st_blocks;
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 131072));
	EQ(fstat_of(fd).st_size, MIB);
	EQ(before - fstat_of(fd).st_blocks, 131072 / 512);
	EQ(pread(fd, got, MIB, 0), MIB);
	EQ(memcmp(got, data, 65536), 0);
	CHECK(zeroed(got + 65536, 131072));
	EQ(memcmp(got + 196608, data + 196608, MIB - 196608), 0);
}

CASE(seek_finds_a_punched_hole, ANYONE)
{
	const int fd = mib_of_data();
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 65536, 131072));
	EQ(lseek(fd, 0, SEEK_HOLE), 65536);
	EQ(lseek(fd, 65536, SEEK_DATA), 196608);
}

CASE(fallocate_punch_hole_unaligned, ANYONE)
{
	const int fd = mib_of_data();
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1000, 10000));
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 20000, 1));
	EQ(pread(fd, got, MIB, 0), MIB);
	memset(data + 1000, 0, 10000);
	data[20000] = 0;
	EQ(memcmp(got, data, MIB), 0);
}

CASE(fallocate_punch_hole_past_the_end, ANYONE)
{
	const int fd = mib_of_data();
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, MIB - 5000, 3 * MIB));
	EQ(fstat_of(fd).st_size, MIB);
	EQ(pread(fd, got, MIB, 0), MIB);
	CHECK(zeroed(got + MIB - 5000, 5000));
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10 * MIB, MIB));
	EQ(fstat_of(fd).st_size, MIB);
}

CASE(fallocate_zero_range, ANYONE)
{
	const int fd = mib_of_data();
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, 5000, 100000));
	EQ(fstat_of(fd).st_size, MIB);
	EQ(pread(fd, got, MIB, 0), MIB);
	memset(data + 5000, 0, 100000);
	EQ(memcmp(got, data, MIB), 0);
	CHECK(fstat_of(fd).st_blocks >= MIB / 512);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE, MIB, MIB));
	EQ(fstat_of(fd).st_size, 2 * MIB);
	OK(fallocate(fd, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 2 * MIB, MIB));
	EQ(fstat_of(fd).st_size, 2 * MIB);
	CHECK(fstat_of(fd).st_blocks >= 3 * MIB / 512);
}

CASE(fallocate_punch_in_a_mapped_or_cached_file_is_seen, ANYONE)
{
	const int fd = mib_of_data();
	EQ(pread(fd, got, MIB, 0), MIB);
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 100));
	EQ(pread(fd, got, 200, 0), 200);
	CHECK(zeroed(got, 100));
	EQ(memcmp(got + 100, data + 100, 100), 0);
}

CASE(fallocate_collapse_range, ANYONE)
{
	const int fd = mib_of_data();
	OK(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 65536, 65536));
	EQ(fstat_of(fd).st_size, MIB - 65536);
}

CASE(fallocate_insert_range, ANYONE)
{
	const int fd = mib_of_data();
	OK(fallocate(fd, FALLOC_FL_INSERT_RANGE, 65536, 65536));
	EQ(fstat_of(fd).st_size, MIB + 65536);
}

CASE(fallocate_invalid_arguments, ANYONE)
{
	const int fd = create_open("f");
	FAILS(EINVAL, fallocate(fd, 0, 0, 0));
	FAILS(EINVAL, fallocate(fd, 0, -1, 10));
	FAILS(EINVAL, fallocate(fd, 0, 0, -1));
	FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 10));
	FAILS(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, 10));
	FAILS(EOPNOTSUPP, fallocate(fd, 1 << 20, 0, 10));
	FAILS(EFBIG, fallocate(fd, 0, INT64_MAX - 10, 100));
	FAILS(EFBIG, fallocate(fd, 0, INT64_MAX - 10, 5));
	EQ(fstat_of(fd).st_size, 0);
}

CASE(fallocate_wrong_descriptors, ANYONE)
{
	OK(put("f", ""));
	OK(mkfifo("p", 0644));
	FAILS(EBADF, fallocate(-1, 0, 0, 10));
	FAILS(EBADF, fallocate((int)OK(open("f", O_RDONLY)), 0, 0, 10));
	FAILS(ESPIPE, fallocate((int)OK(open("p", O_RDWR)), 0, 0, 10));
	FAILS(EBADF, fallocate((int)OK(open(".", O_RDONLY)), 0, 0, 10));
}

CASE(fallocate_more_than_there_is_is_ENOSPC, ANYONE)
{
	const int fd = create_open("f");
	FAILS(ENOSPC, fallocate(fd, 0, 0, (off_t)1 << 43));
	OK(ftruncate(fd, 0));
	EQ(fstat_of(fd).st_blocks, 0);
	OK(fallocate(fd, 0, 0, MIB));
}

CASE(fallocate_drops_suid_and_sgid_for_a_user, ROOT)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE};
	OK(make("f", 0777));
	OK(truncate("f", MIB));
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
		OK(chmod("f", 06777));
		AS(ALICE) OK(fallocate((int)OK(open("f", O_RDWR)), modes[i], 0, 65536));
		EQ(mode_of("f"), 0777);
	}
}

CASE(fallocate_by_root_keeps_suid_and_sgid, ROOT)
{
	OK(make("f", 06777));
	OK(fallocate((int)OK(open("f", O_RDWR)), 0, 0, 65536));
	EQ(mode_of("f"), 06777);
}

CASE(posix_fallocate_works, ANYONE)
{
	const int fd = create_open("f");
	EQ(posix_fallocate(fd, 10, 1000), 0);
	EQ(fstat_of(fd).st_size, 1010);
	EQ(posix_fallocate(fd, 0, 0), EINVAL);
	EQ(posix_fallocate(fd, -1, 10), EINVAL);
	EQ(posix_fallocate(-1, 0, 10), EBADF);
}
