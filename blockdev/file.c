/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The file module: a regular file or a kernel block device as a bdev.
 *
 * O_DIRECT is tried, and believed only after a read with it has worked; otherwise the page cache is in between. Either
 * way a completed write may still be in some cache, so the device has a volatile one, and FLUSH is fdatasync. A FUA write
 * is RWF_DSYNC. Unmap punches holes, which read as zeroes. A file that became larger is larger once it is looked at again.
 *
 * A file is locked for one writer or for readers; the lock follows when a bdev becomes read-only or writable.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "blockdev/file_internal.h"
#include "reactor/log.h"

static void file_quiesce(struct bdev *bdev)
{
	bdev_drain(bdev, NULL); /* the kernel completes what it has */
}

/* Closing gives the lock back. */
static void file_release(struct bdev *bdev)
{
	struct file *file = bdev_private(bdev);
	close(file->fd);
	if (file->claim_fd >= 0)
		close(file->claim_fd);
	file->fd = file->claim_fd = -1;
}

static void file_free(struct file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	if (file->claim_fd >= 0)
		close(file->claim_fd);
	free(file->zeroes);
	free(file);
}

static void file_destroy(struct bdev *bdev)
{
	file_free(bdev_private(bdev));
}

static MAY_WAIT int file_set_read_only(struct bdev *bdev, bool read_only);

/* As large as it is now. Another size than whole blocks: the rest is not used. */
static int file_rescan(struct bdev *bdev)
{
	struct file *file = bdev_private(bdev);
	const struct bdev_limits *limits = bdev_get_limits(bdev);
	uint64_t size_bytes = 0;
	struct stat status;
	if (fstat(file->fd, &status) != 0)
		return -errno;
	if (!file->block_device)
		size_bytes = (uint64_t)status.st_size;
	else if (ioctl(file->fd, BLKGETSIZE64, &size_bytes) != 0)
		return -errno;
	size_bytes = align_down(size_bytes, limits->block_size);
	if (size_bytes < file->size_bytes)
		return -EINVAL;
	if (size_bytes == file->size_bytes)
		return 0;
	__atomic_store_n(&file->size_bytes, size_bytes, __ATOMIC_RELAXED);
	bdev_resized(bdev, size_bytes / limits->block_size);
	return 0;
}

static const struct bdev_module file_module = {
	.name = "file",
	.context_bytes = sizeof(struct file_context),
	.channel_bytes = sizeof(struct file_channel),
	.channel_init = file_channel_init,
	.channel_fini = file_channel_fini,
	.submit = file_submit,
	.set_read_only = file_set_read_only,
	.quiesce = file_quiesce,
	.release = file_release,
	.rescan = file_rescan,
	.destroy = file_destroy,
};

/* ---- opening ---- */

/* A block device that is set read-only can be opened for writing, but not written. */
static bool write_protected(const struct file *file, int fd)
{
	int read_only = 0;
	return file->block_device && ioctl(fd, BLKROGET, &read_only) == 0 && read_only;
}

/* The type is looked at before opening: opening a FIFO would block, and some character devices act on it. */
static int file_open(struct file *file, const struct bdev_file_options *options)
{
	struct stat status;
	if (stat(options->path, &status) != 0)
		return -errno;
	if (S_ISDIR(status.st_mode))
		return -EISDIR;
	if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
		return -ENOTBLK;
	file->block_device = S_ISBLK(status.st_mode);
	int flags = O_CLOEXEC | O_NONBLOCK | (options->read_only ? O_RDONLY : O_RDWR);
	if (file->block_device && options->exclusive_lock)
		flags |= O_EXCL;
	file->fd = open(options->path, flags);
	if (file->fd < 0)
		return -errno;
	file->writable = !options->read_only;
	file->locked = !file->block_device && options->exclusive_lock;
	if (file->writable && write_protected(file, file->fd))
		return -EROFS;
	/* With O_NONBLOCK io_uring would answer -EAGAIN where it could wait. */
	return fcntl(file->fd, F_SETFL, 0) == 0 ? 0 : -errno;
}

static int file_lock(const struct file *file, int fd, bool read_only)
{
	if (!file->locked)
		return 0;
	struct flock lock = {.l_type = read_only ? F_RDLCK : F_WRLCK, .l_whence = SEEK_SET};
	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	return errno == EAGAIN || errno == EACCES ? -EBUSY : -errno;
}

/* While it is opened. The kernel takes an io_uring apart after its process has ended, so the lock of a daemon that was killed
 * stays for a moment. */
static int file_lock_patiently(const struct file *file)
{
	enum { TRIES = 50, PAUSE_NS = 10000000 };
	int err = file_lock(file, file->fd, !file->writable);
	for (unsigned tries = 1; err == -EBUSY && tries < TRIES; tries++) {
		nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
		err = file_lock(file, file->fd, !file->writable);
	}
	return err;
}

