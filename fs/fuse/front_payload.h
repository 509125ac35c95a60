/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Where requests are read into: page-aligned DMA memory, taken in slices as large as the request turned out to be.
 *
 * Before a read nobody knows how long the request is, so each read is offered room for the largest one. A 4 KiB write
 * must not hold 1 MiB for that: the next read is offered what follows right behind it. So a payload area is a few
 * slabs, each used from its start to its end; a slab starts over when the last request in it has been answered.
 *
 *     slab:  | page | WRITE 4 KiB |    | WRITE 64 KiB |    | room for the next read: 80 bytes + 1 MiB ...       |
 *                  ^ position 1       ^ position 2        ^ position 3; the message begins 80 bytes before it
 *
 * A message begins 80 bytes before its position, so that the payload of a WRITE lies on a page boundary and all of the
 * message is one run of bytes. Slices therefore leave at least 80 bytes to the next position.
 *
 * Limits: PAYLOAD_SLABS slabs a reactor, each good for 4 writes of 1 MiB or 500 of 4 KiB. When every slab still has an
 * unanswered request, the reactor stops reading until one comes back. Slabs are tried in order, so that a lightly
 * loaded mount touches the first one only.
 *
 * An area belongs to one reactor.
 */
#ifndef LANEFS_FS_FUSE_FRONT_PAYLOAD_H
#define LANEFS_FS_FUSE_FRONT_PAYLOAD_H

#include "fs/fuse/fuse_wire.h"

enum {
	PAYLOAD_SLABS = 4,
	PAYLOAD_SLAB_BYTES = (4 << 20) + (64 << 10),
};

struct payload_slab {
	char *memory;         /* NULL: could not be had */
	uint32_t used;        /* bytes behind the first page, multiple of 4096 */
	uint32_t references;  /* slices held */
};
struct payload_area {
	struct payload_slab slab[PAYLOAD_SLABS];
	struct payload_slab *current;
};

/* -ENOMEM when not even one slab can be had. */
int payload_area_init(struct payload_area *area) MUST_CHECK;
void payload_area_fini(struct payload_area *area);
/* Where the next message goes: room for WIRE_WRITE_HEADER_BYTES + WIRE_WRITE_BYTES_MAX bytes. NULL: none now. The same
 * place is offered again until payload_hold. */
char *payload_offer(struct payload_area *area) MUST_CHECK;
/* Keeps the message of @length bytes that was read into the offered place. */
struct payload_slab *payload_hold(struct payload_area *area, size_t length);
void payload_put(struct payload_slab *slab);

#endif
