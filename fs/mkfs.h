/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Formatting as a library: geometry and the initial blocks, written through a function of the caller, so that the tool
 * formats a device, a test formats memory and the golden-image test formats a buffer. Uses format.h only; no fibers.
 */
#ifndef LANEFS_FS_MKFS_H
#define LANEFS_FS_MKFS_H

#include "fs/format.h"

struct mkfs_options {
	uint64_t size_bytes;            /* of the device */
	uint64_t journal_bytes;         /* 0: 1/64 of the size, between 4 MiB and 64 MiB (never over 1/4 of the size) */
	uint64_t ag_bytes;              /* 0: 1 GiB, smaller so that there are at least 8 */
	char label[FS_LABEL_BYTES + 1];
	uint8_t uuid[FS_UUID_BYTES];
	uint64_t fsid, journal_id, hash_seed; /* drawn by the caller (random), or fixed for golden images */
	uint32_t first_crc;             /* previous_crc of the first group; random */
	uint64_t first_sequence;        /* of the first group; random below 2^40, at least 1 */
	int64_t now_sec;
	uint32_t uid, gid;              /* of the root directory */
	uint32_t root_mode;             /* 0: 0755 */
	bool small;                     /* tests: AGs down to 1 MiB and journals down to FS_JOURNAL_BLOCKS_MIN are allowed */
};
/* write(arg, block, data): one 4 KiB block; 0 or a negative errno. progress may be NULL (done, total in AGs). Blocks are
 * written so that the superblock comes last. The old contents of the journal ring need no clearing.
 * On failure @message has one line. On success *out_super is the superblock. */
struct mkfs_io {
	int (*write)(void *arg, uint64_t block, const void *data);
	void (*progress)(void *arg, uint64_t done, uint64_t total);
	void *arg;
};
/* Only the geometry: fills *super. -EINVAL / -ENOSPC with @message. */
int mkfs_plan(const struct mkfs_options *options, struct fs_super *super, char *message, size_t message_size) MUST_CHECK;
int mkfs_format(const struct mkfs_options *options, const struct mkfs_io *io, struct fs_super *out_super, char *message,
	size_t message_size) MUST_CHECK;

/* The superblock of a filesystem that is to have @blocks blocks (at most the device's): more AGs, a longer last one. The
 * place in header.block and the crc are the caller's to set. -EINVAL with @message: smaller than it is, or too little more
 * to add a block to. */
int mkfs_grow_plan(const struct fs_super *old, uint64_t blocks, struct fs_super *out, char *message,
	size_t message_size) MUST_CHECK;
/* Block that is the header of an AG in which nothing was allocated yet, all but sequence and crc. */
void mkfs_ag_header(const struct fs_super *super, uint32_t ag, void *block);
/* Blocks of all AGs together that are not fixed. */
uint64_t mkfs_usable_blocks(const struct fs_super *super);

/* Smallest journal of the library: twice the largest reservation of one operation (see fs/journal.h). */
enum { FS_JOURNAL_BLOCKS_MIN = 160 };

#endif
