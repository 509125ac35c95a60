/* SPDX-License-Identifier: BSD-3-Clause */
/* Extended attributes: setxattr(2), getxattr(2), listxattr(2), removexattr(2), in all namespaces. */
#include <sys/xattr.h>

#include "tests/mounted/posix/posix_check.h"

static bool listed(const char *path, const char *name)
{
	static char names[65536];
	const long length = OK(llistxattr(path, names, sizeof(names)));
	for (const char *at = names; at < names + length; at += strlen(at) + 1)
		if (strcmp(at, name) == 0)
			return true;
	return false;
}

CASE(xattr_set_and_get, ANYONE)
{
	char value[16];
	OK(put("f", ""));
	OK(setxattr("f", "user.a", "value", 5, 0));
	EQ(getxattr("f", "user.a", value, sizeof(value)), 5);
	EQ(memcmp(value, "value", 5), 0);
	OK(setxattr("f", "user.a", "other value", 11, 0));
	EQ(getxattr("f", "user.a", value, sizeof(value)), 11);
	CHECK(listed("f", "user.a"));
	OK(removexattr("f", "user.a"));
	FAILS(ENODATA, getxattr("f", "user.a", value, sizeof(value)));
	CHECK(!listed("f", "user.a"));
}

CASE(xattr_by_descriptor, ANYONE)
{
	char value[16];
	const int fd = create_open("f");
	OK(fsetxattr(fd, "user.a", "x", 1, 0));
	EQ(fgetxattr(fd, "user.a", value, sizeof(value)), 1);
	EQ(fgetxattr((int)OK(open("f", O_RDONLY)), "user.a", value, sizeof(value)), 1);
	CHECK(flistxattr(fd, value, sizeof(value)) >= 7);
	OK(fremovexattr(fd, "user.a"));
	FAILS(ENODATA, fremovexattr(fd, "user.a"));
	FAILS(EBADF, fsetxattr(-1, "user.a", "x", 1, 0));
	FAILS(EBADF, fgetxattr(-1, "user.a", value, 1));
	FAILS(EBADF, flistxattr(-1, value, 1));
	FAILS(EBADF, fremovexattr(-1, "user.a"));
}

CASE(xattr_empty_value, ANYONE)
{
	char value[4];
	OK(put("f", ""));
	OK(setxattr("f", "user.empty", "", 0, 0));
	EQ(getxattr("f", "user.empty", value, sizeof(value)), 0);
	EQ(getxattr("f", "user.empty", NULL, 0), 0);
	CHECK(listed("f", "user.empty"));
}

CASE(xattr_binary_value, ANYONE)
{
	char all[256], got[256];
	OK(put("f", ""));
	for (int i = 0; i < 256; i++)
		all[i] = (char)i;
	OK(setxattr("f", "user.binary", all, 256, 0));
	EQ(getxattr("f", "user.binary", got, 256), 256);
	EQ(memcmp(all, got, 256), 0);
}

CASE(xattr_flag_create, ANYONE)
{
	char value[8];
	OK(put("f", ""));
	OK(setxattr("f", "user.a", "one", 3, XATTR_CREATE));
	FAILS(EEXIST, setxattr("f", "user.a", "two", 3, XATTR_CREATE));
	EQ(getxattr("f", "user.a", value, 8), 3);
	EQ(memcmp(value, "one", 3), 0);
}

CASE(xattr_flag_replace, ANYONE)
{
	OK(put("f", ""));
	FAILS(ENODATA, setxattr("f", "user.a", "x", 1, XATTR_REPLACE));
	OK(setxattr("f", "user.a", "x", 1, 0));
	OK(setxattr("f", "user.a", "y", 1, XATTR_REPLACE));
	FAILS(EINVAL, setxattr("f", "user.a", "x", 1, 4));
}

CASE(xattr_sizes_are_asked_for_with_size_zero, ANYONE)
{
	OK(put("f", ""));
	OK(setxattr("f", "user.a", "value", 5, 0));
	EQ(getxattr("f", "user.a", NULL, 0), 5);
	const long before = OK(listxattr("f", NULL, 0));
	OK(setxattr("f", "user.longer", "v", 1, 0));
	EQ(listxattr("f", NULL, 0), before + 12);
}

