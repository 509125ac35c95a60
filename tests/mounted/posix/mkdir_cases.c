/* SPDX-License-Identifier: BSD-3-Clause */
/* mkdir(2), rmdir(2). */
#include <sys/mount.h>

#include "tests/mounted/posix/posix_check.h"

CASE(mkdir_makes_an_empty_directory, ANYONE)
{
	OK(mkdir("d", 0751));
	const struct stat st = stat_of("d");
	CHECK(S_ISDIR(st.st_mode));
	EQ(st.st_mode & 07777, 0751);
	EQ(st.st_nlink, 2);
	EQ(st.st_uid, geteuid());
	EQ(st.st_gid, getegid());
	OK(rmdir("d"));
}

CASE(mkdir_mode_is_cut_by_the_umask, ANYONE)
{
	umask(0137);
	OK(mkdir("d", 0777));
	EQ(mode_of("d"), 0640);
	umask(022);
	OK(mkdir("e", 0777));
	EQ(mode_of("e"), 0755);
}

CASE(mkdir_takes_the_sticky_bit_but_not_suid, ANYONE)
{
	OK(mkdir("sticky", 01777));
	EQ(mode_of("sticky"), 01755);
	OK(mkdir("suid", 06777));
	EQ(mode_of("suid"), 0755);
}

CASE(mkdir_adds_a_link_to_the_parent, ANYONE)
{
	const unsigned before = links_of(".");
	OK(mkdir("d", 0755));
	EQ(links_of("."), before + 1);
	OK(mkdir("d/e", 0755));
	EQ(links_of("."), before + 1);
	EQ(links_of("d"), 3);
	OK(rmdir("d/e"));
	EQ(links_of("d"), 2);
	OK(rmdir("d"));
	EQ(links_of("."), before);
}

CASE(mkdir_existing_is_EEXIST, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(put("f", ""));
	OK(symlink("nowhere", "dangling"));
	OK(mkfifo("p", 0644));
	FAILS(EEXIST, mkdir("d", 0755));
	FAILS(EEXIST, mkdir("f", 0755));
	FAILS(EEXIST, mkdir("dangling", 0755));
	FAILS(EEXIST, mkdir("p", 0755));
	FAILS(EEXIST, mkdir(".", 0755));
	FAILS(EEXIST, mkdir("..", 0755));
	FAILS(EEXIST, mkdir("d/.", 0755));
	FAILS(EEXIST, mkdir("/", 0755));
}

CASE(mkdir_trailing_slash_is_allowed, ANYONE)
{
	OK(mkdir("d/", 0755));
	OK(mkdir("e///", 0755));
	OK(rmdir("d/"));
	OK(rmdir("e//"));
}

CASE(mkdir_missing_parent_is_ENOENT, ANYONE)
{
	FAILS(ENOENT, mkdir("a/b", 0755));
	FAILS(ENOENT, mkdir("", 0755));
	FAILS(ENOENT, mkdir("a/.", 0755));
	OK(symlink("nowhere", "dangling"));
	FAILS(ENOENT, mkdir("dangling/x", 0755));
}

CASE(mkdir_below_a_file_is_ENOTDIR, ANYONE)
{
	OK(put("f", ""));
	FAILS(ENOTDIR, mkdir("f/d", 0755));
}

CASE(mkdir_without_write_permission_is_EACCES, USER)
{
	OK(make_dir("d", 0555));
	OK(make_dir("e", 0666));
	FAILS(EACCES, mkdir("d/x", 0755));
	FAILS(EACCES, mkdir("e/x", 0755));
	OK(chmod("e", 0755));
}

CASE(mkdir_bad_pointer_is_EFAULT, ANYONE) { FAILS(EFAULT, mkdir(bad_pointer(), 0755)); }

CASE(mkdir_in_a_setgid_directory_inherits_group_and_bit, ROOT)
{
	OK(mkdir("d", 0777));
	OK(chown("d", 0, BOB.gid));
	OK(chmod("d", 02777));
	OK(mkdir("d/root", 0755));
	EQ(stat_of("d/root").st_gid, BOB.gid);
	EQ(mode_of("d/root"), 02755);
	AS(ALICE) OK(mkdir("d/alice", 0755));
	EQ(stat_of("d/alice").st_gid, BOB.gid);
	EQ(mode_of("d/alice"), 02755);
	AS(ALICE) OK(close((int)OK(open("d/file", O_CREAT | O_RDWR, 0644))));
	EQ(stat_of("d/file").st_gid, BOB.gid);
	EQ(mode_of("d/file"), 0644);
}

CASE(mkdir_owner_is_the_effective_user, ROOT)
{
	OK(chmod(".", 0777));
	AS(ALICE) OK(mkdir("d", 0755));
	EQ(stat_of("d").st_uid, ALICE.uid);
	EQ(stat_of("d").st_gid, ALICE.gid);
}

CASE(mkdir_dot_and_dotdot_name_the_right_directories, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	EQ(stat_of("d/.").st_ino, stat_of("d").st_ino);
	EQ(stat_of("d/e/..").st_ino, stat_of("d").st_ino);
	EQ(stat_of("d/e/../..").st_ino, stat_of(".").st_ino);
}

