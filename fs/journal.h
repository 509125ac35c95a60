/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The journal: one ordered redo log, owned by reactor 0 (DESIGN section 7; doc/format.md for the bytes).
 *
 * Every owner has a stream: its transactions' parts, numbered 1, 2, ... in the order of their apply steps, sent to the
 * log in that order. The log closes groups: a consistent cut of the streams (a transaction of several owners is wholly
 * inside or outside), FLUSH if new data is mapped, one write, FLUSH. Then it tells every owner up to which part its
 * stream is durable. Checkpoint: owners write snapshots home, FLUSH, state block with the new tail, FLUSH; then the
 * space in front of the tail is free.
 *
 * Space: an operation reserves its worst case before it takes a lock (journal_reserve waits); what it does not use goes
 * back. Credits are held by owners in small batches, so that a reservation is mostly local.
 */
#ifndef LANEFS_FS_JOURNAL_H
#define LANEFS_FS_JOURNAL_H

#include "fs/fs_internal.h"

/* Bytes of log that one block may cost, and that one part may cost on top (header and rounding of a group). */
enum {
	JOURNAL_BLOCK_COST = FS_BLOCK_SIZE + sizeof(struct journal_record),
	JOURNAL_PART_COST = FS_BLOCK_SIZE + sizeof(struct journal_group),
	JOURNAL_TX_BLOCKS_MAX = 64,     /* blocks that one transaction may touch, all owners together */
	JOURNAL_TX_OWNERS_MAX = 8,      /* owners that one transaction may have */
	/* What the largest transaction reserves; a journal has room for two of them. */
	JOURNAL_RESERVATION_MAX = JOURNAL_TX_BLOCKS_MAX * JOURNAL_BLOCK_COST + JOURNAL_TX_OWNERS_MAX * JOURNAL_PART_COST,
};

/* Records of one owner's part of a transaction, from apply until the log has copied them. */
struct journal_part {
	struct message message;
	struct journal_part *next;      /* log: stream order; owner: free list */
	struct journal_part *all_next;  /* owner: every part that was made */
	struct journal_part *tx_next;   /* log: bucket of parts that have siblings */
	struct owner *owner;
	uint64_t number;                /* place in the stream */
	uint64_t tx_id;                 /* 0: the only part of its transaction */
	uint32_t tx_parts;
	uint64_t arrival;               /* log: order of arrival over all streams */
	uint64_t sequence;              /* group that took it */
	bool maps_data;                 /* maps blocks whose data was written just before: FLUSH first */
	uint32_t cost;                  /* reserved bytes that travel with it */
	uint32_t capacity, length, record_count; /* bytes; records */
	uint8_t *records;
};

/* ---- owner's side ---- */
int stream_create(struct owner *owner) MUST_CHECK;
void stream_destroy(struct owner *owner);
/* Reserves log bytes; waits for space with no lock held. -EROFS/-EIO when the filesystem stopped. */
MAY_WAIT int journal_reserve(struct owner *owner, uint32_t bytes) MUST_CHECK;
void journal_unreserve(struct owner *owner, uint32_t bytes);
/* A part with room for @capacity bytes of records, from the owner's pool. Not for apply steps. NULL: no memory. */
struct journal_part *journal_part_get(struct owner *owner, uint32_t capacity) MUST_CHECK;
void journal_part_put(struct journal_part *part);
/* Number that the next part will get; used by tx_dirty during apply. */
uint64_t stream_next_number(const struct owner *owner);
/* Gives the part its number and sends it. No wait. */
void journal_send(struct journal_part *part);
uint64_t stream_durable_number(const struct owner *owner);
/* Parks until part @number of this owner's stream is durable (asks for a commit). 0, or the sticky error. */
MAY_WAIT int journal_wait_part(struct owner *owner, uint64_t number) MUST_CHECK;
/* Everything that this owner sent, and all that reached the log from others, is durable, and data completed before the
 * call too: the whole of fsync. */
MAY_WAIT int journal_sync(struct owner *owner) MUST_CHECK;
/* Highest journal group that this owner knows to be durable. */
uint64_t stream_durable_sequence(const struct owner *owner);
/* Asks for a checkpoint (the cache is short of clean blocks, freed blocks are waited for). No wait. */
void journal_want_checkpoint(struct owner *owner);
/* Asks for a group commit, without waiting for it. */
void journal_want_commit(struct owner *owner);
/* Parks until the durable or the home number rose, or a while has passed. */
MAY_WAIT void journal_wait_progress(struct owner *owner);
/* When the home number rises, alloc releases metadata quarantine. */
uint64_t stream_home_number(const struct owner *owner); /* parts up to this one are in front of the tail */

/* ---- life cycle (reactor 0) ---- */
struct replay_result {
	uint64_t tail_block, next_sequence, durable_sequence, mount_generation;
	uint32_t previous_crc;
	bool was_clean;
	uint64_t groups, records, free_blocks, used_inodes;
	struct fs_state state;          /* the state block that counts */
};
/* Reads state blocks and ring, checks the chain, writes images home (or fills fs->overlay when read-only). */
MAY_WAIT int journal_replay(struct fs *fs, struct replay_result *out, char *message, size_t message_size) MUST_CHECK;
/* The log behind the replayed one; running, unless the mount is read-only. */
MAY_WAIT int journal_start(struct fs *fs, const struct replay_result *replay) MUST_CHECK;
/* Writes the state block (not clean, the next mount generation) and starts the log's fibers. */
MAY_WAIT int journal_run(struct fs *fs) MUST_CHECK;
/* Commits and checkpoints what was sent before the call; what is sent meanwhile is not waited for. */
MAY_WAIT int journal_checkpoint(struct fs *fs) MUST_CHECK;
/* Has an error that does not stop the filesystem recorded on the device, soon. Reactor 0; @text is static. */
void journal_note_error(struct fs *fs, int error, const char *text);
/* Everything home, state clean with totals (not with fs->leaves_unlinked), log fibers end (journal_run starts them again).
 * Returns the sticky error. Nothing may be changed any more; nothing happens when the log does not run. */
MAY_WAIT int journal_finish(struct fs *fs, uint64_t free_blocks, uint64_t used_inodes);
/* No note to an owner is on its way. Reactor 0, after journal_finish. */
bool journal_quiet(const struct fs *fs);
/* Before the owners' streams are destroyed, to which the parts belong. */
void journal_destroy(struct fs *fs);
/* The filesystem stopped: wakes every waiter with the error. Any reactor. */
void journal_stop(struct fs *fs);

#endif
