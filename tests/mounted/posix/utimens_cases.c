/* SPDX-License-Identifier: BSD-3-Clause */
/* utimensat(2), futimens(3), utime(2): special values, who may, and times far away. */
#include <sys/time.h>
#include <utime.h>

#include "tests/mounted/posix/posix_check.h"

static int set_times(const char *path, struct timespec atime, struct timespec mtime)
{
	return utimensat(AT_FDCWD, path, (const struct timespec[2]){atime, mtime}, 0);
}

static const struct timespec now_value = {0, UTIME_NOW}, omit = {0, UTIME_OMIT};

static void check_set(const char *path, struct timespec atime, struct timespec mtime)
{
	OK(set_times(path, atime, mtime));
	const struct times got = times_of(path);
	EQ(got.atime.tv_sec, atime.tv_sec);
	EQ(got.atime.tv_nsec, atime.tv_nsec);
	EQ(got.mtime.tv_sec, mtime.tv_sec);
	EQ(got.mtime.tv_nsec, mtime.tv_nsec);
}

CASE(utimens_sets_both_with_nanoseconds, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(mkfifo("p", 0644));
	static const char *const names[] = {"f", "d", "p"};
	for (int i = 0; i < 3; i++) {
		check_set(names[i], (struct timespec){1000000000, 123456789}, (struct timespec){1100000000, 999999999});
		check_set(names[i], (struct timespec){0, 0}, (struct timespec){1, 1});
	}
}

CASE(utimens_null_is_now, ANYONE)
{
	OK(put("f", ""));
	check_set("f", (struct timespec){1, 0}, (struct timespec){2, 0});
	TIMES("f", "amc", utimensat(AT_FDCWD, "f", NULL, 0));
	CHECK(labs(times_of("f").atime.tv_sec - time(NULL)) < 60);
	EQ(compare_times(times_of("f").atime, times_of("f").mtime), 0);
}

CASE(utimens_now_is_now, ANYONE)
{
	OK(put("f", ""));
	TIMES("f", "amc", set_times("f", now_value, now_value));
	TIMES("f", "ac", set_times("f", now_value, omit));
	TIMES("f", "mc", set_times("f", omit, now_value));
	CHECK(labs(times_of("f").atime.tv_sec - time(NULL)) < 60);
}

CASE(utimens_omit_leaves_alone, ANYONE)
{
	OK(put("f", ""));
	TIMES("f", "", set_times("f", omit, omit));
	TIMES("f", "c", set_times("f", times_of("f").atime, times_of("f").mtime));
	OK(set_times("f", (struct timespec){5, 6}, (struct timespec){7, 8}));
	OK(set_times("f", omit, (struct timespec){9, 10}));
	EQ(times_of("f").atime.tv_sec, 5);
	EQ(times_of("f").mtime.tv_sec, 9);
	OK(set_times("f", (struct timespec){11, 12}, omit));
	EQ(times_of("f").atime.tv_sec, 11);
	EQ(times_of("f").mtime.tv_nsec, 10);
}

CASE(utimens_seconds_are_ignored_with_special_values, ANYONE)
{
	OK(put("f", ""));
	OK(set_times("f", (struct timespec){-77, UTIME_NOW}, (struct timespec){99, UTIME_OMIT}));
	CHECK(labs(times_of("f").atime.tv_sec - time(NULL)) < 60);
}

CASE(utimens_changes_ctime, ANYONE)
{
	OK(put("f", ""));
	const struct times before = times_of("f");
	tick();
	OK(set_times("f", (struct timespec){1, 0}, (struct timespec){2, 0}));
	CHECK(compare_times(times_of("f").ctime, before.ctime) > 0);
}

CASE(utimens_beyond_2038_and_before_1970, ANYONE)
{
	OK(put("f", ""));
	check_set("f", (struct timespec){2147483647, 0}, (struct timespec){2147483648, 1});
	check_set("f", (struct timespec){4294967295, 5}, (struct timespec){4294967296, 999999999});
	check_set("f", (struct timespec){10000000000, 0}, (struct timespec){15032385535, 0});
	check_set("f", (struct timespec){-1, 0}, (struct timespec){-1, 999999999});
	check_set("f", (struct timespec){-2147483648, 0}, (struct timespec){-1000000, 1});
}

CASE(utimens_invalid_nanoseconds_are_EINVAL, ANYONE)
{
	OK(put("f", ""));
	FAILS(EINVAL, set_times("f", (struct timespec){0, 1000000000}, now_value));
	FAILS(EINVAL, set_times("f", (struct timespec){0, -1}, now_value));
	FAILS(EINVAL, set_times("f", now_value, (struct timespec){0, 2000000000}));
}

