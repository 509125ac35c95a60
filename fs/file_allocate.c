/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fallocate: allocating ahead (unwritten extents), punching holes, zeroing ranges. Whole blocks are a matter of the
 * map, in bounded transactions; parts of blocks are zeroed in place. The range is held exclusively throughout.
 */
#include <fcntl.h>
#include <linux/falloc.h>

#include "fs/file.h"

struct allocate_call {
	struct file_op *file;
	int mode;                       /* FALLOC_FL_* */
	uint64_t offset, end;           /* bytes */
	bool kill_suidgid;
};

static bool keeps_size(const struct allocate_call *call) { return call->mode & FALLOC_FL_KEEP_SIZE; }

static bool grows(const struct allocate_call *call)
{
	return !keeps_size(call) && call->end > inode_size(call->file->inode);
}

/* ---- whole blocks ---- */

/* One map change of the file: the record only gets the extents. */
static MAY_WAIT int commit_map(struct file_op *file, struct run *run)
{
	file_change_init(&file->tx.file, file->inode, INODE_CTIME, file->now);
	file->tx.file.data = true;
	return file_commit(file->inode, &file->tx, FILE_COMMIT_MAP, run);
}

/* Unwritten blocks for the start of a hole; *out_length: how many. */
static MAY_WAIT int fill_hole(struct file_op *file, const struct extent *hole, uint64_t *out_length)
{
	struct inode *inode = file->inode;
	struct run run;
	int error = alloc_run(inode->owner, file_goal(inode), (uint32_t)MIN(hole->length, FILE_RUN_MAX), 1, 0, &run);
	if (error)
		return error;
	inode->write_goal = run.block + run.count;
	*out_length = run.count;
	map_change_init(&file->tx.map, inode, hole->logical, run.block, run.count, true);
	error = commit_map(file, &run);
	if (run.count)
		alloc_release(inode->owner, run);
	return error;
}

/* Written blocks become unwritten: they read as zero from then on. */
static MAY_WAIT int unwrite(struct file_op *file, const struct extent *extent)
{
	map_change_init(&file->tx.map, file->inode, extent->logical, extent->physical, extent->length, true);
	return commit_map(file, NULL);
}

/* Blocks [first, end) are allocated afterwards; with @zero they all read as zero. */
static MAY_WAIT int allocate_blocks(struct file_op *file, uint64_t first, uint64_t end, bool zero)
{
	if (sabotage(SABOTAGE_PUNCH_SHORT) && end > first + 1)
		end--;
	for (uint64_t at = first; at < end;) {
		struct extent extent;
		int error = file_lookup(file->inode, at, end - at, &extent);
		uint64_t length = extent.length;
		if (!error && !extent.physical)
			error = fill_hole(file, &extent, &length);
		else if (!error && zero && !extent.unwritten)
			error = unwrite(file, &extent);
		if (error)
			return error;
		at += length;
	}
	return 0;
}

static MAY_WAIT int punch_blocks(struct file_op *file, uint64_t first, uint64_t end)
{
	for (uint64_t at = first; at < end;) {
		struct extent extent;
		int error = file_lookup(file->inode, at, end - at, &extent);
		if (error)
			return error;
		if (!extent.physical) {
			at += extent.length;
			continue;
		}
		map_change_init(&file->tx.map, file->inode, at, 0, MIN(end - at, (uint64_t)FILE_RUN_MAX), false);
		error = commit_map(file, NULL);
		if (error == -E2BIG) { /* blocks of too many owners: then one extent */
			map_change_init(&file->tx.map, file->inode, at, 0, MIN(extent.length, (uint64_t)FILE_RUN_MAX), false);
			error = commit_map(file, NULL);
		}
		if (error)
			return error;
		at += file->tx.map.length;
		fiber_yield();
	}
	return 0;
}

/* ---- parts of blocks ---- */

/* Zeroes what the range covers of its first and last block, if that is not all of them. */
static MAY_WAIT int zero_edges(struct file_op *file, uint64_t offset, uint64_t end)
{
	const uint64_t head_end = MIN(end, align_up(offset, FS_BLOCK_SIZE)),
		       tail = MAX(offset, align_down(end, FS_BLOCK_SIZE));
	int error = 0;
	if (offset % FS_BLOCK_SIZE && offset < head_end)
		error = file_zero_in_block(file, offset, head_end);
	if (!error && end % FS_BLOCK_SIZE && tail < end && tail >= head_end)
		error = file_zero_in_block(file, tail, end);
	return error;
}

/* ---- the modes ---- */

/* The record's change that every call ends with. */
static MAY_WAIT int finish(const struct allocate_call *call)
{
	struct file_op *file = call->file;
	const bool changes_data = grows(call) || call->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE);
	struct file_change *change = &file->tx.file;
	int error = grows(call) ? file_zero_tail(file) : 0;
	if (error)
		return error;
	file_change_init(change, file->inode, INODE_CTIME | (changes_data ? INODE_MTIME : 0), file->now);
	if (grows(call)) {
		change->size_rule = FILE_SIZE_GROW;
		change->size = call->end;
		change->data = true;
	}
	change->kill_suidgid = call->kill_suidgid;
	return file_commit(file->inode, &file->tx, FILE_COMMIT_DATA, NULL);
}

