/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fault sweeps: every read, every write and every FLUSH of a mount with replay, a small workload with syncs, a
 * checkpoint and an unmount fails once, fails after it was done, fails from then on, or hangs until the device is pulled
 * out. Whatever fails: nothing hangs (the simulation knows), no failed write or FLUSH passes unnoticed, and when the
 * device is well again the filesystem can be replayed, is clean, and has all that was acknowledged.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/journal.h"
#include "reactor/log.h"
#include "tests/sim/bump.h"
#include "tests/sim/calls.h"

#define ROOT FS_ROOT_INODE
enum { SIZE = MIB(10), FILES = 6, BYTES = 9000, VALUE_BYTES = 3000 };

/* ---- the workload, and what it promised ---- */

struct promise {
	bool files[FILES];              /* /dir<i % 2>/<prefix><i> is there with its content */
	bool all;                       /* and what `change` did */
};

struct work {
	struct machine machine;
	char prefix;
	struct promise promise;
	uint64_t dirs[2], inos[FILES];
	int error;                      /* first one */
};

static uint8_t pattern_byte(char prefix, unsigned number, unsigned at)
{
	return (uint8_t)(prefix + number * 31 + at / 7);
}

static void fill_pattern(uint8_t *buffer, char prefix, unsigned number, unsigned length)
{
	for (unsigned i = 0; i < length; i++)
		buffer[i] = pattern_byte(prefix, number, i);
}

static bool ok(struct work *work, int error)
{
	if (error && !work->error)
		work->error = error;
	return !error;
}

static const char *name_of(char text[16], char prefix, unsigned number)
{
	snprintf(text, 16, "%c%u", prefix, number);
	return text;
}

static bool find_dirs(struct work *work)
{
	struct fs_entry entry;
	for (unsigned i = 0; i < 2; i++) {
		int error = call_lookup(&work->machine, ROOT, i ? "dir1" : "dir0", &entry);
		if (error == -ENOENT)
			error = call_create(&work->machine, ROOT, i ? "dir1" : "dir0", S_IFDIR | 0700, &entry);
		if (!ok(work, error))
			return false;
		work->dirs[i] = entry.ino;
	}
	return true;
}

static void write_file(struct work *work, unsigned number)
{
	struct machine *machine = &work->machine;
	uint8_t *buffer = malloc(BYTES);
	struct fs_entry entry;
	char text[16];
	fill_pattern(buffer, work->prefix, number, BYTES);
	name_of(text, work->prefix, number);
	if (ok(work, call_create(machine, work->dirs[number % 2], text, S_IFREG | 0600, &entry))) {
		work->inos[number] = entry.ino;
		work->promise.files[number] = ok(work, call_write(machine, entry.ino, buffer, 0, BYTES)) &&
			ok(work, call_fsync(machine, entry.ino, false));
		call_forget(machine, entry.ino, 1);
	}
	free(buffer);
}

/* A rename, a link, an unlink, a truncate and a large xattr, made durable together. */
static void change(struct work *work)
{
	struct machine *machine = &work->machine;
	uint8_t *value = malloc(VALUE_BYTES);
	struct fs_entry entry, other;
	const char prefix = work->prefix;
	char text[16], moved[16] = {prefix, 'm', 0}, linked[16] = {prefix, 'l', 0}, gone[16] = {prefix, 'x', 0};
	fill_pattern(value, prefix, 99, VALUE_BYTES);
	bool good = ok(work, call_create(machine, work->dirs[0], name_of(text, prefix, 50), S_IFREG | 0600, &entry));
	if (good) {
		good = ok(work, call_setxattr(machine, entry.ino, "user.large", value, VALUE_BYTES)) &&
			ok(work, call_link(machine, work->dirs[1], linked, entry.ino, &other)) &&
			ok(work, call_rename(machine, work->dirs[0], text, work->dirs[1], moved, 0));
		call_forget(machine, entry.ino, 1);
	}
	if (good && (good = ok(work, call_create(machine, work->dirs[0], gone, S_IFREG | 0600, &entry)))) {
		good = ok(work, call_write(machine, entry.ino, value, 100000, VALUE_BYTES)) &&
			ok(work, call_truncate(machine, entry.ino, 1)) && ok(work, call_unlink(machine, work->dirs[0], gone));
		call_forget(machine, entry.ino, 1);
	}
	if (ok(work, call_sync(machine)))
		work->promise.all = good;
	free(value);
}

static MAY_WAIT int checkpoint(void *arg) { return journal_checkpoint(arg); }

static void work_run(struct work *work)
{
	if (!find_dirs(work))
		return;
	for (unsigned i = 0; i < FILES; i++)
		write_file(work, i);
	change(work);
	ok(work, sim_on(&work->machine.sim, ROOT, checkpoint, work->machine.sim.fs));
}

