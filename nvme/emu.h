/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The emulated NVMe controller: a device model behind the same registers and queues as hardware. The driver cannot
 * tell it from hardware except by its model string ("lanefs emulated NVMe").
 *
 * A struct emu is a drive: its medium (a backing that the caller provides), a volatile write cache, rules for
 * errors. Plugging it in makes a transport (a fresh BAR in a memfd); pulling it out stops the model first and then
 * truncates the memfd, so that the driver's next access raises SIGBUS, as on a device whose memory decode is off.
 * It can be plugged in again, content kept; what the cache held is lost as the power-cut mode says.
 *
 * The model runs as a poller of one reactor; its backing calls back there. It sleeps with its reactor: `wrote` of the
 * transport wakes it. In a simulated group it is as deterministic as everything else.
 *
 * Everything here is called on the model's reactor, outside of its own callbacks, except where said.
 */
#ifndef LANEFS_NVME_EMU_H
#define LANEFS_NVME_EMU_H

#include <sys/uio.h>

#include "nvme/transport.h"
#include "reactor/reactor.h"

/* ---- the medium ---- */
enum emu_op { EMU_READ, EMU_WRITE, EMU_FLUSH, EMU_ZERO, EMU_DISCARD };
/* The model's object; the backing's from submit to done. offset and length in bytes, multiples of the LBA size. */
struct emu_io {
	enum emu_op op;
	uint64_t offset, length;
	const struct iovec *iov;
	unsigned iov_count;
	void (*done)(struct emu_io *io); /* on the model's reactor, never inside submit */
	int result;                      /* 0 or a negative errno */
	_Alignas(16) unsigned char context[512]; /* the backing's */
};
struct emu_backing {
	uint64_t size_bytes;
	bool read_only;
	bool zeroes_by_discard;          /* discarded space reads as zeroes */
	void (*submit)(void *arg, struct emu_io *io);
	void *arg;
};

/* ---- options: "emu:IMAGE,cache=16M,lba=512,..." ---- */
enum emu_power_cut {
	EMU_CUT_ALL,       /* everything unflushed is lost */
	EMU_CUT_RANDOM,    /* a seeded random part survives, in pieces of `tear` bytes, of any age order */
	EMU_CUT_NONE,      /* a drive with capacitors that does not say so */
};
struct emu_rule;
enum { EMU_RULES_MAX = 16 };
enum emu_rule_action {
	EMU_RULE_DELAY,      /* completes delay_ns later */
	EMU_RULE_STATUS,     /* answers `status` without doing it */
	EMU_RULE_STUCK,      /* never completes; Abort takes it back */
	EMU_RULE_STUCK_HARD, /* Abort does not help; a controller reset does */
	EMU_RULE_FATAL,      /* CSTS.CFS; all stops until a reset */
	EMU_RULE_LIE,        /* flush or FUA: answers success without doing it */
	EMU_RULE_VANISH,     /* the device is pulled out when this command arrives */
	EMU_RULE_NOT_READY,  /* the next resets never become ready (matched by enabling, not by commands) */
};
struct emu_rule {
	bool admin;
	int opcode;             /* enum nvme_opcode or nvme_admin_opcode; -1: any */
	uint32_t nsid;          /* 0: any */
	uint64_t first_lba, blocks; /* blocks 0: anywhere */
	uint64_t skip, count;   /* matching commands that pass first; then this many are hit, 0: all */
	uint32_t ppm;           /* chance in a million; 0: always. Seeded. */
	enum emu_rule_action action;
	uint16_t status;
	uint64_t delay_ns;
	uint64_t hits;          /* how often it acted */
};

struct emu_options {
	uint64_t cache_bytes;       /* own write cache (lost on a power cut); 0: none, the backing's own is the volatile one */
	bool no_volatile_cache;     /* vwc=off: Identify says there is none; every write is flushed to the medium */
	bool cache_fixed;           /* Set Features 06h is refused */
	uint32_t lba_bytes;         /* 0: 4096; or 512 */
	unsigned metadata_bytes;    /* for tests of refusal: formatted with metadata */
	bool zoned;                 /* for tests of refusal */
	unsigned namespaces;        /* 0: 1; the medium is cut into equal parts */
	unsigned queues_max;        /* I/O queue pairs; 0: 64 */
	unsigned depth_max;         /* CAP.MQES + 1; 0: 1024 */
	unsigned mdts;              /* 2^n pages; 0: 5 (128 KiB); 15: no limit */
	unsigned boundary_blocks;   /* NOIOB */
	bool no_shadow_doorbells, no_interrupts;
	bool no_dsm, no_write_zeroes;
	uint64_t latency_ns;        /* of every I/O command */
	enum emu_power_cut cut;
	unsigned tear_bytes;        /* 0: 512; or 4096 */
	uint64_t seed;
	char serial[21];            /* "": made from the name */
	struct emu_rule rules[EMU_RULES_MAX];
	unsigned rule_count;
};
/* @text: what follows the image's name, "cache=16M,rule=write:stuck:skip=100:count=1"; may be empty. -EINVAL
 * with one line in @message that names the option and what it may be. */
