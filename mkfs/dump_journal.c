/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The journal: the chain of groups that replay would accept, from the tail on, and why it ends where it ends.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mkfs/dump_internal.h"

struct chain {
	uint64_t ring_first, ring_blocks;
	uint64_t journal_id, mount_generation;
	uint64_t at, sequence;      /* where the next group ought to be, and its number */
	uint32_t crc;               /* of the group before */
	uint64_t blocks_left;
	uint8_t *group;             /* a whole group; grows with them */
	uint64_t room_blocks;       /* of it */
	dump_record_fn record;      /* NULL: nobody wants them */
	bool quiet;                 /* nothing is printed */
	uint64_t groups, records;   /* seen */
};

static bool group_read(struct dump *dump, struct chain *chain, uint64_t first, uint64_t end)
{
	if (end > chain->room_blocks) {
		uint8_t *group = realloc(chain->group, end * FS_BLOCK_SIZE);
		if (!group) {
			dump_fail(dump, "journal: no memory for a group; free some and try again");
			return false;
		}
		chain->group = group;
		chain->room_blocks = end;
	}
	for (uint64_t i = first; i < end; i++)
		if (!dump_read(dump, chain->ring_first + (chain->at + i) % chain->ring_blocks,
			    chain->group + i * FS_BLOCK_SIZE))
			return false;
	return true;
}

/* crc32c of the group with its field taken as zero. */
static uint32_t group_crc(const struct chain *chain, uint32_t length)
{
	struct journal_group header = *(const struct journal_group *)chain->group;

	header.crc = le32_set(0);
	const uint32_t crc = fs_crc32c(0, &header, sizeof(header));
	return fs_crc32c(crc, chain->group + sizeof(header), length - sizeof(header));
}

/* What keeps the block at the end of the chain from being its next group; NULL: nothing, and all of it is read. */
static const char *group_refused(struct dump *dump, struct chain *chain)
{
	if (!chain->blocks_left)
		return "the ring is full";
	if (!group_read(dump, chain, 0, 1))
		return "not readable";
	const struct journal_group *group = (const struct journal_group *)chain->group;
	if (le32_get(group->magic) != FS_JOURNAL_MAGIC)
		return "no group there (magic)";
	if (le64_get(group->journal_id) != chain->journal_id)
		return "a group of another journal (journal_id)";
	if (le64_get(group->mount_generation) != chain->mount_generation)
		return "a group of another mount (mount_generation)";
	if (le64_get(group->sequence) != chain->sequence)
		return "an older group (sequence)";
	if (le32_get(group->previous_crc) != chain->crc)
		return "a group of another timeline (previous_crc)";
	const uint32_t length = le32_get(group->length);
	const uint64_t blocks = div_round_up(length, FS_BLOCK_SIZE);
	if (length < sizeof(*group) || blocks > chain->blocks_left)
		return "length";
	if (!group_read(dump, chain, 1, blocks))
		return "not readable";
	group = (const struct journal_group *)chain->group;
	return le32_get(group->crc) == group_crc(chain, length) ? NULL : "torn (crc)";
}

static void record_print(struct dump *dump, uint64_t sequence, const struct journal_record *record)
{
	const struct block_header *image = (const struct block_header *)(record + 1);

	if (le16_get(record->length) == FS_BLOCK_SIZE)
		printf("    block %" PRIu64 ": all of it (%s, owner %" PRIu64 ")\n", le64_get(record->block),
			block_type_name(le16_get(image->type)), le64_get(image->owner));
	else
		printf("    block %" PRIu64 ": %u bytes at %u\n", le64_get(record->block), le16_get(record->length),
			le16_get(record->offset));
}

static void records_walk(struct dump *dump, struct chain *chain)
{
	const uint32_t length = le32_get(((const struct journal_group *)chain->group)->length);

	for (uint64_t at = sizeof(struct journal_group); at < length;) {
		const struct journal_record *record = (const struct journal_record *)(chain->group + at);
		const bool whole = length - at >= sizeof(*record);
		const unsigned offset = whole ? le16_get(record->offset) : 0, bytes = whole ? le16_get(record->length) : 0;
		const uint64_t next = at + sizeof(*record) + align_up(bytes, 8);
		if (!bytes || offset + bytes > FS_BLOCK_SIZE || next > length) {
			dump_fail(dump, "journal group %" PRIu64 ": bad record at byte %" PRIu64, chain->sequence, at);
			return;
		}
		chain->record(dump, chain->sequence, record);
		chain->records++;
		at = next;
	}
}

static void chain_walk(struct dump *dump, struct chain *chain)
{
	const char *refused;

	while (!(refused = group_refused(dump, chain))) {
		const struct journal_group *group = (const struct journal_group *)chain->group;
		const uint32_t length = le32_get(group->length);
		if (!chain->quiet)
			printf("  group %" PRIu64 " at ring block %" PRIu64 ": %" PRIu32 " records in %" PRIu32
			       " bytes, crc %#" PRIx32 "\n", chain->sequence, chain->at, le32_get(group->records), length,
				le32_get(group->crc));
		if (chain->record)
			records_walk(dump, chain);
		chain->groups++;
		const uint64_t blocks = div_round_up(length, FS_BLOCK_SIZE);
		chain->at = (chain->at + blocks) % chain->ring_blocks;
		chain->blocks_left -= blocks;
		chain->crc = le32_get(group->crc);
		chain->sequence++;
	}
	if (!chain->quiet)
		printf("  ends at ring block %" PRIu64 " before group %" PRIu64 ": %s\n", chain->at, chain->sequence, refused);
}

static void chain_init(const struct dump *dump, struct chain *chain, const struct fs_state *state)
{
	*chain = (struct chain){
		.ring_first = le64_get(dump->super.journal_first),
		.ring_blocks = le64_get(dump->super.journal_blocks),
		.journal_id = le64_get(dump->super.journal_id),
		.mount_generation = le64_get(state->mount_generation),
		.at = le64_get(state->tail_block),
		.sequence = le64_get(state->tail_sequence),
		.crc = le32_get(state->tail_crc),
		.blocks_left = le64_get(dump->super.journal_blocks) - 1, /* one block of the ring stays free */
	};
}

uint64_t dump_journal_each(struct dump *dump, dump_record_fn fn, uint64_t *out_records)
{
	const struct fs_state *state = dump_state_current(dump);
	struct chain chain;

	*out_records = 0;
	if (!state)
		return 0;
	chain_init(dump, &chain, state);
	chain.quiet = true;
	chain.record = fn;
	chain_walk(dump, &chain);
	free(chain.group);
	*out_records = chain.records;
	return chain.groups;
}

void dump_journal(struct dump *dump, bool records)
{
	const struct fs_state *state = dump_state_current(dump);
	struct chain chain;

	if (!state) {
		dump_fail(dump, "state: neither block is good, so the journal's tail is unknown; \"state\" shows them");
		return;
	}
	const uint64_t durable = le64_get(state->durable_sequence);
	const bool clean = le32_get(state->clean);
	chain_init(dump, &chain, state);
	printf("journal: ring of %" PRIu64 " blocks from %" PRIu64 ", mount generation %" PRIu64
	       ", tail at ring block %" PRIu64 "%s\n", chain.ring_blocks, chain.ring_first, chain.mount_generation, chain.at,
		clean ? ", clean" : "");
	chain.record = records ? record_print : NULL;
	chain_walk(dump, &chain);
	free(chain.group);
	if (chain.sequence - 1 < durable)
		dump_fail(dump, "journal: ends before group %" PRIu64 ", which was durable: groups are lost", durable);
}
