/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Making inodes and names. A file is made in the AG of its directory, a directory in an AG that has its turn, so that
 * trees spread and the files of one directory stay together. When the AG's owner has no room, the other owners are
 * tried.
 *
 * The target of a symlink that does not fit the inode stands in one data block, written before the transaction.
 *
 * ACLs that the directory hands down mostly fit the inode; the log for more blocks is reserved only when they are found
 * not to (-E2BIG from the first try).
 */
#include <sys/stat.h>

#include "fs/inode_internal.h"
#include "fs/namei.h"
#include "fs/xattr.h"

struct create_op {
	struct inode_lock parent;
	struct inode_create_change inode;
	struct dir_change entry;
	struct xattr_seed seed;
	struct run target;              /* block of a long symlink; count 0: none */
	uint32_t parent_flags;
	struct timespec now;
};
_Static_assert(sizeof(struct create_op) <= OP_BYTES, "operation memory");
enum {
	CREATE_BLOCKS = DIR_CHANGE_BLOCKS + INODE_CREATE_BLOCKS + 3,
	CREATE_SEED_BLOCKS = CREATE_BLOCKS + XATTR_SEED_BLOCKS, /* ACLs outside the inode */
};
_Static_assert((int)CREATE_SEED_BLOCKS <= (int)JOURNAL_TX_BLOCKS_MAX, "reservation");

struct create_call {
	struct fs *fs;
	struct owner *owner;            /* of the parent */
	struct op *op;
	uint64_t parent;
	const struct fs_create *what;
	const struct fs_cred *cred;
};

static int create_check(const struct fs *fs, const struct fs_create *what)
{
	int error = fs_may_begin(fs);
	const uint32_t type = what->mode & S_IFMT;
	if (!error && what->name.length)
		error = namei_check_name(what->name);
	if (error)
		return error;
	if (what->name.length && (namei_is_dot(what->name) || namei_is_dotdot(what->name)))
		return -EEXIST;
	if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFIFO && type != S_IFSOCK &&
		type != S_IFCHR && type != S_IFBLK)
		return -EINVAL;
	if (!what->name.length && type != S_IFREG)
		return -EINVAL;
	if (type == S_IFLNK && !what->target_length)
		return -EINVAL;
	return type == S_IFLNK && what->target_length > FS_SYMLINK_MAX ? -ENAMETOOLONG : 0;
}

/* ---- where ---- */

struct spread_call {
	struct owner *owner;
	uint32_t ag;
};

static MAY_WAIT int spread_here(void *arg)
{
	struct spread_call *call = arg;
	call->ag = alloc_spread_ag(call->owner);
	return 0;
}

/* The AG to try at the @attempt-th time. */
static MAY_WAIT uint32_t choose_ag(const struct create_call *call, unsigned attempt)
{
	struct fs *fs = call->fs;
	if (!S_ISDIR(call->what->mode) && !attempt)
		return inode_ag(fs, call->parent);
	/* With fewer AGs than reactors some own nothing. */
	const unsigned owners = MIN(fs->owner_count, atomic_load(&fs->open_ag_count));
	struct inode_table *table = call->owner->inodes;
	const unsigned turn =
		S_ISDIR(call->what->mode) && !attempt ? table->create_turn++ : table->create_turn + attempt;
	struct spread_call spread = {.owner = fs->owners[turn % owners]};
	reactor_call(spread.owner->reactor, spread_here, &spread);
	return spread.ag;
}

/* ---- what ---- */

static void fill_symlink(struct disk_inode *disk, const struct create_op *create, const struct fs_create *what)
{
	disk->size = le64_set(what->target_length);
	if (!create->target.count) {
		disk->format = FORK_INLINE;
		disk->fork_bytes = (uint8_t)what->target_length;
		memcpy(disk->fork, what->target, what->target_length);
		return;
	}
	disk->format = FORK_EXTENTS;
	disk->fork_count = le16_set(1);
	disk->blocks = le64_set(1);
	struct disk_extent *extent = (struct disk_extent *)disk->fork;
	*extent = (struct disk_extent){.physical = le64_set(create->target.block), .length = le32_set(1)};
}

