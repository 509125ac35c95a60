/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * One I/O on a file as a row of kernel calls: usually one, more when the kernel transfers less than was asked, or when
 * zeroes have to be written because the file cannot zero a range. Whoever makes the calls (io_uring or file_run) asks
 * for the next step and hands the answer back.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "blockdev/file_internal.h"

void file_step_begin(struct bdev_io *io)
{
	struct file_context *context = (struct file_context *)io->context;
	context->done = 0;
}

/* What is left of a transfer that was cut short. */
static void file_step_rest(struct bdev_io *io, struct file_step *step)
{
	struct file_context *context = (struct file_context *)io->context;
	uint64_t skip = context->done;
	unsigned count = 0;
	for (unsigned i = 0; i < io->iov_count && count < FILE_STEP_IOV_MAX; i++) {
		const size_t length = io->iov[i].iov_len;
		if (skip >= length) {
			skip -= length;
			continue;
		}
		context->iov[count++] =
			(struct iovec){.iov_base = (char *)io->iov[i].iov_base + skip, .iov_len = length - skip};
		skip = 0;
	}
	step->iov = context->iov;
	step->iov_count = count;
}

static void file_step_zeroes(const struct file *file, struct bdev_io *io, struct file_step *step)
{
	struct file_context *context = (struct file_context *)io->context;
	uint64_t left = io->length - context->done;
	unsigned count = 0;
	for (; count < FILE_STEP_IOV_MAX && left != 0; count++) {
		const size_t length = MIN(left, (uint64_t)FILE_ZERO_BYTES);
		context->iov[count] = (struct iovec){.iov_base = file->zeroes, .iov_len = length};
		left -= length;
	}
	step->iov = context->iov;
	step->iov_count = count;
}

static bool file_writes_zeroes(const struct file *file, const struct bdev_io *io)
{
	return io->op == IO_WRITE_ZEROES && __atomic_load_n(&file->no_zero_range, __ATOMIC_RELAXED);
}

void file_step_next(const struct file *file, struct bdev_io *io, struct file_step *step)
{
	const struct file_context *context = (const struct file_context *)io->context;
	*step = (struct file_step){.offset = io->offset + context->done, .length = io->length - context->done};
	if (io->op == IO_FLUSH) {
		step->call = FILE_STEP_SYNC;
		return;
	}
	if (io->op == IO_UNMAP || (io->op == IO_WRITE_ZEROES && !file_writes_zeroes(file, io))) {
		step->call = FILE_STEP_ALLOCATE;
		step->flags = FALLOC_FL_KEEP_SIZE | (io->op == IO_UNMAP ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
		return;
	}
	step->call = io->op == IO_READ ? FILE_STEP_READ : FILE_STEP_WRITE;
	if (io->op != IO_READ && (io->flags & IO_FUA) != 0)
		step->flags = RWF_DSYNC;
	if (io->op == IO_WRITE_ZEROES) {
		file_step_zeroes(file, io, step);
	} else if (context->done == 0) {
		step->iov = io->iov;
		step->iov_count = io->iov_count;
	} else {
		file_step_rest(io, step);
	}
}

/* A file that somebody has made shorter has lost data that we promised to keep. */
static int file_check_size(const struct file *file)
{
	struct stat status;
	if (file->block_device)
		return 0;
	if (fstat(file->fd, &status) != 0)
		return -errno;
	return (uint64_t)status.st_size < file->size_bytes ? -EIO : 0;
}

bool file_step_done(struct file *file, struct bdev_io *io, int answer, int *result)
{
	struct file_context *context = (struct file_context *)io->context;
	*result = answer;
	if (answer == -EOPNOTSUPP && io->op == IO_WRITE_ZEROES && !file_writes_zeroes(file, io)) {
		__atomic_store_n(&file->no_zero_range, true, __ATOMIC_RELAXED);
		return false;
	}
	if (answer == -ENOMEM) /* the kernel's, and it passes */
		*result = -EAGAIN;
	if (answer == -EINVAL && context->done != 0) /* O_DIRECT at the odd end of a file that was cut */
		*result = -EIO;
	if (answer < 0)
		return true;
	if (io->op == IO_FLUSH) {
		*result = file_check_size(file);
		return true;
	}
	const bool transfers = io->op == IO_READ || io->op == IO_WRITE || file_writes_zeroes(file, io);
	if (transfers && answer == 0) {
		*result = -EIO; /* the end of the file, where there should be none */
		return true;
	}
	*result = 0;
	context->done += transfers ? (uint64_t)answer : io->length;
	return context->done >= io->length;
}

int file_run(struct file *file, struct bdev_io *io)
{
	struct file_step step;
	int result;
	ssize_t answer;
	file_step_begin(io);
	do {
		file_step_next(file, io, &step);
		if (step.call == FILE_STEP_READ)
			answer = preadv2(file->fd, step.iov, (int)step.iov_count, (off_t)step.offset, step.flags);
		else if (step.call == FILE_STEP_WRITE)
			answer = pwritev2(file->fd, step.iov, (int)step.iov_count, (off_t)step.offset, step.flags);
		else if (step.call == FILE_STEP_SYNC)
			answer = fdatasync(file->fd);
		else
			answer = fallocate(file->fd, step.flags, (off_t)step.offset, (off_t)step.length);
	} while (!file_step_done(file, io, answer < 0 ? -errno : (int)answer, &result));
	return result;
}
