/* SPDX-License-Identifier: BSD-3-Clause */
#ifndef LANEFS_REACTOR_DMA_MAP_INTERNAL_H
#define LANEFS_REACTOR_DMA_MAP_INTERNAL_H

#include "reactor/base.h"

/* False when a mapper has refused a page of the buffer: no device could reach it. */
bool dma_map_allows(const void *buffer, size_t size);

#endif
