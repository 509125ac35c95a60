/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Large DMA memory of a process without EAL. A region is mapped once and never unmapped: when it is freed it waits here for
 * the next wish of its size. What the kernel was told of it (a pinned fixed buffer) therefore stays true for ever, whoever
 * uses it. Process-wide, under a mutex; looking a region up takes none, since entries are only ever added.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "reactor/dma_region_internal.h"
#include "reactor/sanitizer_internal.h"

static struct {
	pthread_mutex_t mutex;
	atomic_int count;
	struct dma_region regions[DMA_REGIONS_MAX];
	bool in_use[DMA_REGIONS_MAX];
} table = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static int region_map(size_t size)
{
	const int number = atomic_load_explicit(&table.count, memory_order_relaxed);
	if (number == DMA_REGIONS_MAX)
		return -1;
	void *start = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (start == MAP_FAILED)
		return -1;
	table.regions[number] = (struct dma_region){.start = start, .size = size};
	atomic_store_explicit(&table.count, number + 1, memory_order_release);
	return number;
}

void *dma_region_alloc(size_t size)
{
	if (SANITIZER_WATCHES_MEMORY)
		return NULL;
	size = align_up(size, DMA_REGION_ALIGN);
	pthread_mutex_lock(&table.mutex);
	const int count = atomic_load_explicit(&table.count, memory_order_relaxed);
	int number = 0;
	while (number < count && (table.in_use[number] || table.regions[number].size != size))
		number++;
	if (number == count)
		number = region_map(size);
	if (number >= 0)
		table.in_use[number] = true;
	pthread_mutex_unlock(&table.mutex);
	return number >= 0 ? table.regions[number].start : NULL;
}

bool dma_region_free(void *memory)
{
	const int number = dma_region_find(memory, 1, -1);
	if (number < 0)
		return false;
	assert(table.regions[number].start == memory && table.in_use[number]);
	pthread_mutex_lock(&table.mutex);
	table.in_use[number] = false;
	pthread_mutex_unlock(&table.mutex);
	return true;
}

static bool holds(const struct dma_region *region, const void *buffer, size_t size)
{
	const uintptr_t start = (uintptr_t)region->start, at = (uintptr_t)buffer;
	return at >= start && at - start < region->size && size <= region->size - (at - start);
}

int dma_region_find(const void *buffer, size_t size, int hint)
{
	if (hint >= 0 && holds(&table.regions[hint], buffer, size))
		return hint;
	const int count = atomic_load_explicit(&table.count, memory_order_acquire);
	for (int number = 0; number < count; number++)
		if (holds(&table.regions[number], buffer, size))
			return number;
	return -1;
}

struct dma_region dma_region_get(int number) { return table.regions[number]; }
