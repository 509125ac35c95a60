/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Operations on file data, on the whole filesystem, with 1, 2 and 4 owners. Single cases first; then random operations
 * on one file against a copy of it in memory, and several clients at once on ranges of one file. Each test ends with a
 * clean fsck.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sim/calls.h"

static unsigned owners;
#define ROOT FS_ROOT_INODE

static uint64_t make(struct machine *machine, const char *name)
{
	struct fs_entry entry;
	assert_int_equal(call_create(machine, ROOT, name, S_IFREG | 0666, &entry), 0);
	return entry.ino;
}

static struct fs_attr attr_of(struct machine *machine, uint64_t ino)
{
	struct fs_attr attr;
	assert_int_equal(call_getattr(machine, ino, &attr), 0);
	return attr;
}

static uint8_t pattern(uint64_t at) { return (uint8_t)(1 + (at * 31 + at / 251) % 255); }

static void write_pattern(struct machine *machine, uint64_t ino, uint64_t offset, uint32_t length)
{
	uint8_t *buffer = malloc(length);
	for (uint32_t i = 0; i < length; i++)
		buffer[i] = pattern(offset + i);
	assert_int_equal(call_write(machine, ino, buffer, offset, length), 0);
	free(buffer);
}

/* Bytes [offset, offset + length) are the pattern, or zero. */
static void check(struct machine *machine, uint64_t ino, uint64_t offset, uint32_t length, bool zero)
{
	uint8_t *buffer = malloc(length);
	uint32_t got;
	assert_int_equal(call_read(machine, ino, buffer, offset, length, &got), 0);
	assert_int_equal(got, length);
	for (uint32_t i = 0; i < length; i++)
		if (buffer[i] != (zero ? 0 : pattern(offset + i)))
			fail_msg("byte %llu is %u", (unsigned long long)(offset + i), buffer[i]);
	free(buffer);
}

static void test_small_files_are_inline(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	write_pattern(&m, ino, 0, 100);
	assert_int_equal(attr_of(&m, ino).blocks_512, 0);
	write_pattern(&m, ino, 100, 28);
	assert_int_equal(attr_of(&m, ino).blocks_512, 0);
	check(&m, ino, 0, 128, false);
	write_pattern(&m, ino, 128, 1);
	assert_int_equal(attr_of(&m, ino).blocks_512, 8);
	check(&m, ino, 0, 129, false);
	machine_remount(&m);
	check(&m, ino, 0, 129, false);
	assert_int_equal(attr_of(&m, ino).size, 129);
	assert_int_equal(call_truncate(&m, ino, 0), 0);
	assert_int_equal(attr_of(&m, ino).blocks_512, 0);
	write_pattern(&m, ino, 0, 10);
	assert_int_equal(attr_of(&m, ino).blocks_512, 0);
	/* A far write: the inline bytes move to a block of their own. */
	write_pattern(&m, ino, 50000, 10);
	check(&m, ino, 0, 10, false);
	check(&m, ino, 10, 50000 - 10, true);
	check(&m, ino, 50000, 10, false);
	assert_int_equal(attr_of(&m, ino).blocks_512, 16);
	machine_stop(&m);
}

static void test_inline_beside_xattrs(void **state)
{
	struct machine m;
	char value[64];
	uint32_t length;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	memset(value, 'v', sizeof(value));
	assert_int_equal(call_setxattr(&m, ino, "user.a", value, sizeof(value)), 0);
	write_pattern(&m, ino, 0, 40);
	write_pattern(&m, ino, 40, 60);
	check(&m, ino, 0, 100, false);
	write_pattern(&m, ino, 8192, 100);
	check(&m, ino, 0, 100, false);
	assert_int_equal(call_getxattr(&m, ino, "user.a", value, sizeof(value), &length), 0);
	assert_int_equal(length, sizeof(value));
	assert_int_equal(value[63], 'v');
	for (unsigned i = 0; i < 10; i++)
		write_pattern(&m, ino, 16384 * (i + 1), 4096);
	assert_int_equal(call_unlink(&m, ROOT, "f"), 0);
	call_forget(&m, ino, 1);
	machine_settle(&m);
	machine_stop(&m);
}

