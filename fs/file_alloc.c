/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Writes that allocate, convert unwritten extents, or touch parts of blocks, under an exclusive range. In order:
 *
 *   plan    cut the write into segments: mapped, unwritten, or new blocks, which are reserved here
 *   data    edges are merged in bounce blocks (old content, or zeroes around the data), then all is written
 *   apply   a transaction for each segment that changes the map, with the size as far as the segment reaches
 *
 * No lock is held before apply. What was reserved and not applied is given back, and the write ends early.
 */
#include "fs/file.h"

static uint64_t segment_end(const struct segment *segment) { return segment->logical + segment->count; }

/* ---- plan ---- */

static MAY_WAIT int plan_new(struct file_op *file, const struct extent *hole, struct segment *out)
{
	struct inode *inode = file->inode;
	struct run run;
	const int error =
		alloc_run(inode->owner, file_goal(inode), (uint32_t)MIN(hole->length, FILE_RUN_MAX), 1, 0, &run);
	if (error)
		return error;
	inode->write_goal = run.block + run.count;
	*out = (struct segment){
		.kind = SEGMENT_NEW,
		.logical = hole->logical,
		.physical = run.block,
		.count = run.count,
	};
	return 0;
}

static MAY_WAIT int plan(struct file_op *file)
{
	const struct file_write *write = &file->write;
	const uint64_t end = div_round_up(write->end, FS_BLOCK_SIZE);
	file->segment_count = 0;
	for (uint64_t at = write->offset >> FS_BLOCK_SHIFT; at < end && file->segment_count < FILE_SEGMENTS_MAX;) {
		struct segment *segment = &file->segments[file->segment_count];
		struct extent extent;
		int error = file_lookup(file->inode, at, end - at, &extent);
		if (!error && !extent.physical)
			error = plan_new(file, &extent, segment);
		else if (!error)
			*segment = (struct segment){
				.kind = extent.unwritten ? SEGMENT_UNWRITTEN : SEGMENT_MAPPED,
				.logical = at,
				.physical = extent.physical,
				.count = (uint32_t)MIN(extent.length, FILE_RUN_MAX),
			};
		if (error) /* what is planned is done before the error counts */
			return file->segment_count ? 0 : error;
		at += segment->count;
		file->segment_count++;
	}
	return 0;
}

/* Gives back what segments from @first on have reserved. */
static void unplan(struct file_op *file, unsigned first)
{
	for (unsigned i = first; i < file->segment_count; i++) {
		const struct segment *segment = &file->segments[i];
		if (segment->kind == SEGMENT_NEW && segment->count)
			alloc_release(
				file->inode->owner, (struct run){.block = segment->physical, .count = segment->count});
	}
	file->segment_count = first;
}

/* ---- data ---- */

/* A block of which the write covers a part. */
struct edge {
	const struct segment *segment;  /* NULL: there is no such edge */
	uint64_t logical;               /* block */
	uint8_t *block;                 /* bounce */
	bool read;                      /* old content counts */
};

static uint64_t edge_physical(const struct edge *edge)
{
	return edge->segment->physical + (edge->logical - edge->segment->logical);
}

static MAY_WAIT int edge_begin(struct file_op *file, struct edge *edge, const struct segment *segment, uint64_t logical,
	unsigned bounce)
{
	const struct file_write *write = &file->write;
	const uint64_t start = logical << FS_BLOCK_SHIFT;
	const uint64_t content_end = MIN(inode_size(file->inode), start + FS_BLOCK_SIZE);
	*edge = (struct edge){.segment = segment, .logical = logical, .block = op_bounce(file->op, bounce)};
	if (!edge->block)
		return -ENOMEM;
	edge->read = segment->kind == SEGMENT_MAPPED && content_end > start &&
		(write->offset > start || write->end < content_end);
	if (edge->read)
		file_io_submit(&file->io, IO_READ, edge->block, edge_physical(edge), 1);
	return 0;
}

/* Old content, zeroes where there is none, and the data over it. */
static MAY_WAIT void edge_merge(struct file_op *file, struct edge *edge)
{
	const struct file_write *write = &file->write;
	const struct inode *inode = file->inode;
	const uint64_t start = edge->logical << FS_BLOCK_SHIFT, size = inode_size(inode);
	const uint64_t from = MAX(write->offset, start), to = MIN(write->end, start + FS_BLOCK_SIZE);
	const uint64_t kept = !edge->read || size <= start ? 0 : MIN(size - start, FS_BLOCK_SIZE);
	memset(edge->block + kept, 0, FS_BLOCK_SIZE - kept);
	if (inode->disk.format == FORK_INLINE && !edge->logical)
		memcpy(edge->block, inode->disk.fork, inode->disk.fork_bytes);
	memcpy(edge->block + (from - start), write->buffer + (from - write->start), to - from);
	file_io_submit(&file->io, IO_WRITE, edge->block, edge_physical(edge), 1);
}

