/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fuzzing of everything that reads untrusted bytes. A target is one file, NAME_fuzz.c, with the functions below, and a
 * line in meson.build. Its head comment says what an input means and what must hold; a line "Covers: FILES" names the
 * sources whose coverage scripts/fuzz shows.
 *
 * It is built in two ways. With -Dfuzz=true (clang) libFuzzer drives it, guided by coverage: NAME_fuzz. In every other
 * build fuzz_replay.c does: NAME_replay runs the seeds, the cases that were once found, and simple mutations of them, as
 * a test. Seeds stand in seeds/NAME/, found cases in cases/NAME/, each file one input of at most 64 KiB.
 *
 * A target must give the same result for the same input, free what it takes, and bound its own work: one input takes
 * milliseconds. What must not happen ends the process: an assert, a sanitizer, FUZZ_REQUIRE.
 */
#ifndef LANEFS_TESTS_FUZZ_FUZZ_H
#define LANEFS_TESTS_FUZZ_FUZZ_H

#include <stdio.h>
#include <stdlib.h>

#include "reactor/base.h"

/* One input. Returns 0, or -1 when it is of no use and not to be kept. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Optional: once, before the first input. Returns 0. */
int LLVMFuzzerInitialize(int *argc, char ***argv);
/* Optional: changes @data in place, to at most @size_max bytes; returns the new size. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed);
/* What the driver offers to a custom mutator: a change that knows nothing of the structure. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max);

enum { FUZZ_INPUT_MAX = 64 << 10 };

#define FUZZ_REQUIRE(condition, ...)                                                                                     \
	do {                                                                                                             \
		if (!(condition)) {                                                                                      \
			fprintf(stderr, "fuzz: " __VA_ARGS__);                                                           \
			fprintf(stderr, " (%s:%d: %s)\n", __FILE__, __LINE__, #condition);                               \
			abort();                                                                                         \
		}                                                                                                        \
	} while (0)

#endif
