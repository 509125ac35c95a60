/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of this folder share: the reactor, its group and the fiber.
 *
 *   reactor.c          groups, the pieces of a turn put together, pollers, statistics
 *   reactor_thread.c   the thread of a real reactor: pinning, the loop, sleeping and waking
 *   reactor_sim.c      the seeded scheduler of simulated groups
 *   message.c          rings and the senders' FIFOs
 *   timer.c            the heap
 *   fiber.c            a fiber's life; fiber_pool.c: stacks; fiber_sync.c: what fibers wait with
 *
 * A turn is made of pieces (message_flush, message_run, timer_run, poller_run_*, fiber_run), each bounded. The thread
 * runs all of them in order, the simulation one at a time in a random order: there is no other difference.
 *
 * Every field of struct reactor is written by its own reactor only, except `sleeping`, `stop` and `foreign`.
 */
#ifndef LANEFS_REACTOR_REACTOR_INTERNAL_H
#define LANEFS_REACTOR_REACTOR_INTERNAL_H

#include <pthread.h>
#include <urcu/list.h>

#include "reactor/fiber.h"
#include "reactor/log.h"
#include "reactor/reactor.h"
#include "reactor/sanitizer_internal.h"

struct rte_ring;

enum {
	MESSAGE_RING_COUNT = 1024,     /* more wait in the sender's FIFO */
	MESSAGE_RING_COUNT_SIM = 16,   /* small, so that the FIFOs are used all the time */
	MESSAGE_BATCH = 32,            /* messages per turn */
	TIMER_BATCH = 64,              /* timers per turn */
	FIBER_BATCH = 64,              /* fiber runs per turn */
	SPIN_DEFAULT_US = 20,
	FIBER_COUNT_DEFAULT = 1024,
	FIBER_STACK_DEFAULT = 64 << 10, /* bytes */
	FIBER_STACK_MIN = 16 << 10,     /* bytes */
};

enum fiber_state { FIBER_IDLE, FIBER_RUNNABLE, FIBER_RUNNING, FIBER_PARKED, FIBER_ENDED };

/* scripts/gdb/fibers.py reads these fields by name. */
struct fiber {
	void *stack_pointer;            /* while it does not run; see fiber_switch.S for what lies there */
	struct reactor *reactor;
	struct fiber *next;             /* in the reactor's run queue or in a pool */
	struct cds_list_head node;      /* in reactor.fibers while it is not idle */
	enum fiber_state state;
	bool permit;                    /* woken while it was not parked */
	unsigned no_wait_depth;
	const char *name, *why;         /* static strings */
	uint64_t since_ns;              /* of the last park */
	void (*fn)(void *arg);
	void *arg;
	void *context;                  /* of whoever started it */
	char *stack;                    /* lowest usable byte, above the guard page */
	size_t stack_bytes;
	void *fake_stack;               /* AddressSanitizer's */
	void *shadow, *shadow_home;     /* ThreadSanitizer's: of the fiber, of the reactor that resumed it */
	unsigned stack_id;              /* valgrind's */
};

/* Who may use how much of the pool; see fiber.h. Waiting starts are served in the order of the numbers. */
enum fiber_class { FIBER_CLASS_CALL, FIBER_CLASS_INSIDE, FIBER_CLASS_FRONT, FIBER_CLASS_COUNT };

struct start_queue {
	struct fiber_start *head, *tail;
};

struct message_queue {
	struct message *head, *tail;
};

struct reactor {
	struct reactor_group *group;
	unsigned index;
	int core;                       /* or REACTOR_ANY_CORE */
	uint64_t now_ns;                /* time of this turn */
	uint64_t sleep_until_ns;        /* of the last sleep; UINT64_MAX: for ever */
	uint64_t stalled_ns;            /* of all the time: not run although it would have */

	/* messages */
	struct rte_ring *ring;
	struct message *foreign;        /* stack that foreign threads push to, newest first (atomic) */
	struct message_queue foreign_queue; /* taken from it, in order */
	struct message_queue *overflow; /* per destination: what did not fit its ring */
	unsigned overflow_count;        /* messages in all of them */

	/* timers */
	struct timer **timers;          /* binary heap by due_ns */
	unsigned timer_count, timer_room;
	struct timer *unsorted;         /* for which there was no memory */

	/* pollers */
	struct cds_list_head active, periodic;
	struct cds_list_head *poller_cursor; /* next one of the round that runs; unregistering moves it */

