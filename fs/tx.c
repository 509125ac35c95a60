/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Transactions over one or several owners. tx.h says what the steps are.
 *
 * The transaction's struct belongs to the initiator. While it prepares, one owner at a time works on it (the initiator is
 * parked in reactor_call), so no two touch it at once. In apply every part belongs to its owner until its message comes
 * back. Log space: tx_begin reserves the worst case; tx_prepare gives each part what its pinned blocks can cost at most;
 * what a part does not use goes into its owner's credit.
 */
#include "fs/tx.h"

#include <stdlib.h>

#include "fs/alloc.h"
#include "fs/op.h"

struct tx_pool {
	struct tx *free_txs;            /* linked through home */
	struct tx_part *free_parts;     /* linked through tx; each keeps its scratch */
};

int tx_pool_create(struct owner *owner)
{
	owner->txs = calloc(1, sizeof(*owner->txs));
	return owner->txs ? 0 : -ENOMEM;
}

void tx_pool_destroy(struct owner *owner)
{
	struct tx_pool *pool = owner->txs;
	if (!pool)
		return;
	while (pool->free_txs) {
		struct tx *tx = pool->free_txs;
		pool->free_txs = (struct tx *)tx->home;
		free(tx);
	}
	while (pool->free_parts) {
		struct tx_part *part = pool->free_parts;
		pool->free_parts = (struct tx_part *)part->tx;
		free(part->scratch);
		free(part);
	}
	free(pool);
	owner->txs = NULL;
}

static struct tx_part *part_take(struct tx *tx, struct owner *owner)
{
	struct tx_pool *pool = owner_here(tx->fs)->txs;
	struct tx_part *part = pool->free_parts;
	uint8_t *scratch = NULL;
	if (part) {
		pool->free_parts = (struct tx_part *)part->tx;
		scratch = part->scratch;
	} else if (!(part = malloc(sizeof(*part)))) {
		return NULL;
	}
	memset(part, 0, offsetof(struct tx_part, pins));
	part->scratch = scratch;
	part->tx = tx;
	part->owner = owner;
	part->changes_tail = &part->changes;
	tx->parts[tx->part_count++] = part;
	return part;
}

static void part_give_back(struct tx_pool *pool, struct tx_part *part)
{
	part->tx = (struct tx *)pool->free_parts;
	pool->free_parts = part;
}

static void tx_give_back(struct tx *tx)
{
	struct tx_pool *pool = tx->home->txs;
	for (unsigned i = 0; i < tx->part_count; i++)
		part_give_back(pool, tx->parts[i]);
	tx->home = (struct owner *)pool->free_txs;
	pool->free_txs = tx;
}

int tx_begin(struct owner *owner, unsigned blocks, struct tx **out)
{
	assert(blocks <= JOURNAL_TX_BLOCKS_MAX);
	int error = fs_may_change(owner->fs);
	if (error)
		return error;
	const unsigned owners = MIN(owner->fs->owner_count, (unsigned)TX_OWNERS_MAX);
	const uint32_t log_bytes = blocks * JOURNAL_BLOCK_COST + owners * JOURNAL_PART_COST;
	cache_reserve(owner, blocks);
	error = journal_reserve(owner, log_bytes);
	struct tx_pool *pool = owner->txs;
	struct tx *tx = pool->free_txs;
	if (tx)
		pool->free_txs = (struct tx *)tx->home;
	else
		tx = malloc(sizeof(*tx));
	if (error || !tx) {
		cache_unreserve(owner, blocks);
		if (!error)
			journal_unreserve(owner, log_bytes);
		free(tx);
		return error ? error : -ENOMEM;
	}
	memset(tx, 0, sizeof(*tx));
	tx->fs = owner->fs;
	tx->home = owner;
	tx->log_bytes = log_bytes;
	tx->cache_pins = blocks;
	fiber_group_init(&tx->remote);
	if (!part_take(tx, owner)) {
		tx_end(tx);
		return -ENOMEM;
	}
	*out = tx;
	return 0;
}

struct tx_part *tx_part(struct tx *tx, struct owner *owner)
{
	for (unsigned i = 0; i < tx->part_count; i++)
		if (tx->parts[i]->owner == owner)
			return tx->parts[i];
	return tx->part_count < TX_OWNERS_MAX ? part_take(tx, owner) : NULL;
}

void tx_change(struct tx_part *part, struct change *change)
{
	change->next = NULL;
	*part->changes_tail = change;
	part->changes_tail = &change->next;
	if (!part->unprepared)
		part->unprepared = change;
}

/* ---- prepare ---- */

static struct touched *find_pin(struct tx_part *part, const struct buf *buf)
{
	for (unsigned i = 0; i < part->pin_count; i++)
		if (part->pins[i].buf == buf)
			return &part->pins[i];
	return NULL;
}

