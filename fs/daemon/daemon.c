/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Starting the daemon's parts in order, and taking them down in reverse.
 */
#include "fs/daemon/daemon.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#include "blockdev/nvme.h"
#include "fs/daemon/confine.h"
#include "fs/daemon/daemon_internal.h"
#include "fs/daemon/daemon_status.h"
#include "fs/daemon/mounts.h"
#include "fs/daemon/notify.h"
#include "fs/daemon/process.h"
#include "fs/daemon/rpc_client.h"
#include "reactor/log.h"
#include "reactor/memory.h"

enum {
	MOUNT_DEADLINE_MS = 15000,
	PROBE_DEADLINE_MS = 15000,
	QUICK_DEADLINE_MS = 5000,
	READ_AHEAD_KB = 1024,
	HOLDER_CLOSING_MS_MAX = 60000, /* how long the previous daemon of the target may take to end */
	HOLDER_UNKNOWN_MS_MAX = 1000,  /* how long anything else may hold the target */
	FINISH_STEP_MS = 30000,
	SETTLE_MS = 5000,
};

struct reactor *daemon_reactor(const struct daemon *daemon) { return reactor_group_get(daemon->group, 0); }

int64_t daemon_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int daemon_fail(struct daemon *daemon, int err, const char *format, ...)
{
	va_list arguments;

	if (daemon->message[0])
		return err;
	va_start(arguments, format);
	vsnprintf(daemon->message, daemon->message_size, format, arguments);
	va_end(arguments);
	return err;
}

/* ---- calls on reactor 0 ---- */
static MAY_WAIT int registry_open(void *arg)
{
	struct daemon *daemon = arg;

	return bdev_registry_create(daemon->group, &daemon->registry);
}

static MAY_WAIT int target_open(void *arg)
{
	struct daemon *daemon = arg;
	const struct target_options options = {
		.read_only = daemon->config->read_only,
		.exclusive_lock = true,
		.hold_on_removal = daemon->config->hold_on_removal,
		.device_event = removal_device_event,
		.device_event_arg = daemon,
	};

	return bdev_target_create(daemon->registry, daemon->config->target, &options, daemon->bdev_name,
		sizeof(daemon->bdev_name), daemon->message, daemon->message_size);
}

MAY_WAIT int daemon_target_close(void *arg)
{
	struct daemon *daemon = arg;

	return bdev_remove(daemon->registry, daemon->bdev_name, 10 * NS_PER_SEC);
}

static void filesystem_stopped(struct fs *fs, int error, void *arg)
{
	struct daemon *daemon = arg;

	atomic_store(&daemon->stopped_error, error);
	daemon_wake(daemon);
}

static void front_ended(struct fuse_front *front, void *arg)
{
	struct daemon *daemon = arg;

	atomic_store(&daemon->ended, true);
	daemon_wake(daemon);
}

static MAY_WAIT int filesystem_mount(void *arg)
{
	struct daemon *daemon = arg;
	const struct mount_config *config = daemon->config;
	const struct fs_mount_options options = {
		.read_only = config->read_only,
		.cache_bytes = config->cache_bytes,
		.commit_ms = (unsigned)config->commit_ms,
		.discard = config->discard,
		.noatime = config->noatime,
		.strictatime = config->strictatime,
		.sync = config->sync,
		.legacy = daemon->legacy,
		.stopped = filesystem_stopped,
		.arg = daemon,
	};

	return fs_mount(daemon->registry, daemon->bdev_name, &options, &daemon->fs, daemon->message, daemon->message_size);
}

static MAY_WAIT int filesystem_unmount(void *arg)
{
	struct daemon *daemon = arg;
	struct fs_legacy unused;

	/* What we did not serve is not ours to forget. */
	return daemon->legacy ? fs_leave(daemon->fs, &unused) : fs_unmount(daemon->fs);
}

static MAY_WAIT int front_start(void *arg) { return fuse_front_start(((struct daemon *)arg)->front); }

MAY_WAIT int daemon_front_stop(void *arg)
{
	fuse_front_stop(((struct daemon *)arg)->front);
	return 0;
}

