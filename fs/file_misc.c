/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * fsync, holes, and copying from file to file, where holes stay holes.
 *
 * fsync knows the number of the last part of this owner's stream that changed the inode. When that is durable already,
 * only the device's cache is left to flush; otherwise the journal does both.
 */
#include <unistd.h>

#include "fs/file.h"
#include "fs/inode_internal.h"

/* ---- fsync ---- */

static MAY_WAIT int flush_device(struct owner *owner)
{
	struct fs *fs = owner->fs;
	if (!fs->volatile_cache || sabotage(SABOTAGE_NO_OVERWRITE_FLUSH))
		return 0;
	const int error = bdev_flush(owner->channel);
	if (!error)
		return fs_stopped(fs) ? -EIO : 0; /* another FLUSH may have failed meanwhile, and lost what this one was for */
	fs_stop(fs, error, 0, "flush failed");
	return -EIO;
}

int file_sync(struct inode *inode, bool datasync)
{
	struct owner *owner = inode->owner;
	if (fs_stopped(owner->fs))
		return -EIO;
	if (fs_read_only(owner->fs))
		return 0;
	const int error = datasync ? 0 : inode_log_times(inode);
	if (error)
		return error;
	const uint64_t part = datasync ? inode->last_data_part : inode->last_part;
	return part > stream_durable_number(owner) ? journal_sync(owner) : flush_device(owner);
}

int fs_fsync(struct fs *fs, uint64_t ino, bool datasync)
{
	struct inode *inode;
	int error = inode_get(owner_here(fs), ino, &inode);
	if (error)
		return error;
	error = file_sync(inode, datasync);
	inode_put(inode);
	return error;
}

/* ---- holes ---- */

/* The first byte at or after @offset of which it is true that there is data, or a hole. */
static MAY_WAIT int seek(struct inode *inode, bool data, uint64_t offset, uint64_t *out)
{
	const uint64_t size = inode_size(inode), end = div_round_up(size, FS_BLOCK_SIZE);
	if (offset >= size)
		return -ENXIO;
	const bool is_inline = inode->disk.format == FORK_INLINE;
	for (uint64_t at = offset >> FS_BLOCK_SHIFT; at < end && !is_inline;) {
		struct extent extent;
		const int error = file_lookup(inode, at, end - at, &extent);
		if (error)
			return error;
		if ((extent.physical && !extent.unwritten) == data) {
			*out = MAX(offset, at << FS_BLOCK_SHIFT);
			return 0;
		}
		at += extent.length;
	}
	if (data && !is_inline)
		return -ENXIO;
	*out = data ? offset : size;
	return 0;
}

int fs_seek(struct fs *fs, uint64_t ino, int whence, uint64_t offset, uint64_t *out)
{
	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	struct inode *inode;
	int error = inode_get(owner_here(fs), ino, &inode);
	if (error)
		return error;
	error = file_check(inode, false);
	if (!error)
		error = seek(inode, whence == SEEK_DATA, offset, out);
	inode_put(inode);
	return error;
}

/* ---- copying ---- */

enum { COPY_BYTES = 1 << 20 };

struct copy {
	struct fs *fs;
	uint64_t in, in_offset, out, out_offset, length;
	const struct fs_cred *cred;
	uint64_t copied;
};

/* The next part of the copy. */
struct copy_piece {
	const struct copy *copy;
	uint64_t length;
	bool hole;
	const uint8_t *buffer;
	uint32_t written;
};

/* *length is cut at the end of the file. */
static MAY_WAIT int copy_check(struct fs *fs, uint64_t ino, uint64_t offset, uint64_t *length)
{
	struct inode *inode;
	int error = inode_get(owner_here(fs), ino, &inode);
	if (error)
		return error;
	error = file_check(inode, false);
	const uint64_t size = inode_size(inode);
	*length = offset < size ? MIN(*length, size - offset) : 0;
	inode_put(inode);
	return error;
}

