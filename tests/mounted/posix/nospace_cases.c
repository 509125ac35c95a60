/* SPDX-License-Identifier: BSD-3-Clause */
/* A full filesystem: who is refused, and that it can be emptied again. */
#include "tests/mounted/posix/posix_check.h"

/* Takes all space that this user may have for a file's blocks. */
static int fill_up(const char *path)
{
	const int fd = create_open(path);
	for (off_t piece = 1 << 30, at = 0; piece >= PAGE;) {
		if (fallocate(fd, 0, at, piece) == 0) {
			at += piece;
			continue;
		}
		EQ(errno, ENOSPC);
		at = fstat_of(fd).st_size; /* some filesystems keep what did fit */
		at += -at % PAGE;
		piece /= 2;
	}
	return fd;
}

static ssize_t write_durably(const char *path)
{
	char *data = page_buffer(1 << 20);
	fill(data, 1 << 20, 1);
	const int fd = (int)OK(open(path, O_RDWR | O_CREAT | O_APPEND, 0644));
	for (int i = 0; i < 16; i++)
		if (write(fd, data, 1 << 20) == -1 || fsync(fd))
			return -1;
	return 0;
}

CASE(nospace_writing_is_ENOSPC, ANYONE)
{
	fill_up("big");
	FAILS(ENOSPC, write_durably("f"));
}

CASE(nospace_allocating_is_ENOSPC, ANYONE)
{
	fill_up("big");
	FAILS(ENOSPC, fallocate(create_open("f"), 0, 0, 64 << 20));
}

CASE(nospace_overwriting_works, ANYONE)
{
	OK(put("f", "content"));
	OK(fsync((int)OK(open("f", O_RDONLY))));
	fill_up("big");
	const int fd = (int)OK(open("f", O_RDWR));
	EQ(pwrite(fd, "C", 1, 0), 1);
	OK(fsync(fd));
	CHECK(holds("f", "Content"));
}

CASE(nospace_removed_space_can_be_used_at_once, ANYONE)
{
	for (int i = 0; i < 2; i++) {
		OK(close(fill_up("big")));
		OK(unlink("big"));
		OK(write_durably("f"));
		OK(unlink("f"));
	}
}

CASE(nospace_shrinking_gives_space_back, ANYONE)
{
	const int fd = fill_up("big");
	OK(ftruncate(fd, PAGE));
	OK(write_durably("f"));
}

CASE(nospace_punching_gives_space_back, ANYONE)
{
	const int fd = fill_up("big");
	OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 128 << 20));
	OK(write_durably("f"));
}

CASE(nospace_names_can_be_changed_and_removed, ANYONE)
{
	OK(mkdir("d", 0755));
	OK(put("f", "x"));
	fill_up("big");
	OK(rename("f", "d/g"));
	OK(chmod("d/g", 0600));
	OK(utimensat(AT_FDCWD, "d/g", NULL, 0));
	OK(truncate("d/g", 0));
	OK(unlink("d/g"));
	OK(rmdir("d"));
	OK(unlink("big"));
}

CASE(nospace_small_files_end_with_ENOSPC_and_leave_nothing_half, ANYONE)
{
	char name[32];
	int made = 0;
	fill_up("big");
	for (; made < 20000; made++) {
		snprintf(name, sizeof(name), "d%d", made);
		if (mkdir(name, 0755))
			break;
	}
	if (made < 20000)
		EQ(errno, ENOSPC);
	CHECK(made == 20000 || !exists(name));
	for (int i = 0; i < made; i++) {
		snprintf(name, sizeof(name), "d%d", i);
		OK(rmdir(name));
	}
}
