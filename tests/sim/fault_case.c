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

void fault_case_text(const struct fault_case *c, char *text, size_t size)
{
	char rule[100];
	fault_rule_text(&c->rule, rule, sizeof(rule));
	snprintf(text, size, "%s/%s/%s/%u", c->op->name, rule, fault_end_names[c->end], c->image->owners);
}

/* ---- a run ---- */

struct case_run {
	struct fault_run fault;         /* what operations see */
	const struct fault_case *c;
	struct record_log *log;
	struct fault_state state;
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
		run->sync, run->checkpoint, run->unmount, run->errors.error, run->state.removed ? ", removed" : "",
		(unsigned long long)run->state.hits, (unsigned long long)run->state.data_hits);
}

static void run_begin(struct case_run *run, const struct fault_case *c, uint8_t *memory)
{
	struct sim *sim = &run->fault.machine.sim;
	*run = (struct case_run){.c = c, .fault.image = c->image, .fault.machine = {.owners = c->image->owners, .size = IMAGE_BYTES,
		.memory = memory, .cred = {.uid = 1000, .gid = 1000, .umask = 022}}};
	run->fault.machine.mount = (struct fs_mount_options){.discard = c->op->flags & OP_DISCARD, .sync = c->op->flags & OP_SYNC,
		.read_only = c->op->flags & OP_READ_ONLY};
	const struct sim_options options = {.owners = c->image->owners, .seed = 3, .memory = memory, .size = IMAGE_BYTES,
		.asynchronous = true, .error = true, .record = c->rule.source != FAULT_MEMORY}; /* recording takes memory */
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
	run->state.in_op = true;
	run->op = run->c->op->run(&run->fault);
	run->state.in_op = false;
	if (run->fault.wrong)
		complain(run, "an answer was not true");
	run->mounted = sim->fs;
	if (run->mounted) {
		sync_all(run);
		/* Something that nobody waited for may hang. */
		fault_settle(&run->state);
		fs_get_errors(sim->fs, &run->errors);
	}
	if (run->c->rule.source == FAULT_MEMORY)
		run->state.hits = fault_memory_hits();
	if (!run->c->rule.always || !run->state.hits)
		fault_memory_end();
}

/* ---- what may have been answered ---- */

static void judge_stop(struct case_run *run)
{
	const struct fault_case *c = run->c;
	const int stopped = run->errors.earlier ? 0 : run->errors.error;
	const char *wrong = fault_judge_stop(&c->rule, &run->state, run->mounted ? &run->errors : NULL, c->op->flags & OP_CAREFUL);
	if (wrong)
		complain(run, "%s", wrong);
	if (run->state.removed || c->rule.source == FAULT_MEMORY)
		return;
	if (stopped && run->mounted && !call_sync(&run->fault.machine))
		complain(run, "a stopped filesystem syncs");
	if (!stopped && run->mounted && (run->sync || run->checkpoint))
		complain(run, "syncing fails, and the filesystem has not stopped");
}

static void judge_answers(struct case_run *run)
{
	const struct fault_case *c = run->c;
	/* What is allocated is not the same in every run: lines of forgets, say. */
	if (fault_is_transparent(&c->rule) || (c->rule.source == FAULT_MEMORY && !run->state.hits)) {
		if (run->op || run->sync || run->checkpoint || run->errors.error)
			complain(run, "nothing has failed, and something was answered");
		return;
	}
	if (!run->state.hits)
		complain(run, "the fault did not happen");
	if (!fault_error_fits(&c->rule, &run->state, run->op) || !fault_error_fits(&c->rule, &run->state, run->sync) ||
		!fault_error_fits(&c->rule, &run->state, run->checkpoint))
		complain(run, "errors that have nothing to do with what failed");
	judge_stop(run);
	if (run->state.op_data_hit && !run->op && !run->fault.shortened && run->mounted)
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
	const bool well = !c->rule.always && !run->state.removed;
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
	if (!run->state.removed && c->rule.source != IO_READ && c->rule.source != FAULT_MEMORY)
		read_further(run);
	probe(run, well && !stopped && !fs_read_only(sim->fs));
	if (!well || stopped || fs_read_only(sim->fs))
		return;
	machine_settle(&run->fault.machine);
	const char *wrong = accounts_check(sim, c->rule.source == FAULT_MEMORY);
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
	fault_state_end(&run->state);
	sim_destroy(sim);
}

/* ---- the device is well again ---- */

static uint8_t *power_cut(const struct case_run *run)
{
	struct cut_plan plan = {.keep_percent = run->c->end == END_CUT_SOME ? 50 : 0, .random = run->c->rule.skip, .ended = true};
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
	if (!stopped || run->c->rule.always || run->state.removed || state || stopped == -ENODEV)
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
	fault_arm(&c->rule, &run.state, &run.fault.machine.sim);
	operate(&run);
	judge_answers(&run);
	counts->cases++;
	counts->hit += run.state.hits != 0;
	counts->op_failed += run.op != 0;
	counts->stopped += run.errors.error && !run.errors.earlier;
	counts->removed += run.state.removed;
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
	assert(c->rule.skip == UINT64_MAX);
	uint64_t before[IO_OP_COUNT];
	uint8_t *memory = fault_image_map(image);
	run_begin(&run, c, memory);
	struct bdev *device = sim_bdev(&run.fault.machine.sim, "error");
	for (unsigned i = 0; i < IO_OP_COUNT; i++)
		before[i] = bdev_error_io_count(device, i);
	fault_arm(&c->rule, &run.state, &run.fault.machine.sim);
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
