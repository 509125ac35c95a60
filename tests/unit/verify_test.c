/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: a verifier accepts what mkfs and the filesystem make, names the field of everything else, and never reads
 * outside of the block, whatever is in it. Method: good blocks of each type, one field of a copy changed at a time
 * (tables of offset, width, value, name), and random damage without the crc check under the sanitizers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <dirent.h>
#include <sys/stat.h>

#include "tests/unit/verify_samples.h"

static int setup(void **state)
{
	return samples_init();
}

static int teardown(void **state)
{
	samples_fini();
	return 0;
}

/* ---- the tests ---- */

static void *block_new(void)
{
	void *block = aligned_alloc(FS_BLOCK_SIZE, FS_BLOCK_SIZE);

	assert_non_null(block);
	return block;
}

static void name_is(const char *failed, const char *want, const char *what)
{
	if (failed == want || (failed && want && !strcmp(failed, want)))
		return;
	fail_msg("%s: verifier said %s, expected %s", what, failed ? failed : "good", want ? want : "good");
}

static const char *sample_verify(enum sample sample, const void *block, bool check_crc)
{
	return block_verify(&sample_image.super, block, sample_place(sample), sample_type(sample), BLOCK_OWNER_ANY,
		check_crc);
}

struct mutation {
	size_t offset;
	unsigned width; /* bytes */
	uint64_t value;
	const char *expected;
};

static void mutations_run(enum sample sample, const struct mutation *mutations, size_t count)
{
	uint8_t *block = block_new();

	for (size_t i = 0; i < count; i++) {
		const le64_t value = le64_set(mutations[i].value);
		char what[64];
		sample_fill(sample, block);
		memcpy(block + mutations[i].offset, &value, mutations[i].width);
		snprintf(what, sizeof(what), "%s, offset %zu = %#llx", block_type_name(sample_type(sample)), mutations[i].offset,
			(unsigned long long)mutations[i].value);
		name_is(sample_verify(sample, block, false), mutations[i].expected, what);
	}
	free(block);
}
#define MUTATIONS_RUN(sample, table) mutations_run(sample, table, ARRAY_SIZE(table))
#define AT(type, field) offsetof(struct type, field), sizeof(((struct type *)0)->field)
/* A reserved array: its last byte. */
#define AT_LAST(type, field) offsetof(struct type, field) + sizeof(((struct type *)0)->field) - 1, 1

static void test_crc32c_has_the_known_answer(void **state)
{
	assert_int_equal(fs_crc32c(0, "123456789", 9), 0xe3069283);
	assert_int_equal(fs_crc32c(fs_crc32c(0, "1234", 4), "56789", 5), 0xe3069283);
	assert_int_equal(fs_crc32c(0, "", 0), 0);
}

static void test_name_hash_has_47_bits_and_is_never_zero(void **state)
{
	char name[16];

	for (unsigned i = 0; i < 1000; i++) {
		const unsigned length = (unsigned)snprintf(name, sizeof(name), "n%u", i);
		const uint64_t hash = fs_name_hash(42, name, length);
		assert_true(hash && hash < 1ull << 47);
	}
	assert_int_not_equal(fs_name_hash(1, "a", 1), fs_name_hash(2, "a", 1));
}

static void test_good_blocks_are_accepted(void **state)
{
	void *block = block_new();

	for (enum sample sample = 0; sample < SAMPLE_COUNT; sample++) {
		sample_fill(sample, block);
		name_is(sample_verify(sample, block, false), NULL, block_type_name(sample_type(sample)));
		block_seal(block, 99);
		name_is(sample_verify(sample, block, true), NULL, block_type_name(sample_type(sample)));
	}
	free(block);
}

