/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * rename: up to four inodes (two directories, what moves, what it replaces or changes places with), on up to four
 * owners, in one transaction.
 *
 * No directory may become its own ancestor. A directory's parent changes only under one lock of the whole filesystem (a
 * fiber mutex on owner 0), taken behind tx_begin and before inode locks; so the walk from the new parent up to the
 * root, which takes no locks, sees a tree that stands still.
 */
#include <dirent.h>
#include <stdio.h>

#include "fs/inode_internal.h"
#include "fs/namei.h"

enum { LOCK_FROM_PARENT, LOCK_TO_PARENT, LOCK_MOVED, LOCK_OTHER, LOCK_COUNT };
enum { RENAME_BLOCKS = 2 * DIR_CHANGE_BLOCKS + 1 + LINK_CHANGE_BLOCKS, STALE_RETRIES = 8, DEPTH_MAX = 1 << 20 };
_Static_assert((int)RENAME_BLOCKS <= (int)JOURNAL_TX_BLOCKS_MAX, "reservation");
_Static_assert((int)DIR_RENAME_BLOCKS <= 2 * (int)DIR_CHANGE_BLOCKS, "reservation");

struct rename_op {
	struct fs *fs;
	struct name_query from, to;
	unsigned flags;                 /* RENAME_* */
	bool same_parent, to_exists, tree_locked;
	struct inode_lock locks[LOCK_COUNT];
	unsigned lock_count;
	struct link_change moved, other;
	union {
		struct dir_rename_change within; /* one directory */
		struct { struct dir_change from, to; } between;
	} entries;
	uint32_t directory_flags;
};
_Static_assert(sizeof(struct rename_op) <= OP_BYTES, "operation memory");

/* ---- the lock of the tree ---- */

static MAY_WAIT int tree_lock_here(void *arg)
{
	fiber_mutex_lock(arg);
	return 0;
}

static int tree_unlock_here(void *arg)
{
	fiber_mutex_unlock(arg);
	return 0;
}

static MAY_WAIT void tree_lock(struct rename_op *rename)
{
	struct owner *first = rename->fs->owners[0];
	reactor_call(first->reactor, tree_lock_here, &first->inodes->rename);
	rename->tree_locked = true;
}

static MAY_WAIT void tree_unlock(struct rename_op *rename)
{
	struct owner *first = rename->fs->owners[0];
	if (rename->tree_locked)
		reactor_call_nowait(first->reactor, tree_unlock_here, &first->inodes->rename);
	rename->tree_locked = false;
}

struct parent_query {
	struct fs *fs;
	uint64_t ino;
	uint64_t parent;
};

static MAY_WAIT int parent_here(void *arg)
{
	struct parent_query *query = arg;
	struct inode *inode;
	const int error = inode_get(owner_here(query->fs), query->ino, &inode);
	if (error)
		return error;
	query->parent = le64_get(inode->disk.parent);
	inode_put(inode);
	return 0;
}

/* -EINVAL when @ancestor is @ino or above it. Under the lock of the tree. */
static MAY_WAIT int check_not_above(struct fs *fs, uint64_t ancestor, uint64_t ino)
{
	struct parent_query query = {.fs = fs, .ino = ino};
	for (unsigned depth = 0; depth < DEPTH_MAX; depth++) {
		if (query.ino == ancestor)
			return -EINVAL;
		if (query.ino == FS_ROOT_INODE)
			return 0;
		const int error = reactor_call(fs_owner(fs, query.ino), parent_here, &query);
		if (error)
			return error == -ESTALE ? -ENOENT : error;
		query.ino = query.parent;
	}
	return fs_corrupt(fs, inode_block_of(fs, ino), "directory: it does not lead to the root");
}

/* ---- looking up ---- */

static bool moves_directory(const struct rename_op *rename)
{
	return !rename->same_parent && (rename->from.found.type == DT_DIR ||
		(rename->flags & RENAME_EXCHANGE && rename->to_exists && rename->to.found.type == DT_DIR));
}

static MAY_WAIT int look(struct rename_op *rename)
{
	int error = namei_query(&rename->from);
	if (error)
		return error;
	error = namei_query(&rename->to);
	rename->to_exists = !error;
	return error == -ENOENT && rename->to.searched ? 0 : error;
}

/* What can be said by the entries alone. 1: nothing to do. */
static int check_entries(const struct rename_op *rename)
{
	const struct dir_found *from = &rename->from.found, *to = &rename->to.found;
	if (rename->flags & RENAME_EXCHANGE)
		return !rename->to_exists ? -ENOENT : from->ino == to->ino ? 1 : 0;
	if (!rename->to_exists)
		return 0;
	if (rename->flags & RENAME_NOREPLACE)
		return -EEXIST;
	if (from->ino == to->ino)
		return 1; /* two names of one file: POSIX wants nothing to happen */
	if (from->type == DT_DIR)
		return to->type == DT_DIR ? 0 : -ENOTDIR;
	return to->type == DT_DIR ? -EISDIR : 0;
}

