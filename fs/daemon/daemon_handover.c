/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Handing the mount over to a successor, another process of the same user (daemon_takeover.c), while programs go on using it.
 *
 *   successor                                     this daemon
 *   "handover" on the control socket     ->
 *                                        <-       the facts (handover_state.h), or why not
 *   starts helper, reactors, memory               (serves; from here on the connection is theirs alone)
 *   {"begin"}                            ->
 *                                                 checkpoints; reads no more requests, answers those it has read;
 *                                                 leaves the filesystem, closes the device
 *                                        <-       {"left"}, with the fuse fd and the state
 *   opens the device, mounts
 *   {"ready"}                            ->
 *                                                 will not serve any more, whatever happens
 *                                        <-       {"go"}
 *   reads requests                                ends, without unmounting
 *
 * Requests wait in the kernel meanwhile: nobody sees more than a pause. Until {"go"} either side may say {"error"}, die, or
 * be late: then this daemon makes sure that the successor is gone, opens the device and goes on serving, out of the same
 * state. The successor reads nothing before {"go"}, so no request is lost with it. The device is never open in both, and
 * its lock sees to that. Whoever is killed at whatever moment leaves a device in order; when both are, or one is after
 * {"go"}, programs see ENOTCONN as after any crash.
 *
 * But for the checkpoint, the whole of it runs in the control thread, which does nothing else meanwhile; signals wait in their
 * fd, and one that came is told to the successor.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fs/daemon/daemon_internal.h"
#include "fs/daemon/handover_wire.h"
#include "fs/daemon/notify.h"
#include "fs/daemon/rpc_client.h"
#include "reactor/log.h"

enum {
	BEGIN_MS = 60000,      /* the successor starts its reactors and takes its memory */
	PAUSE_MS = 10000,      /* for requests under way; then all goes on as before */
	READY_MS = 30000,      /* the successor opens the device */
	LEAVE_MS = 30000,      /* for leaving and closing the device; then nobody serves any more */
	GONE_MS = 5000,        /* a successor that failed ends; then it is killed */
};

/* A look at the device's state may be under way at any time: a reactor with much to do comes to it late. */
static bool orders_under_way(const struct daemon *daemon)
{
	for (const struct daemon_task *task = daemon->tasks; task; task = task->next)
		if (!task->brief)
			return true;
	return false;
}

/* Why there can be no hand-over now, or NULL. */
static const char *refusal(const struct daemon *daemon)
{
	if (daemon->state != DAEMON_MOUNTED || daemon->stuck || daemon->removal.leaving || daemon->unmount_id ||
	    daemon->stop_requests)
		return "it is being unmounted";
	if (daemon->removal.held || daemon->removal.step != REMOVAL_NONE || daemon->hotplug.busy)
		return "its device is away, or about to leave";
	if (daemon->config->io_uring)
		return "its requests come by io_uring, which the kernel cannot hand over: unmount and mount instead";
	if (fs_stopped(daemon->fs))
		return "it has stopped on an error: unmount it and run fsck.lanefs";
	return orders_under_way(daemon) ? "a remount, or something else that was asked for, is under way" : NULL;
}

static void facts_fill(const struct daemon *daemon, struct handover_facts *facts)
{
	memset(facts, 0, sizeof(*facts));
	snprintf(facts->target, sizeof(facts->target), "%s", daemon->config->target);
	snprintf(facts->directory, sizeof(facts->directory), "%s", daemon->config->directory);
	options_show(daemon->config, facts->options, sizeof(facts->options));
	snprintf(facts->notify_socket, sizeof(facts->notify_socket), "%s", getenv("NOTIFY_SOCKET") ?: "");
	facts->no_utab = daemon->config->no_utab;
	fuse_front_get_agreement(daemon->front, &facts->agreement);
	facts->agreement.suid_seen = false;
}

/* ---- asked for ---- */

