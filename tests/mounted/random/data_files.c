/* SPDX-License-Identifier: BSD-3-Clause */
/* data_exerciser: operations that give a file another name or another descriptor, or a name another file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/mounted/random/data.h"

enum { SMALL_MAX = 200000 };

void file_close(struct data_file *file)
{
	close(file->fd);
	if (file->fd_direct >= 0)
		close(file->fd_direct);
	file->fd = file->fd_direct = -1;
}

void file_open(struct data_run *run, struct data_file *file, int flags)
{
	file->fd = openat(run->directory, file->name, O_RDWR | flags, 0600);
	if (file->fd < 0)
		call_failed(run, file, "open");
	file->fd_direct = -1;
	if (run->exerciser->options->no_direct)
		return;
	file->fd_direct = openat(run->directory, file->name, O_RDWR | O_DIRECT);
	if (file->fd_direct < 0)
		call_failed(run, file, "open with O_DIRECT");
}

/* A range of this file through another descriptor of it: written, or read and compared. */
static void use_descriptor(struct data_run *run, struct data_file *file, int fd, const char *how)
{
	const struct data_range range = range_pick(run, file, run->size_max, 1);
	if (chance(run->exerciser, 2)) {
		check_bytes(run, file, range, run->buffer, pread(fd, run->buffer, range.length, (off_t)range.offset), how);
		return;
	}
	op_note(run->exerciser, ", write of %lu..%lu", range.offset, range_end(range));
	fill_bytes(run->buffer, range.length, run->exerciser->op << 8 | run->exerciser->worker);
	if (pwrite(fd, run->buffer, range.length, (off_t)range.offset) != (ssize_t)range.length)
		call_failed(run, file, how);
	model_write(run, file, range, run->buffer);
}

void op_reopen(struct data_run *run, struct data_file *file)
{
	static const struct { int flags; const char *name; } ways[] = {{0, ""}, {0, ""}, {O_SYNC, " O_SYNC"}, {O_DSYNC, " O_DSYNC"},
		{O_NOATIME, " O_NOATIME"}, {O_TRUNC, " O_TRUNC"}};
	const unsigned way = (unsigned)pick(run->exerciser, file->shared ? 5 : 6);
	op_begin(run->exerciser, file->id, 0, 0, 0, "%s close, open%s, size %lu", file->name, ways[way].name, file->size);
	file_close(file);
	file_open(run, file, ways[way].flags);
	if (ways[way].flags == O_TRUNC)
		model_resize(run, file, 0);
}

/* The file loses its name to another but stays open: what it holds must stay, too, until it is closed. */
static void check_nameless(struct data_run *run, struct data_file *file, const char *how)
{
	for (unsigned i = 0; i < 3; i++)
		use_descriptor(run, file, file->fd, how);
	check_file(run, file, file->fd, how);
	file_close(file);
}

static void file_forget_bytes(struct data_run *run, struct data_file *file)
{
	model_resize(run, file, 0);
	memset(file->allocated, 0, run->size_max / BLOCK);
}

/* Everything but the names changes places. */
static void files_swap(struct data_file *a, struct data_file *b)
{
	struct data_file moved = *a;
	*a = *b;
	*b = moved;
	memcpy(moved.name, a->name, NAME_SIZE);
	memcpy(a->name, b->name, NAME_SIZE);
	memcpy(b->name, moved.name, NAME_SIZE);
	moved.id = a->id;
	a->id = b->id;
	b->id = moved.id;
}

void op_rename_over(struct data_run *run, struct data_file *file)
{
	struct data_file *target = &run->files[pick(run->exerciser, run->file_count - SHARED_FILES)];
	const bool exchange = chance(run->exerciser, 3);
	op_begin(run->exerciser, file->id, target->id, 0, 0, "%s rename%s to %s, sizes %lu, %lu", file->name,
		exchange ? " (exchange)" : "", target->name, file->size, target->size);
	if (renameat2(run->directory, file->name, run->directory, target->name, exchange ? RENAME_EXCHANGE : 0))
		call_failed(run, file, "rename");
	if (target == file)
		return;
	files_swap(file, target); /* now target, by name and number, has what file had */
	if (exchange)
		return;
	check_nameless(run, file, "after a rename over it");
	file_forget_bytes(run, file);
	file_open(run, file, O_CREAT | O_EXCL);
}

void op_link(struct data_run *run, struct data_file *file)
{
	char other[NAME_SIZE + 8];
	snprintf(other, sizeof(other), "%s.link", file->name);
	const unsigned way = (unsigned)pick(run->exerciser, 3);
	static const char *const ways[] = {"unlink the link", "unlink the first name", "rename one over the other"};
	op_begin(run->exerciser, file->id, 0, 0, 0, "%s link, %s, size %lu", file->name, ways[way], file->size);
	const int error = linkat(run->directory, file->name, run->directory, other, 0);
	const int fd = error ? -1 : openat(run->directory, other, O_RDWR);
	if (fd < 0)
		call_failed(run, file, "link, open of the link");
	use_descriptor(run, file, fd, "through a second name");
	close(fd);
	if (way == 2 && renameat(run->directory, other, run->directory, file->name)) /* of the same file: does nothing */
		call_failed(run, file, "rename to a link of itself");
	if (unlinkat(run->directory, way == 1 ? file->name : other, 0))
		call_failed(run, file, "unlink");
	if (way == 1 && renameat(run->directory, other, run->directory, file->name))
		call_failed(run, file, "rename");
}

void op_unlink_open(struct data_run *run, struct data_file *file)
{
	op_begin(run->exerciser, file->id, 0, 0, 0, "%s unlink while open, size %lu", file->name, file->size);
	if (unlinkat(run->directory, file->name, 0))
		call_failed(run, file, "unlink");
	check_nameless(run, file, "after unlink");
	file_forget_bytes(run, file);
	file_open(run, file, O_CREAT | O_EXCL);
}

/* A new file without a name gets that of this one. */
void op_tmpfile(struct data_run *run, struct data_file *file)
{
	const uint64_t length = pick(run->exerciser, chance(run->exerciser, 3) ? BLOCK : SMALL_MAX);
	char other[NAME_SIZE + 8], path[64];
	op_begin(run->exerciser, file->id, 0, 0, 0, "%s replaced by an O_TMPFILE of %lu bytes, size %lu", file->name, length, file->size);
	const int fd = openat(run->directory, ".", O_TMPFILE | O_RDWR, 0600);
	fill_bytes(run->buffer, length, run->exerciser->op << 8 | run->exerciser->worker);
	if (fd < 0 || pwrite(fd, run->buffer, length, 0) != (ssize_t)length)
		call_failed(run, file, "O_TMPFILE, pwrite");
	snprintf(other, sizeof(other), "%s.new", file->name);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (linkat(AT_FDCWD, path, run->directory, other, AT_SYMLINK_FOLLOW) ||
			renameat(run->directory, other, run->directory, file->name))
		call_failed(run, file, "linkat of a nameless file, rename");
	close(fd);
	file_close(file);
	file_forget_bytes(run, file);
	fill_bytes(run->buffer, length, run->exerciser->op << 8 | run->exerciser->worker);
	model_write(run, file, (struct data_range){0, length}, run->buffer);
	file_open(run, file, 0);
}
