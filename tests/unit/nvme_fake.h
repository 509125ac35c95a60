/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A scripted NVMe controller for tests of the driver: registers in plain memory, the model a poller of reactor 0 of a simulated
 * group. It answers everything well, from namespaces in memory, unless a knob or a rule says otherwise.
 *
 * It also watches the driver: a command id used twice, a ring overrun, a doorbell out of range, a register written at the wrong
 * time, a malformed PRP, more Aborts or event requests than are allowed: each is a line in `complaint`, and the rig
 * (nvme_rig.h) fails a test that leaves one.
 *
 *   knobs      what the controller is: set before attach, or changed while it lives
 *   rules      what becomes of single commands: first match wins; skip the first `skip` matches, then `count` times
 *   counters   what the driver did
 */
#ifndef LANEFS_TESTS_NVME_FAKE_H
#define LANEFS_TESTS_NVME_FAKE_H

#include "nvme/nvme.h"
#include "reactor/memory.h"

enum { FAKE_PAGE = 4096, FAKE_BAR_BYTES = 0x4000, FAKE_QUEUES_MAX = 8, FAKE_RULES_MAX = 16, FAKE_NS_MAX = 8,
	FAKE_FEATURES_MAX = 256 };
enum { FAKE_ANY = -1 };
enum { FAKE_VENDOR_WRITE = 0xc1 }; /* an admin command: 512 bytes to the controller, their sum in dw0 */

enum fake_action {
	FAKE_ANSWER,   /* with the rule's status; 0: as usual, but after delay_ns */
	FAKE_SILENT,   /* no answer, until it is aborted */
	FAKE_TWICE,    /* as usual, and the same completion once more */
	FAKE_STRANGER, /* a completion for a command id that is not under way, then as usual */
	FAKE_FATAL,    /* controller fatal status, and nothing more */
	FAKE_VANISH,   /* the device is gone, as vanish_as says */
};
enum fake_vanish { FAKE_ALL_ONES, FAKE_ALL_ZEROES, FAKE_SIGBUS /* all ones, and the guard has set the flag */ };

struct fake_rule {
	bool admin;
	int opcode;             /* FAKE_ANY */
	int selector;           /* low byte of cdw10: CNS, feature, log page; FAKE_ANY */
	unsigned skip, count;   /* count 0: for ever */
	enum fake_action action;
	uint16_t status;        /* without the phase bit: STATUS_* fields */
	uint64_t delay_ns;
	bool resists_abort;     /* the Abort succeeds, but says that nothing was aborted */
	unsigned seen, hits;
};

struct fake_ns {
	uint32_t nsid;          /* 0: unused */
	uint64_t blocks;
	uint8_t shift;          /* log2 of the LBA size */
	uint16_t metadata;
	uint8_t csi, uuid[16];
	uint16_t boundary;
	uint8_t flbas_index;    /* which of the formats it is */
	bool inactive;
	uint8_t *data;          /* blocks << shift; made on first use */
};

struct fake_sq {
	bool on;
	uint64_t iova;
	uint16_t entries, head, cqid;
	uint16_t seen;          /* doorbell at the last look of the hook */
	unsigned rings;
};
struct fake_cq {
	bool on, phase, interrupts;
	uint64_t iova;
	uint16_t entries, tail;
	uint16_t seen;
	unsigned rings;
};

/* A command that was fetched and not answered yet. */
struct fake_command {
	struct cds_list_head node;
	struct nvme_command command;
	uint16_t qid;
	uint64_t due_ns;        /* UINT64_MAX: never by itself */
	uint16_t status;
	uint32_t dw0;
	bool verdict;           /* status is the rule's: nothing is done */
	bool twice, resists_abort, event;
};

struct nvme_fake {
	struct nvme_transport transport;
	struct reactor *reactor;      /* of the model */
	struct poller poller;
	struct timer timer;
	uint64_t random;

