/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replay in memory, in two walks: the first looks for a superblock, since a filesystem that grew has its new geometry there.
 * From the tail that the state block names, groups are accepted as long as each one continues the chain: journal id, mount
 * generation, sequence, crc of the group before, own crc. What their records say is put into an overlay of whole blocks, in
 * order. The first group that does not continue is the end, which may not come before the highest group known durable.
 *
 * Bounds: a group is at most as long as the ring, all groups together too; the overlay has at most one block for each
 * full image that stands in the ring.
 */
#include <stdlib.h>

#include "mkfs/fsck_internal.h"

struct replay {
	uint64_t place;                 /* in the ring */
	uint64_t blocks_left;           /* of the ring */
	uint64_t sequence;              /* that the next group must have */
	uint32_t crc;                   /* previous_crc that it must have */
	uint8_t *group;                 /* buffer */
	size_t group_size;
	bool has_super;                 /* a superblock was found */
};

static size_t overlay_slot(const struct fsck_overlay *overlay, uint64_t block)
{
	size_t slot = (block * 0x9e3779b97f4a7c15ull) >> 20 & (overlay->slots - 1);
	while (overlay->slot[slot].image && overlay->slot[slot].block != block)
		slot = (slot + 1) & (overlay->slots - 1);
	return slot;
}

const uint8_t *fsck_overlay_find(const struct fsck_overlay *overlay, uint64_t block)
{
	return overlay->count ? overlay->slot[overlay_slot(overlay, block)].image : NULL;
}

void fsck_overlay_fini(struct fsck_overlay *overlay)
{
	for (size_t i = 0; i < overlay->slots; i++)
		free(overlay->slot[i].image);
	free(overlay->slot);
}

static bool overlay_grow(struct fsck *fsck)
{
	struct fsck_overlay old = fsck->overlay, *overlay = &fsck->overlay;
	size_t slots = old.slots ? 2 * old.slots : 128;
	overlay->slot = fsck_allocate(fsck, slots, sizeof(*overlay->slot));
	if (!overlay->slot) {
		*overlay = old;
		return false;
	}
	overlay->slots = slots;
	for (size_t i = 0; i < old.slots; i++)
		if (old.slot[i].image)
			overlay->slot[overlay_slot(overlay, old.slot[i].block)] = old.slot[i];
	free(old.slot);
	return true;
}

uint8_t *fsck_overlay_insert(struct fsck *fsck, uint64_t block)
{
	struct fsck_overlay *overlay = &fsck->overlay;
	if (2 * (overlay->count + 1) > overlay->slots && !overlay_grow(fsck))
		return NULL;
	size_t slot = overlay_slot(overlay, block);
	if (overlay->slot[slot].image)
		return overlay->slot[slot].image;
	struct fsck_ag *ag = fsck_ag_of(fsck, block);
	if (ag && !ag->replayed)
		ag->replayed = fsck_allocate(fsck, div_round_up(ag->blocks, 64), sizeof(uint64_t));
	uint8_t *image = !ag || ag->replayed ? malloc(FS_BLOCK_SIZE) : NULL;
	if (!image) {
		fsck->error = -ENOMEM;
		return NULL;
	}
	if (ag)
		ag->replayed[(block - ag->first) / 64] |= 1ull << (block - ag->first) % 64;
	overlay->slot[slot].block = block;
	overlay->slot[slot].image = image;
	overlay->count++;
	return image;
}

static void record_apply(struct fsck *fsck, const struct journal_record *record, const uint8_t *data, uint64_t sequence)
{
	uint64_t block = le64_get(record->block);
	unsigned offset = le16_get(record->offset), length = le16_get(record->length);
	const bool super = block == FS_SUPER_BLOCK || block == fsck->block_count - 1;
	if (!super && !fsck_ag_of(fsck, block)) {
		fsck_find(fsck, "journal: group %" PRIu64 " has a record for block %" PRIu64 ", which is in no AG",
			sequence, block);
		return;
	}
	if (length < FS_BLOCK_SIZE && !fsck_overlay_find(&fsck->overlay, block)) {
		fsck_find(fsck, "journal: group %" PRIu64 " changes block %" PRIu64 " without an earlier full image",
			sequence, block);
		return;
	}
	uint8_t *image = fsck_overlay_insert(fsck, block);
	if (image)
		memcpy(image + offset, data, length);
	fsck->out->records_replayed++;
}

