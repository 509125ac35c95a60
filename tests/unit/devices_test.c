/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: `lanefs devices`, `bind`, `unbind` and `hugepages` say what is, do what is asked, and end with the right status.
 * Method: the commands as functions, on a made-up sysfs (pci_tree.h); what they print goes to a file and is read back.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "control/control.h"
#include "control/hugepages.h"
#include "nvme/pci.h"
#include "pci_tree.h"

#define DISK "0000:5e:00.0"

static char output[8192]; /* of the last command, standard error too */

static int tree_setup(void **state)
{
	pci_tree_create();
	return 0;
}
static int tree_teardown(void **state)
{
	pci_tree_destroy();
	hugepages_set_folder(NULL);
	return 0;
}

/* At most three arguments after the command's own name. */
static int run(int (*command)(int argc, char **argv), const char *const arguments[4])
{
	char *argv[6] = {"lanefs-command"};
	int argc = 1, saved[2] = {dup(STDOUT_FILENO), dup(STDERR_FILENO)};
	for (; arguments[argc - 1]; argc++)
		argv[argc] = (char *)arguments[argc - 1];
	const int file = memfd_create("output", MFD_CLOEXEC);
	fflush(NULL);
	dup2(file, STDOUT_FILENO);
	dup2(file, STDERR_FILENO);
	const int status = command(argc, argv);
	fflush(NULL);
	dup2(saved[0], STDOUT_FILENO);
	dup2(saved[1], STDERR_FILENO);
	close(saved[0]);
	close(saved[1]);
	const ssize_t got = pread(file, output, sizeof(output) - 1, 0);
	output[MAX(got, 0)] = '\0';
	close(file);
	return status;
}
#define RUN(command, ...) run(command, (const char *const[4]){__VA_ARGS__})

static void assert_said(const char *part)
{
	if (!strstr(output, part))
		fail_msg("expected \"%s\" in:\n%s", part, output);
}

static void disk_with(const char *driver, const char *group)
{
	pci_tree_device_add(&(struct pci_tree_device){.address = DISK, .driver = driver, .group = group,
		.controller = driver && !strcmp(driver, "nvme") ? "nvme0" : NULL});
}

static void test_every_command_explains_itself(void **state)
{
	int (*const commands[])(int argc, char **argv) = {control_devices, control_bind, control_unbind, control_hugepages};
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
		assert_int_equal(RUN(commands[i], "--help"), CONTROL_EXIT_OK);
		assert_said("Usage: lanefs ");
		assert_int_equal(RUN(commands[i], "-h"), CONTROL_EXIT_OK);
		assert_said("Usage: lanefs ");
	}
}

static void test_no_controller_is_no_failure(void **state)
{
	assert_int_equal(run(control_devices, (const char *const[4]){NULL}), CONTROL_EXIT_OK);
	assert_string_equal(output, "There is no NVMe controller on the PCI bus.\n");
	assert_int_equal(RUN(control_devices, "--json"), CONTROL_EXIT_OK);
	assert_said("[");
}

static void test_the_table_is_aligned(void **state)
{
	disk_with("nvme", "13");
	pci_tree_device_add(&(struct pci_tree_device){.address = "10000:01:00.0", .driver = "uio_pci_generic"});
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:5e:00.1", .class_code = "0x0c0330\n", .group = "13"});
	pci_tree_write("proc/self/mountinfo", "23 27 259:2 / /mnt rw - ext4 /dev/nvme0n1p2 rw\n");
	assert_int_equal(run(control_devices, (const char *const[4]){NULL}), CONTROL_EXIT_OK);
	assert_string_equal(output,
		"ADDRESS        DRIVER           IOMMU      NUMA  MODEL          SERIAL  IN USE BY\n"
		"0000:5e:00.0   nvme             13 (of 2)  -     ACME Fast 960  S1234   nvme0n1p2 is mounted at /mnt\n"
		"10000:01:00.0  uio_pci_generic  -          -     [1b36:0010]    -       -\n");
}

static void test_json_has_every_field(void **state)
{
	static const char *const fields[] = {"address", "driver", "vendor", "device", "iommu_group", "group_devices", "numa_node",
		"model", "serial", "users"};
	disk_with("nvme", "13");
	assert_int_equal(RUN(control_devices, "--json"), CONTROL_EXIT_OK);
	struct json_object *list = json_tokener_parse(output), *value;
	assert_non_null(list);
	assert_int_equal(json_object_array_length(list), 1);
	struct json_object *device = json_object_array_get_idx(list, 0);
	for (unsigned i = 0; i < ARRAY_SIZE(fields); i++)
		assert_true(json_object_object_get_ex(device, fields[i], &value));
	assert_true(json_object_object_get_ex(device, "numa_node", &value) && value == NULL);
	assert_true(json_object_object_get_ex(device, "iommu_group", &value) && json_object_get_int(value) == 13);
	assert_true(json_object_object_get_ex(device, "vendor", &value));
	assert_string_equal(json_object_get_string(value), "1b36");
	json_object_put(list);
}

