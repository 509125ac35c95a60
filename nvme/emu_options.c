/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Options of an emulated drive as text: "cache=16M,lba=512,cut=random". One table says what each is called, how its
 * value reads, where it goes and what a help text says of it. Rules have a grammar of their own: emu_rule_text.c.
 */
#include <errno.h>
#include <stdio.h>

#include "nvme/emu_text.h"

enum option_kind {
	OPTION_NUMBER,
	OPTION_SECTOR, /* one of two numbers */
	OPTION_SIZE,
	OPTION_TIME,
	OPTION_YES,    /* on: true */
	OPTION_NO,     /* off: true */
	OPTION_WORD,
	OPTION_SERIAL,
	OPTION_RULE,
};

struct option {
	const char *name;
	enum option_kind kind;
	size_t at;                   /* in struct emu_options */
	size_t bytes;                /* of the field */
	uint64_t min, max;           /* numbers */
	const char *values;          /* what it may be, for messages */
	const char *const *words;    /* OPTION_WORD: by value, NULL at the end */
	const char *help;
};

static const char *const cut_words[] = {
	[EMU_CUT_ALL] = "all", [EMU_CUT_RANDOM] = "random", [EMU_CUT_NONE] = "none", NULL};

#define FIELD(name) offsetof(struct emu_options, name), sizeof(((struct emu_options *)0)->name)
#define NUMBER(min, max, values) min, max, values, NULL
#define SWITCH 0, 1, "on or off", NULL

static const struct option options[] = {
	{"cache", OPTION_SIZE, FIELD(cache_bytes), NUMBER(0, GIB(4), "0 to 4G"),
		"write cache of the drive, lost when it is pulled; 0: the medium's own"},
	{"vwc", OPTION_NO, FIELD(no_volatile_cache), SWITCH, "off: no volatile write cache, every write is durable"},
	{"cache-fixed", OPTION_YES, FIELD(cache_fixed), SWITCH, "on: the write cache cannot be turned off"},
	{"lba", OPTION_SECTOR, FIELD(lba_bytes), NUMBER(512, 4096, "512 or 4096"), "bytes per block"},
	{"metadata", OPTION_NUMBER, FIELD(metadata_bytes), NUMBER(0, 128, "0 to 128"),
		"formatted with metadata, to be refused"},
	{"zoned", OPTION_YES, FIELD(zoned), SWITCH, "on: a zoned namespace, to be refused"},
	{"namespaces", OPTION_NUMBER, FIELD(namespaces), NUMBER(1, 64, "1 to 64"), "equal parts of the medium"},
	{"queues", OPTION_NUMBER, FIELD(queues_max), NUMBER(1, 256, "1 to 256"), "I/O queue pairs"},
	{"depth", OPTION_NUMBER, FIELD(depth_max), NUMBER(2, 65536, "2 to 65536"), "entries per queue"},
	{"mdts", OPTION_NUMBER, FIELD(mdts), NUMBER(1, 15, "1 to 15"),
		"largest transfer, 2^n pages of 4 KiB; 15: no limit"},
	{"boundary", OPTION_NUMBER, FIELD(boundary_blocks), NUMBER(0, 65535, "0 to 65535"),
		"optimal I/O boundary in blocks"},
	{"shadow", OPTION_NO, FIELD(no_shadow_doorbells), SWITCH, "off: no shadow doorbells"},
	{"interrupts", OPTION_NO, FIELD(no_interrupts), SWITCH, "off: the driver must poll"},
	{"dsm", OPTION_NO, FIELD(no_dsm), SWITCH, "off: no deallocation"},
	{"zeroes", OPTION_NO, FIELD(no_write_zeroes), SWITCH, "off: no Write Zeroes"},
	{"latency", OPTION_TIME, FIELD(latency_ns), NUMBER(0, 3600 * NS_PER_SEC, "a time like 100us, 5ms, 1s"),
		"added to every I/O command"},
	{"cut", OPTION_WORD, FIELD(cut), 0, 0, "all, random or none", cut_words,
		"what a power cut takes of what was not flushed"},
	{"tear", OPTION_SECTOR, FIELD(tear_bytes), NUMBER(512, 4096, "512 or 4096"),
		"pieces that survive a random cut, bytes"},
	{"seed", OPTION_NUMBER, FIELD(seed), NUMBER(0, UINT64_MAX, "a number"), "of everything random"},
	{"serial", OPTION_SERIAL, FIELD(serial), 0, 0, "1 to 20 printable characters", NULL, "serial number"},
	{"rule", OPTION_RULE, 0, 0, 0, 0, "OPCODE:ACTION[:KEY=VALUE...]", NULL,
		"what goes wrong, as write:status=0x280:skip=100:count=1"},
};

