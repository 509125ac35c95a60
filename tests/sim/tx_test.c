/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions over several owners: that they are whole after a power cut at any point, that what they reserve comes
 * back, and that a tiny journal and a tiny cache delay but never stop them. The transactions are those of bump.h:
 * headers that are raised together must always be equal.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/journal_internal.h"
#include "reactor/log.h"
#include "tests/sim/bump.h"
#include "tests/sim/cut.h"

enum { SIZE = MIB(14) };

static uint8_t *image_create(void)
{
	uint8_t *memory = calloc(1, SIZE);
	bump_mkfs(memory, SIZE, 3);
	return memory;
}

static void start(struct sim *sim, uint8_t *memory, unsigned owners, uint64_t seed,
	const struct fs_mount_options *mount, bool record)
{
	const struct sim_options options = {.owners = owners, .seed = seed, .memory = memory, .size = SIZE,
		.asynchronous = true, .record = record};
	sim_create(sim, &options);
	if (sim_mount(sim, mount))
		fail_msg("mount: %s", sim->message);
}

static void stop(struct sim *sim, const uint8_t *memory)
{
	assert_int_equal(sim_unmount(sim), 0);
	sim_destroy(sim);
	assert_int_equal(sim_fsck(memory, SIZE, false, "after unmount"), 0);
}

static void check_accounts(struct sim *sim)
{
	const char *wrong = bump_check_accounts(sim);
	if (wrong)
		fail_msg("%s", wrong);
}

struct call {
	struct owner *home;
	const struct bump *bump;
};

static MAY_WAIT int call_run(void *arg)
{
	const struct call *call = arg;
	return bump_run(call->home, call->bump);
}

static int run(struct sim *sim, unsigned home, const struct bump *bump)
{
	struct call call = {.home = sim->fs->owners[home], .bump = bump};
	return reactor_group_run(call.home->reactor, call_run, &call);
}

/* ---- reservations ---- */

static void test_what_a_transaction_reserves_comes_back(void **state)
{
	for (unsigned owners = 1; owners <= 4; owners *= 2) {
		struct sim sim;
		uint8_t *memory = image_create();
		start(&sim, memory, owners, owners, NULL, false);
		for (unsigned home = 0; home < owners; home++)
			for (unsigned ags = 1; ags < 1 << 4; ags++) {
				const struct bump apply = {.ags = ags, .blocks = 8}, give_up = {.ags = ags, .how = BUMP_GIVE_UP},
					fails = {.ags = ags, .how = BUMP_FAIL, .blocks = JOURNAL_TX_BLOCKS_MAX};
				assert_int_equal(run(&sim, home, &apply), 0);
				assert_int_equal(run(&sim, home, &give_up), 0);
				assert_int_equal(run(&sim, home, &fails), -EDOM);
			}
		check_accounts(&sim);
		stop(&sim, memory);
		for (uint32_t ag = 0; ag < 4; ag++)
			assert_int_equal(bump_value(memory, ag), BUMP_FIRST + owners * 8);
		free(memory);
	}
}

static void test_more_blocks_than_reserved_is_an_error(void **state)
{
	struct sim sim;
	uint8_t *memory = image_create();
	start(&sim, memory, 1, 1, NULL, false);
	const struct bump bump = {.ags = 0xff, .blocks = 2};
	log_set_level(LOG_LEVEL_ERROR - 1);
	assert_int_equal(run(&sim, 0, &bump), -EOVERFLOW);
	log_set_level(LOG_LEVEL_ERROR);
	check_accounts(&sim);
	stop(&sim, memory);
	assert_int_equal(bump_value(memory, 0), BUMP_FIRST);
	free(memory);
}

/* ---- no deadlock ---- */

enum { FIBERS = 12, ROUNDS = 12 };

/* Every fiber reserves the maximum; two such reservations fill the journal. With the large cache it is the journal that
 * they wait for, with the small one the pins. */
