/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Devices coming and going. One fiber at a time changes a device (`busy`): whoever creates, detaches, reattaches it, or
 * the handler, a fiber that is started when the controller reports something and ends when all of it is done.
 *
 *                 create                    lost, detached (NVME_HOLD)
 *   (nothing) -------------> ATTACHED ------------------------------------> HELD
 *                              |  ^                                          |  |
 *                              |  +------------------ reattach --------------+  | give up
 *                              | lost, detached (NVME_REMOVE); last bdev removed  |
 *                              +---------------------> REMOVED <----------------+
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme_internal.h"
#include "reactor/log.h"

/* ---- one at a time ---- */

MAY_WAIT void nvme_device_lock(struct nvme_device *device)
{
	while (device->busy)
		fiber_cond_wait(&device->changed, "another change of the device");
	device->busy = true;
}

void nvme_device_unlock(struct nvme_device *device)
{
	device->busy = false;
	fiber_cond_broadcast(&device->changed);
}

void nvme_device_tell(struct nvme_device *device, enum nvme_device_event event)
{
	if (device->options.event)
		device->options.event(event, device->options.arg);
}

void nvme_device_put(struct nvme_device *device)
{
	if (atomic_fetch_sub(&device->users, 1) == 1)
		free(device);
}

/* ---- what the controller reports ---- */

static void controller_event(struct nvme_ctrlr *ctrlr, enum nvme_event event, uint32_t nsid, void *arg);

MAY_WAIT int nvme_device_attach(struct nvme_device *device, const struct nvme_place *place, struct emu_drive **drive,
	struct nvme_ctrlr **out, char *message, size_t message_size)
{
	struct nvme_transport *transport;
	const struct nvme_ctrlr_options options = {
		.group = reactor_group_of(device->home),
		.io_timeout_ns = device->options.io_timeout_ns,
		.admin_timeout_ns = device->options.admin_timeout_ns,
		.write_cache_off = device->options.policy == NVME_HOLD,
		.event = controller_event,
		.arg = device,
	};
	int err = nvme_place_open(device->registry, place, device->options.read_only, drive, &transport, message, message_size);
	if (!err)
		err = nvme_ctrlr_attach(transport, &options, out, message, message_size);
	return err;
}

/* The controller goes, orderly or as a matter of record, all within @deadline_ns. -ETIMEDOUT: the kernel still has it. */
static MAY_WAIT int controller_release(struct nvme_device *device, uint64_t deadline_ns)
{
	struct nvme_ctrlr *ctrlr = device->ctrlr;
	if (!ctrlr)
		return 0;
	const uint64_t begun_ns = reactor_now_ns();
	nvme_ctrlr_stop(ctrlr, MIN(deadline_ns, STOP_DEADLINE_S * NS_PER_SEC));
	nvme_lanes_set(device, NULL);
	device->ctrlr = NULL;
	const uint64_t left_ns = deadline_ns - MIN(reactor_now_ns() - begun_ns, deadline_ns);
	const int err = nvme_ctrlr_destroy(ctrlr, MIN(left_ns, RELEASE_DEADLINE_S * NS_PER_SEC));
	/* It spoke of that one. */
	device->gone_pending = device->requested_pending = device->namespaces_pending = false;
	return err;
}

MAY_WAIT void nvme_drive_replace(struct nvme_device *device, struct emu_drive *drive)
{
	struct emu_drive *old = device->drive;
	device->drive = drive;
	if (old)
		emu_drive_destroy(old);
}

/* ---- ends ---- */

/* A bdev goes the one way. The device must not be locked: release comes back to it. */
static MAY_WAIT void ns_remove(struct nvme_ns *ns)
{
	struct bdev_registry *registry = ns->device->registry;
	char name[sizeof(ns->name)];
	snprintf(name, sizeof(name), "%s", ns->name);
	cds_list_del(&ns->node);
	CDS_INIT_LIST_HEAD(&ns->node);
	if (bdev_remove(registry, name, REMOVE_DEADLINE_S * NS_PER_SEC) != 0)
		log_warn("%s: still in use after its removal", name);
}