/* The whole blocks of a segment, from the caller's buffer. */
static MAY_WAIT void write_whole(struct file_op *file, const struct segment *segment)
{
	const struct file_write *write = &file->write;
	const uint64_t first = MAX(segment->logical, div_round_up(write->offset, FS_BLOCK_SIZE));
	const uint64_t end = MIN(segment_end(segment), write->end >> FS_BLOCK_SHIFT);
	if (first >= end)
		return;
	const uint8_t *from = write->buffer + ((first << FS_BLOCK_SHIFT) - write->start);
	file_io_submit(&file->io, IO_WRITE, (void *)(uintptr_t)from, segment->physical + (first - segment->logical),
		end - first);
}

static MAY_WAIT int write_data(struct file_op *file)
{
	const struct file_write *write = &file->write;
	const struct segment *first = &file->segments[0], *last = &file->segments[file->segment_count - 1];
	const uint64_t head_block = write->offset >> FS_BLOCK_SHIFT, tail_block = write->end >> FS_BLOCK_SHIFT;
	const bool has_head = write->offset % FS_BLOCK_SIZE;
	const bool has_tail =
		write->end % FS_BLOCK_SIZE && segment_end(last) > tail_block && !(has_head && tail_block == head_block);
	struct edge head = {0}, tail = {0};
	int error = has_head ? edge_begin(file, &head, first, head_block, 0) : 0;
	if (!error && has_tail)
		error = edge_begin(file, &tail, last, tail_block, 1);
	const int read_error = file_io_wait(&file->io);
	if (error || read_error)
		return error ? error : read_error;
	for (unsigned i = 0; i < file->segment_count && !error; i++)
		if (file->segments[i].kind == SEGMENT_MAPPED) /* the new content shows at once */
			error = op_claim();
	if (error)
		return error;
	if (head.segment)
		edge_merge(file, &head);
	if (tail.segment)
		edge_merge(file, &tail);
	for (unsigned i = 0; i < file->segment_count; i++)
		write_whole(file, &file->segments[i]);
	return sabotage(SABOTAGE_EARLY_APPLY) ? 0 : file_io_wait(&file->io);
}

/* ---- apply ---- */

static void record_change(struct file_op *file, uint64_t size)
{
	struct file_change *change = &file->tx.file;
	file_change_init(change, file->inode, file->write.times, file->now);
	change->size_rule = FILE_SIZE_GROW;
	change->size = size;
	change->data = true;
	change->kill_suidgid = file->write.kill_suidgid;
}

/* *out_end: bytes up to which the segment counts now. */
static MAY_WAIT int apply_segment(struct file_op *file, struct segment *segment, uint64_t *out_end)
{
	struct inode *inode = file->inode;
	struct run run = {.block = segment->physical, .count = segment->kind == SEGMENT_NEW ? segment->count : 0};
	*out_end = MIN(file->write.end, segment_end(segment) << FS_BLOCK_SHIFT);
	if (segment->kind == SEGMENT_MAPPED)
		return 0;
	map_change_init(&file->tx.map, inode, segment->logical, segment->physical, segment->count, false);
	record_change(file, *out_end);
	const int error = file_commit(inode, &file->tx, FILE_COMMIT_MAP | FILE_COMMIT_DATA, &run);
	assert(error || file->tx.map.length == segment->count); /* within one hole or extent: never shortened */
	if (segment->kind == SEGMENT_NEW) {
		segment->physical = run.block;
		segment->count = run.count; /* what is left is ours to give back */
	}
	return error;
}

static MAY_WAIT int apply(struct file_op *file)
{
	struct file_write *write = &file->write;
	uint64_t done = write->offset;
	unsigned i = 0;
	int error = 0;
	for (; i < file->segment_count && !error; i++) {
		uint64_t end;
		error = apply_segment(file, &file->segments[i], &end);
		if (error)
			break;
		done = end;
		write->logged_times = write->logged_times || file->segments[i].kind != SEGMENT_MAPPED;
	}
	unplan(file, i);
	/* The end of the file moved within blocks that it had. */
	if (done > write->offset && done > inode_size(file->inode)) {
		record_change(file, done);
		const int size_error = file_commit(file->inode, &file->tx, FILE_COMMIT_DATA, NULL);
		if (size_error)
			return size_error;
		write->logged_times = true;
	}
	write->offset = done;
	return error;
}

int file_write_allocating(struct file_op *file)
{
	int error = plan(file);
	if (error)
		return error;
	error = write_data(file);
	if (error) {
		unplan(file, 0);
		return error;
	}
	error = apply(file);
	return sabotage(SABOTAGE_EARLY_APPLY) && !error ? file_io_wait(&file->io) : error;
}
