/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What sysfs says of NVMe controllers. A device is a folder /sys/bus/pci/devices/ADDRESS; what is not there, or
 * vanishes while it is read (hot removal), is empty or -1: only the folder itself decides whether there is a device.
 */
#include "nvme/pci_internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { CLASS_BASE_SHIFT = 16, CLASS_BASE_BRIDGE = 0x06, DOMAIN_DIGITS_MAX = 8 };

static const char *sysfs = "/sys", *procfs = "/proc";
static bool roots_are_real = true;

void pci_set_roots(const char *sysfs_root, const char *procfs_root)
{
	sysfs = sysfs_root ? sysfs_root : "/sys";
	procfs = procfs_root ? procfs_root : "/proc";
	roots_are_real = !sysfs_root && !procfs_root;
}

bool pci_roots_are_real(void) { return roots_are_real; }
const char *pci_procfs(void) { return procfs; }

const char *pci_path(char out[PCI_PATH_BYTES], const char *format, ...)
{
	const size_t root = (size_t)snprintf(out, PCI_PATH_BYTES, "%s/", sysfs);
	va_list arguments;
	va_start(arguments, format);
	const int rest = root < PCI_PATH_BYTES ? vsnprintf(out + root, PCI_PATH_BYTES - root, format, arguments) : -1;
	va_end(arguments);
	if (rest < 0 || root + (size_t)rest >= PCI_PATH_BYTES)
		out[0] = '\0';
	return out;
}

int pci_text_read(const char *path, char *out, size_t size)
{
	out[0] = '\0';
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	const ssize_t got = read(fd, out, size - 1);
	const int err = got < 0 ? -errno : 0;
	close(fd);
	out[MAX(got, 0)] = '\0';
	size_t length = strcspn(out, "\n");
	while (length > 0 && isspace((unsigned char)out[length - 1]))
		length--;
	out[length] = '\0';
	return err;
}

bool pci_link_read(const char *path, char *out, size_t size)
{
	char target[PCI_PATH_BYTES];
	const ssize_t length = readlink(path, target, sizeof(target) - 1);
	target[MAX(length, 0)] = '\0';
	const char *slash = strrchr(target, '/'), *name = slash ? slash + 1 : target;
	const size_t kept = MIN(strlen(name), size - 1);
	memcpy(out, name, kept);
	out[kept] = '\0';
	return length > 0;
}

