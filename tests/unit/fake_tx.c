/* SPDX-License-Identifier: BSD-3-Clause */
/* See fake_tx.h: the fake itself, and transactions. fake_cache.c has blocks and inodes. */
#include "tests/unit/fake_internal.h"

#include "fs/mkfs.h"
#include "fs/tree.h"

struct fake fake;
struct fake_block *fake_blocks;

unsigned tree_node_bytes(void)
{
	return fake.node_bytes;
}

void fake_init(unsigned node_bytes)
{
	char message[256];
	const struct mkfs_options options = {.size_bytes = MIB(256), .journal_bytes = MIB(1), .ag_bytes = MIB(16),
		.small = true, .fsid = 77, .journal_id = 78, .hash_seed = 79, .first_sequence = 1};

	memset(&fake, 0, sizeof(fake));
	CHECK(!mkfs_plan(&options, &fake.fs.super, message, sizeof(message)));
	fake.owner.fs = &fake.fs;
	fake.fs.owner_count = 1;
	fake.fs.owners[0] = &fake.owner;
	fake.node_bytes = node_bytes;
	fake.run_max = 1000;
	fake.random = 88172645463325252ull;
	fake_blocks = calloc(le64_get(fake.fs.super.block_count), sizeof(*fake_blocks));
	for (uint32_t ag = 0; ag < le32_get(fake.fs.super.ag_count); ag++)
		for (uint32_t i = ag_fixed_blocks(&fake.fs.super) + 1; i < ag_block_count(&fake.fs.super, ag); i++)
			fake_blocks[ag_first_block(&fake.fs.super, ag) + i].free = true;
}

void fake_fini(void)
{
	for (uint64_t i = 0; i < le64_get(fake.fs.super.block_count); i++) {
		CHECK(!fake_blocks[i].buf.pins);
		free(fake_blocks[i].buf.data);
		free(fake_blocks[i].snapshot);
	}
	free(fake_blocks);
	fake_blocks = NULL;
}

uint32_t fake_random(uint32_t below)
{
	fake.random ^= fake.random << 13;
	fake.random ^= fake.random >> 7;
	fake.random ^= fake.random << 17;
	return (uint32_t)(fake.random >> 11) % below;
}

int fake_failing(void)
{
	if (!fake.fail_after || --fake.fail_after)
		return 0;
	return fake.fail_error ? fake.fail_error : -EIO;
}

int fake_run(struct change *change)
{
	struct tx *tx;
	int error = tx_begin(&fake.owner, JOURNAL_TX_BLOCKS_MAX, &tx);

	if (error)
		return error;
	tx_change(tx_home(tx), change);
	error = tx_prepare(tx);
	if (!error)
		tx_apply(tx);
	tx_end(tx);
	return error;
}

/* ---- free space ---- */

static struct run blocks_take(uint32_t want)
{
	const uint64_t count = le64_get(fake.fs.super.block_count);
	uint64_t at = fake_random((uint32_t)count);
	struct run run = {0};

	for (uint64_t tries = 0; !fake_blocks[at].free || fake_blocks[at].freed_now; tries++) {
		CHECK(tries < count);
		at = (at + 1) % count;
	}
	run.block = at;
	while (run.count < want && at < count && fake_blocks[at].free && !fake_blocks[at].freed_now) {
		fake_blocks[at++].free = false;
		run.count++;
	}
	fake.used_blocks += run.count;
	return run;
}

uint64_t fake_take(uint32_t count)
{
	for (;;) {
		const struct run run = blocks_take(count);
		if (run.count == count)
			return run.block;
		fake_give(run.block, run.count);
	}
}

uint64_t fake_take_at(uint64_t block, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		CHECK(fake_blocks[block + i].free);
		fake_blocks[block + i].free = false;
	}
	fake.used_blocks += count;
	return block;
}

void fake_give(uint64_t block, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		fake_blocks[block + i].free = true;
	fake.used_blocks -= count;
}

bool fake_in_use(uint64_t block)
{
	return !fake_blocks[block].free;
}

MAY_WAIT int tx_alloc(struct tx_part *part, uint64_t goal, uint32_t want, uint32_t min, struct run *out)
{
	const int error = fake_failing();

	CHECK(fake.in_prepare && want && min && min <= want && part->run_count < TX_RUNS_MAX);
	if (error)
		return error;
	const uint32_t limit = 1 + fake_random(fake.run_max);
	*out = blocks_take(MAX(min, MIN(want, limit)));
	CHECK(out->count >= min);
	part->runs[part->run_count++] = (struct tx_run){.run = *out, .allocator = part->owner};
	return 0;
}

