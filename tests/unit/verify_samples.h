/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One good metadata block of each type, for the verifier's tests to damage: those that mkfs makes, and by hand those
 * that only a filesystem in use has.
 */
#ifndef LANEFS_TESTS_UNIT_VERIFY_SAMPLES_H
#define LANEFS_TESTS_UNIT_VERIFY_SAMPLES_H

#include "fs/verify.h"
#include "tests/unit/image.h"

enum sample {
	SAMPLE_SUPER, SAMPLE_STATE, SAMPLE_AG_HEADER, SAMPLE_BLOCK_MAP, SAMPLE_INODE_MAP, SAMPLE_INODE_FREE_MAP,
	SAMPLE_INODES, SAMPLE_EXTENT_LEAF, SAMPLE_EXTENT_INNER, SAMPLE_DIR_LEAF, SAMPLE_DIR_INNER, SAMPLE_XATTR,
	SAMPLE_XATTR_VALUE, SAMPLE_ORPHANS, SAMPLE_COUNT,
};

extern struct image sample_image;
extern uint64_t sample_first_ag, sample_fixed; /* block number of AG 0; its header and maps in blocks */

int samples_init(void);
void samples_fini(void);
enum block_type sample_type(enum sample sample);
uint64_t sample_place(enum sample sample);
void sample_fill(enum sample sample, void *block);
/* Inode number of a slot of the inodes sample. */
uint64_t file_ino(unsigned slot);
/* A block of AG 0 that a fresh filesystem does not use. */
uint64_t spare_block(unsigned i);

#endif
