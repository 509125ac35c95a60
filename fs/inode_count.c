/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Lookup counts: how many times the kernel was told of an inode and has not forgotten it. A table of 16 bytes an entry
 * per owner, apart from the inodes in memory. An entry also says that its inode has no links any more, so that the last
 * forget need not look at the inode to know whether it is to be reaped.
 *
 * fs_forget may be called on any reactor and does not wait: what belongs to another owner is collected in a batch, and
 * one batch per pair of owners is under way at a time; the next is filled meanwhile. A forget for which there is no
 * memory is lost: the inode then keeps its count until unmount, which drops all counts.
 */
#include <stdlib.h>

#include "fs/inode_internal.h"

enum { LOOKUP_CAPACITY_MIN = 256 };

/* ---- the table ---- */

static uint64_t home_place(const struct lookup_table *table, uint64_t ino)
{
	return (ino * 0x9e3779b97f4a7c15ull >> 20) & (table->capacity - 1);
}

struct lookup_entry *lookup_table_find(const struct lookup_table *table, uint64_t ino)
{
	if (!table->capacity)
		return NULL;
	for (uint64_t i = home_place(table, ino);; i = (i + 1) & (table->capacity - 1)) {
		if (table->entries[i].ino == ino)
			return &table->entries[i];
		if (!table->entries[i].ino)
			return NULL;
	}
}

static void insert(struct lookup_table *table, struct lookup_entry entry)
{
	uint64_t i = home_place(table, entry.ino);
	while (table->entries[i].ino)
		i = (i + 1) & (table->capacity - 1);
	table->entries[i] = entry;
}

static int resize(struct lookup_table *table, uint64_t capacity)
{
	struct lookup_table larger = *table;
	larger.entries = calloc(capacity, sizeof(*larger.entries));
	larger.capacity = capacity;
	if (!larger.entries)
		return -ENOMEM;
	for (uint64_t i = 0; i < table->capacity; i++)
		if (table->entries[i].ino)
			insert(&larger, table->entries[i]);
	free(table->entries);
	*table = larger;
	return 0;
}

/* Room for one more than what is used and reserved; one place always stays empty, where searches end. */
static int make_room(struct lookup_table *table)
{
	const uint64_t wanted = table->used + table->reserved + 1;
	if (wanted * 4 <= table->capacity * 3)
		return 0;
	if (!resize(table, table->capacity ? 2 * table->capacity : LOOKUP_CAPACITY_MIN))
		return 0;
	return wanted < table->capacity ? 0 : -ENOMEM;
}

int lookup_table_reserve(struct lookup_table *table)
{
	const int error = make_room(table);
	if (!error)
		table->reserved++;
	return error;
}

int lookup_table_add(struct lookup_table *table, uint64_t ino, uint64_t count)
{
	struct lookup_entry *entry = lookup_table_find(table, ino);
	if (entry) {
		entry->count += count;
		return 0;
	}
	const int error = make_room(table);
	if (error)
		return error;
	insert(table, (struct lookup_entry){.ino = ino, .count = count});
	table->used++;
	return 0;
}

int lookup_table_set(struct lookup_table *table, uint64_t ino, uint64_t count)
{
	struct lookup_entry *entry = lookup_table_find(table, ino);
	if (!entry)
		return lookup_table_add(table, ino, count);
	entry->count = count;
	return 0;
}

/* Entries behind the hole that the search from their own place would no longer reach move into it. */
void lookup_table_remove(struct lookup_table *table, struct lookup_entry *entry)
{
	const uint64_t mask = table->capacity - 1;
	uint64_t hole = (uint64_t)(entry - table->entries);
	table->entries[hole].ino = 0;
	table->used--;
	for (uint64_t i = (hole + 1) & mask; table->entries[i].ino; i = (i + 1) & mask) {
		const uint64_t home = home_place(table, table->entries[i].ino);
		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		table->entries[hole] = table->entries[i];
		table->entries[i].ino = 0;
		hole = i;
	}
	/* Best effort: without memory it stays as large as it is. */
	if (table->capacity > LOOKUP_CAPACITY_MIN && (table->used + table->reserved) * 8 < table->capacity &&
		resize(table, table->capacity / 2))
		return;
}

/* ---- counts ---- */

int inode_lookup_reserve(struct owner *owner) { return lookup_table_reserve(&owner->inodes->lookups); }
void inode_lookup_unreserve(struct owner *owner) { owner->inodes->lookups.reserved--; }

int inode_lookup_add(struct owner *owner, uint64_t ino, uint64_t count)
{
	return lookup_table_add(&owner->inodes->lookups, ino, count);
}

bool inode_lookup_drop(struct owner *owner, uint64_t ino, uint64_t count)
{
	struct lookup_table *table = &owner->inodes->lookups;
	struct lookup_entry *entry = lookup_table_find(table, ino);
	if (!entry)
		return false;
	const bool unlinked = entry->count & LOOKUP_UNLINKED;
	const uint64_t held = entry->count & ~LOOKUP_UNLINKED;
	if (count < held) {
		entry->count -= count;
		return false;
	}
	lookup_table_remove(table, entry);
	table->unlinked -= unlinked;
	return unlinked;
}

uint64_t inode_lookup_count(const struct owner *owner, uint64_t ino)
{
	const struct lookup_entry *entry = lookup_table_find(&owner->inodes->lookups, ino);
	return entry ? entry->count & ~LOOKUP_UNLINKED : 0;
}