CASE(xattr_small_buffer_is_ERANGE, ANYONE)
{
	char value[4];
	OK(put("f", ""));
	OK(setxattr("f", "user.a", "value", 5, 0));
	FAILS(ERANGE, getxattr("f", "user.a", value, 4));
	FAILS(ERANGE, listxattr("f", value, 4));
}

CASE(xattr_value_too_large_is_E2BIG, ANYONE)
{
	OK(put("f", ""));
	FAILS(E2BIG, setxattr("f", "user.a", repeat('x', 65537), 65537, 0));
}

CASE(xattr_names, ANYONE)
{
	char name[300] = "user.", value[4];
	OK(put("f", ""));
	memset(name + 5, 'n', 250);
	OK(setxattr("f", name, "x", 1, 0));
	EQ(getxattr("f", name, value, 4), 1);
	CHECK(listed("f", name));
	name[255] = 'n';
	FAILS(ERANGE, setxattr("f", name, "x", 1, 0));
	FAILS(ERANGE, getxattr("f", name, value, 4));
	FAILS(ERANGE, setxattr("f", "", "x", 1, 0));
	FAILS(EINVAL, setxattr("f", "user.", "x", 1, 0));
	FAILS(EOPNOTSUPP, setxattr("f", "nonsense.a", "x", 1, 0));
	FAILS(EOPNOTSUPP, setxattr("f", "noprefix", "x", 1, 0));
	FAILS(EOPNOTSUPP, getxattr("f", "nonsense.a", value, 4));
	FAILS(EOPNOTSUPP, removexattr("f", "nonsense.a"));
	OK(setxattr("f", "user.\xff\xfe\x01 odd", "x", 1, 0));
	CHECK(listed("f", "user.\xff\xfe\x01 odd"));
}

CASE(xattr_names_are_case_sensitive, ANYONE)
{
	char value[4];
	OK(put("f", ""));
	OK(setxattr("f", "user.a", "1", 1, 0));
	OK(setxattr("f", "user.A", "2", 1, 0));
	EQ(getxattr("f", "user.a", value, 4), 1);
	EQ(value[0], '1');
}

CASE(xattr_errors_of_the_path, ANYONE)
{
	char value[4];
	OK(put("f", ""));
	FAILS(ENOENT, setxattr("missing", "user.a", "x", 1, 0));
	FAILS(ENOENT, getxattr("missing", "user.a", value, 4));
	FAILS(ENOENT, listxattr("missing", value, 4));
	FAILS(ENOENT, removexattr("missing", "user.a"));
	FAILS(ENOTDIR, setxattr("f/x", "user.a", "x", 1, 0));
	FAILS(ENAMETOOLONG, getxattr(repeat('a', 256), "user.a", value, 4));
	FAILS(EFAULT, setxattr("f", bad_pointer(), "x", 1, 0));
	FAILS(EFAULT, setxattr("f", "user.a", bad_pointer(), 1, 0));
	OK(setxattr("f", "user.a", "x", 1, 0));
	FAILS(EFAULT, getxattr("f", "user.a", bad_pointer(), 4));
	FAILS(EFAULT, listxattr("f", bad_pointer(), 400));
}

CASE(xattr_on_directories, ANYONE)
{
	char value[4];
	OK(mkdir("d", 0755));
	OK(setxattr("d", "user.a", "x", 1, 0));
	EQ(getxattr("d", "user.a", value, 4), 1);
	OK(put("d/f", ""));
	EQ(getxattr("d", "user.a", value, 4), 1);
	FAILS(ENODATA, getxattr("d/f", "user.a", value, 4));
	OK(unlink("d/f"));
	OK(rmdir("d"));
}

