/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One case of the fault sweep: mount, arm the fault, do the operation, fsync and checkpoint; look whether what was answered
 * fits what failed; use the filesystem further; unmount. Then the device is well again, as it is or after a power cut: fsck,
 * mount, compare with the pictures before and after the operation, unmount, fsck.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "fs/fs_internal.h"
#include "tests/sim/accounts.h"
#include "tests/sim/cut.h"
#include "tests/sim/fault_ops.h"

#define REMOVAL_NS (5 * NS_PER_SEC)

const char *const fault_kind_names[FAULT_KIND_COUNT] = {"media", "io", "no-memory", "timeout", "gone", "after", "busy", "late",
	"hang"};
static const char *const end_names[END_COUNT] = {"restart", "cut", "cut-some"};
const char *const fault_source_names[FAULT_SOURCES] = {"read", "write", "flush", "unmap", "zeroes", "reset", "abort", "memory"};
static const int kind_errors[FAULT_KIND_COUNT] = {[FAULT_MEDIA] = -EILSEQ, [FAULT_IO] = -EIO, [FAULT_NO_MEMORY] = -ENOMEM,
	[FAULT_TIMEOUT] = -ETIMEDOUT, [FAULT_GONE] = -ENODEV, [FAULT_AFTER] = -EIO};

void fault_case_text(const struct fault_case *c, char *text, size_t size)
{
	snprintf(text, size, "%s/%s/%s/%s/%llu/%s/%u", c->op->name, fault_source_names[c->source], fault_kind_names[c->kind],
		c->always ? "always" : "once", (unsigned long long)c->skip, end_names[c->end], c->image->owners);
}

/* ---- a run ---- */

struct puller {
	struct sim *sim;
	const uint64_t *hits;
	struct fiber_start_remote start;
	bool finished, removed, ended;
};

struct case_run {
	struct fault_run fault;         /* what operations see */
	const struct fault_case *c;
	struct puller puller;
	struct record_log *log;
	uint64_t hits, data_hits;       /* data: writes of neither metadata nor journal nor state */
	bool fatal_hit;                 /* of a FLUSH, or of a write of those */
	bool in_op, op_data_hit;
	int op, sync, checkpoint, unmount;
	bool mounted;                   /* after the operation */
	struct fs_errors errors;        /* after the checkpoint */
	bool retried;
};

static void complain(const struct case_run *run, const char *format, ...) PRINTF_LIKE(2, 3) __attribute__((noreturn));
static void complain(const struct case_run *run, const char *format, ...)
{
	va_list args;
	char why[400];
	va_start(args, format);
	vsnprintf(why, sizeof(why), format, args);
	va_end(args);
	sim_fail("%s (operation %d, sync %d, checkpoint %d, unmount %d, stopped %d%s, hits %llu, of data %llu)", why, run->op,
		run->sync, run->checkpoint, run->unmount, run->errors.error, run->puller.removed ? ", removed" : "",
		(unsigned long long)run->hits, (unsigned long long)run->data_hits);
}

static void fault_hit(void *arg, enum io_op op, uint64_t offset, const void *first)
{
	const uint64_t first_ag = (uint64_t)(FS_JOURNAL_FIRST_BLOCK + FS_JOURNAL_BLOCKS_MIN) * FS_BLOCK_SIZE;
	struct case_run *run = arg;
	run->hits++;
	if (op == IO_WRITE && offset >= first_ag && le32_get(((const struct block_header *)first)->magic) != FS_BLOCK_MAGIC) {
		run->data_hits++;
		run->op_data_hit |= run->in_op;
	} else if (op != IO_READ && op != IO_UNMAP) {
		run->fatal_hit = true;
	}
}

