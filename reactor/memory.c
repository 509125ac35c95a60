/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * DMA memory. With EAL it comes from rte_malloc, which DPDK maps for every VFIO device by itself; without, from the C
 * library. EAL is told neither of PCI devices (it would probe the machine's own network card) nor of more than one
 * lcore, placed on the whole set of allowed cores so that the calling thread is not pinned: reactors are our own
 * threads and register themselves.
 */
#include "reactor/memory.h"

#include <errno.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <dirent.h>

#include "reactor/dma_region_internal.h"
#include "reactor/log.h"

enum { LIMIT_DEFAULT_MIB = 256, CORES_TEXT_MAX = 512, ALIGN_MIN = 64 };

static struct {
	bool eal, hugepages;
} memory;

bool memory_has_eal(void) { return memory.eal; }
bool memory_has_hugepages(void) { return memory.hugepages; }

/* ---- start-up ---- */

/* Hugepages of every size that the machine has set aside. */
static unsigned long hugepage_count(void)
{
	static const char folder[] = "/sys/kernel/mm/hugepages";
	unsigned long total = 0;
	DIR *dir = opendir(folder);
	if (!dir)
		return 0;
	for (struct dirent *entry; (entry = readdir(dir));) {
		char path[320];
		unsigned long count;
		snprintf(path, sizeof(path), "%s/%s/free_hugepages", folder, entry->d_name);
		FILE *file = entry->d_name[0] == '.' ? NULL : fopen(path, "re");
		if (!file)
			continue;
		if (fscanf(file, "%lu", &count) == 1)
			total += count;
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

int memory_init(const struct memory_options *options)
{
	if (!options->use_eal)
		return 0;
	if (memory.eal) {
		log_error("memory: EAL is started already; it can be once per process");
		return -EALREADY;
	}
	const bool huge = hugepage_count() > 0;
	if (!huge && options->need_hugepages) {
		log_error("memory: there are no free hugepages; set some aside: sysctl -w vm.nr_hugepages=128");
		return -ENODEV;
	}
	static char cores[CORES_TEXT_MAX], limit[16];
	cores_print(options, cores, sizeof(cores));
	snprintf(limit, sizeof(limit), "%u", options->limit_mib ? options->limit_mib : LIMIT_DEFAULT_MIB);
	char *arguments[12] = {"lanefs", "--no-pci", "--no-telemetry", "--iova-mode=va", "--log-level=lib.eal:error"};
	int count = 5;
	arguments[count++] = cores;
	if (huge) {
		arguments[count++] = "--in-memory";
	} else {
		arguments[count++] = "--no-huge";
		arguments[count++] = "--no-shconf";
		arguments[count++] = "-m";
		arguments[count++] = limit;
	}
	if (rte_eal_init(count, arguments) < 0) {
		log_error("memory: EAL did not start (%s); is there memory for %s?", rte_strerror(rte_errno),
			huge ? "its hugepages" : "its heap");
		return rte_errno == EALREADY ? -EALREADY : -ENOMEM;
	}
	memory.eal = true;
	memory.hugepages = huge;
	return 0;
}

/* ---- buffers ---- */

static const struct rte_memseg *segment_of(const void *address)
{
	return memory.eal ? rte_mem_virt2memseg(address, NULL) : NULL;
}

void *dma_alloc(size_t size, size_t align)
{
	assert(align >= ALIGN_MIN && (align & (align - 1)) == 0);
	if (memory.eal)
		return rte_malloc(NULL, size, (unsigned)align);
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
	if (segment_of(buffer))
		rte_free(buffer);
	else if (!dma_region_free(buffer))
		free(buffer);
}

bool dma_is_mapped(const void *buffer, size_t size)
{
	if (!memory.eal)
		return true;
	return segment_of(buffer) && (size == 0 || segment_of((const char *)buffer + size - 1));
}

uint64_t dma_iova(const void *buffer)
{
	if (!memory.eal)
		return (uintptr_t)buffer;
	const struct rte_memseg *segment = segment_of(buffer);
	if (!segment || segment->iova == RTE_BAD_IOVA)
		return UINT64_MAX;
	return segment->iova + ((uintptr_t)buffer - segment->addr_64);
}
