/* SPDX-License-Identifier: BSD-3-Clause */
/* The operations of the fault sweep on data and extended attributes. */
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/sim/fault_ops.h"

enum { B = FS_BLOCK_SIZE, BUFFER_BYTES = 1 << 20 };
static _Alignas(4096) uint8_t buffer[BUFFER_BYTES], wanted[BUFFER_BYTES];

/* ---- reading ---- */

/* @letter 0: zeroes. */
static int get(struct fault_run *run, enum place place, uint64_t offset, uint32_t length, char letter)
{
	uint32_t found;
	const int error = call_read(M, AT(place), buffer, offset, length, &found);
	if (error)
		return error;
	if (letter)
		fault_pattern(wanted, letter, offset, length);
	else
		memset(wanted, 0, length);
	CHECK(found == length && !memcmp(buffer, wanted, length));
	return 0;
}

static int read_inline(struct fault_run *run) { return get(run, P_INLINE, 0, 60, 'i'); }
static int read_plain(struct fault_run *run) { return get(run, P_PLAIN, 0, PLAIN_BYTES, 'p'); }
static int read_unaligned(struct fault_run *run) { return get(run, P_PLAIN, 777, 9001, 'p'); }
static int read_big(struct fault_run *run) { return get(run, P_BIG, 100 * B, BUFFER_BYTES, 'b'); }
static int read_hole(struct fault_run *run) { return get(run, P_HOLE, 10 * B, 50 * B, 0); }
static int read_unwritten(struct fault_run *run) { return get(run, P_UNWRITTEN, 0, 5 * B, 0); }

static int read_fragments(struct fault_run *run)
{
	uint32_t found;
	const uint64_t first = 40;
	const int error = call_read(M, AT(P_FRAGMENTS), buffer, 2 * first * B, 64 * B, &found);
	for (unsigned i = 0; i < 32 && !error; i++) {
		fault_pattern(wanted, 'f', 2 * (first + i) * B, B);
		CHECK(!memcmp(buffer + (size_t)2 * i * B, wanted, B) && !buffer[(2 * i + 1) * B] && !buffer[(2 * i + 2) * B - 1]);
	}
	return error;
}

static int read_end(struct fault_run *run)
{
	uint32_t found;
	const int error = call_read(M, AT(P_PLAIN), buffer, PLAIN_BYTES - 10, 5000, &found);
	CHECK(error || found == 10);
	return error;
}

static int seek_run(struct fault_run *run)
{
	uint64_t found;
	int error = call_seek(M, AT(P_FRAGMENTS), SEEK_HOLE, 100 * B, &found);
	CHECK(error || found == 101 * B);
	if (!error)
		error = call_seek(M, AT(P_FRAGMENTS), SEEK_DATA, 201 * B, &found);
	CHECK(error || found == 202 * B);
	return error;
}

/* ---- writing ---- */

static int put(struct fault_run *run, enum place place, uint64_t offset, uint32_t length, uint32_t flags)
{
	int error = 0;
	/* The kernel passes a short write on, and whoever wanted more asks again. */
	for (uint32_t done = 0; done < length && !error;) {
		uint32_t written = 0;
		fault_pattern(buffer, 'W', offset + done, length - done);
		error = call_write_flags(M, AT(place), buffer, offset + done, length - done, flags, &written);
		CHECK(error || (written && written <= length - done));
		run->shortened |= !error && written < length - done;
		done += error || !written ? length : written;
	}
	return error;
}

static int write_inline(struct fault_run *run) { return put(run, P_INLINE, 10, 30, 0); }
static int write_spills(struct fault_run *run) { return put(run, P_INLINE, 40, 5000, 0); }
static int write_over(struct fault_run *run) { return put(run, P_PLAIN, B, 3 * B, 0); }
static int write_edges(struct fault_run *run) { return put(run, P_PLAIN, 1000, 2 * B + 50, 0); }
static int write_end(struct fault_run *run) { return put(run, P_PLAIN, PLAIN_BYTES - 100, 9000, 0); }
static int write_past_end(struct fault_run *run) { return put(run, P_PLAIN, PLAIN_BYTES + 5 * B, 3000, 0); }
static int write_hole(struct fault_run *run) { return put(run, P_HOLE, 20 * B + 5, 6 * B, 0); }
static int write_unwritten(struct fault_run *run) { return put(run, P_UNWRITTEN, 10 * B + 5, 3 * B, 0); }
static int write_fragments(struct fault_run *run) { return put(run, P_FRAGMENTS, 120 * B, 61 * B, 0); }
static int write_large(struct fault_run *run) { return put(run, P_LINKED, 0, BUFFER_BYTES, 0); }
static int write_sync(struct fault_run *run) { return put(run, P_HOLE, 9 * B, 2 * B, FS_WRITE_SYNC); }
static int write_dsync_over(struct fault_run *run) { return put(run, P_PLAIN, 0, 2 * B, FS_WRITE_DSYNC); }
static int write_suid(struct fault_run *run) { return put(run, P_SUID, 0, B, FS_WRITE_KILL_SUIDGID); }
static int write_append(struct fault_run *run) { return put(run, P_HOLE, 0, 100, FS_WRITE_APPEND); }

