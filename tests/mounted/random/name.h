/* SPDX-License-Identifier: BSD-3-Clause */
/* The parts of name_exerciser: its model of a tree of names, comparing it with the real one, and the operations. */
#ifndef LANEFS_TESTS_MOUNTED_RANDOM_NAME_H
#define LANEFS_TESTS_MOUNTED_RANDOM_NAME_H

#include <limits.h>
#include <sys/stat.h>

#include "tests/mounted/random/exerciser.h"

enum { DEPTH_MAX = 12, DATA_MAX = 24 << 10, HELD_MAX = 12, NAME_SIZE_MAX = NAME_MAX + 1, XATTRS_MAX = 64 };

struct name_xattr {
	char name[48];
	uint32_t length;            /* the value is fill_bytes of this length and seed */
	uint64_t seed;
};

struct name_entry {
	char *name;
	struct name_node *node;
};

/* An inode as it must be. Its times are what stat(2) said after the last operation that changed it. */
struct name_node {
	uint64_t id;                /* for the log, from 1, never used again */
	unsigned index;             /* in run->nodes */
	unsigned directory_index;   /* in run->directories, if it is one */
	uint64_t ino;
	mode_t mode;
	uid_t uid;
	gid_t gid;
	dev_t device;
	uint64_t links;
	uint64_t size;              /* of regular files and symbolic links */
	uint8_t *data;              /* regular files: DATA_MAX bytes, NULL as long as there are none; zeros from size on */
	char *target;
	int fd;                     /* without a name and held open; else -1 */
	struct statx_timestamp mtime, ctime, btime;
	struct name_xattr *xattrs;
	unsigned xattr_count, xattr_bytes;
	struct name_entry *entries; /* directories: in no order */
	unsigned entry_count, entry_room;
	struct name_node *parent;
};

struct name_run {
	struct exerciser *exerciser;
	struct name_node *root;     /* the worker's own directory; the working directory of its process */
	struct name_node **nodes, **directories, *held[HELD_MAX];
	unsigned node_count, directory_count, node_room, held_count;
	uint64_t last_id;
	struct timespec before;     /* the coarse clock when the operation began */
	bool privileged;            /* root: other owners, devices, trusted attributes */
	uint8_t *buffer;            /* 128 KiB */
	int shared;                 /* the directory that all workers use */
	uint64_t shared_random;     /* the same numbers whatever the others do */
};

/* A place for a name: a directory of the tree, the name, its path, and the entry if there is one. */
struct name_place {
	struct name_node *parent, *node; /* @node NULL: nothing there */
	unsigned entry;             /* its index in parent->entries */
	char name[NAME_SIZE_MAX], path[PATH_MAX];
};

/* ---- name_model.c ---- */
struct name_node *node_create(struct name_run *run, mode_t mode);
/* Takes one name away from a node; it lives on if it has others or is held. */
void node_put(struct name_run *run, struct name_node *node);
void node_free(struct name_run *run, struct name_node *node);
/* What a new inode in @parent has: the group of a setgid directory, and that bit. */
struct name_node *node_create_in(struct name_run *run, const struct name_node *parent, mode_t mode);
void entry_add(struct name_node *parent, const char *name, struct name_node *node);
void entry_remove(struct name_node *parent, unsigned entry);
int entry_find(const struct name_node *parent, const char *name); /* -1: not there */
/* "." for the root. */
void node_path(const struct name_node *directory, char path[PATH_MAX]);
bool node_is_below(const struct name_node *node, const struct name_node *directory); /* or the same */
unsigned node_depth(const struct name_node *directory);
unsigned node_height(struct name_run *run, const struct name_node *directory);
/* A place in a random directory: a new name, or one that is there. */
void place_pick(struct name_run *run, struct name_place *place, bool existing);
/* An existing one of a certain kind (0: any); false: found none in some tries. */
bool place_pick_kind(struct name_run *run, struct name_place *place, mode_t kind);
static inline bool node_is(const struct name_node *node, mode_t kind) { return node && (node->mode & S_IFMT) == kind; }

/* ---- name_check.c ---- */
enum { MTIME_MUST = 1, CTIME_MUST = 2, MTIME_MAY = 4, CTIME_MAY = 8, BOTH_MUST = MTIME_MUST | CTIME_MUST };
/* The call's @result (-1 and errno, or not) is the error @wanted, 0: success. Returns true if it did succeed. */
bool expect(struct name_run *run, const struct name_node *node, long result, int wanted);
/* stat of the node by a path: as the model says; @times: which of them the operation must or may have changed. */
void check_node(struct name_run *run, struct name_node *node, const char *path, unsigned times);
/* The same for a directory by its own path. */
void check_directory_node(struct name_run *run, struct name_node *directory, unsigned times);
void check_content(struct name_run *run, struct name_node *node, const char *path);
void check_xattrs(struct name_run *run, struct name_node *node, const char *path);
/* Reads the directory and compares its names, types and inode numbers. */
void check_entries(struct name_run *run, struct name_node *directory);
/* All of the tree, with everything. */
void check_tree(struct name_run *run);

/* ---- the operations ---- */
typedef void (*name_operation_fn)(struct name_run *run);
/* name_operations.c */
void op_create(struct name_run *run);
void op_mkdir(struct name_run *run);
void op_mknod(struct name_run *run);
void op_symlink(struct name_run *run);
void op_link(struct name_run *run);
void op_tmpfile(struct name_run *run);
void op_unlink(struct name_run *run);
void op_rmdir(struct name_run *run);
void op_rename(struct name_run *run);
void op_remove_tree(struct name_run *run);
void op_look_up(struct name_run *run);
/* name_attributes.c */
void op_chmod(struct name_run *run);
void op_chown(struct name_run *run);
void op_times(struct name_run *run);
void op_xattr_set(struct name_run *run);
void op_xattr_remove(struct name_run *run);
void op_write(struct name_run *run);
void op_truncate(struct name_run *run);
void op_hold(struct name_run *run);
void op_release(struct name_run *run);
void op_check(struct name_run *run);
void op_list(struct name_run *run);
void op_sync(struct name_run *run);
/* name_shared.c: what the workers do to each other */
void op_shared(struct name_run *run);
void shared_prepare(const struct exerciser_options *options);
void shared_enter(struct name_run *run);
/* When all workers have ended: is the shared tree sound? */
int shared_check(const struct exerciser_options *options);

/* ---- name_save.c ---- */
void tree_save(struct name_run *run, const char *prefix);
void tree_load(struct name_run *run, const char *prefix);

#endif
