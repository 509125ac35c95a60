/* SPDX-License-Identifier: BSD-3-Clause */
/* link(2), unlink(2), symlink(2), readlink(2). */
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/mounted/posix/posix_check.h"

CASE(link_gives_a_second_name, ANYONE)
{
	OK(put("a", "one"));
	OK(link("a", "b"));
	EQ(links_of("a"), 2);
	EQ(stat_of("a").st_ino, stat_of("b").st_ino);
	OK(put("b", "two"));
	CHECK(holds("a", "two"));
	OK(chmod("b", 0600));
	EQ(mode_of("a"), 0600);
	OK(unlink("a"));
	EQ(links_of("b"), 1);
	CHECK(holds("b", "two"));
}

CASE(link_works_across_directories, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	OK(put("d/a", "x"));
	OK(link("d/a", "e/b"));
	EQ(links_of("d/a"), 2);
	OK(unlink("d/a"));
	OK(rmdir("d"));
	CHECK(holds("e/b", "x"));
}

CASE(link_existing_is_EEXIST, ANYONE)
{
	OK(put("a", ""));
	OK(put("b", ""));
	OK(mkdir("d", 0755));
	OK(symlink("nowhere", "dangling"));
	FAILS(EEXIST, link("a", "b"));
	FAILS(EEXIST, link("a", "a"));
	FAILS(EEXIST, link("a", "d"));
	FAILS(EEXIST, link("a", "dangling"));
	FAILS(EEXIST, link("a", "."));
	EQ(links_of("a"), 1);
}

CASE(link_missing_is_ENOENT, ANYONE)
{
	OK(put("a", ""));
	FAILS(ENOENT, link("missing", "b"));
	FAILS(ENOENT, link("a", "missing/b"));
	FAILS(ENOENT, link("missing/a", "b"));
	FAILS(ENOENT, link("", "b"));
	FAILS(ENOENT, link("a", ""));
	FAILS(ENOENT, link("a", "b/"));
}

CASE(link_below_a_file_is_ENOTDIR, ANYONE)
{
	OK(put("f", ""));
	OK(put("g", ""));
	FAILS(ENOTDIR, link("f/x", "b"));
	FAILS(ENOTDIR, link("g", "f/b"));
	FAILS(ENOTDIR, link("f/", "b"));
}

CASE(link_directory_is_EPERM, ANYONE)
{
	OK(mkdir("d", 0755));
	FAILS(EPERM, link("d", "e"));
	FAILS(EPERM, link(".", "e"));
	FAILS(EEXIST, link("d", "d"));
}

CASE(link_to_another_filesystem_is_EXDEV, ANYONE)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/posix_check_%d", second_dir(), (int)getpid());
	OK(put("f", ""));
	FAILS(EXDEV, link("f", path));
	FAILS(EXDEV, rename("f", path));
	CHECK(exists("f"));
}

CASE(link_does_not_follow_symlinks, ANYONE)
{
	OK(put("f", "x"));
	OK(symlink("f", "s"));
	OK(link("s", "t"));
	CHECK(S_ISLNK(stat_of("t").st_mode));
	EQ(links_of("s"), 2);
	EQ(links_of("f"), 1);
	OK(symlink("nowhere", "dangling"));
	OK(link("dangling", "d2"));
}

CASE(linkat_follows_when_asked, ANYONE)
{
	OK(put("f", "x"));
	OK(symlink("f", "s"));
	OK(linkat(AT_FDCWD, "s", AT_FDCWD, "t", AT_SYMLINK_FOLLOW));
	CHECK(S_ISREG(stat_of("t").st_mode));
	EQ(links_of("f"), 2);
	FAILS(EINVAL, linkat(AT_FDCWD, "s", AT_FDCWD, "u", 0x8000));
	FAILS(EBADF, linkat(-7, "s", AT_FDCWD, "u", 0));
}

CASE(linkat_relative_to_directories, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	OK(put("d/f", "x"));
	const int d = (int)OK(open("d", O_RDONLY)), e = (int)OK(open("e", O_RDONLY));
	OK(linkat(d, "f", e, "g", 0));
	CHECK(holds("e/g", "x"));
}

CASE(link_special_files, ROOT)
{
	OK(mkfifo("p", 0644));
	OK(mknod("c", S_IFCHR | 0644, 1 << 8 | 3));
	OK(link("p", "p2"));
	OK(link("c", "c2"));
	EQ(links_of("p"), 2);
	EQ(stat_of("c2").st_rdev, 1 << 8 | 3);
}