static void test_wrong_usage_is_told(void **state)
{
	assert_int_equal(RUN(control_devices, "all"), CONTROL_EXIT_USAGE);
	assert_int_equal(RUN(control_devices, "--yaml"), CONTROL_EXIT_USAGE);
	assert_int_equal(run(control_bind, (const char *const[4]){NULL}), CONTROL_EXIT_USAGE);
	assert_said("ADDRESS is missing");
	assert_int_equal(RUN(control_bind, DISK, "--driver"), CONTROL_EXIT_USAGE);
	assert_int_equal(RUN(control_bind, DISK, "0000:5f:00.0"), CONTROL_EXIT_USAGE);
	assert_int_equal(RUN(control_unbind, DISK, "--driver=nvme"), CONTROL_EXIT_USAGE);
	assert_int_equal(RUN(control_bind, "--all"), CONTROL_EXIT_USAGE);
	assert_int_equal(RUN(control_bind, "all"), CONTROL_EXIT_USAGE);
	assert_said("lanefs: all: not a PCI address");
	disk_with("nvme", "13");
	assert_int_equal(RUN(control_bind, DISK, "--driver=e1000"), CONTROL_EXIT_USAGE);
}

static void test_refusals_have_their_status(void **state)
{
	assert_int_equal(RUN(control_bind, DISK), CONTROL_EXIT_NOT_FOUND);
	assert_string_equal(output, "lanefs: " DISK ": no such PCI device: lanefs devices lists them\n");
	assert_int_equal(RUN(control_unbind, DISK), CONTROL_EXIT_NOT_FOUND);
	disk_with("nvme", "13");
	pci_tree_write("proc/self/mountinfo", "23 27 259:2 / /mnt rw - ext4 /dev/nvme0n1p2 rw\n");
	assert_int_equal(RUN(control_bind, DISK), CONTROL_EXIT_FAILED);
	assert_string_equal(output, "lanefs: " DISK ": in use (nvme0n1p2 is mounted at /mnt): umount /mnt\n");
	pci_tree_device_add(&(struct pci_tree_device){.address = "0000:02:00.0", .class_code = "0x020000\n"});
	assert_int_equal(RUN(control_bind, "02:00.0"), CONTROL_EXIT_NOT_FOUND);
}

static void test_a_controller_goes_and_comes_back(void **state)
{
	disk_with("nvme", "13");
	pci_tree_kernel_start(NULL);
	const int bound = RUN(control_bind, "5E:00.0");
	assert_said(DISK ": vfio-pci has it now, before: nvme\n" DISK ": chown USER /dev/vfio/13 lets USER drive it\n");
	const int again = RUN(control_bind, DISK, "--driver", "vfio-pci");
	assert_said(DISK ": vfio-pci has it already\n");
	const int uio = RUN(control_bind, "--driver=uio_pci_generic", DISK);
	assert_said("no IOMMU stands between");
	const int back = RUN(control_unbind, DISK);
	assert_said(DISK ": nvme has it now, before: uio_pci_generic\n");
	pci_tree_kernel_stop();
	assert_int_equal(bound, CONTROL_EXIT_OK);
	assert_int_equal(again, CONTROL_EXIT_OK);
	assert_int_equal(uio, CONTROL_EXIT_OK);
	assert_int_equal(back, CONTROL_EXIT_OK);
}

