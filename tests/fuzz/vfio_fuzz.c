/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever vfio-pci or uio_pci_generic say about a controller, and whatever its configuration space and registers hold, it
 * is opened, or refused in one line that says why; either way every descriptor is closed again, memory is mapped for it only
 * while it is open, and it can reach memory (bus mastering) only then.
 * Method: open, ioctl and what waits are replaced (the linker's --wrap); the device is a file in memory. Byte 0: flags (enum
 * flag); then the device's registers (enum device_field, 4 each), and for each system call a byte: 0 is an honest answer, the
 * others say how it lies (enum call_lie), with what follows.
 *
 * Covers: nvme/vfio.c nvme/vfio_iommu.c nvme/uio.c nvme/pci_transport.c
 * Length: 512
 * Runs: 6000
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "nvme/pci_internal.h"
#include "nvme/transport.h"
#include "nvme/vfio_internal.h"
#include "reactor/bar_guard.h"
#include "reactor/dma_map.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"
#include "tests/fuzz/fuzz_tree.h"

enum { FDS_MAX = 160, TEXT_MAX = 600, CONFIG_AT = 0, BAR_AT = 0x10000, BAR_BYTES = 0x4000, DEVICE_BYTES = BAR_AT + BAR_BYTES,
	MSIX_COUNT = 9, ADDRESS_BYTES = 64 };
enum flag {
	BY_UIO = 0x01,
	NO_GROUP = 0x02,                /* no IOMMU */
	NO_EAL = 0x04,
	NO_MAPPING = 0x08,              /* memory cannot be mapped for it */
	GONE_LATER = 0x10,              /* the device ends while it is open */
	LITTLE_ROOM = 0x20,             /* for the message */
	OTHER_ADDRESS = 0x40,           /* the input ends in an address */
};
enum device_field {
	DEVICE_COMMAND, DEVICE_CLASS, DEVICE_CAP, DEVICE_CAP_HIGH, DEVICE_VS, DEVICE_CC, DEVICE_CSTS, DEVICE_SIZE, DEVICE_FIELDS
};
enum call_lie { HONEST, LIE_FAILS, LIE_NUMBER, LIE_FIELDS, LIE_COUNT };

static struct fuzz_bytes input;
static struct fuzz_tree tree;
static uint8_t flags;
static bool inside;                     /* what is replaced belongs to the code under test */
static int file_fd, container_fd, group_fd, device_fd;
static uint32_t field[DEVICE_FIELDS];
static bool config_elsewhere;           /* that is what the device says */
static int mappers;
static uint64_t waited_ms;

/* ---- in place of the system ---- */

bool __wrap_memory_has_eal(void);
bool __wrap_memory_is_physical(void);
int __wrap_dma_mapper_add(struct dma_mapper *mapper);
void __wrap_dma_mapper_remove(struct dma_mapper *mapper);
int __wrap_vfio_linger_start(const int *fds, unsigned count);
int __wrap_open64(const char *path, int how, ...);
int __real_open64(const char *path, int how, ...);
int __wrap_ioctl(int fd, unsigned long what, ...);
int __real_ioctl(int fd, unsigned long what, ...);
int __wrap_nanosleep(const struct timespec *how_long, struct timespec *left);
int __real_nanosleep(const struct timespec *how_long, struct timespec *left);
int __wrap_usleep(useconds_t how_long);

bool __wrap_memory_has_eal(void) { return !(flags & NO_EAL); }
bool __wrap_memory_is_physical(void) { return !(flags & NO_EAL); }

int __wrap_dma_mapper_add(struct dma_mapper *mapper)
{
	if (flags & NO_MAPPING)
		return -ENOMEM;
	mappers++;
	return 0;
}

void __wrap_dma_mapper_remove(struct dma_mapper *mapper)
{
	FUZZ_REQUIRE(mappers-- == 1, "memory is unmapped that was not mapped");
}

int __wrap_vfio_linger_start(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		FUZZ_REQUIRE(fcntl(fds[i], F_GETFD) >= 0, "a child gets descriptor %d, which is closed", fds[i]);
	return dup(file_fd);
}

static int fail(void)
{
	static const int errors[] = {EINVAL, EPERM, EACCES, EBUSY, ENOENT, ENOMEM, ENODEV, ENOTTY, EAGAIN, EIO};
	errno = errors[fuzz_u8(&input) % ARRAY_SIZE(errors)];
	return -1;
}

static enum call_lie lie_take(void) { return fuzz_u8(&input) % LIE_COUNT; }

