/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * An io_uring that belongs to one reactor: entries are collected during a turn, handed to the kernel with one call,
 * and completions are found by polling. The ring is made so that completions are run by us when we ask
 * (DEFER_TASKRUN) and not by interrupting the reactor; a flag in shared memory says when to ask. Polling such a
 * ring's own descriptor does not wake anybody (seen on Linux 6.18), so the reactor watches an eventfd, which is
 * signalled only while it is about to sleep.
 *
 * The normal sequence, in the owner's poller: uring_awake, uring_enter, io_uring_peek_batch_cqe on `ring`; in its
 * before_sleep hook: uring_may_sleep. All of it on the owner.
 */
#ifndef LANEFS_REACTOR_URING_H
#define LANEFS_REACTOR_URING_H

#include <liburing.h>

#include "reactor/base.h"

struct uring {
	struct io_uring ring;
	unsigned unsubmitted;           /* entries that the kernel does not have yet */
	int wake_fd;                    /* eventfd that the kernel signals while armed */
	bool armed;
};

/* @entries: most that are ever unsubmitted. @flags: IORING_SETUP_ ones beyond the usual, needed. -errno: not here. */
int uring_init(struct uring *uring, unsigned entries, unsigned flags) MUST_CHECK;
/* What is under way is cancelled by the kernel. */
void uring_fini(struct uring *uring);
/* An entry to fill; submitted with the next uring_enter. There are as many as uring_init was told. */
struct io_uring_sqe *uring_entry(struct uring *uring);
/* Hands the entries over, if there are any. The kernel may refuse for a moment; the next turn tries again. */
void uring_enter(struct uring *uring);
/* The reactor is awake: completions are found by polling. */
void uring_awake(struct uring *uring);
/* False: there is something to do. True: whatever completes from now on ends the reactor's sleep. */
bool uring_may_sleep(struct uring *uring) MUST_CHECK;

#endif
