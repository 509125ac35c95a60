/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Replay: reads the state blocks, follows the chain of groups from the tail, builds the image of every block that they name,
 * and writes the images home. It runs before anything else of the filesystem; a crash during it changes nothing that a second
 * replay would not write again, since the tail moves only with the state block that the mount writes afterwards.
 *
 * A group belongs to the chain if magic, journal id, mount generation, sequence and the crc of the group before are what is
 * expected and its own crc is good. The first that is not is the end. An end below the highest sequence known durable is a
 * lost journal: an error, never an empty one.
 */
#include "fs/replay.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/journal_internal.h"

/* ---- images ---- */

struct image {
	struct image *next;
	uint64_t block;
	uint8_t *data;                  /* DMA */
};
struct replay_image_table {
	struct image *buckets[4096];
	uint64_t count;
};

static struct image **image_slot(struct replay_image_table *table, uint64_t block)
{
	struct image **slot = &table->buckets[(block * 0x9e3779b97f4a7c15ull) >> 52];
	while (*slot && (*slot)->block != block)
		slot = &(*slot)->next;
	return slot;
}

const void *replay_image(const struct replay_image_table *table, uint64_t block)
{
	const struct image *image = *image_slot((struct replay_image_table *)table, block);
	return image ? image->data : NULL;
}

void replay_image_table_destroy(struct replay_image_table *table)
{
	if (!table)
		return;
	for (unsigned i = 0; i < ARRAY_SIZE(table->buckets); i++)
		while (table->buckets[i]) {
			struct image *image = table->buckets[i];
			table->buckets[i] = image->next;
			dma_free(image->data);
			free(image);
		}
	free(table);
}

/* ---- reading the ring ---- */

enum { WINDOW_BLOCKS = 256 };

struct replay {
	struct fs *fs;
	struct bdev_channel *channel;
	struct replay_result *result;
	struct replay_image_table *table;
	uint8_t *window;                /* WINDOW_BLOCKS of the ring, from window_first */
	uint64_t window_first, window_count;
	uint64_t device_blocks;
	bool state_damaged;             /* one state block is none: it may have been the newer one */
	uint8_t *group;                 /* group_bytes; grows */
	uint64_t group_bytes;
	char *message;
	size_t message_size;
};

static MAY_WAIT int ring_read(struct replay *replay, uint64_t at, uint64_t blocks, uint8_t *out)
{
	const uint64_t ring_blocks = le64_get(replay->fs->super.journal_blocks);
	const uint64_t first = le64_get(replay->fs->super.journal_first);
	for (uint64_t i = 0; i < blocks; i++) {
		const uint64_t block = (at + i) % ring_blocks;
		if (block < replay->window_first || block >= replay->window_first + replay->window_count) {
			replay->window_first = block;
			replay->window_count = MIN((uint64_t)WINDOW_BLOCKS, ring_blocks - block);
			const int error = bdev_read(replay->channel, replay->window, (first + block) << FS_BLOCK_SHIFT,
				replay->window_count << FS_BLOCK_SHIFT);
			if (error) {
				replay->window_count = 0;
				snprintf(replay->message, replay->message_size, "%s: cannot read the journal at block %" PRIu64 ": %s",
					replay->fs->bdev_name, first + block, strerror(-error));
				return error;
			}
		}
		memcpy(out + (i << FS_BLOCK_SHIFT), replay->window + ((block - replay->window_first) << FS_BLOCK_SHIFT), FS_BLOCK_SIZE);
	}
	return 0;
}

static int no_memory(struct replay *replay)
{
	snprintf(replay->message, replay->message_size, "%s: no memory to replay the journal", replay->fs->bdev_name);
	return -ENOMEM;
}

static int group_room(struct replay *replay, uint64_t bytes)
{
	if (bytes <= replay->group_bytes)
		return 0;
	uint8_t *group = realloc(replay->group, bytes);
	if (!group)
		return no_memory(replay);
	replay->group = group;
	replay->group_bytes = bytes;
	return 0;
}

/* Reads a group whose first block was read; whether its crc is right. */
static MAY_WAIT int group_whole(struct replay *replay, uint64_t place, uint64_t blocks, bool *out_good)
{
	int error = group_room(replay, blocks << FS_BLOCK_SHIFT);
	if (!error)
		error = ring_read(replay, place, blocks, replay->group);
	if (error)
		return error;
	struct journal_group *group = (struct journal_group *)replay->group;
	const le32_t crc = group->crc;
	group->crc = le32_set(0);
	*out_good = fs_crc32c(0, group, le32_get(group->length)) == le32_get(crc) || sabotage(SABOTAGE_NO_GROUP_CRC);
	group->crc = crc;
	return 0;
}

