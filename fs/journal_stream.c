/* SPDX-License-Identifier: BSD-3-Clause */
/* An owner's end of the log: credit, parts, and waiting for what it sent to be durable. */
#include <stdlib.h>

#include "fs/alloc.h"
#include "fs/journal_internal.h"

static const uint32_t part_class_bytes[] = {8 * JOURNAL_BLOCK_COST, TX_PINS_MAX * JOURNAL_BLOCK_COST};

int stream_create(struct owner *owner)
{
	struct stream *stream = calloc(1, sizeof(*stream));
	if (!stream)
		return -ENOMEM;
	owner->stream = stream;
	stream->owner = owner;
	stream->next_number = 1;
	CDS_INIT_LIST_HEAD(&stream->waiters);
	fiber_cond_init(&stream->progress);
	stream->request.owner = stream->give_back.owner = owner;
	stream->want_commit.owner = stream->want_checkpoint.owner = stream->stop.owner = stream->recall.owner = owner;
	return 0;
}

void stream_destroy(struct owner *owner)
{
	struct stream *stream = owner->stream;
	if (!stream)
		return;
	while (stream->all_parts) {
		struct journal_part *part = stream->all_parts;
		stream->all_parts = part->all_next;
		free(part->records);
		free(part);
	}
	free(stream);
	owner->stream = NULL;
}

static struct reactor *log_reactor(const struct owner *owner) { return owner->fs->owners[0]->reactor; }

static int stop_error(const struct owner *owner)
{
	const int error = fs_may_change(owner->fs);
	return error ? error : -EIO;
}

/* ---- credit ---- */

/* The first waiter's shortage; the log adds what it can spare. */
static void request_credit(struct stream *stream)
{
	if (stream->request.in_flight || cds_list_empty(&stream->waiters))
		return;
	const struct credit_waiter *first = cds_list_first_entry(&stream->waiters, struct credit_waiter, node);
	if (first->bytes <= stream->credit)
		return;
	stream->request.in_flight = true;
	stream->request.wanted = first->bytes - stream->credit;
	stream->request.message.fn = journal_credit_requested;
	reactor_send(log_reactor(stream->owner), &stream->request.message);
}

static void serve_waiters(struct stream *stream)
{
	while (!cds_list_empty(&stream->waiters)) {
		struct credit_waiter *first = cds_list_first_entry(&stream->waiters, struct credit_waiter, node);
		if (first->bytes > stream->credit)
			break;
		stream->credit -= first->bytes;
		first->granted = true;
		cds_list_del(&first->node);
		fiber_wake(first->fiber);
	}
	request_credit(stream);
}

int journal_reserve(struct owner *owner, uint32_t bytes)
{
	struct stream *stream = owner->stream;
	const int error = fs_may_change(owner->fs);
	if (error)
		return error;
	if (cds_list_empty(&stream->waiters) && stream->credit >= bytes) {
		stream->credit -= bytes;
		return 0;
	}
	struct credit_waiter waiter = {.fiber = fiber_self(), .bytes = bytes};
	cds_list_add_tail(&waiter.node, &stream->waiters);
	request_credit(stream);
	while (!waiter.granted && !fs_stopped(owner->fs))
		fiber_park("space in the journal");
	if (waiter.granted)
		return 0;
	cds_list_del(&waiter.node);
	return stop_error(owner);
}

static void give_credit_back(struct stream *stream, uint32_t keep)
{
	if (stream->credit <= keep || atomic_exchange(&stream->give_back.in_flight, true))
		return;
	stream->give_back.bytes = stream->credit - keep;
	stream->credit = keep;
	stream->give_back.message.fn = journal_credit_returned;
	reactor_send(log_reactor(stream->owner), &stream->give_back.message);
}

void journal_unreserve(struct owner *owner, uint32_t bytes)
{
	struct stream *stream = owner->stream;
	stream->credit += bytes;
	serve_waiters(stream);
	if (cds_list_empty(&stream->waiters))
		give_credit_back(stream, atomic_load_explicit(&owner->fs->journal->tight, memory_order_relaxed) ? 0
			: 2 * JOURNAL_CREDIT_BATCH);
}

void stream_credit_granted(struct message *message)
{
	struct stream *stream = CONTAINER_OF(message, struct credit_request, message)->owner->stream;
	stream->request.in_flight = false;
	stream->credit += stream->request.granted;
	stream->request.granted = 0;
	serve_waiters(stream);
}

/* Somebody else is first in the log's line: all idle credit goes back; our own request grows by it over there. */
void stream_recall(struct message *message)
{
	struct wish *wish = CONTAINER_OF(message, struct wish, message);
	struct stream *stream = wish->owner->stream;
	atomic_store(&wish->in_flight, false);
	give_credit_back(stream, 0);
}

