/* SPDX-License-Identifier: BSD-3-Clause */
/* The log on reactor 0: what arrives, space and credit, start and end. */
#include "fs/journal_internal.h"

#include <stdlib.h>

/* ---- arrivals (messages) ---- */

void journal_part_arrived(struct message *message)
{
	struct journal_part *part = CONTAINER_OF(message, struct journal_part, message);
	struct journal *journal = part->owner->fs->journal;
	struct log_stream *stream = &journal->streams[part->owner->index];
	part->arrival = ++journal->arrivals;
	journal->events++;
	part->next = NULL;
	*stream->tail = part;
	stream->tail = &part->next;
	if (!journal->pending)
		journal->oldest_pending_ns = reactor_now_ns();
	journal->pending += part->cost;
	journal->granted -= part->cost;
	if (part->tx_id) {
		struct journal_part **bucket = &journal->tx_buckets[part->tx_id % JOURNAL_TX_BUCKETS];
		part->tx_next = *bucket;
		*bucket = part;
	}
	/* Whoever waits for credit gets it only when what this part used is in front of the tail. */
	if (!cds_list_empty(&journal->credit_line)) {
		journal->want_checkpoint = true;
		fiber_cond_signal(&journal->checkpoint_work);
	}
	/* The commit fiber looks at what it waits for; it is woken when that may have come. */
	fiber_cond_signal(&journal->commit_work);
}

void journal_sync_requested(struct message *message)
{
	struct sync_request *request = CONTAINER_OF(message, struct sync_request, message);
	struct journal *journal = request->owner->fs->journal;
	request->stamp = ++journal->events;
	request->arrival = journal->arrivals;
	cds_list_add_tail(&request->node, &journal->syncs);
	if (fs_stopped(journal->fs))
		journal_answer_syncs(journal);
	else
		fiber_cond_signal(&journal->commit_work);
}

void journal_commit_wished(struct message *message)
{
	struct wish *wish = CONTAINER_OF(message, struct wish, message);
	struct journal *journal = wish->owner->fs->journal;
	atomic_store(&wish->in_flight, false);
	journal->want_commit = true;
	fiber_cond_signal(&journal->commit_work);
}

void journal_checkpoint_wished(struct message *message)
{
	struct wish *wish = CONTAINER_OF(message, struct wish, message);
	struct journal *journal = wish->owner->fs->journal;
	atomic_store(&wish->in_flight, false);
	journal->want_checkpoint = true;
	fiber_cond_signal(&journal->checkpoint_work);
}

/* Everything a request waits for is durable: no part that arrived before it waits for a group, and a FLUSH was sent after
 * it came. The commit fiber calls this when its group (if any) is durable, so parts in groups are. */
static bool sync_satisfied(const struct journal *journal, const struct sync_request *request)
{
	if (sabotage(SABOTAGE_EARLY_SYNC))
		return true;
	for (unsigned i = 0; i < journal->fs->owner_count; i++)
		if (journal->streams[i].head && journal->streams[i].head->arrival <= request->arrival)
			return false;
	return request->stamp <= journal->flushed_events;
}

void journal_answer_syncs(struct journal *journal)
{
	const int stopped = fs_stopped(journal->fs);
	struct sync_request *request, *next;
	cds_list_for_each_entry_safe(request, next, &journal->syncs, node) {
		if (!stopped && !sync_satisfied(journal, request))
			continue;
		cds_list_del(&request->node);
		request->result = stopped ? -EIO : 0;
		request->message.fn = stream_sync_answered;
		reactor_send(request->owner->reactor, &request->message);
	}
}

/* ---- space ---- */

static void recall_from_others(struct journal *journal, const struct owner *first)
{
	for (unsigned i = 0; i < journal->fs->owner_count; i++) {
		struct owner *owner = journal->fs->owners[i];
		struct wish *recall = &owner->stream->recall;
		if (owner == first || atomic_exchange(&recall->in_flight, true))
			continue;
		recall->message.fn = stream_recall;
		reactor_send(owner->reactor, &recall->message);
	}
}

void journal_grant(struct journal *journal)
{
	while (!cds_list_empty(&journal->credit_line)) {
		struct credit_request *request = cds_list_first_entry(&journal->credit_line, struct credit_request, node);
		const uint64_t free = journal_free(journal);
		if (free < request->wanted) {
			atomic_store(&journal->tight, true);
			recall_from_others(journal, request->owner);
			journal->want_checkpoint = true;
			fiber_cond_signal(&journal->checkpoint_work);
			return;
		}
		cds_list_del(&request->node);
		const uint64_t spare = (free - request->wanted) / 4 / journal->fs->owner_count;
		request->granted = request->wanted + (uint32_t)MIN(spare, (uint64_t)JOURNAL_CREDIT_BATCH);
		journal->granted += request->granted;
		request->message.fn = stream_credit_granted;
		reactor_send(request->owner->reactor, &request->message);
	}
	atomic_store(&journal->tight, false);
}