int handover_rpc(struct daemon *daemon, struct json_object *params, char *message, size_t message_size)
{
	struct handover *handover = &daemon->handover;
	const char *why = refusal(daemon);
	struct json_object *version = NULL;

	if (!params || !json_object_is_type(params, json_type_object) ||
	    !json_object_object_get_ex(params, "version", &version) || !json_object_is_type(version, json_type_int)) {
		snprintf(message, message_size, "handover wants \"version\", a number");
		return RPC_INVALID_PARAMS;
	}
	if (json_object_get_int64(version) < HANDOVER_VERSION)
		why = "the new program hands over by an older version: unmount and mount instead";
	if (!why && (handover->asked || handover->socket >= 0))
		why = "another process is about to take it over";
	if (why) {
		snprintf(message, message_size, "%s", why);
		return RPC_INTERNAL_ERROR;
	}
	handover->ticket = rpc_server_defer(daemon->rpc);
	handover->asked = true;
	return RPC_LATER;
}

static bool stop_asked(const struct daemon *daemon)
{
	struct pollfd poll_fd = {.fd = daemon->signal_fd, .events = POLLIN};

	return poll(&poll_fd, 1, 0) > 0;
}

static void let_go(struct daemon *daemon)
{
	struct handover *handover = &daemon->handover;

	if (handover->socket >= 0)
		close(handover->socket);
	if (handover->pidfd >= 0 && !handover->done)
		close(handover->pidfd);
	free(handover->facts);
	*handover = (struct handover){.socket = -1, .pidfd = handover->done ? handover->pidfd : -1, .done = handover->done,
		.lost = handover->lost, .pid = handover->pid};
}

/* A signal that came since {"go"} was meant for whoever serves. */
void handover_close(struct daemon *daemon)
{
	struct handover *handover = &daemon->handover;

	if (handover->done && handover->pidfd >= 0 && stop_asked(daemon))
		syscall(SYS_pidfd_send_signal, handover->pidfd, SIGTERM, NULL, 0);
	handover->done = false;
	let_go(daemon);
}

/* The connection leaves the control socket's clients. */
static void take_connection(struct daemon *daemon)
{
	struct handover *handover = &daemon->handover;
	struct ucred peer = {};
	socklen_t size = sizeof(peer);
	struct json_object *facts = NULL;

	handover->asked = false;
	handover->facts = malloc(sizeof(*handover->facts));
	if (handover->facts) {
		facts_fill(daemon, handover->facts);
		facts = handover_facts_new(handover->facts);
	}
	handover->socket = facts ? rpc_server_take(daemon->rpc, handover->ticket, facts) : -1;
	if (handover->socket < 0 || getsockopt(handover->socket, SOL_SOCKET, SO_PEERCRED, &peer, &size)) {
		let_go(daemon);
		return;
	}
	handover->pid = peer.pid;
	handover->pidfd = peer.pid > 0 ? (int)syscall(SYS_pidfd_open, peer.pid, 0) : -1;
	handover->deadline_ms = daemon_now_ms() + BEGIN_MS;
	log_info("%s: process %d is about to take over", daemon->config->directory, (int)peer.pid);
}

int handover_fd(const struct daemon *daemon) { return daemon->handover.begun ? -1 : daemon->handover.socket; }

int64_t handover_due_ms(const struct daemon *daemon)
{
	return daemon->handover.asked ? 0 : handover_fd(daemon) >= 0 ? daemon->handover.deadline_ms : INT64_MAX;
}

/* ---- leaving: in fibers of reactor 0 ---- */

static MAY_WAIT int checkpoint(struct daemon_task *task) { return fs_checkpoint(task->daemon->fs); }

static MAY_WAIT int pause_front(void *arg)
{
	struct daemon *daemon = arg;

	return fuse_front_pause(daemon->front, PAUSE_MS * NS_PER_MS);
}

static MAY_WAIT int save_counts(void *arg)
{
	struct daemon *daemon = arg;

	return fs_save_counts(daemon->fs, &daemon->handover.state.legacy);
}

static MAY_WAIT int leave(void *arg)
{
	struct daemon *daemon = arg;
	int error = fs_leave(daemon->fs, &daemon->handover.state.legacy);

	daemon->fs = NULL;
	return error;
}

static MAY_WAIT int go_on(void *arg) { return fuse_front_go(((struct daemon *)arg)->front); }

