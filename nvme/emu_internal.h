/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the files of the emulated controller share.
 *
 *   emu.c            life: create, plug, pull, power cut, the poller
 *   emu_port.c       the transport: the side of the driver, which may be another thread
 *   emu_registers.c  CC and CSTS: enabling, reset, shutdown, fatal status
 *   emu_queue.c      submission and completion queues, doorbells, interrupts
 *   emu_command.c    a command's way from the queue to its completion
 *   emu_dma.c        addresses, PRP lists
 *   emu_admin.c      admin commands; emu_identify.c, emu_log.c (logs and asynchronous events)
 *   emu_io.c         I/O commands
 *   emu_cache.c      the volatile write cache (emu_cache.h); emu_cached_io.c: what commands do with it
 *   emu_rules.c      what goes wrong
 *   emu_options.c    options as text; emu_rule_text.c: rules as text
 *
 * Threads: struct emu and everything that hangs from it belong to the model's reactor. struct emu_port is the only
 * thing that the driver's threads touch as well: its fields are atomic, or do not change while both hold it.
 *
 * A command is in one place at a time (enum emu_place). A wait ends with a call of `resume`; reset, pull and power
 * cut end it otherwise: what waits inside the model is freed, what the backing has is marked `dropped` and freed
 * when it comes back. Host memory is touched by the model's own code (which stops at once) and by backing I/O on
 * host buffers, counted in host_ios: a reset shows RDY = 0, and a pull cuts the BAR, only when that is zero.
 */
#ifndef LANEFS_NVME_EMU_INTERNAL_H
#define LANEFS_NVME_EMU_INTERNAL_H

#include "nvme/emu.h"
#include "reactor/fiber.h"

enum {
	EMU_PAGE = 4096,            /* memory page of the controller: CC.MPS = 0 */
	EMU_BAR_BYTES = 8192,       /* registers, then doorbells */
	EMU_QUEUES_MAX = 256,       /* I/O queue pairs; their doorbells and shadow doorbells fit a page */
	EMU_DEPTH_MAX = 65536,
	EMU_NAMESPACES_MAX = 64,
	EMU_IOV_MAX = 64,           /* per backing I/O; longer commands take several */
	EMU_COMMANDS = 512,         /* I/O commands taken and not answered yet; more stay in the queues */
	EMU_ADMIN_COMMANDS = 64,    /* the same of admin commands, so that Abort gets through when all I/O is stuck */
	EMU_FETCH_BATCH = 16,       /* commands per queue and turn */
	EMU_EVENTS_MAX = 4,         /* asynchronous event requests at once */
	EMU_ERRORS_MAX = 16,        /* error log entries */
	EMU_CIDS = 65536,
	EMU_ADMIN_DATA_MAX = 1 << 20, /* bytes of a log page command */
};
#define EMU_DNR ((uint16_t)FIELD_SET(STATUS_DNR, 1))
#define EMU_NSID_ALL 0xffffffffu

enum emu_state {
	EMU_OUT,        /* not plugged in */
	EMU_OFF,        /* CC.EN = 0 */
	EMU_ENABLING,   /* EN = 1, RDY = 0 */
	EMU_READY,
	EMU_FATAL,      /* CSTS.CFS */
	EMU_RESETTING,  /* EN = 0, RDY still 1: host memory is in use */
	EMU_CUTTING,    /* a power cut under way */
	EMU_LEAVING,    /* being pulled out */
};

/* ---- emu_port.c ---- */
struct emu_port {
	struct nvme_transport transport;
	atomic_int references;       /* the model's while plugged, the driver's until release */
	int memory_fd;               /* the BAR */
	int wake_fd;                 /* eventfd, watched by the model's reactor */
	int button_fd;               /* eventfd of emu_request */
	atomic_uint writes;          /* counts the driver's writes */
	atomic_bool asleep;          /* the model's reactor (nearly) sleeps; who turns it off signals wake_fd */
	atomic_bool released;        /* by the driver */
	atomic_bool disabled;        /* the driver has written something while CC.EN was 0 */
	unsigned vectors;
	struct emu_vector {
		atomic_int fd;       /* -1 until the driver asks for it */
		atomic_bool armed;
	} vector[EMU_QUEUES_MAX + 1];
};
/* With two references. @bar: the model's mapping. */
int emu_port_create(const char *name, unsigned vectors, struct emu_port **out, volatile uint8_t **bar) MUST_CHECK;
void emu_port_put(struct emu_port *port);
/* The interrupt, if the driver has armed it. True: signalled. */
bool emu_port_signal(struct emu_port *port, unsigned vector);

