/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Capabilities.
 *
 * The daemon works with descriptors that it has: the device, /dev/fuse, its sockets. What it opens later belongs to its user
 * (sysfs, /dev/vfio, /proc/self/fd when a mount becomes writable), so no capability is needed for it, with two exceptions:
 *
 *   a target that belongs to somebody else    CAP_DAC_OVERRIDE: opened again for writing, or when the drive comes back; so may
 *                                             /dev/vfio/N of a drive on the PCI bus, wherever it is plugged in again
 *   a device with physical addresses (uio)    CAP_SYS_ADMIN: where its new buffers lie is in /proc/self/pagemap, and all of its
 *                                             configuration space is not for everybody. Such a device reaches all memory of
 *                                             the machine anyway
 *
 * Linux keeps credentials per thread. Threads that are there already (reactors, the libraries' own) drop theirs in a handler
 * of a signal that is sent to each; whether they did is read from /proc, and asked again until it is so: a thread may have
 * been born meanwhile of one that had not.
 */
#include "fs/daemon/confine_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "blockdev/nvme.h"
#include "reactor/happens_before.h"
#include "reactor/log.h"
#include "reactor/memory.h"

#define CAP(name) (UINT64_C(1) << CAP_##name)
enum { THREADS_DEADLINE_MS = 5000, LOOK_AGAIN_MS = 1, CAPABILITY_WORDS = 2 };

static struct __user_cap_data_struct dropped[CAPABILITY_WORDS]; /* what on_signal sets; written before the signal is sent */
static struct confinement state;

static const char *const names[] = {
	[CAP_DAC_OVERRIDE] = "dac_override",
	[CAP_SYS_ADMIN] = "sys_admin",
};

/* ThreadSanitizer's own handlers of signals know nothing of fibers. */
static bool not_wanted(const struct mount_config *config) { return config->no_confine || BUILT_FOR_THREAD_SANITIZER; }

/* ---- one thread ---- */
static void capabilities_put(uint64_t keep, struct __user_cap_data_struct out[CAPABILITY_WORDS])
{
	for (unsigned i = 0; i < CAPABILITY_WORDS; i++)
		out[i].effective = out[i].permitted = (uint32_t)(keep >> 32 * i);
}

static int capabilities_set(const struct __user_cap_data_struct data[CAPABILITY_WORDS])
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

static uint64_t capabilities_permitted(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[CAPABILITY_WORDS] = {};

	if (syscall(SYS_capget, &header, data))
		return 0;
	return data[0].permitted | (uint64_t)data[1].permitted << 32;
}

/* Of everything that is executed from here on. */
static void bounds_drop(uint64_t keep)
{
	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
		log_debug("confine: ambient capabilities: %s", strerror(errno));
	for (int i = 0; prctl(PR_CAPBSET_READ, i) >= 0; i++)
		if (!(keep >> i & 1) && prctl(PR_CAPBSET_DROP, i))
			log_debug("confine: capability %d stays in the bounding set: %s", i, strerror(errno));
}

static void no_new_privileges(void)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		log_warn("confine: no PR_SET_NO_NEW_PRIVS: %s", strerror(errno));
}

/* ---- every thread ---- */
static void on_signal(int signal_number, siginfo_t *info, void *context)
{
	int saved = errno, err = confine_refused(info, context) ? 0 : capabilities_set(dropped);

	(void)err; /* seen in /proc */
	errno = saved;
}

/* The kernel's own workers of a ring take no signals; they use nothing but what the request brings. */
static bool is_kernel_worker(const char *text)
{
	return !strncmp(text, "Name:\tiou-", 10);
}

/* True: nothing to be done for this thread, or it is gone. */
static bool thread_dropped(const char *thread, uint64_t keep)
{
	char path[64], text[2048];
	const char *line;
	ssize_t got;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/task/%.20s/status", thread);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return true;
	got = read(fd, text, sizeof(text) - 1);
	close(fd);
	text[MAX(got, 0)] = '\0';
	line = strstr(text, "\nCapPrm:\t");
	return !line || is_kernel_worker(text) || !(strtoull(line + 9, NULL, 16) & ~keep);
}

/* Sends the signal to every thread that has more than it should; how many that were, or -errno. */
static int threads_ask(int signal_number, uint64_t keep)
{
	DIR *folder = opendir("/proc/self/task");
	struct dirent *entry;
	int count = 0;

	if (!folder)
		return -errno;
	while ((entry = readdir(folder))) {
		if (entry->d_name[0] == '.' || thread_dropped(entry->d_name, keep))
			continue;
		syscall(SYS_tgkill, getpid(), atoi(entry->d_name), signal_number);
		count++;
	}
	closedir(folder);
	return count;
}

