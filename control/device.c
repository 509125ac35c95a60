/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs identify, health, reset, detach, attach, emu: the device under a mount, by way of its daemon.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "control/control.h"
#include "fs/daemon/options.h"
#include "fs/daemon/rpc_client.h"

static const char identify_help[] =
	"Usage: lanefs identify DIR [--json]\n"
	"Shows the NVMe controller under the mount at DIR as lanefs's own driver sees it, and its namespaces.\n";
static const char health_help[] =
	"Usage: lanefs health DIR [--json]\n"
	"Shows the SMART log of the NVMe controller under the mount at DIR. Status 1: it has a critical warning.\n";
static const char reset_help[] =
	"Usage: lanefs reset DIR\n"
	"Resets the NVMe controller under the mount at DIR. What is under way is sent again; nothing is lost.\n";
static const char detach_help[] =
	"Usage: lanefs detach [--surprise] DIR\n"
	"Lets the device under the mount at DIR go, so that it can be pulled out. Everything is written and checkpointed first.\n"
	"Then, with on_removal=unmount, the mount ends (open files answer errors); with on_removal=wait it waits for the\n"
	"device to come back, see lanefs attach. Of a mount that waits already: ends the wait, and the mount.\n"
	"  --surprise  as if it had been pulled out without a word; an emulated drive really is\n";
static const char attach_help[] =
	"Usage: lanefs attach DIR [TARGET]\n"
	"Brings back the device that the mount at DIR waits for: from where it was, or from TARGET (0000:5e:00.0, emu:IMAGE).\n"
	"It must hold the same filesystem, unchanged; otherwise it is refused, and the wait goes on.\n";
static const char emu_help[] =
	"Usage: lanefs emu DIR ACTION\n"
	"  rule TEXT           adds a rule, OPCODE:ACTION[:KEY=VALUE...], for example write:stuck:skip=100:count=1\n"
	"                        OPCODE  read, write, flush, zeroes, dsm, any, enable, admin-identify, admin-any, ...\n"
	"                        ACTION  delay=TIME, status=NUMBER, stuck, stuck-hard, fatal, lie, vanish, not-ready\n"
	"                        KEY     skip=N, count=N, ppm=N, nsid=N, lba=FIRST+BLOCKS\n"
	"  rules | clear       shows the rules and how often each acted; takes them all away\n"
	"  power-cut           cuts the power for a moment: what the drive had not made durable is lost, as set by:\n"
	"  cut all|random|none [SEED]\n"
	"  request             asks for the device, as somebody who wants to pull it out in an orderly way\n"
	"  health BITS         critical warning bits of the SMART log\n"
	"  resize NSID BLOCKS  the size of a namespace\n"
	"  stats               commands, flushes, bytes lost\n";

/* ---- arguments ---- */
struct device_arguments {
	const char *words[8]; /* what is no flag */
	unsigned count;
	bool json, surprise;
};

/* True: go on; false: *status is what to end with. */
static bool arguments_parse(int argc, char **argv, const char *help, struct device_arguments *out, int *status)
{
	*out = (struct device_arguments){};
	*status = CONTROL_EXIT_OK;
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "-h") || !strcmp(argv[i], "--help")) {
			fputs(help, stdout);
			return false;
		}
		if (!strcmp(argv[i], "--json")) {
			out->json = true;
		} else if (!strcmp(argv[i], "--surprise")) {
			out->surprise = true;
		} else if (argv[i][0] == '-' || out->count == ARRAY_SIZE(out->words)) {
			*status = control_fail(CONTROL_EXIT_USAGE, argv[i], "not understood (try --help)");
			return false;
		} else {
			out->words[out->count++] = argv[i];
		}
	}
	if (out->count == 0) {
		*status = control_fail(CONTROL_EXIT_USAGE, argv[0], "wanted: a mount point (try --help)");
		return false;
	}
	return true;
}

static int too_many(const struct device_arguments *arguments, unsigned wanted)
{
	return control_fail(CONTROL_EXIT_USAGE, arguments->words[wanted], "one word too many (try --help)");
}

static bool json_true(struct json_object *object, const char *key)
{
	struct json_object *value = json_child(object, key);

	return value && json_object_get_boolean(value);
}

/* ---- identify ---- */
static void print_namespace(struct json_object *ns)
{
	uint64_t blocks = (uint64_t)json_number(ns, "blocks"), block_size = (uint64_t)json_number(ns, "block_size");
	char size[16];

	printf("  namespace %lld: %s in blocks of %llu bytes, writes of %lld blocks are never torn%s%s%s\n",
		(long long)json_number(ns, "nsid"), format_bytes(blocks * block_size, size), (unsigned long long)block_size,
		(long long)json_number(ns, "atomic_write_blocks"), json_true(ns, "read_only") ? ", read-only" : "",
		*json_text(ns, "refused") ? "; not used: it " : "", json_text(ns, "refused"));
}

