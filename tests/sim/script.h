/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The operations of which sequences are made, on a small fixed set of files and directories, and a runner that writes down
 * the history for the oracle. An operation names files by path and is refused where that makes no sense: so any sequence
 * can be run.
 *
 * The set: directories A and B (in groups of their own), A/C and B/D within (empty); A/foo (two blocks and a tail, one xattr),
 * A/bar (a block, a hole, a block, an unwritten block behind), A/tiny (content in the inode), B/foo (three blocks), and B/sym.
 */
#ifndef LANEFS_TESTS_SIM_SCRIPT_H
#define LANEFS_TESTS_SIM_SCRIPT_H

#include "tests/sim/history.h"

enum script_kind {
	SCRIPT_CREATE, SCRIPT_SYMLINK, SCRIPT_TMPFILE, SCRIPT_WRITE, SCRIPT_APPEND, SCRIPT_TRUNCATE, SCRIPT_FALLOCATE, SCRIPT_LINK,
	SCRIPT_UNLINK, SCRIPT_RMDIR, SCRIPT_RENAME, SCRIPT_CHMOD, SCRIPT_CHOWN, SCRIPT_UTIMENS, SCRIPT_SETXATTR, SCRIPT_REMOVEXATTR,
	SCRIPT_COPY, SCRIPT_SYNC_WRITE,
};
struct script_op {
	const char *text;               /* for people */
	enum script_kind kind;
	const char *path, *path2;       /* path2: target of link, rename, copy */
	uint64_t offset, length;        /* bytes; TRUNCATE: length is the size */
	unsigned mode;                  /* type and permissions; flags of FALLOCATE and RENAME; SETXATTR: length of the value */
};
extern const struct script_op script_ops[];
extern const unsigned script_op_count;

enum script_persist {
	SCRIPT_NONE, SCRIPT_FSYNC, SCRIPT_FSYNC_DIR, SCRIPT_FDATASYNC, SCRIPT_SYNC, SCRIPT_OSYNC, SCRIPT_PERSIST_COUNT,
};
extern const char *const script_persist_names[SCRIPT_PERSIST_COUNT];

struct script;
struct script *script_create(void);
void script_destroy(struct script *script);
const struct history *script_history(const struct script *script);

/* Makes the set in an empty filesystem. Fiber of reactor 0. */
MAY_WAIT int script_set_up(struct fs *fs);
/* Begins a history on a mounted filesystem that holds the set (and possibly more). @record: the device that gets the marks.
 * Fiber of reactor 0. */
MAY_WAIT int script_begin(struct script *script, struct fs *fs, struct bdev *record);
/* Runs an operation, then what makes it durable. Answers of the filesystem (-ENOENT, -ENOSPC, ...) are no failure. @index: of
 * script_ops. False: the persistence makes no sense for what the operation spoke of. Fiber of reactor 0. */
MAY_WAIT bool script_step(struct script *script, unsigned index, enum script_persist persist);
/* Lets go of everything that was held open. Fiber of reactor 0. */
MAY_WAIT void script_end(struct script *script);

#endif
