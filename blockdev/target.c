/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Targets: how a person names a device, the same way in every tool. Forms that are not built yet are refused by name, so
 * that "virtio:..." is not taken for a file that does not exist. Every failure is one line: object, cause, next step.
 */
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme.h"

#define TARGET_BYTES_MIN MIB(1)

struct target_message {
	char *text;
	size_t size;
};

static int target_fail(struct target_message *message, int err, const char *format, ...) PRINTF_LIKE(3, 4);
static int target_fail(struct target_message *message, int err, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(message->text, message->size, format, arguments);
	va_end(arguments);
	return err;
}

static MAY_WAIT int target_create_nvme(struct bdev_registry *registry, const char *target, const struct target_options *options,
	char *name, size_t name_size, struct target_message *message)
{
	const struct nvme_device_options device_options = {
		.policy = options->hold_on_removal ? NVME_HOLD : NVME_REMOVE,
		.read_only = options->read_only,
		.io_timeout_ns = options->io_timeout_ns,
		.event = (nvme_device_event_fn)options->device_event,
		.arg = options->device_event_arg,
	};
	return nvme_device_create(registry, target, &device_options, name, name_size, message->text, message->size);
}

static bool has_prefix(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static const char *target_unbuilt(const char *target)
{
	if (has_prefix(target, "virtio:"))
		return "virtio:";
	if (has_prefix(target, "mirror:"))
		return "mirror:";
	return NULL;
}

/* "64M": a number and one of K, M, G, T (or nothing: bytes). */
static int target_parse_size(const char *text, uint64_t *size_bytes)
{
	char *end;
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	const unsigned long long number = strtoull(text, &end, 10);
	if (errno != 0)
		return -EINVAL;
	static const char suffixes[] = "KMGT";
	unsigned shift = 0;
	if (*end != '\0') {
		const char *suffix = strchr(suffixes, toupper((unsigned char)*end));
		if (suffix == NULL || end[1] != '\0')
			return -EINVAL;
		shift = 10 * (unsigned)(suffix - suffixes + 1);
	}
	if (number > (UINT64_MAX >> 1) >> shift)
		return -EINVAL;
	*size_bytes = (uint64_t)number << shift;
	return 0;
}

static int target_create_ram(struct bdev_registry *registry, const char *target, const struct target_options *target_options,
	const char *name, struct target_message *message)
{
	struct bdev_ram_options options = {.block_size = target_options->file_block_size};
	if (target_parse_size(target + strlen("ram:"), &options.size_bytes) != 0)
		return target_fail(message, -EINVAL, "%s: not a size; write for example ram:64M or ram:1G", target);
	if (options.size_bytes < TARGET_BYTES_MIN || options.size_bytes % 4096 != 0)
		return target_fail(message, -EINVAL, "%s: the size must be a multiple of 4096 bytes and at least 1M",
			target);
	const int err = bdev_ram_create(registry, name, &options);
	if (err == -EEXIST)
		return target_fail(message, err, "%s: already open in this process; close it first", target);
	if (err != 0)
		return target_fail(message, err, "%s: not enough memory; choose a smaller size", target);
	return 0;
}

/* The words for an error of opening; NULL: the system's. */
static const char *target_file_cause(int err)
{
	switch (err) {
	case -EISDIR:
		return "is a directory; name an image file or a block device";
	case -ENOTBLK:
		return "is neither a regular file nor a block device; name one of these";
	case -EACCES:
	case -EPERM:
		return "permission denied; run as its owner or change its mode";
	case -EROFS:
		return "is on a read-only filesystem or write-protected; open it read-only";
	case -EBUSY:
		return "in use by another process or mount; unmount it there first";
	case -EEXIST:
		return "already open in this process; close it first";
	default:
		return NULL;
	}
}

static int target_fail_file(struct target_message *message, const char *path, int err)
{
	static const char enlarge[] = "truncate -s 1G";
	const char *cause = target_file_cause(err);
	if (cause != NULL)
		return target_fail(message, err, "%s: %s", path, cause);
	if (err == -ENOENT)
		return target_fail(message, err, "%s: no such file or device; create an image with: %s %s", path, enlarge, path);
	if (err == -EINVAL)
		return target_fail(message, err, "%s: is empty or has an unusable block size; enlarge it with: %s %s", path,
			enlarge, path);
	return target_fail(message, err, "%s: cannot be opened: %s; check the path and the system log", path,
		strerror(-err));
}

MAY_WAIT static int target_create_file(struct bdev_registry *registry, const char *path,
	const struct target_options *options, const char *name, struct target_message *message)
{
	const struct bdev_file_options file_options = {
		.path = path,
		.read_only = options->read_only,
		.exclusive_lock = options->exclusive_lock,
		.block_size = options->file_block_size,
	};
	const int err = bdev_file_create(registry, name, &file_options);
	if (err != 0)
		return target_fail_file(message, path, err);
	const uint64_t size = bdev_size_bytes(bdev_get_limits(bdev_find(registry, name)));
	if (size >= TARGET_BYTES_MIN)
		return 0;
	const int removed = bdev_remove(registry, name, NS_PER_SEC);
	assert(removed == 0);
	return target_fail(message, -EINVAL, "%s: too small (%llu bytes, at least 1M is needed); "
		"enlarge it with: truncate -s 1G %s", path, (unsigned long long)size, path);
}

MAY_WAIT int bdev_target_create(struct bdev_registry *registry, const char *target,
	const struct target_options *options, char *name, size_t name_size, char *message_text, size_t message_size)
{
	struct target_message message = {.text = message_text, .size = message_size};
	char registry_name[sizeof(((struct bdev_limits *)NULL)->name)];
	bool pci;
	if (target[0] == '\0')
		return target_fail(&message, -EINVAL, "no device named; give a path, or for example ram:1G");
	if (nvme_target(target, &pci))
		return target_create_nvme(registry, target, options, name, name_size, &message);
	const char *unbuilt = target_unbuilt(target);
	if (unbuilt != NULL)
		return target_fail(&message, -EOPNOTSUPP, "%s: %s is not built yet; use an image file or a block device",
			target, unbuilt);
	/* Of a long path the end tells more than the beginning. */
	const size_t length = strlen(target);
	const size_t skip = length < sizeof(registry_name) ? 0 : length - sizeof(registry_name) + 1;
	snprintf(registry_name, sizeof(registry_name), "%s", target + skip);
	const int err = has_prefix(target, "ram:") ?
		target_create_ram(registry, target, options, registry_name, &message) :
		target_create_file(registry, target, options, registry_name, &message);
	if (err == 0)
		snprintf(name, name_size, "%s", registry_name);
	return err;
}
