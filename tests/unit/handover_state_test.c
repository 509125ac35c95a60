/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon tells its successor: it arrives as it was sent; another version, a field that must be understood and is not, and
 * whatever is damaged, cut off or impossible is refused in one line.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmocka.h>

#include "fs/daemon/handover_state.h"
#include "fs/daemon/handover_wire.h"

enum { HEAD = 56, SUM_AT = 48, COUNT_AT = 40, VERSION_AT = 8, FLAGS_AT = 12, COUNTS = 20, SIZE = HEAD + 16 * COUNTS,
	MUTATIONS = 20000 };

static char message[256];

static struct handover_facts *facts_sample(void)
{
	static struct handover_facts facts = {.target = "emu:/srv/a b.img,cache=16M", .directory = "/mnt/\xc3\xa4 \"x\"",
		.options = "rw,allow_other,reactors=2", .notify_socket = "@manager", .no_utab = true,
		.agreement = {.kernel_minor = 45, .minor = 44, .max_readahead = 131072, .max_write = 1 << 20,
			.offered = UINT64_MAX, .negotiated = 0x8000000000000001}};
	return &facts;
}

static void test_facts_arrive(void **state)
{
	struct handover_facts *found = malloc(sizeof(*found));
	struct json_object *object = handover_facts_new(facts_sample());
	struct json_object *again = json_tokener_parse(json_object_to_json_string(object));

	assert_int_equal(handover_facts_parse(again, found, message, sizeof(message)), 0);
	assert_memory_equal(found, facts_sample(), sizeof(*found));
	json_object_put(object);
	json_object_put(again);
	free(found);
}

static int parse_changed(const char *key, struct json_object *value)
{
	struct handover_facts *found = malloc(sizeof(*found));
	struct json_object *object = handover_facts_new(facts_sample());

	if (value)
		json_object_object_add(object, key, value);
	else
		json_object_object_del(object, key);
	message[0] = '\0';
	const int error = handover_facts_parse(object, found, message, sizeof(message));
	json_object_put(object);
	free(found);
	assert_true(!error == !message[0] && !strchr(message, '\n'));
	return error;
}

static void test_facts_that_cannot_be_are_refused(void **state)
{
	static const char *const keys[] = {"version", "needs", "target", "directory", "options", "no_utab", "notify_socket",
		"kernel_minor", "minor", "max_readahead", "max_write", "offered", "negotiated"};
	char *text = malloc(HANDOVER_OPTIONS_BYTES + 1);

	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		assert_int_equal(parse_changed(keys[i], NULL), -EPROTO);
		assert_non_null(strstr(message, keys[i]));
		assert_int_equal(parse_changed(keys[i], json_object_new_double(1)), -EPROTO);
	}
	assert_int_equal(parse_changed("version", json_object_new_int(HANDOVER_VERSION + 1)), -EOPNOTSUPP);
	assert_int_equal(parse_changed("version", json_object_new_int(0)), -EOPNOTSUPP);
	assert_int_equal(parse_changed("minor", json_object_new_int64(1ll << 32)), -EPROTO);
	assert_int_equal(parse_changed("minor", json_object_new_int(-1)), -EPROTO);
	memset(text, 'x', HANDOVER_OPTIONS_BYTES);
	assert_int_equal(parse_changed("options", json_object_new_string_len(text, HANDOVER_OPTIONS_BYTES - 1)), 0);
	assert_int_equal(parse_changed("options", json_object_new_string_len(text, HANDOVER_OPTIONS_BYTES)), -EPROTO);
	assert_int_equal(parse_changed("target", json_object_new_string_len("a\0b", 3)), -EPROTO);
	free(text);
}

static void test_a_new_field_is_ignored_unless_it_must_be_understood(void **state)
{
	struct json_object *needs = json_object_new_array();

	assert_int_equal(parse_changed("colour", json_object_new_string("red")), 0);
	json_object_array_add(needs, json_object_new_string("target"));
	json_object_array_add(needs, json_object_new_string("colour"));
	assert_int_equal(parse_changed("needs", needs), -EOPNOTSUPP);
	assert_non_null(strstr(message, "colour"));
}

/* ---- state ---- */

static int sample_write(void)
{
	struct fs_count counts[COUNTS];
	struct handover_state sample = {.legacy = {.durable_sequence = 77, .count = COUNTS, .counts = counts}, .suid_seen = true};
	int fd = -1;

	for (unsigned i = 0; i < COUNTS; i++)
		counts[i] = (struct fs_count){.ino = i * 1000003 + 1, .count = i + 1};
	memset(sample.legacy.uuid, 0xa5, sizeof(sample.legacy.uuid));
	assert_int_equal(handover_state_write(&sample, &fd), 0);
	return fd;
}

static void sample_bytes(uint8_t bytes[SIZE + 1])
{
	const int fd = sample_write();

	assert_int_equal(pread(fd, bytes, SIZE + 1, 0), SIZE);
	close(fd);
}

