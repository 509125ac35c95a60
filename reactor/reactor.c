/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Groups of reactors, pollers, and what does not depend on whether the group is real or simulated.
 */
#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <urcu-qsbr.h>

#include "reactor/happens_before.h"
#include "reactor/reactor_internal.h"

const char happens_before_rcu;

enum { SIM_EPOCH_S = 1700000000 }; /* wall clock of a simulated group at its start: November 2023 */

/* For the debugger (scripts/gdb/fibers.py) only: nothing here walks it. */
static CDS_LIST_HEAD(reactor_groups);
static pthread_mutex_t reactor_groups_lock = PTHREAD_MUTEX_INITIALIZER;

static __thread struct reactor *this_reactor;

/* Not inlined, and opaque to the compiler: the address of a thread local must not be kept across a switch, since a
 * simulated group may be stepped by another thread the next time. */
__attribute__((noinline)) struct reactor *reactor_self(void)
{
	__asm__ volatile("");
	return this_reactor;
}

__attribute__((noinline)) struct reactor *reactor_enter(struct reactor *reactor)
{
	__asm__ volatile("");
	struct reactor *before = this_reactor;
	this_reactor = reactor;
	return before;
}

/* ---- groups ---- */

/* Empty, so that reactor_fini works whatever comes next. */
static void reactor_init_empty(struct reactor *reactor, struct reactor_group *group, unsigned index)
{
	memset(reactor, 0, sizeof(*reactor));
	reactor->group = group;
	reactor->index = index;
	reactor->wake_fd = reactor->epoll_fd = -1;
	CDS_INIT_LIST_HEAD(&reactor->active);
	CDS_INIT_LIST_HEAD(&reactor->periodic);
	CDS_INIT_LIST_HEAD(&reactor->fibers);
}

static int reactor_init(struct reactor *reactor, const cpu_set_t *allowed)
{
	const struct reactor_group *group = reactor->group;
	int error = message_init(reactor);
	if (!error)
		error = fiber_pool_init(reactor);
	if (error || group->options.simulate)
		return error;
	reactor->core = group->options.cores ? group->options.cores[reactor->index] : REACTOR_ANY_CORE;
	if (reactor->core != REACTOR_ANY_CORE &&
		(reactor->core < 0 || reactor->core >= CPU_SETSIZE || !CPU_ISSET(reactor->core, allowed))) {
		log_error("reactor %u: core %d may not be used by this process (see taskset -p)", reactor->index,
			reactor->core);
		return -EINVAL;
	}
	reactor->now_ns = clock_monotonic_ns();
	return reactor_thread_init(reactor);
}

static void reactor_fini(struct reactor *reactor)
{
	reactor_thread_fini(reactor);
	fiber_pool_fini(reactor);
	message_fini(reactor);
	free(reactor->timers);
}

static void options_fill_in(struct reactor_options *options)
{
	if (options->spin_us == 0)
		options->spin_us = SPIN_DEFAULT_US;
	if (options->fiber_count == 0)
		options->fiber_count = FIBER_COUNT_DEFAULT;
	if (options->fiber_stack_bytes == 0)
		options->fiber_stack_bytes = FIBER_STACK_DEFAULT;
	options->fiber_stack_bytes = align_up(MAX(options->fiber_stack_bytes, (unsigned)FIBER_STACK_MIN), 4096);
	options->fiber_stack_bytes *= SANITIZER_STACK_FACTOR;
}

static struct reactor_group *group_alloc(const struct reactor_options *options)
{
	struct reactor_group *group = calloc(1, sizeof(*group));
	if (!group)
		return NULL;
	group->reactors = aligned_alloc(64, options->count * sizeof(struct reactor));
	if (!group->reactors) {
		free(group);
		return NULL;
	}
	group->options = *options;
	options_fill_in(&group->options);
	group->count = options->count;
	for (unsigned i = 0; i < group->count; i++)
		reactor_init_empty(&group->reactors[i], group, i);
	reactor_sim_init(group);
	pthread_mutex_lock(&reactor_groups_lock);
	cds_list_add_tail(&group->node, &reactor_groups);
	pthread_mutex_unlock(&reactor_groups_lock);
	return group;
}

