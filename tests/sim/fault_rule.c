/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/fault_rule.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "reactor/log.h"

#define REMOVAL_NS (5 * NS_PER_SEC)

const char *const fault_kind_names[FAULT_KIND_COUNT] = {"media", "io", "no-memory", "timeout", "gone", "after", "busy", "late",
	"hang"};
const char *const fault_end_names[END_COUNT] = {"restart", "cut", "cut-some"};
const char *const fault_source_names[FAULT_SOURCES] = {"read", "write", "flush", "unmap", "zeroes", "reset", "abort", "memory"};
static const int kind_errors[FAULT_KIND_COUNT] = {[FAULT_MEDIA] = -EILSEQ, [FAULT_IO] = -EIO, [FAULT_NO_MEMORY] = -ENOMEM,
	[FAULT_TIMEOUT] = -ETIMEDOUT, [FAULT_GONE] = -ENODEV, [FAULT_AFTER] = -EIO};

bool fault_makes_sense(const struct fault_rule *rule)
{
	if (rule->source == FAULT_MEMORY)
		return rule->kind == FAULT_NO_MEMORY;
	if (rule->kind == FAULT_AFTER)
		return rule->source != IO_READ;
	return rule->kind != FAULT_HANG || !rule->always;
}

void fault_rule_text(const struct fault_rule *rule, char *text, size_t size)
{
	snprintf(text, size, "%s/%s/%s/%llu", fault_source_names[rule->source], fault_kind_names[rule->kind],
		rule->always ? "always" : "once", (unsigned long long)rule->skip);
}

/* ---- making it happen ---- */

static void fault_hit(void *arg, enum io_op op, uint64_t offset, const void *first)
{
	const uint64_t first_ag = (uint64_t)(FS_JOURNAL_FIRST_BLOCK + FS_JOURNAL_BLOCKS_MIN) * FS_BLOCK_SIZE;
	struct fault_state *state = arg;
	state->hits++;
	if (op == IO_WRITE && offset >= first_ag && le32_get(((const struct block_header *)first)->magic) != FS_BLOCK_MAGIC) {
		state->data_hits++;
		state->op_data_hit |= state->in_op;
	} else if (op != IO_READ && op != IO_UNMAP) {
		state->fatal_hit = true;
	}
}

/* Pulls the device out when something has hung for a while. */
static MAY_WAIT void pull_main(void *arg)
{
	struct fault_state *state = arg;
	for (unsigned i = 0; i < REMOVAL_NS / (100 * NS_PER_MS) && !state->finished; i += state->hits != 0)
		fiber_sleep(100 * NS_PER_MS);
	if (!state->finished) {
		state->removed = true;
		/* Who has it open may let go later: a tombstone until then. */
		const int error = bdev_remove(state->sim->registry, "error", 100 * NS_PER_MS);
		if (error && error != -ETIMEDOUT)
			sim_fail("the device could not be removed: %d", error);
	}
	state->ended = true;
}

static bool pull_ended(void *arg) { return ((struct fault_state *)arg)->ended; }

void fault_arm(const struct fault_rule *rule, struct fault_state *state, struct sim *sim)
{
	static const enum error_action actions[FAULT_KIND_COUNT] = {[FAULT_AFTER] = ERROR_FAIL_AFTER,
		[FAULT_BUSY] = ERROR_NO_MEMORY, [FAULT_LATE] = ERROR_DELAY, [FAULT_HANG] = ERROR_HANG};
	*state = (struct fault_state){.sim = sim, .ended = true};
	fault_memory_begin(rule->source == FAULT_MEMORY ? rule->skip : UINT64_MAX, rule->always);
	if (rule->skip == UINT64_MAX || rule->source == FAULT_MEMORY)
		return;
	const struct error_rule hit = {.ops = 1u << rule->source, .skip = rule->skip, .count = rule->always ? 0 : 1,
		.on_hit = fault_hit, .arg = state, .action = actions[rule->kind], .error = kind_errors[rule->kind],
		.delay_ns = REMOVAL_NS / 20};
	bdev_error_add_rule(sim_bdev(sim, "error"), &hit);
	if (rule->kind == FAULT_HANG || (rule->kind == FAULT_BUSY && rule->always)) {
		state->ended = false;
		state->start.start = (struct fiber_start){.fn = pull_main, .arg = state, .name = "puller"};
		fiber_start_on(reactor_group_get(sim->group, 0), &state->start);
	}
}

void fault_settle(struct fault_state *state)
{
	if (state->hits && !reactor_group_sim_run(state->sim->group, pull_ended, state))
		sim_fail("who pulls the device out hangs");
}

void fault_state_end(struct fault_state *state)
{
	state->finished = true;
	if (!reactor_group_sim_run(state->sim->group, pull_ended, state))
		sim_fail("who pulls the device out hangs");
}

/* ---- what it may lead to ---- */

bool fault_is_transparent(const struct fault_rule *rule)
{
	return rule->skip == UINT64_MAX || rule->kind == FAULT_LATE || (rule->kind == FAULT_BUSY && !rule->always);
}

bool fault_error_fits(const struct fault_rule *rule, const struct fault_state *state, int error)
{
	return !error || error == kind_errors[rule->kind] || error == -EIO || error == -EROFS || (state->removed && error == -ENODEV);
}

const char *fault_judge_stop(const struct fault_rule *rule, const struct fault_state *state, const struct fs_errors *errors,
	bool careful)
{
	const int stopped = errors && !errors->earlier ? errors->error : 0;
	if (state->removed)
		return !stopped && errors ? "the device is gone and the filesystem goes on" : NULL;
	if (rule->source == FAULT_MEMORY)
		return stopped && stopped != -ENOMEM ? "the filesystem has stopped, and not for want of memory" : NULL;
	if (stopped && !state->fatal_hit)
		return "the filesystem has stopped, and need not have";
	if (!stopped && state->fatal_hit && errors && !careful)
		return "the filesystem goes on after a failed FLUSH, journal or metadata write";
	if (stopped && (stopped != kind_errors[rule->kind] || !errors->text[0]))
		return "the error is not shown";
	return NULL;
}

/* ---- a program that goes from case to case ---- */

enum { CASE_SECONDS_MAX = 60 };

static const char *case_program;
static char case_line[400];

static void no_log(enum log_level level, const char *line, void *arg) {}

static void died(int number)
{
	static const char late[] = "the case does not end\n";
	signal(SIGABRT, SIG_DFL);
	signal(number, SIG_DFL);
	if (number == SIGALRM && write(STDERR_FILENO, late, sizeof(late) - 1) < 0)
		abort();
	if (write(STDERR_FILENO, case_line, strlen(case_line)) < 0)
		abort();
	raise(number == SIGALRM ? SIGABRT : number);
}

void fault_program_begin(const char *program)
{
	static const int ends[] = {SIGABRT, SIGSEGV, SIGALRM, SIGTERM};
	case_program = program;
	if (!getenv("LANEFS_LOG"))
		log_set_sink(no_log, NULL);
	for (unsigned i = 0; i < ARRAY_SIZE(ends); i++)
		signal(ends[i], died);
}

void fault_case_begin(const char *text)
{
	snprintf(case_line, sizeof(case_line), "repeat with: %s --case %s\n", case_program, text);
	alarm(CASE_SECONDS_MAX);
}

void fault_program_end(void) { alarm(0); }
