/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Going on elsewhere: the lookup counts leave with the filesystem that ends (fs_save_counts, then fs_leave in mount.c) and
 * enter the tables of the one that begins, however many owners that has. Which inodes have no links any more is not handed
 * over: with such inodes the device is left not clean, so the successor reads the orphan chains, and reap.c finds that
 * those with a count are in use.
 *
 * Between the two nobody holds the device. Every change goes through the journal, so a device whose journal stands where it
 * was left holds what was left; mounting alone, as a successor does that fails later, does not move it.
 */
#include "fs/legacy.h"

#include <stdio.h>
#include <stdlib.h>

#include "fs/inode.h"

static MAY_WAIT int await_forgets(void *arg)
{
	inode_table_await_forgets(arg);
	return 0;
}

struct count_copy {
	const struct owner *owner;
	struct fs_count *out;
};

static int copy_counts(void *arg)
{
	const struct count_copy *copy = arg;
	inode_lookup_copy(copy->owner, copy->out);
	return 0;
}

int fs_save_counts(struct fs *fs, struct fs_legacy *out)
{
	uint64_t total = 0, saved = 0;
	for (unsigned i = 0; i < fs->owner_count; i++) /* what arrives is not sent on: one round is enough */
		reactor_call(fs->owners[i]->reactor, await_forgets, fs->owners[i]);
	for (unsigned i = 0; i < fs->owner_count; i++)
		total += inode_lookup_total(fs->owners[i]);
	*out = (struct fs_legacy){.count = total, .counts = malloc(MAX(total, (uint64_t)1) * sizeof(*out->counts))};
	if (!out->counts)
		return -ENOMEM;
	for (unsigned i = 0; i < fs->owner_count; i++) {
		struct count_copy copy = {.owner = fs->owners[i], .out = out->counts + saved};
		saved += inode_lookup_total(fs->owners[i]);
		reactor_call(fs->owners[i]->reactor, copy_counts, &copy);
	}
	return 0;
}

struct count_take {
	struct owner *owner;
	const struct fs_legacy *legacy;
};

static int take_counts(void *arg)
{
	const struct count_take *take = arg;
	int error = 0;
	for (uint64_t i = 0; i < take->legacy->count && !error; i++) {
		const struct fs_count *from = &take->legacy->counts[i];
		if (owner_of_ino(take->owner->fs, from->ino) == take->owner)
			error = inode_lookup_add(take->owner, from->ino, from->count);
	}
	return error;
}

int legacy_take(struct fs *fs, uint64_t durable_sequence, char *message, size_t message_size)
{
	const struct fs_legacy *legacy = fs->options.legacy;
	int error = 0;
	if (memcmp(legacy->uuid, fs->super.uuid, sizeof(legacy->uuid)) || legacy->durable_sequence != durable_sequence) {
		snprintf(message, message_size, "%s: somebody else has changed it while it was handed over", fs->bdev_name);
		return -ESTALE;
	}
	for (unsigned i = 0; i < fs->owner_count && !error; i++) {
		struct count_take take = {.owner = fs->owners[i], .legacy = legacy};
		error = reactor_call(fs->owners[i]->reactor, take_counts, &take);
	}
	if (error)
		snprintf(message, message_size, "%s: no memory for what the kernel knows", fs->bdev_name);
	return error;
}
