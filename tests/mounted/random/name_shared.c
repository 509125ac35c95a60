/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * name_exerciser: the directory that all workers use at once. Nobody can say what is in it, but much that must hold:
 * - a call succeeds or fails with an error that another worker's doing explains;
 * - a file that was made elsewhere and renamed into place is never seen in parts, nor are its attributes;
 * - a name that nobody touches is listed exactly once, however much goes on around it;
 * - records appended with O_APPEND are all there, whole and in each worker's order;
 * - O_CREAT|O_EXCL has one winner;
 * - in the end every link count is the number of names, and no directory is lost or inside itself.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "tests/mounted/random/name.h"

enum { STABLE = 3, MOVING = 6, FILES = 8, PINS = 5, CONTENT_MAX = 20000, RECORDS_MAX = 60000, FOUND_MAX = 16384, SHOWN = 100 };
static const char shared_name[] = "shared";
static const char magic[8] = "whole..";

struct content_head {
	char magic[8];
	uint64_t seed, length;
};
struct log_record {
	uint64_t worker, number, check;
	uint8_t rest[40];
};

static void begin(struct name_run *run, const char *what, const char *path)
{
	op_begin(run->exerciser, 0, 0, 0, 0, "shared: %s %s", what, path);
}

/* The result is 0 or one of the errors that others can cause. Returns true if it is 0. */
static bool allow(struct name_run *run, long result, const int *errors)
{
	if (result >= 0)
		return true;
	const int error = errno;
	op_note(run->exerciser, " -> %s", strerrorname_np(error));
	for (; *errors; errors++)
		if (*errors == error)
			return false;
	differ(run->exerciser, 0, 0, 0, "shared: the call answered %s, which nothing explains", error_text(error));
}
#define ALLOW(run, result, ...) allow(run, result, (const int[]){__VA_ARGS__, 0})

/* A path with 0 to 2 directories that may be moved in it. */
static void path_pick(struct name_run *run, char *path, char kind)
{
	struct exerciser *exerciser = run->exerciser;
	int used = sprintf(path, "s%lu", pick(exerciser, STABLE));
	for (uint64_t depth = pick(exerciser, 3); depth; depth--)
		used += sprintf(path + used, "/m%lu", pick(exerciser, MOVING));
	sprintf(path + used, "/%c%lu", kind, pick(exerciser, kind == 'm' ? MOVING : FILES));
}

/* ---- files that are whole or not there ---- */

static void publish(struct name_run *run, const char *path)
{
	struct content_head head = {.seed = run->exerciser->op << 8 | run->exerciser->worker, .length = pick(run->exerciser, CONTENT_MAX)};
	memcpy(head.magic, magic, sizeof(magic));
	char own[32];
	sprintf(own, "s0/own%u", run->exerciser->worker);
	begin(run, "publish", path);
	const int fd = openat(run->shared, own, O_CREAT | O_EXCL | O_RDWR, 0644);
	memcpy(run->buffer, &head, sizeof(head));
	fill_bytes(run->buffer + sizeof(head), head.length, head.seed);
	const size_t length = sizeof(head) + head.length;
	if (fd < 0 || write(fd, run->buffer, length) != (ssize_t)length || fsetxattr(fd, "user.head", &head, sizeof(head), 0))
		differ(run->exerciser, 0, 0, 0, "shared: making %s: %s", own, error_text(errno));
	close(fd);
	if (!ALLOW(run, renameat(run->shared, own, run->shared, path), ENOENT))
		ALLOW(run, unlinkat(run->shared, own, 0), 0);
}