static void fill_inode(struct create_op *create, const struct create_call *call)
{
	const struct fs_create *what = call->what;
	struct disk_inode *disk = &create->inode.disk;
	disk->nlink = le32_set(S_ISDIR(what->mode) ? 2 : what->name.length ? 1 : 0);
	disk->atime_sec = disk->mtime_sec = disk->ctime_sec = disk->btime_sec = le64_set((uint64_t)create->now.tv_sec);
	disk->atime_nsec = disk->mtime_nsec = disk->ctime_nsec = disk->btime_nsec =
		le32_set((uint32_t)create->now.tv_nsec);
	if (S_ISLNK(what->mode))
		fill_symlink(disk, create, what);
	else if (S_ISREG(what->mode) || S_ISDIR(what->mode))
		disk->format = FORK_INLINE;
	if (S_ISDIR(what->mode))
		disk->parent = le64_set(call->parent);
	if (S_ISCHR(what->mode) || S_ISBLK(what->mode))
		disk->rdev_or_entries = le64_set((uint64_t)what->rdev_major << 32 | what->rdev_minor);
}

/* Allocates and writes the block of a long target. */
static MAY_WAIT int write_target(const struct create_call *call, struct create_op *create)
{
	const struct fs_create *what = call->what;
	create->target.count = 0;
	if (!S_ISLNK(what->mode) || what->target_length <= FS_FORK_BYTES)
		return 0;
	uint8_t *block = op_bounce(call->op, 0);
	if (!block)
		return -ENOMEM;
	struct run run;
	int error = alloc_run(call->owner, inode_block_of(call->fs, call->parent), 1, 1, 0, &run);
	if (error)
		return error;
	memset(block, 0, FS_BLOCK_SIZE);
	memcpy(block, what->target, what->target_length);
	error = bdev_write(call->owner->channel, block, run.block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE, 0);
	if (error)
		alloc_release(call->owner, run);
	else
		create->target = run;
	return error == -ENODEV ? -EIO : error;
}

/* ---- the transaction ---- */

static MAY_WAIT int create_inherit(const struct create_call *call, struct create_op *create, unsigned blocks)
{
	create->seed.count = 0;
	create->seed.chain = NULL;
	inode_create_change_init(&create->inode);
	const int error = namei_inherit(call->op, create->parent.inode, call->what->mode, call->cred,
		&create->inode.disk, &create->seed);
	if (error)
		return error;
	create->inode.seed = create->seed.count ? &create->seed : NULL;
	return xattr_seed_in_fork(&create->seed) || blocks == CREATE_SEED_BLOCKS ? 0 : -E2BIG;
}

/* Hangs the changes on the transaction; the target's block goes over to it. */
static int create_changes(struct tx *tx, const struct create_call *call, struct create_op *create, uint32_t ag)
{
	const struct fs_create *what = call->what;
	create->inode.ag = ag;
	create->inode.orphan = !what->name.length;
	create->inode.lookup = true;
	fill_inode(create, call);
	if (create->target.count) {
		const int error = tx_adopt(tx_home(tx), create->target);
		if (error)
			return error;
		create->target.count = 0;
		tx->maps_data = true;
	}
	struct tx_part *part = tx_part(tx, owner_of_ag(call->fs, ag));
	if (!part)
		return -ENOMEM;
	tx_change(part, &create->inode.change);
	if (!what->name.length)
		return 0;
	dir_change_init(&create->entry, DIR_ADD, create->parent.inode, what->name, 0, namei_dirent_type(what->mode),
		create->now);
	create->entry.ino_from = &create->inode.ino;
	create->entry.nlink_delta = S_ISDIR(what->mode) ? 1 : 0;
	tx_change(tx_home(tx), &create->entry.change);
	return 0;
}

static MAY_WAIT int create_in_ag(
	const struct create_call *call, struct create_op *create, uint32_t ag, unsigned blocks)
{
	int error = write_target(call, create);
	if (error)
		return error;
	struct tx *tx;
	error = tx_begin(call->owner, blocks, &tx);
	if (!error) {
		create->now = fs_now();
		create->parent = (struct inode_lock){.ino = call->parent, .exclusive = call->what->name.length};
		error = inode_lock_many(call->fs, &create->parent, 1);
		if (!error) {
			error = namei_check_directory(create->parent.inode, NAMEI_ADD);
			if (!error)
				error = create_inherit(call, create, blocks);
			if (!error)
				error = create_changes(tx, call, create, ag);
			if (!error)
				error = tx_prepare(tx);
			if (!error) {
				create->parent_flags = le32_get(create->parent.inode->disk.flags);
				tx_apply(tx);
			}
			inode_unlock_many(call->fs, &create->parent, 1);
		}
		tx_end(tx);
	}
	if (create->target.count)
		alloc_release(call->owner, create->target);
	return error;
}

