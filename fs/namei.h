/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the operations on names. They run on the owner of their (first) directory; what is on other owners is asked
 * there.
 *
 *   namei.c         lookup, and what all of them need      namei_remove.c   unlink, rmdir
 *   namei_create.c  create, link                           namei_rename.c   rename
 *   namei_inherit.c what a directory hands down            namei_readdir.c  readdir
 *
 * A changing operation looks its names up, locks all inodes concerned, looks up again, and starts again when the world
 * has changed in between. Entries are changed by struct dir_change, the inodes that they name by struct link_change.
 */
#ifndef LANEFS_FS_NAMEI_H
#define LANEFS_FS_NAMEI_H

#include "fs/dir.h"
#include "fs/op.h"

/* -EINVAL, -ENAMETOOLONG. "." and ".." pass. */
int namei_check_name(struct fs_name name) MUST_CHECK;
bool namei_is_dot(struct fs_name name);
bool namei_is_dotdot(struct fs_name name);

/* Whether entries may be looked up, added or removed: -ENOTDIR, -ENOENT (removed), -EPERM (flags). Under the lock. */
enum namei_purpose { NAMEI_LOOK, NAMEI_ADD, NAMEI_REMOVE };
int namei_check_directory(const struct inode *directory, enum namei_purpose purpose) MUST_CHECK;

/* Looks a name up in a directory of any owner. */
struct name_query {
	struct fs *fs;
	uint64_t directory;
	struct inode *locked; /* the directory, when the caller has it locked; NULL: locked shared by the query */
	struct fs_name name;
	enum namei_purpose purpose;
	bool searched;                  /* the directory is fit to be searched: -ENOENT means the name */
	struct dir_found found;
};
MAY_WAIT int namei_query(struct name_query *query) MUST_CHECK;
/* Attributes of an inode of any owner, and one lookup count on it. */
MAY_WAIT int namei_entry(struct fs *fs, uint64_t ino, struct fs_entry *out) MUST_CHECK;
/* File type and flags of an inode that the caller has locked, whoever owns it. */
MAY_WAIT uint32_t namei_mode(struct fs *fs, const struct inode_lock *lock);

/* What happens to an inode when an entry that names it comes, goes or moves. On the part of its owner, which alone
 * may look into it. prepare: -EPERM (flags; a directory gets no second name), -EMLINK, -ENOTEMPTY, -ENOENT (being
 * freed). */
enum link_action { LINK_ADD, LINK_DROP, LINK_MOVE };
struct link_change {
	struct change change;
	struct inode *inode;
	enum link_action action;
	uint64_t new_parent;            /* directories that move: not 0 */
	struct timespec now;
	struct fs_entry *entry;         /* not NULL: attributes afterwards, and one lookup count */
	/* ---- private ---- */
	bool uses_orphan;
	struct orphan_change orphan;
};
void link_change_init(struct link_change *change, enum link_action action, struct inode *inode, struct timespec now);
enum { LINK_CHANGE_BLOCKS = 1 + ORPHAN_CHANGE_BLOCKS };

/* What a new inode takes from its creator and its directory: mode and ids in @disk, ACLs in @seed (empty before), whose
 * values stand in bounce blocks of @op. Under the lock of the directory, on its owner. */
MAY_WAIT int namei_inherit(struct op *op, struct inode *directory, uint32_t wanted_mode, const struct fs_cred *cred,
	struct disk_inode *disk, struct xattr_seed *seed) MUST_CHECK;

/* Adds a change to the part of an inode's owner. */
int namei_add_change(struct tx *tx, uint64_t ino, struct change *change) MUST_CHECK;
/* op_finish for a directory. */
MAY_WAIT int namei_finish(struct owner *owner, uint32_t directory_flags) MUST_CHECK;
/* An entry names an inode that does not exist: logged, -EUCLEAN. */
int namei_dangling(struct fs *fs, uint64_t directory);
unsigned namei_dirent_type(uint32_t mode);

#endif