/* Pulls the device out when something has hung for a while. */
static MAY_WAIT void pull_main(void *arg)
{
	struct puller *puller = arg;
	for (unsigned i = 0; i < REMOVAL_NS / (100 * NS_PER_MS) && !puller->finished; i += *puller->hits != 0)
		fiber_sleep(100 * NS_PER_MS);
	if (!puller->finished) {
		puller->removed = true;
		/* Who has it open may let go later: a tombstone until then. */
		const int error = bdev_remove(puller->sim->registry, "error", 100 * NS_PER_MS);
		if (error && error != -ETIMEDOUT)
			sim_fail("the device could not be removed: %d", error);
	}
	puller->ended = true;
}

static bool pull_ended(void *arg) { return ((struct puller *)arg)->ended; }

static void run_begin(struct case_run *run, const struct fault_case *c, uint8_t *memory)
{
	struct sim *sim = &run->fault.machine.sim;
	*run = (struct case_run){.c = c, .fault.image = c->image, .fault.machine = {.owners = c->image->owners, .size = IMAGE_BYTES,
		.memory = memory, .cred = {.uid = 1000, .gid = 1000, .umask = 022}}};
	run->fault.machine.mount = (struct fs_mount_options){.discard = c->op->flags & OP_DISCARD, .sync = c->op->flags & OP_SYNC,
		.read_only = c->op->flags & OP_READ_ONLY};
	const struct sim_options options = {.owners = c->image->owners, .seed = 3, .memory = memory, .size = IMAGE_BYTES,
		.asynchronous = true, .error = true, .record = c->source != FAULT_MEMORY}; /* recording takes memory */
	sim_create(sim, &options);
	if (options.record) {
		run->log = bdev_record_log(sim_bdev(sim, "record"));
		record_log_get(run->log);
	}
	if (c->op->flags & OP_MOUNTS)
		return;
	if (sim_mount(sim, &run->fault.machine.mount))
		sim_fail("mount: %s", sim->message);
	if (c->op->prepare && c->op->prepare(&run->fault))
		sim_fail("preparing failed");
}

static void arm(struct case_run *run)
{
	static const enum error_action actions[FAULT_KIND_COUNT] = {[FAULT_AFTER] = ERROR_FAIL_AFTER,
		[FAULT_BUSY] = ERROR_NO_MEMORY, [FAULT_LATE] = ERROR_DELAY, [FAULT_HANG] = ERROR_HANG};
	const struct fault_case *c = run->c;
	struct sim *sim = &run->fault.machine.sim;
	run->puller.ended = true;
	fault_memory_begin(c->source == FAULT_MEMORY ? c->skip : UINT64_MAX, c->always);
	if (c->skip == UINT64_MAX || c->source == FAULT_MEMORY)
		return;
	const struct error_rule rule = {.ops = 1u << c->source, .skip = c->skip, .count = c->always ? 0 : 1, .on_hit = fault_hit,
		.arg = run, .action = actions[c->kind], .error = kind_errors[c->kind], .delay_ns = REMOVAL_NS / 20};
	bdev_error_add_rule(sim_bdev(sim, "error"), &rule);
	if (c->kind == FAULT_HANG || (c->kind == FAULT_BUSY && c->always)) {
		run->puller = (struct puller){.sim = sim, .hits = &run->hits, .start.start = {.fn = pull_main, .arg = &run->puller, .name = "puller"}};
		fiber_start_on(reactor_group_get(sim->group, 0), &run->puller.start);
	}
}

static MAY_WAIT int checkpoint_here(void *arg) { return fs_checkpoint(arg); }

static int sync_all(struct case_run *run)
{
	struct machine *machine = &run->fault.machine;
	run->sync = call_sync(machine);
	return run->checkpoint = sim_on(&machine->sim, ROOT, checkpoint_here, machine->sim.fs);
}