/* ---- hugepages ---- */
static void test_counts_and_sizes_are_understood(void **state)
{
	static const struct { const char *text; uint64_t pages; } good[] = {{"0", 0}, {"512", 512}, {"1G", 512}, {"1GiB", 512},
		{"1gb", 512}, {"512M", 256}, {"3M", 2}, {"1K", 1}, {"0M", 0}, {"2T", 1 << 20}};
	static const char *const bad[] = {"", "-1", "+1", " 1", "1 G", "1X", "1GG", "G", "1.5G", "0x10", "1Mi"};
	uint64_t pages;
	for (unsigned i = 0; i < ARRAY_SIZE(good); i++) {
		assert_int_equal(hugepages_parse(good[i].text, &pages), 0);
		assert_int_equal(pages, good[i].pages);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(hugepages_parse(bad[i], &pages), -EINVAL);
	assert_int_equal(hugepages_parse("99999999999999999999999", &pages), -ERANGE);
	assert_int_equal(hugepages_parse("18446744073709551615", &pages), -ERANGE);
	assert_int_equal(hugepages_parse("18446744073709551615G", &pages), -ERANGE);
	assert_int_equal(hugepages_parse("16777216T", &pages), -ERANGE);
}

static void kernel_has(const char *reserved, const char *free_pages)
{
	static char folder[256];
	pci_tree_write("sys/hugepages/nr_hugepages", reserved);
	pci_tree_write("sys/hugepages/free_hugepages", free_pages);
	snprintf(folder, sizeof(folder), "%s", pci_tree_path("sys/hugepages"));
	hugepages_set_folder(folder);
}

static void test_hugepages_are_shown(void **state)
{
	kernel_has("512\n", "500\n");
	assert_int_equal(run(control_hugepages, (const char *const[4]){NULL}), CONTROL_EXIT_OK);
	assert_string_equal(output, "hugepages of 2 MiB: 512 (1.00 GiB) reserved, 12 in use, 500 free\n");
	pci_tree_write("sys/hugepages/nr_hugepages", "0\n");
	assert_int_equal(run(control_hugepages, (const char *const[4]){NULL}), CONTROL_EXIT_OK);
	assert_string_equal(output, "hugepages of 2 MiB: 0 (0 B) reserved, 0 in use, 0 free\n");
}

static void test_hugepages_are_set(void **state)
{
	kernel_has("512\n", "512\n");
	assert_int_equal(RUN(control_hugepages, "5M"), CONTROL_EXIT_OK);
	assert_said("hugepages of 2 MiB: 512 before\nhugepages of 2 MiB: 3 (6.00 MiB) reserved");
	assert_string_equal(pci_tree_read("sys/hugepages/nr_hugepages"), "3\n");
	assert_int_equal(RUN(control_hugepages, "0"), CONTROL_EXIT_OK);
	assert_string_equal(pci_tree_read("sys/hugepages/nr_hugepages"), "0\n");
}

static void test_hugepages_that_cannot_be_are_refused(void **state)
{
	kernel_has("1\n", "1\n");
	assert_int_equal(RUN(control_hugepages, "1024T"), CONTROL_EXIT_FAILED);
	assert_said("lanefs: hugepages: 1.00 PiB wanted, ");
	assert_string_equal(pci_tree_read("sys/hugepages/nr_hugepages"), "1\n");
	assert_int_equal(RUN(control_hugepages, "many"), CONTROL_EXIT_USAGE);
	assert_int_equal(RUN(control_hugepages, "1", "2"), CONTROL_EXIT_USAGE);
	assert_int_equal(RUN(control_hugepages, "99999999999999999999999"), CONTROL_EXIT_USAGE);
	hugepages_set_folder("/nowhere");
	assert_int_equal(RUN(control_hugepages, "1"), CONTROL_EXIT_FAILED);
	assert_string_equal(output, "lanefs: hugepages: this kernel has none of 2 MiB\n");
}

/* Stand-ins that answer something else than was written: a mask that knows few bits, and a time whose 0 is the default. */
static void test_what_the_kernel_gave_is_read_back(void **state)
{
	kernel_has("0\n", "0\n");
	pci_tree_link("sys/hugepages/nr_hugepages", "/proc/self/coredump_filter");
	assert_int_equal(RUN(control_hugepages, "513"), CONTROL_EXIT_FAILED);
	assert_said("lanefs: hugepages: 513 wanted, 1 found, which stay reserved: ");
	pci_tree_link("sys/hugepages/nr_hugepages", "/proc/self/timerslack_ns");
	assert_int_equal(RUN(control_hugepages, "0"), CONTROL_EXIT_FAILED);
	assert_said("lanefs: hugepages: 0 wanted, 50000 are left: ");
}

#define TREE_TEST(name) cmocka_unit_test_setup_teardown(name, tree_setup, tree_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_command_explains_itself),
		TREE_TEST(test_no_controller_is_no_failure),
		TREE_TEST(test_the_table_is_aligned),
		TREE_TEST(test_json_has_every_field),
		TREE_TEST(test_wrong_usage_is_told),
		TREE_TEST(test_refusals_have_their_status),
		TREE_TEST(test_a_controller_goes_and_comes_back),
		cmocka_unit_test(test_counts_and_sizes_are_understood),
		TREE_TEST(test_hugepages_are_shown),
		TREE_TEST(test_hugepages_are_set),
		TREE_TEST(test_hugepages_that_cannot_be_are_refused),
		TREE_TEST(test_what_the_kernel_gave_is_read_back),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
