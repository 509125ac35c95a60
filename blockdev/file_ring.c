/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A channel of the file module: one io_uring, used by its reactor only (reactor/uring.h).
 *
 * submit fills an entry; the poller, once a turn, hands all new entries to the kernel with one call and takes the
 * completions. Where io_uring is not allowed the calls are made on the spot, which is slow and blocks the reactor, but works;
 * so they are in simulated groups, where nothing may depend on the kernel's timing.
 *
 * On a file in memory (tmpfs) transfers are made on the spot as well: they are copies of at most FILE_IO_BYTES_MAX, and
 * io_uring would hand each to a thread of its own, which has to be woken first.
 */
#include <errno.h>

#include "blockdev/file_internal.h"
#include "reactor/log.h"

enum { FILE_POLL_BATCH = 32 };

static unsigned file_poll(struct poller *poller);
static bool file_before_sleep(struct poller *poller);

int file_channel_init(struct bdev *bdev, void *channel_state)
{
	const struct file *file = bdev_private(bdev);
	struct file_channel *channel = channel_state;
	channel->fd = file->fd;
	if (file->no_ring)
		return 0;
	const int err = uring_init(&channel->uring, FILE_RING_ENTRIES, 0);
	if (err != 0) {
		log_warn("%s: no io_uring here (%s): I/O blocks the reactor", bdev_get_limits(bdev)->name,
			strerror(-err));
		return 0;
	}
	channel->has_ring = true;
	file_fixed_init(channel);
	channel->poller.before_sleep = file_before_sleep;
	poller_register(reactor_self(), &channel->poller, "file", file_poll, 0);
	return 0;
}

void file_channel_fini(struct bdev *bdev, void *channel_state)
{
	struct file_channel *channel = channel_state;
	if (!channel->has_ring)
		return;
	poller_unregister(&channel->poller);
	uring_fini(&channel->uring);
}

/* There are as many entries as I/Os may be in flight, so there is always one. */
static void file_ring_prepare(struct file_channel *channel, struct bdev_io *io)
{
	const struct file *file = bdev_private(io->bdev);
	struct io_uring_sqe *sqe = uring_entry(&channel->uring);
	struct file_step step;
	file_step_next(file, io, &step);
	const bool transfer = step.call == FILE_STEP_READ || step.call == FILE_STEP_WRITE;
	const int fixed = transfer && step.iov_count == 1 ? file_fixed_index(channel, step.iov) : -1;
	if (fixed >= 0)
		__atomic_fetch_add(&((struct file *)bdev_private(io->bdev))->fixed_count, 1, __ATOMIC_RELAXED);
	switch (step.call) {
	case FILE_STEP_READ:
		if (fixed >= 0) {
			io_uring_prep_read_fixed(sqe, channel->fd, step.iov->iov_base, (unsigned)step.iov->iov_len,
				step.offset, fixed);
			sqe->rw_flags = step.flags;
			break;
		}
		io_uring_prep_readv2(sqe, channel->fd, step.iov, step.iov_count, step.offset, step.flags);
		break;
	case FILE_STEP_WRITE:
		if (fixed >= 0) {
			io_uring_prep_write_fixed(sqe, channel->fd, step.iov->iov_base, (unsigned)step.iov->iov_len,
				step.offset, fixed);
			sqe->rw_flags = step.flags;
			break;
		}
		io_uring_prep_writev2(sqe, channel->fd, step.iov, step.iov_count, step.offset, step.flags);
		break;
	case FILE_STEP_SYNC:
		io_uring_prep_fsync(sqe, channel->fd, IORING_FSYNC_DATASYNC);
		break;
	case FILE_STEP_ALLOCATE:
		io_uring_prep_fallocate(sqe, channel->fd, step.flags, (off_t)step.offset, (off_t)step.length);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
}

/* Not for zeroing and unmapping, which have no limit. */
static bool file_at_once(const struct file *file, const struct bdev_io *io)
{
	return file->in_memory && (io->op == IO_FLUSH || io->op == IO_READ || io->op == IO_WRITE);
}

int file_submit(struct bdev *bdev, void *channel_state, struct bdev_io *io)
{
	struct file_channel *channel = channel_state;
	if (io->op == IO_RESET) {
		bdev_io_complete(io, 0);
		return 0;
	}
	if (!channel->has_ring || file_at_once(bdev_private(bdev), io)) {
		bdev_io_complete(io, file_run(bdev_private(bdev), io));
		return 0;
	}
	if (channel->in_flight == FILE_RING_ENTRIES)
		return -ENOMEM;
	channel->in_flight++;
	file_step_begin(io);
	file_ring_prepare(channel, io);
	return 0;
}

static unsigned file_poll(struct poller *poller)
{
	struct file_channel *channel = CONTAINER_OF(poller, struct file_channel, poller);
	struct io_uring_cqe *entries[FILE_POLL_BATCH];
	struct bdev_io *completed[FILE_POLL_BATCH];
	int results[FILE_POLL_BATCH];
	unsigned work = channel->uring.unsubmitted, completed_count = 0;
	uring_awake(&channel->uring);
	uring_enter(&channel->uring);
	if (channel->in_flight == 0)
		return work;
	const unsigned count = io_uring_peek_batch_cqe(&channel->uring.ring, entries, FILE_POLL_BATCH);
	for (unsigned i = 0; i < count; i++) {
		struct bdev_io *io = io_uring_cqe_get_data(entries[i]);
		if (file_step_done(bdev_private(io->bdev), io, entries[i]->res, &results[completed_count]))
			completed[completed_count++] = io;
		else
			file_ring_prepare(channel, io);
	}
	io_uring_cq_advance(&channel->uring.ring, count);
	channel->in_flight -= completed_count;
	/* The last callback may put the channel: it is not touched any more. */
	for (unsigned i = 0; i < completed_count; i++)
		bdev_io_complete(completed[i], results[i]);
	return work + count;
}

static bool file_before_sleep(struct poller *poller)
{
	return uring_may_sleep(&CONTAINER_OF(poller, struct file_channel, poller)->uring);
}
