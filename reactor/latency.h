/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Histograms of latencies: four buckets to every power of two, from a nanosecond to eighteen minutes. A percentile read
 * from one is off by an eighth at most. What took longer is counted in the last bucket.
 */
#ifndef LANEFS_REACTOR_LATENCY_H
#define LANEFS_REACTOR_LATENCY_H

#include "reactor/base.h"

enum { LATENCY_BUCKETS = 156 };

static inline unsigned latency_bucket(uint64_t ns)
{
	if (ns < 4)
		return (unsigned)ns;
	const unsigned power = 63 - (unsigned)__builtin_clzll(ns);
	return MIN((power - 1) * 4 + (unsigned)(ns >> (power - 2) & 3), LATENCY_BUCKETS - 1u);
}

/* The smallest latency that falls into bucket @index (0 to LATENCY_BUCKETS), ns. */
static inline uint64_t latency_bucket_floor(unsigned index)
{
	return index < 4 ? index : (uint64_t)(4 + index % 4) << (index / 4 - 1);
}

#endif
