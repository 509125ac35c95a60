/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Group commit: one fiber that closes groups, one after the other.
 *
 * The cut. Parts are taken in order of arrival while they fit; then streams are shortened until every transaction of several
 * owners is wholly inside or wholly outside: a transaction with a part missing (not arrived, or behind another cut) takes
 * with it only what its owners sent after it. Transactions that overlap on several owners hang together; when so many do that
 * a group of the usual size cannot hold them, the group is as large as it must be (its space in the ring is reserved).
 *
 * The order. FLUSH, if a part maps data that was written since the last FLUSH was sent; the group, in one write; FLUSH; only
 * then is it durable: owners are told, syncs are answered. The FLUSH after a group counts as the one before the next for
 * whatever had arrived when it was sent.
 */
#include <limits.h>

#include "fs/journal_internal.h"

/* While a checkpoint's line is drawn, no group reaches over it: the part, or NULL. */
static const struct journal_part *in_front_of_line(const struct journal *journal, const struct journal_part *part)
{
	return part && journal->line_drawn && part->number > journal->target_memory.through[part->owner->index] ? NULL : part;
}

static void cut_begin(const struct journal *journal, struct cut *cut, uint64_t bytes_max, unsigned parts_max)
{
	*cut = (struct cut){.bytes = sizeof(struct journal_group)};
	const struct journal_part *next[REACTOR_COUNT_MAX];
	for (unsigned i = 0; i < journal->fs->owner_count; i++)
		next[i] = in_front_of_line(journal, journal->streams[i].head);
	while (cut->parts < parts_max) {
		const struct journal_part *part = NULL;
		for (unsigned i = 0; i < journal->fs->owner_count; i++)
			if (next[i] && (!part || next[i]->arrival < part->arrival))
				part = next[i];
		if (!part || cut->bytes + part->length > bytes_max)
			break;
		cut->bytes += part->length;
		cut->parts++;
		cut->multiple |= part->tx_id != 0;
		cut->taken[part->owner->index]++;
		next[part->owner->index] = in_front_of_line(journal, part->next);
	}
}

/* Parts of @tx_id inside the cut. The numbers of a stream's parts have no gaps. */
static unsigned parts_inside(const struct journal *journal, const struct cut *cut, uint64_t tx_id)
{
	unsigned count = 0;
	for (const struct journal_part *part = journal->tx_buckets[tx_id % JOURNAL_TX_BUCKETS]; part; part = part->tx_next) {
		const unsigned i = part->owner->index;
		count += part->tx_id == tx_id && part->number < journal->streams[i].head->number + cut->taken[i];
	}
	return count;
}

static bool shorten(const struct journal *journal, struct cut *cut)
{
	bool changed = false;
	for (unsigned i = 0; i < journal->fs->owner_count; i++) {
		const struct journal_part *part = journal->streams[i].head;
		for (unsigned j = 0; j < cut->taken[i]; j++, part = part->next)
			if (part->tx_id && parts_inside(journal, cut, part->tx_id) < part->tx_parts) {
				cut->taken[i] = j;
				changed = true;
				break;
			}
	}
	return changed;
}

static void make_consistent(const struct journal *journal, struct cut *cut)
{
	if (!cut->multiple || sabotage(SABOTAGE_SPLIT_TX))
		return;
	while (shorten(journal, cut))
		;
	cut->parts = 0;
	cut->bytes = sizeof(struct journal_group);
	for (unsigned i = 0; i < journal->fs->owner_count; i++) {
		const struct journal_part *part = journal->streams[i].head;
		cut->parts += cut->taken[i];
		for (unsigned j = 0; j < cut->taken[i]; j++, part = part->next)
			cut->bytes += part->length;
	}
}

static void cut_make(const struct journal *journal, struct cut *cut)
{
	cut_begin(journal, cut, journal->group_bytes_goal, JOURNAL_GROUP_PARTS_GOAL);
	make_consistent(journal, cut);
	if (cut->parts || !journal->pending)
		return;
	cut_begin(journal, cut, UINT64_MAX, UINT_MAX);
	make_consistent(journal, cut);
}

static bool needs_flush_before(const struct journal *journal, const struct cut *cut)
{
	if (sabotage(SABOTAGE_NO_GROUP_FLUSH))
		return false;
	for (unsigned i = 0; i < journal->fs->owner_count; i++) {
		const struct journal_part *part = journal->streams[i].head;
		for (unsigned j = 0; j < cut->taken[i]; j++, part = part->next)
			if (part->maps_data && part->arrival > journal->flushed_arrivals)
				return true;
	}
	return false;
}

