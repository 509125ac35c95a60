/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: the whole table of operations of the FUSE front end without a kernel: every request is answered exactly once,
 * in the size its opcode asks for, whatever its fields say; lookup counts of answers that went nowhere come back.
 * Method: a transport made of memory, a filesystem in memory, requests built by hand, then random ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/fuse/front_request.h"
#include "reactor/log.h"
#include "tests/unit/fuse_memfs.h"

/* ---- the transport made of memory ---- */

struct fake_request {
	struct front_request base;
	unsigned answers, releases, attributes_forgotten, listings_forgotten;
	int error;
	void *buffer;
	struct fiber *waiter;
};

static struct reactor_group *group;
static struct front_session session;
static struct front_stats stats;
static int answer_result; /* of the kernel that is not there */

static void *fake_buffer_get(struct front_request *base, uint32_t size)
{
	struct fake_request *request = CONTAINER_OF(base, struct fake_request, base);
	assert_null(request->buffer);
	assert_true(size <= WIRE_WRITE_BYTES_MAX);
	request->buffer = aligned_alloc(4096, align_up(MAX(size, 1u), 4096));
	return request->buffer;
}

static int fake_answer(struct front_request *base, int error)
{
	struct fake_request *request = CONTAINER_OF(base, struct fake_request, base);
	request->answers++;
	request->error = error;
	return answer_result;
}

static void fake_forget_attributes(struct front_request *base, uint64_t ino)
{
	CONTAINER_OF(base, struct fake_request, base)->attributes_forgotten++;
}

static void fake_forget_listing(struct front_request *base, uint64_t ino)
{
	assert_int_equal(CONTAINER_OF(base, struct fake_request, base)->answers, 0);
	CONTAINER_OF(base, struct fake_request, base)->listings_forgotten++;
}

static void fake_release(struct front_request *base)
{
	struct fake_request *request = CONTAINER_OF(base, struct fake_request, base);
	request->releases++;
	if (request->waiter)
		fiber_wake(request->waiter);
}

static const struct front_transport fake_transport = {
	.buffer_get = fake_buffer_get,
	.answer = fake_answer,
	.forget_attributes = fake_forget_attributes,
	.forget_listing = fake_forget_listing,
	.release = fake_release,
};

/* ---- sending ---- */

enum { MESSAGE_MAX = 4096 };

struct exchange {
	_Alignas(8) char bytes[MESSAGE_MAX];
	size_t length;
	struct fake_request request;
};

static struct exchange exchange;

static void begin(uint32_t opcode, uint64_t nodeid, const void *in, size_t in_size)
{
	free(exchange.request.buffer);
	memset(&exchange, 0, sizeof(exchange));
	struct fuse_in_header *header = (struct fuse_in_header *)exchange.bytes;
	*header = (struct fuse_in_header){.opcode = opcode, .unique = 2, .nodeid = nodeid};
	exchange.length = sizeof(*header);
	if (in_size)
		memcpy(exchange.bytes + exchange.length, in, in_size);
	exchange.length += in_size;
}

static void append(const void *bytes, size_t size)
{
	assert_true(exchange.length + size <= MESSAGE_MAX);
	memcpy(exchange.bytes + exchange.length, bytes, size);
	exchange.length += size;
}

MAY_WAIT static int exchange_in_fiber(void *arg)
{
	struct front_request *base = &exchange.request.base;
	struct fuse_in_header *header = (struct fuse_in_header *)exchange.bytes;
	struct front_message message;
	header->len = (uint32_t)exchange.length;
	base->session = &session;
	base->transport = &fake_transport;
	base->header = header;
	int error = front_message_split(exchange.bytes, exchange.length, session.dialect, &message);
	if (!error)
		error = front_decode(&message, session.dialect, &base->call);
	if (error)
		front_refuse(base, error);
	else
		front_dispatch(base);
	while (exchange.request.releases == 0) {
		exchange.request.waiter = fiber_self();
		fiber_park("an answer");
	}
	return 0;
}

/* Sends it and returns the error that came back. */
static int go(void)
{
	assert_int_equal(reactor_group_run(reactor_group_get(group, 0), exchange_in_fiber, NULL), 0);
	assert_int_equal(exchange.request.answers, 1);
	assert_int_equal(exchange.request.releases, 1);
	return exchange.request.error;
}

