/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the NVMe driver costs per 4 KiB read, and the block layer on top of it: nanoseconds, and instructions where valgrind is
 * there to count them. Without arguments it prints the table of doc/performance.md.
 *
 *   nvme_cost [--count N] [--no-instructions] [--only CASE --depth D]
 *
 * "polled" calls the driver's poller in a loop: submit, ring, take, done, and nothing else. "in turns" lets the reactor run as it
 * does in the daemon (polling, one reactor): messages, timers, clock and RCU are in it. Each figure is the best of some runs, since
 * the others measure the neighbours. A real device adds what the null one spares: an uncached doorbell write over the bus, and
 * completions that come out of memory instead of the cache.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#if __has_include(<valgrind/callgrind.h>)
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_TOGGLE_COLLECT
#endif

#include "bench/nvme_null.h"
#include "blockdev/blockdev.h"
#include "blockdev/nvme.h"
#include "nvme/emu.h"
#include "reactor/log.h"
#include "reactor/memory.h"

enum { DEPTH_LARGE = 128, BLOCK = 4096, RUNS = 25, EMU_MIB = 64 };

enum bench_case { CASE_MODEL, CASE_POLLED, CASE_TURNS, CASE_BDEV, CASE_FIBER, CASE_EMU, CASE_COUNT };
static const char *const case_names[CASE_COUNT] = {
	[CASE_MODEL] = "the null controller alone",
	[CASE_POLLED] = "driver, polled",
	[CASE_TURNS] = "driver, in turns",
	[CASE_BDEV] = "block layer and driver, in turns",
	[CASE_FIBER] = "fibers in bdev_read, in turns",
	[CASE_EMU] = "driver on the emulated controller, in turns",
};
static const char *const case_words[CASE_COUNT] = {"model", "polled", "turns", "bdev", "fiber", "emu"};

struct job {
	struct nvme_request request;
	struct io io;
	struct iovec iov;
	struct fiber_start fiber;
	uint8_t *buffer;
	uint64_t random;
};

static struct {
	enum bench_case which;
	unsigned depth, count;
	struct job jobs[DEPTH_LARGE];
	struct reactor_group *group;
	struct nvme_ctrlr *ctrlr;
	struct nvme_qpair *qpair;
	struct poller *qpair_poller;
	struct bdev_registry *registry;
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	char bdev_name[128];
	struct emu *emu;
	uint8_t *medium;
	struct poller medium_poller;
	struct cds_list_head medium_line;
	struct message start;
	unsigned submitted, done;
	double start_ns, end_ns, best_ns;
	bool finished;
} bench;

static double now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

static void check(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "nvme_cost: %s: %s\n", what, strerror(-err));
	exit(1);
}

static uint64_t next_block(struct job *job)
{
	job->random = job->random * 6364136223846793005ull + 1442695040888963407ull;
	return (job->random >> 33) % (MIB(EMU_MIB) / BLOCK);
}

static void count_done(void)
{
	if (++bench.done == bench.count) {
		bench.end_ns = now_ns();
		CALLGRIND_TOGGLE_COLLECT;
		bench.finished = true;
	}
}

/* ---- the driver ---- */

static void driver_done(struct nvme_request *request);

static void driver_submit(struct job *job)
{
	const uint64_t lba = next_block(job);
	job->request.command = (struct nvme_command){.opcode = NVME_CMD_READ, .nsid = le32_set(1), .cdw10 = le32_set((uint32_t)lba),
		.cdw11 = le32_set((uint32_t)(lba >> 32))};
	job->request.iov = &job->iov;
	job->request.iov_count = 1;
	job->request.length = BLOCK;
	job->request.dsm_blocks = 0;
	job->request.done = driver_done;
	bench.submitted++;
	nvme_submit(bench.qpair, &job->request);
}

static void driver_done(struct nvme_request *request)
{
	check(request->result, "a read");
	count_done();
	if (bench.submitted < bench.count)
		driver_submit(CONTAINER_OF(request, struct job, request));
}

/* ---- the block layer ---- */

static void bdev_submit(struct job *job);

