/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Which files the daemon can open. Without capabilities it is still root, to whom most files belong: so Landlock (Linux 5.13)
 * leaves it what it works with, and nothing else can be opened, made, removed or executed. What is open stays usable, and a
 * file keeps its rights when it is renamed.
 *
 *   the target                          read, write
 *   the folder of an emulated drive's   read, write: a drive may come back with another medium (lanefs attach)
 *   medium
 *   /dev/fuse, /dev/null                read, write
 *   /dev/vfio, for a real drive         read, write; with physical addresses all of /dev and /sys
 *   the folder of the control socket    sockets are made and removed
 *   /proc, /sys, /usr, /lib             read
 *
 * Newer kernels also refuse TCP.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "blockdev/nvme.h"
#include "fs/daemon/confine_internal.h"
#include "fs/daemon/run_dir.h"
#include "reactor/log.h"

/* Debian 12's header is older than the kernels that this runs on. */
enum { LANDLOCK_VERSION_FLAG = 1, LANDLOCK_PATH_BENEATH = 1 };
struct landlock_rules {
	uint64_t files, tcp, scopes;
};
struct landlock_beneath {
	uint64_t access;
	int32_t parent;
} __attribute__((packed));

enum {
	RULE_EXECUTE = 1 << 0, RULE_WRITE = 1 << 1, RULE_READ = 1 << 2, RULE_LIST = 1 << 3, RULE_REMOVE = 1 << 5,
	RULE_MAKE_SOCKET = 1 << 9,
	RULE_ALL_FIRST = (1 << 13) - 1,      /* what the first version knows */
	RULE_REFER = 1 << 13,                /* version 2 */
	RULE_TRUNCATE = 1 << 14,             /* 3 */
	RULE_DEVICE_IOCTL = 1 << 15,         /* 5 */
	RULE_USE = RULE_READ | RULE_WRITE | RULE_TRUNCATE | RULE_DEVICE_IOCTL, /* of one file */
	TCP_ALL = 3,                         /* 4 */
};

static uint64_t files_known(int version)
{
	return RULE_ALL_FIRST | (version >= 2 ? RULE_REFER : 0) | (version >= 3 ? RULE_TRUNCATE : 0) |
		(version >= 5 ? RULE_DEVICE_IOCTL : 0);
}

static int ruleset_create(uint64_t *known)
{
	int version = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_VERSION_FLAG);
	struct landlock_rules rules = {};

	if (version < 0)
		return -errno;
	*known = rules.files = files_known(version);
	rules.tcp = version >= 4 ? TCP_ALL : 0;
	version = (int)syscall(SYS_landlock_create_ruleset, &rules,
		version >= 4 ? offsetof(struct landlock_rules, scopes) : sizeof(rules.files), 0);
	return version < 0 ? -errno : version;
}

/* What does not exist needs no rule. */
static void allow(int ruleset, uint64_t known, const char *path, uint64_t access)
{
	struct landlock_beneath rule = {.parent = open(path, O_PATH | O_CLOEXEC)};
	struct stat status;

	if (rule.parent < 0 || fstat(rule.parent, &status)) {
		log_debug("confine: %s: %s", path, strerror(errno));
		if (rule.parent >= 0)
			close(rule.parent);
		return;
	}
	if (!S_ISDIR(status.st_mode))
		access &= RULE_USE | RULE_EXECUTE;
	rule.access = access & known;
	if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_PATH_BENEATH, &rule, 0))
		log_warn("confine: %s: no rule for it: %s", path, strerror(errno));
	close(rule.parent);
}

static void allow_target(int ruleset, uint64_t known, const struct mount_config *config)
{
	char path[PATH_MAX], *slash;
	struct stat status;

	nvme_target_file(config->target, path, sizeof(path));
	if (path[0] != '/')
		return;
	allow(ruleset, known, path, RULE_USE);
	if (!strcmp(path, config->target) || stat(path, &status) || !S_ISREG(status.st_mode))
		return;
	slash = strrchr(path, '/');
	*(slash == path ? slash + 1 : slash) = '\0';
	allow(ruleset, known, path, RULE_USE | RULE_LIST);
}

static void allow_bus(int ruleset, uint64_t known, const struct mount_config *config)
{
	struct memory_options memory = {};
	bool pci;

	if (!nvme_target(config->target, &pci) || !pci)
		return;
	allow(ruleset, known, "/dev/vfio", RULE_USE | RULE_LIST);
	if (!nvme_target_memory(config->target, &memory) || !memory.physical)
		return;
	allow(ruleset, known, "/dev", RULE_USE | RULE_LIST);
	allow(ruleset, known, "/sys", RULE_USE | RULE_LIST);
}

bool confine_paths(const struct mount_config *config)
{
	static const char *const readable[] = {"/proc", "/sys", "/usr", "/lib", "/lib64"};
	char folder[PATH_MAX];
	uint64_t known = 0;
	int ruleset = ruleset_create(&known);
	bool done;

	if (ruleset < 0) {
		log_info("confine: this kernel has no Landlock (%s): files are guarded by their modes alone", strerror(-ruleset));
		return false;
	}
	for (size_t i = 0; i < ARRAY_SIZE(readable); i++)
		allow(ruleset, known, readable[i], RULE_READ | RULE_LIST);
	allow(ruleset, known, "/dev/fuse", RULE_USE);
	allow(ruleset, known, "/dev/null", RULE_USE);
	allow_target(ruleset, known, config);
	allow_bus(ruleset, known, config);
	if (run_dir_get(true, folder) == 0)
		allow(ruleset, known, folder, RULE_LIST | RULE_READ | RULE_WRITE | RULE_MAKE_SOCKET | RULE_REMOVE);
	done = syscall(SYS_landlock_restrict_self, ruleset, 0) == 0;
	if (!done)
		log_warn("confine: no Landlock: %s", strerror(errno));
	close(ruleset);
	return done;
}
