/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/crash.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "tests/sim/crash_image.h"

enum { PENDING_MAX = 512 };

/* ---- the machine ---- */

static const char *const record_names[CRASH_DEPTH] = {"again", "again2", "again3"};

static MAY_WAIT int create_devices(void *arg)
{
	struct crash *crash = arg;
	const struct bdev_ram_options late = {.size_bytes = crash->options.size, .memory = crash->memory, .volatile_cache = true,
		.asynchronous = true, .seed = 1, .delay_us_max = 200};
	int error = bdev_ram_create(crash->sim.registry, "late", &late);
	if (!error)
		error = bdev_record_create(crash->sim.registry, "record", "late");
	for (unsigned i = 0; i < CRASH_DEPTH && !error; i++)
		error = bdev_record_create(crash->sim.registry, record_names[i], "ram");
	return error;
}

static MAY_WAIT int remove_devices(void *arg)
{
	struct crash *crash = arg;
	int error = bdev_remove(crash->sim.registry, "record", NS_PER_SEC);
	if (!error)
		error = bdev_remove(crash->sim.registry, "late", NS_PER_SEC);
	for (unsigned i = 0; i < CRASH_DEPTH && !error; i++)
		error = bdev_remove(crash->sim.registry, record_names[i], NS_PER_SEC);
	return error;
}

static uint8_t *image_map(uint64_t size)
{
	uint8_t *image = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (image == MAP_FAILED)
		sim_fail("crash: no memory for an image");
	return image;
}

void crash_create(struct crash *crash, const struct crash_options *options)
{
	*crash = (struct crash){.options = *options, .only_state = UINT64_MAX};
	crash->memory = image_map(options->size);
	for (unsigned i = 0; i < CRASH_DEPTH; i++)
		crash->levels[i] = (struct crash_level){.base = image_map(options->size), .record = record_names[i]};
	crash->touched = calloc(div_round_up(options->size / FS_BLOCK_SIZE, 64), sizeof(crash->touched[0]));
	const struct sim_options sim = {.owners = options->owners, .seed = 1, .memory = crash->memory, .size = options->size};
	sim_create(&crash->sim, &sim);
	crash->sim.recording = true;
	if (!crash->touched || reactor_group_run(reactor_group_get(crash->sim.group, 0), create_devices, crash))
		sim_fail("crash: cannot create the devices");
}

void crash_destroy(struct crash *crash)
{
	if (reactor_group_run(reactor_group_get(crash->sim.group, 0), remove_devices, crash))
		sim_fail("crash: devices do not go away");
	crash->sim.recording = false;
	sim_destroy(&crash->sim);
	munmap(crash->memory, crash->options.size);
	for (unsigned i = 0; i < CRASH_DEPTH; i++)
		munmap(crash->levels[i].base, crash->options.size);
	free(crash->touched);
	free(crash->images.slots);
	free(crash->judged.slots);
}

void crash_load(struct crash *crash, const uint8_t *image, uint64_t hash)
{
	memcpy(crash->levels[0].base, image, crash->options.size);
	memcpy(crash->memory, image, crash->options.size);
	memset(crash->touched, 0, div_round_up(crash->options.size / FS_BLOCK_SIZE, 64) * sizeof(crash->touched[0]));
	crash->levels[0].base_hash = hash;
}

struct bdev *crash_record(struct crash *crash) { return sim_bdev(&crash->sim, "record"); }

static int mount_on(struct crash *crash, const char *device, const struct fs_mount_options *options, uint64_t seed)
{
	while (reactor_group_sim_step(crash->sim.group)) /* the last ends of what ran before */
		;
	reactor_group_sim_restart(crash->sim.group, seed);
	bdev_record_clear(sim_bdev(&crash->sim, device));
	crash->sim.device = device;
	return sim_mount(&crash->sim, options);
}

int crash_mount(struct crash *crash, const struct fs_mount_options *options, uint64_t seed)
{
	return mount_on(crash, "record", options, seed);
}

