/* SPDX-License-Identifier: BSD-3-Clause */
/* Locks between processes: fcntl(2) (POSIX and open file description), flock(2), leases. */
#include <signal.h>
#include <sys/file.h>

#include "tests/mounted/posix/posix_check.h"

static int lock(int fd, int command, int type, off_t start, off_t length)
{
	struct flock lock = {.l_type = (short)type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
	return fcntl(fd, command, &lock);
}

CASE(lock_posix_excludes_other_processes, ANYONE)
{
	const int fd = create_open("f");
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 10));
	IN_CHILD {
		const int mine = (int)OK(open("f", O_RDWR));
		FAILS(EAGAIN, lock(mine, F_SETLK, F_WRLCK, 5, 1));
		FAILS(EAGAIN, lock(mine, F_SETLK, F_RDLCK, 0, 0));
		OK(lock(mine, F_SETLK, F_WRLCK, 10, 10));
	}
}

CASE(lock_posix_readers_share, ANYONE)
{
	const int fd = create_open("f");
	OK(lock(fd, F_SETLK, F_RDLCK, 0, 0));
	IN_CHILD {
		const int mine = (int)OK(open("f", O_RDWR));
		OK(lock(mine, F_SETLK, F_RDLCK, 0, 0));
		FAILS(EAGAIN, lock(mine, F_SETLK, F_WRLCK, 0, 0));
	}
}

CASE(lock_posix_getlk_tells_who_and_where, ANYONE)
{
	const int fd = create_open("f");
	const pid_t parent = getpid();
	OK(lock(fd, F_SETLK, F_WRLCK, 10, 5));
	IN_CHILD {
		struct flock found = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
		OK(fcntl((int)OK(open("f", O_RDWR)), F_GETLK, &found));
		EQ(found.l_type, F_WRLCK);
		EQ(found.l_pid, parent);
		EQ(found.l_start, 10);
		EQ(found.l_len, 5);
	}
	struct flock own = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	OK(fcntl(fd, F_GETLK, &own));
	EQ(own.l_type, F_UNLCK);
}

CASE(lock_posix_unlocking_the_middle_splits, ANYONE)
{
	const int fd = create_open("f");
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 100));
	OK(lock(fd, F_SETLK, F_UNLCK, 40, 20));
	IN_CHILD {
		const int mine = (int)OK(open("f", O_RDWR));
		OK(lock(mine, F_SETLK, F_WRLCK, 40, 20));
		FAILS(EAGAIN, lock(mine, F_SETLK, F_WRLCK, 39, 1));
		FAILS(EAGAIN, lock(mine, F_SETLK, F_WRLCK, 60, 1));
	}
}

CASE(lock_posix_goes_with_any_close, ANYONE)
{
	const int fd = create_open("f");
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
	OK(close((int)OK(open("f", O_RDONLY))));
	IN_CHILD OK(lock((int)OK(open("f", O_RDWR)), F_SETLK, F_WRLCK, 0, 0));
}

CASE(lock_posix_is_not_inherited, ANYONE)
{
	const int fd = create_open("f");
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
	IN_CHILD FAILS(EAGAIN, lock(fd, F_SETLK, F_WRLCK, 0, 0));
}

CASE(lock_posix_goes_with_the_process, ANYONE)
{
	const int fd = create_open("f");
	IN_CHILD OK(lock((int)OK(open("f", O_RDWR)), F_SETLK, F_WRLCK, 0, 0));
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
}

static void hold_then_release(void *arg)
{
	const int *pipes = arg;
	const int fd = (int)OK(open("f", O_RDWR));
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
	EQ(write(pipes[1], "x", 1), 1);
	nanosleep(&(struct timespec){0, 100000000}, NULL);
	EQ(pwrite(fd, "done", 4, 0), 4);
	OK(lock(fd, F_SETLK, F_UNLCK, 0, 0));
}

CASE(lock_posix_waits_for_the_holder, ANYONE)
{
	int pipes[2];
	char text[4];
	const int fd = create_open("f");
	OK(pipe(pipes));
	const pid_t pid = spawn(hold_then_release, pipes);
	EQ(read(pipes[0], text, 1), 1);
	OK(lock(fd, F_SETLKW, F_WRLCK, 0, 0));
	EQ(pread(fd, text, 4, 0), 4);
	EQ(memcmp(text, "done", 4), 0);
	EQ(reap(pid), 0);
}

static void interrupted(int number) { (void)number; }

