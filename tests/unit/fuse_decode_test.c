/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the decoder of the FUSE front end believes nothing that the message itself does not prove, and negotiation
 * never takes what the kernel did not offer. Method: messages built by hand, cut, stretched and lied about in every
 * place; then random ones in heap memory of exactly their size, so that an overread is seen by the address sanitizer.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "fs/fuse/front_request.h"
#include "reactor/log.h"

static const struct front_dialect modern = {.setxattr_ext = true};

/* A message in heap memory of exactly its size. */
static void *message_new(uint32_t opcode, const void *body, size_t body_size)
{
	struct fuse_in_header *header = malloc(sizeof(*header) + body_size);
	assert_non_null(header);
	*header = (struct fuse_in_header){
		.len = (uint32_t)(sizeof(*header) + body_size), .opcode = opcode, .unique = 2, .nodeid = 1};
	if (body_size)
		memcpy(header + 1, body, body_size);
	return header;
}

static int decode(const void *bytes, size_t length, struct front_dialect dialect, struct front_call *call)
{
	struct front_message message;
	int error = front_message_split(bytes, length, dialect, &message);
	return error ? error : front_decode(&message, dialect, call);
}

static int decode_body(uint32_t opcode, const void *body, size_t body_size)
{
	void *bytes = message_new(opcode, body, body_size);
	struct front_call call;
	int error = decode(bytes, sizeof(struct fuse_in_header) + body_size, modern, &call);
	free(bytes);
	return error;
}

static void test_names_end_inside_the_message(void **state)
{
	assert_int_equal(decode_body(FUSE_LOOKUP, "abc", 4), 0);
	assert_int_equal(decode_body(FUSE_LOOKUP, "abc", 3), -EINVAL);
	assert_int_equal(decode_body(FUSE_LOOKUP, "", 0), -EINVAL);
	assert_int_equal(decode_body(FUSE_LOOKUP, "abc\0x", 6), -EINVAL);
}

static void test_entry_names_hold_no_slash_and_are_not_empty(void **state)
{
	assert_int_equal(decode_body(FUSE_UNLINK, "a/b", 4), -EINVAL);
	assert_int_equal(decode_body(FUSE_UNLINK, "", 1), -EINVAL);
	assert_int_equal(decode_body(FUSE_SYMLINK, "name\0/a/b", 10), 0);
	assert_int_equal(decode_body(FUSE_SYMLINK, "a/b\0/a/b", 9), -EINVAL);
	assert_int_equal(decode_body(FUSE_REMOVEXATTR, "user.a/b", 9), 0);
}

static void test_rename_finds_both_names(void **state)
{
	struct {
		struct fuse_rename2_in in;
		char names[10];
	} body = {.in = {.newdir = 7, .flags = 1}, .names = "from\0tool"};
	void *bytes = message_new(FUSE_RENAME2, &body, sizeof(body.in) + sizeof(body.names));
	struct front_call call;
	assert_int_equal(decode(bytes, sizeof(struct fuse_in_header) + sizeof(body.in) + sizeof(body.names), modern,
				 &call), 0);
	assert_int_equal(((const struct fuse_rename2_in *)call.in)->newdir, 7);
	assert_int_equal(call.name[0].length, 4);
	assert_memory_equal(call.name[0].bytes, "from", 4);
	assert_int_equal(call.name[1].length, 4);
	assert_memory_equal(call.name[1].bytes, "tool", 4);
	free(bytes);
}

static void test_write_size_must_agree_with_what_came(void **state)
{
	struct {
		struct fuse_write_in in;
		char data[16];
	} body = {.in = {.size = 16}};
	assert_int_equal(decode_body(FUSE_WRITE, &body, sizeof(body)), 0);
	assert_int_equal(decode_body(FUSE_WRITE, &body, sizeof(body) - 1), -EINVAL);
	body.in.size = 17;
	assert_int_equal(decode_body(FUSE_WRITE, &body, sizeof(body)), -EINVAL);
	body.in.size = UINT32_MAX;
	assert_int_equal(decode_body(FUSE_WRITE, &body, sizeof(body)), -EINVAL);
}

static void test_batch_forget_count_cannot_overflow(void **state)
{
	struct {
		struct fuse_batch_forget_in in;
		struct fuse_forget_one one[2];
	} body = {.in = {.count = 2}};
	assert_int_equal(decode_body(FUSE_BATCH_FORGET, &body, sizeof(body)), 0);
	body.in.count = 3;
	assert_int_equal(decode_body(FUSE_BATCH_FORGET, &body, sizeof(body)), -EINVAL);
	body.in.count = 0x10000002u; /* times 16, cut to 32 bits, would be 32 */
	assert_int_equal(decode_body(FUSE_BATCH_FORGET, &body, sizeof(body)), -EINVAL);
}

