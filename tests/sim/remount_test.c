/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Remounting. To read-only: while programs work, whatever had been answered is on the device, which is clean (fsck without
 * replay) and changes no more; to writable and on; power cuts anywhere around it lose nothing that was promised. And a mount
 * that was read-only from its start: its device keeps every byte until it becomes writable.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/journal_internal.h"
#include "reactor/log.h"
#include "tests/sim/calls.h"
#include "tests/sim/cut.h"

#define ROOT FS_ROOT_INODE
enum { SIZE = MIB(32), FILE_BYTES = 5000, WORKERS = 6, ROUNDS = 6, CUTS = 90 };

/* ---- a machine over memory of the test ---- */

static void machine_on(struct machine *machine, uint8_t *memory, unsigned owners, bool read_only, bool record)
{
	const struct sim_options options = {.owners = owners, .seed = owners, .memory = memory, .size = SIZE,
		.asynchronous = true, .record = record, .error = !record};
	*machine = (struct machine){.size = SIZE, .memory = memory, .owners = owners,
		.mount = {.commit_ms = 20, .read_only = read_only}};
	machine->cred = (struct fs_cred){.uid = 1000, .gid = 1000, .umask = 022};
	sim_create(&machine->sim, &options);
	if (sim_mount(&machine->sim, &machine->mount))
		fail_msg("mount: %s", machine->sim.message);
}

static void machine_off(struct machine *machine)
{
	assert_int_equal(sim_unmount(&machine->sim), 0);
	sim_destroy(&machine->sim);
	assert_int_equal(sim_fsck(machine->memory, SIZE, false, "after unmount"), 0);
}

/* The power fails: nothing more of this machine reaches the memory. */
static void machine_abandon(struct machine *machine)
{
	reactor_group_sim_abandon(machine->sim.group);
	fs_abandon(machine->sim.fs);
	bdev_registry_abandon(machine->sim.registry);
	reactor_group_destroy(machine->sim.group);
}

static uint8_t *formatted(void)
{
	const struct sim_format format = {.size = SIZE, .journal_bytes = MIB(1), .ag_bytes = MIB(2), .seed = 3};
	uint8_t *memory = calloc(1, SIZE);
	sim_mkfs(memory, &format);
	return memory;
}

struct remount_call {
	struct machine *machine;
	struct fs_remount wanted;
	char message[256];
};

static MAY_WAIT int remount_run(void *arg)
{
	struct remount_call *call = arg;
	return fs_remount(call->machine->sim.fs, &call->wanted, call->message, sizeof(call->message));
}

static int remount(struct machine *machine, bool read_only)
{
	struct remount_call call = {.machine = machine, .wanted = {.read_only = read_only, .commit_ms = 20}};
	const int error = reactor_group_run(reactor_group_get(machine->sim.group, 0), remount_run, &call);
	if (error && !call.message[0])
		fail_msg("remount fails with %d without a line", error);
	return error;
}

static bool is_clean(const uint8_t *memory)
{
	const struct fs_state *best = NULL;
	for (unsigned i = 0; i < 2; i++) {
		const struct fs_state *state = (const struct fs_state *)(memory + (FS_STATE_BLOCK_A + i) * FS_BLOCK_SIZE);
		if (!best || le64_get(state->generation) > le64_get(best->generation))
			best = state;
	}
	return le32_get(best->clean);
}

/* ---- workers: files with a content of their own, and how many of them were promised ---- */

struct worker {
	struct fiber_start_remote start;
	struct machine *machine;
	unsigned number;
	atomic_uint made, refused;      /* files whose write was answered; answers EROFS */
	atomic_uint version;            /* last of one file that is overwritten in place, and answered */
	atomic_bool stop;
	bool ended;
	struct fs_entry entry;          /* of the call under way */
	uint64_t overwritten;           /* inode */
	uint32_t length;
	char name[24];
	uint8_t *buffer;
};

static void content_fill(uint8_t *buffer, unsigned worker, unsigned file)
{
	for (unsigned i = 0; i < FILE_BYTES; i++)
		buffer[i] = (uint8_t)(worker * 41 + file * 7 + i / 16);
}

static MAY_WAIT int worker_create(void *arg)
{
	struct worker *worker = arg;
	const struct fs_create create = {.mode = S_IFREG | 0644,
		.name = {.bytes = worker->name, .length = (unsigned)strlen(worker->name)}};
	return fs_create(worker->machine->sim.fs, ROOT, &create, &worker->machine->cred, &worker->entry);
}