static MAY_WAIT void remove_bdevs(struct nvme_device *device)
{
	while (!cds_list_empty(&device->namespaces))
		ns_remove(cds_list_first_entry(&device->namespaces, struct nvme_ns, node));
}

/* With the device locked: the controller is gone or detached. */
static MAY_WAIT void device_left(struct nvme_device *device)
{
	if (device->options.policy == NVME_HOLD && atomic_load(&device->holds)) {
		device->state = NVME_DEVICE_HELD;
		log_debug("%s: the device is gone; I/O waits for its return", device->target);
		nvme_device_tell(device, NVME_DEVICE_NOW_HELD);
		nvme_device_unlock(device);
		return;
	}
	device->state = NVME_DEVICE_REMOVED;
	nvme_device_tell(device, NVME_DEVICE_GONE);
	nvme_device_unlock(device);
	remove_bdevs(device);
}

static MAY_WAIT int release_at_home(void *arg)
{
	struct nvme_ns *ns = arg;
	struct nvme_device *device = ns->device;
	const bool last = --device->bdev_count == 0;
	if (last) {
		/* What is still on its way after the deadline of a removal is answered, not held; and nobody joins any more. */
		atomic_store(&device->holds, false);
		device->state = NVME_DEVICE_REMOVED;
	}
	nvme_device_lock(device);
	cds_list_del(&ns->node);
	CDS_INIT_LIST_HEAD(&ns->node);
	if (!last) {
		nvme_device_unlock(device);
		return 0;
	}
	const int err = controller_release(device, (STOP_DEADLINE_S + RELEASE_DEADLINE_S) * NS_PER_SEC);
	if (err)
		log_debug("%s: %s", device->target, strerror(-err));
	nvme_drive_replace(device, NULL);
	nvme_device_unlock(device);
	return 0;
}

MAY_WAIT void nvme_device_release_bdev(struct bdev *bdev)
{
	struct nvme_ns *ns = bdev_private(bdev);
	reactor_call(ns->device->home, release_at_home, ns);
}

MAY_WAIT int nvme_device_detach(struct nvme_device *device, uint64_t deadline_ns)
{
	atomic_fetch_add(&device->users, 1);
	nvme_device_lock(device);
	int err = -ENODEV;
	if (device->ctrlr) {
		err = controller_release(device, deadline_ns);
		device_left(device);
	} else {
		nvme_device_unlock(device);
	}
	nvme_device_put(device);
	return err;
}

static MAY_WAIT void lost_locked(struct nvme_device *device)
{
	const int err = controller_release(device, (STOP_DEADLINE_S + RELEASE_DEADLINE_S) * NS_PER_SEC);
	if (err)
		log_debug("%s: %s", device->target, strerror(-err));
	device_left(device);
}

/* An emulated drive is gone when it has been pulled out: until then it would go on writing to memory that is no longer
 * its own. */
MAY_WAIT void nvme_device_lost(struct nvme_device *device)
{
	const unsigned attachment = device->attachments; /* the news is of this one, whoever has come by the time that we are asked */
	const bool there = device->ctrlr != NULL;
	atomic_fetch_add(&device->users, 1);
	nvme_device_lock(device);
	if (there && device->ctrlr && device->attachments == attachment) {
		if (device->drive)
			emu_drive_pull(device->drive);
		nvme_ctrlr_lost(device->ctrlr);
		lost_locked(device);
	} else {
		nvme_device_unlock(device);
	}
	nvme_device_put(device);
}

MAY_WAIT void nvme_device_give_up(struct nvme_device *device)
{
	atomic_fetch_add(&device->users, 1);
	nvme_device_lock(device);
	if (device->state == NVME_DEVICE_HELD) {
		atomic_store(&device->holds, false);
		device_left(device);
	} else { /* it is back, and holds the next time as well */
		nvme_device_unlock(device);
	}
	nvme_device_put(device);
}

/* ---- the handler ---- */

