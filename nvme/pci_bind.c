/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Moving one device from driver to driver. All that may refuse is asked first, without touching anything; then three
 * writes in sysfs:
 *
 *   driver_override of the device   the one driver that may have it (a new line: any that fits)
 *   driver/unbind                   the old driver lets go
 *   drivers_probe of the bus        the new one is offered the device
 *
 * When the new driver does not take it, the old override is put back and the device is offered again.
 * Between the question who uses the device and the unbinding somebody may begin to: the kernel then treats him as on a
 * removal. There is no call that would exclude it.
 */
#include "nvme/pci_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "reactor/printable.h"

#define DRIVER_VFIO "vfio-pci"
#define DRIVER_UIO "uio_pci_generic"
#define DRIVER_KERNEL "nvme"

enum { PROBE_POLL_MS = 10, PROBE_WAIT_MS = 10000, PROBE_WAIT_OF_TEST_MS = 500 };

struct move {
	struct pci_device device;
	char override[PCI_DRIVER_BYTES]; /* what was there before */
	const char *driver; /* the wanted one */
	char *message;
	size_t message_size;
};

/* "0000:5e:00.0: cause: command that mends it". Returns @err. */
static int PRINTF_LIKE(3, 4) refuse(struct move *move, int err, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (move->message_size > 0)
		vsnprintf(move->message, move->message_size, format, arguments);
	va_end(arguments);
	text_make_printable(move->message, move->message_size > 0 ? strlen(move->message) : 0);
	return err;
}

/* ---- what may be asked without touching anything ---- */
static int device_find(struct move *move, const char *address)
{
	char full[PCI_ADDRESS_BYTES];
	if (pci_address_parse(address, full))
		return refuse(move, -EINVAL, "%.64s: not a PCI address such as 0000:5e:00.0: lanefs devices lists them", address);
	const int err = pci_get(full, &move->device);
	if (err == -ENODEV)
		return refuse(move, err, "%s: no such PCI device: lanefs devices lists them", full);
	if (err == -EMEDIUMTYPE)
		return refuse(move, err, "%s: class 0x%06x, not an NVMe controller: lanefs devices lists them", full,
			move->device.class_code);
	return err ? refuse(move, err, "%s: %s: lanefs devices tries again", full, strerror(-err)) : 0;
}

static bool driver_is_known(const char *driver)
{
	static const char *const known[] = {DRIVER_VFIO, DRIVER_UIO, DRIVER_KERNEL};
	for (unsigned i = 0; i < ARRAY_SIZE(known); i++)
		if (!strcmp(known[i], driver))
			return true;
	return false;
}

static int users_check(struct move *move)
{
	char mend[PCI_TEXT_BYTES + 128];
	if (!move->device.users[0])
		return 0;
	pci_users_mend(move->device.users, mend, sizeof(mend));
	return refuse(move, -EBUSY, "%s: in use (%s): %s", move->device.address, move->device.users, mend);
}

static int group_check(struct move *move)
{
	const struct pci_device *device = &move->device;
	char other[PCI_ADDRESS_BYTES], driver[PCI_DRIVER_BYTES];
	if (device->iommu_group < 0)
		return refuse(move, -ENOTSUP, "%s: no IOMMU protects it, which " DRIVER_VFIO " needs: boot with intel_iommu=on or, "
			"trusting the device, lanefs bind %s --driver " DRIVER_UIO, device->address, device->address);
	if (!pci_group_blocker(device, other, driver))
		return 0;
	return refuse(move, -EPERM, "%s: its IOMMU group %d has %s too, which driver %s uses: "
		"echo %s > /sys/bus/pci/devices/%s/driver/unbind", device->address, device->iommu_group, other, driver, other, other);
}

static int permission_check(struct move *move)
{
	char path[PCI_PATH_BYTES];
	const char *address = move->device.address;
	if (access(pci_path(path, "bus/pci/devices/%s/driver_override", address), W_OK) == 0)
		return 0;
	const int err = errno == EACCES || errno == EPERM ? -EACCES : -errno;
	return refuse(move, err, "%s: its driver cannot be changed: %s: sudo lanefs bind %s --driver %s", address,
		strerror(-err), address, move->driver);
}

static bool driver_is_loaded(const char *driver)
{
	char path[PCI_PATH_BYTES];
	return access(pci_path(path, "bus/pci/drivers/%s", driver), F_OK) == 0;
}

