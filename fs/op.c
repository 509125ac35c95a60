/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operation memory of one owner, and what every operation does at its edges: waiting for space, making changes
 * durable when they are to be synchronous, and not changing anything when the caller has been sent away.
 */
#include "fs/op.h"

#include <stdlib.h>

#include "fs/inode_internal.h"

struct op_pool {
	struct op *free;
	struct op *all;                 /* through all_next: an abandoned filesystem has some that are in use */
	unsigned made, count_max;
	struct fiber_cond room;
	struct dma_pool *bounce;
};

int op_pool_create(struct owner *owner, unsigned count)
{
	struct op_pool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	owner->inodes->ops = pool;
	pool->count_max = MAX(count, 4u);
	fiber_cond_init(&pool->room);
	return dma_pool_create(FS_BLOCK_SIZE, FS_BLOCK_SIZE, pool->count_max * OP_BOUNCE_COUNT, &pool->bounce);
}

void op_pool_destroy(struct owner *owner)
{
	struct op_pool *pool = owner->inodes->ops;
	if (!pool)
		return;
	while (pool->all) {
		struct op *op = pool->all;
		pool->all = op->all_next;
		free(op);
	}
	if (pool->bounce)
		dma_pool_destroy(pool->bounce);
	free(pool);
	owner->inodes->ops = NULL;
}

unsigned op_enter(struct owner *owner)
{
	owner->operations[owner->turn]++;
	return owner->turn;
}

void op_leave(struct owner *owner, unsigned turn)
{
	if (!--owner->operations[turn])
		fiber_cond_broadcast(&owner->drained);
}

void op_drain(struct owner *owner)
{
	const unsigned turn = owner->turn;
	owner->turn = !turn;
	while (owner->operations[turn])
		fiber_cond_wait(&owner->drained, "operations that began earlier");
}

struct op *op_begin(struct owner *owner)
{
	struct op_pool *pool = owner->inodes->ops;
	const unsigned turn = op_enter(owner);
	while (!pool->free && pool->made == pool->count_max)
		fiber_cond_wait(&pool->room, "operations that run at once");
	struct op *op = pool->free;
	if (op) {
		pool->free = op->next;
	} else {
		op = malloc(sizeof(*op));
		if (!op) {
			op_leave(owner, turn);
			return NULL;
		}
		pool->made++;
		op->all_next = pool->all;
		pool->all = op;
	}
	op->next = NULL;
	op->enospc_attempts = 0;
	op->enospc_news = op->enospc_orphans = false;
	op->enospc_reaped = 0;
	memset(op->bounce, 0, sizeof(op->bounce));
	op->owner = owner;
	op->turn = turn;
	return op;
}

void op_end(struct op *op)
{
	struct op_pool *pool = op->owner->inodes->ops;
	for (unsigned i = 0; i < OP_BOUNCE_COUNT; i++)
		if (op->bounce[i])
			dma_pool_put(pool->bounce, op->bounce[i]);
	op_leave(op->owner, op->turn);
	op->next = pool->free;
	pool->free = op;
	fiber_cond_signal(&pool->room);
}

void *op_memory(struct op *op, size_t bytes)
{
	assert(bytes <= OP_BYTES);
	return memset(op->memory, 0, bytes);
}

uint8_t *op_bounce(struct op *op, unsigned index)
{
	assert(index < OP_BOUNCE_COUNT);
	if (!op->bounce[index])
		op->bounce[index] = dma_pool_get(op->owner->inodes->ops->bounce);
	return op->bounce[index];
}

int op_claim(void)
{
	struct fs_ticket *ticket = fiber_get_context();
	return !ticket || fs_ticket_claim(ticket) ? 0 : -EINTR;
}

/* ---- space ---- */

struct space_wait {
	struct owner *owner;
	bool waiting;                   /* for a checkpoint */
	bool orphans;                   /* unlinked, and perhaps in use for ever */
	bool news;                      /* something has come, or is bound to */
	uint64_t reaped;                /* by all owners, since the mount */
};

static int arrive(void *arg) { return 0; }

static MAY_WAIT int drain_owner(void *arg)
{
	struct space_wait *wait = arg;
	struct inode_stats stats;
	inode_stats_read(wait->owner, &stats);
	wait->reaped += inode_reap_wait(wait->owner);
	wait->orphans |= stats.chained != 0;
	wait->waiting |= stats.orphans != 0;
	if (alloc_quarantine_waiting(wait->owner))
		wait->waiting = wait->news = true;
	if (alloc_return_loans(wait->owner))
		wait->news = true;
	return 0;
}

static MAY_WAIT int checkpoint(void *arg) { return journal_checkpoint(arg); }

bool op_retry_enospc(struct op *op)
{
	enum { ROUNDS_MAX = 4, PAUSE_NS = 2000000 };
	struct fs *fs = op->owner->fs;
	const unsigned round = op->enospc_attempts++;
	if (round == ROUNDS_MAX)
		return false;
	/* What the kernel has forgotten may still be on its way here: given a moment, then from owner to owner. */
	if (round && op->enospc_orphans)
		fiber_sleep(PAUSE_NS);
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call(fs->owners[i]->reactor, arrive, NULL);
	struct space_wait wait = {.waiting = false};
	for (unsigned i = 0; i < fs->owner_count; i++) {
		wait.owner = fs->owners[i];
		reactor_call(wait.owner->reactor, drain_owner, &wait);
	}
	/* What there was to wait for may have come since the attempt that failed: the first time anyhow, and after a round that had
	 * news, which owners hear of a little later. */
	const bool news = wait.news || wait.reaped != op->enospc_reaped, worth_it = !round || news || op->enospc_news;
	op->enospc_news = news;
	op->enospc_orphans = wait.orphans;
	op->enospc_reaped = wait.reaped;
	if (!worth_it)
		return false;
	return !wait.waiting || !reactor_call(fs->owners[0]->reactor, checkpoint, fs);
}

/* ---- the end ---- */

int op_finish(struct owner *owner, uint32_t inode_flags)
{
	if (!FS_OPTION(owner->fs, sync) && !(inode_flags & INODE_SYNC))
		return 0;
	return journal_sync(owner);
}
