/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pieces: the pool that they come from, and how an I/O is cut into them.
 *
 * The pool of a reactor grows by slabs up to PIECE_COUNT_MAX and never shrinks. A piece has room for the largest module
 * context known when its slab was made; when a module with a larger one is registered later, the smaller pieces retire
 * as they come back. Pieces are kept in reserve for the levels below, since an I/O on a stacked bdev needs a piece of
 * every bdev under it before it can complete.
 *
 * A piece ends where the first of these says so: the I/O's end, the largest I/O of the device, its optimal boundary, its
 * number of vectors, memory that the device cannot reach. If not even one block can go out from where it lies, the piece
 * takes a bounce buffer.
 */
#include <errno.h>
#include <stdlib.h>

#include "blockdev/bdev_internal.h"

void home_init(struct home *home, struct bdev_registry *registry, struct reactor *reactor)
{
	home->registry = registry;
	home->reactor = reactor;
	home->message.fn = home_run;
	CDS_INIT_LIST_HEAD(&home->free);
	CDS_INIT_LIST_HEAD(&home->finished);
	CDS_INIT_LIST_HEAD(&home->done);
	for (unsigned i = 0; i < ARRAY_SIZE(home->waiting); i++)
		CDS_INIT_LIST_HEAD(&home->waiting[i]);
}

/* Bounce buffers that are still out belong to an abandoned simulation. */
static void slab_destroy(struct piece_slab *slab, struct dma_pool *bounces)
{
	for (unsigned i = 0; i < PIECE_SLAB_COUNT; i++) {
		struct piece *piece = (struct piece *)(slab->pieces + i * slab->piece_bytes);
		if (piece->bounce != NULL)
			dma_pool_put(bounces, piece->bounce);
	}
	free(slab);
}

void home_fini(struct home *home)
{
	while (home->slabs != NULL) {
		struct piece_slab *slab = home->slabs;
		home->slabs = slab->next;
		slab_destroy(slab, home->bounces);
	}
	if (home->bounces != NULL)
		dma_pool_destroy(home->bounces);
}

/* ---- the pool ---- */

static void home_grow(struct home *home)
{
	const size_t piece_bytes = align_up(sizeof(struct piece) + home->context_bytes, 64);
	const size_t size = sizeof(struct piece_slab) + PIECE_SLAB_COUNT * piece_bytes;
	struct piece_slab *slab = aligned_alloc(64, align_up(size, 64));
	if (slab == NULL)
		return;
	slab->next = home->slabs;
	slab->piece_bytes = piece_bytes;
	home->slabs = slab;
	home->piece_count += PIECE_SLAB_COUNT;
	for (unsigned i = 0; i < PIECE_SLAB_COUNT; i++) {
		struct piece *piece = (struct piece *)(slab->pieces + i * piece_bytes);
		piece->home = home;
		piece->bounce = NULL;
		piece->context_bytes = home->context_bytes;
		cds_list_add_tail(&piece->public.node, &home->free);
	}
}

struct piece *piece_get(struct home *home, unsigned level)
{
	const uint32_t context_bytes = __atomic_load_n(&home->registry->context_bytes, __ATOMIC_ACQUIRE);
	if (UNLIKELY(context_bytes != home->context_bytes)) {
		home->context_bytes = context_bytes;
		home->piece_count = 0;
		CDS_INIT_LIST_HEAD(&home->free);
	}
	if (home->piece_out + level * PIECE_LEVEL_RESERVE >= PIECE_COUNT_MAX)
		return NULL;
	if (UNLIKELY(cds_list_empty(&home->free)) && home->piece_count < PIECE_COUNT_MAX)
		home_grow(home);
	if (UNLIKELY(cds_list_empty(&home->free)))
		return NULL;
	struct piece *piece = CONTAINER_OF(home->free.next, struct piece, public.node);
	cds_list_del(&piece->public.node);
	home->piece_out++;
	return piece;
}

void piece_put(struct piece *piece)
{
	struct home *home = piece->home;
	if (piece->bounce != NULL)
		dma_pool_put(home->bounces, piece->bounce);
	piece->bounce = NULL;
	home->piece_out--;
	if (LIKELY(piece->context_bytes == home->context_bytes))
		cds_list_add(&piece->public.node, &home->free);
}

