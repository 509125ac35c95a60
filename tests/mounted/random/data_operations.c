/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * data_exerciser: the operations on a file's bytes. Each draws its parameters, is noted, done, and repeated on the
 * model.
 *
 * Page cache, mmap and direct I/O are mixed only in turn, by one process: Linux then writes back and drops what is
 * cached around each direct access, so that all of them see the same bytes.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/mounted/random/data.h"

enum { MAP_REACH = 1 << 20 };

void call_failed(struct data_run *run, const struct data_file *file, const char *call)
{
	const int error = errno;
	differ(run->exerciser, file->id, 0, 0, "%s: %s: %s", file->name, call, error_text(error));
}

static void begin(struct data_run *run, const struct data_file *file, struct data_range range, const char *what)
{
	op_begin(run->exerciser, file->id, 0, range.offset, range_end(range), "%s %s %lu..%lu (%lu), size %lu", file->name, what,
		range.offset, range_end(range), range.length, file->size);
}

static void fill(struct data_run *run, uint64_t length)
{
	fill_bytes(run->buffer, length, run->exerciser->op << 8 | run->exerciser->worker);
}

/* A write may be cut short only by an error. */
static void written(struct data_run *run, struct data_file *file, struct data_range range, int64_t count, const char *call)
{
	if (count < 0)
		call_failed(run, file, call);
	if ((uint64_t)count != range.length)
		differ(run->exerciser, file->id, range.offset, range_end(range), "%s: %s of %lu bytes at %lu wrote %ld", file->name,
			call, range.length, range.offset, count);
	model_write(run, file, range, run->buffer);
}

/* ---- reading and writing ---- */

static void op_write(struct data_run *run, struct data_file *file)
{
	static const struct { int flags; const char *name; } ways[] = {{0, "pwrite"}, {0, "pwrite"}, {0, "pwrite"}, {0, "pwritev"},
		{RWF_DSYNC, "pwritev2 DSYNC"}, {RWF_SYNC, "pwritev2 SYNC"}};
	const unsigned way = (unsigned)pick(run->exerciser, sizeof(ways) / sizeof(*ways));
	const struct data_range range = range_pick(run, file, run->size_max, 1);
	if (!range.length)
		return;
	begin(run, file, range, ways[way].name);
	fill(run, range.length);
	const uint64_t first = pick(run->exerciser, range.length + 1);
	const struct iovec parts[] = {{run->buffer, first}, {run->buffer + first, range.length - first}};
	const int64_t count = way < 3 ? pwrite(file->fd, run->buffer, range.length, (off_t)range.offset) :
		pwritev2(file->fd, parts, 2, (off_t)range.offset, ways[way].flags);
	written(run, file, range, count, ways[way].name);
}

static void op_read(struct data_run *run, struct data_file *file)
{
	const struct data_range range = range_pick(run, file, run->size_max, 1);
	if (!range.length)
		return;
	begin(run, file, range, "pread");
	check_bytes(run, file, range, run->buffer, pread(file->fd, run->buffer, range.length, (off_t)range.offset), "pread");
}

static void op_append(struct data_run *run, struct data_file *file)
{
	struct data_range range = range_pick(run, file, run->size_max, 1);
	range.offset = file->size;
	if (range_end(range) > run->size_max)
		range.length = run->size_max - range.offset;
	if (!range.length)
		return;
	begin(run, file, range, "append");
	fill(run, range.length);
	const int fd = openat(run->directory, file->name, O_WRONLY | O_APPEND);
	const int64_t count = fd < 0 ? -1 : write(fd, run->buffer, range.length);
	written(run, file, range, count, "append");
	close(fd);
}

/* Under FUSE's writeback cache the filesystem does not know the size of the file until it is synced. */
static void direct_begin(struct data_run *run, struct data_file *file, struct data_range range, const char *what)
{
	begin(run, file, range, what);
	if (run->exerciser->options->writeback && fsync(file->fd))
		call_failed(run, file, "fsync");
}

/* Direct I/O uses the buffer at a place that is aligned as the device may need it, not always to a page. */
static void op_direct_write(struct data_run *run, struct data_file *file)
{
	const struct data_range range = range_pick(run, file, run->size_max, run->exerciser->options->direct_align);
	if (!range.length)
		return;
	direct_begin(run, file, range, "direct write");
	fill(run, range.length);
	written(run, file, range, pwrite(file->fd_direct, run->buffer, range.length, (off_t)range.offset), "direct write");
}

