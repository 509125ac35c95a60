/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Changes of a description that fit the structures: a number of a field's size at a place where fields are, out of what such
 * fields hold. What it produces is a description like any other; see fuzz_image.h.
 */
#include <string.h>

#include "tests/fuzz/fuzz_image.h"

enum { WORK_BYTES = 64, VALUE_BYTES = 64 };

struct mutation {
	uint64_t random;
	struct fuzz_recipe recipe;
	uint8_t value[FUZZ_PATCHES_MAX][256]; /* bytes of the patches, where they may grow */
};

static uint64_t draw(struct mutation *mutation, uint64_t bound) { return sim_rand(&mutation->random) % bound; }

/* ---- what fields hold ---- */

static uint64_t value_of_field(struct mutation *mutation)
{
	static const uint64_t telling[] = {0, 1, 2, 3, 7, 8, 15, 16, 24, 48, 63, 64, 127, 128, 255, 256, 4032, 4095, 4096, 32256, 65535,
		65536, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 47, 1ull << 51, INT64_MAX, 1ull << 63, UINT64_MAX - 1, UINT64_MAX};
	const struct fuzz_base *base = fuzz_base(mutation->recipe.base);
	const unsigned type = 1 + (unsigned)draw(mutation, BLOCK_TYPE_COUNT - 1);
	switch (draw(mutation, 5)) {
	case 0: return telling[draw(mutation, ARRAY_SIZE(telling))];
	case 1: return base->ino[draw(mutation, base->inodes)];
	case 2: return base->count[type] ? base->block[type][draw(mutation, base->count[type])] : 0;
	case 3: return draw(mutation, FUZZ_IMAGE_BLOCKS);
	default: return sim_rand(&mutation->random) >> draw(mutation, 64);
	}
}

/* Fields are where the structure's own are, and then in records; free space at the end is seldom worth a patch. */
static uint16_t place_of_field(struct mutation *mutation, unsigned what, unsigned size)
{
	uint64_t limit = FS_BLOCK_SIZE;
	if (what == FUZZ_PATCH_INODE)
		limit = sizeof(struct disk_inode);
	else if (what == FUZZ_PATCH_GROUP)
		limit = draw(mutation, 2) ? 128 : 60000;
	else if (draw(mutation, 4))
		limit = draw(mutation, 2) ? 144 : 640;
	return (uint16_t)align_down(draw(mutation, limit), draw(mutation, 8) ? size : 1);
}

static unsigned what_to_patch(struct mutation *mutation)
{
	static const uint8_t common[] = {BLOCK_INODES, FUZZ_PATCH_INODE, FUZZ_PATCH_INODE, FUZZ_PATCH_INODE, BLOCK_DIR_NODE,
		BLOCK_EXTENT_NODE, BLOCK_XATTR, BLOCK_XATTR_VALUE, BLOCK_ORPHANS, BLOCK_AG_HEADER};
	const struct fuzz_base *base = fuzz_base(mutation->recipe.base);
	if (base->groups && draw(mutation, 2))
		return draw(mutation, 3) ? FUZZ_PATCH_IMAGE : FUZZ_PATCH_GROUP;
	return draw(mutation, 3) ? common[draw(mutation, ARRAY_SIZE(common))] : (unsigned)draw(mutation, FUZZ_PATCH_WHAT_COUNT);
}

static void patch_fill(struct mutation *mutation, unsigned index)
{
	struct fuzz_patch *patch = &mutation->recipe.patch[index];
	const unsigned size = 1u << draw(mutation, 4);
	uint64_t value = value_of_field(mutation);
	*patch = (struct fuzz_patch){.what = (uint8_t)what_to_patch(mutation), .number = (uint8_t)draw(mutation, 256),
		.unsealed = !draw(mutation, 40), .length = (uint8_t)size, .bytes = mutation->value[index]};
	patch->offset = place_of_field(mutation, patch->what, size);
	const unsigned how = (unsigned)draw(mutation, 12);
	patch->how = how < 8 ? FUZZ_SET : how < 10 ? FUZZ_ADD : how < 11 ? FUZZ_MOVE : FUZZ_FILL;
	if (patch->how == FUZZ_ADD)
		value = draw(mutation, 17) - 8;
	memcpy(mutation->value[index], &value, sizeof(value));
}

/* ---- changes ---- */