static void print_controller(struct json_object *controller)
{
	struct json_object *namespaces = json_child(controller, "namespaces");
	size_t count = json_count(namespaces);
	char bytes[16];

	printf("%s: %s, serial %s, firmware %s, NVMe %s%s\n", json_text(controller, "name"), json_text(controller, "model"),
		json_text(controller, "serial"), json_text(controller, "firmware"), json_text(controller, "version"),
		json_true(controller, "emulated") ? " (emulated)" : "");
	printf("  volatile write cache: %s\n", !json_true(controller, "cache_present") ? "none" :
		json_true(controller, "cache_on") ? "on, flushed" : "turned off");
	printf("  %lld queues of %lld commands, transfers to %s, %s%s%s%s\n", (long long)json_number(controller, "io_queues"),
		(long long)json_number(controller, "queue_depth"),
		format_bytes((uint64_t)json_number(controller, "transfer_bytes_max"), bytes),
		json_true(controller, "interrupts") ? "interrupts" : "polled",
		json_true(controller, "shadow_doorbells") ? ", shadow doorbells" : "",
		json_true(controller, "dsm") ? ", discard" : "", json_true(controller, "write_zeroes") ? ", write zeroes" : "");
	for (size_t i = 0; i < count; i++)
		print_namespace(json_object_array_get_idx(namespaces, i));
}

int control_identify(int argc, char **argv)
{
	struct device_arguments arguments;
	struct json_object *result;
	int status;

	if (!arguments_parse(argc, argv, identify_help, &arguments, &status))
		return status;
	if (arguments.count > 1)
		return too_many(&arguments, 1);
	status = control_ask(arguments.words[0], "nvme_identify", NULL, &result);
	if (status)
		return status;
	if (arguments.json)
		control_print_json(result);
	else
		print_controller(result);
	json_object_put(result);
	return CONTROL_EXIT_OK;
}

/* ---- health ---- */
static void print_health(struct json_object *health)
{
	static const struct {
		const char *key, *text, *unit;
	} rows[] = {
		{"temperature_celsius", "temperature", " C"},
		{"available_spare_percent", "spare left", " %"},
		{"used_percent", "worn", " %"},
		{"power_on_hours", "powered on", " hours"},
		{"power_cycles", "power cycles", ""},
		{"unsafe_shutdowns", "unsafe shutdowns", ""},
		{"host_reads", "reads", ""},
		{"host_writes", "writes", ""},
		{"media_errors", "media errors", ""},
		{"error_entries", "error log entries", ""},
	};
	struct json_object *warnings = json_child(health, "warnings");
	size_t count = json_count(warnings);
	char bytes[16];

	printf("%-18s %s", "critical warnings", count ? "" : "none");
	for (size_t i = 0; i < count; i++)
		printf("%s%s", i ? ", " : "", json_text_at(warnings, i));
	puts("");
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		printf("%-18s %lld%s\n", rows[i].text, (long long)json_number(health, rows[i].key), rows[i].unit);
	/* Units of a thousand blocks of 512 bytes. */
	printf("%-18s %s\n", "read", format_bytes((uint64_t)json_number(health, "data_units_read") * 512000, bytes));
	printf("%-18s %s\n", "written", format_bytes((uint64_t)json_number(health, "data_units_written") * 512000, bytes));
}

int control_health(int argc, char **argv)
{
	struct device_arguments arguments;
	struct json_object *result;
	int status;

	if (!arguments_parse(argc, argv, health_help, &arguments, &status))
		return status;
	if (arguments.count > 1)
		return too_many(&arguments, 1);
	status = control_ask(arguments.words[0], "nvme_health", NULL, &result);
	if (status)
		return status;
	if (arguments.json)
		control_print_json(result);
	else
		print_health(result);
	status = json_number(result, "critical_warning") ? CONTROL_EXIT_FAILED : CONTROL_EXIT_OK;
	json_object_put(result);
	return status;
}

/* ---- reset, detach, attach ---- */
int control_reset(int argc, char **argv)
{
	struct device_arguments arguments;
	struct json_object *result;
	int status;

	if (!arguments_parse(argc, argv, reset_help, &arguments, &status))
		return status;
	if (arguments.count > 1)
		return too_many(&arguments, 1);
	status = control_ask(arguments.words[0], "nvme_reset", NULL, &result);
	if (status)
		return status;
	printf("reset; %lld since it was attached\n", (long long)json_number(result, "resets"));
	json_object_put(result);
	return CONTROL_EXIT_OK;
}

int control_detach(int argc, char **argv)
{
	struct json_object *params = NULL, *result;
	struct device_arguments arguments;
	const char *directory, *state;
	bool ended, clean;
	int status;

	if (!arguments_parse(argc, argv, detach_help, &arguments, &status))
		return status;
	if (arguments.count > 1)
		return too_many(&arguments, 1);
	directory = arguments.words[0];
	control_add(&params, "surprise", json_object_new_boolean(arguments.surprise));
	status = control_ask(directory, "bdev_detach", params, &result);
	if (status)
		return status;
	state = json_text(result, "state");
	ended = json_child(result, "clean");
	clean = json_true(result, "clean");
	if (!strcmp(state, "held"))
		printf("%s waits for its device: bring it back with lanefs attach %s\n", directory, directory);
	else
		printf("%s: %s\n", directory, !ended ? "the device is gone; the mount ends" : clean ?
			"unmounted; the filesystem on the device is clean" : "the mount has ended without its device");
	json_object_put(result);
	return ended && !clean ? CONTROL_EXIT_FAILED : CONTROL_EXIT_OK;
}

