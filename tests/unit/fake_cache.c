/* SPDX-License-Identifier: BSD-3-Clause */
/* See fake_tx.h: blocks, pins, dirty ranges, and inodes. */
#include "tests/unit/fake_internal.h"

#include "fs/op.h"
#include "fs/tree.h"

/* ---- blocks ---- */

void fake_block_compare(const struct fake_block *block)
{
	if (!block->buf.valid || block->buf.dead)
		return;
	for (unsigned i = sizeof(struct block_header); i < FS_BLOCK_SIZE; i++)
		if (block->buf.data[i] != block->snapshot[i])
			fail_msg("block %lu, byte %u was changed without tx_dirty", (unsigned long)block->buf.block, i);
}

void fake_block_drop(struct fake_block *block)
{
	CHECK(!block->buf.pins);
	free(block->buf.data);
	free(block->snapshot);
	block->snapshot = NULL;
	block->buf = (struct buf){0};
}

const void *fake_block(uint64_t block)
{
	return fake_blocks[block].buf.valid ? fake_blocks[block].buf.data : NULL;
}

struct buf *buf_find(struct owner *owner, uint64_t block)
{
	struct buf *buf = &fake_blocks[block].buf;

	if (!buf->valid || buf->dead)
		return NULL;
	buf->pins++;
	return buf;
}

MAY_WAIT int buf_get(struct owner *owner, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out)
{
	const int error = fake_failing();

	if (error)
		return error;
	*out = buf_find(owner, block);
	CHECK(*out);
	CHECK_NULL(block_verify(&fake.fs.super, (*out)->data, block, type, owner_id, false));
	return 0;
}

void buf_put(struct owner *owner, struct buf *buf)
{
	CHECK(buf->pins);
	buf->pins--;
}

static struct touched *pin_find(struct tx_part *part, const struct buf *buf)
{
	for (unsigned i = 0; i < part->pin_count; i++)
		if (part->pins[i].buf == buf)
			return &part->pins[i];
	return NULL;
}

static void pin_add(struct tx_part *part, struct buf *buf)
{
	if (pin_find(part, buf)) {
		buf_put(part->owner, buf);
		return;
	}
	CHECK(part->pin_count < TX_PINS_MAX);
	part->pins[part->pin_count++] = (struct touched){.buf = buf};
}

MAY_WAIT int tx_pin(struct tx_part *part, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out)
{
	CHECK(fake.in_prepare);
	const int error = buf_get(part->owner, block, type, owner_id, out);
	if (!error)
		pin_add(part, *out);
	return error;
}

MAY_WAIT int tx_pin_new(struct tx_part *part, uint64_t block, enum block_type type, uint64_t owner_id, struct buf **out)
{
	struct fake_block *fresh = &fake_blocks[block];
	const int error = fake_failing();

	CHECK(fake.in_prepare && !fresh->free && !fresh->buf.valid);
	if (error)
		return error;
	fresh->buf = (struct buf){.block = block, .type = (uint16_t)type, .owner_id = owner_id, .valid = true};
	fresh->buf.pins = 1;
	fresh->buf.data = calloc(1, FS_BLOCK_SIZE);
	fresh->snapshot = calloc(1, FS_BLOCK_SIZE);
	block_header_init(fresh->buf.data, type, block, le64_get(fake.fs.super.fsid), owner_id);
	*out = &fresh->buf;
	pin_add(part, *out);
	return 0;
}

static void snapshot_take(struct fake_block *block, const struct touched *touched)
{
	for (unsigned i = 0; i < touched->range_count; i++)
		memcpy(block->snapshot + touched->range[i].start, block->buf.data + touched->range[i].start,
			touched->range[i].end - touched->range[i].start);
}

static void range_add(struct touched *touched, unsigned start, unsigned end)
{
	for (unsigned i = 0; i < touched->range_count; i++) {
		if (start > touched->range[i].end || touched->range[i].start > end)
			continue;
		touched->range[i].start = (uint16_t)MIN(start, touched->range[i].start);
		touched->range[i].end = (uint16_t)MAX(end, touched->range[i].end);
		return;
	}
	/* More ranges than there is room for: the real one joins the nearest; here the last one grows. */
	if (touched->range_count == TX_RANGES_MAX) {
		touched->range[TX_RANGES_MAX - 1].start = (uint16_t)MIN(start, touched->range[TX_RANGES_MAX - 1].start);
		touched->range[TX_RANGES_MAX - 1].end = (uint16_t)MAX(end, touched->range[TX_RANGES_MAX - 1].end);
		return;
	}
	touched->range[touched->range_count].start = (uint16_t)start;
	touched->range[touched->range_count++].end = (uint16_t)end;
}

