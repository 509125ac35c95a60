/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/histogram.h"

#include "fs/daemon/rpc_client.h"

void histogram_add(struct histogram *histogram, struct json_object *operation)
{
	struct json_object *pairs = json_child(operation, "latency_ns");
	size_t count = json_object_is_type(pairs, json_type_array) ? json_object_array_length(pairs) : 0;

	for (size_t i = 0; i < count; i++) {
		struct json_object *pair = json_object_array_get_idx(pairs, i);
		uint64_t below, counted;

		if (!json_object_is_type(pair, json_type_array) || json_object_array_length(pair) != 2)
			continue;
		below = json_object_get_uint64(json_object_array_get_idx(pair, 0));
		counted = json_object_get_uint64(json_object_array_get_idx(pair, 1));
		histogram->bucket[latency_bucket(below ? below - 1 : 0)] += counted;
		histogram->count += counted;
	}
}

void histogram_subtract(struct histogram *histogram, const struct histogram *before)
{
	histogram->count = 0;
	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		if (histogram->bucket[i] >= before->bucket[i])
			histogram->bucket[i] -= before->bucket[i];
		histogram->count += histogram->bucket[i];
	}
}

double histogram_percentile(const struct histogram *histogram, double share)
{
	double wanted = (double)histogram->count * share, sum = 0;

	for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
		double here = (double)histogram->bucket[i];
		double floor = (double)latency_bucket_floor(i), width = (double)latency_bucket_floor(i + 1) - floor;

		if (here > 0 && sum + here >= wanted)
			return floor + width * (wanted - sum) / here;
		sum += here;
	}
	return 0;
}

double histogram_max(const struct histogram *histogram)
{
	for (unsigned i = LATENCY_BUCKETS; i-- > 0;)
		if (histogram->bucket[i])
			return (double)latency_bucket_floor(i + 1);
	return 0;
}

uint64_t histogram_below(const struct histogram *histogram, uint64_t edge_ns)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < LATENCY_BUCKETS && latency_bucket_floor(i) < edge_ns; i++)
		sum += histogram->bucket[i];
	return sum;
}
