/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Power cuts by the thousand. A machine that stays: one simulated group, one memory, devices over it; a state is made by
 * changing the blocks in which it differs, and taken back in the same way, so it costs what it touches.
 *
 * A cut at a place of a device log leaves every write that a completed FLUSH (sent after the write completed) or FUA made
 * durable; of the others any subset, whole or torn at 512 bytes or 4 KiB. Each state is looked at: fsck with its own replay,
 * mount (our replay), the caller's judge, unmount, fsck again, which may find no orphan either. Of a sample the recovery is
 * cut in turn, at every write of it, and of a sample of those the second recovery, too; while the state block of a recovery is
 * not written, the next one must write the same blocks home, byte for byte: replayed twice is replayed once.
 *
 * States are told apart by a hash of the whole image: what stood before and every sector that differs from it.
 */
#ifndef LANEFS_TESTS_SIM_CRASH_H
#define LANEFS_TESTS_SIM_CRASH_H

#include "tests/sim/sim.h"

enum { CRASH_DEPTH = 3 };               /* the run, its recovery, the recovery of that */

enum crash_kind { CRASH_WHOLE, CRASH_BARE, CRASH_SUBSET, CRASH_TORN_512, CRASH_TORN_4096, CRASH_KINDS };

struct crash_state {
	uint64_t number;                /* within this exploration, recoveries included */
	uint64_t at;                    /* place in the log of the run */
	enum crash_kind kind;
	unsigned depth;                 /* 0: of the run; 1: of a recovery; 2: of the recovery after that */
};

struct crash_judge {
	/* Fiber of reactor 0; @fs is mounted after a cut at @at. NULL, or a static text that says what was broken. */
	const char *(*judge)(void *arg, struct fs *fs, uint64_t at);
	/* Differs when what is promised at @at differs: one image is judged once for one promise. */
	uint64_t (*promised)(void *arg, uint64_t at);
	void (*violated)(void *arg, const struct crash_state *state, const char *what);
	void *arg;
};

struct crash_options {
	unsigned owners;
	uint64_t size;                  /* of the device */
	unsigned subset_bits;           /* up to so many pending writes: all subsets */
	unsigned samples, tears;        /* else so many subsets; torn ones, of each kind */
	unsigned nest_every;            /* of one state in so many the recovery is cut; 0: never */
	unsigned places_max;            /* places of a log that are looked at, spread evenly; 0: all */
	struct fs_mount_options mount;  /* of recoveries */
};

struct crash_count {
	uint64_t tried, distinct;       /* states that were looked at; different images among them */
};
struct crash_stats {
	struct crash_count kinds[CRASH_KINDS], depths[CRASH_DEPTH];
	uint64_t repeated;              /* states that came up again with the same image and promise: not looked at */
	uint64_t replays_twice;         /* recoveries compared with the one that was cut */
	uint64_t orphans;               /* states that held unfinished unlinks and truncates */
	uint64_t places, violations;
};

struct hash_set {
	uint64_t *slots;
	uint64_t count, capacity;
};
/* True: it was new. */
bool hash_set_add(struct hash_set *set, uint64_t hash);
void hash_set_clear(struct hash_set *set);

struct crash_level {
	uint8_t *base;                  /* what is durable */
	uint64_t base_hash;
	const char *record;             /* device that records the recovery of this level's states */
};
struct crash {
	struct crash_options options;
	struct sim sim;
	uint8_t *memory;                /* the device */
	struct crash_level levels[CRASH_DEPTH];
	uint64_t *touched;              /* bit per block: memory differs from the base of this level */
	struct hash_set images;         /* all that were ever seen */
	struct hash_set judged;         /* image and promise, this exploration */
	struct crash_stats stats;
	const struct crash_judge *judge;
	uint64_t random, next_number, only_state; /* only_state: UINT64_MAX, or the one that is looked at */
	uint64_t at;                    /* place in the log of the run */
	/* of the recovery just made: */
	const char *broken;
};

void crash_create(struct crash *crash, const struct crash_options *options);
void crash_destroy(struct crash *crash);
/* The device holds @image (options.size bytes), and so does the base; @hash tells images apart. */
void crash_load(struct crash *crash, const uint8_t *image, uint64_t hash);
/* Mounts the device for a run that is recorded. Everything from here on is a function of @seed. */
int crash_mount(struct crash *crash, const struct fs_mount_options *options, uint64_t seed);
struct bdev *crash_record(struct crash *crash);
/* The log of the run since crash_mount. */
const struct record_entry *crash_entries(struct crash *crash, size_t *count);
/* Explores the log of a run that began with what crash_load gave; the filesystem is unmounted. Afterwards the memory is
 * undefined: crash_load again. */
void crash_explore(struct crash *crash, const struct crash_judge *judge, uint64_t seed);
/* @all: more than the sums. */
void crash_stats_print(const struct crash_stats *stats, bool all);

#endif
