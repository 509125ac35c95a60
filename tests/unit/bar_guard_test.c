/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a mapping whose device is gone reads all ones and swallows writes; nothing else changes for anybody.
 * Method: a memfd behind a mapping is cut, which raises the same SIGBUS. What must end the process, or needs a SIGBUS
 * handler of the test's own, happens in a child, forked while the guard has not been used in this process: those first.
 * cmocka handles SIGBUS during each test: the handler of the guard, installed once in the first test that uses it here, is
 * put back by the others.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "reactor/bar_guard.h"

enum { BAR_BYTES = 16384, PAGE = 4096, HANDLED = 42, SURVIVED = 43 };

static struct sigaction original; /* before cmocka: the kernel's default, or a sanitizer's */
static struct sigaction guarding; /* the guard's */

struct bar {
	int fd;
	volatile uint32_t *registers;
	atomic_bool gone;
};

static void bar_init(struct bar *bar)
{
	bar->fd = memfd_create("bar", MFD_CLOEXEC);
	assert_true(bar->fd >= 0 && ftruncate(bar->fd, BAR_BYTES) == 0);
	bar->registers = mmap(NULL, BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, bar->fd, 0);
	assert_true(bar->registers != MAP_FAILED);
	bar->registers[0] = 0x1234;
	atomic_init(&bar->gone, false);
}

static void bar_fini(struct bar *bar)
{
	bar_guard_remove((void *)bar->registers);
	munmap((void *)bar->registers, BAR_BYTES);
	close(bar->fd);
}

static int bar_guarded(struct bar *bar)
{
	if (guarding.sa_sigaction)
		sigaction(SIGBUS, &guarding, NULL);
	return bar_guard_add((void *)bar->registers, BAR_BYTES, &bar->gone);
}

static void bar_cut(struct bar *bar) { assert_return_code(ftruncate(bar->fd, 0), errno); }

/* ---- in a child ---- */
static void exit_handled(int number, siginfo_t *info, void *context) { _exit(HANDLED); }
static void exit_handled_plain(int number) { _exit(HANDLED); }
static void handle_by(void (*plain)(int), void (*with_info)(int, siginfo_t *, void *))
{
	struct sigaction action = {.sa_flags = with_info ? SA_SIGINFO : 0};
	if (with_info)
		action.sa_sigaction = with_info;
	else
		action.sa_handler = plain;
	sigaction(SIGBUS, &action, NULL);
}

/* Uses the guard once, then faults in a mapping that is not guarded. */
static void fault_elsewhere(void)
{
	struct bar ours, other;
	bar_init(&ours);
	bar_init(&other);
	if (bar_guarded(&ours))
		_exit(1);
	bar_cut(&ours);
	if (ours.registers[0] != UINT32_MAX || !ours.gone)
		_exit(2);
	bar_cut(&other);
	(void)other.registers[0];
}

static int child_status(void (*fn)(void))
{
	int status;
	const pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		fn();
		_exit(SURVIVED);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void previous_with_info(void)
{
	handle_by(NULL, exit_handled);
	fault_elsewhere();
}
static void previous_plain(void)
{
	handle_by(exit_handled_plain, NULL);
	fault_elsewhere();
}
static void previous_default(void)
{
	handle_by(SIG_DFL, NULL);
	fault_elsewhere();
}
static void previous_ignores(void)
{
	handle_by(SIG_IGN, NULL);
	fault_elsewhere();
}
static void sent_and(void (*previous)(int))
{
	struct bar bar;
	handle_by(previous, NULL);
	bar_init(&bar);
	if (bar_guarded(&bar) == 0)
		raise(SIGBUS);
}
static void sent_and_default(void) { sent_and(SIG_DFL); }
static void sent_and_ignored(void) { sent_and(SIG_IGN); }
/* A sanitizer reports and exits. */
static void previous_original(void)
{
	const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	sigaction(SIGBUS, &original, NULL);
	if (null >= 0 && dup2(null, STDERR_FILENO) == STDERR_FILENO)
		fault_elsewhere();
}
static void fault_after_remove(void)
{
	struct bar bar;
	handle_by(exit_handled_plain, NULL);
	bar_init(&bar);
	if (bar_guarded(&bar))
		_exit(1);
	bar_guard_remove((void *)bar.registers);
	bar_cut(&bar);
	(void)bar.registers[0];
}

static void assert_exits(void (*fn)(void), int expected)
{
	const int status = child_status(fn);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), expected);
}
static void assert_dies_of_sigbus(void (*fn)(void))
{
	const int status = child_status(fn);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGBUS);
}

