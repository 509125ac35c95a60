/* SPDX-License-Identifier: BSD-3-Clause */
/* What the two exercisers share: options, workers, random numbers, the log of operations. */
#include "tests/mounted/random/exerciser.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WORKERS_MAX = 64, SHOWN_OF_OBJECT = 40, SHOWN_OF_ALL = 15, PATH_SHOWN = 80 };

/* ---- options ---- */

static void usage(const struct exerciser_options *options, int status)
{
	fprintf(status ? stderr : stdout,
		"Usage: %s [OPTIONS] DIRECTORY\n"
		"Random operations on DIRECTORY, compared with a model in memory. Ends with 1 at the first difference.\n"
		"  --seed N          repeat the run of this seed\n"
		"  --ops N           operations per worker; 0: until the time is over\n"
		"  --seconds N       end after this time\n"
		"  --workers N       processes at once\n"
		"  --files N         files of each (data)\n"
		"  --size BYTES      largest file (data)\n"
		"  --direct-align N  alignment of direct I/O (data; 512 if not said)\n"
		"  --nodes N         names in each worker's tree, about (names)\n"
		"  --xattr-max N     bytes of extended attributes that one file may have (names)\n"
		"  --check-every N   operations between comparisons of everything\n"
		"  --no-direct, --no-mmap    without these operations (data)\n"
		"  --writeback       it is FUSE with a writeback cache: a size is known to the filesystem after fsync only (data)\n"
		"  --drop-caches     empty the kernel's caches of the whole machine now and then (root)\n"
		"  --save FILE       at the end, write the model to FILE.<worker>; the files stay\n"
		"  --verify FILE     compare DIRECTORY with such a model, change nothing\n"
		"  --verbose         print every operation\n",
		options->program);
	exit(status);
}

static uint64_t number(const struct exerciser_options *options, const char *text)
{
	char *end;
	errno = 0;
	const uint64_t value = strtoull(text, &end, 0);
	if (errno || *end || end == text) {
		fprintf(stderr, "%s: %s is not a number\n", options->program, text);
		usage(options, 2);
	}
	return value;
}

static void option_set(struct exerciser_options *options, int letter, const char *text)
{
	switch (letter) {
	case 's': options->seed = number(options, text); break;
	case 'o': options->ops = number(options, text); break;
	case 't': options->seconds = (unsigned)number(options, text); break;
	case 'w': options->workers = (unsigned)number(options, text); break;
	case 'f': options->files = (unsigned)number(options, text); break;
	case 'z': options->size_max = number(options, text); break;
	case 'a': options->direct_align = (unsigned)number(options, text); break;
	case 'n': options->nodes = (unsigned)number(options, text); break;
	case 'x': options->xattr_max = (unsigned)number(options, text); break;
	case 'c': options->check_every = (unsigned)number(options, text); break;
	case 'D': options->no_direct = true; break;
	case 'M': options->no_mmap = true; break;
	case 'y': options->writeback = true; break;
	case 'd': options->drop_caches = true; break;
	case 'S': options->save = text; break;
	case 'V': options->verify = text; break;
	case 'v': options->verbose = true; break;
	default: usage(options, letter == 'h' ? 0 : 2);
	}
}

/* Workers change their working directory. */
static const char *absolute(const char *path)
{
	static char buffers[2][PATH_MAX * 2];
	static unsigned turn;
	char here[PATH_MAX];
	if (!path || path[0] == '/' || !getcwd(here, sizeof(here)))
		return path;
	char *buffer = buffers[turn++ % 2];
	snprintf(buffer, sizeof(buffers[0]), "%s/%s", here, path);
	return buffer;
}