const struct record_entry *crash_entries(struct crash *crash, size_t *count)
{
	return bdev_record_entries(crash_record(crash), count);
}

/* ---- one state ---- */

/* A log at one depth, while its states are made. */
struct log {
	struct crash *crash;
	unsigned depth;
	const struct record_entry *entries;
	size_t count;
	uint64_t *durable;              /* when each entry became so */
	bool *written;                  /* the entry is in the base */
	size_t *pending;                /* changes that a cut here may lose; room for PENDING_MAX */
	unsigned pending_count;
	size_t state_block;             /* of a recovery: the first entry that moves the tail; count: none */
	size_t position;                /* entries that had been submitted */
};

static void explore_log(struct crash *crash, unsigned depth, const struct record_entry *entries, size_t count);

static MAY_WAIT int judge_run(void *arg)
{
	struct crash *crash = arg;
	crash->broken = crash->judge->judge(crash->judge->arg, crash->sim.fs, crash->at);
	return 0;
}

static void violated(struct crash *crash, const struct crash_state *state, const char *what)
{
	crash->stats.violations++;
	crash->judge->violated(crash->judge->arg, state, what);
}

static bool same_writes(const struct record_entry *a, size_t a_count, const struct record_entry *b, size_t b_count)
{
	if (a_count != b_count)
		return false;
	for (size_t i = 0; i < a_count; i++)
		if (a[i].kind != b[i].kind || a[i].offset != b[i].offset || a[i].length != b[i].length ||
			(a[i].data && memcmp(a[i].data, b[i].data, a[i].length)))
			return false;
	return true;
}

static bool is_state_block(const struct record_entry *entry)
{
	return entry->kind == RECORD_WRITE && (entry->offset >> FS_BLOCK_SHIFT == FS_STATE_BLOCK_A ||
		entry->offset >> FS_BLOCK_SHIFT == FS_STATE_BLOCK_B);
}

static size_t find_state_block(const struct record_entry *entries, size_t count)
{
	size_t index = 0;
	while (index < count && !is_state_block(&entries[index]))
		index++;
	return index;
}

/* The recovery of a recovery that was cut before it moved the tail writes what that one wrote. */
static void compare_replays(const struct log *log, const struct crash_state *state, const struct record_entry *entries,
	size_t count)
{
	struct crash *crash = log->crash;
	if (!log->depth || log->position > log->state_block)
		return;
	crash->stats.replays_twice++;
	if (!same_writes(log->entries, log->state_block, entries, find_state_block(entries, count)))
		violated(crash, state, "a second replay does not write what the first one wrote");
}

static void check(struct crash *crash, const struct crash_state *state, bool replay, const char *what)
{
	struct fsck_result result;
	if (sim_fsck_result(crash->memory, crash->options.size, replay, crash->only_state == state->number ? "fsck" : NULL, &result))
		violated(crash, state, what);
	if (replay)
		crash->stats.orphans += result.orphans != 0;
	else if (result.orphans)
		violated(crash, state, "unlinked files or truncates are unfinished after recovery and unmount");
}

/* Mounts the memory as it stands, judges, unmounts. The log of that stays until this depth's next recovery. */
static const struct record_entry *recover(struct crash *crash, const struct crash_state *state, size_t *count)
{
	const char *record = crash->levels[state->depth].record;
	const char *broken = NULL;
	if (mount_on(crash, record, &crash->options.mount, crash->random)) {
		broken = "mount failed";
		if (crash->only_state == state->number)
			fprintf(stderr, "  %s\n", crash->sim.message);
	} else {
		reactor_group_run(reactor_group_get(crash->sim.group, 0), judge_run, crash);
		broken = crash->broken;
		if (sim_unmount(&crash->sim) && !broken)
			broken = "unmount failed";
	}
	if (broken)
		violated(crash, state, broken);
	const struct record_entry *entries = bdev_record_entries(sim_bdev(&crash->sim, record), count);
	for (size_t i = 0; i < *count; i++)
		crash_touch(crash, &entries[i]);
	return entries;
}

