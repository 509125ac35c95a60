/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts after every short sequence of operations: all sequences of one and of two operations of script_ops, each followed
 * by nothing, fsync of the file, fsync of its directory, fdatasync, sync or an O_SYNC write; and a seeded sample of longer ones.
 * Every sequence runs on a simulated filesystem that holds a small set of files, is recorded to the end of its unmount, and cut
 * at every place (crash.h); what is found is judged by the worlds that were taken between the operations (history.h).
 *
 * The filesystem that they meet: plain; with the end of the journal's ring right ahead; full to the last blocks; with discard.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "reactor/log.h"
#include "tests/sim/crash.h"
#include "tests/sim/script.h"

enum situation { SITUATION_PLAIN, SITUATION_WRAP, SITUATION_FULL, SITUATION_DISCARD, SITUATION_COUNT, SITUATION_MIXED };
static const char *const situation_names[] = {"plain", "wrap", "full", "discard", "", "mixed"};

/* The prime has no factor in common with a number of sequences: steps of it visit all of them, once each. */
enum { LENGTH_MAX = 3, SEED = 1, STRIDE = 1000003 };

struct sequences {
	struct crash crash;
	struct script *script;
	struct world *found;
	uint8_t *images[SITUATION_COUNT];
	unsigned length;
	uint64_t first, count, sample, only_sequence, stop_after, progress;
	enum situation wanted, situation;
	const char *program;
	uint64_t number;                /* of the sequence that runs */
	uint64_t run, senseless;        /* sequences; those that make no sense */
	bool usable;                    /* the sequence made sense */
	uint64_t journal_groups, discards;
};

/* ---- a sequence by its number ---- */

static uint64_t step_count(void) { return (uint64_t)script_op_count * SCRIPT_PERSIST_COUNT; }

static uint64_t space(unsigned length)
{
	uint64_t count = 1;
	for (unsigned i = 0; i < length; i++)
		count *= step_count();
	return count;
}

/* The last step comes first, so that neighbours share their beginning. */
static unsigned step_of(uint64_t number, unsigned length, unsigned index)
{
	for (unsigned i = length - 1; i > index; i--)
		number /= step_count();
	return (unsigned)(number % step_count());
}

static void sequence_print(const struct sequences *sequences)
{
	for (unsigned i = 0; i < sequences->length; i++) {
		const unsigned step = step_of(sequences->number, sequences->length, i);
		fprintf(stderr, "%s%s", i ? "; " : "  ", script_ops[step / SCRIPT_PERSIST_COUNT].text);
		if (step % SCRIPT_PERSIST_COUNT)
			fprintf(stderr, ", %s", script_persist_names[step % SCRIPT_PERSIST_COUNT]);
	}
	fprintf(stderr, " (%s)\n", situation_names[sequences->situation]);
}

/* ---- judging ---- */

static MAY_WAIT const char *judge(void *arg, struct fs *fs, uint64_t at)
{
	struct sequences *sequences = arg;
	if (world_take(sequences->found, fs))
		return "what is there cannot be read";
	const struct history *history = script_history(sequences->script);
	const char *broken = history_judge(history, sequences->found, at);
	if (broken && sequences->crash.only_state + 1 == sequences->crash.next_number) {
		world_print(sequences->found, "found");
		history_explain(history, sequences->found);
		for (unsigned i = 0; i <= history->step_count; i++) {
			char title[128];
			snprintf(title, sizeof(title), "after %u steps (the cut is at %" PRIu64 ", step %u is acknowledged at %" PRIu64 ")", i, at,
				i, i ? history->steps[i - 1].acknowledged : 0);
			world_print(history->worlds[i], title);
		}
	}
	return broken;
}

static uint64_t promised(void *arg, uint64_t at)
{
	const struct sequences *sequences = arg;
	return history_promised(script_history(sequences->script), at);
}

static void violated(void *arg, const struct crash_state *state, const char *what)
{
	static const char *const kinds[CRASH_KINDS] = {"whole prefix", "bare minimum", "subset", "torn at 512", "torn at 4096"};
	const struct sequences *sequences = arg;
	if (sequences->crash.only_state == UINT64_MAX ? sequences->crash.stats.violations > 20 :
		sequences->crash.only_state != state->number)
		return;
	fprintf(stderr, "state %" PRIu64 " (place %" PRIu64 ", %s, depth %u): %s\n", state->number, state->at, kinds[state->kind],
		state->depth, what);
	sequence_print(sequences);
	const struct crash_options *options = &sequences->crash.options;
	fprintf(stderr, "  again with: %s --length %u --sequence %" PRIu64 " --situation %s --owners %u --subset-bits %u --samples %u "
		"--tears %u --nest %u --state %" PRIu64 "\n", sequences->program, sequences->length, sequences->number,
		situation_names[sequences->situation], options->owners, options->subset_bits, options->samples, options->tears,
		options->nest_every, state->number);
}

