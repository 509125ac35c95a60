/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Block devices by name. A bdev is opened through a descriptor (which receives events), used through a channel (one per
 * reactor), and spoken to with struct io: submit, poll, complete, one callback; io_wait is the bridge to fibers.
 *
 * Life of an I/O: the caller fills a struct io (on its stack, or embedded) -> io_submit takes a bdev_io from the pool,
 * checks bounds, splits at the device's limits, bounces memory that the device cannot reach -> the module's submit ->
 * bdev_io_complete -> retry or done(io) on the reactor that submitted. Submission never fails and never waits: errors
 * arrive in io.result. A module that answers "no memory" gets the object again, in order, when others have completed.
 *
 * Removal: bdev_remove (any source) is the one path: unpublished; new I/O gets -ENODEV; outstanding I/O is completed by
 * the module once the device can no longer reach memory; openers get BDEV_EVENT_REMOVED on their own reactor; when the
 * last descriptor is closed the bdev is freed after a grace period. Openers that do not close within the deadline are
 * named in the log, the module's hardware is released, the bdev object stays as a tombstone.
 *
 * | call                                 | from                                                |
 * | registry create/remove/find/open     | any reactor's fiber (find is an RCU read)           |
 * | channel get/put, io_submit, io_wait  | the channel's reactor                               |
 * | done callbacks                       | arrive on the channel's reactor, outside of fibers, |
 * |                                      | never inside io_submit                              |
 */
#ifndef LANEFS_BLOCKDEV_BLOCKDEV_H
#define LANEFS_BLOCKDEV_BLOCKDEV_H

#include <sys/uio.h>

#include "reactor/fiber.h"
#include "reactor/latency.h"

struct bdev;
struct bdev_registry; /* the devices of one process part: one daemon or one test has one; nothing is global */
struct bdev_desc;
struct bdev_channel;

enum io_op {
	IO_READ,
	IO_WRITE,
	IO_FLUSH,        /* everything completed before its submission, on any channel, becomes durable */
	IO_UNMAP,        /* content afterwards: undefined, or zeroes if the device says so */
	IO_WRITE_ZEROES,
	IO_RESET,
	IO_ABORT,        /* of io->abort_target; best effort */
	IO_OP_COUNT,
};
enum io_flags {
	IO_FUA = 1 << 0, /* write: durable when complete; emulated with a flush where the device has none */
};

/* How far an I/O has come. Blockdev's alone; io_submit initialises it. */
struct io_progress {
	struct cds_list_head node; /* while it waits in a line of its reactor */
	uint64_t submitted_ns;
	uint64_t issued;           /* bytes that pieces have been made of */
	size_t iov_skip;           /* bytes of iov[iov_index] that pieces have been made of */
	unsigned iov_index;
	unsigned pending;          /* pieces under way */
	bool more, waiting, flushing;
};

struct io {
	struct bdev_channel *channel;
	enum io_op op;
	uint32_t flags;
	uint64_t offset;          /* bytes, multiple of the block size */
	uint64_t length;          /* bytes, multiple of the block size; read/write: equals the sum of iov */
	const struct iovec *iov;  /* caller's; valid until done */
	unsigned iov_count;
	struct io *abort_target;
	void (*done)(struct io *io);
	void *arg;
	int result;               /* 0 or a negative errno: -EIO, -ENODEV, -ENOSPC, -ENOMEM, -EINVAL, -EROFS, -EOPNOTSUPP,
	                           * -EILSEQ (media), -ETIMEDOUT, -ECANCELED (aborted) */
	struct fiber *waiter;     /* of io_wait and io_group; NULL otherwise */
	struct iovec single;      /* room for the common case of one buffer */
	struct io_progress progress;
};

/* ---- the I/O calls (channel's reactor) ---- */
void io_submit(struct io *io);
/* Submits and parks until done; returns io->result. Sets done itself. */
MAY_WAIT int io_run(struct io *io);
/* Several at once: init, submit any number, wait for all; the first error wins. */
struct io_group {
	struct fiber_group pending;
	int result;
};
void io_group_init(struct io_group *group);
void io_group_submit(struct io_group *group, struct io *io);
MAY_WAIT int io_group_wait(struct io_group *group);
/* Shorthands for one contiguous buffer. */
MAY_WAIT int bdev_read(struct bdev_channel *channel, void *buffer, uint64_t offset, uint64_t length);
MAY_WAIT int bdev_write(struct bdev_channel *channel, const void *buffer, uint64_t offset, uint64_t length,
	uint32_t flags);
