/* SPDX-License-Identifier: BSD-3-Clause */
/* open(2) with O_TMPFILE and O_PATH, and linkat(2) of what they open. */
#include <sys/xattr.h>

#include "tests/mounted/posix/posix_check.h"

static const char *proc_fd(int fd)
{
	static char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return path;
}

CASE(tmpfile_has_no_name_and_no_link, ANYONE)
{
	const int fd = (int)OK(open(".", O_TMPFILE | O_RDWR, 0640));
	const struct stat st = fstat_of(fd);
	CHECK(S_ISREG(st.st_mode));
	EQ(st.st_mode & 07777, 0640);
	EQ(st.st_nlink, 0);
	EQ(st.st_size, 0);
	EQ(st.st_uid, geteuid());
	OK(mkdir("d", 0755));
	OK(open("d", O_TMPFILE | O_RDWR, 0640));
	OK(rmdir("d"));
}

CASE(tmpfile_is_cut_by_the_umask, ANYONE)
{
	umask(027);
	EQ(fstat_of((int)OK(open(".", O_TMPFILE | O_RDWR, 0777))).st_mode & 07777, 0750);
}

CASE(tmpfile_reads_what_was_written, ANYONE)
{
	const int fd = (int)OK(open(".", O_TMPFILE | O_RDWR, 0600));
	char *data = page_buffer(100000), *got = page_buffer(100000);
	fill(data, 100000, 3);
	EQ(write(fd, data, 100000), 100000);
	EQ(pread(fd, got, 100000, 0), 100000);
	CHECK(filled(got, 100000, 3));
	OK(ftruncate(fd, 10));
	EQ(fstat_of(fd).st_size, 10);
	OK(fsync(fd));
}

CASE(tmpfile_linked_by_proc_becomes_a_file, ANYONE)
{
	const int fd = (int)OK(open(".", O_TMPFILE | O_RDWR, 0600));
	EQ(write(fd, "content", 7), 7);
	OK(linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	CHECK(holds("named", "content"));
	EQ(fstat_of(fd).st_nlink, 1);
	EQ(links_of("named"), 1);
	OK(linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "second", AT_SYMLINK_FOLLOW));
	EQ(links_of("named"), 2);
}

CASE(tmpfile_linked_by_empty_path, ROOT)
{
	const int fd = (int)OK(open(".", O_TMPFILE | O_WRONLY, 0600));
	EQ(write(fd, "content", 7), 7);
	OK(linkat(fd, "", AT_FDCWD, "named", AT_EMPTY_PATH));
	CHECK(holds("named", "content"));
}

CASE(tmpfile_link_over_an_existing_name_is_EEXIST, ANYONE)
{
	OK(put("there", "old"));
	const int fd = (int)OK(open(".", O_TMPFILE | O_RDWR, 0600));
	FAILS(EEXIST, linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "there", AT_SYMLINK_FOLLOW));
	CHECK(holds("there", "old"));
	EQ(fstat_of(fd).st_nlink, 0);
}

CASE(tmpfile_with_excl_cannot_be_linked, ANYONE)
{
	const int fd = (int)OK(open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600));
	FAILS(ENOENT, linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	CHECK(!exists("named"));
}

CASE(tmpfile_linked_and_unlinked_cannot_be_linked_again, ANYONE)
{
	const int fd = (int)OK(open(".", O_TMPFILE | O_RDWR, 0600));
	OK(linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	OK(unlink("named"));
	FAILS(ENOENT, linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
}

CASE(tmpfile_must_be_writable_and_in_a_directory, ANYONE)
{
	FAILS(EINVAL, open(".", O_TMPFILE | O_RDONLY, 0600));
	OK(put("f", ""));
	FAILS(ENOTDIR, open("f", O_TMPFILE | O_RDWR, 0600));
	FAILS(ENOENT, open("missing", O_TMPFILE | O_RDWR, 0600));
	FAILS(EINVAL, open(".", (O_TMPFILE & ~O_DIRECTORY) | O_RDWR, 0600));
	FAILS(EINVAL, open(".", O_TMPFILE | O_RDWR | O_CREAT, 0600));
}

CASE(tmpfile_has_attributes_like_others, ANYONE)
{
	const int fd = (int)OK(open(".", O_TMPFILE | O_RDWR, 0600));
	OK(fsetxattr(fd, "user.a", "value", 5, 0));
	OK(fchmod(fd, 0444));
	OK(linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	EQ(mode_of("named"), 0444);
	char value[8];
	EQ(getxattr("named", "user.a", value, sizeof(value)), 5);
}

CASE(tmpfile_can_be_linked_into_another_directory, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	const int fd = (int)OK(open("a", O_TMPFILE | O_RDWR, 0600));
	OK(linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "b/named", AT_SYMLINK_FOLLOW));
	EQ(links_of("b/named"), 1);
}

/* ---- O_PATH ---- */

CASE(opath_refuses_what_needs_an_open_file, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_PATH));
	char byte;
	FAILS(EBADF, read(fd, &byte, 1));
	FAILS(EBADF, write(fd, "x", 1));
	FAILS(EBADF, fchmod(fd, 0600));
	FAILS(EBADF, fchown(fd, geteuid(), getegid()));
	FAILS(EBADF, fsync(fd));
	FAILS(EBADF, ftruncate(fd, 0));
	FAILS(EBADF, lseek(fd, 0, SEEK_SET));
	FAILS(EBADF, fgetxattr(fd, "user.a", &byte, 1));
	FAILS(EBADF, fsetxattr(fd, "user.a", &byte, 1, 0));
	FAILS(EBADF, fallocate(fd, 0, 0, 1));
}

CASE(opath_needs_no_permission_on_the_file, USER)
{
	OK(make("f", 0));
	const int fd = (int)OK(open("f", O_PATH));
	EQ(fstat_of(fd).st_mode & 07777, 0);
	FAILS(EACCES, open(proc_fd(fd), O_RDONLY));
}

CASE(opath_nofollow_opens_the_symlink_itself, ANYONE)
{
	OK(symlink("target", "link"));
	const int fd = (int)OK(open("link", O_PATH | O_NOFOLLOW));
	CHECK(S_ISLNK(fstat_of(fd).st_mode));
	char text[16];
	EQ(readlinkat(fd, "", text, sizeof(text)), 6);
	EQ(memcmp(text, "target", 6), 0);
	FAILS(ENOENT, open("link", O_PATH));
}

CASE(opath_directory_serves_as_a_base, ANYONE)
{
	OK(mkdir("d", 0755));
	const int dir = (int)OK(open("d", O_PATH));
	OK(openat(dir, "f", O_CREAT | O_RDWR, 0644));
	OK(unlinkat(dir, "f", 0));
	OK(fchdir(dir));
	CHECK(!exists("d"));
}

CASE(opath_can_be_opened_again_through_proc, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_PATH));
	OK(rename("f", "g"));
	const int again = (int)OK(open(proc_fd(fd), O_RDWR));
	EQ(write(again, "X", 1), 1);
	CHECK(holds("g", "Xbc"));
}

CASE(opath_file_unlinked_can_still_be_opened_through_proc, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_PATH));
	OK(unlink("f"));
	EQ(fstat_of(fd).st_nlink, 0);
	const int again = (int)OK(open(proc_fd(fd), O_RDONLY));
	char text[4];
	EQ(read(again, text, 4), 3);
	FAILS(ENOENT, linkat(AT_FDCWD, proc_fd(fd), AT_FDCWD, "back", AT_SYMLINK_FOLLOW));
}
