/* SPDX-License-Identifier: BSD-3-Clause */
#include "control/top.h"
#include "fs/daemon/rpc_client.h"

enum { ANSWER_MS = 1000, ANSWER_AGAIN_MS = 50 };

static void daemon_drop(struct top_sample *sample, unsigned index)
{
	json_object_put(sample->daemons[index].before);
	json_object_put(sample->daemons[index].now);
	sample->daemons[index] = sample->daemons[--sample->count];
}

/* Adds those that are new; marks those that are gone, and forgets those that were gone before. */
static void daemons_list(struct top_sample *sample)
{
	pid_t pids[RUN_DAEMONS_MAX];
	const int listed = run_dir_list(pids);
	const unsigned count = listed > 0 ? (unsigned)listed : 0;

	if (listed < 0)
		return; /* the next sample may know */

	for (unsigned i = sample->count; i-- > 0;) {
		bool there = false;

		for (unsigned p = 0; p < count; p++)
			there |= pids[p] == sample->daemons[i].pid;
		if (!there && (sample->daemons[i].state == TOP_ENDED || !sample->daemons[i].now))
			daemon_drop(sample, i);
		else
			sample->daemons[i].state = there ? TOP_SILENT : TOP_ENDED;
	}
	for (unsigned p = 0; p < count; p++) {
		bool known = false;

		for (unsigned i = 0; i < sample->count; i++)
			known |= pids[p] == sample->daemons[i].pid;
		if (!known && sample->count < RUN_DAEMONS_MAX)
			sample->daemons[sample->count++] = (struct top_daemon){.pid = pids[p], .state = TOP_SILENT};
	}
}

static void daemon_answered(struct top_daemon *daemon, struct json_object *answer)
{
	const double uptime = (double)json_number(answer, "uptime_seconds");

	json_object_put(daemon->before);
	daemon->before = daemon->now;
	daemon->now = answer;
	daemon->state = TOP_ANSWERED;
	daemon->seconds = daemon->before ?
		(double)(json_number(answer, "time_ns") - json_number(daemon->before, "time_ns")) / NS_PER_SEC : uptime;
	if (daemon->seconds <= 0)
		daemon->seconds = 1;
}

/* Silent ones keep their last answer, and do nothing as far as anybody knows. */
static void daemon_silent(struct top_daemon *daemon)
{
	if (!daemon->now)
		return;
	json_object_put(daemon->before);
	daemon->before = json_object_get(daemon->now);
	daemon->seconds = 1;
}

static bool wanted(const struct top_sample *sample, struct json_object *answer)
{
	const char *directory = json_text(answer, "directory");

	return *directory && (!sample->directory || !strcmp(sample->directory, directory));
}

struct asking {
	struct top_sample *sample;
	pid_t pids[RUN_DAEMONS_MAX];
	unsigned daemon[RUN_DAEMONS_MAX]; /* index in the sample */
	unsigned count;
};

static bool answer_take(unsigned index, int err, const char *message, struct json_object *answer, void *arg)
{
	struct asking *asking = arg;

	if (!err && wanted(asking->sample, answer))
		daemon_answered(&asking->sample->daemons[asking->daemon[index]], answer);
	else
		json_object_put(answer);
	return false;
}

static void daemons_ask(struct top_sample *sample, bool silent, int timeout_ms)
{
	struct asking asking = {.sample = sample};

	for (unsigned i = 0; i < sample->count; i++) {
		const struct top_daemon *daemon = &sample->daemons[i];

		if (daemon->state == TOP_ENDED || daemon->was_silent != silent || (sample->found && !daemon->now))
			continue;
		asking.pids[asking.count] = daemon->pid;
		asking.daemon[asking.count++] = i;
	}
	rpc_ask_all(asking.pids, asking.count, "stats", timeout_ms, answer_take, &asking);
}

void top_sample_take(struct top_sample *sample)
{
	daemons_list(sample);
	/* Those that did not answer the last time are not waited for again. */
	daemons_ask(sample, false, ANSWER_MS);
	daemons_ask(sample, true, ANSWER_AGAIN_MS);
	sample->found = false;
	for (unsigned i = 0; i < sample->count; i++) {
		struct top_daemon *daemon = &sample->daemons[i];

		daemon->was_silent = daemon->state == TOP_SILENT;
		sample->found |= sample->directory && daemon->now && daemon->state == TOP_ANSWERED;
		if (daemon->state != TOP_ANSWERED)
			daemon_silent(daemon);
	}
}

unsigned top_sample_alive(const struct top_sample *sample)
{
	unsigned count = 0;

	for (unsigned i = 0; i < sample->count; i++)
		count += top_daemon_shown(sample, &sample->daemons[i]) && sample->daemons[i].state != TOP_ENDED;
	return count;
}

void top_sample_free(struct top_sample *sample)
{
	while (sample->count)
		daemon_drop(sample, 0);
}
