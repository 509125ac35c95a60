/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The record's part of a change of file data: size, times, suid and sgid, inline content. Stands behind the map change
 * in the home part, so that it logs the record with the new extents in it.
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

static uint64_t new_size(const struct file_change *file)
{
	const uint64_t size = inode_size(file->inode);
	const bool moves = file->size_rule == FILE_SIZE_SET || (file->size_rule == FILE_SIZE_GROW && file->size > size);
	return moves ? file->size : size;
}

static MAY_WAIT int file_change_prepare(struct tx_part *part, struct change *change)
{
	const struct file_change *file = CONTAINER_OF(change, struct file_change, change);
	const bool is_inline = file->inode->disk.format == FORK_INLINE && !file->maps && !file->to_extents;
	if (is_inline && MAX(new_size(file), file->offset + file->length) > inode_fork_capacity(file->inode))
		return -EAGAIN;
	return inode_pin(part, file->inode);
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
	const uint64_t size = new_size(file);
	if (file->to_extents && disk->format == FORK_INLINE)
		apply_to_extents(inode);
	if (file->size_rule == FILE_SIZE_SET && !size && disk->format == FORK_EXTENTS && !le16_get(disk->fork_count))
		disk->format = FORK_INLINE; /* empty again */
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

/* ---- the transaction ---- */

static MAY_WAIT int commit_locked(
	struct tx *tx, struct inode *inode, struct file_tx *memory, unsigned flags, struct run *run)
{
	struct tx_part *home = tx_home(tx);
	if (inode->dead)
		return -ESTALE;
	/* The map first: it may turn out shorter than asked for, and then the rest of the run stays the caller's. */
	if (flags & FILE_COMMIT_MAP)
		tx_change(home, &memory->map.change);
	/* Unlinked meanwhile: it stands in the chain, and stays there. */
	if (inode->orphan ? flags & FILE_COMMIT_ORPHAN_DONE && le32_get(inode->disk.nlink)
			  : flags & FILE_COMMIT_ORPHAN) {
		orphan_change_init(&memory->orphan, inode, flags & FILE_COMMIT_ORPHAN);
		tx_change(home, &memory->orphan.change);
	}
	memory->file.maps = flags & FILE_COMMIT_MAP;
	tx_change(home, &memory->file.change);
	int error = tx_prepare_changes(tx);
	if (!error && run && run->count) {
		struct run used = *run;
		used.count = (uint32_t)memory->map.length;
		error = tx_adopt(home, used);
		if (!error) {
			run->block += used.count;
			run->count -= used.count;
		}
	}
	if (!error)
		error = tx_prepare(tx);
	if (!error)
		tx_apply(tx);
	return error;
}

int file_commit(struct inode *inode, struct file_tx *memory, unsigned flags, struct run *run)
{
	const bool frees = flags & FILE_COMMIT_MAP && !memory->map.physical;
	unsigned blocks = !(flags & FILE_COMMIT_MAP) ? 1 : frees ? FILE_FREEING_BLOCKS : FILE_COMMIT_BLOCKS;
	if (flags & (FILE_COMMIT_ORPHAN | FILE_COMMIT_ORPHAN_DONE))
		blocks += ORPHAN_CHANGE_BLOCKS;
	struct tx *tx;
	int error = tx_begin(inode->owner, blocks, &tx);
	if (error)
		return error;
	tx->use_held_back = flags & FILE_COMMIT_HELD_BACK;
	tx->maps_data = flags & FILE_COMMIT_DATA;
	fiber_rwlock_write(&inode->lock);
	error = commit_locked(tx, inode, memory, flags, run);
	fiber_rwlock_unwrite(&inode->lock);
	tx_end(tx);
	return error;
}