void journal_credit_requested(struct message *message)
{
	struct credit_request *request = CONTAINER_OF(message, struct credit_request, message);
	struct journal *journal = request->owner->fs->journal;
	cds_list_add_tail(&request->node, &journal->credit_line);
	journal_grant(journal);
}

void journal_credit_returned(struct message *message)
{
	struct credit_return *give_back = CONTAINER_OF(message, struct credit_return, message);
	struct journal *journal = give_back->owner->fs->journal;
	journal->granted -= give_back->bytes;
	/* An owner that waits in line counted on this credit. It never needs more than the largest reservation at once, and may
	 * have served its waiters meanwhile: asking for more could be asking for what there will never be. */
	struct credit_request *request;
	cds_list_for_each_entry(request, &journal->credit_line, node)
		if (request->owner == give_back->owner)
			request->wanted = MIN(request->wanted + give_back->bytes, (uint32_t)JOURNAL_RESERVATION_MAX);
	atomic_store(&give_back->in_flight, false);
	journal_grant(journal);
}

/* ---- notes to the owners ---- */

static void note_returned(struct message *message);

static void note_arrived(struct message *message)
{
	struct note *note = CONTAINER_OF(message, struct note, message);
	stream_note_arrived(message);
	message->fn = note_returned;
	reactor_send(note->owner->fs->owners[0]->reactor, message);
}

static void note_send(struct journal *journal, unsigned index)
{
	struct log_stream *stream = &journal->streams[index];
	struct note *note = &stream->note;
	if (note->in_flight || (note->durable_number == stream->durable_number && note->home_number == stream->home_number &&
		note->durable_sequence == journal->durable_sequence))
		return;
	note->in_flight = true;
	note->durable_number = stream->durable_number;
	note->home_number = stream->home_number;
	note->durable_sequence = journal->durable_sequence;
	note->message.fn = note_arrived;
	reactor_send(note->owner->reactor, &note->message);
}

static void note_returned(struct message *message)
{
	struct note *note = CONTAINER_OF(message, struct note, message);
	note->in_flight = false;
	note_send(note->owner->fs->journal, note->owner->index);
}

void journal_notify(struct journal *journal)
{
	for (unsigned i = 0; i < journal->fs->owner_count; i++)
		note_send(journal, i);
}

/* ---- life ---- */

int journal_flush(struct journal *journal)
{
	const uint64_t events = journal->events, arrivals = journal->arrivals;
	int error = 0;
	if (journal->fs->volatile_cache) {
		journal->stats.flushes++;
		error = bdev_flush(journal->owner->channel);
	}
	if (error && !sabotage(SABOTAGE_IGNORES_FLUSH_ERROR))
		return fs_stop(journal->fs, error, 0, "FLUSH failed");
	const bool late = sabotage(SABOTAGE_LATE_FLUSH_COUNTS);
	journal->flushed_events = MAX(journal->flushed_events, late ? journal->events : events);
	journal->flushed_arrivals = MAX(journal->flushed_arrivals, late ? journal->arrivals : arrivals);
	return 0;
}

