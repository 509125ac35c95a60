/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs top: the command line, and printing without a terminal.
 */
#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "control/arguments.h"
#include "control/top.h"
#include "fs/daemon/mounts.h"
#include "fs/daemon/options.h"
#include "fs/daemon/rpc_client.h"

enum { BATCH_WIDTH = 200 };
#define INTERVAL_MIN 0.1
#define INTERVAL_MAX 3600.0

static const char help[] =
	"Usage: lanefs top [DIR] [--interval SECONDS] [--view VIEW] [--batch] [--count N]\n"
	"Shows what the mount at DIR, or every mount of yours, does: again and again, until q is pressed.\n"
	"  --interval S  seconds between two looks, 0.1 to 3600; 1 if not said\n"
	"  --view VIEW   begins with mounts, devices, reactors or requests; in batches shows nothing else\n"
	"  --batch       prints text, without a terminal\n"
	"  --count N     ends after N looks\n"
	"Keys: 1 to 4 or Tab another view, s another order, + and - the interval, arrows and PgUp PgDn scroll, q quits.\n"
	"Percentiles are of what was answered since the look before. UNDERWAY and DEPTH are averages over that time.\n";

/* ---- batch ---- */
static void table_print(const struct top_sample *sample, const struct top_view *view, struct top_rows *rows)
{
	char line[TOP_LINE_BYTES];

	top_rows_make(rows, view, sample, view->sort);
	for (unsigned i = 0; top_line(rows, view, i, BATCH_WIDTH, line); i++)
		puts(line);
}

static void batch_print(const struct top_sample *sample, const struct top_options *options)
{
	struct top_rows rows = {0};
	char summary[160], when[32];
	time_t now = time(NULL);
	struct tm parts;

	if (!localtime_r(&now, &parts) || !strftime(when, sizeof(when), "%Y-%m-%d %H:%M:%S", &parts))
		when[0] = '\0';
	top_summary(sample, summary, sizeof(summary));
	printf("%s  %s\n", when, summary);
	for (unsigned i = 0; i < top_view_count; i++)
		if (!options->view || options->view == &top_views[i])
			table_print(sample, &top_views[i], &rows);
	puts("");
	top_rows_free(&rows);
}

static void interval_sleep(double seconds)
{
	struct timespec left = {.tv_sec = (time_t)seconds, .tv_nsec = (long)((seconds - floor(seconds)) * NS_PER_SEC)};

	while (nanosleep(&left, &left) && errno == EINTR)
		continue;
}

static int batch_run(struct top_sample *sample, const struct top_options *options)
{
	for (unsigned long i = 0; !options->count || i < options->count; i++) {
		interval_sleep(options->interval);
		top_sample_take(sample);
		batch_print(sample, options);
		if (fflush(stdout))
			return CONTROL_EXIT_FAILED;
		if (sample->directory && top_sample_alive(sample) == 0)
			return control_fail(CONTROL_EXIT_NOT_FOUND, sample->directory, "the daemon has ended");
	}
	return CONTROL_EXIT_OK;
}

/* ---- command line ---- */
static bool interval_parse(const char *text, double *out)
{
	char *end;

	*out = strtod(text, &end);
	return *text && !*end && *out >= INTERVAL_MIN && *out <= INTERVAL_MAX;
}

static bool count_parse(const char *text, unsigned long *out)
{
	char *end;

	errno = 0;
	*out = strtoul(text, &end, 10);
	return text[0] >= '1' && text[0] <= '9' && !*end && !errno;
}

static int options_take(int argc, char **argv, struct top_options *options, const char **directory)
{
	for (int i = 1; i < argc; i++) {
		const char *value;

		if (option_take("--interval", 0, argc, argv, &i, &value)) {
			if (!value || !interval_parse(value, &options->interval))
				return control_fail(CONTROL_EXIT_USAGE, "--interval", "wanted: seconds from 0.1 to 3600");
		} else if (option_take("--count", 0, argc, argv, &i, &value)) {
			if (!value || !count_parse(value, &options->count))
				return control_fail(CONTROL_EXIT_USAGE, "--count", "wanted: a number from 1 on");
		} else if (option_take("--view", 0, argc, argv, &i, &value)) {
			options->view = value ? top_view_find(value) : NULL;
			if (!options->view)
				return control_fail(CONTROL_EXIT_USAGE, "--view", "wanted: mounts, devices, reactors or requests");
		} else if (!strcmp(argv[i], "--batch")) {
			options->batch = true;
		} else if (argv[i][0] == '-' || *directory) {
			return control_fail(CONTROL_EXIT_USAGE, argv[i], argv[i][0] == '-' ? "not understood (try --help)" :
				"one DIR at most (try --help)");
		} else {
			*directory = argv[i];
		}
	}
	return CONTROL_EXIT_OK;
}

static int sample_begin(struct top_sample *sample, const char *directory, char path[PATH_MAX])
{
	struct mount_found found;
	int err = directory ? path_resolve(directory, path) : 0;

	if (err)
		return control_fail(CONTROL_EXIT_NOT_FOUND, directory, strerror(-err));
	sample->directory = directory ? path : NULL;
	top_sample_take(sample);
	if (top_sample_alive(sample))
		return CONTROL_EXIT_OK;
	if (!directory)
		return control_fail(CONTROL_EXIT_NOT_FOUND, "top", "no lanefs of yours is mounted");
	return control_fail(CONTROL_EXIT_NOT_FOUND, directory, mount_at(path, &found) ? control_no_answer :
		"no lanefs is mounted there");
}

int control_top(int argc, char **argv)
{
	struct top_options options = {.interval = 1};
	struct top_sample *sample;
	const char *directory = NULL;
	char path[PATH_MAX];
	int status;

	if (help_wanted(argc, argv, help))
		return CONTROL_EXIT_OK;
	status = options_take(argc, argv, &options, &directory);
	if (status)
		return status;
	if (!options.batch && (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)))
		return control_fail(CONTROL_EXIT_USAGE, "top", "no terminal: add --batch to have plain text");
	setlocale(LC_CTYPE, "");
	sample = calloc(1, sizeof(*sample));
	if (!sample)
		return control_fail(CONTROL_EXIT_FAILED, "top", "no memory");
	status = sample_begin(sample, directory, path);
	if (!status)
		status = options.batch ? batch_run(sample, &options) : top_screen(sample, &options);
	top_sample_free(sample);
	free(sample);
	return status;
}
