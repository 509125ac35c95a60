/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reading on while the device is held. Requests then come home late, a source has soon given out all that it has, and
 * would not read the INTERRUPT that lets a process go. So it reads into memory from the heap, one request object and one
 * payload area after the other, up to the limits of front_dev.h; past them it pauses like at other times. The memory
 * goes back with its request.
 */
#include <stdlib.h>

#include "fs/fuse/front_dev.h"

enum { PAGE_BYTES = 4096, AREA_BYTES = PAGE_BYTES + WIRE_WRITE_BYTES_MAX };

char *dev_spare_offer(struct dev_source *source)
{
	struct dev_spare *spare = &source->spare;
	if (spare->count == DEV_SPARE_REQUESTS_MAX || spare->bytes > DEV_SPARE_BYTES_MAX)
		return NULL;
	if (!spare->request)
		spare->request = calloc(1, sizeof(*spare->request));
	if (!spare->area)
		spare->area = aligned_alloc(PAGE_BYTES, AREA_BYTES); /* touched as far as a message reaches */
	return spare->request && spare->area ? spare->area + PAGE_BYTES - WIRE_WRITE_HEADER_BYTES : NULL;
}

struct dev_request *dev_spare_take(struct dev_source *source)
{
	struct dev_spare *spare = &source->spare;
	struct dev_request *request = spare->request;
	spare->request = NULL;
	spare->count++;
	request->is_spare = true;
	request->area = NULL;
	return request;
}

void dev_spare_hold(struct dev_request *request, size_t length)
{
	struct dev_spare *spare = &request->source->spare;
	request->area = spare->area;
	request->area_bytes = length;
	spare->area = NULL;
	spare->bytes += length;
}

void dev_spare_put(struct dev_request *request)
{
	struct dev_spare *spare = &request->source->spare;
	if (request->area)
		spare->bytes -= request->area_bytes;
	free(request->area);
	spare->count--;
	free(request);
}

void dev_spare_fini(struct dev_source *source)
{
	assert(source->spare.count == 0);
	free(source->spare.request);
	free(source->spare.area);
	source->spare = (struct dev_spare){0};
}