void exerciser_parse(struct exerciser_options *options, int argc, char **argv)
{
	static const struct option known[] = {
		{"seed", required_argument, NULL, 's'}, {"ops", required_argument, NULL, 'o'},
		{"seconds", required_argument, NULL, 't'}, {"workers", required_argument, NULL, 'w'},
		{"files", required_argument, NULL, 'f'}, {"size", required_argument, NULL, 'z'},
		{"direct-align", required_argument, NULL, 'a'}, {"nodes", required_argument, NULL, 'n'},
		{"xattr-max", required_argument, NULL, 'x'}, {"check-every", required_argument, NULL, 'c'},
		{"no-direct", no_argument, NULL, 'D'}, {"no-mmap", no_argument, NULL, 'M'},
		{"writeback", no_argument, NULL, 'y'},
		{"drop-caches", no_argument, NULL, 'd'}, {"save", required_argument, NULL, 'S'},
		{"verify", required_argument, NULL, 'V'}, {"verbose", no_argument, NULL, 'v'}, {"help", no_argument, NULL, 'h'}, {0},
	};
	options->program = argv[0];
	for (int letter; (letter = getopt_long(argc, argv, "hv", known, NULL)) != -1;) {
		option_set(options, letter, optarg);
		if (letter >= 0 && letter < (int)sizeof(options->flags_seen))
			options->flags_seen[letter] = true;
	}
	if (optind != argc - 1 || !options->workers || options->workers > WORKERS_MAX || !options->direct_align)
		usage(options, 2);
	options->directory = argv[optind];
	options->save = absolute(options->save);
	options->verify = absolute(options->verify);
	if (!options->flags_seen['s']) {
		struct timespec now;
		clock_gettime(CLOCK_REALTIME, &now);
		options->seed = ((uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec) % 1000000000u;
	}
	if (options->flags_seen['t'] && !options->flags_seen['o'])
		options->ops = 0;
}

/* ---- workers ---- */

static _Noreturn void worker_main(const struct exerciser_options *options, unsigned worker,
	void (*work)(struct exerciser *exerciser))
{
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	struct exerciser exerciser = {.options = options, .worker = worker};
	exerciser.random = (options->seed + 1) * 0x9e3779b97f4a7c15u ^ (worker + 1) * 0xd1342543de82ef95u;
	exerciser.log = calloc(OP_LOG, sizeof(*exerciser.log));
	if (!exerciser.log)
		exit(2);
	exerciser.current = &exerciser.log[0];
	clock_gettime(CLOCK_MONOTONIC, &exerciser.deadline);
	exerciser.deadline.tv_sec += options->seconds;
	work(&exerciser);
	printf("worker %u: %lu operations, no difference\n", worker, exerciser.op ? exerciser.op - 1 : 0);
	exit(0);
}

int exerciser_run(const struct exerciser_options *options, void (*work)(struct exerciser *exerciser))
{
	pid_t pids[WORKERS_MAX];
	if (!options->verify)
		printf("%s: seed %lu, %u workers, in %s\n", options->program, options->seed, options->workers, options->directory);
	fflush(stdout);
	for (unsigned i = 0; i < options->workers; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			worker_main(options, i, work);
		if (pids[i] < 0) {
			perror("fork");
			return 2;
		}
	}
	int result = 0;
	for (unsigned left = options->workers; left; left--) {
		int status;
		const pid_t pid = wait(&status);
		for (unsigned i = 0; i < options->workers; i++)
			pids[i] = pids[i] == pid ? 0 : pids[i];
		if (status == 0 || result)
			continue;
		if (WIFSIGNALED(status))
			printf("a worker was ended by signal %d\n", WTERMSIG(status));
		result = 1;
		for (unsigned i = 0; i < options->workers; i++)
			if (pids[i] > 0)
				kill(pids[i], SIGTERM);
	}
	return result;
}

bool exerciser_next(struct exerciser *exerciser)
{
	exerciser->op++;
	if (exerciser->options->ops && exerciser->op > exerciser->options->ops)
		return false;
	if (!exerciser->options->seconds)
		return true;
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec < exerciser->deadline.tv_sec ||
		(now.tv_sec == exerciser->deadline.tv_sec && now.tv_nsec < exerciser->deadline.tv_nsec);
}

/* ---- random numbers ---- */

uint64_t random_next(uint64_t *state) /* splitmix64: any state will do */
{
	uint64_t value = (*state += 0x9e3779b97f4a7c15u);
	value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
	value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
	return value ^ (value >> 31);
}

uint64_t pick(struct exerciser *exerciser, uint64_t below)
{
	const uint64_t value = random_next(&exerciser->random);
	return below ? value % below : 0;
}

unsigned pick_weighted(struct exerciser *exerciser, const unsigned *weights, unsigned count)
{
	unsigned sum = 0;
	for (unsigned i = 0; i < count; i++)
		sum += weights[i];
	uint64_t at = pick(exerciser, sum);
	for (unsigned i = 0; i < count; i++) {
		if (at < weights[i])
			return i;
		at -= weights[i];
	}
	return 0;
}

void fill_bytes(uint8_t *bytes, size_t length, uint64_t seed)
{
	for (size_t at = 0; at < length; at += 8) {
		const uint64_t value = random_next(&seed);
		memcpy(bytes + at, &value, length - at < 8 ? length - at : 8);
	}
}

/* ---- the log ---- */

/* Names may be of any bytes. */
static void make_printable(char *text, char allowed)
{
	for (; *text; text++)
		if ((*text < ' ' && *text != allowed) || *text > '~')
			*text = '?';
}

void op_begin(struct exerciser *exerciser, uint64_t object, uint64_t other, uint64_t offset, uint64_t end,
	const char *format, ...)
{
	struct op_record *record = &exerciser->log[exerciser->op % OP_LOG];
	*record = (struct op_record){.number = exerciser->op, .object = object, .other = other, .offset = offset, .end = end};
	exerciser->current = record;
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(record->text, sizeof(record->text), format, arguments);
	va_end(arguments);
	make_printable(record->text, 0);
	if (exerciser->options->verbose)
		printf("%u:%lu %s\n", exerciser->worker, record->number, record->text);
}

void op_note(struct exerciser *exerciser, const char *format, ...)
{
	char *text = exerciser->current->text;
	const size_t used = strlen(text);
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text + used, OP_TEXT - used, format, arguments);
	va_end(arguments);
	make_printable(text + used, 0);
}