/* Undone by serve_again. */
static int leave_device(struct daemon *daemon, const char **why)
{
	struct fuse_front_agreement *agreement = &daemon->handover.agreement;
	int error;

	fuse_front_get_agreement(daemon->front, agreement);
	daemon->handover.state.suid_seen = agreement->suid_seen;
	daemon->agreement = agreement;
	daemon->legacy = &daemon->handover.state.legacy;
	(void)task_run(daemon, daemon_front_stop, -1);
	fuse_front_destroy(daemon->front);
	daemon->front = NULL;
	*why = "the filesystem cannot be left in order";
	error = task_run(daemon, leave, LEAVE_MS);
	if (!daemon->stuck && task_run(daemon, daemon_target_close, LEAVE_MS))
		log_warn("%s: the device was not closed in time", daemon->config->target);
	daemon->bdev_name[0] = '\0';
	if (!daemon->stuck && tasks_drain(daemon, true, LEAVE_MS))
		error = -ETIMEDOUT;
	atomic_store(&daemon->device_events, 0); /* that it left is no news */
	return error;
}

static void note_error(struct daemon *daemon, int error, const char *why, const char *what)
{
	struct json_object *object = json_object_new_object();
	char text[256];

	snprintf(text, sizeof(text), "%s%s%s", why, error ? ": " : "", error ? strerror(-error) : "");
	json_object_object_add(object, "error", json_object_new_string(text));
	if (handover_send(daemon->handover.socket, object, NULL))
		log_debug("handover: the successor is not told");
	log_warn("%s: not handed over to process %d: %s: %s", daemon->config->directory, (int)daemon->handover.pid, text, what);
}

/* ---- back ---- */

/* Waits until the successor has ended: only then its hold on the device is gone for certain. */
static void see_it_off(struct daemon *daemon)
{
	struct handover *handover = &daemon->handover;
	struct pollfd poll_fd = {.fd = handover->pidfd, .events = POLLIN};

	shutdown(handover->socket, SHUT_RDWR);
	if (handover->pidfd < 0 || poll(&poll_fd, 1, GONE_MS) > 0)
		return;
	log_warn("%s: process %d does not end: killed", daemon->config->directory, (int)handover->pid);
	syscall(SYS_pidfd_send_signal, handover->pidfd, SIGKILL, NULL, 0);
	if (poll(&poll_fd, 1, GONE_MS) <= 0)
		log_error("%s: process %d still does not end", daemon->config->directory, (int)handover->pid);
}

static void serve_again(struct daemon *daemon)
{
	int error = daemon->stuck ? -ETIMEDOUT : 0;

	daemon->message[0] = '\0';
	if (!error)
		error = daemon_start_device(daemon);
	if (!error)
		error = daemon_start_filesystem(daemon);
	if (!error)
		error = task_run(daemon, go_on, -1);
	daemon->legacy = NULL;
	daemon->agreement = NULL;
	if (!error) {
		facts_refresh(daemon);
		log_info("%s: goes on as before", daemon->config->directory);
		return;
	}
	log_error("%s: cannot go on: %s: open files answer errors; mount it again", daemon->config->directory,
		daemon->message[0] ? daemon->message : strerror(-error));
	daemon->handover.lost = daemon->keep_mount = true;
	daemon->state = DAEMON_CLOSING;
}

/* ---- the hand-over ---- */

/* {"left"} with both descriptors, then {"ready"}. */
static int give(struct daemon *daemon, char *why, size_t why_size)
{
	struct json_object *answer = NULL, *left;
	int fds[HANDOVER_FDS] = {daemon->fuse_fd, -1}, error;

	error = handover_state_write(&daemon->handover.state, &fds[1]);
	snprintf(why, why_size, "no memory for what the kernel knows");
	if (error)
		return error;
	left = json_object_new_object();
	json_object_object_add(left, "left", json_object_new_boolean(true));
	snprintf(why, why_size, "it does not take it");
	error = handover_send(daemon->handover.socket, left, fds);
	close(fds[1]);
	if (!error)
		error = handover_receive(daemon->handover.socket, READY_MS, &answer, NULL);
	if (!error && !json_object_object_get_ex(answer, "ready", NULL)) {
		const char *text = json_text(answer, "error");

		snprintf(why, why_size, "%s", text[0] ? text : "it answers something else");
		error = -ECANCELED;
	}
	json_object_put(answer);
	return error;
}

