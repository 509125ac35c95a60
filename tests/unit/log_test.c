/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the log takes every line of a test's sink, and of a statement that says the same again and again only some, and
 * says so. Method: standard error is a file, which is read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <sys/mman.h>
#include <unistd.h>

#include "reactor/log.h"

static char text[65536];

static int stderr_begin(int *file)
{
	const int saved = dup(STDERR_FILENO);
	*file = memfd_create("stderr", MFD_CLOEXEC);
	dup2(*file, STDERR_FILENO);
	return saved;
}

static void stderr_end(int saved, int file)
{
	dup2(saved, STDERR_FILENO);
	close(saved);
	const ssize_t got = pread(file, text, sizeof(text) - 1, 0);
	text[MAX(got, 0)] = '\0';
	close(file);
}

static unsigned lines_with(const char *part)
{
	unsigned count = 0;
	for (const char *at = text; (at = strstr(at, part)); at++)
		count++;
	return count;
}

static void say(unsigned number) { log_warn("drive: command %u failed", number); }

static void test_a_statement_is_held_back_and_others_are_not(void **state)
{
	int file;
	const int saved = stderr_begin(&file);
	log_set_limit(5, 3600);
	for (unsigned i = 0; i < 100; i++)
		say(i);
	log_warn("another: thing");
	stderr_end(saved, file);
	assert_int_equal(lines_with("drive: command"), 5);
	assert_non_null(strstr(text, "command 4 failed\n"));
	assert_int_equal(lines_with("another: thing"), 1);
}

static void test_what_was_held_back_is_counted_later(void **state)
{
	int file;
	const int saved = stderr_begin(&file);
	log_set_limit(2, 1);
	for (unsigned i = 0; i < 10; i++)
		say(i);
	usleep(2100 * 1000); /* the clock counts whole seconds */
	say(10);
	say(11);
	stderr_end(saved, file);
	assert_int_equal(lines_with("drive: command"), 4);
	assert_non_null(strstr(text, "command 10 failed (8 more like it were not logged)\n"));
	assert_non_null(strstr(text, "command 11 failed\n"));
}

static unsigned taken;
static void take(enum log_level level, const char *line, void *arg) { taken++; }

static void test_a_name_cannot_speak_to_the_terminal(void **state)
{
	int file;
	const int saved = stderr_begin(&file);
	log_warn("%s: is damaged", "a\033[2Jb\nlanefs: all is well\177");
	stderr_end(saved, file);
	assert_string_equal(text, "lanefs: a?[2Jb?lanefs: all is well?: is damaged\n");
}

static void test_a_sink_of_a_test_gets_all(void **state)
{
	log_set_limit(2, 3600);
	log_set_sink(take, NULL);
	for (unsigned i = 0; i < 50; i++)
		say(i);
	log_set_sink(NULL, NULL);
	assert_int_equal(taken, 50);
}

static int limit_back(void **state)
{
	log_set_limit(0, 0);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_a_statement_is_held_back_and_others_are_not, limit_back),
		cmocka_unit_test_teardown(test_what_was_held_back_is_counted_later, limit_back),
		cmocka_unit_test_teardown(test_a_sink_of_a_test_gets_all, limit_back),
		cmocka_unit_test(test_a_name_cannot_speak_to_the_terminal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
