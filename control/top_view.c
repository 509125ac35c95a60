/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The views of lanefs top: what a daemon counted between two answers, as rows.
 */
#include <math.h>
#include <stdio.h>

#include "control/control.h"
#include "control/histogram.h"
#include "control/top.h"
#include "fs/daemon/rpc_client.h"

/* ---- differences ---- */
/* Of two versions of one object of the answer. Counters never shrink while the daemon lives. */
static double counted(struct json_object *now, struct json_object *before, const char *key)
{
	const int64_t later = json_number(now, key), earlier = json_number(before, key);

	return later > earlier ? (double)(later - earlier) : 0;
}

/* Of all or some operations of a section ("fuse", "device"). */
struct operations {
	double count, errors, bytes, total_ns;
	struct histogram latency;
};

static void operation_add(struct operations *sum, struct json_object *now, struct json_object *before)
{
	sum->count += counted(now, before, "count");
	sum->errors += counted(now, before, "errors");
	sum->bytes += counted(now, before, "bytes");
	sum->total_ns += counted(now, before, "total_ns");
	struct histogram earlier = {0}, later = {0};
	histogram_add(&later, now);
	histogram_add(&earlier, before);
	histogram_subtract(&later, &earlier);
	sum->latency.count += later.count;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
		sum->latency.bucket[i] += later.bucket[i];
}

/* @only NULL: all. */
static void operations_sum(struct operations *sum, const struct top_daemon *daemon, const char *section, const char *only)
{
	struct json_object *now = json_child(daemon->now, section), *before = json_child(daemon->before, section);

	*sum = (struct operations){0};
	if (!json_object_is_type(now, json_type_object))
		return;
	json_object_object_foreach(now, name, figures) {
		if (json_object_is_type(figures, json_type_object) && (!only || !strcmp(name, only)))
			operation_add(sum, figures, json_child(before, name));
	}
}

static double bytes_rate(const struct top_daemon *daemon, const char *section, const char *operation)
{
	struct operations sum;

	operations_sum(&sum, daemon, section, operation);
	return sum.bytes / daemon->seconds;
}

static double count_rate(const struct top_daemon *daemon, const char *section, const char *operation)
{
	struct operations sum;

	operations_sum(&sum, daemon, section, operation);
	return sum.count / daemon->seconds;
}

/* p50, p99, max */
static void latency_fill(double value[3], const struct histogram *latency)
{
	if (!latency->count)
		return;
	value[0] = histogram_percentile(latency, 0.5);
	value[1] = histogram_percentile(latency, 0.99);
	value[2] = histogram_max(latency);
}

static double share(double part, double whole) { return whole > 0 ? 100 * part / whole : NAN; }

/* ---- rows ---- */
static void name_fill(struct top_row *row, const struct top_daemon *daemon, const char *key)
{
	const char *state = json_text(daemon->now, "state");

	if (json_number(json_child(daemon->now, "filesystem"), "stopped"))
		state = "STOPPED";
	if (daemon->state != TOP_ANSWERED)
		state = daemon->state == TOP_ENDED ? "ended" : "no answer";
	if (!daemon->now)
		snprintf(row->name, sizeof(row->name), "process %d (%s)", (int)daemon->pid, state);
	else
		snprintf(row->name, sizeof(row->name), strcmp(state, "mounted") ? "%s (%s)" : "%s", json_text(daemon->now, key), state);
}

static void mount_fill(struct top_rows *rows, const struct top_daemon *daemon)
{
	struct json_object *cache = json_child(daemon->now, "cache"), *journal = json_child(daemon->now, "journal");
	struct json_object *cache_before = json_child(daemon->before, "cache");
	struct top_row *row = top_rows_add(rows);
	struct operations requests;

	if (!row)
		return;
	name_fill(row, daemon, "directory");
	if (daemon->state != TOP_ANSWERED)
		return;
	operations_sum(&requests, daemon, "fuse", NULL);
	row->value[0] = requests.count / daemon->seconds;
	row->value[1] = bytes_rate(daemon, "fuse", "READ");
	row->value[2] = bytes_rate(daemon, "fuse", "WRITE");
	latency_fill(&row->value[3], &requests.latency);
	row->value[6] = requests.total_ns / (daemon->seconds * NS_PER_SEC);
	const double hits = counted(cache, cache_before, "hits"), misses = counted(cache, cache_before, "misses");
	row->value[7] = share(hits, hits + misses);
	row->value[8] = share((double)json_number(journal, "used_bytes"), (double)json_number(journal, "bytes"));
	row->value[9] = (double)json_number(daemon->now, "requests_running");
}

static void device_fill(struct top_rows *rows, const struct top_daemon *daemon)
{
	struct top_row *row = top_rows_add(rows);
	struct operations all;

	if (!row)
		return;
	name_fill(row, daemon, "target");
	if (daemon->state != TOP_ANSWERED)
		return;
	operations_sum(&all, daemon, "device", NULL);
	row->value[0] = count_rate(daemon, "device", "read");
	row->value[1] = count_rate(daemon, "device", "write");
	row->value[2] = bytes_rate(daemon, "device", "read");
	row->value[3] = bytes_rate(daemon, "device", "write");
	row->value[4] = count_rate(daemon, "device", "flush");
	row->value[5] = all.total_ns / (daemon->seconds * NS_PER_SEC);
	latency_fill(&row->value[6], &all.latency);
	row->value[9] = (double)json_number(json_child(daemon->now, "device"), "outstanding");
}

