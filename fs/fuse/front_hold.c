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
 * changes nothing (fs_ticket in fs.h), and its own answer is dropped. Normally an INTERRUPT is a mark only; FITRIM is
 * called off in the same way at any time.
 *
 * A request is at the door of the reactor that received it; INTERRUPT finds it there.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

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

void front_interrupt(struct front_request *request)
{
	struct front_session *session = request->session;
	request->interrupted = true;
	if (!hold_here(session)->held && !looks_at_ticket(request))
		return;
	if (request->at_door) {
		leave_door(request);
		front_count(&front_stats_here(session)->interrupted, 1);
		front_finish(request, -EINTR);
		return;
	}
	/* From here on the request may come home at any time, but not before this function has returned. */
	if (!fs_ticket_cancel(&request->ticket))
		return;
	front_count(&front_stats_here(session)->interrupted, 1);
	request->transport->answer_interrupted(request);
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
