/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: options and rules of emulated drives read as documented, and what is wrong is named in one line.
 * Method: texts in, fields and messages out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>

#include "nvme/emu.h"

static struct emu_options options;
static struct emu_rule rule;
static char message[256];

static void good(const char *text) { assert_int_equal(emu_options_parse(text, &options, message, sizeof(message)), 0); }

static void bad(const char *text, const char *named)
{
	message[0] = '\0';
	assert_int_equal(emu_options_parse(text, &options, message, sizeof(message)), -EINVAL);
	assert_non_null(strstr(message, named));
	assert_null(strchr(message, '\n'));
}

static void rule_good(const char *text) { assert_int_equal(emu_rule_parse(text, &rule, message, sizeof(message)), 0); }

static void rule_bad(const char *text, const char *named)
{
	message[0] = '\0';
	assert_int_equal(emu_rule_parse(text, &rule, message, sizeof(message)), -EINVAL);
	assert_non_null(strstr(message, named));
}

static void test_no_text_is_all_defaults(void **state)
{
	static const struct emu_options zero;
	good("");
	assert_memory_equal(&options, &zero, sizeof(zero));
}

static void test_numbers_sizes_and_times(void **state)
{
	good("cache=16M,lba=512,namespaces=2,queues=3,depth=32,mdts=15,boundary=64,latency=5ms,tear=4096,seed=0xff,metadata=8");
	assert_int_equal(options.cache_bytes, MIB(16));
	assert_int_equal(options.lba_bytes, 512);
	assert_int_equal(options.namespaces, 2);
	assert_int_equal(options.queues_max, 3);
	assert_int_equal(options.depth_max, 32);
	assert_int_equal(options.mdts, 15);
	assert_int_equal(options.boundary_blocks, 64);
	assert_int_equal(options.latency_ns, 5 * NS_PER_MS);
	assert_int_equal(options.tear_bytes, 4096);
	assert_int_equal(options.seed, 255);
	assert_int_equal(options.metadata_bytes, 8);
}

static void test_switches_and_words(void **state)
{
	good("vwc=off,cache-fixed=on,zoned=on,shadow=off,interrupts=off,dsm=off,zeroes=off,cut=random,serial=A 1");
	assert_true(options.no_volatile_cache && options.cache_fixed && options.zoned && options.no_shadow_doorbells);
	assert_true(options.no_interrupts && options.no_dsm && options.no_write_zeroes);
	assert_int_equal(options.cut, EMU_CUT_RANDOM);
	assert_string_equal(options.serial, "A 1");
	good("vwc=on,cut=none");
	assert_false(options.no_volatile_cache);
	assert_int_equal(options.cut, EMU_CUT_NONE);
}

static void test_rules_are_collected_up_to_their_limit(void **state)
{
	char text[EMU_RULES_MAX * 20 + 40] = "";
	good("rule=write:stuck:skip=100:count=1,cache=1M,rule=flush:lie");
	assert_int_equal(options.rule_count, 2);
	assert_int_equal(options.rules[0].action, EMU_RULE_STUCK);
	assert_int_equal(options.rules[0].skip, 100);
	assert_int_equal(options.rules[1].action, EMU_RULE_LIE);
	for (unsigned i = 0; i < EMU_RULES_MAX; i++)
		strcat(text, "rule=read:fatal,");
	good(text);
	strcat(text, "rule=read:fatal");
	bad(text, "rule");
}

static void test_what_is_wrong_is_named(void **state)
{
	bad("colour=blue", "colour");
	bad("cache=16Q", "cache=16Q");
	bad("cache=", "cache");
	bad("cache", "cache");
	bad("cache=99999999999999999999G", "cache");
	bad("lba=1024", "512 or 4096");
	bad("tear=1000", "512 or 4096");
	bad("mdts=16", "mdts");
	bad("mdts=0x", "mdts");
	bad("vwc=maybe", "on or off");
	bad("cut=half", "all, random or none");
	bad("latency=5", "latency");
	bad("latency=2h", "latency");
	bad("serial=", "serial");
	bad("serial=123456789012345678901", "serial");
	bad("rule=", "rule");
	bad("rule=write", "rule");
	bad("lba=512,,lba=512", "no option");
}

static void test_rules_read_as_documented(void **state)
{
	rule_good("write:status=0x280:ppm=1000");
	assert_false(rule.admin);
	assert_int_equal(rule.opcode, NVME_CMD_WRITE);
	assert_int_equal(rule.action, EMU_RULE_STATUS);
	assert_int_equal(rule.status, 0x280);
	assert_int_equal(rule.ppm, 1000);
	rule_good("any:delay=5ms:lba=100+8:nsid=2:skip=3:count=4");
	assert_int_equal(rule.opcode, -1);
	assert_int_equal(rule.delay_ns, 5 * NS_PER_MS);
	assert_int_equal(rule.first_lba, 100);
	assert_int_equal(rule.blocks, 8);
	assert_int_equal(rule.nsid, 2);
	assert_int_equal(rule.skip, 3);
	assert_int_equal(rule.count, 4);
	rule_good("admin-identify:stuck");
	assert_true(rule.admin);
	assert_int_equal(rule.opcode, NVME_ADMIN_IDENTIFY);
	rule_good("admin-0x81:stuck-hard");
	assert_int_equal(rule.opcode, 0x81);
	assert_int_equal(rule.action, EMU_RULE_STUCK_HARD);
	rule_good("enable:not-ready:count=2");
	assert_int_equal(rule.action, EMU_RULE_NOT_READY);
	rule_good("flush:vanish");
	assert_int_equal(rule.opcode, NVME_CMD_FLUSH);
	assert_int_equal(rule.action, EMU_RULE_VANISH);
}

static void test_rules_that_are_wrong(void **state)
{
	rule_bad("", "must be read");
	rule_bad("wright:stuck", "wright");
	rule_bad("256:stuck", "256");
	rule_bad("admin-:stuck", "admin-");
	rule_bad("write:explode", "explode");
	rule_bad("write:status=0x8000", "status=0x8000");
	rule_bad("write:status=0", "status=0");
	rule_bad("write:delay=3", "delay=3");
	rule_bad("write:stuck:when=now", "when=now");
	rule_bad("write:stuck:ppm=1000001", "ppm");
	rule_bad("write:stuck:lba=1", "lba=1");
	rule_bad("write:stuck:lba=1+0", "lba=1+0");
	rule_bad("write:stuck:lba=0xffffffffffffffff+1", "lba=");
}

static void test_help_has_a_line_for_every_option(void **state)
{
	const char *help = emu_options_help();
	unsigned lines = 0;
	for (const char *at = help; *at; at++)
		lines += *at == '\n';
	assert_int_equal(lines, 21);
	assert_non_null(strstr(help, "  cache=... "));
	assert_non_null(strstr(help, "  rule=... "));
	assert_int_equal(help[strlen(help) - 1], '\n');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_no_text_is_all_defaults),
		cmocka_unit_test(test_numbers_sizes_and_times),
		cmocka_unit_test(test_switches_and_words),
		cmocka_unit_test(test_rules_are_collected_up_to_their_limit),
		cmocka_unit_test(test_what_is_wrong_is_named),
		cmocka_unit_test(test_rules_read_as_documented),
		cmocka_unit_test(test_rules_that_are_wrong),
		cmocka_unit_test(test_help_has_a_line_for_every_option),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
