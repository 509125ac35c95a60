/* SPDX-License-Identifier: BSD-3-Clause */
/* Which call changes which time of which file. */
#include <sys/mman.h>
#include <sys/xattr.h>

#include "tests/mounted/posix/posix_check.h"

/* Reads so that the filesystem hears of it, whatever the page cache holds. */
static ssize_t read_uncached(int fd)
{
	char text[4];
	OK(fsync(fd));
	EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	return pread(fd, text, sizeof(text), 0);
}

CASE(times_of_a_new_file_are_now_and_equal, ANYONE)
{
	OK(put("f", ""));
	const struct times got = times_of("f");
	CHECK(labs(got.mtime.tv_sec - time(NULL)) < 60);
	EQ(compare_times(got.mtime, got.ctime), 0);
	EQ(compare_times(got.mtime, got.atime), 0);
}

CASE(times_creating_changes_the_directory, ANYONE)
{
	OK(put("x", ""));
	TIMES(".", "mc", open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
	TIMES(".", "mc", mkdir("d", 0755));
	TIMES(".", "mc", symlink("a", "l"));
	TIMES(".", "mc", mkfifo("p", 0644));
	TIMES(".", "mc", link("x", "y"));
	TIMES(".", "mc", mknod("r", S_IFREG | 0644, 0));
}

CASE(times_removing_changes_the_directory, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(symlink("a", "l"));
	TIMES(".", "mc", unlink("f"));
	TIMES(".", "mc", rmdir("d"));
	TIMES(".", "mc", unlink("l"));
}

CASE(times_failing_calls_change_nothing, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(put("d/x", ""));
	const struct times here = times_of("."), file = times_of("f");
	tick();
	FAILS(EEXIST, open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
	FAILS(EEXIST, mkdir("d", 0755));
	FAILS(ENOTEMPTY, rmdir("d"));
	FAILS(EISDIR, unlink("d"));
	FAILS(EEXIST, link("f", "d"));
	FAILS(EISDIR, rename("f", "d"));
	EQ(compare_times(times_of(".").mtime, here.mtime), 0);
	EQ(compare_times(times_of(".").ctime, here.ctime), 0);
	EQ(compare_times(times_of("f").ctime, file.ctime), 0);
}

CASE(times_opening_changes_nothing, ANYONE)
{
	OK(put("f", "x"));
	TIMES("f", "", open("f", O_RDWR));
	TIMES("f", "", open("f", O_RDWR | O_CREAT, 0600));
	TIMES(".", "", open("f", O_RDWR | O_CREAT, 0600));
	TIMES("f", "", access("f", R_OK));
}

CASE(times_write_changes_mtime_and_ctime, ANYONE)
{
	const int fd = create_open("f");
	TIMES("f", "mc", write(fd, "abc", 3));
	TIMES("f", "mc", pwrite(fd, "x", 1, 0));
	TIMES("f", "mc", pwrite(fd, "x", 1, 100000));
	TIMES(".", "", write(fd, "abc", 3));
}

CASE(times_write_of_nothing_changes_nothing, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	TIMES("f", "", write(fd, "", 0));
}

CASE(times_reading_changes_no_other_than_atime, ANYONE)
{
	OK(put("f", "abc"));
	char text[4];
	const struct times before = times_of("f");
	tick();
	EQ(read((int)OK(open("f", O_RDONLY)), text, 4), 3);
	EQ(compare_times(times_of("f").mtime, before.mtime), 0);
	EQ(compare_times(times_of("f").ctime, before.ctime), 0);
}

/* relatime: the access time is behind the modification, or a day old. */
CASE(times_reading_after_a_change_moves_atime, ANYONE)
{
	OK(put("f", "abc"));
	OK(utimensat(AT_FDCWD, "f", (const struct timespec[2]){{1000000000, 0}, {1000000001, 0}}, 0));
	const int fd = (int)OK(open("f", O_RDONLY));
	TIMES("f", "a", read_uncached(fd));
	CHECK(labs(times_of("f").atime.tv_sec - time(NULL)) < 60);
}

CASE(times_relatime_reading_again_does_not_move_atime, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_RDONLY));
	const time_t now = time(NULL);
	OK(utimensat(AT_FDCWD, "f", (const struct timespec[2]){{now - 100, 0}, {now - 200, 0}}, 0));
	/* ctime is newer than atime: this read moves it, the next does not. */
	TIMES("f", "a", read_uncached(fd));
	TIMES("f", "", read_uncached(fd));
	TIMES("f", "c", chmod("f", 0640));
	TIMES("f", "a", read_uncached(fd));
}

