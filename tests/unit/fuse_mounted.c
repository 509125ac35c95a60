/* SPDX-License-Identifier: BSD-3-Clause */
/* Mounting the FUSE front end over a filesystem in memory: see the header. */
#include "tests/unit/fuse_mounted.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cmocka.h>

static void on_ended(struct fuse_front *front, void *arg)
{
	struct fuse_mounted *self = arg;
	__atomic_fetch_add(&self->ended, 1, __ATOMIC_SEQ_CST);
}

static int start_in_fiber(void *arg)
{
	return fuse_front_start(arg);
}

static int stop_in_fiber(void *arg)
{
	fuse_front_stop(arg);
	return 0;
}

static int prepare(struct fuse_mounted *self, unsigned reactors, const struct fuse_front_options *options)
{
	*self = (struct fuse_mounted){.options = *options, .directory_fd = -1};
	self->fuse_fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (self->fuse_fd < 0 || reactor_group_create(&(struct reactor_options){.count = reactors}, &self->group) ||
		reactor_group_start(self->group))
		return -1;
	self->fs = memfs_create(self->group);
	self->options.fd = self->fuse_fd;
	self->options.ended = on_ended;
	self->options.arg = self;
	return fuse_front_create(self->fs, self->group, &self->options, &self->front);
}

static struct reactor *reactor_0(struct fuse_mounted *self)
{
	return reactor_group_get(self->group, 0);
}

int fuse_mounted_start(struct fuse_mounted *self, unsigned reactors, const struct fuse_front_options *options)
{
	char data[128];
	if (prepare(self, reactors, options))
		return -1;
	snprintf(self->path, sizeof(self->path), "/tmp/lanefs-fuse-test-XXXXXX");
	if (!mkdtemp(self->path))
		return -1;
	snprintf(data, sizeof(data), "fd=%d,rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
		self->fuse_fd);
	if (mount("memfs", self->path, "fuse", 0, data)) {
		perror("mount");
		return -1;
	}
	if (reactor_group_run(reactor_0(self), start_in_fiber, self->front))
		return -1;
	self->directory_fd = open(self->path, O_RDONLY | O_DIRECTORY);
	return self->directory_fd < 0 ? -1 : 0;
}

static void finish(struct fuse_mounted *self)
{
	(void)reactor_group_run(reactor_0(self), stop_in_fiber, self->front);
	fuse_front_destroy(self->front);
	reactor_group_stop(self->group);
	reactor_group_destroy(self->group);
	memfs_destroy(self->fs);
	close(self->fuse_fd);
}

void fuse_mounted_stop(struct fuse_mounted *self)
{
	if (self->directory_fd >= 0)
		close(self->directory_fd);
	if (umount2(self->path, 0))
		(void)umount2(self->path, MNT_DETACH | MNT_FORCE);
	for (unsigned i = 0; i < 5000 && __atomic_load_n(&self->ended, __ATOMIC_SEQ_CST) == 0; i++)
		usleep(1000);
	(void)rmdir(self->path);
	finish(self);
}

int fuse_mounted_start_unmounted(struct fuse_mounted *self)
{
	if (prepare(self, 2, &(struct fuse_front_options){.init_timeout_ms = 300}))
		return 0;
	int error = reactor_group_run(reactor_0(self), start_in_fiber, self->front);
	finish(self);
	return error;
}

/* ---- for the test programs ---- */

struct fuse_mounted mounted;

int at(void)
{
	return mounted.directory_fd;
}

int make_file(const char *name, const void *bytes, size_t size)
{
	int fd = openat(at(), name, O_RDWR | O_CREAT | O_EXCL, 0644);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, size), size);
	return fd;
}

struct stat stat_of(const char *name)
{
	struct stat st;
	assert_int_equal(fstatat(at(), name, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st;
}

uint64_t count_of(unsigned opcode)
{
	static struct fuse_front_op_stats stats;
	assert_true(fuse_front_stats_read(mounted.front, opcode, &stats));
	return stats.count;
}

void fill_pattern(char *bytes, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (char)((i * 2654435761u + seed) >> 8);
}

void test_nothing_went_wrong_on_the_way(void **state)
{
	static struct fuse_front_status status;
	fuse_front_get_status(mounted.front, &status);
	assert_int_equal(status.malformed, 0);
	assert_int_equal(status.refused_answers, 0);
	assert_int_equal(memfs_get_calls(mounted.fs).on_wrong_reactor, 0);
	static const char *names[FUSE_FRONT_FEATURES_MAX];
	assert_true(fuse_front_features(mounted.front, names) > 5);
	assert_int_equal(status.ring_entries > 0, mounted.options.io_uring);
	/* ENOSYS is asked for once. */
	assert_true(count_of(27) <= 1); /* OPENDIR */
	assert_true(count_of(25) <= 1); /* FLUSH */
	if (mounted.options.noopen)
		assert_true(count_of(14) <= 1);
}

/* ---- io_uring is off by default: the test switches it on and back ---- */

static int enable_fd = -1; /* locked: programs that switch it take turns */
static char enable_before;

static void enable_write(char value)
{
	if (pwrite(enable_fd, &value, 1, 0) != 1)
		perror("enable_uring");
}

static void enable_restore(void)
{
	enable_write(enable_before);
	close(enable_fd);
}

bool mounted_enable_io_uring(void)
{
	if (enable_fd >= 0)
		return true;
	enable_fd = open("/sys/module/fuse/parameters/enable_uring", O_RDWR | O_CLOEXEC);
	if (enable_fd < 0 || flock(enable_fd, LOCK_EX) || pread(enable_fd, &enable_before, 1, 0) != 1) {
		fprintf(stderr, "this kernel has no FUSE over io_uring: not tested\n");
		return false;
	}
	atexit(enable_restore);
	enable_write('Y');
	return true;
}

static const struct configuration {
	const char *name;
	unsigned reactors;
	struct fuse_front_options options;
} configurations[] = {
	{"one reactor", 1, {0}},
	{"two reactors", 2, {0}},
	{"four reactors", 4, {0}},
	{"noopen", 2, {.noopen = true}},
	{"writeback", 2, {.writeback = true}},
	{"one request at a time", 2, {.requests_max = 1}},
	{"io_uring, one reactor", 1, {.io_uring = true}},
	{"io_uring, two reactors", 2, {.io_uring = true}},
	{"io_uring, more reactors than CPUs, noopen", 5, {.io_uring = true, .noopen = true}},
};
static const struct configuration *configuration;

static int setup(void **state)
{
	return fuse_mounted_start(&mounted, configuration->reactors, &configuration->options);
}

static int teardown(void **state)
{
	fuse_mounted_stop(&mounted);
	return mounted.ended == 1 ? 0 : -1;
}

int mounted_run(const struct CMUnitTest *tests, size_t count, bool rings)
{
	if (geteuid() != 0 || access("/dev/fuse", R_OK | W_OK)) {
		fprintf(stderr, "needs root and /dev/fuse: skipped\n");
		return MOUNTED_SKIPPED;
	}
	int failed = 0;
	for (size_t i = 0; i < ARRAY_SIZE(configurations); i++) {
		configuration = &configurations[i];
		if (configuration->options.io_uring && !(rings && mounted_enable_io_uring()))
			continue;
		failed += _cmocka_run_group_tests(configuration->name, tests, count, setup, teardown);
	}
	return failed;
}