/* Why its bdev can go on no longer; NULL: it can. */
static const char *ns_unusable(const struct nvme_ns *ns, const struct nvme_ns_info *info)
{
	if (!info)
		return "the namespace is gone";
	if (info->block_size != ns->block_size || info->block_count < ns->block_count)
		return "shrank, or changed its block size: not used any more";
	return info->refused;
}

/* The list changes while a bdev is removed, so each removal ends the look and asks for another. */
static MAY_WAIT void handle_namespaces(struct nvme_device *device)
{
	struct nvme_ns *ns;
	if (!device->ctrlr)
		return; /* the next one is looked at when it comes */
	cds_list_for_each_entry(ns, &device->namespaces, node) {
		const struct nvme_ns_info *info = nvme_ctrlr_ns(device->ctrlr, ns->nsid);
		const char *why = ns_unusable(ns, info);
		if (why) {
			log_error("%s: %s", ns->name, why);
			device->namespaces_pending = true;
			nvme_device_unlock(device);
			ns_remove(ns);
			nvme_device_lock(device);
			return;
		}
		if (info->block_count == ns->block_count)
			continue;
		log_info("%s: grew from %llu to %llu blocks", ns->name, (unsigned long long)ns->block_count,
			(unsigned long long)info->block_count);
		ns->block_count = info->block_count;
		bdev_resized(ns->bdev, info->block_count);
	}
}

static MAY_WAIT void handler_main(void *arg)
{
	struct nvme_device *device = arg;
	nvme_device_lock(device);
	for (;;) {
		if (device->requested_pending) {
			device->requested_pending = false;
			nvme_device_tell(device, NVME_DEVICE_REQUESTED);
		} else if (device->health_pending) {
			device->health_pending = false;
			nvme_device_tell(device, NVME_DEVICE_HEALTH);
		} else if (device->namespaces_pending) {
			device->namespaces_pending = false;
			handle_namespaces(device);
		} else if (device->gone_pending) {
			device->gone_pending = false;
			if (device->ctrlr) {
				lost_locked(device);
				nvme_device_lock(device);
			}
		} else {
			break;
		}
	}
	device->handling = false;
	nvme_device_unlock(device);
	nvme_device_put(device);
}

static void handler_start(struct nvme_device *device)
{
	if (device->handling)
		return;
	device->handling = true;
	atomic_fetch_add(&device->users, 1);
	device->handler = (struct fiber_start){.fn = handler_main, .arg = device, .name = "nvme device"};
	fiber_start(&device->handler);
}

void nvme_device_look(struct nvme_device *device)
{
	device->namespaces_pending = true;
	handler_start(device);
}

static void controller_event(struct nvme_ctrlr *ctrlr, enum nvme_event event, uint32_t nsid, void *arg)
{
	struct nvme_device *device = arg;
	device->gone_pending |= event == NVME_EVENT_GONE;
	device->requested_pending |= event == NVME_EVENT_REQUESTED;
	device->health_pending |= event == NVME_EVENT_HEALTH;
	device->namespaces_pending |= event == NVME_EVENT_NS_REMOVED || event == NVME_EVENT_NS_RESIZED;
	if (event == NVME_EVENT_NS_ADDED)
		log_info("%s: namespace %u is new: mount it as %s%s%u", device->target, nsid,
			device->place.emu ? device->target : nvme_ctrlr_name(ctrlr), device->place.emu ? ",ns=" : "/", nsid);
	if (event != NVME_EVENT_NS_ADDED)
		handler_start(device);
}

/* ---- creating ---- */

static const struct nvme_ns_info *namespace_choose(struct nvme_device *device, uint32_t nsid, char *message, size_t message_size)
{
	const struct nvme_ns_info *first = NULL;
	for (unsigned i = 0; i < nvme_ctrlr_ns_count(device->ctrlr); i++) {
		const struct nvme_ns_info *ns = nvme_ctrlr_ns_at(device->ctrlr, i);
		if (nsid ? ns->nsid == nsid : !ns->refused)
			return ns;
		first = first ? first : ns;
	}
	if (nsid)
		snprintf(message, message_size, "%s: has no namespace %u (it has %u, from %u on)", device->target, nsid,
			nvme_ctrlr_ns_count(device->ctrlr), first ? first->nsid : 0);
	else if (first)
		return first; /* refused, which the caller says */
	else
		snprintf(message, message_size, "%s: has no active namespace; create one with: nvme create-ns, nvme attach-ns",
			device->target);
	return NULL;
}

