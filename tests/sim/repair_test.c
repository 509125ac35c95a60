/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: after a repair of a damaged filesystem that was really used, fsck is clean, the filesystem mounts and works,
 * and every file whose own metadata was not hit has its contents and attributes, wherever its name is now. Method:
 * images made by the filesystem itself (large directories, extent trees, xattrs in blocks, links, unlinked files;
 * unmounted, or with a journal to replay), seeded damage of their metadata blocks (bits, zeroes, garbage, blocks swapped or
 * written to the wrong place) and of the journal (parts of it lost), repair, fsck, mount, compare by inode number, work,
 * unmount, fsck. repair_test [SEEDS [FIRST]].
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <xxhash.h>

#include "reactor/memory.h"
#include "tests/sim/calls.h"

enum { SIZE_MIB = 24, FILES = 150, FILE_BYTES_MAX = 96 << 10, DAMAGES_MAX = 6, HITS_MAX = 2 * DAMAGES_MAX };

static unsigned seeds = 250, first_seed = 1;

struct file {
	uint64_t ino, size, hash;
	uint32_t mode, uid;
};

/* One image and what is known of it. */
struct original {
	uint8_t *memory;
	uint64_t size;
	struct file file[FILES];
	unsigned files;
	bool unmounted;
	uint64_t *metadata;             /* numbers of the blocks with a good header, those of free space included */
	size_t metadata_count;
};

static uint8_t *buffer;

/* ---- making it ---- */

static void name_of(char *name, size_t size, unsigned number)
{
	snprintf(name, size, "%04u-a-name-that-takes-some-room-in-a-directory-%04u", number, number * 7919 % 10000);
}

static void file_fill(struct machine *machine, uint64_t ino, unsigned number, uint64_t *random)
{
	const unsigned pieces = number % 5 == 0 ? 20 : 1 + number % 3;
	for (unsigned i = 0; i < pieces; i++) {
		const uint32_t length = number % 7 == 0 ? 40 : 1 + (uint32_t)(sim_rand(random) % 9000);
		for (uint32_t at = 0; at < length; at++)
			buffer[at] = (uint8_t)(number + i + at);
		assert_int_equal(call_write(machine, ino, buffer, (uint64_t)i * 3 * FS_BLOCK_SIZE, length), 0);
	}
}

static void original_populate(struct machine *machine, uint64_t *random)
{
	struct fs_entry directory[4], entry;
	char name[128];
	for (unsigned i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "directory%u", i);
		assert_int_equal(call_create(machine, i == 3 ? directory[2].ino : FS_ROOT_INODE, name, S_IFDIR | 0755,
			&directory[i]), 0);
	}
	for (unsigned i = 0; i < FILES; i++) {
		name_of(name, sizeof(name), i);
		assert_int_equal(call_create(machine, directory[i % 4].ino, name, S_IFREG | 0640, &entry), 0);
		file_fill(machine, entry.ino, i, random);
		if (i % 6 == 1)
			assert_int_equal(call_link(machine, directory[(i + 1) % 4].ino, name, entry.ino, &entry), 0);
		name[0] = 'L';
		if (i % 9 == 2)
			assert_int_equal(call_symlink(machine, directory[0].ino, name, "somewhere/else", &entry), 0);
	}
	/* Unlinked with its count kept: an orphan in an image that was not unmounted. */
	assert_int_equal(call_create(machine, FS_ROOT_INODE, "orphan", S_IFREG | 0600, &entry), 0);
	file_fill(machine, entry.ino, 5, random);
	assert_int_equal(call_unlink(machine, FS_ROOT_INODE, "orphan"), 0);
}

static uint64_t content_hash(struct machine *machine, uint64_t ino)
{
	uint32_t length = 0;
	assert_int_equal(call_read(machine, ino, buffer, 0, FILE_BYTES_MAX, &length), 0);
	return XXH3_64bits(buffer, length);
}

static void original_look(struct original *original, struct machine *machine)
{
	char name[128];
	struct fs_entry directory, entry;
	assert_int_equal(call_lookup(machine, FS_ROOT_INODE, "directory2", &directory), 0);
	for (unsigned i = 0; i < FILES; i++) {
		char parent[32];
		snprintf(parent, sizeof(parent), "directory%u", i % 4);
		const uint64_t above = i % 4 == 3 ? directory.ino : FS_ROOT_INODE;
		struct fs_entry in;
		assert_int_equal(call_lookup(machine, above, parent, &in), 0);
		name_of(name, sizeof(name), i);
		assert_int_equal(call_lookup(machine, in.ino, name, &entry), 0);
		original->file[original->files++] = (struct file){entry.ino, entry.attr.size, content_hash(machine, entry.ino),
			entry.attr.mode, entry.attr.uid};
	}
}

static bool is_metadata(const struct original *original, uint64_t block, uint64_t fsid)
{
	const struct block_header *header = (const struct block_header *)(original->memory + block * FS_BLOCK_SIZE);
	return le32_get(header->magic) == FS_BLOCK_MAGIC && le64_get(header->fsid) == fsid && le64_get(header->block) == block;
}