/* Everything that is opened by a number of its own, so that it is known where a call goes. */
int __wrap_open64(const char *path, int how, ...)
{
	if (!inside || fuzz_tree_has(&tree, path) || strstr(path, "_replay-failure-"))
		return __real_open64(path, how, 0600);
	const enum call_lie lie = lie_take();
	if (lie == LIE_FAILS)
		return fail();
	char again[128];
	if (!strncmp(path, "/sys/kernel/iommu_groups/", 25)) /* honest: addresses pass as they are */
		return __real_open64(fuzz_tree_path(&tree, lie ? "translates" : "identity", again, sizeof(again)), O_RDONLY | O_CLOEXEC);
	if (!strcmp(path, "/dev/vfio/vfio"))
		return container_fd = dup(file_fd);
	if (!strncmp(path, "/dev/vfio/", 10))
		return group_fd = dup(file_fd);
	FUZZ_REQUIRE(flags & BY_UIO && (!strncmp(path, "/sys/bus/pci/devices/", 21) || !strncmp(path, "/dev/uio", 8)),
		"%s is opened", path);
	snprintf(again, sizeof(again), "/proc/self/fd/%d", file_fd);
	return __real_open64(again, O_RDWR | O_CLOEXEC); /* for its own lock */
}

static void region_answer(struct vfio_region_info *info, enum call_lie lie)
{
	const bool bar = info->index == VFIO_PCI_BAR0_REGION_INDEX;
	FUZZ_REQUIRE(info->argsz == sizeof(*info), "region info of %u bytes", info->argsz);
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE | (bar ? VFIO_REGION_INFO_FLAG_MMAP : 0);
	info->offset = bar ? BAR_AT : CONFIG_AT;
	info->size = bar ? BAR_BYTES : 256;
	if (lie == LIE_FIELDS) {
		info->flags = fuzz_u32(&input);
		info->offset = fuzz_u64(&input);
		info->size = fuzz_u64(&input);
		config_elsewhere |= !bar && info->offset != CONFIG_AT;
	}
}

static void irq_answer(struct vfio_irq_info *info, enum call_lie lie)
{
	info->flags = VFIO_IRQ_INFO_EVENTFD;
	info->count = info->index == VFIO_PCI_MSIX_IRQ_INDEX ? MSIX_COUNT : 1;
	if (lie == LIE_FIELDS) {
		info->flags = fuzz_u32(&input);
		info->count = fuzz_u32(&input);
	}
}

static void irqs_check(const struct vfio_irq_set *set)
{
	const bool fds = set->flags & VFIO_IRQ_SET_DATA_EVENTFD;
	FUZZ_REQUIRE(set->argsz == sizeof(*set) + (fds ? set->count * sizeof(int32_t) : 0), "a set of %u bytes", set->argsz);
	for (unsigned i = 0; fds && i < set->count; i++) {
		int32_t fd;
		memcpy(&fd, set->data + i * sizeof(fd), sizeof(fd));
		FUZZ_REQUIRE(fcntl(fd, F_GETFD) >= 0, "vector %u gets descriptor %d, which is closed", i, fd);
	}
}

static int device_ioctl(unsigned long what, void *argument, enum call_lie lie)
{
	switch (what) {
	case VFIO_DEVICE_GET_INFO:
		((struct vfio_device_info *)argument)->flags = lie == LIE_FIELDS ? fuzz_u32(&input) : VFIO_DEVICE_FLAGS_RESET;
		return 0;
	case VFIO_DEVICE_RESET: return 0;
	case VFIO_DEVICE_GET_REGION_INFO: region_answer(argument, lie); return 0;
	case VFIO_DEVICE_GET_IRQ_INFO: irq_answer(argument, lie); return 0;
	case VFIO_DEVICE_SET_IRQS: irqs_check(argument); return lie == LIE_NUMBER ? (int)(fuzz_u32(&input) & INT32_MAX) : 0;
	default: FUZZ_REQUIRE(false, "call %lx of the device", what);
	}
}

