/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Latency histograms as "stats" answers them, and what is read off them.
 */
#ifndef LANEFS_CONTROL_HISTOGRAM_H
#define LANEFS_CONTROL_HISTOGRAM_H

#include <json-c/json.h>

#include "reactor/latency.h"

struct histogram {
	uint64_t count; /* of all buckets */
	uint64_t bucket[LATENCY_BUCKETS];
};

/* Adds what @operation (with a field latency_ns) has counted; NULL and nonsense add nothing. */
void histogram_add(struct histogram *histogram, struct json_object *operation);
/* What came since @before. A bucket that shrank (another daemon at the same place) counts as it is. */
void histogram_subtract(struct histogram *histogram, const struct histogram *before);
/* The latency that @share (0..1) of the counts stay below, ns, between the edges of its bucket as if they lay there evenly;
 * 0 when nothing was counted. */
double histogram_percentile(const struct histogram *histogram, double share);
/* No count lies above it. */
double histogram_max(const struct histogram *histogram);
/* Counts below @edge_ns, which must be an edge of a bucket. */
uint64_t histogram_below(const struct histogram *histogram, uint64_t edge_ns);

#endif
