/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Several clients at work at once while one I/O, or one allocation, fails: in the time until then their operations have got
 * between each other, into groups of the journal, checkpoints, the frees of unlinked files. What fault_sweep does with one
 * operation.
 *
 * A seed makes an image that the clients have worked on, mounts it with everything cold, and counts what a second batch of work
 * needs; then the same batch runs again and again (the seed gives the same order of things), each time with another I/O or
 * allocation that fails, once or from then on. Nothing may crash, hang or leak; every answer is one that fs.h knows; the
 * filesystem stops exactly when a FLUSH or a write of metadata has failed; a failed operation has no effect when it goes on.
 * After a restart or a power cut fsck is clean, and the clients' oracle (model.h) finds what sync and fsync acknowledged.
 *
 *   fault_storm [--owners N] [--seed N] [--seeds N] [--cases N] [--case TEXT] [--quiet]
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "reactor/memory.h"
#include "tests/sim/accounts.h"
#include "tests/sim/calls.h"
#include "tests/sim/client.h"
#include "tests/sim/cut.h"
#include "tests/sim/fault_rule.h"

enum { CLIENTS = 4, OPS_BEFORE = 60, OPS = 40, STORM_BYTES = 12 << 20, STORM_AG_BYTES = 1 << 20 };
static const struct fault_rule fault_none = {.skip = UINT64_MAX};

struct storm {
	/* what is asked for */
	unsigned owners, seeds;
	uint64_t seed, cases;
	const char *only;
	bool quiet;
	/* of a seed */
	uint8_t *image;                 /* after the first batch, clean */
	struct client *before[CLIENTS]; /* and the clients then */
	struct client *during[CLIENTS]; /* for a case */
	uint64_t counts[FAULT_SOURCES];
	/* of a case */
	struct fault_rule rule;
	enum fault_end end;
	char text[200];
	struct machine machine;
	struct client *clients[CLIENTS];
	struct record_log *log;
	struct fault_state state;
	struct fs_errors errors;
	int sync, checkpoint, unmount;
	bool hurt;                      /* somebody was answered an error that he would not have got otherwise */
	struct model_found *found;
	/* results */
	uint64_t tried, stopped, removed, hurts, recorded, hits;
};

static void complain(const struct storm *storm, const char *format, ...) PRINTF_LIKE(2, 3) __attribute__((noreturn));
static void complain(const struct storm *storm, const char *format, ...)
{
	va_list args;
	char why[400];
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	sim_fail("%s (sync %d, checkpoint %d, unmount %d, stopped %d%s, hits %llu)", why, storm->sync, storm->checkpoint,
		storm->unmount, storm->errors.error, storm->state.removed ? ", removed" : "", (unsigned long long)storm->state.hits);
}

/* ---- the clients ---- */

static void work_main(void *arg) { client_work(arg); }

static bool all_done(void *arg)
{
	const struct storm *storm = arg;
	for (unsigned i = 0; i < CLIENTS; i++)
		if (!storm->clients[i]->done)
			return false;
	return true;
}

static void run_clients(struct storm *storm, unsigned ops)
{
	static struct fiber_start_remote starts[CLIENTS];
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *client = storm->clients[i];
		client->sim = &storm->machine.sim;
		client->ops_wanted = client->model.op_count + ops;
		client->done = false;
		starts[i].start = (struct fiber_start){.fn = work_main, .arg = client, .name = "client"};
		fiber_start_on(reactor_group_get(storm->machine.sim.group, i % storm->owners), &starts[i]);
	}
	if (!reactor_group_sim_run(storm->machine.sim.group, all_done, storm))
		complain(storm, "the clients wait for ever");
}

/* What stands is durable: an acknowledged sync in everybody's list, but for those of whom nobody knows what stands. */
static void note_durable(struct storm *storm)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct model *model = &storm->clients[i]->model;
		if (!storm->clients[i]->lost)
			model->ops[model->op_count++] = (struct model_op){.kind = MODEL_SYNC};
	}
}

static MAY_WAIT int set_up(void *arg)
{
	struct storm *storm = arg;
	for (unsigned i = 0; i < CLIENTS; i++) {
		const int error = client_set_up(storm->clients[i]);
		if (error)
			return error;
	}
	return 0;
}

static void machine_create(struct storm *storm, uint8_t *memory, bool asynchronous, bool faults)
{
	const struct sim_options options = {.owners = storm->owners, .seed = storm->seed * 7 + 3, .memory = memory, .size = STORM_BYTES,
		.asynchronous = asynchronous, .error = faults, .record = faults && storm->rule.source != FAULT_MEMORY};
	sim_create(&storm->machine.sim, &options);
}

