/* SPDX-License-Identifier: BSD-3-Clause */
/* Making and reading the facts and the state: see handover_state.h. */
#include "fs/daemon/handover_state.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "reactor/log.h"

/* ---- facts ---- */

static const char *const fact_names[] = {"version", "program", "needs", "target", "directory", "options", "no_utab",
	"notify_socket", "kernel_minor", "minor", "max_readahead", "max_write", "offered", "negotiated"};

static void add_number(struct json_object *object, const char *key, uint64_t value)
{
	json_object_object_add(object, key, json_object_new_uint64(value));
}

struct json_object *handover_facts_new(const struct handover_facts *facts)
{
	struct json_object *object = json_object_new_object(), *needs = json_object_new_array();

	if (!object || !needs) {
		json_object_put(object);
		json_object_put(needs);
		return NULL;
	}
	add_number(object, "version", HANDOVER_VERSION);
	json_object_object_add(object, "program", json_object_new_string(LANEFS_VERSION));
	json_object_object_add(object, "target", json_object_new_string(facts->target));
	json_object_object_add(object, "directory", json_object_new_string(facts->directory));
	json_object_object_add(object, "options", json_object_new_string(facts->options));
	json_object_object_add(object, "notify_socket", json_object_new_string(facts->notify_socket));
	json_object_object_add(object, "no_utab", json_object_new_boolean(facts->no_utab));
	add_number(object, "kernel_minor", facts->agreement.kernel_minor);
	add_number(object, "minor", facts->agreement.minor);
	add_number(object, "max_readahead", facts->agreement.max_readahead);
	add_number(object, "max_write", facts->agreement.max_write);
	add_number(object, "offered", facts->agreement.offered);
	add_number(object, "negotiated", facts->agreement.negotiated);
	json_object_object_foreach(object, key, value) {
		(void)value;
		json_object_array_add(needs, json_object_new_string(key));
	}
	json_object_object_add(object, "needs", needs);
	return object;
}

struct fact_reader {
	struct json_object *object;
	char *message;
	size_t message_size;
	int error;
};

static struct json_object *read_field(struct fact_reader *reader, const char *key, enum json_type type)
{
	struct json_object *value = NULL;

	if (!reader->error && (!json_object_object_get_ex(reader->object, key, &value) || !json_object_is_type(value, type))) {
		snprintf(reader->message, reader->message_size, "the running daemon does not say %s", key);
		reader->error = -EPROTO;
		return NULL;
	}
	return reader->error ? NULL : value;
}

static uint64_t read_number(struct fact_reader *reader, const char *key, uint64_t max)
{
	struct json_object *value = read_field(reader, key, json_type_int);
	const uint64_t number = value ? json_object_get_uint64(value) : 0;

	if (value && (number > max || (json_object_get_int64(value) < 0 && number <= INT64_MAX))) {
		snprintf(reader->message, reader->message_size, "the running daemon says a %s that cannot be", key);
		reader->error = -EPROTO;
	}
	return number;
}

static void read_text(struct fact_reader *reader, const char *key, char *out, size_t size)
{
	struct json_object *value = read_field(reader, key, json_type_string);
	const size_t length = value ? (size_t)json_object_get_string_len(value) : 0;

	out[0] = '\0';
	if (!value)
		return;
	if (length >= size || strlen(json_object_get_string(value)) != length) {
		snprintf(reader->message, reader->message_size, "the running daemon says a %s that is too long", key);
		reader->error = -EPROTO;
		return;
	}
	memcpy(out, json_object_get_string(value), length + 1);
}

static bool fact_known(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(fact_names); i++)
		if (!strcmp(name, fact_names[i]))
			return true;
	return false;
}

static void check_needs(struct fact_reader *reader)
{
	struct json_object *needs = read_field(reader, "needs", json_type_array);

	for (size_t i = 0; needs && !reader->error && i < json_object_array_length(needs); i++) {
		const char *name = json_object_get_string(json_object_array_get_idx(needs, i));

		if (name && fact_known(name))
			continue;
		snprintf(reader->message, reader->message_size, "the running daemon wants \"%.40s\" to be understood, which this "
			"version (" LANEFS_VERSION ") does not: unmount, and mount with it", name ? name : "?");
		reader->error = -EOPNOTSUPP;
	}
}

