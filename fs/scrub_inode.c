/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * What an inode owns. Its lock is held (shared) for a stretch of STRETCH_BLOCKS or so, then others go first; the walk goes on
 * at the key where it was. Counts are compared only when nothing has changed the inode from the beginning to the end.
 */
#include "fs/scrub.h"

#include "fs/alloc_internal.h"
#include "fs/cache.h"
#include "fs/map.h"
#include "fs/op.h"
#include "fs/xattr.h"

enum { STRETCH_BLOCKS = 24, STRETCH_DATA = 1 << 20 };

struct walk {
	struct scrub *scrub;
	struct inode *inode;
	enum block_type type;           /* of the tree's nodes */
	uint64_t key;                   /* everything below is done */
	uint64_t nodes, blocks;         /* seen: of the tree; data */
	uint64_t entries, directories;  /* seen of a directory; those of its entries that name directories */
	unsigned budget;                /* blocks to be read in this stretch */
	uint64_t data_budget;           /* bytes */
	bool ended;
	int found;                      /* an error of a block: the rest of the inode is not looked at */
	struct level {
		uint64_t high;          /* end of the node's keys */
		unsigned next;          /* child behind the one that was taken */
	} level[FS_TREE_LEVEL_MAX + 1];
};

/* ---- data ---- */

/* Reads the file's blocks; names each one that cannot be. */
static MAY_WAIT int data_read(struct walk *walk, uint64_t logical, uint64_t physical, uint32_t count)
{
	struct scrub *scrub = walk->scrub;
	const struct owner *owner = scrub->owner;
	uint8_t *into = scrub_memory(scrub, SCRUB_BUFFERS);
	const uint32_t bytes = count << FS_BLOCK_SHIFT;
	int error = bdev_read(owner->channel, into, physical << FS_BLOCK_SHIFT, bytes);
	scrub->bytes += bytes;
	scrub_count(&scrub->stats.data_bytes, bytes);
	for (uint32_t i = 0; error && error != -ENODEV && i < count; i++) {
		error = bdev_read(owner->channel, into, (physical + i) << FS_BLOCK_SHIFT, FS_BLOCK_SIZE);
		if (error && error != -ENODEV)
			scrub_find_first(scrub, walk->inode->ino, physical + i, "file data at byte %llu, block %llu: cannot be read: %s",
				(unsigned long long)(logical + i) << FS_BLOCK_SHIFT, (unsigned long long)(physical + i),
				strerror(-error));
		error = error == -ENODEV || i + 1 == count ? error : -EIO;
	}
	return error == -ENODEV ? error : 0;
}

/* ---- extents ---- */

/* One extent, from walk->key on, as far as the stretch goes. */
static MAY_WAIT int extent_look(struct walk *walk, const struct disk_extent *extent)
{
	struct scrub *scrub = walk->scrub;
	const uint64_t logical = le64_get(extent->logical), skip = walk->key > logical ? walk->key - logical : 0;
	const bool data = scrub->options.data && !scrub->round && !(le32_get(extent->flags) & EXTENT_UNWRITTEN);
	const uint32_t room = data ? (uint32_t)(walk->data_budget >> FS_BLOCK_SHIFT) : UINT32_MAX;
	const uint32_t count = (uint32_t)MIN(le32_get(extent->length) - skip, (uint64_t)room);
	const uint64_t physical = le64_get(extent->physical) + skip;
	int error = scrub_claim(scrub, physical, count, true, walk->inode->ino);
	for (uint32_t done = 0, part; data && done < count && !error; done += part) {
		part = MIN(count - done, (uint32_t)(SCRUB_DATA_BYTES >> FS_BLOCK_SHIFT));
		error = data_read(walk, logical + skip + done, physical + done, part);
		if (!error)
			error = scrub_may_go_on(scrub);
	}
	walk->data_budget -= data ? (uint64_t)count << FS_BLOCK_SHIFT : 0;
	walk->blocks += count;
	walk->key = logical + skip + count;
	return error;
}

static MAY_WAIT int extents_look(struct walk *walk, const struct disk_extent *extents, unsigned count)
{
	int error = 0;
	for (unsigned i = 0; i < count && !error; i++)
		while (le64_get(extents[i].logical) + le32_get(extents[i].length) > walk->key && !error) {
			if (walk->data_budget < FS_BLOCK_SIZE)
				return -EAGAIN;
			walk->key = MAX(walk->key, le64_get(extents[i].logical));
			error = extent_look(walk, &extents[i]);
		}
	return error;
}

