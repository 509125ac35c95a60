/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Letting a transport go. Closing a VFIO device that has vanished can keep its caller in the kernel for a minute, so a
 * thread of its own does it, and nobody waits for longer than the deadline.
 */
#include <errno.h>

#include "nvme/nvme_internal.h"
#include "reactor/blocking.h"
#include "reactor/log.h"

static int release_run(void *arg)
{
	struct nvme_transport *transport = arg;
	transport->ops->release(transport);
	return 0;
}

MAY_WAIT int transport_release(struct nvme_transport *transport, uint64_t deadline_ns)
{
	char name[sizeof(transport->name)];
	memcpy(name, transport->name, sizeof(name));
	const int err = reactor_blocking_for(release_run, transport, deadline_ns);
	if (err == -ENOMEM)
		transport->ops->release(transport); /* without a thread: better late than never */
	if (err == -ETIMEDOUT)
		log_warn("%s: the kernel still holds the hardware; it is let go in the background", name);
	return err == -ETIMEDOUT ? err : 0;
}
