/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Kernel uevents over netlink (NETLINK_KOBJECT_UEVENT, group 1): which PCI devices came, went, were bound or unbound.
 * Only messages that the kernel itself sent are believed: sender's nl_pid 0, credentials of uid 0 and pid 0
 * (SO_PASSCRED), the multicast group set. Everything else is dropped, counted and logged once.
 *
 * For one thread: the one that polls the fd (the daemon's control thread, or a tool). Needs no root.
 */
#ifndef LANEFS_REACTOR_UEVENT_H
#define LANEFS_REACTOR_UEVENT_H

#include "reactor/base.h"

enum uevent_action { UEVENT_ADD, UEVENT_REMOVE, UEVENT_BIND, UEVENT_UNBIND, UEVENT_CHANGE, UEVENT_OTHER };
enum { UEVENT_BYTES_MAX = 8192, UEVENT_ADDRESS_BYTES = 16, UEVENT_DRIVER_BYTES = 32 };

struct uevent {
	enum uevent_action action;
	char subsystem[UEVENT_DRIVER_BYTES];      /* "pci" */
	char pci_address[UEVENT_ADDRESS_BYTES];   /* PCI_SLOT_NAME, "0000:5e:00.0"; "" when there is none */
	uint32_t pci_class;                       /* PCI_CLASS, 0x010802 for NVMe; 0 when not said */
	char driver[UEVENT_DRIVER_BYTES];         /* DRIVER; "" when not said */
};

struct uevent_monitor;
/* -errno of the socket (a container without CAP_NET_ADMIN may refuse: hot plug then needs lanefs attach). */
int uevent_monitor_open(struct uevent_monitor **out) MUST_CHECK;
void uevent_monitor_close(struct uevent_monitor *monitor);
int uevent_monitor_fd(const struct uevent_monitor *monitor);
/* The next event that is believed. -EAGAIN: none now. -ENOBUFS: some were lost (look at the devices yourself). */
int uevent_monitor_next(struct uevent_monitor *monitor, struct uevent *out) MUST_CHECK;

/* The parser of one message: "action@path\0KEY=value\0...". Untrusted bytes; never reads beyond @length. -EBADMSG. */
int uevent_parse(const char *bytes, size_t length, struct uevent *out) MUST_CHECK;

#endif
