/* SPDX-License-Identifier: BSD-3-Clause */
#include "fsck_image.h"

#include <isa-l/crc.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <xxhash.h>

#include "fs/mkfs.h"

static const uint64_t fsid = 0x1122334455667788, journal_id = 0x99aabbccddeeff00;

void *sample_block(struct sample *sample, uint64_t block) { return sample->data + block * FS_BLOCK_SIZE; }
struct fs_super *sample_super(struct sample *sample) { return sample_block(sample, FS_SUPER_BLOCK); }

struct fs_state *sample_state(struct sample *sample)
{
	struct fs_state *a = sample_block(sample, FS_STATE_BLOCK_A), *b = sample_block(sample, FS_STATE_BLOCK_B);
	return le64_get(a->generation) > le64_get(b->generation) ? a : b;
}

struct ag_header *sample_ag(struct sample *sample, uint32_t ag)
{
	return sample_block(sample, ag_first_block(sample_super(sample), ag));
}

struct map_block *sample_map(struct sample *sample, uint32_t ag, unsigned map)
{
	return sample_block(sample, ag_first_block(sample_super(sample), ag) + FS_AG_MAPS_FIRST + map);
}

uint64_t sample_inode_block(const struct sample *sample, uint64_t ino)
{
	if (ino == FS_ROOT_INODE)
		return sample->inode_block[0];
	return SAMPLE_AG_FIRST + (uint64_t)ino_ag(ino) * FS_AG_BLOCKS_MIN + ino_ag_block(ino);
}

struct disk_inode *sample_inode(struct sample *sample, uint64_t ino)
{
	struct inode_block *block = sample_block(sample, sample_inode_block(sample, ino));
	return &block->inode[ino == FS_ROOT_INODE ? 0 : ino_slot(ino)];
}

static uint32_t image_crc(const void *data, size_t length, size_t crc_at)
{
	uint8_t *copy = malloc(length);
	memcpy(copy, data, length);
	memset(copy + crc_at, 0, sizeof(uint32_t));
	uint32_t crc = ~crc32_iscsi(copy, (int)length, ~0u);
	free(copy);
	return crc;
}

void sample_seal(struct sample *sample, void *inside)
{
	uint64_t block = (uint64_t)((uint8_t *)inside - sample->data) / FS_BLOCK_SIZE;
	struct block_header *header = sample_block(sample, block);
	header->crc = le32_set(image_crc(header, FS_BLOCK_SIZE, offsetof(struct block_header, crc)));
}

static void header_init(void *block, enum block_type type, uint64_t number, uint64_t owner)
{
	struct block_header *header = block;
	header->magic = le32_set(FS_BLOCK_MAGIC);
	header->type = le16_set((uint16_t)type);
	header->block = le64_set(number);
	header->fsid = le64_set(fsid);
	header->owner = le64_set(owner);
}

static void metadata_add(struct sample *sample, uint64_t block)
{
	assert(sample->metadata_count < ARRAY_SIZE(sample->metadata));
	sample->metadata[sample->metadata_count++] = (uint16_t)block;
}

/* Writes the maps of an AG that mkfs left unwritten. */
static void maps_write(struct sample *sample, uint32_t ag)
{
	struct ag_header *header = sample_ag(sample, ag);
	uint64_t first = ag_first_block(sample_super(sample), ag);
	if (le64_get(header->block_map_ready))
		return;
	for (unsigned map = 0; map < 3; map++) {
		struct map_block *block = sample_map(sample, ag, map);
		memset(block, 0, sizeof(*block));
		header_init(block, BLOCK_BLOCK_MAP + map, first + FS_AG_MAPS_FIRST + map, ag);
		metadata_add(sample, first + FS_AG_MAPS_FIRST + map);
	}
	struct map_block *block_map = sample_map(sample, ag, 0);
	block_map->bits[0] = 0x1f; /* header, superblock copy, three maps */
	memset(block_map->bits + FS_AG_BLOCKS_MIN / 8, 0xff, FS_MAP_BYTES - FS_AG_BLOCKS_MIN / 8);
	header->block_map_ready = header->inode_map_ready = header->inode_free_map_ready = le64_set(1);
}

static void count_add(le32_t *count, uint32_t difference) { *count = le32_set(le32_get(*count) + difference); }

