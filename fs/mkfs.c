/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Formatting. mkfs_plan decides the geometry: the head (boot block, superblock, two state blocks, journal), then
 * allocation groups (AGs) as long as they fit, then one block for the superblock's copy. What is left behind the last AG
 * is less than the smallest AG and stays unused.
 *
 * mkfs_format then writes, in this order: both state blocks, the AG headers (AG 0 with its first map blocks and the inode
 * block of the root; all other maps are "not ready" and so need no write), the superblock copies, block 0 as zeroes, and
 * last the superblock. Until that last block is there, the target is no filesystem; a caller on a real device flushes
 * before and after it. Both state blocks are true: generation 2 in A counts, generation 1 in B says the same, so that the
 * first state write of a mount (generation 3, to B) may be torn, and A may become unreadable before it, without harm.
 */
#include "fs/mkfs.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "fs/verify.h"

enum {
	AG_COUNT_WANTED = 8,
	AG_BLOCKS_DEFAULT = 1 << (30 - FS_BLOCK_SHIFT),
	AG_BLOCKS_MIN_TOOL = 2048,
	AG_USABLE_MIN = 8, /* a last AG with fewer blocks behind its maps is not worth its header */
	JOURNAL_BLOCKS_MIN_TOOL = 1024,
	JOURNAL_BLOCKS_DEFAULT_MAX = 1 << (26 - FS_BLOCK_SHIFT),
	ROOT_GENERATION = 1,
};
#define DEVICE_BLOCKS_MAX (1ull << (63 - FS_BLOCK_SHIFT))

static int refuse(int error, char *message, size_t message_size, const char *format, ...) PRINTF_LIKE(4, 5);
static int refuse(int error, char *message, size_t message_size, const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(message, message_size, format, arguments);
	va_end(arguments);
	return error;
}

/* ---- geometry ---- */

static uint64_t journal_blocks_min(const struct mkfs_options *options)
{
	return options->small ? (uint64_t)FS_JOURNAL_BLOCKS_MIN : (uint64_t)JOURNAL_BLOCKS_MIN_TOOL;
}

static uint64_t ag_blocks_min(const struct mkfs_options *options)
{
	return options->small ? (uint64_t)FS_AG_BLOCKS_MIN : (uint64_t)AG_BLOCKS_MIN_TOOL;
}

static uint64_t journal_blocks_wanted(const struct mkfs_options *options, uint64_t block_count)
{
	if (options->journal_bytes)
		return options->journal_bytes / FS_BLOCK_SIZE;
	uint64_t blocks = MAX(block_count / 64, (uint64_t)JOURNAL_BLOCKS_MIN_TOOL);
	blocks = MIN(blocks, (uint64_t)JOURNAL_BLOCKS_DEFAULT_MAX);
	return MAX(MIN(blocks, block_count / 4), journal_blocks_min(options));
}

/* @area: blocks for all AGs together. */
static uint64_t ag_blocks_wanted(const struct mkfs_options *options, uint64_t area)
{
	if (options->ag_bytes)
		return options->ag_bytes / FS_BLOCK_SIZE;
	/* Rounded up: eight AGs, the last a little shorter, and nothing left over. */
	const uint64_t blocks = MIN(div_round_up(area, AG_COUNT_WANTED), (uint64_t)AG_BLOCKS_DEFAULT);
	return MAX(blocks, ag_blocks_min(options));
}

/* Blocks of the smallest target for these options. */
static uint64_t blocks_needed(const struct mkfs_options *options, uint64_t journal_blocks)
{
	uint64_t area = ag_blocks_min(options);

	if (options->ag_bytes)
		area = options->ag_bytes / FS_BLOCK_SIZE;
	else if (!options->small)
		area *= AG_COUNT_WANTED;
	return FS_JOURNAL_FIRST_BLOCK + journal_blocks + area + 1;
}

