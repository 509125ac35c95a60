/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * name_exerciser: operations that make, move and remove names. Each picks its places, says what the kernel must answer
 * (as Linux orders its checks), does it, repeats it on the model and looks at every inode that it touched.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tests/mounted/random/name.h"

enum { SYMLINK_MAX = 4095, KINDS = 4 };

static void begin(struct name_run *run, const struct name_place *place, const char *what)
{
	op_begin(run->exerciser, place->node ? place->node->id : 0, place->parent->id, 0, 0, "%s %s", what, path_end(place->path));
	clock_gettime(CLOCK_REALTIME_COARSE, &run->before);
}

/* An ordinary user must leave the way open for itself. */
static mode_t mode_pick(struct name_run *run, mode_t limit)
{
	return (mode_t)pick(run->exerciser, limit) | (run->privileged ? 0 : 0700);
}

/* The new inode is in its place. */
static void created(struct name_run *run, struct name_place *place, struct name_node *node)
{
	entry_add(place->parent, place->name, node);
	op_note(run->exerciser, " = #%lu", node->id);
	run->exerciser->current->object = node->id;
	check_node(run, node, place->path, BOTH_MUST);
	check_directory_node(run, place->parent, BOTH_MUST);
}

/* A place for something new: mostly free, sometimes not. */
static void place_pick_new(struct name_run *run, struct name_place *place)
{
	place_pick(run, place, chance(run->exerciser, 12));
}

void op_create(struct name_run *run)
{
	struct name_place place;
	place_pick_new(run, &place);
	const mode_t mode = mode_pick(run, 010000);
	begin(run, &place, "create");
	op_note(run->exerciser, " mode %o", mode);
	const int fd = open(place.path, O_CREAT | O_EXCL | O_WRONLY, mode);
	if (!expect(run, place.node, fd, place.node ? EEXIST : 0))
		return;
	close(fd);
	created(run, &place, node_create_in(run, place.parent, S_IFREG | mode));
}

void op_mkdir(struct name_run *run)
{
	struct name_place place;
	place_pick_new(run, &place);
	if (node_depth(place.parent) + 1 >= DEPTH_MAX)
		return;
	const mode_t mode = mode_pick(run, 02000);
	begin(run, &place, "mkdir");
	op_note(run->exerciser, " mode %o", mode);
	if (expect(run, place.node, mkdir(place.path, mode), place.node ? EEXIST : 0))
		created(run, &place, node_create_in(run, place.parent, S_IFDIR | mode));
}

void op_mknod(struct name_run *run)
{
	static const mode_t kinds[] = {S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK};
	struct name_place place;
	place_pick_new(run, &place);
	const mode_t mode = kinds[pick(run->exerciser, run->privileged ? KINDS : 2)] | mode_pick(run, 010000);
	const dev_t device = makedev(pick(run->exerciser, 4096), pick(run->exerciser, 1 << 20));
	begin(run, &place, "mknod");
	op_note(run->exerciser, " mode %o", mode);
	if (!expect(run, place.node, mknod(place.path, mode, device), place.node ? EEXIST : 0))
		return;
	struct name_node *node = node_create_in(run, place.parent, mode);
	node->device = device;
	created(run, &place, node);
}

void op_symlink(struct name_run *run)
{
	struct name_place place;
	place_pick_new(run, &place);
	const size_t length = 1 + pick(run->exerciser, chance(run->exerciser, 10) ? SYMLINK_MAX : 100);
	char *target = calloc(1, length + 1);
	for (size_t i = 0; i < length; i++)
		target[i] = (char)('a' + pick(run->exerciser, 26));
	begin(run, &place, "symlink");
	op_note(run->exerciser, " of %zu bytes", length);
	if (!expect(run, place.node, symlink(target, place.path), place.node ? EEXIST : 0)) {
		free(target);
		return;
	}
	struct name_node *node = node_create_in(run, place.parent, S_IFLNK | 0777);
	node->target = target;
	node->size = length;
	created(run, &place, node);
	check_content(run, node, place.path);
}

void op_link(struct name_run *run)
{
	struct name_place from, to;
	place_pick(run, &from, !chance(run->exerciser, 30));
	place_pick_new(run, &to);
	const int wanted = !from.node ? ENOENT : to.node ? EEXIST : S_ISDIR(from.node->mode) ? EPERM : 0;
	begin(run, &from, "link");
	op_note(run->exerciser, " to %s", path_end(to.path));
	if (!expect(run, from.node, link(from.path, to.path), wanted))
		return;
	from.node->links++;
	entry_add(to.parent, to.name, from.node);
	check_node(run, from.node, to.path, CTIME_MUST);
	check_node(run, from.node, from.path, 0);
	check_directory_node(run, to.parent, BOTH_MUST);
}

