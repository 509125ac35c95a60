/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash explorer: random work of a few clients on a simulated filesystem over the recording device, then power cuts at
 * places spread over the whole log (crash.h), each judged by the clients' oracle (model.h). What short sequences never reach is
 * here: operations that run at once, a journal that wraps many times, checkpoints in the middle of work, transactions of
 * several owners, discards, growth.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "reactor/log.h"
#include "tests/sim/client.h"
#include "tests/sim/crash.h"

enum { CLIENTS = 3, GROWTHS = 2, GROWTH_MARK = 0xff, SET_UP_MARK = 0xfe, STATES_A_PLACE = 6 };

struct explorer {
	uint64_t seed, states_wanted, only_state;
	unsigned owners, ops, seeds;
	uint64_t size, first_size, journal_bytes, ag_bytes; /* size: of the device; first_size: of the filesystem, formatted */
	const char *program;
	struct crash crash;
	uint8_t *image;                 /* formatted, to begin with */
	struct client *clients[CLIENTS];
	struct model_found *found;
	const struct record_entry *entries;
	size_t entry_count;
	/* results */
	uint64_t violations;            /* of all seeds */
	uint64_t journal_bytes_written, wraps, multi_owner, discards;
	bool quiet, trace, discard, grow;
	/* With grow: after so many of the clients' operations the filesystem grows to so many blocks. */
	struct { unsigned after; uint64_t blocks, acknowledged; } growth[GROWTHS];
	uint64_t set_up;                /* place from which on the clients' directories are there */
	bool growths_done;
};

/* ---- the run that is recorded ---- */

static MAY_WAIT int set_up(void *arg)
{
	struct explorer *explorer = arg;
	for (unsigned i = 0; i < CLIENTS; i++) {
		const int error = client_set_up(explorer->clients[i]);
		if (error)
			return error;
	}
	const int error = fs_sync(explorer->clients[0]->sim->fs);
	bdev_record_mark(crash_record(&explorer->crash), (uint64_t)SET_UP_MARK << 32);
	return error;
}

static void work_main(void *arg) { client_work(arg); }

/* Grows the filesystem under the clients' hands; what was acknowledged is in the log as a mark. */
static void grow_main(void *arg)
{
	struct explorer *explorer = arg;
	struct sim *sim = explorer->clients[0]->sim;
	for (unsigned i = 0; i < GROWTHS; i++) {
		while (explorer->clients[0]->model.op_count < explorer->growth[i].after)
			fiber_sleep(NS_PER_MS);
		struct fs_grown grown;
		const int error = fs_grow(sim->fs, explorer->growth[i].blocks * FS_BLOCK_SIZE, &grown, sim->message, sizeof(sim->message));
		if (error)
			sim_fail("explorer: growing: %s", sim->message);
		bdev_record_mark(sim_bdev(sim, "record"), (uint64_t)GROWTH_MARK << 32 | i);
	}
	explorer->growths_done = true;
}

static bool all_done(void *arg)
{
	const struct explorer *explorer = arg;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (!explorer->clients[i]->done)
			return false;
	return !explorer->grow || explorer->growths_done;
}

static void run_clients(struct explorer *explorer, struct sim *sim)
{
	struct fiber_start_remote starts[CLIENTS];
	for (unsigned i = 0; i < CLIENTS; i++) {
		starts[i].start = (struct fiber_start){.fn = work_main, .arg = explorer->clients[i], .name = "client"};
		fiber_start_on(reactor_group_get(sim->group, i % explorer->owners), &starts[i]);
	}
	struct fiber_start_remote growth = {.start = {.fn = grow_main, .arg = explorer, .name = "growth"}};
	if (explorer->grow)
		fiber_start_on(reactor_group_get(sim->group, 0), &growth);
	if (!reactor_group_sim_run(sim->group, all_done, explorer))
		sim_fail("explorer: the clients wait for ever (seed %" PRIu64 ")", explorer->seed);
}

