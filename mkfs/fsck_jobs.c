/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A phase of a check, shared out to jobs: each takes the next allocation group until none is left, and keeps what it
 * finds with the group. When all have ended, findings are passed on in the order of groups, so they are those of one job.
 *
 * One kind of finding depends on the order: a block that two claim is missed by the second. The jobs then only note that
 * (clashed), and the check begins anew with one job. That happens to damaged filesystems alone.
 */
#include <stdlib.h>

#include "mkfs/fsck_internal.h"

struct phase {
	struct fsck *fsck;              /* of the caller */
	const char *name;
	void (*step)(struct fsck *fsck, struct fsck_ag *ag);
	/* Shared by the jobs, atomic: */
	uint32_t next;                  /* group that nobody has taken */
	uint32_t done;
	uint32_t end;                   /* groups from here on do not count any more: one in front failed */
	bool failed;                    /* no memory for a job */
	bool progressing;               /* somebody is in the caller's progress */
	bool locked;                    /* somebody copies fsck, or adds its sums to it */
};

/* Whoever finds another one at it leaves it to that one. */
static void phase_progress(struct phase *phase)
{
	__atomic_fetch_add(&phase->done, 1, __ATOMIC_RELAXED);
	if (__atomic_exchange_n(&phase->progressing, true, __ATOMIC_ACQUIRE))
		return;
	fsck_progress(phase->fsck, phase->name, __atomic_load_n(&phase->done, __ATOMIC_RELAXED));
	__atomic_store_n(&phase->progressing, false, __ATOMIC_RELEASE);
}

/* A handful of instructions, twice in a job: whoever finds another one at it spins. */
static void phase_lock(struct phase *phase)
{
	while (__atomic_exchange_n(&phase->locked, true, __ATOMIC_ACQUIRE))
		;
}

static void phase_unlock(struct phase *phase) { __atomic_store_n(&phase->locked, false, __ATOMIC_RELEASE); }

/* A context like the caller's, with its sums at zero. NULL without memory. */
static struct fsck *job_create(struct phase *phase, struct fsck_result *out)
{
	struct fsck *job = malloc(sizeof(*job));
	if (!job)
		return NULL;
	phase_lock(phase);
	memcpy(job, phase->fsck, offsetof(struct fsck, line));
	phase_unlock(phase);
	*out = (struct fsck_result){0};
	job->out = out;
	job->used_inodes = job->free_blocks = 0;
	return job;
}

static void job_sum(struct phase *phase, const struct fsck *job)
{
	struct fsck *fsck = phase->fsck;
	phase_lock(phase);
	fsck->out->files += job->out->files;
	fsck->out->directories += job->out->directories;
	fsck->out->blocks_used += job->out->blocks_used;
	fsck->out->orphans += job->out->orphans;
	fsck->used_inodes += job->used_inodes;
	fsck->free_blocks += job->free_blocks;
	fsck->totals_unknown |= job->totals_unknown;
	fsck->clashed |= job->clashed;
	if (!fsck->io->finding) /* otherwise counted as they are passed on */
		fsck->out->findings += job->out->findings;
	phase_unlock(phase);
}

static void end_lower(struct phase *phase, uint32_t end)
{
	uint32_t now = __atomic_load_n(&phase->end, __ATOMIC_RELAXED);
	while (end < now && !__atomic_compare_exchange_n(&phase->end, &now, end, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static void job_run(void *arg)
{
	struct phase *phase = arg;
	struct fsck_result out;
	struct fsck *job = job_create(phase, &out);
	if (!job) {
		__atomic_store_n(&phase->failed, true, __ATOMIC_RELAXED);
		return;
	}
	while (!job->clashed) {
		const uint32_t number = __atomic_fetch_add(&phase->next, 1, __ATOMIC_RELAXED);
		if (number >= __atomic_load_n(&phase->end, __ATOMIC_RELAXED))
			break;
		struct fsck_ag *ag = job->reporting = &job->ag[number];
		phase->step(job, ag);
		ag->error = job->error;
		job->error = 0;
		if (ag->error)
			end_lower(phase, number + 1);
		phase_progress(phase);
	}
	if (job->clashed)
		end_lower(phase, 0);
	job_sum(phase, job);
	free(job);
}

static void phase_report(struct fsck *fsck, struct fsck_ag *ag)
{
	for (size_t at = 0; at < ag->report_used; at += strlen(ag->report + at) + 1)
		fsck_pass(fsck, ag->report + at);
	free(ag->report);
	ag->report = NULL;
	ag->report_used = ag->report_size = 0;
	fsck->error = ag->error;
}

static void phase_run(struct fsck *fsck, struct phase *phase)
{
	phase->end = fsck->ag_count;
	fsck_progress(fsck, phase->name, 0);
	fsck->io->run(fsck->io->arg, MIN(fsck->options->jobs, fsck->ag_count), job_run, phase);
	if (phase->failed && !fsck->clashed)
		fsck->error = -ENOMEM;
	for (uint32_t i = 0; i < fsck->ag_count && !fsck->error && !fsck->clashed; i++)
		phase_report(fsck, &fsck->ag[i]);
}

void fsck_each_group(struct fsck *fsck, const char *name, void (*step)(struct fsck *, struct fsck_ag *))
{
	if (fsck->error || fsck->clashed)
		return;
	struct phase phase = {.fsck = fsck, .name = name, .step = step};
	if (fsck->io->run && fsck->options->jobs > 1 && fsck->ag_count > 1)
		phase_run(fsck, &phase);
	else
		for (uint32_t i = 0; i < fsck->ag_count && !fsck->error; i++) {
			fsck_progress(fsck, name, i);
			step(fsck, &fsck->ag[i]);
		}
	if (!fsck->error && !fsck->clashed)
		fsck_progress(fsck, name, fsck->ag_count);
}
