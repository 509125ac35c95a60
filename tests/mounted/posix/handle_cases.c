/* SPDX-License-Identifier: BSD-3-Clause */
/* name_to_handle_at(2), open_by_handle_at(2). */

#include "tests/mounted/posix/posix_check.h"

struct handle {
	struct file_handle head;
	unsigned char bytes[MAX_HANDLE_SZ];
};

static struct handle handle_of(const char *path)
{
	static struct handle handle;
	int mount_id;
	memset(&handle, 0, sizeof(handle));
	handle.head.handle_bytes = MAX_HANDLE_SZ;
	OK(name_to_handle_at(AT_FDCWD, path, &handle.head, &mount_id, 0));
	return handle;
}

static int open_handle(struct handle handle, int flags)
{
	const int here = (int)OK(open(".", O_RDONLY | O_DIRECTORY));
	const int fd = open_by_handle_at(here, &handle.head, flags), error = errno;
	OK(close(here));
	errno = error;
	return fd;
}

/* What has been removed may be remembered for a moment: closing it may end later than close(2) does. */
static void is_stale(struct handle handle)
{
	for (int i = 0; i < 200; i++) {
		const int fd = open_handle(handle, O_RDONLY);
		if (fd == -1)
			break;
		OK(close(fd));
		tick();
	}
	FAILS(ESTALE, open_handle(handle, O_RDONLY));
}

CASE(handle_opens_the_file_again, ROOT)
{
	OK(put("f", "content"));
	const struct handle handle = handle_of("f");
	const int fd = (int)OK(open_handle(handle, O_RDWR));
	char text[8];
	EQ(read(fd, text, 8), 7);
	EQ(memcmp(text, "content", 7), 0);
	EQ(fstat_of(fd).st_ino, stat_of("f").st_ino);
}

CASE(handle_survives_rename, ROOT)
{
	OK(mkdir("d", 0755));
	OK(put("f", "content"));
	const struct handle handle = handle_of("f");
	OK(rename("f", "d/g"));
	const int fd = (int)OK(open_handle(handle, O_RDONLY));
	EQ(fstat_of(fd).st_ino, stat_of("d/g").st_ino);
}

CASE(handle_of_a_removed_file_is_ESTALE, ROOT)
{
	OK(put("f", "content"));
	const struct handle handle = handle_of("f");
	OK(unlink("f"));
	is_stale(handle);
	for (int i = 0; i < 50; i++) { /* whoever gets the inode's number is somebody else */
		char name[16];
		snprintf(name, sizeof(name), "n%d", i);
		OK(put(name, ""));
	}
	FAILS(ESTALE, open_handle(handle, O_RDONLY));
}

CASE(handle_of_a_removed_directory_is_ESTALE, ROOT)
{
	OK(mkdir("d", 0755));
	const struct handle handle = handle_of("d");
	OK(rmdir("d"));
	is_stale(handle);
	OK(mkdir("d", 0755));
	FAILS(ESTALE, open_handle(handle, O_RDONLY));
}

CASE(handle_of_an_unlinked_open_file_still_opens, ROOT)
{
	const int fd = create_open("f");
	EQ(write(fd, "abc", 3), 3);
	const struct handle handle = handle_of("f");
	OK(unlink("f"));
	const int again = open_handle(handle, O_RDONLY);
	CHECK(again >= 0 || errno == ESTALE); /* ext4 says ESTALE, others open it */
}

CASE(handle_of_a_directory, ROOT)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", "x"));
	const struct handle handle = handle_of("d");
	const int fd = (int)OK(open_handle(handle, O_RDONLY | O_DIRECTORY));
	OK(faccessat(fd, "f", F_OK, 0));
	OK(fchdir(fd));
	EQ(stat_of("..").st_ino, stat_of("../.").st_ino);
}

