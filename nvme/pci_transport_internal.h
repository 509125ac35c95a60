/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the two PCI transports share: finding the device, its command register, its BAR.
 */
#ifndef LANEFS_NVME_PCI_TRANSPORT_INTERNAL_H
#define LANEFS_NVME_PCI_TRANSPORT_INTERNAL_H

#include <linux/pci_regs.h>
#include <sys/types.h>

#include "nvme/pci.h"
#include "nvme/transport.h"

/* Where a message goes: one line, "object: cause: command that mends it". */
struct pci_message {
	char *text;
	size_t size;
	const char *address; /* the object */
};
/* Writes the line behind the address; returns @err. */
int pci_refuse(const struct pci_message *message, int err, const char *format, ...) PRINTF_LIKE(3, 4);

/* The controller at @address (any form), which @driver must have. Sets message->address to the one in @out. */
int pci_transport_find(const char *address, const char *driver, struct pci_device *out,
	struct pci_message *message) MUST_CHECK;

/* Bits of the command register; @fd has the configuration space at @config. Nothing is written when the device is gone
 * (-ENODEV). */
struct pci_command {
	uint16_t set, clear;
};
int pci_command_change(int fd, off_t config, struct pci_command bits) MUST_CHECK;
/* The configuration space still belongs to an NVMe controller. */
bool pci_config_alive(int fd, off_t config);

/* Maps BAR 0 (@offset in @fd, @size bytes), guards it, and stops a controller that an earlier owner left running, so
 * that bus mastering may be switched on. */
int pci_bar_map(struct nvme_transport *transport, int fd, off_t offset, size_t size,
	const struct pci_message *message) MUST_CHECK;
/* Nothing happens when it is not mapped. */
void pci_bar_unmap(struct nvme_transport *transport);

#endif