static int pin(struct tx_part *part, struct buf *buf)
{
	if (find_pin(part, buf)) {
		buf_put(part->owner, buf);
		return 0;
	}
	if (part->pin_count == TX_PINS_MAX) {
		buf_put(part->owner, buf);
		return -E2BIG;
	}
	part->pins[part->pin_count++] = (struct touched){.buf = buf};
	return 0;
}

int tx_pin(struct tx_part *part, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out)
{
	struct buf *buf;
	int error = buf_get(part->owner, block, type, owner_id, &buf);
	if (!error)
		error = pin(part, buf);
	if (!error)
		*out = buf;
	return error;
}

int tx_pin_new(struct tx_part *part, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out)
{
	struct buf *buf;
	int error = buf_new(part->owner, block, type, owner_id, &buf);
	if (!error)
		error = pin(part, buf);
	if (!error)
		*out = buf;
	return error;
}

/* The part of the owner of the AG that the run lies in gets it. */
static int add_run(struct tx *tx, struct run run, struct owner *allocator, enum run_kind kind)
{
	struct tx_part *part = tx_part(tx, owner_of_ag(tx->fs, ag_of_block(tx->fs, run.block)));
	if (!part || part->run_count == TX_RUNS_MAX)
		return -E2BIG;
	part->runs[part->run_count++] = (struct tx_run){.run = run, .allocator = allocator, .kind = kind};
	return 0;
}

int tx_adopt(struct tx_part *part, struct run run)
{
	return add_run(part->tx, run, part->owner, RUN_DATA);
}

static MAY_WAIT int alloc_flagged(struct tx_part *part, uint64_t goal, uint32_t want, uint32_t min, unsigned flags, struct run *out)
{
	if (part->tx->use_held_back)
		flags |= ALLOC_HELD_BACK;
	int error = alloc_run(part->owner, goal, want, min, flags, out);
	if (error)
		return error;
	error = tx_adopt(part, *out);
	if (error)
		alloc_release(part->owner, *out);
	return error;
}

int tx_alloc(struct tx_part *part, uint64_t goal, uint32_t want, uint32_t min, struct run *out)
{
	return alloc_flagged(part, goal, want, min, 0, out);
}

int tx_alloc_own(struct tx_part *part, uint64_t goal, uint32_t want, uint32_t min, struct run *out)
{
	return alloc_flagged(part, goal, want, min, ALLOC_OWN, out);
}

int tx_free(struct tx_part *part, struct run run, enum run_kind kind)
{
	const struct fs *fs = part->tx->fs;
	const uint64_t first = le64_get(fs->super.first_ag_block);
	const uint32_t ag = run.block < first ? UINT32_MAX : ag_of_block(fs, run.block);
	if (run.block < first || ag >= le32_get(fs->super.ag_count) || !run.count ||
		ag_relative(fs, run.block) < ag_fixed_blocks(&fs->super) ||
		(uint64_t)ag_relative(fs, run.block) + run.count > ag_block_count(&fs->super, ag))
		return fs_corrupt(part->tx->fs, run.block, "a run to be freed");
	return add_run(part->tx, run, NULL, kind);
}

void *tx_scratch(struct tx_part *part, size_t bytes)
{
	bytes = align_up(bytes, 16);
	if (part->scratch_used + bytes > TX_SCRATCH_BYTES)
		return NULL;
	if (!part->scratch && !(part->scratch = malloc(TX_SCRATCH_BYTES)))
		return NULL;
	void *memory = part->scratch + part->scratch_used;
	part->scratch_used += bytes;
	memset(memory, 0, bytes);
	return memory;
}

static MAY_WAIT int prepare_changes(void *arg)
{
	struct tx_part *part = arg;
	while (part->unprepared) {
		struct change *change = part->unprepared;
		const int error = change->prepare ? change->prepare(part, change) : 0;
		if (error)
			return error;
		part->unprepared = change->next;
	}
	return 0;
}

static MAY_WAIT int prepare_runs(void *arg)
{
	struct tx_part *part = arg;
	for (unsigned i = 0; i < part->run_count; i++) {
		const int error = alloc_prepare(part, &part->runs[i]);
		if (error)
			return error;
	}
	const uint32_t capacity = part->pin_count * JOURNAL_BLOCK_COST;
	part->journal_part = journal_part_get(part->owner, capacity);
	if (!part->journal_part)
		return -ENOMEM;
	part->log_bytes = capacity + JOURNAL_PART_COST;
	if (part->log_bytes > part->tx->log_bytes) {
		log_error("transaction: touches more blocks than it reserved log for (%u in this part)", part->pin_count);
		part->log_bytes = 0;
		return -EOVERFLOW;
	}
	part->tx->log_bytes -= part->log_bytes;
	return 0;
}

