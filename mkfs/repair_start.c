/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How a repair begins and ends: with the superblock that can be trusted, its copies, the state and the journal.
 *
 * The journal goes home first, as at a mount, and the state says then that it is empty, with a previous crc that
 * nothing in the ring fits. When both state blocks are lost, or the one that counts, nobody knows where the journal begins:
 * what stood only there is lost, and the new state gets numbers that no group in the ring has reached.
 */
#include <stdlib.h>

#include "mkfs/repair_internal.h"

static void super_write(struct repair *repair, uint64_t place)
{
	struct fsck *fsck = &repair->fsck;
	struct fs_super *copy = (struct fs_super *)fsck->other;
	if (fsck->error)
		return;
	fsck->error = fsck->io->read(fsck->io->arg, place, fsck->block);
	*copy = fsck->super;
	copy->header.block = le64_set(place);
	copy->header.crc = le32_set(fsck_crc32c(copy, FS_BLOCK_SIZE, &copy->header.crc.raw));
	if (fsck->error || !memcmp(copy, fsck->block, FS_BLOCK_SIZE))
		return;
	fsck->error = repair->io->write(repair->io->arg, place, copy);
	repair->out->blocks_written++;
}

void repair_write_supers(struct repair *repair)
{
	struct fsck *fsck = &repair->fsck;
	super_write(repair, FS_SUPER_BLOCK);
	for (uint32_t ag = 1; ag && ag < fsck->ag_count; ag <<= 1)
		super_write(repair, fsck->ag[ag].first + FS_AG_SUPER_COPY);
	super_write(repair, fsck->block_count - 1);
	if (!fsck->error)
		fsck->error = repair->io->flush(repair->io->arg);
}

/* Twice, so that both blocks are good and follow each other. */
void repair_write_state(struct repair *repair, bool clean)
{
	struct fsck *fsck = &repair->fsck;
	struct fs_state *state = &fsck->state;
	uint64_t generation = le64_get(state->generation);
	if (generation >= FS_COUNT_END - 3) /* room for this write and the next one, each twice */
		generation = 0;
	for (unsigned i = 0; i < 2 && !fsck->error; i++) {
		generation++;
		const uint64_t place = FS_STATE_BLOCK_A + generation % 2;
		state->header = (struct block_header){.magic = le32_set(FS_BLOCK_MAGIC), .type = le16_set(BLOCK_STATE),
			.block = le64_set(place), .fsid = le64_set(fsck->fsid)};
		state->generation = le64_set(generation);
		state->clean = le32_set(clean);
		state->tail_block = le64_set(0);
		state->tail_sequence = le64_set(repair->sequence + 1);
		state->durable_sequence = le64_set(repair->sequence);
		state->free_blocks = le64_set(clean ? fsck->free_blocks : 0);
		state->used_inodes = le64_set(clean ? fsck->used_inodes : 0);
		state->reserved0 = state->reserved1 = le32_set(0);
		memset(state->reserved, 0, sizeof(state->reserved));
		if (clean) {
			state->error_code = state->error_count = le32_set(0);
			state->error_sec = state->error_block = le64_set(0);
			memset(state->error_text, 0, sizeof(state->error_text));
		}
		state->error_text[sizeof(state->error_text) - 1] = 0;
		state->header.crc = le32_set(fsck_crc32c(state, FS_BLOCK_SIZE, &state->header.crc.raw));
		fsck->error = repair->io->write(repair->io->arg, place, state);
		if (!fsck->error)
			fsck->error = repair->io->flush(repair->io->arg);
	}
}

/* Highest sequence and mount generation of any group that ever stood in the ring; what nobody counts to is not believed. */
static void ring_look(struct repair *repair, uint64_t *sequence, uint64_t *generation)
{
	struct fsck *fsck = &repair->fsck;
	const uint64_t blocks = le64_get(fsck->super.journal_blocks);
	for (uint64_t i = 0; i < blocks && !fsck->error; i++) {
		const struct journal_group *group = (const struct journal_group *)fsck->block;
		fsck->error = fsck->io->read(fsck->io->arg, FS_JOURNAL_FIRST_BLOCK + i, fsck->block);
		if (fsck->error || le32_get(group->magic) != FS_JOURNAL_MAGIC ||
			le64_get(group->journal_id) != le64_get(fsck->super.journal_id))
			continue;
		if (le64_get(group->sequence) < FS_COUNT_END - 1)
			*sequence = MAX(*sequence, le64_get(group->sequence));
		if (le64_get(group->mount_generation) < FS_COUNT_END - 1)
			*generation = MAX(*generation, le64_get(group->mount_generation));
	}
}

/* The state that counts is not known; @generation_before: of the one that there still is. */
static void state_invent(struct repair *repair, le64_t generation_before, const char *lost)
{
	struct fsck *fsck = &repair->fsck;
	uint64_t sequence = 0, generation = 0;
	ring_look(repair, &sequence, &generation);
	repair_loss(repair, "state: %s, and so is what stood only in the journal", lost);
	fsck->state = (struct fs_state){.generation = generation_before, .mount_generation = le64_set(generation + 1)};
	repair->sequence = sequence;
}