static const struct fs_mount_options *mount_options(const struct storm *storm)
{
	static struct fs_mount_options options;
	options = (struct fs_mount_options){.commit_ms = storm->seed % 3 ? 5 : 100, .discard = storm->seed % 2,
		.sync = storm->seed % 5 == 4};
	return &options;
}

/* The image and the clients that every case of this seed begins with. */
static void seed_begin(struct storm *storm)
{
	const struct sim_format format = {.size = STORM_BYTES, .journal_bytes = FS_JOURNAL_BLOCKS_MIN * FS_BLOCK_SIZE,
		.ag_bytes = STORM_AG_BYTES, .seed = storm->seed};
	storm->rule = fault_none;
	sim_mkfs(storm->image, &format);
	machine_create(storm, storm->image, true, false);
	if (sim_mount(&storm->machine.sim, mount_options(storm)))
		sim_fail("mount: %s", storm->machine.sim.message);
	for (unsigned i = 0; i < CLIENTS; i++) {
		storm->clients[i] = storm->before[i];
		client_create(storm->clients[i], &storm->machine.sim, i, 0, storm->seed);
		storm->clients[i]->strict = true;
	}
	if (reactor_group_run(reactor_group_get(storm->machine.sim.group, 0), set_up, storm))
		sim_fail("set-up of the clients failed");
	run_clients(storm, OPS_BEFORE);
	if (sim_unmount(&storm->machine.sim))
		sim_fail("unmount");
	sim_destroy(&storm->machine.sim);
	note_durable(storm);
	for (unsigned i = 0; i < CLIENTS; i++) {
		memset(storm->before[i]->kept, 0, sizeof(storm->before[i]->kept));
		client_destroy(storm->before[i]);
	}
}

/* ---- a case ---- */

static MAY_WAIT int sync_here(void *arg) { return fs_sync(arg); }
static MAY_WAIT int checkpoint_here(void *arg) { return fs_checkpoint(arg); }

static void sync_all(struct storm *storm)
{
	storm->sync = sim_on(&storm->machine.sim, FS_ROOT_INODE, sync_here, storm->machine.sim.fs);
	storm->checkpoint = sim_on(&storm->machine.sim, FS_ROOT_INODE, checkpoint_here, storm->machine.sim.fs);
}

static void clients_copy(struct storm *storm)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		uint8_t *const buffer = storm->during[i]->buffer;
		storm->clients[i] = storm->during[i];
		*storm->during[i] = *storm->before[i];
		storm->during[i]->buffer = buffer;
	}
}

static void operate(struct storm *storm)
{
	struct sim *sim = &storm->machine.sim;
	run_clients(storm, OPS);
	storm->hurt = false;
	for (unsigned i = 0; i < CLIENTS; i++)
		storm->hurt |= storm->clients[i]->hurt != 0;
	sync_all(storm);
	fault_settle(&storm->state);
	fs_get_errors(sim->fs, &storm->errors);
	if (storm->rule.source == FAULT_MEMORY)
		storm->state.hits = fault_memory_hits();
	if (!storm->rule.always || !storm->state.hits)
		fault_memory_end();
}

static void judge_errors(const struct storm *storm)
{
	for (unsigned i = 0; i < CLIENTS; i++) {
		const struct client *client = storm->clients[i];
		if (client->hurt && !fault_error_fits(&storm->rule, &storm->state, client->hurt))
			complain(storm, "client %u was answered %d, which has nothing to do with what failed", i, client->hurt);
	}
	if (!fault_error_fits(&storm->rule, &storm->state, storm->sync) ||
		!fault_error_fits(&storm->rule, &storm->state, storm->checkpoint))
		complain(storm, "errors that have nothing to do with what failed");
}

