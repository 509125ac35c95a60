/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Devices on the PCI bus that go or appear, as the kernel's uevents tell.
 *
 *   remove of our device      it is lost, whatever its registers say
 *   add or bind, while held   a candidate: looked at a little later, when the kernel has finished with it
 *
 * A candidate that the driver of our device has (vfio-pci, uio_pci_generic) is tried: the filesystem on it decides whether
 * it is the one that left. One that another driver has is bound first if auto_bind says so and if it can be told to be ours
 * (serial number, or the same place); otherwise a line says what can be done by hand. A refusal ends nothing: the wait
 * goes on.
 *
 * Nothing here looks into sysfs before the kernel has said that something is there: while a device leaves, sysfs blocks.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/daemon/daemon_internal.h"
#include "reactor/log.h"
#include "reactor/uevent.h"

enum {
	BOUND_DELAY_MS = 50,     /* after bind: the driver has it */
	ADDED_DELAY_MS = 2000,   /* after add: a driver of the kernel's may still come */
	AGAIN_DELAY_MS = 500,    /* the kernel's driver has not read the serial number yet */
	LOOKS_MAX = 20,
	BIND_MS = 15000,
	EVENTS_PER_ROUND = 64,
};

/* "pci:0000:5e:00.0/1" and "0000:5e:00.0" -> the address. False: it is none. */
static bool target_address(const char *target, char out[PCI_ADDRESS_BYTES])
{
	char text[64];
	bool pci;

	if (!nvme_target(target, &pci) || !pci)
		return false;
	snprintf(text, sizeof(text), "%s", target + (strncmp(target, "pci:", 4) ? 0 : 4));
	text[strcspn(text, "/")] = '\0';
	return pci_address_parse(text, out) == 0;
}

void hotplug_open(struct daemon *daemon)
{
	struct hotplug *hotplug = &daemon->hotplug;
	struct pci_device *device;
	int err;

	hotplug->enabled = !daemon->config->no_hotplug;
	if (!target_address(daemon->config->target, hotplug->address))
		return;
	device = calloc(1, sizeof(*device));
	if (device && pci_get(hotplug->address, device) == 0)
		snprintf(hotplug->driver, sizeof(hotplug->driver), "%s", device->driver);
	free(device);
	snprintf(hotplug->serial, sizeof(hotplug->serial), "%s", daemon->facts.info.serial);
	err = uevent_monitor_open(&hotplug->monitor);
	if (err) {
		hotplug->monitor = NULL;
		log_info("%s: no kernel uevents (%s): a device that comes back is attached with lanefs attach",
			daemon->config->target, strerror(-err));
	}
}

void hotplug_close(struct daemon *daemon)
{
	if (daemon->hotplug.monitor)
		uevent_monitor_close(daemon->hotplug.monitor);
	daemon->hotplug.monitor = NULL;
}

int hotplug_fd(const struct daemon *daemon)
{
	return daemon->hotplug.monitor ? uevent_monitor_fd(daemon->hotplug.monitor) : -1;
}

/* ---- what the kernel says ---- */
static void candidate_add(struct hotplug *hotplug, const char *address, unsigned delay_ms)
{
	struct hotplug_candidate *place = NULL;

	for (unsigned i = 0; i < HOTPLUG_CANDIDATES_MAX; i++) {
		struct hotplug_candidate *candidate = &hotplug->candidates[i];

		if (!strcmp(candidate->address, address)) {
			place = candidate;
			break;
		}
		if (!candidate->address[0] && !place)
			place = candidate;
	}
	if (!place)
		return; /* a storm of devices: the next event finds room, or a hand */
	*place = (struct hotplug_candidate){.due_ms = daemon_now_ms() + delay_ms};
	snprintf(place->address, sizeof(place->address), "%s", address);
}

static MAY_WAIT int lost_run(struct daemon_task *task)
{
	struct nvme_device *device = daemon_device(task->daemon);

	if (device)
		nvme_device_lost(device);
	return 0;
}

static void lost_done(struct daemon_task *task) { free(task); }