int handover_facts_parse(struct json_object *object, struct handover_facts *out, char *message, size_t message_size)
{
	struct fact_reader reader = {.object = object, .message = message, .message_size = message_size};
	uint64_t version;

	memset(out, 0, sizeof(*out));
	if (!json_object_is_type(object, json_type_object)) {
		snprintf(message, message_size, "the running daemon says nothing that can be understood");
		return -EPROTO;
	}
	version = read_number(&reader, "version", UINT32_MAX);
	if (!reader.error && version != HANDOVER_VERSION) {
		snprintf(message, message_size, "the running daemon hands over by version %" PRIu64 ", this program (" LANEFS_VERSION
			") knows %u: unmount, and mount with it", version, HANDOVER_VERSION);
		return -EOPNOTSUPP;
	}
	check_needs(&reader);
	read_text(&reader, "target", out->target, sizeof(out->target));
	read_text(&reader, "directory", out->directory, sizeof(out->directory));
	read_text(&reader, "options", out->options, sizeof(out->options));
	read_text(&reader, "notify_socket", out->notify_socket, sizeof(out->notify_socket));
	out->no_utab = json_object_get_boolean(read_field(&reader, "no_utab", json_type_boolean));
	out->agreement.kernel_minor = (uint32_t)read_number(&reader, "kernel_minor", UINT32_MAX);
	out->agreement.minor = (uint32_t)read_number(&reader, "minor", UINT32_MAX);
	out->agreement.max_readahead = (uint32_t)read_number(&reader, "max_readahead", UINT32_MAX);
	out->agreement.max_write = (uint32_t)read_number(&reader, "max_write", UINT32_MAX);
	out->agreement.offered = read_number(&reader, "offered", UINT64_MAX);
	out->agreement.negotiated = read_number(&reader, "negotiated", UINT64_MAX);
	return reader.error;
}

/* ---- state ---- */

#define STATE_MAGIC 0x4f4873666e616c01ull
enum { STATE_SUID_SEEN = 1 << 0, STATE_FLAGS_KNOWN = STATE_SUID_SEEN };

struct wire_state {
	le64_t magic;
	le32_t version;
	le32_t flags;
	uint8_t uuid[16];
	le64_t durable_sequence;
	le64_t count;                   /* of struct wire_count behind this */
	le64_t sum;                     /* XXH64 of everything, with this field zero */
};
struct wire_count {
	le64_t ino, count;
};
_Static_assert(sizeof(struct wire_state) == 56 && sizeof(struct wire_count) == 16, "no padding");

static uint64_t state_sum(const void *bytes, size_t size)
{
	struct wire_state head;
	XXH64_state_t *state = XXH64_createState();
	uint64_t sum = 0;

	memcpy(&head, bytes, sizeof(head));
	head.sum = le64_set(0);
	if (!state || XXH64_reset(state, 0) || XXH64_update(state, &head, sizeof(head)) ||
	    XXH64_update(state, (const char *)bytes + sizeof(head), size - sizeof(head)))
		log_error("handover: no memory for a checksum");
	else
		sum = XXH64_digest(state);
	XXH64_freeState(state);
	return sum;
}

static void state_fill(uint8_t *bytes, size_t size, const struct handover_state *state)
{
	struct wire_state *head = (struct wire_state *)bytes;
	struct wire_count *counts = (struct wire_count *)(head + 1);

	*head = (struct wire_state){
		.magic = le64_set(STATE_MAGIC),
		.version = le32_set(HANDOVER_VERSION),
		.flags = le32_set(state->suid_seen ? STATE_SUID_SEEN : 0),
		.durable_sequence = le64_set(state->legacy.durable_sequence),
		.count = le64_set(state->legacy.count),
	};
	memcpy(head->uuid, state->legacy.uuid, sizeof(head->uuid));
	for (uint64_t i = 0; i < state->legacy.count; i++)
		counts[i] = (struct wire_count){
			.ino = le64_set(state->legacy.counts[i].ino), .count = le64_set(state->legacy.counts[i].count)};
	head->sum = le64_set(state_sum(bytes, size));
}

