/* SPDX-License-Identifier: BSD-3-Clause */
/* copy_file_range(2), sendfile(2), splice(2); fsync(2) and its relatives. */
#include <sys/sendfile.h>
#include <sys/statvfs.h>

#include "tests/mounted/posix/posix_check.h"

static char data[300000], got[300000];

static int source(void)
{
	const int fd = create_open("in");
	fill(data, sizeof(data), 1);
	EQ(pwrite(fd, data, sizeof(data), 0), sizeof(data));
	return fd;
}

static long copy_all(int in, off_t *in_at, int out, off_t *out_at, size_t length)
{
	size_t done = 0;
	while (done < length) {
		const long part = OK(copy_file_range(in, in_at, out, out_at, length - done, 0));
		if (part == 0)
			break;
		done += (size_t)part;
	}
	return (long)done;
}

CASE(copy_whole_file, ANYONE)
{
	const int in = source(), out = create_open("out");
	EQ(copy_all(in, NULL, out, NULL, sizeof(data)), sizeof(data));
	EQ(lseek(in, 0, SEEK_CUR), sizeof(data));
	EQ(lseek(out, 0, SEEK_CUR), sizeof(data));
	EQ(pread(out, got, sizeof(got), 0), sizeof(got));
	CHECK(filled(got, sizeof(got), 1));
	EQ(size_of("out"), sizeof(data));
}

CASE(copy_with_offsets_leaves_positions_alone, ANYONE)
{
	const int in = source(), out = create_open("out");
	off_t from = 1001, to = 77;
	EQ(copy_all(in, &from, out, &to, 5000), 5000);
	EQ(from, 6001);
	EQ(to, 5077);
	EQ(lseek(in, 0, SEEK_CUR), 0);
	EQ(lseek(out, 0, SEEK_CUR), 0);
	EQ(pread(out, got, 10000, 0), 5077);
	CHECK(zeroed(got, 77));
	EQ(memcmp(got + 77, data + 1001, 5000), 0);
}

CASE(copy_stops_at_the_end_of_the_source, ANYONE)
{
	const int in = source(), out = create_open("out");
	off_t from = sizeof(data) - 100;
	EQ(copy_all(in, &from, out, NULL, 5000), 100);
	EQ(copy_file_range(in, &from, out, NULL, 5000, 0), 0);
	from = 10000000;
	EQ(copy_file_range(in, &from, out, NULL, 5000, 0), 0);
	EQ(copy_file_range(in, NULL, out, NULL, 0, 0), 0);
}

CASE(copy_within_a_file, ANYONE)
{
	const int fd = source();
	off_t from = 0, to = 200000;
	EQ(copy_all(fd, &from, fd, &to, 50000), 50000);
	EQ(pread(fd, got, 50000, 200000), 50000);
	EQ(memcmp(got, data, 50000), 0);
}

CASE(copy_overlapping_is_EINVAL, ANYONE)
{
	const int fd = source();
	off_t from = 0, to = 1000;
	FAILS(EINVAL, copy_file_range(fd, &from, fd, &to, 50000, 0));
}

CASE(copy_wrong_descriptors, ANYONE)
{
	const int in = source(), out = create_open("out");
	FAILS(EBADF, copy_file_range((int)OK(open("in", O_WRONLY)), NULL, out, NULL, 10, 0));
	FAILS(EBADF, copy_file_range(in, NULL, (int)OK(open("out", O_RDONLY)), NULL, 10, 0));
	FAILS(EBADF, copy_file_range(in, NULL, (int)OK(open("out", O_WRONLY | O_APPEND)), NULL, 10, 0));
	FAILS(EBADF, copy_file_range(-1, NULL, out, NULL, 10, 0));
	FAILS(EINVAL, copy_file_range(in, NULL, out, NULL, 10, 1));
	FAILS(EISDIR, copy_file_range((int)OK(open(".", O_RDONLY)), NULL, out, NULL, 10, 0));
	OK(mkfifo("p", 0644));
	FAILS(EINVAL, copy_file_range((int)OK(open("p", O_RDWR)), NULL, out, NULL, 10, 0));
	FAILS(EOVERFLOW, copy_file_range(in, &(off_t){5}, out, NULL, SIZE_MAX, 0));
}

CASE(copy_holes_read_as_zeros, ANYONE)
{
	const int in = create_open("in"), out = create_open("out");
	OK(ftruncate(in, sizeof(data)));
	EQ(pwrite(in, "x", 1, 150000), 1);
	EQ(copy_all(in, NULL, out, NULL, sizeof(data)), sizeof(data));
	EQ(pread(out, got, sizeof(got), 0), sizeof(got));
	CHECK(zeroed(got, 150000));
	EQ(got[150000], 'x');
	CHECK(zeroed(got + 150001, sizeof(got) - 150001));
}

CASE(copy_sees_what_is_only_cached, ANYONE)
{
	const int in = create_open("in"), out = create_open("out");
	EQ(write(in, "fresh", 5), 5);
	EQ(pwrite(out, "old old", 7, 0), 7);
	EQ(pread(out, got, 7, 0), 7);
	off_t from = 0, to = 0;
	EQ(copy_all(in, &from, out, &to, 5), 5);
	EQ(pread(out, got, 10, 0), 7);
	EQ(memcmp(got, "freshld", 7), 0);
}

CASE(copy_drops_suid_for_a_user, ROOT)
{
	OK(put("in", "content"));
	OK(make("out", 0777));
	OK(chmod("out", 06777));
	AS(ALICE) EQ(copy_file_range((int)OK(open("in", O_RDONLY)), NULL, (int)OK(open("out", O_WRONLY)), NULL, 7, 0), 7);
	EQ(mode_of("out"), 0777);
	CHECK(holds("out", "content"));
}

