/* SPDX-License-Identifier: BSD-3-Clause */
/* A hostile kernel over a filesystem on simulated reactors: see fuzz_fuse.h. */
#include "tests/fuzz/fuzz_fuse.h"

#include <errno.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "reactor/log.h"
#include "tests/sim/calls.h"

enum {
	MESSAGES_MAX = 60,
	BODY_MAX = 4096,
	MESSAGE_BYTES = WIRE_WRITE_HEADER_BYTES + BODY_MAX + (256 << 10),
	NODES_MAX = 16,
	UNIQUES_MAX = 128,
	IMAGE_BYTES = 16 << 20,
};
enum message_flag {
	MESSAGE_FITS = 0x01,       /* sizes in the body are put right */
	MESSAGE_WRONG_LENGTH = 0x02,
	MESSAGE_EXTENSIONS = 0x04,
	MESSAGE_SAME_UNIQUE = 0x08,
	MESSAGE_NODE_IN_BODY = 0x10, /* the first eight bytes of the body are a node */
	MESSAGE_MORE_DATA = 0x20,  /* as many KiB of data behind the body as a byte says */
	MESSAGE_STRANGER = 0x40,   /* another user, without a process */
	MESSAGE_STEP = 0x80,       /* no message: see step_take */
};

static struct machine machine;
static struct fuse_front *front;
static const struct fuzz_fuse_way *way;
static struct fuzz_bytes input;
static int kernel_fd, front_fd;
static uint64_t nodes[NODES_MAX];
static unsigned node_count;
static char message[MESSAGE_BYTES] __attribute__((aligned(8)));
static char answer_bytes[FUZZ_FUSE_ANSWER_BYTES] __attribute__((aligned(8)));

/* Requests that want an answer. */
static struct {
	uint64_t unique;
	uint32_t opcode, size;     /* size: how much was asked for */
	bool twin;                 /* another one has the same number: whose the answer is cannot be told */
} waiting[UNIQUES_MAX];
static unsigned waiting_count;
static uint64_t next_unique;

/* ---- answers ---- */

static void node_keep(uint64_t ino)
{
	for (unsigned i = 0; i < node_count; i++)
		if (nodes[i] == ino)
			return;
	if (ino && node_count < NODES_MAX)
		nodes[node_count++] = ino;
}

static void check_records(const char *at, uint32_t size, bool plus)
{
	const size_t head = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	for (uint32_t used = 0; used < size;) {
		const struct fuse_dirent *dirent = (const struct fuse_dirent *)(at + used);
		if (plus)
			dirent = &((const struct fuse_direntplus *)(at + used))->dirent;
		FUZZ_REQUIRE(size - used >= head && FUSE_DIRENT_ALIGN(head + dirent->namelen) <= size - used,
			"a directory record that is cut off");
		FUZZ_REQUIRE(dirent->namelen && !memchr(dirent->name, '/', dirent->namelen), "a name of %u bytes", dirent->namelen);
		used += (uint32_t)FUSE_DIRENT_ALIGN(head + dirent->namelen);
	}
}

/* The fixed size of a good answer; -1: up to what was asked for. */
static int size_of_answer(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_LOOKUP: case FUSE_SYMLINK: case FUSE_MKNOD: case FUSE_MKDIR: case FUSE_LINK:
		return sizeof(struct fuse_entry_out);
	case FUSE_CREATE: case FUSE_TMPFILE: return sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out);
	case FUSE_GETATTR: case FUSE_SETATTR: return sizeof(struct fuse_attr_out);
	case WIRE_STATX: return sizeof(struct wire_statx_out);
	case FUSE_OPEN: return sizeof(struct fuse_open_out);
	case FUSE_WRITE: case FUSE_COPY_FILE_RANGE: return sizeof(struct fuse_write_out);
	case WIRE_COPY_FILE_RANGE_64: return sizeof(struct wire_copy_file_range_out);
	case FUSE_STATFS: return sizeof(struct fuse_statfs_out);
	case FUSE_LSEEK: return sizeof(struct fuse_lseek_out);
	case FUSE_INIT: return sizeof(struct fuse_init_out);
	case FUSE_READ: case FUSE_READDIR: case FUSE_READDIRPLUS: case FUSE_READLINK: case FUSE_GETXATTR: case FUSE_LISTXATTR:
	case FUSE_IOCTL:
		return -1;
	default: return 0;
	}
}