static void op_direct_read(struct data_run *run, struct data_file *file)
{
	const struct data_range range = range_pick(run, file, run->size_max, run->exerciser->options->direct_align);
	if (!range.length)
		return;
	direct_begin(run, file, range, "direct read");
	uint8_t *buffer = run->buffer + 512 * pick(run->exerciser, 8);
	check_bytes(run, file, range, buffer, pread(file->fd_direct, buffer, range.length, (off_t)range.offset), "direct read");
}

/* A range inside the file, and the pages around it mapped. Length 0: the file is empty. */
static struct data_range map_pick(struct data_run *run, struct data_file *file, uint8_t **pages, uint64_t *pages_length,
	const char *what)
{
	const struct data_range range = range_pick(run, file, file->size, 1);
	if (!range.length)
		return range;
	begin(run, file, range, what);
	const uint64_t first = range.offset / BLOCK * BLOCK;
	*pages_length = range_end(range) - first;
	*pages = mmap(NULL, *pages_length, PROT_READ | PROT_WRITE, MAP_SHARED, file->fd, (off_t)first);
	if (*pages == MAP_FAILED)
		call_failed(run, file, "mmap");
	return range;
}

static void op_map_write(struct data_run *run, struct data_file *file)
{
	static const struct { int flags; const char *name; } ways[] = {{0, "map write"}, {MS_ASYNC, "map write, MS_ASYNC"},
		{MS_SYNC, "map write, MS_SYNC"}};
	const unsigned way = (unsigned)pick(run->exerciser, 3);
	uint8_t *pages;
	uint64_t length;
	const struct data_range range = map_pick(run, file, &pages, &length, ways[way].name);
	if (!range.length)
		return;
	fill(run, range.length);
	memcpy(pages + range.offset % BLOCK, run->buffer, range.length);
	if (way && msync(pages, length, ways[way].flags))
		call_failed(run, file, "msync");
	munmap(pages, length);
	model_write(run, file, range, run->buffer);
	/* What is mapped may be a large piece of the page cache, which then is allocated as a whole (ext4). */
	const uint64_t first = range.offset / MAP_REACH * MAP_REACH, end = (range_end(range) / MAP_REACH + 1) * MAP_REACH;
	model_allocate(run, file, (struct data_range){first, (end < file->size ? end : file->size) - first});
}

static void op_map_read(struct data_run *run, struct data_file *file)
{
	uint8_t *pages;
	uint64_t length;
	const struct data_range range = map_pick(run, file, &pages, &length, "map read");
	if (!range.length)
		return;
	memcpy(run->buffer, pages + range.offset % BLOCK, range.length);
	munmap(pages, length);
	check_bytes(run, file, range, run->buffer, (int64_t)range.length, "map read");
}

/* ---- size and space ---- */

static void op_truncate(struct data_run *run, struct data_file *file)
{
	static const unsigned weights[] = {30, 30, 15, 15, 10};
	const struct data_range range = range_pick(run, file, run->size_max, 1);
	uint64_t size = range.offset;
	switch (pick_weighted(run->exerciser, weights, 5)) {
	case 1: size = pick(run->exerciser, file->size); break;
	case 2: size = size / BLOCK * BLOCK; break;
	case 3: size = file->size + pick(run->exerciser, run->size_max - file->size + 1); break;
	case 4: size = 0; break;
	}
	const bool by_name = chance(run->exerciser, 3);
	op_begin(run->exerciser, file->id, 0, size < file->size ? size : file->size, run->size_max, "%s %struncate to %lu, size %lu",
		file->name, by_name ? "" : "f", size, file->size);
	const int fd = by_name ? openat(run->directory, file->name, O_WRONLY | (size ? 0 : O_TRUNC)) : file->fd;
	if (fd < 0 || ftruncate(fd, (off_t)size))
		call_failed(run, file, "truncate");
	if (by_name)
		close(fd);
	model_resize(run, file, size);
}

static void op_allocate(struct data_run *run, struct data_file *file)
{
	const bool keep = chance(run->exerciser, 2);
	const struct data_range range = range_pick(run, file, run->size_max, 1);
	if (!range.length)
		return;
	begin(run, file, range, keep ? "fallocate keep size" : "fallocate");
	if (fallocate(file->fd, keep ? FALLOC_FL_KEEP_SIZE : 0, (off_t)range.offset, (off_t)range.length))
		call_failed(run, file, "fallocate");
	if (!keep && range_end(range) > file->size)
		model_resize(run, file, range_end(range));
	model_allocate(run, file, range);
}

