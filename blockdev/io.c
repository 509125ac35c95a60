/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The path of an I/O: io_submit checks it and hands out pieces; each piece that comes back may be retried, lets those in
 * line go on, and counts down; the last one finishes the I/O.
 *
 *   io_submit -> io_issue -> piece_fill -> channel_push -> module's submit
 *                    ^                                           |
 *                    |                                   bdev_io_complete
 *      more pieces, or the flush of an emulated FUA              |
 *                    +-- io_advance <-- piece_finish <-----------+
 *                            |
 *                        io_finish -> done(io)
 *
 * Nothing here nests: what completes inside a submission, inside another completion or in a fiber is put on a list of
 * its reactor and worked off from a message to ourselves, so a module may complete inside its submit, done may submit
 * again, and no stack grows. An I/O that finds the pool empty waits in a line of its level and goes on when pieces come
 * back. After the first error no further piece is handed out; the I/O is done when all that are out have come back.
 */
#include <errno.h>

#include "blockdev/bdev_internal.h"

static void io_advance(struct io *io);
static void io_finish(struct io *io);

/* ---- submission ---- */

/* 0: go on; 1: done already; else the error. */
static int io_check(const struct io *io)
{
	const struct bdev *bdev = io->channel->bdev;
	const struct bdev_limits *limits = &bdev->limits;
	assert(io->op < IO_OP_COUNT);
	if (bdev_is_removed(bdev))
		return -ENODEV;
	uint32_t ops = limits->ops;
	if ((ops & 1u << IO_WRITE) != 0)
		ops |= 1u << IO_WRITE_ZEROES; /* with writes, if need be */
	if (io->op == IO_FLUSH && !limits->volatile_cache)
		return 1;
	if (__atomic_load_n(&limits->read_only, __ATOMIC_RELAXED) && io->op != IO_READ && io->op != IO_RESET &&
		io->op != IO_ABORT && io->op != IO_FLUSH)
		return -EROFS;
	if (io->op == IO_ABORT)
		return io->abort_target != NULL && io->abort_target->channel == io->channel ? 0 : -EINVAL;
	if ((ops & 1u << io->op) == 0)
		return -EOPNOTSUPP;
	if (io->op == IO_FLUSH || io->op == IO_RESET)
		return 0;
	const uint64_t size = __atomic_load_n(&limits->block_count, __ATOMIC_RELAXED) * limits->block_size;
	if (((io->offset | io->length) & (limits->block_size - 1)) != 0)
		return -EINVAL;
	if (io->offset > size || io->length > size - io->offset)
		return -EINVAL;
	if (io->op == IO_READ || io->op == IO_WRITE) {
		uint64_t sum = 0;
		for (unsigned i = 0; i < io->iov_count; i++)
			sum += io->iov[i].iov_len;
		if (sum != io->length)
			return -EINVAL;
	}
	return io->length == 0;
}

/* Hands out pieces while there are any. False: a pool is empty. */
static bool io_issue_pieces(struct io *io)
{
	struct bdev_channel *channel = io->channel;
	struct home *home = channel->home;
	while (io->progress.more && io->progress.pending < PIECE_PER_IO_MAX) {
		struct piece *piece = piece_get(home, channel->bdev->limits.stack_level);
		int err = -EAGAIN;
		if (piece != NULL) {
			piece->io = io;
			err = piece_fill(piece);
			if (err != 0)
				piece_put(piece);
		}
		if (err == -EAGAIN && home->piece_out != 0)
			return false;
		if (err != 0) { /* nothing is out that could come back: there is no memory at all */
			io->result = -ENOMEM;
			io->progress.more = false;
			return true;
		}
		io->progress.pending++;
		channel_push(channel, piece);
	}
	return true;
}

static void io_issue(struct io *io)
{
	struct home *home = io->channel->home;
	struct cds_list_head *line = &home->waiting[io->channel->bdev->limits.stack_level];
	if (LIKELY(cds_list_empty(line)) && LIKELY(io_issue_pieces(io)))
		return;
	STAT_ADD(io->channel->stats.pool_waits, 1);
	io->progress.waiting = true;
	cds_list_add_tail(&io->progress.node, line);
}

