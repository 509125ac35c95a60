/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A filesystem in memory, built by hand for the tests of fsck: mkfs lays the ground, then one of everything that the
 * format knows is put on it block by block. Nothing of the filesystem's own code takes part, so the sample says what
 * fs/format.h says. Tests damage a copy, seal the damaged block again, and ask fsck.
 */
#ifndef LANEFS_TESTS_FSCK_IMAGE_H
#define LANEFS_TESTS_FSCK_IMAGE_H

#include "fs/format.h"
#include "mkfs/fsck.h"

enum {
	SAMPLE_AGS = 5,
	SAMPLE_JOURNAL_BLOCKS = 160,
	SAMPLE_AG_FIRST = FS_JOURNAL_FIRST_BLOCK + SAMPLE_JOURNAL_BLOCKS,
	SAMPLE_BLOCKS = SAMPLE_AG_FIRST + SAMPLE_AGS * FS_AG_BLOCKS_MIN + 1,
	SAMPLE_WIDE_ENTRIES = 60,
	SAMPLE_FINDINGS = 64,
};

/* Inode numbers and block numbers of what the sample holds. */
struct sample {
	uint8_t *data;              /* SAMPLE_BLOCKS blocks */
	uint32_t next_block[SAMPLE_AGS]; /* AG-relative, next to be taken */
	uint16_t metadata[128];     /* numbers of the blocks to be sealed */
	unsigned metadata_count;
	uint64_t inode_block[SAMPLE_AGS];
	uint64_t root, root_leaf, file_inline, file_extents, file_tree, symlink, symlink_long, fifo, device, file_xattr;
	uint64_t sub, sub_child, wide, far, far_child, orphan, truncating;
	uint64_t extent_root, extent_leaf[2];
	uint64_t wide_root, wide_leaf[8];
	unsigned wide_leaves;
	uint64_t xattr_block[2], value_block[2];
	uint64_t orphan_block;
};

void sample_create(struct sample *sample);
void sample_copy(const struct sample *from, struct sample *to);
void sample_destroy(struct sample *sample);

void *sample_block(struct sample *sample, uint64_t block);
struct disk_inode *sample_inode(struct sample *sample, uint64_t ino);
uint64_t sample_inode_block(const struct sample *sample, uint64_t ino);
struct ag_header *sample_ag(struct sample *sample, uint32_t ag);
/* Block of a map of an AG: 0 block map, 1 inode map, 2 inode free map. */
struct map_block *sample_map(struct sample *sample, uint32_t ag, unsigned map);
struct fs_super *sample_super(struct sample *sample);
struct fs_state *sample_state(struct sample *sample);
/* crc of the block that this pointer points into. */
void sample_seal(struct sample *sample, void *inside);
/* A new block of an AG, zeroed, with header and map bit; @type 0: data, without header. */
uint64_t sample_take(struct sample *sample, uint32_t ag, unsigned type, uint64_t owner);
uint64_t sample_name_key(struct sample *sample, const char *name);

/* ---- the journal ---- */
struct sample_group {
	uint8_t *bytes;             /* of the whole group, blocks rounded up */
	size_t length, records;
};
void sample_group_begin(struct sample_group *group);
void sample_group_record(
	struct sample_group *group, uint64_t block, unsigned offset, unsigned length, const void *data);
/* Writes the group at @place of the ring as the one with @sequence after @previous_crc; returns its crc. Frees it. */
uint32_t sample_group_end(struct sample *sample, struct sample_group *group, uint64_t place, uint64_t sequence,
	uint32_t previous_crc);

/* ---- asking fsck ---- */
struct sample_check {
	struct fsck_result result;
	int error;
	unsigned lines;
	char line[SAMPLE_FINDINGS][256];
	uint64_t fail_block;        /* reading it fails; 0: none */
	const uint8_t *data;
	uint64_t reads;
	bool late;                  /* the first group is read after the others, when jobs share them */
};
void sample_fsck(const struct sample *sample, struct sample_check *check);

#endif