CASE(times_reading_from_the_page_cache_moves_atime, ANYONE)
{
	OK(put("f", "abc"));
	char text[4];
	const int fd = (int)OK(open("f", O_RDONLY));
	EQ(read(fd, text, 4), 3);
	tick();
	OK(chmod("f", 0640));
	TIMES("f", "a", pread(fd, text, 4, 0));
}

CASE(times_relatime_a_day_old_atime_moves, ANYONE)
{
	OK(put("f", "abc"));
	const time_t now = time(NULL);
	const int fd = (int)OK(open("f", O_RDONLY));
	OK(utimensat(AT_FDCWD, "f", (const struct timespec[2]){{now - 100000, 0}, {now - 200000, 0}}, 0));
	TIMES("f", "a", read_uncached(fd));
}

CASE(times_noatime_descriptor_moves_nothing, USER)
{
	OK(put("f", "abc"));
	char text[4];
	OK(utimensat(AT_FDCWD, "f", (const struct timespec[2]){{1, 0}, {2, 0}}, 0));
	const int fd = (int)OK(open("f", O_RDONLY | O_NOATIME));
	TIMES("f", "", read(fd, text, 4));
	TIMES("f", "", read_uncached(fd));
}

CASE(times_truncate_changes_mtime_and_ctime, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_RDWR));
	TIMES("f", "mc", truncate("f", 10));
	TIMES("f", "mc", ftruncate(fd, 5));
	TIMES("f", "mc", open("f", O_RDWR | O_TRUNC));
	TIMES("f", "mc", open("f", O_RDWR | O_TRUNC));
	TIMES(".", "", truncate("f", 1));
}

CASE(times_truncate_to_the_same_size_changes_them_too, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_RDWR));
	TIMES("f", "mc", ftruncate(fd, 3));
	TIMES("f", "mc", truncate("f", 3));
}

CASE(times_fallocate_changes_mtime_and_ctime, ANYONE)
{
	const int fd = create_open("f");
	TIMES("f", "mc", fallocate(fd, 0, 0, 100000));
	TIMES("f", "mc", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 8192));
	TIMES("f", "mc", fallocate(fd, FALLOC_FL_ZERO_RANGE, 0, 8192));
}

CASE(times_copy_file_range_changes_the_target, ANYONE)
{
	OK(put("in", "content"));
	OK(put("out", ""));
	const int in = (int)OK(open("in", O_RDONLY)), out = (int)OK(open("out", O_RDWR));
	TIMES("out", "mc", copy_file_range(in, NULL, out, NULL, 7, 0));
}

CASE(times_chmod_changes_ctime_only, ANYONE)
{
	OK(put("f", ""));
	const int fd = (int)OK(open("f", O_RDWR));
	TIMES("f", "c", chmod("f", 0600));
	TIMES("f", "c", chmod("f", 0600));
	TIMES("f", "c", fchmod(fd, 0640));
	TIMES(".", "", chmod("f", 0600));
}

CASE(times_chown_changes_ctime_only, ANYONE)
{
	OK(put("f", ""));
	OK(symlink("f", "l"));
	TIMES("f", "c", chown("f", geteuid(), getegid()));
	TIMES("f", "c", chown("f", (uid_t)-1, getegid()));
	TIMES("l", "c", lchown("l", geteuid(), getegid()));
	TIMES("f", "", lchown("l", geteuid(), getegid()));
}

CASE(times_link_changes_ctime_of_the_file, ANYONE)
{
	OK(put("f", ""));
	TIMES("f", "c", link("f", "g"));
	TIMES("f", "c", unlink("g"));
}

CASE(times_unlink_of_the_last_link_changes_ctime, ANYONE)
{
	OK(put("f", ""));
	const int fd = (int)OK(open("f", O_RDONLY));
	const struct stat before = fstat_of(fd);
	tick();
	OK(unlink("f"));
	CHECK(compare_times(fstat_of(fd).st_ctim, before.st_ctim) > 0);
	EQ(compare_times(fstat_of(fd).st_mtim, before.st_mtim), 0);
}

