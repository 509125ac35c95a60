/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs status: the daemon's answer to "status" for a person to read.
 */
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "control/arguments.h"
#include "fs/daemon/options.h"
#include "fs/daemon/rpc_client.h"

static const char help[] =
	"Usage: lanefs status [DIR] [--json]\n"
	"Shows how the mount at DIR is: device, space, journal, cache, reactors, what was agreed with the kernel, errors.\n"
	"Without DIR: a line for each of your mounts. Status 1: a filesystem has stopped, or met bad blocks.\n"
	"  --json  the daemon's answer as it is; without DIR an array of them. Fields: lanefs-rpc(7)\n";

static double percent(uint64_t part, uint64_t whole) { return whole ? 100.0 * (double)part / (double)whole : 0; }

static void print_line(const char *key, const char *text) { printf("  %-10s %s\n", key, text); }

/* "3 days 04:05:06" */
static const char *format_uptime(uint64_t seconds, char out[32])
{
	unsigned long long days = seconds / 86400;
	int used = days ? snprintf(out, 32, "%llu day%s ", days, days == 1 ? "" : "s") : 0;

	snprintf(out + used, 32 - (size_t)used, "%02u:%02u:%02u", (unsigned)(seconds / 3600 % 24), (unsigned)(seconds / 60 % 60),
		(unsigned)(seconds % 60));
	return out;
}

static const char *format_time(uint64_t seconds, char out[32])
{
	time_t when = (time_t)seconds;
	struct tm parts;

	if (!localtime_r(&when, &parts) || !strftime(out, 32, "%Y-%m-%d %H:%M:%S", &parts))
		snprintf(out, 32, "%llu", (unsigned long long)seconds);
	return out;
}

static uint64_t blocks_bytes(struct json_object *filesystem, const char *key)
{
	return (uint64_t)json_number(filesystem, key) * (uint64_t)json_number(filesystem, "block_size");
}

static void print_space(struct json_object *filesystem)
{
	uint64_t total = blocks_bytes(filesystem, "blocks"), left = blocks_bytes(filesystem, "free_blocks");
	uint64_t used_inodes = (uint64_t)json_number(filesystem, "used_inodes");
	char all[16], used[16], free_text[16], reserved[16], text[200];

	snprintf(text, sizeof(text), "%s, %s used (%.0f %%), %s free, %s of it reserved, %lld allocation groups",
		format_bytes(total, all), format_bytes(total - left, used), percent(total - left, total),
		format_bytes(left, free_text), format_bytes(blocks_bytes(filesystem, "reserved_blocks"), reserved),
		(long long)json_number(filesystem, "groups"));
	print_line("space", text);
	snprintf(text, sizeof(text), "%llu used, room for %lld more; %lld cached, %lld known to the kernel, %lld without a name",
		(unsigned long long)used_inodes, (long long)json_number(filesystem, "free_inodes"),
		(long long)json_number(filesystem, "inodes_cached"), (long long)json_number(filesystem, "inodes_referenced"),
		(long long)json_number(filesystem, "orphans"));
	print_line("inodes", text);
}

