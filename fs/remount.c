/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Remounting: read-only and back, and the options that may change while mounted.
 *
 *   to read-only   FS_ENDING: no operation begins to change anything; those that run end
 *                  unlinked files that nobody uses are freed, access times logged, freed space discarded
 *                  FS_READ_ONLY: nothing is changed any more
 *                  checkpoint, state block clean, the log's fibers end; others may read the device
 *   to writable    the device is opened for writing; what a replay has left in memory goes home
 *                  state block not clean, with the next mount generation; the log's fibers start
 *                  FS_WRITABLE; unlinked files that a crash has left are freed
 *
 * Inodes, lookup counts and cached blocks stay as they are: whoever has files open does not notice.
 */
#include <inttypes.h>
#include <stdio.h>

#include "fs/discard.h"
#include "fs/inode_internal.h"
#include "fs/journal_internal.h"
#include "fs/op.h"
#include "fs/replay.h"

enum { FORGOTTEN_MS_MAX = 5000, FORGOTTEN_PAUSE_MS = 5 };

struct remount {
	struct fs *fs;
	char *message;
	size_t message_size;
};

static int complain(const struct remount *remount, int error, const char *what)
{
	snprintf(remount->message, remount->message_size, "%s: %s", remount->fs->bdev_name, what);
	return error;
}

static MAY_WAIT int on_owners(struct fs *fs, int (*fn)(void *owner))
{
	for (unsigned i = 0; i < fs->owner_count; i++) {
		const int error = reactor_call(fs->owners[i]->reactor, fn, fs->owners[i]);
		if (error)
			return error;
	}
	return 0;
}

/* ---- to read-only ---- */

static MAY_WAIT int drain_run(void *arg)
{
	op_drain(arg);
	return 0;
}

static MAY_WAIT int settle_run(void *arg)
{
	struct owner *owner = arg;
	const int error = inode_flush_times(owner);
	inode_reap_wait(owner);
	return error;
}

static int unlinked_run(void *arg)
{
	const struct owner *owner = arg;
	return owner->inodes->lookups.unlinked ? -EBUSY : 0;
}

/* Unlinked files that are in use could not be freed any more when they are not. The kernel looks for them too, but what it has
 * let go of may still be on its way. */
static MAY_WAIT int wait_for_unlinked(struct fs *fs)
{
	int error = on_owners(fs, unlinked_run);
	for (unsigned waited = 0; error == -EBUSY && waited < FORGOTTEN_MS_MAX; waited += FORGOTTEN_PAUSE_MS) {
		fiber_sleep(FORGOTTEN_PAUSE_MS * NS_PER_MS);
		error = on_owners(fs, unlinked_run);
	}
	return error;
}

static int set_write_run(void *arg)
{
	struct owner *owner = arg;
	return bdev_desc_set_write(owner->desc, true);
}

static int unset_write_run(void *arg)
{
	struct owner *owner = arg;
	return bdev_desc_set_write(owner->desc, false);
}

/* Others may read now, and nobody writes. */
static MAY_WAIT void release_device(struct fs *fs)
{
	int error = on_owners(fs, unset_write_run);
	if (!error)
		error = bdev_set_read_only(bdev_desc_bdev(fs->owners[0]->desc), true);
	if (error)
		log_warn("%s: is read-only, but stays locked for others: %s", fs->bdev_name, strerror(-error));
}

static MAY_WAIT int to_read_only(const struct remount *remount)
{
	struct fs *fs = remount->fs;
	if (fs->growing)
		return complain(remount, -EBUSY, "is growing: wait until that has ended");
	atomic_store(&fs->access, FS_ENDING);
	int error = on_owners(fs, drain_run);
	if (!error)
		error = wait_for_unlinked(fs);
	if (!error)
		error = on_owners(fs, settle_run);
	if (!error)
		error = journal_checkpoint(fs);
	if (!error)
		discards_drain(fs);
	if (error && !fs_stopped(fs)) {
		atomic_store(&fs->access, FS_WRITABLE);
		return complain(remount, error, error == -EBUSY ? "unlinked files are still open: close them first" : strerror(-error));
	}
	discards_stop(fs);
	atomic_store(&fs->access, FS_READ_ONLY);
	uint64_t free_blocks, used_inodes;
	fs_totals(fs, &free_blocks, &used_inodes);
	error = journal_finish(fs, free_blocks, used_inodes);
	error = fs_stopped(fs) ? fs_stopped(fs) : error;
	if (error)
		return complain(remount, error, fs_stopped(fs) ? fs->error_text : strerror(-error));
	release_device(fs);
	return 0;
}