/* The records of a group whose crc is right. */
static void group_apply(struct fsck *fsck, const struct replay *replay)
{
	const struct journal_group *group = (const struct journal_group *)replay->group;
	const size_t end = le32_get(group->length);
	size_t at = sizeof(*group);
	uint32_t records = 0;
	while (at < end && !fsck->error) {
		const struct journal_record *record = (const struct journal_record *)(replay->group + at);
		size_t left = end - at;
		unsigned length = left < sizeof(*record) ? 0 : le16_get(record->length);
		if (!length || le16_get(record->offset) + length > FS_BLOCK_SIZE || le32_get(record->reserved0) ||
		    sizeof(*record) + align_up(length, 8) > left) {
			fsck_find(fsck, "journal: group %" PRIu64 " has a malformed record at byte %zu",
				replay->sequence, at);
			return;
		}
		record_apply(fsck, record, replay->group + at + sizeof(*record), replay->sequence);
		at += sizeof(*record) + align_up(length, 8);
		records++;
	}
	if (!fsck->error && records != le32_get(group->records))
		fsck_find(fsck, "journal: group %" PRIu64 " says %" PRIu32 " records, has %" PRIu32, replay->sequence,
			le32_get(group->records), records);
	if (le32_get(group->reserved0) || !fsck_is_zero(group->reserved1, sizeof(group->reserved1)))
		fsck_find(fsck, "journal: group %" PRIu64 ": reserved fields are not zero", replay->sequence);
}

static bool group_read_blocks(struct fsck *fsck, struct replay *replay, size_t first, size_t count)
{
	uint64_t ring = le64_get(fsck->super.journal_blocks);
	for (size_t i = first; i < first + count && !fsck->error; i++)
		fsck->error = fsck->io->read(fsck->io->arg, FS_JOURNAL_FIRST_BLOCK + (replay->place + i) % ring,
			replay->group + i * FS_BLOCK_SIZE);
	return !fsck->error;
}

static bool group_buffer(struct fsck *fsck, struct replay *replay, size_t blocks)
{
	if (blocks * FS_BLOCK_SIZE <= replay->group_size)
		return true;
	size_t size = MAX(blocks * FS_BLOCK_SIZE, 16 * FS_BLOCK_SIZE);
	uint8_t *group = realloc(replay->group, size);
	if (!group) {
		fsck->error = -ENOMEM;
		return false;
	}
	replay->group = group;
	replay->group_size = size;
	return true;
}

/* Reads the group at the end of the chain; false when what stands there does not continue it. */
static bool group_read(struct fsck *fsck, struct replay *replay)
{
	if (!replay->blocks_left || !group_buffer(fsck, replay, 1))
		return false;
	if (!group_read_blocks(fsck, replay, 0, 1)) {
		/* Of an empty journal nobody needs to know what stands at its tail: a bad place there does not matter. */
		if (fsck->error == -EIO && le32_get(fsck->state.clean) == 1)
			fsck->error = 0;
		return false;
	}
	const struct journal_group *group = (const struct journal_group *)replay->group;
	uint32_t length = le32_get(group->length);
	size_t blocks = div_round_up(length, FS_BLOCK_SIZE);
	if (le32_get(group->magic) != FS_JOURNAL_MAGIC ||
	    le64_get(group->journal_id) != le64_get(fsck->super.journal_id) ||
	    le64_get(group->mount_generation) != le64_get(fsck->state.mount_generation) ||
	    le64_get(group->sequence) != replay->sequence || le32_get(group->previous_crc) != replay->crc ||
	    replay->sequence >= FS_COUNT_END - 1)
		return false;
	if (length < sizeof(*group) || blocks > replay->blocks_left || !group_buffer(fsck, replay, blocks) ||
	    !group_read_blocks(fsck, replay, 1, blocks - 1))
		return false;
	group = (const struct journal_group *)replay->group;
	return le32_get(group->crc) == fsck_crc32c(group, length, &group->crc.raw);
}

/* Follows the chain from the tail, from group to group. */
static void chain_follow(struct fsck *fsck, struct replay *replay, void (*apply)(struct fsck *fsck, struct replay *replay))
{
	*replay = (struct replay){
		.place = le64_get(fsck->state.tail_block),
		.blocks_left = le64_get(fsck->super.journal_blocks) - 1, /* a full ring could not be told from an empty one */
		.sequence = le64_get(fsck->state.tail_sequence),
		.crc = le32_get(fsck->state.tail_crc),
	};
	while (group_read(fsck, replay)) {
		apply(fsck, replay);
		const struct journal_group *group = (const struct journal_group *)replay->group;
		uint64_t blocks = div_round_up(le32_get(group->length), FS_BLOCK_SIZE);
		replay->place = (replay->place + blocks) % le64_get(fsck->super.journal_blocks);
		replay->blocks_left -= blocks;
		replay->crc = le32_get(group->crc);
		replay->sequence++;
	}
	free(replay->group);
}

/* Records of the superblock, onto the image in fsck->inodes; what is malformed is reported by the second walk. */
static void super_apply(struct fsck *fsck, struct replay *replay)
{
	const size_t end = le32_get(((const struct journal_group *)replay->group)->length);
	size_t at = sizeof(struct journal_group);
	while (at + sizeof(struct journal_record) <= end) {
		const struct journal_record *record = (const struct journal_record *)(replay->group + at);
		unsigned offset = le16_get(record->offset), length = le16_get(record->length);
		if (!length || offset + length > FS_BLOCK_SIZE || sizeof(*record) + align_up(length, 8) > end - at)
			return;
		replay->has_super |= le64_get(record->block) == FS_SUPER_BLOCK && length == FS_BLOCK_SIZE;
		if (replay->has_super && le64_get(record->block) == FS_SUPER_BLOCK)
			memcpy(fsck->inodes + offset, record + 1, length);
		at += sizeof(*record) + align_up(length, 8);
	}
}