uint64_t sample_take(struct sample *sample, uint32_t ag, unsigned type, uint64_t owner)
{
	maps_write(sample, ag);
	uint32_t at = sample->next_block[ag]++;
	uint64_t number = ag_first_block(sample_super(sample), ag) + at;
	struct map_block *map = sample_map(sample, ag, 0);
	map->bits[at / 8] |= (uint8_t)(1u << at % 8);
	count_add(&sample_ag(sample, ag)->free_blocks, -1u);
	memset(sample_block(sample, number), type ? 0 : 0xa5, FS_BLOCK_SIZE);
	if (type) {
		header_init(sample_block(sample, number), type, number, owner);
		metadata_add(sample, number);
	}
	return number;
}

static uint64_t inode_take(struct sample *sample, uint32_t ag, unsigned mode)
{
	if (!sample->inode_block[ag]) {
		sample->inode_block[ag] = sample_take(sample, ag, BLOCK_INODES, ag);
		uint32_t at = (uint32_t)(sample->inode_block[ag] - ag_first_block(sample_super(sample), ag));
		for (unsigned map = 1; map < 3; map++)
			sample_map(sample, ag, map)->bits[at / 8] |= (uint8_t)(1u << at % 8);
		count_add(&sample_ag(sample, ag)->inode_blocks, 1);
	}
	struct inode_block *block = sample_block(sample, sample->inode_block[ag]);
	unsigned slot = (unsigned)__builtin_ctz(~le32_get(block->used_mask));
	assert(slot < FS_INODES_PER_BLOCK);
	block->used_mask = le32_set(le32_get(block->used_mask) | 1u << slot);
	if (slot == FS_INODES_PER_BLOCK - 1) {
		uint32_t at = (uint32_t)(sample->inode_block[ag] - ag_first_block(sample_super(sample), ag));
		sample_map(sample, ag, 2)->bits[at / 8] &= (uint8_t)~(1u << at % 8);
	}
	struct ag_header *header = sample_ag(sample, ag);
	count_add(&header->used_inodes, 1);
	struct disk_inode *inode = &block->inode[slot];
	inode->mode = le16_set((uint16_t)mode);
	inode->nlink = le32_set(S_ISDIR(mode) ? 2 : 1);
	inode->generation = header->next_generation;
	count_add(&header->next_generation, 1);
	if (S_ISDIR(mode) || S_ISREG(mode) || S_ISLNK(mode))
		inode->format = FORK_INLINE;
	uint32_t at = (uint32_t)(sample->inode_block[ag] - ag_first_block(sample_super(sample), ag));
	return ino_make(ag, at, slot);
}

static void inline_set(struct sample *sample, uint64_t ino, const char *text)
{
	struct disk_inode *inode = sample_inode(sample, ino);
	inode->fork_bytes = (uint8_t)strlen(text);
	inode->size = le64_set(strlen(text));
	memcpy(inode->fork, text, strlen(text));
}

static struct disk_extent extent(uint64_t logical, uint64_t physical, uint32_t length, uint32_t flags)
{
	return (struct disk_extent){le64_set(logical), le64_set(physical), le32_set(length), le32_set(flags)};
}

static uint64_t data_take(struct sample *sample, uint32_t ag, unsigned count)
{
	uint64_t first = sample_take(sample, ag, 0, 0);
	while (--count)
		sample_take(sample, ag, 0, 0);
	return first;
}

/* ---- directories ---- */
struct entry {
	uint64_t key, ino;
	char name[168];
	unsigned type;
};

uint64_t sample_name_key(struct sample *sample, const char *name)
{
	uint64_t seed = le64_get(sample_super(sample)->hash_seed);
	return XXH3_64bits_withSeed(name, strlen(name), seed) >> 17 << FS_COLLISION_BITS;
}

static struct entry entry_make(struct sample *sample, const char *name, uint64_t ino)
{
	struct entry entry = {.key = sample_name_key(sample, name), .ino = ino};
	snprintf(entry.name, sizeof(entry.name), "%s", name);
	entry.type = (le16_get(sample_inode(sample, ino)->mode) & S_IFMT) >> 12;
	return entry;
}

static int entry_compare(const void *a, const void *b)
{
	const struct entry *left = a, *right = b;
	return left->key < right->key ? -1 : left->key > right->key;
}

static unsigned entry_write(uint8_t *at, const struct entry *entry)
{
	struct disk_dirent *dirent = (struct disk_dirent *)at;
	dirent->key = le64_set(entry->key);
	dirent->ino = le64_set(entry->ino);
	dirent->name_length = (uint8_t)strlen(entry->name);
	dirent->type = (uint8_t)entry->type;
	memcpy(dirent->name, entry->name, strlen(entry->name));
	return dirent_bytes(dirent->name_length);
}

