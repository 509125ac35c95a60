/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The whole stack on simulated reactors: clients, filesystem, recording device (for the order of events only), NVMe
 * driver, emulated controller with a volatile write cache, memory. At a random moment the drive is pulled out, or loses
 * power: what its cache held is lost as the options say, torn where a cut can tear.
 *
 * Each round ends in: nobody waits any more, every request answered, a second filesystem on another device undisturbed.
 * Then the medium, as the drive left it, is looked at like a state of the explorer: fsck with its own replay, mount,
 * the clients' oracle, unmount, fsck.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "blockdev/nvme.h"
#include "fs/journal.h"
#include "reactor/log.h"
#include "tests/sim/client.h"

enum { CLIENTS = 2, STEPS_MAX = 200000 };

enum phase { PHASE_MKFS, PHASE_MOUNT, PHASE_IDLE, PHASE_WORK, PHASE_CHECKPOINT, PHASE_UNMOUNT, PHASE_COUNT };
static const char *const phase_names[] = {"mkfs", "mount", "idle", "work", "checkpoint", "unmount"};

/* Of a mkfs on the drive. */
struct format {
	struct mkfs_options options;
	struct bdev_channel *channel;
	struct fs_super super;
	uint8_t block[FS_BLOCK_SIZE];
};

struct bench {
	struct format format;
	uint64_t seed, random, rounds;
	unsigned owners, ops;
	uint64_t size;
	const char *options, *program;
	bool work_only;
	unsigned returns;               /* times that the drive comes back under NVME_HOLD; 0: it stays away */
	uint8_t *memory, *other;        /* medium of the drive; of the undisturbed device */
	struct client *clients[CLIENTS], *bystander;
	struct fiber_start_remote starts[CLIENTS + 3];
	struct sim sim, second;         /* second: shares the group, mounted on the bdev "other" */
	struct model_found *found;
	struct record_log *log;         /* outlives its bdev */
	enum phase phase;
	uint64_t at;                    /* place in the log when the drive left */
	bool notice_by_itself;          /* the driver must find out; else it is told */
	bool pull_done, watched_done, mounted, unmounted;
	int error;
	const char *broken;
	/* results */
	uint64_t violations, per_phase[PHASE_COUNT], lost_bytes, times_away, busy_cuts;
};

static bool clients_done(void *arg);

/* ---- the drive leaves ---- */

static MAY_WAIT void pull(void *arg)
{
	struct bench *bench = arg;
	struct nvme_device *device = nvme_device_of(bench->sim.registry, SIM_NVME);
	size_t count;
	const struct record_entry *entries = record_log_entries(bench->log, &count);
	bench->at = count ? entries[count - 1].submitted : 0;
	bench->busy_cuts += bench->phase >= PHASE_WORK && bench->phase <= PHASE_CHECKPOINT && !clients_done(bench);
	emu_pull(nvme_device_emu(device));
	struct emu_stats stats;
	emu_stats_read(nvme_device_emu(device), &stats);
	bench->lost_bytes += stats.lost_bytes;
	if (bench->notice_by_itself)
		while (nvme_device_of(bench->sim.registry, SIM_NVME))
			fiber_sleep(NS_PER_MS);
	else
		nvme_device_lost(device);
	bench->pull_done = true;
}

/* ---- phases, as fibers of reactor 0 ---- */

static MAY_WAIT int set_up_bystander(void *arg) { return client_set_up(((struct bench *)arg)->bystander); }

static MAY_WAIT int set_up(void *arg)
{
	struct bench *bench = arg;
	int error = 0;
	for (unsigned i = 0; i < CLIENTS && !error; i++)
		error = client_set_up(bench->clients[i]);
	return error ? error : fs_sync(bench->sim.fs);
}

static MAY_WAIT int mount_first(void *arg)
{
	struct bench *bench = arg;
	/* Every other round with discards under way when the drive goes: they are lost, or held and sent again, as writes are. */
	const struct fs_mount_options options = {.cache_bytes = MIB(1), .commit_ms = 5, .discard = bench->seed % 2};
	const int error = fs_mount(bench->sim.registry, "record", &options, &bench->sim.fs, bench->sim.message,
		sizeof(bench->sim.message));
	bench->mounted = error == 0;
	return error;
}

static MAY_WAIT int mount_second(void *arg)
{
	struct bench *bench = arg;
	const struct fs_mount_options options = {.cache_bytes = MIB(1), .commit_ms = 5};
	return fs_mount(bench->sim.registry, "other", &options, &bench->second.fs, bench->second.message,
		sizeof(bench->second.message));
}

