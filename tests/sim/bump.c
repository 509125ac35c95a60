/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/bump.h"

#include <errno.h>

#include "fs/journal_internal.h"

struct bump_change {
	struct change change;
	uint32_t ag;
	bool fail;
	struct buf *header;
};

static MAY_WAIT int bump_prepare(struct tx_part *part, struct change *change)
{
	struct bump_change *bump = CONTAINER_OF(change, struct bump_change, change);
	const int error = alloc_pin_header(part, bump->ag, &bump->header);
	return error || !bump->fail ? error : -EDOM;
}

static void bump_apply(struct tx_part *part, struct change *change)
{
	struct bump_change *bump = CONTAINER_OF(change, struct bump_change, change);
	struct ag_header *header = (struct ag_header *)bump->header->data;
	header->next_generation = le32_set(le32_get(header->next_generation) + 1);
	tx_dirty(part, bump->header, offsetof(struct ag_header, next_generation), sizeof(header->next_generation));
}

static MAY_WAIT int prepare_all(struct tx *tx, const struct bump *bump, struct bump_change *changes)
{
	unsigned count = 0;
	for (uint32_t ag = 0; ag < 32; ag++) {
		if (!(bump->ags >> ag & 1))
			continue;
		struct tx_part *part = tx_part(tx, owner_of_ag(tx->fs, ag));
		if (!part)
			return -ENOMEM;
		changes[count] = (struct bump_change){.change = {.prepare = bump_prepare, .apply = bump_apply}, .ag = ag,
			.fail = bump->how == BUMP_FAIL && !(bump->ags >> ag >> 1)};
		tx_change(part, &changes[count++].change);
	}
	return tx_prepare(tx);
}

int bump_run(struct owner *home, const struct bump *bump)
{
	struct bump_change changes[TX_OWNERS_MAX];
	struct tx *tx;
	const unsigned count = (unsigned)__builtin_popcount(bump->ags);
	assert(count <= TX_OWNERS_MAX);
	int error = tx_begin(home, bump->blocks ? bump->blocks : count, &tx);
	if (error)
		return error;
	error = prepare_all(tx, bump, changes);
	if (!error && bump->how == BUMP_APPLY)
		tx_apply(tx);
	tx_end(tx);
	return error;
}

const struct fs_super *bump_super(const void *memory)
{
	return (const struct fs_super *)((const uint8_t *)memory + FS_SUPER_BLOCK * FS_BLOCK_SIZE);
}

void bump_mkfs(void *memory, uint64_t size, uint64_t seed)
{
	const struct sim_format format = {.size = size, .journal_bytes = FS_JOURNAL_BLOCKS_MIN * FS_BLOCK_SIZE,
		.ag_bytes = MIB(1), .seed = seed};
	sim_mkfs(memory, &format);
	const struct fs_super *super = bump_super(memory);
	for (uint32_t ag = 0; ag < le32_get(super->ag_count); ag++) {
		struct ag_header *header = (struct ag_header *)((uint8_t *)memory + ag_first_block(super, ag) * FS_BLOCK_SIZE);
		header->next_generation = le32_set(BUMP_FIRST);
		block_seal(header, 0);
	}
}

uint32_t bump_value(const void *memory, uint32_t ag)
{
	const uint64_t block = ag_first_block(bump_super(memory), ag);
	return le32_get(((const struct ag_header *)((const uint8_t *)memory + block * FS_BLOCK_SIZE))->next_generation);
}

int bump_read(struct owner *owner, uint32_t ag, uint32_t *out)
{
	struct buf *buf;
	const int error = buf_get(owner, ag_first_block(&owner->fs->super, ag), BLOCK_AG_HEADER, ag, &buf);
	if (error)
		return error;
	*out = le32_get(((struct ag_header *)buf->data)->next_generation);
	buf_put(owner, buf);
	return 0;
}

/* ---- fibers ---- */

