/* SPDX-License-Identifier: BSD-3-Clause */
/* data_exerciser: the model of a file's bytes, which ranges are worth trying, and comparing the two. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/mounted/random/data.h"

enum { MIB = 1 << 20, TREE_SLACK = 16 * BLOCK, SHOWN = 16 };

static uint64_t min(uint64_t a, uint64_t b) { return a < b ? a : b; }
static uint64_t max(uint64_t a, uint64_t b) { return a > b ? a : b; }

/* ---- ranges ---- */

static uint64_t pick_near(struct exerciser *exerciser, uint64_t place)
{
	static const int distances[] = {0, 0, 0, 1, -1, 2, -7, 511, 512, -512, -513};
	const int64_t near = (int64_t)place + distances[pick(exerciser, sizeof(distances) / sizeof(*distances))];
	return near < 0 ? 0 : (uint64_t)near;
}

static uint64_t pick_length(struct exerciser *exerciser)
{
	static const unsigned weights[] = {20, 25, 25, 20, 7, 3};
	switch (pick_weighted(exerciser, weights, 6)) {
	case 0: return 1 + pick(exerciser, 64);
	case 1: return 1 + pick(exerciser, BLOCK);
	case 2: return pick_near(exerciser, (1 + pick(exerciser, 8)) * BLOCK);
	case 3: return 1 + pick(exerciser, 64 << 10);
	case 4: return pick_near(exerciser, (1 + pick(exerciser, 100)) * BLOCK);
	default: return pick_near(exerciser, pick(exerciser, 2) ? MIB : LENGTH_MAX - BLOCK);
	}
}

static uint64_t pick_offset(struct exerciser *exerciser, const struct data_file *file, uint64_t limit)
{
	static const unsigned weights[] = {30, 30, 12, 18, 10};
	switch (pick_weighted(exerciser, weights, 5)) {
	case 0: return pick(exerciser, limit);
	case 1: return pick_near(exerciser, pick(exerciser, limit / BLOCK + 1) * BLOCK);
	case 2: return pick_near(exerciser, pick(exerciser, limit / MIB + 1) * MIB);
	case 3: return pick_near(exerciser, file->size);
	default: return 0;
	}
}

/* In a shared file: one of the worker's own units, and a part of it. */
static struct data_range range_pick_own(struct data_run *run, uint64_t limit, unsigned align)
{
	struct exerciser *exerciser = run->exerciser;
	const uint64_t workers = exerciser->options->workers, rounds = limit / (SHARED_UNIT * workers);
	if (!rounds)
		return (struct data_range){0};
	const uint64_t unit = (pick(exerciser, rounds) * workers + exerciser->worker) * SHARED_UNIT;
	const uint64_t steps = SHARED_UNIT / align, from = pick(exerciser, 3) ? pick(exerciser, steps) : 0;
	const uint64_t count = pick(exerciser, 3) ? 1 + pick(exerciser, steps - from) : steps - from;
	return (struct data_range){unit + from * align, count * align};
}

struct data_range range_pick(struct data_run *run, const struct data_file *file, uint64_t limit, unsigned align)
{
	if (file->shared)
		return range_pick_own(run, limit, file->shared == SHARED_DIRECT && align < 512 ? 512 : align);
	struct data_range range = {.offset = pick_offset(run->exerciser, file, limit)};
	const uint64_t length = max(1, min(pick_length(run->exerciser), LENGTH_MAX));
	limit -= limit % align;
	if (!limit)
		return (struct data_range){0};
	if (range.offset >= limit)
		range.offset = limit - 1;
	range.offset -= range.offset % align;
	range.length = min((length + align - 1) / align * align, limit - range.offset);
	if (range.length > LENGTH_MAX)
		range.length = LENGTH_MAX;
	return range;
}

/* ---- the model ---- */

void model_allocate(struct data_run *run, struct data_file *file, struct data_range range)
{
	if (range.length)
		memset(file->allocated + range.offset / BLOCK, 1, (range_end(range) - 1) / BLOCK - range.offset / BLOCK + 1);
}