static void operate(struct case_run *run)
{
	struct sim *sim = &run->fault.machine.sim;
	run->in_op = true;
	run->op = run->c->op->run(&run->fault);
	run->in_op = false;
	if (run->fault.wrong)
		complain(run, "an answer was not true");
	run->mounted = sim->fs;
	if (run->mounted) {
		sync_all(run);
		/* Something that nobody waited for may hang. */
		if (run->hits && !reactor_group_sim_run(sim->group, pull_ended, &run->puller))
			complain(run, "the puller hangs");
		fs_get_errors(sim->fs, &run->errors);
	}
	if (run->c->source == FAULT_MEMORY)
		run->hits = fault_memory_hits();
	if (!run->c->always || !run->hits)
		fault_memory_end();
}

/* ---- what may have been answered ---- */

static bool is_transparent(const struct fault_case *c)
{
	return c->skip == UINT64_MAX || c->kind == FAULT_LATE || (c->kind == FAULT_BUSY && !c->always);
}

static bool error_fits(const struct case_run *run, int error)
{
	return !error || error == kind_errors[run->c->kind] || error == -EIO || error == -EROFS ||
		(run->puller.removed && error == -ENODEV);
}

/* The filesystem stops after a failed FLUSH, a failed write of the journal, a state block or metadata; and only then. */
static void judge_stop(struct case_run *run)
{
	const struct fault_case *c = run->c;
	const int stopped = run->errors.earlier ? 0 : run->errors.error;
	if (run->puller.removed) {
		if (!stopped && run->mounted)
			complain(run, "the device is gone and the filesystem goes on");
		return;
	}
	if (c->source == FAULT_MEMORY) {
		if (stopped && stopped != -ENOMEM)
			complain(run, "the filesystem has stopped, and not for want of memory");
		return;
	}
	if (stopped && !run->fatal_hit)
		complain(run, "the filesystem has stopped, and need not have");
	if (!stopped && run->fatal_hit && run->mounted && !(c->op->flags & OP_CAREFUL))
		complain(run, "the filesystem goes on after a failed FLUSH, journal or metadata write");
	if (stopped && (stopped != kind_errors[c->kind] || !run->errors.text[0]))
		complain(run, "the error is not shown");
	if (stopped && run->mounted && !call_sync(&run->fault.machine))
		complain(run, "a stopped filesystem syncs");
	if (!stopped && run->mounted && (run->sync || run->checkpoint))
		complain(run, "syncing fails, and the filesystem has not stopped");
}

static void judge_answers(struct case_run *run)
{
	const struct fault_case *c = run->c;
	/* What is allocated is not the same in every run: lines of forgets, say. */
	if (is_transparent(c) || (c->source == FAULT_MEMORY && !run->hits)) {
		if (run->op || run->sync || run->checkpoint || run->errors.error)
			complain(run, "nothing has failed, and something was answered");
		return;
	}
	if (!run->hits)
		complain(run, "the fault did not happen");
	if (!error_fits(run, run->op) || !error_fits(run, run->sync) || !error_fits(run, run->checkpoint))
		complain(run, "errors that have nothing to do with what failed");
	judge_stop(run);
	if (run->op_data_hit && !run->op && !run->fault.shortened && run->mounted)
		complain(run, "a write of data failed, and the operation answered success");
}

/* ---- going on ---- */

static void probe(struct case_run *run, bool works)
{
	struct machine *machine = &run->fault.machine;
	struct fs_entry entry;
	uint8_t bytes[100];
	fault_pattern(bytes, 'q', 0, sizeof(bytes));
	int error = call_create(machine, ROOT, "probe", S_IFREG | 0600, &entry);
	if (!error) {
		error = call_write(machine, entry.ino, bytes, 0, sizeof(bytes));
		error = error ? error : call_fsync(machine, entry.ino, false);
		error = error ? error : call_unlink(machine, ROOT, "probe");
		call_forget(machine, entry.ino, 1);
	}
	if (works && error)
		complain(run, "the filesystem is not usable any more: %d", error);
}

