/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The half of vfio that is about memory: an IOMMU group in a container of its own, with all DMA memory mapped.
 */
#ifndef LANEFS_NVME_VFIO_INTERNAL_H
#define LANEFS_NVME_VFIO_INTERNAL_H

#include "nvme/pci_transport_internal.h"
#include "reactor/dma_map.h"

struct vfio_iommu {
	struct dma_mapper mapper;
	int container_fd, group_fd; /* -1: not open */
	bool mapping;               /* the mapper is added */
};

/* @device is bound to vfio-pci. On failure nothing stays open. Errors as nvme_vfio_open. */
int vfio_iommu_open(struct vfio_iommu *iommu, const struct pci_device *device,
	const struct pci_message *message) MUST_CHECK;
/* After the device's own fd was closed. */
void vfio_iommu_close(struct vfio_iommu *iommu);

/* vfio_linger.c: a child process keeps copies of @fds until the returned descriptor is closed, which is done after closing
 * them here. -errno. */
enum { LINGER_FDS_MAX = 4 };
int vfio_linger_start(const int *fds, unsigned count) MUST_CHECK;

#endif
