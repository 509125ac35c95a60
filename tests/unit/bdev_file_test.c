/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: files work as devices, with and without O_DIRECT, through io_uring and without it, and what a person may name as
 * a target is opened or refused with a line that helps. Method: real reactor threads (io_uring) and a simulated group
 * (plain calls) over files in TMPDIR and in /dev/shm, whose filesystem cannot zero a range.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "bdev_bench.h"
#include "blockdev/nvme.h"
#include "blockdev/file_internal.h"

enum { FILE_BYTES = 8 << 20 };

static struct bench bench;
static char path[256];
static struct bdev_file_options file_options;
static void (*file_body)(struct bdev_channel *channel);
static _Alignas(4096) uint8_t buffer[2 << 20], copy[2 << 20];
static uint8_t zeroes[2 << 20];

static void make_file(const char *folder, off_t size)
{
	snprintf(path, sizeof(path), "%s/lanefs-bdev-XXXXXX", folder);
	const int fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, size), 0);
	close(fd);
}

static const char *folder_default(void)
{
	const char *folder = getenv("TMPDIR");
	return folder != NULL ? folder : "/tmp";
}

static int setup(void **state)
{
	make_file(folder_default(), FILE_BYTES);
	file_options = (struct bdev_file_options){.path = path, .exclusive_lock = true};
	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (uint8_t)(i * 11 + i / 4096 + 3);
	return 0;
}

static int teardown(void **state)
{
	unlink(path);
	return 0;
}

MAY_WAIT static int file_fiber(void *arg)
{
	const int err = bdev_file_create(bench.registry, "file", &file_options);
	if (err != 0)
		return err;
	bench_with(&bench, "file", file_body);
	return bdev_remove(bench.registry, "file", 10 * NS_PER_SEC);
}

static void with_file(bool simulate, void (*body)(struct bdev_channel *channel))
{
	file_body = body;
	bench_init(&bench, 2, simulate, 5);
	bench_run(&bench, 1, file_fiber);
	bench_fini(&bench);
}

/* ---- the module ---- */

static void zero(struct bdev_channel *channel, enum io_op op, uint64_t offset, uint64_t length)
{
	struct io io;
	io_prepare(&io, channel, op, NULL, offset, length);
	assert_int_equal(io_run(&io), 0);
}

static void round_trip(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer, 0, sizeof(buffer), 0), 0);
	assert_int_equal(bdev_write(channel, buffer + 5, 4 << 20, 8192, IO_FUA), 0);
	assert_int_equal(bdev_flush(channel), 0);
	assert_int_equal(bdev_read(channel, copy, 0, sizeof(copy)), 0);
	assert_memory_equal(copy, buffer, sizeof(copy));
	assert_int_equal(bdev_read(channel, copy + 3, 4 << 20, 8192), 0);
	assert_memory_equal(copy + 3, buffer + 5, 8192);
	zero(channel, IO_UNMAP, 65536, 131072);
	zero(channel, IO_WRITE_ZEROES, 1 << 20, 300 << 10);
	assert_int_equal(bdev_read(channel, copy, 0, sizeof(copy)), 0);
	assert_memory_equal(copy, buffer, 65536);
	assert_memory_equal(copy + 65536, zeroes, 131072);
	assert_memory_equal(copy + 196608, buffer + 196608, (1 << 20) - 196608);
	assert_memory_equal(copy + (1 << 20), zeroes, 300 << 10);
	assert_memory_equal(copy + (1 << 20) + (300 << 10), buffer + (1 << 20) + (300 << 10), 4096);
	struct stat status;
	assert_int_equal(stat(path, &status), 0);
	assert_int_equal(status.st_size, FILE_BYTES); /* zeroing keeps the size */
}

static void block_device(struct bdev_channel *channel)
{
	struct bdev_file_options again = file_options;
	assert_int_equal(bdev_file_create(bench.registry, "again", &again), -EBUSY);
	round_trip(channel);
}

static void test_round_trip_direct(void **state)
{
	with_file(false, round_trip);
}

static void test_round_trip_buffered(void **state)
{
	file_options.no_direct = true;
	with_file(false, round_trip);
}

