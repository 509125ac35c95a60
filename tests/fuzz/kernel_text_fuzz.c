/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever the kernel's text interfaces say, or somebody in their place, no parser of it goes astray: uevents, sysfs's
 * folders of PCI devices, mountinfo and swaps; and ACLs as they stand in extended attributes.
 * Method: the first byte chooses the parser. For sysfs and procfs a small tree is made once, with two controllers; the input,
 * cut at line ends, is what its files say, and where its links lead. What comes out is checked for ends of strings and for
 * what becomes part of paths.
 *
 * Covers: reactor/uevent.c nvme/pci.c nvme/pci_users.c fs/xattr_acl.c
 * Length: 1024
 * Runs: 5000
 */
#include <stdio.h>

#include "fs/xattr.h"
#include "nvme/pci_internal.h"
#include "reactor/uevent.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/fuzz_tree.h"

static bool is_string(const char *text, size_t size) { return memchr(text, 0, size); }
#define IS_STRING(array) is_string(array, sizeof(array))

/* ---- uevents ---- */

static void fuzz_uevent(struct fuzz_bytes *input)
{
	struct uevent event;
	if (uevent_parse((const char *)input->at, input->left, &event))
		return;
	FUZZ_REQUIRE(IS_STRING(event.subsystem) && IS_STRING(event.driver) && IS_STRING(event.pci_address), "strings without an end");
	FUZZ_REQUIRE(!strpbrk(event.pci_address, "/ ") && !strstr(event.pci_address, ".."), "the address %s", event.pci_address);
	FUZZ_REQUIRE(!strchr(event.driver, '/'), "the driver %s", event.driver);
}

/* ---- sysfs and procfs ---- */

static struct fuzz_tree tree;

#define DEVICE(address, name) "sys/bus/pci/devices/" address "/" name
/* Line by line of the input. */
static const char *const files[] = {
	DEVICE("0000:5e:00.0", "class"), DEVICE("0000:5e:00.0", "vendor"), DEVICE("0000:5e:00.0", "device"),
	DEVICE("0000:5e:00.0", "numa_node"), DEVICE("0000:5e:00.0", "nvme/nvme0/model"), DEVICE("0000:5e:00.0", "nvme/nvme0/serial"),
	DEVICE("0000:5e:00.0", "nvme/nvme0/nvme0n1/dev"), DEVICE("0001:00:1f.7", "class"), "proc/swaps",
};
static const char *const links[] = {DEVICE("0000:5e:00.0", "driver"), DEVICE("0001:00:1f.7", "driver"),
	DEVICE("0001:00:1f.7", "iommu_group"), "proc/77/fd/3"};

static void tree_make(void)
{
	static const char *const folders[] = {"sys/bus/pci/devices/0000:5e:00.0/nvme/nvme0/nvme0n1", "sys/bus/pci/devices/0001:00:1f.7",
		"proc/self", "proc/77/fd"};
	static char sysfs[128], procfs[128];
	fuzz_tree_make(&tree);
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++)
		fuzz_tree_folder(&tree, folders[i]);
	pci_set_roots(fuzz_tree_path(&tree, "sys", sysfs, sizeof(sysfs)), fuzz_tree_path(&tree, "proc", procfs, sizeof(procfs)));
	fuzz_tree_write(&tree, "proc/77/comm", "cat\n");
	fuzz_tree_write(&tree, DEVICE("0000:5e:00.0", "nvme/nvme0/nvme0n1/size"), "8\n"); /* a disk */
}

static void check_device(const struct pci_device *device)
{
	char mend[256];
	FUZZ_REQUIRE(IS_STRING(device->address) && IS_STRING(device->driver) && IS_STRING(device->model) && IS_STRING(device->serial) &&
		IS_STRING(device->users), "strings without an end");
	pci_users_mend(device->users, mend, sizeof(mend));
	FUZZ_REQUIRE(IS_STRING(mend) && mend[0], "nothing is said to mend %s", device->users);
}

static void fuzz_tree(struct fuzz_bytes *input)
{
	static struct pci_device devices[4];
	if (!tree.root[0])
		tree_make();
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char *text = fuzz_string(input, '\n');
		fuzz_tree_write(&tree, files[i], text[0] || strstr(files[i], "class") == NULL ? text : "0x010802");
		free(text);
	}
	for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
		char *text = fuzz_string(input, '\n');
		fuzz_tree_link(&tree, links[i], text);
		free(text);
	}
	char *text = fuzz_string(input, '\0');
	fuzz_tree_write(&tree, "proc/self/mountinfo", text);
	free(text);
	const int count = pci_list(devices, ARRAY_SIZE(devices));
	FUZZ_REQUIRE(count <= 2, "%d devices", count);
	for (int i = 0; i < count; i++)
		check_device(&devices[i]);
}

static void fuzz_mend(struct fuzz_bytes *input)
{
	char mend[64], *text = fuzz_string(input, '\0');
	pci_users_mend(text, mend, sizeof(mend));
	FUZZ_REQUIRE(IS_STRING(mend), "a string without an end");
	free(text);
}

/* ---- ACLs ---- */

static void fuzz_acl(struct fuzz_bytes *input)
{
	uint32_t mode = fuzz_u16(input) & 07777, bits = 0, again = 0;
	const uint32_t length = (uint32_t)input->left;
	bool only_mode, only_mode_again;
	uint8_t *value = malloc(length ? length : 1);
	FUZZ_REQUIRE(value, "no memory");
	fuzz_take(input, value, length);
	if (xattr_acl_mode(value, length, &bits, &only_mode) == 0) {
		FUZZ_REQUIRE(bits <= 0777, "mode bits %o", bits);
		const int error = xattr_acl_inherit(value, length, &mode, &only_mode);
		FUZZ_REQUIRE(!error && mode <= 07777, "a good ACL is not inherited");
		FUZZ_REQUIRE(xattr_acl_mode(value, length, &again, &only_mode_again) == 0 && again == (mode & 0777) &&
			only_mode == only_mode_again, "what is inherited says %o, the mode %o", again, mode);
	}
	free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const parsers[])(struct fuzz_bytes *input) = {fuzz_uevent, fuzz_acl, fuzz_mend, fuzz_tree};
	struct fuzz_bytes input = fuzz_bytes_of(data, size);
	parsers[(unsigned)(fuzz_u8(&input) - '0') % ARRAY_SIZE(parsers)](&input);
	return 0;
}