MAY_WAIT int bdev_flush(struct bdev_channel *channel);
/* Fills an io for one buffer (io->single); the caller sets done or uses io_run / io_group_submit. */
void io_prepare(struct io *io, struct bdev_channel *channel, enum io_op op, void *buffer, uint64_t offset,
	uint64_t length);

/* ---- registry ---- */
int bdev_registry_create(struct reactor_group *group, struct bdev_registry **out) MUST_CHECK;
/* Starts the thread that frees what was removed now, while failing is still harmless, instead of at the first removal. After
 * privileges are dropped: the thread may take no signals. -ENOMEM. */
int bdev_registry_prepare(const struct bdev_registry *registry) MUST_CHECK;
/* All bdevs must be gone. */
void bdev_registry_destroy(struct bdev_registry *registry);
/* Frees everything, bdevs, channels and descriptors included, without completing or releasing anything: what is left of
 * a simulation after reactor_group_sim_abandon. A record_log that somebody holds survives. */
void bdev_registry_abandon(struct bdev_registry *registry);

struct bdev_limits {
	char name[128];
	uint32_t block_size;              /* bytes, power of two, 512..4096 */
	uint64_t block_count;
	uint32_t optimal_boundary_blocks; /* 0: none */
	uint32_t atomic_write_blocks;     /* largest write that is never torn; at least 1 */
	uint32_t io_bytes_max;            /* largest single I/O; larger ones are split */
	uint32_t iov_count_max;
	uint32_t vector_boundary;         /* bytes, power of two: vectors meet only at multiples of it; 0: anywhere */
	bool volatile_cache;              /* completed writes may be lost until a FLUSH */
	bool unmap_reads_zero;
	bool read_only;
	bool needs_dma;                   /* buffers must be DMA memory, block-aligned: others are bounced */
	bool native_fua;
	uint32_t ops;                     /* bit per enum io_op */
	uint32_t buffer_align;            /* bytes, power of two; what is not so aligned is bounced; 0: any */
	uint32_t unmap_bytes_max;         /* 0: 1 GiB */
	uint32_t write_zeroes_bytes_max;  /* 0: 1 GiB; without the operation zeroes are written */
	uint32_t stack_level;             /* 0, or one more than the base of a stacking module; at most 3 */
};
const struct bdev_limits *bdev_get_limits(const struct bdev *bdev);
static inline uint64_t bdev_size_bytes(const struct bdev_limits *l) { return (uint64_t)l->block_size * l->block_count; }

/* Looks whether the device has become larger meanwhile; if so its limits say so afterwards, and openers are told. 0 as well
 * when nothing changed or the module cannot look; -EINVAL: it has become smaller; errors of looking. */
MAY_WAIT int bdev_rescan(struct bdev *bdev) MUST_CHECK;

enum bdev_event { BDEV_EVENT_REMOVED, BDEV_EVENT_RESIZED, BDEV_EVENT_MEDIA_ERROR };
typedef void (*bdev_event_fn)(enum bdev_event event, struct bdev_desc *desc, void *arg);

/* Opens by name. Events arrive on the calling reactor. -ENODEV, -EROFS (write wanted), -EBUSY (write wanted, claimed by
 * another), -ENOMEM. */
MAY_WAIT int bdev_open(struct bdev_registry *registry, const char *name, bool write, bdev_event_fn event, void *arg,
	struct bdev_desc **out) MUST_CHECK;
