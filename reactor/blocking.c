/* SPDX-License-Identifier: BSD-3-Clause */
#include "reactor/blocking.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

struct blocking {
	int (*fn)(void *arg);
	void *arg;
	int result;
	atomic_bool done;
	atomic_int users; /* the thread and the waiter; the last one frees */
};

static void blocking_put(struct blocking *call)
{
	if (atomic_fetch_sub(&call->users, 1) == 1)
		free(call);
}

static void *blocking_main(void *arg)
{
	struct blocking *call = arg;
	call->result = call->fn(call->arg);
	atomic_store(&call->done, true);
	blocking_put(call);
	return NULL;
}

MAY_WAIT int reactor_blocking_for(int (*fn)(void *arg), void *arg, uint64_t deadline_ns)
{
	enum { LOOK_AGAIN_US = 500 };
	if (reactor_group_simulated(reactor_group_of(reactor_self())))
		return fn(arg);
	struct blocking *call = malloc(sizeof(*call));
	pthread_t thread;
	if (!call)
		return -ENOMEM;
	*call = (struct blocking){.fn = fn, .arg = arg, .users = 2};
	if (pthread_create(&thread, NULL, blocking_main, call) != 0) {
		free(call);
		return -ENOMEM;
	}
	pthread_detach(thread);
	const uint64_t now_ns = reactor_now_ns(), end_ns = now_ns + MIN(deadline_ns, UINT64_MAX - now_ns);
	while (!atomic_load(&call->done) && reactor_now_ns() < end_ns)
		fiber_sleep(LOOK_AGAIN_US * NS_PER_US);
	const int result = atomic_load(&call->done) ? call->result : -ETIMEDOUT;
	blocking_put(call);
	return result;
}

MAY_WAIT int reactor_blocking(int (*fn)(void *arg), void *arg) { return reactor_blocking_for(fn, arg, UINT64_MAX); }