static void test_every_flipped_bit_fails_the_crc(void **state)
{
	uint8_t *block = block_new();

	for (enum sample sample = 0; sample < SAMPLE_COUNT; sample++) {
		sample_fill(sample, block);
		block_seal(block, 5);
		for (unsigned bit = 32; bit < FS_BLOCK_SIZE * 8; bit += 7) {
			block[bit / 8] ^= (uint8_t)(1 << bit % 8);
			name_is(sample_verify(sample, block, true), "header.crc", block_type_name(sample_type(sample)));
			block[bit / 8] ^= (uint8_t)(1 << bit % 8);
		}
	}
	free(block);
}

static void test_header_fields(void **state)
{
	const struct mutation mutations[] = {
		{AT(block_header, magic), 0x4b424e4d, "header.magic"},
		{AT(block_header, type), BLOCK_TYPE_COUNT, "header.type"},
		{AT(block_header, type), 0, "header.type"},
		{AT(block_header, reserved0), 1, "header.reserved"},
		{AT(block_header, reserved1), 1, "header.reserved"},
		{AT(block_header, block), 0, "header.block"},
		{AT(block_header, fsid), IMAGE_FSID + 1, "header.fsid"},
		{AT(block_header, owner), UINT64_MAX - 1, "header.owner"},
		{AT(block_header, owner), 14, "header.owner"},
	};

	for (enum sample sample = SAMPLE_STATE; sample < SAMPLE_COUNT; sample++)
		MUTATIONS_RUN(sample, mutations);
}

static void test_block_at_a_wrong_place(void **state)
{
	const uint64_t count = sample_image.block_count;
	const uint64_t places[] = {0, 1, 7, sample_first_ag - 1, sample_first_ag + 1, count - 1, count, UINT64_MAX};
	struct block_header *header = block_new();

	for (enum sample sample = 0; sample < SAMPLE_COUNT; sample++) {
		for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
			sample_fill(sample, header);
			header->block = le64_set(places[i]);
			const bool legal = sample == SAMPLE_SUPER && (places[i] == 1 || places[i] == count - 1);
			name_is(block_verify(&sample_image.super, header, places[i], sample_type(sample), BLOCK_OWNER_ANY, false),
				legal ? NULL : "header.block", block_type_name(sample_type(sample)));
		}
	}
	free(header);
}

static void test_owner_is_compared_when_it_is_known(void **state)
{
	void *block = block_new();

	sample_fill(SAMPLE_DIR_LEAF, block);
	const uint64_t place = sample_place(SAMPLE_DIR_LEAF);
	const struct fs_super *super = &sample_image.super;
	name_is(block_verify(super, block, place, BLOCK_DIR_NODE, file_ino(1), false), NULL, "right owner");
	name_is(block_verify(super, block, place, BLOCK_DIR_NODE, file_ino(2), false), "header.owner", "wrong owner");
	name_is(block_verify(super, block, place, (enum block_type)77, file_ino(1), false), "type", "wrong type");
	free(block);
}

