/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/prometheus.h"

#include <stdio.h>

#include "control/histogram.h"
#include "fs/daemon/rpc_client.h"

/* Edges of the histograms' buckets: every power of two from a microsecond to seventeen seconds. */
enum { EDGE_FIRST = 10, EDGE_LAST = 34 };

/* ---- samples ---- */
static void label_print(const char *name, const char *value, bool first)
{
	printf("%s%s=\"", first ? "" : ",", name);
	for (; *value; value++) {
		if (*value == '\n')
			fputs("\\n", stdout);
		else if (*value == '"' || *value == '\\')
			printf("\\%c", *value);
		else
			putchar(*value);
	}
	putchar('"');
}

/* @name, the labels of the mount, and up to one more; the braces are left open. */
static void sample_begin(const char *name, const char *suffix, struct json_object *answer, const char *label,
	const char *value)
{
	printf("lanefs_%s%s{", name, suffix);
	label_print("mount", json_text(answer, "directory"), true);
	label_print("device", json_text(answer, "target"), false);
	if (label)
		label_print(label, value, false);
}

static void heading(const char *name, const char *type, const char *text)
{
	printf("# HELP lanefs_%s %s\n# TYPE lanefs_%s %s\n", name, text, name, type);
}

/* ---- families with one sample per mount ---- */
static const struct plain_family {
	const char *name, *type, *text;
	const char *section, *field; /* section NULL: the answer itself */
	const char *unit_field;      /* of the section: the value counts units of so many; NULL: of one */
} plain_families[] = {
	{"uptime_seconds", "gauge", "Seconds since the daemon started.", NULL, "uptime_seconds"},
	{"filesystem_size_bytes", "gauge", "Size of the filesystem.", "filesystem", "blocks", "block_size"},
	{"filesystem_free_bytes", "gauge", "Free space.", "filesystem", "free_blocks", "block_size"},
	{"filesystem_used_inodes", "gauge", "Inodes in use.", "filesystem", "used_inodes"},
	{"filesystem_free_inodes", "gauge", "Inodes that the free space has room for.", "filesystem", "free_inodes"},
	{"corrupt_blocks_total", "counter", "Metadata blocks that failed verification.", "filesystem", "corrupt_blocks"},
	{"transactions_total", "counter", "Metadata transactions.", NULL, "transactions"},
	{"journal_size_bytes", "gauge", "Size of the journal.", "journal", "bytes"},
	{"journal_used_bytes", "gauge", "Journal that a mount after a crash would replay.", "journal", "used_bytes"},
	{"journal_groups_total", "counter", "Groups written to the journal.", "journal", "groups"},
	{"journal_written_bytes_total", "counter", "Bytes written to the journal.", "journal", "group_bytes"},
	{"journal_flushes_total", "counter", "Device cache flushes that the journal asked for.", "journal", "flushes"},
	{"journal_checkpoints_total", "counter", "Checkpoints.", "journal", "checkpoints"},
	{"cache_bytes", "gauge", "Metadata in the cache.", "cache", "bytes"},
	{"cache_limit_bytes", "gauge", "Limit of the metadata cache.", "cache", "limit_bytes"},
	{"cache_dirty_bytes", "gauge", "Metadata that waits to be written home.", "cache", "dirty_bytes"},
	{"cache_hits_total", "counter", "Metadata blocks found in the cache.", "cache", "hits"},
	{"cache_misses_total", "counter", "Metadata blocks read from the device.", "cache", "misses"},
	{"requests_running", "gauge", "Kernel requests taken and not answered.", NULL, "requests_running"},
	{"device_outstanding", "gauge", "Operations that the device has now.", "device", "outstanding"},
	{"device_fua_writes_total", "counter", "Writes forced through the device cache.", "device", "fua_writes"},
	{"device_splits_total", "counter", "Operations that took more than one command.", "device", "splits"},
	{"device_bounces_total", "counter", "Commands that went through a bounce buffer.", "device", "bounces"},
	{"device_no_memory_total", "counter", "Commands that waited for room in the device queue.", "device", "no_memory"},
	{"device_retries_total", "counter", "Commands that were repeated.", "device", "retries"},
};

static void plain_print(const struct plain_family *family, struct json_object *answers)
{
	heading(family->name, family->type, family->text);
	for (size_t i = 0; i < json_object_array_length(answers); i++) {
		struct json_object *answer = json_object_array_get_idx(answers, i);
		struct json_object *section = family->section ? json_child(answer, family->section) : answer;
		uint64_t unit = family->unit_field ? (uint64_t)json_number(section, family->unit_field) : 1;

		sample_begin(family->name, "", answer, NULL, NULL);
		printf("} %llu\n", (unsigned long long)((uint64_t)json_number(section, family->field) * unit));
	}
}

static void stopped_print(struct json_object *answers)
{
	heading("stopped", "gauge", "1 when the filesystem has stopped on an error.");
	for (size_t i = 0; i < json_object_array_length(answers); i++) {
		struct json_object *answer = json_object_array_get_idx(answers, i);

		sample_begin("stopped", "", answer, NULL, NULL);
		printf("} %d\n", json_number(json_child(answer, "filesystem"), "stopped") != 0);
	}
}