static void print_journal(struct json_object *journal)
{
	char used[16], total[16], text[200];
	int64_t replayed = json_number(journal, "replayed_groups");

	snprintf(text, sizeof(text), "%s of %s in use, %lld groups, %lld flushes, %lld checkpoints, durable to %lld",
		format_bytes((uint64_t)json_number(journal, "used_bytes"), used),
		format_bytes((uint64_t)json_number(journal, "bytes"), total), (long long)json_number(journal, "groups"),
		(long long)json_number(journal, "flushes"), (long long)json_number(journal, "checkpoints"),
		(long long)json_number(journal, "durable_sequence"));
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

static void print_scrub(struct json_object *scrub)
{
	const char *state = json_text(scrub, "state");
	char when[32], text[200];

	if (!strcmp(state, "never"))
		return;
	if (!strcmp(state, "running"))
		snprintf(text, sizeof(text), "running: %s, %lld of %lld, %lld findings", json_text(scrub, "phase"),
			(long long)json_number(scrub, "done"), (long long)json_number(scrub, "total"),
			(long long)json_number(scrub, "findings"));
	else
		snprintf(text, sizeof(text), "%s %s: %lld findings", state, format_time((uint64_t)json_number(scrub, "end"), when),
			(long long)json_number(scrub, "findings"));
	print_line("scrub", text);
}

static void print_reactors(struct json_object *reactors, uint64_t uptime_seconds)
{
	size_t count = json_count(reactors);
	char text[200];

	for (size_t i = 0; i < count; i++) {
		struct json_object *reactor = json_object_array_get_idx(reactors, i);
		double busy_ns = (double)json_number(reactor, "busy_ns");
		char busy[16], label[32], core[32] = "";

		snprintf(label, sizeof(label), "reactor %zu", i);
		if (json_object_object_get_ex(reactor, "core", NULL))
			snprintf(core, sizeof(core), "core %lld, ", (long long)json_number(reactor, "core"));
		snprintf(text, sizeof(text), "%sbusy %s (%.1f %% of its time), %lld fibers running (peak %lld), %lld messages",
			core, format_ns(busy_ns, busy),
			100 * busy_ns / ((double)MAX(uptime_seconds, (uint64_t)1) * NS_PER_SEC),
			(long long)json_number(reactor, "fibers_running"), (long long)json_number(reactor, "fibers_peak"),
			(long long)json_number(reactor, "messages"));
		print_line(label, text);
	}
}

static void print_fuse(struct json_object *fuse)
{
	struct json_object *features = json_child(fuse, "features");
	size_t count = json_count(features), column = 0;
	char size[16];

	printf("  %-10s %lld requests under way", "requests", (long long)json_number(fuse, "running"));
	if (json_child(fuse, "open_files"))
		printf(", %lld files open", (long long)json_number(fuse, "open_files"));
	printf("\n  %-10s protocol %s (kernel offers %s), requests to %s, %lld in the background\n", "kernel",
		json_text(fuse, "protocol"), json_text(fuse, "kernel_protocol"),
		format_bytes((uint64_t)json_number(fuse, "max_write"), size), (long long)json_number(fuse, "max_background"));
	for (size_t i = 0; i < count; i++) {
		const char *name = json_text_at(features, i);

		if (column == 0 || column + strlen(name) > 90) {
			printf("%s  %-10s ", i ? "\n" : "", i ? "" : "features");
			column = 0;
		}
		column += (size_t)printf("%s%s", column ? " " : "", name);
	}
	if (count)
		puts("");
}

/* True when it needs somebody. */
static bool errors_bad(struct json_object *errors)
{
	return json_number(errors, "stopped") || json_number(errors, "corrupt_blocks") || json_number(errors, "error");
}

static void print_errors(struct json_object *errors)
{
	int64_t corrupt = json_number(errors, "corrupt_blocks"), block = json_number(errors, "block");
	int error = (int)json_number(errors, "error");
	bool earlier = json_number(errors, "earlier");
	char when[32], place[48] = "", text[400];

	if (!errors_bad(errors)) {
		print_line("errors", "none");
		return;
	}
	if (error) {
		if (block)
			snprintf(place, sizeof(place), ", block %lld", (long long)block);
		snprintf(text, sizeof(text), "%s %s%s: %s: %s%s", earlier ? "on record from" : "stopped",
			format_time((uint64_t)json_number(errors, "time"), when), place, json_text(errors, "text"),
			strerror(error < 0 ? -error : error), ": unmount, then fsck.lanefs");
		print_line("ERRORS", text);
	}
	if (corrupt) {
		snprintf(text, sizeof(text), "%lld bad metadata blocks met, the last %s, block %lld: unmount, then fsck.lanefs",
			(long long)corrupt, format_time((uint64_t)json_number(errors, "corrupt_time"), when),
			(long long)json_number(errors, "corrupt_last"));
		print_line("ERRORS", text);
	}
}

/* The SMART log, for which the device has to be asked. */
static void print_health(int64_t pid)
{
	struct json_object *health, *warnings;
	char message[256], text[200];

	if (rpc_ask((pid_t)pid, "nvme_health", NULL, &health, message, sizeof(message))) {
		print_line("health", message[0] ? message : "the device does not answer");
		return;
	}
	warnings = json_child(health, "warnings");
	snprintf(text, sizeof(text), "%s, %lld C, %lld %% of its life used, spare %lld %%, %lld media errors",
		json_number(health, "critical_warning") ? json_object_to_json_string(warnings) ?: "warning" : "good",
		(long long)json_number(health, "temperature_celsius"), (long long)json_number(health, "used_percent"),
		(long long)json_number(health, "available_spare_percent"), (long long)json_number(health, "media_errors"));
	print_line(json_number(health, "critical_warning") ? "WARNING" : "health", text);
	json_object_put(health);
}

static void print_device(struct json_object *device, int64_t pid)
{
	char size[16], text[400];

	snprintf(text, sizeof(text), "%s, %s, %lld-byte blocks, %s, %s", json_text(device, "kind"),
		format_bytes((uint64_t)json_number(device, "bytes"), size), (long long)json_number(device, "block_size"),
		json_number(device, "volatile_cache") ? "volatile write cache (flushed)" : "no volatile write cache",
		json_number(device, "unmap") ? "can discard" : "cannot discard");
	print_line("device", text);
	if (*json_text(device, "model") || *json_text(device, "serial")) {
		snprintf(text, sizeof(text), "%s%s%s%s%s", json_text(device, "model"), *json_text(device, "serial") ? ", serial " : "",
			json_text(device, "serial"), *json_text(device, "firmware") ? ", firmware " : "", json_text(device, "firmware"));
		print_line("model", text);
	}
	if (!json_child(device, "nsid"))
		return;
	snprintf(text, sizeof(text), "namespace %lld: %s; when it leaves: %s", (long long)json_number(device, "nsid"),
		json_text(device, "state"), json_text(device, "on_removal"));
	print_line("NVMe", text);
	snprintf(text, sizeof(text), "%lld resets, %lld time-outs, %lld aborts, %lld retries, %lld errors",
		(long long)json_number(device, "resets"), (long long)json_number(device, "timeouts"),
		(long long)json_number(device, "aborts"), (long long)json_number(device, "retries"),
		(long long)json_number(device, "errors"));
	print_line("", text);
	if (!json_number(device, "held")) {
		if (!strcmp(json_text(device, "state"), "attached"))
			print_health(pid);
		return;
	}
	snprintf(text, sizeof(text), "for the device, since %lld s, up to %lld s more; lanefs attach, or umount.lanefs",
		(long long)json_number(device, "held_seconds"), (long long)json_number(device, "seconds_left"));
	print_line("WAITING", text);
}

static int show_status(struct json_object *status)
{
	struct json_object *filesystem = json_child(status, "filesystem"), *errors = json_child(status, "errors");
	uint64_t uptime = (uint64_t)json_number(status, "uptime_seconds");
	char up[32], text[256];

	printf("%s on %s: %s%s, process %lld, up %s, lanefs %s\n", json_text(status, "target"),
		json_text(status, "directory"), json_text(status, "state"),
		json_number(filesystem, "read_only") ? " read-only" : "", (long long)json_number(status, "pid"),
		format_uptime(uptime, up), json_text(status, "version"));
	if (!filesystem)
		return CONTROL_EXIT_OK; /* closing */
	print_line("options", json_text(status, "options"));
	print_device(json_child(status, "device"), json_number(status, "pid"));
	snprintf(text, sizeof(text), "%s%s%s", json_text(filesystem, "uuid"), *json_text(filesystem, "label") ? ", label " : "",
		json_text(filesystem, "label"));
	print_line("uuid", text);
	print_space(filesystem);
	print_journal(json_child(status, "journal"));
	print_cache(json_child(status, "cache"));
	print_scrub(json_child(status, "scrub"));
	print_reactors(json_child(status, "reactors"), uptime);
	print_fuse(json_child(status, "fuse"));
	print_errors(errors);
	return errors_bad(errors) ? CONTROL_EXIT_FAILED : CONTROL_EXIT_OK;
}

/* One line. */
static int show_mount(struct json_object *status)
{
	struct json_object *filesystem = json_child(status, "filesystem"), *errors = json_child(status, "errors");
	uint64_t total = blocks_bytes(filesystem, "blocks"), left = blocks_bytes(filesystem, "free_blocks");
	char all[16], used[16];

	printf("%s on %s: %s%s", json_text(status, "target"), json_text(status, "directory"), json_text(status, "state"),
		json_number(filesystem, "read_only") ? " read-only" : "");
	if (filesystem)
		printf(", %s of %s used (%.0f %%), process %lld", format_bytes(total - left, used), format_bytes(total, all),
			percent(total - left, total), (long long)json_number(status, "pid"));
	if (errors_bad(errors))
		printf(json_number(errors, "stopped") ? ", STOPPED: %s" : ", ERRORS: lanefs status %s",
			json_number(errors, "stopped") ? json_text(errors, "text") : json_text(status, "directory"));
	puts("");
	return errors_bad(errors) ? CONTROL_EXIT_FAILED : CONTROL_EXIT_OK;
}

int control_status(int argc, char **argv)
{
	struct show_arguments arguments = {0};
	int status;

	if (!show_arguments_parse(argc, argv, help, &arguments, &status))
		return status;
	return arguments.json ? control_each_json(arguments.directory, "status") :
		control_each(arguments.directory, "status", NULL, arguments.directory ? show_status : show_mount);
}
