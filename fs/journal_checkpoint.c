/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Checkpoint: moves the tail. Take the position behind the last durable group; every owner writes home what has records in
 * front of it; FLUSH; state block with the new tail, durable; only then is the space in front of it free, and metadata blocks
 * freed by those groups may be used for something else.
 */
#include "fs/journal_internal.h"

static MAY_WAIT int state_write_tail(struct journal *journal, const struct target *tail)
{
	struct fs *fs = journal->fs;
	struct fs_state *state = &journal->state;
	/* Where the last attempt has failed it is made again: the other block may be the only good one. */
	const uint64_t generation = journal->state_generation + 1;
	const uint64_t block = generation & 1 ? FS_STATE_BLOCK_B : FS_STATE_BLOCK_A;
	state->generation = le64_set(generation);
	state->tail_block = le64_set(tail->head_block);
	state->tail_sequence = le64_set(tail->sequence + 1);
	state->tail_crc = le32_set(tail->crc);
	state->durable_sequence = le64_set(journal->durable_sequence);
	block_header_init(state, BLOCK_STATE, block, le64_get(fs->super.fsid), 0);
	memcpy(journal->state_buffer, state, sizeof(*state));
	block_seal(journal->state_buffer, journal->durable_sequence);
	const int error = bdev_write(journal->owner->channel, journal->state_buffer, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE,
		sabotage(SABOTAGE_LAZY_STATE) ? 0 : IO_FUA);
	if (error)
		return fs_stop(fs, error, block, "state block write failed");
	journal->state_generation = generation;
	return 0;
}

int state_write(struct journal *journal)
{
	struct target *tail = &journal->target_memory;
	*tail = (struct target){.head_block = journal->tail_block, .sequence = journal->tail_sequence - 1, .crc = journal->tail_crc};
	return state_write_tail(journal, tail);
}

static MAY_WAIT int home_run(void *arg) { return cache_home(arg); }

static MAY_WAIT int gate_close_run(void *arg)
{
	tx_gate_close(arg);
	return 0;
}

static int gate_open_run(void *arg)
{
	tx_gate_open(arg);
	return 0;
}

/* On an owner: the line goes behind what it has sent. */
static int line_run(void *arg)
{
	struct owner *owner = arg;
	cache_begin_epoch(owner);
	owner->fs->journal->target_memory.through[owner->index] = stream_next_number(owner) - 1;
	return 0;
}

/* Draws the line through all streams at one moment: no transaction has parts on both sides, since none is in its apply step.
 * Returns when everything in front of it is durable, with target_memory filled in. */
static MAY_WAIT int draw_line(struct journal *journal)
{
	struct fs *fs = journal->fs;
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call(fs->owners[i]->reactor, gate_close_run, fs->owners[i]);
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call_nowait(fs->owners[i]->reactor, line_run, fs->owners[i]);
	journal->line_drawn = true;
	journal->lines++;
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call_nowait(fs->owners[i]->reactor, gate_open_run, fs->owners[i]);
	journal_line_reached(journal);
	while (journal->line_drawn && !fs_stopped(fs)) {
		fiber_cond_signal(&journal->commit_work);
		fiber_cond_wait(&journal->idle, "groups up to the line");
	}
	return fs_stopped(fs) ? -EIO : 0;
}

static void tail_move(struct journal *journal, const struct target *target)
{
	const uint64_t blocks = (target->head_block + journal->ring_blocks - journal->tail_block) % journal->ring_blocks;
	journal->used -= blocks << FS_BLOCK_SHIFT;
	journal->tail_block = target->head_block;
	journal->tail_sequence = target->sequence + 1;
	journal->tail_crc = target->crc;
	for (unsigned i = 0; i < journal->fs->owner_count; i++)
		journal->streams[i].home_number = target->through[i];
}

/* One round: to a line drawn now. */
static MAY_WAIT int checkpoint(struct journal *journal)
{
	struct fs *fs = journal->fs;
	struct target *target = &journal->target_memory;
	int error = draw_line(journal);
	for (unsigned i = 0; i < fs->owner_count && !error; i++)
		error = reactor_call(fs->owners[i]->reactor, home_run, fs->owners[i]);
	if (!error && target->sequence + 1 == journal->tail_sequence)
		return 0;
	if (!error && !sabotage(SABOTAGE_NO_HOME_FLUSH))
		error = journal_flush(journal);
	if (error)
		return error;
	if (sabotage(SABOTAGE_EARLY_TAIL)) {
		tail_move(journal, target);
		journal_notify(journal);
		journal_grant(journal);
		fiber_sleep(2 * NS_PER_MS);
		error = state_write(journal);
	} else {
		/* The space is not free before the state block is durable. */
		error = state_write_tail(journal, target);
		if (!error)
			tail_move(journal, target);
	}
	if (error)
		return error;
	journal->stats.checkpoints++;
	journal_notify(journal);
	journal_grant(journal);
	return 0;
}

