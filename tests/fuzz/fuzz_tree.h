/* SPDX-License-Identifier: BSD-3-Clause */
/* A small tree of files in /tmp that stands for sysfs and procfs; gone when the process ends. One per process. */
#ifndef LANEFS_TESTS_FUZZ_FUZZ_TREE_H
#define LANEFS_TESTS_FUZZ_FUZZ_TREE_H

#include "tests/fuzz/fuzz.h"

struct fuzz_tree {
	char root[64];                  /* empty: not made yet */
};

void fuzz_tree_make(struct fuzz_tree *tree);
/* Names are paths below the root. Returns @out. */
char *fuzz_tree_path(const struct fuzz_tree *tree, const char *name, char *out, size_t out_size);
/* Whether a whole path leads into the tree. */
bool fuzz_tree_has(const struct fuzz_tree *tree, const char *path);
void fuzz_tree_folder(const struct fuzz_tree *tree, const char *name);
/* Both replace what is there; the folder of a link must be. */
void fuzz_tree_write(const struct fuzz_tree *tree, const char *name, const char *text);
void fuzz_tree_link(const struct fuzz_tree *tree, const char *name, const char *to);
/* As a string, cut off at @out_size. */
void fuzz_tree_read(const struct fuzz_tree *tree, const char *name, char *out, size_t out_size);

#endif
