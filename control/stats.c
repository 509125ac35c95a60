/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs stats: counts and latencies since the mount, for a person, as JSON, or for Prometheus.
 */
#include <stdio.h>

#include "control/arguments.h"
#include "control/histogram.h"
#include "control/prometheus.h"
#include "fs/daemon/rpc_client.h"

static const char help[] =
	"Usage: lanefs stats [DIR] [--json | --prometheus]\n"
	"Shows what was counted since the mount at DIR was made: operations of the device and requests of the kernel, with bytes,\n"
	"errors and latencies. Without DIR: of every mount of yours. lanefs top shows the same as it happens.\n"
	"  --json        the daemon's answer as it is; without DIR an array of them. Fields: lanefs-rpc(7)\n"
	"  --prometheus  in the text exposition format that Prometheus reads; lanefs(1) shows how to have it collected\n";

static void print_operations(const char *title, struct json_object *operations)
{
	if (!json_object_is_type(operations, json_type_object))
		return;
	printf("  %-22s %12s %10s %8s %10s %10s %10s %10s\n", title, "count", "bytes", "errors", "mean", "p50", "p99", "max");
	json_object_object_foreach(operations, name, operation) {
		int64_t count = json_number(operation, "count");
		struct histogram histogram = {0};
		char bytes[16], mean[16], half[16], most[16], max[16];

		if (json_object_get_type(operation) != json_type_object || count == 0)
			continue;
		histogram_add(&histogram, operation);
		printf("  %-22s %12lld %10s %8lld", name, (long long)count,
			json_number(operation, "bytes") ? format_bytes((uint64_t)json_number(operation, "bytes"), bytes) : "",
			(long long)json_number(operation, "errors"));
		if (histogram.count)
			printf(" %10s %10s %10s %10s", format_ns((double)json_number(operation, "total_ns") / (double)count, mean),
				format_ns(histogram_percentile(&histogram, 0.5), half),
				format_ns(histogram_percentile(&histogram, 0.99), most), format_ns(histogram_max(&histogram), max));
		puts("");
	}
}

static int show_stats(struct json_object *stats)
{
	struct json_object *journal = json_child(stats, "journal");

	printf("%s on %s: %lld transactions, %lld journal groups, %lld checkpoints\n", json_text(stats, "target"),
		json_text(stats, "directory"), (long long)json_number(stats, "transactions"),
		(long long)json_number(journal, "groups"), (long long)json_number(journal, "checkpoints"));
	print_operations("device", json_child(stats, "device"));
	print_operations("kernel requests", json_child(stats, "fuse"));
	return CONTROL_EXIT_OK;
}

int control_stats(int argc, char **argv)
{
	struct show_arguments arguments = {.prometheus_allowed = true};
	struct json_object *answers;
	int status;

	if (!show_arguments_parse(argc, argv, help, &arguments, &status))
		return status;
	if (arguments.json)
		return control_each_json(arguments.directory, "stats");
	if (!arguments.prometheus)
		return control_each(arguments.directory, "stats", NULL, show_stats);
	status = control_collect(arguments.directory, "stats", &answers);
	for (size_t i = json_object_array_length(answers); i-- > 0;) /* a daemon that an older version left running */
		if (!*json_text(json_object_array_get_idx(answers, i), "directory"))
			json_object_array_del_idx(answers, i, 1);
	prometheus_print(answers);
	json_object_put(answers);
	return status;
}
