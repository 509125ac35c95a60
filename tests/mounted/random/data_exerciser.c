/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * data_exerciser: random reads and writes of all kinds on a few files, compared byte by byte with what they must hold.
 *
 * Each worker has files of its own, with all operations of data_operations.c, and two files that all workers share,
 * where each owns every n-th piece (data.h). It runs on any Linux filesystem; ext4 is the measure of what may be
 * expected. See exerciser.h for what happens at a difference.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/mounted/random/data.h"

enum { FILES_MAX = 1000, REPORT_EVERY = 1000 };

static void *memory(size_t size)
{
	void *bytes = NULL;
	if (posix_memalign(&bytes, BLOCK, size)) {
		fprintf(stderr, "out of memory\n");
		exit(2);
	}
	memset(bytes, 0, size);
	return bytes;
}

static void files_describe(struct data_run *run)
{
	const struct exerciser_options *options = run->exerciser->options;
	run->file_count = options->files + SHARED_FILES;
	run->files = memory(run->file_count * sizeof(*run->files));
	for (unsigned i = 0; i < run->file_count; i++) {
		struct data_file *file = &run->files[i];
		*file = (struct data_file){.id = i + 1, .fd = -1, .fd_direct = -1};
		if (i >= options->files)
			file->shared = i == options->files ? SHARED_CACHED : SHARED_DIRECT;
		if (file->shared)
			snprintf(file->name, NAME_SIZE, "shared-%s", file->shared == SHARED_CACHED ? "cached" : "direct");
		else
			snprintf(file->name, NAME_SIZE, "worker%u-%u", run->exerciser->worker, i);
		file->bytes = memory(run->size_max);
		file->allocated = memory(run->size_max / BLOCK);
	}
}

static void probe_holes(struct data_run *run)
{
	const int fd = openat(run->directory, ".", O_TMPFILE | O_RDWR, 0600);
	run->reports_holes = fd >= 0 && !ftruncate(fd, 1 << 20) && lseek(fd, 0, SEEK_DATA) == -1 && errno == ENXIO;
	close(fd);
}

/* ---- the model on disk ---- */

static FILE *model_file(struct data_run *run, const char *prefix, const char *mode)
{
	char path[4096];
	snprintf(path, sizeof(path), "%s.%u", prefix, run->exerciser->worker);
	FILE *out = fopen(path, mode);
	if (!out) {
		perror(path);
		exit(2);
	}
	return out;
}

static void model_save(struct data_run *run)
{
	FILE *out = model_file(run, run->exerciser->options->save, "w");
	for (unsigned i = 0; i < run->file_count; i++) {
		const struct data_file *file = &run->files[i];
		fwrite(&file->size, sizeof(file->size), 1, out);
		fwrite(file->bytes, 1, file->size, out);
	}
	if (fflush(out) || ferror(out) || fclose(out)) {
		perror(run->exerciser->options->save);
		exit(2);
	}
}

static void model_load(struct data_run *run)
{
	FILE *in = model_file(run, run->exerciser->options->verify, "r");
	for (unsigned i = 0; i < run->file_count; i++) {
		struct data_file *file = &run->files[i];
		if (fread(&file->size, sizeof(file->size), 1, in) != 1 || file->size > run->size_max ||
				fread(file->bytes, 1, file->size, in) != file->size) {
			fprintf(stderr, "%s.%u is not a model of a run with these options\n", run->exerciser->options->verify,
				run->exerciser->worker);
			exit(2);
		}
		memset(file->allocated, 1, run->size_max / BLOCK); /* the model does not say */
	}
	fclose(in);
}

/* ---- the run ---- */

static void check_all(struct data_run *run)
{
	for (unsigned i = 0; i < run->file_count; i++) {
		struct data_file *file = &run->files[i];
		const bool direct = file->shared == SHARED_DIRECT && file->fd_direct >= 0;
		if (file->shared == SHARED_DIRECT && !direct)
			continue;
		check_file(run, file, direct ? file->fd_direct : file->fd, "verify of all");
	}
}

/* Is the operation possible on this file, under these options? */
static bool operation_fits(const struct data_run *run, const struct data_operation *operation, const struct data_file *file)
{
	const struct exerciser_options *options = run->exerciser->options;
	const enum data_access access = operation->access;
	if ((access == ACCESS_DIRECT && options->no_direct) || (access == ACCESS_MAPPED && options->no_mmap))
		return false;
	if (file->shared == SHARED_CACHED)
		return operation->on_shared && access != ACCESS_DIRECT;
	if (file->shared == SHARED_DIRECT)
		return operation->on_shared && !options->no_direct && (access == ACCESS_NONE || access == ACCESS_DIRECT);
	return true;
}

static void step(struct data_run *run, const unsigned *weights)
{
	struct exerciser *exerciser = run->exerciser;
	/* Shared files are worth less than one's own: they have fewer operations. */
	const unsigned own = exerciser->options->files;
	struct data_file *file = &run->files[chance(exerciser, 8) ? own + pick(exerciser, SHARED_FILES) : pick(exerciser, own)];
	const struct data_operation *operation = &data_operations[pick_weighted(exerciser, weights, data_operation_count)];
	op_begin(exerciser, 0, 0, 0, 0, "%s %s: nothing to do", file->name, operation->name);
	if (operation_fits(run, operation, file))
		operation->run(run, file);
	if (exerciser->op % exerciser->options->check_every == 0)
		check_all(run);
}

static void work(struct exerciser *exerciser)
{
	const struct exerciser_options *options = exerciser->options;
	struct data_run run = {.exerciser = exerciser, .size_max = options->size_max / BLOCK * BLOCK};
	run.directory = open(options->directory, O_RDONLY | O_DIRECTORY);
	if (run.directory < 0) {
		perror(options->directory);
		exit(2);
	}
	run.buffer = memory(LENGTH_MAX + 2 * BLOCK);
	files_describe(&run);
	if (options->verify)
		model_load(&run);
	probe_holes(&run);
	for (unsigned i = 0; i < run.file_count; i++) {
		struct data_file *file = &run.files[i];
		if (!options->verify && !file->shared && unlinkat(run.directory, file->name, 0) && errno != ENOENT)
			call_failed(&run, file, "unlink of an earlier run's file");
		file_open(&run, file, options->verify ? 0 : O_CREAT);
	}
	unsigned weights[64];
	for (unsigned i = 0; i < data_operation_count; i++)
		weights[i] = data_operations[i].weight;
	while (!options->verify && exerciser_next(exerciser))
		step(&run, weights);
	check_all(&run);
	for (unsigned i = 0; i < run.file_count; i++)
		check_stat(&run, &run.files[i]);
	if (options->save)
		model_save(&run);
}

int main(int argc, char **argv)
{
	struct exerciser_options options = {.ops = 20000, .workers = 1, .files = 4, .size_max = (3 << 20) + 5 * BLOCK,
		.direct_align = 512, .check_every = REPORT_EVERY};
	exerciser_parse(&options, argc, argv);
	if (!options.files || options.files > FILES_MAX || options.size_max < 64 * BLOCK || !options.check_every) {
		fprintf(stderr, "%s: at least 1 file of 256 KiB\n", argv[0]);
		return 2;
	}
	char path[2][4096];
	for (unsigned i = 0; i < SHARED_FILES && !options.verify; i++) { /* before the workers begin to share them */
		snprintf(path[i], sizeof(path[i]), "%s/shared-%s", options.directory, i ? "direct" : "cached");
		unlink(path[i]);
	}
	return exerciser_run(&options, work);
}
