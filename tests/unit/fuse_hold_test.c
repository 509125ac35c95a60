/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: while the device is held nobody is unkillable: an interrupted request that has changed nothing is answered EINTR
 * at once, changes nothing afterwards either, and is answered only once; what has begun to change something is not;
 * everything else goes on when the hold ends. Method: the front end over a filesystem in memory that parks its
 * operations on demand, mounted for real; child processes that wait in system calls and get signals. With one and
 * several reactors, with the options, and with hardly any request objects. Needs root and /dev/fuse.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/happens_before.h"
#include "tests/unit/fuse_mounted.h"

enum { PATIENCE_MS = 5000, KILLED = 1000 };

/* ---- the hold ---- */

static MAY_WAIT int hold_run(void *arg)
{
	fuse_front_set_held(mounted.front, *(bool *)arg);
	return 0;
}

static void hold(bool held)
{
	assert_int_equal(reactor_group_run(reactor_group_get(mounted.group, 0), hold_run, &held), 0);
}

static struct fuse_front_status status_now(void)
{
	struct fuse_front_status status;
	fuse_front_get_status(mounted.front, &status);
	return status;
}

static void await_parked(unsigned count)
{
	for (unsigned i = 0; i < PATIENCE_MS && memfs_parked(mounted.fs) != count; i++)
		usleep(1000);
	assert_int_equal(memfs_parked(mounted.fs), count);
}

static void await_waiting(unsigned count)
{
	for (unsigned i = 0; i < PATIENCE_MS && status_now().waiting != count; i++)
		usleep(1000);
	assert_int_equal(status_now().waiting, count);
}

/* ---- children that wait ---- */

enum { CHILDREN_MAX = 512 };
static pid_t children[CHILDREN_MAX];
static unsigned child_count;
static atomic_uint progress;

static void on_signal(int number)
{
}

/* The exit status of a child is the errno of what it did, or 0. */
static pid_t child_start(int (*fn)(const char *name), const char *name)
{
	assert_true(child_count < CHILDREN_MAX);
	pid_t pid = fork();
	if (pid) {
		progress++;
		return children[child_count++] = pid;
	}
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = on_signal}, NULL);
	_exit(fn(name) < 0 ? errno : 0);
}