static int sizes_check(const struct mkfs_options *options, uint64_t journal_blocks, char *message, size_t message_size)
{
	const uint64_t journal_min = journal_blocks_min(options) * FS_BLOCK_SIZE;
	const uint64_t journal_max = (uint64_t)FS_JOURNAL_BLOCKS_MAX * FS_BLOCK_SIZE;
	const uint64_t ag_min = ag_blocks_min(options) * FS_BLOCK_SIZE;
	const uint64_t ag_max = (uint64_t)FS_AG_BLOCKS_MAX * FS_BLOCK_SIZE;

	if (options->journal_bytes && (options->journal_bytes < journal_min || options->journal_bytes > journal_max))
		return refuse(-EINVAL, message, message_size,
			"a journal of %llu KiB is not possible; choose %llu KiB to %llu MiB",
			(unsigned long long)options->journal_bytes >> 10, (unsigned long long)journal_min >> 10,
			(unsigned long long)journal_max >> 20);
	if (options->ag_bytes && (options->ag_bytes < ag_min || options->ag_bytes > ag_max))
		return refuse(-EINVAL, message, message_size,
			"allocation groups of %llu KiB are not possible; choose %llu KiB to %llu MiB",
			(unsigned long long)options->ag_bytes >> 10, (unsigned long long)ag_min >> 10,
			(unsigned long long)ag_max >> 20);
	const uint64_t block_count = options->size_bytes / FS_BLOCK_SIZE;
	if (block_count > DEVICE_BLOCKS_MAX)
		return refuse(-EINVAL, message, message_size, "larger than 8 EiB; give a smaller size");
	const uint64_t needed = blocks_needed(options, journal_blocks);
	if (block_count < needed)
		return refuse(-ENOSPC, message, message_size,
			"%llu KiB are too small for a filesystem with these options; the smallest is %llu KiB",
			(unsigned long long)options->size_bytes >> 10, (unsigned long long)needed * FS_BLOCK_SIZE >> 10);
	return 0;
}

static int names_check(const struct mkfs_options *options, char *message, size_t message_size)
{
	if (strnlen(options->label, sizeof(options->label)) > FS_LABEL_BYTES)
		return refuse(-EINVAL, message, message_size, "the label is longer than %d bytes; choose a shorter one",
			FS_LABEL_BYTES);
	if (!options->first_sequence || options->first_sequence >> 40)
		return refuse(-EINVAL, message, message_size, "first sequence %llu is not possible; draw one from 1 to 2^40 - 1",
			(unsigned long long)options->first_sequence);
	if (options->root_mode & ~07777u)
		return refuse(-EINVAL, message, message_size, "root mode 0%o is not possible; give permission bits only",
			options->root_mode);
	return 0;
}

/* Tiles the area; a short rest becomes the last AG if it is worth it. */
static void ags_place(struct fs_super *super, uint64_t area)
{
	const uint32_t ag_blocks = le32_get(super->ag_blocks);
	const uint32_t last_min = MAX((uint32_t)FS_AG_BLOCKS_LAST_MIN, ag_fixed_blocks(super) + AG_USABLE_MIN);
	uint64_t count = area / ag_blocks;
	uint32_t last = (uint32_t)(area % ag_blocks);

	if (last < last_min)
		last = ag_blocks;
	else
		count++;
	super->ag_count = le32_set((uint32_t)count);
	super->last_ag_blocks = le32_set(last);
}

int mkfs_plan(const struct mkfs_options *options, struct fs_super *super, char *message, size_t message_size)
{
	const uint64_t block_count = options->size_bytes / FS_BLOCK_SIZE;
	const uint64_t journal_blocks = journal_blocks_wanted(options, block_count);

	int err = names_check(options, message, message_size);
	if (!err)
		err = sizes_check(options, journal_blocks, message, message_size);
	if (err)
		return err;
	const uint64_t first_ag = FS_JOURNAL_FIRST_BLOCK + journal_blocks;
	const uint64_t area = block_count - 1 - first_ag;
	const uint32_t ag_blocks = (uint32_t)ag_blocks_wanted(options, area);
	if (area / ag_blocks >= UINT32_MAX)
		return refuse(-EINVAL, message, message_size,
			"needs more than 2^32 allocation groups of %u MiB; choose larger ones", ag_blocks >> 8);

	memset(super, 0, sizeof(*super));
	block_header_init(super, BLOCK_SUPER, FS_SUPER_BLOCK, options->fsid, 0);
	super->magic = le64_set(FS_SUPER_MAGIC);
	super->version = le32_set(FS_FORMAT_VERSION);
	super->block_size = le32_set(FS_BLOCK_SIZE);
	memcpy(super->uuid, options->uuid, sizeof(super->uuid));
	memcpy(super->label, options->label, strnlen(options->label, sizeof(super->label)));
	super->fsid = le64_set(options->fsid);
	super->journal_id = le64_set(options->journal_id);
	super->hash_seed = le64_set(options->hash_seed);
	super->block_count = le64_set(block_count);
	super->journal_first = le64_set(FS_JOURNAL_FIRST_BLOCK);
	super->journal_blocks = le64_set(journal_blocks);
	super->first_ag_block = le64_set(first_ag);
	super->ag_blocks = le32_set(ag_blocks);
	super->map_blocks = le32_set((uint32_t)div_round_up(ag_blocks, FS_MAP_BITS));
	ags_place(super, area);
	super->root_place = le64_set(ino_make(0, ag_fixed_blocks(super), 0));
	super->created_sec = le64_set((uint64_t)options->now_sec);
	super->inode_size = le32_set(FS_INODE_SIZE);
	block_seal(super, 0);
	return 0;
}