void model_deallocate(struct data_run *run, struct data_file *file, struct data_range range)
{
	const uint64_t first = (range.offset + BLOCK - 1) / BLOCK, last = range_end(range) / BLOCK;
	if (first < last)
		memset(file->allocated + first, 0, last - first);
}

void model_write(struct data_run *run, struct data_file *file, struct data_range range, const uint8_t *bytes)
{
	memcpy(file->bytes + range.offset, bytes, range.length);
	if (range.length && range_end(range) > file->size)
		model_resize(run, file, range_end(range));
	model_allocate(run, file, range);
}

void model_zero(struct data_run *run, struct data_file *file, struct data_range range)
{
	if (range.offset < file->size)
		memset(file->bytes + range.offset, 0, min(range_end(range), file->size) - range.offset);
}

void model_resize(struct data_run *run, struct data_file *file, uint64_t size)
{
	if (size < file->size) {
		memset(file->bytes + size, 0, file->size - size);
		/* Also what fallocate reserved behind the end goes, if the filesystem sees that the file gets shorter. */
		if (!run->exerciser->options->writeback || !size)
			model_deallocate(run, file, (struct data_range){size, run->size_max - size});
	} else if (file->size % BLOCK) {
		model_allocate(run, file, (struct data_range){file->size, 1}); /* its last block may be written as a whole */
	}
	file->size = size;
}

/* ---- comparing ---- */

static void bytes_text(char *text, size_t size, const uint8_t *bytes, uint64_t count)
{
	static const char digits[] = "0123456789abcdef";
	size_t used = 0;
	for (uint64_t i = 0; i < count && used + 4 < size; i++) {
		text[used++] = digits[bytes[i] >> 4];
		text[used++] = digits[bytes[i] & 15];
		text[used++] = ' ';
	}
	text[used] = '\0';
}

/* Where does the first wrong byte's surrounding come from? An all-zero or a moved range says much about the bug. */
static void bytes_differ(struct data_run *run, struct data_file *file, uint64_t at, uint64_t end, const uint8_t *actual,
	const char *how)
{
	const uint8_t *wanted = file->bytes + at;
	uint64_t wrong = 0, last = 0;
	for (uint64_t i = 0; i < end - at; i++) {
		if (actual[i] != wanted[i]) {
			wrong++;
			last = i;
		}
	}
	char wanted_text[3 * SHOWN + 8], actual_text[3 * SHOWN + 8];
	bytes_text(wanted_text, sizeof(wanted_text), wanted, min(SHOWN, end - at));
	bytes_text(actual_text, sizeof(actual_text), actual, min(SHOWN, end - at));
	const char *pattern = "";
	for (uint64_t from = 0; from + SHOWN <= file->size && at + SHOWN <= end; from++) {
		if (from != at && memcmp(file->bytes + from, actual, SHOWN) == 0) {
			pattern = "; what is there is elsewhere in the file, too";
			break;
		}
	}
	differ(run->exerciser, file->id, at, at + last + 1, "%s (%s): %lu bytes differ in %lu..%lu (size %lu)%s\n"
		"  wanted %s\n  actual %s", file->name, how, wrong, at, at + last, file->size, pattern, wanted_text, actual_text);
}

void check_bytes(struct data_run *run, struct data_file *file, struct data_range range, const uint8_t *got, int64_t count,
	const char *how)
{
	if (count < 0)
		call_failed(run, file, how);
	uint64_t wanted = range.offset >= file->size ? 0 : min(range.length, file->size - range.offset);
	if (file->shared && (uint64_t)count > wanted)
		wanted = min(range.length, (uint64_t)count); /* another worker has made it longer */
	if ((uint64_t)count != wanted)
		differ(run->exerciser, file->id, range.offset, range_end(range), "%s (%s): %ld bytes at %lu, wanted %lu of %lu (size %lu)",
			file->name, how, count, range.offset, wanted, range.length, file->size);
	if (memcmp(got, file->bytes + range.offset, wanted) == 0)
		return;
	uint64_t at = 0;
	while (got[at] == file->bytes[range.offset + at])
		at++;
	bytes_differ(run, file, range.offset + at, range.offset + wanted, got + at, how);
}

