/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the journal holds, applied in memory: images of whole blocks that every later read finds first. Bounds: a full
 * image stands in the ring for each block that gets one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mkfs/dump_internal.h"

static size_t slot_of(const struct dump_overlay *overlay, uint64_t block)
{
	size_t slot = (block * 0x9e3779b97f4a7c15ull) >> 20 & (overlay->slots - 1);

	while (overlay->slot[slot].image && overlay->slot[slot].block != block)
		slot = (slot + 1) & (overlay->slots - 1);
	return slot;
}

const uint8_t *dump_overlay_find(const struct dump *dump, uint64_t block)
{
	const struct dump_overlay *overlay = &dump->overlay;

	return overlay->count ? overlay->slot[slot_of(overlay, block)].image : NULL;
}

static bool overlay_grow(struct dump_overlay *overlay)
{
	struct dump_overlay larger = {.slots = overlay->slots ? 2 * overlay->slots : 256, .count = overlay->count};

	larger.slot = calloc(larger.slots, sizeof(*larger.slot));
	if (!larger.slot)
		return false;
	for (size_t i = 0; i < overlay->slots; i++)
		if (overlay->slot[i].image)
			larger.slot[slot_of(&larger, overlay->slot[i].block)] = overlay->slot[i];
	free(overlay->slot);
	*overlay = larger;
	return true;
}

/* The image of a block, new ones undefined; NULL: no memory. */
static uint8_t *overlay_insert(struct dump_overlay *overlay, uint64_t block)
{
	if (2 * (overlay->count + 1) > overlay->slots && !overlay_grow(overlay))
		return NULL;
	const size_t slot = slot_of(overlay, block);
	if (!overlay->slot[slot].image) {
		overlay->slot[slot].image = malloc(FS_BLOCK_SIZE);
		overlay->slot[slot].block = block;
		overlay->count += overlay->slot[slot].image != NULL;
	}
	return overlay->slot[slot].image;
}

/* The journal's own blocks, and what lies past the device, cannot be changed by it. */
static bool may_change(const struct dump *dump, uint64_t block)
{
	return block == FS_SUPER_BLOCK || (block >= le64_get(dump->super.first_ag_block) && block < dump->device_blocks);
}

static void record_apply(struct dump *dump, uint64_t sequence, const struct journal_record *record)
{
	const uint64_t block = le64_get(record->block);
	const unsigned length = le16_get(record->length);

	if (!may_change(dump, block) || (length < FS_BLOCK_SIZE && !dump_overlay_find(dump, block))) {
		dump_fail(dump, "journal group %" PRIu64 ": a record for block %" PRIu64 " that %s", sequence, block,
			may_change(dump, block) ? "has no full image before it" : "is no metadata");
		return;
	}
	uint8_t *image = overlay_insert(&dump->overlay, block);
	if (image)
		memcpy(image + le16_get(record->offset), record + 1, length);
	else
		dump_fail(dump, "no memory for the journal; --raw does without");
}

void dump_replay(struct dump *dump)
{
	uint64_t records;
	const uint64_t groups = dump_journal_each(dump, record_apply, &records);
	const uint8_t *image = dump_overlay_find(dump, FS_SUPER_BLOCK);

	if (image) { /* it grew */
		struct fs_super *super = (struct fs_super *)dump->value;
		memcpy(super, image, FS_BLOCK_SIZE);
		super->header.crc = le32_set(block_crc(super));
		if (!super_verify(super, FS_SUPER_BLOCK, dump->device_blocks))
			dump->super = *super;
	}
	if (groups)
		printf("%s: %" PRIu64 " groups of the journal (%" PRIu64 " records) are applied here, in memory, as the next mount will;"
		       " --raw shows what stands on the target\n", dump->target, groups, records);
}

void dump_overlay_fini(struct dump *dump)
{
	for (size_t i = 0; i < dump->overlay.slots; i++)
		free(dump->overlay.slot[i].image);
	free(dump->overlay.slot);
}