/* Several pieces of a tree of extents at once: new leaves. */
static int write_scattered(struct fault_run *run)
{
	int error = 0;
	for (unsigned i = 0; i < 60 && !error; i++)
		error = put(run, P_HOLE, (uint64_t)i * 2 * B, B, 0);
	return error;
}

static int truncate_grow(struct fault_run *run) { return call_truncate(M, AT(P_PLAIN), PLAIN_BYTES + 100000); }
static int truncate_edge(struct fault_run *run) { return call_truncate(M, AT(P_PLAIN), 5 * B + 77); }
static int truncate_big(struct fault_run *run) { return call_truncate(M, AT(P_BIG), 50 * B); }
static int truncate_fragments(struct fault_run *run) { return call_truncate(M, AT(P_FRAGMENTS), 0); }
static int truncate_inline(struct fault_run *run) { return call_truncate(M, AT(P_INLINE), 7); }
static int truncate_open(struct fault_run *run) { return call_open(M, AT(P_BIG), O_WRONLY | O_TRUNC); }
static int open_run(struct fault_run *run) { return call_open(M, AT(P_BIG), O_RDONLY); }

static int allocate(struct fault_run *run) { return call_fallocate(M, AT(P_HOLE), 0, 0, 200 * B); }
static int allocate_keep(struct fault_run *run)
{
	return call_fallocate(M, AT(P_PLAIN), FALLOC_FL_KEEP_SIZE, PLAIN_BYTES, 300000);
}
static int punch(struct fault_run *run)
{
	return call_fallocate(M, AT(P_BIG), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 30 * B + 100, 200 * B);
}
static int punch_fragments(struct fault_run *run)
{
	return call_fallocate(M, AT(P_FRAGMENTS), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 30 * B, 150 * B);
}
static int zero_range(struct fault_run *run)
{
	return call_fallocate(M, AT(P_PLAIN), FALLOC_FL_ZERO_RANGE, 2 * B + 9, 5 * B);
}

static int fsync_run(struct fault_run *run)
{
	const int error = put(run, P_HOLE, 7 * B, B, 0);
	return error ? error : call_fsync(M, AT(P_HOLE), false);
}
static int fdatasync_run(struct fault_run *run)
{
	const int error = put(run, P_PLAIN, 2 * B, B, 0);
	return error ? error : call_fsync(M, AT(P_PLAIN), true);
}

static int copy(struct fault_run *run, enum place from, enum place to, uint64_t length)
{
	int error = 0;
	for (uint64_t done = 0; done < length && !error;) {
		uint64_t copied = 0;
		error = call_copy(M, AT(from), done, AT(to), 3 * B + done, length - done, &copied);
		CHECK(error || copied);
		run->shortened |= !error && copied < length - done;
		done += copied ? copied : length;
	}
	return error;
}

static int copy_big(struct fault_run *run) { return copy(run, P_BIG, P_LINKED, 500000); }
static int copy_fragments(struct fault_run *run) { return copy(run, P_FRAGMENTS, P_PLAIN, 40 * B); }

/* ---- extended attributes ---- */

static int set_value(struct fault_run *run, enum place place, const char *name, uint32_t length)
{
	fault_pattern(buffer, 'X', 0, length);
	return call_setxattr(M, AT(place), name, buffer, length);
}

static int xattr_small(struct fault_run *run) { return set_value(run, P_SMALL_XATTR, "user.other", 12); }
static int xattr_spills(struct fault_run *run) { return set_value(run, P_SMALL_XATTR, "user.other", 700); }
static int xattr_chain(struct fault_run *run) { return set_value(run, P_MANY_XATTRS, "user.many9", 800); }
static int xattr_large(struct fault_run *run) { return set_value(run, P_SMALL_XATTR, "user.huge", 65536); }
static int xattr_shrinks(struct fault_run *run) { return set_value(run, P_LARGE_XATTR, "user.large", 5); }
static int xattr_replaces(struct fault_run *run) { return set_value(run, P_LARGE_XATTR, "user.large", 50000); }

static int get_value(struct fault_run *run, enum place place, const char *name, uint32_t length, char letter)
{
	uint32_t found;
	const int error = call_getxattr(M, AT(place), name, buffer, BUFFER_BYTES, &found);
	if (!error) {
		fault_pattern(wanted, letter, 0, length);
		CHECK(found == length && !memcmp(buffer, wanted, length));
	}
	return error;
}

static int xattr_get_small(struct fault_run *run) { return get_value(run, P_SMALL_XATTR, "user.small", 10, 's'); }
static int xattr_get_chain(struct fault_run *run)
{
	return get_value(run, P_MANY_XATTRS, "user.many23", MANY_VALUE_BYTES, 'm');
}
static int xattr_get_large(struct fault_run *run)
{
	return get_value(run, P_LARGE_XATTR, "user.large", LARGE_VALUE_BYTES, 'l');
}