uint64_t inode_lookup_total(const struct owner *owner) { return owner->inodes->lookups.used; }
uint64_t inode_lookup_unlinked(const struct owner *owner) { return owner->inodes->lookups.unlinked; }

void inode_lookup_copy(const struct owner *owner, struct fs_count *out)
{
	const struct lookup_table *table = &owner->inodes->lookups;
	for (uint64_t i = 0; i < table->capacity; i++)
		if (table->entries[i].ino)
			*out++ = (struct fs_count){.ino = table->entries[i].ino, .count = table->entries[i].count & ~LOOKUP_UNLINKED};
}

void inode_unlinked(struct inode *inode)
{
	struct lookup_entry *entry = lookup_table_find(&inode->owner->inodes->lookups, inode->ino);
	if (!entry) {
		inode_reap(inode->owner, inode->ino);
	} else if (!(entry->count & LOOKUP_UNLINKED)) {
		entry->count |= LOOKUP_UNLINKED;
		inode->owner->inodes->lookups.unlinked++;
	}
}

void inode_linked(struct inode *inode)
{
	struct lookup_entry *entry = lookup_table_find(&inode->owner->inodes->lookups, inode->ino);
	if (entry && entry->count & LOOKUP_UNLINKED) {
		entry->count &= ~LOOKUP_UNLINKED;
		inode->owner->inodes->lookups.unlinked--;
	}
}

/* ---- forgetting ---- */

static void forget_here(struct owner *owner, uint64_t ino, uint64_t count)
{
	if (inode_lookup_drop(owner, ino, count))
		inode_reap(owner, ino);
}

static void forget_send(struct inode_table *table, struct forget_line *line);

/* Back where it was filled: it may be filled again, and the next one may go. */
static void forget_returned(struct message *message)
{
	struct forget_batch *batch = CONTAINER_OF(message, struct forget_batch, message);
	struct inode_table *table = batch->from;
	struct forget_line *line = &table->forget[batch->to];
	line->in_flight = false;
	if (line->spare) {
		free(batch);
	} else {
		line->spare = batch;
	}
	forget_send(table, line);
	if (!line->in_flight)
		fiber_cond_broadcast(&table->forget_idle);
}

static void forget_arrived(struct message *message)
{
	struct forget_batch *batch = CONTAINER_OF(message, struct forget_batch, message);
	struct owner *owner = batch->from->owner->fs->owners[batch->to];
	for (unsigned i = 0; i < batch->count; i++)
		forget_here(owner, batch->entries[i].ino, batch->entries[i].count);
	message->fn = forget_returned;
	reactor_send(batch->from->owner->reactor, message);
}

static void forget_send(struct inode_table *table, struct forget_line *line)
{
	struct forget_batch *batch = line->first;
	if (line->in_flight || !batch)
		return;
	line->first = batch->next;
	if (!line->first)
		line->last = NULL;
	line->in_flight = true;
	batch->message.fn = forget_arrived;
	reactor_send(table->owner->fs->owners[batch->to]->reactor, &batch->message);
}

/* The batch of this line that has room. */
static struct forget_batch *forget_room(struct inode_table *table, unsigned to)
{
	struct forget_line *line = &table->forget[to];
	if (line->last && line->last->count < FORGET_BATCH)
		return line->last;
	struct forget_batch *batch = line->spare ? line->spare : malloc(sizeof(*batch));
	if (!batch)
		return NULL;
	line->spare = NULL;
	batch->next = NULL;
	batch->from = table;
	batch->to = to;
	batch->count = 0;
	if (line->last)
		line->last->next = batch;
	else
		line->first = batch;
	line->last = batch;
	return batch;
}

void fs_forget(struct fs *fs, uint64_t ino, uint64_t nlookup)
{
	struct owner *here = owner_here(fs), *owner = owner_of_ino(fs, ino);
	if (owner == here) {
		forget_here(owner, ino, nlookup);
		return;
	}
	struct forget_batch *batch = forget_room(here->inodes, owner->index);
	if (!batch) {
		log_warn("%s: no memory to forget inode %llu: kept until unmount", fs->bdev_name,
			(unsigned long long)ino);
		return;
	}
	batch->entries[batch->count].ino = ino;
	batch->entries[batch->count++].count = nlookup;
	forget_send(here->inodes, &here->inodes->forget[owner->index]);
}

void inode_table_await_forgets(struct owner *owner)
{
	struct inode_table *table = owner->inodes;
	for (unsigned i = 0; i < owner->fs->owner_count; i++)
		while (table->forget[i].in_flight)
			fiber_cond_wait(&table->forget_idle, "forgets on their way");
}

void inode_table_quiet(struct owner *owner)
{
	inode_times_stop(owner->inodes);
	inode_table_await_forgets(owner);
}

void inode_table_forget_all(struct owner *owner)
{
	struct inode_table *table = owner->inodes;
	inode_table_quiet(owner);
	struct lookup_table lookups = table->lookups;
	table->lookups = (struct lookup_table){.reserved = lookups.reserved};
	for (uint64_t i = 0; i < lookups.capacity; i++)
		if (lookups.entries[i].ino && lookups.entries[i].count & LOOKUP_UNLINKED)
			inode_reap(owner, lookups.entries[i].ino);
	free(lookups.entries);
}
