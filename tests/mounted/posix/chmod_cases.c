/* SPDX-License-Identifier: BSD-3-Clause */
/* chmod(2), chown(2) and their relatives; suid, sgid and who may have them. */
#include <sys/capability.h>
#include <sys/xattr.h>

#include "tests/mounted/posix/posix_check.h"

CASE(chmod_sets_all_twelve_bits, ANYONE)
{
	OK(put("f", ""));
	for (mode_t mode = 0; mode <= 07777; mode += 0111) {
		OK(chmod("f", mode));
		EQ(mode_of("f"), mode);
	}
	OK(chmod("f", 07777));
	EQ(mode_of("f"), 07777);
}

CASE(chmod_of_directories, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(chmod("d", 07531));
	EQ(mode_of("d"), 07531);
	CHECK(S_ISDIR(stat_of("d").st_mode));
	OK(chmod("d", 0755));
	EQ(mode_of("d"), 0755);
}

CASE(chmod_of_special_files, ANYONE)
{
	OK(mkfifo("p", 0644));
	OK(mknod("s", S_IFSOCK | 0644, 0));
	OK(chmod("p", 0123));
	OK(chmod("s", 0321));
	EQ(mode_of("p"), 0123);
	EQ(mode_of("s"), 0321);
	CHECK(S_ISFIFO(stat_of("p").st_mode));
}

CASE(chmod_follows_symlinks, ANYONE)
{
	OK(put("f", ""));
	OK(symlink("f", "l"));
	OK(chmod("l", 0600));
	EQ(mode_of("f"), 0600);
	EQ(mode_of("l"), 0777);
}

CASE(chmod_by_descriptor, ANYONE)
{
	const int fd = create_open("f");
	OK(fchmod(fd, 0400));
	EQ(mode_of("f"), 0400);
	OK(fchmod(fd, 0604));
	EQ(fstat_of(fd).st_mode & 07777, 0604);
	FAILS(EBADF, fchmod(-7, 0600));
	FAILS(EBADF, fchmodat(-7, "f", 0600, 0));
}

CASE(chmod_of_a_symlink_is_EOPNOTSUPP, ANYONE)
{
	OK(put("f", ""));
	OK(symlink("f", "l"));
	FAILS(EOPNOTSUPP, fchmodat(AT_FDCWD, "l", 0600, AT_SYMLINK_NOFOLLOW));
	OK(fchmodat(AT_FDCWD, "f", 0600, AT_SYMLINK_NOFOLLOW));
	EQ(mode_of("f"), 0600);
}

CASE(chmod_errors_of_the_path, ANYONE)
{
	OK(put("f", ""));
	OK(symlink("nowhere", "dangling"));
	FAILS(ENOENT, chmod("missing", 0600));
	FAILS(ENOENT, chmod("", 0600));
	FAILS(ENOENT, chmod("dangling", 0600));
	FAILS(ENOTDIR, chmod("f/x", 0600));
	FAILS(ENOTDIR, chmod("f/", 0600));
	FAILS(EFAULT, chmod(bad_pointer(), 0600));
	FAILS(ENAMETOOLONG, chmod(repeat('a', 256), 0600));
}

CASE(chmod_of_somebody_elses_file_is_EPERM, ROOT)
{
	OK(make("f", 0666));
	AS(ALICE) FAILS(EPERM, chmod("f", 0600));
	AS(ALICE) FAILS(EPERM, fchmod((int)OK(open("f", O_RDWR)), 0600));
	OK(chown("f", ALICE.uid, 0));
	AS(ALICE) OK(chmod("f", 0600));
}

CASE(chmod_needs_search_permission_on_the_way, USER)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	OK(chmod("d", 0666));
	FAILS(EACCES, chmod("d/f", 0600));
	OK(chmod("d", 0755));
}

CASE(chmod_drops_sgid_outside_of_the_group, ROOT)
{
	OK(make("f", 0755));
	OK(make_dir("d", 0755));
	OK(chown("f", ALICE.uid, BOB.gid));
	OK(chown("d", ALICE.uid, BOB.gid));
	AS(ALICE) OK(chmod("f", 02755));
	EQ(mode_of("f"), 0755);
	AS(ALICE) OK(chmod("d", 02755));
	EQ(mode_of("d"), 0755);
	AS(ALICE) OK(chmod("f", 06755));
	EQ(mode_of("f"), 04755);
}

CASE(chmod_keeps_sgid_of_a_supplementary_group, ROOT)
{
	OK(make("f", 0755));
	OK(chown("f", CAROL.uid, CAROL.group));
	AS(CAROL) OK(chmod("f", 02755));
	EQ(mode_of("f"), 02755);
}

