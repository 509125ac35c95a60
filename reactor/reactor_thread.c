/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The thread of a real reactor.
 *
 * Sleeping without losing a wake-up: the reactor stores sleeping = 1, then looks once more at everything that others
 * write; a sender writes there first and then looks at `sleeping`. Both with a full fence between, so at least one of
 * the two sees the other. The sender that turns 1 into 0 writes the eventfd; when nobody sleeps there is no system
 * call.
 *
 * Asleep, the thread is offline for RCU, and every fd that a poller watches can end the sleep.
 */
#include <errno.h>
#include <rte_lcore.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include <urcu-qsbr.h>

#include "reactor/happens_before.h"
#include "reactor/memory.h"
#include "reactor/reactor_internal.h"

enum { SLEEP_EVENTS = 16, THREAD_STACK_BYTES = 1 << 20 };

int reactor_thread_init(struct reactor *reactor)
{
	reactor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	reactor->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (reactor->epoll_fd < 0 || reactor->wake_fd < 0)
		return -errno;
	struct epoll_event event = {.events = EPOLLIN, .data.fd = reactor->wake_fd};
	return epoll_ctl(reactor->epoll_fd, EPOLL_CTL_ADD, reactor->wake_fd, &event) == 0 ? 0 : -errno;
}

void reactor_thread_fini(struct reactor *reactor)
{
	if (reactor->epoll_fd >= 0)
		close(reactor->epoll_fd);
	if (reactor->wake_fd >= 0)
		close(reactor->wake_fd);
	reactor->epoll_fd = reactor->wake_fd = -1;
}

void reactor_wake(struct reactor *reactor)
{
	if (reactor->wake_fd < 0)
		return; /* simulated */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (LIKELY(!__atomic_load_n(&reactor->sleeping, __ATOMIC_RELAXED)))
		return;
	if (!__atomic_exchange_n(&reactor->sleeping, 0, __ATOMIC_SEQ_CST))
		return; /* another sender does it */
	/* The counter cannot overflow: it is read at every wake-up. */
	const uint64_t one = 1;
	ssize_t written = write(reactor->wake_fd, &one, sizeof(one));
	(void)written;
}

static bool stop_asked(const struct reactor *reactor) { return __atomic_load_n(&reactor->stop, __ATOMIC_ACQUIRE); }

static bool pollers_agree_to_sleep(struct reactor *reactor)
{
	struct poller *poller;
	cds_list_for_each_entry(poller, &reactor->active, node)
		if (poller->before_sleep && !poller->before_sleep(poller))
			return false;
	cds_list_for_each_entry(poller, &reactor->periodic, node)
		if (poller->before_sleep && !poller->before_sleep(poller))
			return false;
	return true;
}

static int wait_for_events(struct reactor *reactor, struct epoll_event *events, uint64_t timeout_ns)
{
	const struct timespec timeout = {.tv_sec = timeout_ns / NS_PER_SEC, .tv_nsec = timeout_ns % NS_PER_SEC};
	const bool forever = timeout_ns == UINT64_MAX;
	int count = epoll_pwait2(reactor->epoll_fd, events, SLEEP_EVENTS, forever ? NULL : &timeout, NULL);
	if (count >= 0 || errno != ENOSYS)
		return count;
	const uint64_t timeout_ms = MIN(div_round_up(timeout_ns, NS_PER_MS), 1000000u);
	return epoll_wait(reactor->epoll_fd, events, SLEEP_EVENTS, forever ? -1 : (int)timeout_ms);
}

static void sleep_in_epoll(struct reactor *reactor)
{
	struct epoll_event events[SLEEP_EVENTS];
	const uint64_t due_ns = reactor_next_due_ns(reactor), now_ns = clock_monotonic_ns();
	if (due_ns <= now_ns)
		return;
	stat_add(&reactor->stats.sleeps, 1);
	reactor->sleep_until_ns = due_ns;
	happens_before_give(&happens_before_rcu);
	rcu_thread_offline();
	const int count = wait_for_events(reactor, events, due_ns == UINT64_MAX ? UINT64_MAX : due_ns - now_ns);
	rcu_thread_online();
	for (int i = 0; i < count; i++) {
		uint64_t value;
		if (events[i].data.fd == reactor->wake_fd && read(reactor->wake_fd, &value, sizeof(value)) < 0)
			continue; /* empty already: nothing is lost */
	}
}

static void reactor_sleep(struct reactor *reactor)
{
	if (!pollers_agree_to_sleep(reactor))
		return;
	__atomic_store_n(&reactor->sleeping, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!message_pending(reactor) && !stop_asked(reactor))
		sleep_in_epoll(reactor);
	__atomic_store_n(&reactor->sleeping, 0, __ATOMIC_RELAXED);
}