/* ---- start ---- */
static int start_signals(struct daemon *daemon)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	/* Blocked for every thread that follows; taken from the fd. */
	if (pthread_sigmask(SIG_BLOCK, &signals, NULL))
		return daemon_fail(daemon, -EINVAL, "signals cannot be blocked");
	signal(SIGPIPE, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	daemon->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
	daemon->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (daemon->signal_fd < 0 || daemon->event_fd < 0)
		return daemon_fail(daemon, -errno, "no file descriptor left: %s", strerror(errno));
	return 0;
}

/* Measured with "-o hugepages" (free ones before and after), rounded up: buffers of a reactor's requests, operations and
 * queues; and the metadata cache with what other owners may lend of it. */
static unsigned memory_need_mib(const struct mount_config *config, unsigned reactors)
{
	enum { REACTOR_MIB = 112, CACHE_DEFAULT_MIB = 32 };
	const uint64_t cache_mib = config->cache_bytes ? config->cache_bytes / MIB(1) + 1 : CACHE_DEFAULT_MIB;

	return (unsigned)(reactors * REACTOR_MIB + 2 * cache_mib) + (config->io_uring ? fuse_front_io_uring_mib() : 0);
}

static int start_reactors(struct daemon *daemon)
{
	const struct mount_config *config = daemon->config;
	const struct reactor_options options = {
		.count = options_reactor_count(config),
		.cores = config->core_count ? config->cores : NULL,
		.poll = config->poll,
	};
	struct memory_options memory = {.use_eal = config->hugepages, .need_mib = memory_need_mib(config, options.count)};
	char reason[256] = "";
	int err;

	if (nvme_target_memory(config->target, &memory))
		log_debug("%s: a device on the PCI bus: DMA memory comes from EAL", config->target);
	memory.need_hugepages |= config->hugepages;
	memory.cores = config->core_count ? config->cores : NULL;
	memory.core_count = config->core_count;
	memory.message = reason;
	memory.message_size = sizeof(reason);
	err = memory_init(&memory);
	if (err)
		return daemon_fail(daemon, err, "%s: no DMA memory: %s", config->target, reason);
	err = reactor_group_create(&options, &daemon->group);
	if (err)
		return daemon_fail(daemon, err, err == -EINVAL ? "a core in lcores= may not be used here" :
			"%u reactors cannot be started: %s", options.count, strerror(-err));
	err = reactor_group_start(daemon->group);
	if (err)
		return daemon_fail(daemon, err, "reactors cannot be started: %s", strerror(-err));
	err = reactor_group_run(daemon_reactor(daemon), registry_open, daemon);
	return err ? daemon_fail(daemon, err, "no block device registry: %s", strerror(-err)) : 0;
}

/* The target is locked by somebody. True when it is worth trying again: a daemon that is still closing it. */
static bool holder_leaves(struct daemon *daemon, int64_t waited_ms)
{
	struct json_object *status = NULL;
	/* Who handed it over, or took it in vain, has closed it. */
	pid_t pid = daemon->legacy ? 0 : rpc_find(NULL, daemon->config->target, &status);
	bool leaves = waited_ms < HOLDER_UNKNOWN_MS_MAX;

	struct mount_found found;

	if (pid > 0) {
		const char *state = json_text(status, "state"), *directory = json_text(status, "directory");
		bool detached = !strcmp(state, "detached");

		/* A daemon that does not know yet that its mount is gone, or does. */
		leaves = !detached && (!strcmp(state, "closing") || !mount_at(directory, &found)) &&
			waited_ms < HOLDER_CLOSING_MS_MAX;
		snprintf(daemon->message, daemon->message_size, detached ?
			"%s was detached from %s, but files on it are still open (process %d): close them first" :
			"%s is already mounted at %s (process %d): unmount it first", daemon->config->target, directory, (int)pid);
		json_object_put(status);
	}
	return leaves;
}