/* What the kernel would have to hand to a thread is done before submit returns: the ring sees nothing of it. */
static void at_once(struct bdev_channel *channel)
{
	const struct file *file = bdev_private(bdev_find(bench.registry, "file"));
	assert_true(file->in_memory);
	uint8_t *dma = dma_alloc(131072, 4096);
	assert_non_null(dma);
	memcpy(dma, buffer, 65536);
	assert_int_equal(bdev_write(channel, dma, 0, 65536, 0), 0);
	assert_int_equal(bdev_read(channel, dma + 65536, 0, 65536), 0);
	assert_memory_equal(dma + 65536, buffer, 65536);
	assert_int_equal(bdev_flush(channel), 0);
	assert_int_equal(__atomic_load_n(&file->fixed_count, __ATOMIC_RELAXED), 0);
	dma_free(dma);
	round_trip(channel);
	assert_int_equal(truncate(path, 4096), 0);
	assert_int_equal(bdev_read(channel, copy, 8192, 4096), -EIO);
	assert_int_equal(bdev_flush(channel), -EIO); /* what was promised is not there any more */
}

static void test_transfers_on_tmpfs_happen_at_once(void **state)
{
	unlink(path);
	struct statfs status;
	if (statfs("/dev/shm", &status) != 0 || status.f_type != TMPFS_MAGIC)
		skip();
	make_file("/dev/shm", FILE_BYTES);
	with_file(false, at_once);
}

/* DMA memory goes through the kernel's fixed buffers; what is read is what was written, from other memory too. */
static void fixed_transfer(struct bdev_channel *channel)
{
	const size_t size = 1 << 20;
	uint8_t *dma = dma_alloc(size, 4096);
	assert_non_null(dma);
	memcpy(dma, buffer, size);
	assert_int_equal(bdev_write(channel, dma, 0, size, 0), 0);
	memset(dma, 0, size);
	assert_int_equal(bdev_read(channel, dma + 4096, 8192, 65536), 0);
	assert_memory_equal(dma + 4096, buffer + 8192, 65536);
	assert_int_equal(bdev_read(channel, copy, 0, size), 0);
	assert_memory_equal(copy, buffer, size);
	dma_free(dma);
	/* The region is used again for something else: the registration must still fit. */
	uint8_t *again = dma_alloc(size, 4096);
	memcpy(again, buffer + size, size);
	assert_int_equal(bdev_write(channel, again, size, size, IO_FUA), 0);
	assert_int_equal(bdev_read(channel, copy, size, size), 0);
	assert_memory_equal(copy, buffer + size, size);
	dma_free(again);
	const struct file *file = bdev_private(bdev_find(bench.registry, "file"));
	if (dma_region_find(again, 1, -1) >= 0 && !file->in_memory)
		assert_true(__atomic_load_n(&file->fixed_count, __ATOMIC_RELAXED) >= 3);
}

static void test_dma_memory_goes_through_fixed_buffers(void **state)
{
	with_file(false, fixed_transfer);
}

static void test_round_trip_in_a_simulated_group(void **state)
{
	with_file(true, round_trip);
}

static void test_round_trip_where_ranges_cannot_be_zeroed(void **state)
{
	unlink(path);
	make_file("/dev/shm", FILE_BYTES);
	with_file(false, round_trip);
	with_file(true, round_trip);
}

enum { DEEP = 600 };

/* More than the ring holds, from one fiber, so that the line for memory is used as well. */
static void deep_queue(struct bdev_channel *channel)
{
	struct io *ios = calloc(DEEP, sizeof(ios[0]));
	for (unsigned round = 0; round < 5; round++) {
		struct io_group group;
		io_group_init(&group);
		for (unsigned i = 0; i < DEEP; i++) {
			const enum io_op op = (i + round) % 2 == 0 ? IO_WRITE : IO_READ;
			uint8_t *memory = (op == IO_WRITE ? buffer : copy) + (i % 512) * 4096;
			io_prepare(&ios[i], channel, op, memory, (uint64_t)i * 4096, 4096);
			io_group_submit(&group, &ios[i]);
		}
		assert_int_equal(io_group_wait(&group), 0);
	}
	assert_int_equal(bdev_read(channel, copy, 0, 512 * 4096), 0);
	assert_memory_equal(copy, buffer, 512 * 4096);
	free(ios);
}

