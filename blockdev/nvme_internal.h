/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the nvme module share: nvme.c (the data path), nvme_device.c (coming and going), nvme_return.c
 * (coming back), nvme_target.c (names, transports), nvme_emu.c (the medium of an emulated drive).
 *
 * A device has a *lane* on every reactor: its queue pair there, or NULL while there is none, and the I/O that is held.
 * A lane belongs to its reactor; the home reactor changes it by reactor_call_nowait. Everything else of a device
 * belongs to the home reactor, except `holds`, and `leaving` of a namespace, which every lane reads.
 */
#ifndef LANEFS_BLOCKDEV_NVME_INTERNAL_H
#define LANEFS_BLOCKDEV_NVME_INTERNAL_H

#include <limits.h>
#include <stdatomic.h>

#include "blockdev/bdev_module.h"
#include "blockdev/nvme.h"

enum { STOP_DEADLINE_S = 20, RELEASE_DEADLINE_S = 5, REMOVE_DEADLINE_S = 10 };

struct nvme_lane {
	struct nvme_device *device;
	struct nvme_qpair *qpair;        /* NULL: nobody to send to */
	struct cds_list_head held;       /* bdev_io by node, in order of arrival */
};

/* What a target says. */
struct nvme_place {
	bool emu;
	char address[64];                /* PCI: "0000:5e:00.0" */
	char path[PATH_MAX];             /* emu: the medium, itself a target or the name of a bdev */
	char options[1024];              /* emu: what follows the comma */
	uint32_t nsid;                   /* 0: the first usable one */
};

struct emu_drive;

struct nvme_device {
	struct bdev_registry *registry;
	struct reactor *home;
	struct nvme_place place;
	char target[128];                /* for people */
	struct nvme_device_options options;
	enum nvme_device_state state;
	struct nvme_ctrlr *ctrlr;        /* NULL: none */
	struct emu_drive *drive;         /* of an emulated controller; stays when the controller is pulled */
	bool write_fua;                  /* completion must mean durable, and only FUA does it */
	atomic_bool holds;               /* I/O without a completion is held, not failed */
	unsigned bdev_count;             /* registered, not yet released */
	atomic_uint users;               /* bdevs not yet destroyed, and the device's own fiber */
	struct fiber_start handler;      /* one fiber for what the controller reports */
	bool handling, gone_pending, requested_pending, namespaces_pending, health_pending;
	bool busy;                       /* attach, detach or handler at work: one at a time */
	unsigned attachments;            /* controllers so far: which one a call was about */
	struct fiber_cond changed;
	struct cds_list_head namespaces; /* struct nvme_ns by node */
	struct nvme_lane lanes[REACTOR_COUNT_MAX];
};

/* A bdev. */
struct nvme_ns {
	struct cds_list_head node;
	struct nvme_device *device;
	struct bdev *bdev;
	char name[128];
	uint32_t nsid, block_size, block_shift;
	uint64_t block_count;
	atomic_bool leaving;             /* being removed: nothing of it is held any more */
};

extern const struct bdev_module nvme_module;

/* nvme.c */
/* What a bdev of that namespace of @ctrlr can do, without a name. */
struct bdev_limits nvme_ns_limits(const struct nvme_device *device, const struct nvme_ctrlr *ctrlr,
	const struct nvme_ns_info *ns);
/* Makes the bdev of a namespace, publishes it, and counts it in the device. */
int nvme_ns_register(struct nvme_device *device, const struct nvme_ns_info *info, const char *name) MUST_CHECK;
/* Gives every lane its queue pair of @ctrlr and sends what is held; NULL: takes them away. */
MAY_WAIT void nvme_lanes_set(struct nvme_device *device, struct nvme_ctrlr *ctrlr);
/* Reads through the queue pair of this reactor, lanes or not; any length, in whole blocks. */
struct nvme_direct_read {
	struct nvme_ctrlr *ctrlr;
	struct nvme_ns_info ns;
};
MAY_WAIT int nvme_read_direct(void *direct_read, void *buffer, uint64_t offset, uint32_t length);

/* nvme_device.c */
/* The module's release: the bdev is closed or given up. */
MAY_WAIT void nvme_device_release_bdev(struct bdev *bdev);
void nvme_device_put(struct nvme_device *device);
/* Around every change of the device, in a fiber of its home that counts as a user. */
MAY_WAIT void nvme_device_lock(struct nvme_device *device);
void nvme_device_unlock(struct nvme_device *device);
void nvme_device_tell(struct nvme_device *device, enum nvme_device_event event);
/* The handler compares the namespaces with what the bdevs know. */
void nvme_device_look(struct nvme_device *device);
/* A controller at @place. For emu: @drive is made when it is NULL, and stays whatever comes of it. */
MAY_WAIT int nvme_device_attach(struct nvme_device *device, const struct nvme_place *place, struct emu_drive **drive,
	struct nvme_ctrlr **out, char *message, size_t message_size) MUST_CHECK;

/* The device's emulated drive is @drive from now on (NULL: none); the one before is taken apart. */
MAY_WAIT void nvme_drive_replace(struct nvme_device *device, struct emu_drive *drive);

/* nvme_target.c */
int nvme_place_parse(const char *target, struct nvme_place *out, char *message, size_t message_size) MUST_CHECK;
bool nvme_place_equal(const struct nvme_place *a, const struct nvme_place *b);
/* Opens the transport; for emu: @drive is made when it is NULL. */
MAY_WAIT int nvme_place_open(struct bdev_registry *registry, const struct nvme_place *place, bool read_only,
	struct emu_drive **drive, struct nvme_transport **out, char *message, size_t message_size) MUST_CHECK;

/* nvme_emu.c */
MAY_WAIT int emu_drive_create(struct bdev_registry *registry, const struct nvme_place *place, bool read_only,
	struct emu_drive **out, char *message, size_t message_size) MUST_CHECK;
/* Pulls it out if need be, and waits for those who do. Nobody may find it any more. */
MAY_WAIT void emu_drive_destroy(struct emu_drive *drive);
MAY_WAIT void emu_drive_pull(struct emu_drive *drive);
MAY_WAIT int emu_drive_set_read_only(struct emu_drive *drive, bool read_only) MUST_CHECK;
/* Looks whether the medium has become larger. *out_grew: and the drive is about to say so. */
MAY_WAIT int emu_drive_rescan(struct emu_drive *drive, bool *out_grew) MUST_CHECK;
struct emu *emu_drive_emu(struct emu_drive *drive);
/* What the drive's bdevs say as their stack_level: their I/O ends in the medium's. */
uint32_t emu_drive_level(const struct emu_drive *drive);

#endif
