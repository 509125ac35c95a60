/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The allocation groups of one round. A group in use costs three bits for each of its blocks, and a struct scrub_inodes for each
 * inode block: 96 MiB for a TiB, and 3.2 bytes for an inode. What is expected by the headers may take most of the limit; an eighth
 * of it is for groups that come into use meanwhile.
 */
#include "fs/scrub.h"

#include <stdlib.h>

#include "fs/cache.h"

#define MEMORY_BYTES (512ull << 20) /* unless the options say otherwise */

struct measure {
	struct scrub *scrub;
	struct owner *owner;
	uint32_t number;
	uint32_t inode_blocks;
	bool in_use;
};

static MAY_WAIT int measure_run(void *arg)
{
	struct measure *measure = arg;
	const struct fs_super *super = &measure->scrub->fs->super;
	const uint32_t blocks = ag_block_count(super, measure->number);
	struct buf *buf;
	const int error = buf_get(measure->owner, ag_first_block(super, measure->number), BLOCK_AG_HEADER, measure->number, &buf);
	measure->in_use = true;
	if (error)
		return scrub_goes_on(error) ? 0 : error;
	const struct ag_header *header = (const struct ag_header *)buf->data;
	measure->in_use = le32_get(header->free_blocks) != blocks - ag_fixed_blocks(super);
	measure->inode_blocks = MIN(le32_get(header->inode_blocks), blocks);
	buf_put(measure->owner, buf);
	return 0;
}

int scrub_range_begin(struct scrub *scrub, uint32_t from)
{
	const uint64_t limit = scrub->options.memory_bytes ? scrub->options.memory_bytes : MEMORY_BYTES;
	uint64_t bits = 0, tables = 0;
	uint32_t end = from;
	for (int error; end < scrub->ag_count; end++) {
		struct measure measure = {.scrub = scrub, .owner = owner_of_ag(scrub->fs, end), .number = end};
		error = reactor_call(measure.owner->reactor, measure_run, &measure);
		if (!error)
			error = scrub_may_go_on(scrub);
		if (error)
			return error;
		const uint64_t table = measure.inode_blocks * sizeof(struct scrub_inodes);
		const uint64_t map = measure.in_use || end == from ? scrub_bits_bytes(scrub) : 0;
		if (end > from && bits + tables + map + table > limit - limit / 8)
			break;
		scrub->ag[end] = (struct scrub_ag){.capacity = measure.inode_blocks};
		bits += map;
		tables += table;
	}
	scrub->bits_left = bits + limit / 8;
	scrub->range_first = from;
	scrub->range_end = end;
	return 0;
}

void scrub_range_end(struct scrub *scrub)
{
	for (uint32_t i = scrub->range_first; scrub->ag && i < scrub->range_end; i++) {
		free(scrub->ag[i].data); /* all three */
		free(scrub->ag[i].inodes);
		scrub->ag[i] = (struct scrub_ag){0};
	}
	scrub->range_first = scrub->range_end = 0;
}