static void test_more_ios_than_the_ring_holds(void **state)
{
	with_file(false, deep_queue);
}

static void after_a_pause(struct bdev_channel *channel)
{
	for (unsigned i = 0; i < 20; i++) {
		fiber_sleep(NS_PER_MS);
		assert_int_equal(bdev_write(channel, buffer, 4096 * i, 4096, i % 2 ? IO_FUA : 0), 0);
	}
}

static void test_a_sleeping_reactor_is_woken_by_completions(void **state)
{
	with_file(false, after_a_pause);
}

static void shrunk(struct bdev_channel *channel)
{
	assert_int_equal(bdev_write(channel, buffer, 0, sizeof(buffer), 0), 0);
	assert_int_equal(truncate(path, 5000), 0);
	assert_int_equal(bdev_read(channel, copy, 8192, 4096), -EIO);
	assert_int_equal(bdev_read(channel, copy, 0, 16384), -EIO);
	assert_int_equal(bdev_flush(channel), -EIO);
}

static void test_a_file_that_shrinks_is_an_error(void **state)
{
	with_file(false, shrunk);
	assert_int_equal(truncate(path, FILE_BYTES), 0);
	with_file(true, shrunk);
}


MAY_WAIT static int read_only_fiber(void *arg)
{
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	file_options.read_only = true;
	assert_int_equal(bdev_file_create(bench.registry, "file", &file_options), 0);
	assert_int_equal(bdev_open(bench.registry, "file", true, NULL, NULL, &desc), -EROFS);
	assert_int_equal(bdev_open(bench.registry, "file", false, NULL, NULL, &desc), 0);
	assert_int_equal(bdev_channel_get(desc, &channel), 0);
	assert_int_equal(bdev_read(channel, copy, 0, 4096), 0);
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), -EROFS);
	bench_close(desc, channel);
	return bdev_remove(bench.registry, "file", NS_PER_SEC);
}

static void grow(struct bdev_channel *channel)
{
	struct bdev *bdev = bdev_find(bench.registry, "file");
	assert_int_equal(bdev_rescan(bdev), 0);
	assert_int_equal(bdev_size_bytes(bdev_get_limits(bdev)), FILE_BYTES);
	assert_int_equal(bdev_write(channel, buffer, FILE_BYTES, 4096, 0), -EINVAL);
	assert_int_equal(truncate(path, 2 * FILE_BYTES + 1000), 0);
	assert_int_equal(bdev_write(channel, buffer, FILE_BYTES, 4096, 0), -EINVAL); /* nobody has looked */
	assert_int_equal(bdev_rescan(bdev), 0);
	assert_int_equal(bdev_size_bytes(bdev_get_limits(bdev)), 2 * FILE_BYTES);
	assert_int_equal(bdev_write(channel, buffer, 2 * FILE_BYTES - 4096, 4096, 0), 0);
	assert_int_equal(bdev_flush(channel), 0);
	assert_int_equal(truncate(path, FILE_BYTES), 0);
	assert_int_equal(bdev_rescan(bdev), -EINVAL);
	assert_int_equal(bdev_size_bytes(bdev_get_limits(bdev)), 2 * FILE_BYTES);
}

static void test_a_file_that_grows_is_larger_when_it_is_looked_at(void **state)
{
	with_file(false, grow);
}

static void test_read_only_refuses_writers_and_writes(void **state)
{
	bench_init(&bench, 1, true, 1);
	bench_run(&bench, 0, read_only_fiber);
	bench_fini(&bench);
}

MAY_WAIT static int lock_fiber(void *arg)
{
	assert_int_equal(bdev_file_create(bench.registry, "file", &file_options), 0);
	assert_int_equal(bdev_file_create(bench.registry, "again", &file_options), -EBUSY);
	struct bdev_file_options unlocked = file_options;
	unlocked.exclusive_lock = false;
	assert_int_equal(bdev_file_create(bench.registry, "file", &unlocked), -EEXIST);
	assert_int_equal(bdev_remove(bench.registry, "file", NS_PER_SEC), 0);
	assert_int_equal(bdev_file_create(bench.registry, "again", &file_options), 0);
	return bdev_remove(bench.registry, "again", NS_PER_SEC);
}