static void test_super_fields(void **state)
{
	const struct mutation mutations[] = {
		{AT(fs_super, magic), 1, "magic"},
		{AT(fs_super, version), 2, "version"},
		{AT(fs_super, block_size), 512, "block_size"},
		{AT(fs_super, inode_size), 512, "inode_size"},
		{AT(fs_super, block_count), 0, "block_count"},
		{AT(fs_super, block_count), UINT64_MAX, "block_count"},
		{AT(fs_super, block_count), 3000, "ag_count"},
		{AT(fs_super, journal_first), 5, "journal_first"},
		{AT(fs_super, journal_blocks), 0, "journal_blocks"},
		{AT(fs_super, journal_blocks), UINT64_MAX, "journal_blocks"},
		{AT(fs_super, journal_blocks), 257, "first_ag_block"},
		{AT(fs_super, first_ag_block), UINT64_MAX, "first_ag_block"},
		{AT(fs_super, ag_blocks), 0, "ag_blocks"},
		{AT(fs_super, ag_blocks), UINT32_MAX, "ag_blocks"},
		{AT(fs_super, ag_count), 0, "ag_count"},
		{AT(fs_super, ag_count), UINT32_MAX, "ag_count"},
		{AT(fs_super, last_ag_blocks), 0, "last_ag_blocks"},
		{AT(fs_super, last_ag_blocks), 257, "last_ag_blocks"},
		{AT(fs_super, map_blocks), 0, "map_blocks"},
		{AT(fs_super, map_blocks), UINT32_MAX, "map_blocks"},
		{AT(fs_super, root_place), 1, "root_place"},
		{AT(fs_super, root_place), 15 | sample_fixed << 4, "root_place"},
		{AT(fs_super, root_place), UINT64_MAX, "root_place"},
		{AT(fs_super, label) - 31, 'x', NULL},
		{offsetof(struct fs_super, label) + 31, 1, 'x', "label"},
		{AT(fs_super, reserved0), 1, "reserved"},
		{AT_LAST(fs_super, reserved), 1, "reserved"},
		{AT(fs_super, incompat), UINT64_MAX, NULL},
	};

	MUTATIONS_RUN(SAMPLE_SUPER, mutations);
	struct fs_super *super = image_block(&sample_image, FS_SUPER_BLOCK);
	name_is(super_verify(super, FS_SUPER_BLOCK, sample_image.block_count), NULL, "as written");
	name_is(super_verify(super, FS_SUPER_BLOCK, sample_image.block_count - 1), "block_count", "short device");
	name_is(super_verify(super, 2, sample_image.block_count), "header.block", "other place");
}

static void test_state_fields(void **state)
{
	const struct mutation mutations[] = {
		{AT(fs_state, generation), 0, "generation"},
		{AT(fs_state, generation), 3, "generation"},
		{AT(fs_state, generation), FS_COUNT_END, "generation"},
		{AT(fs_state, mount_generation), FS_COUNT_END, "mount_generation"},
		{AT(fs_state, clean), 2, "clean"},
		{AT(fs_state, reserved0), 1, "reserved"},
		{AT(fs_state, tail_block), 256, "tail_block"},
		{AT(fs_state, tail_sequence), 0, "tail_sequence"},
		{AT(fs_state, tail_sequence), FS_COUNT_END, "tail_sequence"},
		{AT(fs_state, tail_sequence), UINT64_MAX, "tail_sequence"},
		{AT(fs_state, reserved1), 1, "reserved"},
		{AT(fs_state, durable_sequence), 998, "durable_sequence"},
		{AT(fs_state, durable_sequence), 1000, "durable_sequence"},
		{AT(fs_state, durable_sequence), UINT64_MAX, "durable_sequence"},
		{AT(fs_state, free_blocks), 3072, "free_blocks"},
		{AT(fs_state, used_inodes), 50000, "used_inodes"},
		{AT_LAST(fs_state, reserved), 1, "reserved"},
	};

	MUTATIONS_RUN(SAMPLE_STATE, mutations);
	struct fs_state *block = block_new();
	sample_fill(SAMPLE_STATE, block);
	memset(block->error_text, 'e', sizeof(block->error_text));
	name_is(sample_verify(SAMPLE_STATE, block, false), "error_text", "error text without end");
	free(block);
}

static void test_ag_header_fields(void **state)
{
	const struct mutation mutations[] = {
		{AT(ag_header, ag), 1, "ag"},
		{AT(ag_header, blocks), 255, "blocks"},
		{AT(ag_header, free_blocks), 256, "free_blocks"},
		{AT(ag_header, inode_blocks), 2, "inode_blocks"},
		{AT(ag_header, used_inodes), 16, "used_inodes"},
		{AT(ag_header, next_generation), 0, "next_generation"},
		{AT(ag_header, orphan_count), 1, "orphan_count"},
		{AT(ag_header, reserved0), 1, "reserved"},
		{AT(ag_header, orphan_head), sample_first_ag, "orphan_head"},
		{AT(ag_header, block_map_ready), 2, "block_map_ready"},
		{AT(ag_header, inode_map_ready), 2, "inode_map_ready"},
		{AT(ag_header, inode_free_map_ready), 1ull << 63, "inode_free_map_ready"},
		{AT(ag_header, refcount_root), 1, "refcount_root"},
		{AT_LAST(ag_header, reserved), 1, "reserved"},
	};

	MUTATIONS_RUN(SAMPLE_AG_HEADER, mutations);
}

