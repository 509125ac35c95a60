/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside a scrub (fs_scrub of fs.h): one fiber that goes from owner to owner and reads what a filesystem that is in use has
 * on its device, beside everything else that goes on. It changes nothing, and waits for one read at a time.
 *
 *   scrub.c         its order, the pace, what it found
 *   scrub_block.c   one block, as the device has it
 *   scrub_ag.c      superblocks, headers and maps, inode blocks, orphan blocks
 *   scrub_inode.c   what inodes own: extents, directories, xattrs
 *   scrub_space.c   who owns which block, against the block maps
 *
 * Why it raises no false alarm:
 * - A block is read while its owner keeps it what it is: under the inode's lock, or looked at again afterwards.
 * - The device may be behind the cache: a block that is dirty there is taken from there. One that is not has to be on the
 *   device as it is in the cache. A write that came between counts in cache_home_writes, and then it is read again.
 * - Who owns which block is noted under the inode's lock, and alloc_apply takes back what is freed and notes what is new.
 *   So the notes are true at every moment of an owner's time, and what no note speaks of at the end belongs to nobody.
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

/* What pass 1 saw in an inode block: SCRUB_TYPE_BITS for each slot, S_IFMT >> 12 or 0. */
struct scrub_inodes {
	uint32_t ag_block;
	uint64_t types;
};
struct scrub_ag {
	/* A bit for each block. The first two: seen to belong to a file, to a structure; the third: allocated since the scrub
	 * began. Of the AG's owner. NULL: nothing was noted, or there is no memory (@unknown). */
	uint64_t *data, *structure, *fresh;
	struct scrub_inodes *inodes;    /* ascending; written in pass 1 */
	uint32_t inode_blocks, capacity;
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
	atomic_bool running, cancelled, noting; /* noting: alloc_apply takes part */
	uint32_t ag_count, ag_blocks;   /* when it began */
	struct scrub_ag *ag;
	uint8_t *memory;                /* DMA, SCRUB_BUFFERS blocks, and SCRUB_DATA_BYTES with options.data */
	uint64_t begin_ns, bytes;       /* for the pace */
	uint64_t unreadable;            /* I/O errors so far */
	uint64_t bits_left;             /* bytes of memory that the bits may still take */
	atomic_bool incomplete;         /* something could not be looked at: leaks cannot be told */
	bool recorded;                  /* in the state block */
	atomic_uint finding_count;
	struct scrub_finding finding[SCRUB_FINDINGS_MAX];
	/* Figures, read by anybody. */
	struct {
		atomic_int phase;       /* enum fs_scrub_phase */
		atomic_int result;
		atomic_ullong done, total, inodes, directories, blocks, ahead, data_bytes, findings, unjudged, begin_s, end_s;
	} stats;
};

static inline uint8_t *scrub_memory(const struct scrub *scrub, unsigned buffer)
{
	return scrub->memory + (size_t)buffer * FS_BLOCK_SIZE;
}
static inline void scrub_count(atomic_ullong *counter, uint64_t by)
{
	atomic_fetch_add_explicit(counter, by, memory_order_relaxed);
}

/* ---- scrub.c ---- */
/* One line about what is wrong: "inode 12: ..."; @ino 0: no inode's; @block 0: none. */
void scrub_find(struct scrub *scrub, uint64_t ino, uint64_t block, const char *format, ...) PRINTF_LIKE(4, 5);
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

/* ---- scrub_inode.c ---- */
/* What an inode of scrub->owner owns. */
MAY_WAIT int scrub_inode(struct scrub *scrub, uint64_t ino) MUST_CHECK;
/* Pass 2: the directories of an AG. */
MAY_WAIT int scrub_directories(struct scrub *scrub, uint32_t ag) MUST_CHECK;
/* scrub_entry.c: the records of a directory's leaf or fork from @from on, in keys [low, high). Returns their number. */
MAY_WAIT unsigned scrub_entries(struct scrub *scrub, struct inode *directory, const uint8_t *records, unsigned bytes, uint64_t from,
	uint64_t low, uint64_t high);
/* Whether an inode is in use and of that type (S_IFMT >> 12). -ESTALE, -EUCLEAN (another type), errors of reading it. */
MAY_WAIT int scrub_inode_is(struct scrub *scrub, uint64_t ino, unsigned type) MUST_CHECK;

/* ---- scrub_space.c ---- */
/* alloc_apply has allocated or freed these blocks of an AG of this owner. */
void scrub_note(struct fs *fs, uint64_t block, uint32_t count, bool allocated);
int scrub_space_create(struct scrub *scrub) MUST_CHECK;
void scrub_space_destroy(struct scrub *scrub);
/* Notes that blocks belong to an inode, as data, or (0: to the AG itself) as parts of a structure, and finds those that are
 * not marked used, or belong to somebody else. The inode's lock is held. */
MAY_WAIT int scrub_claim(struct scrub *scrub, uint64_t block, uint32_t count, bool data, uint64_t ino) MUST_CHECK;
/* Pass 3: an AG's block map against the notes, and its count of free blocks. */
MAY_WAIT int scrub_ag_space(struct scrub *scrub, uint32_t ag) MUST_CHECK;

#endif
