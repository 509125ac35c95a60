/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The device leaves. What happens is the mount option on_removal=; every step has a deadline.
 *
 *   unmount   wanted back: SYNC -> CHECKPOINT -> DETACH -> GRACE -> taken down, clean
 *             gone:                              DETACH -> GRACE -> taken down (requests answer EIO since)
 *   wait      wanted back: SYNC -> CHECKPOINT -> LEAVE -> held
 *             gone: held until the device is back, or as `unmount` from there on:
 *             at the deadline, or when somebody asks for the end
 *
 *   SYNC        the helper's syncfs: the kernel's dirty pages come to us
 *   CHECKPOINT  the filesystem's: everything durable and in its place
 *   LEAVE       the controller is shut down and let go of
 *   DETACH      the helper takes the mount out of the tree
 *   GRACE       without open files the kernel lets go by itself; at the deadline they are cut off
 *
 * While the device is held, the front end answers EINTR to interrupted requests (front_hold.c), so nobody is unkillable
 * for a device that may never come back. Other mounts are other daemons, and not concerned.
 */
#include <errno.h>
#include <stdlib.h>

#include "fs/daemon/daemon_internal.h"
#include "fs/daemon/mounts.h"
#include "reactor/log.h"

enum {
	SYNC_MS = 10000,
	CHECKPOINT_MS = 10000,
	LEAVE_MS = 20000,
	DETACH_MS = 5000,
	GRACE_MS = 2000,
	STEP_MARGIN_MS = 1000, /* what the helper or reactor 0 ends by itself at its deadline is given this much longer */
};

struct nvme_device *daemon_device(const struct daemon *daemon)
{
	return daemon->bdev_name[0] ? nvme_device_of(daemon->registry, daemon->bdev_name) : NULL;
}

/* A mount that is being made does not wait for its device. */
static MAY_WAIT void give_up_early(void *arg)
{
	struct nvme_device *device = daemon_device(arg);

	if (device)
		nvme_device_give_up(device);
}

void removal_device_event(unsigned event, void *arg)
{
	struct daemon *daemon = arg;
	unsigned before = atomic_load(&daemon->device_events), after;

	/* In one word, so that what happened and what is the case now fit together. */
	do {
		after = before | 1u << event;
		if (event == NVME_DEVICE_NOW_HELD)
			after |= DEVICE_HELD_NOW;
		else if (event == NVME_DEVICE_RESUMED || event == NVME_DEVICE_GONE)
			after &= ~DEVICE_HELD_NOW;
	} while (!atomic_compare_exchange_weak(&daemon->device_events, &before, after));
	daemon_wake(daemon);
	if (event != NVME_DEVICE_NOW_HELD || atomic_load(&daemon->serving))
		return;
	daemon->early_give_up = (struct fiber_start){.fn = give_up_early, .arg = daemon, .name = "daemon"};
	fiber_start(&daemon->early_give_up);
}

static void step_begin(struct daemon *daemon, enum removal_step step, int64_t limit_ms)
{
	daemon->removal.step = step;
	daemon->removal.deadline_ms = daemon_now_ms() + limit_ms;
}

static struct daemon_task *task_new(int (*run)(struct daemon_task *task), void (*done)(struct daemon_task *task))
{
	struct daemon_task *task = calloc(1, sizeof(*task));

	if (task) {
		task->run = run;
		task->done = done;
	}
	return task;
}

static void task_free(struct daemon_task *task) { free(task); }

/* ---- out of the tree ---- */
static void detach_begin(struct daemon *daemon)
{
	daemon->removal.leaving = true;
	if (daemon->state == DAEMON_DETACHED) {
		step_begin(daemon, REMOVAL_GRACE, GRACE_MS);
		return;
	}
	step_begin(daemon, REMOVAL_DETACH, DETACH_MS + STEP_MARGIN_MS);
	daemon_unmount(daemon, UNMOUNT_LAZY, DETACH_MS);
}

void removal_detached(struct daemon *daemon)
{
	if (daemon->removal.step == REMOVAL_DETACH)
		step_begin(daemon, REMOVAL_GRACE, GRACE_MS);
}

void removal_lost(struct daemon *daemon)
{
	struct removal *removal = &daemon->removal;

	removal->orderly = false;
	if (removal->step != REMOVAL_DETACH && removal->step != REMOVAL_GRACE)
		detach_begin(daemon);
}

