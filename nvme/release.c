/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Letting a transport go. Closing a VFIO device that has vanished can keep its caller in the kernel for a minute, so a
 * thread of its own does it, and nobody waits for longer than the deadline.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "nvme/nvme_internal.h"
#include "reactor/log.h"

struct release {
	struct nvme_transport *transport;
	atomic_int users;  /* the thread and the waiter; the last one frees */
	atomic_bool done;
};

static void release_put(struct release *release)
{
	if (atomic_fetch_sub(&release->users, 1) == 1)
		free(release);
}

static void *release_main(void *arg)
{
	struct release *release = arg;
	release->transport->ops->release(release->transport);
	atomic_store(&release->done, true);
	release_put(release);
	return NULL;
}

MAY_WAIT int transport_release(struct nvme_transport *transport, uint64_t deadline_ns)
{
	enum { LOOK_AGAIN_US = 500 };
	struct release *release = malloc(sizeof(*release));
	pthread_t thread;
	if (release)
		*release = (struct release){.transport = transport, .users = 2};
	if (!release || reactor_group_simulated(reactor_group_of(reactor_self())) ||
		pthread_create(&thread, NULL, release_main, release) != 0) {
		free(release);
		transport->ops->release(transport);
		return 0;
	}
	pthread_detach(thread);
	const uint64_t end_ns = reactor_now_ns() + deadline_ns;
	while (!atomic_load(&release->done) && reactor_now_ns() < end_ns)
		fiber_sleep(LOOK_AGAIN_US * NS_PER_US);
	const int result = atomic_load(&release->done) ? 0 : -ETIMEDOUT;
	if (result)
		log_warn("a controller's hardware is still held by the kernel; it is let go in the background");
	release_put(release);
	return result;
}
