/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The record module: what passes through it, in order, with content, for tests that cut the power at every point.
 *
 * An entry is made at submission with a copy of the data, and it is the copy that goes to the base, so the log holds what
 * the device got even when the caller scribbles over its buffer. One counter numbers submissions and completions, so a
 * test can tell what a flush covers: the writes whose completed is smaller than the flush's submitted. An emulated FUA is
 * emulated above us: the log shows a write and a flush.
 *
 * The log belongs to whoever holds a reference, the bdev being one. A copy belongs to its entry and to the I/O in flight.
 * One thread only: simulated groups.
 */
#include <errno.h>
#include <stdlib.h>

#include "blockdev/stack.h"

struct record_buffer {
	unsigned refs;
	_Alignas(64) uint8_t data[];
};

struct record_log {
	unsigned refs;
	struct record_entry *entries;
	size_t count, capacity;
	uint64_t order;      /* submissions and completions so far */
	uint64_t generation; /* clears so far: an I/O from before has no entry any more */
};

struct record {
	struct stack stack;
	struct record_log *log;
	struct cds_list_head in_flight; /* bdev_io by node */
};

struct record_channel {
	struct bdev_channel *base;
};

struct record_context {
	struct io base;
	struct record_buffer *buffer; /* of a write */
	size_t entry;                 /* SIZE_MAX: none (reads) */
	uint64_t generation;
};

/* ---- the log ---- */

static struct record_buffer *record_buffer_create(uint64_t length)
{
	struct record_buffer *buffer = aligned_alloc(64, align_up(sizeof(*buffer) + length, 64));
	if (buffer != NULL)
		buffer->refs = 1;
	return buffer;
}

static void record_buffer_put(struct record_buffer *buffer)
{
	if (buffer != NULL && --buffer->refs == 0)
		free(buffer);
}

static struct record_buffer *record_buffer_of(const uint8_t *data)
{
	return (struct record_buffer *)(uintptr_t)(data - offsetof(struct record_buffer, data));
}

static void record_log_empty(struct record_log *log)
{
	for (size_t i = 0; i < log->count; i++)
		if (log->entries[i].data != NULL)
			record_buffer_put(record_buffer_of(log->entries[i].data));
	log->count = 0;
	log->generation++;
}

void record_log_get(struct record_log *log)
{
	log->refs++;
}

void record_log_put(struct record_log *log)
{
	if (--log->refs != 0)
		return;
	record_log_empty(log);
	free(log->entries);
	free(log);
}

const struct record_entry *record_log_entries(const struct record_log *log, size_t *count)
{
	*count = log->count;
	return log->entries;
}

/* Room for one more entry; its place in the order is filled in. NULL: no memory. */
static struct record_entry *record_log_add(struct record_log *log)
{
	if (log->count == log->capacity) {
		const size_t capacity = MAX(log->capacity * 2, (size_t)256);
		struct record_entry *entries = realloc(log->entries, capacity * sizeof(entries[0]));
		if (entries == NULL)
			return NULL;
		log->entries = entries;
		log->capacity = capacity;
	}
	struct record_entry *entry = &log->entries[log->count++];
	*entry = (struct record_entry){.submitted = log->order++, .completed = UINT64_MAX};
	return entry;
}

static struct record *record_of(struct bdev *bdev)
{
	return bdev_private(bdev);
}

void bdev_record_mark(struct bdev *bdev, uint64_t mark)
{
	struct record_entry *entry = record_log_add(record_of(bdev)->log);
	assert(entry != NULL);
	entry->kind = RECORD_MARK;
	entry->mark = mark;
	entry->completed = entry->submitted;
}

const struct record_entry *bdev_record_entries(struct bdev *bdev, size_t *count)
{
	return record_log_entries(record_of(bdev)->log, count);
}

void bdev_record_clear(struct bdev *bdev)
{
	record_log_empty(record_of(bdev)->log);
}

struct record_log *bdev_record_log(struct bdev *bdev)
{
	return record_of(bdev)->log;
}

/* ---- the module ---- */

static int record_channel_init(struct bdev *bdev, void *channel_state)
{
	struct record_channel *channel = channel_state;
	return bdev_channel_get(record_of(bdev)->stack.desc, &channel->base);
}

static void record_channel_fini(struct bdev *bdev, void *channel_state)
{
	struct record_channel *channel = channel_state;
	bdev_channel_put(channel->base);
}

static void record_gather(uint8_t *to, const struct bdev_io *io)
{
	for (unsigned i = 0; i < io->iov_count; i++) {
		memcpy(to, io->iov[i].iov_base, io->iov[i].iov_len);
		to += io->iov[i].iov_len;
	}
}

