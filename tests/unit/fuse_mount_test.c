/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the FUSE front end against a real kernel: every operation arrives decoded, is answered in the form the kernel
 * wants, on the right reactor, with payloads in place; caching never shows what is no longer true; unmounting, aborting
 * and want of request objects end well. Method: the front end over a filesystem in memory, mounted for real, spoken to
 * with system calls; the same tests with one and two reactors, with the options, and with hardly any request objects.
 * Needs root and /dev/fuse, otherwise it is skipped.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/statvfs.h>

#include "tests/unit/fuse_mounted.h"

/* ---- names ---- */

static void test_files_appear_in_their_directory(void **state)
{
	assert_int_equal(mkdirat(at(), "listed", 0755), 0);
	for (unsigned i = 0; i < 300; i++) {
		char name[32];
		snprintf(name, sizeof(name), "listed/file%u", i);
		close(make_file(name, "x", 1));
	}
	DIR *directory = fdopendir(openat(at(), "listed", O_RDONLY));
	assert_non_null(directory);
	unsigned seen = 0, dots = 0;
	for (struct dirent *entry; (entry = readdir(directory));) {
		dots += entry->d_name[0] == '.';
		seen += strncmp(entry->d_name, "file", 4) == 0 && entry->d_type == DT_REG;
	}
	closedir(directory);
	assert_int_equal(seen, 300);
	assert_int_equal(dots, 2);
	assert_int_equal(stat_of("listed").st_nlink, 2);
}

static void test_what_is_missing_is_remembered(void **state)
{
	struct stat st;
	assert_int_equal(fstatat(at(), "missing", &st, 0), -1);
	assert_int_equal(errno, ENOENT);
	uint64_t lookups = count_of(1);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(fstatat(at(), "missing", &st, 0), -1);
	assert_int_equal(count_of(1), lookups);
	close(make_file("missing", "", 0));
	assert_int_equal(stat_of("missing").st_size, 0);
}

