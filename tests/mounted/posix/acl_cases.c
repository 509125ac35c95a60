/* SPDX-License-Identifier: BSD-3-Clause */
/* The basics of POSIX ACLs, as extended attributes; acl_test.py has the long stories. */
#include <endian.h>
#include <sys/xattr.h>

#include "tests/mounted/posix/posix_check.h"

#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"

enum tag { USER_OBJ = 1, NAMED_USER = 2, GROUP_OBJ = 4, NAMED_GROUP = 8, MASK = 16, OTHER = 32 };

struct acl {
	uint32_t version;
	struct {
		uint16_t tag, perm;
		uint32_t id;
	} entry[8];
};

static int set_acl(const char *path, const char *name, const int (*entries)[3], size_t count)
{
	struct acl acl = {.version = htole32(2)};
	for (size_t i = 0; i < count; i++) {
		acl.entry[i].tag = htole16((uint16_t)entries[i][0]);
		acl.entry[i].perm = htole16((uint16_t)entries[i][1]);
		acl.entry[i].id = htole32((uint32_t)entries[i][2]);
	}
	return setxattr(path, name, &acl, 4 + 8 * count, 0);
}

#define SET_ACL(path, name, ...) \
	set_acl(path, name, (const int[][3]){__VA_ARGS__}, sizeof((const int[][3]){__VA_ARGS__}) / sizeof(int[3]))

/* An ACL that gives ALICE @perm on a file that is root's. */
static int give_alice(const char *path, const char *name, int perm)
{
	return SET_ACL(path, name, {USER_OBJ, 7, -1}, {NAMED_USER, perm, (int)ALICE.uid}, {GROUP_OBJ, 0, -1}, {MASK, 7, -1},
		{OTHER, 0, -1});
}

CASE(acl_named_user_may_what_it_says, ROOT)
{
	OK(make("f", 0600));
	AS(ALICE) FAILS(EACCES, open("f", O_RDONLY));
	OK(give_alice("f", ACCESS, 4));
	AS(ALICE) OK(open("f", O_RDONLY));
	AS(ALICE) FAILS(EACCES, open("f", O_RDWR));
	AS(BOB) FAILS(EACCES, open("f", O_RDONLY));
	OK(give_alice("f", ACCESS, 6));
	AS(ALICE) OK(open("f", O_RDWR));
	OK(removexattr("f", ACCESS));
	AS(ALICE) FAILS(EACCES, open("f", O_RDONLY));
}

CASE(acl_named_group_counts_supplementary_groups, ROOT)
{
	OK(make("f", 0600));
	OK(SET_ACL("f", ACCESS, {USER_OBJ, 6, -1}, {GROUP_OBJ, 0, -1}, {NAMED_GROUP, 4, (int)ALICE.gid}, {MASK, 7, -1},
		{OTHER, 0, -1}));
	AS(ALICE) OK(open("f", O_RDONLY));
	AS(CAROL) OK(open("f", O_RDONLY));
	AS(BOB) FAILS(EACCES, open("f", O_RDONLY));
}

CASE(acl_mask_limits_and_shows_as_the_groups_bits, ROOT)
{
	OK(make("f", 0600));
	OK(SET_ACL("f", ACCESS, {USER_OBJ, 6, -1}, {NAMED_USER, 6, (int)ALICE.uid}, {GROUP_OBJ, 4, -1}, {MASK, 4, -1},
		{OTHER, 0, -1}));
	EQ(mode_of("f"), 0640);
	AS(ALICE) OK(open("f", O_RDONLY));
	AS(ALICE) FAILS(EACCES, open("f", O_RDWR));
	OK(chmod("f", 0660));
	AS(ALICE) OK(open("f", O_RDWR));
	OK(chmod("f", 0600));
	AS(ALICE) FAILS(EACCES, open("f", O_RDONLY));
}

CASE(acl_minimal_is_the_mode, ANYONE)
{
	OK(put("f", ""));
	OK(SET_ACL("f", ACCESS, {USER_OBJ, 6, -1}, {GROUP_OBJ, 4, -1}, {OTHER, 0, -1}));
	EQ(mode_of("f"), 0640);
	FAILS(ENODATA, getxattr("f", ACCESS, NULL, 0));
}

