/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Answers to "stats" in the text exposition format 0.0.4 of Prometheus: base units, counters that end in _total,
 * histograms, one family after the other with the samples of all mounts.
 */
#ifndef LANEFS_CONTROL_PROMETHEUS_H
#define LANEFS_CONTROL_PROMETHEUS_H

#include <json-c/json.h>

/* @answers: an array of them. */
void prometheus_print(struct json_object *answers);

#endif