static void test_reads_end_at_the_end(void **state)
{
	struct machine m;
	char buffer[8192];
	uint32_t length;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	assert_int_equal(call_read(&m, ino, buffer, 0, 100, &length), 0);
	assert_int_equal(length, 0);
	write_pattern(&m, ino, 0, 5000);
	assert_int_equal(call_read(&m, ino, buffer, 4990, 100, &length), 0);
	assert_int_equal(length, 10);
	assert_int_equal(call_read(&m, ino, buffer, 5000, 100, &length), 0);
	assert_int_equal(length, 0);
	assert_int_equal(call_read(&m, ino, buffer, (uint64_t)INT64_MAX, 100, &length), 0);
	assert_int_equal(length, 0);
	assert_int_equal(call_read(&m, ROOT, buffer, 0, 100, &length), -EISDIR);
	assert_int_equal(call_write(&m, ROOT, buffer, 0, 100), -EISDIR);
	assert_int_equal(call_write(&m, ino, buffer, (uint64_t)INT64_MAX - 10, 5), -EFBIG);
	assert_int_equal(call_truncate(&m, ino, (uint64_t)INT64_MAX), -EFBIG);
	machine_stop(&m);
}

static void test_growing_shows_zeroes(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	write_pattern(&m, ino, 0, 20000);
	assert_int_equal(call_truncate(&m, ino, 9000), 0);
	assert_int_equal(call_truncate(&m, ino, 20000), 0);
	check(&m, ino, 0, 9000, false);
	check(&m, ino, 9000, 11000, true);
	assert_int_equal(call_truncate(&m, ino, 5000), 0);
	write_pattern(&m, ino, 30000, 1);
	check(&m, ino, 5000, 25000, true);
	assert_int_equal(call_truncate(&m, ino, 100), 0);
	write_pattern(&m, ino, 200, 10);
	check(&m, ino, 100, 100, true);
	machine_stop(&m);
}

static void test_big_truncate_frees_in_pieces(void **state)
{
	struct machine m;
	machine_start(&m, owners, MIB(64));
	const uint64_t before = call_statfs(&m).free_blocks;
	const uint64_t ino = make(&m, "f");
	/* Every other block: many extents, a tree. */
	for (unsigned i = 0; i < 600; i++)
		write_pattern(&m, ino, (uint64_t)i * 8192, 4096);
	assert_int_equal(attr_of(&m, ino).size, 599 * 8192 + 4096);
	machine_remount(&m);
	check(&m, ino, 100 * 8192, 4096, false);
	check(&m, ino, 100 * 8192 + 4096, 4096, true);
	assert_int_equal(call_truncate(&m, ino, 10 * 8192 + 100), 0);
	assert_int_equal(attr_of(&m, ino).blocks_512, (11 + 1) * 8); /* a tree node */
	assert_int_equal(call_truncate(&m, ino, 600 * 8192), 0);
	check(&m, ino, 10 * 8192, 100, false);
	check(&m, ino, 10 * 8192 + 100, 200000, true);
	assert_int_equal(call_truncate(&m, ino, 0), 0);
	assert_int_equal(attr_of(&m, ino).blocks_512, 0);
	assert_int_equal(call_unlink(&m, ROOT, "f"), 0);
	call_forget(&m, ino, 1);
	machine_settle(&m);
	/* What is left: an orphan block, perhaps an inode block. */
	assert_true(call_statfs(&m).free_blocks + 3 >= before);
	machine_stop(&m);
}

