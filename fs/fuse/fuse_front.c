/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The life of the front end: one session, one source per reactor. Reactor 0 uses the caller's fd; it alone reads until
 * INIT is answered, then every other reactor gets a clone.
 */
#include "fs/fuse/fuse_front.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fs/fuse/front_ring.h"
#include "reactor/log.h"

static_assert((int)FUSE_FRONT_OPCODE_COUNT == (int)WIRE_OPCODE_COUNT, "the public count of opcodes");

struct fuse_front {
	struct front_session session;     /* first: front_session.initialized casts back */
	struct fuse_front_options options;
	struct dev_source *sources[REACTOR_COUNT_MAX];
	unsigned count;                   /* of sources */
	struct fiber_cond init;           /* start and stop wait here */
	atomic_bool ended;
	bool ended_told;                  /* on reactor 0: ended_message has arrived */
	struct message ended_message;
	bool stopped;
};

static void session_initialized(struct front_session *session);
static void source_ended(struct dev_source *source);

int fuse_front_create(struct fs *fs, struct reactor_group *group, const struct fuse_front_options *options,
	struct fuse_front **out)
{
	struct fuse_front *front = calloc(1, sizeof(*front));
	if (!front)
		return -ENOMEM;
	front->options = *options;
	if (!front->options.init_timeout_ms)
		front->options.init_timeout_ms = 10000;
	front->session.fs = fs;
	front->session.group = group;
	front->session.noopen = options->noopen;
	front->session.writeback = options->writeback;
	front->session.max_background = MIN(options->max_background ? options->max_background : 64u, 65535u);
	front->session.initialized = session_initialized;
	fiber_cond_init(&front->init);
	for (unsigned i = 0; i < reactor_group_count(group); i++) {
		struct dev_source *source = calloc(1, sizeof(*source));
		if (!source) {
			fuse_front_destroy(front);
			return -ENOMEM;
		}
		source->session = &front->session;
		source->peers = front->sources;
		source->reactor = reactor_group_get(group, i);
		source->fd = i == 0 ? options->fd : -1;
		source->requests_max = options->requests_max ? options->requests_max : 256;
		source->ended = source_ended;
		front->session.stats[i] = &source->stats;
		front_hold_init(&source->stats.hold);
		front->sources[i] = source;
		front->count++;
	}
	*out = front;
	return 0;
}

void fuse_front_destroy(struct fuse_front *front)
{
	for (unsigned i = 0; i < front->count; i++) {
		struct dev_source *source = front->sources[i];
		assert(!source->open);
		if (i > 0 && source->fd >= 0)
			close(source->fd);
		free(source);
	}
	free(front);
}

/* ---- start ---- */

static void session_initialized(struct front_session *session)
{
	struct fuse_front *front = (struct fuse_front *)session;
	fiber_cond_broadcast(&front->init);
}

static int open_source(void *arg)
{
	return dev_source_open(arg);
}

static int start_source(void *arg)
{
	return dev_source_start(arg);
}

static int open_ring(void *arg)
{
	struct dev_source *source = arg;
	return ring_source_open(source, reactor_group_count(source->session->group));
}

static int start_ring(void *arg)
{
	struct dev_source *source = arg;
	return ring_source_start(source->ring);
}

static int close_ring(void *arg)
{
	ring_source_close(arg);
	return 0;
}

bool fuse_front_io_uring_offered(void) { return ring_offered(); }

unsigned fuse_front_io_uring_mib(void)
{
	const unsigned queues = ring_queue_count();
	return queues ? (unsigned)div_round_up((uint64_t)queues * ring_depth(queues) * RING_PAYLOAD_BYTES, MIB(1)) : 0;
}

MAY_WAIT static void rings_close(struct fuse_front *front)
{
	for (unsigned i = 0; i < front->count; i++)
		(void)reactor_call(front->sources[i]->reactor, close_ring, front->sources[i]);
	front->session.ring = false;
}

/* Before INIT: once the kernel was told of rings, it sends nothing until it has all of them. */
MAY_WAIT static void rings_open(struct fuse_front *front)
{
	int error = 0;
	if (!front->options.io_uring || !ring_offered())
		return;
	for (unsigned i = 0; i < front->count && !error; i++)
		error = reactor_call(front->sources[i]->reactor, open_ring, front->sources[i]);
	front->session.ring = !error;
	if (!error)
		return;
	log_warn("fuse: no io_uring for requests (%s): they come by /dev/fuse", strerror(-error));
	rings_close(front);
}

/* After INIT. */
MAY_WAIT static int rings_start(struct fuse_front *front)
{
	int error = 0;
	if (!(front->session.negotiated & WIRE_OVER_IO_URING)) {
		rings_close(front);
		return 0;
	}
	for (unsigned i = 0; i < front->count && !error; i++)
		error = reactor_call(front->sources[i]->reactor, start_ring, front->sources[i]);
	if (error)
		log_error("fuse: the kernel offers io_uring and does not take it: mount with -o noio_uring");
	return error;
}

