/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport FUSE over io_uring (Linux 6.14, where the administrator has enabled it): beside its clone of
 * /dev/fuse a reactor has a ring with the queues of some CPUs. A queue is a few entries, each a pair of buffers that
 * the kernel fills with a request and takes the answer from; answering and asking for the next are one command.
 * Commands are collected and handed over once a turn, so a busy reactor makes one system call for many requests.
 *
 * The kernel puts a request into the queue of the CPU that its caller runs on, and wants an entry in every possible
 * CPU's queue before it uses any. Queue number modulo reactors gives the reactor: with one reactor per CPU a request
 * stays on its CPU. FORGET, INTERRUPT and notifications still go through /dev/fuse, which the reactor looks at now
 * and then.
 *
 * An entry is request object and buffers in one. Its operation may run on another reactor, which fills in the answer;
 * the command is given at home, since a ring has one owner. The kernel may fill the buffers as soon as it has the
 * answer, so a request cannot be answered before its operation ends: no rings where a missing device is waited for
 * (front_hold.c).
 */
#ifndef LANEFS_FS_FUSE_FRONT_RING_H
#define LANEFS_FS_FUSE_FRONT_RING_H

#include "fs/fuse/front_dev.h"
#include "reactor/uring.h"

enum {
	RING_PAYLOAD_BYTES = WIRE_WRITE_BYTES_MAX,
	RING_ENTRIES_WANTED = 64,  /* of all queues together, ... */
	RING_DEPTH_MIN = 2,        /* ... but of one at least */
	RING_DEPTH_MAX = 16,
};

struct ring_entry {
	struct front_request base;
	struct ring_source *source;       /* home */
	struct fuse_in_header header;     /* a copy: the answer's goes where it was */
	_Alignas(8) char fixed[WIRE_RING_FIXED_BYTES]; /* a copy: what was checked stays as it was */
	struct wire_ring_headers *headers;
	char *payload;                    /* RING_PAYLOAD_BYTES, a page-aligned DMA buffer */
	struct iovec iov[2];              /* the two buffers, for the kernel */
	uint16_t queue;
	struct message message;           /* the way home */
	_Alignas(8) char bytes[DEV_INLINE_BYTES]; /* small names and data: the answer goes where they were */
};

struct ring_source {
	struct dev_source *dev;           /* of the same reactor */
	struct uring uring;
	struct poller poller;
	struct wire_ring_headers *headers;
	struct ring_entry *entries;
	unsigned count;
	bool has_uring, stopping;
	int error;                        /* of an entry that the kernel did not take; 0: none */
	uint64_t running;                 /* requests out; read by anyone */
	struct fiber_cond drained;
};

/* What this kernel has switched on. Any thread. */
bool ring_offered(void);
/* Queues that the kernel wants: one per possible CPU. 0: not known. */
unsigned ring_queue_count(void);
/* Entries of each. */
unsigned ring_depth(unsigned queues);

/* All of these from the reactor of @dev. Takes memory for its queues; @reactors share all queues. -errno: no ring. */
int ring_source_open(struct dev_source *dev, unsigned reactors) MUST_CHECK;
/* After INIT: gives the kernel the entries. -errno: it did not take them. */
int ring_source_start(struct ring_source *ring) MUST_CHECK;
/* Answers what was taken; takes nothing any more. */
MAY_WAIT void ring_source_drain(struct ring_source *ring);
void ring_source_close(struct dev_source *dev);

#endif
