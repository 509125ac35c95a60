/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Who uses a controller. The kernel has no single answer, so everything that can stand for a controller becomes a
 * *node*, and the places where the kernel tells who uses nodes are gone through once, for all controllers together:
 *
 *   sysfs      holders/ of disks and partitions: device mapper and md
 *   procfs     self/mountinfo by device number, or by name where a filesystem has numbers of its own (btrfs); swaps;
 *              every process's fd/ that we may look into: disks, vfio groups, uio nodes
 *   the disk   an exclusive open, refused for what the others do not show: a mount in another namespace, zfs
 *
 * A namespace's disk is below its controller, or, for a controller that can share it (multipath), in the subsystem.
 */
#include "nvme/pci_internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

struct node {
	struct pci_device *device;
	char path[64];    /* "/dev/nvme0n1p2", "/dev/vfio/13"; without /dev in front: the end of a path in sysfs */
	char number[16];  /* "259:2" of a disk or partition; "" otherwise */
	bool mounted;     /* one mount is named, not each */
	long process;     /* the last that was named */
};
struct nodes {
	struct node *items;
	size_t count, room;
	int err; /* the first that adding met */
};

/* The list ends in ", ..." when somebody does not fit. */
static void PRINTF_LIKE(2, 3) user_add(struct pci_device *device, const char *format, ...)
{
	static const char more[] = ", ...";
	char text[PCI_TEXT_BYTES];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	for (char *at = text; *at; at++)
		if (iscntrl((unsigned char)*at))
			*at = '?';
	const size_t length = strlen(device->users), room = sizeof(device->users) - sizeof(more);
	const char *comma = length ? ", " : "";
	if (length >= strlen("...") && !strcmp(device->users + length - strlen("..."), "..."))
		return;
	const bool fits = length + strlen(comma) + strlen(text) <= room;
	snprintf(device->users + length, sizeof(device->users) - length, "%s%s", comma, fits ? text : "...");
}

static struct node *node_add(struct nodes *nodes, struct pci_device *device)
{
	if (nodes->count == nodes->room) {
		const size_t room = nodes->room ? 2 * nodes->room : 64;
		struct node *items = realloc(nodes->items, room * sizeof(*items));
		if (!items) {
			nodes->err = -ENOMEM;
			return NULL;
		}
		nodes->items = items;
		nodes->room = room;
	}
	struct node *node = &nodes->items[nodes->count++];
	*node = (struct node){.device = device};
	return node;
}

static void PRINTF_LIKE(3, 4) path_add(struct nodes *nodes, struct pci_device *device, const char *format, ...)
{
	struct node *node = node_add(nodes, device);
	va_list arguments;
	if (!node)
		return;
	va_start(arguments, format);
	vsnprintf(node->path, sizeof(node->path), format, arguments);
	va_end(arguments);
}

/* ---- the nodes of a controller ---- */
static bool is_there(const char *path) { return access(path, F_OK) == 0; }

static void holders_add(struct pci_device *device, const char *folder_path, const char *name)
{
	char path[PCI_PATH_BYTES], volume[PCI_TEXT_BYTES];
	DIR *folder = opendir(pci_path(path, "%s/holders", folder_path));
	for (const char *holder; (holder = pci_folder_next(folder));) {
		if (pci_text_read(pci_path(path, "class/block/%s/dm/name", holder), volume, sizeof(volume)))
			user_add(device, "%s is part of %s", name, holder);
		else
			user_add(device, "%s is part of %s (%s)", name, holder, volume);
	}
	pci_folder_close(folder);
}

/* Not below the root: for pci_path. What could not be looked at might be in use, so it is an error. */
static bool folder_join(struct nodes *nodes, char out[PCI_PATH_BYTES], const char *folder_path, const char *name)
{
	const bool fits = snprintf(out, PCI_PATH_BYTES, "%s/%s", folder_path, name) < PCI_PATH_BYTES;
	if (!fits)
		nodes->err = -ENAMETOOLONG;
	return fits;
}

/* A disk or a partition, @folder_path below sysfs. */
static void block_add(struct nodes *nodes, struct pci_device *device, const char *folder_path, const char *name)
{
	char path[PCI_PATH_BYTES];
	struct node *node = node_add(nodes, device);
	if (!node)
		return;
	snprintf(node->path, sizeof(node->path), "/dev/%s", name);
	pci_text_read(pci_path(path, "%s/dev", folder_path), node->number, sizeof(node->number));
	holders_add(device, folder_path, name);
}

static void disk_add(struct nodes *nodes, struct pci_device *device, const char *folder_path, const char *name)
{
	char path[PCI_PATH_BYTES], partition_path[PCI_PATH_BYTES];
	block_add(nodes, device, folder_path, name);
	DIR *folder = opendir(pci_path(path, "%s", folder_path));
	for (const char *partition; (partition = pci_folder_next(folder));) {
		if (is_there(pci_path(path, "%s/%s/partition", folder_path, partition)) &&
			folder_join(nodes, partition_path, folder_path, partition))
			block_add(nodes, device, partition_path, partition);
	}
	pci_folder_close(folder);
}

