/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The registry: bdevs by name, descriptors and their events.
 *
 * A bdev is published by bdev_register, found by readers of an RCU list, held by descriptors, and leaves through
 * removal.c only. Events travel as messages embedded in the descriptor, one per kind: an event that is raised again
 * before it was delivered is delivered once. A descriptor that is closed while an event is on its way is freed when the
 * event arrives.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <urcu/rculist.h>

#include "blockdev/bdev_internal.h"
#include "reactor/happens_before.h"
#include "reactor/log.h"

enum { GRACE_BYTES = 4096 }; /* more than liburcu takes for its thread */

int bdev_registry_create(struct reactor_group *group, struct bdev_registry **out)
{
	struct bdev_registry *registry = calloc(1, sizeof(*registry));
	if (registry == NULL)
		return -ENOMEM;
	registry->home_count = reactor_group_count(group);
	registry->homes = calloc(registry->home_count, sizeof(registry->homes[0]));
	if (registry->homes == NULL) {
		free(registry);
		return -ENOMEM;
	}
	registry->group = group;
	registry->context_bytes = CONTEXT_BYTES_MIN;
	pthread_mutex_init(&registry->lock, NULL);
	CDS_INIT_LIST_HEAD(&registry->published);
	CDS_INIT_LIST_HEAD(&registry->removing);
	for (unsigned i = 0; i < registry->home_count; i++)
		home_init(&registry->homes[i], registry, reactor_group_get(group, i));
	*out = registry;
	return 0;
}

/* liburcu ends the process when it is to start its thread and there is no memory. */
int bdev_registry_prepare(const struct bdev_registry *registry)
{
	if (reactor_group_simulated(registry->group))
		return 0; /* see bdev_free */
	void *volatile enough = malloc(GRACE_BYTES); /* volatile: or the compiler leaves both out */
	if (enough == NULL)
		return -ENOMEM;
	free(enough);
	get_default_call_rcu_data();
	return 0;
}

void bdev_registry_destroy(struct bdev_registry *registry)
{
	assert(cds_list_empty(&registry->published) && cds_list_empty(&registry->removing));
	for (unsigned i = 0; i < registry->home_count; i++)
		home_fini(&registry->homes[i]);
	pthread_mutex_destroy(&registry->lock);
	free(registry->homes);
	free(registry);
}

/* Nothing runs any more, so nothing is told. */
static void bdev_abandon(struct bdev *bdev)
{
	if (bdev->module->destroy != NULL && !bdev->removal.finished)
		bdev->module->destroy(bdev);
	for (unsigned i = 0; i < bdev->registry->home_count; i++)
		free(bdev->channels[i]);
	struct bdev_desc *desc, *next;
	cds_list_for_each_entry_safe(desc, next, &bdev->descs, node)
		free(desc);
	free(bdev->channels);
	free(bdev);
}

void bdev_registry_abandon(struct bdev_registry *registry)
{
	struct bdev *bdev, *next;
	cds_list_for_each_entry_safe(bdev, next, &registry->published, node)
		bdev_abandon(bdev);
	CDS_INIT_LIST_HEAD(&registry->published);
	cds_list_for_each_entry_safe(bdev, next, &registry->removing, removing_node)
		bdev_abandon(bdev);
	CDS_INIT_LIST_HEAD(&registry->removing);
	bdev_registry_destroy(registry);
}

bool bdev_registry_is_simulated(const struct bdev_registry *registry)
{
	return reactor_group_simulated(registry->group);
}

/* ---- bdevs ---- */

