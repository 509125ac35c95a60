/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trouble under the block layer: random I/O on an emulated NVMe drive that loses commands, answers errors, stops with a
 * fatal status, or is reset all the time; optionally pulled out and plugged in again under NVME_HOLD. Every block has
 * one writer, which knows what must be in it; every I/O counts its answers.
 *
 * A round is one seed. It ends when all workers have done their share: no I/O lost, none answered twice, all data
 * right, by what the workers read meanwhile and by a last look at every block.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme.h"
#include "reactor/log.h"
#include "tests/sim/sim.h"

enum { WORKERS = 4, BATCH = 8, BLOCKS = 64 /* of a worker */, BLOCK = 4096, SPAN_MAX = 40, NAME_BYTES = 128 };

struct shot {
	struct io io;
	uint8_t *buffer;
	struct fiber *worker;
	unsigned answers, first, count;
	uint32_t version;
};

struct worker {
	struct storm *storm;
	unsigned number;
	uint64_t random;
	uint32_t version[BLOCKS];       /* 0: zeroes */
	bool busy[BLOCKS];              /* within the batch */
	uint32_t next_version;
	struct shot shots[BATCH];
	struct bdev_channel *channel;
	bool done;
	struct fiber_start_remote start;
};

struct storm {
	uint64_t seed, rounds, random;
	unsigned owners, batches, resets, pulls;
	const char *options, *program;
	struct reactor_group *group;
	struct bdev_registry *registry;
	char name[NAME_BYTES];
	struct worker workers[WORKERS];
	bool hold, shaker_done, stop;
	struct fiber_start_remote shaker;
	const char *broken;
	uint64_t ios, held_rounds, total_resets, total_timeouts, total_aborts, total_retries;
};

/* ---- blocks ---- */

static void block_fill(uint8_t *block, unsigned worker, unsigned index, uint32_t version)
{
	uint64_t pattern = ((uint64_t)worker << 56 | (uint64_t)index << 32 | version) * 0x9e3779b97f4a7c15ull | 1;
	for (unsigned i = 0; i < BLOCK; i += 8, pattern += 0x1234567)
		memcpy(block + i, &pattern, 8);
	if (version == 0)
		memset(block, 0, BLOCK);
}

static bool block_is(const uint8_t *block, unsigned worker, unsigned index, uint32_t version)
{
	uint8_t expected[BLOCK];
	block_fill(expected, worker, index, version);
	return !memcmp(block, expected, BLOCK);
}

/* ---- workers ---- */

static void shot_done(struct io *io)
{
	struct shot *shot = io->arg;
	shot->answers++;
	fiber_wake(shot->worker);
}

static bool shot_prepare(struct worker *worker, struct shot *shot)
{
	static const enum io_op ops[] = {IO_READ, IO_READ, IO_WRITE, IO_WRITE, IO_WRITE_ZEROES, IO_FLUSH};
	const enum io_op op = ops[sim_rand(&worker->random) % ARRAY_SIZE(ops)];
	shot->first = (unsigned)(sim_rand(&worker->random) % BLOCKS);
	shot->count = 1 + (unsigned)(sim_rand(&worker->random) % MIN(BLOCKS - shot->first, (unsigned)SPAN_MAX));
	shot->answers = 0;
	shot->worker = fiber_self();
	const bool data = op != IO_FLUSH;
	for (unsigned i = 0; i < shot->count && data; i++)
		if (worker->busy[shot->first + i])
			return false;
	for (unsigned i = 0; i < shot->count && data; i++)
		worker->busy[shot->first + i] = true;
	shot->version = op == IO_WRITE ? ++worker->next_version : 0;
	for (unsigned i = 0; i < shot->count && op == IO_WRITE; i++)
		block_fill(shot->buffer + (size_t)i * BLOCK, worker->number, shot->first + i, shot->version);
	const uint64_t offset = ((uint64_t)worker->number * BLOCKS + shot->first) * BLOCK;
	io_prepare(&shot->io, worker->channel, op, op == IO_READ || op == IO_WRITE ? shot->buffer : NULL, data ? offset : 0,
		data ? (uint64_t)shot->count * BLOCK : 0);
	if (op == IO_WRITE && sim_rand(&worker->random) % 4 == 0)
		shot->io.flags = IO_FUA;
	shot->io.done = shot_done;
	shot->io.arg = shot;
	return true;
}

static void shot_judge(struct worker *worker, struct shot *shot)
{
	struct storm *storm = worker->storm;
	if (shot->io.result != 0) {
		storm->broken = "an I/O failed that should have been repeated";
		fprintf(stderr, "op %d result %d\n", shot->io.op, shot->io.result);
	}
	if (shot->answers != 1)
		storm->broken = "an I/O was answered twice";
	for (unsigned i = 0; i < shot->count && shot->io.op != IO_FLUSH; i++) {
		const unsigned index = shot->first + i;
		worker->busy[index] = false;
		if (shot->io.op != IO_READ)
			worker->version[index] = shot->version;
		else if (!block_is(shot->buffer + (size_t)i * BLOCK, worker->number, index, worker->version[index]))
			storm->broken = "a read found other data than was written";
	}
	storm->ios++;
}

