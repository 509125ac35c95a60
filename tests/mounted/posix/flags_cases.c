/* SPDX-License-Identifier: BSD-3-Clause */
/* File flags: immutable, append, nodump, noatime, through both pairs of ioctls, and what they forbid. */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/xattr.h>

#include "tests/mounted/posix/posix_check.h"

enum { SETTABLE = FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL };

static int flags_of(const char *path)
{
	int flags = 0;
	const int fd = (int)OK(open(path, O_RDONLY | O_NONBLOCK));
	OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	OK(close(fd));
	return flags & SETTABLE;
}

/* With the flags that a file has by itself (extents, ...) kept. */
static int set_flags(const char *path, int wanted)
{
	int flags = 0;
	const int fd = (int)OK(open(path, O_RDONLY | O_NONBLOCK));
	OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	flags = (flags & ~SETTABLE) | wanted;
	const int result = ioctl(fd, FS_IOC_SETFLAGS, &flags), error = errno;
	OK(close(fd));
	errno = error;
	return result;
}

CASE(flags_of_a_new_file_are_none, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	EQ(flags_of("f"), 0);
	EQ(flags_of("d"), 0);
}

CASE(flags_nodump_by_the_owner, USER)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(set_flags("f", FS_NODUMP_FL));
	OK(set_flags("d", FS_NODUMP_FL));
	EQ(flags_of("f"), FS_NODUMP_FL);
	EQ(flags_of("d"), FS_NODUMP_FL);
	OK(set_flags("f", 0));
	EQ(flags_of("f"), 0);
}

CASE(flags_all_by_root, ROOT)
{
	OK(put("f", ""));
	for (int i = 0; i < 16; i++) {
		const int flags = (i & 1 ? FS_IMMUTABLE_FL : 0) | (i & 2 ? FS_APPEND_FL : 0) | (i & 4 ? FS_NODUMP_FL : 0) |
			(i & 8 ? FS_NOATIME_FL : 0);
		OK(set_flags("f", flags));
		EQ(flags_of("f"), flags);
	}
	OK(set_flags("f", 0));
}

CASE(flags_immutable_and_append_by_a_user_are_EPERM, USER)
{
	OK(put("f", ""));
	FAILS(EPERM, set_flags("f", FS_IMMUTABLE_FL));
	FAILS(EPERM, set_flags("f", FS_APPEND_FL));
	EQ(flags_of("f"), 0);
}

CASE(flags_of_somebody_elses_file_are_EPERM_or_EACCES, ROOT)
{
	OK(make("f", 0666));
	AS(ALICE) CHECK(set_flags("f", FS_NODUMP_FL) == -1 && (errno == EPERM || errno == EACCES));
	OK(set_flags("f", FS_IMMUTABLE_FL));
	OK(chown("f", ALICE.uid, 0) == -1 && errno == EPERM ? 0 : -1);
	OK(set_flags("f", 0));
	OK(chown("f", ALICE.uid, 0));
	OK(set_flags("f", FS_IMMUTABLE_FL));
	AS(ALICE) FAILS(EPERM, set_flags("f", 0));
	OK(set_flags("f", 0));
}

CASE(flags_immutable_file_cannot_be_changed, ROOT)
{
	OK(put("f", "content"));
	OK(setxattr("f", "user.a", "x", 1, 0));
	const int fd = (int)OK(open("f", O_RDWR));
	OK(set_flags("f", FS_IMMUTABLE_FL));
	FAILS(EPERM, open("f", O_RDONLY | O_TRUNC));
	FAILS(EPERM, truncate("f", 0));
	FAILS(EPERM, ftruncate(fd, 0));
	FAILS(EPERM, unlink("f"));
	FAILS(EPERM, link("f", "g"));
	FAILS(EPERM, rename("f", "g"));
	FAILS(EPERM, chmod("f", 0600));
	FAILS(EPERM, fchmod(fd, 0600));
	FAILS(EPERM, chown("f", 1, 1));
	FAILS(EPERM, setxattr("f", "user.b", "x", 1, 0));
	FAILS(EPERM, removexattr("f", "user.a"));
	FAILS(EPERM, utimensat(AT_FDCWD, "f", (const struct timespec[2]){{1, 1}, {1, 1}}, 0));
	FAILS(EPERM, fallocate(fd, 0, 0, 100));
	CHECK(holds("f", "content"));
	OK(set_flags("f", 0));
	OK(unlink("f"));
}

CASE(flags_immutable_file_is_not_opened_for_writing, ROOT)
{
	OK(put("f", "content"));
	OK(set_flags("f", FS_IMMUTABLE_FL));
	FAILS(EPERM, open("f", O_WRONLY));
	FAILS(EPERM, open("f", O_RDWR));
	OK(open("f", O_RDONLY));
	OK(set_flags("f", 0));
}

