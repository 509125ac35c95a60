/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The NVMe driver. A controller is attached over a transport; it has one I/O queue pair per reactor of the group, used
 * by that reactor alone, without locks.
 *
 * A request goes: nvme_submit -> tracker (its index is in the command identifier; software queue when none is free) ->
 * PRP entries -> submission ring -> one doorbell write per turn. Completions are taken in order by the phase bit, one
 * doorbell write per batch; done() is called when the tracker is free again.
 *
 * Trouble goes: time-out -> Abort -> controller reset -> dead. During a reset requests stay in the software queue;
 * those that the controller had are sent again when their status allows, up to NVME_RETRIES_MAX times. A request is
 * answered exactly once, and only when the controller cannot touch its memory any more.
 *
 * The control path (start, reset, shutdown, admin commands) runs in fibers of the controller's home reactor, the one
 * that attached it: these are the sequences of waits that fibers are for. The I/O path has no fibers.
 *
 * | call                                       | from                                   |
 * | nvme_ctrlr_attach, stop, destroy, reset,   | a fiber of the home reactor            |
 * | admin commands, log pages                  |                                        |
 * | nvme_submit, nvme_abort                    | the qpair's reactor; never waits       |
 * | events                                     | arrive in a fiber of the home reactor  |
 */
#ifndef LANEFS_NVME_NVME_H
#define LANEFS_NVME_NVME_H

#include <sys/uio.h>

#include "nvme/transport.h"
#include "reactor/fiber.h"

struct nvme_ctrlr;
struct nvme_qpair;

enum { NVME_RETRIES_MAX = 4, NVME_QUEUE_DEPTH_DEFAULT = 256, NVME_QUEUE_DEPTH_MAX = 1024, NVME_NAMESPACES_MAX = 64 };

enum nvme_event {
	NVME_EVENT_NS_ADDED,     /* nsid */
	NVME_EVENT_NS_REMOVED,
	NVME_EVENT_NS_RESIZED,
	NVME_EVENT_HEALTH,       /* a critical warning; logged already */
	NVME_EVENT_REQUESTED,    /* somebody wants the device in an orderly way (vfio's request notifier) */
	NVME_EVENT_GONE,         /* the device vanished, or is dead: stop and destroy it */
};
typedef void (*nvme_event_fn)(struct nvme_ctrlr *ctrlr, enum nvme_event event, uint32_t nsid, void *arg);

struct nvme_ctrlr_options {
	struct reactor_group *group;
	unsigned queue_depth;        /* of I/O queues; 0: NVME_QUEUE_DEPTH_DEFAULT; limited by CAP.MQES */
	uint64_t io_timeout_ns;      /* 0: 30 s */
	uint64_t admin_timeout_ns;   /* 0: 10 s */
	bool write_cache_off;        /* Set Features 06h; nvme_ctrlr_info.cache_on says what came of it */
	bool no_interrupts;          /* reactors poll always */
	nvme_event_fn event;
	void *arg;
};

struct nvme_ctrlr_info {
	char model[41], serial[21], firmware[9];
	uint16_t vendor;
	uint32_t version;            /* VS register: 0x00010400 is 1.4 */
	bool cache_present, cache_on; /* volatile write cache */
	uint32_t transfer_bytes_max; /* MDTS and what one PRP list describes */
	unsigned queue_depth, io_queues;
	bool interrupts, shadow_doorbells, dsm, write_zeroes;
	uint64_t resets, timeouts, aborts, retries, errors; /* counts since attach */
};

struct nvme_ns_info {
	uint32_t nsid;
	uint32_t block_size;             /* bytes */
	uint64_t block_count;
	uint32_t optimal_boundary_blocks; /* 0: none */
	uint32_t atomic_write_blocks;    /* over a power cut; at least 1 */
	bool read_only, deallocate_zeroes;
	uint8_t nguid[16], eui64[8], uuid[16];
	const char *refused;             /* why lanefs does not use it ("has 8 bytes of metadata per block"); NULL: fine */
};

/* Takes the transport over, whatever comes of it. On failure one line in @message naming object, cause and next step.
 * -ENODEV (vanished),
 * -ETIMEDOUT, -EIO (fatal status, refused command), -EOPNOTSUPP, -ENOMEM, -EMFILE (fewer I/O queues than reactors). */
MAY_WAIT int nvme_ctrlr_attach(struct nvme_transport *transport, const struct nvme_ctrlr_options *options,
	struct nvme_ctrlr **out, char *message, size_t message_size) MUST_CHECK;