/* The file is inline and stays so. */
static MAY_WAIT int allocate_inline(const struct allocate_call *call)
{
	struct file_op *file = call->file;
	struct file_change *change = &file->tx.file;
	const uint64_t size = inode_size(file->inode);
	const uint64_t zero_end = grows(call) ? call->end : MIN(call->end, size);
	file_change_init(change, file->inode, INODE_CTIME | INODE_MTIME, file->now);
	if (call->mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && call->offset < zero_end) {
		change->offset = (uint32_t)call->offset;
		change->length = (uint32_t)(zero_end - call->offset);
	}
	if (grows(call)) {
		change->size_rule = FILE_SIZE_GROW;
		change->size = call->end;
	}
	change->data = true;
	change->kill_suidgid = call->kill_suidgid;
	return file_commit(file->inode, &file->tx, 0, NULL);
}

static bool stays_inline(const struct allocate_call *call)
{
	const struct inode *inode = call->file->inode;
	if (inode->disk.format != FORK_INLINE)
		return false;
	return (call->mode & FALLOC_FL_PUNCH_HOLE && !grows(call)) || call->end <= inode_fork_capacity(inode);
}

static MAY_WAIT int allocate_ranged(const struct allocate_call *call)
{
	struct file_op *file = call->file;
	const uint64_t inner_first = div_round_up(call->offset, FS_BLOCK_SIZE), inner_end = call->end >> FS_BLOCK_SHIFT;
	const bool punch = call->mode & FALLOC_FL_PUNCH_HOLE, zero = call->mode & FALLOC_FL_ZERO_RANGE;
	int error = file_truncate_finish(file->inode, &file->tx);
	while (!error && stays_inline(call)) {
		error = allocate_inline(call);
		if (error != -EAGAIN)
			return error;
		error = 0;
	}
	if (!error)
		error = file_leave_inline(file);
	if (!error && (punch || zero))
		error = zero_edges(file, call->offset, call->end);
	if (!error && punch && inner_first < inner_end)
		error = punch_blocks(file, inner_first, inner_end);
	if (!error && zero && inner_first < inner_end)
		error = allocate_blocks(file, inner_first, inner_end, true);
	if (!error && !punch)
		error = allocate_blocks(
			file, call->offset >> FS_BLOCK_SHIFT, div_round_up(call->end, FS_BLOCK_SIZE), false);
	return error ? error : finish(call);
}

/* What a range has to cover: see write_exclusive in file_write.c. */
static uint64_t range_start(const struct allocate_call *call)
{
	const struct inode *inode = call->file->inode;
	if (inode->disk.format == FORK_INLINE)
		return 0;
	return grows(call) || inode->truncating ? MIN(call->offset, inode_size(inode)) : call->offset;
}

static uint64_t range_end(const struct allocate_call *call)
{
	const struct inode *inode = call->file->inode;
	return inode->disk.format == FORK_INLINE || inode->truncating ? UINT64_MAX : call->end;
}

static MAY_WAIT int allocate_once(const struct allocate_call *call)
{
	for (;;) {
		const uint64_t start = align_down(range_start(call), FS_BLOCK_SIZE), end = range_end(call);
		int error = file_range(call->file, start, end, true);
		if (error)
			return error;
		if (range_start(call) >= start && range_end(call) <= end) {
			error = allocate_ranged(call);
			file_unrange(call->file);
			return error;
		}
		file_unrange(call->file);
	}
}

static int mode_check(int mode, uint64_t offset, uint64_t length)
{
	const int what = mode & ~FALLOC_FL_KEEP_SIZE;
	if (what && what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE)
		return -EOPNOTSUPP;
	if (what == FALLOC_FL_PUNCH_HOLE && !(mode & FALLOC_FL_KEEP_SIZE))
		return -EOPNOTSUPP;
	if (!length)
		return -EINVAL;
	return offset > FS_FILE_SIZE_MAX || length > FS_FILE_SIZE_MAX - offset ? -EFBIG : 0;
}

static MAY_WAIT int allocate(struct fs *fs, uint64_t ino, int mode, uint64_t offset, uint64_t length, const struct fs_cred *cred)
{
	struct file_op *file;
	int error = file_begin(fs, ino, true, &file);
	if (error)
		return error;
	struct inode *inode = file->inode;
	if (le32_get(inode->disk.flags) & INODE_APPEND && mode & ~FALLOC_FL_KEEP_SIZE)
		error = -EPERM;
	if (!error)
		error = file_drop_capability(inode);
	file->now = fs_now();
	const struct allocate_call call = {.file = file, .mode = mode, .offset = offset, .end = offset + length,
		.kill_suidgid = !cred->privileged};
	while (!error) {
		error = allocate_once(&call);
		if (error != -ENOSPC || !op_retry_enospc(file->op))
			break;
		error = 0;
	}
	if (!error)
		error = op_finish(file->op->owner, le32_get(inode->disk.flags));
	file_end(file);
	return error;
}

int fs_fallocate(struct fs *fs, uint64_t ino, int mode, uint64_t offset, uint64_t length, const struct fs_cred *cred)
{
	const int error = mode_check(mode, offset, length);
	return error ? error : allocate(fs, ino, mode, offset, length, cred);
}

int file_make_hole(struct fs *fs, uint64_t ino, uint64_t offset, uint64_t length, const struct fs_cred *cred)
{
	return allocate(fs, ino, FALLOC_FL_PUNCH_HOLE, offset, length, cred);
}
