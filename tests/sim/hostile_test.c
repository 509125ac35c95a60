/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Goal: an image whose metadata lies under good checksums may be refused or answer EUCLEAN, but never crashes the
 * filesystem, makes it hang, or read and write outside of its memory; and fsck.lanefs repairs what comes of it.
 * Method: an image made by the filesystem, a few fields of random metadata blocks changed and the blocks sealed
 * again; then it is mounted, every name that can be reached is looked at and worked on, it is unmounted, and
 * repaired. hostile_test [SEEDS [FIRST]].
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "fs/verify.h"
#include "reactor/log.h"
#include "reactor/memory.h"
#include "tests/sim/calls.h"

enum { SIZE_MIB = 24, FILES = 60, BUFFER_BYTES = 64 << 10, VISITS_MAX = 400, LIES_MAX = 3, SECONDS_MAX = 60 };

static unsigned seeds = 150, first_seed = 1;
static uint8_t *buffer, *original;
static uint64_t *metadata;
static size_t metadata_count;
static uint64_t seed_at_work;
static unsigned mounted, refused;

/* ---- the image ---- */

static void populate(struct machine *machine)
{
	struct fs_entry directory, entry;
	char name[64];
	assert_int_equal(call_create(machine, FS_ROOT_INODE, "deep", S_IFDIR | 0755, &directory), 0);
	for (unsigned i = 0; i < FILES; i++) {
		const uint64_t in = i % 2 ? directory.ino : (uint64_t)FS_ROOT_INODE;
		snprintf(name, sizeof(name), "a-rather-long-name-for-a-file-%u", i);
		assert_int_equal(call_create(machine, in, name, i % 10 == 9 ? S_IFDIR | 0755 : S_IFREG | 0644, &entry), 0);
		if (i % 10 == 9)
			directory = entry;
		for (unsigned piece = 0; i % 10 != 9 && piece < (i % 4 ? 1u : 12u); piece++)
			assert_int_equal(call_write(machine, entry.ino, buffer, (uint64_t)piece * 3 * FS_BLOCK_SIZE, 100 + i * 50), 0);
		if (i % 7 == 3)
			assert_int_equal(call_setxattr(machine, entry.ino, "user.large", buffer, 3000), 0);
		if (i % 7 == 4)
			assert_int_equal(call_setxattr(machine, entry.ino, "user.small", buffer, 20), 0);
	}
	assert_int_equal(call_symlink(machine, FS_ROOT_INODE, "link", "target", &entry), 0);
}

static void original_make(void)
{
	struct machine machine;
	machine_start(&machine, 1, MIB(SIZE_MIB));
	populate(&machine);
	assert_int_equal(sim_unmount(&machine.sim), 0);
	original = malloc(machine.size);
	memcpy(original, machine.memory, machine.size);
	assert_int_equal(sim_mount(&machine.sim, &machine.mount), 0);
	machine_stop(&machine);
	const struct fs_super *super = (const struct fs_super *)(original + FS_SUPER_BLOCK * FS_BLOCK_SIZE);
	metadata = calloc(machine.size / FS_BLOCK_SIZE, sizeof(*metadata));
	for (uint64_t block = FS_SUPER_BLOCK; block < machine.size / FS_BLOCK_SIZE; block++) {
		const struct block_header *header = (const struct block_header *)(original + block * FS_BLOCK_SIZE);
		if (le32_get(header->magic) == FS_BLOCK_MAGIC && le64_get(header->fsid) == le64_get(super->fsid) &&
			le64_get(header->block) == block)
			metadata[metadata_count++] = block;
	}
}

