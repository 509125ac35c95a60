/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What a daemon tells the one that takes its mount over, as bytes; how the two talk is in daemon_handover.c.
 *
 *   facts   a JSON object, told while the mount is served: what is mounted, how, and what was agreed with the kernel. Whoever
 *           cannot go on from there refuses before anything was stopped
 *   state   in a sealed memfd, once nothing runs any more: how the device was left, and what the kernel knows of
 *
 *   state:  struct wire_state | struct wire_count * count
 *
 * The two programs are of different versions as a rule: facts name the version of all that follows, and every field that
 * must be understood. Nothing that comes from the other side is believed: lengths, sums, unknown bits.
 */
#ifndef LANEFS_FS_DAEMON_HANDOVER_STATE_H
#define LANEFS_FS_DAEMON_HANDOVER_STATE_H

#include <json-c/json.h>
#include <limits.h>

#include "fs/fs.h"
#include "fs/fuse/fuse_front.h"

enum { HANDOVER_VERSION = 1, HANDOVER_OPTIONS_BYTES = 4096 };

struct handover_facts {
	char target[PATH_MAX], directory[PATH_MAX];
	char options[HANDOVER_OPTIONS_BYTES]; /* as after -o: all that are in force, and no others */
	char notify_socket[108];              /* of the service manager, see notify.h; "": none */
	bool no_utab;
	struct fuse_front_agreement agreement; /* all but suid_seen */
};
/* The caller's. NULL: no memory. */
struct json_object *handover_facts_new(const struct handover_facts *facts) MUST_CHECK;
/* -EOPNOTSUPP (another version, a field that is not known), -EPROTO (not well-formed); one line in @message. */
int handover_facts_parse(struct json_object *object, struct handover_facts *out, char *message, size_t message_size) MUST_CHECK;

struct handover_state {
	struct fs_legacy legacy;
	bool suid_seen;
};
/* An object of its own in memory, that nobody can change any more; the caller closes it. -errno. */
int handover_state_write(const struct handover_state *state, int *out_fd) MUST_CHECK;
/* The reverse. legacy.counts is the caller's. -EPROTO, -ENOMEM, -EOPNOTSUPP; one line in @message. */
int handover_state_read(int fd, struct handover_state *out, char *message, size_t message_size) MUST_CHECK;
/* The same of bytes. */
int handover_state_parse(const void *bytes, size_t size, struct handover_state *out, char *message, size_t message_size) MUST_CHECK;

#endif
