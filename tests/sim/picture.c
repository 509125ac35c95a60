/* SPDX-License-Identifier: BSD-3-Clause */
#include "tests/sim/picture.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { READ_BYTES = 256 * 1024, LIST_BYTES = 8192 };

/* ---- hashing ---- */

static uint64_t mix(uint64_t hash, uint64_t word)
{
	hash = (hash ^ word) * 0x9fb21c651e98df25ull;
	return hash ^ hash >> 29;
}

static uint64_t hash_bytes(uint64_t hash, const void *bytes, size_t length)
{
	const uint8_t *at = bytes;
	for (; length >= 8; at += 8, length -= 8) {
		uint64_t word;
		memcpy(&word, at, 8);
		hash = mix(hash, word);
	}
	for (; length; at++, length--)
		hash = mix(hash, *at);
	return hash;
}

/* Of a block, the last one filled up with zeroes; 0 when it has nothing else. */
static uint64_t hash_block(const uint8_t *bytes, size_t length)
{
	uint64_t hash = 1, any = 0;
	for (size_t i = 0; i < FS_BLOCK_SIZE; i += 8) {
		uint64_t word = 0;
		if (i < length)
			memcpy(&word, bytes + i, MIN(length - i, (size_t)8));
		any |= word;
		hash = mix(hash, word);
	}
	return any ? hash | 1 : 0;
}

/* ---- reading ---- */

struct names {
	struct { char name[256]; uint64_t ino; } *entries;
	unsigned count, room;
	uint64_t cookie;
};

static bool collect(const struct fs_dirent *dirent, void *arg)
{
	struct names *names = arg;
	names->cookie = dirent->cookie;
	const bool dots = dirent->cookie <= 2;
	if (dots)
		return true;
	if (names->count == names->room) {
		names->room = names->room ? 2 * names->room : 64;
		names->entries = realloc(names->entries, names->room * sizeof(*names->entries));
	}
	snprintf(names->entries[names->count].name, 256, "%.*s", (int)dirent->name.length, dirent->name.bytes);
	names->entries[names->count++].ino = dirent->ino;
	return true;
}

static int read_data(struct machine *machine, uint64_t ino, struct picture_node *node)
{
	static _Alignas(4096) uint8_t buffer[READ_BYTES];
	node->data_count = (uint32_t)div_round_up(node->size, FS_BLOCK_SIZE);
	node->data = calloc(node->data_count + 1, sizeof(*node->data));
	for (uint64_t at = 0; at < node->size; at += READ_BYTES) {
		uint32_t length;
		const int error = call_read(machine, ino, buffer, at, READ_BYTES, &length);
		if (error)
			return error;
		if (length != MIN(node->size - at, (uint64_t)READ_BYTES))
			return -EBADMSG;
		for (uint32_t i = 0; i < length; i += FS_BLOCK_SIZE)
			node->data[(at + i) / FS_BLOCK_SIZE] = hash_block(buffer + i, MIN(length - i, (uint32_t)FS_BLOCK_SIZE));
	}
	return 0;
}

/* The order in which attributes are listed may differ: sums. */
static int read_xattrs(struct machine *machine, uint64_t ino, struct picture_node *node)
{
	static char list[LIST_BYTES];
	static uint8_t value[FS_XATTR_VALUE_MAX];
	uint32_t length, value_length;
	int error = call_listxattr(machine, ino, list, sizeof(list), &length);
	for (uint32_t at = 0; !error && at < length; at += (uint32_t)strlen(list + at) + 1) {
		error = call_getxattr(machine, ino, list + at, value, sizeof(value), &value_length);
		if (!error)
			node->other += hash_bytes(hash_bytes(7, list + at, strlen(list + at)), value, value_length);
	}
	return error;
}

static int read_object(struct machine *machine, uint64_t ino, struct picture_node *node)
{
	struct fs_attr attr;
	int error = call_getattr(machine, ino, &attr);
	if (error)
		return error;
	node->mode = attr.mode;
	node->nlink = attr.nlink;
	node->uid = attr.uid;
	node->gid = attr.gid;
	node->major = attr.rdev_major;
	node->minor = attr.rdev_minor;
	node->flags = attr.flags;
	node->size = attr.size;
	node->blocks = attr.blocks_512;
	node->time = attr.mtime.tv_sec < PICTURE_OLD_TIME_MAX ? (uint64_t)attr.mtime.tv_sec : 0;
	error = read_xattrs(machine, ino, node);
	if (!error && S_ISREG(attr.mode))
		error = read_data(machine, ino, node);
	if (!error && S_ISLNK(attr.mode)) {
		static char target[FS_SYMLINK_MAX + 1];
		unsigned length;
		error = call_readlink(machine, ino, target, &length);
		if (!error)
			node->other += hash_bytes(3, target, length);
	}
	return error;
}

static struct picture_node *node_add(struct picture *picture, const char *directory, const char *name)
{
	if (picture->count == picture->room) {
		picture->room = picture->room ? 2 * picture->room : 128;
		picture->nodes = realloc(picture->nodes, picture->room * sizeof(*picture->nodes));
	}
	struct picture_node *node = &picture->nodes[picture->count++];
	*node = (struct picture_node){.path = malloc(strlen(directory) + strlen(name) + 2)};
	sprintf(node->path, "%s/%s", directory, name);
	return node;
}