static MAY_WAIT int check_loops(struct rename_op *rename)
{
	int error = 0;
	if (rename->from.found.type == DT_DIR)
		error = check_not_above(rename->fs, rename->from.found.ino, rename->to.directory);
	if (!error && rename->flags & RENAME_EXCHANGE && rename->to.found.type == DT_DIR)
		error = check_not_above(rename->fs, rename->to.found.ino, rename->from.directory);
	return error;
}

static MAY_WAIT int lock_inodes(struct rename_op *rename)
{
	const uint64_t inos[LOCK_COUNT] = {rename->from.directory, rename->to.directory, rename->from.found.ino,
		rename->to.found.ino};
	rename->lock_count = rename->to_exists ? LOCK_COUNT : LOCK_COUNT - 1;
	for (unsigned i = 0; i < rename->lock_count; i++)
		rename->locks[i] = (struct inode_lock){.ino = inos[i], .exclusive = true};
	return inode_lock_many(rename->fs, rename->locks, rename->lock_count);
}

/* Looks again under the locks. *out_same: what was found before is still there. */
static MAY_WAIT int look_again(struct rename_op *rename, bool *out_same)
{
	const bool existed = rename->to_exists;
	const uint64_t from_ino = rename->from.found.ino, to_ino = rename->to.found.ino;
	rename->from.locked = rename->locks[LOCK_FROM_PARENT].inode;
	rename->to.locked = rename->locks[LOCK_TO_PARENT].inode;
	const int error = look(rename);
	rename->from.locked = rename->to.locked = NULL;
	*out_same = !error && existed == rename->to_exists && rename->from.found.ino == from_ino &&
		(!existed || rename->to.found.ino == to_ino);
	return error;
}

/* 0: everything is locked, and the entries are what they were. 1: there is nothing to do. */
static MAY_WAIT int find_and_lock(struct rename_op *rename)
{
	for (unsigned stale = 0;;) {
		int error = look(rename);
		if (!error)
			error = check_entries(rename);
		if (error)
			return error;
		if (moves_directory(rename)) {
			if (!rename->tree_locked) {
				tree_lock(rename);
				continue; /* look again: we have waited */
			}
			error = check_loops(rename);
			if (error)
				return error;
		}
		error = lock_inodes(rename);
		if (error == -ESTALE && ++stale < STALE_RETRIES)
			continue;
		if (error)
			return error == -ESTALE ? namei_dangling(rename->fs, rename->from.directory) : error;
		bool same;
		error = look_again(rename, &same);
		if (same)
			return 0;
		inode_unlock_many(rename->fs, rename->locks, rename->lock_count);
		if (error)
			return error;
	}
}

/* ---- the changes ---- */

static void change_within(struct tx *tx, struct rename_op *rename, struct timespec now)
{
	struct dir_rename_change *within = &rename->entries.within;
	const bool exchange = rename->flags & RENAME_EXCHANGE;
	dir_rename_change_init(within);
	within->directory = rename->locks[LOCK_FROM_PARENT].inode;
	within->from = rename->from.name;
	within->to = rename->to.name;
	within->ino = rename->from.found.ino;
	within->type = rename->from.found.type;
	within->replace = rename->to_exists;
	within->exchange = exchange;
	within->to_ino = rename->to_exists ? rename->to.found.ino : 0;
	within->to_type = rename->to_exists ? rename->to.found.type : 0;
	within->nlink_delta = rename->to_exists && !exchange && rename->to.found.type == DT_DIR ? -1 : 0;
	within->now = now;
	tx_change(tx_home(tx), &within->change);
}

static int change_between(struct tx *tx, struct rename_op *rename, struct timespec now)
{
	struct dir_change *from = &rename->entries.between.from, *to = &rename->entries.between.to;
	const struct dir_found *moved = &rename->from.found, *other = &rename->to.found;
	const bool exchange = rename->flags & RENAME_EXCHANGE;
	const int moved_links = moved->type == DT_DIR, other_links = rename->to_exists && other->type == DT_DIR;
	const bool replace = exchange && !sabotage(SABOTAGE_EXCHANGE_LOSES);
	dir_change_init(from, replace ? DIR_REPLACE : DIR_REMOVE, rename->locks[LOCK_FROM_PARENT].inode,
		rename->from.name, exchange ? other->ino : 0, exchange ? other->type : 0, now);
	from->nlink_delta = (exchange ? other_links : 0) - moved_links;
	tx_change(tx_home(tx), &from->change);
	dir_change_init(to, rename->to_exists ? DIR_REPLACE : DIR_ADD, rename->locks[LOCK_TO_PARENT].inode,
		rename->to.name, moved->ino, moved->type, now);
	to->nlink_delta = moved_links - other_links;
	return namei_add_change(tx, rename->to.directory, &to->change);
}