static int limits_check(struct bdev_limits *limits)
{
	const uint32_t block = limits->block_size;
	if (block < 512 || block > 4096 || (block & (block - 1)) != 0 || limits->block_count == 0)
		return -EINVAL;
	if (limits->block_count > UINT64_MAX / 2 / block || limits->stack_level > STACK_LEVEL_MAX)
		return -EINVAL;
	if ((limits->buffer_align & (limits->buffer_align - 1)) != 0 || limits->buffer_align > block)
		return -EINVAL;
	if (memchr(limits->name, '\0', sizeof(limits->name)) == NULL)
		return -EINVAL;
	const uint32_t bytes_max = 1u << 30;
	limits->atomic_write_blocks = MAX(limits->atomic_write_blocks, 1);
	limits->iov_count_max = limits->iov_count_max != 0 ? limits->iov_count_max : IOV_COUNT_DEFAULT;
	limits->io_bytes_max = limits->io_bytes_max != 0 ? limits->io_bytes_max & ~(block - 1) : bytes_max;
	limits->unmap_bytes_max = limits->unmap_bytes_max != 0 ? limits->unmap_bytes_max & ~(block - 1) : bytes_max;
	limits->write_zeroes_bytes_max =
		limits->write_zeroes_bytes_max != 0 ? limits->write_zeroes_bytes_max & ~(block - 1) : bytes_max;
	if (limits->io_bytes_max == 0 || limits->unmap_bytes_max == 0 || limits->write_zeroes_bytes_max == 0)
		return -EINVAL;
	return 0;
}

static struct bdev *bdev_alloc(struct bdev_registry *registry, const struct bdev_module *module,
	const struct bdev_limits *limits, void *private_data)
{
	struct bdev *bdev = calloc(1, sizeof(*bdev) + registry->home_count * sizeof(bdev->sweep[0]));
	if (bdev == NULL)
		return NULL;
	bdev->channels = calloc(registry->home_count, sizeof(bdev->channels[0]));
	if (bdev->channels == NULL) {
		free(bdev);
		return NULL;
	}
	bdev->registry = registry;
	bdev->module = module;
	bdev->private_data = private_data;
	bdev->limits = *limits;
	CDS_INIT_LIST_HEAD(&bdev->descs);
	fiber_cond_init(&bdev->removal.changed);
	return bdev;
}

int bdev_register(struct bdev_registry *registry, const struct bdev_module *module, const struct bdev_limits *limits,
	void *private_data, struct bdev **out)
{
	struct bdev_limits checked = *limits;
	const int err = limits_check(&checked);
	if (err != 0)
		return err;
	struct bdev *bdev = bdev_alloc(registry, module, &checked, private_data);
	if (bdev == NULL)
		return -ENOMEM;
	pthread_mutex_lock(&registry->lock);
	const bool taken = bdev_find_locked(registry, checked.name) != NULL;
	if (!taken) {
		const uint32_t context_bytes = align_up(module->context_bytes, 64);
		if (context_bytes > registry->context_bytes)
			__atomic_store_n(&registry->context_bytes, context_bytes, __ATOMIC_RELEASE);
		/* Before it can be found by anybody else. */
		*out = bdev;
		cds_list_add_tail_rcu(&bdev->node, &registry->published);
	}
	pthread_mutex_unlock(&registry->lock);
	if (!taken)
		return 0;
	free(bdev->channels);
	free(bdev);
	return -EEXIST;
}

static void bdev_free_rcu(struct rcu_head *head)
{
	struct bdev *bdev = CONTAINER_OF(head, struct bdev, rcu);
	happens_before_take(&happens_before_rcu);
	free(bdev->channels);
	free(bdev);
}

/* A simulated group is one thread, and a reader does not wait: there the grace period is over at once, which keeps
 * another thread out of the simulation. */
void bdev_free(struct bdev *bdev)
{
	assert(cds_list_empty(&bdev->descs) && bdev->channel_count == 0);
	if (reactor_group_simulated(bdev->registry->group))
		bdev_free_rcu(&bdev->rcu);
	else
		call_rcu(&bdev->rcu, bdev_free_rcu);
}

void *bdev_private(const struct bdev *bdev)
{
	return bdev->private_data;
}

const struct bdev_module *bdev_module_of(const struct bdev *bdev) { return bdev->module; }

