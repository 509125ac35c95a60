/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * IOMMU group, container and DMA mappings of one device, by the kernel's own interface (linux/vfio.h).
 *
 * DPDK has calls for this (rte_vfio_setup_device), which are not used, because a filesystem cannot live with three
 * things in them: they hold EAL's memory lock while the device's fd is closed, which takes a minute when a device is
 * gone, and every allocation waits that long; memory that was mapped in one piece is unmapped as a whole when EAL gives
 * back its first page; and a page that could not be mapped later on (the memlock limit) is handed out all the same. A
 * container for each device also lets one device go without waiting for another.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "nvme/pci_internal.h"
#include "nvme/vfio_internal.h"

enum { PATH_BYTES = 128 };

/* ---- the mapper ---- */
static int iommu_map(struct dma_mapper *mapper, void *address, uint64_t iova, size_t size)
{
	const struct vfio_iommu *iommu = CONTAINER_OF(mapper, struct vfio_iommu, mapper);
	struct vfio_iommu_type1_dma_map map = {.argsz = sizeof(map),
		.flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
		.vaddr = (uintptr_t)address, .iova = iova, .size = size};
	return ioctl(iommu->container_fd, VFIO_IOMMU_MAP_DMA, &map) && errno != EEXIST ? -errno : 0;
}

static void iommu_unmap(struct dma_mapper *mapper, uint64_t iova, size_t size)
{
	const struct vfio_iommu *iommu = CONTAINER_OF(mapper, struct vfio_iommu, mapper);
	struct vfio_iommu_type1_dma_unmap unmap = {.argsz = sizeof(unmap), .iova = iova, .size = size};
	/* It fails only for what is not mapped. */
	(void)ioctl(iommu->container_fd, VFIO_IOMMU_UNMAP_DMA, &unmap);
}

/* ---- opening, each step with what may be wrong ---- */
static int container_open(struct vfio_iommu *iommu, const struct pci_message *message)
{
	iommu->container_fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (iommu->container_fd < 0) {
		const int err = -errno;
		if (err == -EACCES)
			return pci_refuse(message, err,
				"/dev/vfio/vfio may not be opened: sudo chmod 0666 /dev/vfio/vfio");
		return pci_refuse(message, -ENOTSUP, "/dev/vfio/vfio cannot be opened: %s: sudo modprobe vfio-pci",
			strerror(-err));
	}
	if (ioctl(iommu->container_fd, VFIO_GET_API_VERSION) != VFIO_API_VERSION)
		return pci_refuse(message, -ENOTSUP, "the kernel speaks another version of VFIO: use another kernel");
	if (ioctl(iommu->container_fd, VFIO_CHECK_EXTENSION, VFIO_TYPE1v2_IOMMU) != 1)
		return pci_refuse(message, -ENOTSUP,
			"VFIO does not know this machine's IOMMU: sudo modprobe vfio_iommu_type1");
	return 0;
}

static int no_iommu_refuse(const struct pci_device *device, const struct pci_message *message)
{
	return pci_refuse(message, -ENOTSUP,
		"no IOMMU protects it, which vfio-pci needs: boot with intel_iommu=on or, trusting the device, "
		"lanefs bind %s --driver uio_pci_generic", device->address);
}

static int group_file_refuse(int err, const char *path, const struct pci_device *device,
	const struct pci_message *message)
{
	if (err == -EACCES || err == -EPERM)
		return pci_refuse(message, -EACCES, "this user may not open %s: sudo chown %u %s", path,
			(unsigned)geteuid(), path);
	if (err == -EBUSY)
		return pci_refuse(message, err, "in use (%s): unmount it first",
			device->users[0] ? device->users : "another process has its IOMMU group");
	if (err == -ENOENT)
		return no_iommu_refuse(device, message);
	return pci_refuse(message, err, "%s cannot be opened: %s: lanefs unbind %s, then bind it again", path,
		strerror(-err), device->address);
}

