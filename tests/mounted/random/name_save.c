/* SPDX-License-Identifier: BSD-3-Clause */
/* name_exerciser: the tree in memory as a file, to be compared after an unmount, a check and another mount. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/mounted/random/name.h"

enum { MAGIC = 0x6e616d65 };

static FILE *model_file(struct name_run *run, const char *prefix, const char *mode)
{
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s.%u", prefix, run->exerciser->worker);
	FILE *file = fopen(path, mode);
	if (!file) {
		perror(path);
		exit(2);
	}
	return file;
}

static void put(FILE *out, const void *bytes, size_t length)
{
	if (length && fwrite(bytes, length, 1, out) != 1) {
		perror("writing the model");
		exit(2);
	}
}

static void get(FILE *in, void *bytes, size_t length)
{
	if (length && fread(bytes, length, 1, in) != 1) {
		fprintf(stderr, "the model is cut short\n");
		exit(2);
	}
}

/* All nodes with what belongs to them, by index; then the entries of each directory as indexes and names. */
void tree_save(struct name_run *run, const char *prefix)
{
	FILE *out = model_file(run, prefix, "w");
	while (run->held_count)
		node_free(run, run->held[--run->held_count]); /* without names, they end with the process */
	const unsigned header[] = {MAGIC, run->node_count, run->root->index};
	put(out, header, sizeof(header));
	for (unsigned i = 0; i < run->node_count; i++) {
		const struct name_node *node = run->nodes[i];
		put(out, node, sizeof(*node));
		put(out, node->data ? node->data : run->buffer, S_ISREG(node->mode) ? node->size : 0);
		put(out, node->target, S_ISLNK(node->mode) ? node->size : 0);
		put(out, node->xattrs, node->xattr_count * sizeof(*node->xattrs));
	}
	for (unsigned i = 0; i < run->node_count; i++) {
		const struct name_node *node = run->nodes[i];
		for (unsigned k = 0; k < node->entry_count; k++) {
			char name[NAME_SIZE_MAX] = {0};
			strcpy(name, node->entries[k].name);
			put(out, &node->entries[k].node->index, sizeof(unsigned));
			put(out, name, sizeof(name));
		}
	}
	if (fclose(out)) {
		perror(prefix);
		exit(2);
	}
}

static void *copied(FILE *in, size_t length, size_t room)
{
	void *bytes = calloc(1, room + 1);
	if (!bytes)
		exit(2);
	get(in, bytes, length);
	return bytes;
}

static void node_load(struct name_run *run, FILE *in, unsigned *entry_count)
{
	struct name_node saved;
	get(in, &saved, sizeof(saved));
	struct name_node *node = node_create(run, saved.mode);
	saved.index = node->index;
	saved.directory_index = node->directory_index;
	*entry_count = saved.entry_count;
	*node = saved;
	node->fd = -1;
	node->entries = NULL;
	node->entry_count = node->entry_room = 0;
	node->parent = NULL;
	node->data = S_ISREG(node->mode) ? copied(in, node->size, DATA_MAX) : NULL;
	node->target = S_ISLNK(node->mode) ? copied(in, node->size, node->size) : NULL;
	node->xattrs = copied(in, node->xattr_count * sizeof(*node->xattrs), node->xattr_count * sizeof(*node->xattrs));
}

void tree_load(struct name_run *run, const char *prefix)
{
	FILE *in = model_file(run, prefix, "r");
	unsigned header[3];
	get(in, header, sizeof(header));
	if (header[0] != MAGIC) {
		fprintf(stderr, "%s.%u is not a model of a tree\n", prefix, run->exerciser->worker);
		exit(2);
	}
	unsigned *entry_counts = calloc(header[1] + 1, sizeof(*entry_counts));
	for (unsigned i = 0; i < header[1]; i++)
		node_load(run, in, &entry_counts[i]);
	for (unsigned i = 0; i < header[1]; i++) {
		for (unsigned k = 0; k < entry_counts[i]; k++) {
			unsigned index;
			char name[NAME_SIZE_MAX];
			get(in, &index, sizeof(index));
			get(in, name, sizeof(name));
			const uint64_t links = run->nodes[i]->links; /* saved as they are: adding does not count again */
			entry_add(run->nodes[i], name, run->nodes[index]);
			run->nodes[i]->links = links;
		}
	}
	run->root = run->nodes[header[2]];
	free(entry_counts);
	fclose(in);
}
