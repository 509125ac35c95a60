/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport of an emulated controller: what the driver holds.
 *
 * The BAR is a memfd that is mapped twice: the driver's mapping is guarded and unmapped by release, the model's is
 * the model's own. So either side may go first. The port itself goes with the last reference.
 *
 * Waking a sleeping model: the driver writes, counts the write, then looks at `asleep`; the model sets `asleep`,
 * then looks at the count and at the doorbells. All of it sequentially consistent, so one of the two sees the
 * other. A model that is awake costs the driver one atomic addition. Interrupts likewise: the driver arms, then
 * looks at its queue; the model stores the completion, then looks whether the queue is armed. The vector of a
 * queue's interrupt is the number of the queue.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "nvme/emu_internal.h"
#include "reactor/bar_guard.h"

static struct emu_port *port_of(struct nvme_transport *transport)
{
	return CONTAINER_OF(transport, struct emu_port, transport);
}

static void signal_fd(int fd)
{
	const uint64_t one = 1;
	const ssize_t written = write(fd, &one, sizeof(one));
	(void)written; /* a full counter is readable already */
}

static int new_eventfd(void) { return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC); }

/* ---- the driver's calls ---- */

/* Only the owner of the queue calls this, so nobody else makes the same fd. */
static int port_interrupt_fd(struct nvme_transport *transport, uint16_t qid)
{
	struct emu_port *port = port_of(transport);
	if (qid >= port->vectors)
		return -1;
	int fd = atomic_load_explicit(&port->vector[qid].fd, memory_order_relaxed);
	if (fd < 0) {
		fd = new_eventfd();
		atomic_store_explicit(&port->vector[qid].fd, fd, memory_order_release);
	}
	return fd;
}

static void port_arm(struct nvme_transport *transport, uint16_t qid)
{
	struct emu_port *port = port_of(transport);
	if (qid < port->vectors)
		atomic_store(&port->vector[qid].armed, true);
}

static void port_wrote(struct nvme_transport *transport)
{
	struct emu_port *port = port_of(transport);
	if (UNLIKELY(!FIELD_GET(CC_EN, nvme_read32(transport, NVME_REG_CC))))
		atomic_store(&port->disabled, true);
	atomic_fetch_add(&port->writes, 1);
	if (atomic_load(&port->asleep) && atomic_exchange(&port->asleep, false))
		signal_fd(port->wake_fd);
}

static bool port_alive(struct nvme_transport *transport) { return !nvme_transport_gone(transport); }
static int port_request_fd(struct nvme_transport *transport) { return port_of(transport)->button_fd; }

static void port_release(struct nvme_transport *transport)
{
	struct emu_port *port = port_of(transport);
	bar_guard_remove((void *)transport->bar);
	munmap((void *)transport->bar, EMU_BAR_BYTES);
	atomic_store(&port->released, true);
	signal_fd(port->wake_fd);
	emu_port_put(port);
}

/* No stop_dma: a model that has shown RDY = 0, or is pulled, reaches no memory, and there is no bus that could
 * keep it off. */
static const struct nvme_transport_ops port_ops = {
	.name = "emu",
	.interrupt_fd = port_interrupt_fd,
	.arm = port_arm,
	.wrote = port_wrote,
	.alive = port_alive,
	.request_fd = port_request_fd,
	.release = port_release,
};

/* ---- the model's calls ---- */

static void port_close(struct emu_port *port)
{
	const int fds[] = {port->memory_fd, port->wake_fd, port->button_fd};
	for (unsigned i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	for (unsigned i = 0; i < port->vectors; i++) {
		const int fd = atomic_load_explicit(&port->vector[i].fd, memory_order_acquire);
		if (fd >= 0)
			close(fd);
	}
	free(port);
}

static int port_open(struct emu_port *port)
{
	port->wake_fd = new_eventfd();
	port->button_fd = new_eventfd();
	port->memory_fd = memfd_create("lanefs-emu-bar", MFD_CLOEXEC);
	if (port->wake_fd < 0 || port->button_fd < 0 || port->memory_fd < 0)
		return -errno;
	return ftruncate(port->memory_fd, EMU_BAR_BYTES) ? -errno : 0;
}

static int port_map(struct emu_port *port, volatile uint8_t **bar)
{
	void *driver = mmap(NULL, EMU_BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, port->memory_fd, 0);
	if (driver == MAP_FAILED)
		return -errno;
	void *model = mmap(NULL, EMU_BAR_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, port->memory_fd, 0);
	int err = model == MAP_FAILED ? -errno : bar_guard_add(driver, EMU_BAR_BYTES, &port->transport.gone);
	if (!err) {
		port->transport.bar = driver;
		*bar = model;
		return 0;
	}
	if (model != MAP_FAILED)
		munmap(model, EMU_BAR_BYTES);
	munmap(driver, EMU_BAR_BYTES);
	return err;
}

int emu_port_create(const char *name, unsigned vectors, struct emu_port **out, volatile uint8_t **bar)
{
	struct emu_port *port = calloc(1, sizeof(*port));
	if (!port)
		return -ENOMEM;
	port->transport.ops = &port_ops;
	port->transport.bar_bytes = EMU_BAR_BYTES;
	port->transport.interrupts_max = port->vectors = vectors;
	snprintf(port->transport.name, sizeof(port->transport.name), "%s", name);
	for (unsigned i = 0; i < vectors; i++)
		atomic_init(&port->vector[i].fd, -1);
	atomic_init(&port->references, 2);
	int err = port_open(port);
	if (!err)
		err = port_map(port, bar);
	if (err)
		port_close(port);
	else
		*out = port;
	return err;
}

void emu_port_put(struct emu_port *port)
{
	if (atomic_fetch_sub_explicit(&port->references, 1, memory_order_acq_rel) == 1)
		port_close(port);
}

bool emu_port_signal(struct emu_port *port, unsigned vector)
{
	if (vector >= port->vectors || !atomic_exchange(&port->vector[vector].armed, false))
		return false;
	const int fd = atomic_load_explicit(&port->vector[vector].fd, memory_order_acquire);
	if (fd >= 0)
		signal_fd(fd);
	return fd >= 0;
}