/* ---- values ---- */

static void field_store(void *field, size_t bytes, uint64_t value)
{
	switch (bytes) {
	case sizeof(bool): *(bool *)field = value != 0; break;
	case sizeof(uint32_t): *(uint32_t *)field = (uint32_t)value; break;
	default: *(uint64_t *)field = value;
	}
}

static bool serial_parse(struct text value, char *out)
{
	if (value.length == 0 || value.length > 20)
		return false;
	for (size_t i = 0; i < value.length; i++)
		if (value.at[i] < ' ' || value.at[i] > '~')
			return false;
	memcpy(out, value.at, value.length);
	out[value.length] = '\0';
	return true;
}

static bool word_parse(struct text value, const char *const *words, uint64_t *out)
{
	for (uint64_t i = 0; words[i]; i++) {
		if (text_is(value, words[i])) {
			*out = i;
			return true;
		}
	}
	return false;
}

static bool switch_parse(struct text value, bool inverted, uint64_t *out)
{
	if (!text_is(value, "on") && !text_is(value, "off"))
		return false;
	*out = text_is(value, "on") != inverted;
	return true;
}

static bool value_parse(const struct option *option, struct text value, uint64_t *out)
{
	switch (option->kind) {
	case OPTION_NUMBER: return text_number(value, out) && *out >= option->min && *out <= option->max;
	case OPTION_SECTOR: return text_number(value, out) && (*out == option->min || *out == option->max);
	case OPTION_SIZE: return text_size(value, out) && *out <= option->max;
	case OPTION_TIME: return text_time(value, out) && *out <= option->max;
	case OPTION_YES: return switch_parse(value, false, out);
	case OPTION_NO: return switch_parse(value, true, out);
	default: return word_parse(value, option->words, out);
	}
}

/* ---- one option ---- */

static int rule_add(struct emu_options *out, struct text value, char *message, size_t message_size)
{
	char text[128];
	if (out->rule_count == EMU_RULES_MAX) {
		snprintf(message, message_size, "rule: at most %d of them", EMU_RULES_MAX);
		return -EINVAL;
	}
	if (value.length >= sizeof(text)) {
		snprintf(message, message_size, "rule: longer than %zu characters", sizeof(text) - 1);
		return -EINVAL;
	}
	memcpy(text, value.at, value.length);
	text[value.length] = '\0';
	const int err = emu_rule_parse(text, &out->rules[out->rule_count], message, message_size);
	out->rule_count += !err;
	return err;
}

static int option_parse(const struct option *option, struct text value, struct emu_options *out, char *message,
	size_t message_size)
{
	uint64_t number = 0;
	bool good;
	if (option->kind == OPTION_RULE)
		return rule_add(out, value, message, message_size);
	if (option->kind == OPTION_SERIAL)
		good = serial_parse(value, out->serial);
	else
		good = value_parse(option, value, &number);
	if (!good) {
		snprintf(message, message_size, "%s=%.*s: must be %s", option->name, text_width(value), value.at,
			option->values);
		return -EINVAL;
	}
	if (option->kind != OPTION_SERIAL)
		field_store((char *)out + option->at, option->bytes, number);
	return 0;
}

static const struct option *option_find(struct text name)
{
	for (size_t i = 0; i < ARRAY_SIZE(options); i++)
		if (text_is(name, options[i].name))
			return &options[i];
	return NULL;
}

int emu_options_parse(const char *text, struct emu_options *out, char *message, size_t message_size)
{
	struct text rest = text_of(text);
	memset(out, 0, sizeof(*out));
	while (rest.length > 0) {
		struct text value = text_cut(&rest, ','), name = text_cut(&value, '=');
		const struct option *option = option_find(name);
		if (!option) {
			snprintf(message, message_size, "%.*s: no option of an emulated drive (cache, lba, cut, rule, ...)",
				text_width(name), name.at);
			return -EINVAL;
		}
		const int err = option_parse(option, value, out, message, message_size);
		if (err)
			return err;
	}
	return 0;
}

/* ---- help ---- */

const char *emu_options_help(void)
{
	static char help[4096]; /* the same each time, whoever writes it */
	size_t used = 0;
	for (size_t i = 0; i < ARRAY_SIZE(options) && used < sizeof(help); i++) {
		char left[64];
		snprintf(left, sizeof(left), "%s=...", options[i].name);
		used += (size_t)snprintf(help + used, sizeof(help) - used, "  %-16s %s (%s)\n", left, options[i].help,
			options[i].values);
	}
	return help;
}