CASE(xattr_user_on_special_files_and_symlinks_is_EPERM, ANYONE)
{
	char value[4];
	OK(mkfifo("p", 0666));
	OK(symlink("nowhere", "l"));
	OK(mknod("s", S_IFSOCK | 0666, 0));
	FAILS(EPERM, setxattr("p", "user.a", "x", 1, 0));
	FAILS(EPERM, setxattr("s", "user.a", "x", 1, 0));
	FAILS(EPERM, lsetxattr("l", "user.a", "x", 1, 0));
	FAILS(ENODATA, getxattr("p", "user.a", value, 4));
	FAILS(ENODATA, lgetxattr("l", "user.a", value, 4));
	FAILS(ENOENT, setxattr("l", "user.a", "x", 1, 0));
}

CASE(xattr_trusted_on_every_type, ROOT)
{
	char value[4];
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(mkfifo("p", 0666));
	OK(symlink("f", "l"));
	OK(mknod("c", S_IFCHR | 0644, 0));
	static const char *const names[] = {"f", "d", "p", "l", "c"};
	for (int i = 0; i < 5; i++) {
		OK(lsetxattr(names[i], "trusted.a", names[i], 1, 0));
		EQ(lgetxattr(names[i], "trusted.a", value, 4), 1);
		EQ(value[0], names[i][0]);
		CHECK(listed(names[i], "trusted.a"));
		OK(lremovexattr(names[i], "trusted.a"));
		FAILS(ENODATA, lgetxattr(names[i], "trusted.a", value, 4));
	}
}

CASE(xattr_l_variants_do_not_follow, ROOT)
{
	char value[4];
	OK(put("f", ""));
	OK(symlink("f", "l"));
	OK(setxattr("l", "trusted.a", "x", 1, 0));
	EQ(getxattr("f", "trusted.a", value, 4), 1);
	FAILS(ENODATA, lgetxattr("l", "trusted.a", value, 4));
	OK(lsetxattr("l", "trusted.b", "x", 1, 0));
	FAILS(ENODATA, getxattr("f", "trusted.b", value, 4));
}

CASE(xattr_trusted_is_for_root_alone, ROOT)
{
	char value[4];
	OK(make("f", 0666));
	OK(setxattr("f", "trusted.secret", "x", 1, 0));
	AS(ALICE) {
		FAILS(ENODATA, getxattr("f", "trusted.secret", value, 4));
		FAILS(EPERM, setxattr("f", "trusted.other", "x", 1, 0));
		FAILS(EPERM, removexattr("f", "trusted.secret"));
		CHECK(!listed("f", "trusted.secret"));
	}
	CHECK(listed("f", "trusted.secret"));
}

CASE(xattr_security_by_root, ROOT)
{
	char value[4];
	OK(make("f", 0666));
	OK(setxattr("f", "security.test", "x", 1, 0));
	EQ(getxattr("f", "security.test", value, 4), 1);
	CHECK(listed("f", "security.test"));
	AS(ALICE) {
		EQ(getxattr("f", "security.test", value, 4), 1);
		FAILS(EPERM, setxattr("f", "security.test", "y", 1, 0));
		FAILS(EPERM, setxattr("f", "security.other", "y", 1, 0));
		FAILS(EPERM, removexattr("f", "security.test"));
	}
	OK(removexattr("f", "security.test"));
}

CASE(xattr_security_capability_goes_with_a_write, ROOT)
{
	static const char cap[20] = {0, 0, 0, 2, 0, 32}; /* VFS_CAP_REVISION_2, CAP_NET_RAW */
	OK(make("f", 0777));
	OK(setxattr("f", "security.capability", cap, sizeof(cap), 0));
	EQ(getxattr("f", "security.capability", NULL, 0), 20);
	EQ(write((int)OK(open("f", O_WRONLY)), "x", 1), 1);
	FAILS(ENODATA, getxattr("f", "security.capability", NULL, 0));
	OK(setxattr("f", "security.capability", cap, sizeof(cap), 0));
	OK(truncate("f", 0));
	FAILS(ENODATA, getxattr("f", "security.capability", NULL, 0));
}

