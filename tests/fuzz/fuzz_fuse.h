/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The kernel's side of FUSE, hostile: makes messages out of an input, knows which of them want an answer, and checks the
 * answers, whatever way both go. Byte 0 of an input chooses mount options, then come messages: a byte of flags (enum
 * message_flag in fuzz_fuse.c), the opcode, the node, the length of the body, the body. Nodes are those that answers have
 * named, or any number.
 */
#ifndef LANEFS_TESTS_FUZZ_FUZZ_FUSE_H
#define LANEFS_TESTS_FUZZ_FUZZ_FUSE_H

#include "fs/fuse/fuse_front.h"
#include "fs/fuse/fuse_wire.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/fuzz_bytes.h"

enum { FUZZ_FUSE_ANSWER_BYTES = 2 << 20 };

/* A way for requests beside the socket that stands for /dev/fuse. All NULL: there is none. */
struct fuzz_fuse_way {
	/* Before the front end is made; @fd: its end of the socket. */
	void (*prepare)(int fd, struct fuzz_bytes *input);
	/* False: this one goes by the socket. True: it was taken, and will be answered, whatever it is. */
	bool (*send)(const char *message, size_t length, struct fuzz_bytes *input);
	/* Something that is no request; false: nothing of the kind now. */
	bool (*fail)(struct fuzz_bytes *input);
	/* Gives what has been answered to fuzz_fuse_answer. */
	void (*take)(void);
};

/* Mounts a fresh filesystem, sends what the input says, waits for all answers, unmounts and checks. */
void fuzz_fuse_run(const struct fuzz_fuse_way *way, const uint8_t *data, size_t size);
/* A whole answer or notification, 8-byte aligned. */
void fuzz_fuse_answer(const char *answer, size_t length);

#endif