CASE(utimens_nofollow_changes_the_symlink, ANYONE)
{
	OK(put("f", ""));
	OK(symlink("f", "l"));
	const struct times before = times_of("f");
	OK(utimensat(AT_FDCWD, "l", (const struct timespec[2]){{3, 4}, {5, 6}}, AT_SYMLINK_NOFOLLOW));
	EQ(times_of("l").atime.tv_sec, 3);
	EQ(times_of("l").mtime.tv_nsec, 6);
	EQ(compare_times(times_of("f").mtime, before.mtime), 0);
	OK(set_times("l", (struct timespec){7, 0}, (struct timespec){8, 0}));
	EQ(times_of("f").mtime.tv_sec, 8);
	EQ(times_of("l").mtime.tv_sec, 5);
}

CASE(utimens_by_descriptor, ANYONE)
{
	const int fd = create_open("f");
	OK(futimens(fd, (const struct timespec[2]){{3, 4}, {5, 6}}));
	EQ(fstat_of(fd).st_mtim.tv_nsec, 6);
	OK(futimens((int)OK(open("f", O_RDONLY)), (const struct timespec[2]){{7, 4}, {9, 6}}));
	EQ(fstat_of(fd).st_mtim.tv_sec, 9);
	const int dir = (int)OK(open(".", O_RDONLY));
	OK(futimens(dir, (const struct timespec[2]){{3, 4}, {5, 6}}));
	EQ(stat_of(".").st_mtim.tv_sec, 5);
	FAILS(EBADF, futimens(-1, NULL));
}

CASE(utimens_older_calls, ANYONE)
{
	OK(put("f", ""));
	OK(utime("f", &(struct utimbuf){100, 200}));
	EQ(times_of("f").atime.tv_sec, 100);
	EQ(times_of("f").mtime.tv_sec, 200);
	OK(utimes("f", (const struct timeval[2]){{300, 5}, {400, 999999}}));
	EQ(times_of("f").atime.tv_nsec, 5000);
	EQ(times_of("f").mtime.tv_nsec, 999999000);
	FAILS(EINVAL, utimes("f", (const struct timeval[2]){{300, 1000000}, {400, 0}}));
}

CASE(utimens_errors_of_the_path, ANYONE)
{
	OK(put("f", ""));
	OK(symlink("nowhere", "dangling"));
	FAILS(ENOENT, utimensat(AT_FDCWD, "missing", NULL, 0));
	FAILS(ENOENT, utimensat(AT_FDCWD, "", NULL, 0));
	FAILS(ENOENT, utimensat(AT_FDCWD, "dangling", NULL, 0));
	OK(utimensat(AT_FDCWD, "dangling", NULL, AT_SYMLINK_NOFOLLOW));
	FAILS(ENOTDIR, utimensat(AT_FDCWD, "f/x", NULL, 0));
	FAILS(EFAULT, utimensat(AT_FDCWD, bad_pointer(), NULL, 0));
	FAILS(EFAULT, utimensat(AT_FDCWD, "f", bad_pointer(), 0));
	FAILS(EINVAL, utimensat(AT_FDCWD, "f", NULL, 0x8000));
	FAILS(EBADF, utimensat(-7, "f", NULL, 0));
	FAILS(ENAMETOOLONG, utimensat(AT_FDCWD, repeat('a', 256), NULL, 0));
}

CASE(utimens_of_somebody_elses_file, ROOT)
{
	OK(make("writable", 0666));
	OK(make("readable", 0644));
	AS(ALICE) {
		OK(utimensat(AT_FDCWD, "writable", NULL, 0));
		OK(set_times("writable", now_value, now_value));
		OK(set_times("writable", omit, omit));
		FAILS(EPERM, set_times("writable", now_value, omit));
		FAILS(EPERM, set_times("writable", omit, now_value));
		FAILS(EPERM, set_times("writable", (struct timespec){1, 1}, (struct timespec){1, 1}));
		FAILS(EACCES, utimensat(AT_FDCWD, "readable", NULL, 0));
		FAILS(EACCES, set_times("readable", now_value, now_value));
		FAILS(EPERM, set_times("readable", (struct timespec){1, 1}, omit));
	}
}

CASE(utimens_by_the_owner_needs_no_write_permission, USER)
{
	OK(make("f", 0));
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	OK(set_times("f", (struct timespec){1, 1}, (struct timespec){2, 2}));
}

CASE(utimens_of_any_file_by_root, ROOT)
{
	OK(make("f", 0));
	OK(chown("f", ALICE.uid, ALICE.gid));
	OK(set_times("f", (struct timespec){1, 1}, (struct timespec){2, 2}));
}

CASE(utimens_needs_search_permission_on_the_way, USER)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	OK(chmod("d", 0666));
	FAILS(EACCES, utimensat(AT_FDCWD, "d/f", NULL, 0));
	OK(chmod("d", 0755));
}
