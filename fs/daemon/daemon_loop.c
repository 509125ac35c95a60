/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The control thread's wait. One poll(2) over signals, events from reactor 0, the helper's answers and the control
 * socket.
 *
 *              signal or RPC                    busy
 *   mounted ------------------> helper unmounts ------> helper detaches ------> detached
 *      |                            |                                              |
 *      | umount(8), abort           | done                       last file closed  |
 *      +----------------------------+----------------------------------------------+----> the kernel let go: return
 *
 * A second signal, in any state: return without waiting for the kernel. When the device leaves, daemon_removal.c detaches
 * the mount, and says when the kernel is not waited for any more.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "fs/daemon/daemon_internal.h"
#include "fs/daemon/mounts.h"
#include "reactor/log.h"

enum {
	UNMOUNT_DEADLINE_MS = 120000, /* the kernel first writes dirty pages back through us */
	TICK_MS = 5000,               /* idle clients are looked for this often */
};

void daemon_unmount(struct daemon *daemon, unsigned how, unsigned deadline_ms)
{
	int64_t id = helper_send(&daemon->helper, HELPER_UNMOUNT, how, deadline_ms);

	daemon->unmount_id = id > 0 ? id : 0;
	daemon->unmount_how = how;
	if (id < 0)
		log_warn("%s: no helper process to unmount with: use umount", daemon->config->directory);
}

void daemon_ask_stop(struct daemon *daemon)
{
	daemon->stop_requests++;
	removal_end_wait(daemon, "asked to unmount");
	/* While the device is away an unmount would wait for it: that follows when the wait has ended. */
	if (daemon->stop_requests == 1 && daemon->state == DAEMON_MOUNTED && !daemon->unmount_id && !daemon->removal.held)
		daemon_unmount(daemon, UNMOUNT_NORMAL, UNMOUNT_DEADLINE_MS);
}

void daemon_stop_again(struct daemon *daemon)
{
	if (daemon->stop_requests && daemon->state == DAEMON_MOUNTED && !daemon->unmount_id)
		daemon_unmount(daemon, UNMOUNT_NORMAL, UNMOUNT_DEADLINE_MS);
}

static void handle_signals(struct daemon *daemon)
{
	struct signalfd_siginfo info;

	while (read(daemon->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		log_info("%s: signal %u from process %u", daemon->config->directory, info.ssi_signo, info.ssi_pid);
		daemon_ask_stop(daemon);
	}
}

static void handle_unmounted(struct daemon *daemon, int result)
{
	daemon->unmount_id = 0;
	if (result == 0 || result == -EINVAL) { /* or somebody was faster */
		if (daemon->unmount_how == UNMOUNT_LAZY)
			daemon->state = DAEMON_DETACHED;
	} else if (daemon->unmount_how != UNMOUNT_LAZY) {
		log_warn("%s: %s: detached; ends when the last open file is closed", daemon->config->directory,
			result == -EBUSY ? "in use" : strerror(-result));
		daemon_unmount(daemon, UNMOUNT_LAZY, UNMOUNT_DEADLINE_MS);
		return;
	} else {
		log_warn("%s: cannot be detached: %s", daemon->config->directory, strerror(-result));
	}
	removal_detached(daemon);
}

static void handle_helper(struct daemon *daemon)
{
	struct helper_reply reply;

	if (helper_receive(&daemon->helper, &reply, 0))
		return;
	if (reply.fd >= 0)
		close(reply.fd);
	if (reply.id == daemon->unmount_id)
		handle_unmounted(daemon, reply.result);
	removal_helper_reply(daemon, &reply);
	hotplug_helper_reply(daemon, &reply);
}

/* The filesystem said something; its device gone means that the mount goes too. */
static void handle_stopped(struct daemon *daemon, int *status)
{
	int error = atomic_load(&daemon->stopped_error);

	if (error == 0 || *status != MOUNT_EXIT_OK)
		return;
	if (error != -ENODEV) {
		*status = MOUNT_EXIT_STOPPED;
		log_error("%s: stopped: %s: what can be read is still served; unmount and run fsck.lanefs",
			daemon->config->target, strerror(-error));
		return;
	}
	*status = MOUNT_EXIT_REMOVED;
	log_error("%s: the device is gone: %s is detached, open files answer errors", daemon->config->target,
		daemon->config->directory);
	removal_lost(daemon);
}

enum { SIGNALS, EVENTS, HELPER, UEVENTS, SUCCESSOR, OWN_FDS };

static int wait_ms(const struct daemon *daemon, bool clients)
{
	int64_t due = MIN(MIN(removal_due_ms(daemon), hotplug_due_ms(daemon)), handover_due_ms(daemon)), left;

	if (due == INT64_MAX)
		return clients ? TICK_MS : -1;
	left = due - daemon_now_ms();
	return (int)MIN(MAX(left, (int64_t)0), (int64_t)TICK_MS);
}

/* Waits for something to happen and handles it. */
static void wait_round(struct daemon *daemon, int *status)
{
	struct pollfd fds[OWN_FDS + RPC_POLL_FDS] = {
		[SIGNALS] = {.fd = daemon->signal_fd, .events = POLLIN},
		[EVENTS] = {.fd = daemon->event_fd, .events = POLLIN},
		[HELPER] = {.fd = daemon->helper.socket, .events = POLLIN},
		[UEVENTS] = {.fd = hotplug_fd(daemon), .events = POLLIN},
		[SUCCESSOR] = {.fd = handover_fd(daemon), .events = POLLIN},
	};
	unsigned count = rpc_server_poll_fds(daemon->rpc, fds + OWN_FDS);
	uint64_t events;

	if (poll(fds, OWN_FDS + count, wait_ms(daemon, count > 1)) < 0)
		return;
	if (fds[SIGNALS].revents)
		handle_signals(daemon);
	if (fds[EVENTS].revents && read(daemon->event_fd, &events, sizeof(events)) < 0)
		log_debug("daemon: event: %s", strerror(errno));
	tasks_reap(daemon);
	removal_look(daemon);
	handle_stopped(daemon, status);
	if (fds[HELPER].revents)
		handle_helper(daemon);
	if (fds[UEVENTS].revents)
		hotplug_read(daemon);
	hotplug_look(daemon);
	if (count && daemon->stop_requests < 2)
		rpc_server_handle(daemon->rpc, fds + OWN_FDS, count);
	handover_look(daemon, fds[SUCCESSOR].revents);
}

int daemon_wait(struct daemon *daemon)
{
	int status = MOUNT_EXIT_OK;

	while (!atomic_load(&daemon->ended)) {
		wait_round(daemon, &status);
		if (atomic_load(&daemon->ended))
			break;
		if (daemon->handover.done || daemon->handover.lost)
			return daemon->handover.done ? MOUNT_EXIT_OK : MOUNT_EXIT_STOPPED;
		if (daemon->removal.over)
			return MOUNT_EXIT_REMOVED;
		if (daemon->stop_requests >= 2) {
			log_warn("%s: asked a second time: open files are cut off", daemon->config->directory);
			return MOUNT_EXIT_FORCED;
		}
	}
	return daemon->removal.leaving || daemon->removal.held ? MOUNT_EXIT_REMOVED : status;
}