static void test_map_fields(void **state)
{
	const struct mutation block_map[] = {
		{AT(map_block, index), 1, "index"},
		{AT_LAST(map_block, reserved), 1, "reserved"},
		{offsetof(struct map_block, bits), 1, 0x0f, "bits"},        /* a block of the maps */
		{offsetof(struct map_block, bits) + 20, 1, 0xff, NULL},     /* blocks in use */
		{AT_LAST(map_block, bits), 0x7f, "bits"},                   /* past the end */
		{offsetof(struct map_block, bits) + 32, 1, 0xfe, "bits"},   /* the first one past the end */
	};
	const struct mutation inode_map[] = {
		{offsetof(struct map_block, bits), 1, 1, "bits"},
		{offsetof(struct map_block, bits) + 20, 1, 0xff, NULL},
		{AT_LAST(map_block, bits), 0x80, "bits"},
		{AT(map_block, index), UINT32_MAX, "index"},
	};

	MUTATIONS_RUN(SAMPLE_BLOCK_MAP, block_map);
	MUTATIONS_RUN(SAMPLE_INODE_MAP, inode_map);
	MUTATIONS_RUN(SAMPLE_INODE_FREE_MAP, inode_map);
}

/* Field of inode slot @slot. */
#define INODE_AT(slot, field) \
	offsetof(struct inode_block, inode) + (slot) * sizeof(struct disk_inode) + offsetof(struct disk_inode, field), \
		sizeof(((struct disk_inode *)0)->field)
/* Byte @at of the fork of slot @slot, @width bytes. */
#define FORK_AT(slot, at, width) \
	offsetof(struct inode_block, inode) + (slot) * sizeof(struct disk_inode) + offsetof(struct disk_inode, fork) + \
		(at), width

static void test_inode_fields(void **state)
{
	const struct mutation mutations[] = {
		{AT(inode_block, used_mask), 0x7f, "used_mask"},
		{AT(inode_block, used_mask), 0x1f, "used_mask"},
		{AT(inode_block, used_mask), 0x803f, "used_mask"},
		{AT_LAST(inode_block, reserved), 1, "reserved"},
		{INODE_AT(6, format), FORK_INLINE, "format"},
		{INODE_AT(1, mode), 0, "used_mask"},
		{INODE_AT(1, mode), S_IFLNK | S_IFREG | S_IFDIR, "mode"},
		{INODE_AT(0, mode), S_IFREG | 0755, "mode"},
		{INODE_AT(1, format), FORK_NONE, "format"},
		{INODE_AT(1, format), 9, "format"},
		{INODE_AT(2, format), FORK_TREE, "format"},
		{INODE_AT(3, format), FORK_INLINE, "format"},
		{INODE_AT(4, format), FORK_EXTENTS, "format"},
		{INODE_AT(1, xattr_bytes), 136, "xattr_bytes"},
		{INODE_AT(1, xattr_bytes), 25, "xattr_bytes"},
		{INODE_AT(1, xattr_bytes), 112, "fork_count"},
		{INODE_AT(1, flags), 1, "flags"},
		{INODE_AT(1, nlink), 0, NULL},
		{INODE_AT(0, nlink), 0, "nlink"},
		{INODE_AT(1, nlink), 0x80000000, "nlink"},
		{INODE_AT(1, generation), 0, "generation"},
		{INODE_AT(1, size), UINT64_MAX, "size"},
		{INODE_AT(1, size), FS_FILE_SIZE_MAX, NULL},
		{INODE_AT(2, size), 5, "size"},
		{INODE_AT(3, size), 1, "size"},
		{INODE_AT(4, size), 4096, "size"},
		{INODE_AT(1, blocks), UINT64_MAX, "blocks"},
	};

	MUTATIONS_RUN(SAMPLE_INODES, mutations);
}

