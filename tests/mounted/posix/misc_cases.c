/* SPDX-License-Identifier: BSD-3-Clause */
/* What fits nowhere else: several processes at one file, permissions on the way, memory of removed files. */
#include <signal.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <poll.h>

#include "tests/mounted/posix/posix_check.h"

CASE(dup_shares_the_offset_open_does_not, ANYONE)
{
	const int fd = create_open("f"), copy = (int)OK(dup(fd)), other = (int)OK(open("f", O_RDWR));
	EQ(write(fd, "abc", 3), 3);
	EQ(lseek(copy, 0, SEEK_CUR), 3);
	EQ(lseek(other, 0, SEEK_CUR), 0);
	EQ(write(copy, "def", 3), 3);
	EQ(write(other, "X", 1), 1);
	CHECK(holds("f", "Xbcdef"));
}

CASE(fork_shares_the_offset, ANYONE)
{
	const int fd = create_open("f");
	IN_CHILD EQ(write(fd, "child", 5), 5);
	EQ(write(fd, "parent", 6), 6);
	CHECK(holds("f", "childparent"));
}

CASE(close_on_exec_flag, ANYONE)
{
	EQ(fcntl((int)OK(open("f", O_CREAT | O_RDWR | O_CLOEXEC, 0644)), F_GETFD), FD_CLOEXEC);
	EQ(fcntl((int)OK(open("f", O_RDWR)), F_GETFD), 0);
	EQ(fcntl((int)OK(open("f", O_RDWR | O_APPEND)), F_GETFL) & (O_ACCMODE | O_APPEND), O_RDWR | O_APPEND);
}

CASE(too_many_open_files_is_EMFILE, ANYONE)
{
	OK(put("f", ""));
	OK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){20, 20}));
	int last;
	while ((last = open("f", O_RDONLY)) >= 0) {
	}
	EQ(errno, EMFILE);
	FAILS(EMFILE, open("new", O_CREAT | O_RDWR, 0644));
	CHECK(!exists("new"));
}

CASE(size_limit_sends_SIGXFSZ, ANYONE)
{
	const int fd = create_open("f");
	IN_CHILD {
		fflush(stdout);
		const pid_t pid = (pid_t)OK(fork());
		if (pid == 0) {
			signal(SIGXFSZ, SIG_DFL);
			setrlimit(RLIMIT_FSIZE, &(struct rlimit){100, 100});
			(void)!pwrite(fd, "x", 1, 100);
			_exit(0);
		}
		int status;
		EQ(waitpid(pid, &status, 0), pid);
		CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGXFSZ);
	}
	EQ(size_of("f"), 0);
}

CASE(poll_of_a_file_is_always_ready, ANYONE)
{
	struct pollfd one = {.fd = create_open("f"), .events = POLLIN | POLLOUT};
	EQ(poll(&one, 1, 0), 1);
	EQ(one.revents, POLLIN | POLLOUT);
}

CASE(inotify_sees_changes, ANYONE)
{
	const int notify = (int)OK(inotify_init1(IN_NONBLOCK));
	OK(inotify_add_watch(notify, ".", IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY));
	OK(put("f", "x"));
	OK(rename("f", "g"));
	OK(unlink("g"));
	char events[4096];
	const long length = OK(read(notify, events, sizeof(events)));
	uint32_t seen = 0;
	for (long at = 0; at < length;) {
		const struct inotify_event *event = (const struct inotify_event *)(events + at);
		seen |= event->mask;
		at += (long)sizeof(*event) + event->len;
	}
	EQ(seen & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY),
		IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY);
}

CASE(permission_on_every_directory_of_the_path, ROOT)
{
	OK(make_dir("a", 0755));
	OK(make_dir("a/b", 0755));
	OK(make_dir("a/b/c", 0755));
	OK(make("a/b/c/f", 0644));
	static const char *const parts[] = {"a", "a/b", "a/b/c"};
	for (int i = 0; i < 3; i++) {
		AS(ALICE) OK(open("a/b/c/f", O_RDONLY));
		OK(chmod(parts[i], 0744));
		AS(ALICE) FAILS(EACCES, open("a/b/c/f", O_RDONLY));
		AS(ALICE) FAILS(EACCES, access("a/b/c/missing", F_OK));
		OK(chmod(parts[i], 0711));
		AS(ALICE) OK(open("a/b/c/f", O_RDONLY));
		OK(chmod(parts[i], 0755));
	}
}

