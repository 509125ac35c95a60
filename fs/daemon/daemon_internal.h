/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The daemon's parts:
 *
 *   daemon.c          start, take down                daemon_status.c      what it tells
 *   daemon_loop.c     waiting, unmounting             daemon_device_rpc.c  what may be asked of the device
 *   daemon_remount.c  other options, read-only and back
 *   daemon_task.c     work for reactor 0              daemon_emu_rpc.c     the same of an emulated one
 *   daemon_removal.c  the device leaves, or is away   daemon_hotplug.c     devices that appear
 *   daemon_handover.c giving the mount to a successor daemon_space_rpc.c   what takes long
 *   daemon_takeover.c being one                      rpc_call.c           calls that run as tasks
 *
 * All of struct daemon belongs to the control thread, except where said. The control thread never waits for reactor 0
 * while the mount is served: it starts a task there and goes on.
 */
#ifndef LANEFS_FS_DAEMON_DAEMON_INTERNAL_H
#define LANEFS_FS_DAEMON_DAEMON_INTERNAL_H

#include <json-c/json.h>
#include <stdatomic.h>

#include "blockdev/nvme.h"
#include "fs/daemon/daemon.h"
#include "fs/daemon/handover_state.h"
#include "fs/daemon/helper.h"
#include "fs/daemon/rpc_server.h"
#include "fs/fuse/fuse_front.h"

struct daemon;
struct uevent_monitor;

enum daemon_state {
	DAEMON_STARTING,
	DAEMON_MOUNTED,
	DAEMON_DETACHED, /* out of the tree; files are still open */
	DAEMON_CLOSING,  /* the kernel has let go, or is not waited for any more */
};

/* ---- daemon_task.c ---- */
/* Work for a fiber of reactor 0. The starter's memory; in use until `done`. */
struct daemon_task {
	int (*run)(struct daemon_task *task);   /* MAY_WAIT; there */
	void (*done)(struct daemon_task *task); /* control thread, when it has run; may be NULL */
	bool device_only;                       /* touches the device only, and may wait until that is closed */
	bool brief;                             /* waits for nothing: whatever is started later finds it done */
	int result;                             /* what run returned */
	struct daemon *daemon;
	struct daemon_task *next;               /* of those that run */
	atomic_bool finished;
	struct message message;
	struct fiber_start start;
};
void task_start(struct daemon *daemon, struct daemon_task *task);
/* Calls done of those that have run. */
void tasks_reap(struct daemon *daemon);
/* A short one whose result is wanted now: waits a moment. False: not yet; done is called later. */
bool task_start_quick(struct daemon *daemon, struct daemon_task *task);
/* Memory for one task_run, so that all can be closed without any. */
int tasks_prepare(struct daemon *daemon);
/* Runs fn(daemon) as a task; the control socket is served meanwhile. -ETIMEDOUT after @deadline_ms (< 0: none): it still
 * runs, and nothing more may be asked of reactor 0 (daemon->stuck). Not from a handler of the control socket. */
int task_run(struct daemon *daemon, int (*fn)(void *daemon), int64_t deadline_ms);
/* Waits until none runs, but for the device's own, or @all. -ETIMEDOUT: stuck. */
int tasks_drain(struct daemon *daemon, bool all, int64_t deadline_ms);
/* Makes the control thread look; any thread. */
void daemon_wake(struct daemon *daemon);

/* ---- daemon_removal.c: see there ---- */
enum removal_step { REMOVAL_NONE, REMOVAL_SYNC, REMOVAL_CHECKPOINT, REMOVAL_LEAVE, REMOVAL_DETACH, REMOVAL_GRACE };
struct removal {
	enum removal_step step;
	int64_t deadline_ms;     /* of the step */
	int64_t sync_id;         /* the helper's request */
	bool leaving;            /* the mount ends because the device leaves or has left */
	bool orderly;            /* nothing was lost: synced and checkpointed before */
	bool over;               /* waiting has an end: the daemon takes everything down */
	bool held, giving_up;
	int64_t held_since_ms, held_deadline_ms;
	unsigned holds;
	struct rpc_ticket detach_ticket; /* who asked for the detach that is under way; answered when the device is held */
	bool detach_asked;
};
#define DEVICE_HELD_NOW (1u << 31)
/* In a fiber of reactor 0. */
void removal_device_event(unsigned event, void *daemon);
/* What has happened since, and deadlines. */
void removal_look(struct daemon *daemon);
int64_t removal_due_ms(const struct daemon *daemon);
/* The device is wanted back while it works: sync, checkpoint, then as on_removal says. */
void removal_begin(struct daemon *daemon, const char *why);
/* The device has left. */
void removal_lost(struct daemon *daemon);
/* Nobody waits for the device any more. */
void removal_end_wait(struct daemon *daemon, const char *why);
/* The same, whoever waits: the daemon takes everything down. */
void removal_give_up(struct daemon *daemon);
void removal_helper_reply(struct daemon *daemon, const struct helper_reply *reply);
/* The mount is out of the tree, or cannot be taken out. */
void removal_detached(struct daemon *daemon);
struct nvme_device *daemon_device(const struct daemon *daemon); /* reactor 0; NULL: the driver serves none */