static void take_marks(struct explorer *explorer)
{
	for (size_t i = 0; i < explorer->entry_count; i++) {
		const struct record_entry *entry = &explorer->entries[i];
		if (entry->kind != RECORD_MARK)
			continue;
		if ((entry->mark >> 32 & 0xff) == SET_UP_MARK) {
			explorer->set_up = entry->submitted;
			continue;
		}
		if ((entry->mark >> 32 & 0xff) == GROWTH_MARK) {
			explorer->growth[(uint32_t)entry->mark].acknowledged = entry->submitted;
			continue;
		}
		struct model_op *op = &explorer->clients[entry->mark >> 32 & 0xff]->model.ops[(uint32_t)entry->mark];
		if (entry->mark >> 63)
			op->acknowledged = entry->submitted;
		else
			op->begun = entry->submitted;
	}
}

static void record_run(struct explorer *explorer)
{
	struct crash *crash = &explorer->crash;
	struct sim *sim = &crash->sim;
	crash_load(crash, explorer->image, explorer->seed);
	sim->trace = explorer->trace;
	const struct fs_mount_options mount = {.cache_bytes = MIB(1), .inodes_max = 1024, .commit_ms = 5,
		.discard = explorer->discard};
	if (crash_mount(crash, &mount, explorer->seed))
		sim_fail("explorer: mount: %s", sim->message);
	for (unsigned i = 0; i < CLIENTS; i++) {
		explorer->clients[i] = calloc(1, sizeof(*explorer->clients[i]));
		client_create(explorer->clients[i], sim, i, explorer->ops, explorer->seed);
	}
	if (reactor_group_run(reactor_group_get(sim->group, 0), set_up, explorer))
		sim_fail("explorer: set-up of the clients failed");
	run_clients(explorer, sim);
	struct fs_status status;
	fs_get_status(sim->fs, &status);
	explorer->journal_bytes_written = status.journal_group_bytes;
	explorer->wraps = status.journal_group_bytes / explorer->journal_bytes;
	explorer->multi_owner = status.multi_owner_transactions;
	explorer->discards = status.discards;
	if (explorer->discard && explorer->ops >= 100 && !explorer->discards)
		sim_fail("explorer: nothing was discarded (seed %" PRIu64 ")", explorer->seed);
	if (sim_unmount(sim) || sim->stopped)
		sim_fail("explorer: unmount failed");
	if (sim_fsck(crash->memory, explorer->size, false, "after a clean unmount"))
		sim_fail("explorer: the filesystem is damaged without any crash (seed %" PRIu64 ")", explorer->seed);
	explorer->entries = crash_entries(crash, &explorer->entry_count);
	take_marks(explorer);
}

/* ---- crash states ---- */

static void violated(void *arg, const struct crash_state *state, const char *what)
{
	const struct explorer *explorer = arg;
	if (explorer->crash.stats.violations > 3 && explorer->only_state == UINT64_MAX)
		return;
	fprintf(stderr, "state %" PRIu64 " (place %" PRIu64 ", kind %u, depth %u): %s\n  again with: %s --seed %" PRIu64 " --owners %u "
		"--ops %u --states %" PRIu64 " --state %" PRIu64 "%s%s\n", state->number, state->at, state->kind, state->depth, what,
		explorer->program, explorer->seed, explorer->owners, explorer->ops, explorer->states_wanted, state->number,
		explorer->discard ? " --discard" : "", explorer->grow ? " --grow" : "");
}

/* For a person who repeats one state: what was found, and what the client had done around the cut. */
static void explain(const struct explorer *explorer, const struct client *client, uint64_t at)
{
	const struct model_found *found = explorer->found;
	for (unsigned i = 0; i < MODEL_DIRS; i++)
		for (unsigned j = 0; j < MODEL_NAMES; j++)
			if (found->names.object[i][j])
				fprintf(stderr, "  client %u found %u/%u: object %u type %o mode %o nlink %u xattr %u size %" PRIu64 "\n",
					client->number, i, j, found->names.object[i][j], found->attr[i][j].type, found->attr[i][j].mode,
					found->attr[i][j].nlink, found->attr[i][j].xattr, found->attr[i][j].size);
	for (unsigned i = 0; i < client->model.op_count && client->model.ops[i].begun <= at; i++) {
		const struct model_op *op = &client->model.ops[i];
		if (!op->failed)
			fprintf(stderr, "  client %u op %u: kind %d %u/%u -> %u/%u object %u value %u sectors %u+%u owners %" PRIx64
				" done %" PRIu64 "\n", client->number, i, op->kind, op->dir, op->name, op->dir2, op->name2, op->object,
				op->value, op->first_sector, op->sectors, op->owners, op->acknowledged);
	}
}