static MAY_WAIT void batch_run(struct worker *worker)
{
	unsigned sent = 0;
	for (unsigned i = 0; i < BATCH; i++) {
		if (!shot_prepare(worker, &worker->shots[sent]))
			continue;
		io_submit(&worker->shots[sent].io);
		sent++;
	}
	for (unsigned i = 0; i < sent; i++)
		while (worker->shots[i].answers == 0)
			fiber_park("an answer in the storm");
	fiber_yield(); /* a second answer would come now or never */
	for (unsigned i = 0; i < sent; i++)
		shot_judge(worker, &worker->shots[i]);
}

static MAY_WAIT void worker_main(void *arg)
{
	struct worker *worker = arg;
	struct bdev_desc *desc;
	if (bdev_open(worker->storm->registry, worker->storm->name, true, NULL, NULL, &desc) ||
		bdev_channel_get(desc, &worker->channel))
		sim_fail("nvme_storm: cannot open the drive");
	for (unsigned i = 0; i < worker->storm->batches && !worker->storm->broken; i++)
		batch_run(worker);
	struct shot *shot = &worker->shots[0];
	for (unsigned i = 0; i < BLOCKS && !worker->storm->broken; i++) {
		const uint64_t offset = ((uint64_t)worker->number * BLOCKS + i) * BLOCK;
		if (bdev_read(worker->channel, shot->buffer, offset, BLOCK) ||
			!block_is(shot->buffer, worker->number, i, worker->version[i]))
			worker->storm->broken = "the last look found other data than was written";
	}
	bdev_channel_put(worker->channel);
	bdev_close(desc);
	worker->done = true;
}

/* ---- who shakes the drive ---- */

static MAY_WAIT void shake_pull(struct storm *storm, struct nvme_device *device)
{
	char message[256];
	if (nvme_device_emu_pull(device)) {
		storm->broken = "the drive cannot be pulled";
		return;
	}
	fiber_sleep(sim_rand(&storm->random) % (20 * NS_PER_MS));
	const int err = nvme_device_reattach(device, NULL, NULL, NULL, message, sizeof(message));
	if (err) {
		storm->broken = "the drive does not come back";
		fprintf(stderr, "%s\n", message);
	}
	storm->held_rounds++;
}

static MAY_WAIT void shaker_main(void *arg)
{
	struct storm *storm = arg;
	for (unsigned i = 0; i < storm->resets + storm->pulls && !storm->stop && !storm->broken; i++) {
		fiber_sleep(sim_rand(&storm->random) % (2 * NS_PER_MS));
		struct nvme_device *device = nvme_device_of(storm->registry, storm->name);
		if (i < storm->resets) {
			if (nvme_device_ctrlr(device) && nvme_ctrlr_reset(nvme_device_ctrlr(device)) != 0)
				storm->broken = "a reset failed";
		} else {
			shake_pull(storm, device);
		}
	}
	storm->shaker_done = true;
}

/* ---- a round ---- */

static MAY_WAIT int create(void *arg)
{
	struct storm *storm = arg;
	char target[512], message[256];
	const struct bdev_ram_options ram = {.size_bytes = (uint64_t)WORKERS * BLOCKS * BLOCK * 2, .asynchronous = true,
		.seed = storm->seed, .delay_us_max = 100};
	const struct nvme_device_options options = {.policy = storm->hold ? NVME_HOLD : NVME_REMOVE,
		.io_timeout_ns = 500 * NS_PER_MS, .admin_timeout_ns = 300 * NS_PER_MS};
	snprintf(target, sizeof(target), "emu:ram,seed=%" PRIu64 "%s%s", storm->seed, storm->options[0] ? "," : "", storm->options);
	int err = bdev_ram_create(storm->registry, "ram", &ram);
	if (!err)
		err = nvme_device_create(storm->registry, target, &options, storm->name, sizeof(storm->name), message, sizeof(message));
	if (err)
		fprintf(stderr, "nvme_storm: %s\n", message);
	return err;
}

static MAY_WAIT int destroy(void *arg)
{
	struct storm *storm = arg;
	struct nvme_device *device = nvme_device_of(storm->registry, storm->name);
	if (device && nvme_device_ctrlr(device)) {
		const struct nvme_ctrlr_info *info = nvme_ctrlr_get_info(nvme_device_ctrlr(device));
		storm->total_resets += info->resets;
		storm->total_timeouts += info->timeouts;
		storm->total_aborts += info->aborts;
		storm->total_retries += info->retries;
	}
	const int err = bdev_remove(storm->registry, storm->name, 60 * NS_PER_SEC);
	return err ? err : bdev_remove(storm->registry, "ram", NS_PER_SEC);
}

static bool all_done(void *arg)
{
	struct storm *storm = arg;
	bool done = true;
	for (unsigned i = 0; i < WORKERS; i++)
		done &= storm->workers[i].done;
	storm->stop = done;
	return done && storm->shaker_done;
}

