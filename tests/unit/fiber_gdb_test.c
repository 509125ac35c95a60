/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: scripts/gdb/fibers.py lists fibers and shows the stack of one that is parked, and the program goes on after.
 * Method: the test starts gdb on itself and reads what it prints.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "reactor/reactor_internal.h"

enum { OUTPUT_MAX = 32 << 10 };

static char output[OUTPUT_MAX];
static struct fiber *lonely;
static bool go;

static __attribute__((noinline)) void inner_function_that_waits(void)
{
	while (!go)
		fiber_park("a signal that does not come");
}

static void wait_alone(void *arg)
{
	lonely = fiber_self();
	inner_function_that_waits();
	lonely = NULL;
}

static bool lonely_is_parked(void *arg) { return lonely && lonely->state == FIBER_PARKED; }

static int wake_lonely(void *arg)
{
	go = true;
	fiber_wake(lonely);
	while (lonely)
		fiber_yield();
	return 0;
}

/* Runs the script on this process; false when there is no gdb, or it may not look. */
static bool run_gdb(void)
{
	/* The path is relative to the build folder, where meson runs its tests. */
	static const char script[] = "scripts/gdb/fibers.py";
	const char *slash = strstr(__FILE__, "tests/unit/");
	char command[512];
	snprintf(command, sizeof(command), "%.*s%s", (int)(slash - __FILE__), __FILE__, script);
	if (access(command, R_OK) != 0 || system("gdb --version >/dev/null 2>&1") != 0)
		return false;
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
	snprintf(command, sizeof(command),
		"gdb -nx -batch -iex 'set debuginfod enabled off' -p %d -ex 'source %.*s%s' -ex fibers -ex 'fiber bt all' 2>&1",
		getpid(), (int)(slash - __FILE__), __FILE__, script);
	FILE *pipe = popen(command, "r");
	assert_non_null(pipe);
	const size_t length = fread(output, 1, sizeof(output) - 1, pipe);
	output[length] = 0;
	pclose(pipe);
	return !strstr(output, "ptrace: Operation not permitted") && !strstr(output, "Could not attach");
}

static void test_gdb_shows_a_parked_fiber(void **state)
{
	const struct reactor_options options = {.count = 2, .simulate = true};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	struct fiber_start_remote start = {.start = {.fn = wait_alone, .name = "lonely"}};
	fiber_start_on(reactor_group_get(group, 1), &start);
	assert_true(reactor_group_sim_run(group, lonely_is_parked, NULL));
	const bool ran = run_gdb();
	assert_int_equal(reactor_group_run(reactor_group_get(group, 1), wake_lonely, NULL), 0);
	reactor_group_destroy(group);
	if (!ran)
		skip();
	if (!strstr(output, "inner_function_that_waits"))
		print_error("%s\n", output);
	assert_non_null(strstr(output, "reactor 1  lonely: parked on a signal that does not come"));
	assert_non_null(strstr(output, "1 fibers"));
	assert_non_null(strstr(output, "inner_function_that_waits"));
	assert_non_null(strstr(output, "wait_alone"));
	assert_non_null(strstr(output, "fiber_entry"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_gdb_shows_a_parked_fiber)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