int emu_options_parse(const char *text, struct emu_options *out, char *message, size_t message_size) MUST_CHECK;
/* One rule: "OPCODE:ACTION[:KEY=VALUE...]", for example "flush:lie", "write:status=0x280:ppm=1000", "any:delay=5ms",
 * "admin-identify:stuck". */
int emu_rule_parse(const char *text, struct emu_rule *out, char *message, size_t message_size) MUST_CHECK;
/* For help texts: one line per option, "  cache=SIZE     ...\n". */
const char *emu_options_help(void);

/* ---- life ---- */
struct emu;
/* From a fiber or message of @reactor. @name for messages and the serial number ("emu:/path"). -ENOMEM, -EINVAL. */
int emu_create(const char *name, const struct emu_options *options, const struct emu_backing *backing,
	struct reactor *reactor, struct emu **out) MUST_CHECK;
/* Pulled out and nothing under way (emu_idle), or thrown away with its group (reactor_group_sim_abandon). */
void emu_destroy(struct emu *emu);
/* Makes a transport for the driver. -EBUSY: plugged in already, or still on its way out. -errno of memfd and mmap. */
int emu_plug(struct emu *emu, struct nvme_transport **out) MUST_CHECK;
/* False as soon as the driver has released the transport, or all that emu_pull waits for has happened. */
bool emu_plugged(const struct emu *emu);
/* Surprise: the model stops at once: nothing completes any more. When the backing uses no host memory any more,
 * the BAR's memory is cut: what the driver finds gone cannot reach its memory. The cache's content is lost as
 * options.cut says, and what survives is written. Returns when all that is over and nothing is under way: a
 * write without a completion may or may not have happened, and will not happen later. Idempotent. In a fiber; it
 * does not wait when nothing is under way. */
MAY_WAIT void emu_pull(struct emu *emu);
/* Like somebody pressing the attention button: the transport's request_fd becomes readable. */
void emu_request(struct emu *emu);
/* The power fails and comes back while plugged in: cache lost, controller as after power-on (not ready, queues
 * gone). Waits like emu_pull. */
MAY_WAIT void emu_power_cut(struct emu *emu);
/* No backing I/O under way: it may be destroyed. */
bool emu_idle(const struct emu *emu);
/* What Identify says of the namespaces, and whether changes are refused, from now on. */
void emu_set_read_only(struct emu *emu, bool read_only);

/* ---- at run time ---- */
int emu_add_rule(struct emu *emu, const struct emu_rule *rule) MUST_CHECK; /* its index, or -ENOSPC */
void emu_clear_rules(struct emu *emu);
const struct emu_rule *emu_get_rule(const struct emu *emu, unsigned index);
void emu_set_cut(struct emu *emu, enum emu_power_cut cut, uint64_t seed);
/* A namespace is attached or detached, or changes its size (in blocks, up to its part of the medium): event and
 * changed-list follow. */
int emu_ns_attach(struct emu *emu, uint32_t nsid, bool attached) MUST_CHECK;
int emu_ns_resize(struct emu *emu, uint32_t nsid, uint64_t blocks) MUST_CHECK;
/* The medium is as large now; so is the only namespace, unless it was made smaller than it could be. With several the parts
 * stay as they are. True: event and changed-list follow. */
bool emu_medium_grew(struct emu *emu, uint64_t size_bytes);
/* Critical warning bits of the SMART log; raises the event. */
void emu_set_health(struct emu *emu, uint8_t critical_warning);

struct emu_stats {
	uint64_t admin_commands, io_commands, flushes;
	uint64_t cache_bytes, lost_bytes;    /* dirty in the cache now; lost in power cuts so far */
	uint64_t aborts, resets;             /* commands that Abort took back; CC.EN 1 -> 0 */
	uint64_t bad_commands;               /* answered with a status that says the driver is to blame */
	uint64_t doorbell_wakes, interrupts; /* signals from and to the driver */
};
void emu_stats_read(const struct emu *emu, struct emu_stats *out);

#endif