/* ---- daemon_hotplug.c ---- */
enum { HOTPLUG_CANDIDATES_MAX = 8 };
struct hotplug_candidate {
	char address[PCI_ADDRESS_BYTES]; /* "": free place */
	int64_t due_ms;
	unsigned looks;
};
struct hotplug {
	struct uevent_monitor *monitor; /* NULL: none */
	bool enabled;
	char address[PCI_ADDRESS_BYTES]; /* of our device; "": not on the bus */
	char driver[PCI_DRIVER_BYTES];
	char serial[21];
	struct hotplug_candidate candidates[HOTPLUG_CANDIDATES_MAX];
	bool busy;                      /* one of them is being tried */
	int64_t bind_id;                /* the helper's request */
	char bind_address[PCI_ADDRESS_BYTES];
};
void hotplug_open(struct daemon *daemon);
void hotplug_close(struct daemon *daemon);
int hotplug_fd(const struct daemon *daemon); /* -1: none */
void hotplug_read(struct daemon *daemon);
void hotplug_look(struct daemon *daemon);
int64_t hotplug_due_ms(const struct daemon *daemon);
void hotplug_helper_reply(struct daemon *daemon, const struct helper_reply *reply);

/* Brings the device back into the mount: the same, or the one that @target names. */
struct reattach {
	struct daemon_task task;  /* done is the starter's */
	char target[128];         /* "": where the old one was */
	char message[256];
};
MAY_WAIT int reattach_run(struct daemon_task *task);
/* In done: notes where the device is now, and says what came of it. */
void reattach_report(const struct reattach *reattach);

/* ---- what is known of the device: read on reactor 0, kept by the control thread ---- */
struct device_facts {
	bool nvme, emulated, attached;
	enum nvme_device_state state;
	uint32_t nsid;
	char target[128];
	struct nvme_ctrlr_info info; /* of the last controller */
};

/* Of a target that is a path: see kernel_device.c. */
struct kernel_device {
	bool looked;
	char kind[16];    /* "file", "block device"; "": neither */
	char model[96], serial[96];
};

/* ---- daemon_handover.c: see there ---- */
struct handover {
	bool asked;                     /* and not answered */
	struct rpc_ticket ticket;
	int socket, pidfd;              /* of the successor, once it was answered; -1: nobody */
	pid_t pid;
	int64_t deadline_ms;            /* until it begins */
	struct handover_facts *facts;   /* as it was told */
	bool begun;                     /* the connection is not listened to */
	struct daemon_task checkpoint;
	bool quiet;                     /* under way: the control socket is not served */
	int64_t paused_ms;              /* since then requests wait */
	struct fuse_front_agreement agreement;
	struct handover_state state;
	bool done, lost;                /* it serves; or nobody does */
};
/* The method "handover". */
int handover_rpc(struct daemon *daemon, struct json_object *params, char *message, size_t message_size);
int handover_fd(const struct daemon *daemon); /* -1: none */
int64_t handover_due_ms(const struct daemon *daemon);
void handover_look(struct daemon *daemon, bool readable);
void handover_close(struct daemon *daemon);

/* ---- daemon_takeover.c ---- */
struct takeover;
/* First of all: asks the daemon that serves config->directory; fills in the settings. */
int takeover_begin(struct daemon *daemon) MUST_CHECK;
/* Steps of the start: when everything but device, mount and filesystem is there; and when all is. */
int takeover_receive(struct daemon *daemon) MUST_CHECK;
int takeover_finish(struct daemon *daemon) MUST_CHECK;
void takeover_close(struct daemon *daemon);

