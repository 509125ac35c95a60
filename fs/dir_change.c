/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changing directories. prepare copies the records of the fork or leaf that an entry belongs to, edits the copy, and
 * plans how it is to be put back; apply puts it back.
 *
 * A rename inside a directory edits two entries. In one leaf, or inline, that is one copy with both edits. In two
 * leaves it is two plans: the first only ever removes or replaces, the second only ever adds or replaces, and tree.h
 * says why these two can share a transaction.
 */
#include "fs/dir.h"

/* ---- records ---- */

static unsigned record_bytes(const uint8_t *record)
{
	return dirent_bytes(((const struct disk_dirent *)record)->name_length);
}

/* Offset of the record with this key, or of the one that it would stand in front of. */
static unsigned records_find(const struct dir_change *plan, uint64_t key)
{
	unsigned at = 0;

	while (at < plan->bytes && tree_record_key(plan->records + at) < key)
		at += record_bytes(plan->records + at);
	return at;
}

static void records_add(struct dir_change *plan, const struct dir_change *edit)
{
	const unsigned at = records_find(plan, edit->key);
	const unsigned added = dirent_bytes(edit->name.length);
	struct disk_dirent *dirent = (struct disk_dirent *)(plan->records + at);

	memmove(plan->records + at + added, plan->records + at, plan->bytes - at);
	memset(dirent, 0, added);
	dirent->key = le64_set(edit->key);
	dirent->ino = le64_set(edit->ino);
	dirent->name_length = (uint8_t)edit->name.length;
	dirent->type = (uint8_t)edit->type;
	memcpy(dirent->name, edit->name.bytes, edit->name.length);
	plan->bytes += added;
	plan->count++;
}

static void records_remove(struct dir_change *plan, const struct dir_change *edit)
{
	const unsigned at = records_find(plan, edit->key);
	const unsigned removed = record_bytes(plan->records + at);

	memmove(plan->records + at, plan->records + at + removed, plan->bytes - at - removed);
	plan->bytes -= removed;
	plan->count--;
}

static void records_ino(struct dir_change *plan, uint64_t key, uint64_t ino)
{
	((struct disk_dirent *)(plan->records + records_find(plan, key)))->ino = le64_set(ino);
}

static void records_replace(struct dir_change *plan, const struct dir_change *edit)
{
	records_ino(plan, edit->key, edit->ino);
	((struct disk_dirent *)(plan->records + records_find(plan, edit->key)))->type = (uint8_t)edit->type;
}

/* One edit of the copied records. -EUCLEAN: the entry that was found a moment ago does not stand where its key belongs.
 * */
static int records_edit(struct dir_change *plan, const struct dir_change *edit, uint64_t block)
{
	const unsigned at = records_find(plan, edit->key);
	const bool there = at < plan->bytes && tree_record_key(plan->records + at) == edit->key;

	if (there != (edit->action != DIR_ADD))
		return fs_corrupt(edit->directory->owner->fs, block, "dirent.key");
	if (edit->action == DIR_ADD)
		records_add(plan, edit);
	else if (edit->action == DIR_REMOVE)
		records_remove(plan, edit);
	else
		records_replace(plan, edit);
	return 0;
}

/* Copies the records and makes both edits (@second may be NULL). */
static int records_build(struct tx_part *part, struct dir_change *plan, const uint8_t *records, unsigned bytes,
	unsigned count, const struct dir_change *second, uint64_t block)
{
	plan->records = tx_scratch(part, bytes + 2 * FS_DIRENT_MAX);
	if (!plan->records)
		return -ENOMEM;
	memcpy(plan->records, records, bytes);
	plan->bytes = bytes;
	plan->count = count;
	const int error = records_edit(plan, plan, block);
	return error || !second ? error : records_edit(plan, second, block);
}

/* ---- prepare ---- */

/* Finds the entry's key, and whether the entry is there as the action wants it. */
MAY_WAIT static int edit_locate(struct dir_change *edit)
{
	struct dir_scan scan;
	const int error = dir_scan(edit->directory, edit->name, &scan);

	if (error)
		return error;
	if (edit->action != DIR_ADD) {
		edit->key = scan.found.key;
		return scan.exists ? 0 : -ENOENT;
	}
	if (scan.exists)
		return -EEXIST;
	edit->key = scan.next;
	return scan.next <= scan.last ? 0 : -ENOSPC;
}

MAY_WAIT static int plan_inline(struct tx_part *part, struct dir_change *plan, const struct dir_change *second)
{
	const struct inode *directory = plan->directory;
	const unsigned entries = (unsigned)dir_entries(directory);
	const int error =
		records_build(part, plan, directory->disk.fork, directory->disk.fork_bytes, entries, second, 0);

	if (error)
		return error;
	plan->plan = DIR_PLAN_INLINE;
	if (plan->bytes <= inode_fork_capacity(directory))
		return 0;
	plan->plan = DIR_PLAN_ROOT;
	plan->tree_change.records = plan->records;
	plan->tree_change.bytes = plan->bytes;
	plan->tree_change.count = plan->count;
	return tree_plan_root(part, &plan->tree_change);
}

/* Plans the leaf of the entry's key. @second: planned along when it belongs to the same leaf; *out_both says so. */
MAY_WAIT static int plan_leaf(struct tx_part *part, struct dir_change *plan, const struct dir_change *second,
	bool *out_both)
{
	struct tree_change *change = &plan->tree_change;
	struct tree_leaf leaf;
	int error = tree_find_leaf(&change->tree, plan->key, &leaf);

	if (error)
		return error;
	const struct tree_node *node = tree_node_of(leaf.buf);
	*out_both = second && leaf.low <= second->key && second->key < leaf.high;
	error = records_build(part, plan, node->payload, le16_get(node->bytes), le16_get(node->count),
		*out_both ? second : NULL, leaf.buf->block);
	buf_put(part->owner, leaf.buf);
	if (error)
		return error;
	change->key = plan->key;
	change->records = plan->records;
	change->bytes = plan->bytes;
	change->count = plan->count;
	change->keep_root = second && !*out_both;
	plan->plan = DIR_PLAN_TREE;
	return tree_plan(part, change);
}