static int threads_drop(uint64_t keep)
{
	const struct sigaction drop = {.sa_sigaction = on_signal, .sa_flags = SA_RESTART | SA_SIGINFO};
	const int signal_number = SIGSYS; /* which no thread blocks */
	int left = 1;

	capabilities_put(keep, dropped);
	if (sigaction(signal_number, &drop, NULL))
		return -errno;
	for (unsigned i = 0; left && i < THREADS_DEADLINE_MS / LOOK_AGAIN_MS; i++) {
		if (i)
			nanosleep(&(struct timespec){.tv_nsec = LOOK_AGAIN_MS * 1000000}, NULL);
		left = threads_ask(signal_number, keep);
	}
	return left > 0 ? -ETIMEDOUT : left;
}

/* ---- what is needed ---- */
/* Whether the user alone, without capabilities, may open the target as it is open now. */
static bool target_is_ours(const struct mount_config *config)
{
	struct __user_cap_data_struct none[CAPABILITY_WORDS] = {}, all[CAPABILITY_WORDS];
	char object[PATH_MAX];
	bool ours;

	nvme_target_file(config->target, object, sizeof(object));
	if (object[0] != '/')
		return true;
	capabilities_put(capabilities_permitted(), all);
	memcpy(none, all, sizeof(none));
	none[0].effective = none[1].effective = 0;
	if (capabilities_set(none))
		return true;
	ours = faccessat(AT_FDCWD, object, R_OK | W_OK, AT_EACCESS) == 0 || errno != EACCES;
	if (capabilities_set(all))
		log_debug("confine: capabilities: %s", strerror(errno));
	return ours;
}

static uint64_t daemon_needs(const struct mount_config *config)
{
	uint64_t needs = 0;
	bool pci;

	if (memory_is_physical())
		needs |= CAP(SYS_ADMIN);
	if (!target_is_ours(config) || (nvme_target(config->target, &pci) && pci))
		needs |= CAP(DAC_OVERRIDE);
	return needs;
}

/*
 * Mounting, unmounting, remounting: SYS_ADMIN; whose folder the mount point is in does not matter: DAC_READ_SEARCH. A drive that
 * comes back is bound only if the configuration says so: its driver's module may have to be loaded, and nobody else may be
 * using it, which is to be seen in other processes.
 */
static uint64_t helper_needs(const struct mount_config *config)
{
	return CAP(SYS_ADMIN) | CAP(DAC_READ_SEARCH) | (config->auto_bind ? CAP(SYS_MODULE) | CAP(SYS_PTRACE) : 0);
}

/* ---- the calls ---- */
void confine_begin(const struct mount_config *config)
{
	umask(077);
	if (not_wanted(config))
		return;
	no_new_privileges();
	if (geteuid() == 0)
		bounds_drop(0);
	state.paths = !BUILT_WITH_SANITIZER && confine_paths(config);
}

int confine_finish(const struct mount_config *config, char *message, size_t message_size)
{
	uint64_t keep;
	int err;

	state.capabilities = capabilities_permitted();
	if (not_wanted(config))
		return 0;
	keep = state.capabilities ? daemon_needs(config) & state.capabilities : 0;
	err = threads_drop(keep);
	if (err) {
		snprintf(message, message_size, "privileges cannot be dropped in every thread (%s): try again, or mount with "
			"noconfine", strerror(-err));
		return err;
	}
	state.capabilities = keep;
	state.calls = !BUILT_WITH_SANITIZER && confine_calls(config);
	state.on = true;
	return 0;
}

void confine_helper(const struct mount_config *config)
{
	struct __user_cap_data_struct keep[CAPABILITY_WORDS] = {};

	umask(022);
	if (not_wanted(config) || geteuid() != 0)
		return;
	no_new_privileges();
	bounds_drop(helper_needs(config));
	capabilities_put(helper_needs(config) & capabilities_permitted(), keep);
	if (capabilities_set(keep))
		log_warn("confine: the helper keeps its capabilities: %s", strerror(errno));
}

struct confinement confine_status(void)
{
	struct confinement now = state;

	now.refused = confine_refused_count();
	return now;
}

void confine_capabilities_show(uint64_t capabilities, char *out, size_t out_size)
{
	size_t used = 0;

	snprintf(out, out_size, "none");
	for (unsigned i = 0; i < 64 && used < out_size; i++) {
		if (!(capabilities >> i & 1))
			continue;
		if (i < ARRAY_SIZE(names) && names[i])
			used += (size_t)snprintf(out + used, out_size - used, "%s%s", used ? "," : "", names[i]);
		else
			used += (size_t)snprintf(out + used, out_size - used, "%s%u", used ? "," : "", i);
	}
}
