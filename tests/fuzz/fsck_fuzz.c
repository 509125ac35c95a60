/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * Hostile images into the checker and the repair. Input: fuzz_image.h; flags: bit 0 trust a copy of the superblock, bit 1 some
 * blocks cannot be read, bit 2 mount it in the end, bit 3 check with several jobs; the rest: numbers of those blocks
 * (2 bytes each).
 * What must hold: a check ends and writes nothing, and says the same, word for word, with several jobs; repair -p either
 * refuses and writes nothing, or leaves nothing to find; repair -y leaves nothing to find, and run again drops nothing; what
 * had no finding loses nothing; what was repaired can be mounted, looked at and worked on without a bad block, and is still
 * without damage then.
 * Covers: mkfs/fsck.c mkfs/fsck_super.c mkfs/fsck_journal.c mkfs/fsck_ag.c mkfs/fsck_map.c mkfs/fsck_inode.c mkfs/fsck_tree.c
 *   mkfs/fsck_xattr.c mkfs/fsck_dir.c mkfs/fsck_links.c mkfs/repair*.c
 * Runs: 400
 */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include "mkfs/fsck.h"
#include "reactor/memory.h"
#include "tests/fuzz/fuzz_tour.h"

enum { UNREADABLE_MAX = 4 };
enum flag { TRUST_COPY = 1, UNREADABLE = 2, MOUNT = 4, JOBS = 8 };

struct image {
	uint8_t *memory;
	uint64_t unreadable[UNREADABLE_MAX];
	unsigned unreadable_count, writes;
	bool writable;
	uint64_t said;                  /* hash of all lines */
};

/* ---- the image as a device ---- */

static int image_read(void *arg, uint64_t block, void *data)
{
	const struct image *image = arg;
	if (block >= FUZZ_IMAGE_BLOCKS)
		return -EINVAL;
	for (unsigned i = 0; i < image->unreadable_count; i++)
		if (image->unreadable[i] == block) {
			if (fuzz_verbose)
				fprintf(stderr, "block %llu cannot be read\n", (unsigned long long)block);
			return -EIO;
		}
	memcpy(data, image->memory + block * FS_BLOCK_SIZE, FS_BLOCK_SIZE);
	return 0;
}

static int image_write(void *arg, uint64_t block, const void *data)
{
	struct image *image = arg;
	FUZZ_REQUIRE(block < FUZZ_IMAGE_BLOCKS, "block %llu is written", (unsigned long long)block);
	image->writes++;
	memcpy(image->memory + block * FS_BLOCK_SIZE, data, FS_BLOCK_SIZE);
	for (unsigned i = 0; i < image->unreadable_count; i++)
		if (image->unreadable[i] == block)
			image->unreadable[i] = UINT64_MAX;
	return 0;
}

static int image_flush(void *arg) { return 0; }

/* What people get to see. */
static void require_plain(const char *text)
{
	for (const char *at = text; *at; at++)
		FUZZ_REQUIRE((uint8_t)*at >= ' ' && *at != 0x7f, "control character 0x%02x is shown", (uint8_t)*at);
}

static void show(void *arg, const char *line)
{
	struct image *image = arg;
	require_plain(line);
	for (const char *at = line; *at; at++)
		image->said = (image->said ^ (uint8_t)*at) * 0x100000001b3;
	if (fuzz_verbose)
		fprintf(stderr, "%s\n", line);
}

enum { JOBS_COUNT = 3 };
struct job {
	void (*fn)(void *arg);
	void *arg;
};

static void *job_run(void *arg)
{
	const struct job *job = arg;
	job->fn(job->arg);
	return NULL;
}

static void jobs_run(void *arg, unsigned count, void (*fn)(void *job_arg), void *job_arg)
{
	pthread_t thread[JOBS_COUNT];
	struct job job = {fn, job_arg};
	FUZZ_REQUIRE(count <= JOBS_COUNT, "%u jobs", count);
	for (unsigned i = 0; i < count; i++)
		FUZZ_REQUIRE(!pthread_create(&thread[i], NULL, job_run, &job), "no thread");
	for (unsigned i = 0; i < count; i++)
		pthread_join(thread[i], NULL);
}

static struct fsck_result check_with(struct image *image, uint64_t super_block, unsigned jobs, int *out_error)
{
	const struct fsck_options options = {
		.device_blocks = FUZZ_IMAGE_BLOCKS, .replay_in_memory = true, .super_block = super_block, .jobs = jobs};
	const struct fsck_io io = {.read = image_read, .finding = show, .run = jobs ? jobs_run : NULL, .arg = image};
	struct fsck_result result;
	image->said = 0xcbf29ce484222325;
	*out_error = fsck_check(&options, &io, &result);
	require_plain(result.label);
	require_plain(result.recorded_error_text);
	return result;
}

static struct fsck_result check(struct image *image, uint64_t super_block, int *out_error)
{
	return check_with(image, super_block, 0, out_error);
}

static void check_with_jobs(struct image *image, uint64_t super_block, const struct fsck_result *alone)
{
	const uint64_t said = image->said;
	int error;
	const struct fsck_result result = check_with(image, super_block, JOBS_COUNT, &error);
	FUZZ_REQUIRE(!error && image->said == said && !memcmp(&result, alone, sizeof(result)),
		"several jobs: error %d, %llu findings, alone %llu", error, (unsigned long long)result.findings,
		(unsigned long long)alone->findings);
}