/* ---- the filesystems to begin with ---- */

static MAY_WAIT int set_up(void *arg) { return script_set_up(((struct sequences *)arg)->crash.sim.fs); }

struct fill {
	struct fs *fs;
	uint64_t ino, end;
};

static MAY_WAIT int fill_run(void *arg)
{
	static const struct fs_cred cred = {.privileged = true};
	struct fill *fill = arg;
	for (uint64_t length = MIB(1); length >= FS_BLOCK_SIZE;) {
		const int error = fs_fallocate(fill->fs, fill->ino, FALLOC_FL_KEEP_SIZE, fill->end, length, &cred);
		if (error && error != -ENOSPC)
			return error;
		if (error)
			length /= 2;
		else
			fill->end += length;
	}
	return 0;
}

/* A file takes all that is there, but for a few blocks. */
static MAY_WAIT int fill_up(void *arg)
{
	static const struct fs_cred cred = {.privileged = true};
	struct sequences *sequences = arg;
	struct fs *fs = sequences->crash.sim.fs;
	const struct fs_create create = {.name = {.bytes = "fill", .length = 4}, .mode = S_IFREG | 0600};
	struct fs_entry entry;
	int error = fs_create(fs, FS_ROOT_INODE, &create, &cred, &entry);
	if (error)
		return error;
	struct fill fill = {.fs = fs, .ino = entry.ino};
	error = reactor_call(fs_owner(fs, entry.ino), fill_run, &fill);
	fs_forget(fs, entry.ino, 1);
	return error;
}

static MAY_WAIT int touch(void *arg)
{
	static const struct fs_cred cred = {.privileged = true};
	struct sequences *sequences = arg;
	struct fs *fs = sequences->crash.sim.fs;
	struct fs_attr attr = {.mode = 0755};
	return fs_setattr(fs, FS_ROOT_INODE, &attr, FS_SET_MODE, &cred, &attr);
}

static void mounted(struct sequences *sequences, int (*fn)(void *arg))
{
	struct crash *crash = &sequences->crash;
	const struct fs_mount_options options = {.cache_bytes = MIB(1), .noatime = true};
	if (crash_mount(crash, &options, SEED))
		sim_fail("sequences: mount: %s", crash->sim.message);
	if (fn && reactor_group_run(reactor_group_get(crash->sim.group, 0), fn, sequences))
		sim_fail("sequences: the filesystem to begin with cannot be made");
	if (sim_unmount(&crash->sim))
		sim_fail("sequences: unmount failed");
}

static uint64_t ring_left(const uint8_t *image)
{
	const struct fs_state *states[] = {(const void *)(image + FS_STATE_BLOCK_A * FS_BLOCK_SIZE),
		(const void *)(image + FS_STATE_BLOCK_B * FS_BLOCK_SIZE)};
	const struct fs_super *super = (const void *)(image + FS_SUPER_BLOCK * FS_BLOCK_SIZE);
	const unsigned newer = le64_get(states[1]->generation) > le64_get(states[0]->generation);
	return le64_get(super->journal_blocks) - le64_get(states[newer]->tail_block);
}

static void image_make(struct sequences *sequences, enum situation situation)
{
	enum { RING_LEFT = 5 };
	struct crash *crash = &sequences->crash;
	uint8_t *image = malloc(crash->options.size);
	memset(image, 0xa5, crash->options.size); /* old content everywhere: what is not written shows */
	const struct sim_format format = {.size = crash->options.size, .journal_bytes = FS_JOURNAL_BLOCKS_MIN * FS_BLOCK_SIZE,
		.ag_bytes = MIB(1), .seed = SEED};
	sim_mkfs(image, &format);
	crash_load(crash, image, 0);
	mounted(sequences, set_up);
	if (situation == SITUATION_FULL)
		mounted(sequences, fill_up);
	while (situation == SITUATION_WRAP && ring_left(crash->memory) > RING_LEFT)
		mounted(sequences, touch);
	memcpy(image, crash->memory, crash->options.size);
	if (sim_fsck(image, crash->options.size, false, "to begin with"))
		sim_fail("sequences: the filesystem to begin with is damaged");
	sequences->images[situation] = image;
}

/* ---- one sequence ---- */