CASE(xattr_user_needs_permission_of_the_mode, USER)
{
	char value[4];
	OK(make("f", 0644));
	OK(setxattr("f", "user.a", "x", 1, 0));
	OK(chmod("f", 0444));
	FAILS(EACCES, setxattr("f", "user.a", "y", 1, 0));
	FAILS(EACCES, removexattr("f", "user.a"));
	EQ(getxattr("f", "user.a", value, 4), 1);
	OK(chmod("f", 0222));
	FAILS(EACCES, getxattr("f", "user.a", value, 4));
	OK(setxattr("f", "user.a", "y", 1, 0));
	CHECK(listxattr("f", NULL, 0) > 0);
}

CASE(xattr_user_of_a_sticky_directory_is_its_owners, ROOT)
{
	OK(make_dir("t", 01777));
	AS(ALICE) FAILS(EPERM, setxattr("t", "user.a", "x", 1, 0));
	OK(setxattr("t", "user.a", "x", 1, 0));
	OK(make_dir("d", 0777));
	AS(ALICE) OK(setxattr("d", "user.a", "x", 1, 0));
}

CASE(xattr_unknown_system_is_EOPNOTSUPP, ANYONE)
{
	OK(put("f", ""));
	FAILS(EOPNOTSUPP, setxattr("f", "system.nonsense", "x", 1, 0));
	FAILS(EOPNOTSUPP, getxattr("f", "system.nonsense", NULL, 0));
}

/* ---- many, large ---- */

CASE(xattr_many, ANYONE)
{
	enum { COUNT = 50 };
	char name[32], value[32];
	OK(put("f", ""));
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "user.name%d", i);
		OK(setxattr("f", name, name, strlen(name), 0));
	}
	for (int i = 0; i < COUNT; i += 2) {
		snprintf(name, sizeof(name), "user.name%d", i);
		OK(removexattr("f", name));
	}
	for (int i = 0; i < COUNT; i++) {
		snprintf(name, sizeof(name), "user.name%d", i);
		EQ(listed("f", name), i % 2);
		if (i % 2) {
			EQ(getxattr("f", name, value, sizeof(value)), strlen(name));
			EQ(memcmp(value, name, strlen(name)), 0);
		}
	}
}

CASE(xattr_growing_and_shrinking, ANYONE)
{
	static char value[3000], got[3000];
	OK(put("f", ""));
	for (size_t size = 1; size <= 3000; size = size * 3 / 2 + 1) {
		fill(value, size, (unsigned)size);
		OK(setxattr("f", "user.a", value, size, 0));
		EQ(getxattr("f", "user.a", got, sizeof(got)), size);
		CHECK(filled(got, size, (unsigned)size));
	}
	for (size_t size = 3000; size > 0; size /= 2) {
		fill(value, size, (unsigned)size);
		OK(setxattr("f", "user.a", value, size, XATTR_REPLACE));
		EQ(getxattr("f", "user.a", got, sizeof(got)), size);
		CHECK(filled(got, size, (unsigned)size));
	}
}

CASE(xattr_stay_with_the_file, ANYONE)
{
	char value[4];
	OK(put("f", ""));
	OK(setxattr("f", "user.a", "x", 1, 0));
	OK(link("f", "g"));
	OK(rename("f", "h"));
	OK(put("h", "content"));
	OK(truncate("h", 100000));
	OK(chmod("h", 0600));
	EQ(getxattr("g", "user.a", value, 4), 1);
	OK(unlink("h"));
	EQ(getxattr("g", "user.a", value, 4), 1);
}

CASE(xattr_of_a_new_file_of_the_same_name_are_none, ANYONE)
{
	OK(put("f", ""));
	OK(setxattr("f", "user.a", "x", 1, 0));
	OK(unlink("f"));
	OK(put("f", ""));
	FAILS(ENODATA, getxattr("f", "user.a", NULL, 0));
}

CASE(xattr_of_an_unlinked_open_file, ANYONE)
{
	char value[4];
	const int fd = create_open("f");
	OK(unlink("f"));
	OK(fsetxattr(fd, "user.a", "x", 1, 0));
	EQ(fgetxattr(fd, "user.a", value, 4), 1);
}