static MAY_WAIT int create_anywhere(const struct create_call *call, struct create_op *create)
{
	for (;;) {
		int error = -ENOSPC;
		for (unsigned attempt = 0; attempt <= call->fs->owner_count && error == -ENOSPC; attempt++) {
			const uint32_t ag = choose_ag(call, attempt);
			error = create_in_ag(call, create, ag, CREATE_BLOCKS);
			if (error == -E2BIG)
				error = create_in_ag(call, create, ag, CREATE_SEED_BLOCKS);
		}
		if (error != -ENOSPC || !op_retry_enospc(call->op))
			return error;
	}
}

int fs_create(struct fs *fs, uint64_t parent, const struct fs_create *create, const struct fs_cred *cred,
	struct fs_entry *out)
{
	int error = create_check(fs, create);
	if (error)
		return error;
	struct owner *owner = owner_here(fs);
	struct op *op = op_begin(owner);
	if (!op)
		return -ENOMEM;
	struct create_op *memory = OP_MEMORY(op, struct create_op);
	const struct create_call call = {
		.fs = fs, .owner = owner, .op = op, .parent = parent, .what = create, .cred = cred};
	error = create_anywhere(&call, memory);
	if (!error) {
		struct disk_inode *disk = &memory->inode.disk;
		out->ino = memory->inode.ino;
		out->generation = memory->inode.generation;
		disk->generation = le32_set(out->generation);
		inode_disk_attr(disk, out->ino, &out->attr);
		error = namei_finish(owner, memory->parent_flags);
	}
	op_end(op);
	return error;
}

/* ---- link ---- */

struct link_op {
	struct inode_lock locks[2];     /* directory, inode */
	struct dir_change entry;
	struct link_change inode;
	uint32_t directory_flags;
};
_Static_assert(sizeof(struct link_op) <= OP_BYTES, "operation memory");

static MAY_WAIT int link_prepare_all(struct tx *tx, struct link_op *link, struct fs_name name, struct fs_entry *out)
{
	struct fs *fs = tx->fs;
	int error = namei_check_directory(link->locks[0].inode, NAMEI_ADD);
	if (error)
		return error;
	const uint32_t mode = namei_mode(fs, &link->locks[1]);
	if (S_ISDIR(mode))
		return -EPERM;
	const struct timespec now = fs_now();
	dir_change_init(
		&link->entry, DIR_ADD, link->locks[0].inode, name, link->locks[1].ino, namei_dirent_type(mode), now);
	tx_change(tx_home(tx), &link->entry.change);
	link_change_init(&link->inode, LINK_ADD, link->locks[1].inode, now);
	link->inode.entry = out;
	error = namei_add_change(tx, link->locks[1].ino, &link->inode.change);
	return error ? error : tx_prepare(tx);
}

static MAY_WAIT int link_once(struct fs *fs, struct link_op *link, struct fs_name name, struct fs_entry *out)
{
	struct tx *tx;
	int error = tx_begin(owner_here(fs), DIR_CHANGE_BLOCKS + LINK_CHANGE_BLOCKS, &tx);
	if (error)
		return error;
	error = inode_lock_many(fs, link->locks, 2);
	if (!error) {
		error = link_prepare_all(tx, link, name, out);
		if (!error) {
			link->directory_flags = le32_get(link->locks[0].inode->disk.flags);
			tx_apply(tx);
		}
		inode_unlock_many(fs, link->locks, 2);
	}
	tx_end(tx);
	return error;
}

int fs_link(struct fs *fs, uint64_t parent, struct fs_name name, uint64_t ino, struct fs_entry *out)
{
	int error = namei_check_name(name);
	if (!error && (namei_is_dot(name) || namei_is_dotdot(name)))
		error = -EEXIST;
	if (!error)
		error = fs_may_begin(fs);
	if (error)
		return error;
	if (parent == ino)
		return -EPERM;
	struct op *op = op_begin(owner_here(fs));
	if (!op)
		return -ENOMEM;
	struct link_op *link = OP_MEMORY(op, struct link_op);
	do {
		link->locks[0] = (struct inode_lock){.ino = parent, .exclusive = true};
		link->locks[1] = (struct inode_lock){.ino = ino, .exclusive = true};
		error = link_once(fs, link, name, out);
	} while (error == -ENOSPC && op_retry_enospc(op));
	if (!error)
		error = namei_finish(op->owner, link->directory_flags);
	op_end(op);
	return error;
}
