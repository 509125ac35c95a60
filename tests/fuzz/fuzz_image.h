/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Images for the fuzzers: a few small filesystems made once in memory by the filesystem itself, and a short description of how an
 * input differs from one of them. A description is made so that any bytes are one, and that changing some of them changes
 * little:
 *
 *   byte 0          which base (enum fuzz_base_kind)
 *   byte 1          the target's own flags
 *   byte 2          number of patches
 *   patches         what (1), number (1), offset (2), length (1), bytes: see struct fuzz_patch
 *   the rest        the target's own
 *
 * Here are also, for every target with such inputs, LLVMFuzzerInitialize, which makes the bases, and LLVMFuzzerCustomMutator, which
 * changes a patch or two in a way that fits the structures, or leaves it to the driver.
 *
 * A patched metadata block gets its checksum back, and so do patched journal groups and those behind them: else every lie
 * would end at the first check. Everything is a function of the input alone.
 */
#ifndef LANEFS_TESTS_FUZZ_FUZZ_IMAGE_H
#define LANEFS_TESTS_FUZZ_FUZZ_IMAGE_H

#include "fs/verify.h"
#include "tests/fuzz/fuzz.h"
#include "tests/sim/calls.h"

enum { FUZZ_IMAGE_BYTES = 4 << 20, FUZZ_IMAGE_BLOCKS = FUZZ_IMAGE_BYTES / FS_BLOCK_SIZE };

enum fuzz_base_kind {
	FUZZ_BASE_USED,                 /* all kinds of structures, unmounted */
	FUZZ_BASE_CUT,                  /* the same, with a journal to be replayed and inodes to be freed */
	FUZZ_BASE_FRESH,                /* as mkfs leaves it */
	FUZZ_BASE_GROWN,                /* grown, with that still in the journal */
	FUZZ_BASE_COUNT,
};

/* What a patch is for: the number-th block of a type (1 to BLOCK_TYPE_COUNT - 1), or one of these. Low 5 bits of the first
 * byte; bit 7: leave the checksum alone, bits 5 and 6: how (enum fuzz_patch_how). */
enum fuzz_patch_what {
	FUZZ_PATCH_BLOCK = 0,           /* a block by number (number + 256 * (offset >> 12)) */
	FUZZ_PATCH_GROUP = 16,          /* the number-th journal group from the tail */
	FUZZ_PATCH_IMAGE = 17,          /* the number-th whole block in the journal */
	FUZZ_PATCH_INODE = 18,          /* the number-th used inode; offset counts from its start */
	FUZZ_PATCH_WHAT_COUNT,
};
enum fuzz_patch_how {
	FUZZ_SET,                       /* the bytes at the offset */
	FUZZ_ADD,                       /* added to what stands there, as one little-endian number of up to 8 bytes */
	FUZZ_MOVE,                      /* bytes: number of another block of the type, whose body is copied here */
	FUZZ_FILL,                      /* the first byte, from the offset on, 16 times as often as there are bytes */
};
enum { FUZZ_PATCH_HEAD = 5, FUZZ_PATCHES_MAX = 32, FUZZ_PATCH_UNSEALED = 0x80 };
struct fuzz_patch {
	uint8_t what, how, number;
	bool unsealed;
	uint16_t offset;
	uint8_t length;
	const uint8_t *bytes;
};
struct fuzz_recipe {
	enum fuzz_base_kind base;
	uint8_t flags;
	unsigned patch_count;
	struct fuzz_patch patch[FUZZ_PATCHES_MAX];
	const uint8_t *rest;            /* the target's own */
	size_t rest_size;
};

struct fuzz_group {
	uint32_t at;                    /* block of the ring; it may run over the ring's end */
	uint32_t length;                /* bytes */
};
struct fuzz_spot {
	unsigned group;
	uint32_t offset;                /* in the group */
};
struct fuzz_base {
	uint8_t *memory;                /* read-only */
	int fd;                         /* of it */
	const struct fs_super *super;
	unsigned count[BLOCK_TYPE_COUNT];
	uint32_t *block[BLOCK_TYPE_COUNT]; /* their numbers */
	struct fuzz_group *group;       /* from the tail */
	struct fuzz_spot *image;        /* whole blocks in the journal */
	uint64_t *ino;                  /* used inodes, as places */
	unsigned groups, images, inodes;
};

/* The variable LANEFS_FUZZ_LOG is set: show what is found. */
extern bool fuzz_verbose;
const struct fuzz_base *fuzz_base(enum fuzz_base_kind kind);

/* Where byte @offset of a group at @ring_block stands in the image. */
static inline uint64_t fuzz_ring_place(const struct fuzz_base *base, uint32_t ring_block, uint64_t offset)
{
	const uint64_t ring = le64_get(base->super->journal_blocks) * FS_BLOCK_SIZE;
	return le64_get(base->super->journal_first) * FS_BLOCK_SIZE + ((uint64_t)ring_block * FS_BLOCK_SIZE + offset) % ring;
}

void fuzz_recipe_read(const uint8_t *data, size_t size, struct fuzz_recipe *out);
/* The image of a recipe, in the one place where images stand (FUZZ_IMAGE_BYTES, nothing mapped around it); what was written
 * there before is gone. */
uint8_t *fuzz_image_make(const struct fuzz_recipe *recipe);
/* Another copy of it, somewhere else: what stands there is overwritten by the next call with that number (0 or 1). */
uint8_t *fuzz_image_copy(const struct fuzz_recipe *recipe, unsigned number);

/* Simulated reactors with a bdev "ram" over the place of images, made once per number of owners (1 or 2); the same seed each
 * time. */
struct sim *fuzz_sim(unsigned owners);

#endif