const struct bdev_limits *bdev_get_limits(const struct bdev *bdev)
{
	return &bdev->limits;
}

struct bdev *bdev_find_locked(struct bdev_registry *registry, const char *name)
{
	struct bdev *bdev;
	cds_list_for_each_entry(bdev, &registry->published, node)
		if (strcmp(bdev->limits.name, name) == 0)
			return bdev;
	return NULL;
}

struct bdev *bdev_find(struct bdev_registry *registry, const char *name)
{
	struct bdev *bdev, *found = NULL;
	rcu_read_lock();
	cds_list_for_each_entry_rcu(bdev, &registry->published, node) {
		if (strcmp(bdev->limits.name, name) == 0) {
			found = bdev;
			break;
		}
	}
	rcu_read_unlock();
	return found;
}

void bdev_for_each(struct bdev_registry *registry, void (*fn)(struct bdev *bdev, void *arg), void *arg)
{
	struct bdev *bdev;
	rcu_read_lock();
	cds_list_for_each_entry_rcu(bdev, &registry->published, node)
		fn(bdev, arg);
	rcu_read_unlock();
}

/* ---- descriptors ---- */

static void desc_event_arrived(struct message *message);

static struct bdev_desc *desc_alloc(struct bdev_registry *registry, bool write, bdev_event_fn event, void *arg)
{
	struct bdev_desc *desc = calloc(1, sizeof(*desc));
	if (desc == NULL)
		return NULL;
	/* The control thread has no reactor; its events go to the first one. */
	desc->reactor = reactor_self() != NULL ? reactor_self() : reactor_group_get(registry->group, 0);
	desc->write = write;
	desc->event = event;
	desc->arg = arg;
	for (unsigned i = 0; i < BDEV_EVENT_COUNT; i++) {
		desc->events[i].desc = desc;
		desc->events[i].message.fn = desc_event_arrived;
	}
	snprintf(desc->label, sizeof(desc->label), "an opener on reactor %u", reactor_index(desc->reactor));
	return desc;
}

/* Other than @except; @claimed: only one that has claimed the bdev counts. */
static bool bdev_has_writer(const struct bdev *bdev, const struct bdev_desc *except, bool claimed)
{
	struct bdev_desc *desc;
	cds_list_for_each_entry(desc, &bdev->descs, node)
		if (desc != except && desc->write && (desc->claimed || !claimed))
			return true;
	return false;
}

MAY_WAIT int bdev_open(struct bdev_registry *registry, const char *name, bool write, bdev_event_fn event, void *arg,
	struct bdev_desc **out)
{
	struct bdev_desc *desc = desc_alloc(registry, write, event, arg);
	if (desc == NULL)
		return -ENOMEM;
	pthread_mutex_lock(&registry->lock);
	struct bdev *bdev = bdev_find_locked(registry, name);
	int err = bdev == NULL ? -ENODEV : write && bdev->limits.read_only ? -EROFS : 0;
	if (err == 0 && write && bdev_has_writer(bdev, NULL, true))
		err = -EBUSY;
	if (err == 0) {
		desc->bdev = bdev;
		cds_list_add_tail(&desc->node, &bdev->descs);
	}
	pthread_mutex_unlock(&registry->lock);
	if (err != 0)
		free(desc);
	else
		*out = desc;
	return err;
}

int bdev_desc_set_write(struct bdev_desc *desc, bool write)
{
	struct bdev_registry *registry = desc->bdev->registry;
	pthread_mutex_lock(&registry->lock);
	int err = write && desc->bdev->limits.read_only ? -EROFS : 0;
	if (err == 0 && write && bdev_has_writer(desc->bdev, desc, true))
		err = -EBUSY;
	if (err == 0)
		desc->write = write;
	pthread_mutex_unlock(&registry->lock);
	return err;
}

