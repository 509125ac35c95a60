/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Removal, the one way out. Whatever noticed that a device goes ends up in bdev_remove:
 *
 *   unpublish        under the mutex; from here on io_submit and bdev_open answer -ENODEV
 *   sweep            a message to every reactor fails what waits in the channel there; once all have answered, no
 *                    further I/O can reach the module
 *   events           every opener hears of it on its own reactor
 *   quiesce          the module completes what is outstanding, then calls bdev_quiesced
 *   closed           the last descriptor and the last channel are gone
 *   release          the module lets go of the hardware: when both have happened, or at the deadline
 *   destroy, free    after release, when both have happened; until then the bdev is a tombstone on the removing list
 *
 * All of this state belongs to the reactor of the first bdev_remove. Others send it two messages: quiesced and closed.
 * Callers that come later wait on that reactor for the same end.
 */
#include <errno.h>
#include <urcu/rculist.h>

#include "blockdev/bdev_internal.h"
#include "reactor/log.h"

struct removal_wait {
	struct bdev *bdev;
	uint64_t deadline_ns; /* absolute */
};

static int removal_run(void *arg);
static int removal_wait(void *arg);

static struct bdev *bdev_find_removing(struct bdev_registry *registry, const char *name)
{
	struct bdev *bdev;
	cds_list_for_each_entry(bdev, &registry->removing, removing_node)
		if (strcmp(bdev->limits.name, name) == 0)
			return bdev;
	return NULL;
}

MAY_WAIT int bdev_remove(struct bdev_registry *registry, const char *name, uint64_t deadline_ns)
{
	const uint64_t now = reactor_now_ns();
	struct removal_wait wait = {.deadline_ns = now + MIN(deadline_ns, UINT64_MAX - now)};
	pthread_mutex_lock(&registry->lock);
	struct bdev *bdev = bdev_find_locked(registry, name);
	const bool first = bdev != NULL;
	if (first) {
		cds_list_del_rcu(&bdev->node);
		cds_list_add(&bdev->removing_node, &registry->removing);
		bdev->removal.reactor = reactor_self();
		bdev->removal.deadline_ns = wait.deadline_ns;
		bdev->removal.closed = cds_list_empty(&bdev->descs) && bdev->channel_count == 0;
		bdev->removal.closed_sent = bdev->removal.closed;
		__atomic_store_n(&bdev->removed, true, __ATOMIC_RELEASE);
	} else {
		bdev = bdev_find_removing(registry, name);
	}
	if (bdev != NULL)
		bdev->removal.users++;
	pthread_mutex_unlock(&registry->lock);
	if (bdev == NULL)
		return 0;
	wait.bdev = bdev;
	return first ? removal_run(&wait) : reactor_call(bdev->removal.reactor, removal_wait, &wait);
}

/* ---- on the removal's reactor ---- */

/* The last look of a fiber at the bdev. */
static void removal_unuse(struct bdev *bdev)
{
	struct bdev_registry *registry = bdev->registry;
	pthread_mutex_lock(&registry->lock);
	bdev->removal.users--;
	const bool last = bdev->removal.users == 0 && bdev->removal.finished;
	pthread_mutex_unlock(&registry->lock);
	if (last)
		bdev_free(bdev);
}

/* Ends the removal once everything has happened; needs a user, so that the bdev outlives the call. */
static void removal_try_finish(struct bdev *bdev)
{
	struct bdev_removal *removal = &bdev->removal;
	if (removal->finished || !removal->released || !removal->quiesced || !removal->closed)
		return;
	pthread_mutex_lock(&bdev->registry->lock);
	cds_list_del(&bdev->removing_node);
	removal->finished = true;
	pthread_mutex_unlock(&bdev->registry->lock);
	if (bdev->module->destroy != NULL)
		bdev->module->destroy(bdev);
	fiber_cond_broadcast(&removal->changed);
}

/* A message has changed something. */
static void removal_changed(struct bdev *bdev)
{
	pthread_mutex_lock(&bdev->registry->lock);
	bdev->removal.users++;
	pthread_mutex_unlock(&bdev->registry->lock);
	removal_try_finish(bdev);
	fiber_cond_broadcast(&bdev->removal.changed);
	removal_unuse(bdev);
}

static void removal_quiesced_arrived(struct message *message)
{
	struct bdev *bdev = CONTAINER_OF(message, struct bdev, removal.quiesced_message);
	bdev->removal.quiesced = true;
	removal_changed(bdev);
}

static void removal_closed_arrived(struct message *message)
{
	struct bdev *bdev = CONTAINER_OF(message, struct bdev, removal.closed_message);
	bdev->removal.closed = true;
	removal_changed(bdev);
}

void bdev_quiesced(struct bdev *bdev)
{
	bdev->removal.quiesced_message.fn = removal_quiesced_arrived;
	if (reactor_self() == bdev->removal.reactor)
		removal_quiesced_arrived(&bdev->removal.quiesced_message);
	else
		message_post(bdev->removal.reactor, &bdev->removal.quiesced_message);
}

