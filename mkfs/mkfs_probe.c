/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * libblkid knows other people's formats; ours is recognised by its two magic numbers, damaged or not, in block 1 and in
 * the last block of the target.
 */
#include "mkfs/mkfs_probe.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include "reactor/printable.h"

enum { COPY_BLOCKS_FIRST = 1024, COPY_BLOCKS_LAST = 256 };

/* A value that stands on the target may be anything: nothing of it reaches the terminal but printable text. */
static void text_append(char *text, size_t text_size, const char *before, const char *value, size_t value_size)
{
	size_t at = strlen(text);

	at += (size_t)snprintf(text + at, text_size - at, "%s", before);
	if (at >= text_size)
		return;
	const size_t length = MIN(strnlen(value, value_size), text_size - 1 - at);
	memcpy(text + at, value, length);
	text[at + length] = '\0';
	text_make_printable(text + at, length);
}

static const char *value_of(blkid_probe probe, const char *name)
{
	const char *value;

	return blkid_probe_lookup_value(probe, name, &value, NULL) ? NULL : value;
}

static bool foreign_describe(blkid_probe probe, char *text, size_t text_size)
{
	const char *type = value_of(probe, "TYPE"), *table = value_of(probe, "PTTYPE");
	const char *usage = value_of(probe, "USAGE"), *label = value_of(probe, "LABEL");

	text[0] = '\0';
	if (type) {
		const bool filesystem = usage && !strcmp(usage, "filesystem");
		text_append(text, text_size, filesystem ? "a filesystem of type " : "a signature of type ", type, text_size);
		if (label) {
			text_append(text, text_size, ", label \"", label, text_size);
			text_append(text, text_size, "\"", "", 0);
		}
	} else if (table) {
		text_append(text, text_size, "a partition table of type ", table, text_size);
	}
	return type || table;
}

static int foreign_probe(blkid_probe probe, bool *out_found, char *text, size_t text_size)
{
	if (!probe) {
		snprintf(text, text_size, "cannot be probed: %s", strerror(errno));
		return -EIO;
	}
	blkid_probe_enable_superblocks(probe, 1);
	blkid_probe_set_superblocks_flags(probe,
		BLKID_SUBLKS_TYPE | BLKID_SUBLKS_USAGE | BLKID_SUBLKS_LABEL | BLKID_SUBLKS_BADCSUM);
	blkid_probe_enable_partitions(probe, 1);
	blkid_probe_set_partitions_flags(probe, BLKID_PARTS_FORCE_GPT);
	const int answer = blkid_do_fullprobe(probe); /* 0: something, 1: nothing */
	*out_found = answer == 0 && foreign_describe(probe, text, text_size);
	blkid_free_probe(probe);
	if (answer >= 0)
		return 0;
	snprintf(text, text_size, "cannot be read while looking for what it holds");
	return -EIO;
}

/* Of a device that has no file: signatures stand in the first two MiB and near the end. */
static int copy_edges(struct mkfs_device *device, int fd)
{
	const uint64_t size = mkfs_device_size(device), blocks = size / FS_BLOCK_SIZE;
	const uint64_t first = MIN((uint64_t)COPY_BLOCKS_FIRST, blocks), last = blocks - MIN((uint64_t)COPY_BLOCKS_LAST, blocks);
	uint8_t *block = malloc(FS_BLOCK_SIZE);

	int err = block && ftruncate(fd, (off_t)size) == 0 ? 0 : -ENOMEM;
	for (uint64_t i = 0; i < blocks && !err; i = i + 1 == first && first < last ? last : i + 1) {
		err = mkfs_device_read(device, i, block);
		if (!err && pwrite(fd, block, FS_BLOCK_SIZE, (off_t)(i * FS_BLOCK_SIZE)) != FS_BLOCK_SIZE)
			err = -EIO;
	}
	free(block);
	return err;
}

static int copy_probe(struct mkfs_device *device, bool *out_found, char *text, size_t text_size)
{
	const int fd = memfd_create("lanefs-probe", MFD_CLOEXEC);
	int err = fd < 0 ? -errno : copy_edges(device, fd);
	blkid_probe probe = err ? NULL : blkid_new_probe();

	if (probe && blkid_probe_set_device(probe, fd, 0, 0) != 0) {
		blkid_free_probe(probe);
		probe = NULL;
	}
	if (err)
		snprintf(text, text_size, "cannot be read while looking for what it holds: %s", strerror(-err));
	else
		err = foreign_probe(probe, out_found, text, text_size);
	if (fd >= 0)
		close(fd);
	return err;
}

/* ---- our own ---- */

static bool super_describe(const struct fs_super *super, bool copy, char *text, size_t text_size)
{
	char uuid[37];

	if (le32_get(super->header.magic) != FS_BLOCK_MAGIC || le64_get(super->magic) != FS_SUPER_MAGIC)
		return false;
	uuid_unparse(super->uuid, uuid);
	snprintf(text, text_size, "a %slanefs filesystem, uuid %s", copy ? "damaged " : "", uuid);
	if (super->label[0]) {
		text_append(text, text_size, ", label \"", (const char *)super->label, FS_LABEL_BYTES);
		text_append(text, text_size, "\"", "", 0);
	}
	return true;
}

static int own_probe(struct mkfs_device *device, bool *out_found, char *text, size_t text_size)
{
	struct fs_super *super = calloc(1, sizeof(*super));
	const uint64_t last = mkfs_device_size(device) / FS_BLOCK_SIZE - 1;

	int err = super ? mkfs_device_read(device, FS_SUPER_BLOCK, super) : -ENOMEM;
	if (!err)
		*out_found = super_describe(super, false, text, text_size);
	if (!err && !*out_found)
		err = mkfs_device_read(device, last, super);
	if (!err && !*out_found)
		*out_found = super_describe(super, true, text, text_size);
	free(super);
	if (err)
		snprintf(text, text_size, "cannot be read: %s", strerror(-err));
	return err;
}

int mkfs_probe(struct mkfs_device *device, const char *path, bool *out_found, char *text, size_t text_size)
{
	*out_found = false;
	const int err = path ? foreign_probe(blkid_new_probe_from_filename(path), out_found, text, text_size) :
		copy_probe(device, out_found, text, text_size);

	return err || *out_found ? err : own_probe(device, out_found, text, text_size);
}