CASE(times_rename_changes_ctime_and_both_directories, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(put("a/f", ""));
	const struct times file = times_of("a/f"), b = times_of("b");
	TIMES("a", "mc", rename("a/f", "b/f"));
	CHECK(compare_times(times_of("b").mtime, b.mtime) > 0);
	CHECK(compare_times(times_of("b").ctime, b.ctime) > 0);
	CHECK(compare_times(times_of("b/f").ctime, file.ctime) > 0);
	EQ(compare_times(times_of("b/f").mtime, file.mtime), 0);
	TIMES("b", "mc", rename("b/f", "b/g"));
}

CASE(times_rename_over_changes_ctime_of_what_lost_its_name, ANYONE)
{
	OK(put("f", ""));
	OK(put("g", ""));
	OK(link("g", "h"));
	TIMES("h", "c", rename("f", "g"));
}

CASE(times_rename_to_itself_changes_nothing, ANYONE)
{
	OK(put("f", ""));
	OK(link("f", "g"));
	TIMES("f", "", rename("f", "f"));
	TIMES("f", "", rename("f", "g"));
	TIMES(".", "", rename("f", "g"));
}

CASE(times_exchange_changes_ctime_of_both, ANYONE)
{
	OK(put("f", ""));
	OK(put("g", ""));
	const struct times before = times_of("g");
	tick();
	OK(renameat2(AT_FDCWD, "f", AT_FDCWD, "g", RENAME_EXCHANGE));
	CHECK(compare_times(times_of("f").ctime, before.ctime) > 0);
	CHECK(compare_times(times_of("g").ctime, before.ctime) > 0);
}

CASE(times_xattrs_change_ctime_only, ANYONE)
{
	OK(put("f", ""));
	char value[8];
	TIMES("f", "c", setxattr("f", "user.a", "x", 1, 0));
	TIMES("f", "c", setxattr("f", "user.a", "y", 1, 0));
	TIMES("f", "", getxattr("f", "user.a", value, 8));
	TIMES("f", "", listxattr("f", value, 8));
	TIMES("f", "c", removexattr("f", "user.a"));
}

CASE(times_reading_a_directory_moves_at_most_atime, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	const struct times before = times_of("d");
	tick();
	DIR *dir = opendir("d");
	CHECK(dir != NULL);
	while (readdir(dir)) {
	}
	closedir(dir);
	EQ(compare_times(times_of("d").mtime, before.mtime), 0);
	EQ(compare_times(times_of("d").ctime, before.ctime), 0);
}

CASE(times_reading_a_directory_moves_its_atime, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	OK(utimensat(AT_FDCWD, "d", (const struct timespec[2]){{1000000000, 0}, {1000000001, 0}}, 0));
	DIR *dir = opendir("d");
	CHECK(dir != NULL);
	TIMES("d", "a", readdir(dir) ? 0 : -1);
}

CASE(times_reading_a_symlink_moves_its_atime, ANYONE)
{
	OK(symlink("x", "l"));
	OK(utimensat(AT_FDCWD, "l", (const struct timespec[2]){{1000000000, 0}, {1000000001, 0}}, AT_SYMLINK_NOFOLLOW));
	char text[4];
	TIMES("l", "a", readlink("l", text, 4));
}

CASE(times_mapped_writing_changes_mtime_and_ctime, ANYONE)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, PAGE));
	char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED);
	const struct times before = times_of("f");
	tick();
	at[0] = 'x';
	OK(msync(at, PAGE, MS_SYNC));
	CHECK(compare_times(times_of("f").mtime, before.mtime) > 0);
	CHECK(compare_times(times_of("f").ctime, before.ctime) > 0);
}

CASE(times_stay_after_closing_and_syncing, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	OK(futimens(fd, (const struct timespec[2]){{1, 2}, {3, 4}}));
	OK(fsync(fd));
	OK(close(fd));
	tick();
	EQ(times_of("f").mtime.tv_sec, 3);
	EQ(times_of("f").mtime.tv_nsec, 4);
	EQ(times_of("f").atime.tv_sec, 1);
}

CASE(times_special_files_keep_theirs_when_used, ANYONE)
{
	OK(mkfifo("p", 0644));
	const int fd = (int)OK(open("p", O_RDWR));
	const struct times before = times_of("p");
	EQ(write(fd, "x", 1), 1);
	EQ(compare_times(times_of("p").ctime, before.ctime) >= 0, 1);
}
