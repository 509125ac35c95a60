/* SPDX-License-Identifier: BSD-3-Clause */
/* rename(2): what replaces what, and what is refused. */
#include <signal.h>

#include "tests/mounted/posix/posix_check.h"

CASE(rename_gives_a_new_name, ANYONE)
{
	OK(put("a", "x"));
	const ino_t ino = stat_of("a").st_ino;
	OK(rename("a", "b"));
	CHECK(!exists("a"));
	EQ(stat_of("b").st_ino, ino);
	EQ(links_of("b"), 1);
	CHECK(holds("b", "x"));
}

CASE(rename_replaces_a_file, ANYONE)
{
	OK(put("a", "new"));
	OK(put("b", "old"));
	const int fd = (int)OK(open("b", O_RDONLY));
	OK(rename("a", "b"));
	CHECK(holds("b", "new"));
	EQ(fstat_of(fd).st_nlink, 0);
	char text[8];
	EQ(read(fd, text, 8), 3);
	EQ(memcmp(text, "old", 3), 0);
}

CASE(rename_replaces_one_of_two_links, ANYONE)
{
	OK(put("a", "new"));
	OK(put("b", "old"));
	OK(link("b", "c"));
	OK(rename("a", "b"));
	EQ(links_of("c"), 1);
	CHECK(holds("c", "old"));
}

CASE(rename_to_itself_does_nothing, ANYONE)
{
	OK(put("a", "x"));
	OK(mkdir("d", 0755));
	OK(rename("a", "a"));
	OK(rename("d", "d"));
	CHECK(holds("a", "x"));
	EQ(links_of("d"), 2);
}

CASE(rename_between_links_of_a_file_does_nothing, ANYONE)
{
	OK(put("a", "x"));
	OK(link("a", "b"));
	OK(rename("a", "b"));
	CHECK(exists("a"));
	CHECK(exists("b"));
	EQ(links_of("a"), 2);
	OK(mkdir("d", 0755));
	OK(link("a", "d/c"));
	OK(rename("d/c", "a"));
	CHECK(exists("d/c"));
	EQ(links_of("a"), 3);
}

/* Every type over every other: a directory goes over an empty directory only, anything else over what is no directory. */
static const char *const types[] = {"file", "dir", "full", "link", "fifo"};

static void make_type(const char *path, int type)
{
	switch (type) {
	case 0: OK(put(path, "content")); break;
	case 1: OK(mkdir(path, 0755)); break;
	case 3: OK(symlink("nowhere", path)); break;
	case 4: OK(mkfifo(path, 0644)); break;
	default: {
		char inside[64];
		OK(mkdir(path, 0755));
		snprintf(inside, sizeof(inside), "%s/inside", path);
		OK(mkdir(inside, 0755));
	}
	}
}

static void rename_types(const char *from_dir, const char *to_dir)
{
	for (int from = 0; from < 5; from++) {
		for (int to = 0; to < 5; to++) {
			char old[64], new[64];
			snprintf(old, sizeof(old), "%s/%s%d%d", from_dir, types[from], from, to);
			snprintf(new, sizeof(new), "%s/to-%s%d%d", to_dir, types[to], from, to);
			make_type(old, from);
			make_type(new, to);
			const bool from_is_dir = from == 1 || from == 2, to_is_dir = to == 1 || to == 2;
			const ino_t ino = stat_of(old).st_ino;
			if (from_is_dir && !to_is_dir)
				FAILS(ENOTDIR, rename(old, new));
			else if (!from_is_dir && to_is_dir)
				FAILS(EISDIR, rename(old, new));
			else if (to == 2)
				FAILS(ENOTEMPTY, rename(old, new));
			else {
				OK(rename(old, new));
				CHECK(!exists(old));
				EQ(stat_of(new).st_ino, ino);
			}
		}
	}
}

CASE(rename_every_type_over_every_other, ANYONE)
{
	OK(mkdir("d", 0755));
	rename_types("d", "d");
}

