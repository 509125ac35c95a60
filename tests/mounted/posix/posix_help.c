/* SPDX-License-Identifier: BSD-3-Clause */
/* Checks and helpers of the cases. */
#include <grp.h>
#include <signal.h>
#include <sys/prctl.h>

#include "tests/mounted/posix/posix_check.h"

const struct who ALICE = {31001, 31001, 0}, BOB = {31002, 31002, 0}, CAROL = {31003, 31003, 31001};

/* ---- checks ---- */

static _Noreturn void fail(const char *file, int line)
{
	const char *name = strrchr(file, '/');
	printf("#   at %s:%d, uid %u\n", name ? name + 1 : file, line, geteuid());
	fflush(stdout);
	_exit(1);
}

long check_ok(long result, const char *text, const char *file, int line)
{
	if (result != -1)
		return result;
	printf("# %s failed: %s\n", text, strerrorname_np(errno));
	fail(file, line);
}

void check_fails(int wanted, const char *name, long result, int error, const char *text, const char *file, int line)
{
	if (result == -1 && error == wanted)
		return;
	if (result == -1)
		printf("# %s failed with %s, wanted %s\n", text, error ? strerrorname_np(error) : "no errno", name);
	else
		printf("# %s gave %ld, wanted %s\n", text, result, name);
	fail(file, line);
}

void check_equal(long long got, long long wanted, const char *text, const char *file, int line)
{
	if (got == wanted)
		return;
	printf("# %s: got %lld (0%llo), wanted %lld (0%llo)\n", text, got, got, wanted, wanted);
	fail(file, line);
}

void check_true(bool holds_true, const char *text, const char *file, int line)
{
	if (holds_true)
		return;
	printf("# not true: %s\n", text);
	fail(file, line);
}

void skip(const char *why)
{
	printf("# skipped: %s\n", why);
	fflush(stdout);
	_exit(77);
}

/* ---- other people, other processes ---- */

void become(struct who who)
{
	OK(setgroups(who.group ? 1 : 0, &who.group));
	OK(setresgid(who.gid, who.gid, who.gid));
	OK(setresuid(who.uid, who.uid, who.uid));
}

bool child_begin(const struct who *who)
{
	fflush(stdout);
	const pid_t pid = (pid_t)OK(fork());
	if (pid == 0) {
		if (who)
			become(*who);
		return true;
	}
	const int status = reap(pid);
	if (status)
		_exit(status);
	return false;
}

void child_end(void)
{
	fflush(stdout);
	_exit(0);
}

pid_t spawn(void (*run)(void *arg), void *arg)
{
	fflush(stdout);
	const pid_t pid = (pid_t)OK(fork());
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL); /* a case that fails leaves nobody behind */
		run(arg);
		child_end();
	}
	return pid;
}

