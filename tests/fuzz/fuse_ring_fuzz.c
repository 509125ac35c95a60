/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: requests that come by io_uring, whatever their headers, sizes and payloads are, bring the front end down no more than
 * those from /dev/fuse: each is answered once, in its entry and with its number, by an answer that fits; an entry that the
 * kernel fails, when it is given or later, costs no other one.
 * Method: the filesystem and the messages of fuse_front, and a ring of which the kernel's side is this file: it takes the
 * commands that the front end gives, looks at every field of them, and completes some of them with a request. The text
 * that says how many CPUs there are is ours, too. Before each message a byte says how (enum lie).
 *
 * Covers: fs/fuse/front_ring.c fs/fuse/front_decode.c fs/fuse/front_dispatch.c fs/fuse/front_negotiate.c fs/fuse/fuse_front.c
 * Length: 1500
 * Runs: 250
 */
#include <errno.h>
#include <stdio.h>

#include "fs/fuse/front_decode.h"
#include "fs/fuse/front_ring.h"
#include "tests/fuzz/fuzz_fuse.h"

enum { ENTRIES_MAX = 256, SLOTS = 512 };
enum lie {
	LIE_SOCKET = 0x01,           /* no lie: this one goes by /dev/fuse */
	LIE_PAYLOAD_SIZE = 0x02,     /* any number */
	LIE_COMMIT_ID = 0x04,        /* any number, also one that another entry has */
	LIE_FIXED = 0x08,            /* the fixed struct is overwritten while the request runs */
	LIE_POSITIVE = 0x10,         /* the command completes with a positive number */
	LIE_QUEUE_SHIFT = 5,         /* the rest chooses the entry */
};

/* What the kernel knows of an entry. */
struct kernel_entry {
	uint64_t user_data, commit_id;
	struct wire_ring_headers *headers;
	char *payload;
	uint16_t queue;
	enum { WAITS, RUNS, GONE } state;
	bool overwrite;
};
static struct kernel_entry entries[ENTRIES_MAX];
static unsigned entry_count;
static uint64_t next_commit_id;
static int fuse_fd;
static bool is_open, refuses; /* the ring; the kernel refuses an entry */
static int refusal;
static void *payloads[ENTRIES_MAX];
static unsigned payload_count;
static char possible[32];    /* CPUs, as the kernel says it */

/* The memory that a ring shares with its kernel. */
static struct {
	struct io_uring_sqe sqe[2 * SLOTS];
	struct io_uring_cqe cqe[SLOTS];
	unsigned sq_head, sq_tail, cq_head, cq_tail, flags;
} shared;

/* ---- in place of reactor/uring.c and the kernel ---- */

int __wrap_uring_init(struct uring *uring, unsigned count, unsigned flags);
void __wrap_uring_fini(struct uring *uring);
void __wrap_uring_enter(struct uring *uring);
void __wrap_uring_awake(struct uring *uring);
bool __wrap_uring_may_sleep(struct uring *uring);
bool __wrap_ring_offered(void);
FILE *__wrap_fopen(const char *path, const char *mode);
FILE *__real_fopen(const char *path, const char *mode);
void *__wrap_dma_alloc(size_t size, size_t align);
void __wrap_dma_free(void *memory);
void *__real_dma_alloc(size_t size, size_t align);
void __real_dma_free(void *memory);

/* Payloads of entries stand alone, so that the sanitizer sees their ends. */
void *__wrap_dma_alloc(size_t size, size_t align)
{
	if (size != RING_PAYLOAD_BYTES || payload_count == ENTRIES_MAX)
		return __real_dma_alloc(size, align);
	return payloads[payload_count++] = aligned_alloc(align, size);
}

void __wrap_dma_free(void *memory)
{
	for (unsigned i = 0; i < payload_count; i++)
		if (memory && payloads[i] == memory) {
			payloads[i] = payloads[--payload_count];
			free(memory);
			return;
		}
	__real_dma_free(memory);
}

bool __wrap_ring_offered(void) { return true; }

FILE *__wrap_fopen(const char *path, const char *mode)
{
	const bool ours = !strcmp(path, "/sys/devices/system/cpu/possible");
	return ours ? fmemopen(possible, strlen(possible) + !possible[0], "r") : __real_fopen(path, mode);
}

