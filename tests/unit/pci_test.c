/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: controllers are listed as sysfs has them, a device in use is seen to be in use in every way there is, and moving
 * one refuses with a line that helps, or does exactly what was asked. Method: a made-up sysfs and procfs (pci_tree.h);
 * where a device has to move, with a thread that plays the kernel.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "nvme/pci_internal.h"
#include "pci_tree.h"

#define DISK "0000:5e:00.0"
#define DISK_SYSFS "sys/bus/pci/devices/" DISK "/"
#define DISK_NVME DISK_SYSFS "nvme/nvme0/"

static char message[512];

static int tree_setup(void **state)
{
	pci_tree_create();
	message[0] = '\0';
	return 0;
}
static int tree_teardown(void **state)
{
	pci_tree_destroy();
	return 0;
}

static void disk_with(const char *driver, const char *group)
{
	pci_tree_device_add(&(struct pci_tree_device){.address = DISK, .driver = driver, .group = group,
		.controller = driver && !strcmp(driver, "nvme") ? "nvme0" : NULL});
}

/* ---- addresses and listing ---- */
static void test_addresses_are_read_in_both_forms(void **state)
{
	char out[PCI_ADDRESS_BYTES];
	assert_int_equal(pci_address_parse("0000:5e:00.0", out), 0);
	assert_string_equal(out, "0000:5e:00.0");
	assert_int_equal(pci_address_parse("5E:1F.7", out), 0);
	assert_string_equal(out, "0000:5e:1f.7");
	assert_int_equal(pci_address_parse("10000:E1:00.0", out), 0);
	assert_string_equal(out, "10000:e1:00.0");
}

static void test_what_is_no_address_is_refused(void **state)
{
	static const char *const bad[] = {"", ":", "5e", "5e:00", "5e:00.", "5e:00.8", "5e:20.0", "5e:00.0 ", " 5e:00.0", "5e:00.0.0",
		"0x5e:00.0", "-5e:00.0", "0000:5e:00.0/", "../../etc", "0000:5e:000.0", "0000:15e:00.0", "100000000:5e:00.0",
		"0000000000005e:00.0", "nvme0", "0000:5e:00:0"};
	char out[PCI_ADDRESS_BYTES] = "untouched";
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(pci_address_parse(bad[i], out), -EINVAL);
	assert_string_equal(out, "untouched");
}

static void test_a_machine_without_devices_has_none(void **state)
{
	struct pci_device device;
	assert_int_equal(pci_list(&device, 1), 0); /* not even the folder */
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:00:02.0", .class_code = "0x020000\n"});
	assert_int_equal(pci_list(&device, 1), 0);
}

static void test_controllers_are_listed_in_order(void **state)
{
	static const char *const sorted[] = {"0000:03:00.0", "0000:5e:00.0", "0000:5e:00.1", "0000:5e:01.0", "10000:01:00.0"};
	static const unsigned order[] = {4, 2, 0, 3, 1};
	struct pci_device devices[8];
	for (unsigned i = 0; i < ARRAY_SIZE(order); i++)
		pci_tree_device_add(&(struct pci_tree_device){.address = sorted[order[i]]});
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:04:00.0", .class_code = "0x010601\n"});
	assert_int_equal(pci_list(devices, ARRAY_SIZE(devices)), ARRAY_SIZE(sorted));
	for (unsigned i = 0; i < ARRAY_SIZE(sorted); i++)
		assert_string_equal(devices[i].address, sorted[i]);
	assert_int_equal(pci_list(devices, 2), 2);
	assert_string_equal(devices[1].address, "0000:5e:00.0");
}

static void test_everything_about_a_device_is_read(void **state)
{
	struct pci_device device;
	disk_with("nvme", "13");
	pci_tree_write(DISK_SYSFS "numa_node", "1\n");
	assert_int_equal(pci_get("5E:00.0", &device), 0);
	assert_string_equal(device.address, DISK);
	assert_string_equal(device.driver, "nvme");
	assert_int_equal(device.class_code, PCI_CLASS_NVME);
	assert_int_equal(device.vendor, 0x1b36);
	assert_int_equal(device.device, 0x0010);
	assert_int_equal(device.iommu_group, 13);
	assert_int_equal(device.group_devices, 1);
	assert_int_equal(device.numa_node, 1);
	assert_string_equal(device.model, "ACME Fast 960");
	assert_string_equal(device.serial, "S1234");
	assert_string_equal(device.users, "");
}