/* ---- namespaces, queues ---- */
struct emu_ns {
	uint32_t nsid;               /* 0: none */
	bool attached;
	uint64_t first_byte;         /* on the medium */
	uint64_t blocks, blocks_max;
};

struct emu_cq {
	struct emu *emu;
	struct nvme_completion *ring; /* NULL: does not exist */
	uint32_t entries, head, tail;
	uint16_t id, vector;
	bool interrupts, phase, unsignalled;
	unsigned sq_count;
	struct cds_list_head waiting; /* emu_command.wait: found no room */
};
struct emu_sq {
	struct emu *emu;
	const struct nvme_command *ring; /* NULL: does not exist */
	struct emu_cq *cq;
	uint32_t entries, head, tail;
	uint32_t doorbell;           /* as last read; may be no valid tail */
	uint16_t id;
	unsigned running;            /* fetched, not answered */
	struct emu_command *deleter; /* the Delete command that waits for those */
	uint64_t *cids;              /* bitmap of identifiers in use */
};

/* ---- commands ---- */
struct emu_prp {
	uint64_t left;               /* bytes not in segment yet */
	uint64_t list;               /* address of the next entry; 0: PRP2 is data */
	uint64_t second;             /* PRP2 */
	uint64_t address, length;    /* segment: what is taken next */
};
struct emu_cursor {
	unsigned index;
	size_t offset;
};

enum emu_place {
	EMU_AT_WORK,     /* code is running for it */
	EMU_AT_BACKING,  /* io is under way */
	EMU_AT_TIMER,    /* not begun; Abort takes it */
	EMU_AT_STUCK,    /* for ever; Abort takes it */
	EMU_AT_STUCK_HARD,
	EMU_AT_EVENTS,   /* an asynchronous event request; Abort takes it */
	EMU_AT_CACHE,    /* waits for room or for write-back */
	EMU_AT_CQ,       /* done, but its queue is full */
	EMU_AT_DELETE,   /* waits for the commands of a queue */
};
struct emu_command {
	struct cds_list_head node;   /* free, or in use */
	struct cds_list_head wait;   /* in the list of its place, if that has one */
	struct emu *emu;
	struct emu_sq *sq;           /* NULL: the model's own */
	enum emu_place place;
	bool admin, dropped;
	bool owns_cid;               /* its identifier is marked in sq->cids */
	bool lie;                    /* rule: FUA and flush are not obeyed */
	bool durable;                /* flush when written */
	struct nvme_command entry;
	void (*resume)(struct emu_command *command);
	void (*finish)(struct emu_command *command, int error);  /* of a step in the cache */
	void (*flushed)(struct emu_command *command, int error); /* of a flush */
	uint32_t dw0;
	uint64_t offset, length;     /* bytes on the medium */
	uint64_t position;           /* of length: done */
	struct emu_prp prp;
	uint64_t piece;              /* bytes in iov */
	unsigned iov_count;
	unsigned index;              /* deallocation: range */
	struct emu_cursor cursor;    /* cached write: in iov */
	uint64_t ticket;             /* cached read: its number; write-back: newest line that matters */
	uint64_t errors_before;      /* cache: failed write-backs before it began */
	struct timer timer;
	struct iovec iov[EMU_IOV_MAX];
	struct emu_io io;
	bool io_host;                /* io uses host memory */
};

/* ---- the drive ---- */
enum emu_event_kind { EMU_EVENT_ERROR, EMU_EVENT_SMART, EMU_EVENT_NOTICE, EMU_EVENT_KINDS };
enum { EMU_ERROR_DOORBELL_VALUE = 1 }; /* information of EMU_EVENT_ERROR */
struct emu_counters {
	uint64_t read_commands, write_commands, read_sectors, written_sectors, power_cycles, unsafe_shutdowns,
		media_errors;
};
struct emu {
	struct poller poller;
	struct reactor *reactor;
	struct emu_options options;  /* with the defaults filled in */
	struct emu_backing backing;
	char name[64], serial[21];
	enum emu_state state;
	struct emu_port *port;       /* NULL while out */
	volatile uint8_t *bar;       /* the model's mapping; NULL as soon as it must not be touched */
	unsigned seen_writes;
	bool announced;              /* asleep was set */
	bool polling;                /* inside the poller: interrupts are sent at its end */
	struct fiber_cond settled;   /* state has left EMU_LEAVING or EMU_CUTTING */
	const uint8_t *window;       /* where DMA may go; NULL: anywhere */
	uint64_t window_bytes;