static void bdev_done(struct io *io)
{
	check(io->result, "a read");
	count_done();
	if (bench.submitted < bench.count)
		bdev_submit(CONTAINER_OF(io, struct job, io));
}

static void bdev_submit(struct job *job)
{
	io_prepare(&job->io, bench.channel, IO_READ, job->buffer, next_block(job) * BLOCK, BLOCK);
	job->io.done = bdev_done;
	bench.submitted++;
	io_submit(&job->io);
}

MAY_WAIT static void reading_fiber(void *arg)
{
	struct job *job = arg;
	while (bench.submitted < bench.count) {
		bench.submitted++;
		check(bdev_read(bench.channel, job->buffer, next_block(job) * BLOCK, BLOCK), "a read");
		count_done();
	}
}

/* ---- a run ---- */

static void start_jobs(void)
{
	for (unsigned i = 0; i < bench.depth; i++) {
		struct job *job = &bench.jobs[i];
		if (bench.which == CASE_FIBER) {
			job->fiber = (struct fiber_start){.fn = reading_fiber, .arg = job, .name = "reader"};
			fiber_start(&job->fiber);
		} else if (bench.which == CASE_BDEV) {
			bdev_submit(job);
		} else {
			driver_submit(job);
		}
	}
}

/* A message: outside of fibers, where pollers run too. */
static void run_start(struct message *message)
{
	bench.submitted = bench.done = 0;
	bench.start_ns = now_ns();
	CALLGRIND_TOGGLE_COLLECT;
	start_jobs();
	while (bench.which == CASE_POLLED && bench.done < bench.count)
		bench.qpair_poller->fn(bench.qpair_poller);
}

MAY_WAIT static int run_once(void *arg)
{
	bench.finished = false;
	bench.start.fn = run_start;
	reactor_send(reactor_self(), &bench.start);
	while (!bench.finished)
		fiber_sleep(NS_PER_MS);
	const double ns = (bench.end_ns - bench.start_ns) / bench.count;
	bench.best_ns = bench.best_ns == 0 || ns < bench.best_ns ? ns : bench.best_ns;
	return 0;
}

/* ---- a memory that answers the emulated controller, never inside submit ---- */

static void medium_submit(void *arg, struct emu_io *io)
{
	cds_list_add_tail((struct cds_list_head *)io->context, &bench.medium_line);
}

static unsigned medium_poll(struct poller *poller)
{
	unsigned count = 0;
	for (; !cds_list_empty(&bench.medium_line); count++) {
		struct cds_list_head *node = bench.medium_line.next;
		struct emu_io *io = CONTAINER_OF((unsigned char(*)[])node, struct emu_io, context);
		const uint8_t *at = bench.medium + io->offset;
		cds_list_del(node);
		for (unsigned i = 0; i < io->iov_count && io->op == EMU_READ; at += io->iov[i++].iov_len)
			memcpy(io->iov[i].iov_base, at, io->iov[i].iov_len);
		io->result = 0;
		io->done(io);
	}
	return count;
}

static struct nvme_transport *emu_transport(void)
{
	const struct emu_options options = {.no_volatile_cache = true};
	const struct emu_backing backing = {.size_bytes = MIB(EMU_MIB), .submit = medium_submit};
	struct nvme_transport *transport;
	bench.medium = malloc(MIB(EMU_MIB));
	check(bench.medium ? 0 : -ENOMEM, "a medium");
	memset(bench.medium, 1, MIB(EMU_MIB));
	CDS_INIT_LIST_HEAD(&bench.medium_line);
	poller_register(reactor_self(), &bench.medium_poller, "medium", medium_poll, 0);
	check(emu_create("emu:bench", &options, &backing, reactor_self(), &bench.emu), "the emulated controller");
	check(emu_plug(bench.emu, &transport), "plugging it in");
	return transport;
}

/* ---- setting up and taking down ---- */

/* The driver registers the poller of its I/O queue pair last. */
void __real_poller_register(struct reactor *reactor, struct poller *poller, const char *name, unsigned (*fn)(struct poller *),
	unsigned period_us);
void __wrap_poller_register(struct reactor *reactor, struct poller *poller, const char *name, unsigned (*fn)(struct poller *),
	unsigned period_us);