static void test_a_fault_elsewhere_reaches_the_previous_handler(void **state)
{
	assert_exits(previous_with_info, HANDLED);
	assert_exits(previous_plain, HANDLED);
}
static void test_a_fault_elsewhere_without_a_handler_ends_the_process(void **state)
{
	assert_dies_of_sigbus(previous_default);
	assert_dies_of_sigbus(previous_ignores);
}
static void test_a_fault_elsewhere_is_reported_by_a_sanitizer_if_there_is_one(void **state)
{
	const int status = child_status(previous_original);
	assert_true(WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS : WEXITSTATUS(status) != SURVIVED);
	assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 2);
}
static void test_a_signal_that_somebody_sent_is_passed_on(void **state)
{
	assert_dies_of_sigbus(sent_and_default);
	assert_exits(sent_and_ignored, SURVIVED);
}
static void test_a_mapping_that_was_removed_is_not_guarded(void **state) { assert_exits(fault_after_remove, HANDLED); }

/* ---- in this process ---- */
static void test_the_first_use_installs_the_handler(void **state)
{
	struct sigaction before;
	struct bar bar;
	bar_init(&bar);
	sigaction(SIGBUS, NULL, &before);
	assert_int_equal(bar_guarded(&bar), 0);
	sigaction(SIGBUS, NULL, &guarding);
	assert_true(before.sa_sigaction != guarding.sa_sigaction);
	bar_fini(&bar);
}

static void test_a_cut_mapping_reads_all_ones(void **state)
{
	struct bar bar;
	bar_init(&bar);
	assert_int_equal(bar_guarded(&bar), 0);
	assert_int_equal(bar.registers[0], 0x1234);
	assert_false(bar.gone);
	bar_cut(&bar);
	assert_int_equal(bar.registers[3 * 1024], UINT32_MAX); /* the last page first: the whole mapping is replaced */
	assert_true(bar.gone);
	atomic_store(&bar.gone, false);
	for (unsigned i = 0; i < BAR_BYTES / sizeof(uint32_t); i++)
		assert_int_equal(bar.registers[i], UINT32_MAX);
	assert_false(bar.gone); /* one fault was enough */
	bar_fini(&bar);
}

static void test_writes_to_a_cut_mapping_go_nowhere(void **state)
{
	struct bar bar, next;
	bar_init(&bar);
	bar_init(&next);
	assert_int_equal(bar_guarded(&bar), 0);
	assert_int_equal(bar_guarded(&next), 0);
	bar_cut(&bar);
	bar.registers[0] = 7;
	assert_true(bar.gone);
	bar.registers[1024] = 8;
	/* Neither the file behind it nor what others get to see of the prepared page has changed. */
	assert_int_equal(lseek(bar.fd, 0, SEEK_END), 0);
	bar_cut(&next);
	assert_int_equal(next.registers[0], UINT32_MAX);
	assert_int_equal(next.registers[1024], UINT32_MAX);
	bar_fini(&bar);
	bar_fini(&next);
}

static void test_a_second_mapping_is_unaffected(void **state)
{
	struct bar bar, other;
	bar_init(&bar);
	bar_init(&other);
	assert_int_equal(bar_guarded(&bar), 0);
	assert_int_equal(bar_guarded(&other), 0);
	bar_cut(&bar);
	assert_int_equal(bar.registers[0], UINT32_MAX);
	assert_int_equal(other.registers[0], 0x1234);
	assert_false(other.gone);
	other.registers[1] = 5;
	uint32_t value;
	assert_int_equal(pread(other.fd, &value, sizeof(value), 4), sizeof(value));
	assert_int_equal(value, 5);
	bar_fini(&bar);
	bar_fini(&other);
}

static void test_errno_survives_the_fault(void **state)
{
	struct bar bar;
	bar_init(&bar);
	assert_int_equal(bar_guarded(&bar), 0);
	bar_cut(&bar);
	errno = ENOTTY;
	const uint32_t value = bar.registers[0];
	assert_int_equal(errno, ENOTTY);
	assert_int_equal(value, UINT32_MAX);
	bar_fini(&bar);
}

static void test_bad_ranges_are_refused(void **state)
{
	struct bar bar;
	bar_init(&bar);
	char *base = (char *)bar.registers;
	assert_int_equal(bar_guard_add(NULL, PAGE, &bar.gone), -EINVAL);
	assert_int_equal(bar_guard_add(base, 0, &bar.gone), -EINVAL);
	assert_int_equal(bar_guard_add(base, PAGE, NULL), -EINVAL);
	assert_int_equal(bar_guard_add(base, 100, &bar.gone), -EINVAL);
	assert_int_equal(bar_guard_add(base + 8, PAGE, &bar.gone), -EINVAL);
	assert_int_equal(bar_guard_add(base, BAR_GUARD_BYTES_MAX + PAGE, &bar.gone), -EINVAL);
	assert_int_equal(bar_guarded(&bar), 0);
	assert_int_equal(bar_guarded(&bar), -EINVAL); /* twice */
	assert_int_equal(bar_guard_add(base + PAGE, PAGE, &bar.gone), -EINVAL);
	bar_guard_remove(NULL);
	bar_guard_remove(base + PAGE); /* guarded, but not by this base: nothing happens */
	assert_int_equal(bar_guarded(&bar), -EINVAL);
	bar_fini(&bar);
	bar_guard_remove(base);
}

