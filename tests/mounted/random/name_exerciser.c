/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * name_exerciser: random operations on names, inodes and their attributes.
 *
 * Each worker has a tree of its own, and a model of it in memory that says for every call what it must answer and what
 * every inode must look like afterwards, to the nanosecond. Besides, all workers use one shared directory, where only
 * invariants are checked (name_shared.c). It runs on any Linux filesystem; ext4 is the measure of what may be expected.
 * See exerciser.h for what happens at a difference.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/mounted/random/name.h"

static const struct {
	unsigned weight;
	enum { GROWS = 1, SHRINKS } size; /* what it does to the number of nodes */
	name_operation_fn run;
} operations[] = {
	{40, GROWS, op_create},
	{14, GROWS, op_mkdir},
	{8, GROWS, op_mknod},
	{10, GROWS, op_symlink},
	{16, GROWS, op_link},
	{8, GROWS, op_tmpfile},
	{50, SHRINKS, op_unlink},
	{24, SHRINKS, op_rmdir},
	{1, SHRINKS, op_remove_tree},
	{6, SHRINKS, op_hold},
	{50, 0, op_rename},
	{16, 0, op_look_up},
	{14, 0, op_chmod},
	{10, 0, op_chown},
	{12, 0, op_times},
	{26, 0, op_xattr_set},
	{10, 0, op_xattr_remove},
	{22, 0, op_write},
	{10, 0, op_truncate},
	{10, 0, op_release},
	{16, 0, op_check},
	{8, 0, op_list},
	{3, 0, op_sync},
	{60, 0, op_shared},
};
enum { OPERATIONS = sizeof(operations) / sizeof(*operations) };

/* Removing is likelier when there is much, making when there is little. */
static void weights_set(const struct name_run *run, unsigned weights[OPERATIONS])
{
	const unsigned target = run->exerciser->options->nodes;
	for (unsigned i = 0; i < OPERATIONS; i++) {
		weights[i] = operations[i].weight * 4;
		if (operations[i].size == GROWS && run->node_count > target)
			weights[i] /= 3;
		else if (operations[i].size == SHRINKS && run->node_count < target)
			weights[i] /= 4;
	}
}

static void enter(struct name_run *run)
{
	const struct exerciser_options *options = run->exerciser->options;
	char path[PATH_MAX];
	if (chdir(options->directory)) {
		perror(options->directory);
		exit(2);
	}
	snprintf(path, sizeof(path), "worker%u", run->exerciser->worker);
	if (!options->verify && mkdir(path, 0755)) {
		fprintf(stderr, "%s/%s: %s\n%s needs an empty directory\n", options->directory, path, strerror(errno), options->program);
		exit(2);
	}
	if (chdir(path)) {
		perror(path);
		exit(2);
	}
}

static void run_free(struct name_run *run)
{
	while (run->node_count)
		node_free(run, run->nodes[run->node_count - 1]);
	free(run->nodes);
	free(run->directories);
	free(run->buffer);
}

static void work(struct exerciser *exerciser)
{
	const struct exerciser_options *options = exerciser->options;
	struct name_run run = {.exerciser = exerciser, .privileged = geteuid() == 0};
	run.buffer = malloc(128 << 10);
	umask(0);

	if (!options->verify)
		shared_enter(&run);
	clock_gettime(CLOCK_REALTIME_COARSE, &run.before);
	enter(&run);
	if (options->verify) {
		tree_load(&run, options->verify);
		check_tree(&run);
		run_free(&run);
		return;
	}
	run.root = node_create(&run, S_IFDIR | 0755);
	check_node(&run, run.root, ".", BOTH_MUST);
	while (exerciser_next(exerciser)) {
		unsigned weights[OPERATIONS];
		weights_set(&run, weights);
		operations[pick_weighted(exerciser, weights, OPERATIONS)].run(&run);
		if (exerciser->op % options->check_every == 0)
			check_tree(&run);
	}
	check_tree(&run);
	if (options->save)
		tree_save(&run, options->save);
	run_free(&run);
}

int main(int argc, char **argv)
{
	struct exerciser_options options = {.ops = 20000, .workers = 2, .direct_align = 512, .nodes = 600, .xattr_max = 3000,
		.check_every = 2000};
	exerciser_parse(&options, argc, argv);
	if (!options.nodes || !options.check_every || options.xattr_max > 1 << 20) {
		fprintf(stderr, "%s: at least 1 node, at most 1 MiB of attributes\n", argv[0]);
		return 2;
	}
	if (!options.verify)
		shared_prepare(&options);
	const int result = exerciser_run(&options, work);
	return result ? result : shared_check(&options);
}
