/* SPDX-License-Identifier: BSD-3-Clause */
/* Rings of a reactor: see the header. */
#include "reactor/uring.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "reactor/reactor.h"

static int ring_init(struct io_uring *ring, unsigned entries, unsigned needed)
{
	static const unsigned flags[] = {
		IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* Linux 6.1 */
		IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                               /* Linux 5.19 */
		0,
	};
	int err = -EINVAL;
	for (unsigned i = 0; i < ARRAY_SIZE(flags) && err == -EINVAL; i++)
		err = io_uring_queue_init(entries, ring, flags[i] | needed);
	return err;
}

static int wake_init(struct uring *uring)
{
	uring->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (uring->wake_fd < 0)
		return -errno;
	int err = io_uring_register_eventfd(&uring->ring, uring->wake_fd);
	if (err == 0)
		err = io_uring_cq_eventfd_toggle(&uring->ring, false);
	if (err == 0)
		err = reactor_watch_fd(reactor_self(), uring->wake_fd, EPOLLIN);
	if (err != 0)
		close(uring->wake_fd);
	return err;
}

int uring_init(struct uring *uring, unsigned entries, unsigned flags)
{
	*uring = (struct uring){.wake_fd = -1};
	int err = ring_init(&uring->ring, entries, flags);
	if (err != 0)
		return err;
	err = wake_init(uring);
	if (err != 0)
		io_uring_queue_exit(&uring->ring);
	return err;
}

void uring_fini(struct uring *uring)
{
	reactor_unwatch_fd(reactor_self(), uring->wake_fd);
	io_uring_queue_exit(&uring->ring);
	close(uring->wake_fd);
}

struct io_uring_sqe *uring_entry(struct uring *uring)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->ring);
	assert(sqe != NULL);
	uring->unsubmitted++;
	return sqe;
}

void uring_enter(struct uring *uring)
{
	if (uring->unsubmitted == 0)
		return;
	const int taken = io_uring_submit(&uring->ring);
	if (taken > 0)
		uring->unsubmitted -= (unsigned)taken;
	else
		assert(taken == -EAGAIN || taken == -EBUSY || taken == -EINTR || taken == 0);
}

void uring_awake(struct uring *uring)
{
	uint64_t count;
	if (!uring->armed)
		return;
	const int err = io_uring_cq_eventfd_toggle(&uring->ring, false);
	assert(err == 0);
	uring->armed = false;
	if (read(uring->wake_fd, &count, sizeof(count)) < 0)
		return; /* nothing was signalled */
}

/* Armed first, looked at afterwards: what completes in between signals, or is seen. */
bool uring_may_sleep(struct uring *uring)
{
	if (uring->unsubmitted != 0)
		return false;
	if (!uring->armed) {
		const int err = io_uring_cq_eventfd_toggle(&uring->ring, true);
		assert(err == 0);
		uring->armed = true;
	}
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return io_uring_cq_ready(&uring->ring) == 0 &&
		(__atomic_load_n(uring->ring.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) == 0;
}
