/* SPDX-License-Identifier: BSD-3-Clause */
/* The frame of a repair: its order, the images that are going to be written, who owns which block, and writing. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "mkfs/repair_internal.h"

/* ---- notes ---- */

void repair_loss(struct repair *repair, const char *format, ...)
{
	va_list arguments;
	repair->out->losses++;
	if (!repair->io->note)
		return;
	va_start(arguments, format);
	vsnprintf(repair->text, sizeof(repair->text), format, arguments);
	va_end(arguments);
	repair->io->note(repair->io->arg, repair->text);
}

/* ---- images ---- */

void *repair_edit(struct repair *repair, uint64_t block)
{
	struct fsck *fsck = &repair->fsck;
	const uint8_t *there = fsck_overlay_find(&fsck->overlay, block);
	if (fsck->error)
		return NULL;
	uint8_t *image = there ? (uint8_t *)there : fsck_overlay_insert(fsck, block);
	if (image && !there)
		fsck->error = fsck->io->read(fsck->io->arg, block, image);
	return fsck->error ? NULL : image;
}

void *repair_new(struct repair *repair, uint64_t block, enum block_type type, uint64_t owner)
{
	struct fsck *fsck = &repair->fsck;
	struct block_header *header = fsck->error ? NULL : (struct block_header *)fsck_overlay_insert(fsck, block);
	if (!header)
		return NULL;
	memset(header, 0, FS_BLOCK_SIZE);
	header->magic = le32_set(FS_BLOCK_MAGIC);
	header->type = le16_set((uint16_t)type);
	header->block = le64_set(block);
	header->fsid = le64_set(fsck->fsid);
	header->owner = le64_set(owner);
	return header;
}

const void *repair_read(struct repair *repair, uint64_t block, void *buffer, enum block_type type, uint64_t owner)
{
	struct fsck *fsck = &repair->fsck;
	bool image;
	const struct block_header *header = fsck->error ? NULL : fsck_read(fsck, block, buffer, &image);
	if (!header || fsck_header_useless(fsck, header, block, type, image) || le64_get(header->owner) != owner)
		return NULL;
	/* A number that no journal reaches is not believed: the block gets a new one. */
	const bool absurd = le64_get(header->sequence) >= FS_COUNT_END - 1;
	if (!absurd)
		repair->sequence = MAX(repair->sequence, le64_get(header->sequence));
	if (absurd || le16_get(header->reserved0) || le32_get(header->reserved1)) {
		struct block_header *changed = repair_edit(repair, block);
		if (!changed)
			return NULL;
		changed->reserved0 = le16_set(0);
		changed->reserved1 = le32_set(0);
		return changed;
	}
	return header;
}

/* ---- owners of blocks ---- */

bool repair_placeable(struct repair *repair, uint64_t block, uint64_t count)
{
	struct fsck *fsck = &repair->fsck;
	const struct fsck_ag *ag = fsck_ag_of(fsck, block);
	return ag && block - ag->first >= fsck->fixed_blocks && count <= ag->blocks - (block - ag->first);
}

static uint64_t *reached(struct repair *repair, struct fsck_ag *ag)
{
	if (!ag->reached)
		ag->reached = fsck_allocate(&repair->fsck, div_round_up(ag->blocks, 64), sizeof(uint64_t));
	return ag->reached;
}

uint32_t repair_run(struct repair *repair, uint64_t block, uint32_t count, bool *out_free)
{
	struct fsck_ag *ag = fsck_ag_of(&repair->fsck, block);
	const uint32_t from = (uint32_t)(block - ag->first), end = from + count;
	const uint64_t *words = reached(repair, ag);
	*out_free = words && !(words[from / 64] >> from % 64 & 1);
	if (!words)
		return count;
	const uint64_t flip = *out_free ? 0 : ~0ull; /* look for the first bit that is set */
	for (uint32_t at = from; at < end; at = (uint32_t)align_down(at, 64) + 64) {
		const uint64_t word = (words[at / 64] ^ flip) >> at % 64;
		if (word)
			return MIN(at + (uint32_t)__builtin_ctzll(word), end) - from;
	}
	return count;
}

void repair_claim_run(struct repair *repair, uint64_t block, uint32_t count)
{
	struct fsck_ag *ag = fsck_ag_of(&repair->fsck, block);
	const uint32_t from = (uint32_t)(block - ag->first);
	uint64_t *words = reached(repair, ag);
	for (uint32_t at = from, next; words && at < from + count; at = next) {
		next = MIN(from + count, (uint32_t)align_down(at, 64) + 64);
		words[at / 64] |= ~0ull >> (64 - (next - at)) << (at % 64);
	}
}