static void read_whole(struct name_run *run, const char *path)
{
	begin(run, "read", path);
	const int fd = openat(run->shared, path, O_RDONLY);
	if (!ALLOW(run, fd, ENOENT))
		return;
	static uint8_t wanted[CONTENT_MAX + 8];
	struct content_head head = {0}, attribute = {0};
	const ssize_t length = read(fd, run->buffer, CONTENT_MAX + sizeof(head));
	memcpy(&head, run->buffer, sizeof(head));
	if (length < (ssize_t)sizeof(head) || memcmp(head.magic, magic, sizeof(magic)) || head.length > CONTENT_MAX ||
			(size_t)length != sizeof(head) + head.length)
		differ(run->exerciser, 0, 0, 0, "shared: %s is not a whole file: %ld bytes", path, length);
	fill_bytes(wanted, head.length, head.seed);
	if (memcmp(wanted, run->buffer + sizeof(head), head.length))
		differ(run->exerciser, 0, 0, 0, "shared: %s has other contents than its head says", path);
	if (fgetxattr(fd, "user.head", &attribute, sizeof(attribute)) != sizeof(attribute) || memcmp(&attribute, &head, sizeof(head)))
		differ(run->exerciser, 0, 0, 0, "shared: %s has another file's attribute", path);
	close(fd);
}

/* ---- names ---- */

static void change_names(struct name_run *run, unsigned way)
{
	char path[128], other[128];
	const char kind = way < 5 ? 'm' : 'f';
	path_pick(run, path, kind);
	path_pick(run, other, kind);
	static const char *const names[] = {"mkdir", "mkdir", "rmdir", "rename directory", "exchange directories", "exchange files",
		"rename file", "link", "unlink"};
	begin(run, names[way], path);
	if (way >= 3 && way <= 7)
		op_note(run->exerciser, ", %s", other);
	switch (way) {
	case 0:
	case 1: ALLOW(run, mkdirat(run->shared, path, 0755), EEXIST, ENOENT); break;
	case 2: ALLOW(run, unlinkat(run->shared, path, AT_REMOVEDIR), ENOENT, ENOTEMPTY); break;
	case 3: ALLOW(run, renameat(run->shared, path, run->shared, other), ENOENT, ENOTEMPTY, EINVAL); break;
	case 4: ALLOW(run, renameat2(run->shared, path, run->shared, other, RENAME_EXCHANGE), ENOENT, EINVAL); break;
	case 5: ALLOW(run, renameat2(run->shared, path, run->shared, other, RENAME_EXCHANGE), ENOENT); break;
	case 6: ALLOW(run, renameat2(run->shared, path, run->shared, other, RENAME_NOREPLACE), ENOENT, EEXIST); break;
	case 7: ALLOW(run, linkat(run->shared, path, run->shared, other, 0), ENOENT, EEXIST); break;
	default: ALLOW(run, unlinkat(run->shared, path, 0), ENOENT);
	}
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
	/* Others may have been here, or come in the meantime. */
	return remove(path) && errno != ENOENT && errno != ENOTEMPTY && errno != ENOTDIR ? errno : 0;
}

/* Removes a directory that may be moved, with all that is below it. */
static void clear_tree(struct name_run *run)
{
	char path[128], absolute[192];
	path_pick(run, path, 'm');
	begin(run, "remove the tree", path);
	snprintf(absolute, sizeof(absolute), "/proc/self/fd/%d/%s", run->shared, path);
	const int error = nftw(absolute, remove_one, 20, FTW_DEPTH | FTW_PHYS);
	if (error > 0)
		differ(run->exerciser, 0, 0, 0, "shared: removing %s: %s", path, error_text(error));
}

static void pin_name(char *name, unsigned worker, unsigned pin) { sprintf(name, "pin-%u-%u-that-stays", worker, pin); }

/* Lists a directory that is not moved, and looks for the names that nobody touches. */
static void list_pins(struct name_run *run)
{
	char path[16], name[64];
	unsigned seen[PINS] = {0};
	sprintf(path, "s%lu", pick(run->exerciser, STABLE));
	begin(run, "readdir", path);
	DIR *stream = fdopendir(openat(run->shared, path, O_RDONLY | O_DIRECTORY));
	if (!stream)
		differ(run->exerciser, 0, 0, 0, "shared: opendir %s: %s", path, error_text(errno));
	for (const struct dirent *entry; (entry = readdir(stream));) {
		for (unsigned i = 0; i < PINS; i++) {
			pin_name(name, run->exerciser->worker, i);
			seen[i] += strcmp(entry->d_name, name) == 0;
		}
	}
	closedir(stream);
	for (unsigned i = 0; i < PINS; i++)
		if (seen[i] != 1)
			differ(run->exerciser, 0, 0, 0, "shared: readdir %s lists pin %u %u times", path, i, seen[i]);
}

