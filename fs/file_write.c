/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writing. There are three ways:
 *
 *   overwrite   whole blocks that are mapped and written already: range shared, straight to the device, in place; no
 *               transaction, the times are logged later. A last block that ends with the file counts as whole.
 *   inline      the content fits the inode: a transaction without data I/O
 *   allocating  everything else: range exclusive, file_alloc.c
 *
 * A write that grows the file also holds the old last block, whose rest it zeroes; so writes behind each other's ends
 * do not meet in a block.
 */
#include "fs/file.h"

/* ---- overwriting in place ---- */

static bool blocks_aligned(const struct file_write *write, uint64_t size)
{
	return write->offset % FS_BLOCK_SIZE == 0 && write->end <= size &&
		(write->end % FS_BLOCK_SIZE == 0 || write->end == size);
}

/* 0: all of it is mapped and written, and the I/O is under way. 1: it is not, and nothing was submitted. */
static MAY_WAIT int overwrite_submit(struct file_op *file)
{
	struct inode *inode = file->inode;
	const struct file_write *write = &file->write;
	const uint64_t first = write->offset >> FS_BLOCK_SHIFT, end = div_round_up(write->end, FS_BLOCK_SIZE);
	file->segment_count = 0;
	int error = 0;
	fiber_rwlock_read(&inode->lock);
	for (uint64_t at = first; at < end && !error;) {
		struct extent extent;
		error = map_lookup(inode, at, end - at, &extent);
		if (!error && (!extent.physical || extent.unwritten || file->segment_count == FILE_SEGMENTS_MAX))
			error = 1;
		if (error)
			break;
		file->segments[file->segment_count++] = (struct segment){.logical = at, .physical = extent.physical,
			.count = (uint32_t)extent.length};
		at += extent.length;
	}
	fiber_rwlock_unread(&inode->lock);
	return error;
}

static MAY_WAIT int overwrite_write(struct file_op *file)
{
	const struct file_write *write = &file->write;
	const uint64_t whole_end = align_down(write->end, FS_BLOCK_SIZE);
	uint8_t *bounce = NULL;
	if (whole_end != write->end) {
		bounce = op_bounce(file->op, 0);
		if (!bounce)
			return -ENOMEM;
		const size_t length = write->end - whole_end;
		memcpy(bounce, write->buffer + (whole_end - write->start), length);
		memset(bounce + length, 0, FS_BLOCK_SIZE - length);
	}
	const int error = op_claim();
	if (error)
		return error;
	for (unsigned i = 0; i < file->segment_count; i++) {
		const struct segment *segment = &file->segments[i];
		const uint64_t at = segment->logical << FS_BLOCK_SHIFT;
		const uint64_t count = MIN((whole_end - at) >> FS_BLOCK_SHIFT, segment->count);
		if (count)
			file_io_submit(&file->io, IO_WRITE, (void *)(uintptr_t)(write->buffer + (at - write->start)),
				segment->physical, count);
		if (count < segment->count)
			file_io_submit(&file->io, IO_WRITE, bounce, segment->physical + count, 1);
	}
	return file_io_wait(&file->io);
}

/* 0: written. 1: this is not a plain overwrite. */
static MAY_WAIT int overwrite(struct file_op *file)
{
	const struct inode *inode = file->inode;
	struct file_write *write = &file->write;
	if (write->append || inode->disk.format == FORK_INLINE || !blocks_aligned(write, inode_size(inode)))
		return 1;
	int error = file_range(file, write->offset, write->end, false);
	if (error)
		return error;
	/* Asked again: we may have waited. */
	if (inode->disk.format == FORK_INLINE || !blocks_aligned(write, inode_size(inode)))
		error = 1;
	else
		error = overwrite_submit(file);
	if (!error)
		error = overwrite_write(file);
	if (!error)
		write->offset = write->end;
	file_unrange(file);
	return error;
}

/* ---- inline ---- */

int file_write_inline(struct file_op *file)
{
	struct file_write *write = &file->write;
	struct file_change *change = &file->tx.file;
	file_change_init(change, file->inode, write->times, file->now);
	change->size_rule = FILE_SIZE_GROW;
	change->size = write->end;
	change->data = true;
	change->kill_suidgid = write->kill_suidgid;
	change->bytes = write->buffer + (write->offset - write->start);
	change->offset = (uint32_t)write->offset;
	change->length = (uint32_t)(write->end - write->offset);
	const int error = file_commit(file->inode, &file->tx, 0, NULL);
	if (error)
		return error;
	write->logged_times = true;
	write->offset = write->end;
	return 0;
}

/* ---- which way ---- */

/* Bytes from which on an exclusive write needs the range. */
static uint64_t range_start(const struct inode *inode, const struct file_write *write)
{
	const uint64_t size = inode_size(inode);
	if (inode->disk.format == FORK_INLINE)
		return 0;
	if (write->append)
		return size;
	/* A gap: the old last block is zeroed to its end. */
	return write->offset > size && (size % FS_BLOCK_SIZE || inode->truncating) ? size : write->offset;
}

static uint64_t range_end(const struct inode *inode, const struct file_write *write)
{
	return inode->disk.format == FORK_INLINE || write->append || inode->truncating ? UINT64_MAX : write->end;
}