static void reactor_fill(struct top_rows *rows, const struct top_daemon *daemon)
{
	struct json_object *now = json_child(daemon->now, "reactors"), *before = json_child(daemon->before, "reactors");
	const size_t count = json_count(now);

	for (size_t i = 0; i < count; i++) {
		struct json_object *reactor = json_object_array_get_idx(now, i);
		struct json_object *earlier = i < json_count(before) ? json_object_array_get_idx(before, i) : NULL;
		struct top_row *row = top_rows_add(rows);

		if (!row)
			return;
		name_fill(row, daemon, "directory");
		snprintf(row->name + strlen(row->name), sizeof(row->name) - strlen(row->name), " #%zu", i);
		if (daemon->state != TOP_ANSWERED)
			continue;
		row->value[0] = MIN(100 * counted(reactor, earlier, "busy_ns") / (daemon->seconds * NS_PER_SEC), 100.0);
		row->value[1] = (double)json_number(reactor, "fibers_running");
		row->value[2] = (double)json_number(reactor, "fibers_runnable");
		row->value[3] = (double)json_number(reactor, "fibers_waiting");
		row->value[4] = counted(reactor, earlier, "messages") / daemon->seconds;
		row->value[5] = (double)json_number(reactor, "messages_waiting");
		row->value[6] = counted(reactor, earlier, "sleeps") / daemon->seconds;
		if (json_child(reactor, "core"))
			row->value[7] = (double)json_number(reactor, "core");
	}
}

/* A row for each request that occurred. */
static void request_fill(struct top_rows *rows, const struct top_daemon *daemon)
{
	struct json_object *now = json_child(daemon->now, "fuse"), *before = json_child(daemon->before, "fuse");

	if (daemon->state != TOP_ANSWERED || !json_object_is_type(now, json_type_object))
		return;
	json_object_object_foreach(now, name, figures) {
		struct operations sum = {0};
		struct top_row *row;

		if (json_object_is_type(figures, json_type_object))
			operation_add(&sum, figures, json_child(before, name));
		if (sum.count == 0 || !(row = top_rows_add(rows)))
			continue;
		snprintf(row->name, sizeof(row->name), "%s %s", name, json_text(daemon->now, "directory"));
		row->keep = (unsigned)strlen(name) + 1;
		row->value[0] = sum.count;
		row->value[1] = sum.count / daemon->seconds;
		latency_fill(&row->value[2], &sum.latency);
		row->value[5] = sum.errors;
		if (json_child(figures, "bytes"))
			row->value[6] = sum.bytes / daemon->seconds;
	}
}

const struct top_view top_views[] = {
	{"mounts", "MOUNT", {{"OPS/S", TOP_RATE, 6}, {"READ/S", TOP_BYTES, 8}, {"WRITE/S", TOP_BYTES, 8}, {"P50", TOP_NS, 7},
		{"P99", TOP_NS, 7}, {"MAX", TOP_NS, 7}, {"UNDERWAY", TOP_RATE, 8}, {"HITS", TOP_PERCENT, 6}, {"JOURNAL", TOP_PERCENT, 7},
		{"NOW", TOP_COUNT, 4}}, mount_fill, 1},
	{"devices", "DEVICE", {{"READS/S", TOP_RATE, 7}, {"WRITES/S", TOP_RATE, 8}, {"READ/S", TOP_BYTES, 8},
		{"WRITE/S", TOP_BYTES, 8}, {"FLUSH/S", TOP_RATE, 7}, {"DEPTH", TOP_RATE, 5}, {"P50", TOP_NS, 7}, {"P99", TOP_NS, 7},
		{"MAX", TOP_NS, 7}, {"NOW", TOP_COUNT, 4}}, device_fill, 2},
	{"reactors", "REACTOR", {{"BUSY", TOP_PERCENT, 6}, {"FIBERS", TOP_COUNT, 6}, {"READY", TOP_COUNT, 5},
		{"WAITING", TOP_COUNT, 7}, {"MESSAGES/S", TOP_RATE, 10}, {"QUEUED", TOP_COUNT, 6}, {"SLEEPS/S", TOP_RATE, 8},
		{"CORE", TOP_COUNT, 4}}, reactor_fill, 1},
	{"requests", "REQUEST", {{"COUNT", TOP_COUNT, 8}, {"PER SEC", TOP_RATE, 7}, {"P50", TOP_NS, 7}, {"P99", TOP_NS, 7},
		{"MAX", TOP_NS, 7}, {"ERRORS", TOP_COUNT, 7}, {"BYTES/S", TOP_BYTES, 8}}, request_fill, 1},
};
const unsigned top_view_count = ARRAY_SIZE(top_views);

const struct top_view *top_view_find(const char *name)
{
	for (unsigned i = 0; i < top_view_count; i++)
		if (!strcmp(top_views[i].name, name))
			return &top_views[i];
	return NULL;
}

void top_summary(const struct top_sample *sample, char *out, size_t out_size)
{
	double operations = 0, read = 0, written = 0;
	const unsigned mounts = top_sample_alive(sample);
	char read_text[16], written_text[16];

	for (unsigned i = 0; i < sample->count; i++) {
		const struct top_daemon *daemon = &sample->daemons[i];

		if (daemon->state != TOP_ANSWERED)
			continue;
		operations += count_rate(daemon, "fuse", NULL);
		read += bytes_rate(daemon, "fuse", "READ");
		written += bytes_rate(daemon, "fuse", "WRITE");
	}
	snprintf(out, out_size, "%u mount%s, %.0f ops/s, %s/s read, %s/s written", mounts, mounts == 1 ? "" : "s", operations,
		format_bytes((uint64_t)read, read_text), format_bytes((uint64_t)written, written_text));
}