int mkfs_grow_plan(const struct fs_super *old, uint64_t blocks, struct fs_super *out, char *message, size_t message_size)
{
	const uint64_t before = le64_get(old->block_count), first_ag = le64_get(old->first_ag_block);

	if (blocks < before)
		return refuse(-EINVAL, message, message_size, "%llu KiB are less than the %llu KiB that it has: it cannot shrink",
			(unsigned long long)blocks * FS_BLOCK_SIZE >> 10, (unsigned long long)before * FS_BLOCK_SIZE >> 10);
	if (blocks > DEVICE_BLOCKS_MAX || (blocks - 1 - first_ag) / le32_get(old->ag_blocks) >= UINT32_MAX)
		return refuse(-EINVAL, message, message_size, "too large for groups of %u MiB; choose a smaller size",
			le32_get(old->ag_blocks) >> 8);
	*out = *old;
	out->block_count = le64_set(blocks);
	ags_place(out, blocks - 1 - first_ag);
	if (mkfs_usable_blocks(out) > mkfs_usable_blocks(old))
		return 0;
	const uint32_t least = MAX((uint32_t)FS_AG_BLOCKS_LAST_MIN, ag_fixed_blocks(old) + AG_USABLE_MIN);
	return refuse(-EINVAL, message, message_size, "%llu KiB add no room: the smallest step is to %llu KiB",
		(unsigned long long)blocks * FS_BLOCK_SIZE >> 10,
		(unsigned long long)(first_ag + (uint64_t)le32_get(old->ag_count) * le32_get(old->ag_blocks) + least + 1) *
		FS_BLOCK_SIZE >> 10);
}

/* ---- the blocks ---- */

struct format {
	const struct mkfs_options *options;
	const struct mkfs_io *io;
	const struct fs_super *super;
	void *block; /* 4 KiB, the block being made */
};

static void *block_begin(struct format *format, enum block_type type, uint64_t block_number, uint64_t owner)
{
	memset(format->block, 0, FS_BLOCK_SIZE);
	block_header_init(format->block, type, block_number, format->options->fsid, owner);
	return format->block;
}

/* Seals and writes the block being made. A block that its own verifier refuses is our mistake. */
static int MUST_CHECK block_end(struct format *format)
{
	const struct block_header *header = format->block;
	const uint64_t block_number = le64_get(header->block);

	block_seal(format->block, 0);
	assert(!block_verify(format->super, format->block, block_number, le16_get(header->type), BLOCK_OWNER_ANY, true));
	return format->io->write(format->io->arg, block_number, format->block);
}

static int MUST_CHECK super_copy_write(struct format *format, uint64_t block_number)
{
	struct fs_super *copy = format->block;

	*copy = *format->super;
	copy->header.block = le64_set(block_number);
	return block_end(format);
}

uint64_t mkfs_usable_blocks(const struct fs_super *super)
{
	const uint64_t last = le32_get(super->ag_count) - 1;
	const uint64_t blocks = last * le32_get(super->ag_blocks) + le32_get(super->last_ag_blocks);

	return blocks - (last + 1) * ag_fixed_blocks(super);
}

static uint64_t free_blocks_total(const struct fs_super *super)
{
	return mkfs_usable_blocks(super) - 1; /* one inode block, of the root */
}

static int MUST_CHECK state_write(struct format *format, uint64_t block_number, uint64_t generation)
{
	const struct mkfs_options *options = format->options;
	struct fs_state *state = block_begin(format, BLOCK_STATE, block_number, 0);

	state->generation = le64_set(generation);
	state->clean = le32_set(1);
	state->tail_sequence = le64_set(options->first_sequence);
	state->tail_crc = le32_set(options->first_crc);
	state->durable_sequence = le64_set(options->first_sequence - 1);
	state->free_blocks = le64_set(free_blocks_total(format->super));
	state->used_inodes = le64_set(1);
	return block_end(format);
}

void mkfs_ag_header(const struct fs_super *super, uint32_t ag, void *block)
{
	struct ag_header *header = block;

	memset(block, 0, FS_BLOCK_SIZE);
	block_header_init(block, BLOCK_AG_HEADER, ag_first_block(super, ag), le64_get(super->fsid), ag);
	header->ag = le32_set(ag);
	header->blocks = le32_set(ag_block_count(super, ag));
	header->free_blocks = le32_set(ag_block_count(super, ag) - ag_fixed_blocks(super));
	header->next_generation = le32_set(ROOT_GENERATION);
}