static void directory_inline(struct sample *sample, uint64_t ino, struct entry *entries, unsigned count)
{
	struct disk_inode *inode = sample_inode(sample, ino);
	qsort(entries, count, sizeof(*entries), entry_compare);
	for (unsigned i = 0; i < count; i++)
		inode->fork_bytes =
			(uint8_t)(inode->fork_bytes + entry_write(inode->fork + inode->fork_bytes, &entries[i]));
	inode->size = le64_set(inode->fork_bytes);
	inode->rdev_or_entries = le64_set(count);
}

static uint64_t directory_leaf(
	struct sample *sample, uint32_t ag, uint64_t ino, const struct entry *entries, unsigned count)
{
	uint64_t block = sample_take(sample, ag, BLOCK_DIR_NODE, ino);
	struct tree_node *node = sample_block(sample, block);
	unsigned bytes = 0;
	for (unsigned i = 0; i < count; i++)
		bytes += entry_write(node->payload + bytes, &entries[i]);
	assert(bytes <= FS_NODE_BYTES);
	node->count = le16_set((uint16_t)count);
	node->bytes = le16_set((uint16_t)bytes);
	return block;
}

static void tree_root_set(struct sample *sample, uint64_t ino, uint64_t root, unsigned level)
{
	struct disk_inode *inode = sample_inode(sample, ino);
	inode->format = FORK_TREE;
	inode->fork_bytes = 0;
	inode->fork_level = (uint8_t)level;
	((struct fork_tree *)inode->fork)->root = le64_set(root);
}

static void inner_node(
	struct sample *sample, uint64_t block, const uint64_t *keys, const uint64_t *children, unsigned count)
{
	struct tree_node *node = sample_block(sample, block);
	for (unsigned i = 0; i < count; i++)
		((struct tree_pointer *)node->payload)[i] =
			(struct tree_pointer){le64_set(keys[i]), le64_set(children[i])};
	node->level = le16_set(1);
	node->count = le16_set((uint16_t)count);
	node->bytes = le16_set((uint16_t)(count * sizeof(struct tree_pointer)));
}

/* The wide directory: hard links of one file, in leaves of 15 below an inner node. */
static void wide_build(struct sample *sample)
{
	struct entry *entries = calloc(SAMPLE_WIDE_ENTRIES, sizeof(*entries));
	uint64_t keys[8];
	for (unsigned i = 0; i < SAMPLE_WIDE_ENTRIES; i++) {
		char name[168];
		snprintf(name, sizeof(name), "%0150u-link", i);
		entries[i] = entry_make(sample, name, sample->file_inline);
	}
	qsort(entries, SAMPLE_WIDE_ENTRIES, sizeof(*entries), entry_compare);
	sample->wide_root = sample_take(sample, 1, BLOCK_DIR_NODE, sample->wide);
	for (unsigned i = 0; i < SAMPLE_WIDE_ENTRIES; i += 15) {
		keys[sample->wide_leaves] = i ? entries[i].key : 0;
		sample->wide_leaf[sample->wide_leaves++] = directory_leaf(sample, 1, sample->wide, entries + i, 15);
	}
	inner_node(sample, sample->wide_root, keys, sample->wide_leaf, sample->wide_leaves);
	tree_root_set(sample, sample->wide, sample->wide_root, 1);
	struct disk_inode *inode = sample_inode(sample, sample->wide);
	inode->blocks = le64_set(1 + sample->wide_leaves);
	inode->size = le64_set((1 + sample->wide_leaves) * FS_BLOCK_SIZE);
	inode->rdev_or_entries = le64_set(SAMPLE_WIDE_ENTRIES);
	struct disk_inode *file = sample_inode(sample, sample->file_inline);
	count_add(&file->nlink, SAMPLE_WIDE_ENTRIES);
	free(entries);
}

