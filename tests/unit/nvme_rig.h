/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the driver's tests share: a simulated group, a fake controller, the driver attached to it, its events and log lines, and
 * requests that check what the driver promises of them: done is called once, outside fibers, never inside nvme_submit, on the
 * reactor that submitted, and only when the controller cannot reach the buffer any more.
 */
#ifndef LANEFS_TESTS_NVME_RIG_H
#define LANEFS_TESTS_NVME_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "nvme_fake.h"
#include "reactor/log.h"

enum { RIG_EVENTS = NVME_EVENT_GONE + 1, RIG_LINES_MAX = 64, RIG_LINE_BYTES = 256, RIG_IO_BYTES = 128 << 10 };

struct rig {
	struct reactor_group *group;
	struct nvme_fake fake;
	struct nvme_ctrlr_options options;
	struct nvme_ctrlr *ctrlr;           /* NULL: not attached */
	bool attached_once;
	bool hostile;                       /* the controller lies: what it says it has done tells nothing */
	char message[256];
	unsigned events[RIG_EVENTS];        /* how many of each */
	uint32_t event_nsid[RIG_EVENTS];    /* of the last */
	unsigned lines_at[LOG_LEVEL_DEBUG + 1];
	unsigned strangers;                 /* completions that the driver could not place */
	char lines[RIG_LINES_MAX][RIG_LINE_BYTES];
	unsigned line_count;                /* all; the last RIG_LINES_MAX are kept */
};

/* Fake and options may be changed between init and attach. The log goes to the rig until fini. */
void rig_init(struct rig *rig, unsigned reactors, uint64_t seed);
/* What nvme_ctrlr_attach answered; its line is in message. */
int rig_attach(struct rig *rig) MUST_CHECK;
void rig_stop(struct rig *rig, uint64_t deadline_ns);
/* Stop if need be, destroy. */
void rig_detach(struct rig *rig);
/* After an attach that failed: another fake, as if the device had been put right. */
void rig_renew(struct rig *rig);
/* Detach if need be; what the fake has to complain of fails the test, and so does a transport that was not released once. */
void rig_fini(struct rig *rig);
void rig_run(struct rig *rig, unsigned reactor, int (*fn)(void *arg), void *arg);
uint64_t rig_now(struct rig *rig);
void rig_sleep(struct rig *rig, uint64_t ns);
/* Sleeps in steps of a millisecond until done(arg), at most @limit_ns: fails then. */
void rig_until(struct rig *rig, bool (*done)(struct rig *rig, void *arg), void *arg, uint64_t limit_ns);
bool rig_logged(const struct rig *rig, const char *part);

struct rig_io {
	struct nvme_request request;
	struct rig *rig;
	struct nvme_qpair *qpair;
	struct reactor *reactor;
	struct iovec iov;
	uint8_t *buffer;
	unsigned answers;
	bool submitting;
	struct fiber *waiter;
	uint64_t done_ns;
	void (*then)(struct rig_io *io);
	void *arg;
};
/* @bytes of buffer; 0: none. */
void rig_io_init(struct rig_io *io, struct rig *rig, uint32_t bytes);
void rig_io_fini(struct rig_io *io);
/* On a reactor. @blocks of 512 bytes for read and write; ignored by others. */
void rig_io_submit(struct rig_io *io, enum nvme_opcode opcode, uint64_t lba, uint32_t blocks);
MAY_WAIT int rig_io_wait(struct rig_io *io);
MAY_WAIT int rig_io_run(struct rig_io *io, enum nvme_opcode opcode, uint64_t lba, uint32_t blocks);

#endif