MAY_WAIT static int directory_pin(struct tx_part *part, struct inode *directory, int nlink_delta)
{
	if (nlink_delta > 0 && le32_get(directory->disk.nlink) > (uint32_t)(FS_LINK_MAX - nlink_delta))
		return -EMLINK;
	return inode_pin(part, directory);
}

MAY_WAIT static int change_prepare(struct tx_part *part, struct change *base)
{
	struct dir_change *change = CONTAINER_OF(base, struct dir_change, change);
	bool both;
	int error = directory_pin(part, change->directory, change->nlink_delta);

	if (!error)
		error = edit_locate(change);
	if (error)
		return error;
	if (change->directory->disk.format != FORK_TREE)
		return plan_inline(part, change, NULL);
	return plan_leaf(part, change, NULL, &both);
}

MAY_WAIT static int rename_prepare(struct tx_part *part, struct change *base)
{
	struct dir_rename_change *change = CONTAINER_OF(base, struct dir_rename_change, change);
	struct dir_change *first = &change->first, *second = &change->second;
	bool both;

	if (change->from.length == change->to.length &&
		!memcmp(change->from.bytes, change->to.bytes, change->to.length))
		return -EINVAL;
	dir_change_init(first, change->exchange ? DIR_REPLACE : DIR_REMOVE, change->directory, change->from,
		change->to_ino, change->to_type, change->now);
	dir_change_init(second, change->exchange || change->replace ? DIR_REPLACE : DIR_ADD, change->directory,
		change->to, change->ino, change->type, change->now);
	int error = directory_pin(part, change->directory, change->nlink_delta);
	if (!error)
		error = edit_locate(first);
	if (!error)
		error = edit_locate(second);
	if (error)
		return error;
	if (change->directory->disk.format != FORK_TREE)
		return plan_inline(part, first, second);
	error = plan_leaf(part, first, second, &both);
	if (error || both)
		return error;
	second->tree_change.after = &first->tree_change;
	return plan_leaf(part, second, NULL, &both);
}

/* ---- apply ---- */

static void size_set(struct inode *directory, uint64_t size)
{
	directory->disk.size = le64_set(size);
}

static void plan_apply(struct tx_part *part, struct dir_change *plan)
{
	struct inode *directory = plan->directory;
	struct tree_change *change = &plan->tree_change;

	switch (plan->plan) {
	case DIR_PLAN_NONE:
		return;
	case DIR_PLAN_INLINE:
		memset(directory->disk.fork, 0, inode_fork_capacity(directory));
		memcpy(directory->disk.fork, plan->records, plan->bytes);
		directory->disk.fork_bytes = (uint8_t)plan->bytes;
		size_set(directory, plan->bytes);
		return;
	case DIR_PLAN_ROOT:
		tree_apply_root(part, change);
		size_set(directory, FS_BLOCK_SIZE);
		return;
	case DIR_PLAN_TREE:
		tree_apply(part, change);
		size_set(directory, inode_size(directory) + (uint64_t)(int64_t)change->blocks_delta * FS_BLOCK_SIZE);
		if (change->emptied)
			directory->disk.format = FORK_INLINE;
		return;
	}
}

static void directory_log(struct tx_part *part, struct inode *directory, int entries_delta, int nlink_delta,
	struct timespec now)
{
	directory->disk.rdev_or_entries = le64_set(dir_entries(directory) + (uint64_t)(int64_t)entries_delta);
	directory->disk.nlink = le32_set(le32_get(directory->disk.nlink) + (uint32_t)nlink_delta);
	inode_touch(directory, INODE_MTIME | INODE_CTIME, now);
	inode_log(part, directory);
}

static int entries_delta(const struct dir_change *edit)
{
	return (edit->action == DIR_ADD) - (edit->action == DIR_REMOVE);
}

static void change_apply(struct tx_part *part, struct change *base)
{
	struct dir_change *change = CONTAINER_OF(base, struct dir_change, change);

	/* The number was not known when the records were made. */
	if (!change->ino && change->action != DIR_REMOVE)
		records_ino(change, change->key, *change->ino_from);
	plan_apply(part, change);
	directory_log(part, change->directory, entries_delta(change), change->nlink_delta, change->now);
}

static void rename_apply(struct tx_part *part, struct change *base)
{
	struct dir_rename_change *change = CONTAINER_OF(base, struct dir_rename_change, change);
	const int entries = entries_delta(&change->first) + entries_delta(&change->second);

	plan_apply(part, &change->first);
	plan_apply(part, &change->second);
	directory_log(part, change->directory, entries, change->nlink_delta, change->now);
}

void dir_change_init(struct dir_change *change, enum dir_action action, struct inode *directory, struct fs_name name,
	uint64_t ino, unsigned type, struct timespec now)
{
	*change = (struct dir_change){
		.change = {.prepare = change_prepare, .apply = change_apply},
		.action = action,
		.directory = directory,
		.name = name,
		.ino = ino,
		.type = type,
		.now = now,
		.tree_change = {.tree = {.inode = directory, .type = BLOCK_DIR_NODE}},
	};
}

void dir_rename_change_init(struct dir_rename_change *change)
{
	*change = (struct dir_rename_change){.change = {.prepare = rename_prepare, .apply = rename_apply}};
}
