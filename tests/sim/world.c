/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/world.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "reactor/memory.h"

enum { SCRATCH_BYTES = 80 << 10, LIST_BYTES = 4 << 10 };

struct world *world_create(void)
{
	struct world *world = calloc(1, sizeof(*world));
	if (world) {
		world->data = dma_alloc(WORLD_DATA_MAX, FS_BLOCK_SIZE);
		world->scratch = dma_alloc(SCRATCH_BYTES, FS_BLOCK_SIZE);
	}
	if (!world || !world->data || !world->scratch)
		abort();
	return world;
}

void world_destroy(struct world *world)
{
	dma_free(world->data);
	dma_free(world->scratch);
	free(world);
}

const struct world_object *world_find(const struct world *world, uint64_t ino)
{
	for (unsigned i = 0; i < world->object_count; i++)
		if (world->objects[i].attr.ino == ino)
			return &world->objects[i];
	return NULL;
}

/* ---- taking ---- */

struct take {
	struct fs *fs;
	struct world *world;
	uint64_t ino;
	struct world_object *object;
	const struct world_name *name;
	int error;
};

static bool emit(const struct fs_dirent *dirent, void *arg)
{
	struct take *take = arg;
	struct world *world = take->world;
	const struct fs_name name = dirent->name;
	if (name.bytes[0] == '.' && name.length <= 2)
		return true;
	if (world->name_count == WORLD_NAMES_MAX || name.length >= sizeof(world->names[0].text)) {
		take->error = -E2BIG;
		return false;
	}
	struct world_name *out = &world->names[world->name_count++];
	*out = (struct world_name){.parent = take->ino, .ino = dirent->ino};
	memcpy(out->text, name.bytes, name.length);
	return true;
}

static MAY_WAIT int take_data(struct take *take)
{
	struct world *world = take->world;
	const uint32_t length = (uint32_t)MIN(take->object->attr.size, (uint64_t)WORLD_FILE_MAX);
	if (world->data_bytes + length > WORLD_DATA_MAX)
		return -E2BIG;
	uint8_t *data = world->data + world->data_bytes;
	uint32_t done;
	const int error = fs_read_quietly(take->fs, take->ino, data, 0, length, &done);
	if (error || done != length)
		return error ? error : -EIO;
	take->object->data = data;
	world->data_bytes += align_up((uint64_t)length, FS_BLOCK_SIZE);
	return 0;
}

static MAY_WAIT int take_xattrs(struct take *take)
{
	static const struct fs_cred root = {.privileged = true};
	char *list = (char *)take->world->scratch;
	uint8_t *value = take->world->scratch + LIST_BYTES;
	uint32_t length;
	int error = fs_xattr_list(take->fs, take->ino, &root, list, LIST_BYTES, &length);
	for (uint32_t at = 0; at < length && !error;) {
		const struct fs_name name = {.bytes = list + at, .length = (unsigned)strlen(list + at)};
		uint32_t bytes;
		error = fs_xattr_get(take->fs, take->ino, name, value, SCRATCH_BYTES - LIST_BYTES, &bytes);
		if (!error) /* the order of the names means nothing */
			take->object->token += XXH3_64bits_withSeed(value, bytes, XXH3_64bits(name.bytes, name.length));
		at += name.length + 1;
	}
	return error;
}

/* On the owner of the inode. */
static MAY_WAIT int take_object(void *arg)
{
	struct take *take = arg;
	struct world_object *object = take->object;
	int error = fs_getattr(take->fs, take->ino, &object->attr);
	if (!error)
		error = take_xattrs(take);
	if (error)
		return error;
	unsigned length;
	switch (object->attr.mode & S_IFMT) {
	case S_IFREG:
		return take_data(take);
	case S_IFLNK:
		error = fs_readlink(take->fs, take->ino, (char *)take->world->scratch, &length);
		if (!error)
			object->token += XXH3_64bits(take->world->scratch, length);
		return error;
	case S_IFDIR:
		error = fs_readdir(take->fs, take->ino, 0, false, emit, take);
		return error ? error : take->error;
	default:
		return 0;
	}
}

/* On the owner of the parent: the name leads where readdir said. */
static MAY_WAIT int take_name(void *arg)
{
	const struct take *take = arg;
	struct fs_entry entry;
	const struct fs_name name = {.bytes = take->name->text, .length = (unsigned)strlen(take->name->text)};
	const int error = fs_lookup(take->fs, take->name->parent, name, &entry);
	if (error)
		return error == -ENOENT ? -EUCLEAN : error;
	fs_forget(take->fs, entry.ino, 1);
	return entry.ino == take->name->ino ? 0 : -EUCLEAN;
}