static void metadata_list(struct original *original)
{
	const struct fs_super *super = (const struct fs_super *)(original->memory + FS_SUPER_BLOCK * FS_BLOCK_SIZE);
	original->metadata = calloc(original->size / FS_BLOCK_SIZE, sizeof(uint64_t));
	for (uint64_t block = FS_SUPER_BLOCK; block < original->size / FS_BLOCK_SIZE; block++)
		if (is_metadata(original, block, le64_get(super->fsid)))
			original->metadata[original->metadata_count++] = block;
}

static void original_make(struct original *original, unsigned owners, bool unmounted)
{
	struct machine machine;
	uint64_t random = owners;
	machine_start(&machine, owners, MIB(SIZE_MIB));
	original_populate(&machine, &random);
	original_look(original, &machine);
	assert_int_equal(call_sync(&machine), 0);
	original->size = machine.size;
	original->unmounted = unmounted;
	original->memory = malloc(machine.size);
	if (unmounted)
		assert_int_equal(sim_unmount(&machine.sim), 0);
	memcpy(original->memory, machine.memory, machine.size);
	if (unmounted)
		assert_int_equal(sim_mount(&machine.sim, &machine.mount), 0);
	machine_stop(&machine);
	metadata_list(original);
}

/* ---- damaging and repairing it ---- */

enum damage {
	DAMAGE_BIT, DAMAGE_ZERO, DAMAGE_GARBAGE, DAMAGE_SWAP,
	DAMAGE_MISDIRECTED,             /* another block was written over it */
	DAMAGE_JOURNAL,
	DAMAGE_COUNT,
};

struct image {
	uint8_t *memory;
	uint64_t blocks;
};