int daemon_start_device(struct daemon *daemon)
{
	int64_t begin = daemon_now_ms();
	int err;

	if (!strncmp(daemon->config->target, "ram:", 4))
		return daemon_fail(daemon, -EINVAL, "%s: memory begins empty, there is nothing to mount: name an image or a device",
			daemon->config->target);
	for (;;) {
		daemon->message[0] = '\0';
		err = reactor_group_run(daemon_reactor(daemon), target_open, daemon);
		if (err != -EBUSY || !holder_leaves(daemon, daemon_now_ms() - begin))
			break;
		nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
	}
	if (err == 0) {
		daemon->message[0] = '\0';
		return 0;
	}
	daemon->bdev_name[0] = '\0';
	return daemon_fail(daemon, err, "%s: %s", daemon->config->target, strerror(-err));
}

static int start_mount(struct daemon *daemon)
{
	struct helper_reply reply = {.fd = -1};
	int err = helper_call(&daemon->helper, HELPER_MOUNT, 0, MOUNT_DEADLINE_MS, &reply);

	if (err)
		return daemon_fail(daemon, err, "%s cannot be mounted: %s", daemon->config->directory,
			reply.message[0] ? reply.message : strerror(-err));
	daemon->fuse_fd = reply.fd;
	if (reply.fd >= 0)
		return 0;
	/* The descriptor did not fit, and is lost; the mount is there. */
	if (helper_call(&daemon->helper, HELPER_UNMOUNT, UNMOUNT_LAZY, QUICK_DEADLINE_MS, &reply))
		log_warn("%s: stays in the mount table: umount it", daemon->config->directory);
	return daemon_fail(daemon, -EMFILE, "%s cannot be mounted: the limit of open files is too low: raise it (ulimit -n)",
		daemon->config->directory);
}

int daemon_start_filesystem(struct daemon *daemon)
{
	const struct fuse_front_options options = {
		.fd = daemon->fuse_fd,
		.noopen = daemon->config->noopen,
		.writeback = daemon->config->writeback,
		.io_uring = daemon->config->io_uring,
		.max_background = (unsigned)daemon->config->max_background,
		.agreement = daemon->agreement,
		.ended = front_ended,
		.arg = daemon,
	};
	int err = reactor_group_run(daemon_reactor(daemon), filesystem_mount, daemon);

	if (err) {
		daemon->fs = NULL;
		return daemon_fail(daemon, err, "%s: %s", daemon->config->target, strerror(-err));
	}
	daemon->message[0] = '\0';
	err = fuse_front_create(daemon->fs, daemon->group, &options, &daemon->front);
	if (err)
		return daemon_fail(daemon, err, "no memory for the FUSE front end");
	err = reactor_group_run(daemon_reactor(daemon), front_start, daemon);
	return err ? daemon_fail(daemon, err, "the kernel's FUSE does not answer as expected: %s", strerror(-err)) : 0;
}

/* Proof that the mount answers, and what others may look for. */
static int start_settings(struct daemon *daemon)
{
	struct helper_reply reply;
	int err = helper_call(&daemon->helper, HELPER_READAHEAD, READ_AHEAD_KB, PROBE_DEADLINE_MS, &reply);

	if (err)
		return daemon_fail(daemon, err, "the new mount does not answer: %s", strerror(-err));
	if (!daemon->config->no_utab && helper_call(&daemon->helper, HELPER_UTAB, 0, QUICK_DEADLINE_MS, &reply))
		log_warn("%s: no note in /run/mount/utab: plain umount will return early, umount.lanefs will not",
			daemon->config->directory);
	return 0;
}

/* What a mount can do without is only warned about. */
static int start_service(struct daemon *daemon)
{
	int err;

	err = rpc_server_create(daemon_rpc, daemon, &daemon->rpc);
	if (err)
		log_warn("%s: no control socket (%s): the lanefs command will not see this mount", daemon->config->directory,
			strerror(-err));
	facts_refresh(daemon);
	hotplug_open(daemon);
	if (daemon->config->hold_on_removal && !daemon->facts.nvme)
		log_warn("%s: on_removal=wait has no effect: only devices of lanefs's own NVMe driver are waited for",
			daemon->config->target);
	kernel_device_look(daemon); /* sees more now than later */
	notify_open();
	process_lock_memory();
	err = confine_finish(daemon->config, daemon->message, daemon->message_size);
	if (!err)
		err = bdev_registry_prepare(daemon->registry);
	if (err && !daemon->message[0])
		return daemon_fail(daemon, err, "%s: no memory: free some and try again", daemon->config->target);
	return err;
}

