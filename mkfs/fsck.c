/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The frame of a check: the order of its steps, reports, reading blocks with their headers checked, and the claims by
 * which every block is reached exactly once.
 */
#include <isa-l/crc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "mkfs/fsck_internal.h"

void fsck_groups_init(struct fsck *fsck)
{
	fsck->ag = fsck_allocate(fsck, fsck->ag_count, sizeof(*fsck->ag));
	for (uint32_t i = 0; fsck->ag && i < fsck->ag_count; i++) {
		fsck->ag[i].number = i;
		fsck->ag[i].first = ag_first_block(&fsck->super, i);
		fsck->ag[i].blocks = ag_block_count(&fsck->super, i);
	}
}

static void fsck_root(struct fsck *fsck)
{
	struct fsck_inode *root;
	enum fsck_lookup found = fsck_inode_find(fsck, FS_ROOT_INODE, &root);
	if (found != FSCK_LOOKUP_UNKNOWN && (found != FSCK_LOOKUP_USED || !S_ISDIR(root->mode)))
		fsck_find(fsck, "superblock: root_place %" PRIu64 " is no directory", fsck->root_place);
}

static void fsck_totals(struct fsck *fsck)
{
	if (le32_get(fsck->state.clean) != 1 || fsck->totals_unknown)
		return;
	uint64_t free_blocks = le64_get(fsck->state.free_blocks);
	uint64_t used_inodes = le64_get(fsck->state.used_inodes);
	if (free_blocks != fsck->free_blocks)
		fsck_find(fsck, "state: free_blocks is %" PRIu64 ", allocation groups have %" PRIu64, free_blocks,
			fsck->free_blocks);
	if (used_inodes != fsck->used_inodes)
		fsck_find(fsck, "state: used_inodes is %" PRIu64 ", allocation groups have %" PRIu64, used_inodes,
			fsck->used_inodes);
}

static void fsck_run(struct fsck *fsck)
{
	fsck_progress(fsck, "superblock", 0);
	fsck_super(fsck);
	if (fsck->error || fsck->out->fatal)
		return;
	struct fsck_result *out = fsck->out;
	fsck_state(fsck);
	if (!fsck->error && !out->fatal && fsck->options->replay_in_memory && out->needs_replay)
		fsck_journal_super(fsck);
	if (!fsck->error)
		fsck_groups_init(fsck);
	/* What replay does to them is known only later. */
	if (!fsck->error && !out->needs_replay)
		fsck_super_copies(fsck);
	if (fsck->error || out->fatal)
		return;
	out->skipped = fsck->options->clean_is_enough && !out->findings && !out->needs_replay && !out->recorded_error;
	if (out->skipped)
		return;
	const bool unclean = out->needs_replay;
	fsck_progress(fsck, "journal", 0);
	fsck_journal(fsck);
	if (unclean && !fsck->error)
		fsck_super_copies(fsck);
	fsck_each_group(fsck, "inodes", fsck_ag_inodes);
	fsck_each_group(fsck, "orphans", fsck_ag_orphans);
	if (!fsck->error && !fsck->clashed)
		fsck_root(fsck);
	fsck_each_group(fsck, "directories", fsck_directories);
	/* In memory alone; and a path to the root goes through other groups. */
	for (uint32_t i = 0; i < fsck->ag_count && !fsck->error && !fsck->clashed; i++) {
		fsck_progress(fsck, "links", i);
		fsck_links(fsck, &fsck->ag[i]);
	}
	fsck_each_group(fsck, "maps", fsck_ag_block_map);
	if (!fsck->error && !fsck->clashed)
		fsck_totals(fsck);
}

void fsck_groups_fini(struct fsck *fsck)
{
	for (uint32_t i = 0; fsck->ag && i < fsck->ag_count; i++) {
		free(fsck->ag[i].reached);
		free(fsck->ag[i].replayed);
		free(fsck->ag[i].table);
		free(fsck->ag[i].report);
	}
	free(fsck->ag);
	fsck_overlay_fini(&fsck->overlay);
}

/* One attempt; the first @lines_skip findings were passed on by an attempt before. */
static void fsck_attempt(struct fsck *fsck, const struct fsck_options *options, const struct fsck_io *io,
	struct fsck_result *out, uint64_t lines_skip)
{
	/* Only what comes before the buffers: clearing those would cost more than checking a small image. */
	memset(fsck, 0, offsetof(struct fsck, line));
	*out = (struct fsck_result){0};
	fsck->options = options;
	fsck->io = io;
	fsck->out = out;
	fsck->lines_skip = lines_skip;
	fsck->sequence_max = UINT64_MAX;
	fsck->overlap_budget = 4 * options->device_blocks;
	fsck_run(fsck);
	fsck_groups_fini(fsck);
}

int fsck_check(const struct fsck_options *options, const struct fsck_io *io, struct fsck_result *out)
{
	*out = (struct fsck_result){0};
	struct fsck *fsck = malloc(sizeof(*fsck));
	if (!fsck)
		return -ENOMEM;
	fsck_attempt(fsck, options, io, out, 0);
	if (fsck->clashed && !fsck->error) {
		struct fsck_options alone = *options;
		alone.jobs = 1;
		fsck_attempt(fsck, &alone, io, out, fsck->lines_passed);
	}
	out->inodes = out->files + out->directories;
	int error = fsck->error;
	free(fsck);
	return error;
}