static void test_a_locked_file_is_busy_until_it_is_removed(void **state)
{
	bench_init(&bench, 1, true, 1);
	bench_run(&bench, 0, lock_fiber);
	bench_fini(&bench);
}

static uint32_t seen_block_size;
static uint64_t seen_size;

static void look(struct bdev_channel *channel)
{
	const struct bdev_limits *limits = bdev_get_limits(bdev_find(bench.registry, "file"));
	seen_block_size = limits->block_size;
	seen_size = bdev_size_bytes(limits);
	assert_int_equal(bdev_read(channel, copy, seen_size - seen_block_size, seen_block_size), 0);
	assert_int_equal(bdev_write(channel, buffer, seen_block_size, seen_block_size, 0), 0);
}

static void test_block_size_follows_the_size_of_the_file(void **state)
{
	with_file(false, look);
	assert_int_equal(seen_block_size, 4096);
	assert_int_equal(seen_size, FILE_BYTES);
	assert_int_equal(truncate(path, FILE_BYTES + 512 + 100), 0);
	with_file(false, look);
	assert_int_equal(seen_block_size, 512);
	assert_int_equal(seen_size, FILE_BYTES + 512);
}

static void test_block_device(void **state)
{
	const char *device = getenv("LANEFS_TEST_BLOCK_DEVICE"); /* at least 8 MiB; what is on it is lost */
	if (device == NULL)
		skip();
	file_options.path = device;
	with_file(false, block_device);
	file_options.no_direct = true;
	with_file(false, block_device);
	with_file(true, block_device);
}

/* ---- I/O from several reactors, and removal under it ---- */

struct load {
	struct fiber_start_remote start;
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	bool removed;
	unsigned slot;
	int result;
};
static struct load loads[2];
static unsigned loads_left, loads_open;
static struct bdev *loaded;

static void load_event(enum bdev_event event, struct bdev_desc *desc, void *arg)
{
	struct load *load = arg;
	load->removed = event == BDEV_EVENT_REMOVED;
}

MAY_WAIT static void load_run(void *arg)
{
	struct load *load = arg;
	assert(bdev_open(bench.registry, "file", true, load_event, load, &load->desc) == 0);
	assert(bdev_channel_get(load->desc, &load->channel) == 0);
	__atomic_fetch_add(&loads_open, 1, __ATOMIC_RELEASE);
	uint64_t i = 0;
	while (load->result == 0) {
		const uint64_t offset = (2 * (i++ % 512) + load->slot) * 4096;
		load->result = i % 7 == 0 ? bdev_flush(load->channel) : bdev_write(load->channel, buffer, offset, 4096, 0);
	}
	while (!load->removed)
		fiber_yield();
	bench_close(load->desc, load->channel);
	__atomic_fetch_sub(&loads_left, 1, __ATOMIC_RELEASE);
}

MAY_WAIT static int load_fiber(void *arg)
{
	assert(bdev_file_create(bench.registry, "file", &file_options) == 0);
	loaded = bdev_find(bench.registry, "file");
	loads_left = 2;
	loads_open = 0;
	for (unsigned i = 0; i < 2; i++) {
		loads[i] = (struct load){.slot = i, .start.start = {.fn = load_run, .arg = &loads[i], .name = "load"}};
		fiber_start_on(reactor_group_get(bench.group, i), &loads[i].start);
	}
	static struct bdev_stats stats;
	memset(&stats, 0, sizeof(stats));
	while (stats.op[IO_WRITE].count < 200 || stats.op[IO_FLUSH].count < 20 ||
		__atomic_load_n(&loads_open, __ATOMIC_ACQUIRE) < 2) {
		fiber_sleep(NS_PER_MS);
		bdev_stats_read(loaded, &stats);
	}
	const int err = bdev_remove(bench.registry, "file", 20 * NS_PER_SEC);
	while (__atomic_load_n(&loads_left, __ATOMIC_ACQUIRE) != 0)
		fiber_sleep(NS_PER_MS);
	assert(loads[0].result == -ENODEV && loads[1].result == -ENODEV);
	return err;
}

