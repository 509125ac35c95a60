/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the parts of a repair share. A repair stands on the checker's context: it reads through it, and its overlay of
 * images, which for a check holds what replay would leave, holds here what is going to be written. Nothing is written
 * home before everything is decided (but for the journal, which a mount would write home as well).
 *
 *   repair.c         the order of it; images, free blocks, writing
 *   repair_start.c   superblocks, state blocks, the journal
 *   repair_ag.c      which blocks hold inodes; orphans; at the end: maps and headers
 *   repair_inode.c   fields of inodes, extents of files
 *   repair_tree.c    trees: what can be read of one, and building one anew
 *   repair_xattr.c   xattrs
 *   repair_dir.c     entries of directories
 *   repair_links.c   link counts, parents, cycles, lost+found
 *
 * Who owns a block is decided in this order: inode blocks, directories, files, each in order of numbers; who comes
 * second loses it. A tree node or an xattr block names its owner, so there it is not the order that decides.
 *
 * An inode whose contents cannot be mended in place is put on a list with what is left of them, and written anew when
 * all blocks that are in use are known.
 */
#ifndef LANEFS_MKFS_REPAIR_INTERNAL_H
#define LANEFS_MKFS_REPAIR_INTERNAL_H

#include "mkfs/fsck_internal.h"

/* In fsck_inode.flags, beside fsck_inode_flags. */
enum {
	REPAIR_PLACED = 1 << 3,         /* directories: an entry for it was accepted */
	REPAIR_REBUILD = 1 << 4,        /* on the list */
};

struct repair_blocks {
	uint64_t *block;
	size_t count, capacity;
};

struct repair_extent {
	uint64_t logical, physical;
	uint32_t length, flags;
};
struct repair_extents {
	struct repair_extent *extent;
	size_t count, capacity;
};

struct repair_entry {
	uint64_t key, ino;
	size_t name;                    /* place in names */
	uint8_t length, type;
	bool undecided;                 /* a directory that names another parent */
	bool new_key;                   /* the key is to be given out anew */
	bool dropped;
};
struct repair_directory {
	struct repair_entry *entry;
	size_t count, capacity;
	char *names;
	size_t names_used, names_size;
};

/* An inode whose contents are written anew. */
struct repair_rebuild {
	struct repair_rebuild *next;
	uint64_t ino;
	uint64_t other_blocks;          /* of data, xattrs: they stay */
	struct repair_blocks nodes;     /* that its tree had */
	struct repair_extents extents;  /* of a file */
	struct repair_directory directory;
};

struct repair {
	struct fsck fsck;               /* first in memory, last in size */
	const struct fsck_repair_options *options;
	const struct fsck_repair_io *io;
	struct fsck_repair_result *out;
	bool rehearsal;                 /* nothing is written: what would be lost? */
	unsigned unreadable;            /* blocks that the device failed to read, taken for lost */
	uint64_t sequence;              /* highest that any header has */
	struct repair_rebuild *rebuilds;
	struct repair_blocks lost;      /* inodes for lost+found */
	uint32_t allocate_ag, allocate_at; /* where the last free block was found */
	char text[256];
};

/* ---- repair.c ---- */
/* Something was dropped or moved. */
void repair_loss(struct repair *repair, const char *format, ...) PRINTF_LIKE(2, 3);
/* The block as it is going to be written, to be changed. NULL when fsck.error is set. */
void *repair_edit(struct repair *repair, uint64_t block);
/* The same for a block that begins empty. */
void *repair_new(struct repair *repair, uint64_t block, enum block_type type, uint64_t owner);
/* The block's contents if it is what it should be; else NULL. */
const void *repair_read(struct repair *repair, uint64_t block, void *buffer, enum block_type type, uint64_t owner);
/* True when the blocks may belong to somebody: within an AG, behind its fixed blocks. */
bool repair_placeable(struct repair *repair, uint64_t block, uint64_t count);
/* Takes one block. False: it may not belong to anybody, or does already. */
bool repair_claim(struct repair *repair, uint64_t block);
/* How many of @count blocks from @block on (in one AG) are all free, or all taken: *out_free says which. */
uint32_t repair_run(struct repair *repair, uint64_t block, uint32_t count, bool *out_free);
void repair_claim_run(struct repair *repair, uint64_t block, uint32_t count);
void repair_release(struct repair *repair, const struct repair_blocks *blocks);
/* A free block, taken; 0: there is none. */
uint64_t repair_allocate(struct repair *repair);
void repair_blocks_add(struct repair *repair, struct repair_blocks *blocks, uint64_t block);
void *repair_grow(struct repair *repair, void *array, size_t *capacity, size_t wanted, size_t size);
/* Puts an inode on the list. NULL without memory. */
struct repair_rebuild *repair_rebuild_add(struct repair *repair, uint64_t ino);