static void workers_create(struct storm *storm)
{
	for (unsigned i = 0; i < WORKERS; i++) {
		struct worker *worker = &storm->workers[i];
		memset(worker, 0, sizeof(*worker));
		worker->storm = storm;
		worker->number = i;
		worker->random = storm->seed * 31 + i;
		for (unsigned j = 0; j < BATCH; j++)
			worker->shots[j].buffer = dma_alloc((size_t)SPAN_MAX * BLOCK, BLOCK);
		worker->start.start = (struct fiber_start){.fn = worker_main, .arg = worker, .name = "storm worker"};
		fiber_start_on(reactor_group_get(storm->group, i % storm->owners), &worker->start);
	}
}

static void do_round(struct storm *storm)
{
	const struct reactor_options options = {.count = storm->owners, .simulate = true, .seed = storm->seed, .fiber_count = 64};
	storm->broken = NULL;
	storm->random = storm->seed;
	storm->stop = false;
	storm->shaker_done = storm->resets + storm->pulls == 0;
	if (reactor_group_create(&options, &storm->group) || reactor_group_start(storm->group) ||
		bdev_registry_create(storm->group, &storm->registry) ||
		reactor_group_run(reactor_group_get(storm->group, 0), create, storm))
		sim_fail("nvme_storm: cannot create the machine");
	workers_create(storm);
	if (!storm->shaker_done) {
		storm->shaker.start = (struct fiber_start){.fn = shaker_main, .arg = storm, .name = "shaker"};
		fiber_start_on(reactor_group_get(storm->group, 0), &storm->shaker);
	}
	if (!reactor_group_sim_run(storm->group, all_done, storm))
		sim_fail("nvme_storm: an I/O was lost (seed %" PRIu64 ", drive %s)", storm->seed, storm->options);
	if (reactor_group_run(reactor_group_get(storm->group, 0), destroy, storm))
		storm->broken = "the drive does not go away";
	for (unsigned i = 0; i < WORKERS; i++)
		for (unsigned j = 0; j < BATCH; j++)
			dma_free(storm->workers[i].shots[j].buffer);
	bdev_registry_destroy(storm->registry);
	reactor_group_stop(storm->group);
	reactor_group_destroy(storm->group);
	if (storm->broken)
		sim_fail("nvme_storm: %s\n  again with: %s --owners %u --seed %" PRIu64 " --rounds 1 --resets %u --pulls %u --drive '%s'",
			storm->broken, storm->program, storm->owners, storm->seed, storm->resets, storm->pulls, storm->options);
}

/* ---- main ---- */

static void options_parse(struct storm *storm, int argc, char **argv)
{
	static const struct option options[] = {{"rounds", 1, NULL, 'r'}, {"batches", 1, NULL, 'b'}, {"owners", 1, NULL, 'w'},
		{"seed", 1, NULL, 's'}, {"drive", 1, NULL, 'd'}, {"resets", 1, NULL, 'R'}, {"pulls", 1, NULL, 'p'},
		{"help", 0, NULL, 'h'}, {0}};
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
		switch (c) {
		case 'r':
			storm->rounds = strtoull(optarg, NULL, 0);
			break;
		case 'b':
			storm->batches = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'w':
			storm->owners = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 's':
			storm->seed = strtoull(optarg, NULL, 0);
			break;
		case 'd':
			storm->options = optarg;
			break;
		case 'R':
			storm->resets = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'p':
			storm->pulls = (unsigned)strtoul(optarg, NULL, 0);
			storm->hold = true;
			break;
		default:
			puts("usage: nvme_storm [--rounds N] [--batches N] [--owners N] [--seed N] [--drive OPTIONS] [--resets N] [--pulls N]\n"
				"Random I/O on an emulated NVMe drive in trouble: OPTIONS are those of emu: (rule=...), with resets on top, and\n"
				"pulls after which it comes back. Aborts when data is wrong, or an I/O is lost or answered twice.");
			exit(c == 'h' ? 0 : 2);
		}
}

static void log_nothing(enum log_level level, const char *line, void *arg) {}

int main(int argc, char **argv)
{
	static struct storm storm = {.seed = 1, .rounds = 50, .owners = 2, .batches = 120, .options = ""};
	storm.program = argv[0];
	options_parse(&storm, argc, argv);
	if (!getenv("NVME_STORM_LOG"))
		log_set_sink(log_nothing, NULL);
	for (uint64_t i = 0; i < storm.rounds; i++, storm.seed++)
		do_round(&storm);
	const uint64_t trouble = storm.total_timeouts + storm.total_resets + storm.total_retries + storm.held_rounds;
	if (trouble == 0 && (storm.resets || storm.pulls || strstr(storm.options, "rule=")))
		sim_fail("nvme_storm: nothing went wrong, so nothing was proved (drive %s)", storm.options);
	printf("nvme_storm: %" PRIu64 " rounds, %" PRIu64 " I/Os right; %" PRIu64 " time-outs, %" PRIu64 " aborts, %" PRIu64 " resets, "
		"%" PRIu64 " retries, %" PRIu64 " times away; drive %s, %u owners\n", storm.rounds, storm.ios, storm.total_timeouts,
		storm.total_aborts, storm.total_resets, storm.total_retries, storm.held_rounds, storm.options, storm.owners);
	return 0;
}