struct daemon {
	const struct mount_config *config; /* = settings, to all who only look */
	struct mount_config *settings;
	enum daemon_state state;
	struct helper helper;
	struct reactor_group *group;
	struct bdev_registry *registry;
	char bdev_name[128];          /* "": no device */
	int fuse_fd;                  /* -1: not mounted */
	struct fs *fs;
	struct fuse_front *front;
	struct rpc_server *rpc;
	int signal_fd, event_fd;
	int64_t started_ms, unmount_id; /* id of the helper's request under way; 0: none */
	unsigned unmount_how;
	unsigned stop_requests;       /* signals and RPCs that asked for the end */
	struct daemon_task *tasks;    /* running */
	bool remounting;              /* one at a time */
	bool scrubbing;               /* likewise */
	struct call *kept_call;       /* for a task_run without memory; NULL while it is used */
	bool stuck;                   /* reactor 0 did not do its part in time */
	struct removal removal;
	struct hotplug hotplug;
	struct handover handover;
	struct takeover *takeover;    /* under way */
	/* While the mount changes hands: of the front end and the filesystem before ours; NULL: there were none. */
	const struct fuse_front_agreement *agreement;
	const struct fs_legacy *legacy;
	bool keep_mount;              /* at the end: another daemon's, or left dead in its place */
	struct device_facts facts;
	struct kernel_device kernel_device;
	struct fiber_start early_give_up; /* reactor 0's */
	char *message;
	size_t message_size;
	atomic_bool serving;          /* start is over: the control thread looks after the device */
	/* Written on reactor 0, then event_fd. */
	atomic_bool ended;
	atomic_int stopped_error;
	atomic_uint device_events;    /* bit per enum nvme_device_event; and DEVICE_HELD_NOW */
};

struct reactor *daemon_reactor(const struct daemon *daemon);
int64_t daemon_now_ms(void);
/* Records the reason of a failed start, unless one is there already; returns err. */
int daemon_fail(struct daemon *daemon, int err, const char *format, ...) PRINTF_LIKE(3, 4);

/* What a hand-over uses of start and end. */
int daemon_start_device(struct daemon *daemon) MUST_CHECK;
int daemon_start_filesystem(struct daemon *daemon) MUST_CHECK;
MAY_WAIT int daemon_front_stop(void *daemon);
MAY_WAIT int daemon_target_close(void *daemon);

/* ---- daemon_loop.c ---- */
/* Returns when the mount is gone or not waited for any more; an enum mount_exit. */
int daemon_wait(struct daemon *daemon);
/* Asks for the unmount, as a signal does. */
void daemon_ask_stop(struct daemon *daemon);
/* The device is back before the wait for it had ended: what was asked meanwhile. */
void daemon_stop_again(struct daemon *daemon);
void daemon_unmount(struct daemon *daemon, unsigned how, unsigned deadline_ms);

/* ---- daemon_status.c ---- */
int daemon_rpc(void *arg, const char *method, struct json_object *params, struct json_object **result, char *message,
	size_t message_size);
/* "starting", "mounted", "waiting" (for the device), "detached", "closing". */
const char *daemon_state_name(const struct daemon *daemon);
void facts_refresh(struct daemon *daemon);

/* ---- daemon_space_rpc.c ---- */
/* trim, grow. RPC_METHOD_NOT_FOUND: none of these. */
int space_rpc(struct daemon *daemon, const char *method, struct json_object *params, char *message, size_t message_size);

/* ---- daemon_scrub_rpc.c ---- */
int scrub_rpc(struct daemon *daemon, const char *method, struct json_object *params, struct json_object **result, char *message,
	size_t message_size);
/* How far a scrub is, or how the last one ended: for status. */
struct json_object *scrub_status_new(const struct daemon *daemon);

/* ---- daemon_remount.c ---- */
/* The method "remount". */
int remount_rpc(struct daemon *daemon, struct json_object *params, struct json_object **result, char *message, size_t message_size);

/* ---- daemon_device_rpc.c ---- */
/* RPC_METHOD_NOT_FOUND: none of these. */
int device_rpc(struct daemon *daemon, const char *method, struct json_object *params, struct json_object **result,
	char *message, size_t message_size);

#endif