static MAY_WAIT int run_steps(void *arg)
{
	struct sequences *sequences = arg;
	struct script *script = sequences->script;
	struct fs *fs = sequences->crash.sim.fs;
	if (script_begin(script, fs, crash_record(&sequences->crash)))
		sim_fail("sequences: what is there cannot be read");
	sequences->usable = true;
	for (unsigned i = 0; i < sequences->length && sequences->usable; i++) {
		const unsigned step = step_of(sequences->number, sequences->length, i);
		sequences->usable = script_step(script, step / SCRIPT_PERSIST_COUNT, step % SCRIPT_PERSIST_COUNT);
	}
	if (sequences->usable) {
		fiber_sleep(12 * NS_PER_MS); /* the commit interval passes */
		script_end(script);          /* what was unlinked is freed */
		fiber_sleep(12 * NS_PER_MS);
	}
	struct fs_status status;
	fs_get_status(fs, &status);
	sequences->discards += status.discards;
	sequences->journal_groups += status.journal_groups;
	return 0;
}

static void sequence_run(struct sequences *sequences, uint64_t number)
{
	static const enum situation mixed[] = {SITUATION_PLAIN, SITUATION_WRAP, SITUATION_PLAIN, SITUATION_FULL, SITUATION_PLAIN,
		SITUATION_DISCARD, SITUATION_PLAIN};
	struct crash *crash = &sequences->crash;
	sequences->number = number;
	sequences->situation = sequences->wanted == SITUATION_MIXED ? mixed[number % ARRAY_SIZE(mixed)] : sequences->wanted;
	if (!sequences->images[sequences->situation])
		image_make(sequences, sequences->situation);
	crash_load(crash, sequences->images[sequences->situation], (uint64_t)sequences->situation << 32);
	const struct fs_mount_options options = {.cache_bytes = MIB(1), .inodes_max = 1024, .commit_ms = 5, .noatime = true,
		.discard = sequences->situation == SITUATION_DISCARD};
	if (crash_mount(crash, &options, SEED))
		sim_fail("sequences: mount: %s", crash->sim.message);
	reactor_group_run(reactor_group_get(crash->sim.group, 0), run_steps, sequences);
	if (sim_unmount(&crash->sim) || crash->sim.stopped)
		sim_fail("sequences: unmount failed");
	if (!sequences->usable) {
		sequences->senseless++;
		return;
	}
	if (sim_fsck(crash->memory, crash->options.size, false, "without any cut")) {
		fprintf(stderr, "sequence %" PRIu64 ": the filesystem is damaged without any cut\n", number);
		sequence_print(sequences);
		crash->stats.violations++;
		return;
	}
	static const struct crash_judge judges = {.judge = judge, .promised = promised, .violated = violated};
	struct crash_judge mine = judges;
	mine.arg = sequences;
	sequences->run++;
	crash_explore(crash, &mine, number);
}

/* ---- main ---- */

static void help(void)
{
	puts("usage: sequences [--length 1|2|3] [--first N] [--count N] [--sample N] [--situation plain|wrap|full|discard|mixed]\n"
		"                 [--owners N] [--subset-bits N] [--samples N] [--tears N] [--nest N] [--stop-after N]\n"
		"                 [--progress N] [--sequence N [--state K]] [--list]\n"
		"Runs sequences of --length operations (all; or --count, or spread evenly --sample of them, from --first on) and cuts the\n"
		"power at every place of each. --subset-bits: so many writes in flight are tried in all subsets, more of them in\n"
		"--samples; --tears: torn states at a place; --nest: of one state in N the recovery is cut, too; --stop-after: that many\n"
		"violations; --progress: figures after every N sequences. Exits with 1 when a promise was broken. --sequence repeats\n"
		"one, --state explains one of its states.");
}

static void list(unsigned length)
{
	printf("%u operations, %d ways to follow each, %" PRIu64 " sequences of length %u\n", script_op_count, SCRIPT_PERSIST_COUNT,
		space(length), length);
	for (unsigned i = 0; i < script_op_count; i++)
		printf("%4u %s\n", i * SCRIPT_PERSIST_COUNT, script_ops[i].text);
	exit(0);
}

static enum situation situation_parse(const char *text)
{
	for (unsigned i = 0; i < ARRAY_SIZE(situation_names); i++)
		if (!strcmp(text, situation_names[i]) && text[0])
			return (enum situation)i;
	fprintf(stderr, "sequences: no such situation: %s\n", text);
	exit(2);
}

