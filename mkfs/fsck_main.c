/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fsck.lanefs: a thin main over mkfs/fsck.h. It checks first; with -y or -p it then repairs what was found, and checks again.
 * Without them the target is opened for reading only. Exit status as in fsck(8).
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "mkfs/fsck.h"
#include "mkfs/fsck_device.h"

enum { REACTORS_DEFAULT_MAX = 8, REACTORS_MAX = 64 };

enum exit_status {
	EXIT_CLEAN = 0,
	EXIT_CORRECTED = 1,
	EXIT_UNCORRECTED = 4,
	EXIT_OPERATIONAL = 8,
	EXIT_USAGE = 16,
	EXIT_CANCELLED = 32,
};

struct command {
	const char *target;
	bool check_only;            /* -n */
	bool repair;                /* -y, -p or -a */
	bool preen;                 /* -p or -a: a clean filesystem need not be read, and nothing may be lost */
	bool force, verbose, progress;
	uint64_t super_block;
	unsigned reactors;          /* -o reactors= */
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

/* Processors that it may use. */
static unsigned reactors_default(void)
{
	cpu_set_t set;
	const int count = sched_getaffinity(0, sizeof(set), &set) ? 1 : CPU_COUNT(&set);
	return (unsigned)MIN(MAX(count, 1), REACTORS_DEFAULT_MAX);
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

static int command_write(void *arg, uint64_t block, const void *data)
{
	struct command *command = arg;
	return cancelled ? -ECANCELED : fsck_device_write(command->device, block, data);
}

static void command_jobs(void *arg, unsigned count, void (*job)(void *job_arg), void *job_arg)
{
	fsck_device_run(((struct command *)arg)->device, count, job, job_arg);
}

static int command_flush(void *arg) { return fsck_device_flush(((struct command *)arg)->device); }

static void command_finding(void *arg, const char *line)
{
	const struct command *command = arg;
	progress_clear(arg);
	if (!command->result.no_filesystem && !command->result.unsupported) /* said in one line at the end */
		printf("%s\n", line);
}

static void command_note(void *arg, const char *line)
{
	progress_clear(arg);
	printf("repair: %s\n", line);
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
	fputs("usage: fsck.lanefs [-n | -y | -p | -a] [-f] [-v] [-C] [-b BLOCK] [-o reactors=N] TARGET\n"
	      "Checks a lanefs filesystem and reports what is wrong; with -y or -p it repairs that.\n\n"
	      "  -n          check only; what is done without -y, -p, -a as well\n"
	      "  -y          repair: what cannot be right is dropped, what lost its name goes to lost+found\n"
	      "  -p, -a      repair only when nothing has to be dropped or moved (at boot)\n"
	      "  -f          with -p or -a: read everything even when the filesystem is marked clean\n"
	      "  -v          say more in the summary\n"
	      "  -C          show progress even when the output is no terminal\n"
	      "  -b BLOCK    trust the superblock copy in this block\n"
	      "  -o reactors=N  check with so many threads (all processors, up to 8)\n"
	      "      --help  this text; --version: the version\n\n"
	      "TARGET is an image file, a block device, or another target of lanefs-targets(7). Exit status: 0 clean,\n"
	      "1 repaired, 4 damage is left, 8 could not be checked, 16 usage, 32 cancelled.\n", to);
}

static bool number_parse(const char *text, uint64_t *out)
{
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 0);
	*out = value;
	return !errno && *text >= '0' && *text <= '9' && !*end && value;
}

static bool reactors_parse(const char *text, unsigned *out)
{
	static const char name[] = "reactors=";
	uint64_t count;
	if (strncmp(text, name, sizeof(name) - 1) || !number_parse(text + sizeof(name) - 1, &count) || count > REACTORS_MAX)
		return false;
	*out = (unsigned)count;
	return true;
}

/* EXIT_CLEAN when the command is to be run; *out_done: it is answered already. */
static enum exit_status command_parse(struct command *command, int argc, char **argv, bool *out_done)
{
	static const struct option options[] = {
		{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'V'}, {0}};
	int option;
	while ((option = getopt_long(argc, argv, "nfvC::b:o:ypahV", options, NULL)) != -1) {
		command->check_only |= option == 'n';
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
		if (option == 'o' && !reactors_parse(optarg, &command->reactors)) {
			fprintf(stderr, "fsck.lanefs: -o %s: wanted: reactors=N, 1 to %d\n", optarg, REACTORS_MAX);
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
	if (command->check_only && command->repair) {
		fputs("fsck.lanefs: -n goes with none of -y, -p, -a: choose one\n", stderr);
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
	if (!result->blocks_total) {
		printf("%s: no superblock can be trusted, so nothing else was looked at (-b BLOCK names a copy)\n", target);
		return;
	}
	printf("%s: %" PRIu64 " files, %" PRIu64 " directories, %" PRIu64 " of %" PRIu64 " blocks used, %" PRIu64
	       " finding%s, %.3f s\n", target, result->files, result->directories, result->blocks_used,
		result->blocks_total, result->findings, result->findings == 1 ? "" : "s", (double)took_ns / NS_PER_SEC);
	if (result->findings && !command->repair)
		printf("%s: nothing was changed; fsck.lanefs -y repairs\n", target);
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

static int command_check(struct command *command, bool clean_is_enough)
{
	const struct fsck_options options = {
		.device_blocks = fsck_device_blocks(command->device),
		.replay_in_memory = true,
		.super_block = command->super_block,
		.clean_is_enough = clean_is_enough,
		.jobs = fsck_device_jobs(command->device),
	};
	const struct fsck_io io = {.read = command_read, .finding = command_finding, .progress = command_progress,
		.arg = command, .run = command_jobs};
	const int error = fsck_check(&options, &io, &command->result);
	progress_clear(command);
	return error;
}

/* After a check that found something; checks again. */
static enum exit_status command_repair(struct command *command)
{
	const struct fsck_repair_options options = {
		.device_blocks = fsck_device_blocks(command->device),
		.super_block = command->super_block,
		.lossless = command->preen,
		.now_sec = time(NULL),
	};
	const struct fsck_repair_io io = {command_read, command_write, command_flush, command_note, command_progress, command};
	const char *target = command->target;
	struct fsck_repair_result repaired;
	const uint64_t begin = now_ns();
	int error = fsck_repair(&options, &io, &repaired);
	progress_clear(command);
	if (error) {
		fprintf(stderr, "fsck.lanefs: %s: repair ended: %s; run it again\n", target, strerror(-error));
		return cancelled ? EXIT_CANCELLED : EXIT_OPERATIONAL;
	}
	if (repaired.refused || repaired.no_superblock) {
		printf("%s: not repaired: %s\n", target, repaired.refused ?
			"something would be dropped or moved; fsck.lanefs -y does that" : "no superblock can be trusted (-b BLOCK names one)");
		return EXIT_UNCORRECTED;
	}
	printf("%s: repaired: %" PRIu64 " blocks written, %" PRIu64 " losses or moves, %" PRIu64
	       " inodes in lost+found, %.3f s\n", target, repaired.blocks_written, repaired.losses, repaired.reconnected,
		(double)(now_ns() - begin) / NS_PER_SEC);
	command->super_block = 0;
	error = command_check(command, false);
	if (error) {
		fprintf(stderr, "fsck.lanefs: %s: repaired, but the check of that ended: %s; run it again\n", target, strerror(-error));
		return cancelled ? EXIT_CANCELLED : EXIT_OPERATIONAL;
	}
	if (command->result.findings) {
		fprintf(stderr, "fsck.lanefs: %s: damage is left after the repair; keep a copy of the image and report this\n",
			target);
		return EXIT_UNCORRECTED;
	}
	return EXIT_CORRECTED;
}

static enum exit_status command_run(struct command *command)
{
	struct fsck_result *result = &command->result;
	if (fsck_device_open(command->target, command->repair, command->reactors, &command->device, command->message,
		    sizeof(command->message))) {
		fprintf(stderr, "fsck.lanefs: %s\n", command->message);
		return EXIT_OPERATIONAL;
	}
	const uint64_t begin = now_ns();
	const int error = command_check(command, command->preen && !command->force);
	enum exit_status status = EXIT_CLEAN;
	if (!error && result->skipped)
		printf("%s: clean, not checked further (-f does)\n", command->target);
	else
		status = outcome(command, result, error, now_ns() - begin);
	/* An error on record is one that a check has now explained, or not found any more. A bad place ends a check, not a
	 * repair. */
	if (command->repair && (status == EXIT_UNCORRECTED || (status == EXIT_CLEAN && result->recorded_error) || error == -EIO))
		status = command_repair(command);
	fsck_device_close(command->device);
	return status;
}

int main(int argc, char **argv)
{
	static struct command command; /* not small */
	command.progress = isatty(STDOUT_FILENO);
	command.reactors = reactors_default();
	bool done = false;
	enum exit_status status = command_parse(&command, argc, argv, &done);
	if (status != EXIT_CLEAN || done)
		return status;
	struct sigaction action = {.sa_handler = on_signal};
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	return command_run(&command);
}
