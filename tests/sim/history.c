/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/history.h"

#include <inttypes.h>
#include <stdio.h>

enum { PIECE = 512 };

struct judge {
	const struct history *history;
	const struct world *found;
	unsigned begun, acknowledged;   /* steps */
	unsigned least;                 /* steps that are durable for certain */
	unsigned floor;                 /* bytes in place that these steps wrote are durable */
};

static unsigned steps_before(const struct history *history, uint64_t at, bool acknowledged)
{
	unsigned count = 0;
	while (count < history->step_count &&
		(acknowledged ? history->steps[count].acknowledged : history->steps[count].begun) <= at)
		count++;
	return count;
}

uint64_t history_promised(const struct history *history, uint64_t at)
{
	return steps_before(history, at, false) * 64 + steps_before(history, at, true);
}

/* ---- what was promised ---- */

static bool content_differs(const struct world_object *a, const struct world_object *b)
{
	return a->data && b->data &&
		memcmp(a->data, b->data, MIN(MIN(a->attr.size, b->attr.size), (uint64_t)WORLD_FILE_MAX));
}

/* Whether step @index changed the inode; @data: its size, its blocks or its content, other than in place. */
static bool touched(const struct history *history, unsigned index, uint64_t ino, bool data)
{
	const struct world_object *a = world_find(history->worlds[index], ino), *b = world_find(history->worlds[index + 1], ino);
	if (!a || !b)
		return a != b && !(data && a); /* that it lost its last name is nothing about its data */
	if (data)
		return a->attr.size != b->attr.size || (a->attr.blocks_512 != b->attr.blocks_512 && a->token == b->token) ||
			(content_differs(a, b) && history->steps[index].in_place_ino != ino);
	return memcmp(&a->attr, &b->attr, sizeof(a->attr)) || a->token != b->token || content_differs(a, b);
}

static void promise(struct judge *judge, unsigned index)
{
	const struct history_step *step = &judge->history->steps[index];
	const unsigned covered = index + step->sync_itself;
	if (step->sync == HISTORY_SYNC_NONE)
		return;
	judge->floor = covered;
	if (step->sync == HISTORY_SYNC_ALL)
		judge->least = covered;
	for (unsigned i = judge->least; i < covered; i++)
		if (touched(judge->history, i, step->sync_ino, step->sync == HISTORY_SYNC_DATA))
			judge->least = i + 1;
}

/* ---- bytes ---- */

static int byte_of(const struct world_object *object, uint64_t at)
{
	return !object || at >= object->attr.size || at >= WORLD_FILE_MAX ? -1 : object->data[at];
}

static bool wrote_in_place(const struct history_step *step, uint64_t ino, uint64_t at)
{
	return step->in_place_ino == ino && step->in_place_blocks >> (at >> FS_BLOCK_SHIFT) & 1 &&
		((at >= step->in_place_from && at < step->in_place_end) || at >= step->old_size);
}

/* What is written to a block that is mapped and counts as not written is written in place, too. */
static bool may_write_in_place(const struct history_step *step, uint64_t ino, uint64_t at)
{
	return wrote_in_place(step, ino, at) ||
		(step->stepwise_ino == ino && !step->frees && at >= step->in_place_from && at < step->in_place_end);
}

/* The block of this byte may be the same one after step @index. */
static bool block_stays(const struct judge *judge, unsigned index, const struct world_object *const *objects, uint64_t at)
{
	const int before = byte_of(objects[index], at), after = byte_of(objects[index + 1], at);
	if (!objects[index + 1] || align_up(objects[index + 1]->attr.size, FS_BLOCK_SIZE) <= at)
		return false;
	return after < 0 || before == after || may_write_in_place(&judge->history->steps[index], objects[index]->attr.ino, at);
}

/* Step @index did nothing to the file but, at most, write in place: no byte has moved to another block. */
static bool blocks_untouched(const struct judge *judge, unsigned index, uint64_t ino, uint64_t at)
{
	const struct history_step *step = &judge->history->steps[index];
	return (wrote_in_place(step, ino, at) && !step->perhaps) || !touched(judge->history, index, ino, false);
}

/* What stands in the block after step @index: bytes behind the end are zero when it has zeroed them. */
static bool byte_is(const struct judge *judge, unsigned index, const struct world_object *const *objects, uint64_t at, int found)
{
	const int byte = byte_of(objects[index], at);
	return byte == found ||
		(byte < 0 && !found && index && wrote_in_place(&judge->history->steps[index - 1], objects[index]->attr.ino, at));
}