static void option_take(struct sequences *sequences, struct crash_options *options, int c)
{
	const uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;
	switch (c) {
	case 'l': sequences->length = (unsigned)value; break;
	case 'f': sequences->first = value; break;
	case 'c': sequences->count = value; break;
	case 'a': sequences->sample = value; break;
	case 'w': options->owners = (unsigned)value; break;
	case 'b': options->subset_bits = (unsigned)value; break;
	case 'm': options->samples = (unsigned)value; break;
	case 't': options->tears = (unsigned)value; break;
	case 'n': options->nest_every = (unsigned)value; break;
	case 'x': sequences->stop_after = value; break;
	case 'q': sequences->only_sequence = value; break;
	case 'k': sequences->crash.only_state = value; break;
	case 'p': sequences->progress = value; break;
	case 'i': sequences->wanted = situation_parse(optarg); break;
	case 'L': list(sequences->length); break;
	default: help(); exit(c == 'h' ? 0 : 2);
	}
}

static void options_parse(struct sequences *sequences, struct crash_options *options, int argc, char **argv)
{
	static const struct option known[] = {{"length", 1, NULL, 'l'}, {"first", 1, NULL, 'f'}, {"count", 1, NULL, 'c'},
		{"sample", 1, NULL, 'a'}, {"owners", 1, NULL, 'w'}, {"subset-bits", 1, NULL, 'b'}, {"samples", 1, NULL, 'm'},
		{"tears", 1, NULL, 't'}, {"nest", 1, NULL, 'n'}, {"stop-after", 1, NULL, 'x'}, {"sequence", 1, NULL, 'q'},
		{"state", 1, NULL, 'k'}, {"situation", 1, NULL, 'i'}, {"progress", 1, NULL, 'p'},
		{"list", 0, NULL, 'L'}, {"help", 0, NULL, 'h'}, {0}};
	for (int c; (c = getopt_long(argc, argv, "h", known, NULL)) != -1;)
		option_take(sequences, options, c);
	if (!sequences->length || sequences->length > LENGTH_MAX || !options->owners || options->owners > 4 ||
		options->subset_bits > 16) {
		fputs("sequences: --length is 1 to 3, --owners 1 to 4, --subset-bits up to 16\n", stderr);
		exit(2);
	}
}

static double seconds(void)
{
	struct timespec now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void print(const struct sequences *sequences, bool all)
{
	const struct crash_stats *stats = &sequences->crash.stats;
	printf("sequences: length %u, %u owners, %s: %" PRIu64 " run, %" PRIu64 " make no sense; %" PRIu64 " groups, %" PRIu64
		" discards; %.1f s of processor time\n", sequences->length, sequences->crash.options.owners,
		situation_names[sequences->wanted], sequences->run, sequences->senseless, sequences->journal_groups, sequences->discards,
		seconds());
	crash_stats_print(stats, all);
	fflush(stdout);
}

static void run_all(struct sequences *sequences)
{
	const uint64_t all = space(sequences->length);
	if (sequences->only_sequence != UINT64_MAX) {
		sequence_run(sequences, sequences->only_sequence);
		return;
	}
	const uint64_t end = MIN(all, sequences->first + (sequences->sample ? sequences->sample : sequences->count));
	for (uint64_t i = sequences->first; i < end && sequences->crash.stats.violations < sequences->stop_after; i++) {
		sequence_run(sequences, sequences->sample ? i * STRIDE % all : i);
		if (sequences->progress && (i + 1) % sequences->progress == 0)
			print(sequences, false);
	}
}

int main(int argc, char **argv)
{
	static struct sequences sequences = {.length = 1, .count = UINT64_MAX / 2, .only_sequence = UINT64_MAX,
		.stop_after = UINT64_MAX, .wanted = SITUATION_MIXED};
	struct crash_options options = {.owners = 1, .size = MIB(5), .subset_bits = 4, .samples = 4, .tears = 1, .nest_every = 64,
		.mount = {.cache_bytes = 512 << 10, .inodes_max = 1024, .noatime = true}};
	sequences.program = argv[0];
	sequences.crash.only_state = UINT64_MAX;
	options_parse(&sequences, &options, argc, argv);
	const uint64_t only_state = sequences.crash.only_state;
	log_set_level(only_state == UINT64_MAX ? LOG_LEVEL_ERROR : LOG_LEVEL_WARN);
	crash_create(&sequences.crash, &options);
	sequences.crash.only_state = only_state;
	sequences.script = script_create();
	sequences.found = world_create();
	run_all(&sequences);
	print(&sequences, true);
	const bool broken = sequences.crash.stats.violations;
	world_destroy(sequences.found);
	script_destroy(sequences.script);
	crash_destroy(&sequences.crash);
	for (unsigned i = 0; i < SITUATION_COUNT; i++)
		free(sequences.images[i]);
	return broken;
}
