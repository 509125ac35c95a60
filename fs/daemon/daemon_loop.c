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
 * A second signal, in any state: return without waiting for the kernel.
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

static void unmount_start(struct daemon *daemon, unsigned how)
{
	int64_t id = helper_send(&daemon->helper, HELPER_UNMOUNT, how, UNMOUNT_DEADLINE_MS);

	daemon->unmount_id = id > 0 ? id : 0;
	daemon->unmount_how = how;
	if (id < 0)
		log_warn("%s: no helper process to unmount with: use umount", daemon->config->directory);
}

void daemon_ask_stop(struct daemon *daemon)
{
	daemon->stop_requests++;
	if (daemon->stop_requests == 1 && daemon->state == DAEMON_MOUNTED && !daemon->unmount_id)
		unmount_start(daemon, UNMOUNT_NORMAL);
}

static void handle_signals(struct daemon *daemon)
{
	struct signalfd_siginfo info;

	while (read(daemon->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		log_info("%s: signal %u from process %u", daemon->config->directory, info.ssi_signo, info.ssi_pid);
		daemon_ask_stop(daemon);
	}
}

static void handle_helper(struct daemon *daemon)
{
	struct helper_reply reply;

	if (helper_receive(&daemon->helper, &reply, 0))
		return;
	if (reply.fd >= 0)
		close(reply.fd);
	if (reply.id != daemon->unmount_id)
		return;
	daemon->unmount_id = 0;
	if (reply.result == 0 || reply.result == -EINVAL) { /* or somebody was faster */
		if (daemon->unmount_how == UNMOUNT_LAZY)
			daemon->state = DAEMON_DETACHED;
	} else if (daemon->unmount_how != UNMOUNT_LAZY) {
		log_warn("%s: %s: detached; ends when the last open file is closed", daemon->config->directory,
			reply.result == -EBUSY ? "in use" : strerror(-reply.result));
		unmount_start(daemon, UNMOUNT_LAZY);
	} else {
		log_warn("%s: cannot be detached: %s", daemon->config->directory, strerror(-reply.result));
	}
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
	log_error("%s: the device is gone; %s is detached", daemon->config->target, daemon->config->directory);
	if (daemon->state == DAEMON_MOUNTED)
		unmount_start(daemon, UNMOUNT_LAZY);
}

int daemon_wait(struct daemon *daemon)
{
	enum { SIGNALS, EVENTS, HELPER, OWN_FDS };
	int status = MOUNT_EXIT_OK;

	while (!atomic_load(&daemon->ended)) {
		struct pollfd fds[OWN_FDS + RPC_POLL_FDS] = {
			[SIGNALS] = {.fd = daemon->signal_fd, .events = POLLIN},
			[EVENTS] = {.fd = daemon->event_fd, .events = POLLIN},
			[HELPER] = {.fd = daemon->helper.socket, .events = POLLIN},
		};
		unsigned count = rpc_server_poll_fds(daemon->rpc, fds + OWN_FDS);
		uint64_t events;

		if (poll(fds, OWN_FDS + count, count > 1 ? TICK_MS : -1) < 0)
			continue;
		if (fds[SIGNALS].revents)
			handle_signals(daemon);
		if (fds[EVENTS].revents && read(daemon->event_fd, &events, sizeof(events)) > 0)
			handle_stopped(daemon, &status);
		if (fds[HELPER].revents)
			handle_helper(daemon);
		if (count && daemon->stop_requests < 2)
			rpc_server_handle(daemon->rpc, fds + OWN_FDS, count);
		if (daemon->stop_requests >= 2 && !atomic_load(&daemon->ended)) {
			log_warn("%s: asked a second time: open files are cut off", daemon->config->directory);
			return MOUNT_EXIT_FORCED;
		}
	}
	return status;
}