int __wrap_uring_init(struct uring *uring, unsigned count, unsigned flags)
{
	FUZZ_REQUIRE(!is_open && count && count <= ENTRIES_MAX && flags == IORING_SETUP_SQE128, "a ring of %u", count);
	memset(&shared, 0, sizeof(shared));
	*uring = (struct uring){.wake_fd = -1, .ring.flags = flags};
	uring->ring.sq = (struct io_uring_sq){.khead = &shared.sq_head, .ktail = &shared.sq_tail, .kflags = &shared.flags,
		.sqes = shared.sqe, .ring_mask = SLOTS - 1, .ring_entries = SLOTS};
	uring->ring.cq = (struct io_uring_cq){.khead = &shared.cq_head, .ktail = &shared.cq_tail, .cqes = shared.cqe,
		.ring_mask = SLOTS - 1, .ring_entries = SLOTS};
	is_open = true;
	return 0;
}

void __wrap_uring_fini(struct uring *uring)
{
	FUZZ_REQUIRE(is_open && !uring->unsubmitted, "a ring is closed that has commands to give");
	is_open = false;
	entry_count = 0;
}

void __wrap_uring_awake(struct uring *uring) {}
bool __wrap_uring_may_sleep(struct uring *uring) { return !uring->unsubmitted && shared.cq_head == shared.cq_tail; }

static void complete(uint64_t user_data, int result)
{
	FUZZ_REQUIRE(shared.cq_tail - shared.cq_head < SLOTS, "the ring is full");
	shared.cqe[shared.cq_tail % SLOTS] = (struct io_uring_cqe){.user_data = user_data, .res = result};
	shared.cq_tail++;
}

static void entry_register(const struct io_uring_sqe *sqe, const struct wire_ring_command *command)
{
	const struct iovec *iov = (const struct iovec *)(uintptr_t)sqe->addr;
	FUZZ_REQUIRE(entry_count < ENTRIES_MAX && sqe->len == 2 && iov[0].iov_len == sizeof(struct wire_ring_headers) &&
		iov[1].iov_len == RING_PAYLOAD_BYTES && (uintptr_t)iov[1].iov_base % 4096 == 0, "an entry without its buffers");
	FUZZ_REQUIRE(!command->commit_id, "the first command of an entry answers something");
	if (refuses && entry_count == 1) {
		complete(sqe->user_data, refusal);
		return;
	}
	entries[entry_count++] = (struct kernel_entry){.user_data = sqe->user_data, .headers = iov[0].iov_base,
		.payload = iov[1].iov_base, .queue = command->queue};
}

static struct kernel_entry *entry_of(uint64_t user_data)
{
	for (unsigned i = 0; i < entry_count; i++)
		if (entries[i].user_data == user_data)
			return &entries[i];
	FUZZ_REQUIRE(false, "a command for an entry that nobody knows");
}

static void entry_answered(const struct io_uring_sqe *sqe, const struct wire_ring_command *command)
{
	static char answer[sizeof(struct fuse_out_header) + RING_PAYLOAD_BYTES] __attribute__((aligned(8)));
	struct kernel_entry *entry = entry_of(sqe->user_data);
	const uint32_t size = entry->headers->payload_size;
	FUZZ_REQUIRE(entry->state == RUNS, "an answer to an entry without a request");
	FUZZ_REQUIRE(command->commit_id == entry->commit_id && command->queue == entry->queue, "request %llu is answered as %llu",
		(unsigned long long)entry->commit_id, (unsigned long long)command->commit_id);
	FUZZ_REQUIRE(size <= RING_PAYLOAD_BYTES, "an answer of %u bytes", size);
	memcpy(answer, entry->headers->in_out, sizeof(struct fuse_out_header));
	memcpy(answer + sizeof(struct fuse_out_header), entry->payload, size);
	entry->state = WAITS;
	fuzz_fuse_answer(answer, sizeof(struct fuse_out_header) + size);
}

void __wrap_uring_enter(struct uring *uring)
{
	FUZZ_REQUIRE(is_open, "a command for a ring that is closed");
	for (; shared.sq_head != uring->ring.sq.sqe_tail; shared.sq_head++, uring->unsubmitted--) {
		const struct io_uring_sqe *sqe = &shared.sqe[2 * (shared.sq_head % SLOTS)];
		struct wire_ring_command command;
		memcpy(&command, sqe->cmd, sizeof(command));
		FUZZ_REQUIRE(sqe->opcode == IORING_OP_URING_CMD && sqe->fd == fuse_fd && !command.flags, "opcode %u of the ring",
			sqe->opcode);
		if (sqe->cmd_op == WIRE_RING_REGISTER)
			entry_register(sqe, &command);
		else
			entry_answered(sqe, &command);
	}
	FUZZ_REQUIRE(!uring->unsubmitted, "%u commands were not made", uring->unsubmitted);
}