CASE(rename_every_type_over_every_other_across_directories, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	rename_types("d", "e");
}

CASE(rename_missing_is_ENOENT, ANYONE)
{
	OK(put("f", ""));
	FAILS(ENOENT, rename("missing", "x"));
	FAILS(ENOENT, rename("missing/a", "x"));
	FAILS(ENOENT, rename("f", "missing/x"));
	FAILS(ENOENT, rename("", "x"));
	FAILS(ENOENT, rename("f", ""));
	CHECK(exists("f"));
}

CASE(rename_below_a_file_is_ENOTDIR, ANYONE)
{
	OK(put("f", ""));
	OK(put("g", ""));
	OK(mkdir("d", 0755));
	FAILS(ENOTDIR, rename("g/x", "h"));
	FAILS(ENOTDIR, rename("f", "g/x"));
	FAILS(ENOTDIR, rename("f/", "h"));
	FAILS(ENOTDIR, rename("f", "h/"));
	FAILS(ENOTDIR, rename("d", "f"));
}

CASE(rename_directory_takes_slashes, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(rename("d/", "e/"));
	CHECK(exists("e"));
}

CASE(rename_into_its_own_subtree_is_EINVAL, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	OK(mkdir("d/e/f", 0755));
	FAILS(EINVAL, rename("d", "d/x"));
	FAILS(EINVAL, rename("d", "d/e/x"));
	FAILS(EINVAL, rename("d", "d/e/f"));
	FAILS(EINVAL, rename("d", "d/e"));
}

CASE(rename_over_its_own_ancestor_is_ENOTEMPTY, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("d/e", 0755));
	OK(mkdir("d/e/f", 0755));
	OK(put("d/e/g", ""));
	FAILS(ENOTEMPTY, rename("d/e/f", "d"));
	FAILS(ENOTEMPTY, rename("d/e", "d"));
	FAILS(ENOTEMPTY, rename("d/e/g", "d"));
}

CASE(rename_dot_is_EBUSY, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	FAILS(EBUSY, rename("d/.", "x"));
	FAILS(EBUSY, rename("d/..", "x"));
	FAILS(EBUSY, rename("e", "d/."));
	FAILS(EBUSY, rename("e", "d/.."));
	FAILS(EBUSY, rename(".", "x"));
}

CASE(rename_directory_moves_its_dotdot_and_links, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/d", 0755));
	OK(put("a/d/f", "x"));
	EQ(links_of("a"), 3);
	OK(rename("a/d", "b/d"));
	EQ(links_of("a"), 2);
	EQ(links_of("b"), 3);
	EQ(stat_of("b/d/..").st_ino, stat_of("b").st_ino);
	CHECK(holds("b/d/f", "x"));
	OK(rmdir("a"));
}

CASE(rename_directory_over_an_empty_one_counts_links, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/d", 0755));
	OK(mkdir("b/d", 0755));
	const int fd = (int)OK(open("b/d", O_RDONLY));
	OK(rename("a/d", "b/d"));
	EQ(links_of("a"), 2);
	EQ(links_of("b"), 3);
	EQ(fstat_of(fd).st_nlink, 0);
	OK(mkdir("e", 0755));
	OK(mkdir("g", 0755));
	const unsigned before = links_of(".");
	OK(rename("e", "g"));
	EQ(links_of("."), before - 1);
}

CASE(rename_does_not_follow_symlinks, ANYONE)
{
	OK(put("f", "x"));
	OK(symlink("f", "l"));
	OK(rename("l", "m"));
	CHECK(S_ISLNK(stat_of("m").st_mode));
	OK(put("g", "y"));
	OK(rename("g", "m"));
	CHECK(S_ISREG(stat_of("m").st_mode));
	CHECK(holds("f", "x"));
}

