/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside a scrub (fs_scrub of fs.h): one fiber that goes from owner to owner and reads what a filesystem that is in use has
 * on its device, beside everything else that goes on. It changes nothing, and waits for one read at a time.
 *
 *   scrub.c         its order, the pace, what it found
 *   scrub_range.c   allocation groups in one go, by what memory they take
 *   scrub_block.c   one block, as the device has it
 *   scrub_ag.c      superblocks, headers and maps, inode blocks, orphan blocks
 *   scrub_inode.c   what inodes own: extents, directories, xattrs
 *   scrub_entry.c   directories' entries, against the inodes that they name
 *   scrub_names.c   link counts and inode maps
 *   scrub_tree.c    whether directories lead to the root
 *   scrub_space.c   who owns which block, against the block maps
 *
 * What is known of blocks and inodes takes memory. So it goes over the filesystem in as many rounds as that needs, and judges
 * one range of allocation groups in each: their blocks, and their inodes with the names that lead there. The first round reads
 * and checks all else as well; a later one reads all again, and speaks of its range only.
 *
 * Why it raises no false alarm:
 * - A block is read while its owner keeps it what it is: under the inode's lock, or looked at again afterwards.
 * - The device may be behind the cache: a block that is dirty there is taken from there. One that is not has to be on the
 *   device as it is in the cache. A write that came between counts in cache_home_writes, and then it is read again.
 * - Who owns which block is noted under the inode's lock, and alloc_apply takes back what is freed and notes what is new.
 *   So the notes are true at every moment of an owner's time, and what no note speaks of at the end belongs to nobody.
 * - Links: pass 1 takes from each inode how many names it should have, and scrub_note_inode, called where links change, keeps
 *   that true. From the moment when names are counted, it only marks the inode, and that is not judged. An entry changes under
 *   the exclusive lock of its directory, held until every owner has applied its part; the names are counted under the shared one,
 *   of every directory that was there at that moment, once each (an entry keeps its key). So whoever sees an entry of an inode
 *   that is not marked sees what was there at that moment, and the names of that inode are counted whole.
 * - An inode without a link stands in an orphan block from the moment when it lost the last one, and leaves it when it is freed or
 *   linked; both mark it. So one without a mark is in the chain all the time that this is read.
 * - A directory's own links, and the parent of a directory that an entry names, stand still under the lock of the former.
 * - Maps and counts of an AG are compared in stretches without a wait, in which no transaction can be half applied.
 * - A way to the root that turns in a circle is walked again while no directory can change its parent; it counts when its first
 *   one was not made or moved meanwhile, for then none above can have been removed.
 *
 * What it may miss: the links of an inode that got, lost or changed a name while names were counted, and of one made in a new
 * inode block since its group was read; a link count that is wrong by a multiple of 65,536; the links and entries of a directory
 * that changed between two stretches (its own nlink, its count); names that are missing, and blocks that belong to nobody, when
 * something could not be read, for that may be what is missing; what is in a group that came while it ran. The next scrub sees
 * that.
 */
#ifndef LANEFS_FS_SCRUB_H
#define LANEFS_FS_SCRUB_H

#include "fs/inode_internal.h"

enum {
	SCRUB_FINDINGS_MAX = 256,       /* kept; the rest is counted */
	SCRUB_DATA_BYTES = 256 << 10,   /* of one read of file data */
	SCRUB_TYPE_BITS = 4,
};
/* Blocks of memory: a tree's path, then: */
enum {
	SCRUB_INODES = FS_TREE_LEVEL_MAX + 1, /* the inode block at work */
	SCRUB_HEADER,
	SCRUB_XATTR,
	SCRUB_OTHER,
	SCRUB_BUFFERS,
};

/* What is known of an inode block. Written on the AG's owner; left and rooted by the scrub, wherever it is, since it counts
 * names. */
struct scrub_inodes {
	uint32_t ag_block;
	uint16_t touched;               /* by slot: a name came or went since names are counted */
	uint16_t rooted;                /* by slot: a directory that leads to the root */
	uint16_t unlinked;              /* by slot: has no links, and was not seen in an orphan block */
	uint64_t types;                 /* SCRUB_TYPE_BITS for each slot, S_IFMT >> 12 or 0 */
	uint16_t left[FS_INODES_PER_BLOCK]; /* names that it should have, less those that were seen */
};
struct scrub_ag {
	/* A bit for each block. The first two: seen to belong to a file, to a structure; the third: allocated since the scrub
	 * began. Of the AG's owner. NULL: nothing was noted, or there is no memory (@unknown). */
	uint64_t *data, *structure, *fresh;
	struct scrub_inodes *inodes;    /* ascending; made in pass 1 */
	uint32_t inode_blocks, capacity;
	uint32_t inode_next;            /* AG-relative: inodes in blocks below are in used_inodes */
	uint32_t used_inodes;
	bool inodes_unknown;            /* an inode block or map could not be read: used_inodes is not judged */
	bool unknown;                   /* its block map is not judged */
};