/* ---- repair_start.c ---- */
void repair_start(struct repair *repair);
/* The last writes: superblock copies that differ, and the state. @clean: all is done. */
void repair_write_supers(struct repair *repair);
void repair_write_state(struct repair *repair, bool clean);

/* ---- repair_ag.c ---- */
void repair_ag_inodes(struct repair *repair, struct fsck_ag *ag);
void repair_ag_orphans(struct repair *repair, struct fsck_ag *ag);
void repair_root(struct repair *repair);
void repair_ag_maps(struct repair *repair, struct fsck_ag *ag);
/* A slot for a new inode, marked used; its record is all zero but for the generation. NULL: no block is free. */
struct disk_inode *repair_inode_new(struct repair *repair, unsigned mode, uint64_t *out_ino);

/* ---- repair_inode.c ---- */
typedef void (*repair_inode_fn)(struct repair *repair, uint64_t ino, struct fsck_inode *known);
/* Calls @fn for every inode in use of the AG. */
void repair_each_inode(struct repair *repair, struct fsck_ag *ag, repair_inode_fn fn);
/* The record of an inode, for reading: good until the next read. NULL when fsck.error is set. */
const struct disk_inode *repair_inode_read(struct repair *repair, uint64_t ino);
struct disk_inode *repair_inode_edit(struct repair *repair, uint64_t ino);
void repair_inode_free(struct repair *repair, uint64_t ino);
/* Fields of one slot in use, by themselves; frees it when it is nothing. */
void repair_inode_fields(struct repair *repair, struct fsck_ag *ag, uint64_t ino);
/* Extents and xattrs of everything but directories. */
void repair_file(struct repair *repair, uint64_t ino, struct fsck_inode *known);
void repair_file_rebuild(struct repair *repair, struct repair_rebuild *rebuild);
/* Sets blocks, unless that is what it says. */
void repair_inode_blocks(struct repair *repair, uint64_t ino, uint64_t blocks);

/* ---- repair_tree.c ---- */
struct repair_leaf {
	const uint8_t *payload;
	unsigned count, bytes;
	uint64_t low, high;             /* keys that belong here */
};
struct repair_walk {
	uint64_t ino;
	enum block_type type;
	bool again;                     /* the nodes are known and taken */
	void (*leaf)(struct repair *repair, const struct repair_leaf *leaf, void *arg);
	void *arg;
	struct repair_blocks nodes;     /* out: good ones */
	bool damaged;                   /* out: there was more */
};
void repair_tree_walk(struct repair *repair, struct repair_walk *walk, uint64_t root, unsigned level);
/* Leaves and then inner nodes, from records in ascending order. */
struct repair_builder {
	uint64_t ino;
	enum block_type type;
	struct repair_blocks free;      /* to be used */
	size_t used;
	struct tree_pointer *pointer;   /* to the leaves so far */
	size_t count, capacity;
	struct tree_node *leaf;
};
void repair_build_begin(struct repair *repair, struct repair_builder *builder, size_t nodes, struct repair_rebuild *rebuild);
void repair_build_record(struct repair *repair, struct repair_builder *builder, uint64_t key, const void *record, size_t bytes);
/* Returns the root, and its level. */
uint64_t repair_build_end(struct repair *repair, struct repair_builder *builder, unsigned *out_level);
/* Nodes of a tree with that many leaves. */
size_t repair_build_nodes(size_t leaves);

/* ---- repair_xattr.c ---- */
/* Drops what is wrong; returns the number of blocks that are left. */
uint64_t repair_xattrs(struct repair *repair, uint64_t ino);

/* ---- repair_dir.c ---- */
void repair_directory(struct repair *repair, uint64_t ino, struct fsck_inode *known);
/* Accepts or drops the entries that were left undecided. */
void repair_decide(struct repair *repair);
/* The directory on the list, put there if need be. */
struct repair_rebuild *repair_directory_load(struct repair *repair, uint64_t ino);
void repair_entry_add(struct repair *repair, struct repair_rebuild *rebuild, const char *name, uint64_t ino, unsigned type);
/* Entry of that name, or NULL. */
struct repair_entry *repair_entry_find(struct repair_rebuild *rebuild, const char *name, size_t length);
void repair_directory_rebuild(struct repair *repair, struct repair_rebuild *rebuild);

/* ---- repair_links.c ---- */
void repair_links(struct repair *repair);
void repair_reconnect(struct repair *repair);
void repair_link_counts(struct repair *repair);

#endif