CASE(chmod_sticky_on_a_file_by_a_user, USER)
{
	OK(make("f", 0644));
	OK(chmod("f", 01644));
	EQ(mode_of("f"), 01644);
}

/* ---- chown ---- */

CASE(chown_sets_owner_and_group, ROOT)
{
	OK(put("f", ""));
	OK(chown("f", 12, 34));
	EQ(stat_of("f").st_uid, 12);
	EQ(stat_of("f").st_gid, 34);
	OK(chown("f", 56, (gid_t)-1));
	EQ(stat_of("f").st_uid, 56);
	EQ(stat_of("f").st_gid, 34);
	OK(chown("f", (uid_t)-1, 78));
	EQ(stat_of("f").st_uid, 56);
	EQ(stat_of("f").st_gid, 78);
	OK(chown("f", (uid_t)-1, (gid_t)-1));
	EQ(stat_of("f").st_uid, 56);
}

CASE(chown_takes_ids_of_32_bits, ROOT)
{
	OK(put("f", ""));
	OK(chown("f", 4294967294u, 4294967293u));
	EQ(stat_of("f").st_uid, 4294967294u);
	EQ(stat_of("f").st_gid, 4294967293u);
	OK(chown("f", 65536, 100000));
	EQ(stat_of("f").st_uid, 65536);
	EQ(stat_of("f").st_gid, 100000);
}

CASE(chown_follows_symlinks_lchown_does_not, ROOT)
{
	OK(put("f", ""));
	OK(symlink("f", "l"));
	OK(chown("l", 1, 2));
	EQ(stat_of("f").st_uid, 1);
	EQ(stat_of("l").st_uid, 0);
	OK(lchown("l", 3, 4));
	EQ(stat_of("f").st_uid, 1);
	EQ(stat_of("l").st_uid, 3);
	EQ(stat_of("l").st_gid, 4);
	OK(fchownat(AT_FDCWD, "l", 5, 6, AT_SYMLINK_NOFOLLOW));
	EQ(stat_of("l").st_uid, 5);
	EQ(stat_of("l").st_mode & 07777, 0777);
}

CASE(chown_of_every_type, ROOT)
{
	OK(mkdir("d", 0755));
	OK(mkfifo("p", 0644));
	OK(mknod("c", S_IFCHR | 0644, 0));
	static const char *const names[] = {"d", "p", "c"};
	for (int i = 0; i < 3; i++) {
		OK(chown(names[i], 7, 8));
		EQ(stat_of(names[i]).st_uid, 7);
		EQ(stat_of(names[i]).st_gid, 8);
	}
}

CASE(chown_by_descriptor, ROOT)
{
	const int fd = create_open("f");
	OK(fchown(fd, 1, 2));
	EQ(fstat_of(fd).st_gid, 2);
	OK(fchownat(fd, "", 3, 4, AT_EMPTY_PATH));
	EQ(fstat_of(fd).st_uid, 3);
	FAILS(EBADF, fchown(-7, 1, 2));
}

CASE(chown_errors_of_the_path, ANYONE)
{
	OK(put("f", ""));
	const uid_t uid = geteuid();
	const gid_t gid = getegid();
	FAILS(ENOENT, chown("missing", uid, gid));
	FAILS(ENOENT, chown("", uid, gid));
	FAILS(ENOTDIR, chown("f/x", uid, gid));
	FAILS(EFAULT, chown(bad_pointer(), uid, gid));
	FAILS(EINVAL, fchownat(AT_FDCWD, "f", uid, gid, 0x8000));
	FAILS(EBADF, fchownat(-7, "f", uid, gid, 0));
	OK(symlink("nowhere", "dangling"));
	FAILS(ENOENT, chown("dangling", uid, gid));
	OK(lchown("dangling", uid, gid));
}

CASE(chown_giving_away_is_EPERM, USER)
{
	OK(put("f", ""));
	FAILS(EPERM, chown("f", BOB.uid, (gid_t)-1));
	FAILS(EPERM, chown("f", (uid_t)-1, BOB.gid));
	FAILS(EPERM, chown("f", 0, 0));
	OK(chown("f", geteuid(), getegid()));
	OK(chown("f", geteuid(), (gid_t)-1));
}

CASE(chown_of_somebody_elses_file_is_EPERM, ROOT)
{
	OK(make("f", 0666));
	AS(ALICE) FAILS(EPERM, chown("f", ALICE.uid, (gid_t)-1));
	AS(ALICE) FAILS(EPERM, chown("f", (uid_t)-1, ALICE.gid));
}

