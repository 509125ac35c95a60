/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The medium of an emulated drive: any other bdev, used through a channel of the device's home reactor, where the model
 * runs. What the model asks for becomes a struct io in the context that emu_io has for it.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "blockdev/nvme_internal.h"
#include "reactor/log.h"

enum { LBA_DEFAULT = 4096 };

struct emu_drive {
	struct bdev_registry *registry;
	struct bdev_desc *desc;
	struct bdev_channel *channel;
	struct emu *emu;
	struct emu_options options;      /* large: not on a fiber's stack */
	struct emu_backing backing;
	char medium[128];                /* registry name */
	bool own_medium, discards;
	unsigned pulling;                /* fibers in emu_drive_pull */
};

static void medium_done(struct io *io)
{
	struct emu_io *request = io->arg;
	request->result = io->result;
	request->done(request);
}

static void medium_submit(void *arg, struct emu_io *request)
{
	static const enum io_op ops[] = {
		[EMU_READ] = IO_READ,
		[EMU_WRITE] = IO_WRITE,
		[EMU_FLUSH] = IO_FLUSH,
		[EMU_ZERO] = IO_WRITE_ZEROES,
		[EMU_DISCARD] = IO_UNMAP,
	};
	_Static_assert(sizeof(struct io) <= sizeof(request->context), "room for an io");
	const struct emu_drive *drive = arg;
	struct io *io = (struct io *)request->context;
	*io = (struct io){
		.channel = drive->channel,
		.op = ops[request->op],
		.offset = request->offset,
		.length = request->length,
		.iov = request->iov,
		.iov_count = request->iov_count,
		.done = medium_done,
		.arg = request,
	};
	/* A discard is advice. */
	if (request->op == EMU_DISCARD && !drive->discards)
		io->op = IO_FLUSH, io->offset = io->length = 0;
	io_submit(io);
}

/* The medium is a target of its own, or a bdev that is there already (tests). */
static MAY_WAIT int medium_open(struct emu_drive *drive, const char *path, bool read_only, char *message, size_t message_size)
{
	const struct target_options options = {.read_only = read_only, .exclusive_lock = true,
		.file_block_size = drive->options.lba_bytes == 512 ? 512 : 0};
	struct bdev *medium = bdev_find(drive->registry, path);
	int err = 0;
	if (medium) {
		snprintf(drive->medium, sizeof(drive->medium), "%s", bdev_get_limits(medium)->name);
	} else {
		err = bdev_target_create(drive->registry, path, &options, drive->medium, sizeof(drive->medium), message,
			message_size);
		drive->own_medium = err == 0;
	}
	if (!err)
		err = bdev_open(drive->registry, drive->medium, !read_only, NULL, NULL, &drive->desc);
	if (!err)
		err = bdev_channel_get(drive->desc, &drive->channel);
	if (err && !message[0])
		snprintf(message, message_size, "%s: cannot be opened as the medium of an emulated drive: %s", path, strerror(-err));
	return err;
}

/* Names the drive in what @message says of its options or of its medium. */
static void say_why(const struct nvme_place *place, unsigned namespaces, int err, char *message, size_t message_size)
{
	char cause[256];
	snprintf(cause, sizeof(cause), "%s", message);
	if (!cause[0] && err == -EINVAL) /* all else about the options was said by their parser */
		snprintf(message, message_size, "emu:%s: is too small for %u namespaces: enlarge it, or ask for fewer", place->path,
			MAX(namespaces, 1u));
	else if (!cause[0])
		snprintf(message, message_size, "emu:%s: cannot be made: %s", place->path, strerror(-err));
	else if (!strncmp(cause, place->path, strlen(place->path)))
		snprintf(message, message_size, "emu:%s", cause);
	else
		snprintf(message, message_size, "emu:%s: %s", place->path, cause);
}

MAY_WAIT int emu_drive_create(struct bdev_registry *registry, const struct nvme_place *place, bool read_only,
	struct emu_drive **out, char *message, size_t message_size)
{
	char name[64];
	struct emu_drive *drive = calloc(1, sizeof(*drive));
	message[0] = '\0';
	if (!drive) {
		snprintf(message, message_size, "emu:%s: no memory", place->path);
		return -ENOMEM;
	}
	drive->registry = registry;
	int err = emu_options_parse(place->options, &drive->options, message, message_size);
	if (!err)
		err = medium_open(drive, place->path, read_only, message, message_size);
	const struct bdev_limits *limits = err ? NULL : bdev_get_limits(bdev_desc_bdev(drive->desc));
	const uint32_t lba = drive->options.lba_bytes ? drive->options.lba_bytes : LBA_DEFAULT;
	if (!err && limits->block_size > lba) {
		err = -EINVAL;
		snprintf(message, message_size, "lba=%u: the medium has blocks of %u bytes; leave the option out", lba, limits->block_size);
	}
	if (!err) {
		const size_t length = strlen(place->path), room = sizeof(name) - sizeof("emu:");
		snprintf(name, sizeof(name), "emu:%s", place->path + (length > room ? length - room : 0));
		bdev_desc_set_label(drive->desc, "the emulated controller");
		drive->discards = limits->ops & 1u << IO_UNMAP;
		drive->backing = (struct emu_backing){.size_bytes = bdev_size_bytes(limits), .read_only = limits->read_only,
			.zeroes_by_discard = drive->discards && limits->unmap_reads_zero, .submit = medium_submit, .arg = drive};
		err = emu_create(name, &drive->options, &drive->backing, reactor_self(), &drive->emu);
	}
	if (err) {
		say_why(place, drive->options.namespaces, err, message, message_size);
		emu_drive_destroy(drive);
		return err;
	}
	*out = drive;
	return 0;
}

MAY_WAIT int emu_drive_set_read_only(struct emu_drive *drive, bool read_only)
{
	struct bdev *medium = bdev_desc_bdev(drive->desc);
	int err = drive->own_medium ? bdev_set_read_only(medium, read_only) : 0;
	if (!err)
		err = bdev_desc_set_write(drive->desc, !read_only);
	if (!err)
		emu_set_read_only(drive->emu, read_only);
	return err;
}

MAY_WAIT int emu_drive_rescan(struct emu_drive *drive, bool *out_grew)
{
	struct bdev *medium = bdev_desc_bdev(drive->desc);
	int err = bdev_rescan(medium);
	*out_grew = !err && emu_medium_grew(drive->emu, bdev_size_bytes(bdev_get_limits(medium)));
	return err;
}

MAY_WAIT void emu_drive_pull(struct emu_drive *drive)
{
	drive->pulling++;
	emu_pull(drive->emu);
	drive->pulling--;
}

MAY_WAIT void emu_drive_destroy(struct emu_drive *drive)
{
	enum { LOOK_AGAIN_US = 100 };
	if (drive->emu) {
		emu_pull(drive->emu);
		while (drive->pulling > 0 || !emu_idle(drive->emu))
			fiber_sleep(LOOK_AGAIN_US * NS_PER_US);
		emu_destroy(drive->emu);
	}
	if (drive->channel)
		bdev_channel_put(drive->channel);
	if (drive->desc)
		bdev_close(drive->desc);
	if (drive->own_medium && bdev_remove(drive->registry, drive->medium, 10 * NS_PER_SEC) != 0)
		log_warn("%s: the medium of an emulated drive was not closed in time", drive->medium);
	free(drive);
}

struct emu *emu_drive_emu(struct emu_drive *drive) { return drive->emu; }

uint32_t emu_drive_level(const struct emu_drive *drive)
{
	return bdev_get_limits(bdev_desc_bdev(drive->desc))->stack_level + 1;
}