static MAY_WAIT int worker_write(void *arg)
{
	struct worker *w = arg;
	uint32_t written;
	return fs_write(w->machine->sim.fs, w->entry.ino, w->buffer, 0, w->length, 0, &w->machine->cred, &written);
}

/* A change of the device that no transaction makes. */
static MAY_WAIT int worker_overwrite(struct worker *worker)
{
	struct fs *fs = worker->machine->sim.fs;
	if (!worker->overwritten) {
		snprintf(worker->name, sizeof(worker->name), "o%u", worker->number);
		const int error = reactor_call(fs_owner(fs, ROOT), worker_create, worker);
		if (error)
			return error;
		worker->overwritten = worker->entry.ino;
	}
	worker->entry.ino = worker->overwritten;
	worker->length = FS_BLOCK_SIZE;
	const uint32_t version = worker->version + 1;
	memcpy(worker->buffer, &version, sizeof(version));
	const int error = reactor_call(fs_owner(fs, worker->overwritten), worker_write, worker);
	worker->version += error == 0;
	return error;
}

static MAY_WAIT int worker_unlink(void *arg)
{
	struct worker *worker = arg;
	return fs_unlink(worker->machine->sim.fs, ROOT,
		(struct fs_name){.bytes = worker->name, .length = (unsigned)strlen(worker->name)});
}

/* A file that stays, and one that is removed again. */
static MAY_WAIT int worker_round(struct worker *worker)
{
	struct fs *fs = worker->machine->sim.fs;
	const unsigned file = worker->made;
	int error = worker_overwrite(worker);
	if (error)
		return error;
	worker->length = FILE_BYTES;
	snprintf(worker->name, sizeof(worker->name), "w%u-%u", worker->number, file);
	error = reactor_call(fs_owner(fs, ROOT), worker_create, worker);
	if (error == -EEXIST) { /* the last round ended here */
		error = reactor_call(fs_owner(fs, ROOT), worker_unlink, worker);
		return error == -ENOENT ? 0 : error;
	}
	if (error)
		return error;
	content_fill(worker->buffer, worker->number, file);
	error = reactor_call(fs_owner(fs, worker->entry.ino), worker_write, worker);
	fs_forget(fs, worker->entry.ino, 1);
	if (error)
		return error;
	worker->made++;
	snprintf(worker->name, sizeof(worker->name), "t%u", worker->number);
	error = reactor_call(fs_owner(fs, ROOT), worker_create, worker);
	if (!error)
		fs_forget(fs, worker->entry.ino, 1);
	return error && error != -EEXIST ? error : reactor_call(fs_owner(fs, ROOT), worker_unlink, worker);
}

static MAY_WAIT void worker_main(void *arg)
{
	struct worker *worker = arg;
	while (!worker->stop) {
		const int error = worker_round(worker);
		if (error == -EROFS) {
			worker->refused++;
			fiber_sleep(NS_PER_MS);
		} else if (error && error != -ENOENT) {
			sim_fail("worker %u: %d", worker->number, error);
		}
	}
	worker->ended = true;
}

static void workers_start(struct worker *workers, struct machine *machine)
{
	for (unsigned i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){.machine = machine, .number = i, .buffer = dma_alloc(FS_BLOCK_SIZE * 2, FS_BLOCK_SIZE)};
		workers[i].start.start = (struct fiber_start){.fn = worker_main, .arg = &workers[i], .name = "worker"};
		fiber_start_on(reactor_group_get(machine->sim.group, i % machine->owners), &workers[i].start);
	}
}

static void workers_stop(struct worker *workers, struct machine *machine)
{
	for (unsigned i = 0; i < WORKERS; i++)
		workers[i].stop = true;
	for (unsigned i = 0; i < WORKERS; i++) {
		while (!workers[i].ended)
			call_sleep(machine, NS_PER_MS);
		dma_free(workers[i].buffer);
	}
}

