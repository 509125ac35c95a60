/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The blocks at fixed places: the superblock that gives the geometry to everything else, its copies, and the pair of
 * state blocks. A superblock that fails is replaced by the copy at the end of the device, so that damage to one block
 * does not end the check. One of the two state blocks may be torn: that is what the other one is for.
 */
#include "mkfs/fsck_internal.h"
#include "reactor/printable.h"

static const char *geometry_wrong(const struct fs_super *super, uint64_t device_blocks)
{
	uint64_t block_count = le64_get(super->block_count), journal_blocks = le64_get(super->journal_blocks);
	uint64_t first = le64_get(super->first_ag_block);
	uint32_t ag_blocks = le32_get(super->ag_blocks), ag_count = le32_get(super->ag_count);
	uint32_t last = le32_get(super->last_ag_blocks);
	if (le32_get(super->block_size) != FS_BLOCK_SIZE)
		return "block_size";
	if (le32_get(super->inode_size) != FS_INODE_SIZE)
		return "inode_size";
	if (block_count > device_blocks)
		return "block_count (the device is shorter: was the image cut off?)";
	if (le64_get(super->journal_first) != FS_JOURNAL_FIRST_BLOCK)
		return "journal_first";
	if (!journal_blocks || journal_blocks > FS_JOURNAL_BLOCKS_MAX)
		return "journal_blocks";
	if (first != FS_JOURNAL_FIRST_BLOCK + journal_blocks || first >= block_count)
		return "first_ag_block";
	if (ag_blocks < FS_AG_BLOCKS_MIN || ag_blocks > FS_AG_BLOCKS_MAX)
		return "ag_blocks";
	if (le32_get(super->map_blocks) != div_round_up(ag_blocks, FS_MAP_BITS))
		return "map_blocks";
	if (last < FS_AG_BLOCKS_LAST_MIN || last > ag_blocks || last <= ag_fixed_blocks(super))
		return "last_ag_blocks";
	if (!ag_count || first + (uint64_t)(ag_count - 1) * ag_blocks + last > block_count - 1)
		return "ag_count";
	uint64_t root = le64_get(super->root_place);
	if (ino_ag(root) >= ag_count || root >> 56 || ino_slot(root) >= FS_INODES_PER_BLOCK ||
	    ino_ag_block(root) < ag_fixed_blocks(super) || ino_ag_block(root) >= ag_block_count(super, ino_ag(root)))
		return "root_place";
	return NULL;
}

/* What is wrong with the superblock in fsck->super, or NULL. Sets the outcome for the two kinds that are no damage. */
static const char *super_wrong(struct fsck *fsck, uint64_t place)
{
	const struct fs_super *super = &fsck->super;
	if (le32_get(super->header.magic) != FS_BLOCK_MAGIC || le64_get(super->magic) != FS_SUPER_MAGIC)
		return "magic";
	fsck->out->no_filesystem = false;
	if (le32_get(super->header.crc) != fsck_crc32c(super, FS_BLOCK_SIZE, &super->header.crc.raw))
		return "crc";
	if (le16_get(super->header.type) != BLOCK_SUPER)
		return "type";
	if (le64_get(super->header.block) != place)
		return "block number";
	if (le64_get(super->header.fsid) != le64_get(super->fsid))
		return "fsid";
	fsck->out->unsupported = true;
	if (le32_get(super->version) != FS_FORMAT_VERSION)
		return "version (unknown to this program)";
	if (le64_get(super->incompat) & ~(uint64_t)FS_INCOMPAT_KNOWN)
		return "incompat (features unknown to this program)";
	if (le64_get(super->ro_compat) & ~(uint64_t)FS_RO_COMPAT_KNOWN)
		return "ro_compat (features unknown to this program)";
	fsck->out->unsupported = false;
	return geometry_wrong(super, fsck->options->device_blocks);
}

/* Reads and judges the superblock at a place: NULL when it can be trusted, or what is wrong. */
static const char *super_try(struct fsck *fsck, uint64_t place)
{
	if (place >= fsck->options->device_blocks)
		return "place (past the end of the device)";
	fsck->error = fsck->io->read(fsck->io->arg, place, &fsck->super);
	fsck->super_place = place;
	return fsck->error ? "contents (not readable)" : super_wrong(fsck, place);
}

/* Text of the image that will be shown. */
static void text_take(char *out, const void *from, size_t size)
{
	memcpy(out, from, size);
	text_make_printable(out, size);
}

