/* SPDX-License-Identifier: BSD-3-Clause */
/* The transport FUSE over io_uring: see the header. */
#include "fs/fuse/front_ring.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "reactor/log.h"

enum { RING_POLL_BATCH = 32, ERROR_MIN = -4095 /* of what a command ends with */ };

static const struct front_transport ring_transport;
static unsigned ring_poll(struct poller *poller);
static bool ring_before_sleep(struct poller *poller);

/* ---- what the kernel has ---- */

bool ring_offered(void)
{
	FILE *file = fopen("/sys/module/fuse/parameters/enable_uring", "re");
	if (!file)
		return false;
	const int answer = fgetc(file);
	fclose(file);
	return answer == 'Y' || answer == '1';
}

/* "0-3" or "0-1,4-7": the kernel's queues are numbered like its CPUs. */
unsigned ring_queue_count(void)
{
	FILE *file = fopen("/sys/devices/system/cpu/possible", "re");
	unsigned last = 0;
	if (!file)
		return 0;
	while (fscanf(file, "%*[-,]%u", &last) == 1 || fscanf(file, "%u", &last) == 1)
		;
	fclose(file);
	return last + 1;
}

unsigned ring_depth(unsigned queues)
{
	return MAX(MIN(RING_ENTRIES_WANTED / queues, (unsigned)RING_DEPTH_MAX), (unsigned)RING_DEPTH_MIN);
}

/* ---- life ---- */

static void entry_init(struct ring_source *ring, struct ring_entry *entry, uint16_t queue,
	struct wire_ring_headers *headers)
{
	*entry = (struct ring_entry){.source = ring, .headers = headers, .queue = queue};
	entry->payload = dma_alloc(RING_PAYLOAD_BYTES, 4096);
	entry->iov[0] = (struct iovec){headers, sizeof(*headers)};
	entry->iov[1] = (struct iovec){entry->payload, RING_PAYLOAD_BYTES};
}

static int entries_create(struct ring_source *ring, unsigned reactors)
{
	const unsigned queues = ring_queue_count(), first = reactor_index(ring->dev->reactor);
	if (queues == 0 || first >= queues) /* more reactors than CPUs: some have no queue */
		return queues == 0 ? -ENODEV : 0;
	const unsigned depth = ring_depth(queues), count = depth * div_round_up(queues - first, reactors);
	ring->headers = calloc(count, sizeof(*ring->headers));
	ring->entries = calloc(count, sizeof(*ring->entries));
	if (!ring->headers || !ring->entries)
		return -ENOMEM;
	for (; ring->count < count; ring->count++) {
		struct ring_entry *entry = &ring->entries[ring->count];
		entry_init(ring, entry, (uint16_t)(first + ring->count / depth * reactors), &ring->headers[ring->count]);
		if (!entry->payload)
			return -ENOMEM;
	}
	return uring_init(&ring->uring, count, IORING_SETUP_SQE128);
}

int ring_source_open(struct dev_source *dev, unsigned reactors)
{
	assert(reactor_self() == dev->reactor);
	struct ring_source *ring = calloc(1, sizeof(*ring));
	if (!ring)
		return -ENOMEM;
	dev->ring = ring;
	ring->dev = dev;
	fiber_cond_init(&ring->drained);
	const int error = entries_create(ring, reactors);
	ring->has_uring = !error && ring->count > 0;
	if (error)
		ring_source_close(dev);
	return error;
}

void ring_source_close(struct dev_source *dev)
{
	struct ring_source *ring = dev->ring;
	if (!ring)
		return;
	assert(ring->running == 0);
	poller_unregister(&ring->poller);
	if (ring->has_uring)
		uring_fini(&ring->uring);
	for (unsigned i = 0; i < ring->count; i++)
		dma_free(ring->entries[i].payload);
	free(ring->entries);
	free(ring->headers);
	free(ring);
	dev->ring = NULL;
}

static void entry_command(struct ring_entry *entry, uint32_t command)
{
	struct io_uring_sqe *sqe = uring_entry(&entry->source->uring);
	const struct wire_ring_command in_entry = {.commit_id = entry->headers->commit_id, .queue = entry->queue};
	/* Every byte of the 128 may be looked at. */
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = entry->source->dev->fd;
	sqe->cmd_op = command;
	if (command == WIRE_RING_REGISTER) {
		sqe->addr = (uintptr_t)entry->iov;
		sqe->len = ARRAY_SIZE(entry->iov);
	}
	memcpy(sqe->cmd, &in_entry, sizeof(in_entry));
	io_uring_sqe_set_data(sqe, entry);
}

int ring_source_start(struct ring_source *ring)
{
	if (!ring->has_uring)
		return 0;
	for (unsigned i = 0; i < ring->count; i++)
		entry_command(&ring->entries[i], WIRE_RING_REGISTER);
	ring->poller.before_sleep = ring_before_sleep;
	poller_register(ring->dev->reactor, &ring->poller, "fuse ring", ring_poll, 0);
	ring_poll(&ring->poller); /* a refusal comes at once */
	return ring->error;
}

MAY_WAIT void ring_source_drain(struct ring_source *ring)
{
	ring->stopping = true;
	while (ring->running > 0)
		fiber_cond_wait(&ring->drained, "FUSE requests to end");
	if (ring->has_uring)
		uring_enter(&ring->uring); /* the last answers */
}

/* ---- requests ---- */

