/* SPDX-License-Identifier: BSD-3-Clause */
/* open(2), creat(2): what the flags do, and what is refused. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/mounted/posix/posix_check.h"

CASE(open_creat_makes_an_empty_file, ANYONE)
{
	const int fd = (int)OK(open("f", O_CREAT | O_RDWR, 0640));
	const struct stat st = fstat_of(fd);
	CHECK(S_ISREG(st.st_mode));
	EQ(st.st_mode & 07777, 0640);
	EQ(st.st_size, 0);
	EQ(st.st_blocks, 0);
	EQ(st.st_nlink, 1);
	EQ(st.st_uid, geteuid());
}

CASE(open_creat_keeps_an_existing_file, ANYONE)
{
	OK(put("f", "content"));
	OK(chmod("f", 0600));
	OK(open("f", O_CREAT | O_RDWR, 0777));
	CHECK(holds("f", "content"));
	EQ(mode_of("f"), 0600);
}

CASE(open_creat_call_truncates, ANYONE)
{
	OK(put("f", "content"));
	const int fd = (int)OK(creat("f", 0600));
	EQ(size_of("f"), 0);
	EQ(mode_of("f"), 0644);
	char byte;
	FAILS(EBADF, read(fd, &byte, 1));
}

CASE(open_creat_mode_without_read_is_still_open, USER)
{
	const int fd = (int)OK(open("f", O_CREAT | O_RDWR, 0));
	EQ(mode_of("f"), 0);
	EQ(write(fd, "abc", 3), 3);
	char byte;
	EQ(pread(fd, &byte, 1, 1), 1);
	EQ(byte, 'b');
	FAILS(EACCES, open("f", O_RDONLY));
}

CASE(open_creat_keeps_suid_sgid_sticky, ANYONE)
{
	OK(close((int)OK(open("f", O_CREAT | O_WRONLY, 07755))));
	EQ(mode_of("f"), 07755);
}

CASE(open_creat_needs_no_write_permission_of_an_existing_file, USER)
{
	OK(make("f", 0444));
	OK(open("f", O_CREAT | O_RDONLY, 0644));
}

CASE(open_excl_existing_is_EEXIST, ANYONE)
{
	OK(put("f", "x"));
	OK(mkdir("d", 0755));
	OK(mkfifo("p", 0644));
	FAILS(EEXIST, open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
	FAILS(EEXIST, open("f", O_CREAT | O_EXCL | O_TRUNC | O_RDWR, 0644));
	FAILS(EEXIST, open("d", O_CREAT | O_EXCL | O_RDWR, 0644));
	FAILS(EEXIST, open("p", O_CREAT | O_EXCL | O_RDWR, 0644));
	CHECK(holds("f", "x"));
}

CASE(open_excl_symlink_is_EEXIST, ANYONE)
{
	OK(symlink("nowhere", "dangling"));
	OK(put("f", ""));
	OK(symlink("f", "link"));
	FAILS(EEXIST, open("dangling", O_CREAT | O_EXCL | O_RDWR, 0644));
	FAILS(EEXIST, open("link", O_CREAT | O_EXCL | O_RDWR, 0644));
	CHECK(!exists("nowhere"));
}

CASE(open_excl_makes_a_missing_file, ANYONE)
{
	OK(open("f", O_CREAT | O_EXCL | O_RDWR, 0644));
	CHECK(exists("f"));
}

CASE(open_creat_follows_a_dangling_symlink, ANYONE)
{
	OK(symlink("target", "link"));
	OK(open("link", O_CREAT | O_RDWR, 0644));
	CHECK(S_ISREG(stat_of("target").st_mode));
	CHECK(S_ISLNK(stat_of("link").st_mode));
}

CASE(open_missing_is_ENOENT, ANYONE)
{
	FAILS(ENOENT, open("f", O_RDONLY));
	FAILS(ENOENT, open("d/f", O_CREAT | O_RDWR, 0644));
	FAILS(ENOENT, open("", O_RDONLY));
	FAILS(ENOENT, open("", O_CREAT | O_RDWR, 0644));
	OK(symlink("nowhere", "dangling"));
	FAILS(ENOENT, open("dangling", O_RDONLY));
	FAILS(ENOENT, open("dangling/f", O_CREAT | O_RDWR, 0644));
}

CASE(open_below_a_file_is_ENOTDIR, ANYONE)
{
	OK(put("f", ""));
	FAILS(ENOTDIR, open("f/x", O_RDONLY));
	FAILS(ENOTDIR, open("f/x", O_CREAT | O_RDWR, 0644));
	FAILS(ENOTDIR, open("f/", O_RDONLY));
	FAILS(ENOTDIR, open("f/.", O_RDONLY));
}

CASE(open_trailing_slash_does_not_create, ANYONE)
{
	FAILS(EISDIR, open("f/", O_CREAT | O_RDWR, 0644));
	CHECK(!exists("f"));
}

CASE(open_directory_for_writing_is_EISDIR, ANYONE)
{
	OK(mkdir("d", 0755));
	FAILS(EISDIR, open("d", O_WRONLY));
	FAILS(EISDIR, open("d", O_RDWR));
	FAILS(EISDIR, open("d", O_RDONLY | O_TRUNC));
	FAILS(EISDIR, open("d", O_CREAT | O_RDONLY, 0644));
	FAILS(EISDIR, open(".", O_RDWR));
}

CASE(open_directory_flag_wants_a_directory, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(symlink("d", "link"));
	FAILS(ENOTDIR, open("f", O_RDONLY | O_DIRECTORY));
	OK(open("d", O_RDONLY | O_DIRECTORY));
	OK(open("link", O_RDONLY | O_DIRECTORY));
	FAILS(EISDIR, open("d", O_RDWR | O_DIRECTORY));
	FAILS(EINVAL, open("new", O_RDWR | O_DIRECTORY | O_CREAT, 0644));
	CHECK(!exists("new"));
}

CASE(open_read_of_a_directory_is_EISDIR, ANYONE)
{
	const int fd = (int)OK(open(".", O_RDONLY));
	char buffer[64];
	FAILS(EISDIR, read(fd, buffer, sizeof(buffer)));
	FAILS(EISDIR, pread(fd, buffer, sizeof(buffer), 0));
	FAILS(EBADF, write(fd, buffer, 1));
}

CASE(open_nofollow_symlink_is_ELOOP, ANYONE)
{
	OK(put("f", ""));
	OK(mkdir("d", 0755));
	OK(symlink("f", "link"));
	OK(symlink("d", "dlink"));
	FAILS(ELOOP, open("link", O_RDONLY | O_NOFOLLOW));
	FAILS(ELOOP, open("link", O_RDWR | O_CREAT | O_NOFOLLOW, 0644));
	FAILS(ENOTDIR, open("dlink", O_RDONLY | O_NOFOLLOW | O_DIRECTORY));
	OK(open("f", O_RDONLY | O_NOFOLLOW));
	OK(put("d/inside", ""));
	OK(open("dlink/inside", O_RDONLY | O_NOFOLLOW));
}

CASE(open_symlink_loop_is_ELOOP, ANYONE)
{
	OK(symlink("a", "b"));
	OK(symlink("b", "a"));
	OK(symlink("self", "self"));
	FAILS(ELOOP, open("a", O_RDONLY));
	FAILS(ELOOP, open("a", O_CREAT | O_RDWR, 0644));
	FAILS(ELOOP, open("self/x", O_RDONLY));
}

CASE(open_forty_symlinks_are_followed_not_more, ANYONE)
{
	char name[16], before[16] = "f";
	OK(put("f", "x"));
	for (int i = 1; i <= 41; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		OK(symlink(before, name));
		strcpy(before, name);
	}
	OK(open("s40", O_RDONLY));
	FAILS(ELOOP, open("s41", O_RDONLY));
}

CASE(open_trunc_empties_a_file, ANYONE)
{
	OK(put("f", "content"));
	OK(open("f", O_WRONLY | O_TRUNC));
	EQ(size_of("f"), 0);
	EQ(stat_of("f").st_blocks, 0);
}

CASE(open_trunc_of_a_large_file_frees_its_blocks, ANYONE)
{
	const int fd = create_open("f");
	char *data = page_buffer(1 << 20);
	fill(data, 1 << 20, 1);
	EQ(write(fd, data, 1 << 20), 1 << 20);
	OK(fsync(fd));
	CHECK(fstat_of(fd).st_blocks >= 2048);
	OK(open("f", O_RDWR | O_TRUNC));
	EQ(fstat_of(fd).st_size, 0);
	EQ(fstat_of(fd).st_blocks, 0);
	EQ(pread(fd, data, 100, 0), 0);
}

CASE(open_trunc_readonly_truncates_on_linux, ANYONE)
{
	OK(put("f", "content"));
	OK(open("f", O_RDONLY | O_TRUNC));
	EQ(size_of("f"), 0);
}

CASE(open_trunc_without_write_permission_is_EACCES, USER)
{
	OK(put("f", "content"));
	OK(chmod("f", 0444));
	FAILS(EACCES, open("f", O_RDONLY | O_TRUNC));
	FAILS(EACCES, open("f", O_WRONLY | O_TRUNC));
	CHECK(holds("f", "content"));
}

CASE(open_trunc_does_nothing_to_fifos, ANYONE)
{
	OK(mkfifo("p", 0644));
	OK(open("p", O_RDWR | O_TRUNC));
	CHECK(S_ISFIFO(stat_of("p").st_mode));
}

CASE(open_append_writes_at_the_end, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_WRONLY | O_APPEND));
	OK(lseek(fd, 0, SEEK_SET));
	EQ(write(fd, "de", 2), 2);
	EQ(lseek(fd, 0, SEEK_CUR), 5);
	CHECK(holds("f", "abcde"));
	OK(put("f", "x"));
	EQ(write(fd, "yz", 2), 2);
	CHECK(holds("f", "xyz"));
}

CASE(open_append_can_be_set_and_cleared_by_fcntl, ANYONE)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_WRONLY));
	OK(fcntl(fd, F_SETFL, O_APPEND));
	EQ(write(fd, "d", 1), 1);
	CHECK(holds("f", "abcd"));
	OK(fcntl(fd, F_SETFL, 0));
	EQ(pwrite(fd, "X", 1, 0), 1);
	CHECK(holds("f", "Xbcd"));
}

CASE(open_fifo_for_writing_without_reader_is_ENXIO, ANYONE)
{
	OK(mkfifo("p", 0644));
	FAILS(ENXIO, open("p", O_WRONLY | O_NONBLOCK));
	OK(open("p", O_RDONLY | O_NONBLOCK));
	OK(open("p", O_WRONLY | O_NONBLOCK));
}

CASE(open_fifo_carries_bytes, ANYONE)
{
	OK(mkfifo("p", 0644));
	const int in = (int)OK(open("p", O_RDONLY | O_NONBLOCK)), out = (int)OK(open("p", O_WRONLY));
	EQ(write(out, "hello", 5), 5);
	char buffer[8] = "";
	EQ(read(in, buffer, sizeof(buffer)), 5);
	EQ(strcmp(buffer, "hello"), 0);
	EQ(size_of("p"), 0);
}

CASE(open_socket_is_ENXIO, ANYONE)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "s"};
	OK(bind((int)OK(socket(AF_UNIX, SOCK_STREAM, 0)), (struct sockaddr *)&address, sizeof(address)));
	FAILS(ENXIO, open("s", O_RDONLY));
	FAILS(ENXIO, open("s", O_WRONLY));
}

CASE(open_device_without_driver_is_ENXIO, ROOT)
{
	OK(mknod("c", S_IFCHR | 0666, (dev_t)0xfff << 8 | 7));
	OK(mknod("b", S_IFBLK | 0666, (dev_t)0xfff << 8 | 7));
	FAILS(ENXIO, open("c", O_RDONLY));
	FAILS(ENXIO, open("b", O_RDONLY));
}

CASE(open_device_null_works, ROOT)
{
	OK(mknod("null", S_IFCHR | 0666, 1 << 8 | 3));
	const int fd = (int)OK(open("null", O_RDWR));
	char byte;
	EQ(write(fd, "gone", 4), 4);
	EQ(read(fd, &byte, 1), 0);
}

CASE(open_noatime_of_somebody_elses_file_is_EPERM, ROOT)
{
	OK(make("f", 0666));
	OK(open("f", O_RDONLY | O_NOATIME));
	AS(ALICE) FAILS(EPERM, open("f", O_RDONLY | O_NOATIME));
}

CASE(open_noatime_of_an_own_file, USER)
{
	OK(put("f", "x"));
	OK(open("f", O_RDONLY | O_NOATIME));
}

CASE(open_without_permission_is_EACCES, USER)
{
	OK(make("none", 0));
	OK(make("read", 0400));
	OK(make("write", 0200));
	FAILS(EACCES, open("none", O_RDONLY));
	FAILS(EACCES, open("none", O_WRONLY));
	FAILS(EACCES, open("read", O_WRONLY));
	FAILS(EACCES, open("read", O_RDWR));
	FAILS(EACCES, open("write", O_RDONLY));
	FAILS(EACCES, open("write", O_RDWR));
	OK(open("read", O_RDONLY));
	OK(open("write", O_WRONLY));
}

CASE(open_root_needs_no_permission, ROOT)
{
	OK(make("none", 0));
	OK(open("none", O_RDWR));
	OK(chown("none", ALICE.uid, ALICE.gid));
	OK(open("none", O_RDWR));
}

CASE(open_creat_in_a_directory_without_write_is_EACCES, USER)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	OK(chmod("d", 0555));
	FAILS(EACCES, open("d/new", O_CREAT | O_RDWR, 0644));
	OK(open("d/f", O_CREAT | O_RDWR, 0644));
	FAILS(EACCES, open("d", O_TMPFILE | O_RDWR, 0644));
	OK(chmod("d", 0755));
}

CASE(open_in_a_directory_without_search_is_EACCES, USER)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", ""));
	OK(chmod("d", 0644));
	FAILS(EACCES, open("d/f", O_RDONLY));
	FAILS(EACCES, open("d/missing", O_RDONLY));
	FAILS(EACCES, open("d/.", O_RDONLY));
	OK(open("d", O_RDONLY));
	OK(chmod("d", 0755));
}

CASE(open_classes_of_permission_do_not_add_up, ROOT)
{
	OK(make("f", 0077));
	OK(chown("f", ALICE.uid, ALICE.gid));
	AS(ALICE) FAILS(EACCES, open("f", O_RDONLY));
	AS(CAROL) OK(open("f", O_RDWR));
	AS(BOB) OK(open("f", O_RDWR));
	OK(chmod("f", 0707));
	AS(CAROL) FAILS(EACCES, open("f", O_RDONLY));
	OK(chmod("f", 0640));
	AS(CAROL) OK(open("f", O_RDONLY));
	AS(CAROL) FAILS(EACCES, open("f", O_RDWR));
	AS(BOB) FAILS(EACCES, open("f", O_RDONLY));
}

CASE(open_file_survives_loss_of_permission, USER)
{
	OK(put("f", "abc"));
	const int fd = (int)OK(open("f", O_RDWR));
	OK(fchmod(fd, 0));
	EQ(pwrite(fd, "X", 1, 1), 1);
	char buffer[3];
	EQ(pread(fd, buffer, 3, 0), 3);
	EQ(memcmp(buffer, "aXc", 3), 0);
}

CASE(open_running_program_for_writing_is_ETXTBSY, ANYONE)
{
	OK(put("program", "#"));
	const int in = (int)OK(open("/bin/sleep", O_RDONLY)), out = (int)OK(open("program", O_WRONLY));
	char *data = malloc(1 << 20);
	for (long length; (length = OK(read(in, data, 1 << 20))) > 0;)
		EQ(write(out, data, (size_t)length), length);
	OK(close(out));
	OK(chmod("program", 0755));
	int ready[2];
	OK(pipe2(ready, O_CLOEXEC));
	const pid_t pid = (pid_t)OK(fork());
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execl("./program", "sleep", "30", NULL);
		_exit(1);
	}
	OK(close(ready[1]));
	char byte;
	EQ(read(ready[0], &byte, 1), 0); /* closed by execve */
	FAILS(ETXTBSY, open("program", O_WRONLY));
	FAILS(ETXTBSY, truncate("program", 0));
	FAILS(ETXTBSY, open("program", O_RDONLY | O_TRUNC));
	OK(unlink("program"));
	OK(kill(pid, 9));
	EQ(waitpid(pid, NULL, 0), pid);
}

