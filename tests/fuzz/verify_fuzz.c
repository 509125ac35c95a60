/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The verifiers of all block types. Input: byte 0 chooses a good block (enum sample), byte 1 whether the checksum is made good
 * again (bit 0) and whether records fill the whole block (bit 1), then patches: offset (2 bytes), length - 1
 * (1 byte, below 32 counts), the bytes. No verifier reads outside of the block, whatever stands in it; a block without a
 * checksum that fits is never good; and what is good keeps what the code that uses it goes by: records end where the block
 * says, and fsck's own rules of one record hold.
 * Covers: fs/verify.c fs/verify_inode.c fs/verify_records.c fs/verify_super.c
 * Runs: 400000
 */
#include <string.h>

#include "mkfs/fsck_internal.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/verify_samples.h"

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	FUZZ_REQUIRE(samples_init() == 0, "no samples");
	return 0;
}

/* Repeats the first record of a list up to the end of the block: only a full list makes a verifier come near it. */
static void fill(uint8_t *block)
{
	struct tree_node *node = (struct tree_node *)block;
	struct xattr_block *xattrs = (struct xattr_block *)block;
	const unsigned type = le16_get(node->header.type);
	uint8_t *records = node->payload;
	unsigned step = sizeof(struct disk_extent), count = 1;
	if (type == BLOCK_DIR_NODE && !le16_get(node->level))
		step = dirent_bytes(((struct disk_dirent *)records)->name_length);
	else if (type == BLOCK_XATTR)
		step = (unsigned)fsck_xattr_bytes((const struct disk_xattr *)records, FS_NODE_BYTES);
	else if (type != BLOCK_EXTENT_NODE || le16_get(node->level))
		return;
	for (unsigned at = step; at + step <= FS_NODE_BYTES; at += step, count++) {
		memcpy(records + at, records, step);
		le64_t *first = (le64_t *)(records + at); /* the key of an entry, the logical block of an extent */
		const uint32_t length = le32_get(((struct disk_extent *)records)->length);
		if (type != BLOCK_XATTR)
			*first = le64_set(le64_get(*first) + (type == BLOCK_DIR_NODE ? count : (uint64_t)count * length));
	}
	*(type == BLOCK_XATTR ? &xattrs->count : &node->count) = le16_set((uint16_t)count);
	*(type == BLOCK_XATTR ? &xattrs->bytes : &node->bytes) = le16_set((uint16_t)(count * step));
}

static void patch(uint8_t *block, const uint8_t *data, size_t size)
{
	while (size >= 4) {
		const size_t at = (data[0] | (size_t)data[1] << 8) % FS_BLOCK_SIZE;
		const size_t count = MIN(MIN((size_t)1 + data[2] % 32, size - 3), FS_BLOCK_SIZE - at);
		memcpy(block + at, data + 3, count);
		data += 3 + count;
		size -= 3 + count;
	}
}

/* ---- what users of a good block go by ---- */

static void use_dirents(const uint8_t *records, unsigned bytes)
{
	uint64_t key = 0;
	for (unsigned at = 0; at < bytes;) {
		const struct disk_dirent *entry = (const struct disk_dirent *)(records + at);
		FUZZ_REQUIRE(bytes - at >= FS_DIRENT_FIXED && entry->name_length && bytes - at >= dirent_bytes(entry->name_length),
			"an entry reaches over the end");
		FUZZ_REQUIRE(le64_get(entry->key) > key && le64_get(entry->key) >> 63 == 0, "an entry is out of order");
		FUZZ_REQUIRE(!memchr(entry->name, '/', entry->name_length) && !memchr(entry->name, 0, entry->name_length), "a bad name");
		key = le64_get(entry->key);
		at += dirent_bytes(entry->name_length);
	}
}

