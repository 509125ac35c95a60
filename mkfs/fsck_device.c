/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A direct-mapped cache of aligned pieces. A check goes through the device mostly in ascending order, one kind of block
 * after another, so a piece is used up soon after it was read; nothing cleverer is needed.
 */
#include "mkfs/fsck_device.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blockdev/nvme.h"
#include "mkfs/tool_device.h"

enum {
	BLOCK_SHIFT = 12,
	BLOCK_BYTES = 1 << BLOCK_SHIFT,
	PIECE_BLOCKS = 16,          /* read at once: 64 KiB */
	PIECES = 512,               /* 32 MiB, touched as they are used */
	LOCK_TRIES = 40,            /* for a target that is in use, with LOCK_PAUSE_MS between them: two seconds */
	LOCK_PAUSE_MS = 50,
};
#define DATA_BYTES ((size_t)PIECES * PIECE_BLOCKS * BLOCK_BYTES)

struct piece {
	uint64_t number;            /* plus one; 0: empty */
	unsigned blocks;            /* that were read */
};

struct fsck_device {
	int fd;                     /* of a file or kernel block device; -1: */
	struct tool_device *tool;   /* what only our own driver reaches */
	uint64_t blocks;
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

static int buffers_init(struct fsck_device *device, const char *target, uint64_t bytes, char *message, size_t message_size)
{
	device->blocks = bytes / BLOCK_BYTES;
	/* Mapped, not allocated: a debugging allocator would touch all of it. */
	device->data = mmap(NULL, DATA_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (device->data == MAP_FAILED)
		device->data = NULL;
	return device->data ? 0 : refuse(-ENOMEM, target, strerror(ENOMEM), message, message_size);
}

static int tool_init(struct fsck_device *device, const char *target, bool writable, char *message, size_t message_size)
{
	const int error = tool_device_open(target, !writable, &device->tool, message, message_size);
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

int fsck_device_open(const char *target, bool writable, struct fsck_device **out, char *message, size_t message_size)
{
	struct fsck_device *device = calloc(1, sizeof(*device));
	if (!device)
		return refuse(-ENOMEM, target, strerror(ENOMEM), message, message_size);
	device->fd = -1;
	int error = is_path(target) ? device_init(device, target, writable, message, message_size) :
		tool_init(device, target, writable, message, message_size);
	if (error)
		fsck_device_close(device);
	else
		*out = device;
	return error;
}

uint64_t fsck_device_blocks(const struct fsck_device *device)
{
	return device->blocks;
}

/* As pread(2), but a negative errno. */
static ssize_t device_read(struct fsck_device *device, void *data, size_t length, uint64_t offset)
{
	if (!device->tool) {
		const ssize_t got = pread(device->fd, data, length, (off_t)offset);
		return got < 0 ? -errno : got;
	}
	const int error = tool_device_read(device->tool, offset, (uint32_t)length, data);
	return error ? error : (ssize_t)length;
}

/* Fills a piece of the cache, as far as the device goes. */
static int piece_read(struct fsck_device *device, struct piece *piece, uint64_t number, uint8_t *data)
{
	uint64_t first = number * PIECE_BLOCKS;
	size_t wanted = (size_t)MIN(device->blocks - first, (uint64_t)PIECE_BLOCKS) << BLOCK_SHIFT, done = 0;
	piece->number = 0;
	while (done < wanted) {
		ssize_t got = device_read(device, data + done, wanted - done, (first << BLOCK_SHIFT) + done);
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

static int block_read(struct fsck_device *device, uint64_t block, void *data)
{
	ssize_t got = device_read(device, data, BLOCK_BYTES, block << BLOCK_SHIFT);
	if (got < 0)
		return (int)got;
	return got == BLOCK_BYTES ? 0 : -EIO;
}

int fsck_device_read(struct fsck_device *device, uint64_t block, void *data)
{
	if (block >= device->blocks)
		return -EIO;
	uint64_t number = block / PIECE_BLOCKS;
	unsigned at = block % PIECE_BLOCKS, slot = number % PIECES;
	struct piece *piece = &device->piece[slot];
	uint8_t *cached = device->data + ((size_t)slot * PIECE_BLOCKS << BLOCK_SHIFT);
	int error = piece->number == number + 1 ? 0 : piece_read(device, piece, number, cached);
	if (error || at >= piece->blocks)
		return block_read(device, block, data);
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
	if (device->fd >= 0)
		close(device->fd);
	tool_device_close(device->tool);
	if (device->data)
		munmap(device->data, DATA_BYTES);
	free(device);
}
