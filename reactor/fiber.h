/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Fibers: stackful coroutines pinned to one reactor, from a pool of guarded stacks, and what they wait with.
 *
 * A fiber runs until it parks; nothing else of its reactor runs meanwhile, so a stretch without a MAY_WAIT call is
 * atomic for everything that the reactor owns. NO_WAIT_BEGIN/END mark such a stretch and make a wait inside it an
 * assertion failure. All objects here belong to one reactor: only its fibers (and messages) may touch them.
 * Locks are not tied to the fiber that took them: another fiber of the same reactor may release them.
 * Locks are fair: first come, first served (a waiting writer blocks later readers).
 *
 * The pool limits how much runs at once. Its size is reactor_options.fiber_count, and it is shared like this:
 *
 * | who starts                                              | may use                                              |
 * | fiber_start outside a fiber (requests from the kernel)  | half of the pool                                     |
 * | fiber_start inside a fiber, fiber_start_on              | all of it                                            |
 * | reactor_call                                            | all of it, then extra stacks as long as memory lasts |
 *
 * A start that finds no stack waits in line. A call is never made to wait, since its caller may hold a lock that the
 * fibers with all the stacks are waiting for; the callers, themselves fibers, bound how many there can be. A fiber that
 * starts others and waits for them has no such promise: the others may be in line behind fibers that do the same.
 *
 * fiber_park may return early (the permit of an old wake): wait in a loop that looks at what is waited for.
 */
#ifndef LANEFS_REACTOR_FIBER_H
#define LANEFS_REACTOR_FIBER_H

#include "reactor/reactor.h"

struct fiber;

struct fiber *fiber_self(void); /* NULL outside a fiber */
/* A pointer that the running fiber carries for whoever started it: NULL at first, and passed on by reactor_call. */
void fiber_set_context(void *context);
void *fiber_get_context(void); /* NULL outside a fiber */

/* Starts fn(arg) on this reactor; it first runs in the current or next turn. When the pool is used up the start waits
 * in line inside @start (caller's memory, valid until fn is called). Never fails. */
struct fiber_start {
	struct fiber_start *next;
	void (*fn)(void *arg);
	void *arg;
	const char *name; /* static string, shown by debuggers and by the wait-cycle report */
};
void fiber_start(struct fiber_start *start);
/* Starts it on another reactor (message embedded); from any reactor of the group or from a foreign thread. */
struct fiber_start_remote {
	struct message message;
	struct fiber_start start;
};
void fiber_start_on(struct reactor *to, struct fiber_start_remote *start);
/* Fibers that fiber_start could start at once from here. */
unsigned fiber_available(void);

/* Parks until fiber_wake. why is a static string for debuggers. A wake that comes before the park is not lost. */
MAY_WAIT void fiber_park(const char *why);
/* From the fiber's own reactor only. */
void fiber_wake(struct fiber *fiber);
/* Lets others run; returns in the next turn at the earliest. */
MAY_WAIT void fiber_yield(void);
MAY_WAIT void fiber_sleep(uint64_t delay_ns);

/* Runs fn(arg) as a fiber on @owner and parks the caller until it has returned; returns its result. On the owner
 * itself it is a plain call. */
MAY_WAIT int reactor_call(struct reactor *owner, int (*fn)(void *arg), void *arg);
/* Runs fn(arg) on @owner as a message (fn must not wait) and parks the caller until it has run. */
MAY_WAIT int reactor_call_nowait(struct reactor *owner, int (*fn)(void *arg), void *arg);

/* ---- stretches that must not wait; they nest ---- */
void no_wait_begin(void);
void no_wait_end(void);
#define NO_WAIT_BEGIN() no_wait_begin()
#define NO_WAIT_END() no_wait_end()

/* ---- waiting in line ---- */
struct fiber_waiter {
	struct cds_list_head node;
	struct fiber *fiber;
	int kind; /* of the lock that uses it */
};

struct fiber_mutex {
	bool locked;
	struct cds_list_head waiters;
};
void fiber_mutex_init(struct fiber_mutex *mutex);
MAY_WAIT void fiber_mutex_lock(struct fiber_mutex *mutex);
bool fiber_mutex_trylock(struct fiber_mutex *mutex) MUST_CHECK;
void fiber_mutex_unlock(struct fiber_mutex *mutex);

struct fiber_rwlock {
	unsigned readers;
	bool writer;
	struct cds_list_head waiters;
};
void fiber_rwlock_init(struct fiber_rwlock *lock);
MAY_WAIT void fiber_rwlock_read(struct fiber_rwlock *lock);
MAY_WAIT void fiber_rwlock_write(struct fiber_rwlock *lock);
bool fiber_rwlock_tryread(struct fiber_rwlock *lock) MUST_CHECK;
bool fiber_rwlock_trywrite(struct fiber_rwlock *lock) MUST_CHECK;
void fiber_rwlock_unread(struct fiber_rwlock *lock);
void fiber_rwlock_unwrite(struct fiber_rwlock *lock);
bool fiber_rwlock_busy(const struct fiber_rwlock *lock); /* held or waited for */

/* A condition without a mutex (one reactor, no preemption): wait, look again, wait. */
struct fiber_cond {
	struct cds_list_head waiters;
};
void fiber_cond_init(struct fiber_cond *cond);
MAY_WAIT void fiber_cond_wait(struct fiber_cond *cond, const char *why);
/* True: woken; false: timeout_ns passed. */
MAY_WAIT bool fiber_cond_wait_for(struct fiber_cond *cond, uint64_t timeout_ns, const char *why);
void fiber_cond_signal(struct fiber_cond *cond);
void fiber_cond_broadcast(struct fiber_cond *cond);
bool fiber_cond_waited_for(const struct fiber_cond *cond);

/* Counts outstanding pieces of work; one fiber waits until none is left. */
struct fiber_group {
	unsigned pending;
	struct fiber *waiter;
};
void fiber_group_init(struct fiber_group *group);
void fiber_group_add(struct fiber_group *group, unsigned count);
void fiber_group_done(struct fiber_group *group); /* from the same reactor */
MAY_WAIT void fiber_group_wait(struct fiber_group *group);

#endif