/* ---- looking at it again ---- */

static void expect_file(struct machine *machine, uint64_t directory, const char *name, char prefix, unsigned number)
{
	static uint8_t buffer[BYTES + 1];
	struct fs_entry entry;
	uint32_t length;
	if (call_lookup(machine, directory, name, &entry))
		fail_msg("%s was synced and is gone", name);
	assert_int_equal(call_read(machine, entry.ino, buffer, 0, sizeof(buffer), &length), 0);
	assert_int_equal(length, BYTES);
	for (unsigned i = 0; i < BYTES; i++)
		assert_int_equal(buffer[i], pattern_byte(prefix, number, i));
	call_forget(machine, entry.ino, 1);
}

static void expect_promise(struct machine *machine, char prefix, const struct promise *promise)
{
	static uint8_t value[VALUE_BYTES];
	struct fs_entry entry, dirs[2];
	char text[16], moved[16] = {prefix, 'm', 0}, linked[16] = {prefix, 'l', 0}, gone[16] = {prefix, 'x', 0};
	bool any = promise->all;
	for (unsigned i = 0; i < FILES; i++)
		any |= promise->files[i];
	if (!any)
		return;
	assert_int_equal(call_lookup(machine, ROOT, "dir0", &dirs[0]), 0);
	assert_int_equal(call_lookup(machine, ROOT, "dir1", &dirs[1]), 0);
	for (unsigned i = 0; i < FILES; i++)
		if (promise->files[i])
			expect_file(machine, dirs[i % 2].ino, name_of(text, prefix, i), prefix, i);
	if (promise->all) {
		uint32_t length;
		assert_int_equal(call_lookup(machine, dirs[0].ino, name_of(text, prefix, 50), &entry), -ENOENT);
		assert_int_equal(call_lookup(machine, dirs[0].ino, gone, &entry), -ENOENT);
		assert_int_equal(call_lookup(machine, dirs[1].ino, linked, &entry), 0);
		call_forget(machine, entry.ino, 1);
		assert_int_equal(call_lookup(machine, dirs[1].ino, moved, &entry), 0);
		assert_int_equal(call_getxattr(machine, entry.ino, "user.large", value, VALUE_BYTES, &length), 0);
		assert_int_equal(length, VALUE_BYTES);
		for (unsigned i = 0; i < VALUE_BYTES; i++)
			assert_int_equal(value[i], pattern_byte(prefix, 99, i));
		call_forget(machine, entry.ino, 1);
	}
	call_forget(machine, dirs[0].ino, 1);
	call_forget(machine, dirs[1].ino, 1);
}

/* ---- one run ---- */

enum mode { MODE_ONCE, MODE_AFTER, MODE_FROM_THEN_ON, MODE_HANG, MODE_COUNT };

struct sweep {
	unsigned owners;
	enum io_op op;
	enum mode mode;
	uint8_t *base;                  /* image that every run begins with; its journal has something to replay */
	struct promise base_promise;
	uint8_t *image;
};

struct puller {
	struct sim *sim;
	struct fiber_start_remote start;
	bool finished, ended;
};

/* Pulls the device out when the run takes too long: something hangs. */
static MAY_WAIT void pull_main(void *arg)
{
	struct puller *puller = arg;
	for (unsigned i = 0; i < 100 && !puller->finished; i++)
		fiber_sleep(100 * NS_PER_MS);
	if (!puller->finished && bdev_remove(puller->sim->registry, "error", 100 * NS_PER_MS) == 0)
		puller->finished = true;
	puller->ended = true;
}

static bool pull_ended(void *arg) { return ((struct puller *)arg)->ended; }

static void add_rule(const struct sweep *sweep, struct sim *sim, uint64_t skip)
{
	static const enum error_action actions[MODE_COUNT] = {[MODE_ONCE] = ERROR_FAIL, [MODE_AFTER] = ERROR_FAIL_AFTER,
		[MODE_FROM_THEN_ON] = ERROR_FAIL, [MODE_HANG] = ERROR_HANG};
	const struct error_rule rule = {.ops = 1u << sweep->op, .skip = skip, .action = actions[sweep->mode], .error = -EIO,
		.count = sweep->mode == MODE_FROM_THEN_ON ? 0 : 1};
	bdev_error_add_rule(sim_bdev(sim, "error"), &rule);
}

struct outcome {
	uint64_t hits, io_count;
	bool reported;                  /* somebody was told of an error */
	struct promise promise;
};