const char *pci_folder_next(DIR *folder)
{
	struct dirent *entry;
	while (folder && (entry = readdir(folder)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			return entry->d_name;
	return NULL;
}

/* ---- addresses ---- */
struct address {
	unsigned domain, bus, device, function;
};

/* Exactly "D:B:d.f": sscanf alone would take signs, white space and "0x". */
static bool address_split(const char *text, struct address *out)
{
	int used = 0;
	if (strspn(text, "0123456789abcdefABCDEF:.") != strlen(text))
		return false;
	if (strspn(text, "0123456789abcdefABCDEF") > DOMAIN_DIGITS_MAX)
		return false;
	*out = (struct address){};
	if (sscanf(text, "%x:%2x:%2x.%1x%n", &out->domain, &out->bus, &out->device, &out->function, &used) != 4) {
		out->domain = 0;
		used = 0;
		if (sscanf(text, "%2x:%2x.%1x%n", &out->bus, &out->device, &out->function, &used) != 3)
			return false;
	}
	return text[used] == '\0' && out->device < 32 && out->function < 8;
}

int pci_address_parse(const char *text, char out[PCI_ADDRESS_BYTES])
{
	struct address at;
	char full[32];
	if (!address_split(text, &at))
		return -EINVAL;
	const int length = snprintf(full, sizeof(full), "%04x:%02x:%02x.%x", at.domain, at.bus, at.device, at.function);
	if (length >= PCI_ADDRESS_BYTES)
		return -EINVAL;
	memcpy(out, full, (size_t)length + 1);
	return 0;
}

static int device_compare(const void *left, const void *right)
{
	const struct pci_device *a = left, *b = right;
	struct address x = {}, y = {};
	(void)!address_split(a->address, &x);
	(void)!address_split(b->address, &y);
	const unsigned pairs[][2] = {{x.domain, y.domain}, {x.bus, y.bus}, {x.device, y.device}, {x.function, y.function}};
	for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++)
		if (pairs[i][0] != pairs[i][1])
			return pairs[i][0] < pairs[i][1] ? -1 : 1;
	return 0;
}

/* ---- one device ---- */
static long number_read(const char *address, const char *file, long otherwise)
{
	char path[PCI_PATH_BYTES], text[PCI_TEXT_BYTES], *end;
	if (pci_text_read(pci_path(path, "bus/pci/devices/%s/%s", address, file), text, sizeof(text)))
		return otherwise;
	const long value = strtol(text, &end, 0);
	return end != text && *end == '\0' ? value : otherwise;
}

static void group_read(struct pci_device *device)
{
	char path[PCI_PATH_BYTES], name[32], *end;
	device->iommu_group = -1;
	if (!pci_link_read(pci_path(path, "bus/pci/devices/%s/iommu_group", device->address), name, sizeof(name)))
		return;
	const long group = strtol(name, &end, 10);
	if (end == name || *end || group < 0 || group > INT_MAX)
		return;
	device->iommu_group = (int)group;
	DIR *folder = opendir(pci_path(path, "bus/pci/devices/%s/iommu_group/devices", device->address));
	for (const char *other; (other = pci_folder_next(folder));)
		device->group_devices += number_read(other, "class", 0) >> CLASS_BASE_SHIFT != CLASS_BASE_BRIDGE;
	pci_folder_close(folder);
}

/* A driver that has not asked the controller yet prints a pointer to nothing, which the kernel turns into this. */
static void name_read(const char *path, char *out, size_t size)
{
	pci_text_read(path, out, size);
	if (!strcmp(out, "(efault)") || !strcmp(out, "(null)"))
		out[0] = '\0';
}

/* The kernel's nvme driver keeps model and serial in the folder nvme/nvme0 below the device. */
static void names_read(struct pci_device *device)
{
	char path[PCI_PATH_BYTES];
	DIR *folder = opendir(pci_path(path, "bus/pci/devices/%s/nvme", device->address));
	const char *controller = pci_folder_next(folder);
	if (controller) {
		name_read(pci_path(path, "bus/pci/devices/%s/nvme/%s/model", device->address, controller), device->model,
			sizeof(device->model));
		name_read(pci_path(path, "bus/pci/devices/%s/nvme/%s/serial", device->address, controller), device->serial,
			sizeof(device->serial));
	}
	pci_folder_close(folder);
}

/* All but the users. */
static int device_read(const char *address, struct pci_device *out)
{
	char path[PCI_PATH_BYTES];
	*out = (struct pci_device){};
	snprintf(out->address, sizeof(out->address), "%s", address);
	const long class_code = number_read(address, "class", -1);
	if (class_code < 0)
		return -ENODEV;
	out->class_code = (uint32_t)class_code;
	out->vendor = (uint16_t)number_read(address, "vendor", 0);
	out->device = (uint16_t)number_read(address, "device", 0);
	out->numa_node = (int)number_read(address, "numa_node", -1);
	pci_link_read(pci_path(path, "bus/pci/devices/%s/driver", address), out->driver, sizeof(out->driver));
	group_read(out);
	names_read(out);
	return 0;
}

int pci_get(const char *address, struct pci_device *out)
{
	char full[PCI_ADDRESS_BYTES];
	*out = (struct pci_device){};
	if (pci_address_parse(address, full))
		return -ENODEV;
	const int err = device_read(full, out);
	if (err)
		return err;
	if (out->class_code != PCI_CLASS_NVME)
		return -EMEDIUMTYPE;
	return pci_users_fill(out, 1);
}

int pci_list(struct pci_device *devices, unsigned count_max)
{
	char path[PCI_PATH_BYTES], address[PCI_ADDRESS_BYTES];
	struct pci_device *found = calloc(PCI_DEVICES_MAX, sizeof(*found));
	if (!found)
		return -ENOMEM;
	DIR *folder = opendir(pci_path(path, "bus/pci/devices"));
	const int missing = folder ? 0 : -errno;
	unsigned count = 0;
	for (const char *name; count < PCI_DEVICES_MAX && (name = pci_folder_next(folder));)
		if (!pci_address_parse(name, address) && number_read(address, "class", -1) == PCI_CLASS_NVME)
			count += device_read(address, &found[count]) == 0;
	pci_folder_close(folder);
	qsort(found, count, sizeof(*found), device_compare);
	count = MIN(count, count_max);
	const int err = missing && missing != -ENOENT ? missing : pci_users_fill(found, count);
	if (!err)
		memcpy(devices, found, count * sizeof(*found));
	free(found);
	return err ? err : (int)count;
}

/* ---- IOMMU groups ---- */

static bool driver_shares_group(const char *driver)
{
	static const char *const harmless[] = {"", "vfio-pci", "pci-stub", "pcieport"};
	for (unsigned i = 0; i < ARRAY_SIZE(harmless); i++)
		if (!strcmp(harmless[i], driver))
			return true;
	return false;
}

static bool is_bridge(const char *address)
{
	enum { CLASS_BRIDGE = 0x06 };
	char path[PCI_PATH_BYTES], text[32];
	return !pci_text_read(pci_path(path, "bus/pci/devices/%s/class", address), text, sizeof(text)) &&
		strtoul(text, NULL, 0) >> 16 == CLASS_BRIDGE;
}

bool pci_group_blocker(const struct pci_device *device, char other[PCI_ADDRESS_BYTES], char driver[PCI_DRIVER_BYTES])
{
	char path[PCI_PATH_BYTES];
	bool found = false;
	DIR *folder = opendir(pci_path(path, "bus/pci/devices/%s/iommu_group/devices", device->address));
	for (const char *name; !found && (name = pci_folder_next(folder));) {
		pci_link_read(pci_path(path, "bus/pci/devices/%s/driver", name), driver, PCI_DRIVER_BYTES);
		found = strcmp(name, device->address) != 0 && !is_bridge(name) && !driver_shares_group(driver);
		snprintf(other, PCI_ADDRESS_BYTES, "%.15s", name);
	}
	pci_folder_close(folder);
	return found;
}
