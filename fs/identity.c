/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Is this the device that left? A filesystem whose device went away and that is still mounted goes on only on exactly
 * what it left behind: same filesystem (uuid, and what mkfs drew at random), no mount in between (mount generation),
 * nothing older than what is known to be durable (the state block, and the last group of the journal).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/journal_internal.h"

struct identity {
	const struct fs *fs;
	fs_read_fn read;
	void *context;
	uint8_t *block;                 /* what was read last */
	char *message;
	size_t message_size;
};

static MAY_WAIT int identity_read(struct identity *identity, uint64_t block)
{
	const int error = identity->read(identity->context, identity->block, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
	if (error)
		snprintf(identity->message, identity->message_size, "block %llu cannot be read: %s", (unsigned long long)block,
			strerror(-error));
	return error;
}

static int refuse(struct identity *identity, const char *why)
{
	snprintf(identity->message, identity->message_size, "%s", why);
	return -ESTALE;
}

static void uuid_text(const uint8_t uuid[FS_UUID_BYTES], char out[2 * FS_UUID_BYTES + 5])
{
	char *at = out;
	for (unsigned i = 0; i < FS_UUID_BYTES; i++)
		at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
}

static MAY_WAIT int check_super(struct identity *identity)
{
	const struct fs_super *ours = &identity->fs->super, *found = (const struct fs_super *)identity->block;
	const int error = identity_read(identity, FS_SUPER_BLOCK);
	if (error)
		return error;
	if (super_verify(found, FS_SUPER_BLOCK, le64_get(ours->block_count)))
		return refuse(identity, "it holds no lanefs that fits");
	if (memcmp(found->uuid, ours->uuid, sizeof(ours->uuid))) {
		char theirs[2 * FS_UUID_BYTES + 5], wanted[2 * FS_UUID_BYTES + 5];
		uuid_text(found->uuid, theirs);
		uuid_text(ours->uuid, wanted);
		snprintf(identity->message, identity->message_size, "it holds another filesystem (uuid %s, wanted %s)", theirs,
			wanted);
		return -ESTALE;
	}
	if (le64_get(found->fsid) != le64_get(ours->fsid) || le64_get(found->journal_id) != le64_get(ours->journal_id))
		return refuse(identity, "it was formatted anew with the same uuid");
	return 0;
}

static MAY_WAIT int check_state(struct identity *identity)
{
	const struct journal *journal = identity->fs->journal;
	const struct fs_state *found = (const struct fs_state *)identity->block;
	uint64_t generation = 0, mount_generation = 0;
	for (unsigned i = 0; i < 2; i++) {
		const int error = identity_read(identity, FS_STATE_BLOCK_A + i);
		if (error)
			return error;
		if (state_verify(&identity->fs->super, found, FS_STATE_BLOCK_A + i) || le64_get(found->generation) <= generation)
			continue;
		generation = le64_get(found->generation);
		mount_generation = le64_get(found->mount_generation);
	}
	if (mount_generation > le64_get(journal->state.mount_generation))
		return refuse(identity, "it was mounted elsewhere meanwhile");
	/* The write of the newest one may have had no completion. */
	if (mount_generation < le64_get(journal->state.mount_generation) || generation < journal->state_generation ||
		generation > le64_get(journal->state.generation))
		return refuse(identity, "it is older than what was written last: a copy?");
	return 0;
}

/* The journal's last durable group lies where this mount wrote it: nothing overwrites it before the next one is there. */
static MAY_WAIT int check_journal(struct identity *identity)
{
	const struct journal *journal = identity->fs->journal;
	const struct journal_group *group = (const struct journal_group *)identity->block;
	if (journal->stats.groups == journal->groups_before || fs_read_only(identity->fs))
		return 0;
	const int error = identity_read(identity, journal->ring_first + journal->durable_group_block);
	if (error)
		return error;
	if (le32_get(group->magic) != FS_JOURNAL_MAGIC || le64_get(group->sequence) != journal->durable_sequence ||
		le64_get(group->mount_generation) != le64_get(journal->state.mount_generation) ||
		le32_get(group->crc) != journal->durable_crc)
		return refuse(identity, "its journal ends before what is known durable: a copy, or a drive that lost writes");
	return 0;
}

int fs_identity_check(struct fs *fs, fs_read_fn read, void *context, char *message, size_t message_size)
{
	struct identity identity = {.fs = fs, .read = read, .context = context, .block = malloc(FS_BLOCK_SIZE),
		.message = message, .message_size = message_size};
	int error = identity.block ? check_super(&identity) : -ENOMEM;
	if (!error)
		error = check_state(&identity);
	if (!error)
		error = check_journal(&identity);
	free(identity.block);
	return error;
}
