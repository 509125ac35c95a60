/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The disk format of lanefs, all of it and nothing else. doc/format.md explains every field.
 *
 *   block 0        reserved (boot code)
 *   block 1        superblock: static
 *   block 2, 3     state blocks A and B: what changes at run time, written alternately
 *   block 4 ...    journal ring, journal_blocks long
 *   first_ag_block allocation group 0, 1, ...: ag_blocks each, the last may be shorter
 *   last block     copy of the superblock (further copies: block 1 of allocation groups 1, 2, 4, 8, ...)
 *
 *   allocation group (AG), numbers relative to it:
 *     0            AG header
 *     1            superblock copy, or unused
 *     2 ...        block map, inode map, inode free map: map_blocks blocks each
 *     then         inode blocks, tree nodes, xattr, orphan and data blocks, anywhere
 *
 * Integers are little-endian. Every metadata block starts with struct block_header. Reserved fields are zero.
 */
#ifndef LANEFS_FS_FORMAT_H
#define LANEFS_FS_FORMAT_H

#include "reactor/base.h"

enum {
	FS_BLOCK_SIZE = 4096,
	FS_BLOCK_SHIFT = 12,
	FS_SUPER_BLOCK = 1,
	FS_STATE_BLOCK_A = 2,
	FS_STATE_BLOCK_B = 3,
	FS_JOURNAL_FIRST_BLOCK = 4,
	FS_LABEL_BYTES = 32,
	FS_UUID_BYTES = 16,
	FS_NAME_MAX = 255,
	FS_SYMLINK_MAX = 4095,
	FS_LINK_MAX = 0x7fffffff,
	FS_FORMAT_VERSION = 1,
	FS_AG_SUPER_COPY = 1,      /* AG-relative block of a superblock copy */
	FS_AG_MAPS_FIRST = 2,      /* AG-relative block of the block map */
	FS_AG_BLOCKS_MIN = 256,    /* library; mkfs asks for 2048 (8 MiB) */
	FS_AG_BLOCKS_MAX = 1 << 20,
	FS_AG_BLOCKS_LAST_MIN = 64, /* a shorter rest of the device stays unused */
	FS_JOURNAL_BLOCKS_MAX = 1 << 18,
};
/* Sequences and generations stay below: no filesystem counts that far, and what counts on from them never wraps. */
#define FS_COUNT_END (1ull << 56)
#define FS_FILE_SIZE_MAX ((uint64_t)INT64_MAX - FS_BLOCK_SIZE)

#define FS_SUPER_MAGIC 0x5346454e414cull   /* "LANEFS" */
#define FS_BLOCK_MAGIC 0x4b424e4cu         /* "LNBK" */
#define FS_JOURNAL_MAGIC 0x4c4a4e4cu       /* "LNJL" */

enum block_type {
	BLOCK_SUPER = 1,
	BLOCK_STATE,
	BLOCK_AG_HEADER,
	BLOCK_BLOCK_MAP,
	BLOCK_INODE_MAP,
	BLOCK_INODE_FREE_MAP,
	BLOCK_INODES,
	BLOCK_EXTENT_NODE,
	BLOCK_DIR_NODE,
	BLOCK_XATTR,
	BLOCK_XATTR_VALUE,
	BLOCK_ORPHANS,
	BLOCK_TYPE_COUNT,
};

#define FORMAT_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), "on-disk size of " #type)
#define FORMAT_OFFSET(type, field, at) _Static_assert(offsetof(type, field) == (at), "on-disk offset of " #type "." #field)

/* Opens every metadata block. The crc32c covers the whole block with the crc field taken as zero. */
struct block_header {
	le32_t magic;              /* FS_BLOCK_MAGIC */
	le32_t crc;
	le16_t type;               /* enum block_type */
	le16_t reserved0;
	le32_t reserved1;
	le64_t block;              /* where this block stands on the device */
	le64_t fsid;               /* superblock.fsid: which mkfs it belongs to */
	le64_t owner;              /* inode number, or AG number for maps, inode and orphan blocks, AG headers */
	le64_t sequence;           /* journal group of the last record contained; 0: written by mkfs */
};
FORMAT_SIZE(struct block_header, 48);
FORMAT_OFFSET(struct block_header, block, 16);
FORMAT_OFFSET(struct block_header, sequence, 40);