/* The size is one that the filesystem had, and none that was outgrown before the cut. */
static const char *size_judge(const struct explorer *explorer, const struct fs *fs, uint64_t at)
{
	const uint64_t found = le64_get(fs_get_super(fs)->block_count);
	bool possible = found == explorer->first_size / FS_BLOCK_SIZE;
	for (unsigned i = 0; i < GROWTHS && explorer->grow; i++) {
		if (explorer->growth[i].acknowledged <= at && found < explorer->growth[i].blocks)
			return "the filesystem is smaller than it was said to have become";
		possible |= found == explorer->growth[i].blocks;
	}
	return possible ? NULL : "the filesystem has a size that it never had";
}

static MAY_WAIT const char *look(void *arg, struct fs *fs, uint64_t at)
{
	struct explorer *explorer = arg;
	const char *broken = size_judge(explorer, fs, at);
	for (unsigned i = 0; i < CLIENTS && !broken && at >= explorer->set_up; i++) {
		struct client *client = explorer->clients[i];
		const int error = client_look(client, fs, explorer->found);
		broken = error ? "the client's files cannot be read" : model_judge(&client->model, explorer->found, at);
		if (broken && explorer->only_state + 1 == explorer->crash.next_number)
			explain(explorer, client, at);
	}
	return broken;
}

/* Operations that had begun, and that were acknowledged. */
static uint64_t promised(void *arg, uint64_t at)
{
	const struct explorer *explorer = arg;
	uint64_t number = at >= explorer->set_up;
	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct model *model = &explorer->clients[i]->model;
		unsigned begun = 0, acknowledged = 0;
		for (; begun < model->op_count && model->ops[begun].begun <= at; begun++)
			acknowledged += model->ops[begun].acknowledged <= at;
		number = number * 65599 + begun * 2 + (begun != acknowledged);
	}
	for (unsigned i = 0; i < GROWTHS; i++)
		number = number * 2 + (explorer->growth[i].acknowledged <= at);
	return number;
}

/* ---- main ---- */

static void help(void)
{
	puts("usage: explorer [--states N] [--ops N] [--owners N] [--seed N] [--seeds N] [--state K] [--discard] [--grow]\n"
		"                [--quiet] [--trace]\n"
		"Runs --ops operations per client on a simulated lanefs, then --states power cuts of that run, for --seeds seeds from\n"
		"--seed on; exits with 1 when a promise was broken. --state repeats one state and explains it; --quiet stops at the\n"
		"first seed with a violation.");
}

static void options_parse(struct explorer *explorer, int argc, char **argv)
{
	static const struct option options[] = {{"states", 1, NULL, 's'}, {"ops", 1, NULL, 'o'}, {"owners", 1, NULL, 'w'},
		{"seed", 1, NULL, 'r'}, {"seeds", 1, NULL, 'n'}, {"state", 1, NULL, 'k'}, {"quiet", 0, NULL, 'q'},
		{"discard", 0, NULL, 'd'}, {"grow", 0, NULL, 'g'},
		{"trace", 0, NULL, 't'}, {"help", 0, NULL, 'h'}, {0}};
	for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;)
		switch (c) {
		case 's':
			explorer->states_wanted = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			explorer->ops = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'w':
			explorer->owners = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'r':
			explorer->seed = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			explorer->seeds = (unsigned)strtoul(optarg, NULL, 0);
			break;
		case 'k':
			explorer->only_state = strtoull(optarg, NULL, 0);
			break;
		case 'd':
			explorer->discard = true;
			break;
		case 'g':
			explorer->grow = true;
			break;
		case 'q':
			explorer->quiet = true;
			break;
		case 't':
			explorer->trace = true;
			break;
		default:
			help();
			exit(c == 'h' ? 0 : 2);
		}
}

