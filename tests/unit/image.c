/* SPDX-License-Identifier: BSD-3-Clause */
/* The image in memory: see image.h. */
#include "tests/unit/image.h"

#include <errno.h>
#include <stdlib.h>

struct mkfs_options image_options(void)
{
	return (struct mkfs_options){
		.size_bytes = MIB(12),
		.journal_bytes = MIB(1),
		.ag_bytes = MIB(1),
		.label = "golden",
		.uuid = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
		.fsid = IMAGE_FSID,
		.journal_id = 0x89abcdef,
		.hash_seed = 0x55aa55aa,
		.first_crc = 0xfeedface,
		.first_sequence = 1000,
		.now_sec = 1700000000,
		.uid = 1000,
		.gid = 100,
		.root_mode = 0750,
		.small = true,
	};
}

static int image_write(void *arg, uint64_t block, const void *data)
{
	struct image *image = arg;

	if (++image->written == image->fail_at)
		return -EIO;
	assert(block < image->block_count && image->written <= image->block_count);
	image->order[image->written - 1] = block;
	memcpy(image_block(image, block), data, FS_BLOCK_SIZE);
	return 0;
}

int image_init(struct image *image, const struct mkfs_options *options, unsigned fail_at)
{
	*image = (struct image){.block_count = options->size_bytes / FS_BLOCK_SIZE, .fail_at = fail_at};
	image->data = aligned_alloc(FS_BLOCK_SIZE, image->block_count * FS_BLOCK_SIZE);
	image->order = calloc(image->block_count, sizeof(*image->order));
	assert(image->data && image->order);
	memset(image->data, 0xa5, image->block_count * FS_BLOCK_SIZE);
	const struct mkfs_io io = {.write = image_write, .arg = image};
	return mkfs_format(options, &io, &image->super, image->message, sizeof(image->message));
}

void image_fini(struct image *image)
{
	free(image->data);
	free(image->order);
}