static void test_fallocate(void **state)
{
	struct machine m;
	const int keep = FALLOC_FL_KEEP_SIZE;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	assert_int_equal(call_fallocate(&m, ino, 0, 0, 100), 0);
	assert_int_equal(attr_of(&m, ino).size, 100);
	assert_int_equal(attr_of(&m, ino).blocks_512, 0);
	assert_int_equal(call_fallocate(&m, ino, 0, 0, 40000), 0);
	assert_int_equal(attr_of(&m, ino).size, 40000);
	assert_int_equal(attr_of(&m, ino).blocks_512, 80);
	check(&m, ino, 0, 40000, true);
	write_pattern(&m, ino, 10000, 10000);
	check(&m, ino, 0, 10000, true);
	check(&m, ino, 10000, 10000, false);
	check(&m, ino, 20000, 20000, true);
	assert_int_equal(attr_of(&m, ino).blocks_512, 80);
	assert_int_equal(call_fallocate(&m, ino, keep, 40960, 8192), 0);
	assert_int_equal(attr_of(&m, ino).size, 40000);
	assert_int_equal(attr_of(&m, ino).blocks_512, 96);
	assert_int_equal(call_fallocate(&m, ino, FALLOC_FL_PUNCH_HOLE | keep, 12000, 5000), 0);
	check(&m, ino, 10000, 2000, false);
	check(&m, ino, 12000, 5000, true);
	check(&m, ino, 17000, 3000, false);
	assert_int_equal(attr_of(&m, ino).blocks_512, 88);
	assert_int_equal(call_fallocate(&m, ino, FALLOC_FL_ZERO_RANGE, 17500, 30000), 0);
	check(&m, ino, 17000, 500, false);
	check(&m, ino, 17500, 30000, true);
	assert_int_equal(attr_of(&m, ino).size, 47500);
	assert_int_equal(call_fallocate(&m, ino, FALLOC_FL_PUNCH_HOLE, 0, 10), -EOPNOTSUPP);
	assert_int_equal(call_fallocate(&m, ino, FALLOC_FL_COLLAPSE_RANGE, 0, 4096), -EOPNOTSUPP);
	assert_int_equal(call_fallocate(&m, ino, 0, 0, 0), -EINVAL);
	assert_int_equal(call_fallocate(&m, ino, 0, (uint64_t)INT64_MAX - 4096, 8192), -EFBIG);
	machine_stop(&m);
}

static void test_seek_finds_data_and_holes(void **state)
{
	struct machine m;
	uint64_t at;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	assert_int_equal(call_seek(&m, ino, SEEK_DATA, 0, &at), -ENXIO);
	write_pattern(&m, ino, 8192, 4096);
	assert_int_equal(call_fallocate(&m, ino, 0, 12288, 4096), 0);
	write_pattern(&m, ino, 20480, 100);
	assert_int_equal(call_seek(&m, ino, SEEK_DATA, 0, &at), 0);
	assert_int_equal(at, 8192);
	assert_int_equal(call_seek(&m, ino, SEEK_HOLE, 0, &at), 0);
	assert_int_equal(at, 0);
	assert_int_equal(call_seek(&m, ino, SEEK_HOLE, 9000, &at), 0);
	assert_int_equal(at, 12288);
	assert_int_equal(call_seek(&m, ino, SEEK_DATA, 12288, &at), 0);
	assert_int_equal(at, 20480);
	assert_int_equal(call_seek(&m, ino, SEEK_HOLE, 20500, &at), 0);
	assert_int_equal(at, 20580);
	assert_int_equal(call_seek(&m, ino, SEEK_DATA, 20580, &at), -ENXIO);
	assert_int_equal(call_seek(&m, ino, SEEK_SET, 0, &at), -EINVAL);
	machine_stop(&m);
}

static void test_append_and_times(void **state)
{
	struct machine m;
	uint32_t length;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	for (unsigned i = 0; i < 100; i++) {
		uint8_t buffer[77];
		for (unsigned j = 0; j < sizeof(buffer); j++)
			buffer[j] = pattern(i * sizeof(buffer) + j);
		assert_int_equal(call_write_flags(&m, ino, buffer, 12345, sizeof(buffer), FS_WRITE_APPEND, &length), 0);
		assert_int_equal(length, sizeof(buffer));
	}
	assert_int_equal(attr_of(&m, ino).size, 7700);
	check(&m, ino, 0, 7700, false);
	machine_settle(&m);
	struct fs_attr before = attr_of(&m, ino);
	write_pattern(&m, ino, 4096, 3604); /* in place */
	struct fs_attr after = attr_of(&m, ino);
	assert_true(after.mtime.tv_sec > before.mtime.tv_sec);
	assert_true(after.ctime.tv_sec > before.ctime.tv_sec);
	machine_settle(&m);
	check(&m, ino, 0, 10, false);
	assert_true(attr_of(&m, ino).atime.tv_sec > after.mtime.tv_sec);
	const struct fs_attr set = {.atime = {1, 2}, .mtime = {-3, 4}};
	assert_int_equal(call_setattr(&m, ino, &set, FS_SET_ATIME | FS_SET_MTIME, &after), 0);
	machine_remount(&m);
	after = attr_of(&m, ino);
	assert_int_equal(after.atime.tv_sec, 1);
	assert_int_equal(after.mtime.tv_sec, -3);
	assert_int_equal(after.mtime.tv_nsec, 4);
	const struct fs_attr bad = {.atime = {1, 1000000000}};
	assert_int_equal(call_setattr(&m, ino, &bad, FS_SET_ATIME, &after), -EINVAL);
	machine_stop(&m);
}

