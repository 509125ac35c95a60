/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A controller that uio_pci_generic has. There is no IOMMU between it and memory: it is given physical addresses and
 * can reach everything, which is why only root may and only who asks for it does. There are no interrupts (the driver
 * generic to all devices offers only the shared line): queues are polled.
 *
 * Registers and configuration space are files in sysfs. /dev/uioN is held open beside them, because the kernel switches
 * bus mastering off when it is closed: a process that dies does not leave a controller writing into memory that is
 * somebody else's by then. For the same reason a second process must not so much as open it: a lock on the
 * configuration file keeps it out before that.
 *
 * When the device is removed the kernel waits for nobody. The mapping stays, and reads whatever sits at that address
 * next: it is unmapped at once by release, which never blocks. The configuration file answers ENODEV from then on.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "nvme/pci_internal.h"
#include "nvme/pci_transport_internal.h"
#include "reactor/memory.h"

#define DRIVER "uio_pci_generic"

struct uio_transport {
	struct nvme_transport transport;
	int config_fd, uio_fd;
};

static struct uio_transport *uio_of(struct nvme_transport *transport)
{
	return CONTAINER_OF(transport, struct uio_transport, transport);
}

/* ---- the transport ---- */
static int uio_interrupt_fd(struct nvme_transport *transport, uint16_t qid) { return -1; }
static int uio_request_fd(struct nvme_transport *transport) { return -1; }
static bool uio_alive(struct nvme_transport *transport) { return pci_config_alive(uio_of(transport)->config_fd, 0); }

static void uio_stop_dma(struct nvme_transport *transport)
{
	/* It fails when the device is gone, which is as good. */
	(void)!pci_command_change(uio_of(transport)->config_fd, 0, (struct pci_command){.clear = PCI_COMMAND_MASTER});
}

static void uio_release(struct nvme_transport *transport)
{
	struct uio_transport *uio = uio_of(transport);
	pci_bar_unmap(transport);
	if (uio->config_fd >= 0) {
		uio_stop_dma(transport);
		close(uio->config_fd);
	}
	if (uio->uio_fd >= 0)
		close(uio->uio_fd);
	free(uio);
}

static const struct nvme_transport_ops uio_ops = {
	.name = "uio",
	.interrupt_fd = uio_interrupt_fd,
	.alive = uio_alive,
	.request_fd = uio_request_fd,
	.stop_dma = uio_stop_dma,
	.release = uio_release,
};

/* ---- opening ---- */
static int memory_check(const struct pci_message *message)
{
	if (geteuid() != 0)
		return pci_refuse(message, -EACCES, "only root may use a device through " DRIVER ": run it as root, or "
			"lanefs bind %s --driver vfio-pci", message->address);
	if (!memory_is_physical())
		return pci_refuse(message, -ENOTSUP,
			DRIVER " needs hugepages and physical addresses, which this process was not started "
			"with: sysctl -w vm.nr_hugepages=128, and start it again");
	return 0;
}

/* Physical addresses reach memory only when the IOMMU lets them pass. */
static int iommu_check(const struct pci_device *device, const struct pci_message *message)
{
	char path[128], type[32];
	if (device->iommu_group < 0)
		return 0;
	snprintf(path, sizeof(path), "/sys/kernel/iommu_groups/%d/type", device->iommu_group);
	if (pci_text_read(path, type, sizeof(type)) || strncmp(type, "DMA", 3))
		return 0;
	return pci_refuse(message, -ENOTSUP,
		"an IOMMU translates its addresses, so " DRIVER " cannot work: lanefs bind %s "
		"--driver vfio-pci", device->address);
}

static int sysfs_open(const struct pci_device *device, const char *file, int *out, const struct pci_message *message)
{
	char path[128];
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", device->address, file);
	*out = open(path, O_RDWR | O_CLOEXEC);
	const int err = *out < 0 ? -errno : 0;
	return err ? pci_refuse(message, err, "%s cannot be opened: %s: lanefs devices shows whether it is still there",
		path, strerror(-err)) : 0;
}