static uint64_t create(const char *name, uint32_t mode)
{
	begin(FUSE_MKNOD, 1, &(struct fuse_mknod_in){.mode = mode}, sizeof(struct fuse_mknod_in));
	append(name, strlen(name) + 1);
	assert_int_equal(go(), 0);
	assert_int_equal(exchange.request.base.out_size, sizeof(struct fuse_entry_out));
	return exchange.request.base.out.entry.nodeid;
}

/* ---- the tests ---- */

static void test_what_is_missing_is_answered_with_a_time(void **state)
{
	begin(FUSE_LOOKUP, 1, NULL, 0);
	append("nothing", 8);
	assert_int_equal(go(), 0);
	assert_int_equal(exchange.request.base.out_size, sizeof(struct fuse_entry_out));
	assert_int_equal(exchange.request.base.out.entry.nodeid, 0);
	assert_true(exchange.request.base.out.entry.entry_valid >= 1000000);
}

static void test_dot_and_dot_dot_are_found(void **state)
{
	begin(FUSE_MKDIR, 1, &(struct fuse_mkdir_in){.mode = 0700}, sizeof(struct fuse_mkdir_in));
	append("sub", 4);
	assert_int_equal(go(), 0);
	uint64_t sub = exchange.request.base.out.entry.nodeid;
	begin(FUSE_LOOKUP, sub, NULL, 0);
	append("..", 3);
	assert_int_equal(go(), 0);
	assert_int_equal(exchange.request.base.out.entry.nodeid, 1);
	begin(FUSE_LOOKUP, sub, NULL, 0);
	append(".", 2);
	assert_int_equal(go(), 0);
	assert_int_equal(exchange.request.base.out.entry.nodeid, sub);
}

static void test_an_answer_that_went_nowhere_gives_its_count_back(void **state)
{
	uint64_t ino = create("nowhere", S_IFREG | 0600);
	uint64_t before = memfs_lookups(session.fs, ino);
	answer_result = -ENOENT;
	begin(FUSE_LOOKUP, 1, NULL, 0);
	append("nowhere", 8);
	(void)go();
	assert_int_equal(memfs_lookups(session.fs, ino), before);
	begin(FUSE_READDIRPLUS, 1, &(struct fuse_read_in){.size = 4096}, sizeof(struct fuse_read_in));
	(void)go();
	assert_int_equal(memfs_lookups(session.fs, ino), before);
	answer_result = 0;
	begin(FUSE_READDIRPLUS, 1, &(struct fuse_read_in){.size = 4096}, sizeof(struct fuse_read_in));
	assert_int_equal(go(), 0);
	assert_int_equal(memfs_lookups(session.fs, ino), before + 1);
}

static void test_directory_records_are_whole_and_aligned(void **state)
{
	char name[16];
	for (unsigned i = 0; i < 40; i++) {
		snprintf(name, sizeof(name), "record%u", i);
		(void)create(name, S_IFREG | 0600);
	}
	unsigned records = 0;
	uint64_t cookie = 0;
	for (;;) {
		begin(FUSE_READDIR, 1, &(struct fuse_read_in){.offset = cookie, .size = 300},
			sizeof(struct fuse_read_in));
		assert_int_equal(go(), 0);
		const struct front_request *base = &exchange.request.base;
		if (base->data_size == 0)
			break;
		assert_true(base->data_size <= 300);
		for (uint32_t used = 0; used < base->data_size; records++) {
			const struct fuse_dirent *dirent =
				(const struct fuse_dirent *)((const char *)base->data + used);
			assert_true(dirent->off > cookie);
			cookie = dirent->off;
			used += (uint32_t)FUSE_DIRENT_SIZE(dirent);
			assert_true(used <= base->data_size);
		}
	}
	assert_true(records >= 42);
}

static void test_renaming_with_an_unknown_flag_is_refused(void **state)
{
	begin(FUSE_RENAME2, 1, &(struct fuse_rename2_in){.newdir = 1, .flags = 4}, sizeof(struct fuse_rename2_in));
	append("a\0b", 4);
	assert_int_equal(go(), -EINVAL);
}