static void forget_siblings(struct journal *journal, struct journal_part *part)
{
	struct journal_part **place = &journal->tx_buckets[part->tx_id % JOURNAL_TX_BUCKETS];
	while (*place != part)
		place = &(*place)->tx_next;
	*place = part->tx_next;
}

static int group_room(struct journal *journal, uint64_t bytes)
{
	bytes = align_up(bytes, FS_BLOCK_SIZE);
	if (bytes <= journal->group_buffer_bytes)
		return 0;
	uint8_t *buffer = dma_alloc(bytes, FS_BLOCK_SIZE);
	if (!buffer)
		return fs_stop(journal->fs, -ENOMEM, 0, "no memory for a large journal group");
	dma_free(journal->group_buffer);
	journal->group_buffer = buffer;
	journal->group_buffer_bytes = bytes;
	return 0;
}

/* Copies the cut's records into the group buffer and gives the parts back. Returns the group's length in bytes. */
static uint32_t group_fill(struct journal *journal, const struct cut *cut, uint64_t *out_cost)
{
	struct journal_group *group = (struct journal_group *)journal->group_buffer;
	*group = (struct journal_group){.magic = le32_set(FS_JOURNAL_MAGIC), .journal_id = journal->fs->super.journal_id,
		.mount_generation = journal->state.mount_generation, .sequence = le64_set(journal->next_sequence),
		.previous_crc = le32_set(journal->previous_crc)};
	uint32_t length = sizeof(*group), records = 0;
	uint64_t cost = 0;
	for (unsigned i = 0; i < journal->fs->owner_count; i++) {
		struct log_stream *stream = &journal->streams[i];
		for (unsigned j = 0; j < cut->taken[i]; j++) {
			struct journal_part *part = stream->head;
			if (!(stream->head = part->next))
				stream->tail = &stream->head;
			if (part->tx_id)
				forget_siblings(journal, part);
			memcpy(journal->group_buffer + length, part->records, part->length);
			length += part->length;
			records += part->record_count;
			cost += part->cost;
			stream->closed_number = part->number;
			part->message.fn = stream_part_returned;
			reactor_send(part->owner->reactor, &part->message);
		}
	}
	group->length = le32_set(length);
	group->records = le32_set(records);
	group->crc = le32_set(fs_crc32c(0, group, length));
	memset(journal->group_buffer + length, 0, align_up(length, FS_BLOCK_SIZE) - length);
	*out_cost = cost;
	return length;
}

static MAY_WAIT int group_write(struct journal *journal, uint64_t blocks)
{
	const uint64_t first = MIN(blocks, journal->ring_blocks - journal->head_block);
	struct io io[2];
	struct io_group ios;
	io_group_init(&ios);
	io_prepare(&io[0], journal->owner->channel, IO_WRITE, journal->group_buffer,
		(journal->ring_first + journal->head_block) << FS_BLOCK_SHIFT, first << FS_BLOCK_SHIFT);
	io_group_submit(&ios, &io[0]);
	if (blocks > first) { /* over the end of the ring, to its start */
		io_prepare(&io[1], journal->owner->channel, IO_WRITE, journal->group_buffer + (first << FS_BLOCK_SHIFT),
			journal->ring_first << FS_BLOCK_SHIFT, (blocks - first) << FS_BLOCK_SHIFT);
		io_group_submit(&ios, &io[1]);
	}
	const int error = io_group_wait(&ios);
	if (!error || sabotage(SABOTAGE_IGNORES_GROUP_ERROR))
		return 0;
	return fs_stop(journal->fs, error, journal->ring_first + journal->head_block, "journal write failed");
}

static MAY_WAIT int commit_cut(struct journal *journal, const struct cut *cut)
{
	int error = needs_flush_before(journal, cut) ? journal_flush(journal) : 0;
	if (!error)
		error = group_room(journal, cut->bytes);
	if (error)
		return error;
	uint64_t cost;
	const uint32_t length = group_fill(journal, cut, &cost);
	const uint64_t blocks = div_round_up(length, FS_BLOCK_SIZE);
	journal->pending -= cost;
	journal->used += blocks << FS_BLOCK_SHIFT;
	journal->oldest_pending_ns = reactor_now_ns();
	const uint32_t crc = le32_get(((struct journal_group *)journal->group_buffer)->crc);
	error = group_write(journal, blocks);
	if (error)
		return error;
	journal->last_group_block = journal->head_block;
	journal->head_block = (journal->head_block + blocks) % journal->ring_blocks;
	journal->previous_crc = crc;
	journal->next_sequence++;
	journal->stats.groups++;
	journal->stats.group_bytes += length;
	return 0;
}