static void root_build(struct sample *sample)
{
	const struct { const char *name; uint64_t ino; } names[] = {
		{"inline", sample->file_inline}, {"extents", sample->file_extents}, {"tree", sample->file_tree},
		{"symlink", sample->symlink}, {"symlink-long", sample->symlink_long}, {"fifo", sample->fifo},
		{"device", sample->device}, {"xattr", sample->file_xattr}, {"sub", sample->sub}, {"wide", sample->wide},
		{"far", sample->far}, {"truncating", sample->truncating},
	};
	struct entry *entries = calloc(ARRAY_SIZE(names), sizeof(*entries));
	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		entries[i] = entry_make(sample, names[i].name, names[i].ino);
	qsort(entries, ARRAY_SIZE(names), sizeof(*entries), entry_compare);
	sample->root_leaf = directory_leaf(sample, 0, FS_ROOT_INODE, entries, ARRAY_SIZE(names));
	tree_root_set(sample, FS_ROOT_INODE, sample->root_leaf, 0);
	struct disk_inode *root = sample_inode(sample, FS_ROOT_INODE);
	root->blocks = le64_set(1);
	root->size = le64_set(FS_BLOCK_SIZE);
	root->rdev_or_entries = le64_set(ARRAY_SIZE(names));
	root->nlink = le32_set(5);
	free(entries);
	sample_inode(sample, sample->sub)->parent = le64_set(FS_ROOT_INODE);
	sample_inode(sample, sample->wide)->parent = le64_set(FS_ROOT_INODE);
	sample_inode(sample, sample->far)->parent = le64_set(FS_ROOT_INODE);
	struct entry child = entry_make(sample, "child", sample->sub_child);
	directory_inline(sample, sample->sub, &child, 1);
	child = entry_make(sample, "far-child", sample->far_child);
	directory_inline(sample, sample->far, &child, 1);
	sample_inode(sample, sample->far_child)->parent = le64_set(sample->far);
	sample_inode(sample, sample->far)->nlink = le32_set(3);
}

/* ---- files ---- */
static void extents_build(struct sample *sample)
{
	uint64_t data = data_take(sample, 0, 5);
	struct disk_inode *inode = sample_inode(sample, sample->file_extents);
	struct disk_extent *extents = (struct disk_extent *)inode->fork;
	extents[0] = extent(0, data, 2, 0);
	extents[1] = extent(10, data + 2, 1, 0);
	extents[2] = extent(20, data + 3, 2, EXTENT_UNWRITTEN); /* preallocated past the end */
	inode->format = FORK_EXTENTS;
	inode->fork_count = le16_set(3);
	inode->blocks = le64_set(5);
	inode->size = le64_set(10 * FS_BLOCK_SIZE + 7);
}

static void extent_tree_build(struct sample *sample)
{
	const uint64_t ino = sample->file_tree, keys[2] = {0, 40};
	sample->extent_root = sample_take(sample, 0, BLOCK_EXTENT_NODE, ino);
	for (unsigned leaf = 0; leaf < 2; leaf++) {
		sample->extent_leaf[leaf] = sample_take(sample, 0, BLOCK_EXTENT_NODE, ino);
		uint64_t data = data_take(sample, 2, 4); /* files may span AGs */
		struct tree_node *node = sample_block(sample, sample->extent_leaf[leaf]);
		for (unsigned i = 0; i < 4; i++)
			((struct disk_extent *)node->payload)[i] = extent(leaf * 40 + i * 10, data + i, 1, 0);
		node->count = le16_set(4);
		node->bytes = le16_set(4 * sizeof(struct disk_extent));
	}
	inner_node(sample, sample->extent_root, keys, sample->extent_leaf, 2);
	tree_root_set(sample, ino, sample->extent_root, 1);
	sample_inode(sample, ino)->blocks = le64_set(11);
	sample_inode(sample, ino)->size = le64_set(71 * FS_BLOCK_SIZE);
}

static unsigned xattr_write(uint8_t *at, const char *name, uint32_t length, const uint64_t *blocks)
{
	struct disk_xattr *record = (struct disk_xattr *)at;
	size_t padded = align_up(strlen(name), 8);
	record->namespace = XATTR_USER;
	record->name_length = (uint8_t)strlen(name);
	record->flags = blocks ? XATTR_EXTERNAL : 0;
	record->value_length = le32_set(length);
	memcpy(record->name, name, strlen(name));
	if (!blocks) {
		memset(record->name + padded, 'v', length);
		return (unsigned)(FS_XATTR_FIXED + padded + align_up(length, 8));
	}
	unsigned count = (unsigned)div_round_up(length, FS_XATTR_VALUE_BLOCK_BYTES);
	for (unsigned i = 0; i < count; i++)
		((le64_t *)(record->name + padded))[i] = le64_set(blocks[i]);
	return (unsigned)(FS_XATTR_FIXED + padded + 8 * count);
}