	/* fibers */
	struct fiber *current;
	void *stack_pointer;            /* of the reactor's own stack while a fiber runs */
	const void *stack_bottom;       /* of that stack, for AddressSanitizer */
	size_t stack_bytes;
	struct cds_list_head fibers;    /* all that are not idle */
	struct fiber *run_head, *run_tail;
	unsigned runnable;
	struct fiber *idle;             /* pool */
	struct start_queue waiting[FIBER_CLASS_COUNT];
	unsigned fiber_count, fibers_running;
	bool pool_grown;

	/* thread */
	pthread_t thread;
	bool thread_started;
	bool stop;                      /* by the control thread (atomic) */
	int sleeping;                   /* 1: (nearly) asleep; a sender that turns it to 0 must wake it (atomic) */
	int wake_fd, epoll_fd;          /* -1 when simulated */
	uint64_t idle_since_ns;         /* 0: the last turn did work */

	uint64_t polled_at;             /* simulation: progress count at which all active pollers had found nothing */
	struct reactor_stats stats;
} __attribute__((aligned(64)));

struct reactor_sim {
	uint64_t random;                /* state of the generator */
	uint64_t now_ns;
	uint64_t progress;              /* counts everything that did something */
};

struct reactor_group {
	struct cds_list_head node;      /* in reactor_groups, for the debugger */
	struct reactor_options options; /* with the defaults filled in */
	bool started;
	struct reactor_sim sim;
	unsigned count;
	struct reactor *reactors;
};

/* ---- reactor.c ---- */
/* Makes reactor_self() answer @reactor on this thread; returns what it answered before. */
struct reactor *reactor_enter(struct reactor *reactor);
unsigned poller_run_active(struct reactor *reactor);
unsigned poller_run_periodic(struct reactor *reactor);
/* When the next timer or periodic poller is due; UINT64_MAX: never. */
uint64_t reactor_next_due_ns(const struct reactor *reactor);
void reactor_report_parked(const struct reactor_group *group);
uint64_t clock_monotonic_ns(void);
/* Makes this thread one that RCU knows, once; until it ends. */
void reactor_rcu_register_thread(void);

static inline void stat_add(uint64_t *counter, uint64_t count)
{
	__atomic_store_n(counter, *counter + count, __ATOMIC_RELAXED);
}

/* ---- reactor_thread.c ---- */
int reactor_thread_init(struct reactor *reactor);
void reactor_thread_fini(struct reactor *reactor);
int reactor_thread_start(struct reactor *reactor);
void reactor_thread_stop(struct reactor *reactor);
/* Called after something was put where @reactor looks; any thread. */
void reactor_wake(struct reactor *reactor);

/* ---- reactor_sim.c ---- */
void reactor_sim_init(struct reactor_group *group);
uint64_t reactor_sim_random(struct reactor_group *group, uint64_t bound);

/* ---- message.c ---- */
int message_init(struct reactor *reactor);
void message_fini(struct reactor *reactor);
unsigned message_flush(struct reactor *reactor);
unsigned message_run(struct reactor *reactor, unsigned count_max);
bool message_pending(struct reactor *reactor);
/* How many have arrived and not run, and how many found their ring full. Any thread, approximate. */
unsigned message_waiting(const struct reactor *reactor);
bool message_can_flush(const struct reactor *reactor);
void message_forget(struct reactor *reactor);

/* ---- timer.c ---- */
unsigned timer_run(struct reactor *reactor, unsigned count_max);
/* The next one that is due; NULL: none is running. */
struct timer *timer_first(const struct reactor *reactor);
void timer_forget(struct reactor *reactor);

/* ---- fiber.c ---- */
unsigned fiber_run(struct reactor *reactor, unsigned count_max);
void fiber_start_class(struct reactor *reactor, struct fiber_start *start, enum fiber_class class);
void fiber_forget(struct reactor *reactor);

/* ---- fiber_pool.c ---- */
int fiber_pool_init(struct reactor *reactor);
void fiber_pool_fini(struct reactor *reactor);
/* NULL when there is no memory. */
struct fiber *fiber_pool_get(struct reactor *reactor);
void fiber_pool_put(struct reactor *reactor, struct fiber *fiber);
/* For tests: behave as on a kernel without MADV_GUARD_INSTALL. */
void fiber_pool_force_mprotect(bool force);

#endif