static int image_read(void *arg, uint64_t block, void *data)
{
	const struct image *image = arg;
	if (block >= image->blocks)
		return -5;
	memcpy(data, image->memory + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

static int image_write(void *arg, uint64_t block, const void *data)
{
	const struct image *image = arg;
	assert_true(block < image->blocks);
	memcpy(image->memory + block * FS_BLOCK_SIZE, data, FS_BLOCK_SIZE);
	return 0;
}

static int image_flush(void *arg) { return 0; }

static unsigned damages[DAMAGE_COUNT]; /* of each kind, so far */

/* A stretch of the journal becomes zeroes, or what no group can be. */
static void journal_lose(const struct original *original, uint8_t *memory, uint64_t *random, uint64_t *out_hit)
{
	const struct fs_super *super = (const struct fs_super *)(original->memory + FS_SUPER_BLOCK * FS_BLOCK_SIZE);
	const uint64_t blocks = le64_get(super->first_ag_block) - FS_JOURNAL_FIRST_BLOCK;
	/* What was written last stands at the beginning of a large ring. */
	const uint64_t first = sim_rand(random) % 2 ? 0 : sim_rand(random) % MIN(blocks, (uint64_t)64);
	const uint64_t count = 1 + sim_rand(random) % (sim_rand(random) % 2 ? blocks - first : MIN(blocks - first, (uint64_t)4));
	*out_hit = FS_JOURNAL_FIRST_BLOCK + first;
	memset(memory + *out_hit * FS_BLOCK_SIZE, sim_rand(random) % 2 ? 0 : 0xa5, count * FS_BLOCK_SIZE);
}

/* One damage; adds the blocks that it hits. */
static void image_hit(const struct original *original, uint8_t *memory, uint64_t *random, uint64_t *hit, unsigned *hits)
{
	const uint64_t block = original->metadata[sim_rand(random) % original->metadata_count];
	const uint64_t other = original->metadata[sim_rand(random) % original->metadata_count];
	uint8_t *bytes = memory + block * FS_BLOCK_SIZE, *others = memory + other * FS_BLOCK_SIZE, copy[FS_BLOCK_SIZE];
	const enum damage damage = sim_rand(random) % DAMAGE_COUNT;
	damages[damage]++;
	hit[(*hits)++] = block;
	switch (damage) {
	case DAMAGE_BIT:
		bytes[sim_rand(random) % FS_BLOCK_SIZE] ^= (uint8_t)(1u << sim_rand(random) % 8);
		break;
	case DAMAGE_ZERO:
		memset(bytes, 0, FS_BLOCK_SIZE);
		break;
	case DAMAGE_GARBAGE:
		for (unsigned i = 0; i < FS_BLOCK_SIZE; i++)
			bytes[i] = (uint8_t)sim_rand(random);
		break;
	case DAMAGE_SWAP:
		memcpy(copy, bytes, FS_BLOCK_SIZE);
		memcpy(bytes, others, FS_BLOCK_SIZE);
		memcpy(others, copy, FS_BLOCK_SIZE);
		hit[(*hits)++] = other;
		break;
	case DAMAGE_MISDIRECTED:
		memcpy(bytes, others, FS_BLOCK_SIZE);
		break;
	case DAMAGE_JOURNAL:
	case DAMAGE_COUNT:
		journal_lose(original, memory, random, &hit[*hits - 1]);
	}
}

/* Whether a block of the inode's own was hit: the one it stands in, or one that names it as its owner. */
static bool file_hit(const struct original *original, const struct file *file, const uint64_t *hit, unsigned hits)
{
	const struct fs_super *super = (const struct fs_super *)(original->memory + FS_SUPER_BLOCK * FS_BLOCK_SIZE);
	const uint64_t place = ag_first_block(super, ino_ag(file->ino)) + ino_ag_block(file->ino);
	for (unsigned i = 0; i < hits; i++) {
		if (!original->unmounted && hit[i] < le64_get(super->first_ag_block))
			return true; /* a lost state block is a lost journal */
		const struct block_header *header = (const struct block_header *)(original->memory + hit[i] * FS_BLOCK_SIZE);
		if (hit[i] == place || (le16_get(header->type) > BLOCK_INODES && le64_get(header->owner) == file->ino))
			return true;
	}
	return false;
}

static void works(struct machine *machine)
{
	struct fs_entry entry;
	memset(buffer, 'w', 30000);
	assert_int_equal(call_create(machine, FS_ROOT_INODE, "made after the repair", S_IFREG | 0600, &entry), 0);
	assert_int_equal(call_write(machine, entry.ino, buffer, 0, 30000), 0);
	assert_int_equal(call_create(machine, FS_ROOT_INODE, "a directory too", S_IFDIR | 0700, &entry), 0);
}

static unsigned compared;

static void image_check(const struct original *original, uint8_t *memory, unsigned owners, const uint64_t *hit, unsigned hits)
{
	struct machine machine = {.memory = memory, .size = original->size, .owners = owners, .cred = {.uid = 1000, .gid = 1000}};
	const struct sim_options options = {.owners = owners, .seed = owners, .memory = memory, .size = original->size};
	sim_create(&machine.sim, &options);
	if (sim_mount(&machine.sim, &machine.mount))
		fail_msg("mount after the repair: %s", machine.sim.message);
	for (unsigned i = 0; i < original->files; i++) {
		const struct file *file = &original->file[i];
		struct fs_attr attr;
		if (file_hit(original, file, hit, hits))
			continue;
		compared++;
		assert_int_equal(call_getattr(&machine, file->ino, &attr), 0);
		assert_int_equal(attr.size, file->size);
		assert_int_equal(attr.mode, file->mode);
		assert_int_equal(attr.uid, file->uid);
		assert_int_equal(content_hash(&machine, file->ino), file->hash);
	}
	works(&machine);
	assert_int_equal(sim_unmount(&machine.sim), 0);
	sim_destroy(&machine.sim);
	assert_int_equal(sim_fsck(memory, original->size, false, "after the repair and some work"), 0);
}

static uint64_t seed_at_work;

static void seed_check(const struct original *original, uint64_t seed, unsigned owners)
{
	uint64_t random = seed * 77777, hit[HITS_MAX];
	struct image image = {malloc(original->size), original->size / FS_BLOCK_SIZE};
	unsigned hits = 0;
	struct fsck_repair_result result;
	const struct fsck_repair_options options = {.device_blocks = image.blocks};
	const struct fsck_repair_io io = {image_read, image_write, image_flush, NULL, NULL, &image};
	memcpy(image.memory, original->memory, original->size);
	for (uint64_t left = 1 + sim_rand(&random) % DAMAGES_MAX; left > 0; left--)
		image_hit(original, image.memory, &random, hit, &hits);
	assert_int_equal(fsck_repair(&options, &io, &result), 0);
	if (!result.no_superblock) {
		assert_int_equal(sim_fsck(image.memory, original->size, false, "after the repair"), 0);
		image_check(original, image.memory, owners, hit, hits);
	}
	free(image.memory);
}

static void run(unsigned owners, bool unmounted)
{
	static struct original original;
	original = (struct original){0};
	original_make(&original, owners, unmounted);
	for (seed_at_work = first_seed; seed_at_work < first_seed + seeds; seed_at_work++)
		seed_check(&original, seed_at_work, owners);
	seed_at_work = 0;
	assert_true(compared > 0);
	for (unsigned i = 0; i < DAMAGE_COUNT && seeds > 20; i++)
		assert_true(damages[i] > 0);
	free(original.memory);
	free(original.metadata);
}

static void test_unmounted_1(void **state) { run(1, true); }
static void test_unmounted_2(void **state) { run(2, true); }
static void test_with_a_journal(void **state) { run(2, false); }

static int seed_report(void **state)
{
	if (seed_at_work)
		print_message("repeat it: repair_test 1 %llu\n", (unsigned long long)seed_at_work);
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_unmounted_1, seed_report),
		cmocka_unit_test_teardown(test_unmounted_2, seed_report),
		cmocka_unit_test_teardown(test_with_a_journal, seed_report),
	};
	if (argc > 1)
		seeds = (unsigned)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		first_seed = (unsigned)strtoul(argv[2], NULL, 10);
	buffer = dma_alloc(FILE_BYTES_MAX, 4096);
	const int failed = cmocka_run_group_tests(tests, NULL, NULL);
	print_message("%u files compared\n", compared);
	dma_free(buffer);
	return failed;
}
