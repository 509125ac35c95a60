/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command line of mount.lanefs and its configuration file: what is accepted, which of the two wins, and that every
 * refusal names its object.
 */
#include <errno.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/daemon/options.h"

static struct mount_config config;
static char message[512];

static int parse(const char *target, const char *options)
{
	char *argv[] = {"mount.lanefs", (char *)target, "/", "-o", (char *)options, NULL};
	optind = 0;
	message[0] = 0;
	return options_parse(5, argv, &config, message, sizeof(message));
}

static void write_file(const char *text)
{
	FILE *file = fopen("config.json", "w");
	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void test_removal_policies(void **state)
{
	assert_int_equal(parse("x", "ro"), 0);
	assert_false(config.hold_on_removal);
	assert_int_equal(parse("x", "on_removal=unmount"), 0);
	assert_false(config.hold_on_removal);
	assert_int_equal(parse("x", "on_removal=wait"), 0);
	assert_true(config.hold_on_removal);
	assert_int_equal(config.hold_ms, 60000);
	assert_int_equal(parse("x", "on_removal=wait=5,nohotplug,auto_bind"), 0);
	assert_int_equal(config.hold_ms, 5000);
	assert_true(config.no_hotplug && config.auto_bind);
	static const char *const wrong[] = {"on_removal", "on_removal=", "on_removal=wait=", "on_removal=wait=0",
		"on_removal=wait=3601", "on_removal=wait=x", "on_removal=waiting", "on_removal=unmount=1"};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		assert_int_equal(parse("x", wrong[i]), -EINVAL);
		assert_non_null(strstr(message, "on_removal"));
	}
}

static void test_the_file_sets_what_the_command_line_does_not(void **state)
{
	write_file("{\"on_removal\": \"wait=7\", \"cache\": \"64M\", \"noatime\": true, \"reactors\": 3,\n"
		"\"hotplug\": false, \"auto_bind\": true, \"discard\": false, \"x-mine\": \"1\"}\n");
	assert_int_equal(parse("x", "config=config.json"), 0);
	assert_true(config.hold_on_removal && config.noatime && config.no_hotplug && config.auto_bind);
	assert_int_equal(config.hold_ms, 7000);
	assert_int_equal(config.cache_bytes, MIB(64));
	assert_int_equal(config.reactors, 3);
	/* Wherever it stands. */
	assert_int_equal(parse("x", "cache=1M,on_removal=unmount,hotplug,noauto_bind,atime,config=config.json"), 0);
	assert_false(config.hold_on_removal || config.noatime || config.no_hotplug || config.auto_bind);
	assert_int_equal(config.cache_bytes, MIB(1));
	assert_int_equal(parse("x", "config=config.json,lcores=0@0"), 0);
	assert_int_equal(config.core_count, 1);
	assert_int_equal(options_reactor_count(&config), 1);
	assert_int_equal(parse("x", "reactors=2,lcores=0@0"), -EINVAL);
	write_file("{\"lcores\": \"0@0:1@0\"}");
	assert_int_equal(parse("x", "config=config.json,reactors=4"), 0);
	assert_int_equal(options_reactor_count(&config), 4);
}

static void test_what_is_not_understood_is_refused_by_key_and_file(void **state)
{
	static const char *const wrong[] = {"{\"the_key\": true}", "{\"noatime\": true, \"the_key\": 1}"};
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		write_file(wrong[i]);
		assert_true(parse("x", "config=config.json") < 0);
		assert_non_null(strstr(message, "the_key"));
		assert_non_null(strstr(message, "config.json"));
	}
	static const char *const broken[] = {"", "{", "[]", "{} {}", "{\"cache\": null}", "{\"cache\": 1.5}", "{\"cache\": false}",
		"{\"cache\": {}}", "{\"noatime\": \"yes\"}", "{\"config\": \"other\"}", "{\"reactors\": 0}", "\"text\"",
		"{\"a\": {\"b\": {\"c\": {\"d\": {}}}}}"};
	for (size_t i = 0; i < ARRAY_SIZE(broken); i++) {
		write_file(broken[i]);
		if (parse("x", "config=config.json") == 0)
			fail_msg("accepted: %s", broken[i]);
		assert_non_null(strstr(message, "config.json"));
	}
	assert_int_equal(parse("x", "config=missing.json"), -ENOENT);
	assert_non_null(strstr(message, "missing.json"));
	assert_true(parse("x", "config") < 0);
	assert_true(parse("x", "nonsense") < 0);
}

static void resolves_to(const char *target, const char *wanted)
{
	static char expected[PATH_MAX], here[PATH_MAX];
	assert_int_equal(parse(target, "ro"), 0);
	assert_int_equal(options_resolve(&config, message, sizeof(message)), 0);
	assert_non_null(getcwd(here, sizeof(here)));
	snprintf(expected, sizeof(expected), wanted, here);
	assert_string_equal(config.target, expected);
}

static void test_paths_in_targets_become_absolute(void **state)
{
	resolves_to("config.json", "%s/config.json");
	resolves_to("./config.json", "%s/config.json");
	resolves_to("emu:config.json", "emu:%s/config.json");
	resolves_to("emu:./config.json,cache=1M,rule=write:stuck", "emu:%s/config.json,cache=1M,rule=write:stuck");
	resolves_to("emu:ram:64M", "emu:ram:64M");
	resolves_to("emu:ram:64M,lba=512", "emu:ram:64M,lba=512");
	resolves_to("ram:64M", "ram:64M");
	resolves_to("0000:5e:00.0", "0000:5e:00.0");
	resolves_to("pci:0000:5e:00.0/2", "pci:0000:5e:00.0/2");
	assert_int_equal(parse("emu:missing/x,cache=1M", "ro"), 0);
	assert_int_equal(options_resolve(&config, message, sizeof(message)), -ENOENT);
	assert_non_null(strstr(message, "emu:missing/x,cache=1M"));
}

static int enter_folder(void **state)
{
	static char folder[] = "/tmp/lanefs-options-test-XXXXXX";
	*state = folder;
	return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave_folder(void **state)
{
	return unlink("config.json") || chdir("/") || rmdir(*state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_removal_policies),
		cmocka_unit_test(test_the_file_sets_what_the_command_line_does_not),
		cmocka_unit_test(test_what_is_not_understood_is_refused_by_key_and_file),
		cmocka_unit_test(test_paths_in_targets_become_absolute),
	};
	return cmocka_run_group_tests(tests, enter_folder, leave_folder);
}