CASE(open_program_open_for_writing_does_not_run, ANYONE)
{
	OK(put("program", "#!/bin/true\n"));
	OK(chmod("program", 0755));
	const int fd = (int)OK(open("program", O_RDWR));
	FAILS(ETXTBSY, execl("./program", "program", NULL));
	OK(close(fd));
	IN_CHILD OK(execl("./program", "program", NULL));
}

CASE(open_invalid_flags_and_pointers, ANYONE)
{
	FAILS(EFAULT, open(bad_pointer(), O_RDONLY));
	OK(put("f", ""));
	const int fd = (int)OK(open("f", O_RDONLY));
	FAILS(ENOTDIR, openat(fd, "x", O_RDONLY));
	FAILS(EBADF, openat(-7, "f", O_RDONLY));
	FAILS(EBADF, openat(999, "f", O_RDONLY));
}

CASE(openat_is_relative_to_its_directory, ANYONE)
{
	OK(mkdir("d", 0755));
	const int dir = (int)OK(open("d", O_RDONLY | O_DIRECTORY));
	OK(openat(dir, "f", O_CREAT | O_RDWR, 0644));
	CHECK(exists("d/f"));
	OK(openat(dir, "../g", O_CREAT | O_RDWR, 0644));
	CHECK(exists("g"));
}

CASE(openat_in_a_removed_directory_is_ENOENT, ANYONE)
{
	OK(mkdir("d", 0755));
	const int dir = (int)OK(open("d", O_RDONLY | O_DIRECTORY));
	OK(rmdir("d"));
	FAILS(ENOENT, openat(dir, "f", O_CREAT | O_RDWR, 0644));
	FAILS(ENOENT, mkdirat(dir, "x", 0755));
	FAILS(ENOENT, symlinkat("y", dir, "x"));
	EQ(fstat_of(dir).st_nlink, 0);
}