/* What was punched out must be seen as a hole, not only read as zeros. */
static void check_punched(struct data_run *run, struct data_file *file, struct data_range range)
{
	const uint64_t first = (range.offset + BLOCK - 1) / BLOCK * BLOCK;
	const uint64_t end = range_end(range) < file->size ? range_end(range) : file->size, last = end / BLOCK * BLOCK;
	if (!run->reports_holes || file->shared || first >= last)
		return;
	const off_t data = lseek(file->fd, (off_t)first, SEEK_DATA);
	if (data < 0 ? errno != ENXIO : (uint64_t)data < last)
		differ(run->exerciser, file->id, range.offset, range_end(range), "%s: after a punch of %lu..%lu SEEK_DATA from %lu says %ld",
			file->name, range.offset, range_end(range), first, data);
}

/* Not in the page cache of a file that others have mapped: between the answer of a FUSE filesystem and dropping what is cached the
 * kernel does not keep a page that somebody else has changed meanwhile from being written back, old bytes included. */
static void op_punch(struct data_run *run, struct data_file *file)
{
	if (file->shared == SHARED_CACHED)
		return;
	const struct data_range range = range_pick(run, file, run->size_max, 1);
	if (!range.length)
		return;
	begin(run, file, range, "punch");
	if (fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)range.offset, (off_t)range.length))
		call_failed(run, file, "punch");
	model_zero(run, file, range);
	/* Behind the end of the file ext4 keeps what fallocate reserved. */
	if (range.offset < file->size)
		model_deallocate(run, file, (struct data_range){range.offset,
			(range_end(range) < file->size ? range_end(range) : file->size) - range.offset});
	check_punched(run, file, range);
}

static void op_zero(struct data_run *run, struct data_file *file)
{
	if (file->shared == SHARED_CACHED)
		return; /* as op_punch */
	const bool keep = file->shared || chance(run->exerciser, 2);
	const struct data_range range = range_pick(run, file, run->size_max, 1);
	if (!range.length)
		return;
	begin(run, file, range, keep ? "zero range keep size" : "zero range");
	if (fallocate(file->fd, FALLOC_FL_ZERO_RANGE | (keep ? FALLOC_FL_KEEP_SIZE : 0), (off_t)range.offset, (off_t)range.length))
		call_failed(run, file, "zero range");
	model_zero(run, file, range);
	if (!keep && range_end(range) > file->size)
		model_resize(run, file, range_end(range));
	model_allocate(run, file, range);
}

static void op_copy(struct data_run *run, struct data_file *to)
{
	struct data_file *from = &run->files[pick(run->exerciser, run->file_count - SHARED_FILES)];
	struct data_range source = range_pick(run, from, run->size_max, 1), target = range_pick(run, to, run->size_max, 1);
	if (!target.length)
		return;
	if (source.length > target.length)
		source.length = target.length;
	const uint64_t distance = source.offset > target.offset ? source.offset - target.offset : target.offset - source.offset;
	if (from == to && distance < source.length)
		source.length = distance;
	target.length = source.length;
	op_begin(run->exerciser, to->id, from->id, target.offset, range_end(target), "%s copy to %lu..%lu from %s %lu, sizes %lu, %lu",
		to->name, target.offset, range_end(target), from->name, source.offset, to->size, from->size);
	off_t in = (off_t)source.offset, out = (off_t)target.offset;
	const ssize_t count = copy_file_range(from->fd, &in, to->fd, &out, source.length, 0);
	op_note(run->exerciser, " -> %ld", count);
	const uint64_t available = source.offset < from->size ? from->size - source.offset : 0;
	const uint64_t most = source.length < available ? source.length : available;
	if (count < 0)
		call_failed(run, to, "copy_file_range");
	if ((uint64_t)count > most || (!count && most))
		differ(run->exerciser, to->id, target.offset, range_end(target), "%s: copied %ld of %lu", to->name, count, most);
	target.length = (uint64_t)count;
	memcpy(run->buffer, from->bytes + (count ? source.offset : 0), target.length);
	model_write(run, to, target, run->buffer);
	if ((uint64_t)in != source.offset + target.length || (uint64_t)out != range_end(target))
		differ(run->exerciser, to->id, 0, 0, "%s: after a copy of %ld the offsets are %ld and %ld", to->name, count, in, out);
}