/* Every file that a worker was promised is there, whole. */
static void check_files(struct machine *machine, unsigned worker, unsigned count)
{
	static uint8_t found[FILE_BYTES], wanted[FILE_BYTES];
	for (unsigned file = 0; file < count; file++) {
		struct fs_entry entry;
		uint32_t length;
		char name[24];
		snprintf(name, sizeof(name), "w%u-%u", worker, file);
		if (call_lookup(machine, ROOT, name, &entry))
			fail_msg("%s is lost", name);
		assert_int_equal(call_read(machine, entry.ino, found, 0, FILE_BYTES, &length), 0);
		content_fill(wanted, worker, file);
		assert_int_equal(length, FILE_BYTES);
		assert_memory_equal(found, wanted, FILE_BYTES);
		call_forget(machine, entry.ino, 1);
	}
}

static void check_version(struct machine *machine, const struct worker *worker, unsigned promised)
{
	struct fs_entry entry;
	char name[24];
	uint32_t version = 0, length;
	snprintf(name, sizeof(name), "o%u", worker->number);
	assert_int_equal(call_lookup(machine, ROOT, name, &entry), 0);
	assert_int_equal(call_read(machine, entry.ino, &version, 0, sizeof(version), &length), 0);
	assert_true(version >= promised);
}

static void check_copy(const uint8_t *memory, const struct worker *workers, unsigned owners)
{
	struct machine machine;
	uint8_t *copy = malloc(SIZE);
	memcpy(copy, memory, SIZE);
	machine_on(&machine, copy, owners, false, false);
	struct fs_status status;
	fs_get_status(machine.sim.fs, &status);
	assert_int_equal(status.replayed_groups, 0);
	for (unsigned i = 0; i < WORKERS; i++) {
		check_files(&machine, i, workers[i].made);
		check_version(&machine, &workers[i], workers[i].version);
	}
	machine_off(&machine);
	free(copy);
}

/* ---- tests ---- */

static void under_load(unsigned owners)
{
	static struct worker workers[WORKERS];
	uint8_t *memory = formatted(), *copy = malloc(SIZE);
	struct machine machine;
	machine_on(&machine, memory, owners, false, false);
	workers_start(workers, &machine);
	for (unsigned round = 0; round < ROUNDS; round++) {
		unsigned before[WORKERS], made = 0;
		for (unsigned i = 0; i < WORKERS; i++)
			before[i] = workers[i].made;
		call_sleep(&machine, (round + 1) * NS_PER_MS);
		assert_int_equal(remount(&machine, true), 0);
		assert_int_equal(remount(&machine, true), 0); /* it is already */
		memcpy(copy, memory, SIZE);
		assert_true(is_clean(copy));
		assert_int_equal(sim_fsck(copy, SIZE, false, "read-only"), 0);
		for (unsigned i = 0; i < WORKERS; i++)
			made += workers[i].made - before[i];
		assert_true(made > 0);
		const unsigned refused = workers[0].refused;
		call_sleep(&machine, 2 * NS_PER_SEC);
		assert_true(workers[0].refused > refused + 100);
		assert_memory_equal(copy, memory, SIZE); /* not a byte */
		check_copy(copy, workers, owners);
		check_files(&machine, round % WORKERS, workers[round % WORKERS].made);
		assert_int_equal(remount(&machine, false), 0);
		assert_false(is_clean(memory));
	}
	workers_stop(workers, &machine);
	machine_off(&machine);
	free(memory);
	free(copy);
}

static void test_under_load_with_one_owner(void **state) { under_load(1); }
static void test_under_load_with_two_owners(void **state) { under_load(2); }
static void test_under_load_with_four_owners(void **state) { under_load(4); }

