/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * mount.lanefs: the helper that mount(8) calls, and the daemon that serves the mount.
 *
 * The first process checks the command line, forks the daemon and waits on a pipe for one struct start_report: ready, or
 * one line about why not (or a warning). It prints that line and leaves with the status; nothing of the daemon's later life is its
 * business. With -f there is no fork and the report goes to stderr.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fs/daemon/daemon.h"
#include "fs/daemon/mounts.h"
#include "fs/daemon/remount.h"
#include "fs/fuse/fuse_front.h"
#include "reactor/log.h"

struct start_report {
	int status; /* enum mount_exit */
	char message[512];
};

static const char help[] =
	"Usage: mount.lanefs TARGET DIR [-fnsv] [-o options]\n"
	"       mount.lanefs --take-over DIR [-fv]\n"
	"Mounts the lanefs on TARGET (an image file, a block device, an NVMe drive) at DIR and returns when it is ready.\n"
	"\n"
	"  -f  stay in the foreground, log to stderr       -n  no note in /run/mount/utab\n"
	"  -s  ignore unknown options                      -v  say more\n"
	"  -h  this text                                   -V  version\n"
	"  --take-over  serve the mount at DIR in place of its daemon, which ends; files stay open (lanefs upgrade)\n"
	"\n"
	"Options: remount ro rw noatime nodiratime relatime strictatime sync dirsync discard nosuid nodev noexec nosymfollow\n"
	"allow_other cache=SIZE commit=SECONDS writeback noopen io_uring reactors=N lcores=REACTOR@CORE:... poll\n"
	"hugepages max_background=N on_removal=unmount|wait[=SECONDS] nohotplug auto_bind noconfine config=FILE\n"
	"Each is explained in mount.lanefs(8).\n";

static int print_failure(int status, const char *message)
{
	fprintf(stderr, "mount.lanefs: %s\n", message);
	return status;
}

/* A missing or forbidden /dev/fuse is found before the device is touched. */
static int check_fuse(const struct mount_config *config, char *message, size_t message_size)
{
	int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);

	if (fd >= 0) {
		close(fd);
		if (!config->io_uring || fuse_front_io_uring_offered())
			return MOUNT_EXIT_OK;
		snprintf(message, message_size, "option io_uring: FUSE has it not enabled: as root, echo Y > "
			"/sys/module/fuse/parameters/enable_uring (Linux 6.14 or newer), or mount without it");
		return MOUNT_EXIT_FAILED;
	}
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		snprintf(message, message_size, "no /dev/fuse: load the module (modprobe fuse), or give it to this container");
	else
		snprintf(message, message_size, "/dev/fuse: %s", strerror(errno));
	return errno == EACCES || errno == EPERM ? MOUNT_EXIT_FAILED : MOUNT_EXIT_SYSTEM;
}

/* ---- the daemon's side ---- */
static void ready_foreground(void *arg) { *(bool *)arg = true; }

static int run_foreground(const struct mount_config *config)
{
	char message[512];
	bool ready = false;
	int status;

	status = daemon_run(config, ready_foreground, &ready, message, sizeof(message));
	return ready || status == MOUNT_EXIT_OK ? status : print_failure(status, message);
}

static void report(int fd, int status, const char *message)
{
	struct start_report out = {.status = status};

	snprintf(out.message, sizeof(out.message), "%s", message);
	if (write(fd, &out, sizeof(out)) != sizeof(out))
		log_error("%s", message); /* nobody waits any more */
	close(fd);
}

/* What the daemon has to say while somebody still waits for it: the first warning goes to the caller, too. */
struct background {
	int report_fd;             /* -1: reported */
	pthread_mutex_t lock;
	char warning[512];         /* guarded by lock */
};

static void keep_warning(enum log_level level, const char *line, void *arg)
{
	struct background *background = arg;

	if (level > LOG_LEVEL_WARN)
		return;
	line += strncmp(line, "lanefs: ", 8) ? 0 : 8;
	pthread_mutex_lock(&background->lock);
	if (!background->warning[0])
		snprintf(background->warning, sizeof(background->warning), "%s", line);
	pthread_mutex_unlock(&background->lock);
}

static void ready_background(void *arg)
{
	struct background *background = arg;

	log_set_sink(NULL, NULL);
	log_use_syslog();
	if (background->warning[0])
		log_warn("%s", background->warning);
	report(background->report_fd, MOUNT_EXIT_OK, background->warning);
	background->report_fd = -1;
}

/* The caller's descriptors are let go of at once: what matters reaches it through the pipe, as one line. And a file that it has
 * open on the mount that is taken over would keep it busy for ever. */
