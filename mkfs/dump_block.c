/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Single blocks: heading, header and body of each type; the superblock with its copies, both state blocks, and an
 * allocation group with its maps and orphans.
 */
#include <inttypes.h>
#include <stdio.h>

#include "mkfs/dump_internal.h"

/* ---- reading ---- */

bool dump_read(struct dump *dump, uint64_t block, void *buffer)
{
	if (block >= dump->device_blocks) {
		dump_fail(dump, "block %" PRIu64 ": lies past the end of the target (%" PRIu64 " blocks)", block,
			dump->device_blocks);
		return false;
	}
	const uint8_t *image = dump_overlay_find(dump, block);
	if (image) {
		memcpy(buffer, image, FS_BLOCK_SIZE);
		return true;
	}
	const int err = fsck_device_read(dump->device, block, buffer);
	if (err)
		dump_fail(dump, "block %" PRIu64 ": cannot be read: %s", block, strerror(-err));
	return !err;
}

static void header_print(const struct block_header *header)
{
	dump_field("header", "owner %" PRIu64 ", sequence %" PRIu64 ", fsid %#" PRIx64 ", crc %#" PRIx32,
		le64_get(header->owner), le64_get(header->sequence), le64_get(header->fsid), le32_get(header->crc));
}

bool dump_open(struct dump *dump, uint64_t block, enum block_type type, uint64_t owner, void *buffer, bool heading)
{
	if (!dump_read(dump, block, buffer))
		return false;
	/* What the journal holds gets its crc when it goes home. */
	const bool journal = dump_overlay_find(dump, block);
	const char *failed = block_verify(&dump->super, buffer, block, type, owner, !journal);
	if (failed || heading)
		printf("block %" PRIu64 " (%s%s): %s%s\n", block, block_type_name(type), journal ? ", from the journal" : "",
			failed ? "BAD: " : "good", failed ? failed : "");
	if (failed || heading)
		header_print(buffer);
	dump->bad += failed != NULL;
	return !failed || !block_verify(&dump->super, buffer, block, type, owner, false);
}

/* ---- superblock ---- */

static void super_print(const struct fs_super *super)
{
	dump_field("version", "%" PRIu32, le32_get(super->version));
	dump_field("block size", "%" PRIu32, le32_get(super->block_size));
	dump_field("inode size", "%" PRIu32, le32_get(super->inode_size));
	dump_uuid("uuid", super->uuid);
	dump_text("label", super->label, strnlen((const char *)super->label, FS_LABEL_BYTES));
	dump_time("created", super->created_sec, 0);
	dump_field("fsid", "%#" PRIx64, le64_get(super->fsid));
	dump_field("journal id", "%#" PRIx64, le64_get(super->journal_id));
	dump_field("hash seed", "%#" PRIx64, le64_get(super->hash_seed));
	dump_field("blocks", "%" PRIu64, le64_get(super->block_count));
	dump_field("journal", "%" PRIu64 " blocks from %" PRIu64, le64_get(super->journal_blocks),
		le64_get(super->journal_first));
	dump_field("allocation groups", "%" PRIu32 " of %" PRIu32 " blocks, the last %" PRIu32 ", from %" PRIu64,
		le32_get(super->ag_count), le32_get(super->ag_blocks), le32_get(super->last_ag_blocks),
		le64_get(super->first_ag_block));
	dump_field("blocks per map", "%" PRIu32, le32_get(super->map_blocks));
	dump_field("root place", "%" PRIu64 " (inode 1)", le64_get(super->root_place));
	dump_field("features", "compat %#" PRIx64 ", ro_compat %#" PRIx64 ", incompat %#" PRIx64, le64_get(super->compat),
		le64_get(super->ro_compat), le64_get(super->incompat));
}

static void super_copy_print(struct dump *dump, uint64_t block)
{
	if (!dump_read(dump, block, dump->block))
		return;
	const char *failed = block_verify(&dump->super, dump->block, block, BLOCK_SUPER, 0, !dump_overlay_find(dump, block));
	dump->bad += failed != NULL;
	dump_field("copy", "block %" PRIu64 ": %s%s", block, failed ? "BAD: " : "good", failed ? failed : "");
}

void dump_super(struct dump *dump)
{
	if (dump_open(dump, FS_SUPER_BLOCK, BLOCK_SUPER, 0, dump->block, true))
		super_print((const struct fs_super *)dump->block);
	for (uint32_t ag = 1; ag && ag < le32_get(dump->super.ag_count); ag <<= 1)
		super_copy_print(dump, ag_first_block(&dump->super, ag) + FS_AG_SUPER_COPY);
	super_copy_print(dump, le64_get(dump->super.block_count) - 1);
}

