/* SPDX-License-Identifier: BSD-3-Clause */
/* From a description to an image: see fuzz_image.h. */
#include "tests/fuzz/fuzz_image.h"

#include <string.h>
#include <sys/mman.h>

#include "reactor/reactor_internal.h"

enum { COPIES = 3, GUARD_BYTES = 1 << 20 };

/* ---- reading a description ---- */

void fuzz_recipe_read(const uint8_t *data, size_t size, struct fuzz_recipe *out)
{
	*out = (struct fuzz_recipe){0};
	if (size < 3)
		return;
	out->base = data[0] % FUZZ_BASE_COUNT;
	out->flags = data[1];
	const unsigned count = MIN(data[2], (unsigned)FUZZ_PATCHES_MAX);
	data += 3;
	size -= 3;
	while (out->patch_count < count && size > FUZZ_PATCH_HEAD) {
		struct fuzz_patch *patch = &out->patch[out->patch_count++];
		*patch = (struct fuzz_patch){.what = (data[0] & 31) % FUZZ_PATCH_WHAT_COUNT, .how = data[0] >> 5 & 3, .number = data[1],
			.unsealed = data[0] & FUZZ_PATCH_UNSEALED, .offset = (uint16_t)(data[2] | data[3] << 8),
			.length = (uint8_t)MIN((size_t)data[4], size - FUZZ_PATCH_HEAD), .bytes = data + FUZZ_PATCH_HEAD};
		data += FUZZ_PATCH_HEAD + patch->length;
		size -= FUZZ_PATCH_HEAD + patch->length;
	}
	out->rest = data;
	out->rest_size = size;
}

/* ---- making an image ---- */

struct work {
	const struct fuzz_base *base;
	uint8_t *image;
	unsigned resealed_from;         /* journal groups */
};

/* What a patch changes: bytes of a block, or of a group, which may run over the end of the ring. */
struct window {
	struct work *work;
	bool ring;
	uint32_t at;                    /* block of the image, or of the ring */
	uint64_t offset, size;          /* where offset 0 of the patch is; how far it reaches */
};

static uint8_t *window_byte(const struct window *window, uint64_t offset)
{
	const uint64_t at = window->offset + offset;
	if (window->ring)
		return window->work->image + fuzz_ring_place(window->work->base, window->at, at);
	return window->work->image + (uint64_t)window->at * FS_BLOCK_SIZE + at;
}

static bool window_of_group(struct work *work, const struct fuzz_patch *patch, struct window *out)
{
	const struct fuzz_base *base = work->base;
	unsigned group;
	if (patch->what == FUZZ_PATCH_IMAGE) {
		if (!base->images)
			return false;
		const struct fuzz_spot *spot = &base->image[patch->number % base->images];
		group = spot->group;
		*out = (struct window){.offset = spot->offset, .size = FS_BLOCK_SIZE};
	} else {
		if (!base->groups)
			return false;
		group = patch->number % base->groups;
		*out = (struct window){.size = align_up(base->group[group].length, FS_BLOCK_SIZE)};
	}
	out->work = work;
	out->ring = true;
	out->at = base->group[group].at;
	if (!patch->unsealed)
		work->resealed_from = MIN(work->resealed_from, group);
	return true;
}

static bool window_open(struct work *work, const struct fuzz_patch *patch, struct window *out)
{
	const struct fuzz_base *base = work->base;
	if (patch->what == FUZZ_PATCH_GROUP || patch->what == FUZZ_PATCH_IMAGE)
		return window_of_group(work, patch, out);
	*out = (struct window){.work = work, .size = FS_BLOCK_SIZE};
	if (patch->what == FUZZ_PATCH_BLOCK) {
		out->at = (patch->number | (patch->offset >> 12 & 15) << 8) % FUZZ_IMAGE_BLOCKS;
		return true;
	}
	if (patch->what == FUZZ_PATCH_INODE) {
		const uint64_t place = base->ino[patch->number % base->inodes];
		out->at = (uint32_t)ag_first_block(base->super, ino_ag(place)) + ino_ag_block(place);
		out->offset = offsetof(struct inode_block, inode) + ino_slot(place) * sizeof(struct disk_inode);
		out->size = sizeof(struct disk_inode);
		return true;
	}
	if (patch->what >= BLOCK_TYPE_COUNT || !base->count[patch->what])
		return false;
	out->at = base->block[patch->what][patch->number % base->count[patch->what]];
	return true;
}

static void apply_add(const struct window *window, uint64_t offset, const struct fuzz_patch *patch)
{
	unsigned carry = 0;
	for (unsigned i = 0; i < patch->length && i < 8 && offset + i < window->size; i++) {
		uint8_t *byte = window_byte(window, offset + i);
		carry += *byte + patch->bytes[i];
		*byte = (uint8_t)carry;
		carry >>= 8;
	}
}