/* Feature words. An unknown compat bit is ignored, ro_compat allows read-only mounts, incompat forbids mounting. */
enum fs_incompat {
	FS_INCOMPAT_REFCOUNT = 1 << 0,  /* reserved: reflinks and snapshots (AG header: refcount_root) */
	FS_INCOMPAT_DATA_CRC = 1 << 1,  /* reserved: data checksums */
};
enum { FS_COMPAT_KNOWN = 0, FS_RO_COMPAT_KNOWN = 0, FS_INCOMPAT_KNOWN = 0 };

struct fs_super {
	struct block_header header;     /* block: the copy's own place; owner 0 */
	le64_t magic;                   /* FS_SUPER_MAGIC */
	le32_t version;                 /* FS_FORMAT_VERSION */
	le32_t block_size;              /* FS_BLOCK_SIZE */
	uint8_t uuid[FS_UUID_BYTES];
	uint8_t label[FS_LABEL_BYTES];  /* UTF-8, zero-padded */
	le64_t fsid;                    /* drawn at random by every mkfs */
	le64_t journal_id;              /* drawn at random by every mkfs */
	le64_t hash_seed;               /* of directory hashes */
	le64_t block_count;             /* of the filesystem, superblock copy at the end included */
	le64_t journal_first;           /* block number */
	le64_t journal_blocks;
	le64_t first_ag_block;
	le32_t ag_blocks;
	le32_t ag_count;
	le32_t last_ag_blocks;          /* FS_AG_BLOCKS_LAST_MIN..ag_blocks */
	le32_t map_blocks;              /* blocks of one map of an AG: div_round_up(ag_blocks, FS_MAP_BITS) */
	le64_t root_place;              /* inode number that inode 1 stands for */
	le64_t compat;
	le64_t ro_compat;
	le64_t incompat;
	le64_t created_sec;             /* seconds since 1970 */
	le32_t inode_size;              /* 256 */
	le32_t reserved0;
	uint8_t reserved[4096 - 232];
};
FORMAT_SIZE(struct fs_super, 4096);
FORMAT_OFFSET(struct fs_super, magic, 48);
FORMAT_OFFSET(struct fs_super, uuid, 64);
FORMAT_OFFSET(struct fs_super, fsid, 112);
FORMAT_OFFSET(struct fs_super, block_count, 136);
FORMAT_OFFSET(struct fs_super, ag_blocks, 168);
FORMAT_OFFSET(struct fs_super, root_place, 184);
FORMAT_OFFSET(struct fs_super, reserved, 232);

/* The state block with the higher generation and a good crc counts. */
struct fs_state {
	struct block_header header;     /* owner 0 */
	le64_t generation;              /* counts state writes; even ones in block A, odd ones in block B */
	le64_t mount_generation;        /* rises durably before the first group of a mount */
	le32_t clean;                   /* 1: journal empty, totals below true */
	le32_t reserved0;
	le64_t tail_block;              /* place of the tail in the journal ring, 0..journal_blocks-1 */
	le64_t tail_sequence;           /* sequence that a group at the tail has */
	le32_t tail_crc;                /* previous_crc that a group at the tail has */
	le32_t reserved1;
	le64_t durable_sequence;        /* highest group known durable; tail_sequence - 1 when the journal is empty */
	le64_t free_blocks;             /* totals at clean unmount */
	le64_t used_inodes;
	le32_t error_code;              /* last error that stopped the filesystem: errno, 0 none */
	le32_t error_count;
	le64_t error_sec;
	le64_t error_block;
	uint8_t error_text[128];        /* zero-terminated */
	uint8_t reserved[4096 - 272];
};
FORMAT_SIZE(struct fs_state, 4096);
FORMAT_OFFSET(struct fs_state, generation, 48);
FORMAT_OFFSET(struct fs_state, tail_block, 72);
FORMAT_OFFSET(struct fs_state, durable_sequence, 96);
FORMAT_OFFSET(struct fs_state, error_code, 120);
FORMAT_OFFSET(struct fs_state, reserved, 272);