/* ---- cutting ---- */

static bool op_has_data(enum io_op op)
{
	return op == IO_READ || op == IO_WRITE;
}

/* How many bytes from @offset on one piece may carry. */
static uint64_t limits_bytes_max(const struct bdev_limits *limits, enum io_op op, uint64_t offset)
{
	if (op == IO_UNMAP)
		return limits->unmap_bytes_max;
	if (op == IO_WRITE_ZEROES)
		return limits->write_zeroes_bytes_max;
	const uint64_t boundary = (uint64_t)limits->optimal_boundary_blocks * limits->block_size;
	const uint64_t to_boundary = boundary != 0 ? boundary - offset % boundary : UINT64_MAX;
	return MIN(limits->io_bytes_max, to_boundary);
}

static bool memory_is_reachable(const struct bdev_limits *limits, const void *base, size_t length)
{
	const uint32_t align = limits->needs_dma ? limits->block_size : limits->buffer_align;
	if (align > 1 && (((uintptr_t)base | length) & (align - 1)) != 0)
		return false;
	return !limits->needs_dma || dma_is_mapped(base, length);
}

/* Vectors meet only where the device can go from one to the next. */
static bool vector_joins(const struct bdev_limits *limits, const struct iovec *previous, const void *base)
{
	const uintptr_t mask = limits->vector_boundary - 1u;
	return limits->vector_boundary == 0 ||
		((((uintptr_t)previous->iov_base + previous->iov_len) | (uintptr_t)base) & mask) == 0;
}

/* The common case: the whole I/O as it is. */
static bool piece_take_whole(struct piece *piece, const struct io *io, const struct bdev_limits *limits)
{
	if (piece->public.length != io->length || io->iov_count > limits->iov_count_max)
		return false;
	for (unsigned i = 0; i < io->iov_count; i++)
		if (!memory_is_reachable(limits, io->iov[i].iov_base, io->iov[i].iov_len) ||
			(i > 0 && !vector_joins(limits, &io->iov[i - 1], io->iov[i].iov_base)))
			return false;
	piece->public.iov = io->iov;
	piece->public.iov_count = io->iov_count;
	return true;
}

/* Copies vectors from where the I/O stands, up to the piece's length; returns how many bytes of whole blocks. */
static uint64_t piece_take_vectors(struct piece *piece, const struct io *io, const struct bdev_limits *limits)
{
	const unsigned count_max = MIN(limits->iov_count_max, (unsigned)PIECE_IOV_MAX);
	uint64_t bytes = 0;
	unsigned count = 0;
	size_t skip = io->progress.iov_skip;
	for (unsigned i = io->progress.iov_index; bytes < piece->public.length && count < count_max; i++, skip = 0) {
		char *base = (char *)io->iov[i].iov_base + skip;
		const size_t length = MIN(io->iov[i].iov_len - skip, piece->public.length - bytes);
		if (length == 0)
			continue;
		if (!memory_is_reachable(limits, base, length) ||
			(count > 0 && !vector_joins(limits, &piece->iov[count - 1], base)))
			break;
		piece->iov[count++] = (struct iovec){.iov_base = base, .iov_len = length};
		bytes += length;
	}
	size_t excess = bytes & (limits->block_size - 1);
	bytes -= excess;
	while (excess != 0) {
		const size_t cut = MIN(excess, piece->iov[count - 1].iov_len);
		piece->iov[count - 1].iov_len -= cut;
		count -= piece->iov[count - 1].iov_len == 0;
		excess -= cut;
	}
	piece->public.iov = piece->iov;
	piece->public.iov_count = count;
	return bytes;
}

/* Moves @length bytes between the bounce buffer and the I/O's vectors. */
static void piece_copy(struct piece *piece, bool to_bounce)
{
	const struct iovec *iov = &piece->io->iov[piece->iov_index];
	char *bounce = piece->bounce;
	size_t left = piece->public.length, skip = piece->iov_skip;
	for (; left != 0; iov++, skip = 0) {
		char *base = (char *)iov->iov_base + skip;
		const size_t length = MIN(iov->iov_len - skip, left);
		if (length != 0)
			memcpy(to_bounce ? bounce : base, to_bounce ? base : bounce, length);
		bounce += length;
		left -= length;
	}
}

