/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The made-up tree. Every device and group is a real folder below sys/devices, with the links of a real sysfs.
 */
#include "pci_tree.h"

#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvme/pci.h"

enum { KERNEL_PAUSE_US = 500 };

static char root[64], sysfs[80], procfs[80];
static const char *const drivers[] = {"nvme", "vfio-pci", "uio_pci_generic"};

const char *pci_tree_path(const char *path)
{
	static __thread char out[2][PATH_MAX];
	static __thread unsigned turn;
	turn = !turn;
	snprintf(out[turn], sizeof(out[turn]), "%s/%s", root, path);
	return out[turn];
}

static void folders_make(const char *full)
{
	char copy[PATH_MAX];
	snprintf(copy, sizeof(copy), "%s", full);
	for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		mkdir(copy, 0755);
		*slash = '/';
	}
}

static void file_write(const char *path, const char *text)
{
	FILE *file = fopen(pci_tree_path(path), "we");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

void pci_tree_write(const char *path, const char *text)
{
	folders_make(pci_tree_path(path));
	file_write(path, text);
}

void pci_tree_link(const char *path, const char *target)
{
	folders_make(pci_tree_path(path));
	unlink(pci_tree_path(path));
	assert_int_equal(symlink(target, pci_tree_path(path)), 0);
}

void pci_tree_remove(const char *path) { remove(pci_tree_path(path)); }

const char *pci_tree_read(const char *path)
{
	static __thread char text[256];
	FILE *file = fopen(pci_tree_path(path), "re");
	const size_t got = file ? fread(text, 1, sizeof(text) - 1, file) : 0;
	text[got] = '\0';
	if (file)
		fclose(file);
	return text;
}

static const char *device_path(const char *address, const char *file)
{
	static __thread char out[512];
	snprintf(out, sizeof(out), "sys/bus/pci/devices/%s/%s", address, file);
	return out;
}

const char *pci_tree_driver(const char *address)
{
	static __thread char target[512];
	const ssize_t length = readlink(pci_tree_path(device_path(address, "driver")), target, sizeof(target) - 1);
	target[MAX(length, 0)] = '\0';
	const char *slash = strrchr(target, '/');
	return slash ? slash + 1 : target;
}

void pci_tree_create(void)
{
	char path[128];
	snprintf(root, sizeof(root), "/tmp/lanefs-pci-test-XXXXXX");
	assert_non_null(mkdtemp(root));
	chmod(root, 0755);
	snprintf(sysfs, sizeof(sysfs), "%s/sys", root);
	snprintf(procfs, sizeof(procfs), "%s/proc", root);
	pci_tree_write("sys/bus/pci/drivers_probe", "");
	for (unsigned i = 0; i < ARRAY_SIZE(drivers); i++) {
		snprintf(path, sizeof(path), "sys/bus/pci/drivers/%s/unbind", drivers[i]);
		pci_tree_write(path, "");
	}
	pci_tree_write("proc/self/mountinfo", "22 27 0:21 / /proc rw,relatime - proc proc rw\n");
	pci_tree_write("proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	pci_set_roots(sysfs, procfs);
}

static int entry_remove(const char *path, const struct stat *st, int type, struct FTW *where) { return remove(path); }

void pci_tree_destroy(void)
{
	pci_set_roots(NULL, NULL);
	nftw(root, entry_remove, 16, FTW_DEPTH | FTW_PHYS);
}

static void driver_set(const char *address, const char *driver)
{
	char target[128];
	snprintf(target, sizeof(target), "../../../../bus/pci/drivers/%s", driver);
	pci_tree_link(device_path(address, "driver"), target);
}

static void controller_add(const char *address, const char *name)
{
	static const struct { const char *file, *text; } files[] = {{"model", "ACME Fast 960                           \n"},
		{"serial", "S1234               \n"}, {"dev", "240:0\n"}, {"%sn1/dev", "259:0\n"}, {"%sn1/size", "1000\n"},
		{"%sn1/%sn1p1/dev", "259:1\n"}, {"%sn1/%sn1p1/partition", "1\n"}, {"%sn1/%sn1p2/dev", "259:2\n"},
		{"%sn1/%sn1p2/partition", "2\n"}, {"%sn1/queue/rotational", "0\n"}};
	char file[256], path[256];
	for (unsigned i = 0; i < ARRAY_SIZE(files); i++) {
		size_t used = 0;
		for (const char *at = files[i].file; *at; at += *at == '%' ? 2 : 1)
			used += (size_t)snprintf(file + used, sizeof(file) - used, *at == '%' ? "%s" : "%.1s", *at == '%' ? name : at);
		snprintf(path, sizeof(path), "nvme/%s/%.200s", name, file);
		pci_tree_write(device_path(address, path), files[i].text);
	}
}

void pci_tree_device_add(const struct pci_tree_device *device)
{
	char path[256], target[128];
	const char *address = device->address;
	snprintf(path, sizeof(path), "sys/devices/pci0000:00/%s/class", address);
	pci_tree_write(path, device->class_code ? device->class_code : "0x010802\n");
	snprintf(path, sizeof(path), "sys/bus/pci/devices/%s", address);
	snprintf(target, sizeof(target), "../../../devices/pci0000:00/%s", address);
	pci_tree_link(path, target);
	pci_tree_write(device_path(address, "vendor"), "0x1b36\n");
	pci_tree_write(device_path(address, "device"), "0x0010\n");
	pci_tree_write(device_path(address, "numa_node"), "-1\n");
	pci_tree_write(device_path(address, "driver_override"), "(null)\n");
	if (device->driver)
		driver_set(address, device->driver);
	if (device->group) {
		snprintf(target, sizeof(target), "../../../kernel/iommu_groups/%s", device->group);
		pci_tree_link(device_path(address, "iommu_group"), target);
		snprintf(path, sizeof(path), "sys/kernel/iommu_groups/%s/devices/%s", device->group, address);
		snprintf(target, sizeof(target), "../../../../devices/pci0000:00/%s", address);
		pci_tree_link(path, target);
	}
	if (device->controller)
		controller_add(address, device->controller);
}

/* ---- the kernel ---- */
static struct {
	pthread_t thread;
	atomic_bool stop;
	const char *refuses;
} kernel;

static void kernel_unbind(void)
{
	char path[128], address[64];
	for (unsigned i = 0; i < ARRAY_SIZE(drivers); i++) {
		snprintf(path, sizeof(path), "sys/bus/pci/drivers/%s/unbind", drivers[i]);
		snprintf(address, sizeof(address), "%.60s", pci_tree_read(path));
		if (!address[0])
			continue;
		if (!strcmp(pci_tree_driver(address), drivers[i]))
			pci_tree_remove(device_path(address, "driver"));
		file_write(path, "");
	}
}

/* Writing in sysfs replaces the whole value; in a file what was longer would keep its end. */
static void override_trim(const char *address, char driver[64])
{
	snprintf(driver, 64, "%.60s", pci_tree_read(device_path(address, "driver_override")));
	driver[strcspn(driver, "\n")] = '\0';
	for (unsigned i = 0; i < ARRAY_SIZE(drivers); i++)
		if (!strncmp(driver, drivers[i], strlen(drivers[i])))
			driver[strlen(drivers[i])] = '\0';
	file_write(device_path(address, "driver_override"), driver);
}

static void kernel_probe(const char *address)
{
	char driver[64];
	override_trim(address, driver);
	if (pci_tree_driver(address)[0])
		return;
	if (!driver[0] || driver[0] == '(')
		snprintf(driver, sizeof(driver), "nvme");
	if (!kernel.refuses || strcmp(driver, kernel.refuses))
		driver_set(address, driver);
}

static void *kernel_run(void *arg)
{
	char address[64];
	while (!atomic_load(&kernel.stop)) {
		/* Looked at before the unbinding, which whoever wrote this has written before. */
		snprintf(address, sizeof(address), "%.60s", pci_tree_read("sys/bus/pci/drivers_probe"));
		kernel_unbind();
		if (address[0]) {
			file_write("sys/bus/pci/drivers_probe", "");
			kernel_probe(address);
		}
		usleep(KERNEL_PAUSE_US);
	}
	return NULL;
}

void pci_tree_kernel_start(const char *refuses)
{
	kernel.refuses = refuses;
	atomic_store(&kernel.stop, false);
	assert_int_equal(pthread_create(&kernel.thread, NULL, kernel_run, NULL), 0);
}

void pci_tree_kernel_stop(void)
{
	atomic_store(&kernel.stop, true);
	assert_int_equal(pthread_join(kernel.thread, NULL), 0);
}
