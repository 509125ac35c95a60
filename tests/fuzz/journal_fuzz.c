/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Journals that lie under good checksums, into both replays: a mount's (fs/journal_replay.c) and the checker's. Input:
 * fuzz_image.h; the rest: records and groups that are added behind the base's own (struct item).
 * The two must agree: where a mount refuses the journal the checker has findings; where it takes it, the checker finds
 * nothing about the journal; and where the checker finds nothing at all, the repair writes home what the mount saw.
 * Covers: fs/journal_replay.c fs/verify*.c mkfs/fsck_journal.c mkfs/fsck_super.c mkfs/repair_start.c
 * Runs: 2000
 */
#include <errno.h>
#include <string.h>

#include "fs/replay.h"
#include "mkfs/fsck.h"
#include "tests/fuzz/fuzz_image.h"

enum { GROUPS_MAX = 8, GROUP_BYTES = 160 * FS_BLOCK_SIZE, ITEM_HEAD = 6 };
/* One of them in the input: what (1 byte), block's type and number (1 each, as in a patch), offset (2), length (1), bytes. */
enum item_what {
	ITEM_RANGE,                     /* a record of some bytes */
	ITEM_RANGE_LONG,                /* the same, 16 times as long; zeroes follow */
	ITEM_IMAGE,                     /* a record of the whole block as it stands, with the bytes set at the offset */
	ITEM_IMAGE_PLAIN,               /* the same without the bytes */
	ITEM_CLOSE,                     /* the group ends here */
	ITEM_GROUP_LIE,                 /* the bytes go to the header of the group, over what is true */
	ITEM_RECORD_LIE,                /* a record whose header is the bytes; length bytes follow */
	ITEM_COUNT,
};
struct item {
	unsigned what;
	uint64_t block;
	unsigned offset, length;
	const uint8_t *bytes;
};
struct builder {
	const struct fuzz_base *base;
	uint8_t *image;
	uint32_t at;                    /* block of the ring where the next group goes */
	uint64_t sequence, mount_generation;
	uint32_t crc;                   /* of the group before */
	_Alignas(8) uint8_t group[GROUP_BYTES];
	uint32_t length, records;
	uint8_t lie[64];
	bool lies[64];
	unsigned groups;
};

static struct builder builder;
static bool about_journal;

/* ---- groups ---- */

static struct fs_state *state_current(uint8_t *image, const struct fs_super *super)
{
	struct fs_state *best = NULL;
	for (unsigned i = FS_STATE_BLOCK_A; i <= FS_STATE_BLOCK_B; i++) {
		struct fs_state *state = (struct fs_state *)(image + (size_t)i * FS_BLOCK_SIZE);
		if (!state_verify(super, state, i) && (!best || le64_get(state->generation) > le64_get(best->generation)))
			best = state;
	}
	return best;
}

/* Behind the base's groups, as they stand in the image now. */
static bool builder_open(const struct fuzz_base *base, uint8_t *image)
{
	struct fs_state *state = state_current(image, base->super);
	if (!state)
		return false;
	memset(&builder, 0, sizeof(builder));
	builder.base = base;
	builder.image = image;
	builder.at = (uint32_t)le64_get(state->tail_block);
	builder.sequence = le64_get(state->tail_sequence);
	builder.mount_generation = le64_get(state->mount_generation);
	builder.crc = le32_get(state->tail_crc);
	if (base->groups) {
		const struct fuzz_group *last = &base->group[base->groups - 1];
		const struct journal_group *group = (const struct journal_group *)(image + fuzz_ring_place(base, last->at, 0));
		builder.at = last->at + (uint32_t)div_round_up(last->length, FS_BLOCK_SIZE);
		builder.sequence = le64_get(group->sequence) + 1;
		builder.crc = le32_get(group->crc);
	}
	state->clean = le32_set(0);
	block_seal(state, le64_get(state->header.sequence));
	builder.length = sizeof(struct journal_group);
	return true;
}