static void device_vanished(struct daemon *daemon)
{
	struct daemon_task *task = calloc(1, sizeof(*task));

	log_warn("%s: the kernel says that the device is gone", daemon->config->target);
	if (!task)
		return; /* the driver will notice by itself */
	task->run = lost_run;
	task->done = lost_done;
	task->device_only = true;
	task_start(daemon, task);
}

static void handle_event(struct daemon *daemon, const struct uevent *event)
{
	struct hotplug *hotplug = &daemon->hotplug;

	if (!hotplug->enabled || !event->pci_address[0] || event->pci_class != PCI_CLASS_NVME)
		return;
	if (event->action == UEVENT_REMOVE && !strcmp(event->pci_address, hotplug->address) && !daemon->removal.held &&
	    !daemon->removal.leaving)
		device_vanished(daemon);
	else if (event->action == UEVENT_BIND && daemon->removal.held)
		candidate_add(hotplug, event->pci_address, BOUND_DELAY_MS);
	else if (event->action == UEVENT_ADD && daemon->removal.held)
		candidate_add(hotplug, event->pci_address, ADDED_DELAY_MS);
}

void hotplug_read(struct daemon *daemon)
{
	struct uevent event;
	int err = 0;

	for (unsigned i = 0; i < EVENTS_PER_ROUND && err != -EAGAIN; i++) {
		err = uevent_monitor_next(daemon->hotplug.monitor, &event);
		if (err == -ENOBUFS && daemon->removal.held)
			candidate_add(&daemon->hotplug, daemon->hotplug.address, ADDED_DELAY_MS); /* some were lost */
		else if (err && err != -EAGAIN && err != -ENOBUFS)
			break;
		if (!err)
			handle_event(daemon, &event);
	}
	if (!err || err == -EAGAIN || err == -ENOBUFS)
		return;
	log_warn("%s: no kernel uevents any more: %s", daemon->config->target, strerror(-err));
	hotplug_close(daemon);
}

/* ---- bringing it back ---- */
static MAY_WAIT int reattach_accept(void *arg, nvme_read_fn read, void *context, char *message, size_t message_size)
{
	const struct reattach *reattach = arg;
	struct daemon *daemon = reattach->task.daemon;
	char why[200] = "";
	int err = fs_identity_check(daemon->fs, read, context, why, sizeof(why));

	if (err)
		snprintf(message, message_size, "%.100s: not the device that left: %s",
			reattach->target[0] ? reattach->target : daemon->bdev_name, why[0] ? why : strerror(-err));
	return err;
}

MAY_WAIT int reattach_run(struct daemon_task *task)
{
	struct reattach *reattach = CONTAINER_OF(task, struct reattach, task);
	struct nvme_device *device = daemon_device(task->daemon);

	if (!device) {
		snprintf(reattach->message, sizeof(reattach->message), "%.100s: no device of lanefs's own NVMe driver",
			task->daemon->bdev_name);
		return -ENODEV;
	}
	return nvme_device_reattach(device, reattach->target[0] ? reattach->target : NULL, reattach_accept, reattach,
		reattach->message, sizeof(reattach->message));
}

void reattach_report(const struct reattach *reattach)
{
	struct daemon *daemon = reattach->task.daemon;

	if (reattach->task.result)
		log_warn("%s: not attached: %s", daemon->config->target, reattach->message);
	else if (reattach->target[0] && !target_address(reattach->target, daemon->hotplug.address))
		daemon->hotplug.address[0] = '\0';
}

static void candidate_done(struct daemon_task *task)
{
	struct reattach *reattach = CONTAINER_OF(task, struct reattach, task);

	task->daemon->hotplug.busy = false;
	reattach_report(reattach);
	free(reattach);
}

static void candidate_attach(struct daemon *daemon, const char *address)
{
	struct reattach *reattach = calloc(1, sizeof(*reattach));

	if (!reattach)
		return;
	reattach->task.run = reattach_run;
	reattach->task.done = candidate_done;
	snprintf(reattach->target, sizeof(reattach->target), "pci:%s", address);
	log_info("%s: %s has appeared: tried", daemon->config->target, address);
	daemon->hotplug.busy = true;
	task_start(daemon, &reattach->task);
}