static void test_setxattr_follows_the_dialect(void **state)
{
	char extended[16 + 7 + 3] = {3};
	memcpy(extended + 16, "user.a\0xyz", 10);
	void *bytes = message_new(FUSE_SETXATTR, extended, sizeof(extended));
	struct front_call call;
	size_t length = sizeof(struct fuse_in_header) + sizeof(extended);
	assert_int_equal(decode(bytes, length, modern, &call), 0);
	assert_int_equal(call.name[0].length, 6);
	assert_int_equal(call.data_size, 3);
	assert_memory_equal(call.data, "xyz", 3);
	free(bytes);

	char compat[8 + 7 + 3] = {3};
	memcpy(compat + 8, "user.a\0xyz", 10);
	bytes = message_new(FUSE_SETXATTR, compat, sizeof(compat));
	length = sizeof(struct fuse_in_header) + sizeof(compat);
	assert_int_equal(decode(bytes, length, (struct front_dialect){0}, &call), 0);
	assert_memory_equal(call.data, "xyz", 3);
	assert_int_equal(decode(bytes, length, modern, &call), -EINVAL);
	free(bytes);
}

static void test_header_length_must_be_the_length_read(void **state)
{
	struct fuse_in_header *header = message_new(FUSE_GETATTR, &(struct fuse_getattr_in){0}, 16);
	struct front_call call;
	assert_int_equal(decode(header, 56, modern, &call), 0);
	assert_int_equal(decode(header, 55, modern, &call), -EINVAL);
	header->len = 57;
	assert_int_equal(decode(header, 56, modern, &call), -EINVAL);
	header->len = 39;
	assert_int_equal(decode(header, 39, modern, &call), -EINVAL);
	free(header);
}

static void test_unknown_opcodes_are_enosys(void **state)
{
	assert_int_equal(decode_body(0, "", 0), -ENOSYS);
	assert_int_equal(decode_body(FUSE_GETLK, "", 0), -ENOSYS);
	assert_int_equal(decode_body(WIRE_OPCODE_COUNT, "", 0), -ENOSYS);
	assert_int_equal(decode_body(UINT32_MAX, "", 0), -ENOSYS);
	assert_null(front_opcode_name(UINT32_MAX));
}

static void test_extensions_are_skipped_and_bounded(void **state)
{
	struct fuse_in_header *header = message_new(FUSE_LOOKUP, "abcdefg\0extended", 16);
	struct front_call call;
	header->total_extlen = 1;
	assert_int_equal(decode(header, 56, modern, &call), 0);
	assert_int_equal(call.name[0].length, 7);
	header->total_extlen = 3;
	assert_int_equal(decode(header, 56, modern, &call), -EINVAL);
	free(header);
}

/* Every opcode with every length: never a pointer outside. */
static void test_every_length_of_every_opcode(void **state)
{
	char body[128] = {0};
	for (uint32_t opcode = 0; opcode < WIRE_OPCODE_COUNT; opcode++)
		for (size_t size = 0; size <= sizeof(body); size++)
			(void)decode_body(opcode, body, size);
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void check_inside(const void *from, size_t size, const char *bytes, size_t length)
{
	if (size == 0)
		return;
	assert_true((const char *)from >= bytes && (const char *)from + size <= bytes + length);
}

static void test_random_bytes_stay_inside(void **state)
{
	uint64_t seed = 0x9e3779b97f4a7c15ull;
	unsigned good = 0;
	for (unsigned round = 0; round < 200000; round++) {
		size_t length = sizeof(struct fuse_in_header) + random_next(&seed) % 200;
		char *bytes = malloc(length);
		assert_non_null(bytes);
		for (size_t i = 0; i < length; i++)
			bytes[i] = random_next(&seed) % 3 ? (char)random_next(&seed) : 0;
		struct fuse_in_header *header = (struct fuse_in_header *)bytes;
		header->len = (uint32_t)length;
		header->opcode = (uint32_t)(random_next(&seed) % (WIRE_OPCODE_COUNT + 1));
		header->total_extlen = random_next(&seed) % 4 ? 0 : (uint16_t)(random_next(&seed) % 30);
		/* Now and then the claimed size is the right one. */
		if (length >= 80 && random_next(&seed) % 2)
			((struct fuse_write_in *)(header + 1))->size = (uint32_t)(length - 80);
		struct front_dialect dialect = {.setxattr_ext = random_next(&seed) & 1};
		struct front_call call;
		if (decode(bytes, length, dialect, &call) == 0) {
			good++;
			check_inside(call.in, call.in != NULL, bytes, length);
			check_inside(call.data, call.data_size, bytes, length);
			for (unsigned i = 0; i < 2; i++)
				check_inside(call.name[i].bytes, call.name[i].length, bytes, length);
		}
		free(bytes);
	}
	assert_true(good > 1000);
}

/* ---- INIT ---- */

static uint64_t negotiate(struct front_session *session, uint64_t offered)
{
	struct fuse_init_in in = {.major = 7, .minor = 45, .max_readahead = 131072, .flags = (uint32_t)offered,
		.flags2 = (uint32_t)(offered >> 32)};
	struct fuse_init_out out;
	assert_int_equal(front_negotiate(session, &in, true, &out), 0);
	assert_int_equal(out.max_write, 1 << 20);
	assert_int_equal(out.max_pages, 256);
	return out.flags | (uint64_t)out.flags2 << 32;
}

static void test_only_what_is_offered_is_taken(void **state)
{
	struct front_session session = {.max_background = 64};
	assert_true(negotiate(&session, 0) == 0);
	uint64_t seed = 42;
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t offered = random_next(&seed);
		assert_true((negotiate(&session, offered) & ~offered) == 0);
	}
	/* flags2 counts only with INIT_EXT. */
	assert_true(negotiate(&session, UINT64_MAX & ~(uint64_t)FUSE_INIT_EXT) >> 32 == 0);
}