static MAY_WAIT int add_other(void *arg)
{
	struct bench *bench = arg;
	const struct bdev_ram_options ram = {.size_bytes = bench->size, .memory = bench->other, .volatile_cache = true,
		.asynchronous = true, .seed = bench->seed, .delay_us_max = 100};
	return bdev_ram_create(bench->sim.registry, "other", &ram);
}

static MAY_WAIT int remove_other(void *arg)
{
	struct bench *bench = arg;
	return bdev_remove(bench->sim.registry, "other", NS_PER_SEC);
}

static MAY_WAIT int format_write(void *arg, uint64_t block, const void *data)
{
	struct format *format = arg;
	int err = block == FS_SUPER_BLOCK ? bdev_flush(format->channel) : 0;
	memcpy(format->block, data, FS_BLOCK_SIZE);
	if (!err)
		err = bdev_write(format->channel, format->block, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE, 0);
	return err;
}

/* As mkfs.lanefs does it, block by block. */
static MAY_WAIT int format(struct bench *bench)
{
	struct format *format = &bench->format;
	struct bdev_desc *desc;
	int err = bdev_open(bench->sim.registry, "record", true, NULL, NULL, &desc);
	if (err)
		return err;
	if (bdev_channel_get(desc, &format->channel))
		sim_fail("nvme_cut: no channel");
	const struct mkfs_io io = {.write = format_write, .arg = format};
	err = mkfs_format(&format->options, &io, &format->super, bench->sim.message, sizeof(bench->sim.message));
	if (!err)
		err = bdev_flush(format->channel);
	bdev_channel_put(format->channel);
	bdev_close(desc);
	return err;
}

static MAY_WAIT void phase_main(void *arg)
{
	struct bench *bench = arg;
	if (bench->phase == PHASE_MKFS)
		bench->error = format(bench);
	else if (bench->phase == PHASE_MOUNT)
		bench->error = mount_first(bench);
	else if (bench->phase == PHASE_CHECKPOINT)
		bench->error = journal_checkpoint(bench->sim.fs);
	else if (bench->phase == PHASE_UNMOUNT)
		bench->error = fs_unmount(bench->sim.fs), bench->unmounted = true;
	bench->watched_done = true;
}

static void work_main(void *arg) { client_work(arg); }

static bool clients_done(void *arg)
{
	const struct bench *bench = arg;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (!bench->clients[i]->done)
			return false;
	return true;
}

static bool all_done(void *arg)
{
	const struct bench *bench = arg;
	const bool working = bench->phase == PHASE_WORK || bench->phase == PHASE_CHECKPOINT;
	return bench->bystander->done && (!working || clients_done(arg)) && bench->watched_done;
}

static void start_client(struct bench *bench, struct fiber_start_remote *start, struct client *client, unsigned reactor)
{
	start->start = (struct fiber_start){.fn = work_main, .arg = client, .name = "client"};
	fiber_start_on(reactor_group_get(bench->sim.group, reactor % bench->owners), start);
}

static uint64_t ops_done(const struct bench *bench)
{
	uint64_t done = 0;
	for (unsigned i = 0; i < CLIENTS; i++)
		done += bench->clients[i]->model.op_count;
	return done;
}

static void pull_at_some_step(struct bench *bench, struct fiber_start_remote *start)
{
	struct reactor *home = reactor_group_get(bench->sim.group, 0);
	static const unsigned long steps[PHASE_COUNT] = {600, 400, 200, 400, 400, 1500};
	/* Amid work the moment is drawn by what is done, so that it falls anywhere in it. */
	const bool working = bench->phase == PHASE_WORK || bench->phase == PHASE_CHECKPOINT;
	const uint64_t ops = working ? sim_rand(&bench->random) % ((uint64_t)CLIENTS * bench->ops) : 0;
	while (ops_done(bench) < ops && reactor_group_sim_step(bench->sim.group))
		;
	const uint64_t wanted = sim_rand(&bench->random) % steps[bench->phase];
	for (uint64_t i = 0; i < wanted && reactor_group_sim_step(bench->sim.group); i++)
		;
	start->start = (struct fiber_start){.fn = pull, .arg = bench, .name = "pull"};
	fiber_start_on(home, start);
}

