/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The table of operations: which function answers an opcode, and where it runs.
 *
 * | place      | runs                                                                              |
 * | OWNER      | as a fiber on the owner of the request's nodeid                                   |
 * | ANYWHERE   | as a fiber on the reactor that received it                                        |
 * | AT_ONCE    | in the receiver's poller, without a fiber: it does not wait                       |
 *
 * What changes something goes by the request's ticket, and waits at the door while the device is held (front_hold.c).
 *
 * An opcode without a function is answered ENOSYS, which the kernel remembers for the life of the mount: FLUSH (close
 * sends nothing from then on), OPENDIR (opening a directory is free, and its contents may be cached), ACCESS (the
 * kernel checks permissions by itself), POLL, BMAP, and whatever a newer kernel invents.
 */
#include <errno.h>
#include <time.h>

#include "fs/fuse/front_request.h"
#include "reactor/log.h"

enum place { OWNER, ANYWHERE, AT_ONCE };
enum effect {
	LOOKS,    /* may be interrupted at any time: reads, waits for durability */
	CHANGES,  /* not once it has begun */
	WAITS,    /* as CHANGES, and does not begin while the device is held */
};

struct front_op {
	front_op_fn run;
	enum place place;
	enum effect effect;
};

static int op_init(struct front_request *request)
{
	struct front_session *session = request->session;
	if (session->ready || session->init_error)
		return -EIO;
	const struct fuse_init_in *in = request->call.in;
	bool extended = request->header->len - sizeof(*request->header) >= sizeof(*in);
	int error = front_negotiate(session, in, extended, &request->out.init);
	if (!error)
		request->out_size = sizeof(request->out.init);
	session->ready = !error;
	session->init_error = error;
	return error;
}

static int op_nothing(struct front_request *request)
{
	(void)request;
	return 0;
}

static const struct front_op ops[WIRE_OPCODE_COUNT] = {
	[FUSE_INIT] = {op_init, AT_ONCE},
	[FUSE_DESTROY] = {op_nothing, AT_ONCE},
	[FUSE_RELEASE] = {op_nothing, AT_ONCE},
	[FUSE_RELEASEDIR] = {op_nothing, AT_ONCE},
	[FUSE_LOOKUP] = {front_op_lookup, OWNER},
	[FUSE_GETATTR] = {front_op_getattr, OWNER},
	[FUSE_SETATTR] = {front_op_setattr, OWNER, WAITS},
	[WIRE_STATX] = {front_op_statx, OWNER},
	[FUSE_READLINK] = {front_op_readlink, OWNER},
	[FUSE_SYMLINK] = {front_op_symlink, OWNER, WAITS},
	[FUSE_MKNOD] = {front_op_mknod, OWNER, WAITS},
	[FUSE_MKDIR] = {front_op_mkdir, OWNER, WAITS},
	[FUSE_UNLINK] = {front_op_unlink, OWNER, WAITS},
	[FUSE_RMDIR] = {front_op_rmdir, OWNER, WAITS},
	[FUSE_RENAME] = {front_op_rename, OWNER, WAITS},
	[FUSE_RENAME2] = {front_op_rename2, OWNER, WAITS},
	[FUSE_LINK] = {front_op_link, OWNER, WAITS},
	[FUSE_CREATE] = {front_op_create, OWNER, WAITS},
	[FUSE_TMPFILE] = {front_op_tmpfile, OWNER, WAITS},
	[FUSE_OPEN] = {front_op_open, OWNER, CHANGES},
	[FUSE_READ] = {front_op_read, OWNER},
	[FUSE_WRITE] = {front_op_write, OWNER, WAITS},
	[FUSE_FSYNC] = {front_op_fsync, OWNER},
	[FUSE_FSYNCDIR] = {front_op_fsync, OWNER},
	[FUSE_READDIR] = {front_op_readdir, OWNER},
	[FUSE_READDIRPLUS] = {front_op_readdirplus, OWNER},
	[FUSE_SETXATTR] = {front_op_setxattr, OWNER, WAITS},
	[FUSE_GETXATTR] = {front_op_getxattr, OWNER},
	[FUSE_LISTXATTR] = {front_op_listxattr, OWNER},
	[FUSE_REMOVEXATTR] = {front_op_removexattr, OWNER, WAITS},
	[FUSE_FALLOCATE] = {front_op_fallocate, OWNER, WAITS},
	[FUSE_LSEEK] = {front_op_lseek, OWNER},
	[FUSE_COPY_FILE_RANGE] = {front_op_copy_file_range, OWNER, WAITS},
	[WIRE_COPY_FILE_RANGE_64] = {front_op_copy_file_range_64, OWNER, WAITS},
	[FUSE_IOCTL] = {front_op_ioctl, OWNER, CHANGES},
	[FUSE_STATFS] = {front_op_statfs, ANYWHERE},
	[FUSE_SYNCFS] = {front_op_syncfs, ANYWHERE},
};