static void run(const struct sweep *sweep, uint64_t skip, struct outcome *outcome)
{
	struct work *work = calloc(1, sizeof(*work));
	struct sim *sim = &work->machine.sim;
	*work = (struct work){.prefix = 'f', .machine = {.owners = sweep->owners, .cred = {.uid = 1000, .gid = 1000}}};
	const struct sim_options options = {.owners = sweep->owners, .seed = skip, .memory = sweep->image, .size = SIZE,
		.asynchronous = true, .error = true};
	memcpy(sweep->image, sweep->base, SIZE);
	sim_create(sim, &options);
	if (skip != UINT64_MAX)
		add_rule(sweep, sim, skip);
	struct puller puller = {.sim = sim, .start.start = {.fn = pull_main, .arg = &puller, .name = "puller"}};
	fiber_start_on(reactor_group_get(sim->group, 0), &puller.start);
	if (ok(work, sim_mount(sim, NULL))) {
		work_run(work);
		ok(work, sim->stopped);
		ok(work, sim_unmount(sim));
	}
	struct bdev *device = sim_bdev(sim, "error");
	puller.finished = true;
	*outcome = (struct outcome){.reported = work->error, .promise = work->promise,
		.hits = !device || skip == UINT64_MAX ? 0 : bdev_error_rule(device, 0)->hits,
		.io_count = device ? bdev_error_io_count(device, sweep->op) : 0};
	if (!reactor_group_sim_run(sim->group, pull_ended, &puller))
		fail_msg("the puller hangs");
	sim_destroy(sim);
	free(work);
}

/* On a device that works: replayable, clean, complete. */
static void recover(const struct sweep *sweep, const struct promise *promise)
{
	struct machine *machine = calloc(1, sizeof(*machine));
	*machine = (struct machine){.owners = sweep->owners, .cred = {.uid = 1000, .gid = 1000}};
	const struct sim_options options = {.owners = sweep->owners, .seed = 1, .memory = sweep->image, .size = SIZE};
	assert_int_equal(sim_fsck(sweep->image, SIZE, true, "before recovery"), 0);
	sim_create(&machine->sim, &options);
	if (sim_mount(&machine->sim, NULL))
		fail_msg("mount: %s", machine->sim.message);
	expect_promise(machine, 'b', &sweep->base_promise);
	expect_promise(machine, 'f', promise);
	machine_settle(machine);
	assert_int_equal(sim_unmount(&machine->sim), 0);
	sim_destroy(&machine->sim);
	assert_int_equal(sim_fsck(sweep->image, SIZE, false, "after recovery"), 0);
	free(machine);
}

/* A filesystem that was stopped with work in its journal and an unlinked file in use. */
static void make_base(struct sweep *sweep)
{
	struct work *work = calloc(1, sizeof(*work));
	*work = (struct work){.prefix = 'b', .machine = {.owners = sweep->owners, .cred = {.uid = 1000, .gid = 1000}}};
	struct sim *sim = &work->machine.sim;
	struct fs_entry entry;
	sweep->base = calloc(1, SIZE);
	sweep->image = malloc(SIZE);
	bump_mkfs(sweep->base, SIZE, 9);
	const struct sim_options options = {.owners = sweep->owners, .seed = 2, .memory = sweep->base, .size = SIZE};
	sim_create(sim, &options);
	assert_int_equal(sim_mount(sim, NULL), 0);
	assert_true(find_dirs(work));
	for (unsigned i = 0; i < FILES; i++)
		write_file(work, i);
	change(work);
	static uint8_t buffer[200000];
	assert_int_equal(call_create(&work->machine, ROOT, "unlinked", S_IFREG | 0600, &entry), 0);
	assert_int_equal(call_write(&work->machine, entry.ino, buffer, 0, sizeof(buffer)), 0);
	assert_int_equal(call_unlink(&work->machine, ROOT, "unlinked"), 0);
	assert_int_equal(call_sync(&work->machine), 0);
	assert_int_equal(work->error, 0);
	assert_int_equal(fs_shutdown(sim->fs), 0);
	assert_int_equal(sim_unmount(sim), -EIO);
	sweep->base_promise = work->promise;
	sim_destroy(sim);
	free(work);
}

static void sweep_all(enum io_op op, enum mode mode)
{
	for (unsigned owners = 1; owners <= 3; owners += 2) {
		struct sweep sweep = {.owners = owners, .op = op, .mode = mode};
		struct outcome outcome;
		make_base(&sweep);
		run(&sweep, UINT64_MAX, &outcome);
		assert_false(outcome.reported);
		assert_true(outcome.promise.all);
		recover(&sweep, &outcome.promise);
		const uint64_t count = outcome.io_count;
		assert_true(count > 5);
		/* Hangs and the like take the same paths: a part of the places will do. */
		for (uint64_t skip = 0; skip < count + 2; skip += mode == MODE_ONCE ? 1 : 1 + count / 40) {
			run(&sweep, skip, &outcome);
			if (outcome.hits && op != IO_READ && !outcome.reported)
				fail_msg("owners %u: failure of I/O %llu was not reported", owners, (unsigned long long)skip);
			recover(&sweep, &outcome.promise);
		}
		free(sweep.base);
		free(sweep.image);
	}
}