static void run_phase(struct bench *bench)
{
	struct fiber_start_remote *starts = bench->starts;
	bench->watched_done = bench->phase == PHASE_IDLE || bench->phase == PHASE_WORK;
	start_client(bench, &starts[CLIENTS], bench->bystander, 1);
	if (bench->phase == PHASE_WORK || bench->phase == PHASE_CHECKPOINT)
		for (unsigned i = 0; i < CLIENTS; i++)
			start_client(bench, &starts[i], bench->clients[i], i);
	if (!bench->watched_done) {
		starts[CLIENTS + 1].start = (struct fiber_start){.fn = phase_main, .arg = bench, .name = phase_names[bench->phase]};
		fiber_start_on(reactor_group_get(bench->sim.group, 0), &starts[CLIENTS + 1]);
	}
	pull_at_some_step(bench, &starts[CLIENTS + 2]);
	if (!reactor_group_sim_run(bench->sim.group, all_done, bench))
		bench->broken = "somebody waits for ever";
}

/* ---- a round ---- */

static void machine_create(struct bench *bench)
{
	const struct sim_options options = {.owners = bench->owners, .seed = bench->seed, .memory = bench->memory, .size = bench->size,
		.asynchronous = true, .record = true, .nvme = bench->options, .hold = bench->returns > 0};
	sim_create(&bench->sim, &options);
	struct reactor *home = reactor_group_get(bench->sim.group, 0);
	bench->log = bdev_record_log(sim_bdev(&bench->sim, "record"));
	record_log_get(bench->log);
	bench->second = (struct sim){.group = bench->sim.group, .registry = bench->sim.registry};
	if (reactor_group_run(home, add_other, bench) || reactor_group_run(home, mount_second, bench))
		sim_fail("nvme_cut: the second filesystem cannot be mounted: %s", bench->second.message);
	client_create(bench->bystander, &bench->second, CLIENTS, bench->ops / 4, bench->seed);
	bench->bystander->done = false;
	for (unsigned i = 0; i < CLIENTS; i++)
		client_create(bench->clients[i], &bench->sim, i, bench->ops, bench->seed);
	bench->sim.fs = NULL;
	bench->mounted = bench->unmounted = bench->pull_done = false;
	bench->error = 0;
	bench->broken = NULL;
	bench->at = UINT64_MAX;
}

static MAY_WAIT int unmount_rest(void *arg)
{
	struct bench *bench = arg;
	const int error = fs_unmount(bench->second.fs);
	if (bench->mounted && !bench->unmounted && fs_unmount(bench->sim.fs) == 0)
		return -EALREADY; /* an unmount without its device cannot be clean */
	while (!bench->pull_done)
		fiber_sleep(NS_PER_MS);
	return error;
}

static void take_marks(struct bench *bench)
{
	size_t count;
	const struct record_entry *entries = record_log_entries(bench->log, &count);
	for (size_t i = 0; i < count; i++) {
		const uint64_t client = entries[i].mark >> 32 & 0xff;
		if (entries[i].kind != RECORD_MARK || client >= CLIENTS)
			continue;
		struct model_op *op = &bench->clients[client]->model.ops[(uint32_t)entries[i].mark];
		if (entries[i].mark >> 63)
			op->acknowledged = entries[i].submitted;
		else
			op->begun = entries[i].submitted;
	}
}

static MAY_WAIT int look(void *arg)
{
	struct bench *bench = arg;
	for (unsigned i = 0; i < CLIENTS && !bench->broken; i++) {
		if (client_look(bench->clients[i], bench->sim.fs, bench->found))
			bench->broken = "the client's files cannot be read";
		else
			bench->broken = model_judge(&bench->clients[i]->model, bench->found, bench->at);
	}
	return 0;
}

/* The medium as the drive left it. */
static void judge(struct bench *bench)
{
	if (sim_fsck(bench->memory, bench->size, true, "after the cut"))
		bench->broken = "fsck finds damage after the cut";
	const struct sim_options options = {.owners = bench->owners, .seed = bench->seed, .memory = bench->memory, .size = bench->size};
	sim_create(&bench->sim, &options);
	if (sim_mount(&bench->sim, NULL)) {
		bench->broken = "mount failed";
	} else {
		if (!bench->broken)
			reactor_group_run(reactor_group_get(bench->sim.group, 0), look, bench);
		if (sim_unmount(&bench->sim) && !bench->broken)
			bench->broken = "unmount failed";
	}
	sim_destroy(&bench->sim);
	if (!bench->broken && sim_fsck(bench->memory, bench->size, false, "after recovery"))
		bench->broken = "fsck finds damage after recovery";
	if (!bench->broken && sim_fsck(bench->other, bench->size, false, "the bystander"))
		bench->broken = "the second filesystem is damaged";
}