static bool touches(const struct op_record *record, uint64_t object, uint64_t offset, uint64_t end)
{
	if (!record->number || (record->object != object && record->other != object))
		return false;
	return !end || !record->end || record->other == object || (record->offset < end && offset < record->end);
}

/* The last @limit records that @object selects (0: all of them), oldest first. */
static void log_show(const struct exerciser *exerciser, uint64_t object, uint64_t offset, uint64_t end, unsigned limit)
{
	const uint64_t last = exerciser->op, first = last >= OP_LOG ? last - OP_LOG + 1 : 1;
	uint64_t from = last;
	for (unsigned found = 0; from >= first && found < limit; from--)
		found += !object || touches(&exerciser->log[from % OP_LOG], object, offset, end);
	for (uint64_t i = from + 1; i <= last; i++) {
		const struct op_record *record = &exerciser->log[i % OP_LOG];
		if (record->number == i && (!object || touches(record, object, offset, end)))
			printf("  %8lu  %s\n", record->number, record->text);
	}
}

/* The command that repeats this run up to the operation under way, with the options that were given. */
static void command_show(const struct exerciser *exerciser)
{
	const struct exerciser_options *options = exerciser->options;
	printf("again: %s --seed %lu --workers %u --ops %lu", options->program, options->seed, options->workers, exerciser->op);
	const bool *seen = options->flags_seen;
	if (seen['f'])
		printf(" --files %u", options->files);
	if (seen['z'])
		printf(" --size %lu", options->size_max);
	if (seen['a'])
		printf(" --direct-align %u", options->direct_align);
	if (seen['n'])
		printf(" --nodes %u", options->nodes);
	if (seen['x'])
		printf(" --xattr-max %u", options->xattr_max);
	if (seen['c'])
		printf(" --check-every %u", options->check_every);
	printf("%s%s%s%s %s\n", options->no_direct ? " --no-direct" : "", options->no_mmap ? " --no-mmap" : "",
		options->writeback ? " --writeback" : "", options->drop_caches ? " --drop-caches" : "", options->directory);
}

void differ(struct exerciser *exerciser, uint64_t object, uint64_t offset, uint64_t end, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("DIFFERENCE (worker %u, operation %lu): ", exerciser->worker, exerciser->op);
	char text[2 * PATH_MAX];
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	make_printable(text, '\n');
	printf("%s\n", text);
	if (object) {
		printf("the last operations on it%s:\n", end ? ", in this range" : "");
		log_show(exerciser, object, offset, end, SHOWN_OF_OBJECT);
	}
	printf("the last operations of all:\n");
	log_show(exerciser, 0, 0, 0, SHOWN_OF_ALL);
	command_show(exerciser);
	fflush(stdout);
	_exit(1);
}

const char *path_end(const char *path)
{
	const size_t length = strlen(path);
	return length > PATH_SHOWN ? path + length - PATH_SHOWN : path;
}

const char *error_text(int error)
{
	static char texts[4][96];
	static unsigned turn;
	char *text = texts[turn++ % 4];
	const char *name = strerrorname_np(error);
	snprintf(text, sizeof(texts[0]), "%s (%s)", name ? name : "?", error ? strerror(error) : "no error");
	return text;
}
