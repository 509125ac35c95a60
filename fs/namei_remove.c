/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * unlink and rmdir: the entry goes, and the inode loses a link (a directory both of its own). What has no links left
 * enters the orphan chain in the same transaction and is reaped once nobody remembers it. Both work on a full
 * filesystem: they may use the space that is held back.
 */
#include <dirent.h>

#include "fs/namei.h"

struct remove_op {
	struct inode_lock locks[2];     /* directory, what the entry names */
	struct name_query query;
	struct dir_change entry;
	struct link_change inode;
	uint32_t directory_flags;
};
_Static_assert(sizeof(struct remove_op) <= OP_BYTES, "operation memory");
enum { REMOVE_BLOCKS = DIR_CHANGE_BLOCKS + LINK_CHANGE_BLOCKS, STALE_RETRIES = 8 };

static int type_check(const struct dir_found *found, bool want_directory)
{
	if (want_directory)
		return found->type == DT_DIR ? 0 : -ENOTDIR;
	return found->type == DT_DIR ? -EISDIR : 0;
}

/* Looks the name up and locks the directory and what was found. */
static MAY_WAIT int find_and_lock(struct fs *fs, struct remove_op *remove)
{
	struct name_query *query = &remove->query;
	for (unsigned stale = 0;;) {
		query->locked = NULL;
		int error = namei_query(query);
		if (error)
			return error;
		const struct dir_found first = query->found;
		remove->locks[0] = (struct inode_lock){.ino = query->directory, .exclusive = true};
		remove->locks[1] = (struct inode_lock){.ino = first.ino, .exclusive = true};
		error = inode_lock_many(fs, remove->locks, 2);
		if (error == -ESTALE && ++stale < STALE_RETRIES)
			continue; /* gone meanwhile: the next look says so */
		if (error)
			return error == -ESTALE ? namei_dangling(fs, query->directory) : error;
		query->locked = remove->locks[0].inode;
		error = namei_query(query);
		if (!error && query->found.ino == first.ino)
			return 0;
		inode_unlock_many(fs, remove->locks, 2);
		if (error)
			return error;
	}
}

static MAY_WAIT int remove_prepare(struct tx *tx, struct remove_op *remove, bool want_directory)
{
	const struct timespec now = fs_now();
	struct name_query *query = &remove->query;
	int error = type_check(&query->found, want_directory);
	if (error)
		return error;
	dir_change_init(&remove->entry, DIR_REMOVE, remove->locks[0].inode, query->name, 0, 0, now);
	remove->entry.nlink_delta = want_directory ? -1 : 0;
	tx_change(tx_home(tx), &remove->entry.change);
	link_change_init(&remove->inode, LINK_DROP, remove->locks[1].inode, now);
	error = namei_add_change(tx, remove->locks[1].ino, &remove->inode.change);
	return error ? error : tx_prepare(tx);
}

static MAY_WAIT int remove_once(struct fs *fs, struct remove_op *remove, bool want_directory)
{
	struct tx *tx;
	int error = tx_begin(owner_here(fs), REMOVE_BLOCKS, &tx);
	if (error)
		return error;
	tx->use_held_back = true;
	error = find_and_lock(fs, remove);
	if (!error) {
		error = remove_prepare(tx, remove, want_directory);
		if (!error) {
			remove->directory_flags = le32_get(remove->locks[0].inode->disk.flags);
			tx_apply(tx);
		}
		inode_unlock_many(fs, remove->locks, 2);
	}
	tx_end(tx);
	return error;
}

static MAY_WAIT int remove_name(struct fs *fs, uint64_t parent, struct fs_name name, bool want_directory)
{
	const int refused = fs_may_begin(fs);
	if (refused)
		return refused;
	struct op *op = op_begin(owner_here(fs));
	if (!op)
		return -ENOMEM;
	struct remove_op *remove = OP_MEMORY(op, struct remove_op);
	remove->query = (struct name_query){.fs = fs, .directory = parent, .name = name, .purpose = NAMEI_REMOVE};
	int error;
	do {
		error = remove_once(fs, remove, want_directory);
	} while (error == -ENOSPC && op_retry_enospc(op));
	if (!error)
		error = namei_finish(op->owner, remove->directory_flags);
	op_end(op);
	return error;
}

int fs_unlink(struct fs *fs, uint64_t parent, struct fs_name name)
{
	const int error = namei_check_name(name);
	if (error)
		return error;
	return namei_is_dot(name) || namei_is_dotdot(name) ? -EISDIR : remove_name(fs, parent, name, false);
}

int fs_rmdir(struct fs *fs, uint64_t parent, struct fs_name name)
{
	const int error = namei_check_name(name);
	if (error)
		return error;
	if (namei_is_dot(name))
		return -EINVAL;
	return namei_is_dotdot(name) ? -ENOTEMPTY : remove_name(fs, parent, name, true);
}
