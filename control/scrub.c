/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * lanefs scrub: has a mounted filesystem checked, shows how far that is, and what it finds. The daemon does the work; this
 * asks for news a few times a second.
 */
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "control/arguments.h"
#include "fs/daemon/rpc_client.h"
#include "reactor/printable.h"

static const char scrub_help[] =
	"Usage: lanefs scrub DIR [-d] [-r RATE] | --status | --cancel | --background\n"
	"Reads all metadata of the filesystem at DIR from its device and checks it, while it is in use.\n"
	"  -d, --data       reads all file data, too (it has no checksums: what cannot be read is found)\n"
	"  -r, --rate N     bytes a second at most; K, M, G and T may follow\n"
	"  -b, --background starts it and ends; --status tells of it\n"
	"      --status     how far one is, or how the last one ended, and what it has found\n"
	"      --cancel     ends it, as Ctrl-C does\n"
	"Nothing is repaired: for that unmount it and run fsck.lanefs. Status 0: nothing is wrong, 1: something is, or it did\n"
	"not come to its end.\n";

enum { NEWS_MS = 200, PATHS_MAX = 64, LINES_MAX = 4096 };

struct scrub_arguments {
	const char *directory;
	bool data, background, status, cancel;
	uint64_t rate;
};

/* What is shown of one finding. */
struct scrub_line {
	uint64_t ino;
	char *path;                  /* NULL: not known */
};

struct scrub_view {
	const struct scrub_arguments *arguments;
	uint64_t lines;              /* printed so far */
	struct scrub_line line[PATHS_MAX];
	bool open;                   /* progress stands on the terminal */
};

static volatile sig_atomic_t interrupted;
static void on_interrupt(int signal) { interrupted = 1; }

static int arguments_take(int argc, char **argv, struct scrub_arguments *out)
{
	const char *value;

	for (int i = 1; i < argc; i++) {
		if (option_take("--rate", 'r', argc, argv, &i, &value)) {
			if (!value || size_parse(value, &out->rate) || !out->rate)
				return control_fail(CONTROL_EXIT_USAGE, "--rate", "wanted: bytes a second, as 4096, 64K, 10M (try --help)");
		} else if (!strcmp(argv[i], "-d") || !strcmp(argv[i], "--data")) {
			out->data = true;
		} else if (!strcmp(argv[i], "-b") || !strcmp(argv[i], "--background")) {
			out->background = true;
		} else if (!strcmp(argv[i], "--status")) {
			out->status = true;
		} else if (!strcmp(argv[i], "--cancel")) {
			out->cancel = true;
		} else if (argv[i][0] == '-' || out->directory) {
			return control_fail(CONTROL_EXIT_USAGE, argv[i], argv[i][0] == '-' ? "not understood (try --help)" :
				"one word too many (try --help)");
		} else {
			out->directory = argv[i];
		}
	}
	if (!out->directory || out->status + out->cancel + out->background > 1)
		return control_fail(CONTROL_EXIT_USAGE, "scrub", "wanted: DIR, and one of --status, --cancel, --background at most "
			"(try --help)");
	return CONTROL_EXIT_OK;
}

static void progress_clear(struct scrub_view *view)
{
	if (view->open)
		fputs("\r\033[K", stderr);
	view->open = false;
}

/* ---- what it found ---- */

static int news_ask(struct scrub_view *view, struct json_object **out)
{
	struct json_object *params = NULL;

	control_add(&params, "from", json_object_new_uint64(view->lines));
	return control_ask(view->arguments->directory, "scrub_status", params, out);
}

/* Returns how many there were. */
static size_t lines_print(struct scrub_view *view, struct json_object *news)
{
	struct json_object *lines = json_child(news, "lines");
	const size_t count = json_count(lines);

	for (size_t i = 0; i < count; i++) {
		struct json_object *line = json_object_array_get_idx(lines, i);

		progress_clear(view);
		printf("%s: %s\n", view->arguments->directory, json_text(line, "text"));
		if (view->lines < PATHS_MAX)
			view->line[view->lines].ino = (uint64_t)json_number(line, "inode");
		view->lines++;
	}
	fflush(stdout);
	return count;
}

static struct scrub_view *paths_view; /* nftw has no argument */

static int path_look(const char *path, const struct stat *status, int kind, struct FTW *ftw)
{
	unsigned missing = 0;

	for (unsigned i = 0; i < PATHS_MAX; i++) {
		struct scrub_line *line = &paths_view->line[i];

		if (line->ino && !line->path && line->ino == status->st_ino)
			line->path = strdup(path);
		missing += line->ino && !line->path;
	}
	return !missing || interrupted;
}

/* The names of the inodes that were spoken of, as far as they can be reached. */
static void paths_print(struct scrub_view *view)
{
	bool any = false;

	for (unsigned i = 0; i < PATHS_MAX; i++)
		any |= view->line[i].ino != 0;
	paths_view = view;
	if (any)
		nftw(view->arguments->directory, path_look, 64, FTW_PHYS | FTW_MOUNT);
	for (unsigned i = 0; i < PATHS_MAX; i++) {
		struct scrub_line *line = &view->line[i];
		bool shown = !line->path;

		for (unsigned j = 0; j < i && !shown; j++)
			shown = view->line[j].ino == line->ino;
		if (shown)
			continue;
		text_make_printable(line->path, strlen(line->path));
		printf("%s: inode %llu is %s\n", view->arguments->directory, (unsigned long long)line->ino, line->path);
	}
	for (unsigned i = 0; i < PATHS_MAX; i++)
		free(view->line[i].path);
}

