/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who must be told of DMA memory before a device uses it: behind an IOMMU a device reaches only what was mapped for it.
 * A mapper (a VFIO container) is shown all DMA memory of EAL when it is added, and from then on every page that EAL
 * takes or gives back.
 *
 * A page that a mapper refuses (the memlock limit, the end of the IOMMU's address space) is never handed out: dma_alloc
 * that needed it answers NULL, instead of a device writing into nowhere.
 *
 * | call                         | from                                                                   |
 * | dma_mapper_add, remove       | a control or helper thread; add may take seconds (pages are pinned)    |
 * | map, unmap of the mapper     | any thread that allocates or frees DMA memory, one at a time           |
 */
#ifndef LANEFS_REACTOR_DMA_MAP_H
#define LANEFS_REACTOR_DMA_MAP_H

#include "reactor/base.h"

struct dma_mapper {
	/* [address, address + size), whole pages, becomes reachable for the device at @iova. Must not touch DMA
	 * memory's allocator. A part that is mapped already is no error. 0 or -errno. */
	int (*map)(struct dma_mapper *mapper, void *address, uint64_t iova, size_t size);
	/* What one call of map has mapped; or nothing, when that call failed. */
	void (*unmap)(struct dma_mapper *mapper, uint64_t iova, size_t size);
	struct dma_mapper *next; /* of dma_map.c */
};

/* The mapper must stay until dma_mapper_remove. -ENOTSUP (EAL was not started), or what its map answered: it is not
 * added then, and what it has mapped so far stays mapped. */
int dma_mapper_add(struct dma_mapper *mapper) MUST_CHECK;
/* Nothing is unmapped: the caller ends the mappings all together. Never waits for a device. */
void dma_mapper_remove(struct dma_mapper *mapper);

/* Bytes of DMA memory that a mapper has to map now. */
uint64_t dma_mapped_bytes(void);

#endif