int control_attach(int argc, char **argv)
{
	struct json_object *params = NULL, *result;
	struct device_arguments arguments;
	char target[PATH_MAX];
	int status, err;

	if (!arguments_parse(argc, argv, attach_help, &arguments, &status))
		return status;
	if (arguments.count > 2)
		return too_many(&arguments, 2);
	if (arguments.count == 2) {
		snprintf(target, sizeof(target), "%s", arguments.words[1]);
		err = target_resolve(target);
		if (err)
			return control_fail(CONTROL_EXIT_FAILED, arguments.words[1], strerror(-err));
		control_add(&params, "target", json_object_new_string(target));
	}
	status = control_ask(arguments.words[0], "bdev_attach", params, &result);
	if (status)
		return status;
	printf("%s goes on\n", arguments.words[0]);
	json_object_put(result);
	return CONTROL_EXIT_OK;
}

/* ---- emu ---- */
static void print_rules(struct json_object *rules)
{
	size_t count = json_count(rules);

	for (size_t i = 0; i < count; i++) {
		struct json_object *rule = json_object_array_get_idx(rules, i);

		printf("%zu: %s opcode %lld: %s, acted %lld times", i, json_true(rule, "admin") ? "admin" : "I/O",
			(long long)json_number(rule, "opcode"), json_text(rule, "action"), (long long)json_number(rule, "hits"));
		if (json_number(rule, "skip"))
			printf(", after %lld", (long long)json_number(rule, "skip"));
		if (json_number(rule, "count"))
			printf(", %lld at most", (long long)json_number(rule, "count"));
		puts("");
	}
	if (count == 0)
		puts("no rules");
}

static void print_index(struct json_object *result) { printf("rule %lld\n", (long long)json_number(result, "index")); }

static void add_number(struct json_object **params, const char *key, const char *text)
{
	char *end;
	long long number = strtoll(text, &end, 0);

	/* What is no number goes as it is: the daemon says what is wrong with it. */
	control_add(params, key, *end || !*text ? json_object_new_string(text) : json_object_new_int64(number));
}

static void add_text(struct json_object **params, const char *key, const char *text)
{
	control_add(params, key, json_object_new_string(text));
}

static const struct emu_action {
	const char *name, *method;
	unsigned words_min, words_max; /* behind the name */
	struct {
		const char *key;
		void (*add)(struct json_object **params, const char *key, const char *text);
	} words[2];
	void (*print)(struct json_object *result); /* NULL: nothing to say */
} emu_actions[] = {
	{"rule", "emu_rule_add", 1, 1, {{"rule", add_text}}, print_index},
	{"rules", "emu_rules", 0, 0, {{}}, print_rules},
	{"clear", "emu_rules_clear", 0, 0, {{}}, NULL},
	{"power-cut", "emu_power_cut", 0, 0, {{}}, NULL},
	{"cut", "emu_set_cut", 1, 2, {{"mode", add_text}, {"seed", add_number}}, NULL},
	{"request", "emu_request", 0, 0, {{}}, NULL},
	{"health", "emu_set_health", 1, 1, {{"critical_warning", add_number}}, NULL},
	{"resize", "emu_ns_resize", 2, 2, {{"nsid", add_number}, {"blocks", add_number}}, NULL},
	{"stats", "emu_stats", 0, 0, {{}}, control_print_json},
};

static int emu_run(const struct emu_action *action, const struct device_arguments *arguments)
{
	struct json_object *params = NULL, *result;
	int status;

	for (unsigned i = 2; i < arguments->count; i++)
		action->words[i - 2].add(&params, action->words[i - 2].key, arguments->words[i]);
	status = control_ask(arguments->words[0], action->method, params, &result);
	if (status)
		return status;
	if (arguments->json)
		control_print_json(result);
	else if (action->print)
		action->print(result);
	json_object_put(result);
	return CONTROL_EXIT_OK;
}

int control_emu(int argc, char **argv)
{
	struct device_arguments arguments;
	int status;

	if (!arguments_parse(argc, argv, emu_help, &arguments, &status))
		return status;
	if (arguments.count < 2)
		return control_fail(CONTROL_EXIT_USAGE, "emu", "wanted: DIR ACTION (try --help)");
	for (size_t i = 0; i < ARRAY_SIZE(emu_actions); i++) {
		const struct emu_action *action = &emu_actions[i];

		if (strcmp(action->name, arguments.words[1]))
			continue;
		if (arguments.count - 2 < action->words_min || arguments.count - 2 > action->words_max)
			return control_fail(CONTROL_EXIT_USAGE, action->name, "another number of words is wanted (try --help)");
		return emu_run(action, &arguments);
	}
	return control_fail(CONTROL_EXIT_USAGE, arguments.words[1], "no such action (try --help)");
}
