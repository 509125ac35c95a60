/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What one client of the filesystem did, and what of it may be there after a crash: the oracle. It knows nothing of how the
 * filesystem works, only the promises (DESIGN: the journal): every owner's stream survives as a prefix that contains what a
 * sync acknowledged, an operation that spans owners survives wholly or not at all, a file's sectors hold what was written there
 * and not before the last sync, and never anything of another file.
 *
 * A client has its own directories with a few names in each. An object is known by its uid (its number, given at creation).
 */
#ifndef LANEFS_TESTS_SIM_MODEL_H
#define LANEFS_TESTS_SIM_MODEL_H

#include "reactor/base.h"

enum {
	MODEL_DIRS = 2,
	MODEL_NAMES = 6,
	MODEL_OBJECTS_MAX = 4096,
	MODEL_SECTOR = 512,
	MODEL_SECTORS = 192,            /* of a file: 96 KiB */
	MODEL_OPS_MAX = 4096,
	MODEL_OWNERS_MAX = 4,
};

enum model_kind {
	MODEL_CREATE, MODEL_MKDIR, MODEL_SYMLINK, MODEL_UNLINK, MODEL_RMDIR, MODEL_RENAME, MODEL_EXCHANGE, MODEL_LINK, MODEL_CHMOD,
	MODEL_XATTR, MODEL_WRITE, MODEL_TRUNCATE, MODEL_PUNCH, MODEL_FALLOCATE, MODEL_FSYNC, MODEL_SYNC, MODEL_KIND_COUNT,
};
struct model_op {
	enum model_kind kind;
	uint8_t dir, name, dir2, name2;
	bool failed;                    /* answered an error: no effect */
	uint32_t object;                /* created, or operated on */
	uint32_t value;                 /* mode, xattr value */
	uint32_t first_sector, sectors; /* WRITE, PUNCH; TRUNCATE, FALLOCATE: size in sectors */
	uint64_t owners;                /* reactors whose inodes it changed, a bit each */
	uint64_t begun, acknowledged;   /* places in the device log; UINT64_MAX: never */
};

/* Names as they stand: object numbers, 0 none. */
struct model_names {
	uint32_t object[MODEL_DIRS][MODEL_NAMES];
};
struct model_attr {
	uint32_t type, mode, xattr;     /* S_IFMT bits; permission bits; 0: no xattr */
};
struct model {
	unsigned client, owners;
	unsigned op_count;
	struct model_op ops[MODEL_OPS_MAX];
	uint32_t object_count;          /* numbers 1.. */
	uint32_t next_version;
};

/* What was found after recovery. */
struct model_found {
	struct model_names names;
	struct { uint32_t type, mode, xattr, nlink; uint64_t size; } attr[MODEL_DIRS][MODEL_NAMES];
	/* Version found in each sector of a regular file; 0 zeroes, UINT32_MAX: something foreign. Sectors past size unused. */
	uint32_t sectors[MODEL_DIRS][MODEL_NAMES][MODEL_SECTORS];
};

/* Is @found possible for a crash at place @at of the device log? NULL, or a static text that says what was broken. */
const char *model_judge(const struct model *model, const struct model_found *found, uint64_t at);

#endif
