/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A channel of the file module: one io_uring, used by its reactor only.
 *
 * submit fills an entry; the poller, once a turn, hands all new entries to the kernel with one call and takes the
 * completions. The ring is made so that completions are run by us when we ask (DEFER_TASKRUN) and not by interrupting
 * the reactor; a flag in shared memory says when to ask. Polling such a ring's own descriptor does not wake anybody
 * (seen on Linux 6.18), so the reactor watches an eventfd, which is signalled only while it is about to sleep. Where
 * io_uring is not allowed the calls are made on the spot, which is slow and blocks the reactor, but works; so they are in
 * simulated groups, where nothing may depend on the kernel's timing.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "blockdev/file_internal.h"
#include "reactor/log.h"

enum { FILE_POLL_BATCH = 32 };

static unsigned file_poll(struct poller *poller);
static bool file_before_sleep(struct poller *poller);

static int file_ring_init(struct io_uring *ring)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* Linux 6.1 */
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                               /* Linux 5.19 */
		0,
	};
	int err = -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(flags) && err == -EINVAL; i++)
		err = io_uring_queue_init(FILE_RING_ENTRIES, ring, flags[i]);
	return err;
}

static int file_wake_init(struct file_channel *channel)
{
	channel->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (channel->wake_fd < 0)
		return -errno;
	int err = io_uring_register_eventfd(&channel->ring, channel->wake_fd);
	if (err == 0)
		err = io_uring_cq_eventfd_toggle(&channel->ring, false);
	if (err == 0)
		err = reactor_watch_fd(reactor_self(), channel->wake_fd, EPOLLIN);
	if (err != 0)
		close(channel->wake_fd);
	return err;
}

int file_channel_init(struct bdev *bdev, void *channel_state)
{
	const struct file *file = bdev_private(bdev);
	struct file_channel *channel = channel_state;
	channel->fd = file->fd;
	if (file->no_ring)
		return 0;
	int err = file_ring_init(&channel->ring);
	if (err != 0) {
		log_warn("%s: no io_uring here (%s): I/O blocks the reactor", bdev_get_limits(bdev)->name,
			strerror(-err));
		return 0;
	}
	err = file_wake_init(channel);
	if (err != 0) {
		io_uring_queue_exit(&channel->ring);
		return err;
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
	reactor_unwatch_fd(reactor_self(), channel->wake_fd);
	io_uring_queue_exit(&channel->ring);
	close(channel->wake_fd);
}

/* There are as many entries as I/Os may be in flight, so there is always one. */
static void file_ring_prepare(struct file_channel *channel, struct bdev_io *io)
{
	const struct file *file = bdev_private(io->bdev);
	struct io_uring_sqe *sqe = io_uring_get_sqe(&channel->ring);
	struct file_step step;
	assert(sqe != NULL);
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
	channel->unsubmitted++;
}

int file_submit(struct bdev *bdev, void *channel_state, struct bdev_io *io)
{
	struct file_channel *channel = channel_state;
	if (io->op == IO_RESET) {
		bdev_io_complete(io, 0);
		return 0;
	}
	if (!channel->has_ring) {
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

/* The kernel may refuse for a moment; the next turn tries again. */
static void file_ring_enter(struct file_channel *channel)
{
	const int taken = io_uring_submit(&channel->ring);
	if (taken > 0)
		channel->unsubmitted -= (unsigned)taken;
	else
		assert(taken == -EAGAIN || taken == -EBUSY || taken == -EINTR || taken == 0);
}

/* The reactor is awake: completions are found by polling. */
static void file_disarm(struct file_channel *channel)
{
	uint64_t count;
	const int err = io_uring_cq_eventfd_toggle(&channel->ring, false);
	assert(err == 0);
	channel->armed = false;
	if (read(channel->wake_fd, &count, sizeof(count)) < 0)
		return; /* nothing was signalled */
}

static unsigned file_poll(struct poller *poller)
{
	struct file_channel *channel = CONTAINER_OF(poller, struct file_channel, poller);
	struct io_uring_cqe *entries[FILE_POLL_BATCH];
	struct bdev_io *completed[FILE_POLL_BATCH];
	int results[FILE_POLL_BATCH];
	unsigned work = channel->unsubmitted, completed_count = 0;
	if (channel->armed)
		file_disarm(channel);
	if (channel->unsubmitted != 0)
		file_ring_enter(channel);
	if (channel->in_flight == 0)
		return work;
	const unsigned count = io_uring_peek_batch_cqe(&channel->ring, entries, FILE_POLL_BATCH);
	for (unsigned i = 0; i < count; i++) {
		struct bdev_io *io = io_uring_cqe_get_data(entries[i]);
		if (file_step_done(bdev_private(io->bdev), io, entries[i]->res, &results[completed_count]))
			completed[completed_count++] = io;
		else
			file_ring_prepare(channel, io);
	}
	io_uring_cq_advance(&channel->ring, count);
	channel->in_flight -= completed_count;
	/* The last callback may put the channel: it is not touched any more. */
	for (unsigned i = 0; i < completed_count; i++)
		bdev_io_complete(completed[i], results[i]);
	return work + count;
}

/* Armed first, looked at afterwards: what completes in between signals, or is seen. */
static bool file_before_sleep(struct poller *poller)
{
	struct file_channel *channel = CONTAINER_OF(poller, struct file_channel, poller);
	if (channel->unsubmitted != 0)
		return false;
	if (!channel->armed) {
		const int err = io_uring_cq_eventfd_toggle(&channel->ring, true);
		assert(err == 0);
		channel->armed = true;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return io_uring_cq_ready(&channel->ring) == 0 &&
		(__atomic_load_n(channel->ring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) == 0;
}