static int make_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

static int clone_fd(int fd, int *out)
{
	int clone = open("/dev/fuse", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	uint32_t original = (uint32_t)fd;
	if (clone < 0)
		return -errno;
	if (ioctl(clone, FUSE_DEV_IOC_CLONE, &original) < 0) {
		int error = -errno;
		close(clone);
		return error;
	}
	*out = clone;
	return 0;
}

MAY_WAIT static int await_init(struct fuse_front *front)
{
	struct front_session *session = &front->session;
	int error = reactor_call(front->sources[0]->reactor, start_source, front->sources[0]);
	if (error)
		return error;
	uint64_t deadline = reactor_now_ns() + front->options.init_timeout_ms * NS_PER_MS;
	while (!session->ready && !session->init_error && !front->sources[0]->dead && reactor_now_ns() < deadline)
		(void)fiber_cond_wait_for(&front->init, deadline - reactor_now_ns(), "FUSE INIT");
	if (session->init_error)
		return session->init_error;
	if (session->ready)
		return 0;
	return front->sources[0]->dead ? front->sources[0]->dead : -ETIMEDOUT;
}

/* Reading begins here, unless another front end may still have requests to answer. */
MAY_WAIT static int start_others(struct fuse_front *front)
{
	int error = 0;
	for (unsigned i = 1; i < front->count && !error; i++) {
		error = clone_fd(front->options.fd, &front->sources[i]->fd);
		if (!error && !front->options.agreement)
			error = reactor_call(front->sources[i]->reactor, start_source, front->sources[i]);
	}
	return error;
}

MAY_WAIT static int start_all(struct fuse_front *front)
{
	int error = make_nonblocking(front->options.fd);
	for (unsigned i = 0; i < front->count && !error; i++)
		error = reactor_call(front->sources[i]->reactor, open_source, front->sources[i]);
	if (!error && front->options.agreement)
		front_go_on(&front->session, front->options.agreement);
	else if (!error)
		rings_open(front);
	if (!error && !front->options.agreement)
		error = await_init(front);
	if (!error)
		error = start_others(front);
	return error || front->options.agreement ? error : rings_start(front);
}

MAY_WAIT int fuse_front_go(struct fuse_front *front)
{
	int error = 0;
	assert(reactor_self() == front->sources[0]->reactor);
	for (unsigned i = 0; i < front->count && !error; i++)
		error = reactor_call(front->sources[i]->reactor, start_source, front->sources[i]);
	return error;
}

/* ---- for another front end ---- */

struct source_await {
	struct dev_source *source;
	uint64_t timeout_ns;
};

static int stop_source(void *arg)
{
	dev_source_stop(arg);
	return 0;
}

MAY_WAIT static int await_source(void *arg)
{
	const struct source_await *await = arg;
	return dev_source_await(await->source, await->timeout_ns) ? 0 : -ETIMEDOUT;
}

MAY_WAIT int fuse_front_pause(struct fuse_front *front, uint64_t timeout_ns)
{
	const uint64_t end = reactor_now_ns() + timeout_ns;
	int error = 0;
	assert(reactor_self() == front->sources[0]->reactor && !front->options.io_uring);
	/* First all of them: an INTERRUPT on its round needs the others. */
	for (unsigned i = 0; i < front->count; i++)
		(void)reactor_call(front->sources[i]->reactor, stop_source, front->sources[i]);
	for (unsigned i = 0; i < front->count && !error; i++) {
		const uint64_t now = reactor_now_ns();
		struct source_await await = {.source = front->sources[i], .timeout_ns = now < end ? end - now : 0};
		error = reactor_call(front->sources[i]->reactor, await_source, &await);
	}
	const int back = error ? fuse_front_go(front) : 0;
	if (back)
		log_error("fuse: cannot go on reading requests: %s", strerror(-back));
	return error;
}

void fuse_front_get_agreement(const struct fuse_front *front, struct fuse_front_agreement *out)
{
	front_agreement(&front->session, out);
}

bool fuse_front_knows(const struct fuse_front_agreement *agreement, const struct fuse_front_options *options)
{
	const struct front_session session = {.noopen = options->noopen, .writeback = options->writeback};
	return front_knows(&session, agreement);
}

MAY_WAIT int fuse_front_start(struct fuse_front *front)
{
	assert(reactor_self() == front->sources[0]->reactor);
	int error = start_all(front);
	if (error) {
		log_error("fuse: cannot begin to serve the mount: %s%s", strerror(-error),
			error == -ETIMEDOUT ? " (no INIT from the kernel; is the fd mounted?)" : "");
		fuse_front_stop(front);
	}
	return error;
}

/* ---- end ---- */

static void ended_on_reactor_0(struct message *message)
{
	struct fuse_front *front = CONTAINER_OF(message, struct fuse_front, ended_message);
	front->ended_told = true;
	/* During start the waiting fiber sees for itself. */
	fiber_cond_broadcast(&front->init);
	if (front->session.ready && front->options.ended)
		front->options.ended(front, front->options.arg);
}

/* Every source reads ENODEV by itself; the first one tells reactor 0. */
static void source_ended(struct dev_source *source)
{
	struct fuse_front *front = (struct fuse_front *)source->session;
	if (atomic_exchange(&front->ended, true))
		return;
	front->ended_message.fn = ended_on_reactor_0;
	reactor_send(front->sources[0]->reactor, &front->ended_message);
}

MAY_WAIT static int drain_source(void *arg)
{
	struct dev_source *source = arg;
	dev_source_drain(source);
	if (source->ring)
		ring_source_drain(source->ring);
	return 0;
}

static int close_source(void *arg)
{
	dev_source_close(arg);
	return 0;
}

struct source_hold {
	struct dev_source *source;
	bool held;
};

static int hold_source(void *arg)
{
	const struct source_hold *hold = arg;
	dev_source_hold(hold->source, hold->held);
	return 0;
}

MAY_WAIT void fuse_front_set_held(struct fuse_front *front, bool held)
{
	assert(reactor_self() == front->sources[0]->reactor);
	assert(!held || !front->options.io_uring);
	for (unsigned i = 0; i < front->count && !front->stopped; i++) {
		struct source_hold hold = {.source = front->sources[i], .held = held};
		if (front->sources[i]->open)
			(void)reactor_call_nowait(front->sources[i]->reactor, hold_source, &hold);
	}
}

MAY_WAIT void fuse_front_stop(struct fuse_front *front)
{
	assert(reactor_self() == front->sources[0]->reactor);
	if (front->stopped)
		return;
	fuse_front_set_held(front, false);
	front->stopped = true;
	/* An INTERRUPT on its round needs all sources: close none before all are drained. */
	for (unsigned i = 0; i < front->count; i++)
		if (front->sources[i]->open)
			(void)reactor_call(front->sources[i]->reactor, drain_source, front->sources[i]);
	rings_close(front);
	for (unsigned i = 0; i < front->count; i++)
		(void)reactor_call(front->sources[i]->reactor, close_source, front->sources[i]);
	while (atomic_load(&front->ended) && !front->ended_told)
		fiber_cond_wait(&front->init, "the end of the mount to be told");
}

/* ---- figures ---- */

static uint64_t read_counter(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

const char *fuse_front_opcode_name(unsigned opcode)
{
	return front_opcode_name(opcode);
}

bool fuse_front_stats_read(const struct fuse_front *front, unsigned opcode, struct fuse_front_op_stats *out)
{
	*out = (struct fuse_front_op_stats){0};
	if (!front_opcode_name(opcode))
		return false;
	for (unsigned i = 0; i < front->count; i++) {
		const struct fuse_front_op_stats *stats = &front->sources[i]->stats.op[opcode];
		out->count += read_counter(&stats->count);
		out->errors += read_counter(&stats->errors);
		out->total_ns += read_counter(&stats->total_ns);
		out->bytes += read_counter(&stats->bytes);
		for (unsigned bucket = 0; bucket < LATENCY_BUCKETS; bucket++)
			out->latency[bucket] += read_counter(&stats->latency[bucket]);
	}
	return true;
}

void fuse_front_get_status(const struct fuse_front *front, struct fuse_front_status *out)
{
	const struct front_session *session = &front->session;
	*out = (struct fuse_front_status){
		.kernel_minor = session->kernel_minor,
		.minor = session->minor,
		.offered = session->offered,
		.negotiated = session->negotiated,
		.max_write = WIRE_WRITE_BYTES_MAX,
		.max_pages = WIRE_PAGES_MAX,
		.max_readahead = session->max_readahead,
		.max_background = session->max_background,
		.ended = atomic_load(&front->ended),
	};
	for (unsigned i = 0; i < front->count; i++) {
		const struct dev_source *source = front->sources[i];
		out->running += read_counter(&source->running);
		if (source->ring) {
			out->running += read_counter(&source->ring->running);
			out->ring_entries += source->ring->count;
		}
		out->pauses += read_counter(&source->stats.pauses);
		out->forgets += read_counter(&source->stats.forgets);
		out->interrupts += read_counter(&source->stats.interrupts);
		out->interrupted += read_counter(&source->stats.interrupted);
		out->waiting += read_counter(&source->stats.hold.count);
		out->held |= source->held;
		out->malformed += read_counter(&source->stats.malformed);
		out->refused_answers += read_counter(&source->stats.refused_answers);
	}
}

unsigned fuse_front_features(const struct fuse_front *front, const char *names[FUSE_FRONT_FEATURES_MAX])
{
	return front_feature_names(front->session.negotiated, names);
}