static int parse_sealed(uint8_t *bytes, size_t size)
{
	struct handover_state found;
	uint64_t sum;

	memset(bytes + SUM_AT, 0, 8);
	sum = htole64(XXH64(bytes, size, 0));
	memcpy(bytes + SUM_AT, &sum, 8);
	message[0] = '\0';
	const int error = handover_state_parse(bytes, size, &found, message, sizeof(message));
	if (error)
		assert_null(found.legacy.counts);
	free(found.legacy.counts);
	return error;
}

static void test_the_state_arrives_over_a_socket(void **state)
{
	int sockets[2], fds[HANDOVER_FDS] = {dup(0), sample_write()};
	struct json_object *said = json_object_new_object(), *heard;
	struct handover_state found;

	json_object_object_add(said, "left", json_object_new_boolean(true));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
	assert_int_equal(handover_send(sockets[0], said, fds), 0);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(handover_receive(sockets[1], 1000, &heard, fds), 0);
	assert_true(json_object_object_get_ex(heard, "left", NULL));
	json_object_put(heard);
	assert_int_equal(handover_state_read(fds[1], &found, message, sizeof(message)), 0);
	assert_int_equal(found.legacy.durable_sequence, 77);
	assert_int_equal(found.legacy.uuid[15], 0xa5);
	assert_true(found.suid_seen);
	assert_int_equal(found.legacy.count, COUNTS);
	for (unsigned i = 0; i < COUNTS; i++)
		assert_true(found.legacy.counts[i].ino == i * 1000003 + 1 && found.legacy.counts[i].count == i + 1);
	free(found.legacy.counts);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(handover_receive(sockets[1], 20, &heard, NULL), -ETIMEDOUT);
	close(sockets[0]);
	assert_int_equal(handover_receive(sockets[1], 1000, &heard, NULL), -EPIPE);
	close(sockets[1]);
}

static void test_what_can_still_change_is_refused(void **state)
{
	struct handover_state found;
	uint8_t bytes[SIZE + 1];
	const int fd = memfd_create("state", MFD_ALLOW_SEALING);

	sample_bytes(bytes);
	assert_int_equal(write(fd, bytes, SIZE), SIZE);
	assert_int_equal(handover_state_read(fd, &found, message, sizeof(message)), -EPROTO);
	assert_non_null(strstr(message, "sealed"));
	close(fd);
}

static void test_each_damage_is_refused(void **state)
{
	uint8_t bytes[SIZE + 1], changed[SIZE + 1];
	struct handover_state found;
	const uint64_t zero = 0, all = UINT64_MAX, huge = (uint64_t)INT64_MAX;

	sample_bytes(bytes);
	assert_int_equal(handover_state_parse(bytes, SIZE, &found, message, sizeof(message)), 0);
	free(found.legacy.counts);
	for (unsigned size = 0; size < SIZE; size++)
		assert_int_equal(handover_state_parse(bytes, size, &found, message, sizeof(message)), -EPROTO);
	for (unsigned at = 0; at < SIZE; at++) { /* no bit without the checksum */
		bytes[at] ^= 1u << at % 8;
		assert_int_not_equal(handover_state_parse(bytes, SIZE, &found, message, sizeof(message)), 0);
		bytes[at] ^= 1u << at % 8;
	}
#define WITH(place, value, wanted) do {                                                                                      \
	memcpy(changed, bytes, SIZE);                                                                                        \
	memcpy(changed + (place), &(value), sizeof(value));                                                                  \
	assert_int_equal(parse_sealed(changed, SIZE), wanted);                                                               \
} while (0)
	WITH(0, zero, -EPROTO);
	WITH(VERSION_AT, "\2", -EOPNOTSUPP);
	WITH(FLAGS_AT, "\2", -EOPNOTSUPP);
	WITH(COUNT_AT, zero, -EPROTO);
	WITH(COUNT_AT, all, -EPROTO);
	WITH(HEAD, zero, -EPROTO);      /* an inode number */
	WITH(HEAD + 8, zero, -EPROTO);  /* its count */
	WITH(HEAD + 8, all, -EPROTO);
	WITH(HEAD + 8, huge, -EPROTO);  /* with the others too much */
}

/* Random bytes under a good checksum: refused, or what they say can be. */
static void test_random_states(void **state)
{
	uint8_t bytes[SIZE + 1], changed[SIZE + 1];
	unsigned refused = 0;

	srandom(1);
	sample_bytes(bytes);
	for (unsigned i = 0; i < MUTATIONS; i++) {
		memcpy(changed, bytes, SIZE);
		for (unsigned j = 0; j <= i % 4; j++)
			changed[(unsigned)random() % (i % 3 ? SIZE : HEAD)] = (uint8_t)random();
		const size_t size = i % 5 ? SIZE : HEAD + (unsigned)random() % (SIZE - HEAD);
		refused += parse_sealed(changed, size) != 0;
	}
	assert_true(refused > MUTATIONS / 4 && refused < MUTATIONS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_facts_arrive),
		cmocka_unit_test(test_facts_that_cannot_be_are_refused),
		cmocka_unit_test(test_a_new_field_is_ignored_unless_it_must_be_understood),
		cmocka_unit_test(test_the_state_arrives_over_a_socket),
		cmocka_unit_test(test_what_can_still_change_is_refused),
		cmocka_unit_test(test_each_damage_is_refused),
		cmocka_unit_test(test_random_states),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