static bool io_abort_pieces(struct io *io);

void io_submit(struct io *io)
{
	struct home *home = io->channel->home;
	assert(home->reactor == reactor_self());
	io->result = 0;
	io->progress = (struct io_progress){.submitted_ns = reactor_now_ns(), .more = true};
	home->busy++;
	home->deferring++;
	const int err = io_check(io);
	if (UNLIKELY(err != 0)) {
		io->result = MIN(err, 0);
		io->progress.more = false;
		io_finish(io);
	} else if (UNLIKELY(io->op == IO_ABORT) && io_abort_pieces(io)) {
		io->progress.more = false;
		io_finish(io);
	} else {
		io_advance(io);
	}
	home->deferring--;
	home->busy--;
}

/* ---- completion ---- */

static void home_post(struct home *home)
{
	if (home->message_sent)
		return;
	home->message_sent = true;
	reactor_send(home->reactor, &home->message);
}

static void io_count(const struct io *io)
{
	struct bdev_stats *stats = &io->channel->stats;
	struct bdev_op_stats *op = &stats->op[io->op];
	const uint64_t latency_ns = reactor_now_ns() - io->progress.submitted_ns;
	STAT_ADD(op->count, 1);
	if (io->result == 0)
		STAT_ADD(op->bytes, io->length);
	else
		STAT_ADD(op->errors, 1);
	STAT_ADD(op->latency_total_ns, latency_ns);
	STAT_ADD(op->latency[latency_bucket(latency_ns)], 1);
	if ((io->flags & IO_FUA) != 0)
		STAT_ADD(stats->fua_writes, 1);
}

static void io_finish(struct io *io)
{
	struct home *home = io->channel->home;
	if (home->deferring != 0) {
		cds_list_add_tail(&io->progress.node, &home->done);
		home_post(home);
		return;
	}
	io_count(io);
	io->done(io); /* the io is the caller's again */
}

static bool io_wants_flush(const struct io *io)
{
	const struct bdev_limits *limits = &io->channel->bdev->limits;
	return (io->flags & IO_FUA) != 0 && (io->op == IO_WRITE || io->op == IO_WRITE_ZEROES) && io->result == 0 &&
		!io->progress.flushing && limits->volatile_cache && !limits->native_fua;
}

/* Something about the I/O has changed: hand out more, flush, or finish. */
static void io_advance(struct io *io)
{
	struct io_progress *progress = &io->progress;
	if (UNLIKELY(io->result != 0)) {
		progress->more = false;
		if (progress->waiting)
			cds_list_del(&progress->node);
		progress->waiting = false;
	}
	if (progress->more && !progress->waiting)
		io_issue(io);
	if (!progress->more && progress->pending == 0 && io_wants_flush(io)) {
		progress->flushing = true;
		progress->more = true;
		io_issue(io);
	}
	if (!progress->more && progress->pending == 0)
		io_finish(io);
}

/* Those in line go on, the lowest level first, until a pool is empty again. */
static void home_pump(struct home *home)
{
	home->deferring++;
	for (unsigned level = 0; level <= STACK_LEVEL_MAX; level++) {
		struct cds_list_head *line = &home->waiting[level];
		while (!cds_list_empty(line)) {
			struct io *io = CONTAINER_OF(line->next, struct io, progress.node);
			if (!io_issue_pieces(io))
				break;
			cds_list_del(&io->progress.node);
			io->progress.waiting = false;
			if (io->progress.pending == 0)
				io_advance(io);
		}
	}
	home->deferring--;
}

static bool result_is_transient(int result)
{
	return result == -EAGAIN || result == -EINTR;
}