static void super_fields(struct fsck *fsck)
{
	const struct fs_super *super = &fsck->super;
	struct fsck_result *out = fsck->out;
	fsck->fsid = le64_get(super->fsid);
	fsck->hash_seed = le64_get(super->hash_seed);
	fsck->block_count = le64_get(super->block_count);
	fsck->first_ag_block = le64_get(super->first_ag_block);
	fsck->root_place = le64_get(super->root_place);
	fsck->ag_count = le32_get(super->ag_count);
	fsck->ag_blocks = le32_get(super->ag_blocks);
	fsck->map_blocks = le32_get(super->map_blocks);
	fsck->fixed_blocks = ag_fixed_blocks(super);
	out->blocks_total = fsck->block_count;
	text_take(out->label, super->label, FS_LABEL_BYTES);
	memcpy(out->uuid, super->uuid, FS_UUID_BYTES);
	if (le64_get(super->header.owner))
		fsck_find(fsck, "superblock: owner is not zero");
	size_t label = strlen(out->label);
	if (!fsck_is_zero(super->label + label, FS_LABEL_BYTES - label))
		fsck_find(fsck, "superblock: label is not padded with zeros");
	if (le16_get(super->header.reserved0) || le32_get(super->header.reserved1) || le32_get(super->reserved0) ||
	    !fsck_is_zero(super->reserved, sizeof(super->reserved)))
		fsck_find(fsck, "superblock: reserved fields are not zero");
}

void fsck_super_replayed(struct fsck *fsck, const struct fs_super *image)
{
	fsck->super = *image;
	fsck->super_place = FS_SUPER_BLOCK;
	fsck->super.header.crc = le32_set(fsck_crc32c(&fsck->super, FS_BLOCK_SIZE, &fsck->super.header.crc.raw));
	const char *wrong = super_wrong(fsck, FS_SUPER_BLOCK);
	fsck->out->fatal = wrong;
	if (wrong)
		fsck_find(fsck, "journal: a superblock with wrong %s", wrong);
	else
		super_fields(fsck);
}

void fsck_super(struct fsck *fsck)
{
	const struct fsck_options *options = fsck->options;
	fsck->out->no_filesystem = true;
	const uint64_t first = options->super_block ? options->super_block : FS_SUPER_BLOCK;
	const uint64_t last = options->device_blocks - 1;
	const char *wrong = super_try(fsck, first), *copy_wrong = wrong;
	const bool copy =
		wrong && !options->super_block && !fsck->out->unsupported && options->device_blocks > first + 1;
	if (copy && !fsck->error)
		copy_wrong = super_try(fsck, last);
	if (fsck->error)
		return;
	fsck->out->fatal = copy_wrong;
	if (fsck->out->no_filesystem) {
		fsck_find(fsck, "no superblock in block %" PRIu64 "%s", first,
			copy ? " or at the end of the device" : "");
		return;
	}
	if (wrong)
		fsck_find(fsck, "superblock (block %" PRIu64 "): wrong %s", first, wrong);
	if (copy && copy_wrong)
		fsck_find(fsck, "superblock copy (block %" PRIu64 "): wrong %s", last, copy_wrong);
	if (!copy_wrong)
		super_fields(fsck);
}

static void super_copy(struct fsck *fsck, uint64_t place)
{
	if (fsck->error || place == fsck->super_place)
		return;
	bool replayed;
	const void *found = fsck_read(fsck, place, fsck->block, &replayed);
	if (!found)
		return;
	struct fs_super *copy = (struct fs_super *)fsck->other;
	memcpy(copy, found, sizeof(*copy));
	const char *field = fsck_header_useless(fsck, &copy->header, place, BLOCK_SUPER, replayed);
	if (field) {
		fsck_find(fsck, "superblock copy (block %" PRIu64 "): wrong %s", place, field);
		return;
	}
	copy->header.crc = fsck->super.header.crc;
	copy->header.block = fsck->super.header.block;
	copy->header.sequence = fsck->super.header.sequence; /* they are written one after the other */
	if (memcmp(copy, &fsck->super, sizeof(*copy)))
		fsck_find(fsck, "superblock copy (block %" PRIu64 "): differs from the superblock in block %" PRIu64,
			place, fsck->super_place);
}

void fsck_super_copies(struct fsck *fsck)
{
	if (fsck->options->super_block) /* otherwise it was tried first */
		super_copy(fsck, FS_SUPER_BLOCK);
	for (uint32_t ag = 1; ag && ag < fsck->ag_count; ag <<= 1)
		super_copy(fsck, fsck->ag[ag].first + FS_AG_SUPER_COPY);
	super_copy(fsck, fsck->block_count - 1);
}