static MAY_WAIT int take_inode(struct world *world, struct fs *fs, uint64_t ino)
{
	if (world_find(world, ino))
		return 0;
	if (world->object_count == WORLD_OBJECTS_MAX)
		return -E2BIG;
	struct take take = {.fs = fs, .world = world, .ino = ino, .object = &world->objects[world->object_count++]};
	*take.object = (struct world_object){.token = 0};
	return reactor_call(fs_owner(fs, ino), take_object, &take);
}

static int by_name(const void *a, const void *b)
{
	const struct world_name *first = a, *second = b;
	if (first->parent != second->parent)
		return first->parent < second->parent ? -1 : 1;
	return strcmp(first->text, second->text);
}

int world_take(struct world *world, struct fs *fs)
{
	world->name_count = world->object_count = 0;
	world->data_bytes = 0;
	int error = take_inode(world, fs, FS_ROOT_INODE);
	for (unsigned i = 0; i < world->name_count && !error; i++) {
		struct take take = {.fs = fs, .name = &world->names[i]};
		error = reactor_call(fs_owner(fs, take.name->parent), take_name, &take);
		if (!error)
			error = take_inode(world, fs, take.name->ino);
	}
	qsort(world->names, world->name_count, sizeof(world->names[0]), by_name);
	return error;
}

/* ---- comparing ---- */

const char *world_object_difference(const struct world_object *a, const struct world_object *b)
{
	if (!a || !b)
		return a == b ? NULL : "an inode is there that should not be, or not there";
	if (a->attr.mode != b->attr.mode)
		return "a mode";
	if (a->attr.uid != b->attr.uid || a->attr.gid != b->attr.gid)
		return "an owner";
	if (a->attr.nlink != b->attr.nlink)
		return "a number of links";
	if (a->attr.size != b->attr.size)
		return "a size";
	if (a->attr.blocks_512 != b->attr.blocks_512)
		return "a number of blocks";
	if (a->attr.rdev_major != b->attr.rdev_major || a->attr.rdev_minor != b->attr.rdev_minor)
		return "a device number";
	if (a->attr.flags != b->attr.flags || a->attr.generation != b->attr.generation)
		return "file flags or a generation";
	return a->token != b->token ? "extended attributes or a target" : NULL;
}

const char *world_difference(const struct world *a, const struct world *b, uint64_t except)
{
	if (a->name_count != b->name_count || memcmp(a->names, b->names, a->name_count * sizeof(a->names[0])))
		return "names";
	if (a->object_count != b->object_count)
		return "the inodes that are reachable";
	for (unsigned i = 0; i < a->object_count; i++) {
		const uint64_t ino = a->objects[i].attr.ino;
		const char *difference = ino == except ? NULL : world_object_difference(&a->objects[i], world_find(b, ino));
		if (difference)
			return difference;
	}
	return NULL;
}

void world_print(const struct world *world, const char *title)
{
	fprintf(stderr, "  %s:\n", title);
	for (unsigned i = 0; i < world->name_count; i++)
		fprintf(stderr, "    %" PRIu64 "/%s -> %" PRIu64 "\n", world->names[i].parent, world->names[i].text, world->names[i].ino);
	for (unsigned i = 0; i < world->object_count; i++) {
		const struct world_object *object = &world->objects[i];
		const struct fs_attr *attr = &object->attr;
		fprintf(stderr, "    inode %" PRIu64 ": mode %o uid %u gid %u nlink %u size %" PRIu64 " blocks %" PRIu64 " token %" PRIx64
			" content %" PRIx64 " m %ld.%09ld c %ld.%09ld a %ld.%09ld\n", attr->ino, attr->mode, attr->uid, attr->gid, attr->nlink,
			attr->size, attr->blocks_512, object->token,
			object->data ? XXH3_64bits(object->data, MIN(attr->size, (uint64_t)WORLD_FILE_MAX)) : 0, attr->mtime.tv_sec,
			attr->mtime.tv_nsec, attr->ctime.tv_sec, attr->ctime.tv_nsec, attr->atime.tv_sec, attr->atime.tv_nsec);
	}
}