static void test_changes_are_refused_and_reads_go_on(void **state)
{
	uint8_t *memory = formatted(), value[8] = "content";
	struct machine machine;
	struct fs_entry entry, other;
	struct fs_attr attr;
	uint64_t copied;
	uint32_t length;
	machine_on(&machine, memory, 2, false, false);
	assert_int_equal(call_create(&machine, ROOT, "file", S_IFREG | 0644, &entry), 0);
	assert_int_equal(call_write(&machine, entry.ino, value, 0, sizeof(value)), 0);
	assert_int_equal(call_setxattr(&machine, entry.ino, "user.name", value, 4), 0);
	assert_int_equal(remount(&machine, true), 0);
	assert_int_equal(call_write(&machine, entry.ino, value, 0, 1), -EROFS);
	assert_int_equal(call_create(&machine, ROOT, "other", S_IFREG | 0644, &other), -EROFS);
	assert_int_equal(call_unlink(&machine, ROOT, "file"), -EROFS);
	assert_int_equal(call_rename(&machine, ROOT, "file", ROOT, "other", 0), -EROFS);
	assert_int_equal(call_link(&machine, ROOT, "other", entry.ino, &other), -EROFS);
	assert_int_equal(call_truncate(&machine, entry.ino, 0), -EROFS);
	assert_int_equal(call_fallocate(&machine, entry.ino, 0, 0, 10000), -EROFS);
	assert_int_equal(call_copy(&machine, entry.ino, 0, entry.ino, 4096, 4, &copied), -EROFS);
	assert_int_equal(call_setxattr(&machine, entry.ino, "user.name", value, 2), -EROFS);
	assert_int_equal(call_removexattr(&machine, entry.ino, "user.name"), -EROFS);
	assert_int_equal(call_open(&machine, entry.ino, O_WRONLY), -EROFS);
	assert_int_equal(call_open(&machine, entry.ino, O_RDONLY), 0);
	assert_int_equal(call_fsync(&machine, entry.ino, false), 0);
	assert_int_equal(call_sync(&machine), 0);
	assert_int_equal(call_getattr(&machine, entry.ino, &attr), 0);
	assert_int_equal(attr.size, sizeof(value));
	assert_int_equal(call_getxattr(&machine, entry.ino, "user.name", value, 8, &length), 0);
	assert_int_equal(remount(&machine, false), 0);
	assert_int_equal(call_write(&machine, entry.ino, value, 0, 1), 0);
	assert_int_equal(call_rename(&machine, ROOT, "file", ROOT, "other", 0), 0);
	machine_off(&machine);
	free(memory);
}

static MAY_WAIT void overwrite_main(void *arg)
{
	struct worker *worker = arg;
	worker->refused = worker_overwrite(worker) != 0;
	worker->ended = true;
}

static void overwrite_start(struct worker *worker)
{
	worker->ended = false;
	worker->start.start = (struct fiber_start){.fn = overwrite_main, .arg = worker, .name = "overwrite"};
	fiber_start_on(reactor_group_get(worker->machine->sim.group, 0), &worker->start);
}

static void test_an_overwrite_under_way_is_waited_for(void **state)
{
	static struct worker worker;
	const struct error_rule slow = {.ops = 1u << IO_WRITE, .count = 1, .action = ERROR_DELAY, .delay_ns = NS_PER_SEC};
	uint8_t *memory = formatted();
	struct machine machine;
	machine_on(&machine, memory, 2, false, false);
	worker = (struct worker){.machine = &machine, .buffer = dma_alloc(FS_BLOCK_SIZE * 2, FS_BLOCK_SIZE)};
	overwrite_start(&worker);
	while (!worker.ended)
		call_sleep(&machine, NS_PER_MS);
	assert_int_equal(call_sync(&machine), 0);
	bdev_error_add_rule(sim_bdev(&machine.sim, "error"), &slow);
	overwrite_start(&worker);
	call_sleep(&machine, NS_PER_MS);
	assert_false(worker.ended);
	assert_int_equal(remount(&machine, true), 0);
	assert_true(worker.ended);
	assert_int_equal(worker.version, 2);
	check_version(&machine, &worker, 2);
	overwrite_start(&worker);
	while (!worker.ended)
		call_sleep(&machine, NS_PER_MS);
	assert_true(worker.refused);
	dma_free(worker.buffer);
	machine_off(&machine);
	free(memory);
}

static void test_access_times_are_kept_and_then_stand_still(void **state)
{
	uint8_t *memory = formatted(), byte = 1;
	struct machine machine;
	struct fs_entry entry;
	struct fs_attr before, after;
	uint32_t length;
	machine_on(&machine, memory, 1, false, false);
	assert_int_equal(call_create(&machine, ROOT, "file", S_IFREG | 0644, &entry), 0);
	assert_int_equal(call_write(&machine, entry.ino, &byte, 0, 1), 0);
	call_sleep(&machine, NS_PER_SEC);
	assert_int_equal(call_read(&machine, entry.ino, &byte, 0, 1, &length), 0); /* not logged yet */
	assert_int_equal(call_getattr(&machine, entry.ino, &before), 0);
	assert_int_equal(remount(&machine, true), 0);
	call_sleep(&machine, 100000 * NS_PER_SEC);
	assert_int_equal(call_read(&machine, entry.ino, &byte, 0, 1, &length), 0);
	assert_int_equal(call_getattr(&machine, entry.ino, &after), 0);
	assert_int_equal(after.atime.tv_sec, before.atime.tv_sec);
	machine_off(&machine);
	machine_on(&machine, memory, 1, true, false);
	assert_int_equal(call_getattr(&machine, entry.ino, &after), 0);
	assert_memory_equal(&after.atime, &before.atime, sizeof(after.atime));
	machine_off(&machine);
	free(memory);
}