MAY_WAIT int bdev_set_read_only(struct bdev *bdev, bool read_only)
{
	if (bdev_is_removed(bdev))
		return -ENODEV;
	if (bdev->limits.read_only == read_only)
		return 0;
	const int err = bdev->module->set_read_only != NULL ? bdev->module->set_read_only(bdev, read_only) : 0;
	if (err == 0)
		__atomic_store_n(&bdev->limits.read_only, read_only, __ATOMIC_RELEASE);
	return err;
}

int bdev_claim(struct bdev_desc *desc)
{
	struct bdev_registry *registry = desc->bdev->registry;
	assert(desc->write);
	pthread_mutex_lock(&registry->lock);
	const bool busy = bdev_has_writer(desc->bdev, desc, false);
	if (!busy)
		desc->claimed = true;
	pthread_mutex_unlock(&registry->lock);
	return busy ? -EBUSY : 0;
}

static bool desc_has_event_in_flight(const struct bdev_desc *desc)
{
	for (unsigned i = 0; i < BDEV_EVENT_COUNT; i++)
		if (desc->events[i].in_flight)
			return true;
	return false;
}

MAY_WAIT void bdev_close(struct bdev_desc *desc)
{
	struct bdev *bdev = desc->bdev;
	struct bdev_registry *registry = bdev->registry;
	pthread_mutex_lock(&registry->lock);
	cds_list_del(&desc->node);
	desc->closed = true;
	desc->bdev = NULL;
	const bool idle = !desc_has_event_in_flight(desc);
	if (!idle)
		desc->arg = registry; /* whose mutex the last event needs */
	removal_reference_gone(bdev);
	pthread_mutex_unlock(&registry->lock);
	if (idle)
		free(desc);
}

struct bdev *bdev_desc_bdev(struct bdev_desc *desc)
{
	return desc->bdev;
}

void bdev_desc_set_label(struct bdev_desc *desc, const char *label)
{
	snprintf(desc->label, sizeof(desc->label), "%s", label);
}

/* ---- events ---- */

void message_post(struct reactor *to, struct message *message)
{
	if (reactor_self() != NULL)
		reactor_send(to, message);
	else
		reactor_send_foreign(to, message);
}

/* Closing happens on this reactor too, so closed cannot change meanwhile; in_flight can. */
static void desc_event_arrived(struct message *message)
{
	struct bdev_desc_event *event = CONTAINER_OF(message, struct bdev_desc_event, message);
	struct bdev_desc *desc = event->desc;
	struct bdev_registry *registry = desc->closed ? desc->arg : desc->bdev->registry;
	pthread_mutex_lock(&registry->lock);
	event->in_flight = false;
	const bool closed = desc->closed;
	const bool unused = closed && !desc_has_event_in_flight(desc);
	pthread_mutex_unlock(&registry->lock);
	if (unused)
		free(desc);
	else if (!closed && desc->event != NULL)
		desc->event((enum bdev_event)(event - desc->events), desc, desc->arg);
}

void bdev_post_event(struct bdev *bdev, enum bdev_event event)
{
	struct bdev_desc *desc;
	pthread_mutex_lock(&bdev->registry->lock);
	cds_list_for_each_entry(desc, &bdev->descs, node) {
		if (desc->events[event].in_flight)
			continue;
		desc->events[event].in_flight = true;
		message_post(desc->reactor, &desc->events[event].message);
	}
	pthread_mutex_unlock(&bdev->registry->lock);
}

void bdev_resized(struct bdev *bdev, uint64_t block_count)
{
	__atomic_store_n(&bdev->limits.block_count, block_count, __ATOMIC_RELAXED);
	bdev_post_event(bdev, BDEV_EVENT_RESIZED);
}

int bdev_rescan(struct bdev *bdev) { return bdev->module->rescan != NULL ? bdev->module->rescan(bdev) : 0; }

void bdev_media_error(struct bdev *bdev, uint64_t offset)
{
	log_error("%s: the medium has an error at byte %llu", bdev->limits.name, (unsigned long long)offset);
	bdev_post_event(bdev, BDEV_EVENT_MEDIA_ERROR);
}