/* From the reactor that opened; all channels of the descriptor must have been put. */
MAY_WAIT void bdev_close(struct bdev_desc *desc);
struct bdev *bdev_desc_bdev(struct bdev_desc *desc);
/* Counts the descriptor as a writer from now on, or no longer. Errors as bdev_open. */
int bdev_desc_set_write(struct bdev_desc *desc, bool write) MUST_CHECK;
/* Keeps further writers out until the descriptor is closed. -EBUSY: there is another writer. */
int bdev_claim(struct bdev_desc *desc) MUST_CHECK;
/* Who holds the descriptor, for the report of those that do not close in time. Copied. */
void bdev_desc_set_label(struct bdev_desc *desc, const char *label);
/* The published bdev of that name, or NULL. Stays valid until the caller next waits, or while a descriptor is open. */
struct bdev *bdev_find(struct bdev_registry *registry, const char *name);
/* Whether the bdev lets changes through, on all its channels. To read-only: none may be outstanding, and other processes may
 * read from then on. To writable: what was opened for reading is opened anew; -EROFS, -EACCES, -EPERM (not to be written),
 * -EBUSY (another process reads it), -ENODEV; nothing has changed then. From a fiber of the reactor that created it. */
MAY_WAIT int bdev_set_read_only(struct bdev *bdev, bool read_only) MUST_CHECK;
/* This reactor's channel (counted). */
int bdev_channel_get(struct bdev_desc *desc, struct bdev_channel **out) MUST_CHECK;
void bdev_channel_put(struct bdev_channel *channel);

/* The one removal path. Any reactor's fiber; waits until the device is released or @deadline_ns have passed from now
 * (-ETIMEDOUT: tombstone). Idempotent: 0 as well when there is no such bdev any more. */
MAY_WAIT int bdev_remove(struct bdev_registry *registry, const char *name, uint64_t deadline_ns);

/* ---- statistics ---- */
struct bdev_op_stats {
	uint64_t count, bytes, errors, latency_total_ns;
	uint64_t latency[LATENCY_BUCKETS]; /* reactor/latency.h */
};
struct bdev_stats {
	struct bdev_op_stats op[IO_OP_COUNT];
	uint64_t splits;     /* I/Os that took more than one piece */
	uint64_t bounces;    /* pieces that went through a bounce buffer */
	uint64_t no_memory;  /* pieces that had to wait for the module */
	uint64_t pool_waits; /* I/Os that had to wait for blockdev's own pools */
	uint64_t retries, fua_writes;
	uint64_t outstanding; /* pieces that the module has now */
};
/* Sum over reactors; approximate while I/O runs. Nine KiB: not for a fiber's stack. */
void bdev_stats_read(struct bdev *bdev, struct bdev_stats *out);
void bdev_for_each(struct bdev_registry *registry, void (*fn)(struct bdev *bdev, void *arg), void *arg);

/* ---- the modules ---- */
/* Each creates a bdev and publishes it under @name; -EEXIST. Gone after bdev_remove. */

struct bdev_ram_options {
	uint64_t size_bytes;
	uint32_t block_size;      /* 0: 4096 */
	void *memory;             /* use this memory (not freed); NULL: sparse allocation of its own */
	bool asynchronous;        /* complete from a poller in a seeded, shuffled order instead of in submit */
	uint64_t seed;
	unsigned delay_us_max;    /* with asynchronous: random virtual delay up to this */
	bool volatile_cache;      /* what limits.volatile_cache says; data is never lost by ram itself */
	bool native_fua;          /* what limits.native_fua says */
};
int bdev_ram_create(struct bdev_registry *registry, const char *name, const struct bdev_ram_options *options)
	MUST_CHECK;

struct bdev_file_options {
	const char *path;         /* regular file or block device */
	bool read_only;
	bool no_direct;           /* for tests: buffered */
	bool exclusive_lock;      /* OFD write lock on a file, O_EXCL on a block device: -EBUSY when another holds it */
	uint32_t block_size;      /* of a regular file: 512 or 4096; 0: see below */
};
/* io_uring; O_DIRECT where the file allows it; block size 4096 for regular files (512 when the file's size or the
 * device asks for it). Errors as open(2); the caller words them. */
MAY_WAIT int bdev_file_create(struct bdev_registry *registry, const char *name,
	const struct bdev_file_options *options) MUST_CHECK;

