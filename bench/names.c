/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Rates of operations on names and small files: names DIR [FILES [BYTES]]
 *
 * Makes FILES files (50,000) in folders of 500 below DIR/names, and prints one line for each kind of work: its name and
 * how many a second. In C, since an interpreter would cost more than a cached stat. All is removed by the work itself.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { FOLDER_FILES = 500, PATH_BYTES = 4096 + 64 };

static const char *top;
static unsigned file_count = 50000, byte_count = 3000;
static char *bytes;

static void die(const char *what, const char *path)
{
	fprintf(stderr, "names: %s %s: %s\n", what, path, strerror(errno));
	exit(1);
}

static void folder_path(char *path, unsigned i) { snprintf(path, PATH_BYTES, "%s/names/%u", top, i / FOLDER_FILES); }

static void file_path(char *path, unsigned i, const char *suffix)
{
	snprintf(path, PATH_BYTES, "%s/names/%u/file-%u%s", top, i / FOLDER_FILES, i, suffix);
}

static void make(const char *path)
{
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY, 0644);
	if (fd < 0 || close(fd) != 0)
		die("create", path);
}

static void look(const char *path)
{
	struct stat status;
	if (stat(path, &status) != 0)
		die("stat", path);
}

static void open_close(const char *path)
{
	int fd = open(path, O_RDONLY);
	if (fd < 0 || close(fd) != 0)
		die("open", path);
}

static void fill(const char *path)
{
	int fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, bytes, byte_count) != (ssize_t)byte_count || close(fd) != 0)
		die("write", path);
}

static void change_name(const char *path)
{
	char to[PATH_BYTES + 8];
	snprintf(to, sizeof(to), "%s-new", path);
	if (rename(path, to) != 0)
		die("rename", path);
}

static void delete(const char *path)
{
	if (unlink(path) != 0)
		die("unlink", path);
}

static void measure(const char *name, void (*work)(const char *path), const char *suffix)
{
	struct timespec begin, end;
	char path[PATH_BYTES];
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (unsigned i = 0; i < file_count; i++) {
		file_path(path, i, suffix);
		work(path);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	double seconds = (double)(end.tv_sec - begin.tv_sec) + (double)(end.tv_nsec - begin.tv_nsec) / 1e9;
	printf("%s %.1f\n", name, file_count / seconds);
}

static void folders(int (*work)(const char *path), const char *what)
{
	char path[PATH_BYTES];
	for (unsigned i = 0; i < file_count; i += FOLDER_FILES) {
		folder_path(path, i);
		if (work(path) != 0)
			die(what, path);
	}
}

static int make_folder(const char *path) { return mkdir(path, 0755); }

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 4) {
		fprintf(stderr, "usage: names DIR [FILES [BYTES]]\n");
		return 2;
	}
	top = argv[1];
	if (argc > 2)
		file_count = (unsigned)strtoul(argv[2], NULL, 10);
	if (argc > 3)
		byte_count = (unsigned)strtoul(argv[3], NULL, 10);
	bytes = calloc(1, byte_count + 1);
	char path[PATH_BYTES];
	snprintf(path, sizeof(path), "%s/names", top);
	if (!bytes || mkdir(path, 0755) != 0)
		die("mkdir", path);
	folders(make_folder, "mkdir");
	measure("create", make, "");
	measure("stat", look, "");
	measure("open", open_close, "");
	measure("fill", fill, "");
	measure("rename", change_name, "");
	measure("unlink", delete, "-new");
	folders(rmdir, "rmdir");
	if (rmdir(path) != 0)
		die("rmdir", path);
	return 0;
}