/* Something that no operation changes. */
static void read_further(const struct case_run *run)
{
	struct machine *machine = (struct machine *)(uintptr_t)&run->fault.machine;
	char target[FS_SYMLINK_MAX + 1];
	unsigned length;
	const int error = call_readlink(machine, run->c->image->ino[P_LONG_LINK], target, &length);
	if (error || length != 3000)
		complain(run, "what could be read is not: %d", error);
}

/* Once more what has failed. */
static int again(struct case_run *run)
{
	if (run->op)
		run->op = run->c->op->run(&run->fault);
	return run->op ? run->op : sync_all(run);
}

static void go_on(struct case_run *run, struct fault_counts *counts)
{
	const struct fault_case *c = run->c;
	struct sim *sim = &run->fault.machine.sim;
	const bool well = !c->always && !run->puller.removed;
	if (!run->mounted && well && c->op->flags & (OP_MOUNTS | OP_UNMOUNTS)) {
		if (sim_mount(sim, &run->fault.machine.mount))
			complain(run, "the device is well, and cannot be mounted: %s", sim->message);
		run->mounted = true;
		memset(&run->errors, 0, sizeof(run->errors));
	}
	if (!run->mounted)
		return;
	const bool stopped = fs_stopped(sim->fs);
	if ((run->op || run->sync || run->checkpoint) && well && !stopped) {
		if (again(run) || run->fault.wrong)
			complain(run, "the device is well, and the operation cannot be done again");
		run->retried = true;
		counts->retried++;
	}
	if (!run->puller.removed && c->source != IO_READ && c->source != FAULT_MEMORY)
		read_further(run);
	probe(run, well && !stopped && !fs_read_only(sim->fs));
	if (!well || stopped || fs_read_only(sim->fs))
		return;
	machine_settle(&run->fault.machine);
	const char *wrong = accounts_check(sim, c->source == FAULT_MEMORY);
	if (wrong)
		complain(run, "%s", wrong);
}

static void run_end(struct case_run *run)
{
	struct sim *sim = &run->fault.machine.sim;
	if (sim->fs) {
		const int stopped = fs_stopped(sim->fs);
		run->unmount = sim_unmount(sim);
		fault_memory_end();
		if (!run->unmount != !(stopped || sim->stopped))
			complain(run, "unmounting says something else than the filesystem");
	}
	fault_memory_end();
	run->puller.finished = true;
	if (!reactor_group_sim_run(sim->group, pull_ended, &run->puller))
		complain(run, "the puller hangs");
	sim_destroy(sim);
}

/* ---- the device is well again ---- */

static uint8_t *power_cut(const struct case_run *run)
{
	struct cut_plan plan = {.keep_percent = run->c->end == END_CUT_SOME ? 50 : 0, .random = run->c->skip, .ended = true};
	plan.entries = record_log_entries(run->log, &plan.count);
	plan.position = plan.count;
	uint8_t *memory = fault_image_map(run->c->image);
	cut_make(&plan, memory);
	return memory;
}

static enum picture_expectation expectation(const struct case_run *run)
{
	const unsigned flags = run->c->op->flags;
	const bool synced = run->mounted && !run->sync;
	if (!run->op && (synced || flags & OP_DURABLE))
		return PICTURE_AFTER;
	if (run->op && synced && !(flags & OP_PARTIAL))
		return PICTURE_BEFORE;
	return flags & OP_PARTIAL ? PICTURE_PARTLY : PICTURE_EITHER;
}

static void judge_recorded(const struct case_run *run, struct machine *machine, struct fault_counts *counts)
{
	struct fs_errors errors;
	fs_get_errors(machine->sim.fs, &errors);
	const int stopped = run->errors.earlier ? 0 : run->errors.error;
	const bool state = run->errors.block == FS_STATE_BLOCK_A || run->errors.block == FS_STATE_BLOCK_B;
	if (!stopped || run->c->always || run->puller.removed || state || stopped == -ENODEV)
		return;
	if (!errors.earlier || errors.error != stopped || strcmp(errors.text, run->errors.text))
		complain(run, "the error was not recorded: %d %s", errors.error, errors.text);
	counts->recorded++;
}