/* While the kernel's driver starts the controller. */
static void test_what_the_driver_does_not_know_yet_is_empty(void **state)
{
	static const char *const not_yet[] = {"(efault)\n", "(null)\n", "\n"};
	struct pci_device device;
	disk_with("nvme", "13");
	for (unsigned i = 0; i < ARRAY_SIZE(not_yet); i++) {
		pci_tree_write(DISK_SYSFS "nvme/nvme0/serial", not_yet[i]);
		pci_tree_write(DISK_SYSFS "nvme/nvme0/model", not_yet[i]);
		assert_int_equal(pci_get(DISK, &device), 0);
		assert_string_equal(device.serial, "");
		assert_string_equal(device.model, "");
	}
}

static void test_what_is_not_said_is_empty_or_minus_one(void **state)
{
	struct pci_device device;
	disk_with(NULL, NULL);
	pci_tree_remove(DISK_SYSFS "numa_node");
	assert_int_equal(pci_get(DISK, &device), 0);
	assert_string_equal(device.driver, "");
	assert_int_equal(device.iommu_group, -1);
	assert_int_equal(device.group_devices, 0);
	assert_int_equal(device.numa_node, -1);
	assert_string_equal(device.model, "");
}

static void test_bridges_do_not_count_in_a_group(void **state)
{
	struct pci_device device;
	disk_with("nvme", "13");
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:5d:00.0", .class_code = "0x060400\n", .group = "13"});
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:5e:00.1", .class_code = "0x0c0330\n", .group = "13"});
	assert_int_equal(pci_get(DISK, &device), 0);
	assert_int_equal(device.group_devices, 2);
}

static void test_a_device_that_is_no_controller_is_told_apart(void **state)
{
	struct pci_device device;
	pci_tree_device_add(&(struct pci_tree_device){.address = DISK, .class_code = "0x020000\n"});
	assert_int_equal(pci_get(DISK, &device), -EMEDIUMTYPE);
	assert_int_equal(device.class_code, 0x020000);
	assert_int_equal(pci_get("0000:5f:00.0", &device), -ENODEV);
	assert_int_equal(pci_get("../../etc", &device), -ENODEV);
}

/* ---- who uses it ---- */
static void assert_users(const char *expected)
{
	struct pci_device device;
	assert_int_equal(pci_get(DISK, &device), 0);
	assert_string_equal(device.users, expected);
}

static void test_mounts_are_found_by_device_number(void **state)
{
	disk_with("nvme", NULL);
	pci_tree_write("proc/self/mountinfo", "22 27 0:21 / /proc rw - proc proc rw\n"
		"23 27 259:2 / / rw,relatime shared:1 - ext4 /dev/root rw\n24 27 259:2 /x /bound rw - ext4 /dev/root rw\n"
		"25 27 259:20 / /other rw - ext4 /dev/nvme2n1p1 rw\n26 27 240:0 / /char rw - ext4 none rw\n");
	assert_users("nvme0n1p2 is mounted at /");
	pci_tree_write("proc/self/mountinfo", "23 27 259:0 / /whole\\040disk rw - xfs /dev/nvme0n1 rw\n");
	assert_users("nvme0n1 is mounted at /whole\\040disk");
}

static void test_mounts_with_numbers_of_their_own_are_found_by_name(void **state)
{
	disk_with("nvme", NULL);
	pci_tree_write("proc/self/mountinfo", "23 27 0:40 /@home /home rw - btrfs /dev/nvme0n1p1 rw,subvol=/@home\n");
	assert_users("nvme0n1p1 is mounted at /home");
	pci_tree_write("proc/self/mountinfo", "23 27 0:40 / /home rw - btrfs /dev/nvme0n1p11 rw\nshort line\n\n");
	assert_users("");
}

static void test_swap_is_found(void **state)
{
	disk_with("nvme", NULL);
	pci_tree_write("proc/swaps", "Filename Type Size Used Priority\n/dev/nvme1n1p2 partition 9 0 -3\n"
		"/dev/nvme0n1p1\t\t\t\tpartition\t999\t0\t-2\n");
	assert_users("nvme0n1p1 is swap");
}

