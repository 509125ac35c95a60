/* SPDX-License-Identifier: BSD-3-Clause */
#include <linux/falloc.h>
#include <sys/stat.h>

#include "tests/sim/script.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE (1 << 0)
#endif
#ifndef RENAME_EXCHANGE
#define RENAME_EXCHANGE (1 << 1)
#endif

enum { PUNCH = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, ZERO_KEEP = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE };

const struct script_op script_ops[] = {
	{"create A/new", SCRIPT_CREATE, "A/new", NULL, 0, 0, S_IFREG | 0640},
	{"create B/new", SCRIPT_CREATE, "B/new", NULL, 0, 0, S_IFREG | 0600},
	{"create A/C/foo", SCRIPT_CREATE, "A/C/foo", NULL, 0, 0, S_IFREG | 0644},
	{"mkdir A/new", SCRIPT_CREATE, "A/new", NULL, 0, 0, S_IFDIR | 0755},
	{"mkdir B/new", SCRIPT_CREATE, "B/new", NULL, 0, 0, S_IFDIR | 0700},
	{"mkdir A/C/D", SCRIPT_CREATE, "A/C/D", NULL, 0, 0, S_IFDIR | 0755},
	{"symlink A/new", SCRIPT_SYMLINK, "A/new", NULL, 0, 20, 0},
	{"long symlink B/new", SCRIPT_SYMLINK, "B/new", NULL, 0, 1000, 0},
	{"mkfifo A/new", SCRIPT_CREATE, "A/new", NULL, 0, 0, S_IFIFO | 0600},
	{"mknod B/new", SCRIPT_CREATE, "B/new", NULL, 0, 0, S_IFCHR | 0600},
	{"tmpfile, link as A/new", SCRIPT_TMPFILE, "A/new", NULL, 0, 3000, S_IFREG | 0600},
	{"tmpfile, link as B/new", SCRIPT_TMPFILE, "B/new", NULL, 0, 9000, S_IFREG | 0600},
	{"overwrite a block of A/foo", SCRIPT_WRITE, "A/foo", NULL, 4096, 4096, 0},
	{"overwrite part of A/foo", SCRIPT_WRITE, "A/foo", NULL, 3000, 2000, 0},
	{"overwrite all of B/foo", SCRIPT_WRITE, "B/foo", NULL, 0, 12288, 0},
	{"append to A/foo", SCRIPT_APPEND, "A/foo", NULL, 0, 5000, 0},
	{"append to B/foo", SCRIPT_APPEND, "B/foo", NULL, 0, 700, 0},
	{"write past the end of A/foo", SCRIPT_WRITE, "A/foo", NULL, 20480, 4096, 0},
	{"write past the end of B/foo", SCRIPT_WRITE, "B/foo", NULL, 18000, 1000, 0},
	{"write into the hole of A/bar", SCRIPT_WRITE, "A/bar", NULL, 4096, 4096, 0},
	{"write over hole and data of A/bar", SCRIPT_WRITE, "A/bar", NULL, 2000, 8000, 0},
	{"write into what A/bar has allocated", SCRIPT_WRITE, "A/bar", NULL, 12288, 2000, 0},
	{"write 40 KiB to B/foo", SCRIPT_WRITE, "B/foo", NULL, 8192, 40960, 0},
	{"overwrite A/tiny", SCRIPT_WRITE, "A/tiny", NULL, 5, 10, 0},
	{"write A/tiny out of its inode", SCRIPT_WRITE, "A/tiny", NULL, 10, 3000, 0},
	{"write A/new", SCRIPT_WRITE, "A/new", NULL, 0, 6000, 0},
	{"write B/new", SCRIPT_WRITE, "B/new", NULL, 0, 4096, 0},
	{"truncate A/foo to 0", SCRIPT_TRUNCATE, "A/foo", NULL, 0, 0, 0},
	{"truncate A/foo to 5000", SCRIPT_TRUNCATE, "A/foo", NULL, 0, 5000, 0},
	{"truncate A/foo to 4096", SCRIPT_TRUNCATE, "A/foo", NULL, 0, 4096, 0},
	{"truncate A/foo to 30000", SCRIPT_TRUNCATE, "A/foo", NULL, 0, 30000, 0},
	{"truncate B/foo to 100", SCRIPT_TRUNCATE, "B/foo", NULL, 0, 100, 0},
	{"truncate A/bar to 6000", SCRIPT_TRUNCATE, "A/bar", NULL, 0, 6000, 0},
	{"truncate A/tiny to 10000", SCRIPT_TRUNCATE, "A/tiny", NULL, 0, 10000, 0},
	{"punch a block of A/foo", SCRIPT_FALLOCATE, "A/foo", NULL, 4096, 4096, PUNCH},
	{"punch parts of A/foo", SCRIPT_FALLOCATE, "A/foo", NULL, 1000, 6000, PUNCH},
	{"punch the middle of B/foo", SCRIPT_FALLOCATE, "B/foo", NULL, 4096, 4096, PUNCH},
	{"zero parts of A/foo", SCRIPT_FALLOCATE, "A/foo", NULL, 2000, 5000, ZERO_KEEP},
	{"zero over the end of B/foo", SCRIPT_FALLOCATE, "B/foo", NULL, 8192, 12288, FALLOC_FL_ZERO_RANGE},
	{"allocate A/foo to 32 KiB", SCRIPT_FALLOCATE, "A/foo", NULL, 0, 32768, 0},
	{"allocate behind B/foo, keep the size", SCRIPT_FALLOCATE, "B/foo", NULL, 12288, 16384, FALLOC_FL_KEEP_SIZE},
	{"allocate the hole of A/bar", SCRIPT_FALLOCATE, "A/bar", NULL, 4096, 4096, 0},
	{"link A/foo as A/new", SCRIPT_LINK, "A/foo", "A/new", 0, 0, 0},
	{"link A/foo as B/new", SCRIPT_LINK, "A/foo", "B/new", 0, 0, 0},
	{"link B/sym as A/new", SCRIPT_LINK, "B/sym", "A/new", 0, 0, 0},
	{"unlink A/foo", SCRIPT_UNLINK, "A/foo", NULL, 0, 0, 0},
	{"unlink A/bar", SCRIPT_UNLINK, "A/bar", NULL, 0, 0, 0},
	{"unlink B/foo", SCRIPT_UNLINK, "B/foo", NULL, 0, 0, 0},
	{"unlink B/sym", SCRIPT_UNLINK, "B/sym", NULL, 0, 0, 0},
	{"rmdir A/C", SCRIPT_RMDIR, "A/C", NULL, 0, 0, 0},
	{"rmdir B/D", SCRIPT_RMDIR, "B/D", NULL, 0, 0, 0},
	{"rename A/foo to A/new", SCRIPT_RENAME, "A/foo", "A/new", 0, 0, 0},
	{"rename A/foo to B/new", SCRIPT_RENAME, "A/foo", "B/new", 0, 0, 0},
	{"rename A/foo over A/bar", SCRIPT_RENAME, "A/foo", "A/bar", 0, 0, 0},
	{"rename A/foo over B/foo", SCRIPT_RENAME, "A/foo", "B/foo", 0, 0, 0},
	{"rename B/foo over A/foo", SCRIPT_RENAME, "B/foo", "A/foo", 0, 0, 0},
	{"rename A/C to B/new", SCRIPT_RENAME, "A/C", "B/new", 0, 0, 0},
	{"rename A/C over B/D", SCRIPT_RENAME, "A/C", "B/D", 0, 0, 0},
	{"rename A/new to B/new, not over", SCRIPT_RENAME, "A/new", "B/new", 0, 0, RENAME_NOREPLACE},
	{"exchange A/foo and B/foo", SCRIPT_RENAME, "A/foo", "B/foo", 0, 0, RENAME_EXCHANGE},
	{"exchange A/C and B/foo", SCRIPT_RENAME, "A/C", "B/foo", 0, 0, RENAME_EXCHANGE},
	{"exchange A/foo and A/tiny", SCRIPT_RENAME, "A/foo", "A/tiny", 0, 0, RENAME_EXCHANGE},
	{"chmod A/foo", SCRIPT_CHMOD, "A/foo", NULL, 0, 0, 04711},
	{"chmod B", SCRIPT_CHMOD, "B", NULL, 0, 0, 0711},
	{"chown A/bar", SCRIPT_CHOWN, "A/bar", NULL, 0, 0, 77},
	{"set the times of B/foo", SCRIPT_UTIMENS, "B/foo", NULL, 0, 0, 0},
	{"set a small xattr of A/foo", SCRIPT_SETXATTR, "A/foo", NULL, 0, 0, 20},
	{"set a large xattr of A/foo", SCRIPT_SETXATTR, "A/foo", NULL, 0, 0, 3000},
	{"set a huge xattr of B/foo", SCRIPT_SETXATTR, "B/foo", NULL, 0, 0, 20000},
	{"set an xattr of B", SCRIPT_SETXATTR, "B", NULL, 0, 0, 40},
	{"remove the xattr of A/foo", SCRIPT_REMOVEXATTR, "A/foo", NULL, 0, 0, 0},
	{"copy A/foo to B/foo", SCRIPT_COPY, "A/foo", "B/foo", 0, 8192, 4096},
	{"copy B/foo into A/bar", SCRIPT_COPY, "B/foo", "A/bar", 100, 5000, 3000},
};
const unsigned script_op_count = ARRAY_SIZE(script_ops);

const char *const script_persist_names[SCRIPT_PERSIST_COUNT] = {"-", "fsync", "fsync of its directory", "fdatasync", "sync",
	"O_SYNC write"};
