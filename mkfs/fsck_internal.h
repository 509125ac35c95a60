/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of fsck share: the context of one check, and what is known of each allocation group (AG) and inode.
 *
 * The order of a check, each step in the file of its name:
 *   super    superblock and copies, state blocks: geometry and where the journal begins
 *   journal  the chain of groups from the tail; its images become an overlay that every later read goes through
 *   ag       AG headers, maps of inodes -> inode blocks; at the end: orphan chains, block maps, totals
 *   inode    fields of each inode, its extents (fork or tree), its xattrs; every block found is claimed once
 *   dir      entries of each directory, counted at the inodes they name
 *   links    link counts, unreachable inodes, cycles
 *
 * The steps that go through the AGs may be shared out to jobs (fsck_jobs.c). A job has a context of its own; the contexts
 * share the arrays below. A job changes the group at hand, and of other groups two things, atomically: bits of reached, and
 * fsck_inode.references.
 *
 * Trouble has two forms. A finding is reported through fsck_find and the check goes on with what can be trusted. An I/O
 * error or lack of memory is kept in fsck.error; loops end when it is set. Nothing recurses; each loop over links on
 * disk claims the block it visits, and a block that was claimed before is not followed again: so everything ends.
 */
#ifndef LANEFS_MKFS_FSCK_INTERNAL_H
#define LANEFS_MKFS_FSCK_INTERNAL_H

#include <errno.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "mkfs/fsck.h"

enum { FSCK_REPORT_MAX = 64 << 10 }; /* bytes of findings in a group that jobs collect; for more there is one job */

enum fsck_inode_flags {
	FSCK_INODE_ORPHAN = 1 << 0,     /* stands in an orphan chain */
	FSCK_INODE_VISITING = 1 << 1,   /* on the path being followed to the root */
	FSCK_INODE_VISITED = 1 << 2,    /* its path to the root was looked at */
};
struct fsck_inode {
	uint64_t parent;                /* directories: as the inode says */
	uint32_t nlink;                 /* as the inode says */
	uint32_t references;            /* directory entries that name it */
	uint32_t subdirectories;        /* entries of it that name directories */
	uint16_t mode;                  /* as the inode says; 0 in a free slot */
	uint8_t flags;
};

struct fsck_inode_block {
	uint32_t ag_block;
	uint16_t used_mask;
	bool readable;                  /* its header is good: the inodes are known */
	bool directories;               /* holds at least one */
	struct fsck_inode inode[FS_INODES_PER_BLOCK];
};

struct fsck_ag {
	uint64_t first;                 /* device block */
	uint32_t number, blocks;
	bool readable;                  /* its header is good: the fields below are known */
	uint32_t free_blocks, inode_blocks, used_inodes, next_generation, orphan_count;
	uint64_t orphan_head, block_map_ready, inode_map_ready, inode_free_map_ready;
	uint64_t *reached;              /* bit per block that something refers to; NULL: none */
	uint64_t *replayed;             /* bit per block with an image in the overlay; NULL: none */
	struct fsck_inode_block *table; /* inode blocks, ascending */
	uint32_t table_count, table_capacity;
	bool partial;                   /* the table lacks what an unreadable map block stands for */
	char *report;                   /* findings of the phase at hand, when jobs share it: lines, each ended by 0 */
	size_t report_used, report_size;
	int error;                      /* that ended the phase in this group */
};

/* Blocks as replay leaves them: a hash table from block number to image. */
struct fsck_overlay {
	struct { uint64_t block; uint8_t *image; } *slot; /* image NULL: empty slot */
	size_t slots, count;            /* slots: power of two, at most half full */
};