/* Whether the group at the expected place continues the chain. *out_blocks: its length in blocks. */
static MAY_WAIT int group_read(struct replay *replay, uint64_t *out_blocks, bool *out_good)
{
	const struct replay_result *result = replay->result;
	struct journal_group *group = (struct journal_group *)replay->group;
	*out_good = false;
	int error = ring_read(replay, result->tail_block, 1, replay->group);
	if (error)
		return error;
	const uint32_t length = le32_get(group->length);
	if (le32_get(group->magic) != FS_JOURNAL_MAGIC || group->journal_id.raw != replay->fs->super.journal_id.raw ||
		le64_get(group->mount_generation) != result->mount_generation || le64_get(group->sequence) != result->next_sequence ||
		(le32_get(group->previous_crc) != result->previous_crc && !sabotage(SABOTAGE_NO_PREVIOUS_CRC)) ||
		length < sizeof(*group) || result->next_sequence >= FS_COUNT_END - 1)
		return 0;
	*out_blocks = div_round_up(length, FS_BLOCK_SIZE);
	if (*out_blocks >= le64_get(replay->fs->super.journal_blocks))
		return 0;
	return group_whole(replay, result->tail_block, *out_blocks, out_good);
}

static int bad_record(struct replay *replay, uint64_t block, const char *what)
{
	snprintf(replay->message, replay->message_size, "%s: journal group %" PRIu64 ": %s (block %" PRIu64 "): run fsck.lanefs",
		replay->fs->bdev_name, replay->result->next_sequence, what, block);
	return -EUCLEAN;
}

static int record_apply(struct replay *replay, const struct journal_record *record)
{
	const uint64_t block = le64_get(record->block);
	const uint32_t offset = le16_get(record->offset), length = le16_get(record->length);
	/* Whether it is in an AG, or where a superblock stands, is known when all superblocks of the journal were seen. */
	if (block != FS_SUPER_BLOCK && (block < le64_get(replay->fs->super.first_ag_block) || block >= replay->device_blocks))
		return bad_record(replay, block, "a record outside the allocation groups");
	struct image **slot = image_slot(replay->table, block);
	if (!*slot) {
		if (length != FS_BLOCK_SIZE && !sabotage(SABOTAGE_NO_FULL_IMAGE))
			return bad_record(replay, block, "a byte range without an earlier full image");
		struct image *image = calloc(1, sizeof(*image));
		uint8_t *data = dma_zalloc(FS_BLOCK_SIZE, FS_BLOCK_SIZE);
		if (!image || !data) {
			free(image);
			if (data)
				dma_free(data);
			return no_memory(replay);
		}
		*image = (struct image){.block = block, .data = data};
		*slot = image;
		replay->table->count++;
	}
	memcpy((*slot)->data + offset, record + 1, length);
	return 0;
}

static int group_apply(struct replay *replay)
{
	const struct journal_group *group = (struct journal_group *)replay->group;
	const uint32_t length = le32_get(group->length);
	uint32_t at = sizeof(*group), count = 0;
	if (le32_get(group->reserved0) || le64_get(group->reserved1[0]) || le64_get(group->reserved1[1]))
		return bad_record(replay, 0, "reserved fields are in use");
	while (at < length) {
		const struct journal_record *record = (struct journal_record *)(replay->group + at);
		if (at + sizeof(*record) > length)
			return bad_record(replay, 0, "a record runs over the end");
		const uint32_t bytes = le16_get(record->length), offset = le16_get(record->offset);
		if (!bytes || offset + bytes > FS_BLOCK_SIZE || at + sizeof(*record) + align_up(bytes, 8) > length)
			return bad_record(replay, le64_get(record->block), "a record with a bad length");
		if (le32_get(record->reserved0))
			return bad_record(replay, le64_get(record->block), "a record with a reserved field in use");
		const int error = record_apply(replay, record);
		if (error)
			return error;
		at += (uint32_t)(sizeof(*record) + align_up(bytes, 8));
		count++;
	}
	if (count != le32_get(group->records))
		return bad_record(replay, 0, "the number of records is wrong");
	replay->result->records += count;
	return 0;
}

static MAY_WAIT int follow_chain(struct replay *replay)
{
	struct replay_result *result = replay->result;
	const uint64_t ring_blocks = le64_get(replay->fs->super.journal_blocks);
	uint64_t total = 0;
	for (;;) {
		uint64_t blocks = 0;
		bool good;
		int error = group_read(replay, &blocks, &good);
		if (error)
			return error;
		if (!good || total + blocks >= ring_blocks)
			break;
		error = group_apply(replay);
		if (error)
			return error;
		total += blocks;
		result->tail_block = (result->tail_block + blocks) % ring_blocks;
		result->previous_crc = le32_get(((struct journal_group *)replay->group)->crc);
		result->next_sequence++;
		result->groups++;
	}
	if (result->next_sequence - 1 >= result->durable_sequence || sabotage(SABOTAGE_LOST_JOURNAL))
		return 0;
	snprintf(replay->message, replay->message_size,
		"%s: the journal ends at group %" PRIu64 " but %" PRIu64 " was durable: lost journal, run fsck.lanefs",
		replay->fs->bdev_name, result->next_sequence - 1, result->durable_sequence);
	return -EUCLEAN;
}