void tx_dirty(struct tx_part *part, struct buf *buf, unsigned offset, unsigned length)
{
	struct touched *touched = pin_find(part, buf);

	CHECK(fake.in_apply && touched && !buf->dead && length && offset + length <= FS_BLOCK_SIZE);
	fake.dirty_bytes += length;
	range_add(touched, offset, offset + length);
}

/* When the apply step is over, since a range may be named before it is written. */
void fake_snapshots_take(struct tx_part *part)
{
	for (unsigned i = 0; i < part->pin_count; i++)
		if (!part->pins[i].buf->dead)
			snapshot_take(&fake_blocks[part->pins[i].buf->block], &part->pins[i]);
}

void tx_kill(struct tx_part *part, struct buf *buf)
{
	CHECK(fake.in_apply && pin_find(part, buf) && fake_blocks[buf->block].freed_now && !buf->dead);
	buf->dead = true;
}

/* ---- inodes ---- */

struct inode *fake_inode(uint32_t mode)
{
	struct inode *inode = &fake.inodes[fake.inode_count];

	CHECK(fake.inode_count < FAKE_INODES_MAX);
	memset(inode, 0, sizeof(*inode));
	inode->owner = &fake.owner;
	inode->refs = 1;
	inode->ino = ino_make(0, ag_fixed_blocks(&fake.fs.super), fake.inode_count + 1);
	inode->disk.mode = le16_set((uint16_t)mode);
	inode->disk.nlink = le32_set(S_ISDIR(mode) ? 2 : 1);
	inode->disk.generation = le32_set(1);
	inode->disk.format = S_ISREG(mode) ? FORK_EXTENTS : FORK_INLINE;
	if (S_ISDIR(mode))
		inode->disk.parent = le64_set(FS_ROOT_INODE);
	fake.logged[fake.inode_count++] = inode->disk;
	return inode;
}

void fake_inodes_check(void)
{
	for (unsigned i = 0; i < fake.inode_count; i++) {
		CHECK_NULL(inode_verify(&fake.fs.super, &fake.inodes[i].disk, fake.inodes[i].ino));
		assert_memory_equal(&fake.inodes[i].disk, &fake.logged[i], sizeof(struct disk_inode));
	}
}

MAY_WAIT int inode_pin(struct tx_part *part, struct inode *inode)
{
	CHECK(fake.in_prepare);
	inode->loading = true; /* stands for: pinned in this transaction */
	return fake_failing();
}

void inode_log(struct tx_part *part, struct inode *inode)
{
	CHECK(fake.in_apply && inode->loading);
	inode->loading = false;
	fake.logged[inode - fake.inodes] = inode->disk;
}

void inode_touch(struct inode *inode, unsigned times, struct timespec now)
{
	CHECK(fake.in_apply);
	if (times & INODE_MTIME) {
		inode->disk.mtime_sec = le64_set((uint64_t)now.tv_sec);
		inode->disk.mtime_nsec = le32_set((uint32_t)now.tv_nsec);
	}
	if (times & INODE_CTIME) {
		inode->disk.ctime_sec = le64_set((uint64_t)now.tv_sec);
		inode->disk.ctime_nsec = le32_set((uint32_t)now.tv_nsec);
	}
}

void inode_blocks_add(struct inode *inode, int64_t blocks)
{
	CHECK(fake.in_apply);
	inode->disk.blocks = le64_set(le64_get(inode->disk.blocks) + (uint64_t)blocks);
}

MAY_WAIT int inode_get(struct owner *owner, uint64_t ino, struct inode **out)
{
	const int error = fake_failing();

	if (error)
		return error;
	for (unsigned i = 0; i < fake.inode_count; i++) {
		if (fake.inodes[i].ino != ino)
			continue;
		*out = &fake.inodes[i];
		(*out)->refs++;
		return 0;
	}
	return -ESTALE;
}