CASE(copy_to_another_filesystem, ANYONE)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/posix_check_%d", second_dir(), (int)getpid());
	const int in = source(), out = (int)OK(open(path, O_RDWR | O_CREAT | O_EXCL, 0600));
	OK(unlink(path));
	const ssize_t copied = copy_file_range(in, NULL, out, NULL, sizeof(data), 0);
	CHECK(copied > 0 || (copied == -1 && errno == EXDEV));
}

CASE(sendfile_copies, ANYONE)
{
	const int in = source(), out = create_open("out");
	off_t from = 100;
	size_t done = 0;
	while (done < 200000)
		done += (size_t)OK(sendfile(out, in, &from, 200000 - done));
	EQ(from, 200100);
	EQ(pread(out, got, 200000, 0), 200000);
	EQ(memcmp(got, data + 100, 200000), 0);
	FAILS(EBADF, sendfile((int)OK(open("out", O_RDONLY)), in, NULL, 10));
	FAILS(EINVAL, sendfile((int)OK(open("out", O_WRONLY | O_APPEND)), in, NULL, 10));
}

CASE(splice_to_and_from_a_pipe, ANYONE)
{
	const int in = source(), out = create_open("out");
	int ends[2];
	OK(pipe(ends));
	off_t from = 3, to = 5;
	EQ(splice(in, &from, ends[1], NULL, 1000, 0), 1000);
	EQ(splice(ends[0], NULL, out, &to, 1000, 0), 1000);
	EQ(pread(out, got, 2000, 0), 1005);
	EQ(memcmp(got + 5, data + 3, 1000), 0);
}

CASE(readahead_and_fadvise_are_accepted, ANYONE)
{
	const int fd = source();
	OK(readahead(fd, 0, 65536));
	static const int advices[] = {POSIX_FADV_NORMAL, POSIX_FADV_SEQUENTIAL, POSIX_FADV_RANDOM, POSIX_FADV_WILLNEED,
		POSIX_FADV_DONTNEED, POSIX_FADV_NOREUSE};
	for (int i = 0; i < 6; i++)
		EQ(posix_fadvise(fd, 0, 0, advices[i]), 0);
	EQ(posix_fadvise(fd, 0, 0, 99), EINVAL);
	EQ(pread(fd, got, sizeof(got), 0), sizeof(got));
	CHECK(filled(got, sizeof(got), 1));
}

/* ---- durability: that the calls answer, and with what ---- */

CASE(fsync_of_everything_that_has_a_descriptor, ANYONE)
{
	const int fd = create_open("f");
	EQ(write(fd, "x", 1), 1);
	OK(fsync(fd));
	OK(fdatasync(fd));
	const int reader = (int)OK(open("f", O_RDONLY)), dir = (int)OK(open(".", O_RDONLY | O_DIRECTORY));
	OK(fsync(reader));
	OK(fsync(dir));
	OK(fdatasync(dir));
	OK(unlink("f"));
	OK(fsync(fd));
	FAILS(EBADF, fsync(-1));
	FAILS(EBADF, fdatasync(-1));
}

CASE(fsync_of_a_fifo_is_EINVAL, ANYONE)
{
	OK(mkfifo("p", 0644));
	const int fd = (int)OK(open("p", O_RDWR));
	FAILS(EINVAL, fsync(fd));
	FAILS(EINVAL, fdatasync(fd));
}

CASE(sync_file_range_answers, ANYONE)
{
	const int fd = source();
	OK(sync_file_range(fd, 0, 0, SYNC_FILE_RANGE_WRITE));
	OK(sync_file_range(fd, 4096, 4096,
		SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_AFTER));
	FAILS(EINVAL, sync_file_range(fd, 0, 0, 64));
	FAILS(EINVAL, sync_file_range(fd, -1, 0, SYNC_FILE_RANGE_WRITE));
	FAILS(EBADF, sync_file_range(-1, 0, 0, SYNC_FILE_RANGE_WRITE));
	OK(mkfifo("p", 0644));
	FAILS(ESPIPE, sync_file_range((int)OK(open("p", O_RDWR)), 0, 0, SYNC_FILE_RANGE_WRITE));
}

CASE(syncfs_answers, ANYONE)
{
	const int fd = (int)OK(open(".", O_RDONLY));
	(void)syncfs(fd); /* which tells of errors of others, too, once */
	OK(syncfs(fd));
	FAILS(EBADF, syncfs(-1));
}

CASE(open_sync_and_dsync_write, ANYONE)
{
	const int sync = (int)OK(open("f", O_RDWR | O_CREAT | O_SYNC, 0644)), dsync = (int)OK(open("f", O_RDWR | O_DSYNC));
	EQ(write(sync, "abc", 3), 3);
	EQ(pwrite(dsync, "X", 1, 1), 1);
	CHECK(holds("f", "aXc"));
}

CASE(statfs_figures_make_sense, ANYONE)
{
	struct statvfs all, now;
	OK(statvfs(".", &all));
	CHECK(all.f_bsize > 0 && all.f_frsize > 0);
	CHECK(all.f_bfree <= all.f_blocks);
	CHECK(all.f_bavail <= all.f_bfree);
	CHECK(all.f_ffree <= all.f_files);
	EQ(all.f_namemax, 255);
	const int fd = create_open("f");
	OK(fallocate(fd, 0, 0, 4 << 20));
	OK(fstatvfs(fd, &now));
	CHECK(all.f_bfree * all.f_frsize - now.f_bfree * now.f_frsize >= 4 << 20);
	FAILS(ENOENT, statvfs("missing", &now));
	FAILS(ENOTDIR, statvfs("f/x", &now));
	FAILS(EBADF, fstatvfs(-1, &now));
	EQ(pathconf(".", _PC_NAME_MAX), 255);
}