/* Ends all I/O: orderly (alive: Shutdown Notification, CC.EN = 0) or, when gone, without touching registers.
 * Outstanding and later requests are answered with -ENODEV on their reactors; when it returns, all have been. At most
 * @deadline_ns. Idempotent. */
MAY_WAIT void nvme_ctrlr_stop(struct nvme_ctrlr *ctrlr, uint64_t deadline_ns);
/* After stop. The transport is released in a thread of its own: 0 when that was done within @deadline_ns, -ETIMEDOUT
 * when the kernel still holds it (it goes on by itself). Frees @ctrlr in any case. */
MAY_WAIT int nvme_ctrlr_destroy(struct nvme_ctrlr *ctrlr, uint64_t deadline_ns) MUST_CHECK;
/* It is known that the device has left (a uevent, say): as when the driver had found out by itself. Any fiber of the
 * home reactor. */
void nvme_ctrlr_lost(struct nvme_ctrlr *ctrlr);
/* A reset by request. 0, or -ENODEV when the controller did not come back. */
MAY_WAIT int nvme_ctrlr_reset(struct nvme_ctrlr *ctrlr) MUST_CHECK;

const struct nvme_ctrlr_info *nvme_ctrlr_get_info(const struct nvme_ctrlr *ctrlr);
const char *nvme_ctrlr_name(const struct nvme_ctrlr *ctrlr);
bool nvme_ctrlr_gone(const struct nvme_ctrlr *ctrlr);
bool nvme_ctrlr_resetting(const struct nvme_ctrlr *ctrlr);
/* Active namespaces in order of nsid. Valid until the caller next waits. */
unsigned nvme_ctrlr_ns_count(const struct nvme_ctrlr *ctrlr);
const struct nvme_ns_info *nvme_ctrlr_ns_at(const struct nvme_ctrlr *ctrlr, unsigned index);
const struct nvme_ns_info *nvme_ctrlr_ns(const struct nvme_ctrlr *ctrlr, uint32_t nsid);

/* One admin command with up to 4096 bytes of data in either direction (copied). The status becomes an errno; @dw0 may
 * be NULL. -ETIMEDOUT has already asked for a reset. */
struct nvme_admin {
	struct nvme_command command;
	void *data;                /* NULL: none */
	uint32_t length;
	bool to_controller;
	bool quiet;                /* an error is not logged */
};
MAY_WAIT int nvme_admin_run(struct nvme_ctrlr *ctrlr, const struct nvme_admin *admin, uint32_t *dw0) MUST_CHECK;
MAY_WAIT int nvme_log_page_read(struct nvme_ctrlr *ctrlr, uint8_t page, uint32_t nsid, void *out, uint32_t length)
	MUST_CHECK;
MAY_WAIT int nvme_identify(struct nvme_ctrlr *ctrlr, enum nvme_cns cns, uint32_t nsid, void *out_4096) MUST_CHECK;

/* ---- I/O ---- */
/* Embedded in the caller's object; the driver's from nvme_submit to done. */
struct nvme_request {
	struct cds_list_head node;
	struct nvme_command command; /* opcode, nsid, cdw10..15 by the caller; cid and PRPs by the driver */
	const struct iovec *iov;     /* data in DMA memory: every vector but the first begins on a page, every one but the
	                              * last ends on one; NULL: no data */
	unsigned iov_count;
	uint32_t length;             /* bytes; up to transfer_bytes_max */
	uint32_t dsm_blocks;         /* Dataset Management instead: one range */
	uint64_t dsm_lba;
	void (*done)(struct nvme_request *request); /* outside fibers, never inside nvme_submit */
	int result;                  /* 0 or a negative errno */
	uint16_t status;             /* the status field of the completion; 0xffff: there was none */
	uint8_t retries;
	uint16_t cid;                /* tracker; 0xffff: not with the controller */
	uint64_t due_ns;             /* while it waits to be sent again */
};
/* This reactor's queue pair. */
struct nvme_qpair *nvme_ctrlr_qpair(struct nvme_ctrlr *ctrlr);
void nvme_submit(struct nvme_qpair *qpair, struct nvme_request *request);
/* Best effort: answers with -ECANCELED when it had not reached the controller, otherwise asks the controller to. */
void nvme_abort(struct nvme_qpair *qpair, struct nvme_request *request);
/* Requests with the controller, and waiting for a tracker. */
unsigned nvme_qpair_outstanding(const struct nvme_qpair *qpair);

/* ---- status ---- */
int nvme_status_errno(uint16_t status);
const char *nvme_status_text(uint16_t status); /* "unrecovered read error"; never NULL */
bool nvme_status_retry(uint16_t status);       /* worth sending again: DNR clear and not a verdict */

#endif