	/* what it is */
	uint64_t cap;                 /* CAP_* fields */
	uint32_t version;
	struct nvme_id_ctrlr identify;
	struct fake_ns namespaces[FAKE_NS_MAX];
	uint16_t io_queues;           /* granted by Number of Queues */
	bool cache_on, cache_refused, cache_unknown;
	bool no_active_list, no_descriptors, garbled_descriptors;
	uint64_t ready_delay_ns, stop_delay_ns, shutdown_delay_ns;
	bool never_ready, never_stops, never_shuts_down, fatal_when_enabled;
	uint64_t latency_max_ns;      /* of I/O, random up to this */
	bool hold;                    /* I/O stays until fake_release */
	bool doorbells_out_of_sight;  /* the stride is too large for the bar of the fake */
	bool shadow_awake;            /* looks at the shadow doorbells by itself: event indexes stay where they are */
	enum fake_vanish vanish_as;
	/* What a hostile controller makes of a completion, and of data for the host, just before they are stored. */
	void (*twist)(struct nvme_fake *fake, struct nvme_completion *completion);
	void (*garble)(struct nvme_fake *fake, const struct nvme_command *command, uint8_t *data, uint32_t length);
	struct fake_rule rules[FAKE_RULES_MAX];
	unsigned rule_count;
	struct nvme_log_smart smart;
	uint32_t changed_ns[16];

	/* what it does */
	bool enabled, ready, fatal, gone, dma_off, told;
	uint64_t change_due_ns, shutdown_due_ns; /* 0: none under way */
	struct fake_sq sqs[FAKE_QUEUES_MAX + 1];
	struct fake_cq cqs[FAKE_QUEUES_MAX + 1];
	uint32_t *shadow, *events;    /* of Doorbell Buffer Config; NULL */
	struct cds_list_head commands; /* in order of arrival */
	bool nonsense;                /* completions were posted that no command asked for */

	/* what the driver did */
	unsigned wrote, enables, disables, shutdowns, stop_dmas, releases;
	unsigned admin_seen[256], io_seen[256], log_pages[256];
	unsigned aborts_under_way;
	uint8_t vendor_data[512];     /* of FAKE_VENDOR_WRITE */
	uint32_t features[FAKE_FEATURES_MAX]; /* as set last */
	bool feature_set[FAKE_FEATURES_MAX];
	bool alive_answer, shutdown_complete;
	int request_fd;
	char complaint[256];          /* the first thing that the driver did wrong */
};

/* A controller with one namespace of 1024 blocks of 512 bytes. Its bar is made here; free it after release. */
void fake_init(struct nvme_fake *fake, const char *name, uint64_t seed);
/* The model begins to run; on reactor 0, before attach. */
void fake_start(struct nvme_fake *fake);
/* Nothing happens if the driver has released it. */
void fake_stop(struct nvme_fake *fake);
void fake_fini(struct nvme_fake *fake);

struct fake_rule *fake_rule(struct nvme_fake *fake, struct fake_rule rule);
void fake_rules_clear(struct nvme_fake *fake);
struct fake_ns *fake_ns(struct nvme_fake *fake, uint32_t nsid);
uint8_t *fake_ns_data(struct fake_ns *ns);
uint64_t fake_random(struct nvme_fake *fake, uint64_t bound);

uint32_t fake_get(const struct nvme_fake *fake, uint32_t reg);
void fake_set(struct nvme_fake *fake, uint32_t reg, uint32_t value);

/* The following from anywhere in the simulation. */
void fake_vanish(struct nvme_fake *fake);
void fake_fatal(struct nvme_fake *fake);
/* Answers up to @count held commands, oldest first or newest first; how many. */
unsigned fake_release(struct nvme_fake *fake, unsigned count, bool newest_first);
/* A completion that nobody asked for. */
void fake_post(struct nvme_fake *fake, uint16_t qid, uint16_t cid, uint16_t status);
/* Completes an event request, if one is there: true. */
bool fake_event(struct nvme_fake *fake, uint32_t dw0);
/* Whether a command that the controller has may still reach [@buffer, @buffer + @length). */
bool fake_can_reach(const struct nvme_fake *fake, const void *buffer, size_t length);
unsigned fake_under_way(const struct nvme_fake *fake, bool admin);

#endif