static void test_tiny_journal_with_the_largest_reservations_goes_on(void **state)
{
	for (uint64_t seed = 1; seed <= 12; seed++) {
		const unsigned owners = 1u << seed % 3;
		const struct fs_mount_options mount = {.cache_bytes = seed % 2 ? MIB(16) : MIB(1)};
		struct bump_fiber *fibers = calloc(FIBERS * owners, sizeof(*fibers));
		struct sim sim;
		uint8_t *memory = image_create();
		start(&sim, memory, owners, seed, &mount, false);
		for (unsigned i = 0; i < FIBERS * owners; i++)
			fibers[i] = (struct bump_fiber){.home = sim.fs->owners[i % owners], .rounds = ROUNDS,
				.bump = {.ags = i % 3 ? 0x3 : 0xf, .blocks = JOURNAL_TX_BLOCKS_MAX,
					.how = i % 5 ? BUMP_APPLY : BUMP_GIVE_UP}};
		bump_fibers_start(&sim, fibers, FIBERS * owners);
		bump_fibers_wait(&sim, fibers, FIBERS * owners, 60 * NS_PER_SEC);
		for (unsigned i = 0; i < FIBERS * owners; i++)
			assert_int_equal(fibers[i].done, ROUNDS);
		check_accounts(&sim);
		stop(&sim, memory);
		assert_int_equal(bump_value(memory, 0), bump_value(memory, 1));
		assert_int_equal(bump_value(memory, 2), bump_value(memory, 3));
		free(memory);
		free(fibers);
	}
}

/* Transactions that hang together and are larger than a group usually is. */
static void test_transactions_that_hang_together_go_into_one_large_group(void **state)
{
	for (uint64_t seed = 1; seed <= 8; seed++) {
		struct bump_fiber fibers[32];
		struct sim sim;
		uint8_t *memory = image_create();
		start(&sim, memory, 4, seed, NULL, false);
		sim.fs->journal->group_bytes_goal = 512;
		for (unsigned i = 0; i < ARRAY_SIZE(fibers); i++)
			fibers[i] = (struct bump_fiber){.home = sim.fs->owners[i % 4], .rounds = 8,
				.bump = {.ags = i % 2 ? 0xff : 0x0f}};
		bump_fibers_start(&sim, fibers, ARRAY_SIZE(fibers));
		bump_fibers_wait(&sim, fibers, ARRAY_SIZE(fibers), 60 * NS_PER_SEC);
		check_accounts(&sim);
		stop(&sim, memory);
		free(memory);
	}
}

/* The cache admits pins of 64 blocks: one large transaction, or many small ones that must not overtake it for ever. */
static void test_large_reservation_is_not_overtaken_for_ever(void **state)
{
	struct bump_fiber fibers[33];
	struct sim sim;
	uint8_t *memory = image_create();
	start(&sim, memory, 1, 5, NULL, false);
	for (unsigned i = 0; i < ARRAY_SIZE(fibers); i++)
		fibers[i] = (struct bump_fiber){.home = sim.fs->owners[0], .rounds = 100, .bump = {.ags = 1, .blocks = 8}};
	struct bump_fiber *large = &fibers[ARRAY_SIZE(fibers) - 1];
	large->rounds = 2;
	/* A cache of the smallest size: see CACHE_BLOCKS_MIN. */
	struct cache_stats stats;
	cache_stats_read(sim.fs->owners[0], &stats);
	large->bump.blocks = MIN((unsigned)stats.limit / 2, (unsigned)JOURNAL_TX_BLOCKS_MAX);
	bump_fibers_start(&sim, fibers, ARRAY_SIZE(fibers));
	bump_fibers_wait(&sim, fibers, ARRAY_SIZE(fibers), 60 * NS_PER_SEC);
	assert_int_equal(large->place, 1);
	check_accounts(&sim);
	stop(&sim, memory);
	free(memory);
}

struct endless {
	struct sim *sim;
	bool done;
	int error;
};

static MAY_WAIT int checkpoint_run(void *arg)
{
	struct endless *endless = arg;
	const uint64_t start_ns = reactor_now_ns();
	endless->error = journal_checkpoint(endless->sim->fs);
	return reactor_now_ns() - start_ns < NS_PER_SEC ? 0 : -ETIMEDOUT;
}

