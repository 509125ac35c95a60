/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: whatever bytes come as a FUSE message, the decoder stays inside of them, and what it hands on lies inside, too:
 * the fixed struct whole, names that end before the message does, data of the size that the struct claims.
 * Method: the input is one message after a byte that says which dialect was agreed; its length field is put right in
 * half of the cases, since nothing else gets far. The message lies in memory of exactly its size.
 *
 * Covers: fs/fuse/front_decode.c
 * Runs: 1000000
 */
#include <stdlib.h>

#include "fs/fuse/front_decode.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"


static bool inside(const char *message, size_t length, const void *part, size_t size)
{
	const char *at = part;
	return at >= message && at <= message + length && size <= (size_t)(message + length - at);
}

/* Reads all of it, for the sanitizer to see. */
static unsigned sum(const void *part, size_t size)
{
	unsigned total = 0;
	for (size_t i = 0; i < size; i++)
		total += ((const uint8_t *)part)[i];
	return total;
}

static void check_call(const char *bytes, size_t length, const struct front_message *message, const struct front_call *call)
{
	volatile unsigned total = 0;
	assert(front_opcode_name(message->header->opcode));
	if (call->in) {
		assert(inside(bytes, length, call->in, message->fixed_size));
		total += sum(call->in, message->fixed_size);
	}
	for (unsigned i = 0; i < ARRAY_SIZE(call->name) && call->name[i].bytes; i++) {
		assert(inside(bytes, length, call->name[i].bytes, call->name[i].length + 1u));
		assert(strlen(call->name[i].bytes) == call->name[i].length);
	}
	if (call->data_size > 0)
		assert(inside(bytes, length, call->data, call->data_size));
	total += sum(call->data, call->data_size);
	(void)total;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_bytes input = fuzz_bytes_of(data, size);
	const uint8_t how = fuzz_u8(&input);
	const struct front_dialect dialect = {.setxattr_ext = how & 1};
	const size_t length = input.left;
	char *bytes = malloc(length + (length == 0));
	assert(bytes);
	fuzz_take(&input, bytes, length);
	if (how & 2 && length >= sizeof(uint32_t))
		memcpy(bytes, &(uint32_t){(uint32_t)length}, sizeof(uint32_t));

	struct front_message message;
	struct front_call call;
	int error = front_message_split(bytes, length, dialect, &message);
	if (!error)
		error = front_decode(&message, dialect, &call);
	assert(error <= 0);
	if (!error)
		check_call(bytes, length, &message, &call);
	free(bytes);
	return 0;
}