	/* registers */
	uint32_t cc;
	bool ready;                  /* CSTS.RDY; stays when the controller becomes fatal */
	bool shutting_down, shut_down;
	struct timer ready_timer;

	/* queues; index: identifier */
	struct emu_sq *sqs;
	struct emu_cq *cqs;
	uint16_t io_sqs[EMU_QUEUES_MAX]; /* those that exist */
	unsigned io_sq_count, io_sq_next;
	unsigned cqs_waiting;        /* completion queues with waiting commands */
	uint32_t *shadow, *event_index; /* shadow doorbells in host memory; NULL: none */

	/* commands */
	struct emu_command *pool;
	struct cds_list_head free, admin_free, used;
	unsigned backing_ios, host_ios;
	struct emu_command own;      /* for flushes that no command asked for */
	bool saved;                  /* leaving: the last flush has been sent */
	struct emu_cache *cache;     /* NULL: none */
	uint64_t cut_random, rule_random;
	uint64_t rule_seen[EMU_RULES_MAX]; /* matches so far */

	/* features, defaults after each reset */
	unsigned queues_granted;
	bool cache_on;
	uint32_t event_config;

	/* events and logs */
	struct cds_list_head event_requests; /* emu_command.wait */
	uint32_t event[EMU_EVENT_KINDS];     /* dw0; 0: none */
	bool event_masked[EMU_EVENT_KINDS];  /* told, and its log not read since */
	uint8_t critical_warning;
	uint64_t changed_ns;                 /* bit nsid - 1 */
	struct nvme_log_error errors[EMU_ERRORS_MAX]; /* a ring */
	uint64_t error_count, created_ns;

	struct emu_ns ns[EMU_NAMESPACES_MAX];
	struct emu_counters counters;
	struct emu_stats stats;
	uint8_t page[EMU_PAGE];      /* what an admin command sends to the host is built here */
};

/* ---- emu.c ---- */
/* Looks whether a reset, pull or power cut can go on; after everything that ends backing I/O. */
void emu_settle(struct emu *emu);
/* Stops at once and pulls as soon as host memory is out of use. */
void emu_leave(struct emu *emu);

/* ---- emu_registers.c ---- */
static inline uint32_t emu_bar_load(const struct emu *emu, uint32_t at)
{
	return le32toh(__atomic_load_n((const uint32_t *)(uintptr_t)(emu->bar + at), __ATOMIC_ACQUIRE));
}
static inline void emu_bar_store(struct emu *emu, uint32_t at, uint32_t value)
{
	__atomic_store_n((uint32_t *)(uintptr_t)(emu->bar + at), htole32(value), __ATOMIC_RELEASE);
}
/* As after power-on. */
void emu_registers_init(struct emu *emu);
unsigned emu_registers_poll(struct emu *emu);
void emu_fatal(struct emu *emu);
void emu_reset_finish(struct emu *emu);

/* ---- emu_queue.c ---- */
int emu_queues_init(struct emu *emu) MUST_CHECK;
void emu_queues_fini(struct emu *emu);
/* All of them cease to exist. */
void emu_queues_clear(struct emu *emu);
struct emu_queue_setup {
	uint16_t id, cq_id, vector;
	uint32_t entries;
	bool interrupts;
	void *ring;
};
int emu_sq_create(struct emu *emu, const struct emu_queue_setup *setup) MUST_CHECK; /* -ENOMEM */
void emu_sq_delete(struct emu_sq *sq);
void emu_cq_create(struct emu *emu, const struct emu_queue_setup *setup);
void emu_cq_delete(struct emu_cq *cq);
/* Puts the completion into the queue, or lets the command wait for room. */
void emu_cq_push(struct emu_command *command, uint16_t status);
unsigned emu_queues_poll(struct emu *emu);
/* Doorbells that the poller has not seen; before sleeping. */
bool emu_queues_news(struct emu *emu);
/* The interrupts of queues that have new completions. */
void emu_queues_signal(struct emu *emu);
void emu_shadow_config(struct emu *emu, void *shadow, void *event_index);

/* ---- emu_command.c ---- */
int emu_commands_init(struct emu *emu) MUST_CHECK;
void emu_commands_fini(struct emu *emu);
struct emu_command *emu_command_get(struct emu *emu, bool admin);
void emu_command_free(struct emu_command *command);
void emu_command_start(struct emu_command *command);
void emu_command_complete(struct emu_command *command, uint16_t status);
void emu_command_delay(struct emu_command *command, uint64_t delay_ns, void (*resume)(struct emu_command *));
/* The command's io: resume is called with io.result. Bytes of the medium; @host: on command->iov. */
void emu_command_backing(struct emu_command *command, enum emu_op op, uint64_t offset, uint64_t length, bool host);
/* Takes it back with this status, if it has not begun or is stuck (@hard: even so). */
bool emu_command_abort(struct emu_command *command, bool hard, uint16_t status);
struct emu_command *emu_command_find(struct emu *emu, uint16_t sq_id, uint16_t cid);
void emu_commands_drop(struct emu *emu);
uint16_t emu_status_of(int error, bool write);

