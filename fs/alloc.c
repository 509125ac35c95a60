/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Free space in memory. An AG's free tree is built from its block map when the AG is first used; from then on the tree says
 * what may be handed out, and the map (changed in apply steps only) says what is durable in the end. Between the two stand
 * reservations of running transactions (out of the tree, not yet in the map), quarantined runs (out of the map, not yet in
 * the tree) and blocks lent to other owners (out of the tree, bits clear until they use them).
 *
 * The map side is in alloc_map.c, loans in alloc_loan.c.
 */
#include "fs/alloc_internal.h"

#include <stdlib.h>

enum { HELD_BACK_MIN = 8, HELD_BACK_MAX = 1024, HELD_BACK_SHARE = 128 };

int alloc_create(struct owner *owner)
{
	const struct fs *fs = owner->fs;
	struct alloc *alloc = calloc(1, sizeof(*alloc));
	if (!alloc)
		return -ENOMEM;
	owner->alloc = alloc;
	alloc->owner = owner;
	freespace_pool_init(&alloc->pool);
	fiber_cond_init(&alloc->unmapped);
	fiber_cond_init(&alloc->returned);
	alloc->data.tail = &alloc->data.head;
	alloc->metadata.tail = &alloc->metadata.head;
	const int error = alloc_grow_reserve(owner, le32_get(fs->super.ag_count));
	if (!error)
		alloc_grow_open(owner);
	return error;
}

int alloc_grow_reserve(struct owner *owner, uint32_t total)
{
	struct alloc *alloc = owner->alloc;
	const unsigned owners = owner->fs->owner_count;
	const unsigned count = owner->index < total ? (total - owner->index - 1) / owners + 1 : 0;
	if (count <= alloc->ag_room)
		return 0;
	struct ag **ags = realloc(alloc->ags, count * sizeof(*ags));
	if (!ags)
		return -ENOMEM;
	alloc->ags = ags;
	for (; alloc->ag_room < count; alloc->ag_room++) {
		struct ag *ag = calloc(1, sizeof(*ag));
		if (!ag)
			return -ENOMEM;
		ag->number = owner->index + alloc->ag_room * owners;
		fiber_cond_init(&ag->loaded_cond);
		freespace_init(&ag->space, &alloc->pool);
		freespace_init(&ag->undiscarded, &alloc->pool);
		ags[alloc->ag_room] = ag;
	}
	return 0;
}

void alloc_grow_open(struct owner *owner)
{
	struct alloc *alloc = owner->alloc;
	const struct fs_super *super = &owner->fs->super;
	uint64_t blocks = 0;
	alloc->ag_count = alloc->ag_room;
	for (unsigned i = 0; i < alloc->ag_count; i++)
		blocks += ag_block_count(super, alloc->ags[i]->number);
	alloc->held_back = MIN(MAX(blocks / HELD_BACK_SHARE, (uint64_t)HELD_BACK_MIN), (uint64_t)HELD_BACK_MAX);
}

static void quarantine_drop(struct quarantined *entry)
{
	while (entry) {
		struct quarantined *next = entry->next;
		free(entry);
		entry = next;
	}
}

void alloc_destroy(struct owner *owner)
{
	struct alloc *alloc = owner->alloc;
	if (!alloc)
		return;
	quarantine_drop(alloc->data.head);
	quarantine_drop(alloc->metadata.head);
	quarantine_drop(alloc->quarantined_free);
	for (unsigned i = 0; i < alloc->ag_room; i++) {
		freespace_clear(&alloc->ags[i]->space);
		freespace_clear(&alloc->ags[i]->undiscarded);
		free(alloc->ags[i]);
	}
	freespace_pool_fini(&alloc->pool);
	free(alloc->ags);
	free(alloc);
	owner->alloc = NULL;
}

struct ag *alloc_ag(struct alloc *alloc, uint32_t number)
{
	const unsigned index = number / alloc->owner->fs->owner_count;
	assert(index < alloc->ag_count && alloc->ags[index]->number == number);
	return alloc->ags[index];
}