static void test_removal_under_load_from_two_reactors(void **state)
{
	for (unsigned i = 0; i < 3; i++) {
		bench_init(&bench, 2, false, 0);
		bench_run(&bench, i % 2, load_fiber);
		bench_fini(&bench);
	}
}

/* ---- targets ---- */

static char target_name[128], target_message[512];

MAY_WAIT static int create(const char *target)
{
	const struct target_options options = {.exclusive_lock = true};
	target_message[0] = target_name[0] = '\0';
	const int err = bdev_target_create(bench.registry, target, &options, target_name, sizeof(target_name), target_message,
		sizeof(target_message));
	bool pci; /* a device is named as the bus names it, a drive without its options */
	if (err != 0 && target[0] != '\0' && !nvme_target(target, &pci))
		assert_non_null(strstr(target_message, target));
	assert_null(strchr(target_message, '\n'));
	return err;
}

MAY_WAIT static void expect(const char *target, int err, const char *words)
{
	assert_int_equal(create(target), err);
	if (strstr(target_message, words) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", target_message, words);
}

MAY_WAIT static int target_good(void *arg)
{
	static const struct { const char *target; uint64_t size; } sizes[] = {
		{"ram:1M", MIB(1)}, {"ram:2g", GIB(2)}, {"ram:1T", GIB(1024)}, {"ram:4096K", MIB(4)}, {"ram:1048576", MIB(1)},
	};
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
		assert_int_equal(create(sizes[i].target), 0);
		assert_int_equal(bdev_size_bytes(bdev_get_limits(bdev_find(bench.registry, target_name))), sizes[i].size);
		expect(sizes[i].target, -EEXIST, "already open");
		assert_int_equal(bdev_remove(bench.registry, sizes[i].target, NS_PER_SEC), 0);
		assert_null(bdev_find(bench.registry, sizes[i].target));
	}
	assert_int_equal(create(path), 0);
	assert_non_null(bdev_find(bench.registry, target_name));
	expect(path, -EBUSY, "in use");
	return bdev_remove(bench.registry, path, NS_PER_SEC);
}

static void test_targets_that_work(void **state)
{
	bench_init(&bench, 1, true, 1);
	bench_run(&bench, 0, target_good);
	bench_fini(&bench);
}

MAY_WAIT static int target_bad(void *arg)
{
	static const char *const unbuilt[] = {
		"virtio:0000:00:05.0", "mirror:a,b",
	};
	for (unsigned i = 0; i < ARRAY_SIZE(unbuilt); i++)
		expect(unbuilt[i], -EOPNOTSUPP, "is not built yet");
	static const char *const sizes[] = {
		"ram:", "ram:x", "ram:-1G", "ram:1Q", "ram:1GG", "ram:99999999999999999999", "ram:9999999T",
	};
	for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++)
		expect(sizes[i], -EINVAL, "not a size");
	expect("0000:5e:00.0", -ENODEV, "0000:5e:00.0: no such device");
	expect("pci:0000:5e:00.0/1", -ENODEV, "0000:5e:00.0: no such device");
	expect("pci:5e", -EINVAL, "pci:5e: not a PCI address");
	expect("0000:5e:00.0/x", -EINVAL, "not a PCI address");
	expect("emu:/no/such/file", -ENOENT, "emu:/no/such/file: no such file");
	expect("emu:", -EINVAL, "names no medium");
	expect("emu:ram:64M,ns=0", -EINVAL, "emu:ram:64M,ns=0: ns=");
	expect("emu:ram:64M,ns=2", -ENODEV, "emu:ram:64M: has no namespace 2");
	expect("emu:ram:64M,metadata=8", -EOPNOTSUPP, "emu:ram:64M: namespace 1 is formatted with metadata");
	expect("emu:ram:64M,zoned=on", -EOPNOTSUPP, "emu:ram:64M: namespace 1 is a zoned");
	expect("ram:4096", -EINVAL, "at least 1M");
	expect("ram:1048577", -EINVAL, "multiple of 4096");
	expect("", -EINVAL, "no device named");
	expect("/no/such/file", -ENOENT, "no such file");
	expect("/tmp", -EISDIR, "is a directory");
	expect("/dev/null", -ENOTBLK, "neither a regular file nor a block device");
	assert_int_equal(truncate(path, 0), 0);
	expect(path, -EINVAL, "is empty");
	assert_int_equal(truncate(path, 8192), 0);
	expect(path, -EINVAL, "too small");
	assert_null(bdev_find(bench.registry, path));
	return 0;
}