CASE(rename_too_long_is_ENAMETOOLONG, ANYONE)
{
	OK(put("f", ""));
	FAILS(ENAMETOOLONG, rename("f", repeat('a', 256)));
	FAILS(ENAMETOOLONG, rename(repeat('a', 256), "g"));
	OK(rename("f", repeat('a', 255)));
}

CASE(rename_bad_pointer_is_EFAULT, ANYONE)
{
	OK(put("f", ""));
	FAILS(EFAULT, rename(bad_pointer(), "x"));
	FAILS(EFAULT, rename("f", bad_pointer()));
}

CASE(rename_relative_to_directories, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(put("a/f", "x"));
	const int a = (int)OK(open("a", O_RDONLY)), b = (int)OK(open("b", O_RDONLY));
	OK(renameat(a, "f", b, "g"));
	CHECK(holds("b/g", "x"));
	FAILS(EBADF, renameat(-7, "f", b, "g"));
	FAILS(ENOTDIR, renameat((int)OK(open("b/g", O_RDONLY)), "f", b, "g"));
}

CASE(rename_without_write_permission_is_EACCES, USER)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(put("a/f", ""));
	OK(put("b/g", ""));
	OK(chmod("a", 0555));
	FAILS(EACCES, rename("a/f", "a/x"));
	FAILS(EACCES, rename("a/f", "b/x"));
	FAILS(EACCES, rename("b/g", "a/x"));
	OK(chmod("a", 0755));
}

CASE(rename_directory_of_no_write_permission_to_another_parent_is_EACCES, USER)
{
	OK(mkdir("b", 0755));
	OK(make_dir("d", 0555));
	FAILS(EACCES, rename("d", "b/d")); /* its ".." would change */
	OK(rename("d", "e"));
}

CASE(rename_sticky_allows_owners_only, ROOT)
{
	OK(make_dir("t", 01777));
	OK(make_dir("free", 0777));
	AS(ALICE) OK(make("t/alice", 0666));
	AS(BOB) {
		OK(make("t/bob", 0666));
		FAILS(EPERM, rename("t/alice", "t/x"));
		FAILS(EPERM, rename("t/alice", "free/x"));
		FAILS(EPERM, rename("t/bob", "t/alice"));
		OK(rename("t/bob", "t/mine"));
	}
	AS(ALICE) OK(rename("t/alice", "free/alice"));
	OK(rename("t/mine", "t/roots"));
}

CASE(rename_keeps_an_open_file_working, ANYONE)
{
	OK(mkdir("d", 0755));
	const int fd = create_open("f");
	OK(rename("f", "d/g"));
	EQ(write(fd, "x", 1), 1);
	CHECK(holds("d/g", "x"));
}

CASE(rename_working_directory_stays, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(mkdir("e", 0755));
	OK(chdir("d"));
	OK(rename("../d", "../e/moved"));
	OK(put("f", "x"));
	OK(chdir(".."));
	CHECK(holds("moved/f", "x"));
	CHECK(exists("../e"));
}

CASE(rename_back_and_forth_many_times, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/d", 0755));
	for (int i = 0; i < 100; i++) {
		OK(rename("a/d", "b/d"));
		OK(rename("b/d", "a/d"));
	}
	EQ(links_of("a"), 3);
	EQ(links_of("b"), 2);
}

/* While one process replaces a file again and again, another always finds one of the two. */
static void replace_for_ever(void *arg)
{
	(void)arg;
	for (;;) {
		OK(put("new", "other"));
		OK(rename("new", "f"));
	}
}

CASE(rename_target_is_there_at_all_times, ANYONE)
{
	OK(put("f", "first"));
	const pid_t pid = spawn(replace_for_ever, NULL);
	for (int i = 0; i < 500; i++) {
		char text[6] = "";
		const int fd = (int)OK(open("f", O_RDONLY));
		EQ(read(fd, text, 6), 5);
		CHECK(!strcmp(text, "first") || !strcmp(text, "other"));
		OK(close(fd));
	}
	OK(kill(pid, 9));
	EQ(waitpid(pid, NULL, 0), pid);
}