struct fsck {
	const struct fsck_options *options;
	const struct fsck_io *io;
	struct fsck_result *out;
	int error;                      /* 0, or what ends the check */
	struct fs_super super;          /* the one that is trusted */
	struct fs_state state;
	uint64_t super_place;           /* where it was read */
	/* Copies of the geometry in host order, checked. */
	uint64_t fsid, hash_seed, block_count, first_ag_block, root_place;
	uint32_t ag_count, ag_blocks, map_blocks, fixed_blocks;
	bool state_damaged;             /* a mount could go by one state block only */
	bool younger;                   /* and the other one was newer: the journal cannot be understood */
	uint64_t sequence_max;          /* no block at home may be newer */
	uint64_t overlap_budget;        /* words of overlapping extents still to be looked at: bounds hostile images */
	uint64_t used_inodes, free_blocks; /* sums over all AGs */
	bool totals_unknown;            /* an AG header was not readable: the sums lack it */
	struct fsck_ag *reporting;      /* a job's: the group at hand. NULL: findings are passed on at once */
	bool clashed;                   /* what is found depends on who comes first, so one job has to look for it */
	uint64_t lines_passed, lines_skip; /* findings passed on; the first ones that were, in an attempt before */
	struct fsck_ag *ag;
	struct fsck_overlay overlay;
	struct fsck_inode unknown;      /* stands for inodes that could not be read */
	char line[512];
	_Alignas(8) uint8_t block[FS_BLOCK_SIZE]; /* of the step at hand */
	_Alignas(8) uint8_t other[FS_BLOCK_SIZE];
	_Alignas(8) uint8_t inodes[FS_BLOCK_SIZE]; /* the inode block being checked */
	_Alignas(8) uint8_t xattr[FS_BLOCK_SIZE];
	_Alignas(8) uint8_t node[FS_TREE_LEVEL_MAX + 1][FS_BLOCK_SIZE]; /* path from a tree's root to its leaf */
};

/* ---- fsck.c: reports and blocks ---- */
/* Passes one finding on. */
void fsck_pass(struct fsck *fsck, const char *line);
void fsck_groups_init(struct fsck *fsck);
void fsck_groups_fini(struct fsck *fsck); /* and the overlay */
void fsck_find(struct fsck *fsck, const char *format, ...) PRINTF_LIKE(2, 3);
void fsck_progress(struct fsck *fsck, const char *phase, uint64_t done);
/* Memory, zeroed; sets fsck->error when there is none. */
void *fsck_allocate(struct fsck *fsck, size_t count, size_t size);
/* The contents of a block, from the overlay or read into @buffer; NULL when fsck->error is set. */
const void *fsck_read(struct fsck *fsck, uint64_t block, void *buffer, bool *out_replayed);
/* As fsck_read, and checks the header; NULL also after a finding that makes the contents useless. */
const void *fsck_read_block(struct fsck *fsck, uint64_t block, void *buffer, enum block_type type, uint64_t owner);
uint32_t fsck_crc32c(const void *data, size_t length, const uint32_t *crc_field);
bool fsck_is_zero(const void *data, size_t length);
/* AG of a block, or NULL when it is in none. */
struct fsck_ag *fsck_ag_of(struct fsck *fsck, uint64_t block);
/* What the contents lack to be the block that was looked for, or NULL. */
const char *fsck_header_useless(const struct fsck *fsck, const struct block_header *header, uint64_t block,
	enum block_type type, bool replayed);
/* Marks blocks as reached from @owner, as blocks of @type or data. Each block that is outside of what an AG may give
 * away, or was reached before, or (data) would be overwritten by replay, is a finding. True when there was none. */
enum { FSCK_DATA = 0 };
bool fsck_claim(struct fsck *fsck, uint64_t block, uint64_t count, unsigned type, uint64_t owner);

/* ---- fsck_jobs.c ---- */
/* Does the step for every group, by jobs if the caller has them; sets fsck->clashed when it has to be done by one. */
void fsck_each_group(struct fsck *fsck, const char *phase, void (*step)(struct fsck *, struct fsck_ag *));

/* ---- fsck_super.c ---- */
/* The superblock that replay will leave is another one. */
void fsck_super_replayed(struct fsck *fsck, const struct fs_super *image);
void fsck_super(struct fsck *fsck);
void fsck_super_copies(struct fsck *fsck);
void fsck_state(struct fsck *fsck);