/* /dev/uioN of the device. */
static int node_open(struct uio_transport *uio, const struct pci_device *device, const struct pci_message *message)
{
	char path[128], name[32];
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/uio", device->address);
	DIR *folder = opendir(path);
	const char *entry = pci_folder_next(folder);
	snprintf(name, sizeof(name), "%s", entry ? entry : "uio");
	pci_folder_close(folder);
	snprintf(path, sizeof(path), "/dev/%s", name);
	uio->uio_fd = open(path, O_RDWR | O_CLOEXEC);
	const int err = uio->uio_fd < 0 ? -errno : 0;
	return err ? pci_refuse(message, err, "%s cannot be opened: %s: lanefs unbind %s, then bind it again", path,
		strerror(-err), device->address) : 0;
}

static int config_open(struct uio_transport *uio, const struct pci_device *device, const struct pci_message *message)
{
	const int err = sysfs_open(device, "config", &uio->config_fd, message);
	if (err || flock(uio->config_fd, LOCK_EX | LOCK_NB) == 0)
		return err;
	close(uio->config_fd);
	uio->config_fd = -1; /* nothing of it is ours to stop */
	return pci_refuse(message, -EBUSY, "in use (%s): unmount it first",
		device->users[0] ? device->users : "another process");
}

static int bar_map(struct uio_transport *uio, const struct pci_device *device, const struct pci_message *message)
{
	int fd;
	struct stat status = {0};
	int err = sysfs_open(device, "resource0", &fd, message);
	if (err)
		return err;
	if (fstat(fd, &status))
		err = pci_refuse(message, -errno, "BAR 0: %s: lanefs devices shows whether it is still there",
			strerror(errno));
	else
		err = pci_bar_map(&uio->transport, fd, 0, (size_t)status.st_size, message);
	close(fd);
	return err;
}

static int command_set(struct uio_transport *uio, struct pci_command bits, const struct pci_message *message)
{
	const int err = pci_command_change(uio->config_fd, 0, bits);
	return err ? pci_refuse(message, err,
		"its configuration space does not answer: lanefs devices shows whether it is still there") : 0;
}

static int uio_start(struct uio_transport *uio, const struct pci_device *device, const struct pci_message *message)
{
	int err = config_open(uio, device, message);
	if (!err)
		err = node_open(uio, device, message);
	/* Without bus mastering until what an earlier owner left running has stopped. */
	if (!err)
		err = command_set(uio, (struct pci_command){.set = PCI_COMMAND_MEMORY | PCI_COMMAND_INTX_DISABLE,
			.clear = PCI_COMMAND_MASTER}, message);
	if (!err)
		err = bar_map(uio, device, message);
	if (!err)
		err = command_set(uio, (struct pci_command){.set = PCI_COMMAND_MASTER}, message);
	return err;
}

int nvme_uio_open(const char *address, struct nvme_transport **out, char *text, size_t text_size)
{
	struct pci_message message = {.text = text, .size = text_size};
	struct pci_device device;
	*out = NULL;
	int err = pci_transport_find(address, DRIVER, &device, &message);
	if (!err)
		err = memory_check(&message);
	if (!err)
		err = iommu_check(&device, &message);
	if (err)
		return err;
	struct uio_transport *uio = calloc(1, sizeof(*uio));
	if (!uio)
		return pci_refuse(&message, -ENOMEM, "no memory: end other programs");
	*uio = (struct uio_transport){.transport.ops = &uio_ops, .config_fd = -1, .uio_fd = -1};
	snprintf(uio->transport.name, sizeof(uio->transport.name), "%s", device.address);
	err = uio_start(uio, &device, &message);
	if (err)
		uio_release(&uio->transport);
	else
		*out = &uio->transport;
	return err;
}