static int read_directory(struct machine *machine, const char *path, uint64_t ino, const char *skip, struct picture *picture,
	uint64_t *inos)
{
	struct names names = {0};
	int error = call_readdir(machine, ino, 0, false, collect, &names);
	for (unsigned i = 0; i < names.count && !error; i++) {
		const char *name = names.entries[i].name;
		if (*path == '\0' && strncmp(name, skip, strlen(skip)) == 0)
			continue;
		inos[picture->count] = names.entries[i].ino;
		error = read_object(machine, names.entries[i].ino, node_add(picture, path, name));
		struct fs_entry entry;
		if (!error && !(error = call_lookup(machine, ino, name, &entry))) {
			error = entry.ino == names.entries[i].ino ? 0 : -EBADMSG;
			call_forget(machine, entry.ino, 1);
		}
	}
	free(names.entries);
	return error;
}

static int by_path(const void *a, const void *b)
{
	return strcmp(((const struct picture_node *)a)->path, ((const struct picture_node *)b)->path);
}

int picture_read(struct machine *machine, const char *skip, struct picture *out)
{
	enum { OBJECTS_MAX = 4096 };
	uint64_t *inos = calloc(OBJECTS_MAX, sizeof(*inos));
	*out = (struct picture){0};
	int error = read_directory(machine, "", FS_ROOT_INODE, skip, out, inos);
	for (unsigned i = 0; i < out->count && !error; i++)
		if (S_ISDIR(out->nodes[i].mode))
			error = read_directory(machine, out->nodes[i].path, inos[i], "\1", out, inos);
	free(inos);
	qsort(out->nodes, out->count, sizeof(*out->nodes), by_path);
	if (error)
		picture_free(out);
	return error;
}

void picture_free(struct picture *picture)
{
	for (unsigned i = 0; i < picture->count; i++) {
		free(picture->nodes[i].path);
		free(picture->nodes[i].data);
	}
	free(picture->nodes);
	*picture = (struct picture){0};
}

/* ---- judging ---- */

static char reason[512];

/* NULL: the same. */
static const char *node_difference(const struct picture_node *a, const struct picture_node *b)
{
	if (!a || !b)
		return a == b ? NULL : "existence";
	const struct { const char *name; uint64_t a, b; } fields[] = {{"mode", a->mode, b->mode}, {"nlink", a->nlink, b->nlink},
		{"uid", a->uid, b->uid}, {"gid", a->gid, b->gid}, {"device", a->major, b->major}, {"device", a->minor, b->minor},
		{"flags", a->flags, b->flags}, {"size", a->size, b->size}, {"blocks", a->blocks, b->blocks},
		{"time", a->time, b->time}, {"attributes or target", a->other, b->other}};
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		if (fields[i].a != fields[i].b)
			return fields[i].name;
	const bool same = !a->data_count || !memcmp(a->data, b->data, a->data_count * sizeof(*a->data));
	return same ? NULL : "data";
}

static const struct picture_node *find(const struct picture *picture, const char *path)
{
	const struct picture_node key = {.path = (char *)(uintptr_t)path};
	return picture->count ? bsearch(&key, picture->nodes, picture->count, sizeof(*picture->nodes), by_path) : NULL;
}

/* What is in @a but not like that in @b; both ways together: equality. */
static const char *one_way(const struct picture *a, const struct picture *b, const char *words)
{
	for (unsigned i = 0; i < a->count; i++) {
		const char *what = node_difference(&a->nodes[i], find(b, a->nodes[i].path));
		if (what) {
			snprintf(reason, sizeof(reason), "%.40s: %s: %s", a->nodes[i].path, what, words);
			return reason;
		}
	}
	return NULL;
}

static const char *equal(const struct picture *wanted, const struct picture *found, const char *words)
{
	const char *why = one_way(wanted, found, words);
	return why ? why : one_way(found, wanted, words);
}

static uint64_t data_of(const struct picture_node *node, uint32_t index)
{
	return node && index < node->data_count ? node->data[index] : 0;
}

/* A file of which an operation has changed some blocks, not all. */
static const char *partly(const struct picture_node *before, const struct picture_node *after, const struct picture_node *found)
{
	if (!found)
		return before && after ? "existence" : NULL;
	if (!before && !after)
		return "existence";
	if (!S_ISREG(found->mode))
		return NULL;
	if (found->size != (before ? before->size : 0) && found->size != (after ? after->size : 0) && before && after &&
		(found->size < MIN(before->size, after->size) || found->size > MAX(before->size, after->size)))
		return "size";
	for (uint32_t i = 0; i < found->data_count; i++) {
		const uint64_t data = found->data[i];
		/* The block that the size ends in may be cut off anywhere. */
		if (data && data != data_of(before, i) && data != data_of(after, i) && i + 1 < found->data_count)
			return "foreign data";
	}
	return NULL;
}

static const char *judge_partly(const struct picture *before, const struct picture *after, const struct picture *found)
{
	const struct picture *all[] = {before, after, found};
	for (unsigned t = 0; t < ARRAY_SIZE(all); t++)
		for (unsigned i = 0; i < all[t]->count; i++) {
			const char *path = all[t]->nodes[i].path;
			const struct picture_node *b = find(before, path), *a = find(after, path), *f = find(found, path);
			const char *what = node_difference(b, a) ? partly(b, a, f) : node_difference(b, f);
			if (what) {
				snprintf(reason, sizeof(reason), "%.40s: %s: neither as before nor as after", path, what);
				return reason;
			}
		}
	return NULL;
}

const char *picture_judge(const struct picture *before, const struct picture *after, const struct picture *found,
	enum picture_expectation expectation)
{
	switch (expectation) {
	case PICTURE_BEFORE:
		return equal(before, found, "the operation failed and has changed something");
	case PICTURE_AFTER:
		return equal(after, found, "what was acknowledged is not there");
	case PICTURE_EITHER:
		return !equal(before, found, "") ? NULL : equal(after, found, "neither as before nor as after");
	case PICTURE_PARTLY:
		return judge_partly(before, after, found);
	}
	return "no such expectation";
}