/* ---- the drive comes back ---- */

static MAY_WAIT void come_and_go(void *arg)
{
	struct bench *bench = arg;
	char message[256];
	for (unsigned i = 0; i < bench->returns && !clients_done(bench) && !bench->broken; i++) {
		fiber_sleep(sim_rand(&bench->random) % (3 * NS_PER_MS));
		struct nvme_device *device = nvme_device_of(bench->sim.registry, SIM_NVME);
		if (!device || nvme_device_emu_pull(device)) {
			bench->broken = "the drive cannot be pulled";
			break;
		}
		fiber_sleep(sim_rand(&bench->random) % (300 * NS_PER_MS));
		if (nvme_device_reattach(device, NULL, NULL, NULL, message, sizeof(message)))
			bench->broken = "the drive does not come back";
		bench->times_away++;
	}
	bench->pull_done = true;
}

static bool returned(void *arg)
{
	struct bench *bench = arg;
	return clients_done(bench) && bench->bystander->done && bench->pull_done;
}

static MAY_WAIT int unmount_both(void *arg)
{
	struct bench *bench = arg;
	const int error = fs_unmount(bench->sim.fs), second = fs_unmount(bench->second.fs);
	return error ? error : second;
}

/* Clients work while the drive comes and goes: none may see an error, and all that they did must be there. */
static void run_returns(struct bench *bench)
{
	struct reactor *home = reactor_group_get(bench->sim.group, 0);
	start_client(bench, &bench->starts[CLIENTS], bench->bystander, 1);
	for (unsigned i = 0; i < CLIENTS; i++)
		start_client(bench, &bench->starts[i], bench->clients[i], i);
	bench->starts[CLIENTS + 1].start = (struct fiber_start){.fn = come_and_go, .arg = bench, .name = "come and go"};
	fiber_start_on(home, &bench->starts[CLIENTS + 1]);
	if (!reactor_group_sim_run(bench->sim.group, returned, bench))
		sim_fail("nvme_cut: somebody waits for ever (seed %" PRIu64 ")", bench->seed);
	for (unsigned i = 0; i < CLIENTS; i++)
		if (bench->clients[i]->model.op_count < bench->ops)
			bench->broken = "a client saw an error";
	size_t count;
	const struct record_entry *entries = record_log_entries(bench->log, &count);
	bench->at = entries[count - 1].submitted;
	if (reactor_group_run(home, unmount_both, bench))
		bench->broken = "unmount failed";
}

static void report(struct bench *bench)
{
	for (unsigned i = 0; i < CLIENTS; i++)
		client_destroy(bench->clients[i]);
	client_destroy(bench->bystander);
	if (!bench->broken)
		return;
	bench->violations++;
	fprintf(stderr, "seed %" PRIu64 " (%s): %s\n  again with: %s --owners %u --ops %u --drive '%s' --seed %" PRIu64
		" --rounds 1 --returns %u%s\n", bench->seed, phase_names[bench->phase], bench->broken, bench->program, bench->owners,
		bench->ops, bench->options, bench->seed, bench->returns, bench->work_only ? " --work" : "");
}

static void do_round(struct bench *bench)
{
	const struct sim_format format = {.size = bench->size, .journal_bytes = FS_JOURNAL_BLOCKS_MIN * FS_BLOCK_SIZE,
		.ag_bytes = MIB(1), .seed = bench->seed};
	bench->random = bench->seed * 7919;
	bench->notice_by_itself = sim_rand(&bench->random) & 1;
	bench->phase = bench->work_only || bench->returns ? PHASE_WORK : (enum phase)(sim_rand(&bench->random) % PHASE_COUNT);
	memset(bench->memory, 0xa5, bench->size);
	if (bench->phase != PHASE_MKFS)
		sim_mkfs(bench->memory, &format);
	bench->format.options = (struct mkfs_options){.size_bytes = format.size, .journal_bytes = format.journal_bytes,
		.ag_bytes = format.ag_bytes, .fsid = bench->seed, .journal_id = bench->seed, .first_sequence = 1, .small = true};
	memset(bench->other, 0x5a, bench->size);
	sim_mkfs(bench->other, &format);
	machine_create(bench);
	struct reactor *home = reactor_group_get(bench->sim.group, 0);
	if (reactor_group_run(home, set_up_bystander, bench))
		sim_fail("nvme_cut: set-up of the bystander");
	if (bench->phase > PHASE_MOUNT && (reactor_group_run(home, mount_first, bench) || reactor_group_run(home, set_up, bench)))
		sim_fail("nvme_cut: set-up: %s", bench->sim.message);
	bench->per_phase[bench->phase]++;
	if (bench->returns)
		run_returns(bench);
	else
		run_phase(bench);
	const int error = bench->broken || bench->returns ? 0 : reactor_group_run(home, unmount_rest, bench);
	if (error)
		bench->broken = error == -EALREADY ? "unmount without a device calls itself clean" : "the second filesystem failed";
	if (bench->broken && !strcmp(bench->broken, "somebody waits for ever"))
		sim_fail("nvme_cut: %s (seed %" PRIu64 ", %s)", bench->broken, bench->seed, phase_names[bench->phase]);
	take_marks(bench);
	record_log_put(bench->log);
	reactor_group_run(home, remove_other, bench);
	sim_destroy(&bench->sim);
	if (bench->phase > PHASE_MOUNT)
		judge(bench);
	else if (bench->phase == PHASE_MOUNT && sim_fsck(bench->memory, bench->size, true, "after the cut"))
		bench->broken = "fsck finds damage after a cut while mounting";
	report(bench);
}