int tx_prepare_changes(struct tx *tx)
{
	/* Preparing a change may add parts (loans) and runs, but no changes to parts before it. */
	for (unsigned i = 0; i < tx->part_count; i++) {
		struct tx_part *part = tx->parts[i];
		const int error = part->unprepared ? reactor_call(part->owner->reactor, prepare_changes, part) : 0;
		if (error)
			return error;
	}
	return 0;
}

int tx_prepare(struct tx *tx)
{
	const int failed = tx_prepare_changes(tx);
	if (failed)
		return failed;
	for (unsigned i = 0; i < tx->part_count; i++) {
		const int error = reactor_call(tx->parts[i]->owner->reactor, prepare_runs, tx->parts[i]);
		if (error)
			return error;
	}
	const int error = fs_may_change(tx->fs);
	return error ? error : op_claim();
}

/* ---- apply ---- */

void tx_dirty(struct tx_part *part, struct buf *buf, unsigned offset, unsigned length)
{
	assert(offset + length <= FS_BLOCK_SIZE && length);
	struct touched *touched = find_pin(part, buf);
	assert(touched && "a block must be pinned in the part that changes it");
	const uint16_t start = (uint16_t)(offset & ~7u), end = (uint16_t)align_up(offset + length, 8);
	for (unsigned i = 0; i < touched->range_count; i++)
		if (start <= touched->range[i].end + 32u && end + 32u >= touched->range[i].start) {
			touched->range[i].start = MIN(touched->range[i].start, start);
			touched->range[i].end = MAX(touched->range[i].end, end);
			return;
		}
	if (touched->range_count == TX_RANGES_MAX) { /* widen the last one */
		const unsigned last = TX_RANGES_MAX - 1;
		touched->range[last].start = MIN(touched->range[last].start, start);
		touched->range[last].end = MAX(touched->range[last].end, end);
		return;
	}
	touched->range[touched->range_count].start = start;
	touched->range[touched->range_count++].end = end;
}

void tx_kill(struct tx_part *part, struct buf *buf)
{
	struct touched *touched = find_pin(part, buf);
	assert(touched);
	touched->range_count = 0;
	buf_kill(part->owner, buf);
}

static void record(struct journal_part *journal, const struct buf *buf, unsigned start, unsigned end)
{
	const unsigned length = end - start;
	const unsigned bytes = (unsigned)sizeof(struct journal_record) + length;
	assert(journal->length + bytes <= journal->capacity);
	struct journal_record *record = (struct journal_record *)(journal->records + journal->length);
	*record = (struct journal_record){.block = le64_set(buf->block), .offset = le16_set((uint16_t)start),
		.length = le16_set((uint16_t)length)};
	memcpy(record + 1, buf->data + start, length);
	journal->length += bytes;
	journal->record_count++;
}

static void record_touched(struct tx_part *part, const struct touched *touched)
{
	struct buf *buf = touched->buf;
	if (!touched->range_count || buf->dead)
		return;
	unsigned changed = 0;
	for (unsigned i = 0; i < touched->range_count; i++)
		changed += touched->range[i].end - touched->range[i].start + (unsigned)sizeof(struct journal_record);
	const bool late = sabotage(SABOTAGE_NO_FULL_IMAGE) || (sabotage(SABOTAGE_LATE_TOUCH) && buf->last_part);
	const bool full = (!buf->logged && !late) || changed >= FS_BLOCK_SIZE || buf->fresh;
	if (full) {
		record(part->journal_part, buf, 0, FS_BLOCK_SIZE);
	} else {
		for (unsigned i = 0; i < touched->range_count; i++)
			record(part->journal_part, buf, touched->range[i].start, touched->range[i].end);
	}
	buf_logged(part->owner, buf, stream_next_number(part->owner));
}

/* One part, on its owner, without a wait. */
static void part_apply(struct tx_part *part, uint64_t tx_id, uint32_t tx_parts)
{
	struct owner *owner = part->owner;
	NO_WAIT_BEGIN();
	for (struct change *change = part->changes; change; change = change->next)
		change->apply(part, change);
	for (unsigned i = 0; i < part->run_count; i++)
		alloc_apply(part, &part->runs[i]);
	struct journal_part *journal = part->journal_part;
	for (unsigned i = 0; i < part->pin_count; i++)
		record_touched(part, &part->pins[i]);
	journal->tx_id = tx_parts > 1 ? tx_id : 0;
	journal->tx_parts = tx_parts;
	journal->maps_data = part->tx->maps_data;
	journal->cost = MIN(part->log_bytes, journal->length + (uint32_t)JOURNAL_PART_COST);
	const uint32_t unused = part->log_bytes - journal->cost;
	part->journal_part = NULL;
	part->log_bytes = 0;
	part->applied = true;
	if (journal->length || tx_parts > 1) {
		journal_send(journal);
	} else { /* nothing changed after all */
		journal_unreserve(owner, journal->cost);
		journal_part_put(journal);
	}
	if (unused)
		journal_unreserve(owner, unused);
	for (unsigned i = 0; i < part->pin_count; i++)
		buf_put(owner, part->pins[i].buf);
	part->pin_count = 0;
	owner->stats.transactions++;
	NO_WAIT_END();
}