/* ---- one winner; appending ---- */

static void critical(struct name_run *run)
{
	begin(run, "take", "the lock");
	const int fd = openat(run->shared, "lock", O_CREAT | O_EXCL | O_RDWR, 0600);
	if (!ALLOW(run, fd, EEXIST))
		return;
	uint64_t value = run->exerciser->worker + 1, found = 0;
	const int counter = openat(run->shared, "counter", O_CREAT | O_RDWR, 0600);
	if (write(fd, &value, sizeof(value)) != sizeof(value) || pwrite(counter, &value, sizeof(value), 0) != sizeof(value) ||
			pread(counter, &found, sizeof(found), 0) != sizeof(found))
		differ(run->exerciser, 0, 0, 0, "shared: in the lock: %s", error_text(errno));
	struct stat mine, named;
	if (fstat(fd, &mine) || fstatat(run->shared, "lock", &named, 0) || mine.st_ino != named.st_ino || found != value)
		differ(run->exerciser, 0, 0, 0, "shared: two have the lock");
	close(counter);
	close(fd);
	ALLOW(run, unlinkat(run->shared, "lock", 0), 0);
}

static struct log_record record_make(uint64_t worker, uint64_t number)
{
	struct log_record record = {.worker = worker, .number = number, .check = worker * 1000003 ^ number};
	fill_bytes(record.rest, sizeof(record.rest), record.check);
	return record;
}

static void append(struct name_run *run)
{
	static uint64_t number;
	if (number * run->exerciser->options->workers >= RECORDS_MAX)
		return;
	const struct log_record record = record_make(run->exerciser->worker, ++number);
	begin(run, "append", "to the log");
	const int fd = openat(run->shared, "log", O_CREAT | O_WRONLY | O_APPEND, 0600);
	if (fd < 0 || write(fd, &record, sizeof(record)) != sizeof(record))
		differ(run->exerciser, 0, 0, 0, "shared: append: %s", error_text(errno));
	close(fd);
}

void op_shared(struct name_run *run)
{
	static const unsigned weights[] = {15, 15, 40, 8, 6, 10, 2};
	/* What the others do must not change the numbers that the worker's own tree is made of. */
	const uint64_t random = run->exerciser->random;
	run->exerciser->random = run->shared_random;
	char path[128];
	path_pick(run, path, 'f');
	switch (pick_weighted(run->exerciser, weights, 7)) {
	case 0: publish(run, path); break;
	case 1: read_whole(run, path); break;
	case 2: change_names(run, (unsigned)pick(run->exerciser, 9)); break;
	case 3: list_pins(run); break;
	case 4: critical(run); break;
	case 5: append(run); break;
	default: clear_tree(run);
	}
	run->shared_random = run->exerciser->random;
	run->exerciser->random = random;
}

/* ---- before and after ---- */

void shared_prepare(const struct exerciser_options *options)
{
	char path[PATH_MAX];
	for (int i = -1; i < STABLE; i++) {
		snprintf(path, sizeof(path), i < 0 ? "%s/%s" : "%s/%s/s%d", options->directory, shared_name, i);
		if (mkdir(path, 0755)) {
			fprintf(stderr, "%s: %s\n%s needs an empty directory\n", path, strerror(errno), options->program);
			exit(2);
		}
	}
}

void shared_enter(struct name_run *run)
{
	char path[PATH_MAX], name[64];
	snprintf(path, sizeof(path), "%s/%s", run->exerciser->options->directory, shared_name);
	run->shared = open(path, O_RDONLY | O_DIRECTORY);
	run->shared_random = run->exerciser->random ^ 0x5ca1ab1e;
	for (unsigned i = 0; i < STABLE * PINS; i++) {
		pin_name(name, run->exerciser->worker, i % PINS);
		snprintf(path, sizeof(path), "s%u/%s", i / PINS, name);
		const int fd = openat(run->shared, path, O_CREAT | O_EXCL, 0600);
		if (fd < 0)
			differ(run->exerciser, 0, 0, 0, "shared: %s: %s", path, error_text(errno));
		close(fd);
	}
}

