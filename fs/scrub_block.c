/* SPDX-License-Identifier: BSD-3-Clause */
/* One metadata block, as the device has it. */
#include "fs/scrub.h"

#include "fs/cache.h"
#include "fs/replay.h"

enum { TRIES = 8 };

/* From memory, where that is newer than the device. */
static bool ahead_take(struct scrub *scrub, uint64_t block, uint8_t *into)
{
	const struct replay_image_table *overlay = __atomic_load_n(&scrub->fs->overlay, __ATOMIC_ACQUIRE);
	const void *image = overlay ? replay_image(overlay, block) : NULL;
	bool ahead = false;
	const struct buf *buf = image ? NULL : cache_peek(scrub->owner, block, &ahead);
	if (!image && !ahead)
		return false;
	memcpy(into, image ? image : buf->data, FS_BLOCK_SIZE);
	scrub_count(&scrub->stats.ahead, 1);
	return true;
}

/* What is wrong with what was read. A clean block in the cache is what was written last. */
static const char *judge(const struct scrub *scrub, uint64_t block, enum block_type type, uint64_t owner_id, const uint8_t *read)
{
	bool ahead;
	const struct buf *buf = cache_peek(scrub->owner, block, &ahead);
	const size_t behind = sizeof(struct block_header);
	const char *field = block_verify(&scrub->fs->super, read, block, type, owner_id, true);
	if (!field && buf && memcmp(buf->data + behind, read + behind, FS_BLOCK_SIZE - behind))
		return "contents: older than what was written, a lost write";
	return field;
}

int scrub_block(struct scrub *scrub, uint64_t block, enum block_type type, uint64_t owner_id, uint8_t *into, const char **out_why)
{
	struct owner *owner = scrub->owner;
	for (unsigned tries = 0; tries < TRIES; tries++) {
		bool ahead;
		if (ahead_take(scrub, block, into)) {
			*out_why = block_verify(&scrub->fs->super, into, block, type, owner_id, false);
			return *out_why ? -EUCLEAN : 0;
		}
		const uint64_t writes = cache_home_writes(owner);
		const int error = bdev_read(owner->channel, into, block << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
		scrub->bytes += FS_BLOCK_SIZE;
		scrub_count(&scrub->stats.blocks, 1);
		if (error == -ENODEV)
			return error;
		scrub->unreadable += error != 0;
		cache_peek(owner, block, &ahead);
		if (ahead)
			continue;
		*out_why = error ? strerror(-error) : judge(scrub, block, type, owner_id, into);
		if (!*out_why)
			return 0;
		/* A write may have been under way, to this block or to what it was before. */
		if (cache_home_writes(owner) != writes)
			continue;
		return error ? -EIO : -EUCLEAN;
	}
	scrub->incomplete = true;
	return -EBUSY;
}

int scrub_block_locked(struct scrub *scrub, uint64_t ino, uint64_t block, enum block_type type, uint64_t owner_id, uint8_t *into)
{
	const char *why = NULL;
	const int error = scrub_block(scrub, block, type, owner_id, into, &why);
	if (error == -EUCLEAN || error == -EIO) {
		scrub->incomplete = true;
		scrub_find_first(scrub, ino, block, "%s, block %llu: %s%s", block_type_name(type), (unsigned long long)block,
			error == -EIO ? "cannot be read: " : "bad ", why);
	}
	return error;
}