static void use_extents(const uint8_t *records, unsigned count)
{
	const struct disk_extent *extent = (const struct disk_extent *)records;
	uint64_t end = 0;
	for (unsigned i = 0; i < count; i++) {
		const uint64_t physical = le64_get(extent[i].physical), length = le32_get(extent[i].length);
		FUZZ_REQUIRE(length && le64_get(extent[i].logical) >= end && le64_get(extent[i].logical) < 1ull << 51, "an extent");
		FUZZ_REQUIRE(physical >= sample_first_ag + sample_fixed && physical < sample_image.block_count &&
			length <= sample_image.block_count - physical, "an extent lies outside");
		end = le64_get(extent[i].logical) + length;
	}
}

static void use_xattrs(const uint8_t *records, unsigned bytes)
{
	size_t taken = 0;
	for (unsigned at = 0; at < bytes; at += (unsigned)taken) {
		taken = fsck_xattr_bytes((const struct disk_xattr *)(records + at), bytes - at);
		FUZZ_REQUIRE(taken, "an xattr record that fsck does not take");
	}
}

static void use_inode(const struct disk_inode *inode)
{
	const unsigned mode = le16_get(inode->mode);
	FUZZ_REQUIRE(fsck_mode_known(mode) && fsck_format_fits(mode, inode->format) && fsck_fork_fits(inode),
		"an inode that fsck does not take: mode %o", mode);
	use_xattrs(inode->fork + FS_FORK_BYTES - inode->xattr_bytes, inode->xattr_bytes);
	if (inode->format == FORK_EXTENTS)
		use_extents(inode->fork, le16_get(inode->fork_count));
	if (inode->format == FORK_INLINE && S_ISDIR(mode))
		use_dirents(inode->fork, inode->fork_bytes);
}

static void use(const void *block)
{
	const struct tree_node *node = block;
	const struct xattr_block *xattrs = block;
	const struct inode_block *inodes = block;
	switch (le16_get(((const struct block_header *)block)->type)) {
	case BLOCK_INODES:
		for (unsigned slot = 0; slot < FS_INODES_PER_BLOCK; slot++)
			if (le32_get(inodes->used_mask) >> slot & 1)
				use_inode(&inodes->inode[slot]);
		break;
	case BLOCK_EXTENT_NODE:
		FUZZ_REQUIRE(le16_get(node->bytes) <= FS_NODE_BYTES, "a node reaches over its end");
		if (!le16_get(node->level))
			use_extents(node->payload, le16_get(node->count));
		break;
	case BLOCK_DIR_NODE:
		FUZZ_REQUIRE(le16_get(node->bytes) <= FS_NODE_BYTES, "a node reaches over its end");
		if (!le16_get(node->level))
			use_dirents(node->payload, le16_get(node->bytes));
		break;
	case BLOCK_XATTR:
		FUZZ_REQUIRE(le16_get(xattrs->bytes) <= FS_NODE_BYTES, "xattrs reach over the end");
		use_xattrs(xattrs->records, le16_get(xattrs->bytes));
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return -1;
	const enum sample sample = data[0] % SAMPLE_COUNT;
	/* On the heap and no longer than the block, so that a read behind it is seen. */
	uint8_t *block = aligned_alloc(8, FS_BLOCK_SIZE);
	sample_fill(sample, block);
	if (data[1] & 2)
		fill(block);
	patch(block, data + 2, size - 2);
	if (data[1] & 1)
		block_seal(block, le64_get(((struct block_header *)block)->sequence));
	const char *bad = block_verify(&sample_image.super, block, sample_place(sample), sample_type(sample), BLOCK_OWNER_ANY, true);
	const uint32_t crc = le32_get(((struct block_header *)block)->crc);
	FUZZ_REQUIRE(bad || crc == block_crc(block), "a block with a wrong checksum is good");
	FUZZ_REQUIRE(!bad || size > 2 || !(data[1] & 1), "a good block has a bad %s", bad);
	if (!bad)
		use(block);
	free(block);
	return 0;
}
