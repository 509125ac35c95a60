/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums, block headers, and the table of verifiers with the short ones: state, AG header, maps, orphans. The
 * superblock is in verify_super.c, inodes in verify_inode.c, record lists and tree nodes in verify_records.c.
 *
 * A verifier trusts the geometry in the superblock that it is given (super_verify has seen it) and nothing else. What it
 * cannot see from one block - a free count that disagrees with its bitmap, a name in the wrong directory - is fsck's.
 */
#include "fs/verify_internal.h"

#include <isa-l/crc.h>
#include <limits.h>
#define XXH_NO_XXH32
#include <xxhash.h>

/* ---- checksums and headers ---- */

uint32_t fs_crc32c(uint32_t crc, const void *data, size_t length)
{
	assert(length <= INT_MAX);
	/* isal neither inverts its start value nor its result; RFC 3720 asks for both. */
	return ~crc32_iscsi((unsigned char *)data, (int)length, ~crc);
}

uint32_t block_crc(const void *block)
{
	const uint8_t *bytes = block;
	const size_t at = offsetof(struct block_header, crc);
	const le32_t zero = {0};

	uint32_t crc = fs_crc32c(0, bytes, at);
	crc = fs_crc32c(crc, &zero, sizeof(zero));
	return fs_crc32c(crc, bytes + at + sizeof(zero), FS_BLOCK_SIZE - at - sizeof(zero));
}

void block_header_init(void *block, enum block_type type, uint64_t block_number, uint64_t fsid, uint64_t owner)
{
	*(struct block_header *)block = (struct block_header){
		.magic = le32_set(FS_BLOCK_MAGIC),
		.type = le16_set((uint16_t)type),
		.block = le64_set(block_number),
		.fsid = le64_set(fsid),
		.owner = le64_set(owner),
	};
}

void block_seal(void *block, uint64_t sequence)
{
	struct block_header *header = block;

	header->sequence = le64_set(sequence);
	header->crc = le32_set(block_crc(block));
}

uint64_t fs_name_hash(uint64_t seed, const char *name, unsigned length)
{
	const uint64_t hash = XXH3_64bits_withSeed(name, length, seed) >> 17;

	return hash ? hash : 1;
}

/* ---- the short verifiers ---- */

static const char *state_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const struct fs_state *state = block;
	const uint64_t generation = le64_get(state->generation);
	const uint64_t tail = le64_get(state->tail_sequence);
	const uint64_t durable = le64_get(state->durable_sequence);
	const uint64_t area = area_end(super) - le64_get(super->first_ag_block);

	if (block_number != FS_STATE_BLOCK_A && block_number != FS_STATE_BLOCK_B)
		return "header.block";
	if (!generation || generation >= FS_COUNT_END || (generation & 1) != (block_number == FS_STATE_BLOCK_B))
		return "generation";
	if (le64_get(state->mount_generation) >= FS_COUNT_END)
		return "mount_generation";
	if (le32_get(state->clean) > 1)
		return "clean";
	if (le32_get(state->reserved0) || le32_get(state->reserved1))
		return "reserved";
	if (le64_get(state->tail_block) >= le64_get(super->journal_blocks))
		return "tail_block";
	if (!tail || tail >= FS_COUNT_END)
		return "tail_sequence";
	/* Every group fills at least one block of the ring. */
	if (durable < tail - 1 || durable >= FS_COUNT_END - 1 || durable - (tail - 1) > le64_get(super->journal_blocks))
		return "durable_sequence";
	if (le32_get(state->clean) && durable != tail - 1)
		return "durable_sequence";
	if (le64_get(state->free_blocks) > area)
		return "free_blocks";
	if (le64_get(state->used_inodes) > area * FS_INODES_PER_BLOCK)
		return "used_inodes";
	if (!memchr(state->error_text, 0, sizeof(state->error_text)))
		return "error_text";
	return bytes_zero(state->reserved, sizeof(state->reserved)) ? NULL : "reserved";
}

static const char *ag_header_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const struct ag_header *header = block;
	const uint32_t ag = area_ag(super, block_number);
	const uint32_t blocks = ag_block_count(super, ag);
	const uint32_t usable = blocks - ag_fixed_blocks(super);
	const uint32_t map_blocks = le32_get(super->map_blocks);
	const uint64_t not_ready = map_blocks < 64 ? ~0ull << map_blocks : 0;

	if (block_number != ag_first_block(super, ag))
		return "header.block";
	if (le32_get(header->ag) != ag)
		return "ag";
	if (le32_get(header->blocks) != blocks)
		return "blocks";
	if (le32_get(header->free_blocks) > usable)
		return "free_blocks";
	if (le32_get(header->inode_blocks) > usable - le32_get(header->free_blocks))
		return "inode_blocks";
	if (le32_get(header->used_inodes) > le32_get(header->inode_blocks) * FS_INODES_PER_BLOCK)
		return "used_inodes";
	if (!le32_get(header->next_generation))
		return "next_generation";
	if (!le64_get(header->orphan_head) && le32_get(header->orphan_count))
		return "orphan_count";
	if (le64_get(header->orphan_head) && !area_holds(super, le64_get(header->orphan_head), 1))
		return "orphan_head";
	if (le64_get(header->block_map_ready) & not_ready)
		return "block_map_ready";
	if (le64_get(header->inode_map_ready) & not_ready)
		return "inode_map_ready";
	if (le64_get(header->inode_free_map_ready) & not_ready)
		return "inode_free_map_ready";
	if (le64_get(header->refcount_root))
		return "refcount_root";
	if (le32_get(header->reserved0) || !bytes_zero(header->reserved, sizeof(header->reserved)))
		return "reserved";
	return NULL;
}

