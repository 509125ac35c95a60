/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Reactors: threads, one per chosen core, that run messages, pollers, timers and fibers in bounded batches.
 *
 * A group is a set of reactors that work together (one mount daemon: one group). Reactors of a group are numbered
 * 0..count-1. State belongs to one reactor; others send it a message. A turn of a reactor is: drain up to a batch of
 * messages, run due timers and the fibers that both woke, run active pollers, run runnable fibers (bounded), announce
 * an RCU quiescent state.
 * A turn that did nothing for spin_us puts the reactor to sleep in one epoll wait, after every poller's
 * `before_sleep` hook agreed; messages (eventfd), watched fds and the next timer wake it.
 *
 * Simulated groups (struct reactor_options.simulate) run all reactors on the calling thread under virtual time and
 * a seeded scheduler; the same code, deterministic.
 *
 * | call                         | from                                                             |
 * | reactor_send                 | any reactor of the group; a foreign thread (reactor_send_foreign) |
 * | timers, pollers, fd watches  | the reactor itself (or before the group starts)                   |
 * | everything else              | as said below                                                     |
 */
#ifndef LANEFS_REACTOR_REACTOR_H
#define LANEFS_REACTOR_REACTOR_H

#include <urcu/list.h>

#include "reactor/base.h"

struct reactor;
struct reactor_group;

enum { REACTOR_COUNT_MAX = 64, REACTOR_ANY_CORE = -1 };

struct reactor_options {
	unsigned count;          /* reactors, 1..REACTOR_COUNT_MAX */
	const int *cores;        /* of each reactor, several may share one; NULL: where the scheduler puts them */
	bool simulate;           /* run on the caller's thread, virtual time */
	uint64_t seed;           /* of the simulated scheduler */
	bool poll;               /* never sleep */
	unsigned spin_us;        /* idle time before sleeping; 0 means the default of 20 */
	unsigned fiber_count;    /* fibers per reactor; 0 means the default of 1024 */
	unsigned fiber_stack_bytes; /* 0 means the default of 64 KiB */
};

/* ---- group life cycle (control thread) ---- */
/* Creates the reactors without starting their threads. -EINVAL for a core that may not be used, -ENOMEM. */
int reactor_group_create(const struct reactor_options *options, struct reactor_group **out) MUST_CHECK;
/* Starts the threads (nothing to do when simulated). */
int reactor_group_start(struct reactor_group *group) MUST_CHECK;
/* Waits until no fiber runs any more: what goes on in the background of an end that its caller has seen already. False:
 * some still do after @timeout_ms. Control thread; the group is started. */
bool reactor_group_settle(struct reactor_group *group, unsigned timeout_ms) MUST_CHECK;
/* Asks every reactor to stop after its current turn and joins the threads. All fibers must have ended; messages on the
 * way are not delivered. The group may be started again. */
void reactor_group_stop(struct reactor_group *group);
/* Stops if need be. Pollers must be unregistered before (after the stop, the control thread may). */
void reactor_group_destroy(struct reactor_group *group);
unsigned reactor_group_count(const struct reactor_group *group);
struct reactor *reactor_group_get(struct reactor_group *group, unsigned index);
bool reactor_group_simulated(const struct reactor_group *group);

/* Runs fn(arg) as a fiber on @reactor and blocks the calling *control thread* until it has returned; in a simulated
 * group it steps the simulation until then. Returns what fn returned. Not from a reactor. */
int reactor_group_run(struct reactor *reactor, int (*fn)(void *arg), void *arg);

/* ---- simulated groups ---- */
/* Steps until done(arg) is true. False: nothing can run any more (every fiber is parked for ever): a wait cycle;
 * every parked fiber, with what it waits for and since when, is then printed to the log. */
bool reactor_group_sim_run(struct reactor_group *group, bool (*done)(void *arg), void *arg) MUST_CHECK;
/* As if the process had been stopped for so long. */
void reactor_group_sim_stall(struct reactor_group *group, uint64_t stall_ns);
/* Begins anew with this seed, at the time of a fresh group: what runs from here on is the same whatever ran before. Nothing may
 * be running, no timer and no poller. */
