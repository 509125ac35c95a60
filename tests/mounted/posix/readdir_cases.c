/* SPDX-License-Identifier: BSD-3-Clause */
/* Reading directories: completeness, types, places that stay valid while names come and go. */
#include <sys/syscall.h>

#include "tests/mounted/posix/posix_check.h"

static DIR *open_dir(const char *path)
{
	DIR *dir = opendir(path);
	if (!dir)
		OK(-1);
	return dir;
}

static void make_numbered(int from, int to)
{
	char name[32];
	for (int i = from; i < to; i++) {
		snprintf(name, sizeof(name), "d/file%d", i);
		OK(make(name, 0644));
	}
}

/* How often each of fileN is there; the rest is counted in the result. */
static int count_names(DIR *dir, int *count, int size)
{
	int others = 0;
	errno = 0;
	for (const struct dirent *entry; (entry = readdir(dir));) {
		int number;
		if (sscanf(entry->d_name, "file%d", &number) == 1 && number < size)
			count[number]++;
		else
			others++;
	}
	EQ(errno, 0);
	return others;
}

CASE(readdir_empty_directory_has_dot_and_dotdot, ANYONE)
{
	OK(mkdir("d", 0755));
	DIR *dir = open_dir("d");
	int dot = 0, dotdot = 0, others = 0;
	for (const struct dirent *entry; (entry = readdir(dir));) {
		if (strcmp(entry->d_name, ".") == 0) {
			dot++;
			EQ(entry->d_ino, stat_of("d").st_ino);
			EQ(entry->d_type, DT_DIR);
		} else if (strcmp(entry->d_name, "..") == 0) {
			dotdot++;
			EQ(entry->d_type, DT_DIR);
		} else
			others++;
	}
	EQ(dot, 1);
	EQ(dotdot, 1);
	EQ(others, 0);
}

CASE(readdir_gives_types_and_inode_numbers, ANYONE)
{
	static const struct {
		const char *name;
		int type;
	} all[] = {{"file", DT_REG}, {"dir", DT_DIR}, {"link", DT_LNK}, {"fifo", DT_FIFO}, {"sock", DT_SOCK}};
	OK(mkdir("d", 0755));
	OK(put("d/file", ""));
	OK(mkdir("d/dir", 0755));
	OK(symlink("file", "d/link"));
	OK(mkfifo("d/fifo", 0644));
	OK(mknod("d/sock", S_IFSOCK | 0644, 0));
	DIR *dir = open_dir("d");
	int found = 0;
	for (const struct dirent *entry; (entry = readdir(dir));) {
		for (int i = 0; i < 5; i++) {
			if (strcmp(entry->d_name, all[i].name) != 0)
				continue;
			char path[300];
			snprintf(path, sizeof(path), "d/%s", entry->d_name);
			EQ(entry->d_type, all[i].type);
			EQ(entry->d_ino, stat_of(path).st_ino);
			found++;
		}
	}
	EQ(found, 5);
}

CASE(readdir_device_types, ROOT)
{
	OK(mkdir("d", 0755));
	OK(mknod("d/c", S_IFCHR | 0644, 0));
	OK(mknod("d/b", S_IFBLK | 0644, 0));
	DIR *dir = open_dir("d");
	for (const struct dirent *entry; (entry = readdir(dir));)
		if (entry->d_name[0] != '.')
			EQ(entry->d_type, entry->d_name[0] == 'c' ? DT_CHR : DT_BLK);
}

CASE(readdir_of_many_names_is_complete_and_unique, ANYONE)
{
	enum { FILES = 400 };
	int count[FILES] = {0};
	OK(mkdir("d", 0755));
	make_numbered(0, FILES);
	EQ(count_names(open_dir("d"), count, FILES), 2);
	for (int i = 0; i < FILES; i++)
		EQ(count[i], 1);
}

CASE(readdir_rewind_sees_new_names, ANYONE)
{
	int count[20] = {0};
	OK(mkdir("d", 0755));
	make_numbered(0, 10);
	DIR *dir = open_dir("d");
	count_names(dir, count, 20);
	make_numbered(10, 20);
	OK(unlink("d/file3"));
	rewinddir(dir);
	memset(count, 0, sizeof(count));
	EQ(count_names(dir, count, 20), 2);
	for (int i = 0; i < 20; i++)
		EQ(count[i], i != 3);
}

CASE(readdir_while_names_are_removed_loses_none, ANYONE)
{
	enum { FILES = 400 };
	int count[FILES] = {0};
	OK(mkdir("d", 0755));
	make_numbered(0, FILES);
	DIR *dir = open_dir("d");
	int removed = 0;
	for (const struct dirent *entry; (entry = readdir(dir));) {
		int number;
		if (sscanf(entry->d_name, "file%d", &number) != 1)
			continue;
		count[number]++;
		char path[300];
		snprintf(path, sizeof(path), "d/%s", entry->d_name);
		OK(unlink(path));
		removed++;
	}
	EQ(removed, FILES);
	for (int i = 0; i < FILES; i++)
		EQ(count[i], 1);
	OK(rmdir("d"));
}