int reactor_group_create(const struct reactor_options *options, struct reactor_group **out)
{
	assert(options->count >= 1 && options->count <= REACTOR_COUNT_MAX);
	struct reactor_group *group = group_alloc(options);
	if (!group)
		return -ENOMEM;
	cpu_set_t allowed;
	int error = 0;
	if (!options->simulate && sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
		error = -errno;
	for (unsigned i = 0; i < group->count && !error; i++)
		error = reactor_init(&group->reactors[i], &allowed);
	group->options.cores = NULL; /* the caller's array */
	if (error) {
		reactor_group_destroy(group);
		return error;
	}
	*out = group;
	return 0;
}

int reactor_group_start(struct reactor_group *group)
{
	if (group->options.simulate || group->started)
		return 0;
	group->started = true;
	for (unsigned i = 0; i < group->count; i++) {
		const int error = reactor_thread_start(&group->reactors[i]);
		if (error) {
			reactor_group_stop(group);
			return error;
		}
	}
	return 0;
}

void reactor_group_stop(struct reactor_group *group)
{
	assert(!reactor_self());
	if (!group->started)
		return;
	for (unsigned i = 0; i < group->count; i++)
		__atomic_store_n(&group->reactors[i].stop, true, __ATOMIC_SEQ_CST);
	for (unsigned i = 0; i < group->count; i++)
		reactor_thread_stop(&group->reactors[i]);
	group->started = false;
}

static bool fibers_left(const struct reactor_group *group)
{
	for (unsigned i = 0; i < group->count; i++)
		if (group->reactors[i].fibers_running > 0)
			return true;
	return false;
}

bool reactor_group_settle(struct reactor_group *group, unsigned timeout_ms)
{
	const struct timespec moment = {.tv_nsec = NS_PER_MS};
	for (unsigned i = 0; i < group->count; i++) {
		struct reactor_stats stats;
		for (unsigned waited = 0;; waited++) {
			reactor_stats_read(&group->reactors[i], &stats);
			if (stats.fibers_running == 0)
				break;
			if (group->options.simulate ? !reactor_group_sim_step(group) : waited >= timeout_ms)
				return false;
			if (!group->options.simulate)
				nanosleep(&moment, NULL);
		}
	}
	return true;
}

void reactor_group_destroy(struct reactor_group *group)
{
	if (!group)
		return;
	reactor_group_stop(group);
	if (fibers_left(group)) {
		reactor_report_parked(group);
		assert(!"a group is destroyed while fibers run on it");
	}
	pthread_mutex_lock(&reactor_groups_lock);
	cds_list_del(&group->node);
	pthread_mutex_unlock(&reactor_groups_lock);
	for (unsigned i = 0; i < group->count; i++)
		reactor_fini(&group->reactors[i]);
	free(group->reactors);
	free(group);
}

unsigned reactor_group_count(const struct reactor_group *group) { return group->count; }

struct reactor *reactor_group_get(struct reactor_group *group, unsigned index)
{
	assert(index < group->count);
	return &group->reactors[index];
}

bool reactor_group_simulated(const struct reactor_group *group) { return group->options.simulate; }
unsigned reactor_index(const struct reactor *reactor) { return reactor->index; }
struct reactor_group *reactor_group_of(const struct reactor *reactor) { return reactor->group; }

/* ---- running something from the control thread ---- */

struct run {
	struct fiber_start_remote start;
	int (*fn)(void *arg);
	void *arg;
	int result;
	bool finished;
	sem_t done; /* real groups */
};

static void run_fiber(void *arg)
{
	struct run *run = arg;
	run->result = run->fn(run->arg);
	run->finished = true;
	sem_post(&run->done);
}

static bool run_finished(void *arg) { return ((struct run *)arg)->finished; }

int reactor_group_run(struct reactor *reactor, int (*fn)(void *arg), void *arg)
{
	struct reactor_group *group = reactor->group;
	assert(!reactor_self());
	assert(group->options.simulate || group->started);
	struct run run = {.start.start = {.fn = run_fiber, .arg = &run, .name = "control"}, .fn = fn, .arg = arg};
	sem_init(&run.done, 0, 0);
	fiber_start_on(reactor, &run.start);
	if (group->options.simulate) {
		if (!reactor_group_sim_run(group, run_finished, &run)) {
			log_error("reactor: the simulation stands still, seed %llu",
				(unsigned long long)group->options.seed);
			abort();
		}
	} else {
		while (sem_wait(&run.done) != 0)
			; /* a signal */
	}
	sem_destroy(&run.done);
	return run.result;
}

/* ---- time ---- */

uint64_t clock_monotonic_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

uint64_t reactor_now_ns(void)
{
	const struct reactor *reactor = reactor_self();
	return reactor ? reactor->now_ns : clock_monotonic_ns();
}

uint64_t reactor_running_ns(void)
{
	const struct reactor *reactor = reactor_self();
	return reactor ? reactor->now_ns - reactor->stalled_ns : clock_monotonic_ns();
}

uint64_t reactor_wall_ns(void)
{
	const struct reactor *reactor = reactor_self();
	if (reactor && reactor->group->options.simulate)
		return SIM_EPOCH_S * NS_PER_SEC + reactor->now_ns;
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

/* ---- pollers ---- */

static void assert_may_change(const struct reactor *reactor)
{
	assert(reactor_self() == reactor || (!reactor_self() && !reactor->group->started));
}

void poller_register(struct reactor *reactor, struct poller *poller, const char *name,
	unsigned (*fn)(struct poller *), unsigned period_us)
{
	assert_may_change(reactor);
	poller->reactor = reactor;
	poller->name = name;
	poller->fn = fn;
	poller->period_ns = period_us * NS_PER_US;
	poller->due_ns = reactor->now_ns + poller->period_ns;
	cds_list_add_tail(&poller->node, period_us == 0 ? &reactor->active : &reactor->periodic);
	reactor->polled_at = 0;
}

void poller_unregister(struct poller *poller)
{
	struct reactor *reactor = poller->reactor;
	if (!reactor)
		return;
	assert_may_change(reactor);
	if (reactor->poller_cursor == &poller->node)
		reactor->poller_cursor = poller->node.next;
	cds_list_del(&poller->node);
	poller->reactor = NULL;
}

/* A poller may unregister itself and any other, so the cursor stands on the next one while it runs. */
unsigned poller_run_active(struct reactor *reactor)
{
	unsigned work = 0;
	reactor->poller_cursor = reactor->active.next;
	while (reactor->poller_cursor != &reactor->active) {
		struct poller *poller = CONTAINER_OF(reactor->poller_cursor, struct poller, node);
		reactor->poller_cursor = poller->node.next;
		work += poller->fn(poller);
	}
	reactor->poller_cursor = NULL;
	return work;
}

unsigned poller_run_periodic(struct reactor *reactor)
{
	unsigned work = 0;
	reactor->poller_cursor = reactor->periodic.next;
	while (reactor->poller_cursor != &reactor->periodic) {
		struct poller *poller = CONTAINER_OF(reactor->poller_cursor, struct poller, node);
		reactor->poller_cursor = poller->node.next;
		if (poller->due_ns > reactor->now_ns)
			continue;
		poller->due_ns = reactor->now_ns + poller->period_ns;
		work += poller->fn(poller);
	}
	reactor->poller_cursor = NULL;
	return work;
}

uint64_t reactor_next_due_ns(const struct reactor *reactor)
{
	const struct timer *first = timer_first(reactor);
	uint64_t due = first ? first->due_ns : UINT64_MAX;
	const struct poller *poller;
	cds_list_for_each_entry(poller, &reactor->periodic, node)
		due = MIN(due, poller->due_ns);
	return due;
}

int reactor_watch_fd(struct reactor *reactor, int fd, uint32_t events)
{
	assert_may_change(reactor);
	if (reactor->group->options.simulate)
		return 0; /* it never sleeps */
	struct epoll_event event = {.events = events, .data.fd = fd};
	return epoll_ctl(reactor->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : -errno;
}

void reactor_unwatch_fd(struct reactor *reactor, int fd)
{
	assert_may_change(reactor);
	/* An fd that was closed has left the set already. */
	if (!reactor->group->options.simulate)
		(void)epoll_ctl(reactor->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
}

/* ---- reports ---- */

void reactor_report_parked(const struct reactor_group *group)
{
	static const char *const state_names[] = {"idle", "runnable", "running", "parked", "ended"};
	for (unsigned i = 0; i < group->count; i++) {
		const struct reactor *reactor = &group->reactors[i];
		const struct fiber *fiber;
		cds_list_for_each_entry(fiber, &reactor->fibers, node) {
			const unsigned long long age_us = (reactor->now_ns - fiber->since_ns) / NS_PER_US;
			log_error("reactor %u: fiber %s: %s on %s since %llu.%09llu s (%llu us ago)", i, fiber->name,
				state_names[fiber->state], fiber->why ? fiber->why : "-",
				fiber->since_ns / NS_PER_SEC + 0ull, fiber->since_ns % NS_PER_SEC + 0ull, age_us);
		}
		for (unsigned class = 0; class < FIBER_CLASS_COUNT; class++)
			for (const struct fiber_start *start = reactor->waiting[class].head; start; start = start->next)
				log_error("reactor %u: %s: waits for a fiber", i, start->name ? start->name : "fiber");
	}
}

void reactor_stats_read(const struct reactor *reactor, struct reactor_stats *out)
{
	const uint64_t *from = (const uint64_t *)&reactor->stats;
	uint64_t *to = (uint64_t *)out;
	for (size_t i = 0; i < sizeof(*out) / sizeof(*to); i++)
		to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
	out->messages_waiting = message_waiting(reactor);
	out->fibers_runnable = __atomic_load_n(&reactor->runnable, __ATOMIC_RELAXED);
	out->core = reactor->core;
}

/* ---- RCU ---- */

static pthread_key_t rcu_key;
static pthread_once_t rcu_key_once = PTHREAD_ONCE_INIT;
static __thread bool rcu_registered;

static void rcu_thread_ends(void *arg) { rcu_unregister_thread(); }
static void rcu_key_create(void) { pthread_key_create(&rcu_key, rcu_thread_ends); }

void reactor_rcu_register_thread(void)
{
	if (LIKELY(rcu_registered))
		return;
	rcu_registered = true;
	pthread_once(&rcu_key_once, rcu_key_create);
	pthread_setspecific(rcu_key, &rcu_registered);
	rcu_register_thread();
}