static void test_inode_fields_by_type(void **state)
{
	const struct mutation mutations[] = {
		{INODE_AT(1, atime_nsec), 1000000000, "atime_nsec"},
		{INODE_AT(1, mtime_nsec), 1000000000, "mtime_nsec"},
		{INODE_AT(1, ctime_nsec), 1000000000, "ctime_nsec"},
		{INODE_AT(1, btime_nsec), UINT32_MAX, "btime_nsec"},
		{INODE_AT(0, parent), file_ino(4), "parent"},
		{INODE_AT(1, parent), 1, "parent"},
		{INODE_AT(4, parent), file_ino(0), "parent"}, /* the root is called 1 */
		{INODE_AT(4, parent), 2, "parent"},
		{INODE_AT(1, rdev_or_entries), 1, "rdev_or_entries"},
		{INODE_AT(4, rdev_or_entries), 2, "count"},
		{INODE_AT(1, xattr_block), 4, "xattr_block"},
		{INODE_AT(1, fork_count), 5, "fork_count"},
		{INODE_AT(2, fork_count), 1, "fork_count"},
		{INODE_AT(2, fork_bytes), 7, "size"},
		{INODE_AT(1, fork_bytes), 1, "fork_bytes"},
		{INODE_AT(5, fork_level), 8, "fork_level"},
		{INODE_AT(1, fork_level), 1, "fork_level"},
		{INODE_AT(1, reserved0), 1, "reserved"},
		{INODE_AT(1, reserved1), 1, "reserved"},
		{FORK_AT(5, 0, 8), 0, "fork_tree.root"},
		{FORK_AT(1, 8, 8), sample_first_ag, "extent.physical"},
		{FORK_AT(1, 16, 4), 0, "extent.length"},
		{FORK_AT(1, 104, 1), 0, "xattr.namespace"},
		{FORK_AT(1, 105, 1), 17, "xattr.name_length"},
		{FORK_AT(4, 16, 1), 200, "dirent.name_length"},
	};

	MUTATIONS_RUN(SAMPLE_INODES, mutations);
}

static void test_extent_fields(void **state)
{
	const size_t at = offsetof(struct tree_node, payload);
	const struct mutation leaf[] = {
		{AT(tree_node, level), 8, "level"},
		{AT(tree_node, count), 3, "count"},
		{AT(tree_node, count), UINT16_MAX, "count"},
		{AT(tree_node, bytes), 4033, "bytes"},
		{AT(tree_node, bytes), 24, "count"},
		{AT(tree_node, reserved0), 1, "reserved"},
		{AT(tree_node, reserved1), 1, "reserved"},
		{at, 8, 1, "extent.logical"},                                   /* runs into the second */
		{at + 24, 8, 1ull << 51, "extent.logical"},
		{at + 8, 8, 0, "extent.physical"},
		{at + 8, 8, UINT64_MAX, "extent.physical"},
		{at + 8, 8, sample_first_ag + 254, "extent.physical"},                 /* over the end of the AG */
		{at + 40, 4, UINT32_MAX, "extent.physical"},
		{at + 16, 4, 0, "extent.length"},
		{at + 20, 4, EXTENT_UNWRITTEN, NULL},
		{at + 20, 4, 2, "extent.flags"},
	};
	const struct mutation inner[] = {
		{AT(tree_node, count), 0, "count"},
		{at + 16, 8, 0, "pointer.key"},
		{at + 16, 8, UINT64_MAX, "pointer.key"},
		{at + 8, 8, sample_first_ag + 3, "pointer.child"},
		{at + 8, 8, sample_place(SAMPLE_EXTENT_INNER), "pointer.child"},
		{at + 24, 8, UINT64_MAX, "pointer.child"},
	};

	MUTATIONS_RUN(SAMPLE_EXTENT_LEAF, leaf);
	MUTATIONS_RUN(SAMPLE_EXTENT_INNER, inner);
}