int reap(pid_t pid)
{
	int status = 0;
	EQ(waitpid(pid, &status, 0), pid);
	if (WIFSIGNALED(status))
		printf("# a child ended by signal %d\n", WTERMSIG(status));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

/* ---- files ---- */

int make(const char *path, mode_t mode)
{
	const int fd = (int)OK(open(path, O_WRONLY | O_CREAT | O_EXCL, 0600));
	OK(fchmod(fd, mode));
	return close(fd);
}

int put(const char *path, const char *text)
{
	const int fd = (int)OK(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
	EQ(write(fd, text, strlen(text)), strlen(text));
	return close(fd);
}

int make_dir(const char *path, mode_t mode)
{
	OK(mkdir(path, 0700));
	OK(chmod(path, mode));
	return 0;
}

int create_open(const char *path) { return (int)OK(open(path, O_RDWR | O_CREAT, 0644)); }

struct stat stat_of(const char *path)
{
	struct stat st;
	OK(lstat(path, &st));
	return st;
}

struct stat fstat_of(int fd)
{
	struct stat st;
	OK(fstat(fd, &st));
	return st;
}

mode_t mode_of(const char *path) { return stat_of(path).st_mode & 07777; }
off_t size_of(const char *path) { return stat_of(path).st_size; }
unsigned links_of(const char *path) { return (unsigned)stat_of(path).st_nlink; }

bool exists(const char *path)
{
	struct stat st;
	return lstat(path, &st) == 0;
}

bool holds(const char *path, const char *text)
{
	static char buffer[1 << 16];
	const int fd = (int)OK(open(path, O_RDONLY));
	const long length = OK(read(fd, buffer, sizeof(buffer)));
	OK(close(fd));
	if ((size_t)length == strlen(text) && memcmp(buffer, text, (size_t)length) == 0)
		return true;
	printf("# %s holds %ld bytes: \"%.*s\"\n", path, length, (int)(length < 80 ? length : 80), buffer);
	return false;
}

static char fill_byte(size_t i, unsigned seed) { return (char)((i * 131 + seed * 17 + i / 251) % 255 + 1); }

void fill(char *buffer, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		buffer[i] = fill_byte(i, seed);
}

bool filled(const char *buffer, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++) {
		if (buffer[i] != fill_byte(i, seed)) {
			printf("# byte %zu of %zu is %d, wanted %d\n", i, size, buffer[i], fill_byte(i, seed));
			return false;
		}
	}
	return true;
}

bool zeroed(const char *buffer, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (buffer[i]) {
			printf("# byte %zu of %zu is %d, wanted zero\n", i, size, buffer[i]);
			return false;
		}
	}
	return true;
}

char *repeat(char byte, size_t length)
{
	char *text = malloc(length + 1);
	CHECK(text != NULL);
	memset(text, byte, length);
	text[length] = 0;
	return text;
}

void *page_buffer(size_t size)
{
	void *buffer = NULL;
	EQ(posix_memalign(&buffer, PAGE, size), 0);
	memset(buffer, 0, size);
	return buffer;
}

void *bad_pointer(void)
{
	static volatile uintptr_t nowhere = 1; /* not for the compiler to see */
	return (void *)nowhere;
}

const char *second_dir(void)
{
	static const char *const places[] = {"/dev/shm", "/tmp", "/var/tmp", "/run"};
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct stat st;
		if (!stat(places[i], &st) && st.st_dev != stat_of(".").st_dev && !access(places[i], W_OK | X_OK))
			return places[i];
	}
	skip("no other filesystem to write to");
}

/* ---- times ---- */

struct times times_of(const char *path)
{
	const struct stat st = stat_of(path);
	return (struct times){st.st_atim, st.st_mtim, st.st_ctim};
}

int compare_times(struct timespec a, struct timespec b)
{
	if (a.tv_sec != b.tv_sec)
		return a.tv_sec < b.tv_sec ? -1 : 1;
	return a.tv_nsec < b.tv_nsec ? -1 : a.tv_nsec > b.tv_nsec;
}

/* The kernel stamps files with a clock that moves with its timer, 100 to 1000 times a second. */
void tick(void) { nanosleep(&(struct timespec){0, 12 * 1000 * 1000}, NULL); }

void check_times(const char *path, struct times before, const char *changed, const char *text, const char *file, int line)
{
	const struct times now = times_of(path);
	const struct {
		char letter;
		int moved;
	} each[] = {{'a', compare_times(now.atime, before.atime)}, {'m', compare_times(now.mtime, before.mtime)},
		{'c', compare_times(now.ctime, before.ctime)}};
	bool wrong = false;
	for (size_t i = 0; i < sizeof(each) / sizeof(each[0]); i++) {
		const int should = strchr(changed, each[i].letter) ? 1 : 0;
		if (each[i].moved == should)
			continue;
		printf("# %s: %ctime of %s %s\n", text, each[i].letter, path,
			should ? "did not move forward" : "should not have changed");
		wrong = true;
	}
	if (wrong)
		fail(file, line);
}