static int change_inodes(struct tx *tx, struct rename_op *rename, struct timespec now)
{
	const bool exchange = rename->flags & RENAME_EXCHANGE;
	link_change_init(&rename->moved, LINK_MOVE, rename->locks[LOCK_MOVED].inode, now);
	if (rename->from.found.type == DT_DIR && !rename->same_parent)
		rename->moved.new_parent = rename->to.directory;
	int error = namei_add_change(tx, rename->from.found.ino, &rename->moved.change);
	if (error || !rename->to_exists)
		return error;
	link_change_init(&rename->other, exchange ? LINK_MOVE : LINK_DROP, rename->locks[LOCK_OTHER].inode, now);
	if (exchange && rename->to.found.type == DT_DIR && !rename->same_parent)
		rename->other.new_parent = rename->from.directory;
	return namei_add_change(tx, rename->to.found.ino, &rename->other.change);
}

static MAY_WAIT int rename_locked(struct tx *tx, struct rename_op *rename)
{
	const struct timespec now = fs_now();
	int error = 0;
	if (rename->same_parent)
		change_within(tx, rename, now);
	else
		error = change_between(tx, rename, now);
	if (!error)
		error = change_inodes(tx, rename, now);
	if (!error)
		error = tx_prepare(tx);
	if (error)
		return error;
	rename->directory_flags = le32_get(rename->locks[LOCK_FROM_PARENT].inode->disk.flags);
	tx_apply(tx);
	return 0;
}

static MAY_WAIT int rename_once(struct rename_op *rename)
{
	struct fs *fs = rename->fs;
	struct tx *tx;
	int error = tx_begin(owner_here(fs), RENAME_BLOCKS, &tx);
	if (error)
		return error;
	tx->use_held_back = true;
	error = find_and_lock(rename);
	if (!error) {
		error = rename_locked(tx, rename);
		inode_unlock_many(fs, rename->locks, rename->lock_count);
	}
	tree_unlock(rename);
	tx_end(tx);
	return error;
}

static int rename_check(const struct fs *fs, struct fs_name from, struct fs_name to, unsigned flags)
{
	int error = fs_may_begin(fs);
	if (!error)
		error = namei_check_name(from);
	if (!error)
		error = namei_check_name(to);
	if (error)
		return error;
	if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE) ||
		(flags & RENAME_NOREPLACE && flags & RENAME_EXCHANGE))
		return -EINVAL;
	if (namei_is_dot(from) || namei_is_dotdot(from) || namei_is_dot(to) || namei_is_dotdot(to))
		return flags & RENAME_NOREPLACE ? -EEXIST : -EBUSY;
	return 0;
}

static struct fs_moved moved_directories(const struct rename_op *rename)
{
	return (struct fs_moved){.directory = {rename->moved.new_parent ? rename->from.found.ino : 0,
		rename->to_exists && rename->other.new_parent ? rename->to.found.ino : 0}};
}

int fs_rename(struct fs *fs, uint64_t from_parent, struct fs_name from, uint64_t to_parent, struct fs_name to,
	unsigned flags, struct fs_moved *out_moved)
{
	if (out_moved)
		*out_moved = (struct fs_moved){.directory = {0}};
	int error = rename_check(fs, from, to, flags);
	if (error)
		return error;
	struct op *op = op_begin(owner_here(fs));
	if (!op)
		return -ENOMEM;
	struct rename_op *rename = OP_MEMORY(op, struct rename_op);
	rename->fs = fs;
	rename->flags = flags;
	rename->same_parent = from_parent == to_parent;
	rename->from = (struct name_query){.fs = fs, .directory = from_parent, .name = from, .purpose = NAMEI_REMOVE};
	rename->to = (struct name_query){.fs = fs, .directory = to_parent, .name = to, .purpose = NAMEI_ADD};
	do {
		error = rename_once(rename);
	} while (error == -ENOSPC && op_retry_enospc(op));
	if (!error && out_moved)
		*out_moved = moved_directories(rename);
	if (!error)
		error = namei_finish(op->owner, rename->directory_flags);
	op_end(op);
	return error > 0 ? 0 : error;
}