CASE(readdir_while_names_are_added_shows_old_ones_once, ANYONE)
{
	enum { FILES = 300, MORE = 600 };
	int count[MORE] = {0}, next = FILES;
	OK(mkdir("d", 0755));
	make_numbered(0, FILES);
	DIR *dir = open_dir("d");
	for (const struct dirent *entry; (entry = readdir(dir));) {
		int number;
		if (sscanf(entry->d_name, "file%d", &number) == 1)
			count[number]++;
		if (next < MORE)
			make_numbered(next, next + 1), next++;
	}
	for (int i = 0; i < FILES; i++)
		EQ(count[i], 1);
	for (int i = FILES; i < MORE; i++)
		CHECK(count[i] <= 1);
}

CASE(readdir_while_names_are_renamed_shows_the_others_once, ANYONE)
{
	enum { FILES = 300 };
	int count[FILES] = {0};
	OK(mkdir("d", 0755));
	make_numbered(0, FILES);
	DIR *dir = open_dir("d");
	for (int seen = 0;; seen++) {
		const struct dirent *entry = readdir(dir);
		if (!entry)
			break;
		int number;
		if (sscanf(entry->d_name, "file%d", &number) == 1)
			count[number]++;
		if (seen < 100)
			OK(rename(seen % 2 ? "d/moved" : "d/file0", seen % 2 ? "d/file0" : "d/moved"));
	}
	for (int i = 1; i < FILES; i++)
		EQ(count[i], 1);
}

static ino_t listed_dotdot(DIR *dir)
{
	ino_t found = 0;
	for (const struct dirent *entry; (entry = readdir(dir));)
		if (strcmp(entry->d_name, "..") == 0)
			found = entry->d_ino;
	return found;
}

/* The kernel may have the old entries: every stream that begins anew shows the new parent. */
CASE(readdir_dotdot_follows_a_moved_directory, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("b", 0755));
	OK(mkdir("a/d", 0755));
	OK(mkdir("b/e", 0755));
	for (int i = 0; i < 3; i++) {
		EQ(listed_dotdot(open_dir("a/d")), stat_of("a").st_ino);
		EQ(listed_dotdot(open_dir("b/e")), stat_of("b").st_ino);
	}
	DIR *early = open_dir("a/d");
	const long start = telldir(early);
	EQ(listed_dotdot(early), stat_of("a").st_ino);
	OK(rename("a/d", "b/d"));
	rewinddir(early);
	EQ(listed_dotdot(early), stat_of("b").st_ino);
	seekdir(early, start);
	EQ(listed_dotdot(early), stat_of("b").st_ino);
	for (int i = 0; i < 3; i++)
		EQ(listed_dotdot(open_dir("b/d")), stat_of("b").st_ino);
	OK(rename("b/d", "d"));
	EQ(listed_dotdot(open_dir("d")), stat_of(".").st_ino);
	OK(renameat2(AT_FDCWD, "d", AT_FDCWD, "b/e", RENAME_EXCHANGE));
	EQ(listed_dotdot(open_dir("d")), stat_of(".").st_ino);
	EQ(listed_dotdot(open_dir("b/e")), stat_of("b").st_ino);
	rewinddir(early);
	EQ(listed_dotdot(early), stat_of("b").st_ino);
}

/* A stream in the middle of the directory goes on where it was, and comes back to where it was. */
CASE(seekdir_works_after_the_directory_moved, ANYONE)
{
	enum { FILES = 2000, FIRST = 700 };
	static int count[FILES];
	OK(mkdir("a", 0755));
	OK(mkdir("d", 0755));
	make_numbered(0, FILES);
	count_names(open_dir("d"), count, FILES);
	memset(count, 0, sizeof(count));
	DIR *dir = open_dir("d");
	for (int i = 0; i < FIRST; i++)
		CHECK(readdir(dir) != NULL);
	const long place = telldir(dir);
	const struct dirent *entry = readdir(dir);
	CHECK(entry != NULL);
	char name[32];
	snprintf(name, sizeof(name), "%.31s", entry->d_name);
	OK(rename("d", "a/d"));
	const int others = count_names(dir, count, FILES);
	int left = 0;
	for (int i = 0; i < FILES; i++) {
		CHECK(count[i] <= 1);
		left += count[i];
	}
	EQ(left + others, FILES + 2 - FIRST - 1);
	seekdir(dir, place);
	CHECK((entry = readdir(dir)) != NULL);
	EQ(strcmp(entry->d_name, name), 0);
}