int handover_state_write(const struct handover_state *state, int *out_fd)
{
	const size_t size = sizeof(struct wire_state) + state->legacy.count * sizeof(struct wire_count);
	int fd = memfd_create("lanefs-handover", MFD_CLOEXEC | MFD_ALLOW_SEALING), error = 0;
	uint8_t *bytes;

	if (fd < 0)
		return -errno;
	/* Allocated: a page that is not to be had would otherwise be a SIGBUS. */
	if (fallocate(fd, 0, 0, (off_t)size)) {
		error = -errno;
		close(fd);
		return error;
	}
	bytes = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (bytes != MAP_FAILED) {
		state_fill(bytes, size, state);
		munmap(bytes, size);
	}
	if (bytes == MAP_FAILED || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL)) {
		error = -errno;
		close(fd);
		return error;
	}
	*out_fd = fd;
	return 0;
}

static int refuse(int error, char *message, size_t message_size, const char *why)
{
	snprintf(message, message_size, "the running daemon has handed over something that is no state (%s)", why);
	return error;
}

int handover_state_parse(const void *bytes, size_t size, struct handover_state *out, char *message, size_t message_size)
{
	const struct wire_state *head = bytes;
	const struct wire_count *counts = (const struct wire_count *)(head + 1);
	uint64_t total = 0;

	memset(out, 0, sizeof(*out));
	if (size < sizeof(*head) || le64_get(head->magic) != STATE_MAGIC)
		return refuse(-EPROTO, message, message_size, "magic");
	if (le32_get(head->version) != HANDOVER_VERSION)
		return refuse(-EOPNOTSUPP, message, message_size, "version");
	if (le64_get(head->count) != (size - sizeof(*head)) / sizeof(*counts) || (size - sizeof(*head)) % sizeof(*counts))
		return refuse(-EPROTO, message, message_size, "length");
	if (le64_get(head->sum) != state_sum(bytes, size))
		return refuse(-EPROTO, message, message_size, "checksum");
	if (le32_get(head->flags) & ~(uint32_t)STATE_FLAGS_KNOWN)
		return refuse(-EOPNOTSUPP, message, message_size, "flags");
	out->suid_seen = le32_get(head->flags) & STATE_SUID_SEEN;
	memcpy(out->legacy.uuid, head->uuid, sizeof(out->legacy.uuid));
	out->legacy.durable_sequence = le64_get(head->durable_sequence);
	out->legacy.count = le64_get(head->count);
	out->legacy.counts = malloc(MAX(out->legacy.count, (uint64_t)1) * sizeof(*out->legacy.counts));
	if (!out->legacy.counts)
		return refuse(-ENOMEM, message, message_size, "no memory for it");
	for (uint64_t i = 0; i < out->legacy.count; i++) {
		const struct fs_count count = {.ino = le64_get(counts[i].ino), .count = le64_get(counts[i].count)};

		/* All together stay below what a table can count for one number. */
		if (!count.ino || !count.count || count.count > INT64_MAX - total) {
			free(out->legacy.counts);
			memset(out, 0, sizeof(*out));
			return refuse(-EPROTO, message, message_size, "a lookup count");
		}
		total += count.count;
		out->legacy.counts[i] = count;
	}
	return 0;
}

int handover_state_read(int fd, struct handover_state *out, char *message, size_t message_size)
{
	const int wanted = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *bytes;
	int error;

	memset(out, 0, sizeof(*out));
	/* What could still change, or shrink under our eyes, is not looked at. */
	if (seals < 0 || (seals & wanted) != wanted || fstat(fd, &st))
		return refuse(-EPROTO, message, message_size, "not sealed");
	if (st.st_size < (off_t)sizeof(struct wire_state))
		return refuse(-EPROTO, message, message_size, "length");
	bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (bytes == MAP_FAILED)
		return refuse(-errno, message, message_size, "no memory for it");
	error = handover_state_parse(bytes, (size_t)st.st_size, out, message, message_size);
	munmap(bytes, (size_t)st.st_size);
	return error;
}