static bool owns(const struct owner *owner, uint64_t block)
{
	return owner_of_ag(owner->fs, ag_of_block(owner->fs, block)) == owner;
}

static void put_back(struct alloc *alloc, struct ag *ag, struct run run)
{
	const struct fs *fs = alloc->owner->fs;
	assert(ag->loaded);
	if (freespace_add(&ag->space, ag_relative(fs, run.block), run.count)) {
		log_warn("AG %u: no memory to keep %u free blocks in mind; they come back with the next mount", ag->number, run.count);
		return;
	}
	alloc->free_blocks += run.count;
}

void alloc_give_back(struct alloc *alloc, struct run run)
{
	struct ag *ag = alloc_ag(alloc, ag_of_block(alloc->owner->fs, run.block));
	ag->freed_since_trim = true;
	put_back(alloc, ag, run);
}

int alloc_lift(struct alloc *alloc, struct ag *ag, struct run run)
{
	const int error = freespace_remove(&ag->space, ag_relative(alloc->owner->fs, run.block), run.count);
	if (error)
		return error;
	alloc->free_blocks -= run.count;
	alloc->unmapping_blocks += run.count;
	return 0;
}

void alloc_put_down(struct alloc *alloc, struct run run)
{
	alloc->unmapping_blocks -= run.count;
	put_back(alloc, alloc_ag(alloc, ag_of_block(alloc->owner->fs, run.block)), run);
	fiber_cond_broadcast(&alloc->unmapped);
}

void alloc_release(struct owner *owner, struct run run)
{
	if (owns(owner, run.block))
		alloc_give_back(owner->alloc, run);
	else
		alloc_add_loan(owner->alloc, run);
}

/* How many blocks the owner may hand out without touching what is held back, as far as it has looked at its AGs. */
static uint64_t within_limit(const struct alloc *alloc, unsigned flags)
{
	if (flags & ALLOC_HELD_BACK)
		return UINT64_MAX;
	const uint64_t blocks = alloc->free_blocks + alloc->undiscarded_blocks + alloc->unmapping_blocks;
	return blocks > alloc->held_back ? blocks - alloc->held_back : 0;
}

static bool take_from(struct alloc *alloc, struct ag *ag, struct freespace_wish wish, unsigned flags, struct run *out)
{
	const uint64_t limit = within_limit(alloc, flags);
	uint32_t start, count;
	if (limit < wish.min)
		return false;
	wish.want = (uint32_t)MIN(wish.want, limit);
	if (!freespace_take(&ag->space, &wish, &start, &count))
		return false;
	*out = (struct run){.block = ag_first_block(&alloc->owner->fs->super, ag->number) + start, .count = count};
	alloc->free_blocks -= count;
	return true;
}

static MAY_WAIT int take_own(struct owner *owner, uint64_t goal, uint32_t want, uint32_t min, unsigned flags, struct run *out)
{
	struct alloc *alloc = owner->alloc;
	const struct fs *fs = owner->fs;
	const bool goal_here = goal && owns(owner, goal);
	const unsigned first = goal_here ? ag_of_block(fs, goal) / fs->owner_count : alloc->rotor;
	/* First for all that is wanted, then for what there is. The first pass looks at every AG before it fails; an AG that was
	 * refused because the others were not known yet gets its chance in the second. */
	for (unsigned pass = 0; pass < 2; pass++) {
		const bool all_loaded = alloc->loaded_count == alloc->ag_count;
		for (unsigned i = 0; i < alloc->ag_count; i++) {
			struct ag *ag = alloc->ags[(first + i) % alloc->ag_count];
			const int error = alloc_load(owner, ag);
			if (error == -EUCLEAN)
				continue; /* logged; this AG gives nothing */
			if (error)
				return error;
			const uint32_t least = pass ? min : want;
			if (freespace_largest(&ag->space) < least)
				continue;
			const struct freespace_wish wish = {.want = want, .min = pass || !i ? min : want,
				.goal = goal_here && !i ? ag_relative(fs, goal) : 0};
			if (take_from(alloc, ag, wish, flags, out)) {
				alloc->rotor = (first + i) % alloc->ag_count;
				return 0;
			}
		}
		if (want == min && all_loaded)
			break;
	}
	return -ENOSPC;
}