CASE(chown_group_to_an_own_one_is_allowed, ROOT)
{
	OK(make("f", 0644));
	OK(chown("f", CAROL.uid, CAROL.gid));
	AS(CAROL) OK(chown("f", (uid_t)-1, CAROL.group));
	EQ(stat_of("f").st_gid, CAROL.group);
	AS(CAROL) FAILS(EPERM, chown("f", (uid_t)-1, BOB.gid));
}

CASE(chown_by_a_user_drops_suid_and_sgid, ROOT)
{
	OK(make("f", 0755));
	OK(chown("f", CAROL.uid, CAROL.gid));
	OK(chmod("f", 06755));
	AS(CAROL) OK(chown("f", (uid_t)-1, CAROL.group));
	EQ(mode_of("f"), 0755);
}

CASE(chown_by_root_drops_them_too, ROOT)
{
	OK(make("f", 06755));
	OK(chown("f", 1, 1));
	EQ(mode_of("f"), 0755);
	OK(make("g", 06645)); /* not executable by the group: sgid once meant locking */
	OK(chown("g", 1, 1));
	EQ(mode_of("g"), 02645);
	OK(chmod("f", 06755));
	OK(chown("f", (uid_t)-1, (gid_t)-1));
	EQ(mode_of("f"), 0755);
}

CASE(chown_of_a_directory_keeps_its_bits, ROOT)
{
	OK(make_dir("d", 07755));
	OK(chown("d", 1, 1));
	EQ(mode_of("d"), 07755);
}

CASE(chown_drops_security_capability, ROOT)
{
	OK(make("f", 0755));
	cap_t caps = cap_from_text("cap_net_raw=ep");
	OK(cap_set_file("f", caps));
	CHECK(getxattr("f", "security.capability", NULL, 0) > 0);
	OK(chown("f", 1, 1));
	FAILS(ENODATA, getxattr("f", "security.capability", NULL, 0));
}

CASE(chown_changes_who_may_use_it, ROOT)
{
	OK(make("f", 0600));
	AS(ALICE) FAILS(EACCES, open("f", O_RDONLY));
	OK(chown("f", ALICE.uid, (gid_t)-1));
	AS(ALICE) OK(open("f", O_RDONLY));
	OK(chown("f", BOB.uid, (gid_t)-1));
	AS(ALICE) FAILS(EACCES, open("f", O_RDONLY));
}

CASE(suid_program_runs_as_its_owner, ROOT)
{
	const int in = (int)OK(open("/usr/bin/id", O_RDONLY)), out = (int)OK(open("id", O_CREAT | O_WRONLY, 0755));
	char *data = malloc(1 << 20);
	for (long length; (length = OK(read(in, data, 1 << 20))) > 0;)
		EQ(write(out, data, (size_t)length), length);
	OK(close(out));
	OK(chown("id", BOB.uid, BOB.gid));
	OK(chmod("id", 06755));
	AS(ALICE) {
		FILE *pipe = popen("./id -u; ./id -g", "r");
		char text[128] = "";
		CHECK(pipe != NULL);
		CHECK(fread(text, 1, sizeof(text) - 1, pipe) > 0);
		char wanted[32];
		snprintf(wanted, sizeof(wanted), "%u\n%u\n", BOB.uid, BOB.gid);
		if (!strstr(text, wanted))
			printf("# %s", text);
		CHECK(strstr(text, wanted) != NULL);
	}
}

CASE(access_judges_by_real_ids, ROOT)
{
	OK(make("f", 0600));
	IN_CHILD {
		OK(setresuid(ALICE.uid, 0, 0));
		FAILS(EACCES, access("f", R_OK));
		OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
	}
}

CASE(access_modes, USER)
{
	OK(make("f", 0400));
	OK(make("x", 0100));
	OK(access("f", F_OK));
	OK(access("f", R_OK));
	FAILS(EACCES, access("f", W_OK));
	FAILS(EACCES, access("f", X_OK));
	FAILS(EACCES, access("f", R_OK | W_OK));
	OK(access("x", X_OK));
	FAILS(ENOENT, access("missing", F_OK));
	FAILS(ENOTDIR, access("f/x", F_OK));
	FAILS(EINVAL, access("f", 64));
	FAILS(EFAULT, access(bad_pointer(), F_OK));
}

CASE(access_execute_by_root_needs_one_x_bit, ROOT)
{
	OK(make("f", 0666));
	FAILS(EACCES, access("f", X_OK));
	OK(chmod("f", 0667));
	OK(access("f", X_OK));
	OK(make_dir("d", 0));
	OK(access("d", R_OK | W_OK | X_OK));
}