/* ---- requests ---- */

static struct kernel_entry *entry_waiting(unsigned number)
{
	for (unsigned i = 0; i < entry_count; i++)
		if (entries[(i + number) % entry_count].state == WAITS)
			return &entries[(i + number) % entry_count];
	return NULL;
}

static void ring_prepare(int fd, struct fuzz_bytes *input)
{
	static const char *const texts[] = {"0\n", "0\n", "0-1\n", "0-2,5\n", "0-63\n", ""};
	const uint8_t how = fuzz_u8(input);
	fuse_fd = fd;
	entry_count = 0;
	refuses = how & 0x40;
	refusal = how & 0x20 ? -ENOTCONN : -EINVAL;
	snprintf(possible, sizeof(possible), "%s", texts[how % ARRAY_SIZE(texts)]);
	if (how & 0x80)
		fuzz_take(input, possible, 16);
}

/* Where the parts of a message go. */
static void request_place(const struct kernel_entry *entry, const char *message, size_t length)
{
	struct front_message parts;
	struct fuse_in_header header;
	memcpy(&header, message, sizeof(header));
	memset(entry->headers, 0, sizeof(*entry->headers));
	memcpy(entry->headers->in_out, message, sizeof(header));
	if (header.len != length || front_message_split(message, length, (struct front_dialect){.setxattr_ext = true}, &parts)) {
		memcpy(entry->headers->fixed, message + sizeof(header), MIN(length - sizeof(header), (size_t)WIRE_RING_FIXED_BYTES));
		return;
	}
	memcpy(entry->headers->fixed, parts.fixed, parts.fixed_size);
	memcpy(entry->payload, parts.tail, parts.tail_size);
	entry->headers->payload_size = parts.tail_size;
}

static bool ring_send(const char *message, size_t length, struct fuzz_bytes *input)
{
	if (!is_open || !entry_count || length < sizeof(struct fuse_in_header))
		return false;
	const uint8_t lie = fuzz_u8(input);
	struct kernel_entry *entry = entry_waiting(lie >> LIE_QUEUE_SHIFT);
	if (lie & LIE_SOCKET || !entry)
		return false;
	request_place(entry, message, length);
	entry->commit_id = lie & LIE_COMMIT_ID ? fuzz_u64(input) : ++next_commit_id;
	entry->headers->commit_id = entry->commit_id;
	if (lie & LIE_PAYLOAD_SIZE) {
		memset(entry->payload + entry->headers->payload_size, 'd', RING_PAYLOAD_BYTES - entry->headers->payload_size);
		entry->headers->payload_size = fuzz_u32(input);
	}
	entry->overwrite = lie & LIE_FIXED;
	entry->state = RUNS;
	complete(entry->user_data, lie & LIE_POSITIVE ? 1 : 0);
	return true;
}

/* A command ends without a request: the entry is lost. */
static bool ring_fail(struct fuzz_bytes *input)
{
	static const int errors[] = {-EINVAL, -ENOTCONN, -EAGAIN, -ECANCELED, -ENODEV, INT32_MIN, -1, -ECONNABORTED};
	const uint8_t how = fuzz_u8(input);
	struct kernel_entry *entry = entry_waiting(how >> LIE_QUEUE_SHIFT);
	if (!is_open || !entry)
		return false;
	entry->state = GONE;
	complete(entry->user_data, errors[how % ARRAY_SIZE(errors)]);
	return true;
}

static void ring_take(void)
{
	for (unsigned i = 0; i < entry_count; i++)
		if (entries[i].state == RUNS && entries[i].overwrite && shared.cq_head == shared.cq_tail)
			memset(entries[i].headers->fixed, 0, sizeof(entries[i].headers->fixed));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct fuzz_fuse_way ring = {ring_prepare, ring_send, ring_fail, ring_take};
	next_commit_id = 0;
	fuzz_fuse_run(&ring, data, size);
	FUZZ_REQUIRE(!is_open, "the ring stays open");
	return 0;
}