static void apply_move(const struct window *window, const struct fuzz_patch *patch)
{
	struct fuzz_patch other = *patch;
	struct window from;
	other.number = patch->length ? patch->bytes[0] : 0;
	other.unsealed = true;
	if (!window_open(window->work, &other, &from))
		return;
	const uint64_t first = patch->what == FUZZ_PATCH_INODE ? 0 : sizeof(struct block_header);
	for (uint64_t i = first; i < MIN(window->size, from.size); i++)
		*window_byte(window, i) = *window_byte(&from, i);
}

static void apply_patch(struct work *work, const struct fuzz_patch *patch)
{
	struct window window;
	if (!window_open(work, patch, &window))
		return;
	const uint64_t offset = patch->what == FUZZ_PATCH_BLOCK ? patch->offset & (FS_BLOCK_SIZE - 1) : patch->offset % window.size;
	switch (patch->how) {
	case FUZZ_SET:
		for (unsigned i = 0; i < patch->length && offset + i < window.size; i++)
			*window_byte(&window, offset + i) = patch->bytes[i];
		break;
	case FUZZ_ADD: apply_add(&window, offset, patch); break;
	case FUZZ_MOVE: apply_move(&window, patch); break;
	default:
		for (unsigned i = 0; i < patch->length * 16u && offset + i < window.size; i++)
			*window_byte(&window, offset + i) = patch->bytes[0];
	}
	struct block_header *header = (struct block_header *)(work->image + (uint64_t)window.at * FS_BLOCK_SIZE);
	if (!window.ring && !patch->unsealed && patch->what != FUZZ_PATCH_BLOCK)
		block_seal(header, le64_get(header->sequence));
}

/* Checksum of what a group says is its length, as far as the ring is long. */
static uint32_t group_crc(const struct work *work, uint32_t at, uint32_t length)
{
	uint8_t piece[FS_BLOCK_SIZE];
	uint32_t crc = 0;
	for (uint32_t done = 0; done < length; done += (uint32_t)sizeof(piece)) {
		const uint32_t count = MIN(length - done, (uint32_t)sizeof(piece));
		memcpy(piece, work->image + fuzz_ring_place(work->base, at, done), count);
		if (!done)
			memset(piece + offsetof(struct journal_group, crc), 0, sizeof(le32_t));
		crc = fs_crc32c(crc, piece, count);
	}
	return crc;
}

static void reseal_groups(struct work *work)
{
	const struct fuzz_base *base = work->base;
	const uint64_t ring_bytes = le64_get(base->super->journal_blocks) * FS_BLOCK_SIZE;
	for (unsigned i = work->resealed_from; i < base->groups; i++) {
		struct journal_group *group = (struct journal_group *)(work->image + fuzz_ring_place(base, base->group[i].at, 0));
		if (i > work->resealed_from) {
			const struct journal_group *before =
				(const struct journal_group *)(work->image + fuzz_ring_place(base, base->group[i - 1].at, 0));
			group->previous_crc = before->crc;
		}
		const uint32_t length = (uint32_t)MIN((uint64_t)le32_get(group->length), ring_bytes);
		group->crc = le32_set(group_crc(work, base->group[i].at, length));
	}
}

static void *place_of_copy(unsigned number)
{
	static uint8_t *area;
	const size_t stride = FUZZ_IMAGE_BYTES + GUARD_BYTES;
	if (!area)
		area = mmap(NULL, COPIES * stride + GUARD_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	FUZZ_REQUIRE(area != MAP_FAILED, "no memory for images");
	return area + GUARD_BYTES + number * stride;
}

/* A fresh private mapping costs only the pages that are then touched. */
static uint8_t *image_make(const struct fuzz_recipe *recipe, unsigned number)
{
	struct work work = {.base = fuzz_base(recipe->base), .resealed_from = UINT32_MAX};
	work.image = mmap(place_of_copy(number), FUZZ_IMAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, work.base->fd, 0);
	FUZZ_REQUIRE(work.image != MAP_FAILED, "no memory for an image");
	for (unsigned i = 0; i < recipe->patch_count; i++)
		apply_patch(&work, &recipe->patch[i]);
	reseal_groups(&work);
	return work.image;
}

uint8_t *fuzz_image_make(const struct fuzz_recipe *recipe) { return image_make(recipe, 0); }

uint8_t *fuzz_image_copy(const struct fuzz_recipe *recipe, unsigned number) { return image_make(recipe, 1 + number); }

/* ---- the machine ---- */

struct sim *fuzz_sim(unsigned owners)
{
	static struct sim sim[2];
	struct sim *one = &sim[owners - 1];
	if (!one->group) {
		const struct sim_options options = {.owners = owners, .seed = 1, .memory = place_of_copy(0), .size = FUZZ_IMAGE_BYTES};
		sim_create(one, &options);
	}
	one->group->sim.random = 1;
	return one;
}