static bool map_bit(const struct map_block *map, uint32_t index) { return map->bits[index / 8] >> (index % 8) & 1; }

/* True when bits [first, end) of the map block all have this value. The last AG may be far shorter than a map block: words. */
static bool map_bits_are(const struct map_block *map, uint32_t first, uint32_t end, bool value)
{
	const uint64_t whole = value ? UINT64_MAX : 0;
	while (first < end) {
		const bool word = first % 64 == 0 && end - first >= 64;
		if (word ? memcmp(map->bits + first / 8, &whole, sizeof(whole)) != 0 : map_bit(map, first) != value)
			return false;
		first += word ? 64 : 1;
	}
	return true;
}

/* @value: what the bits of the AG's own header and maps, and those past its end, must have. */
static const char *map_check(const struct fs_super *super, const struct map_block *map, uint64_t block_number,
	enum block_type type)
{
	const uint32_t ag = area_ag(super, block_number);
	const uint32_t index = le32_get(map->index);
	const uint32_t map_blocks = le32_get(super->map_blocks);
	const bool value = type == BLOCK_BLOCK_MAP;

	if (index >= map_blocks)
		return "index";
	const uint32_t first = FS_AG_MAPS_FIRST + (uint32_t)(type - BLOCK_BLOCK_MAP) * map_blocks;
	if (block_number != ag_first_block(super, ag) + first + index)
		return "header.block";
	if (!bytes_zero(map->reserved, sizeof(map->reserved)))
		return "reserved";
	const uint32_t start = index * FS_MAP_BITS;
	const uint32_t blocks = ag_block_count(super, ag);
	if (!index && !map_bits_are(map, 0, ag_fixed_blocks(super), value))
		return "bits";
	const uint32_t past = blocks <= start ? 0 : MIN(blocks - start, (uint32_t)FS_MAP_BITS);
	return map_bits_are(map, past, FS_MAP_BITS, value) ? NULL : "bits";
}

static const char *block_map_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	return map_check(super, block, block_number, BLOCK_BLOCK_MAP);
}

static const char *inode_map_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	return map_check(super, block, block_number, BLOCK_INODE_MAP);
}

static const char *inode_free_map_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	return map_check(super, block, block_number, BLOCK_INODE_FREE_MAP);
}

static const char *orphans_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const struct orphan_block *orphans = block;
	const uint64_t next = le64_get(orphans->next);
	uint32_t count = 0;

	if (le64_get(orphans->header.owner) >= le32_get(super->ag_count))
		return "header.owner";
	if (next && (next == block_number || !area_holds(super, next, 1)))
		return "next";
	for (unsigned i = 0; i < FS_ORPHANS_PER_BLOCK; i++) {
		const uint64_t ino = le64_get(orphans->inode[i]);
		if (!ino)
			continue;
		if (ino == FS_ROOT_INODE || !ino_allowed(super, ino) || ino_ag(ino) != le64_get(orphans->header.owner))
			return "inode";
		count++;
	}
	if (le32_get(orphans->count) != count)
		return "count";
	return le32_get(orphans->reserved0) ? "reserved" : NULL;
}

static const char *super_block_check(const struct fs_super *super, const void *block, uint64_t block_number)
{
	return super_check(block, block_number, UINT64_MAX);
}

/* ---- the table ---- */

enum owner_kind {
	OWNER_NONE,      /* 0 */
	OWNER_AG,        /* the AG that the block stands in */
	OWNER_INODE,     /* an inode number */
	OWNER_OTHER_AG,  /* an AG, not always the one that the block stands in */
};
enum place_kind {
	PLACE_OWN,       /* the type's check compares it with the only places it has */
	PLACE_AG,        /* in an AG; the type's check knows more */
	PLACE_FREE,      /* taken from the free space of an AG */
};