/* ---- trees ---- */

static void node_find(struct walk *walk, uint64_t block, const char *what)
{
	scrub_find_first(walk->scrub, walk->inode->ino, block, "%s, block %llu: bad %s", block_type_name(walk->type),
		(unsigned long long)block, what);
	walk->scrub->incomplete = true;
	walk->found = -EUCLEAN;
}

/* Keys of the node's records are in [low, high). */
static bool node_keys_fit(const struct tree_node *node, enum block_type type, uint64_t low, uint64_t high)
{
	const unsigned count = le16_get(node->count);
	const uint8_t *at = node->payload;
	for (unsigned i = 0; i < count; i++) {
		const uint64_t key = tree_record_key(at);
		if (key < low || key >= high)
			return false;
		at += le16_get(node->level) ? sizeof(struct tree_pointer) : tree_record_bytes(type, at);
	}
	return true;
}

/* Reads a node of the path; @low: of its keys. */
static MAY_WAIT int node_enter(struct walk *walk, unsigned level, uint64_t block, uint64_t low, uint64_t high)
{
	struct scrub *scrub = walk->scrub;
	const struct tree_node *node = (const struct tree_node *)scrub_memory(scrub, level);
	int error = scrub_block_locked(scrub, walk->inode->ino, block, walk->type, walk->inode->ino, scrub_memory(scrub, level));
	if (scrub_goes_on(error))
		walk->found = error;
	if (error)
		return error;
	walk->budget -= walk->budget > 0;
	error = scrub_claim(scrub, block, 1, false, walk->inode->ino);
	if (error)
		return error;
	walk->nodes += low == walk->key; /* it is seen for the first time */
	if (le16_get(node->level) != level)
		node_find(walk, block, "level");
	else if (!node_keys_fit(node, walk->type, low, high))
		node_find(walk, block, "key: outside of its parent's range");
	walk->level[level] = (struct level){.high = high};
	return walk->found;
}

static MAY_WAIT void entries_look(struct walk *walk, const uint8_t *records, unsigned bytes, uint64_t low, uint64_t high)
{
	struct scrub_entries entries = {.records = records, .bytes = bytes, .from = walk->key, .low = low, .high = high};
	scrub_entries(walk->scrub, walk->inode, &entries);
	walk->entries += entries.count;
	walk->directories += entries.directories;
}

static MAY_WAIT int leaf_look(struct walk *walk, uint64_t low, uint64_t high)
{
	const struct tree_node *node = (const struct tree_node *)scrub_memory(walk->scrub, 0);
	if (walk->type == BLOCK_EXTENT_NODE) {
		const int error = extents_look(walk, (const struct disk_extent *)node->payload, le16_get(node->count));
		if (error)
			return error;
	} else {
		entries_look(walk, node->payload, le16_get(node->bytes), low, high);
	}
	walk->key = high;
	return 0;
}

static unsigned child_of(const struct tree_node *node, uint64_t key)
{
	const struct tree_pointer *pointers = (const struct tree_pointer *)node->payload;
	unsigned slot = 0;
	for (unsigned i = 1; i < le16_get(node->count) && le64_get(pointers[i].key) <= key; i++)
		slot = i;
	return slot;
}

/* The leaf of walk->key, from the nodes of the path that hold it still. */
static MAY_WAIT int leaf_next(struct walk *walk, unsigned from)
{
	uint64_t low = 0, high = walk->level[from].high;
	int error = 0;
	for (unsigned level = from; level > 0 && !error; level--) {
		const struct tree_node *node = (const struct tree_node *)scrub_memory(walk->scrub, level);
		const struct tree_pointer *pointers = (const struct tree_pointer *)node->payload;
		const unsigned slot = child_of(node, walk->key);
		low = le64_get(pointers[slot].key);
		high = slot + 1 < le16_get(node->count) ? le64_get(pointers[slot + 1].key) : walk->level[level].high;
		error = node_enter(walk, level - 1, le64_get(pointers[slot].child), low, high);
	}
	return error ? error : leaf_look(walk, low, high);
}