CASE(link_without_write_permission_is_EACCES, USER)
{
	OK(put("f", ""));
	OK(make_dir("d", 0555));
	FAILS(EACCES, link("f", "d/f"));
	OK(make_dir("e", 0755));
	OK(put("e/f", ""));
	OK(chmod("e", 0644));
	FAILS(EACCES, link("e/f", "g"));
	OK(chmod("e", 0755));
}

CASE(link_of_an_unlinked_open_file_is_ENOENT, ANYONE)
{
	const int fd = create_open("f");
	OK(unlink("f"));
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	FAILS(ENOENT, linkat(AT_FDCWD, path, AT_FDCWD, "g", AT_SYMLINK_FOLLOW));
}

CASE(link_hundreds_of_times, ANYONE)
{
	char name[32];
	OK(put("f", ""));
	for (int i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "link%d", i);
		OK(link("f", name));
	}
	EQ(links_of("f"), 401);
	for (int i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "link%d", i);
		OK(unlink(name));
	}
	EQ(links_of("f"), 1);
}

/* ---- unlink ---- */

CASE(unlink_removes_a_name_of_any_type, ANYONE)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "s"};
	OK(put("f", ""));
	OK(symlink("f", "l"));
	OK(mkfifo("p", 0644));
	OK(bind((int)OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&address, sizeof(address)));
	static const char *const names[] = {"l", "f", "p", "s"};
	for (int i = 0; i < 4; i++) {
		OK(unlink(names[i]));
		CHECK(!exists(names[i]));
	}
}

CASE(unlink_missing_is_ENOENT, ANYONE)
{
	FAILS(ENOENT, unlink("x"));
	FAILS(ENOENT, unlink("x/y"));
	FAILS(ENOENT, unlink(""));
	OK(symlink("nowhere", "dangling"));
	FAILS(ENOENT, unlink("dangling/x"));
	OK(unlink("dangling"));
}

CASE(unlink_directory_is_EISDIR, ANYONE)
{
	OK(mkdir("d", 0755));
	FAILS(EISDIR, unlink("d"));
	FAILS(EISDIR, unlink("."));
	FAILS(EISDIR, unlink("d/"));
	FAILS(EISDIR, unlink(".."));
}

CASE(unlink_slash_after_a_file_is_ENOTDIR, ANYONE)
{
	OK(put("f", ""));
	OK(symlink("f", "l"));
	FAILS(ENOTDIR, unlink("f/"));
	FAILS(ENOTDIR, unlink("l/"));
	FAILS(ENOTDIR, unlink("f/x"));
}

CASE(unlink_open_file_lives_on, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	OK(unlink("f"));
	EQ(fstat_of(fd).st_nlink, 0);
	char text[8];
	EQ(pread(fd, text, 8, 0), 3);
	EQ(pwrite(fd, "defgh", 5, 3), 5);
	EQ(fstat_of(fd).st_size, 8);
	OK(ftruncate(fd, 2));
	OK(fchmod(fd, 0600));
	OK(fchown(fd, geteuid(), getegid()));
	OK(futimens(fd, NULL));
	OK(fsync(fd));
	OK(put("f", "new"));
	EQ(fstat_of(fd).st_size, 2);
	CHECK(fstat_of(fd).st_ino != stat_of("f").st_ino);
}

CASE(unlink_without_write_permission_is_EACCES, USER)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	OK(chmod("d", 0555));
	FAILS(EACCES, unlink("d/f"));
	OK(chmod("d", 0666));
	FAILS(EACCES, unlink("d/f"));
	OK(chmod("d", 0755));
}

CASE(unlink_needs_no_permission_on_the_file, ROOT)
{
	OK(make_dir("d", 0777));
	OK(make("d/f", 0));
	AS(ALICE) OK(unlink("d/f"));
}

CASE(unlink_sticky_allows_owners_only, ROOT)
{
	OK(make_dir("t", 01777));
	AS(ALICE) OK(make("t/f", 0666));
	AS(BOB) FAILS(EPERM, unlink("t/f"));
	AS(CAROL) FAILS(EPERM, unlink("t/f"));
	AS(ALICE) OK(unlink("t/f"));
	AS(ALICE) OK(make("t/f", 0666));
	OK(chown("t", BOB.uid, BOB.gid));
	AS(BOB) OK(unlink("t/f"));
}

CASE(unlink_bad_pointer_is_EFAULT, ANYONE) { FAILS(EFAULT, unlink(bad_pointer())); }

/* ---- symlink, readlink ---- */

