/* SPDX-License-Identifier: BSD-3-Clause */
/* Asking fsck about a sample: by one job, and by several, which have to say the same. */
#include "fsck_image.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static int check_read(void *arg, uint64_t block, void *data)
{
	struct sample_check *check = arg;
	assert(block < SAMPLE_BLOCKS);
	check->reads++;
	if (check->fail_block && block == check->fail_block)
		return -5;
	memcpy(data, check->data + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

static void check_finding(void *arg, const char *line)
{
	struct sample_check *check = arg;
	assert(!strchr(line, '\n'));
	if (check->lines < SAMPLE_FINDINGS)
		snprintf(check->line[check->lines++], sizeof(check->line[0]), "%s", line);
}

/* ---- the same with jobs ---- */
static int jobs_read(void *arg, uint64_t block, void *data)
{
	const struct sample_check *check = arg;
	assert(block < SAMPLE_BLOCKS);
	if (check->late && block == SAMPLE_AG_FIRST)
		usleep(5000);
	if (check->fail_block && block == check->fail_block)
		return -5;
	memcpy(data, check->data + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

/* What depends on who comes first: then the second does. */
static bool twice_found(const struct sample_check *check)
{
	for (unsigned i = 0; i < check->lines; i++)
		if (strstr(check->line[i], "in use twice"))
			return true;
	return false;
}

struct job {
	void (*fn)(void *arg);
	void *arg;
};

static void *job_thread(void *arg)
{
	const struct job *job = arg;
	job->fn(job->arg);
	return NULL;
}

static void jobs_run(void *arg, unsigned count, void (*fn)(void *fn_arg), void *fn_arg)
{
	pthread_t threads[SAMPLE_AGS];
	struct job job = {fn, fn_arg};
	assert(arg && count <= SAMPLE_AGS);
	for (unsigned i = 0; i < count; i++)
		if (pthread_create(&threads[i], NULL, job_thread, &job))
			abort();
	for (unsigned i = 0; i < count; i++)
		pthread_join(threads[i], NULL);
}

/* Several jobs say what one says, in the same order. */
static void jobs_compare(const struct fsck_options *options, const struct sample_check *alone)
{
	static struct sample_check check;
	struct fsck_options jobs = *options;
	jobs.jobs = 3;
	const struct fsck_io io = {.read = jobs_read, .finding = check_finding, .arg = &check, .run = jobs_run};
	check.data = alone->data;
	check.fail_block = alone->fail_block;
	check.late = twice_found(alone);
	check.lines = 0;
	memset(check.line, 0, sizeof(check.line));
	check.error = fsck_check(&jobs, &io, &check.result);
	if (check.error != alone->error || check.lines != alone->lines ||
		memcmp(check.line, alone->line, check.lines * sizeof(check.line[0])) ||
		check.result.findings != alone->result.findings ||
		(!check.error && memcmp(&check.result, &alone->result, sizeof(check.result)))) {
		fprintf(stderr, "jobs: error %d %d, lines %u %u, findings %lu %lu; the first lines: %s; %s\n", alone->error,
			check.error, alone->lines, check.lines, (unsigned long)alone->result.findings,
			(unsigned long)check.result.findings, alone->line[0], check.line[0]);
		abort();
	}
}

void sample_fsck(const struct sample *sample, struct sample_check *check)
{
	const struct fsck_options options = {.device_blocks = SAMPLE_BLOCKS, .replay_in_memory = true};
	const struct fsck_io io = {.read = check_read, .finding = check_finding, .arg = check};
	check->data = sample->data;
	check->lines = 0;
	check->reads = 0;
	memset(check->line, 0, sizeof(check->line));
	check->error = fsck_check(&options, &io, &check->result);
	jobs_compare(&options, check);
}