/* ---- caches ---- */

static void op_sync(struct data_run *run, struct data_file *file)
{
	const unsigned way = (unsigned)pick(run->exerciser, 3);
	static const char *const names[] = {"fsync", "fdatasync", "sync_file_range"};
	begin(run, file, (struct data_range){0, run->size_max}, names[way]);
	const int flags = SYNC_FILE_RANGE_WRITE | SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER;
	if (way == 0 ? fsync(file->fd) : way == 1 ? fdatasync(file->fd) : sync_file_range(file->fd, 0, 0, flags))
		call_failed(run, file, names[way]);
}

static void op_drop(struct data_run *run, struct data_file *file)
{
	const bool all = chance(run->exerciser, 2), clean = chance(run->exerciser, 2);
	const struct data_range range = all ? (struct data_range){0, run->size_max} : range_pick(run, file, run->size_max, 1);
	begin(run, file, range, clean ? "fsync, drop cached pages" : "drop clean cached pages");
	if ((clean && fsync(file->fd)) ||
			(errno = posix_fadvise(file->fd, (off_t)range.offset, (off_t)range.length, POSIX_FADV_DONTNEED)))
		call_failed(run, file, "fadvise");
	if (!run->exerciser->options->drop_caches || !chance(run->exerciser, 20))
		return;
	const int fd = open("/proc/sys/vm/drop_caches", O_WRONLY);
	if (fd >= 0 && write(fd, "3", 1) == 1)
		op_note(run->exerciser, ", drop_caches");
	close(fd);
}

static void op_stat(struct data_run *run, struct data_file *file)
{
	begin(run, file, (struct data_range){0, run->size_max}, "statx");
	check_stat(run, file);
}

static void op_holes(struct data_run *run, struct data_file *file)
{
	begin(run, file, (struct data_range){0, run->size_max}, "holes");
	check_holes(run, file);
}

static void op_verify(struct data_run *run, struct data_file *file)
{
	const bool direct = file->fd_direct >= 0 && file->shared != SHARED_CACHED && chance(run->exerciser, 2);
	const struct data_range range = {0, run->size_max};
	if (direct)
		direct_begin(run, file, range, "verify, direct");
	else
		begin(run, file, range, "verify");
	/* Other workers write parts of the same blocks past the page cache: there is no cached view of that file. */
	if (file->shared == SHARED_DIRECT && !direct)
		return;
	check_file(run, file, direct ? file->fd_direct : file->fd, "verify");
}

const struct data_operation data_operations[] = {
	{"write", 60, true, ACCESS_CACHED, op_write},
	{"read", 50, true, ACCESS_CACHED, op_read},
	{"append", 12, false, ACCESS_CACHED, op_append},
	{"direct write", 40, true, ACCESS_DIRECT, op_direct_write},
	{"direct read", 30, true, ACCESS_DIRECT, op_direct_read},
	{"map write", 25, true, ACCESS_MAPPED, op_map_write},
	{"map read", 20, true, ACCESS_MAPPED, op_map_read},
	{"truncate", 22, false, ACCESS_NONE, op_truncate},
	{"allocate", 14, false, ACCESS_NONE, op_allocate},
	{"punch", 18, true, ACCESS_NONE, op_punch},
	{"zero", 12, true, ACCESS_NONE, op_zero},
	{"copy", 22, false, ACCESS_NONE, op_copy},
	{"sync", 10, true, ACCESS_NONE, op_sync},
	{"drop", 10, true, ACCESS_NONE, op_drop},
	{"stat", 10, true, ACCESS_NONE, op_stat},
	{"holes", 8, false, ACCESS_NONE, op_holes},
	{"verify", 3, true, ACCESS_NONE, op_verify},
	{"reopen", 8, true, ACCESS_NONE, op_reopen},
	{"rename over", 4, false, ACCESS_NONE, op_rename_over},
	{"link", 5, false, ACCESS_NONE, op_link},
	{"unlink open", 4, false, ACCESS_NONE, op_unlink_open},
	{"tmpfile", 3, false, ACCESS_NONE, op_tmpfile},
};
const unsigned data_operation_count = sizeof(data_operations) / sizeof(*data_operations);