CASE(symlink_has_its_target_as_content, ANYONE)
{
	OK(symlink("some/where", "l"));
	const struct stat st = stat_of("l");
	CHECK(S_ISLNK(st.st_mode));
	EQ(st.st_mode & 07777, 0777);
	EQ(st.st_size, 10);
	EQ(st.st_nlink, 1);
	char text[32];
	EQ(readlink("l", text, sizeof(text)), 10);
	EQ(memcmp(text, "some/where", 10), 0);
}

CASE(symlink_target_of_every_length, ANYONE)
{
	static const size_t lengths[] = {1, 59, 60, 61, 100, 155, 200, 255, 256, 1023, 4000, 4094, 4095};
	char text[5000];
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		char *target = repeat('a' + (char)i, lengths[i]);
		OK(symlink(target, "l"));
		EQ(size_of("l"), lengths[i]);
		EQ(readlink("l", text, sizeof(text)), lengths[i]);
		EQ(memcmp(text, target, lengths[i]), 0);
		OK(unlink("l"));
	}
}

CASE(symlink_too_long_is_ENAMETOOLONG, ANYONE)
{
	FAILS(ENAMETOOLONG, symlink(repeat('a', 4096), "l"));
	FAILS(ENAMETOOLONG, symlink("x", repeat('a', 256)));
	FAILS(ENOENT, symlink("", "l"));
}

CASE(symlink_existing_is_EEXIST, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(symlink("nowhere", "dangling"));
	FAILS(EEXIST, symlink("x", "f"));
	FAILS(EEXIST, symlink("x", "d"));
	FAILS(EEXIST, symlink("x", "dangling"));
	FAILS(EEXIST, symlink("x", "."));
}

CASE(symlink_errors_of_the_path, ANYONE)
{
	OK(put("f", ""));
	FAILS(ENOENT, symlink("x", "missing/l"));
	FAILS(ENOENT, symlink("x", ""));
	FAILS(ENOENT, symlink("x", "new/"));
	FAILS(ENOTDIR, symlink("x", "f/l"));
	FAILS(EFAULT, symlink(bad_pointer(), "l"));
	FAILS(EFAULT, symlink("x", bad_pointer()));
	FAILS(EBADF, symlinkat("x", -7, "l"));
}

CASE(symlink_without_write_permission_is_EACCES, USER)
{
	OK(make_dir("d", 0555));
	FAILS(EACCES, symlink("x", "d/l"));
}

CASE(readlink_cuts_to_the_buffer, ANYONE)
{
	OK(symlink("abcdef", "l"));
	char text[8] = "xxxxxxx";
	EQ(readlink("l", text, 3), 3);
	EQ(memcmp(text, "abcxxxx", 7), 0);
}

CASE(readlink_errors, ANYONE)
{
	char text[8];
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(symlink("x", "l"));
	FAILS(EINVAL, readlink("f", text, sizeof(text)));
	FAILS(EINVAL, readlink("d", text, sizeof(text)));
	FAILS(EINVAL, readlink(".", text, sizeof(text)));
	FAILS(ENOENT, readlink("missing", text, sizeof(text)));
	FAILS(ENOENT, readlink("", text, sizeof(text)));
	FAILS(ENOTDIR, readlink("f/x", text, sizeof(text)));
	FAILS(EINVAL, readlinkat(AT_FDCWD, "l", text, 0));
	FAILS(EFAULT, readlink("l", bad_pointer(), 8));
}

CASE(symlink_to_a_directory_is_searched, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", "x"));
	OK(symlink("d", "l"));
	CHECK(holds("l/f", "x"));
	OK(symlink("../symlink_to_a_directory_is_searched/d", "up"));
	CHECK(holds("up/f", "x"));
	char *absolute = realpath("d", NULL);
	OK(symlink(absolute, "abs"));
	CHECK(holds("abs/f", "x"));
}

CASE(symlink_in_sticky_directory_is_its_owners, ROOT)
{
	OK(chmod(".", 0777));
	AS(ALICE) OK(symlink("x", "l"));
	EQ(stat_of("l").st_uid, ALICE.uid);
	EQ(stat_of("l").st_gid, ALICE.gid);
}

CASE(symlink_readlink_changes_atime_only, ANYONE)
{
	char text[8];
	OK(symlink("x", "l"));
	const struct times before = times_of("l");
	EQ(readlink("l", text, sizeof(text)), 1);
	EQ(compare_times(times_of("l").mtime, before.mtime), 0);
	EQ(compare_times(times_of("l").ctime, before.ctime), 0);
}
