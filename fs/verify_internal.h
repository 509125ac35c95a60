/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the verifiers share. A check returns NULL, or the name of the field that failed (static string).
 * Places: every block number that a block holds must lie in the part of an allocation group that can be allocated;
 * every inode number must be one that the geometry allows. The root is always called 1, never by its place.
 */
#ifndef LANEFS_FS_VERIFY_INTERNAL_H
#define LANEFS_FS_VERIFY_INTERNAL_H

#include "fs/verify.h"

/* First block after the last allocation group. */
uint64_t area_end(const struct fs_super *super);
/* Allocation group of a block, UINT32_MAX when it stands in none. */
uint32_t area_ag(const struct fs_super *super, uint64_t block);
/* True when blocks [block, block + count) lie in one allocation group, behind its header and maps. */
bool area_holds(const struct fs_super *super, uint64_t block, uint64_t count);
/* True when @ino is FS_ROOT_INODE or a place that can hold an inode (and is not the root's). */
bool ino_allowed(const struct fs_super *super, uint64_t ino);
bool bytes_zero(const void *data, size_t length);

/* Body of a superblock; the header is checked already. */
const char *super_check(const struct fs_super *super, uint64_t block_number, uint64_t device_blocks);

/* Record lists: @count records fill exactly @bytes (extents: @count alone). */
const char *extents_check(const struct fs_super *super, const uint8_t *records, unsigned count);
const char *dirents_check(const struct fs_super *super, const uint8_t *records, unsigned bytes, uint64_t count);
const char *xattrs_check(const struct fs_super *super, const uint8_t *records, unsigned bytes, unsigned *out_count);

/* Bodies of blocks, for the table in verify.c. */
const char *inodes_check(const struct fs_super *super, const void *block, uint64_t block_number);
const char *extent_node_check(const struct fs_super *super, const void *block, uint64_t block_number);
const char *dir_node_check(const struct fs_super *super, const void *block, uint64_t block_number);
const char *xattr_check(const struct fs_super *super, const void *block, uint64_t block_number);
const char *xattr_value_check(const struct fs_super *super, const void *block, uint64_t block_number);

#endif