static void xattrs_build(struct sample *sample)
{
	const uint64_t ino = sample->file_xattr;
	struct disk_inode *inode = sample_inode(sample, ino);
	inode->xattr_bytes = 32;
	assert(xattr_write(inode->fork + FS_FORK_BYTES - 32, "first", 10, NULL) == 32);
	const uint32_t length = 5000;
	for (unsigned i = 0; i < 2; i++)
		sample->xattr_block[i] = sample_take(sample, 0, BLOCK_XATTR, ino);
	for (unsigned i = 0; i < 2; i++) {
		sample->value_block[i] = sample_take(sample, 0, BLOCK_XATTR_VALUE, ino);
		struct xattr_value_block *value = sample_block(sample, sample->value_block[i]);
		value->index = le32_set(i);
		value->bytes = le32_set(i ? length - FS_XATTR_VALUE_BLOCK_BYTES : FS_XATTR_VALUE_BLOCK_BYTES);
	}
	struct xattr_block *block = sample_block(sample, sample->xattr_block[0]);
	unsigned bytes = xattr_write(block->records, "second", 1000, NULL);
	bytes += xattr_write(block->records + bytes, "external", length, sample->value_block);
	block->bytes = le16_set((uint16_t)bytes);
	block->count = le16_set(2);
	block->next = le64_set(sample->xattr_block[1]);
	block = sample_block(sample, sample->xattr_block[1]);
	block->bytes = le16_set((uint16_t)xattr_write(block->records, "third-name", 0, NULL));
	block->count = le16_set(1);
	inode->xattr_block = le64_set(sample->xattr_block[0]);
	inode->blocks = le64_set(4);
}

static void single_extent(struct sample *sample, uint64_t ino, uint64_t size)
{
	struct disk_inode *inode = sample_inode(sample, ino);
	*(struct disk_extent *)inode->fork = extent(0, data_take(sample, ino_ag(ino), 1), 1, 0);
	inode->format = FORK_EXTENTS;
	inode->fork_count = le16_set(1);
	inode->blocks = le64_set(1);
	inode->size = le64_set(size);
}

static void orphans_build(struct sample *sample)
{
	sample->orphan_block = sample_take(sample, 1, BLOCK_ORPHANS, 1);
	struct orphan_block *block = sample_block(sample, sample->orphan_block);
	block->inode[3] = le64_set(sample->orphan);
	block->inode[7] = le64_set(sample->truncating);
	block->count = le32_set(2);
	struct ag_header *header = sample_ag(sample, 1);
	header->orphan_head = le64_set(sample->orphan_block);
	header->orphan_count = le32_set(2);
	sample_inode(sample, sample->orphan)->nlink = le32_set(0);
}

static int sample_write(void *arg, uint64_t block, const void *data)
{
	memcpy(sample_block(arg, block), data, FS_BLOCK_SIZE);
	return 0;
}