static void test_rename_over_exchange_and_noreplace(void **state)
{
	close(make_file("rename.a", "aaa", 3));
	close(make_file("rename.b", "b", 1));
	assert_int_equal(renameat2(at(), "rename.a", at(), "rename.b", RENAME_NOREPLACE), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(renameat2(at(), "rename.a", at(), "rename.b", RENAME_EXCHANGE), 0);
	assert_int_equal(stat_of("rename.b").st_size, 3);
	assert_int_equal(renameat(at(), "rename.a", at(), "rename.b"), 0);
	assert_int_equal(stat_of("rename.b").st_size, 1);
	struct stat st;
	assert_int_equal(fstatat(at(), "rename.a", &st, 0), -1);
}

static void test_hard_links_share_their_attributes(void **state)
{
	int fd = make_file("link.a", "a", 1);
	assert_int_equal(linkat(at(), "link.a", at(), "link.b", 0), 0);
	assert_int_equal(stat_of("link.a").st_nlink, 2);
	assert_int_equal(stat_of("link.a").st_ino, stat_of("link.b").st_ino);
	assert_int_equal(fchmod(fd, 0600), 0);
	assert_int_equal(stat_of("link.b").st_mode & 07777, 0600);
	assert_int_equal(unlinkat(at(), "link.a", 0), 0);
	assert_int_equal(stat_of("link.b").st_nlink, 1);
	assert_int_equal(unlinkat(at(), "link.b", 0), 0);
	struct stat st;
	assert_int_equal(fstat(fd, &st), 0);
	assert_int_equal(st.st_nlink, 0);
	close(fd);
}

static void test_symlinks_and_device_nodes(void **state)
{
	static char target[4096], back[4096];
	memset(target, 't', sizeof(target) - 1);
	assert_int_equal(symlinkat(target, at(), "symlink.long"), 0);
	assert_int_equal(readlinkat(at(), "symlink.long", back, sizeof(back)), sizeof(target) - 1);
	assert_memory_equal(back, target, sizeof(target) - 1);
	assert_int_equal(mknodat(at(), "node", S_IFCHR | 0600, 0x12345), 0);
	assert_int_equal(stat_of("node").st_rdev, 0x12345);
	assert_int_equal(mkfifoat(at(), "fifo", 0600), 0);
	assert_true(S_ISFIFO(stat_of("fifo").st_mode));
}

static void test_long_names(void **state)
{
	char name[300];
	memset(name, 'n', sizeof(name));
	name[255] = 0;
	close(make_file(name, "", 0));
	assert_int_equal(unlinkat(at(), name, 0), 0);
	name[255] = 'n';
	name[256] = 0;
	assert_int_equal(openat(at(), name, O_CREAT | O_RDWR, 0600), -1);
	assert_int_equal(errno, ENAMETOOLONG);
}

static void test_a_temporary_file_gets_a_name(void **state)
{
	int fd = openat(at(), ".", O_TMPFILE | O_RDWR, 0600);
	if (fd < 0 && errno == EOPNOTSUPP)
		skip(); /* before Linux 6.2 */
	assert_true(fd >= 0);
	char self[64];
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	assert_int_equal(linkat(AT_FDCWD, self, at(), "tmpfile", AT_SYMLINK_FOLLOW), 0);
	assert_int_equal(stat_of("tmpfile").st_nlink, 1);
	close(fd);
}

static void test_files_open_by_handle(void **state)
{
	static struct {
		struct file_handle handle;
		unsigned char bytes[MAX_HANDLE_SZ];
	} h;
	close(make_file("handle", "by handle", 9));
	h.handle.handle_bytes = MAX_HANDLE_SZ;
	int mount_id;
	assert_int_equal(name_to_handle_at(at(), "handle", &h.handle, &mount_id, 0), 0);
	int fd = open_by_handle_at(at(), &h.handle, O_RDONLY);
	assert_true(fd >= 0);
	char back[16];
	assert_int_equal(read(fd, back, sizeof(back)), 9);
	close(fd);
}

/* ---- attributes ---- */

static void test_times_modes_and_owners(void **state)
{
	int fd = make_file("attributes", "1234", 4);
	struct timespec times[2] = {{1000000000, 123456789}, {-1, 5}};
	assert_int_equal(futimens(fd, times), 0);
	assert_int_equal(fchown(fd, 12, 34), 0);
	assert_int_equal(fchmod(fd, 0640), 0);
	assert_int_equal(ftruncate(fd, 100), 0);
	struct stat st = stat_of("attributes");
	assert_int_equal(st.st_uid, 12);
	assert_int_equal(st.st_gid, 34);
	assert_int_equal(st.st_mode, S_IFREG | 0640);
	assert_int_equal(st.st_size, 100);
	assert_int_equal(futimens(fd, times), 0);
	st = stat_of("attributes");
	assert_int_equal(st.st_atim.tv_nsec, 123456789);
	assert_int_equal(st.st_mtim.tv_sec, -1);
	assert_int_equal(st.st_mtim.tv_nsec, 5);
	close(fd);
}

static void test_statx_tells_the_birth_time(void **state)
{
	close(make_file("born", "", 0));
	struct statx stx;
	assert_int_equal(statx(at(), "born", 0, STATX_BASIC_STATS | STATX_BTIME, &stx), 0);
	if (!(stx.stx_mask & STATX_BTIME))
		skip(); /* before Linux 6.6 */
	assert_true(stx.stx_btime.tv_sec > 1600000000);
}

static void test_stat_costs_no_request_twice(void **state)
{
	close(make_file("cached", "", 0));
	(void)stat_of("cached");
	uint64_t before = count_of(1) + count_of(3);
	for (unsigned i = 0; i < 10; i++)
		(void)stat_of("cached");
	assert_int_equal(count_of(1) + count_of(3), before);
}

static void test_extended_attributes(void **state)
{
	static char value[60000], back[65536];
	int fd = make_file("xattr", "", 0);
	memset(value, 'v', sizeof(value));
	assert_int_equal(fsetxattr(fd, "user.big", value, sizeof(value), XATTR_CREATE), 0);
	assert_int_equal(fsetxattr(fd, "user.big", value, 1, XATTR_CREATE), -1);
	assert_int_equal(errno, EEXIST);
	assert_int_equal(fgetxattr(fd, "user.big", NULL, 0), sizeof(value));
	assert_int_equal(fgetxattr(fd, "user.big", back, 100), -1);
	assert_int_equal(errno, ERANGE);
	assert_int_equal(fgetxattr(fd, "user.big", back, sizeof(back)), sizeof(value));
	assert_memory_equal(back, value, sizeof(value));
	assert_int_equal(flistxattr(fd, back, sizeof(back)), 9);
	assert_int_equal(fremovexattr(fd, "user.big"), 0);
	assert_int_equal(fgetxattr(fd, "user.big", NULL, 0), -1);
	assert_int_equal(errno, ENODATA);
	close(fd);
}

static void test_file_flags_and_their_ctime(void **state)
{
	int fd = make_file("flags", "", 0);
	struct stat before = stat_of("flags");
	usleep(2000);
	unsigned flags = FS_NODUMP_FL;
	assert_int_equal(ioctl(fd, FS_IOC_SETFLAGS, &flags), 0);
	struct stat after = stat_of("flags");
	if (!mounted.options.writeback) /* the kernel then owns the ctime of files and keeps its own */
		assert_true(after.st_ctim.tv_nsec != before.st_ctim.tv_nsec);
	flags = 0;
	assert_int_equal(ioctl(fd, FS_IOC_GETFLAGS, &flags), 0);
	assert_int_equal(flags, FS_NODUMP_FL);
	struct fsxattr xattr;
	assert_int_equal(ioctl(fd, FS_IOC_FSGETXATTR, &xattr), 0);
	assert_int_equal(xattr.fsx_xflags, FS_XFLAG_NODUMP);
	xattr.fsx_xflags = FS_XFLAG_NOATIME;
	assert_int_equal(ioctl(fd, FS_IOC_FSSETXATTR, &xattr), 0);
	assert_int_equal(ioctl(fd, FS_IOC_GETFLAGS, &flags), 0);
	assert_int_equal(flags, FS_NOATIME_FL);
	assert_int_equal(ioctl(fd, _IOR('?', 1, int), &flags), -1);
	assert_int_equal(errno, ENOTTY);
	close(fd);
	assert_int_equal(ioctl(at(), FS_IOC_GETFLAGS, &flags), 0);
}

static void test_trim_and_shutdown(void **state)
{
	struct fstrim_range range = {.len = UINT64_MAX};
	assert_int_equal(ioctl(at(), FITRIM, &range), 0);
	assert_int_equal(range.len, 4096);
	uint32_t how = 2;
	assert_int_equal(ioctl(at(), _IOR('X', 125, uint32_t), &how), 0);
	assert_true(memfs_get_calls(mounted.fs).shutdowns > 0);
}

static void test_statfs(void **state)
{
	struct statvfs totals;
	assert_int_equal(fstatvfs(at(), &totals), 0);
	assert_int_equal(totals.f_bsize, 4096);
	assert_int_equal(totals.f_blocks, 1000);
	assert_int_equal(totals.f_bfree, 500);
	assert_int_equal(totals.f_bavail, 400);
	assert_int_equal(totals.f_namemax, 255);
}

/* ---- the machine ---- */

static int hammer(unsigned client)
{
	static char page[65536] __attribute__((aligned(4096))), back[65536] __attribute__((aligned(4096)));
	char name[32];
	snprintf(name, sizeof(name), "hammer.%u", client);
	int fd = openat(at(), name, O_RDWR | O_CREAT | (client % 2 ? O_DIRECT : 0), 0600);
	if (fd < 0)
		return 1;
	for (unsigned i = 0; i < 200; i++) {
		size_t size = i % 3 ? 4096 : sizeof(page);
		fill_pattern(page, size, client * 1000 + i);
		off_t offset = (i % 7) * (off_t)sizeof(page);
		if (pwrite(fd, page, size, offset) != (ssize_t)size || pread(fd, back, size, offset) != (ssize_t)size ||
			memcmp(page, back, size))
			return 2;
	}
	return unlinkat(at(), name, 0) || close(fd) ? 3 : 0;
}

static void test_many_clients_at_once(void **state)
{
	pid_t children[12];
	for (unsigned i = 0; i < ARRAY_SIZE(children); i++) {
		children[i] = fork();
		if (children[i] == 0)
			_exit(hammer(i));
	}
	for (unsigned i = 0; i < ARRAY_SIZE(children); i++) {
		int status;
		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
	}
	struct fuse_front_status status;
	fuse_front_get_status(mounted.front, &status);
	if (mounted.options.requests_max == 1)
		assert_true(status.pauses > 0);
}

static void test_forgetting_brings_lookup_counts_home(void **state)
{
	close(make_file("forgotten", "", 0));
	uint64_t ino = stat_of("forgotten").st_ino;
	assert_true(memfs_lookups(mounted.fs, ino) > 0);
	assert_int_equal(unlinkat(at(), "forgotten", 0), 0);
	for (unsigned i = 0; i < 2000 && memfs_lookups(mounted.fs, ino) > 0; i++)
		usleep(1000);
	assert_int_equal(memfs_lookups(mounted.fs, ino), 0);
}

static void on_alarm(int signal)
{
}

static void test_an_interrupt_arrives(void **state)
{
	int fd = make_file("interrupted", "data", 4);
	close(fd);
	fd = openat(at(), "interrupted", O_RDONLY | O_DIRECT);
	static char page[4096] __attribute__((aligned(4096)));
	assert_int_equal(sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm}, NULL), 0);
	memfs_delay_reads(mounted.fs, 1, 200 * NS_PER_MS);
	assert_int_equal(setitimer(ITIMER_REAL, &(struct itimerval){.it_value = {0, 50000}}, NULL), 0);
	assert_true(read(fd, page, sizeof(page)) >= 0);
	close(fd);
	struct fuse_front_status status;
	fuse_front_get_status(mounted.front, &status);
	/* With one request object the delayed read has it; with noopen O_DIRECT reads cannot be interrupted. */
	if (mounted.options.requests_max != 1 && !mounted.options.noopen)
		assert_true(status.interrupts > 0);
}

