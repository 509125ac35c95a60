/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * A request on its way through the front end, the transport it came by, and the session both belong to.
 *
 * Life of a request: the transport takes one from its pool, decodes into it and calls front_dispatch on the reactor
 * that received it -> a fiber on the owner of its inode (or, for what needs no wait, the receiving reactor at once)
 * runs the operation, which fills `out` and perhaps `data` and returns an errno -> transport->answer ->
 * transport->release. A request belongs to one reactor at a time: to the receiver until front_dispatch, then to the one
 * that runs it; the transport brings it home. Only `ticket` is written by several. While the device is held, a request
 * may be answered before its operation has ended: front_hold.c.
 */
#ifndef LANEFS_FS_FUSE_FRONT_REQUEST_H
#define LANEFS_FS_FUSE_FRONT_REQUEST_H

#include <stdatomic.h>

#include "fs/fuse/front_decode.h"
#include "fs/fuse/fuse_front.h"

struct front_request;
struct front_session;

struct front_transport {
	/* Page-aligned DMA memory for an answer of up to @size bytes, at most WIRE_WRITE_BYTES_MAX; stays valid until
	 * release. One per request. NULL: no memory at all. Waits while the pool is empty. */
	MAY_WAIT void *(*buffer_get)(struct front_request *request, uint32_t size);
	/* Sends @error (negative, or 0 with out and data). 0; -ENOENT: the kernel no longer waits for this request. */
	int (*answer)(struct front_request *request, int error);
	/* Sends -EINTR while the operation goes on; on the reactor that received the request. There is no other answer.
	 * NULL: a request is answered at its end only, whatever its ticket says. */
	void (*answer_interrupted)(struct front_request *request);
	/* Tells the kernel to forget the cached attributes of @ino. Only for an inode which the unanswered @request
	 * keeps in use in the kernel: then the call cannot block. See front_forget_attributes. */
	void (*forget_attributes)(struct front_request *request, uint64_t ino);
	/* The same for the cached entries of a directory, whose lock @request holds in the kernel; where it does not, the
	 * call may block, and may be made by a thread of its own. See front_forget_listing. */
	void (*forget_listing)(struct front_request *request, uint64_t ino);
	/* The last call; from the reactor that ran the request. */
	void (*release)(struct front_request *request);
};

union front_out {
	struct fuse_init_out init;
	struct fuse_entry_out entry;
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} create;
	struct fuse_attr_out attr;
	struct wire_statx_out statx;
	struct fuse_open_out open;
	struct fuse_write_out write;
	struct wire_copy_file_range_out copy;
	struct fuse_statfs_out statfs;
	struct fuse_getxattr_out getxattr;
	struct fuse_lseek_out lseek;
	struct {
		struct fuse_ioctl_out header;
		union {
			uint32_t flags;
			uint8_t xattr[28];
			uint8_t range[24];
		} data;
	} ioctl;
};

struct front_request {
	/* By the transport, before front_dispatch. */
	struct front_session *session;
	const struct front_transport *transport;
	const struct fuse_in_header *header;
	struct front_call call;
	uint64_t received_ns;
	/* By the operation. */
	union front_out out;
	uint32_t out_size;
	uint32_t data_size;
	const void *data;
	uint64_t granted_ino;         /* inode on which this answer hands out a lookup count; 0: none, or in `data` */
	/* Who answers: the operation claims it, an INTERRUPT cancels it while the device is held. */
	struct fs_ticket ticket;
	/* On the reactor that received it. */
	bool interrupted, at_door;
	struct cds_list_head door;
	struct cds_list_head known;   /* the transport's, to find it by its number */
	struct fiber_start_remote start;
};

/* Requests that wait for a device that is held: front_hold.c. */
struct front_hold {
	bool held;
	struct cds_list_head door;    /* front_request.door: changes that have not begun, in order */
	uint64_t count;               /* of them */
};

/* What one reactor keeps: written there; counters are read by anyone. */
struct front_stats {
	struct fuse_front_op_stats op[WIRE_OPCODE_COUNT];
	uint64_t forgets, interrupts, interrupted, malformed, refused_answers, pauses;
	struct front_hold hold;
};

struct front_session {
	struct fs *fs;
	struct reactor_group *group;
	bool noopen, writeback;
	bool ring;                    /* every reactor has a ring: requests may come by io_uring */
	uint32_t max_background;
	/* By INIT, on reactor 0, before anyone else reads. */
	bool ready;
	int init_error;
	struct front_dialect dialect;
	uint32_t kernel_minor, minor, max_readahead;
	uint64_t offered, negotiated;
	/* Called when ready or init_error is set. */
	void (*initialized)(struct front_session *session);
	/* True once the kernel was told of a regular file with suid or sgid: see front_data.c. Any reactor. */
	atomic_bool suid_seen;
	struct front_stats *stats[REACTOR_COUNT_MAX];
};

