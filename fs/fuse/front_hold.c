/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * While the device is held (it is away, may come back, and its I/O waits for that), nobody shall be unkillable for it:
 * a process cannot end before its request is answered.
 *
 * | a request that                       | while held                                                               |
 * | changes something, and arrives now   | waits at the door, in order; interrupted: goes away with EINTR            |
 * | reads, or only waits (fsync)         | runs: what memory knows is answered, the rest parks in the device's I/O   |
 * | is interrupted while it runs         | is answered EINTR at once if its ticket can still be cancelled            |
 * | has claimed its ticket               | has begun to change something: it is answered when it has ended           |
 *
 * The operation behind an early answer stays parked with its buffers until the device is back or given up; then it
 * changes nothing (fs_ticket in fs.h), and its own answer is dropped.
 *
 * Otherwise a signal does not end a request, as on any disk: programs do not expect EINTR there. But a process that is being
 * killed needs no answer, and cannot end without one; so it is let go in the same way, however long a slow device takes.
 * INTERRUPT does not say why, so the transport asks again from time to time. FITRIM is called off by any signal.
 *
 * A request is at the door of the reactor that received it; INTERRUPT finds it there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fs/fuse/front_request.h"

static struct front_hold *hold_here(struct front_session *session)
{
	return &front_stats_here(session)->hold;
}

void front_hold_init(struct front_hold *hold)
{
	*hold = (struct front_hold){.held = false};
	CDS_INIT_LIST_HEAD(&hold->door);
}

static bool changes_something(const struct front_request *request)
{
	const struct fuse_open_in *open = request->call.in;
	if (request->header->opcode == FUSE_OPEN)
		return open->flags & O_TRUNC;
	return front_opcode_waits_at_door(request->header->opcode);
}

bool front_hold_stop(struct front_request *request)
{
	struct front_hold *hold = hold_here(request->session);
	if (LIKELY(!hold->held) || !changes_something(request))
		return false;
	request->at_door = true;
	cds_list_add_tail(&request->door, &hold->door);
	front_count(&hold->count, 1);
	return true;
}

static void leave_door(struct front_request *request)
{
	cds_list_del(&request->door);
	request->at_door = false;
	front_count(&hold_here(request->session)->count, (uint64_t)-1);
}

/* FITRIM may take long, changes nothing that anybody could see, and ends when its ticket is cancelled. */
static bool looks_at_ticket(const struct front_request *request)
{
	const struct fuse_ioctl_in *in = request->call.in;
	return request->header->opcode == FUSE_IOCTL && in->cmd == FITRIM;
}

/* Whether the thread that waits for the answer is being killed: then SIGKILL is among its pending signals, whichever signal
 * it was. It cannot end meanwhile, so it is still the same, and reading about it is never the last to let go of its memory
 * or files (which could wait for this mount). */
static bool caller_dies(const struct front_request *request)
{
	enum { FIELDS_BEFORE = 28 }; /* of proc(5), stat: from behind the name to "signal" */
	char path[32], text[512];
	if (!request->header->pid) /* of another namespace */
		return false;
	snprintf(path, sizeof(path), "/proc/%u/stat", request->header->pid);
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	const ssize_t got = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[MAX(got, 0)] = '\0';
	const char *field = strrchr(text, ')');
	for (unsigned i = 0; i <= FIELDS_BEFORE && field; i++)
		field = strchr(field + 1, ' ');
	return field && strtoul(field, NULL, 10) & 1ul << (SIGKILL - 1);
}

bool front_interrupt(struct front_request *request)
{
	struct front_session *session = request->session;
	const bool early = request->transport->answer_interrupted;
	request->interrupted = true;
	if (atomic_load(&request->ticket.state) != FS_TICKET_OPEN)
		return false;
	if (!hold_here(session)->held && !looks_at_ticket(request) && !(early && caller_dies(request)))
		return early;
	if (request->at_door) {
		leave_door(request);
		front_count(&front_stats_here(session)->interrupted, 1);
		front_finish(request, -EINTR);
		return false;
	}
	/* From here on the request may come home at any time, but not before this function has returned. */
	if (!fs_ticket_cancel(&request->ticket))
		return false;
	front_count(&front_stats_here(session)->interrupted, 1);
	if (early)
		request->transport->answer_interrupted(request);
	return false;
}

void front_hold_begin(struct front_session *session) { hold_here(session)->held = true; }

void front_hold_end(struct front_session *session)
{
	struct front_hold *hold = hold_here(session);
	hold->held = false;
	while (!cds_list_empty(&hold->door)) {
		struct front_request *request = cds_list_first_entry(&hold->door, struct front_request, door);
		leave_door(request);
		front_dispatch(request);
	}
}