struct scrub_finding {
	atomic_bool ready;
	uint64_t ino;
	char text[200];
};

struct scrub {
	struct fs *fs;
	struct fs_scrub_options options;
	struct owner *owner;            /* where the fiber is */
	atomic_bool running, cancelled;
	atomic_bool noting;             /* changes of blocks and of links are noted */
	atomic_bool counting;           /* names are counted */
	uint32_t ag_count, ag_blocks;   /* when it began */
	uint32_t range_first, range_end; /* AGs that are judged in this round */
	unsigned round;                 /* from 0 */
	struct scrub_ag *ag;
	uint8_t *memory;                /* DMA, SCRUB_BUFFERS blocks, and SCRUB_DATA_BYTES with options.data */
	uint64_t begin_ns, bytes;       /* for the pace */
	uint64_t unreadable;            /* I/O errors so far */
	uint64_t bits_left;             /* bytes of memory that the bits may still take */
	uint64_t directories;           /* that pass 1 has seen */
	atomic_bool incomplete;         /* something could not be looked at in this round: leaks cannot be told */
	atomic_bool was_incomplete;     /* or in an earlier one */
	bool recorded;                  /* in the state block */
	atomic_uint finding_count;
	struct scrub_finding finding[SCRUB_FINDINGS_MAX];
	/* Figures, read by anybody. */
	struct {
		atomic_int phase;       /* enum fs_scrub_phase */
		atomic_int result;
		atomic_ullong done, total, inodes, directories, blocks, ahead, data_bytes, findings, unjudged, changed, rounds, begin_s, end_s;
	} stats;
};