void __wrap_poller_register(struct reactor *reactor, struct poller *poller, const char *name, unsigned (*fn)(struct poller *),
	unsigned period_us)
{
	if (!strcmp(name, "nvme"))
		bench.qpair_poller = poller;
	__real_poller_register(reactor, poller, name, fn, period_us);
}

struct nvme_place;
struct emu_drive;
/* The nvme module gets the null controller, whatever PCI address it is told. */
MAY_WAIT int __wrap_nvme_place_open(struct bdev_registry *registry, const struct nvme_place *place, bool read_only,
	struct emu_drive **drive, struct nvme_transport **out, char *message, size_t message_size);
MAY_WAIT int __wrap_nvme_place_open(struct bdev_registry *registry, const struct nvme_place *place, bool read_only,
	struct emu_drive **drive, struct nvme_transport **out, char *message, size_t message_size)
{
	*out = nvme_null_create();
	return *out ? 0 : -ENOMEM;
}

MAY_WAIT static int set_up(void *arg)
{
	char message[256] = "";
	if (bench.which == CASE_BDEV || bench.which == CASE_FIBER) {
		const struct nvme_device_options options = {.policy = NVME_REMOVE};
		check(nvme_device_create(bench.registry, "0000:00:00.0", &options, bench.bdev_name, sizeof(bench.bdev_name), message,
			sizeof(message)), message);
		check(bdev_open(bench.registry, bench.bdev_name, false, NULL, NULL, &bench.desc), "bdev_open");
		check(bdev_channel_get(bench.desc, &bench.channel), "a channel");
		return 0;
	}
	struct nvme_transport *transport = bench.which == CASE_EMU ? emu_transport() : nvme_null_create();
	const struct nvme_ctrlr_options options = {.group = bench.group};
	check(transport ? 0 : -ENOMEM, "a transport");
	check(nvme_ctrlr_attach(transport, &options, &bench.ctrlr, message, sizeof(message)), message);
	bench.qpair = nvme_ctrlr_qpair(bench.ctrlr);
	return 0;
}

MAY_WAIT static int take_down(void *arg)
{
	if (bench.channel) {
		bdev_channel_put(bench.channel);
		bdev_close(bench.desc);
		return bdev_remove(bench.registry, bench.bdev_name, 10 * NS_PER_SEC);
	}
	nvme_ctrlr_stop(bench.ctrlr, 10 * NS_PER_SEC);
	const int err = nvme_ctrlr_destroy(bench.ctrlr, NS_PER_SEC);
	if (bench.emu) {
		emu_pull(bench.emu);
		emu_destroy(bench.emu);
		poller_unregister(&bench.medium_poller);
		free(bench.medium);
	}
	return err;
}

static void measure(unsigned runs)
{
	const struct reactor_options options = {.count = 1, .poll = true, .fiber_count = 2 * DEPTH_LARGE + 64};
	check(reactor_group_create(&options, &bench.group), "a reactor");
	check(reactor_group_start(bench.group), "a reactor");
	check(bdev_registry_create(bench.group, &bench.registry), "a registry");
	for (unsigned i = 0; i < DEPTH_LARGE; i++) {
		bench.jobs[i].buffer = dma_zalloc(BLOCK, BLOCK);
		bench.jobs[i].iov = (struct iovec){.iov_base = bench.jobs[i].buffer, .iov_len = BLOCK};
		bench.jobs[i].random = i;
	}
	struct reactor *reactor = reactor_group_get(bench.group, 0);
	reactor_group_run(reactor, set_up, NULL);
	for (unsigned i = 0; i < runs; i++)
		reactor_group_run(reactor, run_once, NULL);
	check(reactor_group_run(reactor, take_down, NULL), "the end");
	reactor_group_stop(bench.group);
	bdev_registry_destroy(bench.registry);
	reactor_group_destroy(bench.group);
	for (unsigned i = 0; i < DEPTH_LARGE; i++)
		dma_free(bench.jobs[i].buffer);
}

