/* SPDX-License-Identifier: BSD-3-Clause */
/* Good blocks of every type: see verify_samples.h. */
#include "tests/unit/verify_samples.h"

#include <dirent.h>
#include <sys/stat.h>

struct image sample_image;
uint64_t sample_first_ag, sample_fixed;

int samples_init(void)
{
	const struct mkfs_options options = image_options();
	int err = image_init(&sample_image, &options, 0);

	if (err)
		return err;
	sample_first_ag = le64_get(sample_image.super.first_ag_block);
	sample_fixed = ag_fixed_blocks(&sample_image.super);
	return 0;
}

void samples_fini(void)
{
	image_fini(&sample_image);
}

uint64_t file_ino(unsigned slot)
{
	return ino_make(0, (uint32_t)sample_fixed, slot);
}

uint64_t spare_block(unsigned i)
{
	return sample_first_ag + sample_fixed + 10 + i;
}

static unsigned dirent_put(uint8_t *at, uint64_t key, unsigned slot, const char *name)
{
	struct disk_dirent *dirent = (struct disk_dirent *)at;
	const unsigned bytes = dirent_bytes((unsigned)strlen(name));

	memset(at, 0, bytes);
	dirent->key = le64_set(key);
	dirent->ino = le64_set(file_ino(slot));
	dirent->name_length = (uint8_t)strlen(name);
	dirent->type = DT_REG;
	memcpy(dirent->name, name, strlen(name));
	return bytes;
}

static unsigned xattr_put(uint8_t *at, const char *name, const char *value)
{
	struct disk_xattr *xattr = (struct disk_xattr *)at;
	const size_t name_bytes = align_up(strlen(name), 8), value_bytes = align_up(strlen(value), 8);

	memset(at, 0, FS_XATTR_FIXED + name_bytes + value_bytes);
	xattr->namespace = XATTR_USER;
	xattr->name_length = (uint8_t)strlen(name);
	xattr->value_length = le32_set((uint32_t)strlen(value));
	memcpy(xattr->name, name, strlen(name));
	memcpy(xattr->name + name_bytes, value, strlen(value));
	return (unsigned)(FS_XATTR_FIXED + name_bytes + value_bytes);
}

static void extent_put(void *at, uint64_t logical, uint64_t physical, uint32_t length)
{
	*(struct disk_extent *)at = (struct disk_extent){
		.logical = le64_set(logical), .physical = le64_set(physical), .length = le32_set(length)};
}

static void pointer_put(void *at, uint64_t key, uint64_t child)
{
	*(struct tree_pointer *)at = (struct tree_pointer){.key = le64_set(key), .child = le64_set(child)};
}

static void node_fill(struct tree_node *node, unsigned level, unsigned count, unsigned bytes)
{
	node->level = le16_set((uint16_t)level);
	node->count = le16_set((uint16_t)count);
	node->bytes = le16_set((uint16_t)bytes);
}

enum block_type sample_type(enum sample sample)
{
	static const enum block_type types[SAMPLE_COUNT] = {BLOCK_SUPER, BLOCK_STATE, BLOCK_AG_HEADER, BLOCK_BLOCK_MAP,
		BLOCK_INODE_MAP, BLOCK_INODE_FREE_MAP, BLOCK_INODES, BLOCK_EXTENT_NODE, BLOCK_EXTENT_NODE, BLOCK_DIR_NODE,
		BLOCK_DIR_NODE, BLOCK_XATTR, BLOCK_XATTR_VALUE, BLOCK_ORPHANS};

	return types[sample];
}

uint64_t sample_place(enum sample sample)
{
	switch (sample) {
	case SAMPLE_SUPER:
		return FS_SUPER_BLOCK;
	case SAMPLE_STATE:
		return FS_STATE_BLOCK_A;
	case SAMPLE_AG_HEADER:
		return sample_first_ag;
	case SAMPLE_BLOCK_MAP:
	case SAMPLE_INODE_MAP:
	case SAMPLE_INODE_FREE_MAP:
		return sample_first_ag + FS_AG_MAPS_FIRST + (unsigned)(sample - SAMPLE_BLOCK_MAP);
	case SAMPLE_INODES:
		return sample_first_ag + sample_fixed;
	default:
		return spare_block(sample);
	}
}

/* Slot 0 is the root; 1 a file with an extent and an xattr; 2 a symlink; 3 a device; 4 a directory with one entry; 5 a
 * file with a tree. */