void reactor_group_sim_restart(struct reactor_group *group, uint64_t seed);
/* One step. False when nothing can run. */
bool reactor_group_sim_step(struct reactor_group *group);
/* Throws every fiber, message, timer and poller away as a power cut would: no destructors run, stacks go back to the
 * pool. Pollers and timers are marked as not registered, so call this before freeing the memory that they lie in.
 * The group itself stays, empty. */
void reactor_group_sim_abandon(struct reactor_group *group);

/* ---- on a reactor ---- */
struct reactor *reactor_self(void); /* NULL on a thread that is no reactor */
unsigned reactor_index(const struct reactor *reactor);
struct reactor_group *reactor_group_of(const struct reactor *reactor);
/* Monotonic (virtual when simulated), nanoseconds; read once a turn, so cheap and constant within a turn. */
uint64_t reactor_now_ns(void);
/* The same without the time in which this reactor did not run although it would have (the process was stopped, the machine
 * paused; over a second counts): for time-outs of what it could not have noticed meanwhile. Compare within one reactor. */
uint64_t reactor_running_ns(void);
/* Wall clock, nanoseconds since 1970; in a simulated group: virtual time plus a fixed epoch. */
uint64_t reactor_wall_ns(void);

/* ---- messages ---- */
/* Embedded in the operation that sends it; belongs to the receiver until fn is called there, and may be reused from fn
 * on. fn runs outside fibers and must not wait. Order between one sender and one receiver is kept. Neither fails nor
 * waits. */
struct message {
	struct message *next;
	void (*fn)(struct message *message);
};
void reactor_send(struct reactor *to, struct message *message);
/* The same from a thread that is no reactor (a signal thread, the control thread). */
void reactor_send_foreign(struct reactor *to, struct message *message);

/* ---- pollers ---- */
/* Called every turn (period_us == 0) or every period. Returns how much work it did: 0 lets the reactor fall asleep, and
 * lets the time of a simulation jump on. Zeroed before its first use, except before_sleep. */
struct poller {
	struct cds_list_head node;
	struct reactor *reactor;
	const char *name;
	unsigned (*fn)(struct poller *poller);
	/* Optional: called before sleeping. Arms the poller's wake-up (its fd is watched) and returns true, or false
	 * when there is work after all. A poller without it does not keep its reactor awake. */
	bool (*before_sleep)(struct poller *poller);
	uint64_t period_ns, due_ns;
};
void poller_register(struct reactor *reactor, struct poller *poller, const char *name,
	unsigned (*fn)(struct poller *), unsigned period_us);
/* Does nothing to a poller that is not registered. A poller may unregister any, itself included. */
void poller_unregister(struct poller *poller);

/* An fd that ends the reactor's sleep (level triggered); what became ready is found by the pollers. events are EPOLL*
 * bits and may include EPOLLEXCLUSIVE. */
int reactor_watch_fd(struct reactor *reactor, int fd, uint32_t events) MUST_CHECK;
void reactor_unwatch_fd(struct reactor *reactor, int fd);

/* ---- timers ---- */
/* Zeroed before its first use. fn runs outside fibers; equal times run in no particular order. */
struct timer {
	struct reactor *reactor; /* NULL while not running */
	uint64_t due_ns;
	void (*fn)(struct timer *timer);
	unsigned heap_index;
	struct timer *next;      /* in the list of those for which the heap has no memory */
};
/* Runs fn once on this reactor after delay_ns; starting a running timer moves it. */
void timer_start(struct timer *timer, uint64_t delay_ns, void (*fn)(struct timer *));
void timer_stop(struct timer *timer);
static inline bool timer_running(const struct timer *timer) { return timer->reactor != NULL; }

/* ---- statistics, written by the reactor, read by anyone (relaxed) ---- */
struct reactor_stats {
	uint64_t turns, busy_turns, sleeps, messages, fibers_started, fibers_running, fibers_peak;
	uint64_t busy_ns; /* estimate of time in turns that did work */
	/* Now: */
	uint64_t messages_waiting; /* for this reactor, and what it could not send yet */
	uint64_t fibers_runnable;
	uint64_t fibers_waiting;   /* for a stack */
	int64_t core;              /* or REACTOR_ANY_CORE */
};
void reactor_stats_read(const struct reactor *reactor, struct reactor_stats *out);

#endif
