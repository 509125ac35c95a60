/* SPDX-License-Identifier: BSD-3-Clause */
/* Images that a replay built, by block number: written home, or kept under a read-only mount. Read-only once built. */
#ifndef LANEFS_FS_REPLAY_H
#define LANEFS_FS_REPLAY_H

#include "fs/fs_internal.h"

struct replay_image_table;
/* The block's image (FS_BLOCK_SIZE bytes, crc and sequence not set), or NULL. Any reactor. */
const void *replay_image(const struct replay_image_table *table, uint64_t block);
void replay_image_table_destroy(struct replay_image_table *table);

#endif
