/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading small files and folders of sysfs and procfs, and what the parts of pci.h need of each other.
 */
#ifndef LANEFS_NVME_PCI_INTERNAL_H
#define LANEFS_NVME_PCI_INTERNAL_H

#include <dirent.h>

#include "nvme/pci.h"

enum { PCI_PATH_BYTES = 768, PCI_TEXT_BYTES = 256 };

/* The trees are the machine's own, not a test's. */
bool pci_roots_are_real(void);
const char *pci_procfs(void);
/* A path below the root of sysfs; one that does not fit becomes "", which no file has. Returns @out. */
const char *pci_path(char out[PCI_PATH_BYTES], const char *format, ...) PRINTF_LIKE(2, 3);

/* The first line of a file, without white space at its end; "" and -errno when it cannot be read. */
int pci_text_read(const char *path, char *out, size_t size);
/* The last part of what a link points to; "" when there is none. Returns whether there is one. */
bool pci_link_read(const char *path, char *out, size_t size);
/* The next entry of a folder that is not "." or ".."; NULL at its end, and for a folder that is NULL. */
const char *pci_folder_next(DIR *folder);
static inline void pci_folder_close(DIR *folder)
{
	if (folder)
		closedir(folder);
}

/* Whether another device of the group keeps it from user space: no bridge, and with a driver that the kernel does not
 * allow beside vfio-pci. Fills which one, and its driver. */
bool pci_group_blocker(const struct pci_device *device, char other[PCI_ADDRESS_BYTES], char driver[PCI_DRIVER_BYTES]);
/* Fills `users` of each device. -ENOMEM. */
int pci_users_fill(struct pci_device *devices, unsigned count) MUST_CHECK;
/* The command that ends the first use that @users names. */
void pci_users_mend(const char *users, char *out, size_t size);

#endif