CASE(flags_immutable_touch_is_EPERM, ROOT)
{
	OK(put("f", "content"));
	OK(set_flags("f", FS_IMMUTABLE_FL));
	FAILS(EPERM, utimensat(AT_FDCWD, "f", NULL, 0));
	OK(set_flags("f", 0));
}

CASE(flags_immutable_is_told_by_access, ROOT)
{
	OK(put("f", "content"));
	OK(set_flags("f", FS_IMMUTABLE_FL));
	FAILS(EPERM, access("f", W_OK));
	OK(set_flags("f", 0));
}

CASE(flags_immutable_stops_those_who_opened_it_before, ROOT)
{
	OK(put("f", "content"));
	const int fd = (int)OK(open("f", O_RDWR));
	OK(set_flags("f", FS_IMMUTABLE_FL));
	FAILS(EPERM, pwrite(fd, "X", 1, 0));
	OK(set_flags("f", 0));
}

CASE(flags_immutable_file_cannot_be_replaced, ROOT)
{
	OK(put("f", "content"));
	OK(put("g", ""));
	OK(set_flags("f", FS_IMMUTABLE_FL));
	FAILS(EPERM, rename("g", "f"));
	FAILS(EPERM, renameat2(AT_FDCWD, "g", AT_FDCWD, "f", RENAME_EXCHANGE));
	OK(set_flags("f", 0));
}

CASE(flags_immutable_directory_keeps_its_names, ROOT)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", "content"));
	OK(mkdir("d/sub", 0755));
	OK(put("g", ""));
	OK(set_flags("d", FS_IMMUTABLE_FL));
	FAILS(EPERM, open("d/new", O_CREAT | O_RDWR, 0644));
	FAILS(EPERM, mkdir("d/new", 0755));
	FAILS(EPERM, symlink("x", "d/new"));
	FAILS(EPERM, mkfifo("d/new", 0644));
	FAILS(EPERM, link("g", "d/new"));
	FAILS(EPERM, unlink("d/f"));
	FAILS(EPERM, rmdir("d/sub"));
	FAILS(EPERM, rename("d/f", "h"));
	FAILS(EPERM, rename("g", "d/h"));
	FAILS(EPERM, rename("d", "e"));
	FAILS(EPERM, rmdir("d"));
	FAILS(EPERM, open("d", O_TMPFILE | O_RDWR, 0600));
	OK(put("d/f", "other"));
	OK(set_flags("d", 0));
	CHECK(holds("d/f", "other"));
}

CASE(flags_append_file_grows_only, ROOT)
{
	OK(put("f", "abc"));
	OK(set_flags("f", FS_APPEND_FL));
	FAILS(EPERM, open("f", O_WRONLY | O_APPEND | O_TRUNC));
	const int fd = (int)OK(open("f", O_RDWR | O_APPEND));
	EQ(write(fd, "d", 1), 1);
	EQ(pwrite(fd, "e", 1, 0), 1);
	FAILS(EPERM, ftruncate(fd, 0));
	FAILS(EPERM, truncate("f", 0));
	FAILS(EPERM, unlink("f"));
	FAILS(EPERM, rename("f", "g"));
	FAILS(EPERM, link("f", "g"));
	FAILS(EPERM, chmod("f", 0600));
	FAILS(EPERM, setxattr("f", "user.a", "x", 1, 0));
	FAILS(EPERM, fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2));
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	FAILS(EPERM, utimensat(AT_FDCWD, "f", (const struct timespec[2]){{1, 1}, {1, 1}}, 0));
	CHECK(holds("f", "abcde"));
	OK(set_flags("f", 0));
}

CASE(flags_append_file_is_not_opened_for_overwriting, ROOT)
{
	OK(put("f", "abc"));
	OK(set_flags("f", FS_APPEND_FL));
	FAILS(EPERM, open("f", O_WRONLY));
	FAILS(EPERM, open("f", O_RDWR));
	OK(open("f", O_WRONLY | O_APPEND));
	OK(set_flags("f", 0));
}

CASE(flags_append_file_keeps_its_openings_appending, ROOT)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_RDWR | O_APPEND));
	OK(set_flags("f", FS_APPEND_FL));
	FAILS(EPERM, fcntl(fd, F_SETFL, 0));
	OK(set_flags("f", 0));
}

CASE(flags_immutable_after_writing_keeps_what_was_written, ROOT)
{
	const int fd = create_open("f");
	EQ(write(fd, "written", 7), 7);
	OK(set_flags("f", FS_IMMUTABLE_FL));
	OK(fsync(fd));
	CHECK(holds("f", "written"));
	OK(set_flags("f", 0));
}

