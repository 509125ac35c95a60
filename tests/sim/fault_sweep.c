/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goes through the fault sweep: operations x I/Os that each makes x ways to fail x once or from then on x numbers of owners.
 * A case that fails prints one line that repeats it.
 *
 *   fault_sweep [--owners N] [--permille N] [--seed N] [--op NAME] [--source NAME] [--case TEXT] [--quiet]
 *
 * --source: read, write, flush, unmap or memory. --permille: this share of the cases, drawn by the seed (1000: all).
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/sim/fault_ops.h"


struct sweep {
	unsigned owners;
	uint64_t permille, seed, number; /* number: of cases that there are */
	const char *op, *source, *only;
	bool quiet;
	struct fault_image images[2];   /* clean, dirty */
	struct fault_counts counts;
	unsigned ops;
	uint64_t places, allocations;   /* I/Os and allocations of all operations */
};

const struct fault_op *fault_op_get(unsigned index)
{
	if (index < fault_ops_names_count)
		return &fault_ops_names[index];
	index -= fault_ops_names_count;
	return index < fault_ops_data_count ? &fault_ops_data[index] : NULL;
}

/* ---- telling which case it was ---- */

static void case_announce(const struct fault_case *c)
{
	char text[200];
	fault_case_text(c, text, sizeof(text));
	fault_case_begin(text);
}

/* ---- the cases ---- */

static void run_case(struct sweep *sweep, struct fault_case *c, const struct fault_profile *profile)
{
	uint64_t random = sweep->seed * 1000003 + sweep->number++;
	c->end = sim_rand(&random) % END_COUNT;
	if (sweep->only) {
		/* Every end is a case of its own. */
		for (c->end = 0; c->end < END_COUNT; c->end++) {
			char text[200];
			fault_case_text(c, text, sizeof(text));
			case_announce(c);
			if (strcmp(text, sweep->only) == 0)
				fault_case_run(c, profile, &sweep->counts);
		}
		c->end = 0;
		return;
	}
	if (sim_rand(&random) % 1000 >= sweep->permille)
		return;
	case_announce(c);
	fault_case_run(c, profile, &sweep->counts);
}

/* One I/O, or allocation: all ways to fail. */
static void run_place(struct sweep *sweep, struct fault_case *c, const struct fault_profile *profile)
{
	for (c->rule.kind = 0; c->rule.kind < FAULT_KIND_COUNT; c->rule.kind++)
		for (unsigned always = 0; always < 2; always++) {
			c->rule.always = always;
			if (fault_makes_sense(&c->rule))
				run_case(sweep, c, profile);
		}
}

static void run_op(struct sweep *sweep, const struct fault_op *op)
{
	static const unsigned sources[] = {IO_READ, IO_WRITE, IO_FLUSH, IO_UNMAP, FAULT_MEMORY};
	struct fault_case c = {.image = &sweep->images[op->flags & OP_DIRTY ? 1 : 0], .op = op, .rule.skip = UINT64_MAX};
	for (unsigned i = 0; i < ARRAY_SIZE(sources); i++) {
		struct fault_profile profile;
		c.rule.source = sources[i];
		c.rule.skip = UINT64_MAX;
		c.rule.kind = 0;
		if (sweep->source && strcmp(sweep->source, fault_source_names[c.rule.source]) != 0)
			continue;
		case_announce(&c);
		fault_profile_make(&c, &profile);
		*(c.rule.source == FAULT_MEMORY ? &sweep->allocations : &sweep->places) += profile.counts[c.rule.source];
		for (c.rule.skip = 0; c.rule.skip < profile.counts[c.rule.source]; c.rule.skip++)
			run_place(sweep, &c, &profile);
		fault_profile_free(&profile);
	}
	sweep->ops++;
}

static void run_all(struct sweep *sweep)
{
	const char *slash = sweep->only ? strchr(sweep->only, '/') : NULL;
	for (unsigned i = 0; i < 2; i++)
		fault_image_make(&sweep->images[i], sweep->owners, i);
	for (unsigned i = 0; fault_op_get(i); i++) {
		const struct fault_op *op = fault_op_get(i);
		if (sweep->op && strcmp(op->name, sweep->op) != 0)
			continue;
		if (slash && (strncmp(op->name, sweep->only, (size_t)(slash - sweep->only)) != 0 || op->name[slash - sweep->only]))
			continue;
		const uint64_t before = sweep->counts.cases;
		const clock_t start = clock();
		run_op(sweep, op);
		if (!sweep->quiet)
			printf("%-22s %6" PRIu64 " cases %6.2f s\n", op->name, sweep->counts.cases - before,
				(double)(clock() - start) / CLOCKS_PER_SEC);
	}
	fault_program_end();
	for (unsigned i = 0; i < 2; i++)
		fault_image_free(&sweep->images[i]);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"owners", required_argument, NULL, 'o'}, {"permille", required_argument, NULL, 'p'},
		{"seed", required_argument, NULL, 's'}, {"op", required_argument, NULL, 'n'},
		{"source", required_argument, NULL, 'f'}, {"case", required_argument, NULL, 'c'},
		{"quiet", no_argument, NULL, 'q'}, {NULL, 0, NULL, 0}};
	static struct sweep sweep = {.owners = 1, .permille = 1000, .seed = 1};
	for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;)
		switch (option) {
		case 'o': sweep.owners = (unsigned)strtoul(optarg, NULL, 0); break;
		case 'p': sweep.permille = strtoull(optarg, NULL, 0); break;
		case 's': sweep.seed = strtoull(optarg, NULL, 0); break;
		case 'n': sweep.op = optarg; break;
		case 'f': sweep.source = optarg; break;
		case 'c':
			sweep.only = optarg;
			sweep.owners = (unsigned)strtoul(strrchr(optarg, '/') ? strrchr(optarg, '/') + 1 : "1", NULL, 0);
			break;
		case 'q': sweep.quiet = true; break;
		default: return 2;
		}
	fault_program_begin(argv[0]);
	run_all(&sweep);
	const struct fault_counts *counts = &sweep.counts;
	printf("%" PRIu64 " cases of %" PRIu64 ": %u operations, %" PRIu64 " I/Os, %" PRIu64 " allocations, owners %u; %" PRIu64 " operations failed, %" PRIu64
		" done again, %" PRIu64 " filesystems stopped, %" PRIu64 " of them recorded it and were asked, %" PRIu64 " devices pulled\n",
		counts->cases, sweep.number, sweep.ops, sweep.places, sweep.allocations, sweep.owners, counts->op_failed, counts->retried, counts->stopped,
		counts->recorded, counts->removed);
	return counts->cases ? 0 : 1;
}
