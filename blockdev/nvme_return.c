/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A held device comes back: a controller is attached, looked at, accepted by the owner, and only then given to the lanes, which send what
 * they hold. Until then nothing has changed: a controller that is not the right one is let go, and the device stays held.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme_internal.h"
#include "reactor/log.h"

static MAY_WAIT int accept_controller(struct nvme_device *device, struct nvme_ctrlr *ctrlr, nvme_accept_fn accept, void *arg,
	char *message, size_t message_size)
{
	struct nvme_ns *ns;
	cds_list_for_each_entry(ns, &device->namespaces, node) {
		const struct nvme_ns_info *info = nvme_ctrlr_ns(ctrlr, ns->nsid);
		if (!info || info->refused || info->block_size != ns->block_size || info->block_count < ns->block_count) {
			snprintf(message, message_size, "%s: not the device that left: namespace %u is missing or of another size",
				nvme_ctrlr_name(ctrlr), ns->nsid);
			return -ESTALE;
		}
		struct nvme_direct_read direct = {.ctrlr = ctrlr, .ns = *info};
		const int err = accept ? accept(arg, nvme_read_direct, &direct, message, message_size) : 0;
		if (err)
			return err;
	}
	return 0;
}

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
		const bool cache_on = nvme_ctrlr_get_info(ctrlr)->cache_on;
		err = accept_controller(device, ctrlr, accept, arg, message, message_size);
		if (!err && nvme_ctrlr_gone(ctrlr))
			err = -ENODEV;
		if (!err) {
			if (elsewhere) {
				nvme_drive_replace(device, drive);
				const uint32_t nsid = device->place.nsid;
				device->place = *place;
				device->place.nsid = nsid;
			}
			device->write_fua = cache_on;
			device->ctrlr = ctrlr;
			device->attachments++;
			return 0;
		}
		nvme_ctrlr_stop(ctrlr, RELEASE_DEADLINE_S * NS_PER_SEC);
		const int released = nvme_ctrlr_destroy(ctrlr, RELEASE_DEADLINE_S * NS_PER_SEC);
		if (released)
			log_debug("%s: %s", device->target, strerror(-released));
		device->gone_pending = device->requested_pending = false;
	}
	if (elsewhere && drive)
		emu_drive_destroy(drive);
	return err;
}

MAY_WAIT int nvme_device_reattach(struct nvme_device *device, const char *target, nvme_accept_fn accept, void *arg,
	char *message, size_t message_size)
{
	struct nvme_place *place = calloc(1, sizeof(*place));
	message[0] = '\0';
	if (!place)
		return -ENOMEM;
	int err = 0;
	if (target)
		err = nvme_place_parse(target, place, message, message_size);
	else
		*place = device->place;
	atomic_fetch_add(&device->users, 1);
	nvme_device_lock(device);
	if (!err && device->state != NVME_DEVICE_HELD) {
		err = -EBUSY;
		snprintf(message, message_size, "%s: is not waiting for a device", device->target);
	}
	if (!err)
		err = reattach_at(device, place, accept, arg, message, message_size);
	if (!err) {
		device->state = NVME_DEVICE_ATTACHED;
		nvme_lanes_set(device, device->ctrlr);
		log_info("%s: the device is back; I/O goes on", device->target);
		nvme_device_tell(device, NVME_DEVICE_RESUMED);
	}
	nvme_device_unlock(device);
	nvme_device_put(device);
	free(place);
	if (err && !message[0])
		snprintf(message, message_size, "%s: %s", target ? target : "the device", strerror(-err));
	return err;
}
