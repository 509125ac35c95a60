/* SPDX-License-Identifier: BSD-3-Clause */
/* stat(2), lstat, fstat, fstatat, statx(2) with the birth time. */
#include "tests/mounted/posix/posix_check.h"

static struct statx statx_of(const char *path, int flags)
{
	struct statx stx;
	OK(statx(AT_FDCWD, path, flags, STATX_ALL, &stx));
	return stx;
}

CASE(stat_all_ways_agree, ANYONE)
{
	const int fd = create_open("f");
	struct stat a = stat_of("f"), b = fstat_of(fd), c, d;
	OK(stat("f", &c));
	OK(fstatat(fd, "", &d, AT_EMPTY_PATH));
	EQ(a.st_ino, b.st_ino);
	EQ(a.st_ino, c.st_ino);
	EQ(a.st_ino, d.st_ino);
	EQ(a.st_mode, d.st_mode);
	EQ(a.st_dev, c.st_dev);
	EQ(compare_times(a.st_ctim, d.st_ctim), 0);
}

CASE(stat_follows_lstat_does_not, ANYONE)
{
	struct stat st;
	OK(put("f", "abc"));
	OK(symlink("f", "l"));
	OK(stat("l", &st));
	CHECK(S_ISREG(st.st_mode));
	OK(lstat("l", &st));
	CHECK(S_ISLNK(st.st_mode));
	OK(fstatat(AT_FDCWD, "l", &st, AT_SYMLINK_NOFOLLOW));
	CHECK(S_ISLNK(st.st_mode));
}

CASE(stat_errors, ANYONE)
{
	struct stat st;
	OK(put("f", ""));
	OK(symlink("self", "self"));
	OK(symlink("nowhere", "dangling"));
	FAILS(ENOENT, stat("missing", &st));
	FAILS(ENOENT, stat("", &st));
	FAILS(ENOENT, stat("dangling", &st));
	FAILS(ENOTDIR, stat("f/x", &st));
	FAILS(ENOTDIR, stat("f/", &st));
	FAILS(ELOOP, stat("self", &st));
	FAILS(EFAULT, stat(bad_pointer(), &st));
	FAILS(EFAULT, stat("f", bad_pointer()));
	FAILS(ENAMETOOLONG, stat(repeat('a', 256), &st));
	FAILS(ENAMETOOLONG, stat(repeat('/', 4096), &st));
	FAILS(EBADF, fstat(-1, &st));
	FAILS(EBADF, fstatat(-7, "f", &st, 0));
	FAILS(EINVAL, fstatat(AT_FDCWD, "f", &st, 0x80000));
	FAILS(ENOTDIR, fstatat((int)OK(open("f", O_RDONLY)), "x", &st, 0));
}

CASE(stat_without_search_permission_is_EACCES, USER)
{
	struct stat st;
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	OK(chmod("d", 0666));
	FAILS(EACCES, stat("d/f", &st));
	OK(chmod("d", 0311));
	OK(stat("d/f", &st));
	FAILS(EACCES, open("d", O_RDONLY));
	OK(chmod("d", 0755));
}

CASE(stat_needs_no_permission_on_the_file, ROOT)
{
	OK(make("f", 0));
	AS(ALICE) EQ(stat_of("f").st_mode & 07777, 0);
}

CASE(stat_blocks_count_what_is_there, ANYONE)
{
	const int fd = create_open("f");
	char *data = page_buffer(PAGE * 16);
	fill(data, PAGE * 16, 1);
	EQ(write(fd, data, PAGE * 16), PAGE * 16);
	OK(fsync(fd));
	const struct stat st = fstat_of(fd);
	CHECK(st.st_blocks >= PAGE * 16 / 512);
	CHECK(st.st_blocks <= PAGE * 20 / 512);
	CHECK(st.st_blksize >= 512);
}

CASE(stat_sparse_file_has_few_blocks, ANYONE)
{
	const int fd = create_open("f");
	EQ(pwrite(fd, "x", 1, 100 << 20), 1);
	OK(fsync(fd));
	EQ(fstat_of(fd).st_size, (100 << 20) + 1);
	CHECK(fstat_of(fd).st_blocks <= 64);
}

CASE(stat_inode_number_is_stable, ANYONE)
{
	const int fd = create_open("f");
	const ino_t ino = fstat_of(fd).st_ino;
	EQ(write(fd, "x", 1), 1);
	OK(rename("f", "g"));
	OK(chmod("g", 0600));
	EQ(stat_of("g").st_ino, ino);
	CHECK(ino > 0);
}

