/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Drives a target without libFuzzer: NAME_replay [--mutate N] [--seed S] [--verbose] FILE|FOLDER...
 * Runs each file, and each file of each folder (a folder that does not exist is empty). With --mutate each of them is
 * then changed N times at random. A failure names the input: what was mutated is written to a file in $TMPDIR or /tmp,
 * which the message names too, for cases/NAME/ once it is understood.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "reactor/log.h"
#include "tests/fuzz/fuzz.h"

#pragma weak LLVMFuzzerInitialize
#pragma weak LLVMFuzzerCustomMutator

enum { FILES_MAX = 4096, SECONDS_MAX = 60 };

static char *file_name[FILES_MAX];
static unsigned file_count, mutations;
static uint64_t random_state, runs;
static bool verbose;
static const char *at_work = "the start";
static uint8_t mutated[FUZZ_INPUT_MAX];
static size_t mutated_size;             /* 0: the file itself was being run */
static char failure_path[4096];         /* where it goes when it fails */

static uint64_t random_next(void)
{
	uint64_t z = (random_state += 0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
	z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
	return z ^ (z >> 31);
}

static void die(const char *what, const char *name)
{
	fprintf(stderr, "replay: %s %s: %s\n", what, name, strerror(errno));
	exit(2);
}

/* ---- mutation ---- */

static size_t bytes_remove(uint8_t *data, size_t size)
{
	const size_t at = random_next() % size, count = 1 + random_next() % MIN(size - at, (size_t)16);
	memmove(data + at, data + at + count, size - at - count);
	return size - count;
}

static size_t bytes_repeat(uint8_t *data, size_t size, size_t size_max)
{
	const size_t from = random_next() % size, to = random_next() % size;
	const size_t count = MIN(MIN(1 + random_next() % 16, size - from), size_max - size);
	uint8_t copy[16];
	memcpy(copy, data + from, count);
	memmove(data + to + count, data + to, size - to);
	memcpy(data + to, copy, count);
	return size + count;
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t size_max)
{
	static const uint64_t telling[] = {0, 1, 0x7f, 0x80, 0xff, 0xffff, 0x7fffffff, 0xffffffff, INT64_MAX, UINT64_MAX};
	if (size == 0) {
		data[0] = (uint8_t)random_next();
		return 1;
	}
	const size_t at = random_next() % size;
	const uint64_t value = telling[random_next() % ARRAY_SIZE(telling)];
	switch (random_next() % 6) {
	case 0: return size > 1 ? bytes_remove(data, size) : size;
	case 1: return bytes_repeat(data, size, size_max);
	case 2: data[at] = (uint8_t)random_next(); break;
	case 3: data[at] ^= (uint8_t)(1u << random_next() % 8); break;
	case 4: data[at] = (uint8_t)(data[at] + random_next() % 9 - 4); break;
	default: memcpy(data + at, &value, MIN((size_t)1 << random_next() % 4, size - at));
	}
	return size;
}

static size_t mutate(uint8_t *data, size_t size)
{
	for (unsigned changes = 1 + (unsigned)(random_next() % 4); changes > 0; changes--)
		size = LLVMFuzzerCustomMutator ? LLVMFuzzerCustomMutator(data, size, FUZZ_INPUT_MAX, (unsigned)random_next())
					       : LLVMFuzzerMutate(data, size, FUZZ_INPUT_MAX);
	return size;
}

/* ---- running ---- */

static void on_death(int number)
{
	signal(number, SIG_DFL);
	char line[2 * sizeof(failure_path)];
	const char *text = mutated_size ? "mutated, in " : "itself", *where = "";
	if (mutated_size) {
		where = failure_path;
		const int fd = open(failure_path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
		if (fd < 0 || write(fd, mutated, mutated_size) != (ssize_t)mutated_size)
			text = "mutated, and cannot be written to ";
	}
	const int length = snprintf(line, sizeof(line), "replay: signal %d at %s, %s%s\n", number, at_work, text, where);
	if (write(STDERR_FILENO, line, MIN((size_t)length, sizeof(line) - 1)) < 0)
		_exit(3);
	raise(number);
}

/* The copy is as long as the input, so that reading behind it is seen. */
static void run_one(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size ? size : 1);
	if (!copy)
		die("no memory for", at_work);
	memcpy(copy, data, size);
	alarm(SECONDS_MAX);
	LLVMFuzzerTestOneInput(copy, size);
	alarm(0);
	free(copy);
	runs++;
}

static void run_file(const char *name)
{
	static uint8_t data[FUZZ_INPUT_MAX];
	FILE *file = fopen(name, "rb");
	if (!file)
		die("cannot open", name);
	const size_t size = fread(data, 1, sizeof(data), file);
	fclose(file);
	at_work = name;
	if (verbose)
		fprintf(stderr, "replay: %s\n", name);
	mutated_size = 0;
	run_one(data, size);
	for (unsigned i = 0; i < mutations; i++) {
		memcpy(mutated, data, size);
		mutated_size = mutate(mutated, size);
		run_one(mutated, mutated_size);
	}
}

/* ---- what to run ---- */

static void file_add(const char *folder, const char *name)
{
	char path[4096];
	if (file_count == FILES_MAX || snprintf(path, sizeof(path), "%s/%s", folder, name) >= (int)sizeof(path))
		die("too many or too long", name);
	file_name[file_count++] = strdup(path);
}

static void argument_add(const char *argument)
{
	DIR *folder = opendir(argument);
	if (!folder && errno == ENOTDIR)
		file_name[file_count++] = strdup(argument);
	else if (!folder && errno != ENOENT)
		die("cannot open", argument);
	if (!folder)
		return;
	for (struct dirent *entry; (entry = readdir(folder));)
		if (entry->d_name[0] != '.')
			file_add(argument, entry->d_name);
	closedir(folder);
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void log_nothing(enum log_level level, const char *line, void *arg) {}

static void failure_path_make(void)
{
	const char *folder = getenv("TMPDIR");
	snprintf(failure_path, sizeof(failure_path), "%s/lanefs-%s-failure-%d.bin", folder && folder[0] == '/' ? folder : "/tmp",
		program_invocation_short_name, (int)getpid());
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"mutate", required_argument, NULL, 'm'}, {"seed", required_argument, NULL, 's'}, {"verbose", no_argument, NULL, 'v'}, {0}};
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
		switch (option) {
		case 'm': mutations = (unsigned)strtoul(optarg, NULL, 0); break;
		case 's': random_state = strtoull(optarg, NULL, 0); break;
		case 'v': verbose = true; break;
		default: fprintf(stderr, "usage: %s [--mutate N] [--seed S] [--verbose] FILE|FOLDER...\n", argv[0]); return 2;
		}
	}
	for (int i = optind; i < argc; i++)
		argument_add(argv[i]);
	qsort(file_name, file_count, sizeof(file_name[0]), by_name);
	if (!verbose)
		log_set_sink(log_nothing, NULL);
	if (LLVMFuzzerInitialize)
		LLVMFuzzerInitialize(&argc, &argv);
	failure_path_make();
	signal(SIGABRT, on_death);
	signal(SIGALRM, on_death);
	signal(SIGSEGV, on_death);
	for (unsigned i = 0; i < file_count; i++)
		run_file(file_name[i]);
	printf("%u files, %llu runs\n", file_count, (unsigned long long)runs);
	for (unsigned i = 0; i < file_count; i++)
		free(file_name[i]);
	if (!file_count)
		fprintf(stderr, "replay: nothing to run\n");
	return file_count ? 0 : 1;
}