static int honest_ioctl(int fd, unsigned long what, void *argument, enum call_lie lie)
{
	if (what == VFIO_GET_API_VERSION || what == VFIO_CHECK_EXTENSION) {
		FUZZ_REQUIRE(fd == container_fd, "the container is asked as %d", fd);
		return lie == LIE_NUMBER ? (int)fuzz_u8(&input) : what == VFIO_CHECK_EXTENSION ? 1 : VFIO_API_VERSION;
	}
	switch (what) {
	case VFIO_SET_IOMMU: FUZZ_REQUIRE(fd == container_fd, "the container is asked as %d", fd); return 0;
	case VFIO_GROUP_GET_STATUS:
		FUZZ_REQUIRE(fd == group_fd, "the group is asked as %d", fd);
		((struct vfio_group_status *)argument)->flags = lie == LIE_FIELDS ? fuzz_u32(&input) : VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GROUP_SET_CONTAINER: FUZZ_REQUIRE(fd == group_fd, "the group is asked as %d", fd); return 0;
	case VFIO_GROUP_GET_DEVICE_FD: FUZZ_REQUIRE(fd == group_fd, "the group is asked as %d", fd); return device_fd = dup(file_fd);
	default: FUZZ_REQUIRE(fd == device_fd, "the device is asked as %d", fd); return device_ioctl(what, argument, lie);
	}
}

int __wrap_ioctl(int fd, unsigned long what, ...)
{
	va_list arguments;
	va_start(arguments, what);
	void *argument = va_arg(arguments, void *);
	va_end(arguments);
	if (!inside)
		return __real_ioctl(fd, what, argument);
	const enum call_lie lie = lie_take();
	return lie == LIE_FAILS ? fail() : honest_ioctl(fd, what, argument, lie);
}

/* A controller that stops does so while it is waited for. */
int __wrap_nanosleep(const struct timespec *how_long, struct timespec *left)
{
	if (!inside)
		return __real_nanosleep(how_long, left);
	const uint32_t stopped = 0;
	if (++waited_ms > field[DEVICE_CC] >> 16)
		FUZZ_REQUIRE(pwrite(file_fd, &stopped, sizeof(stopped), BAR_AT + NVME_REG_CSTS) <= (ssize_t)sizeof(stopped), "no memory");
	return 0;
}

int __wrap_usleep(useconds_t how_long) { return 0; }

/* ---- the device ---- */

#define DRIVE "sys/bus/pci/devices/0000:5e:00.0/"

static void drive_make(void)
{
	static const char *const text[][2] = {{DRIVE "class", "0x010802\n"}, {DRIVE "vendor", "0x8086\n"}, {DRIVE "device", "0x5845\n"},
		{"sys/bus/pci/devices/0000:00:1f.7/class", "0x020000\n"}, {"proc/self/mountinfo", ""},
		{"proc/swaps", ""}, {"translates", "DMA-FQ\n"},
		{"identity", "identity\n"}};
	static char sysfs[128], procfs[128];
	fuzz_tree_make(&tree);
	for (size_t i = 0; i < ARRAY_SIZE(text); i++)
		fuzz_tree_write(&tree, text[i][0], text[i][1]);
	pci_set_roots(fuzz_tree_path(&tree, "sys", sysfs, sizeof(sysfs)), fuzz_tree_path(&tree, "proc", procfs, sizeof(procfs)));
	file_fd = memfd_create("device", MFD_CLOEXEC);
	FUZZ_REQUIRE(file_fd >= 0, "no memory");
	/* The first guard of a process keeps a descriptor for all of them. */
	atomic_bool gone = false;
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	FUZZ_REQUIRE(page != MAP_FAILED && bar_guard_add(page, 4096, &gone) == 0, "no guard");
	bar_guard_remove(page);
	munmap(page, 4096);
}

static void put(uint64_t at, uint32_t value)
{
	FUZZ_REQUIRE(pwrite(file_fd, &value, sizeof(value), (off_t)at) == sizeof(value), "no memory");
}

static void device_make(void)
{
	static const struct { enum device_field field; uint64_t at; } places[] = {{DEVICE_COMMAND, PCI_COMMAND},
		{DEVICE_CLASS, PCI_CLASS_REVISION}, {DEVICE_CAP, NVME_REG_CAP}, {DEVICE_CAP_HIGH, NVME_REG_CAP + 4},
		{DEVICE_VS, NVME_REG_VS}, {DEVICE_CC, NVME_REG_CC}, {DEVICE_CSTS, NVME_REG_CSTS}};
	for (unsigned i = 0; i < DEVICE_FIELDS; i++)
		field[i] = fuzz_u32(&input);
	FUZZ_REQUIRE(ftruncate(file_fd, 0) == 0, "no memory");
	/* By uio its registers and its configuration space are files of their own; here both are this one. */
	const uint64_t bar_at = flags & BY_UIO ? 0 : BAR_AT;
	for (unsigned i = 0; i < ARRAY_SIZE(places); i++)
		put(places[i].field >= DEVICE_CAP ? bar_at + places[i].at : CONFIG_AT + places[i].at, field[places[i].field]);
	const uint64_t size = field[DEVICE_SIZE] ? field[DEVICE_SIZE] % (2 * DEVICE_BYTES) : DEVICE_BYTES;
	FUZZ_REQUIRE(ftruncate(file_fd, (off_t)size) == 0, "no memory");
	fuzz_tree_link(&tree, DRIVE "driver", flags & BY_UIO ? "../../../drivers/uio_pci_generic" : "../../../drivers/vfio-pci");
	fuzz_tree_link(&tree, DRIVE "iommu_group", flags & NO_GROUP ? "" : "../../../kernel/iommu_groups/2147000000");
}