/* A checkpoint that somebody waits for covers what was there; it does not wait for a moment without work. */
static void test_checkpoint_ends_while_transactions_go_on(void **state)
{
	for (unsigned owners = 1; owners <= 4; owners++) {
		struct bump_fiber fibers[24];
		struct sim sim;
		uint8_t *memory = image_create();
		start(&sim, memory, owners, owners, NULL, false);
		for (unsigned i = 0; i < ARRAY_SIZE(fibers); i++)
			fibers[i] = (struct bump_fiber){.home = sim.fs->owners[i % owners], .rounds = UINT32_MAX,
				.bump = {.ags = 0x3}};
		bump_fibers_start(&sim, fibers, ARRAY_SIZE(fibers));
		for (unsigned i = 0; i < 5; i++) {
			struct endless endless = {.sim = &sim};
			assert_int_equal(reactor_group_run(reactor_group_get(sim.group, 0), checkpoint_run, &endless), 0);
			assert_int_equal(endless.error, 0);
		}
		for (unsigned i = 0; i < ARRAY_SIZE(fibers); i++)
			fibers[i].rounds = 0;
		bump_fibers_wait(&sim, fibers, ARRAY_SIZE(fibers), 10 * NS_PER_SEC);
		stop(&sim, memory);
		free(memory);
	}
}

/* ---- power cuts ---- */

struct recording {
	uint8_t *before;
	struct record_log *log;
	const struct record_entry *entries;
	size_t count;
	unsigned owners;
};

static void recording_end(struct recording *recording, struct sim *sim)
{
	assert_int_equal(sim_unmount(sim), 0);
	recording->log = bdev_record_log(sim_bdev(sim, "record"));
	record_log_get(recording->log);
	sim_destroy(sim);
	recording->entries = record_log_entries(recording->log, &recording->count);
}

/* Cuts at @cuts places, mounts what is left, and lets @check look at the image after a clean unmount. */
static void cut_everywhere(const struct recording *recording, size_t cuts, int (*look)(void *sim),
	void (*check)(const uint8_t *image))
{
	static const unsigned keep[] = {100, 0, 50};
	const struct fs_mount_options mount = {.commit_ms = 1};
	uint8_t *image = malloc(SIZE);
	for (size_t i = 0; i < cuts; i++) {
		struct sim sim;
		const struct cut_plan plan = {.entries = recording->entries, .count = recording->count,
			.position = (i + 1) * recording->count / cuts, .keep_percent = keep[i % ARRAY_SIZE(keep)], .random = i};
		memcpy(image, recording->before, SIZE);
		cut_make(&plan, image);
		start(&sim, image, recording->owners, i, &mount, false);
		if (look && reactor_group_run(reactor_group_get(sim.group, 0), look, &sim))
			fail_msg("cut at %zu, %u %% kept: promise broken", plan.position, plan.keep_percent);
		stop(&sim, image);
		if (check)
			check(image);
	}
	free(image);
	record_log_put(recording->log);
	free(recording->before);
}

static void pairs_are_equal(const uint8_t *image)
{
	assert_int_equal(bump_value(image, 0), bump_value(image, 1));
	assert_int_equal(bump_value(image, 2), bump_value(image, 3));
}

static void test_transactions_of_several_owners_are_whole_after_a_cut(void **state)
{
	for (unsigned owners = 2; owners <= 4; owners *= 2) {
		const struct fs_mount_options mount = {.commit_ms = 1};
		struct recording recording = {.owners = owners, .before = image_create()};
		uint8_t *memory = malloc(SIZE);
		memcpy(memory, recording.before, SIZE);
		struct bump_fiber fibers[16];
		struct sim sim;
		start(&sim, memory, owners, owners, &mount, true);
		for (unsigned i = 0; i < ARRAY_SIZE(fibers); i++)
			fibers[i] = (struct bump_fiber){.home = sim.fs->owners[i % owners], .rounds = 60,
				.bump = {.ags = i % 3 == 0 ? 0x3 : i % 3 == 1 ? 0xc : 0xf, .blocks = 16}};
		bump_fibers_start(&sim, fibers, ARRAY_SIZE(fibers));
		bump_fibers_wait(&sim, fibers, ARRAY_SIZE(fibers), 60 * NS_PER_SEC);
		recording_end(&recording, &sim);
		free(memory);
		cut_everywhere(&recording, 120, NULL, pairs_are_equal);
	}
}

/* ---- blocks that are freed while a checkpoint runs ---- */

enum { FILES = 4, VALUE_BYTES = 3000 };

static const struct fs_name value_name = {.bytes = "user.value", .length = 10};

static struct fs_name file_name(char *text, unsigned number)
{
	snprintf(text, 16, "file%u", number);
	return (struct fs_name){.bytes = text, .length = (unsigned)strlen(text)};
}

struct work {
	struct fs *fs;
	struct fiber_start_remote start[2];
	unsigned rounds;
	bool values_done, checkpoints_done;
	int error;
};