/* Another device of the group that a driver of the kernel has. */
static int group_refuse(const struct pci_device *device, const struct pci_message *message)
{
	char other[PCI_ADDRESS_BYTES], driver[PCI_DRIVER_BYTES];
	if (!pci_group_blocker(device, other, driver))
		return pci_refuse(message, -EPERM,
			"its IOMMU group %d is not free: lanefs unbind %s, then bind it again",
			device->iommu_group, device->address);
	return pci_refuse(message, -EPERM, "its IOMMU group %d has %s too, which driver %s uses: "
		"echo %s > /sys/bus/pci/devices/%s/driver/unbind", device->iommu_group, other, driver, other, other);
}

static int group_open(struct vfio_iommu *iommu, const struct pci_device *device, const struct pci_message *message)
{
	char path[PATH_BYTES];
	struct vfio_group_status status = {.argsz = sizeof(status)};
	snprintf(path, sizeof(path), "/dev/vfio/%d", device->iommu_group);
	iommu->group_fd = open(path, O_RDWR | O_CLOEXEC);
	if (iommu->group_fd < 0 || ioctl(iommu->group_fd, VFIO_GROUP_GET_STATUS, &status))
		return group_file_refuse(-errno, path, device, message);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return group_refuse(device, message);
	return 0;
}

static int group_attach(struct vfio_iommu *iommu, const struct pci_message *message)
{
	if (ioctl(iommu->group_fd, VFIO_GROUP_SET_CONTAINER, &iommu->container_fd) == 0 &&
		ioctl(iommu->container_fd, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU) == 0)
		return 0;
	const int err = -errno;
	/* The kernel's way to say that devices could forge interrupts. */
	if (err == -EPERM)
		return pci_refuse(message, -ENOTSUP,
			"the IOMMU does not remap interrupts: switch that on in the firmware or, trusting the "
			"device, echo 1 > /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts");
	return pci_refuse(message, err, "its IOMMU group cannot be used: %s: dmesg says why", strerror(-err));
}

static int memory_refuse(int err, const struct pci_message *message)
{
	struct rlimit limit = {0};
	getrlimit(RLIMIT_MEMLOCK, &limit);
	const uint64_t bytes = dma_mapped_bytes();
	/* One half more, for what else is locked and for growth. */
	if (err == -ENOMEM && limit.rlim_cur < 2 * bytes)
		return pci_refuse(message, err,
			"the memlock limit of %llu KiB is too low to give the device %llu MiB of memory: "
			"ulimit -l %llu (memlock in /etc/security/limits.d, LimitMEMLOCK= in a unit)",
			(unsigned long long)limit.rlim_cur >> 10, (unsigned long long)(bytes >> 20),
			(unsigned long long)(bytes + bytes / 2) >> 10);
	if (err == -EINVAL)
		return pci_refuse(message, -ENOTSUP, "the IOMMU's addresses do not reach the process's memory: "
			"use a build without sanitizers");
	return pci_refuse(message, err, "memory cannot be made reachable for it: %s: dmesg says why", strerror(-err));
}

int vfio_iommu_open(struct vfio_iommu *iommu, const struct pci_device *device, const struct pci_message *message)
{
	*iommu = (struct vfio_iommu){.mapper = {.map = iommu_map, .unmap = iommu_unmap}, .container_fd = -1,
		.group_fd = -1};
	int err = device->iommu_group < 0 ? no_iommu_refuse(device, message) : container_open(iommu, message);
	if (!err)
		err = group_open(iommu, device, message);
	if (!err)
		err = group_attach(iommu, message);
	if (!err) {
		err = dma_mapper_add(&iommu->mapper);
		iommu->mapping = !err;
		err = err ? memory_refuse(err, message) : 0;
	}
	if (err)
		vfio_iommu_close(iommu);
	return err;
}

void vfio_iommu_close(struct vfio_iommu *iommu)
{
	if (iommu->mapping)
		dma_mapper_remove(&iommu->mapper);
	iommu->mapping = false;
	/* The group first: with its last group a container forgets all mappings. */
	if (iommu->group_fd >= 0)
		close(iommu->group_fd);
	if (iommu->container_fd >= 0)
		close(iommu->container_fd);
	iommu->group_fd = iommu->container_fd = -1;
}
