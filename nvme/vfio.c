/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A controller that vfio-pci has: behind an IOMMU, which lets it reach DMA memory and nothing else, with an interrupt
 * per completion queue, usable without root.
 *
 * Opening: the group and its memory (vfio_iommu.c) -> the device's fd -> reset -> memory decode on -> BAR -> bus
 * mastering on (off after open; without it no completion ever arrives) -> an eventfd per MSI-X vector, and one for the
 * kernel's request to give the device back. Vector n belongs to completion queue n.
 *
 * Releasing: the BAR is unmapped first (mapped, it keeps the group busy), then the device's fd is closed. That resets
 * the device and takes 0.1 s, or over a minute when the device has gone and the kernel has not noticed; no lock is held
 * meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "nvme/vfio_internal.h"
#include "reactor/log.h"
#include "reactor/memory.h"

/* One for the admin queue and 64 for I/O queues; of more vectors no use is made. */
enum { INTERRUPTS_MAX = 65, RESET_TRIES = 20, RESET_PAUSE_US = 50000 };
#define DRIVER "vfio-pci"

struct vfio_transport {
	struct nvme_transport transport;
	struct vfio_iommu iommu;
	int device_fd;
	off_t config; /* where the configuration space is in device_fd */
	int request_fd;
	int interrupt_fds[INTERRUPTS_MAX];
};

static struct vfio_transport *vfio_of(struct nvme_transport *transport)
{
	return CONTAINER_OF(transport, struct vfio_transport, transport);
}

/* ---- interrupts ---- */
/* The header ends in data of no fixed size: here, the fds. */
union irq_set {
	struct vfio_irq_set header;
	unsigned char bytes[sizeof(struct vfio_irq_set) + INTERRUPTS_MAX * sizeof(int32_t)];
};

/* How many of the vectors of @index can have an eventfd. */
static unsigned irq_count(const struct vfio_transport *vfio, unsigned index)
{
	struct vfio_irq_info info = {.argsz = sizeof(info), .index = index};
	const bool usable = ioctl(vfio->device_fd, VFIO_DEVICE_GET_IRQ_INFO, &info) == 0 &&
		info.flags & VFIO_IRQ_INFO_EVENTFD;
	return usable ? info.count : 0;
}

/* Returns 0, a negative errno, or how many vectors there are fewer than @count. */
static int irq_set(const struct vfio_transport *vfio, unsigned index, const int *fds, unsigned count)
{
	union irq_set set = {.header = {.index = index, .count = count,
		.argsz = (uint32_t)(sizeof(set.header) + count * sizeof(int32_t)),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER}};
	memcpy(set.bytes + sizeof(set.header), fds, count * sizeof(int32_t));
	const int result = ioctl(vfio->device_fd, VFIO_DEVICE_SET_IRQS, &set);
	return result < 0 ? -errno : result;
}

static void irq_clear(const struct vfio_transport *vfio, unsigned index)
{
	struct vfio_irq_set set = {.argsz = sizeof(set), .index = index,
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER};
	/* The fd is closed next, which does the same. */
	(void)ioctl(vfio->device_fd, VFIO_DEVICE_SET_IRQS, &set);
}

/* ---- the transport ---- */
static int vfio_interrupt_fd(struct nvme_transport *transport, uint16_t qid)
{
	return qid < transport->interrupts_max ? vfio_of(transport)->interrupt_fds[qid] : -1;
}

static int vfio_request_fd(struct nvme_transport *transport) { return vfio_of(transport)->request_fd; }

static bool vfio_alive(struct nvme_transport *transport)
{
	const struct vfio_transport *vfio = vfio_of(transport);
	return pci_config_alive(vfio->device_fd, vfio->config);
}

static void vfio_stop_dma(struct nvme_transport *transport)
{
	const struct vfio_transport *vfio = vfio_of(transport);
	/* It fails when the device is gone, which is as good. */
	(void)!pci_command_change(vfio->device_fd, vfio->config, (struct pci_command){.clear = PCI_COMMAND_MASTER});
}