/* A field of 1 to 8 bytes: a bit, a random value, a small one, a large one, or one taken from elsewhere in the block. */
static void lie(uint8_t *image, uint64_t block, uint64_t *random)
{
	uint8_t *bytes = image + block * FS_BLOCK_SIZE;
	const unsigned size = 1u << sim_rand(random) % 4;
	/* Mostly where the fields are; free slots and unused space are large. */
	const size_t limit = sim_rand(random) % 4 ? 640 : FS_BLOCK_SIZE;
	const size_t at = align_down(16 + sim_rand(random) % (limit - 24), size);
	uint64_t value = sim_rand(random);
	switch (sim_rand(random) % 5) {
	case 0:
		bytes[at] ^= (uint8_t)(1u << value % 8);
		block_seal(bytes, le64_get(((struct block_header *)bytes)->sequence));
		return;
	case 1:
		value %= 256;
		break;
	case 2:
		value = ~(value % 256);
		break;
	case 3:
		memcpy(&value, bytes + align_down(value % (FS_BLOCK_SIZE - 8), 8), sizeof(value));
		break;
	default:
		break;
	}
	memcpy(bytes + at, &value, size);
	block_seal(bytes, le64_get(((struct block_header *)bytes)->sequence));
}

/* ---- working on it: answers do not matter ---- */

struct visit {
	uint64_t ino;
	unsigned type;
	char name[FS_NAME_MAX + 1];
};
struct tour {
	struct visit visit[VISITS_MAX];
	unsigned count;
	uint64_t directory;
};

static bool note_entry(const struct fs_dirent *dirent, void *arg)
{
	struct tour *tour = arg;
	if (dirent->cookie <= FS_COOKIE_DOTDOT)
		return true;
	if (tour->count == VISITS_MAX)
		return false;
	struct visit *visit = &tour->visit[tour->count++];
	visit->ino = dirent->ino;
	visit->type = dirent->type;
	assert_true(dirent->name.length <= FS_NAME_MAX);
	memcpy(visit->name, dirent->name.bytes, dirent->name.length);
	visit->name[dirent->name.length] = 0;
	return true;
}

static void look_at(struct machine *machine, uint64_t ino)
{
	struct fs_attr attr;
	uint32_t length;
	unsigned link_length;
	uint64_t place;
	(void)call_getattr(machine, ino, &attr);
	(void)call_read(machine, ino, buffer, 0, BUFFER_BYTES, &length);
	(void)call_readlink(machine, ino, (char *)buffer, &link_length);
	(void)call_getxattr(machine, ino, "user.large", buffer, 4096, &length);
	(void)call_getxattr(machine, ino, "user.small", buffer, 4096, &length);
	(void)call_seek(machine, ino, 4 /* SEEK_HOLE */, 0, &place);
	(void)call_seek(machine, ino, 3 /* SEEK_DATA */, 5000, &place);
}

static void work_on(struct machine *machine, const struct tour *tour, unsigned index)
{
	const struct visit *visit = &tour->visit[index];
	struct fs_entry entry;
	memset(buffer, (int)index, 9000);
	switch (index % 6) {
	case 0:
		(void)call_write(machine, visit->ino, buffer, index * 1000, 9000);
		break;
	case 1:
		(void)call_truncate(machine, visit->ino, index * 777);
		break;
	case 2:
		(void)call_setxattr(machine, visit->ino, "user.large", buffer, 5000);
		break;
	case 3:
		(void)call_unlink(machine, tour->directory, visit->name);
		break;
	case 4:
		(void)call_rename(machine, tour->directory, visit->name, FS_ROOT_INODE, "renamed", 0);
		break;
	default:
		if (call_create(machine, visit->ino, "made", S_IFREG | 0600, &entry) == 0)
			(void)call_write(machine, entry.ino, buffer, 50000, 9000);
		(void)call_rmdir(machine, tour->directory, visit->name);
	}
}

/* Every directory that can be reached, each once. */
static void tour_all(struct machine *machine)
{
	static uint64_t directories[VISITS_MAX];
	static struct tour tour;
	unsigned count = 1;
	directories[0] = FS_ROOT_INODE;
	for (unsigned next = 0; next < count; next++) {
		tour.count = 0;
		tour.directory = directories[next];
		(void)call_readdir(machine, tour.directory, 0, true, note_entry, &tour);
		for (unsigned i = 0; i < tour.count; i++) {
			bool known = tour.visit[i].type != 4 /* DT_DIR */ || count == VISITS_MAX;
			for (unsigned at = 0; at < count && !known; at++)
				known = directories[at] == tour.visit[i].ino;
			if (!known)
				directories[count++] = tour.visit[i].ino;
			look_at(machine, tour.visit[i].ino);
		}
		for (unsigned i = 0; i < tour.count; i++)
			work_on(machine, &tour, i);
	}
}