/* What a walk over the shared tree finds: for each inode how many names, and how many it says. */
struct walk {
	struct { ino_t ino; uint64_t names, links; } found[FOUND_MAX];
	char *todo[FOUND_MAX];
	unsigned found_count, todo_count, wrong;
};

static void walk_complain(struct walk *walk, const char *path, const char *what)
{
	if (walk->wrong++ < SHOWN)
		printf("DIFFERENCE: in the end %s: %s\n", path, what);
}

static void walk_file(struct walk *walk, const struct stat *status)
{
	unsigned at = 0;
	while (at < walk->found_count && walk->found[at].ino != status->st_ino)
		at++;
	if (at == FOUND_MAX)
		return;
	if (at == walk->found_count) {
		walk->found_count++;
		walk->found[at].ino = status->st_ino;
		walk->found[at].names = 0;
	}
	walk->found[at].names++;
	walk->found[at].links = status->st_nlink;
}

static void walk_directory(struct walk *walk, const char *path)
{
	struct stat status, own;
	uint64_t directories = 2;
	char below[PATH_MAX];
	DIR *stream = opendir(path);
	if (!stream || lstat(path, &own)) {
		walk_complain(walk, path, strerror(errno));
		return;
	}
	for (const struct dirent *entry; (entry = readdir(stream));) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		snprintf(below, sizeof(below), "%.3800s/%.250s", path, entry->d_name);
		if (lstat(below, &status)) {
			walk_complain(walk, below, "is listed, but not there");
		} else if (!S_ISDIR(status.st_mode)) {
			walk_file(walk, &status);
		} else {
			directories++;
			if (walk->todo_count < FOUND_MAX)
				walk->todo[walk->todo_count++] = strdup(below);
		}
	}
	closedir(stream);
	if (own.st_nlink != directories)
		walk_complain(walk, path, "its link count is not that of its directories");
}

static void check_log(struct walk *walk, const char *path)
{
	uint64_t last[256] = {0};
	struct log_record record;
	FILE *in = fopen(path, "r");
	if (!in)
		return; /* nobody came to it */
	size_t length;
	while ((length = fread(&record, 1, sizeof(record), in)) == sizeof(record)) {
		const struct log_record wanted = record_make(record.worker, record.number);
		if (memcmp(&record, &wanted, sizeof(record)) || record.worker >= 256 || record.number != ++last[record.worker]) {
			walk_complain(walk, path, "a record is torn, missing or out of order");
			break;
		}
	}
	if (length)
		walk_complain(walk, path, "it ends in the middle of a record");
	fclose(in);
}

int shared_check(const struct exerciser_options *options)
{
	static struct walk walk;
	char path[PATH_MAX];
	snprintf(path, sizeof(path), "%s/%s", options->directory, shared_name);
	walk.todo[walk.todo_count++] = strdup(path);
	unsigned directories = 0;
	for (; walk.todo_count && directories < FOUND_MAX; directories++) {
		char *next = walk.todo[--walk.todo_count];
		walk_directory(&walk, next);
		free(next);
	}
	for (unsigned i = 0; i < walk.found_count; i++)
		if (walk.found[i].names != walk.found[i].links)
			walk_complain(&walk, path, "a file has another link count than names");
	snprintf(path, sizeof(path), "%s/%s/log", options->directory, shared_name);
	check_log(&walk, path);
	if (directories == FOUND_MAX || walk.found_count == FOUND_MAX)
		walk_complain(&walk, path, "it is too large to be checked");
	printf("shared: %u directories, %u files, %u differences\n", directories, walk.found_count, walk.wrong);
	return walk.wrong ? 1 : 0;
}
