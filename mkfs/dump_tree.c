/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Trees of extents and of directory entries, from left to right, and the paths that directories make. A walk descends
 * one level with each step and visits no more nodes than the target has blocks, so it ends whatever the pointers say.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "mkfs/dump_internal.h"

/* ---- records ---- */

void dump_extents(const uint8_t *records, unsigned count)
{
	const struct disk_extent *extents = (const struct disk_extent *)records;

	for (unsigned i = 0; i < count; i++) {
		const uint64_t logical = le64_get(extents[i].logical), physical = le64_get(extents[i].physical);
		const uint32_t length = le32_get(extents[i].length);
		dump_field("extent", "file blocks %" PRIu64 "-%" PRIu64 " at %" PRIu64 "-%" PRIu64 "%s", logical,
			logical + length - 1, physical, physical + length - 1,
			le32_get(extents[i].flags) & EXTENT_UNWRITTEN ? ", unwritten" : "");
	}
}

static void pointers_print(const struct tree_node *node)
{
	const struct tree_pointer *pointers = (const struct tree_pointer *)node->payload;

	for (unsigned i = 0; i < le16_get(node->count); i++)
		dump_field("child", "from key %#" PRIx64 ": block %" PRIu64, le64_get(pointers[i].key),
			le64_get(pointers[i].child));
}

static char dirent_letter(unsigned type)
{
	return type < 16 ? "?pc?d?b?-?l?s???"[type] : '?';
}

void dump_dirents(const uint8_t *records, unsigned bytes)
{
	for (unsigned at = 0; at < bytes;) {
		const struct disk_dirent *dirent = (const struct disk_dirent *)(records + at);
		printf("  %c %12" PRIu64 "  %016" PRIx64 "  ", dirent_letter(dirent->type), le64_get(dirent->ino),
			le64_get(dirent->key));
		dump_quoted(dirent->name, dirent->name_length);
		putchar('\n');
		at += dirent_bytes(dirent->name_length);
	}
}

void dump_node(const struct tree_node *node, enum block_type type)
{
	const unsigned level = le16_get(node->level);

	dump_field("level", "%u%s, %u records in %u bytes", level, level ? "" : " (leaf)", le16_get(node->count),
		le16_get(node->bytes));
	if (level)
		pointers_print(node);
	else if (type == BLOCK_EXTENT_NODE)
		dump_extents(node->payload, le16_get(node->count));
	else
		dump_dirents(node->payload, le16_get(node->bytes));
}

/* ---- walks ---- */

struct walk {
	uint64_t ino;               /* owner of the nodes */
	enum block_type type;
	bool headings;
	/* A leaf's records; true: enough seen. */
	bool (*leaf)(const struct tree_node *node, void *arg);
	void *arg;
	uint64_t visits_left;
};

static bool node_enter(struct dump *dump, struct walk *walk, uint64_t block, unsigned level)
{
	const struct tree_node *node = (const struct tree_node *)dump->node[level];

	if (!walk->visits_left) {
		dump_fail(dump, "inode %" PRIu64 ": its tree has more nodes than the target has blocks", walk->ino);
		return false;
	}
	walk->visits_left--;
	if (!dump_open(dump, block, walk->type, walk->ino, dump->node[level], walk->headings))
		return false;
	if (le16_get(node->level) == level)
		return true;
	dump_fail(dump, "block %" PRIu64 ": level %u where %u is wanted", block, le16_get(node->level), level);
	return false;
}

static void walk_tree(struct dump *dump, struct walk *walk, uint64_t root, unsigned top)
{
	unsigned next[FS_TREE_LEVEL_MAX + 1] = {0}, level = top;

	walk->visits_left = dump->device_blocks;
	if (top > FS_TREE_LEVEL_MAX || !node_enter(dump, walk, root, top))
		return;
	for (;;) {
		const struct tree_node *node = (const struct tree_node *)dump->node[level];
		if (level == 0 && walk->leaf(node, walk->arg))
			return;
		if (level == 0 || next[level] == le16_get(node->count)) {
			if (level++ == top)
				return;
			continue;
		}
		const struct tree_pointer *pointers = (const struct tree_pointer *)node->payload;
		if (node_enter(dump, walk, le64_get(pointers[next[level]++].child), level - 1))
			next[--level] = 0;
		else if (!walk->visits_left)
			return;
	}
}

static uint64_t tree_root(const struct disk_inode *inode)
{
	return le64_get(((const struct fork_tree *)inode->fork)->root);
}

struct leaves {
	dump_leaf_fn leaf;
	void *arg;
};

static bool leaves_leaf(const struct tree_node *node, void *arg)
{
	const struct leaves *leaves = arg;

	return leaves->leaf(node->payload, le16_get(node->count), le16_get(node->bytes), leaves->arg);
}