/* What a state's fields must be for a mount to go by it. */
static void state_fields(struct fsck *fsck, const struct fs_state *state)
{
	const uint64_t tail = le64_get(state->tail_sequence), durable = le64_get(state->durable_sequence);
	const uint64_t ring = le64_get(fsck->super.journal_blocks);
	const uint64_t area = (uint64_t)(le32_get(fsck->super.ag_count) - 1) * le32_get(fsck->super.ag_blocks) +
		le32_get(fsck->super.last_ag_blocks);
	if (le32_get(state->clean) > 1)
		fsck_find(fsck, "state: clean is %" PRIu32, le32_get(state->clean));
	if (!tail || tail >= FS_COUNT_END || durable >= FS_COUNT_END - 1)
		fsck_find(fsck, "state: tail_sequence is %" PRIu64 ", durable_sequence %" PRIu64, tail, durable);
	if (le64_get(state->mount_generation) >= FS_COUNT_END)
		fsck_find(fsck, "state: mount_generation is %" PRIu64, le64_get(state->mount_generation));
	if (tail && durable < tail - 1)
		fsck_find(fsck, "state: durable_sequence %" PRIu64 " is before the tail %" PRIu64, durable, tail);
	if (le32_get(state->clean) == 1 && tail && durable > tail - 1)
		fsck_find(fsck, "state: clean, but durable_sequence %" PRIu64 " is past the tail %" PRIu64, durable,
			tail);
	else if (tail && durable >= tail && durable - (tail - 1) > ring)
		fsck_find(fsck, "state: from tail %" PRIu64 " to durable_sequence %" PRIu64 " the ring has no room", tail, durable);
	if (le64_get(state->tail_block) >= ring)
		fsck_find(
			fsck, "state: tail_block %" PRIu64 " lies outside of the journal", le64_get(state->tail_block));
	if (le64_get(state->free_blocks) > area || le64_get(state->used_inodes) > area * FS_INODES_PER_BLOCK)
		fsck_find(fsck, "state: free_blocks %" PRIu64 " and used_inodes %" PRIu64 " are more than there is room for",
			le64_get(state->free_blocks), le64_get(state->used_inodes));
	if (!memchr(state->error_text, 0, sizeof(state->error_text)))
		fsck_find(fsck, "state: error_text has no end");
}

/* Reads one state block; a torn one, or one of an earlier mkfs, is no finding by itself. *out_good: a mount could go by it. */
static const struct fs_state *state_read(struct fsck *fsck, uint64_t place, void *buffer, bool *out_good)
{
	struct fs_state *state = buffer;
	const uint64_t findings = fsck->out->findings;
	*out_good = false;
	fsck->error = fsck->io->read(fsck->io->arg, place, state);
	if (fsck->error || le64_get(state->header.fsid) != fsck->fsid ||
	    le32_get(state->header.crc) != fsck_crc32c(state, FS_BLOCK_SIZE, &state->header.crc.raw))
		return NULL;
	const char *field = fsck_header_useless(fsck, &state->header, place, BLOCK_STATE, false);
	if (field) {
		fsck_find(fsck, "state (block %" PRIu64 "): wrong %s", place, field);
		return NULL;
	}
	if (!le64_get(state->generation) || le64_get(state->generation) >= FS_COUNT_END ||
		le64_get(state->generation) % 2 != place - FS_STATE_BLOCK_A)
		fsck_find(fsck, "state (block %" PRIu64 "): generation %" PRIu64 " belongs into the other block", place,
			le64_get(state->generation));
	if (le64_get(state->header.owner))
		fsck_find(fsck, "state (block %" PRIu64 "): owner is not zero", place);
	if (le16_get(state->header.reserved0) || le32_get(state->header.reserved1) || le32_get(state->reserved0) ||
	    le32_get(state->reserved1) || !fsck_is_zero(state->reserved, sizeof(state->reserved)))
		fsck_find(fsck, "state (block %" PRIu64 "): reserved fields are not zero", place);
	state_fields(fsck, state);
	*out_good = fsck->out->findings == findings;
	return state;
}

/* What the check goes on with. */
static void state_take(struct fsck *fsck, const struct fs_state *state)
{
	struct fsck_result *out = fsck->out;
	fsck->state = *state;
	out->fatal |= le64_get(state->tail_block) >= le64_get(fsck->super.journal_blocks);
	out->recorded_error = le32_get(state->error_code);
	out->recorded_error_block = le64_get(state->error_block);
	text_take(out->recorded_error_text, state->error_text, sizeof(out->recorded_error_text) - 1);
	out->needs_replay = le32_get(state->clean) != 1;
}

void fsck_state(struct fsck *fsck)
{
	if (fsck->error)
		return;
	bool good_a, good_b = false;
	const struct fs_state *a = state_read(fsck, FS_STATE_BLOCK_A, fsck->block, &good_a);
	const struct fs_state *b = fsck->error ? NULL : state_read(fsck, FS_STATE_BLOCK_B, fsck->other, &good_b);
	if (fsck->error)
		return;
	if (!a && !b) {
		fsck_find(fsck, "state: neither block %d nor block %d is valid", FS_STATE_BLOCK_A, FS_STATE_BLOCK_B);
		fsck->out->fatal = true;
		return;
	}
	uint64_t generation_a = a ? le64_get(a->generation) : 0, generation_b = b ? le64_get(b->generation) : 0;
	if (a && b && generation_a - generation_b != 1 && generation_b - generation_a != 1)
		fsck_find(fsck, "state: generations %" PRIu64 " and %" PRIu64 " do not follow each other", generation_a,
			generation_b);
	fsck->state_damaged = !good_a || !good_b;
	/* A mount goes by the newer one of the good ones; without any, this check goes by the newer one. */
	const bool only_b = good_b && !good_a, only_a = good_a && !good_b;
	state_take(fsck, a && !only_b && (!b || only_a || generation_a > generation_b) ? a : b);
}