CASE(permission_changes_work_at_once, ROOT)
{
	OK(make("f", 0644));
	for (int i = 0; i < 20; i++) {
		AS(ALICE) OK(open("f", O_RDONLY));
		OK(chmod("f", 0600));
		AS(ALICE) FAILS(EACCES, open("f", O_RDONLY));
		OK(chmod("f", 0644));
	}
}

CASE(write_only_directory_can_be_used_but_not_listed, USER)
{
	OK(make_dir("d", 0300));
	OK(put("d/f", "x"));
	CHECK(holds("d/f", "x"));
	FAILS(EACCES, open("d", O_RDONLY));
	OK(unlink("d/f"));
	OK(chmod("d", 0755));
}

CASE(read_only_directory_can_be_listed_but_not_used, USER)
{
	OK(mkdir("d", 0755));
	OK(put("d/f", "x"));
	OK(chmod("d", 0444));
	DIR *dir = opendir("d");
	CHECK(dir != NULL);
	bool found = false;
	for (const struct dirent *entry; (entry = readdir(dir));)
		found |= strcmp(entry->d_name, "f") == 0;
	CHECK(found);
	FAILS(EACCES, open("d/f", O_RDONLY));
	OK(chmod("d", 0755));
}

CASE(setgid_file_made_outside_of_the_group_loses_the_bit, ROOT)
{
	OK(chown(".", 0, BOB.gid));
	OK(chmod(".", 02777));
	AS(ALICE) OK(close((int)OK(open("f", O_CREAT | O_RDWR, 02775))));
	EQ(stat_of("f").st_gid, BOB.gid);
	EQ(mode_of("f") & S_ISGID, 0);
	AS(BOB) OK(close((int)OK(open("g", O_CREAT | O_RDWR, 02775))));
	EQ(mode_of("g") & S_ISGID, S_ISGID);
}

CASE(protected_hardlinks_do_not_harm_owners, USER)
{
	OK(make("f", 0));
	OK(link("f", "g"));
}

CASE(negative_lookups_end_when_the_name_is_made, ANYONE)
{
	for (int i = 0; i < 20; i++) {
		CHECK(!exists("f"));
		IN_CHILD OK(put("f", "x"));
		CHECK(exists("f"));
		IN_CHILD OK(unlink("f"));
	}
}

CASE(many_files_created_and_removed, ANYONE)
{
	char name[32];
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 200; i++) {
			snprintf(name, sizeof(name), "f%d", i);
			OK(put(name, name));
		}
		for (int i = 0; i < 200; i++) {
			snprintf(name, sizeof(name), "f%d", i);
			CHECK(holds(name, name));
			OK(unlink(name));
		}
	}
}

static void create_own(void *arg)
{
	char name[32];
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "%s-%d", (const char *)arg, i);
		OK(put(name, name));
		if (i % 3 == 0)
			OK(unlink(name));
	}
}

CASE(several_processes_create_in_one_directory, ANYONE)
{
	static const char *const names[] = {"a", "b", "c", "d"};
	pid_t pids[4];
	for (int i = 0; i < 4; i++)
		pids[i] = spawn(create_own, (void *)names[i]);
	for (int i = 0; i < 4; i++)
		EQ(reap(pids[i]), 0);
	int count = 0;
	DIR *dir = opendir(".");
	CHECK(dir != NULL);
	for (const struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.';
	EQ(count, 4 * 66);
}

static void exclusive_create(void *arg)
{
	for (int i = 0; i < 100; i++) {
		char name[16];
		snprintf(name, sizeof(name), "n%d", i);
		const int fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0644);
		CHECK(fd >= 0 || errno == EEXIST);
		if (fd >= 0)
			EQ(write(*(const int *)arg, "x", 1), 1);
	}
}

CASE(several_processes_create_exclusively_one_wins, ANYONE)
{
	int pipes[2];
	pid_t pids[4];
	char won[512];
	OK(pipe(pipes));
	for (int i = 0; i < 4; i++)
		pids[i] = spawn(exclusive_create, &pipes[1]);
	for (int i = 0; i < 4; i++)
		EQ(reap(pids[i]), 0);
	EQ(read(pipes[0], won, sizeof(won)), 100);
}

CASE(statfs_is_the_same_everywhere, ANYONE)
{
	struct statfs a, b;
	OK(mkdir("d", 0755));
	OK(statfs(".", &a));
	OK(statfs("d", &b));
	EQ(a.f_type, b.f_type);
	EQ(memcmp(&a.f_fsid, &b.f_fsid, sizeof(a.f_fsid)), 0);
	EQ(a.f_namelen, 255);
	FAILS(EFAULT, statfs(".", bad_pointer()));
	FAILS(ENOENT, statfs("missing", &a));
	FAILS(EBADF, fstatfs(-1, &a));
}