/* ---- parts ---- */

struct journal_part *journal_part_get(struct owner *owner, uint32_t capacity)
{
	struct stream *stream = owner->stream;
	const unsigned class = capacity > part_class_bytes[0];
	struct journal_part *part = stream->free_parts[class];
	if (part) {
		stream->free_parts[class] = part->next;
	} else {
		part = calloc(1, sizeof(*part));
		if (!part)
			return NULL;
		part->capacity = part_class_bytes[class];
		part->owner = owner;
		part->records = malloc(part->capacity);
		if (!part->records) {
			free(part);
			return NULL;
		}
		part->all_next = stream->all_parts;
		stream->all_parts = part;
	}
	assert(capacity <= part->capacity);
	part->length = part->record_count = 0;
	part->maps_data = false;
	return part;
}

void journal_part_put(struct journal_part *part)
{
	struct stream *stream = part->owner->stream;
	const unsigned class = part->capacity > part_class_bytes[0];
	part->next = stream->free_parts[class];
	stream->free_parts[class] = part;
}

uint64_t stream_next_number(const struct owner *owner) { return owner->stream->next_number; }
uint64_t stream_durable_number(const struct owner *owner) { return owner->stream->durable_number; }
uint64_t stream_home_number(const struct owner *owner) { return owner->stream->home_number; }
uint64_t stream_durable_sequence(const struct owner *owner) { return owner->stream->durable_sequence; }

void journal_send(struct journal_part *part)
{
	part->number = part->owner->stream->next_number++;
	part->message.fn = journal_part_arrived;
	reactor_send(log_reactor(part->owner), &part->message);
	if (cache_dirty_high(part->owner))
		journal_want_checkpoint(part->owner);
}

void stream_part_returned(struct message *message)
{
	journal_part_put(CONTAINER_OF(message, struct journal_part, message));
}

/* ---- wishes and waiting ---- */

static void send_wish(struct wish *wish, struct reactor *to, void (*fn)(struct message *))
{
	if (atomic_exchange(&wish->in_flight, true))
		return;
	wish->message.fn = fn;
	reactor_send(to, &wish->message);
}

void journal_want_commit(struct owner *owner)
{
	send_wish(&owner->stream->want_commit, log_reactor(owner), journal_commit_wished);
}

void journal_want_checkpoint(struct owner *owner)
{
	send_wish(&owner->stream->want_checkpoint, log_reactor(owner), journal_checkpoint_wished);
}

void stream_note_arrived(struct message *message)
{
	struct note *note = CONTAINER_OF(message, struct note, message);
	struct stream *stream = note->owner->stream;
	stream->durable_number = note->durable_number;
	stream->home_number = note->home_number;
	stream->durable_sequence = note->durable_sequence;
	alloc_quarantine_release(note->owner);
	fiber_cond_broadcast(&stream->progress);
}

int journal_wait_part(struct owner *owner, uint64_t number)
{
	struct stream *stream = owner->stream;
	while (stream->durable_number < number) {
		if (fs_stopped(owner->fs))
			return stop_error(owner);
		journal_want_commit(owner);
		fiber_cond_wait(&stream->progress, "a journal group to be durable");
	}
	return 0;
}

void journal_wait_progress(struct owner *owner)
{
	if (!fs_stopped(owner->fs))
		fiber_cond_wait_for(&owner->stream->progress, 100 * NS_PER_MS, "the journal to go on");
}

void stream_sync_answered(struct message *message)
{
	struct sync_request *request = CONTAINER_OF(message, struct sync_request, message);
	request->done = true;
	fiber_wake(request->fiber);
}

int journal_sync(struct owner *owner)
{
	if (fs_stopped(owner->fs))
		return stop_error(owner);
	struct sync_request request = {.message.fn = journal_sync_requested, .owner = owner, .fiber = fiber_self()};
	reactor_send(log_reactor(owner), &request.message);
	while (!request.done)
		fiber_park("a sync");
	return request.result;
}

void stream_stop(struct message *message)
{
	struct stream *stream = CONTAINER_OF(message, struct wish, message)->owner->stream;
	struct fs *fs = stream->owner->fs;
	fiber_cond_broadcast(&stream->progress);
	struct credit_waiter *waiter, *next;
	cds_list_for_each_entry_safe(waiter, next, &stream->waiters, node)
		fiber_wake(waiter->fiber);
	if (stream->owner->index == 0) {
		struct journal *journal = fs->journal;
		fiber_cond_broadcast(&journal->commit_work);
		fiber_cond_broadcast(&journal->checkpoint_work);
		fiber_cond_broadcast(&journal->idle);
		journal_answer_syncs(journal);
	}
	atomic_fetch_sub(&fs->stop_messages, 1);
}
