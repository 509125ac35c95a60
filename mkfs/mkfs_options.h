/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The command line of mkfs.lanefs.
 */
#ifndef LANEFS_MKFS_MKFS_OPTIONS_H
#define LANEFS_MKFS_MKFS_OPTIONS_H

#include "fs/mkfs.h"

enum mkfs_exit { MKFS_EXIT_OK = 0, MKFS_EXIT_FAILED = 1, MKFS_EXIT_USAGE = 2 };

struct mkfs_command {
	const char *target;
	uint64_t size_bytes;          /* 0: all of the target */
	bool force, no_discard, dry_run, quiet;
	bool uuid_given;
	struct mkfs_options options;  /* label, uuid, journal_bytes, ag_bytes as given */
};

/* False: *out_status is the answer (help and version included) and has been explained on stdout or in one line on
 * stderr. */
bool mkfs_command_parse(struct mkfs_command *command, int argc, char **argv, enum mkfs_exit *out_status) MUST_CHECK;
/* "1 TiB", "1.5 GiB": exact, or rounded to tenths. In @out (24 bytes); returns out. */
const char *mkfs_size_text(uint64_t bytes, char out[24]);

#endif
