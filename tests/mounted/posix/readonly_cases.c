/* SPDX-License-Identifier: BSD-3-Clause */
/* EROFS: what a read-only mount refuses, and what it allows. The files are those of fill_read_only() in posix_test.py. */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>

#include "tests/mounted/posix/posix_check.h"

static void enter(void)
{
	OK(chdir(read_only_dir()));
	OK(chdir("ro"));
}

CASE(readonly_open_for_writing, ANYONE)
{
	enter();
	FAILS(EROFS, open("file", O_WRONLY));
	FAILS(EROFS, open("file", O_RDWR));
	FAILS(EROFS, open("link", O_RDWR));
	FAILS(EROFS, open("file", O_RDONLY | O_TRUNC));
	FAILS(EROFS, open("file", O_RDWR | O_CREAT, 0644));
	FAILS(EROFS, open("new", O_RDWR | O_CREAT, 0644));
	FAILS(EROFS, open("new", O_RDONLY | O_CREAT | O_EXCL, 0644));
	FAILS(EROFS, open("dir", O_TMPFILE | O_RDWR, 0644));
}

CASE(readonly_open_for_reading, ANYONE)
{
	enter();
	CHECK(holds("file", "content"));
	CHECK(holds("link", "content"));
	OK(open("file", O_RDONLY | O_CREAT, 0644));
	FAILS(EEXIST, open("file", O_RDONLY | O_CREAT | O_EXCL, 0644));
	FAILS(ENOENT, open("missing", O_WRONLY));
}

CASE(readonly_fifo_can_be_written, ANYONE)
{
	enter();
	const int in = (int)OK(open("fifo", O_RDONLY | O_NONBLOCK));
	if (geteuid() == 0) {
		const int out = (int)OK(open("fifo", O_WRONLY | O_NONBLOCK));
		EQ(write(out, "x", 1), 1);
		char byte;
		EQ(read(in, &byte, 1), 1);
	}
}

CASE(readonly_names_cannot_be_made, ANYONE)
{
	enter();
	FAILS(EROFS, mkdir("new", 0755));
	FAILS(EROFS, symlink("file", "new"));
	FAILS(EROFS, mkfifo("new", 0644));
	FAILS(EROFS, mknod("new", S_IFREG | 0644, 0));
	FAILS(EROFS, link("file", "new"));
	FAILS(EEXIST, mkdir("dir", 0755));
	FAILS(EEXIST, symlink("file", "link"));
	FAILS(ENOENT, mkdir("missing/new", 0755));
}

CASE(readonly_names_cannot_be_removed, ANYONE)
{
	enter();
	FAILS(EROFS, unlink("file"));
	FAILS(EROFS, rmdir("dir"));
	FAILS(EROFS, unlink("missing"));
	FAILS(EROFS, rename("file", "new"));
	FAILS(EROFS, rename("file", "other"));
}

CASE(readonly_attributes_cannot_be_changed, ANYONE)
{
	enter();
	FAILS(EROFS, chmod("file", 0600));
	FAILS(EROFS, chown("file", geteuid(), getegid()));
	FAILS(EROFS, lchown("link", geteuid(), getegid()));
	FAILS(EROFS, truncate("file", 0));
	FAILS(EROFS, utimensat(AT_FDCWD, "file", NULL, 0));
	const int fd = (int)OK(open("file", O_RDONLY));
	FAILS(EROFS, fchmod(fd, 0600));
	FAILS(EROFS, fchown(fd, geteuid(), getegid()));
	FAILS(EROFS, futimens(fd, NULL));
	FAILS(EINVAL, ftruncate(fd, 0));
}

CASE(readonly_xattrs_cannot_be_changed, ANYONE)
{
	enter();
	char value[8];
	EQ(getxattr("file", "user.there", value, sizeof(value)), 5);
	FAILS(EROFS, setxattr("file", "user.new", "x", 1, 0));
	FAILS(EROFS, removexattr("file", "user.there"));
	FAILS(EROFS, setxattr("file", "system.posix_acl_access", "x", 1, 0));
}

CASE(readonly_flags_cannot_be_changed, ROOT)
{
	enter();
	const int fd = (int)OK(open("file", O_RDONLY));
	int flags = 0;
	OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	flags |= FS_NODUMP_FL;
	FAILS(EROFS, ioctl(fd, FS_IOC_SETFLAGS, &flags));
}

CASE(readonly_access_denies_writing, ANYONE)
{
	enter();
	FAILS(EROFS, access("file", W_OK));
	FAILS(EROFS, access("dir", W_OK));
	OK(access("file", R_OK));
	OK(access("dir", R_OK | X_OK));
}

CASE(readonly_fsync_is_allowed, ANYONE)
{
	enter();
	const int fd = (int)OK(open("file", O_RDONLY));
	OK(fsync(fd));
	OK(fdatasync(fd));
	OK(fsync((int)OK(open("dir", O_RDONLY))));
}

CASE(readonly_reading_changes_no_times, ANYONE)
{
	enter();
	char byte;
	const int fd = (int)OK(open("other", O_RDONLY));
	const struct times before = times_of("other");
	tick();
	EQ(read(fd, &byte, 1), 1);
	EQ(compare_times(times_of("other").atime, before.atime), 0);
}