/* Everything in a controller's or subsystem's folder that has a device number: disks have a size, the character devices
 * of namespaces (ng0n1) have none. The hidden disks behind a multipath one have no number. */
static void namespaces_add(struct nodes *nodes, struct pci_device *device, const char *folder_path)
{
	char path[PCI_PATH_BYTES], entry_path[PCI_PATH_BYTES];
	DIR *folder = opendir(pci_path(path, "%s", folder_path));
	for (const char *name; (name = pci_folder_next(folder));) {
		if (strncmp(name, "nvme", 4) && strncmp(name, "ng", 2))
			continue;
		if (!is_there(pci_path(path, "%s/%s/dev", folder_path, name)) ||
			!folder_join(nodes, entry_path, folder_path, name))
			continue;
		if (is_there(pci_path(path, "%s/size", entry_path)))
			disk_add(nodes, device, entry_path, name);
		else if (name[1] == 'g')
			path_add(nodes, device, "/dev/%s", name);
	}
	pci_folder_close(folder);
}

static void subsystems_add(struct nodes *nodes, struct pci_device *device, const char *controller)
{
	char path[PCI_PATH_BYTES];
	DIR *folder = opendir(pci_path(path, "class/nvme-subsystem"));
	for (const char *name; (name = pci_folder_next(folder));)
		if (is_there(pci_path(path, "class/nvme-subsystem/%s/%s", name, controller)) &&
			folder_join(nodes, path, "class/nvme-subsystem", name))
			namespaces_add(nodes, device, path);
	pci_folder_close(folder);
}

static void controllers_add(struct nodes *nodes, struct pci_device *device)
{
	char path[PCI_PATH_BYTES];
	DIR *folder = opendir(pci_path(path, "bus/pci/devices/%s/nvme", device->address));
	for (const char *controller; (controller = pci_folder_next(folder));) {
		snprintf(path, sizeof(path), "bus/pci/devices/%s/nvme/%s", device->address, controller);
		namespaces_add(nodes, device, path);
		subsystems_add(nodes, device, controller);
	}
	pci_folder_close(folder);
}

/* A node for each entry of a folder of the device. */
static void entries_add(struct nodes *nodes, struct pci_device *device, const char *subfolder, const char *prefix)
{
	char path[PCI_PATH_BYTES];
	DIR *folder = opendir(pci_path(path, "bus/pci/devices/%s/%s", device->address, subfolder));
	for (const char *name; (name = pci_folder_next(folder));)
		path_add(nodes, device, "%s%s", prefix, name);
	pci_folder_close(folder);
}

/* What a user-space driver holds. Only under uio is an open config or BAR a sign of one: otherwise lspci may just look. */
static void user_space_add(struct nodes *nodes, struct pci_device *device)
{
	if (device->iommu_group >= 0)
		path_add(nodes, device, "/dev/vfio/%d", device->iommu_group);
	entries_add(nodes, device, "vfio-dev", "/dev/vfio/devices/");
	entries_add(nodes, device, "uio", "/dev/");
	if (!strncmp(device->driver, "uio", 3)) {
		path_add(nodes, device, "/%s/resource0", device->address);
		path_add(nodes, device, "/%s/config", device->address);
	}
}

/* ---- who uses them ---- */
static FILE *procfs_open(const char *file)
{
	char path[PCI_PATH_BYTES];
	snprintf(path, sizeof(path), "%s/%s", pci_procfs(), file);
	return fopen(path, "re");
}

/* "36 35 259:2 / /mnt rw - ext4 /dev/nvme0n1p2 rw" */
static void mount_match(struct nodes *nodes, const char *line)
{
	char number[16], directory[PCI_TEXT_BYTES], source[PCI_TEXT_BYTES] = "";
	if (sscanf(line, "%*s %*s %15s %*s %255s", number, directory) != 2)
		return;
	const char *rest = strstr(line, " - ");
	if (rest && sscanf(rest, " - %*s %255s", source) != 1)
		source[0] = '\0';
	for (size_t i = 0; i < nodes->count; i++) {
		struct node *node = &nodes->items[i];
		if (!node->number[0] || node->mounted || (strcmp(node->number, number) && strcmp(node->path, source)))
			continue;
		node->mounted = true;
		user_add(node->device, "%s is mounted at %s", node->path + strlen("/dev/"), directory);
	}
}

static void swap_match(struct nodes *nodes, const char *line)
{
	char source[PCI_TEXT_BYTES];
	if (sscanf(line, "%255s", source) != 1)
		return;
	for (size_t i = 0; i < nodes->count; i++)
		if (nodes->items[i].number[0] && !strcmp(nodes->items[i].path, source))
			user_add(nodes->items[i].device, "%s is swap", source + strlen("/dev/"));
}

