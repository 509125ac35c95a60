/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of blockdev's framework share; modules see bdev_module.h only.
 *
 * Who owns what:
 * - struct bdev_registry, the list of bdevs, their descriptors and the counts of descriptors and channels: the
 *   registry's mutex. It is held for a few instructions of the control path, never across a wait and never by an I/O.
 *   Readers of the list of published bdevs take no lock (RCU).
 * - struct home, the registry's state on one reactor (pools, lines, finished work): that reactor.
 * - struct bdev_channel: its reactor, except that the pointer in bdev->channels changes under the mutex, so that
 *   statistics can be read from elsewhere.
 * - struct bdev_removal: the reactor on which bdev_remove was first called; others send it messages.
 */
#ifndef LANEFS_BLOCKDEV_BDEV_INTERNAL_H
#define LANEFS_BLOCKDEV_BDEV_INTERNAL_H

#include <pthread.h>
#include <urcu-qsbr.h>

#include "blockdev/bdev_module.h"
#include "reactor/memory.h"

enum {
	PIECE_IOV_MAX = 16,         /* vectors of a piece that is not a whole I/O; more make more pieces */
	PIECE_PER_IO_MAX = 16,      /* pieces of one I/O under way at once; the rest follows as they complete */
	PIECE_SLAB_COUNT = 64,
	PIECE_COUNT_MAX = 4096,     /* per reactor; I/Os beyond wait in line */
	PIECE_LEVEL_RESERVE = 256,  /* kept free for each level below: a full upper level cannot starve its base */
	PIECE_RETRY_MAX = 3,
	STACK_LEVEL_MAX = 3,
	CONTEXT_BYTES_MIN = 512,    /* module context in a piece; grows with the largest module registered */
	BOUNCE_BYTES = 128 << 10,
	BOUNCE_COUNT_MAX = 64,      /* per reactor; I/Os beyond wait in line */
	HOME_BATCH = 256,           /* finished pieces and I/Os handled in one message */
	IOV_COUNT_DEFAULT = 1024,
};
#define NO_MEMORY_RETRY_NS (100 * NS_PER_US) /* until a refused piece is tried again when nothing is outstanding */

/* A part of an I/O that one call of the module's submit carries. */
struct piece {
	struct io *io;
	struct home *home;
	struct cds_list_head outstanding_node; /* channel->outstanding, while the module has it */
	void *bounce;              /* from home->bounces; NULL: the caller's memory is used */
	size_t iov_skip;           /* where the piece begins in io->iov */
	unsigned iov_index;
	unsigned retries;
	int result;
	uint32_t context_bytes;
	struct iovec iov[PIECE_IOV_MAX];
	struct bdev_io public;     /* last: the module's context follows */
};

struct piece_slab {
	struct piece_slab *next;
	size_t piece_bytes;
	_Alignas(64) unsigned char pieces[];
};

/* The registry's state on one reactor. */
struct home {
	struct bdev_registry *registry;
	struct reactor *reactor;
	struct cds_list_head free;                           /* pieces, by public.node */
	struct piece_slab *slabs;
	uint32_t context_bytes;                              /* of the pieces in free */
	unsigned piece_count, piece_out;                     /* of that size: made; of any size: handed out */
	struct dma_pool *bounces;                            /* created by the first bounce */
	struct cds_list_head waiting[STACK_LEVEL_MAX + 1];   /* I/Os that found the pools empty, by level */
	struct cds_list_head finished;                       /* pieces completed where nothing may be called back */
	struct cds_list_head done;                           /* I/Os likewise */
	struct message message;                              /* to ourselves, to work off finished and done */
	bool message_sent;
	unsigned busy;                                       /* depth: pieces complete through finished */
	unsigned deferring;                                  /* depth: I/Os complete through done */
};

struct bdev_registry {
	struct reactor_group *group;
	pthread_mutex_t lock;
	struct cds_list_head published; /* bdevs by node; RCU */
	struct cds_list_head removing;  /* bdevs by removing_node: being removed, or tombstones */
	uint32_t context_bytes;         /* largest module context; atomic, only grows */
	unsigned home_count;
	struct home *homes;
};

/* One reactor's part of a walk over all channels of a bdev. */
struct sweep_item {
	struct message message;
	struct bdev *bdev;
	unsigned index;
};