static void part_done(struct message *message)
{
	struct tx_part *part = CONTAINER_OF(message, struct tx_part, message);
	fiber_group_done(&part->tx->remote);
}

static void part_arrived(struct message *message)
{
	struct tx_part *part = CONTAINER_OF(message, struct tx_part, message);
	part_apply(part, part->tx->id, part->tx->sent_parts);
	message->fn = part_done;
	reactor_send(part->tx->home->reactor, message);
}

static bool part_has_work(const struct tx_part *part) { return part->changes || part->run_count; }

void tx_apply(struct tx *tx)
{
	struct owner *home = tx->home;
	while (home->gates_closed) /* a checkpoint draws its line; it waits for nothing but the apply steps under way */
		fiber_cond_wait(&home->gate, "the line of a checkpoint or scrub");
	home->applying++;
	tx->id = 1 + atomic_fetch_add_explicit(&tx->fs->tx_ids, 1, memory_order_relaxed);
	tx->sent_parts = 0;
	for (unsigned i = 0; i < tx->part_count; i++)
		tx->sent_parts += part_has_work(tx->parts[i]);
	tx->applied = true;
	/* Home first: what follows cannot fail and is only sent once it has begun. */
	if (part_has_work(tx->parts[0]))
		part_apply(tx->parts[0], tx->id, tx->sent_parts);
	for (unsigned i = 1; i < tx->part_count; i++) {
		struct tx_part *part = tx->parts[i];
		if (!part_has_work(part))
			continue;
		fiber_group_add(&tx->remote, 1);
		part->message.fn = part_arrived;
		reactor_send(part->owner->reactor, &part->message);
	}
	if (tx->sent_parts > 1)
		tx->home->stats.multi_owner++;
	fiber_group_wait(&tx->remote);
	if (--home->applying == 0 && home->gates_closed)
		fiber_cond_broadcast(&home->gate);
}

/* ---- the line of a checkpoint ---- */

void tx_gate_close(struct owner *owner)
{
	owner->gates_closed++;
	while (owner->applying)
		fiber_cond_wait(&owner->gate, "apply steps to end");
}

void tx_gate_open(struct owner *owner)
{
	assert(owner->gates_closed);
	owner->gates_closed--;
	fiber_cond_broadcast(&owner->gate);
}

/* ---- end ---- */

/* On the part's owner: an unapplied part lets go of what it holds. */
static int part_undo(void *arg)
{
	struct tx_part *part = arg;
	for (struct change *change = part->changes; change != part->unprepared; change = change->next)
		if (change->cancel)
			change->cancel(part, change);
	for (unsigned i = 0; i < part->pin_count; i++)
		buf_put(part->owner, part->pins[i].buf);
	part->pin_count = 0;
	if (part->journal_part)
		journal_part_put(part->journal_part);
	part->journal_part = NULL;
	return 0;
}

struct release {
	struct owner *owner;
	struct run run;
};

static int release_run(void *arg)
{
	const struct release *release = arg;
	if (!sabotage(SABOTAGE_KEEPS_RESERVATION))
		alloc_release(release->owner, release->run);
	return 0;
}

/* Pins go before runs: a block that somebody else could allocate must not be cached as ours any more. */
static MAY_WAIT void undo(struct tx_part *part)
{
	part->tx->log_bytes += part->log_bytes;
	part->log_bytes = 0;
	if (part->pin_count || part->journal_part || part->changes != part->unprepared)
		reactor_call_nowait(part->owner->reactor, part_undo, part);
}

static MAY_WAIT void release_runs(struct tx_part *part)
{
	for (unsigned i = 0; i < part->run_count; i++) {
		struct owner *allocator = part->runs[i].allocator;
		struct release release = {.owner = allocator, .run = part->runs[i].run};
		if (allocator)
			reactor_call_nowait(allocator->reactor, release_run, &release);
	}
}

void tx_end(struct tx *tx)
{
	for (unsigned i = 0; i < tx->part_count; i++)
		if (!tx->parts[i]->applied)
			undo(tx->parts[i]);
	for (unsigned i = 0; i < tx->part_count && !tx->applied; i++)
		release_runs(tx->parts[i]);
	if (tx->log_bytes)
		journal_unreserve(tx->home, tx->log_bytes);
	cache_unreserve(tx->home, tx->cache_pins);
	tx_give_back(tx);
}