void inode_put(struct inode *inode)
{
	CHECK(inode->refs > 1);
	inode->refs--;
}

MAY_WAIT int inode_lock_many(struct fs *fs, struct inode_lock *locks, unsigned count)
{
	CHECK(count == 1);
	const int error = inode_get(&fake.owner, locks[0].ino, &locks[0].inode);
	if (error)
		return error;
	CHECK(!locks[0].inode->lock.writer);
	locks[0].inode->lock.writer = true;
	return 0;
}

MAY_WAIT void inode_unlock_many(struct fs *fs, struct inode_lock *locks, unsigned count)
{
	CHECK(locks[0].inode->lock.writer);
	locks[0].inode->lock.writer = false;
	inode_put(locks[0].inode);
}

void fiber_rwlock_write(struct fiber_rwlock *lock)
{
	CHECK(!lock->writer);
	lock->writer = true;
}

void fiber_rwlock_unwrite(struct fiber_rwlock *lock)
{
	CHECK(lock->writer);
	lock->writer = false;
}

/* ---- operations ---- */

MAY_WAIT struct op *op_begin(struct owner *owner)
{
	struct op *op = calloc(1, sizeof(*op));

	op->owner = owner;
	return op;
}

void op_end(struct op *op)
{
	free(op);
}

void *op_memory(struct op *op, size_t bytes)
{
	CHECK(bytes <= OP_BYTES);
	return memset(op->memory, 0, bytes);
}

MAY_WAIT bool op_retry_enospc(struct op *op)
{
	return false;
}

MAY_WAIT int op_finish(struct owner *owner, uint32_t inode_flags)
{
	return 0;
}

/* ---- the rest of the house ---- */

int fs_corrupt(struct fs *fs, uint64_t block, const char *field)
{
	atomic_fetch_add(&fs->corrupt_blocks, 1);
	return -EUCLEAN;
}

uint64_t reactor_wall_ns(void) { return 1700000000ull * NS_PER_SEC + ++fake.random % NS_PER_SEC; }
struct reactor *reactor_self(void) { return NULL; }
unsigned reactor_index(const struct reactor *reactor) { return 0; }

/* ---- walking a tree ---- */

struct level {
	const struct tree_node *node;
	uint64_t low, high;
	unsigned next;
};

static void level_enter(struct level *levels, unsigned at, uint64_t block, const struct inode *inode,
	enum block_type type)
{
	levels[at].node = fake_block(block);
	levels[at].next = 0;
	CHECK(levels[at].node && !fake_blocks[block].free);
	CHECK_NULL(block_verify(&fake.fs.super, levels[at].node, block, type, inode->ino, false));
	assert_int_equal(le16_get(levels[at].node->level), at);
	CHECK(le16_get(levels[at].node->count) || (!at && !inode->disk.fork_level));
	CHECK(le16_get(levels[at].node->bytes) <= fake.node_bytes);
	const struct tree_pointer *pointers = (const struct tree_pointer *)levels[at].node->payload;
	if (at)
		assert_int_equal(le64_get(pointers[0].key), levels[at].low);
	CHECK(!at || le64_get(pointers[le16_get(levels[at].node->count) - 1].key) < levels[at].high);
}

unsigned fake_tree_check(const struct inode *inode, enum block_type type, fake_leaf_fn leaf, void *arg)
{
	struct level levels[FS_TREE_LEVEL_MAX + 1] = {0};
	const unsigned top = inode->disk.fork_level;
	unsigned at = top, nodes = 1;

	levels[top].high = UINT64_MAX;
	level_enter(levels, top, tree_root(inode), inode, type);
	for (;;) {
		struct level *level = &levels[at];
		const struct tree_pointer *pointers = (const struct tree_pointer *)level->node->payload;
		const unsigned count = le16_get(level->node->count);
		if (!at)
			leaf(level->node, level->low, level->high, arg);
		if (!at || level->next == count) {
			if (at++ == top)
				return nodes;
			continue;
		}
		const unsigned i = level->next++;
		levels[at - 1].low = le64_get(pointers[i].key);
		levels[at - 1].high = i + 1 < count ? le64_get(pointers[i + 1].key) : level->high;
		level_enter(levels, --at, le64_get(pointers[i].child), inode, type);
		nodes++;
	}
}
