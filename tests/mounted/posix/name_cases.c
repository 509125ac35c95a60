/* SPDX-License-Identifier: BSD-3-Clause */
/* Names and paths: lengths, bytes, links on the way. */
#include "tests/mounted/posix/posix_check.h"

CASE(name_of_255_bytes_works_everywhere, ANYONE)
{
	char *name = repeat('n', 255), *other = repeat('o', 255);
	OK(put(name, "x"));
	CHECK(exists(name));
	OK(link(name, other));
	OK(unlink(other));
	OK(rename(name, other));
	OK(unlink(other));
	OK(mkdir(name, 0755));
	OK(rmdir(name));
	OK(symlink("x", name));
	OK(unlink(name));
	OK(mkfifo(name, 0644));
	DIR *dir = opendir(".");
	CHECK(dir != NULL);
	bool found = false;
	for (const struct dirent *entry; (entry = readdir(dir));)
		found |= strcmp(entry->d_name, name) == 0;
	CHECK(found);
}

CASE(name_of_256_bytes_is_ENAMETOOLONG, ANYONE)
{
	char *name = repeat('n', 256);
	struct stat st;
	OK(put("f", ""));
	FAILS(ENAMETOOLONG, open(name, O_CREAT | O_RDWR, 0644));
	FAILS(ENAMETOOLONG, open(name, O_RDONLY));
	FAILS(ENAMETOOLONG, stat(name, &st));
	FAILS(ENAMETOOLONG, lstat(name, &st));
	FAILS(ENAMETOOLONG, mkdir(name, 0755));
	FAILS(ENAMETOOLONG, rmdir(name));
	FAILS(ENAMETOOLONG, unlink(name));
	FAILS(ENAMETOOLONG, link("f", name));
	FAILS(ENAMETOOLONG, symlink("f", name));
	FAILS(ENAMETOOLONG, mkfifo(name, 0644));
	FAILS(ENAMETOOLONG, truncate(name, 0));
	FAILS(ENAMETOOLONG, chmod(name, 0644));
	FAILS(ENAMETOOLONG, chdir(name));
	FAILS(ENAMETOOLONG, readlink(name, (char[4]){0}, 4));
}

CASE(name_as_part_of_a_path_is_limited_too, ANYONE)
{
	char path[600];
	snprintf(path, sizeof(path), "%s/x", repeat('n', 256));
	FAILS(ENAMETOOLONG, open(path, O_RDONLY));
	snprintf(path, sizeof(path), "%s/x", repeat('n', 255));
	FAILS(ENOENT, open(path, O_RDONLY));
}

CASE(name_of_every_byte, ANYONE)
{
	for (int byte = 1; byte < 256; byte++) {
		char name[4] = {'x', (char)byte, 'y', 0};
		if (byte == '/')
			continue;
		OK(put(name, name));
	}
	for (int byte = 1; byte < 256; byte++) {
		char name[4] = {'x', (char)byte, 'y', 0};
		if (byte == '/')
			continue;
		CHECK(holds(name, name));
		OK(unlink(name));
	}
}

CASE(name_that_is_not_utf8_is_kept_byte_by_byte, ANYONE)
{
	static const char name[] = "\xff\xfe\xc3\x28\x80";
	OK(put(name, "x"));
	DIR *dir = opendir(".");
	CHECK(dir != NULL);
	int found = 0;
	for (const struct dirent *entry; (entry = readdir(dir));)
		found += strcmp(entry->d_name, name) == 0;
	EQ(found, 1);
}

CASE(name_is_case_sensitive_and_not_normalised, ANYONE)
{
	OK(put("a", "small"));
	OK(put("A", "large"));
	OK(put("\xc3\xa9", "one"));
	OK(put("e\xcc\x81", "two"));
	CHECK(holds("a", "small"));
	CHECK(holds("\xc3\xa9", "one"));
}

CASE(name_with_odd_characters, ANYONE)
{
	static const char *const names[] = {" ", "  ", "-", "--", "...", "....", ".x", "x.", "*", "?", "\\", "\n", "\t", "a b", "'",
		"\"", ":", "~", "#", "com1", "x~"};
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		OK(put(names[i], names[i]));
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		CHECK(holds(names[i], names[i]));
}

CASE(path_of_4095_bytes_works_4096_does_not, ANYONE)
{
	char *path = repeat('/', 4096);
	OK(put("f", "x"));
	for (size_t i = 0; i < 4094; i += 2)
		memcpy(path + i, "./", 2);
	strcpy(path + 4094, "f");
	EQ(strlen(path), 4095);
	CHECK(holds(path, "x"));
	char *longer = repeat('.', 4096);
	memcpy(longer + 1, path, 4095);
	FAILS(ENAMETOOLONG, open(longer, O_RDONLY));
}