static void test_lazy_times_survive_unmount(void **state)
{
	struct machine m;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	write_pattern(&m, ino, 0, 8192);
	machine_settle(&m);
	write_pattern(&m, ino, 0, 4096);
	const struct fs_attr before = attr_of(&m, ino);
	machine_remount(&m);
	const struct fs_attr after = attr_of(&m, ino);
	assert_memory_equal(&before.mtime, &after.mtime, sizeof(before.mtime));
	machine_stop(&m);
}

/* A second after the change they are in the log: a kill then does not lose them. */
static void test_lazy_times_are_logged_by_themselves(void **state)
{
	struct machine m;
	struct fs_status before, after;
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	write_pattern(&m, ino, 0, 8192);
	assert_int_equal(call_sync(&m), 0);
	write_pattern(&m, ino, 0, 4096);
	fs_get_status(m.sim.fs, &before);
	call_sleep(&m, 900 * NS_PER_MS);
	fs_get_status(m.sim.fs, &after);
	assert_int_equal(after.transactions, before.transactions);
	call_sleep(&m, 200 * NS_PER_MS);
	fs_get_status(m.sim.fs, &after);
	assert_int_equal(after.transactions, before.transactions + 1);
	machine_stop(&m);
}

static void test_writing_drops_privileges(void **state)
{
	struct machine m;
	struct fs_attr attr = {.mode = 06755};
	uint32_t length;
	char value[20] = "capability";
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	assert_int_equal(call_setattr(&m, ino, &attr, FS_SET_MODE, &attr), 0);
	assert_int_equal(call_setxattr(&m, ino, "security.capability", value, sizeof(value)), 0);
	assert_int_equal(call_write(&m, ino, "x", 0, 1), 0);
	assert_int_equal(attr_of(&m, ino).mode & 07777, 06755);
	assert_int_equal(call_getxattr(&m, ino, "security.capability", value, sizeof(value), &length), -ENODATA);
	assert_int_equal(call_write_flags(&m, ino, "x", 0, 1, FS_WRITE_KILL_SUIDGID, &length), 0);
	assert_int_equal(attr_of(&m, ino).mode & 07777, 0755);
	attr.mode = 06644;
	assert_int_equal(call_setattr(&m, ino, &attr, FS_SET_MODE, &attr), 0);
	write_pattern(&m, ino, 0, 8192);
	uint8_t block[4096] = {0};
	assert_int_equal(call_write_flags(&m, ino, block, 0, 4096, FS_WRITE_KILL_SUIDGID, &length), 0);
	assert_int_equal(attr_of(&m, ino).mode & 07777, 02644); /* sgid without group execution is no privilege */
	attr.mode = 04755;
	assert_int_equal(call_setattr(&m, ino, &attr, FS_SET_MODE, &attr), 0);
	attr.size = 10;
	assert_int_equal(call_setattr(&m, ino, &attr, FS_SET_SIZE | FS_SET_KILL_SUIDGID, &attr), 0);
	assert_int_equal(attr.mode & 07777, 0755);
	assert_int_equal(attr.size, 10);
	machine_stop(&m);
}

/* ---- against a copy in memory ---- */

enum { MODEL_BYTES = 400000 };

struct model_file {
	struct machine machine;
	uint64_t ino, random, size;
	uint8_t content[MODEL_BYTES + 4096];
	uint8_t buffer[MODEL_BYTES + 4096];
};

static void model_write(struct model_file *file, uint64_t offset, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++)
		file->buffer[i] = (uint8_t)(sim_rand(&file->random) | 1);
	assert_int_equal(call_write(&file->machine, file->ino, file->buffer, offset, length), 0);
	memcpy(file->content + offset, file->buffer, length);
	file->size = MAX(file->size, offset + length);
}

static void model_truncate(struct model_file *file, uint64_t size)
{
	assert_int_equal(call_truncate(&file->machine, file->ino, size), 0);
	if (size < file->size)
		memset(file->content + size, 0, file->size - size);
	file->size = size;
}