/* One case in a process of its own: nanoseconds to stdout. */
static void run_case(unsigned runs)
{
	if (bench.which == CASE_MODEL) {
		for (unsigned i = 0; i < runs; i++) {
			CALLGRIND_TOGGLE_COLLECT;
			const double ns = nvme_null_cost(bench.depth, bench.count / bench.depth);
			CALLGRIND_TOGGLE_COLLECT;
			bench.best_ns = bench.best_ns == 0 || ns < bench.best_ns ? ns : bench.best_ns;
		}
	} else {
		measure(runs);
	}
	printf("%.1f\n", bench.best_ns);
}

/* ---- the table ---- */

/* The last line of a command that begins with @key, behind it; -1: there is none. */
static double ask(const char *command, const char *key)
{
	char line[512];
	double value = -1;
	FILE *pipe = popen(command, "r");
	if (!pipe)
		return -1;
	while (fgets(line, sizeof(line), pipe)) {
		const char *at = strstr(line, key);
		if (at)
			value = strtod(at + strlen(key), NULL);
	}
	return pclose(pipe) == 0 ? value : -1;
}

static double nanoseconds(const char *self, enum bench_case which, unsigned depth, unsigned count)
{
	char command[1024];
	snprintf(command, sizeof(command), "'%s' --only %s --depth %u --count %u", self, case_words[which], depth, count);
	return ask(command, "");
}

/* Counted between the first submission and the last answer. */
static double instructions(const char *self, enum bench_case which, unsigned depth)
{
	enum { COUNT = 50000 };
	char command[1024];
	snprintf(command, sizeof(command), "valgrind --tool=callgrind --collect-atstart=no --callgrind-out-file=/dev/null '%s' --only %s "
		"--depth %u --count %u --once 2>&1", self, case_words[which], depth, COUNT);
	const double collected = ask(command, "Collected : ");
	return collected < 0 ? -1 : collected / COUNT;
}

static void print_number(double value, int width)
{
	if (value < 0)
		printf("%*s", width, "-");
	else
		printf("%*.0f", width, value);
}

static void print_table(const char *self, unsigned count, bool count_instructions)
{
	printf("%-44s %20s %20s\n", "per 4 KiB read", "depth 1", "depth 128");
	printf("%-44s %8s %11s %8s %11s\n", "", "ns", "instr.", "ns", "instr.");
	for (enum bench_case which = 0; which < CASE_COUNT; which++) {
		printf("%-44s", case_names[which]);
		for (unsigned depth = 1; depth <= DEPTH_LARGE; depth *= DEPTH_LARGE) {
			print_number(nanoseconds(self, which, depth, count), 9);
			print_number(count_instructions ? instructions(self, which, depth) : -1, 12);
			fflush(stdout);
		}
		printf("\n");
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{"count", required_argument, NULL, 'c'}, {"only", required_argument, NULL, 'o'}, {"depth", required_argument, NULL, 'd'},
		{"once", no_argument, NULL, '1'}, {"no-instructions", no_argument, NULL, 'n'}, {0},
	};
	unsigned runs = RUNS;
	bool one_case = false, count_instructions = true;
	char self[512];
	bench.count = 200000;
	bench.depth = 1;
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
		switch (option) {
		case 'c': bench.count = MAX((unsigned)strtoul(optarg, NULL, 10), (unsigned)DEPTH_LARGE); break;
		case 'd': bench.depth = MAX(MIN((unsigned)strtoul(optarg, NULL, 10), (unsigned)DEPTH_LARGE), 1u); break;
		case '1': runs = 1; break;
		case 'n': count_instructions = false; break;
		case 'o':
			one_case = true;
			for (bench.which = 0; bench.which < CASE_COUNT && strcmp(optarg, case_words[bench.which]) != 0;)
				bench.which++;
			if (bench.which < CASE_COUNT)
				break;
			/* fall through */
		default:
			fprintf(stderr, "usage: nvme_cost [--count N] [--no-instructions] [--only model|polled|turns|bdev|fiber|emu --depth D]\n");
			return 2;
		}
	log_set_level(LOG_LEVEL_WARN);
	if (one_case) {
		run_case(runs);
		return 0;
	}
	const ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	check(length > 0 ? 0 : -errno, "/proc/self/exe");
	self[length] = '\0';
	print_table(self, bench.count, count_instructions);
	return 0;
}