/* ---- allocation groups ---- */
struct ag_header {
	struct block_header header;     /* owner: AG number */
	le32_t ag;
	le32_t blocks;                  /* length of this AG */
	le32_t free_blocks;             /* zero bits in the block map */
	le32_t inode_blocks;            /* set bits in the inode map */
	le32_t used_inodes;             /* used slots of all inode blocks */
	le32_t next_generation;         /* given to the next inode made here; starts at 1, rises by one each */
	le32_t orphan_count;            /* entries in the orphan chain */
	le32_t reserved0;
	le64_t orphan_head;             /* first orphan block, 0: none */
	le64_t block_map_ready;         /* bit i: block i of the map was written; else it is what mkfs would have made it */
	le64_t inode_map_ready;
	le64_t inode_free_map_ready;
	le64_t refcount_root;           /* reserved, zero */
	uint8_t reserved[4096 - 120];
};
FORMAT_SIZE(struct ag_header, 4096);
FORMAT_OFFSET(struct ag_header, free_blocks, 56);
FORMAT_OFFSET(struct ag_header, orphan_head, 80);
FORMAT_OFFSET(struct ag_header, reserved, 120);

/* A map block. Bit i of byte i/8 (low bit first) stands for AG-relative block: index of the map block * FS_MAP_BITS + i.
 *   block map       1: in use. The AG's own header and maps are in use; bits past the end of the AG are 1.
 *   inode map       1: is an inode block.
 *   inode free map  1: is an inode block with at least one free slot.
 * A map block that is not ready (see ag_header) is all zero, but for the two rules of the block map above. */
enum { FS_MAP_BYTES = 4032, FS_MAP_BITS = FS_MAP_BYTES * 8 };
struct map_block {
	struct block_header header;     /* owner: AG number */
	le32_t index;                   /* of this block in its map */
	le32_t reserved[3];
	uint8_t bits[FS_MAP_BYTES];
};
FORMAT_SIZE(struct map_block, 4096);
FORMAT_OFFSET(struct map_block, bits, 64);

/* ---- inodes ---- */
enum {
	FS_INODE_SIZE = 256,
	FS_FORK_BYTES = 128,
	FS_INODES_PER_BLOCK = 15,
	FS_INODE_SLOT_BITS = 4,
	FS_INODE_BLOCK_BITS = 20,
};
#define FS_ROOT_INODE 1ull
/* inode number = AG << 24 | AG-relative block << 4 | slot; numbers below 16 are not places; 1 is superblock.root_place. */
static inline uint64_t ino_make(uint32_t ag, uint32_t ag_block, unsigned slot)
{
	return (uint64_t)ag << (FS_INODE_BLOCK_BITS + FS_INODE_SLOT_BITS) | (uint64_t)ag_block << FS_INODE_SLOT_BITS | slot;
}
static inline uint32_t ino_ag(uint64_t place) { return (uint32_t)(place >> (FS_INODE_BLOCK_BITS + FS_INODE_SLOT_BITS)); }
static inline uint32_t ino_ag_block(uint64_t place)
{
	return (uint32_t)(place >> FS_INODE_SLOT_BITS) & ((1u << FS_INODE_BLOCK_BITS) - 1);
}
static inline unsigned ino_slot(uint64_t place) { return place & ((1u << FS_INODE_SLOT_BITS) - 1); }

enum fork_format {
	FORK_NONE = 0,     /* free slot; or nothing to keep (FIFO, socket, device) */
	FORK_INLINE = 1,   /* file data, symlink target or directory entries in the fork; fork_bytes of it */
	FORK_EXTENTS = 2,  /* fork_count extents in the fork */
	FORK_TREE = 3,     /* struct fork_tree: extent tree, or directory tree */
};
enum inode_flags {             /* FS_IOC_GETFLAGS bits that are kept */
	INODE_SYNC = 0x8,
	INODE_IMMUTABLE = 0x10,
	INODE_APPEND = 0x20,
	INODE_NODUMP = 0x40,
	INODE_NOATIME = 0x80,
	INODE_DIRSYNC = 0x10000,
	INODE_FLAGS_KNOWN = 0x100f8,
};
struct disk_inode {
	le16_t mode;               /* file type and permissions as in st_mode; 0: free slot */
	uint8_t format;            /* enum fork_format */
	uint8_t xattr_bytes;       /* bytes of xattr records at the end of the fork, multiple of 8 */
	le32_t flags;              /* enum inode_flags */
	le32_t uid;
	le32_t gid;
	le32_t nlink;              /* directories: 2 + subdirectories */
	le32_t generation;         /* of this use of the slot; a free slot keeps its last */
	le64_t size;               /* bytes; directories: bytes of entry records, see doc/format.md */
	le64_t blocks;             /* allocated 4 KiB blocks: data, tree nodes, xattr blocks */
	le64_t atime_sec, mtime_sec, ctime_sec, btime_sec; /* signed */
	le32_t atime_nsec, mtime_nsec, ctime_nsec, btime_nsec;
	le64_t parent;             /* directories: inode of the parent; root: itself; others 0 */
	le64_t rdev_or_entries;    /* devices: major << 32 | minor; directories: number of entries without "." and ".." */
	le64_t xattr_block;        /* first xattr block, 0: none */
	le16_t fork_count;         /* FORK_EXTENTS: extents */
	uint8_t fork_bytes;        /* FORK_INLINE: bytes in use */
	uint8_t fork_level;        /* FORK_TREE: level of the root block (0: it is a leaf) */
	le32_t reserved0;
	le64_t reserved1;
	uint8_t fork[FS_FORK_BYTES];
};
FORMAT_SIZE(struct disk_inode, 256);
FORMAT_OFFSET(struct disk_inode, size, 24);
FORMAT_OFFSET(struct disk_inode, atime_sec, 40);
FORMAT_OFFSET(struct disk_inode, parent, 88);
FORMAT_OFFSET(struct disk_inode, xattr_block, 104);
FORMAT_OFFSET(struct disk_inode, fork, 128);

