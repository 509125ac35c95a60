/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading: the range shared, then all extents at once from the device into the caller's buffer. Holes and unwritten
 * extents are zeroes. Only blocks of which a part is wanted, or for which the buffer has no room, go through a bounce
 * block.
 */
#include "fs/file.h"

struct read_edge {
	uint8_t *to;
	unsigned offset, length;        /* in the bounce block; length 0: none */
};

struct read_call {
	struct file_op *file;
	uint8_t *buffer;
	uint64_t offset, end;           /* bytes of the file, end within its size */
	uint64_t room_end;              /* how far the buffer reaches */
	struct read_edge edges[OP_BOUNCE_COUNT];
	unsigned edge_count;
};

/* The part of one block that is wanted, through a bounce block. */
static MAY_WAIT int read_part(struct read_call *call, uint64_t block, uint64_t from, uint64_t to)
{
	assert(call->edge_count < OP_BOUNCE_COUNT);
	uint8_t *bounce = op_bounce(call->file->op, call->edge_count);
	if (!bounce)
		return -ENOMEM;
	call->edges[call->edge_count++] = (struct read_edge){.to = call->buffer + (from - call->offset),
		.offset = (unsigned)(from % FS_BLOCK_SIZE), .length = (unsigned)(to - from)};
	file_io_submit(&call->file->io, IO_READ, bounce, block, 1);
	return 0;
}

/* The bytes [from, to), which @extent covers. */
static MAY_WAIT int read_extent(struct read_call *call, const struct extent *extent, uint64_t from, uint64_t to)
{
	if (!extent->physical || extent->unwritten) {
		memset(call->buffer + (from - call->offset), 0, to - from);
		return 0;
	}
	int error = 0;
	uint64_t block = extent->physical;
	if (from % FS_BLOCK_SIZE) {
		const uint64_t part_end = MIN(to, align_up(from, FS_BLOCK_SIZE));
		error = read_part(call, block++, from, part_end);
		from = part_end;
	}
	/* The last block may be read whole where the buffer has room for it. */
	const uint64_t whole_end = align_up(to, FS_BLOCK_SIZE) <= call->room_end ? align_up(to, FS_BLOCK_SIZE) :
		align_down(to, FS_BLOCK_SIZE);
	if (!error && from < whole_end) {
		const uint64_t count = (whole_end - from) >> FS_BLOCK_SHIFT;
		file_io_submit(&call->file->io, IO_READ, call->buffer + (from - call->offset), block, count);
		block += count;
		from = whole_end;
	}
	return !error && from < to ? read_part(call, block, from, to) : error;
}

static MAY_WAIT int read_blocks(struct read_call *call)
{
	struct inode *inode = call->file->inode;
	const uint64_t end_block = div_round_up(call->end, FS_BLOCK_SIZE);
	int error = 0;
	fiber_rwlock_read(&inode->lock);
	for (uint64_t at = call->offset; at < call->end && !error;) {
		const uint64_t logical = at >> FS_BLOCK_SHIFT;
		struct extent extent;
		error = map_lookup(inode, logical, end_block - logical, &extent);
		if (error)
			break;
		const uint64_t to = MIN(call->end, (logical + extent.length) << FS_BLOCK_SHIFT);
		error = read_extent(call, &extent, at, to);
		at = to;
	}
	fiber_rwlock_unread(&inode->lock);
	const int io_error = file_io_wait(&call->file->io);
	for (unsigned i = 0; i < call->edge_count; i++)
		memcpy(call->edges[i].to, call->file->op->bounce[i] + call->edges[i].offset, call->edges[i].length);
	return error ? error : io_error;
}

static MAY_WAIT int read_ranged(
	struct file_op *file, uint8_t *buffer, uint64_t offset, uint32_t length, uint32_t *out_length)
{
	const struct inode *inode = file->inode;
	const uint64_t size = inode_size(inode);
	if (offset >= size)
		return 0;
	*out_length = (uint32_t)MIN(length, size - offset);
	if (inode->disk.format == FORK_INLINE) {
		memcpy(buffer, inode->disk.fork + offset, *out_length);
		return 0;
	}
	struct read_call call = {.file = file, .buffer = buffer, .offset = offset, .end = offset + *out_length,
		.room_end = offset + length};
	return read_blocks(&call);
}

struct wanted {
	void *buffer;
	uint64_t offset;
	uint32_t length;
	bool quietly; /* no access time */
};

static MAY_WAIT int read_file(struct fs *fs, uint64_t ino, const struct wanted *wanted, uint32_t *out_length)
{
	const uint64_t offset = wanted->offset;
	uint32_t length = wanted->length;
	*out_length = 0;
	struct file_op *file;
	int error = file_begin(fs, ino, false, &file);
	if (error)
		return error;
	if (length && offset < FS_FILE_SIZE_MAX)
		error = file_range(file, offset, MIN(offset + length, FS_FILE_SIZE_MAX + 1), false);
	else
		length = 0;
	if (!error && length) {
		error = read_ranged(file, wanted->buffer, offset, length, out_length);
		file_unrange(file);
	}
	if (error)
		*out_length = 0;
	else if (!wanted->quietly)
		inode_accessed(file->inode);
	file_end(file);
	return error;
}

int fs_read(struct fs *fs, uint64_t ino, void *buffer, uint64_t offset, uint32_t length, uint32_t *out_length)
{
	const struct wanted wanted = {.buffer = buffer, .offset = offset, .length = length};
	return read_file(fs, ino, &wanted, out_length);
}

int fs_read_quietly(struct fs *fs, uint64_t ino, void *buffer, uint64_t offset, uint32_t length, uint32_t *out_length)
{
	const struct wanted wanted = {.buffer = buffer, .offset = offset, .length = length, .quietly = true};
	return read_file(fs, ino, &wanted, out_length);
}
