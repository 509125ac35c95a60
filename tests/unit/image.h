/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A filesystem in memory, fresh from mkfs_format with fixed options: what the tests of the disk format start from.
 */
#ifndef LANEFS_TESTS_UNIT_IMAGE_H
#define LANEFS_TESTS_UNIT_IMAGE_H

#include "fs/mkfs.h"

struct image {
	uint8_t *data;            /* block_count blocks; those that mkfs did not write are 0xa5 */
	uint64_t block_count;
	uint64_t *order;          /* block numbers in the order in which they were written */
	unsigned written;
	unsigned fail_at;         /* this write (counted from 1) answers -EIO; 0: none */
	struct fs_super super;
	char message[256];
};

enum { IMAGE_FSID = 0x1234567 };

/* 12 MiB, 1 MiB journal, AGs of 1 MiB; every drawn value fixed. */
struct mkfs_options image_options(void);
/* Returns what mkfs_format returned. Release with image_fini in any case. */
int image_init(struct image *image, const struct mkfs_options *options, unsigned fail_at) MUST_CHECK;
void image_fini(struct image *image);
static inline void *image_block(struct image *image, uint64_t block)
{
	return image->data + block * FS_BLOCK_SIZE;
}

#endif
