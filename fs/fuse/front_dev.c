/* SPDX-License-Identifier: BSD-3-Clause */
/* The transport /dev/fuse, inward: reading requests, pausing, interrupts. See front_dev.h. */
#include "fs/fuse/front_dev.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "reactor/log.h"

static unsigned source_poll(struct poller *poller);
static bool source_read(struct dev_source *source);
static void source_received(struct dev_source *source, char *bytes, size_t length, bool spare);
static void visit(struct dev_request *request);
static void look_at_interrupted(struct timer *timer);

/* ---- life ---- */

int dev_source_open(struct dev_source *source)
{
	assert(reactor_self() == source->reactor);
	source->requests = calloc(source->requests_max, sizeof(*source->requests));
	if (!source->requests)
		return -ENOMEM;
	for (unsigned i = source->requests_max; i-- > 0;) {
		source->requests[i].next_free = source->free;
		source->free = &source->requests[i];
	}
	for (unsigned i = 0; i < DEV_KNOWN_BUCKETS; i++)
		CDS_INIT_LIST_HEAD(&source->known[i]);
	fiber_cond_init(&source->drained);
	source->open = true;
	int error = payload_area_init(&source->payload);
	if (!error)
		error = dev_answers_open(source);
	if (error)
		dev_source_close(source);
	return error;
}

void dev_source_close(struct dev_source *source)
{
	if (!source->open)
		return;
	assert(!source->reading && source->running == 0);
	dev_answers_close(source);
	payload_area_fini(&source->payload);
	dev_spare_fini(source);
	free(source->requests);
	source->requests = source->free = NULL;
	source->open = false;
}

static int source_watch(struct dev_source *source)
{
	int error = reactor_watch_fd(source->reactor, source->fd, EPOLLIN | EPOLLEXCLUSIVE);
	source->watched = !error;
	return error;
}

static void source_unwatch(struct dev_source *source)
{
	if (source->watched)
		reactor_unwatch_fd(source->reactor, source->fd);
	source->watched = false;
}

int dev_source_start(struct dev_source *source)
{
	int error = source_watch(source);
	if (error)
		return error;
	poller_register(source->reactor, &source->poller, "fuse", source_poll, 0);
	source->reading = true;
	return 0;
}

void dev_source_stop(struct dev_source *source)
{
	if (!source->reading)
		return;
	poller_unregister(&source->poller);
	source_unwatch(source);
	source->reading = false;
}

MAY_WAIT bool dev_source_await(struct dev_source *source, uint64_t timeout_ns)
{
	const uint64_t end = reactor_now_ns() + timeout_ns;
	while (source->running > 0 && reactor_now_ns() < end)
		(void)fiber_cond_wait_for(&source->drained, end - reactor_now_ns(), "FUSE requests to end in time");
	return source->running == 0;
}

MAY_WAIT void dev_source_drain(struct dev_source *source)
{
	dev_source_stop(source);
	while (source->running > 0)
		fiber_cond_wait(&source->drained, "FUSE requests to end");
	if (timer_running(&source->interrupted))
		timer_stop(&source->interrupted);
}

/* ---- reading ---- */

static unsigned source_poll(struct poller *poller)
{
	struct dev_source *source = CONTAINER_OF(poller, struct dev_source, poller);
	unsigned count = 0;
	if (source->ring && source->session->ready && ++source->turns % DEV_TURNS_WITH_RING)
		return 0;
	/* Not watched: paused, or at the end. A client that comes alone waits for its answer before it sends more, and does
	 * not wait until we have asked in vain for a second request. */
	while (count < DEV_READ_BATCH && source->watched && source_read(source)) {
		count++;
		if (source->running <= 1)
			break;
	}
	return count;
}

static void source_pause(struct dev_source *source)
{
	front_count(&source->stats.pauses, 1);
	source_unwatch(source);
}

static void source_resume(struct dev_source *source)
{
	if (!source->reading || source->watched || source->dead)
		return;
	int error = source_watch(source);
	if (error) /* only for want of kernel memory; the next request that comes home tries again */
		log_error("fuse: cannot watch the kernel's requests: %s", strerror(-error));
}

static bool source_failed(struct dev_source *source, int error)
{
	switch (error) {
	case EAGAIN:
		return false;
	case EINTR:
	case ENOENT: /* this one was interrupted before it reached us; there may be more */
		return true;
	default:
		if (error != ENODEV && error != ECONNABORTED)
			log_error("fuse: cannot read requests: %s", strerror(error));
		source->dead = -error;
		source_unwatch(source);
		source->ended(source);
		return false;
	}
}

/* Reads one request. False: nothing there, or no room. */
static bool source_read(struct dev_source *source)
{
	char *bytes = source->free ? payload_offer(&source->payload) : NULL;
	const bool spare = !bytes && source->held;
	if (spare)
		bytes = dev_spare_offer(source);
	if (!bytes) {
		source_pause(source);
		return false;
	}
	ssize_t length = read(source->fd, bytes, WIRE_WRITE_HEADER_BYTES + WIRE_WRITE_BYTES_MAX);
	if (length < 0)
		return source_failed(source, errno);
	source_received(source, bytes, (size_t)length, spare);
	return true;
}

static struct dev_request *request_pop(struct dev_source *source)
{
	struct dev_request *request = source->free;
	source->free = request->next_free;
	return request;
}

