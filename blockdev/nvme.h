/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The nvme module: a bdev per namespace of a controller that our own driver runs, over PCI or emulated.
 *
 * A *device* is what a target names: the place where a controller sits ("0000:5e:00.0", "emu:/image").
 * bdev_target_create attaches the controller and makes the bdevs; the device goes when its last bdev has been removed.
 * All calls are for fibers of the device's home reactor, the one that created it, and may wait.
 *
 * When the controller leaves, what happens is the policy of the device:
 *   NVME_REMOVE  outstanding I/O is answered -ENODEV, the bdevs are removed (bdev_remove), the hardware is let go
 *   NVME_HOLD    the bdevs stay; what had no completion and whatever comes is held, in order. The controller's volatile cache is
 *                off (or every write has FUA), so a completed write is durable and only commands without a completion are
 *                repeated. nvme_device_reattach brings a controller in its place, nvme_device_give_up ends the hold as NVME_REMOVE.
 */
#ifndef LANEFS_BLOCKDEV_NVME_H
#define LANEFS_BLOCKDEV_NVME_H

#include "blockdev/blockdev.h"
#include "nvme/emu.h"
#include "nvme/nvme.h"
#include "nvme/pci.h"
#include "reactor/memory.h"

struct nvme_device;

enum nvme_policy { NVME_REMOVE, NVME_HOLD };
enum nvme_device_state {
	NVME_DEVICE_ATTACHED,
	NVME_DEVICE_RESETTING,  /* attached; I/O waits for the end of a reset */
	NVME_DEVICE_HELD,       /* no controller; I/O waits */
	NVME_DEVICE_REMOVED,    /* on its way out */
};
enum nvme_device_event {
	NVME_DEVICE_REQUESTED,  /* the device is wanted back, and still alive: quiesce, then nvme_device_detach */
	NVME_DEVICE_NOW_HELD,   /* the controller left under NVME_HOLD */
	NVME_DEVICE_RESUMED,
	NVME_DEVICE_GONE,       /* the bdevs are being removed */
	NVME_DEVICE_HEALTH,     /* a critical warning */
};
/* In a fiber of the home reactor. Must not call back into the device; tell somebody who does. */
typedef void (*nvme_device_event_fn)(enum nvme_device_event event, void *arg);

struct nvme_device_options {
	enum nvme_policy policy;
	bool read_only;
	uint64_t io_timeout_ns, admin_timeout_ns; /* 0: the driver's defaults */
	nvme_device_event_fn event; /* may be NULL */
	void *arg;
};

/* What bdev_target_create calls for "0000:5e:00.0[/NSID]", "pci:..." and "emu:...". @name: of the bdev of the namespace
 * that the target names (the first usable one when it names none). A device that is there already keeps the options
 * that it was made with. -EEXIST: the namespace has a bdev; -EBUSY: the device is held, or on its way out; errors of
 * attaching. */
MAY_WAIT int nvme_device_create(struct bdev_registry *registry, const char *target,
	const struct nvme_device_options *options, char *name, size_t name_size, char *message, size_t message_size) MUST_CHECK;
/* True for a target that the driver serves. @pci: it needs EAL. */
bool nvme_target(const char *target, bool *pci);
/* The file that stands behind a target: itself when it is a path, the medium of an emulated drive. "" when there is
 * none. */
void nvme_target_file(const char *target, char *path, size_t path_size);
/* How EAL must be started for the target (hugepages, physical addresses for uio); false: it is not needed. */
bool nvme_target_memory(const char *target, struct memory_options *out);

/* The device behind a bdev, or NULL (no nvme bdev, or gone). Valid until the caller next waits. */
struct nvme_device *nvme_device_of(struct bdev_registry *registry, const char *bdev_name);
const char *nvme_device_target(const struct nvme_device *device);
enum nvme_device_state nvme_device_get_state(const struct nvme_device *device);
/* NULL while there is none. Valid until the caller next waits. */
struct nvme_ctrlr *nvme_device_ctrlr(struct nvme_device *device);
uint32_t nvme_device_nsid(struct bdev_registry *registry, const char *bdev_name);

/* The orderly way out: shuts the controller down and lets the hardware go, then as the policy says. -ENODEV, -ETIMEDOUT
 * (the kernel has not let go within @deadline_ns; nothing waits for it any more). */
MAY_WAIT int nvme_device_detach(struct nvme_device *device, uint64_t deadline_ns) MUST_CHECK;
/* The controller is known to be gone (uevent, command line): the same without talking to it. An emulated one is pulled
 * out. News of one that has left, and been replaced, by the time that it is handled, is no news. */
MAY_WAIT void nvme_device_lost(struct nvme_device *device);

/* Attaches the controller that @target names (NULL: where the old one was) to a held device. Before any held I/O goes
 * on, @accept is called with a function to read from the namespace (once for each that has a bdev): 0 accepts. Refused
 * before are a namespace that is smaller or has another block size, and a controller that can do less than the bdev has
 * promised; one that has grown is told with BDEV_EVENT_RESIZED. On failure the device stays held. -EBUSY: not held;
 * -ENODEV, -ESTALE (not the one that left), what accept returned, errors of attaching; one line in @message. */
typedef MAY_WAIT int (*nvme_read_fn)(void *context, void *buffer, uint64_t offset, uint32_t length);
typedef MAY_WAIT int (*nvme_accept_fn)(void *arg, nvme_read_fn read, void *context, char *message, size_t message_size);
MAY_WAIT int nvme_device_reattach(struct nvme_device *device, const char *target, nvme_accept_fn accept, void *arg,
	char *message, size_t message_size) MUST_CHECK;
/* Ends a hold: what is held is answered -ENODEV and the bdevs are removed. A reattach that is under way comes first:
 * when it succeeds, the hold is over and nothing happens. Nothing, too, when the device is not held. */
MAY_WAIT void nvme_device_give_up(struct nvme_device *device);

/* ---- the emulated drive of an emu: device; it outlives its controller: pulled and plugged again. NULL: none ---- */
struct emu *nvme_device_emu(struct nvme_device *device);
/* Pulls it out / makes it ready for reattach to plug in again. */
MAY_WAIT int nvme_device_emu_pull(struct nvme_device *device) MUST_CHECK;

#endif