/* One seed: a recorded run and its states. */
static void run(struct explorer *explorer)
{
	/* Old content everywhere: what is not written shows. */
	memset(explorer->image, 0xa5, explorer->size);
	explorer->growths_done = false;
	explorer->first_size = explorer->grow ? explorer->size - MIB(5) - 40 * FS_BLOCK_SIZE : explorer->size;
	for (unsigned i = 0; i < GROWTHS; i++) {
		explorer->growth[i].after = (i + 1) * explorer->ops / (GROWTHS + 1);
		explorer->growth[i].acknowledged = UINT64_MAX;
		explorer->growth[i].blocks = (explorer->size - (i ? 0 : MIB(2) + explorer->seed % 5 * 100 * FS_BLOCK_SIZE)) / FS_BLOCK_SIZE;
	}
	const struct sim_format format = {.size = explorer->first_size, .journal_bytes = explorer->journal_bytes,
		.ag_bytes = explorer->ag_bytes, .seed = explorer->seed};
	sim_mkfs(explorer->image, &format);
	struct crash_options options = {.owners = explorer->owners, .size = explorer->size, .samples = 2, .tears = 1, .nest_every = 256,
		.mount = {.cache_bytes = MIB(1), .inodes_max = 1024}};
	options.places_max = (unsigned)MAX(explorer->states_wanted / STATES_A_PLACE, (uint64_t)1);
	struct crash *crash = &explorer->crash;
	crash_create(crash, &options);
	crash->only_state = explorer->only_state;
	record_run(explorer);
	const struct crash_judge judge = {.judge = look, .promised = promised, .violated = violated, .arg = explorer};
	crash_explore(crash, &judge, explorer->seed);
	printf("explorer: seed %" PRIu64 ", %u owners: %zu log entries, journal written %" PRIu64 " KiB (%" PRIu64 " times round), "
		"%" PRIu64 " transactions of several owners, %" PRIu64 " discards\n", explorer->seed, explorer->owners, explorer->entry_count,
		explorer->journal_bytes_written >> 10, explorer->wraps, explorer->multi_owner, explorer->discards);
	crash_stats_print(&crash->stats, false);
	fflush(stdout);
	explorer->violations += crash->stats.violations;
	for (unsigned i = 0; i < CLIENTS; i++) {
		client_destroy(explorer->clients[i]);
		free(explorer->clients[i]);
	}
	crash_destroy(crash);
}

int main(int argc, char **argv)
{
	static struct explorer explorer = {.seed = 1, .seeds = 1, .states_wanted = 500, .only_state = UINT64_MAX, .owners = 2,
		.ops = 300, .size = MIB(14), .journal_bytes = FS_JOURNAL_BLOCKS_MIN * FS_BLOCK_SIZE, .ag_bytes = MIB(1)};
	explorer.program = argv[0];
	options_parse(&explorer, argc, argv);
	if (!explorer.owners || explorer.owners > MODEL_OWNERS_MAX || explorer.ops > MODEL_OPS_MAX) {
		fprintf(stderr, "explorer: the oracle judges 1 to %u owners and up to %u operations a client\n", MODEL_OWNERS_MAX,
			MODEL_OPS_MAX);
		return 2;
	}
	log_set_level(LOG_LEVEL_WARN);
	explorer.image = malloc(explorer.size);
	explorer.found = malloc(sizeof(*explorer.found));
	for (unsigned i = 0; i < explorer.seeds && (!explorer.violations || !explorer.quiet); i++, explorer.seed++)
		run(&explorer);
	free(explorer.found);
	free(explorer.image);
	return explorer.violations ? 1 : 0;
}