static const struct block_kind {
	const char *name;
	enum owner_kind owner;
	enum place_kind place;
	const char *(*check)(const struct fs_super *super, const void *block, uint64_t block_number);
} block_kinds[BLOCK_TYPE_COUNT] = {
	[BLOCK_SUPER] = {"superblock", OWNER_NONE, PLACE_OWN, super_block_check},
	[BLOCK_STATE] = {"state", OWNER_NONE, PLACE_OWN, state_check},
	[BLOCK_AG_HEADER] = {"AG header", OWNER_AG, PLACE_AG, ag_header_check},
	[BLOCK_BLOCK_MAP] = {"block map", OWNER_AG, PLACE_AG, block_map_check},
	[BLOCK_INODE_MAP] = {"inode map", OWNER_AG, PLACE_AG, inode_map_check},
	[BLOCK_INODE_FREE_MAP] = {"inode free map", OWNER_AG, PLACE_AG, inode_free_map_check},
	[BLOCK_INODES] = {"inodes", OWNER_AG, PLACE_FREE, inodes_check},
	[BLOCK_EXTENT_NODE] = {"extent node", OWNER_INODE, PLACE_FREE, extent_node_check},
	[BLOCK_DIR_NODE] = {"directory node", OWNER_INODE, PLACE_FREE, dir_node_check},
	[BLOCK_XATTR] = {"xattr", OWNER_INODE, PLACE_FREE, xattr_check},
	[BLOCK_XATTR_VALUE] = {"xattr value", OWNER_INODE, PLACE_FREE, xattr_value_check},
	[BLOCK_ORPHANS] = {"orphans", OWNER_OTHER_AG, PLACE_FREE, orphans_check},
};

static const struct block_kind *block_kind_of(enum block_type type)
{
	if ((unsigned)type >= BLOCK_TYPE_COUNT || !block_kinds[type].check)
		return NULL;
	return &block_kinds[type];
}

const char *block_type_name(enum block_type type)
{
	const struct block_kind *kind = block_kind_of(type);

	return kind ? kind->name : "unknown";
}

static const char *header_check(const struct block_header *header, uint64_t fsid, uint64_t block_number,
	enum block_type type, bool check_crc)
{
	if (le32_get(header->magic) != FS_BLOCK_MAGIC)
		return "header.magic";
	if (check_crc && le32_get(header->crc) != block_crc(header))
		return "header.crc";
	if (le16_get(header->type) != type)
		return "header.type";
	if (le16_get(header->reserved0) || le32_get(header->reserved1))
		return "header.reserved";
	if (le64_get(header->block) != block_number)
		return "header.block";
	if (le64_get(header->fsid) != fsid)
		return "header.fsid";
	return NULL;
}

const char *block_header_verify(const struct fs_super *super, const void *block, uint64_t block_number)
{
	const unsigned type = le16_get(((const struct block_header *)block)->type);

	if (type == BLOCK_STATE || !block_kind_of(type))
		return "header.type";
	if (area_ag(super, block_number) == UINT32_MAX && block_number != FS_SUPER_BLOCK &&
		block_number != le64_get(super->block_count) - 1)
		return "header.block";
	return header_check(block, le64_get(super->fsid), block_number, type, false);
}

static bool owner_fits(const struct fs_super *super, uint64_t owner, uint64_t block_number, enum owner_kind kind)
{
	switch (kind) {
	case OWNER_NONE:
		return !owner;
	case OWNER_AG:
		return owner == area_ag(super, block_number);
	case OWNER_INODE:
		return ino_allowed(super, owner);
	case OWNER_OTHER_AG:
		return owner < le32_get(super->ag_count);
	}
	return false;
}

static bool place_fits(const struct fs_super *super, uint64_t block_number, enum place_kind kind)
{
	switch (kind) {
	case PLACE_OWN:
		return true;
	case PLACE_AG:
		return area_ag(super, block_number) != UINT32_MAX;
	case PLACE_FREE:
		return area_holds(super, block_number, 1);
	}
	return false;
}

const char *block_verify(const struct fs_super *super, const void *block, uint64_t block_number, enum block_type type,
	uint64_t owner, bool check_crc)
{
	const struct block_header *header = block;
	const struct block_kind *kind = block_kind_of(type);

	if (!kind)
		return "type";
	const char *failed = header_check(header, le64_get(super->fsid), block_number, type, check_crc);
	if (failed)
		return failed;
	if (!place_fits(super, block_number, kind->place))
		return "header.block";
	if (owner != BLOCK_OWNER_ANY && le64_get(header->owner) != owner)
		return "header.owner";
	if (!owner_fits(super, le64_get(header->owner), block_number, kind->owner))
		return "header.owner";
	return kind->check(super, block, block_number);
}

const char *super_verify(const struct fs_super *super, uint64_t block_number, uint64_t device_blocks)
{
	const char *failed = header_check(&super->header, le64_get(super->fsid), block_number, BLOCK_SUPER, true);

	if (failed)
		return failed;
	if (le64_get(super->header.owner))
		return "header.owner";
	return super_check(super, block_number, device_blocks);
}

const char *state_verify(const struct fs_super *super, const struct fs_state *state, uint64_t block_number)
{
	return block_verify(super, state, block_number, BLOCK_STATE, 0, true);
}