void dump_leaves(struct dump *dump, const struct disk_inode *inode, uint64_t ino, dump_leaf_fn leaf, void *arg)
{
	const bool directory = S_ISDIR(le16_get(inode->mode));
	struct leaves leaves = {leaf, arg};
	struct walk walk = {.ino = ino, .type = directory ? BLOCK_DIR_NODE : BLOCK_EXTENT_NODE, .leaf = leaves_leaf,
		.arg = &leaves};

	if (inode->format == FORK_TREE)
		walk_tree(dump, &walk, tree_root(inode), inode->fork_level);
	else if (inode->format == (directory ? FORK_INLINE : FORK_EXTENTS))
		leaf(inode->fork, le16_get(inode->fork_count), inode->fork_bytes, arg);
}

static bool extents_leaf(const struct tree_node *node, void *arg)
{
	dump_extents(node->payload, le16_get(node->count));
	return false;
}

void dump_extent_tree(struct dump *dump, const struct disk_inode *inode, uint64_t ino)
{
	struct walk walk = {.ino = ino, .type = BLOCK_EXTENT_NODE, .headings = true, .leaf = extents_leaf};

	walk_tree(dump, &walk, tree_root(inode), inode->fork_level);
}

/* ---- directories ---- */

/* A directory that is good enough to read; NULL after dump_fail. */
static const struct disk_inode *dir_find(struct dump *dump, uint64_t ino)
{
	const struct disk_inode *inode = dump_inode_find(dump, ino);

	if (!inode)
		return NULL;
	const char *failed = inode_verify(&dump->super, inode, ino);
	if (failed)
		dump_fail(dump, "inode %" PRIu64 ": is bad: %s", ino, failed);
	else if (!S_ISDIR(le16_get(inode->mode)))
		dump_fail(dump, "inode %" PRIu64 ": is no directory; \"inode\" shows it", ino);
	else
		return inode;
	return NULL;
}

static bool dirents_leaf(const struct tree_node *node, void *arg)
{
	dump_dirents(node->payload, le16_get(node->bytes));
	return false;
}

void dump_dir(struct dump *dump, uint64_t ino)
{
	const struct disk_inode *inode = dir_find(dump, ino);
	struct walk walk = {.ino = ino, .type = BLOCK_DIR_NODE, .leaf = dirents_leaf};

	if (!inode)
		return;
	printf("directory %" PRIu64 ": parent %" PRIu64 ", %" PRIu64 " entries: type, inode, cookie, name\n", ino,
		le64_get(inode->parent), le64_get(inode->rdev_or_entries));
	if (inode->format == FORK_INLINE)
		dump_dirents(inode->fork, inode->fork_bytes);
	else
		walk_tree(dump, &walk, tree_root(inode), inode->fork_level);
}

struct search {
	const char *name;
	size_t length;
	uint64_t ino;               /* 0: not found */
};

static bool search_records(struct search *search, const uint8_t *records, unsigned bytes)
{
	for (unsigned at = 0; at < bytes;) {
		const struct disk_dirent *dirent = (const struct disk_dirent *)(records + at);
		if (dirent->name_length == search->length && !memcmp(dirent->name, search->name, search->length)) {
			search->ino = le64_get(dirent->ino);
			return true;
		}
		at += dirent_bytes(dirent->name_length);
	}
	return false;
}

static bool search_leaf(const struct tree_node *node, void *arg)
{
	return search_records(arg, node->payload, le16_get(node->bytes));
}

/* 0 after dump_fail. */
static uint64_t name_find(struct dump *dump, uint64_t dir_ino, const char *name, size_t length)
{
	const struct disk_inode *inode = dir_find(dump, dir_ino);
	struct search search = {name, length, 0};
	struct walk walk = {.ino = dir_ino, .type = BLOCK_DIR_NODE, .leaf = search_leaf, .arg = &search};

	if (!inode)
		return 0;
	if (length == 2 && !memcmp(name, "..", 2))
		return le64_get(inode->parent);
	if (inode->format == FORK_INLINE)
		search_records(&search, inode->fork, inode->fork_bytes);
	else
		walk_tree(dump, &walk, tree_root(inode), inode->fork_level);
	if (!search.ino)
		dump_fail(dump, "%.*s: no such name in directory %" PRIu64, (int)length, name, dir_ino);
	return search.ino;
}

/* Symbolic links are shown, not followed. */
void dump_path(struct dump *dump, const char *path)
{
	uint64_t ino = FS_ROOT_INODE;

	for (const char *at = path; *at;) {
		const size_t length = strcspn(at, "/");
		if (length && !(length == 1 && at[0] == '.')) {
			ino = name_find(dump, ino, at, length);
			if (!ino)
				return;
			dump_quoted(at, length);
			printf(" is inode %" PRIu64 "\n", ino);
		}
		at += length + (at[length] == '/');
	}
	dump_inode(dump, ino);
}