/* A stretch of a tree. -EAGAIN: there is more. */
static MAY_WAIT int tree_stretch(struct walk *walk)
{
	const unsigned top = walk->inode->disk.fork_level;
	unsigned level = top;
	int error = node_enter(walk, top, tree_root(walk->inode), 0, UINT64_MAX);
	while (!error) {
		error = leaf_next(walk, level);
		if (error || walk->key == UINT64_MAX)
			return error;
		if (!walk->budget)
			return -EAGAIN;
		for (level = 0; level < top && walk->key >= walk->level[level].high; level++)
			;
		if (!level) /* a tree of one leaf */
			return 0;
		error = scrub_may_go_on(walk->scrub);
	}
	return error;
}

/* ---- xattrs ---- */

static MAY_WAIT int value_look(struct walk *walk, const struct disk_xattr *record)
{
	struct scrub *scrub = walk->scrub;
	const le64_t *blocks = (const le64_t *)(record->name + align_up(record->name_length, 8));
	const unsigned count = xattr_value_blocks(le32_get(record->value_length));
	int error = 0;
	for (unsigned i = 0; i < count && !error; i++) {
		const uint64_t block = le64_get(blocks[i]);
		error = scrub_block_locked(scrub, walk->inode->ino, block, BLOCK_XATTR_VALUE, walk->inode->ino,
			scrub_memory(scrub, SCRUB_OTHER));
		const struct xattr_value_block *value = (const struct xattr_value_block *)scrub_memory(scrub, SCRUB_OTHER);
		if (!error && le32_get(value->index) != i)
			scrub_find_first(scrub, walk->inode->ino, block, "xattr value block %llu: bad index", (unsigned long long)block);
		if (!error)
			error = scrub_claim(scrub, block, 1, false, walk->inode->ino);
		walk->blocks++;
	}
	return error;
}

static MAY_WAIT int records_look(struct walk *walk, const uint8_t *records, unsigned bytes)
{
	int error = 0;
	for (unsigned at = 0; at < bytes && !error;) {
		const struct disk_xattr *record = (const struct disk_xattr *)(records + at);
		error = value_look(walk, record);
		at += xattr_bytes(record->name_length, le32_get(record->value_length));
	}
	return error;
}

static MAY_WAIT int xattrs_look(struct walk *walk)
{
	struct scrub *scrub = walk->scrub;
	const struct inode *inode = walk->inode;
	const struct xattr_block *block = (const struct xattr_block *)scrub_memory(scrub, SCRUB_XATTR);
	uint64_t place = le64_get(inode->disk.xattr_block);
	int error = records_look(walk, inode->disk.fork + FS_FORK_BYTES - inode->disk.xattr_bytes, inode->disk.xattr_bytes);
	for (unsigned i = 0; place && !error; i++) {
		error = scrub_block_locked(scrub, inode->ino, place, BLOCK_XATTR, inode->ino, scrub_memory(scrub, SCRUB_XATTR));
		if (!error && i == XATTR_CHAIN_MAX) {
			scrub_find_first(scrub, inode->ino, place, "xattr blocks: a chain without end");
			error = -EUCLEAN;
		}
		if (!error)
			error = scrub_claim(scrub, place, 1, false, inode->ino);
		if (error)
			break;
		walk->blocks++;
		error = records_look(walk, block->records, le16_get(block->bytes));
		place = le64_get(block->next);
	}
	if (scrub_goes_on(error))
		walk->found = error;
	return error;
}

/* ---- the inode ---- */

/* One stretch under the lock. -EAGAIN: there is more. */
static MAY_WAIT int contents_stretch(struct walk *walk)
{
	const struct disk_inode *disk = &walk->inode->disk;
	walk->budget = STRETCH_BLOCKS;
	walk->data_budget = STRETCH_DATA;
	if (disk->format == FORK_TREE)
		return tree_stretch(walk);
	if (disk->format == FORK_EXTENTS)
		return extents_look(walk, (const struct disk_extent *)disk->fork, le16_get(disk->fork_count));
	/* It may have been a tree before, and empty meanwhile. */
	if (disk->format == FORK_INLINE && inode_is_dir(walk->inode))
		entries_look(walk, disk->fork, disk->fork_bytes, 0, UINT64_MAX);
	return 0;
}

