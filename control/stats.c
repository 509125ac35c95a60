/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs stats, log-level and unmount.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <unistd.h>

#include "control/arguments.h"
#include "fs/daemon/options.h"
#include "fs/daemon/rpc_client.h"

/* The upper edge of the bucket below which @share of the counts lie, ns. */
static double latency_percentile(struct json_object *histogram, double share)
{
	size_t buckets = histogram ? json_object_array_length(histogram) : 0;
	double total = 0, sum = 0;

	for (size_t i = 0; i < buckets; i++)
		total += (double)json_object_get_int64(json_object_array_get_idx(histogram, i));
	for (size_t i = 0; i < buckets; i++) {
		sum += (double)json_object_get_int64(json_object_array_get_idx(histogram, i));
		if (sum >= total * share)
			return ldexp(1, (int)i + 1);
	}
	return 0;
}

static void print_operations(const char *title, struct json_object *operations)
{
	printf("  %-22s %12s %10s %8s %10s %10s %10s\n", title, "count", "bytes", "errors", "mean", "p50 below", "p99 below");
	json_object_object_foreach(operations, name, operation) {
		int64_t count = json_number(operation, "count");
		struct json_object *histogram = json_child(operation, "latency_log2_ns");
		char bytes[16], mean[16], half[16], most[16];

		if (count == 0 || json_object_get_type(operation) != json_type_object)
			continue;
		printf("  %-22s %12lld %10s %8lld %10s %10s %10s\n", name, (long long)count,
			json_child(operation, "bytes") ? format_bytes((uint64_t)json_number(operation, "bytes"), bytes) : "",
			(long long)json_number(operation, "errors"),
			format_ns((double)json_number(operation, "total_ns") / (double)count, mean),
			format_ns(latency_percentile(histogram, 0.5), half), format_ns(latency_percentile(histogram, 0.99), most));
	}
}

static int show_stats(struct json_object *stats)
{
	struct json_object *device = json_child(stats, "device"), *journal = json_child(stats, "journal");

	printf("%s: %lld transactions, %lld journal groups, %lld checkpoints\n", json_text(device, "name"),
		(long long)json_number(stats, "transactions"), (long long)json_number(journal, "groups"),
		(long long)json_number(journal, "checkpoints"));
	print_operations("device", device);
	print_operations("FUSE", json_child(stats, "fuse"));
	return CONTROL_EXIT_OK;
}

int control_stats(int argc, char **argv)
{
	struct show_arguments arguments;
	int status = show_arguments_parse(argc, argv, &arguments);

	if (status)
		return status;
	return arguments.json ? control_each_json(arguments.directory, "stats") :
		control_each(arguments.directory, "stats", NULL, show_stats);
}

static int show_level(struct json_object *result)
{
	puts(json_text(result, "level"));
	return CONTROL_EXIT_OK;
}

int control_log_level(int argc, char **argv)
{
	struct json_object *params = NULL;

	if (argc < 2 || argc > 3)
		return control_fail(CONTROL_EXIT_USAGE, "log-level", "wanted: DIR [error|warn|info|debug]");
	if (argc == 3) {
		params = json_object_new_object();
		json_object_object_add(params, "level", json_object_new_string(argv[2]));
	}
	return control_each(argv[1], "log_level", params, show_level);
}

int control_unmount(int argc, char **argv)
{
	struct json_object *report;
	char directory[PATH_MAX], message[256];
	int connection, err;
	pid_t pid;

	if (argc != 2)
		return control_fail(CONTROL_EXIT_USAGE, "unmount", "wanted: DIR");
	err = path_resolve(argv[1], directory);
	pid = err ? 0 : rpc_find(directory, NULL, NULL);
	connection = pid ? rpc_connect(pid) : -1;
	if (connection < 0)
		return control_fail(CONTROL_EXIT_NOT_FOUND, argv[1], "no daemon of yours serves a mount there");
	err = rpc_call(connection, "unmount", NULL, -1, &report, message, sizeof(message));
	close(connection);
	if (err)
		return control_fail(CONTROL_EXIT_FAILED, argv[1], message[0] ? message : strerror(-err));
	err = json_number(report, "clean") ? CONTROL_EXIT_OK : CONTROL_EXIT_FAILED;
	json_object_put(report);
	return err ? control_fail(err, argv[1], "unmounted, but not clean: run fsck.lanefs") : err;
}
