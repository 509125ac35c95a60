/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The fault sweep: every operation of fs.h times every I/O that it makes, failing in every way. fault_image.c makes the
 * filesystem that a case begins with, fault_ops.c is the list of operations, fault_case.c runs one case and judges it,
 * fault_sweep.c goes through all of them.
 */
#ifndef LANEFS_TESTS_SIM_FAULT_SWEEP_H
#define LANEFS_TESTS_SIM_FAULT_SWEEP_H

#include "tests/sim/fault_rule.h"
#include "tests/sim/picture.h"

/* ---- the image ---- */
enum {
	IMAGE_FS_BYTES = 12 << 20,
	IMAGE_BYTES = 14 << 20,         /* of the device: there is room to grow */
	IMAGE_AG_BYTES = 1 << 20,
	TREE_NAMES = 40,                /* long names in /tree */
};
/* The letter that a file's data is made of is the first one of its name. */
enum place {
	P_TREE, P_BLOCK, P_INLINE_DIR, P_EMPTY, P_ACL,                     /* directories */
	P_INLINE, P_PLAIN, P_FRAGMENTS, P_BIG, P_UNWRITTEN, P_HOLE,        /* files, by their maps */
	P_SMALL_XATTR, P_MANY_XATTRS, P_LARGE_XATTR, P_LINKED, P_SUID,     /* and by what else they have */
	P_LINK, P_LONG_LINK, P_FIFO,
	PLACE_COUNT,
};
extern const char *const place_names[PLACE_COUNT];
enum { PLAIN_BYTES = 40000, BIG_BYTES = 1600 << 10, FRAGMENTS = 150, HOLE_AT = 1 << 20, UNWRITTEN_BYTES = 96 << 10,
	LARGE_VALUE_BYTES = 60000, MANY_XATTRS = 24, MANY_VALUE_BYTES = 400 };

struct fault_image {
	unsigned owners;
	int fd;                         /* memory file of IMAGE_BYTES */
	uint64_t ino[PLACE_COUNT];
	struct picture picture;               /* what a mount of it finds */
};
/* @dirty: the journal holds all work since mkfs, and there are orphans: unlinked files, a truncate that was cut short. */
void fault_image_make(struct fault_image *image, unsigned owners, bool dirty);
void fault_image_free(struct fault_image *image);
/* A private copy; to be unmapped. */
uint8_t *fault_image_map(const struct fault_image *image);
void fault_pattern(uint8_t *buffer, char letter, uint64_t offset, uint32_t length);
/* "n00LLLL...", one of the long names. */
const char *fault_long_name(unsigned number);
enum { FAULT_ACL_BYTES = 4100 };
/* Bytes of an ACL with @named named users. */
uint32_t fault_acl(uint8_t bytes[FAULT_ACL_BYTES], unsigned named);

/* ---- the operations ---- */
enum fault_op_flags {
	OP_PARTIAL = 1 << 0,            /* may have happened in part: several transactions, or data in place */
	OP_MOUNTS = 1 << 1,             /* mounts by itself */
	OP_DIRTY = 1 << 2,              /* begins with the dirty image */
	OP_DISCARD = 1 << 3,            /* mount option */
	OP_SYNC = 1 << 4,               /* mount option */
	OP_READ_ONLY = 1 << 5,          /* mount option; nothing may be written */
	OP_UNMOUNTS = 1 << 6,           /* and mounts again */
	OP_CAREFUL = 1 << 8,            /* writes metadata that nothing depends on yet: may fail, and all goes on */
	OP_DURABLE = 1 << 7,            /* durable when it has answered */
};
struct fault_run {
	struct machine machine;
	const struct fault_image *image;
	uint64_t held;                  /* inode that prepare looked up */
	bool wrong;                     /* an operation answered success and something that is not so */
	bool shortened;                 /* it answered that it did a part, and was asked for the rest */
};
struct fault_op {
	const char *name;
	int (*run)(struct fault_run *run);
	unsigned flags;
	int (*prepare)(struct fault_run *run);
};

/* NULL: there are no more. */
const struct fault_op *fault_op_get(unsigned index);

/* ---- a case ---- */
struct fault_case {
	const struct fault_image *image;
	const struct fault_op *op;
	struct fault_rule rule;
	enum fault_end end;
};
/* From the run without a fault. */
struct fault_profile {
	struct picture after;
	uint64_t counts[FAULT_SOURCES]; /* of I/Os and allocations, from the operation to the end of the checkpoint after it */
};
struct fault_counts {
	uint64_t cases, hit, op_failed, stopped, recorded, retried, removed;
};
/* Runs the operation without a fault: @c has none. The kind of source that will fail makes a difference to the machine. */
void fault_profile_make(const struct fault_case *c, struct fault_profile *out);
void fault_profile_free(struct fault_profile *profile);
/* Ends the program with a line when something is not as promised. */
void fault_case_run(const struct fault_case *c, const struct fault_profile *profile, struct fault_counts *counts);
/* "create-tree/read/media/once/3/restart/2": the end, and the number of owners. */
void fault_case_text(const struct fault_case *c, char *text, size_t size);

#endif
