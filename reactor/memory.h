/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * DMA memory and start-up of DPDK's environment layer.
 *
 * memory_init with .use_eal starts EAL once per process (after fork, before threads): hugepages where enough are free,
 * otherwise --no-huge. Without it (unit tests, simulation, tools that touch no device) DMA memory is plain aligned
 * memory with the same interface.
 */
#ifndef LANEFS_REACTOR_MEMORY_H
#define LANEFS_REACTOR_MEMORY_H

#include "reactor/base.h"

struct memory_options {
	bool use_eal;
	bool need_hugepages;   /* fail instead of falling back to --no-huge */
	bool physical;         /* devices are given physical addresses (uio: no IOMMU); needs hugepages and root */
	unsigned need_mib;     /* DMA memory that will be wanted, MiB: the heap's size without hugepages; 0: 256 */
	char *message;         /* where the reason of a failure goes, one line; NULL: to the log */
	size_t message_size;
	const int *cores;      /* cores that EAL is told of; NULL: all allowed */
	unsigned core_count;
};
/* -ENOMEM (also too few hugepages), -ENODEV (hugepages are needed and there are none), -EPERM (physical addresses
 * without root), -EALREADY. One line says what and how to mend it. */
int memory_init(const struct memory_options *options) MUST_CHECK;
bool memory_has_eal(void);
bool memory_has_hugepages(void);
bool memory_is_physical(void);

/* @align is a power of two, at least 64. Up to DMA_CONTIGUOUS_BYTES_MAX are contiguous for a device too (a queue's
 * ring); of more, each 4 KiB page has an address of its own. NULL when there is none. Not for the I/O path: pools are
 * sized at start. */
enum { DMA_CONTIGUOUS_BYTES_MAX = 128 << 10 };
void *dma_alloc(size_t size, size_t align) MUST_CHECK;
void *dma_zalloc(size_t size, size_t align) MUST_CHECK;
void dma_free(void *memory);
/* True when @buffer may be handed to a device as it is. */
bool dma_is_mapped(const void *buffer, size_t size);
/* IOVA of DMA memory; valid while it is allocated. UINT64_MAX when it has none. Cheap: called for each page of
 * an I/O. */
uint64_t dma_iova(const void *buffer);

/* Without EAL, large DMA memory (DMA_REGION_BYTES_MIN and more) comes in regions that stay with the process: freed ones
 * are handed out again, never unmapped. So a region may be registered with the kernel (io_uring fixed buffers) for
 * good. Regions are numbered from 0 as they are made. */
enum { DMA_REGION_BYTES_MIN = 64 << 10, DMA_REGIONS_MAX = 1024 };
struct dma_region {
	void *start;
	size_t size;                   /* bytes */
};
/* Number of the region that holds all of the buffer, or -1. @hint: where to look first (an earlier answer), or -1. */
int dma_region_find(const void *buffer, size_t size, int hint);
struct dma_region dma_region_get(int number);

/* A pool of equal DMA buffers, owned by one reactor (no locking). Memory is taken in slabs and touched lazily. */
struct dma_pool;
int dma_pool_create(size_t buffer_size, size_t align, unsigned count_max, struct dma_pool **out) MUST_CHECK;
void dma_pool_destroy(struct dma_pool *pool);
void *dma_pool_get(struct dma_pool *pool) MUST_CHECK; /* NULL when count_max are out */
void dma_pool_put(struct dma_pool *pool, void *buffer);
unsigned dma_pool_free_count(const struct dma_pool *pool);

#endif