static void test_volumes_are_found(void **state)
{
	disk_with("nvme", NULL);
	pci_tree_write(DISK_NVME "nvme0n1/nvme0n1p2/holders/dm-0/dev", "253:0\n");
	pci_tree_write("sys/class/block/dm-0/dm/name", "vg-root\n");
	assert_users("nvme0n1p2 is part of dm-0 (vg-root)");
	pci_tree_write(DISK_NVME "nvme0n1/holders/md127/dev", "9:127\n");
	assert_users("nvme0n1 is part of md127, nvme0n1p2 is part of dm-0 (vg-root)");
}

static void test_a_disk_of_a_shared_namespace_is_found_in_its_subsystem(void **state)
{
	disk_with("nvme", NULL);
	pci_tree_write(DISK_NVME "nvme0c0n1/size", "1000\n");
	pci_tree_link("sys/class/nvme-subsystem/nvme-subsys7", "../../devices/virtual/nvme-subsystem/nvme-subsys7");
	pci_tree_write("sys/devices/virtual/nvme-subsystem/nvme-subsys7/nvme7n1/dev", "259:9\n");
	pci_tree_write("sys/devices/virtual/nvme-subsystem/nvme-subsys7/nvme7n1/size", "1000\n");
	pci_tree_write("proc/self/mountinfo", "23 27 259:9 / /shared rw - ext4 /dev/nvme7n1 rw\n");
	assert_users(""); /* a subsystem of others */
	pci_tree_link("sys/devices/virtual/nvme-subsystem/nvme-subsys7/nvme0", "../../../pci0000:00/" DISK "/nvme/nvme0");
	assert_users("nvme7n1 is mounted at /shared");
}

static void process_with(const char *process, const char *command, const char *open_file)
{
	char path[64];
	snprintf(path, sizeof(path), "proc/%s/comm", process);
	pci_tree_write(path, command);
	snprintf(path, sizeof(path), "proc/%s/fd/0", process);
	pci_tree_link(path, "/dev/null");
	snprintf(path, sizeof(path), "proc/%s/fd/1", process);
	pci_tree_link(path, "socket:[4711]");
	snprintf(path, sizeof(path), "proc/%s/fd/7", process);
	pci_tree_link(path, open_file);
}

static void test_a_process_on_the_vfio_group_is_found(void **state)
{
	disk_with("vfio-pci", "13");
	process_with("4711", "mount.lanefs\n", "/dev/vfio/13");
	process_with("4712", "qemu\n", "/dev/vfio/1");
	process_with("4713", "qemu\n", "/dev/vfio/vfio");
	assert_users("process 4711 (mount.lanefs)");
	pci_tree_write(DISK_SYSFS "vfio-dev/vfio3/dev", "240:3\n");
	process_with("4711", "mount.lanefs\n", "/dev/vfio/devices/vfio3");
	assert_users("process 4711 (mount.lanefs)");
}

static void test_a_process_on_uio_is_found(void **state)
{
	disk_with("uio_pci_generic", NULL);
	pci_tree_write(DISK_SYSFS "uio/uio5/dev", "240:5\n");
	process_with("31", "a\nb", "/dev/uio5");
	assert_users("process 31 (a)");
	process_with("31", "spdk_tgt\n", "/sys/devices/pci0000:00/0000:00:02.0/" DISK "/resource0");
	pci_tree_link("proc/31/fd/8", "/dev/uio5"); /* named once */
	assert_users("process 31 (spdk_tgt)");
	process_with("31", "spdk_tgt\n", "/sys/devices/pci0000:00/0000:00:02.0/0000:5f:00.0/resource0");
	pci_tree_remove("proc/31/fd/8");
	assert_users("");
}

static void test_a_process_on_the_disk_is_found_unless_it_is_udev(void **state)
{
	disk_with("nvme", NULL);
	pci_tree_write(DISK_NVME "ng0n1/dev", "241:0\n");
	process_with("99", "(udev-worker)\n", "/dev/nvme0n1");
	assert_users("");
	process_with("100", "lspci\n", "/sys/devices/pci0000:00/" DISK "/config");
	assert_users("");
	process_with("101", "dd\n", "/dev/nvme0n1p2");
	assert_users("process 101 (dd)");
	process_with("101", "fio\n", "/dev/ng0n1");
	assert_users("process 101 (fio)");
	process_with("101", "fio\n", "/dev/nvme0n10");
	assert_users("");
}