static void vfio_release(struct nvme_transport *transport)
{
	struct vfio_transport *vfio = vfio_of(transport);
	int linger = -1;
	if (vfio->device_fd >= 0) {
		if (transport->interrupts_max)
			irq_clear(vfio, VFIO_PCI_MSIX_IRQ_INDEX);
		if (vfio->request_fd >= 0)
			irq_clear(vfio, VFIO_PCI_REQ_IRQ_INDEX);
		pci_bar_unmap(transport);
		const int fds[] = {vfio->device_fd, vfio->iommu.group_fd, vfio->iommu.container_fd};
		if (nvme_transport_gone(transport))
			linger = vfio_linger_start(fds, ARRAY_SIZE(fds));
		close(vfio->device_fd);
	}
	vfio_iommu_close(&vfio->iommu);
	if (linger >= 0)
		close(linger);
	for (unsigned i = 0; i < transport->interrupts_max; i++)
		close(vfio->interrupt_fds[i]);
	if (vfio->request_fd >= 0)
		close(vfio->request_fd);
	free(vfio);
}

static const struct nvme_transport_ops vfio_ops = {
	.name = "vfio",
	.interrupt_fd = vfio_interrupt_fd,
	.alive = vfio_alive,
	.request_fd = vfio_request_fd,
	.stop_dma = vfio_stop_dma,
	.release = vfio_release,
};

/* ---- opening ---- */
static int eventfd_create(int *out)
{
	*out = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return *out < 0 ? -errno : 0;
}

/* The file descriptors of @count vectors; what could be opened before a failure is closed again. */
static int interrupts_create(struct vfio_transport *vfio, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		const int err = eventfd_create(&vfio->interrupt_fds[i]);
		if (!err)
			continue;
		while (i-- > 0)
			close(vfio->interrupt_fds[i]);
		return err;
	}
	return 0;
}

/* Without interrupts a device still works: it is polled. */
static void interrupts_set(struct vfio_transport *vfio)
{
	const unsigned offered = irq_count(vfio, VFIO_PCI_MSIX_IRQ_INDEX);
	unsigned count = MIN(offered, (unsigned)INTERRUPTS_MAX);
	int result = count ? interrupts_create(vfio, count) : -ENOTSUP;
	if (!result) {
		result = irq_set(vfio, VFIO_PCI_MSIX_IRQ_INDEX, vfio->interrupt_fds, count);
		const unsigned fewer = result > 0 ? MIN((unsigned)result, count) : result ? 0 : count;
		if (result > 0)
			result = irq_set(vfio, VFIO_PCI_MSIX_IRQ_INDEX, vfio->interrupt_fds, fewer);
		for (unsigned i = result ? 0 : fewer; i < count; i++)
			close(vfio->interrupt_fds[i]);
		count = fewer;
	}
	if (result)
		log_warn("%s: no interrupts (%s), so it is polled", vfio->transport.name, strerror(-result));
	vfio->transport.interrupts_max = result ? 0 : count;
}

/* A kernel that cannot ask for the device takes it away when it wants it. */
static void request_set(struct vfio_transport *vfio)
{
	int result = irq_count(vfio, VFIO_PCI_REQ_IRQ_INDEX) ? eventfd_create(&vfio->request_fd) : -ENOTSUP;
	if (!result)
		result = irq_set(vfio, VFIO_PCI_REQ_IRQ_INDEX, &vfio->request_fd, 1);
	if (!result)
		return;
	log_warn("%s: the kernel does not announce its removal (%s)", vfio->transport.name, strerror(-result));
	if (vfio->request_fd >= 0)
		close(vfio->request_fd);
	vfio->request_fd = -1;
}

static int device_open(struct vfio_transport *vfio, const struct pci_message *message)
{
	vfio->device_fd = ioctl(vfio->iommu.group_fd, VFIO_GROUP_GET_DEVICE_FD, vfio->transport.name);
	const int err = vfio->device_fd < 0 ? -errno : 0;
	return err ? pci_refuse(message, err, "vfio-pci does not open it: %s: lanefs unbind %s, then bind it again",
		strerror(-err), message->address) : 0;
}

/* The reset fails for a moment while somebody else holds the device's lock. One that it does not know is no loss: the
 * controller is stopped when its BAR has been mapped. */
