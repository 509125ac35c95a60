/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport /dev/fuse: one source of requests per reactor, reading its own clone of the fd.
 *
 * A source reads a bounded batch in every turn of its reactor and is woken by epoll when the reactor sleeps. It stops
 * reading (paused: the fd leaves epoll) when it has no request object or no place to read into, and goes on when one
 * comes home. FORGET and INTERRUPT then wait too (nobody can tell what a read will bring), unless the clone of another
 * reactor takes them; everything taken ends without them. While the device is held it does not, and the source reads on
 * into memory from the heap (front_dev_spare.c). Small messages are copied out of the payload area into the
 * request object; WRITEs and other large ones keep their slice of it.
 *
 * INTERRUPT may come by any clone: it visits every reactor until one knows the request it speaks of.
 *
 * Everything in a dev_source belongs to its reactor, except that fields marked [front] are set before it starts.
 */
#ifndef LANEFS_FS_FUSE_FRONT_DEV_H
#define LANEFS_FS_FUSE_FRONT_DEV_H

#include "fs/fuse/front_payload.h"
#include "fs/fuse/front_request.h"
#include "reactor/memory.h"

enum {
	DEV_READ_BATCH = 16,      /* requests read in a turn */
	DEV_INLINE_BYTES = 1024,  /* messages up to here are copied: any fixed struct and two names of 255 bytes */
	DEV_KNOWN_BUCKETS = 256,
	DEV_TURNS_WITH_RING = 32, /* turns between two looks when only FORGET and INTERRUPT come this way */
	DEV_INTERRUPTED_LOOK_MS = 200, /* between two looks at requests that were interrupted */
	DEV_ANSWER_CLASSES = 3,
	DEV_SPARE_REQUESTS_MAX = 1024, /* of a source, beyond its own, while the device is held */
	DEV_SPARE_BYTES_MAX = 64 << 20,
};

struct dev_source;

struct dev_request {
	struct front_request base;
	struct dev_source *source;        /* home */
	struct payload_slab *slab;        /* held; NULL: the message is in `bytes` */
	void *buffer;                     /* for the answer, of the reactor that runs it; NULL: none */
	unsigned buffer_class;
	unsigned visits_left;             /* INTERRUPT: reactors still to ask */
	struct dev_request *next_free;
	struct message message;           /* the way home, or to the next reactor */
	bool is_spare;                    /* from the heap, like its area */
	char *area;                       /* held instead of a slab */
	size_t area_bytes;
	_Alignas(8) char bytes[DEV_INLINE_BYTES];
};

/* Buffers for answers, by size. A fiber that finds its class empty waits in line. */
struct dev_answer_class {
	struct dma_pool *pool;
	struct fiber_cond freed;
	unsigned out;
};

/* What comes beyond the source's own requests and slabs while the device is held. */
struct dev_spare {
	struct dev_request *request;      /* for the next one; NULL: not there yet */
	char *area;
	unsigned count;                   /* out */
	size_t bytes;                     /* in areas that are out */
};

struct dev_source {
	struct front_session *session;    /* [front] */
	struct dev_source **peers;        /* [front] sources by reactor index */
	struct reactor *reactor;          /* [front] */
	int fd;                           /* [front] -1 before the clone */
	unsigned requests_max;            /* [front] */
	/* [front] The kernel let go of the mount; called on any reactor, more than once. */
	void (*ended)(struct dev_source *source);
	bool open;                        /* memory is there */
	bool reading;                     /* the poller runs */
	bool watched;                     /* the fd is in the reactor's epoll */
	bool held;                        /* the device is */
	struct dev_spare spare;
	int dead;                         /* the error that ended reading: -ENODEV, or worse; 0: none */
	struct poller poller;
	struct payload_area payload;
	struct dev_answer_class answers[DEV_ANSWER_CLASSES];
	struct dev_request *requests;     /* requests_max of them */
	struct dev_request *free;
	uint64_t running;                 /* requests out; read by anyone */
	struct fiber_cond drained;
	struct cds_list_head known[DEV_KNOWN_BUCKETS]; /* front_request.known of all taken here and not home yet */
	struct timer interrupted;         /* runs while there may be some that were interrupted */
	struct front_stats stats;
	struct ring_source *ring;         /* [front] the other way for requests to come to this reactor; NULL: none */
	unsigned turns;                   /* with a ring: since the last look */
};

/* All of these from the source's reactor. */
int dev_source_open(struct dev_source *source) MUST_CHECK;
int dev_source_start(struct dev_source *source) MUST_CHECK; /* begins to read */
/* Reads no more; dev_source_start begins again. */
void dev_source_stop(struct dev_source *source);
/* Waits until every request is home. False: not in time. After dev_source_stop. */
MAY_WAIT bool dev_source_await(struct dev_source *source, uint64_t timeout_ns);
/* Stops reading and waits until every request is home. */
MAY_WAIT void dev_source_drain(struct dev_source *source);
void dev_source_close(struct dev_source *source);
/* See front_hold.c; requests that were interrupted before are answered. */
void dev_source_hold(struct dev_source *source, bool held);

/* Fills what every transport fills, for a request that was just taken at @source, by any way. */
void dev_source_begin(struct dev_source *source, struct front_request *request, const struct front_transport *transport,
	const struct fuse_in_header *header);

/* ---- front_dev_spare.c ---- */
/* Where the next message goes; NULL: no more. Then, for a message that is a request, take; hold when its bytes stay. */
char *dev_spare_offer(struct dev_source *source) MUST_CHECK;
struct dev_request *dev_spare_take(struct dev_source *source);
void dev_spare_hold(struct dev_request *request, size_t length);
void dev_spare_put(struct dev_request *request); /* frees it */
void dev_spare_fini(struct dev_source *source);

/* ---- front_dev_answer.c ---- */
extern const struct front_transport front_dev_transport;
int dev_answers_open(struct dev_source *source) MUST_CHECK;
void dev_answers_close(struct dev_source *source);
/* ---- front_dev.c, for it ---- */
void dev_request_home(struct dev_request *request); /* on its source's reactor */
/* Any reactor: see front_transport. @fd: any of the connection. */
void dev_tell_attributes_stale(int fd, uint64_t ino);
void dev_tell_listing_stale(int fd, uint64_t ino);

#endif
