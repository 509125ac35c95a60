/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: subsystems start in dependency order and stop in reverse; missing dependencies and cycles are found before
 * anything starts; a failure halfway undoes what was done.
 * Method: subsystems that write their name into a trace, some answering at once and some from a timer.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "reactor/log.h"
#include "reactor/subsystem.h"

enum { PARTS = 4 };

struct part {
	struct subsystem subsystem;
	struct timer timer;
	int result;
	bool slow;
	int answer;
};

static char trace[256];
static struct part parts[PARTS];
static struct subsystem_set *set;

static void trace_add(const char *sign, const char *name)
{
	strncat(trace, sign, sizeof(trace) - strlen(trace) - 1);
	strncat(trace, name, sizeof(trace) - strlen(trace) - 1);
}

static void answer_late(struct timer *timer)
{
	struct part *part = CONTAINER_OF(timer, struct part, timer);
	subsystem_done(&part->subsystem, part->answer);
}

static void answer(struct part *part, int result)
{
	part->answer = result;
	if (part->slow)
		timer_start(&part->timer, NS_PER_MS, answer_late);
	else
		subsystem_done(&part->subsystem, result);
}

static void part_init(struct subsystem *self)
{
	struct part *part = CONTAINER_OF(self, struct part, subsystem);
	trace_add("+", self->name);
	answer(part, part->result);
}

static void part_fini(struct subsystem *self)
{
	trace_add("-", self->name);
	answer(CONTAINER_OF(self, struct part, subsystem), 0);
}

static void part_register(unsigned index, const char *name, const char *const *depends)
{
	parts[index].subsystem = (struct subsystem){.name = name, .depends = depends, .init = part_init, .fini = part_fini};
	parts[index].slow = index % 2;
	assert_int_equal(subsystem_register(set, &parts[index].subsystem), 0);
}

static void drop_line(enum log_level level, const char *line, void *arg) {}

static int start_only(void *arg) { return subsystem_set_start(set); }

static int start_and_stop(void *arg)
{
	const int error = subsystem_set_start(set);
	if (error)
		return error;
	subsystem_set_stop(set);
	return 0;
}

static int run(int (*fn)(void *arg))
{
	const struct reactor_options options = {.count = 1, .simulate = true, .seed = 1};
	struct reactor_group *group;
	assert_int_equal(reactor_group_create(&options, &group), 0);
	log_set_sink(drop_line, NULL);
	const int result = reactor_group_run(reactor_group_get(group, 0), fn, NULL);
	log_set_sink(NULL, NULL);
	reactor_group_destroy(group);
	return result;
}

static int set_up(void **state)
{
	memset(parts, 0, sizeof(parts));
	trace[0] = 0;
	return subsystem_set_create(&set);
}

static int tear_down(void **state)
{
	subsystem_set_destroy(set);
	return 0;
}

static void register_house(void)
{
	static const char *const roof[] = {"walls", "ladder", NULL}, *const walls[] = {"ground", NULL};
	part_register(0, "roof", roof);
	part_register(1, "walls", walls);
	part_register(2, "ladder", NULL);
	part_register(3, "ground", NULL);
}

static void test_start_in_order_and_stop_in_reverse(void **state)
{
	register_house();
	assert_int_equal(run(start_and_stop), 0);
	assert_string_equal(trace, "+ladder+ground+walls+roof-roof-walls-ground-ladder");
}

static void test_a_set_starts_again_after_a_stop(void **state)
{
	register_house();
	assert_int_equal(run(start_and_stop), 0);
	trace[0] = 0;
	assert_int_equal(run(start_only), 0);
	assert_string_equal(trace, "+ladder+ground+walls+roof");
	assert_true(parts[0].subsystem.running);
}

static void test_a_failure_halfway_is_undone(void **state)
{
	register_house();
	parts[1].result = -ENOSPC; /* walls */
	assert_int_equal(run(start_only), -ENOSPC);
	assert_string_equal(trace, "+ladder+ground+walls-ground-ladder");
	for (unsigned i = 0; i < PARTS; i++)
		assert_false(parts[i].subsystem.running);
}

static void test_a_missing_dependency_is_found_first(void **state)
{
	static const char *const depends[] = {"unicorn", NULL};
	part_register(0, "first", NULL);
	part_register(1, "second", depends);
	assert_int_equal(run(start_only), -ENOENT);
	assert_string_equal(trace, "");
}

static void test_a_cycle_is_found_first(void **state)
{
	static const char *const egg[] = {"egg", NULL}, *const chicken[] = {"chicken", NULL};
	part_register(0, "first", NULL);
	part_register(1, "chicken", egg);
	part_register(2, "egg", chicken);
	assert_int_equal(run(start_only), -ELOOP);
	assert_string_equal(trace, "");
}

static void test_a_name_is_taken_once(void **state)
{
	struct subsystem twin = {.name = "twin", .init = part_init};
	part_register(0, "twin", NULL);
	log_set_sink(drop_line, NULL);
	assert_int_equal(subsystem_register(set, &twin), -EEXIST);
	log_set_sink(NULL, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_start_in_order_and_stop_in_reverse, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_set_starts_again_after_a_stop, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_failure_halfway_is_undone, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_missing_dependency_is_found_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_cycle_is_found_first, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_a_name_is_taken_once, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