static void sample_format(struct sample *sample)
{
	const struct mkfs_options options = {
		.size_bytes = (uint64_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE,
		.journal_bytes = SAMPLE_JOURNAL_BLOCKS * FS_BLOCK_SIZE,
		.ag_bytes = FS_AG_BLOCKS_MIN * FS_BLOCK_SIZE,
		.label = "sample",
		.fsid = fsid,
		.journal_id = journal_id,
		.hash_seed = 42,
		.first_crc = 0x12345678,
		.first_sequence = 1000,
		.small = true,
	};
	const struct mkfs_io io = {.write = sample_write, .arg = sample};
	struct fs_super *super = malloc(sizeof(*super));
	char message[128];
	if (!super || mkfs_format(&options, &io, super, message, sizeof(message)))
		abort();
	assert(le32_get(super->ag_count) == SAMPLE_AGS && le64_get(super->first_ag_block) == SAMPLE_AG_FIRST);
	free(super);
}

void sample_create(struct sample *sample)
{
	*sample = (struct sample){.data = calloc(SAMPLE_BLOCKS, FS_BLOCK_SIZE), .root = FS_ROOT_INODE};
	sample_format(sample);
	for (uint32_t ag = 0; ag < SAMPLE_AGS; ag++) {
		sample->next_block[ag] = ag_fixed_blocks(sample_super(sample)) + !ag;
		metadata_add(sample, ag_first_block(sample_super(sample), ag));
	}
	for (unsigned map = 0; map <= 3; map++) /* of AG 0, and the root's inode block */
		metadata_add(sample, SAMPLE_AG_FIRST + FS_AG_MAPS_FIRST + map);
	sample->inode_block[0] = SAMPLE_AG_FIRST + ag_fixed_blocks(sample_super(sample));
	sample->file_inline = inode_take(sample, 0, S_IFREG | 0644);
	sample->file_extents = inode_take(sample, 0, S_IFREG | 0644);
	sample->file_tree = inode_take(sample, 0, S_IFREG | 0644);
	sample->file_xattr = inode_take(sample, 0, S_IFREG | 0644);
	sample->symlink = inode_take(sample, 0, S_IFLNK | 0777);
	sample->symlink_long = inode_take(sample, 0, S_IFLNK | 0777);
	sample->fifo = inode_take(sample, 0, S_IFIFO | 0644);
	sample->device = inode_take(sample, 0, S_IFCHR | 0644);
	sample->sub = inode_take(sample, 0, S_IFDIR | 0755);
	sample->sub_child = inode_take(sample, 0, S_IFREG | 0755);
	sample->wide = inode_take(sample, 1, S_IFDIR | 0755);
	sample->far = inode_take(sample, 3, S_IFDIR | 0755);
	sample->far_child = inode_take(sample, 3, S_IFDIR | 0755);
	sample->orphan = inode_take(sample, 1, S_IFREG | 0600);
	sample->truncating = inode_take(sample, 1, S_IFREG | 0600);
	inline_set(sample, sample->file_inline, "hello");
	inline_set(sample, sample->symlink, "where/to");
	single_extent(sample, sample->symlink_long, 300);
	single_extent(sample, sample->orphan, 100);
	single_extent(sample, sample->truncating, 0);
	sample_inode(sample, sample->device)->rdev_or_entries = le64_set(1ull << 32 | 3);
	extents_build(sample);
	extent_tree_build(sample);
	xattrs_build(sample);
	root_build(sample);
	wide_build(sample);
	orphans_build(sample);
	struct fs_state *state = sample_state(sample);
	uint64_t free_blocks = 0;
	for (uint32_t ag = 0; ag < SAMPLE_AGS; ag++)
		free_blocks += le32_get(sample_ag(sample, ag)->free_blocks);
	state->free_blocks = le64_set(free_blocks);
	state->used_inodes = le64_set(16);
	sample_seal(sample, state);
	for (unsigned i = 0; i < sample->metadata_count; i++)
		sample_seal(sample, sample_block(sample, sample->metadata[i]));
}

void sample_copy(const struct sample *from, struct sample *to)
{
	*to = *from;
	to->data = malloc((size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
	memcpy(to->data, from->data, (size_t)SAMPLE_BLOCKS * FS_BLOCK_SIZE);
}

void sample_destroy(struct sample *sample)
{
	free(sample->data);
	sample->data = NULL;
}

/* ---- the journal ---- */
void sample_group_begin(struct sample_group *group)
{
	*group = (struct sample_group){.bytes = calloc(SAMPLE_JOURNAL_BLOCKS, FS_BLOCK_SIZE)};
	group->length = sizeof(struct journal_group);
}

void sample_group_record(struct sample_group *group, uint64_t block, unsigned offset, unsigned length, const void *data)
{
	struct journal_record *record = (struct journal_record *)(group->bytes + group->length);
	record->block = le64_set(block);
	record->offset = le16_set((uint16_t)offset);
	record->length = le16_set((uint16_t)length);
	memcpy(record + 1, data, length);
	group->length += sizeof(*record) + align_up(length, 8);
	group->records++;
}

uint32_t sample_group_end(struct sample *sample, struct sample_group *group, uint64_t place, uint64_t sequence,
	uint32_t previous_crc)
{
	struct journal_group *header = (struct journal_group *)group->bytes;
	header->magic = le32_set(FS_JOURNAL_MAGIC);
	header->journal_id = le64_set(journal_id);
	header->mount_generation = sample_state(sample)->mount_generation;
	header->sequence = le64_set(sequence);
	header->previous_crc = le32_set(previous_crc);
	header->length = le32_set((uint32_t)group->length);
	header->records = le32_set((uint32_t)group->records);
	uint32_t crc = image_crc(header, group->length, offsetof(struct journal_group, crc));
	header->crc = le32_set(crc);
	for (uint64_t i = 0; i < div_round_up(group->length, FS_BLOCK_SIZE); i++)
		memcpy(sample_block(sample, FS_JOURNAL_FIRST_BLOCK + (place + i) % SAMPLE_JOURNAL_BLOCKS),
			group->bytes + i * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	free(group->bytes);
	return crc;
}
