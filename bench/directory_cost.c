/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What operations on names cost in the filesystem itself while one directory grows: bench/directory_cost [-n ENTRIES]
 * [-s STEP] [-c CACHE_MIB]. One simulated reactor on a device in memory, without FUSE; processor time per operation in
 * microseconds for every step, and the ratio of the last to the first. Commits, checkpoints and home writes are in it.
 * Unlike rates, this does not depend on what else the machine does.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/sim/calls.h"

struct bench {
	struct machine machine;
	uint64_t directory;
	uint64_t *inos;                 /* by number of the file */
	unsigned long entries, step, listed;
};

static _Noreturn void fail(const char *what, int error)
{
	fprintf(stderr, "directory_cost: %s: %d\n", what, error);
	exit(1);
}

static double now(void)
{
	struct timespec time;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Every entry once, in an order that has nothing to do with the one of creation. */
static unsigned long shuffled(const struct bench *bench, unsigned long i)
{
	return (unsigned long)((unsigned __int128)i * 2654435761u % bench->entries);
}

static const char *name_of(unsigned long i, const char *tail)
{
	static char names[2][32];
	static unsigned turn;
	turn = !turn;
	snprintf(names[turn], sizeof(names[turn]), "file-%08lu%s", i, tail);
	return names[turn];
}

static int do_create(struct bench *bench, unsigned long i)
{
	struct fs_entry entry;
	const int error = call_create(&bench->machine, bench->directory, name_of(i, ""), S_IFREG | 0644, &entry);
	bench->inos[i] = entry.ino;
	return error;
}

static int do_lookup(struct bench *bench, unsigned long i)
{
	struct fs_entry entry;
	return call_lookup(&bench->machine, bench->directory, name_of(shuffled(bench, i), ""), &entry);
}

static int do_miss(struct bench *bench, unsigned long i)
{
	struct fs_entry entry;
	return !call_lookup(&bench->machine, bench->directory, name_of(i, ".missing"), &entry);
}

static int do_rename(struct bench *bench, unsigned long i)
{
	const unsigned long number = shuffled(bench, i);
	return call_rename(&bench->machine, bench->directory, name_of(number, ""), bench->directory,
		name_of(number, ".new"), 0);
}

static int do_unlink(struct bench *bench, unsigned long i)
{
	const int error = call_unlink(&bench->machine, bench->directory, name_of(i, ".new"));
	call_forget(&bench->machine, bench->inos[i], UINT32_MAX);
	return error;
}

static void phase(struct bench *bench, const char *title, int (*operation)(struct bench *bench, unsigned long i))
{
	double first = 0, seconds = 0;

	printf("%-18s", title);
	for (unsigned long i = 0; i < bench->entries; i += bench->step) {
		const double begin = now();
		for (unsigned long k = i; k < i + bench->step; k++) {
			const int error = operation(bench, k);
			if (error)
				fail(title, error);
		}
		seconds = now() - begin;
		if (!i)
			first = seconds;
		printf(" %6.2f", seconds / (double)bench->step * 1e6);
		fflush(stdout);
	}
	printf("   last/first %.2f\n", seconds / first);
}

static bool emit(const struct fs_dirent *dirent, void *arg)
{
	struct bench *bench = arg;
	bench->listed += dirent->name.bytes[0] != '.';
	return true;
}

static void list(struct bench *bench, const char *title, bool plus)
{
	const double begin = now();
	bench->listed = 0;
	const int error = call_readdir(&bench->machine, bench->directory, 0, plus, emit, bench);
	if (error || bench->listed != bench->entries)
		fail(title, error);
	printf("%-18s %6.2f\n", title, (now() - begin) / (double)bench->entries * 1e6);
}

static void start(struct bench *bench, uint64_t cache_bytes)
{
	struct machine *machine = &bench->machine;
	*machine = (struct machine){.size = MIB(256) + bench->entries * 1024, .owners = 1,
		.mount = {.cache_bytes = cache_bytes}, .damaged = true};
	machine->size = align_up(machine->size, MIB(1));
	machine->memory = mmap(NULL, machine->size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (machine->memory == MAP_FAILED)
		fail("memory", -ENOMEM);
	const struct sim_format format = {.size = machine->size, .journal_bytes = MIB(64), .ag_bytes = MIB(128), .seed = 7};
	sim_mkfs(machine->memory, &format);
	const struct sim_options options = {.owners = 1, .seed = 1, .memory = machine->memory, .size = machine->size};
	sim_create(&machine->sim, &options);
	const int error = sim_mount(&machine->sim, &machine->mount);
	if (error)
		fail(machine->sim.message, error);
}

int main(int argc, char **argv)
{
	static struct bench bench = {.entries = 1000000, .step = 100000};
	unsigned long cache_mib = 0;
	int option;

	while ((option = getopt(argc, argv, "n:s:c:")) != -1) {
		if (option == 'n')
			bench.entries = strtoul(optarg, NULL, 10);
		else if (option == 's')
			bench.step = strtoul(optarg, NULL, 10);
		else if (option == 'c')
			cache_mib = strtoul(optarg, NULL, 10);
		else
			return 2;
	}
	if (!bench.step || bench.entries % bench.step)
		return 2;
	bench.inos = calloc(bench.entries, sizeof(*bench.inos));
	if (!bench.inos)
		fail("memory", -ENOMEM);
	start(&bench, MIB(cache_mib));
	struct fs_entry entry;
	const int error = call_create(&bench.machine, FS_ROOT_INODE, "directory", S_IFDIR | 0755, &entry);
	if (error)
		fail("directory", error);
	bench.directory = entry.ino;
	phase(&bench, "create", do_create);
	phase(&bench, "look up", do_lookup);
	phase(&bench, "look up no file", do_miss);
	list(&bench, "readdir", false);
	list(&bench, "readdirplus", true);
	phase(&bench, "rename", do_rename);
	phase(&bench, "unlink", do_unlink);
	machine_stop(&bench.machine);
	free(bench.inos);
	return 0;
}
