/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The checker as a library: fsck_check reads a whole filesystem through a function of the caller and reports everything
 * in which it disagrees with fs/format.h, one line per finding, and writes nothing; fsck_repair makes it agree.
 *
 * It is the independent judge of the filesystem, so it shares no code with it beyond fs/format.h: its checksum, its
 * replay and its tree walkers are its own. Metadata only is read, and of that only what is allocated: the cost follows
 * the number of inodes and map blocks in use, not the size of the device. All state hangs from the call: any number of
 * checks may run at once in different threads. The caller's functions are called from within these two only.
 *
 * A check may have several jobs, side by side on different allocation groups. What it reports, and in which order, does not
 * depend on their number.
 */
#ifndef LANEFS_MKFS_FSCK_H
#define LANEFS_MKFS_FSCK_H

#include "fs/format.h"

struct fsck_options {
	uint64_t device_blocks;     /* length of the device in blocks of 4 KiB */
	bool replay_in_memory;      /* check what a mount would find after replay; else the blocks as they stand */
	uint64_t super_block;       /* superblock to trust; 0: the first, or the copy at the end if that is bad */
	bool clean_is_enough;       /* read no further when the state says: clean, and no error was recorded */
	unsigned findings_max;      /* lines passed to finding(); the rest is only counted. 0: all */
	unsigned jobs;              /* that io->run is asked for; 0, 1: none */
};

struct fsck_io {
	/* Reads one block into @data (FS_BLOCK_SIZE bytes, aligned to 8). 0, or a negative errno: ends the check. Called by
	 * several jobs at once. */
	int (*read)(void *arg, uint64_t block, void *data);
	/* One finding, without a line end; the text is gone after the call. May be NULL. */
	void (*finding)(void *arg, const char *line);
	/* Phases by name, counted in allocation groups. May be NULL. From any job, but never from two at once. */
	void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
	/* Calls job(job_arg) @count times, side by side (threads, fibers of reactors), and returns when all have returned. NULL:
	 * the check is one job. */
	void (*run)(void *arg, unsigned count, void (*job)(void *job_arg), void *job_arg);
};

struct fsck_result {
	uint64_t findings;
	uint64_t files, directories; /* inodes of used slots: everything that is no directory, and directories */
	uint64_t inodes;            /* both together */
	uint64_t blocks_used;       /* of the allocation groups: reachable blocks and those at fixed places */
	uint64_t blocks_total;      /* of the filesystem */
	uint64_t orphans;           /* entries in orphan chains */
	uint64_t groups_replayed;   /* valid groups from the tail on */
	uint64_t records_replayed;
	uint64_t last_sequence;     /* of the last valid group; tail_sequence - 1 when there is none */
	bool needs_replay;          /* not unmounted cleanly: a mount will replay; by itself no finding */
	bool skipped;               /* clean was enough: nothing else was read */
	bool no_filesystem;         /* no superblock at all: not a lanefs, or a lost one; nothing was checked */
	bool unsupported;           /* version or feature bits unknown here; nothing was checked */
	bool fatal;                 /* a finding that made the rest uncheckable */
	char label[FS_LABEL_BYTES + 1];
	uint8_t uuid[FS_UUID_BYTES];
	uint32_t recorded_error;    /* what the state block says stopped the filesystem: errno, 0 none */
	uint64_t recorded_error_block;
	char recorded_error_text[128];
};

/* Checks everything. Fills *out always. Findings are no errors: 0 when the check came to its end, a negative errno of
 * io->read or -ENOMEM when it did not. */
int fsck_check(const struct fsck_options *options, const struct fsck_io *io, struct fsck_result *out) MUST_CHECK;

/* ---- repair ---- */
struct fsck_repair_options {
	uint64_t device_blocks, super_block; /* as in fsck_options */
	bool lossless;              /* preen: write nothing when something must be dropped or moved */
	int64_t now_sec;            /* times of what is made: root, lost+found */
};
struct fsck_repair_io {
	/* As in fsck_io. What was written is read back by later calls. */
	int (*read)(void *arg, uint64_t block, void *data);
	int (*write)(void *arg, uint64_t block, const void *data);
	int (*flush)(void *arg);
	/* One line about something dropped, moved or made. May be NULL. */
	void (*note)(void *arg, const char *line);
	void (*progress)(void *arg, const char *phase, uint64_t done, uint64_t total);
	void *arg;
};
struct fsck_repair_result {
	uint64_t losses;            /* notes about what was dropped or moved */
	uint64_t reconnected;       /* inodes that stand in lost+found now */
	uint64_t blocks_written;
	bool refused;               /* lossless was asked for, and is not possible: nothing was written */
	bool no_superblock;         /* nothing to begin with; nothing was written */
};
/* Makes the filesystem agree with its format: replays the journal, rebuilds maps, counts, headers and superblocks from what
 * is reachable, drops what cannot be right (a bad block's contents, an entry that names nothing, a block that two
 * files claim from the second), and puts what lost its name into lost+found. What is intact is not touched; run on an
 * intact filesystem it writes the journal home and marks it clean. New tree nodes are written before the inodes that
 * point to them, those before the maps; so it may be killed at any time and run again. Blocks that answer -EIO, up to 64,
 * are taken for lost. 0, -ENOSPC (no free block for a new tree node), -ENOMEM, or what read, write or flush returned. */
int fsck_repair(const struct fsck_repair_options *options, const struct fsck_repair_io *io,
	struct fsck_repair_result *out) MUST_CHECK;

#endif
