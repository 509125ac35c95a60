/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fsck.lanefs: a thin main over mkfs/fsck.h. It opens its target for reading only. Exit status as in fsck(8).
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "mkfs/fsck.h"
#include "mkfs/fsck_device.h"

enum exit_status {
	EXIT_CLEAN = 0,
	EXIT_UNCORRECTED = 4,
	EXIT_OPERATIONAL = 8,
	EXIT_USAGE = 16,
	EXIT_CANCELLED = 32,
};

struct command {
	const char *target;
	bool repair;                /* -y, -p or -a: wanted, but not built yet */
	bool preen;                 /* -p or -a: a clean filesystem need not be read */
	bool force, verbose, progress;
	uint64_t super_block;
	struct fsck_device *device;
	const char *phase;          /* shown last */
	unsigned percent;
	bool line_open;             /* progress stands on the terminal */
	struct fsck_result result;
	char message[256];          /* why the target could not be opened */
};

static volatile sig_atomic_t cancelled;
static void on_signal(int signal) { cancelled = 1; }

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

static void progress_clear(struct command *command)
{
	if (command->line_open)
		fputs("\r\033[K", stdout);
	command->line_open = false;
}

static int command_read(void *arg, uint64_t block, void *data)
{
	struct command *command = arg;
	return cancelled ? -ECANCELED : fsck_device_read(command->device, block, data);
}

static void command_finding(void *arg, const char *line)
{
	const struct command *command = arg;
	progress_clear(arg);
	if (!command->result.no_filesystem && !command->result.unsupported) /* said in one line at the end */
		printf("%s\n", line);
}

static void command_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	struct command *command = arg;
	unsigned percent = total ? (unsigned)(100 * done / total) : 0;
	if (!command->progress || (command->phase == phase && command->percent == percent))
		return;
	command->phase = phase;
	command->percent = percent;
	command->line_open = true;
	printf("\r\033[K%s: %s %u %%", command->target, phase, percent);
	fflush(stdout);
}

static void usage(FILE *to)
{
	fputs("usage: fsck.lanefs [-n] [-f] [-v] [-C] [-b BLOCK] [-y | -p | -a] TARGET\n"
	      "Checks a lanefs filesystem and reports what is wrong. Nothing is written.\n\n"
	      "  -n          check only; what is always done now\n"
	      "  -f          with -p or -a: read everything even when the filesystem is marked clean\n"
	      "  -v          say more in the summary\n"
	      "  -C          show progress even when the output is no terminal\n"
	      "  -b BLOCK    trust the superblock copy in this block\n"
	      "  -y, -p, -a  accepted; repair is not built yet\n"
	      "      --help  this text; --version: the version\n\n"
	      "TARGET is an image file or a block device. Exit status: 0 clean, 4 damaged, 8 could not be checked,\n"
	      "16 usage, 32 cancelled.\n", to);
}

static bool number_parse(const char *text, uint64_t *out)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 0);
	*out = value;
	return !errno && *text >= '0' && *text <= '9' && !*end && value;
}

/* EXIT_CLEAN when the command is to be run; *out_done: it is answered already. */
static enum exit_status command_parse(struct command *command, int argc, char **argv, bool *out_done)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};
	int option;
	while ((option = getopt_long(argc, argv, "nfvC::b:ypahV", options, NULL)) != -1) {
		command->repair |= option == 'y' || option == 'p' || option == 'a';
		command->preen |= option == 'p' || option == 'a';
		command->force |= option == 'f';
		command->verbose |= option == 'v';
		command->progress |= option == 'C';
		if (option == 'h')
			usage(stdout);
		if (option == 'V')
			printf("fsck.lanefs %s\n", LANEFS_VERSION);
		if (option == 'h' || option == 'V') {
			*out_done = true;
			return EXIT_CLEAN;
		}
		if (option == 'b' && !number_parse(optarg, &command->super_block)) {
			fprintf(stderr, "fsck.lanefs: -b %s: not a block number\n", optarg);
			return EXIT_USAGE;
		}
		if (option == '?') {
			fputs("Try 'fsck.lanefs --help'.\n", stderr);
			return EXIT_USAGE;
		}
	}
	if (optind + 1 != argc) {
		usage(stderr);
		return EXIT_USAGE;
	}
	command->target = argv[optind];
	return EXIT_CLEAN;
}