static MAY_WAIT void fiber_main_bump(void *arg)
{
	struct bump_fiber *fiber = arg;
	while (fiber->done < fiber->rounds && !(fiber->error = bump_run(fiber->home, &fiber->bump)))
		fiber->done++;
	fiber->ended = true;
	fiber->place = ++*fiber->places;
}

void bump_fibers_start(struct sim *sim, struct bump_fiber *fibers, unsigned count)
{
	static unsigned places;
	places = 0;
	for (unsigned i = 0; i < count; i++) {
		fibers[i].places = &places;
		fibers[i].start.start = (struct fiber_start){.fn = fiber_main_bump, .arg = &fibers[i], .name = "bump"};
		fiber_start_on(fibers[i].home->reactor, &fibers[i].start);
	}
}

struct wait {
	const struct bump_fiber *fibers;
	unsigned count;
	uint64_t limit_ns;
	struct sim *sim;
};

static bool all_ended(void *arg)
{
	const struct wait *wait = arg;
	unsigned ended = 0;
	for (unsigned i = 0; i < wait->count; i++)
		ended += wait->fibers[i].ended;
	return ended == wait->count;
}

static MAY_WAIT int wait_here(void *arg)
{
	const struct wait *wait = arg;
	const uint64_t start = reactor_now_ns();
	while (!all_ended(arg)) {
		if (reactor_now_ns() - start > wait->limit_ns)
			return -ETIMEDOUT;
		fiber_sleep(NS_PER_MS);
	}
	return 0;
}

void bump_fibers_wait(struct sim *sim, struct bump_fiber *fibers, unsigned count, uint64_t limit_ns)
{
	struct wait wait = {.fibers = fibers, .count = count, .limit_ns = limit_ns, .sim = sim};
	if (reactor_group_run(reactor_group_get(sim->group, 0), wait_here, &wait))
		sim_fail("bump: fibers make no progress");
}

/* ---- accounts ---- */

static MAY_WAIT int settle(void *arg)
{
	struct fs *fs = arg;
	const int error = journal_checkpoint(fs);
	fiber_sleep(10 * NS_PER_MS); /* notes, credit on its way */
	return error;
}

struct pins {
	struct owner *owner;
	bool done;
};

static MAY_WAIT void take_all_pins(void *arg)
{
	struct pins *pins = arg;
	struct cache_stats stats;
	cache_stats_read(pins->owner, &stats);
	cache_reserve(pins->owner, (unsigned)stats.limit / 2);
	cache_reserve(pins->owner, 0);
	cache_unreserve(pins->owner, (unsigned)stats.limit / 2);
	pins->done = true;
}

/* All of them at once: somebody who kept one would let this wait. */
static MAY_WAIT int pins_are_free(void *arg)
{
	struct pins *pins = arg;
	struct fiber_start start = {.fn = take_all_pins, .arg = pins, .name = "all pins"};
	fiber_start(&start);
	fiber_sleep(10 * NS_PER_MS);
	return pins->done ? 0 : -EBUSY;
}

const char *bump_check_accounts(struct sim *sim)
{
	struct fs *fs = sim->fs;
	struct reactor *first = reactor_group_get(sim->group, 0);
	if (reactor_group_run(first, settle, fs))
		return "the checkpoint failed";
	const struct journal *journal = fs->journal;
	uint64_t credit = 0;
	for (unsigned i = 0; i < fs->owner_count; i++)
		credit += fs->owners[i]->stream->credit;
	if (journal->pending || journal->used)
		return "the log is not empty";
	if (journal->granted != credit)
		return "credit was granted that no owner has";
	if (journal_free(journal) + credit != journal->capacity)
		return "log space is lost";
	for (unsigned i = 0; i < fs->owner_count; i++) {
		struct pins pins = {.owner = fs->owners[i]};
		struct cache_stats stats;
		if (reactor_group_run(fs->owners[i]->reactor, pins_are_free, &pins))
			return "cache pins are lost";
		cache_stats_read(fs->owners[i], &stats);
		if (stats.dirty)
			return "blocks are dirty after a checkpoint";
	}
	return NULL;
}