static void lines_match(struct nodes *nodes, const char *file, void (*match)(struct nodes *nodes, const char *line))
{
	FILE *stream = procfs_open(file);
	char *line = NULL;
	size_t room = 0;
	while (stream && getline(&line, &room, stream) > 0)
		match(nodes, line);
	free(line);
	if (stream)
		fclose(stream);
}

static bool node_is_open_as(const struct node *node, const char *target)
{
	if (!strncmp(node->path, "/dev/", 5))
		return !strcmp(node->path, target);
	const size_t length = strlen(target), end = strlen(node->path);
	return length > end && !strcmp(target + length - end, node->path);
}

/* It opens every disk that appears, for a moment. */
static bool only_looks(const char *command) { return strstr(command, "udev") != NULL; }

static bool is_named(const struct nodes *nodes, const struct pci_device *device, long process)
{
	for (size_t i = 0; i < nodes->count; i++)
		if (nodes->items[i].device == device && nodes->items[i].process == process)
			return true;
	return false;
}

static void file_match(struct nodes *nodes, long process, const char *target)
{
	char path[PCI_PATH_BYTES], command[32];
	for (size_t i = 0; i < nodes->count; i++) {
		struct node *node = &nodes->items[i];
		if (!node_is_open_as(node, target) || is_named(nodes, node->device, process))
			continue;
		snprintf(path, sizeof(path), "%s/%ld/comm", pci_procfs(), process);
		pci_text_read(path, command, sizeof(command));
		node->process = process;
		if (!only_looks(command))
			user_add(node->device, "process %ld (%s)", process, command);
	}
}

static void process_match(struct nodes *nodes, long process)
{
	char path[PCI_PATH_BYTES], target[PCI_PATH_BYTES];
	snprintf(path, sizeof(path), "%s/%ld/fd", pci_procfs(), process);
	DIR *folder = opendir(path); /* gone, or another user's */
	for (const char *name; (name = pci_folder_next(folder));) {
		const ssize_t length = readlinkat(dirfd(folder), name, target, sizeof(target) - 1);
		target[MAX(length, 0)] = '\0';
		if (target[0] == '/')
			file_match(nodes, process, target);
	}
	pci_folder_close(folder);
}

static void processes_match(struct nodes *nodes)
{
	DIR *folder = opendir(pci_procfs());
	for (const char *name; (name = pci_folder_next(folder));) {
		char *end;
		const long process = strtol(name, &end, 10);
		if (isdigit((unsigned char)name[0]) && *end == '\0')
			process_match(nodes, process);
	}
	pci_folder_close(folder);
}

/* Only where nobody was found yet, and on the machine itself. */
static void claims_match(struct nodes *nodes)
{
	for (size_t i = 0; i < nodes->count; i++) {
		const struct node *node = &nodes->items[i];
		if (!node->number[0] || node->device->users[0])
			continue;
		const int fd = open(node->path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0)
			close(fd);
		else if (errno == EBUSY)
			user_add(node->device, "%s is claimed by the kernel", node->path + strlen("/dev/"));
	}
}

int pci_users_fill(struct pci_device *devices, unsigned count)
{
	struct nodes nodes = {};
	for (unsigned i = 0; i < count; i++) {
		devices[i].users[0] = '\0';
		controllers_add(&nodes, &devices[i]);
		user_space_add(&nodes, &devices[i]);
	}
	if (nodes.count > 0 && !nodes.err) {
		lines_match(&nodes, "self/mountinfo", mount_match);
		lines_match(&nodes, "swaps", swap_match);
		processes_match(&nodes);
		if (pci_roots_are_real())
			claims_match(&nodes);
	}
	free(nodes.items);
	return nodes.err;
}

void pci_users_mend(const char *users, char *out, size_t size)
{
	char name[64], what[PCI_TEXT_BYTES] = "";
	long process;
	int used = 0;
	if (sscanf(users, "%63s is mounted at %255[^,]", name, what) == 2)
		snprintf(out, size, "umount %s", what);
	else if (sscanf(users, "%63s is swap%n", name, &used) == 1 && used)
		snprintf(out, size, "swapoff /dev/%s", name);
	else if (sscanf(users, "%63s is part of %*s (%255[^)])", name, what) == 2)
		snprintf(out, size, "dmsetup remove %s", what);
	else if (sscanf(users, "%63s is part of %255[^ ,]", name, what) == 2)
		snprintf(out, size, "mdadm --stop /dev/%s", what);
	else if (sscanf(users, "process %ld (%255[^)])", &process, what) == 2 && !strcmp(what, "mount.lanefs"))
		snprintf(out, size, "lanefs unmount DIR (lanefs status shows where process %ld is mounted)", process);
	else if (sscanf(users, "process %ld", &process) == 1)
		snprintf(out, size, "kill %ld", process);
	else if (sscanf(users, "%63s", name) == 1)
		snprintf(out, size, "grep %s /proc/*/mountinfo (shows other namespaces' mounts)", name);
	else
		snprintf(out, size, "lanefs devices");
}
