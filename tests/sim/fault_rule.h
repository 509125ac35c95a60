/* SPDX-License-Identifier: BSD-3-Clause */
/* What fails in a case of fault_sweep or fault_storm, and what that may lead to. */
#ifndef LANEFS_TESTS_SIM_FAULT_RULE_H
#define LANEFS_TESTS_SIM_FAULT_RULE_H

#include "fs/fs_internal.h"
#include "tests/sim/sim.h"

enum fault_kind { FAULT_MEDIA, FAULT_IO, FAULT_NO_MEMORY, FAULT_TIMEOUT, FAULT_GONE, FAULT_AFTER, FAULT_BUSY, FAULT_LATE,
	FAULT_HANG, FAULT_KIND_COUNT };
enum { FAULT_MEMORY = IO_OP_COUNT, FAULT_SOURCES }; /* what fails: an I/O of that operation, or an allocation of memory */
enum fault_end { END_RESTART, END_CUT, END_CUT_SOME, END_COUNT }; /* power cut: nothing, or some of what no FLUSH covers is kept */
extern const char *const fault_kind_names[FAULT_KIND_COUNT], *const fault_source_names[FAULT_SOURCES],
	*const fault_end_names[END_COUNT];

struct fault_rule {
	unsigned source;                /* enum io_op, or FAULT_MEMORY */
	enum fault_kind kind;
	bool always;                    /* from then on; else once */
	uint64_t skip;                  /* UINT64_MAX: no fault */
};
bool fault_makes_sense(const struct fault_rule *rule);
/* "read/media/once/3" */
void fault_rule_text(const struct fault_rule *rule, char *text, size_t size);

struct fault_state {
	struct sim *sim;
	uint64_t hits, data_hits;       /* data: writes of neither metadata nor journal nor state */
	bool fatal_hit;                 /* of a FLUSH, or of a write of those */
	bool in_op, op_data_hit;        /* data_hits while the caller had in_op set */
	bool removed;                   /* something hung for a while, so the device was pulled out */
	struct fiber_start_remote start;
	bool finished, ended;           /* of who pulls it */
};
/* From now on the rule holds, for the device named "error" or for memory. */
void fault_arm(const struct fault_rule *rule, struct fault_state *state, struct sim *sim);
/* Until a hanging I/O has been dealt with. */
void fault_settle(struct fault_state *state);
void fault_state_end(struct fault_state *state);

bool fault_is_transparent(const struct fault_rule *rule);
bool fault_error_fits(const struct fault_rule *rule, const struct fault_state *state, int error);
/* A filesystem stops after a failed FLUSH, a failed write of the journal, a state block or metadata, and only then; *errors are
 * of one that is mounted, NULL: not any more. @careful: metadata was written that nothing depends on. NULL, or what is wrong. */
const char *fault_judge_stop(const struct fault_rule *rule, const struct fault_state *state, const struct fs_errors *errors,
	bool careful);

/* ---- a program that goes from case to case ---- */
/* There is no log but with LANEFS_LOG, and whatever ends the program tells how the case at work is repeated. */
void fault_program_begin(const char *program);
/* @text: of its --case. It may take a minute by the clock; fault_program_end: nothing more will be at work. */
void fault_case_begin(const char *text);
void fault_program_end(void);

/* ---- memory ---- */
/* From now on allocations are counted, and number @fail_at (from 0) fails, or all from that one on. */
void fault_memory_begin(uint64_t fail_at, bool always);
void fault_memory_end(void);
uint64_t fault_memory_count(void);
uint64_t fault_memory_hits(void);

#endif
