/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Pools of equal DMA buffers.
 *
 * The free list is an array of pointers beside the buffers, so a buffer that was never handed out is never touched.
 * With EAL all slabs are taken when the pool is created (taking one later may map hugepages into an IOMMU, which takes
 * milliseconds); without, one at a time as the pool is used, since that costs next to nothing and keeps pools of a
 * simulation cheap. Destroying a pool frees the buffers that are still out, as a power cut would.
 */
#include <errno.h>
#include <stdlib.h>

#include "reactor/log.h"
#include "reactor/memory.h"
#include "reactor/sanitizer_internal.h"

enum { SLAB_BYTES = 1 << 20 };

struct dma_pool {
	size_t buffer_size, stride, align;  /* bytes */
	unsigned count_max;
	unsigned slab_buffers;              /* in each slab but the last */
	unsigned slab_count, slab_count_max;
	unsigned free_count;                /* pointers in free_buffers */
	unsigned out_count;                 /* buffers handed out */
	char **slabs;
	void **free_buffers;                /* stack */
};

static unsigned buffers_of_slab(const struct dma_pool *pool, unsigned slab)
{
	return MIN(pool->slab_buffers, pool->count_max - slab * pool->slab_buffers);
}

static int slab_add(struct dma_pool *pool)
{
	const unsigned count = buffers_of_slab(pool, pool->slab_count);
	char *slab = dma_alloc(count * pool->stride, pool->align);
	if (!slab)
		return -ENOMEM;
	sanitizer_poison(slab, count * pool->stride);
	pool->slabs[pool->slab_count++] = slab;
	for (unsigned i = count; i > 0; i--)
		pool->free_buffers[pool->free_count++] = slab + (i - 1) * pool->stride;
	return 0;
}

int dma_pool_create(size_t buffer_size, size_t align, unsigned count_max, struct dma_pool **out)
{
	assert(buffer_size > 0 && count_max > 0);
	struct dma_pool *pool = calloc(1, sizeof(*pool));
	if (!pool)
		return -ENOMEM;
	pool->buffer_size = buffer_size;
	pool->align = align;
	pool->stride = align_up(buffer_size, align);
	pool->count_max = count_max;
	pool->slab_buffers = (unsigned)MIN(MAX(SLAB_BYTES / pool->stride, (size_t)1), (size_t)count_max);
	pool->slab_count_max = (unsigned)div_round_up(count_max, pool->slab_buffers);
	pool->slabs = calloc(pool->slab_count_max, sizeof(*pool->slabs));
	pool->free_buffers = malloc(count_max * sizeof(*pool->free_buffers));
	if (!pool->slabs || !pool->free_buffers)
		goto fail;
	while (memory_has_eal() && pool->slab_count < pool->slab_count_max)
		if (slab_add(pool) != 0)
			goto fail;
	*out = pool;
	return 0;
fail:
	log_error("memory: no room for %u DMA buffers of %zu bytes", count_max, buffer_size);
	dma_pool_destroy(pool);
	return -ENOMEM;
}

void dma_pool_destroy(struct dma_pool *pool)
{
	if (!pool)
		return;
	for (unsigned i = 0; i < pool->slab_count; i++) {
		sanitizer_unpoison(pool->slabs[i], buffers_of_slab(pool, i) * pool->stride);
		dma_free(pool->slabs[i]);
	}
	free(pool->slabs);
	free(pool->free_buffers);
	free(pool);
}

void *dma_pool_get(struct dma_pool *pool)
{
	if (UNLIKELY(pool->free_count == 0)) {
		if (pool->slab_count == pool->slab_count_max || slab_add(pool) != 0)
			return NULL;
	}
	void *buffer = pool->free_buffers[--pool->free_count];
	pool->out_count++;
	sanitizer_unpoison(buffer, pool->buffer_size);
	return buffer;
}

void dma_pool_put(struct dma_pool *pool, void *buffer)
{
	assert(pool->out_count > 0 && !sanitizer_poisoned(buffer));
	sanitizer_poison(buffer, pool->stride);
	pool->out_count--;
	pool->free_buffers[pool->free_count++] = buffer;
}

unsigned dma_pool_free_count(const struct dma_pool *pool) { return pool->count_max - pool->out_count; }