/* The memory holds the state; afterwards it is the base again. */
static void look(struct log *log, enum crash_kind kind, bool nest)
{
	struct crash *crash = log->crash;
	const unsigned depth = log->depth;
	const struct crash_state state = {.number = crash->next_number++, .at = crash->at, .kind = kind, .depth = depth};
	const uint64_t hash = crash_memory_hash(crash, depth);
	const uint64_t judged = hash ^ (crash->judge->promised(crash->judge->arg, crash->at) + 1) * 0x9e3779b97f4a7c15ull ^ depth;
	if (!hash_set_add(&crash->judged, judged)) {
		crash->stats.repeated++;
		crash_restore(crash, depth);
		return;
	}
	const bool fresh = hash_set_add(&crash->images, hash);
	crash->stats.kinds[kind].tried++;
	crash->stats.depths[depth].tried++;
	crash->stats.kinds[kind].distinct += fresh;
	crash->stats.depths[depth].distinct += fresh;
	nest = nest && depth + 1 < CRASH_DEPTH;
	if (nest)
		crash_descend(crash, depth, hash);
	check(crash, &state, true, "fsck finds damage after the cut");
	size_t count;
	const struct record_entry *entries = recover(crash, &state, &count);
	check(crash, &state, false, "fsck finds damage after the recovery");
	compare_replays(log, &state, entries, count);
	if (nest) {
		memcpy(crash->memory, crash->levels[depth + 1].base, crash->options.size);
		memset(crash->touched, 0, div_round_up(crash->options.size / FS_BLOCK_SIZE, 64) * sizeof(crash->touched[0]));
		explore_log(crash, depth + 1, entries, count);
		memcpy(crash->memory, crash->levels[depth].base, crash->options.size);
		memset(crash->touched, 0, div_round_up(crash->options.size / FS_BLOCK_SIZE, 64) * sizeof(crash->touched[0]));
	} else {
		crash_restore(crash, depth);
	}
}

/* ---- the states of a place ---- */

static void make(struct log *log, enum crash_kind kind, uint64_t chosen)
{
	struct crash *crash = log->crash;
	const enum crash_tear tear = kind == CRASH_TORN_512 ? CRASH_TEAR_512 : CRASH_TEAR_4096;
	for (unsigned i = 0; i < log->pending_count; i++) {
		const struct record_entry *entry = &log->entries[log->pending[i]];
		const bool torn = kind >= CRASH_TORN_512 && (i + 1 == log->pending_count || sim_rand(&crash->random) % 4 == 0);
		if (!torn && (kind == CRASH_BARE || (kind != CRASH_WHOLE && !(chosen >> i % 64 & 1))))
			continue;
		crash_apply(crash->memory, entry, torn ? tear : CRASH_UNTORN, &crash->random);
		crash_touch(crash, entry);
	}
}

static void try_state(struct log *log, enum crash_kind kind, uint64_t chosen)
{
	struct crash *crash = log->crash;
	const unsigned every = crash->options.nest_every;
	make(log, kind, chosen);
	look(log, kind, every && sim_rand(&crash->random) % every == 0);
}

static void explore_place(struct log *log)
{
	const struct crash_options *options = &log->crash->options;
	const unsigned pending = log->pending_count;
	log->crash->stats.places++;
	try_state(log, CRASH_WHOLE, 0);
	if (!pending)
		return;
	try_state(log, CRASH_BARE, 0);
	if (pending <= options->subset_bits)
		for (uint64_t chosen = 1; chosen + 1 < 1ull << pending; chosen++)
			try_state(log, CRASH_SUBSET, chosen);
	else
		for (unsigned i = 0; i < options->samples; i++)
			try_state(log, CRASH_SUBSET, sim_rand(&log->crash->random));
	for (unsigned i = 0; i < options->tears; i++) {
		try_state(log, CRASH_TORN_512, sim_rand(&log->crash->random));
		try_state(log, CRASH_TORN_4096, sim_rand(&log->crash->random));
	}
}

