/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Tasks: the control thread sends one to reactor 0, where it runs as a fiber; event_fd tells that it has run, and `done`
 * is called here. Messages, not waiting: reactor 0 may be in the middle of anything.
 */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "fs/daemon/daemon_internal.h"
#include "reactor/log.h"

enum { QUICK_ROUNDS = 500, QUICK_NS = 100000 };

void daemon_wake(struct daemon *daemon)
{
	uint64_t one = 1;

	if (write(daemon->event_fd, &one, sizeof(one)) < 0)
		log_debug("daemon: event: %s", strerror(errno)); /* cannot be full */
}

static MAY_WAIT void task_fiber(void *arg)
{
	struct daemon_task *task = arg;
	struct daemon *daemon = task->daemon;

	task->result = task->run(task);
	/* From here on the task is the control thread's. */
	atomic_store(&task->finished, true);
	daemon_wake(daemon);
}

static void task_arrived(struct message *message)
{
	fiber_start(&CONTAINER_OF(message, struct daemon_task, message)->start);
}

void task_start(struct daemon *daemon, struct daemon_task *task)
{
	task->daemon = daemon;
	task->message.fn = task_arrived;
	task->start = (struct fiber_start){.fn = task_fiber, .arg = task, .name = "daemon"};
	atomic_init(&task->finished, false);
	task->next = daemon->tasks;
	daemon->tasks = task;
	reactor_send_foreign(daemon_reactor(daemon), &task->message);
}

/* True when it has run; it is the starter's then. */
static bool task_take(struct daemon *daemon, struct daemon_task *task)
{
	struct daemon_task **place = &daemon->tasks;

	if (!atomic_load(&task->finished))
		return false;
	while (*place != task)
		place = &(*place)->next;
	*place = task->next;
	if (task->done)
		task->done(task);
	return true;
}

void tasks_reap(struct daemon *daemon)
{
	struct daemon_task *task = daemon->tasks;

	while (task) {
		/* What done starts, or takes away, changes the list: from its start again. */
		task = task_take(daemon, task) ? daemon->tasks : task->next;
	}
}

bool task_start_quick(struct daemon *daemon, struct daemon_task *task)
{
	task_start(daemon, task);
	for (unsigned i = 0; i < QUICK_ROUNDS; i++) {
		if (task_take(daemon, task))
			return true;
		nanosleep(&(struct timespec){.tv_nsec = QUICK_NS}, NULL);
	}
	return false;
}

/* One round of waiting: events, and the control socket. */
static void wait_round(struct daemon *daemon, int64_t end_ms)
{
	struct pollfd fds[1 + RPC_POLL_FDS] = {{.fd = daemon->event_fd, .events = POLLIN}};
	unsigned count = daemon->handover.quiet ? 0 : rpc_server_poll_fds(daemon->rpc, fds + 1);
	int64_t left = end_ms < 0 ? -1 : end_ms - daemon_now_ms();
	uint64_t events;

	if (poll(fds, 1 + count, left < 0 && end_ms >= 0 ? 0 : (int)left) < 0)
		return;
	if (fds[0].revents && read(daemon->event_fd, &events, sizeof(events)) < 0)
		log_debug("daemon: event: %s", strerror(errno));
	tasks_reap(daemon);
	rpc_server_handle(daemon->rpc, fds + 1, count);
}

/* Allocated: one that is given up on still runs. */
struct call {
	struct daemon_task task;
	int (*fn)(void *daemon);
	bool returned, abandoned;
	int result;
};

int tasks_prepare(struct daemon *daemon)
{
	daemon->kept_call = calloc(1, sizeof(*daemon->kept_call));
	return daemon->kept_call ? 0 : -ENOMEM;
}

static MAY_WAIT int call_run(struct daemon_task *task)
{
	struct call *call = CONTAINER_OF(task, struct call, task);

	return call->fn(task->daemon);
}

static void call_done(struct daemon_task *task)
{
	struct call *call = CONTAINER_OF(task, struct call, task);

	call->returned = true;
	call->result = task->result;
	if (call->abandoned)
		free(call);
}

/* An end without memory is one in order, too: there is always one call. */
static struct call *call_take(struct daemon *daemon)
{
	struct call *call = daemon->kept_call ?: calloc(1, sizeof(*call));

	daemon->kept_call = NULL;
	if (call)
		*call = (struct call){0};
	return call;
}

int task_run(struct daemon *daemon, int (*fn)(void *daemon), int64_t deadline_ms)
{
	int64_t end_ms = deadline_ms < 0 ? -1 : daemon_now_ms() + deadline_ms;
	struct call *call = call_take(daemon);
	int result;

	if (!call)
		return -ENOMEM;
	call->task.run = call_run;
	call->task.done = call_done;
	call->fn = fn;
	task_start(daemon, &call->task);
	while (!call->returned) {
		if (end_ms >= 0 && daemon_now_ms() >= end_ms) {
			call->abandoned = daemon->stuck = true;
			return -ETIMEDOUT;
		}
		wait_round(daemon, end_ms);
	}
	result = call->result;
	if (daemon->kept_call)
		free(call);
	else
		daemon->kept_call = call;
	return result;
}

static bool tasks_running(const struct daemon *daemon, bool all)
{
	for (const struct daemon_task *task = daemon->tasks; task; task = task->next)
		if (all || !task->device_only)
			return true;
	return false;
}

int tasks_drain(struct daemon *daemon, bool all, int64_t deadline_ms)
{
	int64_t end_ms = daemon_now_ms() + deadline_ms;

	tasks_reap(daemon);
	while (tasks_running(daemon, all) && daemon_now_ms() < end_ms)
		wait_round(daemon, end_ms);
	daemon->stuck |= tasks_running(daemon, all);
	return daemon->stuck ? -ETIMEDOUT : 0;
}