static void device_reset(const struct vfio_transport *vfio)
{
	struct vfio_device_info info = {.argsz = sizeof(info)};
	if (ioctl(vfio->device_fd, VFIO_DEVICE_GET_INFO, &info) || !(info.flags & VFIO_DEVICE_FLAGS_RESET))
		return;
	for (unsigned i = 0; i < RESET_TRIES; i++) {
		if (ioctl(vfio->device_fd, VFIO_DEVICE_RESET) == 0)
			return;
		if (errno != EAGAIN)
			break;
		usleep(RESET_PAUSE_US);
	}
	log_warn("%s: it could not be reset: %s", vfio->transport.name, strerror(errno));
}

static int region_get(const struct vfio_transport *vfio, unsigned index, struct vfio_region_info *out,
	const struct pci_message *message)
{
	*out = (struct vfio_region_info){.argsz = sizeof(*out), .index = index};
	const int err = ioctl(vfio->device_fd, VFIO_DEVICE_GET_REGION_INFO, out) ? -errno : 0;
	return err ? pci_refuse(message, err,
		"vfio-pci does not describe it: %s: lanefs devices shows whether it is still there",
		strerror(-err)) : 0;
}

static int command_set(const struct vfio_transport *vfio, struct pci_command bits, const struct pci_message *message)
{
	const int err = pci_command_change(vfio->device_fd, vfio->config, bits);
	return err ? pci_refuse(message, err,
		"its configuration space does not answer: take it out and put it in again") : 0;
}

static int registers_open(struct vfio_transport *vfio, const struct pci_message *message)
{
	struct vfio_region_info config, bar;
	int err = region_get(vfio, VFIO_PCI_CONFIG_REGION_INDEX, &config, message);
	if (!err)
		err = region_get(vfio, VFIO_PCI_BAR0_REGION_INDEX, &bar, message);
	if (err)
		return err;
	if (!(bar.flags & VFIO_REGION_INFO_FLAG_MMAP))
		return pci_refuse(message, -ENOTSUP,
			"BAR 0 may not be mapped: lanefs bind %s --driver nvme, and mount its block device",
			message->address);
	vfio->config = (off_t)config.offset;
	err = command_set(vfio, (struct pci_command){.set = PCI_COMMAND_MEMORY, .clear = PCI_COMMAND_MASTER}, message);
	if (!err)
		err = pci_bar_map(&vfio->transport, vfio->device_fd, (off_t)bar.offset, (size_t)bar.size, message);
	if (!err)
		err = command_set(vfio, (struct pci_command){.set = PCI_COMMAND_MASTER}, message);
	return err;
}

static int vfio_start(struct vfio_transport *vfio, const struct pci_device *device, const struct pci_message *message)
{
	int err = vfio_iommu_open(&vfio->iommu, device, message);
	if (!err)
		err = device_open(vfio, message);
	if (err)
		return err;
	device_reset(vfio);
	err = registers_open(vfio, message);
	if (err)
		return err;
	interrupts_set(vfio);
	request_set(vfio);
	return 0;
}

int nvme_vfio_open(const char *address, struct nvme_transport **out, char *text, size_t text_size)
{
	struct pci_message message = {.text = text, .size = text_size};
	struct pci_device device;
	*out = NULL;
	int err = pci_transport_find(address, DRIVER, &device, &message);
	if (err)
		return err;
	if (!memory_has_eal())
		return pci_refuse(&message, -ENOTSUP,
			"this process was started without memory for devices: name the device when it starts");
	struct vfio_transport *vfio = calloc(1, sizeof(*vfio));
	if (!vfio)
		return pci_refuse(&message, -ENOMEM, "no memory: end other programs");
	*vfio = (struct vfio_transport){.transport.ops = &vfio_ops, .device_fd = -1, .request_fd = -1,
		.iommu = {.container_fd = -1, .group_fd = -1}};
	snprintf(vfio->transport.name, sizeof(vfio->transport.name), "%s", device.address);
	err = vfio_start(vfio, &device, &message);
	if (err)
		vfio_release(&vfio->transport);
	else
		*out = &vfio->transport;
	return err;
}
