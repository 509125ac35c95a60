/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Mounting and unmounting: superblock (or its copy at the end of the device), owners on every reactor, replay, the log's
 * start; and back. Every failure leaves one line for the person who asked.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "fs/discard.h"
#include "fs/inode.h"
#include "fs/journal_internal.h"
#include "fs/legacy.h"
#include "fs/mkfs.h"
#include "fs/replay.h"

enum { CACHE_BYTES_DEFAULT = 32 << 20, INODES_CACHED_MAX = 32768 };

struct mount {
	struct fs *fs;
	char *message;
	size_t message_size;
};

static int complain(struct mount *mount, int error, const char *what)
{
	snprintf(mount->message, mount->message_size, "%s: %s", mount->fs->bdev_name, what);
	return error;
}

/* With the reason. */
static void complain_of(struct mount *mount, int error, const char *what)
{
	snprintf(mount->message, mount->message_size, "%s: %s: %s", mount->fs->bdev_name, what, strerror(-error));
}

/* ---- superblock ---- */

static MAY_WAIT int super_read(struct mount *mount, uint64_t block, uint64_t device_blocks, void *buffer, const char **field)
{
	struct fs *fs = mount->fs;
	const int error = bdev_read(fs->owners[0]->channel, buffer, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
	if (error) {
		memset(buffer, 0, FS_BLOCK_SIZE);
		*field = "cannot be read";
		return complain(mount, error, "cannot read the superblock: check the device");
	}
	*field = super_verify(buffer, block, device_blocks);
	return 0;
}

static int check_features(struct mount *mount, const struct fs_super *super)
{
	if (le32_get(super->version) != FS_FORMAT_VERSION) {
		snprintf(mount->message, mount->message_size, "%s: format version %u, this lanefs knows %u: use a newer lanefs",
			mount->fs->bdev_name, le32_get(super->version), FS_FORMAT_VERSION);
		return -EOPNOTSUPP;
	}
	const uint64_t incompat = le64_get(super->incompat) & ~(uint64_t)FS_INCOMPAT_KNOWN;
	const uint64_t ro_compat = le64_get(super->ro_compat) & ~(uint64_t)FS_RO_COMPAT_KNOWN;
	if (incompat || (ro_compat && !fs_read_only(mount->fs))) {
		snprintf(mount->message, mount->message_size, "%s: unknown feature bits 0x%" PRIx64 ": %s", mount->fs->bdev_name,
			incompat ? incompat : ro_compat, incompat ? "use a newer lanefs" : "mount read-only (-o ro) or use a newer lanefs");
		return -EOPNOTSUPP;
	}
	return 0;
}

/* Whole, ours, but not of a version that super_verify knows anything about. */
static bool other_version(const struct fs_super *super)
{
	return le64_get(super->magic) == FS_SUPER_MAGIC && le32_get(super->version) != FS_FORMAT_VERSION &&
		block_crc(super) == le32_get(super->header.crc);
}

static MAY_WAIT int super_load(struct mount *mount)
{
	struct fs *fs = mount->fs;
	const struct bdev_limits *limits = bdev_get_limits(bdev_desc_bdev(fs->owners[0]->desc));
	const uint64_t device_blocks = bdev_size_bytes(limits) >> FS_BLOCK_SHIFT;
	fs->volatile_cache = limits->volatile_cache;
	if (device_blocks < 64)
		return complain(mount, -EINVAL, "too small to be a lanefs: is this the right device?");
	uint8_t *buffer = dma_alloc(FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	if (!buffer)
		return complain(mount, -ENOMEM, "no memory");
	struct fs_super *super = (struct fs_super *)buffer;
	const char *field, *copy_field = NULL;
	int error = super_read(mount, FS_SUPER_BLOCK, device_blocks, buffer, &field);
	const int first_error = error;
	const bool ours = le64_get(super->magic) == FS_SUPER_MAGIC;
	const bool short_device = field && !error && ours && le64_get(super->block_count) > device_blocks &&
		!super_verify(super, FS_SUPER_BLOCK, le64_get(super->block_count));
	if (field && !short_device && !other_version(super)) {
		error = super_read(mount, device_blocks - 1, device_blocks, buffer, &copy_field);
		if (!error && !copy_field)
			log_warn("%s: superblock is damaged (%s), its copy at the end of the device is used: run fsck.lanefs",
				fs->bdev_name, field);
	}
	if (error) {
		/* said already */
	} else if (short_device) {
		error = -EINVAL;
		snprintf(mount->message, mount->message_size, "%s: the filesystem has %" PRIu64 " blocks, the device only %" PRIu64
			": the image was cut off", fs->bdev_name, le64_get(super->block_count), device_blocks);
	} else if (other_version(super)) {
		error = check_features(mount, super);
	} else if (copy_field && first_error) {
		error = first_error;
	} else if (field && copy_field) {
		error = ours ? -EUCLEAN : -EINVAL;
		snprintf(mount->message, mount->message_size, ours ? "%s: superblock is damaged (%s): run fsck.lanefs"
			: "%s: no lanefs filesystem found (%s): format it with mkfs.lanefs, or name another device", fs->bdev_name, field);
	} else {
		error = check_features(mount, super);
		fs->super = *super;
	}
	dma_free(buffer);
	return error;
}

/* ---- owners ---- */

static void device_event(enum bdev_event event, struct bdev_desc *desc, void *arg)
{
	struct owner *owner = arg;
	if (event == BDEV_EVENT_REMOVED)
		fs_stop(owner->fs, -ENODEV, 0, "the device is gone");
}

static MAY_WAIT int owner_open(void *arg)
{
	struct owner *owner = arg;
	struct fs *fs = owner->fs;
	const int error = bdev_open(fs->registry, fs->bdev_name, !fs_read_only(fs), device_event, owner, &owner->desc);
	return error ? error : bdev_channel_get(owner->desc, &owner->channel);
}

static int owner_fill(void *arg)
{
	struct owner *owner = arg;
	struct fs *fs = owner->fs;
	int error = cache_create(owner, fs->options.cache_bytes / fs->owner_count);
	if (!error)
		error = tx_pool_create(owner);
	if (!error)
		error = alloc_create(owner);
	if (!error)
		error = inode_table_create(
			owner, (fs->options.inodes_max ? fs->options.inodes_max : INODES_CACHED_MAX) / fs->owner_count);
	return error;
}

static void owner_free(struct owner *owner)
{
	inode_table_destroy(owner);
	discard_destroy(owner);
	alloc_destroy(owner);
	tx_pool_destroy(owner);
	cache_destroy(owner);
	stream_destroy(owner);
}

static MAY_WAIT int owner_close(void *arg)
{
	struct owner *owner = arg;
	if (owner->channel)
		bdev_channel_put(owner->channel);
	if (owner->desc)
		bdev_close(owner->desc);
	owner->channel = NULL;
	owner->desc = NULL;
	return 0;
}

static int owner_free_run(void *arg)
{
	owner_free(arg);
	return 0;
}

static MAY_WAIT int for_each_owner(struct fs *fs, int (*fn)(void *owner))
{
	int first = 0;
	for (unsigned i = 0; i < fs->owner_count; i++) {
		struct owner *owner = fs->owners[i];
		const int error = owner ? reactor_call(owner->reactor, fn, owner) : 0;
		first = first ? first : error;
	}
	return first;
}

static void fs_free(struct fs *fs)
{
	for (unsigned i = 0; i < fs->owner_count; i++)
		free(fs->owners[i]);
	replay_image_table_destroy(fs->overlay);
	fs_scrub_destroy(fs);
	free(fs);
}

/* To an owner and back, behind every message that the two have sent each other before. */
struct echo {
	struct message message;
	struct reactor *home;
	struct fiber *fiber;
	bool back;
};

static void echo_returned(struct message *message)
{
	struct echo *echo = CONTAINER_OF(message, struct echo, message);
	echo->back = true;
	fiber_wake(echo->fiber);
}

static void echo_arrived(struct message *message)
{
	message->fn = echo_returned;
	reactor_send(CONTAINER_OF(message, struct echo, message)->home, message);
}

/* Messages lie in what is about to be freed: waits until none is on its way any more. Nobody sends new ones by now, but one
 * that arrives may be answered (credit that is called back, a note with newer numbers), hence more than one round. */
static MAY_WAIT void drain_messages(struct fs *fs)
{
	enum { ROUNDS = 4 };
	for (unsigned round = 0; round < ROUNDS || atomic_load(&fs->stop_messages) || !journal_quiet(fs); round++)
		for (unsigned i = 0; i < fs->owner_count; i++) {
			struct echo echo = {.message.fn = echo_arrived, .home = reactor_self(), .fiber = fiber_self()};
			reactor_send(fs->owners[i]->reactor, &echo.message);
			while (!echo.back)
				fiber_park("the last messages of a mount");
		}
}

static MAY_WAIT void fs_close(struct fs *fs)
{
	discards_stop(fs);
	for_each_owner(fs, owner_close);
	drain_messages(fs);
	journal_destroy(fs);
	for_each_owner(fs, owner_free_run);
	fs_free(fs);
}

void fs_abandon(struct fs *fs)
{
	journal_destroy(fs);
	for (unsigned i = 0; i < fs->owner_count; i++)
		owner_free(fs->owners[i]);
	fs_free(fs);
}

/* ---- totals after a crash ---- */

enum { HEADER_BATCH = 64 };

struct header_scan {
	struct io io[HEADER_BATCH];
	uint8_t *buffer;
};

static MAY_WAIT int headers_batch(struct fs *fs, struct header_scan *scan, uint32_t first, uint32_t count)
{
	struct io_group group;
	io_group_init(&group);
	for (uint32_t i = 0; i < count; i++) {
		io_prepare(&scan->io[i], fs->owners[0]->channel, IO_READ, scan->buffer + (uint64_t)i * FS_BLOCK_SIZE,
			ag_first_block(&fs->super, first + i) << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
		io_group_submit(&group, &scan->io[i]);
	}
	const int error = io_group_wait(&group);
	for (uint32_t i = 0; i < count && !error; i++) {
		const uint64_t block = ag_first_block(&fs->super, first + i);
		const void *image = fs->overlay ? replay_image(fs->overlay, block) : NULL;
		const struct ag_header *header = image ? image : scan->buffer + (uint64_t)i * FS_BLOCK_SIZE;
		const char *field = block_verify(&fs->super, header, block, BLOCK_AG_HEADER, first + i, !image);
		if (field) {
			fs_corrupt(fs, block, field); /* what needs this AG answers EUCLEAN; the rest works */
			continue;
		}
		fs->free_blocks_at_mount += le32_get(header->free_blocks);
		fs->used_inodes_at_mount += le32_get(header->used_inodes);
	}
	return error;
}

static MAY_WAIT int sum_headers(struct fs *fs)
{
	struct header_scan *scan = malloc(sizeof(*scan));
	if (!scan)
		return -ENOMEM;
	scan->buffer = dma_alloc(HEADER_BATCH * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	int error = scan->buffer ? 0 : -ENOMEM;
	const uint32_t total = le32_get(fs->super.ag_count);
	for (uint32_t ag = 0; ag < total && !error; ag += HEADER_BATCH)
		error = headers_batch(fs, scan, ag, MIN(total - ag, (uint32_t)HEADER_BATCH));
	if (scan->buffer)
		dma_free(scan->buffer);
	free(scan);
	return error;
}

/* ---- mount and unmount ---- */

static struct fs *fs_new(struct bdev_registry *registry, const char *bdev_name, const struct fs_mount_options *options)
{
	struct fs *fs = calloc(1, sizeof(*fs));
	if (!fs || fs_scrub_create(fs)) {
		free(fs);
		return NULL;
	}
	fs->registry = registry;
	fs->options = *options;
	atomic_init(&fs->access, options->read_only ? FS_READ_ONLY : FS_WRITABLE);
	fs->options.cache_bytes = options->cache_bytes ? options->cache_bytes : CACHE_BYTES_DEFAULT;
	fs->options.commit_ms = options->commit_ms ? options->commit_ms : FS_COMMIT_MS_DEFAULT;
	fs->group = reactor_group_of(reactor_self());
	fs->owner_count = reactor_group_count(fs->group);
	snprintf(fs->bdev_name, sizeof(fs->bdev_name), "%s", bdev_name);
	for (unsigned i = 0; i < fs->owner_count; i++) {
		struct owner *owner = calloc(1, sizeof(*owner));
		fs->owners[i] = owner;
		if (owner) {
			owner->fs = fs;
			owner->index = i;
			owner->reactor = reactor_group_get(fs->group, i);
			fiber_cond_init(&owner->gate);
			fiber_cond_init(&owner->drained);
		}
		if (!owner || stream_create(owner)) {
			for (unsigned j = 0; j <= i && fs->owners[j]; j++)
				stream_destroy(fs->owners[j]);
			fs_free(fs);
			return NULL;
		}
	}
	return fs;
}

static MAY_WAIT int reap_start(void *arg) { return inode_reap_start(arg); }

static MAY_WAIT int reap_wait(void *arg)
{
	struct owner *owner = arg;
	if (owner->inodes)
		inode_reap_wait(owner);
	return 0;
}

static MAY_WAIT int bring_up(struct mount *mount)
{
	struct fs *fs = mount->fs;
	int error = for_each_owner(fs, owner_open);
	if (error) {
		snprintf(mount->message, mount->message_size, "%s: cannot open the device: %s", fs->bdev_name, strerror(-error));
		return error;
	}
	error = super_load(mount);
	if (error)
		return error;
	struct replay_result *replay = calloc(1, sizeof(*replay));
	if (!replay)
		return complain(mount, -ENOMEM, "no memory");
	error = journal_replay(fs, replay, mount->message, mount->message_size);
	if (!error && (error = for_each_owner(fs, owner_fill)))
		complain(mount, error, "no memory for the metadata cache: give -o cache= a smaller size");
	if (!error && fs->options.legacy)
		error = legacy_take(fs, replay->next_sequence - 1, mount->message, mount->message_size);
	atomic_store(&fs->open_ag_count, le32_get(fs->super.ag_count));
	atomic_store(&fs->usable_blocks, mkfs_usable_blocks(&fs->super));
	if (!error && replay->was_clean) {
		fs->free_blocks_at_mount = replay->free_blocks;
		fs->used_inodes_at_mount = replay->used_inodes;
	} else if (!error && (error = sum_headers(fs))) {
		complain_of(mount, error, "cannot read the allocation group headers");
	}
	if (!error && (error = journal_start(fs, replay)))
		complain_of(mount, error, "cannot write the state block");
	if (!error && le32_get(replay->state.error_code))
		log_warn("%s: an error is on record (%.*s): run fsck.lanefs", fs->bdev_name,
			(int)sizeof(replay->state.error_text), replay->state.error_text);
	if (!error && (error = discards_start(fs)))
		complain(mount, error, "no memory for discarding");
	if (replay->groups && !error)
		log_info("%s: replayed %" PRIu64 " journal groups (%" PRIu64 " records)%s", fs->bdev_name, replay->groups, replay->records,
			fs_read_only(fs) ? " in memory" : "");
	fs->unreaped = !replay->was_clean && fs_read_only(fs);
	if (!error && !replay->was_clean && !fs_read_only(fs) && (error = for_each_owner(fs, reap_start)))
		complain_of(mount, error, "cannot start to free unlinked files");
	free(replay);
	return error;
}

/* A mount that failed on its way, with the log's fibers and reapers running or not. */
static MAY_WAIT void give_up(struct fs *fs, int error)
{
	int expected = 0;
	if (fs->journal) {
		if (atomic_compare_exchange_strong(&fs->stopped, &expected, error)) {
			fs->shut_down = true; /* no fault of the filesystem: nothing to record */
			journal_stop(fs);
		}
		for_each_owner(fs, reap_wait);
		journal_finish(fs, 0, 0);
	}
	fs_close(fs);
}

int fs_mount(struct bdev_registry *registry, const char *bdev_name, const struct fs_mount_options *options, struct fs **out,
	char *message, size_t message_size)
{
	struct fs *fs = fs_new(registry, bdev_name, options);
	if (!fs) {
		snprintf(message, message_size, "%s: no memory", bdev_name);
		return -ENOMEM;
	}
	assert(reactor_self() == fs->owners[0]->reactor);
	message[0] = '\0';
	struct mount mount = {.fs = fs, .message = message, .message_size = message_size};
	int error = bring_up(&mount);
	if (!error && (error = fs_stopped(fs)))
		snprintf(message, message_size, "%s: %s", bdev_name, fs->error_text);
	if (error) {
		if (!message[0])
			complain(&mount, error, strerror(-error));
		give_up(fs, error);
		return error;
	}
	fs->mounted = true;
	*out = fs;
	return 0;
}

static MAY_WAIT int owner_quiet(void *arg)
{
	struct owner *owner = arg;
	if (owner->fs->leaving)
		inode_table_quiet(owner);
	else
		inode_table_forget_all(owner);
	const int error = inode_flush_times(owner);
	inode_reap_wait(owner);
	return error;
}

static MAY_WAIT int end(struct fs *fs)
{
	for_each_owner(fs, owner_quiet);
	uint64_t free_blocks, used_inodes;
	int error = fs_read_only(fs) ? 0 : journal_checkpoint(fs);
	if (!fs->leaving)
		discards_drain(fs);
	for (unsigned i = 0; i < fs->owner_count && fs->leaving; i++)
		fs->leaves_unlinked |= inode_lookup_unlinked(fs->owners[i]) > 0;
	fs_totals(fs, &free_blocks, &used_inodes);
	const int finish_error = journal_finish(fs, free_blocks, used_inodes);
	return fs_stopped(fs) ? fs_stopped(fs) : error ? error : finish_error;
}

int fs_unmount(struct fs *fs)
{
	const int error = end(fs);
	fs_close(fs);
	return error;
}

int fs_leave(struct fs *fs, struct fs_legacy *legacy)
{
	fs->leaving = true;
	const int error = end(fs);
	memcpy(legacy->uuid, fs->super.uuid, sizeof(legacy->uuid));
	legacy->durable_sequence = fs->journal->durable_sequence;
	fs_close(fs);
	return error;
}