void dev_source_begin(struct dev_source *source, struct front_request *request, const struct front_transport *transport,
	const struct fuse_in_header *header)
{
	request->session = source->session;
	request->transport = transport;
	request->header = header;
	request->received_ns = front_clock_ns();
	request->out_size = request->data_size = 0;
	request->data = NULL;
	request->granted_ino = 0;
	fs_ticket_init(&request->ticket);
	request->interrupted = request->at_door = false;
	cds_list_add(&request->known, &source->known[(header->unique >> 1) % DEV_KNOWN_BUCKETS]);
}

/* Takes a request object and puts the message where it can stay until the answer. */
static struct dev_request *request_take(struct dev_source *source, char *bytes, size_t length, bool spare)
{
	const struct fuse_in_header *header = (const struct fuse_in_header *)bytes;
	struct dev_request *request = spare ? dev_spare_take(source) : request_pop(source);
	front_count(&source->running, 1);
	request->slab = NULL;
	request->source = source;
	if (header->opcode != FUSE_WRITE && length <= DEV_INLINE_BYTES) {
		memcpy(request->bytes, bytes, length);
		bytes = request->bytes;
	} else if (spare) {
		dev_spare_hold(request, length);
	} else {
		request->slab = payload_hold(&source->payload, length);
	}
	request->buffer = NULL;
	dev_source_begin(source, &request->base, &front_dev_transport, (const struct fuse_in_header *)bytes);
	return request;
}

static void source_received(struct dev_source *source, char *bytes, size_t length, bool spare)
{
	struct front_session *session = source->session;
	struct front_message message;
	struct front_call call;
	const struct fuse_in_header *header = (const struct fuse_in_header *)bytes;
	if (length < sizeof(*header) || header->len != length) {
		front_count(&source->stats.malformed, 1);
		log_error("fuse: a message of %zu bytes that is no request", length);
		return;
	}
	if (header->opcode == FUSE_FORGET || header->opcode == FUSE_BATCH_FORGET) {
		int error = front_message_split(bytes, length, session->dialect, &message);
		if (!error)
			error = front_decode(&message, session->dialect, &call);
		if (!error)
			front_forget(session, header, &call);
		else
			front_count(&source->stats.malformed, 1);
		return;
	}

	struct dev_request *request = request_take(source, bytes, length, spare);
	struct front_request *base = &request->base;
	int error = front_message_split(base->header, length, session->dialect, &message);
	if (!error)
		error = front_decode(&message, session->dialect, &base->call);
	if (error) {
		front_refuse(base, error);
	} else if (header->opcode == FUSE_INTERRUPT) {
		front_count(&source->stats.interrupts, 1);
		request->visits_left = reactor_group_count(session->group);
		visit(request);
	} else {
		front_dispatch(base);
	}
}

void dev_request_home(struct dev_request *request)
{
	struct dev_source *source = request->source;
	assert(reactor_self() == source->reactor);
	cds_list_del(&request->base.known);
	if (request->slab)
		payload_put(request->slab);
	request->slab = NULL;
	if (request->is_spare) {
		dev_spare_put(request);
	} else {
		request->next_free = source->free;
		source->free = request;
	}
	front_count(&source->running, (uint64_t)-1);
	source_resume(source);
	if (source->running == 0)
		fiber_cond_broadcast(&source->drained);
}

void dev_source_hold(struct dev_source *source, bool held)
{
	assert(reactor_self() == source->reactor);
	if (source->held == held)
		return;
	source->held = held;
	if (!held) {
		front_hold_end(source->session);
		return;
	}
	front_hold_begin(source->session);
	look_at_interrupted(&source->interrupted);
	source_resume(source);
}

/* ---- INTERRUPT ---- */

static void look_again_later(struct dev_source *source)
{
	if (!timer_running(&source->interrupted))
		timer_start(&source->interrupted, DEV_INTERRUPTED_LOOK_MS * NS_PER_MS, look_at_interrupted);
}

static void look_at_interrupted(struct timer *timer)
{
	struct dev_source *source = CONTAINER_OF(timer, struct dev_source, interrupted);
	struct front_request *request, *next;
	bool again = false;
	for (unsigned i = 0; i < DEV_KNOWN_BUCKETS; i++)
		cds_list_for_each_entry_safe(request, next, &source->known[i], known)
			if (request->interrupted)
				again |= front_interrupt(request);
	if (again)
		look_again_later(source);
}

static struct front_request *find_known(struct dev_source *source, uint64_t unique)
{
	struct front_request *request;
	cds_list_for_each_entry(request, &source->known[(unique >> 1) % DEV_KNOWN_BUCKETS], known)
		if (request->header->unique == unique)
			return request;
	return NULL;
}

static void visit_message(struct message *message)
{
	visit(CONTAINER_OF(message, struct dev_request, message));
}

/* @request is an INTERRUPT; asks this reactor, then the next. A request is known from the moment it was read, and the
 * kernel sends its INTERRUPT only afterwards: when nobody knows it, it was answered. */
static void visit(struct dev_request *request)
{
	const struct fuse_interrupt_in *in = request->base.call.in;
	unsigned here = reactor_index(reactor_self());
	struct dev_source *source = request->source->peers[here];
	struct front_request *target = find_known(source, in->unique);
	if (target) {
		if (front_interrupt(target)) /* INTERRUPT itself gets no answer */
			look_again_later(source);
		front_dev_transport.release(&request->base);
		return;
	}
	if (--request->visits_left > 0) {
		unsigned next = (here + 1) % reactor_group_count(request->base.session->group);
		request->message.fn = visit_message;
		reactor_send(request->source->peers[next]->reactor, &request->message);
		return;
	}
	front_refuse(&request->base, -EAGAIN);
}