/* ---- main ---- */

static void log_nothing(enum log_level level, const char *line, void *arg) {}

static void options_parse(struct bench *bench, int argc, char **argv)
{
	static const struct option options[] = {{"rounds", 1, NULL, 'r'}, {"ops", 1, NULL, 'o'}, {"owners", 1, NULL, 'w'},
		{"seed", 1, NULL, 's'}, {"drive", 1, NULL, 'd'}, {"work", 0, NULL, 'k'}, {"returns", 1, NULL, 'n'}, {"help", 0, NULL, 'h'}, {0}};
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
		switch (c) {
		case 'r':
			bench->rounds = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			bench->ops = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'w':
			bench->owners = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 's':
			bench->seed = strtoull(optarg, NULL, 0);
			break;
		case 'd':
			bench->options = optarg;
			break;
		case 'n':
			bench->returns = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'k':
			bench->work_only = true;
			break;
		default:
			puts("usage: nvme_cut [--rounds N] [--ops N] [--owners N] [--seed N] [--drive OPTIONS] [--work] [--returns N]\n"
				"Pulls an emulated NVMe drive out at random moments (--work: of the work only) and looks at what is left; or\n"
				"(--returns) pulls it out and plugs it in again under a filesystem that waits for it.\n"
				"OPTIONS are those of emu:. Exits with 1 when a promise was broken.");
			exit(c == 'h' ? 0 : 2);
		}
}

static uint8_t *memory_new(uint64_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		sim_fail("nvme_cut: no memory");
	return memory;
}

int main(int argc, char **argv)
{
	static struct bench bench = {.seed = 1, .rounds = 50, .owners = 2, .ops = 200, .size = MIB(14),
		.options = "cache=2M,cut=random"};
	bench.program = argv[0];
	options_parse(&bench, argc, argv);
	/* Every round is full of errors that are meant. */
	if (!getenv("NVME_CUT_LOG"))
		log_set_sink(log_nothing, NULL);
	bench.memory = memory_new(bench.size);
	bench.other = memory_new(bench.size);
	bench.found = malloc(sizeof(*bench.found));
	for (unsigned i = 0; i < CLIENTS; i++)
		bench.clients[i] = calloc(1, sizeof(*bench.clients[i]));
	bench.bystander = calloc(1, sizeof(*bench.bystander));
	for (uint64_t i = 0; i < bench.rounds; i++, bench.seed++)
		do_round(&bench);
	printf("nvme_cut: %" PRIu64 " rounds (mkfs %" PRIu64 ", mount %" PRIu64 ", idle %" PRIu64 ", work %" PRIu64 ", checkpoint %" PRIu64
		", unmount %" PRIu64 "), %" PRIu64 " cuts amid work, %" PRIu64 " bytes lost by the cache, %" PRIu64 " times away, %" PRIu64
		" violations; drive %s, %u owners\n", bench.rounds, bench.per_phase[0], bench.per_phase[1], bench.per_phase[2],
		bench.per_phase[3], bench.per_phase[4], bench.per_phase[5], bench.busy_cuts,
		bench.lost_bytes, bench.times_away, bench.violations, bench.options, bench.owners);
	for (unsigned i = 0; i < CLIENTS; i++)
		free(bench.clients[i]);
	free(bench.bystander);
	free(bench.found);
	munmap(bench.memory, bench.size);
	munmap(bench.other, bench.size);
	return bench.violations ? 1 : 0;
}