void fsck_journal_super(struct fsck *fsck)
{
	struct replay replay;
	chain_follow(fsck, &replay, super_apply);
	if (!fsck->error && replay.has_super)
		fsck_super_replayed(fsck, (const struct fs_super *)fsck->inodes);
}

static void group_count(struct fsck *fsck, struct replay *replay)
{
	if (fsck->options->replay_in_memory)
		group_apply(fsck, replay);
	fsck->out->groups_replayed++;
}

const char *fsck_image_useless(const struct fsck *fsck, const struct block_header *header, uint64_t block)
{
	const unsigned type = le16_get(header->type);
	if (!type || type == BLOCK_STATE || type >= BLOCK_TYPE_COUNT)
		return "type";
	if (le16_get(header->reserved0) || le32_get(header->reserved1))
		return "reserved header field";
	return fsck_header_useless(fsck, header, block, type, true);
}

/* Also of blocks that nothing refers to any more: a mount writes them home as well. */
static void images_check(struct fsck *fsck)
{
	const struct fsck_overlay *overlay = &fsck->overlay;
	for (size_t i = 0; i < overlay->slots; i++) {
		const char *field = overlay->slot[i].image ?
			fsck_image_useless(fsck, (const struct block_header *)overlay->slot[i].image, overlay->slot[i].block) : NULL;
		if (field)
			fsck_find(fsck, "journal: the image of block %" PRIu64 " has a wrong %s", overlay->slot[i].block, field);
	}
}

/* Whether a whole group stands at replay->place that the state does not know of: one of a later mount, or one that was written
 * over the end of the chain, as only a later tail allows. */
static bool group_younger(struct fsck *fsck, struct replay *replay, uint64_t end, uint64_t sequence)
{
	const uint64_t ring = le64_get(fsck->super.journal_blocks), mine = le64_get(fsck->state.mount_generation);
	if (!group_buffer(fsck, replay, 1) || !group_read_blocks(fsck, replay, 0, 1))
		return false;
	const struct journal_group *group = (const struct journal_group *)replay->group;
	const uint64_t generation = le64_get(group->mount_generation);
	const uint32_t length = le32_get(group->length);
	const uint64_t blocks = div_round_up(length, FS_BLOCK_SIZE);
	if (le32_get(group->magic) != FS_JOURNAL_MAGIC || le64_get(group->journal_id) != le64_get(fsck->super.journal_id) ||
	    length < sizeof(*group) || blocks >= ring || generation < mine)
		return false;
	if (generation == mine && (le64_get(group->sequence) <= sequence || (end + ring - replay->place) % ring >= blocks))
		return false;
	if (!group_buffer(fsck, replay, blocks) || !group_read_blocks(fsck, replay, 1, blocks - 1))
		return false;
	group = (const struct journal_group *)replay->group;
	return le32_get(group->crc) == fsck_crc32c(group, length, &group->crc.raw);
}

/* A state block is damaged. If that was a write of it that was cut, the other one is the truth; if it rotted, groups may tell. */
static void younger_look(struct fsck *fsck, const struct replay *chain)
{
	struct replay replay = {0};
	for (; replay.place < le64_get(fsck->super.journal_blocks) && !fsck->error && !fsck->younger; replay.place++) {
		fsck->younger = group_younger(fsck, &replay, chain->place, chain->sequence);
		if (fsck->error != -EIO)
			continue;
		fsck->error = 0;
		fsck_find(fsck, "journal: a block after block %" PRIu64 " of it cannot be read", replay.place);
	}
	if (fsck->younger)
		fsck_find(fsck, "state: the newer block is damaged: the journal holds groups that the older one does not know of");
	free(replay.group);
}

void fsck_journal(struct fsck *fsck)
{
	struct fsck_result *out = fsck->out;
	struct replay replay;
	chain_follow(fsck, &replay, group_count);
	if (fsck->error)
		return;
	if (fsck->state_damaged)
		younger_look(fsck, &replay);
	if (fsck->error)
		return;
	images_check(fsck);
	uint64_t durable = le64_get(fsck->state.durable_sequence);
	out->last_sequence = replay.sequence - 1;
	fsck->sequence_max = MAX(out->last_sequence, durable);
	if (out->groups_replayed && le32_get(fsck->state.clean) == 1)
		fsck_find(fsck, "journal: marked clean, but group %" PRIu64 " follows the tail",
			le64_get(fsck->state.tail_sequence));
	out->needs_replay |= out->groups_replayed > 0;
	if (out->last_sequence < durable)
		fsck_find(fsck,
			"journal: ends with group %" PRIu64 ", but group %" PRIu64 " was durable: the journal is lost",
			out->last_sequence, durable);
}