static void leave_caller(int report_fd)
{
	int null;

	if (report_fd > STDERR_FILENO + 1)
		syscall(SYS_close_range, STDERR_FILENO + 1, report_fd - 1, 0);
	syscall(SYS_close_range, report_fd + 1, ~0u, 0);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; fd <= STDERR_FILENO && null >= 0; fd++)
		dup2(null, fd);
	if (null >= 0)
		close(null);
	setsid();
	if (chdir("/"))
		log_warn("daemon: chdir: %s", strerror(errno));
}

static _Noreturn void run_background(const struct mount_config *config, int report_fd)
{
	struct background background = {.report_fd = report_fd, .lock = PTHREAD_MUTEX_INITIALIZER};
	char message[512];
	int status, err;

	log_set_sink(keep_warning, &background);
	leave_caller(report_fd);
	err = log_open_syslog("lanefs");
	if (err)
		log_info("log: /dev/log cannot be reached: %s: nothing more is said after the start", strerror(-err));
	status = daemon_run(config, ready_background, &background, message, sizeof(message));
	if (background.report_fd >= 0)
		report(background.report_fd, status, message);
	_exit(status);
}

/* ---- the waiting side ---- */
static int wait_for_daemon(pid_t pid, int report_fd)
{
	struct start_report in;
	char text[64];
	ssize_t got;
	int status;

	while ((got = read(report_fd, &in, sizeof(in))) < 0 && errno == EINTR)
		;
	if (got == sizeof(in)) {
		if (in.message[0])
			print_failure(in.status, in.message); /* mounted with a warning, or not mounted */
		return in.status;
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	snprintf(text, sizeof(text), "the daemon died while starting (%s %d)", WIFSIGNALED(status) ? "signal" : "status",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return print_failure(MOUNT_EXIT_SYSTEM, text);
}

static int start_background(const struct mount_config *config)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		return print_failure(MOUNT_EXIT_SYSTEM, strerror(errno));
	pid = fork();
	if (pid < 0)
		return print_failure(MOUNT_EXIT_SYSTEM, strerror(errno));
	if (pid == 0) {
		close(fds[0]);
		run_background(config, fds[1]);
	}
	close(fds[1]);
	return wait_for_daemon(pid, fds[0]);
}

static int run_remount(const struct mount_config *config)
{
	char directory[PATH_MAX], list[sizeof(config->said) + 64], message[512];
	int status, err = path_resolve(config->directory, directory);

	if (err) {
		snprintf(message, sizeof(message), "%.400s: %s", config->directory, strerror(-err));
		return print_failure(MOUNT_EXIT_FAILED, message);
	}
	/* mount(8) names all flags that are to hold; but for times, as the kernel does, what it does not name is off. */
	snprintf(list, sizeof(list), "%s%s", config->called_by_mount ? "rw,suid,dev,exec,async,symfollow," : "", config->said);
	status = remount_mount(directory, list, config->no_utab ? NULL : config->utab_options, message,
		sizeof(message));
	return message[0] ? print_failure(status, message) : status;
}

/* The rest is told by the daemon that serves it. */
static int resolve_take_over(struct mount_config *config, char *message, size_t message_size)
{
	char directory[PATH_MAX];
	const int err = path_resolve(config->directory, directory);

	if (err)
		snprintf(message, message_size, "%.400s: %s", config->directory, strerror(-err));
	else
		strcpy(config->directory, directory);
	return err;
}

/* Descriptors 0 to 2 must not become the device's or the kernel's. */
static void open_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

int main(int argc, char **argv)
{
	static struct mount_config config; /* too big for a stack that forks */
	char message[512] = "";
	int status;

	open_standard_descriptors();
	if (options_parse(argc, argv, &config, message, sizeof(message)))
		return print_failure(MOUNT_EXIT_USAGE, message);
	if (config.show_help || config.show_version) {
		fputs(config.show_help ? help : "mount.lanefs " LANEFS_VERSION "\n", stdout);
		return MOUNT_EXIT_OK;
	}
	if (config.remount)
		return config.fake ? MOUNT_EXIT_OK : run_remount(&config);
	if (config.take_over ? resolve_take_over(&config, message, sizeof(message)) :
		options_resolve(&config, message, sizeof(message)))
		return print_failure(MOUNT_EXIT_FAILED, message);
	status = check_fuse(&config, message, sizeof(message));
	if (status)
		return print_failure(status, message);
	if (config.fake)
		return MOUNT_EXIT_OK;
	log_set_level(config.verbose ? LOG_LEVEL_DEBUG : config.foreground ? LOG_LEVEL_INFO : LOG_LEVEL_WARN);
	return config.foreground ? run_foreground(&config) : start_background(&config);
}