CASE(handle_of_a_deep_directory_finds_its_parents, ROOT)
{
	char path[256] = "d0";
	OK(mkdir(path, 0755));
	for (int i = 1; i < 20; i++) {
		snprintf(path + strlen(path), sizeof(path) - strlen(path), "/d%d", i);
		OK(mkdir(path, 0755));
	}
	const struct handle handle = handle_of(path);
	OK(fchdir((int)OK(open_handle(handle, O_RDONLY | O_DIRECTORY))));
	char here[PATH_MAX];
	CHECK(getcwd(here, sizeof(here)) != NULL);
	CHECK(strstr(here, "/d0/d1/d2") != NULL);
}

CASE(handle_of_a_symlink, ROOT)
{
	OK(symlink("target", "l"));
	const struct handle handle = handle_of("l");
	const int fd = (int)OK(open_handle(handle, O_PATH));
	CHECK(S_ISLNK(fstat_of(fd).st_mode));
	FAILS(ELOOP, open_handle(handle, O_RDONLY));
}

CASE(handle_is_the_same_each_time, ROOT)
{
	OK(put("f", ""));
	const struct handle one = handle_of("f"), two = handle_of("f");
	EQ(one.head.handle_bytes, two.head.handle_bytes);
	EQ(memcmp(one.bytes, two.bytes, one.head.handle_bytes), 0);
	OK(put("g", ""));
	const struct handle other = handle_of("g");
	CHECK(memcmp(one.bytes, other.bytes, one.head.handle_bytes) != 0);
}

CASE(handle_too_small_a_buffer_is_EOVERFLOW, ANYONE)
{
	struct handle handle = {.head.handle_bytes = 0};
	int mount_id;
	OK(put("f", ""));
	FAILS(EOVERFLOW, name_to_handle_at(AT_FDCWD, "f", &handle.head, &mount_id, 0));
	CHECK(handle.head.handle_bytes > 0);
	OK(name_to_handle_at(AT_FDCWD, "f", &handle.head, &mount_id, 0));
	handle.head.handle_bytes = MAX_HANDLE_SZ + 1;
	FAILS(EINVAL, name_to_handle_at(AT_FDCWD, "f", &handle.head, &mount_id, 0));
}

CASE(handle_errors_of_the_path, ANYONE)
{
	struct handle handle = {.head.handle_bytes = MAX_HANDLE_SZ};
	int mount_id;
	OK(put("f", ""));
	FAILS(ENOENT, name_to_handle_at(AT_FDCWD, "missing", &handle.head, &mount_id, 0));
	FAILS(ENOTDIR, name_to_handle_at(AT_FDCWD, "f/x", &handle.head, &mount_id, 0));
	FAILS(EBADF, name_to_handle_at(-7, "f", &handle.head, &mount_id, 0));
	FAILS(EINVAL, name_to_handle_at(AT_FDCWD, "f", &handle.head, &mount_id, 0x8000));
	FAILS(EFAULT, name_to_handle_at(AT_FDCWD, "f", bad_pointer(), &mount_id, 0));
	OK(name_to_handle_at((int)OK(open("f", O_RDONLY)), "", &handle.head, &mount_id, AT_EMPTY_PATH));
}

CASE(handle_opening_is_for_root, USER)
{
	struct handle handle = {.head.handle_bytes = MAX_HANDLE_SZ};
	int mount_id;
	OK(put("f", ""));
	OK(name_to_handle_at(AT_FDCWD, "f", &handle.head, &mount_id, 0));
	FAILS(EPERM, open_handle(handle, O_RDONLY));
}

CASE(handle_made_up_is_ESTALE_or_EINVAL, ROOT)
{
	OK(put("f", ""));
	struct handle handle = handle_of("f");
	for (unsigned i = 0; i < handle.head.handle_bytes; i++) {
		struct handle wrong = handle;
		wrong.bytes[i] ^= 0xff;
		const int fd = open_handle(wrong, O_RDONLY);
		CHECK(fd == -1 && (errno == ESTALE || errno == EINVAL));
	}
	handle.head.handle_bytes = 0;
	FAILS(EINVAL, open_handle(handle, O_RDONLY));
}