static void model_allocate(struct model_file *file, int mode, uint64_t offset, uint64_t length)
{
	assert_int_equal(call_fallocate(&file->machine, file->ino, mode, offset, length), 0);
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		memset(file->content + offset, 0, length);
	if (!(mode & FALLOC_FL_KEEP_SIZE))
		file->size = MAX(file->size, offset + length);
}

static void model_check(struct model_file *file, uint64_t offset, uint32_t length)
{
	uint32_t got;
	memset(file->buffer, 0xee, length);
	assert_int_equal(call_read(&file->machine, file->ino, file->buffer, offset, length, &got), 0);
	assert_int_equal(got, offset >= file->size ? 0 : MIN(length, file->size - offset));
	for (uint32_t i = 0; i < got; i++)
		if (file->buffer[i] != file->content[offset + i])
			fail_msg("byte %llu is %02x, not %02x (size %llu)", (unsigned long long)offset + i,
				file->buffer[i], file->content[offset + i], (unsigned long long)file->size);
	assert_int_equal(attr_of(&file->machine, file->ino).size, file->size);
}

/* Within the file: the ranges must not overlap. */
static void model_copy(struct model_file *file, uint64_t from, uint64_t to, uint32_t length)
{
	uint64_t copied;
	const uint64_t possible = from < file->size ? MIN((uint64_t)length, file->size - from) : 0;
	if (from < to + possible && to < from + possible) {
		assert_int_equal(call_copy(&file->machine, file->ino, from, file->ino, to, length, &copied), possible ? -EINVAL : 0);
		return;
	}
	assert_int_equal(call_copy(&file->machine, file->ino, from, file->ino, to, length, &copied), 0);
	assert_int_equal(copied, possible);
	memcpy(file->content + to, file->content + from, possible);
	file->size = possible ? MAX(file->size, to + possible) : file->size;
}

static void model_step(struct model_file *file)
{
	static const int modes[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE};
	/* Most of it near the start, much of it small, some of it aligned. */
	const uint64_t scale = (uint64_t[]){200, 9000, 60000, MODEL_BYTES - 70000}[sim_rand(&file->random) % 4];
	uint64_t offset = sim_rand(&file->random) % scale;
	uint32_t length = 1 +
		(uint32_t)(sim_rand(&file->random) % (uint64_t[]){50, 5000, 20000, 70000}[sim_rand(&file->random) % 4]);
	if (sim_rand(&file->random) % 3 == 0) {
		offset = align_down(offset, 4096);
		length = (uint32_t)align_up(length, 4096);
	}
	if (sim_rand(&file->random) % 8 == 0)
		offset = file->size < MODEL_BYTES - 80000 ? file->size : 0;
	length = (uint32_t)MIN(length, MODEL_BYTES - offset);
	switch (sim_rand(&file->random) % 11) {
	case 0:
		model_truncate(file, sim_rand(&file->random) % 3 ? offset : 0);
		break;
	case 1:
	case 2:
		model_allocate(file, modes[sim_rand(&file->random) % ARRAY_SIZE(modes)], offset, length);
		break;
	case 3:
	case 4:
		model_check(file, offset, length);
		break;
	case 5:
		if (sim_rand(&file->random) % 20 == 0)
			machine_remount(&file->machine);
		break;
	case 6:
		model_copy(file, sim_rand(&file->random) % (file->size + 1), offset, length);
		break;
	default:
		model_write(file, offset, length);
	}
}

static void test_random_operations_match_a_copy_in_memory(void **state)
{
	struct model_file *file = calloc(1, sizeof(*file));
	for (unsigned seed = 0; seed < 12; seed++) {
		machine_start(&file->machine, owners, 0);
		file->random = seed * 17 + owners;
		file->size = 0;
		memset(file->content, 0, sizeof(file->content));
		file->ino = make(&file->machine, "f");
		if (seed % 3 == 1)
			assert_int_equal(call_setxattr(&file->machine, file->ino, "user.x",
						 "0123456789012345678901234567890123456789", 40),
				0);
		for (unsigned i = 0; i < 400; i++)
			model_step(file);
		model_check(file, 0, MODEL_BYTES);
		machine_remount(&file->machine);
		model_check(file, 0, MODEL_BYTES);
		machine_stop(&file->machine);
	}
	free(file);
}

/* ---- several at once ---- */

enum { WRITERS = 6, WRITER_BYTES = 50001, WRITER_STEPS = 60 };