static inline uint8_t *scrub_memory(const struct scrub *scrub, unsigned buffer)
{
	return scrub->memory + (size_t)buffer * FS_BLOCK_SIZE;
}
static inline bool scrub_in_range(const struct scrub *scrub, uint32_t ag)
{
	return ag >= scrub->range_first && ag < scrub->range_end;
}
static inline void scrub_count(atomic_ullong *counter, uint64_t by)
{
	atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* ---- scrub.c ---- */
/* One line about what is wrong with what is judged in this round: "inode 12: ..."; @ino 0: no inode's; @block 0: none. */
void scrub_find(struct scrub *scrub, uint64_t ino, uint64_t block, const char *format, ...) PRINTF_LIKE(4, 5);
/* The same about what every round looks at: nothing but in the first. */
void scrub_find_first(struct scrub *scrub, uint64_t ino, uint64_t block, const char *format, ...) PRINTF_LIKE(4, 5);
/* Between two pieces of work, with no lock held: lets others go first, keeps the pace. An error: the scrub ends with it. */
MAY_WAIT int scrub_pause(struct scrub *scrub) MUST_CHECK;
int scrub_may_go_on(const struct scrub *scrub) MUST_CHECK;

/* ---- scrub_block.c ---- */
/* The block as it should be, verified: from the device, or from the cache where the device is behind. Errors that are the block's:
 * -EUCLEAN, -EIO, and scrub->owner's caller reports them by scrub_block_find; -EBUSY: it was written all the time. Others end
 * the scrub. *out_why: what is wrong with it. */
MAY_WAIT int scrub_block(struct scrub *scrub, uint64_t block, enum block_type type, uint64_t owner_id, uint8_t *into,
	const char **out_why) MUST_CHECK;
/* The same for a block that stays what it is while its owner's lock is held: reports what is wrong. */
MAY_WAIT int scrub_block_locked(struct scrub *scrub, uint64_t ino, uint64_t block, enum block_type type, uint64_t owner_id,
	uint8_t *into) MUST_CHECK;
/* Whether an error is one of a block, so that the scrub goes on. */
static inline bool scrub_goes_on(int error) { return error == -EUCLEAN || error == -EIO || error == -EBUSY; }

/* ---- scrub_ag.c ---- */
/* Pass 1 on owner 0, and on the owner of each AG. */
MAY_WAIT int scrub_supers(struct scrub *scrub) MUST_CHECK;
MAY_WAIT int scrub_ag_pass(struct scrub *scrub, uint32_t ag) MUST_CHECK;
/* Walks the orphan chain of an AG of this owner: claims its blocks, or, since names are counted, hands them to
 * scrub_orphans_seen. *out_whole: it was seen whole. */
MAY_WAIT int scrub_chain(struct scrub *scrub, uint32_t ag, bool *out_whole) MUST_CHECK;
/* Reads an inode block into SCRUB_INODES, as it is when this returns. -ESTALE: the inode map does not have it any more. Its block of
 * that map is pinned. */
MAY_WAIT int scrub_inode_block(struct scrub *scrub, uint32_t ag, uint32_t ag_block) MUST_CHECK;
/* Each block of the inode map of an AG of this owner: all that are there from begin to end, and some of those that come or go. */
MAY_WAIT int scrub_inode_blocks(struct scrub *scrub, uint32_t ag,
	MAY_WAIT int (*look)(struct scrub *scrub, uint32_t ag, uint32_t ag_block)) MUST_CHECK;

/* ---- scrub_inode.c ---- */
/* What an inode of scrub->owner owns. */
MAY_WAIT int scrub_inode(struct scrub *scrub, uint64_t ino) MUST_CHECK;
/* Pass 2: the directories of an AG. */
MAY_WAIT int scrub_directories(struct scrub *scrub, uint32_t ag) MUST_CHECK;

/* ---- scrub_entry.c ---- */
struct scrub_entries {
	const uint8_t *records;         /* of a directory's leaf or fork */
	unsigned bytes;
	uint64_t from;                  /* only keys from here on are looked at */
	uint64_t low, high;             /* keys should be in [low, high) */
	uint64_t count, directories;    /* added to */
};
/* The directory's lock is held. */
MAY_WAIT void scrub_entries(struct scrub *scrub, const struct inode *directory, struct scrub_entries *entries);
/* Whether an inode is in use and of that type (S_IFMT >> 12). -ESTALE, -EUCLEAN (another type), errors of reading it. */
MAY_WAIT int scrub_inode_is(struct scrub *scrub, uint64_t ino, unsigned type) MUST_CHECK;

/* ---- scrub_names.c ---- */
/* A change of links is being applied on the inode's owner: to what @inode says (NULL: the slot is free now). @used_delta: by how
 * much the number of used slots changes. */
void scrub_note_inode(struct fs *fs, uint64_t ino, const struct disk_inode *inode, int used_delta);
/* Pass 1, on the AG's owner: the block as it is at this moment. */
int scrub_inodes_add(struct scrub *scrub, uint32_t ag, uint32_t ag_block, const struct inode_block *block) MUST_CHECK;
/* What is known of the block with this inode, or NULL. */
struct scrub_inodes *scrub_inodes_find(const struct scrub *scrub, uint64_t ino);
/* Type of an inode as it is known (S_IFMT >> 12); 0: it is not. */
unsigned scrub_type_seen(const struct scrub *scrub, uint64_t ino);
/* Names are counted from now on. */
MAY_WAIT void scrub_names_begin(struct scrub *scrub);
void scrub_name_seen(struct scrub *scrub, uint64_t ino);
/* Pass 3, on the AG's owner: a block of its orphan chain, as it is at this moment. */
void scrub_orphans_seen(struct scrub *scrub, uint32_t ag, const struct orphan_block *block);
/* Pass 3: an AG's inode maps and counts, and whether each inode had as many names as it has links, or stands in the orphan
 * chain. */
MAY_WAIT int scrub_ag_inodes(struct scrub *scrub, uint32_t ag) MUST_CHECK;

/* ---- scrub_tree.c ---- */
/* Finds a directory of this owner that does not lead to the root. No lock is held. */
MAY_WAIT int scrub_leads_to_root(struct scrub *scrub, uint64_t ino) MUST_CHECK;

/* ---- scrub_range.c ---- */
/* As many groups from @from on as memory does for: at least one. */
MAY_WAIT int scrub_range_begin(struct scrub *scrub, uint32_t from) MUST_CHECK;
void scrub_range_end(struct scrub *scrub);

/* ---- scrub_space.c ---- */
/* alloc_apply has allocated or freed these blocks of an AG of this owner. */
void scrub_note(struct fs *fs, uint64_t block, uint32_t count, bool allocated);
int scrub_space_create(struct scrub *scrub) MUST_CHECK;
void scrub_space_destroy(struct scrub *scrub);
uint64_t scrub_bits_bytes(const struct scrub *scrub); /* of an AG in use */
/* Notes that blocks belong to an inode, as data, or (0: to the AG itself) as parts of a structure, and finds those that are
 * not marked used, or belong to somebody else. The inode's lock is held. Nothing for blocks out of the range. */
MAY_WAIT int scrub_claim(struct scrub *scrub, uint64_t block, uint32_t count, bool data, uint64_t ino) MUST_CHECK;
/* Pass 3: an AG's block map against the notes, and its count of free blocks. */
MAY_WAIT int scrub_ag_space(struct scrub *scrub, uint32_t ag) MUST_CHECK;

#endif