static void test_acls_come_with_the_umask_and_the_sgid_flag(void **state)
{
	struct front_session session = {0};
	const uint64_t wanted = FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_SETXATTR_EXT;
	assert_true((negotiate(&session, UINT64_MAX) & wanted) == wanted);
	assert_true(session.dialect.setxattr_ext);
	negotiate(&session, UINT64_MAX & ~(uint64_t)FUSE_SETXATTR_EXT);
	assert_false(session.dialect.setxattr_ext);
}

static void test_noopen_and_atomic_truncation_exclude_each_other(void **state)
{
	struct front_session session = {.noopen = true};
	uint64_t agreed = negotiate(&session, UINT64_MAX);
	assert_true(agreed & FUSE_NO_OPEN_SUPPORT);
	assert_false(agreed & FUSE_ATOMIC_O_TRUNC);
	session.noopen = false;
	agreed = negotiate(&session, UINT64_MAX);
	assert_false(agreed & FUSE_NO_OPEN_SUPPORT);
	assert_true(agreed & FUSE_ATOMIC_O_TRUNC);
	assert_false(agreed & FUSE_WRITEBACK_CACHE);
	session.writeback = true;
	assert_true(negotiate(&session, UINT64_MAX) & FUSE_WRITEBACK_CACHE);
}

static void test_what_is_not_understood_stays_off(void **state)
{
	struct front_session session = {0};
	uint64_t agreed = negotiate(&session, UINT64_MAX);
	assert_false(agreed & (FUSE_SPLICE_READ | FUSE_SPLICE_WRITE | FUSE_SPLICE_MOVE | FUSE_POSIX_LOCKS |
				       FUSE_FLOCK_LOCKS | FUSE_AUTO_INVAL_DATA));
	assert_true((agreed & (WIRE_CREATE_SUPP_GROUP | FUSE_SECURITY_CTX | WIRE_HAS_RESEND | WIRE_PASSTHROUGH |
				      WIRE_OVER_IO_URING | WIRE_NO_EXPORT_SUPPORT)) == 0);
	static const char *names[FUSE_FRONT_FEATURES_MAX];
	assert_true(front_feature_names(agreed, names) >= 15);
}

static void log_nothing(enum log_level level, const char *line, void *arg)
{
}

static void test_an_old_kernel_is_refused(void **state)
{
	struct front_session session = {0};
	struct fuse_init_in in = {.major = 7, .minor = WIRE_MINOR_MIN - 1};
	struct fuse_init_out out;
	log_set_sink(log_nothing, NULL);
	assert_int_equal(front_negotiate(&session, &in, false, &out), -EPROTO);
	log_set_sink(NULL, NULL);
}

static void test_device_numbers_survive(void **state)
{
	static const uint32_t numbers[][2] = {{0, 0}, {1, 3}, {8, 255}, {259, 256}, {4095, 0xfffff}};
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
		uint32_t rdev = wire_rdev_encode(numbers[i][0], numbers[i][1]);
		assert_int_equal(wire_rdev_major(rdev), numbers[i][0]);
		assert_int_equal(wire_rdev_minor(rdev), numbers[i][1]);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names_end_inside_the_message),
		cmocka_unit_test(test_entry_names_hold_no_slash_and_are_not_empty),
		cmocka_unit_test(test_rename_finds_both_names),
		cmocka_unit_test(test_write_size_must_agree_with_what_came),
		cmocka_unit_test(test_batch_forget_count_cannot_overflow),
		cmocka_unit_test(test_setxattr_follows_the_dialect),
		cmocka_unit_test(test_header_length_must_be_the_length_read),
		cmocka_unit_test(test_unknown_opcodes_are_enosys),
		cmocka_unit_test(test_extensions_are_skipped_and_bounded),
		cmocka_unit_test(test_every_length_of_every_opcode),
		cmocka_unit_test(test_random_bytes_stay_inside),
		cmocka_unit_test(test_only_what_is_offered_is_taken),
		cmocka_unit_test(test_acls_come_with_the_umask_and_the_sgid_flag),
		cmocka_unit_test(test_noopen_and_atomic_truncation_exclude_each_other),
		cmocka_unit_test(test_what_is_not_understood_stays_off),
		cmocka_unit_test(test_an_old_kernel_is_refused),
		cmocka_unit_test(test_device_numbers_survive),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
