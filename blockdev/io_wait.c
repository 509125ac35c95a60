/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The bridge from fibers to the completion world: submit, park, look at the result. The callbacks here only store and
 * wake.
 */
#include "blockdev/blockdev.h"

void io_prepare(struct io *io, struct bdev_channel *channel, enum io_op op, void *buffer, uint64_t offset,
	uint64_t length)
{
	*io = (struct io){
		.channel = channel,
		.op = op,
		.offset = offset,
		.length = length,
		.single = {.iov_base = buffer, .iov_len = length},
	};
	if (op == IO_READ || op == IO_WRITE) {
		io->iov = &io->single;
		io->iov_count = 1;
	}
}

static void io_run_done(struct io *io)
{
	struct fiber *waiter = io->waiter;
	io->waiter = NULL;
	fiber_wake(waiter);
}

MAY_WAIT int io_run(struct io *io)
{
	io->done = io_run_done;
	io->waiter = fiber_self();
	assert(io->waiter != NULL);
	io_submit(io);
	while (io->waiter != NULL)
		fiber_park("block I/O");
	return io->result;
}

void io_group_init(struct io_group *group)
{
	fiber_group_init(&group->pending);
	group->result = 0;
}

static void io_group_submit_done(struct io *io)
{
	struct io_group *group = io->arg;
	if (group->result == 0)
		group->result = io->result;
	fiber_group_done(&group->pending);
}

void io_group_submit(struct io_group *group, struct io *io)
{
	io->done = io_group_submit_done;
	io->arg = group;
	io->waiter = NULL;
	fiber_group_add(&group->pending, 1);
	io_submit(io);
}

MAY_WAIT int io_group_wait(struct io_group *group)
{
	fiber_group_wait(&group->pending);
	return group->result;
}

MAY_WAIT int bdev_read(struct bdev_channel *channel, void *buffer, uint64_t offset, uint64_t length)
{
	struct io io;
	io_prepare(&io, channel, IO_READ, buffer, offset, length);
	return io_run(&io);
}

MAY_WAIT int bdev_write(struct bdev_channel *channel, const void *buffer, uint64_t offset, uint64_t length,
	uint32_t flags)
{
	struct io io;
	io_prepare(&io, channel, IO_WRITE, (void *)(uintptr_t)buffer, offset, length);
	io.flags = flags;
	return io_run(&io);
}

MAY_WAIT int bdev_flush(struct bdev_channel *channel)
{
	struct io io;
	io_prepare(&io, channel, IO_FLUSH, NULL, 0, 0);
	return io_run(&io);
}
