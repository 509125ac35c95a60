/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * DMA memory. With EAL it comes from rte_malloc, which DPDK maps for every VFIO device by itself; without, from the C
 * library. EAL is told neither of PCI devices (it would probe the machine's own network card) nor of more than one
 * lcore, placed on the whole set of allowed cores so that the calling thread is not pinned: reactors are our own
 * threads and register themselves.
 *
 * EAL reserves its address space once, at start, in a few ranges that nobody else ever gets memory in. So whether
 * memory is EAL's is a comparison; and its IOVA is the address itself, unless devices want physical ones.
 */
#include "reactor/memory.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <dirent.h>
#include <unistd.h>

#include "reactor/dma_map_internal.h"
#include "reactor/dma_region_internal.h"
#include "reactor/log.h"

/* Linux 5.14; Debian 12's C library lacks the name. */
enum { LANEFS_MADV_POPULATE_WRITE = 23 };
enum { NEED_DEFAULT_MIB = 256, CORES_TEXT_MAX = 512, ALIGN_MIN = 64, RANGES_MAX = 16 };

/* Set by memory_init, constant after that. */
static struct {
	bool eal, hugepages, physical;
	bool ranges_overflow; /* more than RANGES_MAX: EAL is asked each time */
	unsigned range_count;
	struct {
		uintptr_t start, size;
	} ranges[RANGES_MAX]; /* EAL's address space, neighbours joined */
} memory;

bool memory_has_eal(void) { return memory.eal; }
bool memory_has_hugepages(void) { return memory.hugepages; }
bool memory_is_physical(void) { return memory.physical; }

/* ---- start-up ---- */

/* MiB of free hugepages of every size. */
static unsigned long hugepages_mib(void)
{
	static const char folder[] = "/sys/kernel/mm/hugepages";
	unsigned long total = 0, size_kib;
	DIR *dir = opendir(folder);
	if (!dir)
		return 0;
	for (struct dirent *entry; (entry = readdir(dir));) {
		char path[320];
		unsigned long count;
		if (sscanf(entry->d_name, "hugepages-%lukB", &size_kib) != 1)
			continue;
		snprintf(path, sizeof(path), "%s/%s/free_hugepages", folder, entry->d_name);
		FILE *file = fopen(path, "re");
		if (!file)
			continue;
		if (fscanf(file, "%lu", &count) == 1)
			total += count * size_kib / 1024;
		fclose(file);
	}
	closedir(dir);
	return total;
}

/* "--lcores=0@(3,5)": one lcore on these cores. */
static void cores_print(const struct memory_options *options, char *text, size_t size)
{
	cpu_set_t allowed;
	CPU_ZERO(&allowed);
	for (unsigned i = 0; i < options->core_count; i++)
		CPU_SET(options->cores[i], &allowed);
	if (!options->cores && sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
		CPU_SET(0, &allowed);
	size_t length = (size_t)snprintf(text, size, "--lcores=0@(");
	const char *comma = "";
	for (int core = 0; core < CPU_SETSIZE && length + 8 < size; core++) {
		if (!CPU_ISSET(core, &allowed))
			continue;
		length += (size_t)snprintf(text + length, size - length, "%s%d", comma, core);
		comma = ",";
	}
	snprintf(text + length, size - length, ")");
}

/* In order of their addresses as a rule, not by promise. */
static int range_add(const struct rte_memseg_list *list, void *arg)
{
	const uintptr_t start = (uintptr_t)list->base_va;
	if (list->external)
		return 0;
	const unsigned count = memory.range_count;
	if (count && memory.ranges[count - 1].start + memory.ranges[count - 1].size == start) {
		memory.ranges[count - 1].size += list->len;
		return 0;
	}
	if (count == RANGES_MAX) {
		memory.ranges_overflow = true;
		return 0;
	}
	memory.ranges[count].start = start;
	memory.ranges[count].size = list->len;
	memory.range_count = count + 1;
	return 0;
}

static int memory_fail(const struct memory_options *options, int err, const char *format, ...) PRINTF_LIKE(3, 4);
static int memory_fail(const struct memory_options *options, int err, const char *format, ...)
{
	char line[256];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (options->message)
		snprintf(options->message, options->message_size, "%s", line);
	else
		log_error("memory: %s", line);
	return err;
}

static int options_check(const struct memory_options *options, unsigned long free_mib, unsigned long need_mib)
{
	const bool must = options->need_hugepages || options->physical;
	if (memory.eal) {
		return memory_fail(options, -EALREADY,
			"EAL is started already, and can be only once per process: start another process");
	}
	if (must && free_mib == 0) {
		return memory_fail(options, -ENODEV,
			"there are no free hugepages: set some aside: lanefs hugepages %luM", need_mib);
	}
	if (must && free_mib < need_mib) {
		return memory_fail(options, -ENOMEM,
			"%lu MiB of hugepages are free, %lu MiB are needed: set more aside: "
			"lanefs hugepages %luM", free_mib, need_mib, need_mib);
	}
	if (options->physical && geteuid() != 0) {
		return memory_fail(options, -EPERM,
			"physical addresses are for root alone: run it as root, or give the device to vfio-pci");
	}
	return 0;
}

static int eal_failed(const struct memory_options *options, bool huge)
{
	const int err = rte_errno == EALREADY ? -EALREADY : -ENOMEM;
	if (options->physical)
		return memory_fail(options, err,
			"EAL did not start with physical addresses (%s): is this root with CAP_SYS_ADMIN, and "
			"are hugepages free?", rte_strerror(rte_errno));
	return memory_fail(options, err, "EAL did not start (%s): is there memory for %s?", rte_strerror(rte_errno),
		huge ? "its hugepages" : "its heap");
}

static int piece_touch(const struct rte_memseg_list *list, const struct rte_memseg *first, size_t size, void *arg)
{
	if (!list->external && madvise(first->addr, size, LANEFS_MADV_POPULATE_WRITE))
		log_debug("memory: not touched ahead: %s", strerror(errno));
	return 0;
}

int memory_init(const struct memory_options *options)
{
	if (!options->use_eal)
		return 0;
	const unsigned long free_mib = hugepages_mib();
	const unsigned long need_mib = options->need_mib ? options->need_mib : NEED_DEFAULT_MIB;
	const int err = options_check(options, free_mib, need_mib);
	const bool huge = free_mib >= need_mib;
	if (err)
		return err;
	static char cores[CORES_TEXT_MAX], limit[16];
	cores_print(options, cores, sizeof(cores));
	snprintf(limit, sizeof(limit), "%lu", need_mib);
	char *arguments[12] = {"lanefs", "--no-pci", "--no-telemetry", "--log-level=lib.eal:error"};
	int count = 4;
	arguments[count++] = options->physical ? "--iova-mode=pa" : "--iova-mode=va";
	arguments[count++] = cores;
	if (huge) {
		arguments[count++] = "--in-memory";
	} else {
		arguments[count++] = "--no-huge";
		arguments[count++] = "--no-shconf";
		arguments[count++] = "-m";
		arguments[count++] = limit;
	}
	if (rte_eal_init(count, arguments) < 0)
		return eal_failed(options, huge);
	memory.hugepages = huge;
	memory.physical = options->physical;
	rte_memseg_list_walk(range_add, NULL);
	memory.eal = true;
	/* VFIO pins all of it, page by page, when a device is opened: that is quicker with pages that are there. */
	if (!huge)
		(void)rte_memseg_contig_walk(piece_touch, NULL);
	return 0;
}

/* ---- buffers ---- */

/* EAL's address space; whether a page of it is in use, only who allocated it knows. */
static bool is_eal(const void *buffer, size_t size)
{
	if (!memory.eal)
		return false;
	const uintptr_t start = (uintptr_t)buffer;
	for (unsigned i = 0; i < memory.range_count; i++) {
		const uintptr_t at = start - memory.ranges[i].start;
		if (at < memory.ranges[i].size)
			return size <= memory.ranges[i].size - at;
	}
	return UNLIKELY(memory.ranges_overflow) && rte_mem_virt2memseg(buffer, NULL) &&
		(size == 0 || rte_mem_virt2memseg((const char *)buffer + size - 1, NULL));
}

/* The least power of two that holds @size. */
static size_t size_to_align(size_t size) { return size <= 1 ? 1 : (size_t)1 << (64 - __builtin_clzll(size - 1)); }

static void *eal_alloc(size_t size, size_t align)
{
	/* Physical addresses are contiguous within a hugepage; what is aligned to its own size does not cross the end
	 * of one. */
	if (memory.physical && size <= DMA_CONTIGUOUS_BYTES_MAX)
		align = MAX(align, size_to_align(size));
	void *buffer = rte_malloc(NULL, size, (unsigned)align);
	if (buffer && !dma_map_allows(buffer, size)) {
		rte_free(buffer);
		buffer = NULL;
	}
	return buffer;
}

void *dma_alloc(size_t size, size_t align)
{
	assert(align >= ALIGN_MIN && (align & (align - 1)) == 0);
	if (memory.eal)
		return eal_alloc(size, align);
	if (size >= DMA_REGION_BYTES_MIN && align <= DMA_REGION_ALIGN) {
		void *region = dma_region_alloc(size);
		if (region)
			return region;
	}
	return aligned_alloc(align, align_up(MAX(size, (size_t)1), align));
}

void *dma_zalloc(size_t size, size_t align)
{
	void *buffer = dma_alloc(size, align);
	if (buffer)
		memset(buffer, 0, size);
	return buffer;
}

void dma_free(void *buffer)
{
	/* What was allocated before EAL started is the C library's. */
	if (is_eal(buffer, 0))
		rte_free(buffer);
	else if (!dma_region_free(buffer))
		free(buffer);
}

bool dma_is_mapped(const void *buffer, size_t size) { return !memory.eal || is_eal(buffer, size); }

static uint64_t physical_address(const void *buffer)
{
	const struct rte_memseg *segment = rte_mem_virt2memseg(buffer, NULL);
	if (!segment || segment->iova == RTE_BAD_IOVA)
		return UINT64_MAX;
	return segment->iova + ((uintptr_t)buffer - segment->addr_64);
}

uint64_t dma_iova(const void *buffer)
{
	if (memory.physical)
		return physical_address(buffer);
	return !memory.eal || is_eal(buffer, 1) ? (uintptr_t)buffer : UINT64_MAX;
}
