/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The FUSE front end: between a mounted /dev/fuse and a mounted filesystem (fs/fs.h).
 *
 * There is no thread between the kernel and the reactors. Each reactor reads requests from its own clone of the fd,
 * decodes them and runs them as fibers on the owner of their inode; the answer goes back through the clone that
 * delivered the request, payload straight out of DMA memory.
 *
 * Life: mount(2) with fd=N -> fuse_front_create -> fuse_front_start (answers INIT, then reads) -> ... the mount goes
 * away: `ended` is called -> fuse_front_stop (waits for what still runs) -> fuse_front_destroy -> fs_unmount.
 * Or another front end goes on with the same fd, in this process or in the next: fuse_front_pause -> fuse_front_stop -> ...
 * there: fuse_front_create with the agreement -> fuse_front_start -> fuse_front_go.
 *
 * Layers, top down: fuse_front.c (life) -> front_dev.c, front_ring.c (transports /dev/fuse, io_uring) ->
 * front_decode.c (bytes to call) -> front_dispatch.c (table of operations, statistics), front_hold.c (a device that
 * is away) -> front_names.c, front_attr.c, front_data.c, front_ioctl.c (the operations, each a few lines over fs.h)
 * -> front_answer.c (filling the kernel's structs).
 */
#ifndef LANEFS_FS_FUSE_FUSE_FRONT_H
#define LANEFS_FS_FUSE_FUSE_FRONT_H

#include "fs/fs.h"

struct fuse_front;

/* What the kernel has agreed to, for the life of the mount; enough to go on with its connection in another front end. */
struct fuse_front_agreement {
	uint32_t kernel_minor, minor, max_readahead, max_write;
	uint64_t offered, negotiated;
	bool suid_seen;           /* the kernel was told of a file with suid or sgid */
};

struct fuse_front_options {
	int fd;                   /* of the mounted /dev/fuse; stays the caller's, made non-blocking */
	bool noopen;              /* ENOSYS to OPEN: faster open and close, but no ATOMIC_O_TRUNC and no FOPEN flags */
	bool writeback;           /* the kernel's writeback cache: it then owns size and mtime */
	bool io_uring;            /* requests by io_uring where the kernel has it enabled; not with fuse_front_set_held */
	unsigned max_background;  /* asynchronous requests the kernel may have in flight; 0: 64 */
	unsigned requests_max;    /* requests that a reactor has taken and not answered; 0: 256 */
	unsigned init_timeout_ms; /* how long start waits for INIT; 0: 10000 */
	const struct fuse_front_agreement *agreement; /* another front end has answered INIT: see fuse_front_go. NULL: none has */
	/* Once, on reactor 0, when the kernel has let go of the mount (unmount, abort). Must not wait. */
	void (*ended)(struct fuse_front *front, void *arg);
	void *arg;
};

/* Any thread. Nothing is read yet. -ENOMEM. */
int fuse_front_create(struct fs *fs, struct reactor_group *group, const struct fuse_front_options *options,
	struct fuse_front **out) MUST_CHECK;
/* Takes memory on every reactor, answers INIT, clones the fd for the other reactors and lets all of them read. From a
 * fiber of reactor 0. -ETIMEDOUT (no INIT came), -EPROTO (a kernel older than 5.4), -EPERM (the fd is not mounted),
 * -ENODEV (unmounted meanwhile), -ENOMEM; undone on failure. One log line says what. */
MAY_WAIT int fuse_front_start(struct fuse_front *front) MUST_CHECK;
/* With options.agreement fuse_front_start makes everything ready, but reads nothing: what is read belongs to the reader, and
 * is lost to the kernel's client with him. This begins to read. From a fiber of reactor 0. -ENOMEM, -ENOSPC. */
MAY_WAIT int fuse_front_go(struct fuse_front *front) MUST_CHECK;
/* No reactor reads any more, and every request taken was answered; only fuse_front_stop may follow, for another front end to
 * go on with the fd. -ETIMEDOUT: requests do not end within @timeout_ns, and reading goes on. From a fiber of reactor 0. */
MAY_WAIT int fuse_front_pause(struct fuse_front *front, uint64_t timeout_ns) MUST_CHECK;
void fuse_front_get_agreement(const struct fuse_front *front, struct fuse_front_agreement *out);
/* Can a front end of this program go on with it? @options: what it will be created with. */
bool fuse_front_knows(const struct fuse_front_agreement *agreement, const struct fuse_front_options *options);
/* No reactor reads any more; returns when every request taken was answered. From a fiber of reactor 0; idempotent.
 * Requests that the kernel still holds stay there until the fd is closed. */
MAY_WAIT void fuse_front_stop(struct fuse_front *front);
/* The device is held: it is away, its I/O waits, and it may come back. Until this is called with false (fuse_front_stop
 * does), changes wait before they begin, and a request that has changed nothing is answered EINTR as soon as its caller
 * is interrupted; see front_hold.c. From a fiber of reactor 0. */
MAY_WAIT void fuse_front_set_held(struct fuse_front *front, bool held);
/* After stop, or without start. Closes the clones. */
void fuse_front_destroy(struct fuse_front *front);

/* ---- figures for status; any thread, approximate while requests run ---- */
enum { FUSE_FRONT_OPCODE_COUNT = 54 };
struct fuse_front_op_stats {
	uint64_t count, errors, total_ns;
	uint64_t bytes;                    /* read or written */
	uint64_t latency[LATENCY_BUCKETS]; /* from reading the request to its answer; reactor/latency.h */
};
/* Sum over the reactors. False when the opcode has no name (@out is zero). */
bool fuse_front_stats_read(const struct fuse_front *front, unsigned opcode, struct fuse_front_op_stats *out);
const char *fuse_front_opcode_name(unsigned opcode); /* "LOOKUP"; NULL */

struct fuse_front_status {
	uint32_t kernel_minor, minor; /* protocol 7.x: offered, agreed */
	uint64_t offered, negotiated; /* INIT flags */
	uint32_t max_write, max_pages, max_readahead, max_background;
	uint64_t running;             /* requests taken and not answered */
	uint64_t pauses;              /* times a reactor stopped reading for want of a request or a buffer */
	uint64_t forgets, interrupts, malformed, refused_answers;
	uint64_t interrupted;         /* requests answered EINTR while the device was held */
	uint64_t waiting;             /* changes that have not begun, because the device is held */
	bool held, ended;
	unsigned ring_entries;        /* requests that io_uring takes at once; 0: they come by /dev/fuse */
};
/* The kernel can do it and the administrator has it enabled (module parameter enable_uring of fuse). */
bool fuse_front_io_uring_offered(void);
/* DMA memory that options.io_uring takes, over all reactors: MiB. */
unsigned fuse_front_io_uring_mib(void);
void fuse_front_get_status(const struct fuse_front *front, struct fuse_front_status *out);
/* Names of the negotiated features, static strings ("parallel_dirops"); returns how many were stored. */
enum { FUSE_FRONT_FEATURES_MAX = 64 };
unsigned fuse_front_features(const struct fuse_front *front, const char *names[FUSE_FRONT_FEATURES_MAX]);

#endif
