/* SPDX-License-Identifier: BSD-3-Clause */
/* Files that stand for the kernel's: see the header. */
#include "tests/fuzz/fuzz_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 256 };

static const struct fuzz_tree *to_remove;

static void remove_tree(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf '%s'", to_remove->root);
	(void)!system(command);
}

void fuzz_tree_make(struct fuzz_tree *tree)
{
	snprintf(tree->root, sizeof(tree->root), "/tmp/lanefs-fuzz-XXXXXX");
	FUZZ_REQUIRE(!to_remove && mkdtemp(tree->root), "no folder");
	to_remove = tree;
	atexit(remove_tree);
}

char *fuzz_tree_path(const struct fuzz_tree *tree, const char *name, char *out, size_t out_size)
{
	snprintf(out, out_size, "%s/%s", tree->root, name);
	return out;
}

bool fuzz_tree_has(const struct fuzz_tree *tree, const char *path)
{
	const size_t length = strlen(tree->root);
	return length && !strncmp(path, tree->root, length) && path[length] == '/';
}

/* What stands before the last slash too; that it is there already is no error. */
static void folders_make(const struct fuzz_tree *tree, const char *name, bool whole)
{
	char path[PATH_BYTES];
	fuzz_tree_path(tree, name, path, sizeof(path));
	for (char *slash = path + strlen(tree->root) + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
		*slash = '\0';
		FUZZ_REQUIRE(mkdir(path, 0700) == 0 || errno == EEXIST, "no folder %s", path);
	}
	FUZZ_REQUIRE(!whole || mkdir(path, 0700) == 0 || errno == EEXIST, "no folder %s", path);
}

void fuzz_tree_folder(const struct fuzz_tree *tree, const char *name) { folders_make(tree, name, true); }

void fuzz_tree_write(const struct fuzz_tree *tree, const char *name, const char *text)
{
	char path[PATH_BYTES];
	int fd = open(fuzz_tree_path(tree, name, path, sizeof(path)), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0) {
		folders_make(tree, name, false);
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	}
	FUZZ_REQUIRE(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text), "%s cannot be written", path);
	close(fd);
}

void fuzz_tree_link(const struct fuzz_tree *tree, const char *name, const char *to)
{
	char path[PATH_BYTES];
	unlink(fuzz_tree_path(tree, name, path, sizeof(path)));
	(void)!symlink(*to ? to : "nowhere", path); /* too long: none */
}

void fuzz_tree_read(const struct fuzz_tree *tree, const char *name, char *out, size_t out_size)
{
	char path[PATH_BYTES];
	const int fd = open(fuzz_tree_path(tree, name, path, sizeof(path)), O_RDONLY | O_CLOEXEC);
	const ssize_t got = fd < 0 ? -1 : read(fd, out, out_size - 1);
	FUZZ_REQUIRE(got >= 0, "%s cannot be read", path);
	out[got] = '\0';
	close(fd);
}