/* The point of no return is the sending: when it fails nobody has got it. */
static int say_go(struct daemon *daemon)
{
	struct json_object *go = json_object_new_object();

	json_object_object_add(go, "go", json_object_new_boolean(true));
	json_object_object_add(go, "stop", json_object_new_boolean(stop_asked(daemon)));
	return handover_send(daemon->handover.socket, go, NULL);
}

/* Everything runs, and nothing has been touched. */
static const char *changed(const struct daemon *daemon)
{
	const char *why = refusal(daemon);
	struct handover_facts *now = why ? NULL : malloc(sizeof(*now));

	if (why)
		return why;
	if (!now)
		return "no memory";
	facts_fill(daemon, now);
	if (memcmp(now, daemon->handover.facts, sizeof(*now)))
		why = "its options have changed meanwhile: try again";
	free(now);
	return why;
}

static const char *prepare(struct daemon *daemon, int *error)
{
	const char *why = changed(daemon);

	*error = why ? 0 : daemon->handover.checkpoint.result;
	if (why || *error)
		return why ? why : "its checkpoint fails";
	daemon->handover.quiet = true;
	daemon->handover.paused_ms = daemon_now_ms();
	*error = task_run(daemon, pause_front, -1);
	if (*error)
		return "some requests do not end: try again later";
	*error = task_run(daemon, save_counts, -1);
	if (!*error)
		return NULL;
	if (task_run(daemon, go_on, -1))
		log_error("%s: cannot go on reading requests", daemon->config->directory);
	return "no memory for what the kernel knows";
}

static void hand_over(struct daemon *daemon)
{
	int error = 0;
	const char *refused = prepare(daemon, &error);
	char why[256];

	if (refused) {
		note_error(daemon, error, refused, "goes on as before");
		return;
	}
	error = leave_device(daemon, &refused);
	snprintf(why, sizeof(why), "%s", refused);
	if (!error)
		error = give(daemon, why, sizeof(why));
	if (!error) {
		snprintf(why, sizeof(why), "it has ended");
		error = say_go(daemon);
	}
	if (!error) {
		daemon->handover.done = daemon->keep_mount = true;
		daemon->state = DAEMON_CLOSING; /* there is no filesystem to tell of any more */
		notify_manager("MAINPID=%d", (int)daemon->handover.pid);
		log_info("%s: handed over to process %d after a pause of %lld ms", daemon->config->directory, (int)daemon->handover.pid,
			(long long)(daemon_now_ms() - daemon->handover.paused_ms));
		return;
	}
	note_error(daemon, error == -ECANCELED ? 0 : error, why, "taken back");
	see_it_off(daemon);
	serve_again(daemon);
}

static void checkpoint_done(struct daemon_task *task)
{
	struct daemon *daemon = task->daemon;

	hand_over(daemon);
	free(daemon->handover.state.legacy.counts);
	let_go(daemon);
}

/* The checkpoint first, while all is served: it may take long, and what it finds is better known before anything is stopped. */
static void begin_arrived(struct daemon *daemon)
{
	struct handover *handover = &daemon->handover;
	struct json_object *message = NULL;
	const char *why;

	if (handover_receive(handover->socket, 0, &message, NULL) || !json_object_object_get_ex(message, "begin", NULL)) {
		json_object_put(message);
		let_go(daemon);
		return;
	}
	json_object_put(message);
	why = changed(daemon);
	if (why) {
		note_error(daemon, 0, why, "goes on as before");
		let_go(daemon);
		return;
	}
	handover->begun = true;
	handover->checkpoint = (struct daemon_task){.run = checkpoint, .done = checkpoint_done};
	task_start(daemon, &handover->checkpoint);
}

void handover_look(struct daemon *daemon, bool readable)
{
	if (daemon->handover.asked)
		take_connection(daemon);
	else if (readable)
		begin_arrived(daemon);
	else if (handover_fd(daemon) >= 0 && daemon_now_ms() >= daemon->handover.deadline_ms)
		let_go(daemon);
}