CASE(flags_immutable_after_mapped_writing_keeps_it, ROOT)
{
	const int fd = create_open("f");
	OK(ftruncate(fd, PAGE));
	char *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(at != MAP_FAILED);
	at[0] = 'x';
	OK(set_flags("f", FS_IMMUTABLE_FL));
	OK(msync(at, PAGE, MS_SYNC));
	OK(fsync(fd));
	EQ(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	char byte;
	EQ(pread(fd, &byte, 1, 0), 1);
	EQ(byte, 'x');
	OK(set_flags("f", 0));
}

/* By whichever error: the content stays. */
CASE(flags_append_file_opened_before_is_not_overwritten, ROOT)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_RDWR | O_APPEND));
	OK(set_flags("f", FS_APPEND_FL));
	(void)fcntl(fd, F_SETFL, 0);
	(void)!pwrite(fd, "X", 1, 0);
	OK(set_flags("f", 0));
	CHECK(holds("f", "abcX") || holds("f", "abc"));
}

CASE(flags_append_directory_takes_new_names_only, ROOT)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	OK(set_flags("d", FS_APPEND_FL));
	OK(put("d/new", ""));
	OK(mkdir("d/sub", 0755));
	FAILS(EPERM, unlink("d/f"));
	FAILS(EPERM, rmdir("d/sub"));
	FAILS(EPERM, rename("d/f", "d/g"));
	OK(set_flags("d", 0));
}

CASE(flags_noatime_file_keeps_atime, ROOT)
{
	char text[4];
	OK(put("f", "abc"));
	OK(utimensat(AT_FDCWD, "f", (const struct timespec[2]){{1, 0}, {2, 0}}, 0));
	OK(set_flags("f", FS_NOATIME_FL));
	TIMES("f", "", read((int)OK(open("f", O_RDONLY)), text, 4));
}

CASE(flags_changing_them_changes_ctime, ROOT)
{
	OK(put("f", ""));
	TIMES("f", "c", set_flags("f", FS_NODUMP_FL));
}

CASE(flags_nodump_and_noatime_are_inherited, ROOT)
{
	OK(mkdir("d", 0755));
	OK(set_flags("d", FS_NODUMP_FL | FS_NOATIME_FL));
	OK(put("d/f", ""));
	OK(mkdir("d/sub", 0755));
	EQ(flags_of("d/f"), FS_NODUMP_FL | FS_NOATIME_FL);
	EQ(flags_of("d/sub"), FS_NODUMP_FL | FS_NOATIME_FL);
}

CASE(flags_xattr_ioctl_says_the_same, ROOT)
{
	OK(put("f", ""));
	const int fd = (int)OK(open("f", O_RDONLY));
	struct fsxattr attr = {0};
	OK(set_flags("f", FS_NODUMP_FL | FS_NOATIME_FL));
	OK(ioctl(fd, FS_IOC_FSGETXATTR, &attr));
	EQ(attr.fsx_xflags & (FS_XFLAG_NODUMP | FS_XFLAG_NOATIME), FS_XFLAG_NODUMP | FS_XFLAG_NOATIME);
	attr.fsx_xflags |= FS_XFLAG_IMMUTABLE;
	attr.fsx_xflags &= ~(uint32_t)FS_XFLAG_NODUMP;
	OK(ioctl(fd, FS_IOC_FSSETXATTR, &attr));
	EQ(flags_of("f"), FS_IMMUTABLE_FL | FS_NOATIME_FL);
	attr.fsx_xflags &= ~(uint32_t)(FS_XFLAG_IMMUTABLE | FS_XFLAG_NOATIME);
	OK(ioctl(fd, FS_IOC_FSSETXATTR, &attr));
	EQ(flags_of("f"), 0);
}

CASE(flags_xattr_ioctl_by_a_user, USER)
{
	const int fd = create_open("f");
	struct fsxattr attr = {0};
	OK(ioctl(fd, FS_IOC_FSGETXATTR, &attr));
	attr.fsx_xflags |= FS_XFLAG_IMMUTABLE;
	FAILS(EPERM, ioctl(fd, FS_IOC_FSSETXATTR, &attr));
}

CASE(flags_statx_shows_them, ROOT)
{
	struct statx stx;
	OK(put("f", ""));
	OK(set_flags("f", FS_IMMUTABLE_FL | FS_NODUMP_FL));
	OK(statx(AT_FDCWD, "f", 0, STATX_ALL, &stx));
	EQ(stx.stx_attributes_mask & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP),
		STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP);
	EQ(stx.stx_attributes & (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP),
		STATX_ATTR_IMMUTABLE | STATX_ATTR_NODUMP);
	OK(set_flags("f", 0));
}

CASE(flags_invalid_ioctls, ANYONE)
{
	const int fd = create_open("f");
	int flags = 0;
	FAILS(ENOTTY, ioctl(fd, 0x12345678, &flags));
	FAILS(EFAULT, ioctl(fd, FS_IOC_GETFLAGS, bad_pointer()));
	FAILS(EBADF, ioctl(-1, FS_IOC_GETFLAGS, &flags));
	OK(mkfifo("p", 0644));
	FAILS(ENOTTY, ioctl((int)OK(open("p", O_RDWR)), FS_IOC_GETFLAGS, &flags));
}
