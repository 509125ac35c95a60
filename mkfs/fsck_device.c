/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A direct-mapped cache of aligned pieces. A check goes through the device mostly in ascending order, one kind of block
 * after another, so a piece is used up soon after it was read; nothing cleverer is needed.
 *
 * A job is a fiber that finds its part of the cache in its context. On a file or kernel block device a read holds up its
 * reactor, so there is one job per reactor; on a device of our own a job waits and others go on, so there are several.
 */
#include "mkfs/fsck_device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blockdev/nvme.h"
#include "mkfs/tool_device.h"
#include "reactor/fiber.h"

enum {
	BLOCK_SHIFT = 12,
	BLOCK_BYTES = 1 << BLOCK_SHIFT,
	PIECE_BLOCKS = 16,          /* read at once: 64 KiB */
	PIECE_BYTES = PIECE_BLOCKS << BLOCK_SHIFT,
	PIECES = 512,               /* 32 MiB, touched as they are used; jobs share them */
	JOBS_PER_REACTOR = 4,       /* where reads do not hold up the reactor */
	JOB_STACK_BYTES = 256 << 10,
	LOCK_TRIES = 40,            /* for a target that is in use, with LOCK_PAUSE_MS between them: two seconds */
	LOCK_PAUSE_MS = 50,
};
#define DATA_BYTES ((size_t)PIECES * PIECE_BYTES)

struct piece {
	uint64_t number;            /* plus one; 0: empty */
	unsigned blocks;            /* that were read */
};

struct job;
/* As pread(2), but a negative errno; what reads depends on who does. */
typedef ssize_t (*read_fn)(struct fsck_device *device, const struct job *job, void *data, size_t length, uint64_t offset);

struct cache {
	read_fn read;
	struct piece *piece;
	uint8_t *data;              /* PIECE_BLOCKS blocks of each */
	unsigned pieces;
};

struct job {
	struct fiber_start_remote start;
	struct fsck_device *device;
	struct cache cache;
	struct bdev_channel *channel; /* of its reactor; NULL: reads by fd */
	uint8_t *buffer;            /* DMA, a piece */
	void (*fn)(void *arg);
	void *arg;
};

struct fsck_device {
	int fd;                     /* of a file or kernel block device; -1: */
	struct tool_device *tool;   /* what only our own driver reaches */
	struct reactor_group *group; /* that jobs run on: the tool's, or our own. NULL: none */
	struct job *jobs;
	unsigned job_count, reactors;
	sem_t ended;                /* jobs that have */
	uint64_t blocks;
	struct cache cache;         /* the control thread's: all of the following */
	struct piece piece[PIECES];
	uint8_t *data;              /* PIECES * PIECE_BLOCKS blocks */
};

static int size_read(int fd, uint64_t *out_bytes)
{
	struct stat status;
	if (fstat(fd, &status))
		return -errno;
	*out_bytes = (uint64_t)status.st_size;
	if (S_ISBLK(status.st_mode))
		return ioctl(fd, BLKGETSIZE64, out_bytes) ? -errno : 0;
	return S_ISREG(status.st_mode) ? 0 : -ENOTBLK;
}

/* The daemon holds a write lock on what it has mounted; a read lock is what fits beside other readers. The kernel takes an
 * io_uring apart after its process has ended, so the lock of a daemon that was killed stays for a moment. */
static int lock_take(int fd, bool writable)
{
	struct flock lock = {.l_type = writable ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET};
	for (unsigned tries = 1; fcntl(fd, F_OFD_SETLK, &lock); tries++) {
		if (errno != EACCES && errno != EAGAIN)
			return -errno;
		if (tries == LOCK_TRIES)
			return -EBUSY;
		nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_MS * 1000000L}, NULL);
	}
	return 0;
}

static int refuse(int error, const char *target, const char *why, char *message, size_t message_size)
{
	snprintf(message, message_size, "%s: %s", target, why);
	return error;
}

/* Files and block devices are read directly; everything else through the block-device layer. */
static bool is_path(const char *target)
{
	bool pci;
	return !nvme_target(target, &pci) && strncmp(target, "ram:", 4) && strncmp(target, "virtio:", 7) &&
		strncmp(target, "mirror:", 7);
}

/* A job's read of a device of our own: at most a piece. */
static MAY_WAIT ssize_t job_read(
	struct fsck_device *device, const struct job *job, void *data, size_t length, uint64_t offset)
{
	const int error = bdev_read(job->channel, job->buffer, offset, (uint32_t)length);
	if (error)
		return error;
	memcpy(data, job->buffer, length);
	return (ssize_t)length;
}