/* All of a hole, or what of data fits the buffer. Length 0: the end of the file. */
static MAY_WAIT int piece_find(const struct copy *copy, struct copy_piece *piece)
{
	const uint64_t from = copy->in_offset + copy->copied;
	*piece = (struct copy_piece){.copy = copy, .length = copy->length - copy->copied};
	int error = copy_check(copy->fs, copy->in, from, &piece->length);
	if (error || !piece->length)
		return error;
	uint64_t data, hole;
	error = fs_seek(copy->fs, copy->in, SEEK_DATA, from, &data);
	piece->hole = error == -ENXIO || (!error && data > from);
	if (piece->hole) {
		piece->length = error ? piece->length : MIN(piece->length, data - from);
		return 0;
	}
	if (!error)
		error = fs_seek(copy->fs, copy->in, SEEK_HOLE, from, &hole);
	if (!error)
		piece->length = MIN(MIN(piece->length, hole - from), (uint64_t)COPY_BYTES);
	return error == -ENXIO ? 0 : error; /* the file was cut: reading finds its end */
}

/* On the owner of the destination. */
static MAY_WAIT int piece_put(void *arg)
{
	struct copy_piece *piece = arg;
	const struct copy *copy = piece->copy;
	const uint64_t to = copy->out_offset + copy->copied;
	if (piece->hole)
		return file_make_hole(copy->fs, copy->out, to, piece->length, copy->cred);
	return fs_write(copy->fs, copy->out, piece->buffer, to, (uint32_t)piece->length, copy->cred->privileged ? 0
		: FS_WRITE_KILL_SUIDGID, copy->cred, &piece->written);
}

/* One piece. *out_more: neither the end of the file nor a full device. */
static MAY_WAIT int copy_step(struct copy *copy, uint8_t *buffer, bool *out_more)
{
	struct copy_piece piece;
	*out_more = false;
	int error = piece_find(copy, &piece);
	if (!error && piece.length && !piece.hole) {
		uint32_t length;
		error = fs_read(copy->fs, copy->in, buffer, copy->in_offset + copy->copied,
			(uint32_t)MIN(piece.length, (uint64_t)COPY_BYTES), &length);
		piece.length = length;
		piece.buffer = buffer;
	}
	if (error || !piece.length)
		return error;
	error = reactor_call(fs_owner(copy->fs, copy->out), piece_put, &piece);
	if (error)
		return error;
	const uint64_t done = piece.hole ? piece.length : piece.written;
	copy->copied += done;
	*out_more = done == piece.length && copy->copied < copy->length;
	return 0;
}

/* Through the owner's one buffer for this. */
static MAY_WAIT int copy_all(struct copy *copy)
{
	struct inode_table *table = owner_here(copy->fs)->inodes;
	fiber_mutex_lock(&table->copying);
	if (!table->copy_buffer)
		table->copy_buffer = dma_alloc(COPY_BYTES, FS_BLOCK_SIZE);
	int error = table->copy_buffer ? 0 : -ENOMEM;
	for (bool more = true; more && !error;)
		error = copy_step(copy, table->copy_buffer, &more);
	fiber_mutex_unlock(&table->copying);
	return error;
}

int fs_copy_range(struct fs *fs, uint64_t in, uint64_t in_offset, uint64_t out, uint64_t out_offset, uint64_t length,
	const struct fs_cred *cred, uint64_t *out_copied)
{
	*out_copied = 0;
	int error = fs_may_begin(fs);
	if (!error)
		error = copy_check(fs, in, in_offset, &length);
	if (error)
		return error;
	if (out_offset > FS_FILE_SIZE_MAX || length > FS_FILE_SIZE_MAX - out_offset)
		return -EFBIG;
	if (in == out && in_offset < out_offset + length && out_offset < in_offset + length)
		return -EINVAL;
	struct copy copy = {.fs = fs,
		.in = in,
		.in_offset = in_offset,
		.out = out,
		.out_offset = out_offset,
		.length = length,
		.cred = cred};
	error = length ? copy_all(&copy) : 0;
	*out_copied = copy.copied;
	return copy.copied ? 0 : error;
}