/* ---- emu_dma.c ---- */
/* Host memory behind an address of the bus; NULL: there is none. */
void *emu_dma_pointer(const struct emu *emu, uint64_t address, uint64_t size);
/* For tests: DMA beyond these bytes is a transfer error, as behind an IOMMU. */
void emu_dma_window(struct emu *emu, const void *start, uint64_t size);
/* A page-aligned address in a command. */
uint16_t emu_dma_page(const struct emu *emu, uint64_t address, uint64_t size, void **out) MUST_CHECK;
uint16_t emu_prp_begin(struct emu_command *command, uint64_t length) MUST_CHECK;
/* The next piece into iov: all that is left, or as much as fits in multiples of @granularity (power of two). */
uint16_t emu_prp_fill(struct emu_command *command, uint32_t granularity) MUST_CHECK;
/* Between iov and @buffer; NULL: only moves on. */
void emu_iov_copy(const struct emu_command *command, struct emu_cursor *cursor, void *buffer, size_t size,
	bool to_host);
/* @size bytes of @data and zeroes up to @length go to the host. */
uint16_t emu_dma_send(struct emu_command *command, const void *data, size_t size, uint64_t length) MUST_CHECK;

/* ---- emu_admin.c, emu_identify.c, emu_log.c, emu_io.c ---- */
void emu_admin_execute(struct emu_command *command);
void emu_identify(struct emu_command *command);
struct emu_ns *emu_ns_get(struct emu *emu, uint32_t nsid); /* NULL: no such namespace, attached or not */
void emu_log_init(struct emu *emu);
void emu_log_read(struct emu_command *command);
void emu_error_record(const struct emu_command *command, uint16_t status);
void emu_event_request(struct emu_command *command);
/* Tells the host, at once or when it asks; not again before it has read the log. */
void emu_event_raise(struct emu *emu, enum emu_event_kind kind, uint8_t information);
void emu_events_forget(struct emu *emu);
void emu_io_execute(struct emu_command *command);
/* All that was written before is made durable; then flushed. */
void emu_flush_run(struct emu_command *command, void (*flushed)(struct emu_command *, int));

/* ---- emu_cache.c, emu_cached_io.c ---- */
int emu_cache_init(struct emu *emu) MUST_CHECK; /* -ENOMEM */
void emu_cache_fini(struct emu *emu);
/* The power is gone. What options.cut lets survive stays dirty, and is written by emu_cache_drained, which says
 * when. */
void emu_cache_cut(struct emu *emu);
bool emu_cache_drained(struct emu *emu);
/* Frees what no read needs any more, after one has come back. */
void emu_cache_reclaim(struct emu *emu);
uint64_t emu_cache_bytes(const struct emu *emu);       /* dirty */
uint64_t emu_cache_absorbs_max(const struct emu *emu); /* longest Write Zeroes that goes into the cache */
/* Steps of commands. Each ends with finish, or completes the command. */
void emu_cache_read(struct emu_command *command, void (*finish)(struct emu_command *, int));
void emu_cache_write(struct emu_command *command, void (*finish)(struct emu_command *, int));
/* All that is dirty now goes to the medium; the command's range does; nothing of its range stays in the cache. */
void emu_cache_write_back(struct emu_command *command, void (*finish)(struct emu_command *, int));
void emu_cache_range_clean(struct emu_command *command, void (*finish)(struct emu_command *, int));
void emu_cache_range_empty(struct emu_command *command, void (*finish)(struct emu_command *, int));

/* ---- emu_rules.c ---- */
void emu_random_seed(struct emu *emu, uint64_t seed);
/* The rule that acts on the command now, or NULL. */
const struct emu_rule *emu_rule_match(const struct emu_command *command);
bool emu_rule_not_ready(struct emu *emu);

/* xorshift64*: the state is never zero. */
static inline uint64_t emu_random(uint64_t *state)
{
	*state ^= *state >> 12;
	*state ^= *state << 25;
	*state ^= *state >> 27;
	return *state * 0x2545f4914f6cdd1d;
}

#endif