CASE(stat_of_many_files_has_unique_numbers, ANYONE)
{
	enum { FILES = 100 };
	char name[16];
	ino_t numbers[FILES];
	for (int i = 0; i < FILES; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		OK(put(name, ""));
		numbers[i] = stat_of(name).st_ino;
		for (int j = 0; j < i; j++)
			CHECK(numbers[j] != numbers[i]);
	}
}

/* ---- statx ---- */

CASE(statx_gives_all_basic_fields, ANYONE)
{
	OK(put("f", "abc"));
	const struct statx stx = statx_of("f", 0);
	const struct stat st = stat_of("f");
	EQ(stx.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
	EQ(stx.stx_ino, st.st_ino);
	EQ(stx.stx_size, 3);
	EQ(stx.stx_mode, st.st_mode);
	EQ(stx.stx_nlink, 1);
	EQ(stx.stx_uid, st.st_uid);
	EQ(stx.stx_gid, st.st_gid);
	EQ(stx.stx_mtime.tv_sec, st.st_mtim.tv_sec);
	EQ(stx.stx_mtime.tv_nsec, st.st_mtim.tv_nsec);
	EQ(stx.stx_blksize, st.st_blksize);
}

CASE(statx_birth_time_is_when_it_was_made, ANYONE)
{
	OK(put("f", ""));
	const struct statx first = statx_of("f", 0);
	CHECK(first.stx_mask & STATX_BTIME);
	CHECK(labs((long)first.stx_btime.tv_sec - time(NULL)) < 60);
	tick();
	OK(put("f", "changed"));
	OK(chmod("f", 0600));
	OK(rename("f", "g"));
	OK(utimensat(AT_FDCWD, "g", (const struct timespec[2]){{1, 1}, {1, 1}}, 0));
	const struct statx later = statx_of("g", 0);
	EQ(later.stx_btime.tv_sec, first.stx_btime.tv_sec);
	EQ(later.stx_btime.tv_nsec, first.stx_btime.tv_nsec);
	CHECK(later.stx_ctime.tv_sec > first.stx_ctime.tv_sec || later.stx_ctime.tv_nsec != first.stx_ctime.tv_nsec);
}

CASE(statx_birth_time_of_every_type, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(symlink("x", "l"));
	OK(mkfifo("p", 0644));
	static const char *const names[] = {"d", "l", "p"};
	for (int i = 0; i < 3; i++) {
		const struct statx stx = statx_of(names[i], AT_SYMLINK_NOFOLLOW);
		CHECK(stx.stx_mask & STATX_BTIME);
		CHECK(labs((long)stx.stx_btime.tv_sec - time(NULL)) < 60);
	}
}

CASE(statx_by_descriptor_and_sync_flags, ANYONE)
{
	struct statx stx;
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	static const int flags[] = {AT_STATX_SYNC_AS_STAT, AT_STATX_FORCE_SYNC, AT_STATX_DONT_SYNC};
	for (int i = 0; i < 3; i++) {
		OK(statx(fd, "", AT_EMPTY_PATH | flags[i], STATX_ALL, &stx));
		EQ(stx.stx_size, 3);
	}
}

CASE(statx_errors, ANYONE)
{
	struct statx stx;
	OK(put("f", ""));
	FAILS(ENOENT, statx(AT_FDCWD, "missing", 0, STATX_ALL, &stx));
	FAILS(ENOENT, statx(AT_FDCWD, "", 0, STATX_ALL, &stx));
	FAILS(ENOTDIR, statx(AT_FDCWD, "f/x", 0, STATX_ALL, &stx));
	FAILS(EINVAL, statx(AT_FDCWD, "f", 0x80000, STATX_ALL, &stx));
	FAILS(EINVAL, statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, STATX_ALL, &stx));
	FAILS(EINVAL, statx(AT_FDCWD, "f", 0, STATX__RESERVED, &stx));
	FAILS(EBADF, statx(-7, "f", 0, STATX_ALL, &stx));
	FAILS(EFAULT, statx(AT_FDCWD, "f", 0, STATX_ALL, bad_pointer()));
}

CASE(statx_device_numbers, ROOT)
{
	OK(mknod("c", S_IFCHR | 0644, 12 << 8 | 34));
	const struct statx stx = statx_of("c", 0);
	EQ(stx.stx_rdev_major, 12);
	EQ(stx.stx_rdev_minor, 34);
	EQ(stx.stx_size, 0);
}
