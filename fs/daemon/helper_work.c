/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the helper does for the daemon: each function runs in a short-lived process and may block as long as it likes.
 */
#define FUSE_USE_VERSION 35
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fs/daemon/helper_internal.h"
#include "fs/daemon/mounts.h"
#include "blockdev/nvme.h"
#include "reactor/log.h"

#ifndef MS_NOSYMFOLLOW
#define MS_NOSYMFOLLOW 256 /* Linux 5.10 */
#endif

/* ---- mounting ---- */
static char fuse_said[256]; /* the first line that libfuse logged; this process mounts once */

static void remember_line(enum fuse_log_level level, const char *format, va_list arguments)
{
	if (fuse_said[0] == '\0')
		vsnprintf(fuse_said, sizeof(fuse_said), format, arguments);
	fuse_said[strcspn(fuse_said, "\n")] = '\0';
}

static void option_add(char *list, size_t size, const char *option)
{
	size_t used = strlen(list);

	snprintf(list + used, size - used, "%s%s", used ? "," : "", option);
}

/* libfuse's option list: commas and backslashes of the source are escaped. */
static void mount_options(const struct mount_config *config, char *list, size_t size)
{
	char source[2 * PATH_MAX], *out = source;

	for (const char *in = config->target; *in; in++) {
		if (*in == ',' || *in == '\\')
			*out++ = '\\';
		*out++ = *in;
	}
	*out = '\0';
	snprintf(list, size, "fsname=%s,subtype=lanefs,default_permissions", source);
	option_add(list, size, config->read_only ? "ro" : "rw");
	if (config->allow_other)
		option_add(list, size, "allow_other");
	if (geteuid() == 0) {
		option_add(list, size, config->nosuid ? "nosuid" : "suid");
		option_add(list, size, config->nodev ? "nodev" : "dev");
	}
	if (config->noexec)
		option_add(list, size, "noexec");
	if (config->sync)
		option_add(list, size, "sync");
	if (config->noatime)
		option_add(list, size, "noatime");
}

static void message_from(const char *said, char *message, size_t size)
{
	static const char *const prefixes[] = {"fuse: ", "fusermount3: "};

	for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
		if (!strncmp(said, prefixes[i], strlen(prefixes[i])))
			said += strlen(prefixes[i]);
	snprintf(message, size, "%s", said);
}

/* Flags that libfuse has no words for. Without them the mount is there, and behaves as far as we are asked. */
static void set_flags(const struct mount_config *config)
{
	unsigned long flags = (config->strictatime ? MS_STRICTATIME : 0) | (config->nodiratime ? MS_NODIRATIME : 0) |
		(config->nosymfollow ? MS_NOSYMFOLLOW : 0);

	if (!flags || geteuid() != 0)
		return;
	if (!config->strictatime)
		flags |= config->noatime ? MS_NOATIME : MS_RELATIME;
	flags |= (config->read_only ? MS_RDONLY : 0) | (config->nosuid ? MS_NOSUID : 0) | (config->nodev ? MS_NODEV : 0) |
		(config->noexec ? MS_NOEXEC : 0);
	if (mount(NULL, config->directory, NULL, MS_REMOUNT | MS_BIND | flags, NULL))
		log_warn("%s: mount flags: %s", config->directory, strerror(errno));
}

static int work_mount(const struct mount_config *config, struct helper_reply *reply)
{
	static char list[3 * PATH_MAX], stderr_line[256];
	const struct fuse_lowlevel_ops no_operations = {};
	char *argv[] = {"mount.lanefs", "-o", list, NULL};
	struct fuse_args arguments = FUSE_ARGS_INIT(3, argv);
	struct fuse_session *session;
	int captured = memfd_create("stderr", MFD_CLOEXEC), result = -EIO;

	fuse_set_log_func(remember_line);
	dup2(captured, STDERR_FILENO); /* fusermount3 writes its reasons there */
	mount_options(config, list, sizeof(list));
	session = fuse_session_new(&arguments, &no_operations, sizeof(no_operations), NULL);
	if (session && fuse_session_mount(session, config->directory) == 0) {
		reply->fd = dup(fuse_session_fd(session)); /* sent, and then closed; libfuse's own by our end */
		result = reply->fd >= 0 ? 0 : -errno;
		set_flags(config);
	}
	if (result && pread(captured, stderr_line, sizeof(stderr_line) - 1, 0) > 0)
		stderr_line[strcspn(stderr_line, "\n")] = '\0';
	close(captured);
	if (result)
		message_from(stderr_line[0] ? stderr_line : fuse_said, reply->message, sizeof(reply->message));
	return result;
}

/* A daemon that was killed leaves a mount that answers ENOTCONN to everything; it makes room for the new one. */
static void detach_dead_mount(const char *directory)
{
	struct mount_found found;
	struct statfs space;
	int err;

	/* The kernel has attributes of its own, but always asks the daemon for this. */
	if (statfs(directory, &space) == 0 || !mount_is_dead(errno) || !mount_at(directory, &found))
		return;
	err = unmount_at(directory, UNMOUNT_LAZY);
	(void)err; /* mounting says what is wrong */
}

/* ---- the rest ---- */
static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

static int work_readahead(const char *directory, unsigned kilobytes)
{
	struct mount_found found;
	char path[96], text[16];
	struct stat st;
	int err;

	if (stat(directory, &st))
		return -errno;
	if (!mount_at(directory, &found)) /* that would be another filesystem's */
		return -EINVAL;
	snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", major(st.st_dev), minor(st.st_dev));
	snprintf(text, sizeof(text), "%u\n", kilobytes);
	err = write_text(path, text);
	return err == -EACCES || err == -EPERM || err == -EROFS || err == -ENOENT ? 0 : err; /* a wish, not a need */
}

static int work_syncfs(const char *directory)
{
	int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = syncfs(fd) ? -errno : 0;
	close(fd);
	return err;
}

static int work_bind(const char *text, struct helper_reply *reply)
{
	char address[PCI_ADDRESS_BYTES], driver[PCI_DRIVER_BYTES];

	if (sscanf(text, "%15s %31s", address, driver) != 2)
		return -EINVAL;
	return pci_bind(address, driver, reply->message, sizeof(reply->message));
}

int helper_work(const struct mount_config *config, const struct helper_request *request, struct helper_reply *reply)
{
	struct mount_found found;

	switch (request->op) {
	case HELPER_MOUNT:
		detach_dead_mount(config->directory);
		return work_mount(config, reply);
	case HELPER_UNMOUNT:
		return unmount_at(config->directory, request->flags);
	case HELPER_UTAB:
		return utab_add(config->target, config->directory, config->utab_options);
	case HELPER_UTAB_DROP:
		if (!mount_at(config->directory, &found))
			utab_remove(config->directory);
		return 0;
	case HELPER_READAHEAD:
		return work_readahead(config->directory, request->flags);
	case HELPER_SYNCFS:
		return work_syncfs(config->directory);
	case HELPER_BIND:
		return config->auto_bind ? work_bind(request->text, reply) : -EPERM;
	}
	return -EINVAL;
}
