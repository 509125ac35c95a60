/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the driver share.
 *
 * Who owns what: a queue pair, its rings, trackers and lines belong to its reactor; the controller, its admin queue
 * pair and namespaces to the home reactor. The minder (a fiber of the home reactor, ctrlr.c) is the only one that
 * changes the controller's state. It reaches the queue pairs of other reactors by reactor_call_nowait, and these reach
 * the minder by a message (ctrlr_poke).
 *
 *   qpair states                  stop                    reclaim, restart
 *                   RUNNING ------------------> STOPPED ---------------------> RUNNING
 *                      |  requests wait in line     |
 *                      +----------------------------+----> DEAD: everything is answered -ENODEV
 */
#ifndef LANEFS_NVME_NVME_INTERNAL_H
#define LANEFS_NVME_NVME_INTERNAL_H

#include "nvme/nvme.h"

enum {
	PAGE_BYTES = 4096,
	PRP_LIST_ENTRIES = PAGE_BYTES / 8,
	ADMIN_DEPTH = 32,
	ADMIN_SLOTS = 8,
	EVENT_REQUESTS_MAX = 4,
	COMPLETION_BATCH = 64,      /* completions taken in one poll of a queue pair */
	CID_NONE = 0xffff,
	STATUS_NONE = 0xffff,
	RETRIES_FORBIDDEN = 0xff,
	MINDER_PERIOD_MS = 250,     /* CSTS is looked at this often */
	RETRY_DELAY_MS = 10,
	RETRY_DELAY_S_MAX = 30, /* whatever the controller asks for */
	SPIN_WITHOUT_INTERRUPTS_US = 1000,
	NAP_WITHOUT_INTERRUPTS_US = 100,
};
/* What one PRP list describes, wherever in its page the buffer begins. */
#define TRANSFER_BYTES_MAX ((uint32_t)PRP_LIST_ENTRIES * PAGE_BYTES)

struct tracker {
	struct cds_list_head node;       /* qpair->free, or qpair->sent in order of sending */
	struct nvme_request *request;    /* NULL: free */
	le64_t *list;                    /* PRP list, or the range of a DSM: one page */
	uint64_t list_iova;
	uint64_t sent_ns;                /* reactor_running_ns */
	uint16_t cid;
	bool timed_out, abort_asked;
};

/* A doorbell, with its shadow and event index when the controller offers them. */
struct doorbell {
	uint32_t reg;
	volatile uint32_t *shadow, *event; /* NULL: none */
	uint16_t rung;                     /* value that the controller knows */
};

enum qpair_state { QPAIR_STOPPED, QPAIR_RUNNING, QPAIR_DEAD };

struct nvme_qpair {
	struct nvme_ctrlr *ctrlr;
	struct reactor *reactor;
	struct poller poller;
	struct timer timer;              /* time-outs, delayed retries, naps without interrupts */
	enum qpair_state state;
	uint16_t qid, depth;
	int interrupt_fd;                /* -1: none */
	struct nvme_command *sq;
	volatile struct nvme_completion *cq;
	uint64_t sq_iova, cq_iova;
	uint16_t sq_tail, cq_head;
	bool phase;
	struct doorbell sq_doorbell, cq_doorbell;
	struct tracker *trackers;        /* depth - 1 */
	void *lists;                     /* DMA: a page per tracker */
	struct cds_list_head free, sent;
	struct cds_list_head waiting;    /* requests in line for a tracker */
	struct cds_list_head delayed;    /* requests to be sent again later */
	struct cds_list_head finished;   /* requests whose done is still to be called */
	unsigned outstanding, waiting_count;
	uint64_t timeout_ns, active_ns;  /* last time that something was sent or came back */
	bool gone_told;
	struct message poke;             /* to the minder */
	bool poke_sent;                  /* atomic */
	uint64_t timeouts, retries, errors; /* read from elsewhere */
};