/* The entry of an I/O that changes the device, and the copy that goes to the base. */
static int record_log_io(struct record_log *log, struct bdev_io *io)
{
	struct record_context *context = (struct record_context *)io->context;
	const bool writes = io->op == IO_WRITE || io->op == IO_WRITE_ZEROES;
	struct record_buffer *buffer = writes ? record_buffer_create(io->length) : NULL;
	struct record_entry *entry = writes && buffer == NULL ? NULL : record_log_add(log);
	if (entry == NULL) {
		record_buffer_put(buffer);
		return -ENOMEM;
	}
	entry->kind = writes ? RECORD_WRITE : io->op == IO_FLUSH ? RECORD_FLUSH : RECORD_UNMAP;
	entry->fua = writes && (io->flags & IO_FUA) != 0;
	entry->offset = io->offset;
	entry->length = io->length;
	context->entry = entry - log->entries;
	context->buffer = buffer;
	if (!writes)
		return 0;
	if (io->op == IO_WRITE)
		record_gather(buffer->data, io);
	else
		memset(buffer->data, 0, io->length);
	entry->data = buffer->data;
	buffer->refs++;
	return 0;
}

static void record_base_done(struct io *base)
{
	struct record_context *context = CONTAINER_OF(base, struct record_context, base);
	struct bdev_io *io = CONTAINER_OF(context, struct bdev_io, context);
	struct record_log *log = record_of(io->bdev)->log;
	if (context->entry != SIZE_MAX) {
		const uint64_t order = log->order++;
		if (context->generation == log->generation && base->result == 0)
			log->entries[context->entry].completed = order;
	}
	record_buffer_put(context->buffer);
	cds_list_del(&io->node);
	bdev_io_complete(io, base->result);
}

static int record_submit(struct bdev *bdev, void *channel_state, struct bdev_io *io)
{
	struct record *record = record_of(bdev);
	struct record_channel *channel = channel_state;
	struct record_context *context = (struct record_context *)io->context;
	context->buffer = NULL;
	context->entry = SIZE_MAX;
	context->generation = record->log->generation;
	if (io->op != IO_READ && io->op != IO_RESET) {
		const int err = record_log_io(record->log, io);
		if (err != 0)
			return err;
	}
	stack_prepare(&context->base, channel->base, io, record_base_done);
	if (io->op == IO_WRITE) {
		context->base.single = (struct iovec){.iov_base = context->buffer->data, .iov_len = io->length};
		context->base.iov = &context->base.single;
		context->base.iov_count = 1;
	}
	cds_list_add_tail(&io->node, &record->in_flight);
	io_submit(&context->base);
	return 0;
}

static void record_quiesce(struct bdev *bdev)
{
	bdev_drain(bdev, NULL); /* what is in flight is the base's, and comes back from there */
}

MAY_WAIT static int record_rescan(struct bdev *bdev) { return stack_rescan(&record_of(bdev)->stack); }

MAY_WAIT static void record_release(struct bdev *bdev)
{
	stack_close(&record_of(bdev)->stack);
}

static void record_destroy(struct bdev *bdev)
{
	struct record *record = record_of(bdev);
	struct bdev_io *io;
	cds_list_for_each_entry(io, &record->in_flight, node) /* of an abandoned simulation */
		record_buffer_put(((struct record_context *)io->context)->buffer);
	record_log_put(record->log);
	free(record);
}

static const struct bdev_module record_module = {
	.name = "record",
	.context_bytes = sizeof(struct record_context),
	.channel_bytes = sizeof(struct record_channel),
	.channel_init = record_channel_init,
	.channel_fini = record_channel_fini,
	.submit = record_submit,
	.quiesce = record_quiesce,
	.release = record_release,
	.rescan = record_rescan,
	.destroy = record_destroy,
};

MAY_WAIT int bdev_record_create(struct bdev_registry *registry, const char *name, const char *base)
{
	struct record *record = calloc(1, sizeof(*record));
	struct record_log *log = calloc(1, sizeof(*log));
	int err = -ENOMEM;
	if (record == NULL || log == NULL)
		goto fail;
	log->refs = 1;
	record->log = log;
	CDS_INIT_LIST_HEAD(&record->in_flight);
	struct bdev_limits limits;
	err = stack_open(&record->stack, registry, name, base, &limits);
	if (err != 0)
		goto fail;
	err = bdev_register(registry, &record_module, &limits, record, &record->stack.self);
	if (err == 0)
		return 0;
	bdev_close(record->stack.desc);
fail:
	free(log);
	free(record);
	return err;
}