static void test_targets_that_are_refused_say_why(void **state)
{
	bench_init(&bench, 1, true, 1);
	bench_run(&bench, 0, target_bad);
	bench_fini(&bench);
}

/* ---- read-only and back ---- */

/* What another process would be told that wants to lock the file. */
static int try_lock(short type)
{
	const int fd = open(path, O_RDWR | O_CLOEXEC);
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};
	const int err = fcntl(fd, F_OFD_SETLK, &lock) == 0 ? 0 : -errno;
	close(fd);
	return err;
}

static MAY_WAIT int becomes_writable(void *arg)
{
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	file_options.read_only = true;
	assert_int_equal(bdev_file_create(bench.registry, "file", &file_options), 0);
	assert_int_equal(bdev_open(bench.registry, "file", false, NULL, NULL, &desc), 0);
	assert_int_equal(bdev_channel_get(desc, &channel), 0);
	struct bdev *bdev = bdev_desc_bdev(desc);
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), -EROFS);
	assert_int_equal(bdev_desc_set_write(desc, true), -EROFS);
	assert_int_equal(try_lock(F_RDLCK), 0);
	const int reader = open(path, O_RDONLY | O_CLOEXEC);
	struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
	assert_int_equal(fcntl(reader, F_OFD_SETLK, &lock), 0);
	assert_int_equal(bdev_set_read_only(bdev, false), -EBUSY);
	assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), -EROFS);
	assert_int_equal(try_lock(F_WRLCK), -EAGAIN); /* it is still locked for reading, and not by that reader alone: */
	close(reader);
	assert_int_equal(try_lock(F_WRLCK), -EAGAIN);
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(bdev_set_read_only(bdev, false), 0);
		assert_int_equal(bdev_desc_set_write(desc, true), 0);
		assert_int_equal(try_lock(F_RDLCK), -EAGAIN);
		round_trip(channel);
		assert_int_equal(bdev_set_read_only(bdev, true), 0);
		assert_int_equal(bdev_write(channel, buffer, 0, 4096, 0), -EROFS);
		assert_int_equal(bdev_read(channel, copy, 0, 4096), 0);
		assert_int_equal(try_lock(F_RDLCK), 0);
		assert_int_equal(try_lock(F_WRLCK), -EAGAIN);
	}
	bdev_channel_put(channel);
	bdev_close(desc);
	return bdev_remove(bench.registry, "file", 10 * NS_PER_SEC);
}

static void test_read_only_becomes_writable_and_back(void **state)
{
	bench_init(&bench, 2, false, 5);
	bench_run(&bench, 1, becomes_writable);
	bench_fini(&bench);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip_direct, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip_buffered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_dma_memory_goes_through_fixed_buffers, setup, teardown),
		cmocka_unit_test_setup_teardown(test_transfers_on_tmpfs_happen_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip_in_a_simulated_group, setup, teardown),
		cmocka_unit_test_setup_teardown(test_round_trip_where_ranges_cannot_be_zeroed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_more_ios_than_the_ring_holds, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_sleeping_reactor_is_woken_by_completions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_file_that_shrinks_is_an_error, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_file_that_grows_is_larger_when_it_is_looked_at, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only_refuses_writers_and_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_a_locked_file_is_busy_until_it_is_removed, setup, teardown),
		cmocka_unit_test_setup_teardown(test_block_size_follows_the_size_of_the_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_block_device, setup, teardown),
		cmocka_unit_test_setup_teardown(test_read_only_becomes_writable_and_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_removal_under_load_from_two_reactors, setup, teardown),
		cmocka_unit_test_setup_teardown(test_targets_that_work, setup, teardown),
		cmocka_unit_test_setup_teardown(test_targets_that_are_refused_say_why, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