CASE(telldir_and_seekdir_come_back, ANYONE)
{
	enum { FILES = 300 };
	static char names[FILES + 2][32];
	static long places[FILES + 2];
	OK(mkdir("d", 0755));
	make_numbered(0, FILES);
	DIR *dir = open_dir("d");
	int count = 0;
	for (const struct dirent *entry; places[count] = telldir(dir), (entry = readdir(dir)); count++) {
		CHECK(count < FILES + 2);
		snprintf(names[count], sizeof(names[0]), "%.31s", entry->d_name);
		if (count == FILES + 1)
			break;
	}
	for (int i = FILES + 1; i > 0; i -= 7) {
		seekdir(dir, places[i]);
		const struct dirent *entry = readdir(dir);
		CHECK(entry != NULL);
		EQ(strcmp(entry->d_name, names[i]), 0);
	}
}

CASE(seekdir_works_after_removing_and_adding, ANYONE)
{
	enum { FILES = 300 };
	int count[FILES] = {0}, seen[FILES] = {0};
	OK(mkdir("d", 0755));
	make_numbered(0, FILES);
	DIR *dir = open_dir("d");
	for (int i = 0; i < 150; i++) {
		int number;
		const struct dirent *entry = readdir(dir);
		CHECK(entry != NULL);
		if (sscanf(entry->d_name, "file%d", &number) == 1)
			seen[number] = 1;
	}
	const long place = telldir(dir);
	for (int i = 0; i < FILES; i++) {
		char path[32];
		snprintf(path, sizeof(path), "d/file%d", i);
		if (seen[i])
			OK(unlink(path));
	}
	DIR *other = open_dir("d");
	closedir(other);
	seekdir(dir, place);
	count_names(dir, count, FILES);
	for (int i = 0; i < FILES; i++)
		EQ(count[i], !seen[i]);
}

CASE(readdir_two_streams_do_not_disturb_each_other, ANYONE)
{
	int count[50] = {0}, other[50] = {0};
	OK(mkdir("d", 0755));
	make_numbered(0, 50);
	DIR *one = open_dir("d"), *two = open_dir("d");
	for (int i = 0; i < 20; i++)
		CHECK(readdir(one) != NULL);
	EQ(count_names(two, other, 50), 2);
	rewinddir(one);
	EQ(count_names(one, count, 50), 2);
	EQ(memcmp(count, other, sizeof(count)), 0);
}

CASE(opendir_errors, ANYONE)
{
	OK(put("f", ""));
	FAILS(ENOTDIR, opendir("f") ? 0 : -1);
	FAILS(ENOENT, opendir("missing") ? 0 : -1);
	FAILS(ENOENT, opendir("") ? 0 : -1);
	FAILS(EBADF, fdopendir(-1) ? 0 : -1);
	FAILS(ENOTDIR, fdopendir((int)OK(open("f", O_RDONLY))) ? 0 : -1);
}

CASE(opendir_without_read_permission_is_EACCES, USER)
{
	OK(make_dir("d", 0333));
	FAILS(EACCES, opendir("d") ? 0 : -1);
	OK(put("d/f", ""));
	OK(unlink("d/f"));
	OK(chmod("d", 0755));
}

CASE(getdents_errors, ANYONE)
{
	char buffer[1024];
	OK(put("f", ""));
	const int dir = (int)OK(open(".", O_RDONLY));
	FAILS(ENOTDIR, syscall(SYS_getdents64, (int)OK(open("f", O_RDONLY)), buffer, sizeof(buffer)));
	FAILS(EBADF, syscall(SYS_getdents64, -1, buffer, sizeof(buffer)));
	FAILS(EINVAL, syscall(SYS_getdents64, dir, buffer, 1));
	FAILS(EFAULT, syscall(SYS_getdents64, dir, bad_pointer(), sizeof(buffer)));
}

CASE(getdents_in_small_buffers_is_complete, ANYONE)
{
	struct dirent64_head {
		uint64_t ino, off;
		uint16_t length;
		uint8_t type;
		char name[];
	};
	char buffer[64];
	int found = 0;
	OK(mkdir("d", 0755));
	make_numbered(0, 100);
	const int dir = (int)OK(open("d", O_RDONLY));
	for (long length; (length = OK(syscall(SYS_getdents64, dir, buffer, sizeof(buffer)))) > 0;) {
		for (long at = 0; at < length; found++)
			at += ((const struct dirent64_head *)(buffer + at))->length;
	}
	EQ(found, 102);
	EQ(syscall(SYS_getdents64, dir, buffer, sizeof(buffer)), 0);
	OK(lseek(dir, 0, SEEK_SET));
	CHECK(syscall(SYS_getdents64, dir, buffer, sizeof(buffer)) > 0);
}

CASE(readdir_sees_a_rename_over_as_one_name, ANYONE)
{
	int count[10] = {0};
	OK(mkdir("d", 0755));
	make_numbered(0, 10);
	OK(rename("d/file1", "d/file2"));
	EQ(count_names(open_dir("d"), count, 10), 2);
	for (int i = 0; i < 10; i++)
		EQ(count[i], i != 1);
}