static void test_more_users_than_fit_end_in_dots(void **state)
{
	struct pci_device device;
	char process[16];
	disk_with("vfio-pci", "13");
	for (unsigned i = 0; i < 40; i++) {
		snprintf(process, sizeof(process), "%u", 1000 + i);
		process_with(process, "holder\n", "/dev/vfio/13");
	}
	assert_int_equal(pci_get(DISK, &device), 0);
	const size_t length = strlen(device.users);
	assert_true(length > PCI_USERS_BYTES / 2 && length < PCI_USERS_BYTES);
	assert_string_equal(device.users + length - 5, ", ...");
	assert_null(strstr(device.users, "..., "));
}

static void test_users_of_several_controllers_are_told_apart(void **state)
{
	struct pci_device devices[2];
	disk_with("nvme", NULL);
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:5f:00.0", .driver = "vfio-pci", .group = "14"});
	pci_tree_write("proc/self/mountinfo", "23 27 259:1 / /a rw - ext4 /dev/nvme0n1p1 rw\n");
	process_with("5", "both\n", "/dev/vfio/14");
	pci_tree_link("proc/5/fd/9", "/dev/nvme0n1");
	assert_int_equal(pci_list(devices, 2), 2);
	assert_string_equal(devices[0].users, "nvme0n1p1 is mounted at /a, process 5 (both)");
	assert_string_equal(devices[1].users, "process 5 (both)");
}

/* ---- refusing ---- */
static void assert_refused(const char *driver, int expected, const char *line)
{
	const int err = driver ? pci_bind(DISK, driver, message, sizeof(message)) : pci_unbind(DISK, message, sizeof(message));
	assert_string_equal(message, line);
	assert_int_equal(err, expected);
	assert_null(strchr(message, '\n'));
	assert_string_equal(pci_tree_read("sys/bus/pci/drivers_probe"), "");
	assert_string_equal(pci_tree_read("sys/bus/pci/drivers/nvme/unbind"), "");
	assert_string_equal(pci_tree_read("sys/bus/pci/drivers/vfio-pci/unbind"), "");
}

static void test_only_a_controller_that_is_there_is_moved(void **state)
{
	assert_refused("vfio-pci", -ENODEV, DISK ": no such PCI device: lanefs devices lists them");
	assert_refused(NULL, -ENODEV, DISK ": no such PCI device: lanefs devices lists them");
	assert_int_equal(pci_bind("sda", "vfio-pci", message, sizeof(message)), -EINVAL);
	assert_string_equal(message, "sda: not a PCI address such as 0000:5e:00.0: lanefs devices lists them");
	pci_tree_device_add(&(struct pci_tree_device){.address = DISK, .class_code = "0x020000\n", .group = "1"});
	assert_refused("vfio-pci", -EMEDIUMTYPE, DISK ": class 0x020000, not an NVMe controller: lanefs devices lists them");
}

static void test_an_unknown_driver_is_refused(void **state)
{
	disk_with("nvme", "13");
	assert_refused("e1000", -EINVAL,
		DISK ": driver e1000 is not one of vfio-pci, uio_pci_generic, nvme: lanefs bind " DISK);
	assert_refused("../../x", -EINVAL,
		DISK ": driver ../../x is not one of vfio-pci, uio_pci_generic, nvme: lanefs bind " DISK);
}

static void test_a_device_in_use_is_refused(void **state)
{
	disk_with("nvme", "13");
	pci_tree_write("proc/self/mountinfo", "23 27 259:2 / /mnt rw - ext4 /dev/nvme0n1p2 rw\n");
	assert_refused("vfio-pci", -EBUSY, DISK ": in use (nvme0n1p2 is mounted at /mnt): umount /mnt");
	pci_tree_write("proc/self/mountinfo", "");
	pci_tree_write("proc/swaps", "/dev/nvme0n1p1 partition 999 0 -2\n");
	assert_refused("uio_pci_generic", -EBUSY, DISK ": in use (nvme0n1p1 is swap): swapoff /dev/nvme0n1p1");
}

