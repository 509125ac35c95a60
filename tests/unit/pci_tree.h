/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A made-up sysfs and procfs in a temporary folder, and a kernel for it: a thread that does what writing to unbind and
 * drivers_probe asks for. For tests of nvme/pci.h and of the commands that stand on it.
 */
#ifndef LANEFS_TESTS_UNIT_PCI_TREE_H
#define LANEFS_TESTS_UNIT_PCI_TREE_H

#include "reactor/base.h"

/* What is zero or NULL is not there. */
struct pci_tree_device {
	const char *address, *class_code, *driver;
	const char *group;             /* "13" */
	const char *controller;        /* "nvme0": with model, serial and a disk "nvme0n1" (259:0) of partitions p1 and p2 */
};

/* Creates the folder and points pci_set_roots there; destroy undoes both. Three drivers are loaded: nvme, vfio-pci,
 * uio_pci_generic. */
void pci_tree_create(void);
void pci_tree_destroy(void);
void pci_tree_device_add(const struct pci_tree_device *device);

/* Paths are below the folder: "sys/bus/pci/...", "proc/swaps". Folders on the way are made. */
void pci_tree_write(const char *path, const char *text);
void pci_tree_link(const char *path, const char *target);
void pci_tree_remove(const char *path);
/* "" when there is none. The text stays until the next call. */
const char *pci_tree_read(const char *path);
const char *pci_tree_path(const char *path);
/* The driver that has it, "" when none. */
const char *pci_tree_driver(const char *address);

/* Between the two, unbinding and probing happen. A driver named @refuses takes nothing. */
void pci_tree_kernel_start(const char *refuses);
void pci_tree_kernel_stop(void);

#endif