/* ---- to writable ---- */

static const char *device_refusal(int error)
{
	switch (error) {
	case -EROFS: return "the device is write-protected, or its filesystem is read-only";
	case -EACCES: case -EPERM: return "there is no permission to write to the device";
	case -EBUSY: return "another process reads the device: end that first";
	case -ENODEV: return "the device is gone";
	default: return strerror(-error);
	}
}

static MAY_WAIT int claim_device(const struct remount *remount)
{
	struct fs *fs = remount->fs;
	if (le64_get(fs->super.ro_compat) & ~(uint64_t)FS_RO_COMPAT_KNOWN)
		return complain(remount, -EROFS, "has features that this lanefs can only read: use a newer lanefs");
	int error = bdev_set_read_only(bdev_desc_bdev(fs->owners[0]->desc), false);
	if (!error)
		error = on_owners(fs, set_write_run);
	return error ? complain(remount, error, device_refusal(error)) : 0;
}

static int nothing(void *arg) { return 0; }

/* Nobody looks at the images any more once every reactor has done something else: looking does not wait. */
static MAY_WAIT void drop_overlay(struct fs *fs)
{
	struct replay_image_table *overlay = fs->overlay;
	__atomic_store_n(&fs->overlay, NULL, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < fs->owner_count; i++)
		reactor_call_nowait(fs->owners[i]->reactor, nothing, NULL);
	replay_image_table_destroy(overlay);
}

static MAY_WAIT int reap_run(void *arg) { return inode_reap_start(arg); }

static MAY_WAIT int to_writable(const struct remount *remount)
{
	struct fs *fs = remount->fs;
	if (fs_stopped(fs))
		return complain(remount, -EROFS, "has stopped on an error: unmount it and run fsck.lanefs");
	int error = claim_device(remount);
	if (!error && fs->overlay)
		error = replay_write_home(fs, fs->overlay, fs->journal->durable_sequence, remount->message, remount->message_size);
	if (!error && (error = journal_run(fs)))
		complain(remount, error, "cannot write the state block");
	if (error) {
		release_device(fs);
		return error;
	}
	drop_overlay(fs);
	atomic_store(&fs->access, FS_WRITABLE);
	if (fs->unreaped && on_owners(fs, reap_run))
		log_warn("%s: no memory to free unlinked files now: the next mount does", fs->bdev_name);
	fs->unreaped = false;
	return 0;
}

/* ---- options ---- */

#define SET_OPTION(fs, name, value) __atomic_store_n(&(fs)->options.name, (value), __ATOMIC_RELAXED)

static void set_options(struct fs *fs, const struct fs_remount *wanted)
{
	SET_OPTION(fs, discard, wanted->discard);
	SET_OPTION(fs, noatime, wanted->noatime);
	SET_OPTION(fs, strictatime, wanted->strictatime);
	SET_OPTION(fs, sync, wanted->sync);
	SET_OPTION(fs, commit_ms, wanted->commit_ms ? wanted->commit_ms : FS_COMMIT_MS_DEFAULT);
}

int fs_remount(struct fs *fs, const struct fs_remount *wanted, char *message, size_t message_size)
{
	assert(reactor_self() == fs->owners[0]->reactor && fs_access(fs) != FS_ENDING);
	const struct remount remount = {.fs = fs, .message = message, .message_size = message_size};
	int error = 0;
	message[0] = '\0';
	if (wanted->read_only && fs_access(fs) == FS_WRITABLE)
		error = to_read_only(&remount);
	else if (!wanted->read_only && fs_access(fs) == FS_READ_ONLY)
		error = to_writable(&remount);
	if (error)
		return error;
	set_options(fs, wanted);
	if (!wanted->discard)
		discards_stop(fs);
	error = discards_start(fs);
	return error ? complain(&remount, error, "no memory for discarding") : 0;
}