static int MUST_CHECK ag_header_write(struct format *format, uint32_t ag)
{
	struct ag_header *header = format->block;

	mkfs_ag_header(format->super, ag, header);
	if (ag == 0) { /* the root's inode block, and the first block of each map */
		header->free_blocks = le32_set(le32_get(header->free_blocks) - 1);
		header->inode_blocks = header->used_inodes = le32_set(1);
		header->next_generation = le32_set(ROOT_GENERATION + 1);
		header->block_map_ready = header->inode_map_ready = header->inode_free_map_ready = le64_set(1);
	}
	return block_end(format);
}

static void map_set(struct map_block *map, uint32_t bit)
{
	map->bits[bit / 8] |= (uint8_t)(1u << bit % 8);
}

/* Block 0 of a map of AG 0: the root's inode block is allocated, is an inode block, and has free slots. */
static int MUST_CHECK root_map_write(struct format *format, enum block_type type)
{
	const struct fs_super *super = format->super;
	const uint32_t fixed = ag_fixed_blocks(super);
	const uint32_t first = FS_AG_MAPS_FIRST + (uint32_t)(type - BLOCK_BLOCK_MAP) * le32_get(super->map_blocks);
	struct map_block *map = block_begin(format, type, ag_first_block(super, 0) + first, 0);

	map_set(map, fixed);
	if (type == BLOCK_BLOCK_MAP) {
		for (uint32_t i = 0; i < fixed; i++)
			map_set(map, i);
		for (uint32_t i = ag_block_count(super, 0); i < FS_MAP_BITS; i++)
			map_set(map, i);
	}
	return block_end(format);
}

static int MUST_CHECK root_inode_write(struct format *format)
{
	const struct mkfs_options *options = format->options;
	const struct fs_super *super = format->super;
	const le64_t now = le64_set((uint64_t)options->now_sec);
	struct inode_block *inodes =
		block_begin(format, BLOCK_INODES, ag_first_block(super, 0) + ag_fixed_blocks(super), 0);

	inodes->used_mask = le32_set(1);
	inodes->inode[0] = (struct disk_inode){
		.mode = le16_set((uint16_t)(S_IFDIR | (options->root_mode ? options->root_mode : 0755))),
		.format = FORK_INLINE,
		.uid = le32_set(options->uid),
		.gid = le32_set(options->gid),
		.nlink = le32_set(2),
		.generation = le32_set(ROOT_GENERATION),
		.atime_sec = now,
		.mtime_sec = now,
		.ctime_sec = now,
		.btime_sec = now,
		.parent = le64_set(FS_ROOT_INODE),
	};
	return block_end(format);
}

static int MUST_CHECK ag_write(struct format *format, uint32_t ag)
{
	int err = ag_header_write(format, ag);

	if (!err && ag_has_super_copy(ag))
		err = super_copy_write(format, ag_first_block(format->super, ag) + FS_AG_SUPER_COPY);
	if (ag)
		return err;
	for (enum block_type type = BLOCK_BLOCK_MAP; !err && type <= BLOCK_INODE_FREE_MAP; type++)
		err = root_map_write(format, type);
	return err ? err : root_inode_write(format);
}

static int MUST_CHECK blocks_write(struct format *format)
{
	const uint32_t ag_count = le32_get(format->super->ag_count);
	const struct mkfs_io *io = format->io;

	int err = state_write(format, FS_STATE_BLOCK_B, 1);
	if (!err)
		err = state_write(format, FS_STATE_BLOCK_A, 2);
	for (uint32_t ag = 0; !err && ag < ag_count; ag++) {
		err = ag_write(format, ag);
		if (io->progress)
			io->progress(io->arg, ag + 1, ag_count);
	}
	if (!err)
		err = super_copy_write(format, le64_get(format->super->block_count) - 1);
	if (err)
		return err;
	memset(format->block, 0, FS_BLOCK_SIZE);
	err = io->write(io->arg, 0, format->block);
	return err ? err : super_copy_write(format, FS_SUPER_BLOCK);
}

int mkfs_format(const struct mkfs_options *options, const struct mkfs_io *io, struct fs_super *out_super, char *message,
	size_t message_size)
{
	int err = mkfs_plan(options, out_super, message, message_size);

	if (err)
		return err;
	struct format format = {.options = options, .io = io, .super = out_super};
	format.block = aligned_alloc(FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	if (!format.block)
		return refuse(-ENOMEM, message, message_size, "no memory for one block; free some and try again");
	err = blocks_write(&format);
	free(format.block);
	if (err)
		return refuse(err, message, message_size, "write failed: %s; check the device and format again", strerror(-err));
	return 0;
}
