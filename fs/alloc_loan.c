/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Loans: an owner whose AGs are full takes free blocks of another owner's AGs, at most 16 MiB and a quarter of an AG at a
 * time. A loan exists in memory only: the lender takes the blocks out of its free tree and forgets them; the bits are set by
 * the part for the lender that the using transaction carries. What the borrower does not use stays with it, and it lends it
 * on, also back to the lender. Inode blocks are made by the owner of the AG alone: for them, and for everybody else who is
 * about to fail for space, loans go back (alloc_return_loans). So that this is rare, nobody lends more than a quarter of
 * what it has.
 */
#include "fs/alloc_internal.h"

struct borrow {
	struct owner *lender;
	uint32_t want, min;
	unsigned flags;
	struct run run;
};

bool alloc_take_loan(struct alloc *alloc, uint32_t want, uint32_t min, struct run *out)
{
	for (unsigned i = 0; i < alloc->loan_count; i++) {
		struct run *loan = &alloc->loans[i];
		if (loan->count < min)
			continue;
		*out = (struct run){.block = loan->block, .count = MIN(loan->count, want)};
		loan->block += out->count;
		loan->count -= out->count;
		if (!loan->count)
			*loan = alloc->loans[--alloc->loan_count];
		return true;
	}
	return false;
}

void alloc_add_loan(struct alloc *alloc, struct run run)
{
	const struct fs *fs = alloc->owner->fs;
	for (unsigned i = 0; i < alloc->loan_count; i++) {
		struct run *loan = &alloc->loans[i];
		if (ag_of_block(fs, loan->block) != ag_of_block(fs, run.block))
			continue;
		if (loan->block + loan->count == run.block || run.block + run.count == loan->block) {
			loan->block = MIN(loan->block, run.block);
			loan->count += run.count;
			return;
		}
	}
	if (alloc->loan_count < LOANS_MAX)
		alloc->loans[alloc->loan_count++] = run;
	else
		log_debug("loan of %u blocks dropped until the next mount: too many pieces", run.count);
}

/* On the lender. */
static MAY_WAIT int lend(void *arg)
{
	struct borrow *borrow = arg;
	struct owner *lender = borrow->lender;
	struct alloc *alloc = lender->alloc;
	if (alloc_take_loan(alloc, LOAN_BLOCKS_MAX, borrow->min, &borrow->run))
		return 0;
	const uint64_t share = MIN(alloc->free_blocks, (uint64_t)le32_get(lender->fs->super.ag_blocks)) / 4;
	const uint32_t quarter = MAX((uint32_t)share, borrow->min);
	const uint32_t want = MAX(MIN(quarter, (uint32_t)LOAN_BLOCKS_MAX), borrow->want < quarter ? borrow->want : 1);
	const int error = alloc_take_own(lender, 0, MAX(want, borrow->min), borrow->min, borrow->flags, &borrow->run);
	if (!error)
		alloc->lent_blocks += borrow->run.count;
	return error;
}

int alloc_borrow(struct owner *owner, uint32_t want, uint32_t min, unsigned flags)
{
	struct fs *fs = owner->fs;
	for (unsigned i = 1; i < fs->owner_count; i++) {
		struct borrow borrow = {.lender = fs->owners[(owner->index + i) % fs->owner_count], .want = want, .min = min,
			.flags = flags};
		const int error = reactor_call(borrow.lender->reactor, lend, &borrow);
		if (error == -ENOSPC)
			continue;
		if (error)
			return error;
		owner->stats.loans++;
		alloc_release(owner, borrow.run);
		return 0;
	}
	return -ENOSPC;
}

/* ---- giving back ---- */

struct giving_back {
	struct owner *lender;
	struct run run;
};

static int loan_returned(void *arg)
{
	const struct giving_back *giving = arg;
	alloc_release(giving->lender, giving->run);
	return 0;
}

bool alloc_return_loans(struct owner *owner)
{
	struct alloc *alloc = owner->alloc;
	if (!alloc->loan_count && !alloc->returning)
		return false;
	for (unsigned left = alloc->loan_count; left && alloc->loan_count; left--) {
		const struct run run = alloc->loans[--alloc->loan_count];
		struct giving_back giving = {.lender = owner_of_ag(owner->fs, ag_of_block(owner->fs, run.block)), .run = run};
		alloc->returning++;
		reactor_call_nowait(giving.lender->reactor, loan_returned, &giving);
		if (!--alloc->returning)
			fiber_cond_broadcast(&alloc->returned);
	}
	while (alloc->returning) /* another fiber has one in its hands */
		fiber_cond_wait(&alloc->returned, "loans that go back");
	return true;
}
