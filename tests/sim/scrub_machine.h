/* SPDX-License-Identifier: BSD-3-Clause */
/* For tests of scrubs: a filesystem with one of everything, home on its device, and where what is in it stands there. */
#ifndef LANEFS_TESTS_SIM_SCRUB_MACHINE_H
#define LANEFS_TESTS_SIM_SCRUB_MACHINE_H

#include "tests/sim/calls.h"

#define ROOT FS_ROOT_INODE

extern struct scrubbed {
	unsigned owners;
	uint64_t memory_bytes;          /* an option of scrubs */
	/* Inodes: a file with a tree of extents; one with xattrs; one with two names; a directory with a tree, and what is in it; three
	 * directories, each in the one before. */
	uint64_t fragmented, with_xattrs, linked, big_directory, outer, middle, inner;
	/* What the last scrub found first. */
	char line[256];
	uint64_t ino;
} scrubbed;

uint64_t scrubbed_make(struct machine *machine, uint64_t parent, const char *name, uint32_t mode);
void scrubbed_populate(struct machine *machine);
/* What was done is home. */
void scrubbed_home(struct machine *machine);
void scrubbed_start(struct machine *machine);

int scrubbed_scrub(struct machine *machine, bool data);
/* Number of findings of a scrub, which must come to its end. */
uint64_t scrubbed_findings(struct machine *machine, bool data);
struct fs_scrub_status scrubbed_status(const struct machine *machine);

/* On the device: */
uint8_t *scrubbed_block(const struct machine *machine, uint64_t block);
const struct fs_super *scrubbed_super(const struct machine *machine);
/* The type of a metadata block in use; 0: it is none. */
unsigned scrubbed_type(const struct machine *machine, uint64_t block);
struct disk_inode *scrubbed_inode(const struct machine *machine, uint64_t ino);
/* The first leaf of a tree of this inode. */
struct tree_node *scrubbed_leaf(const struct machine *machine, uint64_t owner);
/* A good checksum for the block that this is in. */
void scrubbed_seal(void *inside);

#endif