static void inodes_fill(struct inode_block *inodes)
{
	static const uint16_t modes[] = {S_IFDIR | 0755, S_IFREG | 0644, S_IFLNK | 0777, S_IFCHR | 0600, S_IFDIR | 0755,
		S_IFREG | 0644};

	inodes->used_mask = le32_set(0x3f);
	for (unsigned i = 1; i < ARRAY_SIZE(modes); i++) {
		struct disk_inode *inode = &inodes->inode[i];
		inode->mode = le16_set(modes[i]);
		inode->nlink = le32_set(1);
		inode->generation = le32_set(i + 1);
	}
	struct disk_inode *file = &inodes->inode[1];
	file->format = FORK_EXTENTS;
	file->fork_count = le16_set(1);
	extent_put(file->fork, 0, spare_block(30), 5);
	file->xattr_bytes = (uint8_t)xattr_put(file->fork + FS_FORK_BYTES - 24, "name", "value");
	inodes->inode[2].format = FORK_INLINE;
	inodes->inode[2].fork_bytes = 6;
	inodes->inode[2].size = le64_set(6);
	memcpy(inodes->inode[2].fork, "target", 6);
	inodes->inode[3].rdev_or_entries = le64_set(1ull << 32 | 3);
	struct disk_inode *dir = &inodes->inode[4];
	dir->format = FORK_INLINE;
	dir->nlink = le32_set(2);
	dir->fork_bytes = (uint8_t)dirent_put(dir->fork, 77 << FS_COLLISION_BITS, 2, "link");
	dir->size = le64_set(dir->fork_bytes);
	dir->rdev_or_entries = le64_set(1);
	dir->parent = le64_set(FS_ROOT_INODE);
	struct disk_inode *tree = &inodes->inode[5];
	tree->format = FORK_TREE;
	tree->size = le64_set(123456789);
	*(struct fork_tree *)tree->fork = (struct fork_tree){le64_set(spare_block(SAMPLE_EXTENT_LEAF))};
}

static void node_sample(struct tree_node *node, enum sample sample)
{
	unsigned bytes;

	switch (sample) {
	case SAMPLE_EXTENT_LEAF:
		extent_put(node->payload, 0, spare_block(40), 3);
		extent_put(node->payload + 24, 3, spare_block(50), 1);
		return node_fill(node, 0, 2, 48);
	case SAMPLE_EXTENT_INNER:
		pointer_put(node->payload, 0, spare_block(60));
		pointer_put(node->payload + 16, 100, spare_block(61));
		return node_fill(node, 1, 2, 32);
	case SAMPLE_DIR_INNER:
		pointer_put(node->payload, 0, spare_block(62));
		pointer_put(node->payload + 16, 100ull << 40, spare_block(63));
		return node_fill(node, 1, 2, 32);
	default:
		bytes = dirent_put(node->payload, 5ull << FS_COLLISION_BITS, 2, "alpha");
		bytes += dirent_put(node->payload + bytes, (5ull << FS_COLLISION_BITS) + 1, 3, "...");
		bytes += dirent_put(node->payload + bytes, 6ull << FS_COLLISION_BITS, 4, "gamma-gamma");
		return node_fill(node, 0, 3, bytes);
	}
}

void sample_fill(enum sample sample, void *block)
{
	const bool of_ag = sample == SAMPLE_ORPHANS;

	if (sample <= SAMPLE_INODES) {
		memcpy(block, image_block(&sample_image, sample_place(sample)), FS_BLOCK_SIZE);
		if (sample == SAMPLE_INODES)
			inodes_fill(block);
		return;
	}
	memset(block, 0, FS_BLOCK_SIZE);
	block_header_init(block, sample_type(sample), sample_place(sample), IMAGE_FSID, of_ag ? 0 : file_ino(1));
	if (sample <= SAMPLE_DIR_INNER)
		return node_sample(block, sample);
	if (sample == SAMPLE_XATTR) {
		struct xattr_block *xattrs = block;
		unsigned bytes = xattr_put(xattrs->records, "first", "1");
		bytes += xattr_put(xattrs->records + bytes, "second-name", "a longer value");
		xattrs->bytes = le16_set((uint16_t)bytes);
		xattrs->count = le16_set(2);
	} else if (sample == SAMPLE_XATTR_VALUE) {
		((struct xattr_value_block *)block)->bytes = le32_set(4032);
	} else {
		struct orphan_block *orphans = block;
		orphans->inode[7] = le64_set(file_ino(3));
		orphans->inode[503] = le64_set(file_ino(4));
		orphans->count = le32_set(2);
	}
}