/* Registers the namespace that the place names. */
static int bdev_create(struct nvme_device *device, const struct nvme_place *place, char *name, size_t name_size, char *message,
	size_t message_size)
{
	const struct nvme_ns_info *ns = namespace_choose(device, place->nsid, message, message_size);
	if (!ns)
		return -ENODEV;
	if (ns->refused) {
		snprintf(message, message_size, "%s: namespace %u %s", device->target, ns->nsid, ns->refused);
		return -EOPNOTSUPP;
	}
	struct nvme_ns *other;
	cds_list_for_each_entry(other, &device->namespaces, node)
		if (other->nsid == ns->nsid) { /* whatever it is called */
			snprintf(message, message_size, "%s: already open in this process", other->name);
			return -EEXIST;
		}
	const bool plain = place->emu && nvme_ctrlr_ns_count(device->ctrlr) == 1;
	char registry_name[sizeof(((struct nvme_ns *)NULL)->name)];
	snprintf(registry_name, sizeof(registry_name), plain ? "%.100s" : "%.100s/%u", device->target, ns->nsid);
	const int err = nvme_ns_register(device, ns, registry_name);
	if (err)
		snprintf(message, message_size, "%s: %s", registry_name, err == -EEXIST ? "already open in this process" :
			strerror(-err));
	else
		snprintf(name, name_size, "%s", registry_name);
	return err;
}

/* Another bdev of a device that is there. */
static MAY_WAIT int device_join(struct nvme_device *device, const struct nvme_place *place, char *name, size_t name_size,
	char *message, size_t message_size)
{
	int err = -EBUSY;
	assert(device->home == reactor_self());
	atomic_fetch_add(&device->users, 1);
	nvme_device_lock(device);
	if (device->state == NVME_DEVICE_HELD)
		snprintf(message, message_size, "%s: is away, and waited for: attach it first, or end the wait", device->target);
	else if (device->state == NVME_DEVICE_REMOVED || !device->ctrlr)
		snprintf(message, message_size, "%s: is being removed; try again when that is over", device->target);
	else
		err = bdev_create(device, place, name, name_size, message, message_size);
	nvme_device_unlock(device);
	nvme_device_put(device);
	return err;
}

/* What is used while it is looked for. */
struct device_search {
	const struct nvme_place *place;
	struct nvme_device *found;
};

static void device_match(struct bdev *bdev, void *arg)
{
	struct device_search *search = arg;
	if (bdev_module_of(bdev) != &nvme_module)
		return;
	const struct nvme_ns *ns = bdev_private(bdev);
	if (nvme_place_equal(&ns->device->place, search->place))
		search->found = ns->device;
}

static struct nvme_device *device_new(struct bdev_registry *registry, const struct nvme_place *place,
	const struct nvme_device_options *options)
{
	struct nvme_device *device = calloc(1, sizeof(*device));
	if (!device)
		return NULL;
	device->registry = registry;
	device->home = reactor_self();
	device->place = *place;
	device->options = *options;
	atomic_init(&device->users, 1);
	atomic_init(&device->holds, options->policy == NVME_HOLD);
	fiber_cond_init(&device->changed);
	CDS_INIT_LIST_HEAD(&device->namespaces);
	/* Of a long path the end tells more than the beginning. */
	const char *path = place->emu ? place->path : place->address;
	const size_t length = strlen(path), room = 96;
	snprintf(device->target, sizeof(device->target), "%s%.96s", place->emu ? "emu:" : "", path + (length > room ? length - room : 0));
	for (unsigned i = 0; i < REACTOR_COUNT_MAX; i++) {
		device->lanes[i].device = device;
		CDS_INIT_LIST_HEAD(&device->lanes[i].held);
	}
	return device;
}