static void move(uint64_t from, const char *name, uint64_t to, const char *to_name, uint32_t flags)
{
	begin(FUSE_RENAME2, from, &(struct fuse_rename2_in){.newdir = to, .flags = flags}, sizeof(struct fuse_rename2_in));
	append(name, strlen(name) + 1);
	append(to_name, strlen(to_name) + 1);
	assert_int_equal(go(), 0);
}

/* By itself the kernel keeps the old "..". */
static void test_entries_of_a_moved_directory_are_forgotten(void **state)
{
	const uint64_t a = create("move-a", S_IFDIR | 0700);
	create("move-b", S_IFDIR | 0700);
	create("move-file", S_IFREG | 0600);
	for (unsigned minor = WIRE_MINOR_MOVED_LOCKED - 1; minor <= WIRE_MINOR_MOVED_LOCKED; minor++) {
		session.kernel_minor = minor;
		move(1, "move-b", 1, "move-c", 0);
		assert_int_equal(exchange.request.listings_forgotten, 0);
		move(1, "move-file", a, "x", 0);
		assert_int_equal(exchange.request.listings_forgotten, 0);
		move(1, "move-c", a, "c", 0);
		assert_int_equal(exchange.request.listings_forgotten, 1);
		create("move-other", S_IFDIR | 0700);
		move(1, "move-other", a, "c", RENAME_EXCHANGE);
		assert_int_equal(exchange.request.listings_forgotten, 2);
		move(a, "x", 1, "move-file", 0);
		move(1, "move-other", 1, "move-b", 0);
		begin(FUSE_RMDIR, a, NULL, 0);
		append("c", 2);
		assert_int_equal(go(), 0);
	}
}

static void test_offsets_beyond_the_largest_file_are_refused(void **state)
{
	uint64_t ino = create("offsets", S_IFREG | 0600);
	begin(FUSE_READ, ino, &(struct fuse_read_in){.offset = INT64_MAX, .size = 1}, sizeof(struct fuse_read_in));
	assert_int_equal(go(), -EINVAL);
	begin(FUSE_READ, ino, &(struct fuse_read_in){.size = WIRE_WRITE_BYTES_MAX + 1}, sizeof(struct fuse_read_in));
	assert_int_equal(go(), -EINVAL);
	begin(FUSE_FALLOCATE, ino, &(struct fuse_fallocate_in){.offset = 1, .length = INT64_MAX},
		sizeof(struct fuse_fallocate_in));
	assert_int_equal(go(), -EFBIG);
}

static void test_noopen_is_enosys(void **state)
{
	uint64_t ino = create("noopen", S_IFREG | 0600);
	session.noopen = true;
	begin(FUSE_OPEN, ino, &(struct fuse_open_in){0}, sizeof(struct fuse_open_in));
	assert_int_equal(go(), -ENOSYS);
	session.noopen = false;
	begin(FUSE_OPEN, ino, &(struct fuse_open_in){0}, sizeof(struct fuse_open_in));
	assert_int_equal(go(), 0);
}

static void test_direct_opens_need_a_kernel_that_keeps_them_coherent(void **state)
{
	session.negotiated = 0;
	assert_int_equal(front_open_flags(&session, O_DIRECT) & FOPEN_DIRECT_IO, 0);
	session.negotiated = WIRE_DIRECT_IO_ALLOW_MMAP;
	assert_int_equal(front_open_flags(&session, O_DIRECT),
		FOPEN_KEEP_CACHE | FOPEN_NOFLUSH | FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES);
	assert_int_equal(front_open_flags(&session, O_RDWR), FOPEN_KEEP_CACHE | FOPEN_NOFLUSH);
}

static void test_trim_and_shutdown_are_for_root(void **state)
{
	const struct fuse_ioctl_in in = {.cmd = _IOR('X', 125, uint32_t), .out_size = 4};
	begin(FUSE_IOCTL, 1, &in, sizeof(in));
	((struct fuse_in_header *)exchange.bytes)->uid = 1000;
	assert_int_equal(go(), -EPERM);
	begin(FUSE_IOCTL, 1, &in, sizeof(in));
	assert_int_equal(go(), 0);
}