CASE(lock_posix_waiting_is_interrupted_by_a_signal, ANYONE)
{
	const int fd = create_open("f");
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 0));
	IN_CHILD {
		struct sigaction action = {.sa_handler = interrupted};
		OK(sigaction(SIGALRM, &action, NULL));
		ualarm(50000, 50000);
		FAILS(EINTR, lock((int)OK(open("f", O_RDWR)), F_SETLKW, F_WRLCK, 0, 0));
	}
}

static void cross_lock(void *arg)
{
	const int *pipes = arg;
	const int fd = (int)OK(open("f", O_RDWR));
	OK(lock(fd, F_SETLK, F_WRLCK, 10, 1));
	EQ(write(pipes[1], "x", 1), 1);
	(void)lock(fd, F_SETLKW, F_WRLCK, 0, 1);
}

CASE(lock_posix_deadlock_is_EDEADLK, ANYONE)
{
	int pipes[2];
	char byte;
	const int fd = create_open("f");
	OK(pipe(pipes));
	OK(lock(fd, F_SETLK, F_WRLCK, 0, 1));
	const pid_t pid = spawn(cross_lock, pipes);
	EQ(read(pipes[0], &byte, 1), 1);
	nanosleep(&(struct timespec){0, 100000000}, NULL);
	FAILS(EDEADLK, lock(fd, F_SETLKW, F_WRLCK, 10, 1));
	OK(lock(fd, F_SETLK, F_UNLCK, 0, 1));
	EQ(reap(pid), 0);
}

CASE(lock_posix_needs_the_right_mode, ANYONE)
{
	OK(put("f", ""));
	FAILS(EBADF, lock((int)OK(open("f", O_RDONLY)), F_SETLK, F_WRLCK, 0, 0));
	FAILS(EBADF, lock((int)OK(open("f", O_WRONLY)), F_SETLK, F_RDLCK, 0, 0));
	FAILS(EBADF, lock(-1, F_SETLK, F_RDLCK, 0, 0));
}

CASE(lock_posix_invalid, ANYONE)
{
	const int fd = create_open("f");
	FAILS(EINVAL, lock(fd, F_SETLK, F_WRLCK, -1, 1));
	FAILS(EINVAL, lock(fd, F_SETLK, 77, 0, 1));
	FAILS(EINVAL, lock(fd, F_SETLK, F_WRLCK, 5, -10));
	OK(lock(fd, F_SETLK, F_WRLCK, 5, -5));
	FAILS(EFAULT, fcntl(fd, F_SETLK, bad_pointer()));
	FAILS(EOVERFLOW, lock(fd, F_SETLK, F_WRLCK, INT64_MAX, 2));
}

CASE(lock_lockf, ANYONE)
{
	const int fd = create_open("f");
	OK(lockf(fd, F_LOCK, 10));
	OK(lockf(fd, F_TEST, 10));
	IN_CHILD {
		const int mine = (int)OK(open("f", O_RDWR));
		CHECK(lockf(mine, F_TEST, 10) == -1 && (errno == EACCES || errno == EAGAIN));
		CHECK(lockf(mine, F_TLOCK, 10) == -1 && (errno == EACCES || errno == EAGAIN));
	}
	OK(lockf(fd, F_ULOCK, 10));
}

/* ---- open file description locks ---- */

CASE(lock_ofd_excludes_within_a_process, ANYONE)
{
	const int one = create_open("f"), two = (int)OK(open("f", O_RDWR));
	OK(lock(one, F_OFD_SETLK, F_WRLCK, 0, 10));
	FAILS(EAGAIN, lock(two, F_OFD_SETLK, F_WRLCK, 0, 10));
	FAILS(EAGAIN, lock(two, F_SETLK, F_WRLCK, 0, 10));
	OK(lock(two, F_OFD_SETLK, F_WRLCK, 10, 10));
	OK(close(one));
	OK(lock(two, F_OFD_SETLK, F_WRLCK, 0, 10));
}