struct writer {
	struct machine *machine;
	uint64_t ino, start, random;
	uint8_t content[WRITER_BYTES], buffer[WRITER_BYTES];
	struct fiber_start_remote start_fiber;
	bool done;
	int error;
};

static MAY_WAIT int writer_step(struct writer *writer)
{
	struct fs *fs = writer->machine->sim.fs;
	const uint32_t offset = (uint32_t)(sim_rand(&writer->random) % WRITER_BYTES);
	const uint32_t length = 1 + (uint32_t)(sim_rand(&writer->random) % (WRITER_BYTES - offset));
	uint32_t got;
	if (sim_rand(&writer->random) % 4 == 0) {
		const int error = fs_fallocate(fs, writer->ino, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			writer->start + offset, length, &writer->machine->cred);
		memset(writer->content + offset, 0, length);
		return error;
	}
	for (uint32_t i = 0; i < length; i++)
		writer->buffer[i] = (uint8_t)sim_rand(&writer->random);
	int error = fs_write(
		fs, writer->ino, writer->buffer, writer->start + offset, length, 0, &writer->machine->cred, &got);
	memcpy(writer->content + offset, writer->buffer, length);
	if (!error && got != length)
		error = -EIO;
	if (!error)
		error = fs_read(fs, writer->ino, writer->buffer, writer->start + offset, length, &got);
	return error ? error : got != length || memcmp(writer->buffer, writer->content + offset, length) ? -EILSEQ : 0;
}

static MAY_WAIT void writer_main(void *arg)
{
	struct writer *writer = arg;
	for (unsigned i = 0; i < WRITER_STEPS && !writer->error; i++)
		writer->error = writer_step(writer);
	writer->done = true;
}

static bool writers_done(void *arg)
{
	struct writer **writers = arg;
	for (unsigned i = 0; i < WRITERS; i++)
		if (!writers[i]->done)
			return false;
	return true;
}

static void test_writers_of_one_file_do_not_disturb_each_other(void **state)
{
	struct machine m;
	struct writer *writers[WRITERS];
	machine_start(&m, owners, 0);
	const uint64_t ino = make(&m, "f");
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = calloc(1, sizeof(*writers[i]));
		*writers[i] = (struct writer){
			.machine = &m, .ino = ino, .start = (uint64_t)i * WRITER_BYTES, .random = i + 1};
		writers[i]->start_fiber.start =
			(struct fiber_start){.fn = writer_main, .arg = writers[i], .name = "writer"};
	}
	for (unsigned i = 0; i < WRITERS; i++)
		fiber_start_on(fs_owner(m.sim.fs, ino), &writers[i]->start_fiber);
	assert_true(reactor_group_sim_run(m.sim.group, writers_done, writers));
	const uint64_t size = attr_of(&m, ino).size;
	for (unsigned i = 0; i < WRITERS; i++) {
		struct writer *writer = writers[i];
		uint32_t got;
		assert_int_equal(writer->error, 0);
		assert_int_equal(call_read(&m, ino, writer->buffer, writer->start, WRITER_BYTES, &got), 0);
		assert_int_equal(got, MIN(WRITER_BYTES, size - writer->start));
		assert_memory_equal(writer->buffer, writer->content, got);
		free(writer);
	}
	machine_stop(&m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_small_files_are_inline),
		cmocka_unit_test(test_inline_beside_xattrs),
		cmocka_unit_test(test_reads_end_at_the_end),
		cmocka_unit_test(test_growing_shows_zeroes),
		cmocka_unit_test(test_big_truncate_frees_in_pieces),
		cmocka_unit_test(test_fallocate),
		cmocka_unit_test(test_seek_finds_data_and_holes),
		cmocka_unit_test(test_append_and_times),
		cmocka_unit_test(test_lazy_times_survive_unmount),
		cmocka_unit_test(test_lazy_times_are_logged_by_themselves),
		cmocka_unit_test(test_writing_drops_privileges),
		cmocka_unit_test(test_random_operations_match_a_copy_in_memory),
		cmocka_unit_test(test_writers_of_one_file_do_not_disturb_each_other),
	};
	int failed = 0;
	for (owners = 1; owners <= 4; owners *= 2)
		failed += cmocka_run_group_tests_name("data", tests, NULL, NULL);
	return failed;
}