/* An admin command of nvme_admin_run; its page is what the controller sees. */
struct admin_slot {
	struct nvme_request request;
	struct nvme_ctrlr *ctrlr;
	struct iovec iov;
	void *page;
	uint32_t dw0;
	bool busy, done, abandoned;
};
/* An outstanding Asynchronous Event Request. */
struct event_slot {
	struct nvme_request request;
	struct nvme_ctrlr *ctrlr;
	uint32_t dw0;
	bool armed, arrived;
	bool refused;                    /* until the next reset */
};
/* An Abort under way; the answer does not matter. */
struct abort_slot {
	struct nvme_request request;
	bool busy;
};
enum { ABORT_SLOTS = 4 };

enum ctrlr_state { CTRLR_STARTING, CTRLR_READY, CTRLR_RESETTING, CTRLR_DEAD, CTRLR_STOPPED };

struct nvme_ctrlr {
	struct nvme_transport *transport;
	struct nvme_ctrlr_options options;
	struct reactor *home;
	struct fiber_start minder;
	bool minder_running;
	enum ctrlr_state state;
	struct fiber_cond poke;          /* wakes the minder */
	struct fiber_cond changed;       /* state, slots, ends of admin commands */
	bool reset_wanted, stop_wanted;
	unsigned callers;                /* fibers of the owner that wait in a call; destroy waits for them */
	uint64_t stop_deadline_ns;
	int start_error;
	char message[256];               /* why it did not start, or died */
	uint64_t cap, ready_timeout_ns;
	unsigned dstrd;
	struct nvme_qpair *admin;
	struct nvme_qpair *qpairs[REACTOR_COUNT_MAX];
	unsigned qpair_count;
	struct admin_slot slots[ADMIN_SLOTS];
	void *slot_pages;
	unsigned admin_busy;             /* slots whose command is with the controller */
	struct event_slot events[EVENT_REQUESTS_MAX];
	unsigned event_count;
	struct abort_slot aborts[ABORT_SLOTS];
	uint32_t *shadow;                /* two pages: doorbells, event indexes; NULL */
	uint64_t power_cycles;           /* as the SMART log counted them last */
	struct nvme_id_ctrlr *identify;  /* last read; DMA not needed */
	struct nvme_ctrlr_info info;
	struct nvme_ns_info namespaces[NVME_NAMESPACES_MAX];
	unsigned namespace_count;
	bool requested_told, poked, power_lost;
	bool cache_was_on;               /* when power_cycles was read */
	bool cache_off;                  /* at attach: its users count on it */
};

/* prp.c */
/* Sets prp1 and prp2 of @command and fills the tracker's list. -EINVAL: a vector begins or ends inside a page where it
 * may not;
 * -EFAULT: no DMA memory. */
int prp_build(struct tracker *tracker, const struct nvme_request *request, struct nvme_command *command) MUST_CHECK;

/* qpair.c: everything on the qpair's reactor, except create and destroy (home; the qpair is not open) */
int qpair_create(struct nvme_ctrlr *ctrlr, uint16_t qid, uint16_t depth, struct reactor *reactor, struct nvme_qpair **out)
	MUST_CHECK;
void qpair_destroy(struct nvme_qpair *qpair);
int qpair_open(void *qpair);     /* registers with the reactor; state STOPPED */
int qpair_close(void *qpair);
int qpair_stop(void *qpair);     /* nothing more is sent */
int qpair_reclaim(void *qpair);  /* the controller cannot touch memory: what it had goes back in line */
int qpair_clear(void *qpair);    /* empty rings, before the controller learns of them */
int qpair_restart(void *qpair);
int qpair_kill(void *qpair);     /* everything that it has, and gets, is answered -ENODEV by the next turn */
int qpair_unanswered(void *qpair); /* 1: some are not answered yet */

/* Which commands are to be aborted, and whether one did not even react to that. */
struct late_commands {
	struct nvme_qpair *qpair;
	uint16_t cids[ABORT_SLOTS];
	unsigned count;
	bool overdue;
};
int qpair_late(void *late_commands);