/* Values in blocks of their own come and go. */
static MAY_WAIT void change_values(void *arg)
{
	struct work *work = arg;
	const struct fs_cred cred = {.privileged = true};
	struct fs_entry entry[FILES];
	char text[16];
	uint8_t *value = malloc(VALUE_BYTES);
	for (unsigned i = 0; i < FILES && !work->error; i++) {
		const struct fs_create create = {.name = file_name(text, i), .mode = S_IFREG | 0600};
		work->error = fs_create(work->fs, FS_ROOT_INODE, &create, &cred, &entry[i]);
	}
	for (unsigned i = 0; i < work->rounds && !work->error; i++) {
		const uint64_t ino = entry[i % FILES].ino;
		memset(value, 'a' + (int)(i % 26), VALUE_BYTES);
		work->error = i / FILES % 2 ? fs_xattr_remove(work->fs, ino, value_name)
			: fs_xattr_set(work->fs, ino, value_name, value, VALUE_BYTES, 0, &cred);
		fiber_sleep(100 * NS_PER_US);
	}
	free(value);
	work->values_done = true;
}

static MAY_WAIT void checkpoint_all_the_time(void *arg)
{
	struct work *work = arg;
	while (!work->values_done && !work->error) {
		journal_want_checkpoint(work->fs->owners[0]);
		fiber_sleep(300 * NS_PER_US);
	}
	work->checkpoints_done = true;
}

static MAY_WAIT int wait_for_work(void *arg)
{
	const struct work *work = arg;
	while (!work->values_done || !work->checkpoints_done)
		fiber_sleep(NS_PER_MS);
	return work->error;
}

static MAY_WAIT int values_are_whole(void *arg)
{
	struct fs *fs = ((struct sim *)arg)->fs;
	uint8_t *value = malloc(VALUE_BYTES);
	int error = 0;
	for (unsigned i = 0; i < FILES && !error; i++) {
		struct fs_entry entry;
		char text[16];
		uint32_t length;
		if (fs_lookup(fs, FS_ROOT_INODE, file_name(text, i), &entry))
			continue;
		error = fs_xattr_get(fs, entry.ino, value_name, value, VALUE_BYTES, &length);
		fs_forget(fs, entry.ino, 1);
		if (error == -ENODATA) {
			error = 0;
			continue;
		}
		for (unsigned j = 0; j < VALUE_BYTES && !error; j++)
			if (length != VALUE_BYTES || value[j] != value[0])
				error = -EDOM;
	}
	free(value);
	return error;
}

static void test_freed_blocks_are_whole_until_their_freeing_is_durable(void **state)
{
	for (uint64_t seed = 1; seed <= 2; seed++) {
		const struct fs_mount_options mount = {.commit_ms = 50};
		struct recording recording = {.owners = 1, .before = image_create()};
		uint8_t *memory = malloc(SIZE);
		memcpy(memory, recording.before, SIZE);
		struct sim sim;
		start(&sim, memory, 1, seed, &mount, true);
		struct work work = {.fs = sim.fs, .rounds = 100};
		struct reactor *reactor = reactor_group_get(sim.group, 0);
		work.start[0].start = (struct fiber_start){.fn = change_values, .arg = &work, .name = "values"};
		work.start[1].start = (struct fiber_start){.fn = checkpoint_all_the_time, .arg = &work, .name = "checkpoints"};
		fiber_start_on(reactor, &work.start[0]);
		fiber_start_on(reactor, &work.start[1]);
		assert_int_equal(reactor_group_run(reactor, wait_for_work, &work), 0);
		recording_end(&recording, &sim);
		free(memory);
		cut_everywhere(&recording, 150, values_are_whole, NULL);
	}
}

int main(void)
{
	log_set_level(LOG_LEVEL_ERROR);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_a_transaction_reserves_comes_back),
		cmocka_unit_test(test_more_blocks_than_reserved_is_an_error),
		cmocka_unit_test(test_tiny_journal_with_the_largest_reservations_goes_on),
		cmocka_unit_test(test_transactions_that_hang_together_go_into_one_large_group),
		cmocka_unit_test(test_large_reservation_is_not_overtaken_for_ever),
		cmocka_unit_test(test_checkpoint_ends_while_transactions_go_on),
		cmocka_unit_test(test_transactions_of_several_owners_are_whole_after_a_cut),
		cmocka_unit_test(test_freed_blocks_are_whole_until_their_freeing_is_durable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