static void test_a_full_table_says_so(void **state)
{
	enum { COUNT = BAR_GUARDS_MAX + 1 };
	atomic_bool gone[COUNT] = {};
	char *base = mmap(NULL, COUNT * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_true(base != MAP_FAILED);
	for (unsigned i = 0; i < BAR_GUARDS_MAX; i++)
		assert_int_equal(bar_guard_add(base + i * PAGE, PAGE, &gone[i]), 0);
	assert_int_equal(bar_guard_add(base + BAR_GUARDS_MAX * PAGE, PAGE, &gone[BAR_GUARDS_MAX]), -ENOSPC);
	bar_guard_remove(base + 5 * PAGE);
	assert_int_equal(bar_guard_add(base + BAR_GUARDS_MAX * PAGE, PAGE, &gone[BAR_GUARDS_MAX]), 0);
	for (unsigned i = 0; i < COUNT; i++)
		bar_guard_remove(base + i * PAGE);
	munmap(base, COUNT * PAGE);
}

static void test_the_largest_mapping_is_replaced_whole(void **state)
{
	struct bar bar = {.fd = memfd_create("bar", MFD_CLOEXEC)};
	assert_int_equal(ftruncate(bar.fd, BAR_GUARD_BYTES_MAX), 0);
	volatile uint8_t *base = mmap(NULL, BAR_GUARD_BYTES_MAX, PROT_READ, MAP_SHARED, bar.fd, 0);
	assert_true(base != MAP_FAILED);
	sigaction(SIGBUS, &guarding, NULL);
	assert_int_equal(bar_guard_add((void *)base, BAR_GUARD_BYTES_MAX, &bar.gone), 0);
	bar_cut(&bar);
	for (unsigned at = 0; at < BAR_GUARD_BYTES_MAX; at += 512)
		assert_int_equal(base[at], 0xFF);
	assert_int_equal(base[BAR_GUARD_BYTES_MAX - 1], 0xFF);
	bar_guard_remove((void *)base);
	munmap((void *)base, BAR_GUARD_BYTES_MAX);
	close(bar.fd);
}

/* ---- several threads ---- */
static atomic_bool stop;

static void *read_until_gone(void *arg)
{
	struct bar *bar = arg;
	uint32_t value = 0;
	while (value != UINT32_MAX)
		value = bar->registers[1];
	return (void *)(uintptr_t)atomic_load(&bar->gone);
}

static void *add_and_remove(void *arg)
{
	uintptr_t rounds = 0;
	while (!atomic_load(&stop) || rounds < 10) {
		struct bar bar;
		bar_init(&bar);
		if (bar_guarded(&bar))
			return NULL;
		bar_cut(&bar);
		if (bar.registers[0] != UINT32_MAX || !bar.gone)
			return NULL;
		bar_fini(&bar);
		rounds++;
	}
	return (void *)rounds;
}

static void test_readers_and_changes_of_the_table_at_once(void **state)
{
	enum { READERS = 3, CHANGERS = 2, ROUNDS = 200 };
	pthread_t readers[READERS], changers[CHANGERS];
	void *result;
	atomic_store(&stop, false);
	for (unsigned i = 0; i < CHANGERS; i++)
		assert_int_equal(pthread_create(&changers[i], NULL, add_and_remove, NULL), 0);
	for (unsigned round = 0; round < ROUNDS; round++) {
		struct bar bar;
		bar_init(&bar);
		assert_int_equal(bar_guarded(&bar), 0);
		for (unsigned i = 0; i < READERS; i++)
			assert_int_equal(pthread_create(&readers[i], NULL, read_until_gone, &bar), 0);
		bar_cut(&bar);
		for (unsigned i = 0; i < READERS; i++)
			assert_int_equal(pthread_join(readers[i], &result), 0);
		assert_true(atomic_load(&bar.gone));
		bar_fini(&bar);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < CHANGERS; i++) {
		assert_int_equal(pthread_join(changers[i], &result), 0);
		assert_non_null(result);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_fault_elsewhere_reaches_the_previous_handler),
		cmocka_unit_test(test_a_fault_elsewhere_without_a_handler_ends_the_process),
		cmocka_unit_test(test_a_fault_elsewhere_is_reported_by_a_sanitizer_if_there_is_one),
		cmocka_unit_test(test_a_signal_that_somebody_sent_is_passed_on),
		cmocka_unit_test(test_a_mapping_that_was_removed_is_not_guarded),
		cmocka_unit_test(test_the_first_use_installs_the_handler),
		cmocka_unit_test(test_a_cut_mapping_reads_all_ones),
		cmocka_unit_test(test_writes_to_a_cut_mapping_go_nowhere),
		cmocka_unit_test(test_a_second_mapping_is_unaffected),
		cmocka_unit_test(test_errno_survives_the_fault),
		cmocka_unit_test(test_bad_ranges_are_refused),
		cmocka_unit_test(test_a_full_table_says_so),
		cmocka_unit_test(test_the_largest_mapping_is_replaced_whole),
		cmocka_unit_test(test_readers_and_changes_of_the_table_at_once),
	};
	sigaction(SIGBUS, NULL, &original);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