static void test_every_read_fails_once(void **state) { sweep_all(IO_READ, MODE_ONCE); }
static void test_every_write_fails_once(void **state) { sweep_all(IO_WRITE, MODE_ONCE); }
static void test_every_flush_fails_once(void **state) { sweep_all(IO_FLUSH, MODE_ONCE); }
static void test_writes_fail_after_they_were_done(void **state) { sweep_all(IO_WRITE, MODE_AFTER); }
static void test_flushes_fail_after_they_were_done(void **state) { sweep_all(IO_FLUSH, MODE_AFTER); }
static void test_reads_fail_from_then_on(void **state) { sweep_all(IO_READ, MODE_FROM_THEN_ON); }
static void test_writes_fail_from_then_on(void **state) { sweep_all(IO_WRITE, MODE_FROM_THEN_ON); }
static void test_flushes_fail_from_then_on(void **state) { sweep_all(IO_FLUSH, MODE_FROM_THEN_ON); }
static void test_reads_hang_until_removal(void **state) { sweep_all(IO_READ, MODE_HANG); }
static void test_writes_hang_until_removal(void **state) { sweep_all(IO_WRITE, MODE_HANG); }
static void test_flushes_hang_until_removal(void **state) { sweep_all(IO_FLUSH, MODE_HANG); }

/* ---- one FLUSH beside another ---- */

struct sync_fiber {
	struct fiber_start_remote start;
	struct fs *fs;
	uint64_t ino;
	int error;
	bool ended;
};

static MAY_WAIT void sync_main(void *arg)
{
	struct sync_fiber *sync = arg;
	sync->error = fs_fsync(sync->fs, sync->ino, true);
	sync->ended = true;
}

static bool sync_ended(void *arg) { return ((struct sync_fiber *)arg)->ended; }

/* The failed one may have lost what the other was for: a slow FLUSH that succeeds then is no success. */
static void test_a_flush_that_succeeds_while_another_fails_is_no_success(void **state)
{
	static uint8_t buffer[2 * FS_BLOCK_SIZE];
	struct machine m;
	struct fs_entry entry;
	machine_start(&m, 1, 0);
	assert_int_equal(call_create(&m, ROOT, "file", S_IFREG | 0600, &entry), 0);
	assert_int_equal(call_write(&m, entry.ino, buffer, 0, sizeof(buffer)), 0);
	assert_int_equal(call_fsync(&m, entry.ino, false), 0);
	assert_int_equal(call_write(&m, entry.ino, buffer, 0, sizeof(buffer)), 0);
	const struct error_rule rules[] = {
		{.ops = 1u << IO_FLUSH, .count = 1, .action = ERROR_DELAY, .delay_ns = 50 * NS_PER_MS},
		{.ops = 1u << IO_FLUSH, .count = 1, .action = ERROR_FAIL, .error = -EIO}};
	for (unsigned i = 0; i < ARRAY_SIZE(rules); i++)
		bdev_error_add_rule(sim_bdev(&m.sim, "error"), &rules[i]);
	struct sync_fiber slow = {.fs = m.sim.fs, .ino = entry.ino};
	slow.start.start = (struct fiber_start){.fn = sync_main, .arg = &slow, .name = "slow sync"};
	fiber_start_on(fs_owner(m.sim.fs, entry.ino), &slow.start);
	call_sleep(&m, 10 * NS_PER_MS);
	assert_false(slow.ended);
	assert_int_equal(call_fsync(&m, entry.ino, true), -EIO);
	assert_true(reactor_group_sim_run(m.sim.group, sync_ended, &slow));
	assert_int_equal(slow.error, -EIO);
	m.damaged = true;
	machine_stop(&m);
}

static void no_log(enum log_level level, const char *line, void *arg) {}

int main(void)
{
	log_set_sink(no_log, NULL);
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_read_fails_once),
		cmocka_unit_test(test_every_write_fails_once),
		cmocka_unit_test(test_every_flush_fails_once),
		cmocka_unit_test(test_writes_fail_after_they_were_done),
		cmocka_unit_test(test_flushes_fail_after_they_were_done),
		cmocka_unit_test(test_reads_fail_from_then_on),
		cmocka_unit_test(test_writes_fail_from_then_on),
		cmocka_unit_test(test_flushes_fail_from_then_on),
		cmocka_unit_test(test_reads_hang_until_removal),
		cmocka_unit_test(test_writes_hang_until_removal),
		cmocka_unit_test(test_flushes_hang_until_removal),
		cmocka_unit_test(test_a_flush_that_succeeds_while_another_fails_is_no_success),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