CASE(acl_default_is_handed_down, ROOT)
{
	OK(make_dir("d", 0755));
	OK(give_alice("d", DEFAULT, 6));
	OK(put("d/f", ""));
	OK(mkdir("d/sub", 0777));
	CHECK(getxattr("d/f", ACCESS, NULL, 0) > 0);
	CHECK(getxattr("d/sub", DEFAULT, NULL, 0) > 0);
	AS(ALICE) OK(open("d/f", O_RDONLY));
	AS(ALICE) FAILS(EACCES, open("d/f", O_RDWR)); /* 0644 was wanted */
	FAILS(ENODATA, getxattr("d", ACCESS, NULL, 0));
}

CASE(acl_default_replaces_the_umask, ROOT)
{
	OK(make_dir("d", 0755));
	OK(SET_ACL("d", DEFAULT, {USER_OBJ, 7, -1}, {GROUP_OBJ, 7, -1}, {OTHER, 7, -1}));
	umask(077);
	OK(close((int)OK(open("d/f", O_CREAT | O_RDWR, 0666))));
	EQ(mode_of("d/f"), 0666);
	OK(mkdir("d/sub", 0777));
	EQ(mode_of("d/sub"), 0777);
}

CASE(acl_default_is_for_directories, ANYONE)
{
	OK(put("f", ""));
	FAILS(EACCES, SET_ACL("f", DEFAULT, {USER_OBJ, 6, -1}, {GROUP_OBJ, 4, -1}, {OTHER, 0, -1}));
}

CASE(acl_invalid_is_EINVAL, ANYONE)
{
	OK(put("f", ""));
	FAILS(EINVAL, SET_ACL("f", ACCESS, {USER_OBJ, 6, -1}, {GROUP_OBJ, 4, -1}));
	FAILS(EINVAL, SET_ACL("f", ACCESS, {USER_OBJ, 6, -1}, {NAMED_USER, 6, 5}, {GROUP_OBJ, 4, -1}, {OTHER, 0, -1}));
	FAILS(EINVAL, SET_ACL("f", ACCESS, {USER_OBJ, 9, -1}, {GROUP_OBJ, 4, -1}, {OTHER, 0, -1}));
	FAILS(EINVAL, SET_ACL("f", ACCESS, {GROUP_OBJ, 4, -1}, {USER_OBJ, 6, -1}, {OTHER, 0, -1}));
	FAILS(EINVAL, setxattr("f", ACCESS, "x", 1, 0));
	FAILS(EOPNOTSUPP, setxattr("f", ACCESS, "\3\0\0\0\1\0\6\0\0\0\0\0", 12, 0));
}

CASE(acl_of_somebody_elses_file_is_EPERM, ROOT)
{
	OK(make("f", 0666));
	AS(ALICE) FAILS(EPERM, give_alice("f", ACCESS, 7));
	AS(ALICE) FAILS(EPERM, removexattr("f", ACCESS));
}

CASE(acl_on_a_symlink_is_EOPNOTSUPP, ROOT)
{
	OK(symlink("x", "l"));
	FAILS(EOPNOTSUPP, lsetxattr("l", ACCESS, "\2\0\0\0", 4, 0));
	FAILS(EOPNOTSUPP, lgetxattr("l", ACCESS, NULL, 0));
}

CASE(acl_removing_what_is_not_there, ANYONE)
{
	OK(put("f", ""));
	OK(removexattr("f", ACCESS));
	FAILS(ENODATA, getxattr("f", ACCESS, NULL, 0));
}

CASE(acl_is_listed, ROOT)
{
	char names[256];
	OK(make("f", 0600));
	OK(give_alice("f", ACCESS, 4));
	const long length = OK(listxattr("f", names, sizeof(names)));
	CHECK(memmem(names, (size_t)length, ACCESS, sizeof(ACCESS)) != NULL);
}