static void test_errors_come_back(void **state)
{
	close(make_file("failing", "x", 1));
	memfs_fail(mounted.fs, -EIO);
	assert_int_equal(openat(at(), "failing.not", O_RDONLY), -1);
	assert_int_equal(errno, EIO);
	/* An error that the kernel does not know must not hang anybody. */
	memfs_fail(mounted.fs, -4000);
	assert_int_equal(mkdirat(at(), "failing.dir", 0700), -1);
	assert_int_equal(errno, EIO);
	memfs_fail(mounted.fs, 0);
}

/* ---- ends ---- */

static void test_an_unmount_in_use_fails_and_leaves_it_whole(void **state)
{
	assert_int_equal(umount2(mounted.path, 0), -1);
	assert_int_equal(errno, EBUSY);
	close(make_file("still.here", "", 0));
}

static void abort_in_the_middle(const struct fuse_front_options *options)
{
	static struct fuse_mounted other;
	assert_int_equal(fuse_mounted_start(&other, 2, options), 0);
	memfs_delay_reads(other.fs, 1, 300 * NS_PER_MS);
	pid_t child = fork();
	if (child == 0) {
		static char page[4096] __attribute__((aligned(4096)));
		int fd = openat(other.directory_fd, "file", O_RDWR | O_CREAT | O_DIRECT, 0600);
		_exit(fd >= 0 && write(fd, page, 4096) == 4096 && pread(fd, page, 4096, 0) < 0 ? 0 : 1);
	}
	usleep(100000);
	close(other.directory_fd);
	other.directory_fd = -1;
	assert_int_equal(umount2(other.path, MNT_FORCE | MNT_DETACH), 0);
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	fuse_mounted_stop(&other);
	assert_int_equal(other.ended, 1);
}