static MAY_WAIT int write_ranged(struct file_op *file)
{
	struct inode *inode = file->inode;
	struct file_write *write = &file->write;
	int error = 0;
	if (write->end > inode_size(inode))
		error = file_truncate_finish(inode, &file->tx);
	if (error)
		return error;
	while (inode->disk.format == FORK_INLINE && write->end <= inode_fork_capacity(inode)) {
		error = file_write_inline(file);
		if (error != -EAGAIN)
			return error;
	}
	error = 0;
	/* Inline bytes that this write does not carry along move out first. */
	if (inode->disk.format == FORK_INLINE && inode->disk.fork_bytes && write->offset >= FS_BLOCK_SIZE)
		error = file_leave_inline(file);
	const uint64_t size = inode_size(inode);
	if (!error && write->offset >= align_up(size, FS_BLOCK_SIZE) && write->offset > size)
		error = file_zero_tail(file);
	while (!error && write->offset < write->end)
		error = file_write_allocating(file);
	return error;
}

static MAY_WAIT int write_exclusive(struct file_op *file)
{
	struct inode *inode = file->inode;
	struct file_write *write = &file->write;
	for (;;) {
		const uint64_t start = align_down(range_start(inode, write), FS_BLOCK_SIZE),
			       end = range_end(inode, write);
		int error = file_range(file, start, end, true);
		if (error)
			return error;
		if (range_start(inode, write) < start || range_end(inode, write) > end) {
			file_unrange(file); /* the file has changed while we waited: more is needed */
			continue;
		}
		if (write->append) {
			const uint64_t length = write->end - write->start;
			write->start = write->offset = inode_size(inode);
			write->end = MIN(write->start + length, FS_FILE_SIZE_MAX);
			error = write->start >= write->end ? -EFBIG : 0;
		}
		if (!error)
			error = write_ranged(file);
		file_unrange(file);
		return error;
	}
}

/* ---- the operation ---- */

static int write_check(const struct file_op *file, uint64_t offset, uint32_t flags)
{
	if (flags & FS_WRITE_APPEND)
		return 0;
	const bool append_only = le32_get(file->inode->disk.flags) & INODE_APPEND;
	if (append_only && offset < inode_size(file->inode) && !(flags & FS_WRITE_CACHE))
		return -EPERM;
	return offset >= FS_FILE_SIZE_MAX ? -EFBIG : 0;
}

/* Times that no transaction of this write has logged. */
static MAY_WAIT int write_times(struct file_op *file)
{
	struct file_write *write = &file->write;
	if (write->logged_times || (!write->times && !write->kill_suidgid))
		return 0;
	if (!write->kill_suidgid && inode_touch_lazy(file->inode, write->times, file->now))
		return 0;
	file_change_init(&file->tx.file, file->inode, write->times, file->now);
	file->tx.file.kill_suidgid = write->kill_suidgid;
	return file_commit(file->inode, &file->tx, 0, NULL);
}

static MAY_WAIT int write_all(struct file_op *file)
{
	struct file_write *write = &file->write;
	int error = overwrite(file);
	while (error > 0 || error == -ENOSPC) {
		error = write_exclusive(file);
		if (error != -ENOSPC || write->offset > write->start || !op_retry_enospc(file->op))
			break;
	}
	if (error && write->offset == write->start)
		return error;
	const int times_error = write_times(file);
	if (error)
		log_debug("a write ended early: %s", strerror(-error));
	return times_error;
}

static MAY_WAIT int write_durable(struct file_op *file, uint32_t flags)
{
	if (sabotage(SABOTAGE_EARLY_OSYNC))
		return 0;
	const bool all = flags & FS_WRITE_SYNC || FS_OPTION(file->op->owner->fs, sync) ||
		le32_get(file->inode->disk.flags) & INODE_SYNC;
	return all || flags & FS_WRITE_DSYNC ? file_sync(file->inode, !all) : 0;
}

int fs_write(struct fs *fs, uint64_t ino, const void *buffer, uint64_t offset, uint32_t length, uint32_t flags,
	const struct fs_cred *cred, uint32_t *out_length)
{
	(void)cred;
	*out_length = 0;
	struct file_op *file;
	/* A page that is dirty goes to the disk, also when the file has become immutable since. */
	int error = flags & FS_WRITE_CACHE ? fs_may_begin(fs) : 0;
	if (!error)
		error = file_begin(fs, ino, !(flags & FS_WRITE_CACHE), &file);
	if (error)
		return error;
	error = write_check(file, offset, flags);
	const bool kill = flags & FS_WRITE_KILL_SUIDGID && file_kill_suidgid(&file->inode->disk, false);
	if (!error && length)
		error = file_drop_capability(file->inode);
	if (!error && length) {
		const bool append = flags & FS_WRITE_APPEND;
		const uint64_t start = append ? 0 : offset;
		file->now = fs_now();
		file->write = (struct file_write){.buffer = buffer, .start = start, .offset = start,
			.end = MIN(start + length, FS_FILE_SIZE_MAX), .append = append,
			.times = flags & FS_WRITE_NO_TIMES ? 0 : INODE_MTIME | INODE_CTIME, .kill_suidgid = kill};
		error = write_all(file);
		if (!error)
			error = write_durable(file, flags);
		if (!error)
			*out_length = (uint32_t)(file->write.offset - file->write.start);
	}
	file_end(file);
	return error;
}