/* qpair_time.c */
void qpair_timer_start(struct nvme_qpair *qpair);
bool qpair_before_sleep(struct poller *poller);
/* Asks the minder for Aborts; whether any is wanted is seen in the trackers. */
void qpair_poke_minder(struct nvme_qpair *qpair);
void qpair_requeue(struct nvme_qpair *qpair, struct nvme_request *request, uint64_t delay_ns);
unsigned qpair_send_delayed(struct nvme_qpair *qpair);
bool qpair_completion_ready(const struct nvme_qpair *qpair);

/* admin.c */
int admin_create(struct nvme_ctrlr *ctrlr) MUST_CHECK;
void admin_destroy(struct nvme_ctrlr *ctrlr);
/* As nvme_admin_run, for the minder: in any state. */
MAY_WAIT int admin_run(struct nvme_ctrlr *ctrlr, const struct nvme_admin *admin, uint32_t *dw0) MUST_CHECK;
MAY_WAIT int admin_identify(struct nvme_ctrlr *ctrlr, enum nvme_cns cns, uint32_t nsid, void *out) MUST_CHECK;
void admin_abort(struct nvme_ctrlr *ctrlr, uint16_t qid, uint16_t cid);

/* init.c: in the minder. One line in ctrlr->message on failure. */
MAY_WAIT int ctrlr_disable(struct nvme_ctrlr *ctrlr) MUST_CHECK;
MAY_WAIT int ctrlr_enable(struct nvme_ctrlr *ctrlr) MUST_CHECK;
/* From a disabled controller to one whose I/O queues work. */
MAY_WAIT int ctrlr_bring_up(struct nvme_ctrlr *ctrlr, bool first) MUST_CHECK;
MAY_WAIT void ctrlr_shutdown_notify(struct nvme_ctrlr *ctrlr);

/* namespace.c */
MAY_WAIT int namespaces_read(struct nvme_ctrlr *ctrlr, bool tell) MUST_CHECK;

/* event.c */
void events_arm(struct nvme_ctrlr *ctrlr);
MAY_WAIT void events_handle(struct nvme_ctrlr *ctrlr);

/* ctrlr.c */
void ctrlr_poke(struct nvme_ctrlr *ctrlr); /* home reactor */
/* Around whatever a fiber other than the minder waits for; home reactor. */
static inline void ctrlr_enter(struct nvme_ctrlr *ctrlr) { ctrlr->callers++; }
static inline void ctrlr_leave(struct nvme_ctrlr *ctrlr)
{
	if (--ctrlr->callers == 0)
		fiber_cond_broadcast(&ctrlr->changed);
}
int ctrlr_complain(struct nvme_ctrlr *ctrlr, int err, const char *format, ...) PRINTF_LIKE(3, 4);
/* Reads CSTS; true when the device is gone (and remembers it). */
bool ctrlr_check_gone(struct nvme_ctrlr *ctrlr);
/* True when the registers read all ones (and remembers it), or the guard has said so. Says nothing of a reset under
 * way. */
bool ctrlr_vanished(struct nvme_ctrlr *ctrlr);
/* Sleeps a moment in the minder; false when there is no sense in going on (gone, or the deadline of a stop has passed). */
MAY_WAIT bool ctrlr_pause(struct nvme_ctrlr *ctrlr, uint64_t ns);
bool ctrlr_gone(const struct nvme_ctrlr *ctrlr);
MAY_WAIT int for_each_qpair(struct nvme_ctrlr *ctrlr, int (*fn)(void *qpair));
static inline void ctrlr_wrote(struct nvme_ctrlr *ctrlr)
{
	if (ctrlr->transport->ops->wrote)
		ctrlr->transport->ops->wrote(ctrlr->transport);
}

/* release.c: in a thread of its own. */
MAY_WAIT int transport_release(struct nvme_transport *transport, uint64_t deadline_ns) MUST_CHECK;

#endif