/* ---- families with a sample per operation ---- */
static const struct operation_family {
	const char *name, *text, *section, *label, *field; /* field NULL: a histogram */
} operation_families[] = {
	{"device_operations_total", "Operations of the device.", "device", "operation", "count"},
	{"device_bytes_total", "Bytes that they moved.", "device", "operation", "bytes"},
	{"device_errors_total", "Those that failed.", "device", "operation", "errors"},
	{"device_latency_seconds", "From submitting to completion.", "device", "operation", NULL},
	{"requests_total", "Requests of the kernel.", "fuse", "request", "count"},
	{"request_bytes_total", "Bytes of file data that they moved.", "fuse", "request", "bytes"},
	{"request_errors_total", "Those that were answered with an error.", "fuse", "request", "errors"},
	{"request_latency_seconds", "From reading a request to answering it.", "fuse", "request", NULL},
};

static void histogram_print(const struct operation_family *family, struct json_object *answer, const char *operation,
	struct json_object *figures)
{
	struct histogram histogram = {0};

	histogram_add(&histogram, figures);
	for (unsigned edge = EDGE_FIRST; edge <= EDGE_LAST; edge++) {
		sample_begin(family->name, "_bucket", answer, family->label, operation);
		printf(",le=\"%.9g\"} %llu\n", (double)(1ull << edge) / NS_PER_SEC,
			(unsigned long long)histogram_below(&histogram, 1ull << edge));
	}
	sample_begin(family->name, "_bucket", answer, family->label, operation);
	printf(",le=\"+Inf\"} %llu\n", (unsigned long long)histogram.count);
	sample_begin(family->name, "_sum", answer, family->label, operation);
	printf("} %.9f\n", (double)json_number(figures, "total_ns") / NS_PER_SEC);
	sample_begin(family->name, "_count", answer, family->label, operation);
	printf("} %llu\n", (unsigned long long)histogram.count);
}

static void operation_print(const struct operation_family *family, struct json_object *answer, const char *operation,
	struct json_object *figures)
{
	if (!family->field) {
		histogram_print(family, answer, operation, figures);
	} else if (json_child(figures, family->field)) {
		sample_begin(family->name, "", answer, family->label, operation);
		printf("} %llu\n", (unsigned long long)json_number(figures, family->field));
	}
}

static void operations_print(const struct operation_family *family, struct json_object *answers)
{
	heading(family->name, family->field ? "counter" : "histogram", family->text);
	for (size_t i = 0; i < json_object_array_length(answers); i++) {
		struct json_object *answer = json_object_array_get_idx(answers, i);
		struct json_object *section = json_child(answer, family->section);

		if (!json_object_is_type(section, json_type_object))
			continue;
		json_object_object_foreach(section, operation, figures) {
			if (json_object_is_type(figures, json_type_object))
				operation_print(family, answer, operation, figures);
		}
	}
}

/* ---- families with a sample per reactor ---- */
static const struct reactor_family {
	const char *name, *type, *text, *field;
	bool nanoseconds;
} reactor_families[] = {
	{"reactor_busy_seconds_total", "counter", "Time in turns that did work.", "busy_ns", true},
	{"reactor_turns_total", "counter", "Turns.", "turns"},
	{"reactor_sleeps_total", "counter", "Times that the reactor went to sleep.", "sleeps"},
	{"reactor_messages_total", "counter", "Messages that ran.", "messages"},
	{"reactor_fibers_started_total", "counter", "Fibers started.", "fibers_started"},
	{"reactor_messages_waiting", "gauge", "Messages that wait to run.", "messages_waiting"},
	{"reactor_fibers_running", "gauge", "Fibers under way.", "fibers_running"},
	{"reactor_fibers_runnable", "gauge", "Fibers that wait for their turn.", "fibers_runnable"},
	{"reactor_fibers_waiting", "gauge", "Fibers that wait for a stack.", "fibers_waiting"},
};

static void reactor_print(const struct reactor_family *family, struct json_object *answer, struct json_object *reactor)
{
	char index[24];

	snprintf(index, sizeof(index), "%lld", (long long)json_number(reactor, "reactor"));
	sample_begin(family->name, "", answer, "reactor", index);
	if (family->nanoseconds)
		printf("} %.9f\n", (double)json_number(reactor, family->field) / NS_PER_SEC);
	else
		printf("} %lld\n", (long long)json_number(reactor, family->field));
}

static void reactors_print(const struct reactor_family *family, struct json_object *answers)
{
	heading(family->name, family->type, family->text);
	for (size_t i = 0; i < json_object_array_length(answers); i++) {
		struct json_object *answer = json_object_array_get_idx(answers, i), *reactors = json_child(answer, "reactors");
		size_t count = json_object_is_type(reactors, json_type_array) ? json_object_array_length(reactors) : 0;

		for (size_t r = 0; r < count; r++)
			reactor_print(family, answer, json_object_array_get_idx(reactors, r));
	}
}

void prometheus_print(struct json_object *answers)
{
	for (size_t i = 0; i < ARRAY_SIZE(plain_families); i++)
		plain_print(&plain_families[i], answers);
	stopped_print(answers);
	for (size_t i = 0; i < ARRAY_SIZE(operation_families); i++)
		operations_print(&operation_families[i], answers);
	for (size_t i = 0; i < ARRAY_SIZE(reactor_families); i++)
		reactors_print(&reactor_families[i], answers);
}