/* ---- fsck_journal.c ---- */
/* Takes over a superblock that stands in the journal. */
void fsck_journal_super(struct fsck *fsck);
void fsck_journal(struct fsck *fsck);
/* What an image lacks to be a metadata block of this filesystem at all, or NULL. */
const char *fsck_image_useless(const struct fsck *fsck, const struct block_header *header, uint64_t block);
const uint8_t *fsck_overlay_find(const struct fsck_overlay *overlay, uint64_t block);
/* The image of a block of an AG, made (without contents) when there is none. NULL without memory. */
uint8_t *fsck_overlay_insert(struct fsck *fsck, uint64_t block);
void fsck_overlay_fini(struct fsck_overlay *overlay);

/* ---- fsck_ag.c ---- */
void fsck_ag_header(struct fsck *fsck, struct fsck_ag *ag, const struct ag_header *header);
/* A new last entry of the table, not filled. NULL without memory. */
struct fsck_inode_block *fsck_table_append(struct fsck *fsck, struct fsck_ag *ag);
void fsck_ag_inodes(struct fsck *fsck, struct fsck_ag *ag);
void fsck_ag_orphans(struct fsck *fsck, struct fsck_ag *ag);

/* ---- fsck_map.c ---- */
void fsck_ag_block_map(struct fsck *fsck, struct fsck_ag *ag);
/* A block of one of an AG's maps; NULL with *out_known true when it is not written, false when it cannot be used. */
enum fsck_map { FSCK_MAP_BLOCKS, FSCK_MAP_INODES, FSCK_MAP_INODES_FREE };
const uint64_t *fsck_map_read(struct fsck *fsck, struct fsck_ag *ag, enum fsck_map map, uint32_t index, void *buffer,
	bool *out_known);

/* ---- fsck_inode.c ---- */
enum fsck_lookup { FSCK_LOOKUP_USED, FSCK_LOOKUP_FREE, FSCK_LOOKUP_NONE, FSCK_LOOKUP_UNKNOWN };
/* What is known of an inode number, 1 included: in a used slot, in a free one, no place of an inode, not readable. */
enum fsck_lookup fsck_inode_find(struct fsck *fsck, uint64_t ino, struct fsck_inode **out);
/* Number under which an inode is known: 1 for the root. */
static inline uint64_t fsck_inode_number(const struct fsck *fsck, uint64_t place)
{
	return place == fsck->root_place ? FS_ROOT_INODE : place;
}
void fsck_inode_block(struct fsck *fsck, struct fsck_ag *ag, struct fsck_inode_block *entry);
/* Whether fork contents and xattr records fit into the fork side by side. */
bool fsck_fork_fits(const struct disk_inode *inode);
bool fsck_mode_known(unsigned mode);
bool fsck_format_fits(unsigned mode, unsigned format);

/* ---- fsck_tree.c ---- */
/* Keys of a leaf are in [low, high). Walks call @leaf for each one, in order of keys. */
struct fsck_leaf {
	const uint8_t *payload;
	unsigned count, bytes;
	uint64_t low, high;
};
struct fsck_walk {
	uint64_t ino;                   /* owner of the nodes */
	enum block_type type;
	void (*leaf)(struct fsck *fsck, const struct fsck_leaf *leaf, void *arg);
	void *arg;
	uint64_t nodes;                 /* out: blocks of the tree */
};
void fsck_tree_walk(struct fsck *fsck, struct fsck_walk *walk, uint64_t root, unsigned level);
/* Checks and claims all extents; returns the number of blocks: data and nodes. */
uint64_t fsck_extents(struct fsck *fsck, const struct disk_inode *inode, uint64_t ino);

/* ---- fsck_xattr.c ---- */
/* Bytes of a record with name and value, or 0 when it breaks a rule. */
size_t fsck_xattr_bytes(const struct disk_xattr *record, size_t left);
/* Checks the records of the fork and of the chain; returns the number of blocks. */
uint64_t fsck_xattrs(struct fsck *fsck, const struct disk_inode *inode, uint64_t ino);

/* ---- fsck_dir.c ---- */
void fsck_directories(struct fsck *fsck, struct fsck_ag *ag);

/* ---- fsck_links.c ---- */
void fsck_links(struct fsck *fsck, struct fsck_ag *ag);

#endif
