/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The crash explorer. It runs clients on a simulated filesystem over the recording device, then builds images that a power cut
 * could have left, and looks at each: fsck with its own replay, mount (our replay), the clients' oracle, unmount, fsck again.
 *
 * A cut at a place of the device log leaves: every write that a completed FLUSH (sent after the write completed) or FUA made
 * durable; of the others any subset, whole or torn at 512 bytes or 4 KiB. At every place the whole prefix and the bare minimum
 * are tried, and seeded subsets. A part of the states is cut a second time during the recovery.
 *
 * Images are private mappings of one memory file that holds what is durable: a state costs the blocks that it touches.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "reactor/log.h"
#include "tests/sim/client.h"

enum { CLIENTS = 3, GROWTHS = 2, GROWTH_MARK = 0xff };

struct explorer {
	uint64_t seed, states_wanted, only_state;
	unsigned owners, ops, seeds;
	uint64_t size, first_size, journal_bytes, ag_bytes; /* size: of the device; first_size: of the filesystem, formatted */
	const char *program;
	int memory_fd;
	uint8_t *durable;               /* shared mapping of memory_fd */
	struct client *clients[CLIENTS];
	struct model_found *found;
	const struct record_entry *entries;
	size_t entry_count;
	uint64_t random;
	/* results */
	uint64_t states, violations, cuts_in_recovery, journal_bytes_written, wraps, multi_owner, discards;
	bool *written;                  /* entry is in `durable` */
	bool quiet, trace, discard, grow;
	/* With grow: after so many of the clients' operations the filesystem grows to so many blocks. */
	struct { unsigned after; uint64_t blocks, acknowledged; } growth[GROWTHS];
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
	return fs_sync(explorer->clients[0]->sim->fs);
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

static __attribute__((noinline)) struct record_log *record_run(struct explorer *explorer)
{
	uint8_t *work = mmap(NULL, explorer->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, explorer->memory_fd, 0);
	if (work == MAP_FAILED)
		sim_fail("explorer: no memory for the image");
	struct sim sim;
	const struct sim_options options = {.owners = explorer->owners, .seed = explorer->seed, .memory = work,
		.size = explorer->size, .asynchronous = true, .record = true};
	sim_create(&sim, &options);
	sim.trace = explorer->trace;
	const struct fs_mount_options mount = {.cache_bytes = MIB(1), .commit_ms = 5, .discard = explorer->discard};
	if (sim_mount(&sim, &mount))
		sim_fail("explorer: mount: %s", sim.message);
	for (unsigned i = 0; i < CLIENTS; i++) {
		explorer->clients[i] = calloc(1, sizeof(*explorer->clients[i]));
		client_create(explorer->clients[i], &sim, i, explorer->ops, explorer->seed);
	}
	if (reactor_group_run(reactor_group_get(sim.group, 0), set_up, explorer))
		sim_fail("explorer: set-up of the clients failed");
	run_clients(explorer, &sim);
	struct fs_status status;
	fs_get_status(sim.fs, &status);
	explorer->journal_bytes_written = status.journal_group_bytes;
	explorer->wraps = status.journal_group_bytes / explorer->journal_bytes;
	explorer->multi_owner = status.multi_owner_transactions;
	explorer->discards = status.discards;
	if (explorer->discard && explorer->ops >= 100 && !explorer->discards)
		sim_fail("explorer: nothing was discarded (seed %" PRIu64 ")", explorer->seed);
	if (sim_unmount(&sim) || sim.stopped)
		sim_fail("explorer: unmount failed");
	struct record_log *log = bdev_record_log(sim_bdev(&sim, "record"));
	record_log_get(log);
	sim_destroy(&sim);
	if (sim_fsck(work, explorer->size, false, "after a clean unmount"))
		sim_fail("explorer: the filesystem is damaged without any crash (seed %" PRIu64 ")", explorer->seed);
	munmap(work, explorer->size);
	explorer->entries = record_log_entries(log, &explorer->entry_count);
	take_marks(explorer);
	return log;
}

/* ---- crash states ---- */

/* When the entry became durable; UINT64_MAX: not before the end. */
static uint64_t durable_at(const struct record_entry *entries, size_t count, size_t index)
{
	const struct record_entry *write = &entries[index];
	if (write->fua)
		return write->completed;
	uint64_t at = UINT64_MAX;
	for (size_t i = index + 1; i < count; i++)
		if (entries[i].kind == RECORD_FLUSH && entries[i].submitted > write->completed)
			at = MIN(at, entries[i].completed);
		else if (entries[i].submitted > at)
			break;
	return at;
}

enum subset { SUBSET_ALL, SUBSET_NONE, SUBSET_RANDOM, SUBSET_RANDOM_512, SUBSET_KINDS };

static void write_torn(uint8_t *image, const struct record_entry *write, uint64_t piece, uint64_t *random)
{
	for (uint64_t at = 0; at < write->length; at += piece)
		if (sim_rand(random) & 1)
			memcpy(image + write->offset + at, write->data + at, MIN(piece, write->length - at));
}

/* What is unmapped holds anything afterwards: what nobody ever wrote, so that it shows when somebody still needs it. */
static void apply_write(uint8_t *image, const struct record_entry *write)
{
	if (write->kind == RECORD_UNMAP)
		memset(image + write->offset, 0xdd, write->length);
	else
		memcpy(image + write->offset, write->data, write->length);
}

static void apply_pending(uint8_t *image, const struct record_entry *entry, enum subset subset, uint64_t *random)
{
	if (subset == SUBSET_NONE)
		return;
	const uint64_t dice = subset == SUBSET_ALL ? 0 : sim_rand(random) % 4;
	if (dice == 0 || (dice == 1 && entry->kind == RECORD_UNMAP))
		apply_write(image, entry);
	else if (dice == 1)
		write_torn(image, entry, subset == SUBSET_RANDOM_512 ? 512 : FS_BLOCK_SIZE, random);
}

struct state {
	struct explorer *explorer;
	struct sim sim;
	uint8_t *image;
	uint64_t at, number;
	char name[128];
	const char *broken;
	uint64_t random;
};

static void violated(struct state *state, const char *what)
{
	struct explorer *explorer = state->explorer;
	explorer->violations++;
	if (explorer->quiet && explorer->violations > 3)
		return;
	fprintf(stderr, "%s: %s\n  again with: %s --seed %" PRIu64 " --owners %u --ops %u --states %" PRIu64 " --state %" PRIu64 "%s%s\n",
		state->name, what, explorer->program, explorer->seed, explorer->owners, explorer->ops, explorer->states_wanted,
		state->number, explorer->discard ? " --discard" : "", explorer->grow ? " --grow" : "");
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
static const char *size_judge(const struct state *state)
{
	const struct explorer *explorer = state->explorer;
	const uint64_t found = le64_get(fs_get_super(state->sim.fs)->block_count);
	bool possible = found == explorer->first_size / FS_BLOCK_SIZE;
	for (unsigned i = 0; i < GROWTHS && explorer->grow; i++) {
		if (explorer->growth[i].acknowledged <= state->at && found < explorer->growth[i].blocks)
			return "the filesystem is smaller than it was said to have become";
		possible |= found == explorer->growth[i].blocks;
	}
	return possible ? NULL : "the filesystem has a size that it never had";
}

static MAY_WAIT int look(void *arg)
{
	struct state *state = arg;
	struct explorer *explorer = state->explorer;
	state->broken = size_judge(state);
	for (unsigned i = 0; i < CLIENTS && !state->broken; i++) {
		struct client *client = explorer->clients[i];
		const int error = client_look(client, state->sim.fs, explorer->found);
		if (error)
			state->broken = "the client's files cannot be read";
		else
			state->broken = model_judge(&client->model, explorer->found, state->at);
		if (state->broken && explorer->only_state != UINT64_MAX)
			explain(explorer, client, state->at);
	}
	return 0;
}

static void recover(struct state *state, bool record)
{
	struct explorer *explorer = state->explorer;
	const struct sim_options options = {.owners = explorer->owners, .seed = state->random, .memory = state->image,
		.size = explorer->size, .asynchronous = record, .record = record};
	sim_create(&state->sim, &options);
	const char *broken = NULL;
	if (sim_mount(&state->sim, NULL)) {
		fprintf(stderr, "%s: mount: %s\n", state->name, state->sim.message);
		broken = "mount failed";
	} else {
		state->broken = NULL;
		reactor_group_run(reactor_group_get(state->sim.group, 0), look, state);
		broken = state->broken;
		if (sim_unmount(&state->sim) && !broken)
			broken = "unmount failed";
	}
	if (broken)
		violated(state, broken);
}

/* Cuts the recovery that was just recorded somewhere, and recovers from that. */
static void cut_again(struct state *state, const uint8_t *before)
{
	struct explorer *explorer = state->explorer;
	size_t count;
	struct record_log *log = bdev_record_log(sim_bdev(&state->sim, "record"));
	record_log_get(log);
	sim_destroy(&state->sim);
	const struct record_entry *entries = record_log_entries(log, &count);
	if (!count)
		goto out;
	memcpy(state->image, before, explorer->size);
	const uint64_t last = entries[count - 1].submitted;
	const uint64_t cut = entries[0].submitted + sim_rand(&state->random) % (last - entries[0].submitted + 1);
	for (size_t i = 0; i < count && entries[i].submitted <= cut; i++) {
		if (entries[i].kind != RECORD_WRITE && entries[i].kind != RECORD_UNMAP)
			continue;
		if (durable_at(entries, count, i) <= cut)
			apply_write(state->image, &entries[i]);
		else
			apply_pending(state->image, &entries[i], SUBSET_RANDOM, &state->random);
	}
	explorer->cuts_in_recovery++;
	if (sim_fsck(state->image, explorer->size, true, state->name))
		violated(state, "fsck finds damage after a cut during recovery");
	recover(state, false);
	sim_destroy(&state->sim);
	if (sim_fsck(state->image, explorer->size, false, state->name))
		violated(state, "fsck finds damage after the second recovery");
out:
	record_log_put(log);
}

/* Kept out of its callers: frames stay small. */
static __attribute__((noinline)) void try_state(struct explorer *explorer, size_t position, uint64_t at, enum subset subset)
{
	struct state state = {.explorer = explorer, .at = at, .number = explorer->states++};
	state.random = explorer->seed * 1000003 + state.number;
	if (explorer->only_state != UINT64_MAX && explorer->only_state != state.number)
		return;
	snprintf(state.name, sizeof(state.name), "state %" PRIu64 " (place %" PRIu64 ", subset %u)", state.number, at, subset);
	state.image = mmap(NULL, explorer->size, PROT_READ | PROT_WRITE, MAP_PRIVATE, explorer->memory_fd, 0);
	if (state.image == MAP_FAILED)
		sim_fail("explorer: no memory for a state");
	for (size_t i = 0; i < position; i++)
		if (!explorer->written[i] && (explorer->entries[i].kind == RECORD_WRITE || explorer->entries[i].kind == RECORD_UNMAP))
			apply_pending(state.image, &explorer->entries[i], subset, &state.random);
	if (sim_fsck(state.image, explorer->size, true, state.name))
		violated(&state, "fsck finds damage after the cut");
	const bool again = state.number % 16 == 7;
	uint8_t *before = again ? malloc(explorer->size) : NULL;
	if (again)
		memcpy(before, state.image, explorer->size);
	recover(&state, again);
	if (again) {
		cut_again(&state, before);
	} else {
		sim_destroy(&state.sim);
		if (sim_fsck(state.image, explorer->size, false, state.name))
			violated(&state, "fsck finds damage after recovery");
	}
	free(before);
	munmap(state.image, explorer->size);
}

/* Brings the durable image up to the place: everything that no cut from here on can lose. */
static void advance(struct explorer *explorer, size_t position, uint64_t at, const uint64_t *durable)
{
	for (size_t i = 0; i < position; i++) {
		const struct record_entry *entry = &explorer->entries[i];
		if (explorer->written[i] || durable[i] > at || (entry->kind != RECORD_WRITE && entry->kind != RECORD_UNMAP))
			continue;
		apply_write(explorer->durable, entry);
		explorer->written[i] = true;
	}
}

static void explore(struct explorer *explorer)
{
	uint64_t *durable = calloc(explorer->entry_count, sizeof(*durable));
	explorer->written = calloc(explorer->entry_count, sizeof(*explorer->written));
	for (size_t i = 0; i < explorer->entry_count; i++)
		durable[i] = durable_at(explorer->entries, explorer->entry_count, i);
	/* Places are spread evenly over the log, a few states at each. */
	const uint64_t per_place = SUBSET_KINDS + 1;
	const uint64_t places = MAX(explorer->states_wanted / per_place, (uint64_t)1);
	size_t position = 0;
	for (uint64_t place = 0; place < places; place++) {
		const size_t target = (size_t)((place + 1) * explorer->entry_count / (places + 1));
		while (position < target)
			position++;
		const uint64_t at = explorer->entries[position ? position - 1 : 0].submitted;
		advance(explorer, position, at, durable);
		for (unsigned i = 0; i < per_place; i++)
			try_state(explorer, position, at, i < SUBSET_KINDS ? (enum subset)i : SUBSET_RANDOM);
	}
	free(durable);
	free(explorer->written);
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
	explorer->states = 0;
	/* Old content everywhere: what is not written shows. */
	memset(explorer->durable, 0xa5, explorer->size);
	explorer->growths_done = false;
	explorer->first_size = explorer->grow ? explorer->size - MIB(5) - 40 * FS_BLOCK_SIZE : explorer->size;
	for (unsigned i = 0; i < GROWTHS; i++) {
		explorer->growth[i].after = (i + 1) * explorer->ops / (GROWTHS + 1);
		explorer->growth[i].acknowledged = UINT64_MAX;
		explorer->growth[i].blocks = (explorer->size - (i ? 0 : MIB(2) + explorer->seed % 5 * 100 * FS_BLOCK_SIZE)) / FS_BLOCK_SIZE;
	}
	const struct sim_format format = {.size = explorer->first_size, .journal_bytes = explorer->journal_bytes,
		.ag_bytes = explorer->ag_bytes, .seed = explorer->seed};
	sim_mkfs(explorer->durable, &format);
	struct record_log *log = record_run(explorer);
	explore(explorer);
	printf("explorer: %" PRIu64 " states, %" PRIu64 " cut again during recovery, %" PRIu64 " violations; %zu log entries, journal "
		"written %" PRIu64 " KiB (%" PRIu64 " times round), %" PRIu64 " transactions of several owners, %" PRIu64 " discards; seed %" PRIu64 ", %u owners\n",
		explorer->states, explorer->cuts_in_recovery, explorer->violations, explorer->entry_count,
		explorer->journal_bytes_written >> 10, explorer->wraps, explorer->multi_owner, explorer->discards, explorer->seed, explorer->owners);
	fflush(stdout);
	record_log_put(log);
	for (unsigned i = 0; i < CLIENTS; i++) {
		client_destroy(explorer->clients[i]);
		free(explorer->clients[i]);
	}
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
	explorer.memory_fd = memfd_create("image", MFD_CLOEXEC);
	if (explorer.memory_fd < 0 || ftruncate(explorer.memory_fd, (off_t)explorer.size))
		sim_fail("explorer: no memory file");
	explorer.durable = mmap(NULL, explorer.size, PROT_READ | PROT_WRITE, MAP_SHARED, explorer.memory_fd, 0);
	explorer.found = malloc(sizeof(*explorer.found));
	for (unsigned i = 0; i < explorer.seeds && (!explorer.violations || !explorer.quiet); i++, explorer.seed++)
		run(&explorer);
	free(explorer.found);
	return explorer.violations ? 1 : 0;
}