static bool checkpoint_due(const struct journal *journal)
{
	return journal->want_checkpoint || journal->used > journal->capacity / 2;
}

static void error_fill(struct journal *journal, int error, uint64_t block, const char *text)
{
	struct fs_state *state = &journal->state;
	state->error_code = le32_set((uint32_t)-error);
	state->error_count = le32_set(le32_get(state->error_count) + 1);
	state->error_sec = le64_set(reactor_wall_ns() / NS_PER_SEC);
	state->error_block = le64_set(block);
	memset(state->error_text, 0, sizeof(state->error_text));
	memcpy(state->error_text, text, strnlen(text, sizeof(state->error_text) - 1));
}

void journal_note_error(struct fs *fs, int error, const char *text)
{
	struct journal *journal = fs->journal;
	if (!journal->checkpoint_running || fs_stopped(fs))
		return;
	error_fill(journal, error, 0, text);
	journal->noted = true;
	fiber_cond_signal(&journal->checkpoint_work);
}

/* The filesystem has stopped: the state block says why, for status and fsck after the next mount. Tail and everything else
 * stay as they were. Not when the device is gone, when nothing may be written any more, or when it was the state block that
 * could not be written: the other one is all there is then. A failure changes nothing more. */
static MAY_WAIT void error_record(struct journal *journal)
{
	struct fs *fs = journal->fs;
	const int error = fs_stopped(fs);
	if (error == -ENODEV || fs->shut_down || sabotage(SABOTAGE_FORGETS_ERROR) || fs->error_block == FS_STATE_BLOCK_A ||
		fs->error_block == FS_STATE_BLOCK_B)
		return;
	error_fill(journal, error, fs->error_block, fs->error_text);
	if (state_write(journal))
		log_warn("%s: the error could not be recorded on the device", fs->bdev_name);
}

void journal_checkpoint_main(void *arg)
{
	struct journal *journal = arg;
	while (!fs_stopped(journal->fs)) {
		if (journal->noted) {
			journal->noted = false;
			if (state_write(journal))
				break;
			continue;
		}
		if (!checkpoint_due(journal)) {
			if (journal->ending)
				break;
			fiber_cond_wait(&journal->checkpoint_work, "work for the checkpoint");
			continue;
		}
		journal->want_checkpoint = false;
		const uint64_t asked = journal->checkpoints_asked;
		if (fs_stopped(journal->fs) || checkpoint(journal))
			break;
		journal->checkpoints_done = asked;
		fiber_cond_broadcast(&journal->idle);
	}
	if (fs_stopped(journal->fs))
		error_record(journal);
	journal->checkpoint_running = false;
	fiber_cond_broadcast(&journal->idle);
}

static MAY_WAIT int sync_run(void *arg) { return journal_sync(arg); }

static MAY_WAIT int checkpoint_all(void *arg)
{
	struct journal *journal = arg;
	/* What owners have sent may still be on its way to the log; a sync follows it there. */
	for (unsigned i = 0; i < journal->fs->owner_count; i++) {
		struct owner *owner = journal->fs->owners[i];
		const int error = reactor_call(owner->reactor, sync_run, owner);
		if (error)
			return error;
	}
	if (!journal->pending && journal->tail_sequence == journal->next_sequence)
		return 0;
	/* One round that begins after this: its line is behind all that. What others send meanwhile is not waited for. */
	const uint64_t ticket = ++journal->checkpoints_asked;
	journal->want_checkpoint = true;
	fiber_cond_signal(&journal->checkpoint_work);
	while (journal->checkpoints_done < ticket && journal->checkpoint_running && !fs_stopped(journal->fs))
		fiber_cond_wait_for(&journal->idle, 10 * NS_PER_MS, "a checkpoint");
	if (journal->checkpoints_done >= ticket)
		return 0;
	return fs_stopped(journal->fs) ? fs_stopped(journal->fs) : -EIO;
}

int journal_checkpoint(struct fs *fs)
{
	return reactor_call(fs->owners[0]->reactor, checkpoint_all, fs->journal);
}