/* Stacking: fails, delays, corrupts or loses what passes through, by rule. */
enum error_action {
	ERROR_FAIL,        /* complete with .error without touching the base */
	ERROR_FAIL_AFTER,  /* do it, then report .error */
	ERROR_DELAY,       /* complete .delay_ns later */
	ERROR_CORRUPT,     /* read: flip bits in what was read; write: write flipped bits */
	ERROR_LOSE,        /* answer success without doing it (lost write, lost flush) */
	ERROR_NO_MEMORY,   /* the module answers "no memory" */
	ERROR_HANG,        /* never completes, until removal */
};
struct error_rule {
	uint32_t ops;             /* bit per enum io_op */
	uint64_t offset, length;  /* bytes; length 0: anywhere */
	uint64_t skip;            /* matching I/Os that pass first */
	uint64_t count;           /* then this many are hit; 0: all */
	enum error_action action;
	int error;
	uint64_t delay_ns;
	uint64_t hits;            /* how often it acted */
	/* Told of every I/O that it acts on, before anything else happens to it; first: its first bytes, NULL when it has none
	 * (what a read has there is undefined). NULL: nobody is told. */
	void (*on_hit)(void *arg, enum io_op op, uint64_t offset, const void *first);
	void *arg;
};
enum { ERROR_RULES_MAX = 16 };
int bdev_error_create(struct bdev_registry *registry, const char *name, const char *base) MUST_CHECK;
/* Any reactor of a simulated group, or the control thread while nothing runs. Returns the rule's index. */
int bdev_error_add_rule(struct bdev *bdev, const struct error_rule *rule);
void bdev_error_clear_rules(struct bdev *bdev);
const struct error_rule *bdev_error_rule(struct bdev *bdev, unsigned index);
uint64_t bdev_error_io_count(struct bdev *bdev, enum io_op op); /* I/Os seen, for sweeps */

/* Stacking: logs in order every write, write zeroes, unmap, flush and FUA, with content, when it was *submitted* and when
 * it *completes*. One log of the device for all reactors (simulated groups only). */
enum record_kind { RECORD_WRITE, RECORD_FLUSH, RECORD_UNMAP, RECORD_MARK };
struct record_entry {
	enum record_kind kind;
	bool fua;
	uint64_t offset, length;   /* bytes */
	uint64_t submitted;        /* place in the order of all submissions and completions of this log */
	uint64_t completed;        /* UINT64_MAX: never, or with an error */
	const uint8_t *data;       /* RECORD_WRITE: length bytes; log's memory */
	uint64_t mark;             /* RECORD_MARK: the test's own number */
};
int bdev_record_create(struct bdev_registry *registry, const char *name, const char *base) MUST_CHECK;
/* A mark of the test in the log (an acknowledged fsync, say). */
void bdev_record_mark(struct bdev *bdev, uint64_t mark);
/* Entries in order of submission. Valid until the next I/O or clear. */
const struct record_entry *bdev_record_entries(struct bdev *bdev, size_t *count);
void bdev_record_clear(struct bdev *bdev);
/* Detaches the log so that it outlives the bdev (and an abandoned simulation). */
struct record_log;
struct record_log *bdev_record_log(struct bdev *bdev);
const struct record_entry *record_log_entries(const struct record_log *log, size_t *count);
void record_log_get(struct record_log *log);
void record_log_put(struct record_log *log);

/* Opens a TARGET as the tools name it ("/path/image", "/dev/sdX", "ram:1G", "0000:5e:00.0/1", "emu:/path/image,cache=16M";
 * forms that are not built yet are refused by name): creates the bdev and returns its registry name in @name. On failure
 * one line naming object, cause and next step is in @message (size message_size). */
struct target_options {
	bool read_only;
	bool exclusive_lock;
	uint32_t file_block_size;                   /* of image files and ram: 512 or 4096; 0: as bdev_file_options, 4096 */
	/* For what the nvme module serves (blockdev/nvme.h); the others ignore it. */
	bool hold_on_removal;
	uint64_t io_timeout_ns;                     /* 0: the driver's default */
	void (*device_event)(unsigned event, void *arg); /* enum nvme_device_event; NULL: nobody cares */
	void *device_event_arg;
};
MAY_WAIT int bdev_target_create(struct bdev_registry *registry, const char *target,
	const struct target_options *options, char *name, size_t name_size, char *message, size_t message_size) MUST_CHECK;

#endif