static void test_giving_back_a_device_in_use_is_refused(void **state)
{
	disk_with("vfio-pci", "13");
	process_with("4711", "mount.lanefs\n", "/dev/vfio/13");
	assert_refused(NULL, -EBUSY, DISK ": in use (process 4711 (mount.lanefs)): "
		"lanefs unmount DIR (lanefs status shows where process 4711 is mounted)");
}

static void test_every_use_has_its_remedy(void **state)
{
	static const char *const pairs[][2] = {{"nvme0n1p2 is mounted at /mnt/a, nvme0n1p1 is swap", "umount /mnt/a"},
		{"nvme0n1p1 is swap", "swapoff /dev/nvme0n1p1"}, {"nvme0n1 is part of dm-0 (vg-root)", "dmsetup remove vg-root"},
		{"nvme0n1 is part of md127, process 3 (x)", "mdadm --stop /dev/md127"}, {"process 31 (spdk_tgt)", "kill 31"},
		{"nvme0n1 is claimed by the kernel", "grep nvme0n1 /proc/*/mountinfo (shows other namespaces' mounts)"}};
	char out[256];
	for (unsigned i = 0; i < ARRAY_SIZE(pairs); i++) {
		pci_users_mend(pairs[i][0], out, sizeof(out));
		assert_string_equal(out, pairs[i][1]);
	}
}

static void test_vfio_without_an_iommu_is_refused(void **state)
{
	disk_with("nvme", NULL);
	assert_refused("vfio-pci", -ENOTSUP, DISK ": no IOMMU protects it, which vfio-pci needs: boot with intel_iommu=on or, "
		"trusting the device, lanefs bind " DISK " --driver uio_pci_generic");
}

static void test_vfio_beside_a_device_of_the_host_is_refused(void **state)
{
	disk_with("nvme", "13");
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:5e:00.1", .class_code = "0x0c0330\n", .group = "13",
		.driver = "xhci_hcd"});
	assert_refused("vfio-pci", -EPERM, DISK ": its IOMMU group 13 has 0000:5e:00.1 too, which driver xhci_hcd uses: "
		"echo 0000:5e:00.1 > /sys/bus/pci/devices/0000:5e:00.1/driver/unbind");
}

static void test_a_module_that_is_missing_is_refused(void **state)
{
	disk_with("nvme", "13");
	pci_tree_remove("sys/bus/pci/drivers/uio_pci_generic/unbind");
	pci_tree_remove("sys/bus/pci/drivers/uio_pci_generic");
	assert_refused("uio_pci_generic", -ENOENT, DISK ": the module uio_pci_generic is not loaded, and cannot be: "
		"modprobe uio_pci_generic");
	assert_string_equal(pci_tree_read(DISK_SYSFS "driver_override"), "(null)\n");
}

static void unprivileged_bind(void)
{
	if (geteuid() == 0 && setresuid(65534, 65534, 65534))
		_exit(2);
	const int err = pci_bind(DISK, "vfio-pci", message, sizeof(message));
	_exit(err == -EACCES && !strcmp(message, DISK ": its driver cannot be changed: Permission denied: sudo lanefs bind "
		DISK " --driver vfio-pci") ? 0 : 1);
}