/* ---- a state block that is lost ---- */

/* Whether a whole group of this journal begins at @place, and is younger than the state that we go by can explain: of a later
 * mount, whose generation was durable before its groups; or written over the end of the chain, which only a later tail allows. */
static MAY_WAIT int group_is_younger(struct replay *replay, uint64_t place, uint64_t *out_blocks, bool *out_younger)
{
	const struct replay_result *result = replay->result;
	const uint64_t ring_blocks = le64_get(replay->fs->super.journal_blocks);
	*out_blocks = 1;
	*out_younger = false;
	int error = ring_read(replay, place, 1, replay->group);
	if (error)
		return error;
	const struct journal_group *group = (const struct journal_group *)replay->group;
	const uint64_t generation = le64_get(group->mount_generation), sequence = le64_get(group->sequence);
	const uint32_t length = le32_get(group->length);
	const uint64_t blocks = div_round_up(length, FS_BLOCK_SIZE);
	if (le32_get(group->magic) != FS_JOURNAL_MAGIC || group->journal_id.raw != replay->fs->super.journal_id.raw ||
		length < sizeof(*group) || blocks >= ring_blocks)
		return 0;
	const bool over_the_end = (result->tail_block + ring_blocks - place) % ring_blocks < blocks;
	if (generation < result->mount_generation ||
		(generation == result->mount_generation && (sequence <= result->next_sequence || !over_the_end)))
		return 0;
	return group_whole(replay, place, blocks, out_younger);
}

/* One state block is damaged. When a write of it was cut, the other one is the truth; when it rotted, groups may tell. */
static MAY_WAIT int look_for_younger(struct replay *replay)
{
	const uint64_t ring_blocks = le64_get(replay->fs->super.journal_blocks);
	uint64_t blocks;
	for (uint64_t place = 0; place < ring_blocks; place += blocks) {
		bool younger;
		const int error = group_is_younger(replay, place, &blocks, &younger);
		if (error)
			return error;
		if (!younger)
			continue;
		snprintf(replay->message, replay->message_size, "%s: the newer state block is damaged: the journal holds what the older "
			"one does not know of: run fsck.lanefs", replay->fs->bdev_name);
		return -EUCLEAN;
	}
	return 0;
}

/* ---- writing home ---- */

/* A block of this filesystem? The rest of it is judged by its verifier when somebody reads it, as ever: a bad block is trouble
 * for those who need it, not for all. */
static int image_verify(struct replay *replay, struct image *image)
{
	const char *field = block_header_verify(&replay->fs->super, image->data, image->block);
	return field ? bad_record(replay, image->block, field) : 0;
}