void op_tmpfile(struct name_run *run)
{
	struct name_place place;
	char parent[PATH_MAX], self[64];
	place_pick_new(run, &place);
	node_path(place.parent, parent);
	const mode_t mode = mode_pick(run, 010000);
	begin(run, &place, "O_TMPFILE, linkat");
	op_note(run->exerciser, " mode %o", mode);
	const int fd = open(parent, O_TMPFILE | O_RDWR, mode);
	if (fd < 0)
		differ(run->exerciser, 0, 0, 0, "open with O_TMPFILE: %s", error_text(errno));
	snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (expect(run, place.node, linkat(AT_FDCWD, self, AT_FDCWD, place.path, AT_SYMLINK_FOLLOW), place.node ? EEXIST : 0))
		created(run, &place, node_create_in(run, place.parent, S_IFREG | mode));
	close(fd);
}

/* One name of the node is gone. What is left of it has a new ctime. */
static void name_lost(struct name_run *run, struct name_node *node)
{
	const bool lives = !S_ISDIR(node->mode) && (node->links > 1 || node->fd >= 0);
	node_put(run, node);
	if (!lives)
		return;
	if (node->fd >= 0) {
		check_node(run, node, "(held open)", CTIME_MUST);
		return;
	}
	/* Another name: look for it. */
	for (unsigned i = 0; i < run->directory_count; i++) {
		const struct name_node *directory = run->directories[i];
		for (unsigned k = 0; k < directory->entry_count; k++) {
			if (directory->entries[k].node != node)
				continue;
			char path[PATH_MAX], other[PATH_MAX];
			node_path(directory, path);
			if (snprintf(other, PATH_MAX, "%s/%s", path, directory->entries[k].name) >= PATH_MAX)
				abort();
			check_node(run, node, other, CTIME_MUST);
			return;
		}
	}
}

static void removed(struct name_run *run, struct name_place *place)
{
	entry_remove(place->parent, place->entry);
	name_lost(run, place->node);
	check_directory_node(run, place->parent, BOTH_MUST);
	struct stat status;
	if (lstat(place->path, &status) == 0 || errno != ENOENT)
		differ(run->exerciser, place->parent->id, 0, 0, "%s is still there after its removal", place->path);
}

void op_unlink(struct name_run *run)
{
	struct name_place place;
	place_pick(run, &place, !chance(run->exerciser, 20));
	begin(run, &place, "unlink");
	if (expect(run, place.node, unlink(place.path), !place.node ? ENOENT : S_ISDIR(place.node->mode) ? EISDIR : 0))
		removed(run, &place);
}

void op_rmdir(struct name_run *run)
{
	struct name_place place;
	if (!place_pick_kind(run, &place, S_IFDIR) || chance(run->exerciser, 20))
		place_pick(run, &place, true);
	const int wanted = !place.node ? ENOENT : !S_ISDIR(place.node->mode) ? ENOTDIR : place.node->entry_count ? ENOTEMPTY : 0;
	begin(run, &place, "rmdir");
	if (expect(run, place.node, rmdir(place.path), wanted))
		removed(run, &place);
}

/* ---- rename ---- */

static int rename_answer(const struct name_place *from, const struct name_place *to, unsigned flags)
{
	struct name_node *source = from->node, *target = to->node;
	const bool exchange = flags & RENAME_EXCHANGE;
	if (exchange && (flags & RENAME_NOREPLACE))
		return EINVAL;
	if (!source)
		return ENOENT;
	if ((flags & RENAME_NOREPLACE) && target)
		return EEXIST;
	if (exchange && !target)
		return ENOENT;
	if (S_ISDIR(source->mode) && node_is_below(to->parent, source))
		return EINVAL;
	if (node_is(target, S_IFDIR) && node_is_below(from->parent, target))
		return exchange ? EINVAL : ENOTEMPTY;
	if (source == target || exchange || !target)
		return 0;
	if (S_ISDIR(source->mode) && !S_ISDIR(target->mode))
		return ENOTDIR;
	if (!S_ISDIR(source->mode) && S_ISDIR(target->mode))
		return EISDIR;
	return target->entry_count ? ENOTEMPTY : 0;
}

/* Puts another node into a place that has one. */
static void place_set(struct name_place *place, struct name_node *node)
{
	place->parent->entries[place->entry].node = node;
	if (S_ISDIR(place->node->mode))
		place->parent->links--;
	if (S_ISDIR(node->mode)) {
		place->parent->links++;
		node->parent = place->parent;
	}
}