/* ---- how far it is ---- */

static void progress_print(struct scrub_view *view, struct json_object *news)
{
	const int64_t done = json_number(news, "done"), total = json_number(news, "total");

	if (!isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r\033[K%s: %s %3.0f %%, %lld inodes, %lld findings ", view->arguments->directory,
		json_text(news, "phase"), total ? 100.0 * (double)MIN(done, total) / (double)total : 0.0,
		(long long)json_number(news, "inodes"), (long long)json_number(news, "findings"));
	view->open = true;
}

static int summary_print(struct scrub_view *view, struct json_object *news)
{
	const char *directory = view->arguments->directory, *state = json_text(news, "state");
	const int64_t findings = json_number(news, "findings");
	char data[16];

	progress_clear(view);
	if (!strcmp(state, "never")) {
		printf("%s: no scrub since it was mounted\n", directory);
		return CONTROL_EXIT_OK;
	}
	if (findings)
		paths_print(view);
	if (findings > (int64_t)view->lines)
		printf("%s: %lld more findings were counted only\n", directory, (long long)findings - (long long)view->lines);
	printf("%s: %s%s%s: %lld inodes, %lld directories, %lld blocks of metadata read, %lld newer in memory, %s of data, "
	       "%lld finding%s, %lld s\n", directory, state, !strcmp(state, "failed") ? ": " : "",
		!strcmp(state, "failed") ? json_text(news, "error") : "", (long long)json_number(news, "inodes"),
		(long long)json_number(news, "directories"), (long long)json_number(news, "blocks"),
		(long long)json_number(news, "blocks_ahead"), format_bytes((uint64_t)json_number(news, "data_bytes"), data),
		(long long)findings, findings == 1 ? "" : "s",
		(long long)((uint64_t)(strcmp(state, "running") ? json_number(news, "end") : (int64_t)time(NULL)) -
			(uint64_t)json_number(news, "begin")));
	if (json_number(news, "groups_unjudged"))
		printf("%s: which block belongs to whom was not judged in %lld allocation groups, for want of memory; fsck.lanefs -n does\n",
			directory, (long long)json_number(news, "groups_unjudged"));
	if (json_number(news, "inodes_unjudged"))
		printf("%s: %lld inodes got or lost names meanwhile, and their links were not judged\n", directory,
			(long long)json_number(news, "inodes_unjudged"));
	if (json_number(news, "incomplete") && !findings)
		printf("%s: some blocks changed faster than they could be read; blocks and inodes that nothing refers to were not looked for\n",
			directory);
	if (findings)
		printf("%s: nothing was changed; unmount it and run fsck.lanefs -y\n", directory);
	return findings || !strcmp(state, "failed") || !strcmp(state, "cancelled") ? CONTROL_EXIT_FAILED : CONTROL_EXIT_OK;
}

/* Until it has ended, or (@once) as it is now. */
static int follow(struct scrub_view *view, bool once)
{
	bool cancelled = false;

	for (;;) {
		struct json_object *news, *answer;
		int status = news_ask(view, &news);

		if (status)
			return status;
		const bool more = lines_print(view, news) > 0 && view->lines < LINES_MAX;
		const bool running = !strcmp(json_text(news, "state"), "running");
		if (more || (running && !once)) {
			if (running)
				progress_print(view, news);
			json_object_put(news);
		} else {
			status = summary_print(view, news);
			json_object_put(news);
			return status;
		}
		if (interrupted && !cancelled) {
			cancelled = true;
			if (!control_ask(view->arguments->directory, "scrub_cancel", NULL, &answer))
				json_object_put(answer);
		}
		if (!more)
			nanosleep(&(struct timespec){.tv_nsec = NEWS_MS * 1000000L}, NULL);
	}
}

static int scrub_begin(const struct scrub_arguments *arguments)
{
	struct json_object *answer, *params = NULL;
	int status;

	control_add(&params, "data", json_object_new_boolean(arguments->data));
	control_add(&params, "rate", json_object_new_uint64(arguments->rate));
	status = control_ask(arguments->directory, "scrub_start", params, &answer);
	if (!status)
		json_object_put(answer);
	return status;
}

int control_scrub(int argc, char **argv)
{
	struct scrub_arguments arguments = {0};
	struct scrub_view view = {.arguments = &arguments};
	struct sigaction action = {.sa_handler = on_interrupt};
	struct json_object *answer;
	int status;

	if (help_wanted(argc, argv, scrub_help))
		return CONTROL_EXIT_OK;
	status = arguments_take(argc, argv, &arguments);
	if (status)
		return status;
	if (arguments.status)
		return follow(&view, true);
	if (arguments.cancel) {
		status = control_ask(arguments.directory, "scrub_cancel", NULL, &answer);
		if (!status)
			json_object_put(answer);
		return status;
	}
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	status = scrub_begin(&arguments);
	return status || arguments.background ? status : follow(&view, false);
}