/* Brings base and memory up to the place, and lists what a cut there may lose. */
static void advance(struct log *log, uint64_t at)
{
	struct crash *crash = log->crash;
	struct crash_level *level = &crash->levels[log->depth];
	log->pending_count = 0;
	for (size_t i = 0; i < log->position; i++) {
		const struct record_entry *entry = &log->entries[i];
		if (log->written[i] || !crash_is_change(entry))
			continue;
		if (log->durable[i] > at) {
			if (log->pending_count == PENDING_MAX)
				sim_fail("crash: more writes in flight than are foreseen");
			log->pending[log->pending_count++] = i;
			continue;
		}
		level->base_hash -= crash_hash(level->base, entry);
		crash_apply(level->base, entry, CRASH_UNTORN, NULL);
		crash_apply(crash->memory, entry, CRASH_UNTORN, NULL);
		level->base_hash += crash_hash(level->base, entry);
		log->written[i] = true;
	}
}

static void explore_log(struct crash *crash, unsigned depth, const struct record_entry *entries, size_t count)
{
	struct log log = {.crash = crash, .depth = depth, .entries = entries, .count = count};
	log.durable = malloc((count + 1) * sizeof(log.durable[0]));
	log.written = calloc(count + 1, sizeof(log.written[0]));
	log.pending = malloc(PENDING_MAX * sizeof(log.pending[0]));
	for (size_t i = 0; i < count; i++)
		log.durable[i] = crash_durable_at(entries, count, i);
	log.state_block = depth ? find_state_block(entries, count) : count;
	const uint64_t at = crash->at;
	const size_t places = crash->options.places_max && !depth ? MIN((size_t)crash->options.places_max, count) : count;
	for (size_t i = 1; i <= places && count; i++) {
		log.position = i * count / places;
		const uint64_t here = entries[log.position - 1].submitted;
		crash->at = depth ? at : here;
		advance(&log, here);
		explore_place(&log);
	}
	crash->at = at;
	free(log.durable);
	free(log.written);
	free(log.pending);
}

void crash_explore(struct crash *crash, const struct crash_judge *judge, uint64_t seed)
{
	size_t count;
	const struct record_entry *entries = crash_entries(crash, &count);
	crash->judge = judge;
	crash->random = seed;
	crash->next_number = 0;
	hash_set_clear(&crash->judged);
	for (size_t i = 0; i < count; i++)
		crash_touch(crash, &entries[i]);
	crash_restore(crash, 0);
	explore_log(crash, 0, entries, count);
}

/* ---- figures ---- */

void crash_stats_print(const struct crash_stats *stats, bool all)
{
	static const char *const kinds[CRASH_KINDS] = {"whole prefix", "bare minimum", "subset", "torn at 512", "torn at 4096"};
	static const char *const depths[CRASH_DEPTH] = {"of the run", "of its recovery", "of the second recovery"};
	uint64_t tried = 0, distinct = 0;
	for (unsigned i = 0; i < CRASH_KINDS; i++) {
		if (all)
			printf("  %-24s %10" PRIu64 " tried %10" PRIu64 " distinct\n", kinds[i], stats->kinds[i].tried, stats->kinds[i].distinct);
		tried += stats->kinds[i].tried;
		distinct += stats->kinds[i].distinct;
	}
	for (unsigned i = 0; i < CRASH_DEPTH && all; i++)
		printf("  cut %-20s %10" PRIu64 " tried %10" PRIu64 " distinct\n", depths[i], stats->depths[i].tried,
			stats->depths[i].distinct);
	if (all)
		printf("  %" PRIu64 " places; %" PRIu64 " states came up again, same image and same promise; %" PRIu64 " had orphans; %" PRIu64
		" second replays compared with the first\n", stats->places, stats->repeated, stats->orphans, stats->replays_twice);
	printf("states: %" PRIu64 " tried, %" PRIu64 " distinct, %" PRIu64 " violations\n", tried, distinct, stats->violations);
}
