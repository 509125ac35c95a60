/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How the rates of operations on names change while one directory grows: bench/directory_growth [-n ENTRIES] [-s STEP]
 * [-c] [-p PID] DIR. Makes a directory with empty files in DIR, and for each phase prints operations per second for
 * every step and the ratio of the last to the first. -c: before the phases marked cold the kernel drops its dentries and
 * inodes (needs root, and touches every filesystem of the machine). -p: a second line per phase with the processor time
 * per operation that the process (the daemon) has used, in microseconds: that varies less than rates on a busy machine.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct bench {
	int directory;
	unsigned long entries, step;
	bool drop_caches;
	clockid_t daemon;               /* its processor time; CLOCK_MONOTONIC: none was named */
};

enum { STEPS_MAX = 1000 };
struct step {
	double seconds, daemon_seconds;
};
static struct step steps[STEPS_MAX];

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "directory_growth: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double seconds_of(clockid_t clock)
{
	struct timespec time;
	if (clock_gettime(clock, &time))
		fail("clock of the process");
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static struct step now(const struct bench *bench)
{
	return (struct step){seconds_of(CLOCK_MONOTONIC), seconds_of(bench->daemon)};
}

static void step_end(const struct bench *bench, unsigned long index, struct step begin)
{
	const struct step end = now(bench);
	steps[index] = (struct step){end.seconds - begin.seconds, end.daemon_seconds - begin.daemon_seconds};
}

static void print_steps(const struct bench *bench, const char *title)
{
	const unsigned long count = bench->entries / bench->step;

	printf("%-20s", title);
	for (unsigned long i = 0; i < count; i++)
		printf(" %9.0f", (double)bench->step / steps[i].seconds);
	printf("  last/first %.2f\n", steps[0].seconds / steps[count - 1].seconds);
	if (bench->daemon == CLOCK_MONOTONIC)
		return;
	printf("%-20s", "  daemon, us each");
	for (unsigned long i = 0; i < count; i++)
		printf(" %9.2f", steps[i].daemon_seconds / (double)bench->step * 1e6);
	printf("\n");
	fflush(stdout);
}

static void name_of(char name[32], unsigned long i, const char *tail)
{
	snprintf(name, 32, "file-%08lu%s", i, tail);
}

/* Every entry once, in an order that has nothing to do with the one of creation. */
static unsigned long shuffled(const struct bench *bench, unsigned long i)
{
	return (unsigned long)((unsigned __int128)i * 2654435761u % bench->entries);
}

static void do_create(struct bench *bench, unsigned long i)
{
	char name[32];
	name_of(name, i, "");
	const int fd = openat(bench->directory, name, O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (fd < 0)
		fail(name);
	close(fd);
}

static void stat_one(struct bench *bench, unsigned long i, const char *tail)
{
	char name[32];
	struct stat result;
	name_of(name, i, tail);
	if (fstatat(bench->directory, name, &result, AT_SYMLINK_NOFOLLOW))
		fail(name);
}

static void do_stat(struct bench *bench, unsigned long i) { stat_one(bench, shuffled(bench, i), ""); }

static void do_miss(struct bench *bench, unsigned long i)
{
	char name[32];
	struct stat result;
	name_of(name, i, ".missing");
	if (!fstatat(bench->directory, name, &result, AT_SYMLINK_NOFOLLOW) || errno != ENOENT)
		fail(name);
}

static void do_rename(struct bench *bench, unsigned long i)
{
	char from[32], to[32];
	name_of(from, shuffled(bench, i), "");
	name_of(to, shuffled(bench, i), ".new");
	if (renameat(bench->directory, from, bench->directory, to))
		fail(from);
}

static void do_unlink(struct bench *bench, unsigned long i)
{
	char name[32];
	name_of(name, i, ".new");
	if (unlinkat(bench->directory, name, 0))
		fail(name);
}

static void cool(const struct bench *bench)
{
	if (!bench->drop_caches)
		return;
	const int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (fd < 0 || write(fd, "2", 1) != 1)
		fail("/proc/sys/vm/drop_caches");
	close(fd);
}

static void phase(struct bench *bench, const char *title, void (*operation)(struct bench *bench, unsigned long i))
{
	for (unsigned long i = 0; i < bench->entries; i += bench->step) {
		const struct step begin = now(bench);
		for (unsigned long k = i; k < i + bench->step; k++)
			operation(bench, k);
		step_end(bench, i / bench->step, begin);
	}
	print_steps(bench, title);
}

/* Reads the directory; with @attributes each entry is looked at, too. */
static void list(struct bench *bench, const char *title, bool attributes)
{
	DIR *stream = fdopendir(openat(bench->directory, ".", O_RDONLY | O_DIRECTORY));
	unsigned long count = 0;
	const struct dirent *entry;

	if (!stream)
		fail("opening the directory");
	struct step begin = now(bench);
	while ((entry = readdir(stream))) {
		if (entry->d_name[0] == '.')
			continue;
		struct stat result;
		if (attributes && fstatat(bench->directory, entry->d_name, &result, AT_SYMLINK_NOFOLLOW))
			fail(entry->d_name);
		if (++count % bench->step || count > bench->entries)
			continue;
		step_end(bench, count / bench->step - 1, begin);
		begin = now(bench);
	}
	closedir(stream);
	if (count != bench->entries) {
		fprintf(stderr, "directory_growth: %lu entries listed, %lu made\n", count, bench->entries);
		exit(1);
	}
	print_steps(bench, title);
}

static void run(struct bench *bench)
{
	phase(bench, "create", do_create);
	phase(bench, "stat, warm", do_stat);
	phase(bench, "stat of no file", do_miss);
	cool(bench);
	list(bench, "readdir", false);
	list(bench, "readdir again", false);
	cool(bench);
	list(bench, "readdir and stat", true);
	cool(bench);
	phase(bench, "stat, cold", do_stat);
	phase(bench, "rename", do_rename);
	phase(bench, "unlink", do_unlink);
}

/* False: wrong usage. */
static bool options(struct bench *bench, int argc, char **argv)
{
	int option;

	while ((option = getopt(argc, argv, "n:s:cp:")) != -1) {
		if (option == 'n')
			bench->entries = strtoul(optarg, NULL, 10);
		else if (option == 's')
			bench->step = strtoul(optarg, NULL, 10);
		else if (option == 'c')
			bench->drop_caches = true;
		else if (option != 'p')
			return false;
		else if (clock_getcpuclockid((pid_t)strtol(optarg, NULL, 10), &bench->daemon))
			fail(optarg);
	}
	return optind + 1 == argc && bench->step && bench->entries && !(bench->entries % bench->step) &&
		bench->entries / bench->step <= STEPS_MAX;
}

int main(int argc, char **argv)
{
	struct bench bench = {.entries = 1000000, .step = 100000, .daemon = CLOCK_MONOTONIC};

	if (!options(&bench, argc, argv)) {
		fprintf(stderr, "usage: directory_growth [-n ENTRIES] [-s STEP] [-c] [-p PID] DIR\n"
			"(ENTRIES a multiple of STEP, at most %d of them)\n", STEPS_MAX);
		return 2;
	}
	if (chdir(argv[optind]) || mkdir("directory-growth", 0755))
		fail(argv[optind]);
	bench.directory = open("directory-growth", O_RDONLY | O_DIRECTORY);
	if (bench.directory < 0)
		fail(argv[optind]);
	run(&bench);
	close(bench.directory);
	if (rmdir("directory-growth"))
		fail(argv[optind]);
	return 0;
}
