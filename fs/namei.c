/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Looking names up. The directory stays locked (shared) while its entry's inode is asked for attributes and gets its
 * lookup count, so the entry, and with it the inode, cannot go meanwhile.
 */
#include "fs/namei.h"

#include <dirent.h>

#include "fs/inode_internal.h"
#include "fs/scrub.h"

int namei_check_name(struct fs_name name)
{
	if (!name.length)
		return -EINVAL;
	if (name.length > FS_NAME_MAX)
		return -ENAMETOOLONG;
	return memchr(name.bytes, '/', name.length) || memchr(name.bytes, '\0', name.length) ? -EINVAL : 0;
}

bool namei_is_dot(struct fs_name name) { return name.length == 1 && name.bytes[0] == '.'; }
bool namei_is_dotdot(struct fs_name name) { return name.length == 2 && name.bytes[0] == '.' && name.bytes[1] == '.'; }

int namei_check_directory(const struct inode *directory, enum namei_purpose purpose)
{
	if (!inode_is_dir(directory))
		return -ENOTDIR;
	if (!le32_get(directory->disk.nlink))
		return -ENOENT;
	const uint32_t flags = le32_get(directory->disk.flags);
	if (purpose != NAMEI_LOOK && flags & INODE_IMMUTABLE)
		return -EPERM;
	return purpose == NAMEI_REMOVE && flags & INODE_APPEND ? -EPERM : 0;
}

int namei_dangling(struct fs *fs, uint64_t directory)
{
	return fs_corrupt(fs, inode_block_of(fs, directory), "directory entry: it names an inode that does not exist");
}

unsigned namei_dirent_type(uint32_t mode) { return IFTODT(mode); }

/* ---- queries on any owner ---- */

static MAY_WAIT int query_locked(struct name_query *query, const struct inode *directory)
{
	const int error = namei_check_directory(directory, query->purpose);
	query->searched = !error;
	return error ? error : dir_lookup(directory, query->name, &query->found);
}

static MAY_WAIT int query_here(void *arg)
{
	struct name_query *query = arg;
	query->searched = false;
	if (query->locked)
		return query_locked(query, query->locked);
	struct inode *directory;
	int error = inode_get(owner_here(query->fs), query->directory, &directory);
	if (error)
		return error;
	fiber_rwlock_read(&directory->lock);
	error = directory->dead ? -ESTALE : query_locked(query, directory);
	fiber_rwlock_unread(&directory->lock);
	inode_put(directory);
	return error;
}

int namei_query(struct name_query *query)
{
	return reactor_call(fs_owner(query->fs, query->directory), query_here, query);
}

struct entry_query {
	struct fs *fs;
	uint64_t ino;
	struct fs_entry *out;
};

static void entry_fill(const struct inode *inode, struct fs_entry *out)
{
	out->ino = inode->ino;
	out->generation = le32_get(inode->disk.generation);
	inode_attr(inode, &out->attr);
}

static MAY_WAIT int entry_here(void *arg)
{
	struct entry_query *query = arg;
	struct inode *inode;
	int error = inode_get(owner_here(query->fs), query->ino, &inode);
	if (error)
		return error;
	error = inode_lookup_add(inode->owner, inode->ino, 1);
	if (!error)
		entry_fill(inode, query->out);
	inode_put(inode);
	return error;
}

int namei_entry(struct fs *fs, uint64_t ino, struct fs_entry *out)
{
	struct entry_query query = {.fs = fs, .ino = ino, .out = out};
	return reactor_call(fs_owner(fs, ino), entry_here, &query);
}

struct mode_query {
	const struct inode *inode;
	uint32_t mode;
};

static int mode_here(void *arg)
{
	struct mode_query *query = arg;
	query->mode = inode_mode(query->inode);
	return 0;
}

uint32_t namei_mode(struct fs *fs, const struct inode_lock *lock)
{
	struct mode_query query = {.inode = lock->inode};
	reactor_call_nowait(fs_owner(fs, lock->ino), mode_here, &query);
	return query.mode;
}

int namei_add_change(struct tx *tx, uint64_t ino, struct change *change)
{
	struct tx_part *part = tx_part(tx, owner_of_ino(tx->fs, ino));
	if (!part)
		return -ENOMEM;
	tx_change(part, change);
	return 0;
}

int namei_finish(struct owner *owner, uint32_t directory_flags)
{
	return op_finish(owner, directory_flags & INODE_DIRSYNC ? INODE_SYNC : directory_flags);
}

/* ---- links ---- */

static struct link_change *link_of(struct change *change) { return CONTAINER_OF(change, struct link_change, change); }

static int check_add(const struct inode *inode)
{
	const uint32_t nlink = le32_get(inode->disk.nlink);
	if (inode_is_dir(inode))
		return -EPERM;
	if (nlink >= FS_LINK_MAX)
		return -EMLINK;
	return !nlink && (inode->reaping || !inode->orphan) ? -ENOENT : 0;
}