/* Its exit status; KILLED: by SIGKILL; -1: it still runs. */
static int child_end(pid_t pid, unsigned patience_ms)
{
	int status;
	for (unsigned i = 0; i <= patience_ms; i++) {
		pid_t ended = waitpid(pid, &status, WNOHANG);
		assert_true(ended >= 0);
		progress += ended == pid;
		if (ended == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : KILLED;
		usleep(1000);
	}
	return -1;
}

static int do_create(const char *name) { return openat(at(), name, O_RDWR | O_CREAT | O_EXCL, 0600); }
static int do_unlink(const char *name) { return unlinkat(at(), name, 0); }

static int do_look(const char *name)
{
	struct stat st;
	return fstatat(at(), name, &st, 0);
}

static char page[4096] __attribute__((aligned(4096)));
static int file; /* of the parent, for children that read and write */

static int do_read(const char *name) { return (int)pread(file, page, sizeof(page), 0); }

static int do_write(const char *name)
{
	memset(page, 'w', sizeof(page));
	return (int)pwrite(file, page, sizeof(page), 0);
}

static bool exists(const char *name)
{
	struct stat st;
	return fstatat(at(), name, &st, 0) == 0;
}

static void open_file(const char *name)
{
	close(make_file(name, "old", 3));
	file = openat(at(), name, O_RDWR | O_DIRECT);
	assert_true(file >= 0);
}

/* Under noopen there is no FOPEN_DIRECT_IO: the kernel sends direct I/O in the background, where it is not interrupted. */
static bool direct_io_is_interrupted(void) { return !mounted.options.noopen; }

/* ---- interrupted ---- */

static void test_a_parked_read_is_interrupted_at_once(void **state)
{
	open_file("read");
	if (!direct_io_is_interrupted()) {
		close(file); /* and the kernel learns, once, that there is no FLUSH */
		skip();
	}
	memfs_park(mounted.fs, MEMFS_PARK_LOOKS);
	hold(true);
	pid_t pid = child_start(do_read, NULL);
	await_parked(1);
	kill(pid, SIGUSR1);
	assert_int_equal(child_end(pid, PATIENCE_MS), EINTR);
	assert_int_equal(memfs_parked(mounted.fs), 1); /* it still has its buffer */
	memfs_park(mounted.fs, 0);
	hold(false);
	await_parked(0);
	close(file);
}

static void test_a_parked_lookup_gives_its_count_back(void **state)
{
	uint64_t ino;
	close(make_file("looked.up", "", 0));
	ino = stat_of("looked.up").st_ino;
	assert_int_equal(renameat(at(), "looked.up", at(), "looked.up.2"), 0);
	assert_int_equal(linkat(at(), "looked.up.2", at(), "looked.up.3", 0), 0);
	assert_int_equal(unlinkat(at(), "looked.up.3", 0), 0);
	uint64_t before = memfs_lookups(mounted.fs, ino);
	memfs_park(mounted.fs, MEMFS_PARK_LOOKS);
	hold(true);
	pid_t pid = child_start(do_look, "looked.up.3");
	pid_t other = child_start(do_look, "looked.up.4");
	await_parked(2);
	kill(pid, SIGKILL);
	kill(other, SIGUSR1);
	assert_int_equal(child_end(pid, PATIENCE_MS) == KILLED, true);
	assert_int_equal(child_end(other, PATIENCE_MS), EINTR);
	memfs_park(mounted.fs, 0);
	hold(false);
	await_parked(0);
	assert_int_equal(memfs_lookups(mounted.fs, ino), before);
}

static void test_a_change_that_has_not_begun_never_does(void **state)
{
	memfs_park(mounted.fs, MEMFS_PARK_CHANGES);
	pid_t pid = child_start(do_create, "begun");
	await_parked(1);
	hold(true);
	assert_int_equal(child_end(pid, 50), -1);
	kill(pid, SIGUSR1);
	assert_int_equal(child_end(pid, PATIENCE_MS), EINTR);
	memfs_park(mounted.fs, 0);
	hold(false);
	await_parked(0);
	assert_false(exists("begun"));
}

static void test_an_interrupt_from_before_the_hold_counts(void **state)
{
	uint64_t interrupts = status_now().interrupts;
	memfs_park(mounted.fs, MEMFS_PARK_CHANGES);
	pid_t pid = child_start(do_create, "early");
	await_parked(1);
	kill(pid, SIGUSR1);
	assert_int_equal(child_end(pid, 50), -1);
	/* With one request object nobody has read the INTERRUPT yet. */
	for (unsigned i = 0; mounted.options.requests_max != 1 && i < PATIENCE_MS; i++) {
		if (status_now().interrupts > interrupts)
			break;
		usleep(1000);
	}
	hold(true);
	assert_int_equal(child_end(pid, PATIENCE_MS), EINTR);
	memfs_park(mounted.fs, 0);
	hold(false);
	await_parked(0);
	assert_false(exists("early"));
}

static void test_a_change_that_has_begun_is_not_interrupted(void **state)
{
	memfs_park(mounted.fs, MEMFS_PARK_CLAIMED);
	pid_t pid = child_start(do_create, "claimed");
	await_parked(1);
	hold(true);
	kill(pid, SIGUSR1);
	assert_int_equal(child_end(pid, 100), -1);
	memfs_park(mounted.fs, 0);
	hold(false);
	assert_int_equal(child_end(pid, PATIENCE_MS), 0);
	assert_true(exists("claimed"));
}

/* ---- at the door ---- */

static void test_changes_wait_at_the_door_and_go_on(void **state)
{
	open_file("door");
	/* Two of one directory would wait for each other in the kernel. */
	assert_int_equal(mkdirat(at(), "doors", 0700), 0);
	close(make_file("doors/gone", "", 0));
	hold(true);
	pid_t pids[] = {child_start(do_create, "door.new"), child_start(do_unlink, "doors/gone"),
		child_start(do_write, NULL)};
	for (unsigned i = 0; i < ARRAY_SIZE(pids); i++)
		assert_int_equal(child_end(pids[i], 50), -1);
	assert_int_equal(status_now().waiting, 3);
	assert_true(status_now().held);
	hold(false);
	for (unsigned i = 0; i < ARRAY_SIZE(pids); i++)
		assert_int_equal(child_end(pids[i], PATIENCE_MS), 0);
	assert_true(exists("door.new"));
	assert_false(exists("doors/gone"));
	assert_int_equal(pread(file, page, sizeof(page), 0), sizeof(page));
	assert_int_equal(page[0], 'w');
	close(file);
}

static void test_who_waits_at_the_door_can_be_killed(void **state)
{
	hold(true);
	pid_t pid = child_start(do_create, "door.killed");
	await_waiting(1);
	kill(pid, SIGKILL);
	assert_int_equal(child_end(pid, PATIENCE_MS), KILLED);
	await_waiting(0);
	hold(false);
	assert_false(exists("door.killed"));
}

static void test_what_memory_knows_is_answered(void **state)
{
	close(make_file("known", "", 0));
	hold(true);
	assert_false(exists("unknown"));
	struct stat st = stat_of("known");
	assert_int_equal(st.st_size, 0);
	hold(false);
}

static void test_a_crowd_can_be_killed(void **state)
{
	/* ThreadSanitizer's memory makes a fork take many milliseconds. */
	enum { CROWD = BUILT_FOR_THREAD_SANITIZER ? 30 : 300 };
	static pid_t pids[CROWD];
	char name[32];
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "crowd.%u", i);
		assert_int_equal(mkdirat(at(), name, 0700), 0);
	}
	hold(true);
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "crowd.%u/file", i);
		pids[i] = child_start(do_create, name);
	}
	await_waiting(CROWD);
	for (unsigned i = 0; i < CROWD; i += 2)
		kill(pids[i], SIGKILL);
	for (unsigned i = 0; i < CROWD; i += 2)
		assert_int_equal(child_end(pids[i], PATIENCE_MS), KILLED);
	hold(false);
	for (unsigned i = 1; i < CROWD; i += 2)
		assert_int_equal(child_end(pids[i], PATIENCE_MS), 0);
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "crowd.%u/file", i);
		assert_int_equal(exists(name), i % 2);
	}
}

