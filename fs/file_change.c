/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The record's part of a change of file data: size, times, suid and sgid, inline content. Stands behind the map change in the
 * home part, so that it logs the record with the new extents in it.
 */
#include "fs/file.h"

#include <sys/stat.h>

bool file_kill_suidgid(struct disk_inode *disk, bool apply)
{
	uint32_t mode = le16_get(disk->mode);
	const uint32_t before = mode;
	mode &= ~(uint32_t)S_ISUID;
	if (mode & S_IXGRP)
		mode &= ~(uint32_t)S_ISGID;
	if (apply)
		disk->mode = le16_set((uint16_t)mode);
	return mode != before;
}

static MAY_WAIT int file_change_prepare(struct tx_part *part, struct change *change)
{
	return inode_pin(part, CONTAINER_OF(change, struct file_change, change)->inode);
}

/* Inline content keeps fork_bytes equal to the size and zeroes behind it. */
static void apply_inline(struct file_change *file, uint64_t size)
{
	struct disk_inode *disk = &file->inode->disk;
	const unsigned capacity = inode_fork_capacity(file->inode);
	assert(size <= capacity && file->offset + file->length <= capacity);
	if (file->length && file->bytes)
		memcpy(disk->fork + file->offset, file->bytes, file->length);
	else if (file->length)
		memset(disk->fork + file->offset, 0, file->length);
	memset(disk->fork + size, 0, capacity - size);
	disk->fork_bytes = (uint8_t)size;
}

static void apply_to_extents(struct inode *inode)
{
	struct disk_inode *disk = &inode->disk;
	assert(!disk->fork_bytes);
	memset(disk->fork, 0, inode_fork_capacity(inode));
	disk->format = FORK_EXTENTS;
	disk->fork_count = le16_set(0);
}

static void file_change_apply(struct tx_part *part, struct change *change)
{
	struct file_change *file = CONTAINER_OF(change, struct file_change, change);
	struct inode *inode = file->inode;
	struct disk_inode *disk = &inode->disk;
	uint64_t size = inode_size(inode);
	if (file->size_rule == FILE_SIZE_SET || (file->size_rule == FILE_SIZE_GROW && file->size > size))
		size = file->size;
	if (file->to_extents && disk->format == FORK_INLINE)
		apply_to_extents(inode);
	if (disk->format == FORK_INLINE)
		apply_inline(file, size);
	disk->size = le64_set(size);
	inode_touch(inode, file->times, file->now);
	if (file->kill_suidgid)
		file_kill_suidgid(disk, true);
	inode_log(part, inode);
	if (file->data)
		inode->last_data_part = inode->last_part;
}

void file_change_init(struct file_change *change, struct inode *inode, unsigned times, struct timespec now)
{
	*change = (struct file_change){
		.change = {.prepare = file_change_prepare, .apply = file_change_apply},
		.inode = inode,
		.times = times,
		.now = now,
	};
}
