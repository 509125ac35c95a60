/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The transport /dev/fuse, outward: buffers for answers, writing them, and the way home of a request. All of it runs on
 * the reactor that ran the request; a write to the clone of another reactor is fine, the kernel only wants the clone
 * that delivered the request.
 */
#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fs/fuse/front_dev.h"
#include "reactor/log.h"

/* Limits per reactor: a fiber that needs a buffer of a class which is out waits for one. */
static const struct {
	uint32_t bytes;
	unsigned count;
} classes[DEV_ANSWER_CLASSES] = {
	{4096, 256},
	{64 << 10, 32},
	{WIRE_WRITE_BYTES_MAX, 8},
};

int dev_answers_open(struct dev_source *source)
{
	for (unsigned i = 0; i < DEV_ANSWER_CLASSES; i++) {
		struct dev_answer_class *class = &source->answers[i];
		fiber_cond_init(&class->freed);
		int error = dma_pool_create(classes[i].bytes, 4096, classes[i].count, &class->pool);
		if (error)
			return error;
	}
	return 0;
}

void dev_answers_close(struct dev_source *source)
{
	for (unsigned i = 0; i < DEV_ANSWER_CLASSES; i++) {
		if (source->answers[i].pool)
			dma_pool_destroy(source->answers[i].pool);
		source->answers[i].pool = NULL;
	}
}

static struct dev_source *source_here(const struct dev_request *request)
{
	return request->source->peers[reactor_index(reactor_self())];
}

MAY_WAIT static void *dev_buffer_get(struct front_request *base, uint32_t size)
{
	struct dev_request *request = CONTAINER_OF(base, struct dev_request, base);
	assert(!request->buffer && size <= WIRE_WRITE_BYTES_MAX);
	unsigned index = 0;
	while (classes[index].bytes < size)
		index++;
	struct dev_answer_class *class = &source_here(request)->answers[index];
	void *buffer = dma_pool_get(class->pool);
	while (!buffer && class->out > 0) {
		fiber_cond_wait(&class->freed, "buffer for a FUSE answer");
		buffer = dma_pool_get(class->pool);
	}
	if (!buffer)
		return NULL;
	class->out++;
	request->buffer = buffer;
	request->buffer_class = index;
	return buffer;
}

static void buffer_put(struct dev_request *request)
{
	struct dev_answer_class *class = &source_here(request)->answers[request->buffer_class];
	dma_pool_put(class->pool, request->buffer);
	class->out--;
	request->buffer = NULL;
	fiber_cond_signal(&class->freed);
}

static int write_message(int fd, const struct iovec *iov, int count)
{
	ssize_t written;
	do
		written = writev(fd, iov, count);
	while (written < 0 && errno == EINTR);
	return written < 0 ? -errno : 0;
}

static int dev_answer(struct front_request *base, int error)
{
	struct dev_request *request = CONTAINER_OF(base, struct dev_request, base);
	struct fuse_out_header header = {
		.len = (uint32_t)sizeof(header) + base->out_size + base->data_size,
		.error = error,
		.unique = base->header->unique,
	};
	const struct iovec iov[3] = {
		{&header, sizeof(header)},
		{&base->out, base->out_size},
		{(void *)base->data, base->data_size},
	};
	int result = write_message(request->source->fd, iov, ARRAY_SIZE(iov));
	/* ENOENT: aborted meanwhile. ENODEV, EPERM: the mount is gone. Anything else is a mistake of ours; the kernel
	 * has then failed the request by itself. */
	if (result && result != -ENOENT && result != -ENODEV && result != -EPERM && result != -ECONNABORTED) {
		front_count(&front_stats_here(base->session)->refused_answers, 1);
		log_error("fuse: the kernel refused the answer to %s (error %d, %u bytes): %s",
			front_opcode_name(base->header->opcode), error, header.len, strerror(-result));
	}
	return result;
}

static void dev_answer_interrupted(struct front_request *base)
{
	struct dev_request *request = CONTAINER_OF(base, struct dev_request, base);
	struct fuse_out_header header = {.len = sizeof(header), .error = -EINTR, .unique = base->header->unique};
	const struct iovec iov = {&header, sizeof(header)};
	int result = write_message(request->source->fd, &iov, 1);
	if (result && result != -ENOENT && result != -ENODEV && result != -EPERM && result != -ECONNABORTED)
		log_error("fuse: the kernel refused the answer to an interrupted %s: %s",
			front_opcode_name(base->header->opcode), strerror(-result));
}

/* @from: of what is cached of the inode's contents; negative: attributes only. */
static void tell_stale(int fd, uint64_t ino, int64_t from, const char *what)
{
	struct fuse_notify_inval_inode_out inode = {.ino = ino, .off = from};
	struct fuse_out_header header = {
		.len = sizeof(header) + sizeof(inode),
		.error = FUSE_NOTIFY_INVAL_INODE,
	};
	const struct iovec iov[2] = {{&header, sizeof(header)}, {&inode, sizeof(inode)}};
	int result = write_message(fd, iov, ARRAY_SIZE(iov));
	if (result && result != -ENOENT && result != -ENODEV && result != -EPERM)
		log_warn("fuse: inode %llu: the kernel keeps stale %s: %s", (unsigned long long)ino, what,
			strerror(-result));
}

void dev_tell_attributes_stale(int fd, uint64_t ino)
{
	/* No pages: so the kernel takes no lock of the inode, and the inode, which the unanswered request keeps in use,
	 * can be neither new nor on its way out: nothing to wait for. */
	tell_stale(fd, ino, -1, "attributes");
}

void dev_tell_listing_stale(int fd, uint64_t ino) { tell_stale(fd, ino, 0, "directory entries"); }

static void dev_forget_attributes(struct front_request *base, uint64_t ino)
{
	dev_tell_attributes_stale(CONTAINER_OF(base, struct dev_request, base)->source->fd, ino);
}

static void dev_forget_listing(struct front_request *base, uint64_t ino)
{
	dev_tell_listing_stale(CONTAINER_OF(base, struct dev_request, base)->source->fd, ino);
}

static void home_message(struct message *message)
{
	dev_request_home(CONTAINER_OF(message, struct dev_request, message));
}

static void dev_release(struct front_request *base)
{
	struct dev_request *request = CONTAINER_OF(base, struct dev_request, base);
	if (request->buffer)
		buffer_put(request);
	if (request->source->reactor == reactor_self()) {
		dev_request_home(request);
		return;
	}
	request->message.fn = home_message;
	reactor_send(request->source->reactor, &request->message);
}

const struct front_transport front_dev_transport = {
	.buffer_get = dev_buffer_get,
	.answer = dev_answer,
	.answer_interrupted = dev_answer_interrupted,
	.forget_attributes = dev_forget_attributes,
	.forget_listing = dev_forget_listing,
	.release = dev_release,
};
