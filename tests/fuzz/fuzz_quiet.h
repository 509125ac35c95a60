/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the code under test prints and logs is thrown away: a fuzzer would fill the terminal. The sanitizers and libFuzzer
 * write by other ways and are heard.
 */
#ifndef LANEFS_TESTS_FUZZ_QUIET_H
#define LANEFS_TESTS_FUZZ_QUIET_H

#include <stdio.h>

#include "reactor/log.h"

struct fuzz_quiet {
	FILE *nowhere, *out, *err;
};

static inline void fuzz_log_nothing(enum log_level level, const char *line, void *arg)
{
}

/* Between the two, stdout and stderr go nowhere. */
static inline void fuzz_quiet_begin(struct fuzz_quiet *quiet)
{
	if (!quiet->nowhere)
		quiet->nowhere = fopen("/dev/null", "we");
	assert(quiet->nowhere);
	quiet->out = stdout;
	quiet->err = stderr;
	stdout = stderr = quiet->nowhere;
}

static inline void fuzz_quiet_end(struct fuzz_quiet *quiet)
{
	stdout = quiet->out;
	stderr = quiet->err;
}

#endif