/* ---- an orderly removal ---- */
static MAY_WAIT int leave_run(struct daemon_task *task)
{
	struct nvme_device *device = daemon_device(task->daemon);

	return device ? nvme_device_detach(device, LEAVE_MS * NS_PER_MS) : -ENODEV;
}

/* Under `wait` the mount goes on, and whoever asked for the detach is told. */
static void detach_answer(struct daemon *daemon, const char *failed)
{
	struct json_object *result = failed ? NULL : json_object_new_object();

	if (!daemon->removal.detach_asked) {
		json_object_put(result);
		return;
	}
	daemon->removal.detach_asked = false;
	if (result)
		json_object_object_add(result, "state", json_object_new_string("held"));
	rpc_server_answer(daemon->rpc, daemon->removal.detach_ticket, failed ? RPC_INTERNAL_ERROR : 0, result, failed);
}

static void leave_done(struct daemon_task *task)
{
	struct daemon *daemon = task->daemon;

	if (task->result && task->result != -ETIMEDOUT)
		detach_answer(daemon, strerror(-task->result));

	if (task->result)
		log_warn("%s: the device was not let go of in an orderly way: %s", daemon->config->target,
			strerror(-task->result));
	if (daemon->removal.step == REMOVAL_LEAVE)
		daemon->removal.step = REMOVAL_NONE;
	free(task);
}

/* Under `wait` only the controller goes; the mount stays and is held. */
static void leave_begin(struct daemon *daemon)
{
	struct daemon_task *task = task_new(leave_run, leave_done);

	step_begin(daemon, REMOVAL_LEAVE, LEAVE_MS + STEP_MARGIN_MS);
	if (!task)
		return;
	task->device_only = true;
	task_start(daemon, task);
}

static void checkpoint_ended(struct daemon *daemon, int result)
{
	if (daemon->removal.step != REMOVAL_CHECKPOINT)
		return;
	daemon->removal.orderly = result == 0;
	if (result)
		log_warn("%s: no checkpoint before the removal: %s; the next mount replays the journal", daemon->config->target,
			strerror(-result));
	if (daemon->config->hold_on_removal)
		leave_begin(daemon);
	else
		detach_begin(daemon);
}

static MAY_WAIT int checkpoint_run(struct daemon_task *task) { return fs_checkpoint(task->daemon->fs); }

static void checkpoint_done(struct daemon_task *task)
{
	checkpoint_ended(task->daemon, task->result);
	free(task);
}

static void checkpoint_begin(struct daemon *daemon)
{
	struct daemon_task *task = task_new(checkpoint_run, checkpoint_done);

	step_begin(daemon, REMOVAL_CHECKPOINT, CHECKPOINT_MS);
	if (task)
		task_start(daemon, task);
	else
		checkpoint_ended(daemon, -ENOMEM);
}

void removal_begin(struct daemon *daemon, const char *why)
{
	struct removal *removal = &daemon->removal;

	if (removal->step != REMOVAL_NONE || removal->held || removal->leaving)
		return;
	log_info("%s: %s: %s", daemon->config->target, why,
		daemon->config->hold_on_removal ? "synced, then waited for" : "unmounted first");
	removal->sync_id = helper_send(&daemon->helper, HELPER_SYNCFS, 0, SYNC_MS);
	if (removal->sync_id > 0)
		step_begin(daemon, REMOVAL_SYNC, SYNC_MS + STEP_MARGIN_MS);
	else
		checkpoint_begin(daemon);
}

void removal_helper_reply(struct daemon *daemon, const struct helper_reply *reply)
{
	if (daemon->removal.step != REMOVAL_SYNC || reply->id != daemon->removal.sync_id)
		return;
	if (reply->result)
		log_warn("%s: syncfs before the removal: %s", daemon->config->directory, strerror(-reply->result));
	checkpoint_begin(daemon);
}

/* ---- held ---- */
struct hold_task {
	struct daemon_task task;
	bool held;
};

static MAY_WAIT int hold_run(struct daemon_task *task)
{
	fuse_front_set_held(task->daemon->front, CONTAINER_OF(task, struct hold_task, task)->held);
	return 0;
}

static void hold_done(struct daemon_task *task) { free(CONTAINER_OF(task, struct hold_task, task)); }

static void hold_front(struct daemon *daemon, bool held)
{
	struct hold_task *hold = calloc(1, sizeof(*hold));

	if (!hold)
		return; /* requests are not interrupted, then */
	hold->task.run = hold_run;
	hold->task.done = hold_done;
	hold->held = held;
	task_start(daemon, &hold->task);
}