static int file_measure(struct file *file, uint32_t wanted, uint32_t *block_size)
{
	struct stat status;
	if (fstat(file->fd, &status) != 0)
		return -errno;
	if (S_ISBLK(status.st_mode) != file->block_device)
		return -ENOTBLK;
	if (!file->block_device) {
		*block_size = wanted != 0 ? wanted : status.st_size % 4096 == 0 ? 4096 : 512;
		file->size_bytes = align_down((uint64_t)status.st_size, *block_size);
		return file->size_bytes != 0 ? 0 : -EINVAL;
	}
	int sector_bytes = 0;
	if (ioctl(file->fd, BLKGETSIZE64, &file->size_bytes) != 0 || ioctl(file->fd, BLKSSZGET, &sector_bytes) != 0)
		return -errno;
	*block_size = (uint32_t)sector_bytes;
	return file->size_bytes != 0 ? 0 : -EINVAL;
}

static bool file_lies_in_memory(const struct file *file)
{
	struct statfs status;
	return !file->block_device && fstatfs(file->fd, &status) == 0 && status.f_type == TMPFS_MAGIC;
}

/* Some filesystems refuse the flag, others only the first transfer, or its alignment. */
static void file_try_direct(struct file *file, uint32_t block_size)
{
	const int flags = fcntl(file->fd, F_GETFL);
	if (flags < 0 || fcntl(file->fd, F_SETFL, flags | O_DIRECT) != 0)
		return;
	const uint64_t last = file->size_bytes - block_size;
	if (pread(file->fd, file->zeroes, block_size, 0) == block_size &&
		pread(file->fd, file->zeroes, block_size, (off_t)last) == block_size)
		file->direct = true;
	else if (fcntl(file->fd, F_SETFL, flags) != 0)
		log_warn("O_DIRECT does not work and cannot be switched off: %s", strerror(errno));
	memset(file->zeroes, 0, block_size);
}

static int file_prepare(struct file *file, const struct bdev_file_options *options, uint32_t *block_size)
{
	file->zeroes = aligned_alloc(4096, FILE_ZERO_BYTES);
	if (file->zeroes == NULL)
		return -ENOMEM;
	memset(file->zeroes, 0, FILE_ZERO_BYTES);
	int err = file_open(file, options);
	if (err == 0)
		err = file_lock_patiently(file);
	if (err == 0)
		err = file_measure(file, options->block_size, block_size);
	if (err == 0 && !options->no_direct)
		file_try_direct(file, *block_size);
	if (err == 0)
		file->in_memory = file_lies_in_memory(file);
	return err;
}

MAY_WAIT int bdev_file_create(struct bdev_registry *registry, const char *name, const struct bdev_file_options *options)
{
	struct bdev_limits limits = {
		.io_bytes_max = FILE_IO_BYTES_MAX,
		.iov_count_max = FILE_IOV_COUNT_MAX,
		.atomic_write_blocks = 1,
		.volatile_cache = true,
		.native_fua = true,
		.unmap_reads_zero = true,
		.read_only = options->read_only,
		.ops = 1u << IO_READ | 1u << IO_WRITE | 1u << IO_FLUSH | 1u << IO_UNMAP | 1u << IO_WRITE_ZEROES |
			1u << IO_RESET,
	};
	if (strlen(name) >= sizeof(limits.name))
		return -ENAMETOOLONG;
	snprintf(limits.name, sizeof(limits.name), "%s", name);
	struct file *file = calloc(1, sizeof(*file));
	if (file == NULL)
		return -ENOMEM;
	file->fd = file->claim_fd = -1;
	file->no_ring = bdev_registry_is_simulated(registry);
	int err = file_prepare(file, options, &limits.block_size);
	if (err != 0)
		goto fail;
	limits.block_count = file->size_bytes / limits.block_size;
	limits.buffer_align = file->direct ? limits.block_size : 0;
	struct bdev *bdev;
	err = bdev_register(registry, &file_module, &limits, file, &bdev);
	if (err == 0)
		return 0;
fail:
	file_free(file);
	return err;
}

/* ---- read-only and back ---- */

/* Opens for writing what is open for reading, under the number that the channels use. The two overlap: a file stays locked for
 * reading all the time, and a block device's claim belongs to the first. */
static int file_reopen(struct file *file)
{
	char path[32];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	const int flags = fcntl(file->fd, F_GETFL), fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	int err = write_protected(file, fd) ? -EROFS : file_lock(file, fd, true);
	if (err == 0 && fcntl(fd, F_SETFL, flags & O_DIRECT) != 0)
		err = -errno;
	if (err == 0 && file->block_device && file->claim_fd < 0 && (file->claim_fd = fcntl(file->fd, F_DUPFD_CLOEXEC, 0)) < 0)
		err = -errno;
	if (err == 0 && dup3(fd, file->fd, O_CLOEXEC) < 0)
		err = -errno;
	close(fd);
	if (err == 0)
		file->writable = true;
	return err;
}

static MAY_WAIT int file_set_read_only(struct bdev *bdev, bool read_only)
{
	enum { TRIES = 100, PAUSE_MS = 5 }; /* reads that the kernel still has keep the file that was open before, and its lock */
	struct file *file = bdev_private(bdev);
	int err = !read_only && !file->writable ? file_reopen(file) : 0;
	if (err == 0 && !read_only && write_protected(file, file->fd))
		err = -EROFS;
	if (err != 0)
		return err;
	err = file_lock(file, file->fd, read_only);
	for (unsigned i = 0; err == -EBUSY && i < TRIES; i++) {
		fiber_sleep(PAUSE_MS * NS_PER_MS);
		err = file_lock(file, file->fd, read_only);
	}
	return err;
}
