/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The decoder: bytes from the kernel into a struct front_call. Pure functions without state, so that they can be tested
 * and fuzzed without a kernel. The bytes are untrusted: a call that decodes without an error has its fixed struct, its
 * names (ended by a zero byte inside the message, entry names without '/') and its data wholly inside the message, and
 * the sizes that the fixed struct claims agree with what is there.
 *
 * A transport hands the message over in two pieces, because they do: /dev/fuse delivers one run of bytes, which
 * front_message_split cuts at the size of the opcode's fixed struct; io_uring delivers the fixed struct apart.
 */
#ifndef LANEFS_FS_FUSE_FRONT_DECODE_H
#define LANEFS_FS_FUSE_FRONT_DECODE_H

#include "fs/fs.h"
#include "fs/fuse/fuse_wire.h"

struct front_message {
	const struct fuse_in_header *header;
	const void *fixed;      /* 8-byte aligned */
	uint32_t fixed_size;
	const char *tail;       /* names and data */
	uint32_t tail_size;
};

/* A decoded request. All pointers point into the message. */
struct front_call {
	const void *in;         /* the opcode's fixed struct; NULL when it has none */
	struct fs_name name[2];
	const void *data;       /* WRITE, SETXATTR, IOCTL, BATCH_FORGET */
	uint32_t data_size;
};

/* What may differ between kernels. */
struct front_dialect {
	bool setxattr_ext;      /* SETXATTR_EXT was negotiated: fuse_setxattr_in has 16 bytes, else 8 */
};

/* @bytes: a whole message, 8-byte aligned. -EINVAL when header.len is not @length, or it is too short for its opcode.
 * -ENOSYS when the opcode is not known; the header is valid then. */
int front_message_split(const void *bytes, size_t length, struct front_dialect dialect, struct front_message *out)
	MUST_CHECK;
/* -EINVAL: malformed. */
int front_decode(const struct front_message *message, struct front_dialect dialect, struct front_call *out) MUST_CHECK;

/* Name of an opcode for people, "LOOKUP"; NULL for what is not known. */
const char *front_opcode_name(uint32_t opcode);

#endif