static void check_own_units(struct data_run *run, struct data_file *file, int fd, const char *how)
{
	const uint64_t workers = run->exerciser->options->workers;
	for (uint64_t unit = run->exerciser->worker; unit * SHARED_UNIT < file->size; unit += workers) {
		const struct data_range range = {unit * SHARED_UNIT, SHARED_UNIT};
		const int64_t count = pread(fd, run->buffer, range.length, (off_t)range.offset);
		check_bytes(run, file, range, run->buffer, count, how);
	}
}

void check_file(struct data_run *run, struct data_file *file, int fd, const char *how)
{
	if (file->shared) {
		check_own_units(run, file, fd, how);
		return;
	}
	for (uint64_t at = 0; at <= file->size; at += MIB) {
		const struct data_range range = {at, MIB};
		const int64_t count = pread(fd, run->buffer, range.length, (off_t)at);
		check_bytes(run, file, range, run->buffer, count, how);
	}
}

void check_stat(struct data_run *run, struct data_file *file)
{
	struct statx status;
	if (statx(file->fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status))
		call_failed(run, file, "statx");
	if (file->shared ? status.stx_size < file->size : status.stx_size != file->size)
		differ(run->exerciser, file->id, 0, 0, "%s: size %llu, wanted %lu", file->name, status.stx_size, file->size);
	if (file->shared)
		return;
	uint64_t least = 0, most = TREE_SLACK;
	static const uint8_t zeros[BLOCK];
	for (uint64_t at = 0; at < run->size_max; at += BLOCK) {
		most += file->allocated[at / BLOCK] ? BLOCK : 0;
		least += file->size >= BLOCK && memcmp(file->bytes + at, zeros, BLOCK) ? BLOCK : 0;
	}
	if (status.stx_blocks * 512 > most)
		differ(run->exerciser, file->id, 0, 0, "%s: %llu bytes on the device, and at most %lu could be", file->name,
			status.stx_blocks * 512, most);
	/* Space for what the kernel has not written yet is not always counted: after fsync it is. */
	if (fsync(file->fd) || statx(file->fd, "", AT_EMPTY_PATH | AT_STATX_FORCE_SYNC, STATX_BASIC_STATS, &status))
		call_failed(run, file, "fsync, statx");
	if (status.stx_blocks * 512 < least)
		differ(run->exerciser, file->id, 0, 0, "%s: %llu bytes on the device after fsync, and %lu hold data", file->name,
			status.stx_blocks * 512, least);
}

/* No data from @from to @to, says the filesystem. */
static void check_is_hole(struct data_run *run, struct data_file *file, uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < min(to, file->size); at++)
		if (file->bytes[at])
			differ(run->exerciser, file->id, from, to, "%s: %lu..%lu is a hole by SEEK_DATA, but has data at %lu (size %lu)",
				file->name, from, to, at, file->size);
}

void check_holes(struct data_run *run, struct data_file *file)
{
	uint64_t at = pick(run->exerciser, 2) ? 0 : pick(run->exerciser, file->size);
	while (at < file->size) {
		const off_t data = lseek(file->fd, (off_t)at, SEEK_DATA);
		if (data < 0 && errno != ENXIO)
			call_failed(run, file, "SEEK_DATA");
		check_is_hole(run, file, at, data < 0 ? file->size : (uint64_t)data);
		if (data < 0)
			break;
		const off_t hole = lseek(file->fd, data, SEEK_HOLE);
		if (hole < 0)
			call_failed(run, file, "SEEK_HOLE");
		if ((uint64_t)data < at || hole <= data || (uint64_t)hole > file->size)
			differ(run->exerciser, file->id, 0, 0, "%s: from %lu data at %ld, then a hole at %ld (size %lu)", file->name, at,
				data, hole, file->size);
		at = (uint64_t)hole;
	}
	for (unsigned i = 0; i < 2; i++) {
		const off_t beyond = (off_t)(file->size + (i ? pick(run->exerciser, BLOCK) : 0));
		if (lseek(file->fd, beyond, i ? SEEK_DATA : SEEK_HOLE) != -1 || errno != ENXIO)
			differ(run->exerciser, file->id, 0, 0, "%s: seeking from %ld, the end or behind, is not ENXIO (size %lu)",
				file->name, beyond, file->size);
	}
}
