/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs status: the daemon's answer to "status" for a person to read.
 */
#include <stdio.h>

#include "control/arguments.h"
#include "fs/daemon/rpc_client.h"

static double percent(uint64_t part, uint64_t whole) { return whole ? 100.0 * (double)part / (double)whole : 0; }

static void print_line(const char *key, const char *text) { printf("  %-10s %s\n", key, text); }

static void print_space(struct json_object *filesystem)
{
	uint64_t blocks = (uint64_t)json_number(filesystem, "blocks"), free_blocks = (uint64_t)json_number(filesystem, "free_blocks");
	uint64_t size = (uint64_t)json_number(filesystem, "block_size");
	char total[16], used[16], text[160];

	snprintf(text, sizeof(text), "%s of %s used (%.0f %%), %lld inodes, %lld groups",
		format_bytes((blocks - free_blocks) * size, used), format_bytes(blocks * size, total),
		percent(blocks - free_blocks, blocks), (long long)json_number(filesystem, "used_inodes"),
		(long long)json_number(filesystem, "groups"));
	print_line("space", text);
	snprintf(text, sizeof(text), "%lld cached, %lld known to the kernel, %lld without a name",
		(long long)json_number(filesystem, "inodes_cached"), (long long)json_number(filesystem, "inodes_referenced"),
		(long long)json_number(filesystem, "orphans"));
	print_line("inodes", text);
}

static void print_journal(struct json_object *journal)
{
	char used[16], total[16], text[160];
	int64_t replayed = json_number(journal, "replayed_groups");

	snprintf(text, sizeof(text), "%s of %s in use, %lld groups, %lld flushes, %lld checkpoints",
		format_bytes((uint64_t)json_number(journal, "used_bytes"), used),
		format_bytes((uint64_t)json_number(journal, "bytes"), total), (long long)json_number(journal, "groups"),
		(long long)json_number(journal, "flushes"), (long long)json_number(journal, "checkpoints"));
	print_line("journal", text);
	if (replayed) {
		snprintf(text, sizeof(text), "%lld groups with %lld records when it was mounted", (long long)replayed,
			(long long)json_number(journal, "replayed_records"));
		print_line("replayed", text);
	}
}

static void print_cache(struct json_object *cache)
{
	uint64_t hits = (uint64_t)json_number(cache, "hits"), misses = (uint64_t)json_number(cache, "misses");
	char used[16], limit[16], dirty[16], text[160];

	snprintf(text, sizeof(text), "%s of %s metadata, %s dirty, %.1f %% hits",
		format_bytes((uint64_t)json_number(cache, "bytes"), used),
		format_bytes((uint64_t)json_number(cache, "limit_bytes"), limit),
		format_bytes((uint64_t)json_number(cache, "dirty_bytes"), dirty), percent(hits, hits + misses));
	print_line("cache", text);
}

static void print_reactors(struct json_object *reactors)
{
	size_t count = reactors ? json_object_array_length(reactors) : 0;
	char text[160];

	for (size_t i = 0; i < count; i++) {
		struct json_object *reactor = json_object_array_get_idx(reactors, i);
		char busy[16], label[32];

		snprintf(label, sizeof(label), "reactor %zu", i);
		snprintf(text, sizeof(text), "%s busy, %lld fibers running (peak %lld), %lld messages, %lld sleeps",
			format_ns((double)json_number(reactor, "busy_ns"), busy), (long long)json_number(reactor, "fibers_running"),
			(long long)json_number(reactor, "fibers_peak"), (long long)json_number(reactor, "messages"),
			(long long)json_number(reactor, "sleeps"));
		print_line(label, text);
	}
}

