/* SPDX-License-Identifier: BSD-3-Clause */
/* Slabs for what is read from the kernel: see the header. */
#include "fs/fuse/front_payload.h"

#include <errno.h>

#include "reactor/log.h"
#include "reactor/memory.h"

enum { PAGE_BYTES = 4096 };

int payload_area_init(struct payload_area *area)
{
	*area = (struct payload_area){0};
	unsigned count = 0;
	for (; count < PAYLOAD_SLABS; count++) {
		area->slab[count].memory = dma_alloc(PAYLOAD_SLAB_BYTES, PAGE_BYTES);
		if (!area->slab[count].memory)
			break;
	}
	if (count == 0)
		return -ENOMEM;
	if (count < PAYLOAD_SLABS)
		log_warn("fuse: DMA memory is short: %u of %u request buffers", count, (unsigned)PAYLOAD_SLABS);
	return 0;
}

void payload_area_fini(struct payload_area *area)
{
	for (unsigned i = 0; i < PAYLOAD_SLABS; i++) {
		assert(area->slab[i].references == 0);
		dma_free(area->slab[i].memory);
	}
	*area = (struct payload_area){0};
}

static bool slab_has_room(struct payload_slab *slab)
{
	if (!slab->memory)
		return false;
	if (slab->references == 0)
		slab->used = 0;
	return PAGE_BYTES + slab->used + WIRE_WRITE_BYTES_MAX <= PAYLOAD_SLAB_BYTES;
}

static struct payload_slab *find_slab(struct payload_area *area)
{
	if (area->current && slab_has_room(area->current))
		return area->current;
	for (unsigned i = 0; i < PAYLOAD_SLABS; i++)
		if (slab_has_room(&area->slab[i]))
			return &area->slab[i];
	return NULL;
}

char *payload_offer(struct payload_area *area)
{
	area->current = find_slab(area);
	if (!area->current)
		return NULL;
	return area->current->memory + PAGE_BYTES + area->current->used - WIRE_WRITE_HEADER_BYTES;
}

struct payload_slab *payload_hold(struct payload_area *area, size_t length)
{
	struct payload_slab *slab = area->current;
	assert(length <= WIRE_WRITE_HEADER_BYTES + WIRE_WRITE_BYTES_MAX);
	/* It ends @length - 80 behind its position; the next message begins 80 before the next position. */
	slab->used += (uint32_t)align_up(length, PAGE_BYTES);
	slab->references++;
	return slab;
}

void payload_put(struct payload_slab *slab)
{
	assert(slab->references > 0);
	slab->references--;
}