int alloc_take_own(struct owner *owner, uint64_t goal, uint32_t want, uint32_t min, unsigned flags, struct run *out)
{
	int error;
	do {
		error = take_own(owner, goal, want, min, flags, out);
	} while (error == -ENOSPC && discard_yield(owner->alloc));
	return error;
}

int alloc_run(struct owner *owner, uint64_t goal, uint32_t want, uint32_t min, unsigned flags, struct run *out)
{
	assert(min && want >= min);
	want = MIN(want, 16384u);
	int error = alloc_take_own(owner, goal, want, min, flags, out);
	if (error != -ENOSPC || flags & ALLOC_OWN)
		return error;
	while (!alloc_take_loan(owner->alloc, want, min, out)) {
		error = alloc_borrow(owner, want, min, flags);
		if (error)
			return error;
		/* What came may have been ours before it was lent. */
		error = alloc_take_own(owner, goal, want, min, flags, out);
		if (error != -ENOSPC)
			return error;
	}
	return 0;
}

uint64_t alloc_free_count(const struct owner *owner) { return owner->alloc->free_blocks; }

bool alloc_has_room(struct owner *owner, uint32_t ag)
{
	struct ag *here = alloc_ag(owner->alloc, ag);
	return !alloc_load(owner, here) && freespace_total(&here->space);
}

uint32_t alloc_spread_ag(struct owner *owner)
{
	struct alloc *alloc = owner->alloc;
	for (unsigned i = 0; i < alloc->ag_count; i++) {
		struct ag *ag = alloc->ags[alloc->spread_rotor++ % alloc->ag_count];
		if (!alloc_load(owner, ag) && freespace_total(&ag->space) > 16)
			return ag->number;
	}
	return alloc->ags[alloc->spread_rotor % alloc->ag_count]->number;
}

/* ---- quarantine ---- */

static struct quarantined *entry_get(struct alloc *alloc)
{
	struct quarantined *entry = alloc->quarantined_free;
	if (entry)
		alloc->quarantined_free = entry->next;
	else
		entry = malloc(sizeof(*entry));
	return entry;
}

void alloc_quarantine(struct alloc *alloc, struct run run, enum run_kind kind, uint64_t part)
{
	if (sabotage(SABOTAGE_NO_QUARANTINE)) {
		alloc_give_back(alloc, run);
		return;
	}
	struct quarantined *entry = entry_get(alloc);
	if (!entry) {
		log_warn("AG %u: no memory to keep %u freed blocks in mind; they come back with the next mount",
			ag_of_block(alloc->owner->fs, run.block), run.count);
		return;
	}
	*entry = (struct quarantined){.run = run, .part = part};
	struct quarantine *quarantine = kind == RUN_DATA ? &alloc->data : &alloc->metadata;
	*quarantine->tail = entry;
	quarantine->tail = &entry->next;
	quarantine->blocks += run.count;
	discard_freed(alloc);
}

static void quarantine_release(struct alloc *alloc, struct quarantine *quarantine, uint64_t through)
{
	while (quarantine->head && quarantine->head->part <= through) {
		struct quarantined *entry = quarantine->head;
		if (!(quarantine->head = entry->next))
			quarantine->tail = &quarantine->head;
		quarantine->blocks -= entry->run.count;
		if (!discard_take(alloc, entry->run))
			alloc_give_back(alloc, entry->run);
		entry->next = alloc->quarantined_free;
		alloc->quarantined_free = entry;
	}
}

void alloc_quarantine_release(struct owner *owner)
{
	struct alloc *alloc = owner->alloc;
	if (!alloc)
		return;
	quarantine_release(alloc, &alloc->data, stream_durable_number(owner));
	quarantine_release(alloc, &alloc->metadata,
		sabotage(SABOTAGE_EARLY_METADATA) ? stream_durable_number(owner) : stream_home_number(owner));
}

bool alloc_quarantine_waiting(const struct owner *owner)
{
	return owner->alloc->data.head || owner->alloc->metadata.head;
}