/* The piece is out of the module and off every list. */
static void piece_finish(struct piece *piece)
{
	struct io *io = piece->io;
	struct bdev_channel *channel = piece->public.channel;
	int result = piece->result;
	if (UNLIKELY(result_is_transient(result))) {
		if (piece->retries < PIECE_RETRY_MAX && !bdev_is_removed(channel->bdev)) {
			piece->retries++;
			STAT_ADD(channel->stats.retries, 1);
			channel_push(channel, piece);
			return;
		}
		result = -EIO;
	}
	if (result == 0)
		piece_copy_back(piece);
	else if (io->result == 0)
		io->result = result;
	piece_put(piece);
	io->progress.pending--;
	if (!cds_list_empty(&channel->no_memory))
		channel_resubmit(channel);
	home_pump(channel->home);
	io_advance(io);
}

static void piece_returned(struct piece *piece)
{
	if (!cds_list_empty(&piece->outstanding_node))
		channel_returned(piece->public.channel, piece);
	piece_finish(piece);
}

void piece_finish_later(struct piece *piece, int result)
{
	piece->result = result;
	CDS_INIT_LIST_HEAD(&piece->outstanding_node);
	cds_list_add_tail(&piece->public.node, &piece->home->finished);
	home_post(piece->home);
}

void bdev_io_complete(struct bdev_io *public, int result)
{
	struct piece *piece = piece_of(public);
	struct home *home = piece->home;
	assert(home->reactor == reactor_self() && result <= 0);
	piece->result = result;
	if (home->busy != 0 || fiber_self() != NULL) {
		cds_list_add_tail(&public->node, &home->finished);
		home_post(home);
		return;
	}
	home->busy++;
	piece_returned(piece);
	home->busy--;
}

void home_run(struct message *message)
{
	struct home *home = CONTAINER_OF(message, struct home, message);
	home->message_sent = false;
	home->busy++;
	unsigned budget = HOME_BATCH;
	for (; budget != 0 && !cds_list_empty(&home->finished); budget--) {
		struct bdev_io *public = cds_list_first_entry(&home->finished, struct bdev_io, node);
		cds_list_del(&public->node);
		piece_returned(piece_of(public));
	}
	for (; budget != 0 && !cds_list_empty(&home->done); budget--) {
		struct io *io = CONTAINER_OF(home->done.next, struct io, progress.node);
		cds_list_del(&io->progress.node);
		io_finish(io);
	}
	home->busy--;
	if (!cds_list_empty(&home->finished) || !cds_list_empty(&home->done))
		home_post(home);
}

/* ---- abort and removal ---- */

/* Finishes the pieces in the channel's line that belong to @io, or to anybody. */
static void channel_fail_no_memory(struct bdev_channel *channel, const struct io *io, int error)
{
	struct bdev_io *public, *next;
	cds_list_for_each_entry_safe(public, next, &channel->no_memory, node) {
		if (io != NULL && piece_of(public)->io != io)
			continue;
		cds_list_del(&public->node);
		piece_finish_later(piece_of(public), error);
	}
}

/* Takes back what has not reached the module. True: the abort is over, its result is set. */
static bool io_abort_pieces(struct io *io)
{
	struct bdev_channel *channel = io->channel;
	struct io *target = io->abort_target;
	const bool waited = target->progress.waiting;
	channel_fail_no_memory(channel, target, -ECANCELED);
	if (target->progress.more) {
		target->result = target->result != 0 ? target->result : -ECANCELED;
		if (waited)
			io_advance(target);
		target->progress.more = false;
	}
	struct piece *piece;
	cds_list_for_each_entry(piece, &channel->outstanding, outstanding_node) {
		if (piece->io != target)
			continue;
		if ((channel->bdev->limits.ops & 1u << IO_ABORT) != 0)
			return false;
		io->result = -EOPNOTSUPP;
	}
	return true;
}

void io_fail_queued(struct bdev_channel *channel, int error)
{
	struct home *home = channel->home;
	home->busy++;
	home->deferring++;
	timer_stop(&channel->no_memory_timer);
	channel_fail_no_memory(channel, NULL, error);
	struct cds_list_head *node, *next;
	cds_list_for_each_safe(node, next, &home->waiting[channel->bdev->limits.stack_level]) {
		struct io *io = CONTAINER_OF(node, struct io, progress.node);
		if (io->channel != channel)
			continue;
		io->result = io->result != 0 ? io->result : error;
		io_advance(io);
	}
	home->deferring--;
	home->busy--;
}