static void test_attributes_are_forgotten_only_once_suid_was_seen(void **state)
{
	uint64_t ino = create("plain", S_IFREG | 0777);
	struct fuse_write_in in = {.size = 4, .write_flags = FUSE_WRITE_KILL_SUIDGID};
	begin(FUSE_WRITE, ino, &in, sizeof(in));
	append("data", 4);
	assert_int_equal(go(), 0);
	assert_int_equal(exchange.request.attributes_forgotten, 0);
	ino = create("suid", S_IFREG | 04777);
	for (unsigned i = 0; i < 2; i++) { /* the second time there is nothing left to kill */
		begin(FUSE_WRITE, ino, &in, sizeof(in));
		append("data", 4);
		assert_int_equal(go(), 0);
		assert_int_equal(exchange.request.attributes_forgotten, i == 0);
	}
}

static void test_unknown_and_unwanted_opcodes_are_enosys(void **state)
{
	static const uint32_t opcodes[] = {
		FUSE_FLUSH, FUSE_OPENDIR, FUSE_ACCESS, FUSE_POLL, FUSE_BMAP, FUSE_GETLK, 999};
	static const char body[32];
	static const size_t sizes[] = {24, 8, 8, 24, 16, 0, 0};
	for (size_t i = 0; i < ARRAY_SIZE(opcodes); i++) {
		begin(opcodes[i], 1, body, sizes[i]);
		assert_int_equal(go(), -ENOSYS);
	}
}

static uint64_t random_next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void log_nothing(enum log_level level, const char *line, void *arg)
{
}

/* Fields are random, but small numbers are likely, so that much of it means something. */
static void test_random_requests_are_answered_once(void **state)
{
	uint64_t seed = 88172645463325252ull;
	unsigned succeeded = 0;
	log_set_sink(log_nothing, NULL);
	for (unsigned round = 0; round < 40000; round++) {
		uint32_t opcode = (uint32_t)(random_next(&seed) % (WIRE_OPCODE_COUNT + 2));
		if (opcode == FUSE_INIT || opcode == FUSE_INTERRUPT || opcode == FUSE_FORGET ||
			opcode == FUSE_BATCH_FORGET)
			continue;
		begin(opcode, random_next(&seed) % 16, NULL, 0);
		static const uint8_t fixed_words[] = {0, 1, 2, 3, 4, 5, 7, 11};
		unsigned words = fixed_words[random_next(&seed) % ARRAY_SIZE(fixed_words)];
		for (unsigned i = 0; i < words; i++) {
			uint64_t word = random_next(&seed);
			word = word % 4 ? word % 64 : word;
			append(&word, sizeof(word));
		}
		append("a\0b", 2 * (random_next(&seed) % 3));
		int error = go();
		assert_true(error <= 0 && error > -512);
		succeeded += error == 0;
	}
	log_set_sink(NULL, NULL);
	assert_true(succeeded > 300);
}

static int setup(void **state)
{
	if (reactor_group_create(&(struct reactor_options){.count = 1, .simulate = true, .seed = 1}, &group) ||
		reactor_group_start(group))
		return -1;
	session = (struct front_session){
		.fs = memfs_create(group),
		.group = group,
		.dialect = {.setxattr_ext = true},
		.stats = {&stats},
	};
	return 0;
}

static int teardown(void **state)
{
	free(exchange.request.buffer);
	memfs_destroy(session.fs);
	reactor_group_stop(group);
	reactor_group_destroy(group);
	return 0;
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_what_is_missing_is_answered_with_a_time),
		cmocka_unit_test(test_dot_and_dot_dot_are_found),
		cmocka_unit_test(test_an_answer_that_went_nowhere_gives_its_count_back),
		cmocka_unit_test(test_directory_records_are_whole_and_aligned),
		cmocka_unit_test(test_renaming_with_an_unknown_flag_is_refused),
		cmocka_unit_test(test_entries_of_a_moved_directory_are_forgotten),
		cmocka_unit_test(test_offsets_beyond_the_largest_file_are_refused),
		cmocka_unit_test(test_noopen_is_enosys),
		cmocka_unit_test(test_direct_opens_need_a_kernel_that_keeps_them_coherent),
		cmocka_unit_test(test_trim_and_shutdown_are_for_root),
		cmocka_unit_test(test_attributes_are_forgotten_only_once_suid_was_seen),
		cmocka_unit_test(test_unknown_and_unwanted_opcodes_are_enosys),
		cmocka_unit_test(test_random_requests_are_answered_once),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
