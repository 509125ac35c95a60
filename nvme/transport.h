/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * How the driver reaches a controller: the registers in memory, and what else depends on the bus. vfio.c, uio.c and the
 * emulated controller (emu.c) make transports; tests make their own. The driver cannot tell them apart.
 *
 * Registers are plain loads and stores at bar; bar is guarded (reactor/bar_guard.h), so a vanished device reads all ones and
 * sets `gone`. A transport whose model must be told of writes has `wrote` (the doorbell hook); hardware has none.
 *
 * Interrupts: one eventfd per I/O or admin completion queue, or none at all (the driver then polls on a period while
 * something is outstanding). `arm` is called by the owner of a queue before it sleeps, so that a model need not signal a
 * queue that is being polled anyway; after it the driver looks at the queue once more.
 *
 * Who calls what: attach and release from a control path (may block; never on a reactor: see `release`), everything else from the
 * reactor that owns the queue.
 */
#ifndef LANEFS_NVME_TRANSPORT_H
#define LANEFS_NVME_TRANSPORT_H

#include <stdatomic.h>

#include "nvme/spec.h"
#include "reactor/happens_before.h"

struct nvme_transport;

struct nvme_transport_ops {
	const char *name;           /* "vfio", "uio", "emu" */
	/* The eventfd of queue @qid's completion interrupt (0: admin), watched by the caller, or -1: none. Belongs to the
	 * transport. */
	int (*interrupt_fd)(struct nvme_transport *transport, uint16_t qid);
	/* NULL: nothing to do. */
	void (*arm)(struct nvme_transport *transport, uint16_t qid);
	/* The driver has written registers or doorbells (or shadow doorbells that ask for it). NULL: hardware. */
	void (*wrote)(struct nvme_transport *transport);
	/* True when the bus still knows the device (configuration space answers). NULL: the registers tell. */
	bool (*alive)(struct nvme_transport *transport);
	/* An fd that becomes readable when somebody wants the device back in an orderly way (vfio's request eventfd), or -1. */
	int (*request_fd)(struct nvme_transport *transport);
	/* Makes the device unable to reach memory as far as the bus can (bus mastering off, DMA unmapped). May be called on a
	 * reactor; idempotent; harmless when the device is gone. NULL: nothing beyond CC.EN = 0 exists. */
	void (*stop_dma)(struct nvme_transport *transport);
	/* Unmaps and closes, in a thread of its own: the kernel may take a while (of a vanished VFIO device a child process takes the
	 * longest part). Frees the transport. */
	void (*release)(struct nvme_transport *transport);
};

struct nvme_transport {
	const struct nvme_transport_ops *ops;
	volatile uint8_t *bar;      /* registers, bar_bytes */
	size_t bar_bytes;
	char name[64];              /* for messages: "0000:5e:00.0", "emu:/path" */
	unsigned interrupts_max;    /* completion queues that can have an interrupt, admin included; 0: none */
	atomic_bool gone;           /* set once, by the bar guard or by the driver */
};

static inline uint32_t nvme_read32(struct nvme_transport *transport, uint32_t at)
{
	return le32toh(*(volatile uint32_t *)(transport->bar + at));
}
static inline void nvme_write32(struct nvme_transport *transport, uint32_t at, uint32_t value)
{
	happens_before_give(transport); /* what the command in a queue says, for the emulated controller */
	*(volatile uint32_t *)(transport->bar + at) = htole32(value);
}
/* 64-bit registers in two halves, low first, as every controller takes them (Base 2.0, 3.1.3). */
static inline uint64_t nvme_read64(struct nvme_transport *transport, uint32_t at)
{
	const uint64_t low = nvme_read32(transport, at);
	return low | (uint64_t)nvme_read32(transport, at + 4) << 32;
}
static inline void nvme_write64(struct nvme_transport *transport, uint32_t at, uint64_t value)
{
	nvme_write32(transport, at, (uint32_t)value);
	nvme_write32(transport, at + 4, (uint32_t)(value >> 32));
}
static inline bool nvme_transport_gone(struct nvme_transport *transport)
{
	return atomic_load_explicit(&transport->gone, memory_order_acquire);
}

/* ---- what makes them (control thread or helper thread: they block) ---- */
/* A device that vfio-pci has. One line in @message: object, cause, command that mends it. -EINVAL (no address), -ENODEV,
 * -EBUSY (another process holds it), -EACCES (group file), -ENOTSUP (no IOMMU), -ENOMEM (memlock limit), -EPERM (group
 * with other devices). */
int nvme_vfio_open(const char *address, struct nvme_transport **out, char *message, size_t message_size) MUST_CHECK;
/* A device that uio_pci_generic has. Needs EAL with physical addresses. */
int nvme_uio_open(const char *address, struct nvme_transport **out, char *message, size_t message_size) MUST_CHECK;

#endif
