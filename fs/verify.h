/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checksums and verifiers: one per block type, from one table, run after each read and before each write of a metadata
 * block. A verifier looks at one block alone and at the geometry: it catches torn, stale, misdirected and hostile content
 * and makes every field that the code later uses as an index or a length safe to use.
 */
#ifndef LANEFS_FS_VERIFY_H
#define LANEFS_FS_VERIFY_H

#include "fs/format.h"

uint32_t fs_crc32c(uint32_t crc, const void *data, size_t length); /* start with 0 */
/* crc32c of a 4 KiB block with its crc field taken as zero. */
uint32_t block_crc(const void *block);
/* Fills magic, type, block, fsid, owner, sequence of a new block (the rest is the caller's) without crc. */
void block_header_init(void *block, enum block_type type, uint64_t block_number, uint64_t fsid, uint64_t owner);
/* Sets sequence and crc: just before a write. */
void block_seal(void *block, uint64_t sequence);

/* NULL when the block is good, otherwise the name of the field that failed (static string). @super gives fsid and
 * geometry. @check_crc false: content made in memory, not sealed yet. The owner is checked when it is not
 * BLOCK_OWNER_ANY. Also fsck's and the dumper's way to ask. */
#define BLOCK_OWNER_ANY UINT64_MAX
const char *block_verify(const struct fs_super *super, const void *block, uint64_t block_number, enum block_type type,
	uint64_t owner, bool check_crc);
/* Of a metadata block of any type but state, made in memory: where it may stand and what its header must be, whoever needs
 * it. Nothing is said of what stands behind the header. */
const char *block_header_verify(const struct fs_super *super, const void *block, uint64_t block_number);
/* The superblock by itself: magic, crc, version, geometry against @device_blocks. Returns NULL or the failing field.
 * Features are the caller's business. */
const char *super_verify(const struct fs_super *super, uint64_t block_number, uint64_t device_blocks);
const char *state_verify(const struct fs_super *super, const struct fs_state *state, uint64_t block_number);
/* One inode record: sizes, formats, fork contents, xattr records. */
const char *inode_verify(const struct fs_super *super, const struct disk_inode *inode, uint64_t ino);
const char *block_type_name(enum block_type type);
uint64_t fs_name_hash(uint64_t seed, const char *name, unsigned length); /* 47 bits, 1.. */

#endif