int replay_write_home(struct fs *fs, struct replay_image_table *table, uint64_t sequence, char *message, size_t message_size)
{
	enum { BATCH = 64 };
	struct bdev_channel *channel = fs->owners[0]->channel;
	struct io *ios = calloc(BATCH, sizeof(*ios));
	int error = ios ? 0 : -ENOMEM;
	unsigned count = 0;
	struct io_group group;
	io_group_init(&group);
	for (unsigned i = 0; i < ARRAY_SIZE(table->buckets) && !error; i++)
		for (struct image *image = table->buckets[i]; image && !error; image = image->next) {
			block_seal(image->data, sequence);
			io_prepare(&ios[count], channel, IO_WRITE, image->data, image->block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
			io_group_submit(&group, &ios[count]);
			if (++count < BATCH)
				continue;
			error = io_group_wait(&group);
			io_group_init(&group);
			count = 0;
		}
	const int last = io_group_wait(&group);
	error = error ? error : last;
	if (!error && !sabotage(SABOTAGE_REPLAY_NO_FLUSH))
		error = bdev_flush(channel);
	free(ios);
	if (error)
		snprintf(message, message_size, "%s: replay cannot write: %s", fs->bdev_name, strerror(-error));
	return error;
}

/* A filesystem that grew: its geometry is what the journal says. */
static int super_replayed(struct replay *replay)
{
	struct fs *fs = replay->fs;
	const struct image *image = *image_slot(replay->table, FS_SUPER_BLOCK);
	if (!image)
		return 0;
	struct fs_super *super = (struct fs_super *)image->data;
	block_seal(super, replay->result->next_sequence - 1);
	const char *field = super_verify(super, FS_SUPER_BLOCK, UINT64_MAX);
	/* Growing changes no features, and those at home were judged. */
	if (!field && (super->incompat.raw != fs->super.incompat.raw || super->ro_compat.raw != fs->super.ro_compat.raw))
		field = "features";
	if (field || super->fsid.raw != fs->super.fsid.raw)
		return bad_record(replay, FS_SUPER_BLOCK, field ? field : "fsid");
	if (le64_get(super->block_count) > replay->device_blocks) {
		snprintf(replay->message, replay->message_size, "%s: the filesystem has grown to %" PRIu64 " blocks, the device has %"
			PRIu64 ": the image was cut off", fs->bdev_name, le64_get(super->block_count), replay->device_blocks);
		return -EINVAL;
	}
	fs->super = *super;
	return 0;
}

static MAY_WAIT int replay_run(struct replay *replay)
{
	int error = replay->result->was_clean ? 0 : follow_chain(replay);
	if (!error && replay->state_damaged)
		error = look_for_younger(replay);
	if (!error)
		error = super_replayed(replay);
	for (unsigned i = 0; i < ARRAY_SIZE(replay->table->buckets) && !error; i++)
		for (struct image *image = replay->table->buckets[i]; image && !error; image = image->next)
			error = image_verify(replay, image);
	if (error || !replay->table->count)
		return error;
	if (fs_read_only(replay->fs)) {
		replay->fs->overlay = replay->table;
		replay->table = NULL;
		return 0;
	}
	return replay_write_home(replay->fs, replay->table, replay->result->next_sequence - 1, replay->message, replay->message_size);
}

/* ---- state ---- */

/* *out_damaged: one of the two is no state block. */
static MAY_WAIT int state_read(struct fs *fs, struct bdev_channel *channel, struct fs_state *out, bool *out_damaged, char *message,
	size_t message_size)
{
	uint8_t *buffer = dma_alloc(2 * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	if (!buffer)
		return -ENOMEM;
	int error = bdev_read(channel, buffer, (uint64_t)FS_STATE_BLOCK_A << FS_BLOCK_SHIFT, 2 * FS_BLOCK_SIZE);
	const struct fs_state *best = NULL;
	for (unsigned i = 0; i < 2 && !error; i++) {
		const struct fs_state *state = (struct fs_state *)(buffer + i * FS_BLOCK_SIZE);
		if (state_verify(&fs->super, state, FS_STATE_BLOCK_A + i)) {
			*out_damaged = true;
			continue;
		}
		if (!best || le64_get(state->generation) > le64_get(best->generation))
			best = state;
	}
	if (!error && !best)
		error = -EUCLEAN;
	if (error)
		snprintf(message, message_size, "%s: %s", fs->bdev_name, error == -EUCLEAN ?
			"both state blocks are damaged: run fsck.lanefs" : "cannot read the state blocks");
	else
		*out = *best;
	dma_free(buffer);
	return error;
}

int journal_replay(struct fs *fs, struct replay_result *out, char *message, size_t message_size)
{
	struct bdev_channel *channel = fs->owners[0]->channel;
	memset(out, 0, sizeof(*out));
	bool damaged = false;
	int error = state_read(fs, channel, &out->state, &damaged, message, message_size);
	if (error)
		return error;
	out->tail_block = le64_get(out->state.tail_block);
	out->next_sequence = le64_get(out->state.tail_sequence);
	out->previous_crc = le32_get(out->state.tail_crc);
	out->durable_sequence = le64_get(out->state.durable_sequence);
	out->mount_generation = le64_get(out->state.mount_generation);
	out->was_clean = le32_get(out->state.clean);
	out->free_blocks = le64_get(out->state.free_blocks);
	out->used_inodes = le64_get(out->state.used_inodes);
	if (out->was_clean && !damaged)
		return 0;
	struct replay replay = {.fs = fs, .channel = channel, .result = out, .state_damaged = damaged, .message = message,
		.message_size = message_size};
	replay.device_blocks = bdev_size_bytes(bdev_get_limits(fs_get_bdev(fs))) >> FS_BLOCK_SHIFT;
	replay.table = calloc(1, sizeof(*replay.table));
	replay.window = dma_alloc(WINDOW_BLOCKS * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	replay.group_bytes = FS_BLOCK_SIZE;
	replay.group = malloc(replay.group_bytes);
	if (!replay.table || !replay.window || !replay.group) {
		error = no_memory(&replay);
	} else {
		error = replay_run(&replay);
	}
	replay_image_table_destroy(replay.table);
	if (replay.window)
		dma_free(replay.window);
	free(replay.group);
	fs->replayed_groups = out->groups;
	fs->replayed_records = out->records;
	return error;
}
