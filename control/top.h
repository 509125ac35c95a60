/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs top. Each tick asks the daemons for their counters (top_sample.c); what was counted since the tick before becomes
 * the rows of a view (top_view.c), which are sorted and made into lines that fit (top_table.c), which go to a screen
 * (top_screen.c) or to standard output (top.c).
 */
#ifndef LANEFS_CONTROL_TOP_H
#define LANEFS_CONTROL_TOP_H

#include <json-c/json.h>
#include <sys/types.h>

#include "fs/daemon/run_dir.h"

/* ---- top_sample.c ---- */
enum top_state {
	TOP_ANSWERED,
	TOP_SILENT, /* it is there, but did not answer in time */
	TOP_ENDED,  /* shown once more */
};
struct top_daemon {                  /* one whose now is NULL has nothing to show */
	pid_t pid;
	enum top_state state;
	struct json_object *before, *now; /* answers to "stats"; before NULL: counted from zero */
	double seconds;                   /* between them */
	bool was_silent;
};
struct top_sample {
	const char *directory;            /* the mount that is wanted; NULL: all */
	bool found;                       /* its daemon is known, and answers: no other is asked */
	unsigned count;
	struct top_daemon daemons[RUN_DAEMONS_MAX];
};
/* Asks all; what was `now` becomes `before`. Waits for answers a second at most. */
void top_sample_take(struct top_sample *sample);
void top_sample_free(struct top_sample *sample);
/* Is it one of those that are wanted? Of one that has never answered that is not known when DIR was said. */
static inline bool top_daemon_shown(const struct top_sample *sample, const struct top_daemon *daemon)
{
	return daemon->now || !sample->directory;
}
/* Daemons that are shown and live. */
unsigned top_sample_alive(const struct top_sample *sample);

/* ---- top_view.c ---- */
enum { TOP_COLUMNS_MAX = 10 };
enum top_kind { TOP_COUNT, TOP_RATE, TOP_BYTES, TOP_NS, TOP_PERCENT };
struct top_column {
	const char *title;
	enum top_kind kind;
	unsigned width;
};
struct top_row {
	char name[256];
	unsigned keep;                 /* bytes at the beginning of the name that are shown before its end is */
	double value[TOP_COLUMNS_MAX]; /* NAN: not known */
};
struct top_rows {
	struct top_row *row;
	unsigned count, room;
};
struct top_view {
	const char *name, *title;                     /* title: of the column with the names */
	struct top_column columns[TOP_COLUMNS_MAX];   /* the most important first; ends with title NULL */
	void (*fill)(struct top_rows *rows, const struct top_daemon *daemon);
	unsigned sort;                                /* 0: by name; otherwise a column, from 1 on, largest first */
};
extern const struct top_view top_views[];
extern const unsigned top_view_count;
/* NULL: there is none of that name. */
const struct top_view *top_view_find(const char *name);
/* What all daemons together did, in a line. */
void top_summary(const struct top_sample *sample, char *out, size_t out_size);

/* ---- top_table.c ---- */
/* Empties @rows and fills them again, sorted. */
void top_rows_make(struct top_rows *rows, const struct top_view *view, const struct top_sample *sample, unsigned sort);
/* A new row, all values unknown; NULL: no memory. */
struct top_row *top_rows_add(struct top_rows *rows);
void top_rows_free(struct top_rows *rows);
/* Line @index (0: the headings, then the rows) for @width columns of a terminal, in @out; false: there is none. Columns
 * that have no room are left out, the last ones first; of names that have none the end is shown. */
enum { TOP_LINE_BYTES = 1024 };
bool top_line(const struct top_rows *rows, const struct top_view *view, unsigned index, unsigned width,
	char out[TOP_LINE_BYTES]);
const char *top_sort_name(const struct top_view *view, unsigned sort);

/* ---- top_screen.c ---- */
struct top_options {
	const struct top_view *view; /* NULL: the first, in batches all */
	double interval;             /* seconds */
	unsigned long count;         /* of ticks; 0: no end */
	bool batch;
};
int top_screen(struct top_sample *sample, const struct top_options *options);

#endif