CASE(mkdir_inodes_are_unique, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	CHECK(stat_of("a").st_ino != stat_of("b").st_ino);
	EQ(stat_of("a").st_dev, stat_of(".").st_dev);
}

/* ---- rmdir ---- */

CASE(rmdir_not_empty_is_ENOTEMPTY, ANYONE)
{
	static const char *const inside[] = {"d/f", "d/sub", "d/link", "d/pipe"};
	OK(mkdir("d", 0755));
	for (int i = 0; i < 4; i++) {
		OK(i == 0 ? put(inside[i], "") : i == 1 ? mkdir(inside[i], 0755) : i == 2 ? symlink("x", inside[i])
											   : mkfifo(inside[i], 0644));
		FAILS(ENOTEMPTY, rmdir("d"));
		OK(i == 1 ? rmdir(inside[i]) : unlink(inside[i]));
	}
	OK(rmdir("d"));
}

CASE(rmdir_of_something_else_is_ENOTDIR, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(symlink("d", "link"));
	OK(mkfifo("p", 0644));
	FAILS(ENOTDIR, rmdir("f"));
	FAILS(ENOTDIR, rmdir("link"));
	FAILS(ENOTDIR, rmdir("link/"));
	FAILS(ENOTDIR, rmdir("p"));
	FAILS(ENOTDIR, rmdir("f/x"));
}

CASE(rmdir_dot_is_EINVAL_dotdot_is_ENOTEMPTY, ANYONE)
{
	OK(mkdir("d", 0755));
	FAILS(EINVAL, rmdir("d/."));
	FAILS(ENOTEMPTY, rmdir("d/.."));
	FAILS(EINVAL, rmdir("."));
	FAILS(ENOTEMPTY, rmdir(".."));
}

CASE(rmdir_missing_is_ENOENT, ANYONE)
{
	FAILS(ENOENT, rmdir("d"));
	FAILS(ENOENT, rmdir("a/b"));
	FAILS(ENOENT, rmdir(""));
}

CASE(rmdir_mount_point_is_EBUSY, ROOT)
{
	OK(mkdir("d", 0755));
	if (mount("none", "d", "tmpfs", 0, NULL))
		skip("no mount possible");
	struct stat st;
	const int busy = rmdir("d") ? errno : 0, moved = rename("d", "e") ? errno : 0;
	const int stated = stat("d", &st);
	umount2("d", MNT_DETACH);
	EQ(busy, EBUSY);
	EQ(moved, EBUSY);
	EQ(stated, 0);
	OK(rmdir("d"));
}

CASE(rmdir_without_write_permission_is_EACCES, USER)
{
	OK(mkdir("p", 0755));
	OK(mkdir("p/d", 0755));
	OK(chmod("p", 0555));
	FAILS(EACCES, rmdir("p/d"));
	OK(chmod("p", 0755));
}

CASE(rmdir_sticky_allows_owners_only, ROOT)
{
	OK(make_dir("t", 01777));
	AS(ALICE) OK(mkdir("t/alice", 0777));
	AS(BOB) FAILS(EPERM, rmdir("t/alice"));
	AS(ALICE) OK(rmdir("t/alice"));
	AS(ALICE) OK(mkdir("t/alice", 0777));
	OK(rmdir("t/alice"));
}

CASE(rmdir_of_a_directory_in_use, ANYONE)
{
	OK(mkdir("d", 0755));
	const int fd = (int)OK(open("d", O_RDONLY));
	OK(rmdir("d"));
	EQ(fstat_of(fd).st_nlink, 0);
	OK(mkdir("d", 0755));
	CHECK(stat_of("d").st_ino != fstat_of(fd).st_ino);
	OK(fsync(fd));
}

CASE(rmdir_of_the_working_directory, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(chdir("d"));
	OK(rmdir("../d"));
	FAILS(ENOENT, open("f", O_CREAT | O_RDWR, 0644));
	FAILS(ENOENT, mkdir("x", 0755));
	FAILS(ENOENT, link("../f", "x"));
	FAILS(ENOENT, getcwd((char[100]){0}, 100) ? 0 : -1);
	EQ(stat_of(".").st_nlink, 0);
	OK(chdir(".."));
	CHECK(!exists("d"));
}

CASE(rmdir_removed_directory_is_empty, ANYONE)
{
	OK(mkdir("d", 0755));
	DIR *dir = opendir("d");
	CHECK(dir != NULL);
	OK(rmdir("d"));
	CHECK(readdir(dir) == NULL);
}

CASE(rmdir_by_unlinkat, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(put("f", ""));
	FAILS(EISDIR, unlinkat(AT_FDCWD, "d", 0));
	FAILS(ENOTDIR, unlinkat(AT_FDCWD, "f", AT_REMOVEDIR));
	FAILS(EINVAL, unlinkat(AT_FDCWD, "f", 0x8000));
	FAILS(EBADF, unlinkat(-7, "f", 0));
	FAILS(ENOTDIR, unlinkat((int)OK(open("f", O_RDONLY)), "x", 0));
	OK(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
	OK(unlinkat(AT_FDCWD, "f", 0));
}
