/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the operations on file data share: beginning and ending, ranges, device I/O, and the small steps that keep two
 * rules: bytes behind the end of a file read as zero once the file grows over them, and a file's content is inline or
 * in blocks, never both.
 */
#include "fs/file.h"

#include "fs/inode_internal.h"

_Static_assert(sizeof(struct file_op) <= OP_BYTES, "operation memory");

/* ---- beginning and ending ---- */

int file_check(const struct inode *inode, bool change)
{
	if (inode_is_dir(inode))
		return -EISDIR;
	if (!S_ISREG(inode_mode(inode)))
		return -EINVAL;
	return change && le32_get(inode->disk.flags) & INODE_IMMUTABLE ? -EPERM : 0;
}

int file_begin(struct fs *fs, uint64_t ino, bool change, struct file_op **out)
{
	int error = change ? fs_may_begin(fs) : 0;
	if (error)
		return error;
	struct op *op = op_begin(owner_here(fs));
	if (!op)
		return -ENOMEM;
	struct file_op *file = (struct file_op *)op->memory;
	memset(file, 0, offsetof(struct file_op, io));
	file->op = op;
	error = inode_get(op->owner, ino, &file->inode);
	if (!error) {
		error = file_check(file->inode, change);
		if (!error) {
			file_io_init(&file->io, op->owner);
			*out = file;
			return 0;
		}
		inode_put(file->inode);
	}
	op_end(op);
	return error;
}

void file_end(struct file_op *file)
{
	inode_put(file->inode);
	op_end(file->op);
}

int file_range(struct file_op *file, uint64_t start, uint64_t end, bool exclusive)
{
	end = end > UINT64_MAX - FS_BLOCK_SIZE ? UINT64_MAX : align_up(end, FS_BLOCK_SIZE);
	range_acquire(&file->inode->ranges, &file->range, align_down(start, FS_BLOCK_SIZE), end, exclusive);
	if (!file->inode->dead)
		return 0;
	file_unrange(file);
	return -ESTALE;
}

void file_unrange(struct file_op *file) { range_release(&file->inode->ranges, &file->range); }

/* ---- device I/O ---- */

void file_io_init(struct file_io *io, struct owner *owner)
{
	io->owner = owner;
	io->count = 0;
	io_group_init(&io->group);
}

void file_io_submit(struct file_io *io, enum io_op op, void *buffer, uint64_t block, uint64_t count)
{
	if (io->count == FILE_IOS_MAX) {
		/* The group keeps the first error for file_io_wait. */
		fiber_group_wait(&io->group.pending);
		io->count = 0;
	}
	struct io *next = &io->ios[io->count++];
	io_prepare(next, io->owner->channel, op, buffer, block << FS_BLOCK_SHIFT, count << FS_BLOCK_SHIFT);
	io_group_submit(&io->group, next);
}

int file_io_wait(struct file_io *io)
{
	int error = io_group_wait(&io->group);
	if (sabotage(SABOTAGE_IGNORES_DATA_ERROR) && io->count && io->ios[0].op == IO_WRITE)
		error = 0;
	file_io_init(io, io->owner);
	return error == -ENODEV ? -EIO : error;
}

/* ---- steps ---- */

int file_lookup(struct inode *inode, uint64_t logical, uint64_t limit, struct extent *out)
{
	fiber_rwlock_read(&inode->lock);
	int error = 0;
	if (inode->disk.format == FORK_INLINE)
		*out = (struct extent){.logical = logical, .length = limit};
	else
		error = map_lookup(inode, logical, limit, out);
	fiber_rwlock_unread(&inode->lock);
	return error;
}

uint64_t file_goal(const struct inode *inode)
{
	return inode->write_goal ? inode->write_goal : inode_block_of(inode->owner->fs, inode->ino);
}

int file_zero_in_block(struct file_op *file, uint64_t from, uint64_t to)
{
	assert(from < to && from >> FS_BLOCK_SHIFT == (to - 1) >> FS_BLOCK_SHIFT);
	struct extent extent;
	int error = file_lookup(file->inode, from >> FS_BLOCK_SHIFT, 1, &extent);
	if (error || !extent.physical || extent.unwritten)
		return error;
	uint8_t *block = op_bounce(file->op, 0);
	if (!block)
		return -ENOMEM;
	file_io_submit(&file->io, IO_READ, block, extent.physical, 1);
	error = file_io_wait(&file->io);
	if (error)
		return error;
	memset(block + from % FS_BLOCK_SIZE, 0, to - from);
	error = op_claim();
	if (error)
		return error;
	file_io_submit(&file->io, IO_WRITE, block, extent.physical, 1);
	return file_io_wait(&file->io);
}

int file_zero_tail(struct file_op *file)
{
	const uint64_t size = inode_size(file->inode);
	if (size % FS_BLOCK_SIZE == 0 || file->inode->disk.format == FORK_INLINE)
		return 0;
	return file_zero_in_block(file, size, align_up(size, FS_BLOCK_SIZE));
}

/* The inline bytes in a block of their own, written. */
static MAY_WAIT int inline_to_block(struct file_op *file, struct run *out)
{
	struct inode *inode = file->inode;
	uint8_t *block = op_bounce(file->op, 0);
	if (!block)
		return -ENOMEM;
	int error = alloc_run(inode->owner, file_goal(inode), 1, 1, 0, out);
	if (error)
		return error;
	memset(block, 0, FS_BLOCK_SIZE);
	memcpy(block, inode->disk.fork, inode->disk.fork_bytes);
	file_io_submit(&file->io, IO_WRITE, block, out->block, 1);
	error = file_io_wait(&file->io);
	if (error)
		alloc_release(inode->owner, *out);
	return error;
}

int file_leave_inline(struct file_op *file)
{
	struct inode *inode = file->inode;
	struct run run = {0};
	if (inode->disk.format != FORK_INLINE)
		return 0;
	file_change_init(&file->tx.file, inode, 0, file->now);
	file->tx.file.data = true;
	if (!inode->disk.fork_bytes) {
		file->tx.file.to_extents = true;
		return file_commit(inode, &file->tx, 0, NULL);
	}
	int error = inline_to_block(file, &run);
	if (error)
		return error;
	inode->write_goal = run.block + 1;
	map_change_init(&file->tx.map, inode, 0, run.block, 1, false);
	error = file_commit(inode, &file->tx, FILE_COMMIT_MAP | FILE_COMMIT_DATA, &run);
	if (run.count)
		alloc_release(inode->owner, run);
	return error;
}