struct inode_block {
	struct block_header header;     /* owner: AG number */
	le32_t used_mask;               /* bit per slot: in use */
	uint8_t reserved[256 - 52];
	struct disk_inode inode[FS_INODES_PER_BLOCK];
};
FORMAT_SIZE(struct inode_block, 4096);
FORMAT_OFFSET(struct inode_block, inode, 256);

/* ---- trees: extents of a file, entries of a directory ---- */
struct fork_tree {
	le64_t root;                    /* block number; its level is inode.fork_level */
};
enum { FS_NODE_BYTES = 4032, FS_TREE_LEVEL_MAX = 7 };
struct tree_node {
	struct block_header header;     /* owner: inode number */
	le16_t level;                   /* 0: leaf */
	le16_t count;                   /* records, at least 1 except in a root leaf */
	le16_t bytes;                   /* of the payload in use */
	le16_t reserved0;
	le64_t reserved1;
	uint8_t payload[FS_NODE_BYTES];
};
FORMAT_SIZE(struct tree_node, 4096);
FORMAT_OFFSET(struct tree_node, level, 48);
FORMAT_OFFSET(struct tree_node, payload, 64);

/* Record of an inner node: child i holds keys k with key[i] <= k < key[i+1]; key[0] of the leftmost path is 0. */
struct tree_pointer {
	le64_t key;
	le64_t child;                   /* block number */
};
FORMAT_SIZE(struct tree_pointer, 16);

/* Leaf record of an extent tree, and the fork's extents. Sorted by logical, never overlapping. */
enum { EXTENT_UNWRITTEN = 1 << 0 };
struct disk_extent {
	le64_t logical;                 /* first block of the file; the tree's key */
	le64_t physical;                /* first block on the device */
	le32_t length;                  /* blocks, 1.. */
	le32_t flags;                   /* EXTENT_UNWRITTEN: reads as zero */
};
FORMAT_SIZE(struct disk_extent, 24);

/* Leaf record of a directory tree, and of an inline directory: sorted by key, padded to a multiple of 8 bytes. */
struct disk_dirent {
	le64_t key;                     /* readdir cookie: hash (47 bits, never 0) << 16 | collision number */
	le64_t ino;
	uint8_t name_length;            /* 1..255 */
	uint8_t type;                   /* DT_* */
	char name[];                    /* not terminated */
};
enum { FS_DIRENT_FIXED = 18, FS_DIRENT_MAX = (FS_DIRENT_FIXED + FS_NAME_MAX + 7) / 8 * 8 };
_Static_assert(offsetof(struct disk_dirent, name) == FS_DIRENT_FIXED, "on-disk offset of disk_dirent.name");
static inline unsigned dirent_bytes(unsigned name_length) { return (FS_DIRENT_FIXED + name_length + 7) / 8 * 8; }
/* key: XXH3 (64 bits, seed superblock.hash_seed) of the name, shifted right by 17; 0 is replaced by 1. */
enum { FS_COOKIE_DOT = 1, FS_COOKIE_DOTDOT = 2, FS_COLLISION_BITS = 16 };