static void test_dirent_fields(void **state)
{
	const size_t at = offsetof(struct tree_node, payload); /* records of 24, 24 and 32 bytes */
	const struct mutation leaf[] = {
		{AT(tree_node, count), 2, "count"},
		{AT(tree_node, bytes), 72, "dirent.name_length"},
		{AT(tree_node, bytes), 81, "dirent.name_length"},
		{at, 8, 5, "dirent.key"},
		{at, 8, 1ull << 63, "dirent.key"},
		{at + 24, 8, 5ull << 16, "dirent.key"},
		{at + 8, 8, FS_ROOT_INODE, "dirent.ino"},
		{at + 8, 8, file_ino(0), "dirent.ino"},
		{at + 8, 8, file_ino(15), "dirent.ino"},
		{at + 8, 8, ino_make(200, 20, 0), "dirent.ino"},
		{at + 8, 8, UINT64_MAX, "dirent.ino"},
		{at + 16, 1, 0, "dirent.name_length"},
		{at + 16, 1, 255, "dirent.name_length"},
		{at + 17, 1, DT_UNKNOWN, "dirent.type"},
		{at + 17, 1, DT_WHT, "dirent.type"},
		{at + 18, 1, '/', "dirent.name"},
		{at + 19, 1, 0, "dirent.name"},
		{at + 40, 1, 2, "dirent.name"},                                 /* ".." */
		{at + 23, 1, 1, "dirent.padding"},
	};
	const struct mutation inner[] = {
		{at + 16, 8, 1ull << 63, "pointer.key"},
		{at + 8, 8, 0, "pointer.child"},
	};

	MUTATIONS_RUN(SAMPLE_DIR_LEAF, leaf);
	MUTATIONS_RUN(SAMPLE_DIR_INNER, inner);
}

static void test_xattr_fields(void **state)
{
	const size_t at = offsetof(struct xattr_block, records); /* 8 + 8 + 8, then 8 + 16 + 16 */
	const struct mutation xattr[] = {
		{AT(xattr_block, next), 1, "next"},
		{AT(xattr_block, next), sample_place(SAMPLE_XATTR), "next"},
		{AT(xattr_block, bytes), 4033, "bytes"},
		{AT(xattr_block, bytes), 63, "xattr.value_length"},
		{AT(xattr_block, count), 1, "count"},
		{AT(xattr_block, reserved0), 1, "reserved"},
		{at, 1, 5, "xattr.namespace"},
		{at + 1, 1, 0, "xattr.name_length"},
		{at + 2, 1, XATTR_EXTERNAL, "xattr.flags"},
		{at + 2, 1, 2, "xattr.flags"},
		{at + 3, 1, 1, "xattr.reserved"},
		{at + 4, 4, 65537, "xattr.value_length"},
		{at + 4, 4, 65536, "xattr.flags"},
		{at + 4, 4, 1024, "xattr.value_length"},
		{at + 8, 1, 0, "xattr.name"},
		{at + 15, 1, 1, "xattr.padding"},
		{at + 23, 1, 1, "xattr.padding"},
	};
	const struct mutation value[] = {
		{AT(xattr_value_block, bytes), 0, "bytes"},
		{AT(xattr_value_block, bytes), 4033, "bytes"},
		{AT(xattr_value_block, index), 17, "index"},
		{AT(xattr_value_block, reserved0), 1, "reserved"},
	};

	MUTATIONS_RUN(SAMPLE_XATTR, xattr);
	MUTATIONS_RUN(SAMPLE_XATTR_VALUE, value);
}