static void judge(struct storm *storm)
{
	const struct fault_rule *rule = &storm->rule;
	/* Who pulls the device out takes part in the order of things: near the end the place may not be reached. */
	if (!storm->state.hits && rule->source != FAULT_MEMORY)
		bdev_error_clear_rules(sim_bdev(&storm->machine.sim, "error"));
	const bool puller = rule->kind == FAULT_HANG || (rule->kind == FAULT_BUSY && rule->always);
	if (fault_is_transparent(rule) || (!storm->state.hits && (puller || rule->source == FAULT_MEMORY))) {
		if (storm->hurt || storm->sync || storm->checkpoint || storm->errors.error)
			complain(storm, "nothing has failed, and something was answered");
		return;
	}
	if (!storm->state.hits)
		complain(storm, "the fault did not happen");
	judge_errors(storm);
	const char *wrong = fault_judge_stop(rule, &storm->state, &storm->errors, false);
	if (wrong)
		complain(storm, "%s", wrong);
	const int stopped = storm->errors.earlier ? 0 : storm->errors.error;
	if (stopped && !sim_on(&storm->machine.sim, FS_ROOT_INODE, sync_here, storm->machine.sim.fs))
		complain(storm, "a stopped filesystem syncs");
	if (!stopped && rule->source != FAULT_MEMORY && rule->source != IO_READ && !storm->state.removed &&
		(storm->sync || storm->checkpoint))
		complain(storm, "syncing fails, and the filesystem has not stopped");
}

static MAY_WAIT int let_go(void *arg)
{
	const struct storm *storm = arg;
	for (unsigned i = 0; i < CLIENTS; i++)
		client_let_go(storm->clients[i]);
	return 0;
}

/* The device is well, and the filesystem has not stopped: it works, and has kept nothing. */
static void go_on(struct storm *storm)
{
	struct sim *sim = &storm->machine.sim;
	const bool well = !storm->rule.always && !storm->state.removed;
	if (!well || fs_stopped(sim->fs))
		return;
	for (unsigned i = 0; i < CLIENTS; i++)
		storm->clients[i]->hurt = 0;
	sync_all(storm);
	run_clients(storm, OPS / 4);
	for (unsigned i = 0; i < CLIENTS; i++)
		if (storm->clients[i]->hurt)
			complain(storm, "the device is well, and client %u is answered %d", i, storm->clients[i]->hurt);
	if (storm->sync || storm->checkpoint)
		complain(storm, "the device is well, and syncing fails");
	reactor_group_run(reactor_group_get(sim->group, 0), let_go, storm);
	machine_settle(&storm->machine);
	const char *wrong = accounts_check(sim, storm->rule.source == FAULT_MEMORY);
	if (wrong)
		complain(storm, "%s", wrong);
}

static void end(struct storm *storm)
{
	struct sim *sim = &storm->machine.sim;
	const int stopped = fs_stopped(sim->fs);
	storm->unmount = sim_unmount(sim);
	fault_memory_end();
	if (!storm->unmount != !(stopped || sim->stopped))
		complain(storm, "unmounting says something else than the filesystem");
	fault_state_end(&storm->state);
	sim_destroy(sim);
	if (!storm->unmount)
		note_durable(storm);
}

/* ---- the device is well again ---- */