static struct fsck_repair_result repair(struct image *image, uint64_t super_block, bool lossless, int *out_error)
{
	const struct fsck_repair_options options = {
		.device_blocks = FUZZ_IMAGE_BLOCKS, .super_block = super_block, .lossless = lossless, .now_sec = 1800000000};
	const struct fsck_repair_io io = {image_read, image_write, image_flush, show, NULL, image};
	struct fsck_repair_result result;
	image->writes = 0;
	*out_error = fsck_repair(&options, &io, &result);
	return result;
}

static void check_clean(struct image *image, const char *when)
{
	int error;
	const struct fsck_result result = check(image, 0, &error);
	FUZZ_REQUIRE(!error && !result.findings, "error %d, %llu findings %s", error, (unsigned long long)result.findings, when);
}

/* ---- the steps ---- */

static void preen(const struct fuzz_recipe *recipe, const struct image *original, uint64_t super_block, bool intact)
{
	struct image image = *original;
	image.memory = fuzz_image_copy(recipe, 0);
	int error;
	const struct fsck_repair_result result = repair(&image, super_block, true, &error);
	FUZZ_REQUIRE(!intact || (!error && !result.refused && !result.losses), "preening an intact image: error %d", error);
	if (error || result.refused || result.no_superblock)
		FUZZ_REQUIRE(error || !image.writes, "%u writes of what was refused", image.writes);
	else
		check_clean(&image, "after preening");
}

static void mount_it(struct image *image, bool two)
{
	static uint8_t data[9000];
	struct machine machine = {.sim = *fuzz_sim(two ? 2 : 1), .memory = image->memory, .size = FUZZ_IMAGE_BYTES,
		.owners = two ? 2 : 1, .cred = {.uid = 1000, .gid = 1000}};
	const struct fs_mount_options options = {.requests_max = 16, .inodes_max = 512};
	static struct fuzz_tour tour;
	struct fs_entry directory, file;
	struct fs_status status;
	if (!tour.buffer)
		tour.buffer = dma_zalloc(FUZZ_TOUR_BYTES, 4096);
	FUZZ_REQUIRE(sim_mount(&machine.sim, &options) == 0, "mount after the repair: %s", machine.sim.message);
	fuzz_tour(&machine, &tour);
	if (call_create(&machine, FS_ROOT_INODE, "after the repair", S_IFDIR | 0755, &directory) == 0 &&
		call_create(&machine, directory.ino, "file", S_IFREG | 0644, &file) == 0) {
		(void)call_write(&machine, file.ino, data, 100, sizeof(data));
		(void)call_setxattr(&machine, file.ino, "user.a", data, 2000);
		(void)call_rename(&machine, directory.ino, "file", FS_ROOT_INODE, "moved", 0);
		(void)call_rmdir(&machine, FS_ROOT_INODE, "after the repair");
	}
	fs_get_status(machine.sim.fs, &status);
	const int error = sim_unmount(&machine.sim);
	FUZZ_REQUIRE(!status.corrupt_blocks, "the mount finds a bad block where the checker finds nothing");
	FUZZ_REQUIRE(!error, "unmount after the repair: error %d", error);
	check_clean(image, "after the repair and some work");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_recipe recipe;
	fuzz_recipe_read(data, size, &recipe);
	const struct fuzz_base *base = fuzz_base(recipe.base);
	struct image image = {.memory = fuzz_image_make(&recipe)};
	for (size_t i = 0; recipe.flags & UNREADABLE && i + 1 < recipe.rest_size && image.unreadable_count < UNREADABLE_MAX; i += 2)
		image.unreadable[image.unreadable_count++] = (recipe.rest[i] | (unsigned)recipe.rest[i + 1] << 8) % FUZZ_IMAGE_BLOCKS;
	const uint64_t super_block = recipe.flags & TRUST_COPY ? base->block[BLOCK_SUPER][1] : 0;
	int error;
	const struct fsck_result before = check(&image, super_block, &error);
	const bool intact = !error && !before.findings && !before.fatal;
	FUZZ_REQUIRE(intact || recipe.patch_count || image.unreadable_count || recipe.base == FUZZ_BASE_GROWN,
		"a base image has findings");
	if (recipe.flags & JOBS && !error)
		check_with_jobs(&image, super_block, &before);
	preen(&recipe, &image, super_block, intact);
	const struct fsck_repair_result first = repair(&image, super_block, false, &error);
	FUZZ_REQUIRE(!error || error == -EIO || error == -ENOSPC, "repair ends with error %d", error);
	FUZZ_REQUIRE(!intact || !first.losses, "the repair of an intact image drops something");
	if (error || first.no_superblock || image.unreadable_count)
		return 0;
	check_clean(&image, "after the repair");
	const struct fsck_repair_result second = repair(&image, 0, false, &error);
	FUZZ_REQUIRE(!error && !second.losses && !second.reconnected, "a second repair: error %d, %llu losses", error,
		(unsigned long long)second.losses);
	if (recipe.flags & MOUNT)
		mount_it(&image, recipe.flags & 16);
	return 0;
}