static int check_drop(struct inode *inode)
{
	if (inode_is_dir(inode) && dir_entries(inode))
		return -ENOTEMPTY;
	if (!le32_get(inode->disk.nlink))
		return fs_corrupt(
			inode->owner->fs, inode_block_of(inode->owner->fs, inode->ino), "nlink: a name without a link");
	return 0;
}

/* The last link goes: it enters the orphan chain; the first comes (O_TMPFILE): it leaves. */
static bool crosses_zero(const struct link_change *link)
{
	const uint32_t nlink = le32_get(link->inode->disk.nlink);
	if (link->action == LINK_DROP)
		return (nlink == 1 || inode_is_dir(link->inode)) && !link->inode->orphan;
	return link->action == LINK_ADD && !nlink;
}

static MAY_WAIT int link_prepare(struct tx_part *part, struct change *change)
{
	struct link_change *link = link_of(change);
	struct inode *inode = link->inode;
	if (le32_get(inode->disk.flags) & (INODE_IMMUTABLE | INODE_APPEND))
		return -EPERM;
	int error = link->action == LINK_ADD ? check_add(inode) : link->action == LINK_DROP ? check_drop(inode) : 0;
	if (!error)
		error = inode_pin(part, inode);
	if (!error && link->entry)
		error = inode_lookup_reserve(part->owner);
	if (error)
		return error;
	link->uses_orphan = crosses_zero(link) && !(link->action == LINK_DROP && sabotage(SABOTAGE_NO_ORPHAN));
	if (link->uses_orphan) {
		orphan_change_init(&link->orphan, inode, link->action == LINK_DROP);
		error = link->orphan.change.prepare(part, &link->orphan.change);
	}
	if (error && link->entry)
		inode_lookup_unreserve(part->owner);
	return error;
}

static void link_cancel(struct tx_part *part, struct change *change)
{
	struct link_change *link = link_of(change);
	if (link->uses_orphan)
		link->orphan.change.cancel(part, &link->orphan.change);
	if (link->entry)
		inode_lookup_unreserve(part->owner);
}

static void link_apply(struct tx_part *part, struct change *change)
{
	struct link_change *link = link_of(change);
	struct inode *inode = link->inode;
	const uint32_t nlink = le32_get(inode->disk.nlink);
	if (link->action == LINK_ADD)
		inode->disk.nlink = le32_set(nlink + 1);
	else if (link->action == LINK_DROP)
		inode->disk.nlink = le32_set(inode_is_dir(inode) ? 0 : nlink - 1);
	if (link->new_parent)
		inode->disk.parent = le64_set(link->new_parent);
	inode_touch(inode, INODE_CTIME, link->now);
	if (link->uses_orphan)
		link->orphan.change.apply(part, &link->orphan.change);
	inode_log(part, inode);
	scrub_note_inode(part->tx->fs, inode->ino, &inode->disk, 0);
	if (link->action == LINK_DROP && !le32_get(inode->disk.nlink))
		inode_unlinked(inode);
	if (link->action == LINK_ADD)
		inode_linked(inode);
	if (!link->entry)
		return;
	inode_lookup_unreserve(part->owner);
	const int error = inode_lookup_add(part->owner, inode->ino, 1);
	assert(!error && "reserved");
	(void)error;
	entry_fill(inode, link->entry);
}

void link_change_init(struct link_change *change, enum link_action action, struct inode *inode, struct timespec now)
{
	*change = (struct link_change){
		.change = {.prepare = link_prepare, .apply = link_apply, .cancel = link_cancel},
		.inode = inode,
		.action = action,
		.now = now,
	};
}

/* ---- the operations ---- */

int fs_lookup(struct fs *fs, uint64_t parent, struct fs_name name, struct fs_entry *out)
{
	int error = namei_check_name(name);
	if (error)
		return error;
	if (namei_is_dot(name))
		return namei_entry(fs, parent, out);
	if (namei_is_dotdot(name))
		return fs_parent(fs, parent, out);
	struct inode *directory;
	error = inode_get(owner_here(fs), parent, &directory);
	if (error)
		return error;
	struct dir_found found;
	fiber_rwlock_read(&directory->lock);
	error = directory->dead ? -ESTALE : namei_check_directory(directory, NAMEI_LOOK);
	if (!error)
		error = dir_lookup(directory, name, &found);
	if (!error) {
		error = namei_entry(fs, found.ino, out);
		if (error == -ESTALE)
			error = namei_dangling(fs, parent);
	}
	fiber_rwlock_unread(&directory->lock);
	inode_put(directory);
	return error;
}

int fs_parent(struct fs *fs, uint64_t directory_ino, struct fs_entry *out)
{
	struct inode *directory;
	int error = inode_get(owner_here(fs), directory_ino, &directory);
	if (error)
		return error;
	fiber_rwlock_read(&directory->lock);
	error = directory->dead ? -ESTALE : namei_check_directory(directory, NAMEI_LOOK);
	if (!error)
		error = namei_entry(fs, le64_get(directory->disk.parent), out);
	fiber_rwlock_unread(&directory->lock);
	inode_put(directory);
	return error;
}
