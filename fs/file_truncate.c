/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Sizes. A file that shrinks gives its blocks back: in one transaction with the new size when one map change does it;
 * else the size moves first, with an entry in the orphan chain, and the blocks follow in bounded transactions, so that
 * after a crash the rest is freed in the background. Until they are gone the file must not grow (it would show them):
 * what grows a file looks for that first (inode->truncating, file_truncate_finish).
 *
 * A file that grows has the bytes behind its old end zeroed on the device before the size moves.
 */
#include "fs/file.h"

/* Where a change that frees the end of the map, from @from on, starts and how long it is. @one: a single extent. */
static MAY_WAIT int tail_of(const struct inode *inode, uint64_t from, bool one, uint64_t *start, uint64_t *length)
{
	if (inode->disk.format == FORK_INLINE)
		return -ENOENT;
	int error = map_tail(inode, from, start, length);
	struct extent last;
	if (!error && one) {
		error = map_last(inode, &last);
		const uint64_t end = *start + *length;
		*start = error ? *start : MAX(*start, last.logical);
		*length = end - *start;
	}
	if (!error && *length > FILE_RUN_MAX) {
		*start += *length - FILE_RUN_MAX;
		*length = FILE_RUN_MAX;
	}
	return error;
}

/* The change that frees the end of the map, as much as one transaction may free. -ENOENT: nothing there. *out_all: that
 * is all. */
static MAY_WAIT int next_piece(struct inode *inode, uint64_t from, bool one, struct map_change *map, bool *out_all)
{
	uint64_t start = 0, length = 0;
	struct extent before;
	fiber_rwlock_read(&inode->lock);
	int error = tail_of(inode, from, one, &start, &length);
	*out_all = start == from;
	if (!error && start > from) {
		error = map_lookup(inode, from, start - from, &before);
		*out_all = !error && !before.physical && before.length == start - from;
	}
	fiber_rwlock_unread(&inode->lock);
	if (!error)
		map_change_init(map, inode, start, 0, length, false);
	return error;
}

int file_free_from(struct inode *inode, uint64_t from, struct file_tx *memory)
{
	bool one = false;
	for (;;) {
		bool all;
		int error = next_piece(inode, from, one, &memory->map, &all);
		if (error)
			return error == -ENOENT ? 0 : error;
		file_change_init(&memory->file, inode, 0, (struct timespec){0});
		memory->file.data = true;
		error = file_commit(inode, memory, FILE_COMMIT_MAP | FILE_COMMIT_HELD_BACK, NULL);
		if (error && (error != -E2BIG || one))
			return error;
		one = error; /* blocks of too many owners: then one by one */
		fiber_yield(); /* a large file has many pieces */
	}
}

int file_truncate_finish(struct inode *inode, struct file_tx *memory)
{
	if (inode->truncating) {
		const int error = file_free_from(inode, div_round_up(inode_size(inode), FS_BLOCK_SIZE), memory);
		if (error)
			return error;
		inode->truncating = false;
	}
	/* Also when only this step has failed before. */
	if (!inode->orphan || !le32_get(inode->disk.nlink))
		return 0;
	file_change_init(&memory->file, inode, 0, (struct timespec){0});
	return file_commit(inode, memory, FILE_COMMIT_ORPHAN_DONE | FILE_COMMIT_HELD_BACK, NULL);
}

static void size_change(struct file_op *file, uint64_t size, uint32_t mask)
{
	const unsigned times = mask & FS_SET_KEEP_TIMES ? 0 : INODE_MTIME | INODE_CTIME;
	file_change_init(&file->tx.file, file->inode, times, file->now);
	file->tx.file.size_rule = FILE_SIZE_SET;
	file->tx.file.size = size;
	file->tx.file.data = true;
	file->tx.file.kill_suidgid = mask & FS_SET_KILL_SUIDGID;
}

static MAY_WAIT int shrink(struct file_op *file, uint64_t size, uint32_t mask)
{
	struct inode *inode = file->inode;
	bool all;
	int error = next_piece(inode, div_round_up(size, FS_BLOCK_SIZE), false, &file->tx.map, &all);
	if (error && error != -ENOENT)
		return error;
	size_change(file, size, mask);
	if (error == -ENOENT)
		return file_commit(inode, &file->tx, FILE_COMMIT_HELD_BACK, NULL);
	if (all) {
		error = file_commit(inode, &file->tx, FILE_COMMIT_MAP | FILE_COMMIT_HELD_BACK, NULL);
		if (error != -E2BIG)
			return error;
	}
	inode->truncating = true;
	error = file_commit(inode, &file->tx, FILE_COMMIT_HELD_BACK | FILE_COMMIT_ORPHAN, NULL);
	if (error)
		return error;
	error = file_truncate_finish(inode, &file->tx);
	if (error)
		inode_reap(inode->owner, inode->ino); /* the size is the new one already; the rest of the blocks follows */
	return error;
}

static MAY_WAIT int grow(struct file_op *file, uint64_t size, uint32_t mask)
{
	struct inode *inode = file->inode;
	int error = file_truncate_finish(inode, &file->tx);
	if (error)
		return error;
	do {
		if (inode->disk.format == FORK_INLINE && size > inode_fork_capacity(inode))
			error = file_leave_inline(file);
		else
			error = 0;
		if (!error)
			error = file_zero_tail(file);
		if (error)
			return error;
		size_change(file, size, mask);
		error = file_commit(inode, &file->tx, sabotage(SABOTAGE_LATE_ZERO) ? 0 : FILE_COMMIT_DATA, NULL);
	} while (error == -EAGAIN);
	return error;
}

static MAY_WAIT int set_size(struct file_op *file, uint64_t size, uint32_t mask)
{
	struct inode *inode = file->inode;
	for (;;) {
		const uint64_t start = align_down(MIN(size, inode_size(inode)), FS_BLOCK_SIZE);
		int error = file_range(file, start, UINT64_MAX, true);
		if (error)
			return error;
		if (MIN(size, inode_size(inode)) < start) { /* somebody else was faster: more is needed */
			file_unrange(file);
			continue;
		}
		error = size > inode_size(inode) ? grow(file, size, mask) : shrink(file, size, mask);
		if (!error && !size)
			inode->write_goal = 0;
		file_unrange(file);
		return error;
	}
}

int file_set_size(struct op *op, struct inode *inode, uint64_t size, uint32_t mask)
{
	struct file_op *file = (struct file_op *)op->memory;
	if (size > FS_FILE_SIZE_MAX)
		return -EFBIG;
	int error;
	do {
		memset(file, 0, offsetof(struct file_op, io));
		file->op = op;
		file->inode = inode;
		file->now = fs_now();
		file_io_init(&file->io, inode->owner);
		error = set_size(file, size, mask);
	} while (error == -ENOSPC && op_retry_enospc(op));
	return error;
}