static int piece_take_bounce(struct piece *piece, bool zeroes)
{
	struct home *home = piece->home;
	if (home->bounces == NULL && dma_pool_create(BOUNCE_BYTES, 4096, BOUNCE_COUNT_MAX, &home->bounces) != 0)
		return -ENOMEM;
	piece->bounce = dma_pool_get(home->bounces);
	if (piece->bounce == NULL)
		return dma_pool_free_count(home->bounces) != 0 ? -ENOMEM : -EAGAIN;
	piece->public.length = MIN(piece->public.length, (uint64_t)BOUNCE_BYTES);
	piece->iov[0] = (struct iovec){.iov_base = piece->bounce, .iov_len = piece->public.length};
	piece->public.iov = piece->iov;
	piece->public.iov_count = 1;
	if (zeroes)
		memset(piece->bounce, 0, piece->public.length);
	else if (piece->public.op == IO_WRITE)
		piece_copy(piece, true);
	STAT_ADD(piece->public.channel->stats.bounces, 1);
	return 0;
}

void piece_copy_back(struct piece *piece)
{
	if (piece->bounce != NULL && piece->public.op == IO_READ)
		piece_copy(piece, false);
}

static void io_move_on(struct io *io, uint64_t bytes)
{
	struct io_progress *progress = &io->progress;
	const bool first = progress->issued == 0;
	progress->issued += bytes;
	progress->more = progress->issued < io->length;
	if (first && progress->more)
		STAT_ADD(io->channel->stats.splits, 1);
	if (!op_has_data(io->op))
		return;
	for (; bytes != 0; progress->iov_index++, progress->iov_skip = 0) {
		const size_t left = io->iov[progress->iov_index].iov_len - progress->iov_skip;
		if (left > bytes) {
			progress->iov_skip += bytes;
			return;
		}
		bytes -= left;
	}
}

/* NULL when it has come back meanwhile. */
static struct bdev_io *piece_to_abort(const struct io *io)
{
	struct piece *piece;
	cds_list_for_each_entry(piece, &io->channel->outstanding, outstanding_node)
		if (piece->io == io->abort_target)
			return &piece->public;
	return NULL;
}

int piece_fill(struct piece *piece)
{
	struct io *io = piece->io;
	struct bdev *bdev = io->channel->bdev;
	const struct bdev_limits *limits = &bdev->limits;
	piece->retries = 0;
	piece->iov_index = io->progress.iov_index;
	piece->iov_skip = io->progress.iov_skip;
	piece->public.bdev = bdev;
	piece->public.channel = io->channel;
	piece->public.op = io->progress.flushing ? IO_FLUSH : io->op;
	piece->public.flags = io->flags;
	piece->public.offset = piece->public.length = 0;
	piece->public.iov = NULL;
	piece->public.iov_count = 0;
	piece->public.abort_target = io->op == IO_ABORT ? piece_to_abort(io) : NULL;
	if (piece->public.op == IO_FLUSH || piece->public.op == IO_RESET || piece->public.op == IO_ABORT) {
		io->progress.more = false;
		return 0;
	}
	const bool zeroes = io->op == IO_WRITE_ZEROES && (limits->ops & 1u << IO_WRITE_ZEROES) == 0;
	if (zeroes)
		piece->public.op = IO_WRITE;
	if (limits->volatile_cache && !limits->native_fua)
		piece->public.flags &= ~(uint32_t)IO_FUA;
	piece->public.offset = io->offset + io->progress.issued;
	piece->public.length = MIN(io->length - io->progress.issued,
		limits_bytes_max(limits, piece->public.op, piece->public.offset));
	int err = 0;
	if (zeroes) {
		err = piece_take_bounce(piece, true);
	} else if (op_has_data(io->op) && !piece_take_whole(piece, io, limits)) {
		const uint64_t bytes = piece_take_vectors(piece, io, limits);
		if (bytes != 0)
			piece->public.length = bytes;
		else
			err = piece_take_bounce(piece, false);
	}
	if (err == 0)
		io_move_on(io, piece->public.length);
	return err;
}