static void print_fuse(struct json_object *fuse)
{
	struct json_object *features = json_child(fuse, "features");
	size_t count = features ? json_object_array_length(features) : 0, column = 0;
	char size[16];

	printf("  %-10s protocol %s (kernel offers %s), requests to %s, %lld in the background, %lld running\n", "kernel",
		json_text(fuse, "protocol"), json_text(fuse, "kernel_protocol"),
		format_bytes((uint64_t)json_number(fuse, "max_write"), size), (long long)json_number(fuse, "max_background"),
		(long long)json_number(fuse, "running"));
	for (size_t i = 0; i < count; i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(features, i));

		if (column == 0 || column + strlen(name) > 90) {
			printf("%s  %-10s ", column ? "\n" : "", column ? "" : "features");
			column = 0;
		}
		column += (size_t)printf("%s ", name);
	}
	if (count)
		puts("");
}

/* True when there is an error to show. */
static bool print_errors(struct json_object *errors)
{
	int64_t stopped = json_number(errors, "stopped"), corrupt = json_number(errors, "corrupt_blocks");
	int error = (int)json_number(errors, "error");

	if (!stopped && !corrupt && !error) {
		print_line("errors", "none");
		return false;
	}
	printf("  %-10s %s%s%s; %lld corrupt blocks seen: unmount, then fsck.lanefs\n", "ERRORS",
		stopped ? "stopped: " : "", strerror(error < 0 ? -error : error), json_text(errors, "text"), (long long)corrupt);
	return true;
}

static void print_device(struct json_object *device)
{
	char size[16], text[256];

	snprintf(text, sizeof(text), "%s, %lld-byte blocks, %s", format_bytes((uint64_t)json_number(device, "bytes"), size),
		(long long)json_number(device, "block_size"),
		json_number(device, "volatile_cache") ? "volatile write cache (flushed)" : "no volatile write cache");
	print_line("device", text);
	if (!json_child(device, "model"))
		return;
	snprintf(text, sizeof(text), "%s, serial %s, firmware %s, namespace %lld: %s", json_text(device, "model"),
		json_text(device, "serial"), json_text(device, "firmware"), (long long)json_number(device, "nsid"),
		json_text(device, "state"));
	print_line("NVMe", text);
	snprintf(text, sizeof(text), "%lld resets, %lld time-outs, %lld aborts, %lld retries, %lld errors; when it leaves: %s",
		(long long)json_number(device, "resets"), (long long)json_number(device, "timeouts"),
		(long long)json_number(device, "aborts"), (long long)json_number(device, "retries"),
		(long long)json_number(device, "errors"), json_text(device, "on_removal"));
	print_line("", text);
	if (!json_number(device, "held"))
		return;
	snprintf(text, sizeof(text), "for the device, since %lld s, up to %lld s more; lanefs attach, or umount.lanefs",
		(long long)json_number(device, "held_seconds"), (long long)json_number(device, "seconds_left"));
	print_line("WAITING", text);
}

static int show_status(struct json_object *status)
{
	struct json_object *device = json_child(status, "device"), *filesystem = json_child(status, "filesystem");
	char text[256];
	bool bad = false;

	printf("%s on %s: %s%s, process %lld, up %lld s, lanefs %s\n", json_text(status, "target"),
		json_text(status, "directory"), json_text(status, "state"),
		json_number(filesystem, "read_only") ? " read-only" : "", (long long)json_number(status, "pid"),
		(long long)json_number(status, "uptime_seconds"), json_text(status, "version"));
	if (!filesystem)
		return CONTROL_EXIT_OK; /* closing */
	print_device(device);
	snprintf(text, sizeof(text), "%s%s%s", json_text(filesystem, "uuid"), *json_text(filesystem, "label") ? ", label " : "",
		json_text(filesystem, "label"));
	print_line("uuid", text);
	print_space(filesystem);
	print_journal(json_child(status, "journal"));
	print_cache(json_child(status, "cache"));
	print_reactors(json_child(status, "reactors"));
	print_fuse(json_child(status, "fuse"));
	bad = print_errors(json_child(status, "errors"));
	return bad ? CONTROL_EXIT_FAILED : CONTROL_EXIT_OK;
}

int control_status(int argc, char **argv)
{
	struct show_arguments arguments;
	int status = show_arguments_parse(argc, argv, &arguments);

	if (status)
		return status;
	return arguments.json ? control_each_json(arguments.directory, "status") :
		control_each(arguments.directory, "status", NULL, show_status);
}