static MAY_WAIT int device_start(struct nvme_device *device, char *name, size_t name_size, char *message, size_t message_size)
{
	int err = nvme_device_attach(device, &device->place, &device->drive, &device->ctrlr, message, message_size);
	if (err)
		return err;
	const struct nvme_ctrlr_info *info = nvme_ctrlr_get_info(device->ctrlr);
	device->write_fua = device->options.policy == NVME_HOLD && info->cache_on;
	device->attachments++;
	nvme_lanes_set(device, device->ctrlr);
	return bdev_create(device, &device->place, name, name_size, message, message_size);
}

static MAY_WAIT int create_at(struct bdev_registry *registry, const struct nvme_place *place,
	const struct nvme_device_options *options, char *name, size_t name_size, char *message, size_t message_size)
{
	struct device_search search = {.place = place};
	bdev_for_each(registry, device_match, &search);
	if (search.found)
		return device_join(search.found, place, name, name_size, message, message_size);
	struct nvme_device *device = device_new(registry, place, options);
	if (!device)
		return -ENOMEM;
	device->busy = true;
	const int err = device_start(device, name, name_size, message, message_size);
	if (err) {
		atomic_store(&device->holds, false);
		const int released = controller_release(device, RELEASE_DEADLINE_S * NS_PER_SEC);
		if (released)
			log_debug("%s: %s", device->target, strerror(-released));
		nvme_drive_replace(device, NULL);
	}
	nvme_device_unlock(device);
	nvme_device_put(device); /* the bdevs keep it */
	return err;
}

MAY_WAIT int nvme_device_create(struct bdev_registry *registry, const char *target, const struct nvme_device_options *options,
	char *name, size_t name_size, char *message, size_t message_size)
{
	struct nvme_place *place = calloc(1, sizeof(*place));
	message[0] = '\0';
	int err = place ? nvme_place_parse(target, place, message, message_size) : -ENOMEM;
	if (!err)
		err = create_at(registry, place, options, name, name_size, message, message_size);
	if (err && !message[0])
		snprintf(message, message_size, "%s: %s", target, strerror(-err));
	free(place);
	return err;
}

/* ---- asking ---- */

struct nvme_device *nvme_device_of(struct bdev_registry *registry, const char *bdev_name)
{
	struct bdev *bdev = bdev_find(registry, bdev_name);
	return bdev && bdev_module_of(bdev) == &nvme_module ? ((struct nvme_ns *)bdev_private(bdev))->device : NULL;
}

uint32_t nvme_device_nsid(struct bdev_registry *registry, const char *bdev_name)
{
	struct bdev *bdev = bdev_find(registry, bdev_name);
	return bdev && bdev_module_of(bdev) == &nvme_module ? ((struct nvme_ns *)bdev_private(bdev))->nsid : 0;
}

const char *nvme_device_target(const struct nvme_device *device) { return device->target; }

enum nvme_device_state nvme_device_get_state(const struct nvme_device *device)
{
	const bool resetting = device->state == NVME_DEVICE_ATTACHED && device->ctrlr && nvme_ctrlr_resetting(device->ctrlr);
	return resetting ? NVME_DEVICE_RESETTING : device->state;
}

struct nvme_ctrlr *nvme_device_ctrlr(struct nvme_device *device) { return device->ctrlr; }
struct emu *nvme_device_emu(struct nvme_device *device) { return device->drive ? emu_drive_emu(device->drive) : NULL; }

MAY_WAIT int nvme_device_emu_pull(struct nvme_device *device)
{
	struct emu_drive *drive = device->drive;
	if (!drive)
		return -EOPNOTSUPP;
	atomic_fetch_add(&device->users, 1);
	emu_drive_pull(drive); /* at once, whatever is under way */
	nvme_device_lock(device);
	if (device->ctrlr && device->drive == drive && !emu_plugged(emu_drive_emu(drive))) {
		nvme_ctrlr_lost(device->ctrlr);
		lost_locked(device);
	} else {
		nvme_device_unlock(device);
	}
	nvme_device_put(device);
	return 0;
}