/* What a state that is too old has made of the journal. */
static void replay_forget(struct fsck *fsck)
{
	fsck_overlay_fini(&fsck->overlay);
	fsck->overlay = (struct fsck_overlay){0};
	for (uint32_t i = 0; i < fsck->ag_count; i++) {
		free(fsck->ag[i].replayed);
		fsck->ag[i].replayed = NULL;
	}
	fsck->sequence_max = UINT64_MAX;
}

static void images_check(struct repair *repair)
{
	const struct fsck_overlay *overlay = &repair->fsck.overlay;
	for (size_t i = 0; i < overlay->slots; i++)
		if (overlay->slot[i].image && fsck_image_useless(
			&repair->fsck, (const struct block_header *)overlay->slot[i].image, overlay->slot[i].block))
			repair_loss(repair, "journal: the image of block %" PRIu64 " is none", overlay->slot[i].block);
}

/* Images that are no block of this filesystem are not written: the group that holds them is hostile. */
static void journal_home(struct repair *repair)
{
	struct fsck *fsck = &repair->fsck;
	for (size_t i = 0; i < fsck->overlay.slots && !fsck->error; i++) {
		struct block_header *header = (struct block_header *)fsck->overlay.slot[i].image;
		if (!header || fsck_image_useless(fsck, header, fsck->overlay.slot[i].block))
			continue;
		header->sequence = le64_set(repair->sequence);
		header->crc = le32_set(fsck_crc32c(header, FS_BLOCK_SIZE, &header->crc.raw));
		fsck->error = repair->io->write(repair->io->arg, fsck->overlay.slot[i].block, header);
		repair->out->blocks_written++;
	}
	fsck_overlay_fini(&fsck->overlay);
	fsck->overlay = (struct fsck_overlay){0};
	if (!fsck->error)
		fsck->error = repair->io->flush(repair->io->arg);
}

static void crc_draw(struct repair *repair)
{
	/* Only has to differ from what a group in the ring could continue. */
	const uint64_t mixed = (repair->sequence + 1) * 0x9e3779b97f4a7c15ull ^ le64_get(repair->fsck.super.journal_id);
	repair->fsck.state.tail_crc = le32_set((uint32_t)(mixed >> 32) ^ le32_get(repair->fsck.state.tail_crc));
}

static void super_mend(struct fs_super *super)
{
	const size_t label = strnlen((const char *)super->label, FS_LABEL_BYTES);
	memset(super->label + label, 0, FS_LABEL_BYTES - label);
	super->header.reserved0 = le16_set(0);
	super->header.reserved1 = super->reserved0 = le32_set(0);
	super->header.owner = le64_set(0);
	memset(super->reserved, 0, sizeof(super->reserved));
}

/* A filesystem that grew has its superblock in the journal. False: that one cannot be, nor can what follows it. */
static bool super_replay(struct fsck *fsck)
{
	struct fs_super *before = fsck_allocate(fsck, 1, sizeof(*before));
	if (!before)
		return false;
	*before = fsck->super;
	if (fsck->out->needs_replay)
		fsck_journal_super(fsck);
	const bool good = !fsck->out->fatal;
	if (!good) { /* the geometry was not taken over */
		fsck->super = *before;
		fsck->out->fatal = false;
	}
	free(before);
	return good;
}

static bool state_countable(const struct fs_state *state)
{
	return le64_get(state->tail_sequence) < FS_COUNT_END && le64_get(state->durable_sequence) < FS_COUNT_END - 1 &&
		le64_get(state->mount_generation) < FS_COUNT_END;
}

void repair_start(struct repair *repair)
{
	struct fsck *fsck = &repair->fsck;
	fsck_progress(fsck, "superblock", 0);
	fsck_super(fsck);
	repair->out->no_superblock = fsck->out->fatal;
	if (fsck->error || fsck->out->fatal)
		return;
	fsck_state(fsck);
	if (fsck->error)
		return;
	bool known = !fsck->out->fatal && state_countable(&fsck->state);
	if (known)
		known = super_replay(fsck);
	super_mend(&fsck->super);
	if (!fsck->error)
		fsck_groups_init(fsck);
	if (fsck->error)
		return;
	if (known) {
		fsck_progress(fsck, "journal", 0);
		fsck_journal(fsck);
	}
	if (known && !fsck->younger) {
		repair->sequence = MAX(fsck->out->last_sequence, le64_get(fsck->state.durable_sequence));
		if (fsck->out->last_sequence < le64_get(fsck->state.durable_sequence))
			repair_loss(repair, "journal: lost from group %" PRIu64 " on", fsck->out->last_sequence + 1);
		images_check(repair);
	} else if (known) {
		replay_forget(fsck);
		state_invent(repair, fsck->state.generation, "the newer block is lost");
	} else {
		state_invent(repair, le64_set(0), "both blocks are lost");
	}
	/* A rehearsal goes on with what replay would leave in the overlay. */
	if (fsck->error || repair->rehearsal)
		return;
	journal_home(repair);
	crc_draw(repair);
	/* Without an error on record a mount would take the rest of the repair for granted. */
	if (!le32_get(fsck->state.error_code) && !fsck->error) {
		static const char text[] = "a repair was not finished: run fsck.lanefs -y";
		fsck->state.error_code = le32_set(EUCLEAN);
		memcpy(fsck->state.error_text, text, sizeof(text));
	}
	if (!fsck->error)
		repair_write_state(repair, false);
}