static int daemon_start(struct daemon *daemon)
{
	int (*const mount[])(struct daemon *) = {start_signals, start_reactors, daemon_start_device, start_mount,
		daemon_start_filesystem, start_settings, start_service, NULL};
	int (*const take_over[])(struct daemon *) = {start_signals, start_reactors, takeover_receive, daemon_start_device,
		daemon_start_filesystem, start_service, takeover_finish, NULL};
	int (*const *steps)(struct daemon *) = daemon->config->take_over ? take_over : mount;
	int err = daemon->config->take_over ? takeover_begin(daemon) : 0;

	if (err)
		return err;
	process_protect();
	err = helper_start(&daemon->helper, daemon->config);
	if (err)
		return daemon_fail(daemon, err, "no helper process: %s", strerror(-err));
	confine_begin(daemon->config);
	for (size_t i = 0; steps[i] && !err; i++)
		err = steps[i](daemon);
	return err;
}

/* ---- the end ---- */
static void finish_mount(struct daemon *daemon)
{
	struct helper_reply reply;
	int err = 0;

	close(daemon->fuse_fd); /* whoever still waits for an answer gets ECONNABORTED */
	daemon->fuse_fd = -1;
	if (daemon->keep_mount)
		return;
	if (!atomic_load(&daemon->ended))
		err = helper_call(&daemon->helper, HELPER_UNMOUNT, UNMOUNT_LAZY, QUICK_DEADLINE_MS, &reply);
	else if (!daemon->config->no_utab && helper_call(&daemon->helper, HELPER_UTAB_DROP, 0, QUICK_DEADLINE_MS, &reply))
		log_debug("%s: its note in /run/mount/utab stays", daemon->config->directory);
	if (err && err != -EINVAL)
		log_warn("%s: stays in the mount table: %s", daemon->config->directory, strerror(-err));
}

/* Undoes whatever daemon_start got done. Returns what fs_unmount said. When the device has left, nothing may take longer
 * than a while: what reactor 0 does not end then is left to the end of the process (daemon->stuck). */
static int daemon_finish(struct daemon *daemon)
{
	int64_t limit_ms = daemon->removal.leaving || daemon->removal.held ? FINISH_STEP_MS : -1;
	int result = 0;

	daemon->state = DAEMON_CLOSING;
	if (daemon->removal.held)
		removal_give_up(daemon);
	if (daemon->fs)
		fs_call_off(daemon->fs);
	if (daemon->group && tasks_drain(daemon, false, FINISH_STEP_MS))
		log_error("%s: something that was begun for the control socket does not end", daemon->config->target);
	if (daemon->front && !daemon->stuck && task_run(daemon, daemon_front_stop, limit_ms))
		log_error("%s: requests do not end", daemon->config->directory);
	if (daemon->front && !daemon->stuck) {
		fuse_front_destroy(daemon->front);
		daemon->front = NULL;
	}
	if (daemon->fuse_fd >= 0)
		finish_mount(daemon);
	if (daemon->fs && !daemon->stuck)
		result = task_run(daemon, filesystem_unmount, limit_ms);
	if (!daemon->stuck)
		daemon->fs = NULL;
	if (daemon->bdev_name[0] && !daemon->stuck && task_run(daemon, daemon_target_close, limit_ms))
		log_warn("%s: the device was not closed in time", daemon->config->target);
	if (daemon->bdev_name[0] && !daemon->stuck && tasks_drain(daemon, true, FINISH_STEP_MS))
		log_error("%s: the device's removal does not end", daemon->config->target);
	/* Fibers that the device's removal has started end a moment after the device is closed. */
	if (daemon->registry && !daemon->stuck && !reactor_group_settle(daemon->group, SETTLE_MS)) {
		log_error("%s: something still runs at the end: left to the end of the process", daemon->config->target);
		daemon->stuck = true;
	}
	return daemon->stuck ? -ETIMEDOUT : result;
}