static void check_body(uint32_t opcode, uint32_t asked, const char *answer, uint32_t size)
{
	const struct fuse_out_header *header = (const struct fuse_out_header *)answer;
	const int fixed = size_of_answer(opcode);
	if (header->error) {
		FUZZ_REQUIRE(header->error < 0 && header->error > -512 && size == 0, "opcode %u: error %d with %u bytes", opcode,
			header->error, size);
		return;
	}
	if (fixed >= 0)
		FUZZ_REQUIRE(size == (uint32_t)fixed, "opcode %u: an answer of %u bytes", opcode, size);
	if (opcode == FUSE_READ || opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS)
		FUZZ_REQUIRE(size <= asked, "opcode %u: %u bytes, asked for %u", opcode, size, asked);
	if (opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS)
		check_records(answer + sizeof(*header), size, opcode == FUSE_READDIRPLUS);
	if (fixed >= (int)sizeof(struct fuse_entry_out) && opcode != WIRE_STATX)
		node_keep(((const struct fuse_entry_out *)(answer + sizeof(*header)))->nodeid);
}

/* Of several with one number rather what must be answered. */
static unsigned waiting_find(uint64_t unique)
{
	unsigned found = waiting_count;
	for (unsigned i = 0; i < waiting_count; i++)
		if (waiting[i].unique == unique && (found == waiting_count || waiting[found].opcode == FUSE_INTERRUPT))
			found = i;
	return found;
}

void fuzz_fuse_answer(const char *answer, size_t length)
{
	const struct fuse_out_header *header = (const struct fuse_out_header *)answer;
	FUZZ_REQUIRE(length >= sizeof(*header) && header->len == length, "an answer of %zu bytes says %u", length, header->len);
	if (header->unique == 0 && header->error > 0) { /* a notification */
		FUZZ_REQUIRE(header->error == FUSE_NOTIFY_INVAL_INODE &&
			length == sizeof(*header) + sizeof(struct fuse_notify_inval_inode_out), "notification %d", header->error);
		return;
	}
	const unsigned i = waiting_find(header->unique);
	FUZZ_REQUIRE(i < waiting_count, "an answer to %llu, which nobody asked, or a second one", (unsigned long long)header->unique);
	const uint32_t opcode = waiting[i].opcode, asked = waiting[i].size;
	const bool twin = waiting[i].twin;
	waiting[i] = waiting[--waiting_count];
	if (!twin)
		check_body(opcode, asked, answer, (uint32_t)(length - sizeof(*header)));
}

static void answers_take(void)
{
	ssize_t length;
	while ((length = recv(kernel_fd, answer_bytes, sizeof(answer_bytes), MSG_DONTWAIT)) > 0)
		fuzz_fuse_answer(answer_bytes, (size_t)length);
	if (way->take)
		way->take();
}

/* ---- messages ---- */

static uint64_t node_take(void)
{
	const uint8_t how = fuzz_u8(&input);
	if (how < 0xe0)
		return nodes[how % node_count];
	return how < 0xf0 ? how & 15 : fuzz_u64(&input);
}

/* INTERRUPT is answered only when it comes too early or too late. */
static bool wants_answer(uint32_t opcode) { return opcode != FUSE_FORGET && opcode != FUSE_BATCH_FORGET; }

static void size_fit(uint32_t opcode, char *body, size_t fixed, uint32_t data)
{
	switch (opcode) {
	case FUSE_WRITE: ((struct fuse_write_in *)body)->size = data; break;
	case FUSE_SETXATTR: {
		/* the name comes first */
		const char *end = memchr(body + fixed, 0, data);
		((struct fuse_setxattr_in *)body)->size = end ? data - (uint32_t)(end + 1 - (body + fixed)) : 0;
		break;
	}
	case FUSE_IOCTL: ((struct fuse_ioctl_in *)body)->in_size = data; break;
	case FUSE_BATCH_FORGET: ((struct fuse_batch_forget_in *)body)->count = data / sizeof(struct fuse_forget_one); break;
	default: break;
	}
}

static size_t fixed_of(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_WRITE: return sizeof(struct fuse_write_in);
	case FUSE_SETXATTR: return sizeof(struct fuse_setxattr_in);
	case FUSE_IOCTL: return sizeof(struct fuse_ioctl_in);
	case FUSE_BATCH_FORGET: return sizeof(struct fuse_batch_forget_in);
	default: return 0;
	}
}

/* Only whole pages of the same kind of data, so that an input stays small. */
static size_t more_data(char *to)
{
	const size_t bytes = (size_t)fuzz_u8(&input) << 10;
	memset(to, 'd', bytes);
	return bytes;
}