static bool bus_master(void)
{
	uint16_t command;
	return pread(file_fd, &command, sizeof(command), CONFIG_AT + PCI_COMMAND) == sizeof(command) &&
		command != UINT16_MAX && command & PCI_COMMAND_MASTER;
}

static unsigned open_fds(void)
{
	unsigned count = 0;
	for (int fd = 0; fd < FDS_MAX; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

/* ---- what must hold ---- */

static void check_open(struct nvme_transport *transport)
{
	FUZZ_REQUIRE(transport->bar && transport->bar_bytes > NVME_REG_DOORBELLS, "a BAR of %zu bytes", transport->bar_bytes);
	FUZZ_REQUIRE(transport->interrupts_max <= 65, "%u interrupts", transport->interrupts_max);
	for (unsigned i = 0; i < transport->interrupts_max; i++)
		FUZZ_REQUIRE(fcntl(transport->ops->interrupt_fd(transport, (uint16_t)i), F_GETFD) == FD_CLOEXEC,
			"interrupt %u has no descriptor", i);
	FUZZ_REQUIRE(transport->ops->interrupt_fd(transport, (uint16_t)transport->interrupts_max) < 0, "one interrupt too many");
	const int request = transport->ops->request_fd(transport);
	FUZZ_REQUIRE(request < 0 || fcntl(request, F_GETFD) == FD_CLOEXEC, "the request has no descriptor");
	FUZZ_REQUIRE(mappers == !(flags & BY_UIO), "open, with %d mappings", mappers);
	if (flags & GONE_LATER)
		FUZZ_REQUIRE(ftruncate(file_fd, 0) == 0, "no memory");
	const uint32_t status = nvme_read32(transport, NVME_REG_CSTS);
	FUZZ_REQUIRE(!nvme_transport_gone(transport) || status == UINT32_MAX, "gone, and its status is %x", status);
	(void)transport->ops->alive(transport);
	transport->ops->stop_dma(transport);
	transport->ops->release(transport);
}

static void check_refused(int error, const char *text, size_t room)
{
	FUZZ_REQUIRE(error < 0 && error > -4096, "refused with %d", error);
	FUZZ_REQUIRE(memchr(text, 0, room), "a message without an end");
	FUZZ_REQUIRE(flags & LITTLE_ROOM || (strchr(text, ' ') && !strchr(text, '\n')), "the message: %s", text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct nvme_transport *transport;
	char address[ADDRESS_BYTES] = "0000:5e:00.0";
	input = fuzz_bytes_of(data, size);
	flags = fuzz_u8(&input);
	if (!tree.root[0])
		drive_make();
	if (flags & OTHER_ADDRESS)
		fuzz_take(&input, address, ADDRESS_BYTES - 1);
	device_make();
	container_fd = group_fd = device_fd = -1;
	config_elsewhere = false;
	mappers = 0;
	waited_ms = 0;
	const unsigned open_before = open_fds();
	const size_t room = flags & LITTLE_ROOM ? 1 + size % 90 : TEXT_MAX;
	char *text = calloc(1, room);
	FUZZ_REQUIRE(text, "no memory");
	inside = true;
	const int error = (flags & BY_UIO ? nvme_uio_open : nvme_vfio_open)(address, &transport, text, room);
	if (error)
		check_refused(error, text, room);
	else
		check_open(transport);
	inside = false;
	FUZZ_REQUIRE(error == 0 || !transport, "refused and opened");
	FUZZ_REQUIRE(!mappers && open_fds() == open_before, "%d mappings and %u descriptors stay, not %u", mappers, open_fds(),
		open_before);
	FUZZ_REQUIRE(error || !bus_master() || config_elsewhere || flags & BY_UIO, "it is closed and may reach memory");
	free(text);
	return 0;
}