CASE(path_of_nested_long_names, ANYONE)
{
	char *name = repeat('d', 250);
	for (int i = 0; i < 30; i++) { /* 7,500 bytes below here: no path names it, steps do */
		OK(mkdir(name, 0755));
		OK(chdir(name));
	}
	OK(put("f", "deep"));
	CHECK(holds("f", "deep"));
	char here[PATH_MAX];
	CHECK(getcwd(here, sizeof(here)) == NULL && (errno == ERANGE || errno == ENAMETOOLONG));
	OK(unlink("f"));
	for (int i = 0; i < 30; i++) {
		OK(chdir(".."));
		OK(rmdir(name));
	}
}

CASE(path_of_many_levels, ANYONE)
{
	char path[1000] = "d";
	OK(mkdir(path, 0755));
	for (int i = 0; i < 200; i++) {
		strcat(path, "/d");
		OK(mkdir(path, 0755));
	}
	strcat(path, "/f");
	OK(put(path, "x"));
	CHECK(holds(path, "x"));
	OK(rename("d", "e"));
	path[0] = 'e';
	CHECK(holds(path, "x"));
}

CASE(path_slashes_and_dots, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", "x"));
	CHECK(holds("d//f", "x"));
	CHECK(holds("./d/./f", "x"));
	CHECK(holds("d/../d/f", "x"));
	CHECK(holds("d/.//../d///f", "x"));
	OK(mkdir("d/e", 0755));
	CHECK(holds("d/e/../f", "x"));
}

CASE(path_through_symlinks, ANYONE)
{
	OK(mkdir("a", 0755));
	OK(mkdir("a/b", 0755));
	OK(put("a/b/f", "x"));
	OK(symlink("a/b", "l"));
	OK(symlink("../..", "a/b/up"));
	CHECK(holds("l/f", "x"));
	CHECK(holds("l/up/a/b/f", "x"));
	OK(put("a/g", "parent"));
	CHECK(holds("l/../g", "parent"));
}

CASE(path_symlink_as_the_last_part, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(symlink("d", "l"));
	OK(put("l/f", "x"));
	CHECK(exists("d/f"));
	FAILS(EEXIST, mkdir("l", 0755));
	OK(rename("l", "m"));
	CHECK(S_ISLNK(stat_of("m").st_mode));
	CHECK(S_ISDIR(stat_of("m/").st_mode));
	OK(unlink("m"));
	CHECK(exists("d/f"));
}

CASE(chdir_errors, ANYONE)
{
	OK(put("f", ""));
	OK(symlink("self", "self"));
	FAILS(ENOENT, chdir("missing"));
	FAILS(ENOTDIR, chdir("f"));
	FAILS(ELOOP, chdir("self"));
	FAILS(ENOENT, chdir(""));
	FAILS(EFAULT, chdir(bad_pointer()));
	FAILS(ENOTDIR, fchdir((int)OK(open("f", O_RDONLY))));
	FAILS(EBADF, fchdir(-1));
}

CASE(chdir_without_search_permission_is_EACCES, USER)
{
	OK(make_dir("d", 0666));
	FAILS(EACCES, chdir("d"));
	FAILS(EACCES, fchdir((int)OK(open("d", O_RDONLY))));
	OK(chmod("d", 0711));
	OK(chdir("d"));
}

CASE(execve_errors, ANYONE)
{
	OK(put("noexec", "#!/bin/true\n"));
	OK(put("garbage", "\x01\x02\x03"));
	OK(chmod("garbage", 0755));
	OK(put("nointerpreter", "#!/nowhere/at/all\n"));
	OK(chmod("nointerpreter", 0755));
	OK(mkdir("d", 0755));
	OK(symlink("self", "self"));
	FAILS(EACCES, execl("noexec", "x", NULL));
	FAILS(ENOEXEC, execl("garbage", "x", NULL));
	FAILS(ENOENT, execl("nointerpreter", "x", NULL));
	FAILS(EACCES, execl("d", "x", NULL));
	FAILS(ENOENT, execl("missing", "x", NULL));
	FAILS(ENOTDIR, execl("noexec/x", "x", NULL));
	FAILS(ELOOP, execl("self", "x", NULL));
}

CASE(execve_needs_only_x, USER)
{
	const int in = (int)OK(open("/bin/true", O_RDONLY)), out = (int)OK(open("program", O_CREAT | O_WRONLY, 0700));
	char *data = malloc(1 << 20);
	for (long length; (length = OK(read(in, data, 1 << 20))) > 0;)
		EQ(write(out, data, (size_t)length), length);
	OK(close(out));
	OK(chmod("program", 0111));
	IN_CHILD OK(execl("./program", "program", NULL));
	OK(chmod("program", 0444));
	IN_CHILD FAILS(EACCES, execl("./program", "program", NULL));
}