struct bdev_removal {
	struct reactor *reactor;
	uint64_t deadline_ns;      /* absolute */
	unsigned users;            /* fibers that look at the bdev; under the registry's mutex */
	bool swept, quiesced, closed, released, finished;
	struct fiber_cond changed;
	struct message quiesced_message, closed_message;
	bool closed_sent;          /* under the registry's mutex */
	unsigned sweep_pending;
	bool (*visit)(struct bdev *bdev, struct bdev_channel *channel); /* false: answers later, through sweep_answer */
	void (*sweep_done)(struct bdev *bdev);
	void (*fail)(struct bdev *bdev, void *channel_state);
};

struct bdev {
	struct cds_list_head node, removing_node;
	struct rcu_head rcu;
	struct bdev_registry *registry;
	const struct bdev_module *module;
	void *private_data;
	struct bdev_limits limits;
	bool removed;                    /* atomic; set once, under the mutex */
	struct cds_list_head descs;      /* under the mutex */
	unsigned channel_count;          /* under the mutex */
	struct bdev_channel **channels;  /* [home_count] */
	struct bdev_stats closed_stats;  /* of channels that are closed; under the mutex */
	struct bdev_removal removal;
	struct sweep_item sweep[];       /* [home_count] */
};

struct bdev_channel {
	struct bdev *bdev;
	struct home *home;
	unsigned refs;
	unsigned outstanding_count;
	struct cds_list_head outstanding; /* pieces that the module has */
	struct cds_list_head no_memory;   /* pieces that the module refused, in order */
	struct timer no_memory_timer;
	bool draining;                    /* owes a sweep_answer when nothing is outstanding */
	struct bdev_stats stats;
	_Alignas(64) unsigned char state[];
};

enum { BDEV_EVENT_COUNT = BDEV_EVENT_MEDIA_ERROR + 1, DESC_LABEL_BYTES = 48 };

struct bdev_desc_event {
	struct message message;
	struct bdev_desc *desc;
	bool in_flight; /* under the mutex */
};

struct bdev_desc {
	struct cds_list_head node; /* bdev->descs */
	struct bdev *bdev;
	struct reactor *reactor;
	bool write, claimed, closed; /* under the mutex */
	bdev_event_fn event;
	void *arg;
	struct bdev_desc_event events[BDEV_EVENT_COUNT];
	char label[DESC_LABEL_BYTES];
};

/* registry.c */
struct bdev *bdev_find_locked(struct bdev_registry *registry, const char *name);
void bdev_free(struct bdev *bdev); /* after a grace period */
void bdev_post_event(struct bdev *bdev, enum bdev_event event);
void message_post(struct reactor *to, struct message *message); /* from any thread */
static inline bool bdev_is_removed(const struct bdev *bdev)
{
	return __atomic_load_n(&bdev->removed, __ATOMIC_ACQUIRE);
}

/* removal.c */
/* A descriptor or channel went; called with the mutex held. */
void removal_reference_gone(struct bdev *bdev);
void sweep_answer(struct bdev *bdev);

/* piece.c */
void home_init(struct home *home, struct bdev_registry *registry, struct reactor *reactor);
void home_fini(struct home *home);
struct piece *piece_get(struct home *home, unsigned level);
void piece_put(struct piece *piece);
/* Makes @piece the next part of its io and moves the io on. -EAGAIN: no bounce buffer now; -ENOMEM: never. */
int piece_fill(struct piece *piece) MUST_CHECK;
/* Brings read data home from the bounce buffer. */
void piece_copy_back(struct piece *piece);

/* channel.c */
static inline struct piece *piece_of(struct bdev_io *io) { return CONTAINER_OF(io, struct piece, public); }
/* Gives the piece to the module, or to the line of those that the module has refused. */
void channel_push(struct bdev_channel *channel, struct piece *piece);
/* The module has finished with the piece. */
void channel_returned(struct bdev_channel *channel, struct piece *piece);
void channel_resubmit(struct bdev_channel *channel);

/* io.c */
void home_run(struct message *message);
void piece_finish_later(struct piece *piece, int result);
/* Fails every I/O and piece of the channel that has not reached the module. */
void io_fail_queued(struct bdev_channel *channel, int error);

/* Statistics have one writer and are read from elsewhere. */
#define STAT_ADD(field, n) __atomic_store_n(&(field), (field) + (n), __ATOMIC_RELAXED)

#endif
