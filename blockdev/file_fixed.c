/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fixed buffers: the kernel pins a DMA region once instead of pinning the pages of every transfer. A region is registered
 * with a channel's ring when the channel first uses it, under its own number. Regions stay with the process (see
 * reactor/memory.h), so a registration never goes stale. Pinned memory counts against RLIMIT_MEMLOCK: where the limit is
 * reached, or the kernel is too old for sparse tables, transfers simply go the ordinary way.
 */
#include <errno.h>

#include "blockdev/file_internal.h"
#include "reactor/log.h"

void file_fixed_init(struct file_channel *channel)
{
	channel->fixed_hint = -1;
	channel->fixed = io_uring_register_buffers_sparse(&channel->uring.ring, DMA_REGIONS_MAX) == 0;
}

static bool bit_get(const uint64_t *mask, int bit) { return mask[bit / 64] >> (bit % 64) & 1; }
static void bit_set(uint64_t *mask, int bit) { mask[bit / 64] |= 1ull << (bit % 64); }

static bool register_region(struct file_channel *channel, int number)
{
	const struct dma_region region = dma_region_get(number);
	const struct iovec iov = {.iov_base = region.start, .iov_len = region.size};
	const __u64 tag = 0;
	const int answer = io_uring_register_buffers_update_tag(&channel->uring.ring, (unsigned)number, &iov, &tag, 1);
	if (answer == 1) {
		bit_set(channel->fixed_mask, number);
		return true;
	}
	log_debug("io_uring takes no more fixed buffers: %s", strerror(answer < 0 ? -answer : EAGAIN));
	bit_set(channel->refused_mask, number);
	return false;
}

int file_fixed_index(struct file_channel *channel, const struct iovec *iov)
{
	if (!channel->fixed)
		return -1;
	const int number = dma_region_find(iov->iov_base, iov->iov_len, channel->fixed_hint);
	if (number < 0 || bit_get(channel->refused_mask, number))
		return -1;
	channel->fixed_hint = number;
	return bit_get(channel->fixed_mask, number) || register_region(channel, number) ? number : -1;
}
