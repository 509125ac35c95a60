/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the two exercisers share. An exerciser works on a directory of any filesystem with random operations, keeps a
 * model of what must be there in its own memory, and compares the two all the time. It is several worker processes;
 * each has random numbers of its own that depend on the seed and the worker alone, so that a run can be repeated.
 *
 * Each operation is noted (op_begin, op_note) before it is done. At the first difference the worker prints what it is,
 * the operations that touched the object, the last ones of all, and the command that does the same again (differ).
 */
#ifndef LANEFS_TESTS_MOUNTED_RANDOM_EXERCISER_H
#define LANEFS_TESTS_MOUNTED_RANDOM_EXERCISER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct exerciser_options {
	const char *program;
	const char *directory;
	uint64_t seed;              /* drawn from the clock when not given */
	uint64_t ops;               /* per worker; 0: no limit */
	unsigned seconds;           /* 0: no limit */
	unsigned workers;
	unsigned files;             /* per worker: data_exerciser */
	uint64_t size_max;          /* bytes of a file: data_exerciser */
	unsigned direct_align;      /* of offsets and lengths under O_DIRECT: data_exerciser */
	unsigned nodes;             /* of the model's tree, about: name_exerciser */
	unsigned xattr_max;         /* bytes of all attributes of a file: name_exerciser */
	unsigned check_every;       /* operations between comparisons of everything */
	bool no_direct, no_mmap, writeback, drop_caches, verbose;
	bool flags_seen[128];       /* by the letter that getopt_long returns */
	const char *save, *verify;  /* the model at the end is written to, or read from, these names with ".<worker>" */
};

enum { OP_TEXT = 256, OP_LOG = 8192 };
/* One operation as the log keeps it. Objects and ranges are what differ() selects by. */
struct op_record {
	uint64_t number;
	uint64_t object, other;     /* whatever identifies them to the worker; 0: none */
	uint64_t offset, end;       /* bytes; end 0: concerns all of it */
	char text[OP_TEXT];
};

struct exerciser {
	const struct exerciser_options *options;
	unsigned worker;
	uint64_t random;
	uint64_t op;                /* number of the operation under way, from 1 */
	struct timespec deadline;
	struct op_record *log;      /* OP_LOG of them, by number modulo */
	struct op_record *current;
};

/* Parses the command line into @options, which holds the defaults; ends the program with a usage text when it must. */
void exerciser_parse(struct exerciser_options *options, int argc, char **argv);
/* Runs @work in options->workers processes and waits for all. The first that fails ends the others. Returns the exit status. */
int exerciser_run(const struct exerciser_options *options, void (*work)(struct exerciser *exerciser));
/* True while the worker has operations and time left; counts one. */
bool exerciser_next(struct exerciser *exerciser);

uint64_t random_next(uint64_t *state);
/* 0..below-1; 0 when below is 0. */
uint64_t pick(struct exerciser *exerciser, uint64_t below);
static inline bool chance(struct exerciser *exerciser, unsigned one_in) { return pick(exerciser, one_in) == 0; }
/* An index into weights, each as likely as its weight. */
unsigned pick_weighted(struct exerciser *exerciser, const unsigned *weights, unsigned count);
/* Bytes that depend on @seed alone. */
void fill_bytes(uint8_t *bytes, size_t length, uint64_t seed);

/* Notes the operation that is about to be done. */
void op_begin(struct exerciser *exerciser, uint64_t object, uint64_t other, uint64_t offset, uint64_t end,
	const char *format, ...) __attribute__((format(printf, 6, 7)));
/* Appends to its text: what came of it. */
void op_note(struct exerciser *exerciser, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* The end of the run: the difference, the operations on @object in offset..end (end 0: all), the last ones, the command. */
void differ(struct exerciser *exerciser, uint64_t object, uint64_t offset, uint64_t end, const char *format, ...)
	__attribute__((format(printf, 5, 6), noreturn));
/* The end of a path, where it says most; short enough for the log. */
const char *path_end(const char *path);
/* "EEXIST (File exists)" and the like; a few buffers in turn. */
const char *error_text(int error);

#endif
