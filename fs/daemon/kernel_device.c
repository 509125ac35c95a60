/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What the target is to the kernel: a file, or a block device whose model and serial number sysfs knows.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fs/daemon/daemon_status.h"

/* The first line of FOLDER/NAME without blanks around it; false: there is none. */
static bool line_read(const char *folder, const char *name, char *out, size_t out_size)
{
	char path[128], text[128];
	const char *begin = text;
	int fd;
	ssize_t length;

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	length = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
	if (fd >= 0)
		close(fd);
	if (length <= 0)
		return false;
	text[length] = '\0';
	text[strcspn(text, "\n")] = '\0';
	begin += strspn(begin, " ");
	for (size_t end = strlen(begin); end > 0 && begin[end - 1] == ' '; end--)
		text[(size_t)(begin - text) + end - 1] = '\0';
	snprintf(out, out_size, "%s", begin);
	return *begin;
}

const struct kernel_device *kernel_device_look(struct daemon *daemon)
{
	struct kernel_device *device = &daemon->kernel_device;
	const char *target = daemon->config->target;
	char folder[64], base[80];
	struct stat status;

	if (device->looked)
		return device;
	device->looked = true;
	if (target[0] != '/' || stat(target, &status))
		return device;
	snprintf(device->kind, sizeof(device->kind), "%s", S_ISBLK(status.st_mode) ? "block device" : "file");
	if (!S_ISBLK(status.st_mode))
		return device;
	snprintf(folder, sizeof(folder), "/sys/dev/block/%u:%u", major(status.st_rdev), minor(status.st_rdev));
	snprintf(base, sizeof(base), "%s/partition", folder);
	if (access(base, F_OK) == 0) /* of the disk that it is a part of */
		strcat(folder, "/..");
	if (!line_read(folder, "device/model", device->model, sizeof(device->model)) &&
		!line_read(folder, "dm/name", device->model, sizeof(device->model)))
		line_read(folder, "loop/backing_file", device->model, sizeof(device->model));
	if (!line_read(folder, "device/serial", device->serial, sizeof(device->serial)))
		line_read(folder, "serial", device->serial, sizeof(device->serial));
	return device;
}