static void daemon_free(struct daemon *daemon)
{
	takeover_close(daemon);
	hotplug_close(daemon);
	if (daemon->registry)
		bdev_registry_destroy(daemon->registry);
	if (daemon->group) {
		reactor_group_stop(daemon->group);
		reactor_group_destroy(daemon->group);
	}
	helper_stop(&daemon->helper);
	handover_close(daemon);
	if (daemon->signal_fd >= 0)
		close(daemon->signal_fd);
	if (daemon->event_fd >= 0)
		close(daemon->event_fd);
	free(daemon->kept_call);
	free(daemon->settings);
}

static struct json_object *end_report(const struct daemon *daemon, int status, bool clean)
{
	struct json_object *report = json_object_new_object();

	if (daemon->handover.done)
		json_object_object_add(report, "successor", json_object_new_int(daemon->handover.pid));

	json_object_object_add(report, "clean", json_object_new_boolean(clean));
	json_object_object_add(report, "status", json_object_new_int(status));
	return report;
}

static void log_end(const struct daemon *daemon, int err)
{
	const char *target = daemon->config->target;

	if (daemon->handover.done || daemon->handover.lost)
		return; /* said already */
	if (!err && daemon->removal.leaving)
		log_warn("%s: removed in an orderly way: the filesystem on it is clean", target);
	else if (daemon->removal.leaving || daemon->removal.held)
		log_error("%s: the mount has ended without its device%s; the next mount replays the journal", target,
			err == -ETIMEDOUT ? " (not everything could be closed)" : "");
	else if (err)
		log_error("%s: closed after an error: %s: run fsck.lanefs", target, strerror(-err));
	else
		log_info("%s: unmounted, clean", target);
}

/* Which status of mount(8) a failed start is: the machine's fault, or that of what was to be mounted. */
static int start_status(int err)
{
	switch (err) {
	case -ENOMEM: case -EAGAIN: case -EMFILE: case -ENFILE: case -EPIPE: case -ETIMEDOUT: case -EPROTO:
		return MOUNT_EXIT_SYSTEM;
	default:
		return MOUNT_EXIT_FAILED;
	}
}

int daemon_run(const struct mount_config *config, void (*ready)(void *arg), void *arg, char *message,
	size_t message_size)
{
	struct mount_config *settings = malloc(sizeof(*settings));
	struct daemon daemon = {.config = settings, .settings = settings, .helper.socket = -1,
		.handover = {.socket = -1, .pidfd = -1}, .fuse_fd = -1, .signal_fd = -1, .event_fd = -1,
		.message = message, .message_size = message_size, .started_ms = daemon_now_ms()};
	int err, status;

	if (!settings || tasks_prepare(&daemon)) {
		free(settings);
		snprintf(message, message_size, "%s: no memory: free some and try again", config->target);
		return MOUNT_EXIT_SYSTEM;
	}
	*settings = *config;
	message[0] = '\0';
	err = daemon_start(&daemon);
	if (err) {
		daemon_finish(&daemon);
		rpc_server_destroy(daemon.rpc);
		if (!daemon.stuck)
			daemon_free(&daemon);
		return start_status(err);
	}
	daemon.state = DAEMON_MOUNTED;
	atomic_store(&daemon.serving, true);
	if (!config->take_over)
		log_info("%s: mounted at %s", config->target, config->directory);
	notify_manager("READY=1");
	ready(arg);
	status = daemon_wait(&daemon);
	err = daemon_finish(&daemon);
	if (status == MOUNT_EXIT_OK && err)
		status = MOUNT_EXIT_STOPPED;
	log_end(&daemon, err);
	rpc_server_finish(daemon.rpc, end_report(&daemon, status, !err));
	rpc_server_destroy(daemon.rpc);
	if (daemon.stuck)
		_exit(status); /* reactors may still be at work */
	daemon_free(&daemon);
	return status;
}