CASE(lock_ofd_is_inherited, ANYONE)
{
	const int fd = create_open("f");
	OK(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
	IN_CHILD {
		OK(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
		FAILS(EAGAIN, lock((int)OK(open("f", O_RDWR)), F_OFD_SETLK, F_WRLCK, 0, 0));
	}
}

CASE(lock_ofd_survives_other_closes, ANYONE)
{
	const int fd = create_open("f");
	OK(lock(fd, F_OFD_SETLK, F_WRLCK, 0, 0));
	OK(close((int)OK(open("f", O_RDONLY))));
	IN_CHILD FAILS(EAGAIN, lock((int)OK(open("f", O_RDWR)), F_SETLK, F_WRLCK, 0, 0));
}

CASE(lock_ofd_getlk_has_no_pid, ANYONE)
{
	const int one = create_open("f"), two = (int)OK(open("f", O_RDWR));
	OK(lock(one, F_OFD_SETLK, F_WRLCK, 0, 10));
	struct flock found = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	OK(fcntl(two, F_OFD_GETLK, &found));
	EQ(found.l_type, F_WRLCK);
	EQ(found.l_pid, -1);
}

/* ---- flock ---- */

CASE(flock_excludes_other_openings, ANYONE)
{
	const int one = create_open("f"), two = (int)OK(open("f", O_RDONLY));
	OK(flock(one, LOCK_EX));
	FAILS(EWOULDBLOCK, flock(two, LOCK_EX | LOCK_NB));
	FAILS(EWOULDBLOCK, flock(two, LOCK_SH | LOCK_NB));
	OK(flock(one, LOCK_SH));
	OK(flock(two, LOCK_SH | LOCK_NB));
	FAILS(EWOULDBLOCK, flock(two, LOCK_EX | LOCK_NB));
	OK(flock(one, LOCK_UN));
	OK(flock(two, LOCK_EX | LOCK_NB));
}

CASE(flock_is_shared_by_dup_and_fork, ANYONE)
{
	const int fd = create_open("f"), copy = (int)OK(dup(fd));
	OK(flock(fd, LOCK_EX));
	OK(flock(copy, LOCK_EX | LOCK_NB));
	IN_CHILD {
		OK(flock(fd, LOCK_EX | LOCK_NB));
		FAILS(EWOULDBLOCK, flock((int)OK(open("f", O_RDONLY)), LOCK_EX | LOCK_NB));
	}
	FAILS(EWOULDBLOCK, flock((int)OK(open("f", O_RDONLY)), LOCK_EX | LOCK_NB));
}

CASE(flock_goes_with_the_last_close, ANYONE)
{
	const int fd = create_open("f"), copy = (int)OK(dup(fd)), other = (int)OK(open("f", O_RDONLY));
	OK(flock(fd, LOCK_EX));
	OK(close(fd));
	FAILS(EWOULDBLOCK, flock(other, LOCK_EX | LOCK_NB));
	OK(close(copy));
	OK(flock(other, LOCK_EX | LOCK_NB));
}

CASE(flock_and_posix_locks_do_not_meet, ANYONE)
{
	const int one = create_open("f");
	OK(flock(one, LOCK_EX));
	IN_CHILD OK(lock((int)OK(open("f", O_RDWR)), F_SETLK, F_WRLCK, 0, 0));
}

CASE(flock_of_directories_and_fifos, ANYONE)
{
	OK(mkfifo("p", 0644));
	OK(flock((int)OK(open(".", O_RDONLY)), LOCK_EX | LOCK_NB));
	OK(flock((int)OK(open("p", O_RDWR)), LOCK_EX | LOCK_NB));
	FAILS(EWOULDBLOCK, flock((int)OK(open(".", O_RDONLY)), LOCK_EX | LOCK_NB));
}

CASE(flock_invalid, ANYONE)
{
	const int fd = create_open("f");
	FAILS(EINVAL, flock(fd, 0));
	FAILS(EBADF, flock(-1, LOCK_EX));
	FAILS(EBADF, flock((int)OK(open("f", O_PATH)), LOCK_EX));
}

CASE(lock_survives_rename_and_unlink, ANYONE)
{
	const int fd = create_open("f");
	OK(flock(fd, LOCK_EX));
	const int other = (int)OK(open("f", O_RDWR));
	OK(rename("f", "g"));
	FAILS(EWOULDBLOCK, flock(other, LOCK_EX | LOCK_NB));
	OK(unlink("g"));
	FAILS(EWOULDBLOCK, flock(other, LOCK_EX | LOCK_NB));
}

CASE(lease_can_be_taken_and_given_back, ANYONE)
{
	OK(put("f", ""));
	const int fd = (int)OK(open("f", O_RDONLY));
	OK(fcntl(fd, F_SETLEASE, F_RDLCK));
	EQ(fcntl(fd, F_GETLEASE), F_RDLCK);
	OK(fcntl(fd, F_SETLEASE, F_UNLCK));
}