/* Counts a finding. True: its line is wanted. */
static bool finding_count(struct fsck *fsck)
{
	fsck->out->findings++;
	return fsck->io->finding && (!fsck->options->findings_max || fsck->out->findings <= fsck->options->findings_max);
}

void fsck_pass(struct fsck *fsck, const char *line)
{
	if (finding_count(fsck) && fsck->lines_passed++ >= fsck->lines_skip)
		fsck->io->finding(fsck->io->arg, line);
}

/* Adds the line to the report of the group at hand. */
static void report_add(struct fsck *fsck, size_t length)
{
	struct fsck_ag *ag = fsck->reporting;
	if (ag->report_used + length > ag->report_size) {
		const size_t size = MAX(2 * ag->report_size, 8 * sizeof(fsck->line));
		char *report = size > FSCK_REPORT_MAX ? NULL : realloc(ag->report, size);
		fsck->clashed = !report;
		if (!report)
			return;
		ag->report = report;
		ag->report_size = size;
	}
	memcpy(ag->report + ag->report_used, fsck->line, length);
	ag->report_used += length;
}

void fsck_find(struct fsck *fsck, const char *format, ...)
{
	/* Without anybody who wants to see lines, making them would be most of the cost of a damaged filesystem. */
	if (!fsck->io->finding || fsck->clashed) {
		fsck->out->findings++;
		return;
	}
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(fsck->line, sizeof(fsck->line), format, arguments);
	va_end(arguments);
	if (!fsck->reporting) {
		fsck_pass(fsck, fsck->line);
		return;
	}
	fsck->out->findings++;
	report_add(fsck, strlen(fsck->line) + 1);
}

void fsck_progress(struct fsck *fsck, const char *phase, uint64_t done)
{
	if (fsck->io->progress)
		fsck->io->progress(fsck->io->arg, phase, done, fsck->ag_count);
}

void *fsck_allocate(struct fsck *fsck, size_t count, size_t size)
{
	void *memory = calloc(count, size);
	if (!memory)
		fsck->error = -ENOMEM;
	return memory;
}

uint32_t fsck_crc32c(const void *data, size_t length, const uint32_t *crc_field)
{
	const uint8_t *bytes = data;
	size_t before = (size_t)((const uint8_t *)crc_field - bytes), after = before + sizeof(*crc_field);
	uint8_t zero[sizeof(*crc_field)] = {0};
	uint32_t crc = crc32_iscsi((unsigned char *)bytes, (int)before, ~0u);
	crc = crc32_iscsi(zero, sizeof(zero), crc);
	return ~crc32_iscsi((unsigned char *)bytes + after, (int)(length - after), crc);
}

bool fsck_is_zero(const void *data, size_t length)
{
	const uint8_t *bytes = data;
	return !length || (!bytes[0] && !memcmp(bytes, bytes + 1, length - 1));
}

static const char *block_name(unsigned type)
{
	static const char *const names[BLOCK_TYPE_COUNT] = {
		[FSCK_DATA] = "data",
		[BLOCK_SUPER] = "superblock",
		[BLOCK_STATE] = "state block",
		[BLOCK_AG_HEADER] = "AG header",
		[BLOCK_BLOCK_MAP] = "block map",
		[BLOCK_INODE_MAP] = "inode map",
		[BLOCK_INODE_FREE_MAP] = "inode free map",
		[BLOCK_INODES] = "inode block",
		[BLOCK_EXTENT_NODE] = "extent tree node",
		[BLOCK_DIR_NODE] = "directory node",
		[BLOCK_XATTR] = "xattr block",
		[BLOCK_XATTR_VALUE] = "xattr value block",
		[BLOCK_ORPHANS] = "orphan block",
	};
	return names[type];
}

const void *fsck_read(struct fsck *fsck, uint64_t block, void *buffer, bool *out_replayed)
{
	const uint8_t *image = fsck->overlay.count ? fsck_overlay_find(&fsck->overlay, block) : NULL;
	*out_replayed = image;
	if (image)
		return image;
	int error = fsck->io->read(fsck->io->arg, block, buffer);
	if (!error)
		return buffer;
	fsck->error = error;
	return NULL;
}

/* The reason why the contents cannot be what was looked for, or NULL. crc and sequence of an image mean nothing. */
const char *fsck_header_useless(const struct fsck *fsck, const struct block_header *header, uint64_t block,
	enum block_type type, bool replayed)
{
	if (le32_get(header->magic) != FS_BLOCK_MAGIC)
		return "magic";
	if (!replayed && le32_get(header->crc) != fsck_crc32c(header, FS_BLOCK_SIZE, &header->crc.raw))
		return "crc";
	if (le16_get(header->type) != type)
		return "type";
	if (le64_get(header->block) != block)
		return "block number";
	if (le64_get(header->fsid) != fsck->fsid)
		return "fsid";
	return NULL;
}