static void summary_print(const struct command *command, const struct fsck_result *result, uint64_t took_ns)
{
	const char *target = command->target;
	if (result->recorded_error)
		printf("%s: stopped by an error earlier: %s (block %" PRIu64 ") %s\n", target,
			strerror((int)result->recorded_error), result->recorded_error_block,
			result->recorded_error_text);
	if (result->needs_replay)
		printf("%s: not unmounted cleanly; the journal will be replayed at mount (%" PRIu64 " groups)\n",
			target, result->groups_replayed);
	if (command->verbose)
		printf("%s: label '%s', last group %" PRIu64 ", %" PRIu64 " records replayed in memory, %" PRIu64
		       " orphans\n",
			target, result->label, result->last_sequence, result->records_replayed, result->orphans);
	printf("%s: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " of %" PRIu64 " blocks used, %" PRIu64
	       " finding%s, %.3f s\n", target, result->files, result->directories, result->blocks_used,
		result->blocks_total, result->findings, result->findings == 1 ? "" : "s", (double)took_ns / NS_PER_SEC);
	if (result->findings && command->repair)
		printf("%s: repair is not built yet; nothing was changed\n", target);
}

static enum exit_status outcome(const struct command *command, const struct fsck_result *result, int error,
	uint64_t took_ns)
{
	const char *target = command->target;
	if (cancelled) {
		fprintf(stderr, "fsck.lanefs: %s: cancelled\n", target);
		return EXIT_CANCELLED;
	}
	if (error) {
		fprintf(stderr, "fsck.lanefs: %s: check ended: %s\n", target, strerror(-error));
		return EXIT_OPERATIONAL;
	}
	if (result->no_filesystem) {
		fprintf(stderr,
			"fsck.lanefs: %s: no lanefs superblock; is it the right target? (-b BLOCK names a copy)\n",
			target);
		return EXIT_OPERATIONAL;
	}
	if (result->unsupported) {
		fprintf(stderr, "fsck.lanefs: %s: version or features are unknown here; use a newer fsck.lanefs\n",
			target);
		return EXIT_OPERATIONAL;
	}
	summary_print(command, result, took_ns);
	return result->findings ? EXIT_UNCORRECTED : EXIT_CLEAN;
}

static enum exit_status command_run(struct command *command)
{
	struct fsck_result *result = &command->result;
	if (fsck_device_open(command->target, &command->device, command->message, sizeof(command->message))) {
		fprintf(stderr, "fsck.lanefs: %s\n", command->message);
		return EXIT_OPERATIONAL;
	}
	const struct fsck_options options = {
		.device_blocks = fsck_device_blocks(command->device),
		.replay_in_memory = true,
		.super_block = command->super_block,
		.clean_is_enough = command->preen && !command->force,
	};
	const struct fsck_io io = {command_read, command_finding, command_progress, command};
	uint64_t begin = now_ns();
	int error = fsck_check(&options, &io, result);
	progress_clear(command);
	fsck_device_close(command->device);
	if (!error && result->skipped) {
		printf("%s: clean, not checked further (-f does)\n", command->target);
		return EXIT_CLEAN;
	}
	return outcome(command, result, error, now_ns() - begin);
}

int main(int argc, char **argv)
{
	static struct command command; /* not small */
	command.progress = isatty(STDOUT_FILENO);
	bool done = false;
	enum exit_status status = command_parse(&command, argc, argv, &done);
	if (status != EXIT_CLEAN || done)
		return status;
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return command_run(&command);
}
