/* SPDX-License-Identifier: BSD-3-Clause */
/* Images that a replay built, by block number: written home, or kept under a read-only mount. Read-only once built. */
#ifndef LANEFS_FS_REPLAY_H
#define LANEFS_FS_REPLAY_H

#include "fs/fs_internal.h"

struct replay_image_table;
/* The block's image (FS_BLOCK_SIZE bytes, crc and sequence not set), or NULL. Any reactor. */
const void *replay_image(const struct replay_image_table *table, uint64_t block);
void replay_image_table_destroy(struct replay_image_table *table);
/* Writes all images home, durably: what the mount would have done if it had not been read-only. The state block still says
 * that they are to be replayed. @sequence: of the last group. -errno, with a line. */
MAY_WAIT int replay_write_home(struct fs *fs, struct replay_image_table *table, uint64_t sequence, char *message,
	size_t message_size) MUST_CHECK;

#endif