static void module_load(const char *driver)
{
	char *arguments[] = {"modprobe", "-q", (char *)driver, NULL}, *environment[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	int status;
	pid_t pid;
	if (posix_spawn(&pid, "/sbin/modprobe", NULL, NULL, arguments, environment) == 0)
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
}

static int driver_check(struct move *move)
{
	if (!driver_is_loaded(move->driver) && pci_roots_are_real())
		module_load(move->driver);
	if (driver_is_loaded(move->driver))
		return 0;
	return refuse(move, -ENOENT, "%s: the module %s is not loaded, and cannot be: modprobe %s", move->device.address,
		move->driver, move->driver);
}

/* ---- the move ---- */
static int sysfs_write(struct move *move, const char *path, const char *text)
{
	int err = 0;
	const int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		err = -errno;
	if (fd >= 0)
		close(fd);
	return err ? refuse(move, err, "%s: writing %s: %s: dmesg says why", move->device.address, path, strerror(-err)) : 0;
}

/* The kernel says "(null)" when there is none. */
static void override_read(struct move *move)
{
	char path[PCI_PATH_BYTES];
	pci_text_read(pci_path(path, "bus/pci/devices/%s/driver_override", move->device.address), move->override,
		sizeof(move->override));
	if (!move->override[0] || move->override[0] == '(')
		snprintf(move->override, sizeof(move->override), "\n");
}

static int override_write(struct move *move, const char *driver)
{
	char path[PCI_PATH_BYTES];
	return sysfs_write(move, pci_path(path, "bus/pci/devices/%s/driver_override", move->device.address), driver);
}

static int driver_let_go(struct move *move)
{
	char path[PCI_PATH_BYTES];
	if (!move->device.driver[0])
		return 0;
	return sysfs_write(move, pci_path(path, "bus/pci/drivers/%s/unbind", move->device.driver), move->device.address);
}

static bool driver_has_it(const struct move *move)
{
	char path[PCI_PATH_BYTES], driver[PCI_DRIVER_BYTES];
	pci_link_read(pci_path(path, "bus/pci/devices/%s/driver", move->device.address), driver, sizeof(driver));
	return !strcmp(driver, move->driver);
}

static uint64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / NS_PER_MS;
}

/* A probe may go on after the write has returned. */
static int driver_probe(struct move *move)
{
	char path[PCI_PATH_BYTES];
	const struct timespec pause = {.tv_nsec = PROBE_POLL_MS * NS_PER_MS};
	const uint64_t until_ms = now_ms() + (pci_roots_are_real() ? PROBE_WAIT_MS : PROBE_WAIT_OF_TEST_MS);
	int err = sysfs_write(move, pci_path(path, "bus/pci/drivers_probe"), move->device.address);
	while (!err && !driver_has_it(move)) {
		if (now_ms() >= until_ms)
			return refuse(move, -ETIMEDOUT, "%s: driver %s did not take it: dmesg says why", move->device.address,
				move->driver);
		nanosleep(&pause, NULL);
	}
	return err;
}

/* What went wrong has been said: silently as far as it goes. */
static void give_back(const struct move *failed)
{
	struct move back = {.device = failed->device};
	char path[PCI_PATH_BYTES];
	if (override_write(&back, failed->override) == 0)
		(void)!sysfs_write(&back, pci_path(path, "bus/pci/drivers_probe"), back.device.address);
}

static int device_move(struct move *move, const char *override)
{
	override_read(move);
	int err = override_write(move, override);
	if (err)
		return err;
	err = driver_let_go(move);
	if (!err)
		err = driver_probe(move);
	if (err)
		give_back(move);
	return err;
}

static struct move move_begin(const char *driver, char *message, size_t message_size)
{
	if (message_size > 0)
		message[0] = '\0';
	return (struct move){.driver = driver, .message = message, .message_size = message_size};
}

int pci_bind(const char *address, const char *driver, char *message, size_t message_size)
{
	struct move move = move_begin(driver, message, message_size);
	int err = device_find(&move, address);
	if (err)
		return err;
	if (!driver_is_known(driver))
		return refuse(&move, -EINVAL, "%s: driver %.32s is not one of " DRIVER_VFIO ", " DRIVER_UIO ", " DRIVER_KERNEL
			": lanefs bind %s", move.device.address, driver, move.device.address);
	if (!strcmp(move.device.driver, driver))
		return 0;
	err = users_check(&move);
	if (!err && !strcmp(driver, DRIVER_VFIO))
		err = group_check(&move);
	if (!err)
		err = permission_check(&move);
	if (!err)
		err = driver_check(&move);
	return err ? err : device_move(&move, driver);
}

int pci_unbind(const char *address, char *message, size_t message_size)
{
	struct move move = move_begin(DRIVER_KERNEL, message, message_size);
	int err = device_find(&move, address);
	if (!err)
		err = permission_check(&move);
	if (err)
		return err;
	/* The kernel has it: an override that is left would only matter the next time. */
	if (!strcmp(move.device.driver, DRIVER_KERNEL))
		return override_write(&move, "\n");
	err = users_check(&move);
	if (!err)
		err = driver_check(&move);
	return err ? err : device_move(&move, "\n");
}