/* The byte as @k steps left it, or what steps in place around them wrote. */
static bool byte_possible(const struct judge *judge, unsigned k, uint64_t ino, uint64_t at, int found)
{
	const struct history *history = judge->history;
	const struct world_object *objects[HISTORY_STEPS_MAX + 1];
	for (unsigned i = 0; i <= judge->begun; i++)
		objects[i] = world_find(history->worlds[i], ino);
	unsigned first = k, last = k, certain = k;
	while (last < judge->begun && block_stays(judge, last, objects, at)) {
		if (certain == last && blocks_untouched(judge, last, ino, at))
			certain++;
		last++;
	}
	while (first > 0 && byte_of(objects[first - 1], at) >= 0 &&
		(wrote_in_place(&history->steps[first - 1], ino, at) || byte_of(objects[first - 1], at) == byte_of(objects[first], at)))
		first--;
	first = MAX(first, MIN(judge->floor, certain));
	while (first > k && byte_of(objects[first], at) < 0)
		first--; /* nobody said what is behind the end */
	for (unsigned i = first; i <= last; i++)
		if (byte_is(judge, i, objects, at, found))
			return true;
	return false;
}

/* In all worlds around k the piece is what was found. */
static bool piece_plain(const struct judge *judge, unsigned k, const struct world_object *found, uint64_t at, uint64_t length)
{
	for (unsigned i = k; i <= MAX(k, MIN(judge->floor, judge->begun)); i++) {
		const struct world_object *want = world_find(judge->history->worlds[i], found->attr.ino);
		if (want && (want->attr.size < at + length || memcmp(want->data + at, found->data + at, length)))
			return false;
		if (!want && i == k)
			return false;
	}
	return true;
}

static bool content_possible(const struct judge *judge, unsigned k, const struct world_object *found)
{
	const uint64_t size = MIN(found->attr.size, (uint64_t)WORLD_FILE_MAX);
	for (uint64_t at = 0; at < size; at += PIECE) {
		const uint64_t length = MIN((uint64_t)PIECE, size - at);
		if (piece_plain(judge, k, found, at, length))
			continue;
		for (uint64_t i = at; i < at + length; i++)
			if (!byte_possible(judge, k, found->attr.ino, i, found->data[i]))
				return false;
	}
	return true;
}

/* ---- times ---- */

static bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

static bool times_possible(const struct judge *judge, unsigned k, const struct world_object *found)
{
	const struct history *history = judge->history;
	const uint64_t ino = found->attr.ino;
	unsigned first = k, last = k, promised = 0;
	for (unsigned i = 0; i < judge->acknowledged; i++) {
		const struct history_step *step = &history->steps[i];
		if (step->sync == HISTORY_SYNC_ALL || (step->sync == HISTORY_SYNC_FILE && step->sync_ino == ino))
			promised = i + step->sync_itself;
	}
	while (last < judge->begun && world_find(history->worlds[last + 1], ino) &&
		(history->steps[last].in_place_ino == ino || !touched(history, last, ino, false)))
		last++;
	while (first > 0 && world_find(history->worlds[first - 1], ino) &&
		(history->steps[first - 1].in_place_ino == ino || !touched(history, first - 1, ino, false)))
		first--;
	first = MAX(first, MIN(promised, last));
	bool modified = false, changed = false, accessed = false;
	for (unsigned i = first; i <= last; i++) {
		const struct fs_attr *attr = &world_find(history->worlds[i], ino)->attr;
		modified |= same_time(attr->mtime, found->attr.mtime);
		changed |= same_time(attr->ctime, found->attr.ctime);
		accessed |= same_time(attr->atime, found->attr.atime);
	}
	return modified && changed && accessed && same_time(world_find(history->worlds[k], ino)->attr.btime, found->attr.btime);
}

/* ---- the whole ---- */

static bool times_between(const struct world_object *before, const struct world_object *after, const struct world_object *found)
{
	const struct fs_attr *a = &before->attr, *b = &after->attr, *is = &found->attr;
	return (same_time(is->mtime, a->mtime) || same_time(is->mtime, b->mtime)) &&
		(same_time(is->ctime, a->ctime) || same_time(is->ctime, b->ctime)) &&
		(same_time(is->atime, a->atime) || same_time(is->atime, b->atime)) && same_time(is->btime, a->btime);
}

static bool lies_between(uint64_t value, uint64_t a, uint64_t b) { return value >= MIN(a, b) && value <= MAX(a, b); }