static void test_without_permission_nothing_is_tried(void **state)
{
	int status;
	disk_with("nvme", "13");
	assert_int_equal(chmod(pci_tree_path(DISK_SYSFS "driver_override"), 0444), 0);
	const pid_t pid = fork();
	if (pid == 0)
		unprivileged_bind();
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_a_message_is_cut_to_its_room(void **state)
{
	char small[8] = "1234567";
	assert_int_equal(pci_bind(DISK, "vfio-pci", small, sizeof(small)), -ENODEV);
	assert_string_equal(small, "0000:5e");
	assert_int_equal(pci_bind(DISK, "vfio-pci", NULL, 0), -ENODEV);
	assert_int_equal(pci_unbind(DISK, NULL, 0), -ENODEV);
}

/* ---- moving ---- */
static int bind_with_kernel(const char *driver, const char *refuses)
{
	pci_tree_kernel_start(refuses);
	const int err = driver ? pci_bind(DISK, driver, message, sizeof(message)) : pci_unbind(DISK, message, sizeof(message));
	/* What was asked for last may still be under way. */
	for (unsigned i = 0; i < 1000 && pci_tree_read("sys/bus/pci/drivers_probe")[0]; i++)
		usleep(1000);
	pci_tree_kernel_stop();
	return err;
}

static void test_a_device_moves_to_the_wanted_driver(void **state)
{
	disk_with("nvme", "13");
	/* Beside it in the group: what does no harm. */
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:5d:00.0", .class_code = "0x060400\n", .group = "13",
		.driver = "shpchp"});
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:5e:00.1", .group = "13", .driver = "vfio-pci"});
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:5e:00.2", .group = "13"});
	assert_int_equal(bind_with_kernel("vfio-pci", NULL), 0);
	assert_string_equal(message, "");
	assert_string_equal(pci_tree_driver(DISK), "vfio-pci");
	assert_string_equal(pci_tree_driver("0000:5e:00.2"), "");
	assert_int_equal(bind_with_kernel("uio_pci_generic", NULL), 0);
	assert_string_equal(pci_tree_driver(DISK), "uio_pci_generic");
	assert_int_equal(bind_with_kernel("nvme", NULL), 0);
	assert_string_equal(pci_tree_driver(DISK), "nvme");
}

static void test_a_device_without_a_driver_is_bound(void **state)
{
	disk_with(NULL, "13");
	assert_int_equal(bind_with_kernel("vfio-pci", NULL), 0);
	assert_string_equal(pci_tree_driver(DISK), "vfio-pci");
	assert_string_equal(pci_tree_read(DISK_SYSFS "driver_override"), "vfio-pci");
}

static void test_already_there_writes_nothing(void **state)
{
	disk_with("vfio-pci", "13");
	process_with("4711", "mount.lanefs\n", "/dev/vfio/13");
	assert_int_equal(pci_bind("5e:00.0", "vfio-pci", message, sizeof(message)), 0);
	assert_string_equal(pci_tree_read(DISK_SYSFS "driver_override"), "(null)\n");
	assert_string_equal(pci_tree_read("sys/bus/pci/drivers_probe"), "");
}

static void test_a_device_is_given_back(void **state)
{
	disk_with("nvme", "13");
	assert_int_equal(bind_with_kernel("vfio-pci", NULL), 0);
	assert_int_equal(bind_with_kernel(NULL, NULL), 0);
	assert_string_equal(message, "");
	assert_string_equal(pci_tree_driver(DISK), "nvme");
}

static void test_giving_back_what_the_kernel_has_clears_the_override(void **state)
{
	disk_with("nvme", "13");
	pci_tree_write(DISK_SYSFS "driver_override", "");
	pci_tree_write("proc/self/mountinfo", "23 27 259:2 / /mnt rw - ext4 /dev/nvme0n1p2 rw\n"); /* and does not disturb it */
	assert_int_equal(pci_unbind(DISK, message, sizeof(message)), 0);
	assert_string_equal(pci_tree_read(DISK_SYSFS "driver_override"), "\n");
	assert_string_equal(pci_tree_driver(DISK), "nvme");
	assert_string_equal(pci_tree_read("sys/bus/pci/drivers_probe"), "");
}

static void test_what_is_written_without_a_kernel(void **state)
{
	disk_with("nvme", "13");
	pci_tree_write(DISK_SYSFS "driver_override", "");
	assert_int_equal(pci_bind(DISK, "vfio-pci", message, sizeof(message)), -ETIMEDOUT);
	assert_string_equal(message, DISK ": driver vfio-pci did not take it: dmesg says why");
	assert_string_equal(pci_tree_read("sys/bus/pci/drivers/nvme/unbind"), DISK);
	assert_string_equal(pci_tree_read("sys/bus/pci/drivers_probe"), DISK);
	/* "vfio-pci", and over it the new line that puts back what was there. */
	assert_string_equal(pci_tree_read(DISK_SYSFS "driver_override"), "\nfio-pci");
}

