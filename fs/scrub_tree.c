/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Directories lead to the root. The way up from one is walked as far as one that is known to get there, so each step is taken about
 * once for all of them. Nothing is locked for that: only a way that turns in a circle is walked again, under the lock of directory
 * renames.
 */
#include "fs/scrub.h"

enum { STEPS_MAX = 1 << 20 };

struct step {
	struct owner *owner;
	uint64_t ino, parent;
};

static MAY_WAIT int step_run(void *arg)
{
	struct step *step = arg;
	struct inode *inode;
	const int error = inode_get(step->owner, step->ino, &inode);
	if (error)
		return error;
	step->parent = le64_get(inode->disk.parent);
	inode_put(inode);
	return 0;
}

/* *at becomes its parent. */
static MAY_WAIT int step_up(struct scrub *scrub, uint64_t *at)
{
	struct step step = {.owner = owner_of_ino(scrub->fs, *at), .ino = *at};
	const int error = reactor_call(step.owner->reactor, step_run, &step);
	*at = step.parent;
	return error ? error : scrub_may_go_on(scrub);
}

static bool is_rooted(const struct scrub *scrub, uint64_t ino)
{
	const struct scrub_inodes *inodes = scrub_inodes_find(scrub, ino);
	return ino == FS_ROOT_INODE || (inodes && inodes->rooted >> ino_slot(ino_place(scrub->fs, ino)) & 1);
}

/* Brent: the place that is kept moves on after 1, 2, 4, ... steps; in a circle it is met again. */
static MAY_WAIT int climb(struct scrub *scrub, uint64_t from, bool *out_circle)
{
	uint64_t at = from, kept = from;
	unsigned steps = 0, turn = 1;
	*out_circle = false;
	for (unsigned i = 0; i < STEPS_MAX && !is_rooted(scrub, at); i++) {
		const int error = step_up(scrub, &at);
		if (error)
			return error;
		if (at == kept) {
			*out_circle = true;
			return 0;
		}
		if (++steps == turn) {
			kept = at;
			turn *= 2;
			steps = 0;
		}
	}
	return 0;
}

/* All on the way led to the root a moment ago, and renames keep that so. */
static MAY_WAIT int mark(struct scrub *scrub, uint64_t from)
{
	uint64_t at = from;
	int error = 0;
	for (unsigned i = 0; i < STEPS_MAX && !error && !is_rooted(scrub, at); i++) {
		struct scrub_inodes *inodes = scrub_inodes_find(scrub, at);
		if (inodes)
			inodes->rooted |= (uint16_t)(1u << ino_slot(ino_place(scrub->fs, at)));
		error = step_up(scrub, &at);
	}
	return error;
}

static MAY_WAIT int lock_run(void *arg)
{
	fiber_mutex_lock(arg);
	return 0;
}

static int unlock_run(void *arg)
{
	fiber_mutex_unlock(arg);
	return 0;
}

static MAY_WAIT int circle_judge(struct scrub *scrub, uint64_t ino)
{
	const struct owner *first = scrub->fs->owners[0];
	bool circle;
	reactor_call(first->reactor, lock_run, &first->inodes->rename);
	const int error = climb(scrub, ino, &circle);
	const struct scrub_inodes *inodes = scrub_inodes_find(scrub, ino);
	const bool touched = !inodes || inodes->touched >> ino_slot(ino_place(scrub->fs, ino)) & 1;
	reactor_call_nowait(first->reactor, unlock_run, &first->inodes->rename);
	if (!error && circle && !touched)
		scrub_find(scrub, ino, 0, "a directory that does not lead to the root: those above it are a circle");
	return error;
}

int scrub_leads_to_root(struct scrub *scrub, uint64_t ino)
{
	bool circle;
	if (!scrub_inodes_find(scrub, ino))
		return 0;
	int error = climb(scrub, ino, &circle);
	if (!error)
		error = circle ? circle_judge(scrub, ino) : mark(scrub, ino);
	return error == -ESTALE || scrub_goes_on(error) ? 0 : error;
}
