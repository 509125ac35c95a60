/* SPDX-License-Identifier: BSD-3-Clause */
/* Writes the sample image (fsck_image.h) into a file; with "damaged" one that repair has much to do with. */
#include <stdio.h>
#include <string.h>

#include "tests/unit/fsck_image.h"

/* A lost leaf of a directory, a wrong link count, a wrong map, a shared block, an extended attribute without its block, and the
 * first superblock. */
static void damage(struct sample *sample)
{
	memset(sample_block(sample, sample->wide_leaf[1]), 0x5a, FS_BLOCK_SIZE);
	struct disk_inode *inode = sample_inode(sample, sample->file_extents);
	inode->nlink = le32_set(9);
	sample_seal(sample, inode);
	struct map_block *map = sample_map(sample, 1, 0);
	memset(map->bits, 0xff, 64);
	sample_seal(sample, map);
	memset(sample_block(sample, sample->xattr_block[0]), 0, FS_BLOCK_SIZE);
	memset(sample_block(sample, sample->extent_leaf[0]), 0, FS_BLOCK_SIZE);
	memset(sample_block(sample, sample->root_leaf), 0x11, FS_BLOCK_SIZE);
	memset(sample_super(sample), 0, FS_BLOCK_SIZE);
}

int main(int argc, char **argv)
{
	struct sample sample;
	FILE *file = argc > 1 ? fopen(argv[1], "w") : NULL;
	if (!file)
		return 1;
	sample_create(&sample);
	if (argc > 2 && strcmp(argv[2], "damaged") == 0)
		damage(&sample);
	const size_t written = fwrite(sample.data, FS_BLOCK_SIZE, SAMPLE_BLOCKS, file);
	sample_destroy(&sample);
	return fclose(file) || written != SAMPLE_BLOCKS;
}