void removal_reference_gone(struct bdev *bdev)
{
	struct bdev_removal *removal = &bdev->removal;
	if (!bdev->removed || removal->closed_sent || !cds_list_empty(&bdev->descs) || bdev->channel_count != 0)
		return;
	removal->closed_sent = true;
	removal->closed_message.fn = removal_closed_arrived;
	message_post(removal->reactor, &removal->closed_message);
}

/* True: the deadline has passed. */
MAY_WAIT static bool removal_wait_change(struct bdev *bdev, uint64_t deadline_ns)
{
	const uint64_t now = reactor_now_ns();
	if (now >= deadline_ns)
		return true;
	return !fiber_cond_wait_for(&bdev->removal.changed, deadline_ns - now, "removal of a block device");
}

static void removal_report(struct bdev *bdev)
{
	struct bdev_desc *desc;
	pthread_mutex_lock(&bdev->registry->lock);
	cds_list_for_each_entry(desc, &bdev->descs, node)
		log_error("%s: removed, but %s did not close it in time", bdev->limits.name, desc->label);
	if (cds_list_empty(&bdev->descs) && bdev->channel_count != 0)
		log_error("%s: removed, but %u channels were not closed in time", bdev->limits.name,
			bdev->channel_count);
	pthread_mutex_unlock(&bdev->registry->lock);
	if (!bdev->removal.quiesced)
		log_error("%s: removed, but I/O in flight did not end in time", bdev->limits.name);
}

static bool sweep_fail_queued(struct bdev *bdev, struct bdev_channel *channel)
{
	io_fail_queued(channel, -ENODEV);
	return true;
}

static void sweep_queued_done(struct bdev *bdev)
{
	bdev->removal.swept = true;
	fiber_cond_broadcast(&bdev->removal.changed);
}

static void sweep_start(struct bdev *bdev);

MAY_WAIT static int removal_run(void *arg)
{
	const struct removal_wait *wait = arg;
	struct bdev *bdev = wait->bdev;
	struct bdev_removal *removal = &bdev->removal;

	removal->visit = sweep_fail_queued;
	removal->sweep_done = sweep_queued_done;
	sweep_start(bdev);
	while (!removal->swept)
		fiber_cond_wait(&removal->changed, "removal of a block device: every reactor's answer");
	bdev_post_event(bdev, BDEV_EVENT_REMOVED);
	bdev->module->quiesce(bdev);

	while (!removal->quiesced || !removal->closed) {
		if (removal_wait_change(bdev, wait->deadline_ns)) {
			removal_report(bdev);
			break;
		}
	}
	if (bdev->module->release != NULL)
		bdev->module->release(bdev);
	removal->released = true;
	removal_try_finish(bdev);
	const int result = removal->finished ? 0 : -ETIMEDOUT;
	removal_unuse(bdev);
	return result;
}

MAY_WAIT static int removal_wait(void *arg)
{
	const struct removal_wait *wait = arg;
	struct bdev *bdev = wait->bdev;
	bool late = false;
	while (!bdev->removal.finished && !late)
		late = removal_wait_change(bdev, wait->deadline_ns);
	const int result = bdev->removal.finished ? 0 : -ETIMEDOUT;
	removal_unuse(bdev);
	return result;
}

/* ---- walking over all channels ---- */

/* Back on the removal's reactor. The items are used again only when all have answered. */
static void sweep_answered(struct message *message)
{
	struct sweep_item *item = CONTAINER_OF(message, struct sweep_item, message);
	struct bdev *bdev = item->bdev;
	if (--bdev->removal.sweep_pending == 0)
		bdev->removal.sweep_done(bdev);
}

void sweep_answer(struct bdev *bdev)
{
	struct sweep_item *item = &bdev->sweep[reactor_index(reactor_self())];
	item->message.fn = sweep_answered;
	reactor_send(bdev->removal.reactor, &item->message);
}

static void sweep_visit(struct message *message)
{
	struct sweep_item *item = CONTAINER_OF(message, struct sweep_item, message);
	struct bdev *bdev = item->bdev;
	struct bdev_channel *channel = bdev->channels[item->index];
	if (channel == NULL || bdev->removal.visit(bdev, channel))
		sweep_answer(bdev);
}

static void sweep_start(struct bdev *bdev)
{
	const unsigned count = bdev->registry->home_count;
	bdev->removal.sweep_pending = count;
	for (unsigned i = 0; i < count; i++) {
		bdev->sweep[i] = (struct sweep_item){.bdev = bdev, .index = i, .message.fn = sweep_visit};
		reactor_send(bdev->registry->homes[i].reactor, &bdev->sweep[i].message);
	}
}

/* Answers at once when nothing is outstanding, otherwise channel_returned does. */
static bool sweep_drain(struct bdev *bdev, struct bdev_channel *channel)
{
	if (bdev->removal.fail != NULL)
		bdev->removal.fail(bdev, channel->state);
	channel->draining = channel->outstanding_count != 0;
	return !channel->draining;
}

void bdev_drain(struct bdev *bdev, void (*fail)(struct bdev *bdev, void *channel_state))
{
	bdev->removal.fail = fail;
	bdev->removal.visit = sweep_drain;
	bdev->removal.sweep_done = bdev_quiesced;
	sweep_start(bdev);
}