static void ring_received(struct ring_entry *entry)
{
	struct ring_source *ring = entry->source;
	struct front_session *session = ring->dev->session;
	const struct wire_ring_headers *headers = entry->headers;
	struct front_request *base = &entry->base;
	memcpy(&entry->header, headers->in_out, sizeof(entry->header));
	memcpy(entry->fixed, headers->fixed, sizeof(entry->fixed));
	front_count(&ring->running, 1);
	dev_source_begin(ring->dev, base, &ring_transport, &entry->header);

	struct front_message message = {.header = &entry->header,
		.fixed = entry->fixed, .fixed_size = sizeof(entry->fixed),
		.tail = entry->payload, .tail_size = headers->payload_size};
	if (message.tail_size > RING_PAYLOAD_BYTES) {
		front_refuse(base, -EINVAL);
		return;
	}
	if (entry->header.opcode != FUSE_WRITE && message.tail_size <= sizeof(entry->bytes)) {
		memcpy(entry->bytes, entry->payload, message.tail_size);
		message.tail = entry->bytes;
	}
	const int error = front_decode(&message, session->dialect, &base->call);
	if (error)
		front_refuse(base, error);
	else
		front_dispatch(base);
}

/* The command ended without a request. */
static void ring_failed(struct ring_source *ring, int error)
{
	if (error == -ENOTCONN || error == -ECONNABORTED || error == -ENODEV || error == -ECANCELED) {
		if (!ring->stopping)
			ring->dev->ended(ring->dev);
		return;
	}
	log_error("fuse: the kernel refused a command of the ring: %s", strerror(-error));
	front_count(&ring->dev->stats.refused_answers, 1);
	ring->error = ring->error ? ring->error : error;
}

static unsigned ring_poll(struct poller *poller)
{
	struct ring_source *ring = CONTAINER_OF(poller, struct ring_source, poller);
	struct io_uring_cqe *completions[RING_POLL_BATCH];
	struct ring_entry *entries[RING_POLL_BATCH];
	int results[RING_POLL_BATCH];
	const unsigned work = ring->uring.unsubmitted;
	uring_awake(&ring->uring);
	uring_enter(&ring->uring);
	const unsigned count = io_uring_peek_batch_cqe(&ring->uring.ring, completions, RING_POLL_BATCH);
	for (unsigned i = 0; i < count; i++) {
		entries[i] = io_uring_cqe_get_data(completions[i]);
		results[i] = completions[i]->res;
	}
	io_uring_cq_advance(&ring->uring.ring, count);
	for (unsigned i = 0; i < count; i++) {
		if (results[i] < 0)
			ring_failed(ring, MAX(results[i], (int)ERROR_MIN));
		else if (!ring->stopping) /* else the kernel ends it with the connection */
			ring_received(entries[i]);
	}
	return work + count;
}

static bool ring_before_sleep(struct poller *poller)
{
	return uring_may_sleep(&CONTAINER_OF(poller, struct ring_source, poller)->uring);
}

/* ---- answers ---- */

/* READ, READDIR, READLINK and the values of xattrs are made where the kernel takes them from. */
static void *ring_buffer_get(struct front_request *base, uint32_t size)
{
	struct ring_entry *entry = CONTAINER_OF(base, struct ring_entry, base);
	assert(size <= RING_PAYLOAD_BYTES);
	return entry->payload;
}

static int ring_answer(struct front_request *base, int error)
{
	struct ring_entry *entry = CONTAINER_OF(base, struct ring_entry, base);
	const struct fuse_out_header header = {
		.len = (uint32_t)sizeof(header) + base->out_size + base->data_size,
		.error = error,
		.unique = entry->header.unique,
	};
	assert(base->out_size == 0 || base->data_size == 0);
	assert(base->data_size == 0 || base->data == entry->payload);
	memcpy(entry->headers->in_out, &header, sizeof(header));
	memcpy(entry->payload, &base->out, base->out_size);
	entry->headers->payload_size = base->out_size + base->data_size;
	return 0;
}

static void ring_forget_attributes(struct front_request *base, uint64_t ino)
{
	dev_tell_attributes_stale(CONTAINER_OF(base, struct ring_entry, base)->source->dev->fd, ino);
}

static void ring_forget_listing(struct front_request *base, uint64_t ino)
{
	dev_tell_listing_stale(CONTAINER_OF(base, struct ring_entry, base)->source->dev->fd, ino);
}

static void entry_home(struct ring_entry *entry)
{
	struct ring_source *ring = entry->source;
	assert(reactor_self() == ring->dev->reactor);
	cds_list_del(&entry->base.known);
	entry_command(entry, WIRE_RING_COMMIT_AND_FETCH);
	front_count(&ring->running, (uint64_t)-1);
	if (ring->running == 0)
		fiber_cond_broadcast(&ring->drained);
}

static void home_message(struct message *message)
{
	entry_home(CONTAINER_OF(message, struct ring_entry, message));
}

static void ring_release(struct front_request *base)
{
	struct ring_entry *entry = CONTAINER_OF(base, struct ring_entry, base);
	if (entry->source->dev->reactor == reactor_self()) {
		entry_home(entry);
		return;
	}
	entry->message.fn = home_message;
	reactor_send(entry->source->dev->reactor, &entry->message);
}

static const struct front_transport ring_transport = {
	.buffer_get = ring_buffer_get,
	.answer = ring_answer,
	.forget_attributes = ring_forget_attributes,
	.forget_listing = ring_forget_listing,
	.release = ring_release,
};