/* The control thread's; and a job's, where a file descriptor is enough. */
static ssize_t control_read(
	struct fsck_device *device, const struct job *job, void *data, size_t length, uint64_t offset)
{
	if (!device->tool) {
		const ssize_t got = pread(device->fd, data, length, (off_t)offset);
		return got < 0 ? -errno : got;
	}
	const int error = tool_device_read(device->tool, offset, (uint32_t)length, data);
	return error ? error : (ssize_t)length;
}

static int buffers_init(struct fsck_device *device, const char *target, uint64_t bytes, char *message, size_t message_size)
{
	device->blocks = bytes / BLOCK_BYTES;
	/* Mapped, not allocated: a debugging allocator would touch all of it. */
	device->data = mmap(NULL, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (device->data == MAP_FAILED)
		device->data = NULL;
	device->cache = (struct cache){control_read, device->piece, device->data, PIECES};
	return device->data ? 0 : refuse(-ENOMEM, target, strerror(ENOMEM), message, message_size);
}

static int tool_init(struct fsck_device *device, const char *target, bool writable, unsigned reactors, char *message,
	size_t message_size)
{
	const int error = tool_device_open(target, !writable, reactors, &device->tool, message, message_size);
	return error ? error : buffers_init(device, target, device->tool->size_bytes, message, message_size);
}

static int device_init(struct fsck_device *device, const char *target, bool writable, char *message, size_t message_size)
{
	uint64_t bytes;
	struct stat status;
	int flags = O_CLOEXEC | O_NONBLOCK | (writable ? O_RDWR : O_RDONLY);
	if (writable && stat(target, &status) == 0 && S_ISBLK(status.st_mode))
		flags |= O_EXCL; /* -EBUSY when it is mounted, by anybody */
	device->fd = open(target, flags);
	if (device->fd < 0)
		return refuse(-errno, target, strerror(errno), message, message_size);
	int error = size_read(device->fd, &bytes);
	if (error)
		return refuse(error, target,
			error == -ENOTBLK ? "is neither a file nor a block device" : strerror(-error), message,
			message_size);
	error = lock_take(device->fd, writable);
	if (error == -EBUSY)
		return refuse(error, target, "is in use (mounted?): unmount it first", message, message_size);
	if (error)
		return refuse(error, target, "cannot be locked", message, message_size);
	return buffers_init(device, target, bytes, message, message_size);
}

/* ---- jobs ---- */
static int own_group(struct fsck_device *device, unsigned reactors)
{
	const struct reactor_options options = {.count = reactors, .fiber_count = 2, .fiber_stack_bytes = JOB_STACK_BYTES};
	const int error = reactor_group_create(&options, &device->group);
	return error ? error : reactor_group_start(device->group);
}

/* As many reactors of the tool as have got a channel. */
static unsigned tool_reactors(const struct tool_device *tool)
{
	unsigned count = 1;
	while (count < REACTOR_COUNT_MAX && tool->channels[count])
		count++;
	return count;
}

static void jobs_fini(struct fsck_device *device)
{
	for (unsigned i = 0; i < device->job_count && device->jobs; i++)
		dma_free(device->jobs[i].buffer);
	if (device->group && !device->tool)
		reactor_group_destroy(device->group);
	free(device->jobs);
	device->jobs = NULL;
	device->group = NULL;
	device->job_count = 0;
}

static void job_init(struct fsck_device *device, struct job *job, unsigned index, unsigned reactors)
{
	const unsigned pieces = PIECES / device->job_count;
	job->device = device;
	job->cache = (struct cache){device->tool ? job_read : control_read, device->piece + (size_t)index * pieces,
		device->data + (size_t)index * pieces * PIECE_BYTES, pieces};
	if (!device->tool)
		return;
	job->channel = device->tool->channels[index % reactors];
	job->buffer = dma_alloc(PIECE_BYTES, BLOCK_BYTES);
}

/* What cannot be had for jobs is done without: then there are fewer, or none. */
static void jobs_init(struct fsck_device *device, unsigned reactors)
{
	if (device->tool) {
		reactors = tool_reactors(device->tool);
		device->group = device->tool->group;
	} else if (reactors < 2 || own_group(device, reactors)) {
		return;
	}
	device->reactors = reactors;
	device->job_count = device->tool ? reactors * JOBS_PER_REACTOR : reactors;
	device->jobs = calloc(device->job_count, sizeof(*device->jobs));
	bool complete = device->jobs;
	for (unsigned i = 0; i < device->job_count && device->jobs; i++) {
		job_init(device, &device->jobs[i], i, reactors);
		complete = complete && (!device->tool || device->jobs[i].buffer);
	}
	sem_init(&device->ended, 0, 0);
	if (!complete)
		jobs_fini(device);
}

unsigned fsck_device_jobs(const struct fsck_device *device) { return MAX(device->job_count, 1u); }

static void job_fiber(void *arg)
{
	struct job *job = arg;
	fiber_set_context(job);
	job->fn(job->arg);
	fiber_set_context(NULL);
	sem_post(&job->device->ended);
}

void fsck_device_run(struct fsck_device *device, unsigned count, void (*fn)(void *arg), void *arg)
{
	/* The parts of the cache are whose they are for the time of this run. */
	memset(device->piece, 0, sizeof(device->piece));
	for (unsigned i = 0; i < count; i++) {
		struct job *job = &device->jobs[i];
		job->fn = fn;
		job->arg = arg;
		job->start.start = (struct fiber_start){.fn = job_fiber, .arg = job, .name = "fsck"};
		fiber_start_on(reactor_group_get(device->group, i % device->reactors), &job->start);
	}
	for (unsigned i = 0; i < count; i++)
		while (sem_wait(&device->ended))
			;
	memset(device->piece, 0, sizeof(device->piece));
}

int fsck_device_open(const char *target, bool writable, unsigned reactors, struct fsck_device **out, char *message,
	size_t message_size)
{
	struct fsck_device *device = calloc(1, sizeof(*device));
	if (!device)
		return refuse(-ENOMEM, target, strerror(ENOMEM), message, message_size);
	device->fd = -1;
	int error = is_path(target) ? device_init(device, target, writable, message, message_size) :
		tool_init(device, target, writable, reactors, message, message_size);
	if (error) {
		fsck_device_close(device);
		return error;
	}
	jobs_init(device, reactors);
	*out = device;
	return 0;
}

uint64_t fsck_device_blocks(const struct fsck_device *device)
{
	return device->blocks;
}

static const struct cache *cache_of(const struct fsck_device *device, const struct job *job)
{
	return job ? &job->cache : &device->cache;
}

/* Fills a piece of the cache, as far as the device goes. */
static int piece_read(
	struct fsck_device *device, const struct job *job, struct piece *piece, uint64_t number, uint8_t *data)
{
	uint64_t first = number * PIECE_BLOCKS;
	size_t wanted = (size_t)MIN(device->blocks - first, (uint64_t)PIECE_BLOCKS) << BLOCK_SHIFT, done = 0;
	piece->number = 0;
	while (done < wanted) {
		ssize_t got = cache_of(device, job)->read(device, job, data + done, wanted - done, (first << BLOCK_SHIFT) + done);
		if (got == -EINTR)
			continue;
		if (got < 0 && !done)
			return (int)got;
		if (got <= 0) /* a bad place further on fails when it is asked for itself */
			break;
		done += (size_t)got;
	}
	piece->number = number + 1;
	piece->blocks = (unsigned)(done >> BLOCK_SHIFT);
	return 0;
}

static int block_read(struct fsck_device *device, const struct job *job, uint64_t block, void *data)
{
	ssize_t got = cache_of(device, job)->read(device, job, data, BLOCK_BYTES, block << BLOCK_SHIFT);
	if (got < 0)
		return (int)got;
	return got == BLOCK_BYTES ? 0 : -EIO;
}

int fsck_device_read(struct fsck_device *device, uint64_t block, void *data)
{
	if (block >= device->blocks)
		return -EIO;
	const struct job *job = fiber_get_context();
	const struct cache *cache = cache_of(device, job);
	uint64_t number = block / PIECE_BLOCKS;
	unsigned at = block % PIECE_BLOCKS, slot = number % cache->pieces;
	struct piece *piece = &cache->piece[slot];
	uint8_t *cached = cache->data + (size_t)slot * PIECE_BYTES;
	int error = piece->number == number + 1 ? 0 : piece_read(device, job, piece, number, cached);
	if (error || at >= piece->blocks)
		return block_read(device, job, block, data);
	memcpy(data, cached + ((size_t)at << BLOCK_SHIFT), BLOCK_BYTES);
	return 0;
}

int fsck_device_write(struct fsck_device *device, uint64_t block, const void *data)
{
	const uint64_t number = block / PIECE_BLOCKS;
	struct piece *piece = &device->piece[number % PIECES];
	if (block >= device->blocks)
		return -EIO;
	if (piece->number == number + 1)
		piece->number = 0;
	if (device->tool)
		return tool_device_write(device->tool, block << BLOCK_SHIFT, BLOCK_BYTES, data);
	const ssize_t put = pwrite(device->fd, data, BLOCK_BYTES, (off_t)(block << BLOCK_SHIFT));
	return put == BLOCK_BYTES ? 0 : put < 0 ? -errno : -EIO;
}

int fsck_device_flush(struct fsck_device *device)
{
	if (device->tool)
		return tool_device_flush(device->tool);
	return fdatasync(device->fd) ? -errno : 0;
}

void fsck_device_close(struct fsck_device *device)
{
	if (!device)
		return;
	jobs_fini(device);
	if (device->fd >= 0)
		close(device->fd);
	tool_device_close(device->tool);
	if (device->data)
		munmap(device->data, DATA_BYTES);
	free(device);
}