static void test_external_xattr_names_its_blocks(void **state)
{
	struct xattr_block *block = block_new();

	sample_fill(SAMPLE_XATTR, block);
	memset(block->records, 0, sizeof(block->records));
	struct disk_xattr *xattr = (struct disk_xattr *)block->records;
	*xattr = (struct disk_xattr){.namespace = XATTR_TRUSTED, .name_length = 3, .flags = XATTR_EXTERNAL,
		.value_length = le32_set(5000)};
	memcpy(xattr->name, "big", 3);
	le64_t *blocks = (le64_t *)(block->records + 16);
	blocks[0] = le64_set(spare_block(70));
	blocks[1] = le64_set(spare_block(71));
	block->count = le16_set(1);
	block->bytes = le16_set(32);
	name_is(sample_verify(SAMPLE_XATTR, block, false), NULL, "two value blocks");
	blocks[1] = le64_set(0);
	name_is(sample_verify(SAMPLE_XATTR, block, false), "xattr.block", "block 0");
	block->bytes = le16_set(24);
	name_is(sample_verify(SAMPLE_XATTR, block, false), "xattr.value_length", "one block number missing");
	free(block);
}

static void test_orphan_fields(void **state)
{
	const struct mutation mutations[] = {
		{AT(orphan_block, next), 3, "next"},
		{AT(orphan_block, next), sample_place(SAMPLE_ORPHANS), "next"},
		{AT(orphan_block, count), 1, "count"},
		{AT(orphan_block, reserved0), 1, "reserved"},
		{AT(orphan_block, inode[3]), FS_ROOT_INODE, "inode"},
		{AT(orphan_block, inode[3]), ino_make(1, (uint32_t)sample_fixed, 0), "inode"}, /* of another AG */
		{AT(orphan_block, inode[7]), 0, "count"},
	};

	MUTATIONS_RUN(SAMPLE_ORPHANS, mutations);
}

static void test_random_damage_is_survived(void **state)
{
	uint8_t *block = block_new();

	srandom(1);
	for (unsigned round = 0; round < 20000; round++) {
		const enum sample sample = round % SAMPLE_COUNT;
		sample_fill(sample, block);
		/* The header stays, so that the body is reached; damage sits where the records are. */
		const unsigned flips = 1 + (unsigned)random() % 12;
		for (unsigned i = 0; i < flips; i++) {
			const unsigned range = random() % 4 ? 256 : FS_BLOCK_SIZE - (unsigned)sizeof(struct block_header);
			block[sizeof(struct block_header) + (unsigned)random() % range] ^= (uint8_t)(1 << random() % 8);
		}
		sample_verify(sample, block, false);
	}
	for (unsigned round = 0; round < 2000; round++) {
		const enum sample sample = round % SAMPLE_COUNT;
		sample_fill(sample, block);
		for (unsigned i = sizeof(struct block_header); i < FS_BLOCK_SIZE; i++)
			block[i] = (uint8_t)random();
		sample_verify(sample, block, false);
	}
	free(block);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_crc32c_has_the_known_answer),
		cmocka_unit_test(test_name_hash_has_47_bits_and_is_never_zero),
		cmocka_unit_test(test_good_blocks_are_accepted),
		cmocka_unit_test(test_every_flipped_bit_fails_the_crc),
		cmocka_unit_test(test_header_fields),
		cmocka_unit_test(test_block_at_a_wrong_place),
		cmocka_unit_test(test_owner_is_compared_when_it_is_known),
		cmocka_unit_test(test_super_fields),
		cmocka_unit_test(test_state_fields),
		cmocka_unit_test(test_ag_header_fields),
		cmocka_unit_test(test_map_fields),
		cmocka_unit_test(test_inode_fields),
		cmocka_unit_test(test_inode_fields_by_type),
		cmocka_unit_test(test_extent_fields),
		cmocka_unit_test(test_dirent_fields),
		cmocka_unit_test(test_xattr_fields),
		cmocka_unit_test(test_external_xattr_names_its_blocks),
		cmocka_unit_test(test_orphan_fields),
		cmocka_unit_test(test_random_damage_is_survived),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
