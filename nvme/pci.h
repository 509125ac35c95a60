/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * NVMe controllers on the PCI bus as sysfs shows them: which there are, which driver has them, who uses them; and moving
 * one from driver to driver. Nothing here needs DPDK or touches a register. All calls are synchronous and may block for
 * as long as the kernel's probe takes: from a control thread, a tool or a helper process, never from a reactor.
 *
 * Every failing call that has a message leaves one line there: object, cause, next step (the command that mends it).
 */
#ifndef LANEFS_NVME_PCI_H
#define LANEFS_NVME_PCI_H

#include "reactor/base.h"

enum { PCI_ADDRESS_BYTES = 16, PCI_DRIVER_BYTES = 32, PCI_USERS_BYTES = 256, PCI_DEVICES_MAX = 256 };
#define PCI_CLASS_NVME 0x010802u

struct pci_device {
	char address[PCI_ADDRESS_BYTES]; /* "0000:5e:00.0" */
	char driver[PCI_DRIVER_BYTES];   /* "nvme", "vfio-pci", "uio_pci_generic"; "": none */
	uint32_t class_code;             /* 0x010802 */
	uint16_t vendor, device;
	int iommu_group;                 /* -1: no IOMMU */
	unsigned group_devices;          /* devices in the group that are not bridges, this one included */
	int numa_node;                   /* -1: not said */
	char model[41], serial[21];      /* what the kernel's nvme driver knows; "" otherwise */
	char users[PCI_USERS_BYTES];     /* who uses its kernel block devices: "nvme0n1p2 is mounted at /, nvme0n1p3 is swap";
	                                  * or "process 4711 (mount.lanefs)" that holds the vfio group or uio node; "": nobody */
};

/* "0000:5e:00.0" or "5e:00.0" in any case -> the full form in @out. -EINVAL. */
int pci_address_parse(const char *text, char out[PCI_ADDRESS_BYTES]) MUST_CHECK;
/* All controllers of class PCI_CLASS_NVME in order of their addresses; returns how many were filled, or -errno. */
int pci_list(struct pci_device *devices, unsigned count_max) MUST_CHECK;
/* One of them. -ENODEV (no such device), -EMEDIUMTYPE (it is not an NVMe controller: class_code is filled). */
int pci_get(const char *address, struct pci_device *out) MUST_CHECK;

/* Moves the device to @driver ("vfio-pci", "uio_pci_generic", "nvme") by driver_override and drivers_probe; touches
 * this device alone. Refuses one that somebody uses (-EBUSY, naming who), one whose IOMMU group has other devices bound to
 * host drivers (-EPERM for vfio-pci), a machine without IOMMU (-ENOTSUP for vfio-pci), a module that is not loaded and
 * cannot be loaded (-ENOENT). Already there: 0. Waits up to 10 s for the kernel. */
int pci_bind(const char *address, const char *driver, char *message, size_t message_size) MUST_CHECK;
/* Gives it back to the kernel: clears driver_override and lets the kernel probe. */
int pci_unbind(const char *address, char *message, size_t message_size) MUST_CHECK;

/* Root of the sysfs and procfs trees, for tests with a made-up tree; NULL: the real ones ("/sys", "/proc"). */
void pci_set_roots(const char *sysfs, const char *procfs);

#endif
