/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Taking values off a fuzzer's input, front to back. Past the end everything is zero, so that a short input is a
 * complete one and a mutation at the end changes nothing before it.
 */
#ifndef LANEFS_TESTS_FUZZ_BYTES_H
#define LANEFS_TESTS_FUZZ_BYTES_H

#include <stdlib.h>

#include "reactor/base.h"

struct fuzz_bytes {
	const uint8_t *at;
	size_t left;
};

static inline struct fuzz_bytes fuzz_bytes_of(const uint8_t *data, size_t size) { return (struct fuzz_bytes){data, size}; }

/* Copies @size bytes, or what is left and zeroes. */
static inline void fuzz_take(struct fuzz_bytes *bytes, void *out, size_t size)
{
	const size_t here = MIN(size, bytes->left);
	if (size == 0)
		return;
	memset(out, 0, size);
	if (here > 0)
		memcpy(out, bytes->at, here);
	bytes->at += here;
	bytes->left -= here;
}

static inline uint8_t fuzz_u8(struct fuzz_bytes *bytes)
{
	uint8_t value;
	fuzz_take(bytes, &value, sizeof(value));
	return value;
}

static inline uint16_t fuzz_u16(struct fuzz_bytes *bytes)
{
	uint16_t value;
	fuzz_take(bytes, &value, sizeof(value));
	return value;
}

static inline uint32_t fuzz_u32(struct fuzz_bytes *bytes)
{
	uint32_t value;
	fuzz_take(bytes, &value, sizeof(value));
	return value;
}

static inline uint64_t fuzz_u64(struct fuzz_bytes *bytes)
{
	uint64_t value;
	fuzz_take(bytes, &value, sizeof(value));
	return value;
}

/* The rest of the input, or what stands before the next @separator, as a string of the caller's (free). */
static inline char *fuzz_string(struct fuzz_bytes *bytes, char separator)
{
	const uint8_t *end = bytes->left ? memchr(bytes->at, separator, bytes->left) : NULL;
	const size_t length = end ? (size_t)(end - bytes->at) : bytes->left;
	char *text = malloc(length + 1);
	assert(text);
	if (length > 0)
		memcpy(text, bytes->at, length);
	text[length] = '\0';
	bytes->at += length + (end != NULL);
	bytes->left -= length + (end != NULL);
	return text;
}

#endif
