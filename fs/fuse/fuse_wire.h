/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the FUSE protocol has beyond the <linux/fuse.h> of Debian 12 (which stops at 7.38), under our own names, and the
 * few sizes that the front end relies on. Everything here is kernel ABI, in host byte order.
 *
 * A message from the kernel on /dev/fuse:
 *
 *     | fuse_in_header (40) | fixed struct of the opcode | names, each ended by a zero byte | data | extensions |
 *
 * and an answer:
 *
 *     | fuse_out_header (16) | fixed struct of the opcode | data |
 */
#ifndef LANEFS_FS_FUSE_WIRE_H
#define LANEFS_FS_FUSE_WIRE_H

#include <linux/fuse.h>

#include "reactor/base.h"

enum {
	WIRE_MINOR = 45,          /* the newest 7.x whose messages are understood here */
	WIRE_MINOR_MIN = 31,      /* Linux 5.4 */
	/* Linux 6.1: from 6.0 on the kernel itself takes setgid from new files whose creator may not have it. */
	WIRE_MINOR_SGID_STRIPPED = 37,
	/* Linux 6.6: from 6.5 on the kernel holds the lock of a directory whose parent changes. */
	WIRE_MINOR_MOVED_LOCKED = 39,
	WIRE_WRITE_BYTES_MAX = 1 << 20,
	WIRE_PAGES_MAX = WIRE_WRITE_BYTES_MAX / 4096,
	WIRE_WRITE_HEADER_BYTES = sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in),
	WIRE_INIT_IN_BYTES_MIN = 16, /* before INIT_EXT (7.36) the INIT request ended here */
};
static_assert(WIRE_WRITE_HEADER_BYTES == 80, "payloads of WRITE begin 80 bytes into the message");
static_assert(sizeof(struct fuse_init_out) == 64, "fuse_init_out");

/* INIT flags, 64 bits wide: the upper half travels in flags2. */
#define WIRE_CREATE_SUPP_GROUP (1ull << 34)    /* 7.38 */
#define WIRE_DIRECT_IO_ALLOW_MMAP (1ull << 36) /* 7.39 */
#define WIRE_PASSTHROUGH (1ull << 37)          /* 7.40 */
#define WIRE_NO_EXPORT_SUPPORT (1ull << 38)    /* 7.40 */
#define WIRE_HAS_RESEND (1ull << 39)           /* 7.40 */
#define WIRE_ALLOW_IDMAP (1ull << 40)          /* 7.41 */
#define WIRE_OVER_IO_URING (1ull << 41)        /* 7.42 */
#define WIRE_REQUEST_TIMEOUT (1ull << 42)      /* 7.43 */

enum {
	WIRE_STATX = 52,              /* 7.39 */
	WIRE_COPY_FILE_RANGE_64 = 53, /* 7.45 */
	WIRE_OPCODE_COUNT = 54,
};

struct wire_statx_time {
	int64_t seconds;
	uint32_t nanoseconds;
	int32_t reserved;
};
struct wire_statx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, spare0;
	uint64_t ino, size, blocks, attributes_mask;
	struct wire_statx_time atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t spare2[14];
};
static_assert(sizeof(struct wire_statx) == 256, "fuse_statx");
struct wire_statx_in {
	uint32_t getattr_flags, reserved;
	uint64_t fh;
	uint32_t sx_flags, sx_mask;
};
static_assert(sizeof(struct wire_statx_in) == 24, "fuse_statx_in");
struct wire_statx_out {
	uint64_t attr_valid;
	uint32_t attr_valid_nsec, flags;
	uint64_t spare[2];
	struct wire_statx stat;
};
static_assert(sizeof(struct wire_statx_out) == 288, "fuse_statx_out");

struct wire_copy_file_range_out { /* of COPY_FILE_RANGE_64; the older opcode answers with fuse_write_out */
	uint64_t bytes_copied;
};

/*
 * FUSE over io_uring (7.42). A command on the ring registers an entry of a CPU's queue; it completes when the kernel
 * has put a request into the entry's two buffers, and the next one answers it and asks for another.
 *
 *     headers:  | fuse_in_header, then fuse_out_header (128) | fixed struct of the opcode (128) | wire_ring_entry |
 *     payload:  | names, each ended by a zero byte | data |          and the answer: | fixed struct | data |
 */
enum { WIRE_RING_REGISTER = 1, WIRE_RING_COMMIT_AND_FETCH = 2, WIRE_RING_FIXED_BYTES = 128 };
struct wire_ring_command { /* in the entry of the submission queue, at its `cmd` */
	uint64_t flags, commit_id;
	uint16_t queue;
	uint8_t padding[6];
};
static_assert(sizeof(struct wire_ring_command) == 24, "fuse_uring_cmd_req");
struct wire_ring_headers {
	_Alignas(8) char in_out[128];
	_Alignas(8) char fixed[WIRE_RING_FIXED_BYTES];
	uint64_t flags, commit_id;
	uint32_t payload_size, padding;
	uint64_t reserved;
};
static_assert(sizeof(struct wire_ring_headers) == 288, "fuse_uring_req_header");

/* Device numbers travel as the kernel's new_encode_dev: 12 bits of major, 20 bits of minor. */
static inline uint32_t wire_rdev_encode(uint32_t major, uint32_t minor)
{
	return (minor & 0xff) | (major & 0xfff) << 8 | (minor & ~0xffu) << 12;
}
static inline uint32_t wire_rdev_major(uint32_t rdev) { return (rdev & 0xfff00) >> 8; }
static inline uint32_t wire_rdev_minor(uint32_t rdev) { return (rdev & 0xff) | ((rdev >> 12) & 0xfff00); }

#endif