static uint8_t *image_map(void)
{
	uint8_t *memory = mmap(NULL, STORM_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		sim_fail("no memory for an image");
	return memory;
}

static void power_cut(struct storm *storm, uint8_t *memory)
{
	struct cut_plan plan = {.keep_percent = storm->end == END_CUT_SOME ? 50 : 0, .random = storm->rule.skip, .ended = true};
	plan.entries = record_log_entries(storm->log, &plan.count);
	plan.position = plan.count;
	memcpy(memory, storm->image, STORM_BYTES);
	cut_make(&plan, memory);
}

static void judge_recorded(struct storm *storm)
{
	struct fs_errors errors;
	fs_get_errors(storm->machine.sim.fs, &errors);
	const int stopped = storm->errors.earlier ? 0 : storm->errors.error;
	const bool state = storm->errors.block == FS_STATE_BLOCK_A || storm->errors.block == FS_STATE_BLOCK_B;
	if (!stopped || storm->rule.always || storm->state.removed || state || stopped == -ENODEV)
		return;
	if (!errors.earlier || errors.error != stopped || strcmp(errors.text, storm->errors.text))
		complain(storm, "the error was not recorded: %d %s", errors.error, errors.text);
	storm->recorded++;
}

static MAY_WAIT int look(void *arg)
{
	struct storm *storm = arg;
	for (unsigned i = 0; i < CLIENTS; i++) {
		struct client *client = storm->clients[i];
		const int error = client_look(client, storm->machine.sim.fs, storm->found);
		const char *broken = error ? "files cannot be read" : model_judge(&client->model, storm->found, UINT64_MAX - 1);
		for (unsigned j = 0; broken && storm->only && j < MODEL_DIRS * MODEL_NAMES; j++)
			fprintf(stderr, "client %u: %u/%u is object %u of %" PRIu64 " bytes\n", i, j / MODEL_NAMES, j % MODEL_NAMES,
				storm->found->names.object[j / MODEL_NAMES][j % MODEL_NAMES], storm->found->attr[j / MODEL_NAMES][j % MODEL_NAMES].size);
		if (broken)
			complain(storm, "client %u: %s", i, broken);
	}
	return 0;
}

static void recover(struct storm *storm, uint8_t *memory)
{
	struct sim *sim = &storm->machine.sim;
	if (sim_fsck(memory, STORM_BYTES, true, "before recovery"))
		complain(storm, "fsck finds damage");
	const struct sim_options options = {.owners = storm->owners, .seed = 5, .memory = memory, .size = STORM_BYTES};
	sim_create(sim, &options);
	if (sim_mount(sim, NULL))
		complain(storm, "mount after it: %s", sim->message);
	judge_recorded(storm);
	if (reactor_group_run(reactor_group_get(sim->group, 0), look, storm) || sim_unmount(sim))
		complain(storm, "unmount after it");
	sim_destroy(sim);
	if (sim_fsck(memory, STORM_BYTES, false, "after recovery"))
		complain(storm, "fsck finds damage after recovery");
}

/* ---- */

/* Runs the second batch with the rule. Without one it counts what there is that can fail. */
static void case_run(struct storm *storm)
{
	uint8_t *memory = image_map();
	struct sim *sim = &storm->machine.sim;
	uint64_t before[IO_OP_COUNT];
	memcpy(memory, storm->image, STORM_BYTES);
	clients_copy(storm);
	machine_create(storm, memory, true, true);
	sim->trace = storm->only;
	storm->log = storm->rule.source == FAULT_MEMORY ? NULL : bdev_record_log(sim_bdev(sim, "record"));
	if (storm->log)
		record_log_get(storm->log);
	if (sim_mount(sim, mount_options(storm)))
		sim_fail("mount: %s", sim->message);
	for (unsigned i = 0; i < IO_OP_COUNT; i++)
		before[i] = bdev_error_io_count(sim_bdev(sim, "error"), i);
	fault_arm(&storm->rule, &storm->state, sim);
	operate(storm);
	if (storm->rule.skip == UINT64_MAX && storm->rule.source != FAULT_MEMORY)
		for (unsigned i = 0; i < IO_OP_COUNT; i++)
			storm->counts[i] = bdev_error_io_count(sim_bdev(sim, "error"), i) - before[i];
	else if (storm->rule.skip == UINT64_MAX)
		storm->counts[FAULT_MEMORY] = fault_memory_count();
	judge(storm);
	storm->stopped += storm->errors.error && !storm->errors.earlier;
	storm->hurts += storm->hurt;
	storm->hits += storm->state.hits != 0;
	storm->removed += storm->state.removed;
	go_on(storm);
	end(storm);
	if (storm->log && storm->end != END_RESTART)
		power_cut(storm, memory);
	if (storm->log)
		record_log_put(storm->log);
	recover(storm, memory);
	munmap(memory, STORM_BYTES);
}

static void case_announce(struct storm *storm)
{
	char rule[100];
	fault_rule_text(&storm->rule, rule, sizeof(rule));
	snprintf(storm->text, sizeof(storm->text), "%" PRIu64 "/%s/%s/%u", storm->seed, rule, fault_end_names[storm->end], storm->owners);
	fault_case_begin(storm->text);
}

/* One of all that there are, each source as often as the others. */
static void case_draw(struct storm *storm, uint64_t *random)
{
	static const unsigned sources[] = {IO_READ, IO_WRITE, IO_WRITE, IO_FLUSH, FAULT_MEMORY, IO_UNMAP};
	do {
		storm->rule.source = sources[sim_rand(random) % ARRAY_SIZE(sources)];
		storm->rule.kind = sim_rand(random) % FAULT_KIND_COUNT;
		storm->rule.always = sim_rand(random) % 2;
		storm->end = sim_rand(random) % END_COUNT;
		if (storm->rule.source == FAULT_MEMORY)
			storm->rule.kind = FAULT_NO_MEMORY;
	} while (!storm->counts[storm->rule.source] || !fault_makes_sense(&storm->rule));
	storm->rule.skip = sim_rand(random) % storm->counts[storm->rule.source];
}

/* "1/write/io/once/17/cut/2": without a search, the words say all. */
static void case_parse(struct storm *storm, const char *text)
{
	char source[16], kind[16], often[16], ending[16];
	unsigned long long seed, skip;
	if (sscanf(text, "%llu/%15[^/]/%15[^/]/%15[^/]/%llu/%15[^/]/%u", &seed, source, kind, often, &skip, ending, &storm->owners) != 7)
		sim_fail("--case %s: wanted: what a failed case has printed", text);
	storm->rule = (struct fault_rule){.always = !strcmp(often, "always"), .skip = skip};
	while (storm->rule.source < FAULT_SOURCES - 1 && strcmp(source, fault_source_names[storm->rule.source]))
		storm->rule.source++;
	while (storm->rule.kind < FAULT_KIND_COUNT - 1 && strcmp(kind, fault_kind_names[storm->rule.kind]))
		storm->rule.kind++;
	storm->end = 0;
	while (storm->end < END_COUNT - 1 && strcmp(ending, fault_end_names[storm->end]))
		storm->end++;
	storm->seed = seed;
}

static void seed_run(struct storm *storm)
{
	uint64_t random = storm->seed * 7919;
	const struct fault_rule asked = storm->rule;
	const enum fault_end asked_end = storm->end;
	seed_begin(storm);
	if (storm->only) {
		storm->rule = asked;
		storm->end = asked_end;
		case_announce(storm);
		case_run(storm);
		storm->tried++;
		return;
	}
	for (unsigned i = 0; i < 2; i++) { /* recording takes memory: counted without */
		storm->rule = fault_none;
		storm->rule.source = i ? FAULT_MEMORY : IO_READ;
		storm->end = END_RESTART;
		case_announce(storm);
		case_run(storm);
	}
	for (uint64_t i = 0; i < storm->cases; i++) {
		case_draw(storm, &random);
		case_announce(storm);
		case_run(storm);
		storm->tried++;
	}
	if (!storm->quiet)
		printf("seed %" PRIu64 ": of %" PRIu64 " reads, %" PRIu64 " writes, %" PRIu64 " flushes, %" PRIu64 " unmaps, %" PRIu64
			" allocations\n", storm->seed, storm->counts[IO_READ], storm->counts[IO_WRITE], storm->counts[IO_FLUSH],
			storm->counts[IO_UNMAP], storm->counts[FAULT_MEMORY]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"owners", 1, NULL, 'o'}, {"seed", 1, NULL, 's'}, {"seeds", 1, NULL, 'n'},
		{"cases", 1, NULL, 'k'}, {"case", 1, NULL, 'c'}, {"quiet", 0, NULL, 'q'}, {NULL, 0, NULL, 0}};
	static struct storm storm = {.owners = 1, .seed = 1, .seeds = 1, .cases = 100};
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
		switch (option) {
		case 'o': storm.owners = (unsigned)strtoul(optarg, NULL, 0); break;
		case 's': storm.seed = strtoull(optarg, NULL, 0); break;
		case 'n': storm.seeds = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'k': storm.cases = strtoull(optarg, NULL, 0); break;
		case 'c': case_parse(&storm, storm.only = optarg); break;
		case 'q': storm.quiet = true; break;
		default: return 2;
		}
	fault_program_begin(argv[0]);
	storm.image = image_map();
	storm.found = malloc(sizeof(*storm.found));
	for (unsigned i = 0; i < CLIENTS; i++) {
		storm.before[i] = malloc(sizeof(*storm.before[i]));
		storm.during[i] = calloc(1, sizeof(*storm.during[i]));
		storm.during[i]->buffer = dma_alloc(MODEL_SECTORS * MODEL_SECTOR, 4096);
	}
	for (unsigned i = 0; i < storm.seeds; i++, storm.seed++)
		seed_run(&storm);
	fault_program_end();
	for (unsigned i = 0; i < CLIENTS; i++) {
		client_destroy(storm.during[i]);
		free(storm.during[i]);
		free(storm.before[i]);
	}
	free(storm.found);
	munmap(storm.image, STORM_BYTES);
	printf("%" PRIu64 " cases, %u owners, %u clients at once: %" PRIu64 " hit something, %" PRIu64 " with a client that was answered an error, %"
		PRIu64 " filesystems stopped, %" PRIu64 " of them recorded it and were asked, %" PRIu64 " devices pulled\n", storm.tried,
		storm.owners, CLIENTS, storm.hits, storm.hurts, storm.stopped, storm.recorded, storm.removed);
	return storm.hits ? 0 : 1;
}