static void test_unlinked_files_in_use_are_waited_for_then_refused(void **state)
{
	uint8_t *memory = formatted(), byte = 1;
	struct machine machine;
	struct fs_entry entry;
	machine_on(&machine, memory, 2, false, false);
	for (unsigned directory = 0; directory < 2; directory++) {
		assert_int_equal(call_create(&machine, ROOT, "gone", (directory ? S_IFDIR : S_IFREG) | 0755, &entry), 0);
		assert_int_equal(directory ? call_rmdir(&machine, ROOT, "gone") : call_unlink(&machine, ROOT, "gone"), 0);
		assert_int_equal(remount(&machine, true), -EBUSY);
		if (!directory)
			assert_int_equal(call_write(&machine, entry.ino, &byte, 0, 1), 0); /* as if nothing had been */
		call_forget(&machine, entry.ino, 1);
		assert_int_equal(remount(&machine, true), 0);
		assert_int_equal(sim_fsck(memory, SIZE, false, "read-only"), 0);
		assert_int_equal(remount(&machine, false), 0);
	}
	machine_off(&machine);
	free(memory);
}

static void test_a_stopped_filesystem_stays_so(void **state)
{
	struct machine machine;
	uint8_t *memory = formatted();
	machine_on(&machine, memory, 1, false, false);
	fs_stop(machine.sim.fs, -EIO, 0, "a test");
	assert_int_equal(remount(&machine, true), -EIO);
	assert_int_equal(remount(&machine, false), -EROFS);
	assert_false(is_clean(memory));
	sim_unmount(&machine.sim);
	sim_destroy(&machine.sim);
	free(memory);
}

/* Content that is only in the journal, and an unlinked file that was in use. Its power has failed. */
static uint8_t *dirty_image(unsigned owners)
{
	static uint8_t content[FILE_BYTES];
	uint8_t *memory = formatted();
	struct machine machine;
	struct fs_entry entry;
	machine_on(&machine, memory, owners, false, false);
	for (unsigned i = 0; i < 20; i++) {
		char name[24];
		snprintf(name, sizeof(name), "w0-%u", i);
		assert_int_equal(call_create(&machine, ROOT, name, S_IFREG | 0644, &entry), 0);
		content_fill(content, 0, i);
		assert_int_equal(call_write(&machine, entry.ino, content, 0, FILE_BYTES), 0);
	}
	assert_int_equal(call_create(&machine, ROOT, "gone", S_IFREG | 0644, &entry), 0);
	assert_int_equal(call_write(&machine, entry.ino, content, 0, FILE_BYTES), 0);
	assert_int_equal(call_unlink(&machine, ROOT, "gone"), 0);
	assert_int_equal(call_sync(&machine), 0);
	machine_abandon(&machine);
	return memory;
}

static void read_only_then_writable(unsigned owners)
{
	uint8_t *memory = dirty_image(owners), *copy = malloc(SIZE);
	struct machine machine;
	struct fs_status status;
	struct fs_entry entry;
	memcpy(copy, memory, SIZE);
	machine_on(&machine, memory, owners, true, false);
	fs_get_status(machine.sim.fs, &status);
	assert_true(status.replayed_groups > 0);
	check_files(&machine, 0, 20);
	assert_int_equal(call_create(&machine, ROOT, "new", S_IFREG | 0644, &entry), -EROFS);
	assert_memory_equal(copy, memory, SIZE);
	assert_int_equal(remount(&machine, false), 0);
	check_files(&machine, 0, 20);
	machine_settle(&machine); /* the unlinked file is freed */
	assert_int_equal(call_create(&machine, ROOT, "new", S_IFREG | 0644, &entry), 0);
	assert_int_equal(call_fsync(&machine, entry.ino, false), 0);
	memcpy(copy, memory, SIZE);
	machine_off(&machine);
	/* The power failed before that unmount. */
	assert_int_equal(sim_fsck(copy, SIZE, true, "a crash after it became writable"), 0);
	machine_on(&machine, copy, owners, false, false);
	check_files(&machine, 0, 20);
	assert_int_equal(call_lookup(&machine, ROOT, "new", &entry), 0);
	machine_off(&machine);
	free(memory);
	free(copy);
}

