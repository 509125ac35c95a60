/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Shared by vfio.c and uio.c. Only the registers and the doorbells of a BAR are mapped: it may hold a controller memory
 * buffer of gigabytes behind them.
 */
#include "nvme/pci_transport_internal.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "reactor/bar_guard.h"
#include "reactor/printable.h"

enum { POLL_NS = 1000000, CAP_TO_UNIT_MS = 500, CLASS_SHIFT = 8 };

int pci_refuse(const struct pci_message *message, int err, const char *format, ...)
{
	va_list arguments;
	const int length = snprintf(message->text, message->size, "%.64s: ", message->address);
	if (length < 0 || (size_t)length >= message->size)
		return err;
	va_start(arguments, format);
	vsnprintf(message->text + length, message->size - (size_t)length, format, arguments);
	va_end(arguments);
	text_make_printable(message->text, strlen(message->text));
	return err;
}

/* ---- the device ---- */
static int driver_refuse(const struct pci_device *device, const char *driver, const struct pci_message *message)
{
	const bool by_default = !strcmp(driver, "vfio-pci");
	const char *option = by_default ? "" : " --driver ", *name = by_default ? "" : driver;
	if (device->users[0])
		return pci_refuse(message, -EBUSY,
			"driver %s has it, and it is in use (%s): end that, then lanefs bind %s%s%s",
			device->driver, device->users, device->address, option, name);
	return pci_refuse(message, -ENODEV, "%s%s has it, not %s: lanefs bind %s%s%s",
		device->driver[0] ? "driver " : "no driver", device->driver, driver, device->address, option, name);
}

int pci_transport_find(const char *address, const char *driver, struct pci_device *out, struct pci_message *message)
{
	char full[PCI_ADDRESS_BYTES];
	message->address = address;
	if (pci_address_parse(address, full))
		return pci_refuse(message, -EINVAL,
			"not a PCI address such as 0000:5e:00.0: lanefs devices lists them");
	const int err = pci_get(full, out);
	message->address = out->address;
	if (err == -ENODEV)
		return pci_refuse(message, err, "no such PCI device: lanefs devices lists them");
	if (err == -EMEDIUMTYPE)
		return pci_refuse(message, -ENODEV, "class 0x%06x, not an NVMe controller: lanefs devices lists them",
			out->class_code);
	if (err)
		return pci_refuse(message, err, "%s: lanefs devices tries again", strerror(-err));
	return strcmp(out->driver, driver) ? driver_refuse(out, driver, message) : 0;
}

/* ---- configuration space: little endian, as the bus ---- */
int pci_command_change(int fd, off_t config, struct pci_command bits)
{
	uint16_t command;
	if (pread(fd, &command, sizeof(command), config + PCI_COMMAND) != sizeof(command) || command == UINT16_MAX)
		return -ENODEV;
	const uint16_t wanted = htole16((le16toh(command) & ~bits.clear) | bits.set);
	if (wanted != command && pwrite(fd, &wanted, sizeof(wanted), config + PCI_COMMAND) != sizeof(wanted))
		return -ENODEV;
	return 0;
}

bool pci_config_alive(int fd, off_t config)
{
	/* Not the first dword: vfio answers that from its cache. */
	uint32_t class_code;
	return pread(fd, &class_code, sizeof(class_code), config + PCI_CLASS_REVISION) == sizeof(class_code) &&
		le32toh(class_code) >> CLASS_SHIFT == PCI_CLASS_NVME;
}

/* ---- registers ---- */
static int controller_stop(struct nvme_transport *transport, const struct pci_message *message)
{
	const uint32_t cc = nvme_read32(transport, NVME_REG_CC);
	const uint64_t cap = nvme_read64(transport, NVME_REG_CAP);
	if (nvme_read32(transport, NVME_REG_VS) == UINT32_MAX || cap == UINT64_MAX)
		return pci_refuse(message, -ENODEV, "its registers do not answer: take it out and put it in again");
	if (!FIELD_GET(CC_EN, cc))
		return 0;
	nvme_write32(transport, NVME_REG_CC, cc & ~(uint32_t)FIELD_SET(CC_EN, 1));
	const unsigned limit_ms = (unsigned)(FIELD_GET(CAP_TO, cap) + 1) * CAP_TO_UNIT_MS;
	for (unsigned waited_ms = 0; FIELD_GET(CSTS_RDY, nvme_read32(transport, NVME_REG_CSTS)); waited_ms++) {
		if (waited_ms >= limit_ms)
			return pci_refuse(message, -EIO,
				"it does not stop (CC.EN = 0) within %u ms: take it out and put it in again",
				limit_ms);
		nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
	}
	return 0;
}

int pci_bar_map(struct nvme_transport *transport, int fd, off_t offset, size_t size, const struct pci_message *message)
{
	const size_t bytes = MIN(size, (size_t)BAR_GUARD_BYTES_MAX);
	if (bytes <= NVME_REG_DOORBELLS)
		return pci_refuse(message, -ENODEV,
			"BAR 0 has %zu bytes, too few for an NVMe controller: it cannot be used", bytes);
	void *bar = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
	if (bar == MAP_FAILED) {
		const int err = -errno;
		return pci_refuse(message, err,
			"BAR 0 cannot be mapped: %s: does the kernel forbid it (dmesg | grep -i lockdown)?",
			strerror(-err));
	}
	int err = bar_guard_add(bar, bytes, &transport->gone);
	if (err) {
		munmap(bar, bytes);
		return pci_refuse(message, err, "BAR 0 cannot be guarded: %s: use fewer devices in one process",
			strerror(-err));
	}
	transport->bar = bar;
	transport->bar_bytes = bytes;
	err = controller_stop(transport, message);
	if (err)
		pci_bar_unmap(transport);
	return err;
}

void pci_bar_unmap(struct nvme_transport *transport)
{
	if (!transport->bar)
		return;
	bar_guard_remove((void *)transport->bar);
	munmap((void *)transport->bar, transport->bar_bytes);
	transport->bar = NULL;
}