/* What the walk has counted, when it saw one state of the inode. */
static void counts_compare(const struct walk *walk)
{
	const struct inode *inode = walk->inode;
	const struct disk_inode *disk = &inode->disk;
	const unsigned long long blocks = le64_get(disk->blocks), entries = le64_get(disk->rdev_or_entries);
	const unsigned long long counted = walk->blocks + walk->nodes;
	const unsigned links = le32_get(disk->nlink);
	if (blocks != counted)
		scrub_find_first(walk->scrub, inode->ino, 0, "blocks is %llu, it has %llu", blocks, counted);
	if (inode_is_dir(inode) && entries != walk->entries)
		scrub_find_first(walk->scrub, inode->ino, 0, "entries is %llu, it has %llu", entries, (unsigned long long)walk->entries);
	if (inode_is_dir(inode) && links && links != 2 + walk->directories)
		scrub_find_first(walk->scrub, inode->ino, 0, "nlink is %u, but it has %llu directories", links,
			(unsigned long long)walk->directories);
}

static MAY_WAIT int directory_parent(struct scrub *scrub, const struct inode *inode)
{
	if (!inode_is_dir(inode) || !le32_get(inode->disk.nlink) || scrub->round)
		return 0;
	const int error = scrub_inode_is(scrub, le64_get(inode->disk.parent), S_IFDIR >> 12);
	if (error == -ESTALE || error == -EUCLEAN)
		scrub_find_first(scrub, inode->ino, 0, "its parent, inode %llu, is no directory",
			(unsigned long long)le64_get(inode->disk.parent));
	return error == -ESTALE || scrub_goes_on(error) ? 0 : error;
}

static MAY_WAIT int walk_locked(struct walk *walk, uint64_t begun_part, bool *out_more)
{
	*out_more = false;
	if (walk->inode->dead)
		return 0;
	int error = contents_stretch(walk);
	*out_more = error == -EAGAIN;
	if (error)
		return *out_more ? 0 : error;
	error = xattrs_look(walk);
	if (!error)
		error = directory_parent(walk->scrub, walk->inode);
	if (!error && walk->inode->last_part == begun_part)
		counts_compare(walk);
	return error;
}

static MAY_WAIT int walk_all(struct walk *walk)
{
	struct scrub *scrub = walk->scrub;
	struct owner *owner = scrub->owner;
	const uint64_t begun_part = walk->inode->last_part;
	bool more = true;
	int error = 0;
	while (more && !error) {
		const unsigned turn = op_enter(owner);
		fiber_rwlock_read(&walk->inode->lock);
		error = walk_locked(walk, begun_part, &more);
		fiber_rwlock_unread(&walk->inode->lock);
		op_leave(owner, turn);
		if (!error || scrub_goes_on(error)) {
			const int ended = scrub_pause(scrub);
			error = ended ? ended : error;
		}
	}
	return scrub_goes_on(error) ? 0 : error;
}

int scrub_inode(struct scrub *scrub, uint64_t ino)
{
	struct owner *owner = scrub->owner;
	const uint64_t block = inode_block_of(scrub->fs, ino);
	bool ahead;
	const bool cached = cache_peek(owner, block, &ahead);
	struct walk walk = {.scrub = scrub};
	const int error = inode_get(owner, ino, &walk.inode);
	if (error == -ENOMEM || scrub_goes_on(error))
		scrub->incomplete = true;
	if (error)
		return error == -ESTALE || error == -ENOMEM || scrub_goes_on(error) ? 0 : error;
	const bool directory = inode_is_dir(walk.inode);
	walk.type = directory ? BLOCK_DIR_NODE : BLOCK_EXTENT_NODE;
	/* Else its slot was given to another since that was looked at: what a file has is new, and a directory's turn comes. */
	const bool has_turn = directory == atomic_load(&scrub->counting);
	int ended = has_turn ? walk_all(&walk) : 0;
	if (!ended && has_turn && directory && le32_get(walk.inode->disk.nlink))
		ended = scrub_leads_to_root(scrub, ino);
	inode_put(walk.inode);
	/* What others use stays in the cache. */
	if (!cached)
		cache_drop(owner, block);
	return ended;
}