static void message_send(uint32_t opcode, size_t length, bool counted, uint32_t asked)
{
	const struct fuse_in_header *header = (const struct fuse_in_header *)message;
	if (way->send && way->send(message, length, &input))
		counted = true;
	else if (send(kernel_fd, message, length, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)length)
		counted = false;
	if (!counted)
		return;
	FUZZ_REQUIRE(waiting_count < UNIQUES_MAX, "too many requests");
	waiting[waiting_count].twin = false;
	for (unsigned i = 0; i < waiting_count; i++)
		if (waiting[i].unique == header->unique)
			waiting[i].twin = waiting[waiting_count].twin = true;
	waiting[waiting_count].unique = header->unique;
	waiting[waiting_count].size = asked;
	waiting[waiting_count++].opcode = opcode;
}

static uint32_t asked_for(uint32_t opcode, const char *body)
{
	return opcode == FUSE_READ || opcode == FUSE_READDIR || opcode == FUSE_READDIRPLUS ?
		((const struct fuse_read_in *)body)->size : UINT32_MAX;
}

static void message_take(uint8_t flags)
{
	struct fuse_in_header *header = (struct fuse_in_header *)message;
	char *body = message + sizeof(*header);
	const uint32_t opcode = fuzz_u8(&input) % (WIRE_OPCODE_COUNT + 4);
	*header = (struct fuse_in_header){.opcode = opcode, .nodeid = node_take(), .pid = 1};
	header->unique = flags & MESSAGE_SAME_UNIQUE ? next_unique : (next_unique += 2);
	const uint64_t node = flags & MESSAGE_NODE_IN_BODY ? node_take() : 0;
	const size_t wanted = fuzz_u16(&input) % BODY_MAX, room = MIN(wanted, input.left);
	memset(body, 0, 128);
	fuzz_take(&input, body, room);
	size_t size = room;
	if (flags & MESSAGE_NODE_IN_BODY) {
		memcpy(body, &node, sizeof(node));
		size = MAX(size, sizeof(node));
	}
	if (flags & MESSAGE_MORE_DATA)
		size += more_data(body + size);
	const size_t fixed = fixed_of(opcode);
	if (flags & MESSAGE_FITS && size >= fixed)
		size_fit(opcode, body, fixed, (uint32_t)(size - fixed));
	if (flags & MESSAGE_STRANGER) {
		header->uid = header->gid = 1000;
		header->pid = 0;
	}
	if (flags & MESSAGE_EXTENSIONS)
		header->total_extlen = fuzz_u8(&input);
	header->len = (uint32_t)(sizeof(*header) + size);
	if (flags & MESSAGE_WRONG_LENGTH)
		header->len = fuzz_u32(&input);
	message_send(opcode, sizeof(*header) + size, wants_answer(opcode) && header->len == sizeof(*header) + size,
		asked_for(opcode, body));
}

/* ---- the machine ---- */

static uint64_t running(void)
{
	struct fuse_front_status status;
	fuse_front_get_status(front, &status);
	return status.running;
}

/* With a ring the front end looks at its socket now and then only. */
static bool unread(void)
{
	int bytes = 0;
	FUZZ_REQUIRE(ioctl(front_fd, FIONREAD, &bytes) == 0, "the socket is gone");
	return bytes > 0;
}

static bool held;

/* Until all is answered; with the device held, what waits for it waits. */
static void settle(void)
{
	for (unsigned i = 0; i < 20000; i++) {
		call_sleep(&machine, 20 * NS_PER_US);
		answers_take();
		if ((running() == 0 && !unread()) || (held && i > 50))
			return;
	}
	FUZZ_REQUIRE(false, "requests do not end");
}

MAY_WAIT static int hold_run(void *arg)
{
	fuse_front_set_held(front, *(const bool *)arg);
	return 0;
}

static void hold(bool how)
{
	held = how;
	sim_on(&machine.sim, FS_ROOT_INODE, hold_run, &how);
}

static void step_take(uint8_t flags)
{
	switch (flags % 4) {
	case 0: hold(!way->fail); break;
	case 1: hold(false); break;
	case 2: /* an old message, cut off */
		if (!way->fail || !way->fail(&input))
			message_send(0, fuzz_u8(&input) % sizeof(struct fuse_in_header), false, 0);
		break;
	default: call_sleep(&machine, (uint64_t)fuzz_u16(&input) * 100 * NS_PER_US);
	}
}

