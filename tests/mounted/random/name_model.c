/* SPDX-License-Identifier: BSD-3-Clause */
/* name_exerciser: the tree in memory, and picking places in it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/mounted/random/name.h"

static void *grown(void *array, unsigned count, unsigned *room, size_t item)
{
	if (count < *room)
		return array;
	*room = *room ? *room * 2 : 8;
	array = realloc(array, *room * item);
	if (!array)
		exit(2);
	return array;
}

/* ---- nodes ---- */

struct name_node *node_create(struct name_run *run, mode_t mode)
{
	struct name_node *node = calloc(1, sizeof(*node));
	if (!node)
		exit(2);
	node->id = ++run->last_id;
	node->mode = mode;
	node->fd = -1;
	node->links = S_ISDIR(mode) ? 2 : 1;
	node->uid = geteuid();
	node->gid = getegid();
	const unsigned room = run->node_room;
	run->nodes = grown(run->nodes, run->node_count, &run->node_room, sizeof(*run->nodes));
	if (run->node_room != room)
		run->directories = realloc(run->directories, run->node_room * sizeof(*run->directories));
	node->index = run->node_count;
	run->nodes[run->node_count++] = node;
	if (S_ISDIR(mode)) {
		node->directory_index = run->directory_count;
		run->directories[run->directory_count++] = node;
	}
	return node;
}

struct name_node *node_create_in(struct name_run *run, const struct name_node *parent, mode_t mode)
{
	struct name_node *node = node_create(run, mode);
	if (parent->mode & S_ISGID) {
		node->gid = parent->gid;
		node->mode |= S_ISDIR(mode) ? S_ISGID : 0;
	}
	return node;
}

void node_free(struct name_run *run, struct name_node *node)
{
	run->nodes[node->index] = run->nodes[--run->node_count];
	run->nodes[node->index]->index = node->index;
	if (S_ISDIR(node->mode)) {
		run->directories[node->directory_index] = run->directories[--run->directory_count];
		run->directories[node->directory_index]->directory_index = node->directory_index;
	}
	if (node->fd >= 0)
		close(node->fd);
	free(node->data);
	free(node->target);
	free(node->xattrs);
	for (unsigned i = 0; i < node->entry_count; i++)
		free(node->entries[i].name);
	free(node->entries);
	free(node);
}

void node_put(struct name_run *run, struct name_node *node)
{
	node->links -= S_ISDIR(node->mode) ? 2 : 1;
	if (!node->links && node->fd < 0)
		node_free(run, node);
}

/* ---- entries ---- */

void entry_add(struct name_node *parent, const char *name, struct name_node *node)
{
	parent->entries = grown(parent->entries, parent->entry_count, &parent->entry_room, sizeof(*parent->entries));
	char *copy = strdup(name);
	if (!copy)
		exit(2);
	parent->entries[parent->entry_count++] = (struct name_entry){copy, node};
	if (S_ISDIR(node->mode)) {
		node->parent = parent;
		parent->links++;
	}
}

void entry_remove(struct name_node *parent, unsigned entry)
{
	if (S_ISDIR(parent->entries[entry].node->mode))
		parent->links--;
	free(parent->entries[entry].name);
	parent->entries[entry] = parent->entries[--parent->entry_count];
}

int entry_find(const struct name_node *parent, const char *name)
{
	for (unsigned i = 0; i < parent->entry_count; i++)
		if (strcmp(parent->entries[i].name, name) == 0)
			return (int)i;
	return -1;
}

/* ---- where nodes are ---- */

static const char *node_name(const struct name_node *directory)
{
	const struct name_node *parent = directory->parent;
	for (unsigned i = 0; i < parent->entry_count; i++)
		if (parent->entries[i].node == directory)
			return parent->entries[i].name;
	abort();
}

void node_path(const struct name_node *directory, char path[PATH_MAX])
{
	const char *names[64];
	unsigned depth = 0;
	for (; directory->parent; directory = directory->parent)
		names[depth++] = node_name(directory);
	size_t used = (size_t)snprintf(path, PATH_MAX, ".");
	while (depth--)
		used += (size_t)snprintf(path + used, PATH_MAX - used, "/%s", names[depth]);
}

bool node_is_below(const struct name_node *node, const struct name_node *directory)
{
	for (; node; node = node->parent)
		if (node == directory)
			return true;
	return false;
}

unsigned node_depth(const struct name_node *directory)
{
	unsigned depth = 0;
	for (; directory->parent; directory = directory->parent)
		depth++;
	return depth;
}

unsigned node_height(struct name_run *run, const struct name_node *directory)
{
	const unsigned own = node_depth(directory);
	unsigned height = 0;
	for (unsigned i = 0; i < run->directory_count; i++) {
		const struct name_node *other = run->directories[i];
		if (node_is_below(other, directory) && node_depth(other) - own > height)
			height = node_depth(other) - own;
	}
	return height;
}

/* ---- picking ---- */

/* The first directory below the root is preferred: it gets large. */
static struct name_node *directory_pick(struct name_run *run)
{
	if (run->directory_count > 1 && chance(run->exerciser, 3))
		return run->directories[1];
	return run->directories[pick(run->exerciser, run->directory_count)];
}

/* Names short and long, of bytes that are no text in any encoding, many alike. */
static void name_pick(struct name_run *run, char name[NAME_SIZE_MAX])
{
	static const unsigned weights[] = {60, 20, 8, 6};
	struct exerciser *exerciser = run->exerciser;
	unsigned length = 0;
	switch (pick_weighted(exerciser, weights, 4)) {
	case 0:
		snprintf(name, NAME_SIZE_MAX, "%lx", pick(exerciser, 100000));
		return;
	case 1: length = 1 + (unsigned)pick(exerciser, 60); break;
	case 2: length = 255; break;
	case 3: length = 1 + (unsigned)pick(exerciser, 255); break;
	}
	const bool text = chance(exerciser, 2);
	for (unsigned i = 0; i < length; i++) {
		const uint64_t byte = pick(exerciser, text ? 26 : 255);
		name[i] = text ? (char)('a' + byte) : byte + 1 == '/' ? '_' : (char)(byte + 1);
	}
	name[length] = '\0';
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		strcpy(name, "dots");
}

static void place_fill(struct name_place *place)
{
	char parent[PATH_MAX];
	node_path(place->parent, parent);
	if (snprintf(place->path, PATH_MAX, "%s/%s", parent, place->name) >= PATH_MAX)
		abort(); /* DEPTH_MAX is too large */
}

void place_pick(struct name_run *run, struct name_place *place, bool existing)
{
	struct name_node *parent = directory_pick(run);
	for (unsigned i = 0; existing && !parent->entry_count && i < 20; i++)
		parent = directory_pick(run);
	*place = (struct name_place){.parent = parent};
	if (existing && parent->entry_count) {
		place->entry = (unsigned)pick(run->exerciser, parent->entry_count);
		place->node = parent->entries[place->entry].node;
		strcpy(place->name, parent->entries[place->entry].name);
	} else {
		name_pick(run, place->name);
		const int found = entry_find(parent, place->name);
		place->entry = found < 0 ? 0 : (unsigned)found;
		place->node = found < 0 ? NULL : parent->entries[found].node;
	}
	place_fill(place);
}

bool place_pick_kind(struct name_run *run, struct name_place *place, mode_t kind)
{
	for (unsigned i = 0; i < 30; i++) {
		place_pick(run, place, true);
		if (place->node && (!kind || node_is(place->node, kind)))
			return true;
	}
	return false;
}
