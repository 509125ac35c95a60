/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Inside the journal: the log on reactor 0 and the streams of the owners.
 *
 * | what                    | file                 | runs on                         |
 * | owner's end, credits    | journal_stream.c     | the owner                       |
 * | arrival, space, start   | journal.c            | reactor 0 (messages)            |
 * | cut and group commit    | journal_commit.c     | reactor 0, one fiber            |
 * | checkpoint, state block | journal_checkpoint.c | reactor 0, one fiber            |
 * | replay                  | journal_replay.c     | reactor 0, while mounting       |
 *
 * Space: capacity = used (groups between tail and head) + pending (parts that arrived and wait for a group) + granted
 * (credit at the owners and reservations of running transactions) + free.
 */
#ifndef LANEFS_FS_JOURNAL_INTERNAL_H
#define LANEFS_FS_JOURNAL_INTERNAL_H

#include "fs/journal.h"
#include "fs/tx.h"

enum {
	JOURNAL_GROUP_BYTES_GOAL = 1 << 20, /* a group is larger only when transactions of several owners hang together */
	JOURNAL_GROUP_PARTS_GOAL = 2048,
	JOURNAL_TX_BUCKETS = 1024,
	JOURNAL_CREDIT_BATCH = 256 << 10,
};

/* What the log tells an owner: how far its stream is durable and home. One in flight; newer values wait for its return. */
struct note {
	struct message message;
	struct owner *owner;
	uint64_t durable_number, home_number, durable_sequence;
	bool in_flight;                 /* log's */
};

struct credit_request {
	struct message message;
	struct cds_list_head node;      /* log's line */
	struct owner *owner;
	uint32_t wanted;
	uint32_t granted;
	bool in_flight;                 /* owner's */
};

/* Credit on its way back to the log. */
struct credit_return {
	struct message message;
	struct owner *owner;
	uint32_t bytes;
	atomic_bool in_flight;          /* set by the owner, cleared by the log */
};

/* A wish that needs no answer; sent again only after it has arrived. */
struct wish {
	struct message message;
	struct owner *owner;
	atomic_bool in_flight;
};

struct credit_waiter {
	struct cds_list_head node;
	struct fiber *fiber;
	uint32_t bytes;
	bool granted;
};

struct stream {
	struct owner *owner;
	uint64_t next_number, durable_number, home_number, durable_sequence;
	uint32_t credit;
	struct cds_list_head waiters;   /* struct credit_waiter, in order */
	struct credit_request request;
	struct credit_return give_back;
	struct wish want_commit, want_checkpoint, stop, recall;
	struct fiber_cond progress;     /* durable or home number rose, or the filesystem stopped */
	struct journal_part *free_parts[2]; /* by size class */
	struct journal_part *all_parts;
};

struct sync_request {
	struct message message;
	struct cds_list_head node;
	struct owner *owner;
	struct fiber *fiber;
	uint64_t stamp, arrival;        /* log: event number of this request, last part that had arrived */
	int result;
	bool done;
};

struct log_stream {
	struct journal_part *head, **tail; /* arrived, in no group yet */
	uint64_t closed_number;         /* last part that is in a group */
	uint64_t durable_number, home_number;
	struct note note;
};

/* What the next group takes of each stream. */
struct cut {
	unsigned taken[REACTOR_COUNT_MAX]; /* per stream: so many parts from its head; more may arrive behind them meanwhile */
	unsigned parts;
	uint64_t bytes;                 /* of the group */
	bool multiple;                  /* has parts of transactions of several owners */
};

/* Where a checkpoint moves the tail to: behind this group; parts of each stream in front of it. */
struct target {
	uint64_t head_block, sequence;
	uint32_t crc;
	uint64_t through[REACTOR_COUNT_MAX];
};

struct journal {
	struct fs *fs;
	struct owner *owner;            /* 0 */
	uint64_t ring_first, ring_blocks;
	uint64_t capacity, used, pending, granted;
	uint64_t head_block, next_sequence;
	uint32_t previous_crc;
	uint64_t tail_block, tail_sequence;
	uint32_t tail_crc;
	uint64_t durable_sequence, durable_head_block;
	uint64_t last_group_block, durable_group_block; /* where the groups begin; once there are some */
	uint32_t durable_crc;
	uint64_t arrivals, events, flushed_events, flushed_arrivals;
	uint64_t oldest_pending_ns;
	uint32_t group_bytes_goal;
	uint64_t group_buffer_bytes;
	uint8_t *group_buffer;          /* DMA */
	struct journal_part *tx_buckets[JOURNAL_TX_BUCKETS]; /* parts of several owners that are in no group yet, by tx_id */
	struct log_stream *streams;     /* per owner */
	struct cds_list_head syncs;     /* struct sync_request */
	struct cds_list_head credit_line;
	atomic_bool tight;              /* somebody waits for credit: owners give idle credit back */
	struct fiber_cond commit_work, checkpoint_work, idle;
	bool running;                   /* journal_run until journal_finish */
	uint64_t groups_before;         /* stats.groups of earlier runs */
	bool want_commit, want_checkpoint, ending;
	bool noted;                     /* an error in state that is to be written */
	bool commit_running, checkpoint_running;
	struct fiber_start commit_start, checkpoint_start;
	uint64_t checkpoints_done, checkpoints_asked;
	struct target target_memory;    /* the checkpoint fiber's */
	uint64_t lines;                 /* drawn since mount */
	bool line_drawn;                /* no group may contain parts from both sides of target_memory.through */
	struct cut cut_memory;          /* the commit fiber's */
	struct fs_state state;          /* last written, or being written */
	uint64_t state_generation;      /* of the last one that was written durably */
	uint8_t *state_buffer;
	struct { uint64_t groups, group_bytes, flushes, checkpoints; } stats;
};

static inline uint64_t journal_free(const struct journal *journal)
{
	return journal->capacity - journal->used - journal->pending - journal->granted;
}
/* On reactor 0. */
void journal_part_arrived(struct message *message);
void journal_credit_requested(struct message *message);
void journal_credit_returned(struct message *message);
void journal_sync_requested(struct message *message);
void journal_commit_wished(struct message *message);
void journal_checkpoint_wished(struct message *message);
void journal_grant(struct journal *journal);
void journal_notify(struct journal *journal);
void journal_commit_main(void *arg);
void journal_checkpoint_main(void *arg);
/* Everything in front of the line is durable: the tail may go there once it is home. */
void journal_line_reached(struct journal *journal);
void journal_answer_syncs(struct journal *journal);
/* FLUSH on the log's channel, unless the device has no volatile cache; notes which events it covers. */
MAY_WAIT int journal_flush(struct journal *journal) MUST_CHECK;
/* Writes journal->state (generation raised, tail and counters filled in) durably. */
MAY_WAIT int state_write(struct journal *journal) MUST_CHECK;
/* On an owner. */
void stream_note_arrived(struct message *message);
void stream_credit_granted(struct message *message);
void stream_sync_answered(struct message *message);
void stream_part_returned(struct message *message);
void stream_recall(struct message *message);
void stream_stop(struct message *message);

#endif