static void recover(const struct case_run *run, const struct fault_profile *profile, uint8_t *memory, struct fault_counts *counts)
{
	struct machine machine = {.owners = run->c->image->owners, .cred = {.privileged = true}, .size = IMAGE_BYTES, .memory = memory};
	const struct sim_options options = {.owners = machine.owners, .seed = 5, .memory = memory, .size = IMAGE_BYTES};
	if (sim_fsck(memory, IMAGE_BYTES, true, "before recovery"))
		complain(run, "fsck finds damage");
	sim_create(&machine.sim, &options);
	if (sim_mount(&machine.sim, NULL))
		complain(run, "mount after it: %s", machine.sim.message);
	judge_recorded(run, &machine, counts);
	machine_settle(&machine);
	struct picture found;
	if (picture_read(&machine, "probe", &found))
		complain(run, "something cannot be read after it");
	const char *why = picture_judge(&run->c->image->picture, &profile->after, &found, expectation(run));
	if (why)
		complain(run, "%s", why);
	picture_free(&found);
	if (sim_unmount(&machine.sim))
		complain(run, "unmount after it");
	sim_destroy(&machine.sim);
	if (sim_fsck(memory, IMAGE_BYTES, false, "after recovery"))
		complain(run, "fsck finds damage after recovery");
}

/* ---- */

void fault_case_run(const struct fault_case *c, const struct fault_profile *profile, struct fault_counts *counts)
{
	static struct case_run run;
	uint8_t *memory = fault_image_map(c->image), *image = memory;
	run_begin(&run, c, memory);
	arm(&run);
	operate(&run);
	judge_answers(&run);
	counts->cases++;
	counts->hit += run.hits != 0;
	counts->op_failed += run.op != 0;
	counts->stopped += run.errors.error && !run.errors.earlier;
	counts->removed += run.puller.removed;
	go_on(&run, counts);
	run_end(&run);
	if (run.log && c->end != END_RESTART)
		image = power_cut(&run);
	if (run.log)
		record_log_put(run.log);
	recover(&run, profile, image, counts);
	if (image != memory)
		munmap(image, IMAGE_BYTES);
	munmap(memory, IMAGE_BYTES);
}

void fault_profile_make(const struct fault_case *c, struct fault_profile *out)
{
	static struct case_run run;
	const struct fault_image *image = c->image;
	assert(c->skip == UINT64_MAX);
	uint64_t before[IO_OP_COUNT];
	uint8_t *memory = fault_image_map(image);
	run_begin(&run, c, memory);
	struct bdev *device = sim_bdev(&run.fault.machine.sim, "error");
	for (unsigned i = 0; i < IO_OP_COUNT; i++)
		before[i] = bdev_error_io_count(device, i);
	arm(&run);
	operate(&run);
	judge_answers(&run);
	for (unsigned i = 0; i < IO_OP_COUNT; i++)
		out->counts[i] = bdev_error_io_count(device, i) - before[i];
	out->counts[FAULT_MEMORY] = fault_memory_count();
	struct fault_counts counts = {0};
	go_on(&run, &counts);
	run_end(&run);
	if (run.log)
		record_log_put(run.log);
	struct machine machine = {.owners = image->owners, .cred = {.privileged = true}, .size = IMAGE_BYTES, .memory = memory};
	const struct sim_options options = {.owners = image->owners, .seed = 5, .memory = memory, .size = IMAGE_BYTES};
	sim_create(&machine.sim, &options);
	if (sim_mount(&machine.sim, NULL) || picture_read(&machine, "probe", &out->after) || sim_unmount(&machine.sim))
		complain(&run, "what the operation did cannot be read");
	sim_destroy(&machine.sim);
	munmap(memory, IMAGE_BYTES);
}

void fault_profile_free(struct fault_profile *profile) { picture_free(&profile->after); }
