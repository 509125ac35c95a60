/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What fibers wait with. All of it rests on one rule: whoever grants takes the waiter out of the line and sets
 * waiter->fiber to NULL, and the waiter parks until it sees that. A lock passes directly from the one who releases it
 * to the first in line, so nobody can overtake. Waiters live on the stacks of the fibers that wait.
 */
#include "reactor/reactor_internal.h"

enum { WAITER_READER, WAITER_WRITER };

static bool line_empty(const struct cds_list_head *waiters) { return waiters->next == waiters; }

/* Not inlined: gcc would see the address of a local variable leave its function, not that the grant takes it back. */
static __attribute__((noinline)) void join_line(struct cds_list_head *waiters, struct fiber_waiter *waiter)
{
	cds_list_add_tail(&waiter->node, waiters);
}

static MAY_WAIT void wait_in_line(struct cds_list_head *waiters, int kind, const char *why)
{
	struct fiber_waiter waiter = {.fiber = fiber_self(), .kind = kind};
	assert(waiter.fiber);
	join_line(waiters, &waiter);
	while (waiter.fiber)
		fiber_park(why);
}

static void grant(struct fiber_waiter *waiter)
{
	struct fiber *fiber = waiter->fiber;
	cds_list_del(&waiter->node);
	waiter->fiber = NULL;
	fiber_wake(fiber);
}

static struct fiber_waiter *first_in_line(struct cds_list_head *waiters)
{
	return line_empty(waiters) ? NULL : cds_list_first_entry(waiters, struct fiber_waiter, node);
}

/* ---- sleep ---- */

struct sleeper {
	struct timer timer;
	struct fiber *fiber;
	bool over;
};

static void sleeper_due(struct timer *timer)
{
	struct sleeper *sleeper = CONTAINER_OF(timer, struct sleeper, timer);
	sleeper->over = true;
	fiber_wake(sleeper->fiber);
}

MAY_WAIT void fiber_sleep(uint64_t delay_ns)
{
	struct sleeper sleeper = {.fiber = fiber_self()};
	timer_start(&sleeper.timer, delay_ns, sleeper_due);
	while (!sleeper.over)
		fiber_park("sleep");
}

/* ---- mutex ---- */

void fiber_mutex_init(struct fiber_mutex *mutex)
{
	mutex->locked = false;
	CDS_INIT_LIST_HEAD(&mutex->waiters);
}

bool fiber_mutex_trylock(struct fiber_mutex *mutex)
{
	if (mutex->locked)
		return false;
	mutex->locked = true;
	return true;
}

MAY_WAIT void fiber_mutex_lock(struct fiber_mutex *mutex)
{
	if (!fiber_mutex_trylock(mutex))
		wait_in_line(&mutex->waiters, 0, "mutex");
}

void fiber_mutex_unlock(struct fiber_mutex *mutex)
{
	assert(mutex->locked);
	struct fiber_waiter *waiter = first_in_line(&mutex->waiters);
	if (waiter)
		grant(waiter); /* locked stays true: it is the waiter's now */
	else
		mutex->locked = false;
}

/* ---- reader-writer lock ---- */

void fiber_rwlock_init(struct fiber_rwlock *lock)
{
	lock->readers = 0;
	lock->writer = false;
	CDS_INIT_LIST_HEAD(&lock->waiters);
}

bool fiber_rwlock_tryread(struct fiber_rwlock *lock)
{
	if (lock->writer || !line_empty(&lock->waiters))
		return false;
	lock->readers++;
	return true;
}

bool fiber_rwlock_trywrite(struct fiber_rwlock *lock)
{
	if (fiber_rwlock_busy(lock))
		return false;
	lock->writer = true;
	return true;
}

MAY_WAIT void fiber_rwlock_read(struct fiber_rwlock *lock)
{
	if (!fiber_rwlock_tryread(lock))
		wait_in_line(&lock->waiters, WAITER_READER, "rwlock read");
}

MAY_WAIT void fiber_rwlock_write(struct fiber_rwlock *lock)
{
	if (!fiber_rwlock_trywrite(lock))
		wait_in_line(&lock->waiters, WAITER_WRITER, "rwlock write");
}

/* The lock is free: lets in the first in line, which is one writer, or every reader up to the next writer. */
static void rwlock_grant_next(struct fiber_rwlock *lock)
{
	struct fiber_waiter *waiter = first_in_line(&lock->waiters);
	if (waiter && waiter->kind == WAITER_WRITER) {
		lock->writer = true;
		grant(waiter);
		return;
	}
	for (; waiter && waiter->kind == WAITER_READER; waiter = first_in_line(&lock->waiters)) {
		lock->readers++;
		grant(waiter);
	}
}

void fiber_rwlock_unread(struct fiber_rwlock *lock)
{
	assert(lock->readers > 0);
	if (--lock->readers == 0)
		rwlock_grant_next(lock);
}

void fiber_rwlock_unwrite(struct fiber_rwlock *lock)
{
	assert(lock->writer);
	lock->writer = false;
	rwlock_grant_next(lock);
}

bool fiber_rwlock_busy(const struct fiber_rwlock *lock)
{
	return lock->writer || lock->readers > 0 || !line_empty(&lock->waiters);
}

/* ---- condition ---- */

void fiber_cond_init(struct fiber_cond *cond) { CDS_INIT_LIST_HEAD(&cond->waiters); }

MAY_WAIT void fiber_cond_wait(struct fiber_cond *cond, const char *why) { wait_in_line(&cond->waiters, 0, why); }

struct timed_waiter {
	struct fiber_waiter waiter;
	struct timer timer;
	bool timed_out;
};

static void timed_waiter_due(struct timer *timer)
{
	struct timed_waiter *timed = CONTAINER_OF(timer, struct timed_waiter, timer);
	if (!timed->waiter.fiber)
		return; /* signalled already; it only has not had its turn */
	timed->timed_out = true;
	grant(&timed->waiter);
}

MAY_WAIT bool fiber_cond_wait_for(struct fiber_cond *cond, uint64_t timeout_ns, const char *why)
{
	struct timed_waiter timed = {.waiter.fiber = fiber_self()};
	assert(timed.waiter.fiber);
	join_line(&cond->waiters, &timed.waiter);
	timer_start(&timed.timer, timeout_ns, timed_waiter_due);
	while (timed.waiter.fiber)
		fiber_park(why);
	timer_stop(&timed.timer);
	return !timed.timed_out;
}

void fiber_cond_signal(struct fiber_cond *cond)
{
	struct fiber_waiter *waiter = first_in_line(&cond->waiters);
	if (waiter)
		grant(waiter);
}

/* Bounded: a granted fiber runs later, so nobody joins the line meanwhile. */
void fiber_cond_broadcast(struct fiber_cond *cond)
{
	struct fiber_waiter *waiter;
	while ((waiter = first_in_line(&cond->waiters)))
		grant(waiter);
}

bool fiber_cond_waited_for(const struct fiber_cond *cond) { return !line_empty(&cond->waiters); }

/* ---- group ---- */

void fiber_group_init(struct fiber_group *group)
{
	group->pending = 0;
	group->waiter = NULL;
}

void fiber_group_add(struct fiber_group *group, unsigned count) { group->pending += count; }

void fiber_group_done(struct fiber_group *group)
{
	assert(group->pending > 0);
	if (--group->pending == 0 && group->waiter)
		fiber_wake(group->waiter);
}

MAY_WAIT void fiber_group_wait(struct fiber_group *group)
{
	assert(!group->waiter);
	group->waiter = fiber_self();
	while (group->pending > 0)
		fiber_park("group");
	group->waiter = NULL;
}