static void test_abort_in_the_middle_ends_every_request(void **state)
{
	abort_in_the_middle(&(struct fuse_front_options){0});
}

static void test_abort_with_io_uring_ends_every_request(void **state)
{
	if (!mounted_enable_io_uring())
		skip();
	abort_in_the_middle(&(struct fuse_front_options){.io_uring = true});
}

static void log_nothing(enum log_level level, const char *line, void *arg)
{
}

static void test_a_start_without_a_mount_fails(void **state)
{
	static struct fuse_mounted other;
	log_set_sink(log_nothing, NULL);
	assert_int_equal(fuse_mounted_start_unmounted(&other), -EPERM);
	log_set_sink(NULL, NULL);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files_appear_in_their_directory),
		cmocka_unit_test(test_what_is_missing_is_remembered),
		cmocka_unit_test(test_rename_over_exchange_and_noreplace),
		cmocka_unit_test(test_hard_links_share_their_attributes),
		cmocka_unit_test(test_symlinks_and_device_nodes),
		cmocka_unit_test(test_long_names),
		cmocka_unit_test(test_a_temporary_file_gets_a_name),
		cmocka_unit_test(test_files_open_by_handle),
		cmocka_unit_test(test_times_modes_and_owners),
		cmocka_unit_test(test_statx_tells_the_birth_time),
		cmocka_unit_test(test_stat_costs_no_request_twice),
		cmocka_unit_test(test_extended_attributes),
		cmocka_unit_test(test_file_flags_and_their_ctime),
		cmocka_unit_test(test_trim_and_shutdown),
		cmocka_unit_test(test_statfs),
		cmocka_unit_test(test_many_clients_at_once),
		cmocka_unit_test(test_forgetting_brings_lookup_counts_home),
		cmocka_unit_test(test_an_interrupt_arrives),
		cmocka_unit_test(test_errors_come_back),
		cmocka_unit_test(test_an_unmount_in_use_fails_and_leaves_it_whole),
		cmocka_unit_test(test_nothing_went_wrong_on_the_way),
	};
	static const struct CMUnitTest ends[] = {
		cmocka_unit_test(test_abort_in_the_middle_ends_every_request),
		cmocka_unit_test(test_abort_with_io_uring_ends_every_request),
		cmocka_unit_test(test_a_start_without_a_mount_fails),
	};
	int failed = mounted_run(tests, ARRAY_SIZE(tests), true);
	if (failed == MOUNTED_SKIPPED)
		return failed;
	return failed + cmocka_run_group_tests_name("ends", ends, NULL, NULL);
}