static MAY_WAIT int give_up_run(struct daemon_task *task)
{
	struct nvme_device *device = daemon_device(task->daemon);

	if (device)
		nvme_device_give_up(device);
	return 0;
}

void removal_end_wait(struct daemon *daemon, const char *why)
{
	if (!daemon->removal.held || daemon->removal.giving_up)
		return;
	log_warn("%s: %s: the device is not waited for any longer", daemon->config->target, why);
	removal_give_up(daemon);
}

void removal_give_up(struct daemon *daemon)
{
	struct daemon_task *task = daemon->removal.giving_up ? NULL : task_new(give_up_run, task_free);

	if (!task)
		return; /* the deadline, or whoever asks again */
	daemon->removal.giving_up = true;
	task->device_only = true;
	task_start(daemon, task);
}

static void hold_begin(struct daemon *daemon)
{
	struct removal *removal = &daemon->removal;

	removal->held = true;
	removal->giving_up = false;
	removal->step = REMOVAL_NONE;
	removal->holds++;
	removal->held_since_ms = daemon_now_ms();
	removal->held_deadline_ms = removal->held_since_ms + (int64_t)daemon->config->hold_ms;
	log_warn("%s: the device is away: %s waits up to %u s for it; umount.lanefs, or lanefs detach, ends that",
		daemon->config->target, daemon->config->directory, (unsigned)(daemon->config->hold_ms / 1000));
	hold_front(daemon, true);
	detach_answer(daemon, NULL);
	if (daemon->stop_requests || removal->leaving)
		removal_end_wait(daemon, "an unmount is under way");
}

static void hold_end(struct daemon *daemon, bool back)
{
	struct removal *removal = &daemon->removal;
	int64_t took_ms = daemon_now_ms() - removal->held_since_ms;

	removal->held = removal->giving_up = false;
	hold_front(daemon, false);
	if (!back)
		return;
	log_warn("%s: the device is back after %lld.%lld s; %s goes on", daemon->config->target, (long long)(took_ms / 1000),
		(long long)(took_ms % 1000 / 100), daemon->config->directory);
	daemon_stop_again(daemon);
}

/* ---- the loop's side ---- */
static void step_late(struct daemon *daemon)
{
	struct removal *removal = &daemon->removal;

	switch (removal->step) {
	case REMOVAL_NONE:
		break;
	case REMOVAL_SYNC:
		log_warn("%s: syncfs before the removal does not end", daemon->config->directory);
		checkpoint_begin(daemon);
		break;
	case REMOVAL_CHECKPOINT:
		checkpoint_ended(daemon, -ETIMEDOUT);
		break;
	case REMOVAL_LEAVE:
		removal->step = REMOVAL_NONE;
		break;
	case REMOVAL_DETACH:
		log_warn("%s: does not leave the mount table", daemon->config->directory);
		removal->over = true;
		break;
	case REMOVAL_GRACE:
		log_warn("%s: open files are cut off", daemon->config->directory);
		removal->over = true;
		break;
	}
}

void removal_look(struct daemon *daemon)
{
	struct removal *removal = &daemon->removal;
	unsigned events = atomic_fetch_and(&daemon->device_events, DEVICE_HELD_NOW);
	bool held = events & DEVICE_HELD_NOW;
	int64_t now = daemon_now_ms();

	/* Away and back between two looks counts as well. */
	if (events & 1u << NVME_DEVICE_NOW_HELD && removal->held && !held)
		removal->holds++;
	if (held && !removal->held)
		hold_begin(daemon);
	else if (!held && removal->held)
		hold_end(daemon, !(events & 1u << NVME_DEVICE_GONE));
	if (events & 1u << NVME_DEVICE_REQUESTED)
		removal_begin(daemon, "the device is wanted back");
	if (events & ~DEVICE_HELD_NOW)
		facts_refresh(daemon);
	if (removal->held && now >= removal->held_deadline_ms)
		removal_end_wait(daemon, "it has not come back in time");
	if (removal->step != REMOVAL_NONE && now >= removal->deadline_ms)
		step_late(daemon);
}

int64_t removal_due_ms(const struct daemon *daemon)
{
	const struct removal *removal = &daemon->removal;
	int64_t due = INT64_MAX;

	if (removal->step != REMOVAL_NONE)
		due = MIN(due, removal->deadline_ms);
	if (removal->held && !removal->giving_up)
		due = MIN(due, removal->held_deadline_ms);
	return due;
}
