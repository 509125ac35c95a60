/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/accounts.h"

#include "fs/alloc_internal.h"
#include "fs/inode_internal.h"
#include "tests/sim/bump.h"

struct sums {
	struct owner *owner;
	bool short_of_memory;
	uint64_t headers, trees, loans; /* free blocks: by the headers of loaded AGs, by memory, borrowed and unused */
	const char *wrong;
};

static MAY_WAIT int add_up(void *arg)
{
	struct sums *sums = arg;
	struct owner *owner = sums->owner;
	const struct alloc *alloc = owner->alloc;
	for (unsigned i = 0; i < alloc->ag_count; i++) {
		const struct ag *ag = alloc->ags[i];
		struct buf *header;
		if (!ag->loaded)
			continue;
		const int error = buf_get(owner, ag_first_block(&owner->fs->super, ag->number), BLOCK_AG_HEADER, ag->number, &header);
		if (error)
			return error;
		sums->headers += le32_get(((struct ag_header *)header->data)->free_blocks);
		sums->trees += freespace_total(&ag->space) + freespace_total(&ag->undiscarded);
		buf_put(owner, header);
	}
	for (unsigned i = 0; i < alloc->loan_count; i++)
		sums->loans += alloc->loans[i].count;
	if (alloc->data.blocks || alloc->metadata.blocks)
		sums->wrong = "freed blocks stay in quarantine";
	else if (alloc->unmapping_blocks)
		sums->wrong = "blocks are being discarded for ever";
	else if (owner->operations[0] || owner->operations[1])
		sums->wrong = "an operation has not ended";
	else if ((owner->inodes->lookups.used && !sums->short_of_memory) || owner->inodes->lookups.reserved)
		sums->wrong = "lookup counts are left";
	else if (owner->inodes->referenced)
		sums->wrong = "references to inodes are left";
	return 0;
}

const char *accounts_check(struct sim *sim, bool short_of_memory)
{
	const char *wrong = bump_check_accounts(sim);
	struct sums sums = {.wrong = wrong, .short_of_memory = short_of_memory};
	for (unsigned i = 0; i < sim->fs->owner_count && !sums.wrong; i++) {
		sums.owner = sim->fs->owners[i];
		if (reactor_group_run(sums.owner->reactor, add_up, &sums))
			return "the header of an allocation group cannot be read";
	}
	if (sums.wrong)
		return sums.wrong;
	if (sums.headers == sums.trees + sums.loans || (short_of_memory && sums.headers > sums.trees + sums.loans))
		return NULL;
	return "free blocks are lost until the next mount";
}