/* ---- repairing it ---- */

static int image_read(void *arg, uint64_t block, void *data)
{
	memcpy(data, (const uint8_t *)arg + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

static int image_write(void *arg, uint64_t block, const void *data)
{
	assert_true(block < MIB(SIZE_MIB) / FS_BLOCK_SIZE);
	memcpy((uint8_t *)arg + block * FS_BLOCK_SIZE, data, FS_BLOCK_SIZE);
	return 0;
}

static int image_flush(void *arg) { return 0; }

static void seed_check(uint64_t seed)
{
	uint64_t random = seed * 31337;
	uint8_t *image = malloc(MIB(SIZE_MIB));
	const unsigned owners = 1 + seed % 2;
	struct machine machine = {.memory = image, .size = MIB(SIZE_MIB), .owners = owners, .cred = {.uid = 1000, .gid = 1000}};
	const struct sim_options options = {.owners = owners, .seed = seed, .memory = image, .size = MIB(SIZE_MIB)};
	memcpy(image, original, MIB(SIZE_MIB));
	for (uint64_t lies = 1 + sim_rand(&random) % LIES_MAX; lies > 0; lies--)
		lie(image, metadata[sim_rand(&random) % metadata_count], &random);
	alarm(SECONDS_MAX);
	sim_create(&machine.sim, &options);
	if (sim_mount(&machine.sim, &machine.mount) == 0) {
		mounted++;
		tour_all(&machine);
		(void)sim_unmount(&machine.sim);
	} else {
		refused++;
		assert_true(machine.sim.message[0]);
	}
	sim_destroy(&machine.sim);
	struct fsck_repair_result result;
	const struct fsck_repair_options repair = {.device_blocks = MIB(SIZE_MIB) / FS_BLOCK_SIZE};
	const struct fsck_repair_io io = {image_read, image_write, image_flush, NULL, NULL, image};
	assert_int_equal(fsck_repair(&repair, &io, &result), 0);
	if (!result.no_superblock)
		assert_int_equal(sim_fsck(image, MIB(SIZE_MIB), false, "after the repair"), 0);
	alarm(0);
	free(image);
}

/* Two claims on one block; two entries of one name, the only one of their inode. */
static const uint64_t found_something[] = {16, 11942};

static void test_lies_do_no_harm(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(found_something) && seeds > 1; i++)
		seed_check(seed_at_work = found_something[i]);
	for (seed_at_work = first_seed; seed_at_work < first_seed + seeds; seed_at_work++)
		seed_check(seed_at_work);
	seed_at_work = 0;
	assert_true(seeds == 1 || mounted > refused); /* else nothing was worked on */
}

static void report(void)
{
	if (seed_at_work)
		fprintf(stderr, "repeat it: hostile_test 1 %llu\n", (unsigned long long)seed_at_work);
}

static void on_death(int signal_number)
{
	report();
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

static int seed_report(void **state)
{
	report();
	return 0;
}

static void log_nothing(enum log_level level, const char *line, void *arg) {}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test_teardown(test_lies_do_no_harm, seed_report)};
	if (argc > 1)
		seeds = (unsigned)strtoul(argv[1], NULL, 10);
	if (argc > 2)
		first_seed = (unsigned)strtoul(argv[2], NULL, 10);
	buffer = dma_zalloc(BUFFER_BYTES + 4096, 4096);
	original_make();
	if (seeds > 1)
		log_set_sink(log_nothing, NULL); /* every damage is a line */
	signal(SIGABRT, on_death);
	signal(SIGALRM, on_death);
	const int failed = cmocka_run_group_tests(tests, NULL, NULL);
	print_message("%u mounted, %u refused\n", mounted, refused);
	dma_free(buffer);
	free(original);
	free(metadata);
	return failed;
}
