/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A small filesystem as its callers see it at one moment: every name, every inode with its attributes, extended attributes,
 * target and content. Taken through fs.h alone, so it holds what programs would find.
 */
#ifndef LANEFS_TESTS_SIM_WORLD_H
#define LANEFS_TESTS_SIM_WORLD_H

#include "fs/fs.h"

enum {
	WORLD_NAMES_MAX = 40,
	WORLD_OBJECTS_MAX = 40,
	WORLD_DATA_MAX = 640 << 10,     /* of all files together */
	WORLD_FILE_MAX = 128 << 10,     /* of one file that is read; what lies behind is not */
};

struct world_name {
	uint64_t parent, ino;
	char text[24];
};
struct world_object {
	struct fs_attr attr;
	uint64_t token;                 /* of the extended attributes and the target */
	const uint8_t *data;            /* of a regular file: MIN(size, WORLD_FILE_MAX) bytes */
};
struct world {
	unsigned name_count, object_count;
	struct world_name names[WORLD_NAMES_MAX]; /* by parent, then text */
	struct world_object objects[WORLD_OBJECTS_MAX];
	uint64_t data_bytes;
	uint8_t *data;                  /* DMA */
	uint8_t *scratch;               /* DMA */
};

struct world *world_create(void);
void world_destroy(struct world *world);
/* Fiber of any reactor; nothing may be changing the filesystem. Errors of the filesystem; -E2BIG, -EUCLEAN (a name leads
 * to an inode that the directory did not say). */
MAY_WAIT int world_take(struct world *world, struct fs *fs);
const struct world_object *world_find(const struct world *world, uint64_t ino);
/* All names, all inodes but @except: kind, mode, owner, links, size, blocks, xattrs, targets. Not times and content. NULL: the
 * same, or what differs. */
const char *world_difference(const struct world *a, const struct world *b, uint64_t except);
/* Two objects, of which one may be missing. */
const char *world_object_difference(const struct world_object *a, const struct world_object *b);
void world_print(const struct world *world, const char *title);

#endif