/* ---- front_dispatch.c ---- */
/* Runs a decoded request; on the reactor that received it. */
void front_dispatch(struct front_request *request);
/* The last thing done for a request: answers it, unless an interrupt was answered already, and lets go of it. */
void front_finish(struct front_request *request, int error);
/* Changes that wait while the device is held; OPEN does so only when it truncates. */
bool front_opcode_waits_at_door(uint32_t opcode);
/* Answers without running: a malformed or unknown request. */
void front_refuse(struct front_request *request, int error);
/* FORGET and BATCH_FORGET: no answer, no request object. */
void front_forget(struct front_session *session, const struct fuse_in_header *header, const struct front_call *call);
struct front_stats *front_stats_here(struct front_session *session);
uint64_t front_clock_ns(void);
/* One writer, relaxed readers. */
static inline void front_count(uint64_t *counter, uint64_t by)
{
	__atomic_store_n(counter, *counter + by, __ATOMIC_RELAXED);
}

/* ---- front_hold.c: on the reactor that received the request, or on each reactor ---- */
void front_hold_init(struct front_hold *hold);
void front_hold_begin(struct front_session *session);
/* Dispatches what waits at the door. */
void front_hold_end(struct front_session *session);
/* True: the request waits at the door now. */
bool front_hold_stop(struct front_request *request);
/* An INTERRUPT for this request. It may be gone afterwards. True: it is to be looked at again in a while. */
bool front_interrupt(struct front_request *request);

/* ---- front_negotiate.c ---- */
/* Answers INIT: fills @out and what the session agreed to. -EPROTO. */
int front_negotiate(struct front_session *session, const struct fuse_init_in *in, bool extended,
	struct fuse_init_out *out) MUST_CHECK;
/* Another front end has negotiated. */
void front_go_on(struct front_session *session, const struct fuse_front_agreement *agreement);
void front_agreement(const struct front_session *session, struct fuse_front_agreement *out);
/* A version of the protocol that is spoken here, and no feature that would not have been agreed to here. */
bool front_knows(const struct front_session *session, const struct fuse_front_agreement *agreement);
unsigned front_feature_names(uint64_t flags, const char *names[FUSE_FRONT_FEATURES_MAX]);

/* ---- the operations: fill the answer, return 0 or a negative errno ---- */
typedef int (*front_op_fn)(struct front_request *request);
/* front_names.c */
MAY_WAIT int front_op_lookup(struct front_request *request);
MAY_WAIT int front_op_mknod(struct front_request *request);
MAY_WAIT int front_op_mkdir(struct front_request *request);
MAY_WAIT int front_op_symlink(struct front_request *request);
MAY_WAIT int front_op_create(struct front_request *request);
MAY_WAIT int front_op_tmpfile(struct front_request *request);
MAY_WAIT int front_op_link(struct front_request *request);
MAY_WAIT int front_op_unlink(struct front_request *request);
MAY_WAIT int front_op_rmdir(struct front_request *request);
MAY_WAIT int front_op_rename(struct front_request *request);
MAY_WAIT int front_op_rename2(struct front_request *request);
MAY_WAIT int front_op_readlink(struct front_request *request);
MAY_WAIT int front_op_readdir(struct front_request *request);
MAY_WAIT int front_op_readdirplus(struct front_request *request);
/* front_attr.c */
MAY_WAIT int front_op_getattr(struct front_request *request);
MAY_WAIT int front_op_setattr(struct front_request *request);
MAY_WAIT int front_op_statx(struct front_request *request);
MAY_WAIT int front_op_statfs(struct front_request *request);
MAY_WAIT int front_op_setxattr(struct front_request *request);
MAY_WAIT int front_op_getxattr(struct front_request *request);
MAY_WAIT int front_op_listxattr(struct front_request *request);
MAY_WAIT int front_op_removexattr(struct front_request *request);
/* front_data.c */
MAY_WAIT int front_op_open(struct front_request *request);
MAY_WAIT int front_op_read(struct front_request *request);
MAY_WAIT int front_op_write(struct front_request *request);
MAY_WAIT int front_op_fallocate(struct front_request *request);
MAY_WAIT int front_op_lseek(struct front_request *request);
MAY_WAIT int front_op_copy_file_range(struct front_request *request);
MAY_WAIT int front_op_copy_file_range_64(struct front_request *request);
MAY_WAIT int front_op_fsync(struct front_request *request);
MAY_WAIT int front_op_syncfs(struct front_request *request);
uint32_t front_open_flags(const struct front_session *session, uint32_t flags); /* FOPEN_* for open(2) flags */
/* With a handle that says whether the kernel's writes bypass its cache. */
struct fuse_open_out front_open_answer(const struct front_session *session, uint32_t flags);
/* front_ioctl.c */
MAY_WAIT int front_op_ioctl(struct front_request *request);

/* ---- front_answer.c ---- */
/* transport->forget_attributes, unless the request may have been answered meanwhile (then nothing has changed). */
void front_forget_attributes(struct front_request *request, uint64_t ino);
/* transport->forget_listing, for a directory that @request has moved. */
MAY_WAIT void front_forget_listing(struct front_request *request, uint64_t ino);
struct fs_cred front_cred(const struct front_request *request);
void front_fill_attr(struct front_session *session, const struct fs_attr *attr, struct fuse_attr *out);
void front_fill_entry(struct front_session *session, const struct fs_entry *entry, struct fuse_entry_out *out);
void front_answer_attr(struct front_request *request, const struct fs_attr *attr);
void front_answer_entry(struct front_request *request, const struct fs_entry *entry);
/* @valid is infinite in practice: the daemon is the only writer. */
#define FRONT_VALID_SECONDS (1ull << 30)

#endif