MAY_WAIT static int front_start(void *arg) { return fuse_front_start(front); }

MAY_WAIT static int front_stop(void *arg)
{
	fuse_front_stop(front);
	return 0;
}

/* The kernel speaks first. */
static void init_send(bool odd)
{
	struct fuse_in_header *header = (struct fuse_in_header *)message;
	struct fuse_init_in *in = (struct fuse_init_in *)(message + sizeof(*header));
	*header = (struct fuse_in_header){.len = sizeof(*header) + sizeof(*in), .opcode = FUSE_INIT, .unique = next_unique += 2};
	*in = (struct fuse_init_in){.major = FUSE_KERNEL_VERSION, .minor = WIRE_MINOR, .max_readahead = 131072,
		.flags = UINT32_MAX, .flags2 = UINT32_MAX};
	if (odd) {
		fuzz_take(&input, in, sizeof(*in));
		header->len = sizeof(*header) + fuzz_u8(&input) % (sizeof(*in) + 1);
	}
	message_send(FUSE_INIT, header->len, true, 0);
}

/* INIT may be refused: then nothing is read any more. */
static bool start(uint8_t how)
{
	int fds[2];
	const int room = FUZZ_FUSE_ANSWER_BYTES;
	const int error = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds);
	FUZZ_REQUIRE(!error, "no sockets");
	for (unsigned i = 0; i < 2; i++)
		if (setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)))
			(void)setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	kernel_fd = fds[0];
	front_fd = fds[1];
	const struct fuse_front_options options = {.fd = fds[1], .noopen = how & 1, .writeback = how & 2,
		.requests_max = how & 4 ? 2 : 16, .init_timeout_ms = 100, .io_uring = way->prepare};
	if (way->prepare)
		way->prepare(fds[1], &input);
	machine_start_with(&machine, 1, IMAGE_BYTES, &(struct fs_mount_options){.sync = how & 8, .strictatime = how & 16});
	if (fuse_front_create(machine.sim.fs, machine.sim.group, &options, &front))
		abort();
	init_send(how & 32);
	return sim_on(&machine.sim, FS_ROOT_INODE, front_start, NULL) == 0;
}

static void check_figures(void)
{
	const char *names[FUSE_FRONT_FEATURES_MAX];
	struct fuse_front_op_stats figures;
	for (unsigned opcode = 0; opcode < FUSE_FRONT_OPCODE_COUNT; opcode++)
		FUZZ_REQUIRE(fuse_front_stats_read(front, opcode, &figures) == (fuse_front_opcode_name(opcode) != NULL) &&
			figures.errors <= figures.count, "figures of opcode %u", opcode);
	FUZZ_REQUIRE(fuse_front_features(front, names) <= FUSE_FRONT_FEATURES_MAX, "too many features");
}

static void finish(void)
{
	struct fuse_front_status status;
	hold(false);
	settle();
	check_figures();
	fuse_front_get_status(front, &status);
	FUZZ_REQUIRE(!status.waiting && !status.held, "%llu requests wait at an open door", (unsigned long long)status.waiting);
	sim_on(&machine.sim, FS_ROOT_INODE, front_stop, NULL);
	answers_take();
	for (unsigned i = 0; i < waiting_count; i++)
		FUZZ_REQUIRE(waiting[i].opcode == FUSE_INTERRUPT || status.refused_answers, "no answer to opcode %u", waiting[i].opcode);
}

void fuzz_fuse_run(const struct fuzz_fuse_way *by, const uint8_t *data, size_t size)
{
	way = by;
	input = fuzz_bytes_of(data, size);
	waiting_count = 0;
	next_unique = 0;
	node_count = 0;
	held = false;
	node_keep(FS_ROOT_INODE);
	if (start(fuzz_u8(&input))) {
		for (unsigned i = 0; i < MESSAGES_MAX && input.left > 0; i++) {
			const uint8_t flags = fuzz_u8(&input);
			if (flags & MESSAGE_STEP)
				step_take(flags);
			else
				message_take(flags);
			if (!(flags & 0x60)) /* the others come together with the next */
				settle();
		}
		finish();
	}
	machine.damaged = fs_stopped(machine.sim.fs);
	fuse_front_destroy(front);
	close(kernel_fd);
	close(front_fd);
	machine_stop(&machine);
}

static void log_nothing(enum log_level level, const char *line, void *arg) {}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_set_sink(log_nothing, NULL);
	return 0;
}