static void renamed(struct name_run *run, struct name_place *from, struct name_place *to, bool exchange)
{
	struct name_node *source = from->node, *target = to->node;
	if (source == target)
		return; /* the same file by two names, or by one: nothing happens */
	if (exchange) {
		place_set(from, target);
		place_set(to, source);
	} else {
		if (target)
			place_set(to, source);
		else
			entry_add(to->parent, to->name, source);
		entry_remove(from->parent, (unsigned)entry_find(from->parent, from->name));
		if (S_ISDIR(source->mode))
			source->parent = to->parent;
	}
	/* The paths that were picked may lead through what has been moved. */
	char path[PATH_MAX], parent[PATH_MAX];
	node_path(to->parent, parent);
	snprintf(path, PATH_MAX, "%.3800s/%s", parent, to->name);
	check_node(run, source, path, CTIME_MUST);
	if (exchange) {
		node_path(from->parent, parent);
		snprintf(path, PATH_MAX, "%.3800s/%s", parent, from->name);
		check_node(run, target, path, CTIME_MUST);
	} else if (target) {
		name_lost(run, target);
	}
	check_directory_node(run, from->parent, BOTH_MUST);
	if (to->parent != from->parent)
		check_directory_node(run, to->parent, BOTH_MUST);
}

/* Would the tree get too deep? */
static bool too_deep(struct name_run *run, const struct name_place *from, const struct name_place *to)
{
	return node_is(from->node, S_IFDIR) && node_depth(to->parent) + 1 + node_height(run, from->node) >= DEPTH_MAX;
}

void op_rename(struct name_run *run)
{
	static const unsigned weights[] = {60, 20, 20, 2};
	static const unsigned choices[] = {0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_NOREPLACE | RENAME_EXCHANGE};
	static const char *const names[] = {"rename", "rename NOREPLACE", "rename EXCHANGE", "rename NOREPLACE|EXCHANGE"};
	const unsigned way = pick_weighted(run->exerciser, weights, 4);
	struct name_place from, to;
	const bool directory = chance(run->exerciser, 4) && place_pick_kind(run, &from, S_IFDIR);
	if (!directory)
		place_pick(run, &from, !chance(run->exerciser, 30));
	place_pick(run, &to, chance(run->exerciser, way == 2 ? 1 : 3));
	if (too_deep(run, &from, &to) || ((choices[way] & RENAME_EXCHANGE) && too_deep(run, &to, &from)))
		return;
	begin(run, &from, names[way]);
	op_note(run->exerciser, " to %s", path_end(to.path));
	const int wanted = rename_answer(&from, &to, choices[way]);
	if (expect(run, from.node, renameat2(AT_FDCWD, from.path, AT_FDCWD, to.path, choices[way]), wanted))
		renamed(run, &from, &to, choices[way] & RENAME_EXCHANGE);
}

/* ---- more than one name ---- */

/* Removes everything below a directory, the deepest first. */
void op_remove_tree(struct name_run *run)
{
	struct name_place place;
	if (!place_pick_kind(run, &place, S_IFDIR) || node_is_below(run->directories[1], place.node))
		return;
	begin(run, &place, "remove the tree");
	struct name_node *directory = place.node;
	for (unsigned budget = 2000; budget; budget--) {
		while (directory->entry_count && S_ISDIR(directory->entries[directory->entry_count - 1].node->mode))
			directory = directory->entries[directory->entry_count - 1].node;
		struct name_place victim = {.parent = directory};
		if (directory->entry_count) {
			victim.entry = directory->entry_count - 1;
		} else {
			if (directory == place.node)
				break;
			victim.parent = directory->parent;
			while (victim.parent->entries[victim.entry].node != directory)
				victim.entry++;
			directory = victim.parent;
		}
		victim.node = victim.parent->entries[victim.entry].node;
		strcpy(victim.name, victim.parent->entries[victim.entry].name);
		char parent[PATH_MAX];
		node_path(victim.parent, parent);
		snprintf(victim.path, PATH_MAX, "%.3800s/%s", parent, victim.name);
		expect(run, victim.node, S_ISDIR(victim.node->mode) ? rmdir(victim.path) : unlink(victim.path), 0);
		removed(run, &victim);
	}
}

/* Names that are there and names that are not, so that the kernel remembers both. */
void op_look_up(struct name_run *run)
{
	struct name_place place;
	struct stat status;
	place_pick(run, &place, chance(run->exerciser, 2));
	begin(run, &place, "stat");
	if (expect(run, place.node, lstat(place.path, &status), place.node ? 0 : ENOENT))
		check_node(run, place.node, place.path, 0);
}