bool repair_claim(struct repair *repair, uint64_t block)
{
	bool is_free;
	if (!repair_placeable(repair, block, 1) || !repair_run(repair, block, 1, &is_free) || !is_free)
		return false;
	repair_claim_run(repair, block, 1);
	return true;
}

void repair_release(struct repair *repair, const struct repair_blocks *blocks)
{
	for (size_t i = 0; i < blocks->count; i++) {
		struct fsck_ag *ag = fsck_ag_of(&repair->fsck, blocks->block[i]);
		const uint64_t at = blocks->block[i] - ag->first;
		ag->reached[at / 64] &= ~(1ull << at % 64);
	}
}

uint64_t repair_allocate(struct repair *repair)
{
	struct fsck *fsck = &repair->fsck;
	for (uint32_t tried = 0; tried <= fsck->ag_count && !fsck->error; tried++) {
		const struct fsck_ag *ag = &fsck->ag[repair->allocate_ag];
		uint32_t at = MAX(repair->allocate_at, fsck->fixed_blocks);
		while (at < ag->blocks && !fsck->error) {
			bool is_free;
			const uint32_t run = repair_run(repair, ag->first + at, ag->blocks - at, &is_free);
			if (is_free) {
				repair_claim_run(repair, ag->first + at, 1);
				repair->allocate_at = at + 1;
				return ag->first + at;
			}
			at += run;
		}
		repair->allocate_at = 0;
		repair->allocate_ag = (repair->allocate_ag + 1) % fsck->ag_count;
	}
	return 0;
}

/* ---- memory ---- */

void *repair_grow(struct repair *repair, void *array, size_t *capacity, size_t wanted, size_t size)
{
	if (wanted <= *capacity)
		return array;
	const size_t more = MAX(2 * *capacity, MAX(wanted, 16));
	void *grown = realloc(array, more * size);
	if (!grown) {
		repair->fsck.error = -ENOMEM;
		return array;
	}
	*capacity = more;
	return grown;
}

void repair_blocks_add(struct repair *repair, struct repair_blocks *blocks, uint64_t block)
{
	blocks->block = repair_grow(repair, blocks->block, &blocks->capacity, blocks->count + 1, sizeof(*blocks->block));
	if (!repair->fsck.error)
		blocks->block[blocks->count++] = block;
}

struct repair_rebuild *repair_rebuild_add(struct repair *repair, uint64_t ino)
{
	struct repair_rebuild *rebuild = fsck_allocate(&repair->fsck, 1, sizeof(*rebuild));
	struct fsck_inode *known;
	if (!rebuild)
		return NULL;
	rebuild->ino = ino;
	rebuild->next = repair->rebuilds;
	repair->rebuilds = rebuild;
	if (fsck_inode_find(&repair->fsck, ino, &known) == FSCK_LOOKUP_USED)
		known->flags |= REPAIR_REBUILD;
	return rebuild;
}

static void rebuilds_free(struct repair *repair)
{
	for (struct repair_rebuild *next, *rebuild = repair->rebuilds; rebuild; rebuild = next) {
		next = rebuild->next;
		free(rebuild->nodes.block);
		free(rebuild->extents.extent);
		free(rebuild->directory.entry);
		free(rebuild->directory.names);
		free(rebuild);
	}
	free(repair->lost.block);
}

/* ---- writing ---- */

enum stage { STAGE_CONTENTS, STAGE_INODES, STAGE_MAPS, STAGE_COUNT };

/* What is pointed to is written before what points to it. */
static enum stage stage_of(unsigned type)
{
	switch (type) {
	case BLOCK_INODES:
		return STAGE_INODES;
	case BLOCK_AG_HEADER: case BLOCK_BLOCK_MAP: case BLOCK_INODE_MAP: case BLOCK_INODE_FREE_MAP:
		return STAGE_MAPS;
	default:
		return STAGE_CONTENTS;
	}
}

static void image_write(struct repair *repair, uint64_t block, uint8_t *image)
{
	struct fsck *fsck = &repair->fsck;
	struct block_header *header = (struct block_header *)image;
	header->sequence = le64_set(repair->sequence);
	header->crc = le32_set(fsck_crc32c(image, FS_BLOCK_SIZE, &header->crc.raw));
	fsck->error = repair->io->write(repair->io->arg, block, image);
	repair->out->blocks_written++;
}

static void stages_write(struct repair *repair)
{
	struct fsck *fsck = &repair->fsck;
	for (unsigned stage = 0; stage < STAGE_COUNT && !fsck->error; stage++) {
		fsck_progress(fsck, "writing", stage);
		for (size_t i = 0; i < fsck->overlay.slots && !fsck->error; i++) {
			uint8_t *image = fsck->overlay.slot[i].image;
			if (image && stage_of(le16_get(((struct block_header *)image)->type)) == stage)
				image_write(repair, fsck->overlay.slot[i].block, image);
		}
		if (!fsck->error)
			fsck->error = repair->io->flush(repair->io->arg);
	}
}