/* The reactor's own clock stands still within a turn, and many operations take less than one. */
uint64_t front_clock_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

struct front_stats *front_stats_here(struct front_session *session)
{
	return session->stats[reactor_index(reactor_self())];
}

static void record(struct front_request *request, int error)
{
	uint32_t opcode = request->header->opcode;
	if (opcode >= WIRE_OPCODE_COUNT)
		return;
	struct fuse_front_op_stats *stats = &front_stats_here(request->session)->op[opcode];
	uint64_t took_ns = front_clock_ns() - request->received_ns;
	front_count(&stats->count, 1);
	front_count(&stats->errors, error != 0);
	front_count(&stats->total_ns, took_ns);
	front_count(&stats->latency[latency_bucket(took_ns)], 1);
	if (opcode == FUSE_READ)
		front_count(&stats->bytes, request->data_size);
	else if (opcode == FUSE_WRITE && !error)
		front_count(&stats->bytes, request->out.write.size);
}

/* An answer that never reached the kernel handed out no lookup counts after all. */
static void take_back_lookups(struct front_request *request)
{
	struct fs *fs = request->session->fs;
	if (request->granted_ino)
		fs_forget(fs, request->granted_ino, 1);
	if (request->header->opcode != FUSE_READDIRPLUS)
		return;
	uint32_t used = 0;
	while (used < request->data_size) {
		const struct fuse_direntplus *plus =
			(const struct fuse_direntplus *)((const char *)request->data + used);
		if (plus->entry_out.nodeid)
			fs_forget(fs, plus->entry_out.nodeid, 1);
		used += (uint32_t)FUSE_DIRENTPLUS_SIZE(plus);
	}
}

bool front_opcode_waits_at_door(uint32_t opcode) { return ops[opcode].effect == WAITS; }

/* What a program may see. */
static int error_to_answer(int error)
{
	switch (error) {
	case -ENODEV: case -EILSEQ: case -ETIMEDOUT: case -ECANCELED: /* the block layer's words for a device in trouble */
		return -EIO;
	default:
		/* The kernel refuses other errors, and would wait for ever. */
		return error > 0 || error <= -512 ? -EIO : error;
	}
}

void front_finish(struct front_request *request, int error)
{
	struct front_session *session = request->session;
	error = error_to_answer(error);
	if (error)
		request->out_size = request->data_size = 0;
	const bool answered = !fs_ticket_claim(&request->ticket) && request->transport->answer_interrupted;
	record(request, answered ? -EINTR : error);
	if (answered || request->transport->answer(request, error))
		take_back_lookups(request);
	bool init = request->header->opcode == FUSE_INIT;
	request->transport->release(request);
	if (init)
		session->initialized(session);
}

MAY_WAIT static void run_in_fiber(void *arg)
{
	struct front_request *request = arg;
	const struct front_op *op = &ops[request->header->opcode];
	if (op->effect != LOOKS)
		fs_ticket_use(&request->ticket);
	front_finish(request, op->run(request));
}

void front_refuse(struct front_request *request, int error)
{
	front_count(&front_stats_here(request->session)->malformed, error == -EINVAL);
	if (error == -EINVAL)
		log_warn("fuse: malformed %s request of %u bytes", front_opcode_name(request->header->opcode),
			request->header->len);
	front_finish(request, error);
}

void front_dispatch(struct front_request *request)
{
	uint32_t opcode = request->header->opcode;
	const struct front_op *op = opcode < WIRE_OPCODE_COUNT ? &ops[opcode] : NULL;
	if (!op || !op->run) {
		front_finish(request, -ENOSYS);
		return;
	}
	if (op->place == AT_ONCE) {
		front_finish(request, op->run(request));
		return;
	}
	if (front_hold_stop(request))
		return;
	struct reactor *here = reactor_self();
	struct reactor *owner = op->place == OWNER ? fs_owner(request->session->fs, request->header->nodeid) : here;
	request->start.start =
		(struct fiber_start){.fn = run_in_fiber, .arg = request, .name = front_opcode_name(opcode)};
	if (owner == here)
		fiber_start(&request->start.start);
	else
		fiber_start_on(owner, &request->start);
}

void front_forget(struct front_session *session, const struct fuse_in_header *header, const struct front_call *call)
{
	struct front_stats *stats = front_stats_here(session);
	front_count(&stats->op[header->opcode].count, 1);
	if (header->opcode == FUSE_FORGET) {
		const struct fuse_forget_in *in = call->in;
		fs_forget(session->fs, header->nodeid, in->nlookup);
		front_count(&stats->forgets, 1);
		return;
	}
	/* At most what fits one message: 65,536. */
	const struct fuse_forget_one *one = call->data;
	uint32_t count = call->data_size / sizeof(*one);
	for (uint32_t i = 0; i < count; i++)
		fs_forget(session->fs, one[i].nodeid, one[i].nlookup);
	front_count(&stats->forgets, count);
}