static void patch_change(struct mutation *mutation, unsigned index)
{
	struct fuzz_patch *patch = &mutation->recipe.patch[index];
	const uint64_t value = value_of_field(mutation);
	switch (draw(mutation, 6)) {
	case 0: patch->number = (uint8_t)draw(mutation, 256); break;
	case 1: patch->offset = place_of_field(mutation, patch->what, 8); break;
	case 2: patch->offset = (uint16_t)(patch->offset + 8 * (draw(mutation, 9) - 4)); break;
	case 3: patch->unsealed = !patch->unsealed && !draw(mutation, 8); break;
	case 4: memcpy(mutation->value[index], &value, sizeof(value)); break;
	default:
		patch->length = (uint8_t)LLVMFuzzerMutate(mutation->value[index], MAX(patch->length, (uint8_t)1), VALUE_BYTES);
	}
}

static void mutate_once(struct mutation *mutation)
{
	struct fuzz_recipe *recipe = &mutation->recipe;
	const uint64_t kind = draw(mutation, 10);
	if (!recipe->patch_count || (kind < 3 && recipe->patch_count < FUZZ_PATCHES_MAX)) {
		patch_fill(mutation, recipe->patch_count++);
	} else if (kind == 3) {
		const unsigned index = (unsigned)draw(mutation, recipe->patch_count);
		for (unsigned i = index; i + 1 < recipe->patch_count; i++) {
			memcpy(mutation->value[i], mutation->value[i + 1], sizeof(mutation->value[i]));
			recipe->patch[i] = recipe->patch[i + 1];
			recipe->patch[i].bytes = mutation->value[i];
		}
		recipe->patch_count--;
	} else if (kind == 4) {
		recipe->base = draw(mutation, FUZZ_BASE_COUNT);
	} else if (kind == 5) {
		recipe->flags = (uint8_t)draw(mutation, 256);
	} else {
		patch_change(mutation, (unsigned)draw(mutation, recipe->patch_count));
	}
}

static size_t write_out(const struct mutation *mutation, const uint8_t *rest, uint8_t *data, size_t size_max)
{
	const struct fuzz_recipe *recipe = &mutation->recipe;
	size_t size = 3;
	data[0] = (uint8_t)recipe->base;
	data[1] = recipe->flags;
	data[2] = 0;
	for (unsigned i = 0; i < recipe->patch_count; i++) {
		const struct fuzz_patch *patch = &recipe->patch[i];
		if (!patch->length || size + FUZZ_PATCH_HEAD + patch->length > size_max)
			continue;
		data[2]++;
		data[size++] = (uint8_t)(patch->what | patch->how << 5 | (patch->unsealed ? FUZZ_PATCH_UNSEALED : 0));
		data[size++] = patch->number;
		data[size++] = (uint8_t)patch->offset;
		data[size++] = (uint8_t)(patch->offset >> 8);
		data[size++] = patch->length;
		memcpy(data + size, patch->bytes, patch->length);
		size += patch->length;
	}
	const size_t count = MIN(recipe->rest_size, size_max - size);
	if (count)
		memcpy(data + size, rest, count);
	return size + count;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t size_max, unsigned seed)
{
	static struct mutation mutation;
	static uint8_t rest[FUZZ_INPUT_MAX];
	mutation.random = seed;
	if (size_max < WORK_BYTES || size > sizeof(rest))
		return size;
	if (!draw(&mutation, 8))
		return LLVMFuzzerMutate(data, size, size_max);
	fuzz_recipe_read(data, size, &mutation.recipe);
	for (unsigned i = 0; i < mutation.recipe.patch_count; i++) {
		memcpy(mutation.value[i], mutation.recipe.patch[i].bytes, mutation.recipe.patch[i].length);
		mutation.recipe.patch[i].bytes = mutation.value[i];
	}
	struct fuzz_recipe *recipe = &mutation.recipe;
	if (recipe->rest_size)
		memcpy(rest, recipe->rest, recipe->rest_size);
	if (!draw(&mutation, 4))
		recipe->rest_size = LLVMFuzzerMutate(rest, recipe->rest_size, MIN(size_max, (size_t)256));
	else
		for (unsigned changes = 1 + (unsigned)draw(&mutation, 3); changes > 0; changes--)
			mutate_once(&mutation);
	return write_out(&mutation, rest, data, size_max);
}