void journal_line_reached(struct journal *journal)
{
	if (!journal->line_drawn)
		return;
	struct target *target = &journal->target_memory;
	for (unsigned i = 0; i < journal->fs->owner_count; i++)
		if (journal->streams[i].durable_number < target->through[i])
			return;
	target->head_block = journal->durable_head_block;
	target->sequence = journal->durable_sequence;
	target->crc = journal->durable_crc;
	journal->line_drawn = false;
	fiber_cond_broadcast(&journal->idle);
	fiber_cond_signal(&journal->commit_work); /* what waited behind the line can go */
}

static void durable(struct journal *journal)
{
	journal->durable_sequence = journal->next_sequence - 1;
	journal->durable_head_block = journal->head_block;
	journal->durable_group_block = journal->last_group_block;
	journal->durable_crc = journal->previous_crc;
	for (unsigned i = 0; i < journal->fs->owner_count; i++)
		journal->streams[i].durable_number = journal->streams[i].closed_number;
	journal_line_reached(journal);
	journal_notify(journal);
	journal_answer_syncs(journal);
	journal_grant(journal);
	if (journal->used > journal->capacity / 2)
		fiber_cond_signal(&journal->checkpoint_work);
}

/* Whether a group should be closed now; *wait_ns: how long at the most until it should (UINT64_MAX: nothing waits). */
static bool commit_due(const struct journal *journal, uint64_t *wait_ns)
{
	*wait_ns = UINT64_MAX;
	if (!cds_list_empty((struct cds_list_head *)&journal->syncs) || journal->ending)
		return true;
	if (!journal->pending)
		return false;
	if (journal->line_drawn || journal->want_commit || journal->pending >= journal->group_bytes_goal / 2)
		return true;
	const uint64_t due = journal->oldest_pending_ns + FS_OPTION(journal->fs, commit_ms) * NS_PER_MS;
	const uint64_t now = reactor_now_ns();
	if (due <= now)
		return true;
	*wait_ns = due - now;
	return false;
}

static MAY_WAIT void wait_for_work(struct journal *journal)
{
	uint64_t wait_ns;
	while (!fs_stopped(journal->fs) && !commit_due(journal, &wait_ns)) {
		if (wait_ns == UINT64_MAX)
			fiber_cond_wait(&journal->commit_work, "work for the log");
		else
			fiber_cond_wait_for(&journal->commit_work, wait_ns, "the commit interval");
	}
}

void journal_commit_main(void *arg)
{
	struct journal *journal = arg;
	struct cut *cut = &journal->cut_memory;
	for (;;) {
		wait_for_work(journal);
		if (fs_stopped(journal->fs) || (journal->ending && !journal->pending))
			break;
		journal->want_commit = false;
		const uint64_t arrivals = journal->arrivals;
		const bool line_drawn = journal->line_drawn;
		const uint64_t lines = journal->lines;
		cut_make(journal, cut);
		const bool syncs = !cds_list_empty(&journal->syncs);
		if (!cut->parts && !syncs) {
			/* Only parts whose siblings are on their way. */
			fiber_cond_wait(&journal->commit_work, "the other parts of a transaction");
			journal->want_commit = true;
			continue;
		}
		int error = cut->parts ? commit_cut(journal, cut) : 0;
		if (!error && !(sabotage(SABOTAGE_NO_FSYNC_FLUSH) && cut->parts))
			error = journal_flush(journal);
		else if (!error)
			journal->flushed_events = journal->events;
		if (error)
			break;
		durable(journal);
		if (!cut->parts && !cds_list_empty(&journal->syncs) && journal->pending && arrivals == journal->arrivals &&
			line_drawn == journal->line_drawn && lines == journal->lines)
			fiber_cond_wait(&journal->commit_work, "the other parts of a transaction");
	}
	journal_answer_syncs(journal);
	journal->commit_running = false;
	fiber_cond_broadcast(&journal->idle);
}
