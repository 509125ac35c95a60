/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Extended attributes: records at the end of the inode's fork while there is room, then in a chain of xattr blocks; a
 * record stands whole in the fork or in one block. Values over FS_XATTR_INTERNAL_MAX stand in blocks of their own that
 * the record names. The operations on them are in fs.h.
 *
 * | xattr.c         names, searching, get and list   | xattr_drop.c  an inode that goes loses them all      |
 * | xattr_change.c  set and remove as a change       | xattr_seed.c  the ACLs that an inode is made with    |
 * | xattr_op.c      set and remove of fs.h           | xattr_acl.c   ACLs and the mode                      |
 *
 * Call under inode->lock, on the owner; changes under the exclusive one.
 */
#ifndef LANEFS_FS_XATTR_H
#define LANEFS_FS_XATTR_H

#include "fs/inode.h"

enum {
	/* A fork that becomes a tree needs room for its root. */
	XATTR_FORK_BYTES_MAX = FS_FORK_BYTES - sizeof(struct fork_tree),
	XATTR_CHAIN_MAX = 64,           /* blocks; more is damage, and -ENOSPC to one who would add a block */
	XATTR_VALUE_BLOCKS_MAX = (FS_XATTR_VALUE_MAX + FS_XATTR_VALUE_BLOCK_BYTES - 1) / FS_XATTR_VALUE_BLOCK_BYTES,
	/* 511 entries: what Linux on 4 KiB pages carries over FUSE. More: -E2BIG. */
	XATTR_ACL_BYTES_MAX = 4 + 511 * 8,
	XATTR_ACL_VALUE_BLOCKS_MAX = (XATTR_ACL_BYTES_MAX + FS_XATTR_VALUE_BLOCK_BYTES - 1) / FS_XATTR_VALUE_BLOCK_BYTES,
	XATTR_ACL_MODE_BITS = 0777,
};

struct xattr_name {
	enum xattr_namespace namespace;
	const char *bytes;              /* behind the prefix */
	unsigned length;                /* 1..255 */
};
#define XATTR_CAPABILITY ((struct xattr_name){.namespace = XATTR_SECURITY, .bytes = "capability", .length = 10})
#define XATTR_ACL_ACCESS "posix_acl_access"
#define XATTR_ACL_DEFAULT "posix_acl_default"
#define XATTR_ACL_NAME(text) \
	((struct xattr_name){.namespace = XATTR_SYSTEM, .bytes = (text), .length = sizeof(text) - 1})
/* From a name with prefix. -EOPNOTSUPP: another prefix, or a system. name that is no ACL; -EINVAL: nothing behind it;
 * -ERANGE. */
int xattr_name_parse(struct fs_name name, struct xattr_name *out) MUST_CHECK;

/* False: the inode has none at all, known without a wait. */
static inline bool xattr_any(const struct inode *inode)
{
	return inode->disk.xattr_bytes || le64_get(inode->disk.xattr_block);
}
/* *out_length: bytes of the value. size 0 asks for it. -ENODATA, -ERANGE (size too small). */
MAY_WAIT int xattr_get(struct inode *inode, struct xattr_name name, void *value, uint32_t size,
	uint32_t *out_length) MUST_CHECK;

/* Sets or removes one attribute, as a change of the part of the inode's owner: pins and logs the inode, ctime is @now.
 * One per inode and transaction; together with another change of the fork only when it removes. Errors of prepare:
 * -EEXIST, -ENODATA (flags; remove), -ENOSPC, and -E2BIG when @blocks is too few. */
struct xattr_change {
	struct change change;
	struct inode *inode;
	struct xattr_name name;         /* name and value must stay valid until apply */
	bool remove;
	bool missing_ok;                /* remove: nothing happens when it is not there */
	const void *value;
	uint32_t length;                /* 0..FS_XATTR_VALUE_MAX */
	int flags;                      /* XATTR_CREATE, XATTR_REPLACE */
	unsigned blocks;                /* reserved for this change: XATTR_SMALL_BLOCKS or XATTR_LARGE_BLOCKS */
	uint32_t mode;                  /* not 0: the inode's mode from then on */
	struct timespec now;
	/* ---- private ---- */
	bool nothing;
	bool old_exists, old_block_freed;
	struct buf *old, *before;       /* block of the old record (NULL: fork), block in front of it (NULL: inode) */
	unsigned old_at, old_bytes;
	struct buf *old_value[XATTR_VALUE_BLOCKS_MAX]; /* those that are cached */
	unsigned old_value_count;
	struct buf *to;                 /* block of the new record (NULL: fork) */
	bool to_fresh;
	unsigned new_bytes;
	struct buf *new_value[XATTR_VALUE_BLOCKS_MAX];
	unsigned new_value_count;
	int blocks_delta;
};
void xattr_change_init(struct xattr_change *change, struct inode *inode, struct xattr_name name, struct timespec now);
/* For tx_begin. Small: neither the old nor the new value has blocks of its own. */
enum { XATTR_SMALL_BLOCKS = 9, XATTR_LARGE_BLOCKS = JOURNAL_TX_BLOCKS_MAX };

/* An inode that is being freed loses all its attributes, in transactions of its own. No lock is held; the caller has a
 * reference, and nobody else works on the inode. */