static void test_read_only_from_the_start_with_one_owner(void **state) { read_only_then_writable(1); }
static void test_read_only_from_the_start_with_four_owners(void **state) { read_only_then_writable(4); }

/* ---- power cuts ---- */

/* Marks count files that are promised: after a remount to read-only all that were made, after an fsync the one. */
static void make_and_mark(struct machine *machine, unsigned file, bool sync)
{
	static uint8_t content[FILE_BYTES];
	struct fs_entry entry;
	char name[24];
	snprintf(name, sizeof(name), "w0-%u", file);
	assert_int_equal(call_create(machine, ROOT, name, S_IFREG | 0644, &entry), 0);
	content_fill(content, 0, file);
	assert_int_equal(call_write(machine, entry.ino, content, 0, FILE_BYTES), 0);
	if (sync) {
		assert_int_equal(call_fsync(machine, entry.ino, false), 0);
		bdev_record_mark(sim_bdev(&machine->sim, "record"), file + 1);
	}
	call_forget(machine, entry.ino, 1);
}

static void cut_and_check(const struct cut_plan *plan, const uint8_t *before, uint8_t *image, unsigned owners, unsigned promised)
{
	struct machine machine;
	for (size_t i = 0; i < plan->position; i++)
		if (plan->entries[i].kind == RECORD_MARK)
			promised = (unsigned)plan->entries[i].mark;
	memcpy(image, before, SIZE);
	cut_make(plan, image);
	assert_int_equal(sim_fsck(image, SIZE, true, "after the cut"), 0);
	machine_on(&machine, image, owners, plan->random % 2, false);
	check_files(&machine, 0, promised);
	if (plan->random % 2) {
		assert_int_equal(remount(&machine, false), 0);
		check_files(&machine, 0, promised);
	}
	machine_off(&machine);
}

static void cuts(unsigned owners)
{
	uint8_t *memory = dirty_image(owners), *before = malloc(SIZE), *image = malloc(SIZE);
	static const unsigned keep[] = {100, 0, 50};
	struct machine machine;
	unsigned made = 20;
	memcpy(before, memory, SIZE);
	machine_on(&machine, memory, owners, true, true); /* replayed in memory; the recording begins with going home */
	for (unsigned round = 0; round < 4; round++) {
		assert_int_equal(remount(&machine, false), 0);
		for (unsigned i = 0; i < 8; i++)
			make_and_mark(&machine, made++, i == 3);
		assert_int_equal(remount(&machine, true), 0);
		bdev_record_mark(sim_bdev(&machine.sim, "record"), made);
		assert_true(is_clean(memory));
	}
	struct record_log *log = bdev_record_log(sim_bdev(&machine.sim, "record"));
	record_log_get(log);
	machine_off(&machine);
	struct cut_plan plan;
	plan.entries = record_log_entries(log, &plan.count);
	for (unsigned i = 0; i < CUTS; i++) {
		plan.position = (i + 1) * plan.count / CUTS;
		plan.keep_percent = keep[i % ARRAY_SIZE(keep)];
		plan.random = i;
		cut_and_check(&plan, before, image, owners, 20);
	}
	record_log_put(log);
	free(memory);
	free(before);
	free(image);
}

static void test_cuts_with_one_owner(void **state) { cuts(1); }
static void test_cuts_with_four_owners(void **state) { cuts(4); }

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes_are_refused_and_reads_go_on),
		cmocka_unit_test(test_an_overwrite_under_way_is_waited_for),
		cmocka_unit_test(test_access_times_are_kept_and_then_stand_still),
		cmocka_unit_test(test_unlinked_files_in_use_are_waited_for_then_refused),
		cmocka_unit_test(test_a_stopped_filesystem_stays_so),
		cmocka_unit_test(test_under_load_with_one_owner),
		cmocka_unit_test(test_under_load_with_two_owners),
		cmocka_unit_test(test_under_load_with_four_owners),
		cmocka_unit_test(test_read_only_from_the_start_with_one_owner),
		cmocka_unit_test(test_read_only_from_the_start_with_four_owners),
		cmocka_unit_test(test_cuts_with_one_owner),
		cmocka_unit_test(test_cuts_with_four_owners),
	};
	log_set_level(LOG_LEVEL_ERROR);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
