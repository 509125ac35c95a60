/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a device that cannot be driven is refused with the right error and one line that says what to do, before
 * anything of it is touched. Method: made-up devices in a made-up sysfs; what needs a real device is in tests/vm.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "nvme/transport.h"
#include "pci_tree.h"
#include "reactor/memory.h"

static char message[512];
static struct nvme_transport *transport;

static int vfio(const char *address) { return nvme_vfio_open(address, &transport, message, sizeof(message)); }
static int uio(const char *address) { return nvme_uio_open(address, &transport, message, sizeof(message)); }

static void assert_says(const char *text)
{
	if (!strstr(message, text) || strchr(message, '\n'))
		fail_msg("the message is: %s", message);
	assert_null(transport);
}

static void test_what_is_no_address_is_refused(void **state)
{
	assert_int_equal(vfio("nvme0"), -EINVAL);
	assert_says("nvme0: not a PCI address such as 0000:5e:00.0");
	assert_int_equal(uio(""), -EINVAL);
}

static void test_a_device_that_is_not_there_is_refused(void **state)
{
	assert_int_equal(vfio("0000:99:00.0"), -ENODEV);
	assert_says("0000:99:00.0: no such PCI device: lanefs devices");
	assert_int_equal(uio("99:00.0"), -ENODEV);
	assert_says("0000:99:00.0: no such PCI device: lanefs devices");
}

static void test_a_network_card_is_refused(void **state)
{
	assert_int_equal(vfio("0000:01:00.0"), -ENODEV);
	assert_says("0000:01:00.0: class 0x020000, not an NVMe controller");
	assert_int_equal(uio("0000:01:00.0"), -ENODEV);
	assert_says("0000:01:00.0: class 0x020000, not an NVMe controller");
}

static void test_another_driver_is_named(void **state)
{
	assert_int_equal(vfio("0000:02:00.0"), -ENODEV);
	assert_says("0000:02:00.0: driver nvme has it, not vfio-pci: lanefs bind 0000:02:00.0");
	assert_int_equal(uio("0000:02:00.0"), -ENODEV);
	assert_says("0000:02:00.0: driver nvme has it, not uio_pci_generic: "
		"lanefs bind 0000:02:00.0 --driver uio_pci_generic");
	assert_int_equal(vfio("0000:03:00.0"), -ENODEV);
	assert_says("0000:03:00.0: no driver has it, not vfio-pci: lanefs bind 0000:03:00.0");
}

static void test_who_uses_it_is_named(void **state)
{
	pci_tree_write("proc/swaps", "Filename\tType\tSize\tUsed\tPriority\n/dev/nvme0n1p1 partition 100 0 -2\n");
	assert_int_equal(vfio("0000:02:00.0"), -EBUSY);
	assert_says("0000:02:00.0: driver nvme has it, and it is in use (nvme0n1p1 is swap)");
	pci_tree_remove("proc/swaps");
}

static void test_without_device_memory_nothing_is_opened(void **state)
{
	assert_false(memory_has_eal());
	assert_int_equal(vfio("0000:04:00.0"), -ENOTSUP);
	assert_says("0000:04:00.0: this process was started without memory for devices");
	assert_int_equal(uio("0000:05:00.0"), geteuid() == 0 ? -ENOTSUP : -EACCES);
	assert_says(geteuid() == 0 ? "needs hugepages and physical addresses" :
		"only root may use a device through uio_pci_generic");
}

static void test_a_missing_iommu_is_named(void **state)
{
	const struct memory_options options = {.use_eal = true, .need_mib = 16};
	assert_int_equal(memory_init(&options), 0);
	assert_int_equal(vfio("0000:04:00.0"), -ENOTSUP);
	assert_says("0000:04:00.0: no IOMMU protects it, which vfio-pci needs: boot with intel_iommu=on");
}

static void test_a_message_without_room_is_cut(void **state)
{
	char small[12] = "";
	assert_int_equal(nvme_vfio_open("0000:99:00.0", &transport, small, sizeof(small)), -ENODEV);
	assert_int_equal(strlen(small), sizeof(small) - 1);
	char none;
	assert_int_equal(nvme_vfio_open("0000:99:00.0", &transport, &none, 0), -ENODEV);
}

static int tree_create(void **state)
{
	static const struct pci_tree_device devices[] = {
		{.address = "0000:01:00.0", .class_code = "0x020000"},
		{.address = "0000:02:00.0", .class_code = "0x010802", .driver = "nvme", .group = "13",
		.controller = "nvme0"},
		{.address = "0000:03:00.0", .class_code = "0x010802", .group = "14"},
		{.address = "0000:04:00.0", .class_code = "0x010802", .driver = "vfio-pci"},
		{.address = "0000:05:00.0", .class_code = "0x010802", .driver = "uio_pci_generic"},
	};
	pci_tree_create();
	for (unsigned i = 0; i < ARRAY_SIZE(devices); i++)
		pci_tree_device_add(&devices[i]);
	return 0;
}

static int tree_destroy(void **state)
{
	pci_tree_destroy();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_no_address_is_refused),
		cmocka_unit_test(test_a_device_that_is_not_there_is_refused),
		cmocka_unit_test(test_a_network_card_is_refused),
		cmocka_unit_test(test_another_driver_is_named),
		cmocka_unit_test(test_who_uses_it_is_named),
		cmocka_unit_test(test_without_device_memory_nothing_is_opened),
		cmocka_unit_test(test_a_missing_iommu_is_named),
		cmocka_unit_test(test_a_message_without_room_is_cut),
	};
	return cmocka_run_group_tests(tests, tree_create, tree_destroy);
}