MAY_WAIT int xattr_drop_all(struct inode *inode) MUST_CHECK;

/* ACLs are bytes of system.posix_acl_*; -EINVAL: it is none. All of these are pure. */
/* What an access ACL says of the permission bits; *out_only_mode: it says nothing else, and need not be kept. */
int xattr_acl_mode(const void *value, uint32_t length, uint32_t *out_bits, bool *out_only_mode) MUST_CHECK;
/* Makes a directory's default ACL into the access ACL of a new inode: what the creator asks for in *mode is cut down to
 * what the ACL allows, and the other way round. */
int xattr_acl_inherit(void *value, uint32_t length, uint32_t *mode, bool *out_only_mode) MUST_CHECK;
/* An access ACL follows a chmod. */
int xattr_acl_chmod(void *value, uint32_t length, uint32_t mode) MUST_CHECK;

/* ACLs that a new inode is made with: part of the change that makes it (struct inode_create_change). The fork takes
 * those that fit, a first xattr block the others. Add them, access ACL first; values stay the caller's until apply. */
enum { XATTR_SEEDS_MAX = 2 };
struct xattr_seed {
	unsigned count;
	struct xattr_seed_value {
		struct xattr_name name;
		const void *value;
		uint32_t length;        /* up to XATTR_ACL_BYTES_MAX */
		/* ---- private ---- */
		bool in_fork;
		struct buf *blocks[XATTR_ACL_VALUE_BLOCKS_MAX];
	} values[XATTR_SEEDS_MAX];
	/* ---- private ---- */
	struct buf *chain;              /* NULL: all are in the fork */
};
void xattr_seed_add(struct xattr_seed *seed, struct xattr_name name, const void *value, uint32_t length);
/* True: nothing but the inode is needed. Else XATTR_SEED_BLOCKS more are, for tx_begin. */
bool xattr_seed_in_fork(const struct xattr_seed *seed);
enum { XATTR_SEED_BLOCKS = 3 * (1 + XATTR_SEEDS_MAX * XATTR_ACL_VALUE_BLOCKS_MAX) }; /* each with its map and header */
/* In prepare and apply of the change that makes @ino, whose fork has no content. -ENOSPC and others as tx_alloc. */
MAY_WAIT int xattr_seed_prepare(struct tx_part *part, struct xattr_seed *seed, uint64_t ino) MUST_CHECK;
void xattr_seed_apply(struct tx_part *part, struct xattr_seed *seed, struct disk_inode *disk);

/* ---- for the files of xattrs ---- */

/* One stretch of records after another: the fork's, then each block's. */
struct xattr_area {
	const uint8_t *records;         /* NULL: the end */
	unsigned bytes;
	struct buf *buf;                /* NULL: the fork */
	unsigned index;                 /* 0: the fork */
};
void xattr_area_first(struct inode *inode, struct xattr_area *area);
MAY_WAIT int xattr_area_next(struct inode *inode, struct xattr_area *area) MUST_CHECK; /* puts the old one */
void xattr_area_put(struct inode *inode, struct xattr_area *area);
/* Offset of the attribute's record; the area's bytes: it is not there. */
unsigned xattr_area_find(const struct xattr_area *area, struct xattr_name name);
static inline const struct disk_xattr *xattr_record(const struct xattr_area *area, unsigned at)
{
	return (const struct disk_xattr *)(area->records + at);
}
static inline unsigned xattr_value_blocks(uint32_t length)
{
	return length > FS_XATTR_INTERNAL_MAX ? (unsigned)div_round_up(length, FS_XATTR_VALUE_BLOCK_BYTES) : 0;
}
static inline unsigned xattr_bytes(unsigned name_length, uint32_t value_length)
{
	const unsigned blocks = xattr_value_blocks(value_length);
	const unsigned payload = blocks ? 8 * blocks : (unsigned)align_up(value_length, 8);
	return FS_XATTR_FIXED + (unsigned)align_up(name_length, 8) + payload;
}
static inline unsigned xattr_record_bytes(const struct disk_xattr *record)
{
	return xattr_bytes(record->name_length, le32_get(record->value_length));
}
/* The value, or the numbers of its blocks. */
static inline const void *xattr_payload(const struct disk_xattr *record)
{
	return record->name + align_up(record->name_length, 8);
}
static inline uint8_t *xattr_fork_records(struct inode *inode)
{
	return inode->disk.fork + FS_FORK_BYTES - inode->disk.xattr_bytes;
}
/* Writes a record to @at (xattr_bytes long); @blocks: those of its value, when it has any. */
struct xattr_content {
	struct xattr_name name;
	const void *value;
	uint32_t length;
	struct buf *const *blocks;
};
void xattr_record_write(const struct xattr_content *content, uint8_t *at);
/* Fills the value blocks, freshly made and pinned. */
void xattr_value_write(struct tx_part *part, const struct xattr_content *content);
/* Where blocks for an inode's attributes are best taken from. */
uint64_t xattr_goal(const struct fs *fs, uint64_t ino);
/* A value block that will be freed: named, and pinned (*out) when it is cached, else *out is NULL. */
MAY_WAIT int xattr_free_block(struct tx_part *part, struct inode *inode, uint64_t block, enum block_type type,
	struct buf **out) MUST_CHECK;

#endif