static void look_at_clock(struct reactor *reactor)
{
	enum { STALL_S = 1 };
	const uint64_t expected_ns = MAX(reactor->now_ns, reactor->sleep_until_ns);
	reactor->now_ns = clock_monotonic_ns();
	if (reactor->now_ns > expected_ns && reactor->now_ns - expected_ns > STALL_S * NS_PER_SEC)
		reactor->stalled_ns += reactor->now_ns - expected_ns;
	reactor->sleep_until_ns = 0;
}

/* One turn; returns how much work it did. */
static unsigned reactor_turn(struct reactor *reactor)
{
	const uint64_t before_ns = reactor->now_ns;
	look_at_clock(reactor);
	if (reactor->idle_since_ns == 0)
		stat_add(&reactor->stats.busy_ns, reactor->now_ns - before_ns);
	unsigned work = message_flush(reactor);
	work += message_run(reactor, MESSAGE_BATCH);
	work += timer_run(reactor, TIMER_BATCH);
	/* What a message or a timer woke answers somebody, and need not wait until all sources were asked for more. */
	work += fiber_run(reactor, FIBER_BATCH);
	work += poller_run_active(reactor);
	work += poller_run_periodic(reactor);
	work += fiber_run(reactor, FIBER_BATCH);
	happens_before_give(&happens_before_rcu);
	rcu_quiescent_state();
	stat_add(&reactor->stats.turns, 1);
	if (work > 0)
		stat_add(&reactor->stats.busy_turns, 1);
	return work;
}

static void reactor_idle(struct reactor *reactor)
{
	if (reactor->idle_since_ns == 0)
		reactor->idle_since_ns = reactor->now_ns;
	if (reactor->overflow_count > 0) {
		/* Some ring is full. Its reader may share our core. */
		sched_yield();
		return;
	}
	if (reactor->runnable > 0 || reactor->group->options.poll)
		return;
	if (reactor->now_ns - reactor->idle_since_ns < reactor->group->options.spin_us * NS_PER_US)
		return;
	reactor_sleep(reactor);
}

static void *reactor_thread_main(void *arg)
{
	struct reactor *reactor = arg;
	char name[16];
	snprintf(name, sizeof(name), "lanefs-r%u", reactor->index);
	pthread_setname_np(pthread_self(), name);
	if (memory_has_eal() && rte_thread_register() != 0)
		log_warn("reactor %u: EAL has no lcore id left; its memory caches are off here", reactor->index);
	reactor_rcu_register_thread();
	reactor_enter(reactor);
	reactor->now_ns = clock_monotonic_ns();
	while (!stop_asked(reactor)) {
		if (reactor_turn(reactor) > 0)
			reactor->idle_since_ns = 0;
		else
			reactor_idle(reactor);
	}
	reactor_enter(NULL);
	if (memory_has_eal())
		rte_thread_unregister();
	return NULL;
}

int reactor_thread_start(struct reactor *reactor)
{
	pthread_attr_t attributes;
	pthread_attr_init(&attributes);
	/* Nobody but the owner of the machine knows which core is free: elsewhere a pinned thread waits for its turn on a
	 * busy core while another one idles. */
	if (reactor->core != REACTOR_ANY_CORE) {
		cpu_set_t core;
		CPU_ZERO(&core);
		CPU_SET(reactor->core, &core);
		pthread_attr_setaffinity_np(&attributes, sizeof(core), &core);
	}
	pthread_attr_setstacksize(&attributes, THREAD_STACK_BYTES);

	/* Signals go to the control thread, except those that the reactor's own instructions raise. */
	static const int own[] = {SIGBUS, SIGSEGV, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS, SIGPROF};
	sigset_t blocked, before;
	sigfillset(&blocked);
	for (unsigned i = 0; i < ARRAY_SIZE(own); i++)
		sigdelset(&blocked, own[i]);
	reactor->stop = false;
	pthread_sigmask(SIG_SETMASK, &blocked, &before);
	const int error = pthread_create(&reactor->thread, &attributes, reactor_thread_main, reactor);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	reactor->thread_started = error == 0;
	return -error;
}

void reactor_thread_stop(struct reactor *reactor)
{
	if (!reactor->thread_started)
		return;
	/* `stop` is set; a sleeper that has not seen it looks at it after announcing its sleep, as with a message. */
	reactor_wake(reactor);
	pthread_join(reactor->thread, NULL);
	reactor->thread_started = false;
}
