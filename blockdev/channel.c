/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Channels: a bdev's state on one reactor, shared by everybody there and counted, with the line of pieces that the
 * module refused and the statistics.
 *
 * The order of a channel: a piece is given to the module at once unless others already wait in no_memory; those are
 * offered again, oldest first, whenever a piece comes back, and by a timer when none is out that could come back. So
 * pieces reach the module in the order in which they were made.
 */
#include <errno.h>
#include <stdlib.h>

#include "blockdev/bdev_internal.h"

static void channel_timer_fired(struct timer *timer);

static struct bdev_channel *channel_alloc(struct bdev *bdev, struct home *home)
{
	const size_t size = align_up(sizeof(struct bdev_channel) + bdev->module->channel_bytes, 64);
	struct bdev_channel *channel = aligned_alloc(64, size);
	if (channel == NULL)
		return NULL;
	memset(channel, 0, size);
	channel->bdev = bdev;
	channel->home = home;
	channel->refs = 1;
	CDS_INIT_LIST_HEAD(&channel->outstanding);
	CDS_INIT_LIST_HEAD(&channel->no_memory);
	return channel;
}

int bdev_channel_get(struct bdev_desc *desc, struct bdev_channel **out)
{
	struct bdev *bdev = desc->bdev;
	struct bdev_registry *registry = bdev->registry;
	const unsigned index = reactor_index(reactor_self());
	if (bdev_is_removed(bdev))
		return -ENODEV;
	if (bdev->channels[index] != NULL) {
		bdev->channels[index]->refs++;
		*out = bdev->channels[index];
		return 0;
	}
	struct bdev_channel *channel = channel_alloc(bdev, &registry->homes[index]);
	if (channel == NULL)
		return -ENOMEM;
	const int err = bdev->module->channel_init != NULL ? bdev->module->channel_init(bdev, channel->state) : 0;
	if (err != 0) {
		free(channel);
		return err;
	}
	pthread_mutex_lock(&registry->lock);
	bdev->channels[index] = channel;
	bdev->channel_count++;
	pthread_mutex_unlock(&registry->lock);
	*out = channel;
	return 0;
}

/* Every field of the statistics is a uint64_t. */
static void stats_add(struct bdev_stats *sum, const struct bdev_stats *part)
{
	_Static_assert(sizeof(*sum) % sizeof(uint64_t) == 0, "statistics are made of uint64_t only");
	uint64_t *to = (uint64_t *)sum;
	const uint64_t *from = (const uint64_t *)part;
	for (size_t i = 0; i < sizeof(*sum) / sizeof(uint64_t); i++)
		to[i] += __atomic_load_n(&from[i], __ATOMIC_RELAXED);
}

void bdev_channel_put(struct bdev_channel *channel)
{
	struct bdev *bdev = channel->bdev;
	struct bdev_registry *registry = bdev->registry;
	assert(channel->home->reactor == reactor_self());
	if (--channel->refs != 0)
		return;
	assert(channel->outstanding_count == 0 && cds_list_empty(&channel->no_memory));
	timer_stop(&channel->no_memory_timer);
	if (bdev->module->channel_fini != NULL)
		bdev->module->channel_fini(bdev, channel->state);
	pthread_mutex_lock(&registry->lock);
	bdev->channels[reactor_index(reactor_self())] = NULL;
	stats_add(&bdev->closed_stats, &channel->stats);
	bdev->channel_count--;
	removal_reference_gone(bdev);
	pthread_mutex_unlock(&registry->lock);
	free(channel);
}

void *bdev_channel_state(struct bdev_channel *channel)
{
	return channel->state;
}

struct reactor *bdev_channel_reactor(const struct bdev_channel *channel)
{
	return channel->home->reactor;
}

void bdev_stats_read(struct bdev *bdev, struct bdev_stats *out)
{
	struct bdev_registry *registry = bdev->registry;
	pthread_mutex_lock(&registry->lock);
	*out = bdev->closed_stats;
	for (unsigned i = 0; i < registry->home_count; i++)
		if (bdev->channels[i] != NULL)
			stats_add(out, &bdev->channels[i]->stats);
	for (unsigned i = 0; i < registry->home_count; i++)
		if (bdev->channels[i] != NULL)
			out->outstanding += __atomic_load_n(&bdev->channels[i]->outstanding_count, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&registry->lock);
}

/* ---- to the module and back ---- */

/* Changed by one reactor, looked at by others. */
static void outstanding_add(struct bdev_channel *channel, int count)
{
	__atomic_store_n(&channel->outstanding_count, channel->outstanding_count + (unsigned)count, __ATOMIC_RELAXED);
}

/* False: the module has no memory for it. */
static bool channel_hand(struct bdev_channel *channel, struct piece *piece)
{
	struct bdev *bdev = channel->bdev;
	piece->public.submitted_ns = reactor_now_ns();
	outstanding_add(channel, 1);
	cds_list_add_tail(&piece->outstanding_node, &channel->outstanding);
	const int err = bdev->module->submit(bdev, channel->state, &piece->public);
	if (err == 0)
		return true;
	assert(err == -ENOMEM);
	outstanding_add(channel, -1);
	cds_list_del(&piece->outstanding_node);
	return false;
}

static void channel_watch_no_memory(struct bdev_channel *channel)
{
	if (channel->outstanding_count == 0 && !timer_running(&channel->no_memory_timer))
		timer_start(&channel->no_memory_timer, NO_MEMORY_RETRY_NS, channel_timer_fired);
}

void channel_push(struct bdev_channel *channel, struct piece *piece)
{
	if (UNLIKELY(bdev_is_removed(channel->bdev))) {
		piece_finish_later(piece, -ENODEV);
		return;
	}
	if (LIKELY(cds_list_empty(&channel->no_memory)) && LIKELY(channel_hand(channel, piece)))
		return;
	STAT_ADD(channel->stats.no_memory, 1);
	cds_list_add_tail(&piece->public.node, &channel->no_memory);
	channel_watch_no_memory(channel);
}

void channel_returned(struct bdev_channel *channel, struct piece *piece)
{
	outstanding_add(channel, -1);
	cds_list_del(&piece->outstanding_node);
	if (UNLIKELY(channel->draining) && channel->outstanding_count == 0) {
		channel->draining = false;
		sweep_answer(channel->bdev);
	}
}

/* Bounded by the length of the line: what completes meanwhile is not handled before we return. */
void channel_resubmit(struct bdev_channel *channel)
{
	while (!cds_list_empty(&channel->no_memory)) {
		struct bdev_io *oldest = cds_list_first_entry(&channel->no_memory, struct bdev_io, node);
		cds_list_del(&oldest->node);
		if (channel_hand(channel, piece_of(oldest)))
			continue;
		cds_list_add(&oldest->node, &channel->no_memory);
		channel_watch_no_memory(channel);
		return;
	}
}

static void channel_timer_fired(struct timer *timer)
{
	struct bdev_channel *channel = CONTAINER_OF(timer, struct bdev_channel, no_memory_timer);
	struct home *home = channel->home;
	home->busy++;
	channel_resubmit(channel);
	home->busy--;
}