static void candidate_bind(struct daemon *daemon, const char *address)
{
	struct hotplug *hotplug = &daemon->hotplug;
	char text[HELPER_TEXT_BYTES];

	snprintf(text, sizeof(text), "%s %s", address, hotplug->driver);
	log_info("%s: %s has appeared: bound to %s", daemon->config->target, address, hotplug->driver);
	hotplug->bind_id = helper_send_text(&daemon->helper, HELPER_BIND, text, BIND_MS);
	if (hotplug->bind_id <= 0) {
		hotplug->bind_id = 0;
		log_warn("%s: no helper process to bind %s with: lanefs bind %s, lanefs attach", daemon->config->target, address,
			address);
		return;
	}
	hotplug->busy = true;
	snprintf(hotplug->bind_address, sizeof(hotplug->bind_address), "%s", address);
}

void hotplug_helper_reply(struct daemon *daemon, const struct helper_reply *reply)
{
	struct hotplug *hotplug = &daemon->hotplug;

	if (!hotplug->bind_id || reply->id != hotplug->bind_id)
		return;
	hotplug->bind_id = 0;
	hotplug->busy = false;
	if (reply->result)
		log_warn("%s: %s is not bound: %s", daemon->config->target, hotplug->bind_address,
			reply->message[0] ? reply->message : strerror(-reply->result));
	else if (daemon->removal.held)
		candidate_add(hotplug, hotplug->bind_address, BOUND_DELAY_MS);
}

/* True: looked at for the last time. */
static bool candidate_look(struct daemon *daemon, struct hotplug_candidate *candidate, const struct pci_device *device)
{
	struct hotplug *hotplug = &daemon->hotplug;
	bool same_serial = device->serial[0] && !strcmp(device->serial, hotplug->serial);
	bool same_place = !strcmp(device->address, hotplug->address);

	if (hotplug->driver[0] && !strcmp(device->driver, hotplug->driver)) {
		candidate_attach(daemon, device->address);
		return true;
	}
	/* The kernel's driver knows the serial number a moment after it has bound the device. */
	if (!strcmp(device->driver, "nvme") && !device->serial[0] && candidate->looks++ < LOOKS_MAX) {
		candidate->due_ms = daemon_now_ms() + AGAIN_DELAY_MS;
		return false;
	}
	if (daemon->config->auto_bind && hotplug->driver[0] && (same_serial || (!device->serial[0] && same_place))) {
		candidate_bind(daemon, device->address);
		return true;
	}
	log_warn("%s: %s has appeared (driver %s, serial %s, wanted %s): if it is the one, lanefs bind %s, then lanefs attach %s",
		daemon->config->target, device->address, device->driver[0] ? device->driver : "none",
		device->serial[0] ? device->serial : "not known", hotplug->serial, device->address, daemon->config->directory);
	return true;
}

void hotplug_look(struct daemon *daemon)
{
	struct hotplug *hotplug = &daemon->hotplug;
	int64_t now = daemon_now_ms();

	for (unsigned i = 0; i < HOTPLUG_CANDIDATES_MAX && !hotplug->busy; i++) {
		struct hotplug_candidate *candidate = &hotplug->candidates[i];
		struct pci_device *device;

		if (!candidate->address[0] || (daemon->removal.held && now < candidate->due_ms))
			continue;
		device = daemon->removal.held ? calloc(1, sizeof(*device)) : NULL;
		if (!device || pci_get(candidate->address, device) || candidate_look(daemon, candidate, device))
			candidate->address[0] = '\0';
		free(device);
	}
}

int64_t hotplug_due_ms(const struct daemon *daemon)
{
	int64_t due = INT64_MAX;

	for (unsigned i = 0; i < HOTPLUG_CANDIDATES_MAX && !daemon->hotplug.busy; i++)
		if (daemon->hotplug.candidates[i].address[0])
			due = MIN(due, daemon->hotplug.candidates[i].due_ms);
	return due;
}