static void group_close(void)
{
	struct journal_group *group = (struct journal_group *)builder.group;
	*group = (struct journal_group){.magic = le32_set(FS_JOURNAL_MAGIC), .journal_id = builder.base->super->journal_id,
		.mount_generation = le64_set(builder.mount_generation), .sequence = le64_set(builder.sequence++),
		.previous_crc = le32_set(builder.crc), .length = le32_set(builder.length), .records = le32_set(builder.records)};
	for (unsigned i = 8; i < sizeof(*group); i++)
		if (builder.lies[i])
			builder.group[i] = builder.lie[i];
	builder.crc = fs_crc32c(0, group, MIN(le32_get(group->length), (uint32_t)GROUP_BYTES));
	group->crc = le32_set(builder.crc);
	const uint32_t blocks = (uint32_t)div_round_up(builder.length, FS_BLOCK_SIZE);
	for (uint32_t i = 0; i < blocks; i++)
		memcpy(builder.image + fuzz_ring_place(builder.base, builder.at + i, 0), builder.group + i * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	builder.at += blocks;
	builder.groups++;
	memset(builder.group, 0, blocks * FS_BLOCK_SIZE);
	memset(builder.lies, 0, sizeof(builder.lies));
	builder.length = sizeof(*group);
	builder.records = 0;
}

static void record_add(const struct journal_record *record, const void *data, size_t count, size_t length)
{
	if (builder.length + sizeof(*record) + align_up(length, 8) > GROUP_BYTES / 2)
		return;
	memcpy(builder.group + builder.length, record, sizeof(*record));
	memcpy(builder.group + builder.length + sizeof(*record), data, MIN(count, length));
	builder.length += (uint32_t)(sizeof(*record) + align_up(length, 8));
	builder.records++;
}

static void item_add(const struct item *item)
{
	struct journal_record record = {.block = le64_set(item->block), .offset = le16_set((uint16_t)item->offset)};
	uint8_t block[FS_BLOCK_SIZE];
	const unsigned length = MAX(item->length, 1u) * (item->what == ITEM_RANGE_LONG ? 16u : 1u);
	switch (item->what) {
	case ITEM_CLOSE: group_close(); break;
	case ITEM_GROUP_LIE:
		for (unsigned i = 0; i < item->length; i++) {
			builder.lie[(item->offset + i) % 64] = item->bytes[i];
			builder.lies[(item->offset + i) % 64] = true;
		}
		break;
	case ITEM_RECORD_LIE:
		memcpy(&record, item->bytes, MIN((size_t)item->length, sizeof(record)));
		record_add(&record, item->bytes, item->length, item->length);
		break;
	case ITEM_IMAGE:
	case ITEM_IMAGE_PLAIN:
		memcpy(block, builder.image + item->block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
		if (item->what == ITEM_IMAGE)
			memcpy(block + item->offset, item->bytes, MIN((size_t)item->length, FS_BLOCK_SIZE - (size_t)item->offset));
		record.offset = le16_set(0);
		record.length = le16_set(FS_BLOCK_SIZE);
		record_add(&record, block, FS_BLOCK_SIZE, FS_BLOCK_SIZE);
		break;
	default:
		record.length = le16_set((uint16_t)length);
		record_add(&record, item->bytes, item->length, length);
	}
}

static void items_add(const struct fuzz_recipe *recipe)
{
	const uint8_t *data = recipe->rest;
	size_t size = recipe->rest_size;
	while (size >= ITEM_HEAD && builder.groups < GROUPS_MAX) {
		const unsigned type = data[1] % BLOCK_TYPE_COUNT, count = type ? builder.base->count[type] : 0;
		struct item item = {.what = data[0] % ITEM_COUNT, .offset = (data[3] | (unsigned)data[4] << 8) % FS_BLOCK_SIZE,
			.length = (unsigned)MIN((size_t)data[5], size - ITEM_HEAD), .bytes = data + ITEM_HEAD};
		item.block = count ? builder.base->block[type][data[2] % count] : (data[1] << 8 | data[2]) % FUZZ_IMAGE_BLOCKS;
		item_add(&item);
		data += ITEM_HEAD + item.length;
		size -= ITEM_HEAD + item.length;
	}
	if (builder.records)
		group_close();
}

/* ---- both replays ---- */

static int image_read(void *arg, uint64_t block, void *data)
{
	if (block >= FUZZ_IMAGE_BLOCKS)
		return -EINVAL;
	memcpy(data, (uint8_t *)arg + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

/* What the mount replayed in memory, by block; NULL: no image. */
static uint8_t *mounted[FUZZ_IMAGE_BLOCKS];
static bool written[FUZZ_IMAGE_BLOCKS];
static bool replaying;                  /* the repair writes the images home before anything else, and flushes */

/* All but sequence and crc. */
static int image_write(void *arg, uint64_t block, const void *data)
{
	const size_t body = sizeof(struct block_header);
	FUZZ_REQUIRE(block < FUZZ_IMAGE_BLOCKS, "block %llu is written", (unsigned long long)block);
	const bool same =
		mounted[block] && !memcmp(mounted[block] + body, (const uint8_t *)data + body, FS_BLOCK_SIZE - body);
	FUZZ_REQUIRE(!replaying || same, "block %llu: the repair replays something else than the mount", (unsigned long long)block);
	written[block] = true;
	memcpy((uint8_t *)arg + block * FS_BLOCK_SIZE, data, FS_BLOCK_SIZE);
	return 0;
}

static int image_flush(void *arg)
{
	for (uint64_t block = 0; replaying && block < FUZZ_IMAGE_BLOCKS; block++)
		FUZZ_REQUIRE(written[block] || !mounted[block], "block %llu is not replayed by the repair", (unsigned long long)block);
	replaying = false;
	return 0;
}

static void note_finding(void *arg, const char *line)
{
	about_journal |= !strncmp(line, "journal: ", 9);
	if (fuzz_verbose)
		fprintf(stderr, "%s\n", line);
}

static int mount_replay(struct sim *machine)
{
	struct sim sim = *machine;
	const struct fs_mount_options options = {.read_only = true, .requests_max = 16, .inodes_max = 512};
	const int error = sim_mount(&sim, &options);
	if (error) {
		FUZZ_REQUIRE(sim.message[0], "a mount is refused without a word");
		if (fuzz_verbose)
			fprintf(stderr, "mount: %s\n", sim.message);
		return error;
	}
	for (uint64_t block = 0; sim.fs->overlay && block < FUZZ_IMAGE_BLOCKS; block++) {
		const void *image = replay_image(sim.fs->overlay, block);
		if (image)
			mounted[block] = memcpy(malloc(FS_BLOCK_SIZE), image, FS_BLOCK_SIZE);
	}
	(void)sim_unmount(&sim);
	return 0;
}

static void compare_replays(uint8_t *image)
{
	const struct fsck_options options = {.device_blocks = FUZZ_IMAGE_BLOCKS, .replay_in_memory = true};
	const struct fsck_io io = {.read = image_read, .finding = note_finding, .arg = image};
	const struct fsck_repair_options repair_options = {.device_blocks = FUZZ_IMAGE_BLOCKS, .lossless = true, .now_sec = 1800000000};
	const struct fsck_repair_io repair_io = {image_read, image_write, image_flush, note_finding, NULL, image};
	struct fsck_result result;
	struct fsck_repair_result repaired;
	about_journal = false;
	FUZZ_REQUIRE(fsck_check(&options, &io, &result) == 0, "the check did not end");
	const bool refused = mount_replay(fuzz_sim(1)) != 0;
	FUZZ_REQUIRE(!refused || result.findings, "a mount refuses what the checker has nothing to say about");
	FUZZ_REQUIRE(refused || !about_journal, "a mount takes a journal that the checker does not");
	if (!result.findings) {
		replaying = true;
		memset(written, 0, sizeof(written));
		const int error = fsck_repair(&repair_options, &repair_io, &repaired);
		FUZZ_REQUIRE(!error && !repaired.refused, "the repair refuses what is intact: error %d", error);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_recipe recipe;
	fuzz_recipe_read(data, size, &recipe);
	uint8_t *image = fuzz_image_make(&recipe);
	if (!builder_open(fuzz_base(recipe.base), image))
		return -1;
	items_add(&recipe);
	compare_replays(image);
	for (uint64_t block = 0; block < FUZZ_IMAGE_BLOCKS; block++) {
		free(mounted[block]);
		mounted[block] = NULL;
	}
	return 0;
}