/* ---- state ---- */

static void state_print(const struct fs_state *state)
{
	const uint32_t error = le32_get(state->error_code);

	dump_field("generation", "%" PRIu64, le64_get(state->generation));
	dump_field("mount generation", "%" PRIu64, le64_get(state->mount_generation));
	dump_field("clean", "%" PRIu32 "%s", le32_get(state->clean),
		le32_get(state->clean) ? "" : " (mounted, or not unmounted cleanly)");
	dump_field("journal tail", "ring block %" PRIu64 ", sequence %" PRIu64 ", crc before it %#" PRIx32,
		le64_get(state->tail_block), le64_get(state->tail_sequence), le32_get(state->tail_crc));
	dump_field("durable sequence", "%" PRIu64, le64_get(state->durable_sequence));
	dump_field("free blocks", "%" PRIu64 "%s", le64_get(state->free_blocks),
		le32_get(state->clean) ? "" : " (at the last clean unmount)");
	dump_field("used inodes", "%" PRIu64, le64_get(state->used_inodes));
	if (!error)
		return;
	dump_field("error", "%" PRIu32 " (%s), %" PRIu32 " times, block %" PRIu64, error, strerror((int)error),
		le32_get(state->error_count), le64_get(state->error_block));
	dump_time("error time", state->error_sec, 0);
	dump_text("error text", state->error_text, strnlen((const char *)state->error_text, sizeof(state->error_text)));
}

const struct fs_state *dump_state_current(struct dump *dump)
{
	const struct fs_state *states[2] = {NULL, NULL};
	uint8_t *const buffers[2] = {dump->block, dump->value};

	for (unsigned i = 0; i < ARRAY_SIZE(states); i++)
		if (dump_read(dump, FS_STATE_BLOCK_A + i, buffers[i]) &&
			!block_verify(&dump->super, buffers[i], FS_STATE_BLOCK_A + i, BLOCK_STATE, 0, true))
			states[i] = (const struct fs_state *)buffers[i];
	if (!states[0] || (states[1] && le64_get(states[1]->generation) > le64_get(states[0]->generation)))
		memcpy(dump->block, dump->value, FS_BLOCK_SIZE);
	return states[0] || states[1] ? (const struct fs_state *)dump->block : NULL;
}

void dump_state(struct dump *dump)
{
	const struct fs_state *current = dump_state_current(dump);
	const uint64_t generation = current ? le64_get(current->generation) : 0;

	for (uint64_t block = FS_STATE_BLOCK_A; block <= FS_STATE_BLOCK_B; block++) {
		if (!dump_open(dump, block, BLOCK_STATE, 0, dump->block, true))
			continue;
		const struct fs_state *state = (const struct fs_state *)dump->block;
		state_print(state);
		dump_field("counts", current && le64_get(state->generation) == generation ? "yes" : "no");
	}
}

/* ---- allocation groups ---- */

static void ag_header_print(const struct ag_header *header)
{
	dump_field("AG", "%" PRIu32, le32_get(header->ag));
	dump_field("blocks", "%" PRIu32 ", free %" PRIu32, le32_get(header->blocks), le32_get(header->free_blocks));
	dump_field("inode blocks", "%" PRIu32 ", used inodes %" PRIu32, le32_get(header->inode_blocks),
		le32_get(header->used_inodes));
	dump_field("next generation", "%" PRIu32, le32_get(header->next_generation));
	dump_field("orphans", "%" PRIu32 ", first block %" PRIu64, le32_get(header->orphan_count),
		le64_get(header->orphan_head));
	dump_field("maps ready", "blocks %#" PRIx64 ", inodes %#" PRIx64 ", free inodes %#" PRIx64,
		le64_get(header->block_map_ready), le64_get(header->inode_map_ready), le64_get(header->inode_free_map_ready));
}

/* Bits as device blocks. */
static void map_print(const struct dump *dump, const struct map_block *map)
{
	const uint32_t ag = (uint32_t)le64_get(map->header.owner), start = le32_get(map->index) * FS_MAP_BITS;
	const uint32_t blocks = ag_block_count(&dump->super, ag);

	dump_field("index", "%" PRIu32, le32_get(map->index));
	dump_bits("set for blocks", map->bits, blocks <= start ? 0 : MIN(blocks - start, (uint32_t)FS_MAP_BITS),
		ag_first_block(&dump->super, ag) + start);
}

