/* SPDX-License-Identifier: BSD-3-Clause */
/* mknod(2), mkfifo(3), sockets in the filesystem, umask(2). */
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "tests/mounted/posix/posix_check.h"

CASE(mknod_regular_file, ANYONE)
{
	OK(mknod("f", S_IFREG | 0640, 0));
	CHECK(S_ISREG(stat_of("f").st_mode));
	EQ(mode_of("f"), 0640);
	OK(mknod("g", 0640, 0)); /* no type means a file, too */
	CHECK(S_ISREG(stat_of("g").st_mode));
}

CASE(mknod_fifo, ANYONE)
{
	OK(mknod("p", S_IFIFO | 0622, 0));
	CHECK(S_ISFIFO(stat_of("p").st_mode));
	EQ(mode_of("p"), 0600);
	EQ(stat_of("p").st_size, 0);
	EQ(links_of("p"), 1);
}

CASE(mknod_socket, ANYONE)
{
	OK(mknod("s", S_IFSOCK | 0644, 0));
	CHECK(S_ISSOCK(stat_of("s").st_mode));
}

CASE(mknod_devices_keep_their_numbers, ROOT)
{
	static const struct {
		unsigned major, minor;
	} numbers[] = {{0, 0}, {1, 3}, {255, 255}, {256, 256}, {4095, 1048575}, {8, 0x12345}};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		const dev_t number = makedev(numbers[i].major, numbers[i].minor);
		OK(mknod("c", S_IFCHR | 0600, number));
		OK(mknod("b", S_IFBLK | 0600, number));
		CHECK(S_ISCHR(stat_of("c").st_mode));
		CHECK(S_ISBLK(stat_of("b").st_mode));
		EQ(stat_of("c").st_rdev, number);
		EQ(stat_of("b").st_rdev, number);
		OK(unlink("c"));
		OK(unlink("b"));
	}
}

CASE(mknod_device_by_a_user_is_EPERM, USER)
{
	FAILS(EPERM, mknod("c", S_IFCHR | 0600, makedev(1, 3)));
	FAILS(EPERM, mknod("b", S_IFBLK | 0600, makedev(7, 0)));
	CHECK(!exists("c"));
}

CASE(mknod_whiteout_needs_no_privilege, USER)
{
	OK(mknod("w", S_IFCHR | 0600, makedev(0, 0)));
	CHECK(S_ISCHR(stat_of("w").st_mode));
}

CASE(mknod_directory_is_EPERM, ANYONE) { FAILS(EPERM, mknod("d", S_IFDIR | 0755, 0)); }

CASE(mknod_unknown_type_is_EINVAL, ANYONE)
{
	FAILS(EINVAL, mknod("l", S_IFLNK | 0644, 0));
	FAILS(EINVAL, mknod("x", 0170000 | 0644, 0));
}

CASE(mknod_existing_is_EEXIST, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(symlink("nowhere", "dangling"));
	FAILS(EEXIST, mkfifo("f", 0644));
	FAILS(EEXIST, mkfifo("d", 0644));
	FAILS(EEXIST, mkfifo("dangling", 0644));
	FAILS(EEXIST, mknod("f", S_IFREG | 0644, 0));
	FAILS(EEXIST, mknod(".", S_IFREG | 0644, 0));
}

CASE(mknod_errors_of_the_path, ANYONE)
{
	OK(put("f", ""));
	FAILS(ENOENT, mkfifo("missing/p", 0644));
	FAILS(ENOENT, mkfifo("", 0644));
	FAILS(ENOENT, mkfifo("p/", 0644));
	FAILS(ENOTDIR, mkfifo("f/p", 0644));
	FAILS(EFAULT, mknod(bad_pointer(), S_IFIFO | 0644, 0));
	FAILS(ENAMETOOLONG, mkfifo(repeat('a', 256), 0644));
	FAILS(EBADF, mknodat(-7, "p", S_IFIFO | 0644, 0));
}

CASE(mknod_without_write_permission_is_EACCES, USER)
{
	OK(make_dir("d", 0555));
	FAILS(EACCES, mkfifo("d/p", 0644));
	FAILS(EACCES, mknod("d/f", S_IFREG | 0644, 0));
}

CASE(mknod_owner_is_the_effective_user, ROOT)
{
	OK(chmod(".", 0777));
	AS(ALICE) OK(mkfifo("p", 0644));
	EQ(stat_of("p").st_uid, ALICE.uid);
	EQ(stat_of("p").st_gid, ALICE.gid);
}

CASE(mknod_in_a_setgid_directory_takes_its_group, ROOT)
{
	OK(chown(".", 0, BOB.gid));
	OK(chmod(".", 02777));
	AS(ALICE) OK(mkfifo("p", 0644));
	AS(ALICE) OK(mknod("f", S_IFREG | 0644, 0));
	EQ(stat_of("p").st_gid, BOB.gid);
	EQ(stat_of("f").st_gid, BOB.gid);
}

CASE(socket_bind_makes_one_and_it_answers, ANYONE)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "s"};
	const int server = (int)OK(socket(AF_UNIX, SOCK_STREAM, 0)), client = (int)OK(socket(AF_UNIX, SOCK_STREAM, 0));
	OK(bind(server, (struct sockaddr *)&address, sizeof(address)));
	CHECK(S_ISSOCK(stat_of("s").st_mode));
	OK(listen(server, 1));
	OK(rename("s", "moved"));
	strcpy(address.sun_path, "moved");
	OK(connect(client, (struct sockaddr *)&address, sizeof(address)));
	FAILS(EADDRINUSE, bind((int)OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&address, sizeof(address)));
}

CASE(umask_cuts_every_call_that_makes_something, ANYONE)
{
	umask(0123);
	OK(open("f", O_CREAT | O_RDWR, 0777));
	OK(mkdir("d", 0777));
	OK(mkfifo("p", 0777));
	OK(mknod("r", S_IFREG | 0777, 0));
	OK(symlink("x", "l"));
	EQ(mode_of("f"), 0654);
	EQ(mode_of("d"), 0654);
	EQ(mode_of("p"), 0654);
	EQ(mode_of("r"), 0654);
	EQ(mode_of("l"), 0777);
	umask(0);
	OK(open("g", O_CREAT | O_RDWR, 0777));
	EQ(mode_of("g"), 0777);
	umask(0777);
	OK(open("h", O_CREAT | O_RDWR, 0777));
	EQ(mode_of("h"), 0);
}

CASE(umask_does_not_touch_chmod, ANYONE)
{
	OK(put("f", ""));
	umask(0777);
	OK(chmod("f", 0666));
	EQ(mode_of("f"), 0666);
}