static int xattr_list(struct fault_run *run)
{
	uint32_t length;
	const int error = call_listxattr(M, AT(P_MANY_XATTRS), (char *)buffer, BUFFER_BYTES, &length);
	CHECK(error || length == 10 * 11 + (MANY_XATTRS - 10) * 12);
	return error;
}

static int gone(int error) { return error == -ENODATA ? 0 : error; }
static int xattr_remove(struct fault_run *run) { return gone(call_removexattr(M, AT(P_SMALL_XATTR), "user.small")); }
static int xattr_remove_chain(struct fault_run *run) { return gone(call_removexattr(M, AT(P_MANY_XATTRS), "user.many5")); }
static int xattr_remove_large(struct fault_run *run) { return gone(call_removexattr(M, AT(P_LARGE_XATTR), "user.large")); }

static int acl_set(struct fault_run *run, const char *name, unsigned named)
{
	const uint32_t length = fault_acl(buffer, named);
	return call_setxattr(M, AT(P_TREE), name, buffer, length);
}

static int acl_access(struct fault_run *run) { return acl_set(run, "system.posix_acl_access", 3); }
static int acl_default(struct fault_run *run) { return acl_set(run, "system.posix_acl_default", 450); }

static int acl_get(struct fault_run *run)
{
	uint32_t found;
	const uint32_t length = fault_acl(wanted, 40);
	const int error = call_getxattr(M, AT(P_ACL), "system.posix_acl_default", buffer, BUFFER_BYTES, &found);
	CHECK(error || (found == length && !memcmp(buffer, wanted, length)));
	return error;
}

const struct fault_op fault_ops_data[] = {
	{"read-inline", read_inline}, {"read", read_plain}, {"read-unaligned", read_unaligned}, {"read-big", read_big},
	{"read-hole", read_hole}, {"read-unwritten", read_unwritten}, {"read-fragments", read_fragments}, {"read-end", read_end},
	{"seek", seek_run}, {"open", open_run}, {"write-inline", write_inline}, {"write-spills", write_spills},
	{"write-over", write_over, OP_PARTIAL}, {"write-edges", write_edges, OP_PARTIAL},
	{"write-end", write_end, OP_PARTIAL}, {"write-past-end", write_past_end, OP_PARTIAL},
	{"write-hole", write_hole, OP_PARTIAL}, {"write-unwritten", write_unwritten, OP_PARTIAL},
	{"write-fragments", write_fragments, OP_PARTIAL}, {"write-large", write_large, OP_PARTIAL},
	{"write-sync", write_sync, OP_PARTIAL | OP_DURABLE}, {"write-dsync", write_dsync_over, OP_PARTIAL | OP_DURABLE},
	{"write-suid", write_suid, OP_PARTIAL}, {"write-append", write_append, OP_PARTIAL},
	{"write-scattered", write_scattered, OP_PARTIAL}, {"truncate-grow", truncate_grow, OP_PARTIAL},
	{"truncate-edge", truncate_edge, OP_PARTIAL}, {"truncate-big", truncate_big, OP_PARTIAL},
	{"truncate-fragments", truncate_fragments, OP_PARTIAL}, {"truncate-inline", truncate_inline},
	{"truncate-open", truncate_open, OP_PARTIAL}, {"fallocate", allocate, OP_PARTIAL},
	{"fallocate-keep", allocate_keep, OP_PARTIAL}, {"punch", punch, OP_PARTIAL},
	{"punch-fragments", punch_fragments, OP_PARTIAL}, {"punch-discard", punch, OP_PARTIAL | OP_DISCARD},
	{"zero-range", zero_range, OP_PARTIAL}, {"fsync", fsync_run, OP_PARTIAL | OP_DURABLE},
	{"fdatasync", fdatasync_run, OP_PARTIAL | OP_DURABLE},
	{"copy-big", copy_big, OP_PARTIAL}, {"copy-fragments", copy_fragments, OP_PARTIAL}, {"xattr-small", xattr_small},
	{"xattr-spills", xattr_spills}, {"xattr-chain", xattr_chain}, {"xattr-large", xattr_large},
	{"xattr-shrinks", xattr_shrinks}, {"xattr-replaces", xattr_replaces}, {"xattr-get", xattr_get_small},
	{"xattr-get-chain", xattr_get_chain}, {"xattr-get-large", xattr_get_large}, {"xattr-list", xattr_list},
	{"xattr-remove", xattr_remove}, {"xattr-remove-chain", xattr_remove_chain},
	{"xattr-remove-large", xattr_remove_large}, {"acl-access", acl_access}, {"acl-default", acl_default},
	{"acl-get", acl_get},
};
const unsigned fault_ops_data_count = ARRAY_SIZE(fault_ops_data);