const void *fsck_read_block(struct fsck *fsck, uint64_t block, void *buffer, enum block_type type, uint64_t owner)
{
	bool replayed;
	const struct block_header *header = fsck_read(fsck, block, buffer, &replayed);
	if (!header)
		return NULL;
	const char *field = fsck_header_useless(fsck, header, block, type, replayed);
	if (field) {
		fsck_find(fsck, "block %" PRIu64 " (%s): wrong %s", block, block_name(type), field);
		return NULL;
	}
	if (le64_get(header->owner) != owner)
		fsck_find(fsck, "block %" PRIu64 " (%s): owner is %" PRIu64 ", not %" PRIu64, block, block_name(type),
			le64_get(header->owner), owner);
	if (le16_get(header->reserved0) || le32_get(header->reserved1))
		fsck_find(fsck, "block %" PRIu64 " (%s): reserved header fields are not zero", block, block_name(type));
	uint64_t sequence = le64_get(header->sequence);
	if (!replayed && sequence > fsck->sequence_max)
		fsck_find(fsck,
			"block %" PRIu64 " (%s): sequence %" PRIu64 " is newer than the journal's last group %" PRIu64,
			block, block_name(type), sequence, fsck->sequence_max);
	return header;
}

struct fsck_ag *fsck_ag_of(struct fsck *fsck, uint64_t block)
{
	if (block < fsck->first_ag_block)
		return NULL;
	uint64_t number = (block - fsck->first_ag_block) / fsck->ag_blocks;
	if (number >= fsck->ag_count || block - fsck->ag[number].first >= fsck->ag[number].blocks)
		return NULL;
	return &fsck->ag[number];
}

/* Marks bits [from, from + count) in words; the first bit that was marked before is stored in *clash. */
static bool claim_bits(struct fsck *fsck, uint64_t *words, uint32_t from, uint32_t count, uint32_t *clash)
{
	bool clear = true;
	for (uint32_t end = from + count, next; from < end; from = next) {
		next = MIN(end, (uint32_t)align_down(from, 64) + 64);
		uint64_t mask = ~0ull >> (64 - (next - from)) << (from % 64);
		uint64_t before = __atomic_fetch_or(&words[from / 64], mask, __ATOMIC_RELAXED) & mask;
		if (before && clear)
			*clash = (uint32_t)align_down(from, 64) + (uint32_t)__builtin_ctzll(before);
		clear = clear && !before;
		if (!clear && !fsck->overlap_budget--) {
			fsck->overlap_budget = 0;
			break;
		}
	}
	return clear;
}

static bool bits_any(const uint64_t *words, uint32_t from, uint32_t count, uint32_t *out_first)
{
	for (uint32_t end = from + count, next; from < end; from = next) {
		next = MIN(end, (uint32_t)align_down(from, 64) + 64);
		uint64_t mask = ~0ull >> (64 - (next - from)) << (from % 64);
		if (!(words[from / 64] & mask))
			continue;
		*out_first = (uint32_t)align_down(from, 64) + (uint32_t)__builtin_ctzll(words[from / 64] & mask);
		return true;
	}
	return false;
}

/* The bits of a group, made when the first block of it is claimed; by two jobs at once, one of them counts. */
static uint64_t *reached_get(struct fsck *fsck, struct fsck_ag *ag)
{
	uint64_t *there = __atomic_load_n(&ag->reached, __ATOMIC_ACQUIRE);
	uint64_t *made = there ? NULL : fsck_allocate(fsck, div_round_up(ag->blocks, 64), sizeof(uint64_t));
	if (!made)
		return there;
	if (__atomic_compare_exchange_n(&ag->reached, &there, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		return made;
	free(made);
	return there;
}

bool fsck_claim(struct fsck *fsck, uint64_t block, uint64_t count, unsigned type, uint64_t owner)
{
	const char *what = block_name(type);
	struct fsck_ag *ag = fsck_ag_of(fsck, block);
	uint32_t at = ag ? (uint32_t)(block - ag->first) : 0;
	if (!ag || at < fsck->fixed_blocks || count > ag->blocks - at) {
		fsck_find(fsck, "%s of %" PRIu64 ": blocks %" PRIu64 "+%" PRIu64 " lie outside of the blocks of an AG",
			what, owner, block, count);
		return false;
	}
	uint64_t *reached = reached_get(fsck, ag);
	if (!reached)
		return false;
	uint32_t first = 0;
	if (!claim_bits(fsck, reached, at, (uint32_t)count, &first)) {
		fsck->clashed = fsck->reporting;
		fsck_find(fsck, "%s of %" PRIu64 ": block %" PRIu64 " is in use twice", what, owner, ag->first + first);
		return false;
	}
	if (type == FSCK_DATA && ag->replayed && bits_any(ag->replayed, at, (uint32_t)count, &first)) {
		fsck_find(fsck, "%s of %" PRIu64 ": block %" PRIu64 " would be overwritten by replay", what, owner,
			ag->first + first);
		return false;
	}
	return true;
}
