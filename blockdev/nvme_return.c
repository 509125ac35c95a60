/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A held device comes back: a controller is attached, looked at, accepted by the owner, and only then given to the lanes,
 * which send what they hold. Until then nothing has changed: a controller that is not the right one is let go, and the
 * device stays held.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme_internal.h"
#include "reactor/log.h"

/* What openers have been told of a bdev stays true: a namespace may be larger, and able to do more, but nothing else. */
static int check_namespace(struct nvme_device *device, struct nvme_ctrlr *ctrlr, const struct nvme_ns *ns,
	const struct nvme_ns_info *info, char *message, size_t message_size)
{
	const struct bdev_limits *had = bdev_get_limits(ns->bdev);
	char what[128];
	if (!info) {
		snprintf(what, sizeof(what), "is missing");
	} else if (info->refused) {
		snprintf(what, sizeof(what), "%s", info->refused);
	} else if (info->block_size != ns->block_size) {
		snprintf(what, sizeof(what), "has blocks of %u bytes instead of %u", info->block_size, ns->block_size);
	} else if (info->block_count < ns->block_count) {
		snprintf(what, sizeof(what), "is smaller: %llu blocks instead of %llu", (unsigned long long)info->block_count,
			(unsigned long long)ns->block_count);
	} else {
		const struct bdev_limits now = nvme_ns_limits(device, ctrlr, info);
		if (now.io_bytes_max >= had->io_bytes_max && !(had->ops & ~now.ops) && now.unmap_reads_zero >= had->unmap_reads_zero &&
			now.atomic_write_blocks >= had->atomic_write_blocks && now.read_only <= had->read_only)
			return 0;
		if (now.io_bytes_max < had->io_bytes_max)
			snprintf(what, sizeof(what), "takes %u bytes at once instead of %u", now.io_bytes_max, had->io_bytes_max);
		else
			snprintf(what, sizeof(what), "cannot do everything that it could");
	}
	snprintf(message, message_size, "%s: not the device that left: namespace %u %s; attach the one that left, or end the wait",
		nvme_ctrlr_name(ctrlr), ns->nsid, what);
	return -ESTALE;
}

static MAY_WAIT int accept_controller(struct nvme_device *device, struct nvme_ctrlr *ctrlr, nvme_accept_fn accept, void *arg,
	char *message, size_t message_size)
{
	struct nvme_ns *ns;
	int err = 0;
	cds_list_for_each_entry(ns, &device->namespaces, node) {
		const struct nvme_ns_info *info = nvme_ctrlr_ns(ctrlr, ns->nsid);
		err = check_namespace(device, ctrlr, ns, info, message, message_size);
		if (err)
			break;
		struct nvme_direct_read direct = {.ctrlr = ctrlr, .ns = *info};
		err = accept ? accept(arg, nvme_read_direct, &direct, message, message_size) : 0;
		if (err)
			break;
	}
	if (!err && nvme_ctrlr_gone(ctrlr)) {
		snprintf(message, message_size, "%s: has left again; attach it once more", nvme_ctrlr_name(ctrlr));
		err = -ENODEV;
	}
	return err;
}

static MAY_WAIT void let_go(struct nvme_device *device, struct nvme_ctrlr *ctrlr)
{
	nvme_ctrlr_stop(ctrlr, RELEASE_DEADLINE_S * NS_PER_SEC);
	const int err = nvme_ctrlr_destroy(ctrlr, RELEASE_DEADLINE_S * NS_PER_SEC);
	if (err)
		log_debug("%s: %s", device->target, strerror(-err));
	device->gone_pending = device->requested_pending = device->namespaces_pending = false;
}

/* Sets device->ctrlr, or changes nothing. */
static MAY_WAIT int reattach_at(struct nvme_device *device, const struct nvme_place *place, nvme_accept_fn accept, void *arg,
	char *message, size_t message_size)
{
	struct nvme_ctrlr *ctrlr;
	const bool elsewhere = !nvme_place_equal(place, &device->place);
	struct emu_drive *drive = elsewhere ? NULL : device->drive;
	int err = nvme_device_attach(device, place, &drive, &ctrlr, message, message_size);
	if (!elsewhere)
		device->drive = drive;
	if (!err) {
		err = accept_controller(device, ctrlr, accept, arg, message, message_size);
		if (err)
			let_go(device, ctrlr);
	}
	if (err) {
		if (elsewhere && drive)
			emu_drive_destroy(drive);
		return err;
	}
	if (elsewhere) {
		nvme_drive_replace(device, drive);
		const uint32_t nsid = device->place.nsid;
		device->place = *place;
		device->place.nsid = nsid;
	}
	device->write_fua = nvme_ctrlr_get_info(ctrlr)->cache_on;
	device->ctrlr = ctrlr;
	device->attachments++;
	return 0;
}

/* With the device locked. */
static MAY_WAIT int reattach(struct nvme_device *device, const char *target, struct nvme_place *place, nvme_accept_fn accept,
	void *arg, char *message, size_t message_size)
{
	if (device->state != NVME_DEVICE_HELD) {
		snprintf(message, message_size, "%s: is not waiting for a device: %s", device->target,
			device->state == NVME_DEVICE_REMOVED ? "it is being removed" : "it has its own");
		return -EBUSY;
	}
	if (!target)
		*place = device->place;
	const int err = reattach_at(device, place, accept, arg, message, message_size);
	if (err)
		return err;
	if (device->state != NVME_DEVICE_HELD) { /* whoever released the last bdev waits for us, to let all of it go */
		snprintf(message, message_size, "%s: not waited for any longer: its block devices were removed meanwhile", device->target);
		return -ENODEV;
	}
	device->state = NVME_DEVICE_ATTACHED;
	nvme_lanes_set(device, device->ctrlr);
	log_debug("%s: the device is back; I/O goes on", device->target);
	nvme_device_tell(device, NVME_DEVICE_RESUMED);
	nvme_device_look(device); /* a namespace may have grown */
	return 0;
}

MAY_WAIT int nvme_device_reattach(struct nvme_device *device, const char *target, nvme_accept_fn accept, void *arg,
	char *message, size_t message_size)
{
	struct nvme_place *place = calloc(1, sizeof(*place));
	message[0] = '\0';
	int err = place ? 0 : -ENOMEM;
	if (!err && target)
		err = nvme_place_parse(target, place, message, message_size);
	atomic_fetch_add(&device->users, 1);
	if (!err) {
		nvme_device_lock(device);
		err = reattach(device, target, place, accept, arg, message, message_size);
		nvme_device_unlock(device);
	}
	if (err && !message[0])
		snprintf(message, message_size, "%s: %s", target ? target : device->target, strerror(-err));
	nvme_device_put(device);
	free(place);
	return err;
}