/* ---- extended attributes ---- */
enum xattr_namespace { XATTR_USER = 1, XATTR_TRUSTED = 2, XATTR_SECURITY = 3, XATTR_SYSTEM = 4 };
enum { XATTR_EXTERNAL = 1 << 0 };      /* value stands in value blocks, whose numbers follow the name */
struct disk_xattr {
	uint8_t namespace;
	uint8_t name_length;            /* without the prefix, 1..255 */
	uint8_t flags;                  /* XATTR_EXTERNAL */
	uint8_t reserved0;
	le32_t value_length;            /* bytes, 0..65536 */
	char name[];                    /* padded to 8, then the value, padded to 8, or le64 block numbers */
};
enum { FS_XATTR_FIXED = 8, FS_XATTR_VALUE_MAX = 65536, FS_XATTR_VALUE_BLOCK_BYTES = 4032, FS_XATTR_INTERNAL_MAX = 1024 };
/* Values longer than FS_XATTR_INTERNAL_MAX stand in value blocks. */
struct xattr_block {
	struct block_header header;     /* owner: inode number */
	le64_t next;                    /* next xattr block of this inode, 0: none */
	le16_t bytes;                   /* of records in use */
	le16_t count;
	le32_t reserved0;
	uint8_t records[4032];
};
FORMAT_SIZE(struct xattr_block, 4096);
struct xattr_value_block {
	struct block_header header;     /* owner: inode number */
	le32_t bytes;                   /* in this block */
	le32_t index;                   /* place in the value, counted in blocks */
	le64_t reserved0;
	uint8_t data[FS_XATTR_VALUE_BLOCK_BYTES];
};
FORMAT_SIZE(struct xattr_value_block, 4096);

/* ---- orphans: unlinked but open inodes, and truncates that are not finished ---- */
enum { FS_ORPHANS_PER_BLOCK = 504 };
struct orphan_block {
	struct block_header header;     /* owner: AG number */
	le64_t next;                    /* 0: none */
	le32_t count;                   /* entries that are not 0 */
	le32_t reserved0;
	le64_t inode[FS_ORPHANS_PER_BLOCK]; /* inode numbers of this AG, in any place, 0: empty. nlink 0: free it; otherwise
	                                       free what lies past its size */
};
FORMAT_SIZE(struct orphan_block, 4096);

/* ---- journal ---- */
/* A group starts at a block of the ring and fills whole blocks (the rest is zero); it may run over the end of the ring
 * to its start. crc: crc32c of the length bytes with the field taken as zero. */
struct journal_group {
	le32_t magic;                   /* FS_JOURNAL_MAGIC */
	le32_t crc;
	le64_t journal_id;              /* superblock.journal_id */
	le64_t mount_generation;        /* of the mount that wrote it */
	le64_t sequence;                /* one more than the group before */
	le32_t previous_crc;            /* crc of the group before; of the first group of a journal: drawn by mkfs (state) */
	le32_t length;                  /* bytes, this header included, not rounded */
	le32_t records;
	le32_t reserved0;
	le64_t reserved1[2];
};
FORMAT_SIZE(struct journal_group, 64);
FORMAT_OFFSET(struct journal_group, previous_crc, 32);

/* After-image of a byte range. The data follows, padded to 8 bytes. The first record of a block in the replayed range is a
 * full image (offset 0, length 4096). header.crc and header.sequence of the image mean nothing: replay sets them. */
struct journal_record {
	le64_t block;
	le16_t offset;                  /* bytes within the block */
	le16_t length;                  /* bytes, 1..4096 */
	le32_t reserved0;
};
FORMAT_SIZE(struct journal_record, 16);

/* ---- places ---- */
static inline uint64_t ag_first_block(const struct fs_super *super, uint32_t ag)
{
	return le64_get(super->first_ag_block) + (uint64_t)ag * le32_get(super->ag_blocks);
}
static inline uint32_t ag_block_count(const struct fs_super *super, uint32_t ag)
{
	return ag + 1 == le32_get(super->ag_count) ? le32_get(super->last_ag_blocks) : le32_get(super->ag_blocks);
}
/* Blocks at the start of an AG that are never free: header, superblock copy, maps. */
static inline uint32_t ag_fixed_blocks(const struct fs_super *super)
{
	return FS_AG_MAPS_FIRST + 3 * le32_get(super->map_blocks);
}
static inline bool ag_has_super_copy(uint32_t ag) { return ag && !(ag & (ag - 1)); }

#endif