/* Large writes use up the payload slabs before the request objects. */
static int do_large_write(const char *name)
{
	enum { BYTES = 1 << 20 };
	int fd = openat(at(), name, O_WRONLY | O_DIRECT);
	void *bytes = aligned_alloc(4096, BYTES);
	memset(bytes, name[6], BYTES);
	return fd < 0 ? -1 : (int)pwrite(fd, bytes, BYTES, 0);
}

static void test_large_writes_wait_whole(void **state)
{
	enum { CROWD = 24 };
	pid_t pids[CROWD];
	char name[32];
	static char byte;
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "large.%c", 'a' + (int)i);
		close(make_file(name, "", 0));
	}
	hold(true);
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "large.%c", 'a' + (int)i);
		pids[i] = child_start(do_large_write, name);
	}
	await_waiting(CROWD);
	unsigned killed = direct_io_is_interrupted();
	if (killed) {
		kill(pids[0], SIGKILL);
		assert_int_equal(child_end(pids[0], PATIENCE_MS), KILLED);
	}
	hold(false);
	for (unsigned i = killed; i < CROWD; i++)
		assert_int_equal(child_end(pids[i], PATIENCE_MS), 0);
	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(name, sizeof(name), "large.%c", 'a' + (int)i);
		int fd = openat(at(), name, O_RDONLY);
		assert_int_equal(pread(fd, &byte, 1, (1 << 20) - 1), i >= killed);
		if (i >= killed)
			assert_int_equal(byte, name[6]);
		close(fd);
	}
}

static void test_nothing_is_left_of_the_holds(void **state)
{
	for (unsigned i = 0; i < PATIENCE_MS && status_now().running; i++)
		usleep(1000);
	struct fuse_front_status status = status_now();
	assert_int_equal(status.running, 0);
	assert_int_equal(status.waiting, 0);
	assert_true(status.interrupted > 5);
}

/* ---- whatever happened ---- */

static int release_all(void **state)
{
	memfs_park(mounted.fs, 0);
	hold(false);
	/* One by one: ThreadSanitizer's symbolizer is a child, too, and never ends. What child_end saw end is none any more. */
	for (unsigned i = 0; i < child_count; i++) {
		if (waitpid(children[i], NULL, WNOHANG) != 0)
			continue;
		kill(children[i], SIGKILL);
		(void)waitpid(children[i], NULL, 0);
	}
	child_count = 0;
	return 0;
}

/* A test that waits for itself can be ended by nobody else: it holds the other end of its mount. */
static void *watch(void *arg)
{
	for (unsigned last = progress, seconds = 0; seconds < 30; seconds++) {
		sleep(1);
		if (last != progress)
			seconds = 0;
		last = progress;
	}
	fprintf(stderr, "no progress: the mount is cut off\n");
	(void)umount2(mounted.path, MNT_FORCE);
	abort();
}

#define HOLD_TEST(test) cmocka_unit_test_teardown(test, release_all)

int main(void)
{
	pthread_t watcher;
	if (pthread_create(&watcher, NULL, watch, NULL))
		return 1;
	static const struct CMUnitTest tests[] = {
		HOLD_TEST(test_a_parked_read_is_interrupted_at_once),
		HOLD_TEST(test_a_parked_lookup_gives_its_count_back),
		HOLD_TEST(test_a_change_that_has_not_begun_never_does),
		HOLD_TEST(test_an_interrupt_from_before_the_hold_counts),
		HOLD_TEST(test_a_change_that_has_begun_is_not_interrupted),
		HOLD_TEST(test_changes_wait_at_the_door_and_go_on),
		HOLD_TEST(test_who_waits_at_the_door_can_be_killed),
		HOLD_TEST(test_what_memory_knows_is_answered),
		HOLD_TEST(test_a_crowd_can_be_killed),
		HOLD_TEST(test_large_writes_wait_whole),
		cmocka_unit_test(test_nothing_is_left_of_the_holds),
		cmocka_unit_test(test_nothing_went_wrong_on_the_way),
	};
	return mounted_run(tests, ARRAY_SIZE(tests), false);
}