/* ---- the order ---- */

static void each_group(struct repair *repair, const char *phase, void (*step)(struct repair *, struct fsck_ag *))
{
	struct fsck *fsck = &repair->fsck;
	for (uint32_t i = 0; i < fsck->ag_count && !fsck->error; i++) {
		fsck_progress(fsck, phase, i);
		step(repair, &fsck->ag[i]);
	}
}

static void group_directories(struct repair *repair, struct fsck_ag *ag)
{
	repair_each_inode(repair, ag, repair_directory);
}

static void group_files(struct repair *repair, struct fsck_ag *ag)
{
	repair_each_inode(repair, ag, repair_file);
}

static void rebuilds_write(struct repair *repair)
{
	for (struct repair_rebuild *rebuild = repair->rebuilds; rebuild && !repair->fsck.error; rebuild = rebuild->next) {
		struct fsck_inode *known;
		if (fsck_inode_find(&repair->fsck, rebuild->ino, &known) != FSCK_LOOKUP_USED)
			continue; /* freed meanwhile */
		if (S_ISDIR(known->mode))
			repair_directory_rebuild(repair, rebuild);
		else
			repair_file_rebuild(repair, rebuild);
	}
	/* Only now: a new node in the place of an old one, and a kill before the inode is written, would cost both. */
	for (struct repair_rebuild *rebuild = repair->rebuilds; rebuild && !repair->fsck.error; rebuild = rebuild->next)
		repair_release(repair, &rebuild->nodes);
}

static void repair_run_all(struct repair *repair)
{
	struct fsck *fsck = &repair->fsck;
	repair_start(repair);
	if (fsck->error || repair->out->no_superblock)
		return;
	each_group(repair, "inodes", repair_ag_inodes);
	if (!fsck->error)
		repair_root(repair);
	each_group(repair, "orphans", repair_ag_orphans);
	each_group(repair, "directories", group_directories);
	if (!fsck->error)
		repair_decide(repair);
	if (!fsck->error)
		repair_links(repair);
	each_group(repair, "files", group_files);
	/* From here on it is known which blocks are free. */
	if (!fsck->error)
		repair_reconnect(repair);
	rebuilds_write(repair);
	if (!fsck->error)
		repair_link_counts(repair);
	each_group(repair, "maps", repair_ag_maps);
	if (fsck->error || repair->rehearsal)
		return;
	stages_write(repair);
	if (!fsck->error)
		repair_write_supers(repair);
	if (!fsck->error)
		repair_write_state(repair, true);
}

/* A bad place of the device reads as zeroes, which is nothing: what stood there is lost, and will be written. A device that
 * fails more often is not one to be written to. */
static int read_or_lost(void *arg, uint64_t block, void *data)
{
	enum { UNREADABLE_MAX = 64 };
	struct repair *repair = arg;
	const int error = repair->io->read(repair->io->arg, block, data);
	if (error != -EIO || repair->unreadable == UNREADABLE_MAX)
		return error;
	repair->unreadable++;
	memset(data, 0, FS_BLOCK_SIZE);
	return 0;
}

static void show_progress(void *arg, const char *phase, uint64_t done, uint64_t total)
{
	const struct repair *repair = arg;
	if (repair->io->progress)
		repair->io->progress(repair->io->arg, phase, done, total);
}

static int run_once(const struct fsck_repair_options *options, const struct fsck_repair_io *io, bool rehearsal,
	struct fsck_repair_result *out)
{
	struct repair *repair = calloc(1, sizeof(*repair));
	if (!repair)
		return -ENOMEM;
	struct fsck_result checked = {0};
	const struct fsck_options check = {
		.device_blocks = options->device_blocks, .super_block = options->super_block, .replay_in_memory = true};
	const struct fsck_io reading = {.read = read_or_lost, .progress = show_progress, .arg = repair};
	struct fsck *fsck = &repair->fsck;
	fsck->options = &check;
	fsck->io = &reading;
	fsck->out = &checked;
	fsck->sequence_max = UINT64_MAX;
	repair->options = options;
	repair->io = io;
	repair->out = out;
	repair->rehearsal = rehearsal;
	repair_run_all(repair);
	const int error = fsck->error;
	rebuilds_free(repair);
	fsck_groups_fini(fsck);
	free(repair);
	return error;
}

int fsck_repair(const struct fsck_repair_options *options, const struct fsck_repair_io *io, struct fsck_repair_result *out)
{
	*out = (struct fsck_repair_result){0};
	if (options->lossless) {
		const int error = run_once(options, io, true, out);
		out->refused = out->losses > 0;
		if (error || out->refused || out->no_superblock)
			return error;
	}
	return run_once(options, io, false, out);
}