/* Some of what step @k does to a file, all of what came before. */
static bool half_done(const struct judge *judge, unsigned k)
{
	const uint64_t ino = judge->history->steps[k].stepwise_ino;
	const struct world_object *before = world_find(judge->history->worlds[k], ino),
		*after = world_find(judge->history->worlds[k + 1], ino), *found = world_find(judge->found, ino);
	if (!ino || !before || !after || !found || world_difference(judge->history->worlds[k], judge->found, ino))
		return false;
	struct world_object same = *found; /* but for what may be half done */
	if (!lies_between(found->attr.size, before->attr.size, after->attr.size) ||
		!lies_between(found->attr.blocks_512, before->attr.blocks_512, after->attr.blocks_512))
		return false;
	same.attr.size = before->attr.size;
	same.attr.blocks_512 = before->attr.blocks_512;
	if (world_object_difference(before, &same))
		return false;
	const uint64_t size = MIN(found->attr.size, (uint64_t)WORLD_FILE_MAX);
	for (uint64_t at = 0; at < size; at++)
		if (found->data[at] != byte_of(before, at) && found->data[at] != byte_of(after, at) &&
			!byte_possible(judge, k, ino, at, found->data[at]) && !byte_possible(judge, k + 1, ino, at, found->data[at]))
			return false;
	for (unsigned i = 0; i < judge->found->object_count; i++) {
		const struct world_object *object = &judge->found->objects[i];
		if (object != found && ((object->data && !content_possible(judge, k, object)) || !times_possible(judge, k, object)))
			return false;
	}
	return times_between(before, after, found) || times_possible(judge, k, found) || times_possible(judge, k + 1, found);
}

static const char *judge_steps(const struct judge *judge, unsigned k)
{
	const struct world *found = judge->found;
	if (world_difference(judge->history->worlds[k], found, 0))
		return "names and inodes are those of no moment between what was promised and what had begun";
	for (unsigned i = 0; i < found->object_count; i++) {
		const struct world_object *object = &found->objects[i];
		if (object->data && !content_possible(judge, k, object))
			return "a file holds what was never there, or lost what was synced";
		if (!times_possible(judge, k, object))
			return "an inode has times that it never had, or lost what was synced";
	}
	return NULL;
}

const char *history_judge(const struct history *history, const struct world *found, uint64_t at)
{
	struct judge judge = {.history = history, .found = found, .begun = steps_before(history, at, false),
		.acknowledged = steps_before(history, at, true)};
	for (unsigned i = 0; i < judge.acknowledged; i++)
		promise(&judge, i);
	const char *broken = NULL;
	for (unsigned k = judge.begun; ; k--) {
		const char *here = judge_steps(&judge, k);
		if (!here || (k < judge.begun && half_done(&judge, k)))
			return NULL;
		if (!broken || (here[0] == 'a')) /* the moment is one: that says more */
			broken = here;
		if (k == judge.least)
			return broken;
	}
}

/* Bit k: after k steps the piece was what was found. */
static unsigned piece_worlds(const struct history *history, const struct world_object *found, uint64_t at, uint64_t length)
{
	unsigned worlds = 0;
	for (unsigned i = 0; i <= history->step_count; i++) {
		const struct world_object *want = world_find(history->worlds[i], found->attr.ino);
		if (want && want->attr.size >= at + length && !memcmp(want->data + at, found->data + at, length))
			worlds |= 1u << i;
	}
	return worlds;
}

void history_explain(const struct history *history, const struct world *found)
{
	for (unsigned i = 0; i < found->object_count; i++) {
		const struct world_object *object = &found->objects[i];
		const uint64_t size = object->data ? MIN(object->attr.size, (uint64_t)WORLD_FILE_MAX) : 0;
		unsigned before = UINT32_MAX;
		for (uint64_t at = 0; at < size; at += PIECE) {
			const unsigned worlds = piece_worlds(history, object, at, MIN((uint64_t)PIECE, size - at));
			if (worlds != before)
				fprintf(stderr, "  inode %" PRIu64 " from byte %" PRIu64 ": as after steps (bits) %x\n", object->attr.ino, at, worlds);
			before = worlds;
		}
	}
	for (unsigned i = 0; i < history->step_count; i++) {
		const struct history_step *step = &history->steps[i];
		fprintf(stderr, "  step %u: from %" PRIu64 " to %" PRIu64 ", sync %d of %" PRIu64 ", in place: inode %" PRIu64 " bytes %" PRIu64
			" to %" PRIu64 " blocks %" PRIx64 "\n", i, step->begun, step->acknowledged, step->sync, step->sync_ino,
			step->in_place_ino, step->in_place_from, step->in_place_end, step->in_place_blocks);
	}
}