int tx_free(struct tx_part *part, struct run run, enum run_kind kind)
{
	const int error = fake_failing();

	CHECK(fake.in_prepare && run.count);
	if (error)
		return error;
	if (part->run_count == TX_RUNS_MAX)
		return -E2BIG;
	for (uint32_t i = 0; i < run.count; i++) {
		CHECK(!fake_blocks[run.block + i].free && !fake_blocks[run.block + i].freed_now);
		fake_blocks[run.block + i].freed_now = true;
	}
	part->runs[part->run_count++] = (struct tx_run){.run = run, .kind = kind};
	return 0;
}

static void runs_finish(const struct tx_part *part, bool applied)
{
	for (unsigned i = 0; i < part->run_count; i++) {
		const struct run run = part->runs[i].run;
		for (uint32_t k = 0; k < run.count; k++) {
			struct fake_block *block = &fake_blocks[run.block + k];
			block->freed_now = false;
			if (!!part->runs[i].allocator == applied)
				continue;
			block->free = true;
			fake.used_blocks--;
			CHECK(!applied || !block->buf.valid || block->buf.dead);
			fake_block_drop(block);
		}
	}
}

/* ---- transactions ---- */

MAY_WAIT int tx_begin(struct owner *owner, unsigned blocks, struct tx **out)
{
	const int error = fake_failing();

	CHECK(blocks && blocks <= JOURNAL_TX_BLOCKS_MAX);
	if (error)
		return error;
	struct tx *tx = calloc(1, sizeof(*tx));
	struct tx_part *part = calloc(1, sizeof(*part));
	*tx = (struct tx){.fs = owner->fs, .home = owner, .part_count = 1, .parts = {part}};
	*part = (struct tx_part){.tx = tx, .owner = owner, .changes_tail = &part->changes};
	*out = tx;
	fake.in_prepare = true;
	return 0;
}

struct tx_part *tx_part(struct tx *tx, struct owner *owner)
{
	CHECK(owner == tx->home);
	return tx->parts[0];
}

void tx_change(struct tx_part *part, struct change *change)
{
	change->next = NULL;
	*part->changes_tail = change;
	part->changes_tail = &change->next;
	if (!part->unprepared)
		part->unprepared = change;
}

void *tx_scratch(struct tx_part *part, size_t bytes)
{
	if (!part->scratch)
		part->scratch = calloc(1, TX_SCRATCH_BYTES);
	bytes = align_up(bytes, 16);
	if (part->scratch_used + bytes > TX_SCRATCH_BYTES)
		return NULL;
	part->scratch_used += bytes;
	return part->scratch + part->scratch_used - bytes;
}

MAY_WAIT int tx_prepare_changes(struct tx *tx)
{
	struct tx_part *part = tx->parts[0];

	for (; part->unprepared; part->unprepared = part->unprepared->next) {
		const int error = part->unprepared->prepare ? part->unprepared->prepare(part, part->unprepared) : 0;
		if (error)
			return error;
	}
	return 0;
}

MAY_WAIT int tx_prepare(struct tx *tx)
{
	return tx_prepare_changes(tx);
}

static void pin_check(const struct touched *touched)
{
	struct fake_block *block = &fake_blocks[touched->buf->block];

	if (touched->buf->dead)
		return;
	fake.pinned_blocks++;
	fake.dirty_blocks += touched->range_count > 0;
	fake_block_compare(block);
	if (touched->range_count)
		CHECK_NULL(block_verify(&fake.fs.super, touched->buf->data, touched->buf->block, touched->buf->type,
			touched->buf->owner_id, false));
}

MAY_WAIT void tx_apply(struct tx *tx)
{
	struct tx_part *part = tx->parts[0];

	for (unsigned i = 0; i < part->pin_count; i++)
		fake_block_compare(&fake_blocks[part->pins[i].buf->block]);
	fake.in_prepare = false;
	fake.in_apply = true;
	fake.dirty_bytes = fake.dirty_blocks = fake.pinned_blocks = 0;
	for (struct change *change = part->changes; change; change = change->next)
		change->apply(part, change);
	fake.in_apply = false;
	tx->applied = true;
	fake_snapshots_take(part);
	for (unsigned i = 0; i < part->pin_count; i++)
		pin_check(&part->pins[i]);
}

MAY_WAIT void tx_end(struct tx *tx)
{
	struct tx_part *part = tx->parts[0];

	for (struct change *change = part->changes; !tx->applied && change != part->unprepared; change = change->next)
		if (change->cancel)
			change->cancel(part, change);
	fake.in_prepare = false;
	for (unsigned i = 0; i < part->pin_count; i++) {
		fake_block_compare(&fake_blocks[part->pins[i].buf->block]);
		buf_put(part->owner, part->pins[i].buf);
	}
	runs_finish(part, tx->applied);
	fake_inodes_check();
	free(part->scratch);
	free(part);
	free(tx);
}