static int journal_create(struct fs *fs)
{
	struct journal *journal = calloc(1, sizeof(*journal));
	if (!journal)
		return -ENOMEM;
	fs->journal = journal;
	journal->fs = fs;
	journal->owner = fs->owners[0];
	journal->ring_first = le64_get(fs->super.journal_first);
	journal->ring_blocks = le64_get(fs->super.journal_blocks);
	journal->capacity = (journal->ring_blocks - 1) << FS_BLOCK_SHIFT; /* head never meets tail */
	journal->group_bytes_goal = (uint32_t)MIN((uint64_t)JOURNAL_GROUP_BYTES_GOAL, align_down(journal->capacity / 2, FS_BLOCK_SIZE));
	journal->group_buffer_bytes = journal->group_bytes_goal;
	journal->group_buffer = dma_alloc(journal->group_buffer_bytes, FS_BLOCK_SIZE);
	journal->state_buffer = dma_alloc(FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	journal->streams = calloc(fs->owner_count, sizeof(*journal->streams));
	CDS_INIT_LIST_HEAD(&journal->syncs);
	CDS_INIT_LIST_HEAD(&journal->credit_line);
	fiber_cond_init(&journal->commit_work);
	fiber_cond_init(&journal->checkpoint_work);
	fiber_cond_init(&journal->idle);
	if (!journal->group_buffer || !journal->state_buffer || !journal->streams)
		return -ENOMEM;
	for (unsigned i = 0; i < fs->owner_count; i++) {
		journal->streams[i].tail = &journal->streams[i].head;
		journal->streams[i].note.owner = fs->owners[i];
	}
	return 0;
}

int journal_start(struct fs *fs, const struct replay_result *replay)
{
	int error = journal_create(fs);
	if (error)
		return error;
	struct journal *journal = fs->journal;
	journal->head_block = journal->tail_block = journal->durable_head_block = replay->tail_block;
	journal->next_sequence = journal->tail_sequence = replay->next_sequence;
	journal->previous_crc = journal->tail_crc = journal->durable_crc = replay->previous_crc;
	journal->durable_sequence = replay->next_sequence - 1;
	for (unsigned i = 0; i < fs->owner_count; i++)
		fs->owners[i]->stream->durable_sequence = journal->durable_sequence;
	journal->state = replay->state;
	journal->state_generation = le64_get(replay->state.generation);
	return fs_read_only(fs) ? 0 : journal_run(fs);
}

int journal_run(struct fs *fs)
{
	struct journal *journal = fs->journal;
	journal->state.clean = le32_set(0);
	if (!sabotage(SABOTAGE_SAME_GENERATION))
		journal->state.mount_generation = le64_set(le64_get(journal->state.mount_generation) + 1);
	const int error = state_write(journal);
	if (error)
		return error;
	journal->running = true;
	journal->ending = journal->want_commit = journal->want_checkpoint = false;
	journal->groups_before = journal->stats.groups;
	journal->commit_running = journal->checkpoint_running = true;
	journal->commit_start = (struct fiber_start){.fn = journal_commit_main, .arg = journal, .name = "journal commit"};
	journal->checkpoint_start = (struct fiber_start){.fn = journal_checkpoint_main, .arg = journal, .name = "checkpoint"};
	fiber_start(&journal->commit_start);
	fiber_start(&journal->checkpoint_start);
	return 0;
}

void journal_stop(struct fs *fs)
{
	if (!fs->journal)
		return;
	for (unsigned i = 0; i < fs->owner_count; i++) {
		struct owner *owner = fs->owners[i];
		struct wish *stop = &owner->stream->stop;
		if (atomic_exchange(&stop->in_flight, true))
			continue;
		stop->message.fn = stream_stop;
		atomic_fetch_add(&fs->stop_messages, 1);
		if (reactor_self())
			reactor_send(owner->reactor, &stop->message);
		else
			reactor_send_foreign(owner->reactor, &stop->message);
	}
}

bool journal_quiet(const struct fs *fs)
{
	const struct journal *journal = fs->journal;
	if (!journal || !journal->streams)
		return true;
	for (unsigned i = 0; i < fs->owner_count; i++)
		if (journal->streams[i].note.in_flight)
			return false;
	return true;
}

int journal_finish(struct fs *fs, uint64_t free_blocks, uint64_t used_inodes)
{
	struct journal *journal = fs->journal;
	const bool running = journal->running;
	int error = running ? journal_checkpoint(fs) : 0;
	journal->ending = true;
	fiber_cond_broadcast(&journal->commit_work);
	fiber_cond_broadcast(&journal->checkpoint_work);
	while (journal->commit_running || journal->checkpoint_running)
		fiber_cond_wait(&journal->idle, "the log's fibers to end");
	journal->running = false;
	if (error || !running || fs_stopped(fs) || fs->leaves_unlinked)
		return error ? error : fs_stopped(fs);
	assert(!journal->pending && journal->tail_sequence == journal->next_sequence);
	journal->state.clean = le32_set(1);
	journal->state.free_blocks = le64_set(free_blocks);
	journal->state.used_inodes = le64_set(used_inodes);
	return state_write(journal);
}

void journal_destroy(struct fs *fs)
{
	struct journal *journal = fs->journal;
	if (!journal)
		return;
	if (journal->group_buffer)
		dma_free(journal->group_buffer);
	if (journal->state_buffer)
		dma_free(journal->state_buffer);
	free(journal->streams);
	free(journal);
	fs->journal = NULL;
}