static void test_a_driver_that_refuses_leaves_the_device_where_it_was(void **state)
{
	disk_with("nvme", "13");
	assert_int_equal(bind_with_kernel("vfio-pci", "vfio-pci"), -ETIMEDOUT);
	assert_string_equal(message, DISK ": driver vfio-pci did not take it: dmesg says why");
	assert_string_equal(pci_tree_driver(DISK), "nvme");
	assert_int_equal(bind_with_kernel("vfio-pci", NULL), 0);
	assert_int_equal(bind_with_kernel(NULL, "nvme"), -ETIMEDOUT);
	assert_string_equal(pci_tree_driver(DISK), "vfio-pci");
}

static void test_a_failing_write_is_named(void **state)
{
	char line[512];
	disk_with("nvme", "13");
	pci_tree_remove("sys/bus/pci/drivers/nvme/unbind");
	assert_int_equal(pci_bind(DISK, "vfio-pci", message, sizeof(message)), -ENOENT);
	snprintf(line, sizeof(line), DISK ": writing %s: No such file or directory: dmesg says why",
		pci_tree_path("sys/bus/pci/drivers/nvme/unbind"));
	assert_string_equal(message, line);
}

static void test_the_machines_own_tree_can_be_listed(void **state)
{
	struct pci_device *devices = calloc(PCI_DEVICES_MAX, sizeof(*devices));
	pci_set_roots(NULL, NULL);
	const int count = pci_list(devices, PCI_DEVICES_MAX);
	free(devices);
	assert_true(count >= 0);
}

#define TREE_TEST(name) cmocka_unit_test_setup_teardown(name, tree_setup, tree_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_addresses_are_read_in_both_forms),
		cmocka_unit_test(test_what_is_no_address_is_refused),
		TREE_TEST(test_a_machine_without_devices_has_none),
		TREE_TEST(test_controllers_are_listed_in_order),
		TREE_TEST(test_everything_about_a_device_is_read),
		TREE_TEST(test_what_the_driver_does_not_know_yet_is_empty),
		TREE_TEST(test_what_is_not_said_is_empty_or_minus_one),
		TREE_TEST(test_bridges_do_not_count_in_a_group),
		TREE_TEST(test_a_device_that_is_no_controller_is_told_apart),
		TREE_TEST(test_mounts_are_found_by_device_number),
		TREE_TEST(test_mounts_with_numbers_of_their_own_are_found_by_name),
		TREE_TEST(test_swap_is_found),
		TREE_TEST(test_volumes_are_found),
		TREE_TEST(test_a_disk_of_a_shared_namespace_is_found_in_its_subsystem),
		TREE_TEST(test_a_process_on_the_vfio_group_is_found),
		TREE_TEST(test_a_process_on_uio_is_found),
		TREE_TEST(test_a_process_on_the_disk_is_found_unless_it_is_udev),
		TREE_TEST(test_more_users_than_fit_end_in_dots),
		TREE_TEST(test_users_of_several_controllers_are_told_apart),
		TREE_TEST(test_only_a_controller_that_is_there_is_moved),
		TREE_TEST(test_an_unknown_driver_is_refused),
		TREE_TEST(test_a_device_in_use_is_refused),
		TREE_TEST(test_giving_back_a_device_in_use_is_refused),
		cmocka_unit_test(test_every_use_has_its_remedy),
		TREE_TEST(test_vfio_without_an_iommu_is_refused),
		TREE_TEST(test_vfio_beside_a_device_of_the_host_is_refused),
		TREE_TEST(test_a_module_that_is_missing_is_refused),
		TREE_TEST(test_without_permission_nothing_is_tried),
		TREE_TEST(test_a_message_is_cut_to_its_room),
		TREE_TEST(test_a_device_moves_to_the_wanted_driver),
		TREE_TEST(test_a_device_without_a_driver_is_bound),
		TREE_TEST(test_already_there_writes_nothing),
		TREE_TEST(test_a_device_is_given_back),
		TREE_TEST(test_giving_back_what_the_kernel_has_clears_the_override),
		TREE_TEST(test_what_is_written_without_a_kernel),
		TREE_TEST(test_a_driver_that_refuses_leaves_the_device_where_it_was),
		TREE_TEST(test_a_failing_write_is_named),
		TREE_TEST(test_the_machines_own_tree_can_be_listed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