static void ag_map_print(struct dump *dump, uint32_t ag, enum block_type type, uint64_t ready)
{
	const uint32_t map_blocks = le32_get(dump->super.map_blocks);
	const uint64_t first = ag_first_block(&dump->super, ag) + FS_AG_MAPS_FIRST +
		(uint64_t)(type - BLOCK_BLOCK_MAP) * map_blocks;

	for (uint32_t i = 0; i < map_blocks; i++) {
		if (!(ready >> i & 1))
			printf("block %" PRIu64 " (%s): not written yet\n", first + i, block_type_name(type));
		else if (dump_open(dump, first + i, type, ag, dump->value, true))
			map_print(dump, (const struct map_block *)dump->value);
	}
}

static void orphans_print(const struct orphan_block *orphans)
{
	dump_field("next", "%" PRIu64, le64_get(orphans->next));
	dump_field("count", "%" PRIu32, le32_get(orphans->count));
	for (unsigned i = 0; i < FS_ORPHANS_PER_BLOCK; i++)
		if (le64_get(orphans->inode[i]))
			dump_field("inode", "%" PRIu64, le64_get(orphans->inode[i]));
}

void dump_ag(struct dump *dump, uint64_t number)
{
	if (number >= le32_get(dump->super.ag_count)) {
		dump_fail(dump, "AG %" PRIu64 ": there are only %" PRIu32, number, le32_get(dump->super.ag_count));
		return;
	}
	const uint32_t ag = (uint32_t)number;
	const struct ag_header *header = (const struct ag_header *)dump->block;
	if (!dump_open(dump, ag_first_block(&dump->super, ag), BLOCK_AG_HEADER, ag, dump->block, true))
		return;
	ag_header_print(header);
	ag_map_print(dump, ag, BLOCK_BLOCK_MAP, le64_get(header->block_map_ready));
	ag_map_print(dump, ag, BLOCK_INODE_MAP, le64_get(header->inode_map_ready));
	ag_map_print(dump, ag, BLOCK_INODE_FREE_MAP, le64_get(header->inode_free_map_ready));
	uint64_t next = le64_get(header->orphan_head);
	for (uint64_t left = le32_get(header->blocks); next && left; left--) {
		if (!dump_open(dump, next, BLOCK_ORPHANS, ag, dump->value, true))
			return;
		const struct orphan_block *orphans = (const struct orphan_block *)dump->value;
		orphans_print(orphans);
		next = le64_get(orphans->next);
	}
}

/* ---- any block ---- */

static void body_print(struct dump *dump, uint64_t block, enum block_type type)
{
	const void *body = dump->block;
	const struct xattr_block *xattrs = body;
	const struct xattr_value_block *value = body;

	switch (type) {
	case BLOCK_SUPER:
		super_print(body);
		break;
	case BLOCK_STATE:
		state_print(body);
		break;
	case BLOCK_AG_HEADER:
		ag_header_print(body);
		break;
	case BLOCK_BLOCK_MAP:
	case BLOCK_INODE_MAP:
	case BLOCK_INODE_FREE_MAP:
		map_print(dump, body);
		break;
	case BLOCK_INODES:
		dump_inode_block(dump, body, block);
		break;
	case BLOCK_EXTENT_NODE:
	case BLOCK_DIR_NODE:
		dump_node(body, type);
		break;
	case BLOCK_XATTR:
		dump_field("next", "%" PRIu64, le64_get(xattrs->next));
		dump_field("records", "%u in %u bytes", le16_get(xattrs->count), le16_get(xattrs->bytes));
		dump_xattr_records(dump, xattrs->records, le16_get(xattrs->bytes), le64_get(xattrs->header.owner));
		break;
	case BLOCK_XATTR_VALUE:
		dump_field("piece", "%" PRIu32 ", %" PRIu32 " bytes", le32_get(value->index), le32_get(value->bytes));
		dump_bytes(value->data, le32_get(value->bytes));
		break;
	case BLOCK_ORPHANS:
		orphans_print(body);
		break;
	default:
		break;
	}
}

void dump_block(struct dump *dump, uint64_t block)
{
	const struct block_header *header = (const struct block_header *)dump->block;

	if (!dump_read(dump, block, dump->block))
		return;
	dump_place(dump, block);
	const unsigned type = le16_get(header->type);
	if (le32_get(header->magic) != FS_BLOCK_MAGIC || !type || type >= BLOCK_TYPE_COUNT) {
		printf("block %" PRIu64 ": no metadata header: data, or unused; \"owner %" PRIu64 "\" looks for its file\n", block, block);
		dump_bytes(dump->block, FS_BLOCK_SIZE);
	} else if (dump_open(dump, block, type, BLOCK_OWNER_ANY, dump->block, true)) {
		body_print(dump, block, type);
	} else {
		dump_bytes(dump->block, FS_BLOCK_SIZE);
	}
}
