/* SPDX-License-Identifier: BSD-3-Clause */
/* Regions behind dma_alloc and dma_free. */
#ifndef LANEFS_REACTOR_DMA_REGION_INTERNAL_H
#define LANEFS_REACTOR_DMA_REGION_INTERNAL_H

#include "reactor/memory.h"

enum { DMA_REGION_ALIGN = 4096 };
/* NULL: no region left, or the sanitizers are to see every allocation. */
void *dma_region_alloc(size_t size) MUST_CHECK;
/* False: @memory is no region. */
bool dma_region_free(void *memory);

#endif
