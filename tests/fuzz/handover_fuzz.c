/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: nothing that stands where a daemon should hand its mount over is believed: facts in JSON, the state in bytes, messages
 * with descriptors. What is accepted comes out the same when it is told on, and no descriptor is lost or left open.
 * Method: the first byte chooses what it is. Half of the states get the sum, the length and the version that they should have.
 *
 * Covers: fs/daemon/handover_state.c fs/daemon/handover_wire.c
 * Length: 1024
 * Runs: 100000
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include "fs/daemon/handover_state.h"
#include "fs/daemon/handover_wire.h"
#include "reactor/log.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"

static char message[256];

static void fuzz_facts(struct fuzz_bytes *input)
{
	static struct handover_facts facts, again;
	char *text = fuzz_string(input, '\0');
	struct json_object *object = json_tokener_parse(text);
	const int error = handover_facts_parse(object, &facts, message, sizeof(message));
	json_object_put(object);
	free(text);
	if (error) {
		FUZZ_REQUIRE(message[0], "refused without a word");
		return;
	}
	object = handover_facts_new(&facts);
	FUZZ_REQUIRE(handover_facts_parse(object, &again, message, sizeof(message)) == 0, "not told on: %s", message);
	FUZZ_REQUIRE(!strcmp(facts.target, again.target) && !strcmp(facts.directory, again.directory) &&
		!strcmp(facts.options, again.options) && !strcmp(facts.notify_socket, again.notify_socket) &&
		facts.no_utab == again.no_utab && facts.agreement.kernel_minor == again.agreement.kernel_minor &&
		facts.agreement.offered == again.agreement.offered && facts.agreement.negotiated == again.agreement.negotiated,
		"told on differently");
	json_object_put(object);
}

/* | magic 8 | version 4 | flags 4 | uuid 16 | sequence 8 | count 8 | sum 8 | counts of 16 | */
enum { STATE_COUNT_AT = 40, STATE_SUM_AT = 48, STATE_BYTES = 56, STATE_COUNT_BYTES = 16 };

static void state_mend(uint8_t *bytes, size_t size)
{
	const uint64_t magic = htole64(0x4f4873666e616c01ull), count = htole64((size - STATE_BYTES) / STATE_COUNT_BYTES);
	const uint32_t version = htole32(HANDOVER_VERSION);
	memcpy(bytes, &magic, sizeof(magic));
	memcpy(bytes + sizeof(magic), &version, sizeof(version));
	memcpy(bytes + STATE_COUNT_AT, &count, sizeof(count));
	memset(bytes + STATE_SUM_AT, 0, sizeof(uint64_t));
	const uint64_t sum = htole64(XXH64(bytes, size, 0));
	memcpy(bytes + STATE_SUM_AT, &sum, sizeof(sum));
}

static void check_state(const struct handover_state *state)
{
	struct handover_state again;
	uint64_t total = 0;
	int fd;
	for (uint64_t i = 0; i < state->legacy.count; i++)
		FUZZ_REQUIRE(state->legacy.counts[i].ino && !__builtin_add_overflow(total, state->legacy.counts[i].count, &total),
			"count %llu", (unsigned long long)i);
	int error = handover_state_write(state, &fd);
	FUZZ_REQUIRE(!error, "not written: %s", strerror(-error));
	error = handover_state_read(fd, &again, message, sizeof(message));
	FUZZ_REQUIRE(!error, "not read: %s", message);
	FUZZ_REQUIRE(again.legacy.count == state->legacy.count && again.suid_seen == state->suid_seen &&
		again.legacy.durable_sequence == state->legacy.durable_sequence &&
		!memcmp(again.legacy.counts, state->legacy.counts, again.legacy.count * sizeof(*again.legacy.counts)),
		"told on differently");
	free(again.legacy.counts);
	close(fd);
}

static void fuzz_state(struct fuzz_bytes *input)
{
	struct handover_state state;
	const bool mend = fuzz_u8(input) & 1;
	const size_t size = input->left;
	uint8_t *bytes = malloc(size ? size : 1);
	FUZZ_REQUIRE(bytes, "no memory");
	fuzz_take(input, bytes, size);
	if (mend && size >= STATE_BYTES)
		state_mend(bytes, size);
	const int error = handover_state_parse(bytes, size, &state, message, sizeof(message));
	FUZZ_REQUIRE(error ? message[0] && !state.legacy.counts : 1, "refused without a word, or with memory");
	if (!error)
		check_state(&state);
	free(state.legacy.counts);
	free(bytes);
}

/* The descriptors that come are the null device's. */
static void send_piece(int socket, struct fuzz_bytes *input, int null_fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(8 * sizeof(int))];
	} control = {};
	const unsigned fds = fuzz_u8(input) % 9;
	const size_t wanted = fuzz_u16(input) % 1024, length = MIN(wanted, input->left);
	struct iovec iov = {(void *)input->at, length};
	struct msghdr piece = {.msg_iov = &iov, .msg_iovlen = 1};
	if (fds) {
		piece.msg_control = control.space;
		piece.msg_controllen = CMSG_SPACE(fds * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(fds * sizeof(int));
		for (unsigned i = 0; i < fds; i++)
			memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &null_fd, sizeof(int));
	}
	(void)!sendmsg(socket, &piece, MSG_NOSIGNAL | MSG_DONTWAIT);
	input->at += length;
	input->left -= length;
}

static void fuzz_wire(struct fuzz_bytes *input)
{
	int sockets[2], fds[HANDOVER_FDS];
	struct json_object *object = NULL;
	const bool want_fds = fuzz_u8(input) & 1;
	const int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int error = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets);
	FUZZ_REQUIRE(!error && null_fd >= 0, "no sockets");
	while (input->left > 0)
		send_piece(sockets[0], input, null_fd);
	shutdown(sockets[0], SHUT_WR);
	error = handover_receive(sockets[1], 0, &object, want_fds ? fds : NULL);
	FUZZ_REQUIRE(error || json_object_is_type(object, json_type_object), "no object");
	for (unsigned i = 0; want_fds && i < HANDOVER_FDS; i++) {
		FUZZ_REQUIRE(!error || fds[i] < 0, "a descriptor with an error");
		if (fds[i] >= 0)
			close(fds[i]);
	}
	json_object_put(object);
	close(sockets[0]);
	close(sockets[1]);
	close(null_fd);
	/* What was open is closed: the next one is the same as before. */
	const int next = open("/dev/null", O_RDONLY | O_CLOEXEC);
	FUZZ_REQUIRE(next == null_fd, "a descriptor is left open");
	close(next);
}

static void log_nothing(enum log_level level, const char *line, void *arg) {}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	log_set_sink(log_nothing, NULL);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static void (*const parsers[])(struct fuzz_bytes *input) = {fuzz_facts, fuzz_state, fuzz_wire};
	struct fuzz_bytes input = fuzz_bytes_of(data, size);
	message[0] = '\0';
	parsers[(unsigned)(fuzz_u8(&input) - '0') % ARRAY_SIZE(parsers)](&input);
	return 0;
}
